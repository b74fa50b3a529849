"""A look into picture files: format, size, depth, channels and what is particular, by their own headers.

Nothing here decodes a sample, and no library is asked: one that reduces samples would tell of what it makes of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from laconic import picture_metadata as metadata
from laconic import picture_parts as parts
from laconic import picture_tiff as tiff
from laconic.entropy.errors import BadInput
from laconic.picture_formats import HEIF_BRANDS, RAW, RAW_READER, UNREAD, Seen
from laconic.picture_looks_plain import see_bmp, see_pnm, see_sgi
from laconic.picture_metadata import Metadata

Values = Callable[[int, tuple[int, ...]], tuple[int, ...]]  # (tag, default) -> its values
UUID_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
UUID_EXIF, UUID_IPTC = b"JpgTiffExif->JP2", bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
PACKED = (5, 8, 32773, 32946, 34925, 50000)  # compressions of TIFF that give the bytes back
FAX, JPEG_IN_TIFF = (2, 3, 4, 32771), (6, 7)
COMPRESSIONS = {34712: "JPEG 2000", 33003: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 22610: "JPEG XR"}
PHOTOMETRIC = {0: "white_is_0", 1: "", 2: "", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "ICC Lab"}
PHOTOMETRIC |= {10: "ITU Lab", 32803: "CFA", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}
COLOURS_OF_TIFF = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}  # channels by photometric interpretation
SAMPLE_FORMATS = {2: "signed", 3: "float", 5: "complex", 6: "complex"}
DNG_VERSION = 50706
MAX_TILE = 1 << 24  # pixels, beyond which a tile may not be larger than the picture
WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")


def look(raw: bytes) -> Seen | None:
    """Return what a file says of itself, or None where it is of a format that only Pillow can tell of.

    Raises BadInput naming the format of a picture that is not read.
    """
    for start, (name, reader) in UNREAD.items():
        if raw.startswith(start):
            raise unread(name, reader)
    for start, see in LOOKS.items():
        if raw.startswith(start):
            return see(raw)
    if raw[4:8] == b"ftyp":
        return see_heif(raw)
    return see_webp(raw) if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP" else None


def unread(name: str, reader: str) -> BadInput:
    """Return the error for a picture of a format that is not read; reader: a program that converts it."""
    article = "an" if name[0] in "AEIO" else "a"
    return BadInput(f"picture: found {article} {name} file, expected a format that Laconic reads ({reader} converts it)")


def see_png(raw: bytes) -> Seen | None:
    """Look at the chunks of a PNG file."""
    chunks = list(parts.png_chunks(raw))
    header = parts.first(chunks, b"IHDR")
    if header is None or len(header) != 13:
        return None
    width, height, bits, kind = struct.unpack(">IIBB", header[:10])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 0)
    traits, key = set[str](), tuple[int, ...]()
    transparent = parts.first(chunks, b"tRNS")
    if kind == 3:
        traits.add("palette")
    elif transparent is not None and len(transparent) == 2 * channels and kind in (0, 2):
        key = tuple(value % (1 << bits) for value in struct.unpack(f">{channels}H", transparent))
        traits.add("key")
    if bits == 16 and header[12] == 1:
        traits.add("interlaced")
    bytes_of_row = (width * bits * channels + 7) // 8
    data = sum(len(content) for name, content in chunks if name == b"IDAT")
    # Deflate makes at most 1032 bytes of one: what declares more is cut, and a few bytes must not cost gigabytes.
    cut = f"truncated: {data} bytes of samples for {width} x {height} pixels"
    critical = [(n, c) for n, c in chunks if n in (b"IHDR", b"PLTE", b"IDAT") or (n == b"tRNS" and not key)]
    critical.append((b"IEND", b""))
    found, notes = metadata.of_png(raw)
    notes += parts.after(raw, len(parts.PNG_MAGIC) + sum(12 + len(content) for _, content in chunks), "PNG")
    return Seen(
        "PNG",
        width,
        height,
        bits,
        channels,
        frozenset(traits),
        key=key,
        n_pictures=frames_of_png(chunks),
        clean=parts.PNG_MAGIC + b"".join(parts.png_chunk(*chunk) for chunk in critical),
        metadata=found,
        notes=tuple(notes),
        damage=cut if height * bytes_of_row > 1032 * (data + 1) else damage_of_png(raw),
    )


def frames_of_png(chunks: list[tuple[bytes, bytes]]) -> int:
    """Return how many pictures a PNG file has; the one that all readers show need not be a frame of the animation."""
    animation = parts.first(chunks, b"acTL")
    if animation is None:
        return 1
    names = [name for name, _ in chunks if name in (b"fcTL", b"IDAT")]
    return int.from_bytes(animation[:4], "big") + (b"fcTL" in names and names[0] == b"IDAT")


def damage_of_png(raw: bytes) -> str:
    """Return what is wrong with the chunks of a PNG file that hold the samples, else nothing."""
    if raw[26:28] != b"\0\0" or raw[28] > 1:
        return "a way of compression, filtering or interlacing that PNG does not have"
    position = len(parts.PNG_MAGIC)
    if raw[25:26] == b"\3" and not parts.first(parts.png_chunks(raw), b"PLTE"):
        return "no palette"
    for name, content in parts.png_chunks(raw):
        end = position + 12 + len(content)
        if name[:1].isupper() and raw[position:end] != parts.png_chunk(name, content):
            return f"the checksum of the chunk {name.decode('latin-1')} is another"
        position = end
        if name == b"IEND":
            return ""
    return f"truncated: the chunk at byte {position} is cut" if position + 4 < len(raw) else ""


def see_jpeg(raw: bytes) -> Seen | None:
    """Look at the segments of a JPEG file before its first scan."""
    segments = list(parts.jpeg_segments(raw))
    frame = next(((m, c) for m, c, _ in segments if 0xC0 <= m <= 0xCF and m not in (0xC4, 0xC8, 0xCC)), None)
    frame = frame or next(((m, c) for m, c, _ in segments if m == 0xF7), None)
    if frame is None or len(frame[1]) < 6:
        return None
    marker, content = frame
    bits, height, width, channels = struct.unpack(">BHHB", content[:6])
    traits = {0xC0: "", 0xC1: "", 0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic", 0xF7: ""}
    named = {trait for trait in (traits.get(marker, f"SOF{marker - 0xC0}"),) if trait}
    named |= {"arithmetic", "progressive"} if marker == 0xCA else set()
    named.discard("SOF10")
    found, notes = metadata.of_jpeg(raw)
    # Of APP segments, 0xEE (Adobe) and 0xE8 (JPEG-LS) say how colours are transformed.
    known = [s for s in segments if not 0xE1 <= s[0] <= 0xEF and s[0] != 0xFE or s[0] == 0xEE or s[0] == 0xE8]
    end = segments[-1][2]
    n_pictures = pictures_of_mpf(segments)
    # Coded samples hold no end of an image, and thumbnails lie before their beginning.
    closing = raw.find(b"\xff\xd9", end)
    notes += parts.after(raw, closing + 2, "JPEG") if closing >= 0 and n_pictures == 1 else []
    # Pillow finds where an ordinary file is cut; other readers fill up what is missing. Coded samples hold no FF D9.
    is_cut = closing < 0 and (bits != 8 or "lossless" in named or marker == 0xF7)
    head = b"".join(parts.jpeg_segment(m, c) for m, c, at in known if at != end)
    return Seen(
        "JPEG-LS" if marker == 0xF7 else "JPEG",
        width,
        height,
        bits,
        channels,
        frozenset(named),
        white=(1 << bits) - 1,
        n_pictures=n_pictures,
        clean=raw[:2] + head + raw[end:],
        metadata=found,
        notes=tuple(notes),
        damage="truncated: no end of the image" if is_cut else "",
    )


def pictures_of_mpf(segments: list[tuple[int, bytes, int]]) -> int:
    """Return how many pictures a JPEG file says that it holds (CIPA DC-007, tag 0xB001)."""
    index = next((content[4:] for marker, content, _ in segments if marker == 0xE2 and content[:4] == b"MPF\0"), b"")
    try:
        directory = next(tiff.parse(index).directories(), {})
    except BadInput:
        return 1
    return max((*directory[0xB001].values, 1)) if 0xB001 in directory else 1


def see_jp2(raw: bytes) -> Seen | None:
    """Look at the boxes and the codestream header of a JPEG 2000 file."""
    stream = raw if raw.startswith(b"\xff\x4f") else parts.box(raw, b"jp2c") or b""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 42:
        return None
    right, bottom, left, top = struct.unpack(">4I", stream[8:24])
    channels = int.from_bytes(stream[40:42], "big")
    components = [tuple(stream[42 + 3 * i : 45 + 3 * i]) for i in range(min(channels, 64))]
    if len(components[-1:]) != 1 or len(components[-1]) != 3:
        return None
    bits = (components[0][0] & 127) + 1
    header = parts.box(raw, b"jp2h") if stream is not raw else None
    traits = jp2_traits(header or b"", channels)
    traits |= {"signed"} if any(c[0] & 128 for c in components) else set()
    traits |= {"mixed_depths"} if len({c[0] for c in components}) > 1 else set()
    traits |= {"subsampled"} if any(c[1:] != (1, 1) for c in components) else set()
    found, notes = jp2_metadata(raw, header or b"")
    found |= metadata.present({"text": metadata.pack_texts(jp2_comments(stream))})
    return Seen(
        "JPEG 2000",
        right - left,
        bottom - top,
        bits,
        channels,
        frozenset(traits),
        white=(1 << bits) - 1,
        clean=raw,
        metadata=found,
        notes=notes,
    )


def jp2_traits(header: bytes, channels: int) -> set[str]:
    """Return what the header boxes of a JP2 file say of its channels."""
    colour = parts.box(header, b"colr") or b""
    space = int.from_bytes(colour[3:7], "big") if colour[:1] == b"\1" else 0
    traits = {18: {"YCC"}, 24: {"YCC"}, 12: {"CMYK"}, 14: {"Lab"}}.get(space, set[str]())
    if colour[:1] == b"\2" and colour[19:23] == b"CMYK":
        traits = {"CMYK"}
    if parts.box(header, b"pclr") is not None:
        traits = traits | {"palette"}
    if channels in (2, 4) and "CMYK" not in traits:
        definitions = parts.box(header, b"cdef") or b""
        kinds = [int.from_bytes(definitions[i + 2 : i + 4], "big") for i in range(2, len(definitions), 6)]
        traits = traits | ({"premultiplied"} if 2 in kinds else {"alpha"} if 1 in kinds else {"extra"})
    return traits


def jp2_comments(stream: bytes) -> list[metadata.Text]:
    """Return the comments in the main header of a codestream of JPEG 2000."""
    found, position = list[metadata.Text](), 2
    while position + 4 <= len(stream) and stream[position] == 0xFF and stream[position + 1] != 0x90:
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[position + 1] == 0x64:
            found.append(metadata.Text(b"", stream[position + 6 : position + 2 + length]))
        position += 2 + max(length, 2)
    return found


def jp2_metadata(raw: bytes, header: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """Return ICC, EXIF, XMP, IPTC and resolution of a JP2 file, and notes of other boxes."""
    found, notes = Metadata(), list[str]()
    colour = parts.box(header, b"colr") or b""
    if colour[:1] in (b"\2", b"\3"):
        found["icc"] = colour[3:]
    resolution = parts.box(header, b"res ", b"resd") or parts.box(header, b"res ", b"resc")
    if resolution and len(resolution) == 10:
        y_up, y_down, x_up, x_down, y_power, x_power = struct.unpack(">4H2b", resolution)
        x, y = ((up * 10 ** max(p, 0), down * 10 ** max(-p, 0)) for up, down, p in ((x_up, x_down, x_power), (y_up, y_down, y_power)))
        if max(*x, *y) < 1 << 32:
            found["resolution"] = metadata.pack_resolution(metadata.METRE, x, y)
    boxes = parts.boxes(raw) if raw[4:8] == b"jP  " else ()
    for name, content in boxes:
        if name == b"uuid" and content[:16] == UUID_XMP:
            found["xmp"] = content[16:]
        elif name == b"uuid" and content[:16] == UUID_EXIF:
            found["exif"] = tiff.EXIF_PREFIX + content[16:].removeprefix(tiff.EXIF_PREFIX)
        elif name == b"uuid" and content[:16] == UUID_IPTC:
            found["iptc"] = metadata.image_resource(0x0404, content[16:])
        elif name in (b"uuid", b"xml ", b"uinf", b"asoc"):
            notes.append(f"the box {name.decode().strip()} of the JP2 is not kept")
    return metadata.present(found), tuple(dict.fromkeys(notes))


def see_heif(raw: bytes) -> Seen | None:
    """Look at the boxes of an AVIF file. Raises BadInput naming HEIC and what else is built so."""
    kinds = parts.box(raw, b"ftyp") or b""
    brands = {kinds[:4], *(kinds[i : i + 4] for i in range(8, len(kinds), 4))}
    if not brands & {b"avif", b"avis"}:
        is_heif = bool(brands & set(HEIF_BRANDS))
        name = "HEIC" if is_heif else RAW if kinds[:3] == b"crx" else "video or sound"
        raise unread(name, "heif-convert" if is_heif else RAW_READER if name == RAW else "ffmpeg")
    properties = list(parts.boxes(parts.box(raw, b"meta", b"iprp", b"ipco") or b""))
    coding, size = parts.first(properties, b"av1C"), parts.first(properties, b"ispe")
    if coding is None or len(coding) < 4 or size is None or len(size) < 12:
        return None
    bits = (12 if coding[2] & 0x20 else 10) if coding[2] & 0x40 else 8
    has_alpha = any(name == b"auxC" and b":alpha" in content or b"auxid:1" in content for name, content in properties)
    nclx = next((content for name, content in properties if name == b"colr" and content[:4] == b"nclx"), None)
    notes = ["the clean aperture of the AVIF is not applied"] if parts.first(properties, b"clap") else []
    if parts.first(properties, b"mdcv") or parts.first(properties, b"clli"):
        notes.append("the light levels (mdcv, clli) of the AVIF are not kept")
    if b"tmap" in brands or b"tmap" in raw[:4096]:
        notes.append("the gain map of the AVIF is not kept")
    references = parts.box(raw, b"meta", b"iref") or b""
    premultiplied = parts.first(parts.boxes(references[4:]), b"prem") is not None
    width, height = struct.unpack(">2I", size[4:12])
    return Seen(
        "AVIF",
        width,
        height,
        bits,
        (1 if coding[2] & 0x10 else 3) + has_alpha,
        frozenset({"premultiplied"} if premultiplied else ()),
        white=(1 << bits) - 1,
        clean=raw,
        metadata=metadata.of_nclx(nclx),
        notes=tuple(notes),
    )


def see_tiff(raw: bytes) -> Seen | None:
    """Look at the first directory of a TIFF file. Raises BadInput where that is not its main picture."""
    file = tiff.parse(raw)
    found = file.directory(file.start)
    if found is None:  # libtiff would say so on stderr
        raise BadInput("picture: found damage (the directory of the TIFF lies outside the file), expected none")
    directory = found[0]

    def values(number: int, default: tuple[int, ...]) -> tuple[int, ...]:
        return directory[number].values or default if number in directory else default

    width, height = values(256, (0,))[0], values(257, (0,))[0]
    channels = values(277, (1,))[0]
    bits = values(258, (1,))
    photometric = values(262, (1 if bits[0] > 1 or channels > 1 else 0,))[0]
    main_page(file, directory, values)
    traits = tiff_traits(directory, values, photometric, channels)
    traits |= {"mixed_depths"} if len(set(bits)) > 1 else set()
    traits |= {"BigTIFF_MM"} if file.big and file.order == ">" else set()
    traits |= {"big_endian"} if 12 in bits and file.order == ">" else set()
    traits |= {"volume"} if values(tiff.IMAGE_DEPTH, (1,))[0] > 1 else set()
    pages, notes = pages_of(file), []
    if tiff.SUB_IFDS in directory:
        notes.append(f"pictures in SubIFDs of the TIFF are not kept: {len(values(tiff.SUB_IFDS, (0,)))}")
    if photometric != 6 and has_reference(directory, max(bits)):
        notes.append("the reference black and white of the TIFF are not kept")
    return Seen(
        "TIFF",
        width,
        height,
        max(bits),
        channels,
        frozenset(traits),
        white=4095 if bits == (12,) else 0,
        n_pictures=pages,
        clean=tiff.bare(file, directory),
        metadata=metadata.of_tiff(file, directory),
        notes=tuple(notes),
        damage=cut_of_tiff(raw, values),
    )


def has_reference(directory: tiff.Directory, bits: int) -> bool:
    """Return whether a TIFF file says that other values than 0 and the largest are black and white."""
    if tiff.REFERENCE_BLACK_WHITE not in directory:
        return False
    ratios = directory[tiff.REFERENCE_BLACK_WHITE].ratios
    return any(up != (i % 2) * ((1 << bits) - 1) * down for i, (up, down) in enumerate(ratios))


def cut_of_tiff(raw: bytes, values: Values) -> str:
    """Return what is wrong where strips or tiles reach beyond the end of the file, or are giants, else nothing."""
    across, down = values(322, (0,))[0], values(323, (0,))[0]
    if across * down > max(MAX_TILE, 4 * values(256, (0,))[0] * values(257, (0,))[0]):
        return f"a tile of {across} x {down} pixels"
    for offsets, counts in ((273, 279), (324, 325)):
        for offset, count in zip(values(offsets, ()), values(counts, ()), strict=False):
            if offset + count > len(raw):
                return f"truncated: samples up to byte {offset + count} of {len(raw)}"
    return ""


def tiff_traits(directory: tiff.Directory, values: Values, photometric: int, channels: int) -> set[str]:
    """Return the traits of a page: how it is packed, what its samples mean, what stands beside the colours."""
    compression = values(259, (1,))[0]
    packing = "packed" if compression in PACKED else "fax" if compression in FAX else ""
    packing = "JPEG" if compression in JPEG_IN_TIFF else packing
    traits = {packing if packing or compression == 1 else COMPRESSIONS.get(compression, f"compression {compression}")}
    traits |= {PHOTOMETRIC.get(photometric, f"photometric {photometric}")}
    formats = set(values(339, (1,))) - {1, 4}
    traits |= {SAMPLE_FORMATS.get(number, f"sample format {number}") for number in formats}
    if {"YCbCr", "JPEG"} <= traits:  # the reader of JPEG gives RGB
        traits = traits - {"YCbCr"}
    traits |= {"planar"} if values(284, (1,))[0] == 2 and channels > 1 else set()
    traits |= {"fill_order_2"} if values(266, (1,))[0] == 2 else set()
    traits |= {"inks"} if photometric == 5 and values(332, (1,))[0] != 1 else set()
    traits |= extra_traits(values(338, ()), channels - COLOURS_OF_TIFF.get(photometric, channels))
    if photometric == 3 and 320 in directory and any(v % 256 not in (0, v >> 8) for v in directory[320].values):
        traits |= {"palette_of_16_bits"}
    return traits - {""}


def extra_traits(kinds: tuple[int, ...], n_extra: int) -> set[str]:
    """Return what ExtraSamples says of channels beside the colours; what it does not say is `extra`."""
    if n_extra < 0:
        return {"too_few_channels"}
    if n_extra > 1:
        return {"several_extra"}
    return {{1: "premultiplied", 2: "alpha"}.get(kinds[0] if kinds else 0, "extra")} if n_extra else set()


def main_page(file: tiff.Tiff, directory: tiff.Directory, values: Values) -> None:
    """Refuse a file whose first page is not its main picture: a thumbnail, a mask, a preview of a camera's raw file."""
    converter = f"expected the full picture first ({RAW_READER} converts a camera's file)"
    if DNG_VERSION in directory or file.raw[8:10] == b"CR":
        raise unread(RAW, RAW_READER)
    kind, old_kind = values(254, (0,))[0], values(255, (1,))[0]
    if kind & 1 or old_kind == 2:
        raise BadInput(f"picture: found a TIFF whose first page is a reduced picture (a thumbnail), {converter}")
    if kind & 4:
        raise BadInput("picture: found a TIFF whose first page is a mask, expected a picture")
    for position in values(tiff.SUB_IFDS, ())[:64]:
        inner = (file.directory(position) or ({}, 0))[0]
        area = math.prod((inner[tag].values or (0,))[0] if tag in inner else 0 for tag in (256, 257))
        if area > values(256, (0,))[0] * values(257, (0,))[0]:
            raise BadInput(f"picture: found a TIFF with a larger picture in a SubIFD than its first page, {converter}")


def pages_of(file: tiff.Tiff) -> int:
    """Return the number of pages. Raises BadInput where one lies outside the file."""
    pages, position = 0, file.start
    seen = set[int]()
    while position and position not in seen and pages < tiff.MAX_DIRECTORIES:
        seen.add(position)
        found = file.directory(position)
        if found is None:
            where = f"the directory of page {pages + 1} lies outside the file"
            raise BadInput(f"picture: found damage ({where}), expected none")
        pages, position = pages + 1, found[1]
    return pages


def see_webp(raw: bytes) -> Seen | None:
    """Look at the chunks of a WebP file, whose samples always have 8 bits."""
    end = 8 + int.from_bytes(raw[4:8], "little")
    names = [name for name, _ in parts.riff_chunks(raw[:end]) if name not in WEBP_CHUNKS]
    notes = [f"the chunk {name.decode('latin-1')} of the WebP is not kept" for name in dict.fromkeys(names)]
    notes += parts.after(raw, end, "WebP")
    return Seen("WebP", 0, 0, 8, 3, clean=raw, metadata=metadata.of_webp(raw), notes=tuple(notes))


LOOKS = {
    b"P1": see_pnm,
    b"P2": see_pnm,
    b"P3": see_pnm,
    b"P4": see_pnm,
    b"P5": see_pnm,
    b"P6": see_pnm,
    b"BM": see_bmp,
    b"\x01\xda": see_sgi,
    parts.PNG_MAGIC: see_png,
    parts.JPEG_MAGIC: see_jpeg,
    b"\xff\x4f\xff\x51": see_jp2,
    b"\0\0\0\x0cjP  ": see_jp2,
    b"II*\0": see_tiff,
    b"MM\0*": see_tiff,
    b"II+\0": see_tiff,
    b"MM\0+": see_tiff,
}
