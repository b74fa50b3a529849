"""Laconic: learned image and audio compression with files that decode to the same symbols on every machine.

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
    from laconic.archive import Archive
    from laconic.describe import ArchiveInfo, FileInfo, LosslessInfo, PhotoInfo, SoundInfo
    from laconic.files import Codec, LaconicWarning, Source, compress_archive, open_archive
    from laconic.golden import selftest
    from laconic.registry import ModelInfo, PictureModel, list_models, register
    from laconic.sound import Sound
else:
    _LAZY = {
        "Archive": "archive",
        "ArchiveInfo": "describe",
        "Codec": "files",
        "FileInfo": "describe",
        "LaconicWarning": "files",
        "LosslessInfo": "describe",
        "ModelInfo": "registry",
        "PhotoInfo": "describe",
        "PictureModel": "registry",
        "Sound": "sound",
        "SoundInfo": "describe",
        "compress_archive": "files",
        "open_archive": "files",
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
    "Archive",
    "ArchiveInfo",
    "BadFile",
    "BadInput",
    "Codec",
    "FileInfo",
    "LaconicError",
    "LaconicWarning",
    "LosslessInfo",
    "ModelInfo",
    "ModelMissing",
    "PhotoInfo",
    "PictureModel",
    "Sound",
    "SoundInfo",
    "TargetOutOfReach",
    "UnsupportedFile",
    "compress",
    "compress_archive",
    "decompress",
    "info",
    "list_models",
    "open_archive",
    "register",
    "selftest",
    "verify",
]

_OF_CODEC = ("model", "device", "precision", "threads", "max_pixels")


def compress(source: Source, **options: Any) -> bytes:
    """A picture or a sound -> the bytes of a file. Options: those of `Codec` and of `Codec.compress`."""
    from laconic.files import Codec

    own = {k: options.pop(k) for k in _OF_CODEC if k in options}
    return Codec(**own).compress(source, **options)


def decompress(data: Source, **options: Any) -> Any:
    """The bytes of a file, its path or a file object -> PIL.Image or Sound. Options: of `Codec` and `Codec.decompress`."""
    from laconic.files import Codec

    own = {k: options.pop(k) for k in _OF_CODEC if k in options}
    return Codec(**own).decompress(data, **options)


def info(data: Source) -> FileInfo:
    """What is in a file: medium, size, model, chunks and what else its medium has. Only the header and the chunk table are read."""
    from laconic.files import info

    return info(data)


def verify(data: Source) -> None:
    """Check every checksum, length and symbol of a file. Raises BadFile, ModelMissing."""
    from laconic.files import verify

    verify(data)
