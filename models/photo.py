"""Photo model: a variable-rate mean-scale hyperprior (Minnen et al. 2018, arXiv:1809.02736, section 3).

    x ─ unshuffle(8) ─ g_a ─► y · gain(q) ─ − mean ─ round ─► y symbols       y [N, M, H/16, W/16]
                                │                ▲
                               h_a ─ round ─► z symbols ─ h_mean (float)      z [N, Z, H/64, W/64]
                                                      └── h_scale (integers) ─► table indices of y

All that chooses a probability comes from z symbols and the quality by integer arithmetic (`exact.py`): `y_indices` and
`z_indices`. Blocks follow EVC (Wang et al. 2023) and DCVC-RT (Jia et al. 2025): depthwise 3x3 and pointwise
convolutions at 1/8 and 1/16 resolution only. Gains per quality: Cui et al. 2021, interpolated in the logarithm.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.exact import EXACT_LIMIT, SHIFT, ExactConv, interpolate, requantise, round_ste

STRIDE = 64  # pixels per sample of z: pictures are padded to multiples of it
N_SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 64.0
LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (N_SCALES - 1)
QUALITY_UNITS = 10_000  # quality is stored as an integer, quality x 100
Z_CLAMP, Z_FACTOR = 31, 4  # the integer branch sees z clamped to +-31, times 4: an activation within +-127
HYPER = 64  # channels of the two branches of the hyper decoder


@dataclass(frozen=True)
class PhotoConfig:
    """Sizes of the networks. Stored in the card; a change of a default is a new model."""

    c8: int = 160  # channels at 1/8 resolution
    c16: int = 256  # channels at 1/16
    latent_channels: int = 256  # M of the paper, channels of y
    hyper_channels: int = 96  # channels of z
    encoder_blocks: tuple[int, int] = (3, 1)  # at 1/8, 1/16
    decoder_blocks: tuple[int, int] = (2, 5)  # at 1/16, 1/8
    anchors: int = 16  # qualities with gains of their own
    lambda_min: float = 0.0006
    lambda_max: float = 0.25


class Photo(nn.Module):
    """Picture <-> integers. Bytes are the codec's affair."""

    def __init__(self, config: PhotoConfig = PhotoConfig()) -> None:
        super().__init__()
        c = self.config = config
        self.stem = nn.Conv2d(192, c.c8, 1)
        self.g_a_8 = blocks(c.c8, c.encoder_blocks[0])
        self.down = nn.Conv2d(c.c8, c.c16, 2, 2)
        self.g_a_16 = blocks(c.c16, c.encoder_blocks[1])
        self.to_y = nn.Conv2d(c.c16, c.latent_channels, 1)
        self.from_y = nn.Conv2d(c.latent_channels, c.c16, 1)
        self.g_s_16 = blocks(c.c16, c.decoder_blocks[0])
        self.up = nn.Conv2d(c.c16, 4 * c.c8, 1)
        self.g_s_8 = blocks(c.c8, c.decoder_blocks[1])
        self.head = nn.Conv2d(c.c8, 192, 1)
        self.h_a = hyper_analysis(c.latent_channels, c.hyper_channels)
        self.h_mean = hyper_mean(c.hyper_channels, c.latent_channels)
        self.h_scale = HyperScale(c.hyper_channels, c.latent_channels)
        self.gain_y = log_gains(c.anchors, c.latent_channels)  # natural logarithms
        self.gain_y_inverse = log_gains(c.anchors, c.latent_channels)
        self.gain_enc = log_gains(c.anchors, c.c8)
        self.gain_dec = log_gains(c.anchors, c.c8)
        self.scale_offset = nn.Parameter(torch.full((c.anchors, c.latent_channels), 16.0))  # table rows
        self.z_index = nn.Parameter(torch.full((c.anchors, c.hyper_channels), 24.0))  # table rows

    def analysis(self, x: Tensor, quality: Tensor) -> Tensor:
        """float [N, 3, H, W] in 0..1, H and W multiples of 16; quality [N] in 0..100 -> y [N, M, H/16, W/16]."""
        f: Tensor = self.g_a_8(self.stem(F.pixel_unshuffle(x - 0.5, 8)))
        f = self.g_a_16(self.down(f * self.gain(self.gain_enc, quality)))
        y: Tensor = self.to_y(f)
        return y.float() * self.gain(self.gain_y, quality)

    def synthesis(self, y: Tensor, quality: Tensor) -> Tensor:
        """y_hat float [N, M, H/16, W/16] -> picture float [N, 3, H, W], not clipped."""
        f: Tensor = self.g_s_16(self.from_y(y * self.gain(self.gain_y_inverse, quality)))
        f = self.g_s_8(F.pixel_shuffle(self.up(f), 2))
        f = self.head(f * self.gain(self.gain_dec, quality))
        return F.pixel_shuffle(f.float(), 8) + 0.5

    def hyper(self, y: Tensor) -> Tensor:
        """y [N, M, H/16, W/16], sides multiples of 4 -> z [N, Z, H/64, W/64], before rounding."""
        z: Tensor = self.h_a(y)
        return z.float()

    def mean(self, z: Tensor) -> Tensor:
        """z symbols as float [N, Z, h, w] -> mean of y [N, M, 4h, 4w]."""
        mean: Tensor = self.h_mean(z)
        return mean.float()

    def y_indices(self, z: Tensor, quality: int) -> Tensor:
        """z symbols as float [N, Z, h, w], quality x 100 -> table indices uint8 [N, M, 4h, 4w]. Exact everywhere."""
        offset = interpolate(self._integer(self.scale_offset), quality * (self.config.anchors - 1), QUALITY_UNITS)
        with torch.autocast(z.device.type, enabled=False):
            rows = self.h_scale(z.float()) + offset.to(z.device).float()[:, None, None]
        return torch.floor(rows * 2.0**-SHIFT).clamp(0, N_SCALES - 1).to(torch.uint8)

    def z_indices(self, quality: int) -> Tensor:
        """quality x 100 -> table indices of the channels of z, uint8 [Z]."""
        rows = interpolate(self._integer(self.z_index), quality * (self.config.anchors - 1), QUALITY_UNITS)
        return torch.div(rows, 1 << SHIFT, rounding_mode="floor").clamp(0, N_SCALES - 1).to(torch.uint8)

    def prove_exact(self) -> None:
        """Raise ValueError unless every sum of the integer branch stays below 2**24."""
        offset = int(self._integer(self.scale_offset).abs().max())
        for name, layer in self.h_scale.named_children():
            bound = layer.bound() + offset if isinstance(layer, ExactConv) else 0
            if bound >= EXACT_LIMIT:
                raise ValueError(f"h_scale.{name}: found a sum of {bound}, expected less than {EXACT_LIMIT}")

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One training pass: noise to the rate, straight-through rounding to the decoder.

        x: float [N, 3, H, W]; quality [N]. Returns the picture, and the bits of y and of z, each [N].
        """
        y = self.analysis(x, quality)
        z = self.hyper(y)
        z_hat = round_ste(z)
        mean = self.mean(z_hat)
        rows = self.h_scale(z_hat) * 2.0**-SHIFT + self.table(self.scale_offset, quality)
        bits_y = bin_bits(y - mean + uniform(y), scale_of(rows - 0.5)).flatten(1).sum(1)
        bits_z = bin_bits(z + uniform(z), scale_of(self.table(self.z_index, quality) - 0.5)).flatten(1).sum(1)
        return self.synthesis(round_ste(y - mean) + mean, quality), bits_y, bits_z

    def gain(self, table: Tensor, quality: Tensor) -> Tensor:
        """Log-interpolated gains [N, C, 1, 1] of the qualities [N]."""
        return self.table(table, quality).exp()

    def table(self, table: Tensor, quality: Tensor) -> Tensor:
        """Rows [N, C, 1, 1] of an anchor table [K, C] at the qualities [N], linear between anchors."""
        position = quality.clamp(0, 100) * ((self.config.anchors - 1) / 100)
        row = position.floor().clamp(max=self.config.anchors - 2).long()
        return torch.lerp(table[row], table[row + 1], (position - row)[:, None])[:, :, None, None]

    def lambda_of(self, quality: Tensor) -> Tensor:
        """The weight of 255**2 MSE against bits per pixel at a quality, log-spaced."""
        low, high = math.log(self.config.lambda_min), math.log(self.config.lambda_max)
        return torch.exp(low + (high - low) * quality / 100)

    def _integer(self, table: Tensor) -> Tensor:
        return (table.detach().double().cpu() * (1 << SHIFT)).round().long()


class Block(nn.Module):
    """A depthwise and a pointwise residual branch: float [N, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
        )
        self.mixing = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(2 * channels, channels, 1),
        )
        for branch in (self.spatial, self.mixing):  # the network starts as a linear code (see start_as_pca)
            for parameter in branch[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.spatial(x)
        out: Tensor = x + self.mixing(x)
        return out


class HyperScale(nn.Module):
    """The integer branch: z symbols [N, Z, h, w] -> sums [N, M, 4h, 4w], 2**SHIFT to a table row."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.enter = ExactConv(n_in, 4 * HYPER)
        self.dw1 = ExactConv(HYPER, HYPER, 3, HYPER)
        self.pw1 = ExactConv(HYPER, 4 * HYPER)
        self.dw2 = ExactConv(HYPER, HYPER, 3, HYPER)
        self.leave = ExactConv(HYPER, n_out)
        nn.init.zeros_(self.leave.weight)

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            x = z.float().clamp(-Z_CLAMP, Z_CLAMP) * Z_FACTOR
            x = F.pixel_shuffle(requantise(self.enter(x)), 2)
            x = F.pixel_shuffle(requantise(self.pw1(requantise(self.dw1(x)))), 2)
            out: Tensor = self.leave(requantise(self.dw2(x)))
        return out


def blocks(channels: int, n: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(n)))


def hyper_analysis(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1, groups=n_out),
        nn.Conv2d(n_out, n_out, 2, 2),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1, groups=n_out),
        nn.Conv2d(n_out, n_out, 2, 2),
    )


def hyper_mean(n_in: int, n_out: int) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Conv2d(n_in, 4 * HYPER, 1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(HYPER, HYPER, 3, padding=1, groups=HYPER),
        nn.Conv2d(HYPER, 4 * HYPER, 1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(HYPER, HYPER, 3, padding=1, groups=HYPER),
        nn.Conv2d(HYPER, n_out, 1),
    )
    nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    return layers


def log_gains(anchors: int, channels: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(anchors, channels))


def scale_of(rows: Tensor) -> Tensor:
    """Table rows (real) -> scale. Clamped to the table; the gradient passes, or dead channels would never return."""
    inside = rows + (rows.clamp(0, N_SCALES - 1) - rows).detach()
    return SCALE_MIN * torch.exp(LOG_STEP * inside)


def uniform(x: Tensor) -> Tensor:
    return torch.rand_like(x) - 0.5


def bin_bits(x: Tensor, scale: Tensor) -> Tensor:
    """-log2 of the mass that a Gaussian of `scale` puts on [x - 0.5, x + 0.5]."""
    x = x.abs()
    upper, lower = (0.5 - x) / scale, (-0.5 - x) / scale
    mass = 0.5 * (torch.erfc(-upper * 0.5**0.5) - torch.erfc(-lower * 0.5**0.5))
    return -torch.log2(mass.clamp_min(1e-9))


@torch.no_grad()
def start_as_pca(model: Photo, patches: Tensor) -> None:
    """Start as a linear transform code: bases are the principal components of training patches.

    patches: float [N, 3, 16, 16] in 0..1. Without it the same network needs 40 times the steps (see the card).
    """
    c = model.config
    f = F.pixel_unshuffle(patches - 0.5, 8)
    stem = principal(f.permute(0, 2, 3, 1).reshape(-1, 192), c.c8)[0]
    f = torch.einsum("ck,nkhw->nchw", stem, f)
    down, variance = principal(f.flatten(1), c.c16)
    model.stem.weight.copy_(stem[:, :, None, None])
    model.head.weight.copy_(stem.T[:, :, None, None])
    model.down.weight.copy_(down.view(c.c16, c.c8, 2, 2))
    model.up.weight.copy_(down.T[:, :, None, None])
    for layer in (model.stem, model.head, model.down, model.up, model.to_y, model.from_y):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    # The optimal step at high rate is step**2 = 3.99e-4 / lambda for a MSE on 0..1.
    s = math.sqrt(c.lambda_min / 3.99e-4)
    n = min(c.c16, c.latent_channels)
    nn.init.dirac_(model.to_y.weight)
    nn.init.dirac_(model.from_y.weight)
    model.to_y.weight.mul_(s)
    model.from_y.weight.div_(s)
    quality = torch.linspace(0, 100, c.anchors)
    slope = 0.5 * torch.log(model.lambda_of(quality) / c.lambda_min)[:, None]
    model.gain_y.copy_(slope.expand_as(model.gain_y))
    model.gain_y_inverse.copy_(-slope.expand_as(model.gain_y))
    log_scale = torch.full((c.latent_channels,), math.log(0.2))
    log_scale[:n] = (variance[:n].clamp_min(1e-12).sqrt() * s * 0.55).log()
    rows = (log_scale[None] + slope - math.log(SCALE_MIN)) / LOG_STEP
    model.scale_offset.copy_(rows.clamp(0.5, N_SCALES - 1.5))


@torch.no_grad()
def wake_hyper(model: Photo, pictures: Tensor) -> None:
    """Scale the last layer of h_a so that z starts with a standard deviation of 2 at quality 50.

    Default weights give z below half a step: it rounds to zero, and a branch that says nothing is never heard again.
    pictures: float [N, 3, H, W] in 0..1, H and W multiples of 64.
    """
    y = model.analysis(pictures, torch.full((len(pictures),), 50.0))
    z = model.hyper(y)
    factor = 2 / z.std((0, 2, 3)).clamp_min(1e-6)
    weight, bias = model.h_a[-1].parameters()
    weight.mul_(factor[:, None, None, None])
    bias.sub_(z.mean((0, 2, 3))).mul_(factor)


def principal(samples: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The first n principal directions [n, D] of samples [N, D] about the origin, and their variances [n]."""
    values, vectors = torch.linalg.eigh((samples.T @ samples).double() / len(samples))
    order = values.argsort(descending=True)[:n]
    return vectors[:, order].T.float(), values[order].float()


def card_config(config: PhotoConfig) -> dict[str, object]:
    """The config as JSON has it."""
    return asdict(config)
