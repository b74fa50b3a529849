"""Tables: quantised PMFs with their CDFs, one per row (FORMAT.md, "Symbols").

They are data, not formulas: no row is computed when a file is read, so no machine can compute another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.entropy.pmf import PRECISION, TOTAL, floats, quantise

N_SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 64.0  # log-spaced in between; larger scales use the last row
MAX_OFFSET = 1 << 30  # the farthest from 0 that a row's first symbol may be
MAX_LUT = 1 << 24  # intervals in an encoder's table: 64 MB, and 192 MB in what is made from them
ESCAPE_BIT = 1 << 31
GROUP = 32  # symbols per flag: kernels say of so many at a time whether an escape is among them
BIN_BITS = 9  # a decoder's search starts at one of 2**9 bins of 64 slots each


@dataclass(frozen=True)
class EncodeLut:
    """Holds an interval for each row and symbol, so that kernels need one load to find it.

    intervals: uint32 [rows, symbols from `low` on]: start | (frequency - 1) << 15, and bit 31 for the escape.
    low, high: both lie outside of every row. Symbols are clamped to low..high first, so those outside find the escape.
    """

    intervals: NDArray[np.uint32]
    low: int
    high: int

    @cached_property
    def pairs(self) -> NDArray[np.uint64]:
        """The intervals, and (1 - 2**-20) / frequency as float32 in the high halves, for vector kernels."""
        frequencies = ((self.intervals >> PRECISION & (TOTAL - 1)) + 1).astype(np.float32)
        inverses = np.float32(1 - 2.0**-20) / frequencies
        return self.intervals | inverses.view(np.uint32).astype(np.uint64) << np.uint64(32)

    @cached_property
    def bits(self) -> NDArray[np.float32]:
        """The codelength of each interval, flat."""
        return codelengths((self.intervals.ravel() >> PRECISION & (TOTAL - 1)) + 1)


@dataclass(frozen=True)
class Tables:
    """Holds rows of integer PMFs. The last entry of a row is the escape, for symbols outside the row.

    cdf: uint32 [rows, width + 1], strictly increasing from 0 to 2**15 over the first sizes + 1 entries, then 2**15.
    offsets: int32 [rows], the first symbol of each row. sizes: int32 [rows], entries with the escape, 1 to width.
    Raises BadInput if that does not hold.
    """

    cdf: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    sizes: NDArray[np.int32]
    bins: NDArray[np.uint16] = field(init=False, repr=False)  # [rows, 512]: the entry that holds a bin's first slot
    bits: NDArray[np.float32] = field(init=False, repr=False)  # [rows, width]: codelength of an entry

    def __post_init__(self) -> None:
        for name, dtype, n_dims in (("cdf", np.uint32, 2), ("offsets", np.int32, 1), ("sizes", np.int32, 1)):
            low = -MAX_OFFSET if name == "offsets" else 0
            values = checked(getattr(self, name), name, low, MAX_OFFSET + 1, n_dims)
            object.__setattr__(self, name, np.ascontiguousarray(values, dtype))  # kernels read it by its address
        rows, width = self.cdf.shape[0], self.cdf.shape[1] - 1
        expect(1 <= rows <= 1 << 16, BadInput, "rows", rows, "1 to 65536")
        expect(self.offsets.shape == self.sizes.shape == (rows,), BadInput, "offsets", self.offsets.shape, f"({rows},)")
        bins = np.empty((rows, 1 << BIN_BITS), np.uint16)
        firsts = np.arange(1 << BIN_BITS) * (TOTAL >> BIN_BITS)
        for row, (cdf, size) in enumerate(zip(self.cdf.astype(np.int64), self.sizes.tolist(), strict=True)):
            ok = 1 <= size <= width and cdf[0] == 0 and bool((np.diff(cdf[: size + 1]) > 0).all())
            expect(ok and bool((cdf[size:] == TOTAL).all()), BadInput, f"row {row}", cdf[:8].tolist(), "a rising CDF")
            bins[row] = np.searchsorted(cdf[1 : size + 1], firsts, side="right")
        object.__setattr__(self, "bins", bins)
        masses = np.maximum(np.diff(self.cdf.astype(np.int64)), 1)  # 0 beyond a row's end, where no entry points
        object.__setattr__(self, "bits", codelengths(masses))

    @classmethod
    def from_pmf(cls, pmfs: Sequence[ArrayLike], offsets: ArrayLike, escape: float = 2.0**-20) -> Tables:
        """Quantise float PMFs, one per row, at the least added codelength.

        pmfs: float [n] each, n <= 2**15 - 1. What a row lacks to a sum of 1, but at least `escape`, goes to the escape.
        offsets: the first symbol of each row, integers [rows]. Raises BadInput.
        """
        masses = list[NDArray[np.int64]]()
        for pmf in pmfs:
            p = floats(pmf, f"pmf of row {len(masses)}")
            masses.append(quantise(np.append(p, max(1 - float(p.sum()), escape))))
        return cls.from_masses(masses, offsets)

    @classmethod
    def from_masses(cls, masses: Sequence[ArrayLike], offsets: ArrayLike) -> Tables:
        """Take integer masses [n] per row, whose sum is 2**15, the escape's last.

        offsets: the first symbol of each row. Raises BadInput.
        """
        expect(len(masses) > 0, BadInput, "rows", 0, "1 to 65536")
        arrays = [checked(m, f"masses of row {row}", 0, TOTAL + 1).astype(np.int64) for row, m in enumerate(masses)]
        cdf = np.full((len(arrays), max(len(m) for m in arrays) + 1), TOTAL, np.uint32)
        for row, m in enumerate(arrays):
            cdf[row, 0] = 0
            cdf[row, 1 : len(m) + 1] = np.cumsum(m)
        sizes = np.array([len(m) for m in arrays], np.int32)
        return cls(cdf, checked(offsets, "offsets", -MAX_OFFSET, MAX_OFFSET + 1), sizes)

    def entries(self, symbols: NDArray[Any], indices: NDArray[Any]) -> NDArray[np.int32]:
        """Return the entry of each symbol in its row; for a symbol outside of it, the escape."""
        entry: NDArray[np.int32] = symbols - self.offsets[indices]
        last = self.sizes[indices] - 1
        return np.where((entry < 0) | (entry >= last), last, entry)

    def escapes(
        self, symbols: NDArray[Any], indices: NDArray[Any], flags: NDArray[Any] | None = None
    ) -> NDArray[np.int64]:
        """Return the positions of the symbols outside their rows.

        flags: for each GROUP of symbols, whether to look there.
        """
        places, symbols, rows = flagged(flags, symbols, indices)
        beyond = symbols - self.offsets.take(rows)
        return places[(beyond < 0) | (beyond >= self.sizes.take(rows) - 1)]

    def escaped(
        self, symbols: NDArray[Any], indices: NDArray[Any], flags: NDArray[Any] | None = None
    ) -> NDArray[np.int64]:
        """Return the positions of decoded symbols that are the last entry of their row. flags: as in `escapes`."""
        places, symbols, rows = flagged(flags, symbols, indices)
        last: NDArray[np.bool_] = symbols - self.offsets.take(rows) == self.sizes.take(rows) - 1
        return places[last]

    @cached_property
    def encode_lut(self) -> EncodeLut | None:
        """An interval per symbol and row, for kernels; None if rows so far apart would make it too large."""
        low, high = int(self.offsets.min()) - 1, int((self.offsets + self.sizes).max())
        stride = (high - low) // 16 * 16 + 16
        stride += 16 * (stride % 32 == 0)  # rows a power of two apart would compete for the same places in a cache
        if stride * len(self.sizes) > MAX_LUT:
            return None
        first, last = self.cdf[:, :-1].astype(np.int64), self.cdf[:, 1:].astype(np.int64)
        intervals = np.empty((len(self.sizes), stride), np.uint32)
        for row, (offset, size) in enumerate(zip(self.offsets.tolist(), self.sizes.tolist(), strict=True)):
            start, freq = first[row, :size], (last - first)[row, :size]
            codes = start | (freq - 1) << PRECISION
            intervals[row] = codes[-1] | ESCAPE_BIT
            intervals[row, offset - low : offset - low + size - 1] = codes[:-1]
        return EncodeLut(intervals, low, high)

    @cached_property
    def decode_lut(self) -> NDArray[np.uint64] | None:
        """What kernels know of each bin, uint64 [rows, 512]; None if a row reaches beyond int16.

        Bits 0 to 15 are the start of a (as `bin_pairs` names it), 16 to 31 the start of b, 32 to 46 the last slot of b,
        47 whether b is the escape, and 48 to 63 the symbol of b.
        """
        if int((self.offsets + self.sizes).max()) > 1 << 15 or int(self.offsets.min()) < -(1 << 15):
            return None
        start, boundary, last, b = self.bin_pairs()
        escape = b == self.sizes[:, None] - 1
        fields = start, boundary, last, escape, (self.offsets[:, None] + b) & 0xFFFF
        parts = [f.astype(np.uint64) << np.uint64(s) for f, s in zip(fields, (0, 16, 32, 47, 48), strict=True)]
        lut: NDArray[np.uint64] = np.bitwise_or.reduce(parts)
        return lut

    def bin_pairs(self) -> tuple[NDArray[np.int64], ...]:
        """Find the first two entries, a and b, in each bin; where a fills the bin, b is a.

        Returns the start of a, the start of b, the last slot of b, and b itself, int64 [rows, 512] each.
        """
        row, cdf, a = np.arange(len(self.sizes))[:, None], self.cdf.astype(np.int64), self.bins.astype(np.int64)
        ends = np.arange(1, (1 << BIN_BITS) + 1) << (PRECISION - BIN_BITS)
        b = np.where(cdf[row, a + 1] >= ends, a, a + 1)
        return cdf[row, a], cdf[row, b], cdf[row, b + 1] - 1, b

    def codelength(self, symbols: ArrayLike, indices: ArrayLike) -> float:
        """Return the ideal bits of the symbols under these tables, without the escaped values themselves.

        Raises BadInput.
        """
        values = checked(symbols, "symbols", -(1 << 31), 1 << 31, None)
        rows = checked(indices, "indices", 0, len(self.sizes), None)
        expect(values.shape == rows.shape, BadInput, "indices", rows.shape, f"{values.shape}, one per symbol")
        return float(self.costs(values, rows).sum(dtype=np.float64))

    def costs(self, symbols: NDArray[Any], indices: NDArray[Any]) -> NDArray[np.float32]:
        """Return the ideal bits of each symbol, in the symbols' shape."""
        lut, bits = self.encode_lut, self.bits
        if lut is None:
            places = indices.astype(np.intp) * bits.shape[1] + self.entries(symbols, indices)
        else:
            bits = lut.bits
            clamped = np.clip(symbols.astype(np.int64), lut.low, lut.high)  # low may not fit the symbols' dtype
            places = indices.astype(np.intp) * lut.intervals.shape[1] + (clamped - lut.low)
        costs: NDArray[np.float32] = bits.take(places)
        return costs


@lru_cache(maxsize=1)
def gaussian_tables() -> Tables:
    """Return the 64 rows of zero-mean Gaussians, scales 0.11 to 64 log-spaced, where k has the bin [k - 0.5, k + 0.5].

    They are stored in the package as integers, since the erf of four libraries gave four different tables.
    """
    masses = np.load(str(files("laconic.entropy") / "gaussian.npz"))
    flat, sizes = masses["masses"].astype(np.int64), masses["sizes"]
    rows = np.split(flat, np.cumsum(sizes)[:-1])
    return Tables.from_masses(rows, [-(len(row) // 2 - (len(row) + 1) % 2) for row in rows])


def checked(values: ArrayLike, field: str, low: int, high: int, n_dims: int | None = 1) -> NDArray[Any]:
    """Return integers in low..high - 1 as a contiguous array. n_dims: None allows any. Raises BadInput."""
    return ranged(integers(values, field, n_dims), field, low, high)


def integers(values: ArrayLike, field: str, n_dims: int | None = 1) -> NDArray[Any]:
    """Return integers of any dtype as a contiguous array. Raises BadInput."""
    shape = "" if n_dims is None else f" [{', '.join('NM'[:n_dims])}]"
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # rows of several lengths, or a tensor on another device
        raise BadInput(f"{field}: found {type(values).__name__} ({error}), expected integers{shape}") from None
    if array.size == 0 and not isinstance(values, np.ndarray):  # numpy takes [] for floats
        array = array.astype(np.int64)
    right = n_dims in (None, array.ndim) and array.dtype.kind in "iu"
    expect(right, BadInput, field, (array.dtype, array.shape), f"integers{shape}")
    return np.ascontiguousarray(array)


def ranged(array: NDArray[Any], field: str, low: int, high: int) -> NDArray[Any]:
    """Return the array itself if all of it is in low..high - 1. Raises BadInput."""
    if array.size and not (array.dtype == np.int16 and (low, high) == (-(1 << 15), 1 << 15)):
        least, most = 0 if low == 0 and array.dtype.kind == "u" else int(array.min()), int(array.max())
        expect(low <= least and most < high, BadInput, field, (least, most), f"{low} to {high - 1}")
    return array


def codelengths(masses: NDArray[Any]) -> NDArray[np.float32]:
    """Return the ideal bits of integer masses of 2**15."""
    bits: NDArray[np.float32] = (PRECISION - np.log2(masses)).astype(np.float32)
    return bits


def flagged(
    flags: NDArray[Any] | None, symbols: NDArray[Any], indices: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Return the positions in groups that have a flag, or all positions, with the symbols and rows there."""
    if flags is None:
        return np.arange(len(symbols)), symbols, indices
    if not flags.any():
        return np.zeros(0, np.int64), symbols[:0], indices[:0]
    places = (GROUP * np.flatnonzero(flags)[:, None] + np.arange(GROUP)).ravel()
    places = places[places < len(symbols)]
    return places, symbols.take(places), indices.take(places)


def digest(tables: Tables) -> str:
    """Return the SHA-256 of everything in the tables that decides bits."""
    parts = (tables.cdf.astype("<u4"), tables.offsets.astype("<i4"), tables.sizes.astype("<i4"))
    return hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()


def build_gaussian() -> list[NDArray[np.int64]]:
    """Compute the masses of `gaussian_tables` by an exact procedure: decimal arithmetic of 50 digits, ties by index."""
    with localcontext() as context:
        context.prec = 50
        smallest, largest = Decimal(str(SCALE_MIN)), Decimal(str(SCALE_MAX))
        ratio = (largest / smallest).ln() / (N_SCALES - 1)
        scales = [smallest * (ratio * i).exp() for i in range(N_SCALES)]
        return [gaussian_row(scale) for scale in scales]


def gaussian_row(scale: Decimal) -> NDArray[np.int64]:
    """Compute the masses of -m..m and the escape, m = ceil(4 scale) + 1.

    They are symmetric but for the last rounding.
    """
    m = int((4 * scale).to_integral_value(rounding="ROUND_CEILING")) + 1
    cumulative = [normal_cdf((Decimal(k) + Decimal("0.5")) / scale) for k in range(m + 1)]
    half = [2 * cumulative[0] - 1] + [b - a for a, b in pairwise(cumulative)]
    side = [float(max(p, Decimal(10) ** -30)) for p in half]
    escape = max(float(2 * (1 - cumulative[-1])), 2.0**-20)
    return quantise([*side[:0:-1], *side, escape])


def normal_cdf(x: Decimal) -> Decimal:
    """Compute Phi(x) for x >= 0 to 50 digits, by a series that converges everywhere.

    Marsaglia, "Evaluating the normal distribution", Journal of Statistical Software 11 (4), 2004.
    """
    term = total = x
    n = 1
    while term > Decimal(10) ** -45:
        term = term * x * x / (2 * n + 1)
        total += term
        n += 1
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021")
    return Decimal("0.5") + total * (-x * x / 2).exp() / two_pi.sqrt()
