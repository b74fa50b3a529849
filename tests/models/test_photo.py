"""The integer branch is exact, and its bound is proved."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from laconic import registry
from laconic.models.photo import Photo


def model() -> Photo:
    return registry.load_photo(registry.find("photo-1").path, "cpu")


def test_indices_are_exact_in_any_order_and_width() -> None:
    network = model()
    for layer in (network.h_scale.enter, network.h_scale.dw1, network.h_scale.leave):
        x = torch.randint(-127, 128, (1, layer.weight.shape[1] * layer.groups, 9, 9)).float()
        weight, bias = (t.double() for t in layer.integers())
        wide = F.conv2d(x.double(), weight, bias, padding=layer.kernel // 2, groups=layer.groups)
        assert torch.equal(layer(x).double(), wide)
        assert layer.bound() >= int(wide.abs().max())


def test_a_bound_that_is_too_large_is_refused() -> None:
    network = Photo()
    with torch.no_grad():
        network.h_scale.enter.bias.fill_(1e6)
    with pytest.raises(ValueError, match="expected less than"):
        network.prove_exact()


def test_a_float_network_would_fail_where_the_integer_branch_does_not() -> None:
    """The same convolutions with float weights, summed in another order: some indices differ. Ours do not."""
    network = model()
    generator = torch.Generator().manual_seed(1)
    z = torch.randint(-6, 7, (1, network.config.hyper_channels, 24, 24), generator=generator).float()
    order = torch.randperm(z.shape[1], generator=generator)
    layer = network.h_scale.enter
    weight, _ = layer.integers()
    exact = F.conv2d(z, weight), F.conv2d(z[:, order], weight[:, order])
    assert torch.equal(*exact)
    real = layer.weight * 1.1  # no longer integers
    floats = F.conv2d(z, real), F.conv2d(z[:, order], real[:, order])
    assert not torch.equal(*floats)
