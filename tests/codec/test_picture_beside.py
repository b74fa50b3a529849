"""What stands beside, behind or between the samples of a file is kept or said, and readers print nothing of their own."""

from __future__ import annotations

import io
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import made_pictures as made
import numpy as np
import pytest
from made_pictures import GRAY8, GRAY16, RGB8, RGB16, RGBA8
from PIL import Image

import laconic
from laconic import picture
from laconic import picture_metadata as metadata
from laconic import picture_tiff as tiff
from laconic.picture_words import words_kept
from laconic.picture_writers import write

BOTH = [pytest.param(picture.read, id="lossy"), pytest.param(picture.read_exact, id="exact")]
JPEG, GIF, WEBP = made.pillow(RGB8, "JPEG"), made.pillow(GRAY8, "GIF"), made.pillow(RGB8, "WEBP", lossless=True)
GIF_COLOURS = 13 + (3 << (GIF[10] & 7) + 1)
ICC = bytes(16) + b"RGB " + bytes(200)


def exif_with(**tags: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = tags.get("orientation", 1)
    found[0x010F] = "a maker"
    return found.tobytes()


def notes_of(raw: bytes, read: Any) -> str:
    return "; ".join(read(io.BytesIO(raw)).notes)


def riff(name: bytes, content: bytes) -> bytes:
    body = WEBP[8:] + name + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def frame(first: bool) -> bytes:
    """An animated PNG of one frame, which is the picture that all readers show, or another one."""
    control = made.chunk(b"fcTL", struct.pack(">5I2H2B", 0, 20, 12, 0, 0, 1, 9, 0, 0))
    raw = made.png_of(RGB8, made.chunk(b"acTL", struct.pack(">2I", 1, 0)), *([control] if first else []))
    return raw if first else raw[:-12] + control + made.chunk(b"fdAT", bytes(9)) + raw[-12:]


BESIDE = {
    "PNG, after the end": (made.png_of(RGB8) + b"PK of a zip", "11 bytes after the end of the PNG are not kept"),
    "JPEG, after the end": (JPEG + b"ftypmp42 of a moving photo", "26 bytes after the end of the JPEG are not kept"),
    "GIF, after the end": (GIF + b"more", "4 bytes after the end of the GIF are not kept"),
    "WebP, after the end": (WEBP + b"more", "4 bytes after the end of the WebP are not kept"),
    "PNG, damaged profile": (made.png_of(RGB8, made.chunk(b"iCCP", b"a\0\0junk")), "iCCP (damaged)"),
    "PNG, cut profile": (made.png_of(RGB8, made.chunk(b"iCCP", b"a\0\0" + zlib.compress(ICC)[:-6])), "iCCP (damaged)"),
    "PNG, damaged text": (made.png_of(RGB8, made.chunk(b"zTXt", b"Title\0\0junk")), "zTXt (damaged)"),
    "PNG, damaged UTF-8": (made.png_of(RGB8, made.chunk(b"iTXt", b"Title\0\1\0\0\0junk")), "iTXt (damaged)"),
    "PNG, hidden animation": (frame(False), "only the first of 2 frames"),
    "JPEG, part of a profile": (made.with_segment(JPEG, 0xE2, b"ICC_PROFILE\0\2\2" + ICC), "1 of its 2 parts are there"),
    "JPEG, second EXIF": (
        made.with_segment(made.with_segment(JPEG, 0xE1, exif_with()), 0xE1, exif_with(orientation=6)),
        "a second EXIF of the JPEG is not kept",
    ),
    "JPEG, thumbnail": (made.with_segment(JPEG, 0xE0, b"JFXX\0\x13" + bytes(9)), "the thumbnail of the JFIF is not kept"),
    "GIF, extension": (GIF[:GIF_COLOURS] + b"\x21\xff\x0bPROGRAM_1.0\3abc\0" + GIF[GIF_COLOURS:], "'PROGRAM_1.0' of the GIF"),
    "WebP, chunk": (riff(b"UNKN", b"abcd"), "the chunk UNKN of the WebP is not kept"),
    "BMP of 16 bits": (made.bmp(16, 3, (0x7C00, 0x3E0, 0x1F, 0x8000), bytes(range(24))), "the alpha of the BMP's 16-bit pixels"),
    "BMP, fourth byte": (made.bmp(32, 3, (0xFF0000, 0xFF00, 0xFF, 0), bytes(range(48))), "the fourth byte of the BMP's pixels"),
    "TIFF, black and white": (
        made.tiff(RGB8, photometric="rgb", extratags=[(532, 5, 6, (16, 1, 235, 1) * 3, True)]),
        "the reference black and white of the TIFF",
    ),
}


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("name", BESIDE)
def test_what_is_not_kept_is_said(name: str, read: Any) -> None:
    raw, note = BESIDE[name]
    assert note in notes_of(raw, read)


@pytest.mark.parametrize("read", BOTH)
def test_nothing_is_said_of_what_says_nothing(read: Any) -> None:
    for raw in (JPEG + bytes(9), GIF, WEBP, made.png_of(RGB8) + b"\n", frame(True)):
        assert notes_of(raw, read) == ""
    whole = made.with_segment(made.with_segment(JPEG, 0xE2, b"ICC_PROFILE\0\2\2" + ICC[9:]), 0xE2, b"ICC_PROFILE\0\1\2" + ICC[:9])
    assert read(io.BytesIO(whole)).metadata["icc"] == ICC and notes_of(whole, read) == ""
    plain = made.tiff(RGB8, photometric="rgb", extratags=[(532, 5, 6, (0, 1, 255, 1) * 3, True)])
    assert notes_of(plain, read) == ""


@pytest.mark.parametrize("read", BOTH)
def test_comments_and_xmp_of_gif_are_kept_wherever_they_stand(read: Any) -> None:
    xmp = b"\x21\xff\x0bXMP DataXMP<x>\xc3\xa9</x>\1" + bytes(range(255, -1, -1)) + b"\0"
    for place in (GIF_COLOURS, len(GIF) - 1):
        found = read(io.BytesIO(GIF[:place] + b"\x21\xfe\3one\0\x21\xfe\3two\0" + xmp + GIF[place:])).metadata
        assert found["xmp"] == b"<x>\xc3\xa9</x>"
        assert [text.text for text in metadata.unpack_texts(found["text"])] == [b"one", b"two"]


def test_samples_of_a_narrow_range_are_said_to_be_so() -> None:
    for codes in (b"\1\x0d\0\0", b"\1\1\1\1"):
        found = picture.read_exact(io.BytesIO(made.png_of(RGB8, made.chunk(b"cICP", codes)))).metadata
        assert metadata.unpack_chunks(found["colour"]) == {b"cICP": codes}
    assert not picture.read_exact(io.BytesIO(made.png_of(RGB8, made.chunk(b"cICP", b"\1\x0d\0\1")))).metadata


REFUSED = {
    "volume": (made.tiff(np.zeros((4, 16, 16), np.uint8), photometric="minisblack", volumetric=True, tile=(4, 16, 16)), "TIFF of 8 bits.*volume"),
    "ICC Lab": (made.tiff(RGB8, photometric="icclab"), "TIFF of 8 bits.*ICC Lab"),
    "PNG without palette": (made.png([bytes(4)], 8, 4, 3), "no palette"),
}


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_as_something_else_is_refused(name: str, read: Any) -> None:
    with pytest.raises(laconic.BadInput, match=REFUSED[name][1]):
        read(io.BytesIO(REFUSED[name][0]))


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("make", [made.png_of, made.interlaced])
def test_damage_in_the_stream_of_a_deep_png_is_found(make: Any, read: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """libpng warns on stderr and fills up what it has not."""
    raw = make(RGB16)
    start = raw.index(b"IDAT") + 4
    data = raw[start:-16]
    for bad in (data[:-30], data[:-4] + b"abcd", data[:20] + bytes([data[20] ^ 255]) + data[21:], b""):
        with pytest.raises(laconic.BadInput, match="found damage"):
            read(io.BytesIO(raw[: start - 8] + made.chunk(b"IDAT", bad) + raw[-12:]))
    assert capfd.readouterr() == ("", "")


def test_a_giant_tile_is_refused_before_it_takes_memory() -> None:
    raw = made.tiff(RGB8, photometric="rgb", tile=(16, 16))
    entry = next(i for i in range(len(raw)) if raw[i : i + 2] == struct.pack("<H", 322) and raw[i + 4 : i + 8] == b"\1\0\0\0")
    for value in (1 << 30, 0xFFFFFFF0):
        giant = raw[:entry] + struct.pack("<HHII", 322, 4, 1, value) + raw[entry + 12 :]
        with pytest.raises(laconic.BadInput, match="found damage"):
            picture.read_exact(io.BytesIO(giant))


@pytest.mark.parametrize("read", BOTH)
def test_libtiff_does_not_speak_of_a_lost_directory(read: Any, capfd: pytest.CaptureFixture[str]) -> None:
    raw = made.pillow(GRAY8 > 90, "TIFF", compression="group4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in (len(raw) - 1, len(raw) + 99):
            with pytest.raises(laconic.BadInput, match="directory of the TIFF lies outside"):
                read(io.BytesIO(raw[:4] + struct.pack("<I", start) + raw[8:]))
    assert capfd.readouterr() == ("", "")


def test_a_cut_jpeg_ls_is_refused_at_once() -> None:
    """Its reader goes far beyond the end of such a file."""
    raw = bytes(imagecodecs.jpegls_encode(RGB8))
    start = time.monotonic()
    for n in range(80, len(raw) - 2):
        with pytest.raises(laconic.BadInput, match="truncated"):
            picture.read_exact(io.BytesIO(raw[:n]))
    assert time.monotonic() - start < 10


def test_an_icon_of_16_bits_is_not_reduced_in_silence() -> None:
    inner = bytes(imagecodecs.png_encode(np.resize(RGB16, (16, 16, 3))))
    raw = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 48, len(inner), 22) + inner
    assert "reduced from 16 to 8 bit" in notes_of(raw, picture.read)
    with pytest.raises(laconic.BadInput, match="PNG of 16 bits"):
        picture.read_exact(io.BytesIO(raw))


# Pillow's images


def test_alpha_of_images_in_memory_is_kept() -> None:
    palette = Image.fromarray(RGBA8).quantize(16, method=Image.Quantize.FASTOCTREE)
    assert palette.palette is not None and palette.palette.mode == "RGBA"
    assert np.array_equal(picture.read_exact(palette).samples, np.asarray(palette.convert("RGBA")))
    deep = Image.open(io.BytesIO(made.png_of(GRAY16[:, :, None], made.chunk(b"tRNS", struct.pack(">H", GRAY16[3, 4])))))
    deep.load()
    assert np.array_equal(picture.read_exact(deep).samples[:, :, 1] == 0, GRAY16 == GRAY16[3, 4])


def test_tags_of_a_tiff_image_that_is_loaded_are_kept() -> None:
    image = Image.open(io.BytesIO(made.pillow(RGB8, "TIFF", exif=exif_with(orientation=6))))
    image.load()  # which turns it
    found = picture.read_exact(image)
    assert found.samples.shape == (20, 12, 3) and b"a maker" in found.metadata["exif"]
    assert metadata.orientation_of(found.metadata) == 1


@pytest.mark.parametrize("gamma", [-1.0, 0, float("nan"), float("inf"), "2.2", None, 1e9])
def test_a_gamma_that_is_none_is_overlooked(gamma: Any) -> None:
    image = Image.fromarray(RGB8)
    image.info["gamma"] = gamma
    assert picture.read_exact(image).metadata == {}


# Writing


def test_avif_keeps_every_byte_of_the_exif_and_nobody_warns(capfd: pytest.CaptureFixture[str]) -> None:
    inner = tiff.write({0x0112: tiff.short(6), 0x010F: tiff.Tag(tiff.ASCII, b"a maker\0", "<")})
    exif = tiff.EXIF_PREFIX + inner[:-12] + b"what only a maker knows"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw, notes = write(RGB8, {"exif": exif}, "AVIF")
    assert notes == [] and tiff.upright_exif(exif).removeprefix(tiff.EXIF_PREFIX) in raw
    assert picture.read(io.BytesIO(raw)).pixels.shape == (20, 12, 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_of_avif_that_is_not_kept_whole_is_said(orientation: int, read: Any) -> None:
    class Turned(Image.Exif):
        def tobytes(self, offset: int = 8) -> bytes:
            return exif_with()

    turned = Turned()
    turned[0x0112] = orientation  # in a box of the file; the EXIF says 1
    turned[0x010F] = "a maker"
    found = read(io.BytesIO(made.pillow(RGB8, "AVIF", exif=turned)))
    assert any("without its thumbnail" in note for note in found.notes) == (orientation != 1)
    assert b"a maker" in found.metadata["exif"]


@pytest.mark.parametrize("ratio", [(1 << 34, 1), (1, 1 << 34), ((1 << 34) - 1, 3), ((1 << 33) + 1, (1 << 33) - 1)], ids=str)
def test_any_resolution_can_be_written(ratio: tuple[int, int]) -> None:
    for unit in (metadata.NONE, metadata.INCH, metadata.METRE):
        kept = {"resolution": metadata.pack_resolution(unit, ratio, (2, 1))}
        for format in ("PNG", "JPEG", "TIFF", "BMP"):
            picture.read_exact(io.BytesIO(write(RGB8, kept, format)[0]))


def damaged_tiff(mode: str, compression: str) -> bytes:
    """A compressed TIFF file of a kind that Pillow alone reads, with wrong bytes in the middle of its samples."""
    file = io.BytesIO()
    n_bytes = 64 * 64 * len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8).tobytes()
    Image.frombytes(mode, (64, 64), noise).save(file, "TIFF", compression=compression)
    raw = bytearray(file.getvalue())
    raw[900:1200] = b"\xff" * 300
    return bytes(raw)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_libtiff_in_pillow_speaks_in_notes(mode: str, compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        notes = picture.read(io.BytesIO(damaged_tiff(mode, compression))).notes
    except laconic.BadInput as error:
        assert "damage" in str(error)
    else:
        assert any("the picture may be damaged" in note for note in notes)
    assert capfd.readouterr() == ("", "")


def odd_icon() -> bytes:
    """An icon whose directory states another size than its PNG has."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "ICO", sizes=[(32, 32)])
    raw = bytearray(file.getvalue())
    raw[6:8] = bytes([48, 48])
    return bytes(raw)


def avif_of_broken_exif() -> bytes:
    exif = b"Exif\0\0II*\0" + (8).to_bytes(4, "little") + (9).to_bytes(2, "little") + bytes(3)
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "AVIF", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("make", [odd_icon, avif_of_broken_exif])
def test_warnings_of_pillow_are_notes(make: Callable[[], bytes]) -> None:
    with warnings.catch_warnings(action="ignore"):  # Pillow warns of what it writes too
        raw = make()
    with warnings.catch_warnings(action="error"):
        notes = picture.read(io.BytesIO(raw)).notes
    assert any(note.startswith("Pillow says: ") for note in notes), notes


def test_what_other_threads_warn_of_goes_where_it_went() -> None:
    with warnings.catch_warnings(record=True) as seen, words_kept() as words:
        other = threading.Thread(target=warnings.warn_explicit, args=("theirs", UserWarning, "x.py", 1, "PIL.x"))
        other.start()
        other.join()
        warnings.warn_explicit("ours", UserWarning, "x.py", 2, "PIL.x")
    assert words == ["Pillow says: ours"]
    assert [str(warning.message) for warning in seen] == ["theirs"]
