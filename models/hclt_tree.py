"""The tree of a hidden Chow-Liu tree: which pixel hangs on which, how many states each has, and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.models.hclt import EMIT, make_plan

SAMPLE = 20_000  # pictures that the tree is made from
REACH = 3  # pairs of pixels are at most so many rows and columns apart
LEVEL_SHIFT = 4  # mutual information is that of 16 levels
STATE_STEP = 8  # numbers of states are multiples of it: whole vectors
BUSY_REACH, BUSY_WIDTH = 6, 2.5  # pixels: the variance around a pixel is a mean with these Gaussian weights
BUSY_QUANTILE = 0.9  # pixels whose variance is above that quantile have all the states


@dataclass(frozen=True)
class Layout:
    """Lays out a tree for learning. The slot of an inner pixel is its place in coding order.

    parent, states: int64 [D], as in `Hclt`. order: int64 [D], pixels as they are coded. inner: the inner pixels, by
    slot. widths: int64 [D], states that a pixel's emissions hang on: its own, or for a leaf its parent's. above: by
    slot that of the parent, 0 at the root. children: by slot those of the children. pixels: by slot the pixels that
    hang on it.
    """

    parent: NDArray[np.int64]
    states: NDArray[np.int64]
    order: NDArray[np.int64]
    inner: list[int]
    widths: NDArray[np.int64]
    above: list[int]
    children: list[list[int]]
    pixels: list[NDArray[np.int64]]

    @classmethod
    def of(cls, parent: NDArray[np.int64], states: NDArray[np.int64]) -> Layout:
        """Lay out a tree: parent [D], -1 at the root; states [D], 0 at leaves."""
        steps = make_plan(parent, states)
        order = steps[steps[:, 0] == EMIT, 2]
        inner = [int(v) for v in order if states[v]]
        slot = {v: i for i, v in enumerate(inner)}
        owners = np.where(states > 0, np.arange(len(parent)), parent)
        above = [slot[int(parent[v])] if i else 0 for i, v in enumerate(inner)]
        children: list[list[int]] = [[] for _ in inner]
        for i in range(1, len(inner)):
            children[above[i]].append(i)
        pixels = [order[owners[order] == v] for v in inner]
        return cls(parent, states, order, inner, states[owners].astype(np.int64), above, children, pixels)

    @property
    def sizes(self) -> list[int]:
        """The numbers of states of the inner pixels, by slot."""
        return [int(self.states[v]) for v in self.inner]


def chow_liu_tree(data: NDArray[np.uint8], height: int, width: int) -> NDArray[np.int64]:
    """Return each pixel's parent, int64 [D], -1 at the root, in the spanning tree of most mutual information.

    data: uint8 [N, D]. Only near pixels are joined. The root is the middle of the tree's longest path, so that the tree
    is as shallow as it can be (Chow & Liu 1968; Liu et al. 2022).
    """
    levels = np.ascontiguousarray((data[:SAMPLE] >> LEVEL_SHIFT).T)
    y, x = np.divmod(np.arange(height * width), width)
    shifts = [(dy, dx) for dy in range(REACH + 1) for dx in range(-REACH, REACH + 1) if (dy, dx) > (0, 0)]
    inside = [
        (v, v + dy * width + dx)
        for v in range(height * width)
        for dy, dx in shifts
        if y[v] + dy < height and 0 <= x[v] + dx < width
    ]
    pairs = np.array(inside, np.int64).reshape(-1, 2)
    neighbours: list[list[int]] = [[] for _ in range(height * width)]
    root_of = list(range(height * width))
    for a, b in pairs[np.argsort(-mutual_information(levels, pairs), kind="stable")].tolist():  # Kruskal
        if find_root(root_of, a) != find_root(root_of, b):
            root_of[find_root(root_of, a)] = find_root(root_of, b)
            neighbours[a].append(b)
            neighbours[b].append(a)
    end = breadth_first(neighbours, 0)[0][-1]  # the pixel farthest from any is an end of the longest path
    order, parent = breadth_first(neighbours, end)
    path = [order[-1]]
    while parent[path[-1]] >= 0:
        path.append(parent[path[-1]])
    return np.array(breadth_first(neighbours, path[len(path) // 2])[1], np.int64)


def find_root(root_of: list[int], v: int) -> int:
    """Return the root of the set that v is in, and halve the way to it (union-find)."""
    while root_of[v] != v:
        root_of[v] = v = root_of[root_of[v]]
    return v


def breadth_first(neighbours: list[list[int]], root: int) -> tuple[list[int], list[int]]:
    """Return the pixels of a tree in order of their distance from the root, and each pixel's parent, -1 at the root."""
    parent = [-2] * len(neighbours)
    parent[root], order = -1, [root]
    for v in order:
        for c in neighbours[v]:
            if parent[c] == -2:
                parent[c] = v
                order.append(c)
    return order, parent


def choose_states(pictures: NDArray[np.uint8], parent: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return how many states each pixel has, int64 [D], 0 at leaves and at most `most`.

    They go with the square root of the variance around the pixel: where pictures differ more there is more to tell.
    """
    data = pictures.astype(np.float32)
    spread = data.var(0)
    reach = np.arange(-BUSY_REACH, BUSY_REACH + 1)
    kernel = np.exp(-(reach**2) / (2 * BUSY_WIDTH**2))
    for axis in (0, 1):
        spread = np.apply_along_axis(lambda row: np.convolve(np.pad(row, BUSY_REACH), kernel, "valid"), axis, spread)
    relative = np.minimum(1, spread / max(float(np.quantile(spread, BUSY_QUANTILE)), 1e-9)) ** 0.5
    states = np.maximum(np.ceil(most * relative / STATE_STEP), 1).astype(np.int64).ravel() * STATE_STEP
    inner = np.isin(np.arange(len(parent)), parent) | (parent == -1)
    return np.where(inner, np.minimum(states, most), 0)


@numba.njit(cache=True, nogil=True)
def mutual_information(levels, pairs):  # type: ignore[no-untyped-def]
    """Return the mutual information of pairs [P, 2] of rows of levels [D, N], each in 0..15: nats, float64 [P].

    A tenth of a picture is spread over the 256 cells, so that none is empty.
    """
    out = np.empty(len(pairs))
    for e in range(len(pairs)):
        joint = np.full((16, 16), 0.1 / 256)
        for i in range(levels.shape[1]):
            joint[levels[pairs[e, 0], i], levels[pairs[e, 1], i]] += 1
        joint /= joint.sum()
        a, b, found = joint.sum(1), joint.sum(0), 0.0
        for i in range(16):
            for j in range(16):
                found += joint[i, j] * np.log(joint[i, j] / (a[i] * b[j]))
        out[e] = found
    return out
