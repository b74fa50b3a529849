"""Extreme model: pictures below 0.04 bpp as indices into a nested codebook, one per 16 x 16 pixels.

    x ─ unshuffle(8) ─ g_a ─► e ─ nearest of 2**b codes ─► index, b bits       e [N, D, H/16, W/16]
                                                  │
    x_hat ◄─ g_s ◄─ code of the index ◄───────────┘

After "Extreme Image Compression using Fine-tuned VQGANs" (Mao et al. 2023, arXiv:2307.08265), with three changes. All
codebooks are one binary tree: the first b bits of an index name its code among 2**b, so one network serves all rates
(`depth` b). Bits beyond the 12th come from a second tree, of what the code of the first lacks, and their code is added: the
bits of neighbours say much of each other, so 20 of them cost less than 20. The networks start from the photo model
(models/photo.py) at quality 0, not from noise. And there is no attention and no normalisation over places: a part of a
picture decodes alike whatever lies further than a halo away.

No medium writes these indices yet: the model is trained and judged by tools/train_vqgan.py.

The codes lie in heap order: node 1 is the root, the children of node n are 2n and 2n + 1, so index i of depth b is node
2**b + i. The second tree's nodes come after those of the first, likewise, from node `rest` on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from laconic.models.photo import Photo, in_float32, residual_blocks

LATENT = 16  # pixels per index, along a side
LEAST_DEPTH = 3
NETWORKS = "networks."  # begins the names of all that `Vqgan` loads from a weights file
SCALE = ".scale"  # ends the name of what int8 weights are multiplied by


@dataclass(frozen=True)
class VqganConfig:
    """Holds the sizes of the networks. They stand in the card; a change of a default is a new model."""

    c8: int = 160  # channels at 1/8 resolution
    c16: int = 256  # channels at 1/16
    code_channels: int = 32
    fine_channels: int = 16  # at 1/2
    encoder_blocks: tuple[int, int] = (3, 3)  # at 1/8, 1/16
    decoder_blocks: tuple[int, int] = (8, 6)  # at 1/16, 1/8
    first_depth: int = 12  # bits of an index that the first tree has
    second_depth: int = 8

    @property
    def depth(self) -> int:
        """How many bits an index has at the highest rate."""
        return self.first_depth + self.second_depth

    @property
    def rest(self) -> int:
        """Where the nodes of the second tree begin."""
        return 2 << self.first_depth

    @property
    def n_nodes(self) -> int:
        """How many nodes there are, two unused ones counted."""
        return self.rest + (2 << self.second_depth)

    @property
    def analysis_halo(self) -> int:
        """How many indices around a part its analysis looks at: a block reaches 1 at 1/16, half of that at 1/8."""
        return self.encoder_blocks[1] + (self.encoder_blocks[0] + 1) // 2

    @property
    def synthesis_halo(self) -> int:
        """How many indices around a part its synthesis looks at; the fine layers reach 4 pixels, half a sample at 1/8."""
        return self.decoder_blocks[0] + (self.decoder_blocks[1] + 2) // 2


class Vqgan(nn.Module):
    """Turns a picture into vectors, these into indices, and indices into a picture."""

    codes: Tensor

    def __init__(self, config: VqganConfig = VqganConfig()) -> None:
        super().__init__()
        c = self.config = config
        self.stem = nn.Conv2d(192, c.c8, 1)
        self.g_a_8 = residual_blocks(c.c8, c.encoder_blocks[0])
        self.down = nn.Conv2d(c.c8, c.c16, 2, 2)
        self.g_a_16 = residual_blocks(c.c16, c.encoder_blocks[1])
        self.to_code = nn.Conv2d(c.c16, c.code_channels, 1)
        self.register_buffer("codes", torch.zeros(c.n_nodes, c.code_channels))  # by node
        self.depth_bias = nn.Parameter(torch.zeros(c.depth + 1, c.c16))  # tells the decoder how coarse the codes are
        self.from_code = nn.Conv2d(c.code_channels, c.c16, 1)
        self.g_s_16 = residual_blocks(c.c16, c.decoder_blocks[0])
        self.up = nn.Conv2d(c.c16, 4 * c.c8, 1)
        self.g_s_8 = residual_blocks(c.c8, c.decoder_blocks[1])
        self.head = nn.Conv2d(c.c8, 192, 1)
        self.fine = fine_layers(c.c8, c.fine_channels)

    @classmethod
    def load(cls, path: str, config: dict[str, Any], device: str = "cpu") -> Vqgan:
        """Return the networks of a weights file, ready to run. config: the fields of VqganConfig, as the card has them.

        Raises ValueError, TypeError, RuntimeError or SafetensorError for weights that do not fit.
        """
        model = cls(config_of(config))
        model.load_state_dict(unpacked(load_file(path)))
        model.eval().requires_grad_(False)
        return model.to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def analysis(self, x: Tensor) -> Tensor:
        """Return the vectors of a picture, float [N, D, H/16, W/16]. x: float [N, 3, H, W] in 0..1, sides multiples of 16."""
        f = self.g_a_8(in_float32(self.stem, F.pixel_unshuffle(x - 0.5, 8)))
        f = self.g_a_16(in_float32(self.down, f))
        return in_float32(self.to_code, f)

    def indices(self, e: Tensor, depth: int) -> Tensor:
        """Return the index of the nearest code of a depth for each vector: int64 [N, h, w]. e: float [N, D, h, w]."""
        flat, c = e.permute(0, 2, 3, 1).reshape(-1, e.shape[1]), self.config
        first = min(depth, c.first_depth)
        found = nearest(flat, self.codes[1 << first : 2 << first])
        if depth > first:
            bits = depth - first
            lacking = flat - self.codes[(1 << first) + found]
            found = found << bits | nearest(lacking, self.codes[c.rest + (1 << bits) : c.rest + (2 << bits)])
        return found.view(e.shape[0], *e.shape[2:])

    def embedded(self, indices: Tensor, depth: int) -> Tensor:
        """Return the codes of indices [N, h, w] of a depth: float [N, D, h, w]."""
        first = min(depth, self.config.first_depth)
        bits = depth - first
        found = self.codes[(1 << first) + (indices >> bits)]
        if bits:
            found = found + self.codes[self.config.rest + (1 << bits) + (indices & ((1 << bits) - 1))]
        return found.permute(0, 3, 1, 2)

    def synthesis(self, codes: Tensor, depth: Tensor) -> Tensor:
        """Return the picture, float [N, 3, 16 h, 16 w], not clipped. codes: float [N, D, h, w]. depth: int64 [N]."""
        f = in_float32(self.from_code, codes) + self.depth_bias[depth][:, :, None, None]
        f = self.g_s_8(F.pixel_shuffle(in_float32(self.up, self.g_s_16(f)), 2))
        fine = F.pixel_shuffle(self.fine(f).float(), 2)
        return F.pixel_shuffle(in_float32(self.head, f), 8) + fine + 0.5


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Return the number of the nearest code [K, D] of each vector [N, D], int64 [N]."""
    return (codes.square().sum(1) / 2 - vectors @ codes.T).argmin(1)


def fine_layers(n_in: int, n: int) -> nn.Sequential:
    """Build the layers at half resolution: [N, C, h, w] at 1/8 -> [N, 12, 4h, 4w], 0 at first.

    They reach over the borders of the 8 x 8 squares that the head gives alone.
    """
    layers = nn.Sequential(
        nn.Conv2d(n_in, 16 * n, 1),
        nn.PixelShuffle(4),
        nn.LeakyReLU(0.1),
        nn.Conv2d(n, n, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(n, 12, 3, padding=1),
    )
    nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    return layers


def config_of(fields: Mapping[str, Any]) -> VqganConfig:
    """Return the sizes that a card or a checkpoint has, whose pairs are lists."""
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return VqganConfig(**sizes)


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a weights file: convolutions as int8 with a scale per output channel, the rest as float16."""
    found = {}
    for name, weight in weights.items():
        if weight.dim() < 4:
            found[NETWORKS + name] = weight.half().contiguous()
            continue
        scale = (weight.abs().amax((1, 2, 3), keepdim=True) / 127).clamp_min(2.0**-20).half()
        found[NETWORKS + name] = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8).contiguous()
        found[NETWORKS + name + SCALE] = scale.contiguous()
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of `Vqgan` out of the tensors of a weights file. Raises ValueError for int8 without a scale."""
    own = {name.removeprefix(NETWORKS): value for name, value in tensors.items() if name.startswith(NETWORKS)}
    found = {}
    for name, value in own.items():
        if name.endswith(SCALE):
            continue
        scale = own.get(name + SCALE)
        if (scale is None) == (value.dtype == torch.int8):
            raise ValueError(f"{name}: found {value.dtype}, expected int8 with a scale, or floats without")
        found[name] = value.float() if scale is None else value.float() * scale.float()
        if not bool(torch.isfinite(found[name]).all()):
            raise ValueError(f"{name}: found weights that are not finite, expected finite ones")
    return found


@torch.no_grad()
def start_from_photo(model: Vqgan, photo: Photo, pictures: Tensor) -> None:
    """Make the networks those of a photo model at quality 0, with its latents cut down to their principal components.

    pictures: float [N, 3, H, W] in 0..1, sides multiples of 16, whose latents these are. Blocks that the photo model lacks
    start as the identity.
    """
    quality = torch.zeros(len(pictures))
    y = photo.analysis(pictures, quality)
    samples = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
    mean = samples.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((samples - mean).T.double()))
    basis = vectors.flip(1)[:, : model.config.code_channels].float()  # [M, D]
    own = model.state_dict()
    shared = ("stem", "g_a_8", "down", "g_a_16", "g_s_16", "up", "g_s_8", "head")
    own.update({k: v for k, v in photo.state_dict().items() if k.split(".")[0] in shared})
    gain = {name: getattr(photo, name)[0].exp() for name in ("gain_enc", "gain_y", "gain_y_inverse", "gain_dec")}
    own["down.weight"] = own["down.weight"] * gain["gain_enc"][:, None, None]
    own["head.weight"] = own["head.weight"] * gain["gain_dec"][:, None, None]
    to_y, from_y = photo.to_y, photo.from_y
    assert to_y.bias is not None and from_y.bias is not None
    own["to_code.weight"] = (basis.T @ (gain["gain_y"][:, None] * to_y.weight[:, :, 0, 0]))[:, :, None, None]
    own["to_code.bias"] = basis.T @ (gain["gain_y"] * to_y.bias - mean)
    back = from_y.weight[:, :, 0, 0] * gain["gain_y_inverse"]
    own["from_code.weight"] = (back @ basis)[:, :, None, None]
    own["from_code.bias"] = back @ mean + from_y.bias
    model.load_state_dict(own)
