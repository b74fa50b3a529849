"""Photos: pixels <-> chunks of coded symbols (FORMAT.md, section "Photo").

A picture of any size is one latent grid. z of the whole picture is the first chunk; y is cut into tiles, a chunk each.
The transforms run tile by tile, fed with a halo of their neighbours, so there are no seams, nothing is coded twice and
memory follows the tile. Parsing gives all symbols before any float network runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic import entropy
from laconic.entropy.errors import BadFile, expect
from laconic.fields import Fields
from laconic.models.photo import STRIDE, Photo

Pixels = NDArray[np.uint8]
Symbols = NDArray[np.int16]

LATENT = 16  # pixels a sample of y
PER_Z = STRIDE // LATENT  # samples of y per sample of z
ANALYSIS_HALO = 64  # pixels; every block reaches 8 or 16 further
HYPER_HALO = 4  # samples of y that z looks at beyond its own
SYNTHESIS_HALO = 8  # samples of y
Z_HALO = 1  # samples of z that the mean and the scale look at beyond their own


@dataclass(frozen=True)
class Window:
    """A part of a grid: rows top..bottom, columns left..right."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, halo: int, height: int, width: int) -> Window:
        """With a halo, cut at the grid's border."""
        return Window(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )

    def scaled(self, times: int) -> Window:
        return Window(self.top * times, self.bottom * times, self.left * times, self.right * times)

    def within(self, outer: Window) -> Window:
        """The same place, counted from the corner of `outer`."""
        return Window(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)

    def overlaps(self, other: Window) -> bool:
        return (
            self.top < other.bottom
            and other.top < self.bottom
            and self.left < other.right
            and other.left < self.right
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class PhotoCoder:
    """A photo network with the way it runs: device and precision of its float parts."""

    model: Photo
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None

    def encode(self, pixels: Pixels, fields: Fields) -> list[bytes]:
        """uint8 [H, W, 3] -> payloads: z, then y of each tile in rows from the top left."""
        with torch.inference_mode():
            return self._encode(pixels, fields)

    def decode(self, symbols: Parsed, fields: Fields, region: Window | None = None) -> Pixels:
        """Symbols -> uint8 pixels of the region (or all). Tiles that were not parsed read as their mean."""
        with torch.inference_mode():
            return self._decode(symbols, fields, region or Window(0, fields.height, 0, fields.width))

    def parse(self, payloads: list[memoryview | bytes | None], fields: Fields, region: Window | None = None) -> Parsed:
        """Payloads -> all symbols that the region needs. Integers only; raises BadFile on damage."""
        with torch.inference_mode():
            return self._parse(payloads, fields, region or Window(0, fields.height, 0, fields.width))

    def _encode(self, pixels: Pixels, fields: Fields) -> list[bytes]:
        grid = Grid(fields)
        y = self._analysis(pixels, fields, grid)
        z = torch.cat([self._hyper_rows(y, window, grid) for window in grid.z_strips()], 2)
        z_symbols = z.to("cpu", torch.int16).numpy()[0]
        tables = entropy.gaussian_tables()
        payloads = [entropy.encode(z_symbols.ravel(), self._z_indices(fields, z_symbols.shape), tables, threads=self.threads)]
        for tile in grid.tiles():
            mean, indices = self._prior(z, tile, grid, fields)
            symbols = (y[(..., *tile.slices)] - mean).round().clamp(-32000, 32000)
            payloads.append(entropy.encode(to_symbols(symbols), indices.cpu().numpy().ravel(), tables, threads=self.threads))
        return payloads

    def _parse(self, payloads: list[memoryview | bytes | None], fields: Fields, region: Window) -> Parsed:
        grid, tables = Grid(fields), entropy.gaussian_tables()
        shape = (self.model.config.hyper_channels, grid.height // PER_Z, grid.width // PER_Z)
        expect(payloads[0] is not None, BadFile, "z chunk", "damage", "an intact chunk: nothing decodes without it")
        z_symbols = entropy.decode(bytes(payloads[0] or b""), self._z_indices(fields, shape), tables, threads=self.threads)
        z = torch.from_numpy(z_symbols.reshape(1, *shape).astype(np.float32)).to(self.device)
        y: dict[Window, Symbols] = {}
        needed = grid.latents(region).grown(SYNTHESIS_HALO, grid.height, grid.width)
        for tile, payload in zip(grid.tiles(), payloads[1:], strict=True):
            if payload is not None and tile.overlaps(needed):
                indices = self._indices(z, tile, grid, fields)
                flat = entropy.decode(bytes(payload), indices.cpu().numpy().ravel(), tables, threads=self.threads)
                y[tile] = flat.reshape(indices.shape[1:])
        return Parsed(z, y)

    def _decode(self, parsed: Parsed, fields: Fields, region: Window) -> Pixels:
        grid = Grid(fields)
        out = np.empty((region.bottom - region.top, region.right - region.left, 3), np.uint8)
        for tile in grid.tiles():
            pixels = tile.scaled(LATENT)
            part = Window(
                max(pixels.top, region.top),
                min(pixels.bottom, region.bottom),
                max(pixels.left, region.left),
                min(pixels.right, region.right),
            )
            if part.top < part.bottom and part.left < part.right:
                window = grid.latents(part).grown(SYNTHESIS_HALO, grid.height, grid.width)
                picture = self._synthesis(self._y_hat(parsed, window, grid, fields), fields)
                inner = part.within(window.scaled(LATENT))
                out[part.within(region).slices] = to_pixels(picture[(..., *inner.slices)])
        return out

    def _analysis(self, pixels: Pixels, fields: Fields, grid: Grid) -> Tensor:
        y = torch.empty(1, self.model.config.latent_channels, grid.height, grid.width, device=self.device)
        quality = self._quality(fields)
        for tile in grid.tiles():
            outer = tile.scaled(LATENT).grown(ANALYSIS_HALO, grid.height * LATENT, grid.width * LATENT)
            x = to_tensor(cut_padded(pixels, outer)).to(self.device, memory_format=torch.channels_last)
            with self._autocast():
                part = self.model.analysis(x, quality)
            top, left = tile.top - outer.top // LATENT, tile.left - outer.left // LATENT
            inner = Window(top, top + tile.bottom - tile.top, left, left + tile.right - tile.left)
            y[(..., *tile.slices)] = part[(..., *inner.slices)]
        return y

    def _hyper_rows(self, y: Tensor, strip: Window, grid: Grid) -> Tensor:
        own = strip.scaled(PER_Z)
        outer = own.grown(HYPER_HALO, grid.height, grid.width)
        z = self.model.hyper(y[(..., *outer.slices)])
        inner = strip.within(Window(outer.top // PER_Z, 0, outer.left // PER_Z, 0))
        return z[(..., *inner.slices)].round().clamp(-32000, 32000)

    def _prior(self, z: Tensor, window: Window, grid: Grid, fields: Fields) -> tuple[Tensor, Tensor]:
        """Mean and table indices of y in a window of the grid."""
        outer, inner = self._z_window(window, grid)
        part = z[(..., *outer.slices)]
        mean = self.model.mean(part)[(..., *inner.slices)]
        return mean, self.model.y_indices(part, fields.quality)[(..., *inner.slices)]

    def _indices(self, z: Tensor, window: Window, grid: Grid, fields: Fields) -> Tensor:
        outer, inner = self._z_window(window, grid)
        return self.model.y_indices(z[(..., *outer.slices)], fields.quality)[(..., *inner.slices)]

    def _z_window(self, window: Window, grid: Grid) -> tuple[Window, Window]:
        own = Window(
            window.top // PER_Z, -(-window.bottom // PER_Z), window.left // PER_Z, -(-window.right // PER_Z)
        )
        outer = own.grown(Z_HALO, grid.height // PER_Z, grid.width // PER_Z)
        return outer, window.within(outer.scaled(PER_Z))

    def _y_hat(self, parsed: Parsed, window: Window, grid: Grid, fields: Fields) -> Tensor:
        outer, inner = self._z_window(window, grid)
        y = self.model.mean(parsed.z[(..., *outer.slices)])[(..., *inner.slices)].clone()
        for tile, symbols in parsed.y.items():
            if tile.overlaps(window):
                both = Window(
                    max(tile.top, window.top),
                    min(tile.bottom, window.bottom),
                    max(tile.left, window.left),
                    min(tile.right, window.right),
                )
                part = symbols[(slice(None), *both.within(tile).slices)]
                y[(0, slice(None), *both.within(window).slices)] += torch.from_numpy(part.astype(np.float32)).to(y)
        return y

    def _synthesis(self, y: Tensor, fields: Fields) -> Tensor:
        with self._autocast():
            return self.model.synthesis(y.contiguous(memory_format=torch.channels_last), self._quality(fields))

    def _z_indices(self, fields: Fields, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        rows = self.model.z_indices(fields.quality).numpy()
        return np.broadcast_to(rows[:, None, None], shape).ravel()

    def _quality(self, fields: Fields) -> Tensor:
        return torch.tensor([fields.quality / 100], device=self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Parsed:
    """All symbols of a file, or of what a region needs."""

    z: Tensor  # float, integers, [1, Z, h, w]
    y: dict[Window, Symbols]  # by tile: [M, h, w]


@dataclass(frozen=True)
class Grid:
    """The latent grid of a picture and its tiles, in samples of y."""

    fields: Fields

    @property
    def height(self) -> int:
        return -(-self.fields.height // STRIDE) * PER_Z

    @property
    def width(self) -> int:
        return -(-self.fields.width // STRIDE) * PER_Z

    def tiles(self) -> list[Window]:
        side = self.fields.tile // LATENT
        return [
            Window(top, min(top + side, self.height), left, min(left + side, self.width))
            for top in range(0, self.height, side)
            for left in range(0, self.width, side)
        ]

    def z_strips(self) -> list[Window]:
        """Full-width strips of z, in samples of z."""
        side, height, width = self.fields.tile // STRIDE, self.height // PER_Z, self.width // PER_Z
        return [Window(top, min(top + side, height), 0, width) for top in range(0, height, side)]

    def latents(self, pixels: Window) -> Window:
        """The samples of y that a window of pixels touches."""
        return Window(
            pixels.top // LATENT, -(-pixels.bottom // LATENT), pixels.left // LATENT, -(-pixels.right // LATENT)
        )


def cut_padded(pixels: Pixels, window: Window) -> Pixels:
    """A window that may reach below and right of the picture, whose last row and column go on there."""
    height, width = pixels.shape[:2]
    rows = np.minimum(np.arange(window.top, window.bottom), height - 1)
    columns = np.minimum(np.arange(window.left, window.right), width - 1)
    cut: Pixels = pixels[rows[:, None], columns[None, :]]
    return cut


def to_tensor(pixels: Pixels) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in 0..1."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def to_pixels(picture: Tensor) -> Pixels:
    """float [1, 3, H, W] -> uint8 [H, W, 3]."""
    scaled = (picture[0].permute(1, 2, 0) * 255).round().clamp(0, 255)
    pixels: Pixels = scaled.to("cpu", torch.uint8).numpy()
    return pixels


def to_symbols(symbols: Tensor) -> Symbols:
    flat: Symbols = symbols.to("cpu", torch.int16).numpy().ravel()
    return flat
