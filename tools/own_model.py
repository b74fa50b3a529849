"""A model of one's own on our format: `python -m laconic.tools.own_model photo.png` trains a tiny autoencoder on the
photo, files its latents with our coder and reads them back. What a model must offer is `laconic.PictureModel`.
"""

from __future__ import annotations

import argparse
import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import laconic
from laconic import entropy
from laconic.picture import read


class TinyAutoencoder(nn.Module):
    """8 x 8 pixels -> 12 numbers -> 8 x 8 pixels."""

    name = "tiny-autoencoder"

    def __init__(self, pixels: np.ndarray, steps: int = 300) -> None:
        super().__init__()
        self.analysis, self.synthesis = nn.Conv2d(3, 12, 8, 8), nn.ConvTranspose2d(12, 3, 8, 8)
        optimiser, x = torch.optim.Adam(self.parameters(), 3e-3), to_blocks(pixels)
        for _ in range(steps):
            y = 8 * self.analysis(x)
            loss = F.mse_loss(self.synthesis((y + torch.rand_like(y) - 0.5) / 8), x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        # One table a channel, chosen once and stored with the weights: a float must never choose it while decoding.
        scales = (8 * self.analysis(x)).square().mean((0, 2, 3)).sqrt().tolist()
        self.rows = [int(np.clip(np.log(s / 0.11) / np.log(64 / 0.11) * 63 + 1, 0, 63)) for s in scales]
        weights = b"".join(v.numpy().tobytes() for v in self.state_dict().values()) + bytes(self.rows)
        self.digest = hashlib.sha256(weights).digest()

    @torch.no_grad()
    def encode(self, pixels: np.ndarray, quality: float) -> bytes:
        """uint8 [H, W, 3] -> payload; the quality is not used."""
        symbols = (8 * self.analysis(to_blocks(pixels))).round().short().numpy()[0]
        return entropy.encode(symbols.ravel(), self.indices(symbols.shape), entropy.gaussian_tables())

    @torch.no_grad()
    def decode(self, payload: bytes, height: int, width: int, quality: float) -> np.ndarray:
        """The payload -> uint8 [height, width, 3]."""
        shape = 12, -(-height // 8), -(-width // 8)
        symbols = entropy.decode(payload, self.indices(shape), entropy.gaussian_tables()).reshape(1, *shape)
        x = self.synthesis(torch.from_numpy(symbols).float() / 8)[0, :, :height, :width]
        pixels: np.ndarray = ((x.permute(1, 2, 0) + 0.5).clamp(0, 1) * 255).round().byte().numpy()
        return pixels

    def indices(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.repeat(np.array(self.rows, np.uint8), shape[1] * shape[2])


def to_blocks(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] -> float [1, 3, H, W] about 0, padded to multiples of 8."""
    height, width = pixels.shape[:2]
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255 - 0.5
    return F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")


def main(argv: list[str] | None = None) -> None:
    """Train, register, compress and read back; print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.own_model", description=__doc__)
    parser.add_argument("photo")
    pixels = read(parser.parse_args(argv).photo).pixels
    torch.manual_seed(1)
    model = TinyAutoencoder(pixels.repeat(3 // pixels.shape[2], 2))
    laconic.register(model)
    data = laconic.compress(pixels, model=model.name)
    error = laconic.decompress(data, as_array=True).astype(float) - pixels
    psnr = 10 * np.log10(255**2 / np.mean(error**2))
    print(f"{laconic.info(data).model}: {len(data)} bytes, {laconic.info(data).bpp:.3f} bpp, {psnr:.2f} dB")


if __name__ == "__main__":
    main()
