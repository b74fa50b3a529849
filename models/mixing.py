"""Logistic mixing of binary predictions, in integers: many models say how likely a 1 is, one probability codes the bit.

Section 10 of "Coded picture samples" in FORMAT.md; sounds use it too. Each model's probability p goes in as its stretch
ln(p / (1 - p)); a mixer adds the inputs with weights of the context, and the squash of the sum is the mixed
probability. The weights follow the gradient of the codelength, input * error (Mahoney, "Adaptive weighing of context
models for lossless data compression", 2005; Mattern, "Mixing strategies in data compression", 2012). An adaptive map
corrects the outcome by what came true in a small context. The same integers on every machine: the tables are made by a
rule in exact integers, sums are integers, and their order does not matter.

Units: stretch int32, 1/256 nat, within +-LIMIT (12 nats); probability of a 1 in 1..65535 of 2**16; weight int32, 65536
= 1; error of a bit that was coded with p: (bit << 16) - p. All functions are for other kernels to inline:

    inputs[k] = stretch(counter(counters, place))    # or log_ratio(mass of 1, mass of 0), or a constant; int32 [n]
    x = mix(weights, at, inputs)                     # `at` = set * n chooses the weights by context
    p = squash(x)
    refined, cell = refine(maps, context, x)
    bit = code(coder, tape, bit, (p + refined) >> 1) # encoder: writes the bit's interval; decoder: reads the bit
    learn(weights, at, inputs, (bit << 16) - p, rate)
    count(counters, place, bit, limit)
    follow(maps, cell, bit, 6)

The tables STRETCH, SQUASH, LOG, LOGISTIC, RATES are module globals, which numba freezes into the kernels that name
them. `code` is one function for both directions, so that one kernel is encoder and decoder: see `encoder`,
`push_tapes`, `decoder`, `finish_decoder`. numba's cache does not see that a kernel of another file has changed: whoever
edits one empties it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from laconic.entropy.intervals import Stream, write_stream
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.rans import START
from laconic.entropy.rans_numba import INVERSES, pop, push_packed
from laconic.entropy.vectors import operation

# Conversions, for kernels. Any: numba's annotations do not know all that they convert.
I32: Any = numba.int32
I64: Any = numba.int64
U32: Any = numba.uint32
U64: Any = numba.uint64
F32: Any = numba.float32
F64: Any = numba.float64
# For kernels that take tuples of arrays. Reference-counting these costs a third of the time: hence inlined, and without
# NRT, numba's runtime for memory. Such kernels must not allocate.
WITHOUT_NRT: Any = {"error_model": "numpy", "_nrt": False}
kernel: Any = numba.njit(cache=True, nogil=True, forceinline=True, **WITHOUT_NRT)
inlined: Any = numba.njit(cache=True, nogil=True, forceinline=True)  # for small functions of numbers and single arrays
UNIT = 256  # one nat, as stretched probabilities have it
LIMIT = 12 * UNIT - 1
ONE = 1 << 16  # stands for 1 in probabilities and weights
WEIGHT_LIMIT = 1 << 20
MANTISSA = 1024  # entries of LOG
FINE = 16  # LOG has units of 1 / (UNIT * FINE) nat
COUNT_BITS = 10  # low bits of a counter, below its probability of 22 bits
COUNT_MASK = (1 << COUNT_BITS) - 1
LARGEST_COUNT = 255  # where a counter's count stops
MAP_STEP, MAP_CELLS = 128, 49  # an adaptive map has a cell for each 1/2 nat, from -12 to 12
MASS_BITS = 31  # the logistic distribution has a mass of 2**31 in all
NAT = 4096  # units per nat of its argument
GUARD = 192  # bits of the fixed point in which the tables are made


def powers(step: int, n: int) -> list[int]:
    """Return exp(k / step) for k = 0 .. n - 1, fixed point of GUARD bits; each within n units of the last place."""
    term = one = 1 << GUARD
    e, k = 0, 0
    while term:
        e, k = e + term, k + 1
        term //= step * k
    out = [one]
    for _ in range(n - 1):
        out.append(out[-1] * e >> GUARD)
    return out


def squash_table() -> NDArray[np.uint16]:
    """Return SQUASH: entry i is the probability whose stretch is i - LIMIT - 1, rounded."""
    one, positive = 1 << GUARD, powers(UNIT, LIMIT + 2)
    upper = [(2 * ONE * e + e + one) // (2 * (e + one)) for e in positive]
    values = [ONE - p for p in upper[:0:-1]] + upper[:-1]
    return np.array(values).clip(1, ONE - 1).astype(np.uint16)


def logarithms(ratios: list[tuple[int, int]], unit: int) -> list[int]:
    """Return round(unit * ln(a / b)) for rising ratios a / b >= 1, by comparison with exact powers of e."""
    halves = powers(2 * unit, 10 * 2 * unit)
    out, x = [], 0
    for a, b in ratios:
        while b * halves[2 * x + 1] <= a << GUARD:
            x += 1
        out.append(x)
    return out


def stretch_table() -> NDArray[np.int16]:
    """Return STRETCH: entry i is the stretch of (i + 1/2) / 4096, rounded."""
    upper = logarithms([(2 * i + 1, 8191 - 2 * i) for i in range(2048, 4096)], UNIT)
    return np.array([-x for x in upper[::-1]] + upper, np.int16)


def log_table() -> NDArray[np.int16]:
    """Return LOG: entry i is ln((1024 + i) / 1024) in 1/4096 nat."""
    return np.array(logarithms([(MANTISSA + i, MANTISSA) for i in range(MANTISSA)], UNIT * FINE), np.int16)


def logistic_table() -> NDArray[np.uint32]:
    """Return LOGISTIC: the logistic distribution function, 2**31 = 1, at -16 to 16 nats by 1/64, and a spare one."""
    one = 1 << GUARD
    upper = [((e << MASS_BITS + 1) // (e + one) + 1) >> 1 for e in powers(64, 16 * 64 + 2)]
    return np.array([(1 << MASS_BITS) - p for p in upper[16 * 64 : 0 : -1]] + upper).astype(np.uint32)


SQUASH, STRETCH, LOG, LOGISTIC = squash_table(), stretch_table(), log_table(), logistic_table()
LN2 = 2839  # in 1/4096 nat
RATES = np.array([(2 << 16) // (2 * n + 3) for n in range(LARGEST_COUNT + 1)], np.int64)  # 1 / (n + 1.5)


@inlined
def squash(x: int) -> Any:
    """Return the probability of a stretch: int64 1..65535."""
    return I64(SQUASH[U64(min(max(I64(x), -I64(LIMIT)), I64(LIMIT)) + I64(LIMIT + 1))])


@inlined
def stretch(p: int) -> Any:
    """Return the stretch of a probability 0..65535: int32."""
    return I32(STRETCH[U64(p) >> U64(4)])


@inlined
def log_ratio(a: int, b: int) -> Any:
    """Return ln(a / b) of masses 1 ..

    2**32 - 1, as a stretch within +-LIMIT: what a model says by its masses for 1 and 0.
    """
    x = (logarithm(U64(a)) - logarithm(U64(b)) + I64(FINE // 2)) >> I64(4)
    return I32(min(max(x, -I64(LIMIT)), I64(LIMIT)))


@inlined
def logarithm(m: int) -> Any:
    """Return ln(m / 1024) of a uint64, in 1/4096 nat: int64.

    0 is taken for 1, so that all integers have a logarithm.
    """
    m = max(m, U64(1))
    zeros = leading_zeros(m)
    mantissa = (m << zeros) >> U64(53)  # 11 bits, the first of them set
    return I64(LOG[mantissa - U64(MANTISSA)]) + (I64(53) - I64(zeros)) * I64(LN2)


@inlined
def bit_length(m: int) -> Any:
    """Return how many bits a uint64 has, 1 or more: int64."""
    return I64(64) - I64(leading_zeros(m))


@operation
def leading_zeros(typing, m):  # type: ignore[no-untyped-def]
    """Return how many zero bits stand above the highest 1 of a uint64.

    Of 0 the result would be undefined: see `logarithm`.
    """

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctlz(arguments[0], ir.IntType(1)(1))

    return U64(U64), build


@kernel
def logistic(z: int) -> Any:
    """Return the logistic distribution function at z / 4096, 2**31 = 1: uint64, on a line between table entries."""
    z = min(max(I64(z), I64(-16 * NAT)), I64(16 * NAT - 1)) + I64(16 * NAT)
    cell, part = U64(z) >> U64(6), U64(z) & U64(63)
    low = U64(LOGISTIC[cell])
    return low + ((U64(LOGISTIC[cell + U64(1)]) - low) * part >> U64(6))


@inlined
def mix(weights: NDArray[np.int32], at: int, inputs: NDArray[np.int32]) -> Any:
    """Return the sum of the inputs [n] with the weights from `at` on: a stretch, int64 within +-LIMIT."""
    total = I64(0)
    for k in range(U64(inputs.size)):
        total += I64(weights[U64(at) + k]) * I64(inputs[k])
    return min(max(total >> I64(16), -I64(LIMIT)), I64(LIMIT))


@inlined
def learn(weights: NDArray[np.int32], at: int, inputs: NDArray[np.int32], error: int, rate: int) -> None:
    """Move the weights by rate / 65536 * error * input. rate: 1..1023; 100 to 1000 are usual."""
    step = I32((I64(error) * I64(rate)) >> I64(10))
    for k in range(U64(inputs.size)):
        w = weights[U64(at) + k] + ((I32(inputs[k]) * step + I32(1 << 13)) >> I32(14))
        weights[U64(at) + k] = min(max(w, I32(-WEIGHT_LIMIT)), I32(WEIGHT_LIMIT))


@inlined
def counter(counters: NDArray[np.uint32], place: int) -> Any:
    """Return the probability of a 1, int64 0..65535, in a counter: 22 bits of probability above 10 bits of count.

    A new counter is COUNTER_START, half and half. Two of them with two limits are fast and slow.
    """
    return I64(counters[U64(place)] >> U32(16))


@inlined
def count(counters: NDArray[np.uint32], place: int, bit: int, limit: int) -> None:
    """Show a counter a bit: it moves 1 / (n + 1.5) of the way, n the bits that it saw, at most `limit` (1..255)."""
    state = U64(counters[U64(place)])
    n, p = state & U64(COUNT_MASK), I64(state >> U64(COUNT_BITS))
    target = I64((1 << 22) - 1) if bit else I64(0)
    p += ((target - p) * RATES[n]) >> I64(16)
    n = n + U64(1) if n < U64(limit) else U64(limit)
    counters[U64(place)] = U32(U64(p) << U64(COUNT_BITS) | n)


COUNTER_START = 1 << 31


def new_maps(n: int) -> NDArray[np.uint16]:
    """Return n adaptive maps [n * MAP_CELLS] that change nothing yet: entry i is the squash of (i - 24) / 2 nats."""
    x = np.arange(MAP_CELLS) * MAP_STEP
    return np.tile(SQUASH[np.minimum(x + 1, 2 * LIMIT + 1)], n)


@inlined
def refine(maps: NDArray[np.uint16], context: int, x: int) -> Any:
    """Return (probability, place) by map `context` at stretch x, between its nearest cells; give the place to `follow`.

    The secondary estimation of PAQ: what came true when the model said x here. place: of the nearer cell.
    """
    above = U64(I64(x) + I64(LIMIT + 1))
    cell, part = above >> U64(7), above & U64(MAP_STEP - 1)
    at = U64(context) * U64(MAP_CELLS) + cell
    p = (U64(maps[at]) * (U64(MAP_STEP) - part) + U64(maps[at + U64(1)]) * part) >> U64(7)
    return I64(p), at + (part >> U64(6))


@inlined
def follow(maps: NDArray[np.uint16], place: int, bit: int, shift: int) -> None:
    """Move the cell at a place 2**-shift of the way to the bit."""
    target = I64(ONE - 1) if bit else I64(0)
    now = I64(maps[U64(place)])
    maps[U64(place)] = np.uint16(now + ((target - now) >> I64(shift)))


# A coder is uint64 [3]: whether it decodes, how much of the tape is used, the rANS state. A tape is uint32: intervals of an
# encoder (start | (freq - 1) << 15), words of a decoder. Kernels write and read both through `code` alone.


def encoder() -> NDArray[np.uint64]:
    """Return the coder that writes."""
    return np.array([0, 0, START], np.uint64)


def decoder(stream: Stream) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Return coder and tape for a stream of one lane. When all is read, `finish_decoder` says whether that was all."""
    return np.array([1, 0, stream.states[0]], np.uint64), stream.words.astype(np.uint32)


def finish_decoder(stream: Stream, coder: NDArray[np.uint64]) -> None:
    """Raise BadFile unless the stream was read to its end, and no further."""
    stream.states[0] = coder[2]
    stream.finish(int(coder[1]))


def push_tapes(tapes: list[NDArray[np.uint32]]) -> bytes:
    """Return the bytes of the intervals of an encoder's tapes, one after the other, in one lane."""
    states, parts = np.full(1, START, np.uint32), list[NDArray[Any]]()
    for tape in reversed(tapes):
        words = np.empty(len(tape), np.uint16)
        parts.append(words[push_packed(tape, 1, INVERSES, states, words) :])
    return write_stream(states, np.concatenate([*parts[::-1], np.empty(0, np.uint16)]))


@inlined
def code(coder: NDArray[np.uint64], tape: NDArray[np.uint32], bit: int, p: int) -> Any:
    """Code a bit, or decode one, that is 1 with probability p of 2**16. Returns it, int64: the given or the read one.

    A decoder reads a tape that ran out as if it went on with its last word, and its cursor goes on: callers look at
    that from time to time, and `finish_decoder` at the end. An encoder's tape must have room.
    """
    middle = U32(min(max(I64(p) >> I64(1), I64(1)), I64(TOTAL - 1)))
    cursor = coder[1]
    if coder[0] != U64(0):
        x = U32(coder[2])
        bit = I64((x & U32(TOTAL - 1)) < middle)
    start, freq = (U32(0), middle) if bit else (middle, U32(TOTAL) - middle)
    if coder[0] != U64(0):
        state, cursor = pop(U32(coder[2]), start, freq, tape, cursor)
        coder[1], coder[2] = cursor, U64(state)
    else:
        tape[cursor] = start | (freq - U32(1)) << U32(PRECISION)
        coder[1] = cursor + U64(1)
    return I64(bit)
