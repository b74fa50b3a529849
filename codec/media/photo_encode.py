"""How a picture becomes a photo's file: at a quality or towards a target, and not where it is no photo.

    pixels ─┬─ photo model ─► file ─► fallback.best: is it worth its bytes?  ─┬─ yes: a photo
            └─ target? search over the quality                                ├─ in parts: exact blocks over a photo
                                                                              └─ no: a lossless picture

All this is decided without effort (photo_effort.py), which is then spent on what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from laconic import container, picture, registry
from laconic.container import Chunk, Header
from laconic.entropy.errors import BadInput, TargetOutOfReach, expect
from laconic.media import fallback, lossless_picture, overlay
from laconic.media.fallback import Mask
from laconic.media.photo_effort import PLAIN, Effort, effort_of, spent_towards
from laconic.media.photo_fields import TILE, Fields
from laconic.media.photo_models import MIXED, SLICE, Job, Pixels, Y, Z, model_named
from laconic.medium import Run
from laconic.options import DEFAULT_EFFORT, Options, Quality, Rate, Searched, Ssimulacra2
from laconic.payloads import metadata_chunks
from laconic.picture import Exact, Picture
from laconic.search import psnr_of, search, ssimulacra2_of

PHOTO = 1
ALPHA, OVERLAY = 3, 48  # kinds of chunks
Decode = Callable[[bytes], Pixels]
Way = tuple[bytes, str]  # a file, and the note on it


class Make(Protocol):
    """Makes a file of a quality, 0 to 10,000, with an effort."""

    def __call__(self, quality: int, effort: Effort = PLAIN, /) -> bytes: ...


def encode(source: Picture, options: Options, run: Run, decode: Decode) -> Way:
    """Return the file that keeps the target, and a note where it is not the photo model's alone.

    decode: gives the pixels of a photo's file, in float32. Raises BadInput, TargetOutOfReach.
    """
    if isinstance(options.target, Searched):
        return searched(source, options.target, options, run, decode)
    quality, effort = quality_of(options), effort_of(options)
    if effort.iterations and not (looks(options) and fallback.synthetic(source.pixels)):
        return encoded([source], effort.quality(quality), options, run, effort=effort)[0], ""
    return looked_at(source, encoded([source], quality, options, run)[0], options, run, decode)


def quality_of(options: Options) -> int:
    """Return the quality that was asked for, 0 to 10,000."""
    assert isinstance(options.target, Quality)
    return round(options.target.value * 100)


def looked_at(source: Picture, data: bytes, options: Options, run: Run, decode: Decode) -> Way:
    """Return the file that serves best at the quality asked for: the photo model's, or one without loss, if in parts.

    data: the photo model's file, without effort.
    """
    if not looks(options):
        return data, ""
    quality, effort = quality_of(options), effort_of(options)
    found, note = fallback.best(
        source.pixels,
        data,
        len(data) - pixel_bytes(data),
        quality / 100,
        decode,
        lambda blocks: overlaid(source, blocks, options, run)(effort.quality(quality), effort),
        lambda: lossless(source, run),
    )
    if note or not effort.iterations:
        return found, note
    return encoded([source], effort.quality(quality), options, run, effort=effort)[0], ""


def pixel_bytes(data: bytes) -> int:
    """Return the bytes of a photo's file that hold what the network made of the pixels."""
    return sum(entry.length for entry in container.read_table(data)[1] if entry.kind in (Z, Y, MIXED, SLICE))


def searched(source: Picture, target: Searched, options: Options, run: Run, decode: Decode) -> Way:
    """Return the file that keeps a target other than a quality, and a note.

    What is no photo goes without loss where that keeps to a size, or is smaller than a PSNR or score asks for; else perhaps
    in part.
    """
    height, width = source.pixels.shape[:2]

    def measure(data: bytes) -> float:
        if isinstance(target, Rate):
            return target.rate(len(data), height * width)
        of = ssimulacra2_of if isinstance(target, Ssimulacra2) else psnr_of
        return of(source.pixels, decode(data))

    def plainly(quality: int, effort: Effort = PLAIN) -> bytes:
        return encoded([source], quality, options, run, effort=effort)[0]

    def kept(make: Make) -> bytes:
        effort = effort_of(options)
        if not effort.iterations:
            return search(target, make, measure, "picture")
        return spent_towards(target, make, lambda quality: make(quality, effort), measure)

    if not (looks(options) and fallback.synthetic(source.pixels)):
        return kept(plainly), ""
    whole, rated = lossless(source, run), isinstance(target, Rate)
    if rated and measure(whole) <= target.window()[1]:
        return whole, fallback.WHOLE
    try:
        data, units = search_with_quality(target, plainly, measure)
    except TargetOutOfReach:
        if rated or measure(plainly(0)) > target.value:
            raise
        return whole, fallback.WHOLE
    ways: list[tuple[bytes, str, Make | None]] = [(data, "", plainly), *[(whole, fallback.WHOLE, None)] * (not rated)]
    blocks = fallback.choose(source.pixels, decode(data), pixel_bytes(data), units / 100).blocks
    if blocks.any() and not blocks.all():
        with suppress(TargetOutOfReach):
            mix = overlaid(source, blocks, options, run)
            ways.append((search(target, mix, measure, "picture"), fallback.partly(blocks), mix))
    if rated:
        found = max(ways, key=lambda way: psnr_of(decode(way[0]), source.pixels))
    else:
        found = min(ways, key=lambda way: len(way[0]))
    data, note, make = found
    return (kept(make) if make and effort_of(options).iterations else data), note


def search_with_quality(target: Searched, encode: Callable[[int], bytes], measure: Callable[[bytes], float]) -> tuple[bytes, int]:
    """Return the file that keeps a target, and its quality, 0 to 10,000."""
    made: dict[bytes, int] = {}

    def remembered(units: int) -> bytes:
        data = encode(units)
        made[data] = units
        return data

    data = search(target, remembered, measure, "picture")
    return data, made[data]


def looks(options: Options) -> bool:
    """Tell whether the result is to be looked at: what a quality gives is known of the package's models alone."""
    return options.fallback and registry.registered(options.model or registry.DEFAULT_PHOTO) is None


def overlaid(source: Picture, blocks: Mask, options: Options, run: Run) -> Make:
    """Return what encodes with some blocks of the picture exact."""
    payloads = overlay.encode(source.pixels, blocks, fallback.SIDE, TILE, DEFAULT_EFFORT, run.threads)
    smooth = replace(source, pixels=overlay.filled(source.pixels, blocks, fallback.SIDE))
    return lambda quality, effort=PLAIN: encoded([smooth], quality, options, run, [payloads], effort)[0]


def lossless(source: Picture, run: Run) -> bytes:
    """Return the picture as the file of a lossless one."""
    return lossless_picture.encode(Exact(picture.to_array(source), source.metadata), 0, DEFAULT_EFFORT, run.threads)


def read_picture(source: Any, options: Options, run: Run) -> Picture:
    """Read what is to be coded. Raises BadInput."""
    effort_of(options)
    for name, what in (("effort", "search"), ("tune", "search"), ("progressive", "slices")):
        given, own = getattr(options, name), registry.registered(options.model or registry.DEFAULT_PHOTO)
        expect(not given or own is None, BadInput, name, given, f"none: the model {options.model} has no {what}")
    read = picture.read(source, max_pixels=run.max_pixels)
    return replace(read, metadata=picture.stripped(read.metadata)) if options.strip else read


def encoded(
    sources: list[Picture],
    quality: int,
    options: Options,
    run: Run,
    overlays: list[list[bytes]] | None = None,
    effort: Effort = PLAIN,
) -> list[bytes]:
    """Return the file of each picture. quality: 0 to 10,000. Raises BadInput, ModelMissing.

    overlays: of each picture, the payloads of its exact blocks, one for each tile.
    """
    jobs = [photo_of(source, quality, run.max_pixels) for source in sources]
    model = model_named(options.model, run)
    files = []
    over = overlays or [[] for _ in sources]
    coded = model.encode(jobs, effort, options.progressive)
    for source, (_, fields), layers, exact in zip(sources, jobs, coded, over, strict=True):
        header = Header(PHOTO, model.name, model.digest[: registry.DIGEST_BYTES], fields.pack())
        exact_chunks = [Chunk(OVERLAY, payload) for payload in exact]
        alpha = [] if source.alpha is None else [Chunk(ALPHA, picture.encode_alpha(source.alpha))]
        files.append(container.write(header, [*layers, *exact_chunks, *alpha, *metadata_chunks(source.metadata)]))
    return files


def photo_of(source: Picture, quality: int, max_pixels: int) -> Job:
    """Return what the model codes, uint8 [H, W, 3], and its fields. Raises BadInput for more than can be decoded again."""
    height, width, channels = source.pixels.shape
    rgb = np.repeat(source.pixels, 3, 2) if channels == 1 else source.pixels
    fields = Fields(width, height, quality, gray=channels == 1)
    fields.check_size(max_pixels, BadInput)
    return rgb, fields
