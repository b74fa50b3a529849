"""Effort and tune of photos: effort 1 is the plain pass, more of it is better, and targets are kept with it."""

from __future__ import annotations

import warnings
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic import registry
from laconic.media import photo_coder, photo_effort
from laconic.media.photo_coder import PhotoCoder
from laconic.media.photo_effort import BETTER, ITERATIONS, Effort
from laconic.media.photo_fields import Fields
from laconic.models.photo_search import TUNES as SEARCHES
from laconic.options import TUNES
from laconic.search import psnr_of


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    sample = np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    return np.ascontiguousarray(sample[300:400, 540:670])


def compress(pixels: np.ndarray, **options: Any) -> bytes:
    return laconic.compress(pixels, threads=1, **options)


def test_effort_1_is_the_plain_pass(pixels: np.ndarray) -> None:
    for tune in (None, *TUNES):
        data = compress(pixels, quality=45, effort=1, tune=tune)
        fields = Fields(130, 100, 4_500)
        payloads = PhotoCoder(registry.load_photo(registry.find("photo")), threads=1).encode(pixels, fields)
        assert data.endswith(b"".join(payloads)) and laconic.info(data).quality == 45  # type: ignore[attr-defined]


@pytest.mark.parametrize("tune", TUNES)
def test_effort_is_spent_and_the_same_each_time(pixels: np.ndarray, tune: str) -> None:
    plain, *found = (compress(pixels, quality=45, tune=tune, effort=effort) for effort in (1, 3, 3, 6))
    assert found[0] == found[1] != plain and found[2] != found[0]
    laconic.verify(found[0])
    assert psnr_of(laconic.decompress(found[2], as_array=True), pixels) > 25


def test_pixels_that_cannot_be_written_are_no_warning(pixels: np.ndarray) -> None:
    fixed = pixels[:64, :64].copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        laconic.compress(fixed, quality=45, effort=2)


def test_the_default_is_an_effort_for_the_eye(pixels: np.ndarray) -> None:
    how = {"effort": photo_effort.DEFAULT_PHOTO_EFFORT, "tune": "eye"}
    assert compress(pixels, quality=45) == compress(pixels, quality=45, **how)
    assert laconic.Codec(threads=1).compress_batch([pixels], quality=45) == [compress(pixels, quality=45)]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 70, 3), (65, 3, 1), (50, 67, 4), (64, 64, 2)])
def test_any_shape_can_be_searched(pixels: np.ndarray, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    alpha = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
    colours = pixels[:height, :width, : 3 if channels >= 3 else 1]
    picture = np.concatenate([colours, alpha], 2) if channels in (2, 4) else colours
    data = compress(picture, quality=45, fallback=False, effort=3)
    found = laconic.decompress(data, as_array=True)
    assert found.shape == picture.shape
    assert psnr_of(found[..., : colours.shape[2]], colours) > 22
    if channels in (2, 4):
        assert np.array_equal(found[..., -1:], alpha)


def test_tiles_are_searched_with_what_lies_around_them(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = PhotoCoder(registry.load_photo(registry.find("photo")), threads=1)
    one, four = Fields(130, 100, 4_500), Fields(130, 100, 4_500, tile=64)
    seen: list[tuple[int, ...]] = []
    search = photo_coder.photo_search.searched

    def noted(model: Any, tile: Any, *rest: Any) -> Any:
        seen.append((*tile.y.shape[2:], *tile.around.shape[2:], tile.top, tile.left, *tile.picture.shape[2:], *tile.from_pixel))
        return search(model, tile, *rest)

    monkeypatch.setattr(photo_coder.photo_search, "searched", noted)
    files_of = [coder.encode(pixels, fields, Effort("psnr", 3)) for fields in (one, four)]
    assert seen[0] == (8, 12, 8, 12, 0, 0, 100, 130, 0, 0) and len(seen) == 1 + 6
    assert seen[1] == (4, 4, 8, 11, 0, 0, 96, 96, 0, 0)  # the first tile, and what its pixels depend on below and right
    assert seen[6] == (4, 4, 8, 11, 4, 7, 68, 34, 32, 80)  # the last one, whose pixels end with the picture
    for payloads, fields in zip(files_of, (one, four), strict=True):
        decoded = coder.decode(coder.parse(list(payloads), fields), fields)
        plain = coder.decode(coder.parse(list(coder.encode(pixels, fields)), fields), fields)
        assert psnr_of(decoded, pixels) > psnr_of(plain, pixels) - 0.15
    sizes = [sum(map(len, payloads)) for payloads in files_of]
    assert sizes[1] < 1.15 * sizes[0]


def test_progress_counts_samples_to_the_end(pixels: np.ndarray) -> None:
    import io

    told: list[tuple[int, int]] = []
    codec = laconic.Codec(threads=1)
    codec.compress_to(io.BytesIO(), pixels, quality=45, effort=4, progress=lambda done, all: told.append((done, all)))
    assert [done for done, _ in told] == [pixels.size // 3, pixels.size * 2 // 3, pixels.size]
    assert {all for _, all in told} == {pixels.size}


@pytest.mark.parametrize("target", [{"size": 2000}, {"bpp": 0.8}, {"psnr": 31.0}, {"ssimulacra2": 25.0}])
def test_targets_are_kept_with_effort(pixels: np.ndarray, target: dict[str, float]) -> None:
    if "ssimulacra2" in target:
        pytest.importorskip("ssimulacra2")
    from laconic.search import ssimulacra2_of

    ((name, value),) = target.items()
    data = compress(pixels, effort=3, **target)
    decoded = laconic.decompress(data, as_array=True)
    reached = {
        "size": lambda: len(data),
        "bpp": lambda: 8 * len(data) / pixels[..., 0].size,
        "psnr": lambda: psnr_of(decoded, pixels),
        "ssimulacra2": lambda: ssimulacra2_of(pixels, decoded),
    }[name]()
    windows = {"size": (0.97, 1.0), "bpp": (0.98, 1.02)}
    low, high = (share * value for share in windows[name]) if name in windows else (value, value + 0.5)
    assert low <= reached <= high
    assert data != compress(pixels, effort=1, **target)


def test_effort_reaches_sizes_that_the_plain_pass_does_not(pixels: np.ndarray) -> None:
    least = len(compress(pixels, quality=0, effort=1))
    with pytest.raises(laconic.TargetOutOfReach):
        compress(pixels, size=least - 1, effort=1)
    assert len(compress(pixels, size=least - 1, effort=3, tune="psnr")) < least
    with pytest.raises(laconic.TargetOutOfReach, match="found 20 bytes, expected .* for this picture"):
        compress(pixels, size=20, effort=2)


def test_qualities_rise_and_keep_their_range() -> None:
    assert set(BETTER) == set(ITERATIONS) == set(TUNES) == set(SEARCHES)
    for tune in TUNES:
        for iterations in ITERATIONS[tune]:
            coded = [Effort(tune, iterations).quality(asked) for asked in range(0, 10_001, 50)]
            assert coded == sorted(set(coded)) and coded[0] == 0 and coded[-1] == 10_000
        assert all(Effort(tune, 0).quality(asked) == asked for asked in (0, 1, 4_567, 10_000))


def test_what_cannot_be_searched_says_so(pixels: np.ndarray) -> None:
    for effort in (0, 10, 2.5):
        with pytest.raises(laconic.BadInput, match=f"effort: found {effort}, expected 1 to 9"):
            compress(pixels, quality=5, effort=effort)
    with pytest.raises(laconic.BadInput, match="tune: found 'ear', expected one of eye, psnr, ms-ssim"):
        compress(pixels, quality=5, tune="ear")
    for exact in ({"lossless": True}, {"max_error": 2}):
        with pytest.raises(laconic.BadInput, match="tune: found 'eye', expected none"):
            compress(pixels, tune="eye", **exact)
    with pytest.raises(laconic.BadInput, match="tune: found 'eye', expected none: the source is a sound"):
        compress(np.zeros(9000, np.int16), quality=5, tune="eye", sample_rate=16000)
    with pytest.raises(laconic.BadInput, match="ssimulacra2: found 101, expected a score"):
        compress(pixels, ssimulacra2=101)


def test_a_score_without_its_library_says_what_brings_it(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    with pytest.raises(laconic.BadInput, match=r"ssimulacra2: found no module .*, expected it: pip install ssimulacra2"):
        compress(pixels, ssimulacra2=50)
