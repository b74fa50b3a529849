"""Files <-> pictures and sounds: the codec that users hold."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic import container, lossless_picture, lossless_sound, picture, registry, sound
from laconic.container import Chunk, Data, Header
from laconic.describe import FileInfo, describe
from laconic.entropy.blocks import n_threads
from laconic.entropy.errors import BadFile, BadInput, ModelMissing, UnsupportedFile, expect
from laconic.fields import DEFAULT_MAX_PIXELS, Fields, unpack
from laconic.kinds import (
    ALPHA,
    ARCHIVE,
    BLOCK,
    KIND_NAMES,
    LOSSLESS_PICTURE,
    MEDIA,
    MEMBERS,
    METADATA,
    PHOTO,
    SOUND,
    TILE,
    Y,
    Z,
)
from laconic.lossless_sound import Progress
from laconic.picture import Exact, Picture
from laconic.sound import Sound
from laconic.sources import LaconicWarning, Source, as_sound, load, opened, tell
from laconic.targets import psnr_of, search

if TYPE_CHECKING:
    from laconic.archive import Archive
    from laconic.photo import PhotoCoder

__all__ = ["Codec", "FileInfo", "LaconicWarning", "Source", "info", "psnr_of", "verify"]

KINDS = frozenset({Z, Y, ALPHA, *METADATA})  # chunks of a photo
LOSSLESS_KINDS = frozenset({TILE, *METADATA})
DEFAULT_QUALITY = 60.0
SOUND_FORMATS = ("WAV", "FLAC", "AIFF", "CAF", "W64")
BATCH_PIXELS = 1 << 25  # that a GPU codes at once
T = TypeVar("T")


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
        n_threads(self.threads)

    def compress(
        self,
        source: Source,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        lossless: bool = False,
        max_error: int | None = None,
        effort: int | None = None,
        sample_rate: int | None = None,
        strip: bool = False,
        notes: list[str] | None = None,
    ) -> bytes:
        """A picture or a sound -> the bytes of a file.

        source: path, file object, PIL.Image, `Sound`, or array: a picture, uint8/uint16 [H, W] or [H, W, C], or with
        sample_rate (Hz) a sound, uint8, int16, int32, float32 or float64 [T] or [T, C].
        At most one of: quality 0..100 (default 60), bpp (bits a pixel, kept within 2 %), size (bytes, never more),
        psnr (dB, reached and exceeded by at most 0.1), lossless (sounds must be), max_error (of a picture's samples, 0..255).
        effort: 1..9, of the last two: slower and smaller (default 7). strip: leave out ICC, EXIF and XMP, or tags.
        notes: a list to be told in what was changed, and of a file larger than its input; None warns (LaconicWarning).
        Raises BadInput; TargetOutOfReach names the range that can be reached.
        """
        request = requested(
            quality=quality,
            bpp=bpp,
            size=size,
            psnr=psnr,
            lossless=lossless,
            max_error=max_error,
            effort=effort,
            sample_rate=sample_rate,
            strip=strip,
            notes=notes,
        )
        out = io.BytesIO()
        self._compress(source, out, request, None)
        return out.getvalue()

    def compress_to(self, file: BinaryIO, source: Source, *, progress: Progress | None = None, **options: Any) -> None:
        """`compress`, with its options, into a binary file: hours of sound in little memory.

        progress(samples done, all) is called for sounds.
        """
        self._compress(source, file, requested(**options), progress)

    def decompress(
        self,
        data: Source,
        *,
        region: tuple[int, int, int, int] | None = None,
        seek: float | None = None,
        duration: float | None = None,
        member: str | int | None = None,
        partial: bool = False,
        as_array: bool = False,
        notes: list[str] | None = None,
    ) -> Any:
        """The bytes of a file (or its path, or a file object) -> PIL.Image, or array [H, W, C]; of a sound `Sound`.

        region: x, y, width, height in pixels: only the tiles that it needs are decoded. seek, duration: seconds of a
        sound: only the segments that they need are decoded. member: a picture of an archive, by name or number from 0.
        partial: a damaged file gives what it still holds. as_array: also 16-bit colour, which PIL has not.
        notes: a list to be told in what is missing then; None warns (LaconicWarning).
        Raises BadFile, ModelMissing, BadInput.
        """
        with opened(data) as file:
            medium = medium_of(file)
            check_options(medium, region=region, seek=seek, duration=duration, member=member)
            if medium == SOUND:
                coded = lossless_sound.decode(file, seek or 0.0, duration, partial, self.threads, None)
                samples = lossless_sound.joined(coded.blocks)
                tell(coded.notes, notes)
                source = coded.source
                return Sound(sound.to_array(samples, source.bits), source.sample_rate, source.bits, source.tags)
            if medium == ARCHIVE:
                from laconic import archive

                if member is None:
                    raise BadInput("member: found none, expected a name or number; laconic.open_archive gives them all")
                found: list[str] = []
                picked = archive.open_archive(load_all(file), partial=partial, notes=found).member(member)
                tell(found, notes)
                return picked[:, :, None] if as_array else picture.exact_to_image(Exact(picked[:, :, None]))
            if medium == LOSSLESS_PICTURE:
                exact = self._decode_exact(load_all(file), region, partial)
                tell(list(exact.notes), notes)
                return exact.samples if as_array else picture.exact_to_image(exact)
            out = self._decode(load_all(file), region, partial)
        tell(list(out.notes), notes)
        return picture.to_array(out) if as_array else picture.to_image(out)

    def decompress_to(
        self,
        file: BinaryIO,
        data: Source,
        *,
        format: str | None = None,
        region: tuple[int, int, int, int] | None = None,
        seek: float | None = None,
        duration: float | None = None,
        member: str | int | None = None,
        partial: bool = False,
        notes: list[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`decompress` into a binary file: hours of sound in little memory.

        format: of pictures PNG (default), JPEG, WEBP, AVIF, TIFF, BMP or PPM; of sounds WAV (default; a WAV file comes back
        byte for byte), FLAC, AIFF, CAF or W64. progress(samples done, all) is called for sounds.
        """
        with opened(data) as raw:
            medium = medium_of(raw)
            check_options(medium, region=region, seek=seek, duration=duration, member=member)
            check_format(medium, format)
            found: list[str] = []
            if medium == SOUND:
                coded = lossless_sound.decode(raw, seek or 0.0, duration, partial, self.threads, progress)
                sound.write(file, coded.blocks, coded.source, format or "WAV", coded.wrapping)
                found += coded.notes
            elif medium == LOSSLESS_PICTURE:
                exact = self._decode_exact(load_all(raw), region, partial)
                found += [*exact.notes, *picture.save_exact(exact, file, format or "PNG")]
            else:
                image = self.decompress(load_all(raw), region=region, member=member, partial=partial, notes=found)
                found += picture.save(image, file, format or "PNG")
        tell(found, notes)

    def _compress(self, source: Source, file: BinaryIO, request: Request, progress: Progress | None) -> None:
        exact = request.target in ("lossless", "max_error")
        effort = request.effort
        expect(exact or effort is None, BadInput, "effort", effort, "none, or lossless or max_error with it")
        with as_sound(source, request.sample_rate) as (found, readable):
            if found:
                expected = "lossless: sounds are coded in no other way yet"
                expect(request.target == "lossless", BadInput, "target of a sound", request.target, expected)
                lossless_sound.encode_to(file, found, effort, request.strip, self.threads, progress)
                tell(list(found.notes), request.notes)
            elif exact:
                file.write(self._compress_exact(readable, request))
            else:
                file.write(self._compress_photo(readable, request))

    def _compress_photo(self, source: Source, request: Request) -> bytes:
        read, n_bytes = self._read(source, request.strip)
        if request.target == "quality":
            (data,) = self._encode([read], round(request.value * 100))
        else:
            reference = replace(self, precision="float32")
            data = search(
                request.target,
                request.value,
                read,
                lambda units: self._encode([read], units)[0],
                reference._decode_pixels,
            )
        tell(notes_on(read.notes, n_bytes, data), request.notes)
        return data

    def _compress_exact(self, source: Source, request: Request) -> bytes:
        source, n_bytes = with_size(source)
        read = picture.read_exact(source, self.max_pixels)
        read = replace(read, metadata=picture.stripped(read.metadata)) if request.strip else read
        max_error = int(request.value) if request.target == "max_error" else 0
        data = container.write(*lossless_picture.encode(read, max_error, request.effort, self.threads))
        tell(notes_on(read.notes, n_bytes, data), request.notes)
        return data

    def _decode_exact(self, data: bytes, region: tuple[int, int, int, int] | None, partial: bool) -> Exact:
        header, chunks = container.read(data, LOSSLESS_KINDS, partial=partial)
        fields = lossless_picture.unpack(header.fields, self.max_pixels)
        place = checked_region(region, fields.width, fields.height)
        return lossless_picture.decode(chunks, fields, place, self.threads)

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
                tell(notes_on(source.notes, n_bytes, data), notes)
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
        image, n_bytes = with_size(image)
        read = picture.read(image, max_pixels=self.max_pixels)
        return replace(read, metadata=picture.stripped(read.metadata)) if strip else read, n_bytes

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
        x, y, width, height = checked_region(region, file.fields.width, file.fields.height)
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
                out[i] = picture_of(file, self._own_pixels(own, file.chunks, file.fields))
            else:
                ours.setdefault((file.header.model, file.header.digest), []).append(i)
        for places in ours.values():
            layers = [(layers_of(files[i].chunks, files[i].fields), files[i].fields) for i in places]
            coder = self._coder_of(files[places[0]].header)
            for i, parsed in zip(places, coder.parse_batch(layers), strict=True):
                pixels = coder.decode(parsed, files[i].fields)
                out[i] = picture_of(files[i], pixels)
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


def compress_archive(
    pictures: NDArray[np.uint8] | Iterable[Source],
    *,
    names: list[str] | None = None,
    model: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    notes: list[str] | None = None,
) -> bytes:
    """Small gray pictures of one size -> one file, lossless, with access to each.

    pictures: uint8 [N, H, W], or sources as `Codec.compress` takes them. names: a name each, for `open_archive`. model: a
    circuit of their size; None is the one installed that codes them best. device: "cpu" or "cuda", for the same bytes.
    notes: a list to be told in what is left out, metadata among it; None warns (LaconicWarning).
    Raises BadInput; ModelMissing says how to train one.
    """
    from laconic import archive

    n_threads(threads)
    found: list[str] = []
    if isinstance(pictures, np.ndarray):
        ok = pictures.ndim == 3 and pictures.dtype == np.uint8
        expect(ok, BadInput, "pictures", f"{pictures.dtype} {pictures.shape}", "uint8 [N, H, W]")
        stack = pictures
    else:
        read = [picture.read_exact(source) for source in pictures]
        stack = stacked([exact.samples for exact in read])
        found = left_out(read)
    data = archive.encode(stack, names, archive.choose(model, stack), threads, device=device)
    tell(found, notes)
    return data


def left_out(read: list[Exact]) -> list[str]:
    """What an archive does not keep of its pictures: a note of each kind, with the first of them and how many there are."""
    places: dict[str, tuple[str, list[int]]] = {}
    for i, exact in enumerate(read):
        for note in (*(f"{name.upper()} is not kept" for name in exact.metadata), *exact.notes):
            kind = re.sub(r"[\d.]+", "", note)  # of so many frames, of this gamma
            places.setdefault(kind, (note, []))[1].append(i)
    return [
        f"picture {found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {note}"
        for note, found in places.values()
    ]


def stacked(pictures: list[NDArray[Any]]) -> NDArray[np.uint8]:
    expect(len(pictures) > 0, BadInput, "pictures", 0, "one or more")
    first = pictures[0].shape
    for i, samples in enumerate(pictures):
        ok = samples.shape == first and samples.shape[2] == 1 and samples.dtype == np.uint8
        expected = f"8-bit gray of {first[1]} x {first[0]} pixels, as the first"
        expect(ok, BadInput, f"picture {i}", f"{samples.dtype} {samples.shape}", expected)
    return np.stack(pictures)[:, :, :, 0]


def open_archive(data: Source, device: str = "cpu") -> Archive:
    """An archive of `compress_archive`: len, names, member(name or number), all(). Raises BadFile, ModelMissing.

    The checksums of a block are tested when a picture of it is asked for. device: "cpu" or "cuda", of all().
    """
    from laconic import archive

    return archive.open_archive(load(data), device=device)


def info(data: Source) -> FileInfo:
    """What is in a file, from its header and chunk table alone; payloads are not checked."""
    with opened(data) as file:
        return describe(file)


def verify(data: Source, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Check a file without running a float network: every checksum, every length, every symbol. Raises BadFile."""
    with opened(data) as file:
        medium = medium_of(file)
        if medium == SOUND:
            for _ in lossless_sound.decode(file, 0.0, None, False, None, None).blocks:
                pass
        elif medium == LOSSLESS_PICTURE:
            Codec(max_pixels=max_pixels)._decode_exact(load_all(file), None, False)
        elif medium == ARCHIVE:
            whole = load_all(file)
            container.read(whole, {BLOCK, MEMBERS})
            open_archive(whole).all()
        else:
            verify_photo(load_all(file), max_pixels)


def verify_photo(data: bytes, max_pixels: int) -> None:
    header, chunks = container.read(data, KINDS)
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


def medium_of(data: Data) -> int:
    """Raises BadFile, UnsupportedFile."""
    medium = container.read_table(data, partial=True)[0].medium
    expect(medium in MEDIA, UnsupportedFile, "medium", medium, f"one of {MEDIA}")
    return medium


def check_options(medium: int, **options: Any) -> None:
    """Options that this medium has not are errors. Raises BadInput."""
    fits = {PHOTO: {"region"}, LOSSLESS_PICTURE: {"region"}, SOUND: {"seek", "duration"}, ARCHIVE: {"member"}}[medium]
    for name, value in options.items():
        expect(value is None or name in fits, BadInput, name, value, f"none: the file is of the medium {MEDIA[medium]}")


def check_format(medium: int, format: str | None) -> None:
    """A sound is not written as a picture, or the reverse. Raises BadInput."""
    of_picture = format in picture.HOLDS_ALPHA
    expected = f"one of {', '.join(SOUND_FORMATS if medium == SOUND else picture.HOLDS_ALPHA)}: the file holds a {MEDIA[medium]}"
    expect(format is None or of_picture == (medium != SOUND), BadInput, "output format", format, expected)


def load_all(data: Data) -> bytes:
    return bytes(data[0 : len(data)])


def with_size(source: Source) -> tuple[Source, int | None]:
    """A source that can be read, and its bytes where it is a file."""
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        raw = load(source)
        return io.BytesIO(raw), len(raw)
    return source, None


@dataclass(frozen=True)
class Request:
    """What `compress` is asked for: one target and its value, and the options of `Codec.compress`."""

    target: str
    value: float
    effort: int | None
    sample_rate: int | None
    strip: bool
    notes: list[str] | None


def requested(
    *,
    lossless: bool = False,
    effort: int | None = None,
    sample_rate: int | None = None,
    strip: bool = False,
    notes: list[str] | None = None,
    quality: float | None = None,
    bpp: float | None = None,
    size: int | None = None,
    psnr: float | None = None,
    max_error: int | None = None,
) -> Request:
    """Raises BadInput for several targets."""
    effort = int(effort) if isinstance(effort, Integral) else effort
    exact = True if lossless else None
    targets = {"quality": quality, "bpp": bpp, "size": size, "psnr": psnr, "lossless": exact, "max_error": max_error}
    return Request(*one_target(targets), effort, sample_rate, strip, notes)


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


def picture_of(file: Opened, pixels: NDArray[np.uint8], region: tuple[int, int, int, int] | None = None) -> Picture:
    """Decoded pixels with the file's alpha and metadata, and what is missing."""
    fields, alpha = file.fields, None
    x, y, width, height = region or (0, 0, fields.width, fields.height)
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
    total = 0
    for item in items:
        if group and total + size(item) > most:
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
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
    expect(len(given) <= 1, BadInput, "targets", sorted(given), f"at most one of {', '.join(targets)}")
    ((name, value),) = given.items() or [("quality", DEFAULT_QUALITY)]
    number = isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)
    if name == "quality":
        expect(number and 0 <= value <= 100, BadInput, name, value, "0 to 100")
    elif name == "max_error":
        expect(number and value == int(value) and value >= 0, BadInput, name, value, "an integer, 0 or more")
    else:
        expect(number and value > 0, BadInput, name, value, "a positive number")
    return name, float(value)


def notes_on(notes: tuple[str, ...], n_bytes: int | None, data: bytes) -> list[str]:
    """What the caller should know of a picture, from a file of n_bytes or none, and of its coded file."""
    larger = n_bytes is not None and len(data) > n_bytes
    return [*notes, *[f"the output is larger than the input ({len(data)} > {n_bytes} bytes)"] * larger]


def checked_region(
    region: tuple[int, int, int, int] | None, full_width: int, full_height: int
) -> tuple[int, int, int, int]:
    """x, y, width, height inside the picture. Raises BadInput."""
    if region is None:
        return 0, 0, full_width, full_height
    expected = f"four integers X,Y,W,H inside {full_width} x {full_height}"
    ok = len(region) == 4 and all(isinstance(value, (int, np.integer)) for value in region)
    expect(ok, BadInput, "region", region, expected)
    x, y, width, height = region
    ok = min(x, y) >= 0 and min(width, height) > 0 and x + width <= full_width and y + height <= full_height
    expect(ok, BadInput, "region", region, expected)
    return region
