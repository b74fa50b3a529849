"""Directories of TIFF, in TIFF files and in EXIF: read, bounded, and written as small as a reader needs them.

A directory is a table of tags; a tag is a number, a type and values. Sources: TIFF 6.0, sections 2 and 8; EXIF 2.32,
section 4.6; BigTIFF as of libtiff.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from laconic.entropy.errors import BadInput

EXIF_PREFIX = b"Exif\0\0"
TIFF_ICC, IMAGE_DEPTH, REFERENCE_BLACK_WHITE = 34675, 32997, 532
ORIENTATION, EXIF_IFD, GPS_IFD, INTEROP_IFD, SUB_IFDS = 0x0112, 0x8769, 0x8825, 0xA005, 0x014A
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, IFD, LONG8 = 1, 2, 3, 4, 5, 7, 13, 16
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
MAX_DIRECTORIES = 1 << 12
MAX_TAGS = 1 << 12
# What lies where and how it is packed; colour is tags of its own. Cameras copy some of them into EXIF.
LAYOUT = (*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(320, 326), 338, 339)
COLOUR = (292, 293, 332, 334, 347, *range(512, 522), *range(529, 533), TIFF_ICC)


@dataclass(frozen=True)
class Tag:
    """Holds a tag of a directory: TIFF's number of its type, its values as bytes in the byte order of the file."""

    kind: int
    data: bytes
    order: str  # "<" or ">"

    @property
    def values(self) -> tuple[int, ...]:
        """Its integers; none for other types."""
        letter = LETTERS.get(self.kind)
        count = len(self.data) // TYPE_BYTES.get(self.kind, 1)
        return struct.unpack(f"{self.order}{count}{letter}", self.data) if letter else ()

    @property
    def ratios(self) -> tuple[tuple[int, int], ...]:
        """Numerators and denominators of rationals, and integers over 1."""
        if self.kind != RATIONAL:
            return tuple((value, 1) for value in self.values)
        flat = struct.unpack(f"{self.order}{len(self.data) // 4}I", self.data)
        return tuple(zip(flat[::2], flat[1::2], strict=True))

    def ordered(self, order: str) -> Tag:
        """Return the same values in a byte order."""
        size = {5: 4, 10: 4}.get(self.kind, TYPE_BYTES.get(self.kind, 1))
        if order == self.order or size == 1:
            return Tag(self.kind, self.data, order)
        parts = [self.data[i : i + size][::-1] for i in range(0, len(self.data), size)]
        return Tag(self.kind, b"".join(parts), order)


Directory = dict[int, Tag]


def short(*values: int) -> Tag:
    """Return a tag of 16-bit integers."""
    return Tag(SHORT, struct.pack(f"<{len(values)}H", *values), "<")


@dataclass(frozen=True)
class Tiff:
    """Walks the bytes of a TIFF file or of EXIF's TIFF part; `start` is where its first directory lies."""

    raw: bytes
    order: str
    big: bool
    start: int

    def directories(self) -> Iterator[Directory]:
        """Yield the directories of the main chain, each once, for as long as they make sense."""
        position, seen = self.start, set[int]()
        while position and position not in seen and len(seen) < MAX_DIRECTORIES:
            seen.add(position)
            found = self.directory(position)
            if found is None:
                return
            directory, position = found
            yield directory

    def directory(self, position: int) -> tuple[Directory, int] | None:
        """Return the tags at a position, without those whose values lie outside the file, and the next position."""
        count_bytes, entry_bytes, offset_bytes = (8, 20, 8) if self.big else (2, 12, 4)
        if position + count_bytes > len(self.raw):
            return None
        count = self.number(position, count_bytes)
        end = position + count_bytes + entry_bytes * count
        if count > MAX_TAGS or end > len(self.raw):
            return None
        tags = {}
        for at in range(position + count_bytes, end, entry_bytes):
            number, kind = self.number(at, 2), self.number(at + 2, 2)
            data = self.values(at, kind, offset_bytes)
            if data is not None:
                tags[number] = Tag(kind, data, self.order)
        return tags, self.number(end, offset_bytes) if end + offset_bytes <= len(self.raw) else 0

    def values(self, at: int, kind: int, offset_bytes: int) -> bytes | None:
        """Return the bytes of the values of the entry at a place, or None where they are not in the file."""
        size = TYPE_BYTES.get(kind, 0) * self.number(at + 4, offset_bytes)
        place = at + 4 + offset_bytes
        if size > offset_bytes:
            place = self.number(place, offset_bytes)
        return self.raw[place : place + size] if kind in TYPE_BYTES and place + size <= len(self.raw) else None

    def number(self, position: int, n_bytes: int) -> int:
        """Return the integer at a position."""
        return int.from_bytes(self.raw[position : position + n_bytes], "little" if self.order == "<" else "big")


def parse(raw: bytes, what: str = "TIFF") -> Tiff:
    """Read the header of a TIFF file, or of what follows `Exif` in EXIF. Raises BadInput where it is none."""
    order = {b"II": "<", b"MM": ">"}.get(raw[:2], "")
    version = int.from_bytes(raw[2:4], "little" if order == "<" else "big")
    if not order or version not in (42, 43) or len(raw) < 8:
        raise BadInput(f"{what}: found damage (no TIFF header), expected none")
    big = version == 43
    start = int.from_bytes(raw[8:16] if big else raw[4:8], "little" if order == "<" else "big")
    return Tiff(raw, order, big, start)


def write(directory: Directory, order: str = "<", nested: dict[int, Directory] | None = None) -> bytes:
    """Return a TIFF file of one directory without samples, as EXIF is; nested: directories that tags of it point at."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + laid(directory, order, len(head), nested or {})


def laid(directory: Directory, order: str, position: int, nested: dict[int, Directory]) -> bytes:
    """Return the bytes of a directory at an even position, and of the directories that tags of it point at."""
    tags = {**directory, **{number: Tag(LONG, bytes(4), order) for number in nested}}
    end = position + len(packed(tags, order, position))
    body = b""
    for number, inner in nested.items():
        tags[number] = Tag(LONG, struct.pack(f"{order}I", end + len(body)), order)
        body += packed(inner, order, end + len(body))
    return packed(tags, order, position) + body


def packed(directory: Directory, order: str, position: int, big: bool = False) -> bytes:
    """Return the bytes of a last directory that lies at an even position, its values after it; of an even length."""
    inside, count_letter, letter = (8, "Q", "Q") if big else (4, "H", "I")
    entry_bytes = 4 + 2 * inside
    values_at = position + struct.calcsize(f"<{count_letter}") + entry_bytes * len(directory) + inside
    entries, values = b"", b""
    for number in sorted(directory):
        tag = directory[number].ordered(order)
        count = len(tag.data) // TYPE_BYTES[tag.kind]
        place = tag.data.ljust(inside, b"\0")
        if len(tag.data) > inside:
            place = struct.pack(f"{order}{letter}", values_at + len(values))
            values += tag.data + bytes(len(tag.data) % 2)
        entries += struct.pack(f"{order}HH{letter}", number, tag.kind, count) + place
    return struct.pack(f"{order}{count_letter}", len(directory)) + entries + bytes(inside) + values


def exif_of(tiff: Tiff, directory: Directory, without: Iterable[int]) -> bytes:
    """Return the tags of a TIFF directory as EXIF, with those of its EXIF and GPS directories."""
    tags, nested = unfolded(tiff, directory, without)
    says = nested or tags.keys() - {ORIENTATION} or (ORIENTATION in tags and tags[ORIENTATION].values != (1,))
    return EXIF_PREFIX + write(tags, tiff.order, nested) if says else b""


def unfolded(
    tiff: Tiff, directory: Directory, without: Iterable[int] = ()
) -> tuple[Directory, dict[int, Directory]]:
    """Return the tags that are no layout, and the EXIF and GPS directories that tags point at."""
    left_out = {*LAYOUT, SUB_IFDS, *without}
    tags = {number: tag for number, tag in directory.items() if number not in left_out}
    nested = {}
    for number in (EXIF_IFD, GPS_IFD):
        values = tags.pop(number).values if number in tags else ()
        found = tiff.directory(values[0]) if values else None
        if found and found[0]:
            nested[number] = {n: narrow(tag) for n, tag in found[0].items() if n != INTEROP_IFD}
    return {number: narrow(tag) for number, tag in tags.items()}, nested


def narrow(tag: Tag) -> Tag:
    """Return the same values in a type that is not BigTIFF's alone, where they fit."""
    if tag.kind in (16, 17, 18) and all(0 <= value < 1 << 32 for value in tag.values):
        return Tag(LONG, struct.pack(f"{tag.order}{len(tag.values)}I", *tag.values), tag.order)
    return tag


def orientation_of(exif: bytes) -> int | None:
    """Return the orientation in EXIF, 1 to 8, or None. Raises BadInput where the EXIF is none."""
    place = orientation_place(exif)
    return place[1] if place else None


def upright_exif(exif: bytes) -> bytes:
    """Return the EXIF with the orientation 1 where it had another; every other byte stays. Raises BadInput."""
    place = orientation_place(exif)
    if place is None or place[1] == 1:
        return exif
    at, _, order = place
    return exif[:at] + struct.pack(f"{order}H", 1) + exif[at + 2 :]


def orientation_place(exif: bytes) -> tuple[int, int, str] | None:
    """Return where the orientation stands in EXIF, its value and the byte order."""
    start = len(EXIF_PREFIX) if exif.startswith(EXIF_PREFIX) else 0
    tiff = parse(exif[start:], "EXIF")
    if tiff.big:
        raise BadInput("EXIF: found damage (a header of BigTIFF), expected none")
    if tiff.start + 2 > len(tiff.raw):
        return None
    for i in range(min(tiff.number(tiff.start, 2), MAX_TAGS)):
        at = tiff.start + 2 + 12 * i
        value = tiff.number(at + 8, 2)
        if tiff.number(at, 2) == ORIENTATION and tiff.number(at + 2, 2) == SHORT and 1 <= value <= 8:
            return start + at + 8, value, tiff.order
    return None


def minimal_exif(orientation: int) -> bytes:
    """Return EXIF that holds an orientation and nothing else."""
    return EXIF_PREFIX + write({ORIENTATION: short(orientation)})


def bare(tiff: Tiff, directory: Directory) -> bytes:
    """Return the file with one directory, which has the tags that readers of samples need and no others.

    So no reader sees, and complains of, what it does not know, and the picture read is the one that was looked at.
    """
    known = {number: tag for number, tag in directory.items() if number in (*LAYOUT, *COLOUR)}
    at = len(tiff.raw) + len(tiff.raw) % 2  # the directory is appended; the samples stay where they are
    if not tiff.big and at >= 1 << 32:
        return tiff.raw
    head = tiff.raw[:8] + struct.pack(f"{tiff.order}Q", at) if tiff.big else tiff.raw[:4] + struct.pack(f"{tiff.order}I", at)
    return head + tiff.raw[len(head) : at] + bytes(at - len(tiff.raw)) + packed(known, tiff.order, at, tiff.big)
