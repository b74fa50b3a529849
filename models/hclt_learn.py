"""Learning hidden Chow-Liu trees (`hclt.py`) from pictures: `Learner.start(pictures)`, then `run`, then `export`.

    hclt_tree       the tree of most mutual information; more states for pixels whose surroundings vary       found once
    hclt_contexts   contexts: thresholds of a prediction by least squares                                     found once
    hclt_start      clusters in place of hidden states, priors of the emissions                               found once
    here            expectation maximisation of the parameters
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.models.hclt import EMISSION_BITS, MAX_PIXELS, MAX_STATES, ROW_BITS, VALUES, Hclt, first_places, packed
from laconic.models.hclt_contexts import Contexts, flat_array
from laconic.models.hclt_start import Counts, Priors, clustered
from laconic.models.hclt_tree import Layout, choose_states, chow_liu_tree

if TYPE_CHECKING:
    from torch import Tensor

MAX_ENTRIES = 1 << 28  # the most emissions: the learner holds them three times in float32
CHUNK, DEVICE_CHUNK = 512, 4096  # pictures whose messages the learner holds at a time: in caches, on a GPU
TINY, LEAST = 1e-35, 1e-30  # float32: of a maximum, of a message
LATE = 0.6  # after so much of the time steps get smaller


@dataclass(frozen=True)
class LearnConfig:
    """Says how a model is learnt.

    states: of the pixels whose surroundings vary most, 8 to 256; others have fewer. contexts: of a pixel, at most, 1 to
    64. epochs: in mini-batches of `batch` pictures; then full_epochs with all pictures at once. step: how far a
    mini-batch moves the counts, at first and at the end. window: pixels, the surroundings that a hidden state stands
    for at first (a standard deviation). prior, narrow, wide: pictures that a prior is worth, and how far counts spread,
    in values: see `Priors`.
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

    def check(self) -> None:
        """Raise BadInput where a size is out of range."""
        expect(8 <= self.states <= MAX_STATES, BadInput, "states", self.states, f"8 to {MAX_STATES}")
        expect(1 <= self.contexts <= 64, BadInput, "contexts", self.contexts, "1 to 64")


class Learner:
    """Learns by expectation maximisation (circuits of trees: Liu & Van den Broeck, arXiv:2106.02264), in float32 with torch.

    Counts are kept over mini-batches and moved towards each batch's; at the end come epochs with all pictures at once.
    Floats differ between machines: what a file depends on is `export`. Make one with `Learner.start`.
    """

    def __init__(
        self,
        data: NDArray[np.uint8],
        shape: tuple[int, int],
        config: LearnConfig,
        device: str,
        layout: Layout,
        contexts: Contexts,
        priors: Priors,
    ) -> None:
        """Hold what learning needs. data: uint8 [N, D], pictures of a shape (H, W); the rest as `start` finds it."""
        import torch

        self.data, self.config, self.device = data, config, device
        self.height, self.width = shape
        self.layout, self.contexts, self.priors = layout, contexts, priors
        self.rng = np.random.default_rng(config.seed)
        self.kernels = device == "cpu"  # else tensors do their work
        self.chunk = CHUNK if self.kernels else DEVICE_CHUNK
        self.places = first_places(contexts.sizes * VALUES * layout.widths)  # where the emissions of each pixel begin
        limit = f"at most {MAX_ENTRIES}: smaller pictures, fewer states or contexts"
        expect(self.places[-1] <= MAX_ENTRIES, BadInput, "entries of emissions", int(self.places[-1]), limit)
        self.emission_table = torch.zeros(int(self.places[-1]), device=device)
        self.counts = self.no_counts()
        self.m: list[Tensor] = []

    @classmethod
    def start(cls, pictures: NDArray[np.uint8], config: LearnConfig | None = None, device: str = "cpu") -> Learner:
        """Find tree, states and contexts of pictures, and first parameters, ready for `run`.

        pictures: uint8 [N, H, W], the training set. device: torch's name of one. Raises BadInput.
        """
        ok = pictures.dtype == np.uint8 and pictures.ndim == 3 and min(pictures.shape) > 0
        expect(ok, BadInput, "pictures", f"{list(pictures.shape)} of {pictures.dtype}", "[N, H, W] of uint8, none 0")
        config, (n, height, width) = config or LearnConfig(), pictures.shape
        expect(height * width <= MAX_PIXELS, BadInput, "pixels", height * width, f"at most {MAX_PIXELS}")
        config.check()
        data = np.ascontiguousarray(pictures).reshape(n, -1)
        parent = chow_liu_tree(data, height, width)
        layout = Layout.of(parent, choose_states(pictures, parent, config.states))
        contexts = Contexts.fit(data, height, width, layout.order, config.contexts)
        priors = Priors.fit(data, contexts, config.prior, config.narrow, config.wide, device)
        learner = cls(data, (height, width), config, device, layout, contexts, priors)
        learner.counts = clustered(data, width, layout, contexts, config.window, learner.rng, device)
        learner.maximise()
        return learner

    def run(
        self,
        progress: Callable[[str], None] = lambda line: None,
        limit_s: float = float("inf"),
        held_out: NDArray[np.uint8] | None = None,
    ) -> None:
        """Do all epochs, or as many mini-batch epochs as limit_s seconds allow.

        progress: is told a line per epoch. held_out: uint8 [N, H, W], pictures whose bits per dimension it also tells.
        """
        begun, config = time.monotonic(), self.config
        epoch = 0
        while epoch < config.epochs and (gone := time.monotonic() - begun) < limit_s:
            late = max(epoch / config.epochs, gone / limit_s)
            first, last = config.step
            bits = self.epoch(config.batch, first * (last / first) ** (max(0.0, late - LATE) / (1 - LATE)))
            epoch += 1
            progress(self._line(f"epoch {epoch}", bits, begun, held_out))
        for _ in range(config.full_epochs):
            progress(self._line("all pictures at once", self.epoch(len(self.data), 1.0), begun, held_out))

    def _line(self, what: str, bits: float, begun: float, held_out: NDArray[np.uint8] | None) -> str:
        seen = f", held out {self.bpd(held_out):.4f}" if held_out is not None and len(held_out) else ""
        return f"{what}: {bits:.4f} bits per pixel{seen}, {time.monotonic() - begun:.0f} s"

    def epoch(self, batch: int, step: float) -> float:
        """Go once through the pictures, in batches that move the counts by a step.

        Return the bits per dimension on the way.
        """
        n = len(self.data)
        order, batch = self.rng.permutation(n), min(batch, n)
        found = []
        for first in range(0, n - batch + 1, batch):
            seen = self.no_counts()
            for k in range(first, first + batch, self.chunk):
                found.append(self.expect(self.data[order[k : min(k + self.chunk, first + batch)]], seen))
            for transition, counted in zip(self.transitions, seen.transitions, strict=True):
                counted *= transition
            for kept, new in zip(self.counts, seen, strict=True):
                for old, fresh in zip(kept, new, strict=True):
                    old.mul_(1 - step).add_(fresh, alpha=step * n / batch)
            self.maximise()
        return bits_per_dimension(np.concatenate(found), self.data.shape[1])

    def bpd(self, pictures: NDArray[np.uint8]) -> float:
        """Return the bits per dimension of pictures, uint8 [N, H, W], under the float model."""
        data = np.ascontiguousarray(pictures).reshape(len(pictures), -1)
        found = [self.forward(data[k : k + self.chunk])[1] for k in range(0, len(data), self.chunk)]
        return bits_per_dimension(np.concatenate(found), data.shape[1])

    def export(self) -> Hclt:
        """Return the model in integers."""
        transitions = [quantised(t.cpu().numpy(), 1 << ROW_BITS, 1) for t in self.transitions[1:]]
        tables = [self.emission(v).reshape(-1, VALUES, self.layout.widths[v]) for v in range(self.data.shape[1])]
        emissions = [packed(quantised(table.cpu().numpy(), 1 << EMISSION_BITS, 1)) for table in tables]
        return Hclt(
            height=self.height,
            width=self.width,
            parent=self.layout.parent.astype(np.int16),
            states=self.layout.states.astype(np.uint16),
            initial=quantised(self.initial.cpu().numpy(), 1 << ROW_BITS, 0).astype(np.uint16),
            transitions=flat_array(transitions, np.uint16),
            emissions=flat_array(emissions, np.uint16),
            **self.contexts.arrays(),
        )

    # The E-step. Messages go by slot: see `Layout`.

    def expect(self, pictures: NDArray[np.uint8], seen: Counts) -> NDArray[np.float64]:
        """Add the expected counts of pictures [B, D] to `seen`. Return their log-likelihoods in nats, float64 [B].

        Counts of transitions still lack the factor that all share, the transition itself: it comes once per batch.
        """
        import torch

        rows, likelihood, root = self.forward(pictures)
        share = self.initial / root[:, None]
        seen.initial[0] += (self.m[0] * share).sum(0)
        for i in range(len(self.m)):
            if i:
                seen.transitions[i].addmm_(self.u[i].T, self.m[i])
                share = self.scratch[: self.m[i].numel()].view(self.m[i].shape)
                torch.matmul(self.u[i], self.transitions[i], out=share)
            self.spread(i, rows, share, seen.emissions[0])
        return likelihood

    def forward(self, pictures: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.float64], Tensor]:
        """Pass messages of pictures [B, D] up the tree: m[i] at each inner pixel, u[i] from it to its parent.

        Returns the pixels' rows in their tables, int32 [D, B], the log-likelihoods, float64 [B], and the probabilities
        of the pictures by the scaled messages, float32 [B].
        """
        import torch

        rows = torch.as_tensor(self.contexts.rows(pictures).astype(np.int32), device=self.device)
        scale = torch.zeros(len(pictures), dtype=torch.float64, device=self.device)
        self.make_room(len(pictures))
        for i in reversed(range(len(self.m))):
            self.weigh(i, rows, scale)
            if i:
                torch.matmul(self.m[i], self.transitions[i].T, out=self.u[i])
        root = self.m[0] @ self.initial
        return rows, (scale + torch.log(root.double())).cpu().numpy(), root

    def weigh(self, i: int, rows: Tensor, scale: Tensor) -> None:
        """Put the emissions of the pixels that hang on slot i, times the children's messages, into m[i].

        The largest of a picture is scaled to 1, and the logarithm of its scale added to `scale`.
        """
        import torch

        pixels, m = self.layout.pixels[i], self.m[i]
        if self.kernels:
            emissions = (self.emission_table.numpy(), pixels, self.places[pixels])
            up_rows(rows.numpy(), *emissions, self.u_places[i], self.u_all.numpy(), m.numpy(), scale.numpy())
            return
        m.fill_(1)
        factors = [self.emission(int(v))[rows[v]] for v in pixels] + [self.u[c] for c in self.layout.children[i]]
        for factor in factors:
            m *= factor
            top = m.amax(1, keepdim=True).clamp_(min=TINY)
            m /= top
            scale += torch.log(top[:, 0])
        m.clamp_(min=LEAST)

    def spread(self, i: int, rows: Tensor, share: Tensor, counted: Tensor) -> None:
        """Put the posterior of slot i into m[i], add it to the counts, and divide the children's messages out."""
        pixels, m = self.layout.pixels[i], self.m[i]
        if self.kernels:
            u = (self.u_places[i], self.u_all.numpy())
            down_rows(rows.numpy(), pixels, self.places[pixels], *u, m.numpy(), share.numpy(), counted.numpy())
            return
        m *= share
        for v in pixels.tolist():
            part = counted[self.places[v] : self.places[v + 1]].view(-1, m.shape[1])
            part.index_add_(0, rows[v], m)
        for c in self.layout.children[i]:
            self.u[c].copy_(m / self.u[c])

    def emission(self, v: int) -> Tensor:
        """Return the emissions of a pixel, a view [contexts * 256, M]."""
        return self.emission_table[self.places[v] : self.places[v + 1]].view(-1, int(self.layout.widths[v]))

    # The M-step.

    def maximise(self) -> None:
        """Set the parameters to what the counts lead to."""
        counts = self.counts
        self.initial = (counts.initial[0] + 1) / (counts.initial[0] + 1).sum()
        self.transitions = [smoothed_rows(t) for t in counts.transitions]
        for v in range(self.data.shape[1]):
            shape = (-1, VALUES, int(self.layout.widths[v]))
            counted = counts.emissions[0][self.places[v] : self.places[v + 1]].view(shape)
            self.emission(v).view(shape).copy_(self.priors.emissions(v, counted))

    # Room.

    def no_counts(self) -> Counts:
        """Return counts of nothing."""
        return Counts.zeros(self.layout, int(self.places[-1]), self.device)

    def make_room(self, n: int) -> None:
        """Make the messages of n pictures, unless they are there.

        Kernels find the children's by their places in u_all.
        """
        import torch

        if self.m and len(self.m[0]) == n:
            return
        m = self.layout.sizes
        above = np.array([0, *(m[p] for p in self.layout.above[1:])])
        at = first_places(above * n)
        self.u_all = torch.zeros(int(at[-1]), device=self.device)
        self.u = [self.u_all[at[i] : at[i + 1]].view(n, int(above[i])) for i in range(len(m))]
        self.u_places = [at[np.array(children, np.int64)] for children in self.layout.children]
        self.m = [torch.zeros(n, states, device=self.device) for states in m]
        self.scratch = torch.zeros(n * max(m), device=self.device)


def smoothed_rows(counts: Tensor) -> Tensor:
    """Return rows of probabilities from counts [M_parent, M]; to each row one picture of the mean row is added."""
    mean = counts.sum(0, keepdim=True) + 1
    smoothed: Tensor = (counts + mean / mean.sum()) / (counts.sum(1, keepdim=True) + 1)
    return smoothed


def quantised(p: NDArray[np.float32], total: int, axis: int) -> NDArray[np.int64]:
    """Return p in integers, 1 or more, that sum to a total along the axis; the rest goes to the first maximum."""
    exact = p.astype(np.float64) / p.sum(axis, keepdims=True, dtype=np.float64)
    out = 1 + np.floor(exact * (total - p.shape[axis])).astype(np.int64)
    top = np.expand_dims(out.argmax(axis), axis)
    left = total - out.sum(axis, keepdims=True)
    np.put_along_axis(out, top, np.take_along_axis(out, top, axis) + left, axis)
    return np.asarray(out)


def bits_per_dimension(nats_each: NDArray[np.float64], n: int) -> float:
    """Return the mean of log-likelihoods in nats, one per picture of n pixels, as bits per pixel."""
    return float(-nats_each.mean() / np.log(2) / n)


@numba.njit(cache=True, nogil=True, fastmath=True)
def up_rows(rows, table, pixels, places, messages, u, m, scale):  # type: ignore[no-untyped-def]
    """Do what `Learner.weigh` does, for one slot.

    Messages are scaled after every third factor, before they get too small. rows: int32 [D, B]. table: all emissions.
    pixels, places: those that hang on the slot, and where their emissions begin. messages: where the children's
    messages begin in u. m: float32 [B, M]. scale: float64 [B].
    """
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
    """Do what `Learner.spread` does for one slot.

    share: float32 [B, M], what the rest of the tree says. Others as `up_rows`.
    """
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
