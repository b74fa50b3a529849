"""rANS on a GPU, in Triton: the bytes of `coder.encode`, from tensors to tensors of one device.

A program of one warp codes a block, a thread to a lane; in blocks of 1, 4 and 8 lanes the other threads idle. Each step
is one launch for all blocks of all streams, however many they are. What bounds the speed is the chain from a state to the
next in a row of symbols: two loads to decode (of the table, then the word) and none to encode; all else is loaded rows
ahead. Tables stay in global memory, where L1 keeps what is in use: the 256 kB of a decoder are too many for the registers
or the shared memory of a warp. Every access is bounded, whatever the data; what exactly is wrong with damaged data is for
`coder.decode` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from laconic.entropy import blocks, rans
from laconic.entropy.device_tables import DeviceTables, on_device
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.tables import BIN_BITS, Tables

INTERPRETED = triton.knobs.runtime.interpret  # for tests: the kernels below then run on the host
INDEX_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
WARP = tl.constexpr(32)
TILE = tl.constexpr(1024)  # elements at a time where there are no lanes
START = tl.constexpr(rans.START)
BITS = tl.constexpr(PRECISION)
LOW = tl.constexpr(TOTAL - 1)  # 15 bits
WHOLE = tl.constexpr((TOTAL - 1) << PRECISION)  # the interval of a sure symbol: to code it changes no state
BINS = tl.constexpr(1 << BIN_BITS)
BIN_SHIFT = tl.constexpr(PRECISION - BIN_BITS)
HALF_BIN = tl.constexpr(TOTAL >> BIN_BITS + 1)
RUNS, RUN = tl.constexpr(blocks.RUNS), tl.constexpr(blocks.RUN)


def encode(symbols: Tensor, indices: Tensor, tables: Tables) -> Tensor:
    """One stream, uint8 [bytes]: `encode_batch` of all symbols."""
    return encode_batch(symbols, indices, [len(symbols)], tables)[0]


def decode(data: Tensor, indices: Tensor, tables: Tables) -> Tensor:
    """The symbols of one stream, int16 [N]: `decode_batch` of all data."""
    return decode_batch(data, [len(data)], indices, [len(indices)], tables)


def encode_batch(symbols: Tensor, indices: Tensor, lengths: Sequence[int], tables: Tables) -> tuple[Tensor, Tensor]:
    """Code streams, each to the bytes of `coder.encode`.

    symbols: int16 [N], the streams back to back. indices: rows of the tables [N], see INDEX_DTYPES.
    lengths: the symbols of each stream. Raises BadInput.
    Returns the coded streams back to back, uint8 [bytes], and the bytes of each, int64 [streams].
    """
    check(symbols, "symbols", (torch.int16,), symbols.device)
    check_rows(indices, lengths, tables, symbols.device)
    expect(len(symbols) == len(indices), BadInput, "symbols", len(symbols), f"{len(indices)}, one an index")
    with torch.cuda.device_of(symbols):
        cut, there = Cut.of(lengths, symbols.device), on_device(tables, symbols.device)
        return encode_blocks(symbols.contiguous(), indices.contiguous(), cut, there)


def decode_batch(
    data: Tensor, sizes: Sequence[int] | Tensor, indices: Tensor, lengths: Sequence[int], tables: Tables
) -> Tensor:
    """The symbols int16 [N] that `encode_batch` was given.

    data: uint8 [bytes], the coded streams back to back. sizes: the bytes of each.
    indices, lengths, tables: as `encode_batch` was given. Raises BadInput, and BadFile where a stream is damaged.
    """
    check(data, "data", (torch.uint8,), data.device)
    check_rows(indices, lengths, tables, data.device)
    sizes = sizes.tolist() if isinstance(sizes, Tensor) else sizes
    expect(len(sizes) == len(lengths), BadInput, "sizes", len(sizes), f"{len(lengths)}, one a stream")
    fits = min(sizes, default=0) >= 0 and sum(sizes) == len(data)
    expect(fits, BadInput, "sizes", sum(sizes), f"byte counts whose sum is {len(data)}")
    data, indices, ends = data.contiguous(), indices.contiguous(), [0, *accumulate(sizes)]
    with torch.cuda.device_of(data):
        cut, there = Cut.of(lengths, data.device), on_device(tables, data.device)
        layout, sound = parse(data, torch.tensor(ends, device=data.device), cut)
        symbols = torch.empty(len(indices), dtype=torch.int16, device=data.device)
        if bool(sound.all()):
            sound = decode_blocks(data, layout, indices, cut, there, symbols)
    if not bool(sound.all()):
        stream = int(sound.int().argmin())
        first, of = sum(lengths[:stream]), f"stream {stream}: " if len(lengths) > 1 else ""
        damaged = data[ends[stream] : ends[stream + 1]], indices[first : first + lengths[stream]]
        raise BadFile(f"{of}{complaint(*damaged, tables)}")
    return symbols


def encode_array(symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables) -> bytes:
    """`coder.encode` on the GPU, of arrays on the host. Raises BadInput where there is no GPU."""
    return encode(on_gpu(symbols), on_gpu(indices), tables).cpu().numpy().tobytes()


def decode_array(data: memoryview, indices: NDArray[Any], tables: Tables) -> NDArray[np.int16]:
    """The reverse of `encode_array`. Raises BadFile, and BadInput where there is no GPU."""
    symbols: NDArray[np.int16] = decode(on_gpu(np.frombuffer(data, np.uint8)), on_gpu(indices), tables).cpu().numpy()
    return symbols


def on_gpu(array: NDArray[Any]) -> Tensor:
    expect(INTERPRETED or torch.cuda.is_available(), BadInput, "backend", "cuda, without a CUDA device", "another one")
    wide = array.astype(np.int32) if array.dtype == np.uint16 else array.copy()  # torch does little with uint16
    return torch.from_numpy(wide).to("cpu" if INTERPRETED else "cuda")


def encode_blocks(symbols: Tensor, indices: Tensor, cut: Cut, tables: DeviceTables) -> tuple[Tensor, Tensor]:
    """As `encode_batch`, of what was checked: intervals, lanes, then the chain of states, then all parts to their places."""
    intervals = torch.empty(len(symbols), dtype=torch.int32, device=symbols.device)
    tiles = (triton.cdiv(len(symbols), TILE.value),)
    find_intervals[tiles](symbols, indices, *tables.entries, tables.cdf, tables.stride, intervals, len(symbols))
    escapes, n_escapes = write_escapes(symbols, indices, intervals, cut, tables)
    codes = lane_codes(symbols, indices, cut, tables)
    lanes = torch.tensor(blocks.LANES, dtype=torch.int32, device=symbols.device)[codes]
    words = torch.empty(len(symbols), dtype=torch.int16, device=symbols.device)
    n_words = torch.empty(cut.n_blocks, dtype=torch.int64, device=symbols.device)
    states = torch.empty((cut.n_blocks, WARP.value), dtype=torch.int32, device=symbols.device)
    push_blocks[(cut.n_blocks,)](intervals, cut.bounds, lanes, words, states, n_words, num_warps=1)
    head, n_head = varints(n_words << 3 | (n_escapes > 0) << 2 | codes)
    length, n_length = varints(n_escapes)
    n_length = n_length * (n_escapes > 0)
    parts = (  # of each block: the bytes to take from, where its own begin, how many
        (head, 5 * cut.numbers, n_head),
        (length, 5 * cut.numbers, n_length),
        (states, 4 * WARP.value * cut.numbers, 4 * lanes.long()),
        (words, 2 * (cut.bounds[1:] - n_words), 2 * n_words),
        (escapes, starts_of(n_escapes)[:-1], n_escapes),
    )
    starts = starts_of(torch.stack([n for _, _, n in parts]).sum(0))
    data = torch.empty(int(starts[-1]), dtype=torch.uint8, device=symbols.device)
    at = starts[:-1]
    for source, first, n in parts:
        copy_spans[(cut.n_blocks,)](source.view(torch.uint8), first, n, data, at)
        at = at + n
    return data, starts[cut.streams].diff()


def write_escapes(
    symbols: Tensor, indices: Tensor, intervals: Tensor, cut: Cut, tables: DeviceTables
) -> tuple[Tensor, Tensor]:
    """As `blocks.write_escapes`, of all blocks back to back, and the bytes of each block."""
    places = (intervals < 0).nonzero().flatten()
    rows = indices[places].long()
    beyond, last = (symbols[places] - tables.offsets[rows]).long(), tables.sizes[rows] - 1
    coded, n = varints(torch.where(beyond >= 0, 2 * (beyond - last), 2 * (-1 - beyond) + 1))
    escapes = coded[torch.arange(coded.shape[1], device=coded.device) < n[:, None]]
    return escapes, starts_of(n)[torch.searchsorted(places, cut.bounds)].diff()


def lane_codes(symbols: Tensor, indices: Tensor, cut: Cut, tables: DeviceTables) -> Tensor:
    """int64 [blocks], by `blocks.estimated_bytes`: its sum, of up to 1228 float32 below 16, is exact in any order."""
    costs = torch.empty(cut.n_blocks, dtype=torch.float64, device=symbols.device)
    sample_costs[(cut.n_blocks,)](symbols, indices, *tables.entries, tables.bits, tables.stride, cut.bounds, costs)
    n = cut.bounds.diff()
    n_runs = n // (n // blocks.RUNS | 1)
    estimates = torch.where(n <= blocks.RUNS * blocks.RUN, costs / 8, costs * n / (8 * blocks.RUN * n_runs))
    limits = torch.tensor(blocks.LANE_BYTES, dtype=torch.float64, device=symbols.device)
    return torch.bucketize(estimates, limits, right=True)


def varints(values: Tensor) -> tuple[Tensor, Tensor]:
    """As `varint.write_varint`: int64 [N] -> uint8 [N, 5], of which the first n int64 [N] count."""
    groups = values[:, None] >> 7 * torch.arange(5, device=values.device)
    more = groups >= 128
    return (groups & 127 | more << 7).to(torch.uint8), 1 + more.sum(1)


def parse(data: Tensor, ends: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """Where the parts of each block are, int64 [blocks, 4], as `parse_streams` says; which streams are sound, bool."""
    layout = torch.empty((cut.n_blocks, 4), dtype=torch.int64, device=data.device)
    sound = torch.empty(len(cut.streams) - 1, dtype=torch.bool, device=data.device)
    lanes = torch.tensor(blocks.LANES, dtype=torch.int32, device=data.device)
    parse_streams[(len(sound),)](data, ends, cut.streams, cut.bounds, lanes, layout, sound, num_warps=1)
    return layout, sound


def decode_blocks(
    data: Tensor, layout: Tensor, indices: Tensor, cut: Cut, tables: DeviceTables, symbols: Tensor
) -> Tensor:
    """Write the symbols; returns which streams are sound, bool."""
    escaped = torch.empty(len(indices), dtype=torch.uint8, device=data.device)
    sound = torch.empty(cut.n_blocks, dtype=torch.bool, device=data.device)
    coded = (data, layout, indices, cut.bounds, *tables.entries)
    found = (symbols, escaped, sound)
    pop_blocks[(cut.n_blocks,)](*coded, tables.lut, tables.cdf, tables.stride, *found, num_warps=1)
    escapes = escaped.nonzero().flatten()
    firsts = torch.searchsorted(escapes, cut.bounds)
    fill_escapes[(cut.n_blocks,)](data, layout, escapes, firsts, indices, *tables.entries, symbols, sound)
    return starts_of((~sound).long())[cut.streams].diff() == 0


def complaint(data: Tensor, indices: Tensor, tables: Tables) -> str:
    """What `coder.decode` finds wrong with a stream. Only such a stream goes to the host."""
    from laconic.entropy import rans_numba

    try:
        raw = memoryview(data.cpu().numpy().tobytes())
        _, rest = blocks.decode_with(rans_numba, raw, indices.cpu().numpy(), tables, threads=None)
        blocks.expect_nothing_left(rest)
    except BadFile as error:
        return str(error)
    return "coded symbols: found damage that a CPU does not find, expected none"


@dataclass(frozen=True)
class Cut:
    """Streams cut into blocks, on the device.

    bounds: int64 [blocks + 1]; block b has the symbols from bounds[b] on, to bounds[b + 1].
    streams: int64 [streams + 1]; stream i has the blocks from streams[i] on, to streams[i + 1].
    """

    bounds: Tensor
    streams: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Cut:
        bounds, streams = [0], [0]
        for n in lengths:
            first = bounds[-1]
            bounds += [first + span.stop for span in blocks.cut(n)]
            streams.append(len(bounds) - 1)
        return cls(torch.tensor(bounds, device=device), torch.tensor(streams, device=device))

    @property
    def n_blocks(self) -> int:
        return len(self.bounds) - 1

    @property
    def numbers(self) -> Tensor:
        return torch.arange(self.n_blocks, device=self.bounds.device)


def starts_of(sizes: Tensor) -> Tensor:
    """int64 [N] -> [N + 1]: where each of things back to back begins, and the last ends."""
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def check(values: Tensor, field: str, dtypes: tuple[torch.dtype, ...], device: torch.device) -> None:
    """One row of such numbers on the device. Raises BadInput."""
    right = values.ndim == 1 and values.dtype in dtypes
    expect(right, BadInput, field, (values.dtype, tuple(values.shape)), f"[N] of {', '.join(map(str, dtypes))}")
    expect(values.is_cuda or INTERPRETED, BadInput, field, str(values.device), "a tensor on a CUDA device")
    expect(values.device == device, BadInput, field, str(values.device), str(device))


def check_rows(indices: Tensor, lengths: Sequence[int], tables: Tables, device: torch.device) -> None:
    """Rows that the tables have, as many as the streams need. Raises BadInput."""
    check(indices, "indices", INDEX_DTYPES, device)
    fits = min(lengths, default=0) >= 0 and sum(lengths) == len(indices)
    expect(fits, BadInput, "lengths", sum(lengths), f"counts whose sum is {len(indices)}")
    if len(indices):
        least, most = torch.stack(indices.aminmax()).tolist()
        rows = len(tables.sizes)
        expect(0 <= least and most < rows, BadInput, "indices", (least, most), f"0 to {rows - 1}")


@triton.jit
def find_intervals(symbols, indices, offsets, sizes, cdf, stride, intervals, n):  # type: ignore[no-untyped-def]
    """Of every symbol: start | (frequency - 1) << 15, and bit 31 for the escape."""
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = i < n
    row, entry, outside = find_entries(symbols + i, indices + i, inside, offsets, sizes)
    start = tl.load(cdf + row * stride + entry)
    end = tl.load(cdf + row * stride + entry + 1)
    interval = start | (end - start - 1) << BITS | outside.to(tl.int32) << 31
    tl.store(intervals + i, interval, mask=inside)


@triton.jit
def sample_costs(symbols, indices, offsets, sizes, bits, stride, bounds, costs):  # type: ignore[no-untyped-def]
    """Bits of the symbols of a block that `blocks.estimated_bytes` looks at."""
    block = tl.program_id(0)
    first = tl.load(bounds + block)
    n = (tl.load(bounds + block + 1) - first).to(tl.int32)
    step = n // RUNS | 1
    k = tl.arange(0, 2 * RUNS * RUN)  # rounding the step down makes up to 307 runs
    i = k // RUN * step + k % RUN
    inside = k // RUN < n // step
    if n <= RUNS * RUN:
        i = k
        inside = k < n
    row, entry, _ = find_entries(symbols + first + i, indices + first + i, inside, offsets, sizes)
    cost = tl.load(bits + row * (stride - 1) + entry, mask=inside, other=0).to(tl.float64)
    tl.store(costs + block, tl.sum(cost, axis=0))


@triton.jit
def find_entries(symbols, indices, inside, offsets, sizes):  # type: ignore[no-untyped-def]
    """As `Tables.entries`: rows int64, the entries, which are outside of their rows; of row 0 where nothing is to read."""
    row = tl.load(indices, mask=inside, other=0).to(tl.int64)
    entry = tl.load(symbols, mask=inside, other=0).to(tl.int32) - tl.load(offsets + row)
    last = tl.load(sizes + row) - 1
    outside = (entry < 0) | (entry >= last)
    return row, tl.where(outside, last, entry), outside


@triton.jit
def push_blocks(intervals, bounds, lanes, words, states, n_words):  # type: ignore[no-untyped-def]
    """Code a block backward. Its words fill the end of its place in `words`, where one a symbol fits.

    q = x // f by a multiplication: with m = (2**32 - 1) // f, x * m / 2**32 is less than 1 below x / f. As m does not
    depend on x, no division is in the chain of states.
    """
    block = tl.program_id(0)
    first = tl.load(bounds + block)
    n = (tl.load(bounds + block + 1) - first).to(tl.int32)
    n_lanes = tl.load(lanes + block)
    lane = tl.arange(0, WARP)
    below = (1 << lane).to(tl.uint32) - 1
    intervals += first
    words += first
    left = (n + n_lanes - 1) // n_lanes  # rows
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
        spill = x >> (32 - BITS) >= freq
        spilling = tl.sum(spill.to(tl.uint32) << lane, axis=0)
        cursor -= popcount(spilling)
        tl.store(words + cursor + popcount(spilling & below), x.to(tl.uint16), mask=spill)
        x = tl.where(spill, x >> 16, x)
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
    return tl.load(intervals + i, mask=(i >= 0) & (i < n), other=WHOLE).to(tl.uint32)


@triton.jit
def copy_spans(source, firsts, sizes, out, starts):  # type: ignore[no-untyped-def]
    """A span of bytes a program."""
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
    """As `blocks.parse`, of a stream. Of each block: where its states are, its lanes, its words, the escapes' bytes.

    A `layout` is to be used only if the stream is sound. States are for `pop_blocks` to check.
    """
    stream = tl.program_id(0)
    position = tl.load(ends + stream)
    end = tl.load(ends + stream + 1)
    ok = position <= end
    block = tl.load(streams + stream)
    after = tl.load(streams + stream + 1)
    while block < after:
        n = tl.load(bounds + block + 1) - tl.load(bounds + block)
        i = tl.arange(0, 16)  # two varints take up to 10 bytes; what is beyond the data does not end one
        byte = tl.load(data + position + i, mask=i < end - position, other=128).to(tl.int32)
        head, n_head, good = read_varint(byte, i, 0)
        n_escape, n_length, fine = read_varint(byte, i, n_head)
        escapes = (head & 4) > 0
        n_escape = tl.where(escapes, n_escape, 0)
        n_words = head >> 3
        n_lanes = tl.load(lanes_of + (head & 3)).to(tl.int64)
        ok = ok & good & (fine | (escapes == 0)) & (n_words <= n)
        ok = ok & (n_escape <= 5 * n)  # 5 bytes each: else some would not be used, which is damage too
        position += n_head + tl.where(escapes, n_length, 0)
        tl.store(layout + 4 * block, position)
        tl.store(layout + 4 * block + 1, n_lanes)
        tl.store(layout + 4 * block + 2, n_words)
        tl.store(layout + 4 * block + 3, n_escape)
        position += 4 * n_lanes + 2 * n_words + n_escape
        block += 1
    tl.store(sound + stream, ok & (position == end))  # it only grows, so no block went past the end


@triton.jit
def read_varint(byte, i, first):  # type: ignore[no-untyped-def]
    """Of bytes numbered i, from `first` on: the value, how many bytes, whether it is as `varint.read_varint` wants it."""
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
    """Decode a block forward; `escaped` says where the values of escapes are still to come.

    A cursor past the last word reads none: the states are then wrong, and so is the cursor in the end.
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
    below = (1 << lane).to(tl.uint32) - 1
    live = lane < n_lanes
    x = tl.where(live, load_word(states + 4 * lane, live) | load_word(states + 4 * lane + 2, live) << 16, START)
    wrong = x < START
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
        y = (end - start).to(tl.uint32) * (x >> BITS) + (slot - start).to(tl.uint32)
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
    """By halves, where the slot lies beyond the first two entries of its bin: fewer than 64 others begin in it."""
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
    """As `blocks.read_escapes`, of a block: each byte below 128 ends a varint, whose other bytes are before it.

    escapes: int64, the places of all of them, of which a block's are from its `firsts` on, to the next block's.
    """
    block = tl.program_id(0)
    n = tl.load(layout + 4 * block + 3).to(tl.int32)
    coded = data + tl.load(layout + 4 * block)
    coded += 4 * tl.load(layout + 4 * block + 1) + 2 * tl.load(layout + 4 * block + 2)
    n_escapes = (tl.load(firsts + block + 1) - tl.load(firsts + block)).to(tl.int32)
    escapes += tl.load(firsts + block)
    n_read = 0
    used = 0
    n_wrong = 0
    first = 0
    while first < n:
        i = first + tl.arange(0, TILE)
        byte = tl.load(coded + i, mask=i < n, other=128).to(tl.int32)
        ends = byte < 128
        number = n_read + tl.cumsum(ends.to(tl.int32), axis=0) - 1
        mine = ends & (number < n_escapes)
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
    """uint16, little-endian, at any address; as uint32, 0 where masked."""
    low = tl.load(at, mask=mask, other=0).to(tl.uint32)
    return low | tl.load(at + 1, mask=mask, other=0).to(tl.uint32) << 8


@triton.jit
def popcount(bits):  # type: ignore[no-untyped-def]
    """Set bits of uint32, int32; compilers see one instruction in this."""
    bits -= bits >> 1 & 0x55555555
    bits = (bits & 0x33333333) + (bits >> 2 & 0x33333333)
    bits = bits + (bits >> 4) & 0x0F0F0F0F
    return (bits * 0x01010101 >> 24).to(tl.int32)
