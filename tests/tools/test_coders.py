"""The codecs that are compared: ours for sounds gives every sample back, AVIF is tuned as its name says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import features

import laconic
from laconic.tools import coder as items
from laconic.tools import coders
from laconic.tools.bench_lossless import bench_lossless, read
from laconic.tools.metrics import Item


def sound(bits: int, channels: int = 1) -> Item:
    most = 1 << bits - 1
    samples = np.random.default_rng(bits).integers(-most, most, (1000, channels)).astype(np.int32)
    samples[0], samples[1] = -most, most - 1
    samples[2] |= 1  # or it would fit in fewer bits
    return Item("sound", samples, 8000, bits)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_floats_stand_for_integers(bits: int) -> None:
    item = sound(bits, 2)
    floats = items.as_floats(item)
    assert floats.data.dtype == np.float32 and floats.bits == 0 and np.abs(floats.data).max() <= 1
    back = items.as_integers(floats)
    assert back.bits == bits and np.array_equal(back.data, item.data)


def test_floats_that_stand_for_no_integers_stay() -> None:
    for samples in ([[0.1]], [[1.0]], [[np.inf]], [[np.nan]], [[2.0**-30]]):
        item = Item("sound", np.array(samples, np.float32), 8000)
        assert items.as_integers(item) is item and items.as_floats(item) is item


@pytest.mark.parametrize("bits", [8, 16, 24, 0])
def test_our_lossless_codec_gives_every_sample_back(bits: int) -> None:
    item = items.as_floats(sound(bits, 2)) if bits else Item("sound", np.array([[0.1], [2.0]], np.float32), 8000)
    coder = coders.build("laconic-lossless", "sound")
    back = coder.decode(coder.encode(item, 1), item)
    assert back.sample_rate == 8000 and back.data.dtype == np.float32 and np.array_equal(back.data, item.data)


@pytest.mark.skipif(not features.check("avif"), reason="no AVIF in this Pillow")
def test_avif_is_tuned_as_its_name_says() -> None:
    y, x = np.mgrid[:128, :128]
    noise = np.random.default_rng(0).normal(0, 8, (128, 128, 3))
    item = Item("picture", (np.stack([x, y, x + y], -1) + noise).clip(0, 255).astype(np.uint8))
    tuned, plain = coders.build("avif-psnr"), coders.build("avif")
    assert "psnr" in tuned.version and "psnr" not in plain.version
    assert tuned.encode(item, 50) != plain.encode(item, 50)
    assert tuned.decode(tuned.encode(item, 50), item).data.shape == item.data.shape


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32), ("FLOAT", 0)])
def test_the_lossless_benchmark_finds_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtype: str, bits: int
) -> None:
    samples = np.cumsum(np.random.default_rng(0).normal(0, 0.002, (500, 2)), 0)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype)
    assert read(tmp_path / "a.wav", "sound").bits == bits
    args = SimpleNamespace(folder=tmp_path, threads=1, efforts=[1], max_errors=[], alone=True)
    [row] = bench_lossless(args)  # type: ignore[arg-type]
    assert row["codec"] == "laconic -e 1" and row["max_error"] == 0 and row["bytes"] > 0
    assert "1 sounds of" in capsys.readouterr().out


def test_our_tunes_and_efforts_have_names() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    found = {name: coders.build(name) for name in ("laconic-e1", "laconic-psnr-e2", "laconic-ms-ssim-e2")}
    assert [coder.name for coder in found.values()] == list(found)
    files = [coder.encode(Item("picture", noise), 30) for coder in found.values()]
    assert len(set(files)) == 3 and files[0] == laconic.compress(noise, quality=30, effort=1, fallback=False)
    for name in ("laconic-e0", "laconic-ear", "laconic-psnr:photo-3"):
        with pytest.raises(laconic.BadInput, match="expected one of"):
            coders.build(name)
