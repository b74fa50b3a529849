"""Lossless and near-lossless pictures: tiles, each a chunk of its own (FORMAT.md, section "Lossless picture")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic import container, picture
from laconic.container import Chunk, Data, Header
from laconic.entropy.errors import BadFile, BadInput, LaconicError, expect
from laconic.entropy.threads import mapped
from laconic.file_info import FileInfo, PictureInfo
from laconic.medium import Common, Medium, Note, Region, Run, Selection, Slices, checked_region, shared
from laconic.options import MAX_ERROR, MaxError, Options
from laconic.payloads import (
    CRC_BYTES,
    DEFAULT_MAX_PIXELS,
    MAX_SIDE,
    METADATA,
    crc,
    metadata_chunks,
    read_fields,
    read_metadata,
    write_fields,
)
from laconic.picture import Exact
from laconic.suffixes import PICTURE_OUTPUTS

LOSSLESS_PICTURE = 2
TILE, ALPHA_TILE = 7, 49
KINDS = {TILE: "tile", ALPHA_TILE: "alpha tile", **METADATA}
LIMITS = {
    "width": (1, MAX_SIDE),
    "height": (1, MAX_SIDE),
    "sample format": (0, 15),
    "largest error": (0, MAX_ERROR),
}


@dataclass(frozen=True)
class LosslessInfo(PictureInfo):
    """Describes a lossless picture, or one whose samples are off by max_error at most. bpsp: bits per sample of the file."""

    max_error: int
    bpsp: float


@dataclass(frozen=True)
class Fields:
    """Holds the size in pixels, bits per sample (8 or 16), channels (as of `picture.Exact`), largest error of a sample."""

    width: int
    height: int
    bits: int
    channels: int
    max_error: int
    large_tiles: bool = False

    def pack(self) -> bytes:
        """Return the bytes that `unpack` reads."""
        shape = self.channels - 1 | (self.bits == 16) << 2 | self.large_tiles << 3
        return write_fields(self.width, self.height, shape, self.max_error)

    def grid(self) -> list[Region]:
        """Return the places of the tiles."""
        from laconic.models.lossless_photo import tile_grid

        return [(x, y, w, h) for y, x, h, w in tile_grid(self.height, self.width, self.large_tiles)]


def unpack(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Fields:
    """Read and bound every field. Raises BadFile."""
    (width, height, shape, max_error), _ = read_fields(data, LIMITS, "lossless picture")
    expect(width * height <= max_pixels, BadFile, "pixels", width * height, f"at most {max_pixels} (--max-pixels)")
    return Fields(width, height, 16 if shape & 4 else 8, shape % 4 + 1, max_error, shape >= 8)


@dataclass(frozen=True)
class ExactResult:
    """Holds a decoded picture with its samples as they are stored."""

    exact: Exact

    def value(self, as_array: bool) -> Any:
        """Return uint8 or uint16 [H, W, C], or a PIL.Image. Raises BadInput for what PIL cannot hold."""
        return self.exact.samples if as_array else picture.exact_to_image(self.exact)

    def write(self, file: BinaryIO, format: str, note: Note) -> None:
        """Write it in a lossless format of picture.py. Raises BadInput for the others."""
        for text in picture.save_exact(self.exact, file, format):
            note(text)


class LosslessPictureMedium:
    """Stores pictures that come back exactly, or off by a bounded error."""

    number, name = LOSSLESS_PICTURE, "lossless picture"
    kinds = KINDS
    accepts = frozenset({("picture", "lossless"), ("picture", "max_error")})
    selects = frozenset({"region"})
    outputs = PICTURE_OUTPUTS

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe a picture by its fields. Raises BadFile."""
        fields = unpack(header.fields, MAX_SIDE**2)
        bpp = 8 * common[3] / (fields.width * fields.height)
        shape = (fields.width, fields.height, fields.channels, fields.bits, bpp)
        return LosslessInfo(*common, *shape, fields.max_error, bpp / fields.channels)

    def encode(self, source: Any, options: Options, run: Run, file: BinaryIO) -> None:
        """Write a picture's file. Raises BadInput."""
        options.level()
        read = picture.read_exact(source, run.max_pixels)
        read = replace(read, metadata=picture.stripped(read.metadata)) if options.strip else read
        max_error = int(options.target.value) if isinstance(options.target, MaxError) else 0
        file.write(encode(read, max_error, options.level(), run.threads))
        for note in read.notes:
            run.note(note)

    def decode(self, data: Data, selection: Selection, run: Run) -> ExactResult:
        """Decode a picture, or the tiles that a region needs. Raises BadFile, BadInput."""
        header, chunks = container.read(bytes(data[0 : len(data)]), KINDS, partial=run.partial)
        fields = unpack(header.fields, run.max_pixels)
        region = checked_region(selection.region, fields.width, fields.height)
        return ExactResult(decode(chunks, fields, region, run))

    def verify(self, data: Data, run: Run) -> None:
        """Decode all samples. Raises BadFile."""
        self.decode(data, Selection(), run)


def encode(source: Exact, max_error: int, effort: int, threads: int | None) -> bytes:
    """Return the file of a picture. max_error: no colour sample comes back further away, and alpha is exact.

    effort: 1 to 9. Raises BadInput.
    """
    from laconic.models.repeats import repetitive

    expect(0 <= max_error <= MAX_ERROR, BadInput, "max_error", max_error, f"0 to {MAX_ERROR}")
    height, width, channels = source.samples.shape
    fields = Fields(width, height, source.bits, channels, max_error, repetitive(source.samples))
    layers = layers_of(fields)

    def code(job: tuple[Region, Layer]) -> Chunk:
        (x, y, w, h), layer = job
        tile = np.ascontiguousarray(source.samples[y : y + h, x : x + w, layer.channels]).astype(np.uint16)
        return Chunk(layer.kind, encode_checked(tile, fields.bits, effort, layer.max_error))

    jobs = [(place, layer) for place in fields.grid() for layer in layers]
    chunks = [*mapped(code, jobs, threads), *metadata_chunks(source.metadata)]
    return container.write(Header(LOSSLESS_PICTURE, "", b"", fields.pack()), chunks)


@dataclass(frozen=True)
class Layer:
    """Names channels that are coded together in chunks of a kind, with their largest error."""

    kind: int
    channels: slice
    max_error: int


def layers_of(fields: Fields, split: bool | None = None) -> list[Layer]:
    """Return what a picture is coded as: all channels together, but alpha apart and exact where colours may be off.

    split: whether alpha is apart, which a file shows by its chunks (files of before it was have it among the others).
    """
    n = fields.channels
    if split if split is not None else fields.max_error > 0 and n % 2 == 0:
        return [Layer(TILE, slice(0, n - 1), fields.max_error), Layer(ALPHA_TILE, slice(n - 1, n), 0)]
    return [Layer(TILE, slice(0, n), fields.max_error)]


def encode_checked(tile: NDArray[np.uint16], bits: int, effort: int, max_error: int) -> bytes:
    """Return the payload of a tile, uint16 [H, W, C], held to its largest error by decoding it."""
    from laconic.models.lossless_photo import encode_tile

    coded = encode_tile(tile, bits, effort, max_error)
    back = decode_samples(coded, tile.shape, bits, max_error) if max_error else tile
    off = int(np.abs(back.astype(np.int32) - tile).max())
    expect(off <= max_error, LaconicError, "error of a sample", off, f"at most {max_error}: this is a defect of ours")
    return checksum(back) + coded


def decode(chunks: list[Chunk], fields: Fields, region: Region, run: Run) -> Exact:
    """Return the samples of a region, of its tiles alone; a damaged tile, payload None, comes as zeros, with a note.

    Raises BadFile.
    """
    found = [(*job, shared(job[0], region)) for job in placed(chunks, fields)]
    jobs = [(place, layer, chunk, both) for place, layer, chunk, both in found if both]
    out = np.zeros((region[3], region[2], fields.channels), np.uint16 if fields.bits == 16 else np.uint8)

    def read(job: tuple[Region, Layer, Chunk, tuple[Slices, Slices]]) -> str | None:
        (x, y, w, h), layer, chunk, (inside, here) = job
        if chunk.payload is None:
            return f"damaged, left out: the {KINDS[layer.kind]} at {x},{y} ({w} x {h} pixels)"
        shape = (h, w, len(range(*layer.channels.indices(fields.channels))))
        tile = read_tile(bytes(chunk.payload), shape, fields.bits, layer.max_error)
        out[(*here, layer.channels)] = tile[inside]
        return None

    for note in mapped(read, jobs, run.threads):
        if note:
            run.note(note)
    return Exact(out, read_metadata(chunks, lambda name: run.note(f"damaged, left out: {name}")))


def placed(chunks: list[Chunk], fields: Fields) -> Iterator[tuple[Region, Layer, Chunk]]:
    """Yield each tile's place, layer and chunk. Raises BadFile where there are not as many as there should be."""
    tiles = [chunk for chunk in chunks if chunk.kind in (TILE, ALPHA_TILE)]
    split = any(chunk.kind == ALPHA_TILE for chunk in tiles)
    expect(not split or fields.channels % 2 == 0, BadFile, "alpha tiles", "some", "none: the picture has no alpha")
    jobs = [(place, layer) for place in fields.grid() for layer in layers_of(fields, split)]
    expect(len(tiles) == len(jobs), BadFile, "tiles", len(tiles), f"{len(jobs)}, as the size of the picture asks")
    for (place, layer), chunk in zip(jobs, tiles, strict=True):
        expect(chunk.kind == layer.kind, BadFile, "kind of a tile", KINDS[chunk.kind], KINDS[layer.kind])
        yield place, layer, chunk


def read_tile(payload: bytes, shape: tuple[int, int, int], bits: int, max_error: int) -> NDArray[np.uint16]:
    """Return the samples of a tile, which are those that were written. Raises BadFile where they are not."""
    tile = decode_samples(payload[CRC_BYTES:], shape, bits, max_error)
    found, expected = checksum(tile), payload[:CRC_BYTES]
    expect(found == expected, BadFile, "checksum of the samples", found.hex(), expected.hex())
    return tile


def decode_samples(coded: bytes, shape: tuple[int, ...], bits: int, max_error: int) -> NDArray[np.uint16]:
    """Return uint16 [H, W, C] of a coded tile. Raises BadFile."""
    from laconic.models.lossless_photo import decode_tile

    height, width, channels = shape
    samples: NDArray[np.uint16] = decode_tile(coded, height, width, channels, bits, max_error)
    return samples


def checksum(samples: NDArray[np.uint16]) -> bytes:
    """Return the CRC-32 of the samples as 16-bit integers, [row, column, channel]."""
    return crc(samples.astype("<u2").tobytes())


MEDIUM: Medium = LosslessPictureMedium()
