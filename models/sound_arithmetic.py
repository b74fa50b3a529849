"""Arithmetic that the predictors of lossless sound share, the same to the bit on every machine (FORMAT.md, "Sums").

Floats are exact to repeat only if every operation is IEEE's and the order of each sum is fixed. So sums go over vectors of
LANES partial sums whose order is written out (`dot`), nothing is fused or reordered, a prediction goes to a grid of 1/256,
and values that come near the subnormal range are set to 0 (`flush`): subnormals are slow, and some threads flush them, which
would change the bits.

`dot`, `add_scaled`, `fade` and `eliminate` are for kernels to inline. Positions are uint64, and so are counts, multiples of
LANES: nothing checks bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from laconic.entropy.rans_numba import U64

F64 = numba.float64
operation: Any = intrinsic  # for mypy, which counts the typing context among the arguments of a call
LANES = 8  # partial sums of a dot product; sizes of predictors are multiples of it
GRID = 256.0  # predictions are multiples of 1 / GRID
TINY = 1e-40  # smaller values become 0; products of two values that stay are still far from the subnormals of float64
LEAST_PIVOT = 1e-9  # an elimination with a smaller one gives no solution


class Solver(NamedTuple):
    """Room in which `solve` works, for matrices of up to n by n: allocated once, as kernels must not allocate.

    matrix: float64 [n * n]; vector: float64 [n]; inverse: float64 [n + LANES].
    """

    matrix: Any
    vector: Any
    inverse: Any

    @classmethod
    def of(cls, n: int) -> Solver:
        """Make room for matrices of n by n."""
        return cls(matrix=np.zeros(n * n), vector=np.zeros(n), inverse=np.zeros(n + LANES))


@numba.njit(cache=True, nogil=True)
def solve(matrix, vector, inverse, n):  # type: ignore[no-untyped-def]
    """Solve matrix w = vector for a symmetric matrix; w takes the vector's place (FORMAT.md, "solution").

    matrix: float64 [n * n], the upper triangle is read and overwritten; n a multiple of LANES. Returns False, and leaves no
    result, where the matrix is not positive definite, NaN included.

    Elimination goes by blocks of eight rows, so that a pass over the rest of the matrix does the work of eight. Vectors begin
    at multiples of eight, so blocks of eight by eight on the diagonal are written below it too; no result depends on those.
    """
    for first in range(U64(0), n, U64(LANES)):
        for i in range(first, first + U64(LANES)):
            for j in range(first, i):
                matrix[i * n + j] = 0.0
        for k in range(first, first + U64(LANES)):  # rows of the block take away the rows above them
            for i in range(first, k):
                g = -(matrix[i * n + k] * inverse[i])
                add_scaled(matrix, k * n + first, g, matrix, i * n + first, n - first)
            if not matrix[k * n + k] > LEAST_PIVOT:
                return False
            inverse[k] = 1.0 / matrix[k * n + k]
        for i in range(first + U64(LANES), n):  # each row below takes away all eight in one pass
            for k in range(U64(LANES)):
                inverse[n + k] = matrix[(first + k) * n + i] * inverse[first + k]
            block = i & ~U64(7)
            eliminate(matrix, i * n + block, inverse, n, first * n + block, n, n - block)
    substitute(matrix, vector, inverse, n)
    return True


@numba.njit(cache=True, nogil=True)
def substitute(matrix, vector, inverse, n):  # type: ignore[no-untyped-def]
    """Replace the vector by the solution, forward and backward through an eliminated matrix."""
    for k in range(n):
        g, block = -(vector[k] * inverse[k]), (k + U64(8)) & ~U64(7)
        for i in range(k + U64(1), block):
            vector[i] += g * matrix[k * n + i]
        add_scaled(vector, block, g, matrix, k * n + block, n - block)
    for later in range(n):
        k = n - U64(1) - later
        block = (k + U64(8)) & ~U64(7)
        g = vector[k] - dot(matrix, k * n + block, vector, block, n - block)
        for i in range(k + U64(1), block):
            g -= matrix[k * n + i] * vector[i]
        vector[k] = g * inverse[k]


@numba.njit(cache=True, nogil=True)
def flush(a, at, n):  # type: ignore[no-untyped-def]
    """Set those of n values to 0 whose size is at most TINY. Done every 256 samples, before fading makes them subnormal."""
    for i in range(at, at + n):
        a[i] = a[i] if abs(a[i]) > TINY else 0.0


@numba.njit(cache=True, nogil=True, inline="always")
def to_grid(p, limit):  # type: ignore[no-untyped-def]
    """Round a prediction to the grid, then clamp it to -limit .. limit - 1; NaN becomes the lower bound.

    The order of the arguments of max and min decides what NaN becomes.
    """
    p = np.floor(p * GRID + 0.5) * (1.0 / GRID)
    p = max(-limit, p)
    return min(limit - 1.0, p)


class Lanes:
    """Builds a loop over vectors of LANES values, for intrinsics whose sums keep their order on every machine."""

    def __init__(self, context: Any, builder: Any, signature: Any, n: Any) -> None:
        self.context, self.builder, self.signature, self.n = context, builder, signature, n
        self.index: Any = None

    def each(self, body: Callable[[], None]) -> None:
        with cgutils.for_range(self.builder, self.builder.udiv(self.n, self.n.type(LANES))) as loop:
            self.index = self.builder.mul(loop.index, self.n.type(LANES))
            body()

    def place(self, argument: int, array: Any, at: Any) -> Any:
        data = self.context.make_array(self.signature.args[argument])(self.context, self.builder, value=array).data
        return self.builder.gep(data, [at])

    def vector(self, place: Any) -> Any:
        """The vector at the loop's index beyond a place."""
        at = self.builder.gep(place, [self.index])
        return self.builder.bitcast(at, ir.VectorType(place.type.pointee, LANES).as_pointer())

    def load(self, place: Any) -> Any:
        return self.builder.load(self.vector(place), align=4)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.vector(place), align=4)

    def spread(self, value: Any) -> Any:
        one = self.builder.insert_element(ir.VectorType(value.type, LANES)(ir.Undefined), value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, one, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)


@operation
def dot(typing, a, at, b, bt, n):  # type: ignore[no-untyped-def]
    """Sum a[at + j] * b[bt + j] over n values: LANES sums in order of j, then their halves added until one is left."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = Lanes(context, builder, signature, arguments[4])
        x, y = lanes.place(0, *arguments[:2]), lanes.place(2, *arguments[2:4])
        sums = cgutils.alloca_once_value(builder, ir.VectorType(x.type.pointee, LANES)([0.0] * LANES))  # type: ignore[no-untyped-call]
        lanes.each(
            lambda: builder.store(lanes.plus(builder.load(sums), lanes.times(lanes.load(x), lanes.load(y))), sums)
        )
        total, width = builder.load(sums), LANES
        while width > 1:
            width //= 2
            kind = ir.VectorType(ir.IntType(32), width)
            low, high = (builder.shuffle_vector(total, total, kind(list(range(i, i + width)))) for i in (0, width))
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.IntType(32)(0))

    return a.dtype(a, U64, b, U64, U64), build


@operation
def add_scaled(typing, out, to, g, x, xt, n):  # type: ignore[no-untyped-def]
    """Do out[to + j] += g * x[xt + j] for n values."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = Lanes(context, builder, signature, arguments[5])
        y, x, g = lanes.place(0, *arguments[:2]), lanes.place(3, *arguments[3:5]), lanes.spread(arguments[2])
        lanes.each(lambda: lanes.store(lanes.plus(lanes.load(y), lanes.times(g, lanes.load(x))), y))
        return context.get_dummy_value()

    return numba.void(out, U64, out.dtype, x, U64, U64), build


@operation
def fade(typing, out, to, old, ot, keep, g, x, xt, n):  # type: ignore[no-untyped-def]
    """Do out[to + j] = keep * old[ot + j] + g * x[xt + j] for n values."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes = Lanes(context, builder, signature, arguments[8])
        y, z, x = lanes.place(0, *arguments[:2]), lanes.place(2, *arguments[2:4]), lanes.place(6, *arguments[6:8])
        keep, g = lanes.spread(arguments[4]), lanes.spread(arguments[5])
        lanes.each(lambda: lanes.store(lanes.plus(lanes.times(keep, lanes.load(z)), lanes.times(g, lanes.load(x))), y))
        return context.get_dummy_value()

    return numba.void(out, U64, old, U64, F64, F64, x, U64, U64), build


@operation
def eliminate(typing, m, to, g, gt, rows, stride, n):  # type: ignore[no-untyped-def]
    """Do m[to + j] -= g[gt + k] * m[rows + k * stride + j] for n values, for k = 0 to 7 in turn."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        m, to, g, gt, rows, stride, n = arguments
        lanes = Lanes(context, builder, signature, n)
        out, factors = lanes.place(0, m, to), lanes.place(2, g, gt)
        sources = [lanes.place(0, m, builder.add(rows, builder.mul(stride, n.type(k)))) for k in range(LANES)]
        scales = [lanes.spread(builder.load(builder.gep(factors, [n.type(k)]))) for k in range(LANES)]

        def body() -> None:
            value = lanes.load(out)
            for source, scale in zip(sources, scales, strict=True):
                value = builder.fsub(value, lanes.times(scale, lanes.load(source)))
            lanes.store(value, out)

        lanes.each(body)
        return context.get_dummy_value()

    return numba.void(m, U64, g, U64, U64, U64, U64), build
