"""The results of `laconic eval`: the journal of rows made so far, the table, a curve for each codec, the manifest."""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import io
import json
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import laconic
from laconic.entropy.environment import n_cores
from laconic.tools import tasks
from laconic.tools.coder import Coder
from laconic.tools.curves import MANIFEST, Curve, as_json
from laconic.tools.files import write_whole
from laconic.tools.machine import processor
from laconic.tools.metrics import METRICS
from laconic.tools.plan import Plan, Work, coded_path, digest_of, plain, read
from laconic.tools.process import complain

RATE_OF = {"picture": "bpp", "sound": "kbit_per_s"}
PAYLOAD = "payload_kbit_per_s"  # of sounds in a container of others
COLUMNS = {"picture": ("bytes", "bpp"), "sound": ("bytes", "kbit_per_s", PAYLOAD)}
TIMES = {"encode_s": "encoding_time", "decode_s": "decoding_time"}  # column of a row: its name in a curve of CompressAI's schema
PACKAGES_OF_METRICS = (
    "pytorch-msssim ssimulacra2 lpips DISTS-pytorch torchmetrics torchaudio auraloss pesq pystoi visqol-python"
)

Row = dict[str, Any]


class Journal:
    """Keeps the rows made so far, one JSON object per line. A torn last line, of a killed run, is dropped."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self.rows: dict[tuple[Any, ...], Row] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() and not fresh else []:
            with suppress(ValueError, KeyError):
                self.remember(json.loads(line))
        write_whole("".join(json.dumps(row) + "\n" for row in self.rows.values()).encode(), path)

    def remember(self, row: Row) -> None:
        """Keep a row, in place of an earlier one with its key."""
        self.rows[tuple(row[key] for key in ("codec", "version", "rate", "file", "sha256", "seed"))] = row

    def add(self, row: Row) -> None:
        """Keep a row and write it down."""
        self.remember(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def holds(self, work: Work) -> bool:
        """Tell whether a row with all metrics is there, and its file still as long as the row says."""
        row, out = self.rows.get(work.key), Path(work.out)
        whole = row is not None and out.exists() and out.stat().st_size == row["bytes"]
        return whole and all(name in row for name in work.metrics)  # type: ignore[operator]


def task_scores(plan: Plan, task: tasks.Task, failures: dict[str, str]) -> dict[str, Any]:
    """Return {codec: {rate: score}}, and the score of the originals under "original"."""
    originals = {file: read(str(plan.root / file), plan.medium) for file in plan.files}
    scores: dict[str, Any] = {"original": float(task(*tasks.cut(originals, plan.labels)))}
    for name, coder in plan.coders.items():
        scores[name] = {}
        for rate in plan.rates[name]:
            paths = {file: coded_path(plan.results, coder, file, rate) for file in plan.files}
            try:
                decoded = {file: coder.decode(path.read_bytes(), originals[file]) for file, path in paths.items()}
                scores[name][rate] = float(task(*tasks.cut(decoded, plan.labels)))
            except Exception as error:  # noqa: BLE001
                failures[f"{name} at {rate:g}, task"] = f"{type(error).__name__}: {error}"
    return scores


def write_results(
    plan: Plan, args: argparse.Namespace, journal: Journal, scores: dict[str, Any], failures: dict[str, str]
) -> None:
    """Write the table, a curve for each codec, and the manifest, of all rows in the journal that this plan asks for."""
    order = {name: i for i, name in enumerate(plan.coders)}
    rows = [journal.rows[work.key] for work in plan.works() if work.key in journal.rows]
    rows.sort(key=lambda row: (order[row["codec"]], row["file"], row["rate"]))
    write_whole(table(plan, rows).encode(errors="surrogateescape"), plan.results / "rows.csv")
    common = coded_by_all(plan, rows)
    if len(common) < len(plan.files):
        complain(f"means are over the {len(common)} files that every codec coded")
    for name, coder in plan.coders.items():
        mine = [row for row in rows if row["codec"] == name and row["file"] in common]
        curve = mean_curve(coder, mine, plan, scores.get(name, {}), args.task)
        write_whole(as_json(curve).encode(), plan.results / f"{plain(coder.name)}.json")
    found = {
        **manifest(plan, args),
        "files_in_means": len(common),
        "task": {"name": args.task, "original": scores["original"]} if scores else None,
        "failures": failures,
    }
    write_whole((json.dumps(found, indent=1) + "\n").encode(), plan.results / MANIFEST)


def table(plan: Plan, rows: list[Row]) -> str:
    """Return the rows as CSV."""
    columns = ["codec", "file", "rate", *COLUMNS[plan.medium], "codelength_bits", "encode_s", "decode_s"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "peak_memory_bytes", *plan.metrics], "", "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "codec": plan.coders[row["codec"]].name} for row in rows)
    return text.getvalue()


def manifest(plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a run was made of: files, codecs, metrics, the command, the machine."""
    folder = args.folder.resolve()
    dataset = {"name": folder.name, "path": str(folder), "sha256": digest_of(plan.files), "files": plan.files}
    machine = {"system": platform.platform(), "processor": processor(), "cores": n_cores()}
    return {
        "medium": plan.medium,
        "dataset": dataset,
        "codecs": {coder.name: of_codec(coder, name, plan.rates[name]) for name, coder in plan.coders.items()},
        "metrics": {name: METRICS[name].about for name in plan.metrics},
        "missing": plan.missing,
        "command": sys.argv,
        "seed": args.seed,
        "jobs": args.jobs,
        "versions": versions(),
        "machine": machine,
    }


def of_codec(coder: Coder, spec: str, rates: tuple[float, ...]) -> dict[str, Any]:
    """Return the manifest's entry of a codec. spec: the name that it was asked for by."""
    curve = f"{plain(coder.name)}.json"
    return {"name": coder.name, "spec": spec, "curve": curve, "version": coder.version, "rates": rates}


def coded_by_all(plan: Plan, rows: list[Row]) -> set[str]:
    """Return the files that every codec with any row coded at all of its rates: others would make means that differ."""
    made = {(row["codec"], row["file"], row["rate"]) for row in rows}
    working = {row["codec"] for row in rows}
    return {
        file
        for file in plan.files
        if all((codec, file, rate) in made for codec in working for rate in plan.rates[codec])
    }


def mean_curve(coder: Coder, rows: list[Row], plan: Plan, scores: dict[float, float], task: str | None) -> Curve:
    """Return the means over the files at each rate."""
    by_rate: dict[float, list[Row]] = {}
    for row in rows:
        by_rate.setdefault(row["rate"], []).append(row)
    parts = [by_rate[rate] for rate in sorted(by_rate)]
    results: dict[str, list[Any]] = {"rate": sorted(by_rate)}
    for column in (*COLUMNS[plan.medium], *plan.metrics, *TIMES):
        results[TIMES.get(column, column)] = [mean([row.get(column) for row in part]) for part in parts]
    results["peak_memory_bytes"] = [max(row["peak_memory_bytes"] for row in part) for part in parts]
    if scores:
        results["task"] = [scores.get(rate) for rate in results["rate"]]
    files = len({row["file"] for row in rows})
    meta = {"dataset_sha256": digest_of(plan.files), "files": files, "means": "over the files at each rate"}
    return Curve(coder.name, results, coder.version, meta=meta | ({"task": task} if scores else {}))


def mean(values: list[float | None]) -> float | None:
    """Return the mean, or None where a value is missing: a mean over other files would be another figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that make figures, where they are installed."""
    found = {"python": platform.python_version(), "laconic": laconic.__version__}
    for name in ("torch", "numpy", "pillow", *PACKAGES_OF_METRICS.split()):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
