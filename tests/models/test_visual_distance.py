"""The distances that the search descends: nothing for the same picture, right gradients, any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from laconic.models import visual_distance
from laconic.models.visual_distance import EyeDistance, MsSsimDistance

DISTANCES = [EyeDistance, MsSsimDistance]


def pictures(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    original = torch.nn.functional.avg_pool2d(torch.rand(1, 3, height + 4, width + 4, generator=generator), 5, 1)
    other = (original + 0.05 * torch.randn(original.shape, generator=generator)).clamp(0, 1)
    return original, other


def eye_reference(original: Tensor, other: Tensor) -> Tensor:
    """What EyeDistance computes, by autograd and the plain formulas of SSIMULACRA2's maps."""
    total, weights = torch.zeros(()), torch.tensor(visual_distance.PLANES)
    scales = [visual_distance.xyb_scales(x) for x in (original, other)]
    for a, b in zip(*scales, strict=True):
        mean_a, mean_b, square_a, square_b, product = map(visual_distance.blurred, (a, b, a * a, b * b, a * b))
        contrast = (2 * (product - mean_a * mean_b) + 0.0009) / (square_a - mean_a**2 + square_b - mean_b**2 + 0.0009)
        structure = (1 - (1 - (mean_a - mean_b) ** 2) * contrast).clamp(min=0)
        edge = ((1 + (b - mean_b).abs()) / (1 + (a - mean_a).abs()) - 1).abs()
        for maps, of_mean, of_norm in ((structure, 1.0, 0.5), (edge, 4.0, 1.0)):
            norm = (maps**4).mean((0, 2, 3)) ** 0.25
            total = total + (weights * (of_mean * maps.mean((0, 2, 3)) + of_norm * norm)).sum()
    return total


@pytest.mark.parametrize("size", [(48, 50), (25, 24), (12, 100), (3, 40)])
def test_the_gradient_by_hand_is_that_of_autograd(size: tuple[int, int]) -> None:
    original, other = pictures(*size)
    found, expected = (other.clone().requires_grad_() for _ in range(2))
    distance, reference = EyeDistance(original)(found), eye_reference(original, expected)
    distance.backward()
    reference.backward()
    assert float(distance.detach()) == pytest.approx(float(reference.detach()), rel=1e-4, abs=1e-5)
    assert found.grad is not None and expected.grad is not None and found.grad.abs().max() > 0
    assert torch.allclose(found.grad, expected.grad, rtol=1e-3, atol=1e-4 * float(expected.grad.abs().max()))


@pytest.mark.parametrize("size", [(48, 50), (7, 90), (1, 3), (130, 100)])
def test_the_kernel_computes_what_tensors_do(size: tuple[int, int]) -> None:
    original, other = (visual_distance.xyb_scales(x) for x in pictures(*size))
    scales = [visual_distance.scale_of(planes) for planes in original]
    assert len(scales) == (3 if min(size) >= 48 else 1) + (min(size) >= 96)
    for with_gradient in (False, True):
        plain = visual_distance.scales_plain(other, scales, with_gradient)
        compiled = visual_distance.scales_compiled(other, scales, with_gradient)
        assert float(compiled[0]) == pytest.approx(float(plain[0]), rel=1e-4, abs=1e-5)
        assert len(plain[1]) == len(compiled[1]) == (len(scales) if with_gradient else 0)
    for found, expected in zip(compiled[1], plain[1], strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(48, 50), (7, 90), (1, 3)])
def test_the_kernel_blurs_as_tensors_do(size: tuple[int, int]) -> None:
    planes = pictures(*size)[0]
    assert torch.allclose(visual_distance.blurred_compiled(planes), visual_distance.blurred(planes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("size", [(48, 50), (1, 1), (200, 30)])
def test_more_noise_is_farther_and_none_is_nothing(distance: type[EyeDistance], size: tuple[int, int]) -> None:
    original, other = pictures(*size)
    measure = distance(original)
    distances = [float(measure(original + share * (other - original))) for share in (0.0, 0.3, 1.0)]
    assert abs(distances[0]) < 1e-3 and distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("distance", DISTANCES)
def test_black_and_white_have_finite_gradients(distance: type[EyeDistance]) -> None:
    original = torch.zeros(1, 3, 30, 30)
    original[..., 15:] = 1
    other = (1 - original).requires_grad_()
    distance(original)(other).backward()
    assert other.grad is not None and bool(other.grad.isfinite().all())


def test_ms_ssim_is_the_published_one() -> None:
    library = pytest.importorskip("pytorch_msssim")
    original, other = pictures(400, 380)
    ours = 1 - float(MsSsimDistance(original)(other))
    assert ours == pytest.approx(float(library.ms_ssim(original, other, data_range=1.0)), abs=0.001)  # borders differ


def test_it_follows_ssimulacra2(tmp_path: object) -> None:
    pytest.importorskip("ssimulacra2")
    from laconic.search import ssimulacra2_of

    original, other = pictures(96, 96)
    measure = EyeDistance(original)

    def pixels(x: Tensor) -> np.ndarray:
        return (x[0].permute(1, 2, 0) * 255).round().byte().numpy()

    blends = [original + share * (other - original) for share in (0.1, 0.4, 0.7, 1.0)]
    scores = [ssimulacra2_of(pixels(original), pixels(x)) for x in blends]
    distances = [float(measure(x)) for x in blends]
    assert scores == sorted(scores, reverse=True) and distances == sorted(distances)
