"""The photo coder: parsing finds what was coded, each tile alone."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from laconic import entropy, registry
from laconic.media import photo_coder
from laconic.media.photo_coder import PhotoCoder
from laconic.media.photo_fields import Fields
from laconic.media.tiles import Window


def coder() -> PhotoCoder:
    return PhotoCoder(registry.load_photo(registry.find("photo")), threads=1)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    return np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))[:150, :640]


def test_parsing_finds_the_symbols_that_were_coded(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = Fields(200, 150, 5_500, tile=128)
    coded: list[np.ndarray] = []
    encode = entropy.encode
    monkeypatch.setattr(entropy, "encode", lambda s, *a, **k: coded.append(np.asarray(s)) or encode(s, *a, **k))
    payloads = coder().encode(pixels[:, :200], fields)
    parsed = coder().parse(list(payloads), fields)
    assert np.array_equal(parsed.z.numpy().ravel(), coded[0]) and len(payloads) == 5 and len(coded) == 1 + 4 * 4
    for i, symbols in enumerate(parsed.y.values()):
        for n, where in enumerate(photo_coder.pass_places(*symbols.shape, "cpu")):
            assert np.array_equal(symbols.ravel()[where.numpy()], coded[1 + 4 * i + n])
    n_bits = 8 * sum(map(len, payloads))
    tables = coder().model.tables
    ideal = sum(tables.codelength(*pair) for pair in coder().coded(parsed, fields))
    assert ideal < n_bits < 1.006 * ideal + 8 * 6 * len(coded)  # a head, a state and rounding for each stream


def test_a_tile_is_parsed_without_its_neighbours(pixels: np.ndarray) -> None:
    fields = Fields(640, 64, 3_000, tile=64)
    payloads = coder().encode(pixels[:64], fields)
    whole = coder().parse(list(payloads), fields)
    alone = coder().parse([payloads[0], None, *payloads[2:5], *[None] * 6], fields, Window(0, 64, 130, 190))
    assert 0 < len(alone.y) < len(whole.y)
    assert all(np.array_equal(symbols, whole.y[tile]) for tile, symbols in alone.y.items())
