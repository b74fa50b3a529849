"""The container: a header and a table of chunks, each with a checksum (FORMAT.md, section "Container").

Knows bytes and lengths, not what they mean. Every length is bounded before it is believed.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from laconic.entropy.errors import BadFile, UnsupportedFile, expect
from laconic.entropy.varint import read_varint, write_varint

__all__ = [
    "MAGIC",
    "Chunk",
    "Header",
    "payload",
    "read",
    "read_table",
    "read_varint",
    "write",
    "write_to",
    "write_varint",
]

MAGIC = b"\x89Lc\r\n"  # the high bit and the line end show what text-mode transfers do, as PNG's does
VERSION = 1
OPTIONAL = 0x80
WELL_KNOWN_MODELS = {3: "photo-3", 5: "sound-2", 8: "photo-6"}  # one byte in the file; 1, 2, 4, 6 and 7 were earlier models
NO_MODEL = 0  # a medium that needs no weights
NAME_BASE = 31  # a byte v > 31 says that v - 31 bytes of name follow
DIGEST_BYTES = 4
MAX_VARINT_BYTES = 5
MIN_ENTRY_BYTES = 6  # kind, length, CRC-32
FOREIGN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a WebP or WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"\x89Lc\n": "a Laconic file whose line ends were changed by a text-mode transfer",
    b"\x89Lc\r\r\n": "a Laconic file whose line ends were changed by a text-mode transfer",
}


@dataclass(frozen=True)
class Header:
    """Says what a file is.

    medium: its number (`media.TABLE`). model, digest: the model's name and the first 4 bytes of its digest, both empty
    without a model. fields: the medium's own.
    """

    medium: int
    model: str
    digest: bytes
    fields: bytes


@dataclass(frozen=True)
class Chunk:
    """Holds a part of a file. payload is None where partial reading found damage, or the file is cut off before."""

    kind: int
    payload: bytes | memoryview | None
    optional: bool = False


@dataclass(frozen=True)
class Entry:
    """Holds a line of the chunk table, and where the chunk's payload begins in the file."""

    number: int
    kind: int
    optional: bool
    length: int
    crc: int
    start: int


class FileBytes:
    """Shows the rest of a seekable binary file as bytes, reading only what is asked for. Threads may share it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.first, self.lock = file, file.tell(), threading.Lock()
        self.size = file.seek(0, 2) - self.first

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size)
        with self.lock:
            self.file.seek(self.first + start)
            return self.file.read(max(0, stop - start))


Data = bytes | FileBytes


def write(header: Header, chunks: list[Chunk]) -> bytes:
    """Return the bytes of a file."""
    payloads = [bytes(chunk.payload or b"") for chunk in chunks]
    table = [table_line(chunk, payload) for chunk, payload in zip(chunks, payloads, strict=True)]
    return head(header, table) + b"".join(payloads)


def write_to(file: BinaryIO, header: Callable[[], Header], chunks: Iterable[Chunk]) -> None:
    """Write as `write` does, into a file, one chunk in memory at a time: payloads wait on disk for the table that precedes them.

    header: called after the last chunk, when all is known.
    """
    table = []
    with tempfile.TemporaryFile() as waiting:
        for chunk in chunks:
            table.append(table_line(chunk, chunk.payload or b""))
            waiting.write(chunk.payload or b"")
        file.write(head(header(), table))
        waiting.seek(0)
        shutil.copyfileobj(waiting, file, 1 << 20)


def size_of(chunk: Chunk) -> int:
    """Return the bytes that a chunk takes in a file, its line of the table counted."""
    payload = chunk.payload or b""
    return len(table_line(chunk, payload)) + len(payload)


def table_line(chunk: Chunk, payload: bytes | memoryview) -> bytes:
    kind = chunk.kind | (OPTIONAL if chunk.optional else 0)
    return bytes([kind]) + write_varint(len(payload)) + zlib.crc32(payload).to_bytes(4, "little")


def head(header: Header, table: list[bytes]) -> bytes:
    """Return all that precedes the payloads."""
    out = bytearray(MAGIC + bytes([VERSION, header.medium]))
    if header.model:
        codes = {name: code for code, name in WELL_KNOWN_MODELS.items()}
        name = header.model.encode("ascii")
        out += bytes([codes[header.model]]) if header.model in codes else bytes([NAME_BASE + len(name)]) + name
        out += header.digest[:DIGEST_BYTES]
    else:
        out.append(NO_MODEL)
    out += write_varint(len(header.fields)) + header.fields + write_varint(len(table)) + b"".join(table)
    return bytes(out + zlib.crc32(out).to_bytes(4, "little"))


def read(data: bytes, known: Container[int], partial: bool = False, cut: bool = False) -> tuple[Header, list[Chunk]]:
    """Read header and chunks of a file, in file order, every checksum checked; payloads are views, not copies.

    known: the kinds that the caller understands; others are left out where optional, else UnsupportedFile.
    partial: a chunk that is damaged or cut off comes with payload None; header and table must be sound all the same.
    cut: the file may end early, and what is cut off comes with payload None; damage is an error.
    Raises BadFile.
    """
    header, table = read_table(data, known, partial or cut)
    end = table[-1].start + table[-1].length if table else len(data)
    expect(not cut or len(data) <= end, BadFile, "file length", len(data), f"at most {end} bytes")
    view, chunks = memoryview(data), []
    for entry in table:
        part = view[entry.start : entry.start + entry.length]
        sound = is_whole(part, entry, partial or cut and len(part) < entry.length)
        if entry.kind in known:
            chunks.append(Chunk(entry.kind, part if sound else None, entry.optional))
    return header, chunks


def read_table(data: Data, known: Container[int] | None = None, partial: bool = False) -> tuple[Header, list[Entry]]:
    """Read header and chunk table; payloads are not looked at. Raises BadFile, also as `read` does for length and kinds."""
    header, table, end = parse_head(data)
    expect(partial or end == len(data), BadFile, "file length", len(data), f"{end} bytes")
    for entry in table:
        ok = known is None or entry.optional or entry.kind in known
        expect(ok, UnsupportedFile, f"chunk {entry.number} kind", entry.kind, "a kind that this version knows")
    return header, table


def payload(data: Data, entry: Entry) -> bytes:
    """Return the payload of one chunk. Raises BadFile where its checksum is another."""
    found = data[entry.start : entry.start + entry.length]
    is_whole(found, entry)
    return found


def is_whole(part: bytes | memoryview, entry: Entry, partial: bool = False) -> bool:
    """Tell whether this is the payload of a chunk, neither cut off nor changed. Raises BadFile where not, unless partial."""
    crc, whole = zlib.crc32(part), len(part) == entry.length
    expect(whole or partial, BadFile, f"chunk {entry.number} length", len(part), f"{entry.length} bytes")
    expect(crc == entry.crc or partial, BadFile, f"chunk {entry.number} checksum", f"{crc:#010x}", f"{entry.crc:#010x}")
    return whole and crc == entry.crc


def parse_head(data: Data) -> tuple[Header, list[Entry], int]:
    """Return header, chunk table, and where the file should end. Raises BadFile, UnsupportedFile."""
    first = bytes(data[:8])
    found = next((what for start, what in FOREIGN.items() if first.startswith(start)), first)
    expect(
        first[: len(MAGIC)] == MAGIC,
        BadFile,
        "magic",
        found if first else "an empty file",
        f"{MAGIC!r}, a Laconic file",
    )
    head, position = take(data, len(MAGIC), 3, "header")
    version, medium, model = head
    expect(version == VERSION, UnsupportedFile, "version", version, f"{VERSION}; a newer Laconic may read it")
    name, position = read_model(data, position, model)
    digest, position = take(data, position, DIGEST_BYTES, "model digest") if name else (b"", position)
    n_fields, position = take_varint(data, position, "fields length")
    fields, position = take(data, position, n_fields, "fields")
    n_chunks, position = take_varint(data, position, "number of chunks")
    most = (len(data) - position) // MIN_ENTRY_BYTES
    expect(n_chunks <= most, BadFile, "number of chunks", n_chunks, f"at most {most}, as the file's length allows")
    lines = []
    for i in range(n_chunks):
        kind, position = take(data, position, 1, f"chunk {i} kind")
        length, position = take_varint(data, position, f"chunk {i} length")
        crc, position = take(data, position, 4, f"chunk {i} checksum")
        lines.append((kind[0], length, int.from_bytes(crc, "little")))
    found_crc = zlib.crc32(data[:position])
    crc, start = take(data, position, 4, "header checksum")
    expect(
        int.from_bytes(crc, "little") == found_crc,
        BadFile,
        "header checksum",
        f"{found_crc:#010x}",
        f"0x{crc[::-1].hex()}",
    )
    table = []
    for i, (byte, length, line_crc) in enumerate(lines):
        table.append(Entry(i, byte & ~OPTIONAL, bool(byte & OPTIONAL), length, line_crc, start))
        start += length
    return Header(medium, name, digest, fields), table, start


def read_model(data: Data, position: int, code: int) -> tuple[str, int]:
    """Read the model's name: none, well known by its number, or spelled out. Raises BadFile."""
    if code == NO_MODEL:
        return "", position
    if code > NAME_BASE:
        raw, position = take(data, position, code - NAME_BASE, "model name")
        text = raw.decode("ascii", "replace")
        expect(raw.isascii() and text.isprintable(), BadFile, "model name", raw, "printable ASCII")
        return text, position
    expect(code in WELL_KNOWN_MODELS, UnsupportedFile, "model number", code, f"one of {sorted(WELL_KNOWN_MODELS)}")
    return WELL_KNOWN_MODELS[code], position


def take_varint(data: Data, position: int, field: str) -> tuple[int, int]:
    value, size = read_varint(bytes(data[position : position + MAX_VARINT_BYTES]), 0, field)
    return value, position + size


def take(data: Data, position: int, n: int, field: str) -> tuple[bytes, int]:
    """Return n bytes from a position, and the position after them. Raises BadFile."""
    expect(position + n <= len(data), BadFile, field, f"{max(0, len(data) - position)} bytes", f"{n} bytes")
    return bytes(data[position : position + n]), position + n
