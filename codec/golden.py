"""Does this machine decode the golden files right?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from laconic.api import Codec, compress, decompress, info
from laconic.entropy.errors import LaconicError
from laconic.sound import Sound

GOLDEN_EFFORTS = (1, 7)
MIN_PSNR = 60.0  # dB between the pixels of two machines in float32


@dataclass(frozen=True)
class Check:
    """Tells of one golden file whether its symbols and pixels came out as they should."""

    name: str
    ok: bool
    detail: str


def selftest() -> list[Check]:
    """Decode each golden file of the package: symbols and lossless samples must be exact, pixels of photos to 60 dB."""
    folder = Path(str(files("laconic.assets") / "golden"))
    return [check(path) for path in sorted(folder.glob("*.lac"))]


def check(path: Path) -> Check:
    """Compare one file with what `NAME.json` says, and a photo with `NAME.png`, too."""
    expected = json.loads(path.with_suffix(".json").read_text())
    data = path.read_bytes()
    try:
        found, psnr = (exact_digests(data), None) if "samples" in expected else photo_digests(data, path)
    except LaconicError as error:
        return Check(path.stem, False, str(error))
    wrong = [name for name in found if found[name] != expected[name]]
    verdict = f"{', '.join(wrong)} differ" if wrong else "bits equal"
    if psnr is None:
        return Check(path.stem, not wrong, verdict)
    return Check(path.stem, not wrong and psnr >= MIN_PSNR, f"{verdict}, {psnr:.1f} dB")


def photo_digests(data: bytes, path: Path) -> tuple[dict[str, str], float]:
    from PIL import Image

    from laconic.search import psnr_of

    found = bit_digests(data)
    pixels = decompress(data, as_array=True)
    assert not isinstance(pixels, Sound)
    return found, psnr_of(pixels, np.asarray(Image.open(path.with_suffix(".png"))).reshape(pixels.shape))


def exact_digests(data: bytes) -> dict[str, str]:
    """Return the SHA-256 of the samples of a lossless file, and of the files that they make."""
    max_error = getattr(info(data), "max_error", 0)
    back = decompress(data, as_array=True)
    samples = back.samples if isinstance(back, Sound) else back
    parts = {"samples": samples.astype(samples.dtype.newbyteorder("<")).tobytes()}
    if not max_error:
        efforts = [compress(back, lossless=True, effort=effort) for effort in GOLDEN_EFFORTS]
        parts["again"] = b"".join(efforts)
    return {name: hashlib.sha256(value).hexdigest() for name, value in parts.items()}


def bit_digests(data: bytes, device: str = "cpu") -> dict[str, str]:
    """Return the SHA-256 of all that must be equal on every machine: symbols, table indices, the symbols coded again."""
    from laconic import entropy
    coded = Codec(device=device).coded(data)
    parts = {
        "symbols": [symbols.astype("<i2").tobytes() for symbols, _ in coded],
        "indices": [indices.tobytes() for _, indices in coded],
        "bytes": [entropy.encode(symbols, indices, entropy.gaussian_tables()) for symbols, indices in coded],
    }
    return {name: hashlib.sha256(b"".join(values)).hexdigest() for name, values in parts.items()}
