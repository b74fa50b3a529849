"""How different two pictures look: float [1, 3, H, W] pairs -> a number that the encoder's search descends.

`EyeDistance` stands in for SSIMULACRA 2.1 (Sneyers 2023, github.com/cloudinary/ssimulacra2): its colour space, scales and
maps, with plain weights in place of its 108 trained ones, and without what has no gradient. `MsSsimDistance` is one less
the multi-scale SSIM of Wang, Simoncelli and Bovik (2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from laconic.entropy.threads import each

# The opsin of JPEG XL: linear light to the responses of cones, the bias before their cube root.
OPSIN = ((0.30, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342268924547819, 0.20476744424496821, 0.5518098665095536))
OPSIN_BIAS = 0.0037930732552754493
XYB_SCALE, XYB_OFFSET = (14.0, 1.0, 1.0), (0.42, 0.01, 0.55)  # of SSIMULACRA2, which make all three positive
PLANES = (0.6, 1.0, 0.4)  # weights of X, Y and B
STRUCTURE_NORM, EDGE, EDGE_NORM = 0.5, 4.0, 1.0  # weights beside that of the mean structure difference, 1
SCALES = 6
LEAST_SIDE = 12  # pixels that a scale has at least
RADIUS, DEVIATION = 5, 1.5  # of the window, in pixels
STABLE = 0.0009  # SSIM's constant against division by 0
SSIM_STABLE = (0.01**2, 0.03**2)  # of luminance and of contrast, for values in 0..1
MS_SSIM_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # by scale
LEAST = 1e-6  # below, powers are taken of this: their gradients would be infinite at 0

Maps = tuple[Tensor, Tensor, Tensor]  # planes of a scale, their local means and mean squares


class EyeDistance:
    """Measures how different pictures look from one original: 0 for the same picture, 0.1 to 1 at usual qualities."""

    def __init__(self, original: Tensor) -> None:
        """Take the original, float [1, 3, H, W] in 0..1 as sRGB."""
        with torch.no_grad():
            self.originals = [scale_of(planes) for planes in xyb_scales(original)]

    def __call__(self, other: Tensor) -> Tensor:
        """Return the distance of a picture of the same shape; it has a gradient."""
        distance: Tensor = ScaleDistances.apply(self.originals, *xyb_scales(other))  # type: ignore[no-untyped-call]
        return distance


@dataclass(frozen=True)
class Scale:
    """Holds what is known of the original at one scale, each [1, 3, H, W].

    planes: X, Y and B. mean: their local means. variance: their local variances, and STABLE. flatness: 1 / (1 + |edge|).
    """

    planes: Tensor
    mean: Tensor
    variance: Tensor
    flatness: Tensor


def scale_of(planes: Tensor) -> Scale:
    """Return what is known of an original's planes."""
    blur = blurred if planes.is_cuda else blurred_compiled
    mean, square = blur(torch.cat([planes, planes.square()], 1)).chunk(2, 1)
    return Scale(planes, mean, square - mean.square() + STABLE, 1 / (1 + (planes - mean).abs()))


class ScaleDistances(torch.autograd.Function):
    """Computes the distance of planes from an original's, summed over scales, and its gradient with it, by hand."""

    @staticmethod
    def forward(ctx: Any, originals: list[Scale], *planes: Tensor) -> Tensor:
        compute = scales_plain if planes[0].is_cuda else scales_compiled
        distance, gradients = compute(planes, originals, any(ctx.needs_input_grad[1:]))
        ctx.save_for_backward(*gradients)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_distance: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(by_distance * gradient for gradient in ctx.saved_tensors)


def scales_compiled(
    planes: Sequence[Tensor], originals: Sequence[Scale], with_gradient: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return what `scales_plain` does, by a kernel, the planes shared among threads."""
    from laconic.models.visual_kernel import plane_kernel

    kernel: Any = plane_kernel
    pools = np.array([1.0, STRUCTURE_NORM, EDGE, EDGE_NORM], np.float32)
    gradients = [torch.empty(one.shape if with_gradient else (1, 3, 0, 0)) for one in planes]

    def distance(scale: int, plane: int) -> float:
        known = originals[scale]
        parts = (planes[scale].detach(), known.planes, known.mean, known.variance, known.flatness)
        arrays = [one[0, plane].contiguous().numpy() for one in parts]
        weight, out = np.float32(PLANES[plane]), gradients[scale][0, plane].numpy()
        found = kernel(*arrays, gaussian().numpy(), *inverse_ends(planes[scale]), weight, pools, np.float32(STABLE), LEAST, out)
        return float(found)

    def work(job: list[tuple[int, int]]) -> float:
        with torch.inference_mode():
            return sum(distance(*one) for one in job)

    finest = [[(0, plane)] for plane in range(3)]  # as much as all planes of the coarser scales together, each of them
    coarser = [(scale, plane) for scale in range(1, len(planes)) for plane in range(3)]
    return planes[0].new_tensor(sum(each(work, [*finest, coarser], None))), gradients if with_gradient else []


def scales_plain(planes: Sequence[Tensor], originals: Sequence[Scale], with_gradient: bool) -> tuple[Tensor, list[Tensor]]:
    """Return the sum of the distances of planes from an original's, and where asked for the gradients."""
    found = [scale_plain(one, original, with_gradient) for one, original in zip(planes, originals, strict=True)]
    return torch.stack([one for one, _ in found]).sum(), [one for _, one in found if one is not None]


def scale_plain(planes: Tensor, original: Scale, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Return the distance of planes, float [1, 3, H, W], from an original's, and where asked for its gradient."""
    mean, square, product = blurred(torch.cat([planes, planes.square(), planes * original.planes], 1)).chunk(3, 1)
    shift = original.mean - mean
    inverse = 1 / (original.variance + square - mean.square())
    likeness = (2 * (product - original.mean * mean) + STABLE) * inverse
    light = 1 - shift.square()
    structure = (1 - light * likeness).clamp(min=0)
    detail = planes - mean
    edge = (1 + detail.abs()) * original.flatness - 1
    of_structure, slope = pooled(structure, 1.0, STRUCTURE_NORM)
    of_edges, by_edge = pooled(edge.abs(), EDGE, EDGE_NORM)
    if not with_gradient:
        return of_structure + of_edges, None
    by_structure = slope * (structure > 0)
    by_variance = by_structure * light * inverse
    by_square = by_variance * likeness
    by_mean = 2 * (by_variance * original.mean - by_square * mean - by_structure * likeness * shift)
    by_planes = by_edge * edge.sign() * detail.sign() * original.flatness
    by_blurred = torch.cat([by_mean - by_planes, by_square, -2 * by_variance], 1)
    of_mean, of_square, of_product = blurred_backward(by_blurred).chunk(3, 1)
    return of_structure + of_edges, by_planes + of_mean + 2 * planes * of_square + original.planes * of_product


def pooled(values: Tensor, mean_weight: float, norm_weight: float) -> tuple[Tensor, Tensor]:
    """Return mean and 4-norm of maps, [1, 3, H, W] of 0 or more, weighed and summed over the planes, and the gradient.

    The 4-norm counts what is bad in few places for more than the mean does.
    """
    weights = values.new_tensor(PLANES)[:, None, None] / (values.shape[2] * values.shape[3])
    cube = values.square() * values
    fourth = (cube * values).mean((2, 3), keepdim=True).clamp(min=LEAST**4).sqrt().sqrt()
    total = (weights * (mean_weight * values.sum((2, 3), keepdim=True))).sum()
    total = total + norm_weight * (values.new_tensor(PLANES) * fourth.flatten()).sum()
    slope = (weights * mean_weight) + cube * (weights * norm_weight / (fourth.square() * fourth))
    return total, slope


class MsSsimDistance:
    """Measures one less the MS-SSIM of pictures against one original, with the scales that its size allows."""

    def __init__(self, original: Tensor) -> None:
        """Take the original, float [1, 3, H, W] in 0..1."""
        with torch.no_grad():
            self.original = [with_means(planes) for planes in halved(original, len(MS_SSIM_POWERS))]

    def __call__(self, other: Tensor) -> Tensor:
        """Return the distance of a picture of the same shape; it has a gradient."""
        similar = other.new_ones(())
        scales = halved(other, len(MS_SSIM_POWERS))
        powers = torch.tensor(MS_SSIM_POWERS[: len(scales)]) / sum(MS_SSIM_POWERS[: len(scales)])
        for i, (mine, planes) in enumerate(zip(self.original, scales, strict=True)):
            a, mean_a, square_a = mine
            b, mean_b, square_b = with_means(planes)
            variance = square_a - mean_a.square() + square_b - mean_b.square() + SSIM_STABLE[1]
            index = (2 * (blurred(a * b) - mean_a * mean_b) + SSIM_STABLE[1]) / variance
            if i == len(scales) - 1:
                light = (2 * mean_a * mean_b + SSIM_STABLE[0]) / (mean_a.square() + mean_b.square() + SSIM_STABLE[0])
                index = index * light
            similar = similar * index.mean((0, 2, 3)).clamp(min=LEAST).pow(float(powers[i]))
        return 1 - similar.mean()


def xyb_scales(srgb: Tensor) -> list[Tensor]:
    """Return a picture's planes X, Y and B at each scale, halved in linear light."""
    light = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055).clamp(min=LEAST) ** 2.4)
    return [xyb(one) for one in halved(light, SCALES)]


def halved(picture: Tensor, n: int) -> list[Tensor]:
    """Return a picture at up to n scales, each of half the sides of the one before; the first one always."""
    scales = [picture]
    while len(scales) < n and min(scales[-1].shape[2:]) >= 2 * LEAST_SIDE:
        scales.append(F.avg_pool2d(scales[-1], 2))
    return scales


def xyb(light: Tensor) -> Tensor:
    """Return linear light, float [1, 3, H, W], as X, Y and B, made positive."""
    cones = F.conv2d(light, light.new_tensor(OPSIN)[:, :, None, None]) + OPSIN_BIAS
    long, medium, short = (cones.clamp(min=LEAST) ** (1 / 3) - OPSIN_BIAS ** (1 / 3)).unbind(1)
    x, y = (long - medium) / 2, (long + medium) / 2
    (x_scale, y_scale, b_scale), (x_offset, y_offset, b_offset) = XYB_SCALE, XYB_OFFSET
    return torch.stack([x * x_scale + x_offset, y * y_scale + y_offset, (short - y) * b_scale + b_offset], 1)


def with_means(planes: Tensor) -> Maps:
    """Return planes with their local means and mean squares."""
    mean, square = blurred(torch.cat([planes, planes.square()], 1)).chunk(2, 1)
    return planes, mean, square


def blurred(planes: Tensor) -> Tensor:
    """Return planes, float [1, C, H, W], averaged by a Gaussian window; at the borders by what of it lies inside."""
    return window_sums(planes) / coverage(planes.shape[2], planes.shape[3], planes.device)


def blurred_backward(gradient: Tensor) -> Tensor:
    """Return the gradient before `blurred` of one after it: the window is symmetric."""
    return window_sums(gradient / coverage(gradient.shape[2], gradient.shape[3], gradient.device))


def window_sums(planes: Tensor) -> Tensor:
    """Return the sums of planes, weighed by the window; beyond the borders there is 0."""
    n, window = planes.shape[1], gaussian().to(planes.device)
    rows = F.conv2d(planes, window.view(1, 1, 1, -1).expand(n, 1, 1, -1), padding=(0, RADIUS), groups=n)
    return F.conv2d(rows, window.view(1, 1, -1, 1).expand(n, 1, -1, 1), padding=(RADIUS, 0), groups=n)


def blurred_compiled(planes: Tensor) -> Tensor:
    """Return what `blurred` does, by a kernel, without a gradient."""
    from laconic.models.visual_kernel import blur_kernel

    kernel: Any = blur_kernel
    out = torch.empty(planes.shape)
    ends, window = inverse_ends(planes), gaussian().numpy()
    pairs = list(zip(planes[0].contiguous().numpy(), out[0].numpy(), strict=True))
    each(lambda pair: kernel(*pair, window, *ends), pairs, None)
    return out


def inverse_ends(planes: Tensor) -> list[NDArray[np.float32]]:
    """Return one over the share of the window inside, by row and by column."""
    return [(1 / end_coverage(n)).numpy() for n in planes.shape[2:]]


@cache
def gaussian() -> Tensor:
    """Return the window in one dimension, which sums to 1."""
    window = torch.exp(-(torch.arange(-RADIUS, RADIUS + 1.0) ** 2) / (2 * DEVIATION**2))
    return window / window.sum()


def coverage(height: int, width: int, device: torch.device) -> Tensor:
    """Return the share of the window that lies inside the picture, [H, W]."""
    return (end_coverage(height)[:, None] * end_coverage(width)).to(device)


def end_coverage(n: int) -> Tensor:
    """Return the share of the window in one dimension that lies inside, [n]."""
    return F.conv1d(torch.ones(1, 1, n), gaussian().view(1, 1, -1), padding=RADIUS)[0, 0]
