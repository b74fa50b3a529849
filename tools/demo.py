"""`make demo`: the sample photo to a real file and back, a table, and a picture to look at."""

from __future__ import annotations

import io
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import laconic
from laconic.search import psnr_of

QUALITY = 25


def main() -> None:
    """Write demo/sample.lac, demo/sample.png and demo/side-by-side.png."""
    out = Path("demo")
    out.mkdir(exist_ok=True)
    photo = Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB")
    pixels = np.asarray(photo)
    codec = laconic.Codec()
    codec.decompress(codec.compress(pixels[:64, :64]))  # load the networks and kernels
    start = time.perf_counter()
    data = codec.compress(photo, quality=QUALITY)
    (out / "sample.lac").write_bytes(data)
    middle = time.perf_counter()
    decoded = codec.decompress(out / "sample.lac")
    assert isinstance(decoded, Image.Image)
    end = time.perf_counter()
    decoded.save(out / "sample.png")
    jpeg_bytes, jpeg = jpeg_at(photo, len(data))
    rows = [("JPEG", jpeg_bytes, jpeg, ""), ("Laconic", len(data), decoded, f"{middle - start:.2f} / {end - middle:.2f}")]
    print(f"{'':8} {'bytes':>8} {'bpp':>7} {'PSNR dB':>8}  seconds to compress / decompress")
    for name, n_bytes, image, seconds in rows:
        bpp, psnr = 8 * n_bytes / (photo.width * photo.height), psnr_of(np.asarray(image), pixels)
        print(f"{name:8} {n_bytes:8} {bpp:7.3f} {psnr:8.2f}  {seconds}")
    labels = ["original", f"JPEG, {jpeg_bytes} bytes", f"Laconic, {len(data)} bytes"]
    side_by_side([photo, jpeg, decoded], labels).save(out / "side-by-side.png")
    print(f"look at {out / 'side-by-side.png'}")


def jpeg_at(photo: Image.Image, n_bytes: int) -> tuple[int, Image.Image]:
    """Return the best progressive 4:2:0 JPEG of at most n_bytes, or the smallest there is: its size and its picture."""
    best = b""
    for quality in range(1, 96):
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=quality, optimize=True, progressive=True, subsampling=2)
        if best and len(file.getvalue()) > n_bytes:
            break
        best = file.getvalue()
    return len(best), Image.open(io.BytesIO(best)).convert("RGB")


def side_by_side(images: list[Image.Image], labels: list[str]) -> Image.Image:
    """Return one picture of the middles of all, labelled."""
    side = min(384, images[0].width, images[0].height)
    left, top = (images[0].width - side) // 2, (images[0].height - side) // 2
    sheet = Image.new("RGB", (side * len(images) + 8 * (len(images) - 1), side + 22), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        sheet.paste(image.crop((left, top, left + side, top + side)), (i * (side + 8), 22))
        draw.text((i * (side + 8) + 4, 4), label, fill="black", font_size=14)
    return sheet


if __name__ == "__main__":
    main()
