"""The entropy coder: integers <-> bytes, by quantised PMFs, tables of them, and rANS. It needs no model of ours.

    tables = entropy.gaussian_tables()
    data = entropy.encode(symbols, indices, tables)
    symbols = entropy.decode(data, indices, tables)

Importing it loads neither numba nor torch.
"""

from laconic.entropy.coder import BACKENDS, decode, decode_next, encode
from laconic.entropy.errors import BadFile, BadInput, LaconicError
from laconic.entropy.tables import Tables, gaussian_tables

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
