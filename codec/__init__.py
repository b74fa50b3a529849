"""Laconic: learned image compression with files that decode to the same symbols on every machine.

    data = laconic.compress("photo.png", quality=60)
    image = laconic.decompress(data)

Importing it loads neither torch nor numba: they come with the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from laconic.entropy.errors import (
    BadFile,
    BadInput,
    LaconicError,
    ModelMissing,
    TargetOutOfReach,
    UnsupportedFile,
)

if TYPE_CHECKING:
    from laconic.files import Codec, FileInfo, LaconicWarning, Source
    from laconic.golden import selftest
    from laconic.registry import ModelInfo, PictureModel, list_models, register
else:
    _LAZY = {
        "Codec": "files",
        "FileInfo": "files",
        "LaconicWarning": "files",
        "ModelInfo": "registry",
        "PictureModel": "registry",
        "list_models": "registry",
        "register": "registry",
        "selftest": "golden",
    }

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            from importlib import import_module

            return getattr(import_module(f"laconic.{_LAZY[name]}"), name)
        raise AttributeError(f"module 'laconic' has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "BadFile",
    "BadInput",
    "Codec",
    "FileInfo",
    "LaconicError",
    "LaconicWarning",
    "ModelInfo",
    "ModelMissing",
    "PictureModel",
    "TargetOutOfReach",
    "UnsupportedFile",
    "compress",
    "decompress",
    "info",
    "list_models",
    "register",
    "selftest",
    "verify",
]

_OF_CODEC = ("model", "device", "precision", "threads", "max_pixels")


def compress(image: Source, **options: Any) -> bytes:
    """A picture -> the bytes of a file. Options: those of `Codec` and of `Codec.compress`."""
    from laconic.files import Codec

    own = {k: options.pop(k) for k in _OF_CODEC if k in options}
    return Codec(**own).compress(image, **options)


def decompress(data: Source, **options: Any) -> Any:
    """The bytes of a file, its path or a file object -> PIL.Image. Options: of `Codec` and `Codec.decompress`."""
    from laconic.files import Codec

    own = {k: options.pop(k) for k in _OF_CODEC if k in options}
    return Codec(**own).decompress(data, **options)


def info(data: Source) -> FileInfo:
    """What is in a file: medium, size, quality, model, chunks. Only the header and the chunk table are read."""
    from laconic.files import info

    return info(data)


def verify(data: Source) -> None:
    """Check every checksum, length and symbol of a file. Raises BadFile, ModelMissing."""
    from laconic.files import verify

    verify(data)
