"""The loss test: a made file for each row of the table of readers comes back whole, or is refused, or its loss is said."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import imagecodecs
import made_pictures as made
import numpy as np
import pytest
from made_pictures import GRAY8, GRAY16, RGB8, RGB16, RGBA8, RGBA16, channels

import laconic
from laconic import picture, picture_formats
from laconic.picture_formats import PILLOW, WAYS, Way, choose
from laconic.picture_looks import look

Case = tuple[bytes, np.ndarray | None]  # a file and its samples [H, W, C], None where any reader makes its own of them


def cases(way: Way) -> Iterator[Case]:
    """Files that a row is for, as many as it has depths and channels that can be made."""
    for bits in way.bits:
        for n in way.channels:
            yield from MAKERS[way.format](way, bits, n)


def png_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    if bits in (8, 16):
        array = channels(RGBA8 if bits == 8 else RGBA16, n)
        yield made.png_of(array), array
        if bits == 16:
            yield made.interlaced(array), array
    if bits in (8, 16) and n in (1, 3) and "key" in way.traits:
        key = array[3, 4]
        hidden = (array == key).all(2)[:, :, None]
        alpha = np.where(hidden, 0, np.iinfo(array.dtype).max).astype(array.dtype)
        yield made.png_of(array, made.chunk(b"tRNS", key.astype(">u2").tobytes())), np.dstack([array, alpha])
    if bits < 8 and n == 1:
        values = np.arange(16) % (1 << bits)
        whole = sum(int(v) << bits * (16 - 1 - i) for i, v in enumerate(values)).to_bytes(2 * bits, "big")
        samples = (values * (255 // ((1 << bits) - 1))).astype(np.uint8).reshape(1, 16, 1)
        yield made.png([whole], 16, bits, 0), samples
        alpha = np.where(values == 1, 0, 255).astype(np.uint8).reshape(1, 16, 1)
        yield made.png([whole], 16, bits, 0, made.chunk(b"tRNS", b"\0\1")), np.dstack([samples, alpha])
        palette = RGB8.reshape(-1, 3)[: 1 << bits]
        yield made.png([whole], 16, bits, 3, made.chunk(b"PLTE", palette.tobytes())), palette[values][None]


def jpeg_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    if "lossless" in way.traits:
        if bits in (8, 12, 16) and n == 1:
            array = GRAY16 >> (16 - bits)
            array = array.astype(np.uint8) if bits == 8 else array
            yield bytes(imagecodecs.jpeg_encode(array, bitspersample=bits, lossless=True)), array[:, :, None]
    elif bits == 12:
        yield bytes(imagecodecs.jpeg_encode((GRAY16 if n == 1 else RGB16) >> 4, bitspersample=12)), None
    else:
        array = channels(RGBA8, 1) if n == 1 else RGB8
        image = made.Image.fromarray(array.squeeze()).convert("CMYK") if n == 4 else made.Image.fromarray(array.squeeze())
        yield made.pillow(np.asarray(image), "JPEG") if n < 4 else cmyk_jpeg(image), None


def cmyk_jpeg(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def jpegls_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    if bits in (8, 16):
        array = channels(RGBA8 if bits == 8 else RGBA16, n)
        yield bytes(imagecodecs.jpegls_encode(array.squeeze())), array


def jp2_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    if bits == 8 or bits > 9:
        array = channels(RGBA8 if bits == 8 else RGBA16 >> (16 - bits), n)
        for kind in ("jp2", "j2k"):
            yield made.jp2(array.squeeze() if n == 1 else array, bitspersample=bits, codecformat=kind), array


def avif_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    if "premultiplied" in way.traits:
        if n == 4:
            yield made.pillow(RGBA8, "AVIF", quality=100, subsampling="4:4:4", alpha_premultiplied=True), None
        return
    array = channels(RGBA8 if bits == 8 else RGBA16 >> (16 - bits), n)
    if n != 2:
        yield made.avif(array.squeeze(), **({"bitspersample": bits} if bits > 8 else {})), None


def tiff_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    if way.traits & {"YCbCr", "CMYK", "Lab", "premultiplied"}:
        kinds = {"YCbCr": "ycbcr", "CMYK": "separated", "Lab": "cielab"}
        kind = next((kinds[trait] for trait in kinds if trait in way.traits), "rgb")
        options = {"extrasamples": ["assocalpha"]} if "premultiplied" in way.traits else {}
        if (kind == "ycbcr") <= (n == 3):
            yield made.tiff(channels(RGBA8, n), photometric=kind, **options), None
        return
    if "palette" in way.traits:
        if bits == 8:
            colours = RGB16.reshape(-1, 3)[:256]
            table = np.zeros((256, 3), np.uint16)
            table[: len(colours)] = colours
            plain = (table >> 8) * 257
            yield made.tiff(GRAY8, photometric="palette", colormap=plain.T), (table >> 8).astype(np.uint8)[GRAY8]
            yield made.tiff(GRAY8, photometric="palette", colormap=table.T), table[GRAY8]
        return
    if bits == 1:
        black = np.where(GRAY8 > 90, 255, 0).astype(np.uint8)[:, :, None]
        yield made.tiff(GRAY8 > 90, photometric="minisblack"), black
        yield made.tiff(GRAY8 > 90, photometric="miniswhite"), 255 - black
        yield made.pillow(GRAY8 > 90, "TIFF", compression="group4"), black
    if "JPEG" in way.traits:
        yield made.tiff(RGB8 if n == 3 else GRAY8, photometric="rgb" if n == 3 else "minisblack", compression="jpeg"), None
        return
    if bits not in (8, 16):
        return
    array = channels(RGBA8 if bits == 8 else RGBA16, n)
    kind = "rgb" if n > 2 else "minisblack"
    alpha = {"extrasamples": ["unassalpha"]} if n % 2 == 0 else {}
    flat = array[:, :, 0] if n == 1 else array
    yield made.tiff(flat, photometric=kind, **alpha), array
    yield made.tiff(flat, photometric=kind, byteorder=">", bigtiff=True, **alpha), array
    if "packed" in way.traits:
        yield made.tiff(flat, photometric=kind, compression="zlib", predictor=True, **alpha), array
    if "planar" in way.traits and n > 1:
        planes = np.ascontiguousarray(array.transpose(2, 0, 1))
        yield made.tiff(planes, photometric=kind, planarconfig="separate", **alpha), array
    if "extra" in way.traits and n % 2 == 0:
        yield made.tiff(array, photometric=kind, extrasamples=["unspecified"]), array
    if "white_is_0" in way.traits and n == 1:
        yield made.tiff(flat, photometric="miniswhite"), np.iinfo(array.dtype).max - array


def pnm_cases(way: Way, bits: int, n: int) -> Iterator[Case]:
    for white in {(1 << bits) - 1, max(1, (1 << bits) - 3)}:
        array = (channels(RGBA16, n).astype(np.int64) % (white + 1)).astype(np.uint8 if white < 256 else np.uint16)
        if white == 1 and n == 1:
            yield made.pbm(array), array
            yield made.pbm(array, plain=True), array
        for plain in (False, True):
            yield made.pnm(array, white, plain), array


def others(format: str) -> Any:
    def make(way: Way, bits: int, n: int) -> Iterator[Case]:
        if n in (1, 3) or (n == 4 and format != "BMP"):
            array = channels(RGBA8, n)
            whole = array if format != "WEBP" or n > 1 else np.dstack([array] * 3)
            yield made.pillow(array, format, **({"lossless": True, "exact": True} if format == "WEBP" else {})), whole

    return make


MAKERS = {
    "PNG": png_cases,
    "JPEG": jpeg_cases,
    "JPEG-LS": jpegls_cases,
    "JPEG 2000": jp2_cases,
    "AVIF": avif_cases,
    "TIFF": tiff_cases,
    "PNM": pnm_cases,
    "BMP": others("BMP"),
    "WebP": others("WEBP"),
    "SGI": others("SGI"),
}
# Rows whose files no writer at hand makes: what they are for is tested by real files elsewhere, or is Pillow's fallback.
UNMADE = ("YCC", "12 bits a TIFF")


def name_of(way: Way) -> str:
    return f"{way.format} {way.bits} {way.channels} {'+'.join(sorted(way.traits))} {way.reader}"


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_each_row_comes_back_whole_or_says_what_it_loses(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (way,)  # this row alone, or an earlier one would read its files
    monkeypatch.setattr(picture_formats, "WAYS", rows)
    made_any = False
    for raw, samples in cases(way):
        seen = look(raw)
        assert seen is not None
        if not way.fits(seen):
            continue
        made_any = True
        assert choose(seen, exact=False) is way
        lossy = picture.read(io.BytesIO(raw))
        if seen.bits > 8:
            assert any("reduced from" in note for note in lossy.notes), seen
        if not way.exact:
            assert lossy.notes
            with pytest.raises(laconic.BadInput, match=f"found {way.format}|mode: found"):
                picture.read_exact(io.BytesIO(raw))
            continue
        exact = picture.read_exact(io.BytesIO(raw))
        assert exact.bits == (16 if exact.samples.dtype == np.uint16 else 8)
        if samples is not None:
            assert exact.samples.dtype == samples.dtype and np.array_equal(exact.samples, samples), seen
        # The depth is that of the file, whatever its samples are stored in.
        stored = 255 if exact.bits == 8 else 65535
        expands = seen.bits < 8 and way.format in ("PNG", "TIFF") or "palette_of_16_bits" in seen.traits
        white = stored if expands else seen.white or (1 << seen.bits) - 1
        assert picture.white_of(exact.metadata, exact.bits) == white, seen
        high = np.asarray(picture.reduced(exact.samples, white))
        expected = picture.to_array(lossy)
        assert np.array_equal(high[:, :, : lossy.pixels.shape[2]], lossy.pixels), (seen, high.shape, expected.shape)
    assert made_any or way.traits & {"YCC"} or way.bits == (12,), "no file was made for this row"


@pytest.mark.parametrize("way", [way for way in WAYS if way.reader not in (PILLOW, picture_formats.OWN)], ids=name_of)
def test_without_its_library_nothing_is_read_unchanged_by_another(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either Pillow passes the file whole by a row of its own, or the error names what is missing."""
    whole = [picture.read_exact(io.BytesIO(raw)).samples for raw, _ in cases(way)]
    monkeypatch.setattr(picture_formats, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for (raw, _), samples in zip(list(cases_made_before(way)), whole, strict=True):
        try:
            found = picture.read_exact(io.BytesIO(raw)).samples
        except laconic.BadInput as error:
            assert "imagecodecs" in str(error) or "expected one that is read unchanged" in str(error)
        else:
            assert np.array_equal(found, samples)


def cases_made_before(way: Way) -> Iterator[Case]:
    """The makers hold imagecodecs already: only the package under test must not find it."""
    return cases(way)


UNFIT: dict[str, bytes] = {
    "signed TIFF": made.tiff(GRAY16.astype(np.int16), photometric="minisblack"),
    "signed TIFF of 8 bits": made.tiff(GRAY8.astype(np.int8), photometric="minisblack"),
    "float TIFF": made.tiff(GRAY16.astype(np.float32), photometric="minisblack"),
    "half float TIFF": made.tiff(GRAY16.astype(np.float16), photometric="minisblack"),
    "32-bit TIFF": made.tiff(GRAY16.astype(np.uint32), photometric="minisblack"),
    "complex TIFF": made.tiff(GRAY16.astype(np.complex64), photometric="minisblack"),
    "five bands": made.tiff(np.dstack([RGBA8, GRAY8]), photometric="rgb", extrasamples=["unspecified"] * 2),
    "gray and two bands": made.tiff(RGB8, photometric="minisblack", extrasamples=["unspecified"] * 2, planarconfig="contig"),
    "CFA": made.tiff(GRAY16, photometric="cfa"),
    "linear raw": made.tiff(RGB16, photometric="linear_raw"),
    "mask": made.tiff(GRAY8 > 9, photometric="mask"),
    "JPEG 2000 in TIFF": made.tiff(RGB8, photometric="rgb", compression="jpeg2000"),
    "WebP in TIFF": made.tiff(RGB8, photometric="rgb", compression="webp"),
    "16-bit CMYK": made.tiff(RGBA16, photometric="separated"),
    "signed JPEG 2000": made.jp2(GRAY16.astype(np.int16)),
    "SGI of 16 bits": made.pillow(GRAY8, "SGI", bpc=2),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_no_row_is_for_is_refused_by_name(name: str) -> None:
    for read in (picture.read, picture.read_exact):
        with pytest.raises(laconic.BadInput, match="picture: found (TIFF|JPEG 2000|SGI) of .*, expected"):
            read(io.BytesIO(UNFIT[name]))


def test_a_format_that_only_pillow_tells_of_is_noted_and_never_lossless() -> None:
    raw = made.pillow(RGB8, "DDS")
    with pytest.raises(laconic.BadInput, match="picture format: found 'DDS'"):
        picture.read_exact(io.BytesIO(raw))
    assert picture.read(io.BytesIO(raw)).notes == ("DDS is read by Pillow as 8-bit pixels; what else it holds is not kept",)


@pytest.mark.parametrize("format", picture_formats.WHOLE_IN_PILLOW)
def test_what_pillow_passes_whole_comes_back(format: str) -> None:
    if format in ("CUR", "XBM", "MSP", "MPO", "ICNS"):  # of which Pillow writes bilevel, other sizes or none
        return
    size = (32, 32) if format == "ICO" else None
    array = np.resize(RGB8, (32, 32, 3)) if size else RGB8
    if format == "GIF":
        raw = made.pillow(GRAY8, "GIF")
        assert np.array_equal(picture.read_exact(io.BytesIO(raw)).samples[:, :, 0], GRAY8)
        return
    raw = made.pillow(array, format, **({"sizes": [size]} if size else {}))
    found = picture.read_exact(io.BytesIO(raw)).samples
    assert np.array_equal(found[:, :, :3], array)
