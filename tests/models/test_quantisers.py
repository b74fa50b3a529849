"""Quantisers: probabilities add up, gradients pass, codebooks follow, and the referee finds the same codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.models import quantisers
from laconic.models.quantisers import FiniteScalars, LatentQuantiser, QuantisedSound, ResidualVectors, stages_used
from laconic.models.sound import Sound, SoundConfig, coded

SMALL = SoundConfig(
    bands=6, coded_bins=20, channels=12, hidden_channels=24, blocks=2, kernel=5, look_ahead=1, prior_channels=16
)
SCALARS = [LatentQuantiser(3), FiniteScalars()]


def numbers(*size: int, scale: float = 1.0, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)) * scale


def small_vectors(codes: int = 32, stages: int = 4) -> ResidualVectors:
    torch.manual_seed(1)
    found = ResidualVectors(20, stages, codes, 4)
    found.start(numbers(2000, 20) * torch.linspace(2, 0.2, 20))
    return found


def small_sound(name: str) -> QuantisedSound:
    torch.manual_seed(1)
    model = QuantisedSound(SMALL, name)
    model.start(numbers(16, 20 * 256, scale=0.1))
    if name == "rvq":
        model.shape_quantiser = ResidualVectors(20, 4, 32, 4)
    model.start_codebooks(numbers(16, 20 * 256, scale=0.1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def test_latent_values_begin_as_uniform_scalars() -> None:
    target, mean, log_scale = numbers(2, 9, 3, scale=4), numbers(2, 9, 3, seed=2).mul(16).round() / 16, numbers(2, 9, 3, seed=3)
    value, bits = LatentQuantiser(3)(target, mean, log_scale)
    plain, plain_bits = coded(target, mean, log_scale)
    assert torch.allclose(value, plain, atol=1e-5) and torch.allclose(bits, plain_bits, atol=1e-3)


def test_finite_scalars_are_uniform_around_zero_and_bounded() -> None:
    quantise, zero = FiniteScalars(), torch.zeros(1, 1, 1)
    for target, expected in ((0.3, 0), (0.9, 1), (-1.1, -1), (1e6, 30), (-1e6, -30)):
        value, _ = quantise(zero + target, zero, zero)
        assert value.item() == pytest.approx(expected, abs=1.5 if abs(expected) > 1 else 0.01)
    steps = quantise(torch.linspace(-99, 99, 9999)[:, None, None], zero, zero)[0]
    assert len(steps.unique()) == quantisers.FINITE_LEVELS


@pytest.mark.parametrize("quantise", SCALARS, ids=["latent", "fsq"])
@pytest.mark.parametrize("log_scale", [-2.0, 0.0, 3.0])
def test_probabilities_of_scalars_add_up(quantise: Any, log_scale: float) -> None:
    if isinstance(quantise, LatentQuantiser):
        quantise = LatentQuantiser(1)
        with torch.no_grad():
            quantise.codebook.mul_(1.7).add_(torch.linspace(-1, 1, quantisers.LEVELS) ** 3)
    grid = torch.linspace(-80, 80, 20001)[:, None, None]
    value, bits = quantise(grid, torch.full_like(grid, 0.37), torch.full_like(grid, log_scale))
    first = torch.cat([torch.ones(1, dtype=torch.bool), (value[1:] != value[:-1]).flatten()])
    assert torch.exp2(-bits[first]).sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("quantise", SCALARS, ids=["latent", "fsq"])
def test_gradients_of_scalars_pass_straight_through(quantise: Any) -> None:
    target = numbers(1, 5, 3, scale=3).requires_grad_()
    value, bits = quantise(target, torch.zeros(1, 5, 3), torch.zeros(1, 5, 3))
    assert torch.equal(torch.autograd.grad(value.sum(), target, retain_graph=True)[0], torch.ones(1, 5, 3))
    slope = torch.autograd.grad(bits.sum(), target)[0]
    far = target.detach().abs() > 0.6
    assert (slope * target.detach().sign() > 0)[far].all(), "nearer to the mean is cheaper"


def test_latent_values_move_to_what_takes_them() -> None:
    quantise = LatentQuantiser(1)
    target = torch.full((1, 50, 1), 2.3)
    optimiser = torch.optim.SGD([quantise.codebook], 1.0)
    for _ in range(600):
        optimiser.zero_grad()
        quantise(target, torch.zeros_like(target), torch.zeros_like(target))
        quantise.penalty.backward()
        optimiser.step()
    assert (quantise.codebook - 2.3).abs().min() < 0.01
    assert torch.equal(quantise.codebook[0, :5], torch.arange(5) - 16.0), "those that nothing takes stay"


def test_probabilities_of_vectors_add_up() -> None:
    vectors = small_vectors()
    torch.nn.init.normal_(vectors.bias)
    index = torch.arange(32)[:, None]
    share = torch.linspace(2, 0.1, 20).expand(32, 1, 20)
    assert torch.exp2(-vectors.bits(2, index, share)).sum().item() == pytest.approx(1, abs=1e-4)


def test_expected_directions_are_cheap() -> None:
    vectors = small_vectors()
    code = vectors.codebook[0].abs().argmax() // 4
    dimension = vectors.codebook[0, code].abs().argmax()
    narrow = torch.full((1, 1, 20), 1e-3) + vectors.inner[0, dimension].square()
    index = code.view(1, 1)
    assert vectors.bits(0, index, narrow).item() < vectors.bits(0, index, torch.ones(1, 1, 20)).item()


def test_more_stages_are_nearer_and_dearer() -> None:
    vectors = small_vectors().eval()
    target = numbers(1, 400, 20, seed=5) * torch.linspace(2, 0.2, 20)
    log_scale = torch.log(torch.linspace(2, 0.2, 20)).expand(1, 400, 20)
    mean = torch.zeros_like(target)
    errors, rates = [], []
    for quality in (0.0, 0.25, 0.6, 1.0):
        value, bits = vectors(target, mean, log_scale, torch.tensor([quality]))
        errors.append((value - target).square().mean().item())
        rates.append(bits.sum().item())
    assert errors == sorted(errors, reverse=True) and rates == sorted(rates) and rates[0] == 0
    assert errors[0] == pytest.approx(target.square().mean().item()) and errors[-1] < 0.5 * errors[0]


def test_stages_are_shared_out_over_frames() -> None:
    used = stages_used(torch.tensor([0.0, 0.31, 1.0]), 1000, 16)
    assert used[0].max() == 0 and used[2].min() == 16
    assert used[1].mean().item() == pytest.approx(0.31 * 16, abs=0.01) and set(used[1].tolist()) == {4.0, 5.0}


def test_gradients_of_vectors_pass_and_the_codebook_has_none() -> None:
    vectors = small_vectors().eval()
    target, mean = numbers(2, 9, 20).requires_grad_(), torch.zeros(2, 9, 20)
    value, bits = vectors(target, mean, mean, torch.ones(2))
    (value.square().sum() + bits.sum() + vectors.penalty).backward()
    assert target.grad is not None and target.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vectors.parameters())
    assert "codebook" not in dict(vectors.named_parameters())


def test_codes_follow_their_vectors_and_the_unused_are_drawn_again() -> None:
    vectors = small_vectors()
    centre = F.normalize(torch.tensor([1.0, 2, -1, 0.5]), dim=0)
    for seed in range(800):
        around = F.normalize(centre + numbers(64, 4, scale=0.05, seed=seed), dim=1)
        vectors.follow(1, around, torch.full((64,), 7))
    assert torch.allclose(vectors.codebook[1, 7], centre, atol=0.02)
    assert torch.allclose(vectors.codebook[1].norm(dim=1), torch.ones(32), atol=1e-5)
    assert ((vectors.codebook[1] @ centre) > 0.9).all(), "all others were lost and drawn from the batch"


def test_only_training_moves_codes() -> None:
    vectors = small_vectors().eval()
    before = vectors.codebook.clone()
    vectors(numbers(2, 9, 20), torch.zeros(2, 9, 20), torch.zeros(2, 9, 20), torch.ones(2))
    assert torch.equal(vectors.codebook, before)
    vectors.train()(numbers(2, 9, 20), torch.zeros(2, 9, 20), torch.zeros(2, 9, 20), torch.ones(2))
    assert not torch.equal(vectors.codebook, before)


def test_codes_and_their_average_are_those_of_the_referee(monkeypatch: pytest.MonkeyPatch) -> None:
    referee = pytest.importorskip("vector_quantize_pytorch")
    ours = small_vectors()
    ours.sizes[0] = numbers(32).abs() * 20 + 5
    ours.sums[0] = ours.codebook[0] * ours.sizes[0][:, None]
    theirs = referee.VectorQuantize(
        dim=4, codebook_size=32, use_cosine_sim=True, decay=quantisers.EMA, threshold_ema_dead_code=0
    )
    book = theirs._codebook
    book.embed.data.copy_(ours.codebook[:1])
    book.cluster_size.data.copy_(ours.sizes[:1])
    book.embed_avg.data.copy_(ours.sums[:1])
    directions = F.normalize(numbers(300, 4, seed=9), dim=1)
    index = ours.nearest(0, directions)
    _, expected, _ = theirs.train()(directions[None])
    assert torch.equal(index, expected[0])
    monkeypatch.setattr(quantisers, "UNUSED", 0.0)
    ours.follow(0, directions, index)
    assert torch.allclose(ours.sizes[0], book.cluster_size[0], atol=1e-4)
    assert torch.allclose(ours.codebook[0], book.embed[0], atol=1e-4)


@pytest.mark.parametrize("name", quantisers.NAMES[1:])
def test_gradients_reach_every_parameter(name: str) -> None:
    model = small_sound(name).train()
    x = numbers(4, 24 * 256, scale=0.2, seed=4)
    y, envelope_bits, shape_bits = model(x, torch.tensor([0.3, 0.6, 0.8, 1.0]))
    ((x - y).square().sum() + 1e-3 * (envelope_bits + shape_bits).sum() + model.penalty()).backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert silent == set()


def test_names_are_those_of_quantisers() -> None:
    kinds = [type(quantisers.quantiser(name, 20)) for name in quantisers.NAMES[1:]]
    assert kinds == [LatentQuantiser, FiniteScalars, ResidualVectors]


def test_without_a_quantiser_of_its_own_the_model_is_as_it_was() -> None:
    torch.manual_seed(1)
    plain = Sound(SMALL)
    plain.start(numbers(16, 20 * 256, scale=0.1))
    other = QuantisedSound(SMALL, "latent")
    assert other.load_state_dict(plain.state_dict(), strict=False).missing_keys == [
        "shape_quantiser.codebook",
        "envelope_quantiser.codebook",
    ]
    x, quality = numbers(1, 24 * 256, scale=0.1), torch.tensor([0.0])
    for found, expected in zip(other.eval().quantise(x, quality, 3), plain.eval().quantise(x, quality, 3), strict=True):
        assert ((found - expected).abs() > 1e-3).float().mean() < 0.01, "but for ties"
