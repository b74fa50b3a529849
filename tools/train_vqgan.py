"""Train the extreme model: `python -m laconic.tools.train_vqgan --data DIR --out CHECKPOINT --lpips FOLDER`.

Runs in pieces of a given wall-clock length that resume each other and anneal once over the whole. Recipe: networks from the
photo model, codes from K-means of what the encoder emits; a depth of its own for each sample of a batch, so that one decoder
serves all; L1 + LPIPS + commitment, and late a patch discriminator whose gradient is a fixed share of theirs; codes follow
the encoder by moving means, and a code out of use is put beside its sibling. `--paper` is the recipe of Mao et al. instead:
unrelated codebooks by K-means, encoder and decoder frozen, the codebook and the layers beside it fine-tuned.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from laconic import registry
from laconic.models.vqgan import LATENT, LEAST_DEPTH, Vqgan, VqganConfig, config_of, start_from_photo
from laconic.tools.codebook import apart, nearest, tree
from laconic.tools.lpips import BACKBONES, Lpips
from laconic.tools.train_image import crops, read_pictures, to_float

EMA_EVERY = 4  # steps between updates of the average
START_CROPS, START_PATCHES = 320, 32  # crops whose vectors the codes start from; at once
PIXELS_PER_UNIT = 960  # squared distance of vectors per squared error of a pixel, as the photo model's latents have it
REVIVE_EVERY, DEAD = 100, 0.02  # steps; share of the mean use of a level below which a code is out of use
LECAM = 0.01  # weight of what keeps the discriminator near its own moving means (Tseng et al. 2021)
QUANT_LAYERS = ("to_code", "from_code", "depth_bias")  # what --paper trains besides the codes


@dataclass(frozen=True)
class Config:
    """Describes one training run; stored in the checkpoint."""

    data: str
    out: str
    lpips: str
    valid: str | None = None
    init: str | None = None
    backbone: str = "squeeze"
    minutes: float = 9.0
    total: float = 9.0
    batch: int = 4
    crop: int = 192
    rate: float = 3e-4
    ema: float = 0.999
    warmup: int = 100
    clip: float = 1.0
    perceptual: float = 1.0
    commit: float = 5.0
    codes: float = 0.995
    adversary: float = 0.0
    late: float = 0.6
    steps: int = 1 << 40
    device: str = "cpu"
    threads: int = 1
    seed: int = 1
    paper: bool = False


def main(argv: list[str] | None = None) -> None:
    """Train for --minutes, write the checkpoint, print a validation line."""
    config = parse(argv)
    torch.set_num_threads(config.threads)
    state = Training(config)
    state.run()
    state.save()
    if config.valid:
        print(validate(state.ema_model(), read_pictures(Path(config.valid)), Path(config.lpips)))


class Training:
    """Holds networks, codes, optimisers, averages and progress, as stored in the checkpoint."""

    def __init__(self, config: Config) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.device = torch.device(config.device)
        self.pictures = [p for p in read_pictures(Path(config.data)) if min(p.shape[:2]) >= config.crop]
        if not self.pictures:
            raise SystemExit(f"{config.data}: found no picture of at least {config.crop} x {config.crop} pixels")
        self.lpips = Lpips(Path(config.lpips), config.backbone).to(self.device)
        self.model, self.judge = Vqgan(VqganConfig()), patch_discriminator()
        self.elapsed_s, self.step_number, self.skipped = 0.0, 0, 0
        self.means = torch.zeros(2)  # of what the discriminator says of true and of made pictures
        saved: dict[str, Any] | None = None
        if Path(config.out).exists():
            saved = torch.load(config.out, map_location="cpu", weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.judge.load_state_dict(saved["judge"])
            self.elapsed_s, self.step_number, self.skipped = saved["elapsed_s"], saved["step"], saved["skipped"]
            self.mass, self.sums, self.means = saved["mass"], saved["sums"], saved["means"]
        else:
            self.start()
        self.model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.judge.to(self.device)
        self.mass, self.sums = self.mass.to(self.device), self.sums.to(self.device)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        trained = [(k, p) for k, p in self.model.named_parameters() if not config.paper or k.split(".")[0] in QUANT_LAYERS]
        self.trained = [p for _, p in trained]
        decays = [[p for p in self.trained if p.dim() == 4], [p for p in self.trained if p.dim() < 4]]
        groups = [{"params": group, "weight_decay": w} for group, w in zip(decays, (1e-4, 0.0), strict=True)]
        self.optimiser = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.99), fused=True)
        self.judge_optimiser = torch.optim.AdamW(self.judge.parameters(), lr=config.rate, betas=(0.5, 0.99), fused=True)
        if saved:
            self.ema = {k: v.to(self.device) for k, v in saved["ema"].items()}
            self.optimiser.load_state_dict(saved["optimiser"])
            self.judge_optimiser.load_state_dict(saved["judge_optimiser"])
        self.rng = np.random.default_rng((config.seed, self.step_number))

    @torch.no_grad()
    def start(self) -> None:
        """Make networks and codes from the photo model, or from another checkpoint, and training pictures."""
        config, rng = self.config, np.random.default_rng(self.config.seed)
        x = to_float(crops(self.pictures, rng, START_CROPS, config.crop // LATENT * LATENT))
        if config.init:
            before = torch.load(config.init, map_location="cpu", weights_only=True)["ema"]
            now = self.model.state_dict()
            self.model.load_state_dict(now | {k: v for k, v in before.items() if v.shape == now[k].shape})
        else:
            photo = registry.load_photo(registry.find(registry.DEFAULT_PHOTO))
            start_from_photo(self.model, photo, x[:START_PATCHES])
        e = torch.cat([self.model.analysis(part) for part in x.split(START_PATCHES)])
        samples = e.permute(0, 2, 3, 1).reshape(-1, e.shape[1])
        c, grown = self.model.config, apart if config.paper else tree
        codes, mass = grown(samples, c.first_depth)
        lacking = samples - codes[(1 << c.first_depth) + nearest(samples, codes[1 << c.first_depth :])]
        second_codes, second_mass = grown(lacking, c.second_depth)
        self.model.codes.copy_(torch.cat([codes, second_codes]))
        self.mass = torch.cat([mass, second_mass])
        self.sums = self.model.codes * self.mass[:, None]

    def run(self) -> None:
        """Make steps until --minutes of this piece, or --total of all pieces, are spent."""
        start = saved_at = time.monotonic()
        before = self.elapsed_s
        end = min(self.config.minutes, self.config.total - before / 60) * 60
        with tqdm(total=round(end), unit="s", mininterval=10) as bar:
            while time.monotonic() - start < end and self.step_number < self.config.steps:
                losses = self.step()
                self.elapsed_s = before + time.monotonic() - start
                if self.step_number % 20 == 0:
                    bar.n = round(time.monotonic() - start)
                    bar.set_postfix(step=self.step_number, skipped=self.skipped, **{k: f"{v:.3f}" for k, v in losses.items()})
                if time.monotonic() - saved_at > 120:
                    self.save()
                    saved_at = time.monotonic()

    def step(self) -> dict[str, float]:
        """Make one optimiser step. Returns the parts of the loss."""
        config = self.config
        self.step_number += 1
        x = to_float(crops(self.pictures, self.rng, config.batch, config.crop))
        x = x.to(self.device, memory_format=torch.channels_last)
        for group in (*self.optimiser.param_groups, *self.judge_optimiser.param_groups):
            group["lr"] = config.rate * self.schedule()
        depth = self.depths()
        with torch.autocast(self.device.type, torch.bfloat16):
            e = self.model.analysis(x)
        codes = self.quantised(e, depth)
        with torch.autocast(self.device.type, torch.bfloat16):
            made = self.model.synthesis(e + (codes - e).detach(), depth.to(self.device))
        # Two losses meet at the picture: there their gradients are weighed against each other.
        seen = made.detach().float().requires_grad_()
        losses, gradient = self.gradient(x, seen)
        commitment = (e - codes.detach()).square().sum(1).mean() / PIXELS_PER_UNIT
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward([made, config.commit * commitment], [gradient.to(made.dtype), torch.ones_like(commitment)])
        norm = torch.nn.utils.clip_grad_norm_(self.trained, config.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        else:
            self.skipped += 1
        if self.late():
            losses["judge"] = self.judge_step(x, seen.detach())
        if self.step_number % REVIVE_EVERY == 0 and not config.paper:
            self.revive()
        self.update_ema()
        return {**losses, "commit": float(commitment.detach())}

    def depths(self) -> Tensor:
        """Return a depth for each sample, int64 [batch], spread over all depths and jittered."""
        n, low = self.config.batch, LEAST_DEPTH
        high = self.model.config.first_depth if self.config.paper else self.model.config.depth
        share = (np.arange(n) + self.rng.random(n)) / n
        return torch.from_numpy((low + share * (high + 1 - low)).astype(np.int64))

    def quantised(self, e: Tensor, depth: Tensor) -> Tensor:
        """Return the nearest code of each vector, [N, D, h, w] at the depths [N], and let the codes learn."""
        found = []
        for vectors, bits in zip(e.detach().split(1), depth.tolist(), strict=True):
            indices = self.model.indices(vectors, bits)
            found.append(self.model.embedded(indices, bits))
            self.counted(vectors, indices, bits)
            if not self.config.paper:
                self.counted(vectors, self.model.indices(vectors, self.model.config.depth), self.model.config.depth)
        return torch.cat(found)

    @torch.no_grad()
    def counted(self, e: Tensor, indices: Tensor, depth: int) -> None:
        """Show vectors to the nodes of their indices and, in a tree, to all nodes above."""
        vectors, c = e.permute(0, 2, 3, 1).reshape(-1, e.shape[1]), self.model.config
        bits = max(0, depth - c.first_depth)
        node = (indices.flatten() >> bits) + (1 << depth - bits)
        self.met(vectors, node, depth - bits, 0)
        if bits:
            own = (indices.flatten() & ((1 << bits) - 1)) + (1 << bits)
            self.met(vectors - self.model.codes[node], own, bits, c.rest)

    def met(self, vectors: Tensor, node: Tensor, depth: int, tree: int) -> None:
        """Add vectors to the sums of nodes of a depth and of those above, in the tree whose nodes begin at `tree`."""
        for _ in range(1 if self.config.paper else depth + 1):
            self.mass.index_add_(0, tree + node, torch.ones_like(node, dtype=torch.float32))
            self.sums.index_add_(0, tree + node, vectors)
            node = node >> 1

    def gradient(self, x: Tensor, seen: Tensor) -> tuple[dict[str, float], Tensor]:
        """Return the parts of the loss and its gradient with respect to the picture, the discriminator's share of it added."""
        with torch.autocast(self.device.type, torch.bfloat16):
            distance = self.lpips(x, seen).mean()
            error = (seen - x).abs().mean()
            (gradient,) = torch.autograd.grad(error + self.config.perceptual * distance, seen)
            if self.late():
                (own,) = torch.autograd.grad(-self.judge(seen).mean(), seen)
                share = self.config.adversary * gradient.norm() / own.norm().clamp_min(1e-8)
                gradient = gradient + share * own
        return {"l1": float(error.detach()), "lpips": float(distance.detach())}, gradient

    def late(self) -> bool:
        """Tell whether the discriminator takes part yet."""
        return self.config.adversary > 0 and self.progress() >= self.config.late

    def judge_step(self, x: Tensor, made: Tensor) -> float:
        """Teach the discriminator: hinge loss, and LeCAM against its moving means. Returns its loss."""
        with torch.autocast(self.device.type, torch.bfloat16):
            true, false = self.judge(x).float(), self.judge(made).float()
        hinge = F.relu(1 - true).mean() + F.relu(1 + false).mean()
        self.means = self.means.lerp(torch.stack([true.mean(), false.mean()]).detach().cpu(), 0.01)
        lecam = (true - self.means[1]).square().mean() + (false - self.means[0]).square().mean()
        self.judge_optimiser.zero_grad(set_to_none=True)
        (hinge + LECAM * lecam).backward()
        torch.nn.utils.clip_grad_norm_(self.judge.parameters(), self.config.clip)
        self.judge_optimiser.step()
        return float(hinge.detach())

    @torch.no_grad()
    def revive(self) -> None:
        """Put each code that is out of use beside its sibling, with half of the sibling's vectors."""
        c = self.model.config
        levels = [(level, 0) for level in range(1, c.first_depth + 1)]
        levels += [(level, c.rest) for level in range(1, c.second_depth + 1)]
        for level, begin in levels:  # a tree begins at an even node, so siblings differ in the last bit
            nodes = torch.arange(1 << level, 2 << level, device=self.device) + begin
            dead = nodes[self.mass[nodes] < DEAD * self.mass[nodes].mean()]
            sibling = dead ^ 1
            self.mass[sibling] /= 2
            self.sums[sibling] /= 2
            self.mass[dead] = self.mass[sibling]
            self.sums[dead] = self.sums[sibling] * (1 + 0.01 * torch.randn_like(self.sums[dead]))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the codes to the moving means of their vectors, and the average of the weights towards them."""
        used = self.mass > 1e-3
        self.model.codes[used] = self.sums[used] / self.mass[used][:, None]
        self.mass *= self.config.codes
        self.sums *= self.config.codes
        if self.step_number % EMA_EVERY == 0:
            decay = min(self.config.ema, (1 + self.step_number) / (10 + self.step_number)) ** EMA_EVERY
            current = self.model.state_dict()
            torch._foreach_lerp_(list(self.ema.values()), [current[k] for k in self.ema], 1 - decay)

    def progress(self) -> float:
        """Return how much of the whole training is done, 0 to 1."""
        if self.config.steps < 1 << 40:
            return (self.step_number - 1) / self.config.steps
        return min(1.0, self.elapsed_s / (self.config.total * 60))

    def schedule(self) -> float:
        """Return the share of the learning rate: a warm-up, then linear to nothing at --total."""
        return min(1.0, self.step_number / self.config.warmup) * max(1 - self.progress(), 1e-3)

    def ema_model(self) -> Vqgan:
        """Return a model with the average of the weights."""
        model = Vqgan(self.model.config)
        model.load_state_dict(self.ema)
        return model.eval()

    def save(self) -> None:
        """Write the checkpoint by a temporary name: a killed run never leaves half a file."""
        out = Path(self.config.out)
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "judge": self.judge.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict(),
            "mass": self.mass,
            "sums": self.sums,
            "means": self.means,
            "elapsed_s": self.elapsed_s,
            "step": self.step_number,
            "skipped": self.skipped,
            "config": asdict(self.config),
            "model_config": asdict(self.model.config),
        }
        torch.save(state, out.with_suffix(".part"))
        os.replace(out.with_suffix(".part"), out)


def patch_discriminator(n: int = 48) -> nn.Sequential:
    """Build a discriminator of patches of 46 pixels (Isola et al. 2017), without statistics over a batch."""
    return nn.Sequential(
        nn.Conv2d(3, n, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(n, 2 * n, 4, 2, 1),
        nn.GroupNorm(8, 2 * n),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * n, 3 * n, 4, 2, 1),
        nn.GroupNorm(8, 3 * n),
        nn.LeakyReLU(0.2),
        nn.Conv2d(3 * n, 1, 3, 1, 1),
    )


@torch.no_grad()
def validate(model: Vqgan, pictures: list[np.ndarray], folder: Path, side: int = 512) -> str:
    """Return a line for each of some depths: LPIPS with each backbone, PSNR, and bits per index without any context.

    Means over crops of at most side x side.
    """
    measures = {name: Lpips(folder, name) for name in BACKBONES}
    lines = []
    for depth in range(LEAST_DEPTH, model.config.depth + 1, 2):
        rows, seen = [], []
        for x, indices, made in shown(model, pictures, depth, side):
            seen.append(indices.flatten())
            rows.append([float(m(x, made)) for m in measures.values()] + [-10 * math.log10(float((made - x).square().mean()))])
        counts = torch.cat(seen).unique(return_counts=True)[1].double()
        share = counts / counts.sum()
        bits = -float((share * share.log2()).sum())
        means = [f"{name} {value:.4f}" for name, value in zip((*measures, "psnr"), np.mean(rows, 0), strict=True)]
        lines.append(f"valid depth {depth} ({depth / LATENT**2:.4f} bpp): {', '.join(means)}, order 0 {bits:.2f} bits")
    return "\n".join(lines)


def shown(model: Vqgan, pictures: list[np.ndarray], depth: int, side: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield crops of pictures, their indices, and what these give, rounded to 8 bits."""
    for picture in pictures:
        h, w = (min(side, length // LATENT * LATENT) for length in picture.shape[:2])
        x = to_float(picture[None, :h, :w])
        indices = model.indices(model.analysis(x), depth)
        made = model.synthesis(model.embedded(indices, depth), torch.tensor([depth]))
        yield x, indices, (made.clamp(0, 1) * 255).round() / 255


def load_checkpoint(path: Path) -> Vqgan:
    """Return the model of a checkpoint, with the average of its weights."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = Vqgan(config_of(saved["model_config"]))
    model.load_state_dict(saved["ema"])
    return model.eval()


def parse(argv: list[str] | None) -> Config:
    """Return the configuration that a command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.train_vqgan", description=__doc__)
    parser.add_argument("--data", required=True, help="a tar or a folder of pictures")
    parser.add_argument("--out", required=True, help="the checkpoint; resumed if it exists")
    parser.add_argument("--lpips", required=True, help="a folder with the backbones of LPIPS (tools/lpips.py)")
    parser.add_argument("--valid", help="a folder of pictures for the validation lines")
    parser.add_argument("--init", help="a checkpoint to start from (default: the photo model)")
    parser.add_argument("--backbone", default="squeeze", choices=tuple(BACKBONES), help="what LPIPS is trained with")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for name in ("minutes", "total", "rate", "ema", "clip", "perceptual", "commit", "codes", "adversary", "late"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Config, name))
    for name in ("batch", "crop", "warmup", "steps", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Config, name))
    parser.add_argument("--paper", action="store_true", help="codebooks that are not nested, networks frozen")
    return Config(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
