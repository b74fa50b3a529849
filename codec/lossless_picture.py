"""Lossless and near-lossless pictures: tiles, each a chunk of its own (FORMAT.md, section "Lossless picture")."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from laconic import picture
from laconic.container import Chunk, Header, read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, LaconicError, expect
from laconic.entropy.threads import mapped
from laconic.fields import DEFAULT_MAX_PIXELS, MAX_SIDE
from laconic.kinds import LOSSLESS_PICTURE, METADATA, TILE
from laconic.picture import Exact

Region = tuple[int, int, int, int]  # x, y, width, height
CRC_BYTES = 4
MAX_ERROR = 255
DEFAULT_EFFORT = 7


@dataclass(frozen=True)
class Fields:
    """Size in pixels, bits a sample (8 or 16), channels (as of `picture.Exact`), largest error of a sample, tiles of 2048."""

    width: int
    height: int
    bits: int
    channels: int
    max_error: int
    large_tiles: bool = False

    def pack(self) -> bytes:
        shape = self.channels - 1 | (self.bits == 16) << 2 | self.large_tiles << 3
        return b"".join(write_varint(value) for value in (self.width, self.height, shape, self.max_error))


def unpack(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Fields:
    """Read and bound every field. Raises BadFile."""
    position, values = 0, []
    limits = (
        ("width", 1, MAX_SIDE),
        ("height", 1, MAX_SIDE),
        ("sample format", 0, 15),
        ("largest error", 0, MAX_ERROR),
    )
    for name, low, high in limits:
        value, position = read_varint(data, position, name)
        expect(low <= value <= high, BadFile, name, value, f"{low} to {high}")
        values.append(value)
    width, height, shape, max_error = values
    expect(position == len(data), BadFile, "lossless picture header length", len(data), f"{position} bytes")
    expect(width * height <= max_pixels, BadFile, "pixels", width * height, f"at most {max_pixels} (--max-pixels)")
    return Fields(width, height, 16 if shape & 4 else 8, shape % 4 + 1, max_error, shape >= 8)


def encode(source: Exact, max_error: int, effort: int | None, threads: int | None) -> tuple[Header, list[Chunk]]:
    """max_error: no sample comes back further away than that; held to it here. Raises BadInput."""
    from laconic.models.lossless_photo import encode_tile, tile_grid
    from laconic.models.repeats import repetitive

    expect(
        isinstance(max_error, int) and 0 <= max_error <= MAX_ERROR,
        BadInput,
        "max_error",
        max_error,
        f"0 to {MAX_ERROR}",
    )
    height, width, channels = source.samples.shape
    fields = Fields(width, height, source.bits, channels, max_error, repetitive(source.samples))
    level = checked_effort(effort)

    def code(place: Region) -> Chunk:
        x, y, w, h = place
        tile = np.ascontiguousarray(source.samples[y : y + h, x : x + w]).astype(np.uint16)
        coded = encode_tile(tile, fields.bits, level, max_error)
        back = decode_samples(coded, tile.shape, fields) if max_error else tile
        off = int(np.abs(back.astype(np.int32) - tile).max())
        expect(
            off <= max_error, LaconicError, "error of a sample", off, f"at most {max_error}: this is a defect of ours"
        )
        return Chunk(TILE, crc(back) + coded)

    places = [(x, y, w, h) for y, x, h, w in tile_grid(height, width, fields.large_tiles)]
    chunks = list(mapped(code, places, threads))
    for kind, key in METADATA.items():
        if source.metadata.get(key):
            chunks.append(Chunk(kind, picture.encode_metadata(source.metadata[key]), optional=True))
    return Header(LOSSLESS_PICTURE, "", b"", fields.pack()), chunks


def checked_effort(effort: int | None) -> int:
    level = DEFAULT_EFFORT if effort is None else effort
    expect(isinstance(level, int) and 1 <= level <= 9, BadInput, "effort", level, "1 to 9")
    return level


def decode(chunks: list[Chunk], fields: Fields, region: Region, threads: int | None) -> Exact:
    """The samples of a region, of its tiles alone, which take threads; a damaged tile, payload None, comes as zeros.

    Raises BadFile.
    """
    left, top, width, height = region
    out = np.zeros((height, width, fields.channels), np.uint16 if fields.bits == 16 else np.uint8)
    wanted = [(place, chunk) for place, chunk in placed(chunks, fields) if overlaps(place, region)]

    def read(item: tuple[Region, Chunk]) -> str | None:
        (x, y, w, h), chunk = item
        if chunk.payload is None:
            return f"damaged, left out: the tile at {x},{y} ({w} x {h} pixels)"
        tile = read_tile(bytes(chunk.payload), (h, w, fields.channels), fields)
        ys, xs = slice(max(y, top), min(y + h, top + height)), slice(max(x, left), min(x + w, left + width))
        out[ys.start - top : ys.stop - top, xs.start - left : xs.stop - left] = tile[
            ys.start - y : ys.stop - y, xs.start - x : xs.stop - x
        ]
        return None

    notes = [note for note in mapped(read, wanted, threads) if note]
    found = Exact(out, {}, tuple(notes))
    for chunk in chunks:
        if chunk.kind in METADATA and chunk.payload is not None:
            found.metadata[METADATA[chunk.kind]] = picture.decode_metadata(bytes(chunk.payload))
        elif chunk.kind in METADATA:
            found = replace(found, notes=(*found.notes, f"damaged, left out: {METADATA[chunk.kind]}"))
    return found


def placed(chunks: list[Chunk], fields: Fields) -> Iterator[tuple[Region, Chunk]]:
    """Each tile's place and chunk. Raises BadFile where there are not as many as there should be."""
    from laconic.models.lossless_photo import tile_grid

    grid = tile_grid(fields.height, fields.width, fields.large_tiles)
    tiles = [chunk for chunk in chunks if chunk.kind == TILE]
    expect(len(tiles) == len(grid), BadFile, "tiles", len(tiles), f"{len(grid)}, as the size of the picture asks")
    for (y, x, h, w), chunk in zip(grid, tiles, strict=True):
        yield (x, y, w, h), chunk


def read_tile(payload: bytes, shape: tuple[int, int, int], fields: Fields) -> NDArray[np.uint16]:
    """The samples of a tile, which are those that were written, or BadFile."""
    tile = decode_samples(payload[CRC_BYTES:], shape, fields)
    found, expected = crc(tile), payload[:CRC_BYTES]
    expect(found == expected, BadFile, "checksum of the samples", found.hex(), expected.hex())
    return tile


def decode_samples(coded: bytes, shape: tuple[int, int, int], fields: Fields) -> NDArray[np.uint16]:
    from laconic.models.lossless_photo import decode_tile

    samples: NDArray[np.uint16] = decode_tile(coded, *shape, fields.bits, fields.max_error)
    return samples


def crc(samples: NDArray[np.uint16]) -> bytes:
    """CRC-32 of the samples as 16-bit integers, [row, column, channel]."""
    return zlib.crc32(samples.astype("<u2").tobytes()).to_bytes(CRC_BYTES, "little")


def overlaps(a: Region, b: Region) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
