"""Makes one shard: from a task, which can be pickled, to a tar and its index. Any engine runs this function anywhere."""

from __future__ import annotations

import errno
import hashlib
import io
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import laconic
from laconic import media
from laconic.api import Codec, info
from laconic.dataset.listing import File
from laconic.dataset.plan import Coding, Entry, Task, models_here, suffix_of
from laconic.dataset.records import Failure, Member, Shard, ShardIndex, Side, index_name
from laconic.dataset.stores import COPIED, Store, fetched, store_of
from laconic.dataset.telling import tell
from laconic.entropy.errors import BadFile, BadInput, LaconicError, ModelMissing, expect

BLOCK = tarfile.BLOCKSIZE
SPOOLED = 1 << 26  # bytes of a coded file that wait in memory, not on disk
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # Python shows objects so; it differs from run to run

T = TypeVar("T")


@dataclass(frozen=True)
class ShardReport:
    """Says what became of a task. kept: the shard was done already. n_bytes: of its source files."""

    number: int
    shard: Shard
    kept: bool
    n_bytes: int
    failures: tuple[Failure, ...]
    notes: dict[str, int]


@dataclass(frozen=True)
class Coded:
    """Says what a file that was coded was: n_bytes and digest of the source, and the notes on it."""

    n_bytes: int
    digest: str
    notes: tuple[str, ...]


Code = Callable[[File, Coding, BinaryIO], Coded | Failure]


def code(file: File, coding: Coding, out: BinaryIO) -> Coded | Failure:
    """Code a source file into an empty binary file. Returns why where that fails. Raises OSError where a disk is full."""
    notes: list[str] = []
    path, digest = file.url, ""
    try:
        with opened(file) as (place, digest):
            path, n_bytes = str(place), place.stat().st_size
            Codec(**coding.codec, threads=1).compress_to(out, place, **coding.compress, notes=notes)
    except Exception as error:  # noqa: BLE001 - of foreign code: whatever it is, the other files are coded
        return Failure(file.name, reason(error, path, file), digest)
    return Coded(n_bytes, digest, tuple(plain(note, path, file) for note in notes))


def make_shard(task: Task, code: Code = code) -> ShardReport:
    """Make a shard and its index, or keep them where they are done. It does the same wherever and however often it runs.

    code: codes each file, and does what the function of that name does.
    Raises ModelMissing where this machine has other weights or another version than the plan; BadInput for a file that
    cannot be coded if the task says so; BadFile for a shard that does not decode; OSError where it cannot be written.
    """
    check_machine(task)
    store = store_of(task.dest)
    kept = done(store, task)
    if kept:
        for failure in kept.failures:
            expect_none(failure, task)
        if task.verify:
            verify(kept, task, lambda part: store.read(task.shard, part.offset, part.length))
        return report_of(kept, task, True)
    store.remove(index_name(task.shard))
    store.remove(task.shard)
    with store.writing(task.shard) as file:
        index = written(file, task, code)
        if task.verify:
            verify(index, task, lambda part: part_of(file, part))
    with store.writing(index_name(task.shard)) as file:
        file.write(index.to_bytes())
    return report_of(index, task, False)


def report_of(index: ShardIndex, task: Task, kept: bool) -> ShardReport:
    """Return the report on a shard that is done."""
    n_bytes = sum(sample.n_bytes for sample in task.samples)
    notes = Counter(note for member in index.members for note in member.notes)
    return ShardReport(task.number, row_of(index, task), kept, n_bytes, index.failures, dict(sorted(notes.items())))


def row_of(index: ShardIndex, task: Task) -> Shard:
    """Return what the manifest says of a shard."""
    first, last = task.samples[0].media[0].file.name, task.samples[-1].media[-1].file.name
    counts = len(index.members), len(index.failures)
    return Shard(index.shard, index.key, index.n_bytes, index.sha256, *counts, first, last)


def check_machine(task: Task) -> None:
    """Refuse to code with another version or other weights than the plan. Raises ModelMissing."""
    here, planned = laconic.__version__, task.coding.laconic
    expect(here == planned, ModelMissing, "laconic on this machine", here, f"{planned}, as the plan has it")
    mine = models_here(task.coding.codec.get("model"))
    for name, digest in task.coding.models.items():
        found, expected = mine.get(name, "none")[:8], f"{digest[:8]}, as the plan has it"
        expect(mine.get(name) == digest, ModelMissing, f"model {name} on this machine: digest", found, expected)


def done(store: Store, task: Task) -> ShardIndex | None:
    """Return the index of a shard that need not be made again: of this task, whole, and of sources that are as they were."""
    index = index_of(store, task)
    if index is None:
        return None
    known = {member.name: member.source_sha256 for member in index.members}
    known |= {failure.name: failure.source_sha256 for failure in index.failures}
    known |= {side.member: side.sha256 for member in index.members for side in member.sides}
    for sample in task.samples:
        for entry in (*sample.media, *sample.sides):
            digest = known.get(entry.file.name, known.get(entry.member))  # None: of a sample that failed as a whole
            if digest is not None and digest != digest_of(entry.file):
                return None
    return index


def index_of(store: Store, task: Task) -> ShardIndex | None:
    """Return the index of a task's shard; None where it is of another task, or the tar has not the size that it says."""
    with suppress(OSError, LaconicError):
        index = ShardIndex.from_bytes(store.read(index_name(task.shard)), index_name(task.shard))
        if index.key == task.key and store.size(task.shard) == index.n_bytes:
            return index
    return None


def digest_of(file: File) -> str:
    """Return the SHA-256 of a source file; "" where it cannot be read."""
    try:
        with opened(file) as (_, digest):
            return digest
    except Exception:  # noqa: BLE001 - a file system of fsspec raises what it likes
        return ""


def opened(file: File) -> AbstractContextManager[tuple[Path, str]]:
    """Open a source file: see `fetched`. Raises BadInput for one with a problem."""
    expect(not file.problem, BadInput, "tar", file.problem, "one that is whole")
    return fetched(file.url, suffix_of(file.name), file.offset, file.n_bytes)


def written(file: BinaryIO, task: Task, code: Code) -> ShardIndex:
    """Write the tar of a shard, and tell of each file. Returns its index."""
    tar = Tar(file)
    members: list[Member] = []
    failures: list[Failure] = []
    n_files = 0
    for sample in task.samples:
        coded: list[Member] = []
        for entry in sample.media:
            found = add_coded(tar, sample.key, entry, task.coding, code)
            n_files += 1
            tell(task.number, n_files)
            sort(found, coded, failures, task)
        sides: list[Side] = []
        for entry in sample.sides if coded else ():
            sort(add_side(tar, entry), sides, failures, task)
        members += [replace(member, sides=tuple(sides)) for member in coded]
    tar.end()
    return ShardIndex(task.shard, task.key, tar.n_bytes, tar.digest.hexdigest(), tuple(members), tuple(failures))


def sort(found: T | Failure, good: list[T], failures: list[Failure], task: Task) -> None:
    """Add what was found to one of two lists. Raises BadInput for a failure where the task asks for that."""
    if isinstance(found, Failure):
        expect_none(found, task)
        failures.append(found)
    else:
        good.append(found)


def expect_none(failure: Failure, task: Task) -> None:
    """End the run at a failure where the task asks for that. Raises BadInput."""
    if task.fail_fast:
        raise BadInput(f"{failure.name}: {failure.reason}")


def add_coded(tar: Tar, key: str, entry: Entry, coding: Coding, code: Code) -> Member | Failure:
    """Code a file and add it to the tar. Returns why where that fails."""
    with tempfile.SpooledTemporaryFile(SPOOLED) as spooled:
        out = cast(BinaryIO, spooled)
        found = code(entry.file, coding, out)
        if isinstance(found, Failure):
            return found
        place = tar.add(entry.member, out)
        return Member(entry.file.name, key, entry.member, *place, found.n_bytes, found.digest, (), found.notes)


def add_side(tar: Tar, entry: Entry) -> Side | Failure:
    """Add a side file to the tar as it is. Returns why where it cannot be read."""
    try:
        with opened(entry.file) as (path, _):
            data = path.read_bytes()
    except Exception as error:  # noqa: BLE001 - a file system of fsspec raises what it likes
        return Failure(entry.file.name, reason(error, entry.file.url, entry.file))
    return Side(entry.member, *tar.add(entry.member, io.BytesIO(data)))


def reason(error: Exception, path: str, file: File) -> str:
    """Return why a file failed. Raises the error where a disk is full: that is no fault of the file."""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{tempfile.gettempdir()}, the folder of temporary files (TMPDIR names another)"
        raise OSError(error.errno, error.strerror, error.filename or where)
    text = plain(str(error), path, file)
    if isinstance(error, (LaconicError, OSError)):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def plain(text: str, path: str, file: File) -> str:
    """Return a text in one line, with nothing in it that differs between two runs or machines."""
    text = ADDRESS.sub("", text.replace(path, file.name).replace(file.url, file.name))
    return " ".join(text.splitlines())


class Tar:
    """Writes a tar whose bytes depend on names and contents alone, and takes its digest."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.n_bytes, self.digest = file, 0, hashlib.sha256()

    def add(self, name: str, content: BinaryIO) -> tuple[int, int, str]:
        """Add a file. Returns the offset and the length of its bytes, and their SHA-256, hexadecimal."""
        about = tarfile.TarInfo(name)
        about.size = content.seek(0, io.SEEK_END)
        content.seek(0)
        self._write(about.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        offset, digest = self.n_bytes, hashlib.sha256()
        while data := content.read(COPIED):
            digest.update(data)
            self._write(data)
        self._write(bytes(-self.n_bytes % BLOCK))
        return offset, about.size, digest.hexdigest()

    def end(self) -> None:
        """Write what ends a tar."""
        self._write(bytes(2 * BLOCK))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.n_bytes += len(data)


def verify(index: ShardIndex, task: Task, read: Callable[[Member | Side], bytes]) -> None:
    """Compare the digests of all members, and decode the coded ones. Raises BadFile, ModelMissing."""
    codec = Codec(**(task.coding.codec | {"model": None}), threads=1)  # each file names its model
    for member in index.members:
        for side in member.sides:
            check_digest(read(side), side, index.shard)
        data = read(member)
        check_digest(data, member, index.shard)
        decode(data, codec, f"{index.shard}: {member.member}")


def check_digest(data: bytes, part: Member | Side, shard: str) -> None:
    """Compare the bytes of a member with its digest. Raises BadFile."""
    found = hashlib.sha256(data).hexdigest()
    expect(found == part.sha256, BadFile, f"{shard}: digest of {part.member}", found[:8], part.sha256[:8])


def decode(data: bytes, codec: Codec, name: str) -> None:
    """Decode a file, a sound piece by piece. Raises BadFile with the name, ModelMissing."""
    try:
        if "PNG" in media.named(info(data).medium).outputs.values():
            codec.decompress(data, as_array=True, notes=[])
        else:
            with tempfile.TemporaryFile() as sink:
                codec.decompress_to(cast(BinaryIO, sink), data, notes=[])
    except BadFile as error:
        raise BadFile(f"{name}: {error}") from None


def part_of(file: BinaryIO, part: Member | Side) -> bytes:
    """Return the bytes of a member of a tar that is being written."""
    file.seek(part.offset)
    return file.read(part.length)
