"""Tables on the device where the symbols are, for kernels and for likelihoods. They are uploaded once."""

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
    """Holds tables as tensors of a device.

    cdf: int32 [rows, stride]. bits: float32 [rows, stride - 1]. offsets, sizes: int32 [rows].
    lut: int64 [rows, 512], what kernels know of each bin: from bit 0 on the start of a (as `Tables.bin_pairs` names
    it), from 16 the start of b, from 32 the last slot of b, from 48 b itself. Unlike `Tables.decode_lut` it has b as an
    entry, not as a symbol, which always fits, so that it exists for any tables.
    """

    cdf: Tensor
    bits: Tensor
    offsets: Tensor
    sizes: Tensor
    lut: Tensor

    @property
    def entries(self) -> tuple[Tensor, Tensor]:
        """What kernels find the entry of a symbol by."""
        return self.offsets, self.sizes

    @property
    def stride(self) -> int:
        """The distance between rows of the CDF."""
        return self.cdf.shape[1]


def on_device(tables: Tables, device: torch.device) -> DeviceTables:
    """Return the tables on a device. They are uploaded at the first call, and kept for as long as the tables are."""
    key = id(tables), device
    if key not in KEPT:
        arrays = tables.cdf.astype(np.int32), tables.bits, tables.offsets, tables.sizes, entry_lut(tables)
        KEPT[key] = DeviceTables(*(torch.from_numpy(array.copy()).to(device) for array in arrays))
        weakref.finalize(tables, KEPT.pop, key)
    return KEPT[key]


KEPT: dict[tuple[int, torch.device], DeviceTables] = {}


def entry_lut(tables: Tables) -> NDArray[np.int64]:
    """Compute the `lut` of `DeviceTables`."""
    start, boundary, last, b = tables.bin_pairs()
    lut: NDArray[np.int64] = start | boundary << 16 | last << 32 | b << 48
    return lut
