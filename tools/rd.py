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
from laconic import entropy
from laconic.targets import psnr_of

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
    rows = [[measure(codec, pixels, q) for pixels in pictures] for q in tqdm(args.qualities, disable=None)]
    curve = [tuple(np.mean(row, 0).tolist()) for row in rows]
    jpeg = [measure_jpeg(pictures, q) for q in JPEG_QUALITIES]
    for q, (bpp, psnr, encode_s, decode_s, *_) in zip(args.qualities, curve, strict=True):
        print(f"q {q:5.1f}  {bpp:.4f} bpp  {psnr:.3f} dB  compress {encode_s:.3f} s  decompress {decode_s:.3f} s")
    push, pop = (np.mean([point[k] / point[k - 3] for point in curve]) for k in (5, 6))
    print(f"entropy coding: {100 * push:.1f} % of the time to compress, {100 * pop:.1f} % of the time to decompress")
    spare = min(row[4] for quality in rows for row in quality)
    print(f"bytes below codelength + 0.6 % + 100, the least of all files: {spare:.0f}")
    bd = bd_rate([c[:2] for c in jpeg], [c[:2] for c in curve], WINDOW)
    print(f"BD-rate against JPEG, {WINDOW[0]:g}-{WINDOW[1]:g} dB: {bd:+.2f} % over {len(pictures)} pictures")
    if args.json:
        keys = ("bpp", "psnr-rgb", "encoding_time", "decoding_time")
        results = {key: [point[i] for point in curve] for i, key in enumerate(keys)}
        args.json.write_text(json.dumps({"name": "laconic", "description": str(args.folder), "results": results}))


def measure(codec: laconic.Codec, pixels: np.ndarray, quality: float) -> tuple[float, ...]:
    """bpp, PSNR, s to compress and to decompress, bytes below the bound on what coding may add, s of coding each way."""
    start = time.perf_counter()
    data = codec.compress(pixels, quality=quality)
    middle = time.perf_counter()
    decoded = codec.decompress(data, as_array=True)
    end = time.perf_counter()
    bpp = 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
    spare = codec.codelength(data) / 8 * 1.006 + 100 - len(data)
    return bpp, psnr_of(np.asarray(decoded), pixels), middle - start, end - middle, spare, *entropy_seconds(codec, data)


def entropy_seconds(codec: laconic.Codec, data: bytes) -> tuple[float, float]:
    """Seconds that the entropy coder takes to encode and to decode the symbols of a file."""
    coded, tables = codec.coded(data), entropy.gaussian_tables()
    start = time.perf_counter()
    streams = [entropy.encode(symbols, indices, tables) for symbols, indices in coded]
    middle = time.perf_counter()
    for stream, (_, indices) in zip(streams, coded, strict=True):
        entropy.decode(stream, indices, tables)
    return middle - start, time.perf_counter() - middle


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
