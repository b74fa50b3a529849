"""Blocks: the layout of coded symbols in bytes (FORMAT.md, section "Symbols"), shared by all backends.

    head     varint: 8 x number of words + 4 where escapes follow + lane code (0: 1 lane, 1: 4, 2: 8, 3: 32)
    length   varint: bytes of the escapes, where they follow
    states   uint32 a lane, little-endian
    words    uint16 each, little-endian
    escapes  in symbol order: the distance of each escaped symbol from its row, zigzag, as a varint

Symbols are cut into blocks of at most 2**18; the number of symbols is not stored, the table indices know it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib import import_module
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.environment import n_cores
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.tables import Tables, integers, ranged

BLOCK = 1 << 18
LANES = (1, 4, 8, 32)
LANE_BYTES = (2_000, 8_000, 32_000)  # below so many bytes: 1, 4, 8 lanes; above: 32
MOST, AFTER = 16, 128  # blocks coded in one call; bytes that must follow the words of all of them
RUNS, RUN = 256, 4  # the sample that a block's number of lanes is chosen by
BACKENDS = {
    "simd": "laconic.entropy.rans_simd",
    "numba": "laconic.entropy.rans_numba",
    "reference": "laconic.entropy.rans",
    "constriction": "laconic.entropy.rans_constriction",
}
CUDA = "cuda"  # no blocks one by one: see `rans_cuda`
SPARE_WORDS = {"constriction": 4}  # beyond one a symbol: it ends on whole 32-bit words
Symbols = NDArray[np.int16]
Rows = NDArray[Any]  # uint8 where the tables have at most 256 rows, else uint16
Positions = NDArray[np.int64]
Coded = tuple[list[int], NDArray[np.uint16], Positions]  # final states, words in reading order, where escapes stand
T = TypeVar("T")
R = TypeVar("R")


def encode(
    symbols: ArrayLike,
    indices: ArrayLike,
    tables: Tables,
    backend: str = "simd",
    threads: int | None = None,
) -> bytes:
    """Code integers with a table each.

    symbols: integers [N] in -2**15 .. 2**15 - 1. indices: rows of the tables, integers [N].
    backend: see BACKENDS, or "cuda"; all but constriction, which only reads its own, give the same bytes.
    threads: how many blocks at a time; None is one a core. Arrays are read while others run: they must not change.
    Raises BadInput.
    """
    values, rows = integers(symbols, "symbols"), integers(indices, "indices")
    expect(len(values) == len(rows), BadInput, "indices", len(rows), f"{len(values)}, one a symbol")
    if backend == CUDA:
        from laconic.entropy import rans_cuda

        return rans_cuda.encode_array(symbols_of(values), rows_of(rows, tables), tables)
    coder = load(backend)

    def code(spans: list[slice]) -> list[bytes]:
        part = slice(spans[0].start, spans[-1].stop)
        return encode_part(symbols_of(values[part]), rows_of(rows[part], tables), tables, coder)

    parts = in_parts(code, list(cut(len(values))), threads)
    return b"".join(parts)


def decode(
    data: bytes | memoryview,
    indices: ArrayLike,
    tables: Tables,
    backend: str = "simd",
    threads: int | None = None,
) -> NDArray[np.int16]:
    """The symbols int16 [N] that `encode` was given, with the same indices and tables. Raises BadFile on damage."""
    symbols, rest = decode_next(data, indices, tables, backend, threads)
    expect(not rest, BadFile, "coded symbols", f"{len(rest)} bytes more", "the end")
    return symbols


def decode_next(
    data: bytes | memoryview,
    indices: ArrayLike,
    tables: Tables,
    backend: str = "simd",
    threads: int | None = None,
) -> tuple[NDArray[np.int16], memoryview]:
    """As `decode`, where more may follow: also returns the bytes after the coded symbols."""
    rows, raw, position, jobs = integers(indices, "indices"), flat(data), 0, list[Job]()
    if backend == CUDA:
        from laconic.entropy import rans_cuda

        end = end_of(raw, 0, len(rows))
        return rans_cuda.decode_array(raw[:end], rows_of(rows, tables), tables), raw[end:]
    coder = load(backend)
    for span in cut(len(rows)):
        block, position = parse(raw, position, span, SPARE_WORDS.get(backend, 0))
        jobs.append(block)
    symbols = np.empty(len(rows), np.int16)

    def fill(some: list[Job]) -> list[None]:
        part = slice(some[0].span.start, some[-1].span.stop)
        decode_part(some, rows_of(rows[part], tables), tables, coder, symbols[part])
        return []

    in_parts(fill, jobs, threads)
    return symbols, raw[position:]


class Job(NamedTuple):
    """A block to decode. after: bytes of the data that follow the words, which a backend may read."""

    span: slice
    states: list[int]
    words: NDArray[np.uint16]
    side: memoryview
    after: int


def end_of(data: bytes | memoryview, position: int, n: int) -> int:
    """Where n coded symbols that begin at a position end, without decoding them. Raises BadFile."""
    raw = flat(data)
    for span in cut(n):
        _, position = parse(raw, position, span, 0)
    return position


def parse(raw: memoryview, position: int, span: slice, spare: int) -> tuple[Job, int]:
    """Bounds of one block: its states, words and escapes."""
    head, position = read_varint(raw, position, "block head")
    n_words, lanes = head >> 3, LANES[head & 3]
    n_escape, position = read_varint(raw, position, "escape bytes") if head & 4 else (0, position)
    most = span.stop - span.start + spare
    expect(n_words <= most, BadFile, "words", n_words, f"at most {most}, as the block's symbols can need")
    end = position + 4 * lanes + 2 * n_words + n_escape
    expect(end <= len(raw), BadFile, "block length", len(raw) - position, f"at least {end - position} bytes")
    states = np.frombuffer(raw[position : position + 4 * lanes], "<u4")
    expect(bool((states >= 1 << 16).all()), BadFile, "states", int(states.min()), f"at least {1 << 16}")
    words = np.frombuffer(raw[position + 4 * lanes : end - n_escape], "<u2")
    side = raw[end - n_escape : end]
    return Job(span, states.tolist(), words, side, len(raw) - end + n_escape), end


def encode_part(symbols: Symbols, indices: Rows, tables: Tables, coder: Backend) -> list[bytes]:
    """Neighbouring blocks -> their bytes, in pieces."""
    jobs = list(zip(cut(len(symbols)), lane_codes(symbols, indices, tables, coder), strict=True))

    def size(job: tuple[slice, int]) -> int | None:
        span, lane_code = job
        return span.stop - span.start if LANES[lane_code] == LANES[-1] else None

    parts: list[bytes] = []
    for run in runs(jobs, size, coder):
        span, lane_code = slice(run[0][0].start, run[-1][0].stop), run[0][1]
        values, rows = symbols[span], indices[span]
        if len(run) > 1:
            coded = coder.encode_blocks(values, rows, tables, len(run))
        else:
            coded = [coder.encode_block(values, rows, tables, LANES[lane_code])]
        for (block, _), (states, words, escapes) in zip(run, coded, strict=True):
            where = escapes + block.start
            parts += block_bytes(states, words, symbols[where], indices[where], tables, lane_code)
    return parts


def runs(jobs: list[T], size: Callable[[T], int | None], coder: Backend) -> Iterator[list[T]]:
    """Neighbours of one size for a backend that codes several in one call; those of none alone."""
    for n, group in groupby(jobs, size):
        left = list(group)
        most = MOST if n is not None and hasattr(coder, "encode_blocks") else 1
        yield from (left[first : first + most] for first in range(0, len(left), most))


def block_bytes(
    states: list[int], words: NDArray[np.uint16], escaped: Symbols, rows: Rows, tables: Tables, lane_code: int
) -> list[bytes]:
    side = write_escapes(escaped, rows, tables) if len(escaped) else b""
    head = write_varint(len(words) << 3 | (4 if side else 0) | lane_code) + (write_varint(len(side)) if side else b"")
    return [head, np.array(states, "<u4").tobytes(), words.astype("<u2", copy=False).tobytes(), side]


def lane_codes(symbols: Symbols, indices: Rows, tables: Tables, coder: Backend) -> list[int]:
    """A place in LANES for each block, the whole ones at once."""
    whole = len(symbols) // BLOCK * BLOCK
    estimate = getattr(coder, "estimated_bytes", estimated_bytes)
    estimates = estimate(symbols[:whole].reshape(-1, BLOCK), indices[:whole].reshape(-1, BLOCK), tables).tolist()
    if whole < len(symbols):
        estimates.append(float(estimated_bytes(symbols[whole:], indices[whole:], tables)))
    return [sum(estimate >= limit for limit in LANE_BYTES) for estimate in estimates]


def estimated_bytes(symbols: Symbols, indices: Rows, tables: Tables) -> NDArray[np.float64]:
    """What blocks [..., n] will take, by runs of RUN symbols at an odd distance, for channels often come in even numbers.

    The sum is exact in any order: of a sample's 1228 float32 below 16 at most.
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


def decode_part(jobs: list[Job], indices: Rows, tables: Tables, coder: Backend, out: Symbols) -> None:
    """Neighbouring blocks, to `out`."""

    def size(job: Job) -> int | None:
        many = len(job.states) == LANES[-1] and job.after >= AFTER
        return job.span.stop - job.span.start if many else None

    begin = jobs[0].span.start
    for run in runs(jobs, size, coder):
        span = slice(run[0].span.start - begin, run[-1].span.stop - begin)
        values, rows = out[span], indices[span]
        if len(run) > 1:
            escapes = coder.decode_blocks([job.states for job in run], [job.words for job in run], rows, tables, values)
        else:
            escapes = coder.decode_block(run[0].states, run[0].words, rows, tables, values)
        for job in run:
            first, last = (edge - begin - span.start for edge in (job.span.start, job.span.stop))
            where = escapes[slice(*np.searchsorted(escapes, (first, last)))]
            read_escapes(values, where, rows, tables, job.side)


def write_escapes(symbols: Symbols, indices: Rows, tables: Tables) -> bytes:
    """Symbols outside their rows: distance d >= 0 above the row as 2d, below it as 2d + 1."""
    beyond, last = symbols - tables.offsets[indices], tables.sizes[indices] - 1
    return b"".join(
        write_varint(2 * (e - n) if e >= 0 else 2 * (-1 - e) + 1)
        for e, n in zip(beyond.tolist(), last.tolist(), strict=True)
    )


def read_escapes(symbols: Symbols, where: Positions, indices: Rows, tables: Tables, side: memoryview) -> None:
    """Put the escaped values in their places. Raises BadFile."""
    position = 0
    for i in where.tolist():
        code, position = read_varint(side, position, "escape")
        first, last = int(tables.offsets[indices[i]]), int(tables.sizes[indices[i]]) - 1
        value = first - 1 - code // 2 if code & 1 else first + last + code // 2
        expect(-(1 << 15) <= value < 1 << 15, BadFile, "escaped symbol", value, "a 16-bit integer")
        symbols[i] = value
    expect(position == len(side), BadFile, "escapes", len(side), f"{position} bytes")


def write_varint(value: int) -> bytes:
    """LEB128: 7 bits a byte, low first, the top bit where more follow."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_varint(data: memoryview | bytes, position: int, field: str, limit: int = 1 << 35) -> tuple[int, int]:
    """(value, position after it); the shortest form only. Raises BadFile naming the field."""
    value = shift = 0
    while True:
        expect(position < len(data), BadFile, field, "the end of the data", "a varint")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
        expect(shift < 35, BadFile, field, "a varint of over 5 bytes", "at most 5")
    expect(value < limit and (byte > 0 or shift == 7), BadFile, field, value, "the shortest form of a small number")
    return value, position


class Backend:
    """What a backend module offers: encode_block and decode_block, as in `rans.py`."""

    encode_block: Callable[[Symbols, Rows, Tables, int], Coded]
    decode_block: Callable[[list[int], NDArray[np.uint16], Rows, Tables, Symbols], Positions]
    encode_blocks: Callable[[Symbols, Rows, Tables, int], list[Coded]]
    decode_blocks: Callable[[list[list[int]], list[NDArray[np.uint16]], Rows, Tables, Symbols], Positions]


def load(backend: str) -> Backend:
    expect(backend in BACKENDS, BadInput, "backend", backend, f"one of {', '.join([*BACKENDS, CUDA])}")
    module: Backend = import_module(BACKENDS[backend])  # type: ignore[assignment]
    return module


def cut(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK))


def each(work: Callable[[T], R], jobs: list[T], threads: int | None) -> list[R]:
    """The work on each job, in order."""
    return in_parts(lambda part: [work(job) for job in part], jobs, threads)


def in_parts(work: Callable[[list[T]], list[R]], jobs: list[T], threads: int | None) -> list[R]:
    """The work on neighbours together, in order; in a thread each where there are several, this one among them."""
    n = min(len(jobs), n_threads(threads))
    if n == 0:
        return []
    if n == 1 or getattr(THREAD, "busy", False):  # a thread that waited for others of the pool could wait for ever
        return work(jobs)
    parts = [jobs[len(jobs) * i // n : len(jobs) * (i + 1) // n] for i in range(n)]

    def do(part: list[T]) -> list[R]:
        THREAD.busy = True
        try:
            return work(part)
        finally:
            THREAD.busy = False

    others = list[Future[list[R]]]()
    try:
        try:
            others += (workers().submit(do, part) for part in parts[1:])
        except RuntimeError:  # at the interpreter's end there are no new threads
            return do(jobs)
        return list(chain(do(parts[0]), *(other.result() for other in others)))
    except Exception:
        for other in others:
            other.cancel()
        wait(others)
        raise
    except BaseException:  # an interrupt can leave locks of the pool as they should not be
        POOL.clear()
        raise


def n_threads(threads: int | None) -> int:
    right = threads is None or isinstance(threads, (int, np.integer)) and threads > 0
    expect(right, BadInput, "threads", threads, "a number of 1 or more, or None for one a core")
    return int(threads or n_cores())


THREAD = threading.local()
MAX_THREADS = 256
POOL: list[ThreadPoolExecutor] = []  # one, or none yet
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.clear)  # threads do not come along


def workers() -> ThreadPoolExecutor:
    """Threads that stay: to start one takes as long as to code 200,000 symbols."""
    if not POOL:
        POOL.append(ThreadPoolExecutor(MAX_THREADS, "laconic"))  # which begins them as they are needed
    return POOL[0]


def scratch(n: int) -> NDArray[np.uint16]:
    """Words for the length of a call, the thread's own: new memory costs more than coding does."""
    if n > len(getattr(THREAD, "words", ())):
        THREAD.words = np.empty(n, np.uint16)
    words: NDArray[np.uint16] = THREAD.words[:n]
    return words


def symbols_of(values: NDArray[Any]) -> Symbols:
    return ranged(values, "symbols", -(1 << 15), 1 << 15).astype(np.int16, copy=False)


def rows_of(indices: NDArray[Any], tables: Tables) -> Rows:
    kind = np.uint8 if len(tables.sizes) <= 256 else np.uint16
    return ranged(indices, "indices", 0, len(tables.sizes)).astype(kind, copy=False)


def flat(data: bytes | memoryview) -> memoryview:
    """Bytes-like data as bytes. Raises BadInput where it lies scattered."""
    try:
        raw = memoryview(data)
    except TypeError:
        raise BadInput(f"data: found {type(data).__name__}, expected bytes") from None
    expect(raw.c_contiguous, BadInput, "data", "a strided view", "contiguous bytes")
    return raw.cast("B")
