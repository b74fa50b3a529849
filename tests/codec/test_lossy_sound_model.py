"""Lossy sounds by the network itself, as it is before training: found by name, the same in parts, verified without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import laconic
from laconic import registry
from laconic.golden import check
from laconic.models.sound import Sound, SoundConfig
from laconic.models.sound_coder import SoundCoder
from laconic.tools.golden import write_lossy_sounds

RATE = 16000


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of random weights, named as the default is."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    model = Sound(SoundConfig(channels=16, hidden_channels=32, prior_channels=16))
    registry.save(model, folder, registry.DEFAULT_SOUND)
    return folder


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    """int16 [T, 2]: five seconds."""
    t = np.arange(5 * RATE)[:, None] / RATE
    x = 0.1 * np.sin(2 * np.pi * np.array([220, 331]) * t) * (1 + np.sin(2 * t))
    return (32767 * (x + 0.002 * np.random.default_rng(0).normal(size=x.shape))).astype(np.int16)


def test_the_default_model_codes_sounds(installed: Path, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACONIC_MODELS", str(installed))
    data = laconic.compress(tone, sample_rate=RATE, quality=60, fallback=False, notes=[])
    assert laconic.info(data).model == "sound-1"
    whole = laconic.decompress(data).samples.astype(int)
    assert whole.shape == tone.shape
    for first in (0, 63000, 64000 - 7, len(tone) - 50):
        part = laconic.decompress(data, seek=first / RATE, duration=0.1).samples
        assert np.abs(part - whole[first : first + len(part)]).max() <= 1

    def no_network(*_: object) -> None:
        raise AssertionError("a float network ran")

    monkeypatch.setattr(SoundCoder, "synthesise", no_network)
    laconic.verify(data)


def test_a_model_that_is_missing_is_named(tone: np.ndarray) -> None:
    with pytest.raises(laconic.ModelMissing, match="found no 'sound-0'"):
        laconic.compress(tone, sample_rate=RATE, quality=60, model="sound-0")


def test_golden_files_of_sounds_see_changes(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACONIC_MODELS", str(installed))
    write_lossy_sounds(tmp_path)
    paths = sorted(tmp_path.glob("*.lac"))
    checks = [check(path) for path in paths]
    assert len(checks) >= 3 and all(one.ok for one in checks), checks
    first, second = paths[:2]
    first.with_suffix(".json").write_text(second.with_suffix(".json").read_text())
    assert "integers differ" in check(first).detail and not check(first).ok
    louder = laconic.decompress(second)
    louder = replace(louder, samples=louder.samples + 20)
    second.with_suffix(".exact").write_bytes(laconic.compress(louder, lossless=True, notes=[]))
    assert "bits equal" in check(second).detail and not check(second).ok
