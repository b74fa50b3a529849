"""Picture files: samples and metadata as what each format can hold; what it cannot is said.

Pillow and imagecodecs code the samples; the metadata is put in here, byte for byte, since neither writes all of it.
"""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from laconic import picture_metadata as metadata
from laconic import picture_parts as parts
from laconic import picture_tiff as tiff
from laconic.entropy.errors import BadInput, expect
from laconic.picture_metadata import Metadata
from laconic.picture_readers import Samples, deep_library

HOLDS_ALPHA = {"PNG": True, "WEBP": True, "AVIF": True, "TIFF": True, "JPEG": False, "BMP": False, "PPM": False}
EXACT_FORMATS = ("PNG", "WEBP", "TIFF", "BMP", "PPM")
DEEP_FORMATS = ("PNG", "TIFF", "PPM")
MARKER = 65533  # bytes in a marker of JPEG; XMP and each of at most 255 parts of an ICC profile share it with a prefix
NO_LIMIT = 1 << 32
# What each format holds of the metadata, and the most bytes of it. An orientation that has no place turns the samples.
HELD = {
    "PNG": dict.fromkeys(metadata.INFO_KEYS, NO_LIMIT),
    "JPEG": {
        "exif": MARKER,
        "xmp": MARKER - 29,
        "icc": 255 * (MARKER - 14),
        "iptc": MARKER - 14,
        "text": NO_LIMIT,
        "resolution": NO_LIMIT,
    },
    "TIFF": dict.fromkeys(("icc", "exif", "xmp", "iptc", "resolution"), NO_LIMIT),
    "WEBP": dict.fromkeys(("icc", "exif", "xmp"), NO_LIMIT),
    "AVIF": dict.fromkeys(("icc", "exif", "xmp"), NO_LIMIT),
    "BMP": {"resolution": NO_LIMIT},
    "PPM": {"depth": NO_LIMIT},
}
# Our codec has lost what it was asked to lose: the format that the result is written in adds as little as it can.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def write(samples: Samples, given: Metadata, format: str) -> tuple[bytes, list[str]]:
    """Return the bytes of a file of a format of HOLDS_ALPHA, and notes of what it does not hold.

    samples: uint8, or where the format is one of DEEP_FORMATS uint16, [H, W, C]. Raises BadInput.
    """
    kept, notes = held_by(format, given, samples.shape[2] < 3 and format != "WEBP")
    orientation = metadata.orientation_of(given)
    if orientation != 1 and not {"exif", "xmp"} & kept.keys():
        samples = turned(samples, orientation)
    if samples.shape[2] % 2 == 0 and not HOLDS_ALPHA[format]:
        samples = samples[:, :, : samples.shape[2] - 1]
        notes.append(f"alpha dropped: {format} cannot hold it")
    samples, kept, more = full_range(samples, kept, format)
    samples = np.ascontiguousarray(samples)
    notes += more
    if "exif" in kept and format in ("TIFF", "AVIF"):  # these writers take EXIF apart
        try:
            tiff.orientation_of(kept["exif"])
        except BadInput as error:
            del kept["exif"]
            notes.append(f"EXIF dropped: {error}")
    if format == "TIFF" and "exif" in kept:
        notes += tiff_losses(kept["exif"])
    return WRITERS[format](samples, kept), notes


def held_by(format: str, given: Metadata, is_gray: bool) -> tuple[Metadata, list[str]]:
    """Return the metadata that a format can hold, and notes about the rest."""
    kept, notes = metadata.fitting_profile(dict(given), is_gray)
    exif = kept.get("exif", tiff.EXIF_PREFIX)
    if not exif.startswith(tiff.EXIF_PREFIX):  # WebP's is without; readers of JPEG would overlook it
        kept["exif"] = tiff.EXIF_PREFIX + exif
    for name in [name for name in kept if name != "depth"]:
        most, found = HELD[format].get(name, 0), len(kept[name])
        if found > most:
            del kept[name]
            why = f"found {found} bytes, expected at most {most} in {format}" if most else f"{format} cannot hold it"
            notes.append(f"{metadata.said(name)} dropped: {why}")
    orientation = metadata.orientation_of(given)
    if "exif" in given and "exif" not in kept and orientation != 1 and "exif" in HELD[format]:
        kept["exif"] = tiff.minimal_exif(orientation)
    if format == "JPEG" and "text" in kept:
        titled = [t.keyword for t in metadata.unpack_texts(kept["text"]) if t.keyword not in (b"", b"Comment")]
        if titled:
            notes.append(f"text dropped: JPEG cannot hold {', '.join(t.decode('utf-8', 'replace') for t in titled)}")
    return kept, notes


def full_range(samples: Samples, kept: Metadata, format: str) -> tuple[Samples, Metadata, list[str]]:
    """Return samples whose largest value is that of 8 or 16 bits, where a format knows no other; PNG says what they were."""
    bits = 8 * samples.dtype.itemsize
    white = metadata.white_of(kept, bits)
    kept = {name: value for name, value in kept.items() if name != "depth" or format == "PPM"}
    if white == (1 << bits) - 1 or format == "PPM":
        return samples, kept, []
    scaled = stretched(samples, white)
    significant = white.bit_length()
    if format == "PNG" and white == (1 << significant) - 1:
        colours = metadata.unpack_chunks(kept.get("colour", b"")) | {b"sBIT": bytes([significant] * samples.shape[2])}
        kept["colour"] = metadata.pack_chunks(colours)
    return scaled, kept, [f"samples of 0 to {white} are scaled to {bits} bits: {format} cannot hold them as they are"]


def stretched(samples: Samples, white: int) -> Samples:
    """Return samples of 0..white as samples of all values that their 8 or 16 bits have."""
    full = (1 << 8 * samples.dtype.itemsize) - 1
    return ((samples.astype(np.uint32) * full + white // 2) // white).clip(0, full).astype(samples.dtype)


def turned(samples: Samples, orientation: int) -> Samples:
    """Return [H, W, C] as it is shown upright. orientation: as EXIF numbers it, 1 to 8."""
    if orientation >= 5:
        samples = samples.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(samples[::rows, ::columns])


def png(samples: Samples, kept: Metadata) -> bytes:
    """Return a PNG file."""
    if samples.dtype == np.uint16 and samples.shape[2] > 1:
        data = bytes(deep_library().png_encode(samples))
    else:
        data = by_pillow(samples, "PNG", {})
    header = len(parts.PNG_MAGIC) + 25  # the signature and IHDR
    return data[:header] + b"".join(parts.png_chunk(*chunk) for chunk in png_chunks(kept, samples)) + data[header:]


def significant(bits: bytes, samples: Samples) -> bytes:
    """Return the significant bits of each channel, sBIT, for samples that may have another depth or alpha than before."""
    channels, full = samples.shape[2], 8 * samples.dtype.itemsize
    n_colours = 1 if channels < 3 else 3
    colours = bits[:n_colours] if len(bits) >= n_colours else bits[:1] * n_colours
    alpha = bits[-1:] if len(bits) in (2, 4) else bytes([full])
    return bytes(min(max(value, 1), full) for value in colours + alpha * (channels - n_colours))


def png_chunks(kept: Metadata, samples: Samples) -> list[tuple[bytes, bytes]]:
    """Return names and contents of the chunks that hold metadata, those of colour first, as PNG orders them."""
    colour = metadata.unpack_chunks(kept.get("colour", b""))
    if b"sBIT" in colour:
        colour[b"sBIT"] = significant(colour[b"sBIT"], samples)
    found = list(colour.items())
    if "icc" in kept:
        found.append((b"iCCP", b"icc\0\0" + zlib.compress(kept["icc"])))
    if "resolution" in kept:
        found.append((b"pHYs", resolution_of_png(kept["resolution"])))
    if "exif" in kept:
        found.append((b"eXIf", kept["exif"].removeprefix(tiff.EXIF_PREFIX)))
    if "xmp" in kept:
        found.append((b"iTXt", metadata.XMP_OF_PNG + b"\0\0\0\0\0" + kept["xmp"]))
    if "iptc" in kept:
        profile = f"\niptc\n{len(kept['iptc']):8}\n{kept['iptc'].hex()}\n".encode()
        found.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile)))
    found += metadata.unpack_chunks(kept.get("chunks", b"")).items()
    return found + [text_chunk(text) for text in metadata.unpack_texts(kept.get("text", b""))]


def text_chunk(text: metadata.Text) -> tuple[bytes, bytes]:
    """Return a tEXt chunk where Latin-1 can say it, else iTXt."""
    keyword = (text.keyword or b"Comment").decode("utf-8", "replace").encode("latin-1", "replace")[:79]
    content = text.text
    if not text.keyword:  # a comment of unknown encoding
        content = decoded(content).replace("\0", " ").encode()
    try:
        plain = content.decode().encode("latin-1")
    except UnicodeError:
        plain = None
    if plain is not None and not text.language and not text.translated:
        return b"tEXt", keyword + b"\0" + plain
    return b"iTXt", keyword + b"\0\0\0" + text.language + b"\0" + text.translated + b"\0" + content


def decoded(comment: bytes) -> str:
    """Return the text of a comment, whose bytes are UTF-8 or else Latin-1."""
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def resolution_of_png(data: bytes) -> bytes:
    """Return the content of pHYs."""
    found = metadata.resolution_in(data, metadata.METRE)
    x, y = found or metadata.unpack_resolution(data)[1:]
    if found is None:  # a ratio without a unit is written in whole numbers
        x, y = x * x.denominator * y.denominator, y * x.denominator * y.denominator
    whole = [max(1, min(round(value), (1 << 31) - 1)) for value in (x, y)]
    return struct.pack(">2IB", *whole, found is not None)


def jpeg(samples: Samples, kept: Metadata) -> bytes:
    """Return a JPEG file, of quality 95 and full chroma."""
    options = {metadata.INFO_KEYS[name]: kept[name] for name in ("icc", "exif", "xmp") if name in kept}
    data = by_pillow(samples, "JPEG", options)
    head, rest = data[:20], data[20:]  # the start of the file, and the whole JFIF segment
    if "resolution" in kept:
        own = metadata.unpack_resolution(kept["resolution"])[0]
        unit = {metadata.NONE: 0, metadata.CENTIMETRE: 2}.get(own, 1)
        wanted = metadata.CENTIMETRE if unit == 2 else metadata.INCH
        x, y = metadata.resolution_in(kept["resolution"], wanted) or metadata.unpack_resolution(kept["resolution"])[1:]
        head = head[:13] + struct.pack(">B2H", unit, *(max(1, min(round(v), 65535)) for v in (x, y))) + head[18:]
    more = b""
    if "iptc" in kept:
        more += parts.jpeg_segment(0xED, metadata.IPTC_OF_JPEG + kept["iptc"])
    for text in metadata.unpack_texts(kept.get("text", b"")):
        if text.keyword in (b"", b"Comment"):
            pieces = range(0, max(1, len(text.text)), MARKER)
            more += b"".join(parts.jpeg_segment(0xFE, text.text[i : i + MARKER]) for i in pieces)
    return head + more + rest


def tiff_file(samples: Samples, kept: Metadata) -> bytes:
    """Return an uncompressed TIFF file, in one strip, little-endian."""
    height, width, channels = samples.shape
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    expect(len(data) < (1 << 32) - (1 << 27), BadInput, "TIFF output", f"{len(data)} bytes", "less than 4 GiB: use PNG")
    tags, nested = tags_of(kept)
    numbers = {256: width, 257: height, 259: 1, 262: 1 if channels < 3 else 2, 277: channels, 278: height}
    numbers |= {273: 8, 279: len(data)} | ({338: 2} if channels % 2 == 0 else {})
    for number, value in numbers.items():
        is_long = number in (256, 257, 273, 278, 279)
        tags[number] = tiff.Tag(tiff.LONG, struct.pack("<I", value), "<") if is_long else tiff.short(value)
    tags[258] = tiff.short(*[8 * samples.dtype.itemsize] * channels)
    body = data + bytes(len(data) % 2)
    at = 8 + len(body)
    return b"II*\0" + struct.pack("<I", at) + body + tiff.laid(tags, "<", at, nested)


def tiff_losses(exif: bytes) -> list[str]:
    """Return notes of what EXIF loses where its tags become those of a TIFF file."""
    file = tiff.parse(exif.removeprefix(tiff.EXIF_PREFIX), "EXIF")
    pages = list(file.directories())
    position = pages[0][tiff.EXIF_IFD].values if pages and tiff.EXIF_IFD in pages[0] else ()
    inner = (file.directory(position[0]) or ({}, 0))[0] if position else {}
    lost = ["thumbnail"] * (len(pages) > 1) + ["interoperability tags"] * (tiff.INTEROP_IFD in inner)
    return [f"{' and '.join(lost)} of the EXIF dropped: TIFF has no place for it"] if lost else []


def tags_of(kept: Metadata) -> tuple[tiff.Directory, dict[int, tiff.Directory]]:
    """Return metadata as the tags of a TIFF file, and the directories that tags point at."""
    tags, nested = tiff.Directory(), dict[int, tiff.Directory]()
    if "exif" in kept:
        file = tiff.parse(kept["exif"].removeprefix(tiff.EXIF_PREFIX), "EXIF")
        own = (tiff.INTEROP_IFD, metadata.X_RESOLUTION, metadata.Y_RESOLUTION, metadata.RESOLUTION_UNIT)
        without = (*tiff.COLOUR, *(own if "resolution" in kept else own[:1]))
        tags, nested = tiff.unfolded(file, next(file.directories(), {}), without)
    for name, number, kind in (
        ("xmp", metadata.TIFF_XMP, tiff.BYTE),
        ("icc", tiff.TIFF_ICC, tiff.UNDEFINED),
        ("iptc", metadata.TIFF_PHOTOSHOP, tiff.BYTE),
    ):
        if name in kept:
            tags[number] = tiff.Tag(kind, kept[name], "<")
    if "resolution" in kept:
        unit, x, y = metadata.unpack_resolution(kept["resolution"])
        if unit == metadata.METRE:
            unit, x, y = metadata.CENTIMETRE, x / 100, y / 100
        for number, value in ((metadata.X_RESOLUTION, x), (metadata.Y_RESOLUTION, y)):
            tags[number] = tiff.Tag(tiff.RATIONAL, rational(value), "<")
        tags[metadata.RESOLUTION_UNIT] = tiff.short(unit)
    return tags, nested


def rational(value: Fraction) -> bytes:
    """Return a positive ratio, or the nearest one of 32-bit numbers, as TIFF has it."""
    most = (1 << 32) - 1
    value = min(max(value, Fraction(1, most)), Fraction(most))
    if max(value.as_integer_ratio()) > most:
        value = value.limit_denominator(max(1, int((most - 1) / max(value, Fraction(1)))))
    return struct.pack("<2I", *value.as_integer_ratio())


def bmp(samples: Samples, kept: Metadata) -> bytes:
    """Return a BMP file."""
    data = by_pillow(samples, "BMP", {})
    found = metadata.resolution_in(kept["resolution"], metadata.METRE) if "resolution" in kept else None
    if found is None:
        return data
    return data[:38] + struct.pack("<2i", *(max(1, min(round(v), (1 << 31) - 1)) for v in found)) + data[46:]


def ppm(samples: Samples, kept: Metadata) -> bytes:
    """Return a PGM or PPM file; samples of more than 8 bits are big-endian."""
    height, width, channels = samples.shape
    white = metadata.white_of(kept, 8 * samples.dtype.itemsize)
    deep = samples.astype(np.uint8 if white < 256 else ">u2")
    return f"P{5 if channels == 1 else 6}\n{width} {height}\n{white}\n".encode() + deep.tobytes()


def webp(samples: Samples, kept: Metadata) -> bytes:
    """Return a lossless WebP file."""
    return by_pillow(samples, "WEBP", {metadata.INFO_KEYS[name]: kept[name] for name in kept})


class WholeExif(Image.Exif):
    """EXIF that Pillow's AVIF writer leaves as it is: the plugin would write the tags that it knows anew, and warn."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw

    def __bool__(self) -> bool:
        return bool(self.raw)

    def tobytes(self, offset: int = 8) -> bytes:
        return self.raw


def avif(samples: Samples, kept: Metadata) -> bytes:
    """Return an AVIF file, of quality 95 and full chroma; it is stored upright, for its readers turn it by boxes alone."""
    options: dict[str, Any] = {metadata.INFO_KEYS[name]: kept[name] for name in kept}
    if "exif" in kept:
        samples = turned(samples, metadata.orientation_of(kept))
        options["exif"] = WholeExif(tiff.upright_exif(kept["exif"]))
    return by_pillow(samples, "AVIF", options)


WRITERS = {"PNG": png, "JPEG": jpeg, "TIFF": tiff_file, "BMP": bmp, "PPM": ppm, "WEBP": webp, "AVIF": avif}


def by_pillow(samples: Samples, format: str, options: dict[str, Any]) -> bytes:
    """Return the bytes of a file that Pillow writes. Raises BadInput for what the format cannot hold."""
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    options = {**SAVE_OPTIONS.get(format, {}), **options}
    if format == "AVIF" and image.mode == "L":
        del options["subsampling"]  # any but the plugin's own choice makes it a colour picture
    # In memory first: an error of the encoder, which may be any, is then not taken for one of the disk, or the reverse.
    file = io.BytesIO()
    try:
        image.save(file, format, **options)
    except MemoryError:
        raise
    except Exception as error:
        found = f"{image.mode} {image.width} x {image.height} ({type(error).__name__}: {error})"
        raise BadInput(f"{format} output: found {found}, expected a picture that {format} can hold") from error
    return file.getvalue()
