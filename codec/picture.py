"""Pictures: files, PIL images and arrays <-> pixels with alpha and metadata.

Pillow reads and writes them. What surprises in it is met here: it reduces 16-bit samples and drops metadata without a
word, has modes in which no number is white, keeps the orientation beside the pixels, and its plugins raise anything.
"""

from __future__ import annotations

import io
import math
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from laconic.entropy.errors import BadFile, BadInput, LaconicError, expect
from laconic.payloads import inflate

Array = NDArray[np.uint8]
KNOWN_BUT_UNREADABLE = {b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\x89Lc\r\n": "Laconic"}
INFO_KEYS = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}  # our name: the key in the `info` of a PIL image
EXIF_PREFIX = b"Exif\0\0"
ORIENTATION, BITS_PER_SAMPLE, TIFF_XMP = 0x0112, 0x0102, 0x02BC  # tags of EXIF and TIFF
# Tags that say how a TIFF file lays out its own samples; cameras copy some of them into EXIF.
TIFF_LAYOUT = (*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(320, 326), 338, 339)
LIMIT_LOCK = threading.RLock()

HOLDS_ALPHA = {"PNG": True, "WEBP": True, "AVIF": True, "TIFF": True, "JPEG": False, "BMP": False, "PPM": False}
MARKER = 65533  # bytes in a marker of JPEG; XMP and each of at most 255 parts of an ICC profile share it with a prefix
METADATA_BYTES = {
    "JPEG": {"exif": MARKER, "xmp": MARKER - 29, "icc": 255 * (MARKER - 14)},
    "BMP": dict.fromkeys(INFO_KEYS, 0),
    "PPM": dict.fromkeys(INFO_KEYS, 0),
}
# Our codec has lost what it was asked to lose: the format that the result is written in adds as little as it can.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


@dataclass(frozen=True)
class Picture:
    """pixels uint8 [H, W, 3] or, gray, [H, W, 1]; alpha uint8 [H, W] or None; ICC, EXIF, XMP; what was changed."""

    pixels: Array
    alpha: Array | None = None
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(source: Any, max_pixels: int = 1 << 30) -> Picture:
    """A path, file object, PIL.Image or array uint8/uint16 [H, W] or [H, W, 1..4] -> Picture.

    Samples of more than 8 bits are reduced, the orientation of EXIF or XMP is applied; `notes` says what was lost.
    Raises BadInput naming what is wrong; OSError where the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        return from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return from_image(source, max_pixels)
    return from_image(open_image(read_bytes(source), max_pixels), max_pixels)


def read_bytes(source: Any) -> bytes:
    """The bytes of a path or file object. Raises BadInput."""
    is_path = isinstance(source, (str, os.PathLike))
    accepted = "a path, a file object (io.BytesIO for bytes), a PIL.Image or an array"
    expect(is_path or hasattr(source, "read"), BadInput, "picture source", type(source).__name__, accepted)
    raw = Path(source).read_bytes() if is_path else source.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    return bytes(raw)


@dataclass(frozen=True)
class Exact:
    """samples as they are stored, uint8 or uint16 [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA; as in `Picture`."""

    samples: NDArray[np.uint8] | NDArray[np.uint16]
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        return 8 * self.samples.dtype.itemsize


def read_exact(source: Any, max_pixels: int = 1 << 30) -> Exact:
    """As `read`, for lossless coding: nothing is reduced, turned or dropped; palettes are expanded.

    Raises BadInput also where samples would have to be converted, and where 16-bit colour needs a reader not installed.
    """
    if isinstance(source, np.ndarray):
        check_array(source, max_pixels)
        return Exact(np.ascontiguousarray(source.reshape(*source.shape[:2], -1)))
    if isinstance(source, Image.Image):
        return exact_image(source, None, max_pixels)
    raw = read_bytes(source)
    return exact_image(open_image(raw, max_pixels), raw, max_pixels)


def exact_image(image: Image.Image, raw: bytes | None, max_pixels: int) -> Exact:
    check_size(image.width, image.height, max_pixels)
    check_mode(image)
    bits, mode, format = depth(image), image.mode, image.format
    lossy = ("CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa")
    expect(
        mode not in lossy, BadInput, "mode", mode, "gray, palette or RGB samples: convert it first, or code it lossy"
    )
    n_frames = load(image, max_pixels)
    notes = [note for note in conversions(image, n_frames, 8) if "transparent" not in note]
    if format == "PNG" and ("dpi" in image.info or "aspect" in image.info):
        notes.append("the resolution (pHYs) of the PNG is not kept")
    if bits > 8 and not mode.startswith("I"):
        samples: NDArray[Any] = deep_samples(raw, format, image.size)
    elif mode.startswith("I"):
        samples = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)[:, :, None]
    else:
        target = target_mode(image, 8)
        samples = np.asarray(image if image.mode == target else image.convert(target))
    return Exact(np.ascontiguousarray(samples.reshape(image.height, image.width, -1)), metadata_of(image), tuple(notes))


def deep_samples(raw: bytes | None, format: str | None, size: tuple[int, int]) -> NDArray[np.uint16]:
    """uint16 [H, W, C] of a PNG file whose samples Pillow would reduce."""
    expect(
        raw is not None and format == "PNG",
        BadInput,
        "16-bit colour",
        format,
        "a PNG file or an array uint16 [H, W, C]",
    )
    imagecodecs = deep_library()
    with parsing():
        samples: NDArray[np.uint16] = imagecodecs.png_decode(raw)
    samples = samples.reshape(*samples.shape[:2], -1)
    right = samples.dtype == np.uint16 and samples.shape[:2] == size[::-1]
    expect(right, BadInput, "16-bit PNG", f"{samples.dtype} {samples.shape}", f"uint16 of {size[0]} x {size[1]}")
    return samples


def deep_library() -> Any:
    """imagecodecs, which reads and writes 16-bit colour. Raises BadInput where it is not installed."""
    try:
        import imagecodecs
    except ImportError:
        raise BadInput("16-bit colour: found no imagecodecs, expected it: pip install laconic-codec[deep]") from None
    return imagecodecs


def exact_to_image(picture: Exact) -> Image.Image:
    """PIL image of mode L, LA, RGB, RGBA or, of 16-bit gray, I;16. Raises BadInput for 16-bit colour, which PIL has not."""
    samples = picture.samples
    fits = picture.bits == 8 or samples.shape[2] == 1
    expect(fits, BadInput, "16-bit colour", "a PIL image asked for", "as_array=True: PIL holds 8 bits of each colour")
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    image.info.update({INFO_KEYS[name]: value for name, value in picture.metadata.items()})
    return image


def save_exact(picture: Exact, file: Any, format: str) -> tuple[str, ...]:
    """As `save`; 16-bit colour is written as PNG only. Raises BadInput where the format would lose samples."""
    lossless = ("PNG", "WEBP", "TIFF", "BMP", "PPM")
    expect(format in lossless, BadInput, "output format", format, f"{', '.join(lossless)}; the others are lossy")
    channels = picture.samples.shape[2]
    if picture.bits == 8 or channels == 1:
        fits = picture.bits == 8 or format in ("PNG", "TIFF")
        expect(fits, BadInput, "output format", format, "PNG or TIFF for 16 bits")
        expect(channels % 2 == 1 or HOLDS_ALPHA[format], BadInput, "output format", format, "one that holds alpha")
        return save(exact_to_image(picture), file, format)
    expect(format == "PNG", BadInput, "output format", format, "PNG for 16-bit colour")
    data = bytes(deep_library().png_encode(picture.samples))
    header = 8 + 25  # signature and IHDR
    file.write(data[:header] + b"".join(png_chunks(picture.metadata)) + data[header:])
    return ()


def png_chunks(metadata: dict[str, bytes]) -> Iterator[bytes]:
    """ICC, EXIF and XMP as chunks of PNG."""
    parts = {b"iCCP": b"icc\0\0" + zlib.compress(metadata["icc"])} if "icc" in metadata else {}
    if "exif" in metadata:
        parts[b"eXIf"] = metadata["exif"].removeprefix(EXIF_PREFIX)
    if "xmp" in metadata:
        parts[b"iTXt"] = b"XML:com.adobe.xmp\0\0\0\0\0" + metadata["xmp"]
    for name, content in parts.items():
        yield len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def open_image(raw: bytes, max_pixels: int) -> Image.Image:
    """The bytes of a file -> a PIL image whose samples are not loaded yet. Raises BadInput."""
    with parsing(), pillow_limit(max_pixels):
        try:
            return Image.open(io.BytesIO(raw))
        except UnidentifiedImageError:
            known = next((name for start, name in KNOWN_BUT_UNREADABLE.items() if raw.startswith(start)), None)
            found = f"a {known} file" if known else "no picture" if raw else "an empty file"
            raise BadInput(f"picture: found {found}, expected a format that Pillow reads") from None


@contextmanager
def parsing(what: str = "picture") -> Iterator[None]:
    """Turn whatever a plugin of Pillow's raises about the bytes, from SyntaxError to RuntimeError, into BadInput."""
    try:
        yield
    except (LaconicError, MemoryError):
        raise
    except Exception as error:
        raise BadInput(f"{what}: found damage ({type(error).__name__}: {error}), expected none") from error


@contextmanager
def pillow_limit(max_pixels: int) -> Iterator[None]:
    """Inside, Pillow's own limit on pixels is no lower than `max_pixels`, so that `check_size` decides.

    Raises BadInput for more than both.
    """
    # The limit is a global of Pillow's that the embedding program may have set for itself: it is put back, and the lock
    # keeps our threads from taking one another's value for the program's. It is only ever raised, so a thread that
    # opens a picture without us in the meantime is refused nothing.
    with LIMIT_LOCK:
        usual = Image.MAX_IMAGE_PIXELS
        limit = None if usual is None else max(usual, max_pixels)
        Image.MAX_IMAGE_PIXELS = limit
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadInput(f"pixels: found more than {limit}, expected at most {max_pixels} (--max-pixels)") from None
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def from_array(array: NDArray[Any], max_pixels: int = 1 << 30) -> Picture:
    """uint8/uint16 [H, W], or [H, W, C] with C 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    check_array(array, max_pixels)
    notes: tuple[str, ...] = ()
    if array.dtype == np.uint16:
        array, notes = reduce_depth(array, 16), ("reduced from 16 to 8 bit per sample",)
    return split(array.reshape(*array.shape[:2], -1), {}, notes)


def check_array(array: NDArray[Any], max_pixels: int) -> None:
    shape = array.shape
    ok = len(shape) in (2, 3) and min(shape[:2]) > 0 and (len(shape) == 2 or shape[2] in (1, 2, 3, 4))
    expect(ok, BadInput, "array shape", shape, "[H, W] or [H, W, 1 to 4]")
    expect(array.dtype in (np.uint8, np.uint16), BadInput, "array dtype", str(array.dtype), "uint8 or uint16")
    check_size(shape[1], shape[0], max_pixels)


def from_image(image: Image.Image, max_pixels: int = 1 << 30) -> Picture:
    """A PIL image, opened or in memory -> Picture. Raises BadInput for modes F and I (see `check_mode`)."""
    check_size(image.width, image.height, max_pixels)
    check_mode(image)
    bits = depth(image)
    n_frames = load(image, max_pixels)
    image, notes = upright(image)
    metadata = metadata_of(image)
    if image.mode == "CMYK":
        metadata.pop("icc", None)
    return split(samples(image, bits), metadata, (*notes, *conversions(image, n_frames, bits)))


def split(array: Array, metadata: dict[str, bytes], notes: tuple[str, ...]) -> Picture:
    """uint8 [H, W, 1 to 4] -> Picture, the last of an even number of channels being alpha."""
    n_colours = 1 if array.shape[2] < 3 else 3
    alpha = array[:, :, n_colours] if array.shape[2] > n_colours else None
    return Picture(np.ascontiguousarray(array[:, :, :n_colours]), opaque_dropped(alpha), metadata, notes)


def check_size(width: int, height: int, max_pixels: int) -> None:
    expect(width > 0 and height > 0, BadInput, "picture size", f"{width} x {height}", "at least 1 x 1")
    expect(width * height <= max_pixels, BadInput, "pixels", width * height, f"at most {max_pixels} (--max-pixels)")


def check_mode(image: Image.Image) -> None:
    """Refuse modes F and I, whose samples are any numbers: nothing says which one is white.

    An I that comes straight from a PNG or PPM file is allowed, since those readers scale to 16 bits.
    """
    scaled = image.mode == "I" and image.format in ("PNG", "PPM")
    expected = "8-bit samples or I;16: scale and convert the picture first"
    expect(scaled or image.mode not in ("I", "F"), BadInput, "mode", image.mode, expected)


def depth(image: Image.Image) -> int:
    """Bits a sample in the file of an image that is not loaded yet, where PNG, PPM or TIFF say it.

    Else what the mode says, 16 or 8: Pillow does not tell the depth of what it has reduced while loading.
    """
    tags = getattr(image, "tag_v2", {})
    if BITS_PER_SAMPLE in tags:
        return int(max(tags[BITS_PER_SAMPLE]))
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else None
    bits = 16 if image.mode.startswith("I") else 8
    if image.format == "PNG" and isinstance(args, str) and ";16" in args:
        return 16
    if image.format == "PPM" and isinstance(args, tuple) and isinstance(args[1], int):
        return max(bits, args[1].bit_length())
    return bits


def load(image: Image.Image, max_pixels: int) -> int:
    """Load the samples and return the number of frames or pages. Raises BadInput for damage in any."""
    with LIMIT_LOCK:
        usual = Image.MAX_IMAGE_PIXELS or math.inf
    # Some plugins (TIFF) check once more when loading. Only giants wait for the lock.
    giant = image.width * image.height > usual
    with parsing(), pillow_limit(max_pixels) if giant else nullcontext():
        n_frames = int(getattr(image, "n_frames", 1))  # first: counting the pages of a TIFF forgets what is loaded
        image.load()
    return n_frames


def upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The image turned as its EXIF or XMP says, which then say it no more; unparsable EXIF is dropped, with a note."""
    orientation = None
    try:
        with parsing("EXIF"):
            Image.Exif().load(image.info.get("exif", b""))  # anew: getexif fails once only, perhaps in Image.open
            orientation = image.getexif().get(ORIENTATION)
            return (image if orientation in (None, 1) else ImageOps.exif_transpose(image)), ()
    except BadInput as error:
        note = f"{error}: it is dropped"
    bare = image.copy()
    for key in ("exif", "Raw profile type exif"):
        bare.info.pop(key, None)
    with parsing():
        if orientation is not None:
            bare.getexif()[ORIENTATION] = orientation
        return ImageOps.exif_transpose(bare), (note,)


def conversions(image: Image.Image, n_frames: int, bits: int) -> list[str]:
    """What is lost of an image whose file had so many frames and bits a sample."""
    notes = []
    if n_frames > 1:
        notes.append(f"only the first of {n_frames} frames or pages is kept")
    if "gamma" in image.info and "icc_profile" not in image.info and abs(image.info["gamma"] - 0.45455) > 0.01:
        notes.append(f"gamma {image.info['gamma']:g} of the PNG is not kept; samples are kept as they are")
    if bits > 8:
        notes.append(f"reduced from {bits} to 8 bit per sample")
    if bits > 8 and "transparency" in image.info:
        notes.append(f"the transparent colour is not kept, since it is one of {bits} bits")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"converted from {image.mode} to RGB")
    return notes


def samples(image: Image.Image, bits: int) -> Array:
    """uint8 [H, W, 1 to 4] of a loaded image of any mode that `check_mode` allows. bits: a sample, in the file."""
    with parsing():
        if image.mode.startswith("I"):
            return reduce_depth(np.asarray(image).clip(0, 0xFFFF), bits)[:, :, None]
        mode = target_mode(image, bits)
        image = image if image.mode == mode else image.convert(mode)
        return np.asarray(image).reshape(image.height, image.width, -1)


def to_array(picture: Picture) -> Array:
    """uint8 [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[:, :, None]], 2)


def to_image(picture: Picture) -> Image.Image:
    """PIL image, mode L, LA, RGB or RGBA, its metadata in `info`."""
    array = to_array(picture)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    image.info.update({INFO_KEYS[name]: value for name, value in picture.metadata.items()})
    return image


def save(image: Image.Image, file: Any, format: str) -> tuple[str, ...]:
    """Write an image of `to_image` with what alpha and metadata the format can hold; return notes of what it cannot.

    file: path or binary file object. format: of HOLDS_ALPHA; JPEG and AVIF at quality 95 and 4:4:4, the others exact.
    Raises BadInput for other formats and where the picture does not fit the format; OSError where writing fails.
    """
    format = format.upper()
    expect(format in HOLDS_ALPHA, BadInput, "output format", format, ", ".join(HOLDS_ALPHA))
    metadata, notes = kept_metadata(image, format)
    if image.mode in ("RGBA", "LA") and not HOLDS_ALPHA[format]:
        image = image.convert(image.mode.removesuffix("A"))
        notes.append(f"alpha dropped: {format} cannot hold it")
    try:
        data = encoded(image, format, metadata)
    except BadInput as error:
        if "exif" not in metadata:
            raise
        del metadata["exif"]  # TIFF and AVIF are written with EXIF taken apart, which may fail; the others copy it
        data = encoded(image, format, metadata)
        notes.append(f"EXIF dropped: {error}")
    if isinstance(file, (str, os.PathLike)):
        Path(file).write_bytes(data)
    else:
        file.write(data)
    return tuple(notes)


def kept_metadata(image: Image.Image, format: str) -> tuple[dict[str, bytes], list[str]]:
    """The metadata that a format can hold, by our names, and notes about the rest."""
    kept, notes = metadata_of(image), []
    exif = kept.get("exif", EXIF_PREFIX)
    if not exif.startswith(EXIF_PREFIX):  # as it comes from WebP; JPEG readers overlook it so
        kept["exif"] = EXIF_PREFIX + exif
    for name, most in METADATA_BYTES.get(format, {}).items():
        if len(kept.get(name, b"")) > most:
            found = len(kept.pop(name))
            notes.append(f"{name.upper()} dropped: found {found} bytes, expected at most {most} in {format}")
    return kept, notes


def encoded(image: Image.Image, format: str, metadata: dict[str, bytes]) -> bytes:
    """The bytes of a file of a format. Raises BadInput for what the format cannot hold."""
    # In memory first: an error of the encoder, which may be any, is then not taken for one of the disk, or the reverse.
    file = io.BytesIO()
    try:
        image.save(file, format, **save_options(image, format, metadata))
    except MemoryError:
        raise
    except Exception as error:
        found = f"{image.mode} {image.width} x {image.height} ({type(error).__name__}: {error})"
        raise BadInput(f"{format} output: found {found}, expected a picture that {format} can hold") from error
    return file.getvalue()


def save_options(image: Image.Image, format: str, metadata: dict[str, bytes]) -> dict[str, Any]:
    """The keyword arguments of Image.save."""
    options = {**SAVE_OPTIONS.get(format, {}), **{INFO_KEYS[name]: value for name, value in metadata.items()}}
    if format == "AVIF" and image.mode == "L":
        del options["subsampling"]  # any but the plugin's own choice makes it a colour picture
    if format == "PNG" and "xmp" in options:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode("utf-8", "replace"))
    if format == "TIFF" and ("exif" in options or "xmp" in options):
        options["exif"] = tiff_tags(options.get("exif"), options.pop("xmp", None))
    return options


def tiff_tags(exif: bytes | None, xmp: bytes | None) -> Image.Exif:
    """EXIF and XMP as the tags of a TIFF file."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    for tag in TIFF_LAYOUT:
        tags.pop(tag, None)
    if xmp:
        tags[TIFF_XMP] = xmp
    return tags


def target_mode(image: Image.Image, bits: int) -> str:
    """L, LA, RGB or RGBA: what keeps colours and transparency of the mode. bits: a sample, in the file."""
    # A transparent colour of 16 bits is compared with none of 8: it would make the wrong pixels transparent.
    transparent = bits <= 8 and "transparency" in image.info
    transparent = transparent or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    if image.mode in ("1", "L", "LA", "La"):
        return "LA" if transparent else "L"
    return "RGBA" if transparent else "RGB"


def metadata_of(image: Image.Image) -> dict[str, bytes]:
    """ICC, EXIF and XMP bytes of a PIL image."""
    found: dict[str, Any] = {name: image.info.get(key) for name, key in INFO_KEYS.items()}
    found["xmp"] = found["xmp"] or image.info.get("XML:com.adobe.xmp")
    as_bytes = {k: v.encode() if isinstance(v, str) else v for k, v in found.items()}
    return {k: v for k, v in as_bytes.items() if isinstance(v, bytes) and v}


def reduce_depth(array: NDArray[Any], bits: int) -> Array:
    """Samples of so many bits -> their 8 highest."""
    return (array >> (bits - 8)).astype(np.uint8)


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
