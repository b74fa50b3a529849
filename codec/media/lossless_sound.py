"""Sounds in the container: segments, each a chunk of its own (FORMAT.md, section "Sound").

A coder of sound brings `encode_segment` and `decode_segment`; all else is here: reading, threads, seeking, checksums.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from laconic import container
from laconic.container import Chunk, Data, Header, write_varint
from laconic.entropy.errors import BadFile, UnsupportedFile, expect
from laconic.entropy.threads import mapped
from laconic.file_info import FileInfo
from laconic.media import sound_parts
from laconic.media.sound_parts import (
    FLOATING,
    MAX_SAMPLES,
    WRAPPING,
    Decoded,
    SoundInfo,
    beside,
    extras,
    silence,
    span,
)
from laconic.medium import Common, Medium, Progress, Run, Selection
from laconic.options import Options
from laconic.payloads import CRC_BYTES, crc, read_fields, write_fields
from laconic.sound import FLOAT_SUBTYPES, MAX_CHANNELS, MAX_RATE, SUBTYPES, Samples, Source
from laconic.suffixes import SOUND_OUTPUTS

SOUND = 3
SEGMENT = 8
KINDS = {SEGMENT: "segment", **sound_parts.KINDS}
LEAST_SEGMENT = 1 << 12  # samples, at rates where 10 seconds are fewer
MOST_SEGMENT = 1 << 20


@dataclass(frozen=True)
class Fields:
    """Holds samples per second, channels, bits per sample, samples per channel: in all, and in each segment but the last."""

    sample_rate: int
    channels: int
    bits: int
    n_samples: int
    segment: int
    floating: bool = False

    def pack(self) -> bytes:
        bits = self.bits + FLOATING * self.floating
        return write_fields(self.sample_rate, self.channels, bits, self.n_samples, self.segment)

    @property
    def n_segments(self) -> int:
        return -(-self.n_samples // self.segment)


LIMITS = {
    "sample rate": (1, MAX_RATE - 1),
    "channels": (1, MAX_CHANNELS),
    "bits": (8, FLOATING + 64),
    "samples": (0, MAX_SAMPLES),
    "segment": (1, MOST_SEGMENT),
}


def unpack(data: bytes) -> Fields:
    """Read and bound every field. Raises BadFile."""
    (rate, channels, bits, n_samples, segment), _ = read_fields(data, LIMITS, "sound")
    most = max(min(10 * rate, MOST_SEGMENT), LEAST_SEGMENT)
    expect(segment <= most, BadFile, "segment", segment, f"at most {most}, as the encoder writes at {rate} Hz")
    floating = bits > FLOATING
    known = FLOAT_SUBTYPES if floating else SUBTYPES
    expect(bits - FLOATING * floating in known, BadFile, "bits", bits, f"one of {sorted(known)} (float: + {FLOATING})")
    return Fields(rate, channels, bits - FLOATING * floating, n_samples, segment, floating)


class LosslessSoundMedium:
    """Stores sounds that come back exactly, in segments that are coded apart."""

    number, name = SOUND, "sound"
    kinds = KINDS
    accepts = frozenset({("sound", "lossless")})
    selects = frozenset({"seek", "duration"})
    outputs = SOUND_OUTPUTS

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe a sound by its fields. Raises BadFile."""
        fields = unpack(header.fields)
        seconds = fields.n_samples / fields.sample_rate
        shape = (fields.sample_rate, fields.channels, fields.bits, fields.floating, fields.n_samples)
        return SoundInfo(*common, *shape, seconds, 8 * common[3] / seconds / 1000 if seconds else 0.0)

    def encode(self, source: Source, options: Options, run: Run, file: BinaryIO) -> None:
        """Write a sound's file, segment by segment. Raises BadInput."""
        encode_to(file, source, options.level(), options.strip, run.threads, run.progress)
        for note in source.notes:
            run.note(note)

    def decode(self, data: Data, selection: Selection, run: Run) -> Decoded:
        """Open the part of a sound that is asked for; its samples are decoded as they are taken. Raises BadFile, BadInput."""
        return decode(data, selection.seek or 0.0, selection.duration, run)

    def verify(self, data: Data, run: Run) -> None:
        """Decode all samples. Raises BadFile."""
        for _ in decode(data, 0.0, None, run).blocks:
            pass


def encode_to(
    file: BinaryIO, source: Source, effort: int, strip: bool, threads: int | None, progress: Progress | None
) -> None:
    """Write a sound's file. strip: without tags and without what stood around the samples."""
    from laconic.models import lossless_sound

    length = max(lossless_sound.segment_length(source.sample_rate), LEAST_SEGMENT)
    done = 0

    def code(samples: Samples) -> tuple[Chunk, int]:
        return Chunk(SEGMENT, write_segment(samples, source.bits, effort)), len(samples)

    def chunks() -> Iterator[Chunk]:
        nonlocal done
        for chunk, n in mapped(code, source.blocks(length), threads):
            done += n
            yield chunk
            if progress:
                progress(done, source.n_samples)
        around = None if strip else source.wrapping()
        if around:
            content = write_varint(len(around[0])) + zlib.compress(b"".join(around), 9)
            yield Chunk(WRAPPING, write_varint(sum(map(len, around))) + content, optional=True)
        yield from () if strip else beside(source)

    def header() -> Header:
        fields = Fields(source.sample_rate, source.channels, source.bits, done, length, source.floating)
        return Header(SOUND, "", b"", fields.pack())

    container.write_to(file, header, chunks())


def decode(data: Data, seek: float, duration: float | None, run: Run) -> Decoded:
    """Return the samples from `seek` seconds on, for `duration` or to the end; only the segments that hold them are read.

    With `run.partial` a damaged segment comes as silence, with a note. Raises BadFile, BadInput.
    """
    header, table = container.read_table(data, KINDS, run.partial)
    fields = fields_of(header)
    segments = [entry for entry in table if entry.kind == SEGMENT]
    expect(
        len(segments) == fields.n_segments, BadFile, "segments", len(segments), f"{fields.n_segments}, by the header"
    )
    start, end = span(fields.n_samples, fields.sample_rate, seek, duration)
    extra = extras(data, table, run)
    whole = (start, end) == (0, fields.n_samples)
    shape = (fields.sample_rate, fields.channels, fields.bits, end - start)
    kind = (fields.channels, fields.bits, fields.floating)
    source = Source(*shape, lambda n: iter(()), floating=fields.floating, **extra)

    def read(i: int) -> tuple[Samples, str]:
        first, n = i * fields.segment, min(fields.segment, fields.n_samples - i * fields.segment)
        cut = slice(max(0, start - first), min(n, end - first))
        try:
            return read_segment(container.payload(data, segments[i]), n, *kind)[cut], ""
        except BadFile as error:
            if not run.partial:
                raise
            note = f"damaged, silent: {first / fields.sample_rate:.2f} to {(first + n) / fields.sample_rate:.2f} s ({error})"
            return silence(n, *kind)[cut], note

    def blocks() -> Iterator[Samples]:
        done = 0
        if start == end:
            yield silence(0, *kind)
            return
        wanted = range(start // fields.segment, -(-end // fields.segment))
        for samples, note in mapped(read, wanted, run.threads if len(wanted) > 1 else 1):
            if note:
                run.note(note)
            done += len(samples)
            yield samples
            if run.progress:
                run.progress(done, end - start)

    return Decoded(source, blocks(), source.around if whole else None)


def fields_of(header: Header) -> Fields:
    expect(not header.model, UnsupportedFile, "model of a sound", header.model, "none: lossless coding")
    return unpack(header.fields)


def write_segment(samples: Samples, bits: int, effort: int) -> bytes:
    """Return what `read_segment` reads: the checksum of the samples, and the samples as coded."""
    from laconic.models import float_sound, lossless_sound

    if samples.dtype.kind == "f":
        return checksum(samples) + float_sound.encode_segment(samples, effort)
    return checksum(samples) + lossless_sound.encode_segment(samples, bits, effort)


def read_segment(payload: bytes, n: int, channels: int, bits: int, floating: bool) -> Samples:
    """Return the samples of a segment, which are those that were written. Raises BadFile where they are not."""
    from laconic.models import float_sound, lossless_sound

    coder = float_sound if floating else lossless_sound
    samples: Samples = coder.decode_segment(payload[CRC_BYTES:], n, channels, bits)
    found, expected = checksum(samples).hex(), payload[:CRC_BYTES].hex()
    expect(found == expected, BadFile, "checksum of the samples", found, expected)
    return samples


def checksum(samples: Samples) -> bytes:
    """Return the CRC-32 of the samples, [sample, channel], as 32-bit integers or as floats."""
    return crc(samples.astype(samples.dtype.newbyteorder("<")).tobytes())


MEDIUM: Medium = LosslessSoundMedium()
