"""Photos: lossy pictures by a hyperprior network, or by a user's own model (FORMAT.md, section "Photo").

    pixels ─ photo_coder ─► payloads of z and of each y tile ─┐
    alpha, metadata ──────────────────────────────────────────┴─► chunks

A progressive file has slices of y in place of tiles (photo_slices.py), and may be read before its end has come. At effort
9 a tile may be mixed y (photo_mixed.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, BinaryIO, TypeVar

import numpy as np

from laconic import container, picture
from laconic.container import Data, Header
from laconic.entropy.errors import BadFile, BadInput, UnsupportedFile, expect
from laconic.file_info import FileInfo, PictureInfo
from laconic.media import overlay
from laconic.media.photo_effort import effort_of
from laconic.media.photo_encode import ALPHA, OVERLAY, PHOTO, encode, encoded, looked_at, quality_of, read_picture
from laconic.media.photo_fields import unpack
from laconic.media.photo_models import (
    MIXED,
    SLICE,
    Network,
    Opened,
    Pixels,
    Y,
    Z,
    model_of,
    n_slices,
    slices_of,
)
from laconic.media.photo_slices import Slices, known_slices
from laconic.media.tiles import Window
from laconic.medium import Common, Medium, Note, Region, Run, Selection, Symbols, checked_region
from laconic.options import Options
from laconic.payloads import MAX_SIDE, METADATA, read_metadata
from laconic.picture import Picture
from laconic.suffixes import PICTURE_OUTPUTS

KINDS = {Z: "z", Y: "y", SLICE: "slice", MIXED: "mixed-y", OVERLAY: "overlay", ALPHA: "alpha", **METADATA}
BATCH_PIXELS = 1 << 25  # pixels that a GPU codes at once
WHOLE = Selection()
T = TypeVar("T")


@dataclass(frozen=True)
class PhotoInfo(PictureInfo):
    """Describes a photo.

    quality: 0 to 100. tile: pixels per side. exact_share: of its pixels, those that are exact. slices: of a progressive
    file, else 1.
    """

    gray: bool
    quality: float
    tile: int
    exact_share: float
    slices: int


@dataclass(frozen=True)
class PictureResult:
    """Holds a decoded picture of 8 bits per sample."""

    picture: Picture

    def value(self, as_array: bool) -> Any:
        """Return a PIL.Image, or uint8 [H, W, C]."""
        return picture.to_array(self.picture) if as_array else picture.to_image(self.picture)

    def write(self, file: BinaryIO, format: str, note: Note) -> None:
        """Write it in a format of picture.py."""
        for text in picture.save(picture.to_image(self.picture), file, format):
            note(text)


class PhotoMedium:
    """Stores pictures with loss."""

    number, name = PHOTO, "photo"
    kinds = KINDS
    accepts = frozenset(("picture", target) for target in ("quality", "bpp", "size", "psnr", "ssimulacra2"))
    selects = frozenset({"region", "slices", "preview"})
    outputs = PICTURE_OUTPUTS

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe a photo by its fields. Raises BadFile."""
        fields = unpack(header.fields, 4 * MAX_SIDE**2)
        *_, n_bytes, chunks = common
        channels = (1 if fields.gray else 3) + any(name == KINDS[ALPHA] for name, _ in chunks)
        bpp = 8 * n_bytes / (fields.width * fields.height)
        shape = (fields.width, fields.height, channels, 8, bpp)
        share = exact_pixels(data) / (fields.width * fields.height)
        slices = max(1, sum(name == KINDS[SLICE] for name, _ in chunks) // fields.n_tiles)
        return PhotoInfo(*common, *shape, fields.gray, fields.quality / 100, fields.tile, min(share, 1.0), slices)

    def encode(self, source: Any, options: Options, run: Run, file: BinaryIO) -> None:
        """Write a picture's file, at the quality that keeps the target. Raises BadInput, TargetOutOfReach."""
        read = read_picture(source, options, run)
        data, fallen = encode(read, options, run, decoder(run))
        tell(run, *read.notes, fallen, unsliced(data, options))
        file.write(data)

    def decode(self, data: Data, selection: Selection, run: Run) -> PictureResult:
        """Decode a photo, the tiles that a region needs, or its first slices. Raises BadFile, ModelMissing, BadInput."""
        file = opened(data, run, selection)
        x, y, width, height = checked_region(selection.region, file.fields.width, file.fields.height)
        pixels = model_of(file.header, run).decode(file, Window(y, y + height, x, x + width))
        return PictureResult(picture_of(file, pixels, (x, y, width, height), run))

    def verify(self, data: Data, run: Run) -> None:
        """Check every symbol, alpha and metadata. Raises BadFile, ModelMissing."""
        file = opened(data, run)
        model_of(file.header, run).check(file)
        fields = file.fields
        overlay.verify(overlays_of(file), (fields.width, fields.height), fields.tile, 1 if fields.gray else 3)
        alpha_of(file)
        read_metadata(file.chunks)

    def encode_batch(self, sources: Iterable[Any], options: Options, run: Run) -> Iterator[bytes]:
        """Encode pictures at one quality; on a GPU those of many are coded at once."""
        read = (read_picture(source, options, run) for source in sources)
        if effort_of(options).iterations:  # which fills the device with one picture
            for one in read:
                data, fallen = encode(one, options, run, decoder(run))
                tell(run, *one.notes, fallen, unsliced(data, options))
                yield data
            return
        for group in groups(read, lambda one: one.pixels.shape[0] * one.pixels.shape[1], batch_pixels(run)):
            for one, first in zip(group, encoded(group, quality_of(options), options, run), strict=True):
                data, fallen = looked_at(one, first, options, run, decoder(run))
                tell(run, *one.notes, fallen, unsliced(data, options))
                yield data

    def decode_batch(self, files: Iterable[bytes], run: Run) -> Iterator[PictureResult]:
        """Decode whole photos; on a GPU those of one model are decoded at once."""
        read = (opened(data, run) for data in files)
        for group in groups(read, lambda one: one.fields.n_padded, batch_pixels(run)):
            for _, same in groupby(group, lambda one: (one.header.model, one.header.digest)):
                whole = list(same)
                for file, pixels in zip(whole, model_of(whole[0].header, run).decode_batch(whole), strict=True):
                    yield PictureResult(picture_of(file, pixels, (0, 0, file.fields.width, file.fields.height), run))

    def coded(self, data: Data, run: Run) -> Symbols:
        """Return the symbols and table indices of a photo: z, then the passes of each tile."""
        file = opened(data, run)
        model = network_of(file, run)
        return model.coder().coded(model.parse(file), file.fields)

    def codelength(self, data: Data, run: Run) -> float:
        """Return the ideal bits of a photo's symbols under the table rows of its model."""
        tables = network_of(opened(data, run), run).coder().model.tables
        return sum(tables.codelength(*coded) for coded in self.coded(data, run))


def network_of(file: Opened, run: Run) -> Network:
    """Return the network of a file. Raises BadInput for a model that only codes pixels, ModelMissing."""
    model = model_of(file.header, run)
    expect(isinstance(model, Network), BadInput, "model", file.header.model, "one of the package")
    assert isinstance(model, Network)
    return model


def decoder(run: Run) -> Callable[[bytes], Pixels]:
    """Return what decodes a photo for a look at it: in float32, whatever the precision of the run, and silent."""
    exact = replace(run, precision="float32", note=lambda text: None)
    return lambda data: PhotoMedium().decode(data, Selection(), exact).picture.pixels


def tell(run: Run, *notes: str) -> None:
    """Tell the caller of each note that says something."""
    for note in notes:
        if note:
            run.note(note)


def unsliced(data: bytes, options: Options) -> str:
    """Return a note where a progressive file was asked for and the picture was coded without loss."""
    whole = options.progressive and container.read_table(data)[0].medium != PHOTO
    return "not progressive: only photos coded with loss have slices" if whole else ""


def opened(data: Data, run: Run, selection: Selection = WHOLE) -> Opened:
    """Read the container of a photo and bound its fields. Raises BadFile, BadInput for slices that it has not."""
    header, chunks = container.read(bytes(data[0 : len(data)]), KINDS, run.partial, bool(selection.preview))
    expect(header.medium == PHOTO, UnsupportedFile, "medium", header.medium, f"{PHOTO} (photo)")
    file = Opened(header, chunks, unpack(header.fields, run.max_pixels), selection.slices, bool(selection.preview))
    n, asked = n_slices(file), selection.slices
    expected = f"1 to {n}" if n > 1 else "none: the file is not progressive"
    fits = asked is None or n > 1 and isinstance(asked, int) and 1 <= asked <= n
    expect(fits, BadInput, "slices", asked, expected)
    return file


def alpha_of(file: Opened) -> Pixels | None:
    """Return the alpha of a photo, uint8 [H, W], if it has any. Raises BadFile."""
    payloads = [chunk.payload for chunk in file.chunks if chunk.kind == ALPHA and chunk.payload is not None]
    return picture.decode_alpha(bytes(payloads[-1]), file.fields.height, file.fields.width) if payloads else None


def exact_pixels(data: Data) -> int:
    """Return how many pixels are exact, from the first bytes of the overlays, unchecked."""
    entries = [entry for entry in container.read_table(data, partial=True)[1] if entry.kind == OVERLAY]
    return sum(overlay.n_exact(bytes(data[one.start : one.start + min(one.length, overlay.HEAD_BYTES)])) for one in entries)


def overlays_of(file: Opened) -> list[bytes | None]:
    """Return the payloads of the exact blocks of each tile, empty where there are none. Raises BadFile."""
    found = [None if chunk.payload is None else bytes(chunk.payload) for chunk in file.chunks if chunk.kind == OVERLAY]
    n_tiles = file.fields.n_tiles
    expect(len(found) in (0, n_tiles), BadFile, "overlay chunks", len(found), f"none, or {n_tiles}, one for each tile")
    return found or [b""] * n_tiles


def picture_of(file: Opened, pixels: Pixels, region: Region, run: Run) -> Picture:
    """Return decoded pixels with the file's alpha and metadata; note what is missing."""
    x, y, width, height = region
    alpha = alpha_of(file)
    if alpha is not None:
        alpha = alpha[y : y + height, x : x + width]
    metadata = read_metadata(file.chunks)
    if file.fields.gray:
        pixels = ((pixels.sum(2, keepdims=True, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    size = (file.fields.width, file.fields.height)
    lost = overlay.apply(pixels, overlays_of(file), size, file.fields.tile, region, run.threads)
    tell(run, *([to_come(file)] if file.preview else [*missing_parts(file), *lost]))
    return Picture(pixels, alpha, metadata)


def to_come(file: Opened) -> str:
    """Return what a preview is still without, if anything."""
    tiles = tiles_of(file)
    known, n = [known_slices(tile) for tile in tiles], n_slices(file)
    found, whole, what = (min(known), n, "slices") if n > 1 else (sum(known), len(tiles), "tiles")
    others = dict.fromkeys(KINDS[chunk.kind] for chunk in file.chunks if chunk.payload is None and chunk.kind not in (Z, Y, MIXED, SLICE))
    said = [f"{found} of {whole} {what}"] * (found < whole) + [f"without {', '.join(others)}"] * bool(others)
    return f"preview: {', '.join(said)}" if said else ""


def missing_parts(file: Opened) -> list[str]:
    """Return what partial reading left out, a line for each tile that lacks something and each other damaged chunk."""
    others = [KINDS[chunk.kind] for chunk in file.chunks if chunk.payload is None and chunk.kind not in (Y, MIXED, SLICE, OVERLAY)]
    return [f"damaged, left out: {name}" for name in [*missing_tiles(file), *others]]


def missing_tiles(file: Opened) -> Iterator[str]:
    """Yield the name of each tile that lacks y, or some of the slices that were asked for."""
    side, across = file.fields.tile, -(-file.fields.width // file.fields.tile)
    for number, tile in enumerate(tiles_of(file)):
        row, column = divmod(number, across)
        name = f"y of the tile at {column * side},{row * side} ({side} x {side} pixels)"
        known, wanted = known_slices(tile), file.slices or len(tile)
        if known < wanted:
            yield name + (f" from slice {known + 1} of {len(tile)} on" if len(tile) > 1 else "")


def tiles_of(file: Opened) -> list[Slices]:
    """Return the slices of y of each tile; in the normal order a tile is one."""
    return slices_of(file) or [[chunk.payload] for chunk in file.chunks if chunk.kind in (Y, MIXED)]


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
