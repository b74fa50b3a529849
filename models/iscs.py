"""ISCS: the channels of a latent in order of importance, and in groups, from a model's parameters alone.

After the abstract of "Parameter-Guided Channel Ordering and Grouping for Learned Image Compression" (2025): importance from
"weight variances, bias magnitudes and pairwise correlations", a Salient-Core and a Salient-Auxiliary set, an order, slices.
The paper's formulas are not public. What stands here is our own definition, not theirs; `literal` reads the abstract's
words as they are, for comparison (docs/iscs.md has how far each agrees with what a channel is really worth).

    importance I = G E     G: what the decoder makes of a unit in the channel      E: how large the prior expects the channel
    order                  by I, descending                                        core: the first channels, with 95 % of I
    slices                 the order dealt out like cards, forth and back          pairs: which channels are large together

No picture enters, and one seed gives one order. The sums are floats, so an order is computed once and then stored: another
machine may round two neighbours the other way.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from laconic.entropy.errors import BadInput, expect
from laconic.models.photo import N_PASSES, QUALITY_UNITS, Photo, bin_bits, pass_masks, scale_of

CORE_SHARE = 0.95  # of the sum of importances
N_SLICES = 4
UNITS = 64  # the order sees log2 of the importance in 64ths, so that a last bit of a float does not choose
IMPULSES = 16  # channels whose impulses are decoded at a time
GRIDS, Z_SIDE = 6, 8  # the prior is drawn on so many grids of 8 x 8 samples of z


class Latents(Protocol):
    """Is a codec as ISCS sees it: a decoder of y_hat [N, M, h, w], and a prior of it. See `PhotoLatents`."""

    n_channels: int  # M
    reach: int  # samples of y on each side over which the decoder spreads one

    def decode(self, y_hat: Tensor) -> Tensor:
        """Return the picture, float [N, 3, H, W], of y_hat [N, M, h, w]; forward-mode differentiable."""

    def energy(self, seed: int) -> Tensor:
        """Return the mean of y_hat**2 that the prior expects at places that it was drawn for, float64 [places, M]."""

    def neighbours(self) -> Neighbours:
        """Return the weights of the layers on both sides of y."""


@dataclass(frozen=True)
class Neighbours:
    """Holds the weights beside y: what makes each channel, and what reads it."""

    encoder: Tensor  # [M, K]: the last layer before y, a row per channel
    bias: Tensor  # [M], of that layer
    decoder: Tensor  # [M, L]: the first layer after y, a row per channel


@dataclass(frozen=True)
class Iscs:
    """Holds the order and the groups of a model's channels."""

    importance: Tensor  # float64 [M]
    order: Tensor  # int64 [M]: channels, most important first
    n_core: int  # the first n_core of the order are the Salient-Core, the others the Salient-Auxiliary
    correlation: Tensor  # float64 [M, M], of channels' magnitudes, by channel
    slices: Tensor  # int64 [M]: the slice of each channel

    @property
    def core(self) -> Tensor:
        """The Salient-Core: int64 [n_core], most important first."""
        return self.order[: self.n_core]

    @property
    def auxiliary(self) -> Tensor:
        """The Salient-Auxiliary: the other channels, most important first."""
        return self.order[self.n_core :]


@torch.no_grad()
def analyse(latents: Latents, seed: int = 0, n_slices: int = N_SLICES) -> Iscs:
    """Return the order and the groups of a model's channels. The same seed on the same machine gives the same."""
    drawn = latents.energy(seed)
    worth = decoder_energy(latents) * drawn.mean(0)
    order = order_of(worth)
    return Iscs(worth, order, n_core(worth[order]), correlation(drawn), slices(order, n_slices))


def decoder_energy(latents: Latents) -> Tensor:
    """Return G, float64 [M]: the squares, over all samples of the picture, of the decoder's derivative by a channel.

    G_c = sum over pixels of (d decode / d y_c)**2 at y = 0, for one sample of y in the middle of as many as it reaches.
    If the decoder is linear, setting the channel to 0 changes the picture's squared error by G_c times its energy.
    """
    side = 2 * latents.reach + 1
    found = []
    for channels in torch.arange(latents.n_channels).split(IMPULSES):
        impulse = torch.zeros(len(channels), latents.n_channels, side, side)
        impulse[torch.arange(len(channels)), channels, latents.reach, latents.reach] = 1
        with forward_ad.dual_level():
            out = latents.decode(forward_ad.make_dual(torch.zeros_like(impulse), impulse))
            found.append(forward_ad.unpack_dual(out).tangent.double().square().flatten(1).sum(1))
    return torch.cat(found)


def order_of(importance: Tensor) -> Tensor:
    """Return the channels, int64 [M], by log2 of the importance in 64ths, descending; of equals the lower index first."""
    steps = (importance.double().clamp_min(1e-300).log2() * UNITS).round()
    return steps.argsort(descending=True, stable=True)


def n_core(ordered: Tensor, share: float = CORE_SHARE) -> int:
    """Return how many of the first channels hold that share of all importance, at least 1. ordered: [M], descending."""
    total = ordered.double().cumsum(0)
    return min(int((total < share * total[-1]).sum()) + 1, len(ordered))


def slices(order: Tensor, n: int = N_SLICES) -> Tensor:
    """Return the slice, 0 to n - 1, of each channel, int64 [M]: the order is dealt out forth and back (a snake).

    Sizes differ by one at most. Of anything that falls along the order, such as the importance, two slices' sums differ by
    the first channel's at most: what one slice gains in a row, it loses in the next.
    """
    expect(n >= 1, BadInput, "slices", n, "at least 1")
    row, place = torch.arange(len(order)) // n, torch.arange(len(order)) % n
    found = torch.empty_like(order)
    found[order] = torch.where(row % 2 == 0, place, n - 1 - place)
    return found


def correlation(drawn: Tensor) -> Tensor:
    """Return Pearson's correlation, float64 [M, M], of log2 of the channels' expected energies [places, M].

    It says which channels are large at the same places; signs of y have nothing stable in common. A channel whose
    expectation never changes, as under a factorised prior, is correlated with itself alone.
    """
    logs = drawn.double().clamp_min(1e-300).log2()
    logs = logs - logs.mean(0)
    norm = logs.square().sum(0).sqrt()
    scaled = torch.where(norm > 1e-9 * math.sqrt(len(logs)), logs / norm.clamp_min(1e-300), 0.0)
    return (scaled.T @ scaled).fill_diagonal_(1.0)


def partners(found: Iscs) -> Tensor:
    """Return for each channel the one of the core that it goes along with most, int64 [M]; a core channel is its own."""
    best = found.core[found.correlation[:, found.core].argmax(1)]
    best[found.core] = found.core
    return best


def literal(near: Neighbours, side: str) -> Tensor:
    """Return the importance as the abstract's words read, float64 [M]: a baseline that does not work.

    The variance of a channel's weights, plus the magnitude of its bias, less its mean absolute cosine with the other
    channels' weights; each in standard deviations from its mean over channels. side: "encoder" or "decoder", whose weights.
    """
    weights = (near.encoder if side == "encoder" else near.decoder).double()
    unit = torch.nn.functional.normalize(weights, dim=1)
    alike = (unit @ unit.T).abs().fill_diagonal_(0).sum(1) / max(len(weights) - 1, 1)
    return standardised(weights.var(1)) + standardised(near.bias.double().abs()) - standardised(alike)


def standardised(values: Tensor) -> Tensor:
    """Return values [M] less their mean, in standard deviations; zeros where all are equal."""
    spread = values.std(correction=0)
    return (values - values.mean()) / spread if spread > 0 else torch.zeros_like(values)


def rounded_energy(scale: Tensor) -> Tensor:
    """Return the mean of round(x)**2 for x ~ N(0, scale**2), float64, to 1e-8. scale: positive.

    It is the sum over k >= 1 of (2 k - 1) P(|x| > k - 1/2). From a scale of 1 on that is scale**2 + 1/12 (Sheppard).
    """
    scale = scale.double()
    narrow = scale.clamp_max(1.0)
    total = torch.zeros_like(scale)
    for k in range(1, 8):
        total += (2 * k - 1) * torch.special.erfc((k - 0.5) / (narrow * math.sqrt(2)))
    return torch.where(scale < 1.0, total, scale.square() + 1 / 12)


class PhotoLatents:
    """Shows a photo model at one quality (0 to 100) to ISCS."""

    def __init__(self, model: Photo, quality: float = 50.0) -> None:
        self.model, self.quality = model, quality
        self.n_channels, self.reach = model.config.latent_channels, model.config.synthesis_halo

    def decode(self, y_hat: Tensor) -> Tensor:
        """Return the picture of y_hat."""
        return self.model.synthesis(y_hat, torch.full((len(y_hat),), self.quality))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_hat and the bits of its samples, [N, M, h, w], of pictures [N, 3, H, W] in 0..1, sides of 64 pixels."""
        y = self.model.analysis(x, torch.full((len(x),), self.quality))
        z, quality = self.model.hyper(y).round(), self.integer_quality
        mean, rows = self.model.mean(z), self.model.prior(z, quality)
        y_hat, symbols, bits = torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(y)
        for n, mask in enumerate(pass_masks(*y.shape[1:])):
            means = self.model.pass_mean(n, mean, y_hat)
            scale = scale_of(self.model.indices(self.model.pass_rows(n, rows, symbols)).float())
            coded = mask * (y - means).round()
            symbols, y_hat = symbols + coded, y_hat + mask * (coded + means)
            bits += mask * bin_bits(coded, scale)
        return y_hat, bits

    @property
    def integer_quality(self) -> int:
        """The quality as a file has it."""
        return round(self.quality * QUALITY_UNITS / 100)

    def energy(self, seed: int) -> Tensor:
        """Return what the prior expects of y_hat**2: z is drawn from its tables, the symbols of earlier passes from theirs.

        Of the pass that a sample belongs to, nothing is drawn: its mean is squared, and the energy of its rounded scale
        is added.
        """
        generator, quality = torch.Generator().manual_seed(seed), self.integer_quality
        z_scale = scale_of(self.model.z_indices(quality).float())[:, None, None]
        z = (torch.randn(GRIDS, len(z_scale), Z_SIDE, Z_SIDE, generator=generator) * z_scale).round()
        mean, rows = self.model.mean(z), self.model.prior(z, quality)
        y_hat, found = torch.zeros_like(mean), torch.zeros_like(mean, dtype=torch.float64)
        symbols = torch.zeros_like(mean)
        for n, mask in enumerate(pass_masks(*mean.shape[1:])):
            means = self.model.pass_mean(n, mean, y_hat)
            scale = scale_of(self.model.indices(self.model.pass_rows(n, rows, symbols)).float())
            found += mask * (means.double().square() + rounded_energy(scale))
            coded = mask * (torch.randn(mean.shape, generator=generator) * scale).round()
            symbols, y_hat = symbols + coded, y_hat + mask * (coded + means)
        return found.movedim(1, 3).flatten(0, 2)

    def neighbours(self) -> Neighbours:
        """Return the weights of `to_y` and `from_y`."""
        encoder, decoder = self.model.to_y, self.model.from_y
        return Neighbours(encoder.weight.flatten(1), encoder.bias, decoder.weight.movedim(1, 0).flatten(1))  # type: ignore[arg-type]


@torch.no_grad()
def permuted(model: Photo, order: Tensor) -> Photo:
    """Return the model with its latent channels in another order: channel c of the new one is order[c] of the old one.

    The order goes into the layers beside y, so pictures come out the same: `analysis` gives the permuted y, `synthesis`
    takes it, and every layer of the prior goes along. Which pass codes a channel is by its number modulo 4 (`pass_masks`):
    codelengths stay the same only where c and order[c] agree modulo 4. Elsewhere the contexts meet neighbours that they
    were not trained with, and have to be trained on.
    """
    complete = torch.equal(order.sort().values, torch.arange(model.config.latent_channels))
    expect(complete, BadInput, "order", order.tolist(), "each channel once")
    new = copy.deepcopy(model)
    twice = torch.cat([order, order + len(order)])  # of layers that take two maps of y
    outputs: list[Any] = [new.to_y, new.h_mean[-1], new.h_scale.leave]
    inputs: list[tuple[Any, Tensor]] = [(new.from_y, order), (new.h_a[0], order)]
    for n in range(N_PASSES - 1):
        outputs += [new.c_mean[n][-1], new.c_scale[n].leave]  # type: ignore[index]
        inputs += [(new.c_mean[n][0], twice), (new.c_scale[n].enter, twice)]  # type: ignore[index]
    for layer in outputs:
        layer.weight.copy_(layer.weight[order])
        layer.bias.copy_(layer.bias[order])
    for layer, channels in inputs:
        layer.weight.copy_(layer.weight[:, channels])
    for table in (new.gain_y, new.gain_y_inverse, new.scale_offset):
        table.copy_(table[:, order])
    return new
