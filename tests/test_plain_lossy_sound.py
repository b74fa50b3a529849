"""FORMAT.md is enough for lossy sounds: a second decoder, written from it alone, finds the integers that ours finds."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import laconic
from laconic import registry
from laconic.media import lossy_sound
from laconic.medium import Run
from laconic.models.sound import RATES_AT, Sound, SoundConfig

HERE = Path(__file__).parent
plain = SimpleNamespace(**runpy.run_path(str(HERE / "plain_lossy_sound.py")))
plain_sound = SimpleNamespace(**runpy.run_path(str(HERE / "plain_sound.py")))
plain_frames = SimpleNamespace(**runpy.run_path(str(HERE / "plain_frames.py")))
SMALL = SoundConfig(bands=6, coded_bins=20, channels=12, hidden_channels=24, blocks=2, kernel=5, look_ahead=1, prior_channels=16)


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tensors of a small model of random weights, found by the name of the default."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    model = Sound(SMALL)
    model.typical_rates.copy_(torch.linspace(1, 31, len(RATES_AT)))  # so that sounds have bands above 8 kHz
    registry.save(model, folder, registry.DEFAULT_SOUND)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LACONIC_MODELS", str(folder))
        yield plain_frames.weights(str(next(folder.glob("*.safetensors"))))


def pauses(seconds: float, rate: int, channels: int) -> np.ndarray:
    """int16 [T, C]: tones with noise, and a pause; the second channel stands still for long."""
    t = np.arange(round(seconds * rate))[:, None]
    x = 6000 * np.sin(t * np.arange(1, channels + 1) / rate * 900) + np.random.default_rng(1).normal(0, 300, (len(t), channels))
    x[len(t) // 3 : len(t) // 2] = 0
    return x.astype(np.int16)


@pytest.mark.parametrize("rate, channels, seconds", [(16000, 1, 1.0), (8000, 2, 4.5), (44100, 3, 0.3), (1000, 8, 0.002), (16000, 2, 0)])
@pytest.mark.parametrize("tags", [{}, {"title": "a"}])
def test_a_second_decoder_finds_the_same(
    rate: int, channels: int, seconds: float, tags: dict[str, str], weights: dict[str, np.ndarray]
) -> None:
    given = laconic.Sound(pauses(seconds, rate, channels), rate, 16, tags=tags)
    data = laconic.compress(given, quality=37.5, fallback=False, notes=[])
    fields, segments = plain.segments(data)
    decoder, _ = lossy_sound.opened(data, Run())
    ours = decoder.fields
    assert (fields["rate"], fields["channels"], fields["bits"], fields["floating"]) == (rate, channels, 16, False)
    assert (fields["quality"], fields["length"], fields["levels"]) == (3750, len(given.samples), list(ours.levels))
    assert fields["core"] == {44100: 48000}.get(rate, 16000)
    assert fields["seed"] == ours.seed and len(segments) == ours.n_segments
    for i, segment in enumerate(segments):
        parsed = decoder.parse(i)
        assert tuple(segment["silences"]) == parsed.silences
        for run, frames in zip(segment["runs"], parsed.frames, strict=True):
            assert (not run) == (frames is None)
            if frames is not None:
                run_of = (run, segment["frames"], fields["quality"], weights, {16000: 0, 24000: 2, 48000: 4}[fields["core"]])
                components, shape, levels = plain_frames.frames(*run_of)
                assert np.array_equal(components, frames.components) and np.array_equal(shape, frames.shape)
                assert np.array_equal(levels, frames.levels)


def test_a_second_decoder_reads_exact_segments(weights: dict[str, np.ndarray]) -> None:
    """Their edges as frames, their samples as a lossless segment or deflated."""
    n = 4 * 1000
    coarse = 512 * np.rint(np.random.default_rng(0).normal(size=n) / 3)
    loop = np.resize(np.random.default_rng(0).integers(-5000, 5000, 100), n)
    x = np.concatenate([pauses(4, 1000, 1)[:, 0], coarse, pauses(4, 1000, 1)[::-1, 0], loop, pauses(1, 1000, 1)[:, 0]]).astype(np.int16)
    x = np.stack([x, x // 2], 1)
    data = laconic.compress(x, sample_rate=1000, quality=40, notes=[])
    fields, segments = plain.segments(data)
    decoder, _ = lossy_sound.opened(data, Run())
    found = [i for i, segment in enumerate(segments) if "coded" in segment]
    assert {1, 3} <= set(found) < set(range(5)) and {segments[i]["deflated"] for i in found} == {0, 1}
    n_edges = 0
    for i in found:
        segment, parsed = segments[i], decoder.parse(i)
        if segment["deflated"]:
            samples = np.frombuffer(segment["coded"], "<i2").reshape(-1, 2)
        else:
            samples = np.array(plain_sound.integers(segment["coded"][4:], segment["samples"], 2, 16)).reshape(-1, 2)
        assert np.array_equal(samples, x[i * n : (i + 1) * n]) and np.array_equal(samples, parsed.exact)
        for runs, edge in ((segment["head"], parsed.head), (segment["tail"], parsed.tail)):
            assert len(runs) == len(edge)
            for run, frames in zip(runs, edge, strict=True):
                components, shape, _ = plain_frames.frames(run, 3, fields["quality"], weights, 0)
                assert np.array_equal(components, frames.components) and np.array_equal(shape, frames.shape)
                n_edges += 1
    assert n_edges > 0


def test_silent_segments_and_channels_have_no_runs() -> None:
    x = np.zeros((16000 * 9, 2), np.float32)
    x[-16100:, 1] = 0.1 * np.sin(np.arange(16100) / 9)
    x[:, 0] = x[:, 1]  # no side
    _, segments = plain.segments(laconic.compress(x, sample_rate=16000, quality=20, fallback=False, notes=[]))
    assert [[bool(run) for run in one["runs"]] for one in segments] == [[False, False], [False, True], [False, True]]
    assert segments[0]["silences"] == [(0, 64000)]


def test_the_plain_decoder_is_short_and_plain() -> None:
    source = (HERE / "plain_lossy_sound.py").read_text()
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in imported for alias in node.names}
    assert names <= sys.stdlib_module_names
    assert len(source.splitlines()) <= 120
