"""ISCS: what a linear codec's channels are worth is known, permutations change nothing, groups cover every channel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from laconic.entropy.errors import BadInput
from laconic.models import iscs
from laconic.models.iscs import Neighbours, PhotoLatents
from laconic.models.photo import N_PASSES, Photo, PhotoConfig

SIZES = PhotoConfig(8, 12, 16, 8, 8, encoder_blocks=(1, 1), decoder_blocks=(1, 1), anchors=4)


class Linear:
    """Is a codec of blocks: each sample of y adds its channel's block of 4 x 4 pixels, so all is known in closed form."""

    reach = 1

    def __init__(self, blocks: Tensor, scales: Tensor) -> None:
        self.blocks, self.scales, self.n_channels = blocks, scales, len(blocks)

    def decode(self, y_hat: Tensor) -> Tensor:
        return torch.nn.functional.conv_transpose2d(y_hat, self.blocks, stride=4)

    def energy(self, seed: int) -> Tensor:
        return iscs.rounded_energy(self.scales)[None]

    def neighbours(self) -> Neighbours:
        return Neighbours(self.blocks.flatten(1), self.scales, self.blocks.flatten(1))


@st.composite
def codecs(draw: st.DrawFn) -> Linear:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    n = draw(st.integers(1, 40))
    sizes = torch.randn(n, 1, 1, 1, generator=generator).exp()
    blocks = torch.randn(n, 3, 4, 4, generator=generator) * sizes
    return Linear(blocks, torch.randn(n, generator=generator).exp())


def photo(seed: int = 0) -> Photo:
    """A small network in which no layer is zero, its gains and rows within bounds."""
    torch.manual_seed(seed)
    model = Photo(SIZES)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith(("scale_offset", "z_index")):
                weight.add_(0.2 * torch.randn_like(weight))
    model.to_y.weight.data.mul_(20)
    return model.eval().requires_grad_(False)


def shuffled(seed: int, step: int = 1) -> Tensor:
    """An order of the small network's channels; each keeps its number modulo `step`."""
    generator = torch.Generator().manual_seed(seed)
    order, n = torch.arange(SIZES.latent_channels), SIZES.latent_channels // step
    for first in range(step):
        order[first::step] = order[first::step][torch.randperm(n, generator=generator)]
    return order


@settings(max_examples=50, deadline=None)  # a first decode loads torch's rules of derivatives
@given(codecs())
def test_the_importance_of_a_linear_codec_is_what_its_channels_are_worth(codec: Linear) -> None:
    found = iscs.analyse(codec)
    y_hat = (torch.randn(1, codec.n_channels, 5, 7) * codec.scales[:, None, None]).round()
    picture, worth = codec.decode(y_hat), iscs.decoder_energy(codec)
    assert torch.allclose(worth, codec.blocks.double().square().flatten(1).sum(1), rtol=1e-5)
    for channel in range(codec.n_channels):
        without = y_hat.clone()
        without[:, channel] = 0
        lost = (picture - codec.decode(without)).double().square().sum()
        assert float(lost) == pytest.approx(float(worth[channel] * y_hat[:, channel].double().square().sum()), rel=1e-3)
    assert torch.allclose(found.importance, worth * iscs.rounded_energy(codec.scales))
    ordered = found.importance[found.order]
    assert bool((ordered[1:] <= ordered[:-1] * 2 ** (1.01 / iscs.UNITS)).all())


@settings(max_examples=50, deadline=None)
@given(codecs(), st.integers(0, 1 << 20))
def test_the_importance_goes_along_with_a_permutation(codec: Linear, seed: int) -> None:
    order = torch.randperm(codec.n_channels, generator=torch.Generator().manual_seed(seed))
    first = iscs.analyse(codec)
    other = iscs.analyse(Linear(codec.blocks[order], codec.scales[order]))
    assert torch.equal(other.importance, first.importance[order])
    steps = (first.importance.log2() * iscs.UNITS).round()
    assert torch.equal(steps[first.order], steps[order[other.order]])  # the same channels, but for the order of equals


def test_equals_stand_in_the_order_of_their_numbers() -> None:
    assert iscs.order_of(torch.tensor([1.0, 8.0, 1.0 + 1e-9, 8.0, 0.0])).tolist() == [1, 3, 0, 2, 4]


@settings(max_examples=50, deadline=None)
@given(codecs(), st.integers(1, 9))
def test_the_sets_and_slices_cover_every_channel_once(codec: Linear, n: int) -> None:
    found = iscs.analyse(codec, n_slices=n)
    channels = list(range(codec.n_channels))
    assert sorted(found.core.tolist() + found.auxiliary.tolist()) == channels
    share = found.importance[found.core].sum() / found.importance.sum()
    before = found.importance[found.core[:-1]].sum() / found.importance.sum()
    assert before < iscs.CORE_SHARE <= share + 1e-12
    sizes = found.slices.bincount(minlength=n)
    assert len(sizes) == n and int(sizes.max() - sizes.min()) <= 1
    partners = iscs.partners(found)
    assert set(partners.tolist()) <= set(found.core.tolist())
    assert torch.equal(partners[found.core], found.core)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 9))
def test_slices_are_balanced(values: list[float], n: int) -> None:
    falling = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    sums = torch.zeros(n, dtype=torch.float64).index_add_(0, iscs.slices(torch.arange(len(values)), n), falling)
    assert float(sums.max() - sums.min()) <= float(falling[0]) * (1 + 1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_slices_go_forth_and_back(n: int) -> None:
    order = torch.randperm(6 * n, generator=torch.Generator().manual_seed(n))
    found = iscs.slices(order, n)[order].view(6, n)
    assert found[0].tolist() == list(range(n)) and torch.equal(found[1], found[0].flip(0))
    assert torch.equal(found[2:4], found[:2]) and torch.equal(found[4:], found[:2])


def test_no_slice_is_an_error() -> None:
    with pytest.raises(BadInput, match="slices: found 0"):
        iscs.slices(torch.arange(4), 0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 40))
def test_the_energy_of_a_rounded_gaussian(scale: float) -> None:
    def below(x: float) -> float:
        return 0.5 * math.erfc(-x / (scale * math.sqrt(2)))

    expected = sum(k * k * (below(k + 0.5) - below(k - 0.5)) for k in range(-600, 601))
    assert float(iscs.rounded_energy(torch.tensor(scale))) == pytest.approx(expected, rel=1e-5, abs=2e-8)


def test_channels_that_are_large_together_are_correlated() -> None:
    size = torch.tensor([1.0, 4.0, 2.0, 64.0]).double()
    found = iscs.correlation(torch.stack([size, 9 * size, 1 / size, torch.full_like(size, 0.3)], 1))
    expected = [[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 1]]
    assert torch.allclose(found, torch.tensor(expected).double())


def test_the_literal_reading() -> None:
    weights = torch.tensor([[1.0, -1, 1, -1], [3, 3, -3, -3], [0.1, 0.1, 0.1, 0.1]])
    near = Neighbours(encoder=weights.flip(0), bias=torch.tensor([0.5, 0.5, 0.5]), decoder=weights)
    assert iscs.literal(near, "decoder").argsort(descending=True).tolist() == [1, 0, 2]
    assert iscs.literal(near, "encoder").argsort(descending=True).tolist() == [1, 2, 0]
    biased = Neighbours(weights[:1].repeat(3, 1), torch.tensor([0.1, -0.9, 0.2]), weights)
    assert iscs.literal(biased, "encoder").argsort(descending=True).tolist() == [1, 2, 0]


def test_one_seed_gives_one_order() -> None:
    latents = PhotoLatents(photo())
    first, again, other = iscs.analyse(latents, 3), iscs.analyse(latents, 3), iscs.analyse(latents, 4)
    assert torch.equal(first.importance, again.importance) and torch.equal(first.order, again.order)
    assert torch.equal(first.correlation, again.correlation) and torch.equal(first.slices, again.slices)
    assert not torch.equal(first.importance, other.importance)


def test_the_decoder_spreads_no_farther_than_is_looked_at() -> None:
    latents = PhotoLatents(photo())
    wide = PhotoLatents(photo())
    wide.reach += 3
    assert torch.allclose(iscs.decoder_energy(latents), iscs.decoder_energy(wide), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_importance_of_a_photo_model_goes_along_with_a_permutation(seed: int) -> None:
    """Exactly so far as draws allow: the context of a channel sees other symbols of its neighbours."""
    model, order = photo(seed), shuffled(seed, N_PASSES)
    one, two = PhotoLatents(model), PhotoLatents(iscs.permuted(model, order))
    assert torch.allclose(iscs.decoder_energy(two), iscs.decoder_energy(one)[order], rtol=1e-4)
    first, second = iscs.analyse(one).importance[order].log2(), iscs.analyse(two).importance.log2()
    assert float((first - second).abs().max()) < 0.3 < float(first.max() - first.min()) / 4


@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_model_makes_the_same_picture(seed: int) -> None:
    """Whatever the order; analysis gives the permuted y, and the prior before context goes along."""
    model, order, quality = photo(seed), shuffled(seed), torch.tensor([60.0])
    new, x = iscs.permuted(model, order), torch.rand(1, 3, 64, 128)
    y = model.analysis(x, quality)
    assert torch.allclose(new.analysis(x, quality), y[:, order], atol=1e-4)
    assert torch.allclose(new.synthesis(y[:, order], quality), model.synthesis(y, quality), atol=1e-4)
    assert torch.allclose(new.hyper(y[:, order]), model.hyper(y), atol=1e-4)
    z = model.hyper(y).round()
    assert torch.equal(new.prior(z, 6000), model.prior(z, 6000)[:, order])
    assert torch.allclose(new.mean(z), model.mean(z)[:, order], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_model_codes_alike_where_channels_keep_their_pass(seed: int) -> None:
    model, quality, x = photo(seed), torch.tensor([60.0]), torch.rand(1, 3, 64, 128)
    picture, bits_y, bits_z = model(x, quality)
    kept = iscs.permuted(model, shuffled(seed, N_PASSES))(x, quality)
    assert torch.allclose(kept[0], picture, atol=2e-2) and torch.allclose(kept[2], bits_z)
    assert torch.allclose(kept[1], bits_y, rtol=2e-3)
    moved = iscs.permuted(model, shuffled(seed))(x, quality)
    assert not torch.allclose(moved[1], bits_y, rtol=5e-3) and torch.allclose(moved[2], bits_z)


def test_an_order_names_each_channel_once() -> None:
    with pytest.raises(BadInput, match="order: found"):
        iscs.permuted(photo(), torch.zeros(SIZES.latent_channels, dtype=torch.int64))
