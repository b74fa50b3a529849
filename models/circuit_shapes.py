"""Shapes of circuits, drawn at random and to be learnt: hidden Chow-Liu trees, and random regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.models.circuit import Circuit
from laconic.models.circuit_nodes import Categorical, Floats, Input, Node, Product, Sum, Weights


def hclt(parent: ArrayLike, states: int, k: int, shared: bool = False, seed: int = 0) -> Circuit:
    """Return a hidden Chow-Liu tree with random parameters: each variable hangs on a hidden state of its own.

    parent: integers [D], the parent of each variable in the tree, -1 at the root. states: of each hidden variable. k:
    values of a variable. shared: one transition and one emission serve all places, as for patches whose statistics do
    not depend on the place. After: Liu, Mandt, Van den Broeck, ICLR 2022.
    """
    above, rng = np.asarray(parent, np.int64), np.random.default_rng(seed)
    children = [np.flatnonzero(above == v).tolist() for v in range(len(above))]
    (root,) = np.flatnonzero(above == -1).tolist()
    order = [root]
    for v in order:
        order += children[v]
    one_emission = [Categorical(near_flat(rng, k)) for _ in range(states)]
    one_transition = [Weights(near_flat(rng, states)) for _ in range(states)]
    given: dict[int, list[Node]] = {}  # what each state of the parent says of a subtree; of a leaf, its emissions
    for v in reversed(order):
        emissions = one_emission if shared else [Categorical(near_flat(rng, k)) for _ in range(states)]
        inputs: list[Node] = [Input(v, emission) for emission in emissions]
        if not children[v] and v != root:
            given[v] = inputs
            continue
        parts: list[Node] = [Product([inputs[z], *(given[c][z] for c in children[v])]) for z in range(states)]
        transition = one_transition if shared else [Weights(near_flat(rng, states)) for _ in range(states)]
        given[v] = [Sum(parts, weights) for weights in (transition if v != root else [Weights(near_flat(rng, states))])]
    return Circuit.of(given[root][0], k)


def rat(n_variables: int, k: int, sums: int = 4, repetitions: int = 2, seed: int = 0) -> Circuit:
    """Return a circuit over random regions with random parameters: no tree (Peharz et al. 2019, RAT-SPNs).

    Variables are split in halves at random, and halves again, differently in each repetition. sums: nodes of a region,
    each a mixture of all pairs of nodes of its halves.
    """
    rng = np.random.default_rng(seed)
    inputs = [[Input(v, Categorical(near_flat(rng, k))) for _ in range(sums)] for v in range(n_variables)]

    def region(scope: NDArray[np.int64], n: int) -> list[Node]:
        if len(scope) == 1:
            return list(inputs[int(scope[0])])
        half = len(scope) // 2
        left, right = region(scope[:half], sums), region(scope[half:], sums)
        pairs: list[Node] = [Product([a, b]) for a in left for b in right]
        return [Sum(pairs, Weights(near_flat(rng, len(pairs)))) for _ in range(n)]

    tops = [region(rng.permutation(n_variables), 1)[0] for _ in range(repetitions)]
    return Circuit.of(Sum(tops, Weights(np.ones(repetitions))), k)


def near_flat(rng: np.random.Generator, n: int) -> Floats:
    """Return a random distribution near the flat one, float64 [n]: equal nodes would learn the same, for ever."""
    p = 1 + 0.4 * rng.uniform(-1, 1, n)
    return np.asarray(p / p.sum())
