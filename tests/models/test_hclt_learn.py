"""Learning hidden Chow-Liu trees: likelihoods rise, tensors and kernels agree, integers lose nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from laconic.entropy.errors import BadInput
from laconic.models.hclt_learn import LearnConfig, Learner
from laconic.models.hclt_tree import chow_liu_tree


def striped(n: int, seed: int) -> np.ndarray:
    """Pictures of 4 x 5 with a common tone, an edge and noise."""
    rng = np.random.default_rng(seed)
    tone, edge = rng.integers(30, 200, (n, 1, 1)), rng.integers(0, 5, (n, 1, 1))
    shape = np.where(np.arange(5) < edge, 0, tone) + rng.integers(0, 12, (n, 4, 5))
    return np.where(shape > 11, shape, 0).clip(0, 255).astype(np.uint8)


CONFIG = LearnConfig(states=16, contexts=3, epochs=4, full_epochs=1, batch=300)


@pytest.fixture(scope="module")
def learner() -> Learner:
    torch.set_num_threads(1)
    learner = Learner.start(striped(1500, 1), CONFIG)
    learner.run()
    return learner


def test_learning_beats_independent_pixels_and_integers_lose_nothing(learner: Learner) -> None:
    train, test = striped(1500, 1), striped(300, 2)
    pixels = 0.0
    for y, x in itertools.product(range(4), range(5)):
        counts = np.bincount(train[:, y, x], minlength=256) + 0.1
        pixels -= np.log2(counts / counts.sum())[test[:, y, x]].sum()
    bits = learner.export().codelength(test)
    assert bits < 0.85 * pixels
    assert bits / test.size == pytest.approx(learner.bpd(test), rel=0.003)


def test_epochs_raise_the_likelihood() -> None:
    pictures = striped(800, 3)
    learner = Learner.start(pictures, replace(CONFIG, contexts=1))
    found = [learner.bpd(pictures)]
    for _ in range(3):
        learner.epoch(len(pictures), 1.0)
        found.append(learner.bpd(pictures))
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("epochs", "full_epochs", "lines"), [(3, 0, ["epoch"] * 3), (0, 3, ["all"] * 3), (2, 1, ["epoch", "epoch", "all"])]
)
def test_mini_batches_and_all_pictures_at_once_both_learn(epochs: int, full_epochs: int, lines: list[str]) -> None:
    found: list[str] = []
    learner = Learner.start(striped(900, 8), replace(CONFIG, epochs=epochs, full_epochs=full_epochs))
    before = learner.bpd(striped(300, 2))
    learner.run(found.append)
    assert learner.bpd(striped(300, 2)) < before
    assert [line.split()[0] for line in found] == lines


def test_tensors_count_as_the_kernels_do(learner: Learner) -> None:
    """The way of other devices, run on this one."""
    pictures = striped(40, 4).reshape(40, -1)
    kernels, tensors = learner.no_counts(), learner.no_counts()
    first = learner.expect(pictures, kernels)
    learner.kernels = False
    second = learner.expect(pictures, tensors)
    learner.kernels = True
    np.testing.assert_allclose(first, second, rtol=1e-6)
    for a, b in zip(itertools.chain(*kernels), itertools.chain(*tensors), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5)


def test_tensors_learn_as_the_kernels_do(learner: Learner) -> None:
    other = Learner.start(striped(1500, 1), CONFIG)
    other.kernels = False
    other.run()
    assert other.bpd(striped(300, 2)) == pytest.approx(learner.bpd(striped(300, 2)), rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_as_a_cpu_does(learner: Learner) -> None:
    other, pictures = Learner.start(striped(1500, 1), CONFIG, "cuda"), striped(300, 2)
    other.run()
    assert other.bpd(pictures) == pytest.approx(learner.bpd(pictures), rel=0.01)
    model = other.export().check()
    assert model.codelength(pictures) / pictures.size == pytest.approx(other.bpd(pictures), rel=0.003)


def test_expected_counts_sum_to_the_pictures(learner: Learner) -> None:
    seen = learner.no_counts()
    learner.expect(striped(70, 5).reshape(70, -1), seen)
    assert float(seen.initial[0].sum()) == pytest.approx(70, rel=1e-4)
    assert float(seen.emissions[0].sum()) == pytest.approx(70 * 20, rel=1e-4)
    for transition, counted in zip(learner.transitions[1:], seen.transitions[1:], strict=True):
        assert float((transition * counted).sum()) == pytest.approx(70, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (20, 6, 1)])
@pytest.mark.parametrize("value", [0, 255])
def test_the_smallest_and_constant_pictures_are_learnt(shape: tuple[int, int, int], value: int) -> None:
    pictures = np.full(shape, value, np.uint8)
    learner = Learner.start(pictures, replace(CONFIG, states=8, epochs=1))
    learner.run()
    model = learner.export().check()
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for coded in (pictures, noise):
        assert np.array_equal(model.decode(model.encode(coded), len(coded)), coded)
    assert model.codelength(pictures) < model.codelength(noise)


def test_the_tree_joins_what_depends() -> None:
    rng = np.random.default_rng(0)
    left, right = np.tile(rng.integers(0, 256, (2, 600, 1, 1)), (1, 1, 3, 1)).astype(np.uint8)
    parent = chow_liu_tree(np.concatenate([left, left, right, right], 2).reshape(600, -1), 3, 4)
    across = [(v, p) for v, p in enumerate(parent.tolist()) if p >= 0 and (v % 4 < 2) != (p % 4 < 2)]
    assert len(across) == 1 and (parent == -1).sum() == 1


def test_time_limit_and_progress() -> None:
    lines: list[str] = []
    Learner.start(striped(100, 6), CONFIG).run(lines.append, limit_s=0.0, held_out=striped(20, 7))
    assert len(lines) == CONFIG.full_epochs and "held out" in lines[0]


@pytest.mark.parametrize(
    ("change", "field"), [({"states": 300}, "states"), ({"states": 2}, "states"), ({"contexts": 0}, "contexts")]
)
def test_configurations_out_of_range_are_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput, match=field):
        Learner.start(striped(10, 1), replace(CONFIG, **change))
