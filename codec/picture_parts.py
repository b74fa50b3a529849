"""The parts that a picture file is made of: chunks of PNG, segments of JPEG, chunks of RIFF, boxes of JP2 and HEIF.

Knows bytes and lengths only. A walk ends where the file ends or makes no sense: whoever reads the samples then finds the
damage. Every walk gives slices of the file and allocates nothing that the file does not hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # top, left, steps
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


def png_passes(raw: bytes, bits: int) -> Iterator[bytes]:
    """Yield each pass of a PNG file as a file of its own, one of them where it is not interlaced, empty without a pixel.

    bits: of a pixel, at least 8. Raises ValueError or zlib.error where the stream of samples is cut or damaged.
    """
    header = first(png_chunks(raw), b"IHDR") or bytes(13)
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    sizes = [(-(-(height - y) // down), -(-(width - x) // across)) for y, x, down, across in passes_of(header)]
    lengths = [h * (1 + w * bits // 8) if h > 0 and w > 0 else 0 for h, w in sizes]
    inflater, position = zlib.decompressobj(), 0
    samples = inflater.decompress(b"".join(content for name, content in png_chunks(raw) if name == b"IDAT"), sum(lengths) + 1)
    if len(samples) < sum(lengths) or (len(samples) == sum(lengths) and not inflater.eof):
        raise ValueError(f"truncated: {len(samples)} of {sum(lengths)} bytes of samples")
    for (h, w), length in zip(sizes, lengths, strict=True):
        own = w.to_bytes(4, "big") + h.to_bytes(4, "big") + header[8:12] + b"\0"
        body = zlib.compress(samples[position : position + length], 1)
        chunks = ((b"IHDR", own), (b"IDAT", body), (b"IEND", b""))
        yield PNG_MAGIC + b"".join(png_chunk(*chunk) for chunk in chunks) if length else b""
        position += length


def passes_of(header: bytes) -> tuple[tuple[int, int, int, int], ...]:
    """Return top, left and steps of each pass that a PNG header asks for."""
    return PNG_PASSES if header[12] else ((0, 0, 1, 1),)


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


def after(raw: bytes, end: int, format: str) -> list[str]:
    """Return a note of what follows the end of a picture in its file; bytes that are zero say nothing."""
    rest = len(raw[end:].strip(b"\0\r\n"))
    return [f"{len(raw) - end} bytes after the end of the {format} are not kept"] if rest else []


def gif_blocks(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each extension of a GIF file as its label and its sub-blocks, lengths included, and at last 0x3B and the rest."""
    position = 13 + color_table(raw[10:11])
    while position + 2 <= len(raw) and raw[position] in (0x21, 0x2C):
        is_extension = raw[position] == 0x21
        start = position + 2 if is_extension else position + 11 + color_table(raw[position + 9 : position + 10])
        end = start
        while end < len(raw) and raw[end]:
            end += 1 + raw[end]
        if is_extension:
            yield raw[position + 1], raw[start:end]
        position = end + 1
    if raw[position : position + 1] == b";":
        yield 0x3B, raw[position + 1 :]


def color_table(flags: bytes) -> int:
    """Return how many bytes the colours take that flags of a GIF file announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def joined(blocks: bytes) -> bytes:
    """Return the content of sub-blocks of GIF."""
    out, position = b"", 0
    while position < len(blocks):
        out += blocks[position + 1 : position + 1 + blocks[position]]
        position += 1 + blocks[position]
    return out


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
