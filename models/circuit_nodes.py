"""Nodes of probabilistic circuits, as one writes them down: inputs, products and sums. `Circuit.of` compiles them.

A sum is smooth where all its children are over the same variables, a product decomposable where its children are over
different ones. Both are what makes every marginal one evaluation (Choi, Vergari, Van den Broeck, "Probabilistic
circuits", 2020, section 3), so both are checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadInput, expect

Floats = NDArray[np.float64]
LEAST_P = 1e-12  # a cut distribution gives each value at least that, before it is normed again


class Family(Protocol):
    """Gives a distribution of one variable over 0..k - 1.

    The same object in several inputs is one parameter, learnt from all.
    """

    def pmf(self, k: int) -> Floats:
        """Return the probabilities, float64 [k], which sum to 1."""

    def fitted(self, counts: Floats, pseudocount: float) -> Family:
        """Return the member of the family that expected counts [k] lead to."""


@dataclass(frozen=True, eq=False)
class Categorical:
    """Stands for any distribution. p: float64 [k], in any unit."""

    p: Floats

    def pmf(self, k: int) -> Floats:
        """Return the probabilities, float64 [k]. Raises BadInput where p has another length."""
        expect(len(self.p) == k, BadInput, "categorical", len(self.p), f"{k} probabilities")
        return np.asarray(self.p / self.p.sum())

    def fitted(self, counts: Floats, pseudocount: float) -> Categorical:
        """Return the shares of the counts, after the pseudocount is spread over all values."""
        smoothed = counts + pseudocount / len(counts)
        return Categorical(smoothed / smoothed.sum()) if smoothed.sum() > 0 else self


@dataclass(frozen=True, eq=False)
class Logistic:
    """Stands for the logistic distribution of a mean and a scale, cut half-way between the integers; the ends take the tails."""

    mean: float
    scale: float

    def pmf(self, k: int) -> Floats:
        """Return the probabilities, float64 [k]."""
        edges = (np.arange(1, k) - 0.5 - self.mean) / self.scale
        cdf = np.concatenate([[0.0], 0.5 * (1 + np.tanh(edges / 2)), [1.0]])
        floored = np.maximum(np.diff(cdf), LEAST_P)
        return np.asarray(floored / floored.sum())

    def fitted(self, counts: Floats, pseudocount: float) -> Logistic:
        """Return the member with the counts' mean and variance; the pseudocount counts for the old ones."""
        values, total = np.arange(len(counts)), counts.sum() + pseudocount
        variance = (self.scale * np.pi) ** 2 / 3
        if total <= 0:
            return self
        mean = (counts @ values + pseudocount * self.mean) / total
        spread = (counts @ (values - mean) ** 2 + pseudocount * variance) / total
        return Logistic(float(mean), max(0.1, float(np.sqrt(3 * spread) / np.pi)))


@dataclass(frozen=True, eq=False)
class Binomial:
    """Stands for the number of successes in k - 1 trials, each with probability p."""

    p: float

    def pmf(self, k: int) -> Floats:
        """Return the probabilities, float64 [k], by ratios of neighbours in logarithms."""
        n, values = k - 1, np.arange(k)
        steps = np.log((n - values[:-1]) / (values[:-1] + 1))
        logs = np.concatenate([[0.0], np.cumsum(steps)]) + values * np.log(self.p) + (n - values) * np.log1p(-self.p)
        floored = np.maximum(np.exp(logs), LEAST_P)
        return np.asarray(floored / floored.sum())

    def fitted(self, counts: Floats, pseudocount: float) -> Binomial:
        """Return the share of successes in the counts; the pseudocount counts for the old one."""
        trials = (counts.sum() + pseudocount) * (len(counts) - 1)
        hits = counts @ np.arange(len(counts)) + pseudocount * self.p * (len(counts) - 1)
        return Binomial(float(np.clip(hits / trials, 1e-6, 1 - 1e-6))) if trials > 0 else self


@dataclass(frozen=True, eq=False)
class Weights:
    """Holds the weights of a sum, one per child, 0 or more, in any unit. The same object in several sums is one parameter."""

    values: Floats


@dataclass(frozen=True, eq=False)
class Input:
    """Stands for a variable and its distribution."""

    variable: int
    family: Family


@dataclass(frozen=True, eq=False)
class Product:
    """Multiplies independent parts: children over different variables."""

    children: Sequence[Node]


@dataclass(frozen=True, eq=False)
class Sum:
    """Mixes children over the same variables."""

    children: Sequence[Node]
    weights: Weights


Node = Input | Product | Sum


def topological(root: Node) -> list[Node]:
    """Return every node once, children first. Without recursion: circuits are deeper than Python recurses."""
    order: list[Node] = []
    seen: set[int] = set()
    todo: list[tuple[Node, bool]] = [(root, False)]
    while todo:
        node, done = todo.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            todo.append((node, True))
            todo += [] if isinstance(node, Input) else [(child, False) for child in node.children]
    return order


def checked_scopes(nodes: list[Node]) -> dict[int, frozenset[int]]:
    """Return the variables below each node, by its id. Raises BadInput where the nodes are no circuit.

    nodes: children first.
    """
    scopes: dict[int, frozenset[int]] = {}
    for i, node in enumerate(nodes):
        if isinstance(node, Input):
            expect(node.variable >= 0, BadInput, f"node {i}, variable", node.variable, "0 or more")
            scopes[id(node)] = frozenset([node.variable])
        else:
            below = [scopes[id(child)] for child in node.children]
            expect(len(below) > 0, BadInput, f"node {i}", "no children", "one or more")
            check_sum(i, node, below) if isinstance(node, Sum) else check_product(i, below)
            scopes[id(node)] = frozenset().union(*below)
    whole, expected = scopes[id(nodes[-1])], "variables 0, 1, 2 and so on, none left out"
    expect(whole == frozenset(range(len(whole))), BadInput, "root", names(whole), expected)
    return scopes


def check_sum(i: int, node: Sum, below: list[frozenset[int]]) -> None:
    """Raise BadInput unless node i is a smooth sum with fitting weights. below: the variables of each child."""
    w, whole = np.asarray(node.weights.values), frozenset[int]().union(*below)
    ok = len(w) == len(below) and bool((w >= 0).all()) and w.sum() > 0
    expect(ok, BadInput, f"sum {i}, weights", len(w), f"{len(below)} of 0 and more, not all 0")
    other = next((scope for scope in below if scope != whole), None)
    expect(other is None, BadInput, f"sum {i}, smoothness", f"a child over {names(other or ())}", names(whole))


def check_product(i: int, below: list[frozenset[int]]) -> None:
    """Raise BadInput unless node i is a decomposable product. below: the variables of each child."""
    whole = frozenset[int]().union(*below)
    twice = [v for v in sorted(whole) if sum(v in scope for scope in below) > 1]
    expected = f"each variable in one child only, of {names(whole)}"
    expect(not twice, BadInput, f"product {i}, decomposability", f"{names(twice)} in several children", expected)


def names(scope: Iterable[int]) -> str:
    """Return some variables as a message calls them."""
    shown = sorted(scope)
    return f"variables {', '.join(map(str, shown[:8]))}{' and more' if len(shown) > 8 else ''}"


def distinct(items: Iterable[Any]) -> list[Any]:
    """Return each object once, in order of its first place."""
    return list({id(item): item for item in items}.values())
