"""What a prediction leaves of a sample, as binary decisions (FORMAT.md, "Decisions of a sample").

    side       does the sample lie above the prediction?
    octaves    how far away is it: 0 to 1 widths, 1 to 2, 2 to 4, 4 to 8 and so on
    halves     in which half of that octave, in which half of that half, and so on
    rest       below an eighth of the first width, all values are alike: digits of equal probability

Each decision asks whether the sample lies beyond an edge. Five experts answer: logistic distributions around guesses,
with mean errors of different memories for their scales, each restricted to the interval that earlier decisions left.
Counters add what came true in small contexts. Their answers are mixed by two sets of weights and corrected by an
adaptive map (`mixing.py`). Everything is learnt from coded samples alone, so the decoder follows.

After: PAQ8 (Mahoney: mixing, counters and adaptive maps).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.pmf import PRECISION
from laconic.entropy.rans_numba import I64, U32, U64, pop
from laconic.models.mixing import (
    COUNTER_START,
    GUARD,
    LIMIT,
    ONE,
    code,
    count,
    counter,
    follow,
    learn,
    log_ratio,
    new_maps,
    powers,
    refine,
    squash,
    stretch,
)
from laconic.models.sound_arithmetic import F64

# Experts. All numbers here are part of the format.
EXPERTS = 5
PACES = np.array([0.15, 0.04, 0.008, 0.04, 0.04])  # how far each of an expert's mean errors moves per sample
FIRST_ERROR = 100.0  # mean errors before the first sample
LEAST_ERROR = 0.001  # keeps mean errors far from subnormal numbers
ERROR_FLOOR = 0.02  # is added to a mean error before it is divided by
SPREAD = 1.386  # mean distance from the centre of a logistic distribution, in its scale: 2 ln 2
MASS = 2147483648.0  # a whole distribution's, 2**31
Z_STEPS, Z_RANGE = 32, 24  # the table of the logistic distribution: steps per unit, from -24 to 24
Z_LAST = 2 * Z_RANGE * Z_STEPS - 0.001
CENTRES, INVERSE, INSIDE, MIDDLE, OUTSIDE = (k * EXPERTS for k in range(5))  # rows of Decisions.scratch

# Contexts.
RATIOS = (0.35, 0.55, 0.75, 1.0, 1.3, 1.8, 2.6)  # bounds of the fast over the slow mean error: is it getting louder?
SIZES = (0.25, 0.8, 2.0)  # bounds of an error, in mean errors: was it small or large?
RATIO, PARTNER, HISTORY, FIRST_OCTAVE = range(4)  # places in Decisions.context

# Decisions: node 0 is the side, 1 + octave the next octave, 24 deep halves, 32 + 8 * octave + path the other halves.
NODES = 128
DEEP_HALF, FIRST_HALF, HALVES = 24, 32, 8
OCTAVE_FIT = 1.4  # the first width is the least power of two that is, times this, at least the mean error
MOST_WIDTH = 31  # the logarithm of the widest
MOST_OCTAVE = 10  # octaves from here on have the same nodes
REST_BITS = 3  # halves go on until an interval is so many bits narrower than the first octave
SETS, CELLS = 2, 64  # counters per decision, and contexts of a counter
MIXER_RATE, COUNT_LIMIT, MAP_SHIFT = 300, 250, 6  # see `mixing.py`
MIXER_NODES = 32  # the second set of weights goes by the ratio and the node, nodes from 31 on being one
PLACES = MIXER_NODES * (len(RATIOS) + 1)
SIDE, OCTAVES, HALVING = range(3)  # phases of `code_sample`


class Decisions(NamedTuple):
    """Holds what the models of the decisions have learnt, channel after channel, and room for the sample at hand.

    errors: float64 [C * EXPERTS], mean errors of the experts. classes: int64 [C * 2], sign and size of the latest two
    errors. counters: uint32 [C * SETS * NODES * CELLS]. mixers: int32 [C * (NODES + PLACES) * (EXPERTS + SETS)]. maps:
    uint16. scratch: float64 [5 * EXPERTS], of each expert the centre, 1 / scale, the mass beyond the inner edge of the
    interval that the sample is in, beyond the edge in question, and beyond the outer edge. context: int64 [4], of this
    sample the class of the ratio, the counters' contexts, and the first octave. inputs: int32 [EXPERTS + SETS], of the
    mixer. beyond: float64, the table of the logistic distribution.
    """

    errors: Any
    classes: Any
    counters: Any
    mixers: Any
    maps: Any
    scratch: Any
    context: Any
    inputs: Any
    beyond: Any

    @classmethod
    def of(cls, channels: int) -> Decisions:
        """Make the state before the first sample: experts weigh the same, counters nothing."""
        mixers = np.zeros((channels * (NODES + PLACES), EXPERTS + SETS), np.int32)
        mixers[:, :EXPERTS] = ONE // EXPERTS
        return cls(
            errors=np.full(channels * EXPERTS, FIRST_ERROR),
            classes=np.zeros(channels * 2, np.int64),
            counters=np.full(channels * SETS * NODES * CELLS, COUNTER_START, np.uint32),
            mixers=mixers.ravel(),
            maps=new_maps(NODES * channels),
            scratch=np.zeros(5 * EXPERTS),
            context=np.zeros(4, np.int64),
            inputs=np.zeros(EXPERTS + SETS, np.int32),
            beyond=BEYOND,
        )


def beyond_table() -> NDArray[np.float64]:
    """Return the mass of the logistic distribution beyond z = i / 32 - 24, of 2**31, rounded from exact integers."""
    one = 1 << GUARD
    upper = [(1 << 31) * one / (one + x) for x in powers(Z_STEPS, Z_RANGE * Z_STEPS + 1)]
    return np.array([(1 << 31) - v for v in upper[:0:-1]] + upper)


BEYOND = beyond_table()


@numba.njit(cache=True, nogil=True, inline="always")
def prepare(d, guesses, c, partner, p):  # type: ignore[no-untyped-def]
    """Set up the experts and the contexts for a sample of channel c that is predicted as p.

    Three experts stand at the prediction, with a fast, a usual and a slow mean error; one at the second guess, one at
    the last.
    """
    last, at = U64(guesses.size - 1), c * U64(EXPERTS)
    for e in range(U64(EXPERTS)):
        d.scratch[U64(CENTRES) + e] = p
        d.scratch[U64(INVERSE) + e] = SPREAD / (d.errors[at + e] + ERROR_FLOOR)
    d.scratch[CENTRES + 3] = guesses[min(U64(1), last)]
    d.scratch[CENTRES + 4] = guesses[last]
    mean = d.errors[at + U64(1)]
    ratio = d.errors[at] / (d.errors[at + U64(2)] + ERROR_FLOOR)
    ratio_class = U64(0)
    for limit in RATIOS:
        ratio_class += U64(ratio > limit)
    octave, width = U64(0), 1.0
    while width * OCTAVE_FIT < mean and octave < U64(MOST_WIDTH):
        width *= 2.0
        octave += U64(1)
    d.context[RATIO] = ratio_class
    d.context[PARTNER] = U64(d.classes[partner * U64(2)]) * U64(8) + ratio_class
    d.context[HISTORY] = U64(d.classes[c * U64(2)]) * U64(8) + U64(d.classes[c * U64(2) + U64(1)])
    d.context[FIRST_OCTAVE] = octave


@numba.njit(cache=True, nogil=True, inline="always")
def learn_errors(d, c, x):  # type: ignore[no-untyped-def]
    """Move the experts' mean errors and the classes of the latest errors on, after sample x."""
    at = c * U64(EXPERTS)
    mean, error = d.errors[at + U64(1)], x - d.scratch[CENTRES]
    size = U64(0)
    for limit in SIZES:
        size += U64(abs(error) > limit * mean)
    for e in range(U64(EXPERTS)):
        v = d.errors[at + e] + PACES[e] * (abs(x - d.scratch[U64(CENTRES) + e]) - d.errors[at + e])
        d.errors[at + e] = max(LEAST_ERROR, v)
    d.classes[c * U64(2) + U64(1)] = d.classes[c * U64(2)]
    d.classes[c * U64(2)] = (U64(4) if error < 0.0 else U64(0)) + size


@numba.njit(cache=True, nogil=True, inline="always")
def code_sample(d, c, p, x, limit, coder, tape):  # type: ignore[no-untyped-def]
    """Code sample x around its prediction p and return it; a decoder is given any x and returns the one it read.

    limit: samples lie in -limit .. limit - 1; a decision whose answer follows from that is not coded. One loop goes
    through all phases, as `split` is large and is inlined wherever it is called.
    """
    centre = I64(np.ceil(p))
    first, side = F64(centre) - 0.5, 1.0
    below, above = centre + limit, limit - centre  # how many values there are on either side
    room, distance = above, x - centre
    start, width, octave, path = I64(0), I64(1) << I64(d.context[FIRST_OCTAVE]), I64(0), I64(1)
    least = max(width >> I64(REST_BITS), I64(1))
    for e in range(U64(EXPERTS)):
        d.scratch[U64(INSIDE) + e], d.scratch[U64(OUTSIDE) + e] = MASS, 0.0
    phase = SIDE
    while phase < HALVING or width > least:
        # The question: its edge and its node, the encoder's answer, and whether both answers are possible.
        if phase == HALVING:
            width >>= I64(1)
        edge, node = first + side * F64(start + width), I64(1) + octave
        bit, possible = I64(distance >= start + width), start + width < room
        if phase == SIDE:
            edge, node = first, I64(0)
            bit, possible = I64(x >= centre), below > 0 and above > 0
        elif phase == HALVING:
            node = I64(FIRST_HALF) + octave * I64(HALVES) + path if path < I64(HALVES) else I64(DEEP_HALF)
        if possible:
            bit = split(d, c, U64(node), edge, side, bit, coder, tape)
        else:
            bit = I64(below <= 0) if phase == SIDE else I64(0)
        # What the answer leads to.
        if phase == SIDE:
            phase = OCTAVES
            if not bit:  # from here on distances go down, and masses are those of the other side
                side, room, distance = -1.0, below, centre - I64(1) - x
                for e in range(U64(EXPERTS)):
                    d.scratch[U64(INSIDE) + e] = MASS - d.scratch[U64(MIDDLE) + e]
                    d.scratch[U64(OUTSIDE) + e] = 0.0
        elif phase == OCTAVES and not bit:
            phase = HALVING
        elif phase == OCTAVES:
            start += width
            width += width if octave > I64(0) else I64(0)
            octave = min(octave + I64(1), I64(MOST_OCTAVE))
        else:
            start += width * bit
            path = path * I64(2) + bit
    distance = start + code_rest(coder, tape, distance - start, width)
    x = centre + distance if side > 0.0 else centre - I64(1) - distance
    return min(max(x, -limit), limit - I64(1))  # a damaged stream may lead beyond


@numba.njit(cache=True, nogil=True, inline="always")
def split(d, c, node, edge, side, bit, coder, tape):  # type: ignore[no-untyped-def]
    """Code whether the sample lies beyond the edge; the part where it is, is the next interval. Returns the bit.

    An expert's answer is the ratio of the masses beyond and before the edge, within the interval. One more on either
    side keeps ratios finite where a distribution has nothing.
    """
    for e in range(U64(EXPERTS)):
        z = (edge - d.scratch[U64(CENTRES) + e]) * side * d.scratch[U64(INVERSE) + e]
        mass = mass_beyond(d.beyond, z)
        d.scratch[U64(MIDDLE) + e] = mass
        a, b = mass - d.scratch[U64(OUTSIDE) + e], d.scratch[U64(INSIDE) + e] - mass
        d.inputs[e] = log_ratio(U64(I64(max(0.0, a))) + U64(1), U64(I64(max(0.0, b))) + U64(1))
    bit = decide(d, c, node, bit, coder, tape)
    moved = U64(INSIDE) if bit else U64(OUTSIDE)
    for e in range(U64(EXPERTS)):
        d.scratch[moved + e] = d.scratch[U64(MIDDLE) + e]
    return bit


@numba.njit(cache=True, nogil=True, inline="always")
def mass_beyond(table, z):  # type: ignore[no-untyped-def]
    """Return the mass of the logistic distribution beyond z, of 2**31, on the line between two entries of the table."""
    at = (z + F64(Z_RANGE)) * F64(Z_STEPS)
    at = max(0.0, at)
    at = min(Z_LAST, at)
    i = U64(I64(at))
    return table[i] + (table[i + U64(1)] - table[i]) * (at - F64(I64(at)))


@numba.njit(cache=True, nogil=True, inline="always")
def decide(d, c, node, bit, coder, tape):  # type: ignore[no-untyped-def]
    """Code one bit, whose experts' answers are in d.inputs, and learn from it. Returns the bit.

    The counters' answers join the experts'; two sets of weights mix them, one chosen by the node, one by node and
    ratio. The mean of both, and what the node's adaptive map makes of it, give the probability; then all of them see
    the bit.
    """
    cells = (c * U64(SETS * NODES) + node) * U64(CELLS)
    for k in range(U64(SETS)):
        place = cells + k * U64(NODES * CELLS) + U64(d.context[k + U64(PARTNER)])
        d.inputs[U64(EXPERTS) + k] = stretch(counter(d.counters, place))
    n, first = U64(EXPERTS + SETS), c * U64(NODES + PLACES)
    at = (first + node) * n
    shared_node = min(node, U64(MIXER_NODES - 1))
    other = (first + U64(NODES) + shared_node * U64(len(RATIOS) + 1) + U64(d.context[RATIO])) * n
    x, y = I64(0), I64(0)
    for k in range(n):  # both sums in one pass over the inputs
        x += I64(d.mixers[at + k]) * I64(d.inputs[k])
        y += I64(d.mixers[other + k]) * I64(d.inputs[k])
    x, y = min(max(x >> I64(16), -I64(LIMIT)), I64(LIMIT)), min(max(y >> I64(16), -I64(LIMIT)), I64(LIMIT))
    mean = (x + y) >> I64(1)
    refined, cell = refine(d.maps, c * U64(NODES) + node, mean)
    bit = code(coder, tape, bit, (squash(mean) + refined + I64(1)) >> I64(1))
    learn(d.mixers, at, d.inputs, (bit << I64(16)) - squash(x), MIXER_RATE)
    learn(d.mixers, other, d.inputs, (bit << I64(16)) - squash(y), MIXER_RATE)
    follow(d.maps, cell, bit, MAP_SHIFT)
    for k in range(U64(SETS)):
        count(d.counters, cells + k * U64(NODES * CELLS) + U64(d.context[k + U64(PARTNER)]), bit, COUNT_LIMIT)
    return bit


@numba.njit(cache=True, nogil=True, inline="always")
def code_rest(coder, tape, value, width):  # type: ignore[no-untyped-def]
    """Code a value below width, a power of two, all alike: digits of at most 15 bits, the highest first. Returns it."""
    out, cursor = I64(0), coder[1]
    while width > I64(1):
        n = min(width, I64(1 << PRECISION))
        width //= n
        freq = U32((1 << PRECISION) // n)
        if coder[0] != U64(0):
            digit = I64(U32(coder[2]) & U32((1 << PRECISION) - 1)) // I64(freq)
            state, cursor = pop(U32(coder[2]), U32(digit) * freq, freq, tape, cursor)
            coder[2] = U64(state)
        else:
            digit = (value // width) % n
            tape[cursor] = U32(digit) * freq | (freq - U32(1)) << U32(PRECISION)
            cursor += U64(1)
        out = out * n + digit
    coder[1] = cursor
    return out
