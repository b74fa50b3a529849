"""Does this machine decode the golden files right?"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laconic.api import Codec, compress, decompress, info, medium_of
from laconic.entropy.errors import LaconicError
from laconic.medium import Integral, Run
from laconic.sound import Sound
from laconic.sources import opened

GOLDEN_EFFORTS = (1, 7)
MIN_PSNR = 60.0  # dB between the pixels of two machines in float32
MIN_SNR = 60.0  # dB of a sound over what two machines differ in


@dataclass(frozen=True)
class Check:
    """Tells of one golden file whether its integers and samples came out as they should."""

    name: str
    ok: bool
    detail: str


def selftest() -> list[Check]:
    """Decode each golden file of the package: integers and lossless samples must be exact, what networks make, to 60 dB."""
    folder = Path(str(files("laconic.assets") / "golden"))
    return [check(path) for path in sorted(folder.glob("*.lac"))]


def check(path: Path) -> Check:
    """Compare one file with what `NAME.json` says, a photo with `NAME.png`, too, a lossy sound with `NAME.exact`."""
    expected = json.loads(path.with_suffix(".json").read_text())
    data = path.read_bytes()
    try:
        if "samples" in expected:
            found, near, least = exact_digests(data), None, 0.0
        elif "integers" in expected:
            found, near, least = integer_digests(data), snr_of(data, path.with_suffix(".exact").read_bytes()), MIN_SNR
        else:
            found, near, least = bit_digests(data), photo_psnr(data, path.with_suffix(".png")), MIN_PSNR
    except LaconicError as error:
        return Check(path.stem, False, str(error))
    wrong = [name for name in found if found[name] != expected[name]]
    verdict = f"{', '.join(wrong)} differ" if wrong else "bits equal"
    if near is None:
        return Check(path.stem, not wrong, verdict)
    return Check(path.stem, not wrong and near >= least, f"{verdict}, {near:.1f} dB")


def photo_psnr(data: bytes, path: Path) -> float:
    """Return the PSNR in dB of a photo as this machine decodes it, against its pixels in a PNG file."""
    from PIL import Image

    from laconic.search import psnr_of

    pixels = decompress(data, as_array=True, precision="float32")
    assert not isinstance(pixels, Sound)
    return psnr_of(pixels, np.asarray(Image.open(path)).reshape(pixels.shape))


def snr_of(data: bytes, exact: bytes) -> float:
    """Return how far a sound lies, in dB, above its difference from one kept without loss; no silence may be filled."""
    found, expected = (as_float(file) for file in (data, exact))
    if found.shape != expected.shape or found[expected.any(1) == 0].any():
        return -math.inf
    return float(10 * np.log10((expected**2).sum() / max(((found - expected) ** 2).sum(), 1e-20)))


def as_float(data: bytes) -> NDArray[np.float64]:
    back = decompress(data, as_array=True)
    assert isinstance(back, Sound)
    return back.samples.astype(np.float64)


def integer_digests(data: bytes) -> dict[str, str]:
    """Return the SHA-256 of all integers that a lossy sound is made from, as int32."""
    with opened(data) as file:
        medium = medium_of(file)
        assert isinstance(medium, Integral)
        parts = [part.astype("<i4").tobytes() for part in medium.integers(file, Run())]
    return {"integers": hashlib.sha256(b"".join(parts)).hexdigest()}


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
    """Return the SHA-256 of all that must be equal on every machine: symbols, table indices, and the symbols as coded by Gaussians."""
    from laconic import entropy
    coded = Codec(device=device).coded(data)
    parts = {
        "symbols": [symbols.astype("<i2").tobytes() for symbols, _ in coded],
        "indices": [indices.tobytes() for _, indices in coded],
        "bytes": [entropy.encode(symbols, indices, entropy.gaussian_tables()) for symbols, indices in coded],
    }
    return {name: hashlib.sha256(b"".join(values)).hexdigest() for name, values in parts.items()}
