"""Photos: lossy pictures by a hyperprior network, or by a user's own model (FORMAT.md, section "Photo").

    pixels ─ photo_coder ─► payloads of z and of each y tile ─┐
    alpha, metadata ──────────────────────────────────────────┴─► chunks
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic import container, picture, registry
from laconic.container import Chunk, Data, Header
from laconic.entropy.errors import BadFile, BadInput, ModelMissing, UnsupportedFile, expect
from laconic.file_info import FileInfo, PictureInfo
from laconic.media.photo_fields import Fields, unpack
from laconic.media.tiles import Window
from laconic.medium import Common, Medium, Note, Run, Selection, Symbols, checked_region
from laconic.options import Options, Quality, Rate, Searched
from laconic.payloads import MAX_SIDE, METADATA, metadata_chunks, read_metadata
from laconic.picture import Picture
from laconic.search import psnr_of, search

if TYPE_CHECKING:
    from laconic.media.photo_coder import PhotoCoder

from laconic.suffixes import PICTURE_OUTPUTS

Pixels = NDArray[np.uint8]
Job = tuple[Pixels, Fields]
PHOTO = 1
Z, Y, ALPHA = 1, 2, 3
KINDS = {Z: "z", Y: "y", ALPHA: "alpha", **METADATA}
BATCH_PIXELS = 1 << 25  # that a GPU codes at once
T = TypeVar("T")


@dataclass(frozen=True)
class PhotoInfo(PictureInfo):
    """Describes a photo. quality: 0 to 100. tile: pixels per side."""

    gray: bool
    quality: float
    tile: int


@dataclass(frozen=True)
class Opened:
    """A file whose container was read and whose fields were bounded."""

    header: Header
    chunks: list[Chunk]
    fields: Fields


@dataclass(frozen=True)
class PictureResult:
    """A decoded picture of 8 bits per sample."""

    picture: Picture

    def value(self, as_array: bool) -> Any:
        """Return a PIL.Image, or uint8 [H, W, C]."""
        return picture.to_array(self.picture) if as_array else picture.to_image(self.picture)

    def write(self, file: BinaryIO, format: str, note: Note) -> None:
        """Write it in a format of picture.py."""
        for text in picture.save(picture.to_image(self.picture), file, format):
            note(text)


class PhotoMedium:
    """The lossy medium of pictures."""

    number, name = PHOTO, "photo"
    kinds = KINDS
    accepts = frozenset(("picture", target) for target in ("quality", "bpp", "size", "psnr"))
    selects = frozenset({"region"})
    outputs = PICTURE_OUTPUTS

    def info(self, header: Header, common: Common) -> FileInfo:
        """Describe a photo by its fields. Raises BadFile."""
        fields = unpack(header.fields, 4 * MAX_SIDE**2)
        *_, n_bytes, chunks = common
        channels = (1 if fields.gray else 3) + any(name == KINDS[ALPHA] for name, _ in chunks)
        bpp = 8 * n_bytes / (fields.width * fields.height)
        shape = (fields.width, fields.height, channels, 8, bpp)
        return PhotoInfo(*common, *shape, fields.gray, fields.quality / 100, fields.tile)

    def encode(self, source: Any, options: Options, run: Run, file: BinaryIO) -> None:
        """Write a picture's file, at the quality that keeps the target. Raises BadInput, TargetOutOfReach."""
        read = read_picture(source, options, run)
        if isinstance(options.target, Searched):
            data = searched(read, options.target, options, run)
        else:
            (data,) = encoded([read], round(options.target.value * 100), options, run)
        for note in read.notes:
            run.note(note)
        file.write(data)

    def decode(self, data: Data, selection: Selection, run: Run) -> PictureResult:
        """Decode a photo, or the tiles that a region needs. Raises BadFile, ModelMissing, BadInput."""
        file = opened(data, run)
        x, y, width, height = checked_region(selection.region, file.fields.width, file.fields.height)
        pixels = model_of(file.header, run).decode(file, Window(y, y + height, x, x + width))
        return PictureResult(picture_of(file, pixels, (x, y, width, height), run.note))

    def verify(self, data: Data, run: Run) -> None:
        """Check every symbol, alpha and metadata. Raises BadFile, ModelMissing."""
        file = opened(data, run)
        model_of(file.header, run).check(file)
        alpha_of(file)
        read_metadata(file.chunks)

    def encode_batch(self, sources: Iterable[Any], options: Options, run: Run) -> Iterator[bytes]:
        """Encode pictures at one quality; on a GPU those of many are coded at once."""
        assert isinstance(options.target, Quality)
        read = (read_picture(source, options, run) for source in sources)
        for group in groups(read, lambda one: one.pixels.shape[0] * one.pixels.shape[1], batch_pixels(run)):
            for one, data in zip(group, encoded(group, round(options.target.value * 100), options, run), strict=True):
                for note in one.notes:
                    run.note(note)
                yield data

    def decode_batch(self, files: Iterable[bytes], run: Run) -> Iterator[PictureResult]:
        """Decode whole photos; on a GPU those of one model are decoded at once."""
        read = (opened(data, run) for data in files)
        for group in groups(read, lambda one: one.fields.n_padded, batch_pixels(run)):
            for _, same in groupby(group, lambda one: (one.header.model, one.header.digest)):
                whole = list(same)
                for file, pixels in zip(whole, model_of(whole[0].header, run).decode_batch(whole), strict=True):
                    yield PictureResult(picture_of(file, pixels, (0, 0, file.fields.width, file.fields.height), run.note))

    def coded(self, data: Data, run: Run) -> Symbols:
        """Return the symbols and table indices of a photo: z, then the passes of each tile."""
        file = opened(data, run)
        model = model_of(file.header, run)
        expect(isinstance(model, Network), BadInput, "model", file.header.model, "one of the package")
        assert isinstance(model, Network)
        return model.coder().coded(model.parse(file), file.fields)

    def codelength(self, data: Data, run: Run) -> float:
        """Return the ideal bits of a photo's symbols, by unquantised Gaussians."""
        from laconic.media.photo_coder import codelength

        return codelength(self.coded(data, run))


class Layers(Protocol):
    """What codes the pixels of a photo: a network of ours, or a user's model, behind one interface."""

    @property
    def name(self) -> str:
        """The model's name, as the file has it."""

    @property
    def digest(self) -> bytes:
        """32 bytes that tell its weights from others."""

    def encode(self, jobs: list[Job]) -> list[list[Chunk]]:
        """Return the chunks z and y of each picture, uint8 [H, W, 3]."""

    def decode(self, file: Opened, window: Window) -> Pixels:
        """Return uint8 [H, W, 3] of a window, in pixels. Raises BadFile."""

    def decode_batch(self, files: list[Opened]) -> list[Pixels]:
        """Return the pixels of whole pictures. Raises BadFile."""

    def check(self, file: Opened) -> None:
        """Check every symbol. Raises BadFile."""


@dataclass(frozen=True)
class Network:
    """A network of the package or of the model folders. torch comes with its first use: damage is found before."""

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

    def encode(self, jobs: list[Job]) -> list[list[Chunk]]:
        """Return the chunks z and y of each picture."""
        coded = self.coder().encode_batch(jobs)
        return [[Chunk(Z, first), *(Chunk(Y, payload) for payload in rest)] for first, *rest in coded]

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
    """A user's model, whose one payload is chunk z."""

    model: registry.PictureModel

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def digest(self) -> bytes:
        """The model's digest."""
        return self.model.digest

    def encode(self, jobs: list[Job]) -> list[list[Chunk]]:
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


def read_picture(source: Any, options: Options, run: Run) -> Picture:
    """Read what is to be coded. Raises BadInput."""
    expect(options.effort is None, BadInput, "effort", options.effort, "none, or lossless or max_error with it")
    read = picture.read(source, max_pixels=run.max_pixels)
    return replace(read, metadata=picture.stripped(read.metadata)) if options.strip else read


def searched(source: Picture, target: Searched, options: Options, run: Run) -> bytes:
    """Return the file that keeps a target. PSNR is of float32 pixels, whatever the precision of the run."""
    height, width = source.pixels.shape[:2]
    exact = replace(run, precision="float32", note=lambda text: None)

    def measure(data: bytes) -> float:
        if isinstance(target, Rate):
            return target.rate(len(data), height * width)
        return psnr_of(PhotoMedium().decode(data, Selection(), exact).picture.pixels, source.pixels)

    return search(target, lambda units: encoded([source], units, options, run)[0], measure, "picture")


def encoded(sources: list[Picture], quality: int, options: Options, run: Run) -> list[bytes]:
    """Return the file of each picture. quality: 0 to 10,000. Raises BadInput, ModelMissing."""
    jobs = [photo_of(source, quality, run.max_pixels) for source in sources]
    model = model_named(options.model, run)
    files = []
    for source, (_, fields), layers in zip(sources, jobs, model.encode(jobs), strict=True):
        header = Header(PHOTO, model.name, model.digest[: registry.DIGEST_BYTES], fields.pack())
        alpha = [] if source.alpha is None else [Chunk(ALPHA, picture.encode_alpha(source.alpha))]
        files.append(container.write(header, [*layers, *alpha, *metadata_chunks(source.metadata)]))
    return files


def photo_of(source: Picture, quality: int, max_pixels: int) -> Job:
    """Return what the model codes, uint8 [H, W, 3], and its fields. Raises BadInput for more than can be decoded again."""
    height, width, channels = source.pixels.shape
    rgb = np.repeat(source.pixels, 3, 2) if channels == 1 else source.pixels
    fields = Fields(width, height, quality, gray=channels == 1)
    fields.check_size(max_pixels, BadInput)
    return rgb, fields


def opened(data: Data, run: Run) -> Opened:
    """Read the container of a photo and bound its fields. Raises BadFile."""
    header, chunks = container.read(bytes(data[0 : len(data)]), KINDS, partial=run.partial)
    expect(header.medium == PHOTO, UnsupportedFile, "medium", header.medium, f"{PHOTO} (photo)")
    return Opened(header, chunks, unpack(header.fields, run.max_pixels))


def layers_of(file: Opened) -> list[bytes | memoryview | None]:
    """Return the payloads of z and of each y tile. Raises BadFile where one is missing or out of order."""
    kinds = [KINDS[chunk.kind] for chunk in file.chunks if chunk.kind in (Z, Y)]
    n_tiles = file.fields.n_tiles
    right = len(kinds) == n_tiles + 1 and kinds == ["z"] + ["y"] * n_tiles
    expect(right, BadFile, "photo chunks", kinds[:3], f"z and {n_tiles} y, in this order")
    return [chunk.payload for chunk in file.chunks if chunk.kind in (Z, Y)]


def alpha_of(file: Opened) -> Pixels | None:
    """Return the alpha of a photo, uint8 [H, W], if it has any. Raises BadFile."""
    payloads = [chunk.payload for chunk in file.chunks if chunk.kind == ALPHA and chunk.payload is not None]
    return picture.decode_alpha(bytes(payloads[-1]), file.fields.height, file.fields.width) if payloads else None


def picture_of(file: Opened, pixels: Pixels, region: tuple[int, int, int, int], note: Note) -> Picture:
    """Return decoded pixels with the file's alpha and metadata; note what is missing."""
    x, y, width, height = region
    alpha = alpha_of(file)
    if alpha is not None:
        alpha = alpha[y : y + height, x : x + width]
    metadata = read_metadata(file.chunks)
    if file.fields.gray:
        pixels = ((pixels.sum(2, keepdims=True, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    for text in missing_parts(file):
        note(text)
    return Picture(pixels, alpha, metadata)


def missing_parts(file: Opened) -> list[str]:
    """Return what partial reading left out, a line for each damaged chunk."""
    found, n_tiles, side = [], 0, file.fields.tile
    across = -(-file.fields.width // side)
    for chunk in file.chunks:
        name = KINDS[chunk.kind]
        if chunk.kind == Y:
            row, column = divmod(n_tiles, across)
            name = f"y of the tile at {column * side},{row * side} ({side} pixels a side)"
            n_tiles += 1
        if chunk.payload is None:
            found.append(f"damaged, left out: {name}")
    return found


def batch_pixels(run: Run) -> int:
    """Return how many pixels are coded together."""
    return BATCH_PIXELS if run.device == "cuda" else 0


def groups(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Yield consecutive items in lists whose total size is at most `limit`; each has at least one."""
    group: list[T] = []
    total = 0
    for item in items:
        if group and total + size(item) > limit:
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group


MEDIUM: Medium = PhotoMedium()
