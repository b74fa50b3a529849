"""Laconic's container and coded symbols in plain Python: FORMAT.md read aloud, without numpy and without Laconic."""

import struct
import zipfile
import zlib
from itertools import accumulate


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = 0
    for i in range(5):
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            assert i == 0 or data[at + i] > 0, "a varint in more bytes than it needs"
            return value, at + i + 1
    raise AssertionError("a varint of more than 5 bytes")


def container(file: bytes) -> tuple[int | str, bytes, list[tuple[int, bytes]]]:
    """Section "Container": the model, the medium's fields, and the chunks (kind, payload)."""
    assert file[:7] == b"\x89Lc\r\n\x01\x01", "another magic, version or medium"
    model, at = file[7], 8
    if model > 31:
        model, at = file[8 : 8 + model - 31].decode("ascii"), 8 + model - 31
    n, at = varint(file, at + 4)
    fields, at = file[at : at + n], at + n
    n_chunks, at = varint(file, at)
    table = []
    for _ in range(n_chunks):
        length, after = varint(file, at + 1)
        table.append((file[at], length, file[after : after + 4]))
        at = after + 4
    assert file[at : at + 4] == struct.pack("<I", zlib.crc32(file[:at])), "the header is damaged"
    chunks, at = [], at + 4
    for kind, length, crc in table:
        payload, at = file[at : at + length], at + length
        assert len(payload) == length and crc == struct.pack("<I", zlib.crc32(payload)), "a payload is damaged"
        chunks.append((kind, payload))
    assert at == len(file), "bytes after the last payload"
    return model, fields, chunks


def gaussian_rows(path: str) -> list[tuple[int, list[int]]]:
    """Section "Symbols", last paragraph: of each row its first symbol and where its entries start, ending in 2^15."""
    with zipfile.ZipFile(path) as archive:
        arrays = [archive.read(name + ".npy") for name in ("masses", "sizes")]
    arrays = [data[10 + struct.unpack("<H", data[8:10])[0] :] for data in arrays]
    masses, sizes = (struct.unpack(f"<{len(data) // 2}H", data) for data in arrays)
    ends = list(accumulate(sizes))
    return [(-(n - 2) // 2, [0, *accumulate(masses[end - n : end])]) for n, end in zip(sizes, ends, strict=True)]


def symbols(data: bytes, at: int, indices: list[int], rows: list[tuple[int, list[int]]]) -> tuple[list[int], int]:
    """Section "Symbols": the coded symbols from a position, a table row for each, and the position after them."""
    out = []
    for first in range(0, len(indices), 1 << 18):
        head, at = varint(data, at)
        n_words, n_lanes = head >> 3, (1, 4, 8, 32)[head & 3]
        n_escape, at = varint(data, at) if head & 4 else (0, at)
        states = list(struct.unpack_from(f"<{n_lanes}I", data, at))
        assert min(states) >= 65536, "a state below its range"
        words = iter(struct.unpack_from(f"<{n_words}H", data, at + 4 * n_lanes))
        escape = at + 4 * n_lanes + 2 * n_words
        at = escape + n_escape
        for i, index in enumerate(indices[first : first + (1 << 18)]):
            (symbol, starts), x, entry = rows[index], states[i % n_lanes], 0
            while starts[entry + 1] <= x % 32768:
                entry += 1
            x = (starts[entry + 1] - starts[entry]) * (x >> 15) + x % 32768 - starts[entry]
            states[i % n_lanes] = x << 16 | next(words) if x < 65536 else x
            if entry == len(starts) - 2:
                code, escape = varint(data, escape)
                entry = -1 - code // 2 if code & 1 else entry + code // 2
            out.append(symbol + entry)
        assert set(states) == {65536}, "a lane does not end as it started"
        assert next(words, None) is None and escape == at, "words or escapes are left over"
    return out, at
