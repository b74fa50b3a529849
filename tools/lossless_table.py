"""Small pictures without loss, beside the literature: `python -m laconic.tools.lossless_table DATA --datasets mnist fashion`.

DATA/NAME holds the idx files of a data set, plain, .gz or .xz: train-images-idx3-ubyte and t10k-images-idx3-ubyte. A circuit
is trained on the first, unless the model folder has it already, and the second is coded as one archive; every figure but the
float model's is of those bytes, which are decoded again and compared.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic import registry
from laconic.entropy.errors import BadInput, LaconicError, expect
from laconic.media import archive
from laconic.medium import Run
from laconic.registry import ModelInfo

FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
OPENERS: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".xz": lzma.open}
# Test bits per dimension: Dang, Liu, Van den Broeck, "Sparse probabilistic circuits via pruning and growing", NeurIPS 2022,
# table 1; they are the models', not of files.
COLUMNS = ("SparsePC", "HCLT", "IDF", "BitSwap", "BB-ANS")
LITERATURE = {"mnist": (1.14, 1.20, 1.90, 1.27, 1.39), "fashion": (3.27, 3.34, 3.47, 3.28, 3.66)}


@dataclass(frozen=True)
class Row:
    """Holds a data set's figures: bits per pixel of the float model, the integer model and the archive; its bytes; seconds."""

    dataset: str
    model: str
    float_bpd: float | None
    integer_bpd: float
    coded_bpd: float
    n_bytes: int
    encode_s: float
    decode_s: float

    def line(self) -> str:
        known = LITERATURE.get(self.dataset)
        theirs = "".join(f"{v:9.2f}" for v in known) if known else ""
        exact = f"{self.float_bpd:8.4f}" if self.float_bpd is not None else "       -"
        ours = f"{exact}{self.integer_bpd:9.4f}{self.coded_bpd:9.4f}{self.n_bytes:10d}{self.encode_s:8.1f}{self.decode_s:8.1f}"
        return f"{self.dataset:10}{self.model:24}{ours}{theirs}"


HEAD = f"{'':34}   float  integer    coded     bytes   enc s   dec s" + "".join(f"{name:>9}" for name in COLUMNS)


def main(argv: list[str] | None = None) -> int:
    """Print a line a data set; 1 where something fails."""
    args = parse(argv)
    print(HEAD)
    try:
        for dataset in args.datasets:
            print(measure(dataset, args).line(), flush=True)
    except (LaconicError, OSError) as error:
        print(f"lossless_table: {error}", file=sys.stderr)
        return 1
    return 0


def measure(dataset: str, args: argparse.Namespace) -> Row:
    """Train or find the circuit, code the test pictures, decode and compare them."""
    folder = args.data / dataset
    test = read_idx(find_file(folder, "test"))[: args.limit]
    circuit, float_bpd = circuit_for(dataset, folder, test, args)
    model = registry.load_circuit(circuit)

    def encode(pictures: NDArray[np.uint8]) -> bytes:
        return archive.encode(pictures, None, circuit, args.threads, device=args.device)

    def decode(data: bytes) -> NDArray[np.uint8]:
        return archive.parsed(data, Run(args.device), model).all(args.threads)

    decode(encode(test[:1]))  # kernels are compiled before the clock starts
    begun = time.perf_counter()
    data = encode(test)
    encoded = time.perf_counter()
    back = decode(data)
    decoded = time.perf_counter()
    expect(np.array_equal(back, test), LaconicError, "decoded pictures", "others", "those that were coded")
    return Row(
        dataset=dataset,
        model=circuit.name,
        float_bpd=float_bpd,
        integer_bpd=model.codelength(test) / test.size,
        coded_bpd=8 * len(data) / test.size,
        n_bytes=len(data),
        encode_s=encoded - begun,
        decode_s=decoded - encoded,
    )


def circuit_for(
    dataset: str, folder: Path, test: NDArray[np.uint8], args: argparse.Namespace
) -> tuple[ModelInfo, float | None]:
    """Return the folder's circuit or a new one, and its float model's bits per test pixel, where known for these pictures."""
    name = f"{dataset}-hclt{args.states}" + (f"-c{args.contexts}" if args.contexts > 1 else "")
    path = args.output / f"{name}.safetensors"
    card = registry.read_card(path.with_suffix(".json")) if path.exists() else None
    if card is not None:
        circuit = registry.model_at(path)
        measured = card.get("measured", {})
        return circuit, measured.get("float_bpd") if measured.get("n_pictures") == len(test) else None
    return train(name, read_idx(find_file(folder, "train"))[: args.train_limit], test, args)


def train(
    name: str, pictures: NDArray[np.uint8], test: NDArray[np.uint8], args: argparse.Namespace
) -> tuple[ModelInfo, float]:
    """Learn a circuit and put it into the model folder."""
    import torch

    from laconic.models.hclt_learn import LearnConfig, Learner

    torch.set_num_threads(args.threads or 1)
    config = LearnConfig(states=args.states, contexts=args.contexts, epochs=args.epochs)
    begun = time.monotonic()
    learner = Learner.start(pictures, config, args.device)
    learner.run(lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True), 60 * args.minutes)
    float_bpd = learner.bpd(test)
    card: dict[str, Any] = {
        "data": f"the first {len(pictures)} training pictures of {name.partition('-hclt')[0]}",
        "states": args.states,
        "contexts": args.contexts,
        "seconds": round(time.monotonic() - begun),
        "measured": {"float_bpd": round(float_bpd, 5), "n_pictures": len(test)},
    }
    return registry.save(learner.export(), args.output, name, card), float_bpd


def find_file(folder: Path, part: str) -> Path:
    """Return the idx file of a part. Raises BadInput."""
    paths = [folder / (FILES[part] + suffix) for suffix in OPENERS]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise BadInput(f"{part} pictures: found none in {folder}, expected {FILES[part]}, plain, .gz or .xz")
    return found


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the pictures of an idx file, uint8 [N, H, W]. Raises BadInput."""
    try:
        with OPENERS[path.suffix if path.suffix in OPENERS else ""](path, "rb") as file:
            raw = file.read()
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise BadInput(f"{path}: found damage ({error}), expected a sound {path.suffix} file") from error
    expect(
        len(raw) >= 16 and raw[:4] == b"\0\0\x08\x03", BadInput, f"{path}, head", raw[:4], "0 0 8 3: bytes of 3 axes"
    )
    n, height, width = np.frombuffer(raw, ">u4", 3, 4).tolist()
    size = 16 + n * height * width
    expect(len(raw) == size, BadInput, f"{path}, bytes", len(raw), f"{size} of {n} pictures of {height} x {width}")
    return np.frombuffer(raw, np.uint8, offset=16).reshape(n, height, width)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lossless_table", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder with a folder of idx files for each data set")
    add("--datasets", nargs="+", default=["mnist", "fashion"], metavar="NAME", help="default: mnist fashion")
    add("--states", type=int, default=64, help="hidden states of the busiest pixels (default: %(default)s)")
    add(
        "--contexts",
        type=int,
        default=8,
        help="contexts of a pixel at most; 1 is the plain HCLT (default: %(default)s)",
    )
    add("--epochs", type=int, default=40, help="of training (default: %(default)s)")
    add("--minutes", type=float, default=30, help="of training at most, roughly (default: %(default)s)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what trains and codes (default: %(default)s)")
    add("--threads", type=int, help="of training (default: 1) and of coding (default: one per core)")
    add("--limit", type=int, metavar="N", help="code the first N test pictures (default: all)")
    add("--train-limit", type=int, metavar="N", help="train on the first N pictures (default: all)")
    add("-o", "--output", type=Path, default=registry.folders()[-2], help="model folder (default: %(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
