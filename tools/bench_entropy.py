"""The entropy coder beside its peers: `python -m laconic.tools.bench entropy`.

Each contestant gets the same float model, makes tables of it in its own way and takes its input in the form that it
likes best; what it decodes is compared with the symbols before anything is timed. constriction and CompressAI code in
one thread, however many the others have.

    gauss    64 Gaussian rows, scales mixed as in a latent of a middle rate: 1.3 bits a symbol
    low      the same rows at a very low rate: 0.11 bits a symbol
    static   one row of 256 symbols: 6.0 bits a symbol
    latents  a photo through CompressAI's mbt2018-mean, with its tables (`latents`)
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import random
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import laconic
from laconic import entropy
from laconic.entropy import adaptive, rans_simd
from laconic.entropy.errors import expect
from laconic.tools.metrics import Absent, needed

Case = dict[str, Any]
SLOW_SYMBOLS, SLOWEST_SYMBOLS = 1 << 20, 1 << 16  # what slow contestants code at most
COMPRESSAI_BITS = 16
LOOKUP_BITS = 8  # of torch_ans's inverse CDF: of 5 to 9 the fastest
LATENT_GAIN = 7.0  # 0.5 bpp
LESSER_CPUS = {"simd, AVX2": "x86-64-v3", "simd, SSE4": "x86-64-v2"}
HEAD = """{machine}, {cores} cores; median of {rounds} rounds over all contestants
encode, decode: million symbols a second, times the best peer in that direction, milliseconds
over tables, model: bytes beyond the ideal codelength of the contestant's own tables, of the float model"""


def bench_entropy(args: Namespace) -> list[Case]:
    """Speed and rate of every backend and peer on each workload and number of threads."""
    contestants = installed()
    only = args.only or list(contestants)
    for name in only:
        expect(name in contestants, laconic.BadInput, "only", name, f"one of {', '.join(contestants)}")
    contestants = {name: contestants[name] for name in only}
    print(HEAD.format(machine=machine(), cores=os.cpu_count(), rounds=args.rounds))
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
    """The adaptive models on a walk of 16 symbols, by the number of strips; one thread."""
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
    print(f"{machine()}; 16 symbols in contexts of two, {len(symbols)} of them, million a second")
    for (name, seconds), data in zip(rounds(runs, args.rounds).items(), coded.values(), strict=True):
        speeds = [len(symbols) / s / 1e6 for s in seconds]
        bits = 8 * len(data) / len(symbols)
        print(f"{name:12} {bits:.4f} bits a symbol   encode {speeds[0]:6.1f}   decode {speeds[1]:6.1f}")
        cases.append(
            {"name": name, "bits_a_symbol": bits, "encode_msymbols_s": speeds[0], "decode_msymbols_s": speeds[1]}
        )
    return cases


@dataclass(frozen=True)
class Workload:
    """What all code: symbols int16 [N] by rows uint8 [N].

    pmfs: float64, one a row, the escape last. tables: ours, of the same rows. scales: of the rows, where Gaussian.
    """

    name: str
    symbols: NDArray[np.int16]
    rows: NDArray[np.uint8]
    pmfs: list[NDArray[np.float64]]
    tables: entropy.Tables
    scales: NDArray[np.float64] | None = None

    def first(self, n: int) -> Workload:
        return replace(self, symbols=self.symbols[:n], rows=self.rows[:n])

    def codelength(self, masses: list[Any]) -> float:
        """Ideal bits where each row has these masses, of any sum."""
        bits = np.zeros((len(masses), max(map(len, masses))))
        for row, p in enumerate(masses):
            bits[row, : len(p)] = math.log2(sum(p)) - np.log2(np.maximum(p, 1e-300))
        return float(bits[self.rows, self.tables.entries(self.symbols, self.rows)].sum())


@dataclass(frozen=True)
class Run:
    """A contestant, ready: the calls to time, what it coded in how many bytes, the ideal bits of its tables if known."""

    encode: Callable[[], Any]
    decode: Callable[[], Any]
    work: Workload
    n_bytes: int
    table_bits: float | None


Contestant = Callable[[Workload, int], Run | None]  # None: not for this workload


def ours(backend: str, most: int = sys.maxsize, cpu: str = rans_simd.NATIVE) -> Contestant:
    """cpu: whose vector instructions are used."""

    def ready(whole: Workload, threads: int) -> Run:
        work = whole.first(most)
        how = work.rows, work.tables, backend, threads

        def encode() -> bytes:
            with instructions_of(cpu):
                return entropy.encode(work.symbols, *how)

        data = encode()

        def decode() -> NDArray[np.int16]:
            with instructions_of(cpu):
                return entropy.decode(data, *how)

        same(backend, decode(), work.symbols)
        return Run(encode, decode, work, len(data), work.tables.codelength(work.symbols, work.rows))

    return ready


@contextmanager
def instructions_of(cpu: str) -> Iterator[None]:
    before, rans_simd.CPU = rans_simd.CPU, cpu
    try:
        yield
    finally:
        rans_simd.CPU = before


def cuda(work: Workload, threads: int) -> Run:
    """From tensors to tensors on the GPU, as networks have them."""
    import torch

    from laconic.entropy import rans_cuda

    symbols, rows = (torch.from_numpy(array).cuda() for array in (work.symbols, work.rows))

    def finished(out: Any) -> Any:
        torch.cuda.synchronize()
        return out

    def encode() -> Any:
        return finished(rans_cuda.encode(symbols, rows, work.tables))

    data = encode()

    def decode() -> Any:
        return finished(rans_cuda.decode(data, rows, work.tables))

    same("cuda", decode().cpu().numpy(), work.symbols)
    return Run(encode, decode, work, len(data), work.tables.codelength(work.symbols, work.rows))


def constriction_sorted(kind: str, given: str) -> Contestant:
    """A model a row, so symbols have to be sorted by row: with "arrays" they are, and are put back, within the time.

    Escapes are coded without their values. Its tables have 24 bits and cannot be read.
    """

    def ready(work: Workload, threads: int) -> Run:
        stream = needed("constriction", "constriction").stream
        entries = work.tables.entries(work.symbols, work.rows)
        rows, counts = np.unique(work.rows, return_counts=True)
        models = [stream.model.Categorical(work.pmfs[row], perfect=False) for row in rows]
        sizes, edges = counts.tolist(), np.cumsum(counts)[:-1]

        def sort() -> list[NDArray[Any]]:
            return np.split(entries[np.argsort(work.rows, kind="stable")], edges)

        def encode(parts: list[NDArray[Any]]) -> Any:
            if kind == "range":
                coder = stream.queue.RangeEncoder()
                for part, model in zip(parts, models, strict=True):
                    coder.encode(part, model)
            else:
                coder = stream.stack.AnsCoder()
                for part, model in zip(reversed(parts), reversed(models), strict=True):
                    coder.encode_reverse(part, model)
            return coder.get_compressed()

        parts = sort()
        words = encode(parts)

        def decode() -> list[Any]:
            coder = stream.queue.RangeDecoder(words) if kind == "range" else stream.stack.AnsCoder(words)
            return [coder.decode(model, n) for model, n in zip(models, sizes, strict=True)]

        def put_back() -> NDArray[Any]:
            out = np.empty_like(entries)
            out[np.argsort(work.rows, kind="stable")] = np.concatenate(decode())
            return out

        same("constriction", put_back(), entries)
        if given == "sorted":
            return Run(lambda: encode(parts), decode, work, 4 * len(words), None)
        return Run(lambda: encode(sort()), put_back, work, 4 * len(words), None)

    return ready


def constriction_gaussian(whole: Workload, threads: int) -> Run | None:
    """A scale a symbol, in the order of the symbols."""
    if whole.scales is None:
        return None
    stream, work = needed("constriction", "constriction").stream, whole.first(SLOW_SYMBOLS)
    symbols, scales = work.symbols.astype(np.int32), whole.scales[work.rows]
    model, means = stream.model.QuantizedGaussian(int(symbols.min()), int(symbols.max())), np.zeros(len(symbols))

    def encode() -> Any:
        coder = stream.queue.RangeEncoder()
        coder.encode(symbols, model, means, scales)
        return coder.get_compressed()

    words = encode()

    def decode() -> Any:
        return stream.queue.RangeDecoder(words).decode(model, means, scales)

    same("constriction", decode(), symbols)
    return Run(encode, decode, work, 4 * len(words), None)


def torch_ans(work: Workload, threads: int) -> Run:
    """rans64, four states a stream, decoded by a lookup; a stream a thread. Of its variants the fastest here.

    `set_cdfs` takes our 15-bit tables. Its kernel reads a row's lookup right after the row's own end, where its own
    builder puts it only if all rows are equally long, so each row's is made apart.
    """
    import torch

    api = needed("torch_ans.utils", "laconic[bench]")
    torch.set_num_threads(threads)
    coder = api.TorchANSInterface(
        impl="rans64",
        freq_precision=15,
        num_interleaves=4,
        num_parallel_states=threads,
        inverse_cdf_precision=LOOKUP_BITS,
        device="cpu",
    )
    n_cdf = work.tables.sizes + 1
    rows = [torch.from_numpy(row[:n].astype(np.int32)) for row, n in zip(work.tables.cdf, n_cdf, strict=True)]
    rows = [api.build_cdf_with_inverse_table(row, 15, LOOKUP_BITS) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    coder.set_cdfs(padded, torch.from_numpy(n_cdf), torch.from_numpy(work.tables.offsets))
    symbols, indices = (torch.from_numpy(array.astype(np.int32)) for array in (work.symbols, work.rows))

    def encode() -> Any:
        return coder.encode_with_indexes(symbols, indices)

    data = encode()

    def decode() -> Any:
        return coder.decode_with_indexes(data, indices)

    same("torch_ans", decode().numpy(), work.symbols)
    return Run(encode, decode, work, len(data), work.tables.codelength(work.symbols, work.rows))


def compressai(given: str) -> Contestant:
    """Its coder takes and gives lists: with "arrays" they are made of arrays, and those of them, within the time."""

    def ready(whole: Workload, threads: int) -> Run:
        api, work = needed("compressai.ans", ZOO), whole.first(SLOW_SYMBOLS)
        quantised = needed("compressai._CXX", ZOO).pmf_to_quantized_cdf
        cdfs = [quantised(p.tolist(), COMPRESSAI_BITS) for p in work.pmfs]
        how = cdfs, [len(cdf) for cdf in cdfs], work.tables.offsets.tolist()
        symbols, rows = work.symbols.tolist(), work.rows.tolist()

        def encode_lists() -> Any:
            return api.RansEncoder().encode_with_indexes(symbols, rows, *how)

        def encode_arrays() -> Any:
            return api.RansEncoder().encode_with_indexes(work.symbols.tolist(), work.rows.tolist(), *how)

        data = encode_lists()

        def decode_lists() -> Any:
            return api.RansDecoder().decode_with_indexes(data, rows, *how)

        def decode_arrays() -> Any:
            return np.array(api.RansDecoder().decode_with_indexes(data, work.rows.tolist(), *how), np.int16)

        same("compressai", decode_arrays(), work.symbols)
        pair = (encode_lists, decode_lists) if given == "lists" else (encode_arrays, decode_arrays)
        return Run(*pair, work, len(data), work.codelength([np.diff(cdf) for cdf in cdfs]))

    return ready


ZOO = "laconic[zoo], in an environment of its own: it needs numpy 1"
PEERS: dict[str, tuple[str, str, Contestant]] = {  # name: its module, what brings it, itself
    "constriction range, sorted": ("constriction", "constriction", constriction_sorted("range", "sorted")),
    "constriction ans, sorted": ("constriction", "constriction", constriction_sorted("ans", "sorted")),
    "constriction range, arrays": ("constriction", "constriction", constriction_sorted("range", "arrays")),
    "constriction gaussian": ("constriction", "constriction", constriction_gaussian),
    "torch_ans rans64 x4": ("torch_ans", "laconic[bench]", torch_ans),
    "compressai, lists": ("compressai.ans", ZOO, compressai("lists")),
    "compressai, arrays": ("compressai.ans", ZOO, compressai("arrays")),
}


def installed() -> dict[str, Contestant]:
    """Our backends and the peers that are here; the others are named with the reason."""
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
    print(f"left out: {name}: {reason}", file=sys.stderr)


def compare(work: Workload, contestants: dict[str, Contestant], threads: int, n_rounds: int) -> list[Case]:
    """Time all on one workload; a ratio is against the fastest peer, another one for each direction."""
    runs = {name: run for name, ready in contestants.items() if (run := ready(work, threads))}
    seconds = rounds({name: (run.encode, run.decode) for name, run in runs.items()}, n_rounds)
    speeds = {name: [len(runs[name].work.symbols) / s / 1e6 for s in pair] for name, pair in seconds.items()}
    best = [max((speeds[name][i] for name in PEERS if name in speeds), default=None) for i in range(2)]
    cases = []
    for name, run in runs.items():
        model_bits = run.work.codelength(work.pmfs)
        over_tables = None if run.table_bits is None else 100 * (8 * run.n_bytes / run.table_bits - 1)
        cases.append(
            {
                "machine": machine(),
                "workload": work.name,
                "threads": threads,
                "name": name,
                "version": version(name),
                "symbols": len(run.work.symbols),
                "bits_a_symbol": model_bits / len(run.work.symbols),
                "bytes": run.n_bytes,
                "encode_s": seconds[name][0],
                "decode_s": seconds[name][1],
                "encode_msymbols_s": speeds[name][0],
                "decode_msymbols_s": speeds[name][1],
                "encode_of_best_peer": best[0] and speeds[name][0] / best[0],
                "decode_of_best_peer": best[1] and speeds[name][1] / best[1],
                "over_tables_percent": over_tables,
                "over_model_percent": 100 * (8 * run.n_bytes / model_bits - 1),
            }
        )
    return cases


def table(cases: list[Case]) -> str:
    first = cases[0]
    threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
    ways = "".join(f"{way:>9}{'':8}{'ms':>9}" for way in ("encode", "decode"))
    lines = [
        f"\n{first['workload']}, {first['bits_a_symbol']:.4f} bits a symbol, {threads}",
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
    return "" if ratio is None else f"x{ratio:.2f}"


def mixed_gaussians(name: str, n: int) -> Workload:
    """Scales of two populations ('gauss') or of one ('low'), rounded to the 64 rows of `gaussian_tables`."""
    rng, tables = np.random.default_rng(1), entropy.gaussian_tables()
    scales = np.exp(np.linspace(math.log(0.11), math.log(64), len(tables.sizes)))
    if name == "gauss":
        active = rng.random(n) < 0.36
        spread = np.where(active, rng.normal(math.log(1.6), 1, n), rng.normal(math.log(0.24), 0.55, n))
    else:
        spread = rng.normal(math.log(0.155), 0.4, n)
    rows = np.rint(np.interp(spread, np.log(scales), np.arange(len(scales)))).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(n) * scales[rows]).astype(np.int16)
    pmfs = [gaussian_pmf(scale, -offset) for scale, offset in zip(scales, tables.offsets.tolist(), strict=True)]
    return Workload(name, symbols, rows, pmfs, tables, scales)


def gaussian_pmf(scale: float, m: int) -> NDArray[np.float64]:
    """Masses of -m..m and of all beyond."""
    above = [math.erfc((k - 0.5) / scale / math.sqrt(2)) / 2 for k in range(m + 2)]
    side = -np.diff(above)
    return np.array([*side[:0:-1], *side, 2 * above[-1]])


def static(n: int) -> Workload:
    pmf = np.exp(-0.5 * ((np.arange(256) - 128) / 15.5) ** 2) + 2e-5
    pmf /= pmf.sum()
    symbols = np.random.default_rng(1).choice(256, n, p=pmf).astype(np.int16)
    tables = entropy.Tables.from_pmf([pmf], [0])
    return Workload("static", symbols, np.zeros(n, np.uint8), [np.append(pmf, 0)], tables)


def latents(n: int) -> Workload:
    """At most n symbols of the sample photo's latent in CompressAI's mbt2018-mean, quality 3, with the model's tables.

    Nothing is downloaded, so the weights are random ones. For a realistic rate the latent is scaled, and the scales are
    its local spread, which trained weights would predict.
    """
    zoo = needed("compressai.zoo", ZOO)
    import torch
    from PIL import Image

    torch.manual_seed(1)
    model = zoo.mbt2018_mean(quality=3, pretrained=False).eval()
    model.update()
    gaussian = model.gaussian_conditional
    photo = np.array(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    x = torch.from_numpy(photo[: len(photo) // 64 * 64]).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        y = LATENT_GAIN * model.g_a(x)
        scales = torch.nn.functional.avg_pool2d(y**2, 5, 1, 2, count_include_pad=False).sqrt()
        symbols, rows = gaussian.quantize(y, "symbols").flatten(), gaussian.build_indexes(scales).flatten()
    cdfs, sizes = gaussian.quantized_cdf.numpy(), gaussian.cdf_length.tolist()
    pmfs = [np.diff(cdf[:size]) / (1 << COMPRESSAI_BITS) for cdf, size in zip(cdfs, sizes, strict=True)]
    tables = entropy.Tables.from_pmf([pmf[:-1] for pmf in pmfs], gaussian.offset.numpy())
    whole = Workload("latents", symbols.numpy().astype(np.int16), rows.numpy().astype(np.uint8), pmfs, tables)
    return whole.first(n)


WORKLOADS: dict[str, Callable[[int], Workload]] = {
    "gauss": lambda n: mixed_gaussians("gauss", n),
    "low": lambda n: mixed_gaussians("low", n),
    "static": static,
    "latents": latents,
}


def same(name: str, found: NDArray[Any], symbols: NDArray[Any]) -> None:
    expect(np.array_equal(found, symbols), laconic.LaconicError, name, "other symbols", "those that it coded")


def version(name: str) -> str:
    """Of the package behind a contestant."""
    package = name.replace(",", "").split()[0] if name in PEERS else "laconic"
    return f"{package} {importlib.metadata.version(package)}"


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def rounds(runs: dict[str, Any], n: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each pair of calls. Each round has an order of its own: what ran before leaves its caches."""
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
