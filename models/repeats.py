"""Samples that were seen before in the same surroundings: for screenshots, drawings, pictures of few colours.

Section 11 of "Coded picture samples" in FORMAT.md. Before a sample is coded by its error, it may be guessed:

    a sample    what followed when a causal neighbourhood last looked like this (seven sizes of it, hashed, in this
                plane and those before), and the neighbours W and N: nine experts, each a value and how sure it is
    a guess     the value of the expert that was right most often in its state; then the next other value, TRIES at most
    a decision  is it this value? The logistic mix of what each expert's agreement and its state meant before, and of
                counters in hashed contexts of the value itself (`mixing.py`)

What no guess finds, and where no guess is worth a decision, is left to `lossless_photo`. After the match models of
paq8px and lpaq (Mahoney) and prediction by partial matching with exclusion; integers only.

In kernels `at` is the sample's place in the flat planes, `r` the state of all this.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.models.mixing import (
    COUNTER_START,
    I32,
    I64,
    MASS_BITS,
    ONE,
    U32,
    U64,
    UNIT,
    code,
    count,
    counter,
    follow,
    kernel,
    learn,
    log_ratio,
    logistic,
    mix,
    new_maps,
    refine,
    squash,
    stretch,
)
from laconic.models.planes import Plane

ORDERS = 7  # hashed neighbourhoods
EXPERTS = ORDERS + 2  # and W, N
ALL_EXPERTS = (1 << EXPERTS) - 1  # a mask
STATES = 64  # an expert's: how often it was right of late, or how the neighbours agree
BITS = 18  # a table of an order has 2**BITS entries
DIRECT = 4  # counters of a value in a hashed neighbourhood: the orders 1 to 3, and LONGEST
LONGEST = 6
TRIES = 4  # guesses for a sample
INPUTS = 16  # the mixer's, with room to spare: experts, direct counters, the prediction's distribution, a constant
NEAR = 10  # hits among four neighbours, and of the plane before
GATE, NEXT_GATE = 20000, 4096  # parts of ONE: what the first guess, the others, must be worth
EASY = 60000  # a part of ONE: where an expert is trusted as much, predictors are not asked, and not taught by a hit
RATE, COUNTER_LIMIT, MAP_RATE = 500, 250, 6
MOST_RUN = 15  # the longest run: how often in a row a table's entry was right
CHECK_BITS = 12  # bits of a hash, kept in an entry: other neighbourhoods share its place
HASH = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4)
SAMPLE_ROWS, FEW, FEW_GRAY = 32, 256, 16  # for `repetitive`: rows it looks at; few colours, grays


def repetitive(samples: NDArray[Any]) -> bool:
    """Say whether colours recur with their surroundings: where W, N, NW, NE are as before, is the colour, too?

    samples: uint8 or uint16 [h, w, 1 to 4], of which 32 rows are looked at. Half of the samples must recur so, or an
    eighth where there are few colours, dithered perhaps.
    """
    h, w, channels = samples.shape
    if h < 2 or w < 3:
        return False
    rows = np.unique(np.linspace(1, h - 1, SAMPLE_ROWS).astype(np.int64))
    colours = [pack(samples[rows - up]) for up in (0, 1)]
    same = (colours[0][:, 1:] == colours[0][:, :-1]) | (colours[0][:, 1:] == colours[1][:, 1:])
    if 8 * int(same.sum()) < same.size:  # soon seen of a photo
        return False
    key, here = np.zeros((len(rows), w - 2), np.uint64), colours[0][:, 1:-1].ravel()
    for up, x in ((0, 0), (1, 1), (1, 0), (1, 2)):
        key = (key ^ key >> np.uint64(29)) * np.uint64(HASH) + colours[up][:, x : x + w - 2]
    place = np.argsort(key.ravel(), kind="stable")
    key, value = key.ravel()[place], here[place]
    hits = int(((key[1:] == key[:-1]) & (value[1:] == value[:-1])).sum())
    if 2 * hits >= here.size or 8 * hits < here.size:
        return 2 * hits >= here.size
    gray = all(np.array_equal(samples[..., 0], samples[..., c]) for c in range(1, channels))
    return len(np.unique(here)) <= (FEW_GRAY if gray else FEW)


def pack(samples: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the samples of each colour in one number: [..., C] -> [...]."""
    out = np.zeros(samples.shape[:-1], np.uint64)
    for c in range(samples.shape[-1]):
        out = out << np.uint64(16) | samples[..., c]
    return out


class Repeats(NamedTuple):
    """Holds what guesses need, for one plane.

    Of this sample, and learnt so far; counters and maps as `mixing.py` has them.
    """

    on: int  # are there guesses at all? Otherwise tables are empty
    tables: NDArray[np.uint32]  # [ORDERS << BITS]: entries check << 20 | run << 16 | value, run 0 where there is none
    hashes: NDArray[np.uint64]  # [ORDERS]: of the sample's neighbourhoods
    slots: NDArray[np.uint64]  # [ORDERS]: places of their entries
    checks: NDArray[np.uint64]  # [ORDERS]: what these entries say if they are of these neighbourhoods
    values: NDArray[np.int64]  # [EXPERTS]: -1 where an expert has none
    states: NDArray[np.int64]  # [EXPERTS]
    trust: NDArray[np.uint32]  # [EXPERTS, STATES]: counters of an expert's being right
    agreement: NDArray[np.uint32]  # [EXPERTS, 2, STATES, 2]: a guess's, by first or later, state, agrees or not
    direct: NDArray[np.uint32]  # [DIRECT << BITS]: of a guess's, by a hash of its value and a neighbourhood
    places: NDArray[np.uint64]  # [EXPERTS + DIRECT]: of the counters that a guess uses
    inputs: NDArray[np.int32]  # [INPUTS]
    weights: NDArray[np.int32]  # [TRIES * (NEAR + EXPERTS), INPUTS]: by guess and hits near, by guess and expert
    maps: NDArray[np.uint16]  # [TRIES << EXPERTS] of them: by guess and who agrees
    tried: NDArray[np.int64]  # [1 + TRIES]: how many values have been guessed, and which
    hits: NDArray[np.uint8]  # all planes, flat as their samples: was the first guess right?


def new_repeats(on: bool, hits: NDArray[np.uint8]) -> Repeats:
    """Return the state of a plane's guesses. on: are there any? hits: of all planes, flat as their samples."""
    weights = np.zeros((TRIES * (NEAR + EXPERTS), INPUTS), np.int32)
    weights[:, : EXPERTS + DIRECT + 1] = ONE // 4
    return Repeats(
        on=int(on),
        tables=np.zeros(ORDERS << BITS if on else 0, np.uint32),
        hashes=np.zeros(ORDERS, np.uint64),
        slots=np.zeros(ORDERS, np.uint64),
        checks=np.zeros(ORDERS, np.uint64),
        values=np.zeros(EXPERTS, np.int64),
        states=np.zeros(EXPERTS, np.int64),
        trust=np.full(EXPERTS * STATES, COUNTER_START, np.uint32),
        agreement=np.full(EXPERTS * 2 * STATES * 2, COUNTER_START, np.uint32),
        direct=np.full(DIRECT << BITS if on else 0, COUNTER_START, np.uint32),
        places=np.zeros(EXPERTS + DIRECT, np.uint64),
        inputs=np.zeros(INPUTS, np.int32),
        weights=weights.reshape(-1),
        maps=new_maps(TRIES << EXPERTS if on else 0),
        tried=np.zeros(1 + TRIES, np.int64),
        hits=hits,
    )


@kernel
def look(at: int, plane: Plane, r: Repeats) -> Any:
    """Ask the experts. Returns whether the sample is easy: one of them is nearly sure."""
    gather(at, plane, r)
    _, worth = best_of(U64(ALL_EXPERTS), I64(EASY - 1), r)
    return worth >= EASY


@kernel
def best_of(left: int, least: int, r: Repeats) -> Any:
    """Return the expert of a mask that is trusted most, and how much; -1 where none is trusted more than `least`."""
    best, worth = I64(-1), least
    for k in range(EXPERTS):
        if (left >> U64(k)) & U64(1) and r.values[k] >= 0:
            p = counter(r.trust, U64(k * STATES + r.states[k]))
            if p > worth:
                best, worth = I64(k), p
    return best, worth


@kernel
def recall(
    at: int,
    easy: bool,
    mean: int,
    inverse: int,
    plane: Plane,
    r: Repeats,
    coder: NDArray[np.uint64],
    tape: NDArray[np.uint32],
) -> Any:
    """Code the sample by guesses, or decode it. Returns its value, or -1 if no guess was right.

    mean, inverse: of the prediction's distribution (7), unless the sample is easy, when there is none.
    """
    near, left, reach = hits_near(at, plane, r), U64(ALL_EXPERTS), I64(256 * plane.max_error + 128)
    r.tried[0] = 0
    for i in range(TRIES):
        best, _ = best_of(left, I64(GATE - 1 if i == 0 else NEXT_GATE - 1), r)
        if best < 0:
            break
        value = r.values[best]
        r.tried[0], r.tried[1 + i] = I64(i + 1), value
        bit = I64(abs(plane.samples[at] - value) <= plane.max_error) if coder[0] == U64(0) else I64(0)
        opinion = I32(0)
        if not easy:
            t = (value << I64(8)) - mean
            mass = logistic((t + reach) * inverse >> I64(16)) - logistic((t - reach) * inverse >> I64(16))
            opinion = log_ratio(max(mass, U64(1)), max(U64(1 << MASS_BITS) - mass, U64(1)))
        bit, agreeing = guess(bit, I64(i), value, best, near, opinion, r, coder, tape)
        if bit:
            return value
        left &= ~agreeing
    return I64(-1)


@kernel
def guess(
    bit: int,
    i: int,
    value: int,
    best: int,
    near: int,
    opinion: int,
    r: Repeats,
    coder: NDArray[np.uint64],
    tape: NDArray[np.uint32],
) -> Any:
    """Code whether the i-th guess, a value, is right. Returns the bit, and which experts say this value: a mask."""
    agreeing = gather_inputs(i, value, opinion, r)
    one, two = U64((i * NEAR + near) * INPUTS), U64((TRIES * NEAR + i * EXPERTS + best) * INPUTS)
    x = (mix(r.weights, one, r.inputs) + mix(r.weights, two, r.inputs)) >> I64(1)
    p = squash(x)
    refined, cell = refine(r.maps, (U64(i) << U64(EXPERTS)) + agreeing, x)
    bit = code(coder, tape, bit, (p + refined) >> I64(1))
    learn(r.weights, one, r.inputs, (bit << I64(16)) - p, RATE)
    learn(r.weights, two, r.inputs, (bit << I64(16)) - p, RATE)
    for k in range(EXPERTS):
        count(r.agreement, r.places[k], bit, COUNTER_LIMIT)
    for d in range(DIRECT):
        count(r.direct, r.places[EXPERTS + d], bit, COUNTER_LIMIT)
    follow(r.maps, cell, bit, MAP_RATE)
    return bit, agreeing


@kernel
def gather_inputs(i: int, value: int, opinion: int, r: Repeats) -> Any:
    """Set the mixer's inputs for the i-th guess, and the places of its counters.

    Returns which experts say this value: a mask.
    """
    agreeing = U64(0)
    for k in range(EXPERTS):
        agree = I64(r.values[k] == value)
        agreeing |= U64(agree) << U64(k)
        r.places[k] = U64(((k * 2 + I64(i > 0)) * STATES + r.states[k]) * 2 + agree)
        r.inputs[k] = stretch(counter(r.agreement, r.places[k]))
    for d in range(DIRECT):
        order = LONGEST if d == DIRECT - 1 else d + 1
        place = U64(d << BITS) + (scramble(with_value(r.hashes[order], value)) >> U64(64 - BITS))
        r.places[EXPERTS + d] = place
        r.inputs[EXPERTS + d] = stretch(counter(r.direct, place))
    r.inputs[EXPERTS + DIRECT], r.inputs[EXPERTS + DIRECT + 1] = opinion, UNIT
    return agreeing


@kernel
def remember(at: int, value: int, plane: Plane, r: Repeats) -> None:
    """Learn what the sample was after all: for the experts' trust, the tables, and the hits."""
    r.hits[at] = r.tried[0] > 0 and r.tried[1] == value
    for k in range(EXPERTS):
        if r.values[k] >= 0:
            count(r.trust, U64(k * STATES + r.states[k]), I64(r.values[k] == value), COUNTER_LIMIT)
    for k in range(ORDERS):
        run = min(r.states[k] + 1, MOST_RUN) if r.values[k] == value else 1
        r.tables[r.slots[k]] = U32(r.checks[k] << U64(20) | U64(run) << U64(16) | U64(value))


@kernel
def gather(at: int, plane: Plane, r: Repeats) -> None:
    """Set every expert's value and state: those of the tables, and those of W and N, by how the neighbours agree."""
    s, up, before = plane.samples, plane.stride, plane.before
    w, n, nw, ne = s[at - 1], s[at - up], s[at - up - 1], s[at - up + 1]
    start, same_w, same_n = U64(0), I64(0), I64(0)
    for i in range(before.size):
        b = at + before[i]
        start = with_value(start, s[b])
        same_w += I64(s[b] == s[b - 1]) << I64(i)
        same_n += I64(s[b] == s[b - up]) << I64(i)
    hash_neighbourhoods(at, start, plane, r)
    for k in range(ORDERS):
        read(k, r)
    equal = I64(w == n) + I64(n == ne) * 2
    r.values[ORDERS], r.values[ORDERS + 1] = I64(w), I64(n)
    r.states[ORDERS] = equal + I64(w == nw) * 4 + same_w * 8 + I64(w == s[at - 2]) * 32
    r.states[ORDERS + 1] = equal + I64(n == nw) * 4 + same_n * 8 + I64(n == s[at - 2 * up]) * 32


@kernel
def hash_neighbourhoods(at: int, start: int, plane: Plane, r: Repeats) -> None:
    """Set the hashes of seven neighbourhoods, most of which grow out of each other.

    start: of the planes before, here.
    """
    s, up = plane.samples, plane.stride
    w, n, nw, ne = s[at - 1], s[at - up], s[at - up - 1], s[at - up + 1]
    r.hashes[5] = with_value(with_value(start, n), ne) if plane.before.size == 0 else start
    r.hashes[4] = with_value(start, w)
    r.hashes[3] = with_value(r.hashes[4], n)
    r.hashes[2] = with_value(with_value(r.hashes[3], nw), ne)
    r.hashes[1] = with_value(with_value(r.hashes[2], s[at - 2]), s[at - 2 * up])
    h = with_value(with_value(with_value(r.hashes[1], s[at - 2 * up + 1]), s[at - up + 2]), s[at - up - 2])
    r.hashes[0] = with_value(with_value(h, s[at - 2 * up - 1]), s[at - 3])
    h = with_value(with_value(with_value(r.hashes[0], s[at - 3 * up]), s[at - 3 * up - 1]), s[at - 3 * up + 1])
    h = with_value(with_value(with_value(h, s[at - 2 * up + 2]), s[at - 2 * up - 2]), s[at - up + 3])
    r.hashes[LONGEST] = with_value(with_value(h, s[at - up - 3]), s[at - 4])


@kernel
def read(k: int, r: Repeats) -> None:
    """Set the value and the state of order k by its table's entry, if that is of this neighbourhood."""
    g = scramble(r.hashes[k])
    slot, check = U64(k << BITS) + (g >> U64(64 - BITS)), (g >> U64(20)) & U64((1 << CHECK_BITS) - 1)
    r.slots[k], r.checks[k] = slot, check
    entry = U64(r.tables[slot])
    run = (entry >> U64(16)) & U64(MOST_RUN)
    known = entry >> U64(20) == check and run != U64(0)
    r.values[k] = I64(entry & U64(0xFFFF)) if known else I64(-1)
    r.states[k] = I64(run) if known else I64(0)


@kernel
def hits_near(at: int, plane: Plane, r: Repeats) -> Any:
    """Return how many of W, N, NW, NE were guessed at once, and 5 more if the plane before was here: 0 to 9."""
    hits, up = r.hits, plane.stride
    near = I64(hits[at - 1]) + I64(hits[at - up]) + I64(hits[at - up + 1]) + I64(hits[at - up - 1])
    return near + I64(5) * I64(hits[at + plane.before[0]]) if plane.before.size > 0 else near


@kernel
def with_value(h: int, value: int) -> Any:
    """Return a hash with one more value in it: `add` of FORMAT.md."""
    return (h + U64(value) + U64(1)) * U64(HASH)


@kernel
def scramble(h: int) -> Any:
    """Return a hash whose upper bits depend on all others: `m` of FORMAT.md."""
    return (h ^ h >> U64(29)) * U64(HASH)
