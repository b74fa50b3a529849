"""Least squares over local windows: coefficients that predict a sample from its taps, solved for block by block.

Section 5 of "Coded picture samples" in FORMAT.md. A row is cut into blocks of a few samples. The normal equations of a
block are sums of products of features (`experts.gather_features`) over the samples around it, of this row and of those
above, which weigh less the further they are:

    left     blocks before it in this row and in the rows above, each `across` times the next nearer one
    above    the block itself in the rows above, each row `down` times the next nearer one
    right    blocks after it in the rows above

So a sample enters the sums once, and each sum costs one multiplication for a block, however large the window is. The
system is then not solved anew: a few steps of preconditioned conjugate gradients improve the solution of the row above.

After Wu, Barthel, Zhang, "Piecewise 2D autoregression for predictive image coding", 1998; the weights that decay in
both directions and the solution are our own. Arithmetic is float32 + - * / in the order of this file, never fused, but
for the preconditioner's float64.

A symmetric matrix of n features is kept in tiles of 8 columns, which are one vector of `entropy/vectors.py` wide: as
sums, where one half is enough, tile t has rows 0 .. 8 t + 7 and then a row for the target (`sums_at`); in full, rows 0
.. n - 1 (`full_at`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.vectors import add_rows, sum_rows
from laconic.models.mixing import F32, F64, U64, kernel

Floats = NDArray[np.float32]

RIDGE, RELATIVE_RIDGE = 4.0, 1e-4  # added to the diagonal of a system: this, and so much of itself
MEAN_RIDGE = 1e-3  # likewise, of the preconditioner's
LEAST_CURVATURE = 1e-9  # relative to the preconditioner's: a direction with less is not worth a step
TINY = 1e-20  # smaller sums become 0: subnormals are slow, and some threads flush them, which would change the bits
REFRESH = 4  # rows between two preconditioners


@dataclass(frozen=True)
class Window:
    """Describes a window.

    taps: how many, a multiple of 8. across, down: weight of a block, of a row, to the next nearer one's.
    """

    taps: int
    across: float
    down: float


@dataclass(frozen=True)
class Level:
    """Says what an effort buys. windows: solved in `steps` once every `block` samples."""

    block: int
    steps: int
    windows: tuple[Window, ...]


LEVELS = (
    Level(8, 0, ()),
    Level(8, 2, (Window(32, 0.5, 0.8),)),
    Level(8, 2, (Window(16, 0.16, 0.55), Window(32, 0.62, 0.85))),
    Level(3, 4, (Window(16, 0.5, 0.6), Window(48, 0.84, 0.9))),
)
LEVEL_OF_EFFORT = (0, 0, 0, 1, 1, 2, 2, 3, 3)  # efforts 1 to 9


class Windows(NamedTuple):
    """Holds the windows of a plane; see the module.

    Windows come first in shapes, then blocks, then sums as `sums_at` has them.
    """

    state: NDArray[np.int64]  # the block; 1 while its system waits to be solved, for a sample that needs it
    sizes: NDArray[np.int64]  # taps
    decays: Floats  # [windows, 2]: across, down
    block: int
    steps: int
    above: Floats  # [windows, blocks, sums]
    right: Floats  # [windows, blocks, sums]
    left: Floats  # [windows, sums]
    now: Floats  # [sums]: of the block's samples so far, for all windows: smaller ones use the first of them
    target: Floats  # [1]: the sample's, times its weight
    matrix: Floats  # the system of a block, in full
    inverse: Floats  # [windows, n * n]: the preconditioners, in full
    work: NDArray[np.float64]  # [2, n, n], to make them in
    vectors: Floats  # [4, n]: of the conjugate gradients
    coefficients: Floats  # [windows, blocks, n]: from the row above until they are solved anew


def new_windows(level: Level, width: int, steps: int) -> Windows:
    """Return the windows of a plane that is `width` samples wide, to be solved in `steps`."""
    n, most = len(level.windows), max((window.taps for window in level.windows), default=8)
    blocks, sums = -(-width // level.block), int(sums_at(most >> 3, 0))
    return Windows(
        state=np.zeros(2, np.int64),
        sizes=np.array([window.taps for window in level.windows], np.int64),
        decays=np.array([(window.across, window.down) for window in level.windows], np.float32).reshape(n, 2),
        block=level.block,
        steps=steps,
        above=np.zeros((n, blocks, sums), np.float32),
        right=np.zeros((n, blocks, sums), np.float32),
        left=np.zeros((n, sums), np.float32),
        now=np.zeros(sums, np.float32),
        target=np.zeros(1, np.float32),
        matrix=np.zeros(most * most, np.float32),
        inverse=np.zeros((n, most * most), np.float32),
        work=np.zeros((2, most, most)),
        vectors=np.zeros((4, most), np.float32),
        coefficients=np.zeros((n, blocks, most), np.float32),
    )


@kernel
def begin_row(windows: Windows) -> None:
    """Set `left` to nothing yet, and `right` to the sums of the rows above over the blocks after each one."""
    for m in range(windows.sizes.size):
        across, size = windows.decays[m, 0], sums_at(windows.sizes[m] >> 3, 0)
        blocks = windows.above.shape[1]
        for i in range(size):
            windows.left[m, i] = F32(0.0)
            windows.right[m, blocks - 1, i] = F32(0.0)
        for later in range(1, blocks):  # from the right end to the left
            right, after = windows.right[m, blocks - 1 - later], windows.right[m, blocks - later]
            above = windows.above[m, blocks - later]
            for i in range(size):
                right[i] = no_subnormal(across * (after[i] + above[i]))


@kernel
def begin_block(windows: Windows, j: int) -> None:
    """Turn to block j of the row. Its systems wait until a sample asks for a prediction."""
    windows.state[0], windows.state[1] = j, 1
    fill(windows.now, F32(0.0))


@kernel
def add_sample(windows: Windows, features: Floats, scaled: Floats, target: float, weight: float) -> None:
    """Add weight * outer product of the features, and of the target with them, to the block's sums.

    scaled: room for features.
    """
    for i in range(U64(features.size)):
        scaled[i] = features[i] * F32(weight)
    windows.target[0] = F32(target * weight)
    for t in range(U64(windows.coefficients.shape[2] >> 3)):
        rows, column = U64(8) * (t + U64(1)), U64(8) * t
        add_rows(windows.now, sums_at(t, 0), scaled, U64(0), rows, features, column)
        add_rows(windows.now, sums_at(t, rows), windows.target, U64(0), U64(1), features, column)


@kernel
def end_block(windows: Windows, m: int, j: int) -> None:
    """Add the samples of block j to `left`, for the blocks after it, and to `above`, for the row below.

    m: the window.
    """
    across, down, size = windows.decays[m, 0], windows.decays[m, 1], sums_at(windows.sizes[m] >> 3, 0)
    left, above, now = windows.left[m], windows.above[m, j], windows.now
    for i in range(size):
        left[i] = no_subnormal(across * (left[i] + above[i] + now[i]))
        above[i] = no_subnormal(down * above[i] + now[i])


@kernel
def no_subnormal(v: float) -> Any:
    """Return v, or 0 where it is tiny."""
    return v if abs(v) > F32(TINY) else F32(0.0)


@kernel
def solve_block(windows: Windows) -> None:
    """Solve the systems of the block that was begun, unless they have been."""
    if windows.state[1]:
        windows.state[1] = 0
        for m in range(windows.sizes.size):
            solve(windows, m, windows.state[0])


@kernel
def solve(windows: Windows, m: int, j: int) -> None:
    """Improve the coefficients of window m for block j by preconditioned conjugate gradients (Hestenes, Stiefel 1952).

    A few steps are as good as an exact solution here, in O(taps**2), for two reasons: the solution of the row above is
    near, and features correlate in much the same way everywhere, so that the inverse for all blocks together
    (`precondition`) makes the system nearly round.
    """
    n, x, inverse = U64(windows.sizes[m]), windows.coefficients[m, j], windows.inverse[m]
    a, r, z, p, q = windows.matrix, windows.vectors[0], windows.vectors[1], windows.vectors[2], windows.vectors[3]
    gather_system(windows, m, j)
    multiply(a, x, n, q)
    for k in range(n):
        r[k] -= q[k]
    multiply(inverse, r, n, p)
    rz = dot(r, p, n)
    for step in range(windows.steps):
        multiply(a, p, n, q)
        pq = dot(p, q, n)
        if not (rz > F32(TINY) and pq > F32(LEAST_CURVATURE) * rz):  # solved, or beyond float32
            break
        alpha = rz / pq
        for k in range(n):
            x[k] += alpha * p[k]
        if step == windows.steps - 1:  # what follows would be for the next step
            break
        for k in range(n):
            r[k] -= alpha * q[k]
        multiply(inverse, r, n, z)
        new = dot(r, z, n)
        beta = new / rz
        rz = new
        for k in range(n):
            p[k] = z[k] + beta * p[k]


@kernel
def gather_system(windows: Windows, m: int, j: int) -> None:
    """Add up the sums around block j: the matrix, with its ridge, in full, and the right side in vectors[0]."""
    n, a, r = U64(windows.sizes[m]), windows.matrix, windows.vectors[0]
    above, left, right = windows.above[m, j], windows.left[m], windows.right[m, j]
    for t in range(n >> U64(3)):
        end = U64(8) * t + U64(8)
        for i in range(end):
            at, to = sums_at(t, i), full_at(t, i, n)
            for c in range(U64(8)):
                a[to + c] = above[at + c] + left[at + c] + right[at + c]
        at, to = sums_at(t, end), U64(8) * t
        for c in range(U64(8)):
            r[to + c] = above[at + c] + left[at + c] + right[at + c]
        for u in range(t):  # the rows below: the matrix is symmetric
            for c in range(U64(8)):
                for i in range(U64(8)):
                    a[full_at(u, to + c, n) + i] = a[full_at(t, U64(8) * u + i, n) + c]
    for k in range(n):
        diagonal = full_at(k >> U64(3), k, n) + (k & U64(7))
        a[diagonal] = a[diagonal] * F32(1.0 + RELATIVE_RIDGE) + F32(RIDGE)


@kernel
def precondition(windows: Windows) -> None:
    """Set `inverse` to that of the mean of all blocks' sums of the rows above, with a ridge. float64, Gauss-Jordan."""
    blocks = windows.above.shape[1]
    for m in range(windows.sizes.size):
        n, sums, a, inverse = U64(windows.sizes[m]), windows.left[m], windows.work[0], windows.work[1]
        fill(sums, F32(0.0))
        for j in range(blocks):
            above = windows.above[m, j]
            for i in range(sums_at(n >> U64(3), 0)):
                sums[i] += above[i]
        for k in range(n):
            for i in range(n):
                inverse[k, i] = 1.0 if i == k else 0.0
            for i in range(k + U64(1)):
                a[i, k] = a[k, i] = F64(sums[sums_at(k >> U64(3), i) + (k & U64(7))]) / F64(blocks)
            a[k, k] += MEAN_RIDGE * a[k, k] + RIDGE
        for k in range(n):
            eliminate(a, inverse, k, n)
        for k in range(n):
            for i in range(n):
                windows.inverse[m, full_at(k >> U64(3), i, n) + (k & U64(7))] = F32(inverse[i, k])


@kernel
def eliminate(a: NDArray[np.float64], inverse: NDArray[np.float64], k: int, n: int) -> None:
    """Make column k of `a` that of the identity, and do to the inverse what that takes, row by row."""
    factor = 1.0 / a[k, k]
    for c in range(n):
        a[k, c] *= factor
        inverse[k, c] *= factor
    for i in range(n):
        if i != k:
            factor = a[i, k]
            for c in range(n):
                a[i, c] -= factor * a[k, c]
                inverse[i, c] -= factor * inverse[k, c]


@kernel
def multiply(matrix: Floats, vector: Floats, n: int, out: Floats) -> None:
    """Set out = matrix @ vector, the matrix symmetric and in full: even terms are summed, odd ones, then both."""
    for t in range(n >> U64(3)):
        sum_rows(out, U64(8) * t, vector, n, matrix, full_at(t, U64(0), n))


@kernel
def dot(a: Floats, b: Floats, n: int) -> Any:
    """Return the dot product, float32: four sums of every fourth product; then (first + second) + (third + fourth)."""
    s0 = s1 = s2 = s3 = F32(0.0)
    for i in range(U64(0), U64(n), U64(4)):
        s0 += a[i] * b[i]
        s1 += a[i + U64(1)] * b[i + U64(1)]
        s2 += a[i + U64(2)] * b[i + U64(2)]
        s3 += a[i + U64(3)] * b[i + U64(3)]
    return (s0 + s1) + (s2 + s3)


@kernel
def sums_at(tile: int, row: int) -> Any:
    """Return the place of a row of a column tile among sums: rows 0 .. 8 tile + 7 of it, then the target's."""
    t = U64(tile)
    return (t * U64(4) + U64(5)) * t * U64(8) + U64(row) * U64(8)


@kernel
def full_at(tile: int, row: int, n: int) -> Any:
    """Return the place of a row of a column tile in a full matrix [n, n]."""
    return (U64(tile) * n + U64(row)) * U64(8)


@kernel
def fill(out: NDArray[Any], value: Any) -> None:
    """Set all elements of an array to a value."""
    for k in range(U64(out.size)):
        out[k] = value
