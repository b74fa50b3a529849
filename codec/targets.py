"""Targets: the quality whose file keeps a size, a rate or a PSNR, searched with real bytes and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import TargetOutOfReach
from laconic.picture import Picture

PSNR_MARGIN = 0.1  # dB above the target that are allowed
SIZE_SHARE = 0.97  # of the target size that is reached where the range of qualities allows


def search(
    name: str,
    target: float,
    source: Picture,
    encode: Callable[[int], bytes],
    decode: Callable[[bytes], NDArray[np.uint8]],
) -> bytes:
    """The file that keeps a target: bisection over quality x 100 with real bytes (and pixels, for psnr)."""
    n_pixels = source.pixels.shape[0] * source.pixels.shape[1]
    files: dict[int, tuple[float, bytes]] = {}

    def reached(units: int) -> float:
        if units not in files:
            data = encode(units)
            if name == "psnr":
                measured = psnr_of(decode(data), source.pixels)
            else:
                measured = float(len(data)) if name == "size" else 8 * len(data) / n_pixels
            files[units] = measured, data
        return files[units][0]

    low, high = 0, 10_000
    unit = {"size": "bytes", "bpp": "bpp", "psnr": "dB"}[name]
    least, most = {
        "size": (target, 0.0),
        "bpp": (1.02 * target, 0.98 * target),
        "psnr": (target + PSNR_MARGIN, target),
    }[name]
    if reached(low) > least or reached(high) < most:
        raise TargetOutOfReach(
            f"{name}: found {target:g} {unit}, expected {reached(low):.4g} to {reached(high):.4g} {unit} for this picture"
        )
    while high - low > 1:  # invariant: reached(low) <= target, or low is 0; likewise high
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) <= target else (low, middle)
        if name == "size" and SIZE_SHARE + 0.02 <= reached(low) / target <= 1:
            break
        if name == "bpp" and min(abs(v / target - 1) for v, _ in files.values()) < 0.005:
            break
        if name == "psnr" and any(0 <= v - target <= PSNR_MARGIN / 2 for v, _ in files.values()):
            break
    return best(name, target, list(files.values()))


def best(name: str, target: float, files: list[tuple[float, bytes]]) -> bytes:
    """The file nearest to the target on its allowed side."""
    if name == "size":
        return max((f for f in files if f[0] <= target), key=lambda f: f[0])[1]
    if name == "bpp":
        value, data = min(files, key=lambda f: abs(f[0] - target))
        if abs(value / target - 1) <= 0.02:
            return data
    else:
        above = [f for f in files if target <= f[0]]
        if above:
            value, data = min(above, key=lambda f: f[0])
            if value <= target + PSNR_MARGIN:
                return data
    low, high = min(files, key=lambda f: f[0])[0], max(files, key=lambda f: f[0])[0]
    raise TargetOutOfReach(f"{name}: found {target:g}, expected one of the values reached, {low:.4g} to {high:.4g}")


def psnr_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB over all samples; 100 where they are equal."""
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else 100.0
