"""Writes files whole: under a temporary name first, so that no part of one is ever found under its own."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(
    out: Path, mode: int = 0o666, times: tuple[int, int] | None = None, force: bool = True
) -> Iterator[BinaryIO]:
    """Yield a file that takes the name `out` when the block ends well; else nothing of it stays.

    mode: what the file may be used for, at most; umask, and the mode of what was there, take away from it.
    times: of last access and last modification, in nanoseconds. force: replace what is there.
    Raises FileExistsError where `out` is there without `force`, also where another process has just made it.
    """
    if not out.parent.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".laconic-{secrets.token_hex(8)}.part")  # short: out may be as long as names can be
    try:
        # Not tempfile: its mode is 0600, and neither umask nor a folder's access list can be asked for without a race.
        with open(part, "xb", opener=partial(os.open, mode=mode)) as file:
            yield file
        if out.exists():
            os.chmod(part, stat.S_IMODE(out.stat().st_mode) & (mode | 0o111))
        if times:
            os.utime(part, ns=times)
        (os.replace if force else rename_new)(part, out)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def rename_new(part: Path, out: Path) -> None:
    """Rename a file to a name that is free. Raises FileExistsError where it is not: os.replace would overwrite."""
    try:
        os.link(part, out)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: an empty file holds the name
        os.close(os.open(out, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            os.replace(part, out)
        except BaseException:
            out.unlink()
            raise
    else:
        part.unlink()


def write_whole(data: bytes, out: Path) -> None:
    """Write bytes to a file whole, in place of what was there."""
    with whole(out) as file:
        file.write(data)
