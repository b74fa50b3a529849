"""Sound model: a gain-shape transform code whose parts learn (after Valin et al. 2016, "High-quality, low-delay music
coding in the Opus codec"), variable in rate (Cui et al. 2021), with a predictive prior frame by frame.

    x ─ MDCT ─┬─ band energies ─ log2 ─ PCA ─► · gain(q) ─ − mean ─ round ─► envelope symbols    [B, T, E]
              └─ shape = bins / envelope ────► · gain(q) ─ − mean ─ round ─► shape symbols       [B, T, K]

    prior:    the frames before ─► mean and scale of the envelope; these and the envelope ─► mean and scale of the shape
    decoder:  envelope, shape, noise ─ ConvNeXt blocks ─► corrections of shape, bands and noise ─ inverse MDCT ─► x

At the start the networks add nothing, and what is left is a transform code with entropy-coded scalars and noise
filling: training begins where such a code ends. The analysis is linear and stays so. Means are subtracted before
rounding, so every symbol is coded as a number around zero, and the decoder of `sound_prior.py` computes means and
scales in integers. One frame is 16 ms; its bins are 31.25 Hz apart whatever the sample rate is.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from laconic.entropy.pmf import quantise
from laconic.models.precision import multiplies_bf16
from laconic.models.soft_rounding import soft_round

FRAME_RATE = 62.5  # frames a second
BINS = 256  # of a frame, 31.25 Hz each: the core is 8 kHz wide
CORE_RATE = 16_000
MEAN_STEP = 1 / 16  # means are multiples of it, in symbols
LOG_SCALE_MIN, LOG_SCALE_MAX = math.log(0.12), math.log(128.0)  # of the prior's distributions, in symbols
ROWS_PER_OCTAVE, N_ROWS = 8, 81  # of the tables that files use for the scales
LOGISTIC = math.pi / math.sqrt(3)  # standard deviations to the scale of a logistic distribution
RECENT = 4  # frames before, whose envelope the prior sees; of the last two it sees the shape as well
ENVELOPE_FLOOR = 1e-8  # of a band's power, in squares of full scale: below is silence
NOISE_START = -1.2  # log2 of the noise that fills a bin without symbols, relative to the envelope
FLATTENING = 0.4  # exponent: how much of the envelope is taken out of the shape before it is rounded
TILT = 2.5  # octaves by which the gain falls per 4 kHz, at the start
RATE_WEIGHTS = (0.079, 0.0085)  # of a kbit/s against the distance in training, at quality 0 and 100
RATES_AT = tuple(range(0, 101, 10))
HARDNESS = 0.2  # temperature of the staircase whose gradient training takes
LARGE = 1 << 12  # weights with more numbers are stored in float16


@dataclass(frozen=True)
class SoundConfig:
    """Holds the sizes of the networks. They stand in the card; a change of a default is a new model."""

    bands: int = 20  # E, equally spaced in ERB; as many components of the envelope
    coded_bins: int = 224  # K, of the shape, from the lowest
    channels: int = 256
    hidden_channels: int = 768
    blocks: int = 5
    kernel: int = 7  # frames that a depthwise convolution sees
    look_ahead: int = 2  # frames in all that the decoder waits for
    prior_channels: int = 192
    anchors: int = 8  # qualities with gains of their own
    envelope_step: float = 1.5  # log2 units, at the start
    envelope_range: float = 1.2  # octaves by which the envelope's gain grows from quality 0 to 100, at the start
    rate_min: float = 1.3  # kbit/s of quality 0, at the start
    rate_max: float = 18.0


class Sound(nn.Module):
    """Turns sound into integers and back. Bytes are the codec's affair, and so are levels and other sample rates."""

    synthesis_matrix: Tensor
    band_weights: Tensor
    band_means: Tensor
    mean_envelope: Tensor
    reference_level: Tensor
    table_starts: Tensor
    table_radii: Tensor
    typical_rates: Tensor  # kbit/s of speech at the qualities RATES_AT
    level_weights: Tensor
    level_offset: Tensor

    def __init__(self, config: SoundConfig = SoundConfig()) -> None:
        super().__init__()
        c = self.config = config
        bands = band_weights(c.bands)
        self.register_buffer("synthesis_matrix", mdct_matrix(BINS), persistent=False)
        self.register_buffer("band_weights", bands, persistent=False)
        self.register_buffer("band_means", (bands / bands.sum(1, keepdim=True)).T.contiguous(), persistent=False)
        self.register_buffer("mean_envelope", torch.zeros(c.bands))
        self.register_buffer("reference_level", torch.zeros(()))
        for name, table in zip(("table_starts", "table_radii"), scale_tables(), strict=True):
            self.register_buffer(name, torch.from_numpy(table))
        self.register_buffer("typical_rates", torch.zeros(len(RATES_AT)))
        self.register_buffer("level_weights", torch.zeros(c.bands, c.coded_bins, dtype=torch.int16))
        self.register_buffer("level_offset", torch.zeros(c.coded_bins, dtype=torch.int32))
        self.to_components = nn.Parameter(torch.eye(c.bands))
        self.from_components = nn.Parameter(torch.eye(c.bands))
        self.envelope_gain = nn.Parameter(torch.zeros(c.anchors, c.bands))  # log2, per quality
        self.shape_gain = nn.Parameter(torch.zeros(c.anchors, c.coded_bins))
        self.prior = Prior(c)
        self.enter = nn.Linear(2 * c.bands + c.coded_bins + 1 + 2 * BINS, c.channels)
        ahead = [c.look_ahead * (i + 1) // c.blocks - c.look_ahead * i // c.blocks for i in range(c.blocks)]
        self.blocks = nn.ModuleList(Block(c.channels, c.hidden_channels, c.kernel, a) for a in ahead)
        self.norm = nn.LayerNorm(c.channels)
        self.leave = nn.Linear(c.channels, 2 * BINS + c.bands)
        self.noise_level = nn.Parameter(torch.full((BINS,), NOISE_START))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @classmethod
    def load(cls, path: str, config: dict[str, Any], device: str = "cpu") -> Sound:
        """Return the network of a weights file, ready to run. config: the fields of SoundConfig, as the card has them.

        Raises ValueError, TypeError, RuntimeError or SafetensorError for weights that do not fit.
        """
        model = cls(SoundConfig(**config))
        weights = load_file(path)
        model.load_state_dict({k: v.float() if v.dtype.is_floating_point else v for k, v in weights.items()})
        for name, weight in model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"{name}: found NaN or infinity, expected finite numbers")
        return model.eval().requires_grad_(False).to(torch.device(device))

    def save(self, path: Path) -> dict[str, Any]:
        """Write the weights, large ones in float16; return what a card says of the architecture."""
        self.settle()
        weights = {k: v.half() if v.is_floating_point() and v.numel() > LARGE else v for k, v in self.state_dict().items()}
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
        return {"class": "laconic.models.sound.Sound", "config": asdict(self.config)}

    @torch.no_grad()
    def settle(self) -> None:
        """Round how the envelope moves the scales of the shape to integers of 10 and 18 fractional bits.

        A file's bits depend on them, and the sums that they come from are no two libraries' the same: they are stored.
        """
        per_bin = (1 - FLATTENING) * self.band_weights[:, : self.config.coded_bins].double()
        self.level_weights.copy_((self.from_components.double() @ per_bin * 2**10).round())
        offset = self.mean_envelope.double() @ per_bin - (1 - FLATTENING) * self.reference_level.double()
        self.level_offset.copy_((offset * 2**18).round())

    def analysis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return envelope components [B, T, E] and shape [B, T, K], before gains.

        x: float [B, S] at 16 kHz in -1..1, S a multiple of 256; T = S / 256 + 1.
        """
        return self.features(mdct(x, self.synthesis_matrix))

    def features(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Return envelope components [B, T, E] and shape [B, T, K] of a spectrum [B, T, 256]."""
        envelope = self.envelope(spectrum)
        per_bin = (envelope @ self.band_weights)[..., : self.config.coded_bins]
        shape = spectrum[..., : self.config.coded_bins] * torch.exp2(
            -FLATTENING * per_bin - (1 - FLATTENING) * self.reference_level
        )
        return (envelope - self.mean_envelope) @ self.to_components, shape

    def envelope(self, spectrum: Tensor) -> Tensor:
        """Return log2 amplitudes of bands [B, T, E] of a spectrum [B, T, 256], smoothed over three frames."""
        power = F.pad((spectrum.square() @ self.band_means).mT, (1, 1), mode="replicate").mT
        smooth = 0.25 * power[:, :-2] + 0.5 * power[:, 1:-1] + 0.25 * power[:, 2:]
        return 0.5 * torch.log2(smooth + ENVELOPE_FLOOR)

    def synthesis(self, components: Tensor, shape: Tensor, quality: Tensor, noise: Tensor) -> Tensor:
        """Return the spectrum [B, T, 256].

        components, shape: as decoded, before gains. quality: float [B] in 0..1. noise: of -1 and 1, [B, T, 256].
        """
        features, plain = self.prepare(components, shape, quality, noise)
        with coarse(self, features):
            f = self.enter(features).float()
        for block in self.blocks:
            f = block(f)
        return self.correct(f, plain)

    def prepare(self, components: Tensor, shape: Tensor, quality: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network sees of each frame, and what it corrects: shape, its resolution, noise and level."""
        c = self.config
        envelope = components @ self.from_components + self.mean_envelope
        per_bin = envelope @ self.band_weights
        level = (1 - FLATTENING) * (per_bin[..., : c.coded_bins] - self.reference_level)
        gain = self.gains(self.shape_gain, quality)
        rest = (0, BINS - c.coded_bins)
        whitened = F.pad(shape * torch.exp2(-level), rest)
        resolution = F.pad(gain + level, rest, value=-3.0)  # log2 of deviation / step
        features = [
            components,
            torch.tanh(shape * torch.exp2(gain) * 0.3) * 3,
            quality[:, None, None].expand(-1, shape.shape[1], 1),
            torch.tanh(whitened * 0.5) * 2,
            (envelope - self.mean_envelope) * 0.3,
            noise,
        ]
        return torch.cat(features, 2), torch.stack([whitened, resolution, noise, per_bin])

    def correct(self, f: Tensor, plain: Tensor) -> Tensor:
        """Return the spectrum, from what the blocks made of the frames and what `prepare` said of them."""
        with coarse(self, f):
            out = self.leave(self.norm(f)).float()
        whitened, resolution, noise, per_bin = plain
        bounded = 3 * torch.tanh(out[..., BINS:] / 3)  # octaves
        band_gain, noise_gain = bounded[..., : self.config.bands], bounded[..., self.config.bands :]
        noise_level = torch.exp2(self.noise_level + noise_gain - F.softplus(2 * resolution + 2))
        corrected: Tensor = whitened + out[..., :BINS] + noise_level * noise
        return corrected * torch.exp2(per_bin + band_gain @ self.band_weights)

    def gains(self, table: Tensor, quality: Tensor) -> Tensor:
        """Return log2 gains [B, 1, C] of an anchor table [A, C] at qualities [B] in 0..1, linear between anchors."""
        position = quality.clamp(0, 1) * (self.config.anchors - 1)
        row = position.floor().clamp(max=self.config.anchors - 2).long()
        return torch.lerp(table[row], table[row + 1], (position - row)[:, None])[:, None]

    def forward(self, x: Tensor, quality: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sound as decoded [B, S], and bits of envelope and of shape [B, T] each. See `analysis`."""
        components, shape, envelope_bits, shape_bits = self.quantise(x, quality)
        if noise is None:
            noise = torch.randn(*shape.shape[:2], BINS).sign()
        y = inverse_mdct(self.synthesis(components, shape, quality, noise), self.synthesis_matrix)
        return y, envelope_bits, shape_bits

    def quantise(self, x: Tensor, quality: Tensor, passes: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return components, shape, as decoded, and their bits [B, T].

        Each frame's means come from frames before as decoded, which is a recursion; here it is approached by `passes`
        of all frames at once and one more with gradients. A few passes end it, since means depend little on the past.
        """
        components, shape = self.analysis(x)
        gains = self.gains(self.envelope_gain, quality), self.gains(self.shape_gain, quality)
        target = components * torch.exp2(gains[0]), shape * torch.exp2(gains[1])
        with torch.no_grad():
            past = target[0].round(), target[1].round()
            for _ in range(passes):
                past = self.step(target, past, gains, quality)[:2]
        e, s, envelope_bits, shape_bits = self.step(target, past, gains, quality)
        return e * torch.exp2(-gains[0]), s * torch.exp2(-gains[1]), envelope_bits, shape_bits

    def step(
        self, target: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor], gains: tuple[Tensor, Tensor], quality: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return envelope and shape in steps, rounded around means that come from `past`, and their bits [B, T]."""
        prior = self.prior
        context = prior.context(past[0] * torch.exp2(-gains[0]), past[1], quality)
        mean, log_scale = prior.envelope(context, past[0] * torch.exp2(-gains[0]), gains[0])
        e, envelope_bits = self.code_envelope(target[0], mean, log_scale)
        components = e * torch.exp2(-gains[0])
        level = (components @ self.from_components + self.mean_envelope) @ self.band_weights - self.reference_level
        level = gains[1] + (1 - FLATTENING) * level[..., : self.config.coded_bins]
        mean, log_scale = prior.shape(context, components, level, quality)
        s, shape_bits = self.code_shape(target[1], mean, log_scale, quality)
        return e, s, envelope_bits, shape_bits

    def code_envelope(self, target: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the envelope in steps as decoded, and its bits [B, T]; `quantisers.py` has other ways."""
        return coded(target, mean, log_scale)

    def code_shape(self, target: Tensor, mean: Tensor, log_scale: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shape in steps as decoded, and its bits [B, T]; `quantisers.py` has other ways."""
        return coded(target, mean, log_scale)

    @torch.no_grad()
    def start(self, sounds: Tensor) -> None:
        """Set the linear parts from sounds, float [B, S]: components of the envelope, their prior, gains per quality."""
        c = self.config
        envelope = self.envelope(mdct(sounds, self.synthesis_matrix))
        flat = envelope.flatten(0, 1).double()
        self.mean_envelope.copy_(flat.mean(0))
        self.reference_level.copy_(flat.mean())
        centred = flat - flat.mean(0)
        basis = torch.linalg.eigh(centred.T @ centred / len(flat))[1].flip(1).float()
        self.to_components.copy_(basis)
        self.from_components.copy_(basis.T)
        components = (envelope - self.mean_envelope) @ basis
        noise = c.envelope_step**2 / 12  # of rounding
        now, before = components[:, 1:], components[:, :-1]
        rho = (now * before).mean((0, 1)) / (components.square().mean((0, 1)) + noise)
        self.prior.rho.copy_(rho)
        error = (now - rho * before).square().mean((0, 1)) + rho.square() * noise
        self.prior.envelope_scale.copy_(0.5 * torch.log2(error))
        position = torch.linspace(-0.5, 0.5, c.anchors)[:, None]
        self.envelope_gain.copy_((position * c.envelope_range - math.log2(c.envelope_step)).expand(-1, c.bands))
        self._start_shape_gains(sounds[:16])

    def _start_shape_gains(self, sounds: Tensor) -> None:
        """Search the gain of the shape that gives each of three rates, and interpolate between them."""
        c = self.config
        tilt = TILT / 4000 * 31.25 * (torch.arange(c.coded_bins) + 0.5)
        found = []
        for position in (0.0, 0.5, 1.0):
            rate = c.rate_min * (c.rate_max / c.rate_min) ** position
            low, high = -7.0, 6.0
            for _ in range(9):
                middle = (low + high) / 2
                self.shape_gain.copy_((middle - tilt).expand(c.anchors, -1))
                _, _, envelope_bits, shape_bits = self.quantise(sounds, torch.full((len(sounds),), position))
                bits = envelope_bits + shape_bits
                low, high = (middle, high) if bits.mean().item() * FRAME_RATE < 1000 * rate else (low, middle)
            found.append(middle)
        anchors = torch.from_numpy(np.interp(np.linspace(0, 1, c.anchors), (0, 0.5, 1), found)).float()
        self.shape_gain.copy_(anchors[:, None] - tilt)


class Prior(nn.Module):
    """Predicts means and scales of a frame's symbols. Computed in integers by files; see `sound_prior.py`."""

    def __init__(self, config: SoundConfig) -> None:
        super().__init__()
        e, k, h = config.bands, config.coded_bins, config.prior_channels
        self.enter = nn.Linear(RECENT * e + 2 * 2 * k + 1, h)
        self.middle = nn.Linear(h, h)
        self.to_envelope = nn.Linear(h, 2 * e)
        self.shape_enter = nn.Linear(h + e + 1, h)
        self.shape_middle = nn.Linear(h, h)
        self.to_shape = nn.Linear(h, 2 * k)
        self.rho = nn.Parameter(torch.full((e,), 0.85))  # how much of a component stays from frame to frame
        self.envelope_scale = nn.Parameter(torch.zeros(e))  # log2 of the deviation from that
        self.shape_scale = nn.Parameter(torch.zeros(k))
        for layer in (self.to_envelope, self.to_shape):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def context(self, components: Tensor, shape: Tensor, quality: Tensor) -> Tensor:
        """Return what the frames before tell, [B, T, h], of all frames as decoded: components, shape in steps."""
        features = torch.cat([torch.tanh(shape * 0.5), torch.log1p(shape.abs())], 2)
        q = quality[:, None, None].expand(-1, shape.shape[1], 1)
        recent = [delayed(components, d + 1) for d in range(RECENT)] + [delayed(features, d + 1) for d in range(2)]
        with coarse(self, shape):
            out: Tensor = F.relu(self.middle(F.relu(self.enter(torch.cat([*recent, q], 2)))))
        return out

    def envelope(self, context: Tensor, components: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the scale of the envelope, in steps. components: those of all frames."""
        with coarse(self, context):
            out = self.to_envelope(context)
        mean, log_scale = out.float().chunk(2, 2)
        mean = (delayed(components, 1) * self.rho + mean) * torch.exp2(gain)
        return mean, math.log(2) * (gain + self.envelope_scale + log_scale)

    def shape(self, context: Tensor, components: Tensor, level: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the scale of the shape, in steps.

        components: of the same frames. level: log2 of the scale that the envelope gives.
        """
        q = quality[:, None, None].expand(-1, context.shape[1], 1)
        with coarse(self, context):
            f = F.relu(self.shape_enter(torch.cat([context, components.to(context.dtype), q.to(context.dtype)], 2)))
            out = self.to_shape(F.relu(self.shape_middle(f)))
        mean, log_scale = out.float().chunk(2, 2)
        return mean, math.log(2) * (level + self.shape_scale + log_scale)


class Block(nn.Module):
    """Adds a ConvNeXt branch (Liu et al. 2022) that sees `ahead` frames of the future: [B, T, C] -> the same shape."""

    def __init__(self, channels: int, hidden: int, kernel: int, ahead: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, hidden)
        self.narrow = nn.Linear(hidden, channels)
        self.pad = (kernel - 1 - ahead, ahead)
        for parameter in (self.narrow.weight, self.narrow.bias, self.widen.bias, self.depthwise.bias):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(F.pad(x.mT, self.pad).mT)

    def branch(self, x: Tensor) -> Tensor:
        """Return what is added to the frames that have all their neighbours in x."""
        with coarse(self, x):
            frames = x.mT[:, :, None].contiguous(memory_format=torch.channels_last)
            weight = self.depthwise.weight[:, :, None]
            f = F.conv2d(frames, weight, self.depthwise.bias, groups=x.shape[2])[:, :, 0].mT
            out: Tensor = self.narrow(F.gelu(self.widen(self.norm(f)))).float()
        return out


def coarse(module: nn.Module, x: Tensor) -> torch.autocast:
    """Return the context in which matrices are multiplied in bfloat16: in training, and where a search would be faster.

    A decoder, which computes no gradients, never does so.
    """
    enabled = module.training or (torch.is_grad_enabled() and multiplies_bf16(x.device.type))
    return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled)


def coded(target: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the target as decoded, rounded around the mean, and bits [B, T]; both differentiable."""
    mean = mean + ((mean / MEAN_STEP).round() * MEAN_STEP - mean).detach()
    difference = target - mean
    symbol = rounded(difference)
    log_scale = log_scale.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)
    bits = logistic_bits(symbol.detach(), log_scale)
    to_target = logistic_bits(difference, log_scale.detach())  # the rate's gradient, at the number before rounding
    return symbol + mean, (bits + (to_target - to_target.detach())).sum(2)


def rounded(x: Tensor) -> Tensor:
    """Round; the gradient is that of a soft staircase."""
    soft = soft_round(x, HARDNESS)
    return soft + (x.round() - soft).detach()


def logistic_bits(x: Tensor, log_scale: Tensor) -> Tensor:
    """Return the bits of the unit bin around x under a logistic of standard deviation exp(log_scale); stable in tails."""
    s = torch.exp(-log_scale) * LOGISTIC
    d = x.abs()
    log_p = F.logsigmoid((0.5 - d) * s) + F.logsigmoid((0.5 + d) * s) + torch.log(-torch.expm1(-s))
    return log_p * -math.log2(math.e)


def delayed(x: Tensor, frames: int) -> Tensor:
    """Return x [B, T, C] as it was `frames` frames before, zeros at first."""
    return F.pad(x, (0, 0, frames, 0))[:, : x.shape[1]]


def mdct_matrix(hop: int) -> Tensor:
    """Return the MDCT with a sine window as a matrix, float [2 * hop, hop]; its transpose is the inverse."""
    n, k = torch.arange(2 * hop).double() + 0.5, torch.arange(hop).double() + 0.5
    window = torch.sin(math.pi / (2 * hop) * n)
    cosine = torch.cos(math.pi / hop * (n[:, None] + hop / 2) * k) * math.sqrt(2 / hop)
    return (window[:, None] * cosine).float()


def mdct(x: Tensor, matrix: Tensor) -> Tensor:
    """Return the spectrum [B, S / hop + 1, hop] of x [B, S], S a multiple of hop."""
    hop = matrix.shape[1]
    return F.pad(x, (hop, hop)).unfold(1, 2 * hop, hop) @ matrix


def inverse_mdct(spectrum: Tensor, matrix: Tensor) -> Tensor:
    """Return x [B, S] of a spectrum [B, S / hop + 1, hop]: halves of neighbouring frames overlap and add."""
    hop = matrix.shape[1]
    frames = spectrum @ matrix.T
    return (frames[:, :-1, hop:] + frames[:, 1:, :hop]).flatten(1)


def band_weights(n: int) -> Tensor:
    """Return how much each of n bands weighs in each bin, float [n, 256]; columns add up to 1.

    Bands are triangles between centres that are equally spaced in ERB (Glasberg and Moore 1990).
    """
    frequency = (np.arange(BINS) + 0.5) * CORE_RATE / 2 / BINS
    erb = 21.4 * np.log10(1 + 0.00437 * frequency)
    low, high = (21.4 * math.log10(1 + 0.00437 * f) for f in (80, CORE_RATE / 2 * 0.97))
    position = np.clip((erb - low) / (high - low) * (n - 1), 0, n - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(position - np.arange(n)[:, None]))
    for band in np.flatnonzero(weights.sum(1) < 1e-3):  # narrower than a bin
        weights[band, np.abs(position - band).argmin()] += 1e-2
    return torch.from_numpy(weights / weights.sum(0)).float()


def scale_tables() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the tables of the scales: where intervals of 2**15 begin, row after row, and the radius of each row [81].

    A row has 2 * radius + 1 symbols, logistic in mass, and the end. A model stores them: no exponential is the same
    everywhere.
    """
    starts, radii = [], []
    for row in range(N_ROWS):
        scale = math.exp(LOG_SCALE_MIN) * 2 ** (row / ROWS_PER_OCTAVE)
        radius = math.ceil(8 * scale) + 1
        edges = np.clip((np.arange(2 * radius + 2) - radius - 0.5) * (LOGISTIC / scale), -500, 500)
        mass = np.diff(1 / (1 + np.exp(-edges)))
        starts.append(np.concatenate([[0], np.cumsum(quantise(mass))]))
        radii.append(radius)
    return np.concatenate(starts).astype(np.int32), np.array(radii, np.int32)
