"""Parts that the chunks of several media share: fields of a header, checksums of samples, deflated bytes, metadata.

Every length is bounded before it is believed (FORMAT.md, sections "Container" and "Metadata").
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping

from laconic.container import Chunk, read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, expect

MAX_SIDE = 1 << 24  # pixels
DEFAULT_MAX_PIXELS = 1 << 28  # 268 MP: cameras and scans fit; more takes gigabytes, so the caller must ask for it
CRC_BYTES = 4
MAX_METADATA_BYTES = 1 << 26
METADATA: Mapping[int, str] = {  # chunks that every picture may have, in the order in which they are written
    4: "icc",
    5: "exif",
    6: "xmp",
    13: "text",
    14: "resolution",
    15: "depth",
    16: "colour",
    17: "iptc",
    18: "chunks",
}


def read_fields(data: bytes, limits: Mapping[str, tuple[int, int]], what: str, n_more: int = 0) -> tuple[list[int], bytes]:
    """Read the varints of a header, and the `n_more` bytes that follow them.

    limits: the lowest and the highest value of each field, by its name, in file order. what: whose header it is.
    Raises BadFile where a value is out of bounds or the header has another length.
    """
    values, position = list[int](), 0
    for name, (low, high) in limits.items():
        value, position = read_varint(data, position, name)
        expect(low <= value <= high, BadFile, name, value, f"{low} to {high}")
        values.append(value)
    expect(len(data) == position + n_more, BadFile, f"{what} header length", len(data), f"{position + n_more} bytes")
    return values, data[position:]


def write_fields(*values: int) -> bytes:
    """Return the varints that `read_fields` reads."""
    return b"".join(write_varint(value) for value in values)


def crc(content: bytes) -> bytes:
    """Return the CRC-32 of some bytes, 4 bytes, little-endian."""
    return zlib.crc32(content).to_bytes(CRC_BYTES, "little")


def inflate(data: bytes, length: int, name: str) -> bytes:
    """Return exactly `length` bytes out of a whole zlib stream. Raises BadFile."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise BadFile(f"{name}: found damage ({error}), expected a zlib stream") from None
    expect(len(out) == length and stream.eof, BadFile, f"{name} length", len(out), f"{length} bytes")
    expect(not stream.unused_data, BadFile, f"{name} end", f"{len(stream.unused_data)} bytes more", "the end")
    return out


def encode_metadata(value: bytes) -> bytes:
    """Return a varint of the length and the zlib stream. Raises BadInput for more than `decode_metadata` would take."""
    expect(len(value) <= MAX_METADATA_BYTES, BadInput, "metadata length", len(value), f"at most {MAX_METADATA_BYTES}")
    return write_varint(len(value)) + zlib.compress(value, 9)


def decode_metadata(data: bytes, limit: int | None = None) -> bytes:
    """Return what `encode_metadata` was given, of at most `limit` bytes (MAX_METADATA_BYTES). Raises BadFile."""
    most = MAX_METADATA_BYTES if limit is None else limit
    length, position = read_varint(data, 0, "metadata length", most + 1)
    return inflate(data[position:], length, "metadata")


def metadata_chunks(metadata: Mapping[str, bytes]) -> list[Chunk]:
    """Return an optional chunk for each part of a picture's metadata, in the order of their kinds."""
    kept = [(kind, metadata[name]) for kind, name in METADATA.items() if metadata.get(name)]
    return [Chunk(kind, encode_metadata(value), optional=True) for kind, value in kept]


def read_metadata(chunks: Iterable[Chunk], damaged: Callable[[str], None] = lambda name: None) -> dict[str, bytes]:
    """Return the metadata of a picture's chunks by name. damaged: is told the names of those without a payload.

    Raises BadFile.
    """
    found = {}
    for chunk in chunks:
        if chunk.kind in METADATA and chunk.payload is None:
            damaged(METADATA[chunk.kind])
        elif chunk.kind in METADATA:
            found[METADATA[chunk.kind]] = decode_metadata(bytes(chunk.payload or b""))
    return found
