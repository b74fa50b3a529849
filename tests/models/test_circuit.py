"""Circuits: what they must be, exact marginals against brute force, learning, coding in any order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.entropy.errors import BadFile, BadInput
from laconic.models import circuit_coding
from laconic.models.circuit import Circuit, nats, on_device
from laconic.models.circuit_coding import Integers
from laconic.models.circuit_learn import expected, gradients, learn
from laconic.models.circuit_nodes import Binomial, Categorical, Input, Logistic, Product, Sum, Weights
from laconic.models.circuit_shapes import hclt, rat

DEVICE = "cuda" if torch.cuda.is_available() else "cpu:0"  # what is not "cpu" goes by torch, as a GPU does
K = 3
quick = settings(deadline=None, max_examples=25)


def random_circuit(seed: int, n_variables: int, kind: str) -> Circuit:
    if kind == "tree":
        rng = np.random.default_rng(seed)
        parent = [-1, *(int(rng.integers(0, i)) for i in range(1, n_variables))]
        return hclt(parent, 3, K, shared=bool(seed % 2), seed=seed)
    return rat(n_variables, K, sums=2, repetitions=2, seed=seed)


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    """Trees and others, with the parameters of some learning, so that they are far from flat."""
    seed, n = draw(st.integers(0, 1 << 20)), draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    rows = np.cumsum(rng.integers(0, 2, (30, n)), 1) % K
    return learn(random_circuit(seed, n, draw(st.sampled_from(["tree", "rat"]))), rows, draw(st.integers(0, 8)))


def everything(n: int) -> np.ndarray:
    return np.array(list(itertools.product(range(K), repeat=n)))


@quick
@given(circuits())
def test_probabilities_sum_to_1(c: Circuit) -> None:
    assert np.exp(c.log_likelihood(everything(c.n_variables))).sum() == pytest.approx(1)
    assert c.log_likelihood(np.full((1, c.n_variables), -1))[0] == pytest.approx(0, abs=1e-9)


@quick
@given(circuits(), st.data())
def test_marginals_and_conditionals_are_sums(c: Circuit, data: st.DataObject) -> None:
    rows = everything(c.n_variables)
    joint = np.exp(c.log_likelihood(rows))
    query = np.array(data.draw(st.lists(st.integers(-1, K - 1), min_size=c.n_variables, max_size=c.n_variables)))
    agrees = ((rows == query) | (query < 0)).all(1)
    assert np.exp(c.log_likelihood(query[None])[0]) == pytest.approx(joint[agrees].sum())
    variable = data.draw(st.integers(0, c.n_variables - 1))
    others = ((rows == query) | (query < 0) | (np.arange(c.n_variables) == variable)).all(1)
    expected = np.bincount(rows[others, variable], joint[others], K) / joint[others].sum()
    np.testing.assert_allclose(c.conditional(query[None], variable)[0], expected, rtol=1e-6)


@quick
@given(circuits(), st.integers(0, 1 << 20), st.integers(0, 30))
def test_coding_comes_back_and_reaches_the_likelihood(c: Circuit, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = everything(c.n_variables)
    joint = np.exp(c.log_likelihood(rows))
    rows = rows[rng.choice(len(rows), n, p=joint / joint.sum())]
    exact = Integers.of(c, rng.permutation(c.n_variables))
    data = exact.encode(rows)
    assert np.array_equal(exact.decode(data, n), rows)
    bits = -c.log_likelihood(rows).sum() / np.log(2) if n else 0
    assert 8 * len(data) <= 1.01 * bits + 112  # a state of 64 bits, the head, half a word


def prefix_cdf(exact: Integers, row: np.ndarray, known: int) -> np.ndarray:
    """Of the next variable, by brute force in floats."""
    query = np.full((1, len(row)), -1)
    query[0, exact.order[:known]] = row[exact.order[:known]]
    p = exact.circuit.conditional(query, int(exact.order[known]))[0]
    return np.concatenate([[0], np.cumsum(p)])


@quick
@given(circuits(), st.data())
def test_each_interval_is_that_of_brute_force(c: Circuit, data: st.DataObject) -> None:
    row = np.array(data.draw(st.lists(st.integers(0, K - 1), min_size=c.n_variables, max_size=c.n_variables)))
    exact = Integers.of(c, data.draw(st.permutations(range(c.n_variables))))
    starts, freqs = (np.empty(len(row), np.int64) for _ in range(2))
    none = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
    circuit_coding.code(exact.arrays, row[None].copy(), starts, freqs, *none)
    for i, v in enumerate(exact.order):
        cdf = prefix_cdf(exact, row, i) * 2**31
        bounds = [starts[i], starts[i] + freqs[i]]
        np.testing.assert_allclose(bounds, cdf[[row[v], row[v] + 1]], atol=2**31 * 2e-3)


def test_a_cut_stream_is_an_error() -> None:
    exact = Integers.of(rat(4, K, seed=1))
    data = exact.encode(np.random.default_rng(0).integers(0, K, (50, 4)))
    for length in range(len(data)):
        with pytest.raises(BadFile):
            exact.decode(data[:length], 50)
    with pytest.raises(BadFile, match="the end"):
        exact.decode(data + b"\0", 50)


def test_steps_are_few_where_the_circuit_is_balanced() -> None:
    """O(log D) times the circuit: each inner node is evaluated again for the variables below it alone."""
    c = rat(64, 2, sums=2, repetitions=1)
    exact = Integers.of(c)
    inner = sum(layer.n for layer in c.layers)
    assert len(exact.steps) <= inner * (np.log2(64) + 1)


@quick
@given(st.integers(0, 1 << 20), st.sampled_from(["tree", "rat"]))
def test_full_batches_never_lower_the_likelihood(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    rows = np.cumsum(rng.integers(0, 2, (60, 4)), 1) % K
    rows[rng.random(rows.shape) < 0.1] = -1
    c = random_circuit(seed, 4, kind)
    found = [c.log_likelihood(rows).mean()]
    for _ in range(4):
        c = learn(c, rows, 1, pseudocount=0.0)
        found.append(c.log_likelihood(rows).mean())
    assert (np.diff(found) > -1e-9).all()


@quick
@given(circuits(), st.integers(0, 1 << 20), st.integers(1, 40))
def test_kernels_are_as_torch(c: Circuit, seed: int, n: int) -> None:
    """Values and expected counts: those of the kernels are those that automatic differentiation finds."""
    rng = np.random.default_rng(seed)
    rows = np.where(rng.random((n, c.n_variables)) < 0.2, -1, rng.integers(0, K, (n, c.n_variables)))
    theta, tables = on_device(c, "cpu")
    np.testing.assert_allclose(c.log_likelihood(rows), nats(c, rows, theta, tables).numpy(), rtol=1e-9, atol=1e-9)
    for counts, gradient in zip(expected(c, rows), gradients(c, rows, "cpu"), strict=True):
        np.testing.assert_allclose(counts, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [40, 300])
def test_values_far_below_the_least_float(n: int) -> None:
    """Both shapes, and products of many children: 300 variables of 10**-12 each are 10**-3600."""
    rare = Categorical(np.array([1.0, 1e-12, 1e-12]))
    leaves = [Input(v, rare) for v in range(n)]
    flat_sum = Sum(
        [Product(leaves), Product([Input(v, Categorical(np.ones(K))) for v in range(n)])], Weights(np.ones(2))
    )
    rows = np.array([[1] * n, [0] * n, [-1] * n, [2] * (n // 2) + [0] * (n - n // 2)])
    for c in (Circuit.of(Product(leaves), K), Circuit.of(flat_sum, K), random_circuit(7, n, "tree")):
        theta, tables = on_device(c, "cpu")
        np.testing.assert_allclose(
            c.log_likelihood(rows), nats(c, rows, theta, tables).numpy(), rtol=1e-9, atol=1e-9
        )
        for counts, gradient in zip(expected(c, rows), gradients(c, rows, "cpu"), strict=True):
            np.testing.assert_allclose(counts, gradient, rtol=1e-9, atol=1e-9)


def test_threads_learn_the_same() -> None:
    rows = np.random.default_rng(0).integers(-1, K, (2000, 6))
    one, two = (learn(rat(6, K, seed=2), rows, 3, batch=900, step=0.6, threads=t) for t in (1, 2))
    assert np.array_equal(one.theta, two.theta)
    assert all(np.array_equal(a.pmf(K), b.pmf(K)) for a, b in zip(one.families, two.families, strict=True))


@pytest.mark.parametrize("kind", ["tree", "rat"])
@pytest.mark.parametrize("batch", [None, 100])
def test_a_device_learns_the_same(kind: str, batch: int | None) -> None:
    rows = np.random.default_rng(1).integers(-1, K, (400, 6))
    start = random_circuit(3, 6, kind)
    here, there = (learn(start, rows, 4, batch, 0.7, device=device) for device in ("cpu", DEVICE))
    np.testing.assert_allclose(there.theta, here.theta, rtol=1e-7)
    for a, b in zip(here.families, there.families, strict=True):
        np.testing.assert_allclose(b.pmf(K), a.pmf(K), rtol=1e-7)
    assert not np.array_equal(here.theta, start.theta)
    np.testing.assert_allclose(here.log_likelihood(rows, DEVICE), here.log_likelihood(rows), rtol=1e-9)
    np.testing.assert_allclose(here.conditional(rows[:9], 2, DEVICE), here.conditional(rows[:9], 2), rtol=1e-7)


def test_mini_batches_learn() -> None:
    rows = np.repeat(np.random.default_rng(0).integers(0, K, (400, 1)), 4, 1)
    c = learn(rat(4, K, sums=4, seed=3), rows, 12, batch=100, step=0.5)
    assert c.log_likelihood(rows).mean() > -2.2 > -4 * np.log(K)


def test_one_emission_for_all_places_has_few_parameters() -> None:
    shared, own = (hclt([-1, 0, 1, 2, 3, 4], 4, K, shared=s) for s in (True, False))
    assert len(shared.families) == 4 and len(own.families) == 24
    assert len(shared.theta) == 20


@pytest.mark.parametrize("family", [Logistic(3.0, 1.0), Binomial(0.3)])
def test_families_learn_their_parameters(family: Logistic | Binomial) -> None:
    k, rng = 12, np.random.default_rng(0)
    true = Logistic(7.2, 0.8) if isinstance(family, Logistic) else Binomial(0.7)
    rows = rng.choice(k, (4000, 1), p=true.pmf(k))
    c = learn(Circuit.of(Input(0, family), k), rows, 2, pseudocount=0.0)
    np.testing.assert_allclose(c.families[0].pmf(k), true.pmf(k), atol=0.02)


@given(st.floats(-300, 600), st.floats(0.05, 200), st.integers(2, 256))
def test_pmfs_are_positive_and_sum_to_1(mean: float, scale: float, k: int) -> None:
    for pmf in (Logistic(mean, scale).pmf(k), Binomial(min(0.999, scale / 201)).pmf(k)):
        assert pmf.min() > 0 and pmf.sum() == pytest.approx(1)


def flat(variable: int) -> Input:
    return Input(variable, Categorical(np.ones(K) / K))


def test_what_is_not_a_circuit_is_named() -> None:
    with pytest.raises(BadInput, match=r"sum 3, smoothness: found 'a child over variables 0', expected variables 0, 1"):
        Circuit.of(Sum([flat(0), Product([flat(1)])], Weights(np.ones(2))), K)
    with pytest.raises(BadInput, match=r"product 2, decomposability: found 'variables 0 in several children'"):
        Circuit.of(Product([flat(0), flat(0)]), K)
    with pytest.raises(BadInput, match="weights"):
        Circuit.of(Sum([flat(0), flat(0)], Weights(np.ones(3))), K)
    with pytest.raises(BadInput, match="no children"):
        Circuit.of(Product([]), K)
    with pytest.raises(BadInput, match="root"):
        Circuit.of(Product([flat(0), flat(2)]), K)
    with pytest.raises(BadInput, match="variable"):
        Circuit.of(flat(-1), K)


def test_values_out_of_range_are_refused() -> None:
    c = rat(2, K)
    for rows in ([[0, K]], [[0]], [0, 1]):
        with pytest.raises(BadInput, match="values"):
            c.log_likelihood(rows)
    with pytest.raises(BadInput, match="none missing"):
        Integers.of(c).encode([[0, -1]])
    with pytest.raises(BadInput, match="permutation"):
        Integers.of(c, [0, 0])
    with pytest.raises(BadInput, match="probabilities"):
        Circuit.of(Input(0, Categorical(np.ones(2))), K).log_likelihood([[0]])
