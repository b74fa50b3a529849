"""Files <-> pictures: the codec that users hold, and its targets."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic import container, picture, registry
from laconic.container import Chunk, Header
from laconic.entropy.errors import BadFile, BadInput, ModelMissing, TargetOutOfReach, UnsupportedFile, expect
from laconic.fields import DEFAULT_MAX_PIXELS, Fields, unpack
from laconic.picture import Picture

if TYPE_CHECKING:
    from laconic.photo import PhotoCoder

Source = Any  # path, file object, bytes (decompress), PIL.Image or array (compress)
PHOTO = 1  # media of the container
Z, Y, ALPHA, ICC, EXIF, XMP = 1, 2, 3, 4, 5, 6  # kinds of chunks
METADATA = {ICC: "icc", EXIF: "exif", XMP: "xmp"}
KINDS = frozenset({Z, Y, ALPHA, *METADATA})
KIND_NAMES = {Z: "z", Y: "y", ALPHA: "alpha", **METADATA}
DEFAULT_QUALITY = 60.0
PSNR_MARGIN = 0.1  # dB above the target that are allowed
SIZE_SHARE = 0.97  # of the target size that is reached where the range of qualities allows


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
    device: "cpu" or "cuda". precision: "float32" (default, what targets are searched with) or "bf16" (faster; pixels
    agree to about 48 dB). threads: of the entropy coder and the networks; None leaves them as they are.
    """

    model: str | None = None
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        expect(self.device in ("cpu", "cuda"), BadInput, "device", self.device, "cpu or cuda")
        expect(self.precision in ("float32", "bf16"), BadInput, "precision", self.precision, "float32 or bf16")

    def compress(
        self,
        image: Source,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        strip: bool = False,
    ) -> bytes:
        """A picture -> the bytes of a file.

        image: path, file object, PIL.Image, or uint8/uint16 array [H, W] or [H, W, C].
        At most one of: quality 0..100 (default 60), bpp (bits a pixel, kept within 2 %), size (bytes, never more),
        psnr (dB, reached and exceeded by at most 0.1). strip: leave out ICC, EXIF and XMP.
        Raises BadInput; TargetOutOfReach names the range that can be reached.
        """
        targets = {"quality": quality, "bpp": bpp, "size": size, "psnr": psnr}
        given = {k: float(v) for k, v in targets.items() if v is not None}
        expect(len(given) <= 1, BadInput, "targets", sorted(given), "at most one of quality, bpp, size, psnr")
        for name, value in given.items():
            expect(math.isfinite(value) and (value > 0 or name == "quality"), BadInput, name, value, "a positive number")
        given = given or {"quality": DEFAULT_QUALITY}
        read = picture.read(image, max_pixels=self.max_pixels)
        for note in read.notes:
            warnings.warn(note, LaconicWarning, stacklevel=3)
        if strip:
            read = replace(read, metadata={})
        ((name, value),) = given.items()
        if name == "quality":
            expect(0 <= value <= 100, BadInput, "quality", value, "0 to 100")
            return self._encode(read, round(value * 100))
        return search(name, value, read, lambda units: self._encode(read, units), self._decode_pixels)

    def decompress(
        self,
        data: Source,
        *,
        region: tuple[int, int, int, int] | None = None,
        partial: bool = False,
        as_array: bool = False,
    ) -> Any:
        """The bytes of a file (or its path, or a file object) -> PIL.Image, or array [H, W, C].

        region: x, y, width, height in pixels: only the tiles that it needs are decoded. partial: a damaged file gives
        what it still holds, with a LaconicWarning that says what is missing. Raises BadFile, ModelMissing, BadInput.
        """
        out = self._decode(load(data), region, partial)
        return picture.to_array(out) if as_array else picture.to_image(out)

    def compress_batch(self, images: Iterable[Source], **targets: Any) -> list[bytes]:
        """`compress` for several pictures, with the same targets for each."""
        return [self.compress(image, **targets) for image in images]

    def decompress_batch(self, files: Iterable[Source], **options: Any) -> list[Any]:
        """`decompress` for several files."""
        return [self.decompress(file, **options) for file in files]

    def _encode(self, source: Picture, quality: int) -> bytes:
        height, width, channels = source.pixels.shape
        rgb = np.repeat(source.pixels, 3, 2) if channels == 1 else source.pixels
        fields = Fields(width, height, quality, gray=channels == 1)
        own = registry.registered(self.model) if self.model else None
        if own:
            chunks = [Chunk(Z, own.encode(rgb, quality / 100))]
            name, digest = own.name, own.digest[: registry.DIGEST_BYTES]
        else:
            model = registry.find(self.model or registry.DEFAULT_PHOTO)
            name, digest = model.name, bytes.fromhex(model.digest)[: registry.DIGEST_BYTES]
            payloads = self._coder(model.path).encode(rgb, fields)
            chunks = [Chunk(Z, payloads[0])] + [Chunk(Y, payload) for payload in payloads[1:]]
        if source.alpha is not None:
            chunks.append(Chunk(ALPHA, picture.encode_alpha(source.alpha)))
        for kind, key in METADATA.items():
            if source.metadata.get(key):
                chunks.append(Chunk(kind, picture.encode_metadata(source.metadata[key]), optional=True))
        return container.write(Header(PHOTO, name, digest, fields.pack()), chunks)

    def _decode(self, data: bytes, region: tuple[int, int, int, int] | None, partial: bool) -> Picture:
        header, chunks = container.read(data, KINDS, partial=partial)
        fields = self._fields(header)
        window = checked_region(region, fields)
        layers = [chunk for chunk in chunks if chunk.kind in (Z, Y)]
        own = registry.registered(header.model)
        pixels = self._own_pixels(own, layers, fields) if own else self._photo_pixels(header, layers, fields, window)
        top, left = window[1], window[0]
        if own:
            pixels = pixels[top : top + window[3], left : left + window[2]]
        missing = [KIND_NAMES[chunk.kind] for chunk in chunks if chunk.payload is None]
        if missing:
            warnings.warn(f"damaged chunks left out: {', '.join(missing)}", LaconicWarning, stacklevel=4)
        alpha = None
        metadata: dict[str, bytes] = {}
        for chunk in chunks:
            if chunk.kind == ALPHA and chunk.payload is not None:
                alpha = picture.decode_alpha(bytes(chunk.payload), fields.height, fields.width)
                alpha = alpha[top : top + window[3], left : left + window[2]]
            elif chunk.kind in METADATA and chunk.payload is not None:
                metadata[METADATA[chunk.kind]] = picture.decode_metadata(bytes(chunk.payload))
        if fields.gray:
            pixels = ((pixels.sum(2, keepdims=True, dtype=np.uint16) + 1) // 3).astype(np.uint8)
        return Picture(pixels, alpha, metadata, ())

    def _photo_pixels(
        self, header: Header, layers: list[Chunk], fields: Fields, window: tuple[int, int, int, int]
    ) -> NDArray[np.uint8]:
        kinds = [chunk.kind for chunk in layers]
        expected = [Z] + [Y] * fields.n_tiles
        expect(kinds == expected, BadFile, "photo chunks", len(kinds), f"z and {fields.n_tiles} y tiles, in this order")
        model = registry.find(header.model, header.digest)
        from laconic.photo import Window

        x, y, width, height = window
        region = Window(y, y + height, x, x + width)
        coder = self._coder(model.path)
        parsed = coder.parse([chunk.payload for chunk in layers], fields, region)
        return coder.decode(parsed, fields, region)

    def _own_pixels(self, own: registry.PictureModel, layers: list[Chunk], fields: Fields) -> NDArray[np.uint8]:
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

    def _coder(self, path: str) -> PhotoCoder:
        import torch

        from laconic.photo import PhotoCoder

        if self.device == "cuda":
            expect(torch.cuda.is_available(), BadInput, "device", "no CUDA device", "one, or device cpu")
        if self.threads:
            torch.set_num_threads(self.threads)
        return PhotoCoder(registry.load_photo(path, self.device), self.device, self.precision, self.threads)


def info(data: Source) -> FileInfo:
    """What is in a file; only its header and table are read."""
    raw = load(data)
    header, table = container.read_header(raw)
    expect(header.medium == PHOTO, UnsupportedFile, "medium", header.medium, f"{PHOTO} (photo)")
    fields = unpack(header.fields)
    chunks = tuple((KIND_NAMES.get(kind, f"kind {kind}"), length) for kind, length in table)
    bpp = 8 * len(raw) / (fields.width * fields.height)
    return FileInfo(
        "photo",
        fields.width,
        fields.height,
        fields.gray,
        fields.quality / 100,
        header.model,
        header.digest.hex(),
        fields.tile,
        len(raw),
        bpp,
        chunks,
    )


def verify(data: Source) -> None:
    """Check a file without running a float network: every checksum, every length, every symbol. Raises BadFile."""
    raw = load(data)
    header, chunks = container.read(raw, KINDS)
    codec = Codec()
    fields = codec._fields(header)
    layers = [chunk for chunk in chunks if chunk.kind in (Z, Y)]
    if not registry.registered(header.model):
        model = registry.find(header.model, header.digest)
        codec._coder(model.path).parse([chunk.payload for chunk in layers], fields)
    for chunk in chunks:
        if chunk.kind == ALPHA:
            picture.decode_alpha(bytes(chunk.payload or b""), fields.height, fields.width)


def load(data: Source) -> bytes:
    """Bytes of a file from bytes, a path or a file object."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, (str, os.PathLike)):
        return Path(data).read_bytes()
    file: BinaryIO = data
    raw = file.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    return raw


def search(
    name: str,
    target: float,
    source: Picture,
    encode: Callable[[int], bytes],
    decode: Callable[[bytes], NDArray[np.uint8]],
) -> bytes:
    """The file that keeps a target: bisection over quality x 100 with real bytes (and pixels, for psnr)."""
    n_pixels = source.pixels.shape[0] * source.pixels.shape[1]
    files: dict[int, tuple[float, bytes]] = {}

    def reached(units: int) -> float:
        if units not in files:
            data = encode(units)
            if name == "psnr":
                measured = psnr_of(decode(data), source.pixels)
            else:
                measured = float(len(data)) if name == "size" else 8 * len(data) / n_pixels
            files[units] = measured, data
        return files[units][0]

    low, high = 0, 10_000
    unit = {"size": "bytes", "bpp": "bpp", "psnr": "dB"}[name]
    in_reach = reached(low) <= target if name == "size" else reached(low) <= target * 1.02 or name == "psnr"
    in_reach = in_reach and (reached(high) >= target * 0.98 or name == "size")
    if not in_reach:
        raise TargetOutOfReach(
            f"{name}: found {target:g} {unit}, expected {reached(low):.4g} to {reached(high):.4g} {unit} for this picture"
        )
    while high - low > 1:  # invariant: reached(low) <= target, or low is 0; likewise high
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) <= target else (low, middle)
        if name == "size" and SIZE_SHARE + 0.02 <= reached(low) / target <= 1:
            break
        if name == "bpp" and min(abs(v / target - 1) for v, _ in files.values()) < 0.005:
            break
        if name == "psnr" and any(0 <= v - target <= PSNR_MARGIN / 2 for v, _ in files.values()):
            break
    return best(name, target, list(files.values()))


def best(name: str, target: float, files: list[tuple[float, bytes]]) -> bytes:
    """The file nearest to the target on its allowed side."""
    if name == "size":
        return max((f for f in files if f[0] <= target), key=lambda f: f[0])[1]
    if name == "bpp":
        value, data = min(files, key=lambda f: abs(f[0] - target))
        if abs(value / target - 1) <= 0.02:
            return data
    else:
        above = [f for f in files if target <= f[0]]
        if above:
            value, data = min(above, key=lambda f: f[0])
            if value <= target + PSNR_MARGIN:
                return data
    low, high = min(files, key=lambda f: f[0])[0], max(files, key=lambda f: f[0])[0]
    raise TargetOutOfReach(f"{name}: found {target:g}, expected one of the values reached, {low:.4g} to {high:.4g}")


def psnr_of(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB over all samples; 100 where they are equal."""
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else 100.0


def checked_region(region: tuple[int, int, int, int] | None, fields: Fields) -> tuple[int, int, int, int]:
    """x, y, width, height inside the picture. Raises BadInput."""
    if region is None:
        return 0, 0, fields.width, fields.height
    x, y, width, height = region
    ok = min(x, y) >= 0 and min(width, height) > 0 and x + width <= fields.width and y + height <= fields.height
    expect(ok, BadInput, "region", region, f"X,Y,W,H inside {fields.width} x {fields.height}")
    return region
