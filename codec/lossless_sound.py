"""Sounds in the container: segments, each a chunk of its own (FORMAT.md, section "Sound").

A coder of sound brings `encode_segment` and `decode_segment`; all else is here: reading, threads, seeking, checksums.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from laconic import container, picture
from laconic.container import Chunk, Data, Entry, Header, read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, LaconicError, UnsupportedFile, expect
from laconic.entropy.threads import mapped
from laconic.kinds import ATTACHED, COMMENTS, LAYOUT, SEGMENT, SOUND, TAGS, WRAPPING
from laconic.lossless_picture import CRC_BYTES, checked_effort
from laconic.sound import (
    FLOAT_SUBTYPES,
    MAX_CHANNELS,
    MAX_RATE,
    SUBTYPES,
    Attached,
    Samples,
    Source,
    are_comments,
    are_tags,
)

Progress = Callable[[int, int], None]  # (samples done, all samples)
KINDS = frozenset({SEGMENT, WRAPPING, TAGS, COMMENTS, ATTACHED, LAYOUT})
BESIDE = {WRAPPING: "what stood around the samples", TAGS: "tags", COMMENTS: "comments", ATTACHED: "a picture or the like"}
BESIDE |= {LAYOUT: "the layout of the channels"}
LEAST_SEGMENT = 1 << 12  # samples, at rates where 10 seconds are fewer
MOST_SEGMENT = 1 << 20
MAX_TEXTS = 1 << 20  # bytes of tags or comments
MAX_SAMPLES = 1 << 34
MAX_SECONDS = float(MAX_SAMPLES)
FLOATING = 64  # added to the bits of float samples


@dataclass(frozen=True)
class Fields:
    """Samples a second, channels, bits a sample, samples a channel, samples of a channel in a segment (but the last)."""

    sample_rate: int
    channels: int
    bits: int
    n_samples: int
    segment: int
    floating: bool = False

    def pack(self) -> bytes:
        bits = self.bits + FLOATING * self.floating
        values = (self.sample_rate, self.channels, bits, self.n_samples, self.segment)
        return b"".join(write_varint(value) for value in values)

    @property
    def n_segments(self) -> int:
        return -(-self.n_samples // self.segment)


def unpack(data: bytes) -> Fields:
    """Read and bound every field. Raises BadFile."""
    position, values = 0, []
    limits = (
        ("sample rate", 1, MAX_RATE - 1),
        ("channels", 1, MAX_CHANNELS),
        ("bits", 8, FLOATING + 64),
        ("samples", 0, MAX_SAMPLES),
        ("segment", 1, MOST_SEGMENT),
    )
    for name, low, high in limits:
        value, position = read_varint(data, position, name)
        expect(low <= value <= high, BadFile, name, value, f"{low} to {high}")
        values.append(value)
    expect(position == len(data), BadFile, "sound header length", len(data), f"{position} bytes")
    rate, channels, bits, n_samples, segment = values
    most = max(min(10 * rate, MOST_SEGMENT), LEAST_SEGMENT)
    expect(segment <= most, BadFile, "segment", segment, f"at most {most}, as the encoder writes at {rate} Hz")
    floating = bits > FLOATING
    known = FLOAT_SUBTYPES if floating else SUBTYPES
    expect(bits - FLOATING * floating in known, BadFile, "bits", bits, f"one of {sorted(known)} (float: + {FLOATING})")
    return Fields(rate, channels, bits - FLOATING * floating, n_samples, segment, floating)


def encode_to(
    file: BinaryIO, source: Source, effort: int | None, strip: bool, threads: int | None, progress: Progress | None
) -> None:
    """Write a sound's file. strip: without tags and without what stood around the samples."""
    from laconic.models import float_sound, lossless_sound

    level = checked_effort(effort)
    length = max(lossless_sound.segment_length(source.sample_rate), LEAST_SEGMENT)
    done = 0

    def code(samples: Samples) -> tuple[Chunk, int]:
        if source.floating:
            coded = float_sound.encode_segment(samples, level)
        else:
            coded = lossless_sound.encode_segment(samples, source.bits, level)
        return Chunk(SEGMENT, crc(samples) + coded), len(samples)

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

    counted = Counted(file)
    container.write_to(cast(BinaryIO, counted), header, chunks())
    if 0 < source.n_bytes < counted.n_bytes:
        source.notes.append(f"the output is larger than the input ({counted.n_bytes} > {source.n_bytes} bytes)")


class Counted:
    """A file that counts the bytes written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.n_bytes = file, 0

    def write(self, data: bytes) -> int:
        self.n_bytes += len(data)
        return self.file.write(data)


def beside(source: Source) -> Iterator[Chunk]:
    """Yield the chunks of texts, pictures and layout; a note names those that are too long to keep."""
    for kind, texts in ((TAGS, source.tags), (COMMENTS, [list(pair) for pair in source.comments])):
        raw = json.dumps(texts).encode()
        if texts and fits(len(raw), MAX_TEXTS, BESIDE[kind], source):
            yield Chunk(kind, picture.encode_metadata(raw), optional=True)
    for one in source.attached:
        raw = one.kind.encode() + b"\0" + one.data
        if fits(len(raw), picture.MAX_METADATA_BYTES, one.kind, source):
            yield Chunk(ATTACHED, picture.encode_metadata(raw), optional=True)
    if source.layout:
        yield Chunk(LAYOUT, write_varint(source.layout), optional=True)


def fits(length: int, most: int, name: str, source: Source) -> bool:
    """Say whether so many bytes are kept; note where not."""
    source.notes.extend([f"{name} left out: found {length} bytes, expected at most {most}"] * (length > most))
    return length <= most


@dataclass(frozen=True)
class Decoded:
    """A part of a sound: what it is, its samples block by block, what stood around them if all are asked for.

    notes: a list that fills while the blocks are taken, with what partial reading leaves out.
    """

    source: Source
    blocks: Iterator[Samples]
    wrapping: tuple[bytes, bytes] | None
    notes: list[str]


def decode(
    data: Data, seek: float, duration: float | None, partial: bool, threads: int | None, progress: Progress | None
) -> Decoded:
    """Samples from `seek` seconds on, for `duration` or to the end; only the segments that hold them are read.

    partial: a damaged segment comes as silence. Raises BadFile, BadInput.
    """
    header, table = container.read_table(data, KINDS, partial)
    fields = fields_of(header)
    segments = [entry for entry in table if entry.kind == SEGMENT]
    expect(
        len(segments) == fields.n_segments, BadFile, "segments", len(segments), f"{fields.n_segments}, by the header"
    )
    start, end = span(fields, seek, duration)
    notes: list[str] = []
    extra = extras(data, table, partial, notes)
    whole = (start, end) == (0, fields.n_samples)
    shape = (fields.sample_rate, fields.channels, fields.bits, end - start)
    source = Source(*shape, lambda n: iter(()), floating=fields.floating, notes=notes, **extra)

    def read(i: int) -> tuple[Samples, str]:
        first, n = i * fields.segment, min(fields.segment, fields.n_samples - i * fields.segment)
        cut = slice(max(0, start - first), min(n, end - first))
        try:
            return read_segment(container.payload(data, segments[i]), n, fields)[cut], ""
        except BadFile as error:
            if not partial:
                raise
            note = f"damaged, silent: {first / fields.sample_rate:.2f} to {(first + n) / fields.sample_rate:.2f} s ({error})"
            return silence(n, fields)[cut], note

    def blocks() -> Iterator[Samples]:
        done = 0
        if start == end:
            yield silence(0, fields)
            return
        wanted = range(start // fields.segment, -(-end // fields.segment))
        for samples, note in mapped(read, wanted, threads):
            notes.extend([note] if note else [])
            done += len(samples)
            yield samples
            if progress:
                progress(done, end - start)

    return Decoded(source, blocks(), source.around if whole else None, notes)


def fields_of(header: Header) -> Fields:
    expect(not header.model, UnsupportedFile, "model of a sound", header.model, "none: lossless coding")
    return unpack(header.fields)


def span(fields: Fields, seek: float, duration: float | None) -> tuple[int, int]:
    """First sample and the one after the last. Raises BadInput outside the sound, and for less than a sample."""
    whole, rate = fields.n_samples / fields.sample_rate, fields.sample_rate
    ok = is_number(seek) and 0 <= seek < MAX_SECONDS and (round(seek * rate) < fields.n_samples or seek == 0)
    expect(ok, BadInput, "seek", seek, f"0 up to {whole:.3f} seconds, the length")
    ok = duration is None or (is_number(duration) and duration > 0 and round(min(duration, MAX_SECONDS) * rate) > 0)
    expect(ok, BadInput, "duration", duration, f"a sample or more, {1 / rate:.2g} seconds")
    start = round(seek * rate)
    duration = None if duration is None else min(duration, MAX_SECONDS)
    return start, fields.n_samples if duration is None else min(fields.n_samples, start + round(duration * rate))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def read_segment(payload: bytes, n: int, fields: Fields) -> Samples:
    """The samples of a segment, which are those that were written, or BadFile."""
    from laconic.models import float_sound, lossless_sound

    coder = float_sound if fields.floating else lossless_sound
    samples: Samples = coder.decode_segment(payload[CRC_BYTES:], n, fields.channels, fields.bits)
    found, expected = crc(samples).hex(), payload[:CRC_BYTES].hex()
    expect(found == expected, BadFile, "checksum of the samples", found, expected)
    return samples


def extras(data: Data, table: list[Entry], partial: bool, notes: list[str]) -> dict[str, Any]:
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
            if not partial:
                raise
            notes.append(f"damaged, left out: {BESIDE[entry.kind]} ({error})")
    return found


def read_wrapping(payload: bytes) -> tuple[bytes, bytes]:
    total, position = read_varint(payload, 0, "wrapping length", picture.MAX_METADATA_BYTES)
    first, position = read_varint(payload, position, "bytes before the samples")
    both = picture.inflate(payload[position:], total, "wrapping")
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
        return cast(object, json.loads(picture.decode_metadata(payload)))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{name}: found damage ({error}), expected JSON") from None


def read_attached(payload: bytes) -> Attached:
    """Read the kind of what is attached, a NUL and its bytes. Raises BadFile."""
    kind, nul, data = picture.decode_metadata(payload).partition(b"\0")
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


def crc(samples: Samples) -> bytes:
    """CRC-32 of the samples, [sample, channel], as 32-bit integers or as floats."""
    return zlib.crc32(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).to_bytes(CRC_BYTES, "little")
