"""The bytes of one chunk of an array: pictures or sounds, each a whole .lac file, behind lengths and before a checksum.

docs/zarr.md has the format. Neither zarr nor numcodecs is needed here: laconic.zarr and laconic.zarr_numcodecs wrap it.
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from laconic.api import compress, decompress
from laconic.entropy.errors import BadFile, BadInput, UnsupportedFile, expect
from laconic.options import MAX_ERROR, CompressOptions, Quality
from laconic.payloads import MAX_SIDE
from laconic.sound import MAX_CHANNELS, MAX_RATE, Sound

MAGIC = b"LACZ"
VERSION = 1
HEAD = struct.Struct("<4s6BI")  # magic, version, kind, bits, channels of a pixel, flags, dimensions, files
SIDE = struct.Struct("<Q")
FILE = struct.Struct("<IQ")  # rows of a picture or channels of a sound, bytes
CRC = struct.Struct("<I")
PICTURES, SOUNDS = 0, 1
FORTRAN, BIG_ENDIAN = 1, 2  # flags: how the array lay in memory, which numcodecs hands on and zarr 3 does not ask for
JOINED = 1 << 14  # pixels: smaller planes stand one below another in a picture, which saves a third of 16x16 ones
LARGEST = 1 << 26  # pixels: larger planes are cut into strips of rows
COLOURS = (1, 2, 3, 4)  # channels that one lossless picture holds
PHOTO_COLOURS = (1, 3)  # channels that the photo model holds
APART = 255  # stands for channels of a pixel where each channel is a picture of its own
MAX_DIMENSIONS = 32
Options = dict[str, int | float | bool | None]


@dataclass(frozen=True)
class Pictures:
    """Codes chunks that are a picture or a stack of them: uint8 or uint16, [..., H, W] or [..., H, W, C].

    Lossless by default. max_error: 0..255, no sample is off by more. quality: 0..100, uint8 alone, for photos. At most one
    of the two. effort: 1..9, slower and smaller. channels: whether the last axis holds the channels of a pixel; None takes
    a last axis of 1 to 4 for channels where there are three axes or more. More than 4 channels (with quality: other than 1
    or 3) are coded as a picture each. Raises BadInput.
    """

    max_error: int | None = None
    quality: float | None = None
    effort: int | None = None
    channels: bool | None = None

    kind: ClassVar[int] = PICTURES
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16")

    def __post_init__(self) -> None:
        one = self.max_error is None or self.quality is None
        expect(one, BadInput, "targets", "max_error and quality", "one of them at most")
        fits = self.max_error is None or (type(self.max_error) is int and 0 <= self.max_error <= MAX_ERROR)
        expect(fits, BadInput, "max_error", self.max_error, f"an integer, 0 to {MAX_ERROR}")
        if self.quality is not None:
            Quality(self.quality)
        check_effort(self.effort)
        expect(self.channels in (None, True, False), BadInput, "channels", self.channels, "true, false or none")

    def check(self, dtype: np.dtype[Any], n_dimensions: int) -> None:
        """Raise BadInput unless arrays of this type and this number of axes can be coded."""
        check_dtype(dtype, self.dtypes)
        depth_fits = self.quality is None or dtype.itemsize == 1
        expect(depth_fits, BadInput, "dtype with quality", dtype.name, "uint8: photos with loss have 8 bits")
        least = 3 if self.channels else 2
        what = "[..., H, W, C]" if self.channels else "[..., H, W] or [..., H, W, C]"
        expect(least <= n_dimensions <= MAX_DIMENSIONS, BadInput, "dimensions", n_dimensions, f"{least} or more: {what}")

    def check_chunk(self, shape: tuple[int, ...]) -> None:
        """Raise BadInput unless a chunk of this shape can be coded: its rows must not be too long for a picture."""
        width = shape[-2] if self.colours(shape) or self.channels else shape[-1]
        expect(width <= MAX_SIDE, BadInput, "width of a chunk", width, f"at most {MAX_SIDE}")

    def colours(self, shape: tuple[int, ...]) -> int:
        """Return how many channels of a pixel are coded together: 0 where each channel is a picture, or there are none."""
        last = len(shape) > 2 and shape[-1] in (COLOURS if self.quality is None else PHOTO_COLOURS)
        return shape[-1] if last and self.channels is not False else 0

    def files(self, array: NDArray[Any]) -> tuple[int, int, Iterator[tuple[int, bytes]]]:
        """Return channels of a pixel, whether the channel axis was moved to the front, and each file with its rows."""
        colours = self.colours(array.shape)
        apart = bool(self.channels) and not colours
        pixels = array if colours else (np.moveaxis(array, -1, 0) if apart else array)[..., None]
        height, width, depth = pixels.shape[-3:]
        rows = pixels.reshape(-1, width, depth)
        n = self.rows_of_a_picture(height, width)
        return colours, apart, ((end - at, self.picture(rows[at:end])) for at, end in cuts(len(rows), height, n))

    def rows_of_a_picture(self, height: int, width: int) -> int:
        """Return how many rows of a stack a picture takes: several planes, one, or a part of one."""
        if height * width > LARGEST or height > MAX_SIDE:
            return min(max(1, LARGEST // width), MAX_SIDE)
        planes = 1 if self.quality is not None else max(1, JOINED // (height * width))
        return planes * height

    def picture(self, rows: NDArray[Any]) -> bytes:
        """Compress [H, W, C] to a file."""
        options: CompressOptions = {"effort": self.effort, "notes": []}  # larger files than input are no news in a chunk
        if self.max_error is not None:
            options["max_error"] = self.max_error
        elif self.quality is not None:
            options["quality"] = self.quality
        else:
            options["lossless"] = True
        return compress(np.ascontiguousarray(rows[..., 0] if rows.shape[2] == 1 else rows), **options)


@dataclass(frozen=True)
class Sounds:
    """Codes chunks of sounds or recordings of electrodes without loss: int16 or int32, [T] or [T, C], any C.

    effort: 1..9, slower and smaller. sample_rate: in Hz; longer segments are coded together at a higher one. Channels are
    coded by eights. Raises BadInput.
    """

    effort: int | None = None
    sample_rate: int = 30_000

    kind: ClassVar[int] = SOUNDS
    dtypes: ClassVar[tuple[str, ...]] = ("int16", "int32")

    def __post_init__(self) -> None:
        check_effort(self.effort)
        fits = type(self.sample_rate) is int and 1 <= self.sample_rate < MAX_RATE
        expect(fits, BadInput, "sample_rate", self.sample_rate, f"an integer, 1 to {MAX_RATE - 1}")

    def check(self, dtype: np.dtype[Any], n_dimensions: int) -> None:
        """Raise BadInput unless arrays of this type and this number of axes can be coded."""
        check_dtype(dtype, self.dtypes)
        expect(n_dimensions in (1, 2), BadInput, "dimensions", n_dimensions, "1 or 2: [T] or [T, C]")

    def check_chunk(self, shape: tuple[int, ...]) -> None:
        """Accept every shape: what a sound cannot hold no memory holds."""

    def files(self, array: NDArray[Any]) -> tuple[int, int, Iterator[tuple[int, bytes]]]:
        """Return 0, no moved axis, and each file with its channels."""
        columns = array.reshape(len(array), -1)
        parts = (columns[:, at : at + MAX_CHANNELS] for at in range(0, columns.shape[1], MAX_CHANNELS))
        return 0, False, ((part.shape[1], self.sound(part)) for part in parts)

    def sound(self, columns: NDArray[Any]) -> bytes:
        """Compress [T, C] to a file."""
        samples = np.ascontiguousarray(columns)
        return compress(samples, sample_rate=self.sample_rate, lossless=True, effort=self.effort, notes=[])


Coder = Pictures | Sounds


def encode(coder: Coder, array: NDArray[Any]) -> bytes:
    """Return the bytes of a chunk. Raises BadInput for a type or shape that the coder does not take."""
    coder.check(array.dtype, array.ndim)
    coder.check_chunk(array.shape)
    flags = FORTRAN * (array.flags.f_contiguous and not array.flags.c_contiguous) | BIG_ENDIAN * is_big_endian(array.dtype)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    colours, apart, files = coder.files(native) if array.size else (0, False, iter(()))
    coded = list(files)
    bits = 8 * array.dtype.itemsize
    head = HEAD.pack(MAGIC, VERSION, coder.kind, bits, APART if apart else colours, flags, array.ndim, len(coded))
    lengths = [FILE.pack(rows, len(data)) for rows, data in coded]
    body = b"".join([head, *map(SIDE.pack, array.shape), *lengths, *(data for _, data in coded)])
    return body + CRC.pack(zlib.crc32(body))


def decode(coder: Coder, data: bytes | memoryview, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return the array of a chunk, laid out in memory as it was given.

    shape: what it must have, where that is known. Raises BadFile for damage and for chunks of another codec.
    """
    found = Parsed.of(memoryview(data).cast("B"))
    expect(found.kind == coder.kind, BadFile, "kind of chunk", found.kind, coder.kind)
    expect(shape in (None, found.shape), BadFile, "shape of a chunk", found.shape, shape)
    array = pictures(found) if found.kind == PICTURES else sounds(found)
    if found.flags & BIG_ENDIAN:
        array = array.astype(array.dtype.newbyteorder(">"))
    return np.asfortranarray(array) if found.flags & FORTRAN else array


@dataclass(frozen=True)
class Parsed:
    """Holds what a chunk says of itself, and its files with their rows or channels."""

    kind: int
    dtype: np.dtype[Any]
    colours: int
    flags: int
    shape: tuple[int, ...]
    files: list[tuple[int, memoryview]]

    @classmethod
    def of(cls, data: memoryview) -> Parsed:
        """Read a chunk, whose checksum is believed first and its lengths afterwards. Raises BadFile."""
        least = HEAD.size + CRC.size
        expect(len(data) >= least, BadFile, "bytes of a chunk", len(data), f"{least} or more")
        magic, version, kind, bits, colours, flags, n_sides, n_files = HEAD.unpack_from(data)
        expect(magic == MAGIC, BadFile, "first bytes of a chunk", magic, MAGIC)
        body, (crc,) = data[: -CRC.size], CRC.unpack(data[-CRC.size :])
        expect(zlib.crc32(body) == crc, BadFile, "checksum of a chunk", f"{zlib.crc32(body):08x}", f"{crc:08x}")
        expect(version == VERSION, UnsupportedFile, "version of a chunk", version, VERSION)
        names = {(PICTURES, 8): "u1", (PICTURES, 16): "u2", (SOUNDS, 16): "i2", (SOUNDS, 32): "i4"}
        expect((kind, bits) in names, UnsupportedFile, "kind and bits of a chunk", (kind, bits), f"one of {list(names)}")
        at = HEAD.size + SIDE.size * n_sides
        first = at + FILE.size * n_files
        expect(first <= len(body) and n_sides <= MAX_DIMENSIONS, BadFile, "lengths of a chunk", first, "what fits into it")
        shape = tuple(side for (side,) in SIDE.iter_unpack(body[HEAD.size : at]))
        lengths = list(FILE.iter_unpack(body[at:first]))
        total = first + sum(n for _, n in lengths)
        expect(total == len(body), BadFile, "bytes of a chunk", len(body), total)
        ends = np.cumsum([first, *(n for _, n in lengths)], dtype=np.int64).tolist()
        files = [(rows, body[a:b]) for (rows, _), a, b in zip(lengths, ends, ends[1:], strict=False)]
        return cls(kind, np.dtype(names[kind, bits]), colours, flags, shape, files)


def pictures(found: Parsed) -> NDArray[Any]:
    """Return the stack of a chunk's pictures. Raises BadFile."""
    apart = found.colours == APART
    deep = 0 < found.colours < APART
    expect(len(found.shape) >= 2 + (apart or deep), BadFile, "dimensions of a chunk", len(found.shape), "2, or 3 with channels")
    moved = (found.shape[-1], *found.shape[:-1]) if apart else found.shape
    width, depth = (moved[-2], found.colours) if deep else (moved[-1], 1)
    parts = [picture(data, (rows, width, depth), found.dtype) for rows, data in found.files]
    whole = joined(parts, moved, found.dtype)
    return np.ascontiguousarray(np.moveaxis(whole, 0, -1)) if apart else whole


def picture(data: bytes | memoryview, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a picture of a known shape. Raises BadFile."""
    array = decompress(bytes(data), as_array=True)
    expect(isinstance(array, np.ndarray), BadFile, "file in a chunk", type(array).__name__, "a picture")
    assert isinstance(array, np.ndarray)
    known = array.shape if array.ndim == 3 else (*array.shape, 1)
    expect((known, array.dtype) == (shape, dtype), BadFile, "picture in a chunk", (known, array.dtype), (shape, dtype))
    return array.reshape(-1)


def sounds(found: Parsed) -> NDArray[Any]:
    """Return the channels of a chunk's sounds, side by side. Raises BadFile."""
    expect(len(found.shape) in (1, 2), BadFile, "dimensions of a chunk", len(found.shape), "1 or 2")
    parts = []
    for channels, data in found.files:
        sound = decompress(bytes(data))
        expect(isinstance(sound, Sound), BadFile, "file in a chunk", type(sound).__name__, "a sound")
        assert isinstance(sound, Sound)
        samples, shape = sound.samples.reshape(len(sound.samples), -1), (found.shape[0], channels)
        same = (samples.shape, samples.dtype) == (shape, found.dtype)
        expect(same, BadFile, "sound in a chunk", (samples.shape, samples.dtype), (shape, found.dtype))
        parts.append(samples)
    return joined([np.concatenate(parts, axis=1).reshape(-1)] if parts else [], found.shape, found.dtype)


def joined(parts: list[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return flat parts as one array of a shape, which is believed only where they fill it. Raises BadFile."""
    n = sum(map(len, parts))
    expect(n == math.prod(shape), BadFile, "samples in a chunk", n, math.prod(shape))
    return np.concatenate(parts).reshape(shape) if parts else np.zeros(shape, dtype)


def cuts(n_rows: int, height: int, n: int) -> Iterator[tuple[int, int]]:
    """Yield the rows of each picture: n, or what is left of the stack, or of a plane that is cut into several."""
    whole = n_rows if n >= height else height
    for first in range(0, n_rows, whole):
        last = first + whole
        yield from ((at, min(at + n, last)) for at in range(first, last, n))


def configuration(coder: Coder) -> Options:
    """Return the options that are set, as JSON holds them."""
    return {name: value for name, value in asdict(coder).items() if value is not None}


def check_options(name: str, options: Mapping[str, Any], known: set[str]) -> None:
    """Raise BadInput for an option that a codec does not have, as a newer version may."""
    unknown = sorted(set(options) - known)
    expect(not unknown, BadInput, f"options of {name}", unknown, f"none but {', '.join(sorted(known))}")


def check_found(found: np.dtype[Any], expected: np.dtype[Any]) -> None:
    """Raise BadFile where a chunk holds other samples than its array, byte order aside."""
    same = (found.kind, found.itemsize) == (expected.kind, expected.itemsize)
    expect(same, BadFile, "dtype of a chunk", found.name, expected.name)


def check_effort(effort: int | None) -> None:
    """Raise BadInput unless an effort is one of 1 to 9, or none."""
    fits = effort is None or (type(effort) is int and 1 <= effort <= 9)
    expect(fits, BadInput, "effort", effort, "1 to 9")


def check_dtype(dtype: np.dtype[Any], known: tuple[str, ...]) -> None:
    """Raise BadInput unless a type is one of those known, of either byte order."""
    expect(dtype.kind in "iu" and dtype.name in known, BadInput, "dtype", dtype.name, " or ".join(known))


def is_big_endian(dtype: np.dtype[Any]) -> bool:
    """Tell whether the samples of an array lie in memory with their highest byte first."""
    return dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big")
