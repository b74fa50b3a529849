"""Networks of CompressAI (extra `zoo`) as a user has them: loaded, and run from pixels to symbols and back.

    pixels ─ g_a ─► y ─ h_a ─► z ─ rounded ─► symbols of z, each coded with the table row of its channel
                    │                 └─ h_s ─► a table row and a mean for each sample of y
                    └── less its mean, rounded ──► symbols of y ─ g_s ─► pixels

The architectures are bmshj2018-factorized, where y is coded as z is above, bmshj2018-hyperprior (Balle et al. 2018) and
mbt2018-mean (Minnen et al. 2018). Symbols, rows and tables are those of CompressAI's own coder, in 15 bits for 16.

The networks are float, and h_s chooses table rows. It runs in float64, where a scale is hardly ever so near the border
of two rows that the rounding of another machine moves it across.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.entropy.errors import BadInput, LaconicError, ModelMissing, expect
from laconic.entropy.tables import Tables

EXTRA = "laconic-codec[zoo], in an environment of its own: it needs numpy 1"
KINDS = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean")
CLASSES = ("FactorizedPrior", "ScaleHyperprior", "MeanScaleHyperprior")
TOTAL = 1 << 16  # what a row of CompressAI's tables sums to
Symbols = NDArray[np.int32]
Rows = NDArray[np.int32]


class ZooNetwork:
    """Runs a network of CompressAI. `parse` asks for the symbols of latents in the order of `encode`."""

    def __init__(self, net: Any, device: str = "cpu") -> None:
        """Take a network of `load`; its tables are the checkpoint's, or CompressAI makes them now."""
        with torch.no_grad():
            net.update()
        self.net, self.device, self.kind = net.to(device), device, architecture_of(net.state_dict())
        self.factorised, self.has_means = self.kind == KINDS[0], self.kind == KINDS[2]
        self.unit: int = net.downsampling_factor  # pixels; what the sides of a picture are padded to
        self.first = tables_of(net.entropy_bottleneck)
        self.medians: Tensor = net.entropy_bottleneck.quantiles[:, 0, 1][:, None, None]
        if not self.factorised:
            self.second = tables_of(net.gaussian_conditional)
            self.h_s = copy.deepcopy(net.h_s).double()
            scales = net.gaussian_conditional.scale_table[:-1]  # larger ones have the last row
            self.borders, self.least = scales.double(), float(net.gaussian_conditional.lower_bound_scale.bound)

    @torch.no_grad()
    def encode(self, pixels: NDArray[np.uint8]) -> list[tuple[Symbols, Rows, Tables]]:
        """Return symbols, table rows and tables of z and y, or of y alone, of a picture, uint8 [H, W, 3]."""
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % self.unit), (0, -width % self.unit), (0, 0)), "edge")
        y = self.net.g_a(torch.from_numpy(padded).to(self.device).permute(2, 0, 1)[None].float() / 255)
        if self.factorised:
            return [self.of_channels(y[0])]
        first = self.of_channels(self.net.h_a(y if self.has_means else y.abs())[0])
        rows, means = self.prior(first[0])
        return [first, (integers(y[0].double() - means), rows, self.second)]

    @torch.no_grad()
    def parse(self, size: tuple[int, int], read: Callable[[Rows, Tables], Symbols]) -> Tensor:
        """Return y_hat of a picture, float [1, M, h, w].

        size: height and width in pixels. read: gives the symbols of the next latent, [N] for rows [N].
        """
        n_channels, per_sample = len(self.medians), 16 if self.factorised else 64
        h, w = (-(-side // self.unit) * self.unit // per_sample for side in size)
        symbols = read(self.channels(h, w), self.first).reshape(n_channels, h, w)
        if self.factorised:
            y_hat = self.tensor(symbols) + self.medians
        else:
            rows, means = self.prior(symbols)
            y_hat = self.tensor(read(rows, self.second)).view_as(means) + means
        return y_hat.float()[None]

    @torch.no_grad()
    def decode(self, y_hat: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the pixels of y_hat, uint8 [H, W, 3]. size: height and width."""
        x = self.net.g_s(y_hat)[0].permute(1, 2, 0)[: size[0], : size[1]]
        found: NDArray[np.uint8] = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        return found

    def of_channels(self, latent: Tensor) -> tuple[Symbols, Rows, Tables]:
        """Return what codes a latent [C, h, w] by the table rows of its channels. The symbols keep its shape."""
        return integers(latent - self.medians), self.channels(*latent.shape[1:]), self.first

    def channels(self, h: int, w: int) -> Rows:
        """Return the table row, which is the channel, of each sample."""
        return np.repeat(np.arange(len(self.medians), dtype=np.int32), h * w)

    def prior(self, symbols: Symbols) -> tuple[Rows, Tensor]:
        """Return the table rows [N] and means, float64 [M, h, w], of y, from the symbols of z [C, h, w]."""
        out = self.h_s((self.tensor(symbols).double() + self.medians)[None])[0]
        scales, means = out.chunk(2) if self.has_means else (out, torch.zeros_like(out))
        rows = torch.searchsorted(self.borders, scales.clamp(min=self.least).contiguous())
        return integers(rows).ravel(), means

    def tensor(self, symbols: NDArray[Any]) -> Tensor:
        return torch.from_numpy(symbols.astype(np.int32)).to(self.device)


def integers(values: Tensor) -> Symbols:
    """Return values rounded to integers, ties to even."""
    found: Symbols = values.round().to(torch.int32).cpu().numpy()
    return found


def tables_of(model: Any) -> Tables:
    """Return the tables of one of CompressAI's entropy models, made from its integers alone."""
    rows = zip(model.quantized_cdf.cpu().numpy(), model.cdf_length.tolist(), strict=True)
    pmfs = [np.diff(cdf[: n - 1]) / TOTAL for cdf, n in rows]  # what a row lacks to 1 is its escape's
    return Tables.from_pmf(pmfs, model.offset.cpu().numpy())


def pretrained(name: str) -> Path:
    """Return where torch.hub's folder has the published weights of `ARCHITECTURE:QUALITY`. Nothing is downloaded.

    Raises BadInput for no such model, ModelMissing where CompressAI or the weights are not there.
    """
    architecture, _, level = name.partition(":")
    expect(architecture in KINDS, BadInput, "model of compressai", name, f"one of {', '.join(KINDS)}")
    urls: dict[str, str] = {str(key): url for key, url in library("zoo.image").model_urls[architecture]["mse"].items()}
    expect(level in urls, BadInput, "model of compressai", name, f"a quality of {', '.join(urls)} at the end")
    path = Path(torch.hub.get_dir()) / "checkpoints" / urls[level].rsplit("/", 1)[1]
    expect(path.is_file(), ModelMissing, f"model compressai:{name}", f"no {path}", f"the weights from {urls[level]}")
    return path


def load(path: Path) -> Any:
    """Return CompressAI's network of a checkpoint: a state dict or a dictionary with one.

    Raises BadInput for other files and architectures, ModelMissing where CompressAI is not installed.
    """
    classes = [getattr(library("models"), name) for name in CLASSES]
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        weights = library("zoo").load_state_dict(stored.get("state_dict", stored))
        net = dict(zip(KINDS, classes, strict=True))[architecture_of(weights)].from_state_dict(weights)
    except LaconicError:
        raise
    except Exception as error:  # noqa: BLE001 - a file that is no checkpoint fails in torch in many ways
        raise BadInput(f"model: found {str(path)!r} ({error}), expected a checkpoint of {', '.join(KINDS)}") from None
    return net.eval().requires_grad_(False)


def architecture_of(weights: Mapping[str, Tensor]) -> str:
    """Return the name, of `KINDS`, of the architecture that a state dict is of. Raises BadInput."""
    serial = any(name.startswith("context_prediction") for name in weights)
    expect(not serial, BadInput, "model", "an autoregressive prior", f"a checkpoint of {', '.join(KINDS)}")
    expect("g_a.1.beta" in weights, BadInput, "model", "no GDN layers", f"a checkpoint of {', '.join(KINDS)}")
    if "h_s.4.weight" not in weights:
        return KINDS[0]
    return KINDS[1 if len(weights["h_s.4.weight"]) == len(weights["g_a.6.weight"]) else 2]


def library(module: str) -> Any:
    """Import a module of CompressAI and return it. Raises ModelMissing naming the extra that brings it."""
    try:
        return import_module(f"compressai.{module}")
    except ImportError as error:
        raise ModelMissing(f"compressai: found none ({error}), expected it: pip install {EXTRA}") from None
