"""`laconic eval DIR`: codecs over a folder of pictures or sounds, at several rates, with every figure kept.

    results/rows.csv        a row a file, codec and rate: bytes on disk, seconds, peak memory, every metric
    results/CODEC.json      means over the files at each rate, in CompressAI's schema
    results/manifest.json   digests of the files, versions, command line, machine, what is missing and what failed
    results/files/          the coded files themselves
    results/rows.jsonl      the journal: a killed run goes on from it

Rates are of whole files; a mean is over the files that every codec coded at all of its rates. Seconds are of encode and
decode in memory, after a first call; those of programs include their start. Peak memory is what encode and decode took
beyond what the process held before, of programs the whole.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import laconic
from laconic.tools import coders, tasks
from laconic.tools.coders import Coder
from laconic.tools.curves import MANIFEST, Curve, as_json
from laconic.tools.metrics import ALIASES, METRICS, Absent, Item

PICTURES = {".png", ".webp", ".jpg", ".jpeg", ".avif", ".bmp", ".tif", ".tiff", ".ppm"}
SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"}
RATE_OF = {"picture": "bpp", "sound": "kbit_per_s"}
DEFAULT_CODECS = {"picture": "laconic,jpeg,webp,avif,jxl,jpeg2000", "sound": "opus,mp3,vorbis,flac"}
DEFAULT_METRICS = {"picture": "psnr-rgb,ms-ssim-rgb", "sound": "si-sdr,mr-stft"}
TIMES = {"encode_s": "encoding_time", "decode_s": "decoding_time"}  # of a row: of a curve in CompressAI's schema
PACKAGES_OF_METRICS = (
    "pytorch-msssim ssimulacra2 lpips DISTS-pytorch torchmetrics torchaudio auraloss pesq pystoi visqol-python"
)
WARM_SIDE = 64

Row = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One row to make. `codec` and `metrics` are names: workers build what they stand for."""

    codec: str
    version: str
    rate: float
    path: str
    file: str  # the path in the folder
    sha256: str
    medium: str
    out: str
    metrics: tuple[str, ...]
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for rows that say the same: a journal's row with this key need not be made again."""
        return self.codec, self.version, self.rate, self.file, self.sha256, self.seed


@dataclass(frozen=True)
class Plan:
    """What a run does: coders by name, and what of them is to be done with which files."""

    root: Path
    files: dict[str, str]  # path in the folder: sha256
    medium: str
    coders: dict[str, Coder]
    rates: dict[str, tuple[float, ...]]
    metrics: tuple[str, ...]
    task: tasks.Task | None
    labels: list[dict[str, str]]
    missing: dict[str, str]
    results: Path
    seed: int

    def works(self) -> Iterator[Work]:
        for file, digest in self.files.items():
            for name, coder in self.coders.items():
                for rate in self.rates[name]:
                    path, out = str(self.root / file), str(coded_path(self.results, coder, file, rate))
                    yield Work(name, coder.version, rate, path, file, digest, self.medium, out, self.metrics, self.seed)


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
    add("--fresh", action="store_true", help="make every row anew (default: rows of earlier runs are kept)")


def run(args: argparse.Namespace) -> int:
    """Make the rows that the journal lacks, then write all results. Returns 0, or 1 where anything is missing."""
    plan = make_plan(args)
    for name, why in plan.missing.items():
        print(f"laconic: left out: {name}: {why}", file=sys.stderr)
    args.output.mkdir(parents=True, exist_ok=True)
    for part in (args.output / "files").rglob(".*.part"):  # of a run that was killed
        part.unlink()
    journal = Journal(args.output / "rows.jsonl", args.fresh)
    works = list(plan.works())
    todo = [work for work in works if not journal.holds(work)]
    failures = {}
    progress = tqdm(total=len(works), initial=len(works) - len(todo), disable=None)
    with measured(todo, args.jobs) as outcomes, progress as bar:
        for work, row, failure in outcomes:
            bar.update()
            if row:
                journal.add(row)
            if failure:
                failures[f"{work.codec} at {work.rate:g}, {work.file}"] = failure
    scores = {} if plan.task is None else task_scores(plan, plan.task, failures)
    write_results(plan, args, journal, scores, failures)
    if failures:
        print(f"laconic: {len(failures)} failed:", file=sys.stderr)
        print(*(f"  {name}: {why}" for name, why in failures.items()), sep="\n", file=sys.stderr)
    print(f"{sum(work.key in journal.rows for work in works)} rows in {args.output / 'rows.csv'}")
    return 1 if failures or plan.missing else 0


def make_plan(args: argparse.Namespace) -> Plan:
    """Raises BadInput for what is wrong; what is not on this machine is left out and named."""
    ask(args.jobs >= 1, "-j", args.jobs, "at least 1")
    medium, files = find_files(args.folder, args.output)
    missing: dict[str, str] = {}
    names = (args.codecs or ("" if args.codec else DEFAULT_CODECS[medium])).split(",")
    built = build_coders([name for name in [*names, *args.codec] if name], medium, missing)
    metrics = available_metrics((args.metrics or DEFAULT_METRICS[medium]).split(","), medium, missing)
    rates = choose_rates(args.rates, built, missing)
    task = tasks.load(args.task) if args.task else None
    labels = tasks.read_labels(args.labels or args.folder / "labels.csv", list(files)) if task else []
    return Plan(args.folder, files, medium, built, rates, metrics, task, labels, missing, args.output, args.seed)


def build_coders(names: list[str], medium: str, missing: dict[str, str]) -> dict[str, Coder]:
    """By the name that was asked for; absent ones are added to `missing`."""
    built: dict[str, Coder] = {}
    for name in names:
        try:
            coder = coders.build(name)
        except Absent as error:
            short = name.partition("=")[0]
            missing[short] = str(error).removeprefix(f"{short}: ")
            continue
        ask(coder.medium == medium, f"codec {coder.name}", f"one for {coder.medium}s", f"one for {medium}s")
        taken = [plain(other.name) for other in built.values()] + [Path(MANIFEST).stem, ""]
        ask(plain(coder.name) not in taken, "codec", coder.name, "a name of its own")
        built[name] = coder
    return built


def available_metrics(names: list[str], medium: str, missing: dict[str, str]) -> tuple[str, ...]:
    """Full names; absent ones are added to `missing`."""
    known = [name for name, kind in METRICS.items() if kind.medium == medium]
    found = []
    for name in dict.fromkeys(ALIASES.get(name, name) for name in names):
        ask(name in known, "--metrics", name, f"one for {medium}s: {' '.join(known)}")
        try:
            metric(name)
            found.append(name)
        except Absent as error:
            missing[name] = str(error).removeprefix(f"{name}: ")
    return tuple(found)


def choose_rates(texts: list[str], built: dict[str, Coder], missing: dict[str, str]) -> dict[str, tuple[float, ...]]:
    """The settings of each coder: its own, or those of --rates."""
    rates = {name: coder.rates for name, coder in built.items()}
    for text in texts:
        short, _, values = text.partition("=")
        chosen = [name for name, coder in built.items() if coder.name == short]
        if not chosen and short in missing:
            continue
        ask(len(chosen) == 1, "--rates", short, f"one of {', '.join(coder.name for coder in built.values())}")
        try:
            rates[chosen[0]] = tuple(sorted({float(value) for value in values.split(",")}))
        except ValueError:
            raise laconic.BadInput(f"--rates {short}: found {values!r}, expected numbers such as 10,20") from None
    for name, coder in built.items():
        ask(bool(rates[name]), f"rates of {coder.name}", "none", f"--rates {coder.name}=...")
        fractions = [rate for rate in rates[name] if coder.whole and rate != int(rate)]
        ask(not fractions, f"--rates {coder.name}", fractions, "whole numbers")
    return rates


def find_files(folder: Path, results: Path | None = None) -> tuple[str, dict[str, str]]:
    """The medium of a folder, and its files in order with their digests; results that lie in it are no files of it."""
    ask(folder.is_dir(), "DIR", str(folder), "a folder")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if results:
        paths = [path for path in paths if results.resolve() not in path.resolve().parents]
    found = {
        "picture": [path for path in paths if path.suffix.lower() in PICTURES],
        "sound": [path for path in paths if path.suffix.lower() in SOUNDS],
    }
    media = [medium for medium, some in found.items() if some]
    both = " and ".join(f"{medium}s" for medium in media)
    ask(len(media) == 1, str(folder), both or "nothing to code", "pictures or sounds")
    return media[0], {p.relative_to(folder).as_posix(): sha256(p.read_bytes()) for p in found[media[0]]}


@contextmanager
def measured(works: list[Work], jobs: int) -> Iterator[Iterable[tuple[Work, Row | None, str]]]:
    """(work, its row, why it or a part of it failed) of each, as they come."""
    if jobs == 1:
        yield map(measure, works)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), start_worker) as pool:
        futures = {pool.submit(measure, work): work for work in works}
        try:
            yield (outcome(future, futures[future]) for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def outcome(future: Future[tuple[Work, Row | None, str]], work: Work) -> tuple[Work, Row | None, str]:
    try:
        return future.result()
    except BrokenProcessPool:
        return work, None, "a worker process died (of memory?): start again to go on"


def start_worker() -> None:
    """A worker among several computes on one core, and leaves an interrupt to its parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def measure(work: Work) -> tuple[Work, Row | None, str]:
    """Code a file, decode it, compare. Any error of a codec or metric is that row's failure."""
    try:
        coder, original = coder_of(work.codec), read(work.path, work.medium)
        warm(work.codec, work.rate, work.medium)
        seed_all(work.seed)
        with coders.PeakMemory() as peak:
            start = time.perf_counter()
            data = coder.encode(original, work.rate)
            middle = time.perf_counter()
            decoded = coder.decode(data, original)
            end = time.perf_counter()
        shapes = decoded.data.shape, original.data.shape
        ask(shapes[0] == shapes[1], "decoded shape", shapes[0], str(shapes[1]))
        codelength = coder.codelength(data) if coder.codelength else None
        write_whole(data, Path(work.out))
    except Exception as error:  # noqa: BLE001 - of foreign code: whatever it is, the other rows are made
        return work, None, f"{type(error).__name__}: {error}"
    per = 8 * len(data) / original.amount
    row = {
        "codec": work.codec,
        "version": work.version,
        "file": work.file,
        "sha256": work.sha256,
        "seed": work.seed,
        "rate": work.rate,
        "bytes": len(data),
        RATE_OF[work.medium]: per if work.medium == "picture" else per / 1000,
        "codelength_bits": codelength,
        "encode_s": middle - start,
        "decode_s": end - middle,
        "peak_memory_bytes": peak.bytes,
    }
    failures = []
    for name in work.metrics:
        try:
            value = metric(name)(original, decoded)
            row[name] = float(value) if np.isfinite(value) else None  # not defined for this file
        except Exception as error:  # noqa: BLE001
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return work, row, "; ".join(failures)


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
    """By a temporary name: no part of a file stays under its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def coded_path(results: Path, coder: Coder, file: str, rate: float) -> Path:
    """Where the coded file lies: the whole name of the original stays in it, for two may differ in the suffix only."""
    return results / "files" / plain(coder.name) / f"{file}@{rate:g}{coder.suffix}"


def plain(name: str) -> str:
    """A codec's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


class Journal:
    """The rows made so far, one JSON object a line. A torn last line, of a killed run, is dropped."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self.rows: dict[tuple[Any, ...], Row] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() and not fresh else []:
            with suppress(ValueError, KeyError):
                self.remember(json.loads(line))
        write_whole("".join(json.dumps(row) + "\n" for row in self.rows.values()).encode(), path)

    def remember(self, row: Row) -> None:
        self.rows[tuple(row[key] for key in ("codec", "version", "rate", "file", "sha256", "seed"))] = row

    def add(self, row: Row) -> None:
        self.remember(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def holds(self, work: Work) -> bool:
        """Whether a row with all metrics is there, and its file still as long as the row says."""
        row, out = self.rows.get(work.key), Path(work.out)
        whole = row is not None and out.exists() and out.stat().st_size == row["bytes"]
        return whole and all(name in row for name in work.metrics)  # type: ignore[operator]


def task_scores(plan: Plan, task: tasks.Task, failures: dict[str, str]) -> dict[str, Any]:
    """{codec: {rate: score}}, and the score of the originals under "original"."""
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
    """The table, a curve a codec, and the manifest: all of the journal's rows that this plan asks for."""
    order = {name: i for i, name in enumerate(plan.coders)}
    rows = [journal.rows[work.key] for work in plan.works() if work.key in journal.rows]
    rows.sort(key=lambda row: (order[row["codec"]], row["file"], row["rate"]))
    columns = ["codec", "file", "rate", "bytes", RATE_OF[plan.medium], "codelength_bits", "encode_s", "decode_s"]
    table = io.StringIO()
    writer = csv.DictWriter(table, [*columns, "peak_memory_bytes", *plan.metrics], "", "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "codec": plan.coders[row["codec"]].name} for row in rows)
    write_whole(table.getvalue().encode(errors="surrogateescape"), plan.results / "rows.csv")
    common = coded_by_all(plan, rows)
    if len(common) < len(plan.files):
        print(f"laconic: means are over the {len(common)} files that every codec coded", file=sys.stderr)
    for name, coder in plan.coders.items():
        mine = [row for row in rows if row["codec"] == name and row["file"] in common]
        curve = mean_curve(coder, mine, plan, scores.get(name, {}), args.task)
        write_whole(as_json(curve).encode(), plan.results / f"{plain(coder.name)}.json")
    manifest = {
        "medium": plan.medium,
        "dataset": {
            "name": args.folder.resolve().name,
            "path": str(args.folder.resolve()),
            "sha256": digest_of(plan.files),
            "files": plan.files,
        },
        "codecs": {
            c.name: {
                "name": c.name,
                "spec": n,
                "curve": f"{plain(c.name)}.json",
                "version": c.version,
                "rates": plan.rates[n],
            }
            for n, c in plan.coders.items()
        },
        "metrics": {name: METRICS[name].about for name in plan.metrics},
        "files_in_means": len(common),
        "task": {"name": args.task, "original": scores["original"]} if scores else None,
        "missing": plan.missing,
        "failures": failures,
        "command": sys.argv,
        "seed": args.seed,
        "jobs": args.jobs,
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
    }
    write_whole((json.dumps(manifest, indent=1) + "\n").encode(), plan.results / MANIFEST)


def coded_by_all(plan: Plan, rows: list[Row]) -> set[str]:
    """The files that every codec with any row coded at all of its rates: means over others could not be compared."""
    made = {(row["codec"], row["file"], row["rate"]) for row in rows}
    working = {row["codec"] for row in rows}
    return {
        file
        for file in plan.files
        if all((codec, file, rate) in made for codec in working for rate in plan.rates[codec])
    }


def mean_curve(coder: Coder, rows: list[Row], plan: Plan, scores: dict[float, float], task: str | None) -> Curve:
    """Means over the files at each rate."""
    by_rate: dict[float, list[Row]] = {}
    for row in rows:
        by_rate.setdefault(row["rate"], []).append(row)
    parts = [by_rate[rate] for rate in sorted(by_rate)]
    results: dict[str, list[Any]] = {"rate": sorted(by_rate)}
    for column in (RATE_OF[plan.medium], "bytes", *plan.metrics, *TIMES):
        results[TIMES.get(column, column)] = [mean([row.get(column) for row in part]) for part in parts]
    results["peak_memory_bytes"] = [max(row["peak_memory_bytes"] for row in part) for part in parts]
    if scores:
        results["task"] = [scores.get(rate) for rate in results["rate"]]
    files = len({row["file"] for row in rows})
    meta = {"dataset_sha256": digest_of(plan.files), "files": files, "means": "over the files at each rate"}
    return Curve(coder.name, results, coder.version, meta=meta | ({"task": task} if scores else {}))


def mean(values: list[float | None]) -> float | None:
    """None where a value is missing: a mean over other files would be another figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(files: dict[str, str]) -> str:
    return sha256("".join(f"{digest}  {name}\n" for name, digest in files.items()).encode(errors="surrogateescape"))


def versions() -> dict[str, str]:
    """Of Python and of the packages that make figures, where they are installed."""
    found = {"python": platform.python_version()}
    for name in ("laconic", "torch", "numpy", "pillow", *PACKAGES_OF_METRICS.split()):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def ask(ok: bool, field: str, found: object, expected: str) -> None:
    """Raise BadInput unless `ok`."""
    if not ok:
        raise laconic.BadInput(f"{field}: found {found!r}, expected {expected}")
