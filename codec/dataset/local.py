"""The engine of one machine: processes with one thread each, which load the models once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, TypeVar

from laconic.entropy.environment import n_cores
from laconic.entropy.errors import BadInput, LaconicError, expect

if TYPE_CHECKING:
    from laconic.dataset.engines import Engine, Work

T = TypeVar("T")
R = TypeVar("R")


def engine(work: Work[T, R], workers: int | None = None, address: str | None = None) -> Engine[T, R]:
    """Return an engine of processes on this machine. workers: None is one per core; one works in this process.

    address: None, as no cluster is asked.
    """
    expect(address is None, BadInput, "address", address, "none: the engine is local")
    n = n_cores() if workers is None else workers
    expect(n >= 1, BadInput, "workers", n, "at least 1")
    return partial(map, work) if n == 1 else partial(in_processes, work, n)


def in_processes(work: Work[T, R], n: int, tasks: Iterable[T]) -> Iterator[R]:
    """Yield the results as they come. No more than two tasks per process are under way.

    Where the caller stops before the end, or an error or interrupt stops it, the processes end at once.
    Raises what the work raises, and LaconicError where a process dies.
    """
    others = set(multiprocessing.active_children())
    left = iter(tasks)
    begun: set[Future[R]] = set()
    context = multiprocessing.get_context("spawn")  # a fork would take along locks of torch's threads
    pool = ProcessPoolExecutor(n, context, initializer=begin_worker)
    try:
        while True:
            begun |= {pool.submit(do, work, task) for task in islice(left, 2 * n - len(begun))}
            if not begun:
                break
            over, begun = wait(begun, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in over)
        pool.shutdown()
    except BrokenProcessPool:
        raise LaconicError("a worker: found it dead, expected it to live (too little memory?); a new run goes on") from None
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        pool.shutdown(cancel_futures=True)


def begin_worker() -> None:
    """Prepare a process for its work: an interrupt is its parent's affair, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that temporary files are removed
    threading.Thread(target=end_with_parent, daemon=True).start()


def do(work: Work[T, R], task: T) -> R:
    """Do a task; where a signal ends it, end the process too, before it takes the next task."""
    try:
        return work(task)
    except SystemExit:
        os._exit(1)


def end_with_parent() -> None:
    """Wait for the end of the parent, and end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
