"""Models by name and digest: the package's own, the user's folder, LACONIC_MODELS, and `register`.

A model on disk is NAME.safetensors with its card NAME.json, whose architecture names the class that loads it. Its digest
is the SHA-256 of the weights file; a file stores the first four bytes. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from laconic.entropy.errors import BadInput, LaconicError, ModelMissing, expect

if TYPE_CHECKING:
    import numpy as np

    from laconic.models.hclt import Hclt
    from laconic.models.photo import Photo

DIGEST_BYTES = 4
DEFAULT_PHOTO, DEFAULT_SOUND = "photo-6", "sound-2"
# The classes that a card may name.
PHOTO, CIRCUIT, SOUND = "laconic.models.photo.Photo", "laconic.models.hclt.Hclt", "laconic.models.sound.Sound"
COMPRESSAI = "compressai"  # begins the names of its models, and names their medium
CHECKPOINTS = (".pth", ".pth.tar", ".pt", ".ckpt")  # suffixes of its models' files
MAX_CARD_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 32


class PictureModel(Protocol):
    """Codes pictures by a user's own model: `laconic.register(model)`, then `laconic.compress(image, model=model.name)`.

    name: ASCII, 1 to 200 printable characters, in no other model's use. digest: 32 bytes that change with the weights.
    Both sides must give the same integers on every machine wherever they choose a probability.
    """

    name: str
    digest: bytes

    def encode(self, pixels: np.ndarray, quality: float) -> bytes:
        """Return the payload of a picture, uint8 [H, W, 3]. quality: 0 to 100."""

    def decode(self, payload: bytes, height: int, width: int, quality: float) -> np.ndarray:
        """Return uint8 [height, width, 3] of a payload. Raises BadFile on damage."""


class Storable(Protocol):
    """Writes itself to a folder of models."""

    def save(self, path: Path) -> dict[str, Any]:
        """Write the weights; return what the card says of their architecture."""


@dataclass(frozen=True)
class ModelInfo:
    """Describes an installed model, as `laconic models` lists it. digest: SHA-256 of the weights, hexadecimal."""

    name: str
    digest: str
    path: str
    card: dict[str, Any]

    @property
    def architecture(self) -> dict[str, Any]:
        """What the card says of the class that loads it, and of its sizes; empty where it says nothing."""
        found = self.card.get("architecture")
        return found if isinstance(found, dict) else {}


_registered: dict[str, PictureModel] = {}


def register(model: PictureModel) -> None:
    """Make a model of one's own known, for coding and for reading the files that name it. Raises BadInput."""
    check_name(model.name)
    expect(len(model.digest) == 32, BadInput, "model digest", len(model.digest), "32 bytes")
    expect(model.name not in {name for name, _ in on_disk()}, BadInput, "model name", model.name, "a name not in use")
    _registered[model.name] = model


def registered(name: str) -> PictureModel | None:
    """Return the user's model of that name, if there is one."""
    return _registered.get(name)


def medium_of(model: str | None) -> str | None:
    """Return the name of the one medium that a model codes for: CompressAI's have their own. None for all others."""
    if model is None or model in _registered:
        return None
    return COMPRESSAI if model.startswith(f"{COMPRESSAI}:") or model.endswith(CHECKPOINTS) else None


def list_models() -> list[ModelInfo]:
    """List all installed models, first found first; a name may stand for several weights."""
    return [model for _, path in on_disk() if (model := described(path)) is not None]


def find(name: str, digest: bytes | None = None) -> ModelInfo:
    """Return the installed model of that name, and of that digest where a file asks for one. Raises ModelMissing."""
    name = DEFAULT_PHOTO if name == "photo" else name
    named = [model for known, path in on_disk() if known == name and (model := described(path)) is not None]
    for model in named:
        if digest is None or digest == bytes.fromhex(model.digest)[:DIGEST_BYTES]:
            return model
    if named and digest:
        mine = ", ".join(f"{model.digest[: 2 * DIGEST_BYTES]} ({model.path})" for model in named)
        raise ModelMissing(
            f"model {name}: found weights with digest {mine}, expected {digest.hex()}; "
            "the file was made with other weights of that name: put those into LACONIC_MODELS"
        )
    known = ", ".join(repr(other)[1:-1] for other, _ in on_disk()) or "none"
    raise ModelMissing(
        f"model: found no {name!r} (installed: {known}), expected {name}.safetensors and {name}.json in "
        f"{' or '.join(str(f) for f in folders()[:2])}"
    )


def load_photo(model: ModelInfo, device: str = "cpu") -> Photo:
    """Return the photo network of a model, ready to run; its integer branches proved exact. Raises ModelMissing."""
    return cast("Photo", load(model, PHOTO, device))


def load_circuit(model: ModelInfo) -> Hclt:
    """Return the circuit of a model, checked. Raises ModelMissing."""
    return cast("Hclt", load(model, CIRCUIT))


def load(model: ModelInfo, kind: str, device: str = "cpu") -> Any:
    """Return a model, loaded by the class that its card names, which must be `kind`. Raises ModelMissing.

    A model that was loaded lately is kept.
    """
    found = model.architecture.get("class")
    expect(found == kind, ModelMissing, f"model {model.path}, architecture.class", found, kind)
    config = json.dumps(model.architecture.get("config", {}), sort_keys=True)
    return _load(kind, model.path, model.digest, config, device)


@lru_cache(maxsize=2)
def _load(kind: str, path: str, digest: str, config: str, device: str) -> Any:
    from safetensors import SafetensorError

    module, _, name = kind.rpartition(".")
    load_from = getattr(import_module(module), name).load
    try:
        return load_from(path, json.loads(config), device)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError) as error:
        raise ModelMissing(f"model {path}: found weights that do not load ({error}), expected {name}") from error


def save(model: Storable, folder: Path, name: str, card: dict[str, Any] | None = None) -> ModelInfo:
    """Write NAME.safetensors and NAME.json into a folder. card: what is to be said of it besides name and digest.

    Raises BadInput for a name that cannot be one of files.
    """
    check_name(name)
    expect(name == Path(name).name, BadInput, "model name", name, "no folder in it")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    architecture = model.save(path)
    about = {"name": name, "digest": sha256(path), "architecture": architecture, **(card or {})}
    path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")
    return model_at(path)


def model_at(path: Path) -> ModelInfo:
    """Return the model of a weights file with its card. Raises ModelMissing."""
    found = described(path)
    if found is None:
        raise ModelMissing(f"model {path}: found no weights with a card, expected both")
    return found


def check_name(name: object) -> None:
    """Refuse what cannot name a model. Raises BadInput."""
    ok = isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) <= 200
    expect(ok, BadInput, "model name", name, "1-200 printable ASCII characters")


def on_disk() -> Iterator[tuple[str, Path]]:
    """Yield name and weights of what lies in the folders of models; a folder that cannot be read is passed over."""
    for folder in folders():
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
        except OSError:  # none there, or another user's
            continue
        yield from ((path.stem, path) for path in found if path.with_suffix(".json").exists())


def described(path: Path) -> ModelInfo | None:
    """Return the model of a weights file; None, with a warning, where it or its card cannot be read."""
    try:
        card = read_card(path.with_suffix(".json"))
        return None if card is None else ModelInfo(path.stem, sha256(path), str(path), card)
    except (OSError, LaconicError) as error:
        warnings.warn(f"model {str(path)!r}: found {error}, expected weights; left out", stacklevel=2)
        return None


def read_card(path: Path) -> dict[str, Any] | None:
    """Return a model's card; None, with a warning, where it cannot be read."""
    try:
        about = path.stat()  # first: to open a pipe would wait for a writer
        expect(stat.S_ISREG(about.st_mode), BadInput, "card", "no file", "a file")
        expect(about.st_size <= MAX_CARD_BYTES, BadInput, "card", f"{about.st_size} bytes", f"at most {MAX_CARD_BYTES}")
        card = json.loads(path.read_bytes())
        expect(isinstance(card, dict), BadInput, "card", type(card).__name__, "an object")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        warnings.warn(f"model card {str(path)!r}: found {error}, expected JSON; left out", stacklevel=2)
        return None
    return cast(dict[str, Any], card)


def folders() -> list[Path]:
    """Return where models are looked for: LACONIC_MODELS, the user's data folder, the package."""
    from platformdirs import user_data_dir

    own = [Path(p) for p in os.environ.get("LACONIC_MODELS", "").split(os.pathsep) if p]
    return [*own, Path(user_data_dir("laconic")), Path(str(files("laconic.assets") / "weights"))]


def sha256(path: Path) -> str:
    """Return the digest of a weights file, remembered by path, size and modification time.

    Raises OSError, BadInput for what is no file of at most 4 GiB.
    """
    found = path.stat()
    expect(stat.S_ISREG(found.st_mode), BadInput, "weights", "no file", "a file")
    expect(found.st_size <= MAX_WEIGHTS_BYTES, BadInput, "bytes", found.st_size, f"at most {MAX_WEIGHTS_BYTES}")
    return _sha256(str(path), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _sha256(path: str, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
