"""The parts that a picture file is made of: chunks of PNG, segments of JPEG, chunks of RIFF, boxes of JP2 and HEIF.

Knows bytes and lengths only. A walk ends where the file ends or makes no sense: whoever reads the samples then finds the
damage. Every walk gives slices of the file and allocates nothing that the file does not hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers of JPEG that no length follows
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9


def png_chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the content of each chunk of a PNG file, up to IEND."""
    position = len(PNG_MAGIC)
    while position + 12 <= len(raw):
        length = int.from_bytes(raw[position : position + 4], "big")
        name = raw[position + 4 : position + 8]
        if position + 12 + length > len(raw):
            return
        yield name, raw[position + 8 : position + 8 + length]
        position += 12 + length
        if name == b"IEND":
            return


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return the bytes of one chunk of PNG."""
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def jpeg_segments(raw: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and place of each segment of a JPEG file before the first scan, and the scan's own header."""
    position = 2
    while position + 4 <= len(raw) and raw[position] == 0xFF:
        marker = raw[position + 1]
        if marker == 0xFF or marker in STANDALONE:  # a byte of filling, or a marker without content
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(raw[position + 2 : position + 4], "big")
        if length < 2 or position + 2 + length > len(raw):
            return
        yield marker, raw[position + 4 : position + 2 + length], position
        position += 2 + length
        if marker == START_OF_SCAN:
            return


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """Return the bytes of one segment of JPEG; content: at most 65533 bytes."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def riff_chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the content of each chunk of a RIFF file, such as WebP."""
    position = 12
    while position + 8 <= len(raw):
        length = int.from_bytes(raw[position + 4 : position + 8], "little")
        if position + 8 + length > len(raw):
            return
        yield raw[position : position + 4], raw[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def boxes(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the content of each box of an ISO base media file (JP2, AVIF, HEIF), or of a box's content."""
    position = 0
    while position + 8 <= len(raw):
        length, name, start = int.from_bytes(raw[position : position + 4], "big"), raw[position + 4 : position + 8], 8
        if length == 1:
            length, start = int.from_bytes(raw[position + 8 : position + 16], "big"), 16
        length = length or len(raw) - position  # 0: up to the end
        if length < start or position + length > len(raw):
            return
        yield name, raw[position + start : position + length]
        position += length


def box(raw: bytes, *path: bytes) -> bytes | None:
    """Return the content of the first box at a path of names, or None; `meta` boxes have 4 bytes before their boxes."""
    for name in path:
        found = next((content for own, content in boxes(raw) if own == name), None)
        if found is None:
            return None
        raw = found[4:] if name == b"meta" else found
    return raw


def first(parts: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the content of the first part of a name, or None."""
    return next((content for own, content in parts if own == name), None)
