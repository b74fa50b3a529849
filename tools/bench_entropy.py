"""The entropy coder beside its peers: `python -m laconic.tools.bench entropy`.

Each contestant (entropy_peers.py) gets the same float model (workloads.py). constriction and CompressAI code in one
thread, however many the others have.
"""

from __future__ import annotations

import importlib.metadata
import platform
import random
import statistics
import sys
import time
from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np

import laconic
from laconic.entropy import adaptive
from laconic.entropy.environment import n_cores
from laconic.entropy.errors import expect
from laconic.tools.entropy_peers import PEERS, Contestant, Run, cuda, ours, same
from laconic.tools.machine import processor
from laconic.tools.metrics import Absent, needed
from laconic.tools.workloads import WORKLOADS, Workload

Case = dict[str, Any]
SLOWEST_SYMBOLS = 1 << 16  # what the reference codes at most
LESSER_CPUS = {"simd, AVX2": "x86-64-v3", "simd, SSE4": "x86-64-v2"}
HEAD = """{machine}, {cores} cores; median of {rounds} rounds over all contestants
encode, decode: million symbols per second, times the best peer in that direction, milliseconds
over tables, model: bytes beyond the ideal codelength of the contestant's own tables, of the float model"""


def bench_entropy(args: Namespace) -> list[Case]:
    """Print speed and rate of every backend and peer on each workload and number of threads, and return them."""
    contestants = installed()
    only = args.only or list(contestants)
    for name in only:
        expect(name in contestants, laconic.BadInput, "only", name, f"one of {', '.join(contestants)}")
    contestants = {name: contestants[name] for name in only}
    print(HEAD.format(machine=processor(), cores=n_cores(), rounds=args.rounds))
    cases: list[Case] = []
    for name in args.workloads:
        try:
            work = WORKLOADS[name](args.symbols)
        except Absent as error:
            leave_out(name, error)
            continue
        for threads in args.threads:
            found = compare(work, contestants, threads, args.rounds)
            print(table(found))
            cases += found
    return cases


def bench_adaptive(args: Namespace) -> list[Case]:
    """Print the speed of the adaptive models on a walk of 16 symbols, by the number of strips, in one thread."""
    steps = np.random.default_rng(1).normal(size=args.symbols)
    symbols = np.abs(np.rint(np.cumsum(steps)).astype(int) % 30 - 15) % 16
    coded = {strips: adaptive.encode(symbols, 16, 2, strips) for strips in (1, 4, 8)}
    runs = {
        f"strips {strips}": (
            partial(adaptive.encode, symbols, 16, 2, strips),
            partial(adaptive.decode, data, len(symbols), 16, 2),
        )
        for strips, data in coded.items()
    }
    for _, decode in runs.values():
        same("adaptive", decode(), symbols)
    cases = []
    print(f"{processor()}; 16 symbols in contexts of two, {len(symbols)} of them, million per second")
    for (name, seconds), data in zip(rounds(runs, args.rounds).items(), coded.values(), strict=True):
        speeds = [len(symbols) / s / 1e6 for s in seconds]
        bits = 8 * len(data) / len(symbols)
        print(f"{name:12} {bits:.4f} bits per symbol   encode {speeds[0]:6.1f}   decode {speeds[1]:6.1f}")
        cases.append(
            {"name": name, "bits_a_symbol": bits, "encode_msymbols_s": speeds[0], "decode_msymbols_s": speeds[1]}
        )
    return cases


def installed() -> dict[str, Contestant]:
    """Return our backends and the peers that are here; the others are named with the reason."""
    found = {"simd": ours("simd")}
    if platform.machine().lower() in ("x86_64", "amd64"):
        found |= {name: ours("simd", cpu=cpu) for name, cpu in LESSER_CPUS.items()}
    found |= {"numba": ours("numba"), "reference": ours("reference", SLOWEST_SYMBOLS)}
    if needed("torch", "torch").cuda.is_available():
        found["cuda"] = cuda
    else:
        leave_out("cuda", Absent("found no CUDA device, expected one"))
    for name, (module, package, contestant) in PEERS.items():
        try:
            needed(module, package)
        except Absent as error:
            leave_out(name, error)
            continue
        found[name] = contestant
    return found


def leave_out(name: str, reason: Absent) -> None:
    """Say why a contestant does not take part."""
    print(f"left out: {name}: {reason}", file=sys.stderr)


def compare(work: Workload, contestants: dict[str, Contestant], threads: int, n_rounds: int) -> list[Case]:
    """Measure all on one workload. A ratio is against the fastest peer, another one for each direction."""
    runs = {name: run for name, ready in contestants.items() if (run := ready(work, threads))}
    seconds = rounds({name: (run.encode, run.decode) for name, run in runs.items()}, n_rounds)
    speeds = {name: [len(runs[name].work.symbols) / s / 1e6 for s in pair] for name, pair in seconds.items()}
    best = [max((speeds[name][i] for name in PEERS if name in speeds), default=None) for i in range(2)]
    cases = []
    for name, run in runs.items():
        encode, decode = speeds[name]
        cases.append(
            {
                "machine": processor(),
                "workload": work.name,
                "threads": threads,
                "name": name,
                "version": version(name),
                **sizes(run),
                "encode_s": seconds[name][0],
                "decode_s": seconds[name][1],
                "encode_msymbols_s": encode,
                "decode_msymbols_s": decode,
                "encode_of_best_peer": best[0] and encode / best[0],
                "decode_of_best_peer": best[1] and decode / best[1],
            }
        )
    return cases


def sizes(run: Run) -> Case:
    """Return how many symbols and bytes there are, and how far the bytes are from the ideal of tables and model."""
    model_bits = run.work.codelength(run.work.pmfs)
    return {
        "symbols": len(run.work.symbols),
        "bits_a_symbol": model_bits / len(run.work.symbols),
        "bytes": run.n_bytes,
        "over_tables_percent": None if run.table_bits is None else 100 * (8 * run.n_bytes / run.table_bits - 1),
        "over_model_percent": 100 * (8 * run.n_bytes / model_bits - 1),
    }


def table(cases: list[Case]) -> str:
    """Return the text that is printed of one workload and number of threads."""
    first = cases[0]
    threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
    ways = "".join(f"{way:>9}{'':8}{'ms':>9}" for way in ("encode", "decode"))
    lines = [
        f"\n{first['workload']}, {first['bits_a_symbol']:.4f} bits per symbol, {threads}",
        f"{'':28}{'symbols':>9}{'bytes':>9}{ways}{'over tables':>13}{'model':>9}",
    ]
    for case in cases:
        over = case["over_tables_percent"]
        speeds = "".join(
            f" {case[f'{way}_msymbols_s']:8.1f} {times(case[f'{way}_of_best_peer']):7}{1000 * case[f'{way}_s']:9.2f}"
            for way in ("encode", "decode")
        )
        lines.append(
            f"{case['name']:28}{case['symbols']:9}{case['bytes']:9}{speeds}"
            f"{'' if over is None else f'{over:.3f} %':>13}{case['over_model_percent']:7.3f} %"
        )
    return "\n".join(lines)


def times(ratio: float | None) -> str:
    """Return a ratio as text."""
    return "" if ratio is None else f"x{ratio:.2f}"


def version(name: str) -> str:
    """Return the package behind a contestant, and its version."""
    if name not in PEERS:
        return f"laconic {laconic.__version__}"
    package = name.replace(",", "").split()[0]
    return f"{package} {importlib.metadata.version(package)}"


def rounds(runs: dict[str, Any], n: int) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each pair of calls. Each round has an order of its own: what ran before leaves its caches."""
    order = random.Random(1)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(n):
        for name, (encode, decode) in order.sample(list(runs.items()), len(runs)):
            start = time.perf_counter()
            encode()
            middle = time.perf_counter()
            decode()
            seconds[name].append((middle - start, time.perf_counter() - middle))
    return {
        name: (statistics.median(e for e, _ in s), statistics.median(d for _, d in s)) for name, s in seconds.items()
    }
