"""The encoder's search: moves what is coded so that the decoder's sound is nearer for the same bits.

Gradient descent on the targets of a run of frames, with the decoder and the prior in the loop, by soft rounding that
hardens (Agustsson and Theis 2020; noise as in Yang et al. 2020 and the overfitted codecs). Files know nothing of it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from laconic.models.soft_rounding import between, soft_round
from laconic.models.sound import (
    BINS,
    FLATTENING,
    FRAME_RATE,
    LOG_SCALE_MAX,
    LOG_SCALE_MIN,
    MEAN_STEP,
    RATE_WEIGHTS,
    Sound,
    inverse_mdct,
    logistic_bits,
)
from laconic.models.sound_distance import Distance

Floats = NDArray[np.float32]
PESQ_WEIGHT = 0.1
FEW = 5  # iterations: so few go straight on, with less hardening and no noise
STEP, MOST_STEP = 0.12, 0.05  # of the descent, over the root of the number of iterations, in steps of the quantiser
HARDNESS, HARDNESS_OF_FEW = (0.3, 0.1), (0.25, 0.15)  # temperatures of soft rounding, the first and the last
NOISE = 0.1  # deviation of what is added between two soft roundings
LEAST_SAMPLES = 1 << 13  # what the distance can measure; a shorter run is followed by silence
PAST_PASSES = 4  # see `Sound.quantise`


def searched(
    model: Sound, x: Floats, targets: tuple[Floats, Floats], quality: float, noise: Tensor, iterations: int
) -> tuple[Floats, Floats]:
    """Return targets for a run of frames whose coded sound is nearer to x.

    x: float32 [(n + 3) * 256], as `SoundCoder.analyse` takes it. targets: components, float32 [n, E], and shape, float32
    [n, K], before gains. quality: 0..1. noise: of the frames, [1, n, 256]. The same input gives the same output on one
    machine.
    """
    device = model.mean_envelope.device
    n = len(x) - 4 * BINS
    rest = (0, max(0, LEAST_SAMPLES - n))
    samples = F.pad(torch.from_numpy(x[None, 2 * BINS : 2 * BINS + n]).to(device), rest)
    state = State(model, targets, quality)
    generator = torch.Generator().manual_seed(0)
    distance = distances(device.type)
    optimiser = torch.optim.Adam(state.moved, lr=min(MOST_STEP, STEP / math.sqrt(iterations)), betas=(0.8, 0.99))
    hardness, deviation = (HARDNESS_OF_FEW, 0.0) if iterations <= FEW else (HARDNESS, NOISE)
    with torch.enable_grad():
        for i in range(iterations):
            y, bits = state.decoded(noise, generator, between(hardness, i / max(1, iterations - 1)), deviation)
            loss = distance(samples, F.pad(y, rest)).sum() * len(targets[0]) + state.rate_weight * bits
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return state.targets()


class State:
    """Holds the targets that are moved, in steps, and the frames before as they were last rounded."""

    def __init__(self, model: Sound, targets: tuple[Floats, Floats], quality: float) -> None:
        device = model.mean_envelope.device
        self.model = model
        self.quality = torch.tensor([quality], device=device)
        self.gains = model.gains(model.envelope_gain, self.quality), model.gains(model.shape_gain, self.quality)
        low, high = RATE_WEIGHTS
        self.rate_weight = low * (high / low) ** quality * FRAME_RATE / 1000  # of a bit
        self.moved = [
            (torch.from_numpy(array)[None].to(device) * torch.exp2(gain)).requires_grad_()
            for array, gain in zip(targets, self.gains, strict=True)
        ]
        with torch.no_grad():
            start = self.moved[0].detach(), self.moved[1].detach()
            self.past = start[0].round(), start[1].round()
            for _ in range(PAST_PASSES):
                self.past = model.step(start, self.past, self.gains, self.quality)[:2]

    def decoded(self, noise: Tensor, generator: torch.Generator, hardness: float, deviation: float) -> tuple[Tensor, Tensor]:
        """Return the sound as softly decoded, and its bits; remember how the frames round."""
        model, prior, (envelope_gain, shape_gain) = self.model, self.model.prior, self.gains
        before = self.past[0] * torch.exp2(-envelope_gain)
        context = prior.context(before, self.past[1], self.quality)
        mean, log_scale = prior.envelope(context, before, envelope_gain)
        envelope, envelope_bits, hard_envelope = softly(self.moved[0], mean, log_scale, generator, hardness, deviation)
        components = envelope * torch.exp2(-envelope_gain)
        level = (components @ model.from_components + model.mean_envelope) @ model.band_weights - model.reference_level
        level = shape_gain + (1 - FLATTENING) * level[..., : model.config.coded_bins]
        mean, log_scale = prior.shape(context, components, level, self.quality)
        shape, shape_bits, hard_shape = softly(self.moved[1], mean, log_scale, generator, hardness, deviation)
        spectrum = model.synthesis(components, shape * torch.exp2(-shape_gain), self.quality, noise)
        self.past = hard_envelope, hard_shape
        return inverse_mdct(spectrum, model.synthesis_matrix), envelope_bits + shape_bits

    def targets(self) -> tuple[Floats, Floats]:
        """Return what was moved, before gains."""
        pairs = zip(self.moved, self.gains, strict=True)
        components, shape = ((moved.detach() * torch.exp2(-gain))[0].cpu().numpy() for moved, gain in pairs)
        return np.ascontiguousarray(components), np.ascontiguousarray(shape)


def softly(
    target: Tensor, mean: Tensor, log_scale: Tensor, generator: torch.Generator, hardness: float, deviation: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return numbers rounded softly around their means, their bits, and the numbers rounded hard, which have no gradient.

    The bits lie on the line between those of the two integers around a number.
    """
    mean = mean + ((mean / MEAN_STEP).round() * MEAN_STEP - mean).detach()
    left = target - mean
    noise = torch.randn(left.shape, generator=generator).to(left.device) * deviation
    symbol = soft_round(soft_round(left, hardness) + noise, hardness)
    log_scale = log_scale.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)
    below = symbol.detach().floor()
    share = symbol - below
    bits = logistic_bits(below, log_scale) * (1 - share) + logistic_bits(below + 1, log_scale) * share
    return symbol + mean, bits.sum(), (left.round() + mean).detach()


@cache
def distances(device: str) -> Distance:
    """Return the distance that is descended; it has no state."""
    return Distance(PESQ_WEIGHT).to(device)
