"""A model of one's own on our format: `python -m laconic.tools.own_model photo.png` trains a tiny autoencoder on the
photo, files its latents with our coder and reads them back. What a model must offer is `laconic.PictureModel`.
"""

import hashlib
import sys
from typing import Any

import numpy as np
import torch

import laconic
from laconic import entropy, picture


class TinyAutoencoder(torch.nn.Module):
    """Turns 8 x 8 pixels into 12 numbers, and back. One table per channel, chosen with the weights: never by a float later."""

    name = "tiny-autoencoder"

    def __init__(self, pixels: Any, steps: int = 300) -> None:
        super().__init__()
        self.g_a, self.g_s = torch.nn.Conv2d(3, 12, 8, 8), torch.nn.ConvTranspose2d(12, 3, 8, 8)
        optimiser, x = torch.optim.Adam(self.parameters(), 3e-3), to_blocks(pixels)
        for _ in range(steps):
            y = 8 * self.g_a(x)
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(self.g_s((y + torch.rand_like(y) - 0.5) / 8), x).backward()
            optimiser.step()
        scales = (8 * self.g_a(x)).square().mean((0, 2, 3)).sqrt().detach().numpy()
        self.rows = np.clip(np.log(scales / 0.11) / np.log(64 / 0.11) * 63 + 1, 0, 63).astype(np.uint8)
        weights = [v.numpy().tobytes() for v in self.state_dict().values()]
        self.digest = hashlib.sha256(b"".join(weights) + self.rows.tobytes()).digest()

    @torch.no_grad()
    def encode(self, pixels: Any, quality: float) -> bytes:
        """Return the coded latent of uint8 [H, W, 3]."""
        symbols = (8 * self.g_a(to_blocks(pixels))).round().short().numpy()[0]
        return entropy.encode(symbols.ravel(), self.rows.repeat(symbols[0].size), entropy.gaussian_tables())

    @torch.no_grad()
    def decode(self, payload: bytes, height: int, width: int, quality: float) -> Any:
        """Return uint8 [H, W, 3] of a coded latent."""
        shape = -(-height // 8), -(-width // 8)
        symbols = entropy.decode(payload, self.rows.repeat(shape[0] * shape[1]), entropy.gaussian_tables())
        x = self.g_s(torch.from_numpy(symbols.reshape(1, 12, *shape)).float() / 8)[0, :, :height, :width]
        return ((x.permute(1, 2, 0) + 0.5).clamp(0, 1) * 255).round().byte().numpy()


def to_blocks(pixels: Any) -> torch.Tensor:
    """Turn uint8 [H, W, 3] into float [1, 3, H, W] around 0, padded to multiples of 8."""
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255 - 0.5
    return torch.nn.functional.pad(x, (0, -x.shape[3] % 8, 0, -x.shape[2] % 8), mode="replicate")


if __name__ == "__main__":
    photo = picture.read(sys.argv[1]).pixels
    laconic.register(TinyAutoencoder(photo.repeat(3 // photo.shape[2], 2)))
    data = laconic.compress(photo, model=TinyAutoencoder.name)
    back = laconic.decompress(data, as_array=True)
    assert not isinstance(back, laconic.Sound)
    error = back.astype(float) - photo
    bpp = 8 * len(data) / (photo.shape[0] * photo.shape[1])
    print(f"{len(data)} bytes, {bpp:.3f} bpp, {10 * np.log10(255**2 / np.mean(error**2)):.2f} dB")
