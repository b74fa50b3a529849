"""The photo's own part of the header (FORMAT.md, section "Photo"): no network is needed to read it."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.container import read_varint, write_varint
from laconic.entropy.errors import BadFile, expect

MAX_SIDE = 1 << 24
DEFAULT_MAX_PIXELS = 1 << 28  # 268 MP: cameras and scans fit; more takes gigabytes, and a word of the caller's
TILE_UNIT = 64
TILE = 1024  # pixels; a multiple of TILE_UNIT
GRAY = 0x40


@dataclass(frozen=True)
class Fields:
    """Size in pixels, quality x 100, tile side in pixels, whether the picture is gray."""

    width: int
    height: int
    quality: int
    tile: int = TILE
    gray: bool = False

    def pack(self) -> bytes:
        flags = self.tile // TILE_UNIT | (GRAY if self.gray else 0)
        return write_varint(self.width) + write_varint(self.height) + write_varint(self.quality) + bytes([flags])

    @property
    def n_tiles(self) -> int:
        return -(-self.width // self.tile) * -(-self.height // self.tile)


def unpack(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Fields:
    """Read and bound every field. Raises BadFile."""
    position = 0
    values = []
    for name, low, high in (("width", 1, MAX_SIDE), ("height", 1, MAX_SIDE), ("quality", 0, 10_000)):
        value, position = read_varint(data, position, name)
        expect(low <= value <= high, BadFile, name, value, f"{low} to {high}")
        values.append(value)
    width, height, quality = values
    expect(width * height <= max_pixels, BadFile, "pixels", width * height, f"at most {max_pixels} (--max-pixels)")
    expect(len(data) == position + 1, BadFile, "photo header length", len(data), f"{position + 1} bytes")
    flags = data[position]
    tile = flags % GRAY * TILE_UNIT
    expect(tile > 0 and flags < 2 * GRAY, BadFile, "tile byte", flags, "1 to 63, plus 64 where gray")
    return Fields(width, height, quality, tile, bool(flags & GRAY))
