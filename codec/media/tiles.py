"""Where things lie: windows of a grid, a photo's latent grid and its tiles. Integers only, no network.

    a sample of y   16 x 16 pixels
    a sample of z   64 x 64 pixels, 4 x 4 of y
"""

from __future__ import annotations

from dataclasses import dataclass

from laconic.media.photo_fields import TILE_UNIT, Fields

LATENT = 16  # pixels per sample of y
PER_Z = TILE_UNIT // LATENT  # samples of y per sample of z
Z_HALO = 1  # samples of z that the mean and the scale look at beyond their own


@dataclass(frozen=True)
class Window:
    """Holds a part of a grid: rows top..bottom, columns left..right."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, halo: int, height: int, width: int) -> Window:
        """Return it with a halo around, cut at the grid's border."""
        return Window(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )

    def common(self, other: Window) -> Window:
        """Return the part that both cover; empty where they do not meet."""
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    @property
    def empty(self) -> bool:
        return self.top >= self.bottom or self.left >= self.right

    def scaled(self, times: int) -> Window:
        return Window(self.top * times, self.bottom * times, self.left * times, self.right * times)

    def within(self, outer: Window) -> Window:
        """Return the same place, counted from the corner of `outer`."""
        return Window(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Grid:
    """Lays the latent grid of a picture into tiles, in samples of y."""

    fields: Fields

    @property
    def height(self) -> int:
        return -(-self.fields.height // TILE_UNIT) * PER_Z

    @property
    def width(self) -> int:
        return -(-self.fields.width // TILE_UNIT) * PER_Z

    def tiles(self, window: Window | None = None) -> list[Window]:
        """List all tiles in rows from the top left, or those that meet a window."""
        side, window = self.fields.tile // LATENT, window or Window(0, self.height, 0, self.width)
        return [
            Window(top, min(top + side, self.height), left, min(left + side, self.width))
            for top in range(window.top // side * side, window.bottom, side)
            for left in range(window.left // side * side, window.right, side)
        ]

    def z_strips(self) -> list[Window]:
        """List full-width strips of z, in samples of z."""
        side, height, width = self.fields.tile // TILE_UNIT, self.height // PER_Z, self.width // PER_Z
        return [Window(top, min(top + side, height), 0, width) for top in range(0, height, side)]

    def latents(self, pixels: Window) -> Window:
        """Return the samples of y that a window of pixels touches."""
        return Window(
            pixels.top // LATENT, -(-pixels.bottom // LATENT), pixels.left // LATENT, -(-pixels.right // LATENT)
        )

    def whole(self) -> Window:
        """Return the whole picture as a window of pixels."""
        return Window(0, self.fields.height, 0, self.fields.width)


def z_window(tile: Window, grid: Grid) -> tuple[Window, Window]:
    """Return the samples of z that a tile's prior looks at, and the tile within what they give."""
    own = Window(tile.top // PER_Z, -(-tile.bottom // PER_Z), tile.left // PER_Z, -(-tile.right // PER_Z))
    outer = own.grown(Z_HALO, grid.height // PER_Z, grid.width // PER_Z)
    return outer, tile.within(outer.scaled(PER_Z))
