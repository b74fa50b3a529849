"""The engine of one machine: processes with one thread each, which load the models once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, TypeVar

from laconic.dataset.telling import Told, hear, heard_by
from laconic.entropy.environment import n_cores
from laconic.entropy.errors import BadInput, LaconicError, expect

if TYPE_CHECKING:
    from laconic.dataset.engines import Engine, Team, Work

TRIES = 5  # how often a task is begun, where the process that does it dies each time
SOON = 0.2  # seconds between two looks at what the workers tell

T = TypeVar("T")
R = TypeVar("R")


def engine(work: Work[T, R], team: Team, again: Work[T, R] | None = None, told: Told | None = None) -> Engine[T, R]:
    """Return an engine of processes on this machine. One worker, if asked for, works in this process.

    team: without address and GPUs; workers: None is a process per core.
    """
    expect(team.address is None, BadInput, "address", team.address, "none: the engine is local")
    expect(not team.gpus, BadInput, "gpus", team.gpus, "none: the engine is local, and each worker has the whole GPU")
    expect(team.workers is None or team.workers >= 1, BadInput, "workers", team.workers, "at least 1")
    if team.workers == 1:
        return partial(in_this_process, work, told=told)
    return partial(in_processes, work, team.workers or n_cores(), again=again, told=told)


def in_this_process(work: Work[T, R], tasks: Iterable[T], told: Told | None = None) -> Iterator[R]:
    """Yield the results one by one."""
    for task in tasks:
        with heard_by(told):
            result = work(task)
        yield result


def in_processes(
    work: Work[T, R], n: int, tasks: Iterable[T], again: Work[T, R] | None = None, told: Told | None = None
) -> Iterator[R]:
    """Yield the results as they come. Each of n processes has one task at a time; where it dies the others go on.

    Where the caller stops before the end, or an error or interrupt stops it, the processes end at once.
    again, told, errors: as engines.py says.
    """
    others = set(multiprocessing.active_children())
    left, lost = iter(tasks), deque[tuple[T, int]]()
    heard, mouth = multiprocessing.Pipe(duplex=False)
    idle = [alone(mouth) for _ in range(n)]  # a pool for each process: the death of one breaks no other
    begun: dict[Future[R], tuple[ProcessPoolExecutor, T, int]] = {}
    try:
        while True:
            while idle and (attempt := next_of(lost, left)):
                task, tries = attempt
                pool = idle.pop()
                try:
                    begun[pool.submit(do, (again or work) if tries else work, task)] = pool, task, tries
                except BrokenProcessPool:  # its process died in between
                    lost.append(attempt)
                    idle.append(alone(mouth))
            if not begun:
                break
            over, _ = wait(begun, SOON, FIRST_COMPLETED)
            listen(heard, told)
            for future in over:
                pool, task, tries = begun.pop(future)
                dead = isinstance(future.exception(), BrokenProcessPool)
                idle.append(alone(mouth) if dead else pool)
                if dead:
                    check_tries(tries + 1)
                    lost.append((task, tries + 1))
                else:
                    yield future.result()
        for pool in idle:
            pool.shutdown()
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        for pool in (*idle, *(pool for pool, _, _ in begun.values())):
            pool.shutdown(cancel_futures=True)
        heard.close()
        mouth.close()


def next_of(lost: deque[tuple[T, int]], left: Iterator[T]) -> tuple[T, int] | None:
    """Return the next task, and how often it was tried: one whose process died before all others. None: all are begun."""
    if lost:
        return lost.popleft()
    for task in left:
        return task, 0
    return None


def check_tries(tries: int, why: str = "too little memory?") -> None:
    """Give up where too many processes died of one task. Raises LaconicError."""
    if tries >= TRIES:
        raise LaconicError(f"a worker: found it dead {tries} times, expected it to live ({why}); a new run goes on")


def alone(mouth: Connection | None = None) -> ProcessPoolExecutor:
    """Return a pool of one process, which begins with its first task. mouth: where it tells how far it is."""
    context = multiprocessing.get_context("spawn")  # a fork would take along locks of torch's threads
    return ProcessPoolExecutor(1, context, initializer=begin_worker, initargs=(mouth,))


def begin_worker(mouth: Connection | None) -> None:
    """Prepare a process for its work: an interrupt is its parent's affair, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that temporary files are removed
    threading.Thread(target=end_with_parent, daemon=True).start()
    if mouth:
        # Short enough to be written in one piece: no lock that a process which dies could take along.
        hear(lambda number, n: mouth.send_bytes(b"%d %d" % (number, n)))


def listen(heard: Connection, told: Told | None) -> None:
    """Hand on what the workers told."""
    while heard.poll():
        number, n = map(int, heard.recv_bytes().split())
        if told:
            told(number, n)


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
