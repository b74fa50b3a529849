"""Train the photo model: `python -m laconic.tools.train_image --data DIR --out CHECKPOINT`.

Runs in pieces of a given wall-clock length that resume each other and anneal once over the whole, on a CPU or a GPU,
in one process or under torchrun on one machine or several (docs/training.md). Every sample of a step is drawn from the
seed, the step and its number in the batch of all processes: n processes make the steps of one with n times the batch,
and what is made again after a crash is what was lost.

Recipe: one lambda per sample, stratified over the batch, weighted by lambda**-0.6; a linear start from principal
components, or from weights, which may have fewer blocks; AdamW, clipping, an exponential moving average of the weights.
`--eye` adds what the eye sees to the squared error (models/visual_distance.py).
"""

from __future__ import annotations

import argparse
import io
import math
import os
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from laconic.models.photo import Photo, PhotoConfig, start_as_pca, wake_hyper
from laconic.models.visual_distance import EyeDistance

EMA_EVERY = 4  # steps between updates of the average
PACE = dict.fromkeys(("scale_offset", "z_index"), 10.0)  # learning rates relative to --rate; 1 for all others
PACE |= dict.fromkeys(("h_scale", "c_scale"), 0.2) | dict.fromkeys(("stem", "down", "to_y", "from_y", "up", "head"), 0.5)
LAMBDA_WEIGHT = -0.6  # exponent; the loss of a sample is weighted by (lambda / 0.01) ** LAMBDA_WEIGHT
EYE_GROWTH, EYE_LAMBDA = 0.5, 0.015  # exponent of lambda by which the eye's weight grows, and where it is as given
OWN = ("data", "out", "valid", "init", "list", "threads", "compile", "save_every")  # settings that processes may differ in
CELL, COLOUR = 32, 10.0  # with --eye: pixels per side of what has one mean colour; how much more its error counts


@dataclass(frozen=True)
class Config:
    """Describes one training run; stored in the checkpoint."""

    data: str
    out: str
    valid: str | None = None
    init: str | None = None
    list: str | None = None
    minutes: float = 9.0
    total: float = 9.0
    batch: int = 8
    crop: int = 128
    rate: float = 1e-3
    ema: float = 0.999
    warmup: int = 100
    clip: float = 1.0
    eye: float = 0.0
    squares: float = 1.0
    steps: int = 1 << 40
    device: str = "cpu"
    threads: int = 1
    seed: int = 1
    save_every: float = 120.0
    compile: bool = False


def main(argv: list[str] | None = None) -> None:
    """Train for --minutes, write the checkpoint, print the loss and a validation line."""
    config = parse(argv)
    torch.set_num_threads(config.threads)
    if "RANK" in os.environ:
        if config.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if config.device == "cuda" else "gloo")
    state = Training(config)
    state.run()
    if rank() == 0:
        state.save()
        if config.valid:
            print(validate(state.ema_model(), read_pictures(Path(config.valid)), config.device))
    if dist.is_initialized():
        dist.destroy_process_group()


class Training:
    """Holds model, optimiser, average and progress, as stored in the checkpoint."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.pictures = [p for p in read_pictures(Path(config.data), config.list) if min(p.shape[:2]) >= config.crop]
        if not self.pictures:
            raise SystemExit(f"{config.data}: found no picture of at least {config.crop} x {config.crop} pixels")
        check_alike(config, self.pictures, self.device)
        torch.manual_seed(config.seed)
        self.model = Photo(PhotoConfig())
        self.elapsed_s, self.step_number, self.skipped = 0.0, 0, 0
        saved = furthest_checkpoint(Path(config.out), self.device)
        if saved:
            self.model.load_state_dict(saved["model"])
            self.elapsed_s, self.step_number, self.skipped = saved["elapsed_s"], saved["step"], saved["skipped"]
        elif rank() == 0:
            self.begin()
        self.model.to(self.device)
        share_weights(self.model)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimiser = optimiser(self.model, config.rate)
        if saved:
            self.ema = {k: v.to(self.device) for k, v in saved["ema"].items()}
            self.optimiser.load_state_dict(saved["optimiser"])
        self.forward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = self.model
        if config.compile:
            self.forward = torch.compile(self.model, dynamic=False)

    def begin(self) -> None:
        """Give the network its first weights: those of --init, or a linear code that is computed from the pictures."""
        if self.config.init:
            load_grown(self.model, load_weights(Path(self.config.init)))
        else:
            rng = np.random.default_rng(self.config.seed)
            start_as_pca(self.model, to_float(crops(self.pictures, rng, 4096, 16)))
            wake_hyper(self.model, to_float(crops(self.pictures, rng, 16, 128)))

    def run(self) -> None:
        """Make steps until --minutes of this piece, or --total of all pieces, are spent. The first process saves and tells."""
        start, saved_at = time.monotonic(), time.monotonic()
        losses: list[float] = []
        before = self.elapsed_s
        end = min(self.config.minutes, self.config.total - before / 60) * 60
        with tqdm(total=round(end), unit="s", disable=None if rank() == 0 else True) as bar:
            while not self.finished(time.monotonic() - start, before, end):
                losses.append(self.step())
                if self.step_number % 20 == 0:
                    bar.n = round(time.monotonic() - start)
                    bar.set_postfix(step=self.step_number, loss=f"{losses[-1]:.3f}", skipped=self.skipped)
                if rank() == 0 and time.monotonic() - saved_at >= self.config.save_every:
                    self.save()
                    bar.write(self.progress(losses))
                    losses.clear()
                    saved_at = time.monotonic()
        if rank() == 0 and losses:
            print(self.progress(losses))

    def progress(self, losses: list[float]) -> str:
        """Return a line that tells how far the training is. losses: of the steps since the last such line."""
        mean = f"loss {np.mean(losses):.5f}, mean of {len(losses)}"
        return f"step {self.step_number}, {self.elapsed_s / 60:.1f} minutes: {mean}; {self.skipped} skipped"

    def finished(self, piece_s: float, before_s: float, end_s: float) -> bool:
        """Tell whether to stop. All go by the clock of the first process, or their learning rates would differ."""
        clock = torch.tensor(piece_s, dtype=torch.float64, device=self.device)
        if dist.is_initialized():
            dist.broadcast(clock, 0)
        self.elapsed_s = before_s + float(clock)
        return float(clock) >= end_s or self.step_number >= self.config.steps

    def step(self) -> float:
        """Make one optimiser step over the batch of all processes. Returns its loss."""
        self.step_number += 1
        x, quality, noise = self.batch()
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate * self.schedule() * group["pace"]
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(x, quality, noise)
        loss.backward()
        mean = self.average_gradients(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        else:
            self.skipped += 1
        self.update_ema()
        return float(mean)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what this process has of the step's batch: pictures, qualities and noise, as `Photo.forward` takes them."""
        n, side = self.config.batch * world(), self.config.crop
        numbers = range(rank(), n, world())
        draws = [np.random.default_rng((self.config.seed, self.step_number, number)) for number in numbers]
        pictures = np.stack([crop(self.pictures, rng, side) for rng in draws])
        quality = [(number + rng.random()) * (100 / n) for number, rng in zip(numbers, draws, strict=True)]
        noise = np.stack([rng.random(self.model.n_symbols(side, side), np.float32) for rng in draws])
        x = to_float(pictures).to(self.device, memory_format=torch.channels_last)
        return x, torch.tensor(quality, device=self.device), torch.from_numpy(noise).to(self.device)

    def loss(self, x: Tensor, quality: Tensor, noise: Tensor) -> Tensor:
        """Return bits per pixel + lambda * distortion, weighted by sample, mean over the batch.

        The distortion is 255**2 MSE; with --eye a share of it, and a distance to the eye whose weight grows less than lambda.
        """
        with torch.autocast(self.device.type, torch.bfloat16):
            x_hat, bits_y, bits_z = self.forward(x, quality, noise)
        lambda_ = self.model.lambda_of(quality)
        error = x_hat.float() - x
        mse = error.square().mean((1, 2, 3)) * 255**2
        cost = (bits_y + bits_z) / (x.shape[2] * x.shape[3])
        if self.config.eye:
            mse = mse + COLOUR * F.avg_pool2d(error, CELL).square().mean((1, 2, 3)) * 255**2
            pairs = zip(x.split(1), x_hat.float().clamp(0, 1).split(1), strict=True)
            seen = torch.stack([EyeDistance(original.contiguous())(decoded.contiguous()) for original, decoded in pairs])
            cost = cost + self.config.eye * (lambda_ / EYE_LAMBDA) ** EYE_GROWTH * seen
        loss: Tensor = ((lambda_ / 0.01) ** LAMBDA_WEIGHT * (cost + self.config.squares * lambda_ * mse)).mean()
        return loss

    def schedule(self) -> float:
        """Return the share of the learning rate: a warm-up, then linear to nothing at --total."""
        left = 1 - min(1.0, self.elapsed_s / (self.config.total * 60))
        if self.config.steps < 1 << 40:
            left = 1 - (self.step_number - 1) / self.config.steps
        return min(1.0, self.step_number / self.config.warmup) * max(left, 1e-3)

    def average_gradients(self, loss: Tensor) -> Tensor:
        """Replace gradients by their mean over the processes, in one message. Returns the mean of their losses."""
        if not dist.is_initialized():
            return loss
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([loss.view(1), *(g.flatten() for g in gradients)])
        dist.all_reduce(flat)
        means: list[Tensor] = list(flat.div_(world()).split([1, *(g.numel() for g in gradients)]))
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(means[1:], gradients, strict=True)])
        return means[0]

    def update_ema(self) -> None:
        """Move the average of the weights towards them."""
        if self.step_number % EMA_EVERY == 0:
            decay = min(self.config.ema, (1 + self.step_number) / (10 + self.step_number)) ** EMA_EVERY
            current = self.model.state_dict()
            torch._foreach_lerp_(list(self.ema.values()), [current[k] for k in self.ema], 1 - decay)

    def ema_model(self) -> Photo:
        """Return a model with the average of the weights."""
        model = Photo(self.model.config).to(self.device)
        model.load_state_dict(self.ema)
        return model.eval()

    def save(self) -> None:
        """Write the checkpoint by a temporary name: a killed run never leaves half a file."""
        out = Path(self.config.out)
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "elapsed_s": self.elapsed_s,
            "step": self.step_number,
            "skipped": self.skipped,
            "config": asdict(self.config),
            "model_config": asdict(self.model.config),
        }
        torch.save(state, out.with_suffix(".part"))
        os.replace(out.with_suffix(".part"), out)


def optimiser(model: Photo, rate: float) -> torch.optim.AdamW:
    """Return AdamW; gains, offsets and biases do not decay.

    Table rows live in units of 0.1 nat; the weights of the integer branches multiply activations of up to 127; and the
    layers that start as principal components are near their goal.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, p in model.named_parameters():
        pace = PACE.get(name.split(".")[0], 1.0)
        groups.setdefault((pace, 1e-4 if p.dim() == 4 else 0.0), []).append(p)
    return torch.optim.AdamW(
        [{"params": g, "weight_decay": w, "pace": p} for (p, w), g in groups.items()], lr=rate, fused=True
    )


@torch.no_grad()
def validate(model: Photo, pictures: list[np.ndarray], device: str = "cpu") -> str:
    """Return a line of codelengths and PSNR at five qualities, means over crops of at most 512 x 512."""
    line = []
    for q in (0, 25, 50, 75, 100):
        bpp, psnr = [], []
        for picture in pictures:
            h, w = (min(512, side // 64 * 64) for side in picture.shape[:2])
            x = to_float(picture[None, :h, :w]).to(device)
            quality = torch.tensor([float(q)], device=device)
            x_hat, bits_y, bits_z = model(x, quality)
            x_hat = (x_hat.clamp(0, 1) * 255).round() / 255
            bpp.append(float(bits_y + bits_z) / (h * w))
            psnr.append(-10 * math.log10(float((x_hat - x).square().mean())))
        line.append(f"q{q} {np.mean(bpp):.3f}/{np.mean(psnr):.2f}")
    return "valid bpp/PSNR: " + ", ".join(line)


def read_pictures(source: Path, names: str | None = None) -> list[np.ndarray]:
    """Return all pictures of a tar or a folder as uint8 [H, W, 3]. names: a file with one name per line to keep."""
    keep = set(Path(names).read_text().split()) if names else None
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.suffix in {".avif", ".webp", ".png", ".jpg", ".jpeg"})
        return [read_rgb(p.read_bytes()) for p in files if keep is None or p.name in keep]
    with tarfile.open(source) as tar:
        members = [m for m in tar.getmembers() if m.isfile() and (keep is None or Path(m.name).name in keep)]
        return [read_rgb(tar.extractfile(m).read()) for m in members]  # type: ignore[union-attr]


def read_rgb(data: bytes) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def crops(pictures: list[np.ndarray], rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Return random crops, half of them mirrored: uint8 [n, side, side, 3]."""
    return np.stack([crop(pictures, rng, side) for _ in range(n)])


def crop(pictures: list[np.ndarray], rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a random crop of a random picture, every second time mirrored: uint8 [side, side, 3]."""
    picture = pictures[rng.integers(len(pictures))]
    top, left = (int(rng.integers(0, s - side + 1)) for s in picture.shape[:2])
    found = picture[top : top + side, left : left + side]
    return found[:, ::-1] if rng.random() < 0.5 else found


def to_float(batch: np.ndarray) -> Tensor:
    """Turn uint8 [N, H, W, 3] into float32 [N, 3, H, W] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).float() / 255


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return a state dict from a .safetensors file or from the average of a checkpoint."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(path)  # with table rows, perhaps, which tools/row_tables.py makes of the weights
        return {k: v.float() for k, v in weights.items() if v.is_floating_point()}
    average: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["ema"]
    return average


def load_grown(model: Photo, weights: dict[str, Tensor]) -> None:
    """Load weights of a model with as many blocks or fewer: those it lacks start as the identity (see `Block`)."""
    lacking, unknown = model.load_state_dict(weights, strict=False)
    foreign = [name for name in lacking if name.split(".")[0] not in ("g_a_8", "g_a_16", "g_s_8", "g_s_16")]
    if unknown or foreign:
        raise SystemExit(f"--init: found no {foreign} and unknown {unknown}, expected weights of this architecture")


def furthest_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the checkpoint with the most steps of those that the processes find at their `path`; None where none is.

    The first process writes it, on its own disk; after a restart another one may be the first.
    """
    saved: dict[str, Any] | None = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
    if dist.is_initialized():
        steps = gathered(saved["step"] if saved else -1, device)
        source = steps.index(max(steps))
        if steps[source] >= 0:
            content = path.read_bytes() if rank() == source else b""
            n_bytes = gathered(len(content), device)[source]
            message = torch.frombuffer(bytearray(content.ljust(n_bytes)), dtype=torch.uint8).to(device)
            dist.broadcast(message, source)
            saved = torch.load(io.BytesIO(message.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
    if saved and rank() == 0:
        print(f"{path}: goes on from step {saved['step']}")
    return saved


def check_alike(config: Config, pictures: Sequence[np.ndarray], device: torch.device) -> None:
    """Exit unless all processes have the same settings and as many pictures of the same sizes."""
    if dist.is_initialized():
        settings = {name: value for name, value in asdict(config).items() if name not in OWN}
        digests = gathered(zlib.crc32(repr((settings, [p.shape for p in pictures])).encode()), device)
        if len(set(digests)) > 1:
            raise SystemExit("torchrun: found processes with other options or pictures, expected the same in all")


def share_weights(model: Photo) -> None:
    """Give all processes the weights of the first: what another processor computes from the same pictures may differ."""
    if dist.is_initialized():
        for weight in model.state_dict().values():
            dist.broadcast(weight, 0)


def gathered(number: int, device: torch.device) -> list[int]:
    """Return the number that each process gives."""
    own = torch.tensor([number], device=device)
    everywhere = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(everywhere, own)
    return [int(one) for one in everywhere]


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def parse(argv: list[str] | None) -> Config:
    """Return the configuration that a command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.train_image", description=__doc__)
    parser.add_argument("--data", required=True, help="a tar or a folder of pictures")
    parser.add_argument("--out", required=True, help="the checkpoint; resumed if it exists")
    parser.add_argument("--valid", help="a folder of pictures for the validation line")
    parser.add_argument("--init", help="weights or a checkpoint to start from")
    parser.add_argument("--list", help="a file with the names to train on, one per line")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for name in ("minutes", "total", "rate", "ema", "clip", "eye", "squares"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Config, name))
    for name in ("batch", "crop", "warmup", "steps", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Config, name))
    every = "seconds from one checkpoint and line about the loss to the next"
    parser.add_argument("--save-every", type=float, default=Config.save_every, help=every)
    parser.add_argument("--compile", action="store_true", help="fuse with torch.compile: needs a C++ compiler")
    return Config(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
