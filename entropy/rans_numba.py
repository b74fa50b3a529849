"""rANS kernels in numba: the bytes of `rans.py`, compiled at the first call, the GIL released (FORMAT.md, "Symbols").

    push_all, push_chunk, push_row   a block's symbols -> words        pop_all   words -> a block's symbols
    push_packed, push_all_wide       intervals that a model made -> words
    push, pop, push_wide, pop_wide   one symbol, for the kernels of models to inline

They read `Tables.encode_lut` and `Tables.decode_lut`; rows too wide for those go through the plain reference.

Why there is so much U32(...) and U64(...): numba takes uint32 and a plain integer to int64, uint64 and int64 to
float64, and looks at each signed index whether it is negative. All numbers here are unsigned, of the width that is
meant.
"""

from __future__ import annotations

import numba
import numpy as np

from laconic.entropy import rans
from laconic.entropy.blocks import Coded, Positions, Rows, Symbols, Words
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.rans import START, START_WIDE
from laconic.entropy.tables import BIN_BITS, GROUP, Tables
from laconic.entropy.threads import scratch

U16, U32, U64, I64, F32 = numba.uint16, numba.uint32, numba.uint64, numba.int64, numba.float32
BIN_SHIFT = PRECISION - BIN_BITS
LOW = TOTAL - 1  # a mask of 15 bits
GROUP_SHIFT, IN_GROUP = GROUP.bit_length() - 1, GROUP - 1
CHUNK = 32 * GROUP  # symbols whose intervals are looked up before they are coded
BELOW_1 = 1 - 2.0**-20
INVERSE_BITS = 47
INVERSES = np.append([0], -(-(1 << INVERSE_BITS) // np.arange(1, TOTAL + 1))).astype(
    np.uint64
)  # 2**47 / frequency, rounded up; see `push`


def encode_block(symbols: Symbols, indices: Rows, tables: Tables, n_lanes: int) -> Coded:
    """Code a block as `rans.encode_block` does. The words are valid until the thread's next call."""
    lut = tables.encode_lut
    if lut is None:
        return rans.encode_block(symbols, indices, tables, n_lanes)
    states = np.full(n_lanes, START, np.uint32)
    words = scratch(len(symbols))  # at most one word per symbol
    flags = np.zeros(len(symbols) // GROUP + 1, np.uint8)
    first = push_all(symbols, indices, lut.intervals, lut.low, lut.high, INVERSES, states, words, flags)
    return states.tolist(), words[first:], tables.escapes(symbols, indices, flags)


def decode_block(states: list[int], words: Words, indices: Rows, tables: Tables, out: Symbols) -> Positions:
    """Decode a block as `rans.decode_block` does. Raises BadFile on damage."""
    lut = tables.decode_lut
    if lut is None:
        return rans.decode_block(states, words, indices, tables, out)
    lanes, flags = np.array(states, np.uint32), np.zeros(len(indices) // GROUP + 1, np.uint8)
    padded = np.append(words, np.uint16(0))
    cursor = pop_all(padded, indices, lut, tables.cdf, tables.offsets, lanes, out, flags)
    rans.expect_end(lanes, len(words), cursor)
    return tables.escaped(out, indices, flags)


@numba.njit(cache=True, nogil=True)
def push_all(symbols, indices, intervals, low, high, inverses, states, words, flags):  # type: ignore[no-untyped-def]
    """Code a block backward; return where the words begin.

    symbols: int16 [n]. indices: unsigned [n], rows that `coder.encode` has checked.
    intervals, low, high: of `EncodeLut`.
    flags: of each GROUP of symbols, set to whether an escape is among them.
    A chunk's intervals are all looked up before the first of them is coded: a CPU's load does not overtake a store that
    may be to the same place, and coding stores words.
    """
    n, span = U64(symbols.size), U64(high - low)
    stride, places = U64(intervals.shape[1]), intervals.reshape(-1)
    found, cursor = np.empty(CHUNK, np.uint32), U64(words.size)
    n_chunks = (n + U64(CHUNK - 1)) // U64(CHUNK)
    for chunk in range(n_chunks):
        at = (n_chunks - U64(1) - chunk) * U64(CHUNK)
        size = min(n - at, U64(CHUNK))
        for group in range(U64(0), size, U64(GROUP)):
            seen = U32(0)
            for k in range(group, min(group + U64(GROUP), size)):
                place = min(U64(I64(symbols[at + k]) - low), span)  # a symbol below `low` wraps around: also clamped
                found[k] = places[place + U64(indices[at + k]) * stride]
                seen |= found[k]  # bit 31 marks the escape
            flags[(at + group) >> U64(GROUP_SHIFT)] = np.uint8(seen >> U32(31))
        cursor = push_chunk(found, size, inverses, states, words, cursor)
    return cursor


@numba.njit(cache=True, nogil=True)
def push_chunk(intervals, size, inverses, states, words, cursor):  # type: ignore[no-untyped-def]
    """Code intervals of `EncodeLut`, a row of all lanes at a time; return where the words begin.

    Only the last row, which comes first, may lack lanes: chunks begin at multiples of every number of lanes.
    """
    lanes, i = U64(states.size), U64(size)
    in_row = (i + lanes - U64(1)) % lanes + U64(1)
    low, over = np.empty(GROUP, np.uint16), np.empty(GROUP, np.uint8)
    while i > U64(0):
        i -= in_row
        if in_row == U64(GROUP):
            cursor = push_row(intervals, i, states, words, cursor, low, over)
        else:
            for k in range(in_row):
                lane = in_row - U64(1) - U64(k)
                interval = intervals[i + lane]
                start = U32(interval & U32(LOW))
                freq = U32(((interval >> U32(PRECISION)) & U32(LOW)) + U32(1))
                states[lane], cursor = push(states[lane], start, freq, inverses[U64(freq)], words, cursor)
        in_row = lanes
    return cursor


@numba.njit(cache=True, nogil=True)
def push_row(intervals, first, states, words, cursor, low, over):  # type: ignore[no-untyped-def]
    """Do `push` in 32 lanes: their states all at once, in a loop of which the compiler makes vectors, then their words.

    There is no vector division of integers. The quotient is below 2**17, so its float32 estimate, made 2**-20 too small
    on purpose, is right or one below in spite of three roundings of 2**-24 each; the rest tells which.
    low, over: memory for each lane's low word, and for whether it is written.
    """
    for lane in range(U64(GROUP)):
        x, interval = U32(states[lane]), intervals[first + lane]
        start, freq = U32(interval & U32(LOW)), U32(((interval >> U32(PRECISION)) & U32(LOW)) + U32(1))
        moves = x >> U32(32 - PRECISION) >= freq
        low[lane], over[lane] = U16(x & U32(0xFFFF)), np.uint8(moves)
        x = U32(x >> U32(16)) if moves else x
        q = U32(np.int32(F32(x) * (F32(BELOW_1) / F32(freq))))
        q += U32(U32(x - q * freq) >= freq)
        states[lane] = U32(q * (U32(TOTAL) - freq) + start + x)
    for k in range(U64(GROUP)):
        last = U64(GROUP - 1) - U64(k)
        words[cursor - U64(1)] = low[last]  # always stored, and stored over unless the cursor moves
        cursor -= U64(over[last])
    return cursor


@numba.njit(cache=True, nogil=True)
def push(x, start, freq, inverse, words, cursor):  # type: ignore[no-untyped-def]
    """Push an interval as `rans.push` does; return the state and the cursor. For kernels to inline.

    All are uint32 but the cursor and the inverse, INVERSES[freq], which are uint64. A word is always written below the
    cursor, so that there is no branch; it is written over unless the cursor moves.

    The quotient is exact. An inverse is less than 1 above 2**47 / freq and x below 2**32, so their product, over 2**47,
    is less than 2**-15 <= 1 / freq above x / freq: no integer lies in between. Since x < 2**17 freq, the product stays
    below 2**64.
    """
    over = x >> U32(32 - PRECISION) >= freq
    words[cursor - U64(1)] = U16(x & U32(0xFFFF))
    x = U32(x >> U32(16)) if over else x
    q = U32((U64(x) * inverse) >> U64(INVERSE_BITS))
    return U32(q * (U32(TOTAL) - freq) + start + x), cursor - U64(over)


@numba.njit(cache=True, nogil=True)
def pop_all(words, indices, bins, cdf, offsets, states, out, flags):  # type: ignore[no-untyped-def]
    """Decode a block forward; return how many words were read, which is more than there are if they ran out.

    words: with a spare one at the end. bins: `Tables.decode_lut`, which says what an entry is made of.
    states: of the lanes, moved on.
    out: int16 [n]. flags: of each GROUP of symbols, set to whether an escape is among them.
    """
    n, lanes, places = U64(indices.size), U64(states.size), bins.reshape(-1)
    cursor, i, seen = U64(0), U64(0), U32(0)
    while i < n:
        for k in range(min(lanes, n - i)):
            lane, table = U64(k), U64(indices[i])
            x = U32(states[lane])
            slot = U32(x & U32(LOW))
            # the bin of 64 slots knows the two symbols that it begins with: a below the boundary, b = a + 1 above it
            two = U64(places[(table << U64(BIN_BITS)) + U64(slot >> U32(BIN_SHIFT))])
            boundary = U32(two >> U64(16) & U64(0xFFFF))
            first = slot < boundary
            start = U32(two & U64(LOW)) if first else boundary
            end = boundary if first else U32((two >> U64(32) & U64(LOW)) + U64(1))
            symbol = (I64(two) >> I64(48)) - I64(first)
            escape = U32(0) if first else U32(two >> U64(47) & U64(1))
            if slot >= end:  # rare: beyond b, so the row's CDF is walked
                entry = symbol - I64(offsets[table])
                while slot >= end:  # comes to an end, since the last entry's upper bound is 2**15
                    entry += 1
                    start, end = end, U32(cdf[table, U64(entry + 1)])
                symbol = entry + I64(offsets[table])
                escape = U32(end == U32(TOTAL))
            seen |= escape
            out[i] = np.int16(symbol)
            states[lane], cursor = pop(x, start, U32(end - start), words, cursor)
            i += U64(1)
        if i & U64(IN_GROUP) == U64(0) or i == n:
            flags[(i - U64(1)) >> U64(GROUP_SHIFT)] = np.uint8(seen)
            seen = U32(0)
    return I64(cursor)


@numba.njit(cache=True, nogil=True)
def pop(x, start, freq, words, cursor):  # type: ignore[no-untyped-def]
    """Pop an interval as `rans.pop` does and refill the state; return the state and the cursor. For kernels to inline.

    All are uint32 but the cursor, which is uint64. The last of the words is a spare one, which is read once the others
    have run out; the cursor goes on and tells so at the end.
    """
    x = U32(freq * U32(x >> U32(PRECISION)) + (x & U32(LOW)) - start)
    under = x < U32(START)
    more = U32((x << U32(16)) | U32(words[min(cursor, U64(words.size - 1))]))
    return more if under else x, cursor + U64(under)


@numba.njit(cache=True, nogil=True)
def push_packed(intervals, run, inverses, states, words):  # type: ignore[no-untyped-def]
    """Code intervals start | (freq - 1) << 15 backward; return where the words begin.

    run: how many intervals in a row belong to one lane before the next lane's come.
    """
    lanes, i, cursor = U64(states.size), U64(intervals.size), U64(words.size)
    lane = (i // U64(run) - U64(1)) % lanes
    while i > U64(0):
        for _ in range(run):
            i -= U64(1)
            start, freq = U32(intervals[i] & U32(LOW)), U32((intervals[i] >> U32(PRECISION)) + U32(1))
            states[lane], cursor = push(states[lane], start, freq, inverses[U64(freq)], words, cursor)
        lane = (lane if lane > U64(0) else lanes) - U64(1)
    return cursor


@numba.njit(cache=True, nogil=True)
def push_all_wide(starts, freqs, bits, states, words):  # type: ignore[no-untyped-def]
    """Code intervals of 2**bits backward in the wide form, the i-th in lane i mod lanes; return where words begin."""
    lanes, cursor, n = U64(states.size), U64(words.size), U64(starts.size)
    for later in range(n):
        i = n - U64(1) - later
        lane = i % lanes
        states[lane], cursor = push_wide(states[lane], starts[i], freqs[i], U64(bits), words, cursor)
    return cursor


@numba.njit(cache=True, nogil=True)
def push_wide(x, start, freq, bits, words, cursor):  # type: ignore[no-untyped-def]
    """Push as `rans.push_wide` does; return the state and the cursor. For kernels to inline.

    All are uint64 but the words, which are uint32 and written as `push` writes them.
    """
    over = x >> (U64(63) - bits) >= freq
    words[cursor - U64(1)] = U32(x & U64(0xFFFFFFFF))
    x = x >> U64(32) if over else x
    q = x // freq
    return (q << bits) + start + (x - q * freq), cursor - U64(over)


@numba.njit(cache=True, nogil=True)
def pop_wide(x, start, freq, bits, words, cursor):  # type: ignore[no-untyped-def]
    """Pop as `rans.pop_wide` does and refill the state, with words as `pop` takes them. For kernels to inline."""
    x = freq * (x >> bits) + (x & ((U64(1) << bits) - U64(1))) - start
    under = x < U64(START_WIDE)
    more = (x << U64(32)) | U64(words[min(cursor, U64(words.size - 1))])
    return more if under else x, cursor + U64(under)
