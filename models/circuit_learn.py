"""Learning the parameters of circuits: expectation maximisation, by kernels on the CPU or by torch on a device.

The expected count of an edge, given a row, is how likely the edge is in use when the circuit draws that row: a pass up
gives all values, a pass down all counts. It is also the gradient of the log-likelihood by the logarithm of the edge's
weight, which is how torch finds it (Peharz et al. 2020, "Einsum networks", section 3.3). To train large circuits on a
GPU see PyJuice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.models.circuit import Circuit, nats, on_device, propagated
from laconic.models.circuit_nodes import LEAST_P, Floats


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
    """Return the circuit with parameters learnt from rows, by expectation maximisation.

    x: integers [N, D] below k; a negative one is missing. epochs: how often all rows are seen. batch: rows at a time,
    None for all. step: how far a batch moves the counts, above 0 to 1. pseudocount: spread over the children or values
    of each parameter. device: "cpu" for the kernels, which give the same for any number of threads, else torch's name
    of a device. Raises BadInput.
    """
    rows, rng = circuit.rows(x), np.random.default_rng(seed)
    size = min(batch or len(rows), len(rows))
    expect(size > 0, BadInput, "rows", len(rows), "1 or more")
    kept: list[Floats] = []
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for first in range(0, len(rows) - size + 1, size):
            found = expected(circuit, rows[order[first : first + size]], device, threads)
            fresh = [counts * (len(rows) / size) for counts in found]
            kept = [old + step * (new - old) for old, new in zip(kept, fresh, strict=True)] if kept else fresh
            circuit = maximised(circuit, kept[0], kept[1], pseudocount)
    return circuit


def expected(
    circuit: Circuit, rows: NDArray[np.int64], device: str = "cpu", threads: int | None = None
) -> tuple[Floats, Floats]:
    """Return how often the rows are expected to use each weight, [P], and each value of each family, [families, k]."""
    if device != "cpu":
        return gradients(circuit, rows, device)
    used, seen = (np.zeros_like(parameter) for parameter in circuit.parameters())
    for _, more_used, more_seen in propagated(circuit, rows, True, threads):
        used += more_used
        seen += more_seen
    return used, seen


def gradients(circuit: Circuit, rows: NDArray[np.int64], device: str) -> tuple[Floats, Floats]:
    """Return the same counts as the gradients of the log-likelihood by the logarithms of the parameters."""
    import torch

    theta, tables = (p.requires_grad_() for p in on_device(circuit, device))
    total = nats(circuit, rows, theta, tables).sum()
    flows = torch.autograd.grad(total, (theta, tables), allow_unused=True, materialize_grads=True)
    return flows[0].cpu().numpy(), flows[1].cpu().numpy()


def maximised(circuit: Circuit, edges: Floats, counts: Floats, pseudocount: float) -> Circuit:
    """Return the circuit with the parameters that expected counts of theta [P] and of values [families, k] lead to."""
    sizes = np.diff(circuit.bounds)
    smoothed = edges + np.repeat(pseudocount / np.maximum(sizes, 1), sizes)
    totals = np.repeat(np.add.reduceat(smoothed, circuit.bounds[:-1]), sizes) if len(sizes) else smoothed
    theta = np.where(totals > 0, smoothed / np.maximum(totals, LEAST_P), circuit.theta)
    families = tuple(f.fitted(c, pseudocount) for f, c in zip(circuit.families, counts, strict=True))
    return replace(circuit, theta=theta, families=families)
