"""Make the golden files of this version: `python -m laconic.tools.golden`. Tests never call it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import laconic
from laconic.golden import bit_digests, exact_digests, integer_digests

MIXED = ("lossy-exact",)  # may be coded without loss in parts


def main() -> None:
    """Write NAME.lac, NAME.json (digests) and what a network makes (NAME.png, NAME.exact) to assets/golden."""
    folder = Path(str(files("laconic.assets") / "golden"))
    folder.mkdir(exist_ok=True)
    write_lossy_sounds(folder)
    photo = np.asarray(Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB"))
    cases: dict[str, tuple[Any, float, dict[str, Any]]] = {
        "photo-low": (photo[100:228, 200:391], 10.0, {}),
        "photo-high": (photo[60:157, 300:365], 90.0, {}),
        "photo-slices": (photo[100:228, 200:391], 70.0, {"progressive": True}),
        "photo-mixed": (photo[100:228, 200:391], 60.0, {"effort": 9}),
    }
    for name, (pixels, quality, options) in cases.items():
        data = laconic.compress(pixels, quality=quality, **options)
        (folder / f"{name}.lac").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(bit_digests(data)) + "\n")
        with (folder / f"{name}.png").open("wb") as file:
            laconic.Codec(precision="float32").decompress_to(file, data)
    for name, (source, options) in exact_cases(photo).items():
        data = laconic.compress(source, **options)
        (folder / f"{name}.lac").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(exact_digests(data)) + "\n")


def write_lossy_sounds(folder: Path) -> None:
    """Write the golden files of lossy sounds to a folder; NAME.exact is what this machine decodes, kept without loss."""
    for name, (given, quality) in lossy_sounds().items():
        data = laconic.compress(given, quality=quality, fallback=name in MIXED, notes=[])
        (folder / f"{name}.lac").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(integer_digests(data)) + "\n")
        decoded = laconic.decompress(data)
        (folder / f"{name}.exact").write_bytes(laconic.compress(decoded, lossless=True, notes=[]))


def lossy_sounds() -> dict[str, tuple[laconic.Sound, float]]:
    """Return sounds and qualities: voiced and hissing, of one channel; two channels at another rate, which has levels above
    8 kHz; one of the widest core, which has more of them; one with silence; one whose middle is without loss."""
    t = np.arange(44100, dtype=np.int64)
    pulse = t * (90 + t // 3000) % 16000  # a pitch that rises, and three decaying waves in each of its periods
    formants = ((600, 2), (1500, 4), (2700, 8))
    waves = sum(triangle(t * hz, 16000) * np.maximum(16000 - fall * pulse, 0) >> 14 for hz, fall in formants)
    hiss = (t.astype(np.uint64) ** 3 * 2654435761 >> 13).astype(np.int64) % 2001 - 1000
    voice = (np.where(t // 5000 % 3 == 2, hiss, waves // 2 + hiss // 20)).astype(np.int16)
    part = voice[:20000].copy()
    part[6000:15000] = 0
    left, right = triangle(t * 523, 44100), triangle(t * 659, 44100) * (t % 11025) // 11025
    music = np.stack([left // 2 + right // 4, left // 3 - right // 4 + hiss // 30], 1).astype(np.int16)
    mixed = np.zeros((66000, 2), np.int16)
    mixed[30000:32000] = voice[:2000, None] // [1, 2]
    mixed[32000:64000] = 500 * (np.arange(32000)[:, None] // [40, 50] % 4)  # stairs
    mixed[64000:] = voice[8000:10000, None] // [2, 1]
    return {
        "lossy-exact": (laconic.Sound(mixed, 8000, 16), 40.0),
        "lossy-voice": (laconic.Sound(voice[:24000, None], 16000, 16), 30.0),
        "lossy-stereo": (laconic.Sound(music, 44100, 16), 70.0),
        "lossy-wide": (laconic.Sound(music[:20000, :1], 44100, 16), 90.0),
        "lossy-silence": (laconic.Sound(part[:, None], 16000, 16), 50.0),
    }


def triangle(phase: np.ndarray, period: int) -> np.ndarray:
    """Return a triangle wave, -8192 to 8192, of a phase that counts up to a period."""
    return 16384 * abs(2 * (phase % period) - period) // period - 8192


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
