"""rANS on a GPU: the bytes of `coder.encode`, from tensors to tensors of one device.

    data, sizes = encode_batch(symbols, indices, lengths, tables)      # streams back to back
    symbols = decode_batch(data, sizes, indices, lengths, tables)

The kernels are in `cuda_kernels.py`. Each step is one launch for all blocks of all streams, however many there are.
Tables stay in the device's global memory, where L1 keeps what is in use: the 256 kB of a decoder's are too many for the
registers or the shared memory of a warp. What exactly is wrong with damaged data is for `coder.decode` to say, on the
host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from laconic.entropy import blocks, cuda_kernels
from laconic.entropy.cuda_kernels import TILE, WARP
from laconic.entropy.device_tables import DeviceTables, on_device
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.tables import Tables

INTERPRETED = triton.knobs.runtime.interpret  # for tests: the kernels then run on the host
INDEX_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def encode(symbols: Tensor, indices: Tensor, tables: Tables) -> Tensor:
    """Code all symbols into one stream, uint8 [bytes], as `encode_batch` does."""
    return encode_batch(symbols, indices, [len(symbols)], tables)[0]


def decode(data: Tensor, indices: Tensor, tables: Tables) -> Tensor:
    """Decode all data as one stream into symbols, int16 [N], as `decode_batch` does."""
    return decode_batch(data, [len(data)], indices, [len(indices)], tables)


def encode_batch(symbols: Tensor, indices: Tensor, lengths: Sequence[int], tables: Tables) -> tuple[Tensor, Tensor]:
    """Code streams, each into the bytes of `coder.encode`.

    symbols: int16 [N], the streams back to back. indices: rows of the tables [N], of one of INDEX_DTYPES.
    lengths: the number of symbols of each stream.
    Returns the coded streams back to back, uint8 [bytes], and the bytes of each, int64 [streams]. Raises BadInput.
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
    """Return the symbols int16 [N] that `encode_batch` was given.

    data: uint8 [bytes], the coded streams back to back. sizes: the bytes of each.
    indices, lengths, tables: as `encode_batch` was given. Raises BadInput, and BadFile if a stream is damaged.
    """
    check(data, "data", (torch.uint8,), data.device)
    check_rows(indices, lengths, tables, data.device)
    sizes = sizes.tolist() if isinstance(sizes, Tensor) else sizes
    expect(len(sizes) == len(lengths), BadInput, "sizes", len(sizes), f"{len(lengths)}, one per stream")
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
        first, name = sum(lengths[:stream]), f"stream {stream}: " if len(lengths) > 1 else ""
        damaged = data[ends[stream] : ends[stream + 1]], indices[first : first + lengths[stream]]
        raise BadFile(f"{name}{complaint(*damaged, tables)}")
    return symbols


def encode_array(symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables) -> bytes:
    """Code arrays on the host as `coder.encode` does, on the GPU. Raises BadInput if there is none."""
    return encode(on_gpu(symbols), on_gpu(indices), tables).cpu().numpy().tobytes()


def decode_array(data: memoryview, indices: NDArray[Any], tables: Tables) -> NDArray[np.int16]:
    """Undo `encode_array`. Raises BadFile on damage, and BadInput if there is no GPU."""
    symbols: NDArray[np.int16] = decode(on_gpu(np.frombuffer(data, np.uint8)), on_gpu(indices), tables).cpu().numpy()
    return symbols


def on_gpu(array: NDArray[Any]) -> Tensor:
    """Copy an array of the host to the GPU. Raises BadInput if there is none."""
    expect(INTERPRETED or torch.cuda.is_available(), BadInput, "backend", "cuda, without a CUDA device", "another one")
    wide = array.astype(np.int32) if array.dtype == np.uint16 else array.copy()  # torch does little with uint16
    return torch.from_numpy(wide).to("cpu" if INTERPRETED else "cuda")


def encode_blocks(symbols: Tensor, indices: Tensor, cut: Cut, tables: DeviceTables) -> tuple[Tensor, Tensor]:
    """Code checked streams as `encode_batch` does: intervals, lanes, states and words, then all bytes into place."""
    intervals = torch.empty(len(symbols), dtype=torch.int32, device=symbols.device)
    tiles, rows = (triton.cdiv(len(symbols), TILE.value),), (*tables.entries, tables.cdf, tables.stride)
    cuda_kernels.find_intervals[tiles](symbols, indices, *rows, intervals, len(symbols))
    escapes, n_escapes = write_escapes(symbols, indices, intervals, cut, tables)
    codes = lane_codes(symbols, indices, cut, tables)
    lanes = torch.tensor(blocks.LANES, dtype=torch.int32, device=symbols.device)[codes]
    words = torch.empty(len(symbols), dtype=torch.int16, device=symbols.device)
    n_words = torch.empty(cut.n_blocks, dtype=torch.int64, device=symbols.device)
    states = torch.empty((cut.n_blocks, WARP.value), dtype=torch.int32, device=symbols.device)
    cuda_kernels.push_blocks[(cut.n_blocks,)](intervals, cut.bounds, lanes, words, states, n_words, num_warps=1)
    head, n_head = varints(n_words << 3 | (n_escapes > 0) << 2 | codes)
    length, n_length = varints(n_escapes)
    n_length = n_length * (n_escapes > 0)
    parts = (  # for all blocks: the bytes to copy from, where a block's own begin, how many they are
        (head, 5 * cut.numbers, n_head),
        (length, 5 * cut.numbers, n_length),
        (states, 4 * WARP.value * cut.numbers, 4 * lanes.long()),
        (words, 2 * (cut.bounds[1:] - n_words), 2 * n_words),
        (escapes, starts_of(n_escapes)[:-1], n_escapes),
    )
    starts = starts_of(torch.stack([n for _, _, n in parts]).sum(0))
    data = torch.empty(int(starts[-1]), dtype=torch.uint8, device=symbols.device)
    place = starts[:-1]
    for source, first, n in parts:
        cuda_kernels.copy_spans[(cut.n_blocks,)](source.view(torch.uint8), first, n, data, place)
        place = place + n
    return data, starts[cut.streams].diff()


def write_escapes(
    symbols: Tensor, indices: Tensor, intervals: Tensor, cut: Cut, tables: DeviceTables
) -> tuple[Tensor, Tensor]:
    """Code the escapes of all blocks as `blocks.write_escapes` does, and count the bytes of each block."""
    places = (intervals < 0).nonzero().flatten()
    rows = indices[places].long()
    beyond, last = (symbols[places] - tables.offsets[rows]).long(), tables.sizes[rows] - 1
    coded, n = varints(torch.where(beyond >= 0, 2 * (beyond - last), 2 * (-1 - beyond) + 1))
    escapes = coded[torch.arange(coded.shape[1], device=coded.device) < n[:, None]]
    return escapes, starts_of(n)[torch.searchsorted(places, cut.bounds)].diff()


def lane_codes(symbols: Tensor, indices: Tensor, cut: Cut, tables: DeviceTables) -> Tensor:
    """Choose the lanes of each block as `blocks.lane_codes` does: int64 [blocks], places in `blocks.LANES`.

    The estimate is a sum of up to 1228 float32 below 16, which is exact in float64, in any order.
    """
    costs = torch.empty(cut.n_blocks, dtype=torch.float64, device=symbols.device)
    rows = (*tables.entries, tables.bits, tables.stride)
    cuda_kernels.sample_costs[(cut.n_blocks,)](symbols, indices, *rows, cut.bounds, costs)
    n = cut.bounds.diff()
    n_runs = n // (n // blocks.RUNS | 1)
    estimates = torch.where(n <= blocks.RUNS * blocks.RUN, costs / 8, costs * n / (8 * blocks.RUN * n_runs))
    limits = torch.tensor(blocks.LANE_BYTES, dtype=torch.float64, device=symbols.device)
    return torch.bucketize(estimates, limits, right=True)


def varints(values: Tensor) -> tuple[Tensor, Tensor]:
    """Write numbers [N] as varints, uint8 [N, 5]; also return how many of the 5 bytes each of them has, int64 [N]."""
    groups = values[:, None] >> 7 * torch.arange(5, device=values.device)
    more = groups >= 128
    return (groups & 127 | more << 7).to(torch.uint8), 1 + more.sum(1)


def parse(data: Tensor, ends: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """Find the parts of blocks: the layout of `parse_streams`, int64 [blocks, 4], and which streams are sound, bool."""
    layout = torch.empty((cut.n_blocks, 4), dtype=torch.int64, device=data.device)
    sound = torch.empty(len(cut.streams) - 1, dtype=torch.bool, device=data.device)
    lanes = torch.tensor(blocks.LANES, dtype=torch.int32, device=data.device)
    cuda_kernels.parse_streams[(len(sound),)](data, ends, cut.streams, cut.bounds, lanes, layout, sound, num_warps=1)
    return layout, sound


def decode_blocks(
    data: Tensor, layout: Tensor, indices: Tensor, cut: Cut, tables: DeviceTables, symbols: Tensor
) -> Tensor:
    """Write the symbols of all blocks; return which streams are sound, bool [streams]."""
    escaped = torch.empty(len(indices), dtype=torch.uint8, device=data.device)
    sound = torch.empty(cut.n_blocks, dtype=torch.bool, device=data.device)
    coded = (data, layout, indices, cut.bounds, *tables.entries)
    found = (symbols, escaped, sound)
    cuda_kernels.pop_blocks[(cut.n_blocks,)](*coded, tables.lut, tables.cdf, tables.stride, *found, num_warps=1)
    escapes = escaped.nonzero().flatten()
    firsts = torch.searchsorted(escapes, cut.bounds)
    cuda_kernels.fill_escapes[(cut.n_blocks,)](data, layout, escapes, firsts, indices, *tables.entries, symbols, sound)
    return starts_of((~sound).long())[cut.streams].diff() == 0


def complaint(data: Tensor, indices: Tensor, tables: Tables) -> str:
    """Say what is wrong with a damaged stream, as `coder.decode` does. Only such a stream is copied to the host."""
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
    """Says how streams are cut into blocks, on the device.

    bounds: int64 [blocks + 1]; block b has the symbols bounds[b] to bounds[b + 1] - 1.
    streams: int64 [streams + 1]; stream i has the blocks streams[i] to streams[i + 1] - 1.
    """

    bounds: Tensor
    streams: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Cut:
        """Cut streams of so many symbols each."""
        bounds, streams = [0], [0]
        for n in lengths:
            first = bounds[-1]
            bounds += [first + span.stop for span in blocks.cut(n)]
            streams.append(len(bounds) - 1)
        return cls(torch.tensor(bounds, device=device), torch.tensor(streams, device=device))

    @property
    def n_blocks(self) -> int:
        """The number of blocks of all streams."""
        return len(self.bounds) - 1

    @property
    def numbers(self) -> Tensor:
        """The numbers of the blocks, from 0 on."""
        return torch.arange(self.n_blocks, device=self.bounds.device)


def starts_of(sizes: Tensor) -> Tensor:
    """Return where each of N things back to back begins, and where the last ends: int64 sizes [N] -> [N + 1]."""
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def check(values: Tensor, field: str, dtypes: tuple[torch.dtype, ...], device: torch.device) -> None:
    """Raise BadInput unless the values are a tensor [N] of one of these dtypes on the device."""
    right = values.ndim == 1 and values.dtype in dtypes
    expect(right, BadInput, field, (values.dtype, tuple(values.shape)), f"[N] of {', '.join(map(str, dtypes))}")
    expect(values.is_cuda or INTERPRETED, BadInput, field, str(values.device), "a tensor on a CUDA device")
    expect(values.device == device, BadInput, field, str(values.device), str(device))


def check_rows(indices: Tensor, lengths: Sequence[int], tables: Tables, device: torch.device) -> None:
    """Raise BadInput unless the indices are rows that the tables have, as many as the streams need."""
    check(indices, "indices", INDEX_DTYPES, device)
    fits = min(lengths, default=0) >= 0 and sum(lengths) == len(indices)
    expect(fits, BadInput, "lengths", sum(lengths), f"counts whose sum is {len(indices)}")
    if len(indices):
        least, most = torch.stack(indices.aminmax()).tolist()
        rows = len(tables.sizes)
        expect(0 <= least and most < rows, BadInput, "indices", (least, most), f"0 to {rows - 1}")
