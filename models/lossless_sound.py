"""Lossless sound: adaptive predictors, blended; what they leave, bit by bit under mixed models. One kernel both ways.

    samples ─ shift, order ─► for each sample in turn of each channel:
        sound_windows      least squares on own and the partner channel's past (and the partner's present): K guesses
        sound_filters      NLMS cascades on what some of those leave: S guesses more, each the sum so far
        sound_blend        all guesses, weighted by least squares again: the prediction p
        sound_decisions    sample - p: side, octave, halves, as binary decisions; the lowest bits stand as they are

Everything learns from coded samples alone, so the decoder follows. A segment is coded by itself; an effort is a preset
(`sound_presets.py`). Bytes: FORMAT.md, section "Coded sound samples".

After: Huang et al., "Cascaded RLS-LMS prediction in MPEG-4 lossless audio coding", 2008; Monkey's Audio and Sac
(cascades behind least squares); PAQ8 (mixing). A blend of several memories gains most: no one memory suits all sounds.

Exact: float64 and float32 with + - * / alone, sums in a fixed order, predictions on a grid (`sound_arithmetic.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import Stream, open_stream
from laconic.entropy.rans_numba import I64, U64
from laconic.entropy.threads import stop_if_over
from laconic.models.mixing import decoder, encoder, finish_decoder, push_tapes
from laconic.models.sound_arithmetic import F64, LANES, Solver, flush
from laconic.models.sound_blend import Blend, blended, learn_blend
from laconic.models.sound_decisions import Decisions, code_sample, learn_errors, prepare
from laconic.models.sound_filters import Filters, descend, guess_filters
from laconic.models.sound_presets import PRESETS, Preset
from laconic.models.sound_windows import FLUSH_EVERY, Windows, accumulate, guess_windows, renew

MOST_CHANNELS = 8
MOST_SEGMENT = 1 << 20  # samples
CHUNK = 4096  # values per call of the kernel: between calls an interrupt is noticed, and a stream that has run out
TAPE = 96  # intervals that a value needs at most


def segment_length(sample_rate: int) -> int:
    """Return how many samples a segment has: 10 seconds, at most 2**20.

    Half as long costs 0.1 %; twice as long saves half of that.
    """
    return min(10 * sample_rate, MOST_SEGMENT)


def encode_segment(samples: NDArray[np.int32], bits: int, effort: int) -> bytes:
    """Code a segment by itself.

    samples: int32 [T, C], 1 to 8 channels, in -2**(bits - 1) .. 2**(bits - 1) - 1. bits: 8 to 32. effort: 1 to 9.
    Raises BadInput.
    """
    check(samples.shape[1], bits)
    expect(effort in PRESETS, BadInput, "effort", effort, "1 to 9")
    low, high = int(samples.min(initial=0)), int(samples.max(initial=0))
    expect(-(1 << bits - 1) <= low and high < 1 << bits - 1, BadInput, "samples", (low, high), f"within {bits} bits")
    stored = b"\0" + store(samples, bits)
    if not samples.size:
        return stored
    layout = Layout.of(samples)
    coded = layout.to_bytes(effort) + push_tapes(list(tapes(layout, layout.columns(samples), bits, effort)))
    return coded if len(coded) < len(stored) else stored


def decode_segment(data: bytes | memoryview, n: int, channels: int, bits: int) -> NDArray[np.int32]:
    """Return the samples, int32 [n, channels], that `encode_segment` was given.

    Raises BadFile on damage, at the latest CHUNK values after the stream has run out.
    """
    check(channels, bits)
    raw = bytes(data)
    expect(len(raw) > 0, BadFile, "segment", "nothing", "a segment")
    if raw[0] == 0:
        return restore(raw[1:], n, channels, bits)
    layout, effort = Layout.from_bytes(raw, channels, bits)
    stream, end = open_stream(raw, n * channels * TAPE, position=1 + 3 * channels)
    expect(end == len(raw), BadFile, "segment", f"{len(raw) - end} bytes more", "the end")
    columns = np.zeros((n, channels), np.int64)
    take_samples(stream, layout, columns, bits, effort)
    return layout.samples(columns)


def take_samples(stream: Stream, layout: Layout, columns: NDArray[np.int64], bits: int, effort: int) -> None:
    """Fill in columns [T, C] from a stream. Raises BadFile where it ends too early or too late."""
    (n, channels), n_words = columns.shape, len(stream.words) - 1  # the last word is a spare one
    arrays, predictors = layout.arrays(bits), Predictors.of(PRESETS[effort], channels)
    decisions = Decisions.of(channels)
    coder, tape = decoder(stream)
    step = CHUNK // channels
    for begin in range(0, n, step):
        stop_if_over()
        run(columns, begin, min(begin + step, n), arrays, predictors, decisions, coder, tape)
        expect(int(coder[1]) <= n_words, BadFile, "words of a segment", n_words, "more, for the samples still to come")
    finish_decoder(stream, coder)


def tapes(layout: Layout, columns: NDArray[np.int64], bits: int, effort: int) -> Iterator[NDArray[np.uint32]]:
    """Yield the intervals of all samples, columns [T, C], in parts: a tape for the whole segment would be large."""
    n, channels = columns.shape
    arrays, predictors = layout.arrays(bits), Predictors.of(PRESETS[effort], channels)
    decisions = Decisions.of(channels)
    step, tape = CHUNK // channels, np.empty(CHUNK * TAPE, np.uint32)
    for begin in range(0, n, step):
        stop_if_over()
        coder = encoder()
        run(columns, begin, min(begin + step, n), arrays, predictors, decisions, coder, tape)
        yield tape[: int(coder[1])].copy()


def check(channels: int, bits: int) -> None:
    """Raise BadInput unless a segment may have so many channels and bits per sample."""
    expect(1 <= channels <= MOST_CHANNELS, BadInput, "channels", channels, f"1 to {MOST_CHANNELS}")
    expect(8 <= bits <= 32, BadInput, "bits", bits, "8 to 32")


def store(samples: NDArray[np.int32], bits: int) -> bytes:
    """Return the samples as they are, little-endian, in as few bytes per sample as hold them."""
    return np.ascontiguousarray(samples, "<i4")[:, :, None].view(np.uint8)[:, :, : (bits + 7) // 8].tobytes()


def restore(raw: bytes, n: int, channels: int, bits: int) -> NDArray[np.int32]:
    """Return the samples, int32 [n, channels], that `store` was given. Raises BadFile where the length is another."""
    width = (bits + 7) // 8
    expect(len(raw) == n * channels * width, BadFile, "stored samples", len(raw), f"{n * channels * width} bytes")
    wide = np.zeros((n, channels, 4), np.uint8)
    wide[:, :, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(n, channels, width)
    return (wide.view("<i4")[:, :, 0] >> 8 * (4 - width)).astype(np.int32)  # the shift extends the sign


@dataclass(frozen=True)
class Layout:
    """Says in which order channels are coded, and which channel helps which; all fields go by coded channel.

    order: number of the channel in the segment. partners: a coded channel, itself where there is none. shifts: how many
    low bits are always 0. The sample of a partner that is coded earlier is known for the same time, else for the time
    before.
    """

    order: tuple[int, ...]
    partners: tuple[int, ...]
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, samples: NDArray[np.int32]) -> Layout:
        """Choose for samples [T, C]: first the channel most like all others, then always the one most like one before."""
        channels = samples.shape[1]
        together = np.bitwise_or.reduce(samples, axis=0).astype(np.int64)
        shifts = [max(0, (int(v) & -int(v)).bit_length() - 1) for v in together]
        likeness = alike(samples)
        order, partners = [int(likeness.sum(0).argmax())], [min(1, channels - 1)]
        while len(order) < channels:
            rest = [c for c in range(channels) if c not in order]
            pairs = ((p, c) for p in range(len(order)) for c in rest)
            place, new = max(pairs, key=lambda pair: likeness[order[pair[0]], pair[1]])
            order, partners = [*order, new], [*partners, place]
        return cls(tuple(order), tuple(partners), tuple(shifts[c] for c in order))

    def to_bytes(self, effort: int) -> bytes:
        """Return the head of a coded segment: the effort and three bytes per coded channel."""
        return bytes([effort, *(v for one in zip(self.order, self.partners, self.shifts, strict=True) for v in one)])

    @classmethod
    def from_bytes(cls, raw: bytes, channels: int, bits: int) -> tuple[Layout, int]:
        """Return the layout and the effort that the head of a segment states. Raises BadFile."""
        expect(raw[0] in PRESETS, BadFile, "effort", raw[0], "0 to 9")
        expect(len(raw) > 3 * channels, BadFile, "segment", len(raw), f"more than {3 * channels} bytes")
        order, partners, shifts = (tuple(raw[1 + k : 1 + 3 * channels : 3]) for k in range(3))
        expect(sorted(order) == list(range(channels)), BadFile, "order of channels", order, "each once")
        expect(max(partners) < channels, BadFile, "partners", partners, f"below {channels}")
        expect(max(shifts) < bits, BadFile, "shifts", shifts, f"below {bits}")
        return cls(order, partners, shifts), raw[0]

    def columns(self, samples: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the values to be coded, int64 [T, C], of samples [T, C]: in coding order, without the low bits."""
        return np.ascontiguousarray(samples[:, self.order].astype(np.int64) >> np.array(self.shifts))

    def samples(self, columns: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the samples, int32 [T, C], of coded values [T, C]."""
        out = np.empty(columns.shape, np.int32)
        out[:, self.order] = columns << np.array(self.shifts)
        return out

    def arrays(self, bits: int) -> NDArray[np.int64]:
        """Return what the kernel reads, int64 [2, C]: partners, and how many bits the values of each channel have."""
        return np.array([self.partners, [bits - s for s in self.shifts]])


def alike(samples: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return how much channels have in common, float64 [C, C] in 0..1: the correlation of their differences.

    Only the encoder asks, so that these floats need not be the same everywhere.
    """
    steps = np.diff(samples.astype(np.float64), axis=0)
    products = steps.T @ steps
    power = np.sqrt(np.diag(products))
    like: NDArray[np.float64] = np.abs(products) / (np.outer(power, power) + 1e-9)
    return like


class Predictors(NamedTuple):
    """Holds all predictors of a segment, and the histories that they share.

    A history is a ring of the latest values, newest first, stored twice in a row: so those before any place lie in one
    piece. past: float64 [C * 2 * ring], the samples. guesses: float64 [K + S] of the sample at hand, in the order of
    the preset.
    """

    windows: Windows
    filters: Filters
    blend: Blend
    solver: Solver
    past: Any
    guesses: Any
    ring: int

    @classmethod
    def of(cls, preset: Preset, channels: int) -> Predictors:
        """Make the state before the first sample."""
        sizes = [(one.own, one.other) for one in preset.least_squares]
        filters = [own for cascade in preset.cascades for own, _ in cascade.filters]
        ring = LANES + max([*filters, *(own for own, _ in sizes), *(other for _, other in sizes)])
        n_guesses = len(sizes) + len(filters)
        blend = Blend.of(n_guesses, channels)
        largest = max(blend.m, *(own + (other if channels > 1 else 0) for own, other in sizes))
        return cls(
            windows=Windows.of(preset.least_squares, channels),
            filters=Filters.of(preset, channels, ring),
            blend=blend,
            solver=Solver.of(largest),
            past=np.zeros(channels * 2 * ring),
            guesses=np.zeros(n_guesses),
            ring=ring,
        )


@numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
def run(samples, begin, end, layout, s, d, coder, tape):  # type: ignore[no-untyped-def]
    """Code samples begin .. end - 1 of all channels, int64 [T, C], or fill them in; encoder and decoder learn alike.

    layout: as `Layout.arrays`. s: Predictors. d: Decisions. coder, tape: see `mixing.py`.
    Reference-counting tuples of so many arrays would take half the time; hence without NRT. Kernels must not allocate.
    """
    channels, ring, n_windows = U64(samples.shape[1]), U64(s.ring), U64(s.windows.plan.shape[0])
    for t in range(U64(begin), U64(end)):
        now = ring - U64(1) - t % ring  # where this sample will stand in the histories, which are filled from the end
        for c in range(channels):
            partner, limit = U64(layout[0, c]), I64(1) << I64(layout[1, c] - 1)
            own_at = c * U64(2) * ring + now
            other_at = partner * U64(2) * ring + now + U64(partner >= c)  # its sample now, or the one before
            guess_windows(s.windows, s.past, s.guesses, c, own_at, other_at, F64(limit))
            guess_filters(s.filters, s.guesses, n_windows, c, partner, now, ring, F64(limit))
            p = blended(s.blend, s.guesses, c, F64(limit))
            prepare(d, s.guesses, c, partner, p)
            x = code_sample(d, c, p, samples[t, c], limit, coder, tape)
            samples[t, c] = x
            learn_errors(d, c, F64(x))
            descend(s.filters, s.guesses, n_windows, c, partner, now, ring, F64(x))
            accumulate(s.windows, s.past, c, own_at, other_at, t, F64(x))
            renew(s.windows, s.solver, c, t)
            learn_blend(s.blend, s.solver, s.guesses, c, p, F64(x), t)
            s.past[own_at], s.past[own_at + ring] = F64(x), F64(x)
        if t % U64(FLUSH_EVERY) == U64(FLUSH_EVERY - 1):
            flush(s.windows.moments, U64(0), U64(s.windows.moments.size))
            flush(s.blend.sums, U64(0), U64(s.blend.sums.size))
