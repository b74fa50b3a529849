"""`laconic eval DIR`: codecs over a folder of pictures or sounds, at several rates, with every figure kept.

    results/rows.csv        a row a file, codec and rate: bytes on disk, seconds, peak memory, every metric
    results/CODEC.json      means over the files at each rate, in CompressAI's schema
    results/manifest.json   digests of the files, versions, command line, machine, what is missing and what failed
    results/files/          the coded files themselves
    results/rows.jsonl      the journal: a killed run goes on from it

Rates are of whole files; a mean is over the files that a codec coded at all of its rates. Seconds are of encode and
decode in memory, after a first call; those of programs include their start. Peak memory is of the whole process.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import multiprocessing
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import laconic
from laconic.tools import coders, tasks
from laconic.tools.coders import Coder
from laconic.tools.curves import Curve, write_curve
from laconic.tools.metrics import ALIASES, METRICS, Absent, Item

PICTURES = {".png", ".webp", ".jpg", ".jpeg", ".avif", ".bmp", ".tif", ".tiff", ".ppm"}
SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"}
RATE_OF = {"picture": "bpp", "sound": "kbit_per_s"}
DEFAULT_CODECS = {"picture": "laconic,jpeg,webp,avif,jxl,jpeg2000", "sound": "opus,mp3,vorbis,flac"}
DEFAULT_METRICS = {"picture": "psnr-rgb,ms-ssim-rgb", "sound": "si-sdr,mr-stft"}
TIMES = {"encode_s": "encoding_time", "decode_s": "decoding_time"}  # of a row: of a curve in CompressAI's schema
WARM_SIDE = 64

Row = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One row to make. `codec` and `metrics` are names: workers build what they stand for."""

    codec: str
    rate: float
    path: str
    file: str  # the path in the folder
    sha256: str
    medium: str
    out: str
    metrics: tuple[str, ...]
    seed: int

    def key(self, version: str) -> tuple[Any, ...]:
        """Equal for rows that say the same: a journal's row with this key need not be made again."""
        return self.codec, version, self.rate, self.file, self.sha256


@dataclass(frozen=True)
class Plan:
    """What a run does: coders by name, and what of them is to be done with which files."""

    root: Path
    files: dict[str, str]  # path in the folder: sha256
    medium: str
    coders: dict[str, Coder]
    rates: dict[str, tuple[float, ...]]
    metrics: tuple[str, ...]
    missing: dict[str, str]
    results: Path

    def works(self, seed: int) -> Iterator[Work]:
        for file, digest in self.files.items():
            for name, coder in self.coders.items():
                for rate in self.rates[name]:
                    out = coded_path(self.results, coder, file, rate)
                    path = str(self.root / file)
                    yield Work(name, rate, path, file, digest, self.medium, str(out), self.metrics, seed)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="pictures or sounds; folders in it are searched")
    add("-o", "--output", type=Path, default=Path("results"), metavar="OUT", help="folder (default: %(default)s)")
    add("--codecs", metavar="A,B", help="of jpeg webp avif jxl jpeg2000 opus mp3 vorbis flac laconic laconic:MODEL "
        "zoo:ARCHITECTURE (default: all of the medium's but zoo)")  # fmt: skip
    add("--codec", action="append", default=[], metavar="NAME=ENC|DEC", help="a program for pictures: "
        "'x=enc {in} {out} {q}|dec {in} {out}', with --rates x=...; may be repeated")  # fmt: skip
    add("--rates", action="append", default=[], metavar="CODEC=1,2", help="settings of a codec (default: about eight)")
    add("--metrics", metavar="A,B", help=f"of {' '.join(METRICS)} (default: PSNR and MS-SSIM; SI-SDR and MR-STFT)")
    add("--task", metavar="MODULE:FUNCTION", help="also the score of a function of decoded arrays and their labels")
    add("--labels", type=Path, metavar="CSV", help="for --task: file,label[,x,y,width,height | ,start,length] "
        "(default: labels.csv in DIR)")  # fmt: skip
    add("-j", "--jobs", type=int, default=1, metavar="N", help="processes; above 1 seconds are those of a busy machine")
    add("--seed", type=int, default=1, metavar="N", help="of random numbers, for codecs that draw any (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Make the rows that the journal lacks, then write all results. Returns 0, or 1 where anything is missing."""
    plan = make_plan(args)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, why in plan.missing.items():
        print(f"laconic: left out: {name}: {why}", file=sys.stderr)
    for part in args.output.rglob(".*.part"):  # of a run that was killed
        part.unlink()
    journal = Journal(args.output / "rows.jsonl")
    works = list(plan.works(args.seed))
    todo = [work for work in works if not journal.holds(work, plan.coders[work.codec].version)]
    failures = {}
    with (
        measured(todo, args.jobs) as outcomes,
        tqdm(total=len(works), initial=len(works) - len(todo), disable=None) as bar,
    ):
        for work, row, failure in outcomes:
            bar.update()
            if row:
                journal.add(row)
            if failure:
                failures[f"{work.codec} at {work.rate:g}, {work.file}"] = failure
    scores = task_scores(plan, args, journal)
    write_results(plan, args, journal, scores, failures)
    if failures:
        print(f"laconic: {len(failures)} of {len(works)} failed:", file=sys.stderr)
        print(*(f"  {name}: {why}" for name, why in failures.items()), sep="\n", file=sys.stderr)
    print(f"{len(works) - len(failures)} rows in {args.output / 'rows.csv'}")
    return 1 if failures or plan.missing else 0


def make_plan(args: argparse.Namespace) -> Plan:
    """Raises BadInput for what is wrong; what is not on this machine is left out and named."""
    medium, files = find_files(args.folder)
    missing: dict[str, str] = {}
    built: dict[str, Coder] = {}
    for name in [*(args.codecs or ("" if args.codec else DEFAULT_CODECS[medium])).split(","), *args.codec]:
        try:
            if name:
                coder = coders.build(name)
                laconic_expect(
                    coder.medium == medium,
                    f"codec {coder.name}",
                    coder.medium,
                    f"one for {medium}s, as {args.folder} has",
                )
                built[name] = coder
        except Absent as error:
            short = name.partition("=")[0]
            missing[short] = str(error).removeprefix(f"{short}: ")
    metrics = []
    for name in (args.metrics or DEFAULT_METRICS[medium]).split(","):
        name = ALIASES.get(name, name)
        kind = METRICS.get(name)
        laconic_expect(
            kind is not None and kind.medium == medium,
            "--metrics",
            name,
            f"one for {medium}s: {' '.join(n for n, k in METRICS.items() if k.medium == medium)}",
        )
        try:
            metric(name)
            metrics.append(name)
        except Absent as error:
            missing[name] = str(error).removeprefix(f"{name}: ")
    rates = {name: coder.rates for name, coder in built.items()}
    for text in args.rates:
        short, _, values = text.partition("=")
        chosen = [name for name, coder in built.items() if coder.name == short]
        if not chosen and short in missing:
            continue
        laconic_expect(len(chosen) == 1, "--rates", short, f"one of {', '.join(c.name for c in built.values())}")
        try:
            rates[chosen[0]] = tuple(sorted({float(value) for value in values.split(",")}))
        except ValueError:
            raise laconic.BadInput(f"--rates {short}: found {values!r}, expected numbers such as 10,20") from None
    for name, coder in built.items():
        laconic_expect(bool(rates[name]), f"rates of {coder.name}", "none", f"--rates {coder.name}=...")
    return Plan(args.folder, files, medium, built, rates, tuple(metrics), missing, args.output)


def find_files(folder: Path) -> tuple[str, dict[str, str]]:
    """The medium of a folder, and its files in order with their digests."""
    laconic_expect(folder.is_dir(), "DIR", str(folder), "a folder")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {
        "picture": [p for p in paths if p.suffix.lower() in PICTURES],
        "sound": [p for p in paths if p.suffix.lower() in SOUNDS],
    }
    media = [medium for medium, some in found.items() if some]
    laconic_expect(
        len(media) == 1, str(folder), " and ".join(f"{m}s" for m in media) or "nothing to code", "pictures or sounds"
    )
    files = found[media[0]]
    return media[0], {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@contextmanager
def measured(works: list[Work], jobs: int) -> Iterator[Iterable[tuple[Work, Row | None, str]]]:
    """(work, its row, why it or a part of it failed) of each, as they come."""
    if jobs == 1:
        yield map(measure, works)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, one_thread) as pool:
        try:
            yield (future.result() for future in as_completed([pool.submit(measure, work) for work in works]))
        finally:
            pool.shutdown(cancel_futures=True)


def one_thread() -> None:
    """A worker among several computes on one core."""
    import torch

    torch.set_num_threads(1)


def measure(work: Work) -> tuple[Work, Row | None, str]:
    """Code a file, decode it, compare. Any error of a codec or metric is that row's failure."""
    try:
        coder, original = coder_of(work.codec), read(work.path, work.medium)
        seed_all(work.seed)
        warm(work.codec, work.rate, work.medium)
        with coders.PeakMemory() as peak:
            start = time.perf_counter()
            data = coder.encode(original, work.rate)
            middle = time.perf_counter()
            decoded = coder.decode(data, original)
            end = time.perf_counter()
        if decoded.data.shape != original.data.shape:
            raise laconic.LaconicError(f"decoded shape: found {decoded.data.shape}, expected {original.data.shape}")
        write_whole(data, Path(work.out))
    except Exception as error:  # noqa: BLE001 - of foreign code: whatever it is, the other rows are made
        return work, None, f"{type(error).__name__}: {error}"
    per = 8 * len(data) / original.amount
    row = {
        "codec": work.codec,
        "version": coder.version,
        "file": work.file,
        "sha256": work.sha256,
        "rate": work.rate,
        "bytes": len(data),
        RATE_OF[work.medium]: per if work.medium == "picture" else per / 1000,
        "codelength_bits": coder.codelength(data) if coder.codelength else None,
        "encode_s": middle - start,
        "decode_s": end - middle,
        "peak_memory_bytes": peak.bytes,
    }
    failures = []
    for name in work.metrics:
        try:
            row[name] = finite(metric(name)(original, decoded))
        except Exception as error:  # noqa: BLE001
            row[name] = None
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return work, row, "; ".join(failures)


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@cache
def coder_of(name: str) -> Coder:
    return coders.build(name)


@cache
def metric(name: str) -> Callable[[Any, Any], float]:
    return METRICS[name].load()


@cache
def warm(codec: str, rate: float, medium: str) -> None:
    """The first call loads weights and compiles kernels: it is made before the clock runs."""
    small = Item("picture", np.zeros((WARM_SIDE, WARM_SIDE, 3), np.uint8))
    if medium == "sound":
        small = Item("sound", np.zeros((48000, 1), np.float32), 48000)
    coder = coder_of(codec)
    coder.decode(coder.encode(small, rate), small)


@lru_cache(maxsize=1)
def read(path: str, medium: str) -> Item:
    """A picture as RGB of 8 bits, or a sound."""
    if medium == "sound":
        import soundfile

        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return Item("sound", samples, rate)
    from laconic import picture

    pixels = picture.read(path).pixels
    return Item("picture", np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def seed_all(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def write_whole(data: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    os.replace(part, path)


def coded_path(results: Path, coder: Coder, file: str, rate: float) -> Path:
    """Where the coded file lies: the whole name of the original stays in it, for two may differ in the suffix only."""
    return results / "files" / plain(coder.name) / f"{file}@{rate:g}{coder.suffix}"


def plain(name: str) -> str:
    """A codec's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


class Journal:
    """The rows made so far, one JSON object a line. A torn last line, of a killed run, is dropped."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, {}  # type: ignore[var-annotated]
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                self.remember(json.loads(line))
            except ValueError:
                continue
        write_whole("".join(json.dumps(row) + "\n" for row in self.rows.values()).encode(), path)

    def remember(self, row: Row) -> None:
        self.rows[row["codec"], row["version"], row["rate"], row["file"], row["sha256"]] = row

    def add(self, row: Row) -> None:
        self.remember(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def holds(self, work: Work, version: str) -> bool:
        """Whether a row with all metrics is there, and its file still as long as the row says."""
        row = self.rows.get(work.key(version))
        out = Path(work.out)
        whole = row is not None and out.exists() and out.stat().st_size == row["bytes"]
        return whole and all(row.get(name) is not None for name in work.metrics)  # type: ignore[union-attr]


def task_scores(plan: Plan, args: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """{codec: {rate: score}} and the score of the originals under "original"; empty without --task."""
    if not args.task:
        return {}
    function = tasks.load(args.task)
    labels = tasks.read_labels(args.labels or args.folder / "labels.csv", list(plan.files))
    originals = {file: read(str(plan.root / file), plan.medium) for file in plan.files}
    scores: dict[str, Any] = {"original": function(*tasks.cut(originals, labels))}
    for name, coder in plan.coders.items():
        scores[name] = {}
        for rate in plan.rates[name]:
            paths = {file: coded_path(plan.results, coder, file, rate) for file in plan.files}
            if all(path.exists() for path in paths.values()):
                decoded = {file: coder.decode(path.read_bytes(), originals[file]) for file, path in paths.items()}
                scores[name][rate] = float(function(*tasks.cut(decoded, labels)))
    return scores


def write_results(
    plan: Plan, args: argparse.Namespace, journal: Journal, scores: dict[str, Any], failures: dict[str, str]
) -> None:
    """The table, a curve a codec, and the manifest: all of the journal's rows that this plan asks for."""
    rows = [
        journal.rows[key]
        for work in plan.works(args.seed)
        if (key := work.key(plan.coders[work.codec].version)) in journal.rows
    ]
    order = {name: i for i, name in enumerate(plan.coders)}
    rows.sort(key=lambda row: (order[row["codec"]], row["file"], row["rate"]))
    columns = [
        "codec",
        "file",
        "rate",
        "bytes",
        RATE_OF[plan.medium],
        "codelength_bits",
        "encode_s",
        "decode_s",
        "peak_memory_bytes",
        *plan.metrics,
    ]
    with (plan.results / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "codec": plan.coders[row["codec"]].name} for row in rows)
    for name, coder in plan.coders.items():
        curve = mean_curve(coder, [row for row in rows if row["codec"] == name], plan, scores.get(name, {}), args.task)
        write_curve(curve, plan.results / f"{plain(coder.name)}.json")
    manifest = {
        "medium": plan.medium,
        "dataset": {
            "name": args.folder.resolve().name,
            "path": str(args.folder.resolve()),
            "sha256": digest_of(plan.files),
            "files": plan.files,
        },
        "codecs": {
            c.name: {"name": c.name, "spec": n, "version": c.version, "rates": plan.rates[n]}
            for n, c in plan.coders.items()
        },
        "metrics": {name: METRICS[name].about for name in plan.metrics},
        "task": {"name": args.task, "original": scores["original"]} if scores else None,
        "missing": plan.missing,
        "failures": failures,
        "command": ["laconic", "eval", *sys.argv[2:]],
        "seed": args.seed,
        "jobs": args.jobs,
        "versions": {"python": platform.python_version(), **{m: version_of(m) for m in ("laconic", "numpy", "torch")}},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
    }
    (plan.results / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def mean_curve(coder: Coder, rows: list[Row], plan: Plan, scores: dict[float, float], task: str | None) -> Curve:
    """Means over the files that were coded at every rate."""
    rates = sorted({row["rate"] for row in rows})
    by_file: dict[str, dict[float, Row]] = {}
    for row in rows:
        by_file.setdefault(row["file"], {})[row["rate"]] = row
    whole = [found for found in by_file.values() if len(found) == len(rates)]
    results: dict[str, list[Any]] = {"rate": list(rates)}
    for column in (RATE_OF[plan.medium], "bytes", *plan.metrics, *TIMES):
        values = [[found[rate][column] for found in whole] for rate in rates]
        results[TIMES.get(column, column)] = [mean(column) for column in values]
    results["peak_memory_bytes"] = [
        max((found[rate]["peak_memory_bytes"] for found in whole), default=0) for rate in rates
    ]
    if scores:
        results["task"] = [scores.get(rate) for rate in rates]
    meta = {"dataset_sha256": digest_of(plan.files), "files": len(whole), "means": "over the files at each rate"}
    return Curve(coder.name, results, coder.version, meta=meta | ({"task": task} if scores else {}))


def mean(values: list[float | None]) -> float | None:
    """None where a value is missing: a mean over other files would be another figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def digest_of(files: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in files.items()).encode()).hexdigest()


def version_of(module: str) -> str:
    return str(importlib.import_module(module).__version__)


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def laconic_expect(ok: bool, field: str, found: object, expected: str) -> None:
    if not ok:
        raise laconic.BadInput(f"{field}: found {found!r}, expected {expected}")
