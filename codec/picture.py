"""Pictures: files, PIL images and arrays <-> pixels with alpha and metadata.

    read, read_exact     a source -> Picture (8 bits, upright, for lossy coding) or Exact (as it is stored, for lossless)
    save, save_exact     and back into a file of a common format

What a library passes whole is the business of `picture_formats`; what comes with the pixels, of `picture_metadata`.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laconic import picture_metadata, picture_writers
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.payloads import DEFAULT_MAX_PIXELS, inflate
from laconic.picture_metadata import (
    INCH,
    INFO_KEYS,
    fitting_profile,
    held,
    of_info,
    orientation_of,
    pack_depth,
    stripped,
    upright,
    white_of,
)
from laconic.picture_readers import (
    Decoded,
    Samples,
    check_mode,
    check_size,
    decode_file,
    decode_image,
    parsing,
    pillow_limit,
)
from laconic.picture_writers import DEEP_FORMATS, EXACT_FORMATS, HOLDS_ALPHA, turned

__all__ = [
    "HOLDS_ALPHA",
    "INFO_KEYS",
    "Exact",
    "Picture",
    "decode_alpha",
    "encode_alpha",
    "exact_to_image",
    "of_info",
    "parsing",
    "pillow_limit",
    "read",
    "read_exact",
    "save",
    "save_exact",
    "stripped",
    "to_array",
    "to_image",
]

Array = NDArray[np.uint8]
KEPT_BY_CALLER = ("icc", "exif", "xmp")  # what a caller may have changed in the `info` of an image that he opened


@dataclass(frozen=True)
class Picture:
    """Holds pixels uint8 [H, W, 3] or, gray, [H, W, 1]; alpha uint8 [H, W] or None; metadata; what was changed."""

    pixels: Array
    alpha: Array | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exact:
    """Holds samples as they are stored, uint8 or uint16 [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA.

    Where metadata has a depth, it is the largest value of a sample; else that of 8 or 16 bits is.
    """

    samples: NDArray[np.uint8] | NDArray[np.uint16]
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        return 8 * self.samples.dtype.itemsize


def read(source: Any, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a path, file object, PIL.Image or array uint8/uint16 [H, W] or [H, W, 1..4] for lossy coding.

    Samples of more than 8 bits are reduced, the orientation of EXIF or XMP is applied; `notes` says what was lost.
    Raises BadInput naming what is wrong; OSError where the file cannot be read.
    """
    found = decoded(source, False, max_pixels)
    samples = turned(reduced(found.samples, found.white), orientation_of(found.metadata))
    metadata, notes = upright(found.metadata)
    if samples.dtype != found.samples.dtype:
        metadata = without_depth(metadata)
    metadata, more = fitting_profile(metadata, samples.shape[2] < 3)
    metadata, too_large = held(metadata)
    n_colours = 1 if samples.shape[2] < 3 else 3
    alpha = samples[:, :, n_colours] if samples.shape[2] > n_colours else None
    pixels = np.ascontiguousarray(samples[:, :, :n_colours])
    return Picture(pixels, opaque_dropped(alpha), metadata, (*found.notes, *notes, *more, *too_large))


def read_exact(source: Any, max_pixels: int = DEFAULT_MAX_PIXELS) -> Exact:
    """Read as `read` does, for lossless coding: nothing is reduced, turned or dropped; palettes are expanded.

    Raises BadInput also where samples would have to be converted, and where their reader is not installed.
    """
    found = decoded(source, True, max_pixels)
    metadata, notes = fitting_profile(found.metadata, found.samples.shape[2] < 3)
    metadata, too_large = held(metadata)
    depth = pack_depth(found.white)
    if depth:
        metadata = {**metadata, "depth": depth}
    return Exact(np.ascontiguousarray(found.samples), metadata, (*found.notes, *notes, *too_large))


def decoded(source: Any, exact: bool, max_pixels: int) -> Decoded:
    """Return the samples of a source of any kind. Raises BadInput."""
    if isinstance(source, np.ndarray):
        return of_array(source, exact, max_pixels)
    if isinstance(source, Image.Image):
        return of_image(source, exact, max_pixels)
    return decode_file(read_bytes(source), exact, max_pixels)


def of_array(array: NDArray[Any], exact: bool, max_pixels: int) -> Decoded:
    """Take uint8/uint16 [H, W], or [H, W, C] with C 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA. Raises BadInput."""
    kind = type(array).__name__
    expect(not isinstance(array, np.ma.MaskedArray), BadInput, "array", kind, "one without a mask: fill it first")
    expect(not isinstance(array, np.matrix), BadInput, "array", kind, "numpy.ndarray: numpy.asarray makes it one")
    shape = array.shape
    ok = len(shape) in (2, 3) and min(shape[:2]) > 0 and (len(shape) == 2 or shape[2] in (1, 2, 3, 4))
    expect(ok, BadInput, "array shape", shape, "[H, W] or [H, W, 1 to 4]")
    expect(array.dtype in (np.uint8, np.uint16), BadInput, "array dtype", str(array.dtype), "uint8 or uint16")
    check_size(shape[1], shape[0], max_pixels)
    bits = 8 * array.dtype.itemsize
    notes = ("reduced from 16 to 8 bit per sample",) if bits == 16 and not exact else ()
    native: Any = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(*shape[:2], -1)
    return Decoded(native, (1 << bits) - 1, {}, notes)


def of_image(image: Image.Image, exact: bool, max_pixels: int) -> Decoded:
    """Read a PIL image, from its file where that is open and nothing is loaded: the file tells the true depth."""
    check_mode(image)
    raw = unread(image)
    if raw is None:
        found = decode_image(image, exact, max_pixels)
        white = white_of(found.metadata, 8 * found.samples.dtype.itemsize)
        return Decoded(found.samples, white, found.metadata, (*found.notes, *reduction(found.samples, exact)))
    found = decode_file(raw, exact, max_pixels)
    own, file = of_info(image), found.metadata
    kept = {name: value for name, value in file.items() if name not in KEPT_BY_CALLER or image.format == "TIFF"}
    if "exif" in file and "Raw profile type exif" in image.info:
        kept["exif"] = file["exif"]
    kept |= {name: own[name] for name in KEPT_BY_CALLER if name in own}
    return Decoded(found.samples, found.white, kept, found.notes)


def reduction(samples: Samples, exact: bool) -> tuple[str, ...]:
    """Return the note of 16-bit samples that lossy coding reduces."""
    return ("reduced from 16 to 8 bit per sample",) if samples.dtype == np.uint16 and not exact else ()


def unread(image: Image.Image) -> bytes | None:
    """Return the bytes of the file of an image whose first frame is not loaded yet, or None."""
    file = getattr(image, "fp", None)
    frame = image.tell() if hasattr(image, "tell") else 0
    if file is None or not getattr(image, "tile", None) or frame != 0 or image.format in (None, "LACONIC"):
        return None
    try:
        position = file.tell()
        file.seek(0)
        raw = file.read()
        file.seek(position)
    except (OSError, ValueError, AttributeError):
        return None
    return bytes(raw)


def read_bytes(source: Any) -> bytes:
    """Return the bytes of a path or file object. Raises BadInput."""
    is_path = isinstance(source, (str, os.PathLike))
    accepted = "a path, a file object (io.BytesIO for bytes), a PIL.Image or an array"
    expect(is_path or hasattr(source, "read"), BadInput, "picture source", type(source).__name__, accepted)
    raw = Path(source).read_bytes() if is_path else source.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    return bytes(raw)


def without_depth(metadata: dict[str, bytes]) -> dict[str, bytes]:
    """Return the metadata of samples that have been reduced to 8 bits, which says their depth no more."""
    chunks = picture_metadata.unpack_chunks(metadata.get("colour", b""))
    chunks.pop(b"sBIT", None)
    return {**metadata, "colour": picture_metadata.pack_chunks(chunks)} if "colour" in metadata else metadata


def reduced(samples: Samples, white: int) -> Array:
    """Return samples of 0..white as 8 bits: the 8 highest where white is all ones, else to the nearest."""
    bits = white.bit_length()
    if white == 255:
        return samples.astype(np.uint8, copy=False)
    if white == (1 << bits) - 1 and bits > 8:
        return (samples >> (bits - 8)).astype(np.uint8)
    return ((samples.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def opaque_dropped(alpha: Array | None) -> Array | None:
    """Return an alpha, or None for one that hides nothing."""
    return None if alpha is None or bool((alpha == 255).all()) else np.ascontiguousarray(alpha)


def to_array(picture: Picture) -> Array:
    """Return uint8 [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[:, :, None]], 2)


def to_image(picture: Picture) -> Image.Image:
    """Return a PIL image, mode L, LA, RGB or RGBA, its metadata in `info`."""
    return image_of(to_array(picture), picture.metadata)


def exact_to_image(picture: Exact) -> Image.Image:
    """Return a PIL image of mode L, LA, RGB, RGBA or, of 16-bit gray, I;16; samples of other depths fill 8 or 16 bits.

    Raises BadInput for 16-bit colour, which PIL has not.
    """
    fits = picture.bits == 8 or picture.samples.shape[2] == 1
    expect(fits, BadInput, "16-bit colour", "a PIL image asked for", "as_array=True: PIL holds 8 bits of each colour")
    samples, metadata, _ = picture_writers.full_range(picture.samples, dict(picture.metadata), "PNG")
    return image_of(samples, metadata)


def image_of(samples: Samples, metadata: dict[str, bytes]) -> Image.Image:
    """Return a PIL image with metadata in `info`, also as Pillow's own `dpi`."""
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    image.info.update({INFO_KEYS[name]: value for name, value in metadata.items() if name in INFO_KEYS})
    per_inch = picture_metadata.resolution_in(metadata["resolution"], INCH) if metadata.get("resolution") else None
    if per_inch:
        image.info["dpi"] = tuple(float(value) for value in per_inch)
    return image


def save(image: Image.Image, file: Any, format: str) -> tuple[str, ...]:
    """Write an image of `to_image` with what alpha and metadata the format can hold; return notes of what it cannot.

    file: path or binary file object. format: of HOLDS_ALPHA; JPEG and AVIF at quality 95 and 4:4:4, the others exact.
    Raises BadInput for other formats and where the picture does not fit the format; OSError where writing fails.
    """
    format = format.upper()
    expect(format in HOLDS_ALPHA, BadInput, "output format", format, ", ".join(HOLDS_ALPHA))
    samples: Any = np.asarray(image)
    return written(samples.reshape(image.height, image.width, -1), of_info(image), file, format)


def save_exact(picture: Exact, file: Any, format: str) -> tuple[str, ...]:
    """Write as `save` does, without a loss of samples. Raises BadInput where the format would lose some."""
    expect(format in EXACT_FORMATS, BadInput, "output format", format, f"{', '.join(EXACT_FORMATS)}; the others are lossy")
    fits = picture.bits == 8 or format in DEEP_FORMATS
    expect(fits, BadInput, "output format", format, f"{', '.join(DEEP_FORMATS)} for 16 bits")
    holds = picture.samples.shape[2] % 2 == 1 or HOLDS_ALPHA[format]
    expect(holds, BadInput, "output format", format, "one that holds alpha")
    return written(picture.samples, picture.metadata, file, format)


def written(samples: Samples, metadata: dict[str, bytes], file: Any, format: str) -> tuple[str, ...]:
    """Write a file and return the notes."""
    data, notes = picture_writers.write(samples, metadata, format)
    if isinstance(file, (str, os.PathLike)):
        Path(file).write_bytes(data)
    else:
        file.write(data)
    return tuple(notes)


def encode_alpha(alpha: Array) -> bytes:
    """Encode uint8 [H, W] as the method byte 0 and the zlib stream of the rows, each less the row above (modulo 256)."""
    rows = alpha.copy()
    rows[1:] -= alpha[:-1]
    return b"\0" + zlib.compress(rows.tobytes(), 9)


def decode_alpha(data: bytes, height: int, width: int) -> Array:
    """Invert `encode_alpha`. Raises BadFile; never allocates more than the picture needs."""
    expect(data[:1] == b"\0", BadFile, "alpha method", data[:1], "0")
    rows = np.frombuffer(inflate(data[1:], height * width, "alpha"), np.uint8).reshape(height, width)
    return np.cumsum(rows, axis=0, dtype=np.uint8)
