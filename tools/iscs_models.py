"""What `laconic iscs` can look at: installed photo models, and models of CompressAI (extra `zoo`), shown as `Latents`.

CompressAI's are bmshj2018-factorized, bmshj2018-hyperprior and mbt2018-mean (Balle et al. 2018, Minnen et al. 2018). Its
autoregressive models have a prior that cannot be drawn on a whole grid at once, and are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic import registry
from laconic.models import zoo
from laconic.models.iscs import GRIDS, Z_SIDE, Latents, Neighbours, PhotoLatents, rounded_energy
from laconic.tools.metrics import needed

KINDS = zoo.KINDS
WIDEST = 1024  # symbols on each side of the median that a factorised prior is asked for
LEAST = 1e-8  # CompressAI bounds a likelihood at 1e-9: what is near the bound is no probability


def load(name: str, quality: float = 50.0) -> Latents:
    """Return the model of a name or path, ready for ISCS.

    name: an installed photo model, looked at with the gains of `quality`; `compressai:ARCHITECTURE:QUALITY`, whose weights
    CompressAI keeps in torch.hub's folder; or the path of a checkpoint of CompressAI's training. Raises ModelMissing,
    BadInput, or Absent where CompressAI is not installed. Nothing is downloaded.
    """
    library, _, published = name.partition(":")
    if library == registry.COMPRESSAI or Path(name).is_file():
        needed("compressai", zoo.EXTRA)
        return ZooLatents(zoo.load(zoo.pretrained(published) if library == registry.COMPRESSAI else Path(name)))
    return PhotoLatents(registry.load_photo(registry.find(name)), quality)


class ZooLatents:
    """Shows a model of CompressAI to ISCS; and to the judge, what it makes of pictures."""

    reach = 2  # four transposed convolutions of 5 x 5 and stride 2 spread a sample by 1 + 1/2 + 1/4 + 1/8

    def __init__(self, model: Any) -> None:
        self.model = model
        self.n_channels = len(model.g_a[-1].weight)
        kind = zoo.architecture_of(model.state_dict())
        self.factorised, self.has_means = kind == KINDS[0], kind == KINDS[2]

    def decode(self, y_hat: Tensor) -> Tensor:
        """Return the picture of y_hat."""
        picture: Tensor = self.model.g_s(y_hat)
        return picture

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_hat and the bits of its samples, both [N, M, h, w], of pictures [N, 3, H, W] in 0..1."""
        y = self.model.g_a(x)
        if self.factorised:
            y_hat, likelihood = self.model.entropy_bottleneck(y)
        else:
            z_hat, _ = self.model.entropy_bottleneck(self.model.h_a(y if self.has_means else y.abs()))
            scale, mean = self.scale_and_mean(z_hat)
            y_hat, likelihood = self.model.gaussian_conditional(y, scale, means=mean)
        return y_hat, -likelihood.log2()

    def energy(self, seed: int) -> Tensor:
        """Return what the prior expects of y_hat**2 where z is drawn; of a factorised prior, which has no z, one place."""
        values, mass = bottleneck_masses(self.model.entropy_bottleneck)
        if self.factorised:
            return (mass * values.double().square()).sum(1)[None]
        drawn = mass.multinomial(GRIDS * Z_SIDE**2, True, generator=torch.Generator().manual_seed(seed))
        z_hat = values.gather(1, drawn).view(-1, GRIDS, Z_SIDE, Z_SIDE).movedim(1, 0)
        scale, mean = self.scale_and_mean(z_hat)
        scale = self.model.gaussian_conditional.lower_bound_scale(scale)
        return (mean.double().square() + rounded_energy(scale)).movedim(1, 3).flatten(0, 2)

    def scale_and_mean(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the hyper decoder says of y."""
        out = self.model.h_s(z_hat)
        if self.has_means:
            scale, mean = out.chunk(2, 1)
            return scale, mean
        return out, torch.zeros_like(out)

    def neighbours(self) -> Neighbours:
        """Return the weights of the last layer of g_a and of the first of g_s."""
        encoder, decoder = self.model.g_a[-1], self.model.g_s[0]
        return Neighbours(encoder.weight.flatten(1), encoder.bias, decoder.weight.flatten(1))  # [in, out, 5, 5]


def bottleneck_masses(bottleneck: Any) -> tuple[Tensor, Tensor]:
    """Return the values [C, K] that a factorised prior's channels can take, and their probabilities, float64 [C, K]."""
    medians = bottleneck.quantiles[:, 0, 1]
    values = medians[:, None] + torch.arange(-WIDEST, WIDEST + 1.0)
    likelihood = bottleneck(values[None, :, None])[1][0, :, 0].double()
    mass = torch.where(likelihood > LEAST, likelihood, 0.0)
    return values, mass / mass.sum(1, keepdim=True)
