"""Photos whose tiles are mixed y: the same pixels in fewer bytes, tile by tile, and refused by readers that know none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic import container
from laconic.container import Chunk
from laconic.media import photo_effort, photo_encode, photo_mixed
from laconic.media.photo import KINDS
from laconic.media.photo_effort import effort_of
from laconic.media.photo_mixed import Mixed
from laconic.media.photo_models import MIXED
from laconic.options import Options, Quality

SAMPLE = Path(__file__).parent.parent.parent / "assets" / "sample.webp"
CODEC = laconic.Codec(precision="float32")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.asarray(Image.open(SAMPLE).convert("RGB"))[80:336, 200:584]


def compress(pixels: np.ndarray, mixes: bool, tile: int = 1024, **options: object) -> bytes:
    """As effort 9 does, with less of a search."""
    fields = photo_encode.Fields
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_effort, "MIXES_FROM", 2 if mixes else 10)
        patch.setattr(photo_encode, "Fields", lambda *a, **k: fields(*a, **k, tile=tile))
        return CODEC.compress(pixels, quality=70, effort=2, **options)


@pytest.fixture(scope="module")
def tiled(pixels: np.ndarray) -> bytes:
    return compress(pixels, True, 128)


def kinds(data: bytes) -> list[str]:
    return [name for name, _ in laconic.info(data).chunks]


def test_effort_9_mixes() -> None:
    assert [effort_of(Options(Quality(50), effort=effort)).mixes for effort in (None, 1, 8, 9)] == [False, False, False, True]


def test_the_pixels_are_the_same_in_fewer_bytes(pixels: np.ndarray, tiled: bytes) -> None:
    for mixed, plain in ((compress(pixels, True), compress(pixels, False)), (tiled, compress(pixels, False, 128))):
        assert set(kinds(mixed)) == {"z", "mixed-y"} and set(kinds(plain)) == {"z", "y"}
        assert len(mixed) < 0.995 * len(plain)
        assert np.array_equal(CODEC.decompress(mixed, as_array=True), CODEC.decompress(plain, as_array=True))
        for (a, rows_a), (b, rows_b) in zip(CODEC.coded(mixed), CODEC.coded(plain), strict=True):
            assert np.array_equal(a, b) and np.array_equal(rows_a, rows_b)
        laconic.verify(mixed)


def test_a_tile_is_mixed_only_where_that_is_smaller(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = photo_mixed.encode
    monkeypatch.setattr(photo_mixed, "encode", lambda *a: Mixed(encode(*a) + bytes(1000 * (a[1][2] < 8))))
    data = compress(pixels[:, :320], True, 128)  # the last tile of a row is 4 samples wide
    assert kinds(data) == ["z", *["mixed-y", "mixed-y", "y"] * 2]
    monkeypatch.undo()
    plain = CODEC.decompress(compress(pixels[:, :320], False, 128), as_array=True)
    assert np.array_equal(CODEC.decompress(data, as_array=True), plain)


def test_regions_and_partial_reading(tiled: bytes) -> None:
    whole = CODEC.decompress(tiled, as_array=True)
    part = CODEC.decompress(tiled, region=(140, 100, 200, 60), as_array=True)
    assert laconic.search.psnr_of(part, whole[100:160, 140:340]) > 60
    entry = container.read_table(tiled)[1][2]  # the second tile of six
    bad = bytearray(tiled)
    bad[entry.start + 20] ^= 4
    with pytest.raises(laconic.BadFile):
        CODEC.decompress(bytes(bad))
    notes: list[str] = []
    found = CODEC.decompress(bytes(bad), partial=True, notes=notes, as_array=True)
    assert notes == ["damaged, left out: y of the tile at 128,0 (128 x 128 pixels)"]
    assert np.array_equal(found[:64, :64], whole[:64, :64]) and not np.array_equal(found, whole)


def test_batches_hold_them_too(pixels: np.ndarray, tiled: bytes) -> None:
    plain = compress(pixels, False)
    for data, found in zip([tiled, plain], CODEC.decompress_batch([tiled, plain], as_array=True), strict=True):
        assert np.array_equal(found, CODEC.decompress(data, as_array=True))


def test_a_progressive_photo_has_none(pixels: np.ndarray) -> None:
    assert set(kinds(compress(pixels, True, progressive=True))) == {"z", "slice"}


def test_readers_that_know_none_refuse_the_file(tiled: bytes) -> None:
    older = {kind: name for kind, name in KINDS.items() if kind != MIXED}
    with pytest.raises(laconic.UnsupportedFile, match="kind: found 51, expected a kind that this version knows"):
        container.read(tiled, older)


@pytest.mark.parametrize("change", ["lost", "twice", "before z", "slices among them", "empty", "words"])
def test_chunks_that_make_no_sense_are_refused(tiled: bytes, change: str) -> None:
    header, chunks = container.read(tiled, KINDS)
    z, *tiles = chunks
    first = bytes(tiles[0].payload or b"")
    found = {
        "lost": [z, *tiles[1:]],
        "twice": [z, *tiles, tiles[0]],
        "before z": [tiles[0], z, *tiles[1:]],
        "slices among them": [z, *tiles[1:], Chunk(50, first)],
        "empty": [z, Chunk(MIXED, b""), *tiles[1:]],
        "words": [z, Chunk(MIXED, b"\xf8\xff\xff\xff\x0f" + first[5:]), *tiles[1:]],
    }
    with pytest.raises(laconic.BadFile):
        CODEC.decompress(container.write(header, found[change]))
