"""Slices of y: how a progressive file cuts the passes of a tile (FORMAT.md, section "Progressive photo").

    pass 0  ─ slice 1, 2, ... n         the first slices hold the samples that the tables expect to be large
    pass 1  ─ slice n + 1, ... 2 n      ...

Table rows depend on earlier passes alone, so the samples of a pass can be coded in any order, and cut anywhere, at the price
of a few bytes per cut. What is not there yet is 0 on its predicted mean, which is what the decoder puts there anyway.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from laconic import entropy
from laconic.entropy.tables import Tables

if TYPE_CHECKING:
    from torch import Tensor

Symbols = NDArray[np.int16]
Rows = NDArray[np.uint8]
Passes = list[tuple[Symbols, Rows]]  # symbols and table indices of each pass of a tile
Slices = list[memoryview | bytes | None]  # payloads of the slices of a tile; None is what is not there

N_PASSES = 4  # as in models/photo.py, which loads torch
FREE_ROWS = 7  # symbols of rows up to this one are nearly always 0; from there on a row more is about 1/8 bit more
MOST_PER_PASS = 4  # of a writer; a reader takes up to 8 (photo_models.py)
BYTES_PER_SLICE = 10  # its line in the table of chunks, head, state and rounding: about 9, measured
SHARE = 0.015  # of the file's bytes, which slices may cost


def encode(passes: Passes, channels: int, n: int, tables: Tables, threads: int | None) -> list[bytes]:
    """Return the payloads of all slices of a tile, n of each pass. channels: of y."""
    return [
        entropy.encode(symbols[where], rows[where], tables, threads=threads)
        for symbols, rows in passes
        for where in places(rows, channels, n)
    ]


def decode(payloads: Slices, passes: Generator[Tensor, Tensor], channels: int, tables: Tables, threads: int | None) -> Tensor:
    """Return the symbols of a tile, int16 [M, h, w], up to the first slice that is not there, and zeros from there on.

    passes: yields the table indices of a pass, takes its symbols, and at last yields what is returned (`_tile_symbols` of
    photo_coder.py). Raises BadFile.
    """
    import torch

    left = iter(payloads[: known_slices(payloads)])
    indices = next(passes)
    for _ in range(N_PASSES):
        rows = indices.cpu().numpy()
        found = np.zeros(len(rows), np.int16)
        for where, payload in zip(places(rows, channels, len(payloads) // N_PASSES), left, strict=False):
            found[where] = entropy.decode(payload or b"", rows[where], tables, threads=threads)
        indices = passes.send(torch.from_numpy(found))
    return indices


def known_slices(tile: Slices) -> int:
    """Return how many slices of a tile can be read: those before the first one that is not there."""
    return next((k for k, payload in enumerate(tile) if payload is None), len(tile))


def places(rows: Rows, channels: int, n: int) -> list[NDArray[np.intp]]:
    """Return which symbols of a pass each of its n slices holds: rising positions in the order of the pass.

    rows: the table index of each symbol, as many of each channel, channel by channel. Symbols are taken by falling rank,
    of equals the first one first, until they make up 1/2**(n - 1) of the weight of all, then twice as much, and so on; the
    last slice has the rest. The rank is the index plus the mean index of the channel: by the index alone the calm parts of
    a picture would get their colours later than the others, and look wrong until then. Integers only.
    """
    by_channel = rows.reshape(channels, -1)
    means = by_channel.sum(1, keepdims=True, dtype=np.int64) // max(1, by_channel.shape[1])
    order = np.argsort(255 - (by_channel + means).ravel().astype(np.uint8), kind="stable")
    weights = np.maximum(rows[order].astype(np.int64) - FREE_ROWS, 0)
    before, total = weights.cumsum() - weights, int(weights.sum())
    edges = [int(np.searchsorted(before << (n - 1), total << k)) for k in range(n - 1)]
    return [np.sort(part) for part in np.split(order, edges)]


def per_pass(tiles: Sequence[Passes], tables: Tables) -> int:
    """Return how many slices a pass of a picture is worth: MOST_PER_PASS, or as few as keep their cost within SHARE."""
    n_bytes = sum(float(tables.costs(*coded).sum(dtype=np.float64)) for passes in tiles for coded in passes) / 8
    return max(1, min(MOST_PER_PASS, int(SHARE * n_bytes / (BYTES_PER_SLICE * N_PASSES * len(tiles)))))
