"""Experts: the circuit that chooses among them does as Bayes's rule says."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.models.experts import LEAST_PRIOR, Experts, Latents, infer, new_experts, new_latents, weigh
from laconic.models.mixing import kernel
from laconic.models.planes import LANES, PAD, Canvas, Plane, new_plane
from laconic.models.windows import LEVELS


@kernel
def one_sample(at: int, value: int, ring: int, plane: Plane, experts: Experts, latents: Latents) -> None:
    weigh(at, 1, 2, plane, experts, latents)
    infer(at, value, ring, plane, experts, latents)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1 << 20), st.sampled_from([8, 16]), st.integers(0, 1))
def test_the_circuit_follows_bayes(seed: int, bits: int, c: int) -> None:
    """Gate, posterior and evidence against the same in floats: neighbours, times planes before, times likelihoods."""
    random, (h, w) = np.random.default_rng(seed), (3, 5)
    canvas = Canvas.of(h, w, 3)
    plane = new_plane(canvas, c, (1 << bits) - 1, 0)
    experts, latents = new_experts(LEVELS[1], plane), new_latents(canvas, c, plane)
    m, at = experts.m, plane.origin + plane.stride + 2
    value = int(random.integers(0, 1 << bits))
    experts.mean[:m] = (value + random.normal(0, 4, m) * 2 ** (bits - 8)) * 256
    experts.inverse[:m] = 2.0**20 / (random.uniform(0.3, 9, m) * 2 ** (bits - 8))
    posterior = random.dirichlet(np.full(m, 0.5), 3 * plane.stride) * 65536
    latents.posterior.reshape(-1, LANES)[:, :m] = posterior
    evidence = np.maximum(random.dirichlet(np.full(m, 0.5)) * 65535, 1).astype(np.uint16)
    pixel = (at - plane.start) * LANES
    latents.evidence[pixel : pixel + m] = evidence

    ring = posterior.reshape(3, plane.stride, m)[:, PAD :].astype(np.uint32).astype(float)
    prior = 2 * (ring[1, 1] + ring[0, 2]) + ring[0, 1] + ring[0, 3] + ring[1, 0] + ring[2, 2] + LEAST_PRIOR
    prior = prior * evidence if c else prior
    z = (256 * value - experts.mean[:m]) * experts.inverse[:m] / 2**28
    wide = 2.0**bits * experts.inverse[:m] / 2**28  # of the sample's interval, in nats
    leaf = np.minimum(wide / (2 + np.exp(z) + np.exp(-z)), 1) + 2.0**-13
    one_sample(at, value, np.uint64(0), plane, experts, latents)
    for found, expected in (
        (experts.gate[:m], prior),
        (latents.posterior[:m], prior * leaf),
        (latents.evidence[pixel : pixel + m], evidence * leaf),
    ):
        np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=0.01, atol=1e-3)
