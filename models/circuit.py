"""Probabilistic circuits: sums, products and inputs, whose every marginal is one evaluation (Choi, Vergari, Van den
Broeck, "Probabilistic circuits", 2020).

    nodes ── Circuit.of ──► layers of flat arrays ── learn ──► the same with other parameters
                            log_likelihood, conditional   (float64, kernels or torch on a device; negative: is missing)
                            Integers.of(circuit)          (exact coding, integers alone)

Builders: `hclt` (hidden Chow-Liu trees; with shared parameters one row serves all places) and `rat` (random regions, not a
tree; Peharz et al. 2019). Coding follows Liu, Mandt, Van den Broeck (ICLR 2022): variables in a fixed order, and each step
evaluates again only what it changed, O(log D) times the circuit in all where the circuit is balanced. Here the CDF of the
next variable comes from one pass down instead of a bisection of evaluations: the root is linear in a variable's inputs.
Trees have a faster way: `hclt.py`. To train large circuits on a GPU see PyJuice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import WIDE_BITS, encode_intervals, open_stream
from laconic.entropy.rans_numba import I64, U64, pop_wide
from laconic.entropy.threads import mapped

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
TABLE_BITS = 20  # an input's row in integers sums to 2**20
WEIGHT_BITS = WIDE_BITS - TABLE_BITS  # the weights of a variable's inputs sum to 2**11
MANTISSA_BITS = 31
LEAST_P = 1e-12
LANES, CHUNK = 8, 256  # rows that a kernel takes side by side; rows of a thread
SHIFT, HALF_SHIFT = 2.0**512, 2.0**256  # of a value in floats: m * SHIFT**e, 1 / HALF_SHIFT <= m < HALF_SHIFT


class Family(Protocol):
    """A distribution of one variable over 0..K - 1. The same object in several inputs is one parameter."""

    def pmf(self, k: int) -> Floats:
        """float64 [k], sums to 1."""

    def fitted(self, counts: Floats, pseudocount: float) -> Family:
        """The member of the family that expected counts [k] lead to."""


@dataclass(frozen=True, eq=False)
class Categorical:
    """Any distribution. p: float64 [K]."""

    p: Floats

    def pmf(self, k: int) -> Floats:
        expect(len(self.p) == k, BadInput, "categorical", len(self.p), f"{k} probabilities")
        return np.asarray(self.p / self.p.sum())

    def fitted(self, counts: Floats, pseudocount: float) -> Categorical:
        smoothed = counts + pseudocount / len(counts)
        return Categorical(smoothed / smoothed.sum()) if smoothed.sum() > 0 else self


@dataclass(frozen=True, eq=False)
class Logistic:
    """The logistic distribution of a mean and a scale, cut at the integers; the ends take the tails."""

    mean: float
    scale: float

    def pmf(self, k: int) -> Floats:
        edges = (np.arange(1, k) - 0.5 - self.mean) / self.scale
        cdf = np.concatenate([[0.0], 0.5 * (1 + np.tanh(edges / 2)), [1.0]])
        floored = np.maximum(np.diff(cdf), LEAST_P)
        return np.asarray(floored / floored.sum())

    def fitted(self, counts: Floats, pseudocount: float) -> Logistic:
        """By moments; the pseudocount keeps the old ones."""
        values, total = np.arange(len(counts)), counts.sum() + pseudocount
        variance = (self.scale * np.pi) ** 2 / 3
        if total <= 0:
            return self
        mean = (counts @ values + pseudocount * self.mean) / total
        spread = (counts @ (values - mean) ** 2 + pseudocount * variance) / total
        return Logistic(float(mean), max(0.1, float(np.sqrt(3 * spread) / np.pi)))


@dataclass(frozen=True, eq=False)
class Binomial:
    """How many of K - 1 trials succeed, each with probability p."""

    p: float

    def pmf(self, k: int) -> Floats:
        n, values = k - 1, np.arange(k)
        steps = np.log((n - values[:-1]) / (values[:-1] + 1))
        logs = np.concatenate([[0.0], np.cumsum(steps)]) + values * np.log(self.p) + (n - values) * np.log1p(-self.p)
        floored = np.maximum(np.exp(logs), LEAST_P)
        return np.asarray(floored / floored.sum())

    def fitted(self, counts: Floats, pseudocount: float) -> Binomial:
        trials = (counts.sum() + pseudocount) * (len(counts) - 1)
        hits = counts @ np.arange(len(counts)) + pseudocount * self.p * (len(counts) - 1)
        return Binomial(float(np.clip(hits / trials, 1e-6, 1 - 1e-6))) if trials > 0 else self


@dataclass(frozen=True, eq=False)
class Weights:
    """Of a sum's children, >= 0, one more. The same object in several sums is one parameter."""

    values: Floats


@dataclass(frozen=True, eq=False)
class Input:
    """A variable and its distribution."""

    variable: int
    family: Family


@dataclass(frozen=True, eq=False)
class Product:
    """Independent parts: children over different variables."""

    children: Sequence[Node]


@dataclass(frozen=True, eq=False)
class Sum:
    """A mixture: children over the same variables."""

    children: Sequence[Node]
    weights: Weights


Node = Input | Product | Sum


@dataclass(frozen=True)
class Layer:
    """Nodes of one kind whose children are in layers before. first: number of its first node; n: how many.

    Edges: child, parent (counted in the layer), and of sums the place of the weight. int64 [E], by parent.
    """

    is_sum: bool
    first: int
    n: int
    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    weight: NDArray[np.int64]


class Edges(NamedTuple):
    """A circuit for kernels: node i has the edges first[i] .. first[i + 1] - 1; inputs have none. See `Circuit`."""

    variables: NDArray[np.int64]
    tables: NDArray[np.int64]
    child: NDArray[np.int64]
    weight: NDArray[np.int64]
    first: NDArray[np.int64]
    is_sum: NDArray[np.bool_]


@dataclass(frozen=True)
class Circuit:
    """Layers of flat arrays, inputs first, the root last. k: values a variable, 0..k - 1.

    variables, tables: int64 [inputs], of each input its variable and the row of `families`. theta: float64, weights of all
    sums; bounds: where those of a parameter begin, and the end.
    """

    n_variables: int
    k: int
    layers: tuple[Layer, ...]
    variables: NDArray[np.int64]
    tables: NDArray[np.int64]
    families: tuple[Family, ...]
    theta: Floats
    bounds: NDArray[np.int64]

    @staticmethod
    def of(root: Node, k: int) -> Circuit:
        """Compile. Raises BadInput where it is not smooth or not decomposable, with the node and its variables."""
        nodes = topological(root)
        scopes = checked_scopes(nodes)
        height: dict[int, int] = {}
        for node in nodes:
            below = () if isinstance(node, Input) else node.children
            height[id(node)] = 1 + max((height[id(c)] for c in below), default=-1)
        nodes.sort(key=lambda node: (height[id(node)], isinstance(node, Sum)))
        number = {id(node): i for i, node in enumerate(nodes)}
        inputs = [node for node in nodes if isinstance(node, Input)]
        families, weights = distinct(n.family for n in inputs), distinct(n.weights for n in nodes if isinstance(n, Sum))
        bounds = np.concatenate([[0], np.cumsum([len(w.values) for w in weights], dtype=np.int64)])
        place = {id(w): int(bounds[i]) for i, w in enumerate(weights)}
        rows = {id(f): i for i, f in enumerate(families)}
        theta = np.concatenate([np.zeros(0), *(np.asarray(w.values, np.float64) / np.sum(w.values) for w in weights)])
        return Circuit(
            n_variables=len(scopes[id(root)]),
            k=k,
            layers=tuple(layers_of(nodes, height, number, place)),
            variables=np.array([node.variable for node in inputs], np.int64),
            tables=np.array([rows[id(node.family)] for node in inputs], np.int64),
            families=tuple(families),
            theta=theta,
            bounds=bounds,
        )

    def log_likelihood(self, x: ArrayLike, device: str = "cpu") -> Floats:
        """Nats, float64 [N], of integers [N, D]; a negative one is missing, summed over. Raises BadInput."""
        rows = self._checked(x)
        if device == "cpu":
            return np.concatenate([np.zeros(0), *(logs for logs, _, _ in self._propagated(rows, False, None))])
        return np.asarray(self._evaluate(rows, *self._logarithms(device)).detach().cpu().numpy())

    def conditional(self, x: ArrayLike, variable: int, device: str = "cpu") -> Floats:
        """The distribution of a variable given all others that are not missing: float64 [N, k]."""
        rows = np.repeat(self._checked(x), self.k, 0)
        rows[:, variable] = np.tile(np.arange(self.k), len(rows) // self.k)
        joint = self.log_likelihood(rows, device).reshape(-1, self.k)
        p = np.exp(joint - joint.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))

    def _checked(self, x: ArrayLike) -> NDArray[np.int64]:
        rows = np.array(x, np.int64)
        ok = rows.ndim == 2 and rows.shape[1] == self.n_variables and rows.max(initial=-1) < self.k
        expect(ok, BadInput, "values", list(rows.shape), f"[N, {self.n_variables}] below {self.k}")
        return rows

    def _expected(self, rows: NDArray[np.int64], device: str, threads: int | None) -> tuple[Floats, Floats]:
        """How often, over the rows, each weight [P] and each value of each family [families, k] is expected to be used."""
        if device != "cpu":
            return self._gradients(rows, device)
        theta, values = np.zeros(len(self.theta)), np.zeros((len(self.families), self.k))
        for _, used, seen in self._propagated(rows, True, threads):
            theta += used
            values += seen
        return theta, values

    def _propagated(
        self, rows: NDArray[np.int64], learning: bool, threads: int | None
    ) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Of each chunk of rows: nats, and what `_expected` sums. The same for any number of threads."""
        theta, tables = self._parameters()

        def chunk(first: int) -> tuple[Floats, Floats, Floats]:
            some = rows[first : first + CHUNK]
            logs, used, seen = np.empty(len(some)), np.zeros_like(theta), np.zeros_like(tables)
            propagate(self.edges, some, theta, tables, learning, logs, used, seen)
            return logs, used, seen

        return mapped(chunk, range(0, len(rows), CHUNK), threads)

    @cached_property
    def edges(self) -> Edges:
        n_inputs, none = len(self.variables), np.zeros(0, np.int64)
        degrees = [np.zeros(n_inputs, np.int64), *(np.bincount(a.parent, minlength=a.n) for a in self.layers)]
        return Edges(
            self.variables,
            self.tables,
            np.concatenate([none, *(layer.child for layer in self.layers)]),
            np.concatenate([none, *(layer.weight for layer in self.layers)]),
            np.concatenate([[0], np.cumsum(np.concatenate(degrees))]),
            np.concatenate([np.zeros(n_inputs, bool), *(np.full(a.n, a.is_sum) for a in self.layers)]),
        )

    def _parameters(self) -> tuple[Floats, Floats]:
        """theta [P] and all families' distributions [families, k], none of them 0."""
        tables = np.stack([family.pmf(self.k) for family in self.families])
        return np.maximum(self.theta, LEAST_P), np.maximum(tables, LEAST_P)

    def _logarithms(self, device: str) -> list[Tensor]:
        import torch

        return [torch.as_tensor(np.log(p), device=device) for p in self._parameters()]

    def _gradients(self, rows: NDArray[np.int64], device: str) -> tuple[Floats, Floats]:
        """The gradient by a logarithm is the expected count (Peharz et al. 2020, section 3.3)."""
        import torch

        theta, tables = (p.requires_grad_() for p in self._logarithms(device))
        total = self._evaluate(rows, theta, tables).sum()
        flows = torch.autograd.grad(total, (theta, tables), allow_unused=True, materialize_grads=True)
        return flows[0].cpu().numpy(), flows[1].cpu().numpy()

    def _evaluate(self, x: NDArray[np.int64], theta: Tensor, tables: Tensor) -> Tensor:
        """Layer by layer, [nodes, N] logarithms."""
        import torch

        def on(a: NDArray[Any]) -> Tensor:
            return torch.as_tensor(a, device=theta.device)

        seen = on(np.ascontiguousarray(x.T))[on(self.variables)]
        found = tables[on(self.tables)].gather(1, seen.clamp(min=0))
        values = torch.where(seen >= 0, found, torch.zeros_like(found))
        for layer in self.layers:
            parent, below = on(layer.parent), values[on(layer.child)]
            if layer.is_sum:
                below = below + theta[on(layer.weight)][:, None]
                least = torch.full((layer.n, len(x)), -torch.inf, dtype=below.dtype, device=below.device)
                top = least.scatter_reduce(0, parent[:, None].expand_as(below), below.detach(), "amax")
                total = torch.zeros_like(top).index_add(0, parent, torch.exp(below - top[parent]))
                new = top + torch.log(total)
            else:
                new = below.new_zeros(layer.n, len(x)).index_add(0, parent, below)
            values = torch.cat([values, new])
        return values[-1]


def learn(
    circuit: Circuit,
    x: ArrayLike,
    epochs: int = 10,
    batch: int | None = None,
    step: float = 1.0,
    pseudocount: float = 0.1,
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
) -> Circuit:
    """Expectation maximisation, by kernels on the CPU, the same for any number of threads, or by torch on a device.

    x: integers [N, D], a negative one is missing. batch: rows at a time, None is all. step: how far a batch moves the
    counts. pseudocount: spread over each parameter's children or values. Raises BadInput.
    """
    rows, rng = circuit._checked(x), np.random.default_rng(seed)
    size = min(batch or len(rows), len(rows))
    expect(size > 0, BadInput, "rows", len(rows), "1 or more")
    kept: list[Floats] = []
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for first in range(0, len(rows) - size + 1, size):
            found = circuit._expected(rows[order[first : first + size]], device, threads)
            fresh = [counts * (len(rows) / size) for counts in found]
            kept = [old + step * (new - old) for old, new in zip(kept, fresh, strict=True)] if kept else fresh
            circuit = maximised(circuit, kept[0], kept[1], pseudocount)
    return circuit


def maximised(circuit: Circuit, edges: Floats, counts: Floats, pseudocount: float) -> Circuit:
    """Parameters from expected counts of theta [P] and of values [families, k]."""
    sizes = np.diff(circuit.bounds)
    smoothed = edges + np.repeat(pseudocount / np.maximum(sizes, 1), sizes)
    totals = np.repeat(np.add.reduceat(smoothed, circuit.bounds[:-1]), sizes) if len(sizes) else smoothed
    theta = np.where(totals > 0, smoothed / np.maximum(totals, LEAST_P), circuit.theta)
    families = tuple(f.fitted(c, pseudocount) for f, c in zip(circuit.families, counts, strict=True))
    return replace(circuit, theta=theta, families=families)


@numba.njit(cache=True, nogil=True)
def propagate(edges, rows, theta, tables, learning, logs, used, seen):  # type: ignore[no-untyped-def]
    """Nats of rows [n, D] -> logs [n]; where learning, expected counts are added to used [P] and seen [families, k]."""
    n_nodes = len(edges.first) - 1
    m, e, flow = np.empty((n_nodes, LANES)), np.empty((n_nodes, LANES), np.int64), np.empty((n_nodes, LANES))
    some = np.full((LANES, rows.shape[1]), -1)  # rows that there are not are missing, and count nothing
    for first in range(0, len(rows), LANES):
        n = min(LANES, len(rows) - first)
        some[:n] = rows[first : first + n]
        upward(edges, some, theta, tables, m, e)
        for j in range(n):
            logs[first + j] = np.log(m[n_nodes - 1, j]) + e[n_nodes - 1, j] * np.log(SHIFT)
        if learning:
            flow[:] = 0.0
            flow[n_nodes - 1, :n] = 1.0
            downward(edges, some, theta, m, e, flow, used, seen)


@numba.njit(cache=True, nogil=True)
def upward(edges, rows, theta, tables, m, e):  # type: ignore[no-untyped-def]
    """Values of all nodes, m * SHIFT**e: float64 and int64 [nodes, LANES]."""
    variables, tables_of, child, weight, first, is_sum = edges
    for i in range(len(variables)):
        for j in range(LANES):
            value = rows[j, variables[i]]
            m[i, j], e[i, j] = tables[tables_of[i], value] if value >= 0 else 1.0, 0
    for node in range(len(variables), len(first) - 1):
        if is_sum[node]:
            e[node] = e[child[first[node]]]
            for k in range(first[node] + 1, first[node + 1]):
                for j in range(LANES):
                    e[node, j] = max(e[node, j], e[child[k], j])
            m[node] = 0.0
            for k in range(first[node], first[node + 1]):
                w, c = theta[weight[k]], child[k]
                for j in range(LANES):
                    m[node, j] += w * m[c, j] * shift(e[c, j] - e[node, j])
            keep_in_range(m[node], e[node])
        else:
            m[node], e[node] = 1.0, 0
            for k in range(first[node], first[node + 1]):
                for j in range(LANES):
                    m[node, j] *= m[child[k], j]
                    e[node, j] += e[child[k], j]
                keep_in_range(m[node], e[node])


@numba.njit(cache=True, nogil=True)
def keep_in_range(m, e):  # type: ignore[no-untyped-def]
    for j in range(LANES):
        small, large = m[j] < 1 / HALF_SHIFT, m[j] >= HALF_SHIFT
        m[j] *= SHIFT if small else 1 / SHIFT if large else 1.0
        e[j] += large - small


@numba.njit(cache=True, nogil=True)
def shift(e):  # type: ignore[no-untyped-def]
    """SHIFT**e, for e up to 1; below -1 it would be lost in any sum."""
    return 1.0 if e == 0 else 1 / SHIFT if e == -1 else SHIFT if e == 1 else 0.0


@numba.njit(cache=True, nogil=True)
def downward(edges, rows, theta, m, e, flow, used, seen):  # type: ignore[no-untyped-def]
    """flow: of the root 1, of others how likely they are in use, given the row; a sum's edges share its by their values."""
    variables, tables_of, child, weight, first, is_sum = edges
    for node in range(len(first) - 2, len(variables) - 1, -1):
        for k in range(first[node], first[node + 1]):
            c = child[k]
            if is_sum[node]:
                w, total = theta[weight[k]], 0.0
                for j in range(LANES):
                    part = flow[node, j] * (w * m[c, j] / m[node, j]) * shift(e[c, j] - e[node, j])
                    flow[c, j] += part
                    total += part
                used[weight[k]] += total
            else:
                for j in range(LANES):
                    flow[c, j] += flow[node, j]
    for i in range(len(variables)):
        for j in range(LANES):
            value = rows[j, variables[i]]
            if value >= 0:
                seen[tables_of[i], value] += flow[i, j]


def topological(root: Node) -> list[Node]:
    """Every node once, children first. Without recursion, for circuits are deep."""
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
    """Variables below each node. Raises BadInput."""
    scopes: dict[int, frozenset[int]] = {}
    for i, node in enumerate(nodes):
        if isinstance(node, Input):
            expect(node.variable >= 0, BadInput, f"node {i}, variable", node.variable, "0 or more")
            scopes[id(node)] = frozenset([node.variable])
            continue
        below = [scopes[id(child)] for child in node.children]
        expect(len(below) > 0, BadInput, f"node {i}", "no children", "one or more")
        whole = frozenset().union(*below)
        if isinstance(node, Sum):
            w = np.asarray(node.weights.values)
            ok = len(w) == len(below) and bool((w >= 0).all()) and w.sum() > 0
            expect(ok, BadInput, f"sum {i}, weights", len(w), f"{len(below)} of 0 and more, not all 0")
            other = next((s for s in below if s != whole), None)
            expect(other is None, BadInput, f"sum {i}, smoothness", f"a child over {names(other)}", names(whole))
        else:
            twice = [v for v in sorted(whole) if sum(v in scope for scope in below) > 1]
            expected = f"each variable in one child only, of {names(whole)}"
            expect(
                not twice, BadInput, f"product {i}, decomposability", f"{names(twice)} in several children", expected
            )
        scopes[id(node)] = whole
    whole = scopes[id(nodes[-1])]
    expect(
        whole == frozenset(range(len(whole))),
        BadInput,
        "root",
        names(whole),
        "variables 0, 1, 2 and so on, none left out",
    )
    return scopes


def names(scope: Any) -> str:
    shown = sorted(scope or [])
    return f"variables {', '.join(map(str, shown[:8]))}{' and more' if len(shown) > 8 else ''}"


def distinct(items: Iterator[Any]) -> list[Any]:
    """Each object once, in order."""
    return list({id(item): item for item in items}.values())


def layers_of(
    nodes: list[Node], height: dict[int, int], number: dict[int, int], place: dict[int, int]
) -> Iterator[Layer]:
    """Runs of nodes of a height and a kind."""
    first = 0
    while first < len(nodes):
        key = (height[id(nodes[first])], type(nodes[first]))
        last = first
        while last < len(nodes) and (height[id(nodes[last])], type(nodes[last])) == key:
            last += 1
        group = nodes[first:last]
        if key[1] is not Input:
            edges = [
                (number[id(child)], i, place[id(node.weights)] + j if isinstance(node, Sum) else 0)
                for i, node in enumerate(group)
                if not isinstance(node, Input)
                for j, child in enumerate(node.children)
            ]
            child, parent, weight = np.array(edges, np.int64).T.copy()
            yield Layer(key[1] is Sum, first, len(group), child, parent, weight)
        first = last


def hclt(parent: ArrayLike, states: int, k: int, shared: bool = False, seed: int = 0) -> Circuit:
    """The hidden Chow-Liu tree over a tree of variables, drawn at random, to be learnt: parent [D], -1 at the root.

    shared: one transition and one emission for all places, as of patches whose statistics do not depend on the place.
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
    """Random regions, to be learnt: variables are split in halves at random, differently in each repetition."""
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
    """A random distribution around the flat one."""
    p = 1 + 0.4 * rng.uniform(-1, 1, n)
    return np.asarray(p / p.sum())


@dataclass(frozen=True)
class Integers:
    """A circuit in integers that code variables one after the other, in `order`, whatever the circuit's shape.

    Bytes depend on these integers: who decodes elsewhere takes them along, for floats are not the same everywhere.

    tables: CDFs int64 [inputs, k + 1], of 2**20. weights: int64 an edge, >= 1, of 2**20 at each sum. steps: for each
    variable, from begins[v] on, the inner nodes above its inputs, in order: what changes when it is set.
    """

    circuit: Circuit
    order: NDArray[np.int64]
    tables: NDArray[np.int64]
    weights: NDArray[np.int64]
    steps: NDArray[np.int64]
    begins: NDArray[np.int64]

    @staticmethod
    def of(circuit: Circuit, order: ArrayLike | None = None) -> Integers:
        """order: a permutation of the variables; None is the order of inputs below the root, balanced circuits' best."""
        ranks = np.asarray(order if order is not None else range(circuit.n_variables), np.int64)
        expect(
            sorted(ranks.tolist()) == list(range(circuit.n_variables)),
            BadInput,
            "order",
            ranks.tolist(),
            "a permutation",
        )
        rows = np.stack([in_integers(family.pmf(circuit.k)) for family in circuit.families])
        tables = np.zeros((len(circuit.tables), circuit.k + 1), np.int64)
        np.cumsum(rows[circuit.tables], 1, out=tables[:, 1:])
        parts = [in_integers(circuit.theta[a:b]) for a, b in zip(circuit.bounds, circuit.bounds[1:], strict=False)]
        theta = np.concatenate([np.zeros(0, np.int64), *parts])
        weights = [theta[layer.weight] if layer.is_sum else np.ones_like(layer.child) for layer in circuit.layers]
        above = [nodes_above(circuit.edges, v) for v in range(circuit.n_variables)]
        begins = np.concatenate([[0], np.cumsum([len(a) for a in above], dtype=np.int64)])
        flat = np.concatenate([np.zeros(0, np.int64), *weights])
        return Integers(circuit, ranks, tables, flat, np.concatenate(above), begins)

    def encode(self, x: ArrayLike) -> bytes:
        """Integers [N, D] in 0..k - 1 -> bytes. Raises BadInput."""
        rows = self.circuit._checked(x)
        expect(rows.min(initial=0) >= 0, BadInput, "values", rows.min(initial=0), "0 or more, none missing")
        starts, freqs = np.empty(rows.size, np.int64), np.empty(rows.size, np.int64)
        code(self._arrays, rows, starts, freqs, np.zeros(0, np.uint64), np.zeros(0, np.uint32))
        return encode_intervals(starts, freqs, WIDE_BITS)

    def decode(self, data: bytes, n: int) -> NDArray[np.int64]:
        """The n rows that were coded, int64 [n, D]. Raises BadFile where length or end is not right."""
        stream, end = open_stream(data, n * self.circuit.n_variables, WIDE_BITS)
        expect(end == len(data), BadFile, "coded rows", f"{len(data) - end} bytes more", "the end")
        rows, none = np.zeros((n, self.circuit.n_variables), np.int64), np.zeros(0, np.int64)
        stream.finish(code(self._arrays, rows, none, none, stream.states, stream.words))
        return rows

    @cached_property
    def _arrays(self) -> tuple[NDArray[Any], ...]:
        edges = self.circuit.edges
        tree = (edges.child, edges.first, edges.is_sum, self.weights, self.steps, self.begins)
        return (self.order, edges.variables, self.tables, *tree)


def in_integers(p: Floats) -> NDArray[np.int64]:
    """A distribution in integers >= 1 that sum to 2**20; what rounding leaves goes to the first maximum."""
    expect(len(p) <= 1 << (TABLE_BITS - 4), BadInput, "values or children", len(p), f"at most {1 << (TABLE_BITS - 4)}")
    out = 1 + np.floor(p / p.sum() * ((1 << TABLE_BITS) - len(p))).astype(np.int64)
    out[out.argmax()] += (1 << TABLE_BITS) - out.sum()
    return np.asarray(out)


def nodes_above(edges: Edges, variable: int) -> NDArray[np.int64]:
    """Inner nodes that have an input of the variable below them, children first."""
    inputs, first = np.flatnonzero(edges.variables == variable), edges.first
    marked = np.zeros(len(first) - 1, bool)
    marked[inputs] = True
    for node in range(len(edges.variables), len(marked)):
        marked[node] = marked[edges.child[first[node] : first[node + 1]]].any()
    marked[inputs] = False
    return np.flatnonzero(marked)


@numba.njit(cache=True, nogil=True)
def code(arrays, rows, starts, freqs, states, words):  # type: ignore[no-untyped-def]
    """Rows [n, D] -> intervals, or where there is a state, the stream's symbols -> rows. Returns the words read.

    A value is a mantissa of 31 bits and an exponent; rounding is always down, so it is the same everywhere.
    """
    order, variables, tables, child, first, is_sum, weights, steps, begins = arrays
    n_nodes, k, at, cursor = len(first) - 1, tables.shape[1] - 1, 0, U64(0)
    m, e = np.empty(n_nodes, np.int64), np.empty(n_nodes, np.int64)
    dm, de = np.empty(n_nodes, np.int64), np.empty(n_nodes, np.int64)
    cdf = np.empty(k + 1, np.int64)
    decoding = len(states) > 0
    x = U64(states[0]) if decoding else U64(0)
    for row in range(len(rows)):
        for i in range(n_nodes):  # nothing is known: all marginals are 1
            m[i], e[i] = 1 << (MANTISSA_BITS - 1), 1 - MANTISSA_BITS
        for v in order:
            above = steps[begins[v] : begins[v + 1]]
            derivatives(above, v, variables, child, first, is_sum, weights, m, e, dm, de)
            mixture_cdf(v, variables, tables, dm, de, cdf)
            if decoding:
                value = np.searchsorted(cdf, I64(x & U64((1 << WIDE_BITS) - 1)), side="right") - 1
                low, freq = U64(cdf[value]), U64(cdf[value + 1] - cdf[value])
                x, cursor = pop_wide(x, low, freq, U64(WIDE_BITS), words, cursor)
                rows[row, v] = value
            else:
                value = rows[row, v]
                starts[at], freqs[at] = cdf[value], cdf[value + 1] - cdf[value]
                at += 1
            for i in range(len(variables)):
                if variables[i] == v:
                    m[i], e[i] = normal(tables[i, value + 1] - tables[i, value], -TABLE_BITS)
            evaluate(above, child, first, is_sum, weights, m, e)
    if decoding:
        states[0] = x
    return I64(cursor)


@numba.njit(cache=True, nogil=True)
def evaluate(above, child, first, is_sum, weights, m, e):  # type: ignore[no-untyped-def]
    """Values of the nodes, whose children's are known."""
    for node in above:
        if is_sum[node]:
            m[node], e[node] = 0, 0
            for k in range(first[node], first[node + 1]):
                term = normal(m[child[k]] * weights[k], e[child[k]] - TABLE_BITS)
                m[node], e[node] = plus(m[node], e[node], *term)
        else:
            m[node], e[node] = 1 << (MANTISSA_BITS - 1), 1 - MANTISSA_BITS
            for k in range(first[node], first[node + 1]):
                m[node], e[node] = normal(m[node] * m[child[k]], e[node] + e[child[k]])


@numba.njit(cache=True, nogil=True)
def derivatives(above, v, variables, child, first, is_sum, weights, m, e, dm, de):  # type: ignore[no-untyped-def]
    """dm, de: of the root by each node above a variable and by its inputs. Other nodes' are not looked at."""
    for node in above:
        dm[node] = 0
        for k in range(first[node], first[node + 1]):
            dm[child[k]] = 0
    root = len(first) - 2
    dm[root], de[root] = 1 << (MANTISSA_BITS - 1), 1 - MANTISSA_BITS
    for i in range(len(above) - 1, -1, -1):
        node = above[i]
        for k in range(first[node], first[node + 1]):
            c, part = child[k], (dm[node], de[node])
            if is_sum[node]:
                part = normal(part[0] * weights[k], part[1] - TABLE_BITS)
            else:
                for other in range(first[node], first[node + 1]):
                    if other != k:
                        part = normal(part[0] * m[child[other]], part[1] + e[child[other]])
            dm[c], de[c] = plus(dm[c], de[c], *part)


@numba.njit(cache=True, nogil=True)
def mixture_cdf(v, variables, tables, dm, de, cdf):  # type: ignore[no-untyped-def]
    """Of a variable, of 2**31: its inputs' CDFs, weighted by the derivatives in 11 bits; the rest to the first maximum."""
    top, total, left, best = -(1 << 60), 0, 1 << WEIGHT_BITS, -1
    for i in range(len(variables)):
        if variables[i] == v and dm[i] > 0:
            top = max(top, de[i])
    for i in range(len(variables)):
        if variables[i] == v and dm[i] > 0:
            total += dm[i] >> min(62, top - de[i])
    cdf[:] = 0
    for again in range(2):
        for i in range(len(variables)):
            if variables[i] == v and dm[i] > 0:
                aligned = dm[i] >> min(62, top - de[i])
                weight = (aligned << WEIGHT_BITS) // total
                if again == 0:
                    left -= weight
                    if best < 0 or aligned > dm[best] >> min(62, top - de[best]):
                        best = i
                else:
                    cdf += (weight + (left if i == best else 0)) * tables[i]


@numba.njit(cache=True, nogil=True)
def plus(m, e, m2, e2):  # type: ignore[no-untyped-def]
    """The sum of two values."""
    if m == 0 or (m2 > 0 and e2 > e):
        m, e, m2, e2 = m2, e2, m, e
    return normal(m + (m2 >> min(62, e - e2) if m2 > 0 else 0), e)


@numba.njit(cache=True, nogil=True)
def normal(m, e):  # type: ignore[no-untyped-def]
    """A mantissa of 31 bits, or 0."""
    if m == 0:
        return m, e
    while m >= 1 << MANTISSA_BITS:
        m, e = m >> 1, e + 1
    while m < 1 << (MANTISSA_BITS - 1):
        m, e = m << 1, e - 1
    return m, e
