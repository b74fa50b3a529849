"""The encoder's search for better symbols: never worse than plain rounding, the same each time, and near what it promises."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

from laconic import registry
from laconic.media.photo_coder import PhotoCoder, to_tensor
from laconic.media.photo_fields import Fields
from laconic.media.tiles import Grid
from laconic.models import photo_search
from laconic.models.photo_search import TUNES, State, Tile, searched

QUALITY = 4_000
CODER = PhotoCoder(registry.load_photo(registry.find("photo")), threads=1)


def tile(height: int = 96, width: int = 128, quality: int = QUALITY) -> Tile:
    sample = np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    pixels = np.ascontiguousarray(sample[300 : 300 + height, 540 : 540 + width])
    fields = Fields(width, height, quality)
    with torch.no_grad():
        y, z = CODER._latents(pixels, fields)
        (window,) = Grid(fields).tiles()
        return Tile(to_tensor(pixels), y, CODER._mean(z, window, fields), CODER._rows(z, window, fields), y)


def cost(job: Tile, y: torch.Tensor, tune: str, quality: int = QUALITY) -> float:
    """What y of a tile costs once it is rounded."""
    return State(CODER.model, replace(job, y=y), quality, TUNES[tune]).rounded()[0]


@pytest.mark.parametrize("tune", TUNES)
def test_more_iterations_cost_less(tune: str) -> None:
    job = tile()
    costs = [cost(job, searched(CODER.model, job, QUALITY, tune, n), tune) for n in (0, 3, 12)]
    assert costs[2] < 0.985 * costs[0] and costs[1] < 0.985 * costs[0]


@pytest.mark.parametrize(("quality", "step"), [(0, 0.045), (QUALITY, 5.0), (10_000, 0.045)])
def test_it_is_never_worse_than_plain_rounding(quality: int, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photo_search.TUNES, "eye", replace(TUNES["eye"], step=step))  # 5 steps a time only ruin y
    job = tile(64, 64, quality)
    found = searched(CODER.model, job, quality, "eye", 2)
    assert cost(job, found, "eye", quality) <= cost(job, job.y, "eye", quality)


def test_it_gives_the_same_each_time() -> None:
    job = tile(64, 64)
    first, again = (searched(CODER.model, job, QUALITY, "eye", 8) for _ in range(2))
    assert torch.equal(first, again)


def test_what_is_found_rounds_to_itself() -> None:
    job = tile(64, 64)
    found = searched(CODER.model, job, QUALITY, "psnr", 3)
    _, again = State(CODER.model, replace(job, y=found), QUALITY, TUNES["psnr"]).rounded()
    assert torch.allclose(found, again, atol=1e-4)


def test_what_an_iteration_raises_ends_it() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(CODER.model, tile(64, 64), QUALITY, "psnr", 3, interrupt)


def test_soft_rounding_hardens() -> None:
    x = torch.linspace(-3, 3, 61)
    soft, hard = photo_search.soft_round(x, 10.0), photo_search.soft_round(x, 0.01)
    inner = (x - x.round()).abs() < 0.45
    assert torch.allclose(soft, x, atol=0.01) and torch.allclose(hard[inner], x.round()[inner], atol=1e-3)


def test_bits_are_those_of_the_tables() -> None:
    state, tables = State(CODER.model, tile(64, 64), QUALITY, TUNES["psnr"]), CODER.model.tables
    symbols, rows = np.arange(-300, 301), np.arange(601) % 64
    expected = tables.bits[rows, tables.entries(symbols, rows)]
    assert np.array_equal(state.bits(torch.from_numpy(rows), torch.from_numpy(symbols).float()).numpy(), expected)
