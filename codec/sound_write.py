"""Samples -> files of sounds: WAV here, the other formats by libsndfile, their tags by mutagen."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, BinaryIO

from laconic.entropy.errors import BadInput, expect
from laconic.sound_read import library_errors
from laconic.sound_samples import FLOAT_SUBTYPES, FRONT, SUBTYPES, Attached, Samples, Source, pack
from laconic.sound_streams import FLAC_LAYOUTS
from laconic.sound_tags import (
    AIFF_TEXTS,
    BLOCKS,
    INFO_IDS,
    MASK_NAME,
    PLAIN,
    Comments,
    id3_pictures,
    id3_rest,
    id3_tag,
    id3_tags,
    id3_texts,
    of_wrapping,
    unchunked,
    undamaged,
    write_flac_tags,
)

PLAIN_WAV, FLOAT_WAV, EXTENSIBLE_WAV = 1, 3, 0xFFFE
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
FLAC_MAX_RATE = 655_350  # Hz, RFC 9639, section 9.1.2
EMPTY_MD5 = bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e")
MAX_AIFF_TEXT = 1 << 12  # bytes: libsndfile's header has room for 100 KiB, and drops the samples' chunk beyond that
SPOOLED = 1 << 26  # bytes of a file that wait in memory, not on disk


def write(
    file: BinaryIO,
    blocks: Iterable[Samples],
    source: Source,
    format: str = "WAV",
    wrapping: tuple[bytes, bytes] | None = None,
) -> None:
    """Write n_samples of a sound: WAV by its wrapping, or a new one; other formats by libsndfile. `source` says how they are.

    What the format cannot hold beside the samples is named in the source's notes. Raises BadInput where the format cannot
    hold the samples.
    """
    if wrapping and format == "WAV":
        before, after = wrapping
    else:
        source = with_all(source)
        left_out(source, format)
        before, after = wav_around(source) if format == "WAV" else (b"", b"")
    if format == "WAV":
        file.write(before)
        for block in blocks:  # noqa: FURB122  a spooled file's writelines holds all in memory
            file.write(pack(block, source.bits))
        file.write(after)
        return
    with tempfile.SpooledTemporaryFile(SPOOLED) as made:  # pipes do not seek, and the writers do
        write_other(made, blocks, source, format)
        made.seek(0)
        shutil.copyfileobj(made, file, 1 << 20)


def with_all(source: Source) -> Source:
    """Return the source with what a WAV file's chunks and ID3 tags say besides; a note names the chunks that are left out."""
    pairs = list(source.comments) or list(source.tags.items())
    attached, layout = list(source.attached), source.layout
    if source.around:
        more, tags, names, mask = of_wrapping(source.around)
        pairs, attached, layout = joined(pairs, more), [*attached, *tags], layout or mask
        rest = unchunked(source.around)
        source.notes.extend([f"left out: the WAV chunks {', '.join(dict.fromkeys(names))}"] * bool(names))
        source.notes.extend([f"left out: {rest} bytes after the WAV file's last chunk"] * (rest > 1))
    whole = undamaged(attached)
    damaged = len(attached) - len(whole)
    source.notes.extend([f"left out: {damaged} damaged pictures or cue sheets"] * bool(damaged))
    pairs = joined(pairs, id3_texts(whole))
    pairs = [(name, text) for name, text in pairs if text]
    return replace(source, comments=tuple(pairs), attached=whole, layout=layout)


def joined(pairs: list[tuple[str, str]], more: Comments) -> list[tuple[str, str]]:
    """Return the texts of both, those that say the same once."""
    known = {(name.lower(), text) for name, text in pairs}
    return [*pairs, *((name, text) for name, text in more if (name.lower(), text) not in known)]


def left_out(source: Source, format: str) -> None:
    """Note what the format does not hold beside the samples."""
    attached = [one.kind for one in source.attached]
    pictures = attached.count("picture") + len(id3_pictures(source.attached))
    names = [name for name, _ in source.comments]
    lost: list[str] = [] if format == "FLAC" else [kind for kind in ("cuesheet", "application") if kind in attached]
    if format == "W64":
        lost += [f"{name} tags" for name in dict.fromkeys(names)]
    if format in ("CAF", "W64"):
        lost += [f"{pictures} pictures"] * bool(pictures)
    if format == "W64" and source.layout not in (0, FRONT.get(source.channels)):
        lost.append(f"the layout of the channels, {source.layout:#x}")
    if format in ("FLAC", "CAF", "W64"):
        lost += [f"the ID3 frames {', '.join(rest)}" for rest in [id3_rest(source.attached)] if rest]
    source.notes.extend([f"left out, {format} does not hold them here: {'; '.join(lost)}"] * bool(lost))


def write_other(made: Any, blocks: Iterable[Samples], source: Source, format: str) -> None:
    """Write into a file that seeks: the samples by libsndfile, then what stands beside them."""
    import soundfile

    subtype = "PCM_S8" if source.bits == 8 and format != "W64" else SUBTYPES.get(source.bits, "")
    subtype = FLOAT_SUBTYPES[source.bits] if source.floating else subtype
    found = f"{'float ' if source.floating else ''}samples of {source.bits} bits"
    fits = soundfile.check_format(format, subtype)
    expect(fits, BadInput, f"{format} output", found, "samples that it can hold; WAV holds all")
    check_limits(source, format)
    done = 0
    simple = format == "AIFF" and not needs_id3(source)
    with library_errors():
        out = soundfile.SoundFile(made, "w", source.sample_rate, source.channels, subtype, format=format)
    with out:
        for key, value in plain(source.comments).items() if simple else ():
            with library_errors():
                setattr(out, key, value)
        for block in blocks:
            done += len(block)
            with library_errors():
                out.write(block if source.floating else block << (32 - source.bits))
    if format == "FLAC":
        finish_flac(made, source, done)
    elif format == "AIFF":
        finish_aiff(made, source, b"" if simple else whole_id3(source))
    elif format == "CAF":
        finish_caf(made, source)


def check_limits(source: Source, format: str) -> None:
    """Refuse what the format's own numbers cannot say. Raises BadInput."""
    rate, size = source.sample_rate, source.n_samples * source.channels * source.bits // 8
    fits = rate < 1 << 16 or (rate <= FLAC_MAX_RATE and rate % 10 == 0)  # as frames state it
    expected = f"at most {FLAC_MAX_RATE} Hz, above 65535 Hz a multiple of 10"
    expect(format != "FLAC" or fits, BadInput, "FLAC output", f"{rate} Hz", expected)
    expect(format != "AIFF" or size < (1 << 32) - (1 << 16), BadInput, "AIFF output", f"{size} bytes", "less than 4 GiB")


def plain(pairs: Comments) -> dict[str, str]:
    """Return the first text of each name that libsndfile writes; no other name reaches it."""
    found: dict[str, str] = {}
    for name, text in pairs:
        found.setdefault(name.lower(), text.replace("\0", "/"))
    return {name: found[name] for name in PLAIN if name in found}


def needs_id3(source: Source) -> bool:
    """Say whether an AIFF file needs an ID3 tag: its own chunks hold four names, each once, and short texts."""
    names = [name.lower() for name, _ in source.comments]
    own = set(names) <= set(AIFF_TEXTS.values()) and len(names) == len(set(names))
    own = own and all(len(text.encode()) <= MAX_AIFF_TEXT for _, text in source.comments)
    return not own or any(one.kind in ("picture", "id3") for one in source.attached)


def finish_flac(made: Any, source: Source, n_samples: int) -> None:
    """Make an empty file whole, which libsndfile leaves without a byte, and write the tags and pictures."""
    if n_samples == 0:
        made.seek(0)
        made.truncate()
        packed = (source.sample_rate << 44) | (source.channels - 1 << 41) | (source.bits - 1 << 36)
        sizes = struct.pack(">HH", 4096, 4096) + bytes(6)
        made.write(b"fLaC\x80\0\0\x22" + sizes + packed.to_bytes(8, "big") + EMPTY_MD5)
    pairs = list(source.comments)
    if source.layout != FLAC_LAYOUTS[source.channels] and (source.layout or source.channels > 2):
        pairs.append((MASK_NAME, f"0x{source.layout:04X}"))
    attached = [*source.attached, *id3_pictures(source.attached)]
    if pairs or any(one.kind in BLOCKS for one in attached):
        made.seek(0)
        source.notes.extend(write_flac_tags(made, tuple(pairs), attached))


def finish_aiff(made: Any, source: Source, tag: bytes) -> None:
    """Append an ID3 tag and the layout of the channels to an AIFF file."""
    new = [(b"ID3 ", tag)] * bool(tag) + [(b"CHAN", core_layout_of(source.layout))] * bool(source.layout)
    end = made.seek(0, 2)
    made.write(bytes(end % 2))
    for name, content in new:
        made.write(name + struct.pack(">I", len(content)) + content + bytes(len(content) % 2))
    end = made.tell()
    made.seek(4)
    made.write(struct.pack(">I", end - 8))


def finish_caf(made: Any, source: Source) -> None:
    """Append all texts and the layout of the channels to a CAF file."""
    texts = b"".join(name.encode() + b"\0" + text.replace("\0", "/").encode() + b"\0" for name, text in source.comments)
    new = [(b"info", struct.pack(">I", len(source.comments)) + texts)] * bool(texts)
    new += [(b"chan", core_layout_of(source.layout))] * bool(source.layout)
    made.seek(0, 2)
    for name, content in new:
        made.write(name + struct.pack(">q", len(content)) + content)


def core_layout_of(mask: int) -> bytes:
    """Return a layout of Core Audio by its bitmap, which has the bits of WAV's mask."""
    return struct.pack(">III", 0x10000, mask, 0)


def whole_id3(source: Source) -> bytes:
    """Return the ID3 tag as it stood, where it holds all texts and pictures, or else a new one."""
    kept = [one.data for one in source.attached if one.kind == "id3"]
    said = {(name.lower(), text) for name, text in id3_texts(source.attached)}
    more = any((name.lower(), text) not in said for name, text in source.comments)
    if len(kept) == 1 and len(id3_tags(source.attached)) == 1 and not more and not any(one.kind == "picture" for one in source.attached):
        return kept[0]
    if rest := id3_rest(source.attached):
        source.notes.append(f"left out: the ID3 frames {', '.join(rest)}")
    pictures = [*source.attached, *id3_pictures(source.attached)]
    return id3_tag(source.comments, pictures)


def wav_around(source: Source) -> tuple[bytes, bytes]:
    """Return the bytes before and after the samples of a new WAV file (RF64 above 4 GiB), its tags before them."""
    frame = source.channels * source.bits // 8
    size = source.n_samples * frame
    extensible = not source.floating and (source.channels > 2 or source.bits > 16 or source.layout > 0)
    extensible = extensible or source.layout > 0
    tag = FLOAT_WAV if source.floating else PLAIN_WAV
    rates = (source.sample_rate, source.sample_rate * frame, frame, source.bits)
    shape = struct.pack("<HHIIHH", EXTENSIBLE_WAV if extensible else tag, source.channels, *rates)
    if extensible:  # a mask of 0: no loudspeaker is named
        shape += struct.pack("<HHIH", 22, source.bits, source.layout, tag) + PCM_GUID[2:]
    inside = chunk(b"fmt ", shape) + info_chunk(source.tags or plain(source.comments)) + id3_chunk(source)
    pad = bytes(size % 2)
    total = 4 + len(inside) + 8 + size + len(pad)
    if total < 1 << 32:
        return struct.pack("<4sI4s", b"RIFF", total, b"WAVE") + inside + struct.pack("<4sI", b"data", size), pad
    sizes = chunk(b"ds64", struct.pack("<QQQI", total + 36, size, source.n_samples, 0))
    unknown = 0xFFFFFFFF
    return struct.pack("<4sI4s", b"RF64", unknown, b"WAVE") + sizes + inside + struct.pack(
        "<4sI", b"data", unknown
    ), pad


def info_chunk(tags: dict[str, str]) -> bytes:
    """Return RIFF's LIST of type INFO."""
    items = b"".join(
        chunk(INFO_IDS[key], value.replace("\0", "/").encode() + b"\0") for key, value in tags.items() if key in INFO_IDS and value
    )
    return chunk(b"LIST", b"INFO" + items) if items else b""


def id3_chunk(source: Source) -> bytes:
    """Return a chunk of what LIST INFO does not hold: other names, repeated ones, pictures."""
    said = {(name, text) for name, text in (source.tags or plain(source.comments)).items() if name in INFO_IDS}
    more = any((name.lower(), text) not in said for name, text in source.comments)
    if not more and not any(one.kind in ("picture", "id3") for one in source.attached):
        return b""
    return chunk(b"id3 ", whole_id3(source))


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of RIFF."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


__all__ = ["Attached", "chunk", "wav_around", "write"]
