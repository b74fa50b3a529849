"""What is in a file, from its header and chunk table alone: no network, no payload."""

from __future__ import annotations

from dataclasses import dataclass

from laconic import container, lossless_picture, lossless_sound
from laconic.container import Data
from laconic.entropy.errors import UnsupportedFile, expect
from laconic.fields import MAX_SIDE, unpack
from laconic.kinds import ARCHIVE, KIND_NAMES, LOSSLESS_PICTURE, MEDIA, PHOTO, SOUND


@dataclass(frozen=True)
class FileInfo:
    """Of every file: medium, the model's name and digest (empty without one), bytes, (kind, bytes) of its chunks."""

    medium: str
    model: str
    digest: str
    n_bytes: int
    chunks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PhotoInfo(FileInfo):
    """A photo. tile: pixels a side; bpp: bits a pixel."""

    width: int
    height: int
    gray: bool
    quality: float
    tile: int
    bpp: float


@dataclass(frozen=True)
class LosslessInfo(FileInfo):
    """A lossless picture, or one whose samples are off by max_error at most. bpsp: bits a sample of a channel."""

    width: int
    height: int
    channels: int
    bits: int
    max_error: int
    bpp: float
    bpsp: float


@dataclass(frozen=True)
class SoundInfo(FileInfo):
    """A sound; seconds long, kbit_per_s (1000 bits a second). floating: whether its samples are floats."""

    sample_rate: int
    channels: int
    bits: int
    floating: bool
    n_samples: int
    seconds: float
    kbit_per_s: float


@dataclass(frozen=True)
class ArchiveInfo(FileInfo):
    """An archive of n_pictures of one size. bpd: bits a sample."""

    n_pictures: int
    width: int
    height: int
    bpd: float


def describe(data: Data) -> FileInfo:
    """Raises BadFile, UnsupportedFile."""
    header, table = container.read_table(data, partial=True)
    medium = header.medium
    expect(medium in MEDIA, UnsupportedFile, "medium", medium, f"one of {MEDIA}")
    chunks = tuple((KIND_NAMES.get(entry.kind, f"kind {entry.kind}"), entry.length) for entry in table)
    common = (MEDIA[medium], header.model, header.digest.hex(), len(data), chunks)
    bits = 8 * len(data)
    if medium == PHOTO:
        photo = unpack(header.fields, MAX_SIDE**2)
        size = (photo.width, photo.height)
        return PhotoInfo(*common, *size, photo.gray, photo.quality / 100, photo.tile, bits / (size[0] * size[1]))
    if medium == LOSSLESS_PICTURE:
        exact = lossless_picture.unpack(header.fields, MAX_SIDE**2)
        bpp = bits / (exact.width * exact.height)
        shape = (exact.width, exact.height, exact.channels, exact.bits, exact.max_error)
        return LosslessInfo(*common, *shape, bpp, bpp / exact.channels)
    if medium == SOUND:
        sound = lossless_sound.unpack(header.fields)
        seconds = sound.n_samples / sound.sample_rate
        shape4 = (sound.sample_rate, sound.channels, sound.bits, sound.floating, sound.n_samples)
        return SoundInfo(*common, *shape4, seconds, bits / seconds / 1000 if seconds else 0.0)
    assert medium == ARCHIVE
    from laconic import archive

    held = archive.unpack(header.fields)
    n_samples = held.n_pictures * held.height * held.width
    return ArchiveInfo(*common, held.n_pictures, held.width, held.height, bits / max(1, n_samples))
