"""Make the golden files of this version: `python -m laconic.tools.golden`. Tests never call it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import laconic
from laconic.golden import bit_digests, exact_digests


def main() -> None:
    """Write NAME.lac, NAME.json (digests of symbols, indices and bytes) and NAME.png (the pixels) to assets/golden."""
    folder = Path(str(files("laconic.assets") / "golden"))
    folder.mkdir(exist_ok=True)
    photo = np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    cases = {"photo-low": (photo[100:228, 200:391], 10.0), "photo-high": (photo[60:157, 300:365], 90.0)}
    for name, (pixels, quality) in cases.items():
        data = laconic.compress(pixels, quality=quality)
        (folder / f"{name}.lac").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(bit_digests(data)) + "\n")
        with (folder / f"{name}.png").open("wb") as file:
            laconic.Codec().decompress_to(file, data)
    for name, (source, options) in exact_cases(photo).items():
        data = laconic.compress(source, **options)
        (folder / f"{name}.lac").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(exact_digests(data)) + "\n")


def exact_cases(photo: np.ndarray) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the sources and options of lossless files: small, and of each kind of samples."""
    part = photo[100:148, 200:263]
    deep = part[:, :, :1].astype(np.uint16) * 257 + np.arange(63, dtype=np.uint16)[:, None] % 50
    y, x, c = np.indices((48, 80, 3))
    lines = (y % 9 < 6) & ((x % 13 * (x % 13) + y % 9 * (x // 13 % 3)) % 7 < 3)
    screen = np.where(lines, 20 + 30 * c + 40 * ((x + y) % 2), 255 - y // 9).astype(np.uint8)
    noise = (np.arange(300, dtype=np.uint64) ** 3 * 2654435761 >> 9).astype(np.uint8).reshape(10, 10, 3)
    t = np.arange(3000)[:, None] * [1, 2]
    tone = (t * (t // 16 + 40) % 4001 - 2000 + t * t % 31).astype(np.int16)  # integers only: the same everywhere
    floats = (tone[:400] * [0.7 / 32767, 1e-4] + [0.0, 1.0] / (t[:400] + 7.0)).astype(np.float32)  # by a factor; cut
    return {
        "exact-rgb": (part, {"lossless": True}),
        "exact-slow": (part[:32], {"lossless": True, "effort": 9}),
        "exact-gray16": (deep, {"lossless": True}),
        "exact-near": (part, {"max_error": 2}),
        "exact-screen": (screen, {"lossless": True}),
        "exact-stored": (noise, {"lossless": True}),
        "sound-16": (laconic.Sound(tone, 44100, 16), {"lossless": True}),
        "sound-24": (
            laconic.Sound((tone[:1000, :1] * 1000 + t[:1000, :1]).astype(np.int32), 96000, 24),
            {"lossless": True},
        ),
        "sound-float": (laconic.Sound(floats, 44100, 32), {"lossless": True}),
        "sound-8": (laconic.Sound((tone % 200).astype(np.uint8), 8000, 8), {"lossless": True, "effort": 9}),
    }


if __name__ == "__main__":
    main()
