"""FORMAT.md is enough for lossless pictures: a second decoder, written from it alone, finds the samples that went in."""

from __future__ import annotations

import ast
import runpy
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import laconic
from laconic import container
from laconic.media.lossless_picture import KINDS

PLAIN_PICTURE = Path(__file__).with_name("plain_picture.py")
plain = SimpleNamespace(**runpy.run_path(str(PLAIN_PICTURE)))
GOLDEN = Path(str(files("laconic.assets") / "golden"))


def scene(kind: str, channels: int, dtype: type) -> np.ndarray:
    """[10, 13, channels] of a depth: a smooth picture with noise, text on white, three levels, one plane like another, noise."""
    rng, top = np.random.default_rng(channels), np.iinfo(dtype).max
    y, x, c = np.indices((10, 13, channels))
    if kind == "photo":
        samples = (np.sin(x / 5 + c) + np.cos(y / 4)) * top / 5 + top / 2 + rng.normal(0, top / 60, y.shape)
    elif kind == "text":
        samples = np.where(rng.integers(0, 2, (5, 4))[y % 5, x % 4] * (y % 7 > 1), top // (9 + c), top)
        samples[7:, 9:] = rng.integers(0, top, (3, 4, channels))
    elif kind == "few":
        samples = rng.integers(0, 3, y.shape) * (top // 4)
    elif kind == "same":
        samples = np.repeat(rng.integers(0, top // 3, (10, 13, 1)), channels, 2)
    else:
        samples = rng.integers(0, top + 1, y.shape)
    return samples.astype(dtype)


def level_of(data: bytes) -> int:
    """The first byte of the first tile: tiles are what the file ends in."""
    return container.read(data, KINDS)[1][0].payload[4]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["photo", "text", "few", "same", "noise"])
def test_every_kind(kind: str, channels: int, dtype: type) -> None:
    samples = scene(kind, channels, dtype)
    data = laconic.compress(samples, lossless=True, effort=1)
    assert np.array_equal(plain.decode(data), samples)
    assert kind != "noise" or level_of(data) == 16
    assert kind != "text" or level_of(data) in (68, 16)


@pytest.mark.parametrize("max_error", [0, 1, 6])
@pytest.mark.parametrize("effort", [1, 4, 7, 9])
@pytest.mark.parametrize("kind", ["photo", "text"])
def test_every_level_with_and_without_error(kind: str, effort: int, max_error: int) -> None:
    data = laconic.compress(scene(kind, 3, np.uint8), max_error=max_error, effort=effort)
    assert np.array_equal(plain.decode(data), laconic.decompress(data, as_array=True))
    assert level_of(data) % 8 == effort // 3 + 4 * (kind == "text")


def test_a_spread_of_nothing_has_a_logarithm() -> None:
    """The spread of errors in steps of 53 is below 1/1024, which counts as 1/1024."""
    data = laconic.compress(scene("noise", 1, np.uint8), max_error=26, effort=1)
    assert level_of(data) == 64
    assert np.array_equal(plain.decode(data), laconic.decompress(data, as_array=True))


@pytest.mark.parametrize("name", ["exact-screen", "exact-stored"])
def test_golden_files(name: str) -> None:
    data = (GOLDEN / f"{name}.lac").read_bytes()
    assert np.array_equal(plain.decode(data), laconic.decompress(data, as_array=True))


@pytest.mark.parametrize(
    ("shape", "large", "cuts"),
    [
        ((400, 330), False, ([200], [])),
        ((150, 900), False, ([], [450])),
        ((1030, 1030), False, ([515], [515])),
        ((40, 3000), False, ([], [1000, 2000])),
        ((40, 3000), True, ([], [1500])),
        ((400, 330), True, ([], [])),
    ],
)
def test_tiles_lie_where_they_should(
    shape: tuple[int, int], large: bool, cuts: tuple[list[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tile has a value of its own, so that none has decisions."""
    monkeypatch.setattr("laconic.models.repeats.repetitive", lambda samples: large)
    y, x = (np.searchsorted(cut, np.arange(n), "right") for cut, n in zip(cuts, shape, strict=True))
    samples = (y[:, None] * 5 + x).astype(np.uint8)
    data = laconic.compress(samples, lossless=True, effort=1)
    assert len(laconic.info(data).chunks) == (len(cuts[0]) + 1) * (len(cuts[1]) + 1)
    assert np.array_equal(plain.decode(data)[..., 0], samples)


def test_the_plain_decoder_is_plain() -> None:
    source = PLAIN_PICTURE.read_text()
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in imported for alias in node.names}
    assert names <= {*sys.stdlib_module_names, "numpy"}
