"""Decisions: a sample's error, bit by bit, each bit foretold by all experts at once.

Sections 9 and 10 of "Coded picture samples" in FORMAT.md. The error e is the sample's distance from the prediction, in
steps of 2 * max_error + 1. Which e, is decided in this order:

    middle    is e in the bucket around the prediction, as wide as errors are (kind 0)? If not: is it above (kind 1)?
    buckets   away from the prediction: beyond the next bucket? They double from the third on (kinds 2 to 11)
    halves    which half of what is left, until one e is: expert 0 alone says how likely, and nothing learns

For kinds 0 to 11, every expert says how likely the bit is by the masses of its distribution in both parts of the
interval; so does the circuit, all experts weighed by the gate; and six counters in contexts of their own. The logistic
mix of all that codes the bit (`mixing.py`). Integers only, but for the choice of the bucket's width.

In kernels `e` is the error for an encoder, and anything for a decoder; `coder` and `tape` are as `mixing.code` takes
them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.models.experts import Experts, count_experts
from laconic.models.mixing import (
    COUNTER_START,
    F64,
    I64,
    MASS_BITS,
    NAT,
    ONE,
    U64,
    UNIT,
    code,
    count,
    counter,
    follow,
    kernel,
    learn,
    log_ratio,
    logarithm,
    logistic,
    mix,
    new_maps,
    refine,
    squash,
    stretch,
)
from laconic.models.planes import LANES, Plane
from laconic.models.repeats import TRIES, Repeats
from laconic.models.windows import Level, fill

MAX_DECISIONS = 44  # for a sample: 4 guesses, 1 and 1, then 18 buckets that double, then 16 halvings
MIDDLE, ABOVE, BUCKETS, LAST_BUCKET = 0, 1, 2, 9  # kinds of decisions; all buckets from the tenth on are one kind
KINDS = BUCKETS + LAST_BUCKET + 1
TABLES, CONTEXTS = 6, 512  # tables of counters; contexts in each
SCALES, MIXERS = 32, 8  # classes of spread, for maps, and of four of these, for the mixer's weights
INPUTS = 24  # a mixer's, with room to spare: experts, counters, the circuit, a constant
RATE, EXTRA_RATE, EXTRA_ROWS = 60, 300, 16  # the mixer learns so fast at last; more at first, halved after so many rows
COUNTER_LIMIT, MAP_RATE = 250, 6
LEAST_SPREAD = 0.05  # in samples
NARROW, NARROW_LEAST = 0.9, 0.5  # twice a bucket's width is at least so much of the spread, and so much more
SMALL, MEDIUM, LARGE = 1229, NAT, 9000  # 0.3, 1, 2.2 nats: the logistic distribution function is 0.57, 0.73, 0.90


class Interval(NamedTuple):
    """Holds the errors that are still possible, low .. high, where they lie, and what else a decision about them depends on.

    Integers alone, which compile to registers: as fast as six arguments, measured. Arrays do not belong in here.
    """

    low: int
    high: int
    edge: int  # lower edge of error 0, in 1/256 of a sample
    per_step: int  # from one error to the next, in 1/256 of a sample
    scale: int  # logarithm of the spread: chooses weights and maps
    rate: int  # how fast the mixer learns


class Coding(NamedTuple):
    """Holds the mixer, its inputs, and each expert's masses: arrays [LANES] of 2**31 in all, unless said otherwise."""

    low: NDArray[np.uint64]  # below the interval
    high: NDArray[np.uint64]  # below its upper end
    cut: NDArray[np.uint64]  # below a cut in between
    whole: NDArray[np.uint64]  # all that has not been ruled out
    wrong: NDArray[np.int64]  # [1 + TRIES]: how many errors are ruled out, and which
    wrong_masses: NDArray[np.uint64]  # [TRIES * LANES]: of each of these
    ones: NDArray[np.uint64]  # where the decision is yes
    zeros: NDArray[np.uint64]  # where it is no
    inputs: NDArray[np.int32]  # [INPUTS]
    contexts: NDArray[np.uint64]  # [TABLES]: places among the counters, of kind 0
    counters: NDArray[np.uint32]  # [TABLES * CONTEXTS * KINDS]
    weights: NDArray[np.int32]  # [MIXERS * KINDS * INPUTS]
    maps: NDArray[np.uint16]
    coder: NDArray[np.uint64]


def new_weights(level: Level) -> NDArray[np.int32]:
    """Return the mixers' weights for a tile: a plane learns on from where the one before ended."""
    m, weights = count_experts(level), np.zeros((MIXERS * KINDS, INPUTS), np.int32)
    weights[:, 0] = ONE
    weights[:, 1:m] = 3 * ONE // (4 * m)
    weights[:, m : m + TABLES] = ONE // 12
    weights[:, m + TABLES] = ONE // 4
    return weights.reshape(-1)


def new_coding(weights: NDArray[np.int32], coder: NDArray[np.uint64]) -> Coding:
    """Return the state of a plane's decisions."""
    low, high, cut, whole, ones, zeros = np.zeros((6, LANES), np.uint64)
    return Coding(
        low=low,
        high=high,
        cut=cut,
        whole=whole,
        wrong=np.zeros(1 + TRIES, np.int64),
        wrong_masses=np.zeros(TRIES * LANES, np.uint64),
        ones=ones,
        zeros=zeros,
        inputs=np.zeros(INPUTS, np.int32),
        contexts=np.zeros(TABLES, np.uint64),
        counters=np.full(TABLES * CONTEXTS * KINDS, COUNTER_START, np.uint32),
        weights=weights,
        maps=new_maps(SCALES * KINDS),
        coder=coder,
    )


@kernel
def code_error(
    at: int, y: int, plane: Plane, experts: Experts, coding: Coding, repeats: Repeats, tape: NDArray[np.uint32]
) -> Any:
    """Code the error of the sample at place `at` in row y, or decode it (9). Returns the sample."""
    # Samples that are `step` apart are coded: one of them is within max_error of any sample. The error 0 is at `centre`,
    # the blend's mean, and errors low .. high reach all samples from 0 to top.
    step, mean = I64(2 * plane.max_error + 1), experts.mean[0]
    centre = (mean + I64(128)) >> I64(8)
    low, high = -((centre + plane.max_error) // step), (plane.top - centre + plane.max_error) // step
    spread = max(experts.calibration[experts.cells[0]], LEAST_SPREAD) / step
    width = bucket_width(spread)
    scale = choose_contexts(at, width, spread, plane, experts, coding)
    e = error_of(at, centre, step, plane) if coding.coder[0] == U64(0) else I64(0)
    # The middle bucket, first .. last, lies around the mean itself, which is not rounded as the centre is.
    first = ((mean - (centre << I64(8))) // step - ((width - I64(1)) << I64(7)) + I64(128)) >> I64(8)
    first, last = max(first, low), min(first + width - I64(1), high)
    edge, rate = (centre << I64(8)) - I64(128) * step, I64(RATE + EXTRA_RATE * EXTRA_ROWS // (EXTRA_ROWS + y))
    interval = Interval(low, high, edge, step << I64(8), scale, rate)
    rule_out(centre, edge, plane, experts, coding, repeats)
    interval, inside = middle_bucket(e, interval, first, last, experts, coding, tape)
    if not inside:
        up = interval.low > first
        interval = buckets(e, interval, width, up, experts, coding, tape)
    e = halve(e, interval, experts, coding, tape)
    return min(max(centre + step * e, I64(0)), I64(plane.top))


@kernel
def bucket_width(spread: float) -> Any:
    """Return the width of the first buckets, in errors: the least power of two that is 0.45 of the spread, and 0.25."""
    width = I64(1)
    while F64(width * I64(2)) < spread * NARROW + NARROW_LEAST:
        width *= I64(2)
    return width


@kernel
def error_of(at: int, centre: int, step: int, plane: Plane) -> Any:
    """Return the error of a sample in steps, the nearest whole one."""
    difference = I64(plane.samples[at]) - centre
    e = (abs(difference) + plane.max_error) // step
    return e if difference >= 0 else -e


@kernel
def choose_contexts(at: int, width: int, spread: float, plane: Plane, experts: Experts, coding: Coding) -> Any:
    """Set the counters' contexts (9): spread; texture; errors left and above; of planes before; phase; value.

    Returns the first.
    """
    s, e, up, mean = plane.samples, plane.errors, plane.stride, experts.mean[0]
    # The scale is the logarithm of the spread in steps of 1/4 nat, 10 for a spread of 1; 0 if that is below 1/1024.
    scale = min(max((logarithm(U64(spread * 1024.0)) + I64(2048) >> I64(10)) + I64(8), I64(0)), I64(SCALES - 1))
    size = I64(width > 1) + I64(width > 2) + I64(width > 4)
    texture = I64(0)
    for offset in (1, up, up + 1, up - 1, 2 * up, 2):
        texture = texture * 2 + I64((I64(s[at - offset]) << I64(8)) > mean)
    inverse = experts.inverse[0]
    side = signed_size(e[at - 1], inverse) * 7 + signed_size(e[at - up], inverse)
    before = I64(0)
    for b in range(plane.before.size):
        before = before * 7 + signed_size(e[at + plane.before[b]], inverse)
    phase, value = ((mean >> I64(5)) & I64(7)) * SCALES + scale, I64(F64(mean) * plane.unit) >> I64(7)
    found = (scale, texture * 4 + size, side * 4 + size, before * 4 + size, phase, value)
    for k in range(TABLES):
        coding.contexts[k] = U64((k * CONTEXTS + found[k]) * KINDS)
    return scale


@kernel
def signed_size(error: int, inverse: int) -> Any:
    """Class an error in 1/256 of a sample by the width of the distribution: 0 to 6, 3 the smallest errors."""
    z = I64(error) * inverse >> I64(16)
    upper = I64(z > SMALL) + I64(z > MEDIUM) + I64(z > LARGE)
    return upper + I64(z > -SMALL) + I64(z > -MEDIUM) + I64(z > -LARGE)


@kernel
def rule_out(centre: int, edge: int, plane: Plane, experts: Experts, coding: Coding, repeats: Repeats) -> None:
    """Take away the masses of errors that would be guesses known to be wrong (11). None where samples may be off."""
    n = repeats.tried[0] if repeats.on and plane.max_error == 0 else I64(0)
    coding.wrong[0] = 0
    fill(coding.whole, U64(1 << MASS_BITS))
    for i in range(n):
        e, at = repeats.tried[1 + i] - centre, U64(i * LANES)
        coding.wrong[1 + i] = e
        for k in range(U64(experts.m)):
            t = edge + e * I64(256) - experts.mean[k]
            above = logistic((t + I64(256)) * experts.inverse[k] >> I64(16))
            coding.wrong_masses[at + k] = above - logistic(t * experts.inverse[k] >> I64(16))
            coding.whole[k] -= coding.wrong_masses[at + k]
    coding.wrong[0] = n


@kernel
def middle_bucket(
    e: int, interval: Interval, first: int, last: int, experts: Experts, coding: Coding, tape: NDArray[np.uint32]
) -> Any:
    """Decide whether e is in first .. last, around the prediction, and if not, whether above or below.

    Returns the interval that is left, and the first answer. Where there is nothing to decide, no bit is coded.
    """
    low, high, whole = interval.low, interval.high, coding.whole
    masses_at_ends(interval, first, last, experts, coding)
    if first == low and last == high:
        return interval, True
    for k in range(U64(experts.m)):
        coding.ones[k] = coding.high[k] - coding.low[k]
        coding.zeros[k] = whole[k] - coding.ones[k]
    if decide(I64(first <= e <= last), MIDDLE, interval, experts, coding, tape):
        return narrowed(interval, first, last), True
    up = last < high
    if first > low and last < high:
        for k in range(U64(experts.m)):
            coding.ones[k], coding.zeros[k] = whole[k] - coding.high[k], coding.low[k]
        up = decide(I64(e > last), ABOVE, interval, experts, coding, tape) != 0
    if up:
        copy(coding.high, coding.low)
        copy(whole, coding.high)
        return narrowed(interval, last + I64(1), high), False
    copy(coding.low, coding.high)
    fill(coding.low, U64(0))
    return narrowed(interval, low, first - I64(1)), False


@kernel
def masses_at_ends(interval: Interval, first: int, last: int, experts: Experts, coding: Coding) -> None:
    """Set `low` and `high` to the masses below first and below last + 1: none and all at the ends of the interval."""
    if first > interval.low:
        distribute(first, interval, experts, coding, coding.low)
    else:
        fill(coding.low, U64(0))
    if last < interval.high:
        distribute(last + I64(1), interval, experts, coding, coding.high)
    else:
        copy(coding.whole, coding.high)


@kernel
def buckets(
    e: int, interval: Interval, width: int, up: bool, experts: Experts, coding: Coding, tape: NDArray[np.uint32]
) -> Any:
    """Decide, away from the prediction, whether e is beyond the next bucket, until it is not.

    Returns the interval left.
    """
    i = I64(0)
    while interval.high - interval.low >= width:
        cut = interval.low + width if up else interval.high - width + I64(1)
        beyond = split(e, cut, up, I64(BUCKETS) + min(i, I64(LAST_BUCKET)), interval, experts, coding, tape)
        if beyond == up:
            interval = narrowed(interval, cut, interval.high)
            copy(coding.cut, coding.low)
        else:
            interval = narrowed(interval, interval.low, cut - I64(1))
            copy(coding.cut, coding.high)
        if not beyond:
            break
        width = width * I64(2) if i > 0 else width
        i += I64(1)
    return interval


@kernel
def split(
    e: int,
    cut: int,
    up: bool,
    kind: int,
    interval: Interval,
    experts: Experts,
    coding: Coding,
    tape: NDArray[np.uint32],
) -> Any:
    """Decide whether e is on the upper side of a cut (e >= cut), or, where not `up`, on the lower one."""
    distribute(cut, interval, experts, coding, coding.cut)
    for k in range(U64(experts.m)):
        above, below = coding.high[k] - coding.cut[k], coding.cut[k] - coding.low[k]
        coding.ones[k], coding.zeros[k] = (above, below) if up else (below, above)
    return decide(I64((e >= cut) == up), kind, interval, experts, coding, tape) != 0


@kernel
def halve(e: int, interval: Interval, experts: Experts, coding: Coding, tape: NDArray[np.uint32]) -> Any:
    """Decide which e of an interval: within a bucket expert 0 alone knows nearly all that can be known. Returns it."""
    low, high = interval.low, interval.high
    while low < high:
        middle = (low + high + I64(1)) >> I64(1)
        cut = mass_below(middle, interval, experts, coding)
        x = log_ratio(max(coding.high[0] - cut, U64(1)), max(cut - coding.low[0], U64(1)))
        p = squash(min(max(x, -UNIT), UNIT))  # tails are heavier than the logistic's
        if code(coding.coder, tape, I64(e >= middle), p):
            low, coding.low[0] = middle, cut
        else:
            high, coding.high[0] = middle - I64(1), cut
    return low


@kernel
def decide(
    bit: int, kind: int, interval: Interval, experts: Experts, coding: Coding, tape: NDArray[np.uint32]
) -> Any:
    """Code a bit, or decode it, where each expert has masses for 1 and for 0 (9, 10).

    All that judges learns it. Returns it.
    """
    inputs, d, scale = coding.inputs, U64(kind), U64(interval.scale)
    gather_inputs(d, experts, coding)
    at = ((scale >> U64(2)) * U64(KINDS) + d) * U64(INPUTS)
    x = mix(coding.weights, at, inputs)
    p = squash(x)
    # The bit is coded with the mean of the mixer's probability and its map's; the mixer learns from its own error.
    refined, cell = refine(coding.maps, scale * U64(KINDS) + d, x)
    bit = code(coding.coder, tape, bit, (p + refined) >> I64(1))
    learn(coding.weights, at, inputs, (bit << I64(16)) - p, interval.rate)
    for k in range(U64(TABLES)):
        count(coding.counters, coding.contexts[k] + d, bit, COUNTER_LIMIT)
    follow(coding.maps, cell, bit, MAP_RATE)
    return bit


@kernel
def gather_inputs(kind: int, experts: Experts, coding: Coding) -> None:
    """Set the mixer's inputs: expert 0; what other experts, counters and the circuit say more than it; a constant."""
    inputs, n = coding.inputs, U64(experts.m)
    one = zero = U64(0)
    for k in range(n):
        inputs[k] = log_ratio(max(coding.ones[k], U64(1)), max(coding.zeros[k], U64(1)))
    first = inputs[0]
    for k in range(U64(1), n):
        inputs[k] -= first
    for k in range(U64(TABLES)):
        inputs[n + k] = stretch(counter(coding.counters, coding.contexts[k] + kind)) - first
    for k in range(n):
        one += experts.gate[k] * coding.ones[k]
        zero += experts.gate[k] * coding.zeros[k]
    inputs[n + U64(TABLES)] = log_ratio(max(one, U64(1)), max(zero, U64(1))) - first
    inputs[n + U64(TABLES + 1)] = UNIT


@kernel
def narrowed(interval: Interval, low: int, high: int) -> Any:
    """Return an interval with other ends."""
    return Interval(low, high, interval.edge, interval.per_step, interval.scale, interval.rate)


@kernel
def distribute(cut: int, interval: Interval, experts: Experts, coding: Coding, out: NDArray[np.uint64]) -> None:
    """Set out[k] to the mass of expert k below error `cut`, without what has been ruled out."""
    for k in range(U64(experts.m)):
        out[k] = logistic((interval.edge + cut * interval.per_step - experts.mean[k]) * experts.inverse[k] >> I64(16))
    for i in range(coding.wrong[0]):
        if coding.wrong[1 + i] < cut:
            for k in range(U64(experts.m)):
                out[k] -= coding.wrong_masses[U64(i * LANES) + k]


@kernel
def mass_below(cut: int, interval: Interval, experts: Experts, coding: Coding) -> Any:
    """Return what `distribute` would set for expert 0."""
    mass = logistic((interval.edge + cut * interval.per_step - experts.mean[0]) * experts.inverse[0] >> I64(16))
    for i in range(coding.wrong[0]):
        if coding.wrong[1 + i] < cut:
            mass -= coding.wrong_masses[i * LANES]
    return mass


@kernel
def copy(source: NDArray[np.uint64], out: NDArray[np.uint64]) -> None:
    """Set out to a copy of the source."""
    for k in range(U64(out.size)):
        out[k] = source[k]
