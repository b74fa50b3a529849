"""One channel of lossy sound: samples to frames, frames to bytes, and back (FORMAT.md, "Frames").

Bits depend on the frames alone, and those on integers; analysis and synthesis are floats. Synthesis looks at
`before` and `after` frames around a part, so that a part of a sound is the same whether it is decoded alone or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from laconic.models.sound import BINS, CORE_RATE, Sound, inverse_mdct, mdct
from laconic.models.sound_prior import MEAN_BITS, QUALITY_UNITS, Frames, IntegerPrior

HOP, RATE = BINS, CORE_RATE
COMPONENT_STEP = 1 / 256
BYTES_DEVIATION = (4 * (256**2 - 1) / 12) ** 0.5  # of the sum of four even bytes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """Holds analysed frames: envelope components, float32 [T, E], and shape, float32 [T, K], before gains."""

    components: Floats
    shape: Floats


class SoundCoder:
    """Codes runs of frames of one channel. Stateless after it is made, so threads may share it."""

    def __init__(self, model: Sound) -> None:
        self.model = model
        self.prior = IntegerPrior(model)
        c = model.config
        self.after = c.look_ahead
        self.device = model.mean_envelope.device
        self.before = c.blocks * (c.kernel - 1) - c.look_ahead + 1  # one more, which the first samples overlap with

    @classmethod
    @lru_cache(maxsize=2)
    def of(cls, model: Sound) -> SoundCoder:
        """Return the coder of a model, the same one each time."""
        return cls(model)

    @torch.inference_mode()
    def analyse(self, x: Floats) -> Targets:
        """Return the frames t0 .. t0 + n - 1. x: float32 [(n + 3) * HOP], the samples from (t0 - 2) * HOP on.

        Samples outside the sound are 0.
        """
        model = self.model
        spectrum = mdct(torch.from_numpy(x)[None].to(self.device), model.synthesis_matrix)[:, 1:-1]  # without the padding's frames
        components, shape = model.features(spectrum)
        return Targets(components[0, 1:-1].cpu().numpy(), shape[0, 1:-1].cpu().numpy())

    def encode(self, targets: Targets, quality: int) -> tuple[bytes, Frames]:
        """Code a run of frames at a quality x 100; also return it as it will be decoded."""
        gains = [np.exp2(self.prior.gain(which, quality) / 64).astype(np.float32) for which in (0, 1)]
        return self.prior.encode(targets.components * gains[0], targets.shape * gains[1], quality)

    def decode(self, data: bytes, n: int, quality: int) -> Frames:
        """Return the n frames of a run. No float is computed. Raises BadFile."""
        return self.prior.decode(data, n, quality)

    @torch.inference_mode()
    def synthesise(self, frames: Frames, quality: int, seed: int, first: int) -> Floats:
        """Return the samples, float32 [(m - 1) * HOP], of m frames in a row, of which `first` is the number of the first.

        Those near the ends are right only where `before` and `after` frames more were given, or the sound ends there.
        """
        inverse = np.exp2(-self.prior.gain(1, quality) / 64 - MEAN_BITS).astype(np.float32)
        components = torch.from_numpy(frames.components.astype(np.float32) * np.float32(COMPONENT_STEP))
        shape = torch.from_numpy(frames.shape.astype(np.float32) * inverse)
        noise = torch.from_numpy(noise_of(seed, first, len(frames.components)))
        at = torch.tensor([quality / QUALITY_UNITS])
        inputs = (t.to(self.device) for t in (components[None], shape[None], at, noise[None]))
        spectrum = self.model.synthesis(*inputs)
        return np.asarray(inverse_mdct(spectrum, self.model.synthesis_matrix)[0].cpu().numpy())


def noise_of(seed: int, first: int, n: int) -> Floats:
    """Return noise of deviation 1 for n frames from number `first` on, float32 [n, 256]: sums of a hash's four bytes.

    The hash is Wellons' lowbias32 of the place, with the seed added; the same integers everywhere.
    """
    with np.errstate(over="ignore"):
        x = np.arange(first * BINS, (first + n) * BINS, dtype=np.uint64).astype(np.uint32)
        x += np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
        x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
        x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    total = x.view(np.uint8).reshape(n, BINS, 4).sum(2, dtype=np.int32)
    return np.asarray((total - 510) * np.float32(1 / BYTES_DEVIATION), np.float32)
