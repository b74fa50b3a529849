"""Threads for kernels that release the GIL: a pool that stays, work on neighbours, memory that each thread keeps."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic.entropy.environment import n_cores
from laconic.entropy.errors import BadInput, expect

T = TypeVar("T")
R = TypeVar("R")
MAX_THREADS = 256
# Of each thread: `busy`, whether it works for `in_parts`; `words`, the memory of `scratch`; `over`, an event of `mapped`.
LOCAL = threading.local()
POOL: list[ThreadPoolExecutor] = []  # one, or none yet
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.clear)  # a fork takes no threads along


def each(work: Callable[[T], R], jobs: list[T], threads: int | None) -> list[R]:
    """Return the work's result on each job, in order. threads: as `n_threads` takes them."""
    return in_parts(lambda part: [work(job) for job in part], jobs, threads)


def mapped(work: Callable[[T], R], items: Iterable[T], threads: int | None) -> Iterator[R]:
    """Yield the work's result on each item, in order, as items come.

    Items are taken, and results kept, for no more than two per thread ahead of what the caller has read. Where the caller
    stops before the end, or an interrupt or an error stops it, work that has begun ends at its next `stop_if_over`.
    """
    n = n_threads(threads)
    if n == 1:
        yield from map(work, items)
        return
    begun: deque[Future[R]] = deque()
    over = threading.Event()
    pool = ThreadPoolExecutor(n, initializer=setattr, initargs=(LOCAL, "over", over))
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > 2 * n:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)


def stop_if_over() -> None:
    """Raise CancelledError in a thread of `mapped` for whose result nobody waits any more. Long work calls it at times."""
    over = getattr(LOCAL, "over", None)
    if over is not None and over.is_set():
        raise CancelledError


def in_parts(work: Callable[[list[T]], list[R]], jobs: list[T], threads: int | None) -> list[R]:
    """Cut the jobs into one run of neighbours per thread, and return the results of the work on each run, joined.

    The calling thread works too. Within work that is itself part of such a call, all is done in the calling thread: a
    thread of the pool that waited for others of the pool could wait for ever.
    """
    n = min(len(jobs), n_threads(threads))
    if n == 0:
        return []
    if n == 1 or getattr(LOCAL, "busy", False):
        return work(jobs)
    parts = [jobs[len(jobs) * i // n : len(jobs) * (i + 1) // n] for i in range(n)]

    def do(part: list[T]) -> list[R]:
        LOCAL.busy = True
        try:
            return work(part)
        finally:
            LOCAL.busy = False

    others = list[Future[list[R]]]()
    try:
        try:
            others += (workers().submit(do, part) for part in parts[1:])
        except RuntimeError:  # while the interpreter ends, no new threads can be started
            return do(jobs)
        return list(chain(do(parts[0]), *(other.result() for other in others)))
    except Exception:
        for other in others:
            other.cancel()
        wait(others)
        raise
    except BaseException:  # an interrupt can leave the pool's locks taken: the next call makes a new pool
        POOL.clear()
        raise


def n_threads(threads: int | None) -> int:
    """Return the number of threads to use: as given, or one per core for None.

    Raises BadInput if it is not 1 or more.
    """
    right = threads is None or isinstance(threads, (int, np.integer)) and threads > 0
    expect(right, BadInput, "threads", threads, "a number of 1 or more, or None for one per core")
    return int(threads or n_cores())


def workers() -> ThreadPoolExecutor:
    """Return the pool, which is kept: starting a thread takes as long as coding 200,000 symbols."""
    if not POOL:
        POOL.append(ThreadPoolExecutor(MAX_THREADS, "laconic"))  # starts its threads only as they are needed
    return POOL[0]


def scratch(n: int) -> NDArray[np.uint16]:
    """Return n words of the thread's own memory, whatever they hold; the thread's next call may return the same ones.

    Fresh memory costs more than coding does, since the system has to clear it.
    """
    if n > len(getattr(LOCAL, "words", ())):
        LOCAL.words = np.empty(n, np.uint16)
    words: NDArray[np.uint16] = LOCAL.words[:n]
    return words
