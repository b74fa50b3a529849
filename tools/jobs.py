"""Jobs of the command line: one file to make each. Plans all outputs, makes them, delivers them whole, reports."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar, cast

from laconic.suffixes import CODED
from laconic.tools.files import whole
from laconic.tools.folders import Search
from laconic.tools.process import UsageError, complain, reason, say, warned, words_kept, write_no_more

SPOOLED = 1 << 26  # bytes of an output that wait in memory, not on disk, until it is whole
COPIED = 1 << 20  # bytes at a time
NAMED = 3  # inputs that a message names at most

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Any, Path | None, BinaryIO, list[str]], None]
Summary = Callable[[BinaryIO, float], dict[str, Any]]
Ending = Callable[[Path | None], str]


@dataclass(frozen=True)
class Job:
    """Describes one file to make. None is a pipe: stdin, stdout.

    parts: the files that it is made of, where the source is a folder. mirrored: how many folders above the output stand
    for those above the source.
    """

    source: Path | None
    out: Path | None
    parts: tuple[Path, ...] = ()
    mirrored: int = 0

    @property
    def name(self) -> str:
        """The source as messages name it."""
        return str(self.source or "-")


@dataclass(frozen=True)
class Outcome:
    """Says what became of a job: what to report of it, or why it failed."""

    job: Job
    row: dict[str, Any]
    notes: list[str]
    failure: str = ""


@dataclass(frozen=True)
class Plan:
    """Lists what is to be made, what cannot be made since it could not be read, and a line on the files that were skipped."""

    jobs: list[Job]
    failed: list[Outcome] = field(default_factory=list)
    skipped: str = ""


def each_file(args: argparse.Namespace, ending: Ending, wanted: frozenset[str], work: Work, summary: Summary) -> int:
    """Plan all outputs, then make them one by one; failures are listed and the rest is done. Returns the exit status.

    ending: gives the suffix of what a file becomes. wanted: the kinds of files that are taken from folders.
    work: (source, name of the output, the output, notes to add to). summary: (the output, seconds) -> what to report.
    """
    return each_job(args, plan(args.inputs, args.output, ending, wanted), work, summary)


def size_and_time(file: BinaryIO, seconds: float) -> dict[str, Any]:
    """Return what to report of an output: its bytes, and how long it took."""
    return {"bytes": file.seek(0, os.SEEK_END), "seconds": round(seconds, 3)}


def each_job(args: argparse.Namespace, plan: Plan, work: Work, summary: Summary) -> int:
    """Make what is planned, and report it. Returns the exit status."""
    total = len(plan.jobs) + len(plan.failed)
    args.single = total == 1
    failures: list[Outcome] = []
    with words_kept() as heard:
        stream = sys.stderr if any(job.out is None for job in plan.jobs) else sys.stdout
        do = partial(make, work=work, summary=summary, force=args.force, heard=heard if args.jobs == 1 else list)
        shown = progress(total, args.quiet or stream.isatty())
        with mapped(do, plan.jobs, args.jobs) as outcomes:
            for outcome in shown(outcome for some in (plan.failed, outcomes) for outcome in some):
                report(outcome, args, stream)
                failures += [outcome] if outcome.failure else []
    if failures and total > 1:
        lines = [f"  {outcome.job.name}: {outcome.failure}" for outcome in failures]
        say(f"laconic: {len(failures)} of {total} failed:", *lines, file=sys.stderr)
    if plan.skipped:
        complain(plan.skipped)
    return 1 if failures else 0


def plan(inputs: list[str], output: str | None, ending: Ending, wanted: frozenset[str]) -> Plan:
    """Return the jobs in the order of the inputs. Raises UsageError before anything is written."""
    folder = output_folder(inputs, output)
    search = Search(wanted)
    jobs, fuller = [], []
    for source in unrepeated(sources_of(inputs, search)):
        beside = folder / source.relative if folder else source.path
        if output and not folder:
            out = None if output == "-" else Path(output)
            beside = None
        else:
            out = with_ending(beside, ending(source.path)) if beside else None
        jobs.append(Job(source.path, out, mirrored=len(source.relative.parts) if folder and source.found else 0))
        fuller.append(beside.with_name(beside.name + ending(source.path)) if beside and source.found else None)
    failed = [Outcome(Job(path, None), {}, [], reason(error)) for path, error in search.failures]
    if not jobs and not failed:
        kinds, skipped = " or ".join(sorted(wanted)), search.account()
        raise UsageError(f"found no {kinds} file in {' '.join(inputs)}{f' ({skipped})' if skipped else ''}")
    jobs = told_apart(jobs, fuller)
    check_files(jobs)
    return Plan(jobs, failed, search.account({job.out for job in jobs}))


def output_folder(inputs: list[str], output: str | None) -> Path | None:
    """Return the folder that -o names, if it names one. Raises UsageError where that does not go with the inputs."""
    folder = Path(output) if output and output != "-" and (output.endswith("/") or os.path.isdir(output)) else None
    many = len(inputs) > 1 or any(os.path.isdir(name) for name in inputs if name != "-")
    if many and output and not folder:
        what = "several inputs" if len(inputs) == 1 else listed(inputs)
        raise UsageError(f"-o: found {output!r}, expected an existing folder, since there are {what}")
    if folder and "-" in inputs:
        raise UsageError(f"-o: found the folder {output!r}, expected a file or -, since the input is stdin")
    return folder


def listed(names: list[str]) -> str:
    """Return names for a message: all of them, or the first few and how many more there are."""
    if len(names) <= NAMED:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


@dataclass(frozen=True)
class Source:
    """Describes an input. path: None is stdin. relative: its name in an output folder. found: whether a folder had it."""

    path: Path | None
    relative: Path
    found: bool = False

    @property
    def key(self) -> tuple[str, Path]:
        """What is equal for two ways to one file that would make one output."""
        return os.path.abspath(self.path or "-"), self.relative


def sources_of(inputs: list[str], search: Search) -> Iterator[Source]:
    """Yield each input; of a folder each wanted file, which keeps its place in the output folder."""
    for name in inputs:
        root = Path(name)
        if name == "-":
            yield Source(None, root)
        elif os.path.isdir(root):
            yield from (Source(path, path.relative_to(root), True) for path in search.files(root))
        else:
            yield Source(root, Path(root.name))


def unrepeated(sources: Iterable[Source]) -> Iterator[Source]:
    """Yield inputs, without the files of folders that were named as well, or lie in two of the folders."""
    known = list(sources)
    seen = {source.key for source in known if not source.found}
    for source in known:
        if not source.found or source.key not in seen:
            yield source
        seen.add(source.key)


def with_ending(path: Path, ending: str) -> Path:
    """Return the name of what a file becomes: x.png becomes x.lac, x.lac becomes x.png, and so does x.png.lac."""
    if path.suffix.lower() == CODED and path.with_suffix("").suffix.lower() == ending:
        return path.with_suffix("")
    return path.with_suffix(ending)


def told_apart(jobs: list[Job], fuller: list[Path | None]) -> list[Job]:
    """Give outputs that would have one name their fuller ones, which keep the input's suffix: x.jpg.lac and x.png.lac.

    fuller: of each job, the fuller name of its output; None where the caller named the input.
    """
    while True:
        times = Counter(identity(job.out) for job in jobs if job.out)
        clashes = {
            i
            for i, (job, full) in enumerate(zip(jobs, fuller, strict=True))
            if job.out and full and job.out != full and times[identity(job.out)] > 1
        }
        if not clashes:
            return jobs
        jobs = [replace(job, out=fuller[i]) if i in clashes else job for i, job in enumerate(jobs)]


def check_files(jobs: list[Job]) -> None:
    """Raise UsageError where an output is an input or is written twice, however the paths are written."""
    if sum(job.source is None for job in jobs) > 1:
        raise UsageError("found - more than once, expected it once: stdin ends where the first one ends")
    inputs = {identity(job.source) for job in jobs if job.source}
    seen: dict[object, str] = {}
    for job in jobs:
        if job.out is None:
            continue
        key = identity(job.out)
        if key in inputs:
            raise UsageError(f"{job.out} is an input, and inputs are kept: give another -o")
        if key in seen:
            raise UsageError(f"{seen[key]} and {job.name} would both be written to {job.out}")
        seen[key] = job.name


def identity(path: Path) -> object:
    """Return what is equal for two paths of one file, through links or, where the system does so, in another case."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def make(job: Job, work: Work, summary: Summary, force: bool, heard: Callable[[], list[str]]) -> Outcome:
    """Do one job, on any thread. Prints nothing: the lines of two files would mix.

    Whatever a reader of a foreign format raises is the failure of this file only.
    """
    notes: list[str] = []
    row: dict[str, Any] = {}
    failure = ""
    try:
        if job.out and job.out.is_file() and not force:
            raise exists(job.out)
        start = time.perf_counter()
        with tempfile.SpooledTemporaryFile(SPOOLED) as spooled:
            file = cast(BinaryIO, spooled)
            work(job.source or sys.stdin.buffer, job.out, file, notes)
            seconds = time.perf_counter() - start
            file.seek(0)
            row = summary(file, seconds)
            file.seek(0)
            deliver(file, job, force)
    except BrokenPipeError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) and error.filename is None
        failure = reason(error) + f": the folder of temporary files, {tempfile.gettempdir()} (TMPDIR names another)" * full
    except Exception as error:  # noqa: BLE001 - of foreign code: whatever it is, the other files are done
        failure = reason(error)
    return Outcome(job, row, [*notes, *warned(), *heard()], failure)


def exists(out: Path) -> FileExistsError:
    """Return the error that an output is already there."""
    return FileExistsError(f"{out} exists; -f overwrites it")


def deliver(made: BinaryIO, job: Job, force: bool) -> None:
    """Write the output of a job. An OSError names the output, not the temporary file."""
    try:
        if job.out is None:
            shutil.copyfileobj(made, sys.stdout.buffer, COPIED)
            sys.stdout.buffer.flush()
        elif is_device(job.out):
            with job.out.open("wb") as device:
                shutil.copyfileobj(made, device, COPIED)
        else:
            make_folders(job)
            with whole(Path(os.path.realpath(job.out)), mode_of(job), times_of(job), force) as file:
                shutil.copyfileobj(made, file, COPIED)
    except FileExistsError:
        raise exists(job.out or Path("-")) from None
    except OSError as error:
        if job.out is None:
            write_no_more(sys.stdout)
        raise OSError(error.errno, error.strerror, str(job.out or "stdout")) from None


def make_folders(job: Job) -> None:
    """Make the folders of an output that stand for folders of the input, as private as those are."""
    if not job.source or not job.out:
        return
    pairs = list(zip(job.out.parents, job.source.parents, strict=False))[: job.mirrored]
    for folder, model in reversed(pairs):
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(stat.S_IMODE(model.stat().st_mode) | stat.S_IRWXU, exist_ok=True)  # we write to it


def mode_of(job: Job) -> int:
    """Return the permissions that all inputs of a job give, to read and to write: those of its output before umask."""
    mode = 0o666
    for path in job.parts or (job.source,):
        if path and path.is_file():
            mode &= path.stat().st_mode
    return mode


def times_of(job: Job) -> tuple[int, int] | None:
    """Return when the input was last read and changed, in nanoseconds; the output is as old as the input."""
    if not job.source or not job.source.is_file():
        return None
    found = job.source.stat()
    return found.st_atime_ns, found.st_mtime_ns


@contextmanager
def mapped(do: Callable[[T], R], items: list[T], threads: int) -> Iterator[Iterable[R]]:
    """Yield do(item) of each, in order. Where the block is left early, what has not begun never begins."""
    if threads == 1:
        yield map(do, items)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map(do, items)
    finally:
        pool.shutdown(cancel_futures=True)


def progress(total: int, hidden: bool) -> Callable[[Iterable[T]], Iterable[T]]:
    """Return what shows a bar of the items on a terminal, where there is more than one."""
    from tqdm import tqdm

    return partial(tqdm, total=total, unit="file", disable=True if hidden or total < 2 else None, leave=False)


@contextmanager
def sample_bar(args: argparse.Namespace) -> Iterator[Callable[[int, int], None]]:
    """Yield what tells of a sound's progress: a bar on a terminal, where no other bar counts files."""
    from tqdm import tqdm

    hidden = True if args.quiet or not args.single else None
    with tqdm(unit="sample", unit_scale=True, disable=hidden, leave=False, delay=1) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def report(outcome: Outcome, args: argparse.Namespace, stream: TextIO) -> None:
    """Print notes and failures to stderr, and what was done to `stream`, at once: a pipe may be read while we work."""
    job = outcome.job
    for note in outcome.notes:
        complain(f"{job.name}: note: {note}")
    if outcome.failure:
        complain(f"{job.name}: {outcome.failure}")
    elif not args.quiet:
        row = {"file": job.name, "output": str(job.out or "-"), **outcome.row}
        plain = f"{job.name} -> {job.out or '-'}: " + ", ".join(f"{value} {key}" for key, value in outcome.row.items())
        say(json.dumps(row) if args.json else plain, file=stream, flush=True)


def is_device(out: Path) -> bool:
    """Tell whether it is /dev/null or the like, which is written to and never replaced; so is a folder, which fails."""
    return out.exists() and not out.is_file()
