"""Pictures: files, PIL images and arrays <-> pixels with alpha and metadata."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from laconic.entropy.blocks import read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, expect

Array = NDArray[np.uint8]
MAX_METADATA_BYTES = 1 << 26
KNOWN_BUT_UNREADABLE = {b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\x89Lc\r\n": "Laconic"}


@dataclass(frozen=True)
class Picture:
    """pixels uint8 [H, W, 3] or, gray, [H, W, 1]; alpha uint8 [H, W] or None; ICC, EXIF, XMP; what was changed."""

    pixels: Array
    alpha: Array | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(source: Any, max_pixels: int = 1 << 30) -> Picture:
    """A path, file object, PIL.Image or array uint8/uint16 [H, W] or [H, W, 1..4] -> Picture.

    16-bit samples are reduced to 8 and the orientation of EXIF is applied; `notes` says what was lost.
    Raises BadInput naming what is wrong; OSError where the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        return from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return from_image(source, max_pixels)
    raw = Path(source).read_bytes() if isinstance(source, (str, os.PathLike)) else source.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    known = next((name for start, name in KNOWN_BUT_UNREADABLE.items() if raw.startswith(start)), None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(raw))
            check_size(image.width, image.height, max_pixels)
            image.load()
    except UnidentifiedImageError:
        found = f"a {known} file" if known else "an empty file" if not raw else "no picture"
        raise BadInput(f"picture: found {found}, expected a format that Pillow reads") from None
    except BadInput:
        raise
    except Image.DecompressionBombError as error:
        raise BadInput(f"picture size: found {error}, expected at most {max_pixels} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, IndexError) as error:
        raise BadInput(f"picture: found damage ({error}), expected a whole file") from None
    return from_image(image, max_pixels, sixteen_bit=depth(raw) == 16)


def from_array(array: NDArray[Any], max_pixels: int = 1 << 30) -> Picture:
    """uint8/uint16 [H, W], or [H, W, C] with C 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    shape = array.shape
    ok = len(shape) in (2, 3) and min(shape[:2]) > 0 and (len(shape) == 2 or shape[2] in (1, 2, 3, 4))
    expect(ok, BadInput, "array shape", shape, "[H, W] or [H, W, 1 to 4]")
    expect(array.dtype in (np.uint8, np.uint16), BadInput, "array dtype", str(array.dtype), "uint8 or uint16")
    check_size(shape[1], shape[0], max_pixels)
    notes: tuple[str, ...] = ()
    if array.dtype == np.uint16:
        array, notes = reduce_depth(array), ("reduced from 16 to 8 bit per sample",)
    array = np.ascontiguousarray(array).reshape(shape[0], shape[1], -1)
    n_colours = 1 if array.shape[2] < 3 else 3
    alpha = array[:, :, n_colours] if array.shape[2] > n_colours else None
    return Picture(np.ascontiguousarray(array[:, :, :n_colours]), opaque_dropped(alpha), {}, notes)


def from_image(image: Image.Image, max_pixels: int = 1 << 30, sixteen_bit: bool = False) -> Picture:
    """A PIL image of any mode."""
    check_size(image.width, image.height, max_pixels)
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"only the first of {getattr(image, 'n_frames', 1)} frames or pages is kept")
    metadata = metadata_of(image)
    if "gamma" in image.info and "icc" not in metadata and abs(image.info["gamma"] - 0.45455) > 0.01:
        notes.append(f"gamma {image.info['gamma']:g} of the PNG is not kept; samples are kept as they are")
    oriented = ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) != 1:
        metadata["exif"] = oriented.getexif().tobytes()
    image = oriented
    if image.mode.startswith("I") or image.mode == "F" or sixteen_bit:
        notes.append("reduced from 16 to 8 bit per sample")
    if image.mode.startswith("I") or image.mode == "F":
        samples = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(reduce_depth(samples))
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"converted from {image.mode} to RGB")
        if image.mode == "CMYK":
            metadata.pop("icc", None)
    image = image.convert(target_mode(image))
    array = np.asarray(image).reshape(image.height, image.width, -1)
    n_colours = 1 if array.shape[2] < 3 else 3
    alpha = array[:, :, n_colours] if array.shape[2] > n_colours else None
    pixels = np.ascontiguousarray(array[:, :, :n_colours])
    return Picture(pixels, opaque_dropped(alpha), metadata, tuple(notes))


def to_array(picture: Picture) -> Array:
    """uint8 [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[:, :, None]], 2)


def to_image(picture: Picture) -> Image.Image:
    """PIL image, mode L, LA, RGB or RGBA, its metadata in `info`."""
    array = to_array(picture)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    names = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
    image.info.update({names[k]: v for k, v in picture.metadata.items()})
    return image


def save(image: Image.Image, file: Any, format: str) -> None:
    """Write an image of `to_image` with what metadata the format can hold. Raises BadInput for unknown formats."""
    options: dict[str, Any] = {k: image.info[k] for k in ("icc_profile", "exif") if k in image.info}
    if "xmp" in image.info and format.upper() in ("JPEG", "WEBP", "AVIF", "TIFF", "PNG"):
        options["xmp"] = image.info["xmp"]
    if format.upper() == "PNG" and "xmp" in options:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode("utf-8", "replace"))
        options["pnginfo"] = text
    if format.upper() in ("JPEG", "BMP", "PPM") and image.mode in ("RGBA", "LA"):
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if format.upper() in ("BMP", "PPM"):
        options = {}
    image.save(file, format, **options)


def target_mode(image: Image.Image) -> str:
    """L, LA, RGB or RGBA: what keeps colours and transparency of the mode."""
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    if image.mode in ("1", "L", "LA", "La"):
        return "LA" if transparent else "L"
    return "RGBA" if transparent else "RGB"


def metadata_of(image: Image.Image) -> dict[str, bytes]:
    """ICC, EXIF and XMP bytes of a PIL image."""
    found: dict[str, Any] = {"icc": image.info.get("icc_profile"), "exif": image.info.get("exif")}
    found["xmp"] = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    as_bytes = {k: v.encode() if isinstance(v, str) else v for k, v in found.items()}
    return {k: bytes(v) for k, v in as_bytes.items() if v}


def check_size(width: int, height: int, max_pixels: int) -> None:
    expect(width > 0 and height > 0, BadInput, "picture size", f"{width} x {height}", "at least 1 x 1")
    expect(width * height <= max_pixels, BadInput, "pixels", width * height, f"at most {max_pixels} (--max-pixels)")


def depth(raw: bytes) -> int:
    """Bits a sample of a PNG or 16-bit PPM, which Pillow reduces without a word; 8 for all else."""
    if raw.startswith(b"\x89PNG") and len(raw) > 24:
        return raw[24]
    return 8


def reduce_depth(samples: NDArray[Any]) -> Array:
    """16 -> 8 bits, the high byte."""
    return (samples.astype(np.int64) >> 8).astype(np.uint8)


def opaque_dropped(alpha: Array | None) -> Array | None:
    """An alpha that hides nothing is none."""
    return None if alpha is None or bool((alpha == 255).all()) else np.ascontiguousarray(alpha)


def encode_alpha(alpha: Array) -> bytes:
    """uint8 [H, W] -> method byte 0 and the zlib stream of the rows, each less the row above (modulo 256)."""
    rows = alpha.copy()
    rows[1:] -= alpha[:-1]
    return b"\0" + zlib.compress(rows.tobytes(), 9)


def decode_alpha(data: bytes, height: int, width: int) -> Array:
    """The inverse of `encode_alpha`. Raises BadFile; never allocates more than the picture needs."""
    expect(data[:1] == b"\0", BadFile, "alpha method", data[:1], "0")
    rows = np.frombuffer(inflate(data[1:], height * width, "alpha"), np.uint8).reshape(height, width)
    return np.cumsum(rows, axis=0, dtype=np.uint8)


def encode_metadata(value: bytes) -> bytes:
    """A varint of the length, and the zlib stream."""
    return write_varint(len(value)) + zlib.compress(value, 9)


def decode_metadata(data: bytes) -> bytes:
    """The inverse of `encode_metadata`. Raises BadFile."""
    length, position = read_varint(data, 0, "metadata length", MAX_METADATA_BYTES)
    return inflate(data[position:], length, "metadata")


def inflate(data: bytes, length: int, name: str) -> bytes:
    """Exactly `length` bytes out of a whole zlib stream. Raises BadFile."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise BadFile(f"{name}: found damage ({error}), expected a zlib stream") from None
    expect(len(out) == length and stream.eof, BadFile, f"{name} length", len(out), f"{length} bytes")
    expect(not stream.unused_data, BadFile, f"{name} end", f"{len(stream.unused_data)} bytes more", "the end")
    return out
