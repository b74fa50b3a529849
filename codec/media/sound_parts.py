"""What the media of sounds share: what stands beside the samples, which of them are asked for, what is told of a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from laconic import container, sound
from laconic.container import Chunk, Data, Entry, read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, LaconicError, expect
from laconic.file_info import FileInfo
from laconic.medium import Note, Run
from laconic.payloads import MAX_METADATA_BYTES, decode_metadata, encode_metadata, inflate
from laconic.sound import Attached, Samples, Sound, Source, are_comments, are_tags

WRAPPING, TAGS, COMMENTS, ATTACHED, LAYOUT = 9, 10, 32, 33, 34
BESIDE = {TAGS: "tags", COMMENTS: "comments", ATTACHED: "attached", LAYOUT: "layout"}  # kinds of chunks of any sound
KINDS = {WRAPPING: "wrapping", **BESIDE}
MEANT = {WRAPPING: "what stood around the samples", TAGS: "tags", COMMENTS: "comments", ATTACHED: "a picture or the like"}
MEANT |= {LAYOUT: "the layout of the channels"}
MAX_TEXTS = 1 << 20  # bytes of tags or comments
MAX_SAMPLES = 1 << 34
FLOATING = 64  # added to the bits of float samples


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


def beside(source: Source) -> Iterator[Chunk]:
    """Yield the chunks of texts, pictures and layout; a note names those that are too long to keep."""
    for kind, texts in ((TAGS, source.tags), (COMMENTS, [list(pair) for pair in source.comments])):
        raw = json.dumps(texts).encode()
        if texts and fits(len(raw), MAX_TEXTS, MEANT[kind], source):
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


def span(n_samples: int, rate: int, seek: float, duration: float | None) -> tuple[int, int]:
    """Return the first sample and the one after the last. Raises BadInput outside the sound, and for less than a sample."""
    whole = n_samples / rate
    ok = is_number(seek) and 0 <= seek <= whole and (round(seek * rate) < n_samples or seek == 0)
    expect(ok, BadInput, "seek", seek, f"0 up to {whole:.3f} seconds, the length")
    ok = duration is None or (is_number(duration) and duration > 0 and round(min(duration, 1) * rate) > 0)
    expect(ok, BadInput, "duration", duration, f"a sample or more, {1 / rate:.2g} seconds")
    start = round(seek * rate)
    if duration is None or duration >= whole:
        return start, n_samples
    return start, min(n_samples, start + round(duration * rate))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def extras(data: Data, table: list[Entry], run: Run) -> dict[str, Any]:
    """Return what stands beside the samples, as arguments of `Source`."""
    found: dict[str, Any] = {"attached": ()}
    for entry in table:
        if entry.kind not in MEANT:
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
            run.note(f"damaged, left out: {MEANT[entry.kind]} ({error})")
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


def silence(n: int, channels: int, bits: int, floating: bool) -> Samples:
    """Return n samples of nothing, in the type of decoded samples."""
    return np.zeros((n, channels), f"f{bits // 8}" if floating else "i4")


def joined(blocks: Iterable[Samples]) -> Samples:
    """Return all blocks as one."""
    return np.concatenate(list(blocks))
