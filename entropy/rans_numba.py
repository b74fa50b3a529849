"""rANS kernels in numba: the bytes of `rans.py`, compiled at the first call, the GIL released."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.rans import START
from laconic.entropy.tables import BIN_BITS, Tables

U32, U64, I64 = numba.uint32, numba.uint64, numba.int64
BIN_SHIFT = PRECISION - BIN_BITS
MASK = TOTAL - 1


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """As `rans.encode_block`."""
    rows = indices.astype(np.int32)
    entries = tables.entries(symbols, rows)
    states = np.full(n_lanes, START, np.uint32)
    words = np.empty(len(entries), np.uint16)  # one word a symbol at most
    first = push_all(entries, rows, tables.cdf, states, words)
    return states.tolist(), words[first:], np.flatnonzero(entries == tables.sizes[rows] - 1)


def decode_block(
    states: list[int], words: NDArray[np.uint16], indices: NDArray[Any], tables: Tables, out: NDArray[np.int16]
) -> NDArray[np.int64]:
    """As `rans.decode_block`."""
    lanes = np.array(states, np.uint32)
    symbols = np.empty(len(indices), np.int32)
    cursor = pop_all(words, indices.astype(np.int32), tables.cdf, tables.offsets, tables.bins, lanes, symbols)
    expect(cursor >= 0, BadFile, "words", len(words), "more: the stream ends early")
    expect(cursor == len(words), BadFile, "words", len(words), f"{cursor}, as the symbols need")
    expect(bool((lanes == START).all()), BadFile, "final states", "another state", "the start state in every lane")
    out[:] = symbols.astype(np.int16)
    return tables.escaped(symbols, indices)


@numba.njit(cache=True, nogil=True)
def push_all(entries, indices, cdf, states, words):  # type: ignore[no-untyped-def]
    """Code backward; returns where the words begin. Rows and entries were checked by `encode` and Tables."""
    lanes = I64(states.size)
    cursor = I64(words.size)
    lane = I64((entries.size - 1) % lanes)
    for i in range(entries.size - 1, -1, -1):
        row = I64(indices[i])
        entry = I64(entries[i])
        start = U32(cdf[row, entry])
        freq = U32(cdf[row, entry + 1] - start)
        x = U32(states[lane])
        if U64(x) >= U64(freq) << U64(32 - PRECISION):
            cursor -= 1
            words[cursor] = np.uint16(x & U32(0xFFFF))
            x = U32(x >> U32(16))
        q = U32(x // freq)
        states[lane] = U32((q << U32(PRECISION)) + start + (x - q * freq))
        lane = lane - 1 if lane > 0 else lanes - 1
    return cursor


@numba.njit(cache=True, nogil=True)
def pop_all(words, indices, cdf, offsets, bins, states, out):  # type: ignore[no-untyped-def]
    """Decode forward; returns the words read, or -1 where they run out."""
    lanes = I64(states.size)
    cursor = I64(0)
    lane = I64(0)
    for i in range(indices.size):
        row = I64(indices[i])
        x = U32(states[lane])
        slot = U32(x & U32(MASK))
        entry = I64(bins[row, I64(slot >> U32(BIN_SHIFT))])
        while U32(cdf[row, entry + 1]) <= slot:  # ends: the last entry's upper bound is 2**15
            entry += 1
        start = U32(cdf[row, entry])
        freq = U32(cdf[row, entry + 1] - start)
        x = U32(freq * U32(x >> U32(PRECISION)) + slot - start)
        if x < U32(START):
            if cursor >= words.size:
                return I64(-1)
            x = U32((x << U32(16)) | U32(words[cursor]))
            cursor += 1
        states[lane] = x
        out[i] = np.int32(I64(offsets[row]) + entry)
        lane = lane + 1 if lane + 1 < lanes else I64(0)
    return cursor
