"""What codes the pixels of a photo: a network of the package, or a user's own model, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from laconic import registry
from laconic.container import Chunk, Header
from laconic.entropy.errors import BadFile, BadInput, ModelMissing, expect
from laconic.media.photo_effort import PLAIN, Effort
from laconic.media.photo_fields import Fields
from laconic.media.photo_mixed import Mixed
from laconic.media.photo_slices import N_PASSES, Slices
from laconic.media.tiles import Window
from laconic.medium import Run

if TYPE_CHECKING:
    from laconic.media.photo_coder import PhotoCoder

Pixels = NDArray[np.uint8]
Job = tuple[Pixels, Fields]
Z, Y, SLICE, MIXED = 1, 2, 50, 51  # kinds of chunks
MOST_PER_PASS = 8  # slices


@dataclass(frozen=True)
class Opened:
    """Holds a file whose container was read and whose fields were bounded.

    slices: how many are asked for; None is all. preview: the file may end early.
    """

    header: Header
    chunks: list[Chunk]
    fields: Fields
    slices: int | None = None
    preview: bool = False


class Layers(Protocol):
    """Codes the pixels of a photo: a network of ours, or a user's model, behind one interface."""

    @property
    def name(self) -> str:
        """The model's name, as the file has it."""

    @property
    def digest(self) -> bytes:
        """32 bytes that tell its weights from others."""

    def encode(self, jobs: list[Job], effort: Effort = PLAIN, progressive: bool = False) -> list[list[Chunk]]:
        """Return the chunks z and y of each picture, uint8 [H, W, 3], or z and slices of y.

        A model without search and slices gives what it has: who calls it has refused them.
        """

    def decode(self, file: Opened, window: Window) -> Pixels:
        """Return uint8 [H, W, 3] of a window, in pixels. Raises BadFile."""

    def decode_batch(self, files: list[Opened]) -> list[Pixels]:
        """Return the pixels of whole pictures. Raises BadFile."""

    def check(self, file: Opened) -> None:
        """Check every symbol. Raises BadFile."""


@dataclass(frozen=True)
class Network:
    """Codes by a network of the package or of the model folders. torch comes with its first use: damage is found before."""

    model: registry.ModelInfo
    run: Run

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def digest(self) -> bytes:
        """The SHA-256 of its weights."""
        return bytes.fromhex(self.model.digest)

    def coder(self) -> PhotoCoder:
        """Return the network, ready to run. Raises ModelMissing, BadInput where there is no such device."""
        import torch

        from laconic.media.photo_coder import PhotoCoder

        if self.run.device == "cuda":
            expect(torch.cuda.is_available(), BadInput, "device", "no CUDA device", "one, or device cpu")
        if self.run.threads:
            torch.set_num_threads(self.run.threads)
        return PhotoCoder(registry.load_photo(self.model, self.run.device), self.run.device, self.run.precision, self.run.threads)

    def encode(self, jobs: list[Job], effort: Effort = PLAIN, progressive: bool = False) -> list[list[Chunk]]:
        """Return the chunks z and y, or slices, of each picture, coded alone where there is an effort or there are slices."""
        coder, spent = self.coder(), effort if effort.iterations else None
        if progressive:
            coded = [coder.encode_slices(*job, spent, self.run.progress) for job in jobs]
        elif spent:
            coded = [coder.encode(*job, spent, self.run.progress) for job in jobs]
        else:
            coded = coder.encode_batch(jobs)
        return [[Chunk(Z, first), *(Chunk(kind_of(one, progressive), one) for one in rest)] for first, *rest in coded]

    def parse(self, file: Opened, window: Window | None = None) -> Any:
        """Return the symbols that a window needs. Raises BadFile."""
        layers = layers_of(file)
        return self.coder().parse(layers, file.fields, window)

    def decode(self, file: Opened, window: Window) -> Pixels:
        """Return the pixels of a window."""
        parsed = self.parse(file, window)
        return self.coder().decode(parsed, file.fields, window)

    def decode_batch(self, files: list[Opened]) -> list[Pixels]:
        """Return the pixels of whole pictures, their symbols parsed together."""
        jobs = [(layers_of(file), file.fields) for file in files]
        coder = self.coder()
        parsed = coder.parse_batch(jobs)
        return [coder.decode(found, file.fields) for found, file in zip(parsed, files, strict=True)]

    def check(self, file: Opened) -> None:
        """Parse all symbols."""
        self.parse(file)


@dataclass(frozen=True)
class OwnModel:
    """Codes by a user's model, whose one payload is chunk z."""

    model: registry.PictureModel

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def digest(self) -> bytes:
        """The model's digest."""
        return self.model.digest

    def encode(self, jobs: list[Job], effort: Effort = PLAIN, progressive: bool = False) -> list[list[Chunk]]:
        """Return what the model makes of each picture. Raises BadInput where that is not bytes."""
        return [[Chunk(Z, self.payload(pixels, fields))] for pixels, fields in jobs]

    def payload(self, pixels: Pixels, fields: Fields) -> bytes:
        """Return the model's bytes. Raises BadInput where it gives anything else."""
        found = self.model.encode(pixels, fields.quality / 100)
        ok = isinstance(found, (bytes, bytearray))
        expect(ok, BadInput, f"what encode of the model {self.name} returns", type(found).__name__, "bytes")
        return bytes(found)

    def decode(self, file: Opened, window: Window) -> Pixels:
        """Return a part of the pixels that the model gives."""
        return self.pixels(file)[window.slices]

    def decode_batch(self, files: list[Opened]) -> list[Pixels]:
        """Return the pixels of each picture."""
        return [self.pixels(file) for file in files]

    def check(self, file: Opened) -> None:
        """Decode: the model alone knows its payload."""
        self.pixels(file)

    def pixels(self, file: Opened) -> Pixels:
        """Return what the model makes of the payload. Raises BadFile, BadInput where that is no picture of the size."""
        layers = [chunk.payload for chunk in file.chunks if chunk.kind in (Z, Y)]
        expect(len(layers) == 1 and layers[0] is not None, BadFile, "chunks", len(layers), "one intact chunk")
        shape = (file.fields.height, file.fields.width)
        found = self.model.decode(bytes(layers[0] or b""), *shape, file.fields.quality / 100)
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        ok = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == (*shape, 3)
        expect(ok, BadInput, f"what decode of the model {self.name} returns", what, f"uint8 {(*shape, 3)}")
        return found


def model_of(header: Header, run: Run) -> Layers:
    """Return the model that a file names. Raises ModelMissing."""
    own = registry.registered(header.model)
    if own is None:
        return Network(registry.find(header.model, header.digest), run)
    mine = own.digest[: registry.DIGEST_BYTES]
    expect(header.digest == mine, ModelMissing, "model digest", mine.hex(), header.digest.hex())
    return OwnModel(own)


def model_named(name: str | None, run: Run) -> Layers:
    """Return the model to encode with, by default the package's. Raises ModelMissing."""
    own = registry.registered(name) if name else None
    return OwnModel(own) if own else Network(registry.find(name or registry.DEFAULT_PHOTO), run)


def kind_of(payload: bytes, progressive: bool) -> int:
    """Return the kind of a chunk of y."""
    return SLICE if progressive else MIXED if isinstance(payload, Mixed) else Y


def layers_of(file: Opened) -> list[bytes | memoryview | Slices | None]:
    """Return the payloads of z and of each y tile, of a progressive file its slices. Raises BadFile where one is missing or
    out of order."""
    tiles = slices_of(file)
    if tiles:
        return [file.chunks[0].payload, *tiles]
    found = [chunk for chunk in file.chunks if chunk.kind in (Z, Y, MIXED)]
    kinds = ["z" if chunk.kind == Z else "y" for chunk in found]
    n_tiles = file.fields.n_tiles
    right = len(kinds) == n_tiles + 1 and kinds == ["z"] + ["y"] * n_tiles
    expect(right, BadFile, "photo chunks", kinds[:3], f"z and {n_tiles} y, in this order")
    return [Mixed(one.payload) if one.kind == MIXED and one.payload is not None else one.payload for one in found]


def slices_of(file: Opened) -> list[Slices]:
    """Return the slices of each tile of a progressive file, None where they are not there or not asked for; else no tiles.

    Raises BadFile where slices are missing or out of order.
    """
    kinds = [chunk.kind for chunk in file.chunks if chunk.kind in (Z, Y, SLICE, MIXED)]
    if SLICE not in kinds:
        return []
    n_tiles = file.fields.n_tiles
    per_pass, rest = divmod(len(kinds) - 1, n_tiles * N_PASSES)
    right = kinds == [Z] + [SLICE] * (len(kinds) - 1) and file.chunks[0].kind == Z
    counted = f"{kinds.count(SLICE)} of {n_tiles} tiles" if right else "others among them"
    expected = f"z, then 1 to {MOST_PER_PASS} for each of {N_PASSES} passes of each tile"
    expect(right and not rest and 1 <= per_pass <= MOST_PER_PASS, BadFile, "slices", counted, expected)
    payloads = [chunk.payload for chunk in file.chunks if chunk.kind == SLICE]
    limit = n_slices(file) if file.slices is None else file.slices
    return [[one if k < limit else None for k, one in enumerate(payloads[tile::n_tiles])] for tile in range(n_tiles)]


def n_slices(file: Opened) -> int:
    """Return the number of slices of y of a progressive file; in the normal order the whole is one."""
    return max(1, sum(chunk.kind == SLICE for chunk in file.chunks) // file.fields.n_tiles)
