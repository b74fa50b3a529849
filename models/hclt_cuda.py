"""Circuit coding on a GPU: the bytes of `Hclt.encode`, for all pictures of many blocks at once.

It walks the steps of `Hclt.plan`. Messages are integers in float64 tensors, and a product of matrices is exact,
whatever the order of its sums, because all sums stay below 2**53: messages by transitions 256 * 2**20 * 2**15 = 2**43,
weights by bounds 2**16 * 2**20, predictions below 255 * 2**15 * 2**8. All else are Triton kernels in int64: one program
of one warp per picture, and for the rANS states, which are serial, one per block. A pixel takes some fifteen launches,
however many pictures there are: a few take almost as long as many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from laconic.entropy import rans
from laconic.entropy.errors import BadInput, expect
from laconic.entropy.intervals import WIDE_BITS, write_stream
from laconic.models import hclt
from laconic.models.hclt import DOWN, EMIT, PREDICTION_BITS, VALUES, Hclt

INTERPRETED = triton.knobs.runtime.interpret  # in tests: then everything runs on the host
AT_ONCE = 1 << 31  # bytes of messages, CDFs and intervals that a group of blocks takes, roughly
N_VALUES = tl.constexpr(VALUES)
ROWS = tl.constexpr(VALUES + 1)  # bounds per distribution: one below each value, and the end
BITS = tl.constexpr(WIDE_BITS)
WHOLE = tl.constexpr(1 << WIDE_BITS)
START = tl.constexpr(rans.START_WIDE)
SHIFT = tl.constexpr(hclt.CDF_SHIFT)
MESSAGE_BITS = tl.constexpr(hclt.MESSAGE_BITS)
WEIGHTS = tl.constexpr(1 << hclt.WEIGHT_BITS)
UNIT = tl.constexpr(1 << hclt.INVERSE_BITS)
UNIT_SHIFT = tl.constexpr(hclt.INVERSE_BITS - hclt.WEIGHT_BITS)


def encode(model: Hclt, blocks: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """Return a stream for each block, uint8 [n, H, W]. Raises BadInput."""
    rows, tables = [model.rows(block) for block in blocks], tables_of(model, device())
    parts = grouped(model, [len(block) for block in blocks])
    return [stream for part in parts for stream in encode_group(tables, rows[part])]


def decode(model: Hclt, streams: Sequence[bytes | memoryview], sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Return the pictures of each stream, uint8 [n, H, W]. sizes: how many. Raises BadFile as `Hclt.decode` does."""
    tables, shape = tables_of(model, device()), (model.height, model.width)
    found = (decode_group(tables, streams[part], sizes[part]) for part in grouped(model, sizes))
    return [rows.reshape(-1, *shape) for group in found for rows in group]


def device() -> torch.device:
    """Return the device that codes. Raises BadInput where there is none."""
    expect(INTERPRETED or torch.cuda.is_available(), BadInput, "device", "no CUDA device", "one, or device cpu")
    return torch.device("cpu" if INTERPRETED else "cuda")


def grouped(model: Hclt, sizes: Sequence[int]) -> Iterator[slice]:
    """Yield runs of blocks to code at once: as many pictures as AT_ONCE has room for, or one block."""
    deepest, widest, classes = int(model.plan[:, 1].max()) + 1, int(model.states.max()), int(model.n_contexts.max())
    most = AT_ONCE // (8 * (2 * deepest * widest + ROWS.value * classes + 5 * model.n_pixels))
    first, total = 0, 0
    for b, n in enumerate(sizes):
        if first < b and total + n > most:
            yield slice(first, b)
            first, total = b, 0
        total += n
    if sizes:
        yield slice(first, len(sizes))


def encode_group(tables: Tables, rows: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """Return the streams of blocks, uint8 [n, D] each."""
    known = torch.from_numpy(np.concatenate(rows).T.astype(np.int64)).to(tables.device)
    starts, freqs = list[Tensor](), list[Tensor]()

    def code(v: int, weights: Tensor, classes: Tensor) -> Tensor:
        row, bounds = classes * ROWS.value + known[v], tables.bounds[v]
        low, high = ((weights * bounds[at]).sum(1).long() >> SHIFT.value for at in (row, row + 1))
        starts.append(low)
        freqs.append(high - low)
        return known[v]

    walk(tables, known.shape[1], code)
    firsts, (n_pixels, n) = tables.firsts(map(len, rows)), known.shape
    words = torch.empty(known.numel(), dtype=torch.int32, device=tables.device)
    states, begins = (torch.empty(len(rows), dtype=torch.int64, device=tables.device) for _ in range(2))
    intervals = torch.stack(starts), torch.stack(freqs)
    push_blocks[(len(rows),)](*intervals, n, n_pixels, firsts, words, states, begins, num_warps=1)
    final, coded = states.cpu().numpy().astype(np.uint64), words.cpu().numpy().view(np.uint32)
    places = zip(begins.tolist(), (firsts[1:] * n_pixels).tolist(), strict=True)
    return [write_stream(final[b : b + 1], coded[begin:end]) for b, (begin, end) in enumerate(places)]


def decode_group(
    tables: Tables, data: Sequence[bytes | memoryview], sizes: Sequence[int]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the blocks, uint8 [n, D], of streams. Raises BadFile."""
    streams = [tables.model.open(stream, n) for stream, n in zip(data, sizes, strict=True)]
    words = torch.from_numpy(np.concatenate([s.words for s in streams]).view(np.int32)).to(tables.device)
    states = torch.from_numpy(np.concatenate([s.states for s in streams]).view(np.int64)).to(tables.device)
    firsts, word_firsts = tables.firsts(sizes), tables.firsts(len(s.words) for s in streams)
    cursors = torch.zeros_like(states)

    def code(v: int, weights: Tensor, classes: Tensor) -> Tensor:
        cdf, values = weights @ tables.bounds[v].double().T, torch.empty_like(classes)
        coded = (firsts, words, word_firsts, states, cursors)
        pop_blocks[(len(streams),)](cdf, classes, int(tables.model.n_contexts[v]), *coded, values, num_warps=1)
        return values

    rows = walk(tables, sum(sizes), code).cpu().numpy()
    spans = itertools.pairwise(firsts.tolist())
    for stream, state, cursor, (first, end) in zip(streams, states.tolist(), cursors.tolist(), spans, strict=True):
        stream.states[0] = state
        stream.finish(cursor)
        yield rows[:, first:end].T


def walk(tables: Tables, n: int, code: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """Do what `hclt_reference.Reference.run` does, and return the n pictures as uint8 [D, n].

    code: is called for each pixel in coding order with the mixture's weights, float64 [n, M], and the contexts, int64
    [n]; gives the values, int64 [n].
    """
    model, widest = tables.model, triton.next_power_of_2(int(tables.model.states.max()))
    pictures = torch.zeros((model.n_pixels, n), dtype=torch.uint8, device=tables.device)
    messages, above = tables.ones(n, len(tables.initial)), list[Tensor]()  # a and up of `Reference`
    messages[0] = tables.initial
    for step, _, v, m, inner, place in model.plan.tolist():
        if step == EMIT:
            weights, classes = torch.empty_like(messages[0]), tables.context(v, pictures)
            mix[(n,)](messages, weights, m, widest, num_warps=1)
            values = code(v, weights, classes)
            pictures[v] = values
            rows = classes * ROWS.value + values
            absorb[(n, 2)](messages, tables.bounds[v], rows, m, widest, num_warps=1)
            continue
        transition = tables.transitions[place : place + m * inner].view(m, inner)
        if step == DOWN:
            above.append(messages)
            answers, messages = messages[0] @ transition, tables.ones(n, inner)
            multiply[(n, 1)](messages, answers, inner, widest, num_warps=1)
        else:
            answers, messages = messages[1] @ transition.T, above.pop()
            multiply[(n, 2)](messages, answers, m, widest, num_warps=1)
    return pictures


@dataclass(frozen=True)
class Tables:
    """Holds a model on a device.

    bounds: int32 [contexts * 257, M] per pixel. transitions, flat, and initial: float64. contexts: per pixel the
    neighbours, their weights, and the least prediction of each context but the first.
    """

    model: Hclt
    device: torch.device
    bounds: list[Tensor]
    transitions: Tensor
    initial: Tensor
    contexts: list[tuple[Tensor, ...]]

    def context(self, v: int, pictures: Tensor) -> Tensor:
        """Return the contexts of pixel v, int64 [n], as `hclt.context` does. pictures: uint8 [D, n]."""
        near, weights, least = self.contexts[v]
        if not len(least):
            return torch.zeros(pictures.shape[1], dtype=torch.int64, device=self.device)
        return torch.bucketize(weights @ pictures[near].double(), least, right=True)

    def ones(self, n: int, m: int) -> Tensor:
        """Return messages [2, n, m] that say nothing."""
        return torch.ones((2, n, m), dtype=torch.float64, device=self.device)

    def firsts(self, sizes: Iterable[int]) -> Tensor:
        """Return where parts of these sizes begin, and where the last one ends: int64 [n + 1]."""
        return torch.tensor([0, *itertools.accumulate(sizes)], device=self.device)


@lru_cache(maxsize=2)
def tables_of(model: Hclt, device: torch.device) -> Tables:
    """Put a model on a device. The last two stay there."""

    def put(array: NDArray[np.generic], dtype: type[np.generic]) -> Tensor:
        return torch.from_numpy(array.astype(dtype)).to(device)

    _, places, lower, _, _, near, neighbours, weights, cuts, thresholds = model.tables
    bounds, contexts = list[Tensor](), list[tuple[Tensor, ...]]()
    for v in range(model.n_pixels):
        table = lower[places[v] : places[v + 1]].reshape(-1, VALUES, int(model.states[model.owners[v]]))
        whole = np.pad(table, ((0, 0), (0, 1), (0, 0)), constant_values=1 << hclt.EMISSION_BITS)
        bounds.append(put(whole.reshape(-1, table.shape[2]), np.int32))
        part, least = slice(near[v], near[v + 1]), np.sort(thresholds[cuts[v] : cuts[v + 1]])
        known = put(neighbours[part], np.int64), put(weights[part], np.float64)
        contexts.append((*known, put(least, np.float64) * (1 << PREDICTION_BITS)))
    return Tables(model, device, bounds, put(model.transitions, np.float64), put(model.initial, np.float64), contexts)


@triton.jit(do_not_specialize=["m"])
def mix(messages, weights, m, WIDEST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Do what `hclt.mixture` does, for one picture's messages."""
    j = tl.arange(0, WIDEST)
    at = tl.program_id(0).to(tl.int64) * m + j
    a = tl.load(messages + at, mask=j < m, other=0).to(tl.int64)
    w = a * (UNIT // tl.sum(a, axis=0)) >> UNIT_SHIFT
    first = tl.min(tl.where(a == tl.max(a, axis=0), j, WIDEST), axis=0)
    w += tl.where(j == first, WEIGHTS - tl.sum(w, axis=0), 0)
    tl.store(weights + at, w.to(tl.float64), mask=j < m)


@triton.jit(do_not_specialize=["m"])
def absorb(messages, bounds, rows, m, WIDEST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Do what `hclt.absorb` does, for messages [2, n, m] and the bounds from each picture's row on."""
    j = tl.arange(0, WIDEST)
    row = tl.load(rows + tl.program_id(0)) * m + j
    low = tl.load(bounds + row, mask=j < m, other=0)
    high = tl.load(bounds + row + m, mask=j < m, other=0)
    scale_row(messages, (high - low).to(tl.int64), m, j)


@triton.jit(do_not_specialize=["m"])
def multiply(messages, answers, m, WIDEST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Do what `hclt.multiply` does, for messages [1 or 2, n, m] and answers [n, m] that are still to be rescaled."""
    j = tl.arange(0, WIDEST)
    answer = tl.load(answers + tl.program_id(0).to(tl.int64) * m + j, mask=j < m, other=0)
    scale_row(messages, rescaled(answer.to(tl.int64)), m, j)


@triton.jit
def scale_row(messages, factors, m, j):  # type: ignore[no-untyped-def]
    """Multiply this program's row of messages by factors, and rescale it."""
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    message = tl.load(messages + row * m + j, mask=j < m, other=0).to(tl.int64)
    tl.store(messages + row * m + j, rescaled(message * factors).to(tl.float64), mask=j < m)


@triton.jit
def rescaled(wide):  # type: ignore[no-untyped-def]
    """Do what `hclt.rescale` does. A float64 x >= 1 of n bits has the exponent 1022 + n above its fraction."""
    top = tl.max(wide, axis=0).to(tl.float64).to(tl.int64, bitcast=True)
    shift = (top >> 52) - 1022 - MESSAGE_BITS
    return tl.maximum(wide >> tl.maximum(shift, 0) << tl.maximum(-shift, 0), 1)


@triton.jit(do_not_specialize=["stride", "n_pixels"])
def push_blocks(starts, freqs, stride, n_pixels, firsts, words, states, begins):  # type: ignore[no-untyped-def]
    """Code intervals [D, N] of each block backward, as `rans.push_wide`.

    starts, freqs: int64 [D, stride], a column per picture; firsts says which pictures a block has. A block has room for
    one word per sample, and its words fill the end of that: `begins` says from where on. states: int64 [blocks].
    """
    block = tl.program_id(0)
    first = tl.load(firsts + block)
    end = tl.load(firsts + block + 1)
    cursor = end * n_pixels
    x = tl.full([], START, tl.int64)
    row = n_pixels.to(tl.int64) * stride
    while row > 0:
        row -= stride
        i = end
        while i > first:
            i -= 1
            start = tl.load(starts + row + i)
            freq = tl.load(freqs + row + i)
            over = x >> (63 - BITS) >= freq
            cursor -= over.to(tl.int64)
            tl.store(words + cursor, x.to(tl.int32), mask=over)
            x = tl.where(over, x >> 32, x)
            q = x // freq
            x = (q << BITS) + start + x - q * freq
    tl.store(states + block, x)
    tl.store(begins + block, cursor)


@triton.jit(do_not_specialize=["n_classes"])
def pop_blocks(  # type: ignore[no-untyped-def]
    cdf, classes, n_classes, firsts, words, word_firsts, states, cursors, values
):
    """Take the values [N] of a pixel out of each block's state, as `rans.pop_wide` does.

    cdf: [N * n_classes, 257], and a picture's row of it is that of its class. A cursor past the last word reads 0: in
    the end the state is wrong then, or the cursor. The bounds of the next picture are loaded ahead.
    """
    block = tl.program_id(0)
    i = tl.load(firsts + block)
    end = tl.load(firsts + block + 1)
    x = tl.load(states + block)
    cursor = tl.load(cursors + block)
    words += tl.load(word_firsts + block)
    n_words = tl.load(word_firsts + block + 1) - tl.load(word_firsts + block)
    upper = load_bounds(cdf, classes, n_classes, i, end)
    while i < end:
        after = load_bounds(cdf, classes, n_classes, i + 1, end)
        slot = x & (WHOLE - 1)
        below = upper <= slot
        low = tl.max(tl.where(below, upper, 0), axis=0)
        high = tl.min(tl.where(below, WHOLE, upper), axis=0)
        tl.store(values + i, tl.sum(below.to(tl.int64), axis=0))
        x = (high - low) * (x >> BITS) + slot - low
        under = x < START
        word = tl.load(words + cursor, mask=under & (cursor < n_words), other=0).to(tl.int64) & 0xFFFFFFFF
        x = tl.where(under, x << 32 | word, x)
        cursor += under.to(tl.int64)
        upper = after
        i += 1
    tl.store(states + block, x)
    tl.store(cursors + block, cursor)


@triton.jit
def load_bounds(cdf, classes, n_classes, i, end):  # type: ignore[no-untyped-def]
    """Return where each value's interval ends in picture i, int64 [256]."""
    inside = i < end
    row = i * n_classes + tl.load(classes + i, mask=inside, other=0)
    above = row * ROWS + 1 + tl.arange(0, N_VALUES)
    return tl.load(cdf + above, mask=inside, other=0).to(tl.int64) >> SHIFT
