"""A lossy file's segments as samples: parsed apart, synthesised with frames of their neighbours around them.

    chunk i ─ parse ─► Parsed (integers) ─┐
    chunks i - 1, i + 1 ─ parse ──────────┴─► synthesis of segment i ─ level, resample, unmix ─► samples, silences forced
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from laconic import container
from laconic.container import Data, Entry
from laconic.entropy.errors import BadFile
from laconic.entropy.threads import mapped
from laconic.media.lossy_sound_coder import Coder, Floats, Frames, over_segments
from laconic.media.lossy_sound_fields import (
    PLAIN,
    Fields,
    Span,
    read_segment,
    to_samples,
    unmixed,
)
from laconic.media.lossy_sound_read import gains
from laconic.models.resample import Resampler
from laconic.sound import Samples


@dataclass(frozen=True)
class Parsed:
    """Holds segment `number` as integers: where it is silent, and the frames of each coded channel, None where silent.

    damage: what was found in its place.
    """

    number: int
    silences: tuple[Span, ...]
    frames: tuple[Frames | None, ...]
    damage: str = ""


@dataclass(frozen=True)
class Decoder:
    """Decodes the segments of a file. partial: damaged ones are silent."""

    coder: Coder
    fields: Fields
    data: Data
    segments: list[Entry]
    partial: bool = False

    def parse(self, i: int) -> Parsed:
        """Return a segment's integers; no float network is run. Raises BadFile."""
        first, end = self.fields.samples_of(i)
        n_channels = self.fields.channels
        try:
            payload = container.payload(self.data, self.segments[i])
            segment = read_segment(payload, end - first, n_channels, self.segments[i].kind == PLAIN)
            return Parsed(i, segment.silences, tuple(self.frames(one, i) for one in segment.runs))
        except BadFile as error:
            if not self.partial:
                raise
            return Parsed(i, ((0, end - first),), (None,) * n_channels, str(error))

    def frames(self, run: bytes, i: int) -> Frames | None:
        """Return the frames of a run. Raises BadFile."""
        first, end = self.fields.frames_of(i)
        return self.coder.decode(run, end - first, self.fields.quality) if run else None

    def around(self, i: int) -> range:
        """Return the segments that the synthesis of segment i looks at."""
        return range(max(0, i - 1), min(self.fields.n_segments, i + 2))

    def synthesise(self, around: list[Parsed], i: int) -> Samples:
        """Return the samples of segment i, [T, C]. around: the segments that its synthesis looks at."""
        fields = self.fields
        first, end = fields.samples_of(i)
        resampler = Resampler(fields.core_rate, fields.sample_rate)
        low, high = resampler.needed(first, end)
        core = np.stack([self.channel(k, around, low, high) for k in range(fields.channels)], 1) / gains(fields.levels)
        x = unmixed(np.stack([resampler.apply(column, first, end) for column in core.T], 1))
        (silences,) = (one.silences for one in around if one.number == i)
        for start, stop in silences:
            x[start:stop] = 0
        return to_samples(x, fields.bits, fields.floating)

    def channel(self, k: int, around: list[Parsed], low: int, high: int) -> Floats:
        """Return a coded channel's core samples from low up to high; zeros outside the sound and between runs."""
        hop = self.coder.hop
        hops = range(max(0, low // hop), min(-(-high // hop), self.fields.n_frames - 1))
        out = np.zeros(high - low, np.float32)
        for first, frames, n in self.stretches(k, around, hops.start - self.coder.before, hops.stop + 1 + self.coder.after):
            seed = self.fields.seed + self.fields.channels - 1 - k  # channels differ in their noise; mid has that of mono
            x = self.coder.synthesise(frames, self.fields.quality, seed, first)
            start, stop = max(low, hops.start * hop, first * hop), min(high, hops.stop * hop, (first + n - 1) * hop)
            if start < stop:
                out[start - low : stop - low] = x[start - first * hop : stop - first * hop]
        return out

    def stretches(self, k: int, around: list[Parsed], low: int, high: int) -> Iterator[tuple[int, Frames, int]]:
        """Yield the frames of a coded channel in a range, stretch by stretch: the first's number, the frames, how many.

        A stretch ends where a run is empty: as where the sound ends, since nothing sounds there.
        """
        for has, group in groupby(around, lambda one: one.frames[k] is not None):
            parts, first, n = list[Frames](), 0, 0
            for one in group if has else ():
                frames: Frames = one.frames[k]
                start, stop = self.fields.frames_of(one.number)
                a, b = max(low, start), min(high, stop)
                if a < b:
                    first = first if parts else a
                    parts.append(frames.part(a - start, b - start))
                    n += b - a
            if parts:
                yield first, type(parts[0]).joined(parts), n


def decoded(decoder: Decoder, start: int, end: int, threads: int | None) -> Iterator[tuple[Samples, Parsed]]:
    """Yield the samples from start up to end, segment by segment, and each segment as it was parsed. Raises BadFile."""
    segment = decoder.fields.segment
    wanted = range(start // segment, -(-end // segment))

    def part(job: tuple[int, list[Parsed]]) -> tuple[Samples, Parsed]:
        i, around = job
        first = i * segment
        (parsed,) = (one for one in around if one.number == i)
        return decoder.synthesise(around, i)[max(0, start - first) : end - first], parsed

    yield from over_segments(part, gathered(decoder, wanted, threads), threads)


def gathered(decoder: Decoder, wanted: range, threads: int | None) -> Iterator[tuple[int, list[Parsed]]]:
    """Yield each wanted segment's number with what its synthesis looks at, each segment parsed once."""
    read = range(decoder.around(wanted[0]).start, decoder.around(wanted[-1]).stop)
    parsed = mapped(decoder.parse, read, threads)
    held = list[Parsed]()
    for i in wanted:
        around = decoder.around(i)
        held = [one for one in held if one.number in around]
        while not held or held[-1].number < around[-1]:
            held.append(next(parsed))
        yield i, list(held)
