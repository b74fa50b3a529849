"""Hidden Chow-Liu trees: exact coding of small aligned pictures in integers (Liu, Mandt, Van den Broeck, ICLR 2022).

A tree over the pixels; each inner pixel v has a hidden state z_v, a leaf hangs on the state of its parent:

    P(x) = sum_z  pi[z_root]  prod_v A_v[z_parent, z_v]  prod_v B_v[z, c_v, x_v]

c_v is the pixel's context, one of a few classes of an integer prediction from pixels near by that come earlier in
coding order. With one context each it is the plain HCLT, a probabilistic circuit with all its marginals
(`circuit_shapes.hclt`); with more it is a circuit gated by what is known already: the picture's probability is as
exact, marginals are those of beginnings in coding order.

Coding visits the tree depth-first, where every message is needed once: see `hclt_reference.py`, the plain form. All is
integers: messages of 20 bits, mixture CDFs linear in integer weights of 16 bits, intervals of 2**31 for the wide rANS.
`Hclt` is what files depend on (FORMAT.md, section "Archive"); `hclt_learn.Learner` makes one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.intervals import WIDE_BITS, Stream, encode_intervals, open_stream
from laconic.entropy.rans_numba import I64, U32, U64, pop_wide

VALUES = 256
MESSAGE_BITS = 20  # messages are rescaled so that their maximum has so many
ROW_BITS = 15  # rows of A and pi sum to 2**15
EMISSION_BITS = 20  # rows of B sum to 2**20
WEIGHT_BITS = 16  # the mixture's weights sum to 2**16
CDF_SHIFT = WEIGHT_BITS + EMISSION_BITS - WIDE_BITS  # from sums of 2**36 to the CDF's 2**31
COARSE, COARSE_SHIFT = 1 << 15, 5  # emissions of 2**15 and more are stored in units of 32: see `unpacked`
INVERSE_BITS = 60  # fraction bits of the fixed point in which messages are divided by their sum
PART = 64  # pictures that `codelength` codes at a time
PREDICTION_BITS = 8  # fraction bits of a context's weights
MAX_STATES = 256
MAX_PIXELS = 1 << 14
EMIT, DOWN, UP = 0, 1, 2  # kinds of steps: see `make_plan`


@dataclass(frozen=True, eq=False, repr=False)
class Hclt:
    """Holds the integers of a model, as its file has them: D pixels, row by row; pixel v has M_v = states[v] hidden states.

    parent: int16 [D], -1 at the root. states: uint16 [D], 0 at leaves, else 1 to 256; the root is never a leaf.
    initial: uint16 [M_root], sums to 2**15. transitions: uint16, in coding order [M_parent, M_v] for each inner pixel
    but the root, rows sum to 2**15. emissions: uint16, by pixel [contexts, 256, M of v or of its parent], packed, each
    [c, :, z] of 1 and more, sums to 2**20. n_contexts, n_neighbours: uint8 [D]. neighbours: int16, by pixel, pixels
    earlier in coding order; weights: int16, theirs, of 1/256. thresholds: uint8, by pixel n_contexts - 1 of them,
    rising: the context is how many the prediction reaches.
    """

    height: int
    width: int
    parent: NDArray[np.int16]
    states: NDArray[np.uint16]
    initial: NDArray[np.uint16]
    transitions: NDArray[np.uint16]
    emissions: NDArray[np.uint16]
    n_contexts: NDArray[np.uint8]
    n_neighbours: NDArray[np.uint8]
    neighbours: NDArray[np.int16]
    weights: NDArray[np.int16]
    thresholds: NDArray[np.uint8]

    def encode(self, pictures: NDArray[np.uint8]) -> bytes:
        """Code pictures, uint8 [N, H, W], as one stream. Raises BadInput."""
        starts, freqs = self.intervals(pictures)
        return encode_intervals(starts, freqs, WIDE_BITS)

    def decode(self, data: bytes | memoryview, n: int) -> NDArray[np.uint8]:
        """Return the n pictures of a stream, uint8 [n, H, W]. Raises BadFile where its length or end is not right."""
        stream, rows, none = self.open(data, n), np.zeros((n, self.n_pixels), np.uint8), np.zeros(0, np.uint32)
        stream.finish(code_block(self.tables, rows, none, none, stream.states, stream.words))
        return rows.reshape(n, self.height, self.width)

    def open(self, data: bytes | memoryview, n: int) -> Stream:
        """Open the stream of n pictures, which must fill the data. Raises BadFile."""
        stream, end = open_stream(data, n * self.n_pixels, WIDE_BITS)
        n_bytes, lanes = memoryview(data).nbytes, len(stream.states)
        expect(end == n_bytes, BadFile, "coded pictures", f"{n_bytes - end} bytes more", "the end")
        expect(lanes == 1, BadFile, "lanes of coded pictures", lanes, 1)
        return stream

    def intervals(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Return the intervals of all samples, starts and freqs of 2**31, uint32 [D * N].

        They go pixel by pixel in coding order, and for each pixel picture by picture. Raises BadInput.
        """
        rows = self.rows(pictures)
        starts, freqs = np.empty(rows.size, np.uint32), np.empty(rows.size, np.uint32)
        code_block(self.tables, rows, starts, freqs, np.zeros(0, np.uint64), np.zeros(0, np.uint32))
        return starts, freqs

    def rows(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pictures, uint8 [N, H, W], as rows [N, D]. Raises BadInput where they do not fit the model."""
        shape, expected = pictures.shape, f"[N, {self.height}, {self.width}] of uint8"
        ok = pictures.dtype == np.uint8 and pictures.ndim == 3 and shape[1:] == (self.height, self.width)
        expect(ok, BadInput, "pictures", f"{list(shape)} of {pictures.dtype}", expected)
        return np.require(pictures, requirements=["C", "W"]).reshape(-1, self.n_pixels)

    def codelength(self, pictures: NDArray[np.uint8]) -> float:
        """Return how many bits the pictures, uint8 [N, H, W], cost under the integer model, ideally coded."""
        parts = (self.intervals(pictures[k : k + PART])[1] for k in range(0, len(pictures), PART))
        return sum(float((WIDE_BITS - np.log2(freqs)).sum()) for freqs in parts)

    @classmethod
    def load(cls, path: str, config: dict[str, Any] | None = None, device: str = "cpu") -> Hclt:
        """Return the circuit of a weights file, checked. config, device: unused, since the file says all.

        Raises ValueError, KeyError or SafetensorError for weights that are no circuit.
        """
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {field: file.get_tensor(field) for field in FIELDS}
        height, width = map(int, metadata[SIZE].split())
        return cls(height, width, **arrays).check()

    def save(self, path: Path) -> dict[str, Any]:
        """Write the weights file; return what a card says of its architecture."""
        from safetensors.numpy import save_file

        arrays = {field: getattr(self, field) for field in FIELDS}
        save_file(arrays, path, {SIZE: f"{self.height} {self.width}"})  # one entry: safetensors keeps no order of several
        return {"class": "laconic.models.hclt.Hclt", "height": self.height, "width": self.width}

    def check(self) -> Hclt:
        """Return itself, fit for coding whatever comes. Raises BadInput that names the field."""
        ok = self.height > 0 and self.width > 0 and self.n_pixels <= MAX_PIXELS
        expect(ok, BadInput, "pixels", f"{self.height} x {self.width}", f"1 to {MAX_PIXELS}")
        self._check_types()
        self._check_tree()
        self._check_lengths()
        self._check_neighbours()
        self._check_rows()
        return self

    def _check_types(self) -> None:
        """Check types and axes, and the lengths of what there is one of per pixel."""
        for field, dtype in FIELDS.items():
            array = getattr(self, field)
            found = (str(array.dtype), array.ndim)
            expect(found == (dtype, 1), BadInput, f"{field}, type and axes", found, (dtype, 1))
        for field in ("parent", "states", "n_contexts", "n_neighbours"):
            length = len(getattr(self, field))
            expect(length == self.n_pixels, BadInput, field, length, f"{self.n_pixels}, one per pixel")
        expect(bool((self.n_contexts > 0).all()), BadInput, "n_contexts", 0, "1 or more")

    def _check_tree(self) -> None:
        """Check that the parents make one tree over all pixels, and that all parents have states."""
        roots, parent, m = np.flatnonzero(self.parent == -1), self.parent.astype(np.int64), self.states
        ok = len(roots) == 1 and parent.min() >= -1 and parent.max() < self.n_pixels
        expect(ok, BadInput, "parent", f"{len(roots)} roots", "one, and numbers of pixels")
        ok = m.max() <= MAX_STATES and m[roots[0]] > 0 and bool((m[parent[parent >= 0]] > 0).all())
        expect(ok, BadInput, "states", int(m.max()), f"at most {MAX_STATES}, and at all parents one or more")
        n = len(self.order)
        expect(n == self.n_pixels, BadInput, "parent", f"{n} pixels below the root", f"{self.n_pixels}")

    def _check_lengths(self) -> None:
        """Check that what is flat is as long as states, contexts and neighbours say."""
        m, parent = self.states.astype(np.int64), self.parent.astype(np.int64)
        inner = (m > 0) & (parent >= 0)
        sizes = {
            "initial": m[parent == -1].sum(),
            "transitions": (m[inner] * m[parent[inner]]).sum(),
            "emissions": (self.n_contexts.astype(np.int64) * VALUES * m[self.owners]).sum(),
            "neighbours": self.n_neighbours.sum(dtype=np.int64),
            "weights": self.n_neighbours.sum(dtype=np.int64),
            "thresholds": self.n_contexts.sum(dtype=np.int64) - self.n_pixels,
        }
        for field, size in sizes.items():
            expect(len(getattr(self, field)) == size, BadInput, field, len(getattr(self, field)), f"{size} integers")

    def _check_neighbours(self) -> None:
        """Check that each pixel looks at pixels alone that are known when it is coded."""
        rank, owner = np.argsort(self.order), np.repeat(np.arange(self.n_pixels), self.n_neighbours)
        near = self.neighbours.astype(np.int64)
        ok = bool(((near >= 0) & (near < self.n_pixels)).all()) and bool((rank[near] < rank[owner]).all())
        expect(ok, BadInput, "neighbours", "another pixel", "those earlier in coding order")

    def _check_rows(self) -> None:
        """Check that all distributions are of 1 and more, and sum to what they should."""
        for step, _, _, above, below, place in self.plan.tolist():
            if step == DOWN:
                rows = self.transitions[place : place + above * below].reshape(above, below)
                expect_rows("transitions", rows, 1, 1 << ROW_BITS)
        expect_rows("initial", self.initial[None], 1, 1 << ROW_BITS)
        for v, (first, last) in enumerate(itertools.pairwise(self.tables[1].tolist())):
            table = unpacked(self.emissions[first:last]).reshape(-1, VALUES, int(self.states[self.owners[v]]))
            expect_rows("emissions", table, 1, 1 << EMISSION_BITS)

    @property
    def n_pixels(self) -> int:
        """The number of pixels of a picture."""
        return self.height * self.width

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The pixel whose hidden state each pixel hangs on, int64 [D]: itself, or its parent where it is a leaf."""
        return np.where(self.states > 0, np.arange(self.n_pixels), self.parent).astype(np.int64)

    @cached_property
    def plan(self) -> NDArray[np.int64]:
        """What coding does, step by step: see `make_plan`."""
        return make_plan(self.parent, self.states)

    @property
    def order(self) -> NDArray[np.int64]:
        """The pixels in coding order, int64 [D]."""
        return np.asarray(self.plan[self.plan[:, 0] == EMIT, 2])

    @cached_property
    def tables(self) -> tuple[NDArray[Any], ...]:
        """What `code_block` reads: the plan, where each pixel's CDFs begin, their lower bounds, the rest as it is."""
        widths, contexts = self.states[self.owners].astype(np.int64), self.n_contexts.astype(np.int64)
        places = first_places(contexts * VALUES * widths)
        bounds = np.zeros(len(self.emissions), np.uint32)
        for v, (first, last) in enumerate(itertools.pairwise(places.tolist())):
            table = unpacked(self.emissions[first:last]).reshape(-1, VALUES, widths[v])
            bounds[first:last] = (np.cumsum(table, 1, dtype=np.uint32) - table).ravel()
        near, cuts = first_places(self.n_neighbours), first_places(contexts - 1)
        rest = (near, self.neighbours, self.weights, cuts, self.thresholds)
        return self.plan, places, bounds, self.transitions, self.initial, *rest


SIZE = "height width"  # in the metadata of weights
FIELDS = {
    "parent": "int16",
    "states": "uint16",
    "initial": "uint16",
    "transitions": "uint16",
    "emissions": "uint16",
    "n_contexts": "uint8",
    "n_neighbours": "uint8",
    "neighbours": "int16",
    "weights": "int16",
    "thresholds": "uint8",
}


def expect_rows(field: str, rows: NDArray[Any], axis: int, total: int) -> None:
    """Raise BadInput unless all values are 1 or more and sum to a total along the axis."""
    ok = bool((rows > 0).all()) and bool((rows.sum(axis, dtype=np.int64) == total).all())
    expect(ok, BadInput, field, "other rows", f"integers of 1 and more that sum to {total}")


def make_plan(parent: NDArray[Any], states: NDArray[Any]) -> NDArray[np.int64]:
    """Return the steps of coding, (step, depth, pixel, m, n, place), int64 [steps, 6], depth-first from the root.

    EMIT codes a pixel from the state at the depth, of m values. DOWN sends the message to a child with n states, UP
    takes its answer; the transition begins at the place. A pixel comes first, then its leaves, then its inner children,
    both by their number.
    """
    children: list[list[int]] = [[] for _ in parent]
    for v, p in enumerate(parent.tolist()):
        if p >= 0:
            children[p].append(v)
    root, place = parent.tolist().index(-1), 0
    steps: list[tuple[int, int, int, int, int, int]] = []
    todo = [(EMIT, 0, root, 0)]
    while todo:
        step, depth, v, at = todo.pop()
        m = int(states[v])
        if step == UP:
            steps.append((UP, depth - 1, v, int(states[parent[v]]), m, at))
            continue
        if depth:
            above = int(states[parent[v]])
            steps.append((DOWN, depth - 1, v, above, m, place))
            todo.append((UP, depth, v, place))
            place += above * m
        leaves = [c for c in children[v] if not states[c]]
        steps += [(EMIT, depth, pixel, m, 0, 0) for pixel in [v, *leaves]]
        todo += [(EMIT, depth + 1, c, 0) for c in reversed(children[v]) if states[c]]
    return np.array(steps, np.int64)


def packed(emissions: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Pack emissions, integers [contexts, 256, M] of 1 and more that sum to 2**20 over the values, into 16 bits each.

    Those below 2**15 stand as they are, larger ones in units of 32. What that takes away goes to the first of the
    smallest, so that the sum stays; that one remains small enough itself.
    """
    coarse = emissions >= COARSE
    left = np.where(coarse, emissions % (1 << COARSE_SHIFT), 0)
    out = np.where(coarse, COARSE | emissions >> COARSE_SHIFT, emissions)
    least = np.expand_dims(emissions.argmin(1), 1)
    np.put_along_axis(out, least, np.take_along_axis(out, least, 1) + left.sum(1, keepdims=True), 1)
    return out.astype(np.uint16)


def unpacked(codes: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Return the emissions that were packed, uint32 of the same shape."""
    wide = codes.astype(np.uint32)
    return np.where(wide < COARSE, wide, (wide - np.uint32(COARSE)) << np.uint32(COARSE_SHIFT))


def first_places(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Return where parts of these sizes begin, one after the other, and where the last one ends: int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


@numba.njit(cache=True, nogil=True)
def code_block(tables, pictures, starts, freqs, states, words):  # type: ignore[no-untyped-def]
    """Code pictures [n, D]: put their intervals into starts and freqs, or where there is a state, read them from a
    stream.

    tables: `Hclt.tables`. starts, freqs: uint32 [D * n], empty where decoding. states: uint64 [1], empty where
    encoding. Returns how many words were read. It does what `hclt_reference.Reference` does, but each step for all the
    pictures of a block at once, so that the tables of a step stay in the cache.
    """
    plan, places, bounds, transitions, initial, near, neighbours, weights, cuts, thresholds = tables
    n, most, deepest = pictures.shape[0], 1, 0
    for i in range(plan.shape[0]):
        most, deepest = max(most, plan[i, 3]), max(deepest, plan[i, 1] + 1)
    # The messages of `Reference`, one row per depth: depth-first, at most one pixel per depth is open.
    a, up = np.ones((deepest + 1, n, most), np.uint32), np.ones((deepest + 1, n, most), np.uint32)
    w, wide, cursor, at = np.empty(most, np.uint32), np.empty(most, np.uint64), U64(0), 0
    decoding = states.size > 0
    x = U64(states[0]) if decoding else U64(0)
    for b in range(n):
        for j in range(initial.size):
            a[0, b, j] = initial[j]
    for i in range(plan.shape[0]):
        step, depth, v, m, inner, place = plan[i, 0], plan[i, 1], plan[i, 2], plan[i, 3], plan[i, 4], U64(plan[i, 5])
        for b in range(n):
            here, evidence = a[depth, b, :m], up[depth, b, :m]
            if step == EMIT:
                c = context(pictures[b], near[v], near[v + 1], neighbours, weights, cuts[v], cuts[v + 1], thresholds)
                table = U64(places[v] + c * VALUES * m)
                mixture(here, w)  # how likely each state is, given all that was coded before
                if decoding:
                    value, low, high = search(w, bounds, table, m, U32(x & U64((1 << WIDE_BITS) - 1)))
                    x, cursor = pop_wide(x, U64(low), U64(high - low), U64(WIDE_BITS), words, cursor)
                    pictures[b, v] = value
                else:
                    value = I64(pictures[b, v])
                    low, high = lower(w, bounds, table, m, value), lower(w, bounds, table, m, value + 1)
                    starts[at], freqs[at] = low, high - low
                    at += 1
                row = table + U64(value * m)
                absorb(here, bounds, row, value == VALUES - 1, wide)
                absorb(evidence, bounds, row, value == VALUES - 1, wide)
            elif step == DOWN:  # a times the transition is the child's a; nothing of its subtree is coded yet
                below = a[depth + 1, b, :inner]
                for j in range(inner):
                    wide[j] = U64(0)
                for k in range(m):
                    for j in range(inner):
                        wide[j] += U64(here[k]) * U64(transitions[place + U64(k * inner + j)])
                rescale(wide, below)
                up[depth + 1, b, :inner] = U32(1)
            else:  # the transition times the child's up is what its subtree says of the parent's state
                answer = up[depth + 1, b, :inner]
                for k in range(m):
                    total = U64(0)
                    for j in range(inner):
                        total += U64(answer[j]) * U64(transitions[place + U64(k * inner + j)])
                    wide[k] = total
                rescale(wide, w[:m])
                multiply(here, w, wide)
                multiply(evidence, w, wide)
    if decoding:
        states[0] = x
    return I64(cursor)


@numba.njit(cache=True, nogil=True)
def context(picture, first, end, neighbours, weights, cut, last_cut, thresholds):  # type: ignore[no-untyped-def]
    """Return the context of a pixel of a picture [D]: how many thresholds its neighbours' prediction reaches."""
    prediction, c = 0, 0
    for k in range(first, end):
        prediction += I64(weights[k]) * I64(picture[neighbours[k]])
    for k in range(cut, last_cut):
        c += prediction >> PREDICTION_BITS >= I64(thresholds[k])
    return c


@numba.njit(cache=True, nogil=True)
def mixture(a, w):  # type: ignore[no-untyped-def]
    """Put messages scaled to sum to 2**16 into w, the mixture's weights; the rest goes to the first maximum."""
    total, top, first = U64(0), U32(0), 0
    for j in range(a.size):
        total += U64(a[j])
        top = max(top, a[j])
    while a[first] < top:
        first += 1
    # One division for all messages. Rounding is down, so what is left is 0 or more.
    inverse, left = (U64(1) << U64(INVERSE_BITS)) // total, U32(1 << WEIGHT_BITS)
    for j in range(a.size):
        w[j] = U32((U64(a[j]) * inverse) >> U64(INVERSE_BITS - WEIGHT_BITS))
    for j in range(a.size):
        left = U32(left - w[j])
    w[first] += left


@numba.njit(cache=True, nogil=True)
def lower(w, bounds, table, m, value):  # type: ignore[no-untyped-def]
    """Return the mixture's CDF below a value, of 2**31.

    It rises everywhere: as emissions are >= 1, a value adds sum(w) = 2**16 to the sum at least, 2**11 after the shift.
    """
    if value == VALUES:
        return U32(1 << WIDE_BITS)
    total, row = U64(0), U64(table) + U64(value * m)
    for j in range(m):
        total += U64(w[j]) * U64(bounds[row + U64(j)])
    return U32(total >> U64(CDF_SHIFT))


@numba.njit(cache=True, nogil=True)
def search(w, bounds, table, m, slot):  # type: ignore[no-untyped-def]
    """Return the value whose interval holds the slot, and the bounds of the interval, by bisection."""
    value, size, low, high = 0, VALUES, U32(0), U32(1 << WIDE_BITS)
    while size > 1:
        size >>= 1
        bound = lower(w, bounds, table, m, value + size)
        if bound <= slot:
            value, low = value + size, bound
        else:
            high = bound
    return value, low, high


@numba.njit(cache=True, nogil=True)
def absorb(a, bounds, row, last, wide):  # type: ignore[no-untyped-def]
    """Multiply messages by how likely each state makes the value whose lower bounds are at the row.

    last: whether it is the last value, which ends at 2**20.
    """
    m = U64(a.size)
    for j in range(m):
        upper = U32(1 << EMISSION_BITS) if last else bounds[row + m + j]
        wide[j] = U64(a[j]) * U64(U32(upper - bounds[row + j]))
    rescale(wide, a)


@numba.njit(cache=True, nogil=True)
def multiply(a, message, wide):  # type: ignore[no-untyped-def]
    """Multiply messages by another one."""
    for j in range(a.size):
        wide[j] = U64(a[j]) * U64(message[j])
    rescale(wide, a)


@numba.njit(cache=True, nogil=True)
def rescale(wide, out):  # type: ignore[no-untyped-def]
    """Put the values of `wide`, shifted so that the maximum has 20 bits, and then at least 1, into out."""
    top = U64(0)
    for j in range(out.size):
        top = max(top, wide[j])
    shift = length(top) - MESSAGE_BITS
    for j in range(out.size):
        out[j] = max(U32(wide[j] >> U64(shift) if shift >= 0 else wide[j] << U64(-shift)), U32(1))


@numba.njit(cache=True, nogil=True)
def length(x):  # type: ignore[no-untyped-def]
    """Return how many bits x > 0 has."""
    x, n = U64(x), 1
    for step in (32, 16, 8, 4, 2, 1):
        if x >> U64(step):
            x, n = x >> U64(step), n + step
    return n
