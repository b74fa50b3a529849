"""Rounding with a gradient, for training and for the encoders' searches (Agustsson and Theis 2020, "Universally quantized
neural compression")."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def soft_round(x: Tensor, hardness: float) -> Tensor:
    """Return a staircase through the integers: nearly x at a high temperature, nearly round(x) at a low one.

    hardness: the temperature, above 0, in steps.
    """
    middle = x.detach().floor() + 0.5
    return middle + torch.tanh((x - middle) / hardness) / (2 * math.tanh(0.5 / hardness))


def between(ends: tuple[float, float], progress: float) -> float:
    """Return the temperature at a progress in 0..1 from the first end to the last: their weighted geometric mean."""
    return float(ends[0] * (ends[1] / ends[0]) ** progress)
