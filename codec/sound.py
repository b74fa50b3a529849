"""Sounds: files and arrays <-> integer or float samples, block by block, so that hours of sound take little memory.

What a file says of itself is walked (sound_walk.py, sound_streams.py); one table says who reads what (sound_read.py). Of a WAV
file the bytes around the samples are kept too, so that it comes back byte for byte, whatever its other chunks hold.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from laconic.entropy.errors import BadInput
from laconic.sound_read import REMEDY, read_file
from laconic.sound_samples import (
    DTYPES,
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
    from_array,
    pack,
    to_array,
)
from laconic.sound_walk import View
from laconic.sound_write import chunk, wav_around, with_all, write
from laconic.suffixes import SOUNDS

__all__ = [
    "DTYPES",
    "FLOAT_SUBTYPES",
    "FOREIGN_SUFFIXES",
    "MAX_CHANNELS",
    "MAX_RATE",
    "SUBTYPES",
    "Attached",
    "Samples",
    "Sound",
    "Source",
    "are_comments",
    "are_tags",
    "chunk",
    "from_array",
    "from_sound",
    "is_sound",
    "open_sound",
    "pack",
    "to_array",
    "to_sound",
    "wav_around",
    "with_texts",
    "write",
]

STARTS = {
    b"RIFF": b"WAVE",
    b"RIFX": b"WAVE",
    b"RF64": b"WAVE",
    b"BW64": b"WAVE",
    b"FORM": b"AIF",
    b"fLaC": b"",
    b"OggS": b"",
    b"ID3": b"",
    b"caff": b"",
    b"riff\x2e\x91\xcf\x11": b"",  # W64
    b".snd": b"",
    b"dns.": b"",
    b"NIST_1A": b"",
}
# Sounds that are not read, by how they begin, so that the refusal can name them.
FOREIGN = {
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "TTA",
    b"TTA2": "TTA",
    b"tBaK": "TAK",
    b"OFR ": "OptimFROG",
    b"LA0": "Lossless Audio",
    b"ajkg": "Shorten",
    b"DSD ": "DSF",
    b"FRM8": "DSDIFF",
    b"MPCK": "Musepack",
    b"MP+": "Musepack",
    b"#!AMR": "AMR",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "ASF (WMA)",
    b".ra\xfd": "RealAudio",
    b".RMF": "RealMedia",
    b"MThd": "MIDI (notes, not samples)",
    b"Creative Voi": "Creative VOC",
    b"FORM\0\0\0\0" + b"8SVX": "IFF 8SVX",
    b"FORM\0\0\0\0" + b"16SV": "IFF 16SV",
    b"Extended Ins": "FastTracker XI",
    b"ALawSoundFil": "Psion A-law",
    b"\xf0\x7e": "MIDI Sample Dump",
    b"2BIT": "AVR",
    b"\x64\xa3": "IRCAM",
    b"\x00\x01\xa3\x64": "IRCAM",
    b"\x00\x02\xa3\x64": "IRCAM",
    b"\x00\x03\xa3\x64": "IRCAM",
    b"\x00\x04\xa3\x64": "IRCAM",
    b" paf": "Ensoniq PARIS",
    b"fap ": "Ensoniq PARIS",
    b"PVF1": "Portable Voice Format",
    b"\x0b\x77": "AC-3",
    b"\x7f\xfe\x80\x01": "DTS",
}
BRANDS = {b"M4A ", b"M4B ", b"M4P ", b"M4V ", b"F4A ", b"aax ", b"isom", b"iso2", b"mp41", b"mp42", b"dash", b"qt  "}
FOREIGN_SUFFIXES = {
    ".m4a": "MPEG-4",
    ".m4b": "MPEG-4",
    ".m4r": "MPEG-4",
    ".aac": "AAC",
    ".wma": "ASF (WMA)",
    ".wv": "WavPack",
    ".mka": "Matroska",
    ".weba": "WebM",
    ".ape": "Monkey's Audio",
    ".tta": "TTA",
    ".tak": "TAK",
    ".ofr": "OptimFROG",
    ".shn": "Shorten",
    ".dsf": "DSF",
    ".dff": "DSDIFF",
    ".mpc": "Musepack",
    ".amr": "AMR",
    ".awb": "AMR",
    ".ac3": "AC-3",
    ".eac3": "AC-3",
    ".dts": "DTS",
    ".ra": "RealAudio",
    ".mid": "MIDI (notes, not samples)",
    ".midi": "MIDI (notes, not samples)",
    ".voc": "Creative VOC",
    ".8svx": "IFF 8SVX",
    ".spx": "Speex",
    ".gsm": "raw GSM",
}


def is_sound(start: bytes, name: str = "") -> bool:
    """Say whether the first 12 bytes of a file, or its name, are those of a sound, be it one that is refused."""
    known = any(start.startswith(magic) and start[8:].startswith(form) for magic, form in STARTS.items())
    mpeg = len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0 and start[1] & 6 != 0 and start[1] & 0x18 != 8
    suffix = Path(name).suffix.lower()
    return known or mpeg or bool(foreign(start, "")) or suffix in SOUNDS or suffix in FOREIGN_SUFFIXES


def foreign(start: bytes, suffix: str) -> str:
    """Return the name of a format of sounds that is not read, or nothing."""
    for magic, name in FOREIGN.items():
        if start[: len(magic)] == magic or (start[:4] == b"FORM" and magic[8:] and start[8:12] == magic[8:]):
            return name
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "AAC"
    if start[4:8] == b"ftyp" and (start[8:12] in BRANDS and (start[8:11] in (b"M4A", b"M4B", b"M4P", b"F4A") or suffix)):
        return "MPEG-4"
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return "Matroska"
    return FOREIGN_SUFFIXES.get(suffix, "")


def from_sound(sound: Sound) -> Source:
    """Take a sound in memory with all that stands beside its samples. Raises BadInput."""
    beside = (sound.tags, sound.comments, sound.attached, sound.layout)
    return from_array(sound.samples, sound.sample_rate, sound.bits, *beside)


def to_sound(samples: Samples, source: Source) -> Sound:
    """Return decoded samples with what stands beside them; of a WAV file's chunks the texts, ID3 tags and layout."""
    full = with_texts(replace(source, notes=[]))
    beside = (source.tags, full.comments, full.attached, full.layout)
    return Sound(to_array(samples, source.bits), source.sample_rate, source.bits, *beside)


def with_texts(source: Source) -> Source:
    """Return a source that needs no WAV file's chunks around it: their texts, ID3 tags and layout stand beside its samples.

    Comments are empty where tags say all; a note names the chunks that are left out.
    """
    full = with_all(source)
    same = sorted((name.lower(), text) for name, text in full.comments) == sorted(source.tags.items())
    return replace(full, comments=() if same else full.comments, around=None)


def open_sound(file: BinaryIO, name: str = "") -> Source:
    """Open a seekable file, from where it stands. Raises BadInput for what is damaged or read by nobody here."""
    view = View(file)
    source = read_file(view)
    if source is not None:
        return source
    suffix = Path(name or str(getattr(file, "name", ""))).suffix.lower()
    what = foreign(view.at(0, 12), suffix)
    if what:
        raise BadInput(f"sound: found {what}, expected WAV, AIFF, CAF, W64, AU, FLAC, Ogg or MP3; {REMEDY}")
    found = "damage or another format" if view.size else "an empty file"
    raise BadInput(f"sound: found {found}, expected a sound file")
