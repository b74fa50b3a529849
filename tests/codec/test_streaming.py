"""Streams of lossy sound: any cuts give the same, lengths come back, the delay is as stated, damage is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import laconic
from laconic import registry
from laconic.models.sound import Sound, SoundConfig

SMALL = SoundConfig(
    bands=6, coded_bins=20, channels=12, hidden_channels=24, blocks=2, kernel=5, look_ahead=1, prior_channels=16
)


@pytest.fixture(autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model, made once, under a name of its own."""
    folder = tmp_path_factory.getbasetemp() / "models"
    if not folder.exists():
        torch.manual_seed(1)
        network = Sound(SMALL)
        network.start(torch.from_numpy(np.stack([voice(20 * 256, i) for i in range(4)])))
        network.typical_rates.copy_(torch.linspace(1, 11, 11))
        registry.save(network, folder, "small", {})
    monkeypatch.setenv("LACONIC_MODELS", str(folder))


def voice(n: int, seed: int = 0) -> np.ndarray:
    """float32 [n]: a tone with harmonics that swells, and noise."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    tone = sum(np.sin(t * k / 20) / k for k in range(1, 9))
    return (tone * 0.05 * (1 + np.sin(t / 2000)) + rng.normal(0, 0.003, n)).astype(np.float32)


def cut(data: np.ndarray | bytes, sizes: list[int]) -> list[np.ndarray | bytes]:
    """The parts of data, of sizes that come round again."""
    parts, at, i = [], 0, 0
    while at < len(data):
        parts.append(data[at : at + sizes[i % len(sizes)]])
        at, i = at + sizes[i % len(sizes)], i + 1
    return parts


def sent(x: np.ndarray, sizes: list[int], rate: int = 16_000, **options: float) -> bytes:
    """The stream of a sound that is pushed in parts."""
    channels = 1 if x.ndim == 1 else x.shape[1]
    encoder = laconic.SoundEncoder(rate, channels=channels, model="small", **options)  # type: ignore[arg-type]
    return b"".join([encoder.push(part) for part in cut(x, sizes)] + [encoder.finish()])


def received(data: bytes, sizes: list[int]) -> np.ndarray:
    """The sound of a stream whose bytes come in parts."""
    decoder = laconic.SoundDecoder()
    parts = [decoder.push(bytes(part)) for part in cut(data, sizes)]
    decoder.finish()
    return np.concatenate([part for part in parts if len(part)] or parts[-1:])


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 6000), st.sampled_from([8000, 16_000, 44_100]), st.integers(1, 7), st.integers(1, 3), st.data()
)
def test_any_cuts_give_the_same(n: int, rate: int, frames: int, channels: int, data: st.DataObject) -> None:
    sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=4)
    x = np.stack([voice(n, k) for k in range(channels)], 1)
    whole = sent(x, [max(1, n)], rate, frames=frames, quality=70)
    assert sent(x, data.draw(sizes), rate, frames=frames, quality=70) == whole
    y = received(whole, [len(whole)])
    assert y.shape == x.shape if n else len(y) == 0
    assert np.array_equal(received(whole, data.draw(sizes)), y)


def test_a_stream_is_near_the_sound() -> None:
    x = voice(30_000)
    y = received(sent(x, [1000], quality=100), [777])[:, 0]
    assert np.mean((x - y) ** 2) < 0.3 * np.mean(x**2)


@pytest.mark.parametrize("rate, frames", [(16_000, 1), (48_000, 3)])
def test_the_delay_is_as_stated(rate: int, frames: int) -> None:
    encoder, decoder = laconic.SoundEncoder(rate, frames=frames, model="small"), laconic.SoundDecoder()
    x, sent_so_far, got, worst = voice(2 * rate), 0, 0, 0.0
    assert decoder.latency is None
    for part in cut(x, [16]):
        sent_so_far += len(part)
        got += len(decoder.push(encoder.push(part)))
        worst = max(worst, (sent_so_far - got) / rate)
    assert decoder.latency == encoder.latency
    assert encoder.latency - 0.002 < worst + 1 / rate <= encoder.latency + 0.002


def test_a_bitrate_is_one_of_typical_speech() -> None:
    assert laconic.SoundEncoder(16_000, 6.0, model="small").setup.quality == 5000
    assert laconic.SoundEncoder(16_000, 12.0, channels=2, model="small").setup.quality == 5000
    assert laconic.SoundEncoder(16_000, 500.0, model="small").setup.quality == 10_000


def test_int16_is_the_same_as_floats() -> None:
    x = (voice(5000) * 32768).astype(np.int16)
    assert sent(x, [5000]) == sent(x.astype(np.float32) / 32768, [5000])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_an_error_or_another_sound(data: st.DataObject) -> None:
    raw = bytearray(sent(voice(3000), [3000]))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        y = received(bytes(raw), [400])
    except (laconic.BadFile, laconic.ModelMissing):
        return
    assert y.shape[1] == 1


def test_a_cut_stream_has_no_end() -> None:
    raw = sent(voice(3000), [3000])
    for n in (0, 3, 20, len(raw) - 1):
        with pytest.raises(laconic.BadFile, match="end of the stream: found 'none'"):
            received(raw[:n], [400])
    with pytest.raises(laconic.BadFile, match="bytes after the end: found 3"):
        received(raw + b"abc", [len(raw) + 3])


@pytest.mark.parametrize(
    "options, field",
    [
        ({"bitrate": 6, "quality": 50}, "targets"),
        ({"channels": 0}, "channels"),
        ({"frames": 0}, "frames"),
        ({"quality": 101}, "quality"),
        ({"level": 99}, "level"),
    ],
)
def test_senseless_options_are_named(options: dict[str, int], field: str) -> None:
    with pytest.raises(laconic.BadInput, match=f"{field}: found"):
        laconic.SoundEncoder(16_000, model="small", **options)  # type: ignore[arg-type]


def test_senseless_samples_are_named() -> None:
    encoder = laconic.SoundEncoder(16_000, model="small")
    for samples in (np.zeros((3, 2)), np.zeros(3, np.int64), np.array([np.nan]), "abc"):
        with pytest.raises(laconic.BadInput, match="samples: found"):
            encoder.push(samples)
    encoder.finish()
    for call in (lambda: encoder.push(np.zeros(3)), encoder.finish):
        with pytest.raises(laconic.BadInput, match="finished"):
            call()


def test_a_foreign_stream_is_named(tmp_path: Path) -> None:
    with pytest.raises(laconic.BadFile, match="magic: found"):
        laconic.SoundDecoder().push(b"RIFF1234")
