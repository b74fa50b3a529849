"""A photo's own part of the header (FORMAT.md, section "Photo"): no network is needed to read it."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.entropy.errors import BadFile, LaconicError, expect
from laconic.payloads import DEFAULT_MAX_PIXELS, MAX_SIDE, read_fields, write_fields

TILE_UNIT = 64  # pixels; also what the sides of the latent grid are padded to
TILE = 1024  # pixels; a multiple of TILE_UNIT, and the largest: a decoder's memory and patience follow the tile
GRAY = 0x40
FREE = 1 << 20  # padded pixels that every picture may have: a second's work
LIMITS = {"width": (1, MAX_SIDE), "height": (1, MAX_SIDE), "quality": (0, 10_000)}


@dataclass(frozen=True)
class Fields:
    """Holds the size in pixels, quality x 100, tile side in pixels, whether the picture is gray."""

    width: int
    height: int
    quality: int
    tile: int = TILE
    gray: bool = False

    def pack(self) -> bytes:
        """Return the bytes that `unpack` reads."""
        flags = self.tile // TILE_UNIT | (GRAY if self.gray else 0)
        return write_fields(self.width, self.height, self.quality) + bytes([flags])

    @property
    def n_tiles(self) -> int:
        """The number of tiles of y."""
        return -(-self.width // self.tile) * -(-self.height // self.tile)

    @property
    def n_padded(self) -> int:
        """The pixels that a decoder computes, those of the latent grid: a picture 1 pixel wide costs as one of 64."""
        return -(-self.width // TILE_UNIT) * -(-self.height // TILE_UNIT) * TILE_UNIT**2

    def check_size(self, max_pixels: int, error: type[LaconicError]) -> None:
        """Raise an error for more pixels than are allowed, padding counted."""
        expect(self.width * self.height <= max_pixels, error, "pixels", self.width * self.height, allowed(max_pixels))
        found = f"{self.width} x {self.height}, padded to {self.n_padded}"
        expect(self.n_padded <= max(max_pixels, FREE), error, "pixels", found, allowed(max_pixels))


def unpack(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Fields:
    """Read and bound every field. Raises BadFile."""
    (width, height, quality), (flags,) = read_fields(data, LIMITS, "photo", 1)
    tile = flags % GRAY * TILE_UNIT
    expect(0 < tile <= TILE and flags < 2 * GRAY, BadFile, "tile byte", flags, f"1 to {TILE // TILE_UNIT}, plus 64 where gray")
    fields = Fields(width, height, quality, tile, bool(flags & GRAY))
    fields.check_size(max_pixels, BadFile)
    return fields


def allowed(max_pixels: int) -> str:
    return f"at most {max_pixels} (--max-pixels)"
