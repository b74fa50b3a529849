"""Probabilistic circuits: sums, products and inputs, whose every marginal is one evaluation.

After: Choi, Vergari, Van den Broeck, "Probabilistic circuits", 2020. docs/circuits.md shows their use.

    circuit_nodes    ── Circuit.of ──►  layers of flat arrays   log_likelihood, conditional: float64, kernels or torch
    circuit_shapes   ─────────────────►      │                  (a negative value is missing, and summed over)
                                             ├─ circuit_learn   learn: the same with other parameters
                                             └─ circuit_coding  Integers.of: exact coding, integers alone

Hidden Chow-Liu trees of pictures have faster modules of their own: `hclt.py`, `hclt_learn.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.entropy.threads import mapped
from laconic.models.circuit_nodes import (
    LEAST_P,
    Family,
    Floats,
    Input,
    Node,
    Sum,
    checked_scopes,
    distinct,
    topological,
)
from laconic.models.circuit_values import propagate

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 256  # rows of a thread at a time


@dataclass(frozen=True)
class Layer:
    """Holds nodes of one kind whose children are all in layers before.

    first: number of its first node. n: how many there are. child, parent, weight: int64 [E], an entry per edge, ordered
    by parent: the number of the child, the place of the parent in the layer, and for sums the place of the weight in
    theta.
    """

    is_sum: bool
    first: int
    n: int
    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    weight: NDArray[np.int64]


class Edges(NamedTuple):
    """Holds a circuit as kernels read it.

    variables, tables: as in `Circuit`. child, weight: int64 [edges]; node i has the edges first[i] .. first[i + 1] - 1,
    and inputs have none. first: int64 [nodes + 1]. is_sum: bool [nodes].
    """

    variables: NDArray[np.int64]
    tables: NDArray[np.int64]
    child: NDArray[np.int64]
    weight: NDArray[np.int64]
    first: NDArray[np.int64]
    is_sum: NDArray[np.bool_]


@dataclass(frozen=True)
class Circuit:
    """Holds a circuit in layers of flat arrays, inputs first, the root last: n_variables variables, values 0..k - 1.

    variables, tables: int64 [inputs], the variable of each input and its place in `families`. theta: float64 [P], the
    weights of all sums, each parameter once. bounds: int64, where those of each parameter begin in theta, and the end.
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
        """Compile the nodes below a root. Raises BadInput where one is not smooth or not decomposable, naming it."""
        nodes = topological(root)
        scopes, height = checked_scopes(nodes), heights(nodes)
        nodes.sort(key=lambda node: (height[id(node)], isinstance(node, Sum)))
        inputs = [node for node in nodes if isinstance(node, Input)]
        families, weights = distinct(n.family for n in inputs), distinct(n.weights for n in nodes if isinstance(n, Sum))
        bounds = np.concatenate([[0], np.cumsum([len(w.values) for w in weights], dtype=np.int64)])
        place = {id(w): int(bounds[i]) for i, w in enumerate(weights)}
        rows = {id(f): i for i, f in enumerate(families)}
        theta = np.concatenate([np.zeros(0), *(np.asarray(w.values, np.float64) / np.sum(w.values) for w in weights)])
        return Circuit(
            n_variables=len(scopes[id(root)]),
            k=k,
            layers=tuple(layers_of(nodes, height, place)),
            variables=np.array([node.variable for node in inputs], np.int64),
            tables=np.array([rows[id(node.family)] for node in inputs], np.int64),
            families=tuple(families),
            theta=theta,
            bounds=bounds,
        )

    def log_likelihood(self, x: ArrayLike, device: str = "cpu") -> Floats:
        """Return the logarithm of each row's probability in nats, float64 [N].

        x: integers [N, D] below k; a negative one is missing, and summed over. device: "cpu" for the kernels, else
        torch's name of a device. Raises BadInput.
        """
        rows = self.rows(x)
        if device == "cpu":
            return np.concatenate([np.zeros(0), *(logs for logs, _, _ in propagated(self, rows, False, None))])
        return np.asarray(nats(self, rows, *on_device(self, device)).detach().cpu().numpy())

    def conditional(self, x: ArrayLike, variable: int, device: str = "cpu") -> Floats:
        """Return the distribution of a variable given all others that are not missing, float64 [N, k].

        x: as for `log_likelihood`; what it has of the variable itself does not count. Raises BadInput.
        """
        rows = np.repeat(self.rows(x), self.k, 0)
        rows[:, variable] = np.tile(np.arange(self.k), len(rows) // self.k)
        joint = self.log_likelihood(rows, device).reshape(-1, self.k)
        p = np.exp(joint - joint.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))

    def rows(self, x: ArrayLike) -> NDArray[np.int64]:
        """Return x as a new array, int64 [N, D]. Raises BadInput unless it fits the circuit."""
        rows = np.array(x, np.int64)
        ok = rows.ndim == 2 and rows.shape[1] == self.n_variables and rows.max(initial=-1) < self.k
        expect(ok, BadInput, "values", list(rows.shape), f"[N, {self.n_variables}] below {self.k}")
        return rows

    def parameters(self) -> tuple[Floats, Floats]:
        """Return theta [P] and the distributions of all families [families, k], none of them 0."""
        tables = np.stack([family.pmf(self.k) for family in self.families])
        return np.maximum(self.theta, LEAST_P), np.maximum(tables, LEAST_P)

    @cached_property
    def edges(self) -> Edges:
        """The circuit as kernels read it."""
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


def heights(nodes: list[Node]) -> dict[int, int]:
    """Return the longest way from each node down to an input, by the node's id; nodes: children first."""
    height: dict[int, int] = {}
    for node in nodes:
        below = () if isinstance(node, Input) else node.children
        height[id(node)] = 1 + max((height[id(c)] for c in below), default=-1)
    return height


def layers_of(nodes: list[Node], height: dict[int, int], place: dict[int, int]) -> Iterator[Layer]:
    """Yield the layers: runs of sorted nodes that have one height and one kind.

    height: by the id of a node. place: of its weights in theta, by their id.
    """
    number = {id(node): i for i, node in enumerate(nodes)}
    for key, run in groupby(nodes, lambda node: (height[id(node)], type(node))):
        group = [node for node in run if not isinstance(node, Input)]
        if group:
            edges = [
                (number[id(child)], i, place[id(node.weights)] + j if isinstance(node, Sum) else 0)
                for i, node in enumerate(group)
                for j, child in enumerate(node.children)
            ]
            child, parent, weight = np.array(edges, np.int64).T.copy()
            yield Layer(key[1] is Sum, number[id(group[0])], len(group), child, parent, weight)


def propagated(
    circuit: Circuit, rows: NDArray[np.int64], learning: bool, threads: int | None
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield for each chunk of rows nats and, where learning, expected counts: theta's [P], values' [families, k].

    Chunks are the same, and so are the sums of their counts, for any number of threads.
    """
    theta, tables = circuit.parameters()

    def chunk(first: int) -> tuple[Floats, Floats, Floats]:
        some = rows[first : first + CHUNK]
        logs, used, seen = np.empty(len(some)), np.zeros_like(theta), np.zeros_like(tables)
        propagate(circuit.edges, some, theta, tables, learning, logs, used, seen)
        return logs, used, seen

    return mapped(chunk, range(0, len(rows), CHUNK), threads)


def on_device(circuit: Circuit, device: str) -> list[Tensor]:
    """Return the logarithms of `Circuit.parameters` as tensors on a device."""
    import torch

    return [torch.as_tensor(np.log(p), device=device) for p in circuit.parameters()]


def nats(circuit: Circuit, x: NDArray[np.int64], theta: Tensor, tables: Tensor) -> Tensor:
    """Return what `Circuit.log_likelihood` does, by torch and differentiable: layer by layer, [nodes, N] logarithms."""
    import torch

    def on(a: NDArray[Any]) -> Tensor:
        return torch.as_tensor(a, device=theta.device)

    seen = on(np.ascontiguousarray(x.T))[on(circuit.variables)]
    found = tables[on(circuit.tables)].gather(1, seen.clamp(min=0))
    values = torch.where(seen >= 0, found, torch.zeros_like(found))
    for layer in circuit.layers:
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
