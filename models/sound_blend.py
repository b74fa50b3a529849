"""The blend of all guesses of a sample into one prediction, by least squares again (FORMAT.md, "Prediction", blend).

The prediction is the first guess plus weighted differences of the others from it. The weights minimise fading squared
errors, each divided by the square of the level of errors, so that loud passages do not outvote quiet ones. No one
memory suits all sounds: a blend of predictors with several memories gains more than any better single one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from laconic.entropy.rans_numba import U64
from laconic.entropy.vectors import fade
from laconic.models.sound_arithmetic import F64, LANES, solve, to_grid

MEMORY = 400  # samples: a sample's weight in the sums is (1 - 1 / MEMORY)**age
EVERY = 4  # samples from one solution to the next
RIDGE = 0.5  # pulls the weights to the mean of all guesses
LEVEL_PACE = 0.02  # the level of errors moves so much of the way to each
LEVEL_FLOOR = 0.1  # is added to the level before it is divided by


class Blend(NamedTuple):
    """Holds what the blends of all channels have learnt.

    sums: float64 [C, m + 3, m], flat: the m by m covariances of the differences, then a row of moments, a row of
    weights and a row whose first value is the level of errors. m: the guesses but the first, rounded up to a multiple
    of LANES.
    """

    sums: Any
    m: int

    @classmethod
    def of(cls, n_guesses: int, channels: int) -> Blend:
        """Make the state before the first sample: the mean of all guesses, and a level of 1."""
        m = -(-max(n_guesses - 1, 1) // LANES) * LANES
        sums = np.zeros((channels, m + 3, m))
        sums[:, m + 1, : n_guesses - 1] = 1 / n_guesses
        sums[:, m + 2, 0] = 1
        return cls(sums=sums.ravel(), m=m)


@numba.njit(cache=True, nogil=True, inline="always")
def blended(b, guesses, c, limit):  # type: ignore[no-untyped-def]
    """Return the prediction on the grid: the first guess and weighted differences of the others from it."""
    m = U64(b.m)
    p, at = guesses[0], (c * (m + U64(3)) + m + U64(1)) * m
    for i in range(U64(guesses.size - 1)):
        p += b.sums[at + i] * (guesses[i + U64(1)] - guesses[0])
    return to_grid(p, limit)


@numba.njit(cache=True, nogil=True, inline="always")
def learn_blend(b, solver, guesses, c, p, x, t):  # type: ignore[no-untyped-def]
    """Take sample x, predicted as p, into the sums; every few samples solve for the weights."""
    n, m = U64(guesses.size - 1), U64(b.m)
    at = c * m * (m + U64(3))
    moments, weights, level = at + m * m, at + (m + U64(1)) * m, at + (m + U64(2)) * m
    if n > U64(0):
        b.sums[level] += LEVEL_PACE * (abs(x - p) - b.sums[level])
        w = 1.0 / ((b.sums[level] + LEVEL_FLOOR) * (b.sums[level] + LEVEL_FLOOR))
        keep = 1.0 - 1.0 / MEMORY
        for i in range(m):  # the vector holds the differences, then, where weights are due, the right-hand side
            solver.vector[i] = guesses[i + U64(1)] - guesses[0] if i < n else 0.0
        for i in range(n):
            fade(b.sums, at + i * m, b.sums, at + i * m, keep, w * solver.vector[i], solver.vector, U64(0), m)
        fade(b.sums, moments, b.sums, moments, keep, w * (x - guesses[0]), solver.vector, U64(0), m)
        if t % U64(EVERY) == U64(0):
            for i in range(m * m):
                solver.matrix[i] = b.sums[at + i]
            for i in range(m):
                solver.matrix[i * m + i] += RIDGE
                solver.vector[i] = b.sums[moments + i] + RIDGE / F64(n + U64(1))
            if solve(solver.matrix, solver.vector, solver.inverse, m):
                for i in range(m):
                    b.sums[weights + i] = solver.vector[i]
