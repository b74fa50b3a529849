"""A look into files of plain formats: a header, and samples that follow it (PNM, BMP, SGI)."""

from __future__ import annotations

import re
import struct

from laconic import picture_metadata as metadata
from laconic.picture_formats import Seen

PNM_FIELD = re.compile(rb"((?:\s|#[^\n\r]*[\n\r])*)(\d{1,9})(?!\d)")


def see_pnm(raw: bytes) -> Seen | None:
    """Look at the header of a PBM, PGM or PPM file, which is read by us: Pillow stretches samples to 8 or 16 bits."""
    comments = list[bytes]()
    fields, position = list[int](), 2
    n_fields = 2 if raw[:2] in (b"P1", b"P4") else 3  # of 1 bit, the largest value is 1
    while len(fields) < n_fields and (match := PNM_FIELD.match(raw, position)):
        comments += [line.partition(b"#")[2].strip() for line in match[1].splitlines() if b"#" in line]
        fields.append(int(match[2]))
        position = match.end()
    if len(fields) < n_fields or not 1 <= fields[-1] <= 65535:
        return None
    width, height, white = (*fields, 1)[:3]
    channels = 3 if raw[:2] in (b"P3", b"P6") else 1
    n_bytes = height * (-(-width // 8) if raw[:2] == b"P4" else width * channels * (1 + (white > 255)))
    texts = [metadata.Text(b"", comment) for comment in comments if comment]
    return Seen(
        "PNM",
        width,
        height,
        white.bit_length(),
        channels,
        white=white,
        clean=raw[:2] + raw[position:],
        metadata=metadata.present({"text": metadata.pack_texts(texts)}),
        notes=after_pnm(raw, position, n_bytes),
    )


def after_pnm(raw: bytes, position: int, n_bytes: int) -> tuple[str, ...]:
    """Return a note of what follows the samples of a file: a stream of pictures is one such file."""
    rest = raw[position + 1 + n_bytes :].strip() if raw[:2] in (b"P4", b"P5", b"P6") else b""
    if rest[:1] == b"P":
        return ("only the first picture of the file is kept",)
    return (f"{len(rest)} bytes after the samples are not kept",) if rest else ()


def see_bmp(raw: bytes) -> Seen | None:
    """Look at the header of a BMP file, which may have a profile and a fourth byte in each pixel."""
    size = int.from_bytes(raw[14:18], "little")
    if size < 40 or len(raw) < 14 + size:
        return Seen("BMP", 0, 0, 8, 3, clean=raw)
    bits, compression = struct.unpack("<HI", raw[28:34])
    across, down = struct.unpack("<2i", raw[38:46])
    found = {"resolution": metadata.pack_resolution(metadata.METRE, (across, 1), (down, 1))}
    notes = list[str]()
    notes += alpha_of_bmp(raw, size, bits, compression)
    space = raw[70:74] if size >= 108 else b""
    at, length = struct.unpack("<2I", raw[126:134]) if size >= 124 else (0, 0)
    if space == b"DEBM":  # "MBED", a profile embedded, as a little-endian number
        found["icc"] = raw[14 + at : 14 + at + length]
    elif space == b"KNIL" or (space == bytes(4) and any(raw[74:122])):
        notes.append("the colour space of the BMP is not kept")
    return Seen("BMP", 0, 0, 8, 3, clean=raw, metadata=metadata.present(found), notes=tuple(notes))


def alpha_of_bmp(raw: bytes, size: int, bits: int, compression: int) -> list[str]:
    """Return a note on bits of a BMP file's pixels that are used, and that its reader does not pass on."""
    start = int.from_bytes(raw[10:14], "little")
    *colours, alpha = struct.unpack("<4I", raw[54:70].ljust(16, b"\0")) if compression == 3 else (0xFFFFFF, 0)
    alpha = alpha if size >= 56 else 0
    if bits == 16 and alpha:
        return ["the alpha of the BMP's 16-bit pixels is not kept"]
    free = [i for i in range(4) if not sum(colours) >> 8 * i & 255]
    if bits == 32 and compression in (0, 3) and not alpha and any(any(raw[start + i :: 4]) for i in free):
        return ["the fourth byte of the BMP's pixels, which no field names, is not kept"]
    return []


def see_sgi(raw: bytes) -> Seen | None:
    """Look at the header of an SGI file, whose samples may have 16 bits."""
    if len(raw) < 12:
        return None
    width, height, channels = struct.unpack(">3H", raw[6:12])
    return Seen("SGI", width, height, 8 * raw[3], channels, clean=raw)
