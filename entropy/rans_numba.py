"""rANS kernels in numba: the bytes of `rans.py`, compiled at the first call, the GIL released.

They read the tables as `rans_simd.py` does; tables that are too wide for that go through the plain reference.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy import rans
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.rans import START
from laconic.entropy.tables import BIN_BITS, CHUNK, Tables, chunks

U32, U64, I64 = numba.uint32, numba.uint64, numba.int64
BIN_SHIFT = PRECISION - BIN_BITS
LOW = TOTAL - 1  # 15 bits
CHUNK_SHIFT = CHUNK.bit_length() - 1


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """As `rans.encode_block`."""
    lut = tables.encode_lut
    if lut is None:
        return rans.encode_block(symbols, indices, tables, n_lanes)
    states = np.full(n_lanes, START, np.uint32)
    words = np.empty(len(symbols), np.uint16)  # one word a symbol at most
    flags = np.zeros(len(symbols) // CHUNK + 1, np.uint8)
    first = push_all(symbols, indices, lut.intervals, lut.low, lut.high, states, words, flags)
    return states.tolist(), words[first:], tables.escapes(symbols, indices, chunks(flags, len(symbols)))


def decode_block(
    states: list[int], words: NDArray[np.uint16], indices: NDArray[Any], tables: Tables, out: NDArray[np.int16]
) -> NDArray[np.int64]:
    """As `rans.decode_block`."""
    lut = tables.decode_lut
    if lut is None:
        return rans.decode_block(states, words, indices, tables, out)
    lanes, flags = np.array(states, np.uint32), np.zeros(len(indices) // CHUNK + 1, np.uint8)
    cursor = pop_all(words, indices, lut, tables.cdf, tables.offsets, lanes, out, flags)
    expect(cursor >= 0, BadFile, "words", len(words), "more: the stream ends early")
    expect(cursor == len(words), BadFile, "words", len(words), f"{cursor}, as the symbols need")
    expect(bool((lanes == START).all()), BadFile, "final states", "another state", "the start state in every lane")
    return tables.escaped(out, indices, chunks(flags, len(indices)))


@numba.njit(cache=True, nogil=True)
def push_all(symbols, indices, intervals, low, high, states, words, flags):  # type: ignore[no-untyped-def]
    """Code backward; returns where the words begin. Rows were checked by `encode`."""
    n, lanes = I64(symbols.size), I64(states.size)
    cursor = I64(words.size)
    for row in range((n - 1) // lanes, -1, -1):
        first = row * lanes
        for lane in range(min(lanes, n - first) - 1, -1, -1):
            i = first + lane
            interval = U32(intervals[indices[i], min(max(I64(symbols[i]), low), high) - low])
            flags[i >> CHUNK_SHIFT] |= np.uint8(interval >> U32(31))
            start = U32(interval & U32(LOW))
            freq = U32(((interval >> U32(PRECISION)) & U32(LOW)) + U32(1))
            x = U32(states[lane])
            if x >> U32(32 - PRECISION) >= freq:
                cursor -= 1
                words[cursor] = np.uint16(x & U32(0xFFFF))
                x = U32(x >> U32(16))
            q = U32(np.int64(np.float64(x) / np.float64(freq)))  # exact: x / freq is 2**-15 or more below q + 1, q < 2**17
            states[lane] = U32((q << U32(PRECISION)) + start + (x - q * freq))
    return cursor


@numba.njit(cache=True, nogil=True)
def pop_all(words, indices, bins, cdf, offsets, states, out, flags):  # type: ignore[no-untyped-def]
    """Decode forward; returns the words read, or -1 where they run out."""
    n, lanes = I64(indices.size), I64(states.size)
    cursor = I64(0)
    for row in range((n + lanes - 1) // lanes):
        first = row * lanes
        for lane in range(min(lanes, n - first)):
            i = first + lane
            table = I64(indices[i])
            x = U32(states[lane])
            slot = U32(x & U32(LOW))
            two = U64(bins[table, I64(slot >> U32(BIN_SHIFT))])  # see `Tables.decode_lut`
            start = U32(two >> U64(16) & U64(0xFFFF))
            end = U32((two >> U64(32) & U64(LOW)) + U64(1))
            symbol = I64(two) >> I64(48)
            escape = U64(two >> U64(47) & U64(1))
            if slot < start:  # the first of the bin, not the second
                start, end = U32(two & U64(LOW)), start
                symbol -= 1
                escape = U64(0)
            elif slot >= end:  # further on
                entry = symbol - I64(offsets[table])
                while slot >= end:  # ends: the last entry's upper bound is 2**15
                    entry += 1
                    start, end = end, U32(cdf[table, entry + 1])
                symbol = entry + I64(offsets[table])
                escape = U64(end == U32(TOTAL))
            flags[i >> CHUNK_SHIFT] |= np.uint8(escape)
            x = U32(U32(end - start) * U32(x >> U32(PRECISION)) + slot - start)
            if x < U32(START):
                if cursor >= words.size:
                    return I64(-1)
                x = U32((x << U32(16)) | U32(words[cursor]))
                cursor += 1
            states[lane] = x
            out[i] = np.int16(symbol)
    return cursor
