"""Work in threads, as long as it comes: for kernels that release the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from laconic.entropy.blocks import n_threads

T = TypeVar("T")
R = TypeVar("R")


def mapped(do: Callable[[T], R], items: Iterable[T], threads: int | None) -> Iterator[R]:
    """do(item) of each, in order. None is a thread a core. Items are taken and done no more than 2 a thread ahead."""
    n = n_threads(threads)
    if n == 1:
        yield from map(do, items)
        return
    begun: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(n)
    try:
        for item in items:
            begun.append(pool.submit(do, item))
            if len(begun) > 2 * n:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
