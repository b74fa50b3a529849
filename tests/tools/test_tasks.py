"""The shipped task, and how tasks and labels are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import laconic
from laconic.tools import tasks
from laconic.tools.metrics import Absent, Item

SHEET = Path(__file__).parent.parent / "data" / "groceries"
SPOKEN = Path(__file__).parent.parent / "data" / "digits"


def test_the_shipped_task_knows_groceries() -> None:
    labels = tasks.read_labels(SHEET / "labels.csv", ["sheet.webp"])
    pixels = np.asarray(Image.open(SHEET / "sheet.webp").convert("RGB"))
    whole = {"sheet.webp": Item("picture", pixels)}
    noise = {"sheet.webp": Item("picture", np.random.default_rng(1).integers(0, 256, pixels.shape, np.uint8))}
    assert tasks.groceries(*tasks.cut(whole, labels)) >= 0.6  # chance is 0.1
    assert tasks.groceries(*tasks.cut(noise, labels)) <= 0.3


def test_the_shipped_task_hears_digits() -> None:
    labels = tasks.read_labels(SPOKEN / "labels.csv", ["digits.flac"])
    samples, rate = soundfile.read(SPOKEN / "digits.flac", dtype="float32", always_2d=True)
    noise = np.random.default_rng(1).normal(0, 0.1, samples.shape).astype(np.float32)
    whole, none = ({"digits.flac": Item("sound", x, rate)} for x in (samples, noise))
    assert tasks.digits(*tasks.cut(whole, labels)) >= 0.9  # chance is 0.1
    assert tasks.digits(*tasks.cut(none, labels)) <= 0.3
    odd = [np.zeros((n, 1), np.float32) for n in (1, 100, 20000)]
    assert 0 <= tasks.digits(odd, ["0", "1", "2"]) <= 1


def test_sounds_are_cut_by_samples(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("label,start,length\n7,10,5\n3,15,2\n")
    labels = tasks.read_labels(tmp_path / "labels.csv", ["a.flac"])
    parts, names = tasks.cut({"a.flac": Item("sound", np.arange(40.0).reshape(20, 2), 8000)}, labels)
    assert names == ["7", "3"] and parts[0][:, 0].tolist() == [20, 22, 24, 26, 28] and len(parts[1]) == 2


def test_wrong_tasks_and_labels_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (("math", "expected MODULE:FUNCTION"), ("math:nosuch", "has no attribute 'nosuch'")):
        with pytest.raises(laconic.BadInput, match=message):
            tasks.load(name)
    with pytest.raises(laconic.BadInput, match="expected a CSV with columns file,label"):
        tasks.read_labels(tmp_path / "none.csv", ["a.png"])
    (tmp_path / "labels.csv").write_text("file,label\nb.png,x\n")
    with pytest.raises(laconic.BadInput, match=r"found file 'b\.png', expected one of the folder's"):
        tasks.read_labels(tmp_path / "labels.csv", ["a.png"])
    monkeypatch.delenv("LACONIC_MODELS", raising=False)
    with pytest.raises(Absent, match=r"train_task words --data DIR"):
        tasks.accuracy("words", [np.zeros((8000, 1), np.float32)], ["1"])
