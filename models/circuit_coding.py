"""Exact coding with circuits of any shape: integers alone, variables in a fixed order.

Each step codes one variable given those before, and evaluates again only the nodes above it: O(log D) times the circuit
in all where the circuit is balanced (Liu, Mandt, Van den Broeck, ICLR 2022). The CDF of the next variable comes from
one pass down instead of a bisection of evaluations, because the root is linear in the inputs of a variable: their CDFs,
weighted by the derivatives of the root. Hidden Chow-Liu trees have a faster way of their own: `hclt.py`.

A value is a mantissa of 31 bits and an exponent, m * 2**e, and rounding is always down: the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import WIDE_BITS, encode_intervals, open_stream
from laconic.entropy.rans_numba import I64, U64, pop_wide
from laconic.models.circuit import Circuit, Edges
from laconic.models.circuit_nodes import Floats

TABLE_BITS = 20  # an input's row in integers sums to 2**20
WEIGHT_BITS = WIDE_BITS - TABLE_BITS  # the weights of a variable's inputs sum to 2**11
MANTISSA_BITS = 31


@dataclass(frozen=True)
class Integers:
    """Codes by a circuit in integers, variables one after the other, whatever the circuit's shape.

    Bytes depend on these integers, and floats are not the same everywhere: a decoder on another machine needs these
    arrays, not the circuit that they were made from.

    order: int64 [D], which variable is coded when. tables: int64 [inputs, k + 1], CDFs of 2**20. weights: int64
    [edges], 1 or more, those of a sum being of 2**20. steps: for each variable v, from begins[v] on, the inner nodes
    above its inputs, children first: what changes when v becomes known.
    """

    circuit: Circuit
    order: NDArray[np.int64]
    tables: NDArray[np.int64]
    weights: NDArray[np.int64]
    steps: NDArray[np.int64]
    begins: NDArray[np.int64]

    @staticmethod
    def of(circuit: Circuit, order: ArrayLike | None = None) -> Integers:
        """Round a circuit to integers.

        order: a permutation of the variables; None for 0, 1, 2 and so on. Raises BadInput.
        """
        ranks = np.asarray(order if order is not None else range(circuit.n_variables), np.int64)
        ok = sorted(ranks.tolist()) == list(range(circuit.n_variables))
        expect(ok, BadInput, "order", ranks.tolist(), "a permutation")
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
        """Code rows, integers [N, D] in 0..k - 1, none missing. Raises BadInput."""
        rows = self.circuit.rows(x)
        expect(rows.min(initial=0) >= 0, BadInput, "values", rows.min(initial=0), "0 or more, none missing")
        starts, freqs = np.empty(rows.size, np.int64), np.empty(rows.size, np.int64)
        code(self.arrays, rows, starts, freqs, np.zeros(0, np.uint64), np.zeros(0, np.uint32))
        return encode_intervals(starts, freqs, WIDE_BITS)

    def decode(self, data: bytes, n: int) -> NDArray[np.int64]:
        """Return the n rows that were coded, int64 [n, D].

        Raises BadFile where the stream's length or end is not right.
        """
        stream, end = open_stream(data, n * self.circuit.n_variables, WIDE_BITS)
        expect(end == len(data), BadFile, "coded rows", f"{len(data) - end} bytes more", "the end")
        rows, none = np.zeros((n, self.circuit.n_variables), np.int64), np.zeros(0, np.int64)
        stream.finish(code(self.arrays, rows, none, none, stream.states, stream.words))
        return rows

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What `code` reads."""
        edges = self.circuit.edges
        tree = (edges.child, edges.first, edges.is_sum, self.weights, self.steps, self.begins)
        return (self.order, edges.variables, self.tables, *tree)


def in_integers(p: Floats) -> NDArray[np.int64]:
    """Return p in integers, 1 or more, that sum to 2**20; what rounding leaves goes to the first maximum."""
    expect(len(p) <= 1 << (TABLE_BITS - 4), BadInput, "values or children", len(p), f"at most {1 << (TABLE_BITS - 4)}")
    out = 1 + np.floor(p / p.sum() * ((1 << TABLE_BITS) - len(p))).astype(np.int64)
    out[out.argmax()] += (1 << TABLE_BITS) - out.sum()
    return np.asarray(out)


def nodes_above(edges: Edges, variable: int) -> NDArray[np.int64]:
    """Return the inner nodes that have an input of the variable below them, children first."""
    inputs, first = np.flatnonzero(edges.variables == variable), edges.first
    marked = np.zeros(len(first) - 1, bool)
    marked[inputs] = True
    for node in range(len(edges.variables), len(marked)):
        marked[node] = marked[edges.child[first[node] : first[node + 1]]].any()
    marked[inputs] = False
    return np.flatnonzero(marked)


@numba.njit(cache=True, nogil=True)
def code(arrays, rows, starts, freqs, states, words):  # type: ignore[no-untyped-def]
    """Code rows [n, D]: put their intervals into starts and freqs, or where there is a state, read them from a stream.

    arrays: `Integers.arrays`. starts, freqs: int64 [n * D], empty where decoding. states: uint64 [1], empty where
    encoding. Returns how many words were read.
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
    """Put the values of the nodes `above`, children first, into m and e; those of all other nodes are known."""
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
    """Put the derivatives of the root by each node above variable v, and by its inputs, into dm and de.

    Those of a sum's children are its own times their weights, those of a product's children its own times all other
    children. Places of other nodes hold what is left of earlier calls, or part of a sum: they are not looked at.
    """
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
    """Put the CDF of variable v, of 2**31, into cdf [k + 1]: the CDFs of its inputs, weighted by their derivatives.

    The weights are integers of 2**11 that sum to it: what rounding leaves goes to the first largest. Every value gets
    2**11 or more, as it has 1 or more in every input.
    """
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
    """Return the sum of two values, mantissa and exponent: the smaller one is shifted to the exponent of the larger."""
    if m == 0 or (m2 > 0 and e2 > e):
        m, e, m2, e2 = m2, e2, m, e
    return normal(m + (m2 >> min(62, e - e2) if m2 > 0 else 0), e)


@numba.njit(cache=True, nogil=True)
def normal(m, e):  # type: ignore[no-untyped-def]
    """Return the same value with a mantissa of 31 bits, or 0; bits below are cut off."""
    if m == 0:
        return m, e
    while m >= 1 << MANTISSA_BITS:
        m, e = m >> 1, e + 1
    while m < 1 << (MANTISSA_BITS - 1):
        m, e = m << 1, e - 1
    return m, e
