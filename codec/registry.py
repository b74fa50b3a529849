"""Models by name and digest: the package's own, the user's folder, LACONIC_MODELS, and `register`.

A model on disk is NAME.safetensors with its card NAME.json. Its digest is the SHA-256 of the weights file; a file
stores the first four bytes. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from laconic.entropy.errors import BadInput, ModelMissing, expect

if TYPE_CHECKING:
    import numpy as np

    from laconic.models.photo import Photo

DIGEST_BYTES = 4
DEFAULT_PHOTO = "photo-1"


class PictureModel(Protocol):
    """A user's own model: `laconic.register(model)`, then `laconic.compress(image, model=model.name)`.

    name: ASCII, 1 to 200 characters, in no other model's use. digest: 32 bytes that change with the weights.
    Both sides must give the same integers on every machine wherever they choose a probability.
    """

    name: str
    digest: bytes

    def encode(self, pixels: np.ndarray, quality: float) -> bytes:
        """uint8 [H, W, 3], quality 0..100 -> payload."""

    def decode(self, payload: bytes, height: int, width: int, quality: float) -> np.ndarray:
        """The payload -> uint8 [height, width, 3]. Raises BadFile on damage."""


@dataclass(frozen=True)
class ModelInfo:
    """An installed model, as `laconic models` lists it."""

    name: str
    digest: str  # SHA-256 of the weights, hexadecimal
    path: str
    card: dict[str, Any]


_registered: dict[str, PictureModel] = {}


def register(model: PictureModel) -> None:
    """Make a model of one's own known, for coding and for reading the files that name it."""
    expect(model.name.isascii() and 0 < len(model.name) <= 200, BadInput, "model name", model.name, "1-200 ASCII")
    expect(len(model.digest) == 32, BadInput, "model digest", len(model.digest), "32 bytes")
    expect(model.name not in {m.name for m in list_models()}, BadInput, "model name", model.name, "a name not in use")
    _registered[model.name] = model


def registered(name: str) -> PictureModel | None:
    """The user's model of that name, if there is one."""
    return _registered.get(name)


def list_models() -> list[ModelInfo]:
    """All installed models; the first of a name wins."""
    found: dict[str, ModelInfo] = {}
    for folder in folders():
        for weights in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            if weights.stem not in found and weights.with_suffix(".json").exists():
                card = json.loads(weights.with_suffix(".json").read_text())
                found[weights.stem] = ModelInfo(weights.stem, sha256(weights), str(weights), card)
    return list(found.values())


def find(name: str, digest: bytes | None = None) -> ModelInfo:
    """The installed model of that name. Raises ModelMissing, also when a file's digest is another one's."""
    for model in list_models():
        if model.name == name:
            mine = bytes.fromhex(model.digest)[:DIGEST_BYTES]
            if digest is None or digest == mine:
                return model
            raise ModelMissing(
                f"model {name}: found weights with digest {mine.hex()} ({model.path}), expected {digest.hex()}; "
                "the file was made with other weights of that name: put those into LACONIC_MODELS"
            )
    known = ", ".join(m.name for m in list_models()) or "none"
    raise ModelMissing(
        f"model: found no {name!r} (installed: {known}), expected {name}.safetensors and {name}.json in "
        f"{' or '.join(str(f) for f in folders()[:2])}"
    )


@lru_cache(maxsize=2)
def load_photo(path: str, device: str) -> Photo:
    """The network of a weights file, ready to run; its integer branch proved exact."""
    import torch
    from safetensors.torch import load_file

    from laconic.models.photo import Photo, PhotoConfig

    card = json.loads(Path(path).with_suffix(".json").read_text())
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["architecture"]["config"].items()}
    model = Photo(PhotoConfig(**config))
    model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    model.prove_exact()
    model.eval().requires_grad_(False)
    model.to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def folders() -> list[Path]:
    """Where models are looked for: LACONIC_MODELS, the user's data folder, the package."""
    from platformdirs import user_data_dir

    own = [Path(p) for p in os.environ.get("LACONIC_MODELS", "").split(os.pathsep) if p]
    return [*own, Path(user_data_dir("laconic")), Path(str(files("laconic.assets") / "weights"))]


def sha256(path: Path) -> str:
    """Digest of a weights file, remembered per path and modification time."""
    stat = path.stat()
    return _sha256(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _sha256(path: str, mtime_ns: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
