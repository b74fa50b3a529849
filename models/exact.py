"""Integer layers whose sums are exact in float32, so that every machine computes the same indices.

Weights are integers in -127..127, activations integers in -127..127, and a bound on every sum is proved below 2**24
when a model is loaded: float32 then adds without rounding in any order, whatever the device, the thread count or the
instruction set. Requantisation divides by a power of two and floors, which is exact as well. Training sees the same
arithmetic with straight-through gradients. After Balle et al. 2019, "Integer networks for data compression".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXACT_LIMIT = 1 << 24  # float32 holds every integer up to here
ACTIVATION_MAX = 127
WEIGHT_MAX = 127
WEIGHT_STEP = 1 / 64  # one unit of an integer weight
SHIFT = 6  # log2 of 1 / WEIGHT_STEP: a sum goes back to the unit of the activations
ACTIVATION_STEP = 1 / 16  # one unit of an activation, in the real units of training
BIAS_STEP = WEIGHT_STEP * ACTIVATION_STEP  # one unit of a sum, and so of a bias


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest integer; the gradient passes straight through."""
    return x + (x.round() - x).detach()


def floor_ste(x: Tensor) -> Tensor:
    """Round down; the gradient passes straight through."""
    return x + (x.floor() - x).detach()


class ExactConv(nn.Module):
    """Convolves integers held in float32: integers [N, in, H, W] -> integer sums [N, out, H, W].

    `weight` and `bias` are trained in real units. `integers()` is what is computed with, and what a file depends on.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        fan_in = n_in // groups * kernel * kernel
        self.weight = nn.Parameter(torch.randn(n_out, n_in // groups, kernel, kernel) * (1.4 / fan_in**0.5))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.groups = groups
        self.kernel = kernel

    def integers(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias as integers in float32; gradients pass straight through the rounding."""
        weight = round_ste(self.weight / WEIGHT_STEP).clamp(-WEIGHT_MAX, WEIGHT_MAX)
        return weight, round_ste(self.bias / BIAS_STEP)

    def bound(self) -> int:
        """Return the largest absolute sum that any input in -127..127 can reach, partial sums included."""
        weight, bias = self.integers()
        per_output = weight.double().abs().flatten(1).sum(1) * ACTIVATION_MAX + bias.double().abs()
        return int(per_output.max().item())

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums, integers of at most `bound()` in float32. x: integers in -127..127, as float32."""
        weight, bias = self.integers()
        if x.is_cuda and not self.training:  # tensor cores may round float32 (TF32)
            x, weight, bias = x.double(), weight.double(), bias.double()
        return F.conv2d(x, weight, bias, padding=self.kernel // 2, groups=self.groups).float()


def requantise(x: Tensor) -> Tensor:
    """Turn sums into activations 0..127: divide by 2**SHIFT, floor and clamp, which is a ReLU as well."""
    if not torch.is_grad_enabled():
        return (x * 2.0**-SHIFT).floor_().clamp_(0, ACTIVATION_MAX)
    return floor_ste(x * 2.0**-SHIFT).clamp(0, ACTIVATION_MAX)


def interpolate(anchors: Tensor, position: int, span: int) -> Tensor:
    """Interpolate linearly between the rows of a table, in integers.

    anchors: int64 [K, C]. position: 0 .. (K - 1) * span. Returns int64 [C], floored.
    """
    row, rest = divmod(position, span)
    upper = anchors[min(row + 1, len(anchors) - 1)]
    return torch.div(anchors[row] * (span - rest) + upper * rest, span, rounding_mode="floor")
