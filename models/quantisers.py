"""Quantisers of the field in place of the sound model's uniform scalars, with rates that can be compared.

- `LatentQuantiser`: a learnable codebook of scalars per dimension (Hsu et al. 2023, "Disentanglement via latent
  quantization", section 3); its strong weight decay is the trainer's `--decay 0.1`.
- `FiniteScalars`: a bounded grid without a codebook (Mentzer et al. 2023, "Finite scalar quantization", section 3.1).
- `ResidualVectors`: residual vector quantisation (Zeghidour et al. 2021, "SoundStream") of low-dimensional unit vectors
  found by cosine (Kumar et al. 2023, "DAC", section 3.2), with codebooks that follow a moving average (van den Oord et
  al. 2017, appendix A), a number of stages that the quality decides, and codes that nobody uses drawn again.

All are coded under the model's own prior, so rates differ by what is quantised, not by how well it is predicted: a
scalar costs the logistic mass of its cell, and a vector its share of a softmax over the codebook, which knows how large
each direction is expected to be. Here are estimates in bits for training and tables; no file is written with these.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.sound import LOG_SCALE_MAX, LOG_SCALE_MIN, LOGISTIC, MEAN_STEP, Sound, SoundConfig, mdct

LEVELS = 33  # of a latent dimension
FINITE_LEVELS = 17
FAR = 1e4  # the end of the outermost cells, in steps
STAGES, CODES, DIMENSIONS = 16, 1024, 8
EMA = 0.99
UNUSED = 0.5  # vectors of a batch, in the moving average, below which a code is drawn again
COMMITMENT = 0.25  # DAC's
GOLDEN = (math.sqrt(5) - 1) / 2
NAMES = ("uniform", "latent", "fsq", "rvq")


class QuantisedSound(Sound):
    """Codes the shape, and with "latent" the envelope as well, by another quantiser. Starts from a model's weights."""

    def __init__(self, config: SoundConfig, name: str) -> None:
        super().__init__(config)
        self.shape_quantiser = quantiser(name, config.coded_bins)
        self.envelope_quantiser = LatentQuantiser(config.bands) if name == "latent" else None

    def code_envelope(self, target: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the envelope in steps as decoded, and its bits [B, T]."""
        if self.envelope_quantiser is None:
            return super().code_envelope(target, mean, log_scale)
        return self.envelope_quantiser.forward(target, stepped(mean), log_scale.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX))

    def code_shape(self, target: Tensor, mean: Tensor, log_scale: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shape in steps as decoded, and its bits [B, T]."""
        mean, log_scale = stepped(mean), log_scale.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)
        if isinstance(self.shape_quantiser, ResidualVectors):
            return self.shape_quantiser.forward(target, mean, log_scale, quality)
        return self.shape_quantiser.forward(target, mean, log_scale)

    def penalty(self) -> Tensor:
        """Return what the quantisers add to the loss for the last batch."""
        envelope = self.envelope_quantiser
        return self.shape_quantiser.penalty if envelope is None else self.shape_quantiser.penalty + envelope.penalty

    @torch.no_grad()
    def start_codebooks(self, sounds: Tensor) -> None:
        """Set what has to begin from data, float [B, S], after the weights of the model are there."""
        if not isinstance(self.shape_quantiser, ResidualVectors):
            return
        quality = torch.full((len(sounds),), 0.5)
        _, shape = self.features(mdct(sounds, self.synthesis_matrix))
        target = shape * torch.exp2(self.gains(self.shape_gain, quality))
        self.shape_quantiser.start(target.flatten(0, 1))


class LatentQuantiser(nn.Module):
    """Rounds what is left of a number when its mean is taken away to the nearest of its dimension's values.

    The values begin at the integers, where this is the uniform quantiser.
    """

    WEIGHT = 0.01  # of both losses, the paper's

    def __init__(self, dimensions: int, levels: int = LEVELS) -> None:
        super().__init__()
        self.codebook = nn.Parameter((torch.arange(levels) - levels // 2.0).repeat(dimensions, 1))
        self.penalty = torch.zeros(())

    def forward(self, target: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target as decoded [B, T, K], and bits [B, T]; gradients pass straight through."""
        left = target - mean
        values = self.codebook.sort(1).values
        middles = (values[:, 1:] + values[:, :-1]) / 2
        flat = left.detach().flatten(0, 1).T.contiguous()
        index = torch.searchsorted(middles.detach(), flat)
        ends = F.pad(middles, (1, 0), value=-FAR), F.pad(middles, (0, 1), value=FAR)
        value, low, high = (table.gather(1, index).T.view_as(left) for table in (values, *ends))
        self.penalty = self.WEIGHT * (F.mse_loss(value, left.detach()) + F.mse_loss(left, value.detach()))
        bits = cell_bits(low, high, log_scale) + slope(left, value.detach(), low.detach(), high.detach(), log_scale)
        return mean + value + (left - left.detach()), bits.sum(2)


class FiniteScalars(nn.Module):
    """Bounds what is left of a number when its mean is taken away by a hyperbolic tangent, and rounds it.

    Steps are 1 around zero and widen outwards: the decoder takes the bound away again. Nothing here is learned.
    """

    def __init__(self, levels: int = FINITE_LEVELS) -> None:
        super().__init__()
        self.reach = (levels - 1) * (1 + 1e-3) / 2
        self.most = levels // 2
        self.penalty = torch.zeros(())

    def forward(self, target: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target as decoded [B, T, K], and bits [B, T]; gradients pass straight through."""
        left = target - mean
        symbol = (self.reach * torch.tanh(left.detach() / self.reach)).round()
        value, low, high = (self.unbound(symbol + offset) for offset in (0, -0.5, 0.5))
        low = low.masked_fill(symbol <= -self.most, -FAR)
        high = high.masked_fill(symbol >= self.most, FAR)
        bits = cell_bits(low, high, log_scale) + slope(left, value, low, high, log_scale)
        return mean + value + (left - left.detach()), bits.sum(2)

    def unbound(self, symbol: Tensor) -> Tensor:
        """Return the numbers that the bound would turn into these."""
        return self.reach * torch.atanh((symbol / self.reach).clamp(-1 + 1e-6, 1 - 1e-6))


class ResidualVectors(nn.Module):
    """Quantises a frame by the sum of unit vectors in a few dimensions each, every one from a codebook of its own.

    A frame is divided by the deviation that the prior expects of it, which the decoder knows, so that a unit vector has
    the right length. Stages that a quality has no room for are left out (SoundStream's quantiser dropout: in training
    each sample has a quality of its own); a fraction of a stage is shared out over the frames.
    """

    codebook: Tensor
    sizes: Tensor
    sums: Tensor

    def __init__(self, dimensions: int, stages: int = STAGES, codes: int = CODES, width: int = DIMENSIONS) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(stages, width, dimensions) * dimensions**-0.5)
        self.outer = nn.Parameter(torch.zeros(stages, width, dimensions))
        self.bias = nn.Parameter(torch.zeros(stages, codes))  # of the logarithm of a code's probability
        self.trust = nn.Parameter(torch.ones(stages))  # in how much larger the expected directions are
        self.register_buffer("codebook", F.normalize(torch.randn(stages, codes, width), dim=2))
        self.register_buffer("sizes", torch.ones(stages, codes))
        self.register_buffer("sums", self.codebook.clone())
        self.penalty = torch.zeros(())

    def forward(self, target: Tensor, mean: Tensor, log_scale: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target as decoded [B, T, K], and bits [B, T]; gradients pass straight through."""
        power = torch.exp(2 * log_scale)
        deviation = power.mean(2, keepdim=True).sqrt()
        share = power / deviation.square()
        residual = (target - mean) / deviation.detach()
        found, bits, penalty = torch.zeros_like(residual), torch.zeros_like(residual[..., 0]), torch.zeros(())
        used = stages_used(quality, target.shape[1], len(self.inner))
        for stage in range(len(self.inner)):
            on = used > stage
            direction = F.normalize(residual @ self.inner[stage].T, dim=2)
            index = self.nearest(stage, direction.detach())
            code = self.codebook[stage][index]
            if self.training and torch.is_grad_enabled():
                self.follow(stage, direction.detach()[on], index[on])
            penalty = penalty + COMMITMENT * ((direction - code).square().sum(2) * on).mean()
            step = ((code + direction - direction.detach()) @ self.outer[stage]) * on[..., None]
            found, residual = found + step, residual - step
            bits = bits + self.bits(stage, index, share) * on
        self.penalty = penalty / len(self.inner)
        return mean + deviation.detach() * found, bits

    def nearest(self, stage: int, direction: Tensor) -> Tensor:
        """Return the code with the largest cosine, [...], of unit vectors [..., D]."""
        return (direction @ self.codebook[stage].T).argmax(-1)

    def bits(self, stage: int, index: Tensor, share: Tensor) -> Tensor:
        """Return bits [B, T] of codes. share: how much of a frame's power is expected in each number, [B, T, K].

        Directions of a normal vector with these variances are distributed as an angular central Gaussian.
        """
        variance = share @ self.inner[stage].square().T + 1e-4
        spread = torch.log((1 / variance) @ self.codebook[stage].square().T)
        logits = self.bias[stage] - 0.5 * self.codebook.shape[2] * self.trust[stage] * spread
        chosen = logits.gather(2, index[..., None])[..., 0]
        return (logits.logsumexp(2) - chosen) * math.log2(math.e)

    @torch.no_grad()
    def follow(self, stage: int, directions: Tensor, index: Tensor) -> None:
        """Move the codes of a stage towards the unit vectors [N, D] that took them, by a moving average."""
        if not len(index):
            return
        n = torch.bincount(index, minlength=self.sizes.shape[1]).to(directions.dtype)
        total = torch.zeros_like(self.sums[stage]).index_add_(0, index, directions)
        self.sizes[stage].lerp_(n, 1 - EMA)
        self.sums[stage].lerp_(total, 1 - EMA)
        lost = self.sizes[stage] < UNUSED * min(1.0, len(index) / self.sizes.shape[1])
        drawn = directions[torch.randint(len(directions), (int(lost.sum()),))]
        self.sums[stage][lost], self.sizes[stage][lost] = drawn, 1.0
        self.codebook[stage] = F.normalize(self.sums[stage], dim=1)

    @torch.no_grad()
    def start(self, vectors: Tensor, passes: int = 8) -> None:
        """Set every stage from what the ones before leave of vectors [N, K]: main directions, k-means on the sphere."""
        power = vectors.square().mean(1, keepdim=True)
        residual = vectors * (power + 0.01 * power.mean()).rsqrt()
        codes, width = self.codebook.shape[1:]
        for stage in range(len(self.inner)):
            basis = torch.linalg.eigh(residual.T @ residual)[1].T[-width:]
            projected = residual @ basis.T
            direction = F.normalize(projected, dim=1)
            self.inner[stage] = basis
            self.codebook[stage] = direction[torch.randint(len(direction), (codes,))]
            for _ in range(passes):
                index = self.nearest(stage, direction)
                n = torch.bincount(index, minlength=codes).float()
                total = torch.zeros(codes, width).index_add_(0, index, direction)
                self.codebook[stage] = F.normalize(torch.where(n[:, None] > 0, total, self.codebook[stage]), dim=1)
            index = self.nearest(stage, direction)
            self.sizes[stage] = torch.bincount(index, minlength=codes).float().clamp(min=1)
            self.sums[stage] = self.codebook[stage] * self.sizes[stage][:, None]
            code = self.codebook[stage][index]
            length = (projected * code).sum(1).mean()  # the one that leaves least
            self.outer[stage] = basis * length
            residual = residual - code @ self.outer[stage]


Quantiser = LatentQuantiser | FiniteScalars | ResidualVectors


def quantiser(name: str, dimensions: int) -> Quantiser:
    """Return the quantiser of a name in NAMES but "uniform", which the model itself has."""
    if name == "latent":
        return LatentQuantiser(dimensions)
    return FiniteScalars() if name == "fsq" else ResidualVectors(dimensions)


def stages_used(quality: Tensor, frames: int, stages: int) -> Tensor:
    """Return how many stages each frame has, [B, T], of qualities [B]; on average quality * stages."""
    dither = (torch.arange(frames, device=quality.device) * GOLDEN).remainder(1)
    return (quality[:, None] * stages + dither).floor().clamp(0, stages)


def stepped(mean: Tensor) -> Tensor:
    """Return means rounded to the steps that they have in files, differentiable."""
    return mean + ((mean / MEAN_STEP).round() * MEAN_STEP - mean).detach()


def cell_bits(low: Tensor, high: Tensor, log_scale: Tensor) -> Tensor:
    """Return the bits of cells from low to high under logistics around 0 of deviation exp(log_scale); stable in tails."""
    s = torch.exp(-log_scale) * LOGISTIC
    width = ((high - low) * s).clamp(min=1e-6)
    log_p = F.logsigmoid(high * s) + F.logsigmoid(-low * s) + torch.log(-torch.expm1(-width))
    return log_p * -math.log2(math.e)


def slope(left: Tensor, value: Tensor, low: Tensor, high: Tensor, log_scale: Tensor) -> Tensor:
    """Return zeros, whose gradient is that of the rate at the number before it was rounded, in a cell of the same width."""
    moved = left - value
    bits = cell_bits(low + moved, high + moved, log_scale.detach())
    return bits - bits.detach()
