"""Lossless float samples: integers, coded as in `lossless_sound`, and what makes the floats of them again, to the bit.

Floats are often integers in disguise: converted (n / 2**15), normalised (n / 32767), turned down (0.7 * n / 2**15),
rounded once. The factor of a channel is found from its smallest samples, and nothing but the integers remains to be
coded. Where there is none, samples are cut to 24 bits of the loudest one's grid, and the mantissa bits below it stand
as they are, for they are noise. Bytes: FORMAT.md, section "Coded sound samples", Float samples.

After: WavPack's float mode (the cut) and the approximate common factor of MPEG-4 ALS (ISO/IEC 14496-3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.varint import read_varint, write_varint
from laconic.models import lossless_sound

Floats = NDArray[Any]  # float32 or float64
Integers = NDArray[np.int64]
CUT_BITS = 24  # bits that the loudest sample keeps where mantissas are cut
MOST_INTEGER = 1 << 28  # a factor with larger integers is none
USUAL = 0.999  # the loudness that so many of the samples stay below is the usual one
MOST_LOUD = 1 << 16  # a sample louder than so many times the usual may miss the grid: it is a click
MOST_BAD = 1 / 64  # so many of the samples may miss the grid of a factor
SMALL = 16  # a factor is found from so many distinct samples, the smallest ones
MOST_FIRST = 4096  # the smallest of them is at most so many times the factor
NEAR = 1 / 32  # a multiple of a factor missed by less than so many factors is rounding
LOUDEST = {4: 2.0**-60, 8: 2.0**-900}  # by bytes per sample: channels below are stored, as subnormal numbers come near
LEAST = {4: 2.0**-120, 8: 2.0**-1000}  # by bytes per sample: smaller samples are kept as bits
MANTISSA = {4: 24, 8: 53}  # bits, by bytes per sample


def encode_segment(samples: Floats, effort: int) -> bytes:
    """Code a segment of float samples by itself, NaNs, infinities and negative zeros included.

    samples: float32 or float64 [T, C], 1 to 8 channels. effort: 1 to 9. Raises BadInput.
    """
    stored = b"\0" + as_bits(samples).tobytes()
    split = [split_channel(samples[:, c]) for c in range(samples.shape[1])]
    integers, odd = np.stack([one.integers for one in split], 1), np.stack([one.odd for one in split], 1)
    bits = max(8, int(np.abs(integers).max(initial=0)).bit_length() + 1)
    coded = lossless_sound.encode_segment(integers.astype(np.int32), bits, effort)
    heads = b"".join(bytes([one.cut]) + np.array(one.factor, "<f8").tobytes() for one in split)
    kept = odd & (as_bits(samples) != as_bits(np.array(-0.0, samples.dtype)))  # -0.0 is the most common odd sample
    odd_ones = write_plane(odd[integers == 0]) + write_plane(kept[odd]) + as_bits(samples[kept]).tobytes()
    widths, rest = np.stack([one.widths for one in split], 1), np.stack([one.rest for one in split], 1)
    planes = (write_plane(rest[widths > k] >> k & 1) for k in range(int(widths.max(initial=0))))
    out = b"".join([bytes([bits]), heads, write_varint(len(coded)), coded, odd_ones, *planes])
    return out if len(out) < len(stored) else stored


def decode_segment(data: bytes | memoryview, n: int, channels: int, width: int) -> Floats:
    """Return the samples that `encode_segment` was given, float [n, channels] of `width` bits.

    width: 32 or 64. Raises BadFile on damage.
    """
    raw, kind = bytes(data), np.dtype(f"f{width // 8}")
    expect(len(raw) > 0, BadFile, "segment", "nothing", "a segment")
    if raw[0] == 0:
        expected = n * channels * kind.itemsize
        expect(len(raw) == 1 + expected, BadFile, "stored samples", len(raw) - 1, f"{expected} bytes")
        return from_bits(raw[1:], kind).reshape(n, channels)
    bits, at = raw[0], 1 + 9 * channels
    expect(8 <= bits <= 32 and len(raw) > at, BadFile, "float segment", (bits, len(raw)), "8 to 32 bits, and factors")
    heads = np.frombuffer(raw[1:at], np.dtype([("cut", "u1"), ("factor", "<f8")]))
    length, at = read_varint(raw, at, "integers of a segment")
    integers = lossless_sound.decode_segment(raw[at : at + length], n, channels, bits).astype(np.int64)
    odd, kept, bits_kept, at = read_odd(raw, at + length, integers, kind)
    widths = rest_widths(integers, heads["cut"] != 0, kind.itemsize)
    rest = read_rest(raw, at, widths)
    with np.errstate(over="ignore"):  # where a factor is damaged
        out = joined(integers, heads["factor"], widths, rest).astype(kind)
    out[odd] = -0.0
    out[kept] = bits_kept
    return out


def read_odd(
    raw: bytes, at: int, integers: Integers, kind: np.dtype[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats, int]:
    """Read which samples are odd, which of these stand as they are, those, and the position after them.

    Raises BadFile.
    """
    odd, at = read_plane(raw, at, integers == 0)
    kept, at = read_plane(raw, at, odd)
    end = at + kind.itemsize * int(kept.sum())
    expect(end <= len(raw), BadFile, "odd samples", len(raw) - at, f"{end - at} bytes")
    return odd, kept, from_bits(raw[at:end], kind), end


def read_rest(raw: bytes, at: int, widths: Integers) -> Integers:
    """Read the planes of the bits that lie below the integers, which end the segment. Raises BadFile."""
    rest = np.zeros_like(widths)
    for k in range(int(widths.max(initial=0))):
        plane, at = read_plane(raw, at, widths > k)
        rest |= plane.astype(np.int64) << k
    expect(at == len(raw), BadFile, "segment", f"{len(raw) - at} bytes more", "the end")
    return rest


@dataclass(frozen=True)
class Split:
    """Holds a channel as integers times a factor.

    integers: int64 [T]. odd: bool [T], the samples that do not come out of that; their integer is 0. cut: whether the
    factor is a power of two and integers are cut towards zero. widths, rest: int64 [T], how many bits of the mantissa a
    cut sample lost, and those bits; 0 elsewhere.
    """

    integers: Integers
    factor: float
    odd: NDArray[np.bool_]
    cut: bool
    widths: Integers
    rest: Integers


def split_channel(samples: Floats) -> Split:
    """Split a channel [T] by a common factor where there is one, else by a cut; if it is too quiet all are odd."""
    size = samples.dtype.itemsize
    plain = np.isfinite(samples) & (np.abs(samples) >= LEAST[size])
    values = np.where(plain, samples, 0).astype(np.float64)
    sizes = np.sort(np.abs(values))
    usual = sizes[int(USUAL * len(sizes))] if sizes.size else 0.0
    values[np.abs(values) / MOST_LOUD > usual] = 0
    distinct = np.unique(sizes[(sizes > 0) & (sizes / MOST_LOUD <= usual)])
    if not distinct.size or distinct[-1] < LOUDEST[size] or distinct[-1] >= 1 / LOUDEST[size]:
        return split_by(samples, 1.0, np.zeros(len(samples), np.int64))
    for factor in (refined(distinct, approximate_factor(distinct, size), size), power_of_two(distinct)):
        if distinct[-1] < factor * MOST_INTEGER:
            split = split_by(samples, factor, np.rint(values / factor).astype(np.int64))
            if np.count_nonzero(split.odd & (values != 0)) <= MOST_BAD * len(samples):
                return split
    return cut_channel(samples, values, int(np.frexp(distinct[-1])[1]))


def cut_channel(samples: Floats, values: NDArray[np.float64], exponent: int) -> Split:
    """Split a channel by a cut: so many bits of the loudest value, and the bits below as they are.

    values: float64 [T], the samples, 0 where they are to be odd. exponent: they are smaller than 2**exponent.
    """
    size = samples.dtype.itemsize
    integers = np.trunc(np.ldexp(values, CUT_BITS - exponent)).astype(np.int64)
    widths = rest_widths(integers, True, size)
    whole = np.ldexp(np.abs(values), CUT_BITS - exponent + widths)
    rest = np.where(integers != 0, whole, 0).astype(np.int64) - (np.abs(integers) << widths)
    return split_by(samples, 2.0 ** (exponent - CUT_BITS), integers, widths, rest)


def split_by(
    samples: Floats, factor: float, integers: Integers, widths: Integers | None = None, rest: Integers | None = None
) -> Split:
    """Put a split together, and mark those samples as odd that do not come out of it to the bit."""
    nothing = np.zeros(len(samples), np.int64)
    w, r = (nothing if widths is None else widths), (nothing if rest is None else rest)
    odd = as_bits(joined(integers, factor, w, r).astype(samples.dtype)) != as_bits(samples)
    integers = np.where(odd, 0, integers)
    return Split(integers, factor, odd, widths is not None, np.where(odd, 0, w), np.where(odd, 0, r))


def joined(integers: Integers, factors: Any, widths: Integers, rest: Integers) -> NDArray[np.float64]:
    """Return the samples that integers, the bits below them, and factors along the last axis make."""
    with np.errstate(all="ignore"):  # a damaged factor may be anything
        sizes = np.ldexp(((np.abs(integers) << widths) | rest).astype(np.float64), -widths)
        out: NDArray[np.float64] = np.where(integers < 0, -sizes, sizes) * factors
    return out


def rest_widths(integers: Integers, cut: Any, size: int) -> Integers:
    """Return how many bits of the mantissa lie below each integer that was cut. cut: whether, along the last axis."""
    widths = MANTISSA[size] - np.frexp(np.abs(integers).astype(np.float64))[1]
    return np.where(cut & (integers != 0), np.maximum(widths, 0), 0).astype(np.int64)


def approximate_factor(distinct: NDArray[np.float64], size: int) -> float:
    """Return what the smallest of these rising values are multiples of; the first of them if there is nothing else."""
    few = distinct[:SMALL]
    with np.errstate(all="ignore"):
        n = few[:, None] / few[0] * np.arange(1, MOST_FIRST + 1)
        fits = np.abs(n - np.rint(n)).max(0) < NEAR
    return refined(few, float(few[0] / (1 + fits.argmax())), size)


def refined(distinct: NDArray[np.float64], factor: float, size: int) -> float:
    """Return the factor in the middle of all that give these values by rounding their multiples."""
    half = np.spacing(distinct.astype(f"f{size}")).astype(np.float64) / 2
    with np.errstate(all="ignore"):  # where the factor is none
        n = np.maximum(1, np.rint(distinct / factor))
        return float((((distinct - half) / n).max() + ((distinct + half) / n).min()) / 2)


def power_of_two(distinct: NDArray[np.float64]) -> float:
    """Return the largest power of two of which all values are multiples."""
    mantissa, exponent = np.frexp(distinct)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    return float(np.ldexp((whole & -whole).astype(np.float64), exponent - 53).min())


def as_bits(samples: Floats) -> NDArray[Any]:
    """Return the samples as little-endian unsigned integers of their size."""
    size = samples.dtype.itemsize
    return np.ascontiguousarray(samples, f"<f{size}").view(f"<u{size}")


def from_bits(raw: bytes, kind: np.dtype[Any]) -> Floats:
    """Return the samples, flat, whose bytes stand in `raw`."""
    return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind)


def write_plane(bits: NDArray[Any]) -> bytes:
    """Return a plane of bits: a byte 1 and the bits, the first the highest of its byte; or a byte 0 where all are 0."""
    return b"\1" + np.packbits(bits.astype(bool)).tobytes() if bits.any() else b"\0"


def read_plane(raw: bytes, at: int, there: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Read the plane at a position. Return its bits, in those places that are `there`, and the position after it."""
    n, out = int(there.sum()), np.zeros(there.shape, bool)
    expect(at < len(raw) and raw[at] < 2, BadFile, "bits of a segment", raw[at : at + 1], "a byte 0 or 1")
    end = at + 1 + (raw[at] * n + 7) // 8
    expect(end <= len(raw), BadFile, "bits of a segment", len(raw) - at, f"{end - at} bytes")
    if raw[at]:
        out[there] = np.unpackbits(np.frombuffer(raw[at + 1 : end], np.uint8), count=n)
    return out, end
