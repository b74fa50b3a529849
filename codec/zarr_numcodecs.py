"""Codecs of numcodecs for arrays of zarr's second format: `compressor=laconic.zarr_numcodecs.Image()`, or `Sound()`.

numcodecs finds them by entry points of its group. They write the same chunks as the codecs of laconic.zarr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from laconic import zarr_chunks
from laconic.entropy.errors import BadInput, expect
from laconic.zarr_chunks import Coder, Pictures, Sounds

try:
    from numcodecs.abc import Codec
    from numcodecs.compat import ndarray_copy
except ImportError as error:
    raise ImportError(f"numcodecs: found none ({error}), expected it: pip install laconic-codec[zarr]") from error

__all__ = ["NAMES", "Image", "Sound"]


class Compressor(Codec):
    """Turns arrays into bytes and back: what both codecs share."""

    codec_id: ClassVar[str]
    OPTIONS: ClassVar[type[Coder]]

    def __init__(self, **options: Any) -> None:
        self.coder = self.OPTIONS(**options)

    def encode(self, buf: NDArray[Any]) -> bytes:
        """Return the bytes of a chunk. Raises BadInput for what has no shape, and for types and shapes not taken."""
        expected = "a NumPy array: no filter before this codec may flatten it"
        expect(isinstance(buf, np.ndarray), BadInput, "chunk", type(buf).__name__, expected)
        return zarr_chunks.encode(self.coder, buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return a chunk, laid out in memory as it was given; or copy it into out, and return that. Raises BadFile."""
        array = zarr_chunks.decode(self.coder, np.ascontiguousarray(buf).data if isinstance(buf, np.ndarray) else buf)
        return array if out is None else ndarray_copy(array, out)

    def get_config(self) -> dict[str, Any]:
        """Return what stands in an array's metadata."""
        return {"id": self.codec_id, **zarr_chunks.configuration(self.coder)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the codec of an array's metadata. Raises BadInput for options that it does not have."""
        options = {name: value for name, value in config.items() if name != "id"}
        zarr_chunks.check_options(cls.codec_id, options, {field.name for field in fields(cls.OPTIONS)})
        return cls(**options)


class Image(Compressor):
    """Codes pictures and stacks of them, with the options of `laconic.zarr_chunks.Pictures`. Raises BadInput."""

    codec_id = "laconic.image"
    OPTIONS = Pictures


class Sound(Compressor):
    """Codes sounds and electrodes, with the options of `laconic.zarr_chunks.Sounds`. Raises BadInput."""

    codec_id = "laconic.sound"
    OPTIONS = Sounds


NAMES = {codec.codec_id: codec for codec in (Image, Sound)}  # as pyproject.toml's entry points have them
