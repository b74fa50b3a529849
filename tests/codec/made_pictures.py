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
