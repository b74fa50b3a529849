"""What the entropy coders are compared on: symbols, the float model of each row, our tables of it.

    gauss    64 Gaussian rows, scales mixed as in a latent of a middle rate: 1.3 bits per symbol
    low      the same rows at a very low rate: 0.11 bits per symbol
    static   one row of 256 symbols: 6.0 bits per symbol
    latents  a photo through CompressAI's mbt2018-mean, with its tables (`latents`)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic import entropy
from laconic.tools.metrics import needed

COMPRESSAI_BITS = 16
LATENT_GAIN = 7.0  # 0.5 bpp
ZOO = "laconic-codec[zoo], in an environment of its own: it needs numpy 1"


@dataclass(frozen=True)
class Workload:
    """Holds what all code: symbols int16 [N] by rows uint8 [N].

    pmfs: float64, one for each row, the escape last. tables: ours, of the same rows. scales: of the rows, where Gaussian.
    """

    name: str
    symbols: NDArray[np.int16]
    rows: NDArray[np.uint8]
    pmfs: list[NDArray[np.float64]]
    tables: entropy.Tables
    scales: NDArray[np.float64] | None = None

    def first(self, n: int) -> Workload:
        """Return the first n symbols of it."""
        return replace(self, symbols=self.symbols[:n], rows=self.rows[:n])

    def codelength(self, masses: list[Any]) -> float:
        """Return the ideal number of bits where each row has these masses, of any sum."""
        bits = np.zeros((len(masses), max(map(len, masses))))
        for row, p in enumerate(masses):
            bits[row, : len(p)] = math.log2(sum(p)) - np.log2(np.maximum(p, 1e-300))
        return float(bits[self.rows, self.tables.entries(self.symbols, self.rows)].sum())


def mixed_gaussians(name: str, n: int) -> Workload:
    """Return n symbols with scales of two populations ('gauss') or of one ('low'), in the 64 rows of `gaussian_tables`."""
    rng, tables = np.random.default_rng(1), entropy.gaussian_tables()
    scales = np.exp(np.linspace(math.log(0.11), math.log(64), len(tables.sizes)))
    if name == "gauss":
        active = rng.random(n) < 0.36
        spread = np.where(active, rng.normal(math.log(1.6), 1, n), rng.normal(math.log(0.24), 0.55, n))
    else:
        spread = rng.normal(math.log(0.155), 0.4, n)
    rows = np.rint(np.interp(spread, np.log(scales), np.arange(len(scales)))).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(n) * scales[rows]).astype(np.int16)
    pmfs = [gaussian_pmf(scale, -offset) for scale, offset in zip(scales, tables.offsets.tolist(), strict=True)]
    return Workload(name, symbols, rows, pmfs, tables, scales)


def gaussian_pmf(scale: float, m: int) -> NDArray[np.float64]:
    """Return the masses of -m..m and, last, of all beyond."""
    above = [math.erfc((k - 0.5) / scale / math.sqrt(2)) / 2 for k in range(m + 2)]
    side = -np.diff(above)
    return np.array([*side[:0:-1], *side, 2 * above[-1]])


def static(n: int) -> Workload:
    """Return n symbols of one row, a Gaussian over a floor, as of bytes."""
    pmf = np.exp(-0.5 * ((np.arange(256) - 128) / 15.5) ** 2) + 2e-5
    pmf /= pmf.sum()
    symbols = np.random.default_rng(1).choice(256, n, p=pmf).astype(np.int16)
    tables = entropy.Tables.from_pmf([pmf], [0])
    return Workload("static", symbols, np.zeros(n, np.uint8), [np.append(pmf, 0)], tables)


def latents(n: int) -> Workload:
    """Return at most n symbols of the sample photo's latent in CompressAI's mbt2018-mean, quality 3, with the model's tables.

    Nothing is downloaded, so the weights are random ones. For a realistic rate the latent is scaled, and the scales are
    its local spread, which trained weights would predict.
    """
    zoo = needed("compressai.zoo", ZOO)
    import torch
    from PIL import Image

    torch.manual_seed(1)
    model = zoo.mbt2018_mean(quality=3, pretrained=False).eval()
    model.update()
    gaussian = model.gaussian_conditional
    photo = np.array(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    x = torch.from_numpy(photo[: len(photo) // 64 * 64]).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        y = LATENT_GAIN * model.g_a(x)
        scales = torch.nn.functional.avg_pool2d(y**2, 5, 1, 2, count_include_pad=False).sqrt()
        symbols, rows = gaussian.quantize(y, "symbols").flatten(), gaussian.build_indexes(scales).flatten()
    cdfs, sizes = gaussian.quantized_cdf.numpy(), gaussian.cdf_length.tolist()
    pmfs = [np.diff(cdf[:size]) / (1 << COMPRESSAI_BITS) for cdf, size in zip(cdfs, sizes, strict=True)]
    tables = entropy.Tables.from_pmf([pmf[:-1] for pmf in pmfs], gaussian.offset.numpy())
    whole = Workload("latents", symbols.numpy().astype(np.int16), rows.numpy().astype(np.uint8), pmfs, tables)
    return whole.first(n)


WORKLOADS: dict[str, Callable[[int], Workload]] = {
    "gauss": lambda n: mixed_gaussians("gauss", n),
    "low": lambda n: mixed_gaussians("low", n),
    "static": static,
    "latents": latents,
}
