"""Does this machine decode the golden files right?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

MIN_PSNR = 60.0  # dB between the pixels of two machines in float32


@dataclass(frozen=True)
class Check:
    """One golden file: whether its symbols and pixels came out as they should."""

    name: str
    ok: bool
    detail: str


def selftest() -> list[Check]:
    """Decode each golden file of the package and compare its symbols (exactly) and pixels (60 dB)."""
    folder = Path(str(files("laconic.assets") / "golden"))
    return [check(path) for path in sorted(folder.glob("*.lac"))]


def check(path: Path) -> Check:
    """Compare one file with what `NAME.json` and `NAME.png` beside it say."""
    from PIL import Image

    from laconic.entropy.errors import LaconicError
    from laconic.files import psnr_of

    expected = json.loads(path.with_suffix(".json").read_text())
    try:
        found = symbol_digest(path.read_bytes())
        import laconic

        pixels = laconic.decompress(path, as_array=True)
    except LaconicError as error:
        return Check(path.stem, False, str(error))
    reference = np.asarray(Image.open(path.with_suffix(".png"))).reshape(pixels.shape)
    psnr = psnr_of(pixels, reference)
    ok = found == expected["symbols"] and psnr >= MIN_PSNR
    return Check(path.stem, ok, f"symbols {'equal' if found == expected['symbols'] else 'differ'}, {psnr:.1f} dB")


def symbol_digest(data: bytes) -> str:
    """SHA-256 over all symbols and table indices of a file."""
    from laconic import container, registry
    from laconic.fields import unpack
    from laconic.files import KINDS, Y, Z
    from laconic.photo import PhotoCoder

    header, chunks = container.read(data, KINDS)
    fields = unpack(header.fields)
    coder = PhotoCoder(registry.load_photo(registry.find(header.model, header.digest).path, "cpu"))
    parsed = coder.parse([c.payload for c in chunks if c.kind in (Z, Y)], fields)
    digest = hashlib.sha256(parsed.z.to("cpu").numpy().astype("<i2").tobytes())
    for symbols in parsed.y.values():
        digest.update(symbols.astype("<i2").tobytes())
    return digest.hexdigest()
