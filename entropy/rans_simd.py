"""rANS in vector code: the bytes of `rans.py`, 32 lanes as two vectors of 16.

This module prepares what the kernels take: arrays by their addresses, a table's intervals, memory for words. The
kernels themselves are in `simd_text.py` (as LLVM text), `simd_lines.py` (what CPUs do differently) and `simd_engine.py`
(compiling).

What does not fill a row of 32 symbols goes through the plain reference; streams of fewer lanes go through numba, and so
does everything, after one warning, on a machine where there are no vector kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.entropy import blocks, rans, simd_engine
from laconic.entropy.blocks import RUN, RUNS, Backend, Coded, Positions, Rows, Symbols, Words
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.rans import START
from laconic.entropy.simd_engine import Kernels, kernels
from laconic.entropy.simd_text import LANES, PAD
from laconic.entropy.tables import EncodeLut, Tables
from laconic.entropy.threads import scratch

NATIVE = simd_engine.NATIVE
CPU = NATIVE  # the CPU whose kernels are used: tests and benchmarks set others


def encode_block(symbols: Symbols, indices: Rows, tables: Tables, n_lanes: int) -> Coded:
    """Code a block as `rans.encode_block` does. The words are valid until the thread's next call."""
    code, lut = kernels(CPU), lut16(tables)
    if n_lanes != LANES or code is None or lut is None:
        return numba_kernels().encode_block(symbols, indices, tables, n_lanes)
    (coded,) = encode_all(code, symbols, indices, tables, lut, 1)
    return coded


def encode_blocks(symbols: Symbols, indices: Rows, tables: Tables, n_blocks: int) -> list[Coded]:
    """Code neighbouring blocks, all of one size in whole rows of 32, in one call."""
    code, lut, size = kernels(CPU), lut16(tables), len(symbols) // n_blocks
    if code is None or lut is None:
        parts = [slice(k * size, (k + 1) * size) for k in range(n_blocks)]
        coded = [encode_block(symbols[part], indices[part], tables, LANES) for part in parts]
        return [(states, words.copy(), escapes) for states, words, escapes in coded]
    return encode_all(code, symbols, indices, tables, lut, n_blocks)


def decode_block(states: list[int], words: Words, indices: Rows, tables: Tables, out: Symbols) -> Positions:
    """Decode a block as `rans.decode_block` does. Raises BadFile on damage."""
    code, lut = kernels(CPU), tables.decode_lut
    if len(states) != LANES or code is None or lut is None:
        return numba_kernels().decode_block(states, words, indices, tables, out)
    padded = scratch(len(words) + PAD)
    padded[: len(words)] = words
    return decode_all(code, [states], [padded[: len(words)]], indices, tables, lut, out)


def decode_blocks(
    states: list[list[int]], words: list[Words], indices: Rows, tables: Tables, out: Symbols
) -> Positions:
    """Decode as many neighbouring blocks as there are states, all of one size in whole rows of 32, in one call.

    There is memory for PAD more words after those of each block. Returns where in `out` escapes stand. Raises BadFile.
    """
    code, lut, size = kernels(CPU), tables.decode_lut, len(out) // len(states)
    if code is None or lut is None:
        parts = [slice(k * size, (k + 1) * size) for k in range(len(states))]
        found = [
            k * size + decode_block(states[k], words[k], indices[part], tables, out[part])
            for k, part in enumerate(parts)
        ]
        return np.concatenate(found)
    return decode_all(code, states, words, indices, tables, lut, out)


def estimated_bytes(symbols: Symbols, indices: Rows, tables: Tables) -> NDArray[np.float64]:
    """Estimate the coded size of blocks [blocks, n] as `blocks.estimated_bytes` does, without the GIL."""
    code, lut = kernels(CPU), tables.encode_lut
    n_blocks, n = symbols.shape
    if code is None or lut is None or n_blocks == 0 or n <= RUNS * RUN:
        return blocks.estimated_bytes(symbols, indices, tables)
    step = n // RUNS | 1
    n_runs, costs, bits = n // step, lut.bits, np.empty(n_blocks)
    code.sample[indices.itemsize](
        *map(address, (symbols, indices, costs, bits)),
        *(n_blocks, n, n_runs, step, lut.intervals.shape[1], lut.low, lut.high),
    )
    n_bytes: NDArray[np.float64] = bits * n / (8 * RUN * n_runs)
    return n_bytes


def encode_all(
    code: Kernels, symbols: Symbols, indices: Rows, tables: Tables, lut: EncodeLut, n_blocks: int
) -> list[Coded]:
    """Code blocks of whole rows of 32, or one block of any length."""
    size = len(symbols) // n_blocks
    groups, room = size // LANES, PAD + size  # a block's words fill the end of its room: at most one per symbol
    words, states = scratch(n_blocks * room), np.full((n_blocks, LANES), START, np.uint32)
    begin = room
    if groups * LANES < size:  # coding runs backward, so the row that is not whole comes first
        states[0], tail, _ = rans.encode_block(symbols[groups * LANES :], indices[groups * LANES :], tables, LANES)
        begin -= len(tail)
        words[begin:] = tail
    flags, cursors = np.zeros(n_blocks * groups + 1, np.bool_), np.empty(n_blocks, np.int64)
    flags[-1] = groups * LANES < size
    low, high, pairs = max(lut.low, -(1 << 15)), min(lut.high, (1 << 15) - 1), lut.pairs  # as far as symbols can be
    first = address(pairs) + 8 * (low - lut.low)
    code.encode[indices.itemsize](
        *(address(symbols), address(indices), first, address(words), address(states), address(flags), address(cursors)),
        *(n_blocks, groups, room, begin, pairs.shape[1], low, high),
    )
    escapes = tables.escapes(symbols, indices, flags)
    places = np.searchsorted(escapes, size * np.arange(n_blocks + 1)).tolist()
    return [
        (states[k].tolist(), words[k * room + cursor : (k + 1) * room], escapes[places[k] : places[k + 1]] - k * size)
        for k, cursor in enumerate(cursors.tolist())
    ]


def decode_all(
    code: Kernels,
    states: list[list[int]],
    words: list[Words],
    indices: Rows,
    tables: Tables,
    lut: NDArray[np.uint64],
    out: Symbols,
) -> Positions:
    """Decode blocks of whole rows of 32, or one block of any length."""
    n_blocks, lanes = len(states), np.array(states, np.uint32)
    size = len(out) // n_blocks
    groups = size // LANES
    flags, cursors = np.zeros(n_blocks * groups + 1, np.bool_), np.empty(n_blocks, np.int64)
    flags[-1] = groups * LANES < size
    streams, lengths = np.array([address(w) for w in words], np.int64), np.array([len(w) for w in words], np.int64)
    code.decode[indices.itemsize](
        *map(address, (streams, indices, lut, tables.cdf, tables.offsets, lanes, out, flags, lengths, cursors)),
        *(tables.cdf.shape[1], n_blocks, groups),
    )
    for k, cursor in enumerate(cursors.tolist()):
        expect(cursor <= len(words[k]), BadFile, "words", len(words[k]), "more: the stream ends early")
    if groups * LANES < size:
        whole = groups * LANES
        rans.decode_block(lanes[0].tolist(), words[0][cursors[0] :], indices[whole:], tables, out[whole:])
    else:
        rans.expect_end(lanes, int(lengths.sum()), int(cursors.sum()))
    return tables.escaped(out, indices, flags)


def numba_kernels() -> Backend:
    """Import the kernels for all other streams: numba takes too long to import before it is needed."""
    from laconic.entropy import rans_numba

    return rans_numba


def lut16(tables: Tables) -> EncodeLut | None:
    """Return `Tables.encode_lut` if it exists and 16-bit symbols reach into it."""
    lut = tables.encode_lut
    return lut if lut and lut.low < 1 << 15 and lut.high >= -(1 << 15) else None


def address(array: NDArray[Any]) -> int:
    """Return the address of the first element. The caller must keep a reference while native code uses it."""
    assert array.flags.c_contiguous
    first: int = array.__array_interface__["data"][0]  # a tenth of the time that array.ctypes takes
    return first
