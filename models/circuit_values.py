"""Values and expected counts of circuits, as kernels on flat arrays: what `Circuit` evaluates and `learn` learns from.

A value is a probability and becomes as small as 10**-3600 in a few hundred variables, so it is a float m with an
exponent e of its own, m * SHIFT**e (`keep_in_range`). That is a multiplication per node where logarithms would take exp
and log per edge.

Kernels take LANES rows side by side: a row of the inner loops is a vector.
"""

from __future__ import annotations

import numba
import numpy as np

LANES = 8  # rows that a kernel takes side by side
SHIFT, HALF_SHIFT = 2.0**512, 2.0**256  # a value is m * SHIFT**e, 1 / HALF_SHIFT <= m < HALF_SHIFT


@numba.njit(cache=True, nogil=True)
def propagate(edges, rows, theta, tables, learning, logs, used, seen):  # type: ignore[no-untyped-def]
    """Put the nats of rows [n, D] into logs [n]; where learning, add expected counts to `used` and `seen`.

    edges: `circuit.Edges`. theta, used: float64 [P]. tables, seen: float64 [families, k].
    """
    n_nodes = len(edges.first) - 1
    m, e, flow = np.empty((n_nodes, LANES)), np.empty((n_nodes, LANES), np.int64), np.empty((n_nodes, LANES))
    some = np.full((LANES, rows.shape[1]), -1)  # rows after the last are all missing: they count nothing
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
    """Put the values of all nodes into m and e, m * SHIFT**e: float64 and int64 [nodes, LANES]. Children come first."""
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
    """Move m back to 1 / HALF_SHIFT .. HALF_SHIFT and e with it, for each lane, after one product or sum."""
    for j in range(LANES):
        small, large = m[j] < 1 / HALF_SHIFT, m[j] >= HALF_SHIFT
        m[j] *= SHIFT if small else 1 / SHIFT if large else 1.0
        e[j] += large - small


@numba.njit(cache=True, nogil=True)
def shift(e):  # type: ignore[no-untyped-def]
    """Return SHIFT**e for e up to 1; below -1 it counts as 0, for it would be lost in any sum."""
    return 1.0 if e == 0 else 1 / SHIFT if e == -1 else SHIFT if e == 1 else 0.0


@numba.njit(cache=True, nogil=True)
def downward(edges, rows, theta, m, e, flow, used, seen):  # type: ignore[no-untyped-def]
    """Pass flow down from the root, and add what edges and inputs get of it to used and seen.

    flow: float64 [nodes, LANES], how likely a node is in use, given the row: 1 at the root, 0 elsewhere at first. The
    edges of a sum share its flow by their values; each child of a product gets all of it.
    """
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
