"""The search for a target: the quality whose file keeps a size, a rate, a PSNR or a score, by real bytes and real samples."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import chain, count
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadInput, TargetOutOfReach
from laconic.options import Rate, Searched

HUNDREDTHS = 10_000  # the highest quality, in the units of the search
FIRST_STEP = 400  # from the start of a search for what is no rate, in units of the quality
UNITS_PER_OCTAVE = 3_200  # in which a rate doubles, a little too many, so that the first step mostly passes the target
T = TypeVar("T")


def search(
    target: Searched,
    encode: Callable[[int], T],
    measure: Callable[[T], float],
    what: str,
    start: int | None = None,
    tolerance: float | None = None,
) -> T:
    """Return the file that keeps a target best, by interpolation or bisection over the quality.

    encode: quality x 100 -> a file, or what stands for one. measure: a file -> what the target speaks of, in its unit; rises
    with the quality. what: the word for the source in errors. start: a quality x 100 that will be near.
    tolerance: the slack with which a file is good enough to end the search; None is the target's. Raises TargetOutOfReach,
    which names the range that can be reached.
    """
    files: dict[int, tuple[float, T]] = {}

    def reached(units: int) -> float:
        if units not in files:
            data = encode(units)
            files[units] = measure(data), data
        return files[units][0]

    def is_met(units: int) -> bool:
        return lowest <= reached(units) <= highest and target.slack(reached(units)) <= near

    lowest, highest = target.window()
    near = target.tolerance if tolerance is None else tolerance
    low, high = 0, HUNDREDTHS
    if start is not None:
        step = first_step(target, reached(start))
        low, high = around(start, step, lambda units: reached(units) <= target.value, is_met)
    if (low == 0 and reached(low) > highest) or (high == HUNDREDTHS and reached(high) < lowest):
        raise TargetOutOfReach(
            f"{target.name}: found {target.value:g} {target.unit}, "
            f"expected {reached(0):.4g} to {reached(HUNDREDTHS):.4g} {target.unit} for this {what}"
        )
    while high - low > 1:  # invariant: reached(low) <= target, or low is 0; likewise high
        if any(map(is_met, files)):
            break
        middle = between(target, low, high, reached(low), reached(high))
        low, high = (middle, high) if reached(middle) <= target.value else (low, middle)
    return best(target, files)


def first_step(target: Searched, value: float) -> int:
    """Return how far a target probably is from a quality that reaches a value, and a little further."""
    if not isinstance(target, Rate) or value <= 0:
        return FIRST_STEP
    return min(max(round(UNITS_PER_OCTAVE * abs(math.log2(target.value / value))), FIRST_STEP // 10), HUNDREDTHS)


def around(
    start: int, step: int, is_low: Callable[[int], bool], is_met: Callable[[int], bool] = lambda units: False
) -> tuple[int, int]:
    """Return two qualities that the target lies between, found by steps away from a start.

    is_low tells whether a quality reaches no more than the target. Where the steps come to the lowest or highest quality, the
    target may lie beyond it. Where is_met likes a quality, it is returned twice. The first step is `step`, a good guess; the
    next is half as long, the others double.
    """
    low, steps = is_low(start), chain((step, (step + 1) // 2), (step << i for i in count()))
    while not is_met(start):
        width = next(steps)
        further = min(max(start + (width if low else -width), 0), HUNDREDTHS)
        if further in (0, HUNDREDTHS) or is_low(further) != low:
            return min(start, further), max(start, further)
        start = further
    return start, start


def between(target: Searched, low: int, high: int, at_low: float, at_high: float) -> int:
    """Return the quality to try between two. Rates rise nearly exponentially, so they are interpolated by logarithms.

    The guess keeps a twentieth of the range away from its ends, which bounds the number of steps.
    """
    share = 0.5
    if isinstance(target, Rate) and 0 < at_low < at_high:
        share = math.log(target.value / at_low) / math.log(at_high / at_low)
    return min(max(low + round(min(max(share, 0.05), 0.95) * (high - low)), low + 1), high - 1)


def inside(target: Searched, files: Mapping[int, tuple[float, T]]) -> list[tuple[float, T]]:
    """Return the files that keep the target."""
    lowest, highest = target.window()
    return [(value, data) for value, data in files.values() if lowest <= value <= highest]


def best(target: Searched, files: dict[int, tuple[float, T]]) -> T:
    """Return the file with the least slack. Raises TargetOutOfReach where none keeps the target."""
    kept = inside(target, files)
    if kept:
        return min(kept, key=lambda file: target.slack(file[0]))[1]
    values = [value for value, _ in files.values()]
    raise TargetOutOfReach(
        f"{target.name}: found {target.value:g}, expected one of the values reached, {min(values):.4g} to {max(values):.4g}"
    )


def ssimulacra2_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the SSIMULACRA2 score of b against the original a, uint8 [H, W, 1 or 3] each. Raises BadInput without the library."""
    try:
        library = import_module("ssimulacra2")
    except ImportError as error:
        found, expected = f"no module ssimulacra2 ({error})", "it: pip install ssimulacra2, or laconic-codec[eval]"
        raise BadInput(f"ssimulacra2: found {found}, expected {expected}") from None
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("a.ppm", "b.ppm")]
        for path, pixels in zip(paths, (a, b), strict=True):
            Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))).save(path)
        return float(library.compute_ssimulacra2(*paths))


def psnr_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB over all samples of two arrays of 8 bits; 100 where they are equal."""
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else 100.0
