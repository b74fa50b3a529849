"""Rate-distortion curves: CompressAI's JSON, and the BD-rate between two of them.

    {"name": "jpeg", "description": "...", "results": {"bpp": [...], "psnr-rgb": [...], "ms-ssim-rgb": [...], ...}}

One entry of each list is one setting of the codec, a mean over the pictures. MS-SSIM is compared in dB.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from laconic.entropy.errors import BadFile, BadInput, expect

RATES = ("bpp", "kbit_per_s")  # what a curve may have as its rate: pictures, sounds
LOWER_IS_BETTER = {"lpips", "dists", "butteraugli", "log-mel", "mr-stft"}
MANIFEST = "manifest.json"
MIN_OVERLAP = 0.5  # the part of the shorter curve's range of quality, and of a window, that must be shared


@dataclass(frozen=True)
class Curve:
    """Holds one codec over one set: `results` has one list per column, all of one length; `meta` says where it comes from."""

    name: str
    results: dict[str, list[float]]
    description: str = ""
    published: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def rate_key(self) -> str:
        """The name of the column that holds the rate."""
        return next(key for key in RATES if key in self.results)

    def points(self, metric: str) -> list[tuple[float, float]]:
        """Return (rate, quality) pairs with finite quality, by rising rate; more is better, and MS-SSIM is in dB."""
        if metric not in self.results:
            return []
        rates, values = self.results[self.rate_key], [comparable(metric, v) for v in self.results[metric]]
        return sorted(((r, v) for r, v in zip(rates, values, strict=True) if math.isfinite(v)))


@dataclass(frozen=True)
class BDRate:
    """Holds the percent of rate taken more than the anchor takes, the mean over the qualities low..high; how much both cover."""

    percent: float
    low: float
    high: float
    overlap: float  # share of the shorter curve's range

    def __str__(self) -> str:
        return f"{self.percent:+.2f} % [{self.low:.4g}..{self.high:.4g}, overlap {100 * self.overlap:.0f} %]"


def bd_rate(anchor: Curve, curve: Curve, metric: str, window: tuple[float, float] | None = None) -> BDRate:
    """Return the mean rate difference at equal quality: log10 rate over quality, PCHIP (Bjontegaard 2001, VCEG-M33).

    window: qualities outside it do not count. Raises BadInput where a curve has fewer than 4 points or two of one
    quality, and where the curves overlap in less than half of the shorter one's range, or cover less than half of the
    window: such a figure would say little of either.
    """
    from scipy.interpolate import PchipInterpolator

    a, b = (sorted(c.points(metric), key=lambda point: point[1]) for c in (anchor, curve))
    for name, points in ((anchor.name, a), (curve.name, b)):
        expect(len(points) >= 4, BadInput, f"{name}: points with {metric}", len(points), "at least 4")
        distinct = len({quality for _, quality in points})
        expect(distinct == len(points), BadInput, f"{name}: distinct {metric}", distinct, f"{len(points)}, one per point")
    low, high = max(a[0][1], b[0][1]), min(a[-1][1], b[-1][1])
    overlap = max(0.0, high - low) / min(a[-1][1] - a[0][1], b[-1][1] - b[0][1])
    pair = f"{curve.name} against {anchor.name}, {metric}"
    expect(overlap >= MIN_OVERLAP, BadInput, f"{pair}: overlap", f"{100 * overlap:.0f} %", "at least 50 %")
    if window:
        low, high = max(low, window[0]), min(high, window[1])
        share = (high - low) / (window[1] - window[0])
        expect(share >= MIN_OVERLAP, BadInput, f"{pair}: part of the window", f"{100 * share:.0f} %", "at least 50 %")
    means = []
    for points in (a, b):
        rate = PchipInterpolator([quality for _, quality in points], np.log10([rate for rate, _ in points]))
        means.append(float(rate.integrate(low, high)) / (high - low))
    return BDRate(100 * (10 ** (means[1] - means[0]) - 1), low, high, overlap)


def comparable(metric: str, value: float) -> float:
    """Return a value such that more is better and differences can be compared: MS-SSIM in dB, distances negated."""
    if metric.startswith("ms-ssim"):
        return -10 * math.log10(1 - value) if value < 1 else math.inf
    return -value if metric in LOWER_IS_BETTER else value


def read_curves(path: Path, published: bool = False) -> list[Curve]:
    """Read the curves of a JSON file, of the last `laconic eval` in a folder, or of all files in another folder.

    Published ones say so in their names. Raises BadFile where one is not in CompressAI's schema.
    """
    if not path.is_dir():
        return [read_curve(path, published)]
    manifest = path / MANIFEST
    if manifest.exists():
        codecs = json.loads(manifest.read_text(encoding="utf-8"))["codecs"].values()
        return [read_curve(path / codec["curve"], published) for codec in codecs]
    return [read_curve(p, published) for p in sorted(path.glob("*.json"))]


def checked(curves: list[Curve]) -> list[Curve]:
    """Return curves that may be compared, ours first: of one set of files, as far as they say, and of different names.

    Raises BadInput where they may not.
    """
    sets = {curve.meta["dataset_sha256"] for curve in curves if "dataset_sha256" in curve.meta}
    expect(len(sets) <= 1, BadInput, "RESULTS", f"curves of {len(sets)} sets of files", "curves of one set")
    names = [curve.name for curve in curves]
    twice = sorted({name for name in names if names.count(name) > 1})
    expect(not twice, BadInput, "RESULTS", f"two curves named {', '.join(twice)}", "different names")
    return sorted(curves, key=lambda curve: not curve.name.startswith("laconic"))


def read_curve(path: Path, published: bool = False) -> Curve:
    """Read the curve of one file. Columns that are not one number per setting are left out. Raises BadFile."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        results = found["results"]
        rate = next(results[key] for key in RATES if key in results)
        columns = {
            key: [math.nan if v is None else float(v) for v in column]
            for key, column in results.items()
            if len(column) == len(rate)
        }
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise BadFile(f"{path}: found {error!r}, expected CompressAI's JSON with results.bpp") from None
    meta = {key: value for key, value in found.items() if key not in ("name", "description", "results")}
    name = str(found.get("name", path.stem)) + (" (published)" if published else "")
    return Curve(name, columns, str(found.get("description", "")), published, meta)


def as_json(curve: Curve) -> str:
    """Return a curve in CompressAI's schema."""
    content = {"name": curve.name, "description": curve.description, **curve.meta, "results": curve.results}
    return json.dumps(content, indent=1) + "\n"
