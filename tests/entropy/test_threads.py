"""Threads: results in order, and work that stops where nobody waits for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest

from laconic.entropy.threads import mapped, stop_if_over


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def work(i: int) -> int:
        time.sleep(0.001 * (i % 3))
        return i * i

    assert list(mapped(work, range(20), threads)) == [i * i for i in range(20)]


@pytest.mark.parametrize("end", ["close", "error"])
def test_work_that_nobody_waits_for_stops(end: str) -> None:
    """Else an interrupt would wait for the end of a segment, an error in one file for all others that have begun."""
    begun, stopped = threading.Event(), list[int]()

    def work(i: int) -> int:
        if i == 0:
            return i
        if i == 1:
            begun.set()
            try:
                for _ in range(10_000):
                    stop_if_over()
                    time.sleep(0.001)
            except CancelledError:
                stopped.append(i)
        assert begun.wait(10)
        raise OSError("broken")

    results = mapped(work, iter([0, 1, 2] if end == "close" else [0, 2, 1]), 2)
    assert next(results) == 0
    assert begun.wait(10)
    if end == "close":
        results.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(OSError, match="broken"):
            next(results)
    assert stopped == [1]


def test_work_outside_of_threads_goes_on() -> None:
    stop_if_over()
    assert list(mapped(lambda i: stop_if_over(), range(3), 2)) == 3 * [None]
    stop_if_over()
