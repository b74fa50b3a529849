"""How far a task is: what the work tells from within, and the caller of its engine hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Told = Callable[[int, int], None]  # the number of a task, and how many of its parts are through


def tell(number: int, n: int) -> None:
    """Tell whoever hears it that n parts of a task are through. number: of the task."""
    told = _told.get()
    if told:
        told(number, n)


def hear(told: Told | None) -> None:
    """Let a function hear what is told in this thread from now on."""
    _told.set(told)


@contextmanager
def heard_by(told: Told | None) -> Iterator[None]:
    """Let a function hear what is told in this thread while the block runs."""
    before = _told.set(told)
    try:
        yield
    finally:
        _told.reset(before)


_told: ContextVar[Told | None] = ContextVar("told", default=None)
