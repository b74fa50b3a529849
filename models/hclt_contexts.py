"""The contexts of a hidden Chow-Liu tree: what pixels near by, coded earlier, say of a pixel (`Hclt.contexts`).

A prediction by least squares, rounded to integer weights, is cut by thresholds into a few classes. They are chosen one
after the other where they tell most about the value.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.models.hclt import PREDICTION_BITS, VALUES, context, first_places

SAMPLE = 20_000  # pictures that the contexts are made from
REACH = 2  # pixels: how far a neighbour is away at most
RIDGE = 10  # times the number of pictures, on the diagonal: weights stay small where neighbours are alike
CLASSES, CLASS_SHIFT = 17, 4  # classes of values, for thresholds: 0, and sixteenths
LEAST_GAIN = 1e-3  # nats per picture that a threshold has to tell


@dataclass(frozen=True)
class Contexts:
    """Holds the contexts of all pixels, by pixel.

    neighbours: int64 [n], numbers of pixels. weights: int64 [n], of 1 / 256. thresholds: integers in 0..255, rising,
    one fewer than there are contexts.
    """

    neighbours: list[NDArray[np.int64]]
    weights: list[NDArray[np.int64]]
    thresholds: list[list[int]]

    @staticmethod
    def fit(data: NDArray[np.uint8], height: int, width: int, order: NDArray[np.int64], most: int) -> Contexts:
        """Find the contexts of pictures [N, D] whose pixels are coded in an order [D], at most `most` per pixel."""
        sample = data[:SAMPLE].astype(np.float32)
        y, x = np.divmod(np.arange(height * width), width)
        rank = np.argsort(order)
        found = Contexts([], [], [])
        for v in range(height * width):
            apart = (y - y[v]) ** 2 + (x - x[v]) ** 2
            near = np.flatnonzero((apart <= REACH**2) & (rank < rank[v])) if most > 1 else np.zeros(0, np.int64)
            seen = sample[:, near]
            square = seen.T @ seen + RIDGE * len(seen) * np.eye(len(near), dtype=np.float32)
            exact = np.linalg.solve(square, seen.T @ sample[:, v]) * (1 << PREDICTION_BITS)
            weights = np.clip(np.rint(exact), -(1 << 15), (1 << 15) - 1).astype(np.int64)
            prediction = (seen.astype(np.int64) @ weights) >> PREDICTION_BITS
            values = sample[:, v].astype(np.int64)
            found.thresholds.append(best_thresholds(np.clip(prediction, 0, VALUES - 1), values, most))
            used = slice(None if found.thresholds[-1] else 0)
            found.neighbours.append(near[used])
            found.weights.append(weights[used])
        return found

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many contexts each pixel has, int64 [D]."""
        return np.array([len(t) + 1 for t in self.thresholds])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return them as the fields of `Hclt`."""
        return {
            "n_contexts": self.sizes.astype(np.uint8),
            "n_neighbours": np.array([len(n) for n in self.neighbours], np.uint8),
            "neighbours": flat_array(self.neighbours, np.int16),
            "weights": flat_array(self.weights, np.int16),
            "thresholds": flat_array(self.thresholds, np.uint8),
        }

    def rows(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Return each pixel's row in its table, 256 * context + value: uint16 [D, N], of pictures [N, D]."""
        a = self.arrays()
        near, cuts = first_places(a["n_neighbours"]), first_places(self.sizes - 1)
        rows = np.empty(pictures.shape[::-1], np.uint16)
        context_rows(pictures, near, a["neighbours"], a["weights"], cuts, a["thresholds"], rows)
        return rows


def best_thresholds(prediction: NDArray[np.int64], values: NDArray[np.int64], most: int) -> list[int]:
    """Return at most `most` - 1 thresholds of a prediction [N] that lower the entropy of the values [N] most.

    Both are integers in 0..255. Thresholds are found one after the other, each given those before.
    """
    joint = np.zeros((VALUES, CLASSES))
    np.add.at(joint, (prediction, np.where(values == 0, 0, 1 + (values >> CLASS_SHIFT))), 1)
    below = np.concatenate([np.zeros((1, CLASSES)), joint.cumsum(0)])
    cuts = [0, VALUES]
    for _ in range(most - 1):
        best, gain = 0, len(values) * LEAST_GAIN
        for low, high in itertools.pairwise(cuts):
            inside = np.arange(low + 1, high)
            parts = nats(below[inside] - below[low]) + nats(below[high] - below[inside])
            gains = nats(below[high] - below[low]) - parts
            if len(inside) and gains.max() > gain:
                best, gain = int(inside[gains.argmax()]), float(gains.max())
        if not best:
            break
        cuts = sorted([*cuts, best])
    return cuts[1:-1]


def nats(counts: NDArray[np.float64]) -> Any:
    """Return the entropy of counts times their sum, over the last axis."""
    total = np.maximum(counts.sum(-1, keepdims=True), 1e-9)
    return -(counts * np.log(np.maximum(counts, 1e-9) / total)).sum(-1)


@numba.njit(cache=True, nogil=True)
def context_rows(pictures, near, neighbours, weights, cuts, thresholds, rows):  # type: ignore[no-untyped-def]
    """Put what `Contexts.rows` returns into rows.

    near, cuts: where the neighbours and thresholds of each pixel begin.
    """
    for v in range(rows.shape[0]):
        for b in range(rows.shape[1]):
            c = context(pictures[b], near[v], near[v + 1], neighbours, weights, cuts[v], cuts[v + 1], thresholds)
            rows[v, b] = c * VALUES + pictures[b, v]


def flat_array(parts: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Return the parts, flat, one after the other."""
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype).ravel() for part in parts)])
