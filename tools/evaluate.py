"""`laconic eval DIR`: codecs over a folder of pictures or sounds, at several rates, with every figure kept.

    results/rows.csv        one row per file, codec and rate: bytes on disk, seconds, peak memory, every metric
    results/CODEC.json      means over the files at each rate, in CompressAI's schema
    results/manifest.json   digests of the files, versions, command line, machine, what is missing and what failed
    results/files/          the coded files themselves
    results/rows.jsonl      the journal: a killed run goes on from it

Rates are of whole files; those of Ogg also have the rate of their packets alone, payload_kbit_per_s. A mean is over the files that every codec coded at all of its rates. Seconds are of encode and
decode in memory, after a first call; those of programs include their start. Peak memory is what encode and decode took
beyond what the process held before, of programs the whole.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Generator
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from laconic.dataset.engines import Team, engine_of
from laconic.entropy.errors import BadInput, expect
from laconic.tools import arguments, coders
from laconic.tools.files import write_whole
from laconic.tools.metrics import METRICS, Item
from laconic.tools.plan import Work, coder_of, make_plan, metric, read
from laconic.tools.process import complain, say
from laconic.tools.programs import PeakMemory
from laconic.tools.results import PAYLOAD, RATE_OF, Journal, Row, task_scores, write_results

WARM_SIDE = 64

Outcome = tuple[Work, Row | None, str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic eval`."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="pictures or sounds; folders in it are searched")
    add("-o", "--output", type=Path, default=Path("results"), metavar="OUT", help="folder (default: %(default)s)")
    add("--codecs", metavar="A,B", help=f"of {' '.join(coders.NAMES)} laconic:MODEL zoo:ARCHITECTURE "
        "(default: all of the medium's but zoo)")  # fmt: skip
    add("--codec", action="append", default=[], metavar="NAME=ENC|DEC", help="a program for pictures: "
        "'x=enc {in} {out} {q}|dec {in} {out}', with --rates x=...; may be repeated")  # fmt: skip
    add("--rates", action="append", default=[], metavar="CODEC=1,2", help="settings of a codec (default: about eight)")
    add("--metrics", metavar="A,B", help=f"of {' '.join(METRICS)} (default: PSNR and MS-SSIM; for speech, sounds in mono "
        "at up to 24 kHz, PESQ, STOI and ViSQOL; for other sounds ViSQOL, SI-SDR and MR-STFT)")  # fmt: skip
    add("--task", metavar="MODULE:FUNCTION", help="also the score of a function of decoded arrays and their labels")
    add("--labels", type=Path, metavar="CSV", help="for --task: file,label[,x,y,width,height | ,start,length] "
        "(default: labels.csv in DIR)")  # fmt: skip
    add("-j", "--jobs", type=int, metavar="N", help="processes; above 1 seconds are those of a busy machine "
        "(default: 1; on Ray one per core of the cluster)")  # fmt: skip
    arguments.add_engine_options(parser)
    add("--seed", type=int, default=1, metavar="N", help="of random numbers, for codecs that draw any (default: 1)")
    add("--fresh", action="store_true", help="make every row anew (default: rows of earlier runs are kept)")


def run(args: argparse.Namespace) -> int:
    """Make the rows that the journal lacks, then write all results. Returns 0, or 1 where anything is missing."""
    args.jobs = 1 if args.jobs is None and args.engine == "local" else args.jobs
    plan = make_plan(args)
    for name, why in plan.missing.items():
        complain(f"left out: {name}: {why}")
    args.output.mkdir(parents=True, exist_ok=True)
    for part in (args.output / "files").rglob(".*.part"):  # a killed run's
        part.unlink()
    journal = Journal(args.output / "rows.jsonl", args.fresh)
    works = list(plan.works())
    todo = [work for work in works if not journal.holds(work)]
    failures = {}
    progress = tqdm(total=len(works), initial=len(works) - len(todo), disable=None)
    with closing(measured(todo, args)) as outcomes, progress as bar:
        for work, row, failure in outcomes:
            bar.update()
            if row:
                journal.add(row)
            if failure:
                failures[f"{work.codec} at {work.rate:g}, {work.file}"] = failure
    scores = {} if plan.task is None else task_scores(plan, plan.task, failures)
    write_results(plan, args, journal, scores, failures)
    if failures:
        lines = [f"  {name}: {why}" for name, why in failures.items()]
        say(f"laconic: {len(failures)} failed:", *lines, file=sys.stderr)
    print(f"{sum(work.key in journal.rows for work in works)} rows in {args.output / 'rows.csv'}")
    return 1 if failures or plan.missing else 0


def measured(works: list[Work], args: argparse.Namespace) -> Generator[Outcome]:
    """Yield (work, its row, why it or a part of it failed) of each, as they come."""
    team = Team(args.jobs, args.address, args.gpus or 0.0)
    yield from engine_of(args.engine)(measure if args.jobs == 1 else measure_on_one_core, team, died)(works)


def died(work: Work) -> Outcome:
    """Return that a worker died of its work; that is not tried again in this run."""
    return work, None, "a worker process died (of memory?): start again to go on"


def measure_on_one_core(work: Work) -> Outcome:
    """Do as `measure` in a worker among several."""
    import torch

    torch.set_num_threads(1)
    return measure(work)


def measure(work: Work) -> Outcome:
    """Code a file, decode it, compare: (work, its row, why it or a part of it failed)."""
    try:
        coder, original = coder_of(work.codec, work.medium), read(work.path, work.medium)
        warm(work.codec, work.rate, work.medium)
        seed_all(work.seed)
        with PeakMemory() as peak:
            start = time.perf_counter()
            data = coder.encode(original, work.rate)
            middle = time.perf_counter()
            decoded = coder.decode(data, original)
            end = time.perf_counter()
        shapes = decoded.data.shape, original.data.shape
        expect(shapes[0] == shapes[1], BadInput, "decoded shape", shapes[0], str(shapes[1]))
        codelength = coder.codelength(data) if coder.codelength else None
        payload = coder.payload(data) if coder.payload else None
        write_whole(data, Path(work.out))
    except Exception as error:  # noqa: BLE001 - of foreign code: whatever it is, the other rows are made
        return work, None, f"{type(error).__name__}: {error}"
    row = {
        "codec": work.codec,
        "version": work.version,
        "file": work.file,
        "sha256": work.sha256,
        "seed": work.seed,
        "rate": work.rate,
        "bytes": len(data),
        RATE_OF[work.medium]: 8 * len(data) / original.amount / (1 if work.medium == "picture" else 1000),
        PAYLOAD: None if payload is None else 8 * payload / original.amount / 1000,
        "codelength_bits": codelength,
        "encode_s": middle - start,
        "decode_s": end - middle,
        "peak_memory_bytes": peak.bytes,
    }
    values, failures = compared(work.metrics, original, decoded)
    return work, row | values, "; ".join(failures)


def compared(metrics: tuple[str, ...], original: Item, decoded: Item) -> tuple[Row, list[str]]:
    """Return the value of each metric, None where it is not defined for this file, and which failed, and why."""
    values: Row = {}
    failures = []
    for name in metrics:
        try:
            value = metric(name)(original, decoded)
            values[name] = float(value) if np.isfinite(value) else None
        except Exception as error:  # noqa: BLE001 - of foreign code, as above
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return values, failures


@cache
def warm(codec: str, rate: float, medium: str) -> None:
    """Make the first call of a codec, which loads weights and compiles kernels, before the clock runs."""
    small = Item("picture", np.zeros((WARM_SIDE, WARM_SIDE, 3), np.uint8))
    if medium == "sound":
        small = Item("sound", np.zeros((48000, 1), np.float32), 48000)
    coder = coder_of(codec, medium)
    coder.decode(coder.encode(small, rate), small)


def seed_all(seed: int) -> None:
    """Seed every generator that a codec may draw from."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
