"""Codecs of sounds that ours is compared with: rates, lengths, delays, and the bytes inside Ogg."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic import registry
from laconic.models.sound import Sound, SoundConfig
from laconic.tools import coders, sound_coders
from laconic.tools.bench_sound import bench_sound
from laconic.tools.metrics import Absent, Item


def syllables(rate: int, channels: int = 1, seconds: float = 1.3) -> Item:
    """Make a voice-like sound: a pulse train through a few resonances, in bursts, so that delays show."""
    pytest.importorskip("scipy")
    from scipy.signal import lfilter

    t = np.arange(int(seconds * rate)) / rate
    phase = np.cumsum(110 + 40 * np.sin(2 * np.pi * t)) / rate
    x = np.diff(np.floor(phase), prepend=0.0) + np.random.default_rng(0).normal(0, 0.01, len(t))
    for hz in (500, 1500, 2500):
        pole = 0.97 * np.exp(2j * np.pi * hz / rate)
        x = lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], x)
    x = x * (np.sin(2 * np.pi * 2.7 * t) > -0.3)
    sides = np.stack([x, np.roll(x, 3) * 0.8], 1)[:, :channels]
    return Item("sound", (0.3 * sides / np.abs(sides).max()).astype(np.float32), rate)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model of random weights, named as the default is."""
    torch.manual_seed(0)
    model = Sound(SoundConfig(channels=16, hidden_channels=32, prior_channels=16))
    registry.save(model, tmp_path / "models", registry.DEFAULT_SOUND)
    monkeypatch.setenv("LACONIC_MODELS", str(tmp_path / "models"))


@pytest.mark.usefixtures("installed")
def test_ours_keeps_a_rate_or_comes_nearest() -> None:
    item, coder = syllables(22050, 2, seconds=3), coders.build("laconic", "sound")
    assert "sound-2" in coder.version and (coder.name, coder.medium) == ("laconic", "sound")
    least, most = (len(coder.encode(item, rate)) for rate in (1e-3, 1e6))
    assert least < most
    middle = 8 * (least + most) / 2 / item.amount / 1000
    data = coder.encode(item, middle)
    assert 8 * len(data) / item.amount / 1000 == pytest.approx(middle, rel=0.1)
    back = coder.decode(data, item)
    assert back.data.shape == item.data.shape and back.data.dtype == np.float32 and back.sample_rate == 22050


def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_coders, "find_spec", lambda name: None)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("name", "setting"), [("opus", 32), ("mp3", 16), ("mp3", 32), ("mp3", 64), ("vorbis", 4), ("flac", 5)])
def test_a_sound_comes_back_in_its_place(name: str, setting: float, channels: int, rate: int) -> None:
    from scipy.signal import correlate

    item, coder = syllables(rate, channels), coders.build(name, "sound")
    data = coder.encode(item, setting)
    back = coder.decode(data, item)
    assert back.sample_rate == rate and back.data.dtype == np.float32 and back.data.shape == item.data.shape
    for x, y in zip(item.data.T, back.data.T, strict=True):
        likeness = correlate(y, x, method="fft") / np.linalg.norm(x) / np.linalg.norm(y)
        assert abs(int(likeness.argmax()) - len(x) + 1) <= rate / 8000 and likeness.max() > 0.5
    if name == "mp3":  # constant rate; a frame more
        assert 0.9 < 8 * len(data) / item.amount / 1000 / setting < 1.35


@pytest.mark.parametrize("with_av", [True, False])
def test_opus_keeps_its_rate(with_av: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if with_av:
        pytest.importorskip("av")
    else:
        without_av(monkeypatch)
    item, coder = syllables(16000, seconds=4), coders.build("opus", "sound")
    assert coder.version.startswith("libopus 1.") and ("PyAV has" in coder.version) != with_av and coder.payload
    for rate in (6, 12, 32):
        data = coder.encode(item, rate)
        assert coder.payload(data) < len(data)
        assert 0.5 < 8 * coder.payload(data) / item.amount / 1000 / rate < 1.15  # it is variable
    for wrong in (5.9, 257):
        with pytest.raises(laconic.BadInput, match=r"rate of Opus: found .*, expected 6 to 256 kbit/s"):
            coder.encode(item, wrong)
    wide = Item("sound", np.zeros((100, 3), np.float32), 16000)
    with pytest.raises(laconic.BadInput, match="channels for Opus: found 3, expected 1 or 2"):
        coder.encode(wide, 32)


def test_lame_takes_the_rate_that_it_likes() -> None:
    for kbit, mono, stereo in ((8, 8000, 8000), (16, 16000, 8000), (32, 22050, 16000), (64, 44100, 24000), (128, 44100, 44100)):
        for channels, expected in ((1, mono), (2, stereo)):
            for rate in (8000, 16000, 44100, 192000):
                item = Item("sound", np.zeros((10, channels), np.float32), rate)
                assert sound_coders.lame_rate(item, kbit) == min(expected if rate < 48000 or expected < 44100 else 48000, rate)


def test_flac_keeps_the_bits() -> None:
    for bits in (8, 16, 24):
        samples = np.random.default_rng(0).integers(-(1 << bits - 1), 1 << bits - 1, (500, 1)) | 1
        item = Item("sound", (samples / (1 << bits - 1)).astype(np.float32), 8000)
        coder = coders.build("flac", "sound")
        assert np.array_equal(coder.decode(coder.encode(item, 5), item).data, item.data)


def test_a_libsndfile_without_a_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soundfile.available_subtypes", lambda format: {})
    for name in ("opus", "mp3", "vorbis", "flac"):
        with pytest.raises(Absent, match=f"{name}: found libsndfile .* without it"):
            coders.build(name, "sound")


def page(sizes: list[int], continued: bool) -> bytes:
    """Make an Ogg page whose lacing values are given (RFC 3533)."""
    head = b"OggS" + bytes([0, continued]) + bytes(20) + bytes([len(sizes)])
    return head + bytes(sizes) + bytes(sum(sizes))


@given(st.lists(st.integers(0, 1500), min_size=1, max_size=30), st.integers(1, 255), st.data())
def test_packets_are_counted_over_pages(sizes: list[int], per_page: int, data: st.DataObject) -> None:
    lacing = [value for size in sizes for value in (*[255] * (size // 255), size % 255)]
    pages = [page(lacing[i : i + per_page], i > 0) for i in range(0, len(lacing), per_page)]
    file = b"".join(pages)
    assert sound_coders.ogg_packets(file) == sizes
    ends = set(np.cumsum([len(p) for p in pages]).tolist())
    cut = data.draw(st.integers(1, len(file) - 1))
    if cut not in ends:
        with pytest.raises(laconic.BadFile, match="Ogg .*: found .*, expected"):
            sound_coders.ogg_packets(file[:cut])


@pytest.mark.usefixtures("installed")
def test_the_benchmark_times_each_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    item = syllables(16000)
    soundfile.write(tmp_path / "a.wav", item.data, item.sample_rate)
    args: Any = SimpleNamespace(folder=tmp_path, files=1, rounds=1, only=["laconic", "opus", "flac"])
    rows = bench_sound(args)
    ours, cases = rows[:3], rows[3:]
    assert [(case["codec"], case["rate"]) for case in ours] == [("laconic", 3), ("laconic", 6), ("laconic", 12)]
    assert [(case["codec"], case["rate"]) for case in cases] == [("opus", 9), ("opus", 12), ("opus", 24), ("flac", 8)]
    assert all(case["encode_x"] > 0 and case["decode_x"] > 0 and case["bytes"] > 0 for case in [*ours, *cases])
    assert cases[0]["payload_kbit_per_s"] < cases[0]["kbit_per_s"] and cases[3]["payload_kbit_per_s"] == cases[3]["kbit_per_s"]
    assert "1 sounds of" in capsys.readouterr().out
