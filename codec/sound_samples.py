"""What a sound is in memory: its samples as arrays, what stands beside them, and the bytes that WAV makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadInput, expect

Samples = NDArray[Any]  # [T, C]: int32, the value in the low bits whatever the width; float32 or float64
SUBTYPES = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}
DTYPES = {8: np.uint8, 16: np.int16, 24: np.int32, 32: np.int32}
FLOAT_SUBTYPES = {32: "FLOAT", 64: "DOUBLE"}
MAX_CHANNELS, MAX_RATE = 8, 1 << 24
FRONT = {1: 0x4, 2: 0x3}  # masks of one and two channels that say nothing more


@dataclass(frozen=True)
class Attached:
    """Holds something that a file has beside its samples and texts, as it stood there.

    kind: "picture", "cuesheet" or "application" (blocks of FLAC, RFC 9639 section 8), or "id3" (a whole ID3v2 tag).
    """

    kind: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Sound:
    """Holds samples [T, C]: uint8 (128 is silence) of 8 bits, int16 of 16, int32 of 24 and 32, the value in the low bits;
    float32 of 32 bits, float64 of 64.

    tags: texts by plain names (title, artist, album ...). comments: every name with its text, in order, repeated ones too,
    where there are more than `tags` holds. attached: pictures and the like. layout: the mask of loudspeakers as in WAV,
    0 where none is named.
    """

    samples: NDArray[Any]
    sample_rate: int
    bits: int
    tags: dict[str, str] = field(default_factory=dict)
    comments: tuple[tuple[str, str], ...] = ()
    attached: tuple[Attached, ...] = ()
    layout: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sound):
            return NotImplemented
        a, b = np.asarray(self.samples), np.asarray(other.samples)
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return same and beside(self) == beside(other)


def beside(sound: Sound) -> tuple[object, ...]:
    """Return everything but the samples, to compare by."""
    return (sound.sample_rate, sound.bits, sound.tags, sound.comments, sound.attached, sound.layout)


@dataclass(frozen=True)
class Source:
    """Describes a sound to read. blocks(n): the samples, n at a time; wrapping(): after them, what stood around them, if kept.

    notes: a list that fills while the sound is read, with what is not kept.
    around: what a decoded file keeps of a WAV file, known also where only a part of the samples is asked for.
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
    comments: tuple[tuple[str, str], ...] = ()
    attached: tuple[Attached, ...] = ()
    layout: int = 0
    around: tuple[bytes, bytes] | None = None


def from_array(
    samples: NDArray[Any],
    sample_rate: float,
    bits: int | None = None,
    tags: dict[str, str] | None = None,
    comments: tuple[tuple[str, str], ...] = (),
    attached: tuple[Attached, ...] = (),
    layout: int = 0,
) -> Source:
    """Take uint8 (128 is silence), int16, int32, float32 or float64 samples, [T] or [T, C]. Raises BadInput."""
    plain = isinstance(samples, np.ndarray) and not isinstance(samples, (np.ma.MaskedArray, np.matrix))
    expected = "a NumPy array (neither masked nor a matrix): np.asarray(samples) makes one of most things"
    expect(plain, BadInput, "samples", type(samples).__name__, expected)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    known = samples.dtype in (np.uint8, np.int16, np.int32, np.float32, np.float64)
    expect(known, BadInput, "array dtype", str(samples.dtype), "uint8, int16, int32, float32 or float64")
    expect(samples.ndim in (1, 2), BadInput, "array shape", samples.shape, "[T] or [T, C]")
    rate = checked_rate(sample_rate)
    check_beside(tags, comments, attached, layout)
    width = checked_bits(samples.dtype, bits)
    columns = samples if samples.ndim == 2 else samples[:, None]
    if samples.dtype.kind != "f":
        columns = in_range(columns.astype(np.int32) - (128 if width == 8 else 0), width)

    def blocks(n: int) -> Iterator[Samples]:
        return (columns[i : i + n] for i in range(0, len(columns), n))

    shape = (rate, columns.shape[1], width, len(columns))
    extra = {"comments": comments, "attached": attached, "layout": layout}
    return checked(Source(*shape, blocks, tags=tags or {}, floating=samples.dtype.kind == "f", **extra))  # type: ignore[arg-type]


def checked_rate(rate: object) -> int:
    """Return a whole number of samples per second; 44100.0 is one. Raises BadInput."""
    whole = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    whole = whole and np.isfinite(rate) and rate == int(rate)  # type: ignore[call-overload]
    expect(bool(whole), BadInput, "sample_rate", rate, "an integer, in Hz")
    return int(rate)  # type: ignore[call-overload, no-any-return]


def checked_bits(dtype: np.dtype[Any], bits: int | None) -> int:
    """Return the width of the samples, which their type gives unless it is said. Raises BadInput."""
    width = 8 * dtype.itemsize if bits is None else bits
    fits = width == 8 * dtype.itemsize if dtype.kind == "f" else DTYPES.get(width) == dtype
    expect(fits, BadInput, "bits", width, f"those of {dtype}")
    return width


def in_range(columns: Samples, width: int) -> Samples:
    """Return the samples, all of which `width` bits hold. Raises BadInput."""
    most = 1 << width - 1
    for value in (int(columns.min(initial=0)), int(columns.max(initial=0))):
        expect(-most <= value < most, BadInput, "samples", value, f"{-most} to {most - 1}")
    return columns


def check_beside(tags: object, comments: object, attached: object, layout: object) -> None:
    """Refuse what no file of sounds holds beside samples. Raises BadInput."""
    expect(tags is None or are_tags(tags), BadInput, "tags", tags, "a dictionary of names with texts")
    expect(are_comments(comments), BadInput, "comments", comments, "pairs of a name and a text")
    known = isinstance(attached, tuple) and all(isinstance(one, Attached) for one in attached)
    expect(known, BadInput, "attached", attached, "a tuple of Attached")
    mask = isinstance(layout, (int, np.integer)) and 0 <= layout < 1 << 32
    expect(bool(mask), BadInput, "layout", layout, "a mask of loudspeakers as in WAV, 32 bits")


def are_tags(tags: object) -> bool:
    """Say whether they are what files of sounds hold: texts by name, all of them UTF-8."""
    return isinstance(tags, dict) and are_texts(text for item in tags.items() for text in item)


def are_comments(comments: object) -> bool:
    """Say whether they are pairs of texts."""
    pairs = isinstance(comments, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in comments)
    return pairs and are_texts(text for pair in comments for text in pair)  # type: ignore[attr-defined]


def are_texts(values: Iterator[object]) -> bool:
    """Say whether all are texts that UTF-8 can write: no halves of surrogate pairs."""
    try:
        return all(isinstance(value, str) and value.encode() is not None for value in values)
    except UnicodeEncodeError:
        return False


def checked(source: Source) -> Source:
    """Return the source where the format holds so many channels at such a rate. Raises BadInput."""
    expect(1 <= source.channels <= MAX_CHANNELS, BadInput, "channels", source.channels, f"1 to {MAX_CHANNELS}")
    expect(1 <= source.sample_rate < MAX_RATE, BadInput, "sample rate", source.sample_rate, f"1 to {MAX_RATE - 1} Hz")
    return source


def pack(samples: Samples, bits: int) -> bytes:
    """Return the bytes of WAV's samples: little-endian, 8 bits unsigned."""
    if samples.dtype.kind == "f":
        return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()
    if bits == 8:
        return (samples + 128).astype(np.uint8).tobytes()
    if bits == 24:
        return np.ascontiguousarray(samples.astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return samples.astype(f"<i{bits // 8}").tobytes()


def unpack_pcm(raw: bytes, bits: int, channels: int, *, big: bool, floating: bool, unsigned: bool) -> Samples:
    """Return samples [T, C] of whole frames of bytes. big: whether the highest byte comes first."""
    order = ">" if big else "<"
    if floating:
        values = np.frombuffer(raw, f"{order}f{bits // 8}").astype(f"f{bits // 8}")
    elif bits == 8:
        values = np.frombuffer(raw, np.uint8).astype(np.int32) - 128 if unsigned else np.frombuffer(raw, np.int8)
    elif bits == 24:
        three = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        four = np.zeros((len(three), 4), np.uint8)
        four[:, 1:] = three[:, ::-1] if big else three
        values = four.view("<i4")[:, 0] >> 8
    else:
        values = np.frombuffer(raw, f"{order}i{bits // 8}")
    return (values if floating else values.astype(np.int32, copy=False)).reshape(-1, channels)


def to_array(samples: Samples, bits: int) -> NDArray[Any]:
    """Return samples as `Sound` holds them."""
    if samples.dtype.kind == "f":
        return samples
    return (samples + (128 if bits == 8 else 0)).astype(DTYPES[bits], copy=False)
