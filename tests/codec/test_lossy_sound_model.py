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
from laconic.models.sound import RATES_AT, Sound, SoundConfig
from laconic.models.sound_coder import SoundCoder
from laconic.tools.golden import write_lossy_sounds

RATE = 16000


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of random weights, named as the default is."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    model = Sound(SoundConfig(channels=16, hidden_channels=32, prior_channels=16))
    model.typical_rates.copy_(torch.linspace(1, 21, len(RATES_AT)))
    registry.save(model, folder, registry.DEFAULT_SOUND)
    return folder


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    """int16 [T, 2]: five seconds."""
    t = np.arange(5 * RATE)[:, None] / RATE
    x = 0.1 * np.sin(2 * np.pi * np.array([220, 331]) * t) * (1 + np.sin(2 * t))
    return (32767 * (x + 0.002 * np.random.default_rng(0).normal(size=x.shape))).astype(np.int16)


@pytest.mark.parametrize("rate, core", [(RATE, 16000), (22050, 24000), (44100, 48000)])
def test_the_default_model_codes_sounds(
    installed: Path, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch, rate: int, core: int
) -> None:
    monkeypatch.setenv("LACONIC_MODELS", str(installed))
    tone = np.resize(tone, (5 * rate, 2))
    notes: list[str] = []
    data = laconic.compress(tone, sample_rate=rate, quality=60, fallback=False, notes=notes)
    about = laconic.info(data)
    assert (about.model, about.core_rate, notes) == ("sound-2", core, [])
    whole = laconic.decompress(data).samples.astype(int)
    assert whole.shape == tone.shape
    for first in (0, 4 * rate - 1000, 4 * rate - 7, len(tone) - 50):
        part = laconic.decompress(data, seek=first / rate, duration=0.1).samples
        assert np.abs(part - whole[first : first + len(part)]).max() <= 1

    def no_network(*_: object) -> None:
        raise AssertionError("a float network ran")

    monkeypatch.setattr(SoundCoder, "synthesise", no_network)
    laconic.verify(data)


def test_what_is_above_the_core_is_noted(installed: Path, tone: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACONIC_MODELS", str(installed))
    for quality, rate, kept in ((5, 48000, 8), (20, 48000, 12), (60, 96000, 24), (5, 22050, 8)):
        notes: list[str] = []
        laconic.compress(tone, sample_rate=rate, quality=quality, fallback=False, notes=notes)
        assert notes == [f"what is above {kept} kHz is not kept"]


def test_a_hiss_comes_back_as_loud(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise above 8 kHz alone, loud and then soft: what comes back has its power within 1.5 dB, at the same times."""
    monkeypatch.setenv("LACONIC_MODELS", str(installed))
    bins = np.random.default_rng(2).normal(size=48001) + 0j
    bins[: 8500 * 2] = bins[11500 * 2 :] = 0  # half a hertz each
    x = np.fft.irfft(bins * 20)
    x[48000:] *= 0.1
    laconic_bytes = laconic.compress(x.astype(np.float32), sample_rate=48000, quality=60, fallback=False, notes=[])
    bins = np.fft.rfft(laconic.decompress(laconic_bytes).samples[:, 0])
    bins[: 8500 * 2] = 0  # the untrained network's own
    y = np.fft.irfft(bins)
    for part in (slice(4000, 44000), slice(52000, 92000)):
        assert abs(10 * np.log10((y[part] ** 2).mean() / (x[part] ** 2).mean())) < 1.5


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
