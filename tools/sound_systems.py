"""Compare what `train_sound` trained: `python -m laconic.tools.sound_systems CHECKPOINT ... --data TAR --leave-out FILE`.

Every system codes the same seconds of the sounds that were left out of training, at a quality searched for each rate;
rates are estimates under the system's prior, without a file around them. It prints a row of JSON per system and rate.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.models.sound import BINS, CORE_RATE, Sound, inverse_mdct
from laconic.models.wavehax import Wavehax
from laconic.tools.metrics import METRICS, Absent, Item
from laconic.tools.train_sound import Config, build, read_sounds

LEVEL_DB = -26.0  # of every clip, dB of full scale
PASSES = 4  # of `Sound.quantise`
PROBES = 8
CLOSE = 0.01  # of a rate


def main(argv: list[str] | None = None) -> None:
    """Print the figures of each checkpoint at each rate."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.sound_systems", description=__doc__)
    parser.add_argument("checkpoints", nargs="+", help="what `train_sound --out` wrote")
    parser.add_argument("--data", nargs="+", required=True, metavar="TAR", help="tar files of sounds")
    parser.add_argument("--leave-out", required=True, metavar="FILE", help="names of the files to measure")
    parser.add_argument("--kind", default="speech", help="the folder in the tar files (default: %(default)s)")
    parser.add_argument("--rates", nargs="+", type=float, default=[3.0, 6.0], help="kbit/s (default: 3 6)")
    parser.add_argument("--clips", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each clip (default: %(default)s)")
    parser.add_argument("--metrics", nargs="+", default=["pesq", "stoi", "visqol-speech"], choices=METRICS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = Config(data=tuple(args.data), out="", kind=args.kind, leave_out=args.leave_out)
    x = clips(list(read_sounds(config, is_left_out=True)), args.clips, args.seconds * CORE_RATE // BINS * BINS)
    for path in args.checkpoints:
        model, about = load(path)
        for rate in args.rates:
            print(json.dumps(about | figures(model, x, rate, args.metrics)), flush=True)


def clips(sounds: Sequence[NDArray[np.float32]], n: int, length: int) -> Tensor:
    """Return the beginnings of n sounds, evenly chosen among those that are long enough, at one level: [n, length]."""
    long = [sound[:length] for sound in sounds if len(sound) >= length]
    chosen = np.stack([long[i * len(long) // n] for i in range(min(n, len(long)))])
    rms = np.sqrt(np.square(chosen).mean(1, keepdims=True)) + 1e-9
    return torch.from_numpy((chosen * (10 ** (LEVEL_DB / 20) / rms)).astype(np.float32))


def load(path: str) -> tuple[Sound | Wavehax, dict[str, Any]]:
    """Return the system of a checkpoint, with averaged weights, and what to say of it."""
    state = torch.load(path, weights_only=True)
    names = {field.name for field in fields(Config)}
    config = Config(**{name: value for name, value in state["config"].items() if name in names})
    model = build(config)
    model.load_state_dict(model.state_dict() | state["model"] | state["ema"])
    about = {"decoder": config.decoder, "quantiser": config.quantiser, "steps": state["step"]}
    about |= {"cpu_seconds": round(state["seconds"]), "parameters": sum(p.numel() for p in model.parameters())}
    return model.eval().requires_grad_(False), about


@torch.inference_mode()
def figures(model: Sound | Wavehax, x: Tensor, rate: float, metrics: Sequence[str]) -> dict[str, Any]:
    """Return kbit/s, times real time of the decoder's network, and means of metrics, None for those not on this machine."""
    sound = model.sound if isinstance(model, Wavehax) else model
    quality = quality_at(sound, x, rate)
    components, shape, envelope_bits, shape_bits = sound.quantise(x, quality, PASSES)
    noise = torch.randn(*shape.shape[:2], BINS, generator=torch.Generator().manual_seed(1)).sign()
    began = time.process_time()
    parts = [decode(model, *(t[i : i + 1] for t in (components, shape, quality, noise))) for i in range(len(x))]
    seconds = time.process_time() - began
    found: dict[str, Any] = {"kbit_per_s": kbit_per_s(envelope_bits + shape_bits), "envelope": kbit_per_s(envelope_bits)}
    found["decode_x"] = x.numel() / CORE_RATE / seconds
    pairs = [(item(a), item(b)) for a, b in zip(x, torch.cat(parts).clamp(-1, 1), strict=True)]
    return found | {name: mean(name, pairs) for name in metrics}


def decode(model: Sound | Wavehax, components: Tensor, shape: Tensor, quality: Tensor, noise: Tensor) -> Tensor:
    """Return the sound [B, S] of codes."""
    if isinstance(model, Wavehax):
        return model.decode(components, shape, quality, noise)
    return inverse_mdct(model.synthesis(components, shape, quality, noise), model.synthesis_matrix)


def quality_at(sound: Sound, x: Tensor, rate: float) -> Tensor:
    """Return the quality, the same for all clips, [B], whose rate is nearest, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(PROBES):
        middle = torch.full((len(x),), (low + high) / 2)
        _, _, envelope_bits, shape_bits = sound.quantise(x, middle, PASSES)
        found = kbit_per_s(envelope_bits + shape_bits)
        if abs(found / rate - 1) < CLOSE:
            break
        low, high = ((low + high) / 2, high) if found < rate else (low, (low + high) / 2)
    return middle


def kbit_per_s(bits: Tensor) -> float:
    """Return the rate of bits per frame, [B, T]; the last frame belongs to the one before."""
    return bits.sum().item() / (bits.shape[0] * (bits.shape[1] - 1) * BINS / CORE_RATE) / 1000


def item(x: Tensor) -> Item:
    return Item("sound", x.numpy()[:, None], CORE_RATE)


def mean(name: str, pairs: list[tuple[Item, Item]]) -> float | None:
    """Return the mean of a metric over pairs of original and decoded sounds."""
    try:
        measure: Callable[[Item, Item], float] = METRICS[name].load()
    except Absent:
        return None
    return float(np.nanmean([measure(a, b) for a, b in pairs]))


if __name__ == "__main__":
    main()
