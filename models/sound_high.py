"""What lies above 8 kHz in lossy sound: noise whose level follows the sound's, in a few bands and steps of 3 dB.

The network codes 256 bins of 31.25 Hz whatever the core's rate is; a core of 24 or 48 kHz has more bins in a frame, and
these say only how strong they are, once in two frames (as spectral band replication does; Dietz et al. 2002, without the
copies). `sound_prior.py` codes the levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from laconic.models.sound import BINS, CORE_RATE

EDGES = (256, 312, 384, 496, 768)  # bins: 8, 9.75, 12, 15.5, 24 kHz
FRAMES_PER_LEVEL = 2
LEAST_LEVEL, MOST_LEVEL = -32, 16  # log2 of power; the least is silence
LEVEL_START = -16  # the level that each band is thought to have had before a run
CORE_RATES = (16_000, 24_000, 48_000)  # Hz
FULL_FROM = (0.0, 4.0, 9.0)  # kbit/s per channel from which each is used; with less, all bits are needed below 8 kHz

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Core:
    """Says at which rate a sound is coded, Hz: one of CORE_RATES."""

    rate: int = CORE_RATE

    @property
    def hop(self) -> int:
        """Samples from one frame to the next, and bins of a frame."""
        return self.rate * BINS // CORE_RATE

    @property
    def bands(self) -> int:
        """Bands above the network's."""
        return sum(edge <= self.hop for edge in EDGES[1:])

    @property
    def scale(self) -> float:
        """By which bins are larger than at the network's rate."""
        return float((self.rate / CORE_RATE) ** 0.5)

    def amplitudes(self, bins: Floats) -> Floats:
        """Return the amplitude of each band, float32 [T - 2, bands], smoothed over three frames of bins [T, hop - 256].

        A mean of amplitudes, not of powers, which a click would raise long before it comes.
        """
        edges = [edge - BINS for edge in EDGES[: self.bands + 1]]
        parts = [np.sqrt(np.square(bins[:, a:b]).mean(1)) for a, b in pairwise(edges)]
        found = np.stack(parts, 1) if parts else np.zeros((len(bins), 0), np.float32)
        return np.asarray(0.25 * found[:-2] + 0.5 * found[1:-1] + 0.25 * found[2:], np.float32)

    def noise(self, levels: Ints, seed: int, first: int) -> Floats:
        """Return bins [T, hop - 256] of frames from number `first` on, whose levels are int32 [T, bands]."""
        amplitudes = np.where(levels > LEAST_LEVEL, np.exp2(levels / 2), 0).astype(np.float32)
        widths = np.diff(EDGES[: self.bands + 1])
        signs = signs_of(seed, 0x85EBCA6B, first, len(levels), EDGES[-1] - BINS)[:, : self.hop - BINS]
        return np.asarray(np.repeat(amplitudes, widths, axis=1) * signs, np.float32)


def core_rate(sample_rate: int, bitrate: float) -> int:
    """Return the rate to code a sound at. bitrate: kbit/s per channel, about."""
    last = CORE_RATE
    for rate, least in zip(CORE_RATES, FULL_FROM, strict=True):
        if bitrate >= least:
            last = rate
        if last >= sample_rate:
            break
    return last


def levels_of(amplitudes: Floats) -> Ints:
    """Return levels int32 [ceil(T / 2), bands] of amplitudes [T, bands]."""
    first = amplitudes[::FRAMES_PER_LEVEL].astype(np.float64)
    alone = first[len(amplitudes) // FRAMES_PER_LEVEL :]  # the last, if it is
    mean = (first + np.concatenate([amplitudes[1::FRAMES_PER_LEVEL], alone])) / FRAMES_PER_LEVEL
    return np.asarray(np.clip(np.rint(2 * np.log2(mean + 1e-15)), LEAST_LEVEL, MOST_LEVEL), np.int32)


def signs_of(seed: int, step: int, first: int, n: int, width: int) -> Floats:
    """Return noise of -1 and 1 for n frames from number `first` on, float32 [n, width]: the first bit of a hash.

    The hash is Wellons' lowbias32 of the place, with `step` times the seed added; the same integers everywhere.
    """
    with np.errstate(over="ignore"):
        x = np.arange(first * width, (first + n) * width, dtype=np.uint64).astype(np.uint32)
        x += np.uint32(seed * step & 0xFFFFFFFF)
        x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
        x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    return np.asarray(1 - 2 * (x >> np.uint32(31)).astype(np.float32)).reshape(n, width)
