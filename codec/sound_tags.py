"""What stands beside the samples: texts by name, pictures, cue sheets, read and written by mutagen.

Every text is kept, repeated names too, and every picture as it is; what is not kept is named in a note.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from laconic.sound_samples import Attached
from laconic.sound_streams import synchsafe
from laconic.sound_walk import Piece, View, Walk, chunks

Comments = tuple[tuple[str, str], ...]
# The names that plain tags have, in the order in which libsndfile gives them; no other name reaches it.
PLAIN = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
INFO_IDS = {"title": b"INAM", "artist": b"IART", "album": b"IPRD", "comment": b"ICMT", "copyright": b"ICOP"}
INFO_IDS |= {"date": b"ICRD", "genre": b"IGNR", "tracknumber": b"ITRK", "software": b"ISFT"}
INFO_NAMES = {name: key for key, name in INFO_IDS.items()}
AIFF_TEXTS = {b"NAME": "title", b"AUTH": "artist", b"(c) ": "copyright", b"ANNO": "comment"}
QUIET = {b"fmt ", b"fact", b"ds64", b"JUNK", b"junk", b"PAD ", b"FLLR", b"filr", b"PEAK", b"peak", b"free", b"FVER"}
QUIET |= {b"desc", b"pakt", b"kuki", b"chan", b"CHAN", b"ID3 ", b"id3 ", b"info", b"levl", *AIFF_TEXTS}
MAX_TEXT = 1 << 24  # bytes of a chunk of texts that are read
PICTURE, CUESHEET, APPLICATION = 6, 5, 2  # blocks of FLAC
BLOCKS = {"picture": PICTURE, "cuesheet": CUESHEET, "application": APPLICATION}
MASK_NAME = "WAVEFORMATEXTENSIBLE_CHANNEL_MASK"


@dataclass
class Beside:
    """Holds what a file has beside its samples. layout: the mask of loudspeakers that a comment names, None without one."""

    tags: dict[str, str] = field(default_factory=dict)
    comments: Comments = ()
    attached: tuple[Attached, ...] = ()
    notes: list[str] = field(default_factory=list)
    layout: int | None = None


def beside_of(pairs: Iterable[tuple[str, str]], attached: Iterable[Attached], notes: list[str]) -> Beside:
    """Return plain tags, and all comments where they say more than those."""
    clean, layout = [], None
    for name, text in pairs:
        if name.upper() == MASK_NAME and mask_of(text) is not None:
            layout = mask_of(text)
        elif text:
            clean.append((name, text.encode("utf-8", "replace").decode()))
    kept = tuple(attached)
    same = sorted((name.lower(), text) for name, text in clean) == sorted(plain_tags(clean).items())
    tags = plain_tags([*clean, *id3_texts(kept)])
    return Beside(tags, () if same else tuple(clean), kept, notes, layout)


def mask_of(text: str) -> int | None:
    """Return the number in a comment that names loudspeakers."""
    try:
        value = int(text, 16)
    except ValueError:
        return None
    return value if 0 <= value < 1 << 32 else None


def plain_tags(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the first text of each plain name."""
    found: dict[str, str] = {}
    for name, text in pairs:
        if text:
            found.setdefault(name.lower(), text)
    return {name: found[name] for name in PLAIN if name in found}


def of_walk(view: View, head: View, found: Walk) -> Beside:
    """Read the texts and ID3 tags of a file of chunks. A WAV file's ID3 tags stay with what stands around the samples."""
    pairs, attached, notes = list(found.texts), list[Attached](), list[str]()
    keeps = found.container in ("WAV", "RF64") and found.coding in ("PCM", "FLOAT")
    if view.size > head.size and not keeps:
        attached.append(Attached("id3", view.at(0, view.size - head.size)))
    for piece in found.pieces:
        raw = head.at(piece.start, min(piece.end - piece.start, MAX_TEXT))
        if piece.name == b"LIST" and raw[:4] == b"INFO":
            pairs += info_texts(raw[4:], ">" if found.big else "<")
        elif piece.name in AIFF_TEXTS:
            pairs.append((AIFF_TEXTS[piece.name], text_of(raw)))
        elif piece.name == b"info" and found.container == "CAF":
            pairs += caf_texts(raw)
        elif piece.name in (b"ID3 ", b"id3 ") and not keeps:
            attached.append(Attached("id3", head.at(piece.start, piece.end - piece.start)))
    out = beside_of(pairs, attached, notes)
    out.comments = () if keeps else out.comments
    return out


def text_of(raw: bytes) -> str:
    """Return the text of bytes that are UTF-8, or else Latin-1."""
    raw = raw.split(b"\0")[0]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def info_texts(raw: bytes, order: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of RIFF's LIST of type INFO; an unknown name stays as it is."""
    at = 0
    while at + 8 <= len(raw):
        name, size = raw[at : at + 4], struct.unpack(order + "I", raw[at + 4 : at + 8])[0]
        if text := text_of(raw[at + 8 : at + 8 + size]):
            yield INFO_NAMES.get(name, name.decode("latin-1").strip()), text
        at += 8 + size + size % 2


def caf_texts(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the texts of CAF's info chunk."""
    names = {"track number": "tracknumber", "comments": "comment", "year": "date", "recorded date": "date"}
    names |= {"encoding application": "software"}
    parts = raw[4:].split(b"\0")
    for key, value in zip(parts[::2], parts[1::2], strict=False):
        yield names.get(text_of(key).lower(), text_of(key)), text_of(value)


def named_pieces(found: Walk, head: View) -> list[str]:
    """Return a note that names the chunks which are not kept."""
    names = []
    for piece in found.pieces:
        kept = piece.name == b"LIST" and head.at(piece.start, 4) == b"INFO"
        if piece.name not in QUIET and not kept:
            names.append(piece.name.decode("latin-1").strip())
    after = head.size - max([0, *(p.end for p in found.pieces), *(b for _, b in found.parts)])
    room = sum(end - start for start, end in found.parts)
    part = room % found.frame if found.coding in ("PCM", "FLOAT") and found.n_samples == room // found.frame else 0
    return [
        *[f"left out: the {found.container} chunks {', '.join(dict.fromkeys(names))}"] * bool(names),
        *[f"left out: {after} bytes after the last chunk"] * (after > 1),
        *[f"left out: the last {part} bytes, less than a sample of all channels"] * (part > 0),
        *[f"{len(found.parts)} chunks of samples are joined"] * (len(found.parts) > 1),
    ]


def of_flac(view: View, before: View, after: View) -> Beside:
    """Read the metadata blocks of a FLAC file, and the tags of other formats before and after it."""
    import mutagen.flac

    notes = list[str]()
    attached = [Attached("id3", before.at(0, before.size))] if before.size else []
    notes += [f"left out: {after.size} bytes of tags after the samples"] if after.size else []
    try:
        view.seek(0)
        file: Any = mutagen.flac.FLAC(view)
    except tag_errors() as error:
        return beside_of([], attached, [*notes, f"the tags are left out: found damage ({error})"])
    for block in file.metadata_blocks:
        kind = next((kind for kind, code in BLOCKS.items() if code == block.code), None)
        if kind:
            attached.append(Attached(kind, block.write()))
        elif block.code > 6:
            notes.append(f"left out: a metadata block of type {block.code}")
    return beside_of(list(file.tags or []), attached, notes)


def tag_errors() -> tuple[type[Exception], ...]:
    """Return what mutagen raises for damaged tags: its own errors, and those of Python that it lets through."""
    import mutagen

    return (mutagen.MutagenError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, struct.error)


def undamaged(attached: Iterable[Attached]) -> tuple[Attached, ...]:
    """Return what is attached without pictures and cue sheets that are damaged."""
    import mutagen.flac

    readers = {"picture": mutagen.flac.Picture, "cuesheet": mutagen.flac.CueSheet}
    kept = []
    for one in attached:
        try:
            readers.get(one.kind, bytes)(one.data)
        except tag_errors():
            continue
        kept.append(one)
    return tuple(kept)


def of_ogg(links: list[View], codec: str, before: bytes) -> Beside:
    """Read the comments of an Ogg file's first stream; pictures in them become pictures. before: an ID3 tag in front."""
    import mutagen.flac
    import mutagen.oggflac
    import mutagen.oggopus
    import mutagen.oggvorbis

    readers: dict[str, Any] = {
        "FLAC": mutagen.oggflac.OggFLAC,
        "OPUS": mutagen.oggopus.OggOpus,
        "VORBIS": mutagen.oggvorbis.OggVorbis,
    }
    if codec not in readers:
        return Beside()
    try:
        links[0].seek(0)
        pairs = list(readers[codec](links[0]).tags)
    except tag_errors() as error:
        return Beside(notes=[f"the tags are left out: found damage ({error})"])
    pictures = [pair for pair in pairs if pair[0].upper() == "METADATA_BLOCK_PICTURE"]
    attached = [Attached("id3", before)] if before else []
    for pair in pictures:
        try:
            raw = base64.b64decode(pair[1], validate=True)
            mutagen.flac.Picture(raw)
        except tag_errors():
            continue  # what is no picture stays among the comments
        attached.append(Attached("picture", raw))
        pairs.remove(pair)
    return beside_of(pairs, attached, [])


def of_mpeg(view: View, start: int, end: int) -> Beside:
    """Read ID3v2 before, APEv2 and ID3v1 after the frames of an MPEG file."""
    import mutagen.id3

    raw = view.at(0, start)
    attached = [Attached("id3", raw)] if raw else []
    pairs, notes = list[tuple[str, str]](), list[str]()
    after = view.at(end, min(view.size - end, MAX_TEXT))
    if after[:3] == b"ID3" and b"3DI" in after:  # version 2.4 allows it, with a footer
        attached.append(Attached("id3", next(single_tags(after))))
    tail = after[-128:]
    if tail[:3] == b"TAG":
        try:
            old = mutagen.id3.ParseID3v1(tail) or {}
            pairs += unsaid(texts_of_frames(old.values()), id3_texts(attached))
        except tag_errors():
            notes.append("left out: a damaged ID3v1 tag")
    if b"APETAGEX" in after:
        try:
            ape, pictures = ape_texts(view)
            pairs += ape
            attached += pictures
        except tag_errors() as error:
            notes.append(f"left out: a damaged APE tag ({error})")
    if b"LYRICS" in after:
        notes.append("left out: a Lyrics3 tag")
    return beside_of(pairs, attached, notes)


def unsaid(pairs: list[tuple[str, str]], known: Comments) -> list[tuple[str, str]]:
    """Return the texts of ID3v1, cut to 30 letters, that no known one begins with."""
    return [(name, text) for name, text in pairs if not any(a == name and b.startswith(text) for a, b in known)]


def ape_texts(view: View) -> tuple[list[tuple[str, str]], list[Attached]]:
    """Return the texts and pictures of an APEv2 tag."""
    import mutagen.apev2
    import mutagen.flac

    names = {"year": "date", "track": "tracknumber"}
    pairs, pictures = list[tuple[str, str]](), list[Attached]()
    view.seek(0)
    for name, value in mutagen.apev2.APEv2(view).items():
        if isinstance(value, mutagen.apev2.APEBinaryValue):
            picture = mutagen.flac.Picture()
            label, _, picture.data = bytes(value).partition(b"\0")
            picture.desc, picture.type = label.decode("utf-8", "replace"), 3 * ("front" in name.lower())
            pictures.append(Attached("picture", picture.write()))
        else:
            pairs += [(names.get(name.lower(), name), text) for text in value]
    return pairs, pictures


def id3_tags(attached: Iterable[Attached]) -> list[Any]:
    """Return all ID3 tags among what is attached, as mutagen reads them; None for one that is damaged."""
    import mutagen.id3

    found = list[Any]()
    for raw in [raw for one in attached if one.kind == "id3" for raw in single_tags(one.data)]:
        try:
            found.append(mutagen.id3.ID3(io.BytesIO(raw)))
        except tag_errors():
            found.append(None)
    return found


def single_tags(raw: bytes) -> Iterator[bytes]:
    """Yield the ID3 tags that stand one after the other."""
    while raw:
        size = 10 + synchsafe(raw[6:10]) + 10 * (raw[5] >> 4 & 1) if raw[:3] == b"ID3" and len(raw) >= 10 else len(raw)
        yield raw[:size]
        raw = raw[size:] if raw[size : size + 3] == b"ID3" else b""


def id3_frames(attached: Iterable[Attached]) -> list[Any]:
    """Return the frames of all ID3 tags that are whole."""
    return [frame for tag in id3_tags(attached) if tag is not None for frame in tag.values()]


def id3_texts(attached: Iterable[Attached]) -> Comments:
    """Return the texts of ID3 tags by the names that comments have."""
    return tuple(texts_of_frames(id3_frames(attached)))


def texts_of_frames(frames: Iterable[Any]) -> list[tuple[str, str]]:
    """Return the texts of ID3 frames; a frame without a common name keeps its own."""
    names, pairs = {frame: key for key, frame in id3_names().items()}, list[tuple[str, str]]()
    for frame in frames:
        kind = frame.FrameID
        if kind == "TXXX":
            pairs += [(frame.desc or "TXXX", str(text)) for text in frame.text]
        elif kind == "COMM":
            pairs += [("comment", str(text)) for text in frame.text]
        elif kind == "USLT":
            pairs.append(("lyrics", frame.text))
        elif kind == "TCON":
            pairs += [("genre", text) for text in frame.genres]
        elif kind.startswith("T"):
            pairs += [(names.get(kind, kind), str(text)) for text in getattr(frame, "text", [])]
        elif kind.startswith("W"):
            pairs.append((kind, frame.url))
    return [(name, text.replace("\0", "/")) for name, text in pairs]


def id3_names() -> dict[str, str]:
    """Return the ID3 frames of names that comments have."""
    return {
        "title": "TIT2", "artist": "TPE1", "album": "TALB", "albumartist": "TPE2", "composer": "TCOM",
        "copyright": "TCOP", "date": "TDRC", "tracknumber": "TRCK", "discnumber": "TPOS", "conductor": "TPE3",
        "lyricist": "TEXT", "isrc": "TSRC", "bpm": "TBPM", "software": "TSSE", "organization": "TPUB",
        "encodedby": "TENC", "language": "TLAN", "mood": "TMOO", "titlesort": "TSOT", "artistsort": "TSOP",
    }  # fmt: skip


def id3_pictures(attached: Iterable[Attached]) -> list[Attached]:
    """Return the pictures of ID3 tags as blocks of FLAC."""
    import mutagen.flac

    pictures = []
    for frame in (frame for frame in id3_frames(attached) if frame.FrameID == "APIC"):
        picture = mutagen.flac.Picture()
        picture.data, picture.type, picture.mime, picture.desc = frame.data, int(frame.type), frame.mime, frame.desc
        pictures.append(Attached("picture", picture.write()))
    return pictures


def id3_rest(attached: Iterable[Attached]) -> list[str]:
    """Return what of ID3 tags is lost where texts and pictures alone are kept.

    The names of frames that are neither texts, links, nor pictures, those of unknown and damaged ones too, and of frames
    whose description or language goes.
    """
    tags = id3_tags(attached)
    described = {f"{frame.FrameID} (its description)" for frame in id3_frames(attached) if is_described(frame)}
    kinds = {frame.FrameID for frame in id3_frames(attached) if frame.FrameID != "APIC" and not texts_of_frames([frame])}
    kinds |= {raw[:4].decode("latin-1") for tag in tags if tag is not None for raw in tag.unknown_frames}
    return sorted((kinds - {"COMM", "USLT"}) | described) + ["of a damaged tag"] * (None in tags)


def is_described(frame: Any) -> bool:
    """Tell whether a comment or lyrics say more than their text."""
    return frame.FrameID in ("COMM", "USLT") and bool(frame.desc or frame.lang not in ("eng", "XXX", "und", "\0\0\0"))


def id3_tag(pairs: Comments, attached: Iterable[Attached]) -> bytes:
    """Return an ID3v2.4 tag of texts and pictures."""
    import mutagen.flac
    import mutagen.id3

    id3, names = mutagen.id3.ID3(), id3_names()
    grouped: dict[str, list[str]] = {}
    for name, text in pairs:
        grouped.setdefault(name.lower(), []).append(text.replace("\0", "/"))
    for name, texts in grouped.items():
        if name == "comment":
            for i, text in enumerate(texts):
                id3.add(mutagen.id3.COMM(encoding=3, lang="XXX", desc=f"{i}" if i else "", text=[text]))
        elif name == "lyrics":
            id3.add(mutagen.id3.USLT(encoding=3, lang="XXX", desc="", text="\n".join(texts)))
        elif name == "genre":
            id3.add(mutagen.id3.TCON(encoding=3, text=texts))
        elif name in names and (name != "date" or all(map(is_date, texts))):
            id3.add(getattr(mutagen.id3, names[name])(encoding=3, text=texts))
        else:
            id3.add(mutagen.id3.TXXX(encoding=3, desc=name.upper(), text=texts))
    for i, one in enumerate(one for one in attached if one.kind == "picture"):
        found = mutagen.flac.Picture(one.data)
        desc = found.desc + " " * i  # a second picture of the same name would take the place of the first
        mime = found.mime.encode("latin-1", "replace").decode("latin-1")  # ID3 has no other letters there
        id3.add(mutagen.id3.APIC(encoding=3, mime=mime, type=found.type, desc=desc, data=found.data))
    out = io.BytesIO()
    id3.save(out, v1=0, padding=lambda info: 0)
    return out.getvalue()


def is_date(text: str) -> bool:
    """Say whether ID3 holds the text as a date; others would be dropped."""
    import mutagen.id3

    return str(mutagen.id3.ID3TimeStamp(text)) == text.replace("T", " ")


def write_flac_tags(file: Any, pairs: Comments, attached: Iterable[Attached]) -> list[str]:
    """Write comments, pictures, cue sheets and the like into a FLAC file; return notes on what it cannot hold."""
    import mutagen.flac

    notes = []
    flac: Any = mutagen.flac.FLAC(file)
    if flac.tags is None:
        flac.add_tags()
    flac.tags.clear()
    for name, text in pairs:
        if valid_name(name):
            flac.tags.append((name.upper() if name in PLAIN else name, text))
        else:
            notes.append(f"left out: the tag {name!r}, a name that FLAC cannot hold")
    for one in attached:
        if one.kind in BLOCKS:
            block = {PICTURE: mutagen.flac.Picture, CUESHEET: mutagen.flac.CueSheet}.get(
                BLOCKS[one.kind], mutagen.flac.MetadataBlock
            )(one.data)
            block.code = BLOCKS[one.kind]
            flac.metadata_blocks.append(block)
    file.seek(0)
    flac.save(file, padding=lambda info: 0)
    return notes


def valid_name(name: str) -> bool:
    """Say whether a Vorbis comment may be called so."""
    return bool(name) and all(" " <= letter <= "}" and letter != "=" for letter in name)


def pieces_of(around: tuple[bytes, bytes]) -> Iterator[tuple[Piece, bytes]]:
    """Yield the chunks around a WAV file's samples with their contents."""
    before, after = around
    start = max(before.find(name) for name in (b"RIFF", b"RF64", b"BW64")) if before[:3] == b"ID3" else 0
    for raw, at in ((before, start + 12), (after, int(after[:1] == b"\0"))):
        view = View(io.BytesIO(raw))
        yield from ((piece, view.at(piece.start, piece.end - piece.start)) for piece in chunks(view, at, "<"))


def of_wrapping(around: tuple[bytes, bytes]) -> tuple[Comments, tuple[Attached, ...], list[str], int]:
    """Return the texts, ID3 tags, other chunks' names and mask of what stands around a WAV file's samples."""
    pairs, attached, names, layout = list[tuple[str, str]](), list[Attached](), list[str](), 0
    before = around[0]
    if before[:3] == b"ID3":
        attached.append(Attached("id3", before[: max(0, before.find(b"RIFF"))]))
    for piece, raw in pieces_of(around):
        if piece.name == b"LIST" and raw[:4] == b"INFO":
            pairs += info_texts(raw[4:], "<")
        elif piece.name in (b"id3 ", b"ID3 "):
            attached.append(Attached("id3", raw))
        elif piece.name == b"fmt " and len(raw) >= 24 and raw[:2] == b"\xfe\xff":
            layout = int.from_bytes(raw[20:24], "little")
        elif piece.name not in QUIET and piece.name != b"data":
            names.append(piece.name.decode("latin-1").strip())
    return tuple(pairs), tuple(attached), names, layout


def unchunked(around: tuple[bytes, bytes]) -> int:
    """Return how many bytes stand after the last chunk of a WAV file."""
    after = around[1]
    first = int(after[:1] == b"\0")
    return len(after) - max([first, *(piece.end for piece in chunks(View(io.BytesIO(after)), first, "<"))])
