"""What a codec under test is, and how sounds pass from `eval` to codecs and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import laconic
import laconic.entropy
import laconic.models
from laconic.tools.metrics import Item


@dataclass(frozen=True)
class Coder:
    """Describes a codec under test. encode(item, rate) -> a file; decode(file, the item it was made of) -> an item.

    Of the item, decode may look at the size and sample rate only: what the file's user knows too.
    version: changes whenever the bytes may. codelength: bits of a file by the model's own probabilities, where known.
    payload: bytes of a file without its container, where that is another's.
    """

    name: str
    medium: str
    suffix: str
    rates: tuple[float, ...]
    version: str
    encode: Callable[[Item, float], bytes]
    decode: Callable[[bytes, Item], Item]
    codelength: Callable[[bytes], float] | None = None
    payload: Callable[[bytes], int] | None = None
    whole: bool = False  # whether rates are whole numbers


def own_version() -> str:
    """Return our version and a digest of our sources, on which the bytes of files may depend."""
    modules = (laconic.entropy, laconic.models, laconic)
    sources = digest_of(path for module in modules for path in sorted(Path(module.__file__ or "").parent.rglob("*.py")))
    return f"laconic {laconic.__version__} {sources}"


def as_integers(item: Item) -> Item:
    """Return a sound as the integers of 8, 16 or 24 bits that its float32 samples stand for; as it is where they do not."""
    for bits in (8, 16, 24):
        scaled = item.data.astype(np.float64) * (1 << bits - 1)
        if np.array_equal(scaled, scaled.round()) and scaled.max(initial=0) < 1 << bits - 1:
            return Item("sound", scaled.astype(np.int32), item.sample_rate, bits)
    return item


def as_floats(item: Item) -> Item:
    """Return a sound of integer samples as float32 in -1..1."""
    if not item.bits:
        return item
    return Item("sound", (item.data / (1 << item.bits - 1)).astype(np.float32), item.sample_rate)


def source_of(item: Item) -> dict[str, Any]:
    """Return the arguments of `compress` that stand for an item: its array, and the rate and bits of a sound."""
    if item.medium == "picture":
        return {"source": item.data}
    if not item.bits:
        return {"source": item.data, "sample_rate": item.sample_rate}
    samples = item.data + 128 if item.bits == 8 else item.data
    kind = {8: np.uint8, 16: np.int16}.get(item.bits, np.int32)
    return {"source": laconic.Sound(samples.astype(kind), item.sample_rate, item.bits)}


def from_source(found: laconic.Sound) -> Item:
    """Return a sound as `decompress` gives it, with integers around 0 of the bits that it has, or with floats."""
    samples = found.samples.reshape(len(found.samples), -1)
    if samples.dtype.kind == "f":
        return Item("sound", samples, found.sample_rate)
    around = samples.astype(np.int32) - (128 if found.bits == 8 else 0)
    return Item("sound", around, found.sample_rate, found.bits)


def digest_of(paths: Iterable[Path]) -> str:
    """Return a digest of the contents of files, 12 hexadecimal digits."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()[:12]
