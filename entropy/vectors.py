"""Vectors for kernels: eight floats or sixteen short integers at a time, in an order that is part of a format.

numba leaves a loop that sums floats as it stands, one addition after the other, because another order would give other
bits. The functions here choose an order that suits vectors, and keep it: which lane adds what is written out in LLVM,
so that every machine computes the same bits, however wide its registers are. Nothing is fused or reassociated.

    add_rows, sum_rows, subtract_rows     rows of matrices: least squares
    dot, add_scaled, fade                 filters
    means_at_most, step_towards           rows of 16 lower bounds: adaptive models

Each is for kernels to call, compiled in place, and has its plain form beside it, `*_reference`, which gives the same
bits and says what it does. All places and counts are uint64. `Vectors` is what they are built with. Where numba is
asked to check bounds (NUMBA_BOUNDSCHECK=1), these functions check theirs too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, config
from numba.extending import intrinsic
from numpy.typing import NDArray

EIGHT, SIXTEEN = 8, 16  # lanes of a vector of floats, of uint16
U16, U64, F64 = numba.uint16, numba.uint64, numba.float64
Floats = NDArray[np.floating[Any]]
operation: Any = intrinsic  # untyped for mypy, which would count the typing context among the arguments of a call


@operation
def add_rows(typing, array, at, factors, first, count, source, begin):  # type: ignore[no-untyped-def]
    """Add multiples of one row of eight to `count` rows: see `add_rows_reference`.

    The source must not be among the rows.
    """

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, EIGHT)
        _, at, _, first, count, _, begin = arguments
        rows, scales = v.address(0, at, v.times(count, EIGHT)), v.address(2, first, count)
        row = v.load(v.address(5, begin, EIGHT))
        with cgutils.for_range(builder, count) as loop:
            scale = v.spread(builder.load(v.after(scales, loop.index)))
            place = v.after(rows, v.times(loop.index, EIGHT))
            v.store(builder.fadd(v.load(place), builder.fmul(scale, row)), place)
        return context.get_dummy_value()

    return numba.void(array, U64, factors, U64, U64, source, U64), build


def add_rows_reference(
    array: Floats, at: int, factors: Floats, first: int, count: int, source: Floats, begin: int
) -> None:
    """Add factors[first + i] times the eight values from source[begin] to those from array[at + 8 i], i below count."""
    for i in range(count):
        for c in range(EIGHT):
            array[at + EIGHT * i + c] += factors[first + i] * source[begin + c]


@operation
def sum_rows(typing, out, begin, factors, count, array, at):  # type: ignore[no-untyped-def]
    """Sum multiples of `count` rows of eight: see `sum_rows_reference`. count: even."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, EIGHT)
        _, begin, _, count, _, at = arguments
        scales, rows = v.address(2, count.type(0), count), v.address(4, at, v.times(count, EIGHT))
        place = v.address(0, begin, EIGHT)
        sums = [v.zeros(place) for _ in range(2)]
        with cgutils.for_range(builder, builder.lshr(count, count.type(1))) as loop:
            for odd in range(2):
                i = builder.add(v.times(loop.index, 2), loop.index.type(odd))
                row = v.load(v.after(rows, v.times(i, EIGHT)))
                term = builder.fmul(v.spread(builder.load(v.after(scales, i))), row)
                builder.store(builder.fadd(builder.load(sums[odd]), term), sums[odd])
        v.store(builder.fadd(builder.load(sums[0]), builder.load(sums[1])), place)
        return context.get_dummy_value()

    return numba.void(out, U64, factors, U64, array, U64), build


def sum_rows_reference(out: Floats, begin: int, factors: Floats, count: int, array: Floats, at: int) -> None:
    """Set out[begin + c], c below 8, to the sum of factors[i] * array[at + 8 i + c] for i below count.

    The terms of even i are summed for themselves, those of odd i too; then both sums are added.
    """
    for c in range(EIGHT):
        sums = [out.dtype.type(0), out.dtype.type(0)]
        for i in range(count):
            sums[i % 2] += factors[i] * array[at + EIGHT * i + c]
        out[begin + c] = sums[0] + sums[1]


@operation
def subtract_rows(typing, array, to, factors, first, rows, stride, n):  # type: ignore[no-untyped-def]
    """Take multiples of eight rows away from another one of the same array: see `subtract_rows_reference`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, EIGHT)
        _, to, _, first, rows, stride, n = arguments
        out, scales = v.address(0, to, n), v.address(2, first, EIGHT)
        sources = [v.address(0, builder.add(rows, v.times(stride, k)), n) for k in range(EIGHT)]
        factors = [v.spread(builder.load(v.after(scales, n.type(k)))) for k in range(EIGHT)]
        with v.steps(n) as i:
            value = v.load(v.after(out, i))
            for source, factor in zip(sources, factors, strict=True):
                value = builder.fsub(value, builder.fmul(factor, v.load(v.after(source, i))))
            v.store(value, v.after(out, i))
        return context.get_dummy_value()

    return numba.void(array, U64, factors, U64, U64, U64, U64), build


def subtract_rows_reference(
    array: Floats, to: int, factors: Floats, first: int, rows: int, stride: int, n: int
) -> None:
    """Take factors[first + k] * array[rows + k stride + j] away from array[to + j], j below n, for k = 0 .. 7 in turn.

    n: a multiple of 8. A difference is rounded before the next product is taken away.
    """
    for j in range(n):
        for k in range(EIGHT):
            array[to + j] -= factors[first + k] * array[rows + k * stride + j]


@operation
def dot(typing, a, at, b, bt, n):  # type: ignore[no-untyped-def]
    """Return the dot product of n values: see `dot_reference`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, EIGHT)
        _, at, _, bt, n = arguments
        x, y = v.address(0, at, n), v.address(2, bt, n)
        sums = v.zeros(x)
        with v.steps(n) as i:
            term = builder.fmul(v.load(v.after(x, i)), v.load(v.after(y, i)))
            builder.store(builder.fadd(builder.load(sums), term), sums)
        return v.total(builder.load(sums))

    return a.dtype(a, U64, b, U64, U64), build


def dot_reference(a: Floats, at: int, b: Floats, bt: int, n: int) -> Any:
    """Return the sum of a[at + i] * b[bt + i] for i below n, a multiple of 8.

    Lane i mod 8 sums its products as i rises; then the upper half of the lanes is added to the lower, until one is
    left.
    """
    sums = [a.dtype.type(0)] * EIGHT
    for i in range(n):
        sums[i % EIGHT] += a[at + i] * b[bt + i]
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [low + high for low, high in zip(sums[:half], sums[half:], strict=True)]
    return sums[0]


@operation
def add_scaled(typing, out, to, factor, x, xt, n):  # type: ignore[no-untyped-def]
    """Add a multiple of n values to others: see `add_scaled_reference`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, EIGHT)
        _, to, factor, _, xt, n = arguments
        y, x, scale = v.address(0, to, n), v.address(3, xt, n), v.spread(factor)
        with v.steps(n) as i:
            sum_ = builder.fadd(v.load(v.after(y, i)), builder.fmul(scale, v.load(v.after(x, i))))
            v.store(sum_, v.after(y, i))
        return context.get_dummy_value()

    return numba.void(out, U64, out.dtype, x, U64, U64), build


def add_scaled_reference(out: Floats, to: int, factor: Any, x: Floats, xt: int, n: int) -> None:
    """Add factor * x[xt + j] to out[to + j] for j below n, a multiple of 8. factor: of the arrays' type."""
    for j in range(n):
        out[to + j] += factor * x[xt + j]


@operation
def fade(typing, out, to, old, ot, keep, factor, x, xt, n):  # type: ignore[no-untyped-def]
    """Let n values fade and add a multiple of others: see `fade_reference`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, EIGHT)
        _, to, _, ot, keep, factor, _, xt, n = arguments
        y, z, x = v.address(0, to, n), v.address(2, ot, n), v.address(6, xt, n)
        keep, scale = v.spread(keep), v.spread(factor)
        with v.steps(n) as i:
            kept = builder.fmul(keep, v.load(v.after(z, i)))
            v.store(builder.fadd(kept, builder.fmul(scale, v.load(v.after(x, i)))), v.after(y, i))
        return context.get_dummy_value()

    return numba.void(out, U64, old, U64, F64, F64, x, U64, U64), build


def fade_reference(
    out: Floats, to: int, old: Floats, ot: int, keep: float, factor: float, x: Floats, xt: int, n: int
) -> None:
    """Set out[to + j] to keep * old[ot + j] + factor * x[xt + j] for j below n, a multiple of 8. float64."""
    for j in range(n):
        out[to + j] = keep * old[ot + j] + factor * x[xt + j]


@operation
def means_at_most(typing, rows, at, limit):  # type: ignore[no-untyped-def]
    """Count pairs of uint16 whose mean is small: see `means_at_most_reference`.

    One comparison, one population count.
    """

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, SIXTEEN)
        both = v.address(0, arguments[1], 2 * SIXTEEN)
        first, second = (v.load(v.after(both, arguments[1].type(SIXTEEN * k))) for k in range(2))
        mean = builder.lshr(builder.add(first, second), first.type([1] * SIXTEEN))
        small = builder.icmp_unsigned("<=", mean, v.spread(arguments[2]))
        return builder.zext(builder.ctpop(builder.bitcast(small, ir.IntType(SIXTEEN))), ir.IntType(64))

    return U64(rows, U64, U16), build


def means_at_most_reference(rows: NDArray[np.uint16], at: int, limit: int) -> int:
    """Return for how many k below 16 the mean of rows[at + k] and rows[at + 16 + k], rounded down, is within the limit.

    Values are at most 2**15, so that their sums fit uint16.
    """
    return sum((int(rows[at + k]) + int(rows[at + SIXTEEN + k])) >> 1 <= limit for k in range(SIXTEEN))


@operation
def step_towards(typing, array, at, targets, first, rate):  # type: ignore[no-untyped-def]
    """Move 16 values of type uint16 towards targets: see `step_towards_reference`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        v = Vectors(context, builder, signature, arguments, SIXTEEN)
        _, at, _, first, rate = arguments
        place, target = v.address(0, at, SIXTEEN), v.load(v.address(2, first, SIXTEEN))
        now = v.load(place)
        v.store(builder.add(now, builder.ashr(builder.sub(target, now), v.spread(rate))), place)
        return context.get_dummy_value()

    return numba.void(array, U64, targets, U64, U16), build


def step_towards_reference(
    array: NDArray[np.uint16], at: int, targets: NDArray[np.uint16], first: int, rate: int
) -> None:
    """Move array[at + k], k below 16, by 2**-rate of its distance from targets[first + k], rounded down.

    At most 2**15.
    """
    for k in range(SIXTEEN):
        now = int(array[at + k])
        array[at + k] = now + ((int(targets[first + k]) - now) >> rate)


class Vectors:
    """Builds loads, stores and loops over vectors of `width` elements within an intrinsic.

    context, builder, signature, arguments: as numba gives them to the intrinsic's code generator. Values are LLVM's.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, width: int) -> None:
        self.context, self.builder, self.width = context, builder, width
        self.kinds, self.arguments = signature.args, arguments

    def address(self, argument: int, at: Any, count: Any) -> Any:
        """Return the address of element `at` of the array that is argument `argument`; `count` elements from there are used."""
        array = self.context.make_array(self.kinds[argument])(
            self.context, self.builder, value=self.arguments[argument]
        )
        if config.BOUNDSCHECK:  # type: ignore[attr-defined]
            end = self.builder.add(at, at.type(count) if isinstance(count, int) else count)
            beyond = self.builder.add(array.nitems, array.nitems.type(1))
            for place in (at, end):  # a place below 0 has become a large number, which is below 0 for this check
                cgutils.do_boundscheck(self.context, self.builder, place, beyond)  # type: ignore[no-untyped-call]
        return self.after(array.data, at)

    def after(self, address: Any, n: Any) -> Any:
        """Return the address of the element n further on."""
        return self.builder.gep(address, [n])

    def times(self, value: Any, n: int) -> Any:
        """Return an integer, n times as large."""
        return self.builder.mul(value, value.type(n))

    def vector_at(self, address: Any) -> Any:
        """Return the same address, of a vector."""
        return self.builder.bitcast(address, ir.VectorType(address.type.pointee, self.width).as_pointer())

    def load(self, address: Any) -> Any:
        """Load the vector at an element's address, which need be no multiple of the vector's size."""
        size = self.context.get_abi_sizeof(address.type.pointee)
        return self.builder.load(self.vector_at(address), align=size)

    def store(self, vector: Any, address: Any) -> None:
        """Write a vector to an element's address."""
        size = self.context.get_abi_sizeof(address.type.pointee)
        self.builder.store(vector, self.vector_at(address), align=size)

    def spread(self, value: Any) -> Any:
        """Return a vector that has one value in all places."""
        one = self.builder.insert_element(ir.VectorType(value.type, self.width)(ir.Undefined), value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, one, ir.VectorType(ir.IntType(32), self.width)([0] * self.width))

    def zeros(self, address: Any) -> Any:
        """Make room for a vector of the floats at an address, filled with zeros. Registers hold it in the end."""
        zero = ir.Constant(ir.VectorType(address.type.pointee, self.width), [0.0] * self.width)
        return cgutils.alloca_once_value(self.builder, zero)  # type: ignore[no-untyped-call]

    @contextmanager
    def steps(self, n: Any) -> Iterator[Any]:
        """Loop over the first elements of the vectors in n elements, a multiple of the width: 0, width, 2 width, ..."""
        with cgutils.for_range(self.builder, self.builder.udiv(n, n.type(self.width))) as loop:
            yield self.times(loop.index, self.width)

    def total(self, vector: Any) -> Any:
        """Return the sum of a vector's elements: the upper half is added to the lower, until one is left."""
        width = self.width
        while width > 1:
            width //= 2
            kind = ir.VectorType(ir.IntType(32), width)
            halves = (kind(list(range(begin, begin + width))) for begin in (0, width))
            low, high = (self.builder.shuffle_vector(vector, vector, half) for half in halves)
            vector = self.builder.fadd(low, high)
        return self.builder.extract_element(vector, ir.IntType(32)(0))
