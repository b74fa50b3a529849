"""Hidden Chow-Liu trees: exact probabilities, kernel = reference, damage, models that are not sound."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from laconic.entropy.errors import BadFile, BadInput
from laconic.models import hclt
from laconic.models.hclt import Hclt
from laconic.models.hclt_contexts import flat_array
from laconic.models.hclt_learn import quantised
from laconic.models.hclt_reference import Reference, decode_reference, encode_reference


def random_tree(n: int, rng: np.random.Generator, chain: bool) -> np.ndarray:
    """parent [n] of a random tree with the numbers shuffled; a chain is the deepest."""
    order = rng.permutation(n)
    parent = np.full(n, -1, np.int16)
    for i in range(1, n):
        parent[order[i]] = order[i - 1 if chain else rng.integers(0, i)]
    return parent


def random_rows(
    rng: np.random.Generator, shape: tuple[int, ...], total: int, axis: int, powers: tuple[float, ...] = (0.1, 2, 40)
) -> np.ndarray:
    """Rows from flat to those with nearly all in one place."""
    raw = rng.random(shape) ** rng.choice(powers)
    return quantised((raw / raw.sum(axis, keepdims=True)).astype(np.float32), total, axis)


def random_model(
    height: int, width: int, seed: int, chain: bool = False, most: int = 6, contexts: int = 3, soft: bool = False
) -> Hclt:
    powers = (0.1, 2.0) if soft else (0.1, 2.0, 40.0)
    rng, n = np.random.default_rng(seed), height * width
    parent = random_tree(n, rng, chain)
    inner = np.isin(np.arange(n), parent) | (parent == -1)
    states = np.where(inner, rng.integers(1, most + 1, n), 0).astype(np.uint16)
    steps = hclt.make_plan(parent, states)
    order = steps[steps[:, 0] == hclt.EMIT, 2]
    owners = np.where(states > 0, np.arange(n), parent)
    transitions = [random_rows(rng, (m, k), 1 << 15, 1, powers) for step, _, _, m, k, _ in steps if step == hclt.DOWN]
    sizes = rng.integers(1, contexts + 1, n)
    near = [rng.choice(order[:i], min(i, 2), replace=False) for i in np.argsort(order)]
    emissions = [random_rows(rng, (c, 256, states[o]), 1 << 20, 1, powers) for c, o in zip(sizes, owners, strict=True)]
    return Hclt(
        height=height,
        width=width,
        parent=parent,
        states=states,
        initial=random_rows(rng, (int(states[order[0]]),), 1 << 15, 0, powers).astype(np.uint16),
        transitions=flat_array(transitions, np.uint16),
        emissions=flat_array([hclt.packed(e) for e in emissions], np.uint16),
        n_contexts=sizes.astype(np.uint8),
        n_neighbours=np.array([len(v) for v in near], np.uint8),
        neighbours=flat_array(near, np.int16),
        weights=flat_array([rng.integers(-200, 400, len(v)) for v in near], np.int16),
        thresholds=flat_array([np.sort(rng.integers(1, 256, c - 1)) for c in sizes], np.uint8),
    ).check()


@st.composite
def models(draw: st.DrawFn) -> Hclt:
    sides = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return random_model(*sides, draw(st.integers(0, 1 << 30)), draw(st.booleans()), draw(st.sampled_from([1, 2, 17])))


def pictures_for(model: Hclt, n: int, kind: str, seed: int) -> np.ndarray:
    shape = (n, model.height, model.width)
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    if kind == "extremes":
        return np.random.default_rng(seed).choice([0, 255], shape).astype(np.uint8)
    return np.full(shape, seed % 256, np.uint8)


kinds = st.sampled_from(["noise", "extremes", "constant"])


@settings(deadline=None, max_examples=30)
@given(models(), st.integers(1, 7), kinds, st.integers(0, 1 << 30))
def test_kernel_is_reference_and_pictures_come_back(model: Hclt, n: int, kind: str, seed: int) -> None:
    pictures = pictures_for(model, n, kind, seed)
    data = model.encode(pictures)
    assert data == encode_reference(model, pictures)
    assert np.array_equal(model.decode(data, n), pictures)
    assert np.array_equal(decode_reference(model, data, n), pictures)


def test_no_pictures() -> None:
    model = random_model(2, 2, 1)
    assert model.decode(model.encode(pictures_for(model, 0, "noise", 0)), 0).shape == (0, 2, 2)


@settings(deadline=None, max_examples=30)
@given(models(), st.integers(1, 5), st.integers(0, 1 << 30))
def test_a_picture_has_the_same_intervals_alone_and_in_a_block(model: Hclt, n: int, seed: int) -> None:
    pictures = pictures_for(model, n, "noise", seed)
    starts, freqs = model.intervals(pictures)
    for i in range(n):
        alone = model.intervals(pictures[i : i + 1])
        assert np.array_equal(alone[0], starts[i::n]) and np.array_equal(alone[1], freqs[i::n])


def brute_force_bits(model: Hclt, picture: np.ndarray) -> float:
    """-log2 of the sum over all hidden states, in floats."""
    x, reader = picture.ravel(), Reference(model, 1, lambda pixel, cdf: np.zeros(1, np.int64))
    reader.pictures[0] = x
    emission = [reader.emissions(v)[reader.contexts(v)[0], x[v]] / (1 << 20) for v in range(len(x))]
    downs = [step for step in model.plan.tolist() if step[0] == hclt.DOWN]
    root = int(np.flatnonzero(model.parent == -1)[0])
    inner, total = [root, *(step[2] for step in downs)], 0.0
    for z in itertools.product(*(range(model.states[v]) for v in inner)):
        state = dict(zip(inner, z, strict=True))
        p = model.initial[state[root]] / (1 << 15)
        for _, _, v, above, below, place in downs:
            rows = model.transitions[place : place + above * below].reshape(above, below)
            p *= rows[state[model.parent[v]], state[v]] / (1 << 15)
        for v in range(len(x)):
            p *= emission[v][state[int(model.owners[v])]]
        total += p
    return float(-np.log2(total))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1 << 30), st.integers(1, 2), st.integers(1, 3))
@example(12761, 2, 2)
def test_codelength_is_that_of_the_sum_over_hidden_states(seed: int, height: int, width: int) -> None:
    model = random_model(height, width, seed, most=3, soft=True)
    pictures = pictures_for(model, 4, "noise", seed)
    expected = sum(brute_force_bits(model, picture) for picture in pictures)
    assert model.codelength(pictures) == pytest.approx(expected, rel=0.0005, abs=0.02)


def test_a_deep_chain_codes() -> None:
    """Deeper than Python recurses."""
    model = random_model(40, 30, 1, chain=True, most=2, contexts=1)
    pictures = pictures_for(model, 2, "noise", 2)
    assert np.array_equal(model.decode(model.encode(pictures), 2), pictures)


@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.data())
def test_a_cut_or_lengthened_stream_is_an_error(seed: int, data: st.DataObject) -> None:
    model = random_model(2, 3, seed)
    raw = model.encode(pictures_for(model, 5, "noise", seed))
    with pytest.raises(BadFile, match="found .*, expected"):
        model.decode(raw[: data.draw(st.integers(0, len(raw) - 1))], 5)
    with pytest.raises(BadFile, match="coded pictures: found .1 bytes more"):
        model.decode(raw + b"\0", 5)


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(0, 6))
def test_any_bytes_are_pictures_or_an_error(raw: bytes, n: int) -> None:
    model = random_model(3, 2, 4)
    try:
        assert model.decode(raw, n).shape == (n, 3, 2)
    except BadFile:
        pass


@pytest.mark.parametrize(
    "pictures", [np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), int), np.zeros((2, 3), np.uint8)]
)
def test_other_pictures_are_an_error(pictures: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"expected \[N, 2, 3\] of uint8"):
        random_model(2, 3, 1).encode(pictures)


def test_emissions_in_16_bits_are_exact_sums() -> None:
    rng = np.random.default_rng(0)
    for power in (0.1, 3, 100, 1000):
        raw = rng.random((2, 256, 5)) ** power
        rows = quantised(raw.astype(np.float32) / raw.sum(1, keepdims=True).astype(np.float32), 1 << 20, 1)
        back = hclt.unpacked(hclt.packed(rows))
        assert (back.sum(1) == 1 << 20).all() and back.min() >= 1
        assert (np.abs(back - rows) <= 32 * 32).all()


def changed(model: Hclt, field: str, place: int, value: int) -> Hclt:
    array = getattr(model, field).copy()
    array[place] = value
    return replace(model, **{field: array})


@pytest.mark.parametrize(
    ("field", "place", "value"),
    [
        ("parent", 0, 300),
        ("parent", 0, 0),
        ("states", 0, 300),
        ("initial", 0, 0),
        ("transitions", 0, 0),
        ("emissions", 3, 0),
        ("emissions", 3, 40_000),
        ("n_contexts", 0, 0),
        ("n_neighbours", 0, 200),
        ("neighbours", 0, 99),
    ],
)
def test_a_model_that_is_not_sound_is_refused(field: str, place: int, value: int) -> None:
    with pytest.raises(BadInput, match="found .*, expected"):
        changed(random_model(3, 3, 5), field, place, value).check()


def test_a_model_of_other_types_or_sizes_is_refused() -> None:
    model = random_model(3, 3, 5)
    with pytest.raises(BadInput, match="emissions"):
        replace(model, emissions=model.emissions.astype(np.int64)).check()
    with pytest.raises(BadInput, match="parent: found 9, expected 12"):
        replace(model, height=4).check()
    with pytest.raises(BadInput, match="pixels: found '-3 x -3'"):
        replace(model, height=-3, width=-3).check()


@pytest.mark.parametrize("field", hclt.FIELDS)
@pytest.mark.parametrize("dtype", [np.int8, np.float32, np.uint64])
def test_weights_of_another_type_are_refused(field: str, dtype: type) -> None:
    """Were they taken, a NaN would be some integer, and another one on another machine."""
    model = random_model(3, 3, 5)
    array = getattr(model, field).astype(dtype)
    with pytest.raises(BadInput, match=f"{field}, type and axes"):
        replace(model, **{field: array}).check()
