"""Least squares: a few steps find the solution, what has none does no harm, sums that fade are never subnormal."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from laconic.models.mixing import kernel
from laconic.models.windows import (
    LEVEL_OF_EFFORT,
    LEVELS,
    RIDGE,
    Level,
    Window,
    Windows,
    begin_row,
    end_block,
    fill,
    new_windows,
    precondition,
    solve,
)


@kernel
def one_solution(windows: Windows) -> None:
    precondition(windows)
    fill(windows.left[0], np.float32(0.0))  # as a new row does; each block by itself
    for j in range(windows.above.shape[1]):
        solve(windows, 0, j)


def solved(steps: int, features: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float32]:
    """Coefficients [blocks, n] after `steps` from 0: features [blocks, samples, n], targets [blocks, samples]."""
    blocks, _, n = features.shape
    level = Level(8, steps, (Window(n, 0.5, 0.8),))
    windows = new_windows(level, 8 * blocks, steps)
    for j in range(blocks):
        for t in range(n // 8):
            begin, columns = 4 * t * (t + 1) * 8 + 8 * t, features[j][:, 8 * t : 8 * t + 8]
            rows = np.vstack([features[j].T[: 8 * t + 8] @ columns, target[j] @ columns])
            windows.above[0, j, begin : begin + rows.size] = rows.reshape(-1)
    one_solution(windows)
    return windows.coefficients[0].copy()


@pytest.mark.parametrize("n", [8, 24, 48])
def test_conjugate_gradients_reach_the_least_squares_solution(n: int) -> None:
    random = np.random.default_rng(n)
    mixing = np.eye(n) + 0.3 * random.normal(size=(n, n))  # features that correlate alike in all blocks
    features = random.normal(size=(5, 200, n)) @ mixing * 8
    target = features @ random.normal(size=n) + random.normal(size=(5, 200))
    energies = []
    for steps in (0, 1, 2, 4, 40):
        energy = 0.0
        for f, t, x in zip(features, target, solved(steps, features, target), strict=True):
            matrix = f.T @ f
            matrix += np.diag(1e-4 * np.diag(matrix) + RIDGE)
            off = x - np.linalg.solve(matrix, f.T @ t)
            energy += float(off @ matrix @ off)
        energies.append(energy)
    assert all(after < 0.2 * before for before, after in pairwise(energies))


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e9])
def test_systems_without_a_solution_leave_numbers(value: float) -> None:
    same = np.full((3, 40, 16), value)
    assert np.isfinite(solved(4, same, same[..., 0])).all()


@kernel
def flat_rows(windows: Windows, n: int) -> None:
    for _ in range(n):
        begin_row(windows)
        for j in range(windows.above.shape[1]):
            end_block(windows, 0, j)


def test_sums_that_fade_are_never_subnormal() -> None:
    """Below a picture's last detail, for as long as float32 would fade on: 0.8**450 is 1e-44."""
    windows = new_windows(LEVELS[1], 400, 2)
    sums = (windows.above, windows.left, windows.right)
    windows.above[:] = np.random.default_rng(0).normal(0, 1e6, windows.above.shape)
    for _ in range(45):
        flat_rows(windows, 10)
        assert all(((a == 0) | (np.abs(a) > 1e-20)).all() for a in sums)
    assert not any(a.any() for a in sums)


def test_windows_are_whole_vectors() -> None:
    assert all(window.taps % 8 == 0 and window.taps <= 48 for level in LEVELS for window in level.windows)
    assert max(LEVEL_OF_EFFORT) == len(LEVELS) - 1
