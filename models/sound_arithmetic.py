"""Arithmetic that the predictors of lossless sound share, the same to the bit on every machine (FORMAT.md, "Sums").

Floats are exact to repeat only if every operation is IEEE's and the order of each sum is fixed. So sums go by `dot`
(entropy/vectors.py), whose order is written out; nothing is fused or reordered; predictions go to a grid of 1/256; and
values that come near the subnormal range are set to 0 (`flush`): subnormals are slow, and some threads flush them,
which would change the bits.

Positions and counts are uint64, and counts are multiples of LANES.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from laconic.entropy.rans_numba import U64
from laconic.entropy.vectors import EIGHT, add_scaled, dot, subtract_rows

F64 = numba.float64
LANES = EIGHT  # sizes of predictors and of matrices are multiples of it
GRID = 256.0  # predictions are multiples of 1 / GRID
TINY = 1e-40  # smaller values become 0; products of two values that stay are still far from the subnormals of float64
LEAST_PIVOT = 1e-9  # an elimination with a smaller one gives no solution


class Solver(NamedTuple):
    """Holds room in which `solve` works, for matrices of up to n by n: allocated once, as kernels must not allocate.

    matrix: float64 [n * n]; vector: float64 [n]; inverse: float64 [n + LANES].
    """

    matrix: Any
    vector: Any
    inverse: Any

    @classmethod
    def of(cls, n: int) -> Solver:
        """Make room for matrices of n by n."""
        return cls(matrix=np.zeros(n * n), vector=np.zeros(n), inverse=np.zeros(n + LANES))


@numba.njit(cache=True, nogil=True)
def solve(matrix, vector, inverse, n):  # type: ignore[no-untyped-def]
    """Solve matrix w = vector for a symmetric matrix; w takes the vector's place (FORMAT.md, "solution").

    matrix: float64 [n * n], the upper triangle is read and overwritten; n a multiple of LANES. Returns False, and
    leaves no result, where the matrix is not positive definite, NaN included.

    Elimination goes by blocks of eight rows, so that a pass over the rest of the matrix does the work of eight. Vectors
    begin at multiples of eight, so blocks of eight by eight on the diagonal are written below it too; no result depends
    on those.
    """
    for first in range(U64(0), n, U64(LANES)):
        for i in range(first, first + U64(LANES)):
            for j in range(first, i):
                matrix[i * n + j] = 0.0
        for k in range(first, first + U64(LANES)):  # rows of the block take away the rows above them
            for i in range(first, k):
                g = -(matrix[i * n + k] * inverse[i])
                add_scaled(matrix, k * n + first, g, matrix, i * n + first, n - first)
            if not matrix[k * n + k] > LEAST_PIVOT:
                return False
            inverse[k] = 1.0 / matrix[k * n + k]
        for i in range(first + U64(LANES), n):  # each row below takes away all eight in one pass
            for k in range(U64(LANES)):
                inverse[n + k] = matrix[(first + k) * n + i] * inverse[first + k]
            block = i & ~U64(7)
            subtract_rows(matrix, i * n + block, inverse, n, first * n + block, n, n - block)
    substitute(matrix, vector, inverse, n)
    return True


@numba.njit(cache=True, nogil=True)
def substitute(matrix, vector, inverse, n):  # type: ignore[no-untyped-def]
    """Replace the vector by the solution, forward and backward through an eliminated matrix."""
    for k in range(n):
        g, block = -(vector[k] * inverse[k]), (k + U64(8)) & ~U64(7)
        for i in range(k + U64(1), block):
            vector[i] += g * matrix[k * n + i]
        add_scaled(vector, block, g, matrix, k * n + block, n - block)
    for later in range(n):
        k = n - U64(1) - later
        block = (k + U64(8)) & ~U64(7)
        g = vector[k] - dot(matrix, k * n + block, vector, block, n - block)
        for i in range(k + U64(1), block):
            g -= matrix[k * n + i] * vector[i]
        vector[k] = g * inverse[k]


@numba.njit(cache=True, nogil=True)
def flush(a, at, n):  # type: ignore[no-untyped-def]
    """Set those of n values to 0 whose size is at most TINY.

    Done every 256 samples, before fading makes them subnormal.
    """
    for i in range(at, at + n):
        a[i] = a[i] if abs(a[i]) > TINY else 0.0


@numba.njit(cache=True, nogil=True, inline="always")
def to_grid(p, limit):  # type: ignore[no-untyped-def]
    """Round a prediction to the grid, then clamp it to -limit .. limit - 1; NaN becomes the lower bound.

    The order of the arguments of max and min decides what NaN becomes.
    """
    p = np.floor(p * GRID + 0.5) * (1.0 / GRID)
    p = max(-limit, p)
    return min(limit - 1.0, p)
