"""Files of sounds -> samples, block by block: which reader takes what, and the proof that it took all.

TABLE is the one place that says which container, coding and width is read by whom. What stands there comes back whole, or
with a note that says what does not; all else is refused by name. Samples of fixed width are read here, the rest by libsndfile;
each count is compared with what the file itself states.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from laconic.entropy.errors import BadInput, expect
from laconic.sound_samples import Samples, Source, checked, pack, unpack_pcm
from laconic.sound_streams import (
    FLAC_LAYOUTS,
    MAX_JUNK,
    Flac,
    Link,
    Mpeg,
    counted,
    flac_info,
    mpeg_links,
    ogg_links,
    tags_around,
    without_total,
)
from laconic.sound_tags import Beside, named_pieces, of_flac, of_mpeg, of_ogg, of_walk
from laconic.sound_walk import UNKNOWN, View, Walk, walk

PCM_WIDTHS, FLOAT_WIDTHS, ALL_CHANNELS = frozenset({8, 16, 24, 32}), frozenset({32, 64}), range(1, 9)
ANY_WIDTH = frozenset[int]()  # the coding's samples have no width of their own


@dataclass(frozen=True)
class Row:
    """Says that a container's coding is read, at these widths, into samples of so many bits (0: of the same width).

    reader: "own" (samples of fixed width), "exact" (libsndfile, no bit is lost), "decoded" (libsndfile, a note).
    """

    containers: tuple[str, ...]
    codings: tuple[str, ...]
    widths: frozenset[int]
    reader: str
    bits: int = 0
    channels: range = ALL_CHANNELS


TABLE = (
    Row(("WAV", "RIFX", "RF64", "W64", "AIFF", "CAF", "AU"), ("PCM",), PCM_WIDTHS, "own"),
    Row(("NIST",), ("PCM",), PCM_WIDTHS - {8}, "own"),
    Row(("WAV", "RIFX", "RF64", "W64", "AIFF", "CAF", "AU"), ("FLOAT",), FLOAT_WIDTHS, "own"),
    Row(("WAV", "RIFX", "RF64", "W64", "AIFF", "CAF", "AU", "NIST"), ("ULAW", "ALAW"), frozenset({8, 16}), "decoded", 16),
    Row(("WAV", "W64"), ("IMA_ADPCM", "MS_ADPCM", "GSM610"), ANY_WIDTH, "decoded", 16, range(1, 3)),
    Row(("WAV",), ("G721_32", "NMS_ADPCM"), ANY_WIDTH, "decoded", 16, range(1, 2)),
    Row(("AIFF",), ("IMA_ADPCM", "GSM610"), ANY_WIDTH, "decoded", 16, range(1, 3)),
    Row(("AIFF",), ("DWVW",), frozenset({16, 24}), "exact"),
    Row(("CAF",), ("ALAC",), frozenset({16, 24, 32}), "exact"),
    Row(("CAF",), ("ALAC",), frozenset({20}), "exact", 24, range(1, 2)),  # libsndfile 1.2.2 gives a pair wrongly
    Row(("AU",), ("G721_32", "G723_24", "G723_40"), ANY_WIDTH, "decoded", 16, range(1, 2)),
    Row(("FLAC", "Ogg"), ("FLAC",), frozenset({8, 16, 24}), "exact"),
    Row(("Ogg",), ("VORBIS", "OPUS"), ANY_WIDTH, "decoded", 16),
    Row(("MPEG",), ("MPEG",), ANY_WIDTH, "decoded", 16, range(1, 3)),
)
MAX_WRAPPING = 1 << 24  # bytes around the samples that are worth keeping
MAX_LINKS = 1 << 10  # streams one after the other
BLOCK = 1 << 16  # samples that are asked of libsndfile at a time
REMEDY = "`ffmpeg -i FILE out.wav` converts most"


def row_of(container: str, coding: str, width: int, channels: int) -> Row:
    """Return the row that reads this. Raises BadInput that names what is not read."""
    of_kind = [row for row in TABLE if container in row.containers and coding in row.codings]
    kinds = sorted({name for row in TABLE if container in row.containers for name in row.codings})
    expected = f"{', '.join(kinds)}; {REMEDY}"
    expect(bool(of_kind), BadInput, "sound", f"{container} of coding {coding}", expected)
    widths = sorted(set().union(*(row.widths for row in of_kind)))
    known = [row for row in of_kind if width in row.widths or row.widths == ANY_WIDTH]
    expected = f"{', '.join(map(str, widths))} bits; {REMEDY}"
    expect(bool(known), BadInput, "sound", f"{container} of {coding} samples of {width} bits", expected)
    most = known[0].channels
    expect(channels in most, BadInput, "channels", channels, f"at most {most.stop - 1} in {container} {coding} of {width} bits")
    return known[0]


def read_walked(view: View, head: View, found: Walk) -> Source:
    """Read a file of chunks. view: the whole file, whose tags in front are a part of what stands around the samples."""
    row = row_of(found.container, found.coding, found.width, found.channels)
    expect(float(found.rate).is_integer(), BadInput, "sample rate", found.rate, "an integer, in Hz")
    beside = of_walk(view, head, found)
    floating = found.coding == "FLOAT"
    keeps = found.container in ("WAV", "RF64") and row.reader == "own"
    told = [note for note in found.notes if not (keeps and "ends early" in note)]  # it comes back as short as it is
    notes = [*told, *beside.notes]
    notes += [] if keeps else named_pieces(found, head)
    extra: dict[str, Any] = {"notes": notes, "layout": 0 if keeps else without_default(found.layout, found.channels)}
    extra |= {"tags": beside.tags, "comments": beside.comments, "attached": beside.attached}
    bits = row.bits or found.width
    shape = (int(found.rate), found.channels, bits)
    if row.reader == "own":
        samples = View(head, found.parts)
        n = min(found.n_held, found.n_samples if found.n_samples is not None else found.n_held)
        kept = sum(len(one.data) for one in beside.attached)
        wrapping = Wrapping(view, head, found, n, notes, kept)
        return checked(Source(*shape, n, own_blocks(samples, found, n), wrapping, floating=floating, **extra))
    notes += decoded_note(found.coding) if row.reader == "decoded" else []
    patched = finished_header(head, found)
    n = opened(patched, found.channels).frames
    least = found.n_samples or 0
    if found.coding == "IMA_ADPCM" and found.container == "AIFF":
        least *= 64  # COMM counts packets
    parts = [lambda: whole_blocks(patched, row.reader == "exact", bits, n, least)]
    if found.coding == "ALAC" and 0 < least < n:
        notes.append(f"the packet table counts {least} samples, {n} are there: all are kept")
    return checked(Source(*shape, n, rechunked(parts), **extra))


def decoded_note(coding: str) -> list[str]:
    """Return the note on a coding that loses: its samples are kept, its bytes are not."""
    return [f"decoded from {coding} to samples of 16 bits, which are what is kept"]


def without_default(layout: int, channels: int) -> int:
    """Return a mask of loudspeakers, 0 where it says no more than that there are one or two in front."""
    return 0 if channels < 3 and layout == FLAC_LAYOUTS[channels] else layout


def own_blocks(samples: View, found: Walk, n_samples: int) -> Callable[[int], Iterator[Samples]]:
    """Return what reads samples of fixed width, block by block."""
    layout = {"big": found.big, "floating": found.coding == "FLOAT", "unsigned": found.unsigned}

    def blocks(n: int) -> Iterator[Samples]:
        for first in range(0, n_samples, n):
            many = min(n, n_samples - first)
            raw = samples.at(first * found.frame, many * found.frame)
            short = f"{len(raw) // found.frame + first} samples"
            expect(len(raw) == many * found.frame, BadInput, "sound", short, f"{n_samples}")
            yield unpack_pcm(raw, found.width, found.channels, **layout)

    return blocks


@dataclass(frozen=True)
class Wrapping:
    """Holds what stands around the samples of a WAV file, so that it comes back byte for byte."""

    view: View
    head: View
    found: Walk
    n_samples: int
    notes: list[str]
    kept: int  # bytes that are kept elsewhere

    def __call__(self) -> tuple[bytes, bytes] | None:
        """Return the bytes before the samples and after them; a note where a WAV file's cannot be kept. Raises BadInput."""
        size = self.n_samples * self.found.frame
        around = self.view.size - size - self.kept
        expected = f"at most {MAX_WRAPPING} bytes around the samples; --strip leaves them out"
        expect(around <= MAX_WRAPPING, BadInput, "what stands around the samples", f"{around} bytes", expected)
        if self.found.container not in ("WAV", "RF64"):
            return None
        if len(self.found.parts) > 1 or not self.stands_as_packed():
            what = "what stands around the samples is left out: found samples laid out in another way, expected as others "
            self.notes.append(f"{what}write them; the WAV file will not come back byte for byte")
            return None
        start = self.view.size - self.head.size + self.found.parts[0][0]
        return self.view.at(0, start), self.view.at(start + size, around)

    def stands_as_packed(self) -> bool:
        """Say whether the first samples, packed again, are the bytes of the file."""
        many = min(self.n_samples, 4096)
        raw = self.head.at(self.found.parts[0][0], many * self.found.frame)
        first = next(own_blocks(View(self.head, self.found.parts), self.found, many)(max(1, many)), None)
        return first is None or pack(first, self.found.width) == raw


def finished_header(head: View, found: Walk) -> View:
    """Return a file that libsndfile reads to its last sample, whose header says where they end. Raises BadInput."""
    expect(len(found.parts) == 1, BadInput, "sound", f"{len(found.parts)} data chunks of {found.coding}", "one")
    start, end = found.parts[0]
    size = end - start
    finished = not any("never finished" in note for note in found.notes)
    if found.container == "CAF":
        finished = head.at(start - 12, 8) == (size + 4).to_bytes(8, "big")
    elif found.container == "WAV":  # libsndfile makes up samples where the size says nothing
        finished = finished and head.at(start - 4, 4) != UNKNOWN.to_bytes(4, "little")
    if not finished and found.container in ("WAV", "AU"):
        expect(size < 1 << 32, BadInput, f"{found.container} data", f"{size} bytes", "less than 4 GiB")
        order: Literal["big", "little"] = "big" if found.big else "little"
        riff = {4: (head.size - 8).to_bytes(4, "little"), start - 4: size.to_bytes(4, "little")}
        return head.cut(0, None, riff if found.container == "WAV" else {8: size.to_bytes(4, order)})
    if not finished and found.container == "W64":
        return head.cut(0, None, {16: head.size.to_bytes(8, "little"), start - 8: (size + 24).to_bytes(8, "little")})
    if not finished and found.container == "CAF":
        return head.cut(0, None, {start - 12: (size + 4).to_bytes(8, "big")})
    expect(finished, BadInput, f"{found.container} of {found.coding}", "a header that was never finished", REMEDY)
    return head.cut(0, None, {0: b"RF64"}) if head.at(0, 4) == b"BW64" else head


def opened(view: View, channels: int = 0) -> Any:
    """Open a file by libsndfile, never to be sought in: it seeks after each read, which some of its decoders cannot do."""
    import soundfile

    view.seek(0)
    with library_errors():
        sound = soundfile.SoundFile(view)
    sound.seekable = lambda: False
    expect(channels in (0, sound.channels), BadInput, "channels read by libsndfile", sound.channels, channels)
    return sound


class library_errors:
    """Turns every error of libsndfile and its reader into BadInput: one line for the file that has it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import soundfile

        known = (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OverflowError, AssertionError)
        if isinstance(error, known) and not isinstance(error, BadInput):
            text = str(getattr(error, "error_string", error)).rstrip(".")
            raise BadInput(f"sound: found damage or another format ({text}), expected a sound file") from None


def library_blocks(view: View, exact: bool, bits: int, n: int, most: int = 1 << 62) -> Iterator[Samples]:
    """Yield samples that libsndfile reads, up to `most` of them and to the end of the file. Raises BadInput."""
    sound, done = opened(view), 0
    while done < most:
        with library_errors():
            block: Samples = sound.read(min(n, most - done), dtype="int32" if exact else "float64", always_2d=True)
        if not len(block):
            return
        done += len(block)
        if exact:
            yield block >> 32 - bits
        else:
            yield (block * 32768).round().clip(-32768, 32767).astype(np.int32)


def whole_blocks(view: View, exact: bool, bits: int, stated: int, least: int) -> Iterator[Samples]:
    """Yield all samples: as many as libsndfile states (0: it guesses), no fewer than the file itself does. Raises BadInput."""
    done = 0
    for block in library_blocks(view, exact, bits, BLOCK):
        done += len(block)
        yield block
    expect(stated in (0, done), BadInput, "sound", f"{done} samples", f"{stated}, as the file states")
    expect(done >= least, BadInput, "sound", f"{done} samples", f"{least}, as the file states: it is damaged or read in part")


def rechunked(parts: Iterable[Callable[[], Iterator[Samples]]]) -> Callable[[int], Iterator[Samples]]:
    """Return what gives the samples of all parts, one after the other, n at a time; the last may be fewer."""
    ready = list(parts)

    def blocks(n: int) -> Iterator[Samples]:
        waiting: list[Samples] = []
        held = 0
        for part in ready:
            for block in part():
                waiting.append(block)
                held += len(block)
                if held >= n:
                    joined = np.concatenate(waiting)
                    full = held - held % n
                    yield from (joined[i : i + n] for i in range(0, full, n))
                    waiting, held = [joined[full:]], held - full
        if held:
            yield np.concatenate(waiting)

    return blocks


def read_flac(view: View, start: int, end: int) -> Source:
    """Read FLAC, and files of it one after the other. start, end: without the tags of other formats."""
    places = [*flac_starts(view, start, end), end]
    views = [view.cut(a, b) for a, b in itertools.pairwise(places)]
    return source_of_flac("FLAC", views, view.size, of_flac(views[0], view.cut(0, start), view.cut(end)))


def source_of_flac(container: str, views: list[View], size: int, beside: Beside) -> Source:
    """Read native FLAC streams one after the other as a single sound."""
    expect(len(views) <= MAX_LINKS, BadInput, container, f"{len(views)} streams", f"at most {MAX_LINKS}")
    infos = [flac_info(one) for one in views]
    shapes = {(info.rate, info.channels, info.bits) for info in infos}
    expect(len(shapes) == 1, BadInput, container, f"streams of {sorted(shapes)} (Hz, channels, bits)", "the same in each")
    first = infos[0]
    row_of(container, "FLAC", first.bits, first.channels)
    notes = list(beside.notes)
    if len(views) > 1:
        notes.append(f"{len(views)} streams one after the other are joined; the tags of the first are kept")
    parts = [lambda v=v, i=i: flac_blocks(v, i, notes) for v, i in zip(views, infos, strict=True)]
    layout = FLAC_LAYOUTS[first.channels] if beside.layout is None else beside.layout
    extra: dict[str, Any] = {"tags": beside.tags, "comments": beside.comments, "attached": beside.attached}
    extra |= {"notes": notes, "layout": without_default(layout, first.channels)}
    shape = (first.rate, first.channels, first.bits, sum(info.n_samples for info in infos))
    return checked(Source(*shape, rechunked(parts), **extra))


def flac_starts(view: View, start: int, end: int) -> list[int]:
    """Return where the FLAC streams begin: at each marker with its STREAMINFO."""
    found, at = list[int](), start
    while at < end:
        raw = view.at(at, (1 << 20) + 7)
        place = raw.find(b"fLaC")
        while place >= 0:
            if raw[place + 4 : place + 8] in (b"\0\0\0\x22", b"\x80\0\0\x22") and (not found or found[-1] != at + place):
                found.append(at + place)
            place = raw.find(b"fLaC", place + 1)
        at += 1 << 20
    return [start, *(place for place in found if start < place < end)]


def flac_blocks(view: View, info: Flac, notes: list[str]) -> Iterator[Samples]:
    """Yield the samples of a FLAC stream to its end, whatever STREAMINFO counts; its MD5 is compared. Raises BadInput."""
    done, md5, width = 0, hashlib.md5(usedforsecurity=False), (info.bits + 7) // 8
    endless, counted_at = without_total(view, info), 0
    try:
        for block in flac_steps(endless, info):
            done += len(block)
            counted_at = endless.tell()
            md5.update(block.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes())
            yield block
    except BadInput as error:
        whole = done == info.n_samples > 0 and (info.md5 == md5.digest() or not any(info.md5))
        if not whole:
            raise BadInput(f"{error}, after {done} samples of {info.n_samples or 'an unknown number'}") from None
        junk = view.size - counted_at  # bytes that libFLAC had not read when it gave the last sample
        expect(junk <= MAX_WRAPPING, BadInput, "FLAC", f"{junk} bytes after the last sample", f"at most {MAX_WRAPPING}")
        notes.append("bytes after the last sample, which are no FLAC, are left out")
    if 0 < info.n_samples != done:
        expect(done > info.n_samples, BadInput, "FLAC", f"{done} samples", f"{info.n_samples}, as STREAMINFO counts")
        notes.append(f"STREAMINFO counts {info.n_samples} samples, {done} are there: all are kept")
    right = not any(info.md5) or md5.digest() == info.md5
    expect(right, BadInput, "FLAC's MD5 of the samples", md5.hexdigest(), f"{info.md5.hex()}: the file is damaged")


def flac_steps(endless: View, info: Flac) -> Iterator[Samples]:
    """Yield the samples that STREAMINFO counts, then any that follow: an error there spoils none of the first."""
    if not flac_frames(endless):
        return
    sound, done = opened(endless, info.channels), 0
    while True:
        left = info.n_samples - done
        with library_errors():
            block: Samples = sound.read(min(BLOCK, left) if left > 0 else BLOCK, dtype="int32", always_2d=True)
        if not len(block):
            return
        done += len(block)
        yield block >> 32 - info.bits


def flac_frames(view: View) -> bool:
    """Say whether anything stands after the metadata."""
    at = 4
    while len(head := view.at(at, 4)) == 4:
        at += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 128:
            break
    return at < view.size


def read_ogg(view: View, before: bytes) -> Source:
    """Read Ogg Vorbis, Opus and FLAC, chained ones too. before: an ID3 tag in front. Raises BadInput."""
    links, junk = ogg_links(view)
    expect(junk <= MAX_WRAPPING, BadInput, "Ogg", f"{junk} bytes that belong to no page", f"at most {MAX_WRAPPING}")
    codecs = {link.codec for link in links}
    expect(len(codecs) == 1, BadInput, "Ogg", f"streams of {', '.join(sorted(codecs))}", "one coding")
    codec = links[0].codec
    beside = of_ogg([view.cut(link.start, link.end) for link in links], codec, before)
    missing = sum(link.missing for link in links)
    beside.notes += [f"{missing} pages are missing: what they held is lost"] * bool(missing)
    open_ended = not all(link.ended for link in links)
    beside.notes += ["a stream has no last page: the file may end early"] * open_ended
    beside.notes += [f"{junk} bytes that belong to no page are left out"] * bool(junk)
    if codec == "FLAC":
        return source_of_flac("Ogg", [View(view, link.bodies) for link in links], view.size, beside)
    row_of("Ogg", codec, 16, 1)
    views = [view.cut(link.start, link.end) for link in links]
    expect(len(views) <= MAX_LINKS, BadInput, "Ogg", f"{len(views)} streams", f"at most {MAX_LINKS}")
    sounds = [opened(one) for one in views]
    expected = [least_of_ogg(link, sound.samplerate) for link, sound in zip(links, sounds, strict=True)]
    beside.notes += ["the layout of the channels is left out: it stands in Vorbis's order"] * (sounds[0].channels > 2)
    return source_of_links("Ogg", codec, views, sounds, expected, view.size, beside)


def least_of_ogg(link: Link, rate: int) -> int:
    """Return the samples that the pages of a stream count after the first of them, at the rate of the decoder."""
    ticks = max(0, link.last - max(0, link.first)) if link.last > 0 else 0
    return ticks * rate // 48000 if link.codec == "OPUS" else ticks


def read_mpeg(view: View, start: int, end: int) -> Source:
    """Read MPEG audio of layers I to III, several files one after the other too. Raises BadInput."""
    frames = view.cut(start, end)
    links, junk = mpeg_links(frames)
    row_of("MPEG", "MPEG", 16, links[0].channels)
    beside = of_mpeg(view, start, end)
    beside.notes += [f"{junk} bytes that are no frame's are left out"] * bool(junk)
    expect(len(links) <= MAX_LINKS, BadInput, "MPEG", f"{len(links)} streams", f"at most {MAX_LINKS}")
    views = [counted(frames, link, beside.notes) for link in links]
    sounds = [opened(one, link.channels) for one, link in zip(views, links, strict=True)]
    expected = [least_of_mpeg(link) for link in links]
    return source_of_links("MPEG", "MPEG_LAYER_" + "I" * links[0].layer, views, sounds, expected, view.size, beside)


def least_of_mpeg(link: Mpeg) -> int:
    """Return the samples that a decoder must give: those of all frames, but for two that it may need to begin and end."""
    return max(0, link.n_samples - 2 * link.per_frame)


def source_of_links(
    container: str, codec: str, views: list[View], sounds: list[Any], least: list[int], size: int, beside: Beside
) -> Source:
    """Read streams one after the other as a single sound. Raises BadInput where their shapes differ."""
    shapes = {(sound.samplerate, sound.channels) for sound in sounds}
    expect(len(shapes) == 1, BadInput, container, f"streams of {sorted(shapes)} (Hz, channels)", "the same in each")
    notes = [*beside.notes, *decoded_note(codec)]
    if len(views) > 1:
        notes.append(f"{len(views)} streams one after the other are joined; the tags of the first are kept")
    stated = [sound.frames for sound in sounds]
    parts = [
        lambda v=v, s=s, e=e: whole_blocks(v, False, 16, 0 if container == "MPEG" else s, e)
        for v, s, e in zip(views, stated, least, strict=True)
    ]
    rate, channels = shapes.pop()
    extra: dict[str, Any] = {"tags": beside.tags, "comments": beside.comments, "attached": beside.attached}
    shape = (rate, channels, 16, sum(stated))
    return checked(Source(*shape, rechunked(parts), notes=notes, **extra))


def read_file(view: View) -> Source | None:
    """Read what a file says it is, or return None for what no reader here knows. Raises BadInput."""
    start, end = tags_around(view)
    head = view.cut(start)
    magic = head.at(0, 4)
    if magic == b"fLaC":
        return read_flac(view, start, end)
    if magic == b"OggS":
        return read_ogg(head, view.at(0, start))
    found = walk(head)
    if found is not None:
        return read_walked(view, head, found)
    skipped = head.at(0, MAX_JUNK)  # zeros fill what some writers keep free for tags
    sync = skipped.lstrip(b"\0")[:2] if start else skipped[:2]
    if len(sync) == 2 and sync[0] == 0xFF and sync[1] & 0xE0 == 0xE0 and sync[1] & 6:
        return read_mpeg(view, start, end)
    return None
