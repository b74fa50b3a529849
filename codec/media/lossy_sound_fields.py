"""What a lossy sound's file says in integers: its header, and of each segment the silences and the runs of frames.

No network is needed to read it (FORMAT.md, section "Lossy sound").
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from laconic.container import read_varint, write_varint
from laconic.entropy.errors import BadFile, expect
from laconic.media.sound_parts import MAX_SAMPLES
from laconic.payloads import read_fields, write_fields
from laconic.sound import MAX_CHANNELS
from laconic.sound_samples import Samples

PLAIN, MARKED, EXACT = 24, 25, 26  # kinds of chunks: segments without silences, with them, and coded without loss
CORE_RATES = (16_000, 24_000, 48_000)  # Hz, of the coded sound
CORE_UNIT = 1_000  # Hz of a step of the field
FRAME_RATE = 62.5  # frames a second
SECONDS = 4  # of a segment
EDGE = 3  # frames of a segment without loss, at either end, that a lossy segment beside it is synthesised with
HEAD, TAIL, DEFLATED = 1, 2, 4  # what an exact segment's first byte says: which edges there are, and how samples are coded
FRAMES = int(SECONDS * FRAME_RATE)  # of a segment but the last, which may have one more
LEAST_RATE, MOST_RATE = 1_000, 768_000  # Hz
WIDTHS = ((8, False), (16, False), (24, False), (32, False), (32, True), (64, True))  # bits, whether floats
BEYOND = 2.0**31  # floats beyond have no meaning as sound
LEVEL_STEP = 1.5  # dB
LEVEL_ZERO = 128  # the level that stands for full scale
LIMITS = {
    "sample rate": (LEAST_RATE, MOST_RATE),
    "shape": (0, MAX_CHANNELS * len(WIDTHS) - 1),
    "core rate": (CORE_RATES[0] // CORE_UNIT, CORE_RATES[-1] // CORE_UNIT),
    "quality": (0, 10_000),
    "samples": (0, MAX_SAMPLES),
    "seed": (0, (1 << 32) - 1),
}
Span = tuple[int, int]  # the first sample, and the one after the last


@dataclass(frozen=True)
class Fields:
    """Holds samples per second, channels, bits, whether floats, and of the coded sound its samples per second, quality x
    100, samples per channel, the noise's seed, levels.

    levels: of each coded channel, 128 + its level in steps of 1.5 dB above full scale, 0 to 255.
    """

    sample_rate: int
    channels: int
    bits: int
    floating: bool
    core_rate: int
    quality: int
    n_samples: int
    seed: int
    levels: tuple[int, ...]

    def pack(self) -> bytes:
        """Return the bytes that `unpack` reads."""
        shape = self.channels - 1 + MAX_CHANNELS * WIDTHS.index((self.bits, self.floating))
        numbers = (self.sample_rate, shape, self.core_rate // CORE_UNIT, self.quality, self.n_samples, self.seed)
        return write_fields(*numbers) + bytes(self.levels)

    @property
    def hop(self) -> int:
        """Core samples from one frame to the next."""
        return hop_of(self.core_rate)

    @property
    def segment(self) -> int:
        """Samples of a channel in each segment but the last."""
        return SECONDS * self.sample_rate

    @property
    def n_segments(self) -> int:
        """Segments of the file."""
        return -(-self.n_samples // self.segment)

    @property
    def n_core(self) -> int:
        """Samples of a channel at the core's rate."""
        return -(-self.n_samples * self.core_rate // self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames of a channel: frame t covers the core's samples (t - 1) hop up to (t + 1) hop."""
        return -(-self.n_core // self.hop) + 1 if self.n_samples else 0

    def samples_of(self, i: int) -> Span:
        """Return the samples of segment i."""
        return i * self.segment, min(self.n_samples, (i + 1) * self.segment)

    def frames_of(self, i: int) -> Span:
        """Return the frames of segment i."""
        return i * FRAMES, self.n_frames if i == self.n_segments - 1 else (i + 1) * FRAMES

    def edges_of(self, i: int) -> tuple[Span, Span]:
        """Return the first and the last few frames of segment i, which is coded without loss."""
        start, stop = self.frames_of(i)
        return (start, min(stop, start + EDGE)), (max(start, stop - EDGE), stop)


def unpack(data: bytes) -> Fields:
    """Read and bound every field. Raises BadFile."""
    n_channels = shape_of(data) % MAX_CHANNELS + 1
    (rate, shape, core, quality, n_samples, seed), levels = read_fields(data, LIMITS, "lossy sound", n_channels)
    bits, floating = WIDTHS[shape // MAX_CHANNELS]
    core_rate = core * CORE_UNIT
    expect(core_rate in CORE_RATES, BadFile, "core rate", core, "16, 24 or 48 kHz")
    return Fields(rate, n_channels, bits, floating, core_rate, quality, n_samples, seed, tuple(levels))


def hop_of(core_rate: int) -> int:
    """Return the samples from one frame to the next at a rate of the core."""
    return int(core_rate / FRAME_RATE)


def shape_of(data: bytes) -> int:
    """Return the second field. Raises BadFile."""
    _, position = read_varint(data, 0, "sample rate")
    return read_varint(data, position, "shape")[0]


@dataclass(frozen=True)
class Segment:
    """Holds what a segment's chunk says: the silent parts, in samples from its beginning, and a run for each coded channel.

    A run is empty where all that its frames would see is silent; without any run the whole segment is.
    """

    silences: tuple[Span, ...]
    runs: tuple[bytes, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing of silence."""
        return not self.silences

    def pack(self) -> bytes:
        """Return the payload: counts of samples, if there are silences, then the runs, each but the last with its length."""
        if not any(self.runs):
            return b""
        head = b""
        if self.silences:
            ends = [0, *(place for span in self.silences for place in span)]
            head = write_fields(len(self.silences), *(b - a for a, b in pairwise(ends)))
        return head + b"".join(write_varint(len(run)) + run for run in self.runs[:-1]) + self.runs[-1]


def read_segment(payload: bytes, n_samples: int, n_runs: int, plain: bool) -> Segment:
    """Read a segment's chunk. n_samples: of the segment. plain: whether its kind has no silences. Raises BadFile."""
    if not payload:
        return Segment(((0, n_samples),), (b"",) * n_runs)
    spans, position = (list[Span](), 0) if plain else read_silences(payload, n_samples)
    runs, position = read_runs(payload, position, n_runs - 1)
    runs.append(payload[position:])
    expect(any(runs), BadFile, "runs", "none", "one at least, or an empty segment")
    return Segment(tuple(spans), tuple(runs))


def read_silences(payload: bytes, n_samples: int) -> tuple[list[Span], int]:
    """Return the silent parts, and the position after them. Raises BadFile."""
    most = min(len(payload) // 2, n_samples)
    count, position = read_varint(payload, 0, "silences", most + 1)
    spans, at = list[Span](), 0
    for i in range(count):
        gap, position = read_varint(payload, position, f"samples before silence {i}")
        length, position = read_varint(payload, position, f"samples of silence {i}")
        ok = gap + length <= n_samples - at and length > 0
        expect(ok, BadFile, f"silence {i}", (at + gap, length), f"a part of {n_samples} samples")
        spans.append((at + gap, at + gap + length))
        at += gap + length
    return spans, position


@dataclass(frozen=True)
class ExactSegment:
    """Holds what the chunk of a segment without loss says.

    head, tail: runs of the first and the last EDGE frames, one for each coded channel, where a lossy segment beside needs
    them, or else none. coded: the samples, as `lossless_sound.read_segment` reads them, or a zlib stream of them as WAV
    files have them.
    """

    head: tuple[bytes, ...]
    tail: tuple[bytes, ...]
    coded: bytes
    deflated: bool

    def pack(self) -> bytes:
        """Return the payload: what there is, the runs of the edges, each with its length, and the samples."""
        runs = b"".join(write_varint(len(run)) + run for run in (*self.head, *self.tail))
        flags = HEAD * bool(self.head) + TAIL * bool(self.tail) + DEFLATED * self.deflated
        return bytes([flags]) + runs + self.coded


def read_exact(payload: bytes, n_runs: int, possible: int) -> ExactSegment:
    """Read the chunk of a segment without loss. possible: the edges beyond which the sound goes on. Raises BadFile."""
    flags, position = read_varint(payload, 0, "flags of a segment")
    expect(flags & ~(possible | DEFLATED) == 0, BadFile, "flags of a segment", flags, f"bits of {possible | DEFLATED}")
    head, position = read_runs(payload, position, n_runs if flags & HEAD else 0)
    tail, position = read_runs(payload, position, n_runs if flags & TAIL else 0)
    return ExactSegment(tuple(head), tuple(tail), payload[position:], bool(flags & DEFLATED))


def read_runs(payload: bytes, position: int, n: int) -> tuple[list[bytes], int]:
    """Return n runs that stand after their lengths, and the position after them. Raises BadFile."""
    runs = []
    for i in range(n):
        length, position = read_varint(payload, position, f"run {i} length")
        end = position + length
        expect(end <= len(payload), BadFile, f"run {i} length", length, f"at most {len(payload) - position} bytes")
        runs.append(payload[position:end])
        position = end
    return runs, position


def mixed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the coded channels [T, C] of channels: of two the half difference and the half sum, of others themselves."""
    if samples.shape[1] != 2:
        return samples
    left, right = samples.T
    return np.stack([(left - right) / 2, (left + right) / 2], 1)


def unmixed(coded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the channels of coded channels: undoes `mixed`."""
    if coded.shape[1] != 2:
        return coded
    side, mid = coded.T
    return np.stack([mid + side, mid - side], 1)


def full_scale(bits: int, floating: bool) -> float:
    """Return what stands for 1 in the samples."""
    return 1.0 if floating else float(1 << bits - 1)


def to_samples(x: NDArray[np.float32], bits: int, floating: bool) -> Samples:
    """Return decoded sound, 1 at full scale, as samples: floats, or integers rounded and clipped to their bits."""
    if floating:
        return x.astype(f"f{bits // 8}")
    most = full_scale(bits, floating)
    return np.clip(np.rint(x.astype(np.float64) * most), -most, most - 1).astype(np.int32)
