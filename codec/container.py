"""The container: a header and a table of chunks, each with a checksum (FORMAT.md, section "Container").

Knows bytes and lengths, not what they mean. Every length is bounded before it is believed.
"""

from __future__ import annotations

import zlib
from collections.abc import Container
from dataclasses import dataclass

from laconic.entropy.blocks import read_varint, write_varint
from laconic.entropy.errors import BadFile, UnsupportedFile, expect

__all__ = ["MAGIC", "Chunk", "Header", "read", "read_header", "read_varint", "write", "write_varint"]

MAGIC = b"\x89Lc\r\n"  # the high bit and the line end show what text-mode transfers do, as PNG's does
VERSION = 1
OPTIONAL = 0x80
WELL_KNOWN_MODELS = {3: "photo-3"}  # one byte in the file instead of the name; 1 and 2 were models of before 1.0
NAME_BASE = 31  # a byte v > 31 says that v - 31 bytes of name follow
DIGEST_BYTES = 4
MIN_ENTRY_BYTES = 6  # kind, length, CRC-32
FOREIGN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a WebP or WAV file",
    b"\x89Lc\n": "a Laconic file whose line ends were changed by a text-mode transfer",
    b"\x89Lc\r\r\n": "a Laconic file whose line ends were changed by a text-mode transfer",
}


@dataclass(frozen=True)
class Header:
    """What a file is: medium (1 photo), model name and first 4 bytes of its digest, the medium's own fields."""

    medium: int
    model: str
    digest: bytes
    fields: bytes


@dataclass(frozen=True)
class Chunk:
    """A part of a file. payload is None where partial reading found damage."""

    kind: int
    payload: bytes | memoryview | None
    optional: bool = False


def write(header: Header, chunks: list[Chunk]) -> bytes:
    """The bytes of a file."""
    head = bytearray(MAGIC + bytes([VERSION, header.medium]))
    codes = {name: code for code, name in WELL_KNOWN_MODELS.items()}
    name = header.model.encode("ascii")
    head += bytes([codes[header.model]]) if header.model in codes else bytes([NAME_BASE + len(name)]) + name
    head += header.digest[:DIGEST_BYTES]
    head += write_varint(len(header.fields)) + header.fields + write_varint(len(chunks))
    payloads = [bytes(chunk.payload or b"") for chunk in chunks]
    for chunk, payload in zip(chunks, payloads, strict=True):
        kind = chunk.kind | (OPTIONAL if chunk.optional else 0)
        head += bytes([kind]) + write_varint(len(payload)) + zlib.crc32(payload).to_bytes(4, "little")
    head += zlib.crc32(head).to_bytes(4, "little")
    return bytes(head) + b"".join(payloads)


def read(data: bytes, known: Container[int], partial: bool = False) -> tuple[Header, list[Chunk]]:
    """Header and chunks of a file, in file order, every checksum checked; payloads are views, not copies.

    known: the kinds that the caller understands; others are left out where optional, else UnsupportedFile.
    partial: a chunk that is damaged or cut off comes with payload None; header and table must be sound all the same.
    Raises BadFile.
    """
    header, table, position = parse_head(data)
    total = position + sum(length for _, length, _ in table)
    expect(partial or total == len(data), BadFile, "file length", len(data), f"{total} bytes")
    chunks, view = [], memoryview(data)
    for i, (kind, length, crc) in enumerate(table):
        payload = view[position : position + length]
        position += length
        sound = len(payload) == length and zlib.crc32(payload) == crc
        expect(sound or partial, BadFile, f"chunk {i} checksum", "another one", f"{crc:#010x}")
        if kind & ~OPTIONAL in known:
            chunks.append(Chunk(kind & ~OPTIONAL, payload if sound else None, bool(kind & OPTIONAL)))
        else:
            expect(bool(kind & OPTIONAL), UnsupportedFile, f"chunk {i} kind", kind, "a kind that this version knows")
    return header, chunks


def read_header(data: bytes) -> tuple[Header, list[tuple[int, int]]]:
    """Header and (kind, length) of each chunk; payloads are not looked at. Raises BadFile."""
    header, table, _ = parse_head(data)
    return header, [(kind & ~OPTIONAL, length) for kind, length, _ in table]


def parse_head(data: bytes) -> tuple[Header, list[tuple[int, int, int]], int]:
    """Header, table of (kind byte, length, CRC-32), and where the first payload begins."""
    found = next((what for start, what in FOREIGN.items() if data.startswith(start)), bytes(data[:8]))
    expect(data[: len(MAGIC)] == MAGIC, BadFile, "magic", found if data else "an empty file", f"{MAGIC!r}, a Laconic file")
    head, position = take(data, len(MAGIC), 3, "header")
    version, medium, model = head
    expect(version == VERSION, UnsupportedFile, "version", version, f"{VERSION}; a newer Laconic may read it")
    name, position = read_model(data, position, model)
    digest, position = take(data, position, DIGEST_BYTES, "model digest")
    n_fields, position = read_varint(data, position, "fields length")
    fields, position = take(data, position, n_fields, "fields")
    n_chunks, position = read_varint(data, position, "number of chunks")
    most = (len(data) - position) // MIN_ENTRY_BYTES
    expect(n_chunks <= most, BadFile, "number of chunks", n_chunks, f"at most {most}, as the file's length allows")
    table = []
    for i in range(n_chunks):
        kind, position = take(data, position, 1, f"chunk {i} kind")
        length, position = read_varint(data, position, f"chunk {i} length")
        crc, position = take(data, position, 4, f"chunk {i} checksum")
        table.append((kind[0], length, int.from_bytes(crc, "little")))
    found_crc = zlib.crc32(data[:position])
    crc, position = take(data, position, 4, "header checksum")
    expect(int.from_bytes(crc, "little") == found_crc, BadFile, "header checksum", f"{found_crc:#010x}", f"0x{crc[::-1].hex()}")
    return Header(medium, name, digest, fields), table, position


def read_model(data: bytes, position: int, code: int) -> tuple[str, int]:
    """The model's name: well known by its number, or spelled out."""
    if code > NAME_BASE:
        raw, position = take(data, position, code - NAME_BASE, "model name")
        expect(raw.isascii(), BadFile, "model name", raw, "ASCII")
        return raw.decode("ascii"), position
    expect(code in WELL_KNOWN_MODELS, UnsupportedFile, "model number", code, f"one of {sorted(WELL_KNOWN_MODELS)}")
    return WELL_KNOWN_MODELS[code], position


def take(data: bytes, position: int, n: int, field: str) -> tuple[bytes, int]:
    """n bytes from a position, and the position after them."""
    expect(position + n <= len(data), BadFile, field, f"{max(0, len(data) - position)} bytes", f"{n} bytes")
    return bytes(data[position : position + n]), position + n
