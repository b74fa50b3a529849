"""Sounds in the container: segments, each a chunk of its own (FORMAT.md, section "Sound").

A coder of sound brings `encode_segment` and `decode_segment`; all else is here: reading, threads, seeking, checksums.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from laconic import container, sound
from laconic.container import Chunk, Data, Entry, Header, read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, LaconicError, UnsupportedFile, expect
from laconic.entropy.threads import mapped
from laconic.file_info import FileInfo
from laconic.medium import Common, Medium, Note, Progress, Run, Selection
from laconic.options import Options
from laconic.payloads import (
    CRC_BYTES,
    MAX_METADATA_BYTES,
    crc,
    decode_metadata,
    encode_metadata,
    inflate,
    read_fields,
    write_fields,
)
from laconic.sound import (
    FLOAT_SUBTYPES,
    MAX_CHANNELS,
    MAX_RATE,
    SUBTYPES,
    Attached,
    Samples,
    Sound,
    Source,
    are_comments,
    are_tags,
)
from laconic.suffixes import SOUND_OUTPUTS

SOUND = 3
SEGMENT, WRAPPING, TAGS, COMMENTS, ATTACHED, LAYOUT = 8, 9, 10, 32, 33, 34
KINDS = {SEGMENT: "segment", WRAPPING: "wrapping", TAGS: "tags", COMMENTS: "comments", ATTACHED: "attached", LAYOUT: "layout"}
BESIDE = {WRAPPING: "what stood around the samples", TAGS: "tags", COMMENTS: "comments", ATTACHED: "a picture or the like"}
BESIDE |= {LAYOUT: "the layout of the channels"}
LEAST_SEGMENT = 1 << 12  # samples, at rates where 10 seconds are fewer
MOST_SEGMENT = 1 << 20
MAX_TEXTS = 1 << 20  # bytes of tags or comments
MAX_SAMPLES = 1 << 34
FLOATING = 64  # added to the bits of float samples


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


@dataclass(frozen=True)
class SoundInfo(FileInfo):
    """Describes a sound; seconds long, kbit_per_s (1000 bits per second). floating: whether its samples are floats."""

    sample_rate: int
    channels: int
    bits: int
    floating: bool
    n_samples: int
    seconds: float
    kbit_per_s: float


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
    from laconic.models import float_sound, lossless_sound

    length = max(lossless_sound.segment_length(source.sample_rate), LEAST_SEGMENT)
    done = 0

    def code(samples: Samples) -> tuple[Chunk, int]:
        if source.floating:
            coded = float_sound.encode_segment(samples, effort)
        else:
            coded = lossless_sound.encode_segment(samples, source.bits, effort)
        return Chunk(SEGMENT, checksum(samples) + coded), len(samples)

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


def beside(source: Source) -> Iterator[Chunk]:
    """Yield the chunks of texts, pictures and layout; a note names those that are too long to keep."""
    for kind, texts in ((TAGS, source.tags), (COMMENTS, [list(pair) for pair in source.comments])):
        raw = json.dumps(texts).encode()
        if texts and fits(len(raw), MAX_TEXTS, BESIDE[kind], source):
            yield Chunk(kind, encode_metadata(raw), optional=True)
    for one in source.attached:
        raw = one.kind.encode() + b"\0" + one.data
        if fits(len(raw), MAX_METADATA_BYTES, one.kind, source):
            yield Chunk(ATTACHED, encode_metadata(raw), optional=True)
    if source.layout:
        yield Chunk(LAYOUT, write_varint(source.layout), optional=True)


def fits(length: int, most: int, name: str, source: Source) -> bool:
    """Say whether so many bytes are kept; note where not."""
    source.notes.extend([f"{name} left out: found {length} bytes, expected at most {most}"] * (length > most))
    return length <= most


@dataclass(frozen=True)
class Decoded:
    """Holds a part of a sound: what it is, its samples block by block, what stood around them if all are asked for."""

    source: Source
    blocks: Iterator[Samples]
    wrapping: tuple[bytes, bytes] | None

    def value(self, as_array: bool) -> Sound:
        """Return the sound with all samples that were asked for."""
        return sound.to_sound(joined(self.blocks), self.source)

    def write(self, file: BinaryIO, format: str, note: Note) -> None:
        """Write it as a sound file, block by block. Raises BadInput where the format cannot hold it."""
        sound.write(file, self.blocks, self.source, format, self.wrapping)
        for text in self.source.notes:
            note(text)


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
    start, end = span(fields, seek, duration)
    extra = extras(data, table, run)
    whole = (start, end) == (0, fields.n_samples)
    shape = (fields.sample_rate, fields.channels, fields.bits, end - start)
    source = Source(*shape, lambda n: iter(()), floating=fields.floating, **extra)

    def read(i: int) -> tuple[Samples, str]:
        first, n = i * fields.segment, min(fields.segment, fields.n_samples - i * fields.segment)
        cut = slice(max(0, start - first), min(n, end - first))
        try:
            return read_segment(container.payload(data, segments[i]), n, fields)[cut], ""
        except BadFile as error:
            if not run.partial:
                raise
            note = f"damaged, silent: {first / fields.sample_rate:.2f} to {(first + n) / fields.sample_rate:.2f} s ({error})"
            return silence(n, fields)[cut], note

    def blocks() -> Iterator[Samples]:
        done = 0
        if start == end:
            yield silence(0, fields)
            return
        wanted = range(start // fields.segment, -(-end // fields.segment))
        for samples, note in mapped(read, wanted, run.threads):
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


def span(fields: Fields, seek: float, duration: float | None) -> tuple[int, int]:
    """Return the first sample and the one after the last. Raises BadInput outside the sound, and for less than a sample."""
    whole, rate = fields.n_samples / fields.sample_rate, fields.sample_rate
    ok = is_number(seek) and 0 <= seek <= whole and (round(seek * rate) < fields.n_samples or seek == 0)
    expect(ok, BadInput, "seek", seek, f"0 up to {whole:.3f} seconds, the length")
    ok = duration is None or (is_number(duration) and duration > 0 and round(min(duration, 1) * rate) > 0)
    expect(ok, BadInput, "duration", duration, f"a sample or more, {1 / rate:.2g} seconds")
    start = round(seek * rate)
    if duration is None or duration >= whole:
        return start, fields.n_samples
    return start, min(fields.n_samples, start + round(duration * rate))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def read_segment(payload: bytes, n: int, fields: Fields) -> Samples:
    """Return the samples of a segment, which are those that were written. Raises BadFile where they are not."""
    from laconic.models import float_sound, lossless_sound

    coder = float_sound if fields.floating else lossless_sound
    samples: Samples = coder.decode_segment(payload[CRC_BYTES:], n, fields.channels, fields.bits)
    found, expected = checksum(samples).hex(), payload[:CRC_BYTES].hex()
    expect(found == expected, BadFile, "checksum of the samples", found, expected)
    return samples


def extras(data: Data, table: list[Entry], run: Run) -> dict[str, Any]:
    """Return what stands beside the samples, as arguments of `Source`."""
    found: dict[str, Any] = {"attached": ()}
    for entry in table:
        if entry.kind not in BESIDE:
            continue
        try:
            payload = container.payload(data, entry)
            if entry.kind == WRAPPING:
                found["around"] = read_wrapping(payload)
            elif entry.kind == TAGS:
                found["tags"] = read_tags(payload)
            elif entry.kind == COMMENTS:
                found["comments"] = read_comments(payload)
            elif entry.kind == LAYOUT:
                found["layout"] = read_layout(payload)
            else:
                found["attached"] += (read_attached(payload),)
        except LaconicError as error:
            if not run.partial:
                raise
            run.note(f"damaged, left out: {BESIDE[entry.kind]} ({error})")
    return found


def read_wrapping(payload: bytes) -> tuple[bytes, bytes]:
    total, position = read_varint(payload, 0, "wrapping length", MAX_METADATA_BYTES)
    first, position = read_varint(payload, position, "bytes before the samples")
    both = inflate(payload[position:], total, "wrapping")
    expect(first <= total, BadFile, "bytes before the samples", first, f"at most {total}")
    return both[:first], both[first:]


def read_tags(payload: bytes) -> dict[str, str]:
    tags = read_json(payload, "tags")
    expect(are_tags(tags), BadFile, "tags", tags, "names with texts")
    return dict(cast(dict[str, str], tags))


def read_comments(payload: bytes) -> tuple[tuple[str, str], ...]:
    """Read pairs of a name and a text. Raises BadFile."""
    found = read_json(payload, "comments")
    pairs = tuple(tuple(one) if isinstance(one, list) else one for one in found) if isinstance(found, list) else found
    expect(are_comments(pairs), BadFile, "comments", found, "pairs of a name and a text")
    return cast(tuple[tuple[str, str], ...], pairs)


def read_json(payload: bytes, name: str) -> object:
    """Read JSON of a bounded length; deep nesting is damage, too. Raises BadFile."""
    length, _ = read_varint(payload, 0, f"{name} length")
    expect(length <= MAX_TEXTS, BadFile, f"{name} length", length, f"at most {MAX_TEXTS}")
    try:
        return cast(object, json.loads(decode_metadata(payload)))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{name}: found damage ({error}), expected JSON") from None


def read_attached(payload: bytes) -> Attached:
    """Read the kind of what is attached, a NUL and its bytes. Raises BadFile."""
    kind, nul, data = decode_metadata(payload).partition(b"\0")
    ok = nul == b"\0" and 0 < len(kind) <= 32 and all(97 <= letter <= 122 or 48 <= letter <= 57 for letter in kind)
    expect(ok, BadFile, "attached", kind, "a name of small letters and digits, a NUL and bytes")
    return Attached(kind.decode("ascii"), data)


def read_layout(payload: bytes) -> int:
    """Read the mask of loudspeakers. Raises BadFile."""
    mask, position = read_varint(payload, 0, "layout", (1 << 32) - 1)
    expect(position == len(payload), BadFile, "layout length", len(payload), f"{position} bytes")
    return mask


def silence(n: int, fields: Fields) -> Samples:
    return np.zeros((n, fields.channels), f"f{fields.bits // 8}" if fields.floating else "i4")


def joined(blocks: Iterable[Samples]) -> Samples:
    return np.concatenate(list(blocks))


def checksum(samples: Samples) -> bytes:
    """Return the CRC-32 of the samples, [sample, channel], as 32-bit integers or as floats."""
    return crc(samples.astype(samples.dtype.newbyteorder("<")).tobytes())


MEDIUM: Medium = LosslessSoundMedium()
