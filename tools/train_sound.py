"""Train the sound model: `python -m laconic.tools.train_sound --data TAR [TAR ...] --out CHECKPOINT`.

Runs in pieces of --minutes that resume each other and anneal once over --total. Recipe: a linear start
(`Sound.start`); one quality per sample, stratified over the batch, and with it the weight of the rate; AdamW, clipping,
steps whose gradient explodes left out, an exponential moving average of the weights. `--export FOLDER` writes that as
the model sound-2.

Other systems, to compare: `--quantiser latent|fsq|rvq` (models/quantisers.py) trains the whole model with another
quantiser; `--decoder default|wavehax` (models/wavehax.py) trains only a decoder, from its start, for the codes of the
model of --init. Both want --init, and neither can be exported: the file format has the uniform one and the default.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from laconic import registry
from laconic.models import quantisers
from laconic.models.sound import BINS, CORE_RATE, FRAME_RATE, RATE_WEIGHTS, Sound, SoundConfig
from laconic.models.sound_distance import Distance
from laconic.models.wavehax import Wavehax, restart_decoder

PACE = {"shape_gain": 3.0, "envelope_gain": 3.0, "to_components": 0.2, "from_components": 0.2, "noise_level": 0.2}
PACE |= {"shape_quantiser.codebook": 3.0, "envelope_quantiser.codebook": 3.0}
BEYOND = {"shape_gain": (-0.7, 2.0), "envelope_gain": (-0.3, 0.5)}  # octaves added when the model is written
EXPLOSION = 10  # a gradient so many times the running mean is left out
RMS_DB = (-34.0, -18.0)  # levels of whole sounds in training, dB of full scale
START_BATCHES = 8
DECODERS = ("", "default", "wavehax")
SUFFIXES = (".opus", ".flac", ".wav", ".ogg", ".mp3")


@dataclass(frozen=True)
class Config:
    """Describes one training run; stored in the checkpoint."""

    data: tuple[str, ...]
    out: str
    kind: str = "speech"
    init: str = ""
    leave_out: str = ""
    minutes: float = 9.0
    total: float = 9.0
    batch: int = 16
    frames: int = 80
    rate: float = 6e-4
    rate_end: float = 2e-5
    ema: float = 0.999
    warmup: int = 80
    clip: float = 0.5
    decay: float = 1e-4
    pesq: float = 0.1
    seed: int = 1
    save_every: float = 5.0
    look_ahead: int = SoundConfig.look_ahead
    decoder: str = ""
    quantiser: str = "uniform"


def main(argv: list[str] | None = None) -> None:
    """Train for --minutes, write the checkpoint and, if asked, the model."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.train_sound", description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR", help="tar files of sounds")
    parser.add_argument("--out", required=True, help="checkpoint; if it exists, the run goes on from it")
    parser.add_argument("--kind", default="speech", help="the folder in the tar files (default: %(default)s)")
    parser.add_argument("--leave-out", default="", metavar="FILE", help="names of files that are kept for validation")
    parser.add_argument("--init", default="", metavar="WEIGHTS", help="begin with a model that --export wrote")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the averaged weights as sound-2")
    parser.add_argument("--decoder", default="", choices=DECODERS[1:], help="train only a decoder, from its start")
    parser.add_argument("--quantiser", default="uniform", choices=quantisers.NAMES, help="(default: %(default)s)")
    for name, default in vars(Config).items():
        if isinstance(default, (int, float)):
            parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    args = vars(parser.parse_args(argv))
    folder = args.pop("export")
    is_other = bool(args["decoder"]) or args["quantiser"] != "uniform"
    if is_other and (folder or not args["init"] or (args["decoder"] and args["quantiser"] != "uniform")):
        parser.error("--decoder or --quantiser, not both: with --init, and without --export")
    torch.set_num_threads(1)
    training = Training(Config(**{**args, "data": tuple(args["data"])}))
    training.run()
    if folder:
        card = {"steps": training.step, "seconds": round(training.seconds)}
        print(registry.save(training.average_model(), folder, "sound-2", card).path)


class Training:
    """Holds model, optimiser, average and progress, as stored in the checkpoint."""

    def __init__(self, config: Config) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.model = build(config)
        self.corpus = Corpus(list(read_sounds(config)), config.seed)
        self.distance = Distance(config.pesq)
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            pace = PACE.get(name, 1.0)
            decay = config.decay if parameter.ndim > 1 and pace == 1 else 0.0
            groups.setdefault((pace, decay), []).append(parameter)
        parts = [{"params": group, "pace": pace, "weight_decay": decay} for (pace, decay), group in groups.items()]
        self.optimiser = torch.optim.AdamW(parts, betas=(0.9, 0.99), fused=True)
        self.step, self.seconds, self.skipped, self.gradient = 0, 0.0, 0, 0.0
        self.shown: Tensor | None = None
        if os.path.exists(config.out):
            self.resume(torch.load(config.out, weights_only=True))
        else:
            self.begin()

    def begin(self) -> None:
        """Begin with the weights of a model, or with the linear start."""
        config, model = self.config, self.model
        if isinstance(model, Sound) and not config.decoder:
            if config.init:
                weights = Sound.load(config.init, asdict(model.config)).state_dict()
                model.load_state_dict(weights, strict=type(model) is Sound)
                move_ends(model, -1)
            sounds = [self.corpus.batch(config.batch, config.frames * BINS) for _ in range(START_BATCHES)]
            if isinstance(model, quantisers.QuantisedSound):
                model.start_codebooks(torch.cat(sounds))
            elif not config.init:
                model.start(torch.cat(sounds))
        self.ema = {name: value.clone() for name, value in self.trained()}

    def trained(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the numbers that training moves, and those that the start set, but for codebooks that are averages already."""
        averages = {name for name, _ in self.model.named_buffers() if name.startswith("shape_quantiser.")}
        state = self.model.state_dict().items()
        yield from ((name, v) for name, v in state if v.is_floating_point() and name not in averages)

    def run(self) -> None:
        """Train for the minutes of this piece, of one thread's time, or to the end of the whole."""
        began, before, saved = time.process_time(), self.seconds, self.seconds
        end = 60 * min(self.config.total, self.config.minutes + before / 60)
        with tqdm(total=round(end - before), unit="s", disable=None) as bar:
            while self.seconds < end:
                bar.set_postfix_str(self.one_step())
                self.seconds = before + time.process_time() - began
                bar.update(round(self.seconds - before) - bar.n)
                if self.seconds - saved > 60 * self.config.save_every:
                    saved = self.seconds
                    self.save()
        self.save()

    def one_step(self) -> str:
        """Take a step; return what to show of it."""
        c = self.config
        self.step += 1
        self.set_rate()
        x = self.corpus.batch(c.batch, c.frames * BINS)
        quality = (torch.arange(c.batch) + torch.rand(c.batch)) / c.batch
        y, envelope_bits, shape_bits = self.model(x, quality)
        distance = self.distance(x, y)
        envelope, shape = (bits.mean(1) * (FRAME_RATE / 1000) for bits in (envelope_bits, shape_bits))
        weight = RATE_WEIGHTS[0] * (RATE_WEIGHTS[1] / RATE_WEIGHTS[0]) ** quality
        loss = (distance + weight * (envelope + shape)).mean()
        if isinstance(self.model, quantisers.QuantisedSound):
            loss = loss + self.model.penalty()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.descend()
        values = torch.stack([loss, distance.mean(), envelope.mean(), shape.mean()]).detach()
        self.shown = values if self.shown is None else torch.lerp(self.shown, values, 0.03)
        named = zip(("loss", "distance", "envelope", "shape"), self.shown.tolist(), strict=True)
        return f"step {self.step} " + " ".join(f"{name} {value:.4f}" for name, value in named)

    def set_rate(self) -> None:
        """Set the learning rates: a short warm-up, then half a cosine over the whole run."""
        c = self.config
        fraction = min(1.0, self.seconds / (60 * c.total))
        rate = c.rate_end + (c.rate - c.rate_end) * 0.5 * (1 + math.cos(math.pi * fraction))
        for group in self.optimiser.param_groups:
            group["lr"] = min(1, self.step / c.warmup) * rate * group["pace"]

    def descend(self) -> None:
        """Move the weights, but for an exploding gradient, and their average."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip).item()
        self.gradient = self.gradient or norm
        if math.isfinite(norm) and norm <= EXPLOSION * self.gradient:
            self.optimiser.step()
            self.gradient += 0.02 * (norm - self.gradient)
        else:
            self.skipped += 1
            self.gradient *= 1.02
        with torch.no_grad():
            pace = max(1 - self.config.ema, 9 / (10 + self.step))
            torch._foreach_lerp_(list(self.ema.values()), [value for _, value in self.trained()], pace)

    def average_model(self) -> Sound:
        """Return a model of the averaged weights, whose lowest and highest quality reach beyond the rates of training."""
        model = Sound(self.model.config)  # no other system is exported
        model.load_state_dict(self.model.state_dict() | self.ema)
        move_ends(model, 1)
        return model.eval()

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(self.model.state_dict() | state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ema = state["ema"]
        self.step, self.seconds, self.gradient = state["step"], state["seconds"], state["gradient"]
        self.corpus.rng = np.random.default_rng((self.config.seed, self.step))

    def save(self) -> None:
        """Write the checkpoint; a killed run leaves the one before."""
        state = {name: getattr(self, name) for name in ("ema", "step", "seconds", "gradient")}
        state |= {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        state["config"] = asdict(self.config)
        torch.save(state, self.config.out + ".new")
        os.replace(self.config.out + ".new", self.config.out)


def build(config: Config) -> Sound | Wavehax:
    """Return the network that a run trains; one of which only a decoder is trained has the weights of --init."""
    size = SoundConfig(look_ahead=config.look_ahead)
    if config.quantiser != "uniform":
        return quantisers.QuantisedSound(size, config.quantiser)
    if not config.decoder:
        return Sound(size)
    model = Sound.load(config.init, asdict(size))
    if config.decoder == "wavehax":
        return Wavehax(model)
    for name in restart_decoder(model):
        model.get_parameter(name).requires_grad_()
    return model


@torch.no_grad()
def move_ends(model: Sound, sign: int) -> None:
    """Move the gains of the lowest and the highest quality by `BEYOND`, or back."""
    for name, (lowest, highest) in BEYOND.items():
        gain = getattr(model, name)
        gain[0] += sign * lowest
        gain[-1] += sign * highest


class Corpus:
    """Draws crops of sounds, float32 at 16 kHz, evenly over time."""

    def __init__(self, sounds: Sequence[NDArray[np.float32]], seed: int) -> None:
        self.sounds = sounds
        self.cumulative = np.cumsum([len(x) for x in sounds]) / sum(len(x) for x in sounds)
        self.rms = [max(1e-4, float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))) for x in sounds]
        self.rng = np.random.default_rng(seed)

    def batch(self, n: int, length: int) -> Tensor:
        """Return n crops, float32 [n, length]."""
        return torch.from_numpy(np.stack([self.crop(length) for _ in range(n)]))

    def crop(self, length: int) -> NDArray[np.float32]:
        """Return a part of a sound at a random level and polarity; a short sound is followed by silence."""
        i = min(int(np.searchsorted(self.cumulative, self.rng.random(), "right")), len(self.sounds) - 1)
        start = self.rng.integers(0, max(1, len(self.sounds[i]) - length + 1))
        part = self.sounds[i][start : start + length]
        gain = 10 ** (self.rng.uniform(*RMS_DB) / 20) / self.rms[i]
        sign = self.rng.choice((-1, 1))
        out = np.zeros(length, np.float32)
        out[: len(part)] = part * np.float32(sign * min(gain, 0.9 / max(1e-4, float(np.abs(part).max()))))
        return out


def read_sounds(config: Config, is_left_out: bool = False) -> Iterator[NDArray[np.float32]]:
    """Yield the sounds of a kind in tar files, channels mixed, at 16 kHz: those to train with, or those left out."""
    from scipy.signal import resample_poly

    kept = set(Path(config.leave_out).read_text().split()) if config.leave_out else set()
    for tar in config.data:
        with tarfile.open(tar) as archive:
            for member in archive:
                wanted = config.kind in Path(member.name).parts and member.name.endswith(SUFFIXES)
                file = archive.extractfile(member) if wanted and (member.name in kept) == is_left_out else None
                if file:
                    x, rate = soundfile.read(io.BytesIO(file.read()), dtype="float32", always_2d=True)
                    divisor = math.gcd(rate, CORE_RATE)
                    yield resample_poly(x.mean(1), CORE_RATE // divisor, rate // divisor).astype(np.float32)


if __name__ == "__main__":
    main()
