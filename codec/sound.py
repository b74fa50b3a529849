"""Sounds: files and arrays <-> integer or float samples, block by block, so that hours of sound take little memory.

soundfile (libsndfile) reads and writes. Of a WAV file the bytes around the samples are kept too, so that it comes back
byte for byte, whatever its other chunks hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.suffixes import SOUNDS

Samples = NDArray[Any]  # [T, C]: int32, the value in the low bits whatever the width; float32 or float64
PCM = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
SUBTYPES = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}
DTYPES = {8: np.uint8, 16: np.int16, 24: np.int32, 32: np.int32}
FLOAT = {"FLOAT": 32, "DOUBLE": 64}
FLOAT_SUBTYPES = {bits: name for name, bits in FLOAT.items()}
MAX_CHANNELS, MAX_RATE = 8, 1 << 24
MAX_WRAPPING = 1 << 24  # bytes around the samples that are worth keeping
PLAIN_WAV, FLOAT_WAV, EXTENSIBLE_WAV = 1, 3, 0xFFFE
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
INFO_IDS = {"title": b"INAM", "artist": b"IART", "album": b"IPRD", "comment": b"ICMT", "copyright": b"ICOP"}
INFO_IDS |= {"date": b"ICRD", "genre": b"IGNR", "tracknumber": b"ITRK", "software": b"ISFT"}
STARTS = {
    b"RIFF": b"WAVE",
    b"RF64": b"WAVE",
    b"BW64": b"WAVE",
    b"FORM": b"AIF",
    b"fLaC": b"",
    b"OggS": b"",
    b"ID3": b"",
    b"caff": b"",
    b"riff\x2e\x91\xcf\x11": b"",  # W64
}


@dataclass(frozen=True)
class Sound:
    """samples [T, C]: uint8 (128 is silence) of 8 bits, int16 of 16, int32 of 24 and 32, the value in the low bits; float32
    of 32 bits, float64 of 64.
    """

    samples: NDArray[Any]
    sample_rate: int
    bits: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A sound to read. blocks(n): the samples, n a time; wrapping(): after them, what stood around them, if kept.

    notes: a list that wrapping() adds to where it keeps less than a WAV file needs to come back byte for byte.
    """

    sample_rate: int
    channels: int
    bits: int
    n_samples: int
    blocks: Callable[[int], Iterator[Samples]]
    wrapping: Callable[[], tuple[bytes, bytes] | None] = lambda: None
    tags: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    floating: bool = False


def is_sound(start: bytes, name: str = "") -> bool:
    """Whether the first 12 bytes of a file, or its name, are those of a sound."""
    known = any(start.startswith(magic) and start[8:].startswith(form) for magic, form in STARTS.items())
    mpeg = len(start) > 1 and start[0] == 0xFF and start[1] & 0xE6 == 0xE2
    return known or mpeg or Path(name).suffix.lower() in SOUNDS


def from_array(
    samples: NDArray[Any], sample_rate: int, bits: int | None = None, tags: dict[str, str] | None = None
) -> Source:
    """uint8 (128 is silence), int16, int32, float32 or float64, [T] or [T, C]. Raises BadInput."""
    expect(isinstance(samples, np.ndarray), BadInput, "samples", type(samples).__name__, "a NumPy array")
    known = samples.dtype in (np.uint8, np.int16, np.int32, np.float32, np.float64)
    expect(known, BadInput, "array dtype", str(samples.dtype), "uint8, int16, int32, float32 or float64")
    expect(samples.ndim in (1, 2), BadInput, "array shape", samples.shape, "[T] or [T, C]")
    expect(isinstance(sample_rate, (int, np.integer)), BadInput, "sample_rate", sample_rate, "an integer, in Hz")
    expect(tags is None or are_tags(tags), BadInput, "tags", tags, "a dictionary of names with texts")
    width = 8 * samples.dtype.itemsize if bits is None else bits
    floating = samples.dtype.kind == "f"
    fits = width == 8 * samples.dtype.itemsize if floating else DTYPES.get(width) == samples.dtype
    expect(fits, BadInput, "bits", width, f"those of {samples.dtype}")
    columns = samples if samples.ndim == 2 else samples[:, None]
    if not floating:
        columns = columns.astype(np.int32) - (128 if width == 8 else 0)
        most = 1 << width - 1
        for value in (int(columns.min(initial=0)), int(columns.max(initial=0))):
            expect(-most <= value < most, BadInput, "samples", value, f"{-most} to {most - 1}")

    def blocks(n: int) -> Iterator[Samples]:
        return (columns[i : i + n] for i in range(0, len(columns), n))

    source = Source(int(sample_rate), columns.shape[1], width, len(columns), blocks, tags=tags or {}, floating=floating)
    return checked(source)


def are_tags(tags: object) -> bool:
    """Whether they are what files of sounds hold: texts by name, all of them UTF-8."""
    if not isinstance(tags, dict) or not all(isinstance(text, str) for item in tags.items() for text in item):
        return False
    try:
        "".join(text for item in tags.items() for text in item).encode()
    except UnicodeEncodeError:
        return False
    return True


def open_sound(file: BinaryIO) -> Source:
    """A seekable file, from where it stands. Raises BadInput for what libsndfile does not read."""
    import soundfile

    plain = View(file)
    changes, notes = readable_header(plain)
    try:
        sound = soundfile.SoundFile(View(file, changes))
    except (soundfile.SoundFileError, TypeError) as error:
        text = getattr(error, "error_string", str(error)).rstrip(".")
        raise BadInput(f"sound: found damage or another format ({text}), expected a sound file") from None
    bits, floating, exact = (PCM | FLOAT).get(sound.subtype, 16), sound.subtype in FLOAT, sound.subtype in PCM
    kind = f"float{bits}" if floating else "int32" if exact else "float64"
    if not (exact or floating):
        notes.append(f"decoded from {sound.subtype} to samples of 16 bits, which are what is kept")
    wrapper = Wrapper(plain, sound.format, bits, sound.channels) if exact or floating else None

    def blocks(n: int) -> Iterator[Samples]:
        sound.seek(0)
        while True:
            block: Samples = sound.read(n, dtype=kind, always_2d=True)
            if not len(block):
                return
            if exact:
                block >>= 32 - bits
            elif not floating:
                block = (block * 32768).round().clip(-32768, 32767).astype(np.int32)
            if wrapper:
                wrapper.see(block)
            yield block

    def wrapping() -> tuple[bytes, bytes] | None:
        return wrapper.found(notes) if wrapper else None

    tags = {key: value for key, value in sound.copy_metadata().items() if value}
    shape = (sound.samplerate, sound.channels, bits, sound.frames)
    return checked(Source(*shape, blocks, wrapping, tags, notes, floating))


def checked(source: Source) -> Source:
    expect(1 <= source.channels <= MAX_CHANNELS, BadInput, "channels", source.channels, f"1 to {MAX_CHANNELS}")
    expect(1 <= source.sample_rate < MAX_RATE, BadInput, "sample rate", source.sample_rate, f"1 to {MAX_RATE - 1} Hz")
    return source


class View:
    """A file from where it stands on, as a file of its own. changes: bytes that are read instead of its own, by offset."""

    def __init__(self, file: BinaryIO, changes: dict[int, bytes] | None = None) -> None:
        self.file, self.first, self.changes = file, file.tell(), changes or {}

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset + (self.first if whence == 0 else 0), whence) - self.first

    def tell(self) -> int:
        return self.file.tell() - self.first

    def read(self, n: int = -1) -> bytes:
        at = self.tell()
        raw = bytearray(self.file.read(n))
        for offset, change in self.changes.items():
            start, stop = max(offset, at), min(offset + len(change), at + len(raw))
            if start < stop:
                raw[start - at : stop - at] = change[start - offset : stop - offset]
        return bytes(raw)


def readable_header(file: View) -> tuple[dict[int, bytes], list[str]]:
    """What to change in the header of a WAV file so that libsndfile finds all samples, and notes on it.

    A BW64 file is laid out as RF64. A header that was never finished, as of a recording that was cut short, has sizes that
    fit neither one another nor the file; then the samples end with the file.
    """
    with kept_position(file):
        file.seek(0)
        start = file.read(36)
        wide = start[:4] in (b"RF64", b"BW64")
        changes = {0: b"RF64"} if wide else {}
        if not (wide or start[:4] == b"RIFF") or start[8:12] != b"WAVE" or (at := data_start(file)) is None:
            return changes, []
        n_bytes = file.seek(0, 2)
        file.seek(at - 4)
        # RF64 has them in its first chunk, ds64.
        size_at, sizes = (28, (start[20:28], start[28:36])) if wide else (at - 4, (start[4:8], file.read(4)))
    end, size = 8 + int.from_bytes(sizes[0], "little"), int.from_bytes(sizes[1], "little")
    finished = at + max(size, 1) <= end <= n_bytes + 1
    if finished or n_bytes - at - size <= (MAX_WRAPPING if size else 0):
        return changes, []
    changes[size_at] = min(n_bytes - at, (1 << 8 * len(sizes[1])) - 1).to_bytes(len(sizes[1]), "little")
    note = f"the WAV header was never finished ({size} bytes of samples): all {n_bytes - at} up to the end are taken for them"
    return changes, [note]


class Wrapper:
    """What stands around the samples of a WAV file, kept where the samples are seen to be its bytes exactly."""

    def __init__(self, file: View, format: str, bits: int, channels: int) -> None:
        self.file, self.bits, self.frame = file, bits, channels * bits // 8
        self.is_wav = format in ("WAV", "WAVEX", "RF64")
        with kept_position(file):
            self.start = data_start(file) if self.is_wav else None
            self.size = file.seek(0, 2)
        self.at = self.start or 0

    def see(self, block: Samples) -> None:
        """The next samples."""
        if self.start is not None:
            with kept_position(self.file):
                self.file.seek(self.at)
                raw = self.file.read(len(block) * self.frame)
            self.at += len(raw)
            self.start = self.start if raw == pack(block, self.bits) else None

    def found(self, notes: list[str]) -> tuple[bytes, bytes] | None:
        """The bytes before the samples and after them, once all were seen; a note where those of a WAV file are not kept."""
        around = self.size - (self.at - self.start) if self.start is not None else None
        if around is None or around > MAX_WRAPPING:
            found = f"{around} bytes" if around else "samples laid out in another way"
            expected = f"at most {MAX_WRAPPING}" if around else "as others write them"
            what = f"what stands around the samples is left out: found {found}, expected {expected}; "
            notes.extend([f"{what}the WAV file will not come back byte for byte"] * self.is_wav)
            return None
        with kept_position(self.file):
            self.file.seek(0)
            before = self.file.read(self.start or 0)
            self.file.seek(self.at)
            return before, self.file.read()


@contextmanager
def kept_position(file: View) -> Iterator[None]:
    """Puts the file's position back: soundfile reads the same file."""
    position = file.tell()
    try:
        yield
    finally:
        file.seek(position)


def data_start(file: View) -> int | None:
    """Where the samples of a RIFF or RF64 file begin."""
    at = 12
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return None
        if head[:4] == b"data":
            return at + 8
        at += 8 + (size := int.from_bytes(head[4:], "little")) + size % 2


def pack(samples: Samples, bits: int) -> bytes:
    """The bytes of WAV's samples: little-endian, 8 bits unsigned."""
    if samples.dtype.kind == "f":
        return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()
    if bits == 8:
        return (samples + 128).astype(np.uint8).tobytes()
    if bits == 24:
        return np.ascontiguousarray(samples.astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return samples.astype(f"<i{bits // 8}").tobytes()


def to_array(samples: Samples, bits: int) -> NDArray[Any]:
    """As in `Sound`."""
    if samples.dtype.kind == "f":
        return samples
    return (samples + (128 if bits == 8 else 0)).astype(DTYPES[bits], copy=False)


def write(
    file: BinaryIO,
    blocks: Iterable[Samples],
    source: Source,
    format: str = "WAV",
    wrapping: tuple[bytes, bytes] | None = None,
) -> None:
    """Write n_samples of a sound: WAV by its wrapping, or a new one; other formats by soundfile. `source` says how they are.

    Raises BadInput where the format cannot hold them.
    """
    if format == "WAV":
        before, after = wrapping or wav_around(source)
        file.write(before)
        for block in blocks:  # noqa: FURB122  a spooled file's writelines holds all in memory
            file.write(pack(block, source.bits))
        file.write(after)
    else:
        write_other(file, blocks, source, format)


def write_other(file: BinaryIO, blocks: Iterable[Samples], source: Source, format: str) -> None:
    import soundfile

    subtype = "PCM_S8" if source.bits == 8 and format != "W64" else SUBTYPES.get(source.bits, "")
    subtype = FLOAT_SUBTYPES[source.bits] if source.floating else subtype
    found = f"{'float ' if source.floating else ''}samples of {source.bits} bits"
    fits = soundfile.check_format(format, subtype)
    expect(fits, BadInput, f"{format} output", found, "samples that it can hold; WAV holds all")
    with soundfile.SoundFile(file, "w", source.sample_rate, source.channels, subtype, format=format) as out:
        for key, value in source.tags.items():
            setattr(out, key, value)
        for block in blocks:
            out.write(block if source.floating else block << (32 - source.bits))


def wav_around(source: Source) -> tuple[bytes, bytes]:
    """The bytes before and after the samples of a new WAV file (RF64 above 4 GiB), its tags before them."""
    frame = source.channels * source.bits // 8
    size = source.n_samples * frame
    extensible = not source.floating and (source.channels > 2 or source.bits > 16)
    tag = FLOAT_WAV if source.floating else EXTENSIBLE_WAV if extensible else PLAIN_WAV
    rates = (source.sample_rate, source.sample_rate * frame, frame, source.bits)
    shape = struct.pack("<HHIIHH", tag, source.channels, *rates)
    if extensible:
        shape += struct.pack("<HHI", 22, source.bits, 0) + PCM_GUID  # mask 0: no loudspeaker is named
    inside = chunk(b"fmt ", shape) + info_chunk(source.tags)
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
    """RIFF's LIST of type INFO."""
    items = b"".join(chunk(INFO_IDS[key], value.encode() + b"\0") for key, value in tags.items() if key in INFO_IDS)
    return chunk(b"LIST", b"INFO" + items) if items else b""


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
