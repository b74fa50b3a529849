"""Judges ISCS against what channels are really worth: `python -m laconic.tools.iscs_judge MODEL... --data DIR --out DIR`.

The oracle needs pictures: how much the squared error grows when a channel of y_hat is set to 0, and the channel's bits.
judge.md has Spearman's rho of each order with it, and PSNR with the first channels of each order at 10, 25, 50 and 75 % of
the bits, zeros for the others; judge.png draws the latter. A photo model's channels are permuted at random first (each
within its pass, so that the codec stays the same), since training from principal components leaves them in order.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from laconic.models.iscs import Iscs, Latents, PhotoLatents, analyse, literal, permuted
from laconic.models.photo import N_PASSES
from laconic.tools import iscs_models
from laconic.tools.metrics import needed
from laconic.tools.plot import COLOURS
from laconic.tools.train_image import read_pictures, to_float

FRACTIONS = (0.1, 0.25, 0.5, 0.75)  # of the bits
N_RANDOM = 3  # random orders, whose figures are averaged
ISCS, ORACLE, NATURAL = "ISCS", "oracle", "natural"


class Judged(Latents, Protocol):
    """Is a codec that can also look at pictures."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_hat and the bits of its samples, both [N, M, h, w], of pictures [N, 3, H, W] in 0..1."""


@dataclass(frozen=True)
class Truth:
    """Holds what pictures say: the codec's output, and of each channel what it is worth and what it costs."""

    x: Tensor
    y_hat: Tensor
    mse: float
    worth: Tensor  # [M]: how much the MSE of pixels in 0..1 grows without the channel
    bits: Tensor  # [M]


@dataclass(frozen=True)
class Verdict:
    """Holds all figures of one model, for the table and for judge.json."""

    model: str
    bpp: float
    psnr: float
    rho: dict[str, float]  # Spearman's, of an importance with what channels are worth
    rho_bits: float  # of ISCS with the bits
    rho_pairs: float  # of the predicted correlations with those of |y_hat| measured, over all pairs of channels
    n_core: int
    core_worth: float  # the core's share of what all channels are worth
    core_bits: float
    slice_balance: float  # the bits of the largest slice over their mean
    curves: dict[str, list[float]]  # PSNR at FRACTIONS


def main(argv: list[str] | None = None) -> None:
    """Judge each model, and write judge.md, judge.json and judge.png."""
    args = parse(argv)
    x = centres(args.data, args.pictures, args.side)
    args.out.mkdir(parents=True, exist_ok=True)
    verdicts = []
    for name in args.models:
        latents, natural = codec(name, args.quality, args.seed)
        verdicts.append(judge(Path(name).stem, latents, natural, x, args.seed))
        print(markdown(verdicts[-1:]), flush=True)
    (args.out / "judge.json").write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    (args.out / "judge.md").write_text(markdown(verdicts))
    draw(verdicts).savefig(args.out / "judge.png", dpi=150)


def codec(name: str, quality: float, seed: int) -> tuple[Any, Tensor]:
    """Return a model to judge, and the order in which its training left the channels."""
    latents = iscs_models.load(name, quality)
    order = torch.arange(latents.n_channels)
    if not isinstance(latents, PhotoLatents):
        return latents, order
    order = within_passes(latents.n_channels, seed)
    return PhotoLatents(permuted(latents.model, order), quality), order.argsort()


def within_passes(n_channels: int, seed: int) -> Tensor:
    """Return a random order of channels in which each keeps the pass that codes it."""
    order, generator = torch.arange(n_channels), torch.Generator().manual_seed(seed)
    for n in range(N_PASSES):
        members = order[n::N_PASSES].clone()
        order[n::N_PASSES] = members[torch.randperm(len(members), generator=generator)]
    return order


def centres(folder: Path, n: int, side: int) -> Tensor:
    """Return the middles of the first n pictures of a folder, float [N, 3, side, side]."""
    cut = []
    for picture in read_pictures(folder)[:n]:
        top, left = ((size - side) // 2 for size in picture.shape[:2])
        cut.append(picture[top : top + side, left : left + side])
    return to_float(np.stack(cut))


@torch.inference_mode()
def truth(latents: Judged, x: Tensor) -> Truth:
    """Return what the channels are worth on pictures [N, 3, H, W], by setting one after the other to 0."""
    y_hat, bits = latents.encode(x)
    mse = error(latents, y_hat, x)
    worth = torch.empty(latents.n_channels, dtype=torch.float64)
    for channel in range(latents.n_channels):
        without = y_hat.clone()
        without[:, channel] = 0
        worth[channel] = error(latents, without, x) - mse
    return Truth(x, y_hat, mse, worth, bits.double().sum((0, 2, 3)))


def error(latents: Judged, y_hat: Tensor, x: Tensor) -> float:
    """Return the MSE of what y_hat decodes to."""
    return float((latents.decode(y_hat) - x).double().square().mean())


def judge(name: str, latents: Judged, natural: Tensor, x: Tensor, seed: int) -> Verdict:
    """Return the figures of one model. natural: the order in which training left its channels."""
    found, true = analyse(latents), truth(latents, x)
    near = latents.neighbours()
    importances = {
        ISCS: found.importance,
        "energy alone": latents.energy(0).mean(0),
        "literal, encoder": literal(near, "encoder"),
        "literal, decoder": literal(near, "decoder"),
        "bits": true.bits,
        NATURAL: -natural.argsort().double(),
    }
    orders = {key: [importances[key].argsort(descending=True)] for key in importances if key != "energy alone"}
    generator = torch.Generator().manual_seed(seed)
    orders |= {"random": [torch.randperm(latents.n_channels, generator=generator) for _ in range(N_RANDOM)]}
    orders |= {ORACLE: [true.worth.argsort(descending=True)], ISCS: [found.order]}
    per_slice = torch.zeros(int(found.slices.max()) + 1, dtype=torch.float64).index_add_(0, found.slices, true.bits)
    return Verdict(
        name,
        float(true.bits.sum()) / (x.shape[0] * x.shape[2] * x.shape[3]),
        psnr(true.mse),
        {key: spearman(value, true.worth) for key, value in importances.items()},
        spearman(found.importance, true.bits),
        pairs(found, true),
        found.n_core,
        float(true.worth[found.core].sum() / true.worth.sum()),
        float(true.bits[found.core].sum() / true.bits.sum()),
        float(per_slice.max() / per_slice.mean()),
        {key: progressive(latents, true, several) for key, several in orders.items()},
    )


def pairs(found: Iscs, true: Truth) -> float:
    """Return Spearman's rho, over pairs of channels, of the predicted correlation with the one measured of |y_hat|."""
    measured = torch.corrcoef(true.y_hat.abs().movedim(1, 0).flatten(1).double()).nan_to_num()
    i, j = torch.triu_indices(len(measured), len(measured), offset=1)
    return spearman(found.correlation[i, j], measured[i, j])


def spearman(one: Tensor, two: Tensor) -> float:
    """Return Spearman's rho of two lists; 0 where one of them is constant, and so says nothing."""
    if len(one.unique()) == 1 or len(two.unique()) == 1:
        return 0.0
    return float(needed("scipy.stats", "laconic-codec[eval]").spearmanr(one, two)[0])


@torch.inference_mode()
def progressive(latents: Judged, true: Truth, orders: list[Tensor]) -> list[float]:
    """Return the PSNR at each fraction of the bits, mean of several orders."""
    return [float(np.mean([psnr(error_at(latents, true, order, part)) for order in orders])) for part in FRACTIONS]


def error_at(latents: Judged, true: Truth, order: Tensor, fraction: float) -> float:
    """Return the MSE with the first channels that fit into a fraction of the bits, zeros for the rest.

    The next channel does not fit whole: the MSE lies between those without and with it, in proportion to its bits there.
    """
    ends = true.bits[order].cumsum(0) / true.bits.sum()
    n = int((ends <= fraction).sum())
    start = float(ends[n - 1]) if n else 0.0
    weight = (fraction - start) / (float(ends[n]) - start)
    without, with_it = (error(latents, first(true.y_hat, order[:k]), true.x) for k in (n, n + 1))
    return (1 - weight) * without + weight * with_it


def first(y_hat: Tensor, channels: Tensor) -> Tensor:
    """Return y_hat with these channels alone, zeros in the others."""
    kept = torch.zeros_like(y_hat)
    kept[:, channels] = y_hat[:, channels]
    return kept


def psnr(mse: float) -> float:
    """Return PSNR in dB of a MSE on 0..1."""
    return -10 * float(np.log10(mse))


def markdown(verdicts: list[Verdict]) -> str:
    """Return the tables of docs/iscs.md."""
    names = [f"{v.model} ({v.bpp:.2f} bpp, {v.psnr:.1f} dB)" for v in verdicts]
    rows = [["rho with the oracle", *names]]
    rows += [[key, *(f"{v.rho[key]:.3f}" for v in verdicts)] for key in verdicts[0].rho]
    rows += [["ISCS with the bits", *(f"{v.rho_bits:.3f}" for v in verdicts)]]
    rows += [["correlation of pairs, predicted with measured", *(f"{v.rho_pairs:.3f}" for v in verdicts)]]
    core = (f"{v.n_core}, {100 * v.core_worth:.0f} %, {100 * v.core_bits:.0f} %" for v in verdicts)
    rows += [["core: channels, share of the oracle's worth, of bits", *core]]
    rows += [["slices: bits of the largest over mean", *(f"{v.slice_balance:.2f}" for v in verdicts)]]
    curves = [["PSNR at " + ", ".join(f"{100 * part:.0f}" for part in FRACTIONS) + " % of the bits", *names]]
    for key in verdicts[0].curves:
        curves.append([key, *("  ".join(f"{value:.2f}" for value in v.curves[key]) for v in verdicts)])
    return "\n\n".join("\n".join(lines(table)) for table in (rows, curves)) + "\n"


def lines(rows: list[list[str]]) -> list[str]:
    """Return a Markdown table; the first row is its head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|---|" + "---:|" * (len(rows[0]) - 1), *body]


def draw(verdicts: list[Verdict]) -> Any:
    """Return a figure with a panel per model: PSNR over the share of bits, a line per order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.1 * len(verdicts), 4.3), layout="constrained")
    panels = figure.subplots(1, len(verdicts), squeeze=False)[0]
    styles = {ORACLE: ("#000000", "--"), ISCS: (COLOURS[0], "-"), "bits": (COLOURS[5], "-"), NATURAL: (COLOURS[1], "-")}
    styles |= {"random": ("#888888", ":"), "literal, encoder": (COLOURS[2], "-"), "literal, decoder": (COLOURS[3], "-")}
    for axes, verdict in zip(panels, verdicts, strict=True):
        for key, (colour, dash) in styles.items():
            values = [*verdict.curves[key], verdict.psnr]
            width = 2.2 if key == ISCS else 1.3
            over = 3 if key in (ISCS, ORACLE) else 2
            axes.plot([*(100 * part for part in FRACTIONS), 100], values, dash, color=colour, linewidth=width,
                marker="o", markersize=3, label=key, zorder=over + (key == ORACLE))  # fmt: skip
        axes.set_title(verdict.model, fontsize=10)
        axes.set_xlabel("% of the bits, first channels of the order")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#DDDDDD", linewidth=0.6)
    panels[0].set_ylabel("PSNR (dB)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3 * len(verdicts)), frameon=False, fontsize=9)
    return figure


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of a command line."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.iscs_judge", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as of `laconic iscs`")
    parser.add_argument("--data", type=Path, required=True, help="a folder of pictures that no model was trained on")
    parser.add_argument("--out", type=Path, required=True, help="the folder for judge.md, judge.json and judge.png")
    parser.add_argument("--quality", type=float, default=50.0, help="of photo models (default: 50)")
    parser.add_argument("--pictures", type=int, default=24, help="how many pictures (default: 24)")
    parser.add_argument("--side", type=int, default=128, help="of the middle that is looked at (default: 128 pixels)")
    parser.add_argument("--seed", type=int, default=0, help="of permutations and random orders (default: 0)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
