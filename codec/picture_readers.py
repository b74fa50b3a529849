"""Samples out of picture files and PIL images, by the library that the table in `picture_formats` names.

What surprises in Pillow is met here: it reduces 16-bit samples without a word, has modes in which no number is white, keeps
the orientation beside the pixels, and its plugins raise anything. libtiff and libpng print to stderr, and Pillow's parser
of EXIF warns: they are shown files without the parts that they complain of, and `picture_words` keeps what is left. To
redirect stderr around a call is not sound in a program with threads.
"""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from laconic import picture_metadata as metadata
from laconic import picture_parts as parts
from laconic import picture_tiff as tiff
from laconic.entropy.errors import BadInput, LaconicError, expect
from laconic.picture_formats import DEEP, OWN, PILLOW, REDUCED, WHOLE_IN_PILLOW, Seen, Way, choose
from laconic.picture_looks import look
from laconic.picture_metadata import Metadata
from laconic.picture_words import words_kept

Samples = NDArray[Any]  # uint8 or uint16 [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA
# Formats of which Pillow reads some kinds, and says nothing of the others.
UNIDENTIFIED = {b"8BPS": "Photoshop", b"DDS ": "DDS", b"SIMPLE  =": "FITS", b"DICM": "DICOM", b"BM": "BMP", b"\x59\xa6\x6a\x95": "SUN"}
OFFSETS = {"DICOM": 128}
DEEP_PNG = re.compile(re.escape(parts.PNG_MAGIC) + rb"\0\0\0\rIHDR.{8}\x10", re.DOTALL)
LIMIT_LOCK = threading.RLock()
CHANGED_MODES = ("CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa")  # their samples change on the way to RGB


@dataclass(frozen=True)
class Decoded:
    """Holds samples [H, W, C], C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA; the largest value of one; metadata; what was lost."""

    samples: Samples
    white: int
    metadata: Metadata
    notes: tuple[str, ...]


def decode_file(raw: bytes, exact: bool, max_pixels: int) -> Decoded:
    """Read a picture file; exact: refuse what cannot be read unchanged. Raises BadInput."""
    seen = look(raw)
    if seen is not None and seen.format not in ("AVIF", "TIFF"):  # these are shown to readers without what they complain of
        return decode_seen(raw, seen, exact, max_pixels)
    with words_kept() as words:
        found = decode_seen(raw, seen, exact, max_pixels)
    return with_notes(found, words)


def decode_seen(raw: bytes, seen: Seen | None, exact: bool, max_pixels: int) -> Decoded:
    """Read a picture file that was looked at; None: Pillow alone tells what it is. Raises BadInput."""
    if seen is None:
        image = open_image(raw, max_pixels)
        found = with_notes(decode_image(image, exact, max_pixels), [*beside(image, exact), *unkept(raw, exact)])
        more, notes = metadata.of_gif(raw) if image.format == "GIF" else ({}, [])
        return with_notes(Decoded(found.samples, found.white, found.metadata | more, found.notes), notes)
    way = choose_after(seen, raw, exact, max_pixels)
    notes = [*seen.notes, *notes_on(seen, way, exact)]
    if way.reader == PILLOW:
        image = open_image(seen.clean, max_pixels)
        check_undamaged(seen)
        found = decode_image(image, exact, max_pixels, seen)
    else:
        check_size(seen.width, seen.height, max_pixels)
        check_undamaged(seen)
        samples = pnm_samples(seen) if way.reader == OWN else by_imagecodecs(seen, way.reader)
        found = Decoded(samples, white_of(seen) if samples.dtype == np.uint8 or seen.white else 65535, {}, ())
        if seen.format == "AVIF":  # Pillow tells its ICC, EXIF, XMP and orientation
            image = open_image(raw, max_pixels)
            frames = int(getattr(image, "n_frames", 1))
            found = Decoded(samples, found.white, metadata.of_info(image), (frames_note(frames),) * (frames > 1))
    kept = seen.metadata if seen.format != "AVIF" else found.metadata | seen.metadata
    if seen.format == "AVIF" and rewritten(kept.get("exif", b""), raw):
        notes.append("the EXIF of the AVIF is kept without its thumbnail: Pillow wrote it anew, with the orientation of the boxes")
    return Decoded(finished(found.samples, seen, exact), found.white, kept, (*notes, *found.notes))


def rewritten(exif: bytes, raw: bytes) -> bool:
    """Return whether EXIF is not that of an AVIF file, which has some."""
    return bool(exif) and b"Exif" in raw and exif.removeprefix(tiff.EXIF_PREFIX) not in raw


def choose_after(seen: Seen, raw: bytes, exact: bool, max_pixels: int) -> Way:
    """Return the row of a file; where there is none, damage is named first, which may be the reason."""
    try:
        return choose(seen, exact)
    except BadInput:
        if seen.bits == 0 or seen.width == 0:
            open_image(raw, max_pixels)
        raise


def check_undamaged(seen: Seen) -> None:
    """Raise BadInput for damage that the header shows, before any sample takes memory."""
    if seen.damage:
        raise BadInput(f"picture: found damage ({seen.damage}), expected none")


def decode_image(image: Image.Image, exact: bool, max_pixels: int, seen: Seen | None = None) -> Decoded:
    """Read a PIL image, opened or in memory; seen: what its file says. Raises BadInput for modes F and I (`check_mode`)."""
    check_size(image.width, image.height, max_pixels)
    check_mode(image)
    known = not isinstance(image, ImageFile.StubImageFile)
    expect(known, BadInput, "picture", image.format, "a format that Pillow reads; it does no more than recognise this one")
    changed = image.mode in CHANGED_MODES and exact
    expected = "gray, palette or RGB samples: convert it first, or code it lossy"
    expect(not changed, BadInput, "mode", image.mode, expected)
    n_frames = load(image, max_pixels)
    notes = list[str]()
    if seen is None and image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"converted from {image.mode} to RGB")
    if n_frames > 1:
        notes.append(frames_note(n_frames))
    kept = metadata.of_info(image)
    if seen is None and image.format == "TIFF":
        kept = tags_of_loaded(image, notes) | kept
    samples = samples_of(image, seen)
    white = white_of(seen) if seen and image.mode.startswith("I") else 255 if samples.dtype == np.uint8 else 65535
    return Decoded(samples, white, kept, tuple(notes))


def tags_of_loaded(image: Image.Image, notes: list[str]) -> Metadata:
    """Return what the tags say of a TIFF file that Pillow has loaded, and turned upright: its `info` has few of them."""
    try:
        with parsing("TIFF tags"):
            file = tiff.parse(image.getexif().tobytes().removeprefix(tiff.EXIF_PREFIX))
            return metadata.of_tiff(file, next(file.directories(), {}))
    except BadInput as error:
        notes.append(f"{error}: they are dropped")
        return {}


def with_notes(decoded: Decoded, notes: list[str]) -> Decoded:
    """Return the same with more notes."""
    return Decoded(decoded.samples, decoded.white, decoded.metadata, (*decoded.notes, *notes))


def beside(image: Image.Image, exact: bool) -> list[str]:
    """Return what a format that only Pillow tells of may have lost. Raises BadInput where that matters."""
    format = image.format or "none"
    if format in WHOLE_IN_PILLOW:
        others = len(image.info.get("sizes", ())) - 1
        return [f"only the largest of {others + 1} pictures is kept"] if others > 0 else []
    expected = "a format whose samples are known to be read unchanged: convert it to PNG, or code it lossy"
    expect(not exact, BadInput, "picture format", format, expected)
    return [f"{format} is read by Pillow as 8-bit pixels; what else it holds is not kept"]


def unkept(raw: bytes, exact: bool) -> list[str]:
    """Return notes of what TGA, QOI, DIB and ICO hold that Pillow does not pass on. Raises BadInput where that matters."""
    is_deep = raw.startswith((b"\0\0\1\0", b"\0\0\2\0", b"icns")) and bool(DEEP_PNG.search(raw))
    expect(not (is_deep and exact), BadInput, "icon", "a PNG of 16 bits", "8 bits: code it lossy")
    extension = int.from_bytes(raw[-26:-22], "little") if raw.endswith(b"TRUEVISION-XFILE.\0") else 0
    found = {
        "the extension area of the TGA is not kept": extension > 0,
        "the fourth byte of the DIB's pixels is not kept": raw.startswith(b"\x28\0\0\0") and raw[14:16] == b"\x20\0",
        "reduced from 16 to 8 bit per sample": is_deep,
        "the samples of the QOI are linear, which is not kept": raw.startswith(b"qoif") and raw[13:14] == b"\1",
    }
    return [note for note, holds in found.items() if holds]


def notes_on(seen: Seen, way: Way, exact: bool) -> Iterator[str]:
    """Yield what is lost of a file on its way."""
    if seen.n_pictures > 1:
        yield frames_note(seen.n_pictures)
    if way.note == REDUCED or (not exact and max(seen.bits, 16 * ("palette_of_16_bits" in seen.traits)) > 8):
        bits = max(seen.bits, 16 * ("palette_of_16_bits" in seen.traits))
        yield f"reduced from {bits} to 8 bit per sample"
    if way.note == REDUCED and seen.key:
        yield f"the transparent colour is not kept, since it is one of {seen.bits} bits"
    if way.note and way.note != REDUCED:
        yield way.note
    if "extra" in seen.traits:
        done = "kept as if it were alpha" if exact else "not kept"
        yield f"the last channel, whose meaning the {seen.format} does not say, is {done}"


def frames_note(n_frames: int) -> str:
    """Return the note of a file with several frames or pages."""
    return f"only the first of {n_frames} frames or pages is kept"


def white_of(seen: Seen) -> int:
    """Return the largest value that a sample of a file may have."""
    return seen.white or (1 << (8 if seen.bits <= 8 else 16)) - 1


def finished(samples: Samples, seen: Seen, exact: bool) -> Samples:
    """Return the samples with a PNG's transparent colour as alpha, and without channels that lossy coding has no place for."""
    if seen.key and samples.shape[2] == len(seen.key) and (seen.bits == 16) == (samples.dtype == np.uint16):
        scale = 255 // ((1 << seen.bits) - 1) if seen.bits < 8 else 1
        hidden = (samples == np.array(seen.key, samples.dtype) * samples.dtype.type(scale)).all(2)
        full = np.iinfo(samples.dtype).max
        alpha = np.where(hidden, 0, full).astype(samples.dtype)
        return np.concatenate([samples, alpha[:, :, None]], 2)
    if "extra" in seen.traits and not exact:
        return np.ascontiguousarray(samples[:, :, : samples.shape[2] - 1])
    return samples


def samples_of(image: Image.Image, seen: Seen | None) -> Samples:
    """Return the samples of a loaded image of any mode that `check_mode` allows, uint8 or uint16 [H, W, C]."""
    with parsing():
        if image.mode.startswith("I"):
            deep: NDArray[np.uint16] = np.asarray(image).clip(0, 0xFFFF).astype(np.uint16)[:, :, None]
            key = None if seen else image.info.get("transparency")  # which Pillow applies to 8 bits alone
            if isinstance(key, int):
                deep = np.concatenate([deep, np.where(deep == key, 0, 0xFFFF).astype(np.uint16)], 2)
            return np.uint16(0xFFFF) - deep if seen and "white_is_0" in seen.traits else deep
        if seen and "palette_of_16_bits" in seen.traits:
            return coloured(np.asarray(image), seen)
        mode = target_mode(image)
        image = image if image.mode == mode else image.convert(mode)
        return np.asarray(image).reshape(image.height, image.width, -1)


def coloured(indices: NDArray[np.uint8], seen: Seen) -> Samples:
    """Return the colours of the indices of a TIFF file, uint8 or, where 8 bits do not hold them, uint16 [H, W, 3]."""
    file = tiff.parse(seen.clean)
    directory = next(file.directories())
    with parsing():
        colours: Samples = np.array(directory[320].values, np.uint16).reshape(3, -1).T
        colours = colours if "palette_of_16_bits" in seen.traits else (colours >> 8).astype(np.uint8)
        return np.ascontiguousarray(colours[indices])


def by_imagecodecs(seen: Seen, name: str) -> Samples:
    """Return the samples of a file as imagecodecs decodes them, held to the size and depth that the file states."""
    codecs = deep_library()
    decode = getattr(codecs, f"{name}_decode")
    with parsing():
        found = by_passes(seen, decode) if seen.format == "PNG" else decode(seen.clean)
    shape = (seen.height, seen.width, seen.channels)
    if "planar" in seen.traits and found.shape == (seen.channels, *shape[:2]):
        found = found.transpose(1, 2, 0)
    right = found.size == math.prod(shape) and found.shape[:2] == shape[:2]
    if found.dtype == np.bool_:
        found = found.astype(np.uint8) * np.uint8(255)
    depth: Any = np.dtype(np.uint8 if seen.bits <= 8 else np.uint16)
    expect(right and found.dtype == depth, BadInput, f"{seen.format} as read", f"{found.dtype} {found.shape}", f"{depth} {shape}")
    if "palette" in seen.traits:
        return coloured(found.reshape(shape[:2]), seen)
    samples: Samples = np.ascontiguousarray(found.reshape(shape))
    if "white_is_0" in seen.traits:
        samples = samples.copy()
        samples[:, :, 0] = np.iinfo(depth).max - samples[:, :, 0]
    return samples


def by_passes(seen: Seen, decode: Callable[[bytes], Samples]) -> Samples:
    """Return the samples of a PNG file of 16 bits, each pass read as a picture of its own, and checked before.

    libpng warns on stderr of interlaced files, and fills up what a damaged stream has not.
    """
    out = np.zeros((seen.height, seen.width, seen.channels), np.uint16)
    passes = parts.passes_of(seen.clean[16:29])
    for (top, left, down, across), file in zip(passes, parts.png_passes(seen.clean, 16 * seen.channels), strict=True):
        if file:
            place = out[top::down, left::across]
            place[:] = decode(file).reshape(place.shape)
    return out


def pnm_samples(seen: Seen) -> Samples:
    """Return the samples of a PBM, PGM or PPM file whose header is cut off but for the two letters of its kind."""
    shape, data = (seen.height, seen.width, seen.channels), seen.clean[2:]
    count = math.prod(shape)
    if seen.clean[:2] in (b"P1", b"P4"):
        values: NDArray[Any] = pbm_bits(seen, data) ^ 1  # where 1 is black
    elif seen.clean[:2] in (b"P2", b"P3"):
        words = data.split(maxsplit=count)[:count] if b"#" not in data else uncommented(data).split()[:count]
        with parsing():
            values = np.array([int(word) for word in words], np.int64)
    else:
        wide = np.dtype(np.uint8 if seen.white < 256 else ">u2")
        body = data[1 : 1 + count * wide.itemsize]
        values = np.frombuffer(body[: len(body) // wide.itemsize * wide.itemsize], wide)
    if len(values) != count:
        raise BadInput(f"picture: found damage (truncated: {len(values)} of {count} samples), expected none")
    greatest = int(values.max())
    expect(0 <= greatest <= seen.white and values.min() >= 0, BadInput, "sample", greatest, f"0 to {seen.white}")
    depth: Any = np.uint8 if seen.white < 256 else np.uint16
    return values.astype(depth).reshape(shape)


def pbm_bits(seen: Seen, data: bytes) -> NDArray[np.uint8]:
    """Return the bits of a PBM file, as many as there are: digits that may follow one another, or rows of whole bytes."""
    if seen.clean[:2] == b"P1":
        digits = np.frombuffer(b"".join(uncommented(data).split()), np.uint8)[: seen.height * seen.width]
        return digits - np.uint8(ord("0"))
    across = -(-seen.width // 8)
    rows = np.frombuffer(data[1 : 1 + seen.height * across], np.uint8)
    whole = rows[: len(rows) // across * across].reshape(-1, across)
    return np.unpackbits(whole, axis=1, count=seen.width).ravel()


def uncommented(data: bytes) -> bytes:
    """Return the text of a plain PNM file without its comments."""
    return b"\n".join(line.partition(b"#")[0] for line in data.splitlines())


def deep_library() -> Any:
    """Return imagecodecs, which reads and writes deep colour. Raises BadInput where it is not installed."""
    try:
        import imagecodecs
    except ImportError:
        raise BadInput(f"16-bit colour: found no imagecodecs, expected it ({DEEP})") from None
    return imagecodecs


def open_image(raw: bytes, max_pixels: int) -> Image.Image:
    """Return a PIL image of a file whose samples are not loaded yet. Raises BadInput."""
    with parsing(), pillow_limit(max_pixels):
        try:
            return Image.open(io.BytesIO(raw))
        except UnidentifiedImageError:
            kind = next((name for start, name in UNIDENTIFIED.items() if raw.startswith(start, OFFSETS.get(name, 0))), None)
            found = f"a {kind} file of a kind that is not read" if kind else "no picture" if raw else "an empty file"
            raise BadInput(f"picture: found {found}, expected a format that Pillow reads") from None


@contextmanager
def parsing(what: str = "picture") -> Iterator[None]:
    """Turn whatever a reader raises about the bytes, from SyntaxError to RuntimeError, into BadInput."""
    try:
        yield
    except (LaconicError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) or re.search("nsupported|not supported", str(error)):
            raise BadInput(f"{what}: found a kind that is not read ({error}), expected one that Pillow reads") from error
        raise BadInput(f"{what}: found damage ({type(error).__name__}: {error}), expected none") from error


@contextmanager
def pillow_limit(max_pixels: int) -> Iterator[None]:
    """Raise Pillow's own limit on pixels to `max_pixels` or more while inside, so that `check_size` decides.

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


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise BadInput for an empty picture and for more pixels than allowed."""
    expect(width > 0 and height > 0, BadInput, "picture size", f"{width} x {height}", "at least 1 x 1")
    expect(width * height <= max_pixels, BadInput, "pixels", width * height, f"at most {max_pixels} (--max-pixels)")


def check_mode(image: Image.Image) -> None:
    """Refuse modes F and I, whose samples are any numbers: nothing says which one is white.

    An I that comes straight from a PNG or PPM file is allowed, since those readers scale to 16 bits.
    """
    scaled = image.mode == "I" and image.format in ("PNG", "PPM")
    expected = "8-bit samples or I;16: scale and convert the picture first"
    expect(scaled or image.mode not in ("I", "F"), BadInput, "mode", image.mode, expected)


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


def target_mode(image: Image.Image) -> str:
    """Return L, LA, RGB or RGBA: what keeps colours and transparency of the mode."""
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    transparent |= image.mode == "P" and image.palette is not None and image.palette.mode in ("RGBA", "LA", "PA")
    if image.mode in ("1", "L", "LA", "La"):
        return "LA" if transparent else "L"
    return "RGBA" if transparent else "RGB"
