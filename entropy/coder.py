"""The entropy coder: integers to bytes and back, by a backend that is chosen by name.

All backends but constriction write the same bytes and read each other's. Kernels are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy import blocks
from laconic.entropy.blocks import Backend, BatchBackend
from laconic.entropy.errors import BadInput, expect
from laconic.entropy.tables import Tables, integers

if TYPE_CHECKING:  # holds each module to its protocol
    from laconic.entropy import rans, rans_constriction, rans_numba, rans_simd

    CHECKED: tuple[BatchBackend, Backend, Backend, Backend] = rans_simd, rans_numba, rans, rans_constriction

BACKENDS = {
    "simd": "laconic.entropy.rans_simd",
    "numba": "laconic.entropy.rans_numba",
    "reference": "laconic.entropy.rans",
    "constriction": "laconic.entropy.rans_constriction",
}
CUDA = "cuda"  # codes all blocks at once, so it is no `Backend`: see `rans_cuda`
SPARE_WORDS = {"constriction": 4}  # beyond one per symbol: its stream ends on whole 32-bit words


def encode(
    symbols: ArrayLike,
    indices: ArrayLike,
    tables: Tables,
    backend: str = "simd",
    threads: int | None = None,
) -> bytes:
    """Code integers, each with a row of the tables.

    symbols: integers [N] in -2**15 .. 2**15 - 1. indices: rows of the tables, integers [N].
    backend: one of BACKENDS, or "cuda"; all but constriction, which reads only its own bytes, write the same bytes.
    threads: how many blocks are coded at a time; None is one per core. The arrays must not change meanwhile.
    Raises BadInput.
    """
    values, rows = integers(symbols, "symbols"), integers(indices, "indices")
    expect(len(values) == len(rows), BadInput, "indices", len(rows), f"{len(values)}, one per symbol")
    if backend == CUDA:
        from laconic.entropy import rans_cuda

        return rans_cuda.encode_array(blocks.symbols_of(values), blocks.rows_of(rows, tables), tables)
    return blocks.encode_with(load(backend), values, rows, tables, threads)


def decode(
    data: bytes | memoryview,
    indices: ArrayLike,
    tables: Tables,
    backend: str = "simd",
    threads: int | None = None,
) -> NDArray[np.int16]:
    """Return the symbols int16 [N] that `encode` was given, with the same indices and tables.

    Raises BadFile if the data are damaged or longer than the symbols need.
    """
    symbols, rest = decode_next(data, indices, tables, backend, threads)
    blocks.expect_nothing_left(rest)
    return symbols


def decode_next(
    data: bytes | memoryview,
    indices: ArrayLike,
    tables: Tables,
    backend: str = "simd",
    threads: int | None = None,
) -> tuple[NDArray[np.int16], memoryview]:
    """Decode as `decode` does, from data that may go on: also return the bytes after the coded symbols."""
    rows, raw = integers(indices, "indices"), blocks.flat(data)
    if backend == CUDA:
        from laconic.entropy import rans_cuda

        end = blocks.end_of(raw, 0, len(rows))
        return rans_cuda.decode_array(raw[:end], blocks.rows_of(rows, tables), tables), raw[end:]
    return blocks.decode_with(load(backend), raw, rows, tables, threads, SPARE_WORDS.get(backend, 0))


def load(backend: str) -> Backend:
    """Import the kernels of a backend. Raises BadInput if there is none of that name."""
    expect(backend in BACKENDS, BadInput, "backend", backend, f"one of {', '.join([*BACKENDS, CUDA])}")
    module: Backend = import_module(BACKENDS[backend])
    return module
