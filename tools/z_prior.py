"""Measure what a circuit would save in place of the factorised prior of the hyper-latent z.

    python -m laconic.tools.z_prior TRAIN VALID

The channels of z at one place are the variables of a hidden Chow-Liu tree (models/circuit_shapes.py), learnt from the
photos of one folder and measured on those of another. The factorised prior is what photo files use, with the rows of Gaussians. All in bits,
ideally coded; the verdict stands in docs/circuits.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import laconic
from laconic import entropy
from laconic.entropy.pmf import PRECISION
from laconic.models.circuit_learn import learn
from laconic.models.circuit_shapes import hclt
from laconic.models.photo import PhotoConfig
from laconic.suffixes import PICTURES

HALF = 8  # values from -8 to 7 are told apart; those beyond are rare and count as the nearest of these


def main(argv: list[str] | None = None) -> int:
    """Print both codelengths of z, and what share of the files the difference is; 1 where something fails."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.z_prior", description=description)
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--quality", type=float, default=60.0)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args(argv)
    try:
        for line in measured(args):
            print(line)
    except (laconic.LaconicError, OSError) as error:
        print(f"z_prior: {error}", file=sys.stderr)
        return 1
    return 0


def measured(args: argparse.Namespace) -> list[str]:
    """Learn a circuit from args.train and measure it on args.valid. Raises BadInput where a folder holds no photo."""
    x, _, _ = gathered(args.train, args.quality)
    valid, factorised, n_bytes = gathered(args.valid, args.quality)
    circuit = learn(hclt(chow_liu(x), args.states, 2 * HALF), x, args.epochs, batch=512, step=0.3, pseudocount=1.0)
    learnt = -float(circuit.log_likelihood(valid).sum()) / np.log(2)
    saved, n = factorised - learnt, len(valid)
    return [
        f"{len(x)} places to learn from, {n} to measure on, quality {args.quality:g}",
        f"factorised {factorised / n:.2f} bits per place, circuit {learnt / n:.2f}: {saved / factorised:.1%} of z",
        f"saved {saved / 8:.0f} of {n_bytes} bytes of the files: {saved / 8 / n_bytes:.2%}",
    ]


def gathered(folder: Path, quality: float) -> tuple[NDArray[np.int64], float, int]:
    """Return z of all photos, [places, channels] in 0..15, its bits under the factorised prior, and the bytes of the
    files.

    Raises BadInput where the folder holds no photo.
    """
    codec, channels = laconic.Codec(), PhotoConfig().hyper_channels
    tables = entropy.gaussian_tables()
    masses = np.diff(tables.cdf.astype(np.int64), axis=1)
    places, bits, n_bytes = [], 0.0, 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES):
        data = codec.compress(path, quality=quality, strip=True, notes=[])
        symbols, rows = codec.coded(data)[0]
        places.append(symbols.reshape(channels, -1).T)
        bits += float((PRECISION - np.log2(masses[rows, tables.entries(symbols, rows)])).sum())
        n_bytes += len(data)
    if not places:
        raise laconic.BadInput(f"{folder}: found no photo, expected {' '.join(sorted(PICTURES))}")
    return np.concatenate(places).clip(-HALF, HALF - 1).astype(np.int64) + HALF, bits, n_bytes


def chow_liu(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each variable's parent, -1 at the root, in the tree of most mutual information (Chow, Liu 1968)."""
    n = x.shape[1]
    shares = np.eye(2 * HALF)[x].reshape(len(x), -1)  # one-hot
    joint = (shares.T @ shares / len(x)).reshape(n, 2 * HALF, n, 2 * HALF).transpose(0, 2, 1, 3) + 1e-9
    own = np.einsum("iikk->ik", joint)
    information = (joint * np.log(joint / (own[:, None, :, None] * own[None, :, None, :]))).sum((2, 3))
    parent, best, reach = np.full(n, -1), np.zeros(n, np.int64), information[0].copy()
    outside = np.arange(n) > 0
    while outside.any():  # Prim
        v = int(np.where(outside, reach, -np.inf).argmax())
        parent[v], outside[v] = best[v], False
        nearer = outside & (information[v] > reach)
        best[nearer], reach[nearer] = v, information[v][nearer]
    return parent


if __name__ == "__main__":
    sys.exit(main())
