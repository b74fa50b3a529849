"""Nested codebooks for models/vqgan.py: K-means over vectors, and a binary tree over its centroids."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # vectors compared with all centroids at once
POWER_STEPS, SWAP_STEPS = 8, 6


@torch.no_grad()
def k_means(samples: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return centroids [K, D] after some iterations of Lloyd's, and how many samples each has [K].

    samples: float [N, D]. centroids: where to start. One without samples moves beside one that has the most.
    """
    centroids = centroids.clone()
    counts = torch.zeros(len(centroids))
    for _ in range(iterations):
        at = nearest(samples, centroids)
        counts = torch.bincount(at, minlength=len(centroids)).float()
        sums = torch.zeros_like(centroids).index_add_(0, at, samples)
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centroids)
        empty = (counts == 0).nonzero()[:, 0]
        crowded = counts.argsort(descending=True)[: len(empty)]
        centroids[empty] = centroids[crowded] * 1.001
    return centroids, counts


def nearest(samples: Tensor, centroids: Tensor) -> Tensor:
    """Return the number of the nearest centroid of each sample, int64 [N]."""
    half = centroids.square().sum(1) / 2
    return torch.cat([(half - part @ centroids.T).argmin(1) for part in samples.split(CHUNK)])


@torch.no_grad()
def tree(samples: Tensor, depth: int, iterations: int = 12) -> tuple[Tensor, Tensor]:
    """Return a codebook of 2**depth codes and all coarser ones, as nodes in heap order [2 << depth, D], with their counts.

    The finest codes are K-means; halves of equally many codes that lie together make the levels above, whose codes are the
    means of their samples.
    """
    start = samples[torch.randperm(len(samples))[: 1 << depth]]
    leaves, counts = k_means(samples, start, iterations)
    order = halved(leaves, counts)
    codes, mass = torch.zeros(2 << depth, samples.shape[1]), torch.zeros(2 << depth)
    codes[1 << depth :], mass[1 << depth :] = leaves[order], counts[order].clamp_min(1e-3)
    for level in reversed(range(depth)):
        nodes, children = slice(1 << level, 2 << level), slice(2 << level, 4 << level)
        pairs = mass[children].view(-1, 2)
        mass[nodes] = pairs.sum(1)
        codes[nodes] = (codes[children].view(-1, 2, samples.shape[1]) * pairs[:, :, None]).sum(1) / mass[nodes][:, None]
    return codes, mass


def apart(samples: Tensor, depth: int, iterations: int = 12) -> tuple[Tensor, Tensor]:
    """Return the same as `tree` with codebooks that have nothing to do with each other: K-means for each depth."""
    codes, mass = torch.zeros(2 << depth, samples.shape[1]), torch.zeros(2 << depth)
    for level in range(depth + 1):
        start = samples[torch.randperm(len(samples))[: 1 << level]]
        codes[1 << level : 2 << level], mass[1 << level : 2 << level] = k_means(samples, start, iterations)
    return codes, mass


def halved(points: Tensor, weights: Tensor) -> Tensor:
    """Return an order of points [K, D], K a power of 2, in which each half of each half holds points that lie together."""
    order = torch.arange(len(points))[None]
    while order.shape[1] > 1:
        x, w = points[order], weights[order].clamp_min(1e-3)[:, :, None]
        middle = (x * w).sum(1, keepdim=True) / w.sum(1, keepdim=True)
        axis = torch.ones(len(x), points.shape[1], 1)
        for _ in range(POWER_STEPS):
            axis = (x - middle).mT @ (w * ((x - middle) @ axis))
            axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-20)
        rank = ((x - middle) @ axis)[:, :, 0].argsort(1)
        for _ in range(SWAP_STEPS):
            order, x, w = order.gather(1, rank), taken(x, rank), taken(w, rank)
            half = order.shape[1] // 2
            low, high = ((x[:, s] * w[:, s]).sum(1) / w[:, s].sum(1) for s in (slice(half), slice(half, None)))
            rank = ((x - low[:, None]).square().sum(2) - (x - high[:, None]).square().sum(2)).argsort(1)
        order = order.gather(1, rank).view(2 * len(order), -1)
    return order[:, 0]


def taken(values: Tensor, rank: Tensor) -> Tensor:
    """Return values [K, L, D] in the order of ranks [K, L]."""
    return values.gather(1, rank[:, :, None].expand(-1, -1, values.shape[2]))
