"""The table of screens and drawings: its pictures are what they are called, and a row says what became of one."""

from __future__ import annotations

import numpy as np
import pytest

from laconic.tools import bench_screens


def test_every_picture_is_made_and_the_same_again() -> None:
    made = bench_screens.pictures()
    assert len(made) >= 20
    for name, pixels in bench_screens.pictures().items():
        assert pixels.dtype == np.uint8 and pixels.ndim in (2, 3) and np.array_equal(pixels, made[name])


def test_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_screens.main(["--only", "checker", "--peers", "WebP", "--qualities", "60"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    name, quality, alone, ours, way, peer = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, quality, way) == ("checker", "60", "lossless")
    assert "dB" in alone and ours.endswith("B, exact") and " B, " in peer
