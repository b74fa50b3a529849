"""FORMAT.md is enough for sounds: a second decoder, written from it alone, finds the samples that went in."""

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
from laconic import sound
from laconic.media import lossless_sound

PLAIN_SOUND = Path(__file__).with_name("plain_sound.py")
plain = SimpleNamespace(**runpy.run_path(str(PLAIN_SOUND)))
GOLDEN = Path(str(files("laconic.assets") / "golden"))
FORMATS = Path(__file__).parent / "data" / "sounds"


def music(n: int, channels: int, bits: int) -> np.ndarray:
    """int32 [n, channels], related channels, the low bits of the first one 0."""
    rng = np.random.default_rng(n)
    common = np.cumsum(rng.standard_normal((n, 1)), 0) + 0.3 * rng.standard_normal((n, channels))
    samples = (common * 2.0 ** (bits - 7)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int32)
    samples[:, 0] &= ~3
    return samples


@pytest.mark.parametrize("effort", range(1, 10))
@pytest.mark.parametrize("n, channels, bits", [(270, 2, 16), (70, 1, 24)])
def test_every_effort(effort: int, n: int, channels: int, bits: int) -> None:
    samples = music(n, channels, bits)
    held = laconic.Sound(sound.to_array(samples, bits), 8000, bits)
    rate, found, wav = plain.decode(laconic.compress(held, lossless=True, effort=effort, notes=[]))
    assert rate == 8000 and np.array_equal(found, samples) and wav is None


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("kind", ["music", "noise", "nothing"])
def test_every_width(bits: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several segments, too; noise is stored."""
    monkeypatch.setattr(lossless_sound, "LEAST_SEGMENT", 1)
    samples = {
        "music": music(90, 8, bits),
        "noise": np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (45, 3)).astype(np.int32),
        "nothing": np.zeros((0, 2), np.int32),
    }[kind]
    held = laconic.Sound(sound.to_array(samples, bits), 4, bits)
    assert np.array_equal(plain.decode(laconic.compress(held, lossless=True, effort=1, notes=[]))[1], samples)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["factor", "cut", "stored"])
def test_float_samples(dtype: type, kind: str) -> None:
    rng = np.random.default_rng(0)
    samples = music(200, 2, 16) * [2.0**-15, 0.7 / 32767] + {"factor": 0, "cut": 1e-5, "stored": 1}[
        kind
    ] * rng.standard_normal((200, 2))
    samples = (samples if kind != "stored" else rng.standard_normal((40, 2)) ** 31).astype(dtype)
    samples[:3, 1] = [np.nan, -0.0, 1e-40]
    data = laconic.compress(samples, sample_rate=8000, lossless=True, effort=2, notes=[])
    _, found, _ = plain.decode(data)
    assert found.dtype == dtype and found.tobytes() == samples.tobytes()


@pytest.mark.parametrize("name", ["sound-24", "sound-float"])
def test_golden_files(name: str) -> None:
    data = (GOLDEN / f"{name}.lac").read_bytes()
    found, ours = plain.decode(data)[1], laconic.decompress(data)
    assert np.array_equal(found if found.dtype.kind == "f" else sound.to_array(found, ours.bits), ours.samples)


@pytest.mark.parametrize("name", ["one_sample_stereo24.wav", "zero_samples.wav"])
def test_wav_files_come_back(name: str) -> None:
    raw = (FORMATS / name).read_bytes()
    assert plain.decode(laconic.compress(FORMATS / name, lossless=True, effort=1, notes=[]))[2] == raw


def test_the_plain_decoder_is_plain() -> None:
    source = PLAIN_SOUND.read_text()
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in imported for alias in node.names}
    assert names <= {*sys.stdlib_module_names, "numpy"}
    assert len(source.splitlines()) <= 320
