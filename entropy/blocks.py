"""Blocks: the layout of coded symbols in bytes (FORMAT.md, "Symbols"), the same for every backend.

    head     varint: 8 x number of words + 4 if escapes follow + lane code (0: 1 lane, 1: 4, 2: 8, 3: 32)
    length   varint: bytes of the escapes, if they follow
    states   uint32 per lane, little-endian
    words    uint16 each, little-endian
    escapes  in symbol order: the distance of each escaped symbol from its row, zigzag, as a varint

Symbols are cut into blocks of at most 2**18. The number of symbols is not stored: whoever decodes has a table index for
each. The kernels, which turn symbols into states and words, are modules of the form `Backend`; `coder.py` knows them
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.tables import Tables, ranged
from laconic.entropy.threads import in_parts
from laconic.entropy.varint import read_varint, write_varint

BLOCK = 1 << 18
LANES = (1, 4, 8, 32)
LANE_BYTES = (2_000, 8_000, 32_000)  # an estimate below these: 1, 4, 8 lanes; above them all: 32
RUNS, RUN = 256, 4  # the number of lanes is chosen by a sample of about 256 runs of 4 symbols
BLOCKS_PER_CALL = 16  # for kernels that code several blocks in one call
BYTES_AFTER = 128  # those kernels may read so far beyond the words of a block
Symbols = NDArray[np.int16]
Rows = NDArray[Any]  # uint8 if the tables have at most 256 rows, else uint16
Words = NDArray[np.uint16]
Positions = NDArray[np.int64]
Coded = tuple[list[int], Words, Positions]  # final states, words in reading order, where escapes stand
T = TypeVar("T")


class Backend(Protocol):
    """Offers what every module of kernels does: `encode_block` and `decode_block`, as `rans.py` describes them."""

    def encode_block(self, symbols: Symbols, indices: Rows, tables: Tables, n_lanes: int) -> Coded: ...

    def decode_block(
        self, states: list[int], words: Words, indices: Rows, tables: Tables, out: Symbols
    ) -> Positions: ...


class BatchBackend(Backend, Protocol):
    """Offers what a module may have besides: several blocks in one call, which saves the cost of calls.

    The blocks are neighbours of one size, coded in 32 lanes; there are BYTES_AFTER bytes of memory after their words.
    """

    def encode_blocks(self, symbols: Symbols, indices: Rows, tables: Tables, n_blocks: int) -> list[Coded]: ...

    def decode_blocks(
        self, states: list[list[int]], words: list[Words], indices: Rows, tables: Tables, out: Symbols
    ) -> Positions: ...

    def estimated_bytes(self, symbols: Symbols, indices: Rows, tables: Tables) -> NDArray[np.float64]: ...


def takes_batches(kernels: Backend) -> TypeGuard[BatchBackend]:
    """Tell whether a module of kernels is a `BatchBackend`; isinstance would take 30 microseconds."""
    return hasattr(kernels, "encode_blocks")


class Job(NamedTuple):
    """Holds a block to decode. escapes: their bytes. after: bytes of the data after the words, which kernels may read."""

    span: slice
    states: list[int]
    words: Words
    escapes: memoryview
    after: int


def encode_with(
    kernels: Backend, values: NDArray[Any], rows: NDArray[Any], tables: Tables, threads: int | None
) -> bytes:
    """Code integers [N] with a table row each, by given kernels; see `coder.encode`. Raises BadInput."""

    def code(spans: list[slice]) -> list[bytes]:
        part = slice(spans[0].start, spans[-1].stop)
        return encode_part(symbols_of(values[part]), rows_of(rows[part], tables), tables, kernels)

    parts = in_parts(code, list(cut(len(values))), threads)
    return b"".join(parts)


def decode_with(
    kernels: Backend, raw: memoryview, rows: NDArray[Any], tables: Tables, threads: int | None, spare_words: int = 0
) -> tuple[Symbols, memoryview]:
    """Decode as many symbols as there are rows, by given kernels; also return the bytes after them.

    spare_words: how many more words than symbols a block may have. Raises BadFile on damage.
    """
    jobs, position = list[Job](), 0
    for span in cut(len(rows)):
        job, position = parse(raw, position, span, spare_words)
        jobs.append(job)
    symbols = np.empty(len(rows), np.int16)

    def fill(some: list[Job]) -> list[None]:
        part = slice(some[0].span.start, some[-1].span.stop)
        decode_part(some, rows_of(rows[part], tables), tables, kernels, symbols[part])
        return []

    in_parts(fill, jobs, threads)
    return symbols, raw[position:]


def expect_nothing_left(rest: memoryview) -> None:
    """Raise BadFile if bytes follow the coded symbols."""
    expect(not rest, BadFile, "coded symbols", f"{len(rest)} bytes more", "the end")


def end_of(data: bytes | memoryview, position: int, n: int) -> int:
    """Return where n coded symbols that begin at a position end, without decoding them. Raises BadFile."""
    raw = flat(data)
    for span in cut(n):
        _, position = parse(raw, position, span, 0)
    return position


def parse(raw: memoryview, position: int, span: slice, spare_words: int) -> tuple[Job, int]:
    """Find the states, words and escapes of one block; also return where it ends. Raises BadFile."""
    head, position = read_varint(raw, position, "block head")
    n_words, lanes = head >> 3, LANES[head & 3]
    n_escape, position = read_varint(raw, position, "escape bytes") if head & 4 else (0, position)
    most = span.stop - span.start + spare_words
    expect(n_words <= most, BadFile, "words", n_words, f"at most {most}, as the block's symbols can need")
    end = position + 4 * lanes + 2 * n_words + n_escape
    expect(end <= len(raw), BadFile, "block length", len(raw) - position, f"at least {end - position} bytes")
    states = np.frombuffer(raw[position : position + 4 * lanes], "<u4")
    expect(bool((states >= 1 << 16).all()), BadFile, "states", int(states.min()), f"at least {1 << 16}")
    words = np.frombuffer(raw[position + 4 * lanes : end - n_escape], "<u2")
    escapes = raw[end - n_escape : end]
    return Job(span, states.tolist(), words, escapes, len(raw) - end + n_escape), end


def encode_part(symbols: Symbols, indices: Rows, tables: Tables, kernels: Backend) -> list[bytes]:
    """Code neighbouring blocks; return their bytes, in pieces."""
    jobs = list(zip(cut(len(symbols)), lane_codes(symbols, indices, tables, kernels), strict=True))

    def size(job: tuple[slice, int]) -> int | None:
        span, lane_code = job
        return span.stop - span.start if LANES[lane_code] == LANES[-1] else None

    parts: list[bytes] = []
    for run in runs(jobs, size, kernels):
        span, lane_code = slice(run[0][0].start, run[-1][0].stop), run[0][1]
        values, rows = symbols[span], indices[span]
        if len(run) > 1 and takes_batches(kernels):
            coded = kernels.encode_blocks(values, rows, tables, len(run))
        else:
            coded = [kernels.encode_block(values, rows, tables, LANES[lane_code])]
        for (block, _), (states, words, escapes) in zip(run, coded, strict=True):
            where = escapes + block.start
            parts += block_bytes(states, words, symbols[where], indices[where], tables, lane_code)
    return parts


def runs(jobs: list[T], size: Callable[[T], int | None], kernels: Backend) -> Iterator[list[T]]:
    """Yield the jobs that one call of the kernels codes: neighbours of one size; a job whose size is None alone."""
    for n, group in groupby(jobs, size):
        left = list(group)
        most = BLOCKS_PER_CALL if n is not None and takes_batches(kernels) else 1
        yield from (left[first : first + most] for first in range(0, len(left), most))


def block_bytes(
    states: list[int], words: Words, escaped: Symbols, rows: Rows, tables: Tables, lane_code: int
) -> list[bytes]:
    """Return the bytes of one block, in pieces. escaped, rows: its escaped symbols, and their rows of the tables."""
    escapes = write_escapes(escaped, rows, tables) if len(escaped) else b""
    head = write_varint(len(words) << 3 | (4 if escapes else 0) | lane_code)
    head += write_varint(len(escapes)) if escapes else b""
    return [head, np.array(states, "<u4").tobytes(), words.astype("<u2", copy=False).tobytes(), escapes]


def lane_codes(symbols: Symbols, indices: Rows, tables: Tables, kernels: Backend) -> list[int]:
    """Choose the number of lanes of each block: a place in LANES. The whole blocks are looked at in one call."""
    whole = len(symbols) // BLOCK * BLOCK
    estimate = kernels.estimated_bytes if takes_batches(kernels) else estimated_bytes
    estimates = estimate(symbols[:whole].reshape(-1, BLOCK), indices[:whole].reshape(-1, BLOCK), tables).tolist()
    if whole < len(symbols):
        estimates.append(float(estimated_bytes(symbols[whole:], indices[whole:], tables)))
    return [sum(estimate >= limit for limit in LANE_BYTES) for estimate in estimates]


def estimated_bytes(symbols: Symbols, indices: Rows, tables: Tables) -> NDArray[np.float64]:
    """Estimate the coded size of blocks [..., n] by a sample of their symbols.

    The sample is runs of RUN symbols, an odd distance apart, since channels often come in even numbers. Its sum, of at
    most 1228 float32 below 16, is exact in any order, so that every kernel finds the same estimate.
    """
    n = symbols.shape[-1]
    n_bytes: NDArray[np.float64]
    if n <= RUNS * RUN:
        n_bytes = tables.costs(symbols, indices).sum(-1, dtype=np.float64) / 8
        return n_bytes
    step = n // RUNS | 1
    n_runs = n // step

    def sample(values: NDArray[Any]) -> NDArray[Any]:
        return values[..., : n_runs * step].reshape(*values.shape[:-1], n_runs, step)[..., :RUN]

    n_bytes = tables.costs(sample(symbols), sample(indices)).sum((-1, -2), dtype=np.float64) * n / (8 * RUN * n_runs)
    return n_bytes


def decode_part(jobs: list[Job], indices: Rows, tables: Tables, kernels: Backend, out: Symbols) -> None:
    """Decode neighbouring blocks into `out`. Raises BadFile on damage."""

    def size(job: Job) -> int | None:
        many = len(job.states) == LANES[-1] and job.after >= BYTES_AFTER
        return job.span.stop - job.span.start if many else None

    begin = jobs[0].span.start
    for run in runs(jobs, size, kernels):
        span = slice(run[0].span.start - begin, run[-1].span.stop - begin)
        values, rows = out[span], indices[span]
        if len(run) > 1 and takes_batches(kernels):
            states, words = [job.states for job in run], [job.words for job in run]
            escapes = kernels.decode_blocks(states, words, rows, tables, values)
        else:
            escapes = kernels.decode_block(run[0].states, run[0].words, rows, tables, values)
        for job in run:
            first, last = (edge - begin - span.start for edge in (job.span.start, job.span.stop))
            where = escapes[slice(*np.searchsorted(escapes, (first, last)))]
            read_escapes(values, where, rows, tables, job.escapes)


def write_escapes(symbols: Symbols, indices: Rows, tables: Tables) -> bytes:
    """Code symbols outside their rows: 2d for a distance d >= 0 above the row, 2d + 1 for d below it."""
    beyond, last = symbols - tables.offsets[indices], tables.sizes[indices] - 1
    return b"".join(
        write_varint(2 * (e - n) if e >= 0 else 2 * (-1 - e) + 1)
        for e, n in zip(beyond.tolist(), last.tolist(), strict=True)
    )


def read_escapes(symbols: Symbols, where: Positions, indices: Rows, tables: Tables, escapes: memoryview) -> None:
    """Put the escaped values in their places among the symbols. Raises BadFile."""
    position = 0
    for i in where.tolist():
        code, position = read_varint(escapes, position, "escape")
        first, last = int(tables.offsets[indices[i]]), int(tables.sizes[indices[i]]) - 1
        value = first - 1 - code // 2 if code & 1 else first + last + code // 2
        expect(-(1 << 15) <= value < 1 << 15, BadFile, "escaped symbol", value, "a 16-bit integer")
        symbols[i] = value
    expect(position == len(escapes), BadFile, "escapes", len(escapes), f"{position} bytes")


def cut(n: int) -> Iterator[slice]:
    """Yield the spans of the blocks of n symbols."""
    return (slice(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK))


def symbols_of(values: NDArray[Any]) -> Symbols:
    """Return integers as the symbols that kernels take. Raises BadInput if one is beyond 16 bits."""
    return ranged(values, "symbols", -(1 << 15), 1 << 15).astype(np.int16, copy=False)


def rows_of(indices: NDArray[Any], tables: Tables) -> Rows:
    """Return table indices in the type that kernels take. Raises BadInput if the tables lack such a row."""
    kind = np.uint8 if len(tables.sizes) <= 256 else np.uint16
    return ranged(indices, "indices", 0, len(tables.sizes)).astype(kind, copy=False)


def flat(data: bytes | memoryview) -> memoryview:
    """Return a view of bytes-like data of any shape as bytes. Raises BadInput unless they lie one after the other."""
    try:
        raw = memoryview(data)
    except TypeError:
        raise BadInput(f"data: found {type(data).__name__}, expected bytes") from None
    expect(raw.c_contiguous, BadInput, "data", "a strided view", "contiguous bytes")
    return raw.cast("B")
