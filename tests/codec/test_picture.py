"""Pictures: what each format becomes, what is refused and how, what is said of what is lost."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic import payloads, picture, picture_metadata
from laconic.container import write_varint

FORMATS = Path(__file__).parent.parent / "data" / "formats"
UPRIGHT = (128, 80)  # of the orient_ files, with a red box at the top left

# Mode; size; mean and standard deviation of each channel, as Pillow 13 and numpy had them once, without our code;
# (least, greatest, mean) alpha; words of a note. The deviation tells a low byte from a high one; the mean may not.
READS: dict[str, tuple[str, tuple[int, int], list[float], list[float], tuple[int, int, float] | None, str]] = {
    "anim.gif": ("RGB", (64, 48), [80.6, 77.8, 85.8], [61, 44, 41], None, "first of 5 frames"),
    "anim.webp": ("RGB", (64, 48), [80, 78.2, 85.5], [58, 45, 43], None, "first of 5 frames"),
    "baseline_420.jpg": ("RGB", (160, 120), [80.4, 77.8, 85.9], [61, 47, 44], None, ""),
    "bilevel.png": ("L", (97, 61), [78.3], [118], None, ""),
    "cmyk.jpg": ("RGB", (160, 120), [80.5, 77.9, 85.8], [63, 46, 43], None, "converted from CMYK"),
    "exif_gps.jpg": ("RGB", (96, 64), [78, 78.6, 88.6], [56, 42, 40], None, ""),
    "flat.png": ("RGB", (96, 64), [18, 52, 86], [0, 0, 0], None, ""),
    "gamma.png": ("RGB", (64, 48), [80.5, 77.8, 85.8], [60, 44, 41], None, ""),
    "gray.jpg": ("L", (120, 90), [79.5], [48], None, ""),
    "gray16.png": ("L", (64, 48), [124.6], [53], None, "from 16 to 8 bit"),
    "gray8.png": ("L", (96, 64), [79.5], [45], None, ""),
    "gray_alpha.png": ("LA", (96, 64), [79.5], [45], (2, 253, 128), ""),
    "icc_p3.png": ("RGB", (96, 64), [80.9, 80.5, 89.1], [53, 40, 37], None, ""),
    "icc_prophoto.png": ("RGB", (96, 64), [67.3, 64.8, 71.9], [49, 41, 35], None, ""),
    "icc_srgb.png": ("RGB", (96, 64), [77.9, 78.6, 88.5], [58, 42, 39], None, ""),
    "interlaced.png": ("RGB", (96, 72), [80.5, 77.8, 85.8], [62, 45, 42], None, ""),
    "jpeg_named.png": ("RGB", (64, 48), [80.3, 77.8, 86.1], [58, 45, 43], None, ""),
    "lzw.tif": ("RGB", (80, 60), [80.5, 77.8, 85.8], [61, 45, 42], None, ""),
    "multipage.tif": ("RGB", (64, 48), [80.5, 77.8, 85.8], [60, 44, 41], None, "first of 3 frames or pages"),
    "noise.png": ("RGB", (96, 80), [127.4, 128.6, 126.7], [74, 74, 75], None, ""),
    "odd_65x63.png": ("RGB", (65, 63), [83.1, 76.3, 81.5], [63, 47, 44], None, ""),
    "one_pixel.png": ("RGB", (1, 1), [200, 30, 90], [0, 0, 0], None, ""),
    "orient_3.jpg": ("RGB", UPRIGHT, [81.2, 76.6, 87.3], [61, 43, 41], None, ""),
    "orient_6.jpg": ("RGB", UPRIGHT, [81.2, 76.7, 87.3], [61, 43, 41], None, ""),
    "palette_2bit.png": ("RGB", (64, 48), [67.3, 70.7, 81.9], [29, 31, 36], None, ""),
    "palette_trans.png": ("RGBA", (96, 72), [80.4, 78, 86.1], [62, 45, 42], (0, 255, 250.4), ""),
    "plain.ppm": ("RGB", (80, 60), [80.5, 77.8, 85.8], [61, 45, 42], None, ""),
    "progressive.jpg": ("RGB", (160, 120), [80.4, 77.8, 85.9], [61, 47, 44], None, ""),
    "rgb16.png": ("RGB", (48, 36), [127.7, 127.7, 136.8], [56, 56, 47], None, "from 16 to 8 bit"),
    "rgb24.bmp": ("RGB", (81, 60), [80.2, 77.9, 86.2], [61, 44, 41], None, ""),
    "rgb8_trns.png": ("RGBA", (48, 32), [86, 75.2, 94.9], [66, 43, 50], (0, 255, 244.4), ""),
    "rgba16.png": ("RGBA", (40, 24), [128.8, 146.9, 166.8], [52, 42, 35], (128, 238, 178.4), "from 16 to 8 bit"),
    "rgba_opaque.png": ("RGB", (64, 48), [80.5, 77.8, 85.8], [60, 44, 41], None, ""),
    "rgba_soft.png": ("RGBA", (112, 80), [79.5, 78.1, 86.9], [61, 44, 41], (0, 255, 91.5), ""),
    "small_7x5.png": ("RGB", (7, 5), [80.7, 77.8, 85.7], [48, 33, 32], None, ""),
    "still.avif": ("RGB", (160, 120), [79.8, 78.6, 85.5], [61, 46, 44], None, ""),
    "still.webp": ("RGB", (120, 90), [80.3, 78.2, 85.7], [61, 46, 44], None, ""),
    "tall_1x700.png": ("RGB", (1, 700), [136.4, 110.3, 104.7], [87, 57, 46], None, ""),
    "text.png": ("RGB", (160, 96), [228.3, 213.7, 213.7], [59, 78, 78], None, ""),
    "trans.gif": ("RGBA", (48, 48), [118.8, 37.3, 0], [127, 40, 0], (0, 255, 118.8), ""),
    "wide_700x1.png": ("RGB", (700, 1), [57, 77.9, 99.1], [3, 3, 3], None, ""),
    "xmp.jpg": ("RGB", (96, 64), [78, 78.6, 88.6], [56, 42, 40], None, ""),
}
REFUSED = {
    "bad_crc.png": "found damage",
    "corrupt.jpg": "found damage",
    "empty.png": "an empty file",
    "huge_header.png": "pixels: found more than",
    "still.jxl": "a JPEG XL file",
    "text_file.png": "no picture",
    "truncated.jpg": "truncated",
    "truncated.png": "truncated",
    "zero_width.png": "no picture",
}
HAS_METADATA = {
    **{name: {"icc"} for name in ("icc_p3.png", "icc_prophoto.png", "icc_srgb.png")},
    **{name: {"exif"} for name in ("exif_gps.jpg", "orient_3.jpg", "orient_6.jpg")},
    "xmp.jpg": {"xmp"},
    "gamma.png": {"colour"},
    "interlaced.png": {"chunks", "text"},
    "rgb24.bmp": {"resolution"},
}
# Read and compressed and decompressed: each way that pixels, alpha and metadata can take through a file.
ROUND_TRIPS = [
    *("anim.gif", "cmyk.jpg", "gray16.png", "rgb16.png", "odd_65x63.png", "gray8.png", "gray_alpha.png"),
    *("orient_6.jpg", "palette_trans.png", "palette_2bit.png", "exif_gps.jpg", "xmp.jpg", "icc_p3.png"),
]


def file_of(image: Image.Image, format: str, **options: Any) -> io.BytesIO:
    """A picture file in memory, written by Pillow alone."""
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def tiff(bits: list[int], data: bytes) -> io.BytesIO:
    """A 2 x 1 TIFF, gray or RGB, of unsigned integers: Pillow writes no RGB of 16 bits and no gray of 12."""
    at = 8 + len(data) + len(data) % 2
    depths = struct.pack(f"<{len(bits)}H", *bits)
    photometric = 1 if len(bits) == 1 else 2
    tags = {256: 2, 257: 1, 258: bits[0], 259: 1, 262: photometric, 273: 8, 277: len(bits), 278: 1, 279: len(data)}
    entries = [struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items()]
    if len(bits) > 1:
        entries[2] = struct.pack("<HHII", 258, 3, len(bits), at)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    header = b"II*\0" + struct.pack("<I", at + len(depths))
    return io.BytesIO(header + data + bytes(len(data) % 2) + depths + directory)


def png16(colour_type: int, samples: list[int], transparent: list[int]) -> io.BytesIO:
    """A PNG of one row, 16 bits a sample, with a transparent colour, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", len(samples) // len(transparent), 1, 16, colour_type, 0, 0, 0))
    row = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(f">{len(samples)}H", *samples)))
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + key + row + chunk(b"IEND", b""))


def flat(mode: str = "RGB", size: tuple[int, int] = (16, 8)) -> Image.Image:
    return Image.new(mode, size, 100 if mode == "L" else (100, 150, 200, 50)[: len(mode)])


def test_every_file_is_in_a_table() -> None:
    assert {path.name for path in FORMATS.iterdir()} - {"README.md"} == READS.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READS)
def test_formats(name: str) -> None:
    mode, size, means, deviations, alpha, words = READS[name]
    read = picture.read(FORMATS / name)
    image = picture.to_image(read)
    assert (image.mode, image.size) == (mode, size)
    assert read.pixels.mean((0, 1)) == pytest.approx(means, abs=3)
    assert read.pixels.std((0, 1)) == pytest.approx(deviations, abs=3)
    assert alpha_of(read.alpha) == (alpha and pytest.approx(alpha, abs=1))
    assert len(read.notes) == bool(words) and words in "".join(read.notes)
    assert set(read.metadata) == HAS_METADATA.get(name, set())
    if size == UPRIGHT:
        red, green, _ = read.pixels[10, 10].astype(int)
        assert red > green + 60


def resolution(metadata: dict[str, bytes]) -> tuple[int, int] | None:
    """Dots per metre, rounded."""
    found = picture_metadata.resolution_in(metadata["resolution"], picture_metadata.METRE)
    return (round(found[0]), round(found[1])) if found else None


def alpha_of(alpha: np.ndarray | None) -> tuple[int, int, float] | None:
    return None if alpha is None else (alpha.min(), alpha.max(), alpha.mean())


@pytest.mark.parametrize("name", REFUSED)
def test_refused_formats(name: str) -> None:
    with pytest.raises(laconic.BadInput, match=f"{REFUSED[name]}.*, expected"):
        picture.read(FORMATS / name)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trip(name: str) -> None:
    mode, size, means, _, _, words = READS[name]
    notes: list[str] = []
    out = laconic.decompress(laconic.compress(FORMATS / name, quality=80, notes=notes))
    assert words in " ".join(notes)
    assert (out.mode, out.size) == (mode, size)
    read = picture.read(FORMATS / name)
    array = np.asarray(out).reshape(size[1], size[0], -1)
    assert array[:, :, : len(means)].mean((0, 1)) == pytest.approx(means, abs=6)
    assert read.alpha is None or np.array_equal(array[:, :, -1], read.alpha)
    assert {key: out.info.get(picture.INFO_KEYS[key]) for key in read.metadata} == read.metadata


@pytest.mark.parametrize("name", ["rgb16.png", "gray16.png", "anim.gif", "cmyk.jpg"])
def test_conversions_are_warned_of(name: str) -> None:
    with pytest.warns(laconic.LaconicWarning, match=READS[name][-1]):
        laconic.compress(FORMATS / name)


@pytest.mark.parametrize("source", [b"\x89PNG", bytearray(4), memoryview(b""), None, 5], ids=lambda s: type(s).__name__)
def test_what_is_no_picture_is_named(source: Any) -> None:
    with pytest.raises(laconic.BadInput, match=f"picture source: found '{type(source).__name__}', expected a path"):
        laconic.compress(source)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of what we then refuse
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "GIF"])
def test_our_limit_decides_and_pillows_is_put_back(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    file = file_of(flat(), format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture.read(file, max_pixels=128).pixels.shape[:2] == (8, 16)
    assert Image.MAX_IMAGE_PIXELS == 20
    for most in (127, 30, 1):
        file.seek(0)
        with pytest.raises(laconic.BadInput, match=rf"pixels: found .*, expected at most {most} \(--max-pixels\)"):
            picture.read(file, max_pixels=most)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_pillows_limit_is_never_lowered_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for usual, inside in ((20, 20), (5, 10), (None, None)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", usual)
        with picture.pillow_limit(10):
            assert Image.MAX_IMAGE_PIXELS == inside
        assert Image.MAX_IMAGE_PIXELS == usual


def test_threads_do_not_take_one_anothers_limit_for_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with picture.pillow_limit(10):
            first_in.set()
            second_in.wait(0.2)  # in vain
        first_out.set()

    def second() -> None:
        first_in.wait()
        with picture.pillow_limit(10):
            second_in.set()
            first_out.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(timeout=60)
    assert Image.MAX_IMAGE_PIXELS == 5


RGB16, RGB8 = (256, 512, 768, 40000, 50000, 65535), [1, 2, 3, 156, 195, 255]


@pytest.mark.parametrize(
    ("file", "bits", "expected"),
    [
        (io.BytesIO(b"P6 2 1 65535\n" + struct.pack(">6H", *RGB16)), 16, RGB8),
        (io.BytesIO(b"P6 2 1 1023\n" + struct.pack(">6H", 0, 512, 1023, 1023, 0, 0)), 10, [0, 128, 255, 255, 0, 0]),
        (io.BytesIO(b"P5 2 1 65535\n" + struct.pack(">2H", 0x1FF, 40000)), 16, [1, 156]),
        (io.BytesIO(b"P5 2 1 4095\n" + struct.pack(">2H", 0, 4095)), 12, [0, 255]),
        (io.BytesIO(b"P2 2 1 65535\n256 65535\n"), 16, [1, 255]),
        (tiff([16, 16, 16], struct.pack("<6H", *RGB16)), 16, RGB8),
        (tiff([16], struct.pack("<2H", 0x1FF, 40000)), 16, [1, 156]),
        (tiff([12], b"\x01\xff\xff"), 12, [1, 255]),
    ],
    ids=["P6", "P6 of 10 bits", "P5", "P5 of 12 bits", "P2", "RGB TIFF", "gray TIFF", "TIFF of 12 bits"],
)
def test_more_than_8_bits_are_reduced_with_a_note(file: io.BytesIO, bits: int, expected: list[int]) -> None:
    for source in (io.BytesIO(file.getvalue()), Image.open(io.BytesIO(file.getvalue()))):
        read = picture.read(source)
        assert read.pixels.ravel().tolist() == pytest.approx(expected, abs=1)
        assert read.notes == (f"reduced from {bits} to 8 bit per sample",)


def test_no_note_for_8_bits() -> None:
    files = io.BytesIO(b"P6 1 1 255\nabc"), file_of(flat(), "TIFF"), file_of(flat("L"), "TIFF", compression="tiff_lzw")
    assert all(picture.read(file).notes == () for file in files)


@pytest.mark.parametrize(("colour_type", "key"), [(0, [200]), (2, [100, 100, 100])], ids=["gray", "RGB"])
def test_a_transparent_colour_of_16_bits_is_compared_with_16_bits(colour_type: int, key: list[int]) -> None:
    samples = [*key, *(25_600 for _ in key)]  # the second pixel is 100 in 8 bits, and not transparent
    read = picture.read(png16(colour_type, samples, key))
    assert read.alpha is not None and read.alpha.tolist() == [[0, 255]]
    assert read.pixels.ravel().tolist() == [0] * len(key) + [100] * len(key)
    assert read.notes == ("reduced from 16 to 8 bit per sample",)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("I", (4, 4), 200),
        Image.new("I", (4, 4), 40_000),
        Image.new("F", (4, 4), 0.5),
        Image.fromarray(np.full((4, 4), 3e9, np.float32)),
        Image.open(file_of(Image.new("I", (4, 4), 200), "TIFF")),
        Image.open(file_of(Image.new("F", (4, 4), 0.5), "TIFF")),
        Image.open(file_of(Image.new("F", (4, 4), 0.5), "PPM")),
    ],
    ids=lambda image: f"{image.format} {image.mode}",
)
def test_modes_without_a_white_are_refused(image: Image.Image) -> None:
    with pytest.raises(laconic.BadInput, match=f"mode: found '{image.mode}', expected 8-bit samples or I;16"):
        picture.read(image)


@pytest.mark.parametrize("dtype", [np.uint16, ">u2"])
def test_16_bit_modes_keep_their_high_byte(dtype: Any) -> None:
    image = Image.fromarray(np.array([[0x1FF, 0xC0FF]], dtype))
    assert image.mode.startswith("I;16") and picture.read(image).pixels.ravel().tolist() == [1, 0xC0]


def test_unparsable_exif_is_dropped_with_a_note() -> None:
    for format in ("PNG", "JPEG", "WEBP"):
        file = file_of(flat(), format, exif=b"Exif\0\0no TIFF header at all", xmp=b"<x/>")
        read = picture.read(file)
        assert read.pixels.shape == (8, 16, 3) and "exif" not in read.metadata
        assert len(read.notes) == 1 and re.match("EXIF: found damage .*, expected none: it is dropped", read.notes[0])


def test_an_orientation_is_applied_and_every_other_byte_of_the_exif_stays() -> None:
    """Also where a tag has a wrong count, which Pillow cannot write again, and warns of."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x010F, 2, 1 << 20, 9)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = picture.read(file_of(flat(), "JPEG", exif=exif))
    assert read.pixels.shape == (16, 8, 3) and read.notes == ()
    at = exif.index(struct.pack("<HHI", 0x0112, 3, 1)) + 8
    assert read.metadata["exif"] == exif[:at] + b"\1" + exif[at + 1 :]


def later_page_damaged() -> bytes:
    """The directory of the second page lies outside the file."""
    raw = bytearray((FORMATS / "multipage.tif").read_bytes())
    first = struct.unpack_from("<I", raw, 4)[0]
    after_entries = first + 2 + 12 * struct.unpack_from("<H", raw, first)[0]
    struct.pack_into("<I", raw, after_entries, len(raw) - 1)
    return bytes(raw)


def avif_damaged() -> bytes:
    raw = bytearray((FORMATS / "still.avif").read_bytes())
    start = raw.index(b"mdat") + 4
    raw[start:] = bytes(len(raw) - start)
    return bytes(raw)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("damaged", [later_page_damaged, avif_damaged])
def test_damage_that_plugins_report_in_their_own_ways(damaged: Any) -> None:
    for source in (io.BytesIO(damaged()), Image.open(io.BytesIO(damaged()))):
        with pytest.raises(laconic.BadInput, match="picture: found damage .*, expected none"):
            picture.read(source)


@pytest.mark.filterwarnings("ignore")
def test_flipped_and_cut_files_are_read_or_refused() -> None:
    rng = np.random.default_rng(3)
    for name in [*READS, *REFUSED]:
        raw = (FORMATS / name).read_bytes() or b"\0"
        for _ in range(20):
            bad = bytearray(raw[: rng.integers(1, len(raw) + 1)] if rng.random() < 0.3 else raw)
            bad[rng.integers(min(len(bad), 400))] = rng.integers(256)  # headers, where a byte means most
            try:
                picture.read(io.BytesIO(bad), max_pixels=1 << 20)
            except laconic.BadInput as error:
                assert re.search("found .*, expected", str(error), re.DOTALL)


def test_errors_of_ours_and_lack_of_memory_are_not_called_damage() -> None:
    for error in (MemoryError(), laconic.BadFile("ours"), KeyboardInterrupt()):
        with pytest.raises(type(error)), picture.parsing():
            raise error


def test_an_orientation_in_xmp_alone_is_applied_and_taken_out() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="kept"/></x:xmpmeta>'
    for format in ("JPEG", "WEBP"):
        read = picture.read(file_of(flat(), format, xmp=xmp))
        assert read.pixels.shape[:2] == (16, 8)
        assert read.metadata == {"xmp": xmp.replace(b'tiff:Orientation="6"', b"")}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_save_keeps_pixels_and_says_what_alpha_it_drops(format: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48)))
    alpha = rng.integers(0, 256, (48, 64), np.uint8)
    alpha[:9] = 0  # colours that are hidden, and kept where all is
    original = picture.Picture(pixels if "RGB" in mode else pixels[:, :, :1], alpha if "A" in mode else None)
    file = io.BytesIO()
    notes = picture.save(picture.to_image(original), file, format.lower())
    lost_alpha = "A" in mode and format in ("JPEG", "BMP", "PPM")
    assert notes == ((f"alpha dropped: {format} cannot hold it",) if lost_alpha else ())
    saved = Image.open(file)
    assert (saved.mode.endswith("A"), saved.size) == ("A" in mode and not lost_alpha, (64, 48))
    error = np.abs(np.asarray(saved.convert("RGB")).astype(int) - pixels if "RGB" in mode else 0)
    assert error.max() == 0 if format not in ("JPEG", "AVIF") else error.mean() < 4
    if mode == "L":
        assert (saved.mode == "L") == (format != "WEBP")  # which has no gray


def test_save_writes_colours_in_full_resolution() -> None:
    stripes = Image.fromarray(np.tile(np.array([[[220, 40, 40], [40, 40, 220]]], np.uint8), (32, 16, 1)))
    for format in ("JPEG", "AVIF", "WEBP"):
        file = io.BytesIO()
        picture.save(stripes, file, format)
        error = np.abs(np.asarray(Image.open(file).convert("RGB")).astype(int) - np.asarray(stripes))
        assert error.mean() < 4, format  # 4:2:0 makes it 50
        if format == "JPEG":
            expected = Image.open(file_of(stripes, "JPEG", quality=95))
            assert Image.open(file).quantization == expected.quantization  # type: ignore[attr-defined]


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("prefix", [b"Exif\0\0", b""], ids=["prefix", "none, as from WebP"])
def test_save_keeps_metadata(format: str, prefix: bytes) -> None:
    exif = Image.Exif()
    exif[0x010E] = "described"
    exif[0x0100] = 4000  # the width that a camera wrote, which must not become the width of a TIFF
    image = flat()
    image.info.update(exif=prefix + exif.tobytes()[6:], xmp=b"<x>\xc3\xa9</x>", icc_profile=b"profile" * 20_000)
    file = io.BytesIO()
    assert picture.save(image, file, format) == ()
    saved = Image.open(file)
    saved.load()
    assert saved.size == image.size and saved.getexif()[0x010E] == "described"
    assert saved.info["icc_profile"] == image.info["icc_profile"]
    assert picture.of_info(saved)["xmp"] == image.info["xmp"]


def test_save_says_what_metadata_a_format_cannot_hold() -> None:
    image = flat()
    image.info.update(exif=b"Exif\0\0" + bytes(65_528), xmp=b"x" * 65_505, icc_profile=b"profile")
    file = io.BytesIO()
    notes = picture.save(image, file, "JPEG")
    assert notes == (
        "EXIF dropped: found 65534 bytes, expected at most 65533 in JPEG",
        "XMP dropped: found 65505 bytes, expected at most 65504 in JPEG",
    )
    assert {"exif", "xmp"}.isdisjoint(Image.open(file).info) and Image.open(file).info["icc_profile"] == b"profile"
    for format in ("BMP", "PPM"):
        notes = picture.save(image, io.BytesIO(), format)
        assert [note.split()[0] for note in notes] == ["ICC", "EXIF", "XMP"]


def test_save_drops_exif_that_a_format_cannot_be_written_with() -> None:
    image = flat()
    image.info["exif"] = b"Exif\0\0no TIFF header at all"
    for format in ("TIFF", "AVIF"):
        file = io.BytesIO()
        (note,) = picture.save(image, file, format)
        assert note.startswith("EXIF dropped") and Image.open(file).size == image.size


@pytest.mark.parametrize(
    ("format", "size"), [("WEBP", (16_384, 1)), ("AVIF", (65_537, 1)), ("JPEG", (65_536, 1)), ("GIF", (1, 1))]
)
def test_save_refuses_what_a_format_cannot_hold(format: str, size: tuple[int, int]) -> None:
    with pytest.raises(laconic.BadInput, match=f"{format}.*, expected"):
        picture.save(flat(size=size), io.BytesIO(), format)


def test_save_to_a_path_and_to_a_disk_that_fails(tmp_path: Path) -> None:
    picture.save(flat(), tmp_path / "x.png", "PNG")
    assert Image.open(tmp_path / "x.png").size == (16, 8)
    with pytest.raises(FileNotFoundError):
        picture.save(flat(), tmp_path / "none" / "x.png", "PNG")


@pytest.mark.parametrize("options", [{"dpi": (72, 72)}, {}], ids=["dpi", "none"])
def test_a_resolution_is_kept(options: dict[str, Any]) -> None:
    for read in (picture.read_exact, picture.read):
        found = read(file_of(flat(), "PNG", **options))
        assert found.notes == () and len(found.metadata) == len(options)
        if options:
            assert resolution(found.metadata) == (2835, 2835)


def test_the_most_metadata_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MAX_METADATA_BYTES", 100)
    assert payloads.decode_metadata(payloads.encode_metadata(bytes(100))) == bytes(100)
    longer = write_varint(101) + zlib.compress(bytes(101))
    with pytest.raises(laconic.BadFile, match="metadata length"):
        payloads.decode_metadata(longer)


def test_metadata_that_no_file_may_hold_is_refused() -> None:
    with pytest.raises(laconic.BadInput, match="metadata length: found .*, expected at most"):
        payloads.encode_metadata(bytes(payloads.MAX_METADATA_BYTES + 1))
