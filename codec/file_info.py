"""What `laconic.info` tells of a file, from its header and chunk table alone; each medium adds what it knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileInfo:
    """Describes any file: medium, the model's name and digest (empty without one), bytes, (kind, bytes) of its chunks."""

    medium: str
    model: str
    digest: str
    n_bytes: int
    chunks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PictureInfo(FileInfo):
    """Describes a picture: its size in pixels, channels (alpha counted), bits per sample, and bits per pixel of the file."""

    width: int
    height: int
    channels: int
    bits: int
    bpp: float
