"""LPIPS as a loss and as a measure, from backbones that lie in a folder: nothing is downloaded.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018), version 0.1. The folder
holds, per backbone, torchvision's convolutions (`squeezenet1_1_features*.safetensors`, `alexnet_features*.safetensors`,
keys features.N.weight) and the linear weights of richzhang/PerceptualSimilarity (`lpips_v0.1_squeeze.pth`, `..._alex.pth`).
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from laconic.entropy.errors import BadInput

BACKBONES = {  # name: torchvision's network, and after which of its layers features are compared
    "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12)),
    "alex": ("alexnet", (1, 4, 7, 9, 11)),
}
TINY = 1e-12
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Measures the distance of pictures as a network sees it; values of different backbones cannot be compared."""

    shift: Tensor
    scale: Tensor

    def __init__(self, folder: Path, backbone: str = "squeeze") -> None:
        """Load the weights. Raises BadInput where the folder lacks them."""
        from safetensors.torch import load_file

        super().__init__()
        network, self.taps = BACKBONES[backbone]
        features = sorted(folder.glob(f"{network}_features*.safetensors"))
        linear = folder / f"lpips_v0.1_{backbone}.pth"
        if not features or not linear.exists():
            expected = f"{network}_features.safetensors and {linear.name}"
            raise BadInput(f"folder of LPIPS: found {str(folder)!r} without them, expected {expected}")
        layers = getattr(importlib.import_module("torchvision.models"), network)(weights=None).features
        self.features = layers[: self.taps[-1] + 1]
        weights = {k.removeprefix("features."): v.float() for k, v in load_file(features[0]).items()}
        self.features.load_state_dict({k: weights[k] for k in self.features.state_dict()})
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        saved = torch.load(linear, map_location="cpu", weights_only=True)
        self.linear = [saved[f"lin{i}.model.1.weight"].float().flatten() for i in range(len(self.taps))]
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances [N] of pictures, float [N, 3, H, W] in 0..1 each."""
        total, seen = torch.zeros(len(a), device=a.device), zip(self.linear, self.seen(a), self.seen(b), strict=True)
        with torch.autocast(a.device.type, enabled=False):
            for w, f, g in seen:
                total = total + distance(w.to(a.device), f.permute(0, 2, 3, 1).float(), g.permute(0, 2, 3, 1).float())
        return total

    def seen(self, x: Tensor) -> list[Tensor]:
        """Return the features of pictures at each tap."""
        f, found = (2 * x - 1 - self.shift) / self.scale, []
        for i, layer in enumerate(self.features):
            f = layer(f)
            if i in self.taps:
                found.append(f)
        return found


def distance(weight: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Return sum of weight * (f / |f| - g / |g|)**2 over channels, mean over places: [N].

    weight: [C]. f, g: float [N, H, W, C]. The square is multiplied out, which halves the passes over the features.
    """
    sums = torch.stack([weight, torch.ones_like(weight)], 1)
    (a, aa), (b, bb) = ((x.square() @ sums).unbind(3) for x in (f, g))
    cross = (f * (g * weight)).sum(3) * ((aa + TINY) * (bb + TINY)).rsqrt()
    return (a / (aa + TINY) + b / (bb + TINY) - 2 * cross).mean((1, 2))
