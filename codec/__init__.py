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
    from laconic.api import Codec, compress, decompress, info, open_archive, preview, verify
    from laconic.file_info import FileInfo, PictureInfo
    from laconic.golden import selftest
    from laconic.media.archive import Archive, ArchiveInfo, compress_archive
    from laconic.media.lossless_picture import LosslessInfo
    from laconic.media.lossy_sound_stream import SoundDecoder, SoundEncoder
    from laconic.media.photo import PhotoInfo
    from laconic.media.sound_parts import SoundInfo
    from laconic.media.zoo import ZooInfo
    from laconic.medium import LaconicWarning
    from laconic.registry import ModelInfo, PictureModel, list_models, register
    from laconic.sound import Sound
else:
    _LAZY = {
        "Archive": "media.archive",
        "ArchiveInfo": "media.archive",
        "Codec": "api",
        "FileInfo": "file_info",
        "LaconicWarning": "medium",
        "LosslessInfo": "media.lossless_picture",
        "ModelInfo": "registry",
        "PhotoInfo": "media.photo",
        "PictureInfo": "file_info",
        "PictureModel": "registry",
        "Sound": "sound",
        "SoundDecoder": "media.lossy_sound_stream",
        "SoundEncoder": "media.lossy_sound_stream",
        "SoundInfo": "media.sound_parts",
        "ZooInfo": "media.zoo",
        "compress": "api",
        "compress_archive": "media.archive",
        "decompress": "api",
        "info": "api",
        "list_models": "registry",
        "open_archive": "api",
        "preview": "api",
        "register": "registry",
        "selftest": "golden",
        "verify": "api",
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
    "PictureInfo",
    "PictureModel",
    "Sound",
    "SoundDecoder",
    "SoundEncoder",
    "SoundInfo",
    "TargetOutOfReach",
    "UnsupportedFile",
    "ZooInfo",
    "compress",
    "compress_archive",
    "decompress",
    "info",
    "list_models",
    "open_archive",
    "preview",
    "register",
    "selftest",
    "verify",
]
