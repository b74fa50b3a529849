"""Adaptive models of 2 and of 16 symbols: integers that learn while they code, alike in encoder and decoder.

A row is the CDF of a context, of 2**15. It moves towards each symbol seen, at two rates: the fast CDF follows changes,
the slow one is exact where nothing changes, and their mean codes (Giesen, "Mixing discrete probability distributions",
2015; two rates as in VVC's CABAC). The 16-ary form is one vector of 16 x uint16: its search is a comparison and a
count, its update three instructions. Larger alphabets are trees of rows, a digit of the symbol after the other.

`code16`, `read16`, `code2` and `read2` are for other kernels to inline; `encode` and `decode` are whole coders of them. The
plain form of all this, `Row` and `encode_plain`, is in tests/entropy/test_adaptive.py.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.blocks import LANES, flat
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import open_stream, write_stream
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.rans import START
from laconic.entropy.rans_numba import I64, INVERSES, U16, U32, U64, pop, push_packed
from laconic.entropy.tables import checked
from laconic.entropy.vectors import SIXTEEN, means_at_most, step_towards

Short = NDArray[np.uint16]

FAST, SLOW = 5, 7  # a CDF moves by 2**-rate of the way
ARY = SIXTEEN
ROW16 = 2 * ARY  # uint16 per row: the fast CDF's lower bounds, then the slow one's
ROW2 = 2  # likewise for 2 symbols: the bound between them, fast and slow
LAST = TOTAL - 1
MAX_ROWS = 1 << 20
LINE = 32  # uint16 in a cache line
# Row s holds the lower bounds of the CDF that gives each symbol a mass of 1, and s all the rest. A CDF that steps
# towards it keeps its masses at 1 or more: between two bounds d apart, whose targets are 1 or more apart, a step takes
# d - 1 at most.
TARGETS = np.arange(ARY) + np.where(np.arange(ARY) > np.arange(ARY)[:, None], TOTAL - ARY, 0)
FLAT_TARGETS = TARGETS.astype(np.uint16).ravel()


def encode(symbols: ArrayLike, alphabet: int, order: int = 1, strips: int = 1) -> bytes:
    """Code symbols in contexts of the symbols before them, learnt on the way.

    symbols: integers [N] in 0..alphabet - 1. alphabet: 2 to 65,536. order: how many symbols before make the context.
    strips: 1, 4, 8 or 32 equal parts, a model and a lane each: up to twice as fast, and larger by what each has to
    learn. Raises BadInput, also where alphabet, order and strips need more than 2**20 rows.
    """
    values = checked(symbols, "symbols", 0, alphabet).astype(np.uint16)
    expect(strips in LANES, BadInput, "strips", strips, f"one of {LANES}")
    tree = Tree.of(alphabet, order)
    expect(tree.fits(strips), BadInput, "strips", strips, f"fewer: {MAX_ROWS} rows are the most")
    parts = np.zeros((strips, -(-len(values) // strips)), np.uint16)
    parts.ravel()[: len(values)] = values
    intervals = np.empty(parts.size * tree.digits, np.uint32)
    code_all(parts, astuple(tree), tree.rows(strips), FLAT_TARGETS, intervals)
    states, words = np.full(strips, START, np.uint32), np.empty(len(intervals), np.uint16)
    begin = push_packed(intervals, tree.digits, INVERSES, states, words)
    return write_stream(states, words[begin:])


def decode(data: bytes | memoryview, n: int, alphabet: int, order: int = 1) -> NDArray[np.uint16]:
    """Return the n symbols that `encode` was given, with the same alphabet and order. Raises BadFile on damage."""
    expect(n >= 0, BadInput, "n", n, "0 or more")
    tree = Tree.of(alphabet, order)
    raw = flat(data)
    stream, end = open_stream(raw, (n + max(LANES)) * tree.digits)
    expect(end == len(raw), BadFile, "coded symbols", f"{len(raw) - end} bytes more", "the end")
    strips = len(stream.states)
    expect(tree.fits(strips), BadFile, "strips", strips, f"fewer: {MAX_ROWS} rows are the most")
    out = np.empty((strips, -(-n // strips)), np.uint16)
    stream.finish(read_all(out, astuple(tree), tree.rows(strips), FLAT_TARGETS, stream.states, stream.words))
    symbols = out.ravel()[:n]
    expect(int(symbols.max(initial=0)) < alphabet, BadFile, "symbol", int(symbols.max(initial=0)), f"below {alphabet}")
    return symbols


@dataclass(frozen=True)
class Tree:
    """Says how a symbol is cut: into digits of `bits` each, the highest one first.

    nodes: rows of a context, one for the first digit, one for the second after each first, ... contexts: a power of
    two.
    """

    bits: int
    digits: int
    symbol_bits: int
    nodes: int
    contexts: int

    @classmethod
    def of(cls, alphabet: int, order: int) -> Tree:
        """Return the tree for an alphabet in contexts of `order` symbols. Raises BadInput where that is too large."""
        expect(2 <= alphabet <= 1 << 16, BadInput, "alphabet", alphabet, "2 to 65536")
        symbol_bits = (alphabet - 1).bit_length()
        most = (MAX_ROWS.bit_length() - 1) // symbol_bits
        expect(0 <= order <= most, BadInput, "order", order, f"0 to {most} with an alphabet of {alphabet}")
        bits = 1 if alphabet == 2 else 4
        digits = -(-symbol_bits // bits)
        tree = cls(bits, digits, symbol_bits, ((1 << bits * digits) - 1) // ((1 << bits) - 1), 1 << symbol_bits * order)
        expect(tree.fits(1), BadInput, "order", order, f"less: {tree.nodes * tree.contexts} rows, at most {MAX_ROWS}")
        return tree

    def fits(self, strips: int) -> bool:
        """Say whether so many strips keep to MAX_ROWS."""
        return strips * self.nodes * self.contexts <= MAX_ROWS

    def rows(self, strips: int) -> NDArray[np.uint16]:
        """Return rows for each node of each context of each strip, flat: all symbols alike, and a spare row at the end."""
        row = np.tile(np.arange(ARY) * (TOTAL // ARY), 2) if self.bits == 4 else np.full(ROW2, TOTAL // 2)
        n = (strips * self.contexts * self.nodes + 1) * len(row)
        space = np.empty(n + LINE, np.uint16)
        first = -space.__array_interface__["data"][0] % (2 * LINE) // 2
        rows = space[first : first + n]  # a row of 32 fills a cache line
        rows.reshape(-1, len(row))[:] = row
        return rows


@numba.njit(cache=True, nogil=True)
def code_all(parts: Short, tree: tuple[int, ...], rows: Short, targets: Short, intervals: NDArray[np.uint32]) -> None:
    """Run the models over parts [strips, n]. Intervals are packed: all digits of symbol 0 of each strip, then of 1."""
    bits, digits, symbol_bits, nodes, n_contexts = tree
    width, mask, last_context = U64(ROW16 if bits == 4 else ROW2), U64((1 << bits) - 1), U64(n_contexts - 1)
    strips, n, place = parts.shape[0], parts.shape[1], U64(0)
    contexts = np.zeros(strips, np.uint64)
    for i in range(n):
        for s in range(strips):
            symbol, node = U64(parts[s, i]), U64(0)
            root = (U64(s) * U64(n_contexts) + contexts[s]) * U64(nodes)
            for d in range(digits):
                digit = (symbol >> U64(bits * (digits - 1 - d))) & mask
                at = (root + node) * width
                start, freq = code16(rows, at, targets, digit) if bits == 4 else code2(rows, at, digit)
                intervals[place] = start | (freq - U32(1)) << U32(PRECISION)
                place += U64(1)
                node = (node << U64(bits)) + digit + U64(1)
            contexts[s] = (contexts[s] << U64(symbol_bits) | symbol) & last_context


@numba.njit(cache=True, nogil=True)
def read_all(
    out: Short, tree: tuple[int, ...], rows: Short, targets: Short, states: NDArray[np.uint32], words: Short
) -> Any:
    """Do the reverse of `code_all` and of coding its intervals. Returns how many words it read."""
    bits, digits, symbol_bits, nodes, n_contexts = tree
    width, last_context = U64(ROW16 if bits == 4 else ROW2), U64(n_contexts - 1)
    strips, n, cursor = out.shape[0], out.shape[1], U64(0)
    contexts = np.zeros(strips, np.uint64)
    for i in range(n):
        for s in range(strips):
            symbol, node, x = U64(0), U64(0), states[s]
            root = (U64(s) * U64(n_contexts) + contexts[s]) * U64(nodes)
            for _ in range(digits):
                slot, at = x & U32(LAST), (root + node) * width
                digit, start, freq = read16(rows, at, targets, slot) if bits == 4 else read2(rows, at, slot)
                x, cursor = pop(x, start, freq, words, cursor)
                symbol = symbol << U64(bits) | digit
                node = (node << U64(bits)) + digit + U64(1)
            states[s], out[s, i] = x, U16(symbol)
            contexts[s] = (contexts[s] << U64(symbol_bits) | symbol) & last_context
    return I64(cursor)


@numba.njit(cache=True, nogil=True)
def code16(rows: Short, at: int, targets: Short, symbol: int) -> Any:
    """Return the interval (start, freq) of a symbol in the row of 32 at `at`, which learns it. All are unsigned."""
    start, freq = interval(rows, at, symbol)
    learn(rows, at, targets, symbol)
    return start, freq


@numba.njit(cache=True, nogil=True)
def read16(rows: Short, at: int, targets: Short, slot: int) -> Any:
    """Return (symbol, start, freq): the symbol whose interval holds a slot of 2**15. The row learns it."""
    symbol = means_at_most(rows, at, U16(slot)) - U64(1)
    start, freq = interval(rows, at, symbol)
    learn(rows, at, targets, symbol)
    return symbol, start, freq


@numba.njit(cache=True, nogil=True)
def interval(rows: Short, at: int, symbol: int) -> Any:
    """Return (start, freq). The bound after the last is the next row's first, 0, which is 2**15 modulo 2**15."""
    place = at + symbol
    start = (U32(rows[place]) + U32(rows[place + U64(ARY)])) >> U32(1)
    end = (U32(rows[place + U64(1)]) + U32(rows[place + U64(ARY + 1)])) >> U32(1)
    return start, (end - start) & U32(LAST)


@numba.njit(cache=True, nogil=True)
def learn(rows: Short, at: int, targets: Short, symbol: int) -> None:
    """Let both CDFs of a row step towards a symbol."""
    for n, rate in ((0, FAST), (1, SLOW)):
        step_towards(rows, at + U64(ARY * n), targets, symbol * U64(ARY), U16(rate))


@numba.njit(cache=True, nogil=True)
def code2(rows: Short, at: int, symbol: int) -> Any:
    """Do as `code16` does, for symbols 0 and 1 and rows of 2."""
    middle = (U32(rows[at]) + U32(rows[at + U64(1)])) >> U32(1)
    target = I64(1) if symbol else I64(LAST)
    for rate in (FAST, SLOW):
        place = at + U64(rate == SLOW)
        rows[place] = U16(I64(rows[place]) + ((target - I64(rows[place])) >> rate))
    return (middle, U32(TOTAL) - middle) if symbol else (U32(0), middle)


@numba.njit(cache=True, nogil=True)
def read2(rows: Short, at: int, slot: int) -> Any:
    """Do as `read16` does, for symbols 0 and 1 and rows of 2."""
    symbol = U64(slot >= (U32(rows[at]) + U32(rows[at + U64(1)])) >> U32(1))
    start, freq = code2(rows, at, symbol)
    return symbol, start, freq
