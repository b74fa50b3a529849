"""Trains small CompressAI models for minutes: `python -m laconic.tools.iscs_train mbt2018-mean --data DIR --out FILE`.

They are what tools/iscs_judge.py judges the order on, no codecs to use: minutes of a CPU are far from convergence. Needs
the extra `zoo`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.tools.train_image import crops, read_pictures, to_float

N, M = 64, 96  # channels inside and of y: a third of the published sizes, which minutes of a CPU can train
BATCH, CROP = 4, 128  # pixels; a multiple of what h_a divides by
RATE, LAMBDA = 1e-3, 0.013  # of Adam at first; weight of 255**2 MSE against bits per pixel, CompressAI's quality 4


def main(argv: list[str] | None = None) -> None:
    """Train one architecture from random weights, and write its state dict as CompressAI's own examples do."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = architectures()[args.architecture](N, M).train()
    pictures = read_pictures(args.data)
    optimiser = torch.optim.Adam([p for name, p in model.named_parameters() if "quantiles" not in name], RATE)
    rng, start, step = np.random.default_rng(args.seed), time.process_time(), 0
    while (done := (time.process_time() - start) / (60 * args.minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
        x = to_float(crops(pictures, rng, BATCH, CROP))
        bpp, mse = loss_parts(model(x), x)
        optimiser.zero_grad()
        (bpp + LAMBDA * 255**2 * mse).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"{step} steps, {60 * args.minutes * done:.0f} s: {bpp:.3f} bpp, {-10 * mse.log10():.2f} dB", flush=True)
    model.eval().update(force=True, update_quantiles=True)
    torch.save({"state_dict": model.state_dict(), "architecture": args.architecture, "steps": step}, args.out)


def architectures() -> dict[str, Any]:
    """Return the classes that are trained, by CompressAI's names."""
    from compressai.models import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior

    names = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean")
    return dict(zip(names, (FactorizedPrior, ScaleHyperprior, MeanScaleHyperprior), strict=True))


def loss_parts(out: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return bits per pixel and the MSE of pixels in 0..1 of what a CompressAI model returned for x [N, 3, H, W]."""
    n_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    bits = -sum(likelihoods.log2().sum() for likelihoods in out["likelihoods"].values())
    return bits / n_pixels, torch.nn.functional.mse_loss(out["x_hat"], x)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of a command line."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.iscs_train", description=__doc__)
    parser.add_argument("architecture", choices=("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean"))
    parser.add_argument("--data", type=Path, required=True, help="a tar or a folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument("--minutes", type=float, default=4.0, help="of CPU time (default: 4)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
