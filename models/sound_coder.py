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

from laconic.models import sound_high, sound_search
from laconic.models.sound import BINS, CORE_RATE, RATES_AT, Block, Sound, inverse_mdct, mdct, mdct_matrix
from laconic.models.sound_high import Core, signs_of
from laconic.models.sound_prior import MEAN_BITS, QUALITY_UNITS, Frames, IntegerPrior, Room

COMPONENT_STEP = 1 / 256

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """Holds analysed frames: envelope components, float32 [T, E], shape, float32 [T, K], before gains; amplitudes above [T, B]."""

    components: Floats
    shape: Floats
    amplitudes: Floats


class SoundCoder:
    """Codes runs of frames of one channel. Stateless after it is made, so threads may share it.

    rate: of the core, Hz: one of sound_high.CORE_RATES. hop: samples from one frame to the next. before, after: how many
    frames around a part its synthesis looks at.
    """

    def __init__(self, model: Sound, rate: int = CORE_RATE) -> None:
        self.model = model
        self.prior = prior_of(model)
        self.core, self.rate = Core(rate), rate
        self.hop = self.core.hop
        c = model.config
        self.after = c.look_ahead
        self.device = model.mean_envelope.device
        self.before = c.blocks * (c.kernel - 1) - c.look_ahead + 1  # one more, which the first samples overlap with
        self.matrix = model.synthesis_matrix if self.hop == BINS else mdct_matrix(self.hop).to(self.device)

    @classmethod
    @lru_cache(maxsize=6)
    def of(cls, model: Sound, rate: int = CORE_RATE) -> SoundCoder:
        """Return the coder of a model for a rate of the core, the same one each time."""
        return cls(model, rate)

    def at(self, rate: int) -> SoundCoder:
        """Return the same model's coder for another rate of the core."""
        return SoundCoder.of(self.model, rate)

    def rate_for(self, sample_rate: int, quality: int) -> int:
        """Return the rate of the core for a sound's rate, Hz, at a quality x 100, see `sound_high.core_rate`."""
        bitrate = float(np.interp(quality / 100, RATES_AT, self.model.typical_rates.cpu().numpy()))
        return sound_high.core_rate(sample_rate, bitrate)

    @torch.inference_mode()
    def analyse(self, x: Floats) -> Targets:
        """Return the frames t0 .. t0 + n - 1. x: float32 [(n + 3) hop], the samples from (t0 - 2) hop on.

        Samples outside the sound are 0.
        """
        spectrum = self.spectrum(x)[:, 1:-1]  # without the padding's frames
        components, shape = self.model.features(spectrum[..., :BINS])
        amplitudes = self.core.amplitudes(spectrum[0, :, BINS:].cpu().numpy())
        return Targets(components[0, 1:-1].cpu().numpy(), shape[0, 1:-1].cpu().numpy(), amplitudes)

    def cut(self, targets: Targets, start: int, end: int) -> Targets:
        """Return the targets of the frames from start up to end."""
        return Targets(targets.components[start:end], targets.shape[start:end], targets.amplitudes[start:end])

    def encode(self, targets: Targets, quality: int, room: Room | None = None) -> tuple[bytes, Frames]:
        """Code a run of frames at a quality x 100; also return it as it will be decoded. room: see `IntegerPrior`."""
        gains = [np.exp2(self.prior.gain(which, quality) / 64).astype(np.float32) for which in (0, 1)]
        levels = sound_high.levels_of(targets.amplitudes)
        return self.prior.encode(targets.components * gains[0], targets.shape * gains[1], quality, room, levels)

    def searched(self, x: Floats, targets: Targets, quality: int, iterations: int) -> Targets:
        """Return targets of the same frames that, coded at a quality x 100, sound nearer to x (`sound_search.py`)."""
        arrays = targets.components, targets.shape
        noise = torch.from_numpy(noise_of(0, 0, len(targets.shape))[None]).to(self.device)
        low = x if self.hop == BINS else inverse_mdct(self.spectrum(x)[..., :BINS], self.model.synthesis_matrix)[0].cpu().numpy()
        found = sound_search.searched(self.model, low, arrays, quality / QUALITY_UNITS, noise, iterations)
        return Targets(*found, targets.amplitudes)

    def decode(self, data: bytes, n: int, quality: int, room: Room | None = None) -> Frames:
        """Return the n frames of a run. No float is computed. Raises BadFile."""
        return self.prior.decode(data, n, quality, room, self.core.bands)

    def quality_at(self, bitrate: float) -> int:
        """Return the quality x 100 at which typical speech takes so many kbit/s: 0 or 10,000 beyond the range."""
        rates = self.model.typical_rates.cpu().numpy()
        return round(100 * float(np.interp(np.log(max(bitrate, 1e-3)), np.log(rates.clip(1e-3)), RATES_AT)))

    def room(self) -> Room:
        """Return what runs that go on from one another share, before the first."""
        return self.prior.room()

    @torch.inference_mode()
    def synthesise(self, frames: Frames, quality: int, seed: int, first: int) -> Floats:
        """Return the samples, float32 [(m - 1) hop], of m frames in a row, of which `first` is the number of the first.

        Those near the ends are right only where `before` and `after` frames more were given, or the sound ends there.
        """
        spectrum = self.model.synthesis(*self.inputs(frames, quality, seed, first))
        return self.samples(self.whole(spectrum, frames.levels, seed, first))

    def spectrum(self, x: Floats) -> Tensor:
        """Return the bins [1, len(x) / hop + 1, hop] of samples, as large as at the network's rate."""
        return mdct(torch.from_numpy(x)[None].to(self.device), self.matrix) / self.core.scale

    def whole(self, spectrum: Tensor, levels: NDArray[np.int32], seed: int, first: int) -> Tensor:
        """Return the network's bins [1, T, 256] with the noise above them, [1, T, hop], as `spectrum` has them."""
        if self.hop == BINS:
            return spectrum
        above = torch.from_numpy(self.core.noise(levels, seed, first)[None]).to(self.device)
        return torch.cat([spectrum, above], 2)

    def samples(self, spectrum: Tensor) -> Floats:
        """Return the samples, float32 [(T - 1) hop], of bins [1, T, hop]."""
        return np.asarray(inverse_mdct(spectrum * self.core.scale, self.matrix)[0].cpu().numpy())

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
        self.tail = torch.zeros(1, 0, coder.hop, device=coder.device)  # the last spectrum, which the next overlaps with
        self.levels = np.zeros((0, coder.core.bands), np.int32)  # of the frames that the network has not yet made
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
        levels = np.concatenate([self.levels, frames.levels])
        n, first = f.shape[1], self.n_frames - len(levels)
        self.plain, self.levels = plain[:, :, n:], levels[n:]
        made = self.coder.whole(model.correct(f, plain[:, :, :n]), levels[:n], self.seed, first)
        spectrum = torch.cat([self.tail, made], 1)
        self.tail = spectrum[:, -1:]
        return self.coder.samples(spectrum) if spectrum.shape[1] > 1 else np.zeros(0, np.float32)


@lru_cache(maxsize=2)
def prior_of(model: Sound) -> IntegerPrior:
    """Return the prior of a model, the same one each time."""
    return IntegerPrior(model)


def noise_of(seed: int, first: int, n: int) -> Floats:
    """Return the network's noise of -1 and 1 for n frames from number `first` on, float32 [n, 256]."""
    return signs_of(seed, 0x9E3779B9, first, n, BINS)
