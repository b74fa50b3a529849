"""Sounds cut into segments for the lossy coder: resampled, mixed, brought to one level; where they are silent.

    blocks of 4 s ─ triples ─► Piece (a block between its neighbours) ─ Analysis ─► Analysed (targets at any quality)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from laconic.media.lossy_sound_coder import Coder, Floats, Targets
from laconic.media.lossy_sound_exact import Original, original_of
from laconic.media.lossy_sound_fields import (
    BEYOND,
    CORE_RATES,
    FRAMES,
    LEVEL_STEP,
    LEVEL_ZERO,
    SECONDS,
    Span,
    full_scale,
    hop_of,
    mixed,
)
from laconic.models.resample import Resampler
from laconic.sound import Samples, Source, pack

MODEL_LEVEL = -26.0  # dB RMS of full scale: what the model was trained for
LEVEL_SEGMENTS = 7  # the first 28 seconds, which say how loud a sound is
GATE = 0.1  # of the mean power: hops below are pauses
QUIETEST = -60.0  # dB; of integers: what begins with the noise of a converter may become loud
SILENCE = 0.02  # seconds that count as silence, where all samples are 0


@dataclass(frozen=True)
class Piece:
    """Holds segment `number`, float [T, C], 1 at full scale, with the samples around it; and as they were."""

    number: int
    samples: Floats
    before: Floats
    after: Floats
    is_last: bool
    raw: Samples

    def padded(self, first: int, end: int) -> Floats:
        """Return the samples of a range, counted from the segment's first; zeros outside the sound."""
        out = np.zeros((end - first, self.samples.shape[1]), np.float32)
        at = -len(self.before)
        for part in (self.before, self.samples, self.after):
            low, high = max(first, at), min(end, at + len(part))
            if low < high:
                out[low - first : high - first] = part[low - at : high - at]
            at += len(part)
        return out


@dataclass
class Reader:
    """Reads a source as pieces, again and again. n_replaced: samples that were no numbers, of the last reading."""

    source: Source
    n_replaced: int = field(default=0, init=False)

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments in order."""
        self.n_replaced = 0
        nothing = np.zeros((0, self.source.channels), np.float32)
        before, held = nothing, None
        for number, raw in enumerate(chain(self.source.blocks(SECONDS * self.source.sample_rate), [None])):
            after = nothing if raw is None else self.floats(raw)
            if held is not None:
                now, of_now = held
                yield Piece(number - 1, now, before, after, raw is None, of_now)
                before = now
            held = None if raw is None else (after, raw)

    def floats(self, raw: Samples) -> Floats:
        """Return samples as float32, 1 at full scale; what is no number is replaced."""
        if not self.source.floating:
            return (raw / full_scale(self.source.bits, False)).astype(np.float32)
        bad = ~(np.abs(raw) <= BEYOND)
        if bad.any():
            self.n_replaced += int(bad.sum())
            raw = np.where(bad, np.sign(np.nan_to_num(raw, nan=0.0)), raw)
        return raw.astype(np.float32)


@dataclass(frozen=True)
class Analysed:
    """Holds what is coded of a segment at any quality; targets are None where a coded channel is silent.

    n_packed: bytes that a plain compressor makes of its samples: far more than lossless coding would, mostly. core: the coded
    channels that were analysed, [(n + 3) hop, C]. original: its samples, where lossless coding may be worth a trial.
    """

    number: int
    n_samples: int
    silences: tuple[Span, ...]
    targets: tuple[Targets | None, ...]
    n_packed: int
    core: Floats
    is_last: bool
    original: Original | None


@dataclass(frozen=True)
class Analysis:
    """Analyses pieces of a sound, each alone. levels: as the fields have them."""

    coder: Coder
    source: Source
    levels: tuple[int, ...]

    def __call__(self, piece: Piece) -> Analysed:
        """Return a piece analysed."""
        hop = self.coder.hop
        x = core_of(piece, self.source.sample_rate, self.coder.rate) * gains(self.levels)
        targets = [self.coder.analyse(np.ascontiguousarray(one)) if one[hop:-hop].any() else None for one in x.T]
        least = math.ceil(SILENCE * self.source.sample_rate)
        zero: NDArray[np.bool_] = np.abs(piece.padded(-least, len(piece.samples) + least)).max(axis=1) == 0
        spans = clipped(runs_of(zero, least), least, len(piece.samples))
        packed = zlib.compress(pack(piece.raw, self.source.bits), 1)
        original = original_of(piece.raw, packed, self.source)
        return Analysed(piece.number, len(piece.samples), tuple(spans), tuple(targets), len(packed), x, piece.is_last, original)


def core_of(piece: Piece, sample_rate: int, core_rate: int) -> Floats:
    """Return the coded channels at the core's rate, float32 [(n + 3) hop, channels]: two hops before the n frames to one after."""
    hop = hop_of(core_rate)
    n_core = -(-len(piece.samples) * core_rate // sample_rate)  # a segment begins with a sample of either rate
    n_frames = -(-n_core // hop) + 1 if piece.is_last else FRAMES
    first, end = -2 * hop, (n_frames + 1) * hop
    resampler = Resampler(sample_rate, core_rate)
    x = mixed(piece.padded(*resampler.needed(first, end)))
    out = np.stack([resampler.apply(column, first, end) for column in x.T], 1)
    if piece.number == 0:
        out[:-first] = 0
    if piece.is_last:
        out[n_core - first :] = 0
    return out


def gains(levels: tuple[int, ...]) -> NDArray[np.float32]:
    """Return what brings each coded channel to the model's level."""
    decibels = np.array([MODEL_LEVEL - LEVEL_STEP * (level - LEVEL_ZERO) for level in levels])
    return (10 ** (decibels / 20)).astype(np.float32)


def levels_of(pieces: Iterable[Piece], source: Source) -> tuple[int, ...]:
    """Return the level of each coded channel, as the fields have it, from the first pieces: of two, the louder one's.

    What is above 8 kHz does not count, whatever the core's rate will be.
    """
    rate = CORE_RATES[0]
    powers = [np.zeros((0, source.channels))]
    for piece in islice(pieces, LEVEL_SEGMENTS):
        hops = core_of(piece, source.sample_rate, rate).astype(np.float64).reshape(-1, hop_of(rate), source.channels)[2:-1]
        powers.append((hops**2).mean(axis=1))
    found = [level_of(column, source.floating) for column in np.concatenate(powers).T]
    if source.channels == 2:  # what is quiet beside the other is to cost less than it
        found = [max((one for one in found if one is not None), default=None)] * 2
    return tuple(LEVEL_ZERO if one is None else one for one in found)


def level_of(powers: NDArray[np.float64], floating: bool) -> int | None:
    """Return the level of a channel by the powers of its hops, pauses left out; None of a silent one."""
    if not powers.any():
        return None
    loud = powers[powers >= GATE * powers.mean()]
    decibels = 10 * math.log10(loud.mean())
    decibels = decibels if floating else max(decibels, QUIETEST)
    return min(max(LEVEL_ZERO + round(decibels / LEVEL_STEP), 0), 255)


def runs_of(zero: NDArray[np.bool_], least: int) -> list[Span]:
    """Return where so many values in a row, at least, are true."""
    edges = np.flatnonzero(np.diff(zero, prepend=False, append=False)).reshape(-1, 2)
    return [(int(a), int(b)) for a, b in edges if b - a >= least]


def clipped(spans: list[Span], offset: int, n: int) -> list[Span]:
    """Return the parts of spans that lie in n samples from an offset on, counted from there."""
    moved = [(max(0, a - offset), min(n, b - offset)) for a, b in spans]
    return [(a, b) for a, b in moved if a < b]
