"""The Pillow plugin opens and saves by path and file object, with metadata, as Pillow's own plugins do."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import laconic
import laconic.pillow
from laconic import container
from laconic.container import Chunk

FORMATS = Path(__file__).parent.parent / "data" / "formats"


def exif(text: str) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010E] = text
    return tags


@pytest.fixture(scope="module")
def described() -> bytes:
    """A file with EXIF, ICC and XMP."""
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    image.info.update(exif=exif("described").tobytes(), icc_profile=b"profile", xmp=b"<x/>")
    return laconic.compress(image)


@pytest.mark.parametrize("name", ["gray8.png", "rgba_soft.png", "gray_alpha.png", "gray16.png", "icc_p3.png"])
def test_lossless_there_and_back(name: str, tmp_path: Path) -> None:
    image = Image.open(FORMATS / name)
    image.save(tmp_path / "x.lac", lossless=True, effort=1)
    opened = Image.open(tmp_path / "x.lac")
    assert (opened.mode, opened.size, opened.info.get("icc_profile")) == (
        image.mode,
        image.size,
        image.info.get("icc_profile"),
    )
    assert np.array_equal(np.asarray(opened), np.asarray(image))


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 3), np.uint16), laconic.Sound(np.zeros(9, np.int16), 8000, 16)], ids=["deep", "sound"]
)
def test_what_pillow_cannot_hold_is_said(array: object) -> None:
    with pytest.raises(UnidentifiedImageError, match="found .*, expected"):
        Image.open(io.BytesIO(laconic.compress(array, lossless=True)))


@pytest.mark.parametrize("name", ["interlaced.png", "gray8.png", "rgba_soft.png", "gray_alpha.png"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    image = Image.open(FORMATS / name)
    image.save(tmp_path / "x.lac", quality=70)
    opened = Image.open(tmp_path / "x.lac")
    assert opened.size == image.size and opened.format == "LACONIC"
    expected = laconic.decompress(tmp_path / "x.lac")
    assert opened.mode == expected.mode and np.array_equal(np.asarray(opened), np.asarray(expected))
    file = io.BytesIO()
    image.save(file, format="LACONIC", quality=70)
    assert file.getvalue() == (tmp_path / "x.lac").read_bytes()


def test_load_closes_the_files_that_it_opened_and_no_others(described: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.lac").write_bytes(described)
    file = io.BytesIO(described)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        ours, others = Image.open(tmp_path / "x.lac"), Image.open(file)
        handle = ours.fp
        ours.load()
        others.load()
    assert handle is not None and handle.closed and ours.fp is None and not file.closed
    assert ours.getpixel((0, 0)) == others.getpixel((0, 0))


def test_metadata_is_there_before_the_pixels(described: bytes) -> None:
    image = Image.open(io.BytesIO(described))
    expected = {"exif": exif("described").tobytes(), "icc_profile": b"profile", "xmp": b"<x/>"}
    assert image.info == expected and image.getexif()[0x010E] == "described"
    image.load()
    assert image.info == expected


def test_options_of_save_come_before_the_info(described: bytes) -> None:
    image = Image.open(io.BytesIO(described))
    file = io.BytesIO()
    image.save(file, "LACONIC", exif=exif("anew"), icc_profile=None, xmp=b"<y/>")
    saved = Image.open(file)
    assert saved.getexif()[0x010E] == "anew" and saved.info["xmp"] == b"<y/>" and "icc_profile" not in saved.info
    assert image.info["icc_profile"] == b"profile"
    image = Image.open(FORMATS / "xmp.jpg")
    image.info["XML:com.adobe.xmp"] = "<z/>"  # as PNG files have it
    image.save(file := io.BytesIO(), "LACONIC", xmp=None)
    assert "xmp" not in Image.open(file).info


def test_an_image_can_be_pickled(described: bytes) -> None:
    image = pickle.loads(pickle.dumps(Image.open(io.BytesIO(described))))
    assert np.array_equal(np.asarray(image), laconic.decompress(described, as_array=True))


def test_a_file_that_cannot_be_opened_says_why(described: bytes) -> None:
    newer = bytearray(described)
    newer[len(container.MAGIC)] += 1
    cases = {bytes(newer): "version: found 2, expected 1; a newer", b"\x89Lc\r\n" + bytes(40): "version: found 0"}
    for data, reason in cases.items():
        with pytest.raises(UnidentifiedImageError, match=reason):
            Image.open(io.BytesIO(data))


def test_damage_and_chunks_of_a_newer_version_are_said_when_loading(described: bytes) -> None:
    header, chunks = container.read(described, range(256))
    newer = container.write(header, [*chunks, Chunk(99, b"later")])
    for data, error in ((newer, laconic.UnsupportedFile), (described[:-1], laconic.BadFile)):
        image = Image.open(io.BytesIO(data))
        assert image.size == (8, 8) and "exif" in image.info
        with pytest.raises(error, match="found .*, expected"):
            image.load()


def test_verify_finds_a_cut_file(described: bytes) -> None:
    Image.open(io.BytesIO(described)).verify()
    with pytest.raises(laconic.BadFile, match="length: found .*, expected"):
        Image.open(io.BytesIO(described[:-1])).verify()
