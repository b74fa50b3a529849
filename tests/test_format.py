"""FORMAT.md is enough: a second parser, written from it alone in plain numpy, finds the symbols that ours finds."""

from __future__ import annotations

import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from laconic import container, registry
from laconic.fields import unpack
from laconic.files import KINDS, layers_of
from laconic.photo import PhotoCoder

LEVELS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
GAUSSIAN = np.load(str(files("laconic.entropy") / "gaussian.npz"))
ROWS = np.split(GAUSSIAN["masses"].astype(int), np.cumsum(GAUSSIAN["sizes"].astype(int))[:-1])


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def symbols_of(data: bytes, at: int, indices: list[int]) -> tuple[list[int], int]:
    """Coded symbols from a position (section "Symbols")."""
    out: list[int] = []
    for first in range(0, len(indices), 1 << 18):
        rows = indices[first : first + (1 << 18)]
        head, at = varint(data, at)
        n_words, n_lanes = head >> 3, (1, 4, 8, 32)[head & 3]
        n_escape, at = varint(data, at) if head & 4 else (0, at)
        states = [int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "little") for i in range(n_lanes)]
        at += 4 * n_lanes
        words = iter(np.frombuffer(data[at : at + 2 * n_words], "<u2").tolist())
        escapes = at + 2 * n_words
        at = escapes + n_escape
        for i, row in enumerate(rows):
            x, masses, start, entry = states[i % n_lanes], ROWS[row], 0, 0
            while start + masses[entry] <= x % 32768:
                start, entry = start + masses[entry], entry + 1
            x = int(masses[entry]) * (x >> 15) + x % 32768 - int(start)
            states[i % n_lanes] = x << 16 | next(words) if x < 65536 else x
            m = (len(masses) - 2) // 2
            if entry == len(masses) - 1:
                code, escapes = varint(data, escapes)
                out.append(-m - 1 - code // 2 if code & 1 else m + 1 + code // 2)
            else:
                out.append(entry - m)
        assert set(states) == {65536} and next(words, None) is None and escapes == at
    return out, at


def layer(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    weight = np.clip(np.rint(weights[name + ".weight"].astype(float) * 64), -127, 127).astype(int)
    bias = np.rint(weights[name + ".bias"].astype(float) * 1024).astype(int)[:, None, None]
    if weight.shape[2] == 1:
        return np.einsum("oi,ihw->ohw", weight[:, :, 0, 0], x) + bias
    padded, (_, h, w) = np.pad(x, ((0, 0), (1, 1), (1, 1))), x.shape
    return sum(weight[:, 0, i, j, None, None] * padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)) + bias


def q(s: np.ndarray) -> np.ndarray:
    return np.clip(s // 64, 0, 127)


def shuffle(x: np.ndarray) -> np.ndarray:
    c, h, w = x.shape
    return x.reshape(c // 4, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c // 4, 2 * h, 2 * w)


def line(table: np.ndarray, quality: int) -> np.ndarray:
    a, (row, rest) = np.rint(table.astype(float) * 64).astype(int), divmod(15 * quality, 10_000)
    return (a[row] * (10_000 - rest) + a[min(row + 1, 15)] * rest) // 10_000


def index(rows: np.ndarray) -> np.ndarray:
    return np.clip(rows // 64, 0, 63)


def parse(data: bytes, weights: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """z and y of each tile (sections "Container", "Photo", "Table indices of photo-3")."""
    assert data[:8] == b"\x89Lc\r\n\x01\x01\x03"
    n, at = varint(data, 12)
    end = at + n
    width, at = varint(data, at)
    height, at = varint(data, at)
    quality, at = varint(data, at)
    tile = data[at] % 64 * 4  # samples of y
    n_chunks, at = varint(data, end)
    lengths = []
    for _ in range(n_chunks):
        length, after = varint(data, at + 1)
        lengths.append((data[at], length, data[after : after + 4]))
        at = after + 4
    assert data[at : at + 4] == zlib.crc32(data[:at]).to_bytes(4, "little")
    at += 4
    payloads = []
    for kind, length, crc in lengths:
        payloads.append((kind, data[at : at + length]))
        assert zlib.crc32(data[at : at + length]).to_bytes(4, "little") == crc
        at += length
    h, w = -(-height // 64), -(-width // 64)
    rows = np.repeat(index(line(weights["z_index"], quality)), h * w)
    z = np.array(symbols_of(payloads[0][1], 0, rows.tolist())[0]).reshape(-1, h, w)
    x = 16 * np.clip(z, -7, 7)
    x = shuffle(q(layer(weights, "h_scale.enter", x)))
    x = shuffle(q(layer(weights, "h_scale.pw1", q(layer(weights, "h_scale.dw1", x)))))
    whole = layer(weights, "h_scale.leave", q(layer(weights, "h_scale.dw2", x)))
    whole += line(weights["scale_offset"], quality)[:, None, None]
    tiles = []
    corners = [(top, left) for top in range(0, 4 * h, tile) for left in range(0, 4 * w, tile)]
    for (top, left), (kind, payload) in zip(corners, payloads[1:], strict=False):
        assert kind == 2
        tiles.append(parse_tile(payload, whole[:, top : top + tile, left : left + tile], weights))
    return z, tiles


def parse_tile(payload: bytes, p: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The four passes of a y chunk."""
    channel, row, column = np.indices(p.shape)
    pass_of = (row % 2 + 2 * ((row + column) % 2)) ^ (channel % 4)
    y, at = np.zeros_like(p), 0
    for n in range(4):
        rows = p
        if n:
            level = 8 * sum((abs(y) >= t).astype(int) for t in LEVELS)
            x = np.concatenate([level, q(p)])
            for name in ("enter", "dw", "pw"):
                x = q(layer(weights, f"c_scale.{n - 1}.{name}", x))
            rows = p + layer(weights, f"c_scale.{n - 1}.leave", x)
        y[pass_of == n], at = symbols_of(payload, at, index(rows)[pass_of == n].tolist())
    assert at == len(payload)
    return y


@pytest.mark.parametrize("name", ["photo-low", "photo-high"])
def test_a_second_parser_finds_the_same_symbols(name: str) -> None:
    data = Path(str(files("laconic.assets") / "golden" / f"{name}.lac")).read_bytes()
    model = registry.find("photo")
    z, tiles = parse(data, load_file(model.path))
    header, chunks = container.read(data, KINDS)
    fields = unpack(header.fields)
    ours = PhotoCoder(registry.load_photo(model)).parse(layers_of(chunks, fields), fields)
    assert np.array_equal(ours.z[0].numpy().astype(int), z)
    assert all(np.array_equal(a, b) for a, b in zip(ours.y.values(), tiles, strict=True))
