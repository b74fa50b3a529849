"""Float PMF -> integer PMF, at the least added codelength.

Coders need integer masses, all at least 1, whose sum is a power of two: TOTAL, 2**PRECISION.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadInput, expect

PRECISION = 15
TOTAL = 1 << PRECISION


def quantise(pmf: ArrayLike, total: int = TOTAL) -> NDArray[np.int64]:
    """Return the integer masses that code a source of `pmf` with the fewest bits.

    pmf: float [n], finite, >= 0, not all 0, 1 <= n <= total; need not sum to 1.
    Returns int64 [n], each >= 1, sum `total`. Raises BadInput.
    The rounding error is spread greedily in steps of one, which is optimal because the cost of a symbol, -p log2 f, is
    convex in its mass f. Ties go to the lowest index.
    """
    p = floats(pmf, "pmf")
    expect(1 <= p.size <= total, BadInput, "pmf shape", p.shape, f"[n], n in 1 to {total}")
    expect(bool(np.isfinite(p).all() and (p >= 0).all() and p.sum() > 0), BadInput, "pmf", "a bad mass", "masses >= 0")
    p = p / p.sum()
    masses: list[int] = np.maximum(1, np.floor(p * total)).astype(np.int64).tolist()
    weights: list[float] = p.tolist()
    surplus = total - sum(masses)
    move = 1 if surplus > 0 else -1
    heap = [(cost(weights[i], masses[i], move), i) for i in range(len(masses)) if masses[i] + move >= 1]
    heapq.heapify(heap)
    for _ in range(abs(surplus)):
        _, i = heapq.heappop(heap)
        masses[i] += move
        if masses[i] + move >= 1:
            heapq.heappush(heap, (cost(weights[i], masses[i], move), i))
    return np.asarray(masses, np.int64)


def floats(values: ArrayLike, field: str) -> NDArray[np.float64]:
    """Return values as float64 [n]. Raises BadInput."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{field}: found {type(values).__name__} ({error}), expected floats [n]") from None
    expect(array.ndim == 1, BadInput, f"{field} shape", array.shape, "[n]")
    return array


def cost(weight: float, mass: int, move: int) -> float:
    """Return the bits that changing a mass by `move` adds."""
    return -weight * math.log2((mass + move) / mass)
