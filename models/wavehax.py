"""Wavehax as a second decoder for the sound model's codes (Yoneyama, Miyashita, Yamamoto and Toda 2024,
arXiv:2411.06807): complex spectra in, 2-D ConvNeXt blocks over time and frequency, a complex spectrum out.

    codes ─ plain decoding ─┬─ coded part, noise ─ STFT / envelope ───────────┐
                            └─ F0 ─ harmonics ─ STFT ─┬───────────────────────┤
                                                      └─ over all bins, 1-D ──┼─► planes ─ blocks ─ · envelope ─ ISTFT ─► + plain
    envelope ─ over all bins, 1-D ────────────────────────────────────────────┘

Every nonlinear step works on a frame's bins, none on samples, so nothing is folded at half the sample rate; what a
convolution is not good at, to make harmonics, is given to it as a prior. What differs from the paper: the codes hold
the waveform at low frequencies, so the prior is locked to the phase of the fundamental in it, and the network corrects
a plain decoding instead of making sound from a mel spectrum; spectra are divided by the decoded envelope; norms are
root mean squares per frame, as in Multi-Scale Wavehax, which a constant does not pass; the blocks see as few frames
ahead as the default decoder does; 16 channels instead of 32, and 5 blocks instead of 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.sound import BINS, CORE_RATE, FRAME_RATE, Sound, inverse_mdct

FFT, HOP = 2 * BINS, BINS  # frames are where those of the MDCT are
N_BINS = BINS + 1
PITCH_WINDOW = 1024
PITCH_RANGE = (70.0, 800.0)  # Hz
VOICED = 0.5  # least normalised autocorrelation
OCTAVE_COST = 0.03  # of autocorrelation, per octave below the highest pitch
TOP_HARMONIC = 0.98 * CORE_RATE / 2  # Hz: a moving pitch widens its harmonics
PLANES = 10
BOUND = 5.0


@dataclass(frozen=True)
class WavehaxConfig:
    """Holds the sizes of the network. The paper's first version has 32 channels and 8 blocks."""

    channels: int = 16
    widening: int = 2
    kernel: int = 7  # frames and bins that a depthwise convolution sees
    projection_kernel: int = 7  # frames that a projection over all bins sees
    blocks: int = 5


class Wavehax(nn.Module):
    """Decodes what a sound model encodes, whose own decoder network is not used. Only the decoder has gradients."""

    window: Tensor

    def __init__(self, sound: Sound, config: WavehaxConfig = WavehaxConfig()) -> None:
        """Take a model over: it is frozen, and its decoder's network begins anew, at which it adds nothing."""
        super().__init__()
        c, self.config = config, sound.config
        self.sound = sound.requires_grad_(False)
        restart_decoder(sound)
        self.register_buffer("window", torch.sin(math.pi / FFT * (torch.arange(FFT) + 0.5)), persistent=False)
        k = c.projection_kernel
        self.project_prior = nn.Conv1d(N_BINS, N_BINS, k)
        self.project_condition = nn.Conv1d(sound.config.bands + 1, N_BINS, k)
        self.enter = nn.Linear(PLANES, c.channels, bias=False)
        self.enter_norm = FrameNorm(c.channels)
        ahead = [sound.config.look_ahead * (i + 1) // c.blocks for i in range(-1, c.blocks)]
        self.blocks = nn.ModuleList(Block2d(c, after - before) for before, after in pairwise(ahead))
        self.leave_norm = FrameNorm(c.channels)
        self.leave = nn.Linear(c.channels, 2)
        self.past = k - 1  # frames that the projections see, none of them ahead
        for layer in (self.project_prior, self.project_condition, self.enter):
            nn.init.trunc_normal_(layer.weight, std=0.02 if layer is not self.enter else PLANES**-0.5)
        for bias in (self.project_prior.bias, self.project_condition.bias, self.leave.bias, self.leave.weight):
            nn.init.zeros_(bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, quality: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sound as decoded [B, S], and bits of envelope and of shape [B, T] each. See `Sound.forward`."""
        with torch.no_grad():
            components, shape, envelope_bits, shape_bits = self.sound.quantise(x, quality)
        if noise is None:
            noise = torch.randn(*shape.shape[:2], BINS).sign()
        return self.decode(components, shape, quality, noise), envelope_bits, shape_bits

    def decode(self, components: Tensor, shape: Tensor, quality: Tensor, noise: Tensor) -> Tensor:
        """Return the sound [B, S], S = 256 (T - 1), of codes. See `Sound.synthesis`."""
        with torch.no_grad():
            planes, condition, envelope, plain = self.prepare(components, shape, quality, noise)
        correction = self.correct(planes, condition) * torch.exp2(envelope)[..., None]
        return plain + self.inverse_stft(correction)

    def prepare(self, components: Tensor, shape: Tensor, quality: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """Return planes [B, T, 257, 7], condition [B, T, E + 1], log2 of the envelope [B, T, 257], plain sound [B, S]."""
        _, (whitened, resolution, _, per_bin) = self.sound.prepare(components, shape, quality, noise)
        level = torch.exp2(self.sound.noise_level - F.softplus(2 * resolution + 2))
        spectra = torch.exp2(per_bin) * torch.stack([whitened, level * noise])
        coded, filled = (inverse_mdct(s, self.sound.synthesis_matrix) for s in spectra)
        envelope = at_stft_bins(per_bin)
        white = torch.exp2(-envelope)[..., None]
        prior = harmonics(pitch(coded), coded)
        parts = [bounded(self.stft(coded) * white), bounded(self.stft(filled) * white), self.stft(prior)]
        reliable = torch.tanh(at_stft_bins(resolution) / 2)[..., None]
        condition = torch.cat([components * 0.2, quality[:, None, None].expand(-1, shape.shape[1], 1)], 2)
        return torch.cat([*parts, reliable], 3), condition, envelope, coded + filled

    def correct(self, planes: Tensor, condition: Tensor) -> Tensor:
        """Return what is added to the whitened spectrum, [B, T, 257, 2]. Arguments as `prepare` gives them."""
        prior = planes[..., 4:6]
        projected = [self.over_bins(self.project_prior, prior[..., i]) for i in (0, 1)]
        projected.append(self.over_bins(self.project_condition, condition))
        x = self.enter_norm(self.enter(torch.cat([planes, torch.stack(projected, 3)], 3)))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.leave(self.leave_norm(x))
        return out

    def over_bins(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return a 1-D convolution over time, whose channels are bins: [B, T, C] -> [B, T, 257]."""
        out: Tensor = layer(F.pad(x.mT, (self.past, 0)))
        return out.mT

    def stft(self, x: Tensor) -> Tensor:
        """Return real and imaginary parts [B, T, 257, 2] of x [B, S]; white noise of power 1 has |X|**2 of 1."""
        frames = F.pad(x, (HOP, HOP)).unfold(1, FFT, HOP) * self.window
        parts: Tensor = torch.view_as_real(torch.fft.rfft(frames)) / math.sqrt(HOP)
        return parts

    def inverse_stft(self, spectrum: Tensor) -> Tensor:
        """Return x [B, S] of parts [B, T, 257, 2]: the windows' squares add up to 1."""
        frames: Tensor = torch.fft.irfft(torch.view_as_complex(spectrum.contiguous()), FFT) * self.window * math.sqrt(HOP)
        return (frames[:, :-1, HOP:] + frames[:, 1:, :HOP]).flatten(1)

    def multiply_adds(self) -> float:
        """Return multiply-adds of the network per second of sound, transforms and the search for pitch not counted."""
        per_frame = 2 * self.project_prior.weight.numel() + self.project_condition.weight.numel()
        layers = [m for m in self.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        own = {id(m) for m in self.sound.modules()}
        per_bin = sum(m.weight.numel() for m in layers if id(m) not in own)
        return FRAME_RATE * (per_frame + N_BINS * per_bin)


class Block2d(nn.Module):
    """Adds a ConvNeXt branch over frames and bins that sees `ahead` frames of the future: [B, T, F, C] -> the same."""

    def __init__(self, config: WavehaxConfig, ahead: int) -> None:
        super().__init__()
        c, k = config.channels, config.kernel
        self.depthwise = nn.Conv2d(c, c, k, groups=c, bias=False, padding=(0, k // 2))
        self.norm = FrameNorm(c)
        self.widen = nn.Linear(c, config.widening * c)
        self.narrow = nn.Linear(config.widening * c, c)
        self.scale = nn.Parameter(torch.full((c,), 1 / config.blocks))
        self.pad = (k - 1 - ahead, ahead)
        for bias in (self.widen.bias, self.narrow.bias):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        frames = F.pad(x, (0, 0, 0, 0, *self.pad)).permute(0, 3, 1, 2)  # channels last in memory
        f = self.norm(self.depthwise(frames).permute(0, 2, 3, 1))
        out: Tensor = x + self.scale * self.narrow(F.gelu(self.widen(f)))
        return out


class FrameNorm(nn.Module):
    """Divides a frame by its root mean square over bins and channels, [B, T, F, C]; what is zero stays zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean((2, 3), keepdim=True) + 1e-6).rsqrt() * self.gain


def restart_decoder(model: Sound) -> list[str]:
    """Give a model a decoder network that has not learned; return the names of its parameters."""
    fresh = Sound(model.config)
    parts = {n: p for n, p in fresh.named_parameters() if n.split(".")[0] in ("enter", "blocks", "norm", "leave", "noise_level")}
    model.load_state_dict(model.state_dict() | {name: p.detach() for name, p in parts.items()})
    return list(parts)


def bounded(spectrum: Tensor) -> Tensor:
    """Return a spectrum [..., 2] whose magnitudes stay below BOUND: an onset is far above the envelope before it."""
    return spectrum * (1 + spectrum.square().sum(-1, keepdim=True) / BOUND**2).rsqrt()


def at_stft_bins(per_bin: Tensor) -> Tensor:
    """Return numbers at the bins of the STFT [B, T, 257], between those of the MDCT [B, T, 256]."""
    wide = F.pad(per_bin, (1, 1), mode="replicate")
    return (wide[..., :-1] + wide[..., 1:]) / 2


def pitch(x: Tensor) -> Tensor:
    """Return F0 in Hz per frame, [B, T], 0 where there is none, of x [B, S] at 16 kHz, T = S / 256 + 1.

    Normalised autocorrelation (Boersma 1993), its highest peak with a small cost for low pitches, a median of three.
    """
    window = torch.hann_window(PITCH_WINDOW, device=x.device)
    half = PITCH_WINDOW // 2
    frames = F.pad(x, (half, half)).unfold(1, PITCH_WINDOW, HOP)
    low, high = (round(CORE_RATE / f) for f in reversed(PITCH_RANGE))
    r = autocorrelation(frames * window, high + 2)
    r = r / (r[..., :1] + 1e-9) / autocorrelation(window, high + 2) * autocorrelation(window, 1)
    before, here, after = r[..., low - 1 : high], r[..., low : high + 1], r[..., low + 1 : high + 2]
    lag = torch.arange(low, high + 1, device=x.device)
    is_peak = (here >= before) & (here > after)
    best = (here - OCTAVE_COST * torch.log2(lag / low)).masked_fill(~is_peak, -1).argmax(2, keepdim=True)
    a, b, c = (part.gather(2, best)[..., 0] for part in (before, here, after))
    offset = ((a - c) / (2 * (a - 2 * b + c)).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    voiced = (b > VOICED) & is_peak.any(2)
    found = torch.where(voiced, CORE_RATE / (low + best[..., 0] + offset), 0.0)
    wide = F.pad(found[:, None], (1, 1), mode="replicate")[:, 0]
    return wide.unfold(1, 3, 1).median(2).values


def autocorrelation(x: Tensor, n: int) -> Tensor:
    """Return the first n lags of the autocorrelation over the last axis."""
    lags: Tensor = torch.fft.irfft(torch.fft.rfft(x, 2 * x.shape[-1]).abs().square())
    return lags[..., :n]


def harmonics(f0: Tensor, reference: Tensor) -> Tensor:
    """Return all harmonics of F0 [B, T] below half the sample rate, [B, S], of power 1 in all where there is F0.

    Their phases are those of cosines of multiples of the phase that the fundamental has in a reference [B, S].
    """
    voiced = f0 > 0
    frequency = upsampled(held(f0)).double()
    phase = 2 * math.pi * (frequency / CORE_RATE).cumsum(1).remainder(1)
    beat = torch.polar(reference.double(), -phase)
    window, half = torch.hann_window(PITCH_WINDOW, device=f0.device, dtype=torch.double), PITCH_WINDOW // 2
    parts = [(F.pad(part, (half, half)).unfold(1, PITCH_WINDOW, HOP) @ window) for part in (beat.real, beat.imag)]
    size = torch.hypot(*parts) + 1e-12
    offset = torch.atan2(*(upsampled(part / size) for part in reversed(parts)))
    n = (TOP_HARMONIC / frequency).floor()
    comb = cosines(phase + offset, n) * (2 / n).sqrt()
    return comb.float() * upsampled(voiced.float())


def cosines(phase: Tensor, n: Tensor) -> Tensor:
    """Return the sum of cos(k phase) for k from 1 to n, by Dirichlet's kernel."""
    half = torch.sin(phase / 2)
    near = half.abs() < 1e-6
    kernel = torch.sin((n + 0.5) * phase) / (2 * torch.where(near, 1.0, half))
    return torch.where(near, n, kernel - 0.5)


def held(f0: Tensor) -> Tensor:
    """Return F0 [B, T] with gaps filled from the frame before that has one, or else after; 100 Hz if none has."""
    t = torch.arange(f0.shape[1], device=f0.device).expand_as(f0)
    voiced = f0 > 0
    before = torch.where(voiced, t, -1).cummax(1).values
    after = torch.where(voiced, t, f0.shape[1]).flip(1).cummin(1).values.flip(1)
    source = torch.where(before >= 0, before, after.clamp(max=f0.shape[1] - 1))
    return torch.where(voiced.any(1, keepdim=True), f0.gather(1, source), 100.0)


def upsampled(frames: Tensor) -> Tensor:
    """Return numbers of frames [B, T] per sample, [B, 256 (T - 1)], linear in between."""
    share = torch.arange(HOP, device=frames.device, dtype=frames.dtype) / HOP
    return torch.lerp(frames[:, :-1, None], frames[:, 1:, None], share).flatten(1)
