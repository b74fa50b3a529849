"""Codes files in a process beside this one: a file that ends the process that codes it takes no more with it.

Engines make a shard so when the process that first made it died: of one of its files, or for a reason of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from laconic.dataset.listing import File
from laconic.dataset.local import alone, do
from laconic.dataset.plan import Coding, Task
from laconic.dataset.records import Failure
from laconic.dataset.shard import Coded, ShardReport, code, digest_of, make_shard

DEATHS = 2  # a file is to blame after so many: one may have another cause
BLAMED = "ends the process that codes it (a fault of a library, or too little memory)"


def make_shard_carefully(task: Task) -> ShardReport:
    """Do as `make_shard`, with its errors; a file that ends its process is listed as one that cannot be coded."""
    with Beside() as beside:
        return make_shard(task, beside.code)


class Beside:
    """Holds a process that codes files, and begins another where it dies."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor = alone()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown()

    def code(self, file: File, coding: Coding, out: BinaryIO) -> Coded | Failure:
        """Code a file as `laconic.dataset.shard.code` does."""
        for _ in range(DEATHS):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "coded")
                try:
                    found = self.pool.submit(do, code_to, (file, coding, path)).result()
                except BrokenProcessPool:
                    self.pool = alone()
                    continue
                if isinstance(found, Coded):
                    with path.open("rb") as coded:
                        shutil.copyfileobj(coded, out)
                return found
        return Failure(file.name, BLAMED, digest_of(file))


def code_to(task: tuple[File, Coding, Path]) -> Coded | Failure:
    """Code a file to a path."""
    file, coding, path = task
    with path.open("x+b") as out:
        return code(file, coding, out)
