"""Photo model: a variable-rate mean-scale hyperprior with context in four passes (Minnen et al. 2018,
arXiv:1809.02736).

    x ─ unshuffle(8) ─ g_a ─► y · gain(q) ─ − mean ─ round ─► y symbols       y [N, M, H/16, W/16]
                                │                ▲
                               h_a ─ round ─► z symbols ─ h_mean (float)      z [N, Z, H/64, W/64]
                                                      └── h_scale (integers) ─► table rows of y

y is coded in four passes, each a quarter of the channels at a quarter of the places (`pass_masks`; after DCVC-DC, Li et
al. 2023). What earlier passes gave refines both halves of the prior: the means from y_hat in float, the table rows from
the symbols in integers. So all that chooses a probability comes from symbols and the quality by integer arithmetic
(`exact.py`), and a file can be parsed without a float network. Blocks follow EVC (Wang et al. 2023) and DCVC-RT (Jia et
al. 2025): depthwise 3x3 and pointwise convolutions at 1/8 and 1/16 resolution only. Gains per quality: Cui et al.
2021, interpolated in the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from laconic.entropy.likelihood import gaussian_bits
from laconic.entropy.pmf import TOTAL
from laconic.entropy.tables import N_SCALES, SCALE_MAX, SCALE_MIN, Tables, gaussian_tables
from laconic.models.exact import EXACT_LIMIT, SHIFT, ExactConv, interpolate, requantise, round_ste

MAX_BITS = -math.log2(1e-9)  # per symbol: beyond that the gradient is 0
LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (N_SCALES - 1)
QUALITY_UNITS = 10_000  # quality is stored as an integer, quality x 100
Z_CLAMP, Z_FACTOR = 7, 16  # the integer branch sees z clamped to +-7, times 16: activations within +-127
HYPER = 64  # channels of the two branches of the hyper decoder
N_PASSES = 4
MASSES = "row_masses"  # the name of table rows in a weights file
LEVELS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)  # magnitudes of symbols that the scale context tells apart
LEVEL_STEP = 8  # an activation is at most 8 * 14 = 112


@dataclass(frozen=True)
class PhotoConfig:
    """Holds the sizes of the networks. They stand in the card; a change of a default is a new model."""

    c8: int = 160  # channels at 1/8 resolution
    c16: int = 256  # channels at 1/16
    latent_channels: int = 256  # M of the paper, channels of y
    hyper_channels: int = 96  # channels of z
    context_channels: int = 160
    encoder_blocks: tuple[int, int] = (3, 3)  # at 1/8, 1/16
    decoder_blocks: tuple[int, int] = (4, 5)  # at 1/16, 1/8
    anchors: int = 16  # qualities with gains of their own
    lambda_min: float = 0.0005
    lambda_max: float = 0.25

    @property
    def analysis_halo(self) -> int:
        """How many samples of y around a part its analysis looks at: a block reaches 1 at 1/16, half of that at 1/8."""
        return self.encoder_blocks[1] + (self.encoder_blocks[0] + 1) // 2

    @property
    def synthesis_halo(self) -> int:
        """How many samples of y around a part its synthesis looks at."""
        return self.decoder_blocks[0] + (self.decoder_blocks[1] + 1) // 2


class Photo(nn.Module):
    """Turns a picture into integers and back, and chooses table rows for these.

    Bytes are the codec's affair.
    """

    def __init__(self, config: PhotoConfig = PhotoConfig()) -> None:
        super().__init__()
        c = self.config = config
        self.stem = nn.Conv2d(192, c.c8, 1)
        self.g_a_8 = residual_blocks(c.c8, c.encoder_blocks[0])
        self.down = nn.Conv2d(c.c8, c.c16, 2, 2)
        self.g_a_16 = residual_blocks(c.c16, c.encoder_blocks[1])
        self.to_y = nn.Conv2d(c.c16, c.latent_channels, 1)
        self.from_y = nn.Conv2d(c.latent_channels, c.c16, 1)
        self.g_s_16 = residual_blocks(c.c16, c.decoder_blocks[0])
        self.up = nn.Conv2d(c.c16, 4 * c.c8, 1)
        self.g_s_8 = residual_blocks(c.c8, c.decoder_blocks[1])
        self.head = nn.Conv2d(c.c8, 192, 1)
        self.h_a = hyper_analysis(c.latent_channels, c.hyper_channels)
        self.h_mean = hyper_mean(c.hyper_channels, c.latent_channels)
        self.h_scale = HyperScale(c.hyper_channels, c.latent_channels)
        self.c_mean = nn.ModuleList(mean_context(c.latent_channels, c.context_channels) for _ in range(N_PASSES - 1))
        self.c_scale = nn.ModuleList(ScaleContext(c.latent_channels) for _ in range(N_PASSES - 1))
        self.gain_y = log_gains(c.anchors, c.latent_channels)  # natural logarithms
        self.gain_y_inverse = log_gains(c.anchors, c.latent_channels)
        self.gain_enc = log_gains(c.anchors, c.c8)
        self.gain_dec = log_gains(c.anchors, c.c8)
        self.scale_offset = nn.Parameter(torch.full((c.anchors, c.latent_channels), 16.0))  # table rows
        self.z_index = nn.Parameter(torch.full((c.anchors, c.hyper_channels), 24.0))  # table rows
        self.tables = gaussian_tables()  # whose rows these are

    @classmethod
    def load(cls, path: str, config: dict[str, Any], device: str = "cpu") -> Photo:
        """Return the network of a weights file, ready to run. config: the fields of PhotoConfig, as the card has them.

        Raises ValueError, TypeError, RuntimeError or SafetensorError for weights that do not fit, or are not exact.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        model = cls(PhotoConfig(**fields))
        model.load_weights(load_file(path))
        model.eval().requires_grad_(False)
        return model.to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def analysis(self, x: Tensor, quality: Tensor) -> Tensor:
        """Return y, float [N, M, H/16, W/16], before rounding.

        x: float [N, 3, H, W] in 0..1, H and W multiples of 16. quality: float [N] in 0..100.
        """
        f = self.g_a_8(in_float32(self.stem, F.pixel_unshuffle(x - 0.5, 8)))
        f = self.g_a_16(in_float32(self.down, f * self.gain(self.gain_enc, quality)))
        return in_float32(self.to_y, f) * self.gain(self.gain_y, quality)

    def synthesis(self, y: Tensor, quality: Tensor) -> Tensor:
        """Return the picture, float [N, 3, H, W], not clipped.

        y: y_hat, float [N, M, H/16, W/16]. quality: as for `analysis`.
        """
        f = self.g_s_16(in_float32(self.from_y, y * self.gain(self.gain_y_inverse, quality)))
        f = self.g_s_8(F.pixel_shuffle(in_float32(self.up, f), 2))
        f = in_float32(self.head, f * self.gain(self.gain_dec, quality))
        return F.pixel_shuffle(f, 8) + 0.5

    def hyper(self, y: Tensor) -> Tensor:
        """Return z, float [N, Z, H/64, W/64], before rounding. y: float [N, M, H/16, W/16], sides multiples of 4."""
        z: Tensor = self.h_a(y)
        return z.float()

    def mean(self, z: Tensor) -> Tensor:
        """Return the mean of y before context, float [N, M, 4h, 4w]. z: symbols as float [N, Z, h, w]."""
        mean: Tensor = self.h_mean(z)
        return mean.float()

    def prior(self, z: Tensor, quality: int) -> Tensor:
        """Return the table rows of y before context, [N, M, 4h, 4w]: integers in float32, 2**SHIFT per row. Exact.

        z: symbols as float [N, Z, h, w]. quality: the integer of the file, quality x 100.
        """
        offset = interpolate(self._integer(self.scale_offset), quality * (self.config.anchors - 1), QUALITY_UNITS)
        rows: Tensor = self.h_scale(z.float()) + offset.to(z.device).float()[:, None, None]
        return rows

    def pass_mean(self, n: int, mean: Tensor, y_hat: Tensor) -> Tensor:
        """Return the mean of y in pass n, from the hyper decoder's and from y_hat of earlier passes (0 elsewhere)."""
        if n == 0:
            return mean
        refined: Tensor = mean + self.c_mean[n - 1](torch.cat([y_hat, mean], 1)).float()
        return refined

    def pass_rows(self, n: int, rows: Tensor, symbols: Tensor) -> Tensor:
        """Return table rows of y in pass n, from those of `prior` and symbols of earlier passes (0 elsewhere)."""
        if n == 0:
            return rows
        refined: Tensor = rows + self.c_scale[n - 1](symbols, rows)
        return refined

    def indices(self, rows: Tensor) -> Tensor:
        """Return table indices, uint8, of table rows as `prior` has them. Exact everywhere."""
        return torch.floor(rows * 2.0**-SHIFT).clamp(0, N_SCALES - 1).to(torch.uint8)

    def z_indices(self, quality: int) -> Tensor:
        """Return the table indices of the channels of z, uint8 [Z], at the integer quality x 100."""
        rows = interpolate(self._integer(self.z_index), quality * (self.config.anchors - 1), QUALITY_UNITS)
        return torch.div(rows, 1 << SHIFT, rounding_mode="floor").clamp(0, N_SCALES - 1).to(torch.uint8)

    def prove_exact(self) -> None:
        """Raise ValueError unless every sum of the integer branch stays below 2**24, and all weights are finite."""
        self.check_numbers()
        largest = int(self._integer(self.scale_offset).abs().max()) + self.h_scale.leave.bound()
        for name, layer in self.named_modules():
            if isinstance(layer, ExactConv):
                bound = layer.bound() + (largest if name.endswith(".leave") else 0)
                if bound >= EXACT_LIMIT:
                    raise ValueError(f"{name}: found a sum of {bound}, expected less than {EXACT_LIMIT}")

    def check_numbers(self) -> None:
        """Raise ValueError unless all weights are finite and those of tables are small enough for exact integers.

        A NaN or a number beyond int64 would become some integer, another one on another machine.
        """
        for name, weight in self.named_parameters():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"{name}: found NaN or infinity, expected finite numbers")
        for name, table in (("scale_offset", self.scale_offset), ("z_index", self.z_index)):
            largest = float(table.detach().abs().max())
            if largest >= EXACT_LIMIT >> SHIFT:
                raise ValueError(f"{name}: found a table row of {largest:g}, expected less than {EXACT_LIMIT >> SHIFT}")

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a file, as float32. Raises ValueError where they are no floats, or not proved exact.

        Integers are refused: a scale that belongs to them is not in the file. Those named MASSES are no weights but table
        rows, see `learnt_tables`; a file that has none uses those of Gaussians.
        """
        weights = dict(weights)
        self.tables = learnt_tables(weights.pop(MASSES)) if MASSES in weights else gaussian_tables()
        for name, weight in weights.items():
            if not weight.dtype.is_floating_point:
                raise ValueError(f"{name}: found weights of {weight.dtype}, expected floats")
        self.load_state_dict({name: weight.float() for name, weight in weights.items()})
        self.prove_exact()

    def n_symbols(self, height: int, width: int) -> int:
        """Return how many symbols, of y and z together, a picture has. height, width: in pixels, multiples of 64."""
        cells = height * width // 64**2
        return cells * (16 * self.config.latent_channels + self.config.hyper_channels)

    def forward(self, x: Tensor, quality: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the picture as decoded, float [N, 3, H, W], and the bits of y and of z, each [N].

        x: float [N, 3, H, W] in 0..1. quality: float [N] in 0..100. noise: for training, float [N, `n_symbols`], even in
        0..1: the rate of the latents is that with noise; the tables and, straight through, the decoder see the rounded
        symbols. None: the bits are those that coding takes.
        """
        y = self.analysis(x, quality)
        z = self.hyper(y)
        noise_y, noise_z = (None, None) if noise is None else noise.split([y[0].numel(), z[0].numel()], 1)
        z_hat = round_ste(z)
        hyper_mean = self.mean(z_hat)
        hyper_rows = self.h_scale(z_hat) + self.table(self.scale_offset, quality) * 2.0**SHIFT
        y_hat, mean, rows = torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(y)
        for n, mask in enumerate(pass_masks(y.shape[1], y.shape[2], y.shape[3], y.device)):
            pass_mean = self.pass_mean(n, hyper_mean, y_hat)
            mean = mean + mask * pass_mean
            rows = rows + mask * self.pass_rows(n, hyper_rows, (y_hat - mean).detach().round())
            y_hat = y_hat + mask * (round_ste(y - pass_mean) + pass_mean)
        bits_y = self.bits(y - mean, rows * 2.0**-SHIFT, noise_y).flatten(1).sum(1)
        bits_z = self.bits(z, self.table(self.z_index, quality), noise_z).flatten(1).sum(1)
        return self.synthesis(y_hat, quality), bits_y, bits_z

    def bits(self, x: Tensor, rows: Tensor, noise: Tensor | None) -> Tensor:
        """Return the bits of x at table rows, which are real numbers here and floored when coded.

        With noise it is the sum of two terms, each for one gradient: for x the bits with uniform noise in place of
        rounding; for the rows the bits of the symbols that are really coded, as they would learn how wide the noise is
        otherwise.
        """
        if noise is None:
            return bin_bits(x.round(), scale_of(rows.floor()))
        scale = scale_of(rows - 0.5)
        return bin_bits(x + noise.view_as(x) - 0.5, scale.detach()) + bin_bits(x.detach().round(), scale)

    def gain(self, table: Tensor, quality: Tensor) -> Tensor:
        """Return the gains [N, C, 1, 1] at the qualities [N], interpolated in the logarithm."""
        return self.table(table, quality).exp()

    def table(self, table: Tensor, quality: Tensor) -> Tensor:
        """Return rows [N, C, 1, 1] of an anchor table [K, C] at the qualities [N], linear between anchors."""
        position = quality.clamp(0, 100) * ((self.config.anchors - 1) / 100)
        row = position.floor().clamp(max=self.config.anchors - 2).long()
        return torch.lerp(table[row], table[row + 1], (position - row)[:, None])[:, :, None, None]

    def lambda_of(self, quality: Tensor) -> Tensor:
        """Return the weight of 255**2 MSE against bits per pixel at the qualities [N].

        It is log-spaced from lambda_min at quality 0 to lambda_max at 100.
        """
        low, high = math.log(self.config.lambda_min), math.log(self.config.lambda_max)
        return torch.exp(low + (high - low) * quality / 100)

    def _integer(self, table: Tensor) -> Tensor:
        """Return an anchor table as int64, 2**SHIFT per table row."""
        return (table.detach().double().cpu() * (1 << SHIFT)).round().long()


class Block(nn.Module):
    """Adds a depthwise and a pointwise residual branch: float [N, C, H, W] -> the same shape."""

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
    """Computes the integer branch: z symbols [N, Z, h, w] -> sums [N, M, 4h, 4w], 2**SHIFT to a table row."""

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


class ScaleContext(nn.Module):
    """Computes the integer branch of context.

    Symbols of earlier passes and rows of the hyper decoder, [N, M, h, w] -> what to add to the rows of a pass.
    """

    level: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        magnitudes = torch.arange(LEVELS[-1] + 1)
        levels = LEVEL_STEP * torch.bucketize(magnitudes, torch.tensor(LEVELS), right=True).float()
        self.register_buffer("level", levels, persistent=False)  # magnitude -> activation
        self.enter = ExactConv(2 * channels, HYPER)
        self.dw = ExactConv(HYPER, HYPER, 3, HYPER)
        self.pw = ExactConv(HYPER, HYPER)
        self.leave = ExactConv(HYPER, channels)
        nn.init.zeros_(self.leave.weight)

    def forward(self, symbols: Tensor, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            size = self.level[symbols.abs().clamp(max=len(self.level) - 1).long()]
            x = requantise(self.enter(torch.cat([size, requantise(rows)], 1)))
            out: Tensor = self.leave(requantise(self.pw(requantise(self.dw(x)))))
        return out


def learnt_tables(masses: Tensor) -> Tables:
    """Return the rows that a weights file has in place of those of Gaussians, with the same first symbols and lengths.

    masses: int16, the masses of one row after the other, the escape last in each. Raises ValueError.
    """
    like = gaussian_tables()
    n = int(like.sizes.sum())
    if masses.dtype != torch.int16 or masses.shape != (n,):
        raise ValueError(f"{MASSES}: found {masses.dtype} {list(masses.shape)}, expected int16 [{n}]")
    rows = np.split(masses.numpy().astype(np.int64), np.cumsum(like.sizes)[:-1])
    for row, found in enumerate(rows):
        if found.min() < 1 or found.sum() != TOTAL:
            raise ValueError(f"{MASSES}: found a row {row} from {found.min()}, sum {found.sum()}, expected from 1, sum {TOTAL}")
    return Tables.from_masses(rows, like.offsets)


def pass_masks(channels: int, height: int, width: int, device: torch.device | None = None) -> list[Tensor]:
    """Return which samples of y each pass codes: bool [channels, height, width] per pass.

    Places of a 2 x 2 cell are numbered 0 and 1 on one diagonal, 2 and 3 on the other; pass p codes the channels of
    group g = channel mod 4 at place p xor g.
    """
    row, column = torch.arange(height, device=device)[:, None] % 2, torch.arange(width, device=device) % 2
    place = row + 2 * (row ^ column)
    group = torch.arange(channels, device=device)[:, None, None] % 4
    return [(place ^ group) == n for n in range(N_PASSES)]


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer of the main path in float32, also where autocast is on: bf16 is for the branches of blocks.

    What bf16 rounds off the largest features hides the gradient: with the main path in it the decoder's gradients were
    measured to have a cosine of 0.7 with the exact ones, and training stood still at 34 dB.
    """
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = layer(x.float())
    return out


def residual_blocks(channels: int, n: int) -> nn.Sequential:
    """Build n blocks: float [N, C, H, W] -> the same shape."""
    return nn.Sequential(*(Block(channels) for _ in range(n)))


def hyper_analysis(n_in: int, n_out: int) -> nn.Sequential:
    """Build h_a: y [N, M, h, w], sides multiples of 4 -> [N, Z, h/4, w/4]."""
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
    """Build h_mean: z [N, Z, h, w] -> [N, M, 4h, 4w], 0 at first."""
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


def mean_context(channels: int, inner: int) -> nn.Sequential:
    """Build the context of means: y_hat and the hyper decoder's mean, [N, 2M, h, w] -> [N, M, h, w], 0 at first."""
    layers = nn.Sequential(
        nn.Conv2d(2 * channels, inner, 1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
        nn.Conv2d(inner, inner, 1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(inner, channels, 1),
    )
    nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    return layers


def log_gains(anchors: int, channels: int) -> nn.Parameter:
    """Return natural logarithms of gains, [anchors, channels]: 1 at first."""
    return nn.Parameter(torch.zeros(anchors, channels))


def scale_of(rows: Tensor) -> Tensor:
    """Return the scale of table rows, which are real numbers here, bounded to the table."""
    bounded: Tensor = Bounded.apply(rows)  # type: ignore[no-untyped-call]
    return SCALE_MIN * torch.exp(LOG_STEP * bounded)


class Bounded(torch.autograd.Function):
    """Clamps rows to the table. Outside, only a gradient that leads back passes.

    Without any, dead channels would never return; with all, their rows drift off (to -50 in 10,000 steps), and the
    first symbol that is not zero costs so much that the channel is given up.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows.clamp(0, N_SCALES - 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        back: Tensor = ((rows >= 0) | (gradient < 0)) & ((rows <= N_SCALES - 1) | (gradient > 0))
        return gradient * back


def bin_bits(x: Tensor, scale: Tensor) -> Tensor:
    """Return -log2 of the mass that a Gaussian of `scale` puts on [x - 0.5, x + 0.5], at most MAX_BITS."""
    return gaussian_bits(x, 0.0, scale).clamp_max(MAX_BITS)


@torch.no_grad()
def start_as_pca(model: Photo, patches: Tensor) -> None:
    """Make the model start as a linear transform code, whose bases are the principal components of training patches.

    patches: float [N, 3, 16, 16] in 0..1. Without this the same network needs 40 times the steps (see the card).
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
    """Scale the last layer of h_a so that z starts with a standard deviation of 0.7 at quality 50.

    With default weights z is below half a step and rounds to zero, and a branch that says nothing gets no gradient. A
    deviation of 2 was measured to cost a sixth of the file at quality 25 for nothing: training does not shrink it.
    pictures: float [N, 3, H, W] in 0..1, H and W multiples of 64.
    """
    y = model.analysis(pictures, torch.full((len(pictures),), 50.0))
    z = model.hyper(y)
    factor = 0.7 / z.std((0, 2, 3)).clamp_min(1e-6)
    weight, bias = model.h_a[-1].parameters()
    weight.mul_(factor[:, None, None, None])
    bias.sub_(z.mean((0, 2, 3))).mul_(factor)


def principal(samples: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the first n principal directions [n, D] of samples [N, D] about the origin, and their variances [n]."""
    values, vectors = torch.linalg.eigh((samples.T @ samples).double() / len(samples))
    order = values.argsort(descending=True)[:n]
    return vectors[:, order].T.float(), values[order].float()
