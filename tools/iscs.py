"""`laconic iscs MODEL`: the channels of a model's latent in order of importance, and in groups (models/iscs.py).

The table has a line per channel, the most important first. With --plot there is a figure: the importance along the order,
core and auxiliary told apart, and the correlation of channels in that order.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import laconic
from laconic.entropy.errors import expect
from laconic.tools.plot import COLOURS

if TYPE_CHECKING:
    from laconic.models.iscs import Iscs

FIGURES = (".png", ".svg", ".pdf")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic iscs`."""
    add = parser.add_argument
    text = "a photo model of `laconic models`, compressai:ARCHITECTURE:QUALITY, or a checkpoint of CompressAI's training"
    add("model", metavar="MODEL", help=text)
    add("-q", "--quality", type=float, default=50.0, metavar="Q", help="of a photo model's gains, 0 to 100 (default: 50)")
    add("--plot", type=Path, metavar="FILE", help="draw importance, sets and correlation, as PNG, SVG or PDF")


def run(args: argparse.Namespace) -> int:
    """Print the table, and draw the figure that is asked for. Returns 0."""
    from laconic.models.iscs import analyse  # torch comes with it
    from laconic.tools import iscs_models

    expect(0 <= args.quality <= 100, laconic.BadInput, "--quality", args.quality, "0 to 100")
    known = args.plot is None or args.plot.suffix.lower() in FIGURES
    expect(known, laconic.BadInput, "--plot", str(args.plot), f"a name that ends in {FIGURES}")
    found = analyse(iscs_models.load(args.model, args.quality))
    if args.plot:
        draw(found, args.model).savefig(args.plot, dpi=150)
    print("\n".join(table(found)))  # last: whoever reads it may stop, as `head` does
    return 0


def table(found: Iscs) -> list[str]:
    """Return a head and a line per channel, the most important first."""
    from laconic.models.iscs import partners

    alike, core = partners(found), set(found.core.tolist())
    lines = [f"{'rank':>5} {'channel':>8} {'importance':>12} {'set':>9} {'slice':>6} {'core channel':>13}"]
    for rank, channel in enumerate(found.order.tolist()):
        group = "core" if channel in core else "auxiliary"
        worth, part, near = found.importance[channel], int(found.slices[channel]), int(alike[channel])
        lines.append(f"{rank:>5} {channel:>8} {worth:>12.5g} {group:>9} {part:>6} {near:>13}")
    return lines


def draw(found: Iscs, name: str) -> Any:
    """Return a figure: importance along the order on the left, correlation in that order on the right."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "laconic"  # the same model gives the same file
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    curve, square = figure.subplots(1, 2, width_ratios=(1.25, 1))
    draw_importance(curve, found)
    draw_correlation(figure, square, found)
    figure.suptitle(f"ISCS of {Path(name).name}", fontsize=11)
    return figure


def draw_importance(axes: Any, found: Iscs) -> None:
    """Draw the importance over the rank, as a share of all, the core apart; both axes are logarithmic."""
    share = (found.importance[found.order] / found.importance.sum()).clamp_min(1e-12).numpy()
    ranks, n = np.arange(1, len(share) + 1), found.n_core
    for part, colour, label in ((slice(0, n), COLOURS[0], "core"), (slice(n, None), COLOURS[1], "auxiliary")):
        text = f"{label}: {len(share[part])} channels, {100 * share[part].sum():.1f} %"
        axes.plot(ranks[part], share[part], "o", color=colour, markersize=4, label=text)
    axes.axvspan(0.8, n + 0.5, color=COLOURS[0], alpha=0.08, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8, len(share) * 1.15)
    axes.set_xlabel("rank in ISCS order")
    axes.set_ylabel("share of the importance")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def draw_correlation(figure: Any, axes: Any, found: Iscs) -> None:
    """Draw the correlation of channels' magnitudes in ISCS order; lines mark where the core ends."""
    ordered = found.correlation[found.order][:, found.order].numpy()
    n = len(ordered)
    image = axes.imshow(ordered, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0.5, n + 0.5, n + 0.5, 0.5), interpolation="nearest")
    axes.axhline(found.n_core + 0.5, color="black", linewidth=0.6)
    axes.axvline(found.n_core + 0.5, color="black", linewidth=0.6)
    axes.set_xlabel("rank in ISCS order")
    axes.set_ylabel("rank in ISCS order")
    figure.colorbar(image, ax=axes, shrink=0.85, label="correlation of magnitudes under the prior")
