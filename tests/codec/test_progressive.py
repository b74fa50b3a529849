"""Progressive photos: the normal file's symbols in slices, and every first part of a file decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import laconic
from laconic import container, entropy, registry
from laconic.container import Chunk
from laconic.media import photo_encode, photo_slices
from laconic.media.photo import KINDS
from laconic.media.photo_models import SLICE
from laconic.models import photo as photo_model
from laconic.search import psnr_of
from laconic.tools.own_model import TinyAutoencoder

SAMPLE = Path(__file__).parent.parent.parent / "assets" / "sample.webp"
CODEC = laconic.Codec(precision="float32")  # in bf16 parts differ from the whole by roundings, too


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.asarray(Image.open(SAMPLE).convert("RGB"))[80:336, 200:584]


@pytest.fixture(scope="module")
def file(pixels: np.ndarray) -> bytes:
    return CODEC.compress(pixels, quality=85, effort=1, progressive=True)


@pytest.fixture(scope="module")
def tiled(pixels: np.ndarray) -> bytes:
    """A progressive file of six tiles, two rows of three."""
    fields = photo_encode.Fields
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_encode, "Fields", lambda *a, **k: fields(*a, **k, tile=128))
        return CODEC.compress(pixels, quality=85, effort=1, progressive=True)


def ends(data: bytes) -> list[int]:
    """Where each chunk ends in the file, the header first."""
    table = container.read_table(data)[1]
    return [table[0].start, *(entry.start + entry.length for entry in table)]


def pixels_of(data: bytes, **options: int) -> np.ndarray:
    return CODEC.preview(data, as_array=True, **options)


def test_the_pixels_are_those_of_the_normal_order(pixels: np.ndarray, file: bytes) -> None:
    normal = CODEC.compress(pixels, quality=85, effort=1)
    assert np.array_equal(CODEC.decompress(file, as_array=True), CODEC.decompress(normal, as_array=True))
    assert len(file) < 1.015 * len(normal)
    assert laconic.info(file).slices == 16 and laconic.info(normal).slices == 1
    laconic.verify(file)
    for (a, rows_a), (b, rows_b) in zip(CODEC.coded(file), CODEC.coded(normal), strict=True):
        assert np.array_equal(a, b) and np.array_equal(rows_a, rows_b)


@pytest.mark.parametrize("quality", [0, 20, 60])
def test_few_bytes_are_cut_into_few_slices(pixels: np.ndarray, quality: int) -> None:
    files = [CODEC.compress(pixels, quality=quality, effort=1, progressive=on) for on in (False, True)]
    assert len(files[1]) - len(files[0]) < max(0.015 * len(files[0]), 25)
    assert laconic.info(files[1]).slices in (4, 8, 12)


def test_tiles_and_regions(pixels: np.ndarray, tiled: bytes) -> None:
    whole = CODEC.decompress(tiled, as_array=True)
    kinds = [name for name, _ in laconic.info(tiled).chunks]
    assert kinds == ["z", *["slice"] * (6 * laconic.info(tiled).slices)]
    assert psnr_of(whole, pixels) > 35
    part = CODEC.decompress(tiled, region=(140, 100, 200, 60), as_array=True)
    assert psnr_of(part, whole[100:160, 140:340]) > 60
    (batched,) = CODEC.decompress_batch([tiled], as_array=True)
    assert np.array_equal(batched, whole)


def test_every_slice_brings_the_picture_nearer(pixels: np.ndarray, file: bytes) -> None:
    found = [psnr_of(CODEC.decompress(file, slices=n, as_array=True), pixels) for n in range(1, 17)]
    assert found == sorted(found) and found[0] > 15 and found[-1] > found[0] + 10
    assert np.array_equal(CODEC.decompress(file, slices=16, as_array=True), CODEC.decompress(file, as_array=True))


def test_every_first_part_that_ends_at_a_chunk_decodes(file: bytes) -> None:
    for n, end in enumerate(ends(file)[2:], 1):
        assert np.array_equal(pixels_of(file[:end]), CODEC.decompress(file, slices=n, as_array=True))
        assert np.array_equal(pixels_of(file[: end + 1]), pixels_of(file[:end]))  # a part of a slice is of no use yet
    notes: list[str] = []
    CODEC.preview(file[: ends(file)[4]], notes=notes)
    CODEC.preview(file, notes=notes)
    assert notes == ["preview: 3 of 16 slices"]


def test_a_part_that_ends_between_tiles_shows_those_that_came(tiled: bytes) -> None:
    """After z and two rounds of six tiles come the third slices of four: the last two tiles stay as they were."""
    early, late = pixels_of(tiled, slices=2), pixels_of(tiled, slices=3)
    found = pixels_of(tiled[: ends(tiled)[1 + 12 + 4]])
    assert np.array_equal(found[:40, :], late[:40, :])
    assert np.array_equal(found[240:, 370:], early[240:, 370:])
    assert not np.array_equal(found, late) and not np.array_equal(found, early)


def test_a_file_that_is_cut_off_is_an_error_unless_parts_will_do(file: bytes) -> None:
    cut = file[: ends(file)[6] + 7]
    with pytest.raises(laconic.BadFile, match="file length: found .*, expected"):
        CODEC.decompress(cut)
    with pytest.raises(laconic.BadFile):
        laconic.verify(cut)
    notes: list[str] = []
    found = CODEC.decompress(cut, partial=True, as_array=True, notes=notes)
    assert np.array_equal(found, pixels_of(file, slices=5))
    assert notes == ["damaged, left out: y of the tile at 0,0 (1024 x 1024 pixels) from slice 6 of 16 on"]
    assert np.array_equal(CODEC.decompress(cut, partial=True, slices=2, as_array=True, notes=notes), pixels_of(file, slices=2))
    assert len(notes) == 1  # nothing that was asked for is missing
    for size in range(0, ends(file)[0], 7):
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            CODEC.preview(file[:size])
    with pytest.raises(laconic.BadFile, match="z chunk"):
        CODEC.preview(file[: ends(file)[0]])


def test_damage_is_no_end(file: bytes, tiled: bytes) -> None:
    """A preview takes a file that stops early, not one that was changed; --partial uses what precedes the damage."""
    where = ends(file)[5] + 3
    damaged = file[:where] + bytes([file[where] ^ 1]) + file[where + 1 :]
    for data in (damaged, damaged[:-20]):
        with pytest.raises(laconic.BadFile, match="chunk 5 checksum"):
            CODEC.preview(data)
    assert np.array_equal(CODEC.decompress(damaged, partial=True, as_array=True, notes=[]), pixels_of(file, slices=4))
    with pytest.raises(laconic.BadFile, match="file length"):
        CODEC.preview(file + b"more")
    where, notes = ends(tiled)[1] + 3, list[str]()
    damaged = tiled[:where] + bytes([tiled[where] ^ 1]) + tiled[where + 1 :]
    CODEC.decompress(damaged, partial=True, notes=notes)
    assert len(notes) == 1 and "the tile at 0,0 (128 x 128 pixels) from slice 1 of" in notes[0]


def test_slices_that_do_not_fit_are_refused(file: bytes, tiled: bytes) -> None:
    for data in (file, tiled):
        header, chunks = container.read(data, KINDS)
        wrong = (chunks[:-1], chunks[:1] + chunks[2:], chunks[1:], [*chunks[1:], chunks[0]], [*chunks, Chunk(2, b"")])
        for some in (*wrong, [chunks[0], *chunks[1:] * 9]):
            with pytest.raises(laconic.BadFile, match="slices: found .*, expected z, then 1 to 8 for each of 4 passes"):
                CODEC.decompress(container.write(header, some))
        swapped = [chunks[0], chunks[2], chunks[1], *chunks[3:]]
        with pytest.raises(laconic.BadFile):
            laconic.verify(container.write(header, swapped))


def test_earlier_readers_name_the_kind(file: bytes) -> None:
    with pytest.raises(laconic.UnsupportedFile, match="chunk 1 kind: found 50, expected a kind that this version knows"):
        container.read(file, set(KINDS) - {SLICE})


def test_a_preview_of_the_normal_order_has_its_first_tiles(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = photo_encode.Fields
    monkeypatch.setattr(photo_encode, "Fields", lambda *a, **k: fields(*a, **k, tile=128))
    rgba = np.dstack([pixels, pixels[:, :, :1]])
    data = CODEC.compress(rgba, quality=40, effort=1)
    notes: list[str] = []
    found = CODEC.preview(data[: ends(data)[3] + 1], as_array=True, notes=notes)
    assert notes == ["preview: 2 of 6 tiles, without alpha"] and found.shape[2] == 3
    assert np.array_equal(found[:40, :100], CODEC.decompress(data, as_array=True)[:40, :100, :3])


@pytest.mark.parametrize("slices", [0, 17, -1, 1.5, "2"])
def test_slices_that_a_file_has_not_are_named(file: bytes, slices: int) -> None:
    with pytest.raises(laconic.BadInput, match="slices: found .*, expected 1 to 16"):
        CODEC.decompress(file, slices=slices)


def test_what_has_no_slices_says_so(pixels: np.ndarray) -> None:
    with pytest.raises(laconic.BadInput, match="slices: found 1, expected none: the file is not progressive"):
        CODEC.decompress(CODEC.compress(pixels[:64, :64], quality=5, effort=1), slices=1)
    exact = CODEC.compress(pixels[:8, :8], lossless=True)
    with pytest.raises(laconic.BadInput, match="preview: found True, expected none: the file is of the medium lossless picture"):
        CODEC.preview(exact)
    with pytest.raises(laconic.BadInput, match="slices: found 2, expected none"):
        CODEC.decompress(exact, slices=2)
    for options in ({"lossless": True}, {"max_error": 2}):
        with pytest.raises(laconic.BadInput, match="progressive: found True, expected none: photos alone have slices"):
            CODEC.compress(pixels[:8, :8], progressive=True, **options)
    with pytest.raises(laconic.BadInput, match="progressive: found True, expected none: the source is a sound"):
        CODEC.compress(np.zeros(800, np.int16), sample_rate=8000, quality=50, progressive=True)


def test_what_is_coded_without_loss_is_said_to_have_no_slices() -> None:
    flat = np.kron(np.random.default_rng(1).integers(0, 2, (32, 32)), np.ones((8, 8))).astype(np.uint8) * 255
    notes: list[str] = []
    data = CODEC.compress(flat, quality=60, progressive=True, notes=notes)
    assert laconic.info(data).medium == "lossless picture"
    assert "not progressive: only photos coded with loss have slices" in notes


def test_targets_are_kept_and_effort_is_spent(pixels: np.ndarray) -> None:
    data = CODEC.compress(pixels, size=9000, effort=2, progressive=True)
    assert 0.97 * 9000 <= len(data) <= 9000 and laconic.info(data).slices > 1
    searched, plain = (CODEC.compress(pixels, quality=50, tune="psnr", effort=e, progressive=True) for e in (4, 1))
    assert len(searched) < len(plain)


def test_the_passes_are_those_of_the_model() -> None:
    assert photo_slices.N_PASSES == photo_model.N_PASSES


@given(st.integers(1, 6).flatmap(lambda c: st.tuples(st.just(c), st.integers(0, 50))), st.data(), st.integers(1, 8))
def test_slices_share_a_pass_out_by_falling_rank(shape: tuple[int, int], data: st.DataObject, n: int) -> None:
    channels, size = shape
    rows = data.draw(st.lists(st.integers(0, 63), min_size=channels * size, max_size=channels * size))
    found = photo_slices.places(np.array(rows, np.uint8), channels, n)
    assert len(found) == n and sorted(np.concatenate(found).tolist()) == list(range(len(rows)))
    assert all((np.diff(part) > 0).all() for part in found)
    means = [sum(rows[c * size : (c + 1) * size]) // max(size, 1) for c in range(channels)]
    order = sorted(range(len(rows)), key=lambda i: -rows[i] - means[i // size])
    total, before, expected = sum(max(row - 7, 0) for row in rows), 0, [[] for _ in range(n)]
    for i in order:  # the plain form: the first slice whose share is not full yet
        k = next((k for k in range(n - 1) if before * 2 ** (n - 1) < total * 2**k), n - 1)
        expected[k].append(i)
        before += max(rows[i] - 7, 0)
    assert [sorted(part) for part in expected] == [part.tolist() for part in found]


def test_slices_that_hold_nothing_are_empty_and_read_back() -> None:
    passes = [(np.zeros(10, np.int16), np.zeros(10, np.uint8))] * 4
    payloads = photo_slices.encode(passes, 5, 3, entropy.gaussian_tables(), 1)
    assert [not payload for payload in payloads] == [True, True, False] * 4


def test_a_model_of_ones_own_has_no_slices(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    own = TinyAutoencoder(pixels, steps=1)
    laconic.register(own)
    with pytest.raises(laconic.BadInput, match="progressive: found True, expected none: the model .* has no slices"):
        laconic.compress(pixels, model=own.name, progressive=True)
    notes: list[str] = []
    laconic.preview(laconic.compress(pixels, model=own.name), notes=notes)
    assert notes == []
