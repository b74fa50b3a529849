"""Pack a data set: plan, make what is missing, and when all is there write the manifest."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from laconic.dataset.careful import make_shard_carefully
from laconic.dataset.engines import Team, engine_of
from laconic.dataset.listing import list_files
from laconic.dataset.plan import SHARD_COUNT, SHARD_SIZE, Plan, coding_of, make_plan
from laconic.dataset.records import MANIFEST, Failure, Manifest, index_name, parsed, shard_name
from laconic.dataset.shard import ShardReport, index_of, make_shard, row_of
from laconic.dataset.stores import Store, store_of
from laconic.dataset.telling import Told
from laconic.entropy.errors import BadInput, expect

PLAN = "plan.json"
READERS = 16  # indices that are read at a time: of an object store each takes its time to come
Rank = tuple[int, int]

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Packed:
    """Says what became of a run.

    plan: what was to be made. reports: on the shards of this rank, by number. manifest: None where other ranks are not
    done yet.
    """

    plan: Plan
    reports: tuple[ShardReport, ...]
    manifest: Manifest | None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The files of this rank's shards that could not be coded."""
        return tuple(failure for report in self.reports for failure in report.failures)


def pack(
    source: Source | Iterable[Source],
    dest: Source,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    rank: Rank = (0, 1),
    shard_count: int = SHARD_COUNT,
    shard_size: int = SHARD_SIZE,
    verify: bool = False,
    fail_fast: bool = False,
    force: bool = False,
    begun: Callable[[Plan, list[int]], None] | None = None,
    progress: Callable[[ShardReport], None] | None = None,
    told: Told | None = None,
    **options: Any,
) -> Packed:
    """Code a data set into tars in a folder or at a URL (docs/dataset.md). What is done is not done again.

    source: a folder, glob, list (.txt) or tar, or several; paths or URLs of fsspec. dest: a folder or URL.
    engine: who works: "local" (processes) or "ray" (actors on a cluster; extra `ray`). workers: None is one per core; with
    the local engine 1 is this process. address: of the cluster; None is the one that RAY_ADDRESS names, or "auto", or
    else a new one on this machine alone. gpus: the share of a GPU that each actor gets; None is 1 with device="cuda", else 0.
    rank: (i, n) makes only the shards whose number is i modulo n.
    shard_count: files to code in a shard, at most. shard_size: bytes of source files in it, at most.
    verify: decode what was written. fail_fast: the first file that cannot be coded ends the run, with BadInput; else it is
    listed. force: go on where dest holds what another plan made.
    begun: is called with the plan and the numbers of this rank's shards; progress: with the report on each, as they come;
    told: with the number of a shard and how many of its files are through, while it is made.
    options: the keywords of `laconic.compress` but threads, notes and sample_rate.
    A file that ends the process that codes it is listed too, save where that is this process.
    Raises BadInput, ModelMissing; BadFile where `verify` finds damage; OSError where dest cannot be written; LaconicError
    where workers die again and again.
    """
    i, n = rank
    expect(0 <= i < n, BadInput, "rank", f"{i}/{n}", "i/n with i from 0 to n - 1")
    sources = [str(source)] if isinstance(source, (str, os.PathLike)) else [str(one) for one in source]
    place = str(dest)
    in_memory = any(url.startswith("memory://") for url in (*sources, place))
    expect(not in_memory or engine == "local", BadInput, "engine", engine, "local: no other machine knows what memory:// holds")
    expect(not in_memory or workers == 1, BadInput, "workers", workers, "1: no other process knows what memory:// holds")
    share = gpus if gpus is not None else float(engine == "ray" and options.get("device") == "cuda")
    make = engine_of(engine)(make_shard, Team(workers, address, share), make_shard_carefully, told)
    plan = make_plan(list_files(sources, place), coding_of(options), shard_count, shard_size)
    store = store_of(place)
    begin(store, plan, force)
    mine = list(range(i, len(plan.shards), n))
    if begun:
        begun(plan, mine)
    reports = []
    for report in make(plan.task(number, place, verify, fail_fast) for number in mine):
        reports.append(report)
        if progress:
            progress(report)
    manifest = finish(store, plan, place)
    expect(n > 1 or manifest is not None, BadInput, "destination", "some shards missing", "a place that all workers share")
    return Packed(plan, tuple(sorted(reports, key=lambda report: report.number)), manifest)


def begin(store: Store, plan: Plan, force: bool) -> None:
    """Write the plan, or see that the one that is there is the same. Raises BadInput where it is not, without `force`."""
    head = json.dumps(plan.head, indent=1).encode("ascii") + b"\n"
    names = store.names()
    if PLAN in names:
        found = store.read(PLAN)
        if found == head:
            return
        if not force:
            different = differences(parsed(PLAN, lambda: dict(json.loads(found))), plan.head)
            raise BadInput(f"{PLAN}: found another plan ({different}), expected this one: give another destination, or force (-f)")
        store.remove(MANIFEST)
        remove_left_over(store, names, len(plan.shards))
    elif not force:
        expect(not any(is_ours(name) for name in names), BadInput, "destination", "tars without a plan", "none, or force (-f)")
    with store.writing(PLAN) as file:
        file.write(head)


def is_ours(name: str) -> bool:
    """Tell whether a name is one that shards and their indices have."""
    start, _, end = name.partition(".")
    return end in ("tar", "jsonl") and len(start) >= 6 and start.isdecimal()


def remove_left_over(store: Store, names: set[str], n_shards: int) -> None:
    """Remove the shards of another plan that are beyond those of this one: readers of all tars would find them."""
    wanted = {name for i in range(n_shards) for name in (shard_name(i), index_name(shard_name(i)))}
    for name in sorted(names - wanted):
        if is_ours(name):
            store.remove(name)


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return in words what two plans have different."""
    return "; ".join(f"{key} {old.get(key)}, now {value}" for key, value in new.items() if old.get(key) != value)


def finish(store: Store, plan: Plan, dest: str) -> Manifest | None:
    """Write the manifest if all shards are done, and remove what another plan left. Returns None where one is not."""
    names = store.names()
    n = len(plan.shards)
    if not all({shard_name(i), index_name(shard_name(i))} <= names for i in range(n)):
        return None
    tasks = [plan.task(i, dest) for i in range(n)]
    with ThreadPoolExecutor(READERS) as readers:
        indices = list(readers.map(lambda task: index_of(store, task), tasks))
    found = [index for index in indices if index]
    if len(found) < n:
        return None
    notes = Counter(note for index in found for member in index.members for note in member.notes)
    manifest = Manifest(
        plan.coding.laconic,
        plan.head["options"],
        plan.coding.models,
        plan.head["source"],
        tuple(row_of(index, task) for index, task in zip(found, tasks, strict=True)),
        tuple(failure for index in found for failure in index.failures),
        dict(sorted(notes.items())),
    )
    with store.writing(MANIFEST) as file:
        file.write(manifest.to_bytes())
    return manifest


def rank_of(environ: dict[str, str]) -> Rank:
    """Return the rank that the environment gives: RANK and WORLD_SIZE, or those of a Slurm array; (0, 1) where it gives none.

    Raises BadInput for one that is no number.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return whole(environ, "RANK"), whole(environ, "WORLD_SIZE")
    if "SLURM_ARRAY_TASK_ID" in environ:
        first, step = whole(environ, "SLURM_ARRAY_TASK_MIN", "0"), whole(environ, "SLURM_ARRAY_TASK_STEP", "1")
        return (whole(environ, "SLURM_ARRAY_TASK_ID") - first) // step, whole(environ, "SLURM_ARRAY_TASK_COUNT")
    return 0, 1


def whole(environ: dict[str, str], name: str, default: str = "") -> int:
    """Return the number that a variable of the environment holds. Raises BadInput."""
    text = environ.get(name, default)
    expect(text.isdecimal(), BadInput, name, text, "a number")
    return int(text)
