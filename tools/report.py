"""`laconic report RESULTS`: one HTML page of results of `laconic eval`, which needs no network.

Interactive curves (Bokeh, embedded), BD-rates, a table of every file that sorts, and, of pictures, a slider over the
original and any two codecs at matched bytes; of sounds, players and spectrograms. For the comparison each file is coded
once more, at the setting that comes nearest to the asked rate. A picture in a format that browsers do not show is shown
through AVIF at quality 70.
"""

from __future__ import annotations

import argparse
import base64
import csv
import html
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import laconic
from laconic.search import psnr_of
from laconic.tools.coder import Coder
from laconic.tools.curves import BDRate, Curve, checked, read_curves
from laconic.tools.files import write_whole
from laconic.tools.metrics import Item, needed
from laconic.tools.plan import coder_of, read
from laconic.tools.plot import LABELS, anchor_of, bd_rates, colour_of, label_of, metrics_of, window_of
from laconic.tools.process import complain

SHOWN = {".jpg": "image/jpeg", ".webp": "image/webp", ".avif": "image/avif"}
PLAYED = {".opus": "audio/ogg", ".ogg": "audio/ogg", ".mp3": "audio/mpeg", ".flac": "audio/flac"}
LEVELS = {"picture": (0.15, 0.4), "sound": (3.0, 6.0, 16.0, 64.0)}
CLOSE_ENOUGH, FAR_OFF = 0.02, 0.05  # how far off, by the bytes that were asked for
MATCH_STEPS = 6
SHOWN_QUALITY = 70  # keeps the page of Kodak below 15 MB
WARN_BYTES = 15_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic report`."""
    add = parser.add_argument
    add("results", type=Path, metavar="RESULTS", help="a folder of `laconic eval`")
    add("--data", type=Path, metavar="DIR", help="the folder that was coded (default: where eval found it)")
    add("--published", type=Path, nargs="+", default=[], metavar="JSON", help="curves of others, drawn dashed")
    add("--anchor", metavar="CODEC", help="what BD-rates are against (default: jpeg, of sounds opus)")
    add("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of PSNR (default: 27 37)")
    add("--rates", type=float, nargs="+", metavar="X", help="to compare at: bpp or kbit/s (default: 0.15 0.4 or 3 6 16 64)")
    add("--files", type=int, metavar="N", help="compare the first N only (default: all)")
    add("-o", "--output", type=Path, metavar="OUT", help="the page (default: report.html in RESULTS)")


def run(args: argparse.Namespace) -> int:
    """Write the page. Returns 0. Raises BadInput where there are no results."""
    path = args.results / "manifest.json"
    if not path.exists():
        raise laconic.BadInput(f"RESULTS: found no {path}, expected a folder that laconic eval has finished")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    curves = read_curves(args.results) + [c for p in args.published for c in read_curves(p, published=True)]
    curves = checked(curves)
    with (args.results / "rows.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    content = {
        "rows": rows,
        "compare": list(comparisons(args, manifest, rows)),
        "medium": manifest["medium"],
    }
    script, charts, library = draw(curves)
    page = (files("laconic.tools") / "report.html").read_text()
    texts = {
        "TITLE": html.escape(f"Laconic eval: {manifest['dataset']['name']}"),
        "ABOUT": about(manifest),
        "LIBRARY": library,
        "CHARTS": charts,
        "CHART_SCRIPT": script,
        "BD": bd_tables(args, curves),
        "DATA": json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
    }
    page = re.sub("@@([A-Z_]+)@@", lambda match: texts[match[1]], page)
    out = args.output or args.results / "report.html"
    write_whole(page.encode(), out)
    print(f"{out}: {len(page.encode()) / 1e6:.1f} MB")
    if len(page.encode()) > WARN_BYTES:
        complain("that is much for a browser: --files N compares fewer files")
    return 0


def comparisons(
    args: argparse.Namespace, manifest: dict[str, Any], rows: list[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield, for each file, the original and each codec at each of the rates, as data URLs with what they cost."""
    medium = manifest["medium"]
    root = args.data or Path(manifest["dataset"]["path"])
    levels = args.rates or LEVELS[medium]
    by_file: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row in rows:
        by_file.setdefault((row["codec"], row["file"]), []).append((float(row["rate"]), int(row["bytes"])))
    for name in tqdm(list(manifest["dataset"]["files"])[: args.files], disable=None):
        if not (root / name).exists():
            raise laconic.BadInput(f"--data: found no {root / name}, expected the folder that was coded")
        entry: dict[str, Any] = {}
        with said(name):
            entry = compared(root / name, name, manifest, levels, by_file)
        if entry:
            yield entry


def compared(
    path: Path, name: str, manifest: dict[str, Any], levels: Sequence[float], by_file: dict[tuple[str, str], Any]
) -> dict[str, Any]:
    """Return one file as the page has it."""
    medium = manifest["medium"]
    original = read(str(path), medium)
    shown = {"codec": "original", "level": None, "bytes": path.stat().st_size, **display(original, b"", "")}
    entry: dict[str, Any] = {"file": name, "levels": list(levels), "shown": [shown]}
    if medium == "picture":
        entry["height"], entry["width"] = original.data.shape[:2]
    else:
        entry["seconds"] = original.amount
    for codec in manifest["codecs"].values():
        known = by_file.get((codec["name"], name), [])
        for level in levels if known else ():
            with said(f"{codec['name']} of {name}"):
                entry["shown"].append(at_level(coder_of(codec["spec"], medium), original, level, known))
    return entry


@contextmanager
def said(what: str) -> Iterator[None]:
    """Say what fails of a file or a codec in the block; the page does without it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of foreign code
        complain(f"left out: {what}: {type(error).__name__}: {error}")


def at_level(coder: Coder, original: Item, level: float, known: list[tuple[float, int]]) -> dict[str, Any]:
    """Return one codec at the setting whose file comes nearest to a rate."""
    n_bytes = level * original.amount / 8 * (1 if original.medium == "picture" else 1000)
    data = matched(coder, original, n_bytes, known)
    decoded = coder.decode(data, original)
    off = abs(len(data) / n_bytes - 1) > FAR_OFF
    found: dict[str, Any] = {"codec": coder.name, "level": level, "bytes": len(data), "off": off}
    if original.medium == "picture":
        found["psnr"] = round(psnr_of(original.data, decoded.data), 2)
    return {**found, **display(decoded, data, coder.suffix)}


def matched(coder: Coder, original: Item, n_bytes: float, known: list[tuple[float, int]]) -> bytes:
    """Return a file of about n_bytes: settings are interpolated between the two around it, in log bytes, or beyond them."""
    points = {rate: float(np.log(size)) for rate, size in known}
    made: dict[float, bytes] = {}
    for _ in range(MATCH_STEPS):
        rate = estimate(points, float(np.log(n_bytes)))
        rate = float(round(rate)) if coder.whole else float(f"{rate:.3g}")
        if rate in made:
            break
        try:
            made[rate] = coder.encode(original, rate)
        except Exception:  # noqa: BLE001 - a setting that the codec does not take
            break
        points[rate] = float(np.log(len(made[rate])))
        if abs(len(made[rate]) - n_bytes) <= CLOSE_ENOUGH * n_bytes:
            break
    if not made:
        nearest = min(known, key=lambda point: abs(point[1] - n_bytes))[0]
        made[nearest] = coder.encode(original, nearest)
    return min(made.values(), key=lambda data: abs(len(data) - n_bytes))


def estimate(points: dict[float, float], wanted: float) -> float:
    """Return the setting for log bytes `wanted`, on the line through the two that lie next to it; not below 0."""
    ordered = sorted((size, rate) for rate, size in points.items())
    i = min(max(int(np.searchsorted([size for size, _ in ordered], wanted)), 1), len(ordered) - 1)
    (low, a), (high, b) = ordered[max(i - 1, 0)], ordered[i]
    slope = (b - a) / (high - low) if high > low else 0.0
    return max(a + slope * (wanted - low), 0.0)


def display(item: Item, data: bytes, suffix: str) -> dict[str, str]:
    """Return what a browser shows or plays: the file itself where it can, and the spectrogram of a sound."""
    if item.medium == "picture":
        return {"src": url(SHOWN[suffix], data) if suffix in SHOWN else url("image/avif", as_avif(item.data))}
    if suffix in PLAYED:
        return {"src": url(PLAYED[suffix], data), "image": url("image/webp", spectrogram(item))}
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, item.data, item.sample_rate, "PCM_16", format="FLAC")
    return {"src": url("audio/flac", file.getvalue()), "image": url("image/webp", spectrogram(item))}


def as_avif(pixels: np.ndarray) -> bytes:
    """Return a picture as a file that browsers show."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=SHOWN_QUALITY, subsampling="4:4:4", speed=7)
    return file.getvalue()


def spectrogram(item: Item, height: int = 160, width: int = 640) -> bytes:
    """Return a picture of a sound: frequency to half the sample rate over time; 80 dB below the loudest are black."""
    from matplotlib import colormaps
    from scipy.signal import stft

    _, _, spectrum = stft(item.data.mean(1), nperseg=1024)
    level = 20 * np.log10(np.abs(spectrum) + 1e-9)
    shade = np.clip((level - level.max()) / 80 + 1, 0, 1)[::-1]
    pixels = (colormaps["magma"](shade)[..., :3] * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX).save(file, "WEBP", quality=80)
    return file.getvalue()


def url(kind: str, data: bytes) -> str:
    """Return a file as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def draw(curves: list[Curve]) -> tuple[str, str, str]:
    """Return (script, divs, library) of the charts: one per metric, where a click in the legend hides a curve."""
    needed("bokeh", "laconic-codec[eval]")
    from bokeh.embed import components
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure
    from bokeh.resources import Resources

    figures = []
    for metric in metrics_of(curves):
        drawn = [curve for curve in curves if curve.points(metric)]
        if not drawn:
            continue
        unit = LABELS[drawn[0].rate_key]
        chart = figure(height=440, sizing_mode="stretch_width", x_axis_label=unit, y_axis_label=label_of(metric),
            tools="pan,wheel_zoom,box_zoom,reset,save,hover", tooltips=[("", "$name"), ("rate", "@x{0.0000}"), (metric, "@y{0.000}")])  # fmt: skip
        for i, curve in enumerate(drawn):
            x, y = zip(*curve.points(metric), strict=True)
            style: dict[str, Any] = {
                "color": colour_of(i, curve),
                "legend_label": curve.name,
                "name": curve.name,
                "source": ColumnDataSource({"x": x, "y": y}),
            }
            chart.line("x", "y", line_width=2, line_dash="dashed" if curve.published else "solid", **style)
            if not curve.published:
                chart.scatter("x", "y", size=6, **style)
        chart.legend.location = "bottom_right"
        chart.legend.click_policy = "hide"
        figures.append(chart)
    if not figures:  # lossless codecs alone, or metrics that could not be measured
        return "", "<p>No curves: there is nothing to draw.</p>", ""
    script, divs = components(figures)
    return script, "\n".join(divs), Resources(mode="inline", components=["bokeh"]).render_js()


def bd_tables(args: argparse.Namespace, curves: list[Curve]) -> str:
    """Return one table per metric; where there is no BD-rate, why."""
    anchor = args.anchor or anchor_of(curves)
    anchors = [curve for curve in curves if curve.name == anchor]
    if not anchors:
        return f"<p>No BD-rates: there is no curve of {html.escape(anchor)}.</p>"
    parts = []
    for metric in metrics_of(curves):
        if metric == "task":
            continue
        window = window_of(metric, args.window)
        found = bd_rates(anchors[0], curves, metric, window)
        known = sorted(((n, v) for n, v in found.items() if isinstance(v, BDRate)), key=lambda pair: pair[1].percent)
        lines = [
            f"<tr><td>{html.escape(n)}</td><td>{v.percent:+.1f}</td><td>{v.low:.2f} to {v.high:.2f}</td><td>{100 * v.overlap:.0f}</td></tr>"
            for n, v in known
        ]
        why = "".join(f"<p class=note>No BD-rate: {html.escape(v)}</p>" for v in found.values() if isinstance(v, str))
        parts.append(
            f"<h3>{html.escape(label_of(metric))}</h3><div class=scroll><table><thead><tr><th>codec</th><th>BD-rate %</th>"
            f"<th>over</th><th>overlap %</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>{why}"
        )
    return f"<p>Against {html.escape(anchor)}, at equal quality; less is better.</p>" + "".join(parts)


def about(manifest: dict[str, Any]) -> str:
    """Return what was measured, with what, and what is missing, as items of a list."""
    data, machine = manifest["dataset"], manifest["machine"]
    facts = [
        f"{len(data['files'])} {manifest['medium']}s, dataset {data['sha256'][:16]}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        " ".join(manifest["command"]),
        *(f"{name}: {codec['version']}" for name, codec in manifest["codecs"].items()),
        *(f"{name}: {text}" for name, text in manifest["metrics"].items()),
        *(f"left out: {name}: {why}" for name, why in manifest["missing"].items()),
        *(f"failed: {name}: {why}" for name, why in manifest["failures"].items()),
    ]
    return "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
