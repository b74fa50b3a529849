"""Resampling by a windowed sinc, at any ratio of rates: any outputs from the inputs around them, in bounded memory.

The filter is linear in phase and centred, so nothing is delayed. It passes what lies below 93 % of the lower rate's
Nyquist frequency and stops all from that frequency on by 100 dB (a Kaiser window over 96 zero crossings a side; Kaiser and
Schafer 1980). Up to `MOST_PHASES` phases are tabled; where a ratio has more, two neighbours are blended, 120 dB exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

CROSSINGS = 96  # of the sinc with zero, on each side
ATTENUATION = 100.0  # dB, of the window
TRANSITION = (ATTENUATION - 7.95) / (2.285 * 2 * CROSSINGS * math.pi)  # wide, as a share of the lower Nyquist frequency
MOST_PHASES = 1024
BETA = 0.1102 * (ATTENUATION - 8.7)  # of the window


@dataclass(frozen=True)
class Resampler:
    """Turns samples of one rate into samples of another: output i lies at the time i / rate_out."""

    rate_in: int
    rate_out: int

    @property
    def reach(self) -> int:
        """How many inputs on each side of its place an output looks at."""
        return 0 if self.rate_in == self.rate_out else math.ceil(CROSSINGS * max(1.0, self.rate_in / self.rate_out))

    def needed(self, first: int, end: int) -> tuple[int, int]:
        """Return the range of inputs, which may begin below 0, that the outputs first .. end - 1 look at."""
        if self.reach == 0:
            return first, end
        low, high = (place * self.rate_in // self.rate_out for place in (first, max(first, end - 1)))
        return low - self.reach + 1, high + self.reach + 1

    def apply(self, x: NDArray[np.float32], first: int, end: int) -> NDArray[np.float32]:
        """Return the outputs first .. end - 1, float32 [end - first]. x: the inputs `needed`, zeros outside the sound."""
        assert len(x) == self.needed(first, end)[1] - self.needed(first, end)[0]
        if self.reach == 0:
            return x
        rows = table(self.rate_in, self.rate_out)
        start = self.needed(first, end)[0] + self.reach - 1  # the input at or before the first output
        up, down = lowest_terms(self.rate_in, self.rate_out)
        offset = first * down - start * up
        out: NDArray[np.float32] = convolve(np.ascontiguousarray(x, np.float32), rows, offset, end - first, up, down)
        return out


def lowest_terms(rate_in: int, rate_out: int) -> tuple[int, int]:
    """Return the ratio rate_out / rate_in as up / down."""
    common = math.gcd(rate_in, rate_out)
    return rate_out // common, rate_in // common


@lru_cache(maxsize=8)
def table(rate_in: int, rate_out: int) -> NDArray[np.float32]:
    """Return the filter at each phase p, p / phases inputs after an input, and at phase 1: float32 [phases + 1, 2 reach]."""
    phases = min(lowest_terms(rate_in, rate_out)[0], MOST_PHASES)
    reach = Resampler(rate_in, rate_out).reach
    scale = min(1.0, rate_out / rate_in)
    places = np.arange(1 - reach, reach + 1) - np.arange(phases + 1)[:, None] / phases  # of inputs, seen from the output
    crossings = places * scale
    window = np.i0(BETA * np.sqrt(np.clip(1 - (crossings / CROSSINGS) ** 2, 0, None))) / np.i0(BETA)
    cut = 1 - TRANSITION / 2
    rows: NDArray[np.float64] = np.where(np.abs(crossings) <= CROSSINGS, np.sinc(crossings * cut) * window, 0)
    rows /= rows.sum(1, keepdims=True)  # a constant stays that constant
    return rows.astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def convolve(
    x: NDArray[np.float32], rows: NDArray[np.float32], offset: int, n: int, up: int, down: int
) -> NDArray[np.float32]:
    """Return n outputs. offset: of the first, from the input in the middle of the first row, in 1 / up inputs."""
    out = np.empty(n, np.float32)
    phases, taps = rows.shape[0] - 1, rows.shape[1]
    for i in range(n):
        place = offset + i * down
        first, rest = place // up, place % up
        row, part = rest * phases // up, rest * phases % up
        total = np.float32(0)
        for k in range(taps):
            total += rows[row, k] * x[first + k]
        if part:
            after = np.float32(0)
            for k in range(taps):
                after += rows[row + 1, k] * x[first + k]
            total += (after - total) * np.float32(part / up)
        out[i] = total
    return out
