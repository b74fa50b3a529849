"""Picture files made for tests, with properties that few writers write, by tifffile, imagecodecs, or byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

WIDTH, HEIGHT = 20, 12
GRAY8 = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 256).astype(np.uint8)
RGB8 = np.stack([GRAY8, GRAY8[::-1], 255 - GRAY8], 2)
RGBA8 = np.dstack([RGB8, GRAY8[:, ::-1]])
GRAY16 = (np.arange(HEIGHT * WIDTH, dtype=np.uint16) * 271 + 5).reshape(HEIGHT, WIDTH)
RGB16 = np.stack([GRAY16, GRAY16[::-1], 65535 - GRAY16], 2)
RGBA16 = np.dstack([RGB16, GRAY16[:, ::-1]])


def channels(array: np.ndarray, n: int) -> np.ndarray:
    """The first n of [H, W, 4] as gray, gray + alpha, RGB or RGBA, [H, W, n]."""
    return np.ascontiguousarray(array[:, :, {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[n]])


def tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, software=False, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(rows: list[bytes], width: int, bits: int, kind: int, *chunks: bytes) -> bytes:
    """kind: PNG's colour type. rows: packed samples."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data + chunk(b"IEND", b"")


def png_of(array: np.ndarray, *chunks: bytes) -> bytes:
    """uint8 or uint16 [H, W, 1 to 4]."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[array.shape[2]]
    rows = [row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array]
    return png(rows, array.shape[1], 8 * array.dtype.itemsize, kind, *chunks)


def interlaced(array: np.ndarray, *chunks: bytes) -> bytes:
    """uint16 [H, W, 1 to 4] as an interlaced PNG file."""
    data = b""
    for top, left, down, across in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = array[top::down, left::across]
        data += b"".join(b"\0" + row.astype(">u2").tobytes() for row in part) if part.size else b""
    height, width, n = array.shape
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[n], 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def pbm(array: np.ndarray, plain: bool = False) -> bytes:
    """[H, W, 1] of 0 and 1, white, as P4 or P1, where 1 is black."""
    height, width, _ = array.shape
    black = 1 - array[:, :, 0]
    if plain:
        return f"P1\n# a comment\n{width} {height}\n".encode() + b"\n".join(b"".join(b"%d" % v for v in row) for row in black)
    return f"P4\n{width} {height}\n".encode() + np.packbits(black, axis=1).tobytes()


def bmp(bits: int, compression: int, masks: tuple[int, ...], data: bytes, header: int = 108) -> bytes:
    """4 x 3 pixels with a header of 40, 108 (V4) or 124 (V5) bytes."""
    head = struct.pack("<IiiHHIIiiII", header, 4, 3, 1, bits, compression, len(data), 0, 0, 0, 0)
    fields = b"".join(struct.pack("<I", mask) for mask in masks)
    head += fields if header == 40 else fields.ljust(16, b"\0") + bytes(header - 56)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def pillow(array: np.ndarray, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, format, **options)
    return file.getvalue()


def jp2(array: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(array, **{"level": 0, "reversible": True, "codecformat": "jp2", **options}))


def avif(array: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.avif_encode(array, level=100, **options))


def pnm(array: np.ndarray, white: int, plain: bool = False) -> bytes:
    """[H, W, 1 or 3] as P5 or P6, or as P2 or P3 with a comment."""
    height, width, n = array.shape
    kind = {1: 5, 3: 6}[n] - 3 * plain
    head = f"P{kind}\n" + "# a comment\n" * plain + f"{width} {height}\n{white}\n"
    if plain:
        return (head + " ".join(map(str, array.ravel().tolist())) + "\n").encode()
    return head.encode() + array.astype(np.uint8 if white < 256 else ">u2").tobytes()


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG file with one more segment after its first one, JFIF."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:end] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[end:]
