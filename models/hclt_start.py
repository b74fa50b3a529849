"""What learning a hidden Chow-Liu tree starts from: clusters in place of hidden states, and priors of the emissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.models.hclt import VALUES, first_places
from laconic.models.hclt_contexts import Contexts
from laconic.models.hclt_tree import Layout

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 20_000  # pictures that clusters are made from
SEEN = 6  # pixels: a cluster sees its surroundings up to so far away
ROUNDS = 6  # iterations of k-means
# Pictures that a prior is worth: of all values for those of a pixel, of these for those with its context, far and near.
PIXEL_PRIOR, CONTEXT_PRIOR, NEAR_PRIOR = 20, 20, 40
USUAL = 8  # values on either side that say what is usual near a value
ALONE = 1.5  # a value more frequent by so much than is usual near it keeps apart: white paper, black ink


class Counts(NamedTuple):
    """Holds expected counts: [M_parent, M] per slot; of all emissions, flat; [M_root]."""

    transitions: list[Tensor]
    emissions: list[Tensor]
    initial: list[Tensor]

    @classmethod
    def zeros(cls, layout: Layout, n_entries: int, device: str) -> Counts:
        """Make counts of nothing. n_entries: of the emissions."""
        import torch

        m = layout.sizes
        transitions = [torch.zeros(m[layout.above[i]], m[i], device=device) for i in range(len(m))]
        initial = torch.zeros(m[0], device=device)
        return cls(transitions, [torch.zeros(n_entries, device=device)], [initial])


def clustered(
    data: NDArray[np.uint8],
    width: int,
    layout: Layout,
    contexts: Contexts,
    window: float,
    rng: np.random.Generator,
    device: str,
) -> Counts:
    """Return counts as though each hidden state were seen: the cluster (k-means) of its pixel's surroundings.

    data: uint8 [N, D], pictures of a width. window: pixels, the standard deviation of the weights of surroundings.
    After: Liu et al., "Scaling up probabilistic circuits by latent variable distillation", ICLR 2023, who cluster
    features.
    """
    import torch

    places = first_places(contexts.sizes * VALUES * layout.widths)
    counts = Counts.zeros(layout, int(places[-1]), device)
    sample = data[rng.permutation(len(data))[:SAMPLE]]
    rows, tones = contexts.rows(sample), torch.as_tensor(tones_of(data)[sample], device=device)
    y, x = np.divmod(np.arange(len(layout.parent)), width)
    weight, found = len(data) / len(sample), list[NDArray[np.int64]]()  # what a picture of the sample counts for
    for i, v in enumerate(layout.inner):
        apart = (y - y[v]) ** 2 + (x - x[v]) ** 2
        near = np.flatnonzero(apart <= SEEN**2)
        fading = np.exp(-apart[near] / (4 * window**2)).astype(np.float32)
        points = tones[:, near] * torch.as_tensor(fading, device=device)
        found.append(k_means(points, int(layout.states[v]), rng))
        pairs = np.zeros(counts.transitions[i].shape, np.float32)
        np.add.at(pairs, (found[layout.above[i]], found[i]), weight)
        counts.transitions[i] += torch.as_tensor(pairs, device=device)
        for pixel in layout.pixels[i].tolist():
            table = np.zeros((int(contexts.sizes[pixel]) * VALUES, int(layout.states[v])), np.float32)
            np.add.at(table, (rows[pixel], found[i]), weight)
            counts.emissions[0][places[pixel] : places[pixel + 1]] = torch.as_tensor(table, device=device).view(-1)
    first = np.bincount(found[0], minlength=layout.sizes[0]) * weight
    counts.initial[0] += torch.as_tensor(first, dtype=torch.float32, device=device)
    return counts


def tones_of(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what k-means sees of each value: half the value, half its rank among those above 0; float32 [256]."""
    counted = np.bincount(data.ravel(), minlength=VALUES).astype(np.float64)
    counted[0] = 0
    rank = (counted.cumsum() - counted / 2) / max(counted.sum(), 1)
    return ((np.arange(VALUES) / (VALUES - 1) + np.where(np.arange(VALUES) > 0, rank, 0)) / 2).astype(np.float32)


def k_means(points: Tensor, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the cluster of each of the points [N, F], int64 [N] in 0..k - 1.

    Empty clusters start again at some point.
    """
    import torch

    noise = torch.as_tensor(rng.normal(0, 0.01, (k, points.shape[1])).astype(np.float32), device=points.device)
    centres = points[rng.integers(0, len(points), k)] + noise
    nearest = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for _ in range(ROUNDS):
        nearest = (points @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        size = torch.bincount(nearest, minlength=k)[:, None].float()
        mean = torch.zeros_like(centres).index_add_(0, nearest, points) / size.clamp(min=1)
        centres = torch.where(size > 0, mean, points[rng.integers(0, len(points), k)])
    found: NDArray[np.int64] = nearest.cpu().numpy()
    return found


@dataclass(frozen=True)
class Priors:
    """Keeps emissions with few counts sensible: see `emissions`.

    strength: pictures that a prior is worth. narrow, wide: float32 [256, 256], kernels that spread counts over near
    values. of_pixel: by pixel its distribution, float32 [256, 1]; of_context: with its context, [contexts, 256, 1].
    """

    strength: float
    narrow: Tensor
    wide: Tensor
    of_pixel: list[Tensor]
    of_context: list[Tensor]

    @classmethod
    def fit(
        cls, data: NDArray[np.uint8], contexts: Contexts, strength: float, narrow: float, wide: float, device: str
    ) -> Priors:
        """Find the distributions in pictures [N, D]. narrow, wide: standard deviations of the kernels, in values."""
        import torch

        def put(array: NDArray[np.float64]) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        counts = np.bincount(data.ravel(), minlength=VALUES) + 1.0
        whole = np.asarray(counts / counts.sum(), np.float64)
        near, far = spreading(whole, narrow), spreading(whole, wide)
        of_pixel: list[Tensor] = []
        of_context: list[Tensor] = []
        rows = contexts.rows(data)
        for v in range(data.shape[1]):
            cells = np.bincount(rows[v], minlength=int(contexts.sizes[v]) * VALUES)
            counted = cells.reshape(-1, VALUES).T.astype(np.float64)
            alone = (far @ counted.sum(1) + PIXEL_PRIOR * whole) / (len(data) + PIXEL_PRIOR)
            n = counted.sum(0)
            known = (far @ counted + CONTEXT_PRIOR * alone[:, None]) / (n + CONTEXT_PRIOR)
            known = (near @ counted + NEAR_PRIOR * known) / (n + NEAR_PRIOR)
            of_pixel.append(put(alone[:, None]))
            of_context.append(put(known.T[:, :, None].copy()))
        return cls(strength, put(near), put(far), of_pixel, of_context)

    def emissions(self, v: int, counted: Tensor) -> Tensor:
        """Return the probabilities [contexts, 256, M] of pixel v that counts of that shape lead to.

        Counts are spread over near values, and far where they are few. What has no counts is expected to be what the
        state gives without the context, times what the context makes more likely in all states.
        """
        import torch

        total = counted.sum(1, keepdim=True)
        alone = torch.matmul(self.narrow, counted.sum(0) + PIXEL_PRIOR * self.of_pixel[v])
        expected = alone * (self.of_context[v] / self.of_pixel[v])
        expected /= expected.sum(1, keepdim=True)
        wide = (torch.matmul(self.wide, counted) + self.strength * expected) / (total + self.strength)
        near: Tensor = (torch.matmul(self.narrow, counted) + self.strength * wide) / (total + self.strength)
        return near


def spreading(whole: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return a kernel float64 [to, from] that spreads the count of a value over near ones.

    whole: the distribution of all values. A Gaussian of a width, times how frequent the target is; values far above
    what is usual near them keep to themselves, and so do 0 and 255.
    """
    padded = np.pad(whole, USUAL, mode="reflect")
    usual = np.array([np.median(padded[i : i + 2 * USUAL + 1]) for i in range(VALUES)])
    alone = whole > ALONE * usual
    alone[[0, -1]] = True
    apart = np.arange(VALUES)[:, None] - np.arange(VALUES)
    kernel = np.exp(-(apart**2) / (2 * width**2)) * whole[:, None]
    kernel[(alone[:, None] | alone) & (apart != 0)] = 0
    return np.asarray(kernel / kernel.sum(0))
