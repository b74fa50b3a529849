"""The encoder looks at what it made: no photo is never worse and larger than lossless, and a photo stays what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import laconic
from laconic.media import fallback
from laconic.search import psnr_of
from laconic.tools.cli import main

PHOTO = Path(__file__).parent.parent.parent / "assets" / "sample.webp"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


def no_photo(kind: str) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3]: what the photo model fails on."""
    y, x = np.indices((96, 128))
    small = Image.open(PHOTO).convert("RGB").crop((300, 100, 428, 196))
    if kind == "line art":
        page = Image.new("1", (128, 96), 1)
        for i in range(12):
            ImageDraw.Draw(page).ellipse((i * 5, i * 3, 120 - i * 4, 94 - i * 2), outline=0)
        return np.asarray(page.convert("L"))
    made = {
        "checker": lambda: np.where((x + y) % 2, 255, 0),
        "faint checker": lambda: np.where((x + y) % 2, 118, 138),
        "dither": lambda: np.asarray(small.convert("1").convert("L")),
        "stripes": lambda: np.where(x % 3 == 0, 200, 30),
        "palette": lambda: np.asarray(small.quantize(6, dither=Image.Dither.NONE).convert("RGB")),
        "flat": lambda: np.full((96, 128, 3), 77),
        "shade": lambda: x * 2,
        "one pixel": lambda: np.full((1, 1), 5),
    }
    return made[kind]().astype(np.uint8)


KINDS = ("checker", "faint checker", "dither", "stripes", "palette", "flat", "shade", "one pixel", "line art")


@pytest.mark.parametrize("quality", [60, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_no_worse_and_no_larger_than_lossless(kind: str, quality: float) -> None:
    pixels, notes = no_photo(kind), list[str]()
    data = laconic.compress(pixels, quality=quality, notes=notes)
    exact = laconic.compress(pixels, lossless=True)
    alone = laconic.compress(pixels, quality=quality, fallback=False)
    back = laconic.decompress(data, as_array=True)
    if data == alone:
        assert notes == [] and len(data) < len(exact)
    else:
        assert data == exact and notes == [fallback.WHOLE] and np.array_equal(back.reshape(pixels.shape), pixels)
        assert laconic.info(data).medium == "lossless picture" and laconic.info(data).max_error == 0
    if kind in ("checker", "faint checker", "dither", "stripes", "line art", "one pixel"):
        assert data == exact and len(data) < len(alone)


def test_no_fallback_is_the_photo_model() -> None:
    notes: list[str] = []
    data = laconic.compress(no_photo("checker"), fallback=False, notes=notes)
    assert laconic.info(data).medium == "photo" and notes == []
    assert psnr_of(laconic.decompress(data, as_array=True)[..., 0], no_photo("checker")) < 20


@pytest.mark.parametrize("gray", [False, True])
def test_photos_keep_their_bytes(photo: np.ndarray, gray: bool) -> None:
    pixels = photo[..., 1] if gray else photo
    assert not fallback.synthetic(np.atleast_3d(pixels))
    for quality in (0, 60, 100):
        notes: list[str] = []
        data = laconic.compress(pixels, quality=quality, notes=notes)
        assert data == laconic.compress(pixels, quality=quality, fallback=False) and notes == []


def test_a_photo_that_is_looked_at_stays_one(photo: np.ndarray) -> None:
    """Even where the first look is wrong, the second one keeps the photo."""
    pixels = photo[:192, :256]
    data = laconic.compress(pixels, quality=60)
    made = laconic.decompress(data, as_array=True)
    choice = fallback.choose(pixels, made, len(data), 60)
    assert not choice.blocks.any() and choice.exact > 4 * choice.mixed


def test_noise_stays_with_the_photo_model() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert laconic.info(laconic.compress(noise, quality=60)).medium == "photo"


def test_batches_fall_back_as_single_pictures_do(photo: np.ndarray) -> None:
    pictures = [photo[:64, :64], no_photo("dither"), photo[64:160, :64]]
    notes: list[str] = []
    files = laconic.Codec().compress_batch(pictures, quality=60, notes=notes)
    assert files == [laconic.compress(pixels, quality=60, notes=[]) for pixels in pictures] and notes == [fallback.WHOLE]
    back = laconic.Codec().decompress_batch(files, as_array=True)
    assert np.array_equal(back[1][..., 0], pictures[1])
    assert files[0] == laconic.Codec().compress_batch(pictures[:1], quality=60, fallback=False)[0]


def test_other_targets() -> None:
    pixels, notes = no_photo("dither"), list[str]()
    exact = laconic.compress(pixels, lossless=True)
    for target in ({"size": len(exact)}, {"bpp": 4.0}, {"psnr": 30.0}):
        assert laconic.compress(pixels, **target, notes=notes) == exact
    assert notes == [fallback.WHOLE] * 3
    with pytest.raises(laconic.TargetOutOfReach):
        laconic.compress(pixels, psnr=30.0, fallback=False)
    with pytest.raises(laconic.TargetOutOfReach):
        laconic.compress(pixels, size=20)


def test_alpha_and_metadata_are_kept() -> None:
    image = Image.fromarray(no_photo("dither")).convert("LA")
    alpha = np.arange(96, dtype=np.uint8)[:, None] * np.ones((1, 128), np.uint8)
    image.putalpha(Image.fromarray(alpha))
    image.info["xmp"] = b"<x/>"
    data = laconic.compress(image, notes=[])
    assert laconic.info(data).medium == "lossless picture"
    back = laconic.decompress(data)
    assert back.info.get("xmp") == b"<x/>" and np.array_equal(np.asarray(back), np.asarray(image))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]), st.integers(0, 9))
def test_estimates_are_finite_and_of_the_blocks(height: int, width: int, channels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 3, (height, width, channels), np.uint8)
    shape = (-(-height // fallback.SIDE), -(-width // fallback.SIDE))
    for bits in (fallback.exact_bits(pixels), fallback.activity(pixels, 60), fallback.excess_bits(pixels, pixels, 60)):
        assert bits.shape == shape and np.isfinite(bits).all() and bits.min() >= 0


def test_an_error_within_what_photos_have_costs_nothing(photo: np.ndarray) -> None:
    pixels = photo[:64, :64]
    near = np.clip(pixels.astype(int) + 4, 0, 255).astype(np.uint8)
    far = np.clip(pixels.astype(int) + 40, 0, 255).astype(np.uint8)
    assert fallback.cost(100, pixels, near, None, 60) == 800 < fallback.cost(100, pixels, far, None, 60)
    everywhere = np.ones((4, 4), np.bool_)
    assert fallback.cost(100, pixels, far, everywhere, 60) == 800


def test_tables_are_monotonic() -> None:
    usual, worth = ([f(q) for q in range(0, 101, 5)] for f in (fallback.usual_error, fallback.worth))
    assert usual == sorted(usual, reverse=True) and worth == sorted(worth)


def test_the_command_line_says_it_and_can_be_told_not_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "checker.png"
    Image.fromarray(no_photo("checker")).save(picture)
    assert main(["compress", str(picture)]) == 0
    assert fallback.WHOLE in capsys.readouterr().err
    assert laconic.info(tmp_path / "checker.lac").medium == "lossless picture"
    assert main(["compress", str(picture), "--no-fallback", "-f"]) == 0
    assert "no photo" not in capsys.readouterr().err
    assert laconic.info(tmp_path / "checker.lac").medium == "photo"
