"""One channel of lossy sound: samples to frames, frames to bytes, and back (FORMAT.md, "Frames").

Bits depend on the frames alone, and those on integers; analysis and synthesis are floats. Synthesis looks at
`before` and `after` frames around a part, so that a part of a sound is the same whether it is decoded alone or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from laconic.models import sound_search
from laconic.models.sound import BINS, CORE_RATE, RATES_AT, Block, Sound, inverse_mdct, mdct
from laconic.models.sound_prior import MEAN_BITS, QUALITY_UNITS, Frames, IntegerPrior, Room

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

    def encode(self, targets: Targets, quality: int, room: Room | None = None) -> tuple[bytes, Frames]:
        """Code a run of frames at a quality x 100; also return it as it will be decoded. room: see `IntegerPrior`."""
        gains = [np.exp2(self.prior.gain(which, quality) / 64).astype(np.float32) for which in (0, 1)]
        return self.prior.encode(targets.components * gains[0], targets.shape * gains[1], quality, room)

    def searched(self, x: Floats, targets: Targets, quality: int, iterations: int) -> Targets:
        """Return targets of the same frames that, coded at a quality x 100, sound nearer to x (`sound_search.py`)."""
        arrays = targets.components, targets.shape
        noise = torch.from_numpy(noise_of(0, 0, len(targets.shape))[None]).to(self.device)
        return Targets(*sound_search.searched(self.model, x, arrays, quality / QUALITY_UNITS, noise, iterations))

    def decode(self, data: bytes, n: int, quality: int, room: Room | None = None) -> Frames:
        """Return the n frames of a run. No float is computed. Raises BadFile."""
        return self.prior.decode(data, n, quality, room)

    def quality_at(self, bitrate: float) -> int:
        """Return the quality x 100 at which typical speech takes so many kbit/s: 0 or 10,000 beyond the range."""
        rates = self.model.typical_rates.cpu().numpy()
        return round(100 * float(np.interp(np.log(max(bitrate, 1e-3)), np.log(rates), RATES_AT)))

    def room(self) -> Room:
        """Return what runs that go on from one another share, before the first."""
        return self.prior.room()

    @torch.inference_mode()
    def synthesise(self, frames: Frames, quality: int, seed: int, first: int) -> Floats:
        """Return the samples, float32 [(m - 1) * HOP], of m frames in a row, of which `first` is the number of the first.

        Those near the ends are right only where `before` and `after` frames more were given, or the sound ends there.
        """
        spectrum = self.model.synthesis(*self.inputs(frames, quality, seed, first))
        return np.asarray(inverse_mdct(spectrum, self.model.synthesis_matrix)[0].cpu().numpy())


    def inputs(self, frames: Frames, quality: int, seed: int, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return components, shape, quality and noise as the network takes them."""
        inverse = np.exp2(-self.prior.gain(1, quality) / 64 - MEAN_BITS).astype(np.float32)
        components = frames.components.astype(np.float32) * np.float32(COMPONENT_STEP)
        arrays = components[None], frames.shape.astype(np.float32)[None] * inverse
        at = np.array([quality / QUALITY_UNITS], np.float32)
        noise = noise_of(seed, first, len(components))[None]
        c, s, q, n = (torch.from_numpy(array).to(self.device) for array in (*arrays, at, noise))
        return c, s, q, n


class Synthesiser:
    """Computes samples of frames as they come: what `SoundCoder.synthesise` computes, with the past kept in between."""

    def __init__(self, coder: SoundCoder, quality: int, seed: int) -> None:
        model = self.model = coder.model
        self.coder, self.quality, self.seed = coder, quality, seed
        self.blocks = [block for block in model.blocks if isinstance(block, Block)]
        self.held = [torch.zeros(1, block.pad[0], model.config.channels, device=coder.device) for block in self.blocks]
        self.plain = torch.zeros(4, 1, 0, BINS, device=coder.device)
        self.tail = torch.zeros(1, 0, BINS, device=coder.device)  # the last spectrum, which the next overlaps with
        self.n_frames = 0

    @torch.inference_mode()
    def push(self, frames: Frames, is_last: bool) -> Floats:
        """Return the samples, float32 [n], that more frames complete. is_last: no frames come after these."""
        model = self.model
        inputs = self.coder.inputs(frames, self.quality, self.seed, self.n_frames)
        self.n_frames += len(frames.components)
        features, plain = model.prepare(*inputs)
        f = model.enter(features)
        for i, block in enumerate(self.blocks):
            before, ahead = block.pad
            x = F.pad(torch.cat([self.held[i], f], 1), (0, 0, 0, ahead if is_last else 0))
            n = max(0, x.shape[1] - before - ahead)
            f = x[:, before : before + n] + block.branch(x) if n else x[:, :0]
            self.held[i] = x[:, n:]
        plain = torch.cat([self.plain, plain], 2)
        n = f.shape[1]
        self.plain = plain[:, :, n:]
        spectrum = torch.cat([self.tail, model.correct(f, plain[:, :, :n])], 1)
        self.tail = spectrum[:, -1:]
        if spectrum.shape[1] < 2:
            return np.zeros(0, np.float32)
        return np.asarray(inverse_mdct(spectrum, model.synthesis_matrix)[0].cpu().numpy())


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
