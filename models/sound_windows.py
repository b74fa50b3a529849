"""Least-squares predictors of a sound: weights solved from covariances that fade (FORMAT.md, "Prediction", L).

A predictor sees the `own` latest samples of its channel and the `other` latest of the partner channel, together the
features F. It keeps moments, the fading sums of sample times F, and covariances, the fading sums of F times F, and
every so many samples solves covariances w = moments for its weights w.

F moves by one place per sample, so entry (i, j) of the covariances is entry (i - 1, j - 1) of the sample before, but
for the fading. Only two rows are new each time, those of the latest sample of each channel; `rows` keeps the rows of
the last times, and `gather` puts the matrix together from them.

After: the recursive least-squares stage of MPEG-4 ALS (Huang et al., "Cascaded RLS-LMS prediction in MPEG-4 lossless
audio coding", 2008), here by direct solution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from laconic.entropy.rans_numba import U64
from laconic.entropy.vectors import dot, fade
from laconic.models.sound_arithmetic import flush, solve, to_grid
from laconic.models.sound_presets import LeastSquares

RIDGE = 0.5  # on the diagonal of the covariances, so that silence has a solution
EARLY = (16, 64)  # samples after which weights are solved for in any case, as `every` is long at the start
FLUSH_EVERY = 256  # samples from one `flush` to the next
OWN, OTHER, BOTH, EVERY, SLOTS, WEIGHTS_AT, ROWS_AT = range(7)  # columns of Windows.plan


class Windows(NamedTuple):
    """Holds what the least-squares predictors of all channels have learnt: flat arrays, channel after channel.

    plan: int64 [K, 7], a row per predictor: how many samples it sees of its channel, of the partner, of both; samples
    from one solution to the next; times that `rows` holds, a power of two; where a channel's weights and rows begin.
    keeps: float64 [K], the part of old sums that is kept per sample. weights, moments: float64 [C * n_weights]. rows:
    float64 [C * n_rows], per predictor [slots, 2, both], the newest rows of the last `slots` times.
    """

    plan: Any
    keeps: Any
    weights: Any
    moments: Any
    rows: Any
    n_weights: int
    n_rows: int

    @classmethod
    def of(cls, predictors: tuple[LeastSquares, ...], channels: int) -> Windows:
        """Make the state before the first sample: each guess is the sample before, until there is a solution."""
        plan, n_weights, n_rows = [], 0, 0
        for one in predictors:
            other = one.other if channels > 1 else 0
            slots = 1 << (max(one.own, other) - 1).bit_length()
            plan.append((one.own, other, one.own + other, one.every, slots, n_weights, n_rows))
            n_weights, n_rows = n_weights + one.own + other, n_rows + slots * 2 * (one.own + other)
        weights = np.zeros((channels, n_weights))
        weights[:, [row[WEIGHTS_AT] for row in plan]] = 1
        return cls(
            plan=np.array(plan),
            keeps=np.array([1 - 1 / one.memory for one in predictors]),
            weights=weights.ravel(),
            moments=np.zeros(channels * n_weights),
            rows=np.zeros(channels * n_rows),
            n_weights=n_weights,
            n_rows=n_rows,
        )


@numba.njit(cache=True, nogil=True, inline="always")
def guess_windows(w, past, guesses, c, own_at, other_at, limit):  # type: ignore[no-untyped-def]
    """Put the guesses of the least-squares predictors into guesses[0 .. K - 1].

    own_at: the place in `past` just before the channel's latest sample; other_at: that of the partner's latest.
    """
    for k in range(U64(w.plan.shape[0])):
        own, other = U64(w.plan[k, OWN]), U64(w.plan[k, OTHER])
        at = c * U64(w.n_weights) + U64(w.plan[k, WEIGHTS_AT])
        p = dot(w.weights, at, past, own_at + U64(1), own) + dot(w.weights, at + own, past, other_at, other)
        guesses[k] = to_grid(p, limit)


@numba.njit(cache=True, nogil=True, inline="always")
def accumulate(w, past, c, own_at, other_at, t, x):  # type: ignore[no-untyped-def]
    """Take sample x of time t, which is not in `past` yet, into the moments and its features into new rows.

    The two new rows are the latest own sample and the latest of the partner, each times all features, on top of the
    faded rows of the time before. Moments are flushed by the caller, with what other stages have to flush.
    """
    for k in range(U64(w.plan.shape[0])):
        own, other, n = U64(w.plan[k, OWN]), U64(w.plan[k, OTHER]), U64(w.plan[k, BOTH])
        slots, keep = U64(w.plan[k, SLOTS]), w.keeps[k]
        at, rows_at = c * U64(w.n_weights) + U64(w.plan[k, WEIGHTS_AT]), c * U64(w.n_rows) + U64(w.plan[k, ROWS_AT])
        new = rows_at + (t & (slots - U64(1))) * U64(2) * n
        old = rows_at + ((t - U64(1)) & (slots - U64(1))) * U64(2) * n
        first, second = past[own_at + U64(1)], past[other_at]
        fade(w.moments, at, w.moments, at, keep, x, past, own_at + U64(1), own)
        fade(w.rows, new, w.rows, old, keep, first, past, own_at + U64(1), own)
        if other > U64(0):
            fade(w.moments, at + own, w.moments, at + own, keep, x, past, other_at, other)
            fade(w.rows, new + own, w.rows, old + own, keep, first, past, other_at, other)
            fade(w.rows, new + n, w.rows, old + n, keep, second, past, own_at + U64(1), own)
            fade(w.rows, new + n + own, w.rows, old + n + own, keep, second, past, other_at, other)
        if t % U64(FLUSH_EVERY) == U64(FLUSH_EVERY - 1):
            flush(w.rows, new, U64(2) * n)


@numba.njit(cache=True, nogil=True, inline="always")
def renew(w, solver, c, t):  # type: ignore[no-untyped-def]
    """Solve for the weights of those predictors whose turn it is after sample t; others keep theirs.

    Weights also stay as they were where the covariances are not positive definite.
    """
    for k in range(w.plan.shape[0]):
        if (t + U64(1)) % U64(w.plan[k, EVERY]) == U64(0) or t == U64(EARLY[0]) or t == U64(EARLY[1]):
            own, other, n = U64(w.plan[k, OWN]), U64(w.plan[k, OTHER]), U64(w.plan[k, BOTH])
            at, rows_at = c * U64(w.n_weights) + U64(w.plan[k, WEIGHTS_AT]), c * U64(w.n_rows) + U64(w.plan[k, ROWS_AT])
            gather(solver.matrix, w.rows, rows_at, own, other, t, U64(w.plan[k, SLOTS]))
            for i in range(n):
                solver.vector[i] = w.moments[at + i]
            if solve(solver.matrix, solver.vector, solver.inverse, n):
                for i in range(n):
                    w.weights[at + i] = solver.vector[i]


@numba.njit(cache=True, nogil=True)
def gather(matrix, rows, rows_at, own, other, t, slots):  # type: ignore[no-untyped-def]
    """Put the upper triangle of the covariances, and the ridge, into matrix [n, n], n = own + other.

    The product of the samples i and j back, j >= i, stands in the row of i samples ago, as that of the samples 0 and j
    - i. A row begins at rows_at + (its time & mask) * 2 n, and n further where it is of the partner's latest sample.
    """
    n, mask = own + other, slots - U64(1)
    for i in range(own):
        row, to = rows_at + ((t - i) & mask) * U64(2) * n - i, i * n
        for j in range(i, own):  # own sample i back with own sample j back
            matrix[to + j] = rows[row + j]
        for j in range(i, other):  # with the partner's, where that is as old or older
            matrix[to + own + j] = rows[row + own + j]
        for j in range(min(i, other)):  # and where it is newer: from the partner's row
            matrix[to + own + j] = rows[rows_at + ((t - j) & mask) * U64(2) * n + n + i - j]
    for i in range(other):
        row, to = rows_at + ((t - i) & mask) * U64(2) * n + n + own - i, (own + i) * n + own
        for j in range(i, other):  # the partner's with the partner's
            matrix[to + j] = rows[row + j]
    for i in range(n):
        matrix[i * n + i] += RIDGE
