"""Files <-> pictures: the codec that users hold."""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic import container, picture, registry
from laconic.container import Chunk, Header
from laconic.entropy.errors import BadFile, BadInput, ModelMissing, UnsupportedFile, expect
from laconic.fields import DEFAULT_MAX_PIXELS, MAX_SIDE, Fields, unpack
from laconic.picture import Picture
from laconic.targets import psnr_of, search

if TYPE_CHECKING:
    from laconic.photo import PhotoCoder

__all__ = ["Codec", "FileInfo", "LaconicWarning", "Source", "info", "psnr_of", "verify"]

Source = Any  # path, file object, bytes (decompress), PIL.Image or array (compress)
PHOTO = 1  # media of the container
Z, Y, ALPHA, ICC, EXIF, XMP = 1, 2, 3, 4, 5, 6  # kinds of chunks
METADATA = {ICC: "icc", EXIF: "exif", XMP: "xmp"}
KINDS = frozenset({Z, Y, ALPHA, *METADATA})
KIND_NAMES = {Z: "z", Y: "y", ALPHA: "alpha", **METADATA}
DEFAULT_QUALITY = 60.0
BATCH_PIXELS = 1 << 25  # that a GPU codes at once
T = TypeVar("T")


class LaconicWarning(UserWarning):
    """Something that the caller should know: a conversion, a file larger than its input."""


@dataclass(frozen=True)
class FileInfo:
    """What is in a file, read without a network."""

    medium: str
    width: int
    height: int
    gray: bool
    quality: float
    model: str
    digest: str
    tile: int
    n_bytes: int
    bpp: float
    chunks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Codec:
    """Compress and decompress with the networks kept warm. Picklable: the networks load again where it arrives.

    model: a name of `laconic.list_models()` or of a registered model; None is the default.
    device: "cpu" or "cuda". precision: "float32" (default, and what a target in dB is measured with) or "bf16" (faster;
    pixels agree with float32 to 48 dB or better). float32 pixels of two machines agree to 60 dB or better.
    threads: of the entropy coder and the networks; None is a thread a core.
    """

    model: str | None = None
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        expect(self.device in ("cpu", "cuda"), BadInput, "device", self.device, "cpu or cuda")
        expect(self.precision in ("float32", "bf16"), BadInput, "precision", self.precision, "float32 or bf16")
        expect(self.threads is None or self.threads > 0, BadInput, "threads", self.threads, "at least 1")

    def compress(
        self,
        image: Source,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        strip: bool = False,
        notes: list[str] | None = None,
    ) -> bytes:
        """A picture -> the bytes of a file.

        image: path, file object, PIL.Image, or uint8/uint16 array [H, W] or [H, W, C].
        At most one of: quality 0..100 (default 60), bpp (bits a pixel, kept within 2 %), size (bytes, never more),
        psnr (dB, reached and exceeded by at most 0.1). strip: leave out ICC, EXIF and XMP.
        notes: a list to be told in what was changed, and of a file larger than its input; None warns (LaconicWarning).
        Raises BadInput; TargetOutOfReach names the range that can be reached.
        """
        name, value = one_target({"quality": quality, "bpp": bpp, "size": size, "psnr": psnr})
        read, n_bytes = self._read(image, strip)
        if name == "quality":
            (data,) = self._encode([read], round(value * 100))
        else:
            reference = replace(self, precision="float32")
            data = search(name, value, read, lambda units: self._encode([read], units)[0], reference._decode_pixels)
        tell(notes_on(read, n_bytes, data), notes)
        return data

    def decompress(
        self,
        data: Source,
        *,
        region: tuple[int, int, int, int] | None = None,
        partial: bool = False,
        as_array: bool = False,
        notes: list[str] | None = None,
    ) -> Any:
        """The bytes of a file (or its path, or a file object) -> PIL.Image, or array [H, W, C].

        region: x, y, width, height in pixels: only the tiles that it needs are decoded. partial: a damaged file gives
        what it still holds. notes: a list to be told in what is missing then; None warns (LaconicWarning).
        Raises BadFile, ModelMissing, BadInput.
        """
        out = self._decode(load(data), region, partial)
        tell(list(out.notes), notes)
        return picture.to_array(out) if as_array else picture.to_image(out)

    def codelength(self, data: Source) -> float:
        """Ideal bits of a photo's symbols under its model, by unquantised Gaussians: what the coder is measured by."""
        from laconic.photo import codelength

        return codelength(self.coded(data))

    def coded(self, data: Source) -> list[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
        """(symbols, table indices) of a photo in the order they are coded: z, then the passes of each tile."""
        header, chunks = container.read(load(data), KINDS)
        fields = self._fields(header)
        coder = self._coder_of(header)
        return coder.coded(coder.parse(layers_of(chunks, fields), fields), fields)

    def compress_batch(
        self,
        images: Iterable[Source],
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        strip: bool = False,
        notes: list[str] | None = None,
    ) -> list[bytes]:
        """`compress` for pictures of any sizes, with the same target for each.

        On a GPU the symbols of many pictures are coded at once; with another target than a quality each is searched alone.
        """
        name, value = one_target({"quality": quality, "bpp": bpp, "size": size, "psnr": psnr})
        if name != "quality":
            return [self.compress(image, bpp=bpp, size=size, psnr=psnr, strip=strip, notes=notes) for image in images]
        files: list[bytes] = []
        read = (self._read(image, strip) for image in images)
        for group in groups(read, lambda one: one[0].pixels.shape[0] * one[0].pixels.shape[1], self._batch_pixels):
            files += self._encode([source for source, _ in group], round(value * 100))
            for data, (source, n_bytes) in zip(files[-len(group) :], group, strict=True):
                tell(notes_on(source, n_bytes, data), notes)
        return files

    def decompress_batch(
        self,
        files: Iterable[Source],
        *,
        region: tuple[int, int, int, int] | None = None,
        partial: bool = False,
        as_array: bool = False,
        notes: list[str] | None = None,
    ) -> list[Any]:
        """`decompress` for several files, with the same options for each; on a GPU the symbols of many are decoded at once."""
        if region is not None or partial:
            return [
                self.decompress(file, region=region, partial=partial, as_array=as_array, notes=notes) for file in files
            ]
        pictures: list[Picture] = []
        opened = (self._open(load(file), partial=False) for file in files)
        for group in groups(opened, lambda one: one.fields.width * one.fields.height, self._batch_pixels):
            pictures += self._decode_batch(group)
        return [picture.to_array(out) if as_array else picture.to_image(out) for out in pictures]

    @property
    def _batch_pixels(self) -> int:
        return BATCH_PIXELS if self.device == "cuda" else 0

    def _read(self, image: Source, strip: bool) -> tuple[Picture, int | None]:
        """The picture, and the bytes of its file where it comes from one."""
        n_bytes = None
        if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
            raw = load(image)
            image, n_bytes = io.BytesIO(raw), len(raw)
        read = picture.read(image, max_pixels=self.max_pixels)
        return replace(read, metadata={}) if strip else read, n_bytes

    def _encode(self, sources: list[Picture], quality: int) -> list[bytes]:
        pictures = [photo_of(source, quality) for source in sources]
        own = registry.registered(self.model) if self.model else None
        if own:
            name, digest = own.name, own.digest
            layers = [[Chunk(Z, own.encode(rgb, quality / 100))] for rgb, _ in pictures]
        else:
            model = registry.find(self.model or registry.DEFAULT_PHOTO)
            name, digest = model.name, bytes.fromhex(model.digest)
            coded = self._coder(model).encode_batch(pictures)
            layers = [[Chunk(Z, first), *(Chunk(Y, payload) for payload in rest)] for first, *rest in coded]
        return [
            container.write(
                Header(PHOTO, name, digest[: registry.DIGEST_BYTES], fields.pack()), chunks + extra_chunks(source)
            )
            for source, (_, fields), chunks in zip(sources, pictures, layers, strict=True)
        ]

    def _open(self, data: bytes, partial: bool) -> Opened:
        header, chunks = container.read(data, KINDS, partial=partial)
        return Opened(header, chunks, self._fields(header))

    def _decode(self, data: bytes, region: tuple[int, int, int, int] | None, partial: bool) -> Picture:
        file = self._open(data, partial)
        x, y, width, height = checked_region(region, file.fields)
        own = registry.registered(file.header.model)
        if own:
            pixels = self._own_pixels(own, file.chunks, file.fields)[y : y + height, x : x + width]
        else:
            layers, coder = layers_of(file.chunks, file.fields), self._coder_of(file.header)
            from laconic.photo import Window  # torch comes with it: damage is found before

            window = Window(y, y + height, x, x + width)
            pixels = coder.decode(coder.parse(layers, file.fields, window), file.fields, window)
        return picture_of(file, pixels, (x, y, width, height))

    def _decode_batch(self, files: list[Opened]) -> list[Picture]:
        """Whole pictures; those of a model of the package are parsed together."""
        out: dict[int, Picture] = {}
        ours: dict[tuple[str, bytes], list[int]] = {}
        for i, file in enumerate(files):
            own = registry.registered(file.header.model)
            if own:
                out[i] = picture_of(
                    file, self._own_pixels(own, file.chunks, file.fields), checked_region(None, file.fields)
                )
            else:
                ours.setdefault((file.header.model, file.header.digest), []).append(i)
        for places in ours.values():
            layers = [(layers_of(files[i].chunks, files[i].fields), files[i].fields) for i in places]
            coder = self._coder_of(files[places[0]].header)
            for i, parsed in zip(places, coder.parse_batch(layers), strict=True):
                pixels = coder.decode(parsed, files[i].fields)
                out[i] = picture_of(files[i], pixels, checked_region(None, files[i].fields))
        return [out[i] for i in range(len(files))]

    def _own_pixels(self, own: registry.PictureModel, chunks: list[Chunk], fields: Fields) -> NDArray[np.uint8]:
        layers = [chunk for chunk in chunks if chunk.kind in (Z, Y)]
        expect(len(layers) == 1 and layers[0].payload is not None, BadFile, "chunks", len(layers), "one intact chunk")
        pixels = own.decode(bytes(layers[0].payload or b""), fields.height, fields.width, fields.quality / 100)
        expect(pixels.shape == (fields.height, fields.width, 3), BadFile, "decoded shape", pixels.shape, "the header's")
        return pixels

    def _fields(self, header: Header) -> Fields:
        expect(header.medium == PHOTO, UnsupportedFile, "medium", header.medium, f"{PHOTO} (photo)")
        own = registry.registered(header.model)
        if own:
            mine = own.digest[: registry.DIGEST_BYTES]
            expect(header.digest == mine, ModelMissing, "model digest", mine.hex(), header.digest.hex())
        return unpack(header.fields, self.max_pixels)

    def _decode_pixels(self, data: bytes) -> NDArray[np.uint8]:
        return self._decode(data, None, False).pixels

    def _coder_of(self, header: Header) -> PhotoCoder:
        return self._coder(registry.find(header.model, header.digest))

    def _coder(self, model: registry.ModelInfo) -> PhotoCoder:
        import torch

        from laconic.photo import PhotoCoder

        if self.device == "cuda":
            expect(torch.cuda.is_available(), BadInput, "device", "no CUDA device", "one, or device cpu")
        if self.threads:
            torch.set_num_threads(self.threads)
        return PhotoCoder(registry.load_photo(model, self.device), self.device, self.precision, self.threads)


def info(data: Source) -> FileInfo:
    """What is in a file, from its header and chunk table alone; payloads are not checked."""
    raw = load(data)
    header, table = container.read_header(raw)
    expect(header.medium == PHOTO, UnsupportedFile, "medium", header.medium, f"{PHOTO} (photo)")
    fields = unpack(header.fields, MAX_SIDE**2)
    return FileInfo(
        medium="photo",
        width=fields.width,
        height=fields.height,
        gray=fields.gray,
        quality=fields.quality / 100,
        model=header.model,
        digest=header.digest.hex(),
        tile=fields.tile,
        n_bytes=len(raw),
        bpp=8 * len(raw) / (fields.width * fields.height),
        chunks=tuple((KIND_NAMES.get(kind, f"kind {kind}"), length) for kind, length in table),
    )


def verify(data: Source, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Check a file without running a float network: every checksum, every length, every symbol. Raises BadFile."""
    header, chunks = container.read(load(data), KINDS)
    codec = Codec(max_pixels=max_pixels)
    fields = codec._fields(header)
    own = registry.registered(header.model)
    if own:
        codec._own_pixels(own, chunks, fields)
    else:
        layers = layers_of(chunks, fields)
        codec._coder_of(header).parse(layers, fields)
    for chunk in chunks:
        if chunk.kind == ALPHA:
            picture.decode_alpha(bytes(chunk.payload or b""), fields.height, fields.width)
        elif chunk.kind in METADATA:
            picture.decode_metadata(bytes(chunk.payload or b""))


@dataclass(frozen=True)
class Opened:
    """A file whose container was read."""

    header: Header
    chunks: list[Chunk]
    fields: Fields


def photo_of(source: Picture, quality: int) -> tuple[NDArray[np.uint8], Fields]:
    """What the photo model codes: uint8 [H, W, 3]."""
    height, width, channels = source.pixels.shape
    rgb = np.repeat(source.pixels, 3, 2) if channels == 1 else source.pixels
    return rgb, Fields(width, height, quality, gray=channels == 1)


def extra_chunks(source: Picture) -> list[Chunk]:
    """Alpha and metadata."""
    chunks = [] if source.alpha is None else [Chunk(ALPHA, picture.encode_alpha(source.alpha))]
    for kind, key in METADATA.items():
        if source.metadata.get(key):
            chunks.append(Chunk(kind, picture.encode_metadata(source.metadata[key]), optional=True))
    return chunks


def picture_of(file: Opened, pixels: NDArray[np.uint8], region: tuple[int, int, int, int]) -> Picture:
    """Decoded pixels with the file's alpha and metadata, and what is missing."""
    x, y, width, height = region
    fields, alpha = file.fields, None
    metadata: dict[str, bytes] = {}
    for chunk in file.chunks:
        if chunk.kind == ALPHA and chunk.payload is not None:
            alpha = picture.decode_alpha(bytes(chunk.payload), fields.height, fields.width)
            alpha = alpha[y : y + height, x : x + width]
        elif chunk.kind in METADATA and chunk.payload is not None:
            metadata[METADATA[chunk.kind]] = picture.decode_metadata(bytes(chunk.payload))
    if fields.gray:
        pixels = ((pixels.sum(2, keepdims=True, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    return Picture(pixels, alpha, metadata, tuple(missing_parts(file.chunks, fields)))


def groups(items: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Neighbours together while their sizes sum to at most `most`; never none."""
    group: list[T] = []
    for item in items:
        if group and sum(map(size, group)) + size(item) > most:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def layers_of(chunks: list[Chunk], fields: Fields) -> list[bytes | memoryview | None]:
    """Payloads of z and of each y tile. Raises BadFile where one is missing or out of order."""
    kinds = [KIND_NAMES[chunk.kind] for chunk in chunks if chunk.kind in (Z, Y)]
    expected = ["z"] + ["y"] * fields.n_tiles
    expect(kinds == expected, BadFile, "photo chunks", kinds[:3], f"z and {fields.n_tiles} y, in this order")
    return [chunk.payload for chunk in chunks if chunk.kind in (Z, Y)]


def missing_parts(chunks: list[Chunk], fields: Fields) -> list[str]:
    """What partial reading left out, a line for each damaged chunk."""
    found = []
    across = -(-fields.width // fields.tile)
    n_tiles = 0
    for chunk in chunks:
        name = KIND_NAMES[chunk.kind]
        if chunk.kind == Y:
            row, column = divmod(n_tiles, across)
            name = f"y of the tile at {column * fields.tile},{row * fields.tile} ({fields.tile} pixels a side)"
            n_tiles += 1
        if chunk.payload is None:
            found.append(f"damaged, left out: {name}")
    return found


def one_target(targets: dict[str, float | None]) -> tuple[str, float]:
    """The target that was given, or the default quality. Raises BadInput."""
    given = {name: value for name, value in targets.items() if value is not None}
    expect(len(given) <= 1, BadInput, "targets", sorted(given), "at most one of quality, bpp, size, psnr")
    ((name, value),) = given.items() or [("quality", DEFAULT_QUALITY)]
    number = isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)
    if name == "quality":
        expect(number and 0 <= value <= 100, BadInput, name, value, "0 to 100")
    else:
        expect(number and value > 0, BadInput, name, value, "a positive number")
    return name, float(value)


def notes_on(source: Picture, n_bytes: int | None, data: bytes) -> list[str]:
    """What the caller should know of a picture, from a file of n_bytes or none, and of its coded file."""
    larger = n_bytes is not None and len(data) > n_bytes
    return [*source.notes, *[f"the output is larger than the input ({len(data)} > {n_bytes} bytes)"] * larger]


def tell(texts: list[str], notes: list[str] | None) -> None:
    """Into the caller's list, or as warnings that point at the line which called the codec."""
    if notes is not None:
        notes += texts
    else:
        frame, level = sys._getframe(), 1
        while frame.f_back is not None and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
            frame, level = frame.f_back, level + 1
        for text in texts:
            warnings.warn(text, LaconicWarning, stacklevel=level)


def load(data: Source) -> bytes:
    """Bytes of a file from bytes, a path or a file object."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, (str, os.PathLike)):
        return Path(data).read_bytes()
    expect(hasattr(data, "read"), BadInput, "source", type(data).__name__, "bytes, a path or a file object")
    file: BinaryIO = data
    raw = file.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    return raw


def checked_region(region: tuple[int, int, int, int] | None, fields: Fields) -> tuple[int, int, int, int]:
    """x, y, width, height inside the picture. Raises BadInput."""
    if region is None:
        return 0, 0, fields.width, fields.height
    expected = f"four integers X,Y,W,H inside {fields.width} x {fields.height}"
    ok = len(region) == 4 and all(isinstance(value, (int, np.integer)) for value in region)
    expect(ok, BadInput, "region", region, expected)
    x, y, width, height = region
    ok = min(x, y) >= 0 and min(width, height) > 0 and x + width <= fields.width and y + height <= fields.height
    expect(ok, BadInput, "region", region, expected)
    return region
