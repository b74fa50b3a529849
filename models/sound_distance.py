"""Distances between sounds at 16 kHz that training and the encoder's search descend: float [B, S] pairs -> float [B].

Mel spectra and compressed complex spectra at several resolutions (after Yamamoto et al. 2020 and Braun and Tashev
2021), fine spectra averaged over time, and the disturbance of PESQ (ITU-T P.862.2, made differentiable after
Martin-Donas et al. 2018), which holds at a weight of 0.1 only: at more, training finds what fools it. Without the
averages it is a few steady tones that come nearest to noise, since tones do not fluctuate: they sound like metal.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from laconic.models.sound import CORE_RATE

FFTS, MELS = (256, 512, 1024, 2048), (24, 40, 64, 80)
COMPLEX_FFTS = (512, 1024)
COMPRESSION = 0.4  # exponent of magnitudes
AVERAGED_FFT, AVERAGED_FROM, AVERAGE_WEIGHT = 1024, 64, 0.5  # bins from 1 kHz on
PESQ_FFT, PESQ_HOP = 512, 256
# ITU-T P.862 at 16 kHz, by Bark band: bins of the FFT, the threshold of hearing in dB, the correction of the density
BARK_BINS = (
    *(1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2),
    *(3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20),
)
THRESHOLD_DB = (
    *(77.1, 63.9, 48.5, 36.9, 30.7, 25.9, 20.2, 16.6, 12.5, 9.9, 6.9, 4.9, 2.8, 1.0, -0.1, -1.4, -2.5, -3.4),
    *(-4.1, -4.8, -5.3, -5.7, -5.9, -6.0, -6.0, -6.0, -6.0, -5.8, -5.4, -5.1, -4.7, -4.3, -4.0, -3.6, -3.3, -3.1),
    *(-3.0, -3.0, -2.9, -2.8, -2.8, -2.8, -2.9, -3.2, -3.7, -4.3, -4.4, -3.8, -2.7),
)
BARK_DENSITY = (
    *(100, 100, 100, 100, 100, 100, 100, 100, 50, 100, 100, 100, 100, 100, 53, 110, 118, 65, 69, 70, 71, 75, 77, 81),
    *(89, 64, 68, 73, 76, 58, 81, 64, 54, 74, 64, 59, 66, 61, 58, 57, 64, 54, 61, 55, 57, 56, 53, 55, 80),
)


class Distance(nn.Module):
    """Adds mel, complex, average and, if `pesq` is above 0, PESQ distances."""

    def __init__(self, pesq: float = 0.0) -> None:
        super().__init__()
        self.pesq = PesqDisturbance() if pesq else None
        self.pesq_weight = pesq
        for n, mels in zip(FFTS, MELS, strict=True):
            self.register_buffer(f"window_{n}", torch.hann_window(n), persistent=False)
            self.register_buffer(f"mel_{n}", mel_matrix(n, mels), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of y from x, [B]; gradients go to y."""
        mel, compressed, average = (x.new_zeros(len(x)) for _ in range(3))
        for n in FFTS:
            with torch.no_grad():
                a = self.spectrum(x, n)
            b = self.spectrum(y, n)
            power_a, power_b = (s[0].square() + s[1].square() for s in (a, b))
            matrix = getattr(self, f"mel_{n}")
            mel = mel + (log_amplitude(power_a @ matrix) - log_amplitude(power_b @ matrix)).abs().mean((1, 2)) / len(FFTS)
            if n in COMPLEX_FFTS:
                with torch.no_grad():
                    scale_a = compression(power_a)
                    a = a[0] * scale_a, a[1] * scale_a
                scale_b = compression(power_b)
                square = (a[0] - b[0] * scale_b).square() + (a[1] - b[1] * scale_b).square()
                compressed = compressed + (square + 1e-8).sqrt().mean((1, 2)) / len(COMPLEX_FFTS)
            if n == AVERAGED_FFT:
                fine = (log_amplitude(power.mean(1)[:, AVERAGED_FROM:]) for power in (power_a, power_b))
                average = AVERAGE_WEIGHT * torch.sub(*fine).abs().mean(1)
        total = mel + compressed + average
        return total if self.pesq is None else total + self.pesq_weight * self.pesq(x, y)

    def spectrum(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts, [B, T, n / 2 + 1], of unit gain for white noise; apart they are faster."""
        hop = n // 2 if n in (min(FFTS), max(FFTS)) else n // 4
        window = getattr(self, f"window_{n}") / math.sqrt(n * 0.375)
        frames = F.pad(x[:, None], (n // 2, n // 2), mode="reflect")[:, 0].unfold(1, n, hop) * window
        spectrum = torch.fft.rfft(frames)
        return spectrum.real.contiguous(), spectrum.imag.contiguous()


def log_amplitude(power: Tensor) -> Tensor:
    return 0.5 * torch.log10(power + 1e-10)


def compression(power: Tensor) -> Tensor:
    """Return what compresses magnitudes when multiplied: |X| ** (COMPRESSION - 1)."""
    return torch.exp((COMPRESSION - 1) / 2 * torch.log(power + 1e-6))


class PesqDisturbance(nn.Module):
    """Computes the disturbance of wideband PESQ, symmetric and asymmetric, from power spectra.

    What PESQ aligns (level, equalisation, gain per frame) is
    aligned here too, without gradients, so that no alignment is trained.
    """

    in_band: Tensor
    to_bark: Tensor
    threshold: Tensor
    widths: Tensor
    exponent: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        counts = np.array(BARK_BINS)
        to_bark = np.zeros((len(counts), PESQ_FFT // 2 + 1))
        for band, (start, n) in enumerate(zip(np.cumsum(counts) - counts, counts, strict=True)):
            to_bark[band, start : start + n] = BARK_DENSITY[band] * 6.910853e-6
        to_bark[:, 0] = 0
        widths = 0.318 * 1.01305 ** np.arange(-1.0, len(counts) - 1)  # in Bark
        widths[0] = 0.157
        centre = np.cumsum(widths) - widths / 2
        for name, value in {
            "in_band": telephone_band(),
            "to_bark": (to_bark * wideband_weights()).T,
            "threshold": 10 ** (np.array(THRESHOLD_DB) / 10),
            "widths": widths,
            "exponent": np.clip(6 / (centre + 2), 1, 2) ** 0.15 * 0.23,
        }.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(PESQ_FFT), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the disturbance of y against x, [B], pooled over 0.32 s and then over all."""
        with torch.no_grad():
            reference = self.power(x)
            reference = reference * self.level(reference)
        power = self.power(y)
        symmetric, asymmetric = self.disturbances(reference, power * self.level(power.detach()))
        return 0.1 * pooled(symmetric) + 0.0309 * pooled(asymmetric)

    def power(self, x: Tensor) -> Tensor:
        s = torch.stft(x, PESQ_FFT, PESQ_HOP, window=self.window, center=False, return_complex=True)
        return (s.real**2 + s.imag**2).mT

    def level(self, power: Tensor) -> Tensor:
        """Return the factor that brings the power between 325 and 3250 Hz to PESQ's level, [B, 1, 1]."""
        mean = (power * self.in_band).sum(2).mean(1) * (2 / PESQ_FFT / 192 * 0.94)
        return (1e7 / (mean + 1e-6))[:, None, None]

    def disturbances(self, reference: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Return symmetric and asymmetric disturbance per frame, [B, T] each."""
        r, d = reference @ self.to_bark, power @ self.to_bark
        with torch.no_grad():
            heard = (self.audible(r, 100) >= 1e7)[:, :, None]
            r_mean, d_mean = ((p * (p > self.threshold * 100) * heard).mean(1) for p in (r, d))
            r = r * ((d_mean + 1000) / (r_mean + 1000)).clamp(0.01, 100)[:, None]
            gain = (self.audible(r, 1) + 5e3) / (self.audible(d, 1) + 5e3)
            gain = torch.cat([gain[:, :1], gain[:, 1:] * 0.8 + gain[:, :-1] * 0.2], 1).clamp(3e-4, 5)
        d = d * gain[:, :, None]
        loud_d, loud_r = self.loudness(d), self.loudness(r)
        difference = loud_d - loud_r
        masked = difference.sign() * (difference.abs() - 0.25 * torch.minimum(loud_d, loud_r)).clamp(min=0)
        with torch.no_grad():
            asymmetry = ((d + 50) / (r + 50)) ** 1.2
            asymmetry = torch.where(asymmetry < 3, torch.zeros_like(asymmetry), asymmetry.clamp(max=12))
            importance = ((self.audible(r, 1) + 1e5) / 1e7) ** 0.04
        width, total = self.widths[1:], self.widths[1:].sum()
        weighted = (masked * self.widths)[:, :, 1:]
        symmetric = total * ((weighted / total.sqrt()).square().sum(2) + 1e-12).sqrt()
        asymmetric = ((masked * asymmetry)[:, :, 1:] * width).abs().sum(2)
        return (symmetric / importance).clamp(1e-3, 45), (asymmetric / importance).clamp(1e-3, 45)

    def audible(self, bark: Tensor, factor: float) -> Tensor:
        return (bark * (bark > self.threshold * factor)).sum(2)

    def loudness(self, bark: Tensor) -> Tensor:
        above = (0.5 + 0.5 * bark / self.threshold) ** self.exponent - 1
        return 0.1866055 * (2 * self.threshold) ** self.exponent * above * (bark > self.threshold)


def pooled(x: Tensor) -> Tensor:
    """Return the root mean square over windows of 20 frames, then over all: [B, T] -> [B]."""
    windows = (x.unfold(1, 20, 10).square().mean(2) + 1e-9).sqrt()
    return (windows.square().mean(1) + 1e-6).sqrt()


def telephone_band() -> NDArray[np.float64]:
    """Return the power response of a Butterworth band pass of order 5, 325 to 3250 Hz, by which PESQ measures levels."""
    warped = np.tan(np.pi * np.arange(PESQ_FFT // 2 + 1) / PESQ_FFT)
    low, high = (math.tan(math.pi * f / CORE_RATE) for f in (325, 3250))
    with np.errstate(divide="ignore"):
        detuned = (warped**2 - low * high) / (warped * (high - low))
    return np.asarray(1 / (1 + detuned**10))


def wideband_weights() -> NDArray[np.float64]:
    """Return the power response of the input filter of P.862.2."""
    z = np.exp(-2j * np.pi * np.arange(PESQ_FFT // 2 + 1) / PESQ_FFT)
    response = 2.740826 * (1 - 2 * z + z**2) / (1 - 1.9444777 * z + 0.94597794 * z**2)
    return np.asarray(np.abs(response) ** 2)


def mel_matrix(n_fft: int, mels: int) -> Tensor:
    """Return triangles in mel, float [n_fft / 2 + 1, mels], each of sum 1."""
    frequency = np.arange(n_fft // 2 + 1) * CORE_RATE / n_fft
    top = 2595 * math.log10(1 + CORE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    weights: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    for band in np.flatnonzero(weights.sum(1) == 0):  # narrower than a bin
        weights[band, np.abs(frequency - edges[band + 1]).argmin()] = 1
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).T.copy()).float()
