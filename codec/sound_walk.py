"""What a file of a sound says of itself: the chunks of WAV, RF64, BW64, W64, AIFF, AIFC, CAF, AU and NIST SPHERE.

A walk finds where the samples stand, how many there should be, how they are coded and what else is there. It reads no sample.
Sizes are believed only as far as the file bears them out. Headers that were never finished say 0 or too little; then the
samples run to the end of the file.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from laconic.entropy.errors import BadInput, expect

MAX_PIECES = 1 << 14  # chunks of a file
UNKNOWN = 0xFFFFFFFF  # a size of 32 bits that says nothing
STREAMED = (range(0x7FFFF000, 1 << 31), range(0xFFFFF000, 1 << 32))  # sizes of those who write into pipes
MAX_FILLING = 1 << 16  # zeros that fill the last block of AIFF's samples
SMALL_TAIL = 1024  # so few bytes after a finished file are no forgotten samples
TRAILERS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # ends a subtype in WAVEFORMATEXTENSIBLE, after its two bytes
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # ends a chunk's name in W64, after its four letters
W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
CODINGS = {1: "PCM", 2: "MS_ADPCM", 3: "FLOAT", 6: "ALAW", 7: "ULAW", 0x11: "IMA_ADPCM", 0x31: "GSM610"}
CODINGS |= {0x14: "G723_24", 0x38: "NMS_ADPCM", 0x40: "G721_32", 0x64: "G721_32", 0x45: "G721_32"}
AIFC_CODINGS = {b"NONE": "PCM", b"twos": "PCM", b"sowt": "PCM", b"in24": "PCM", b"in32": "PCM", b"raw ": "PCM"}
AIFC_CODINGS |= {b"42ni": "PCM", b"23ni": "PCM", b"fl32": "FLOAT", b"FL32": "FLOAT", b"fl64": "FLOAT", b"FL64": "FLOAT"}
AIFC_CODINGS |= {b"ulaw": "ULAW", b"ULAW": "ULAW", b"alaw": "ALAW", b"ALAW": "ALAW", b"ima4": "IMA_ADPCM"}
AIFC_CODINGS |= {b"GSM ": "GSM610", b"DWVW": "DWVW"}
AIFC_BITS = {b"in24": 24, b"in32": 32, b"42ni": 24, b"23ni": 32, b"fl32": 32, b"FL32": 32, b"fl64": 64, b"FL64": 64}
CAF_CODINGS = {b"alac": "ALAC", b"ulaw": "ULAW", b"alaw": "ALAW", b"ima4": "IMA_ADPCM"}
NIST_LAYOUT = ("sample_coding", "sample_byte_format", "sample_sig_bits")  # what these fields say, the samples show
AU_CODINGS = {1: ("ULAW", 8), 2: ("PCM", 8), 3: ("PCM", 16), 4: ("PCM", 24), 5: ("PCM", 32), 6: ("FLOAT", 32)}
AU_CODINGS |= {7: ("FLOAT", 64), 23: ("G721_32", 4), 25: ("G723_24", 3), 26: ("G723_40", 5), 27: ("ALAW", 8)}
# Core Audio's layouts whose channels stand in WAV's order: (number << 16 | channels) to the mask.
CORE_LAYOUTS = {(100, 1): 0x4, (101, 2): 0x3, (108, 4): 0x33, (113, 3): 0x7, (115, 4): 0x107, (117, 5): 0x37}
CORE_LAYOUTS |= {(121, 6): 0x3F, (125, 7): 0x13F, (126, 8): 0xFF, (131, 3): 0x103, (133, 3): 0xB}


class Readable(Protocol):
    """Reads a file at any place."""

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...

    def read(self, n: int = -1, /) -> bytes: ...


class View:
    """Shows parts of a file, one after the other, as a file of its own.

    parts: (first byte, the one after the last) in order; all from where the file stands unless given. changes: bytes that are
    read instead of the file's own, by offset in the view.
    """

    def __init__(
        self, file: Readable, parts: list[tuple[int, int]] | None = None, changes: dict[int, bytes] | None = None
    ) -> None:
        if parts is None:
            first = file.tell()
            parts = [(first, max(first, file.seek(0, 2)))]
            file.seek(first)
        self.file, self.parts, self.changes, self.position = file, parts, changes or {}, 0
        self.starts = [0, *accumulate(end - start for start, end in parts)]
        self.size = self.starts[-1]

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = max(0, offset + (0, self.position, self.size)[whence])
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, n: int = -1) -> bytes:
        raw = self.at(self.position, self.size if n < 0 else n)
        self.position += len(raw)
        return raw

    def at(self, start: int, n: int) -> bytes:
        """Return up to n bytes from `start` on, wherever the view stands."""
        stop, raw = min(start + n, self.size), bytearray()
        i = bisect_right(self.starts, start) - 1
        while len(raw) < stop - start:
            first, end = self.parts[i]
            inside = start + len(raw) - self.starts[i]
            self.file.seek(first + inside)
            wanted = min(end - first - inside, stop - start - len(raw))
            got = self.file.read(wanted)
            raw += got
            i += 1
            if len(got) < wanted:
                break
        for offset, change in self.changes.items():
            begin, finish = max(offset, start), min(offset + len(change), start + len(raw))
            if begin < finish:
                raw[begin - start : finish - start] = change[begin - offset : finish - offset]
        return bytes(raw)

    def cut(self, start: int, end: int | None = None, changes: dict[int, bytes] | None = None) -> View:
        """Return the bytes from `start` to `end` as a file of its own."""
        return View(self, [(start, self.size if end is None else end)], changes)


@dataclass(frozen=True)
class Piece:
    """Holds a chunk's name, and where its content stands."""

    name: bytes
    start: int
    end: int


@dataclass
class Walk:
    """Holds what a file says of its samples. width: bits of a sample as it is stored. n_samples: per channel, None where the
    file does not say. parts: where the samples stand. big: the highest byte first. pieces: the other chunks.
    """

    container: str
    coding: str
    rate: float
    channels: int
    width: int
    n_samples: int | None = None
    parts: list[tuple[int, int]] = field(default_factory=list)
    big: bool = False
    unsigned: bool = False
    layout: int = 0
    pieces: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  # (name, text) in the header itself

    @property
    def frame(self) -> int:
        """The bytes of one sample of all channels."""
        return max(1, self.channels * self.width // 8)

    @property
    def n_held(self) -> int:
        """The whole samples per channel that stand in `parts`, where each has the same width."""
        return sum(end - start for start, end in self.parts) // self.frame


def walk(view: View) -> Walk | None:
    """Return what a file of chunks says, or None where it is none of these formats. Raises BadInput for damage."""
    start = view.at(0, 16)
    try:
        if start[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
            return walk_riff(view, start)
        if start == W64_RIFF:
            return walk_w64(view)
        if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
            return walk_aiff(view)
        if start[:4] == b"caff":
            return walk_caf(view)
        if start[:4] in (b".snd", b"dns."):
            return walk_au(view)
        return walk_nist(view) if start[:7] == b"NIST_1A" else None
    except struct.error:
        raise BadInput("sound: found a header that ends early, expected a whole one") from None


def walk_riff(view: View, start: bytes) -> Walk:
    """Walk WAV, RIFX (the same with the highest byte first), RF64 and BW64."""
    expect(start[8:12] == b"WAVE", BadInput, "sound", f"RIFF of type {start[8:12]!r}", "WAVE")
    order, wide = (">" if start[:4] == b"RIFX" else "<"), start[:4] in (b"RF64", b"BW64")
    found, samples, pieces, long_sizes, notes = b"", list[tuple[int, int]](), list[Piece](), dict[bytes, int](), list[str]()
    for piece in chunks(view, 12, order, long_sizes):
        content = view.at(piece.start, min(piece.end - piece.start, 64))
        if piece.name == b"data":
            samples.append(sample_span(view, piece, piece.start, order, "WAV", samples, notes))
            if samples[-1][1] != piece.end:
                break
            continue
        if piece.name == b"ds64" and wide:
            long_sizes[b"data"] = struct.unpack("<Q", content[8:16])[0]
        found = content if piece.name == b"fmt " and not found else found
        expect(content[:4] != b"wavl" or piece.name != b"LIST", BadInput, "WAV", "a list of waves (wavl)", "a data chunk")
        pieces.append(piece)
    expect(len(found) >= 16, BadInput, "sound", "no fmt chunk", "a WAV file with one")
    expect(bool(samples), BadInput, "sound", "no data chunk", "a WAV file with one")
    name = {b"RIFX": "RIFX", b"RIFF": "WAV"}.get(start[:4], "RF64")
    out = wav_format(found, order, name)
    out.parts, out.pieces, out.notes = samples, pieces, notes
    out.n_samples = out.n_held if out.coding in ("PCM", "FLOAT") else fact(view, pieces, order)
    return out


def wav_format(found: bytes, order: str, container: str) -> Walk:
    """Read the fmt chunk of WAV and W64."""
    tag, channels, rate, _, align, bits = struct.unpack(order + "HHIIHH", found[:16])
    mask = 0
    if tag == 0xFFFE and len(found) >= 40:
        mask = struct.unpack(order + "I", found[20:24])[0]
        tag = struct.unpack(order + "H", found[24:26])[0] if found[26:40] == GUID_TAIL else tag
    coding = CODINGS.get(tag, f"format {tag:#06x}")
    expect(channels > 0, BadInput, "channels", channels, "1 to 8")
    width = 8 * align // channels
    if coding in ("PCM", "FLOAT") and (align % channels or not 0 < bits <= width):
        width = (bits + 7) // 8 * 8  # some writers fill in the bits alone
        expect(bits > 0, BadInput, "WAV samples", f"{bits} bits in {align} bytes of {channels} channels", "one bit or more")
    return Walk(container, coding, rate, channels, width, big=order == ">", unsigned=width == 8, layout=mask)


def fact(view: View, pieces: list[Piece], order: str) -> int | None:
    """Return the number of samples that a fact chunk states."""
    for piece in pieces:
        if piece.name == b"fact" and piece.end - piece.start >= 4:
            (n,) = struct.unpack(order + "I", view.at(piece.start, 4))
            return None if n in (0, UNKNOWN) else int(n)
    return None


def chunks(view: View, at: int, order: str, long_sizes: dict[bytes, int] | None = None) -> Iterator[Piece]:
    """Yield the chunks of RIFF or FORM from `at` on, up to the first that is none.

    long_sizes: sizes by name, for chunks whose own 32 bits say nothing; the caller may fill it on the way.
    """
    for _ in range(MAX_PIECES):
        head = view.at(at, 8)
        if len(head) < 8 or not printable(head[:4]):
            return
        (size,) = struct.unpack(order + "I", head[4:])
        size = (long_sizes or {}).get(head[:4], size) if size in (0, UNKNOWN) else size
        yield Piece(head[:4], at + 8, at + 8 + size)
        at += 8 + size
        if size % 2 and not (view.at(at, 1) != b"\0" and printable(view.at(at, 4))):
            at += 1  # some writers forget the pad byte
    raise BadInput(f"sound: found more than {MAX_PIECES} chunks, expected fewer")


def printable(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def sample_span(
    view: View, piece: Piece, start: int, order: str, name: str, before: list[tuple[int, int]], notes: list[str]
) -> tuple[int, int]:
    """Return where the samples begin and end: as the header says, or with the file where that is seen to be wrong.

    before: the spans of samples so far, after which whole chunks were seen to follow.
    """
    start, stop = min(start, view.size), max(start, piece.end)
    size = stop - start
    if stop >= view.size or before:
        known = name == "WAV" and not any(piece.end - piece.start in sizes for sizes in STREAMED)
        notes.extend(early(size, view.size - start) if known else [])
        return start, max(start, min(stop, view.size))
    if ends_well(view, stop + stop % 2, order) or ends_well(view, stop, order):
        return start, stop
    if view.size - stop <= min(size, SMALL_TAIL):
        return start, stop
    notes.append(unfinished(name, size, view.size - start))
    return start, view.size


def ends_well(view: View, at: int, order: str) -> bool:
    """Say whether what stands from `at` on is whole chunks, or a tag that some program has added."""
    for _ in range(MAX_PIECES):
        if view.size - at <= 1:
            break
        if view.at(at, 11).startswith(TRAILERS):
            return True
        head = view.at(at, 8)
        if len(head) < 8 or not printable(head[:4]):
            return False
        at += 8 + struct.unpack(order + "I", head[4:])[0]
        at += at % 2
    return view.size - at in (-1, 0, 1)


def walk_w64(view: View) -> Walk:
    """Walk Sony Wave64: names of 16 bytes, sizes of 8 that count their own header, all aligned to 8."""
    at, found, samples, pieces, notes = 40, b"", list[tuple[int, int]](), list[Piece](), list[str]()
    while len(head := view.at(at, 24)) == 24:
        name, size = head[:4], int.from_bytes(head[16:], "little")
        if name == b"data" and head[4:16] == W64_TAIL:
            n = max(0, size - 24)
            after = view.at(at + 24 + n, 11).startswith(TRAILERS)
            follows = after or view.at((at + 24 + n + 7) // 8 * 8, 16)[4:] == W64_TAIL
            ends = 0 < n and (follows or view.size - (at + 24 + n) < 8 or at + 24 + n > view.size)
            stop = min(at + 24 + n, view.size) if ends else view.size
            samples.append((at + 24, stop))
            held = stop - at - 24
            notes += [unfinished("W64", n, held)] * (not ends and held > 0)
            notes += early(n, held)
            if stop == view.size:
                break
        elif name == b"fmt ":
            found = view.at(at + 24, 40)
        elif printable(name):
            pieces.append(Piece(name, at + 24, at + size))
        at += (max(size, 24) + 7) // 8 * 8
    expect(len(found) >= 16 and bool(samples), BadInput, "sound", "no fmt or data chunk", "a W64 file with both")
    out = wav_format(found, "<", "W64")
    out.parts, out.pieces, out.notes = samples, pieces, notes
    out.n_samples = out.n_held if out.coding in ("PCM", "FLOAT") else None
    return out


def walk_aiff(view: View) -> Walk:
    """Walk AIFF and AIFC."""
    notes, pieces, comm, spans, block = list[str](), list[Piece](), b"", list[tuple[int, int]](), 0
    for piece in chunks(view, 12, ">"):
        if piece.name == b"SSND":
            offset, block = struct.unpack(">II", view.at(piece.start, 8))
            spans.append(sample_span(view, piece, piece.start + 8 + offset, ">", "AIFF", spans, notes))
            if spans[-1][1] != piece.end:
                break
        elif piece.name == b"COMM":
            comm = view.at(piece.start, 22 + 256)
        else:
            pieces.append(piece)
    expect(len(comm) >= 18, BadInput, "sound", "no COMM chunk", "an AIFF file with one")
    channels, n_stated, bits = struct.unpack(">HIH", comm[:8])
    expect(bool(spans) or n_stated == 0, BadInput, "sound", "no SSND chunk", "an AIFF file with one")
    kind = comm[18:22] if view.at(8, 4) == b"AIFC" else b"NONE"
    width = AIFC_BITS.get(kind, (bits + 7) // 8 * 8)
    coding = AIFC_CODINGS.get(kind, f"{kind!r}")
    out = Walk("AIFF", coding, extended(comm[8:18]), channels, width, n_stated, spans)
    out.big, out.unsigned = kind not in (b"sowt", b"42ni", b"23ni"), kind == b"raw "
    out.pieces, out.notes = pieces, notes
    out.layout = core_layout(view, pieces, b"CHAN", channels, notes)
    count_against_span(out, view, block)
    return out


def count_against_span(found: Walk, view: View, block: int = 0) -> None:
    """Settle a number of samples that disagrees with the room that they have: all that stands there is read.

    block: bytes to a multiple of which zeros may fill the room.
    """
    if found.coding not in ("PCM", "FLOAT") or found.channels == 0:
        return
    held, stated = found.n_held, found.n_samples or 0
    over = sum(end - start for start, end in found.parts) - stated * found.frame
    zeros = found.frame <= over < min(block, MAX_FILLING) and not any(view.at(found.parts[-1][1] - over, over))
    found.notes += early(stated, held, "samples")
    if held > stated and not zeros and not found.notes:
        found.notes.append(f"the header counts {stated} samples, {held} are there: all are kept")
    found.n_samples = stated if zeros else held


def extended(raw: bytes) -> float:
    """Return a number of 80 bits, as AIFF writes rates."""
    exponent, mantissa = struct.unpack(">HQ", raw)
    exponent -= 16383 + 63
    return float(mantissa * 2**exponent) if 0 <= exponent < 64 else mantissa / 2**-exponent if -128 < exponent < 0 else 0.0


def walk_caf(view: View) -> Walk:
    """Walk Apple's Core Audio Format."""
    at, desc, spans, pieces, notes, n_valid = 8, b"", list[tuple[int, int]](), list[Piece](), list[str](), None
    while len(head := view.at(at, 12)) == 12 and printable(head[:4]):
        name, size = head[:4], struct.unpack(">q", head[4:])[0]
        end = view.size if size < 0 else at + 12 + size
        piece = Piece(name, at + 12, end)
        if name == b"data":
            whole = size >= 4 and (end >= view.size - 1 or caf_follows(view, end))
            notes += early(size - 4, view.size - at - 16) if whole else []
            notes += [] if whole or size == -1 else [unfinished("CAF", max(0, size - 4), view.size - at - 16)]
            end = min(end, view.size) if whole else view.size
            spans.append((at + 16, end))
        elif name == b"desc":
            desc = view.at(at + 12, 32)
        else:
            if name == b"pakt":
                n_valid = struct.unpack(">q", view.at(at + 20, 8))[0]
            pieces.append(piece)
        at = end
    expect(len(desc) == 32 and bool(spans), BadInput, "sound", "no desc or data chunk", "a CAF file with both")
    rate, kind, flags, packet, per_packet, channels, bits = struct.unpack(">d4sIIIII", desc)
    out = Walk("CAF", "", rate, channels, bits, n_valid, spans, not flags & 2)
    out.pieces, out.notes = pieces, notes
    out.layout = core_layout(view, pieces, b"chan", channels, notes)
    if kind == b"lpcm":
        out.coding, out.width = ("FLOAT" if flags & 1 else "PCM"), 8 * packet // max(1, channels * per_packet)
        out.n_samples = out.n_held
    else:
        out.coding = CAF_CODINGS.get(kind, f"{kind!r}")
        out.width = {1: 16, 2: 20, 3: 24, 4: 32}.get(flags, bits) if kind == b"alac" else bits or 16
    return out


def caf_follows(view: View, at: int) -> bool:
    """Say whether a chunk of CAF stands there."""
    head = view.at(at, 12)
    return len(head) == 12 and printable(head[:4]) and 0 <= struct.unpack(">q", head[4:])[0] <= view.size - at - 12


def early(stated: int, held: int, unit: str = "bytes of samples") -> list[str]:
    """Return a note on samples that the file does not hold; none where it holds all."""
    return [f"the file ends early: {max(0, held)} of {stated} {unit} are there"] * (held < stated)


def unfinished(name: str, size: int, n: int) -> str:
    """Return the note on a header whose sizes were never filled in."""
    return f"the {name} header was never finished ({size} bytes of samples): all {n} up to the end are taken for them"


def core_layout(view: View, pieces: list[Piece], name: bytes, channels: int, notes: list[str]) -> int:
    """Return the mask of loudspeakers that a chunk of Core Audio's layouts means, if it has one; a note where not."""
    for piece in pieces:
        if piece.name != name or piece.end - piece.start < 12:
            continue
        raw = view.at(piece.start, 12 + 20 * channels)
        tag, bitmap, n = struct.unpack(">III", raw[:12])
        labels = [struct.unpack(">I", raw[12 + 20 * i : 16 + 20 * i])[0] for i in range(min(n, (len(raw) - 12) // 20))]
        mask = CORE_LAYOUTS.get((tag >> 16, tag & 0xFFFF), 0)
        if tag == 0x10000:
            mask = bitmap
        elif tag == 0 and labels == sorted(set(labels)) and all(1 <= label <= 18 for label in labels):
            mask = sum(1 << label - 1 for label in labels)
        if mask and mask.bit_count() == channels:
            return mask
        notes.append("the layout of the channels is left out: it stands in another order than a mask of loudspeakers")
    return 0


def walk_au(view: View) -> Walk:
    """Walk Sun's and NeXT's AU."""
    order = ">" if view.at(0, 4) == b".snd" else "<"
    start, size, kind, rate, channels = struct.unpack(order + "IIIII", view.at(4, 20))
    coding, width = AU_CODINGS.get(kind, (f"encoding {kind}", 8))
    expect(24 <= start <= view.size, BadInput, "AU samples", f"from byte {start} on", f"24 to {view.size}")
    out = Walk("AU", coding, rate, channels, width, None, [], order == ">")
    whole = size and start + size <= view.size and view.size - start - size <= SMALL_TAIL
    out.parts = [(start, start + size if whole else view.size)]
    if not whole and size != UNKNOWN:
        out.notes += early(size, view.size - start)
        out.notes += [unfinished("AU", size, view.size - start)] * (start + size < view.size)
    out.n_samples = out.n_held if coding in ("PCM", "FLOAT") else None
    text = view.at(24, min(max(0, start - 24), 1 << 16)).split(b"\0")[0]
    out.texts = [("comment", text.decode("latin-1"))] if text else []
    return out


def walk_nist(view: View) -> Walk:
    """Walk NIST SPHERE, as corpora of speech have it: lines of `name -type value`."""
    try:
        length = int(view.at(8, 8))
    except ValueError:
        raise BadInput("sound: found damage in the NIST header, expected its length") from None
    lines = view.at(0, min(length, 1 << 16)).decode("latin-1").splitlines()
    values = {parts[0]: parts[2] for parts in (line.split(None, 2) for line in lines) if len(parts) == 3}
    names = ("sample_rate", "channel_count", "sample_n_bytes", "sample_count")
    expect(all(values.get(name, "").isdigit() for name in names), BadInput, "NIST header", sorted(values), f"{names}")
    rate, channels, width, n = (int(values[name]) for name in names)
    coding = values.get("sample_coding", "pcm")
    known = {"pcm": "PCM", "ulaw": "ULAW", "mu-law": "ULAW", "alaw": "ALAW"}.get(coding, coding)
    big = values.get("sample_byte_format", "01") == "10"
    out = Walk("NIST", known, rate, channels, 8 * width, n, [(length, max(length, view.size))], big)
    count_against_span(out, view)
    out.texts = [(name, value) for name, value in values.items() if name not in (*names, *NIST_LAYOUT)]
    return out
