"""Lossless float samples: integers, coded as in `lossless_sound`, and what makes the floats of them again, to the bit.

Floats are often integers in disguise: converted (n / 2**15), normalised (n / 32767), turned down (0.7 * n / 2**15), rounded
once. The factor of a channel is found from its smallest samples, and nothing but the integers remains to be coded. Where
there is none, samples are cut to 24 bits of the loudest one's grid, and the mantissa bits below it stand as they are: noise.

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
CUT_BITS = 24  # of the loudest sample, where mantissas are cut
MOST_INTEGER = 1 << 28
USUAL, MOST_LOUD = 0.999, 1 << 16  # a sample so many times as loud as that part of them may miss the grid
MOST_BAD = 1 / 64  # of the samples may miss the grid of a factor
SMALL = 16  # distinct samples, the smallest ones, from which a factor is found
MOST_FIRST = 4096  # times the factor is the smallest of them
NEAR = 1 / 32  # of a factor: what is left below that is rounding
LOUDEST = {4: 2.0**-60, 8: 2.0**-900}  # at least, of a channel, by bytes a sample: far from subnormal numbers
LEAST = {4: 2.0**-120, 8: 2.0**-1000}  # smaller samples are kept as bits
MANTISSA = {4: 24, 8: 53}


def encode_segment(samples: Floats, effort: int) -> bytes:
    """Code float32 or float64 samples [T, C] by themselves, NaNs, infinities and negative zeros included. effort: 1 to 9."""
    stored = b"\0" + as_bits(samples).tobytes()
    split = [split_channel(samples[:, c]) for c in range(samples.shape[1])]
    integers = np.stack([one.integers for one in split], 1)
    bits = max(8, int(np.abs(integers).max(initial=0)).bit_length() + 1)
    coded = lossless_sound.encode_segment(integers.astype(np.int32), bits, effort)
    heads = b"".join(bytes([one.cut]) + np.array(one.factor, "<f8").tobytes() for one in split)
    odd = np.stack([one.odd for one in split], 1)
    out = bytes([bits]) + heads + write_varint(len(coded)) + coded
    kept = odd & (as_bits(samples) != as_bits(np.array(-0.0, samples.dtype)))
    out += write_plane(odd[integers == 0]) + write_plane(kept[odd]) + as_bits(samples[kept]).tobytes()
    widths, rest = (np.stack(part, 1) for part in ([one.widths for one in split], [one.rest for one in split]))
    for plane in range(int(widths.max(initial=0))):
        out += write_plane(rest[widths > plane] >> plane & 1)
    return out if len(out) < len(stored) else stored


def decode_segment(data: bytes | memoryview, n: int, channels: int, width: int) -> Floats:
    """The samples, float [n, channels] of `width` bits (32 or 64), that `encode_segment` was given. Raises BadFile on damage."""
    raw, size = bytes(data), width // 8
    kind = np.dtype(f"f{size}")
    expect(len(raw) > 0, BadFile, "segment", "nothing", "a segment")
    if raw[0] == 0:
        expected = n * channels * size
        expect(len(raw) == 1 + expected, BadFile, "stored samples", len(raw) - 1, f"{expected} bytes")
        return from_bits(raw[1:], kind).reshape(n, channels)
    bits, at = raw[0], 1 + 9 * channels
    expect(8 <= bits <= 32 and len(raw) > at, BadFile, "float segment", (bits, len(raw)), "8 to 32 bits, and factors")
    heads = np.frombuffer(raw[1:at], np.dtype([("cut", "u1"), ("factor", "<f8")]))
    length, at = read_varint(raw, at, "integers of a segment")
    integers = lossless_sound.decode_segment(raw[at : at + length], n, channels, bits).astype(np.int64)
    odd, at = read_plane(raw, at + length, integers == 0)
    kept, at = read_plane(raw, at, odd)
    end = at + size * int(kept.sum())
    expect(end <= len(raw), BadFile, "odd samples", len(raw) - at, f"{end - at} bytes")
    bits_kept, at = from_bits(raw[at:end], kind), end
    widths, rest = rest_widths(integers, heads["cut"] != 0, size), np.zeros_like(integers)
    for k in range(int(widths.max(initial=0))):
        plane, at = read_plane(raw, at, widths > k)
        rest |= plane.astype(np.int64) << k
    expect(at == len(raw), BadFile, "segment", f"{len(raw) - at} bytes more", "the end")
    with np.errstate(over="ignore"):  # where a factor is damaged
        out = joined(integers, heads["factor"], widths, rest).astype(kind)
    out[odd] = -0.0
    out[kept] = bits_kept
    return out


@dataclass(frozen=True)
class Split:
    """A channel as int64 [T] times a factor.

    odd: bool [T], the samples that do not come out of that; their integer is 0. cut: whether the factor is a power of two and
    integers are cut towards zero, `rest` being the `widths` bits of the mantissa that they lost (int64 [T], else all zero).
    """

    integers: Integers
    factor: float
    odd: NDArray[np.bool_]
    cut: bool
    widths: Integers
    rest: Integers


def split_channel(samples: Floats) -> Split:
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
    exponent = int(np.frexp(distinct[-1])[1])
    integers = np.trunc(np.ldexp(values, CUT_BITS - exponent)).astype(np.int64)
    widths = rest_widths(integers, True, size)
    whole = np.ldexp(np.abs(values), CUT_BITS - exponent + widths)
    rest = np.where(integers != 0, whole, 0).astype(np.int64) - (np.abs(integers) << widths)
    return split_by(samples, 2.0 ** (exponent - CUT_BITS), integers, widths, rest)


def split_by(
    samples: Floats, factor: float, integers: Integers, widths: Integers | None = None, rest: Integers | None = None
) -> Split:
    """With those samples odd that do not come out."""
    nothing = np.zeros(len(samples), np.int64)
    w, r = (nothing if widths is None else widths), (nothing if rest is None else rest)
    odd = as_bits(joined(integers, factor, w, r).astype(samples.dtype)) != as_bits(samples)
    integers = np.where(odd, 0, integers)
    return Split(integers, factor, odd, widths is not None, np.where(odd, 0, w), np.where(odd, 0, r))


def joined(integers: Integers, factors: Any, widths: Integers, rest: Integers) -> NDArray[np.float64]:
    """Samples of integers, the bits below them, and factors that go with the last axis."""
    with np.errstate(all="ignore"):  # a damaged factor may be anything
        sizes = np.ldexp(((np.abs(integers) << widths) | rest).astype(np.float64), -widths)
        out: NDArray[np.float64] = np.where(integers < 0, -sizes, sizes) * factors
    return out


def rest_widths(integers: Integers, cut: Any, size: int) -> Integers:
    """How many bits of the mantissa lie below an integer that was cut; cut: by last axis."""
    widths = MANTISSA[size] - np.frexp(np.abs(integers).astype(np.float64))[1]
    return np.where(cut & (integers != 0), np.maximum(widths, 0), 0).astype(np.int64)


def approximate_factor(distinct: NDArray[np.float64], size: int) -> float:
    """What the smallest of these rising values are multiples of; the first of them if there is nothing."""
    few = distinct[:SMALL]
    with np.errstate(all="ignore"):
        n = few[:, None] / few[0] * np.arange(1, MOST_FIRST + 1)
        fits = np.abs(n - np.rint(n)).max(0) < NEAR
    return refined(few, float(few[0] / (1 + fits.argmax())), size)


def refined(distinct: NDArray[np.float64], factor: float, size: int) -> float:
    """The factor in the middle of those that give all values by rounding."""
    half = np.spacing(distinct.astype(f"f{size}")).astype(np.float64) / 2
    with np.errstate(all="ignore"):  # where the factor is none
        n = np.maximum(1, np.rint(distinct / factor))
        return float((((distinct - half) / n).max() + ((distinct + half) / n).min()) / 2)


def power_of_two(distinct: NDArray[np.float64]) -> float:
    """The largest of which all values are multiples."""
    mantissa, exponent = np.frexp(distinct)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    return float(np.ldexp((whole & -whole).astype(np.float64), exponent - 53).min())


def as_bits(samples: Floats) -> NDArray[Any]:
    size = samples.dtype.itemsize
    return np.ascontiguousarray(samples, f"<f{size}").view(f"<u{size}")


def from_bits(raw: bytes, kind: np.dtype[Any]) -> Floats:
    return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind)


def write_plane(bits: NDArray[Any]) -> bytes:
    """Bits, the first the highest of its byte, after a byte 1; a byte 0 where all are 0."""
    return b"\1" + np.packbits(bits.astype(bool)).tobytes() if bits.any() else b"\0"


def read_plane(raw: bytes, at: int, there: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Bits of the places that are there, from a position, and the position after them."""
    n, out = int(there.sum()), np.zeros(there.shape, bool)
    expect(at < len(raw) and raw[at] < 2, BadFile, "bits of a segment", raw[at : at + 1], "a byte 0 or 1")
    end = at + 1 + (raw[at] * n + 7) // 8
    expect(end <= len(raw), BadFile, "bits of a segment", len(raw) - at, f"{end - at} bytes")
    if raw[at]:
        out[there] = np.unpackbits(np.frombuffer(raw[at + 1 : end], np.uint8), count=n)
    return out, end
