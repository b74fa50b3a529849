"""The GPU's kernels in Triton: a block's intervals, states, words and escapes (FORMAT.md, "Symbols").

    encode   find_intervals   symbols -> intervals of the tables            sample_costs   what a block will take
             push_blocks      intervals -> states, words (`rans.push`)      copy_spans     parts -> one stream
    decode   parse_streams    bytes -> where the parts are (`blocks.parse`)
             pop_blocks       states, words -> symbols (`rans.pop`)         fill_escapes   escaped symbols

`push_blocks` and `pop_blocks` code a block with a program of one warp, a thread per lane; in blocks of 1, 4 and 8 lanes
the other threads idle. What bounds their speed is the chain from a state to the lane's next one: two loads to decode
(from the table, then of the word), none to encode; all else is loaded rows ahead.

Every access is bounded, whatever the data. Arguments are pointers to the first element of the arrays that
`rans_cuda.py` describes, or integers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from laconic.entropy import blocks, rans
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.tables import BIN_BITS

WARP = tl.constexpr(32)
TILE = tl.constexpr(1024)  # elements at a time where there are no lanes
START = tl.constexpr(rans.START)
BITS = tl.constexpr(PRECISION)
LOW = tl.constexpr(TOTAL - 1)  # a mask of 15 bits
WHOLE = tl.constexpr((TOTAL - 1) << PRECISION)  # the interval of a sure symbol: to code it changes no state
BINS = tl.constexpr(1 << BIN_BITS)
BIN_SHIFT = tl.constexpr(PRECISION - BIN_BITS)
HALF_BIN = tl.constexpr(TOTAL >> BIN_BITS + 1)
RUNS, RUN = tl.constexpr(blocks.RUNS), tl.constexpr(blocks.RUN)


@triton.jit
def find_intervals(symbols, indices, offsets, sizes, cdf, stride, intervals, n):  # type: ignore[no-untyped-def]
    """Look up the interval of every symbol: start | (frequency - 1) << 15, and bit 31 for the escape."""
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = i < n
    row, entry, outside = find_entries(symbols + i, indices + i, inside, offsets, sizes)
    start = tl.load(cdf + row * stride + entry)
    end = tl.load(cdf + row * stride + entry + 1)
    interval = start | (end - start - 1) << BITS | outside.to(tl.int32) << 31
    tl.store(intervals + i, interval, mask=inside)


@triton.jit
def sample_costs(symbols, indices, offsets, sizes, bits, stride, bounds, costs):  # type: ignore[no-untyped-def]
    """Add up, for one block, the bits of the symbols that `blocks.estimated_bytes` looks at."""
    block = tl.program_id(0)
    first = tl.load(bounds + block)
    n = (tl.load(bounds + block + 1) - first).to(tl.int32)
    step = n // RUNS | 1
    k = tl.arange(0, 2 * RUNS * RUN)  # the step is rounded down, so there are up to 307 runs, more than RUNS
    i = k // RUN * step + k % RUN
    inside = k // RUN < n // step
    if n <= RUNS * RUN:  # a small block is looked at whole
        i = k
        inside = k < n
    row, entry, _ = find_entries(symbols + first + i, indices + first + i, inside, offsets, sizes)
    cost = tl.load(bits + row * (stride - 1) + entry, mask=inside, other=0).to(tl.float64)
    tl.store(costs + block, tl.sum(cost, axis=0))


@triton.jit
def find_entries(symbols, indices, inside, offsets, sizes):  # type: ignore[no-untyped-def]
    """Find the entries of symbols as `Tables.entries` does; where `inside` is false, read nothing and take row 0.

    Returns the rows (int64), the entries, and which symbols lie outside of their rows.
    """
    row = tl.load(indices, mask=inside, other=0).to(tl.int64)
    entry = tl.load(symbols, mask=inside, other=0).to(tl.int32) - tl.load(offsets + row)
    last = tl.load(sizes + row) - 1
    outside = (entry < 0) | (entry >= last)
    return row, tl.where(outside, last, entry), outside


@triton.jit
def push_blocks(intervals, bounds, lanes, words, states, n_words):  # type: ignore[no-untyped-def]
    """Code one block backward. Its words fill the end of its part of `words`, which has room for one per symbol.

    The chain of states has no division: with m = (2**32 - 1) // freq, which does not depend on x, x * m / 2**32 is less
    than 1 below x / freq, so its floor is the quotient or one below, and the rest tells which.
    """
    block = tl.program_id(0)
    first = tl.load(bounds + block)
    n = (tl.load(bounds + block + 1) - first).to(tl.int32)
    n_lanes = tl.load(lanes + block)
    lane = tl.arange(0, WARP)
    below = (1 << lane).to(tl.uint32) - 1  # the lanes before each lane, as bits
    intervals += first
    words += first
    left = (n + n_lanes - 1) // n_lanes  # rows
    # The last row comes first. Intervals of four rows are on their way at a time: a of this row, b, c and d of the next
    # ones. A lane that the block or its last row lacks gets WHOLE, which leaves its state as it is.
    i = tl.where(lane < n_lanes, (left - 1) * n_lanes + lane, -1)
    a = load_interval(intervals, i, n)
    b = load_interval(intervals, i - n_lanes, n)
    c = load_interval(intervals, i - 2 * n_lanes, n)
    cursor = n
    x = tl.full([WARP], START, tl.uint32)
    while left > 0:
        d = load_interval(intervals, i - 3 * n_lanes, n)
        start = a & LOW
        freq = (a >> BITS & LOW) + 1
        # renormalise: lanes with x >= 2**17 freq write a word each, the first lane lowest
        spill = x >> (32 - BITS) >= freq
        spilling = tl.sum(spill.to(tl.uint32) << lane, axis=0)
        cursor -= popcount(spilling)
        tl.store(words + cursor + popcount(spilling & below), x.to(tl.uint16), mask=spill)
        x = tl.where(spill, x >> 16, x)
        # update: 2**15 floor(x / freq) + start + x mod freq
        q = tl.umulhi(x, 0xFFFFFFFF // freq)
        rest = x - q * freq
        more = rest >= freq
        x = (tl.where(more, q + 1, q) << BITS) + tl.where(more, rest - freq, rest) + start
        i -= n_lanes
        left -= 1
        a, b, c = b, c, d
    tl.store(states + block * WARP + lane, x.to(tl.int32))
    tl.store(n_words + block, (n - cursor).to(tl.int64))


@triton.jit
def load_interval(intervals, i, n):  # type: ignore[no-untyped-def]
    """Load the intervals i of a block of n, as uint32; WHOLE where i is outside of it."""
    return tl.load(intervals + i, mask=(i >= 0) & (i < n), other=WHOLE).to(tl.uint32)


@triton.jit
def copy_spans(source, firsts, sizes, out, starts):  # type: ignore[no-untyped-def]
    """Copy one span of bytes: from `firsts` of the source to `starts` of the output."""
    span = tl.program_id(0)
    source += tl.load(firsts + span)
    out += tl.load(starts + span)
    n = tl.load(sizes + span).to(tl.int32)
    first = 0
    while first < n:
        i = first + tl.arange(0, TILE)
        tl.store(out + i, tl.load(source + i, mask=i < n, other=0), mask=i < n)
        first += TILE


@triton.jit
def parse_streams(data, ends, streams, bounds, lanes_of, layout, sound):  # type: ignore[no-untyped-def]
    """Find the parts of one stream's blocks as `blocks.parse` does.

    layout: four numbers per block: where its states are, its lanes, its words, the bytes of its escapes. They are to be
    used only if the stream is sound. The states' values are for `pop_blocks` to check.
    """
    stream = tl.program_id(0)
    position = tl.load(ends + stream)
    end = tl.load(ends + stream + 1)
    ok = position <= end
    block = tl.load(streams + stream)
    after = tl.load(streams + stream + 1)
    while block < after:
        n = tl.load(bounds + block + 1) - tl.load(bounds + block)
        i = tl.arange(0, 16)  # two varints take up to 10 bytes; 128, read beyond the data, does not end one
        byte = tl.load(data + position + i, mask=i < end - position, other=128).to(tl.int32)
        head, n_head, good = read_varint(byte, i, 0)
        n_escape, n_length, fine = read_varint(byte, i, n_head)
        escapes = (head & 4) > 0
        n_escape = tl.where(escapes, n_escape, 0)
        n_words = head >> 3
        n_lanes = tl.load(lanes_of + (head & 3)).to(tl.int64)
        ok = ok & good & (fine | (escapes == 0)) & (n_words <= n)
        ok = ok & (n_escape <= 5 * n)  # with more than 5 bytes per symbol some would not be used: damage too
        position += n_head + tl.where(escapes, n_length, 0)
        tl.store(layout + 4 * block, position)
        tl.store(layout + 4 * block + 1, n_lanes)
        tl.store(layout + 4 * block + 2, n_words)
        tl.store(layout + 4 * block + 3, n_escape)
        position += 4 * n_lanes + 2 * n_words + n_escape
        block += 1
    tl.store(sound + stream, ok & (position == end))  # the position only grows, so no block went past the end


@triton.jit
def read_varint(byte, i, first):  # type: ignore[no-untyped-def]
    """Read a varint from 16 bytes, numbered i, from number `first` on.

    Returns its value, how many bytes it has, and whether `varint.read_varint` would take it.
    """
    last = tl.min(tl.where((i >= first) & (byte < 128), i, 16), axis=0)
    group = tl.minimum(tl.maximum(i - first, 0), 4)
    value = tl.sum(tl.where((i >= first) & (i <= last), (byte & 127).to(tl.int64) << 7 * group, 0), axis=0)
    final = tl.sum(tl.where(i == last, byte, 0), axis=0)
    n = last - first + 1
    return value, n, (n <= 5) & ((final > 0) | (n == 1)) & (last < 16)


@triton.jit
def pop_blocks(  # type: ignore[no-untyped-def]
    data, layout, indices, bounds, offsets, sizes, lut, cdf, stride, symbols, escaped, sound
):
    """Decode one block forward. `escaped` tells whose values are still to come from the escapes.

    A cursor past the last word reads none. The states are wrong from there on, and the cursor at the end tells so.
    """
    block = tl.program_id(0)
    first = tl.load(bounds + block)
    n = (tl.load(bounds + block + 1) - first).to(tl.int32)
    states = data + tl.load(layout + 4 * block)
    n_lanes = tl.load(layout + 4 * block + 1).to(tl.int32)
    n_words = tl.load(layout + 4 * block + 2).to(tl.int32)
    words = states + 4 * n_lanes
    indices += first
    symbols += first
    escaped += first
    lane = tl.arange(0, WARP)
    below = (1 << lane).to(tl.uint32) - 1  # the lanes before each lane, as bits
    live = lane < n_lanes
    x = tl.where(live, load_word(states + 4 * lane, live) | load_word(states + 4 * lane + 2, live) << 16, START)
    wrong = x < START
    # Table indices of three rows are on their way at a time: of this one, then of the next, after of the one after it.
    i = tl.where(live, lane, n)
    row = tl.load(indices + i, mask=i < n, other=0).to(tl.int32)
    then = tl.load(indices + i + n_lanes, mask=i < n - n_lanes, other=0).to(tl.int32)
    cursor = 0
    left = (n + n_lanes - 1) // n_lanes  # rows
    while left > 0:
        inside = i < n
        after = tl.load(indices + i + 2 * n_lanes, mask=i < n - 2 * n_lanes, other=0).to(tl.int32)
        offset = tl.load(offsets + row)
        last = tl.load(sizes + row) - 1
        # search: a slot lies in the first or second entry of its bin (`DeviceTables.lut`), or, rarely, further on
        slot = (x & LOW).to(tl.int32)
        two = tl.load(lut + row * BINS + (slot >> BIN_SHIFT))
        split = (two >> 16 & LOW).to(tl.int32)
        is_a = slot < split
        entry = (two >> 48).to(tl.int32) - is_a.to(tl.int32)
        start = tl.where(is_a, (two & LOW).to(tl.int32), split)
        end = tl.where(is_a, split, (two >> 32 & LOW).to(tl.int32) + 1)
        beyond = inside & (slot >= end)
        if tl.max(beyond.to(tl.int32), axis=0) > 0:
            entry, start, end = search_on(cdf, row, stride, slot, beyond, entry, start, end)
        # update: freq floor(x / 2**15) + slot - start
        y = (end - start).to(tl.uint32) * (x >> BITS) + (slot - start).to(tl.uint32)
        # renormalise: lanes below 2**16 read a word each, in order
        refill = inside & (y < START)
        refilling = tl.sum(refill.to(tl.uint32) << lane, axis=0)
        at = cursor + popcount(refilling & below)
        y = tl.where(refill, y << 16 | load_word(words + 2 * at, refill & (at < n_words)), y)
        x = tl.where(inside, y, x)
        cursor += popcount(refilling)
        tl.store(symbols + i, (offset + entry).to(tl.int16), mask=inside)
        tl.store(escaped + i, (entry == last).to(tl.uint8), mask=inside)
        i += n_lanes
        left -= 1
        row, then = then, after
    wrong = wrong | (x != START)
    tl.store(sound + block, (tl.max(wrong.to(tl.int32), axis=0) == 0) & (cursor == n_words))


@triton.jit
def search_on(cdf, row, stride, slot, beyond, entry, start, end):  # type: ignore[no-untyped-def]
    """Search the row by halving where a slot lies beyond the first two entries of its bin.

    A bin has 64 slots, so fewer than 64 other entries begin in it: BIN_SHIFT = 6 halvings are enough.
    """
    base = cdf + row.to(tl.int64) * stride
    for k in tl.static_range(BIN_SHIFT):
        further = tl.minimum(entry + (HALF_BIN >> k), stride - 1)
        entry = tl.where(tl.load(base + further, mask=beyond, other=LOW + 1) <= slot, further, entry)
    start = tl.where(beyond, tl.load(base + entry, mask=beyond, other=0), start)
    end = tl.where(beyond, tl.load(base + entry + 1, mask=beyond, other=0), end)
    return entry, start, end


@triton.jit
def fill_escapes(  # type: ignore[no-untyped-def]
    data, layout, escapes, firsts, indices, offsets, sizes, symbols, sound
):
    """Read one block's escaped values as `blocks.read_escapes` does, all varints of a tile at once.

    A byte below 128 ends a varint; the bytes before it, back to the end of another, are its lower groups of bits.
    escapes: int64, the places of the escaped symbols of all blocks; a block's begin at its `firsts`.
    """
    block = tl.program_id(0)
    n = tl.load(layout + 4 * block + 3).to(tl.int32)
    coded = data + tl.load(layout + 4 * block)
    coded += 4 * tl.load(layout + 4 * block + 1) + 2 * tl.load(layout + 4 * block + 2)
    n_escapes = (tl.load(firsts + block + 1) - tl.load(firsts + block)).to(tl.int32)
    escapes += tl.load(firsts + block)
    n_read = 0
    used = 0  # bytes up to the end of the last varint that is needed
    n_wrong = 0
    first = 0
    while first < n:
        i = first + tl.arange(0, TILE)
        byte = tl.load(coded + i, mask=i < n, other=128).to(tl.int32)
        ends = byte < 128
        number = n_read + tl.cumsum(ends.to(tl.int32), axis=0) - 1
        mine = ends & (number < n_escapes)
        # walk back over the bytes before, which have the top bit set; a sixth makes the varint too long
        value, length, more = byte.to(tl.int64), tl.full([TILE], 1, tl.int32), mine
        for back in tl.static_range(1, 6):
            before = tl.load(coded + i - back, mask=more & (i >= back), other=0).to(tl.int32)
            more = before >= 128
            value = tl.where(more, value << 7 | (before & 127), value)
            length += more.to(tl.int32)
        place = tl.load(escapes + number, mask=mine, other=0)
        row = tl.load(indices + place, mask=mine, other=0).to(tl.int64)
        low = tl.load(offsets + row).to(tl.int64)
        high = low + tl.load(sizes + row) - 1
        symbol = tl.where((value & 1) > 0, low - 1 - (value >> 1), high + (value >> 1))
        right = (length <= 5) & ((byte > 0) | (length == 1)) & (symbol >= -32768) & (symbol < 32768)
        tl.store(symbols + place, symbol.to(tl.int16), mask=mine & right)
        n_wrong += tl.sum((mine & (right == 0)).to(tl.int32), axis=0)
        used = tl.maximum(used, tl.max(tl.where(mine, i + 1, 0), axis=0))
        n_read += tl.sum(ends.to(tl.int32), axis=0)
        first += TILE
    ok = tl.load(sound + block) & (n_wrong == 0) & (n_read >= n_escapes) & (used == n)
    tl.store(sound + block, ok)


@triton.jit
def load_word(at, mask):  # type: ignore[no-untyped-def]
    """Load a uint16, little-endian, from any address, as uint32; 0 where masked."""
    low = tl.load(at, mask=mask, other=0).to(tl.uint32)
    return low | tl.load(at + 1, mask=mask, other=0).to(tl.uint32) << 8


@triton.jit
def popcount(bits):  # type: ignore[no-untyped-def]
    """Count the set bits of a uint32, as int32. Compilers know this way to write it and make one instruction of it."""
    bits -= bits >> 1 & 0x55555555
    bits = (bits & 0x33333333) + (bits >> 2 & 0x33333333)
    bits = bits + (bits >> 4) & 0x0F0F0F0F
    return (bits * 0x01010101 >> 24).to(tl.int32)
