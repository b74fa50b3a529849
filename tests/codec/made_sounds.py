"""Sounds made for the tests: containers by struct, libsndfile and mutagen, pages of Ogg around FLAC."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile

RATE = 8000


def tone(n: int = 3000, channels: int = 2) -> np.ndarray:
    """int32 [n, channels] of full range, whose low bits are busy at any width."""
    rng = np.random.default_rng(n)
    wave = np.sin(np.arange(n)[:, None] * [0.05 + 0.01 * c for c in range(channels)])
    return (wave * 2**29 + rng.normal(0, 2**26, wave.shape)).astype(np.int32)


def by_library(samples: np.ndarray, format: str, subtype: str, rate: int = RATE) -> bytes:
    """The file that libsndfile makes of samples."""
    out = io.BytesIO()
    soundfile.write(out, samples, rate, subtype=subtype, format=format)
    return out.getvalue()


def chunk(name: bytes, content: bytes, order: str = "<", size: int | None = None) -> bytes:
    """A chunk of RIFF or FORM; size: what it says, if not the truth."""
    said = len(content) if size is None else size
    return name + struct.pack(order + "I", said) + content + bytes(len(content) % 2)


def wav(data: bytes, bits: int = 16, *, tag: int = 1, size: int | None = None, riff: int | None = None, **more: object) -> bytes:
    """A WAV file of one channel. size, riff: what the two sizes say. after, before: bytes of other chunks; order, name."""
    order, frame = ("<", bits // 8)
    order = str(more.get("order", order))
    name, before, after = (bytes(more.get(key, b"")) for key in ("name", "before", "after"))  # type: ignore[call-overload]
    shape = struct.pack(order + "HHIIHH", tag, 1, RATE, RATE * frame, frame, bits)
    body = b"WAVE" + chunk(b"fmt ", shape, order) + before + chunk(b"data", data, order, size) + after
    return (name or b"RIFF") + struct.pack(order + "I", len(body) if riff is None else riff) + body


def aiff(data: bytes, bits: int, kind: bytes = b"", *, stated: int, size: int | None = None, after: bytes = b"") -> bytes:
    """An AIFF file of one channel, AIFC with a kind. stated: its samples, as COMM counts; size: that of SSND, if not true."""
    comm = struct.pack(">HIH", 1, stated, bits) + b"\x40\x0b\xfa\0\0\0\0\0\0\0" + (kind + b"\0\0" if kind else b"")
    body = chunk(b"COMM", comm, ">") + chunk(b"SSND", bytes(8) + data, ">", size) + after
    body = (b"AIFC" if kind else b"AIFF") + body
    return b"FORM" + struct.pack(">I", len(body)) + body


def caf(data: bytes, bits: int, flags: int, *, size: int | None = None, chunks: bytes = b"", kind: bytes = b"lpcm") -> bytes:
    """A CAF file of one channel. flags: 1 floats, 2 the lowest byte first; size: that of the data chunk, if not true."""
    desc = struct.pack(">d4sIIIII", RATE, kind, flags, bits // 8, 1, 1, bits)
    head = b"caff\0\1\0\0" + b"desc" + struct.pack(">q", 32) + desc + chunks
    return head + b"data" + struct.pack(">q", len(data) + 4 if size is None else size) + bytes(4) + data


def with_total(flac: bytes, total: int) -> bytes:
    """The FLAC file whose STREAMINFO counts `total` samples."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + struct.pack(">I", total) + flac[26:]


def pages(packets: list[bytes], serial: int = 7) -> bytes:
    """An Ogg stream of one packet a page."""
    out = b""
    for i, packet in enumerate(packets):
        sizes = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        assert len(sizes) <= 255, "a packet too long for one page"
        flags = 2 * (i == 0) + 4 * (i == len(packets) - 1)
        head = b"OggS\0" + bytes([flags]) + struct.pack("<qII", i, serial, i)
        page = head + bytes(4) + bytes([len(sizes)]) + sizes + packet
        out += page[:22] + struct.pack("<I", ogg_crc(page)) + page[26:]
    return out


def ogg_crc(page: bytes) -> int:
    """Ogg's CRC: polynomial 0x04C11DB7, the highest bit first."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & 0xFFFFFFFF
    return crc


def ogg_flac(flac: bytes) -> bytes:
    """The FLAC file in pages of Ogg (the mapping of xiph.org): a first packet, the metadata, the frames."""
    blocks, at = [], 4
    while not blocks or not blocks[-1][0] & 128:
        size = 4 + int.from_bytes(flac[at + 1 : at + 4], "big")
        blocks.append(flac[at : at + size])
        at += size
    head = b"\x7fFLAC\1\0" + struct.pack(">H", len(blocks) - 1) + b"fLaC" + blocks[0]
    frames = [flac[i : i + 40000] for i in range(at, len(flac), 40000)]
    return pages([head, *blocks[1:], *frames])
