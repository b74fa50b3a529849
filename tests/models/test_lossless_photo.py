"""Lossless tiles: every sample comes back, or within the error allowed; damage never does more than raise BadFile."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from laconic.entropy.errors import BadFile, BadInput
from laconic.entropy.intervals import write_stream
from laconic.models import lossless_photo
from laconic.models.lossless_photo import (
    TileKind,
    code_planes,
    decode_tile,
    differences,
    encode_tile,
    tile_grid,
    undo_differences,
)
from laconic.models.repeats import repetitive
from laconic.models.windows import LEVEL_OF_EFFORT, LEVELS

Samples = NDArray[np.uint16]


def picture(h: int, w: int, channels: int = 3, bits: int = 8, noise: float = 2.0) -> Samples:
    """Smooth colours, an edge, and noise."""
    random = np.random.default_rng(h * 1000 + w)
    y, x = np.mgrid[0:h, 0:w] / 40
    plane = np.sin(x + y * 0.7) * 60 + np.cos(y * 1.7) * 30 + 120 + 40 * (x > y)
    planes = [plane * (1 - 0.1 * c) + random.normal(0, noise, (h, w)) for c in range(channels)]
    samples: Samples = (np.stack(planes, -1) * 2 ** (bits - 8)).clip(0, 2**bits - 1).astype(np.uint16)
    return samples


def screen(h: int, w: int, channels: int = 3, top: int = 255) -> Samples:
    """Glyphs on lines, a striped box, a gradient: colours recur with their surroundings."""
    random = np.random.default_rng(h * 1000 + w)
    glyphs, samples = random.choice([0, 1, 3, 4], (6, 7, 5), p=[0.4, 0.1, 0.1, 0.4]), np.full((h, w, channels), top)
    ink = np.linspace(0, top // 2, channels).astype(np.int64)
    for y in range(2, h - 7, 10):
        for x in range(2, w // 2 - 5, 6):
            shade = glyphs[random.integers(6)][..., None]
            samples[y : y + 7, x : x + 5] = (top * shade + ink * (4 - shade)) // 4
    samples[: h // 2, w // 2 :] = np.arange(h // 2)[:, None, None] * top // h
    samples[h // 2 :: 3, w // 2 :] = ink
    return samples.astype(np.uint16)


def returned(samples: Samples, bits: int, effort: int = 7, max_error: int = 0) -> Samples:
    return decode_tile(encode_tile(samples, bits, effort, max_error), *samples.shape, bits, max_error)


@st.composite
def tiles(draw: st.DrawFn) -> tuple[Samples, int]:
    bits = draw(st.sampled_from([1, 2, 8, 12, 16]))
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 20)), draw(st.integers(1, 4)))
    random, top = np.random.default_rng(draw(st.integers(0, 99))), (1 << bits) - 1
    kind = draw(st.sampled_from(["noise", "constant", "extremes", "few", "ramp", "gray", "screen"]))
    noise = random.integers(0, top + 1, shape)
    samples = {
        "noise": noise,
        "constant": np.full(shape, random.integers(0, top + 1)),
        "extremes": random.integers(0, 2, shape) * top,
        "few": random.integers(0, min(top + 1, 3), shape) * (top // 3 + (top < 3)) % (top + 1),
        "ramp": np.indices(shape).sum(0) % (top + 1),
        "gray": np.repeat(noise[..., :1], shape[2], 2),
        "screen": screen(*shape, top),
    }[kind]
    return samples.astype(np.uint16), bits


@settings(deadline=None, max_examples=60)
@given(tiles(), st.sampled_from([1, 4, 7, 9]))
def test_every_sample_comes_back(tile: tuple[Samples, int], effort: int) -> None:
    samples, bits = tile
    back = returned(samples, bits, effort)
    assert back.dtype == np.uint16
    assert np.array_equal(back, samples)


@settings(deadline=None, max_examples=40)
@given(tiles(), st.sampled_from([1, 2, 3, 7, 100, 255, 65535]))
def test_no_sample_is_further_away_than_allowed(tile: tuple[Samples, int], max_error: int) -> None:
    samples, bits = tile
    back = returned(samples, bits, 7, max_error)
    assert int(np.abs(back.astype(np.int64) - samples).max()) <= max_error
    assert int(back.max()) >> bits == 0


@settings(deadline=None, max_examples=40)
@given(tiles(), st.sampled_from([1, 7]), st.sampled_from([0, 1]))
def test_no_tile_is_more_than_a_byte_larger_than_its_samples(
    tile: tuple[Samples, int], effort: int, max_error: int
) -> None:
    samples, bits = tile
    assert len(encode_tile(samples, bits, effort, max_error)) <= 1 + samples.size * (1 if bits <= 8 else 2)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_noise_is_stored(bits: int) -> None:
    noise = np.random.default_rng(bits).integers(0, 1 << bits, (60, 80, 3)).astype(np.uint16)
    size = noise.size * (1 if bits == 8 else 2)
    coded = encode_tile(noise, bits, 7, 0)
    assert len(coded) == 1 + size if bits != 12 else len(coded) < 0.85 * size
    assert np.array_equal(decode_tile(coded, 60, 80, 3, bits, 0), noise)


@pytest.mark.parametrize("rest", [b"", bytes(23), bytes(25), b"\xff" * 24])
def test_stored_samples_of_wrong_size_or_range_are_errors(rest: bytes) -> None:
    with pytest.raises(BadFile, match="samples?: found"):
        decode_tile(bytes([TileKind.STORED]) + rest, 3, 4, 1, 15, 0)


@pytest.mark.parametrize("effort", range(1, 10))
def test_pictures_of_every_effort(effort: int) -> None:
    samples = picture(40, 70)
    assert np.array_equal(returned(samples, 8, effort), samples)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_and_depths(channels: int, bits: int) -> None:
    samples = picture(30, 50, channels, bits)
    assert np.array_equal(returned(samples, bits), samples)


def test_more_effort_and_more_error_make_smaller_tiles() -> None:
    samples = picture(96, 128)
    efforts = [len(encode_tile(samples, 8, effort, 0)) for effort in (1, 4, 7)]
    assert efforts == sorted(efforts, reverse=True)
    errors = [len(encode_tile(samples, 8, 7, error)) for error in (0, 1, 2, 4, 16)]
    assert all(after < 0.9 * before for before, after in pairwise(errors))


def test_the_size_is_near_what_the_noise_carries() -> None:
    samples = picture(128, 128, 1)
    assert len(encode_tile(samples, 8, 7, 0)) * 8 / samples.size < np.log2(2.0 * np.sqrt(2 * np.pi * np.e)) + 0.25


def test_simple_pictures_take_few_bytes() -> None:
    assert len(encode_tile(np.full((400, 400, 3), 77, np.uint16), 8, 7, 0)) < 40
    gray = np.repeat(picture(64, 64, 1), 3, 2)
    assert len(encode_tile(gray, 8, 7, 0)) < len(encode_tile(gray[..., :1], 8, 7, 0)) + 8
    spread = picture(64, 64, 1)  # 8 bits in 16
    assert len(encode_tile(spread * 257, 16, 7, 0)) < len(encode_tile(spread, 8, 7, 0)) + 200


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.booleans())
def test_tiles_cover_a_picture_once(height: int, width: int, large: bool) -> None:
    grid, side = tile_grid(height, width, large), 2048 if large else 1024
    assert sum(h * w for _, _, h, w in grid) == height * width
    assert all(0 < h <= side and 0 < w <= side and y + h <= height and x + w <= width for y, x, h, w in grid)
    assert len({(y, x) for y, x, _, _ in grid}) == len(grid)
    assert len(grid) > 1 or height * width < 1 << 17 or large


def test_guesses_are_for_what_recurs() -> None:
    assert not repetitive(picture(60, 90)) and not repetitive(picture(60, 90, 1)) and not repetitive(screen(1, 90))
    assert repetitive(screen(60, 90)) and repetitive(screen(60, 90, 1)) and repetitive(screen(60, 90, 4, 65535))
    random = np.random.default_rng(0)
    dithered = random.integers(0, 3, (60, 90, 1)) * np.array([[[100, 60, 80]]])  # 3 colours, no order
    assert repetitive(dithered.astype(np.uint16)) and not repetitive(
        random.integers(0, 256, (60, 90, 3)).astype(np.uint16)
    )


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_screens_come_back_and_are_small(channels: int, bits: int) -> None:
    samples = screen(100, 150, channels, (1 << bits) - 1)
    coded = encode_tile(samples, bits, 7, 0)
    assert coded[0] == TileKind.MODEL | TileKind.GUESSED | LEVEL_OF_EFFORT[6]
    assert np.array_equal(decode_tile(coded, *samples.shape, bits, 0), samples)
    assert len(coded) < 0.75 * len(zlib.compress(samples.astype(f"<u{bits // 8}").tobytes(), 9))


def test_a_screen_is_smaller_than_as_webp_and_in_one_tile_smaller_than_in_two() -> None:
    samples = screen(180, 240)
    file = io.BytesIO()
    Image.fromarray(samples.astype(np.uint8)).save(file, "WEBP", lossless=True, quality=100, method=6)
    whole = len(encode_tile(samples, 8, 7, 0))
    assert whole < 0.8 * len(file.getvalue())
    assert whole < 0.9 * sum(len(encode_tile(np.ascontiguousarray(part), 8, 7, 0)) for part in np.split(samples, 2))


@pytest.mark.parametrize("max_error", [1, 3, 40])
def test_guesses_are_right_within_the_error(max_error: int) -> None:
    random, samples = np.random.default_rng(0), screen(60, 90)
    rough = (samples + random.integers(-1, 2, samples.shape)).clip(0, 255).astype(np.uint16)
    assert encode_tile(samples, 8, 7, max_error)[0] & TileKind.GUESSED
    assert len(encode_tile(samples, 8, 7, max_error)) <= len(encode_tile(samples, 8, 7, 0))
    for tile in (samples, rough):
        back = returned(tile, 8, 7, max_error)
        assert int(np.abs(back.astype(np.int64) - tile).max()) <= max_error


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damage_is_an_error_or_another_picture(data: st.DataObject) -> None:
    samples = data.draw(st.sampled_from([picture(9, 17, 2), screen(9, 17, 2)]))
    good = encode_tile(samples, 8, 4, 0)
    with pytest.raises(BadFile):
        decode_tile(good[: data.draw(st.integers(0, len(good) - 1))], 9, 17, 2, 8, 0)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(BadFile):
        assert decode_tile(bytes(bad), 9, 17, 2, 8, 0).shape == samples.shape


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=60), st.integers(0, 2), st.sampled_from([TileKind.STORED, *range(64, 128)]), st.integers(1, 4)
)
def test_any_bytes_are_an_error_or_a_picture(rest: bytes, head: int, kind: int, channels: int) -> None:
    with suppress(BadFile):
        assert decode_tile(bytes([kind, head]) + rest, 5, 6, channels, 16, 0).shape == (5, 6, channels)


@pytest.mark.parametrize("kind", [64, 64 + 4 + 3])
def test_a_tile_without_words_is_given_up_at_once(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it says it is: 56 bytes must not take the time of 16 million samples."""
    bands = []

    def code_rows(y0: int, y1: int, *state: object) -> None:
        bands.append(y1 - y0)
        whole(y0, y1, *state)

    whole = lossless_photo.code_rows
    monkeypatch.setattr(lossless_photo, "code_rows", code_rows)
    stream = write_stream(np.array([2**32 - 1], np.uint32), np.zeros(0, np.uint16))
    tile = bytes([kind]) + b"\0\0\0\xff\xff" * 4 + stream
    with pytest.raises(BadFile, match="words: found 0, expected more"):
        decode_tile(tile, 2048, 2048, 4, 16, 0)
    assert bands == [16]


@pytest.mark.parametrize("kind", [2, 15, 17, 64 + 16, 64 + 32 + 4, 255])
def test_tiles_of_unknown_or_earlier_kinds_say_so(kind: int) -> None:
    good = encode_tile(picture(9, 17), 8, 7, 0)
    with pytest.raises(BadFile, match=f"kind of tile: found '{kind:02x}'"):
        decode_tile(bytes([kind]) + good[1:], 9, 17, 3, 8, 0)
    with pytest.raises(BadFile, match="kind of tile"):  # no differences of fewer than three planes
        decode_tile(bytes([64 + 32]) + encode_tile(picture(9, 17, 2), 8, 1, 0)[1:], 9, 17, 2, 8, 0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 16), st.integers(3, 4), st.sampled_from(range(len(LEVELS))), st.integers(0, 1 << 20))
def test_differences_are_reversible(bits: int, channels: int, level: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = random.integers(0, 1 << bits, (6, 7, channels)).astype(np.uint16)
    changed = differences(samples, bits)
    assert int(changed.max()) >> bits == 0 and np.array_equal(changed[..., [1]], samples[..., [1]])
    assert np.array_equal(undo_differences(changed, bits), samples)
    coded = code_planes(changed, TileKind.MODEL | TileKind.DIFFERENCES | level, 0)
    assert np.array_equal(decode_tile(coded, 6, 7, channels, bits, 0), samples)


def test_slow_efforts_take_differences_where_they_are_smaller() -> None:
    tints = np.array([[0, 0, 0], [40, 0, 90], [90, 0, 20]], np.uint16)[
        np.random.default_rng(0).integers(0, 3, (160, 160))
    ]
    tinted = np.repeat(picture(160, 160, 1) // 2, 3, 2) + tints  # gray, in one of three tints pixel by pixel
    coded = encode_tile(tinted, 8, 9, 0)
    assert coded[0] == TileKind.MODEL | TileKind.DIFFERENCES | LEVEL_OF_EFFORT[8]
    assert len(coded) < 0.97 * len(code_planes(tinted, TileKind.MODEL | LEVEL_OF_EFFORT[8], 0))
    assert np.array_equal(decode_tile(coded, 160, 160, 3, 8, 0), tinted)
    for tile, effort, max_error in ((picture(160, 160), 9, 0), (tinted, 7, 0), (tinted, 9, 1)):
        assert not encode_tile(tile, 8, effort, max_error)[0] & TileKind.DIFFERENCES


@pytest.mark.parametrize(
    ("samples", "bits", "effort", "error"),
    [
        (np.zeros((2, 2, 5), np.uint16), 8, 7, 0),
        (np.zeros((0, 2, 1), np.uint16), 8, 7, 0),
        (np.full((2, 2, 1), 256, np.uint16), 8, 7, 0),
        (np.zeros((2, 2, 1), np.uint16), 17, 7, 0),
        (np.zeros((2, 2, 1), np.uint16), 8, 0, 0),
        (np.zeros((2, 2, 1), np.uint16), 8, 7, -1),
    ],
)
def test_bad_calls(samples: Samples, bits: int, effort: int, error: int) -> None:
    with pytest.raises(BadInput):
        encode_tile(samples, bits, effort, error)


def test_least_squares_finds_the_line() -> None:
    """Samples that are an exact linear function of their neighbours are predicted exactly in the end."""
    y, x = np.mgrid[0:64, 0:64]
    samples = (x * 2 + y).astype(np.uint16)[..., None]
    assert len(encode_tile(samples, 8, 7, 0)) < 120
