"""The Pillow plugin opens and saves by path and file object."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import laconic
import laconic.pillow

FORMATS = Path(__file__).parent.parent / "data" / "formats"


@pytest.mark.parametrize("name", ["interlaced.png", "gray8.png", "rgba_soft.png", "gray_alpha.png"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    image = Image.open(FORMATS / name)
    image.save(tmp_path / "x.lac", quality=70)
    opened = Image.open(tmp_path / "x.lac")
    assert opened.size == image.size and opened.format == "LACONIC"
    expected = laconic.decompress(tmp_path / "x.lac")
    assert opened.mode == expected.mode and np.array_equal(np.asarray(opened), np.asarray(expected))
    file = io.BytesIO()
    image.save(file, format="LACONIC", quality=70)
    assert file.getvalue() == (tmp_path / "x.lac").read_bytes()


def test_damage_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"\x89Lc\r\n" + bytes(40)))
