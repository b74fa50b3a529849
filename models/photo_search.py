"""The encoder's search: moves y of a photo so that the decoder's picture is nearer to the original for the same bits.

Gradient descent on the real numbers that are rounded to the symbols of one tile, with the decoder and the prior in the
loop, by soft rounding that hardens (Agustsson and Theis 2020; after Campos et al. 2019 and Yang et al. 2020, with the noise
of the overfitted codecs). What is near is a matter of the tune: squared error, how it looks, or MS-SSIM. Files know nothing
of it. z stays: to move it was measured to make pictures worse at low rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.entropy.tables import Tables
from laconic.models.photo import Photo, pass_masks
from laconic.models.precision import multiplies_bf16
from laconic.models.soft_rounding import between, soft_round
from laconic.models.visual_distance import EyeDistance, MsSsimDistance

MIDDLE_QUALITY = 55.0  # where the weights of the distances below hold
GROWTH = 0.6  # exponent of lambda by which these weights follow the quality
FEW = 4  # iterations, up to which a tune's step is taken whole
STEP = 0.07  # of the descent, in steps of the quantiser, over the root of the iterations
FASTER = 0.02  # by which share the step of many iterations grows per point of quality above MIDDLE
MIDDLE = 50.0
HARDNESS, HARDNESS_OF_SOME, HARDNESS_OF_FEW = (0.35, 0.08), (0.35, 0.2), (0.35, 0.28)  # temperatures, first and last
NOISE, NOISE_OF_FEW = (0.22, 0.15), (0.05, 0.05)  # deviation of what is added between two soft roundings, first and last
MANY = 30  # iterations from which on rounding hardens to the end
SYMBOL_MAX = 32_000
CELL = 32  # pixels per side of what has one mean colour


@dataclass(frozen=True)
class Tune:
    """Weighs what a picture's error costs: the squared error by that in training, and a distance in bits per pixel.

    step: of the descent where iterations are FEW or less. most: iterations up to which it goes straight on, with less
    hardening and little noise, in smaller steps the more they are. colour: by how many times more the error of a cell's
    mean colour counts.
    """

    squares: float
    step: float
    most: int = FEW
    weight: float = 0.0
    distance: Callable[[Tensor], Callable[[Tensor], Tensor]] | None = None
    colour: float = 0.0


TUNES = {
    "eye": Tune(0.1, 0.045, 8, 0.55, EyeDistance, 40.0),
    "psnr": Tune(1.0, 0.03),
    "ms-ssim": Tune(0.25, 0.045, FEW, 8.0, MsSsimDistance),
}


@dataclass(frozen=True)
class Tile:
    """Holds what is searched: y of a tile, and what its pixels depend on.

    picture: float [1, 3, H, W] in 0..1, the original's pixels in the window that are to be near. y: float [1, M, h, w], the
    tile's, real. mean, rows: of the hyper decoder in the tile (`Photo.mean`, `Photo.prior`). around: float [1, M, h', w'],
    y_hat of the tile and of what lies around it; top, left: where in it the tile begins. from_pixel: row and column of the
    window's pixels where `picture` begins. gray: the decoder takes the mean of the three channels.
    """

    picture: Tensor
    y: Tensor
    mean: Tensor
    rows: Tensor
    around: Tensor
    top: int = 0
    left: int = 0
    from_pixel: tuple[int, int] = (0, 0)
    gray: bool = False


@torch.enable_grad()
def searched(
    model: Photo, tile: Tile, quality: int, tune: str, iterations: int, each_step: Callable[[], None] = lambda: None
) -> Tensor:
    """Return y_hat of a tile, float [1, M, h, w], that costs no more than plain rounding would, in bits and in error.

    Coded as y, it gives the symbols that were found. quality: quality x 100. each_step: is called before each iteration;
    what it raises ends the search. The same input gives the same output on one machine with the same number of threads.
    """
    state = State(model, tile, quality, TUNES[tune])
    few = iterations <= state.tune.most
    many = STEP / math.sqrt(iterations or 1) * (1 + FASTER * max(0.0, quality / 100 - MIDDLE))
    step = state.tune.step * min(1.0, FEW / max(1, iterations)) if few else many
    optimiser = torch.optim.Adam(state.moved, lr=step, betas=(0.7, 0.99) if few else (0.9, 0.999))
    hardness = HARDNESS_OF_FEW if few else HARDNESS if iterations >= MANY else HARDNESS_OF_SOME
    noise = NOISE_OF_FEW if few else NOISE
    generator = torch.Generator().manual_seed(0)
    before = state.rounded()
    for i in range(iterations):
        each_step()
        progress = i / max(1, iterations - 1)
        loss = state.loss(*state.softly(between(hardness, progress), between(noise, progress), generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return min(before, state.rounded(), key=lambda one: one[0])[1]


class State:
    """Holds what is moved, in the order of the passes, and measures what it costs."""

    def __init__(self, model: Photo, tile: Tile, quality: int, tune: Tune) -> None:
        device = tile.y.device
        self.model, self.tile, self.tune = model, tile, tune
        self.quality = torch.tensor([quality / 100], device=device)
        self.places = pass_places(*tile.y.shape[1:], str(device))
        self.moved = [tile.y.flatten()[where].clone().requires_grad_() for where in self.places]
        lambda_, middle = (float(model.lambda_of(q)) for q in (self.quality, torch.tensor(MIDDLE_QUALITY)))
        n_pixels = tile.picture.shape[2] * tile.picture.shape[3]
        self.squares = tune.squares * lambda_ * 255**2 / 3
        self.weight = tune.weight * (lambda_ / middle) ** GROWTH * n_pixels
        self.distance = tune.distance(tile.picture) if tune.distance else None
        self.tables = bit_tables(model.tables, str(device))

    def softly(self, hardness: float, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return y_hat of the tile as softly rounded, and its bits on the lines between those of integers."""
        y_hat, symbols, bits = torch.zeros_like(self.tile.mean), torch.zeros_like(self.tile.mean), self.quality.new_zeros(())
        for n, (where, moved) in enumerate(zip(self.places, self.moved, strict=True)):
            with self.quickly():
                mean = self.model.pass_mean(n, self.tile.mean, y_hat).flatten()[where]
            added = noise * torch.randn(moved.shape, generator=generator).to(moved.device)
            symbol = soft_round(soft_round(moved - mean, hardness) + added, hardness)
            with torch.no_grad():
                rows = self.rows(n, symbols, where)
                below = symbol.floor()
                symbols.view(-1)[where] = symbol.round()
            low, high = self.bits(rows, below), self.bits(rows, below + 1)
            bits = bits + torch.dot(high - low, symbol - below) + low.sum()
            y_hat = y_hat.flatten().index_copy(0, where, symbol + mean).view_as(y_hat)
        return y_hat, bits

    @torch.no_grad()
    def rounded(self) -> tuple[float, Tensor]:
        """Return what the tile costs when rounded, and its y_hat."""
        y_hat, symbols, bits = torch.zeros_like(self.tile.mean), torch.zeros_like(self.tile.mean), 0.0
        for n, (where, moved) in enumerate(zip(self.places, self.moved, strict=True)):
            mean = self.model.pass_mean(n, self.tile.mean, y_hat).flatten()[where]
            found = (moved - mean).round().clamp(-SYMBOL_MAX, SYMBOL_MAX)
            bits = bits + float(self.bits(self.rows(n, symbols, where), found).sum())
            symbols.view(-1)[where] = found
            y_hat.view(-1)[where] = found + mean
        return float(self.loss(y_hat, torch.tensor(bits))), y_hat

    def loss(self, y_hat: Tensor, bits: Tensor) -> Tensor:
        """Return bits, and what the error is worth in bits."""
        tile, (height, width) = self.tile, y_hat.shape[2:]
        whole = y_hat
        if tile.around.shape != y_hat.shape:
            whole = tile.around.clone()
            whole[..., tile.top : tile.top + height, tile.left : tile.left + width] = y_hat
        with self.quickly():
            decoded = self.model.synthesis(whole.contiguous(memory_format=torch.channels_last), self.quality)
        (top, left), (rows, columns) = tile.from_pixel, tile.picture.shape[2:]
        decoded = decoded[..., top : top + rows, left : left + columns].float().contiguous().clamp(0, 1)
        if tile.gray:
            decoded = decoded.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        error = decoded - tile.picture
        loss = bits + self.squares * error.square().sum()
        if self.tune.colour:
            means = F.avg_pool2d(error, CELL, ceil_mode=True, count_include_pad=False)
            loss = loss + self.tune.colour * self.squares * CELL**2 * means.square().sum()
        return loss + self.weight * self.distance(decoded) if self.distance else loss

    def rows(self, n: int, symbols: Tensor, where: Tensor) -> Tensor:
        """Return the table rows of the symbols of a pass, int64, by those of the passes before."""
        return self.model.indices(self.model.pass_rows(n, self.tile.rows, symbols).flatten()[where]).long()

    def bits(self, rows: Tensor, symbols: Tensor) -> Tensor:
        """Return the bits of symbols, whole numbers as float; of one outside its row those of the escape."""
        bits, offsets, last = self.tables
        entries = symbols.long() - offsets[rows]
        outside = (entries < 0) | (entries > last[rows])
        return bits[rows, torch.where(outside, last[rows], entries)]

    def quickly(self) -> torch.autocast:
        """Return what runs the float networks in bf16 where that is faster."""
        device = self.tile.y.device.type
        return torch.autocast(device, torch.bfloat16, enabled=multiplies_bf16(device))


@lru_cache(maxsize=8)
def pass_places(channels: int, height: int, width: int, device: str) -> tuple[Tensor, ...]:
    """Return the flat places in [channels, height, width] of the samples of each pass, in the order they are coded."""
    with torch.inference_mode(False):  # whoever asks first: a search needs tensors that gradients may go by
        return tuple(mask.flatten().nonzero()[:, 0].to(device) for mask in pass_masks(channels, height, width))


def bit_tables(tables: Tables, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bits of the entries of each table row, the first symbol of each row and its last entry, the escape."""
    found = torch.from_numpy(tables.bits), torch.from_numpy(tables.offsets).long(), torch.from_numpy(tables.sizes).long() - 1
    return found[0].to(device), found[1].to(device), found[2].to(device)
