"""Learning hidden Chow-Liu trees (`hclt.py`) from pictures: see `Learner`.

The tree is the one of most mutual information, pixels whose surroundings vary have more states, contexts are thresholds of a
prediction by least squares; all that is found once. Then the parameters are learnt.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.models.hclt import (
    EMISSION_BITS,
    EMIT,
    MAX_PIXELS,
    MAX_STATES,
    PREDICTION_BITS,
    ROW_BITS,
    VALUES,
    Hclt,
    context,
    first_places,
    make_plan,
    packed,
)

if TYPE_CHECKING:
    from torch import Tensor

MAX_ENTRIES = 1 << 28  # of the emissions that the learner holds three times in float32
CHUNK, DEVICE_CHUNK = 512, 4096  # pictures whose messages the learner holds at a time: in caches, on a GPU
CLUSTERED = 20_000  # pictures that the start is made from
TINY, LEAST = 1e-35, 1e-30  # float32: of a maximum, of a message


@dataclass(frozen=True)
class LearnConfig:
    """How a model is learnt. states: of the pixels whose surroundings vary most, the others have fewer. contexts: at most.

    step: how far a mini-batch moves the counts, at first and at the end. window: pixels, of the surroundings that a hidden
    state stands for at first (a standard deviation). prior, narrow, wide: see `Learner.emissions`.
    """

    states: int = 64
    contexts: int = 8
    epochs: int = 40
    full_epochs: int = 1
    batch: int = 4096
    step: tuple[float, float] = (0.5, 0.2)
    window: float = 3.5
    prior: float = 60.0
    narrow: float = 2.0
    wide: float = 12.0
    seed: int = 1


class Learner:
    """Expectation maximisation (circuits of trees: Liu & Van den Broeck, arXiv:2106.02264), in float32 with torch.

    Hidden states begin as clusters of the surroundings of their pixels (as Liu et al., "Scaling up probabilistic circuits
    by latent variable distillation", ICLR 2023, have them from features). Counts are kept over mini-batches and moved
    towards each batch's; at the end come epochs with all pictures at once. Floats differ between machines: what a file
    depends on is `export`.
    """

    def __init__(self, pictures: NDArray[np.uint8], config: LearnConfig | None = None, device: str = "cpu") -> None:
        """pictures: uint8 [N, H, W], the training set."""
        ok = pictures.dtype == np.uint8 and pictures.ndim == 3 and min(pictures.shape) > 0
        expect(ok, BadInput, "pictures", f"{list(pictures.shape)} of {pictures.dtype}", "[N, H, W] of uint8, none 0")
        self.config, self.device = config or LearnConfig(), device
        self.kernels = device == "cpu"  # else tensors do their work
        self.chunk = CHUNK if self.kernels else DEVICE_CHUNK
        self.n, self.height, self.width = pictures.shape
        n_pixels = self.height * self.width
        expect(n_pixels <= MAX_PIXELS, BadInput, "pixels", n_pixels, f"at most {MAX_PIXELS}")
        limit = f"8 to {MAX_STATES}"
        expect(8 <= self.config.states <= MAX_STATES, BadInput, "states", self.config.states, limit)
        expect(1 <= self.config.contexts <= 64, BadInput, "contexts", self.config.contexts, "1 to 64")
        self.data = np.ascontiguousarray(pictures).reshape(self.n, -1)
        self.rng = np.random.default_rng(self.config.seed)
        self.parent = chow_liu_tree(self.data, self.height, self.width)
        self.states = choose_states(pictures, self.parent, self.config)
        self._lay_out()
        self.contexts = Contexts.fit(self.data, self.height, self.width, self.order, self.config.contexts)
        self._allocate()
        self.counts = self._cluster()
        self._fit_priors()
        self._maximise()

    def run(
        self, progress: Callable[[str], None] = lambda line: None, limit_s: float = float("inf"), held_out: Any = None
    ) -> None:
        """All epochs, or as many as the time allows. progress: told a line an epoch."""
        begun, config = time.monotonic(), self.config
        epoch = 0
        while epoch < config.epochs and (gone := time.monotonic() - begun) < limit_s:
            late = max(epoch / config.epochs, gone / limit_s)
            first, last = config.step
            bits = self.epoch(config.batch, first * (last / first) ** (max(0.0, late - 0.6) / 0.4))
            epoch += 1
            progress(self._line(f"epoch {epoch}", bits, begun, held_out))
        for _ in range(config.full_epochs):
            progress(self._line("all pictures at once", self.epoch(self.n, 1.0), begun, held_out))

    def _line(self, what: str, bits: float, begun: float, held_out: NDArray[np.uint8] | None) -> str:
        seen = f", held out {self.bpd(held_out):.4f}" if held_out is not None and len(held_out) else ""
        return f"{what}: {bits:.4f} bits a pixel{seen}, {time.monotonic() - begun:.0f} s"

    def epoch(self, batch: int, step: float) -> float:
        """Once through the pictures; bits per dimension on the way."""
        order, batch = self.rng.permutation(self.n), min(batch, self.n)
        found = []
        for first in range(0, self.n - batch + 1, batch):
            seen = self._zeros()
            for k in range(first, first + batch, self.chunk):
                found.append(self._expect(self.data[order[k : min(k + self.chunk, first + batch)]], seen))
            for transition, counted in zip(self.transitions, seen.transitions, strict=True):
                counted *= transition
            for kept, new in zip(self.counts, seen, strict=True):
                for old, fresh in zip(kept, new, strict=True):
                    old.mul_(1 - step).add_(fresh, alpha=step * self.n / batch)
            self._maximise()
        return bits_per_dimension(np.concatenate(found), self.data.shape[1])

    def bpd(self, pictures: NDArray[np.uint8]) -> float:
        """Bits per dimension of pictures uint8 [N, H, W] under the float model."""
        data = np.ascontiguousarray(pictures).reshape(len(pictures), -1)
        found = [self._forward(data[k : k + self.chunk])[1] for k in range(0, len(data), self.chunk)]
        return bits_per_dimension(np.concatenate(found), data.shape[1])

    def export(self) -> Hclt:
        """The model in integers."""
        transitions = [quantised(t.cpu().numpy(), 1 << ROW_BITS, 1) for t in self.transitions[1:]]
        tables = [self._emission(v).reshape(-1, VALUES, self.widths[v]) for v in range(len(self.parent))]
        emissions = [packed(quantised(table.cpu().numpy(), 1 << EMISSION_BITS, 1)) for table in tables]
        return Hclt(
            height=self.height,
            width=self.width,
            parent=self.parent.astype(np.int16),
            states=self.states.astype(np.uint16),
            initial=quantised(self.initial.cpu().numpy(), 1 << ROW_BITS, 0).astype(np.uint16),
            transitions=flat_array(transitions, np.uint16),
            emissions=flat_array(emissions, np.uint16),
            **self.contexts.arrays(),
        )

    # The E-step. The slot of an inner pixel is its place in coding order.

    def _expect(self, pictures: NDArray[np.uint8], seen: Counts) -> NDArray[np.float64]:
        """Add expected counts (of transitions without the factor that all share) of pictures [B, D]; their log-likelihoods."""
        import torch

        rows, likelihood, root = self._forward(pictures)
        share = self.initial / root[:, None]
        seen.initial[0] += (self.m[0] * share).sum(0)
        for i in range(len(self.inner)):
            if i:
                seen.transitions[i].addmm_(self.u[i].T, self.m[i])
                share = self.scratch[: self.m[i].numel()].view(self.m[i].shape)
                torch.matmul(self.u[i], self.transitions[i], out=share)
            self._spread(i, rows, share, seen.emissions[0])
        return likelihood

    def _forward(self, pictures: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.float64], Tensor]:
        """Messages up the tree: m[i] at each inner pixel, u[i] to its parent. Table rows, log-likelihoods, P(x) of the scaled."""
        import torch

        rows = torch.as_tensor(self.contexts.rows(pictures).astype(np.int32), device=self.device)
        scale = torch.zeros(len(pictures), dtype=torch.float64, device=self.device)
        self._buffers(len(pictures))
        for i in reversed(range(len(self.inner))):
            self._weigh(i, rows, scale)
            if i:
                torch.matmul(self.m[i], self.transitions[i].T, out=self.u[i])
        root = self.m[0] @ self.initial
        return rows, (scale + torch.log(root.double())).cpu().numpy(), root

    def _weigh(self, i: int, rows: Tensor, scale: Tensor) -> None:
        """m[i]: emissions of the pixels that hang on slot i, times the children's messages; the maximum is scaled to 1."""
        import torch

        pixels, m = self.pixels[i], self.m[i]
        if self.kernels:
            emissions = (self.emission_table.numpy(), pixels, self.places[pixels])
            up_rows(rows.numpy(), *emissions, self.u_places[i], self.u_all.numpy(), m.numpy(), scale.numpy())
            return
        m.fill_(1)
        factors = [self._emission(int(v))[rows[v]] for v in pixels] + [self.u[c] for c in self.children[i]]
        for factor in factors:
            m *= factor
            top = m.amax(1, keepdim=True).clamp_(min=TINY)
            m /= top
            scale += torch.log(top[:, 0])
        m.clamp_(min=LEAST)

    def _spread(self, i: int, rows: Tensor, share: Tensor, counted: Tensor) -> None:
        """The posterior of slot i into m[i], the counts, and the quotients that its children need."""
        pixels, m = self.pixels[i], self.m[i]
        if self.kernels:
            u = (self.u_places[i], self.u_all.numpy())
            down_rows(rows.numpy(), pixels, self.places[pixels], *u, m.numpy(), share.numpy(), counted.numpy())
            return
        m *= share
        for v in pixels.tolist():
            part = counted[self.places[v] : self.places[v + 1]].view(-1, m.shape[1])
            part.index_add_(0, rows[v], m)
        for c in self.children[i]:
            self.u[c].copy_(m / self.u[c])

    def _emission(self, v: int) -> Tensor:
        """[contexts * 256, M] of a pixel, a view."""
        return self.emission_table[self.places[v] : self.places[v + 1]].view(-1, int(self.widths[v]))

    # The M-step.

    def _maximise(self) -> None:
        """Parameters from the counts."""
        counts = self.counts
        self.initial = (counts.initial[0] + 1) / (counts.initial[0] + 1).sum()
        self.transitions = [smoothed_rows(t) for t in counts.transitions]
        for v in range(len(self.parent)):
            shape = (-1, VALUES, int(self.widths[v]))
            counted = counts.emissions[0][self.places[v] : self.places[v + 1]].view(shape)
            self._emission(v).view(shape).copy_(self.emissions(v, counted))

    def emissions(self, v: int, counted: Tensor) -> Tensor:
        """[contexts, 256, M] counts -> probabilities.

        Counts are spread over near values, far (`wide`) where they are few: both with a prior worth `prior` pictures. It is
        what the state gives without the context times what the context makes more likely in the whole.
        """
        import torch

        prior = self.config.prior
        total = counted.sum(1, keepdim=True)
        alone = torch.matmul(self.narrow, counted.sum(0) + 20 * self.of_pixel[v])
        expected = alone * (self.of_context[v] / self.of_pixel[v])
        expected /= expected.sum(1, keepdim=True)
        wide = (torch.matmul(self.wide, counted) + prior * expected) / (total + prior)
        near: Tensor = (torch.matmul(self.narrow, counted) + prior * wide) / (total + prior)
        return near

    def _fit_priors(self) -> None:
        """Distributions of each pixel, with and without its context, and the kernels that spread counts."""
        import torch

        counts = np.bincount(self.data.ravel(), minlength=VALUES) + 1.0
        whole = np.asarray(counts / counts.sum(), np.float64)
        narrow, wide = spreading(whole, self.config.narrow), spreading(whole, self.config.wide)
        self.narrow, self.wide = (torch.as_tensor(k, dtype=torch.float32, device=self.device) for k in (narrow, wide))
        rows = self.contexts.rows(self.data)
        self.of_pixel, self.of_context = [], []
        for v in range(len(self.parent)):
            cells = np.bincount(rows[v], minlength=int(self.contexts.sizes[v]) * VALUES)
            counted = cells.reshape(-1, VALUES).T.astype(np.float64)
            alone = (wide @ counted.sum(1) + 20 * whole) / (self.n + 20)
            n = counted.sum(0)
            known = (wide @ counted + 20 * alone[:, None]) / (n + 20)
            known = (narrow @ counted + 40 * known) / (n + 40)
            self.of_pixel.append(torch.as_tensor(alone[:, None], dtype=torch.float32, device=self.device))
            self.of_context.append(torch.as_tensor(known.T[:, :, None].copy(), dtype=torch.float32, device=self.device))

    # Layout and start.

    def _lay_out(self) -> None:
        """Coding order, and what hangs on each inner pixel."""
        steps = make_plan(self.parent, self.states)
        self.order = steps[steps[:, 0] == EMIT, 2]
        self.inner = [int(v) for v in self.order if self.states[v]]
        slot = {v: i for i, v in enumerate(self.inner)}
        owners = np.where(self.states > 0, np.arange(len(self.parent)), self.parent)
        self.widths = self.states[owners].astype(np.int64)
        self.above = [slot[int(self.parent[v])] if i else 0 for i, v in enumerate(self.inner)]
        self.children: list[list[int]] = [[] for _ in self.inner]
        self.pixels = [self.order[owners[self.order] == v] for v in self.inner]
        for i in range(1, len(self.inner)):
            self.children[self.above[i]].append(i)

    def _allocate(self) -> None:
        import torch

        self.places = first_places(self.contexts.sizes * VALUES * self.widths)
        limit = f"at most {MAX_ENTRIES}: smaller pictures, fewer states or contexts"
        expect(self.places[-1] <= MAX_ENTRIES, BadInput, "entries of emissions", int(self.places[-1]), limit)
        self.emission_table = torch.zeros(int(self.places[-1]), device=self.device)
        self.m: list[Tensor] = []

    def _buffers(self, n: int) -> None:
        """Messages of n pictures."""
        import torch

        if self.m and len(self.m[0]) == n:
            return
        m = [int(self.states[v]) for v in self.inner]
        above = np.array([0, *(m[p] for p in self.above[1:])])
        at = first_places(above * n)
        self.u_all = torch.zeros(int(at[-1]), device=self.device)
        self.u = [self.u_all[at[i] : at[i + 1]].view(n, int(above[i])) for i in range(len(m))]
        self.u_places = [at[np.array(children, np.int64)] for children in self.children]
        self.m = [torch.zeros(n, states, device=self.device) for states in m]
        self.scratch = torch.zeros(n * max(m), device=self.device)

    def _zeros(self) -> Counts:
        import torch

        m = [int(self.states[v]) for v in self.inner]
        transitions = [torch.zeros(m[self.above[i]], m[i], device=self.device) for i in range(len(m))]
        initial = torch.zeros(m[0], device=self.device)
        return Counts(transitions, [torch.zeros_like(self.emission_table)], [initial])

    def _cluster(self) -> Counts:
        """Counts as though each hidden state were seen: the cluster of the pixel's surroundings (k-means)."""
        import torch

        counts = self._zeros()
        sample = self.data[self.rng.permutation(self.n)[:CLUSTERED]]
        rows, tones = self.contexts.rows(sample), torch.as_tensor(tones_of(self.data)[sample], device=self.device)
        y, x = np.divmod(np.arange(len(self.parent)), self.width)
        found: list[NDArray[np.int64]] = []
        for i, v in enumerate(self.inner):
            apart = (y - y[v]) ** 2 + (x - x[v]) ** 2
            near = np.flatnonzero(apart <= 6**2)
            weight = np.exp(-apart[near] / (4 * self.config.window**2)).astype(np.float32)
            points = tones[:, near] * torch.as_tensor(weight, device=self.device)
            found.append(k_means(points, int(self.states[v]), self.rng))
            pairs = np.zeros(counts.transitions[i].shape, np.float32)
            np.add.at(pairs, (found[self.above[i]], found[i]), self.n / len(sample))
            counts.transitions[i] += torch.as_tensor(pairs, device=self.device)
            for pixel in self.pixels[i].tolist():
                table = np.zeros((int(self.contexts.sizes[pixel]) * VALUES, int(self.states[v])), np.float32)
                np.add.at(table, (rows[pixel], found[i]), self.n / len(sample))
                begin, end = self.places[pixel], self.places[pixel + 1]
                counts.emissions[0][begin:end] = torch.as_tensor(table, device=self.device).view(-1)
        first = np.bincount(found[0], minlength=int(self.states[self.inner[0]])) * (self.n / len(sample))
        counts.initial[0] += torch.as_tensor(first, dtype=torch.float32, device=self.device)
        return counts


class Counts(NamedTuple):
    """Expected counts: of [M_parent, M] a slot, of all emissions flat, of [M_root]."""

    transitions: list[Tensor]
    emissions: list[Tensor]
    initial: list[Tensor]


@dataclass(frozen=True)
class Contexts:
    """The classes of what is known near a pixel, as in `Hclt`, a list a pixel."""

    neighbours: list[NDArray[np.int64]]
    weights: list[NDArray[np.int64]]
    thresholds: list[list[int]]

    @staticmethod
    def fit(data: NDArray[np.uint8], height: int, width: int, order: NDArray[np.int64], most: int) -> Contexts:
        """Predictions by least squares from pixels at most 2 away, thresholds that tell most about the value."""
        sample = data[:CLUSTERED].astype(np.float32)
        y, x = np.divmod(np.arange(height * width), width)
        rank = np.argsort(order)
        found = Contexts([], [], [])
        for v in range(height * width):
            apart = (y - y[v]) ** 2 + (x - x[v]) ** 2
            near = np.flatnonzero((apart <= 4) & (rank < rank[v])) if most > 1 else np.zeros(0, np.int64)
            seen = sample[:, near]
            square = seen.T @ seen + 10 * len(seen) * np.eye(len(near), dtype=np.float32)
            exact = np.linalg.solve(square, seen.T @ sample[:, v]) * (1 << PREDICTION_BITS)
            weights = np.clip(np.rint(exact), -(1 << 15), (1 << 15) - 1).astype(np.int64)
            prediction = (seen.astype(np.int64) @ weights) >> PREDICTION_BITS
            values = sample[:, v].astype(np.int64)
            found.thresholds.append(best_thresholds(np.clip(prediction, 0, VALUES - 1), values, most))
            used = slice(None if found.thresholds[-1] else 0)
            found.neighbours.append(near[used])
            found.weights.append(weights[used])
        return found

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 [D]: contexts a pixel."""
        return np.array([len(t) + 1 for t in self.thresholds])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As the fields of `Hclt`."""
        return {
            "n_contexts": self.sizes.astype(np.uint8),
            "n_neighbours": np.array([len(n) for n in self.neighbours], np.uint8),
            "neighbours": flat_array(self.neighbours, np.int16),
            "weights": flat_array(self.weights, np.int16),
            "thresholds": flat_array(self.thresholds, np.uint8),
        }

    def rows(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Rows of the pixels' tables, 256 * context + value: uint16 [D, N] of pictures [N, D]."""
        a = self.arrays()
        near, cuts = first_places(a["n_neighbours"]), first_places(self.sizes - 1)
        rows = np.empty(pictures.shape[::-1], np.uint16)
        context_rows(pictures, near, a["neighbours"], a["weights"], cuts, a["thresholds"], rows)
        return rows


def best_thresholds(prediction: NDArray[np.int64], values: NDArray[np.int64], most: int) -> list[int]:
    """Thresholds, at most - 1, that split the prediction where the value's entropy falls most, one after the other."""
    joint = np.zeros((VALUES, 17))
    np.add.at(joint, (prediction, np.where(values == 0, 0, 1 + (values >> 4))), 1)
    below = np.concatenate([np.zeros((1, 17)), joint.cumsum(0)])
    cuts = [0, VALUES]
    for _ in range(most - 1):
        best, gain = 0, len(values) * 1e-3
        for low, high in itertools.pairwise(cuts):
            inside = np.arange(low + 1, high)
            parts = nats(below[inside] - below[low]) + nats(below[high] - below[inside])
            gains = nats(below[high] - below[low]) - parts
            if len(inside) and gains.max() > gain:
                best, gain = int(inside[gains.argmax()]), float(gains.max())
        if not best:
            break
        cuts = sorted([*cuts, best])
    return cuts[1:-1]


def nats(counts: NDArray[np.float64]) -> Any:
    """Entropy of counts, times their sum, over the last axis."""
    total = np.maximum(counts.sum(-1, keepdims=True), 1e-9)
    return -(counts * np.log(np.maximum(counts, 1e-9) / total)).sum(-1)


def chow_liu_tree(data: NDArray[np.uint8], height: int, width: int) -> NDArray[np.int64]:
    """The spanning tree of most mutual information between near pixels: each pixel's parent, -1 at the root, in the centre.

    data: [N, D]. Values in 16 levels, pairs at most 3 rows and columns apart (Chow & Liu 1968; Liu et al. 2022).
    """
    levels = np.ascontiguousarray((data[:20_000] >> 4).T)
    y, x = np.divmod(np.arange(height * width), width)
    shifts = [(dy, dx) for dy in range(4) for dx in range(-3, 4) if (dy, dx) > (0, 0)]
    inside = [
        (v, v + dy * width + dx)
        for v in range(height * width)
        for dy, dx in shifts
        if y[v] + dy < height and 0 <= x[v] + dx < width
    ]
    pairs = np.array(inside, np.int64).reshape(-1, 2)
    neighbours: list[list[int]] = [[] for _ in range(height * width)]
    root_of = list(range(height * width))
    for a, b in pairs[np.argsort(-mutual_information(levels, pairs), kind="stable")].tolist():
        if find_root(root_of, a) != find_root(root_of, b):
            root_of[find_root(root_of, a)] = find_root(root_of, b)
            neighbours[a].append(b)
            neighbours[b].append(a)
    end = breadth_first(neighbours, 0)[0][-1]
    order, parent = breadth_first(neighbours, end)
    path = [order[-1]]
    while parent[path[-1]] >= 0:
        path.append(parent[path[-1]])
    return np.array(breadth_first(neighbours, path[len(path) // 2])[1], np.int64)


def find_root(root_of: list[int], v: int) -> int:
    while root_of[v] != v:
        root_of[v] = v = root_of[root_of[v]]
    return v


def breadth_first(neighbours: list[list[int]], root: int) -> tuple[list[int], list[int]]:
    """Order, and each one's parent."""
    parent = [-2] * len(neighbours)
    parent[root], order = -1, [root]
    for v in order:
        for c in neighbours[v]:
            if parent[c] == -2:
                parent[c] = v
                order.append(c)
    return order, parent


def choose_states(pictures: NDArray[np.uint8], parent: NDArray[np.int64], config: LearnConfig) -> NDArray[np.int64]:
    """States of the inner pixels, 0 at leaves: by the root of the variance around, in steps of 8."""
    data = pictures.astype(np.float32)
    spread = data.var(0)
    reach = np.arange(-6, 7)
    kernel = np.exp(-(reach**2) / (2 * 2.5**2))
    for axis in (0, 1):
        spread = np.apply_along_axis(lambda row: np.convolve(np.pad(row, 6), kernel, "valid"), axis, spread)
    relative = np.minimum(1, spread / max(float(np.quantile(spread, 0.9)), 1e-9)) ** 0.5
    states = np.maximum(np.ceil(config.states * relative / 8), 1).astype(np.int64).ravel() * 8
    inner = np.isin(np.arange(len(parent)), parent) | (parent == -1)
    return np.where(inner, np.minimum(states, config.states), 0)


def tones_of(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What k-means sees of a value: half the value, half its rank among those above 0; float32 [256]."""
    counted = np.bincount(data.ravel(), minlength=VALUES).astype(np.float64)
    counted[0] = 0
    rank = (counted.cumsum() - counted / 2) / max(counted.sum(), 1)
    return ((np.arange(VALUES) / (VALUES - 1) + np.where(np.arange(VALUES) > 0, rank, 0)) / 2).astype(np.float32)


def k_means(points: Tensor, k: int, rng: np.random.Generator, rounds: int = 6) -> NDArray[np.int64]:
    """Clusters 0..k - 1 of points [N, F]."""
    import torch

    noise = torch.as_tensor(rng.normal(0, 0.01, (k, points.shape[1])).astype(np.float32), device=points.device)
    centres = points[rng.integers(0, len(points), k)] + noise
    nearest = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for _ in range(rounds):
        nearest = (points @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        size = torch.bincount(nearest, minlength=k)[:, None].float()
        mean = torch.zeros_like(centres).index_add_(0, nearest, points) / size.clamp(min=1)
        centres = torch.where(size > 0, mean, points[rng.integers(0, len(points), k)])
    found: NDArray[np.int64] = nearest.cpu().numpy()
    return found


def smoothed_rows(counts: Tensor) -> Tensor:
    """[M_parent, M] counts -> rows of probabilities; a picture's worth of the mean row is added to each."""
    mean = counts.sum(0, keepdim=True) + 1
    smoothed: Tensor = (counts + mean / mean.sum()) / (counts.sum(1, keepdim=True) + 1)
    return smoothed


def spreading(whole: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """[to, from] of 256 values: a Gaussian times how often a value is; but values far above their neighbours keep apart."""
    padded = np.pad(whole, 8, mode="reflect")
    usual = np.array([np.median(padded[i : i + 17]) for i in range(VALUES)])
    alone = whole > 1.5 * usual
    alone[[0, -1]] = True
    apart = np.arange(VALUES)[:, None] - np.arange(VALUES)
    kernel = np.exp(-(apart**2) / (2 * width**2)) * whole[:, None]
    kernel[(alone[:, None] | alone) & (apart != 0)] = 0
    return np.asarray(kernel / kernel.sum(0))


def quantised(p: NDArray[np.float32], total: int, axis: int) -> NDArray[np.int64]:
    """Integers >= 1 that sum to the total along the axis; what rounding leaves goes to the first maximum."""
    exact = p.astype(np.float64) / p.sum(axis, keepdims=True, dtype=np.float64)
    out = 1 + np.floor(exact * (total - p.shape[axis])).astype(np.int64)
    top = np.expand_dims(out.argmax(axis), axis)
    left = total - out.sum(axis, keepdims=True)
    np.put_along_axis(out, top, np.take_along_axis(out, top, axis) + left, axis)
    return np.asarray(out)


def flat_array(parts: Sequence[Any], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype).ravel() for part in parts)])


def bits_per_dimension(nats_each: NDArray[np.float64], n: int) -> float:
    return float(-nats_each.mean() / np.log(2) / n)


@numba.njit(cache=True, nogil=True)
def mutual_information(levels, pairs):  # type: ignore[no-untyped-def]
    """Nats between rows of levels [D, N] in 0..15, for pairs [P, 2]; 0.1 pictures are spread over the 256 cells."""
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


@numba.njit(cache=True, nogil=True)
def context_rows(pictures, near, neighbours, weights, cuts, thresholds, rows):  # type: ignore[no-untyped-def]
    for v in range(rows.shape[0]):
        for b in range(rows.shape[1]):
            c = context(pictures[b], near[v], near[v + 1], neighbours, weights, cuts[v], cuts[v + 1], thresholds)
            rows[v, b] = c * VALUES + pictures[b, v]


@numba.njit(cache=True, nogil=True, fastmath=True)
def up_rows(rows, table, pixels, places, messages, u, m, scale):  # type: ignore[no-untyped-def]
    """As `Learner._weigh`."""
    n, states = m.shape
    for b in range(n):
        out = m[b]
        out[:] = 1
        for i in range(len(pixels) + len(messages)):
            if i < len(pixels):
                place = places[i] + np.int64(rows[pixels[i], b]) * states
                factor = table[place : place + states]
            else:
                place = messages[i - len(pixels)] + b * states
                factor = u[place : place + states]
            for j in range(states):
                out[j] *= factor[j]
            if i % 3 == 2 or i == len(pixels) + len(messages) - 1:
                top = np.float32(TINY)
                for j in range(states):
                    top = max(top, out[j])
                scale[b] += np.log(top)
                inverse = np.float32(1) / top
                for j in range(states):
                    out[j] = max(out[j] * inverse, np.float32(LEAST))


@numba.njit(cache=True, nogil=True, fastmath=True)
def down_rows(rows, pixels, places, messages, u, m, share, counted):  # type: ignore[no-untyped-def]
    """As `Learner._spread`."""
    n, states = m.shape
    for b in range(n):
        out, factor = m[b], share[b]
        for j in range(states):
            out[j] *= factor[j]
        for i in range(len(pixels)):
            place = places[i] + np.int64(rows[pixels[i], b]) * states
            cell = counted[place : place + states]
            for j in range(states):
                cell[j] += out[j]
        for i in range(len(messages)):
            message = u[messages[i] + b * states : messages[i] + (b + 1) * states]
            for j in range(states):
                message[j] = out[j] / message[j]
