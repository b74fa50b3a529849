"""The engine of a cluster: actors of Ray, which load the models once (extra `ray`).

Tasks and reports go through Ray, and both are small; shards do not: the actors read the source and write the shards, so
both must lie where every node finds them. A task whose actor died, alone or with its node, goes to the next actor that
is free. (Ray's own retries would keep it for the actor's second life, which waits where a cluster has no more room.)
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from laconic.dataset.local import check_tries
from laconic.dataset.telling import Told, heard_by
from laconic.entropy.errors import BadInput, ModelMissing, expect

if TYPE_CHECKING:
    from laconic.dataset.engines import Engine, Team, Work

SOON = 0.5  # seconds between two looks at what the actors tell, and between two words of one

T = TypeVar("T")
R = TypeVar("R")


def engine(work: Work[T, R], team: Team, again: Work[T, R] | None = None, told: Told | None = None) -> Engine[T, R]:
    """Return an engine of actors on a cluster of Ray, each with one CPU and a share of a GPU.

    team: workers: None is what the cluster has. address: of the cluster, "auto" for the one that this machine is part of;
    None is the one that RAY_ADDRESS names, or "auto", or else a new one on this machine alone. A program that is connected
    already stays so.
    Raises BadInput where Ray is missing.
    """
    expect(team.workers is None or team.workers >= 1, BadInput, "workers", team.workers, "at least 1")
    expect(team.gpus >= 0, BadInput, "gpus", team.gpus, "at least 0")
    imported()
    return partial(on_cluster, work, again or work, team, told)


def imported() -> Any:
    """Return the package ray. Raises BadInput where it is missing."""
    try:
        import ray
    except ImportError as error:
        raise BadInput(f"engine: found no package for ray ({error}), expected the extra: laconic-codec[ray]") from None
    return ray


def on_cluster(work: Work[T, R], again: Work[T, R], team: Team, told: Told | None, tasks: Iterable[T]) -> Iterator[R]:
    """Yield the results as they come. There are no more tasks under way than actors."""
    with connected(team.address) as ray:
        crew = Crew[T, R](ray, work, again, team, told)
        try:
            yield from crew.results(iter(tasks))
        finally:
            crew.dismiss()


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield the package ray, connected to a cluster."""
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that begins here sends no reports
    ray.init(address=address, log_to_driver=False, logging_level="warning")
    ray._private.worker._worker_logs_enabled = False  # as Ray's own debugger does: they would go to stdout, amid --json
    try:
        yield ray
    finally:
        ray._private.worker._worker_logs_enabled = True
        ray.shutdown()


class Crew(Generic[T, R]):
    """Holds the actors, and gives each a task at a time."""

    def __init__(self, ray: Any, work: Work[T, R], again: Work[T, R], team: Team, told: Told | None) -> None:
        self.ray, self.told = ray, told
        self.board = self._board() if told else None
        kind = ray.remote(num_cpus=1, num_gpus=team.gpus)(Actor)
        self.hire = partial(kind.remote, work, again, self.board, os.getcwd())
        self.size = team.workers or self._room(team.gpus)
        self.lost: deque[tuple[T, int]] = deque()
        self.idle: list[Any] = []
        self.coming: dict[Any, Any] = {}  # the actor by the first call of each, which returns when it is there
        self.busy: dict[Any, tuple[Any, T, int]] = {}
        self.stillborn = 0

    def results(self, left: Iterator[T]) -> Iterator[R]:
        """Yield the results of tasks."""
        while True:
            self.lost.extend((task, 0) for task in islice(left, self.size - len(self.busy) - len(self.lost)))
            self._begin()
            if not self.busy and not self.lost:
                return
            over, _ = self.ray.wait([*self.busy, *self.coming], timeout=SOON)
            self._listen()
            for call in over:
                if call in self.coming:
                    self._welcome(call)
                else:
                    yield from self._result(call)

    def dismiss(self) -> None:
        """End all actors."""
        for actor in (*self.idle, *self.coming.values(), *(actor for actor, _, _ in self.busy.values()), self.board):
            self._end(actor)

    def _end(self, actor: Any) -> None:
        """End an actor, if it still lives."""
        with suppress(Exception):  # whatever it is, Ray ends the actors of a program that ends
            self.ray.kill(actor)

    def _begin(self) -> None:
        """Give tasks to those who have none; where there are more tasks, call for actors."""
        while self.idle and self.lost:
            task, tries = self.lost.popleft()
            actor = self.idle.pop()
            self.busy[actor.do.remote(task, tries > 0)] = actor, task, tries
        while len(self.busy) + len(self.coming) < self.size and len(self.coming) < len(self.lost):
            actor = self.hire()
            self.coming[actor.ready.remote()] = actor

    def _welcome(self, call: Any) -> None:
        """Take an actor in. Raises LaconicError where one after the other dies before that."""
        actor = self.coming.pop(call)
        try:
            self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            self.stillborn += 1
            check_tries(self.stillborn, " ".join(str(error).split()))
            return
        self.stillborn = 0
        self.idle.append(actor)

    def _result(self, call: Any) -> Iterator[R]:
        """Yield the result of a task, or keep the task for another where its actor died. Raises what the work raises."""
        actor, task, tries = self.busy.pop(call)
        try:
            result = self.ray.get(call)
        except self.ray.exceptions.RayTaskError as error:
            self.idle.append(actor)
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            check_tries(tries + 1, " ".join(str(error).split()))
            self._end(actor)  # it may only have been out of reach
            self.lost.appendleft((task, tries + 1))
            return
        self.idle.append(actor)
        yield result

    def _room(self, gpus: float) -> int:
        """Return how many actors the cluster has room for, at least 1."""
        there = self.ray.cluster_resources()
        rooms = [int(there.get("CPU", 0))] + ([int(there.get("GPU", 0) / gpus + 1e-9)] if gpus else [])
        return max(1, min(rooms))

    def _board(self) -> Any:
        """Return an actor on this node, to which the others tell how far they are."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=True)
        return self.ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()

    def _listen(self) -> None:
        """Hand on what the actors told."""
        if self.board is None or self.told is None:
            return
        try:
            found = self.ray.get(self.board.take.remote(), timeout=60)
        except self.ray.exceptions.RayError:  # the bar stands still, and the work goes on
            self.board = None
            return
        for number, n in found.items():
            self.told(number, n)


class Actor:
    """Does tasks on some node: what Ray makes an actor of."""

    def __init__(self, work: Work[Any, Any], again: Work[Any, Any], board: Any, folder: str) -> None:
        self.work, self.again, self.board = work, again, board
        self.told = 0.0
        with suppress(OSError):  # relative paths are meant as the driver means them
            os.chdir(folder)

    def ready(self) -> None:
        """Return when the actor is there."""

    def do(self, task: Any, repeated: bool) -> Any:
        """Do a task. repeated: another died of it. Raises ModelMissing that names the node, and what the work raises."""
        with heard_by(self._tell if self.board else None):
            try:
                return (self.again if repeated else self.work)(task)
            except ModelMissing as error:
                raise ModelMissing(f"node {imported().util.get_node_ip_address()}: {error}") from None

    def _tell(self, number: int, n: int) -> None:
        """Write on the board how far a task is, but not too often."""
        if time.monotonic() >= self.told + SOON:
            self.told = time.monotonic()
            self.board.tell.remote(number, n)


class Board:
    """Holds the newest word on each task until it is taken."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}

    def tell(self, number: int, n: int) -> None:
        """Keep how many parts of a task are through."""
        self.words[number] = n

    def take(self) -> dict[int, int]:
        """Return what is held, and forget it."""
        words, self.words = self.words, {}
        return words
