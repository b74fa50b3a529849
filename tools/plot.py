"""`laconic plot RESULTS...`: figures (PNG and SVG) and a Markdown table of results of `laconic eval`.

rd-METRIC: quality over rate, one line per codec, labelled at its end; published curves are dashed. speed-METRIC: the BD-rate
over the seconds to encode and decode. table.md: BD-rate, with the window and anchor it is for, and seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import laconic
from laconic.tools.curves import LOWER_IS_BETTER, BDRate, Curve, bd_rate, checked, read_curves

# Okabe and Ito 2008: told apart by all kinds of colour vision. Ours is the first.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C8C00")
GREYS, DASHES = ("#333333", "#666666", "#888888"), ((0, (6, 2)), (0, (2, 1)), (0, (4, 4)))  # published curves
MARKERS = "osD^vP*X"
WINDOWS = {"psnr-rgb": (27.0, 37.0)}
LABELS = {
    "bpp": "bits per pixel of the whole file",
    "kbit_per_s": "kbit/s of the whole file",
    "psnr-rgb": "PSNR of RGB (dB), mean of the pictures'",
    "ms-ssim-rgb": "MS-SSIM of RGB, mean of the pictures' (dB)",
    "ssimulacra2": "SSIMULACRA2, mean of the pictures'",
    "pesq": "PESQ, wide band, mean of the sounds'",
    "stoi": "STOI, mean of the sounds'",
    "estoi": "extended STOI, mean of the sounds'",
    "visqol": "ViSQOL, audio mode, mean of the sounds'",
    "visqol-speech": "ViSQOL, speech mode, mean of the sounds'",
    "task": "score",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic plot`."""
    add = parser.add_argument
    add("results", type=Path, nargs="+", metavar="RESULTS", help="folders of `laconic eval`, or JSON files of curves")
    add("--published", type=Path, nargs="+", default=[], metavar="JSON", help="curves of others, drawn dashed")
    add("--metric", action="append", metavar="M", help="a column of the results (default: all metrics that are there)")
    add("--anchor", metavar="CODEC", help="what BD-rates are against (default: jpeg, of sounds opus)")
    add(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of PSNR (default: 27 37); other metrics: where both curves are",
    )
    add("--max-rate", type=float, metavar="X", help="where the rate axis ends (default: at the widest curve)")
    add("-o", "--output", type=Path, metavar="OUT", help="folder (default: the first of RESULTS)")


def run(args: argparse.Namespace) -> int:
    """Draw one figure per metric, and the table. Returns 0. Raises BadInput where there is nothing to draw."""
    curves = [curve for path in args.results for curve in read_curves(path)]
    curves += [curve for path in args.published for curve in read_curves(path, published=True)]
    out = args.output or (args.results[0] if args.results[0].is_dir() else args.results[0].parent)
    out.mkdir(parents=True, exist_ok=True)
    curves = checked(curves)
    anchor = args.anchor or anchor_of(curves)
    anchors = [curve for curve in curves if curve.name == anchor]
    metrics = args.metric or metrics_of(curves)
    empty = [metric for metric in metrics if not any(curve.points(metric) for curve in curves)]
    if empty or not metrics:
        missing = ", ".join(empty) or "a metric"
        raise laconic.BadInput(f"RESULTS: found no curve of {missing}, expected results of laconic eval")
    tables = []
    for metric in metrics:
        save(rate_distortion(curves, metric, args.max_rate), out / f"rd-{metric}")
        window = window_of(metric, args.window)
        if anchors and metric != "task":
            rates = bd_rates(anchors[0], curves, metric, window)
            save(speed(curves, rates, metric, anchors[0].name), out / f"speed-{metric}")
            tables.append(table(curves, rates, metric, anchors[0].name, window))
    (out / "table.md").write_text("\n\n".join(tables) + "\n")
    print("\n\n".join(tables))
    print(f"figures and table.md in {out}", file=sys.stderr)
    return 0


def metrics_of(curves: list[Curve]) -> list[str]:
    """Return the columns that say quality and have values, in the order of the first curve that has them."""
    other = {"rate", "bytes", "bpp", "kbit_per_s", "payload_kbit_per_s", "quality"}
    other |= {"encoding_time", "decoding_time", "peak_memory_bytes"}
    measured = [curve for curve in curves if not curve.published]
    return list(dict.fromkeys(k for curve in measured for k in curve.results if k not in other and curve.points(k)))


def anchor_of(curves: list[Curve]) -> str:
    """Return the name of the codec that BD-rates of a medium are usually against."""
    return "opus" if any(curve.rate_key == "kbit_per_s" for curve in curves) else "jpeg"


def window_of(metric: str, asked: list[float] | None) -> tuple[float, float] | None:
    """Return the window of a metric's BD-rates; the one that was asked for is for PSNR."""
    return (asked[0], asked[1]) if asked and metric in WINDOWS else WINDOWS.get(metric)


def label_of(metric: str) -> str:
    """Return what an axis says of a metric."""
    return LABELS.get(metric, metric) + (" (negated)" if metric in LOWER_IS_BETTER else "")


def bd_rates(anchor: Curve, curves: list[Curve], metric: str, window: Any) -> dict[str, BDRate | str]:
    """Return by name the BD-rate, or why there is none."""
    found: dict[str, BDRate | str] = {}
    for curve in curves:
        try:
            found[curve.name] = bd_rate(anchor, curve, metric, window)
        except laconic.BadInput as error:
            found[curve.name] = str(error)
    return found


def rate_distortion(curves: list[Curve], metric: str, max_rate: float | None = None) -> Any:
    """Draw quality over rate of one metric."""
    figure, axes = new_figure()
    drawn = [curve for curve in curves if curve.points(metric)]
    highest = max_rate or max(rate for curve in drawn for rate, _ in curve.points(metric))
    ends = []
    for i, curve in enumerate(drawn):
        points = np.array(curve.points(metric))
        end = min(highest, points[-1, 0])
        style: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "markersize": 4}
        if curve.published:
            style = {"linestyle": DASHES[i % len(DASHES)], "linewidth": 1.2}
        colour = colour_of(i, curve)
        axes.plot(*points.T, color=colour, **style)
        if end >= points[0, 0]:
            ends.append((end, float(np.interp(end, *points.T)), curve.name, colour))
    axes.set_xlim(0, highest)
    visible = [q for curve in drawn for r, q in curve.points(metric) if r <= highest] + [y for _, y, _, _ in ends]
    margin = 0.04 * (max(visible) - min(visible))
    axes.set_ylim(min(visible) - margin, max(visible) + margin)
    axes.set_xlabel(LABELS[drawn[0].rate_key])
    axes.set_ylabel(label_of(metric))
    label_ends(axes, ends)
    return figure


def speed(curves: list[Curve], rates: dict[str, BDRate | str], metric: str, anchor: str) -> Any:
    """Draw BD-rate over the seconds to encode (filled) and to decode (hollow), each the mean over the curve."""
    figure, axes = new_figure()
    ends = []
    for i, curve in enumerate(curves):
        found = rates[curve.name]
        if isinstance(found, str) or "encoding_time" not in curve.results or curve.published:
            continue
        colour = colour_of(i, curve)
        seconds = [float(np.mean(curve.results[key])) for key in ("encoding_time", "decoding_time")]
        axes.plot(seconds, [found.percent] * 2, color=colour, linewidth=0.8)
        axes.plot(seconds[0], found.percent, "o", color=colour)
        axes.plot(seconds[1], found.percent, "o", color=colour, markerfacecolor="white")
        ends.append((max(seconds), found.percent, curve.name, colour))
    axes.set_xscale("log")
    axes.set_xlabel("seconds per file: to encode (filled) and to decode (hollow)")
    axes.set_ylabel(f"BD-rate against {anchor} (%), {label_of(metric)}")
    axes.invert_yaxis()
    label_ends(axes, ends)
    return figure


def colour_of(i: int, curve: Curve) -> str:
    """Return the colour of the i-th curve."""
    palette = GREYS if curve.published else COLOURS
    return palette[i % len(palette)]


def new_figure() -> tuple[Any, Any]:
    """Return an empty figure and its axes."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "laconic"  # the same results give the same file
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.05)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    return figure, axes


def label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Put a label right of each line's end, in its colour, moved up or down where two would meet."""
    low, high = sorted(axes.get_ylim())
    inverted = axes.yaxis_inverted()
    step = (high - low) / 24
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [y for _, y, _, _ in ordered]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + step)
    for i in reversed(range(len(heights))):  # back down, where the top is full
        heights[i] = min(heights[i], high - step * (len(heights) - 1 - i))
    for (x, y, text, colour), at in zip(ordered, heights, strict=True):
        axes.annotate(text, (x, y), xytext=(1.01, (high - at if inverted else at - low) / (high - low)),
            textcoords="axes fraction", color=colour, va="center", fontsize=9,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.4, "shrinkB": 3})  # fmt: skip


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and SVG."""
    figure.savefig(path.with_name(path.name + ".png"), dpi=150, metadata={"Software": None})
    figure.savefig(path.with_name(path.name + ".svg"), metadata={"Date": None})


def table(curves: list[Curve], rates: dict[str, BDRate | str], metric: str, anchor: str, window: Any) -> str:
    """Return BD-rates and seconds as Markdown, best first."""
    over = f"{window[0]:g} to {window[1]:g}" if window else "where both curves are"
    lines = [
        f"BD-rate against {anchor}, {label_of(metric)}, {over}; seconds per file, means of all rates",
        "",
        "| codec | BD-rate % | over | encode s | decode s |",
        "|---|---:|---|---:|---:|",
    ]
    known = {name: found for name, found in rates.items() if isinstance(found, BDRate)}
    by_name = {curve.name: curve for curve in curves}
    for name, found in sorted(known.items(), key=lambda pair: pair[1].percent):
        seconds = [by_name[name].results.get(key) for key in ("encoding_time", "decoding_time")]
        cells = [f"{np.mean(s):.3f}" if s and not by_name[name].published else "" for s in seconds]
        lines.append(f"| {name} | {found.percent:+.1f} | {found.low:.1f}..{found.high:.1f} | {cells[0]} | {cells[1]} |")
    for curve in curves:
        if curve.name.startswith("laconic"):
            lines += ["", *settings(curve, metric)]
    lines += [f"\nNo BD-rate: {why}" for why in dict.fromkeys(why for why in rates.values() if isinstance(why, str))]
    return "\n".join(lines)


def settings(curve: Curve, metric: str) -> list[str]:
    """Return a curve as Markdown, one line per setting."""
    columns = [
        key for key in ("rate", curve.rate_key, metric, "encoding_time", "decoding_time") if key in curve.results
    ]
    heads = {"rate": "setting", "encoding_time": "encode s", "decoding_time": "decode s"}
    rows = zip(*(curve.results[key] for key in columns), strict=True)
    return [
        "| " + " | ".join([curve.name, *(heads.get(key, key) for key in columns)]) + " |",
        "|---|" + "---:|" * len(columns),
        *("| | " + " | ".join(f"{value:.4g}" for value in row) + " |" for row in rows),
    ]
