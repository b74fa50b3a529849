"""FORMAT.md is enough: a second parser, written from it alone, finds the symbols that ours finds.

The container and the coded symbols are read by tests/plain_decoder.py, the table indices are computed here in numpy.
"""

from __future__ import annotations

import ast
import runpy
import sys
from importlib.resources import files
from itertools import accumulate, islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import laconic
from laconic import entropy, registry
from laconic.entropy import blocks
from laconic.media import photo_encode, photo_slices
from laconic.media.photo import opened
from laconic.media.photo_coder import PhotoCoder
from laconic.media.photo_models import layers_of
from laconic.medium import Run

LEVELS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
PLAIN_DECODER = Path(__file__).with_name("plain_decoder.py")
plain = SimpleNamespace(**runpy.run_path(str(PLAIN_DECODER)))
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(PLAIN_DECODER.parent))  # it imports plain_picture
    mixed = SimpleNamespace(**runpy.run_path(str(PLAIN_DECODER.with_name("plain_mixed.py"))))
ROWS = plain.gaussian_rows(str(files("laconic.entropy") / "gaussian.npz"))


def rows_of(weights: dict[str, np.ndarray]) -> list[tuple[int, list[int]]]:
    """The rows of a model, of Gaussians where it has none of its own."""
    if "row_masses" not in weights:
        return list(ROWS)
    masses = iter(weights["row_masses"].tolist())
    return [(first, [0, *accumulate(islice(masses, len(ends) - 1))]) for first, ends in ROWS]


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
    """z and y of each tile (sections "Container", "Photo", "Table indices of photo-3 and photo-6")."""
    model, fields, chunks = plain.container(data)
    assert model in (3, 8)
    width, at = plain.varint(fields, 0)
    height, at = plain.varint(fields, at)
    quality, at = plain.varint(fields, at)
    tile = fields[at] % 64 * 4  # samples of y
    h, w = -(-height // 64), -(-width // 64)
    rows = np.repeat(index(line(weights["z_index"], quality)), h * w)
    kind, payload = chunks[0]
    assert kind == 1
    z = np.array(plain.symbols(payload, 0, rows.tolist(), rows_of(weights))[0]).reshape(-1, h, w)
    x = 16 * np.clip(z, -7, 7)
    x = shuffle(q(layer(weights, "h_scale.enter", x)))
    x = shuffle(q(layer(weights, "h_scale.pw1", q(layer(weights, "h_scale.dw1", x)))))
    whole = layer(weights, "h_scale.leave", q(layer(weights, "h_scale.dw2", x)))
    whole += line(weights["scale_offset"], quality)[:, None, None]
    tiles = []
    corners = [(top, left) for top in range(0, 4 * h, tile) for left in range(0, 4 * w, tile)]
    for number, (top, left) in enumerate(corners):
        own = chunks[1 + number :: len(corners)] if chunks[1][0] == 50 else [chunks[1 + number]]
        kinds = {kind for kind, _ in own}
        assert kinds == {50} or len(own) == 1 and kinds <= {2, 51}
        part = whole[:, top : top + tile, left : left + tile]
        tiles.append(parse_tile([payload for _, payload in own], part, weights, kinds == {51}))
    return z, tiles


def slices_of(rows: list[int], n: int) -> list[list[int]]:
    """Which symbols of a pass each slice holds (section "Progressive photo"); all 256 channels have as many."""
    size = len(rows) // 256
    rank = [row + sum(rows[s // size * size :][:size]) // size for s, row in enumerate(rows)]
    weight = [max(row - 7, 0) for row in rows]
    found: list[list[int]] = [[] for _ in range(n)]
    before, whole = 0, sum(weight)
    for s in sorted(range(len(rows)), key=lambda s: -rank[s]):
        k = next((k for k in range(n - 1) if 2 ** (n - 1) * before < 2**k * whole), n - 1)
        found[k].append(s)
        before += weight[s]
    return [sorted(part) for part in found]


def parse_pass(payloads: list[bytes], rows: list[int], tables: list[tuple[int, list[int]]]) -> list[int]:
    """The symbols of a pass that is cut into slices."""
    out = [0] * len(rows)
    for payload, places in zip(payloads, slices_of(rows, len(payloads)), strict=True):
        symbols, at = plain.symbols(payload, 0, [rows[s] for s in places], tables)
        assert at == len(payload)
        for s, symbol in zip(places, symbols, strict=True):
            out[s] = symbol
    return out


def parse_tile(payloads: list[bytes], p: np.ndarray, weights: dict[str, np.ndarray], is_mixed: bool) -> np.ndarray:
    """The four passes of a y chunk, of mixed y, or of the slices of a tile."""
    channel, row, column = np.indices(p.shape)
    pass_of = (row % 2 + 2 * ((row + column) % 2)) ^ (channel % 4)
    y, at, tables = np.zeros_like(p), 0, rows_of(weights)
    decisions = mixed.Tile(payloads[0], p.shape, tables) if is_mixed else None
    for n in range(4):
        rows = p
        if n:
            level = 8 * sum((abs(y) >= t).astype(int) for t in LEVELS)
            x = np.concatenate([level, q(p)])
            for name in ("enter", "dw", "pw"):
                x = q(layer(weights, f"c_scale.{n - 1}.{name}", x))
            rows = p + layer(weights, f"c_scale.{n - 1}.leave", x)
        indices, per_pass = index(rows)[pass_of == n].tolist(), len(payloads) // 4
        if decisions:
            y[pass_of == n] = decisions.read_pass(n, indices)
        elif per_pass:
            y[pass_of == n] = parse_pass(payloads[n * per_pass : (n + 1) * per_pass], indices, tables)
        else:
            y[pass_of == n], at = plain.symbols(payloads[0], at, indices, tables)
    if decisions:
        assert decisions.bits.x == 1 << 16 and not decisions.bits.words
    assert decisions or per_pass or at == len(payloads[0])
    return y


@pytest.mark.parametrize("name", ["photo-low", "photo-high", "photo-3-low", "photo-mixed"])
def test_a_second_parser_finds_the_same_symbols(name: str) -> None:
    data = Path(str(files("laconic.assets") / "golden" / f"{name}.lac")).read_bytes()
    model = registry.find(laconic.info(data).model)
    z, tiles = parse(data, load_file(model.path))
    file = opened(data, Run())
    ours = PhotoCoder(registry.load_photo(model)).parse(layers_of(file), file.fields)
    assert np.array_equal(ours.z[0].numpy().astype(int), z)
    assert all(np.array_equal(a, b) for a, b in zip(ours.y.values(), tiles, strict=True))


def test_a_second_parser_finds_the_symbols_of_a_progressive_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tiles of unequal size, two slices of each pass and more."""
    fields = photo_encode.Fields
    monkeypatch.setattr(photo_encode, "Fields", lambda *a, **k: fields(*a, **k, tile=64))
    monkeypatch.setattr(photo_slices, "per_pass", lambda tiles, tables: 3)
    pixels = np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))[100:200, 300:420]
    data = laconic.compress(pixels, quality=60, effort=1, model="photo-3", progressive=True)
    model = registry.find("photo-3")
    z, tiles = parse(data, load_file(model.path))
    file = opened(data, Run())
    ours = PhotoCoder(registry.load_photo(model)).parse(layers_of(file), file.fields)
    assert len(tiles) == 4 and np.array_equal(ours.z[0].numpy().astype(int), z)
    assert all(np.array_equal(a, b) and np.any(b) for a, b in zip(ours.y.values(), tiles, strict=True))


@pytest.mark.parametrize("lane_code", range(4))
def test_the_plain_decoder_reads_any_number_of_lanes(lane_code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With escapes on both sides, and other symbols back to back."""
    monkeypatch.setattr(blocks, "LANE_BYTES", (0,) * lane_code)
    symbols, rows = drawn(3000)
    symbols[::100], symbols[50::100] = 32_000, -32_000
    data = entropy.encode(symbols, rows, entropy.gaussian_tables())
    assert data[0] & 3 == lane_code
    found, at = plain.symbols(data + data, 0, rows.tolist(), ROWS)
    assert found == symbols.tolist() and at == len(data)
    assert plain.symbols(data + data, at, rows.tolist(), ROWS) == (found, 2 * len(data))


def test_the_plain_decoder_reads_several_blocks() -> None:
    symbols, rows = drawn((1 << 18) + 1000)
    data = entropy.encode(symbols, rows % 8, entropy.gaussian_tables())
    assert plain.symbols(data, 0, (rows % 8).tolist(), ROWS) == (symbols.tolist(), len(data))


def test_the_plain_decoder_is_short_and_plain() -> None:
    source = PLAIN_DECODER.read_text()
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in imported for alias in node.names}
    assert names <= sys.stdlib_module_names
    assert len(source.splitlines()) <= 80


def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Small symbols and rows for them, by integers."""
    rng = np.random.RandomState(3)
    return rng.randint(-1, 2, n).astype(np.int16), rng.randint(0, 64, n).astype(np.uint8)
