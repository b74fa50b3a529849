"""Lossy sounds: frames of a network's integers, in segments that parse alone (FORMAT.md, section "Lossy sound").

    samples ─ lossy_sound_read ─► 16, 24 or 48 kHz, mid and side, one level ─ coder ─► runs of frames ─► a chunk per segment
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic import container
from laconic.container import Data, Header
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.threads import mapped
from laconic.file_info import FileInfo
from laconic.media import lossy_sound_coder, sound_parts
from laconic.media.lossy_sound_decode import Decoder, decoded
from laconic.media.lossy_sound_encode import LOSSY, encode
from laconic.media.lossy_sound_fields import EXACT, MARKED, PLAIN, unpack
from laconic.media.sound_parts import Decoded, SoundInfo, extras, silence, span
from laconic.medium import Common, Medium, Run, Selection
from laconic.options import Options
from laconic.sound import Samples, Source
from laconic.suffixes import SOUND_OUTPUTS

KINDS = {PLAIN: "segment", MARKED: "segment with silence", EXACT: "segment without loss", **sound_parts.BESIDE}


@dataclass(frozen=True)
class LossySoundInfo(SoundInfo):
    """Describes a lossy sound. quality: 0 to 100. core_rate: Hz; what is above half of it is not kept.

    segments: of 4 seconds. exact_segments: how many of them are coded without loss.
    """

    quality: float
    core_rate: int
    segments: int
    exact_segments: int


class LossySoundMedium:
    """Stores sounds with loss, in segments that are read apart."""

    number, name = LOSSY, "lossy-sound"
    kinds = KINDS
    accepts = frozenset(("sound", target) for target in ("quality", "bitrate", "size"))
    selects = frozenset({"seek", "duration"})
    outputs = SOUND_OUTPUTS

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe a sound by its fields. Raises BadFile."""
        fields = unpack(header.fields)
        seconds = fields.n_samples / fields.sample_rate
        shape = (fields.sample_rate, fields.channels, fields.bits, fields.floating, fields.n_samples)
        rate = 8 * common[3] / seconds / 1000 if seconds else 0.0
        exact = sum(kind == KINDS[EXACT] for kind, _ in common[4])
        core = fields.quality / 100, fields.core_rate
        return LossySoundInfo(*common, *shape, seconds, rate, *core, fields.n_segments, exact)

    def encode(self, source: Source, options: Options, run: Run, file: BinaryIO) -> None:
        """Write a sound's file. Raises BadInput, TargetOutOfReach, ModelMissing."""
        encode(source, options, run, file)

    def decode(self, data: Data, selection: Selection, run: Run) -> Decoded:
        """Open the part of a sound that is asked for; it is decoded as it is taken. Raises BadFile, BadInput, ModelMissing."""
        decoder, extra = opened(data, run)
        fields = decoder.fields
        start, end = span(fields.n_samples, fields.sample_rate, selection.seek or 0.0, selection.duration)
        shape = (fields.sample_rate, fields.channels, fields.bits, end - start)
        source = Source(*shape, lambda n: iter(()), floating=fields.floating, **extra)
        return Decoded(source, blocks(decoder, start, end, run), None)

    def verify(self, data: Data, run: Run) -> None:
        """Parse all integers. Raises BadFile, ModelMissing."""
        decoder, _ = opened(data, run)
        for _ in mapped(decoder.parse, range(decoder.fields.n_segments), run.threads):
            pass

    def integers(self, data: Data, run: Run) -> Iterator[NDArray[np.int32]]:
        """Yield of each segment where it is silent, then its frames: components, shape and levels of each coded channel.

        Of a segment without loss they are those of its edges, and its samples follow.
        """
        decoder, _ = opened(data, run)
        for one in mapped(decoder.parse, range(decoder.fields.n_segments), run.threads):
            yield np.array(one.silences, np.int32)
            for frames in (*one.frames, *one.head, *one.tail):
                yield from () if frames is None else (frames.components, frames.shape)
                if frames is not None and frames.levels.size:
                    yield frames.levels
            if one.exact is not None:
                yield np.ascontiguousarray(one.exact).view(np.int32)


def opened(data: Data, run: Run) -> tuple[Decoder, dict[str, Any]]:
    """Return what decodes a file's segments, and what stands beside the samples. Raises BadFile, ModelMissing."""
    header, table = container.read_table(data, KINDS, run.partial)
    fields = unpack(header.fields)
    segments = [entry for entry in table if entry.kind in (PLAIN, MARKED, EXACT)]
    expected = f"{fields.n_segments}, by the header"
    expect(len(segments) == fields.n_segments, BadFile, "segments", len(segments), expected)
    extra = extras(data, table, run)
    coder = lossy_sound_coder.of_file(header, run.device).at(fields.core_rate)
    return Decoder(coder, fields, data, segments, run.partial), extra


def blocks(decoder: Decoder, start: int, end: int, run: Run) -> Iterator[Samples]:
    """Yield the samples from start up to end. Raises BadFile."""
    fields, done = decoder.fields, 0
    if start == end:
        yield silence(0, fields.channels, fields.bits, fields.floating)
        return
    for samples, parsed in decoded(decoder, start, end, run.threads):
        if parsed.damage:
            first, after = (place / fields.sample_rate for place in fields.samples_of(parsed.number))
            run.note(f"damaged, silent: {first:.2f} to {after:.2f} s ({parsed.damage})")
        done += len(samples)
        yield samples
        if run.progress:
            run.progress(done, end - start)


MEDIUM: Medium = LossySoundMedium()
