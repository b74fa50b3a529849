"""Symbols of a photo's tile as binary decisions, whose probabilities are corrected by what came true before (mixed y).

Section "Mixed y" of FORMAT.md. The table row of a symbol says how likely each decision is:

    zero       is the symbol not 0?
    sign       is it positive?
    size       is it larger than 1, than 2, ... than 15?
    rest       in which octave from 16 on, in which half of that, and so on

To the logarithm of those odds, decisions before the rest add a correction for each context that the symbol is in: how
large its neighbours are, as such and against what their rows expect, its channel, the channels before. Each correction
follows the gradient of the codelength, as the constant input of a logistic mixer does (`mixing.py`); all begin at 0, so
nothing depends on how a model was trained. A tile is coded alone, in one lane, pass by pass. Integers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.intervals import Stream, open_stream
from laconic.entropy.pmf import TOTAL
from laconic.entropy.tables import Tables
from laconic.models.mixing import (
    I32,
    I64,
    UNIT,
    WITHOUT_NRT,
    code,
    decoder,
    encoder,
    finish_decoder,
    kernel,
    log_ratio,
    push_tapes,
    squash,
)

CALM = -6 * UNIT  # a row that says 0 so surely is believed: contexts are not looked at
RATE, SIGN_RATE = 3, 5  # a correction moves by this times the error; both are in 1/2**24 nat
CORRECTION_LIMIT = 1 << 27
FIRST_REST = 16  # sizes from here on are coded by the row alone
LAST_OCTAVE = 1 << 14  # sizes are below twice that
MOST_DECISIONS = 2 + FIRST_REST + 24  # of a symbol
RATIOS = ((7, 20), (3, 5), (17, 20), (23, 20), (8, 5), (5, 2))  # bounds of what came over what was expected
LITTLE = 77  # is added to both: 0.3 of a symbol
MARGIN = 2  # samples around the planes
SETS, EVEN_MORE = 3, 2  # of corrections: for zero, for more than 1, and for more than 2 or any larger size


class Prior(NamedTuple):
    """Holds what table rows say. zero, sign: int32 [rows], log-odds. expected: int64 [rows], the mean size, in 1/256.

    masses: int64 [rows, 2, width], of 2**16: symbols of at least this size, below 0 and above; 0 beyond a row's end.
    """

    zero: NDArray[np.int32]
    sign: NDArray[np.int32]
    expected: NDArray[np.int64]
    masses: NDArray[np.int64]


class State(NamedTuple):
    """Holds the symbols so far and all corrections.

    sizes, expected: int32 [channels * (height + 4) * (width + 4)], of symbols, in 1/256; 0 where there is none yet. signed:
    int16, likewise, the symbols. at_places: int64 [2 * height * width], sums of both in this pass, over channels.
    in_channels: int64 [2 * channels], in all passes. corrections: int32. contexts, sign_contexts: int64 [5], [3], places
    of a symbol among them.
    """

    sizes: NDArray[np.int32]
    expected: NDArray[np.int32]
    signed: NDArray[np.int16]
    at_places: NDArray[np.int64]
    in_channels: NDArray[np.int64]
    corrections: NDArray[np.int32]
    contexts: NDArray[np.int64]
    sign_contexts: NDArray[np.int64]
    coder: NDArray[np.uint64]


class Shape(NamedTuple):
    """Holds the size of a tile of y."""

    channels: int
    height: int
    width: int


def encode(passes: list[tuple[NDArray[np.int16], NDArray[np.uint8]]], shape: Shape, tables: Tables) -> bytes:
    """Return the payload of a tile: its four passes, each the symbols, int16 [N] within +-32767, and their table rows.

    Both are in the order [channel, row, column].
    """
    coder, tapes = encoder(), []
    tile = Tile.of(shape, tables, coder)
    for n, (symbols, rows) in enumerate(passes):
        tape = np.empty(most_decisions(symbols), np.uint32)
        coder[1] = 0
        tile.code(n, symbols.copy(), rows, tape)
        tapes.append(tape[: int(coder[1])])
    return push_tapes(tapes)


def most_decisions(symbols: NDArray[np.int16]) -> int:
    """Return how many decisions these symbols can take: one that says 0, or two and one for each size that is asked for."""
    sizes = np.abs(symbols.astype(np.int64))
    large = int((sizes >= FIRST_REST).sum())
    return len(sizes) + int((sizes > 0).sum()) + int(np.minimum(sizes, FIRST_REST).sum()) + MOST_DECISIONS * large


@dataclass(frozen=True)
class Decoder:
    """Decodes a tile, pass by pass: the rows of a pass may depend on the symbols of those before."""

    tile: Tile
    stream: Stream
    tape: NDArray[np.uint32]

    @classmethod
    def of(cls, data: bytes | memoryview, shape: Shape, tables: Tables) -> Decoder:
        """Open the payload of a tile. Raises BadFile."""
        n = shape.channels * shape.height * shape.width * MOST_DECISIONS
        stream, end = open_stream(data, n)
        expect(len(stream.states) == 1, BadFile, "lanes of mixed y", len(stream.states), "1")
        expect(end == len(data), BadFile, "mixed y chunk", f"{len(data) - end} bytes more", "the end")
        coder, tape = decoder(stream)
        return cls(Tile.of(shape, tables, coder), stream, tape)

    def next_pass(self, n: int, rows: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Return the symbols of pass n, int16, as many as there are rows. Raises BadFile."""
        symbols = np.zeros(len(rows), np.int16)
        self.tile.code(n, symbols, rows, self.tape)
        read, there = int(self.tile.state.coder[1]), len(self.stream.words) - 1
        expect(read <= there, BadFile, "words of mixed y", there, f"at least {read}")
        return symbols

    def finish(self) -> None:
        """Raise BadFile unless all was read."""
        finish_decoder(self.stream, self.tile.state.coder)


@dataclass(frozen=True)
class Tile:
    """Holds what codes a tile, in either direction."""

    shape: Shape
    prior: Prior
    state: State

    @classmethod
    def of(cls, shape: Shape, tables: Tables, coder: NDArray[np.uint64]) -> Tile:
        """Make the state before the first symbol."""
        m, h, w = shape
        n = m * (h + 2 * MARGIN) * (w + 2 * MARGIN)
        sizes, expected, signed = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int16)
        corrections = np.zeros(SETS * set_size(m) + 81 + 10 * m, np.int32)
        places, channels = np.zeros(2 * h * w, np.int64), np.zeros(2 * m, np.int64)
        contexts, sign_contexts = np.zeros(5, np.int64), np.zeros(3, np.int64)
        rooms = sizes, expected, signed, places, channels, corrections, contexts, sign_contexts
        return cls(shape, prior_of(tables), State(*rooms, coder))

    def code(self, n: int, symbols: NDArray[np.int16], rows: NDArray[np.uint8], tape: NDArray[np.uint32]) -> None:
        """Code the symbols of pass n to the tape, or set them to what the tape says."""
        self.state.at_places[:] = 0
        code_pass(n, *self.shape, symbols, rows, self.prior, self.state, tape)


def prior_of(tables: Tables) -> Prior:
    """Return what table rows say of each decision."""
    n, entries = len(tables.sizes), np.diff(tables.cdf.astype(np.int64), axis=1)
    lasts = np.maximum([-tables.offsets, tables.offsets + tables.sizes - 2], 0).astype(np.int64)
    masses = np.zeros((n, 2, min(int(lasts.max()), 2 * LAST_OCTAVE) + 3), np.int64)
    expected, at_zero = np.zeros((2, n), np.int64)
    for row, (first, size) in enumerate(zip(tables.offsets.tolist(), tables.sizes.tolist(), strict=True)):
        own, escape, symbols = entries[row, : size - 1], int(entries[row, size - 1]), np.arange(size - 1) + first
        at_zero[row] = own[symbols == 0].sum()
        expected[row] = (int((np.abs(symbols) * own).sum()) + escape * (int(lasts[:, row].max()) + 1)) >> 7
        for side, sizes in enumerate((-symbols, symbols)):
            masses[row, side] = from_each_size(sizes, own, escape, int(lasts[side, row]), masses.shape[2])
    zero, sign = np.zeros((2, n), np.int32)
    fill_odds(at_zero, masses, zero, sign)
    return Prior(zero, sign, expected, masses)


def from_each_size(
    sizes: NDArray[Any], own: NDArray[Any], escape: int, last: int, width: int
) -> NDArray[np.int64]:
    """Return twice the masses of the sizes from 0, 1, ... width - 1 on and the escape's, up to last + 1; then 0.

    sizes: of a row's symbols, those of the other side below 0. own: their masses.
    """
    right = (sizes > 0) & (sizes < width)
    counts = np.bincount(sizes[right], own[right], width).astype(np.int64)
    return np.where(np.arange(width) <= min(last + 1, width - 2), 2 * counts[::-1].cumsum()[::-1] + escape, 0)


@numba.njit(cache=True, nogil=True, **WITHOUT_NRT)
def fill_odds(at_zero, masses, zero, sign):  # type: ignore[no-untyped-def]
    """Set the log-odds of a symbol not 0, and of a positive one."""
    for row in range(zero.size):
        zero[row] = odds(I64(TOTAL) - at_zero[row], at_zero[row])
        sign[row] = odds(masses[row, 1, 1], masses[row, 0, 1])


@numba.njit(cache=True, nogil=True, **WITHOUT_NRT)
def code_pass(n, channels, height, width, symbols, rows, prior, state, tape):  # type: ignore[no-untyped-def]
    """Code or decode the symbols of pass n, in the order [channel, row, column]."""
    i = I64(0)
    for c in range(channels):
        place = n ^ (c & 3)
        top = place & 1
        for y in range(top, height, 2):
            for x in range((place >> 1) ^ top, width, 2):
                i = code_place(i, c, y, x, channels, height, width, symbols, rows, prior, state, tape)


@kernel
def code_place(i, c, y, x, channels, height, width, symbols, rows, prior, state, tape) -> Any:  # type: ignore[no-untyped-def]
    """Code symbol i, or decode it, and take note of it. Returns the next i."""
    row, stride = I64(rows[i]), I64(width + 2 * MARGIN)
    plane = stride * I64(height + 2 * MARGIN)
    at, spot = c * plane + (y + MARGIN) * stride + x + MARGIN, 2 * (y * width + x)
    mixed = prior.zero[row] >= CALM
    if mixed:
        choose_contexts(at, c, spot, stride, plane, channels, state)
    s = code_symbol(I64(symbols[i]), row, mixed, channels, prior, state, tape)
    symbols[i] = s
    state.signed[at], state.sizes[at], state.expected[at] = s, abs(s), prior.expected[row]
    state.at_places[spot] += abs(s)
    state.at_places[spot + 1] += prior.expected[row]
    state.in_channels[2 * c] += abs(s)
    state.in_channels[2 * c + 1] += prior.expected[row]
    return i + 1


@kernel
def choose_contexts(at: int, c: int, spot: int, stride: int, plane: int, channels: int, state: State) -> None:
    """Find the places of a symbol's corrections, within a set."""
    sizes, expected, s = state.sizes, state.expected, state.signed
    near = causal(sizes, at, stride)
    cross = sizes[at - 1] + sizes[at + 1] + sizes[at - stride] + sizes[at + stride]
    around = 2 * cross + corners(sizes, at, stride)
    to_come = expected[at - 1] + expected[at + 1] + expected[at - stride] + expected[at + stride]
    of_near, of_around = ratio(near, causal(expected, at, stride)), ratio(around, 2 * to_come + corners(expected, at, stride))
    of_place = ratio(state.at_places[spot], state.at_places[spot + 1])
    of_channel = ratio(state.in_channels[2 * c], state.in_channels[2 * c + 1])
    one = sizes[at - 4 * plane] if c >= 4 else I64(0)
    two = sizes[at - 8 * plane] if c >= 8 else I64(0)
    pair = sizes[at - 2] + sizes[at - 2 * stride]
    found, first = state.contexts, I64(channels)
    found[0] = c
    found[1] = first + of_near * 49 + of_around * 7 + of_place
    found[2] = first + 343 + min(near, I64(15)) * 16 + min(around, I64(15))
    found[3] = first + 343 + 256 + of_channel * 16 + min(one, I64(3)) * 4 + min(two, I64(3))
    found[4] = first + 343 + 256 + 112 + c * 9 + min(pair, I64(2)) * 3 + min(cross, I64(2))
    before = sign_of(s[at - 2 * stride]) * 3 + sign_of(s[at - 2])
    beside = sign_of(s[at - stride] + s[at + stride]) * 3 + sign_of(s[at - 1] + s[at + 1])
    found, first = state.sign_contexts, I64(SETS) * set_size(channels)
    found[0], found[1], found[2] = first + before * 9 + beside, first + 81 + c, first + 81 + channels + c * 9 + beside


@kernel
def set_size(channels: int) -> Any:
    """Return how many corrections the decisions of a kind have."""
    return I64(channels) * 10 + 343 + 256 + 112


@kernel
def causal(values: NDArray[np.int32], at: int, stride: int) -> Any:
    """Return the sum over what the pass has coded around: twice left and above, once both corners above."""
    up = at - 2 * stride
    return 2 * (values[at - 2] + values[up]) + values[up - 2] + values[up + 2]


@kernel
def corners(values: NDArray[np.int32], at: int, stride: int) -> Any:
    """Return the sum over the four next samples on the diagonals."""
    return values[at - stride - 1] + values[at - stride + 1] + values[at + stride - 1] + values[at + stride + 1]


@kernel
def ratio(came: int, expected: int) -> Any:
    """Return the class, 0 to 6, of sizes that came over what their rows expected, the latter in 1/256."""
    a, b = came * 256 + LITTLE, expected + LITTLE
    found = I64(0)
    for over, under in RATIOS:
        found += I64(a * under >= b * over)
    return found


@kernel
def sign_of(s: int) -> Any:
    """Return 0 for 0, 1 for a positive number, 2 for a negative one."""
    return I64(s > 0) + 2 * I64(s < 0)


@kernel
def code_symbol(
    s: int, row: int, mixed: bool, channels: int, prior: Prior, state: State, tape: NDArray[np.uint32]
) -> Any:
    """Code a symbol, or decode it. Returns it."""
    if not decide(I64(s != 0), prior.zero[row], I64(0), RATE, mixed, state.contexts, state, tape):
        return I64(0)
    positive = decide(I64(s > 0), prior.sign[row], I64(0), SIGN_RATE, mixed, state.sign_contexts, state, tape)
    size = code_size(abs(s), row, positive, mixed, channels, prior, state, tape)
    return size if positive else -size


@kernel
def code_size(
    size: int, row: int, side: int, mixed: bool, channels: int, prior: Prior, state: State, tape: NDArray[np.uint32]
) -> Any:
    """Code the size, 1 or more, of a symbol of a sign, or decode it. Returns it."""
    k = I64(1)
    while k < FIRST_REST:
        x, kind = larger(k, k + 1, row, side, prior), min(k, I64(EVEN_MORE))
        if not decide(I64(size > k), x, kind * set_size(channels), RATE, mixed, state.contexts, state, tape):
            return k
        k += 1
    return code_rest(size, row, side, prior, state, tape)


@kernel
def code_rest(size: int, row: int, side: int, prior: Prior, state: State, tape: NDArray[np.uint32]) -> Any:
    """Code a size from FIRST_REST on by the row alone: its octave, and then halves of that. Returns it."""
    low = I64(FIRST_REST)
    while low < LAST_OCTAVE:
        if not code(state.coder, tape, I64(size >= 2 * low), squash(larger(low, 2 * low, row, side, prior))):
            break
        low *= 2
    high = 2 * low
    while high - low > 1:
        middle = (low + high) >> 1
        cut = mass(middle, row, side, prior)
        x = odds(cut - mass(high, row, side, prior), mass(low, row, side, prior) - cut)
        if code(state.coder, tape, I64(size >= middle), squash(x)):
            low = middle
        else:
            high = middle
    return low


@kernel
def larger(low: int, cut: int, row: int, side: int, prior: Prior) -> Any:
    """Return the log-odds that a size of at least `low` is at least `cut`, as the row has it."""
    above = mass(cut, row, side, prior)
    return odds(above, mass(low, row, side, prior) - above)


@kernel
def mass(size: int, row: int, side: int, prior: Prior) -> Any:
    """Return the mass of the sizes from this one on."""
    return prior.masses[row, side, min(I64(size), I64(prior.masses.shape[2] - 1))]


@kernel
def odds(yes: int, no: int) -> Any:
    """Return the log-odds of two masses; what has none has the least there is."""
    return I64(log_ratio(max(I64(yes), I64(1)), max(I64(no), I64(1))))


@kernel
def decide(
    bit: int,
    x: int,
    first: int,
    rate: int,
    mixed: bool,
    contexts: NDArray[np.int64],
    state: State,
    tape: NDArray[np.uint32],
) -> Any:
    """Code a bit, or decode it, with the log-odds x and, where mixed, their corrections, which learn it. Returns it."""
    if not mixed:
        return code(state.coder, tape, bit, squash(x))
    corrections, total = state.corrections, I64(0)
    for k in range(contexts.size):
        total += I64(corrections[first + contexts[k]])
    p = squash(x + (total >> 16))
    bit = code(state.coder, tape, bit, p)
    step = ((bit << 16) - p) * rate
    for k in range(contexts.size):
        moved = I64(corrections[first + contexts[k]]) + step
        corrections[first + contexts[k]] = I32(min(max(moved, I64(-CORRECTION_LIMIT)), I64(CORRECTION_LIMIT)))
    return bit
