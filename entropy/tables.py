"""Tables: quantised PMFs with their CDFs, one a row. Data, not formulas: no row is ever computed when a file is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadInput, expect
from laconic.entropy.pmf import PRECISION, TOTAL, quantise

N_SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 64.0  # log-spaced in between; larger scales use the last row
BIN_BITS = 9  # coarse bins of a slot, where a decoder's search starts


@dataclass(frozen=True)
class Tables:
    """Rows of integer PMFs. The last entry of a row is the escape, for symbols outside the row.

    cdf: uint32 [rows, width + 1], strictly increasing from 0 to 2**15 over the first sizes + 1 entries, then 2**15.
    offsets: int32 [rows], the first symbol of each row. sizes: int32 [rows], entries with the escape, 1 to width.
    Raises BadInput where that does not hold.
    """

    cdf: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    sizes: NDArray[np.int32]
    bins: NDArray[np.uint16] = field(init=False, repr=False)  # [rows, 512]: the entry that holds a bin's first slot
    bits: NDArray[np.float32] = field(init=False, repr=False)  # [rows, width]: codelength of an entry

    def __post_init__(self) -> None:
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
        object.__setattr__(self, "bits", (PRECISION - np.log2(masses)).astype(np.float32))

    @classmethod
    def from_pmf(cls, pmfs: Sequence[ArrayLike], offsets: ArrayLike, escape: float = 2.0**-20) -> Tables:
        """Quantise one float PMF a row, with the least added codelength.

        pmfs: float [n] each, n <= 2**15 - 1; what is missing to a sum of 1, at least `escape`, goes to the escape.
        offsets: the first symbol of each row.
        """
        masses = []
        for pmf in pmfs:
            p = np.asarray(pmf, np.float64)
            masses.append(quantise(np.append(p, max(1 - float(p.sum()), escape))))
        return cls.from_masses(masses, offsets)

    @classmethod
    def from_masses(cls, masses: Sequence[ArrayLike], offsets: ArrayLike) -> Tables:
        """Integer masses [n] a row, the escape last, sum 2**15."""
        arrays = [np.asarray(m, np.int64) for m in masses]
        cdf = np.full((len(arrays), max(len(m) for m in arrays) + 1), TOTAL, np.uint32)
        for row, m in enumerate(arrays):
            cdf[row, 0] = 0
            cdf[row, 1 : len(m) + 1] = np.cumsum(m)
        sizes = np.array([len(m) for m in arrays], np.int32)
        return cls(cdf, np.asarray(offsets, np.int32), sizes)

    def entries(self, symbols: NDArray[np.int32], indices: NDArray[np.int32]) -> NDArray[np.int32]:
        """The entry of each symbol in its row; the escape where it lies outside."""
        entry = symbols - self.offsets[indices]
        last = self.sizes[indices] - 1
        return np.where((entry < 0) | (entry >= last), last, entry)

    def codelength(self, symbols: ArrayLike, indices: ArrayLike) -> float:
        """Ideal bits of the symbols under these tables, the escapes' own values left out."""
        rows = np.asarray(indices, np.int32)
        return self.cost(self.entries(np.asarray(symbols, np.int32), rows), rows)

    def cost(self, entries: NDArray[np.int32], indices: NDArray[np.int32]) -> float:
        """Ideal bits of entries of rows."""
        return float(self.bits[indices, entries].sum(dtype=np.float64))


@lru_cache(maxsize=1)
def gaussian_tables() -> Tables:
    """64 zero-mean Gaussian rows, scales 0.11 to 64 log-spaced, the bin of k being [k - 0.5, k + 0.5].

    Stored as integers in the package: four libraries' erf gave four different tables.
    """
    masses = np.load(str(files("laconic.entropy") / "gaussian.npz"))
    flat, sizes = masses["masses"].astype(np.int64), masses["sizes"]
    rows = np.split(flat, np.cumsum(sizes)[:-1])
    return Tables.from_masses(rows, [-(len(row) // 2 - (len(row) + 1) % 2) for row in rows])


def digest(tables: Tables) -> str:
    """SHA-256 of everything that decides bits."""
    parts = (tables.cdf.astype("<u4"), tables.offsets.astype("<i4"), tables.sizes.astype("<i4"))
    return hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()


def build_gaussian() -> list[NDArray[np.int64]]:
    """The masses of `gaussian_tables`, by an exact procedure: decimal arithmetic with 50 digits, ties by index."""
    with localcontext() as context:
        context.prec = 50
        ratio = (Decimal(64) / Decimal("0.11")).ln() / (N_SCALES - 1)
        scales = [Decimal("0.11") * (ratio * i).exp() for i in range(N_SCALES)]
        return [gaussian_row(scale) for scale in scales]


def gaussian_row(scale: Decimal) -> NDArray[np.int64]:
    """Masses of -m..m and the escape, m = ceil(4 scale) + 1. Symmetric up to the last step of the quantiser."""
    m = int((4 * scale).to_integral_value(rounding="ROUND_CEILING")) + 1
    cumulative = [normal_cdf((Decimal(k) + Decimal("0.5")) / scale) for k in range(m + 1)]
    half = [2 * cumulative[0] - 1] + [b - a for a, b in pairwise(cumulative)]
    side = [float(max(p, Decimal(10) ** -30)) for p in half]
    escape = max(float(2 * (1 - cumulative[-1])), 2.0**-20)
    return quantise([*side[:0:-1], *side, escape])


def normal_cdf(x: Decimal) -> Decimal:
    """Phi(x) for x >= 0 by its everywhere convergent series, 50 digits."""
    term = total = x
    n = 1
    while term > Decimal(10) ** -45:
        term = term * x * x / (2 * n + 1)
        total += term
        n += 1
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021")
    return Decimal("0.5") + total * (-x * x / 2).exp() / two_pi.sqrt()
