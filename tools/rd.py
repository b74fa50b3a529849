"""Rate-distortion of a folder of pictures: `python -m laconic.tools.rd DIR`.

Bytes of whole files, PSNR of RGB as the mean of the pictures', and the BD-rate against Pillow's progressive, optimised
4:2:0 JPEG coded in the same run: log10 rate over PSNR, PCHIP, of the mean curves, in the window 27-37 dB.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import laconic
from laconic.files import psnr_of

JPEG_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)
WINDOW = (27.0, 37.0)  # dB


def main(argv: list[str] | None = None) -> None:
    """Print a line a quality, and the BD-rate."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.rd", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--qualities", type=float, nargs="+", default=[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100])
    parser.add_argument("--model")
    parser.add_argument("--json", type=Path, help="write the curves in CompressAI's schema")
    args = parser.parse_args(argv)
    suffixes = {".png", ".webp", ".jpg", ".avif"}
    pictures = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(args.folder.iterdir()) if p.suffix in suffixes]
    codec = laconic.Codec(model=args.model)
    curve = [measure(codec, pictures, q) for q in tqdm(args.qualities, disable=None)]
    jpeg = [measure_jpeg(pictures, q) for q in JPEG_QUALITIES]
    for q, (bpp, psnr, encode_s, decode_s) in zip(args.qualities, curve, strict=True):
        print(f"q {q:5.1f}  {bpp:.4f} bpp  {psnr:.3f} dB  compress {encode_s:.3f} s  decompress {decode_s:.3f} s")
    bd = bd_rate([c[:2] for c in jpeg], [c[:2] for c in curve], WINDOW)
    print(f"BD-rate against JPEG, {WINDOW[0]:g}-{WINDOW[1]:g} dB: {bd:+.2f} % over {len(pictures)} pictures")
    if args.json:
        keys = ("bpp", "psnr-rgb", "encoding_time", "decoding_time")
        results = {k: [float(v) for v in column] for k, column in zip(keys, zip(*curve, strict=True), strict=True)}
        args.json.write_text(json.dumps({"name": "laconic", "description": str(args.folder), "results": results}))


def measure(codec: laconic.Codec, pictures: list[np.ndarray], quality: float) -> tuple[float, float, float, float]:
    """Mean bpp, PSNR, seconds to compress and to decompress."""
    rows = []
    for pixels in pictures:
        start = time.perf_counter()
        data = codec.compress(pixels, quality=quality)
        middle = time.perf_counter()
        decoded = codec.decompress(data, as_array=True)
        end = time.perf_counter()
        n_pixels = pixels.shape[0] * pixels.shape[1]
        rows.append((8 * len(data) / n_pixels, psnr_of(np.asarray(decoded), pixels), middle - start, end - middle))
    bpp, psnr, encode_s, decode_s = np.mean(rows, 0)
    return float(bpp), float(psnr), float(encode_s), float(decode_s)


def measure_jpeg(pictures: list[np.ndarray], quality: int) -> tuple[float, float]:
    """Mean bpp and PSNR of progressive, optimised 4:2:0 JPEG."""
    rows = []
    for pixels in pictures:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True, progressive=True, subsampling=2)
        decoded = np.asarray(Image.open(file))
        rows.append((8 * len(file.getvalue()) / (pixels.shape[0] * pixels.shape[1]), psnr_of(decoded, pixels)))
    bpp, psnr = np.mean(rows, 0)
    return float(bpp), float(psnr)


def bd_rate(anchor: list[tuple[float, float]], curve: list[tuple[float, float]], window: tuple[float, float]) -> float:
    """Percent of rate that `curve` of (bpp, dB) takes more than the anchor, in the part of the window both cover."""
    from scipy.interpolate import PchipInterpolator

    low = max(window[0], min(p for _, p in anchor), min(p for _, p in curve))
    high = min(window[1], max(p for _, p in anchor), max(p for _, p in curve))
    means = []
    for points in (anchor, curve):
        ordered = sorted(points, key=lambda point: point[1])
        rate = PchipInterpolator([p for _, p in ordered], np.log10([b for b, _ in ordered]))
        means.append(rate.integrate(low, high) / (high - low))
    return float(100 * (10 ** (means[1] - means[0]) - 1))


if __name__ == "__main__":
    main()
