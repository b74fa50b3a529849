"""Tables on the device where symbols are, for kernels and for likelihoods; uploaded once."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.entropy.tables import Tables


@dataclass(frozen=True)
class DeviceTables:
    """Tables on the device.

    cdf: int32 [rows, stride]. bits: float32 [rows, stride - 1]. offsets, sizes: int32 [rows].
    lut: int64 [rows, 512], of the first two entries a and b in a bin: start of a, start of b << 16, last slot of b << 32,
    b << 48. Where a fills the bin it takes the place of b. Unlike `Tables.decode_lut` it has the entry, not the symbol,
    and so any tables have it.
    """

    cdf: Tensor
    bits: Tensor
    offsets: Tensor
    sizes: Tensor
    lut: Tensor

    @property
    def entries(self) -> tuple[Tensor, Tensor]:
        return self.offsets, self.sizes

    @property
    def stride(self) -> int:
        return self.cdf.shape[1]


def on_device(tables: Tables, device: torch.device) -> DeviceTables:
    """Kept for as long as the tables are."""
    key = id(tables), device
    if key not in KEPT:
        arrays = tables.cdf.astype(np.int32), tables.bits, tables.offsets, tables.sizes, entry_lut(tables)
        KEPT[key] = DeviceTables(*(torch.from_numpy(array.copy()).to(device) for array in arrays))
        weakref.finalize(tables, KEPT.pop, key)
    return KEPT[key]


KEPT: dict[tuple[int, torch.device], DeviceTables] = {}


def entry_lut(tables: Tables) -> NDArray[np.int64]:
    """See `DeviceTables`."""
    start, boundary, last, b = tables.bin_pairs()
    lut: NDArray[np.int64] = start | boundary << 16 | last << 32 | b << 48
    return lut
