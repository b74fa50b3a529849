"""The extreme model: nested codes, the start from a photo model, parts that decode as the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.models.photo import Photo, PhotoConfig
from laconic.models.vqgan import Vqgan, VqganConfig, nearest, packed, start_from_photo, unpacked
from laconic.tools.codebook import apart, k_means, tree

SMALL = VqganConfig(8, 12, 4, 4, (1, 1), (2, 2), 4, 2)


def small() -> Vqgan:
    torch.manual_seed(0)
    model = Vqgan(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(model.codes)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("depth", range(1, SMALL.depth + 1))
def test_an_index_is_the_nearest_code_and_then_that_of_what_it_lacks(depth: int) -> None:
    model = small()
    e = torch.randn(2, SMALL.code_channels, 3, 5)
    indices = model.indices(e, depth)
    assert indices.shape == (2, 3, 5) and 0 <= indices.min() and indices.max() < 1 << depth
    first = min(depth, SMALL.first_depth)
    vector, index = e[1, :, 2, 4], int(indices[1, 2, 4])
    codes = model.codes[1 << first : 2 << first]
    best = int((codes - vector).square().sum(1).argmin())
    assert index >> depth - first == best
    expected = codes[best]
    if depth > first:
        n = 1 << depth - first
        second = model.codes[SMALL.rest + n : SMALL.rest + 2 * n]
        expected = expected + second[int((second - (vector - expected)).square().sum(1).argmin())]
    assert torch.allclose(model.embedded(indices, depth)[1, :, 2, 4], expected)


@given(st.integers(1, 4), st.integers(40, 90), st.integers(0, 1000))
def test_a_code_is_the_mean_of_the_two_below_it(depth: int, n: int, seed: int) -> None:
    torch.manual_seed(seed)
    samples = torch.randn(n, 3)
    codes, mass = tree(samples, depth)
    leaves = codes[1 << depth :]
    assert torch.allclose(codes[1], samples.mean(0), atol=0.06)
    for node in range(1, 1 << depth):
        pair, weight = codes[2 * node : 2 * node + 2], mass[2 * node : 2 * node + 2]
        assert mass[node] == pytest.approx(float(weight.sum()), rel=1e-4)
        assert torch.allclose(codes[node], (pair * weight[:, None]).sum(0) / weight.sum(), atol=1e-4)
    finest = (leaves[nearest(samples, leaves)] - samples).square().sum()
    assert finest <= (codes[1] - samples).square().sum()


def test_k_means_leaves_no_code_without_samples() -> None:
    samples = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    centroids, counts = k_means(samples, torch.tensor([[0.0], [100.0], [200.0]]), 10)
    assert counts.tolist() == [2, 2, 2] and sorted(centroids.flatten().tolist()) == pytest.approx([0.05, 5.05, 9.05])
    codes, _ = apart(samples, 1)
    assert codes[1, 0] == pytest.approx(float(samples.mean()))


def test_a_part_with_its_halo_decodes_as_the_whole() -> None:
    model, depth = small(), torch.tensor([3])
    codes = torch.randn(1, SMALL.code_channels, 20, 9)
    halo = SMALL.synthesis_halo
    whole = model.synthesis(codes, depth)
    part = model.synthesis(codes[:, :, 8 - halo : 12 + halo], depth)
    assert torch.allclose(part[:, :, 16 * halo : 16 * (halo + 4)], whole[:, :, 128:192], atol=1e-5)
    narrow = model.synthesis(codes[:, :, 9 : 12 + halo], depth)[:, :, :48]
    assert not torch.allclose(narrow, whole[:, :, 144:192], atol=1e-5)
    x, halo = torch.rand(1, 3, 320, 32), SMALL.analysis_halo
    rows = slice(16 * (8 - halo), 16 * (12 + halo))
    assert torch.allclose(model.analysis(x[:, :, rows])[:, :, halo : halo + 4], model.analysis(x)[:, :, 8:12], atol=1e-5)


def test_it_starts_as_the_photo_model_at_quality_0() -> None:
    torch.manual_seed(1)
    photo = Photo(PhotoConfig(8, 12, 6, 4, 4, (1, 1), (2, 2), 4)).eval().requires_grad_(False)
    for name in ("gain_y", "gain_y_inverse", "gain_enc", "gain_dec"):
        torch.nn.init.normal_(getattr(photo, name), std=0.3)
    model = Vqgan(VqganConfig(8, 12, 6, 4, (1, 1), (3, 2), 4, 2)).eval().requires_grad_(False)  # all of y, a block more
    x, quality = torch.rand(2, 3, 32, 48), torch.zeros(2)
    start_from_photo(model, photo, x)
    e, y = model.analysis(x), photo.analysis(x, quality)
    assert e.mean((0, 2, 3)).abs().max() < 1e-4
    assert torch.allclose(e.square().sum(1), (y - y.mean((0, 2, 3), keepdim=True)).square().sum(1), rtol=1e-3, atol=1e-4)
    assert torch.allclose(model.synthesis(e, torch.tensor([3, 3])), photo.synthesis(y, quality), atol=1e-4)


def test_weights_are_packed_within_a_step_and_damage_is_refused() -> None:
    state = small().state_dict()
    tensors = packed(state)
    assert {t.dtype for t in tensors.values()} == {torch.int8, torch.float16}
    for name, value in unpacked(tensors).items():
        step = value.abs().max() / 127 if value.dim() == 4 else value.abs().max() / 1024
        assert (value - state[name]).abs().max() <= step
    with pytest.raises(ValueError, match="scale"):
        unpacked({name: tensor for name, tensor in tensors.items() if not name.endswith("stem.weight.scale")})
    with pytest.raises(ValueError, match="finite"):
        unpacked(tensors | {"networks.codes": tensors["networks.codes"] * float("nan")})
