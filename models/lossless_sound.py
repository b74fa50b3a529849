"""Lossless sound: adaptive predictors, blended on line; what they leave, bit by bit under mixed models. One kernel both ways.

    samples ─ shift, order ─► for each sample in turn of each channel:
        least squares      own and the partner channel's past (and the partner's present), covariances that fade: K guesses
        NLMS cascades      on what some of those leave: S guesses more, each the sum so far
        blend              of all guesses, by least squares again: the prediction p
        sample - p         side, octave, halves: binary decisions; each is foretold by logistic distributions around guesses
                           and by counters, mixed (`mixing.py`); the lowest bits are noise and stand as they are

Everything learns from coded samples alone, so the decoder follows. A segment is by itself; an effort is a preset.

After: Huang et al., "Cascaded RLS-LMS prediction in MPEG-4 lossless audio coding", 2008; Monkey's Audio and Sac (cascades
behind least squares); PAQ8 (mixing). A blend of several memories gains most: no one memory suits all sounds.

Exact: float64 and float32 with + - * / alone, sums in a fixed order (`Lanes`), predictions on a grid of 1/256. Numbers never
get so small as to be subnormal, which some threads flush to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import open_stream
from laconic.entropy.pmf import PRECISION
from laconic.entropy.rans_numba import I64, U32, U64, pop
from laconic.models.mixing import (
    COUNTER_START,
    GUARD,
    LIMIT,
    ONE,
    code,
    count,
    counter,
    decoder,
    encoder,
    finish_decoder,
    follow,
    learn,
    log_ratio,
    new_maps,
    powers,
    push_tapes,
    refine,
    squash,
    stretch,
)

F32, F64 = numba.float32, numba.float64
operation: Any = intrinsic  # for mypy, which counts the typing context among the arguments of a call
MOST_CHANNELS = 8
LANES = 8  # sums of a dot product; sizes of predictors are multiples of it
RIDGE = 0.5  # on the diagonal of the covariances
EARLY = (16, 64)  # samples after which weights are solved for, beside every so many
STEP = 0.06  # of the NLMS filters: more forgets, less lags
BLEND_MEMORY, BLEND_EVERY, BLEND_RIDGE = 400, 4, 0.5
EXPERTS, SETS = 5, 2  # distributions and counters that foretell a bit
PACES = np.array([0.15, 0.04, 0.008, 0.04, 0.04])  # of the experts' mean errors
SPREAD = 1.386  # mean distance from the centre of a logistic distribution, in its scale: 2 ln 2
Z_STEPS, Z_RANGE = 32, 24  # of the table of the logistic distribution
Z_LAST = 2 * Z_RANGE * Z_STEPS - 0.001
MASS = 2147483648.0  # of a distribution
CENTRES, INVERSE, INSIDE, MIDDLE, OUTSIDE = (k * EXPERTS for k in range(5))  # rows of Models.scratch
NODES, CELLS, PLACES = 128, 64, 256  # kinds of decision, contexts of a counter, sets of weights beside one a node
MOST_OCTAVE = 10
RATE, COUNT_LIMIT, MAP_SHIFT = 300, 250, 6
CHUNK = 4096  # samples of a call of the kernel, in the encoder
TAPE = 96  # intervals a sample needs at most


@dataclass(frozen=True)
class Least:
    """A least-squares predictor from `own` samples and `other` samples of the partner channel, multiples of 8.

    memory: a sample's weight in the covariances is (1 - 1 / memory)**age. every: samples from one solution to the next.
    """

    own: int
    other: int
    memory: int
    every: int


@dataclass(frozen=True)
class Gradient:
    """NLMS filters one after the other on the residual of least-squares predictor `source`.

    filters: (own, other) errors that a filter sees, of its channel and of the partner, multiples of 8.
    """

    source: int
    filters: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Preset:
    """The predictors of an effort."""

    least: tuple[Least, ...]
    gradient: tuple[Gradient, ...]


FAST, MEDIUM, SLOW, WIDE = Least(16, 8, 100, 8), Least(32, 16, 500, 16), Least(8, 8, 5000, 16), Least(128, 32, 1000, 64)
SHORT = ((32, 16), (16, 0))
CASCADE, STEREO = ((1024, 0), (256, 0), *SHORT), ((1024, 512), (256, 0), *SHORT)
PRESETS = {  # by effort, which a segment names: part of the format
    1: Preset((Least(16, 8, 500, 32),), (Gradient(0, ((16, 0),)),)),
    2: Preset((Least(16, 8, 500, 32),), (Gradient(0, ((256, 0), (16, 0))),)),
    3: Preset((Least(24, 8, 500, 32), Least(16, 8, 100, 16)), (Gradient(0, ((256, 0), *SHORT)),)),
    4: Preset((Least(32, 8, 500, 32), Least(16, 8, 100, 16)), (Gradient(0, CASCADE),)),
    5: Preset((MEDIUM, FAST), (Gradient(0, CASCADE),)),
    6: Preset((MEDIUM, FAST, SLOW), (Gradient(0, CASCADE), Gradient(2, STEREO))),
    7: Preset((MEDIUM, FAST, SLOW, Least(128, 32, 1000, 256)), (Gradient(0, CASCADE), Gradient(2, STEREO))),
    8: Preset(
        (
            Least(32, 16, 500, 8),
            Least(16, 8, 100, 4),
            Least(16, 8, 5000, 16),
            Least(64, 32, 500, 32),
            WIDE,
            Least(8, 8, 33, 2),
        ),
        (Gradient(0, CASCADE), Gradient(2, STEREO), Gradient(4, CASCADE)),
    ),
    9: Preset(
        (
            Least(32, 16, 500, 8),
            Least(16, 8, 100, 4),
            Least(16, 8, 5000, 16),
            Least(64, 32, 500, 32),
            WIDE,
            Least(24, 16, 200, 8),
            Least(8, 8, 33, 2),
            Least(256, 32, 2000, 128),
        ),
        (
            Gradient(0, CASCADE),
            Gradient(2, ((2048, 1024), (512, 0), (256, 0), *SHORT)),
            Gradient(4, CASCADE),
            Gradient(7, ((1024, 0), (256, 0), (16, 0))),
        ),
    ),
}


def segment_length(sample_rate: int) -> int:
    """Samples a segment: 10 s, less where that is over 2**20. Half as long costs 0.1 %, twice as long saves half of that."""
    return min(10 * sample_rate, 1 << 20)


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
    coded = layout.to_bytes(effort) + push_tapes(tapes(layout.columns(samples), layout, bits, effort))
    return coded if len(coded) < len(stored) else stored


def decode_segment(data: bytes | memoryview, n: int, channels: int, bits: int) -> NDArray[np.int32]:
    """The samples int32 [n, channels] that `encode_segment` was given. Raises BadFile on damage."""
    check(channels, bits)
    raw = bytes(data)
    expect(len(raw) > 0, BadFile, "segment", "nothing", "a segment")
    if raw[0] == 0:
        return restore(raw[1:], n, channels, bits)
    layout, effort = Layout.from_bytes(raw, channels, bits)
    stream, end = open_stream(raw, n * channels * TAPE, position=1 + 3 * channels)
    expect(end == len(raw), BadFile, "segment", f"{len(raw) - end} bytes more", "the end")
    coder, tape = decoder(stream)
    columns = np.zeros((n, channels), np.int64)
    run(columns, 0, n, layout.arrays(bits), Predictors.of(PRESETS[effort], channels), Models.of(channels), coder, tape)
    finish_decoder(stream, coder)
    return layout.samples(columns)


def check(channels: int, bits: int) -> None:
    expect(1 <= channels <= MOST_CHANNELS, BadInput, "channels", channels, f"1 to {MOST_CHANNELS}")
    expect(8 <= bits <= 32, BadInput, "bits", bits, "8 to 32")


def store(samples: NDArray[np.int32], bits: int) -> bytes:
    """Little-endian, as few bytes a sample as hold them."""
    return np.ascontiguousarray(samples, "<i4")[:, :, None].view(np.uint8)[:, :, : (bits + 7) // 8].tobytes()


def restore(raw: bytes, n: int, channels: int, bits: int) -> NDArray[np.int32]:
    width = (bits + 7) // 8
    expect(len(raw) == n * channels * width, BadFile, "stored samples", len(raw), f"{n * channels * width} bytes")
    wide = np.zeros((n, channels, 4), np.uint8)
    wide[:, :, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(n, channels, width)
    return (wide.view("<i4")[:, :, 0] >> 8 * (4 - width)).astype(np.int32)


@dataclass(frozen=True)
class Layout:
    """Which channel is coded when, and with which one's help; by coded channel.

    order: the channel of the segment. partners: a coded channel, itself where there is none. shifts: low bits that are
    always 0. The sample of a partner that was coded before is known at the same time, of one coded later a sample before.
    """

    order: tuple[int, ...]
    partners: tuple[int, ...]
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, samples: NDArray[np.int32]) -> Layout:
        channels = samples.shape[1]
        together = np.bitwise_or.reduce(samples, axis=0).astype(np.int64)
        shifts = [max(0, (int(v) & -int(v)).bit_length() - 1) for v in together]
        likeness = alike(samples)
        order, partners = [int(likeness.sum(0).argmax())], [min(1, channels - 1)]
        while len(order) < channels:
            rest = [c for c in range(channels) if c not in order]
            place, new = max(
                ((p, c) for p in range(len(order)) for c in rest), key=lambda x: likeness[order[x[0]], x[1]]
            )
            order, partners = [*order, new], [*partners, place]
        return cls(tuple(order), tuple(partners), tuple(shifts[c] for c in order))

    def to_bytes(self, effort: int) -> bytes:
        return bytes([effort, *(v for one in zip(self.order, self.partners, self.shifts, strict=True) for v in one)])

    @classmethod
    def from_bytes(cls, raw: bytes, channels: int, bits: int) -> tuple[Layout, int]:
        """Layout and effort. Raises BadFile."""
        expect(raw[0] in PRESETS, BadFile, "effort", raw[0], "0 to 9")
        expect(len(raw) > 3 * channels, BadFile, "segment", len(raw), f"more than {3 * channels} bytes")
        order, partners, shifts = (tuple(raw[1 + k : 1 + 3 * channels : 3]) for k in range(3))
        expect(sorted(order) == list(range(channels)), BadFile, "order of channels", order, "each once")
        expect(max(partners) < channels, BadFile, "partners", partners, f"below {channels}")
        expect(max(shifts) < bits, BadFile, "shifts", shifts, f"below {bits}")
        return cls(order, partners, shifts), raw[0]

    def columns(self, samples: NDArray[np.int32]) -> NDArray[np.int64]:
        return np.ascontiguousarray(samples[:, self.order].astype(np.int64) >> np.array(self.shifts))

    def samples(self, columns: NDArray[np.int64]) -> NDArray[np.int32]:
        out = np.empty(columns.shape, np.int32)
        out[:, self.order] = columns << np.array(self.shifts)
        return out

    def arrays(self, bits: int) -> NDArray[np.int64]:
        """For the kernel, int64 [2, C]: partners, and the bits of a channel's samples."""
        return np.array([self.partners, [bits - s for s in self.shifts]])


def alike(samples: NDArray[np.int32]) -> NDArray[np.float64]:
    """How much channels have in common, 0 to 1 [C, C]: correlation of their differences. Only the encoder asks."""
    steps = np.diff(samples.astype(np.float64), axis=0)
    products = steps.T @ steps
    power = np.sqrt(np.diag(products))
    like: NDArray[np.float64] = np.abs(products) / (np.outer(power, power) + 1e-9)
    return like


def tapes(columns: NDArray[np.int64], layout: Layout, bits: int, effort: int) -> list[NDArray[np.uint32]]:
    """The intervals of all samples, in parts."""
    n, channels = columns.shape
    arrays, predictors, models = layout.arrays(bits), Predictors.of(PRESETS[effort], channels), Models.of(channels)
    tape = np.empty(CHUNK * channels * TAPE, np.uint32)
    out = []
    for begin in range(0, n, CHUNK):
        coder = encoder()
        run(columns, begin, min(begin + CHUNK, n), arrays, predictors, models, coder, tape)
        out.append(tape[: int(coder[1])].copy())
    return out


class Predictors(NamedTuple):
    """Arrays of the predictors, those of the channels one after the other."""

    least: Any  # int64 [K, 7]: own, other, both, every, slots; where its weights, where its rows are
    keeps: Any  # float64 [K]
    stages: Any  # int64 [S, 4]: prediction that it adds to, own, other, where its taps are
    sizes: Any  # int64 [5] of a channel: ring, weights, rows, taps, blended predictions
    past: Any  # float64 [C * 2 ring]: samples, the newest first, twice
    weights: Any  # float64 [C * weights]
    moments: Any  # float64 [C * weights]
    rows: Any  # float64 [C * rows]
    matrix: Any  # float64 [n * n]
    vector: Any  # float64 [n]
    inverse: Any  # float64 [n + 8]
    errors: Any  # float32 [C * S * 2 ring]
    taps: Any  # float32 [C * taps]
    power: Any  # float64 [C * S]
    guesses: Any  # float64 [K + S]
    blend: Any  # float64 [C * M * (M + 3)]: matrix, moments, weights, level

    @classmethod
    def of(cls, preset: Preset, channels: int) -> Predictors:
        least, weights, rows = [], 0, 0
        for one in preset.least:
            other = one.other if channels > 1 else 0
            slots = 1 << (max(one.own, other) - 1).bit_length()
            least.append((one.own, other, one.own + other, one.every, slots, weights, rows))
            weights, rows = weights + one.own + other, rows + slots * 2 * (one.own + other)
        stages, taps = list[tuple[int, int, int, int]](), 0
        for cascade in preset.gradient:
            for k, (own, helped) in enumerate(cascade.filters):
                other = helped if channels > 1 else 0
                stages.append((len(least) + len(stages) - 1 if k else cascade.source, own, other, taps))
                taps += own + other
        ring = LANES + max([x[0] for x in least] + [x[1] for x in least] + [x[1] for x in stages])
        guesses = len(least) + len(stages)
        blended = -(-max(guesses - 1, 1) // LANES) * LANES
        blend = np.zeros((channels, blended + 3, blended))
        blend[:, blended + 1, : guesses - 1] = 1 / guesses
        blend[:, blended + 2, 0] = 1
        first = np.zeros((channels, weights))
        first[:, [x[5] for x in least]] = 1  # until there is a solution, as the sample before
        largest = max(blended, *(x[2] for x in least))
        return cls(
            least=np.array(least),
            keeps=np.array([1 - 1 / one.memory for one in preset.least]),
            stages=np.array(stages, np.int64).reshape(-1, 4),
            sizes=np.array([ring, weights, rows, taps, blended]),
            past=np.zeros(channels * 2 * ring),
            weights=first.ravel(),
            moments=np.zeros(channels * weights),
            rows=np.zeros(channels * rows),
            matrix=np.zeros(largest * largest),
            vector=np.zeros(largest),
            inverse=np.zeros(largest + LANES),
            errors=np.zeros(channels * len(stages) * 2 * ring, np.float32),
            taps=np.zeros(channels * taps, np.float32),
            power=np.ones(channels * len(stages)),
            guesses=np.zeros(guesses),
            blend=blend.ravel(),
        )


class Models(NamedTuple):
    """Arrays of the residual's models, those of the channels one after the other."""

    scales: Any  # float64 [C * EXPERTS]
    scratch: Any  # float64 [5 * EXPERTS]
    recent: Any  # int64 [C * 2]
    context: Any  # int64 [4]: ratio of scales, cells of the two sets of counters, octave of the first interval
    inputs: Any  # int32 [EXPERTS + SETS]
    counters: Any  # uint32
    mixers: Any  # int32
    maps: Any  # uint16
    outer: Any  # float64 [2 * Z_RANGE * Z_STEPS + 1]

    @classmethod
    def of(cls, channels: int) -> Models:
        mixers = np.zeros((channels * (NODES + PLACES), EXPERTS + SETS), np.int32)
        mixers[:, :EXPERTS] = ONE // EXPERTS
        return cls(
            scales=np.full(channels * EXPERTS, 100.0),
            scratch=np.zeros(5 * EXPERTS),
            recent=np.zeros(channels * 2, np.int64),
            context=np.zeros(4, np.int64),
            inputs=np.zeros(EXPERTS + SETS, np.int32),
            counters=np.full(channels * SETS * NODES * CELLS, COUNTER_START, np.uint32),
            mixers=mixers.ravel(),
            maps=new_maps(NODES * channels),
            outer=OUTER,
        )


def outer_table() -> NDArray[np.float64]:
    """2**31 times the mass of the logistic distribution beyond z = i / 32 - 24."""
    one = 1 << GUARD
    upper = [(1 << 31) * one / (one + x) for x in powers(Z_STEPS, Z_RANGE * Z_STEPS + 1)]
    return np.array([(1 << 31) - v for v in upper[:0:-1]] + upper)


OUTER = outer_table()


@numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
def run(samples, begin, end, layout, s, m, coder, tape):  # type: ignore[no-untyped-def]
    """Code samples begin .. end - 1 of all channels, int64 [T, C], or fill them in; both learn alike.

    Without reference counts (_nrt), which the many arrays would spend half the time on: nothing is allocated in here.
    """
    channels, ring = U64(samples.shape[1]), U64(s.sizes[0])
    for t in range(U64(begin), U64(end)):
        now = ring - U64(1) - t % ring
        for c in range(channels):
            partner, limit = U64(layout[0, c]), I64(1) << I64(layout[1, c] - 1)
            own_at = c * U64(2) * ring + now
            other_at = partner * U64(2) * ring + now + U64(partner >= c)
            predict(s, c, partner, own_at, other_at, now, F64(limit))
            p = blended(s, c, F64(limit))
            prepare(m, s.guesses, c, partner, p)
            x = code_sample(m, c, p, samples[t, c], limit, coder, tape)
            samples[t, c] = x
            note(m, c, F64(x))
            descend(s, c, partner, now, F64(x))
            accumulate(s, c, own_at, other_at, t, F64(x))
            for k in range(s.least.shape[0]):
                if (t + U64(1)) % U64(s.least[k, 3]) == U64(0) or t == U64(EARLY[0]) or t == U64(EARLY[1]):
                    renew(s, k, c, t)
            learn_blend(s, c, p, F64(x), t)
            s.past[own_at], s.past[own_at + ring] = F64(x), F64(x)
        if t & U64(255) == U64(255):
            flush(s.moments, U64(0), U64(s.moments.size))
            flush(s.blend, U64(0), U64(s.blend.size))


@numba.njit(cache=True, nogil=True, inline="always")
def clamp(p, limit):  # type: ignore[no-untyped-def]
    """To the grid of 1/256 within -limit .. limit - 1; NaN is the lower bound."""
    p = np.floor(p * 256.0 + 0.5) * (1.0 / 256.0)
    p = max(-limit, p)
    return min(limit - 1.0, p)


@numba.njit(cache=True, nogil=True, inline="always")
def predict(s, c, partner, own_at, other_at, now, limit):  # type: ignore[no-untyped-def]
    """The guesses of all predictors: of least squares, then of the cascades, each with what its filter adds to the one before."""
    n_least, n_stages, ring = U64(s.least.shape[0]), U64(s.stages.shape[0]), U64(s.sizes[0])
    for k in range(n_least):
        own, other, at = U64(s.least[k, 0]), U64(s.least[k, 1]), c * U64(s.sizes[1]) + U64(s.least[k, 5])
        p = dot(s.weights, at, s.past, own_at + U64(1), own) + dot(s.weights, at + own, s.past, other_at, other)
        s.guesses[k] = clamp(p, limit)
    for i in range(n_stages):
        base, own, other = U64(s.stages[i, 0]), U64(s.stages[i, 1]), U64(s.stages[i, 2])
        at = c * U64(s.sizes[3]) + U64(s.stages[i, 3])
        errors_at = (c * n_stages + i) * U64(2) * ring + now + U64(1)
        partner_at = (partner * n_stages + i) * U64(2) * ring + now + U64(partner >= c)
        p = s.guesses[base] + F64(dot(s.taps, at, s.errors, errors_at, own))
        p += F64(dot(s.taps, at + own, s.errors, partner_at, other))
        s.guesses[n_least + i] = clamp(p, limit)


@numba.njit(cache=True, nogil=True, inline="always")
def descend(s, c, partner, now, x):  # type: ignore[no-untyped-def]
    """A step of each NLMS filter down the gradient of its squared error."""
    n_least, n_stages, ring = U64(s.least.shape[0]), U64(s.stages.shape[0]), U64(s.sizes[0])
    for i in range(n_stages):
        base, own, other = U64(s.stages[i, 0]), U64(s.stages[i, 1]), U64(s.stages[i, 2])
        at = c * U64(s.sizes[3]) + U64(s.stages[i, 3])
        place, partner_place = c * n_stages + i, partner * n_stages + i
        errors_at, partner_at = place * U64(2) * ring + now, partner_place * U64(2) * ring + now + U64(partner >= c)
        e, error = x - s.guesses[base], x - s.guesses[n_least + i]
        energy = (s.power[place] + 1.0) * F64(own) + (s.power[partner_place] + 1.0) * F64(other)
        g = F32(STEP * error / energy)
        add_scaled(s.taps, at, g, s.errors, errors_at + U64(1), own)
        add_scaled(s.taps, at + own, g, s.errors, partner_at, other)
        s.errors[errors_at], s.errors[errors_at + ring] = F32(e), F32(e)
        power = s.power[place] + (e * e - s.power[place]) * 4.0 / F64(own)
        s.power[place] = max(0.001, power)


@numba.njit(cache=True, nogil=True, inline="always")
def accumulate(s, c, own_at, other_at, t, x):  # type: ignore[no-untyped-def]
    """Products of the newest samples into the covariances' newest row and into the moments."""
    for k in range(U64(s.least.shape[0])):
        own, other, n, slots = U64(s.least[k, 0]), U64(s.least[k, 1]), U64(s.least[k, 2]), U64(s.least[k, 4])
        at, rows_at = c * U64(s.sizes[1]) + U64(s.least[k, 5]), c * U64(s.sizes[2]) + U64(s.least[k, 6])
        new = rows_at + (t & (slots - U64(1))) * U64(2) * n
        old = rows_at + ((t - U64(1)) & (slots - U64(1))) * U64(2) * n
        first, second, keep = s.past[own_at + U64(1)], s.past[other_at], s.keeps[k]
        fade(s.moments, at, s.moments, at, keep, x, s.past, own_at + U64(1), own)
        fade(s.rows, new, s.rows, old, keep, first, s.past, own_at + U64(1), own)
        if other > U64(0):
            fade(s.moments, at + own, s.moments, at + own, keep, x, s.past, other_at, other)
            fade(s.rows, new + own, s.rows, old + own, keep, first, s.past, other_at, other)
            fade(s.rows, new + n, s.rows, old + n, keep, second, s.past, own_at + U64(1), own)
            fade(s.rows, new + n + own, s.rows, old + n + own, keep, second, s.past, other_at, other)
        if t & U64(255) == U64(255):
            flush(s.rows, new, U64(2) * n)


@numba.njit(cache=True, nogil=True, inline="always")
def renew(s, k, c, t):  # type: ignore[no-untyped-def]
    """The weights that are best for the covariances and moments; as they were where the matrix is not positive definite."""
    own, other, n, slots = U64(s.least[k, 0]), U64(s.least[k, 1]), U64(s.least[k, 2]), U64(s.least[k, 4])
    at, rows_at = c * U64(s.sizes[1]) + U64(s.least[k, 5]), c * U64(s.sizes[2]) + U64(s.least[k, 6])
    gather(s.matrix, s.rows, rows_at, own, other, t, slots)
    for i in range(n):
        s.vector[i] = s.moments[at + i]
    if solve(s.matrix, s.vector, s.inverse, n):
        for i in range(n):
            s.weights[at + i] = s.vector[i]


@numba.njit(cache=True, nogil=True)
def gather(matrix, rows, rows_at, own, other, t, slots):  # type: ignore[no-untyped-def]
    """The upper triangle of the covariances, from the rows of the last times: a lag later they are the same but for time."""
    n, mask = own + other, slots - U64(1)
    for i in range(own):
        row, to = rows_at + ((t - i) & mask) * U64(2) * n - i, i * n
        for j in range(i, own):
            matrix[to + j] = rows[row + j]
        for j in range(i, other):
            matrix[to + own + j] = rows[row + own + j]
        for j in range(min(i, other)):
            matrix[to + own + j] = rows[rows_at + ((t - j) & mask) * U64(2) * n + n + i - j]
    for i in range(other):
        row, to = rows_at + ((t - i) & mask) * U64(2) * n + n + own - i, (own + i) * n + own
        for j in range(i, other):
            matrix[to + j] = rows[row + j]
    for i in range(n):
        matrix[i * n + i] += RIDGE


@numba.njit(cache=True, nogil=True)
def flush(a, at, n):  # type: ignore[no-untyped-def]
    """Zero what is nearly so, before it is subnormal: slow, and zero in some threads only."""
    for i in range(at, at + n):
        a[i] = a[i] if abs(a[i]) > 1e-40 else 0.0


@numba.njit(cache=True, nogil=True)
def solve(matrix, vector, inverse, n):  # type: ignore[no-untyped-def]
    """The vector v becomes w, matrix w = v, or False is returned: the matrix is not positive definite. n: of eight.

    Symmetric elimination, eight rows at a time, of the upper triangle; below it only blocks of eight by eight on the
    diagonal are used, and do not matter.
    """
    for first in range(U64(0), n, U64(8)):
        for i in range(first, first + U64(8)):
            for j in range(first, i):
                matrix[i * n + j] = 0.0
        for k in range(first, first + U64(8)):
            for i in range(first, k):
                g = -(matrix[i * n + k] * inverse[i])
                add_scaled(matrix, k * n + first, g, matrix, i * n + first, n - first)
            if not matrix[k * n + k] > 1e-9:
                return False
            inverse[k] = 1.0 / matrix[k * n + k]
        for i in range(first + U64(8), n):
            for k in range(U64(8)):
                inverse[n + k] = matrix[(first + k) * n + i] * inverse[first + k]
            block = i & ~U64(7)
            eliminate(matrix, i * n + block, inverse, n, first * n + block, n, n - block)
    for k in range(n):
        g, block = -(vector[k] * inverse[k]), (k + U64(8)) & ~U64(7)
        for i in range(k + U64(1), block):
            vector[i] += g * matrix[k * n + i]
        add_scaled(vector, block, g, matrix, k * n + block, n - block)
    for later in range(n):
        k = n - U64(1) - later
        block = (k + U64(8)) & ~U64(7)
        g = vector[k] - dot(matrix, k * n + block, vector, block, n - block)
        for i in range(k + U64(1), block):
            g -= matrix[k * n + i] * vector[i]
        vector[k] = g * inverse[k]
    return True


@numba.njit(cache=True, nogil=True, inline="always")
def blended(s, c, limit):  # type: ignore[no-untyped-def]
    """The prediction: the first guess and weighted differences of the others from it."""
    m = U64(s.sizes[4])
    p, at = s.guesses[0], (c * (m + U64(3)) + m + U64(1)) * m
    for i in range(U64(s.guesses.size - 1)):
        p += s.blend[at + i] * (s.guesses[i + U64(1)] - s.guesses[0])
    return clamp(p, limit)


@numba.njit(cache=True, nogil=True, inline="always")
def learn_blend(s, c, p, x, t):  # type: ignore[no-untyped-def]
    """Weights by least squares, where an error counts by its ratio to the level of errors; the ridge pulls to the mean."""
    n, m = U64(s.guesses.size - 1), U64(s.sizes[4])
    at = c * m * (m + U64(3))
    moments, weights, level = at + m * m, at + (m + U64(1)) * m, at + (m + U64(2)) * m
    if n > U64(0):
        s.blend[level] += 0.02 * (abs(x - p) - s.blend[level])
        w = 1.0 / ((s.blend[level] + 0.1) * (s.blend[level] + 0.1))
        keep = 1.0 - 1.0 / BLEND_MEMORY
        for i in range(m):
            s.vector[i] = s.guesses[i + U64(1)] - s.guesses[0] if i < n else 0.0
        for i in range(n):
            fade(s.blend, at + i * m, s.blend, at + i * m, keep, w * s.vector[i], s.vector, U64(0), m)
        fade(s.blend, moments, s.blend, moments, keep, w * (x - s.guesses[0]), s.vector, U64(0), m)
        if t % U64(BLEND_EVERY) == U64(0):
            for i in range(m * m):
                s.matrix[i] = s.blend[at + i]
            for i in range(m):
                s.matrix[i * m + i] += BLEND_RIDGE
                s.vector[i] = s.blend[moments + i] + BLEND_RIDGE / F64(n + U64(1))
            if solve(s.matrix, s.vector, s.inverse, m):
                for i in range(m):
                    s.blend[weights + i] = s.vector[i]


@numba.njit(cache=True, nogil=True, inline="always")
def prepare(m, guesses, c, partner, p):  # type: ignore[no-untyped-def]
    """Scales, centres and contexts of the sample's decisions."""
    last, at = U64(guesses.size - 1), c * U64(EXPERTS)
    for e in range(U64(EXPERTS)):
        m.scratch[U64(CENTRES) + e] = p
        m.scratch[U64(INVERSE) + e] = SPREAD / (m.scales[at + e] + 0.02)
    m.scratch[CENTRES + 3] = guesses[min(U64(1), last)]
    m.scratch[CENTRES + 4] = guesses[last]
    mean = m.scales[at + U64(1)]
    ratio = m.scales[at] / (m.scales[at + U64(2)] + 0.02)
    r = (
        U64(ratio > 0.35)
        + U64(ratio > 0.55)
        + U64(ratio > 0.75)
        + U64(ratio > 1.0)
        + U64(ratio > 1.3)
        + U64(ratio > 1.8)
    )
    r += U64(ratio > 2.6)
    base, size = U64(0), 1.0
    while size * 1.4 < mean and base < U64(31):
        size *= 2.0
        base += U64(1)
    m.context[0] = r
    m.context[1] = U64(m.recent[partner * U64(2)]) * U64(8) + r
    m.context[2] = U64(m.recent[c * U64(2)]) * U64(8) + U64(m.recent[c * U64(2) + U64(1)])
    m.context[3] = base


@numba.njit(cache=True, nogil=True, inline="always")
def note(m, c, x):  # type: ignore[no-untyped-def]
    """Scales and contexts after sample x."""
    at = c * U64(EXPERTS)
    mean, d = m.scales[at + U64(1)], x - m.scratch[CENTRES]
    k = U64(abs(d) > 0.25 * mean) + U64(abs(d) > 0.8 * mean) + U64(abs(d) > 2.0 * mean)
    for e in range(U64(EXPERTS)):
        v = m.scales[at + e] + PACES[e] * (abs(x - m.scratch[U64(CENTRES) + e]) - m.scales[at + e])
        m.scales[at + e] = max(0.001, v)
    m.recent[c * U64(2) + U64(1)] = m.recent[c * U64(2)]
    m.recent[c * U64(2)] = (U64(4) if d < 0.0 else U64(0)) + k


@numba.njit(cache=True, nogil=True, inline="always")
def code_sample(m, c, p, x, limit, coder, tape):  # type: ignore[no-untyped-def]
    """Code sample x around its prediction p and return it; a decoder is given any x.

    On which side of p it lies; then the distance: in which octave, which half of the octave, and so on, until an interval is
    so narrow that all values in it are alike.
    """
    centre = I64(np.ceil(p))
    first, side = F64(centre) - 0.5, 1.0
    below, above = centre + limit, limit - centre  # how many values there are on either side
    room, distance = above, x - centre
    start, width, octave, path = I64(0), I64(1) << I64(m.context[3]), I64(0), I64(1)
    least = max(width >> I64(3), I64(1))
    for e in range(U64(EXPERTS)):
        m.scratch[U64(INSIDE) + e], m.scratch[U64(OUTSIDE) + e] = MASS, 0.0
    phase = 0
    while phase < 2 or width > least:
        if phase == 2:
            width >>= I64(1)
        edge, node = first + side * F64(start + width), I64(1) + octave
        bit, possible = I64(distance >= start + width), start + width < room
        if phase == 0:
            edge, node = first, I64(0)
            bit, possible = I64(x >= centre), below > 0 and above > 0
        elif phase == 2:
            node = I64(32) + octave * I64(8) + path if path < I64(8) else I64(24)
        if possible:
            bit = split(m, c, U64(node), edge, side, bit, coder, tape)
        else:
            bit = I64(below <= 0) if phase == 0 else I64(0)
        if phase == 0:
            phase = 1
            if not bit:
                side, room, distance = -1.0, below, centre - I64(1) - x
                for e in range(U64(EXPERTS)):
                    m.scratch[U64(INSIDE) + e] = MASS - m.scratch[U64(MIDDLE) + e]
                    m.scratch[U64(OUTSIDE) + e] = 0.0
        elif phase == 1 and not bit:
            phase = 2
        elif phase == 1:
            start += width
            width += width if octave > I64(0) else I64(0)
            octave = min(octave + I64(1), I64(MOST_OCTAVE))
        else:
            start += width * bit
            path = path * I64(2) + bit
    distance = start + code_raw(coder, tape, distance - start, width)
    x = centre + distance if side > 0.0 else centre - I64(1) - distance
    return min(max(x, -limit), limit - I64(1))


@numba.njit(cache=True, nogil=True, inline="always")
def split(m, c, node, edge, side, bit, coder, tape):  # type: ignore[no-untyped-def]
    """Code whether the sample lies beyond the edge; the part where it is, is the next interval. Returns the bit."""
    for e in range(U64(EXPERTS)):
        z = (edge - m.scratch[U64(CENTRES) + e]) * side * m.scratch[U64(INVERSE) + e]
        mass = beyond(m.outer, z)
        m.scratch[U64(MIDDLE) + e] = mass
        a, b = mass - m.scratch[U64(OUTSIDE) + e], m.scratch[U64(INSIDE) + e] - mass
        m.inputs[e] = log_ratio(U64(I64(max(0.0, a))) + U64(1), U64(I64(max(0.0, b))) + U64(1))
    bit = decide(m, c, node, bit, coder, tape)
    now = U64(INSIDE) if bit else U64(OUTSIDE)
    for e in range(U64(EXPERTS)):
        m.scratch[now + e] = m.scratch[U64(MIDDLE) + e]
    return bit


@numba.njit(cache=True, nogil=True, inline="always")
def beyond(table, z):  # type: ignore[no-untyped-def]
    """The mass beyond z, of 2**31."""
    at = (z + F64(Z_RANGE)) * F64(Z_STEPS)
    at = max(0.0, at)
    at = min(Z_LAST, at)
    i = U64(I64(at))
    return table[i] + (table[i + U64(1)] - table[i]) * (at - F64(I64(at)))


@numba.njit(cache=True, nogil=True, inline="always")
def decide(m, c, node, bit, coder, tape):  # type: ignore[no-untyped-def]
    """Mix, correct, code and learn one bit."""
    cells = (c * U64(SETS * NODES) + node) * U64(CELLS)
    for k in range(U64(SETS)):
        place = cells + k * U64(NODES * CELLS) + U64(m.context[k + U64(1)])
        m.inputs[U64(EXPERTS) + k] = stretch(counter(m.counters, place))
    n, first = U64(EXPERTS + SETS), c * U64(NODES + PLACES)
    at = (first + node) * n
    other = (first + U64(NODES) + min(node, U64(31)) * U64(8) + U64(m.context[0])) * n
    x, y = I64(0), I64(0)
    for k in range(n):
        x += I64(m.mixers[at + k]) * I64(m.inputs[k])
        y += I64(m.mixers[other + k]) * I64(m.inputs[k])
    x, y = min(max(x >> I64(16), -I64(LIMIT)), I64(LIMIT)), min(max(y >> I64(16), -I64(LIMIT)), I64(LIMIT))
    mean = (x + y) >> I64(1)
    refined, cell = refine(m.maps, c * U64(NODES) + node, mean)
    bit = code(coder, tape, bit, (squash(mean) + refined + I64(1)) >> I64(1))
    learn(m.mixers, at, m.inputs, (bit << I64(16)) - squash(x), RATE)
    learn(m.mixers, other, m.inputs, (bit << I64(16)) - squash(y), RATE)
    follow(m.maps, cell, bit, MAP_SHIFT)
    for k in range(U64(SETS)):
        count(m.counters, cells + k * U64(NODES * CELLS) + U64(m.context[k + U64(1)]), bit, COUNT_LIMIT)
    return bit


@numba.njit(cache=True, nogil=True, inline="always")
def code_raw(coder, tape, value, width):  # type: ignore[no-untyped-def]
    """A value below width, a power of two, each as likely as the other; 15 bits at a time."""
    out, cursor = I64(0), coder[1]
    while width > I64(1):
        n = min(width, I64(1 << PRECISION))
        width //= n
        freq = U32((1 << PRECISION) // n)
        if coder[0] != U64(0):
            digit = I64(U32(coder[2]) & U32((1 << PRECISION) - 1)) // I64(freq)
            state, cursor = pop(U32(coder[2]), U32(digit) * freq, freq, tape, cursor)
            coder[2] = U64(state)
        else:
            digit = (value // width) % n
            tape[cursor] = U32(digit) * freq | (freq - U32(1)) << U32(PRECISION)
            cursor += U64(1)
        out = out * n + digit
    coder[1] = cursor
    return out


class Lanes:
    """Builds a loop over vectors of LANES values, for intrinsics whose sums keep their order on every machine."""

    def __init__(self, context: Any, builder: Any, signature: Any, n: Any) -> None:
        self.context, self.builder, self.signature, self.n = context, builder, signature, n
        self.index: Any = None

    def each(self, body: Callable[[], None]) -> None:
        with cgutils.for_range(self.builder, self.builder.udiv(self.n, self.n.type(LANES))) as loop:
            self.index = self.builder.mul(loop.index, self.n.type(LANES))
            body()

    def place(self, argument: int, array: Any, at: Any) -> Any:
        data = self.context.make_array(self.signature.args[argument])(self.context, self.builder, value=array).data
        return self.builder.gep(data, [at])

    def vector(self, place: Any) -> Any:
        """The vector at the loop's index beyond a place."""
        at = self.builder.gep(place, [self.index])
        return self.builder.bitcast(at, ir.VectorType(place.type.pointee, LANES).as_pointer())

    def load(self, place: Any) -> Any:
        return self.builder.load(self.vector(place), align=4)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.vector(place), align=4)

    def spread(self, value: Any) -> Any:
        one = self.builder.insert_element(ir.VectorType(value.type, LANES)(ir.Undefined), value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, one, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)


@operation
def dot(typing, a, at, b, bt, n):  # type: ignore[no-untyped-def]
    """Sum of n products: LANES sums, then their halves added, and again."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = Lanes(context, builder, signature, arguments[4])
        x, y = lanes.place(0, *arguments[:2]), lanes.place(2, *arguments[2:4])
        sums = cgutils.alloca_once_value(builder, ir.VectorType(x.type.pointee, LANES)([0.0] * LANES))  # type: ignore[no-untyped-call]
        lanes.each(
            lambda: builder.store(lanes.plus(builder.load(sums), lanes.times(lanes.load(x), lanes.load(y))), sums)
        )
        total, width = builder.load(sums), LANES
        while width > 1:
            width //= 2
            kind = ir.VectorType(ir.IntType(32), width)
            low, high = (builder.shuffle_vector(total, total, kind(list(range(i, i + width)))) for i in (0, width))
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.IntType(32)(0))

    return a.dtype(a, U64, b, U64, U64), build


@operation
def add_scaled(typing, out, to, g, x, xt, n):  # type: ignore[no-untyped-def]
    """out[to + j] += g * x[xt + j] for n values."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = Lanes(context, builder, signature, arguments[5])
        y, x, g = lanes.place(0, *arguments[:2]), lanes.place(3, *arguments[3:5]), lanes.spread(arguments[2])
        lanes.each(lambda: lanes.store(lanes.plus(lanes.load(y), lanes.times(g, lanes.load(x))), y))
        return context.get_dummy_value()

    return numba.void(out, U64, out.dtype, x, U64, U64), build


@operation
def fade(typing, out, to, old, ot, keep, g, x, xt, n):  # type: ignore[no-untyped-def]
    """out[to + j] = keep * old[ot + j] + g * x[xt + j] for n values."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = Lanes(context, builder, signature, arguments[8])
        y, z, x = lanes.place(0, *arguments[:2]), lanes.place(2, *arguments[2:4]), lanes.place(6, *arguments[6:8])
        keep, g = lanes.spread(arguments[4]), lanes.spread(arguments[5])
        lanes.each(lambda: lanes.store(lanes.plus(lanes.times(keep, lanes.load(z)), lanes.times(g, lanes.load(x))), y))
        return context.get_dummy_value()

    return numba.void(out, U64, old, U64, F64, F64, x, U64, U64), build


@operation
def eliminate(typing, m, to, g, gt, rows, stride, n):  # type: ignore[no-untyped-def]
    """m[to + j] -= g[gt] * m[rows + j], then the same with g[gt + 1] and the next of eight rows a stride apart, for n values."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        m, to, g, gt, rows, stride, n = arguments
        lanes = Lanes(context, builder, signature, n)
        out, factors = lanes.place(0, m, to), lanes.place(2, g, gt)
        sources = [lanes.place(0, m, builder.add(rows, builder.mul(stride, n.type(k)))) for k in range(8)]
        scales = [lanes.spread(builder.load(builder.gep(factors, [n.type(k)]))) for k in range(8)]

        def body() -> None:
            value = lanes.load(out)
            for source, scale in zip(sources, scales, strict=True):
                value = builder.fsub(value, lanes.times(scale, lanes.load(source)))
            lanes.store(value, out)

        lanes.each(body)
        return context.get_dummy_value()

    return numba.void(m, U64, g, U64, U64, U64, U64), build
