"""The commands on archives: a folder of small pictures to one file, and all of its pictures back."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import laconic
from laconic.suffixes import CODED
from laconic.tools.folders import PICTURE, Search
from laconic.tools.jobs import Job, Plan, check_files, each_job, size_and_time
from laconic.tools.process import FAILURES, UsageError, complain, reason


def compress_archive(args: argparse.Namespace) -> int:
    """Compress a folder of small pictures to one archive. Returns the exit status."""
    if not args.lossless or len(args.inputs) != 1 or not os.path.isdir(args.inputs[0]):
        raise UsageError("--archive: expected --lossless and one folder of pictures of one size")
    if args.strip or args.progressive or args.effort is not None:
        flag = "--strip" if args.strip else "--progressive" if args.progressive else "--effort"
        raise UsageError(f"{flag}: found with --archive, expected without: it keeps samples alone, coded in one way")
    folder = Path(args.inputs[0])
    search = Search(frozenset({PICTURE}))
    paths = search.files(folder)
    skipped = search.account()
    if search.failures:  # an archive is whole, or it is not made
        path, error = search.failures[0]
        complain(f"{path}: {reason(error)}")
        return 1
    if not paths:
        raise UsageError(f"found no picture in {folder}{f' ({skipped})' if skipped else ''}")
    out = None if args.output == "-" else Path(args.output or folder.resolve().with_suffix(CODED))
    if args.output and out and (out.is_dir() or args.output.endswith("/")):
        out = out / (folder.resolve().name + CODED)

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        names = [path.relative_to(folder).as_posix() for path in paths]
        options = {"model": args.model, "threads": args.threads, "device": args.device}
        file.write(laconic.compress_archive(paths, names=names, notes=notes, **options))

    def summary(file: BinaryIO, seconds: float) -> dict[str, Any]:
        found = laconic.info(file)
        assert isinstance(found, laconic.ArchiveInfo)
        counts = {"bytes": found.n_bytes, "pictures": len(paths)}
        return {**counts, "bpd": round(found.bpd, 4), "seconds": round(seconds, 3)}

    return each_job(args, Plan([Job(folder, out, tuple(paths))], skipped=skipped), work, summary)


def decompress_members(args: argparse.Namespace) -> int:
    """Decompress all pictures of an archive into a folder, by their names. Returns the exit status."""
    if len(args.inputs) != 1 or not args.output or args.output == "-":
        raise UsageError("--members: expected one archive, and -o with a folder")
    for flag in ("region", "seek", "duration", "member", "slices", "preview", "partial"):
        if getattr(args, flag) is not None and getattr(args, flag) is not False:
            raise UsageError(f"--{flag}: found with --members, expected without: all pictures are written, whole")
    source = None if args.inputs[0] == "-" else Path(args.inputs[0])
    folder = Path(args.output).resolve()
    try:
        archive = laconic.open_archive(source or sys.stdin.buffer, args.device)
        outs = member_paths(archive.names or [f"{i:0{len(str(len(archive)))}}" for i in range(len(archive))], folder)
        pictures = archive.all(args.threads)
    except FAILURES as error:
        complain(f"{source or '-'}: {reason(error)}")
        return 1
    numbers: dict[Path | None, int] = {out: i for i, out in enumerate(outs)}

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        from PIL import Image

        Image.fromarray(pictures[numbers[out]]).save(file, "PNG")

    jobs = [Job(source, out) for out in outs]
    if source:  # a pipe's pictures are read already
        check_files(jobs)
    return each_job(args, Plan(jobs), work, size_and_time)


def member_paths(names: list[str], folder: Path) -> list[Path]:
    """Return a PNG file in the folder for each name; a.bmp is a.png, or a.bmp.png beside another a. Raises BadFile."""
    for i, name in enumerate(names):
        if not Path(name).name:
            raise laconic.BadFile(f"name of picture {i}: found {name!r}, expected the name of a file")
    times = Counter(Path(name).with_suffix(".png") for name in names)
    outs = []
    for i, name in enumerate(names):
        alone = times[Path(name).with_suffix(".png")] == 1 or name.endswith(".png")
        out = folder / (Path(name).with_suffix(".png") if alone else f"{name}.png")
        if not out.resolve().is_relative_to(folder):
            raise laconic.BadFile(f"name of picture {i}: found {name!r}, expected one inside the folder")
        outs.append(out)
    twice = [out for out, n in Counter(outs).items() if n > 1]
    if twice:
        raise laconic.BadFile(f"names: found two that are {twice[0].name!r}, expected names that differ")
    return outs
