"""The integer branches are exact, their bounds are proved, and the passes cover every sample once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from laconic import registry
from laconic.models.exact import ExactConv
from laconic.models.photo import N_PASSES, Photo, pass_masks


def model() -> Photo:
    return registry.load_photo(registry.find("photo"))


def backward_in_float64(self: ExactConv, x: Tensor) -> Tensor:
    """What ExactConv computes, another way: float64, channels summed from the last to the first."""
    weight, bias = (t.double() for t in self.integers())
    x = x.double()
    if self.groups == 1:
        x, weight = x.flip(1), weight.flip(1)
    return F.conv2d(x, weight, bias, padding=self.kernel // 2, groups=self.groups).float()


@torch.no_grad()
def all_rows(network: Photo, quality: int) -> list[Tensor]:
    """Table rows of every pass, for z and symbols drawn at random."""
    generator = torch.Generator().manual_seed(quality)
    z = torch.randint(-40, 41, (1, network.config.hyper_channels, 5, 4), generator=generator).float()
    rows = network.prior(z, quality)
    size = torch.randint(-200, 201, rows.shape, generator=generator)
    symbols = size.float() * (torch.rand(rows.shape, generator=generator) < 0.2)
    return [network.pass_rows(n, rows, symbols) for n in range(N_PASSES)]


@pytest.mark.parametrize("quality", [0, 3_333, 10_000])
def test_rows_are_integers_that_no_order_or_width_changes(quality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    ours = all_rows(network, quality)
    assert all(torch.equal(rows, rows.round()) for rows in ours)
    assert len({rows.sum().item() for rows in ours}) == N_PASSES  # each pass has a context of its own
    monkeypatch.setattr(ExactConv, "forward", backward_in_float64)
    assert all(torch.equal(a, b) for a, b in zip(ours, all_rows(network, quality), strict=True))


def test_bounds_hold() -> None:
    network = model()
    layers = [layer for layer in network.modules() if isinstance(layer, ExactConv)]
    assert len(layers) == 5 + 4 * (N_PASSES - 1)
    for layer in layers:
        weight, _ = layer.integers()
        for sign in (1, -1):  # the input that makes each sum largest
            x = 127.0 * sign * weight.sign()
            worst = (x * weight).flatten(1).sum(1) + sign * layer.integers()[1].abs()
            assert int(worst.abs().max()) == layer.bound()


def test_a_bound_that_is_too_large_is_refused() -> None:
    network = Photo()
    with torch.no_grad():
        network.c_scale[1].enter.bias.fill_(1e6)
    with pytest.raises(ValueError, match=r"c_scale\.1\.enter: found .*, expected less than"):
        network.prove_exact()


@pytest.mark.parametrize("name", ["z_index", "scale_offset", "h_scale.enter.weight", "stem.weight", "c_mean.1.0.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(name: str, value: float) -> None:
    network = Photo()
    with torch.no_grad():
        network.get_parameter(name).view(-1)[3] = value
    with pytest.raises(ValueError, match=f"{name}: found NaN or infinity, expected finite"):
        network.prove_exact()


@pytest.mark.parametrize("name", ["z_index", "scale_offset"])
@pytest.mark.parametrize("value", [1e30, -1e6])
def test_table_rows_that_overflow_are_refused(name: str, value: float) -> None:
    network = Photo()
    with torch.no_grad():
        network.get_parameter(name)[2, 5] = value
    with pytest.raises(ValueError, match=f"{name}: found a table row of .*, expected less than"):
        network.prove_exact()


def test_weights_of_other_types_are_refused() -> None:
    network = Photo()
    weights = {name: weight.half() for name, weight in network.state_dict().items()}
    network.load_weights(weights)
    for dtype in (torch.int8, torch.int64, torch.bool):
        with pytest.raises(ValueError, match=f"stem.weight: found weights of {dtype}, expected floats"):
            network.load_weights({**weights, "stem.weight": weights["stem.weight"].to(dtype)})


def test_a_float_network_would_fail_where_the_integer_branch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same branch with weights that are not integers: another order of summation gives other indices."""
    network = model()
    integers = ExactConv.integers
    monkeypatch.setattr(ExactConv, "integers", lambda self: tuple(t * 1.1 for t in integers(self)))
    monkeypatch.setattr("laconic.models.photo.requantise", lambda x: x.clamp(0, 127 * 64) / 64)
    ours = all_rows(network, 5_000)
    monkeypatch.setattr(ExactConv, "forward", backward_in_float64)
    assert not all(torch.equal(a, b) for a, b in zip(ours, all_rows(network, 5_000), strict=True))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_passes_cover_every_sample_once(channels: int, height: int, width: int) -> None:
    masks = torch.stack(pass_masks(channels, height, width))
    assert (masks.sum(0) == 1).all()
    if channels % 4 == height % 2 == width % 2 == 0:
        assert (masks.flatten(1).sum(1) == channels * height * width // N_PASSES).all()


@torch.no_grad()
def test_halos_are_as_far_as_the_transforms_look() -> None:
    network, quality = model(), torch.tensor([50.0])
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(1, 3, 384, 384, generator=generator), 5 * torch.randn(1, 256, 24, 24, generator=generator)

    def same(whole: Tensor, part: Tensor, scale: int, halo: int) -> bool:
        """Whether a part that begins `halo` samples above and left of the sample (12, 12) gives the whole there on."""
        inside = part[..., halo * scale :, halo * scale :]
        return torch.allclose(inside, whole[..., 12 * scale :, 12 * scale :], atol=1e-5)

    whole, full = network.analysis(x, quality), network.config.analysis_halo
    for halo in (full, 0):
        cut = 16 * (12 - halo)
        assert same(whole, network.analysis(x[..., cut:, cut:], quality), 1, halo) == (halo == full)
    whole, full = network.synthesis(y, quality), network.config.synthesis_halo
    for halo in (full, 0):
        cut = 12 - halo
        assert same(whole, network.synthesis(y[..., cut:, cut:], quality), 16, halo) == (halo == full)
