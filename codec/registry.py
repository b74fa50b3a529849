"""Models by name and digest: the package's own, the user's folder, LACONIC_MODELS, and `register`.

A model on disk is NAME.safetensors with its card NAME.json. Its digest is the SHA-256 of the weights file; a file
stores the first four bytes. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
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
DEFAULT_PHOTO = "photo-3"


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
    """All installed models, first found first; a name may stand for several weights."""
    found = []
    for folder in folders():
        for weights in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            card = read_card(weights.with_suffix(".json"))
            if card is not None:
                found.append(ModelInfo(weights.stem, sha256(weights), str(weights), card))
    return found


def find(name: str, digest: bytes | None = None) -> ModelInfo:
    """The installed model of that name, and of that digest where a file asks for one. Raises ModelMissing."""
    name = DEFAULT_PHOTO if name == "photo" else name
    models = list_models()
    named = [model for model in models if model.name == name]
    for model in named:
        if digest is None or digest == bytes.fromhex(model.digest)[:DIGEST_BYTES]:
            return model
    if named and digest:
        mine = ", ".join(f"{model.digest[: 2 * DIGEST_BYTES]} ({model.path})" for model in named)
        raise ModelMissing(
            f"model {name}: found weights with digest {mine}, expected {digest.hex()}; "
            "the file was made with other weights of that name: put those into LACONIC_MODELS"
        )
    known = ", ".join(model.name for model in models) or "none"
    raise ModelMissing(
        f"model: found no {name!r} (installed: {known}), expected {name}.safetensors and {name}.json in "
        f"{' or '.join(str(f) for f in folders()[:2])}"
    )


def load_photo(model: ModelInfo, device: str = "cpu") -> Photo:
    """The network of a model, ready to run; its integer branches proved exact. Raises ModelMissing."""
    return _load_photo(model.path, model.digest, device)


@lru_cache(maxsize=2)
def _load_photo(path: str, digest: str, device: str) -> Photo:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from laconic.models.photo import Photo, PhotoConfig

    try:
        card: dict[str, Any] = json.loads(Path(path).with_suffix(".json").read_text())["architecture"]["config"]
        config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.items()}
        model = Photo(PhotoConfig(**config))
        model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        model.prove_exact()
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelMissing(f"model {path}: found weights that do not load ({error}), expected a photo model") from error
    model.eval().requires_grad_(False)
    model.to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def read_card(path: Path) -> dict[str, Any] | None:
    """A model's card; None, with a warning, where it cannot be read."""
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warnings.warn(f"model card {path}: found {error}, expected JSON; left out", stacklevel=2)
        return None
    return card if isinstance(card, dict) else None


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
