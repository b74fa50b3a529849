"""Stages of Ray Data, for `map_batches`: `Compress` makes a column of files, `Decompress` makes samples of them again.

    dataset.map_batches(Compress, fn_constructor_kwargs={"quality": 60}, concurrency=4)

Each actor loads the models once. This module needs no Ray itself (extra `ray`; docs/dataset.md). Batches are of NumPy.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from laconic.api import Codec, CodecOptions
from laconic.entropy.errors import BadInput, expect
from laconic.options import CompressOptions
from laconic.sound import Sound
from laconic.sources import Source

Batch = dict[str, NDArray[Any]]


class Compress:
    """Compresses a column: pictures as arrays (uint8 or uint16 [H, W] or [H, W, C]), paths, or the bytes of files.

    column: what is coded, and left out of what comes out. to: the new column, of bytes.
    options: the keywords of `laconic.compress`; of arrays that are sounds, [T] or [T, C], sample_rate too. threads: 1 by
    default, as an actor has one CPU. Raises BadInput, ModelMissing.
    """

    def __init__(self, column: str = "image", to: str = "lac", **options: Any) -> None:
        own = {name: value for name, value in options.items() if name in CodecOptions.__annotations__}
        self.codec = Codec(**({"threads": 1} | own))
        self.options = cast(CompressOptions, {name: value for name, value in options.items() if name not in own})
        self.column, self.to = column, to

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch with the column coded, and all others as they were."""
        sources = [opened(value) for value in taken(batch, self.column)]
        if self.codec.device == "cuda" and "sample_rate" not in self.options:
            coded = self.codec.compress_batch(sources, **self.options)
        else:
            coded = [self.codec.compress(source, **self.options) for source in sources]
        return left(batch, self.column) | {self.to: of_objects(coded)}


class Decompress:
    """Decompresses a column of files to arrays: pictures [H, W, C] or [H, W], sounds [T, C].

    column: what is decoded, and left out of what comes out. to: the new column; beside it, of sounds, `sample_rate`.
    options: the keywords of `laconic.Codec`; threads: 1 by default. Raises BadInput, BadFile, ModelMissing.
    """

    def __init__(self, column: str = "lac", to: str = "image", **options: Any) -> None:
        self.codec = Codec(**({"threads": 1} | options))
        self.column, self.to = column, to

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch with the column decoded, and all others as they were."""
        found = self.codec.decompress_batch([bytes(file) for file in taken(batch, self.column)], as_array=True)
        out = left(batch, self.column)
        if all(isinstance(one, Sound) for one in found):
            return out | {self.to: stacked([s.samples for s in found]), "sample_rate": np.array([s.sample_rate for s in found])}
        expect(not any(isinstance(one, Sound) for one in found), BadInput, "batch", "pictures and sounds", "one of them")
        return out | {self.to: stacked(found)}


def taken(batch: Batch, column: str) -> NDArray[Any]:
    """Return a column. Raises BadInput where it is missing."""
    expect(column in batch, BadInput, "column", column, f"one of {', '.join(batch)}")
    return batch[column]


def left(batch: Batch, column: str) -> Batch:
    """Return all other columns."""
    return {name: values for name, values in batch.items() if name != column}


def opened(value: Any) -> Source:
    """Return what `compress` takes for a value of a column: a file for bytes."""
    return io.BytesIO(value) if isinstance(value, bytes) else cast(Source, value)


def stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays in one, with a new axis in front if they have one shape and dtype, else as objects."""
    alike = len({(array.shape, array.dtype) for array in arrays}) == 1
    return np.stack(arrays) if alike else of_objects(arrays)


def of_objects(values: Iterable[Any]) -> NDArray[Any]:
    """Return an array of objects, [N]."""
    some = list(values)
    out = np.empty(len(some), object)
    for i, value in enumerate(some):
        out[i] = value
    return out
