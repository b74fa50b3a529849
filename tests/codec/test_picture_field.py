"""What pictures of the field need: depth, the main picture, transparency, orientation, metadata, and the right words."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import imagecodecs
import made_pictures as made
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from made_pictures import GRAY8, GRAY16, RGB8, RGB16, RGBA8, channels
from PIL import Image

import laconic
from laconic import picture
from laconic import picture_metadata as metadata
from laconic import picture_tiff as tiff
from laconic.picture_metadata import Text

BOTH = [pytest.param(picture.read, id="lossy"), pytest.param(picture.read_exact, id="exact")]


def exif(orientation: int = 1, **tags: str) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010E] = tags.get("description", "described")
    found.get_ifd(0x8825)[1] = "N"
    found.get_ifd(0x8825)[2] = (1.5, 2.0, 3.0)
    return found.tobytes()


def exact(raw: bytes) -> picture.Exact:
    return picture.read_exact(io.BytesIO(raw))


def lossy(raw: bytes) -> picture.Picture:
    return picture.read(io.BytesIO(raw))


def through(raw: bytes, format: str = "PNG", **options: Any) -> tuple[bytes, list[str]]:
    """A picture file that was compressed and decompressed into a format, and all notes."""
    notes: list[str] = []
    data = laconic.compress(io.BytesIO(raw), notes=notes, threads=1, **(options or {"lossless": True, "effort": 1}))
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, data, format=format, notes=notes)
    return out.getvalue(), notes


# Depth and channels


@pytest.mark.parametrize("white", [4095, 1000, 100, 15, 1023, 32767])
def test_samples_of_other_depths_keep_their_values(white: int) -> None:
    values = (np.arange(64) % (white + 1)).astype(np.uint16 if white > 255 else np.uint8).reshape(1, 64, 1)
    values[0, -1] = white
    raw = made.pnm(values, white)
    assert np.array_equal(exact(raw).samples, values)
    data = laconic.compress(io.BytesIO(raw), lossless=True, effort=1, notes=[])
    assert np.array_equal(laconic.decompress(data, as_array=True), values)
    back, notes = through(raw, "PPM")
    assert back == b"P5\n64 1\n%d\n" % white + raw.split(b"\n", 3)[3] and notes == []
    shown, notes = through(raw, "PNG")
    full = 65535 if white > 255 else 255
    expected = np.rint(values[0, :, 0].astype(float) * full / white)
    assert np.abs(np.asarray(Image.open(io.BytesIO(shown))).astype(float) - expected).max() <= 1
    assert notes == [f"samples of 0 to {white} are scaled to {8 if full == 255 else 16} bits: PNG cannot hold them as they are"]
    assert np.asarray(laconic.decompress(data)).max() == full


def test_png_says_the_significant_bits_of_scaled_samples() -> None:
    values = np.array([[[0], [1], [4095]]], np.uint16)
    shown, _ = through(made.pnm(values, 4095))
    assert made.chunk(b"sBIT", b"\x0c") in shown
    assert np.array_equal(exact(shown).samples >> 4, values)


@pytest.mark.parametrize("name", ["JPEG 2000", "AVIF"])
def test_deep_colour_of_other_formats_is_not_reduced_in_silence(name: str) -> None:
    raw = made.jp2(RGB16) if name == "JPEG 2000" else made.avif(RGB16 >> 6, bitspersample=10)
    found = exact(raw)
    assert found.samples.dtype == np.uint16 and found.notes == ()
    if name == "JPEG 2000":
        assert np.array_equal(found.samples, RGB16)
    else:
        assert picture.white_of(found.metadata, 16) == 1023 and np.abs(found.samples.astype(int) - (RGB16 >> 6)).mean() < 16
    assert any("to 8 bit" in note for note in lossy(raw).notes)
    opened = picture.read_exact(Image.open(io.BytesIO(raw)))
    assert np.array_equal(opened.samples, found.samples)


@pytest.mark.parametrize("n", [2, 4])
def test_a_channel_of_unknown_meaning_is_kept_and_said(n: int) -> None:
    array = channels(RGBA8, n)
    raw = made.tiff(array, photometric="rgb" if n == 4 else "minisblack", extrasamples=["unspecified"])
    found = exact(raw)
    assert np.array_equal(found.samples, array) and "whose meaning the TIFF does not say" in found.notes[0]
    seen = lossy(raw)
    assert seen.alpha is None and np.array_equal(seen.pixels, array[:, :, : n - 1]) and len(seen.notes) == 1


def test_premultiplied_alpha_is_refused_or_noted() -> None:
    raw = made.tiff(RGBA8, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(laconic.BadInput, match="premultiplied"):
        exact(raw)
    assert lossy(raw).notes == ("the premultiplied alpha is divided out of the colours",)


def test_white_is_0() -> None:
    for array in (GRAY8, GRAY16):
        raw = made.tiff(array, photometric="miniswhite")
        assert np.array_equal(exact(raw).samples[:, :, 0], np.iinfo(array.dtype).max - array)
        assert np.array_equal(lossy(raw).pixels[:, :, 0], 255 - (array if array.dtype == np.uint8 else array >> 8))


# Another picture than the main one


def pages(*which: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for options in which:
            writer.write(options.pop("data", RGB8), photometric="rgb", metadata=None, **options)
    return file.getvalue()


@pytest.mark.parametrize("read", BOTH)
def test_a_thumbnail_is_not_taken_for_the_picture(read: Any) -> None:
    small = np.ascontiguousarray(RGB8[::4, ::4])
    refused = [
        pages({"data": small, "subfiletype": 1, "subifds": 1}, {}),
        pages({"data": small, "subifds": 1}, {}),
        pages({"data": small, "subfiletype": 1}, {}),
        pages({"extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}),
    ]
    for raw in refused:
        with pytest.raises(laconic.BadInput, match="reduced picture|larger picture in a SubIFD|camera raw"):
            read(io.BytesIO(raw))
    found = read(io.BytesIO(pages({"subifds": 1}, {"data": small, "subfiletype": 1})))
    assert found.notes == ("pictures in SubIFDs of the TIFF are not kept: 1",)


@pytest.mark.parametrize("read", BOTH)
def test_further_pictures_of_a_file_are_said(read: Any) -> None:
    frames = [Image.fromarray(RGB8), Image.fromarray(RGB8[::-1].copy())]
    for format in ("GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO"):
        file = io.BytesIO()
        frames[0].save(file, format, save_all=True, append_images=frames[1:])
        assert "only the first of 2 frames or pages is kept" in read(io.BytesIO(file.getvalue())).notes, format
    icons = made.pillow(np.resize(RGB8, (32, 32, 3)), "ICO", sizes=[(16, 16), (32, 32)])
    assert read(io.BytesIO(icons)).notes == ("only the largest of 2 pictures is kept",)


@pytest.mark.parametrize("read", BOTH)
def test_what_stands_beside_or_after_the_samples_is_said(read: Any) -> None:
    two = made.pnm(RGB8, 255) * 2
    assert read(io.BytesIO(two)).notes == ("only the first picture of the file is kept",)
    bmp = bytearray(made.pillow(RGBA8, "BMP"))
    struct.pack_into("<I", bmp, 30, 0)  # no masks: the fourth byte has no name
    assert "fourth byte" in "".join(read(io.BytesIO(bytes(bmp))).notes)
    gif = made.pillow(GRAY8, "GIF")
    end = 13 + 3 * 256
    profile = b"\x21\xff\x0bICCRGBG1012\3abc\0"
    assert read(io.BytesIO(gif[:end] + profile + gif[end:])).notes == ("the ICC profile of the GIF is not kept",)
    linear = bytearray(made.pillow(RGB8, "QOI"))
    linear[13] = 1
    assert read(io.BytesIO(bytes(linear))).notes == ("the samples of the QOI are linear, which is not kept",)


# Transparency and orientation


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_is_compared_in_its_own_depth(bits: int) -> None:
    values = (np.arange(16) * 4369 if bits == 16 else np.arange(16)) % (1 << bits)
    packed = sum(int(v) << bits * (15 - i) for i, v in enumerate(values)).to_bytes(2 * bits, "big")
    raw = made.png([packed], 16, bits, 0, made.chunk(b"tRNS", struct.pack(">H", int(values[1]))))
    for array in (exact(raw).samples, picture.to_array(lossy(raw))):
        assert np.array_equal(array[0, :, 1] == 0, values == values[1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_survives_stripping_and_formats_without_one(orientation: int) -> None:
    raw = made.pillow(RGB8, "PNG", exif=exif(orientation))
    expected = np.asarray(made.Image.fromarray(RGB8))
    upright = np.asarray(ImageOps_transposed(raw))
    assert np.array_equal(lossy(raw).pixels, upright)
    stripped = picture.stripped(exact(raw).metadata)
    assert set(stripped) == ({"exif"} if orientation > 1 else set())
    assert metadata.orientation_of(stripped) == orientation and len(stripped.get("exif", b"")) < 40
    for format in ("PNG", "TIFF", "WEBP", "BMP", "PPM"):
        out = io.BytesIO()
        picture.save_exact(picture.Exact(expected, stripped), out, format)
        shown = lossy(out.getvalue()).pixels
        assert np.array_equal(shown, upright), format


def ImageOps_transposed(raw: bytes) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))


def test_strip_keeps_the_orientation_through_a_file() -> None:
    raw = made.pillow(RGB8, "JPEG", exif=exif(6), quality=95)
    notes: list[str] = []
    data = laconic.compress(io.BytesIO(raw), lossless=True, strip=True, effort=1, notes=notes)
    image = laconic.decompress(data)
    assert image.getexif()[0x0112] == 6 and 0x010E not in image.getexif() and notes == []
    assert [kind for kind, _ in laconic.info(data).chunks] == ["tile", "exif"]


# Metadata

TEXTS = [Text(b"Title", "Übung".encode()), Text(b"Long", b"x" * 3000), Text(b"K", "日本".encode(), b"ja", b"k")]
EVERYTHING = {
    "icc": b"a profile" * 20,
    "exif": exif(),
    "xmp": b"<x>\xff not UTF-8 \xe9</x>",
    "text": metadata.pack_texts(TEXTS),
    "resolution": metadata.pack_resolution(metadata.METRE, (3000, 1), (6000, 1)),
    "colour": metadata.pack_chunks({b"cICP": bytes([9, 16, 0, 1]), b"gAMA": struct.pack(">I", 100000)}),
    "iptc": metadata.image_resource(0x0404, b"\x1c\x02\x05\0\3abc"),
    "chunks": metadata.pack_chunks({b"tIME": bytes(7)}),
}


@pytest.mark.parametrize("options", [{"quality": 80, "fallback": False}, {"lossless": True, "effort": 1}, {"max_error": 1, "effort": 1}], ids=str)
def test_all_metadata_comes_back_through_a_file(options: dict[str, Any]) -> None:
    out = io.BytesIO()
    assert picture.save_exact(picture.Exact(RGB8, dict(EVERYTHING)), out, "PNG") == ()
    assert exact(out.getvalue()).metadata == EVERYTHING
    back, notes = through(out.getvalue(), "PNG", **options)
    assert exact(back).metadata == EVERYTHING and not [note for note in notes if "larger than" not in note]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "BMP", "PPM"])
def test_each_format_holds_metadata_or_a_note_says_so(format: str) -> None:
    out = io.BytesIO()
    notes = picture.save(picture.to_image(picture.Picture(RGB8, None, dict(EVERYTHING))), out, format)
    found = exact(out.getvalue()).metadata
    for name in EVERYTHING:
        assert name in found or f"{metadata.said(name)} dropped: {format}" in " ".join(notes), name
    for name in ("icc", "xmp", "iptc"):
        assert found.get(name, EVERYTHING[name]) == EVERYTHING[name]
    if "exif" in found:
        image = Image.open(io.BytesIO(out.getvalue()))
        image.load()
        assert image.getexif()[0x010E] == "described" and image.getexif().get_ifd(0x8825)[2] == (1.5, 2.0, 3.0)
    if "resolution" in found:
        per_metre = metadata.resolution_in(found["resolution"], metadata.METRE)
        assert per_metre and [round(float(v), -2) for v in per_metre] == [3000, 6000]


@pytest.mark.parametrize("read", BOTH)
def test_tags_of_tiff_are_kept(read: Any) -> None:
    geo = [(33550, "d", 3, (1.5, 2.5, 0.0), True), (34735, "H", 4, (1, 1, 0, 7), True), (42113, "s", 0, "-9999", True)]
    raw = made.tiff(RGB8, photometric="rgb", resolution=(300, 150), description="seen", extratags=geo)
    found = read(io.BytesIO(raw))
    assert metadata.unpack_resolution(found.metadata["resolution"]) == (metadata.INCH, 300, 150)
    samples = found.pixels if isinstance(found, picture.Picture) else found.samples
    out = io.BytesIO()
    picture.save_exact(picture.Exact(samples, found.metadata), out, "TIFF")
    page = tifffile.TiffFile(io.BytesIO(out.getvalue())).pages[0]
    tags = {tag.code: (tag.dtype.name, tag.value) for tag in page.tags}  # type: ignore[union-attr]
    assert tags[33550] == ("DOUBLE", (1.5, 2.5, 0.0)) and tags[34735] == ("SHORT", (1, 1, 0, 7))
    assert tags[42113][1] == "-9999" and tags[270][1] == "seen" and tags[282][1] == (300, 1)


@pytest.mark.parametrize("read", BOTH)
def test_raw_profiles_of_png_are_read(read: Any) -> None:
    own = exif()[6:]
    text = b"\nexif\n%8d\n" % len(own) + own.hex().encode() + b"\n"
    iptc = b"\niptc\n%8d\n" % 4 + b"8BIM".hex().encode()
    raw = made.png_of(
        RGB8,
        made.chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        made.chunk(b"tEXt", b"Raw profile type iptc\0" + iptc),
    )
    found = read(io.BytesIO(raw))
    assert found.metadata == {"exif": exif(), "iptc": b"8BIM"} and found.notes == ()


@pytest.mark.parametrize("read", BOTH)
def test_what_jpeg_holds_beside_its_samples(read: Any) -> None:
    raw = made.pillow(RGB8, "JPEG", dpi=(300, 200), comment=b"caf\xe9")
    raw = made.with_segment(raw, 0xED, b"Photoshop 3.0\0" + EVERYTHING["iptc"])
    found = read(io.BytesIO(raw))
    assert metadata.unpack_texts(found.metadata["text"]) == [Text(b"", b"caf\xe9")]
    assert metadata.unpack_resolution(found.metadata["resolution"]) == (metadata.INCH, 300, 200)
    assert found.metadata["iptc"] == EVERYTHING["iptc"] and found.notes == ()
    extended = made.with_segment(raw, 0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60))
    assert read(io.BytesIO(extended)).notes == ("extended XMP is not kept",)
    other = made.with_segment(raw, 0xEB, b"JP\0\1 of a camera")
    assert read(io.BytesIO(other)).notes == ("the segment APP11 of the JPEG is not kept (JP)",)


@pytest.mark.parametrize("read", BOTH)
def test_colour_that_is_not_srgb_is_kept(read: Any) -> None:
    codes, primaries = made.chunk(b"cICP", bytes([9, 16, 0, 1])), struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    raw = made.png_of(RGB8, codes, made.chunk(b"cHRM", primaries))
    found = metadata.unpack_chunks(read(io.BytesIO(raw)).metadata["colour"])
    assert found == {b"cICP": bytes([9, 16, 0, 1]), b"cHRM": primaries}
    plain = made.png_of(RGB8, made.chunk(b"sRGB", b"\0"), made.chunk(b"gAMA", struct.pack(">I", 45455)))
    assert read(io.BytesIO(plain)).metadata == {}
    hdr = made.avif(RGB16 >> 6, bitspersample=10, primaries=9, transfer=16, matrix=9)
    assert metadata.unpack_chunks(read(io.BytesIO(hdr)).metadata["colour"]) == {b"cICP": bytes([9, 16, 0, 1])}


def icc(space: bytes) -> bytes:
    return bytes(16) + space.ljust(4) + bytes(108)


def test_profiles_of_jp2_and_bmp_are_kept_and_of_other_samples_dropped() -> None:
    own = bytearray(made.jp2(RGB8))
    at = own.index(b"colr") - 4
    box = struct.pack(">I", 11 + len(icc(b"RGB"))) + b"colr\2\0\0" + icc(b"RGB")
    header = own.index(b"jp2h") - 4
    size = int.from_bytes(own[header : header + 4], "big") + len(box) - 15
    own[at : at + 15] = box
    own[header : header + 4] = size.to_bytes(4, "big")
    assert exact(bytes(own)).metadata["icc"] == icc(b"RGB")
    bmp = bytearray(made.pillow(RGB8, "BMP"))
    v5 = struct.pack("<I", 124) + bmp[18:54] + bytes(16) + b"DEBM" + bytes(48 + 4)
    profile = icc(b"RGB")
    samples = bytes(bmp[54:])
    v5 += struct.pack("<3I", 124 + len(samples), len(profile), 0)
    file = bmp[:10] + struct.pack("<I", 14 + 124) + v5 + samples + profile
    found = exact(bytes(file))
    assert np.array_equal(found.samples, RGB8) and found.metadata["icc"] == profile
    for read in (exact, lossy):
        unfit = read(made.pillow(RGB8, "PNG", icc_profile=icc(b"Lab")))
        assert unfit.metadata == {} and unfit.notes == ("ICC dropped: it is a profile of Lab, and the samples are RGB",)
    gray = io.BytesIO()
    notes = picture.save_exact(picture.Exact(GRAY8[:, :, None], {"icc": icc(b"GRAY")}), gray, "WEBP")
    assert notes == ("ICC dropped: it is a profile of GRAY, and the samples are RGB",)


def test_a_profile_of_cmyk_is_said_to_be_dropped() -> None:
    file = io.BytesIO()
    Image.fromarray(RGB8).convert("CMYK").save(file, "JPEG", icc_profile=icc(b"CMYK"))
    assert lossy(file.getvalue()).notes[-1] == "ICC dropped: it is a profile of CMYK, and the samples are RGB"


texts = st.builds(Text, *[st.binary(max_size=9)] * 4)


@given(st.lists(texts))
def test_texts_come_back(given_texts: list[Text]) -> None:
    assert metadata.unpack_texts(metadata.pack_texts(given_texts)) == given_texts


@given(st.binary(max_size=40))
def test_any_bytes_as_metadata_are_read_or_an_error(data: bytes) -> None:
    for unpack in (metadata.unpack_texts, metadata.unpack_resolution, metadata.unpack_chunks):
        try:
            unpack(data)
        except laconic.BadFile as error:
            assert "found" in str(error)


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b""]))
def test_any_bytes_as_exif_are_read_or_an_error(data: bytes, start: bytes) -> None:
    for raw in (start + data, b"Exif\0\0" + start + data):
        try:
            found = tiff.upright_exif(raw)
        except laconic.BadInput:
            continue
        assert len(found) == len(raw) and tiff.orientation_of(found) in (None, 1)


# Damage

NOISE = np.random.default_rng(0).integers(0, 65536, (64, 64, 3)).astype(np.uint16)
WHOLE = {
    "PNG": made.png_of(NOISE),
    "TIFF": made.tiff(NOISE, photometric="rgb"),
    "TIFF of 8 bits": made.tiff(NOISE.astype(np.uint8), photometric="rgb"),
    "packed TIFF": made.tiff(NOISE, photometric="rgb", compression="lzw", rowsperstrip=8),
    "JPEG 2000": made.jp2(NOISE),
    "JPEG 2000 of 8 bits": made.jp2(NOISE.astype(np.uint8)),
    "JPEG-LS": bytes(imagecodecs.jpegls_encode(NOISE)),
    "JPEG of 12 bits": bytes(imagecodecs.jpeg_encode(NOISE >> 4, bitspersample=12)),
    "lossless JPEG": bytes(imagecodecs.jpeg_encode(NOISE, bitspersample=16, lossless=True)),
    "AVIF": made.avif(NOISE >> 6, bitspersample=10),
    "WebP": made.pillow(NOISE.astype(np.uint8), "WEBP", lossless=True),
    "PGM": made.pnm(NOISE[:, :, :1], 65535),
    "plain PPM": made.pnm(NOISE, 65535, plain=True),
    **{name: made.pillow(NOISE.astype(np.uint8), name) for name in ("BMP", "TGA", "SGI", "PCX", "QOI", "ICO")},
}


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize("name", WHOLE)
def test_no_reader_fills_up_what_a_cut_file_lacks(name: str, read: Any) -> None:
    raw = WHOLE[name]
    read(io.BytesIO(raw))
    for part in (0.5, 0.9, 0.98):
        with pytest.raises(laconic.BadInput, match="found .*, expected"):
            read(io.BytesIO(raw[: int(len(raw) * part)]))


# Words and limits

NAMED = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(99),
    "OpenEXR": b"v/1\x01\2\0\0\0" + bytes(99),
    "JPEG XL": b"\xff\x0a" + bytes(99),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "camera raw": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99),
    "PDF": b"%PDF-1.7\n",
    "Radiance HDR": b"#?RADIANCE\n",
    "PAM": b"P7\nWIDTH 1\n",
    "DICOM": bytes(128) + b"DICM" + bytes(99),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_picture_that_is_not_read_is_named_and_not_called_damaged(name: str) -> None:
    for read in (picture.read, picture.read_exact):
        with pytest.raises(laconic.BadInput, match=f"found an? {name} file.*, expected") as caught:
            read(io.BytesIO(NAMED[name]))
        assert "damage" not in str(caught.value)


def test_jpeg_of_12_bits_is_read() -> None:
    raw = bytes(imagecodecs.jpeg_encode(RGB16 >> 4, bitspersample=12))
    found = exact(raw)
    assert picture.white_of(found.metadata, 16) == 4095 and np.abs(found.samples.astype(int) - (RGB16 >> 4)).mean() < 200


@pytest.mark.parametrize("read", BOTH)
def test_arrays_that_are_more_than_arrays(read: Any) -> None:
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(np.zeros((4, 4), np.uint8))
    for array in (matrix, np.ma.masked_array(GRAY8, GRAY8 > 3)):
        with pytest.raises(laconic.BadInput, match="array: found"):
            read(array)


def test_a_few_bytes_do_not_cost_gigabytes() -> None:
    def declared(side: int) -> bytes:
        head = made.chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + made.chunk(b"IDAT", zlib.compress(bytes(99))) + made.chunk(b"IEND", b"")

    for read in (picture.read, picture.read_exact):
        with pytest.raises(laconic.BadInput, match="pixels: found .*, expected at most"):
            read(io.BytesIO(declared(30_000)))
        with pytest.raises(laconic.BadInput, match="truncated"):
            read(io.BytesIO(declared(16_000)))


RGB16_HEAD = struct.pack(">IIBBBBB", made.WIDTH, made.HEIGHT, 16, 2, 0, 0, 0)  # all of IHDR but the checksum


def noisy() -> list[bytes]:
    """Files that readers complain of on stderr, or by Python's warnings."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 1) + struct.pack("<HHII", 0x010F, 2, 1 << 20, 9)
    wrong_count = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    damaged = bytearray(made.tiff(noise, photometric="minisblack", compression="lzw"))
    damaged[900:1200] = b"\xff" * 300
    return [
        made.pillow(RGB8, "JPEG", exif=wrong_count),
        made.pillow(RGB8, "PNG", exif=wrong_count),
        made.pillow(RGB8, "WEBP", exif=wrong_count),
        made.tiff(RGB8, photometric="rgb", compression="lzw", extratags=[(65000, "H", 3, (1, 2, 3), True)]),
        made.png_of(RGB16, made.chunk(b"iCCP", b"x\0\0junk"), made.chunk(b"sRGB", b"\0"), made.chunk(b"gAMA", bytes(4))),
        bytes(damaged),
        *(made.png_of(RGB16).replace(RGB16_HEAD, head) for head in (RGB16_HEAD[:-3] + b"\1\0\0", RGB16_HEAD[:-3] + b"\0\1\0")),
    ]


@pytest.mark.parametrize("read", BOTH)
def test_readers_say_nothing_themselves(read: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for raw in noisy():
            try:
                read(io.BytesIO(raw))
            except laconic.BadInput as error:
                assert "damage" in str(error)
    assert capfd.readouterr().err == ""


