"""A column of coded files in Hugging Face data sets: `Features({"image": laconic.dataset.hf.Coded()})`.

Importing it registers the feature, which a data set on disk needs before it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow
from datasets.features.features import register_feature

from laconic import api


@dataclass
class Coded:
    """Holds the bytes of .lac files, and gives a PIL.Image or `Sound` for each. decode: False gives the bytes."""

    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "bytes"
    pa_type: ClassVar[Any] = pyarrow.binary()
    _type: str = field(default="LaconicCoded", init=False, repr=False)

    def __call__(self) -> Any:
        return self.pa_type

    def encode_example(self, value: bytes) -> bytes:
        """Return the bytes as they are stored."""
        return bytes(value)

    def decode_example(self, value: bytes, token_per_repo_id: Any = None) -> Any:
        """Decode a file. Raises BadFile, ModelMissing."""
        return api.decompress(value)

    def cast_storage(self, storage: Any) -> Any:
        """Return a column of bytes as it is stored."""
        return storage.cast(self.pa_type)


register_feature(Coded, "LaconicCoded")
