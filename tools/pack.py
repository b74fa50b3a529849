"""`laconic pack SOURCE -o DEST`: a whole data set into tars that webdataset reads (docs/dataset.md)."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from laconic.entropy.errors import BadInput
from laconic.tools import arguments
from laconic.tools.process import UsageError, complain, say

if TYPE_CHECKING:
    from laconic.dataset.plan import Plan
    from laconic.dataset.runner import Packed
    from laconic.dataset.shard import ShardReport

SHARD_COUNT, SHARD_SIZE = 10_000, 100_000_000  # those of laconic.dataset.plan, whose import takes NumPy's time


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic pack`."""
    add = parser.add_argument
    source = "folder, glob, list (.txt) of paths and URLs, or tar of webdataset; a path or a URL of fsspec"
    add("sources", nargs="+", type=arguments.file_name, metavar="SOURCE", help=source)
    add("-o", "--output", required=True, type=arguments.file_name, metavar="DEST", help="folder, or URL of fsspec")
    add("-f", "--force", action="store_true", help="go on where DEST holds another plan's shards (default: an error)")
    arguments.add_coding_options(parser)
    add("--shard-count", type=count, default=SHARD_COUNT, metavar="N", help="files in a shard at most (default: %(default)s)")
    size = "bytes of source files in a shard at most, such as 100M (default: %(default)s)"
    add("--shard-size", type=arguments.n_bytes, default=SHARD_SIZE, metavar="N", help=size)
    add("--verify", action="store_true", help="decode what was written, before a shard is there (default: not)")
    add("--fail-fast", action="store_true", help="end at the first file that cannot be coded (default: it is listed)")
    arguments.add_engine_options(parser)
    add("-j", "--jobs", type=arguments.n_threads, metavar="N", help="workers, of one thread each (default: one per core)")
    rank = "make each N-th shard from I on; I is from 0 (default: RANK and WORLD_SIZE, or those of a Slurm array, or all)"
    add("--rank", type=rank_pair, metavar="I/N", help=rank)
    precision = "of the networks (default: float32; only some processors have bf16)"
    add("--precision", choices=arguments.PRECISIONS[1:], default="float32", help=precision)
    arguments.add_common_options(parser)


def run(args: argparse.Namespace) -> int:
    """Pack a data set. Returns the exit status: 1 where a file could not be coded."""
    from laconic.dataset import pack

    shown = Shown(args)
    try:
        packed = pack(
            args.sources,
            args.output,
            engine=args.engine,
            workers=args.jobs,
            address=args.address,
            gpus=args.gpus,
            rank=args.rank or rank_of_environment(),
            shard_count=args.shard_count,
            shard_size=args.shard_size,
            verify=args.verify,
            fail_fast=args.fail_fast,
            force=args.force,
            begun=shown.begin,
            progress=shown.report,
            told=shown.count,
            **options_of(args),
        )
    except BadInput as error:
        if shown.bar is None:
            raise UsageError(str(error)) from None
        raise
    finally:
        shown.close()
    conclude(packed, args)
    return 1 if packed.failures else 0


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of `laconic.compress` and `laconic.Codec` that are flags of this command."""
    from laconic.api import CodecOptions
    from laconic.options import CompressOptions

    names = CompressOptions.__annotations__ | CodecOptions.__annotations__
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def rank_of_environment() -> tuple[int, int]:
    """Return the rank that the environment gives, and say so. Raises BadInput."""
    from laconic.dataset.runner import rank_of

    rank = rank_of(dict(os.environ))
    if rank != (0, 1):
        complain(f"rank {rank[0]} of {rank[1]}, as the environment says")
    return rank


class Shown:
    """Shows how far the work is: a bar on a terminal, else a line for each shard."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.bar: Any = None
        self.done: Counter[int] = Counter()  # files by shard: one that is made again begins anew
        self.files: dict[int, int] = {}

    def begin(self, plan: Plan, numbers: list[int]) -> None:
        """Begin to count the files of some shards, and tell of those that are left out."""
        from tqdm import tqdm

        skipped = plan.head["source"]["skipped"]
        n = sum(skipped.values())
        if n:
            parts = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
            complain(f"{n} {'file' if n == 1 else 'files'} skipped: {', '.join(f'{k} {name}' for name, k in parts)}")
        self.files = {number: sum(len(sample.media) for sample in plan.shards[number]) for number in numbers}
        self.bar = tqdm(total=sum(self.files.values()), unit="file", disable=True if self.args.quiet else None, leave=False)

    def report(self, report: ShardReport) -> None:
        """Tell of a shard."""
        from tqdm import tqdm

        shard = report.shard
        with tqdm.external_write_mode():
            for failure in report.failures:
                complain(f"{failure.name}: {failure.reason}")
            state = "kept" if report.kept else "made"
            if self.args.json:
                row = {"shard": shard.shard, "state": state, "members": shard.members, "failures": shard.failures}
                say(json.dumps(row | {"bytes": shard.n_bytes, "source_bytes": report.n_bytes}), flush=True)
            elif self.bar.disable and not self.args.quiet:
                failed = f", {shard.failures} failed" if shard.failures else ""
                say(f"{shard.shard}: {state}, {shard.members} files{failed}, {shard.n_bytes} bytes", flush=True)
        self.count(report.number, self.files[report.number])

    def count(self, number: int, n: int) -> None:
        """Show how many files of a shard are through."""
        self.bar.update(n - self.done[number])
        self.done[number] = n

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def conclude(packed: Packed, args: argparse.Namespace) -> None:
    """Tell what was done: notes, how many files failed, and whether the data set is whole."""
    notes: Counter[str] = Counter()
    for report in packed.reports:
        notes.update(report.notes)
    for text, n in sorted(notes.items()):
        complain(f"note: {text} ({n} {'file' if n == 1 else 'files'})")
    n_files = sum(report.shard.members for report in packed.reports)
    if packed.failures:
        complain(f"{len(packed.failures)} of {n_files + len(packed.failures)} failed")
    if packed.manifest is None:
        complain("the shards of this rank are done; the rank that is done last writes the manifest")
    elif args.json:
        manifest = asdict(packed.manifest)
        say(json.dumps({"manifest": args.output, "members": packed.manifest.members, "bytes": packed.manifest.n_bytes,
                        "source_bytes": manifest["source"]["n_bytes"], "failures": len(manifest["failures"])}))  # fmt: skip
    elif not args.quiet:
        of = packed.manifest.source["n_bytes"]
        n = len(packed.manifest.shards)
        shards = f"{n} {'shard' if n == 1 else 'shards'}"
        say(f"{args.output}: {packed.manifest.members} files in {shards}, {packed.manifest.n_bytes} bytes of {of}")


def count(text: str) -> int:
    """Return a number of files, at least 1."""
    return arguments.parsed(text, int, lambda value: value >= 1, "at least 1")


def rank_pair(text: str) -> tuple[int, int]:
    """Return i and n of i/n."""

    def pair(text: str) -> tuple[int, int]:
        i, n = text.split("/")
        return int(i), int(n)

    return arguments.parsed(text, pair, lambda value: 0 <= value[0] < value[1], "I/N with I from 0 to N - 1")
