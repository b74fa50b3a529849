from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import laconic
from laconic.entropy import gaussian_tables
from laconic.models.photo import MASSES, Photo, learnt_tables
from laconic.tools import row_tables

WEIGHTS = Path(str(files("laconic.assets"))) / "weights"


def masses_of(counts: np.ndarray) -> list[np.ndarray]:
    tables = row_tables.learnt(counts)
    return [np.diff(cdf[: n + 1].astype(int)) for cdf, n in zip(tables.cdf, tables.sizes.tolist(), strict=True)]


def test_rows_without_counts_stay_gaussian_and_others_go_towards_what_was_seen() -> None:
    like = gaussian_tables()
    counts = np.zeros(like.bits.shape, np.int64)
    assert np.array_equal(row_tables.learnt(counts).cdf, like.cdf)
    counts[20, 0] = 1_000_000  # the first symbol of the row: its opposite is the last but the escape
    found = masses_of(counts)
    assert found[20][0] > 10_000 and np.abs(found[20][:-1] - found[20][-2::-1]).max() <= 1
    assert all(row.sum() == 1 << 15 and row.min() >= 1 for row in found)
    others = [np.array_equal(*rows) for rows in zip(found, masses_of(0 * counts), strict=True)]
    assert not others.pop(20) and all(others)


def test_rows_are_read_as_they_were_stored() -> None:
    counts = np.random.default_rng(1).integers(0, 9000, gaussian_tables().bits.shape)
    tables = row_tables.learnt(counts)
    again = learnt_tables(row_tables.flat(tables))
    assert np.array_equal(again.cdf, tables.cdf) and np.array_equal(again.offsets, tables.offsets)


@pytest.mark.parametrize(
    ("masses", "says"),
    [
        (torch.ones(9, dtype=torch.int16), r"found torch.int16 \[9\], expected int16 \[5644\]"),
        (torch.ones(5644), r"found torch.float32 \[5644\], expected int16"),
        (torch.ones(5644, dtype=torch.int16), "found a row 0 from 1, sum 6, expected from 1, sum 32768"),
    ],
)
def test_rows_that_are_none_are_refused(masses: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=f"{MASSES}: {says}"):
        learnt_tables(masses)


def test_a_row_with_an_impossible_symbol_is_refused() -> None:
    masses = row_tables.flat(gaussian_tables())
    masses[0], masses[2] = 0, masses[2] + masses[0]
    with pytest.raises(ValueError, match=f"{MASSES}: found a row 0 from 0, sum 32768"):
        learnt_tables(masses)


def test_the_command_stores_rows_that_code_and_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(photo[:256, 60 * i : 60 * i + 260]).save(tmp_path / "photos" / f"{i}.png")
    plain = {k: v for k, v in load_file(WEIGHTS / "photo-6.safetensors").items() if k != MASSES}
    save_file(plain, tmp_path / "own.safetensors")
    digest = hashlib.sha256((tmp_path / "own.safetensors").read_bytes()).hexdigest()
    described = json.loads((WEIGHTS / "photo-6.json").read_text()) | {"name": "own", "digest": digest}
    (tmp_path / "own.json").write_text(json.dumps(described))
    monkeypatch.setenv("LACONIC_MODELS", str(tmp_path))
    row_tables.main(["own", "--data", str(tmp_path / "photos"), "--crops", "2"])
    assert "symbols; of" in capsys.readouterr().out
    card = json.loads((tmp_path / "own.json").read_text())
    stored = load_file(tmp_path / "own.safetensors")
    assert stored.keys() - plain.keys() == {MASSES} and all(torch.equal(stored[k], v) for k, v in plain.items())
    own, gaussian = Photo.load(str(tmp_path / "own.safetensors"), card["architecture"]["config"]), gaussian_tables()
    assert not np.array_equal(own.tables.cdf, gaussian.cdf)
    data = laconic.compress(photo[:100, :150], quality=50, effort=1, model="own")
    assert laconic.info(data).model == "own" and laconic.verify(data) is None
    assert np.asarray(laconic.decompress(data)).shape == (100, 150, 3)
