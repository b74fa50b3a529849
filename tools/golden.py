"""Make the golden files of the current default model: `python -m laconic.tools.golden`. Tests never call it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

import laconic
from laconic.golden import bit_digests


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
        Image.fromarray(laconic.decompress(data, as_array=True)).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
