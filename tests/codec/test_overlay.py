"""Exact blocks over a photo: what is chosen comes back exactly, alone and in files, whole, by region and in part; damage."""

from __future__ import annotations

import runpy
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

import laconic
from laconic import container
from laconic.container import Chunk
from laconic.media import overlay
from laconic.media.photo_encode import OVERLAY

ROOT = Path(__file__).parent.parent.parent
plain = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "plain_picture.py")))
SIDE = 8


def case(height: int, width: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of few colours, and a mask of blocks of SIDE."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 4, (height, width, channels), np.uint8) * 80
    return pixels, rng.random((-(-height // SIDE), -(-width // SIDE))) < rng.choice([0.1, 0.5, 1.0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.sampled_from([1, 3]), st.integers(0, 99), st.data())
def test_chosen_blocks_are_exact_and_the_rest_is_untouched(
    height: int, width: int, channels: int, seed: int, data: st.DataObject
) -> None:
    pixels, mask = case(height, width, channels, seed)
    payloads = overlay.encode(pixels, mask, SIDE, 64, 1, 1)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    out = np.full((h, w, channels), 7, np.uint8)
    assert overlay.apply(out, list(payloads), (width, height), 64, (x, y, w, h), 1) == []
    chosen = overlay.spread(mask, SIDE, height, width)
    expected = np.where(chosen[..., None], pixels, 7)
    assert np.array_equal(out, expected[y : y + h, x : x + w])
    assert sum(overlay.read_head(payload)[1] for payload in payloads if payload) == chosen.sum()
    overlay.verify(list(payloads), (width, height), 64, channels)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.data())
def test_a_damaged_payload_is_an_error(seed: int, data: st.DataObject) -> None:
    pixels, mask = case(30, 44, 3, seed)
    mask[1, 2] = True
    (payload,) = overlay.encode(pixels, mask, SIDE, 64, 1, 1)
    at = data.draw(st.integers(0, len(payload) - 1))
    cut = payload[:at]
    flipped = cut + bytes([payload[at] ^ 1 << data.draw(st.integers(0, 7))]) + payload[at + 1 :]
    for damaged in (cut, payload + b"\0"):
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            overlay.decode_one(damaged, (30, 44, 3))
    try:
        samples, chosen = overlay.decode_one(flipped, (30, 44, 3))
    except laconic.BadFile:
        return
    assert np.array_equal(samples[chosen], pixels[chosen]) and np.array_equal(chosen, overlay.spread(mask, SIDE, 30, 44))


def test_what_a_payload_claims_is_bounded() -> None:
    pixels, mask = case(30, 44, 3, 1)
    (payload,) = overlay.encode(pixels, mask, SIDE, 64, 1, 1)
    for head in (b"\x02", b"\x09", b"\xff"):
        with pytest.raises(laconic.BadFile, match="side of a block: found"):
            overlay.decode_one(head + payload[1:], (30, 44, 3))
    empty = overlay.encode_one(pixels, overlay.Layout(30, 44, SIDE, np.ones((4, 6), np.bool_)), 1)
    with pytest.raises(laconic.BadFile, match="pixels of the overlay: found 1320"):
        overlay.decode_one(empty[:1] + b"\x05" + empty[3:], (30, 44, 3))


def test_other_samples_than_were_written_are_an_error() -> None:
    pixels, mask = case(30, 44, 3, 2)
    one, two = (overlay.encode(array, mask, SIDE, 64, 1, 1)[0] for array in (pixels, 255 - pixels))
    start = overlay.take(one, overlay.read_head(one)[2], "mask")[1]  # of the checksum; both have the same mask
    with pytest.raises(laconic.BadFile, match="checksum of the overlay: found"):
        overlay.decode_one(one[: start + overlay.CRC_BYTES] + two[start + overlay.CRC_BYTES :], (30, 44, 3))


def test_tiles_larger_than_the_lossless_coder_takes() -> None:
    pixels = np.zeros((9, 2500, 1), np.uint8)
    pixels[:, ::7] = 200
    (payload,) = overlay.encode(pixels, np.ones((2, 313), np.bool_), SIDE, 63 * 64, 1, 1)
    assert np.array_equal(overlay.decode_one(payload, pixels.shape)[0], pixels)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 600), st.sampled_from([1, 3]), st.integers(0, 99))
def test_filling_keeps_the_rest_and_stays_within_it(height: int, width: int, channels: int, seed: int) -> None:
    pixels, mask = case(width, height, channels, seed)
    chosen = overlay.spread(mask, SIDE, width, height)
    filled = overlay.filled(pixels, mask, SIDE)
    assert np.array_equal(filled[~chosen], pixels[~chosen])
    if not chosen.all():
        assert filled.min() >= pixels[~chosen].min() and filled.max() <= pixels[~chosen].max()


def test_filling_continues_a_flat_picture_and_a_shade() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[5:8, 6:9] = True
    flat = np.full((128, 128, 3), 90, np.uint8)
    scratched = flat.copy()
    scratched[40:64, 48:72] = 0
    assert np.array_equal(overlay.filled(scratched, mask, SIDE), flat)
    shade = np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None, None], (128, 128, 1))
    assert np.abs(overlay.filled(shade, mask, SIDE).astype(int) - shade).max() <= 16


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    """uint8 [300, 1100, 3], of two tiles: text on white around a photo."""
    image = Image.new("RGB", (1100, 300), "white")
    image.paste(Image.open(ROOT / "assets" / "sample.webp").convert("RGB").crop((0, 0, 330, 210)), (700, 41))
    draw = ImageDraw.Draw(image)
    for row in range(18):
        draw.text((11, 4 + 16 * row), f"{row} the words of a page, again and again " * 2, "black", ImageFont.load_default(14))
    return np.asarray(image)


@pytest.fixture(scope="module")
def file(page: np.ndarray) -> bytes:
    notes: list[str] = []
    data = laconic.compress(page, quality=40, notes=notes)
    assert len(notes) == 1 and "% of the picture is no photo: coded without loss there" in notes[0]
    return data


def overlays(data: bytes) -> list[Chunk]:
    return [chunk for chunk in container.read(data, range(128))[1] if chunk.kind == OVERLAY]


def test_a_page_with_a_photo(page: np.ndarray, file: bytes) -> None:
    laconic.verify(file)
    alone = laconic.compress(page, quality=40, fallback=False)
    back, without = (laconic.decompress(data, as_array=True) for data in (file, alone))
    assert len(file) < 0.6 * len(alone) and np.array_equal(back[:, :560], page[:, :560])
    error, other = (np.square(array.astype(float) - page).mean() for array in (back, without))
    assert error < 0.5 * other
    info = laconic.info(file)
    assert 0.3 < info.exact_share < 0.9 and [kind for kind, _ in info.chunks] == ["z", "y", "y", "overlay", "overlay"]
    assert laconic.info(alone).exact_share == 0 and not overlays(alone)


def test_metadata_does_not_change_what_is_exact(page: np.ndarray, file: bytes) -> None:
    """Nor do many bytes of it make a lossless picture of the page."""
    image = Image.fromarray(page)
    image.info["xmp"] = np.random.default_rng(0).bytes(400_000)
    assert overlays(laconic.compress(image, quality=40, notes=[])) == overlays(file)


def test_regions_threads_and_batches_agree(page: np.ndarray, file: bytes) -> None:
    whole = laconic.decompress(file, as_array=True, threads=1)
    part = laconic.decompress(file, region=(500, 21, 577, 207), as_array=True, threads=2)
    same = np.abs(part.astype(int) - whole[21:228, 500:1077]) <= 1  # floats of the photo model differ by the region
    assert same.mean() > 0.999 and np.array_equal(part[:, :60], page[21:228, 500:560])
    lossless = laconic.compress(page[:40, :40], lossless=True)
    batch = laconic.Codec().decompress_batch([file, lossless, file], as_array=True)
    for out in (batch[0], batch[2]):
        assert (np.abs(out.astype(int) - whole) <= 1).mean() > 0.999 and np.array_equal(out[:, :560], page[:, :560])
    assert np.array_equal(batch[1], page[:40, :40])


def test_damage_is_an_error_or_a_note(page: np.ndarray, file: bytes) -> None:
    first = overlays(file)[0].payload
    assert first is not None
    at = file.index(bytes(first)) + len(first) // 2
    damaged = file[:at] + bytes([file[at] ^ 4]) + file[at + 1 :]
    with pytest.raises(laconic.BadFile):
        laconic.decompress(damaged)
    with pytest.raises(laconic.BadFile):
        laconic.verify(damaged)
    notes: list[str] = []
    shown = laconic.decompress(damaged, partial=True, as_array=True, notes=notes)
    assert notes == ["damaged, left out: the exact blocks of the tile at 0,0 (1024 x 300 pixels)"]
    assert np.array_equal(shown[:, 1040:], laconic.decompress(file, as_array=True)[:, 1040:])
    assert not np.array_equal(shown[:, :560], page[:, :560])
    notes = []
    laconic.decompress(damaged, partial=True, region=(1024, 0, 70, 300), notes=notes)
    assert notes == []


def test_an_overlay_that_disagrees_with_the_file_is_refused(file: bytes) -> None:
    header, chunks = container.read(file, range(128))
    fewer = container.write(header, [*chunks[:-1]])
    with pytest.raises(laconic.BadFile, match="overlay chunks: found 1, expected none, or 2"):
        laconic.decompress(fewer)
    swapped = container.write(header, [*chunks[:-2], chunks[-1], chunks[-2]])
    for use in (laconic.decompress, laconic.verify):
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            use(swapped)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA"])
def test_gray_and_alpha(page: np.ndarray, mode: str) -> None:
    image = Image.fromarray(page).convert(mode)
    if mode != "L":
        image.putalpha(Image.fromarray(np.repeat(np.linspace(1, 255, 300).astype(np.uint8)[:, None], 1100, 1)))
    source = np.atleast_3d(np.asarray(image))
    data = laconic.compress(image, quality=40, notes=[])
    back = laconic.decompress(data, as_array=True)
    assert overlays(data) and back.shape == source.shape and np.array_equal(back[:, :560], source[:, :560])
    assert mode == "L" or np.array_equal(back[..., -1], source[..., -1])


def test_the_format_is_enough() -> None:
    """A payload read by FORMAT.md alone, with the plain decoder of picture samples."""
    pixels, mask = case(21, 30, 3, 4)
    mask[0], mask[1:, 1] = False, [True, True]
    (payload,) = overlay.encode(pixels, mask, SIDE, 64, 1, 1)
    side, (n_pixels, at) = 2 ** payload[0], plain.varint(payload, 1)
    n, at = plain.varint(payload, at)
    coded, at = payload[at : at + n], at + n
    found = np.array(plain.decode_tile(coded, 3, 4, 1, np.uint8, 0)).reshape(3, 4) == 1
    rows, columns = ([i for i in range(size) if keep[i // side]] for size, keep in ((21, found.any(1)), (30, found.any(0))))
    (crc,), at = struct.unpack_from("<I", payload, at), at + 4
    n, at = plain.varint(payload, at)
    canvas = np.array(plain.decode_tile(payload[at : at + n], len(rows), len(columns), 3, np.uint8, 0))
    canvas = canvas.reshape(len(rows), len(columns), 3).astype(np.uint8)
    assert at + n == len(payload) and zlib.crc32(canvas.tobytes()) == crc and len(rows) < 21
    exact = 0
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if found[row // side, column // side]:
                assert np.array_equal(canvas[i, j], pixels[row, column])
                exact += 1
    assert exact == n_pixels and np.array_equal(found, mask)
