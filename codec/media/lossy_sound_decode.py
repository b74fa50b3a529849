"""A lossy file's segments as samples: parsed apart, synthesised with frames of their neighbours around them.

    chunk i ─ parse ─► Parsed (integers) ─┐
    chunks i - 1, i + 1 ─ parse ──────────┴─► synthesis of segment i ─ level, resample, unmix ─► samples, silences forced

An exact segment has its samples after parsing, and lends some frames at its edges to its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from laconic import container
from laconic.container import Data, Entry
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.threads import mapped
from laconic.media.lossy_sound_coder import Coder, Floats, Frames, over_segments
from laconic.media.lossy_sound_exact import is_offered, joined, nearest, samples_of
from laconic.media.lossy_sound_fields import (
    EXACT,
    HEAD,
    PLAIN,
    TAIL,
    Fields,
    Span,
    read_exact,
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

    exact: the samples of a segment without loss, whose frames are None; head, tail: frames of its edges, of each channel, or
    empty. damage: what was found in its place.
    """

    number: int
    silences: tuple[Span, ...]
    frames: tuple[Frames | None, ...]
    damage: str = ""
    exact: Samples | None = None
    head: tuple[Frames | None, ...] = ()
    tail: tuple[Frames | None, ...] = ()


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
            if self.segments[i].kind == EXACT:
                return self.parse_exact(payload, i)
            frames = self.fields.frames_of(i)
            segment = read_segment(payload, end - first, n_channels, self.segments[i].kind == PLAIN)
            return Parsed(i, segment.silences, tuple(self.frames(one, frames) for one in segment.runs))
        except BadFile as error:
            if not self.partial:
                raise
            return Parsed(i, ((0, end - first),), (None,) * n_channels, str(error))

    def parse_exact(self, payload: bytes, i: int) -> Parsed:
        """Return a segment that was coded without loss. Raises BadFile."""
        fields = self.fields
        expect(is_offered(fields.sample_rate), BadFile, "rate of a segment without loss", fields.sample_rate, "2^18 Hz at most")
        first, end = fields.samples_of(i)
        segment = read_exact(payload, fields.channels, HEAD * (i > 0) + TAIL * (i < fields.n_segments - 1))
        samples = samples_of(segment, end - first, fields.channels, fields.bits, fields.floating)
        runs = zip((segment.head, segment.tail), fields.edges_of(i), strict=True)
        head, tail = (tuple(self.frames(run, span) for run in edge) for edge, span in runs)
        return Parsed(i, (), (None,) * fields.channels, "", samples, head, tail)

    def frames(self, run: bytes, span: Span) -> Frames | None:
        """Return the frames of a run, which are those of a span. Raises BadFile."""
        first, end = span
        return self.coder.decode(run, end - first, self.fields.quality) if run else None

    def around(self, i: int) -> range:
        """Return the segments that the synthesis of segment i looks at."""
        return range(max(0, i - 1), min(self.fields.n_segments, i + 2))

    def synthesise(self, around: list[Parsed], i: int) -> Samples:
        """Return the samples of segment i, [T, C]. around: the segments that its synthesis looks at."""
        fields = self.fields
        (own,) = (one for one in around if one.number == i)
        if own.exact is not None:
            return own.exact
        first, end = fields.samples_of(i)
        before, after = (self.exact_beside(around, i, side) for side in (-1, 1))
        x = joined(self.lossy(around, first - len(before), end + len(after)), before, after)
        for start, stop in own.silences:
            x[start:stop] = 0
        return to_samples(x, fields.bits, fields.floating)

    def exact_beside(self, around: list[Parsed], i: int, side: int) -> Floats:
        """Return the samples of an exact segment, 1 at full scale, that are nearest to segment i, before it or after; or none."""
        fields = self.fields
        for one in around:
            if one.number == i + side and one.exact is not None:
                return nearest(one.exact, side < 0, fields.sample_rate, fields.bits, fields.floating)
        return np.zeros((0, fields.channels), np.float32)

    def lossy(self, around: list[Parsed], first: int, end: int) -> Floats:
        """Return the samples from first up to end, float32 [T, C], 1 at full scale, as the network makes them."""
        fields = self.fields
        resampler = Resampler(fields.core_rate, fields.sample_rate)
        low, high = resampler.needed(first, end)
        core = np.stack([self.channel(k, around, low, high) for k in range(fields.channels)], 1) / gains(fields.levels)
        return unmixed(np.stack([resampler.apply(column, first, end) for column in core.T], 1))

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

        A stretch ends where a run is empty, as where the sound ends, since nothing sounds there; and where a segment is exact.
        """
        row, first, end = list[Frames](), 0, 0
        for start, stop, frames in (piece for one in around for piece in self.pieces(k, one)):
            a, b = max(low, start), min(high, stop)
            if a >= b:
                continue
            if row and a > end:
                yield first, type(row[0]).joined(row), end - first
                row = []
            first, end = first if row else a, b
            row.append(frames.part(a - start, b - start))
        if row:
            yield first, type(row[0]).joined(row), end - first

    def pieces(self, k: int, one: Parsed) -> Iterator[tuple[int, int, Frames]]:
        """Yield the frames that a segment has of a coded channel: the first's number, the one after the last, the frames."""
        head, tail = self.fields.edges_of(one.number)
        spans = (self.fields.frames_of(one.number), one.frames), (head, one.head), (tail, one.tail)
        for (start, stop), channels in spans:
            if channels and channels[k] is not None:
                yield start, stop, channels[k]


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
