"""Learn a photo model's table rows: `python -m laconic.tools.row_tables photo-6 --data PHOTOS`.

What the integer branch calls a row is not quite a Gaussian of its scale: a symbol is 0, or far off, more often. The symbols
that the shipped encoder makes of photos, plain and searched, are counted by row, and the rows stored with the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import laconic
from laconic import registry
from laconic.entropy.pmf import TOTAL, quantise
from laconic.entropy.tables import Tables, gaussian_tables
from laconic.models.photo import MASSES
from laconic.tools.train_image import read_pictures

SIDE = 256  # pixels of the crops
WAYS = ((1, None), (None, "eye"), (None, "psnr"))  # effort and tune
PRIOR = 3000.0  # symbols that the Gaussian of a row counts for


def main(argv: list[str] | None = None) -> None:
    """Write the rows into NAME.safetensors, and its digest into NAME.json; print what they save."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.row_tables", description=__doc__)
    parser.add_argument("name", help="a photo model of `laconic models`")
    parser.add_argument("--data", type=Path, required=True, help="folder or tar of photos")
    parser.add_argument("--crops", type=int, default=120)
    args = parser.parse_args(argv)
    weights = Path(registry.find(args.name).path)
    card = weights.with_suffix(".json")
    counts, held_out = (counted(args.name, part) for part in parts(read_pictures(args.data), args.crops))
    tables = learnt(counts)
    save_file(load_file(weights) | {MASSES: flat(tables)}, weights)
    weights.chmod(0o644)
    described = json.loads(card.read_text()) | {"digest": hashlib.sha256(weights.read_bytes()).hexdigest()}
    card.write_text(json.dumps(described, indent=2) + "\n")
    before, after = (float((held_out * t.bits).sum()) for t in (gaussian_tables(), tables))
    print(f"{int(counts.sum())} symbols; of {int(held_out.sum())} others, the bits: {after / before - 1:+.2%}")


def parts(pictures: list[NDArray[np.uint8]], n: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Yield n crops to learn from, and a fifth as many of other pictures to measure on."""
    rng = np.random.default_rng(1)
    large = [p for p in pictures if min(p.shape[:2]) >= SIDE]
    order = rng.permutation(len(large))
    split = min(n, len(large) * 5 // 6)
    for chosen in (order[:split], order[split : split + max(1, split // 5)]):
        corners = [[int(rng.integers(side - SIDE + 1)) for side in large[i].shape[:2]] for i in chosen]
        yield [large[i][y : y + SIDE, x : x + SIDE] for i, (y, x) in zip(chosen, corners, strict=True)]


def counted(name: str, crops: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Return how often each entry of each row is coded, [rows, entries], with each way to encode, at all qualities."""
    tables, codec = gaussian_tables(), laconic.Codec(model=name)
    counts = np.zeros(tables.bits.shape, np.int64)
    rng = np.random.default_rng(2)
    for crop in tqdm(crops, unit="crop", disable=None):
        for effort, tune in WAYS:
            data = codec.compress(crop, quality=float(rng.uniform(5, 95)), effort=effort, tune=tune, fallback=False)
            for symbols, rows in codec.coded(data):
                np.add.at(counts, (rows, tables.entries(symbols, rows)), 1)
    return counts


def learnt(counts: NDArray[np.int64]) -> Tables:
    """Return rows, symmetric about 0 but for the last rounding, of counts smoothed towards the Gaussians where they are few."""
    like = gaussian_tables()
    masses = []
    for row, size in enumerate(like.sizes.tolist()):
        gaussian = np.diff(like.cdf[row, : size + 1].astype(np.int64))
        seen = counts[row, :size].astype(float)
        seen[: size - 1] = (seen[: size - 1] + seen[size - 2 :: -1]) / 2
        masses.append(quantise(seen + gaussian * (PRIOR / TOTAL)))
    return Tables.from_masses(masses, like.offsets)


def flat(tables: Tables) -> torch.Tensor:
    """Return the masses of rows as `learnt_tables` reads them."""
    masses = [np.diff(cdf[: n + 1].astype(np.int64)) for cdf, n in zip(tables.cdf, tables.sizes.tolist(), strict=True)]
    return torch.from_numpy(np.concatenate(masses).astype(np.int16))


if __name__ == "__main__":
    main()
