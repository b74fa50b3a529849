"""Lossless and near-lossless pictures: files of all formats, damage, regions, threads."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import laconic
from laconic import container, picture
from laconic.container import Chunk, Header
from laconic.media.lossless_picture import KINDS, LOSSLESS_PICTURE, TILE, Fields, encode_checked, unpack

FORMATS = Path(__file__).parent.parent / "data" / "formats"
REFUSED = {"cmyk.jpg", "bad_crc.png", "corrupt.jpg", "empty.png", "huge_header.png", "still.jxl"}
REFUSED |= {"text_file.png", "truncated.jpg", "truncated.png", "zero_width.png"}
files = sorted(path for path in FORMATS.iterdir() if path.suffix != ".md")


@pytest.fixture(scope="session")
def large() -> np.ndarray:
    """uint8 [H, W, 3] of several tiles."""
    y, x = np.mgrid[:600, :1100]
    noise = np.random.default_rng(0).integers(0, 4, (600, 1100, 3))
    return ((np.stack([x, y, x + y], 2) // 8 + noise) % 256).astype(np.uint8)


@pytest.fixture(scope="session")
def file(large: np.ndarray) -> bytes:
    return laconic.compress(large, lossless=True, effort=1)


@pytest.mark.parametrize("path", files, ids=lambda path: path.name)
def test_every_file_comes_back_or_is_refused(path: Path) -> None:
    if path.name in REFUSED:
        with pytest.raises(laconic.BadInput, match="found .*, expected"):
            laconic.compress(path, lossless=True, notes=[])
        return
    given = picture.read_exact(path)
    data = laconic.compress(path, lossless=True, effort=1, notes=[])
    laconic.verify(data)
    back = laconic.decompress(data, as_array=True)
    assert back.dtype == given.samples.dtype and np.array_equal(back, given.samples)
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, data)
    saved = picture.read_exact(io.BytesIO(out.getvalue()))
    assert np.array_equal(saved.samples, given.samples) and saved.metadata == given.metadata
    assert laconic.info(data).max_error == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.sampled_from([np.uint8, np.uint16]), st.data())
def test_arrays_come_back(height: int, width: int, channels: int, dtype: type, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    high = data.draw(st.sampled_from([1, 2, 17, 256, np.iinfo(dtype).max + 1]))
    array = rng.integers(0, min(high, np.iinfo(dtype).max + 1), (height, width, channels)).astype(dtype)
    k = data.draw(st.sampled_from([0, 1, 2, 4, 255]))
    coded = laconic.compress(array, max_error=k, effort=data.draw(st.sampled_from([1, 7])))
    back = laconic.decompress(coded, as_array=True)
    assert back.dtype == dtype and back.shape == array.shape
    assert int(np.abs(back.astype(int) - array).max()) <= k


def test_a_larger_error_makes_a_smaller_file() -> None:
    photo = np.asarray(Image.open(FORMATS / "odd_65x63.png"))
    sizes = [len(laconic.compress(photo, max_error=k, effort=1)) for k in (0, 1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] < 0.8 * sizes[0]


def test_regions_are_those_parts(file: bytes, large: np.ndarray) -> None:
    for x, y, w, h in [(0, 0, 1, 1), (1099, 599, 1, 1), (100, 200, 900, 300), (0, 0, 1100, 600)]:
        assert np.array_equal(laconic.decompress(file, region=(x, y, w, h), as_array=True), large[y : y + h, x : x + w])
    with pytest.raises(laconic.BadInput, match="region"):
        laconic.decompress(file, region=(0, 0, 1101, 1))


def test_what_recurs_is_in_large_tiles() -> None:
    """Lines of one glyph on white: one tile of 2048 a side, where a photo of this size takes two."""
    drawing = np.full((500, 400, 3), 255, np.uint8)
    drawing[np.arange(500) % 20 < 9] = np.tile(np.random.default_rng(0).integers(0, 2, (9, 8, 3)) * 90, (25, 50, 1))
    data = laconic.compress(drawing, lossless=True)
    assert len(data) < 700 and [kind for kind, _ in laconic.info(data).chunks].count("tile") == 1
    assert np.array_equal(laconic.decompress(data, as_array=True), drawing)
    region = laconic.decompress(data, region=(17, 33, 200, 100), as_array=True)
    assert np.array_equal(region, drawing[33:133, 17:217])


def test_threads_make_the_same_bytes(file: bytes, large: np.ndarray) -> None:
    for threads in (1, 2, 3):
        assert laconic.compress(large, lossless=True, effort=1, threads=threads) == file
        assert np.array_equal(laconic.decompress(file, threads=threads, as_array=True), large)


def test_damage_is_an_error_and_the_rest_is_given(file: bytes, large: np.ndarray) -> None:
    _, table = container.read_table(file)
    assert len(table) > 1
    damaged = bytearray(file)
    damaged[table[1].start + 20] ^= 1
    with pytest.raises(laconic.BadFile, match="checksum"):
        laconic.decompress(bytes(damaged))
    notes: list[str] = []
    back = laconic.decompress(bytes(damaged), partial=True, as_array=True, notes=notes)
    assert len(notes) == 1 and "left out: the tile at" in notes[0]
    same = (back == large).all(2)
    assert 0.2 < same.mean() < 1 and not back[~same].any()


@pytest.mark.parametrize("at", [0, 2, 4, 5, 11, -1])
def test_wrong_samples_are_an_error_even_with_a_right_chunk(file: bytes, at: int) -> None:
    """The samples have a checksum of their own: a chunk that was written anew does not pass."""
    header, chunks = container.read(file, KINDS)
    payload = bytearray(chunks[0].payload or b"")
    payload[at] ^= 0x15
    with pytest.raises(laconic.BadFile):
        laconic.decompress(container.write(header, [Chunk(TILE, bytes(payload)), *chunks[1:]]))


def test_tiles_that_are_too_few_or_short(file: bytes) -> None:
    header, chunks = container.read(file, KINDS)
    for wrong in (
        chunks[1:],
        [*chunks, chunks[0]],
        [Chunk(TILE, b""), *chunks[1:]],
        [Chunk(TILE, b"1234"), *chunks[1:]],
    ):
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            laconic.decompress(container.write(header, wrong))


@given(
    st.builds(
        Fields,
        *[st.integers(1, 1 << 15)] * 2,
        st.sampled_from([8, 16]),
        st.integers(1, 4),
        st.integers(0, 255),
        st.booleans(),
    )
)
def test_fields_come_back(fields: Fields) -> None:
    assert unpack(fields.pack(), max_pixels=1 << 30) == fields


@pytest.mark.parametrize("fields", [b"", b"\1\1", b"\0\1\2\0", b"\1\1\x10\0", b"\1\1\2\x80\2", b"\1\1\2\0\0"])
def test_wrong_fields_are_errors(fields: bytes) -> None:
    with pytest.raises(laconic.BadFile):
        laconic.decompress(container.write(Header(LOSSLESS_PICTURE, "", b"", fields), [Chunk(TILE, bytes(40))]))


def test_metadata_is_kept_or_stripped() -> None:
    path = FORMATS / "exif_gps.jpg"
    image = laconic.decompress(laconic.compress(path, lossless=True, notes=[]))
    assert image.info["exif"] == Image.open(path).info["exif"]
    data = laconic.compress(path, lossless=True, strip=True, notes=[])
    assert [kind for kind, _ in laconic.info(data).chunks] == ["tile"]
    header, chunks = container.read(data, KINDS)
    with pytest.raises(laconic.BadFile):
        laconic.decompress(container.write(header, [*chunks, Chunk(5, b"\x05no zlib", optional=True)]))


def test_16_bit_gray_is_an_image_and_colour_an_array() -> None:
    gray = laconic.decompress(laconic.compress(FORMATS / "gray16.png", lossless=True))
    assert gray.mode == "I;16" and np.array_equal(np.asarray(gray), np.asarray(Image.open(FORMATS / "gray16.png")))
    with pytest.raises(laconic.BadInput, match="as_array"):
        laconic.decompress(laconic.compress(np.zeros((2, 2, 3), np.uint16), lossless=True))


@pytest.mark.parametrize("format", ["JPEG", "AVIF"])
def test_lossy_outputs_are_refused(file: bytes, format: str) -> None:
    with pytest.raises(laconic.BadInput, match="lossy"):
        laconic.Codec().decompress_to(io.BytesIO(), file, format=format)


@pytest.mark.parametrize(
    "options",
    [
        {"lossless": True, "quality": 3},
        {"lossless": True, "max_error": 1},
        {"max_error": -1},
        {"max_error": 256},
        {"max_error": 0.5},
        {"lossless": True, "effort": 0},
        {"lossless": True, "effort": 10},
    ],
)
def test_wrong_options_are_errors(options: dict) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        laconic.compress(np.zeros((2, 2), np.uint8), **options)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_exact_where_colours_may_be_off(channels: int, dtype: type) -> None:
    rng = np.random.default_rng(channels)
    top = np.iinfo(dtype).max
    samples = rng.integers(0, top, (40, 50, channels), dtype, endpoint=True)
    samples[:, :20, -1], samples[:, 20:30, -1] = top, 0
    data = laconic.compress(samples, max_error=3, effort=1)
    back = laconic.decompress(data, as_array=True)
    off = np.abs(back.astype(int) - samples)
    assert np.array_equal(back[..., -1], samples[..., -1]) and 0 < off.max() <= 3
    assert [kind for kind, _ in laconic.info(data).chunks] == ["tile", "alpha tile"]
    part = laconic.decompress(data, region=(15, 3, 20, 30), as_array=True)
    assert np.array_equal(part, back[3:33, 15:35])
    laconic.verify(data)


def test_alpha_tiles_are_where_they_should_be() -> None:
    data = laconic.compress(np.zeros((9, 9, 4), np.uint8), max_error=3)
    header, chunks = container.read(data, KINDS)
    gray = Header(LOSSLESS_PICTURE, "", b"", Fields(9, 9, 8, 3, 3).pack())
    for wrong in (container.write(header, chunks[:1] * 3), container.write(header, chunks[::-1]), container.write(gray, chunks)):
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            laconic.decompress(wrong)


def test_near_lossless_alpha_of_older_files_still_comes_back() -> None:
    """Files of before alpha tiles have alpha among the channels of their tiles."""
    samples = np.random.default_rng(5).integers(0, 256, (20, 20, 4)).astype(np.uint16)
    fields = Fields(20, 20, 8, 4, 2)
    tile = Chunk(TILE, encode_checked(samples, 8, 1, 2))
    data = container.write(Header(LOSSLESS_PICTURE, "", b"", fields.pack()), [tile])
    assert np.abs(laconic.decompress(data, as_array=True).astype(int) - samples).max() <= 2
