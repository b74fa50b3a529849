"""Planes of a tile: what their numbers stand for, room around them, and where the neighbours of a sample lie.

Sections 2 to 4 of "Coded picture samples" in FORMAT.md. All planes of a tile stand in one array, one after the other,
and kernels see it flat: a sample has one place `at`, its upper neighbour is at `at - stride`, and the sample of the
plane before is at `at + before[0]`. There is room around each plane, so that no neighbour needs a test of whether it
exists.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.varint import read_varint, write_varint

Samples = NDArray[np.uint16]

PAD = 6  # samples around a plane: as far as the taps reach
LANES = 16  # room for the experts of a sample, of which there are fewer: loops over them become vectors
# Taps are the samples that a prediction is a weighted sum of, those that weigh most first, as dy,dx from the sample.
# b: in the plane before, c: in the one before that, of which samples to the right and below are known, too.
OWN = (
    "0,-1 -1,0 -1,-1 -1,1 0,-2 -2,0 -2,1 -2,-1 -1,-2 -1,2 0,-3 -3,0 -2,2 -2,-2 -1,3 -1,-3 -3,1 -3,-1 0,-4 -3,2 "
    "-3,-2 -2,3 -2,-3 -4,0 -3,3 -3,-3 -4,1 -4,-1 -1,4 -1,-4 -2,4 -2,-4 0,-5 -4,2 -4,-2 -5,0 -3,4 -3,-4 -1,5 -1,-5 "
    "-4,3 -4,-3 0,-6 -5,1 -5,-1 -6,0 -2,5 -2,-5"
)
ONE_BEFORE = (
    "b0,0 0,-1 -1,0 b0,-1 b-1,0 -1,-1 -1,1 b0,1 b1,0 0,-2 -2,0 b-1,-1 b-1,1 b1,1 b1,-1 -2,1 -2,-1 -1,-2 -1,2 0,-3 "
    "-3,0 -2,2 -2,-2 -1,3 b0,2 b2,0 b0,-2 b-2,0 -1,-3 -3,1 -3,-1 -2,3 -2,-3 b-1,2 b-2,1 b1,2 b2,1 b-2,-1 b-1,-2 "
    "b1,-2 b2,-1 0,-4 -4,0 -3,2 -3,-2 b0,3 b2,2 b-3,0"
)
TWO_BEFORE = (
    "b0,0 0,-1 -1,0 b0,-1 b-1,0 c0,0 -1,-1 -1,1 b0,1 b1,0 c0,-1 c-1,0 0,-2 -2,0 b-1,-1 b-1,1 c0,1 c1,0 -2,1 -2,-1 "
    "-1,-2 -1,2 0,-3 c-1,1 c-1,-1 c1,1 c1,-1 -3,0 b0,2 b2,0 b0,-2 b-2,0 -2,2 -2,-2 -1,3 -1,-3 c0,2 c2,0 c0,-2 "
    "c-2,0 b-1,2 b-2,1 b1,2 b2,1 b-2,-1 b-1,-2 b1,-2 b2,-1"
)
TAPS = (OWN, ONE_BEFORE, TWO_BEFORE)  # by how many planes come before


@dataclass(frozen=True)
class Values:
    """Says what the numbers of a plane stand for: low + number, or levels[number] where few values occur, or plane `same`.

    On disk (section 2): 0, low and high (2 bytes each, low byte first); or 1, varints of the count and of the length,
    then, deflated, varints of the first level and of each step to the next; or 2 and the place of an earlier plane.
    """

    low: int
    high: int
    levels: NDArray[np.uint16] | None = None
    same: int = -1

    @classmethod
    def of(cls, plane: Samples, before: list[Samples], max_error: int) -> Values:
        """Choose what numbers stand for, given the planes before this one and the error that samples may have."""
        low, high = int(plane.min()), int(plane.max())
        if high - low <= 2 * max_error:
            return cls((low + high) // 2, (low + high) // 2)
        for c, other in enumerate(before):
            if np.array_equal(other, plane):
                return cls(low, high, same=c)
        levels = np.unique(plane) if max_error == 0 else np.empty(0, np.uint16)
        few = max_error == 0 and sparse(len(levels), high - low + 1, plane.size)
        return cls(low, high, levels if few else None)

    def top(self) -> int:
        """Return the largest number."""
        return self.high - self.low if self.levels is None else len(self.levels) - 1

    def index(self, plane: Samples) -> NDArray[Any]:
        """Return the numbers of samples, 0 to `top`."""
        if self.levels is not None:
            return np.searchsorted(self.levels, plane)
        return np.clip(plane, self.low, self.high).astype(np.int32) - self.low

    def sample(self, index: NDArray[np.int32]) -> Samples:
        """Return the samples that numbers stand for."""
        return self.levels[index] if self.levels is not None else (index + self.low).astype(np.uint16)

    def pack(self) -> bytes:
        """Return the plane's head."""
        if self.same >= 0:
            return bytes([2, self.same])
        if self.levels is None:
            return b"\0" + self.low.to_bytes(2, "little") + self.high.to_bytes(2, "little")
        steps = zlib.compress(b"".join(write_varint(int(v)) for v in np.diff(self.levels, prepend=np.uint16(0))), 9)
        return b"\1" + write_varint(len(self.levels)) + write_varint(len(steps)) + steps

    @classmethod
    def unpack(cls, raw: bytes, position: int, bits: int, before: list[Values]) -> tuple[Values, int]:
        """Read the head of one plane. Returns it, and the position after it. Raises BadFile."""
        kind = raw[position] if position < len(raw) else 255
        expect(kind <= 2, BadFile, "kind of a plane", kind, "0 to 2")
        position += 1
        if kind == 1:
            return cls.unpack_levels(raw, position, bits)
        field = raw[position : position + (4 if kind == 0 else 1)]
        expect(len(field) == (4 if kind == 0 else 1), BadFile, "plane head", len(field), "4 bytes, or 1")
        if kind == 2:
            expect(field[0] < len(before), BadFile, "same plane", field[0], f"below {len(before)}")
            return cls(before[field[0]].low, before[field[0]].high, before[field[0]].levels, field[0]), position + 1
        low, high = int.from_bytes(field[:2], "little"), int.from_bytes(field[2:], "little")
        expect(low <= high < 1 << bits, BadFile, "range of a plane", (low, high), f"rising, below 2**{bits}")
        return cls(low, high), position + 4

    @classmethod
    def unpack_levels(cls, raw: bytes, position: int, bits: int) -> tuple[Values, int]:
        """Read a list of levels. Returns it, and the position after it. Raises BadFile."""
        n, position = read_varint(raw, position, "levels")
        size, position = read_varint(raw, position, "levels")
        fits = 2 <= n <= 1 << bits and position + size <= len(raw)
        expect(fits, BadFile, "levels", n, f"2 to 2**{bits}, in the tile")
        try:
            # A varint below 2**16 has 3 bytes at most: more are not inflated, however many there are.
            steps = zlib.decompressobj().decompress(raw[position : position + size], 3 * n)
        except zlib.error as error:
            raise BadFile(f"levels: found {error}, expected deflated bytes") from error
        levels, at = list[int](), 0
        for _ in range(n):
            step, at = read_varint(steps, at, "level")
            levels.append(step + (levels[-1] if levels else 0))
        rising = levels == sorted(set(levels)) and levels[-1] < 1 << bits
        expect(rising and at == len(steps), BadFile, "levels", levels[-1], f"rising, below 2**{bits}")
        return cls(levels[0], levels[-1], np.array(levels, np.uint16)), position + size


def sparse(levels: int, span: int, n: int) -> bool:
    """Say whether n samples would hardly take so few of a span of values by chance."""
    return (8 * levels <= 7 * span and 32 * levels <= n) or (4 * levels <= span and 4 * levels <= n)


@dataclass(frozen=True)
class Canvas:
    """Holds the planes of a tile with room around them, [C, PAD + h + 2, PAD + w + PAD], and what else is known of samples.

    errors: of prediction 0, in 1/256 of a sample. hits: was the first guess right (`repeats.py`)? evidence: what the
    planes so far say of the choice of an expert, of 2**16, LANES numbers for each pixel; none where there is one plane.
    Rows above are zero. The room on the left holds the sample above, on the right the last one of the row, below the
    last row (section 3): two rows of it, for planes after this one look down.
    """

    planes: NDArray[np.int32]
    errors: NDArray[np.int32]
    hits: NDArray[np.uint8]
    evidence: NDArray[np.uint16]
    h: int
    w: int

    @classmethod
    def of(cls, h: int, w: int, channels: int) -> Canvas:
        """Return an empty canvas."""
        shape = (channels, h + PAD + 2, w + 2 * PAD)
        return cls(
            planes=np.zeros(shape, np.int32),
            errors=np.zeros(shape, np.int32),
            hits=np.zeros(shape, np.uint8),
            evidence=np.ones(shape[1] * shape[2] * LANES if channels > 1 else 0, np.uint16),
            h=h,
            w=w,
        )

    def plane(self, c: int) -> NDArray[np.int32]:
        """Return plane c without the room around it, [h, w], to be read or written."""
        return self.planes[c, PAD : PAD + self.h, PAD : PAD + self.w]

    def put(self, c: int, index: NDArray[Any]) -> None:
        """Set plane c, for an encoder."""
        self.plane(c)[:] = index

    def fill(self, c: int, index: NDArray[Any]) -> None:
        """Set plane c, which is not coded, with its surroundings, for the planes after it."""
        self.planes[c, PAD:] = np.pad(index, ((0, 2), (PAD, PAD)), mode="edge")

    def end(self, c: int) -> None:
        """Fill the room below plane c, which is coded."""
        self.planes[c, PAD + self.h :] = self.planes[c, PAD + self.h - 1]
        self.errors[c, PAD + self.h :] = self.errors[c, PAD + self.h - 1]


class Plane(NamedTuple):
    """Holds one plane as kernels see it, and what it is predicted from."""

    samples: NDArray[np.int32]  # all planes, flat, as errors
    errors: NDArray[np.int32]
    start: int  # place of the plane's first element, in the room above it
    origin: int  # place of its first sample
    stride: int  # from one row to the next
    width: int
    top: int  # largest sample
    max_error: int
    unit: float  # a power of two that brings samples to the size of 8 bits
    taps: NDArray[np.int64]  # places, from the sample's
    bases: NDArray[np.int64]  # a tap's plane: 0 this one, 1 and 2 those before
    before: NDArray[np.int64]  # places of the planes before, from this one's: none, one or two


def new_plane(canvas: Canvas, c: int, top: int, max_error: int) -> Plane:
    """Return plane c of a canvas, whose samples are 0 to `top`."""
    size, stride = canvas.planes[0].size, canvas.planes.shape[2]
    before = np.array([-size * (i + 1) for i in range(min(c, 2))], np.int64)
    taps, bases = list[int](), list[int]()
    for tap in TAPS[len(before)].split():
        base = " bc".index(tap[0]) if tap[0] in "bc" else 0
        dy, dx = (int(v) for v in tap.lstrip("bc").split(","))
        taps.append(dy * stride + dx - base * size)
        bases.append(base)
    return Plane(
        samples=canvas.planes.reshape(-1),
        errors=canvas.errors.reshape(-1),
        start=c * size,
        origin=c * size + PAD * stride + PAD,
        stride=stride,
        width=canvas.w,
        top=top,
        max_error=max_error,
        unit=2.0 ** -max(0, top.bit_length() - 8),
        taps=np.array(taps, np.int64),
        bases=np.array(bases, np.int64),
        before=before,
    )
