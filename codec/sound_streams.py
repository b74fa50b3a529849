"""What a stream of packets says of itself: STREAMINFO of FLAC, the pages of Ogg, the frames of MPEG.

libsndfile reads such streams, but only the first of several, and only as many samples as the first header says. The walks here
count on their own, so that nothing is lost unseen.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from laconic.entropy.errors import BadInput, expect
from laconic.sound_walk import View

FLAC_LAYOUTS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}  # RFC 9639, section 9.1.3
MPEG_RATES = (44100, 48000, 32000)
MPEG_KBITS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_KBITS[2, 3] = MPEG_KBITS[2, 2]
WINDOW = 1 << 20  # bytes that a walk reads at once
MAX_JUNK = 1 << 16  # bytes between frames that are nobody's samples


@dataclass(frozen=True)
class Flac:
    """Holds STREAMINFO and where it stands. n_samples: 0 where the encoder did not know. md5: zeros where it did not count."""

    rate: int
    channels: int
    bits: int
    n_samples: int
    md5: bytes
    total_at: int  # where the 5 bytes that hold the number of samples begin


def flac_info(view: View) -> Flac:
    """Read STREAMINFO (RFC 9639, section 8.2) of a FLAC file. Raises BadInput."""
    raw = view.at(0, 42)
    whole = len(raw) == 42 and raw[:4] == b"fLaC" and raw[4] & 127 == 0
    expect(whole, BadInput, "FLAC", raw[:8], "a file that begins with STREAMINFO")
    packed = int.from_bytes(raw[18:26], "big")
    rate, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    return Flac(rate, channels, bits, packed & (1 << 36) - 1, raw[26:42], 21)


def without_total(view: View, info: Flac) -> View:
    """Return the FLAC file with an unknown number of samples, which makes libFLAC read to the end."""
    kept = view.at(info.total_at, 1)[0] & 0xF0
    return view.cut(0, None, {info.total_at: bytes([kept, 0, 0, 0, 0])})


@dataclass
class Link:
    """Describes a stream of Ogg from its first page to the next one's. first, last: positions at the ends of those
    of samples; -1 where none is.
    """

    start: int
    codec: str
    serial: int
    end: int = 0
    first: int = -1
    last: int = -1
    pages: int = 0
    missing: int = 0
    ended: bool = False
    bodies: list[tuple[int, int]] = field(default_factory=list)  # FLAC's bytes without the pages around them


OGG_CODECS = {b"\x01vorbis": "VORBIS", b"OpusHead": "OPUS", b"\x7fFLAC": "FLAC", b"Speex   ": "SPEEX"}
OGG_CODECS |= {b"\x80theora": "THEORA", b"fishead\0": "SKELETON", b"BBCD": "DIRAC", b"\x80kate": "KATE", b"PCM     ": "PCM"}


def ogg_links(view: View) -> tuple[list[Link], int]:
    """Return the streams of an Ogg file, one after the other, and the bytes that belong to no page. Raises BadInput.

    Several streams at a time, such as a film's, are refused.
    """
    links, junk, at, beginning, sequence = list[Link](), 0, 0, False, 0
    while at < view.size:
        head = view.at(at, 27 + 255)
        if len(head) < 27 or head[:4] != b"OggS":
            skipped = next_page(view, at + 1) - at
            junk, at = junk + skipped, at + skipped
            continue
        flags, position, serial, number = head[5], *struct.unpack("<qII", head[6:22])
        sizes = head[27 : 27 + head[26]]
        body = at + 27 + len(sizes)
        stop = body + sum(sizes)
        if stop > view.size:  # the last page was cut off
            junk += view.size - at
            break
        if flags & 2:
            codec = next((name for magic, name in OGG_CODECS.items() if view.at(body, 8).startswith(magic)), "unknown")
            expect(not beginning, BadInput, "Ogg", "several streams at a time", "a single stream of sound")
            links.append(Link(at, codec, serial))
            sequence = number
        beginning = bool(flags & 2)
        one_by_one = bool(links) and serial == links[-1].serial
        expect(one_by_one, BadInput, "Ogg", "pages of another stream, or none that begins one", "whole streams in turn")
        link = links[-1]
        link.missing += max(0, number - sequence)
        sequence, link.pages = number + 1, link.pages + 1
        link.end, link.ended = stop, bool(flags & 4)
        if position > 0:
            link.first = position if link.first < 0 else link.first
            link.last = position
        if link.codec == "FLAC":
            link.bodies.append((body + 9 if flags & 2 else body, link.end))
        at = stop
    expect(bool(links), BadInput, "Ogg", "no page that begins a stream", "one")
    return links, junk


def next_page(view: View, at: int) -> int:
    """Return where the next page begins, or the end."""
    while at < view.size:
        raw = view.at(at, WINDOW)
        found = raw.find(b"OggS")
        if found >= 0:
            return at + found
        at += max(1, len(raw) - 3)
    return view.size


@dataclass
class Mpeg:
    """Describes a run of MPEG frames from one information frame to the next. n_samples: what a decoder gives, to a few frames."""

    start: int
    end: int
    layer: int
    rate: int
    channels: int
    frames: int = 0
    per_frame: int = 0
    trimmed: int = 0  # samples that LAME's tag tells a decoder to leave out
    stated: int = 0  # frames that the information frame counts
    music: int = -1  # where the first frame after it begins

    @property
    def n_samples(self) -> int:
        return max(0, self.frames * self.per_frame - self.trimmed)


def mpeg_links(view: View) -> tuple[list[Mpeg], int]:
    """Return the runs of frames of an MPEG file without tags, and the bytes that are no frame's. Raises BadInput.

    A new information frame (Xing, Info, VBRI) begins a new run: such files were one after the other.
    """
    links, junk, tags, at, form = list[Mpeg](), 0, 0, 0, None
    raw, base = b"", 0
    while at + 4 <= view.size:
        if not base <= at <= base + len(raw) - 200 and base + len(raw) < view.size:
            raw, base = view.at(at, WINDOW), at
        head = frame_header(raw[at - base : at - base + 4])
        if raw[at - base : at - base + 3] == b"ID3" and (size := tags_around(view.cut(at))[0]):
            tags, at = tags + size, at + size
            continue
        if head is None or ((junk or not links) and not follows(view, at, head)):
            junk, at = junk + 1, at + 1
            expect(junk <= MAX_JUNK, BadInput, "MPEG", f"{junk} bytes that are no frame's", "frames of MPEG audio")
            continue
        size, layer, rate, channels, per_frame, version = head
        form = (version, layer, rate, channels) if form is None else form
        changed = f"a stream that changes from {form} to {(version, layer, rate, channels)} (version, layer, Hz, channels)"
        expect(form == (version, layer, rate, channels), BadInput, "MPEG", changed, "the same in every frame")
        informed = information(raw[at - base : at - base + 200], version, channels) if layer == 3 else None
        if informed is not None or not links:
            links.append(Mpeg(at, at, layer, rate, channels, per_frame=per_frame))
        if informed is not None:
            (links[-1].stated, links[-1].trimmed) = informed
        else:
            links[-1].music = at if links[-1].music < 0 else links[-1].music
            links[-1].frames += at + size <= view.size
        at += size
        links[-1].end = min(at, view.size)
    expect(bool(links), BadInput, "MPEG", "no frame", "frames of MPEG audio")
    return links, junk + tags


def counted(view: View, link: Mpeg, notes: list[str]) -> View:
    """Return a run of frames whose information frame counts them all: libsndfile reads no more than it, or a guess, says.

    Where it is missing or wrong, one is put in front, and nothing is trimmed.
    """
    whole = view.cut(link.start, link.end)
    if link.layer != 3 or link.stated == link.frames or not link.frames:
        return whole
    if link.stated > link.frames:
        notes.append(f"the file ends early: {link.frames} of {link.stated} frames are there")
    elif link.stated:
        notes.append(f"the information frame counts {link.stated} frames, {link.frames} are there: all are kept")
    link.trimmed = 0
    head = bytearray(view.at(link.music, 4))
    head[1] |= 1  # the new frame has no CRC
    at = next(at for at in range(1, 15) if frame_size(bytes([*head[:2], head[2] & 0xF | at << 4, head[3]])) >= 64)
    head[2] = head[2] & 0xF | at << 4
    side = 4 + {(3, 1): 17, (3, 2): 32}.get((head[1] >> 3 & 3, link.channels), {1: 9, 2: 17}[link.channels])
    frame = (bytes(head) + bytes(side - 4) + b"Xing" + struct.pack(">II", 1, link.frames)).ljust(frame_size(bytes(head)), b"\0")
    room = (link.music, link.music + len(frame))  # the new frame is read in place of these bytes
    enough = room[1] <= link.end
    return View(view, [room, (link.music, link.end)], {0: frame}) if enough else whole


def frame_size(raw: bytes) -> int:
    """Return the bytes of a frame by its header."""
    head = frame_header(raw)
    return head[0] if head else 0


def follows(view: View, at: int, head: tuple[int, ...]) -> bool:
    """Say whether another frame stands after the one at `at`: a sync of 11 bits alone may be chance."""
    after = at + head[0]
    return after >= view.size - 4 or frame_header(view.at(after, 4)) is not None


def frame_header(raw: bytes) -> tuple[int, int, int, int, int, int] | None:
    """Return bytes, layer, rate, channels, samples and version of a frame, or None. Raises BadInput for free bit rates."""
    if len(raw) < 4 or raw[0] != 0xFF or raw[1] & 0xE0 != 0xE0:
        return None
    version, layer = {0: 3, 2: 2, 3: 1}.get(raw[1] >> 3 & 3, 0), 4 - (raw[1] >> 1 & 3)
    kbits, rate = raw[2] >> 4, raw[2] >> 2 & 3
    if not version or layer == 4 or kbits == 15 or rate == 3:
        return None
    expect(kbits > 0, BadInput, "MPEG", "frames of a free bit rate", "a bit rate that the frames name")
    hz = MPEG_RATES[rate] >> version - 1
    per_frame = 384 if layer == 1 else 1152 if layer == 2 or version == 1 else 576
    bits, pad = 1000 * MPEG_KBITS[min(version, 2), layer][kbits], raw[2] >> 1 & 1
    size = (12 * bits // hz + pad) * 4 if layer == 1 else per_frame // 8 * bits // hz + pad
    return size, layer, hz, 1 if raw[3] >> 6 == 3 else 2, per_frame, version


def information(raw: bytes, version: int, channels: int) -> tuple[int, int] | None:
    """Return the frames that an information frame counts and the samples that it has a decoder trim, or None for music."""
    if raw[36:40] == b"VBRI":
        return int.from_bytes(raw[50:54], "big"), 0
    at = 4 + ({1: 17, 2: 32} if version == 1 else {1: 9, 2: 17})[channels]
    at += 0 if raw[at : at + 4] in (b"Xing", b"Info") else 2 * (not raw[1] & 1)
    if raw[at : at + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(raw[at + 4 : at + 8], "big")
    stated = int.from_bytes(raw[at + 8 : at + 12], "big") if flags & 1 else 0
    lame = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    delays = int.from_bytes(raw[lame + 21 : lame + 24], "big") if raw[lame : lame + 4].strip(b"\0") else 0
    return stated, (delays >> 12) + (delays & 0xFFF)


def tags_around(view: View) -> tuple[int, int]:
    """Return where a stream begins after ID3v2 tags, and where it ends before ID3v1, APEv2 and Lyrics3 tags."""
    start, end = 0, view.size
    while (head := view.at(start, 10))[:3] == b"ID3" and len(head) == 10 and max(head[6:]) < 128:
        start = min(end, start + 10 + synchsafe(head[6:]) + 10 * (head[5] >> 4 & 1))
    before = end + 1
    while before != end:
        before = end
        if end - start >= 128 and view.at(end - 128, 3) == b"TAG":
            end -= 128
        if end - start >= 32 and view.at(end - 32, 8) == b"APETAGEX":
            size, _, flags = struct.unpack("<III", view.at(end - 20, 12))
            end = max(start, end - size - 32 * (flags >> 31))
        if end - start >= 15 and view.at(end - 9, 9) == b"LYRICS200" and view.at(end - 15, 6).isdigit():
            end = max(start, end - 15 - int(view.at(end - 15, 6)))
        if end - start >= 10 and view.at(end - 10, 3) == b"3DI" and max(view.at(end - 4, 4)) < 128:
            end = max(start, end - 20 - synchsafe(view.at(end - 4, 4)))
    return start, end


def synchsafe(raw: bytes) -> int:
    """Return a size of ID3: four bytes of seven bits."""
    return raw[0] << 21 | raw[1] << 14 | raw[2] << 7 | raw[3]
