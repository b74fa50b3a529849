"""Who does the work. An engine is a row of the table, and a module with a function `engine` like the one of local.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, TypeVar, cast

from laconic.dataset.telling import Told
from laconic.entropy.errors import BadInput, expect

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T], R]
Engine = Callable[[Iterable[T]], Iterator[R]]  # yields results as they come, in any order

ENGINES = {"local": "laconic.dataset.local", "ray": "laconic.dataset.ray_engine"}


@dataclass(frozen=True)
class Team:
    """Says who is to work. workers: None is what there is. address: of a cluster. gpus: the share that each worker gets."""

    workers: int | None = None
    address: str | None = None
    gpus: float = 0.0


class EngineMaker(Protocol):
    """Makes an engine. work: a function of a module, whose arguments and results can be pickled."""

    def __call__(
        self, work: Work[T, R], team: Team, again: Work[T, R] | None = None, told: Told | None = None
    ) -> Engine[T, R]:
        """Return what does the work on each task.

        again: does a task anew when the process that did it died; None is the work itself. told: hears what the work tells.
        Raises BadInput for a team that this engine cannot have. The engine raises what the work raises, and LaconicError
        where the processes that do a task die again and again.
        """


def engine_of(name: str) -> EngineMaker:
    """Return the maker of an engine. Raises BadInput for a name that is not in the table."""
    expect(name in ENGINES, BadInput, "engine", name, f"one of {', '.join(ENGINES)}")
    return cast(EngineMaker, import_module(ENGINES[name]).engine)
