"""Push and pop invert each other; kernels equal the reference; damage is an error."""

from __future__ import annotations

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import entropy
from laconic.entropy import rans
from laconic.entropy.blocks import encode_block, load
from laconic.entropy.pmf import TOTAL, quantise
from laconic.entropy.tables import build_gaussian, digest, gaussian_tables

GAUSSIAN_SHA256 = "9aaee43164b435f0991eb74ff5435c2a7e5c57bc86798ad50ca2105b9cd0aa7f"


@given(st.integers(1 << 16, (1 << 32) - 1), st.integers(0, TOTAL - 1), st.integers(1, TOTAL))
def test_pop_undoes_push(x: int, start: int, freq: int) -> None:
    freq = min(freq, TOTAL - start)
    words: list[int] = []
    y = rans.push(x, start, freq, words)
    assert 1 << 16 <= y < 1 << 32
    assert start <= y % TOTAL < start + freq
    back = rans.pop(y, start, freq)
    if words:
        back = back << 16 | words.pop()
    assert back == x and not words


@st.composite
def coded(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, entropy.Tables]:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    n_rows, n = draw(st.integers(1, 5)), draw(st.integers(0, 3000))
    pmfs = [rng.dirichlet(np.full(rng.integers(1, 40), 0.3)) for _ in range(n_rows)]
    tables = entropy.Tables.from_pmf(pmfs, rng.integers(-20, 20, n_rows))
    wide = draw(st.sampled_from([5, 60, 30_000]))
    return rng.integers(-wide, wide, n).astype(np.int16), rng.integers(0, n_rows, n).astype(np.uint8), tables


@settings(deadline=None, max_examples=60)
@given(coded())
def test_round_trip_and_kernel_is_reference(case: tuple[np.ndarray, np.ndarray, entropy.Tables]) -> None:
    symbols, indices, tables = case
    data = entropy.encode(symbols, indices, tables)
    assert data == entropy.encode(symbols, indices, tables, backend="reference")
    for backend in ("numba", "reference"):
        assert np.array_equal(entropy.decode(data, indices, tables, backend=backend), symbols)


@settings(deadline=None, max_examples=60)
@given(coded(), st.data())
def test_damage_is_an_error_or_other_symbols_never_a_crash(
    case: tuple[np.ndarray, np.ndarray, entropy.Tables], data: st.DataObject
) -> None:
    symbols, indices, tables = case
    good = entropy.encode(symbols, indices, tables)
    if good:
        cut = data.draw(st.integers(0, len(good) - 1))
        with pytest.raises(entropy.BadFile, match="found .*, expected"):
            entropy.decode(good[:cut], indices, tables)
        bad = bytearray(good)
        bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            entropy.decode(bytes(bad), indices, tables)
        except entropy.BadFile:
            pass


def gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    indices = rng.integers(0, 64, n).astype(np.uint8)
    scales = np.exp(np.linspace(np.log(0.11), np.log(64), 64))[indices]
    return np.round(rng.standard_normal(n) * scales).astype(np.int16), indices


def test_size_is_the_codelength_and_threads_change_nothing() -> None:
    symbols, indices = gauss(600_000)
    tables = gaussian_tables()
    data = entropy.encode(symbols, indices, tables, threads=1)
    assert data == entropy.encode(symbols, indices, tables, threads=2)
    assert len(data) <= tables.codelength(symbols, indices) / 8 * 1.0005 + 3 * (4 * 32 + 8) + 600
    assert np.array_equal(entropy.decode(data, indices, tables, threads=2), symbols)


def test_constriction_agrees_on_the_codelength() -> None:
    symbols, indices = gauss(20_000)
    tables = gaussian_tables()
    inside = np.abs(symbols) < tables.sizes[indices] // 2 - 1
    symbols, indices = symbols[inside].astype(np.int32), indices[inside]
    coder = constriction.stream.queue.RangeEncoder()
    for row in range(64):
        masses = np.diff(tables.cdf[row, : tables.sizes[row] + 1].astype(np.float64)) / TOTAL
        model = constriction.stream.model.Categorical(masses, perfect=False)
        coder.encode((symbols[indices == row] - tables.offsets[row]).astype(np.int32), model)
    referee = coder.num_bits()
    ours = 8 * len(entropy.encode(symbols, indices, tables))
    lanes = 8 * (4 * 8 + 4)  # states of 8 lanes and the block's head
    assert abs(ours - referee) < 0.001 * referee + lanes


def test_golden_bytes() -> None:
    symbols, indices = np.array([0, 1, -1, 0, 300, -7, 2, 0]), np.array([0, 5, 10, 0, 63, 20, 30, 1])
    data = encode_block(symbols.astype(np.int32), indices.astype(np.int32), gaussian_tables(), load("reference"))
    assert data.hex() == GOLDEN
    assert entropy.decode(data, indices, gaussian_tables()).tolist() == symbols.tolist()


GOLDEN = "1402550a7327ff7fed6b5403"


def test_gaussian_tables_are_the_stored_ones_and_can_be_rebuilt() -> None:
    tables = gaussian_tables()
    assert digest(tables) == GAUSSIAN_SHA256
    masses = [np.diff(c[: n + 1].astype(np.int64)) for c, n in zip(tables.cdf, tables.sizes, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(build_gaussian(), masses, strict=True))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200).filter(lambda p: sum(p) > 1e-3))
def test_quantised_masses(pmf: list[float]) -> None:
    masses = quantise(pmf)
    assert masses.min() >= 1 and masses.sum() == TOTAL
    order = np.argsort(pmf, kind="stable")
    assert (np.diff(masses[order]) >= -1).all()


@pytest.mark.parametrize("symbols, indices", [([40_000], [0]), ([0], [64]), ([0, 1], [0]), ([0.5], [0])])
def test_bad_input_is_named(symbols: list[float], indices: list[int]) -> None:
    with pytest.raises(entropy.BadInput, match="found .*, expected"):
        entropy.encode(symbols, indices, gaussian_tables())
