"""Wavehax: the prior has lines at multiples of F0 and nowhere else, nothing is folded, and it starts as the plain code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from laconic.models.sound import BINS, CORE_RATE, Sound, SoundConfig, inverse_mdct
from laconic.models.wavehax import HOP, N_BINS, Wavehax, WavehaxConfig, cosines, harmonics, held, pitch

SMALL = SoundConfig(
    bands=6, coded_bins=20, channels=12, hidden_channels=24, blocks=2, kernel=5, look_ahead=1, prior_channels=16
)
FEW = WavehaxConfig(channels=6, blocks=2, projection_kernel=3)
SAMPLES = 60 * HOP


def voice(f0: float, noise: float = 0.003) -> Tensor:
    """float [1, S]: five harmonics that fall off, and noise."""
    phase = 2 * math.pi * f0 / CORE_RATE * torch.arange(SAMPLES) + 0.7
    tone = sum(torch.cos(k * phase) / k for k in range(1, 6)) * 0.05
    return tone[None] + torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(1)) * noise  # type: ignore[index]


def small_wavehax(is_perturbed: bool = True) -> Wavehax:
    torch.manual_seed(1)
    sound = Sound(SMALL)
    sound.start(torch.cat([voice(f)[:, : 20 * HOP] for f in (100, 150, 220, 330)]))
    model = Wavehax(sound, FEW)
    if is_perturbed:
        torch.nn.init.normal_(model.leave.weight)
    return model


def lines(x: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies in Hz and power of what stands in the middle of a sound, [N]."""
    part = x[..., 4096 : 4096 + 8192].double() * torch.hann_window(8192, dtype=torch.double)
    return torch.fft.rfftfreq(8192, 1 / CORE_RATE), torch.fft.rfft(part).abs().square().reshape(-1, 4097).sum(0)


def off_lines(x: Tensor, f0: float) -> float:
    """The share of the power that is farther than 8 Hz from every multiple of F0."""
    frequency, power = lines(x)
    distance = (frequency / f0 - (frequency / f0).round()).abs() * f0
    return float(power[(distance > 8) | (frequency < 8)].sum() / power.sum())


@pytest.mark.parametrize("f0", [75.0, 110.0, 187.3, 330.0, 440.0, 700.0])
def test_pitch_is_found(f0: float) -> None:
    found = pitch(voice(f0))[0, 5:-5]
    assert (found / f0 - 1).abs().max() < 0.01


def test_noise_and_silence_have_no_pitch() -> None:
    noise = torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(2))
    assert (pitch(noise) == 0).float().mean() > 0.9
    assert (pitch(torch.zeros(1, SAMPLES)) == 0).all()


@pytest.mark.parametrize("f0", [83.7, 233.1, 611.7])
def test_the_prior_has_all_harmonics_and_nothing_folded(f0: float) -> None:
    prior = harmonics(torch.full((1, 61), f0), voice(f0, noise=0))
    frequency, power = lines(prior)
    peaks = [power[(frequency - k * f0).abs() < 8].sum() for k in range(1, int(7700 / f0))]
    assert max(peaks) < 2 * min(peaks), "as strong at the top as at the bottom"
    assert prior[:, 4096:-4096].square().mean() == pytest.approx(1, abs=0.05)
    assert off_lines(prior, f0) < 1e-3
    phase = 2 * math.pi * f0 / CORE_RATE * torch.arange(SAMPLES)
    assert off_lines((torch.cos(phase) - 0.9).sign(), f0) > 0.01, "pulses made of samples are folded"


def test_the_prior_is_locked_to_the_fundamental() -> None:
    f0 = 187.3
    x = voice(f0)
    shifted = 0.98 * pitch(x)  # wrong by a third of a semitone: the phase is right all the same
    for f in (pitch(x), shifted):
        prior = harmonics(f, x)[0, 4096:-4096]
        fundamental = x[0, 4096:-4096]
        n = math.floor(0.98 * CORE_RATE / 2 / f0)
        expected = math.sqrt(2 / n) * 0.05 / 2 * sum(1 / k for k in range(1, 6))
        assert (prior * fundamental).mean() == pytest.approx(expected, rel=0.15)


def test_cosines_add_up() -> None:
    phase = torch.linspace(-9, 9, 1001, dtype=torch.double)
    plain = sum(torch.cos(k * phase) for k in range(1, 8))
    assert torch.allclose(cosines(phase, torch.full_like(phase, 7)), plain, atol=1e-9)  # type: ignore[arg-type]


def test_gaps_hold_the_pitch() -> None:
    f0 = torch.tensor([[0.0, 100, 0, 0, 200, 0], [0.0] * 6])
    assert held(f0).tolist() == [[100, 100, 100, 100, 200, 200], [100.0] * 6]


def test_the_transform_gives_back_the_samples() -> None:
    model, x = small_wavehax(), torch.randn(2, 9 * HOP)
    spectrum = model.stft(x)
    assert spectrum.shape == (2, 10, N_BINS, 2)
    assert torch.allclose(model.inverse_stft(spectrum), x, atol=1e-5)
    assert spectrum[:, 1:-1].square().sum(3).mean() == pytest.approx(1, abs=0.1)


def test_at_the_start_it_is_the_plain_code() -> None:
    model = small_wavehax(is_perturbed=False).eval()
    quality, noise = torch.tensor([0.7]), torch.randn(1, 61, BINS).sign()
    components, shape, *_ = model.sound.quantise(voice(150), quality)
    plain = inverse_mdct(model.sound.synthesis(components, shape, quality, noise), model.sound.synthesis_matrix)
    found = model.decode(components, shape, quality, noise)
    assert found.shape == (1, SAMPLES) and torch.allclose(found, plain, atol=1e-5)


def test_gradients_reach_the_decoder_and_nothing_else() -> None:
    model = small_wavehax().train()
    x = torch.cat([voice(120), voice(300)])
    y, envelope_bits, shape_bits = model(x, torch.tensor([0.2, 0.9]))
    assert y.shape == x.shape and envelope_bits.shape == shape_bits.shape == (2, 61)
    (x - y).square().sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {name for name, _ in model.named_parameters() if not name.startswith("sound.")}


def test_a_part_is_decoded_as_the_whole() -> None:
    model = small_wavehax().eval()
    quality, noise = torch.tensor([0.9]), torch.randn(1, 61, BINS).sign()
    components, shape, *_ = model.sound.quantise(voice(187.3), quality)
    whole = model.decode(components, shape, quality, noise)
    part = model.decode(components[:, 15:50], shape[:, 15:50], quality, noise[:, 15:50])
    middle = slice(20 * HOP, 30 * HOP)
    difference = part[:, middle] - whole[:, 35 * HOP : 45 * HOP]
    assert difference.square().mean() < 1e-4 * whole.square().mean(), "the prior's phase is not that of where it began"


def spread(model: Wavehax, f: float) -> float:
    """The share of the power that the network puts where a tone's bins do not reach, with no prior and no biases."""
    tone = torch.cos(2 * math.pi * f / CORE_RATE * torch.arange(SAMPLES))[None]
    planes = torch.cat([model.stft(tone), torch.zeros(1, 61, N_BINS, 5)], 3)
    with torch.no_grad():
        y = model.inverse_stft(model.correct(planes, torch.zeros(1, 61, SMALL.bands + 1)))
    frequency, power = lines(y)
    reach = (FEW.blocks * (FEW.kernel // 2) + 4) * CORE_RATE / 2 / BINS
    return float(power[(frequency - f).abs() > reach].sum() / power.sum())


@pytest.mark.parametrize("f", [3000.0, 6300.0])
def test_nonlinear_steps_do_not_fold(f: float) -> None:
    model = small_wavehax().eval()
    assert spread(model, f) < 1e-3
    squared = torch.cos(2 * math.pi * f / CORE_RATE * torch.arange(SAMPLES)).relu()
    frequency, power = lines(squared)
    assert power[(frequency - f).abs() > 400].sum() > 0.1 * power.sum(), "the same step on samples does"


def test_multiply_adds_are_those_of_the_layers() -> None:
    model = small_wavehax()
    c, h = FEW.channels, FEW.channels * FEW.widening
    per_bin = 10 * c + FEW.blocks * (49 * c + 2 * c * h) + 2 * c
    per_frame = 3 * (2 * N_BINS + SMALL.bands + 1) * N_BINS
    assert model.multiply_adds() == 62.5 * (per_frame + N_BINS * per_bin)
