"""Lossless and near-lossless pictures, tile by tile: local least squares predict, logistic mixing says how surely.

    plane by plane, sample by sample in raster order, encoder and decoder alike
      predictors   weighted least squares over a local window (0 to 2 windows, 16 to 48 taps in this plane and the planes
                   before), normalised LMS, six fixed ones; their blend by recent errors is the expert 0
      experts      a logistic distribution around each prediction, as wide as recent errors near here turned out before;
                   around the blend two more, half and twice as wide
      circuit      a sum node over the experts' leaves: a hidden choice z of an expert, the same in all planes of a pixel.
                   The weights are what the neighbours' posteriors and this pixel's planes before say of z
      decisions    in the middle bucket? above? one bucket further? which half? each a bit, whose probability is the
                   logistic mix of what every expert and the circuit say and of counters in six contexts (`mixing.py`)

A plane is predicted from the whole planes before it, also below and to the right; that is as small as with a reversible
colour transform, or smaller, but for gray in a few tints: slow efforts try one on patches (`differences`). A
plane of few different values is coded as ranks. Near-lossless codes the error in steps of 2 * max_error + 1 and goes on from
what the decoder has. Where colours recur, guesses come before all this (`repeats.py`). What would be larger than its samples
is stored.

Arithmetic is integer, or float64 and (windows, LMS) float32 + - * / in the order of this file, never fused. Least squares
after Wu, Barthel, Zhang, "Piecewise 2D autoregression for predictive image coding", 1998, here with weights that decay in
both directions, and solved by a few steps of preconditioned conjugate gradients from the solution of the row above: see
`solve`. Experts after TMW (Meyer, Tischer 1997).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.blocks import read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import open_stream
from laconic.entropy.rans_numba import I64, U64
from laconic.entropy.vectors import add_rows, sum_rows
from laconic.models.mixing import (
    COUNTER_START,
    MASS_BITS,
    ONE,
    UNIT,
    bit_length,
    code,
    count,
    counter,
    decoder,
    encoder,
    finish_decoder,
    follow,
    kernel,
    learn,
    log_ratio,
    logarithm,
    logistic,
    mix,
    new_maps,
    push_tapes,
    refine,
    squash,
    stretch,
)
from laconic.models.repeats import TRIES, look, new_repeats, recall, remember, repetitive

F32, F64 = numba.float32, numba.float64
Samples = NDArray[np.uint16]

SIDE, LARGE_SIDE = 1024, 2048  # of a tile at most
TILE = LARGE_SIDE**2  # samples of a plane at most
SPLIT = 1 << 17  # from here on a picture is two tiles at least, for two threads
PAD = 6  # samples around a plane
BAND = 16  # rows whose decisions are written at once
MAX_DECISIONS = 44  # a sample: 4 guesses, 1 and 1, then 18 buckets that double, then 16 halvings
LANES = 16  # experts at most, so that the loops over them are vectors
SIMPLE = 7  # predictors besides windows and blend: LMS, and six fixed ones
SCALED = 2  # experts more: the blend, half and twice as wide
CELLS = 64  # of a calibration, by error energy, 1/4 nat each
CONTEXTS, KINDS = 512, 12  # of a counter table; of decisions: middle, above, ten buckets
TABLES = 6  # of counters
INPUTS = 24  # of a mixer: experts, counters, the circuit, a constant
MIXERS = 8  # by spread
NEW, LEAST = ONE // LANES, 2600  # of 2**16: a posterior where nothing is known; of eight neighbours' together, at least
FLOOR = 1 << 18  # of 2**31: of a leaf's mass
RIDGE, RELATIVE_RIDGE, MEAN_RIDGE = 4.0, 1e-4, 1e-3  # of the diagonal; the last of the preconditioner's
LEAST_CURVATURE = 1e-9  # relative to the preconditioner's, of a direction that is worth a step
TINY = 1e-20  # sums below are 0: none is subnormal, which were slow, and not the same where those are flushed
REFRESH = 4  # rows between two preconditioners
LMS_TAPS = 24
RATE, EXTRA_RATE = 60, 300  # of the mixer: at last, and more in the first rows
COUNTER_LIMIT, MAP_RATE, LMS_RATE = 250, 6, 1 / 256

OWN = (
    "0,-1 -1,0 -1,-1 -1,1 0,-2 -2,0 -2,1 -2,-1 -1,-2 -1,2 0,-3 -3,0 -2,2 -2,-2 -1,3 -1,-3 -3,1 -3,-1 0,-4 -3,2 -3,-2 -2,3 "
    "-2,-3 -4,0 -3,3 -3,-3 -4,1 -4,-1 -1,4 -1,-4 -2,4 -2,-4 0,-5 -4,2 -4,-2 -5,0 -3,4 -3,-4 -1,5 -1,-5 -4,3 -4,-3 0,-6 "
    "-5,1 -5,-1 -6,0 -2,5 -2,-5"
)
ONE_BEFORE = (
    "b0,0 0,-1 -1,0 b0,-1 b-1,0 -1,-1 -1,1 b0,1 b1,0 0,-2 -2,0 b-1,-1 b-1,1 b1,1 b1,-1 -2,1 -2,-1 -1,-2 -1,2 0,-3 -3,0 "
    "-2,2 -2,-2 -1,3 b0,2 b2,0 b0,-2 b-2,0 -1,-3 -3,1 -3,-1 -2,3 -2,-3 b-1,2 b-2,1 b1,2 b2,1 b-2,-1 b-1,-2 b1,-2 b2,-1 "
    "0,-4 -4,0 -3,2 -3,-2 b0,3 b2,2 b-3,0"
)
TWO_BEFORE = (
    "b0,0 0,-1 -1,0 b0,-1 b-1,0 c0,0 -1,-1 -1,1 b0,1 b1,0 c0,-1 c-1,0 0,-2 -2,0 b-1,-1 b-1,1 c0,1 c1,0 -2,1 -2,-1 -1,-2 "
    "-1,2 0,-3 c-1,1 c-1,-1 c1,1 c1,-1 -3,0 b0,2 b2,0 b0,-2 b-2,0 -2,2 -2,-2 -1,3 -1,-3 c0,2 c2,0 c0,-2 c-2,0 b-1,2 "
    "b-2,1 b1,2 b2,1 b-2,-1 b-1,-2 b1,-2 b2,-1"
)
TAPS = (
    OWN,
    ONE_BEFORE,
    TWO_BEFORE,
)  # dy,dx; b: of the plane before, c: of the one before that; the first ones weigh most


@dataclass(frozen=True)
class Level:
    """What an effort buys. windows: (taps, decay of a block, decay of a row), solved in `steps` once every `block` samples."""

    block: int
    steps: int
    windows: tuple[tuple[int, float, float], ...]


LEVELS = (
    Level(8, 0, ()),
    Level(8, 2, ((32, 0.5, 0.8),)),
    Level(8, 2, ((16, 0.16, 0.55), (32, 0.62, 0.85))),
    Level(3, 4, ((16, 0.5, 0.6), (48, 0.84, 0.9))),
)
LEVEL_OF_EFFORT = (0, 0, 0, 1, 1, 2, 2, 3, 3)
STORED = 16  # a tile's first byte: the samples as they are; or the sum of a level,
MODEL = 64  # the version of all this,
GUESSED = 4  # guesses come first (`repeats.py`),
EXACT = 8  # with guesses: no sample is off, though it might be,
DIFFERENCES = 32  # the reversible colour transform, where there are no guesses and no sample may be off
TRIED, TRIALS = 48, 3  # for the choice of the transform: patches of 48 a side, 3 x 3 of them


def tile_grid(height: int, width: int, large: bool = False) -> list[tuple[int, int, int, int]]:
    """(y, x, h, w) of the tiles of a picture, row by row: at most 1024 a side, two at least from 131,072 pixels on.

    large: at most 2048 a side, one perhaps, for what recurs within a tile.
    """
    side = LARGE_SIDE if large else SIDE
    rows, cols = -(-height // side), -(-width // side)
    if rows * cols == 1 and height * width >= SPLIT and not large:
        rows, cols = (2, 1) if height >= width // 4 else (1, 2)
    ys, xs = ([size * i // n for i in range(n + 1)] for size, n in ((height, rows), (width, cols)))
    return [(ys[i], xs[j], ys[i + 1] - ys[i], xs[j + 1] - xs[j]) for i in range(rows) for j in range(cols)]


def encode_tile(samples: Samples, bits: int, effort: int, max_error: int) -> bytes:
    """Code a tile so that no sample comes back further than max_error away, in a byte more than its samples at most.

    samples: uint16 [h, w, C], C 1 to 4, below 2**bits. bits: 1 to 16. effort: 1 to 9. max_error: 0 is lossless.
    Raises BadInput.
    """
    expect(1 <= bits <= 16, BadInput, "bits", bits, "1 to 16")
    expect(1 <= effort <= 9, BadInput, "effort", effort, "1 to 9")
    expect(0 <= max_error < 1 << 16, BadInput, "max_error", max_error, "0 to 65535")
    expect(samples.ndim == 3 and 1 <= samples.shape[2] <= 4, BadInput, "shape", samples.shape, "[h, w, 1 to 4]")
    h, w, _ = samples.shape
    expect(0 < h * w <= TILE, BadInput, "tile size", (h, w), f"1 to {TILE} samples a plane")
    expect(int(samples.max()) >> bits == 0, BadInput, "largest sample", int(samples.max()), f"below 2**{bits}")
    kind, ways = MODEL + LEVEL_OF_EFFORT[effort - 1], [bytes([STORED]) + samples.astype(whole_bytes(bits)).tobytes()]
    if repetitive(samples):
        ways.append(code_planes(samples, kind + GUESSED, max_error))
        if max_error > 0:  # what is off does not recur
            ways.append(code_planes(samples, kind + GUESSED + EXACT, 0))
    elif effort >= 8 and max_error == 0 and prefer_differences(samples, bits):
        ways.append(code_planes(differences(samples, bits), kind + DIFFERENCES, 0))
    else:
        ways.append(code_planes(samples, kind, max_error))
    return min(ways[::-1], key=len)


def differences(samples: Samples, bits: int) -> Samples:
    """R - G + half, G, B - G + half, all modulo 2**bits, half 2**(bits - 1): Hewlett-Packard's HP1, as in CharLS."""
    out, half = samples.astype(np.int32), 1 << (bits - 1)
    out[..., [0, 2]] += half - out[..., [1]]
    return (out & ((1 << bits) - 1)).astype(np.uint16)


def undo_differences(samples: Samples, bits: int) -> Samples:
    out, half = samples.astype(np.int32), 1 << (bits - 1)
    out[..., [0, 2]] += out[..., [1]] - half
    return (out & ((1 << bits) - 1)).astype(np.uint16)


def prefer_differences(samples: Samples, bits: int) -> bool:
    """Are patches of a colour tile, spread over it, smaller by 0.5 % when coded as differences?"""
    h, w, channels = samples.shape
    if channels < 3:
        return False
    ys, xs = ([max(size - TRIED, 0) * i // (TRIALS - 1) for i in range(TRIALS)] for size in (h, w))
    rows = [np.concatenate([samples[y : y + TRIED, x : x + TRIED] for x in xs], 1) for y in ys]
    patches, kind = np.concatenate(rows), MODEL + 1
    as_differences = code_planes(differences(patches, bits), kind, 0)
    return 200 * len(as_differences) < 199 * len(code_planes(patches, kind, 0))


def code_planes(samples: Samples, kind: int, max_error: int) -> bytes:
    """A tile of the kind that its first byte says."""
    h, w, channels = samples.shape
    head, canvas, tapes, coder = bytes([kind]), Canvas.of(h, w, channels), list[NDArray[np.uint32]](), encoder()
    planes, weights = [samples[..., c] for c in order(channels)], new_weights(LEVELS[kind % len(LEVELS)])
    for c, plane in enumerate(planes):
        values = Values.of(plane, planes[:c], max_error)
        head += values.pack()
        if values.top() == 0 or values.same >= 0:
            canvas.fill(c, values.index(plane) if values.same < 0 else canvas.plane(values.same))
            continue
        canvas.put(c, values.index(plane))
        for tape in run(canvas, c, values.top(), max_error, kind, weights, coder, new_tape):
            tapes.append(tape[: int(coder[1])].copy())
            coder[1] = 0
    return head + push_tapes(tapes)


def whole_bytes(bits: int) -> str:
    """The type of a sample in a stored tile, [row, column, channel]."""
    return "<u2" if bits > 8 else "u1"


def decode_tile(data: bytes | memoryview, h: int, w: int, C: int, bits: int, max_error: int) -> Samples:
    """The samples uint16 [h, w, C] of a tile, given what `encode_tile` was given. Raises BadFile on damage."""
    raw = bytes(data)
    kind = raw[0] if raw else 255
    known = (
        kind == STORED
        or MODEL <= kind < MODEL + STORED
        or (MODEL <= kind - DIFFERENCES < MODEL + len(LEVELS) and C >= 3)
    )
    expect(
        known,
        BadFile,
        "kind of tile",
        raw[:1].hex(),
        "10, 40 to 4f or 60 to 63 (others below 40: of an earlier version)",
    )
    ok = 0 < h * w <= TILE and 1 <= C <= 4 and 1 <= bits <= 16 and 0 <= max_error < 1 << 16
    expect(ok, BadFile, "tile shape", (h, w, C, bits, max_error), f"1 to {TILE} samples, 1 to 4 planes, 1 to 16 bits")
    if kind == STORED:
        return stored_samples(raw[1:], (h, w, C), bits)
    position, values = 1, list[Values]()
    for _ in range(C):
        value, position = Values.unpack(raw, position, bits, values)
        values.append(value)
    stream, end = open_stream(raw, h * w * C * MAX_DECISIONS, position=position)
    expect(end == len(raw) and len(stream.states) == 1, BadFile, "tile", f"{len(raw) - end} bytes more", "one lane")
    coder, words = decoder(stream)
    max_error = 0 if kind & (EXACT | DIFFERENCES) else max_error
    canvas, out = Canvas.of(h, w, C), np.empty((h, w, C), np.uint16)
    weights = new_weights(LEVELS[kind % len(LEVELS)])
    for c, value in enumerate(values):
        if value.same >= 0:
            canvas.fill(c, canvas.plane(value.same))
        elif value.top() == 0:
            canvas.fill(c, np.zeros((h, w), np.int32))
        else:
            for _ in run(canvas, c, value.top(), max_error, kind, weights, coder, lambda n: words):
                pass
        out[..., order(C)[c]] = value.sample(canvas.plane(c))
    finish_decoder(stream, coder)
    return undo_differences(out, bits) if kind & DIFFERENCES else out


def stored_samples(raw: bytes, shape: tuple[int, int, int], bits: int) -> Samples:
    kind = np.dtype(whole_bytes(bits))
    size = int(np.prod(shape)) * kind.itemsize
    expect(len(raw) == size, BadFile, "stored samples", len(raw), f"{size} bytes")
    samples = np.frombuffer(raw, kind).reshape(shape).astype(np.uint16)
    expect(int(samples.max()) >> bits == 0, BadFile, "largest sample", int(samples.max()), f"below 2**{bits}")
    return samples


def order(channels: int) -> list[int]:
    """Planes as they are coded: green first, whose noise is least."""
    return [1, 0, 2, 3][:channels] if channels >= 3 else list(range(channels))


@dataclass(frozen=True)
class Values:
    """What a plane's numbers stand for: low + number, or levels[number] where few values occur, or all of plane `same`.

    On disk: 0, low and high (2 bytes each, low byte first); or 1, varints of the count and of the length, then, deflated,
    varints of the first level and of each step to the next; or 2 and the place of an earlier plane.
    """

    low: int
    high: int
    levels: NDArray[np.uint16] | None = None
    same: int = -1

    @classmethod
    def of(cls, plane: Samples, before: list[Samples], max_error: int) -> Values:
        low, high = int(plane.min()), int(plane.max())
        if high - low <= 2 * max_error:
            return cls((low + high) // 2, (low + high) // 2)
        for c, other in enumerate(before):
            if np.array_equal(other, plane):
                return cls(low, high, same=c)
        levels = np.unique(plane) if max_error == 0 else np.empty(0, np.uint16)
        few = max_error == 0 and sparse(len(levels), high - low + 1, plane.size)
        return cls(low, high, levels if few else None)

    def top(self) -> int:
        return self.high - self.low if self.levels is None else len(self.levels) - 1

    def index(self, plane: Samples) -> NDArray[Any]:
        if self.levels is not None:
            return np.searchsorted(self.levels, plane)
        return np.clip(plane, self.low, self.high).astype(np.int32) - self.low

    def sample(self, index: NDArray[np.int32]) -> Samples:
        return self.levels[index] if self.levels is not None else (index + self.low).astype(np.uint16)

    def pack(self) -> bytes:
        if self.same >= 0:
            return bytes([2, self.same])
        if self.levels is None:
            return b"\0" + self.low.to_bytes(2, "little") + self.high.to_bytes(2, "little")
        steps = zlib.compress(b"".join(write_varint(int(v)) for v in np.diff(self.levels, prepend=np.uint16(0))), 9)
        return b"\1" + write_varint(len(self.levels)) + write_varint(len(steps)) + steps

    @classmethod
    def unpack(cls, raw: bytes, position: int, bits: int, before: list[Values]) -> tuple[Values, int]:
        """One plane's, and the position after. Raises BadFile."""
        kind = raw[position] if position < len(raw) else 255
        expect(kind <= 2, BadFile, "kind of a plane", kind, "0 to 2")
        position += 1
        if kind == 1:
            return cls.unpack_levels(raw, position, bits)
        field = raw[position : position + (4 if kind == 0 else 1)]
        expect(len(field) == (4 if kind == 0 else 1), BadFile, "plane head", len(field), "4 bytes, or 1")
        if kind == 2:
            expect(field[0] < len(before), BadFile, "same plane", field[0], f"below {len(before)}")
            return cls(before[field[0]].low, before[field[0]].high, before[field[0]].levels, field[0]), position + 1
        low, high = int.from_bytes(field[:2], "little"), int.from_bytes(field[2:], "little")
        expect(low <= high < 1 << bits, BadFile, "range of a plane", (low, high), f"rising, below 2**{bits}")
        return cls(low, high), position + 4

    @classmethod
    def unpack_levels(cls, raw: bytes, position: int, bits: int) -> tuple[Values, int]:
        n, position = read_varint(raw, position, "levels")
        size, position = read_varint(raw, position, "levels")
        expect(
            2 <= n <= 1 << bits and position + size <= len(raw), BadFile, "levels", n, f"2 to 2**{bits}, in the tile"
        )
        try:
            steps = zlib.decompressobj().decompress(raw[position : position + size], 3 * n)
        except zlib.error as error:
            raise BadFile(f"levels: found {error}, expected deflated bytes") from error
        levels, at = list[int](), 0
        for _ in range(n):
            step, at = read_varint(steps, at, "level")
            levels.append(step + (levels[-1] if levels else 0))
        rising = levels == sorted(set(levels)) and levels[-1] < 1 << bits
        expect(rising and at == len(steps), BadFile, "levels", levels[-1], f"rising, below 2**{bits}")
        return cls(levels[0], levels[-1], np.array(levels, np.uint16)), position + size


def sparse(levels: int, span: int, n: int) -> bool:
    """Is it no chance that n samples take so few of a span of values?"""
    return (8 * levels <= 7 * span and 32 * levels <= n) or (4 * levels <= span and 4 * levels <= n)


@dataclass(frozen=True)
class Canvas:
    """Planes with room around them, beside them final errors of prediction and hits: [C, PAD + h + 2, PAD + w + PAD].

    Errors are in 1/256 of a sample. Rows above are zero; the room on the left holds the sample above, on the right the last
    one of the row, below the last row. evidence: what the planes so far say of each pixel's expert, of 2**16, LANES a
    sample; none where there is one plane.
    """

    planes: NDArray[np.int32]
    errors: NDArray[np.int32]
    hits: NDArray[np.uint8]
    evidence: NDArray[np.uint16]
    h: int
    w: int

    @classmethod
    def of(cls, h: int, w: int, channels: int) -> Canvas:
        shape = (channels, h + PAD + 2, w + 2 * PAD)
        evidence = np.ones(int(np.prod(shape[1:])) * LANES if channels > 1 else 0, np.uint16)
        return cls(np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.uint8), evidence, h, w)

    def plane(self, c: int) -> NDArray[np.int32]:
        return self.planes[c, PAD : PAD + self.h, PAD : PAD + self.w]

    def put(self, c: int, index: NDArray[Any]) -> None:
        self.plane(c)[:] = index

    def fill(self, c: int, index: NDArray[Any]) -> None:
        """A plane that is not coded, with its surroundings, for the planes after it."""
        self.planes[c, PAD:] = np.pad(index, ((0, 2), (PAD, PAD)), mode="edge")

    def end(self, c: int) -> None:
        self.planes[c, PAD + self.h :] = self.planes[c, PAD + self.h - 1]
        self.errors[c, PAD + self.h :] = self.errors[c, PAD + self.h - 1]


class Plane(NamedTuple):
    """One plane and what it is predicted from. origin: where its first sample is in the flat arrays."""

    samples: NDArray[np.int32]
    errors: NDArray[np.int32]
    start: int  # of the plane
    origin: int
    stride: int
    width: int
    top: int
    max_error: int
    unit: float  # a power of two that brings samples to the size of 8 bits
    taps: NDArray[np.int64]  # places, from the sample's
    bases: NDArray[np.int64]  # a tap's plane: 0 this one, 1 and 2 those before
    before: NDArray[np.int64]  # places of the planes before, from this one's


class Windows(NamedTuple):
    """Least squares. Sums of outer products in tiles of 8 columns (`place`), a target row in each; see `begin_row`."""

    state: NDArray[np.int64]  # the block; are its coefficients not there yet? They wait for a sample that needs them
    sizes: NDArray[np.int64]
    decays: NDArray[np.float32]
    block: int
    steps: int
    above: NDArray[np.float32]
    right: NDArray[np.float32]
    left: NDArray[np.float32]
    now: NDArray[np.float32]
    target: NDArray[np.float32]
    matrix: NDArray[np.float32]
    inverse: NDArray[np.float32]  # the preconditioners
    work: NDArray[np.float64]
    vectors: NDArray[np.float32]
    coefficients: NDArray[np.float32]  # of each block, from the row above until they are solved anew


class Experts(NamedTuple):
    """n predictors, m experts of LANES. recent: errors in samples, of 3 rows, LANES a sample. calibration: mean error, rate.

    gate: the weights of the circuit's sum node.
    """

    n: int
    m: int
    features: NDArray[np.float32]
    scaled: NDArray[np.float32]
    lms: NDArray[np.float32]
    prediction: NDArray[np.float64]
    energy: NDArray[np.float64]
    recent: NDArray[np.float64]
    calibration: NDArray[np.float64]
    cells: NDArray[np.int64]
    mean: NDArray[np.int64]
    inverse: NDArray[np.int64]
    gate: NDArray[np.uint64]


class Latents(NamedTuple):
    """What the circuit knows of the choice of an expert. posterior: of 3 rows, LANES a sample, of 2**16.

    evidence: see Canvas. found: room for LANES numbers. keeps: is there a plane after this one, that asks for evidence?
    half: of the interval, in 1/256 of a sample, whose mass is a leaf's likelihood, by the density in its middle.
    """

    posterior: NDArray[np.uint32]
    evidence: NDArray[np.uint16]
    found: NDArray[np.uint64]
    keeps: bool
    half: int


class Coding(NamedTuple):
    """The mixer and its inputs. low, high, cut: the experts' distributions at the ends of the interval and in between.

    whole: their sums. wrong: how many errors are ruled out, and which; wrong_masses: of each, LANES experts' mass.
    """

    low: NDArray[np.uint64]
    high: NDArray[np.uint64]
    cut: NDArray[np.uint64]
    whole: NDArray[np.uint64]
    wrong: NDArray[np.int64]
    wrong_masses: NDArray[np.uint64]
    ones: NDArray[np.uint64]
    zeros: NDArray[np.uint64]
    inputs: NDArray[np.int32]
    contexts: NDArray[np.uint64]
    counters: NDArray[np.uint32]
    weights: NDArray[np.int32]
    maps: NDArray[np.uint16]
    coder: NDArray[np.uint64]


def new_tape(n: int) -> NDArray[np.uint32]:
    return np.empty(n, np.uint32)


def run(
    canvas: Canvas,
    c: int,
    top: int,
    max_error: int,
    kind: int,
    weights: NDArray[np.int32],
    coder: NDArray[np.uint64],
    tape_of: Callable[[int], NDArray[np.uint32]],
) -> Any:
    """Code or decode plane c, some rows at a time: an iterator over their tapes."""
    plane, level = new_plane(canvas, c, top, max_error), LEVELS[kind % len(LEVELS)]
    steps = level.steps * (4 if kind & GUESSED else 1)  # guesses leave few samples to predict, each far from the last
    windows = new_windows(level, canvas.w, steps)
    experts, coding = new_experts(level, plane), new_coding(weights, coder)
    latents = new_latents(canvas, c, plane)
    repeats = new_repeats(kind & GUESSED != 0, canvas.hits.reshape(-1))
    for y in range(0, canvas.h, BAND):
        rows = min(BAND, canvas.h - y)
        tape = tape_of(rows * canvas.w * MAX_DECISIONS)
        code_rows(y, y + rows, plane, windows, experts, latents, coding, repeats, tape)
        yield tape
    canvas.end(c)


def new_plane(canvas: Canvas, c: int, top: int, max_error: int) -> Plane:
    size, stride = canvas.planes[0].size, canvas.planes.shape[2]
    before = np.array([-size * (i + 1) for i in range(min(c, 2))], np.int64)
    taps, bases = list[int](), list[int]()
    for tap in TAPS[len(before)].split():
        base = " bc".index(tap[0]) if tap[0] in "bc" else 0
        dy, dx = (int(v) for v in tap.lstrip("bc").split(","))
        taps.append(dy * stride + dx - base * size)
        bases.append(base)
    return Plane(
        canvas.planes.reshape(-1),
        canvas.errors.reshape(-1),
        c * size,
        c * size + PAD * stride + PAD,
        stride,
        canvas.w,
        top,
        max_error,
        2.0 ** -max(0, top.bit_length() - 8),
        np.array(taps, np.int64),
        np.array(bases, np.int64),
        before,
    )


def new_windows(level: Level, width: int, steps: int) -> Windows:
    sizes = [taps for taps, _, _ in level.windows]
    n, most, blocks = len(sizes), max(sizes, default=8), -(-width // level.block)
    area = int(place(most >> 3, 0))
    return Windows(
        np.zeros(2, np.int64),
        np.array(sizes, np.int64),
        np.array([decays for _, *decays in level.windows], np.float32).reshape(n, 2),
        level.block,
        steps,
        np.zeros((n, blocks, area), np.float32),
        np.zeros((n, blocks, area), np.float32),
        np.zeros((n, area), np.float32),
        np.zeros(area, np.float32),
        np.zeros(1, np.float32),
        np.zeros(most * most, np.float32),
        np.zeros((n, most * most), np.float32),
        np.zeros((2, most, most)),
        np.zeros((4, most), np.float32),
        np.zeros((n, blocks, most), np.float32),
    )


def new_experts(level: Level, plane: Plane) -> Experts:
    n, taps = 1 + len(level.windows) + SIMPLE, max([LMS_TAPS, *(taps for taps, _, _ in level.windows)])
    calibration = np.zeros((LANES, CELLS, 2))
    mean = 0.1
    for cell in range(CELLS):
        calibration[:, cell] = mean, 0.5
        mean *= 1.2840254166877414  # exp(1/4)
    return Experts(
        n,
        n + SCALED,
        np.zeros(taps, np.float32),
        np.zeros(taps, np.float32),
        np.zeros(LMS_TAPS, np.float32),
        np.zeros(LANES),
        np.zeros(LANES),
        np.full(3 * plane.stride * LANES, 4.0),
        calibration.reshape(-1),
        np.zeros(LANES, np.int64),
        np.zeros(LANES, np.int64),
        np.zeros(LANES, np.int64),
        np.zeros(LANES, np.uint64),
    )


def new_latents(canvas: Canvas, c: int, plane: Plane) -> Latents:
    return Latents(
        np.full(3 * plane.stride * LANES, NEW, np.uint32),
        canvas.evidence,
        np.zeros(LANES, np.uint64),
        c + 1 < len(canvas.planes),
        int(128 / plane.unit),
    )


def new_weights(level: Level) -> NDArray[np.int32]:
    """Of the mixers, [MIXERS * KINDS * INPUTS]. One plane learns on from where the one before ended."""
    m = 1 + len(level.windows) + SIMPLE + SCALED
    weights = np.zeros((MIXERS * KINDS, INPUTS), np.int32)
    weights[:, 0], weights[:, 1:m], weights[:, m : m + TABLES] = ONE, 3 * ONE // (4 * m), ONE // 12
    weights[:, m + TABLES] = ONE // 4
    return weights.reshape(-1)


def new_coding(weights: NDArray[np.int32], coder: NDArray[np.uint64]) -> Coding:
    return Coding(
        np.zeros(LANES, np.uint64),
        np.zeros(LANES, np.uint64),
        np.zeros(LANES, np.uint64),
        np.zeros(LANES, np.uint64),
        np.zeros(1 + TRIES, np.int64),
        np.zeros(TRIES * LANES, np.uint64),
        np.zeros(LANES, np.uint64),
        np.zeros(LANES, np.uint64),
        np.zeros(INPUTS, np.int32),
        np.zeros(TABLES, np.uint64),
        np.full(TABLES * CONTEXTS * KINDS, COUNTER_START, np.uint32),
        weights,
        new_maps(32 * KINDS),
        coder,
    )


@kernel
def code_rows(y0, y1, plane, windows, experts, latents, coding, repeats, tape):  # type: ignore[no-untyped-def]
    """Code rows y0 to y1 - 1, or decode them, as coding.coder says."""
    width, block = plane.width, windows.block
    for y in range(y0, y1):
        row = plane.origin + y * plane.stride
        for i in range(1, PAD + 1):
            plane.samples[row - i] = plane.samples[row - plane.stride]
        if y < REFRESH or y % REFRESH == 0:
            precondition(windows)
        begin_row(windows)
        rate = RATE + EXTRA_RATE * 16 // (16 + y)
        for j in range((width + block - 1) // block):
            windows.state[0], windows.state[1] = j, 1
            fill(windows.now, F32(0.0))
            for x in range(j * block, min((j + 1) * block, width)):
                code_sample(row + x, y, x, rate, plane, windows, experts, latents, coding, repeats, tape)
            for m in range(windows.sizes.size):
                end_block(windows, m, j)
        end_row(row, y, plane, experts)


@kernel
def end_row(row, y, plane, experts):  # type: ignore[no-untyped-def]
    """The room around the row, of samples and of errors."""
    last = row + plane.width - 1
    for i in range(1, PAD + 1):
        plane.samples[last + i] = plane.samples[last]
        plane.errors[last + i] = plane.errors[last]
        plane.errors[row - i] = plane.errors[row]
    first = (y % 3 * plane.stride + PAD) * LANES
    end = first + (plane.width - 1) * LANES
    for i in range(LANES, (PAD + 1) * LANES, LANES):
        for k in range(LANES):
            experts.recent[first - i + k] = experts.recent[first + k]
            experts.recent[end + i + k] = experts.recent[end + k]


@kernel
def code_sample(at, y, x, rate, plane, windows, experts, latents, coding, repeats, tape):  # type: ignore[no-untyped-def]
    """By guesses if there are any; else, or where they do not find it, by its error. Easy hits teach no predictor."""
    value, easy, base, power, recent = I64(-1), False, 0.0, 0.0, U64(0)
    if repeats.on:
        easy = look(at, plane, repeats)
    if not easy:
        base, power, recent = foresee(at, y, x, plane, windows, experts, latents)
    if repeats.on:
        value = recall(at, easy, experts.mean[0], experts.inverse[0], plane, repeats, coding.coder, tape)
    if easy and value >= 0:
        plane.errors[at] = 0
        forget(experts, latents, (y % 3 * plane.stride + PAD + x) * LANES)
    else:
        if easy:
            base, power, recent = foresee(at, y, x, plane, windows, experts, latents)
        if value < 0:
            value = code_error(at, rate, plane, experts, coding, repeats, tape)
        plane.errors[at] = I64((value - experts.prediction[0]) * 256.0)
        infer(at, value, recent, plane, experts, latents)
        adapt(value, recent, base, power, windows.sizes.size, plane, windows, experts)
    plane.samples[at] = value
    if repeats.on:
        remember(at, value, plane, repeats)


@kernel
def foresee(at, y, x, plane, windows, experts, latents):  # type: ignore[no-untyped-def]
    """Predictions, distributions, weights. Returns this plane's mean near here, the features' power, the place in `recent`."""
    n_windows = windows.sizes.size
    if windows.state[1]:
        windows.state[1] = 0
        for m in range(n_windows):
            solve(windows, m, windows.state[0])
    base = gather(at, plane, experts)
    power = predict(at, base, plane, windows, experts)
    recent = blend(at, y, x, n_windows, plane, experts)
    weigh(at, y, x, plane, experts, latents)
    return base, power, recent


@kernel
def forget(experts, latents, at):  # type: ignore[no-untyped-def]
    for k in range(U64(LANES)):
        experts.recent[U64(at) + k] = 0.0
        latents.posterior[U64(at) + k] = np.uint32(NEW)


@kernel
def gather(at, plane, experts):  # type: ignore[no-untyped-def]
    """Features: taps less the mean of the four nearest in their plane, brought to 8 bits. Returns this plane's mean."""
    s, stride = plane.samples, plane.stride
    base = (s[at - 1] + s[at - stride] + s[at - stride - 1] + s[at - stride + 1]) * 0.25
    base1 = base2 = base
    if plane.before.size > 0:
        o = at + plane.before[0]
        base1 = (s[o - 1] + s[o - stride] + s[o - stride - 1] + s[o - stride + 1]) * 0.25
    if plane.before.size > 1:
        o = at + plane.before[1]
        base2 = (s[o - 1] + s[o - stride] + s[o - stride - 1] + s[o - stride + 1]) * 0.25
    for i in range(experts.features.size):
        b = plane.bases[i]
        difference = s[at + plane.taps[i]] - (base if b == 0 else base1 if b == 1 else base2)
        experts.features[i] = F32(difference * plane.unit)
    return base


@kernel
def predict(at, base, plane, windows, experts):  # type: ignore[no-untyped-def]
    """Predictions 1 .. n - 1: windows, LMS, fixed ones. Returns the power of the LMS's features."""
    out, f, n = experts.prediction, experts.features, windows.sizes.size
    for m in range(n):
        out[1 + m] = base + F64(dot(windows.coefficients[m, windows.state[0]], f, windows.sizes[m])) / plane.unit
    out[1 + n] = base + F64(dot(experts.lms, f, LMS_TAPS)) / plane.unit
    fixed(at, 2 + n, plane, out)
    for k in range(1, experts.n):
        p = out[k]
        out[k] = min(p, F64(plane.top)) if p >= 0.0 else 0.0  # also where it is not a number
    return F64(dot(f, f, LMS_TAPS))


@kernel
def dot(a, b, n):  # type: ignore[no-untyped-def]
    """float32. Four partial sums, of every fourth product; then (first + second) + (third + fourth). n: a multiple of 4."""
    s0 = s1 = s2 = s3 = F32(0.0)
    for i in range(U64(0), U64(n), U64(4)):
        s0 += a[i] * b[i]
        s1 += a[i + U64(1)] * b[i + U64(1)]
        s2 += a[i + U64(2)] * b[i + U64(2)]
        s3 += a[i + U64(3)] * b[i + U64(3)]
    return (s0 + s1) + (s2 + s3)


@kernel
def fixed(at, k, plane, out):  # type: ignore[no-untyped-def]
    """Six predictions from k on: in this plane, or in the difference to the plane before."""
    s, up = plane.samples, plane.stride
    w, n, nw, ne = s[at - 1], s[at - up], s[at - up - 1], s[at - up + 1]
    if plane.before.size == 0:
        out[k], out[k + 1], out[k + 2] = med(w, n, nw), (w + n) * 0.5 + (ne - nw) * 0.25, w + ne - n
        out[k + 3], out[k + 4], out[k + 5] = 2 * n - s[at - 2 * up], 2 * w - s[at - 2], n
        return
    b = at + plane.before[0]
    dw, dn, dnw, dne = w - s[b - 1], n - s[b - up], nw - s[b - up - 1], ne - s[b - up + 1]
    out[k], out[k + 1] = s[b] + med(dw, dn, dnw), s[b] + (dw + dn) * 0.375 + (dne + dnw) * 0.125
    out[k + 2], out[k + 3], out[k + 4], out[k + 5] = s[b] + dw, s[b] + dn, n + w - nw, (n + w) * 0.5 + (ne - nw) * 0.25
    if plane.before.size > 1:
        b = at + plane.before[1]
        out[k + 4] = s[b] + ((w - s[b - 1]) + (n - s[b - up])) * 0.5


@kernel
def med(w, n, nw):  # type: ignore[no-untyped-def]
    """The median edge detector of JPEG-LS."""
    low, high = min(w, n), max(w, n)
    return low if nw >= high else high if nw <= low else w + n - nw


@kernel
def blend(at, y, x, n_windows, plane, experts):  # type: ignore[no-untyped-def]
    """Prediction 0, and each expert's distribution. Returns the place of this sample in `recent`.

    An expert weighs as its recent error to the power -4. Its width: what was seen where weighted recent errors, errors of
    the planes before and the predictors' disagreement were as large.
    """
    r, p, energy = experts.recent, experts.prediction, experts.energy
    here = U64((y % 3 * plane.stride + PAD + x) * LANES)
    north = U64(((y + 2) % 3 * plane.stride + PAD + x) * LANES)
    far = U64(((y + 1) % 3 * plane.stride + PAD + x) * LANES)
    one, two = U64(LANES), U64(2 * LANES)
    total = weighted = 0.0
    for k in range(U64(1), U64(experts.n)):
        near = (r[here - one + k] + r[north + k]) * 2.0 + (r[north - one + k] + r[north + one + k])
        e = (near + (r[here - two + k] + r[far + k]) + 4.0) * plane.unit
        weight = 1.0 / (e * e)
        weight *= weight
        total += weight
        weighted += weight * p[k]
    p[0] = weighted / total
    common = disagreement(n_windows, p) + errors_before(at, plane)
    for k in range(U64(experts.n)):
        side = r[here - one + k] * 0.1 + r[north + k] * 0.08 + r[north - one + k] * 0.04 + r[north + one + k] * 0.06
        side += r[here - two + k] * 0.056 + r[far + k] * 0.05 + r[north + two + k] * 0.045
        energy[k] = side + r[far + one + k] * 0.03 + r[north - two + k] * 0.028 + common + 0.2 * abs(p[k] - p[0])
    for k in range(U64(experts.n)):
        found = logarithm(U64(energy[k] * 192.0 + 20.0)) >> I64(10)
        cell = min(max(found + I64(17), I64(0)), I64(CELLS - 1))
        experts.cells[k] = (I64(k) * CELLS + cell) * 2
        scale = max(experts.calibration[experts.cells[k]] * 0.72, 0.04)
        experts.mean[k] = I64(p[k] * 256.0 + 0.5)
        experts.inverse[k] = I64(1048576.0 / scale)
    experts.mean[experts.n] = experts.mean[experts.n + 1] = experts.mean[0]
    experts.inverse[experts.n] = experts.inverse[0] * I64(2)
    experts.inverse[experts.n + 1] = experts.inverse[0] >> I64(1)
    return here


@kernel
def weigh(at, y, x, plane, experts, latents):  # type: ignore[no-untyped-def]
    """The gate: the neighbours' posteriors, summed, times the evidence of this pixel's planes before; about 2**16 in all."""
    q, w, total = latents.posterior, latents.found, U64(0)
    here = U64((y % 3 * plane.stride + PAD + x) * LANES)
    north = U64(((y + 2) % 3 * plane.stride + PAD + x) * LANES)
    far = U64(((y + 1) % 3 * plane.stride + PAD + x) * LANES)
    one, two, pixel = U64(LANES), U64(2 * LANES), U64((at - plane.start) * LANES)
    for k in range(U64(experts.m)):
        side = q[north - one + k] + q[north + one + k] + q[here - two + k] + q[far + k]
        w[k] = U64(2) * (U64(q[here - one + k]) + U64(q[north + k])) + U64(side) + U64(LEAST)
    if plane.before.size > 0:
        for k in range(U64(experts.m)):
            w[k] *= U64(latents.evidence[pixel + k])
    for k in range(U64(experts.m)):
        total += w[k]
    shift = U64(max(bit_length(total) - I64(16), I64(0)))
    for k in range(U64(experts.m)):
        experts.gate[k] = (w[k] >> shift) + U64(1)


@kernel
def infer(at, value, recent, plane, experts, latents):  # type: ignore[no-untyped-def]
    """Posterior and evidence of the choice of an expert, given the sample."""
    found, m, pixel = latents.found, U64(experts.m), U64((at - plane.start) * LANES)
    for k in range(m):
        below = logistic(((I64(value) << I64(8)) - experts.mean[k]) * experts.inverse[k] >> I64(16)) >> U64(8)
        slope = below * (U64(1 << (MASS_BITS - 8)) - below) >> U64(15)  # of the distribution, for 1 nat
        leaf = slope * (U64(experts.inverse[k]) * U64(latents.half) >> U64(11)) >> U64(16)
        found[k] = min(leaf, U64(1 << MASS_BITS)) + U64(FLOOR)
    total = U64(0)
    for k in range(m):
        total += experts.gate[k] * found[k]
    shift, scale = normaliser(total)
    for k in range(m):
        latents.posterior[recent + k] = (experts.gate[k] * found[k] >> shift) * scale >> U64(32)
    if latents.keeps:
        total = U64(0)
        for k in range(m):
            found[k] *= U64(latents.evidence[pixel + k])
            total += found[k]
        shift, scale = normaliser(total)
        for k in range(m):
            share = (found[k] >> shift) * scale >> U64(32)
            latents.evidence[pixel + k] = min(max(share, U64(1)), U64(ONE - 1))


@kernel
def normaliser(total):  # type: ignore[no-untyped-def]
    """(shift, scale): (v >> shift) * scale >> 32 is v's share of the total, of 2**16, rounded down. total: 2**18 or more."""
    shift = U64(max(bit_length(total) - I64(32), I64(0)))
    return shift, (U64(1) << U64(48)) // (total >> shift)


@kernel
def disagreement(n_windows, p):  # type: ignore[no-untyped-def]
    """How far predictors are from the blend, weighted: windows 0.12, 0.05, 0.05, LMS 0.05, the first fixed one 0.04."""
    total = 0.0
    for k in range(n_windows + 1):
        total += (0.12 if k == 0 else 0.05) * abs(p[1 + k] - p[0])
    return total + 0.04 * abs(p[2 + n_windows] - p[0])


@kernel
def errors_before(at, plane):  # type: ignore[no-untyped-def]
    """Errors of the planes before at this place and around it, weighted."""
    if plane.before.size == 0:
        return 0.0
    e, up, b = plane.errors, plane.stride, at + plane.before[0]
    side = abs(e[b - 1]) + abs(e[b - up]) + abs(e[b + up + 1]) + abs(e[b + up - 1])
    total = 0.03 * abs(e[b]) + 0.013 * (abs(e[b + 1]) + abs(e[b + up])) + 0.006 * side
    if plane.before.size == 1:
        return total * 0.5 / 256.0
    return (total + 0.005 * abs(e[at + plane.before[1]])) / 256.0


@kernel
def adapt(value, recent, base, power, n_windows, plane, windows, experts):  # type: ignore[no-untyped-def]
    """Everything that predicts learns the sample."""
    p, f = experts.prediction, experts.features
    wide = experts.calibration[experts.cells[0]] * plane.unit
    error = (value - p[1 + n_windows]) * plane.unit
    spread = experts.calibration[experts.cells[1 + n_windows]] * plane.unit
    move = F32(LMS_RATE * error / (power + 20.0 * spread * spread + 1.0))
    for i in range(U64(LMS_TAPS)):
        experts.lms[i] += move * f[i]
    for k in range(U64(experts.n)):
        e = abs(p[k] - value)
        experts.recent[recent + k] = e
        cell = experts.cells[k]
        rate = experts.calibration[cell + 1]
        experts.calibration[cell] += (e - experts.calibration[cell]) * rate
        if rate > 0.01:
            experts.calibration[cell + 1] = rate / (1.0 + rate)
    if n_windows > 0:
        weight = 1.0 / (0.3 * wide * wide + 0.5 * wide + 0.5)
        gather_products(windows, f, experts.scaled, (value - base) * plane.unit, weight)


@kernel
def place(tile, row):  # type: ignore[no-untyped-def]
    """Where row `row` of column tile `tile` begins: columns 8 tile .. 8 tile + 7 of rows 0 .. 8 tile + 7 and the target."""
    t = U64(tile)
    return (t * U64(4) + U64(5)) * t * U64(8) + U64(row) * U64(8)


@kernel
def gather_products(windows, features, scaled, target, weight):  # type: ignore[no-untyped-def]
    """Add weight * outer product of the features, and of the target with them, to the block's sums."""
    for i in range(U64(features.size)):
        scaled[i] = features[i] * F32(weight)
    windows.target[0] = F32(target * weight)
    for t in range(U64(windows.coefficients.shape[2] >> 3)):
        rows, column = U64(8) * (t + U64(1)), U64(8) * t
        add_rows(windows.now, place(t, 0), scaled, U64(0), rows, features, column)
        add_rows(windows.now, place(t, rows), windows.target, U64(0), U64(1), features, column)


@kernel
def begin_row(windows):  # type: ignore[no-untyped-def]
    """right[j]: sums of the rows above over the blocks after j, each decayed by its distance. left: nothing yet."""
    for m in range(windows.sizes.size):
        decay, size = windows.decays[m, 0], place(windows.sizes[m] >> 3, 0)
        blocks = windows.above.shape[1]
        for i in range(size):
            windows.left[m, i] = F32(0.0)
            windows.right[m, blocks - 1, i] = F32(0.0)
        for later in range(1, blocks):
            right, after = windows.right[m, blocks - 1 - later], windows.right[m, blocks - later]
            above = windows.above[m, blocks - later]
            for i in range(size):
                right[i] = normal(decay * (after[i] + above[i]))


@kernel
def end_block(windows, m, j):  # type: ignore[no-untyped-def]
    """left: sums of the blocks before, of this row and those above. above[j]: of this block, for the next row."""
    decay, fall, size = windows.decays[m, 0], windows.decays[m, 1], place(windows.sizes[m] >> 3, 0)
    left, above, now = windows.left[m], windows.above[m, j], windows.now
    for i in range(size):
        left[i] = normal(decay * (left[i] + above[i] + now[i]))
        above[i] = normal(fall * above[i] + now[i])


@kernel
def normal(v):  # type: ignore[no-untyped-def]
    return v if abs(v) > F32(TINY) else F32(0.0)


@kernel
def solve(windows, m, j):  # type: ignore[no-untyped-def]
    """Better coefficients of window m for block j: preconditioned conjugate gradients (Hestenes, Stiefel 1952) from the old.

    A few steps are as good as an exact solution here, in O(taps**2), for two reasons: the solution of the row above is near,
    and features correlate in much the same way everywhere, so that the inverse for all blocks together (`precondition`)
    makes the system nearly round.
    """
    n, x, inverse = U64(windows.sizes[m]), windows.coefficients[m, j], windows.inverse[m]
    a, r, z, p, q = windows.matrix, windows.vectors[0], windows.vectors[1], windows.vectors[2], windows.vectors[3]
    gather_system(windows, m, j)
    multiply(a, x, n, q)
    for k in range(n):
        r[k] -= q[k]
    multiply(inverse, r, n, p)
    rz = dot(r, p, n)
    for step in range(windows.steps):
        multiply(a, p, n, q)
        pq = dot(p, q, n)
        if not (rz > F32(TINY) and pq > F32(LEAST_CURVATURE) * rz):  # solved, or beyond float32
            break
        alpha = rz / pq
        for k in range(n):
            x[k] += alpha * p[k]
        if step == windows.steps - 1:
            break
        for k in range(n):
            r[k] -= alpha * q[k]
        multiply(inverse, r, n, z)
        new = dot(r, z, n)
        beta = new / rz
        rz = new
        for k in range(n):
            p[k] = z[k] + beta * p[k]


@kernel
def gather_system(windows, m, j):  # type: ignore[no-untyped-def]
    """The sums around block j: the matrix, with its ridge, in full, and the right side in vectors[0]."""
    n, a, r = U64(windows.sizes[m]), windows.matrix, windows.vectors[0]
    above, left, right = windows.above[m, j], windows.left[m], windows.right[m, j]
    for t in range(n >> U64(3)):
        end = U64(8) * t + U64(8)
        for i in range(end):
            at, to = place(t, i), cell(t, i, n)
            for c in range(U64(8)):
                a[to + c] = above[at + c] + left[at + c] + right[at + c]
        at, to = place(t, end), U64(8) * t
        for c in range(U64(8)):
            r[to + c] = above[at + c] + left[at + c] + right[at + c]
        for u in range(t):
            for c in range(U64(8)):
                for i in range(U64(8)):
                    a[cell(u, to + c, n) + i] = a[cell(t, U64(8) * u + i, n) + c]
    for k in range(n):
        d = cell(k >> U64(3), k, n) + (k & U64(7))
        a[d] = a[d] * F32(1.0 + RELATIVE_RIDGE) + F32(RIDGE)


@kernel
def precondition(windows):  # type: ignore[no-untyped-def]
    """inverse: of the mean of all blocks' sums of the rows above and a ridge, by Gauss-Jordan elimination in float64."""
    blocks = windows.above.shape[1]
    for m in range(windows.sizes.size):
        n, sums, a, inverse = U64(windows.sizes[m]), windows.left[m], windows.work[0], windows.work[1]
        fill(sums, F32(0.0))
        for j in range(blocks):
            above = windows.above[m, j]
            for i in range(place(n >> U64(3), 0)):
                sums[i] += above[i]
        for k in range(n):
            for i in range(n):
                inverse[k, i] = 1.0 if i == k else 0.0
            for i in range(k + U64(1)):
                a[i, k] = a[k, i] = F64(sums[place(k >> U64(3), i) + (k & U64(7))]) / F64(blocks)
            a[k, k] += MEAN_RIDGE * a[k, k] + RIDGE
        for k in range(n):
            eliminate(a, inverse, k, n)
        for k in range(n):
            for i in range(n):
                windows.inverse[m, cell(k >> U64(3), i, n) + (k & U64(7))] = F32(inverse[i, k])


@kernel
def eliminate(a, inverse, k, n):  # type: ignore[no-untyped-def]
    """Column k of a becomes that of the identity; inverse follows, row by row."""
    factor = 1.0 / a[k, k]
    for c in range(n):
        a[k, c] *= factor
        inverse[k, c] *= factor
    for i in range(n):
        if i != k:
            factor = a[i, k]
            for c in range(n):
                a[i, c] -= factor * a[k, c]
                inverse[i, c] -= factor * inverse[k, c]


@kernel
def cell(tile, row, n):  # type: ignore[no-untyped-def]
    """Where row `row` of column tile `tile` begins in a full matrix [n, n]: columns 8 tile .. 8 tile + 7."""
    return (U64(tile) * n + U64(row)) * U64(8)


@kernel
def multiply(matrix, vector, n, out):  # type: ignore[no-untyped-def]
    """out = matrix @ vector, the matrix symmetric: each element its even terms, its odd terms, then both."""
    for t in range(n >> U64(3)):
        sum_rows(out, U64(8) * t, vector, n, matrix, cell(t, U64(0), n))


@kernel
def distribute(cut, edge, per_step, experts, coding, out):  # type: ignore[no-untyped-def]
    """Each expert's mass below error `cut`. edge: of error 0, its lower one, as per_step in 1/256 of a sample."""
    for k in range(U64(experts.m)):
        out[k] = logistic((edge + cut * per_step - experts.mean[k]) * experts.inverse[k] >> I64(16))
    for i in range(coding.wrong[0]):
        if coding.wrong[1 + i] < cut:
            for k in range(U64(experts.m)):
                out[k] -= coding.wrong_masses[U64(i * LANES) + k]


@kernel
def below(cut, edge, per_step, experts, coding):  # type: ignore[no-untyped-def]
    """As `distribute`, of expert 0 alone."""
    mass = logistic((edge + cut * per_step - experts.mean[0]) * experts.inverse[0] >> I64(16))
    for i in range(coding.wrong[0]):
        if coding.wrong[1 + i] < cut:
            mass -= coding.wrong_masses[i * LANES]
    return mass


@kernel
def copy(source, out):  # type: ignore[no-untyped-def]
    for k in range(U64(out.size)):
        out[k] = source[k]


@kernel
def fill(out, value):  # type: ignore[no-untyped-def]
    for k in range(U64(out.size)):
        out[k] = value


@kernel
def code_error(at, rate, plane, experts, coding, repeats, tape):  # type: ignore[no-untyped-def]
    """Code a sample's error, or decode it. Returns the sample."""
    step, mean = I64(2 * plane.max_error + 1), experts.mean[0]
    centre = (mean + I64(128)) >> I64(8)
    low, high = -((centre + plane.max_error) // step), (plane.top - centre + plane.max_error) // step
    spread = max(experts.calibration[experts.cells[0]], 0.05) / step
    width = I64(1)
    while F64(width * I64(2)) < spread * 0.9 + 0.5:
        width *= I64(2)
    scale = choose_contexts(at, width, spread, plane, experts, coding)
    e = I64(0)
    if coding.coder[0] == U64(0):
        difference = I64(plane.samples[at]) - centre
        e = (abs(difference) + plane.max_error) // step
        e = e if difference >= 0 else -e
    first = ((mean - (centre << I64(8))) // step - ((width - I64(1)) << I64(7)) + I64(128)) >> I64(8)
    first, last = max(first, low), min(first + width - I64(1), high)
    edge, per_step = (centre << I64(8)) - I64(128) * step, step << I64(8)  # of e = 0, its lower one
    rule_out(centre, edge, plane, experts, coding, repeats)
    low, high, inside = middle_bucket(e, low, high, first, last, edge, per_step, scale, rate, experts, coding, tape)
    if not inside:
        up = low > first
        low, high = buckets(e, low, high, width, up, edge, per_step, scale, rate, experts, coding, tape)
    e = halve(e, low, high, edge, per_step, experts, coding, tape)
    return min(max(centre + step * e, I64(0)), I64(plane.top))


@kernel
def rule_out(centre, edge, plane, experts, coding, repeats):  # type: ignore[no-untyped-def]
    """The errors that would be guesses known to be wrong lose their masses. None where samples may be off."""
    n = repeats.tried[0] if repeats.on and plane.max_error == 0 else I64(0)
    coding.wrong[0] = 0
    fill(coding.whole, U64(1 << MASS_BITS))
    for i in range(n):
        e, at = repeats.tried[1 + i] - centre, U64(i * LANES)
        coding.wrong[1 + i] = e
        for k in range(U64(experts.m)):
            t = edge + e * I64(256) - experts.mean[k]
            above = logistic((t + I64(256)) * experts.inverse[k] >> I64(16))
            coding.wrong_masses[at + k] = above - logistic(t * experts.inverse[k] >> I64(16))
            coding.whole[k] -= coding.wrong_masses[at + k]
    coding.wrong[0] = n


@kernel
def halve(e, low, high, edge, per_step, experts, coding, tape):  # type: ignore[no-untyped-def]
    """Which e of an interval: within a bucket expert 0 alone knows nearly all that can be known."""
    while low < high:
        middle = (low + high + I64(1)) >> I64(1)
        cut = below(middle, edge, per_step, experts, coding)
        x = log_ratio(max(coding.high[0] - cut, U64(1)), max(cut - coding.low[0], U64(1)))
        p = squash(min(max(x, -UNIT), UNIT))  # tails are heavier than the logistic's
        if code(coding.coder, tape, I64(e >= middle), p):
            low, coding.low[0] = middle, cut
        else:
            high, coding.high[0] = middle - I64(1), cut
    return low


@kernel
def middle_bucket(e, low, high, first, last, edge, per_step, scale, rate, experts, coding, tape):  # type: ignore[no-untyped-def]
    """Is e in first .. last, around the prediction? If not, above or below? Returns the interval left, and the first answer."""
    whole = coding.whole
    if first > low:
        distribute(first, edge, per_step, experts, coding, coding.low)
    else:
        fill(coding.low, U64(0))
    if last < high:
        distribute(last + I64(1), edge, per_step, experts, coding, coding.high)
    else:
        copy(whole, coding.high)
    if first == low and last == high:
        return low, high, True
    for k in range(U64(experts.m)):
        coding.ones[k] = coding.high[k] - coding.low[k]
        coding.zeros[k] = whole[k] - coding.ones[k]
    if decide(I64(first <= e <= last), 0, scale, rate, experts, coding, tape):
        return first, last, True
    up = last < high
    if first > low and last < high:
        for k in range(U64(experts.m)):
            coding.ones[k], coding.zeros[k] = whole[k] - coding.high[k], coding.low[k]
        up = decide(I64(e > last), 1, scale, rate, experts, coding, tape) != 0
    if up:
        copy(coding.high, coding.low)
        copy(whole, coding.high)
        return last + I64(1), high, False
    copy(coding.low, coding.high)
    fill(coding.low, U64(0))
    return low, first - I64(1), False


@kernel
def buckets(e, low, high, width, up, edge, per_step, scale, rate, experts, coding, tape):  # type: ignore[no-untyped-def]
    """Away from the prediction: beyond the next bucket? They double from the third on. Returns the interval left."""
    i = I64(0)
    while high - low >= width:
        cut = low + width if up else high - width + I64(1)
        kind = I64(2) + min(i, I64(9))
        beyond = split(e, cut, up, edge, per_step, kind, scale, rate, experts, coding, tape)
        if beyond == up:
            low = cut
            copy(coding.cut, coding.low)
        else:
            high = cut - I64(1)
            copy(coding.cut, coding.high)
        if not beyond:
            break
        width = width * I64(2) if i > 0 else width
        i += I64(1)
    return low, high


@kernel
def split(e, cut, up, edge, per_step, kind, scale, rate, experts, coding, tape):  # type: ignore[no-untyped-def]
    """Is e on the upper side of a cut (e >= cut), or, where not `up`, on the lower one?"""
    distribute(cut, edge, per_step, experts, coding, coding.cut)
    for k in range(U64(experts.m)):
        above, below = coding.high[k] - coding.cut[k], coding.cut[k] - coding.low[k]
        coding.ones[k], coding.zeros[k] = (above, below) if up else (below, above)
    return decide(I64((e >= cut) == up), kind, scale, rate, experts, coding, tape) != 0


@kernel
def decide(bit, kind, scale, rate, experts, coding, tape):  # type: ignore[no-untyped-def]
    """Code a bit, or decode it, where each expert has masses for 1 and for 0. Everything that judges learns it.

    Inputs: expert 0; what the other experts, the counters and the circuit say more than it; a constant.
    """
    inputs, n, d = coding.inputs, U64(experts.m), U64(kind)
    for k in range(n):
        inputs[k] = log_ratio(max(coding.ones[k], U64(1)), max(coding.zeros[k], U64(1)))
    first = inputs[0]
    for k in range(U64(1), n):
        inputs[k] -= first
    for k in range(U64(TABLES)):
        inputs[n + k] = stretch(counter(coding.counters, coding.contexts[k] + d)) - first
    one = zero = U64(0)
    for k in range(n):
        one += experts.gate[k] * coding.ones[k]
        zero += experts.gate[k] * coding.zeros[k]
    inputs[n + U64(TABLES)] = log_ratio(max(one, U64(1)), max(zero, U64(1))) - first
    inputs[n + U64(TABLES + 1)] = UNIT
    at = ((U64(scale) >> U64(2)) * U64(KINDS) + d) * U64(INPUTS)
    x = mix(coding.weights, at, inputs)
    p = squash(x)
    refined, cell = refine(coding.maps, U64(scale) * U64(KINDS) + d, x)
    bit = code(coding.coder, tape, bit, (p + refined) >> I64(1))
    learn(coding.weights, at, inputs, (bit << I64(16)) - p, rate)
    for k in range(U64(TABLES)):
        count(coding.counters, coding.contexts[k] + d, bit, COUNTER_LIMIT)
    follow(coding.maps, cell, bit, MAP_RATE)
    return bit


@kernel
def choose_contexts(at, width, spread, plane, experts, coding):  # type: ignore[no-untyped-def]
    """The counters' contexts: spread; texture; errors left and above; of planes before; phase; value. Returns the first."""
    s, e, up, mean = plane.samples, plane.errors, plane.stride, experts.mean[0]
    scale = min(max((logarithm(U64(spread * 1024.0)) + I64(2048) >> I64(10)) + I64(8), I64(0)), I64(31))
    size = I64(width > 1) + I64(width > 2) + I64(width > 4)
    near = I64(0)
    for offset in (1, up, up + 1, up - 1, 2 * up, 2):
        near = near * 2 + I64((I64(s[at - offset]) << I64(8)) > mean)
    inverse = experts.inverse[0]
    side = signed_size(e[at - 1], inverse) * 7 + signed_size(e[at - up], inverse)
    before = I64(0)
    for b in range(plane.before.size):
        before = before * 7 + signed_size(e[at + plane.before[b]], inverse)
    phase, level = ((mean >> I64(5)) & I64(7)) * 32 + scale, I64(F64(mean) * plane.unit) >> I64(7)
    found = (scale, near * 4 + size, side * 4 + size, before * 4 + size, phase, level)
    for k in range(TABLES):
        coding.contexts[k] = U64((k * CONTEXTS + found[k]) * KINDS)
    return scale


@kernel
def signed_size(error, inverse):  # type: ignore[no-untyped-def]
    """An error in 1/256 of a sample against the width of the distribution: 0 to 6."""
    z = I64(error) * inverse >> I64(16)
    upper = I64(z > 1229) + I64(z > 4096) + I64(z > 9000)
    return upper + I64(z > -1229) + I64(z > -4096) + I64(z > -9000)
