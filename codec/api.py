"""Compress and decompress: the front door. It finds the medium and knows nothing else of it (codec/medium.py).

It is longer than 500 lines because every keyword is spelled out, for type checkers and for help().
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypedDict, Unpack, cast, overload

from numpy.typing import NDArray

from laconic import container, media, registry
from laconic.container import Data
from laconic.entropy.errors import BadInput, UnsupportedFile, expect
from laconic.entropy.threads import n_threads
from laconic.file_info import FileInfo
from laconic.medium import (
    Batched,
    DamageOptions,
    Medium,
    Note,
    Progress,
    Region,
    Result,
    Run,
    Selection,
    SelectionOptions,
    Set,
    Symbolic,
    Symbols,
    warn,
)
from laconic.options import (
    PRECISIONS,
    TARGETS,
    CompressOptions,
    Lossless,
    Options,
    Quality,
    Target,
    default_target,
    one_target,
)
from laconic.payloads import DEFAULT_MAX_PIXELS
from laconic.sound import Sound
from laconic.sources import Coded, Source, identified, load, opened

if TYPE_CHECKING:
    from PIL.Image import Image

    from laconic.media.archive import Archive


class CodecOptions(TypedDict, total=False):
    """Names the keywords of `Codec`, for functions that make one."""

    model: str | None
    device: str
    precision: str
    threads: int | None
    max_pixels: int


class DamageAndCodecOptions(DamageOptions, CodecOptions, total=False):
    """Names the keywords of `laconic.decompress` that fit every medium."""


class DecompressOptions(SelectionOptions, CodecOptions, total=False):
    """Names the keywords of `laconic.decompress`, less as_array."""


@dataclass(frozen=True)
class Codec:
    """Compresses and decompresses with the networks kept warm. It can be pickled: networks load again where it arrives.

    model: a name of `laconic.list_models()` or of a registered model; `compressai:ARCHITECTURE:QUALITY` or the path of a
    checkpoint of CompressAI (extra `zoo`); None is the default.
    device: "cpu" or "cuda". precision: "auto" (default: the faster one on this device), "float32" (what a target in dB is
    measured with; pixels of two machines agree to 60 dB or better) or "bf16" (pixels agree with float32 to 57 dB or better).
    threads: of the entropy coder and the networks; None is one per core. max_pixels: larger pictures are refused.
    """

    model: str | None = None
    device: str = "cpu"
    precision: str = "auto"
    threads: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        expect(self.device in ("cpu", "cuda"), BadInput, "device", self.device, "cpu or cuda")
        expect(self.precision in PRECISIONS, BadInput, "precision", self.precision, ", ".join(PRECISIONS))
        n_threads(self.threads)

    def compress(
        self,
        source: Source,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        bitrate: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        ssimulacra2: float | None = None,
        lossless: bool = False,
        max_error: int | None = None,
        effort: int | None = None,
        tune: str | None = None,
        progressive: bool = False,
        sample_rate: int | None = None,
        strip: bool = False,
        fallback: bool = True,
        medium: str | None = None,
        notes: list[str] | None = None,
    ) -> bytes:
        """Compress a picture or a sound to the bytes of a file.

        source: path, file object, PIL.Image, `Sound`, or array: a picture, uint8/uint16 [H, W] or [H, W, C], or with
        sample_rate (Hz) a sound, uint8, int16, int32, float32 or float64 [T] or [T, C].
        At most one of: quality 0..100 (default 60 of pictures), bpp (bits per pixel, kept within 2 %), bitrate (of sounds,
        kbit/s, kept within 2 %), size (bytes, never more), psnr (of pictures, dB, reached and exceeded by at most 0.1),
        ssimulacra2 (of pictures, a score, exceeded by at most 0.5; needs the package ssimulacra2), lossless (default of
        sounds), max_error (of a picture's samples, 0..255).
        effort: 1..9: slower and smaller, or with loss better (default 7, with loss 4 of photos and 3 of sounds).
        tune: what a photo with loss is searched for: "eye" (default), "psnr" or "ms-ssim".
        progressive: a photo whose first bytes show all of it, and later ones more and more detail: see `preview`.
        strip: leave out metadata and tags.
        fallback: code without loss what is no photo (all of a picture, or parts), where that is better; a note says so.
        medium: the name of the medium to use, where several would do. notes: a list that is told what was changed, and of a
        file larger than its input; None warns (LaconicWarning).
        Raises BadInput; TargetOutOfReach names the range that can be reached.
        """
        out = io.BytesIO()
        self.compress_to(
            out,
            source,
            quality=quality,
            bpp=bpp,
            bitrate=bitrate,
            size=size,
            psnr=psnr,
            ssimulacra2=ssimulacra2,
            lossless=lossless,
            max_error=max_error,
            effort=effort,
            tune=tune,
            progressive=progressive,
            sample_rate=sample_rate,
            strip=strip,
            fallback=fallback,
            medium=medium,
            notes=notes,
        )
        return out.getvalue()

    def compress_to(
        self, file: BinaryIO, source: Source, *, progress: Progress | None = None, **options: Unpack[CompressOptions]
    ) -> None:
        """Do as `compress`, with its options, into a binary file: hours of sound in little memory.

        progress: is called with (samples done, all samples) of sounds, and of photos while they are searched.
        """
        target = target_of(options)
        run = self._run(options.get("notes"), progress=progress)
        with identified(source, options.get("sample_rate")) as found:
            asked = self._options(options, target, found.kind, run.note)
            medium = media.choose(found.kind, asked.target.name, asked.medium)
            counted = Counted(file)
            medium.encode(found.content, asked, run, cast(BinaryIO, counted))
            note_if_larger(counted.n_bytes, found.n_bytes, run.note)

    @overload
    def decompress(
        self, data: Coded, *, region: Region, as_array: Literal[True], **options: Unpack[DamageOptions]
    ) -> NDArray[Any]: ...
    @overload
    def decompress(
        self, data: Coded, *, region: Region, as_array: Literal[False] = False, **options: Unpack[DamageOptions]
    ) -> Image: ...
    @overload
    def decompress(
        self, data: Coded, *, member: str | int, as_array: Literal[True], **options: Unpack[DamageOptions]
    ) -> NDArray[Any]: ...
    @overload
    def decompress(
        self, data: Coded, *, member: str | int, as_array: Literal[False] = False, **options: Unpack[DamageOptions]
    ) -> Image: ...
    @overload
    def decompress(
        self, data: Coded, *, seek: float, duration: float | None = None, **options: Unpack[DamageOptions]
    ) -> Sound: ...
    @overload
    def decompress(self, data: Coded, *, duration: float, **options: Unpack[DamageOptions]) -> Sound: ...
    @overload
    def decompress(
        self, data: Coded, *, as_array: Literal[True], **options: Unpack[SelectionOptions]
    ) -> NDArray[Any] | Sound: ...
    @overload
    def decompress(
        self, data: Coded, *, as_array: Literal[False] = False, **options: Unpack[SelectionOptions]
    ) -> Image | Sound: ...
    @overload
    def decompress(
        self, data: Coded, *, as_array: bool, **options: Unpack[SelectionOptions]
    ) -> Image | NDArray[Any] | Sound: ...
    def decompress(
        self,
        data: Coded,
        *,
        region: Region | None = None,
        seek: float | None = None,
        duration: float | None = None,
        member: str | int | None = None,
        slices: int | None = None,
        preview: bool = False,
        partial: bool = False,
        as_array: bool = False,
        notes: list[str] | None = None,
    ) -> Image | NDArray[Any] | Sound:
        """Decompress the bytes of a file (or its path, or a file object): a PIL.Image, or array [H, W, C], or a `Sound`.

        region: x, y, width, height in pixels: only the tiles that it needs are decoded. seek, duration: seconds of a
        sound: only the segments that they need are decoded. member: a picture of an archive, by name or number from 0.
        slices: of a progressive photo only the first so many, from 1 on (`info` tells how many it has).
        preview: a photo that is cut off at its end gives what is there: see the method `preview`.
        partial: a damaged file gives what it still holds. as_array: also 16-bit colour, which PIL has not.
        notes: a list that is told what is missing then; None warns (LaconicWarning).
        Raises BadFile, ModelMissing, BadInput.
        """
        run = self._run(notes, partial)
        with opened(data) as file:
            medium = medium_of(file)
            selection = checked(Selection(region, seek, duration, member, slices, preview or None), medium)
            found: Image | NDArray[Any] | Sound = medium.decode(file, selection, run).value(as_array)
            return found

    @overload
    def preview(
        self, data: Coded, *, as_array: Literal[True], slices: int | None = None, notes: list[str] | None = None
    ) -> NDArray[Any]: ...
    @overload
    def preview(
        self, data: Coded, *, as_array: Literal[False] = False, slices: int | None = None, notes: list[str] | None = None
    ) -> Image: ...
    def preview(
        self, data: Coded, *, as_array: bool = False, slices: int | None = None, notes: list[str] | None = None
    ) -> Image | NDArray[Any]:
        """Return the picture that the first bytes of a photo's file give: a PIL.Image, or array [H, W, C].

        data: the file, or what has come of it, at least its header. A progressive file shows the whole picture from the
        first slice on; in the normal order tiles come one after the other. slices: use at most so many of a progressive
        file. notes: a list that is told what is missing yet; None tells nobody.
        Raises BadFile for damage, or a file that ends within its header, ModelMissing, BadInput.
        """
        told = list[str]() if notes is None else notes
        found = self.decompress(data, preview=True, slices=slices, as_array=as_array, notes=told)
        return cast("Image | NDArray[Any]", found)

    def decompress_to(
        self,
        file: BinaryIO,
        data: Coded,
        *,
        format: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[SelectionOptions],
    ) -> None:
        """Do as `decompress`, with its options, into a binary file: hours of sound in little memory.

        format: of pictures PNG (default), JPEG, WEBP, AVIF, TIFF, BMP or PPM; of sounds WAV (default; a WAV file comes back
        byte for byte), FLAC, AIFF, CAF or W64. progress: is called with (samples done, all samples) of sounds.
        """
        refuse_others(options.keys(), SelectionOptions, "decompress")
        run = self._run(options.get("notes"), options.get("partial", False), progress)
        with opened(data) as raw:
            medium = medium_of(raw)
            part = (options.get("region"), options.get("seek"), options.get("duration"), options.get("member"))
            first = (options.get("slices"), options.get("preview") or None)
            selection = checked(Selection(*part, *first), medium)
            medium.decode(raw, selection, run).write(file, checked_format(format, medium), run.note)

    def compress_batch(self, images: Iterable[Source], **options: Unpack[CompressOptions]) -> list[bytes]:
        """Compress pictures of any sizes with the options of `compress`, the same for each.

        On a GPU the symbols of many photos are coded at once; with another target than a quality each is searched alone.
        """
        run = self._run(options.get("notes"))
        asked = self._options(options, target_of(options), "picture", run.note)
        medium = media.choose("picture", asked.target.name, asked.medium)
        if not isinstance(medium, Batched) or not isinstance(asked.target, Quality):
            return [self.compress(image, **options) for image in images]
        sizes = list[int | None]()
        files = list[bytes]()
        for data in medium.encode_batch(pictures_of(images, sizes), asked, run):
            note_if_larger(len(data), sizes[len(files)], run.note)
            files.append(data)
        return files

    def decompress_batch(
        self, files: Iterable[Coded], *, as_array: bool = False, **options: Unpack[SelectionOptions]
    ) -> list[Any]:
        """Decompress several files with the options of `decompress`; on a GPU the symbols of many are decoded at once."""
        refuse_others(options.keys(), SelectionOptions, "decompress")
        if any(options.get(name) for name in options if name != "notes"):
            return [self.decompress(file, as_array=as_array, **options) for file in files]
        run = self._run(options.get("notes"))
        found = list[Any]()
        for _, group in groupby((load(file) for file in files), lambda data: medium_of(data).number):
            found += [result.value(as_array) for result in decoded(group, run)]
        return found

    def coded(self, data: Coded) -> Symbols:
        """Return (symbols int16, table indices uint8) of a photo in the order they are coded: z, then the passes of each tile.

        Of a progressive file they come in the same order, which is not that of its slices. Raises BadInput for a medium
        that has none, BadFile, ModelMissing.
        """
        with opened(data) as file:
            return symbolic(file).coded(file, self._run(None))

    def codelength(self, data: Coded) -> float:
        """Return the ideal bits of a photo's symbols under its model: what the coder is measured by."""
        with opened(data) as file:
            return symbolic(file).codelength(file, self._run(None))

    def _run(self, notes: list[str] | None, partial: bool = False, progress: Progress | None = None) -> Run:
        note = warn if notes is None else notes.append
        return Run(self.device, self.precision, self.threads, self.max_pixels, partial, note, progress)

    def _options(self, given: CompressOptions, target: Target | None, kind: str, note: Note) -> Options:
        """Return the keywords of `compress` for a kind of source, whose default target is told of in a note."""
        own = registry.medium_of(self.model)
        if own and target is not None:
            raise BadInput(f"target: found {target.name}, expected none: the model {self.model} has one quality, its own")
        if target is None:
            target, text = default_target(kind)
            if text:
                note(text)
        effort, strip, tune = given.get("effort"), bool(given.get("strip")), given.get("tune")
        progressive = bool(given.get("progressive"))
        for name, value in (("tune", tune), ("progressive", progressive)):
            expect(not value or kind == "picture", BadInput, name, value, f"none: the source is a {kind}")
        fallback = given.get("fallback", True)
        return Options(target, self.model, given.get("medium") or own, effort, strip, fallback, tune, progressive)


def compress(
    source: Source,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    bitrate: float | None = None,
    size: int | None = None,
    psnr: float | None = None,
    ssimulacra2: float | None = None,
    lossless: bool = False,
    max_error: int | None = None,
    effort: int | None = None,
    tune: str | None = None,
    progressive: bool = False,
    sample_rate: int | None = None,
    strip: bool = False,
    fallback: bool = True,
    medium: str | None = None,
    notes: list[str] | None = None,
    **options: Unpack[CodecOptions],
) -> bytes:
    """Compress a picture or a sound to the bytes of a file: see `Codec.compress`, and `Codec` for the other options."""
    return Codec(**options).compress(
        source,
        quality=quality,
        bpp=bpp,
        bitrate=bitrate,
        size=size,
        psnr=psnr,
        ssimulacra2=ssimulacra2,
        lossless=lossless,
        max_error=max_error,
        effort=effort,
        tune=tune,
        progressive=progressive,
        sample_rate=sample_rate,
        strip=strip,
        fallback=fallback,
        medium=medium,
        notes=notes,
    )


@overload
def decompress(
    data: Coded, *, region: Region, as_array: Literal[True], **options: Unpack[DamageAndCodecOptions]
) -> NDArray[Any]: ...
@overload
def decompress(
    data: Coded, *, region: Region, as_array: Literal[False] = False, **options: Unpack[DamageAndCodecOptions]
) -> Image: ...
@overload
def decompress(
    data: Coded, *, member: str | int, as_array: Literal[True], **options: Unpack[DamageAndCodecOptions]
) -> NDArray[Any]: ...
@overload
def decompress(
    data: Coded, *, member: str | int, as_array: Literal[False] = False, **options: Unpack[DamageAndCodecOptions]
) -> Image: ...
@overload
def decompress(
    data: Coded, *, seek: float, duration: float | None = None, **options: Unpack[DamageAndCodecOptions]
) -> Sound: ...
@overload
def decompress(data: Coded, *, duration: float, **options: Unpack[DamageAndCodecOptions]) -> Sound: ...
@overload
def decompress(
    data: Coded, *, as_array: Literal[True], **options: Unpack[DecompressOptions]
) -> NDArray[Any] | Sound: ...
@overload
def decompress(
    data: Coded, *, as_array: Literal[False] = False, **options: Unpack[DecompressOptions]
) -> Image | Sound: ...
@overload
def decompress(
    data: Coded, *, as_array: bool, **options: Unpack[DecompressOptions]
) -> Image | NDArray[Any] | Sound: ...
def decompress(data: Coded, *, as_array: bool = False, **options: Any) -> Image | NDArray[Any] | Sound:
    """Decompress the bytes of a file: see `Codec.decompress`, and `Codec` for the other options."""
    own = {name: options.pop(name) for name in CodecOptions.__annotations__ if name in options}
    return Codec(**own).decompress(data, as_array=as_array, **options)


@overload
def preview(
    data: Coded,
    *,
    as_array: Literal[True],
    slices: int | None = None,
    notes: list[str] | None = None,
    **options: Unpack[CodecOptions],
) -> NDArray[Any]: ...
@overload
def preview(
    data: Coded, *, slices: int | None = None, notes: list[str] | None = None, **options: Unpack[CodecOptions]
) -> Image: ...
def preview(
    data: Coded, *, as_array: Any = False, slices: int | None = None, notes: list[str] | None = None, **options: Any
) -> Image | NDArray[Any]:
    """Return the picture that the first bytes of a photo's file give: see `Codec.preview`, and `Codec` for the options."""
    found: Image | NDArray[Any] = Codec(**options).preview(data, as_array=as_array, slices=slices, notes=notes)
    return found


def info(data: Coded) -> FileInfo:
    """Tell what is in a file: medium, size, model, chunks and what else its medium has.

    Only the header and the chunk table are read; payloads are not checked. Raises BadFile, UnsupportedFile.
    """
    with opened(data) as file:
        header, table = container.read_table(file, partial=True)
        medium = media.of(header.medium)
        chunks = tuple((medium.kinds.get(entry.kind, f"kind {entry.kind}"), entry.length) for entry in table)
        return medium.info(header, (medium.name, header.model, header.digest.hex(), len(file), chunks), file)


def verify(data: Coded, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Check every checksum, length and symbol of a file, without a float network. Raises BadFile, ModelMissing."""
    with opened(data) as file:
        medium_of(file).verify(file, Run(max_pixels=max_pixels))


def open_archive(data: Coded, device: str = "cpu") -> Archive:
    """Open an archive of `compress_archive`: len, names, member(name or number), all(). Raises BadFile, ModelMissing.

    The checksums of a block are tested when a picture of it is asked for. device: "cpu" or "cuda", of all().
    """
    with opened(data) as file:
        medium = medium_of(file)
        expect(isinstance(medium, Set), UnsupportedFile, "medium", medium.name, "archive")
        archive: Archive = cast(Set, medium).open(file, Run(device))
        return archive


def medium_of(data: Data) -> Medium:
    """Return the medium of a file. Raises BadFile, UnsupportedFile."""
    return media.of(container.read_table(data, partial=True)[0].medium)


def checked(selection: Selection, medium: Medium) -> Selection:
    """Refuse a part that the medium has not. Raises BadInput."""
    for name, value in vars(selection).items():
        expected = f"none: the file is of the medium {medium.name}"
        expect(value is None or name in medium.selects, BadInput, name, value, expected)
    return selection


def checked_format(format: str | None, medium: Medium) -> str:
    """Return the output format, by default the medium's first. Raises BadInput: a sound is not written as a picture."""
    known = list(dict.fromkeys(medium.outputs.values()))
    name = known[0] if format is None else format.upper()
    expect(name in known, BadInput, "output format", format, f"one of {', '.join(known)}: the file holds a {medium.name}")
    return name


def symbolic(data: Data) -> Symbolic:
    """Return the medium of a file if its integers can be looked at. Raises BadInput."""
    medium = medium_of(data)
    if not isinstance(medium, Symbolic):
        raise BadInput(f"medium: found {medium.name}, expected one whose symbols have tables")
    return medium


def pictures_of(images: Iterable[Source], sizes: list[int | None]) -> Iterator[Any]:
    """Yield what a medium takes of each picture; the bytes of their files go into `sizes`. Raises BadInput for a sound."""
    for i, image in enumerate(images):
        with identified(image) as found:
            expect(found.kind == "picture", BadInput, f"source {i}", f"a {found.kind}", "a picture")
            sizes.append(found.n_bytes)
            yield found.content


def decoded(files: Iterable[bytes], run: Run) -> Iterable[Result]:
    """Decode whole files of one medium, together where the medium can."""
    whole = list(files)
    medium = medium_of(whole[0])
    if isinstance(medium, Batched):
        return medium.decode_batch(whole, run)
    return [medium.decode(data, Selection(), run) for data in whole]


def note_if_larger(n_bytes: int, of_input: int | None, note: Note) -> None:
    """Tell of a file that is larger than what it was made from."""
    if of_input is not None and n_bytes > of_input:
        note(f"the output is larger than the input ({n_bytes} > {of_input} bytes)")


def target_of(given: CompressOptions) -> Target | None:
    """Return the target among the keywords of `compress`. Raises TypeError for other keywords, BadInput for values."""
    refuse_others(given.keys(), CompressOptions, "compress")
    values = {kind.name: given.get(kind.name) for kind in TARGETS if kind is not Lossless}
    return one_target(bool(given.get("lossless")), **cast(dict[str, float | None], values))


def refuse_others(given: Iterable[str], known: type[Any], function: str) -> None:
    """Refuse a misspelt keyword, as Python does where the keywords are spelled out. Raises TypeError."""
    for name in given:
        if name not in known.__annotations__:
            raise TypeError(f"{function} got an unexpected keyword argument {name!r}")


class Counted:
    """Counts the bytes that are written to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.n_bytes = file, 0

    def write(self, content: bytes) -> int:
        self.n_bytes += len(content)
        return self.file.write(content)
