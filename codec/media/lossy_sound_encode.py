"""How a sound becomes a lossy file: at a quality in one pass, towards a rate by a search, and not where lossless is smaller.

    Reader ─ pieces ─► Analysis ─► Analysed ─┬─ a quality: coded at once, and written
                                             └─ a rate: kept, all or every 2nd, 4th ...; coded at many qualities
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import BinaryIO, cast

from laconic import container, sound
from laconic.container import Chunk, FileBytes, Header
from laconic.entropy.errors import BadInput, TargetOutOfReach, expect
from laconic.entropy.threads import each
from laconic.media import lossless_sound, lossy_sound_coder
from laconic.media.lossy_sound_coder import Coder, Named, Targets, over_segments
from laconic.media.lossy_sound_fields import (
    EDGE,
    EXACT,
    LEAST_RATE,
    MARKED,
    MOST_RATE,
    PLAIN,
    ExactSegment,
    Fields,
    Segment,
    unpack,
)
from laconic.media.lossy_sound_read import Analysed, Analysis, Piece, Reader, levels_of
from laconic.media.sound_parts import beside
from laconic.medium import Run
from laconic.options import DEFAULT_EFFORT, DEFAULT_QUALITY, Bitrate, Options, Quality, Rate, Size, Target
from laconic.search import HUNDREDTHS, search
from laconic.sound import Source

LOSSY = 5
KEPT = 128  # runs of frames whose targets stay in memory for a search: some 30 MB
SAMPLED = 32  # runs of a longer sound that are searched on
PASSES = 4  # over a longer sound, to come from these to the whole
PLAUSIBLE = 4  # times smaller than what zlib makes of them, samples hardly get without loss
ROUGH = 0.03  # slack of a rate that suffices for the quality at which effort is spent; the rate changes with it
SPOOLED = 1 << 26  # bytes of a file that wait in memory, not on disk
SEED = 0
DEFAULT_LOSSY_EFFORT = 3
ITERATIONS = dict(zip(range(1, 10), (0, 1, 2, 3, 5, 8, 14, 25, 40), strict=True))  # of the search, by effort
WHOLE = "coded without loss, which is no larger"


def encode(source: Source, options: Options, run: Run, file: BinaryIO) -> None:
    """Write the file of a sound that keeps the target. Raises BadInput, TargetOutOfReach, ModelMissing."""
    expected = f"{LEAST_RATE} to {MOST_RATE} Hz; lossless coding takes all"
    expect(LEAST_RATE <= source.sample_rate <= MOST_RATE, BadInput, "sample rate", source.sample_rate, expected)
    effort = DEFAULT_LOSSY_EFFORT if options.effort is None else options.level()
    reader = Reader(source)
    named = lossy_sound_coder.named(options.model, run.device)
    start = likely_quality(named.coder, source, options.target)
    named = replace(named, coder=named.coder.at(named.coder.rate_for(source.sample_rate, start)))
    job = Job(reader, named, levels_of(reader.pieces(), source), options, run, ITERATIONS[effort])
    with tempfile.SpooledTemporaryFile(SPOOLED) as spooled:
        made = cast(BinaryIO, spooled)
        target = options.target
        if isinstance(target, Rate):
            notes = Search(job, target, start).write(made)
        else:
            assert isinstance(target, Quality)
            notes = at_quality(job, start, made)
        made.seek(0)
        kinds = [entry.kind for entry in container.parse_head(FileBytes(made))[1]]
        made.seek(0)
        shutil.copyfileobj(made, file, 1 << 20)
    n_segments = sum(kind in (PLAIN, MARKED, EXACT) for kind in kinds)
    notes += [f"{WHOLE}: {kinds.count(EXACT)} of {n_segments} segments of 4 seconds"] * (EXACT in kinds)
    for text in dict.fromkeys([*source.notes, *notes]):
        run.note(text)


def likely_quality(coder: Coder, source: Source, target: Target | None) -> int:
    """Return the quality x 100 that is asked for, or at which typical speech keeps the target."""
    if isinstance(target, Quality):
        return round(100 * target.value)
    assert isinstance(target, (Bitrate, Size))
    seconds = max(source.n_samples / source.sample_rate, 1e-3)
    bitrate = target.value if isinstance(target, Bitrate) else 8 * target.value / 1000 / seconds
    return coder.quality_at(bitrate / source.channels)


@dataclass(frozen=True)
class Job:
    """Says what is coded, by what and how.

    iterations: of the coder's search for better targets. left_out: is told what of that beside the samples is not kept.
    """

    reader: Reader
    named: Named
    levels: tuple[int, ...]
    options: Options
    run: Run
    iterations: int
    left_out: list[str] = field(default_factory=list)

    @property
    def analysis(self) -> Analysis:
        """What analyses a piece."""
        return Analysis(self.named.coder, self.reader.source, self.levels)

    def coded(self, quality: int, one: Analysed) -> Coded:
        """Return a segment at a quality."""
        segment = Segment(one.silences, tuple(self.runs(quality, one.targets)))
        return Coded(one, segment, self.exact(quality, one, len(segment.pack())))

    def runs(self, quality: int, targets: Iterable[Targets | None]) -> Iterator[bytes]:
        """Yield a run for each coded channel."""
        for one in targets:
            yield b"" if one is None else self.named.coder.encode(one, quality)[0]

    def exact(self, quality: int, one: Analysed, limit: int) -> ExactSegment | None:
        """Return a segment without loss, with both edges, where that is worth a trial and takes at most `limit` bytes."""
        if not self.options.fallback or one.original is None or one.n_packed > PLAUSIBLE * limit:
            return None
        exact = one.original.exact
        if len(exact.pack()) > limit:
            return None
        head = () if one.number == 0 else tuple(self.runs(quality, self.edge(one, at_end=False)))
        tail = () if one.is_last else tuple(self.runs(quality, self.edge(one, at_end=True)))
        found = replace(exact, head=head, tail=tail)
        return found if len(found.pack()) <= limit else None

    def edge(self, one: Analysed, at_end: bool) -> Iterator[Targets | None]:
        """Yield what is coded of the first or of the last few frames; None of a channel that they see nothing of."""
        coder, n = self.named.coder, len(one.core) // self.named.coder.hop - 3
        start, end = (n - EDGE, n) if at_end else (0, min(EDGE, n))
        for x, targets in zip(one.core.T, one.targets, strict=True):
            seen = x[(start + 1) * coder.hop : (end + 2) * coder.hop]
            yield coder.cut(targets, start, end) if targets is not None and seen.any() else None

    def improved(self, quality: int, one: Analysed) -> Analysed:
        """Return what is to be coded of a segment, once the effort was spent on it at a quality."""
        if not self.iterations:
            return one
        coder, n = self.named.coder, self.iterations
        pairs = zip(one.core.T, one.targets, strict=True)
        found = (None if t is None else coder.searched(x.copy(), t, quality, n) for x, t in pairs)
        return replace(one, targets=tuple(found))

    def header(self, n_samples: int, quality: int) -> Header:
        """Return the header of a file."""
        source = self.reader.source
        shape = (source.sample_rate, source.channels, source.bits, source.floating, self.named.coder.rate)
        fields = Fields(*shape, quality, n_samples, SEED, self.levels)
        return Header(LOSSY, self.named.name, self.named.digest, fields.pack())

    def beside(self) -> list[Chunk]:
        """Return the chunks of what stands beside the samples, which were read. Raises BadInput."""
        if self.options.strip:
            return []
        self.left_out.clear()  # of an earlier pass
        source = self.reader.source
        return list(beside(sound.with_texts(replace(source, around=source.wrapping(), notes=self.left_out))))

    def notes(self) -> list[str]:
        """Return what is lost, besides what a lower quality loses."""
        n, rate, core = self.reader.n_replaced, self.reader.source.sample_rate, self.named.coder.rate
        found = [*self.left_out, *[f"{n} samples that are no numbers, or beyond 2^31, are replaced by 0, 1 or -1"] * (n > 0)]
        return found + [f"what is above {core // 2000} kHz is not kept"] * (rate > core)

    def smaller_without_loss(self, n_packed: float, limit: int, file: BinaryIO) -> bool:
        """Write the sound without loss instead, where that is worth a trial and takes at most `limit` bytes."""
        if not self.options.fallback or n_packed > PLAUSIBLE * limit:
            return False
        with tempfile.SpooledTemporaryFile(SPOOLED) as spooled:
            made = cast(BinaryIO, spooled)
            how = (DEFAULT_EFFORT, self.options.strip, self.run.threads, None)
            lossless_sound.encode_to(made, self.reader.source, *how)
            if made.tell() > limit:
                return False
            made.seek(0)
            file.seek(0)
            file.truncate()
            shutil.copyfileobj(made, file, 1 << 20)
            return True


@dataclass(frozen=True)
class Coded:
    """Holds a segment as analysed, as the network codes it, and without loss where that is no larger."""

    analysed: Analysed
    lossy: Segment
    exact: ExactSegment | None

    def chunk(self, before: Coded | None = None, after: Coded | None = None) -> Chunk:
        """Return the chunk of the segment between two others."""
        if self.exact is not None:
            head = self.exact.head if needs_edge(before) else ()
            tail = self.exact.tail if needs_edge(after) else ()
            return Chunk(EXACT, replace(self.exact, head=head, tail=tail).pack())
        payload = self.lossy.pack()
        return Chunk(MARKED if self.lossy.silences and payload else PLAIN, payload)


def needs_edge(beside: Coded | None) -> bool:
    """Tell whether a segment is synthesised with frames of the one beside it."""
    return beside is not None and beside.exact is None and any(beside.lossy.runs)


def chunks_of(segments: Iterable[Coded]) -> Iterator[Chunk]:
    """Yield the chunks of segments in order."""
    before, held = None, None
    for after in chain(segments, [None]):
        if held is not None:
            yield held.chunk(before, after)
        before, held = held, after


def at_quality(job: Job, quality: int, file: BinaryIO) -> list[str]:
    """Write the file at a quality, or without loss where that is no larger; return notes."""
    done = n_packed = 0

    def chunks() -> Iterator[Chunk]:
        yield from chunks_of(counted())
        yield from job.beside()

    def counted() -> Iterator[Coded]:
        nonlocal done, n_packed
        for one in coded(job, quality):
            done, n_packed = done + one.analysed.n_samples, n_packed + one.analysed.n_packed
            yield one

    container.write_to(file, lambda: job.header(done, quality), chunks())
    return [WHOLE] if job.smaller_without_loss(n_packed, file.tell(), file) else job.notes()


def coded(job: Job, quality: int) -> Iterator[Coded]:
    """Read the sound, and yield each segment at a quality."""
    done = 0

    def code(piece: Piece) -> Coded:
        return job.coded(quality, job.improved(quality, job.analysis(piece)))

    for one in over_segments(code, job.reader.pieces(), job.run.threads):
        done += one.analysed.n_samples
        yield one
        if job.run.progress:
            job.run.progress(done, job.reader.source.n_samples)


@dataclass
class Search:
    """Finds the quality that keeps a rate, by real bytes: on all segments, or for long sounds on every 2nd, 4th ... first."""

    job: Job
    target: Rate
    start: int  # the quality x 100 at which typical speech keeps it

    def write(self, file: BinaryIO) -> list[str]:
        """Write the file that keeps the target; return notes. Raises TargetOutOfReach."""
        kept, stride, n_samples = self.kept()
        if not n_samples:
            return at_quality(self.job, round(100 * DEFAULT_QUALITY), file)
        extra = self.job.beside()
        seconds = n_samples / self.job.reader.source.sample_rate
        target = self.target.over(seconds) if isinstance(self.target, Bitrate) else self.target
        limit = int(target.window()[1] / target.rate(1, seconds))
        n_packed = sum(one.n_packed for one in kept) / sum(one.n_samples for one in kept) * n_samples
        if self.job.smaller_without_loss(n_packed, limit, file):
            return [WHOLE]
        if stride == 1:
            file.write(self.on_all(kept, n_samples, extra, lambda data: target.rate(len(data), seconds), target))
        else:
            few = kept[:: max(1, len(kept) * self.job.reader.source.channels // SAMPLED)]
            sample = Sample(self.job, few, n_samples / sum(one.n_samples for one in few))
            self.on_some(sample, n_samples, extra, seconds, target, file)
        return self.job.notes()

    def kept(self) -> tuple[list[Analysed], int, int]:
        """Return segments analysed, of how many each is one, and the samples of the sound."""
        source, stride, kept = self.job.reader.source, 1, list[Analysed]()
        most = max(KEPT // source.channels, 2)
        n_samples = 0

        def wanted(piece: Piece) -> bool:
            nonlocal n_samples
            n_samples += len(piece.samples)
            return piece.number % stride == 0

        for one in over_segments(self.job.analysis, filter(wanted, self.job.reader.pieces()), self.job.run.threads):
            kept.append(one)
            if len(kept) > most:
                stride *= 2
                kept = [one for one in kept if one.number % stride == 0]
            if self.job.run.progress:
                self.job.run.progress(n_samples, source.n_samples)
        return [one for one in kept if one.number % stride == 0], stride, n_samples

    def on_all(
        self, kept: list[Analysed], n_samples: int, extra: list[Chunk], measure: Callable[[bytes], float], target: Rate
    ) -> bytes:
        """Return the file, found with all segments in memory."""

        def file_at(segments: list[Analysed], quality: int) -> bytes:
            chunks = chunks_of(each(partial(self.job.coded, quality), segments, self.job.run.threads))
            return container.write(self.job.header(n_samples, quality), [*chunks, *extra])

        again = self.job.iterations > 0
        found = search(target, partial(file_at, kept), measure, "sound", self.start, ROUGH if again else None)
        if not again:
            return found
        quality = unpack(container.parse_head(found)[0].fields).quality
        improved = list(over_segments(partial(self.job.improved, quality), kept, self.job.run.threads))
        return search(target, partial(file_at, improved), measure, "sound", quality)

    def on_some(self, sample: Sample, n_samples: int, extra: list[Chunk], seconds: float, target: Rate, file: BinaryIO) -> None:
        """Write the file, found by some segments, whose error on the whole is taken off in a few passes over it."""
        more = float(len(container.write(self.job.header(n_samples, 0), extra)))  # bytes, besides the sample's
        reached = dict[int, float]()
        for _ in range(PASSES):
            quality = nearest(target, partial(sample.rate_of, target, more, seconds))
            if quality in reached:  # as near as qualities come
                break
            n_bytes = self.write_pass(quality, n_samples, extra, file)
            reached[quality] = target.rate(n_bytes, seconds)
            if keeps(target, reached[quality]) and target.slack(reached[quality]) <= 2 * target.tolerance:
                return
            more = n_bytes - sample.size_of(quality)
        kept_by = [quality for quality, value in reached.items() if keeps(target, value)]
        values = f"{min(reached.values()):.4g} to {max(reached.values()):.4g} {target.unit}"
        expect(bool(kept_by), TargetOutOfReach, target.name, target.value, f"about one of the values reached, {values}")
        best = min(kept_by, key=lambda quality: target.slack(reached[quality]))
        if best != list(reached)[-1]:
            self.write_pass(best, n_samples, extra, file)

    def write_pass(self, quality: int, n_samples: int, extra: list[Chunk], file: BinaryIO) -> int:
        """Write the whole sound at a quality, read anew; return its bytes."""
        file.seek(0)
        file.truncate()
        chunks = chunks_of(coded(self.job, quality))
        container.write_to(file, lambda: self.job.header(n_samples, quality), chain(chunks, extra))
        return file.tell()


@dataclass(frozen=True)
class Sample:
    """Estimates the bytes of a long sound's segments by those of a few. share: of its samples, how many each stands for."""

    job: Job
    few: list[Analysed]
    share: float
    sizes: dict[int, float] = field(default_factory=dict)

    def size_of(self, quality: int) -> float:
        """Return the bytes of all segments at a quality."""
        if quality not in self.sizes:
            segments = each(partial(self.job.coded, quality), self.few, self.job.run.threads)
            self.sizes[quality] = self.share * sum(container.size_of(one.chunk()) for one in segments)
        return self.sizes[quality]

    def rate_of(self, target: Rate, more: float, seconds: float, quality: int) -> float:
        """Return what a file reaches at a quality. more: its bytes besides."""
        return target.rate(self.size_of(quality) + more, seconds)


def keeps(target: Rate, value: float) -> bool:
    """Tell whether a value that was reached keeps the target."""
    lowest, highest = target.window()
    return lowest <= value <= highest


def nearest(target: Rate, reached: Callable[[int], float]) -> int:
    """Return the highest quality that reaches no more than the target, 0 where none does; or one that is near enough."""
    low, high = 0, HUNDREDTHS + 1
    while high - low > 1:  # invariant: reached(low) <= target, or low is 0
        middle = (low + high) // 2
        value = reached(middle)
        low, high = (middle, high) if value <= target.value else (low, middle)
        if value <= target.value and target.slack(value) <= target.tolerance / 2:
            break
    return low
