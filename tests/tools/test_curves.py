"""BD-rates: against another library, against what is known exactly, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import bjontegaard
import pytest
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic.tools.curves import Curve, as_json, bd_rate, checked, read_curve, read_curves

ROOT = Path(__file__).parent.parent.parent
CURVES, PUBLISHED = ROOT / "tests/data/curves", ROOT / "assets/published"


def curve(name: str, points: list[tuple[float, float]]) -> Curve:
    return Curve(name, {"bpp": [r for r, _ in points], "psnr-rgb": [q for _, q in points]})


def stored(name: str) -> Curve:
    path = CURVES / f"kodak-{name}.json"
    return read_curve(path if path.exists() else PUBLISHED / path.name)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Rising in both, as those of codecs are."""
    steps = draw(st.lists(st.tuples(st.floats(0.05, 1.0), st.floats(0.5, 4.0)), min_size=4, max_size=10))
    rate, quality, points = math.log(0.1), 25.0, []
    for dr, dq in steps:
        rate, quality = rate + dr, quality + dq
        points.append((math.exp(rate), quality))
    return curve("drawn", points)


@given(curves(), st.floats(0.2, 5.0))
def test_a_curve_at_k_times_the_rate_is_k_times_the_rate(drawn: Curve, k: float) -> None:
    other = curve("k", [(k * r, q) for r, q in drawn.points("psnr-rgb")])
    found = bd_rate(drawn, other, "psnr-rgb")
    assert found.percent == pytest.approx(100 * (k - 1), abs=1e-6)
    assert found.overlap == pytest.approx(1)


@pytest.mark.parametrize(("anchor", "other"), [("jpeg", "vtm"), ("vtm", "jpeg"), ("vtm", "mbt2018-mean")])
@pytest.mark.parametrize("metric", ["psnr-rgb", "ms-ssim-rgb"])
def test_agrees_with_bjontegaard(anchor: str, other: str, metric: str) -> None:
    a, b = stored(anchor).points(metric), stored(other).points(metric)
    columns = [list(column) for points in (a, b) for column in zip(*points, strict=True)]
    theirs = bjontegaard.bd_rate(*columns, method="pchip", require_matching_points=False, min_overlap=0)
    assert bd_rate(stored(anchor), stored(other), metric).percent == pytest.approx(theirs, abs=0.1)


def test_known_rates_of_kodak_come_out() -> None:
    window = (27.0, 37.0)
    assert bd_rate(stored("jpeg"), stored("vtm"), "psnr-rgb").percent == pytest.approx(-64.3, abs=0.05)
    assert bd_rate(stored("jpeg"), stored("vtm"), "psnr-rgb", window).percent == pytest.approx(-65.6, abs=0.05)
    assert bd_rate(stored("vtm"), stored("mbt2018-mean"), "psnr-rgb").percent == pytest.approx(21.3, abs=0.05)


def test_little_overlap_is_refused() -> None:
    low = curve("low", [(0.1, 20), (0.2, 22), (0.4, 24), (0.8, 26)])
    high = curve("high", [(0.5, 24), (1.0, 26), (2.0, 28), (4.0, 30)])
    with pytest.raises(laconic.BadInput, match="overlap: found '33 %', expected at least 50 %"):
        bd_rate(low, high, "psnr-rgb")
    with pytest.raises(laconic.BadInput, match="part of the window: found '30 %'"):
        bd_rate(low, low, "psnr-rgb", (24.5, 29.5))
    with pytest.raises(laconic.BadInput, match="points with ssimulacra2: found 0"):
        bd_rate(low, low, "ssimulacra2")
    flat = curve("flat", [(0.1, 20), (0.2, 22), (0.4, 22), (0.8, 26)])
    with pytest.raises(laconic.BadInput, match="flat: distinct psnr-rgb: found 3, expected 4"):
        bd_rate(low, flat, "psnr-rgb")


def test_distances_count_downwards() -> None:
    better = Curve("better", {"bpp": [0.1, 0.2, 0.4, 0.8], "lpips": [0.4, 0.3, 0.2, 0.1]})
    worse = Curve("worse", {"bpp": [0.2, 0.4, 0.8, 1.6], "lpips": [0.4, 0.3, 0.2, 0.1]})
    assert bd_rate(better, worse, "lpips").percent == pytest.approx(100)


def test_json_comes_back(tmp_path: Path) -> None:
    before = Curve("a", {"bpp": [0.1, 0.2], "psnr-rgb": [30.0, 32.0]}, "text", meta={"files": 2})
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(as_json(before))
    assert read_curves(tmp_path) == [before, before]
    (tmp_path / "manifest.json").write_text('{"codecs": {"a": {"curve": "a.json"}}}')
    assert read_curves(tmp_path) == [before]
    assert read_curves(tmp_path / "a.json", published=True)[0].name == "a (published)"


def test_what_cannot_be_compared_is_refused() -> None:
    sets = [Curve(name, {"bpp": [1.0]}, meta={"dataset_sha256": name}) for name in "ab"]
    with pytest.raises(laconic.BadInput, match="found 'curves of 2 sets of files'"):
        checked(sets)
    with pytest.raises(laconic.BadInput, match="found 'two curves named a'"):
        checked([Curve("a", {"bpp": [1.0]})] * 2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({"results": {"psnr-rgb": [1]}}), '{"results": {"bpp": ["x"]}}']
)
def test_another_json_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(laconic.BadFile, match=r"a\.json: found .*, expected CompressAI's JSON"):
        read_curve(tmp_path / "a.json")
