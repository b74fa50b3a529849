"""The entropy coder: integers <-> bytes, by quantised PMFs, tables of them, and rANS. It needs no model of ours.

    tables = entropy.gaussian_tables()
    data = entropy.encode(symbols, indices, tables)
    symbols = entropy.decode(data, indices, tables)

Importing it loads neither numba nor torch nor NumPy: they come with the first use.
"""

from typing import TYPE_CHECKING, Any

from laconic.entropy.environment import prepare
from laconic.entropy.errors import BadFile, BadInput, LaconicError

prepare()

if TYPE_CHECKING:
    from laconic.entropy.coder import BACKENDS, decode, decode_next, encode
    from laconic.entropy.tables import Tables, gaussian_tables
else:
    _LAZY = {
        "BACKENDS": "coder",
        "Tables": "tables",
        "decode": "coder",
        "decode_next": "coder",
        "encode": "coder",
        "gaussian_tables": "tables",
    }

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            from importlib import import_module

            return getattr(import_module(f"laconic.entropy.{_LAZY[name]}"), name)
        raise AttributeError(f"module 'laconic.entropy' has no attribute {name!r}")

__all__ = [
    "BACKENDS",
    "BadFile",
    "BadInput",
    "LaconicError",
    "Tables",
    "decode",
    "decode_next",
    "encode",
    "gaussian_tables",
]
