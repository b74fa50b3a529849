"""The range coder of constriction (Bamler 2022, arXiv:2201.01741) in our block layout: a referee, an alternative.

Its stream is its own, so no file holds it: what this backend encodes, only this backend decodes. Symbols are coded row
by row, in order within a row, so that a model is made once per row. The states of the lanes are unused and stay at the
start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.pmf import TOTAL
from laconic.entropy.rans import START
from laconic.entropy.tables import Tables


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """Code a block as `rans.encode_block` does, into other words: two for each 32-bit word of constriction."""
    entries = tables.entries(symbols, indices)
    coder = constriction.stream.queue.RangeEncoder()
    for where, model in row_models(indices, tables):
        coder.encode(entries[where], model)
    words = coder.get_compressed().astype("<u4").view("<u2")
    return [START] * n_lanes, words, tables.escapes(symbols, indices)


def decode_block(
    states: list[int], words: NDArray[np.uint16], indices: NDArray[Any], tables: Tables, out: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Decode a block as `rans.decode_block` does.

    The stream has no mark at its end, so less damage is seen than with ours.
    """
    expect(all(x == START for x in states), BadFile, "states", "another state", "the start state in every lane")
    expect(len(words) % 2 == 0, BadFile, "words", len(words), "an even number")
    decoder = constriction.stream.queue.RangeDecoder(words.astype("<u2").view("<u4"))
    symbols = tables.offsets[indices]
    try:
        for where, model in row_models(indices, tables):
            symbols[where] += decoder.decode(model, len(where))
    except AssertionError as error:
        raise BadFile(f"words: found damage ({error}), expected constriction's stream") from None
    expect(decoder.maybe_exhausted(), BadFile, "words", "more than the symbols need", "the end")
    out[:] = symbols.astype(np.int16)
    return tables.escaped(symbols, indices)


def row_models(indices: NDArray[Any], tables: Tables) -> Iterator[tuple[NDArray[np.intp], object]]:
    """Yield, for each row in use, the positions of its symbols and its model.

    A row of one entry needs no bits, so no model.
    """
    for row in np.unique(indices).tolist():
        size = int(tables.sizes[row])
        if size > 1:
            masses = np.diff(tables.cdf[row, : size + 1].astype(np.float64)) / TOTAL
            yield np.flatnonzero(indices == row), constriction.stream.model.Categorical(masses, perfect=False)
