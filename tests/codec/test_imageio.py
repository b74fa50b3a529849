"""imageio.v3 reads and writes .lac after `import laconic.pillow`, by way of its own Pillow plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import laconic
import laconic.pillow
from laconic import container

iio = pytest.importorskip("imageio.v3", reason="imageio: extra dev")


def noise(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.mark.parametrize("pixels", [noise(9, 7), noise(9, 7, 3), noise(9, 7, 4), noise(9, 7, dtype="uint16")])
def test_there_and_back(pixels: NDArray[Any], tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "x.lac", pixels, lossless=True, effort=1)
    assert (tmp_path / "x.lac").read_bytes().startswith(container.MAGIC)
    found = iio.imread(tmp_path / "x.lac")
    assert found.dtype == pixels.dtype and np.array_equal(found, pixels)
    assert iio.improps(tmp_path / "x.lac").shape == pixels.shape


def test_options_reach_the_encoder(tmp_path: Path) -> None:
    pixels = noise(16, 16, 3)
    iio.imwrite(tmp_path / "exact.lac", pixels, lossless=True, effort=1)
    iio.imwrite(tmp_path / "near.lac", pixels, max_error=9, effort=1)
    off = np.abs(iio.imread(tmp_path / "near.lac").astype(int) - pixels)
    assert 0 < off.max() <= 9 and (tmp_path / "near.lac").stat().st_size < (tmp_path / "exact.lac").stat().st_size


def test_a_batch_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(laconic.BadInput, match="pictures in a file: found 3, expected 1"):
        iio.imwrite(tmp_path / "x.lac", noise(3, 9, 7, 3), lossless=True, is_batch=True)
    with pytest.raises(laconic.BadInput, match="pictures in a file: found 2"):
        image = Image.fromarray(noise(9, 7, 3))
        image.save(tmp_path / "y.lac", save_all=True, append_images=[image], lossless=True)


def test_registering_again_changes_nothing() -> None:
    before = [*Image.ID], Image.OPEN["LACONIC"], Image.SAVE["LACONIC"], dict(Image.EXTENSION)
    laconic.pillow.register()
    laconic.pillow.register()
    assert ([*Image.ID], Image.OPEN["LACONIC"], Image.SAVE["LACONIC"], dict(Image.EXTENSION)) == before
    assert Image.ID.count("LACONIC") == 1


def test_without_the_line_imageio_knows_nothing_of_lac(tmp_path: Path) -> None:
    """The line is needed, and it is enough: a process of its own has neither."""
    iio.imwrite(tmp_path / "x.lac", noise(4, 4, 3), lossless=True, effort=1)
    for line, status in (("", 1), ("import laconic.pillow; laconic.pillow.register()", 0)):
        code = f"{line}\nimport imageio.v3 as iio; assert iio.imread('x.lac').shape == (4, 4, 3)"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == status, done.stderr
