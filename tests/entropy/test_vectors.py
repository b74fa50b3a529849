"""Vectors: every operation gives the bits of its plain form, at any place, and touches nothing else."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laconic.entropy import vectors
from laconic.entropy.adaptive import TARGETS
from laconic.entropy.pmf import TOTAL

U16, U64 = np.uint16, np.uint64


@numba.njit
def add_rows(array, at, factors, first, count, source, begin):  # type: ignore[no-untyped-def]
    vectors.add_rows(array, U64(at), factors, U64(first), U64(count), source, U64(begin))


@numba.njit
def sum_rows(out, begin, factors, count, array, at):  # type: ignore[no-untyped-def]
    vectors.sum_rows(out, U64(begin), factors, U64(count), array, U64(at))


@numba.njit
def subtract_rows(array, to, factors, first, rows, stride, n):  # type: ignore[no-untyped-def]
    vectors.subtract_rows(array, U64(to), factors, U64(first), U64(rows), U64(stride), U64(n))


@numba.njit
def dot(a, at, b, bt, n):  # type: ignore[no-untyped-def]
    return vectors.dot(a, U64(at), b, U64(bt), U64(n))


@numba.njit
def add_scaled(out, to, factor, x, xt, n):  # type: ignore[no-untyped-def]
    vectors.add_scaled(out, U64(to), factor, x, U64(xt), U64(n))


@numba.njit
def fade(out, to, old, ot, keep, factor, x, xt, n):  # type: ignore[no-untyped-def]
    vectors.fade(out, U64(to), old, U64(ot), keep, factor, x, U64(xt), U64(n))


@numba.njit
def means_at_most(rows, at, limit):  # type: ignore[no-untyped-def]
    return vectors.means_at_most(rows, U64(at), U16(limit))


@numba.njit
def step_towards(array, at, targets, first, rate):  # type: ignore[no-untyped-def]
    vectors.step_towards(array, U64(at), targets, U64(first), U16(rate))


def floats(dtype: Any, *sizes: int) -> list[NDArray[Any]]:
    random = np.random.default_rng(sizes)
    return [random.normal(0, 10.0 ** random.integers(-6, 7, n)).astype(dtype) for n in sizes]


def same(kernel: Any, reference: Any, *arguments: Any) -> bool:
    """Do both leave the same bits in all arrays, and return the same?"""
    ours, plain = ([a.copy() if isinstance(a, np.ndarray) else a for a in arguments] for _ in range(2))
    equal = bool(kernel(*ours) == reference(*plain))
    arrays = [(a, b) for a, b in zip(ours, plain, strict=True) if isinstance(a, np.ndarray)]
    return equal and all(a.tobytes() == b.tobytes() for a, b in arrays)


places = st.integers(0, 5)


@settings(deadline=None)
@given(st.sampled_from([np.float32, np.float64]), st.integers(0, 4), places, places, places)
def test_rows(dtype: Any, count: int, at: int, first: int, begin: int) -> None:
    array, factors, source = floats(dtype, 40 + at, 14, 14)
    assert same(add_rows, vectors.add_rows_reference, array, at, factors, first, count, source, begin)
    assert same(sum_rows, vectors.sum_rows_reference, source, begin, factors, 2 * (count // 2), array, at)


@settings(deadline=None)
@given(st.integers(0, 3), places, places, places)
def test_eight_rows_are_taken_away(n: int, to: int, first: int, gap: int) -> None:
    stride, rows = 8 * n + gap, 40
    array, factors = floats(np.float64, rows + 8 * stride + 24, 14)
    reference = vectors.subtract_rows_reference
    assert same(subtract_rows, reference, array, to, factors, first, rows, stride, 8 * n)


@settings(deadline=None)
@given(st.sampled_from([np.float32, np.float64]), st.integers(0, 5), places, places)
def test_filters(dtype: Any, n: int, at: int, bt: int) -> None:
    a, b = floats(dtype, 46, 47)
    assert same(dot, vectors.dot_reference, a, at, b, bt, 8 * n)
    assert same(add_scaled, vectors.add_scaled_reference, a, at, dtype(-0.37), b, bt, 8 * n)


@settings(deadline=None)
@given(st.integers(0, 5), places, places, places)
def test_what_fades(n: int, to: int, ot: int, xt: int) -> None:
    a, b, c = floats(np.float64, 46, 47, 48)
    assert same(fade, vectors.fade_reference, a, to, b, ot, 0.998, -3.1, c, xt, 8 * n)


@settings(deadline=None)
@given(st.integers(0, 1 << 20), places, st.integers(0, 15), st.integers(1, 7), st.integers(0, TOTAL))
def test_bounds_of_sixteen(seed: int, at: int, symbol: int, rate: int, limit: int) -> None:
    random, targets = np.random.default_rng(seed), TARGETS.astype(U16).ravel()
    row = np.sort(random.integers(0, TOTAL + 1, (2, 16)), axis=1).ravel()
    rows = np.concatenate([np.zeros(at, U16), row.astype(U16), np.full(3, 9, U16)])
    assert same(means_at_most, vectors.means_at_most_reference, rows, at, limit)
    assert same(step_towards, vectors.step_towards_reference, rows, at, targets, 16 * symbol, rate)


def test_the_order_of_a_sum_is_part_of_it() -> None:
    """Another order gives other bits, which the comparisons above would see."""
    a, b = floats(np.float32, 48, 64)
    assert dot(a, 0, b, 0, 48) != np.float32(sum(a * b[:48]))


@pytest.mark.parametrize(("a", "n"), [(4, 16), (-1, 8), (12, 8)])
def test_bounds_are_checked_where_numba_checks_them(a: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.BOUNDSCHECK", 1)
    checked = numba.njit(dot.py_func)
    x, y = floats(np.float64, 16, 32)
    with pytest.raises(IndexError, match="out of bounds"):
        checked(x, a, y, 0, n)
    assert checked(x, 8, y, 0, 8) == dot(x, 8, y, 0, 8)
