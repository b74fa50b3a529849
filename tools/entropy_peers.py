"""The contestants of `python -m laconic.tools.bench entropy`: our backends and the entropy coders of others.

A contestant makes tables of a workload in its own way, takes its input in the form that it likes best, and codes it
once: what it decodes is compared with the symbols before anything is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import laconic
from laconic import entropy
from laconic.entropy import rans_simd
from laconic.entropy.errors import expect
from laconic.tools.metrics import needed
from laconic.tools.workloads import COMPRESSAI_BITS, ZOO, Workload

SLOW_SYMBOLS = 1 << 20  # what slow contestants code at most
LOOKUP_BITS = 8  # for torch_ans's inverse CDF: from 5 to 9 the fastest


@dataclass(frozen=True)
class Run:
    """Holds a contestant, ready: the calls to time, what it coded in how many bytes, the ideal bits of its tables if known."""

    encode: Callable[[], Any]
    decode: Callable[[], Any]
    work: Workload
    n_bytes: int
    table_bits: float | None


Contestant = Callable[[Workload, int], Run | None]  # None: not for this workload


def ours(backend: str, most: int = sys.maxsize, cpu: str = rans_simd.NATIVE) -> Contestant:
    """Return a backend of ours. most: symbols that it codes. cpu: whose vector instructions are used."""

    def ready(whole: Workload, threads: int) -> Run:
        work = whole.first(most)
        how = work.rows, work.tables, backend, threads

        def encode() -> bytes:
            with instructions_of(cpu):
                return entropy.encode(work.symbols, *how)

        data = encode()

        def decode() -> NDArray[np.int16]:
            with instructions_of(cpu):
                return entropy.decode(data, *how)

        same(backend, decode(), work.symbols)
        return Run(encode, decode, work, len(data), work.tables.codelength(work.symbols, work.rows))

    return ready


@contextmanager
def instructions_of(cpu: str) -> Iterator[None]:
    """Compile for another processor in the block."""
    before, rans_simd.CPU = rans_simd.CPU, cpu
    try:
        yield
    finally:
        rans_simd.CPU = before


def cuda(work: Workload, threads: int) -> Run:
    """Return our coder from tensors to tensors on the GPU, as networks have them."""
    import torch

    from laconic.entropy import rans_cuda

    symbols, rows = (torch.from_numpy(array).cuda() for array in (work.symbols, work.rows))

    def finished(out: Any) -> Any:
        torch.cuda.synchronize()
        return out

    def encode() -> Any:
        return finished(rans_cuda.encode(symbols, rows, work.tables))

    data = encode()

    def decode() -> Any:
        return finished(rans_cuda.decode(data, rows, work.tables))

    same("cuda", decode().cpu().numpy(), work.symbols)
    return Run(encode, decode, work, len(data), work.tables.codelength(work.symbols, work.rows))


def constriction_sorted(kind: str, given: str) -> Contestant:
    """Return constriction with one model for each row. kind: "range" or "ans".

    Symbols have to be sorted by row: with given "arrays" they are, and are put back, within the time.

    Escapes are coded without their values. Its tables have 24 bits and cannot be read.
    """

    def ready(work: Workload, threads: int) -> Run:
        stream = needed("constriction", "constriction").stream
        entries = work.tables.entries(work.symbols, work.rows)
        rows, counts = np.unique(work.rows, return_counts=True)
        models = [stream.model.Categorical(work.pmfs[row], perfect=False) for row in rows]
        sizes, edges = counts.tolist(), np.cumsum(counts)[:-1]

        def sort() -> list[NDArray[Any]]:
            return np.split(entries[np.argsort(work.rows, kind="stable")], edges)

        def encode(parts: list[NDArray[Any]]) -> Any:
            if kind == "range":
                coder = stream.queue.RangeEncoder()
                for part, model in zip(parts, models, strict=True):
                    coder.encode(part, model)
            else:
                coder = stream.stack.AnsCoder()
                for part, model in zip(reversed(parts), reversed(models), strict=True):
                    coder.encode_reverse(part, model)
            return coder.get_compressed()

        parts = sort()
        words = encode(parts)

        def decode() -> list[Any]:
            coder = stream.queue.RangeDecoder(words) if kind == "range" else stream.stack.AnsCoder(words)
            return [coder.decode(model, n) for model, n in zip(models, sizes, strict=True)]

        def put_back() -> NDArray[Any]:
            out = np.empty_like(entries)
            out[np.argsort(work.rows, kind="stable")] = np.concatenate(decode())
            return out

        same("constriction", put_back(), entries)
        if given == "sorted":
            return Run(lambda: encode(parts), decode, work, 4 * len(words), None)
        return Run(lambda: encode(sort()), put_back, work, 4 * len(words), None)

    return ready


def constriction_gaussian(whole: Workload, threads: int) -> Run | None:
    """Return constriction with one scale for each symbol, in the order of the symbols."""
    if whole.scales is None:
        return None
    stream, work = needed("constriction", "constriction").stream, whole.first(SLOW_SYMBOLS)
    symbols, scales = work.symbols.astype(np.int32), whole.scales[work.rows]
    model, means = stream.model.QuantizedGaussian(int(symbols.min()), int(symbols.max())), np.zeros(len(symbols))

    def encode() -> Any:
        coder = stream.queue.RangeEncoder()
        coder.encode(symbols, model, means, scales)
        return coder.get_compressed()

    words = encode()

    def decode() -> Any:
        return stream.queue.RangeDecoder(words).decode(model, means, scales)

    same("constriction", decode(), symbols)
    return Run(encode, decode, work, 4 * len(words), None)


def torch_ans(work: Workload, threads: int) -> Run:
    """Return rans64 with four states per stream, decoded by a lookup, one stream per thread: its fastest variant here.

    `set_cdfs` takes our 15-bit tables. Its kernel reads a row's lookup right after the row's own end, where its own
    builder puts it only if all rows are equally long, so each row's is made apart.
    """
    import torch

    api = needed("torch_ans.utils", "laconic-codec[bench]")
    torch.set_num_threads(threads)
    coder = api.TorchANSInterface(
        impl="rans64",
        freq_precision=15,
        num_interleaves=4,
        num_parallel_states=threads,
        inverse_cdf_precision=LOOKUP_BITS,
        device="cpu",
    )
    n_cdf = work.tables.sizes + 1
    rows = [torch.from_numpy(row[:n].astype(np.int32)) for row, n in zip(work.tables.cdf, n_cdf, strict=True)]
    rows = [api.build_cdf_with_inverse_table(row, 15, LOOKUP_BITS) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    coder.set_cdfs(padded, torch.from_numpy(n_cdf), torch.from_numpy(work.tables.offsets))
    symbols, indices = (torch.from_numpy(array.astype(np.int32)) for array in (work.symbols, work.rows))

    def encode() -> Any:
        return coder.encode_with_indexes(symbols, indices)

    data = encode()

    def decode() -> Any:
        return coder.decode_with_indexes(data, indices)

    same("torch_ans", decode().numpy(), work.symbols)
    return Run(encode, decode, work, len(data), work.tables.codelength(work.symbols, work.rows))


def compressai(given: str) -> Contestant:
    """Return CompressAI's coder, which takes and gives lists.

    With given "arrays" the lists are made of arrays, and arrays of them, within the time.
    """

    def ready(whole: Workload, threads: int) -> Run:
        api, work = needed("compressai.ans", ZOO), whole.first(SLOW_SYMBOLS)
        quantised = needed("compressai._CXX", ZOO).pmf_to_quantized_cdf
        cdfs = [quantised(p.tolist(), COMPRESSAI_BITS) for p in work.pmfs]
        how = cdfs, [len(cdf) for cdf in cdfs], work.tables.offsets.tolist()
        symbols, rows = work.symbols.tolist(), work.rows.tolist()

        def encode_lists() -> Any:
            return api.RansEncoder().encode_with_indexes(symbols, rows, *how)

        def encode_arrays() -> Any:
            return api.RansEncoder().encode_with_indexes(work.symbols.tolist(), work.rows.tolist(), *how)

        data = encode_lists()

        def decode_lists() -> Any:
            return api.RansDecoder().decode_with_indexes(data, rows, *how)

        def decode_arrays() -> Any:
            return np.array(api.RansDecoder().decode_with_indexes(data, work.rows.tolist(), *how), np.int16)

        same("compressai", decode_arrays(), work.symbols)
        pair = (encode_lists, decode_lists) if given == "lists" else (encode_arrays, decode_arrays)
        return Run(*pair, work, len(data), work.codelength([np.diff(cdf) for cdf in cdfs]))

    return ready


PEERS: dict[str, tuple[str, str, Contestant]] = {  # name: its module, what brings it, itself
    "constriction range, sorted": ("constriction", "constriction", constriction_sorted("range", "sorted")),
    "constriction ans, sorted": ("constriction", "constriction", constriction_sorted("ans", "sorted")),
    "constriction range, arrays": ("constriction", "constriction", constriction_sorted("range", "arrays")),
    "constriction gaussian": ("constriction", "constriction", constriction_gaussian),
    "torch_ans rans64 x4": ("torch_ans", "laconic-codec[bench]", torch_ans),
    "compressai, lists": ("compressai.ans", ZOO, compressai("lists")),
    "compressai, arrays": ("compressai.ans", ZOO, compressai("arrays")),
}


def same(name: str, found: NDArray[Any], symbols: NDArray[Any]) -> None:
    """Raise LaconicError unless a contestant decoded what it coded."""
    expect(np.array_equal(found, symbols), laconic.LaconicError, name, "other symbols", "those that it coded")
