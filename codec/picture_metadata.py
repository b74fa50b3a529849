"""What comes with the pixels of a picture: where each format has it, and how it is kept (FORMAT.md, section "Metadata").

    icc, exif, xmp   the bytes as they are in any format
    text             PNG text, comments of JPEG, GIF and PNM: keyword, language, translated keyword and text, each
    resolution       unit and two ratios: 72 per inch stays 72 per inch
    depth            the largest value that a sample may have, where that is not 255 or 65535
    colour           PNG's own chunks that say what the numbers mean: cICP, cHRM, gAMA, sBIT, mDCV, cLLI
    iptc             image resources of Photoshop, the block that holds IPTC in JPEG and TIFF
    chunks           other chunks of PNG: background, time, offset, scales

All are bytes, so that both media carry them alike; payloads.py has the numbers of their chunks.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from laconic import picture_parts as parts
from laconic import picture_tiff as tiff
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.varint import read_varint, write_varint
from laconic.payloads import MAX_METADATA_BYTES

Metadata = dict[str, bytes]
# By our name, the key in the `info` of a PIL image: a key of our own where Pillow has none, or one that is not exact.
INFO_KEYS = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"} | {
    name: f"laconic_{name}" for name in ("text", "resolution", "depth", "colour", "iptc", "chunks")
}
NONE, INCH, CENTIMETRE, METRE = 1, 2, 3, 4  # units of a resolution; the first three as TIFF numbers them
COLOUR_CHUNKS = (b"cICP", b"cHRM", b"gAMA", b"sBIT", b"mDCV", b"cLLI")
OTHER_CHUNKS = (b"bKGD", b"tIME", b"oFFs", b"pCAL", b"sCAL", b"sTER")
SEEN_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sRGB", b"acTL", b"fcTL", b"fdAT")  # read elsewhere
SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # as cHRM has them, times 100000
SRGB_GAMMA = 45455
PLAIN_CODES = (1, 2)  # colour primaries of cICP and nclx that are sRGB's, or not stated
FULL_RANGE_RGB = b"\0\1"  # its matrix and its range
PLAIN_TRANSFERS = (1, 2, 6, 13)  # transfer functions, likewise, that readers show alike
XMP_OF_PNG, XMP_OF_JPEG = b"XML:com.adobe.xmp", b"http://ns.adobe.com/xap/1.0/\0"
GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
LONG_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC_OF_JPEG, IPTC_OF_JPEG = b"ICC_PROFILE\0", b"Photoshop 3.0\0"
TIFF_XMP, TIFF_IPTC, TIFF_PHOTOSHOP = 700, 33723, 34377
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
XMP_ORIENTATIONS = re.compile(rb"tiff:Orientation=([\"'])[0-9]\1|<tiff:Orientation>[0-9]</tiff:Orientation>")


@dataclass(frozen=True)
class Text:
    """Holds a piece of text; keyword b"" is a comment, whose bytes are as they were. All UTF-8 otherwise."""

    keyword: bytes
    text: bytes
    language: bytes = b""
    translated: bytes = b""


def stripped(metadata: Metadata) -> Metadata:
    """Return what the pixels cannot be shown without: the depth, and an orientation other than upright as minimal EXIF.

    ICC, EXIF, XMP, text, IPTC, resolution and colour go, as `cjxl` and ImageMagick's -strip have it.
    """
    kept = {name: metadata[name] for name in ("depth",) if name in metadata}
    orientation = orientation_of(metadata)
    if orientation != 1:
        kept["exif"] = tiff.minimal_exif(orientation)
    return kept


def orientation_of(metadata: Metadata) -> int:
    """Return the orientation that EXIF, or else XMP, states, 1 (upright) to 8. EXIF that is none states nothing."""
    try:
        found = tiff.orientation_of(metadata["exif"]) if "exif" in metadata else None
    except BadInput:
        found = None
    match = XMP_ORIENTATION.search(metadata.get("xmp", b""))
    return found or (int(match[1]) if match else 1)


def upright(metadata: Metadata) -> tuple[Metadata, tuple[str, ...]]:
    """Return the metadata of a picture that has been turned; EXIF that cannot be parsed goes, with a note."""
    out, notes = dict(metadata), list[str]()
    if "exif" in out:
        try:
            out["exif"] = tiff.upright_exif(out["exif"])
        except BadInput as error:
            del out["exif"]
            notes.append(f"{error}: it is dropped")
    if "xmp" in out and XMP_ORIENTATION.search(out["xmp"]):
        out["xmp"] = XMP_ORIENTATIONS.sub(b"", out["xmp"])
    return out, tuple(notes)


def of_info(image: Image.Image) -> Metadata:
    """Return what the `info` of a PIL image says."""
    info = image.info
    found: dict[str, Any] = {name: info.get(key) for name, key in INFO_KEYS.items()}
    found["xmp"] = found["xmp"] or info.get("XML:com.adobe.xmp")
    found["resolution"] = found["resolution"] or resolution_of_dpi(info.get("dpi"))
    comment = info.get("comment")
    if comment and not found["text"]:
        found["text"] = pack_texts([Text(b"", comment if isinstance(comment, bytes) else str(comment).encode())])
    if isinstance(image, PngImageFile) and not image.tile and not found["text"]:
        titled = {k: v for k, v in image.text.items() if not k.startswith(("Raw profile type", "XML:com.adobe.xmp"))}
        found["text"] = pack_texts([Text(key.encode(), str(value).encode()) for key, value in titled.items()])
    gamma = info.get("gamma")
    if isinstance(gamma, (int, float)) and 0 < gamma < 1000 and not found["colour"]:
        found["colour"] = pack_chunks({b"gAMA": round(gamma * 100_000).to_bytes(4, "big")})
    as_bytes = {k: v.encode() if isinstance(v, str) else v for k, v in found.items()}
    return {k: v for k, v in as_bytes.items() if isinstance(v, bytes) and v}


def of_png(raw: bytes) -> tuple[Metadata, list[str]]:
    """Return the metadata of a PNG file, and notes of what is not kept."""
    found, texts, colours, others = Metadata(), list[Text](), dict[bytes, bytes](), dict[bytes, bytes]()
    lost, is_srgb = list[str](), False
    header = next((content for name, content in parts.png_chunks(raw) if name == b"IHDR" and len(content) == 13), bytes(13))
    for name, content in parts.png_chunks(raw):
        if name in (b"iCCP", b"zTXt", b"iTXt") and is_broken(name, content):
            lost.append(f"{name.decode()} (damaged)")
        elif name == b"iCCP":
            found["icc"] = inflated(content.partition(b"\0")[2][1:])
        elif name == b"eXIf":
            found["exif"] = tiff.EXIF_PREFIX + content.removeprefix(tiff.EXIF_PREFIX)
        elif name == b"pHYs" and len(content) == 9:
            x, y = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
            found["resolution"] = pack_resolution(METRE if content[8] == 1 else NONE, (x, 1), (y, 1))
        elif name in (b"tEXt", b"zTXt", b"iTXt") and sum(len(t.text) for t in texts) <= MAX_METADATA_BYTES:
            texts += texts_of(name, content, found)
        elif name in COLOUR_CHUNKS:
            colours[name] = content
        elif name in OTHER_CHUNKS and (name != b"bKGD" or (header[8] == 8 and header[9] != 3)):
            others[name] = content
        elif name not in SEEN_CHUNKS:
            lost.append(name.decode("latin-1"))
        is_srgb |= name == b"sRGB"
    found["colour"] = pack_chunks(telling(colours, is_srgb, header[8]))
    found["text"], found["chunks"] = pack_texts(texts), pack_chunks(others)
    names = ", ".join(dict.fromkeys(lost))
    return present(found), [f"chunks of the PNG that are not kept: {names}"] if lost else []


def texts_of(name: bytes, content: bytes, found: Metadata) -> Iterator[Text]:
    """Yield the text of a chunk; XMP and the raw profiles of ImageMagick go to `found`, unless it has them."""
    keyword, _, rest = content.partition(b"\0")
    language = translated = b""
    if name == b"zTXt":
        text = inflated(rest[1:])
    elif name == b"iTXt":
        language, _, after = rest[2:].partition(b"\0")
        translated, _, text = after.partition(b"\0")
        text = inflated(text) if rest[:1] == b"\1" else text
    else:
        text = rest
    if keyword == XMP_OF_PNG:
        found.setdefault("xmp", text)
    elif keyword.startswith(b"Raw profile type ") and (profile := raw_profile(text)):
        kind = keyword.removeprefix(b"Raw profile type ").lower()
        key = {b"exif": "exif", b"icc": "icc", b"icm": "icc", b"iptc": "iptc", b"8bim": "iptc", b"xmp": "xmp"}.get(kind)
        if kind == b"app1":
            key = "xmp" if profile.startswith(XMP_OF_JPEG) else "exif"
        if key is None:
            yield Text(keyword, text)
        elif key == "exif":
            found.setdefault(key, tiff.EXIF_PREFIX + profile.removeprefix(tiff.EXIF_PREFIX))
        else:
            found.setdefault(key, profile.removeprefix(XMP_OF_JPEG).removeprefix(IPTC_OF_JPEG))
    elif name == b"iTXt":
        yield Text(keyword.decode("latin-1").encode(), text, language, translated)
    else:
        yield Text(keyword.decode("latin-1").encode(), text.decode("latin-1").encode())


def is_broken(name: bytes, content: bytes) -> bool:
    """Return whether a compressed chunk of PNG is damaged, or longer than the metadata that a file may hold."""
    rest = content.partition(b"\0")[2]
    if name == b"iTXt":
        parted = rest[2:].split(b"\0", 2)
        return rest[:1] == b"\1" and not is_whole(parted[-1])
    return not is_whole(rest[1:])


def is_whole(stream: bytes) -> bool:
    """Return whether a zlib stream ends as it should."""
    try:
        inflater = zlib.decompressobj()
        inflater.decompress(stream, MAX_METADATA_BYTES + 1)
    except zlib.error:
        return False
    return inflater.eof


def raw_profile(text: bytes) -> bytes | None:
    """Return the bytes of a "Raw profile": a name, a length and hexadecimal digits, a line each; None where it is none."""
    words = text.split(maxsplit=2)
    try:
        return bytes.fromhex(words[2].decode("ascii"))[: int(words[1])] if len(words) == 3 else None
    except ValueError:
        return None


def telling(colours: dict[bytes, bytes], is_srgb: bool, bits: int) -> dict[bytes, bytes]:
    """Return the chunks without those that say what holds without them: sRGB, and all bits significant."""
    kept = dict(colours)
    gamma = int.from_bytes(kept.get(b"gAMA", b""), "big")
    chromaticities = kept.get(b"cHRM", b"")
    values = [int.from_bytes(chromaticities[i : i + 4], "big") for i in range(0, len(chromaticities), 4)]
    plain = all(abs(v - s) <= 100 for v, s in zip(values, SRGB_CHROMATICITIES, strict=False))
    if is_srgb or (plain and abs(gamma - SRGB_GAMMA) <= 1000):
        kept = {name: content for name, content in kept.items() if name not in (b"gAMA", b"cHRM")}
    codes = kept.get(b"cICP", b"")
    if len(codes) == 4 and codes[0] in PLAIN_CODES and codes[1] in PLAIN_TRANSFERS and codes[2:] == FULL_RANGE_RGB:
        del kept[b"cICP"]
    if b"sBIT" in kept and set(kept[b"sBIT"]) <= {bits, max(bits, 8)}:
        del kept[b"sBIT"]
    return kept


def of_jpeg(raw: bytes) -> tuple[Metadata, list[str]]:
    """Return the metadata of a JPEG file, and notes of what is not kept."""
    found, texts, profile, notes = Metadata(), list[Text](), dict[int, bytes](), list[str]()
    iptc, n_parts = b"", 0
    for marker, content, _ in parts.jpeg_segments(raw):
        if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit = {1: INCH, 2: CENTIMETRE}.get(content[7], NONE)
            x, y = int.from_bytes(content[8:10], "big"), int.from_bytes(content[10:12], "big")
            found["resolution"] = pack_resolution(unit, (x, 1), (y, 1))
            if content[12:14].strip(b"\0"):
                notes.append("the thumbnail of the JFIF is not kept")
        elif marker == 0xE0 and content.startswith(b"JFXX\0"):
            notes.append("the thumbnail of the JFIF is not kept")
        elif marker == 0xE1 and content.startswith(tiff.EXIF_PREFIX):
            if found.setdefault("exif", content) != content:
                notes.append("a second EXIF of the JPEG is not kept")
        elif marker == 0xE1 and content.startswith(XMP_OF_JPEG):
            if found.setdefault("xmp", content[len(XMP_OF_JPEG) :]) != content[len(XMP_OF_JPEG) :]:
                notes.append("a second XMP of the JPEG is not kept")
        elif marker == 0xE1 and content.startswith(LONG_XMP):
            notes.append("extended XMP is not kept")
        elif marker == 0xE2 and content.startswith(ICC_OF_JPEG) and len(content) > 14:
            profile[content[12]], n_parts = content[14:], content[13]
        elif marker == 0xED and content.startswith(IPTC_OF_JPEG):
            iptc += content[len(IPTC_OF_JPEG) :]
        elif marker == 0xFE:
            texts.append(Text(b"", content))
        elif 0xE0 <= marker <= 0xEF and not is_of_samples(marker, content):
            name = re.sub(rb"[^ -~].*", b"", content, flags=re.DOTALL)[:30].decode()
            notes.append(f"the segment APP{marker - 0xE0} of the JPEG is not kept" + f" ({name})" * bool(name))
    if sorted(profile) != list(range(1, n_parts + 1)):
        notes.append(f"the ICC profile is not kept: {len(profile)} of its {n_parts} parts are there")
        profile = {}
    found |= {"icc": b"".join(profile[i] for i in sorted(profile)), "iptc": iptc, "text": pack_texts(texts)}
    return present(found), list(dict.fromkeys(notes))


def is_of_samples(marker: int, content: bytes) -> bool:
    """Return whether an application's segment of JPEG is about the samples, or other pictures, which are noted elsewhere."""
    spiff = marker == 0xE8 and content.startswith((b"SPIFF", b"mrfx", b"\0\0\0\1"))
    return spiff or content.startswith((b"JFXX\0", b"Adobe", b"MPF\0", b"JFIF\0"))


def of_tiff(file: tiff.Tiff, directory: tiff.Directory) -> Metadata:
    """Return the metadata of a page of a TIFF file; tags that are neither layout nor colour come as EXIF."""
    own = (TIFF_XMP, TIFF_IPTC, TIFF_PHOTOSHOP, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, *tiff.COLOUR)
    found = {"exif": tiff.exif_of(file, directory, own)}
    for name, number in (("xmp", TIFF_XMP), ("icc", tiff.TIFF_ICC), ("iptc", TIFF_PHOTOSHOP)):
        if number in directory:
            found[name] = directory[number].data
    if "iptc" not in found and TIFF_IPTC in directory:
        found["iptc"] = image_resource(0x0404, directory[TIFF_IPTC].data)
    ratios = [directory[tag].ratios for tag in (X_RESOLUTION, Y_RESOLUTION) if tag in directory]
    if len(ratios) == 2 and all(ratios):
        unit = directory[RESOLUTION_UNIT].values[:1] if RESOLUTION_UNIT in directory else ()
        found["resolution"] = pack_resolution(unit[0] if unit else INCH, ratios[0][0], ratios[1][0])
    return present(found)


def image_resource(number: int, content: bytes) -> bytes:
    """Return content as a nameless image resource of Photoshop (its file format, section "Image resources")."""
    head = b"8BIM" + number.to_bytes(2, "big") + b"\0\0" + len(content).to_bytes(4, "big")
    return head + content + bytes(len(content) % 2)


def of_webp(raw: bytes) -> Metadata:
    """Return ICC, EXIF and XMP of a WebP file."""
    names = {b"ICCP": "icc", b"EXIF": "exif", b"XMP ": "xmp"}
    found = {names[name]: content for name, content in parts.riff_chunks(raw) if name in names}
    if found.get("exif"):
        found["exif"] = tiff.EXIF_PREFIX + found["exif"].removeprefix(tiff.EXIF_PREFIX)
    return present(found)


def of_gif(raw: bytes) -> tuple[Metadata, list[str]]:
    """Return comments and XMP of a GIF file, and notes of what is not kept. Those of frames are told of as frames."""
    found, texts, notes = Metadata(), list[Text](), list[str]()
    for label, blocks in parts.gif_blocks(raw):
        name = blocks[1:12]
        if label == 0xFE:
            texts.append(Text(b"", parts.joined(blocks)))
        elif label == 0xFF and name == b"XMP DataXMP" and len(blocks) > 12 + 257:
            found["xmp"] = blocks[12:-257]  # as it is, and 257 bytes that lead those who count sub-blocks to the end
        elif label == 0xFF and name not in GIF_LOOPS:
            said = "ICC profile" if name == b"ICCRGBG1012" else f"extension {name.decode('latin-1').strip()!r}"
            notes.append(f"the {said} of the GIF is not kept")
        elif label == 0x01:
            notes.append("the plain text of the GIF is not kept")
        elif label == 0x3B:
            notes += parts.after(blocks, 0, "GIF")
    return present(found | {"text": pack_texts(texts)}), list(dict.fromkeys(notes))


def of_nclx(content: bytes | None) -> Metadata:
    """Return the colour that a `colr` box of the kind nclx states, as PNG's cICP says it of RGB."""
    if content is None or content[:4] != b"nclx" or len(content) < 11:
        return {}
    primaries, transfer = content[5], content[7]
    chunk = bytes([primaries, transfer, 0, 1])
    return present({"colour": pack_chunks(telling({b"cICP": chunk}, False, 8))})


def present(found: Metadata) -> Metadata:
    """Return what is not empty."""
    return {name: value for name, value in found.items() if value}


def held(metadata: Metadata) -> tuple[Metadata, list[str]]:
    """Return the metadata that a file of ours may hold, and notes of the rest."""
    large = [name for name, value in metadata.items() if len(value) > MAX_METADATA_BYTES]
    notes = [f"{said(n)} dropped: found {len(metadata[n])} bytes, expected at most {MAX_METADATA_BYTES}" for n in large]
    return {name: value for name, value in metadata.items() if name not in large}, notes


def said(name: str) -> str:
    """Return the name of a kind of metadata in notes."""
    return "PNG chunks" if name == "chunks" else name.upper() if name in ("icc", "exif", "xmp", "iptc") else name


def pack_texts(texts: list[Text]) -> bytes:
    """Return texts as bytes: of each keyword, language, translated keyword and text, a varint of the length before."""
    fields = (field for t in texts for field in (t.keyword, t.language, t.translated, t.text))
    return b"".join(write_varint(len(field)) + field for field in fields)


def unpack_texts(data: bytes) -> list[Text]:
    """Invert `pack_texts`. Raises BadFile."""
    fields, position = [], 0
    while position < len(data):
        length, position = read_varint(data, position, "text length")
        expect(position + length <= len(data), BadFile, "text length", length, f"{len(data) - position} bytes at most")
        fields.append(data[position : position + length])
        position += length
    expect(len(fields) % 4 == 0, BadFile, "parts of texts", len(fields), "a multiple of 4")
    return [Text(fields[i], fields[i + 3], fields[i + 1], fields[i + 2]) for i in range(0, len(fields), 4)]


def pack_resolution(unit: int, x: tuple[int, int], y: tuple[int, int]) -> bytes:
    """Return a resolution, unit and two ratios, as bytes; nothing where it says nothing."""
    says = all(value > 0 for value in (*x, *y)) and unit in (NONE, INCH, CENTIMETRE, METRE)
    says = says and (unit != NONE or Fraction(*x) != Fraction(*y))
    return bytes([unit]) + b"".join(map(write_varint, (*x, *y))) if says else b""


def unpack_resolution(data: bytes) -> tuple[int, Fraction, Fraction]:
    """Invert `pack_resolution`. Raises BadFile."""
    expect(1 <= len(data) and data[0] in range(1, 5), BadFile, "unit of the resolution", data[:1], "1 to 4")
    values, position = [], 1
    for name in ("x", "x", "y", "y"):
        value, position = read_varint(data, position, f"resolution {name}")
        expect(value > 0, BadFile, f"resolution {name}", value, "more than 0")
        values.append(value)
    expect(position == len(data), BadFile, "resolution length", len(data), f"{position} bytes")
    return data[0], Fraction(values[0], values[1]), Fraction(values[2], values[3])


def resolution_in(data: bytes, unit: int) -> tuple[Fraction, Fraction] | None:
    """Return a resolution per inch, centimetre or metre, or None where it is a ratio of sides alone."""
    own, x, y = unpack_resolution(data)
    per_metre = {INCH: Fraction(10_000, 254), CENTIMETRE: Fraction(100), METRE: Fraction(1)}
    if own == NONE:
        return None
    factor = per_metre[own] / per_metre[unit]
    return x * factor, y * factor


def resolution_of_dpi(dpi: Any) -> bytes:
    """Return what the `dpi` of a PIL image's info says, dots per inch."""
    try:
        x, y = (Fraction(float(value)).limit_denominator(10_000) for value in dpi)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return b""
    # 1 is Pillow's word for a TIFF that says nothing.
    fits = all(0 < value.numerator < 1 << 32 and math.isfinite(value) for value in (x, y)) and not x == y == 1
    return pack_resolution(INCH, x.as_integer_ratio(), y.as_integer_ratio()) if fits else b""


def pack_chunks(chunks: dict[bytes, bytes]) -> bytes:
    """Return chunks of PNG as bytes: of each the name, a varint of the length, the content; in one order."""
    names = [name for name in (*COLOUR_CHUNKS, *OTHER_CHUNKS) if name in chunks]
    return b"".join(name + write_varint(len(chunks[name])) + chunks[name] for name in names)


def unpack_chunks(data: bytes) -> dict[bytes, bytes]:
    """Invert `pack_chunks`; chunks that this version does not know are left out. Raises BadFile."""
    found, position = {}, 0
    while position < len(data):
        name = data[position : position + 4]
        length, position = read_varint(data, position + 4, "chunk length")
        expect(position + length <= len(data), BadFile, "chunk length", length, f"{len(data) - position} at most")
        found[name] = data[position : position + length]
        position += length
    return {name: content for name, content in found.items() if name in COLOUR_CHUNKS + OTHER_CHUNKS}


def pack_depth(white: int) -> bytes:
    """Return the largest value of a sample as bytes; nothing where 8 or 16 bits say it."""
    return b"" if white in (255, 65535) else write_varint(white)


def white_of(metadata: Metadata, bits: int) -> int:
    """Return the largest value that samples of so many bits may have. Raises BadFile."""
    full = (1 << bits) - 1
    if "depth" not in metadata:
        return full
    white, end = read_varint(metadata["depth"], 0, "depth")
    ok = 1 <= white <= full and end == len(metadata["depth"])
    expect(ok, BadFile, "depth", white, f"1 to {full}, the largest value of a sample")
    return white


def fitting_profile(metadata: Metadata, is_gray: bool) -> tuple[Metadata, list[str]]:
    """Return the metadata without an ICC profile of another colour space than the samples, and a note of that."""
    space = metadata.get("icc", b"")[16:20]
    if space not in (b"RGB ", b"GRAY", b"CMYK", b"Lab ", b"YCbr", b"XYZ ", b"HSV ", b"CMY "):
        return metadata, []
    if space == (b"GRAY" if is_gray else b"RGB "):
        return metadata, []
    kept = {name: value for name, value in metadata.items() if name != "icc"}
    samples = "gray" if is_gray else "RGB"
    return kept, [f"ICC dropped: it is a profile of {space.decode().strip()}, and the samples are {samples}"]


def inflated(data: bytes) -> bytes:
    """Return what a zlib stream holds, at most the metadata that a file may hold; nothing where it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, MAX_METADATA_BYTES)
    except zlib.error:
        return b""
