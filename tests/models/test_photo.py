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
