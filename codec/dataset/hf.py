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
    """Holds the bytes of .lac files, and gives a PIL.Image or `Sound` for each. decode: False gives {"bytes": bytes}.

    They are stored as a field, as pictures of that library are: its formats for NumPy and torch cut zeros off the ends of
    plain bytes.
    """

    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "dict"
    pa_type: ClassVar[Any] = pyarrow.struct({"bytes": pyarrow.binary()})
    _type: str = field(default="LaconicCoded", init=False, repr=False)

    def __call__(self) -> Any:
        return self.pa_type

    def encode_example(self, value: bytes | dict[str, bytes]) -> dict[str, bytes]:
        """Return the bytes of a file as they are stored."""
        return {"bytes": bytes(value["bytes"] if isinstance(value, dict) else value)}

    def decode_example(self, value: dict[str, bytes], token_per_repo_id: Any = None) -> Any:
        """Decode a file. Raises BadFile, ModelMissing."""
        return api.decompress(value["bytes"])

    def cast_storage(self, storage: Any) -> Any:
        """Return a column of bytes, or of what is stored, as it is stored."""
        if pyarrow.types.is_struct(storage.type):
            return storage.cast(self.pa_type)
        return pyarrow.StructArray.from_arrays([storage.cast(pyarrow.binary())], ["bytes"], mask=storage.is_null())


register_feature(Coded, "LaconicCoded")
