"""Mixed y: a tile as decisions that learn as they go (FORMAT.md, section "Mixed y"; models/photo_mixing.py).

It is smaller than the same passes as coded symbols, and slower: a symbol waits for the one before.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from laconic.entropy.tables import Tables
from laconic.media.photo_slices import N_PASSES, Passes

if TYPE_CHECKING:
    from torch import Tensor


class Mixed(bytes):
    """Holds the payload of a tile that is mixed y."""


def encode(passes: Passes, shape: tuple[int, int, int], tables: Tables) -> Mixed:
    """Return a tile as mixed y. shape: of the tile of y."""
    from laconic.models import photo_mixing  # compiles kernels, which few files need

    return Mixed(photo_mixing.encode(passes, photo_mixing.Shape(*shape), tables))


def decode(payload: Mixed, passes: Generator[Tensor, Tensor], shape: tuple[int, int, int], tables: Tables) -> Tensor:
    """Return the symbols of a tile, int16 [M, h, w]. Raises BadFile.

    passes: yields the table indices of a pass, takes its symbols, and at last yields what is returned (`_tile_symbols` of
    photo_coder.py).
    """
    import torch

    from laconic.models import photo_mixing

    decoder = photo_mixing.Decoder.of(payload, photo_mixing.Shape(*shape), tables)
    indices = next(passes)
    for n in range(N_PASSES):
        indices = passes.send(torch.from_numpy(decoder.next_pass(n, indices.cpu().numpy())))
    decoder.finish()
    return indices
