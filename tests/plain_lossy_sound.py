"""Lossy sounds as integers, read by FORMAT.md alone (section "Lossy sound"), without Laconic: all but the samples."""

import struct
import zlib
from typing import Any

WIDTHS = ((8, False), (16, False), (24, False), (32, False), (32, True), (64, True))
METADATA = (10, 32, 33, 34)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = 0
    for i in range(5):
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            assert i == 0 or data[at + i] > 0, "a varint in more bytes than it needs"
            return value, at + i + 1
    raise AssertionError("a varint of more than 5 bytes")


def container(file: bytes) -> tuple[int | str, bytes, bytes, list[tuple[int, bytes]]]:
    """The model, the first bytes of its digest, the fields, and the chunks (kind, payload) that must be known."""
    assert file[:7] == b"\x89Lc\r\n\x01\x05", "another magic, version or medium"
    model, at = file[7], 8
    assert model > 0, "no model"
    if model > 31:
        model, at = file[8 : 8 + model - 31].decode("ascii"), 8 + model - 31
    digest = file[at : at + 4]
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
        if kind < 128 or kind & 127 in METADATA:
            chunks.append((kind & 127, payload))
    assert at == len(file), "bytes after the last payload"
    return model, digest, fields, chunks


def fields_of(data: bytes) -> dict[str, Any]:
    """The header's fields by name."""
    values, at = [], 0
    for _ in range(6):
        value, at = varint(data, at)
        values.append(value)
    rate, shape, core_rate, quality, length, seed = values
    channels = shape % 8 + 1
    bits, floating = WIDTHS[shape // 8]
    assert 1000 <= rate <= 768000 and core_rate in (16, 24, 48) and quality <= 10000 and length <= 2**34 and seed < 2**32
    assert len(data) == at + channels, "another number of levels"
    names = {"rate": rate, "channels": channels, "bits": bits, "floating": floating, "core": 1000 * core_rate, "quality": quality}
    return {**names, "length": length, "seed": seed, "levels": list(data[at:])}


def segments(file: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fields, and of each segment its samples, how many frames it has, its silences, its runs; if exact, what else it holds."""
    _, _, data, chunks = container(file)
    f = fields_of(data)
    n = -(-f["length"] // (4 * f["rate"]))
    n_core = -(-f["core"] * f["length"] // f["rate"])
    n_frames = -(-n_core // (f["core"] * 16 // 1000)) + 1
    payloads = [chunk for chunk in chunks if chunk[0] in (24, 25, 26)]
    assert len(payloads) == n and all(kind in (24, 25, 26, *METADATA) for kind, _ in chunks), "other chunks"
    found = []
    for i, (kind, payload) in enumerate(payloads):
        samples = min(4 * f["rate"], f["length"] - 4 * f["rate"] * i)
        frames = 250 if i < n - 1 else n_frames - 250 * i
        assert kind != 26 or f["rate"] <= 2**18, "an exact segment at too high a rate"
        edges = (i > 0) + 2 * (i < n - 1)
        read = exact(payload, f["channels"], edges) if kind == 26 else parts(payload, kind == 25, samples, f["channels"])
        found.append({"samples": samples, "frames": frames, **read})
    return f, found


def parts(payload: bytes, marked: bool, samples: int, channels: int) -> dict[str, Any]:
    """The silences of a segment (first sample, the one after the last), and a run for each coded channel."""
    if not payload:
        return {"silences": [(0, samples)], "runs": [b""] * channels}
    at, place, silences = 0, 0, []
    if marked:
        count, at = varint(payload, 0)
        for _ in range(count):
            before, at = varint(payload, at)
            length, at = varint(payload, at)
            silences.append((place + before, place + before + length))
            place += before + length
            assert length > 0 and place <= samples, "a silence beyond the segment"
    runs, at = runs_at(payload, at, channels - 1)
    assert any([*runs, payload[at:]]), "no run, in a payload that is not empty"
    return {"silences": silences, "runs": [*runs, payload[at:]]}


def exact(payload: bytes, channels: int, possible: int) -> dict[str, Any]:
    """The runs of the head and of the tail of an exact segment, and the payload of a lossless one."""
    deflated, edges = divmod(payload[0], 4)
    assert deflated < 2 and edges | possible == possible, "an edge where the sound ends"
    head, at = runs_at(payload, 1, channels * (edges & 1))
    tail, at = runs_at(payload, at, channels * (edges >> 1))
    coded = zlib.decompress(payload[at:]) if deflated else payload[at:]
    return {"silences": [], "runs": [b""] * channels, "head": head, "tail": tail, "deflated": deflated, "coded": coded}


def runs_at(payload: bytes, at: int, n: int) -> tuple[list[bytes], int]:
    """So many runs after their lengths, and the position after them."""
    runs = []
    for _ in range(n):
        length, at = varint(payload, at)
        runs.append(payload[at : at + length])
        at += length
    assert at <= len(payload), "runs longer than their chunk"
    return runs, at
