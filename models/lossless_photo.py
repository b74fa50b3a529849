"""Lossless and near-lossless pictures, tile by tile: local least squares predict, logistic mixing says how surely.

    plane by plane, sample by sample in raster order, encoder and decoder alike
      predictors   weighted least squares over a local window (`windows.py`: 0 to 2 windows, 16 to 48 taps in this plane
                   and the planes before), normalised LMS, six fixed ones; their blend by recent errors is prediction 0
      experts      a logistic distribution around each prediction, as wide as recent errors near here turned out before;
                   around the blend two more, half and twice as wide; a circuit weighs them all (`experts.py`)
      decisions    in the middle bucket? above? one bucket further? which half? each a bit, whose probability is the
                   logistic mix of what experts and circuit say and of counters in six contexts (`decisions.py`)

This is "Coded picture samples" in FORMAT.md, whose sections kernels name as (1) to (11); tests/plain_picture.py decodes
by it in plain Python. A plane is predicted from the whole planes before it, also below and to the right; that is as
small as with a reversible colour transform, or smaller, but for gray in a few tints: slow efforts try one on patches
(`differences`). A plane of few different values is coded as ranks (`planes.py`). Near-lossless codes the error in steps
of 2 * max_error + 1 and goes on from what the decoder has. Where colours recur, guesses come before all this
(`repeats.py`). What would be larger than its samples is stored.

Arithmetic is integer, or float64 and (windows, LMS) float32 + - * / in the order of these files, never fused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import Stream, open_stream
from laconic.entropy.threads import stop_if_over
from laconic.models.decisions import MAX_DECISIONS, Coding, code_error, new_coding, new_weights
from laconic.models.experts import (
    ERROR_UNITS,
    Experts,
    Latents,
    adapt,
    end_row_of_experts,
    foresee,
    forget,
    infer,
    new_experts,
    new_latents,
    ring_places,
)
from laconic.models.mixing import I64, decoder, encoder, finish_decoder, kernel, push_tapes
from laconic.models.planes import PAD, Canvas, Plane, Samples, Values, new_plane
from laconic.models.repeats import Repeats, look, new_repeats, recall, remember, repetitive
from laconic.models.windows import (
    LEVEL_OF_EFFORT,
    LEVELS,
    REFRESH,
    Level,
    Windows,
    begin_block,
    begin_row,
    end_block,
    new_windows,
    precondition,
)

Tape = NDArray[np.uint32]

SIDE, LARGE_SIDE = 1024, 2048  # the most that a side of a tile has
TILE = LARGE_SIDE**2  # samples of a plane at most
SPLIT = 1 << 17  # from here on a picture is two tiles at least, for two threads
BAND = 16  # rows that the kernel codes at a call; then tapes are kept, damage is noticed, and interrupts come through
TRIED, TRIALS = 48, 3  # for the choice of the transform: 3 x 3 patches of 48 x 48


class TileKind(IntFlag):
    """Names the first byte of a tile (2): STORED, or MODEL and a level, an index of LEVELS, with what else applies."""

    LEVEL = 3  # a mask
    GUESSED = 4  # guesses come first (`repeats.py`)
    EXACT = 8  # with guesses: no sample is off, though it might be
    STORED = 16  # the samples as they are
    DIFFERENCES = 32  # the reversible colour transform, where there are no guesses and no sample may be off
    MODEL = 64  # the version of all this

    @classmethod
    def of_effort(cls, effort: int) -> TileKind:
        """Return the kind for an effort of 1 to 9, without guesses and differences."""
        return cls.MODEL | cls(LEVEL_OF_EFFORT[effort - 1])

    def known(self, channels: int) -> bool:
        """Say whether tiles of so many channels may be of this kind."""
        options = self & ~self.LEVEL
        transformed = options == self.MODEL | self.DIFFERENCES and channels >= 3
        return self == self.STORED or options & ~(self.GUESSED | self.EXACT) == self.MODEL or transformed

    def level(self) -> Level:
        """Return the windows that predict."""
        return LEVELS[self & self.LEVEL]

    def steps(self) -> int:
        """Return how many steps solve a window: more beside guesses, which leave few samples, far apart."""
        return self.level().steps * (4 if self & self.GUESSED else 1)


def tile_grid(height: int, width: int, large: bool = False) -> list[tuple[int, int, int, int]]:
    """Return (y, x, h, w) of the tiles of a picture, row by row (1).

    Their sides have at most 1024 samples, and from 131,072 pixels on there are two at least. large: at most 2048,
    one perhaps, for what recurs within a tile.
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
    expect(0 < h * w <= TILE, BadInput, "tile size", (h, w), f"1 to {TILE} samples per plane")
    expect(int(samples.max()) >> bits == 0, BadInput, "largest sample", int(samples.max()), f"below 2**{bits}")
    kind, ways = TileKind.of_effort(effort), [store(samples, bits)]
    if repetitive(samples):
        ways.append(code_planes(samples, kind | TileKind.GUESSED, max_error))
        if max_error > 0:  # what is off does not recur
            ways.append(code_planes(samples, kind | TileKind.GUESSED | TileKind.EXACT, 0))
    elif effort >= 8 and max_error == 0 and prefer_differences(samples, bits):
        ways.append(code_planes(differences(samples, bits), kind | TileKind.DIFFERENCES, 0))
    else:
        ways.append(code_planes(samples, kind, max_error))
    return min(ways[::-1], key=len)


def decode_tile(data: bytes | memoryview, h: int, w: int, C: int, bits: int, max_error: int) -> Samples:
    """Return the samples uint16 [h, w, C] of a tile, given what `encode_tile` was given. Raises BadFile on damage.

    A tile whose words run out before its samples do is given up after the next rows, however large it says it is.
    """
    raw = bytes(data)
    kind = TileKind(raw[0] if raw else 255)
    known = "10, 40 to 4f or 60 to 63 (others below 40: of an earlier version)"
    expect(kind.known(C), BadFile, "kind of tile", raw[:1].hex(), known)
    ok = 0 < h * w <= TILE and 1 <= C <= 4 and 1 <= bits <= 16 and 0 <= max_error < 1 << 16
    expect(ok, BadFile, "tile shape", (h, w, C, bits, max_error), f"1 to {TILE} samples, 1 to 4 planes, 1 to 16 bits")
    if kind == TileKind.STORED:
        return restore(raw[1:], (h, w, C), bits)
    position, heads = 1, list[Values]()
    for _ in range(C):
        values, position = Values.unpack(raw, position, bits, heads)
        heads.append(values)
    stream, end = open_stream(raw, h * w * C * MAX_DECISIONS, position=position)
    expect(end == len(raw) and len(stream.states) == 1, BadFile, "tile", f"{len(raw) - end} bytes more", "one lane")
    exact = kind & (TileKind.EXACT | TileKind.DIFFERENCES)
    out = decode_planes(heads, (h, w, C), kind, 0 if exact else max_error, stream)
    return undo_differences(out, bits) if kind & TileKind.DIFFERENCES else out


def store(samples: Samples, bits: int) -> bytes:
    """Return a tile that holds the samples as they are."""
    return bytes([TileKind.STORED]) + samples.astype(whole_bytes(bits)).tobytes()


def restore(raw: bytes, shape: tuple[int, int, int], bits: int) -> Samples:
    """Return the samples of a stored tile, given what follows its first byte. Raises BadFile."""
    kind = np.dtype(whole_bytes(bits))
    size = int(np.prod(shape)) * kind.itemsize
    expect(len(raw) == size, BadFile, "stored samples", len(raw), f"{size} bytes")
    samples = np.frombuffer(raw, kind).reshape(shape).astype(np.uint16)
    expect(int(samples.max()) >> bits == 0, BadFile, "largest sample", int(samples.max()), f"below 2**{bits}")
    return samples


def whole_bytes(bits: int) -> str:
    """Return the type of a sample in a stored tile, [row, column, channel]."""
    return "<u2" if bits > 8 else "u1"


def differences(samples: Samples, bits: int) -> Samples:
    """Return R - G + half, G, B - G + half, modulo 2**bits, half 2**(bits - 1): Hewlett-Packard's HP1, as in CharLS."""
    out, half = samples.astype(np.int32), 1 << (bits - 1)
    out[..., [0, 2]] += half - out[..., [1]]
    return (out & ((1 << bits) - 1)).astype(np.uint16)


def undo_differences(samples: Samples, bits: int) -> Samples:
    """Return the samples that `differences` was given."""
    out, half = samples.astype(np.int32), 1 << (bits - 1)
    out[..., [0, 2]] += out[..., [1]] - half
    return (out & ((1 << bits) - 1)).astype(np.uint16)


def prefer_differences(samples: Samples, bits: int) -> bool:
    """Say whether patches of a colour tile, spread over it, are smaller by 0.5 % when coded as differences."""
    h, w, channels = samples.shape
    if channels < 3:
        return False
    ys, xs = ([max(size - TRIED, 0) * i // (TRIALS - 1) for i in range(TRIALS)] for size in (h, w))
    rows = [np.concatenate([samples[y : y + TRIED, x : x + TRIED] for x in xs], 1) for y in ys]
    patches, kind = np.concatenate(rows), TileKind.MODEL | 1
    as_differences = code_planes(differences(patches, bits), kind, 0)
    return 200 * len(as_differences) < 199 * len(code_planes(patches, kind, 0))


def code_planes(samples: Samples, kind: TileKind, max_error: int) -> bytes:
    """Return the tile of the samples, of a kind that is not STORED."""
    channels = samples.shape[2]
    tile, head, tapes = TileCoder.of(samples.shape, kind, max_error, encoder()), bytes([kind]), list[Tape]()
    planes = [samples[..., c] for c in order(channels)]
    for c, plane in enumerate(planes):
        values = Values.of(plane, planes[:c], max_error)
        head += values.pack()
        if values.top() == 0 or values.same >= 0:
            tile.canvas.fill(c, values.index(plane) if values.same < 0 else tile.canvas.plane(values.same))
            continue
        tile.canvas.put(c, values.index(plane))
        for tape in tile.bands(c, values.top(), lambda n: np.empty(n, np.uint32)):
            tapes.append(tape[: int(tile.coder[1])].copy())
            tile.coder[1] = 0
    return head + push_tapes(tapes)


def decode_planes(
    heads: list[Values], shape: tuple[int, int, int], kind: TileKind, max_error: int, stream: Stream
) -> Samples:
    """Return the samples [h, w, C] of a tile that is not stored. heads: in coding order. Raises BadFile."""
    coder, words = decoder(stream)
    tile, out = TileCoder.of(shape, kind, max_error, coder), np.empty(shape, np.uint16)
    for c, values in enumerate(heads):
        if values.same >= 0:
            tile.canvas.fill(c, tile.canvas.plane(values.same))
        elif values.top() == 0:
            tile.canvas.fill(c, np.zeros(shape[:2], np.int32))
        else:
            for _ in tile.bands(c, values.top(), lambda n: words):
                read, most = int(coder[1]), len(words) - 1  # the last word is a spare one
                expect(read <= most, BadFile, "words", most, "more: they run out before the samples do")
        out[..., order(shape[2])[c]] = values.sample(tile.canvas.plane(c))
    finish_decoder(stream, coder)
    return out


def order(channels: int) -> list[int]:
    """Return the planes in the order in which they are coded: green first, whose noise is least."""
    return [1, 0, 2, 3][:channels] if channels >= 3 else list(range(channels))


@dataclass(frozen=True)
class TileCoder:
    """Holds what the planes of a tile share, in both directions. weights: of the mixers. coder: as `mixing.code` takes it."""

    canvas: Canvas
    kind: TileKind
    max_error: int
    weights: NDArray[np.int32]
    coder: NDArray[np.uint64]

    @classmethod
    def of(cls, shape: tuple[int, ...], kind: TileKind, max_error: int, coder: NDArray[np.uint64]) -> TileCoder:
        """Return the coder of a tile of a shape [h, w, C]."""
        h, w, channels = shape
        return cls(Canvas.of(h, w, channels), kind, max_error, new_weights(kind.level()), coder)

    def bands(self, c: int, top: int, tape_of: Callable[[int], Tape]) -> Iterator[Tape]:
        """Code or decode plane c, whose samples are 0 to `top`, some rows at a time. Yields the tape after each.

        tape_of: gives the tape for so many decisions.
        """
        canvas, level = self.canvas, self.kind.level()
        plane, guessed = new_plane(canvas, c, top, self.max_error), bool(self.kind & TileKind.GUESSED)
        windows, experts = new_windows(level, canvas.w, self.kind.steps()), new_experts(level, plane)
        latents, coding = new_latents(canvas, c, plane), new_coding(self.weights, self.coder)
        repeats = new_repeats(guessed, canvas.hits.reshape(-1))
        for y in range(0, canvas.h, BAND):
            stop_if_over()
            rows = min(BAND, canvas.h - y)
            tape = tape_of(rows * canvas.w * MAX_DECISIONS)
            code_rows(y, y + rows, plane, windows, experts, latents, coding, repeats, tape)
            yield tape
        canvas.end(c)


@kernel
def code_rows(
    y0: int,
    y1: int,
    plane: Plane,
    windows: Windows,
    experts: Experts,
    latents: Latents,
    coding: Coding,
    repeats: Repeats,
    tape: Tape,
) -> None:
    """Code rows y0 to y1 - 1, or decode them, as coding.coder says."""
    width, block = plane.width, windows.block
    for y in range(y0, y1):
        row = plane.origin + y * plane.stride
        for i in range(1, PAD + 1):
            plane.samples[row - i] = plane.samples[row - plane.stride]
        if y < REFRESH or y % REFRESH == 0:
            precondition(windows)
        begin_row(windows)
        for j in range((width + block - 1) // block):
            begin_block(windows, j)
            for x in range(j * block, min((j + 1) * block, width)):
                code_sample(row + x, y, x, plane, windows, experts, latents, coding, repeats, tape)
            for m in range(windows.sizes.size):
                end_block(windows, m, j)
        end_row(row, plane)
        end_row_of_experts(y, plane, experts)


@kernel
def end_row(row: int, plane: Plane) -> None:
    """Fill the room around a row (3), of samples and of errors. row: the place of its first sample."""
    last = row + plane.width - 1
    for i in range(1, PAD + 1):
        plane.samples[last + i] = plane.samples[last]
        plane.errors[last + i] = plane.errors[last]
        plane.errors[row - i] = plane.errors[row]


@kernel
def code_sample(
    at: int,
    y: int,
    x: int,
    plane: Plane,
    windows: Windows,
    experts: Experts,
    latents: Latents,
    coding: Coding,
    repeats: Repeats,
    tape: Tape,
) -> None:
    """Code the sample at place `at`, row y, column x: by guesses, if there are any (11), or else by its error.

    Where a guess is sure of the sample (easy), predictions are not made unless it was wrong, and nothing learns from
    it.
    """
    value, easy, base, power = I64(-1), False, 0.0, 0.0
    ring, _, _ = ring_places(y, x, plane)
    if repeats.on:
        easy = look(at, plane, repeats)
    if not easy:
        base, power = foresee(at, y, x, plane, windows, experts, latents)
    if repeats.on:
        value = recall(at, easy, experts.mean[0], experts.inverse[0], plane, repeats, coding.coder, tape)
    if easy and value >= 0:
        plane.errors[at] = 0
        forget(ring, experts, latents)
    else:
        if easy:
            base, power = foresee(at, y, x, plane, windows, experts, latents)
        if value < 0:
            value = code_error(at, y, plane, experts, coding, repeats, tape)
        plane.errors[at] = I64((value - experts.prediction[0]) * ERROR_UNITS)
        infer(at, value, ring, plane, experts, latents)
        adapt(value, ring, base, power, plane, windows, experts)
    plane.samples[at] = value
    if repeats.on:
        remember(at, value, plane, repeats)
