"""Who makes the shards. An engine is a row of the table, and a module with a function `engine` like the one of local.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Protocol, TypeVar, cast

from laconic.entropy.errors import BadInput, expect

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T], R]
Engine = Callable[[Iterable[T]], Iterator[R]]  # yields results as they come, in any order

ENGINES = {"local": "laconic.dataset.local"}


class EngineMaker(Protocol):
    """Makes an engine. work: a function of a module, whose arguments and results can be pickled."""

    def __call__(self, work: Work[T, R], workers: int | None = None, address: str | None = None) -> Engine[T, R]:
        """Return what does the work on each task. workers: None is what there is. address: of a cluster."""


def engine_of(name: str) -> EngineMaker:
    """Return the maker of an engine. Raises BadInput for a name that is not in the table."""
    expect(name in ENGINES, BadInput, "engine", name, f"one of {', '.join(ENGINES)}")
    return cast(EngineMaker, import_module(ENGINES[name]).engine)
