"""What is in a source: a folder, a glob, a list of paths and URLs, tars; local or by fsspec.

Nothing is opened but lists and tars, and of tars nothing is read but the headers of their members.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laconic.dataset.stores import filesystem, local_path, opened
from laconic.entropy.errors import BadInput, expect

WILD = re.compile(r"[*?[]")
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class File:
    """Describes a file of a source.

    name: relative to the source. url: the path or URL that it is opened by. n_bytes: its size; 0 where nobody has said it.
    named: whether the caller named the file, rather than a folder that it is in. offset: where its bytes lie in the tar at
    url; None for a file of its own. tar: the name of that tar. problem: why it cannot be read, where that is known.
    """

    name: str
    url: str
    n_bytes: int
    named: bool = False
    offset: int | None = None
    tar: str = ""
    problem: str = ""


def list_files(sources: list[str], dest: str) -> list[File]:
    """Return all files of the sources, sorted by name, members in the place of tars.

    dest: the folder or URL that is written to, of which nothing is taken. Raises BadInput for a source that is not there,
    or two files of one name; OSError where a folder or list cannot be read.
    """
    found = [prefixed(file, source, len(sources) > 1) for source in sources for file in files_of(source, dest)]
    files = sorted((member for file in found for member in members_of(file)), key=lambda file: file.name)
    named: dict[str, File] = {}
    for file in files:
        one = named.setdefault(file.name, file)
        expect((one.url, one.offset) == (file.url, file.offset), BadInput, "names", file.name, "one file of each name")
    return list(named.values())


def prefixed(file: File, source: str, many: bool) -> File:
    """Return a file with the name of its folder before its own, where there are several sources."""
    path = local_path(source)
    if not many or file.named or is_glob(source):
        return file
    folder = os.path.abspath(path) if path is not None else source.rstrip("/")
    return replace(file, name=f"{folder.rpartition('/')[2]}/{file.name}")


def is_glob(source: str) -> bool:
    """Tell whether a source has wildcards, and is not a local file or folder whose name has them."""
    path = local_path(source)
    return WILD.search(source) is not None and (path is None or not path.exists())


def files_of(source: str, dest: str) -> Iterator[File]:
    """Yield the files of one source; tars are files yet. Raises BadInput."""
    path = local_path(source)
    found = local_files(path, dest) if path is not None else remote_files(source, dest)
    if source.lower().endswith(".txt"):
        yield from listed(source)
    else:
        yield from found


def listed(source: str) -> Iterator[File]:
    """Yield the files that a list names. The sizes of URLs are not asked for."""
    for line in read_text(source).splitlines():
        url = line.strip()
        if url and not url.startswith("#"):
            path = local_path(url)
            yield File(url, url, 0 if path is None else size_of(path), True)


def local_files(path: Path, dest: str) -> Iterator[File]:
    """Yield the files of a local folder, or those that fit a glob, or the one file."""
    text = str(path)
    out = local_path(dest)
    target = os.path.realpath(out) if out is not None else ""
    if path.is_dir():
        expect(os.path.realpath(path) != target, BadInput, "destination", dest, "another folder than the source")
        yield from (File(file[len(text.rstrip("/")) + 1 :], file, size_of(Path(file))) for file in walk(text, target))
    elif not is_glob(text):
        expect(path.exists(), BadInput, "source", text, "a folder, glob, list or tar that is there")
        yield File(path.name, text, size_of(path), True)
    else:
        fixed = fixed_part(text)
        for file in glob.iglob(text, recursive=True):
            inside = target and os.path.realpath(file).startswith(target + "/")
            if not os.path.isdir(file) and not inside:
                yield File(file[len(fixed) :], file, size_of(Path(file)))


def walk(root: str, target: str) -> Iterator[str]:
    """Yield the paths of all files in a folder and those below, but for one folder. Raises OSError."""

    def failed(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(root, onerror=failed):
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) != target]
        yield from (os.path.join(place, name) for name in names)


def remote_files(url: str, dest: str) -> Iterator[File]:
    """Yield the files of a folder at a URL, or those that fit a glob, or the one file."""
    if url.lower().endswith(".txt"):
        return
    fs, path = filesystem(url)
    fixed = fixed_part(path) if WILD.search(path) else path.rstrip("/") + "/"
    if WILD.search(path):
        found = fs.glob(path, detail=True)
    elif not fs.exists(path):
        raise BadInput(f"source: found {url!r}, expected a folder, glob, list or tar that is there")
    elif url.lower().endswith(".tar") or not fs.isdir(path):
        yield File(path.rpartition("/")[2], url, int(fs.info(path).get("size") or 0), True)
        return
    else:
        expect(url.rstrip("/") != dest.rstrip("/"), BadInput, "destination", dest, "another URL than the source")
        found = fs.find(path, detail=True)
    for name, about in found.items():
        place = str(fs.unstrip_protocol(name))
        if about.get("type", "file") == "file" and not place.startswith(dest.rstrip("/") + "/"):
            yield File(name[len(fixed) :], place, int(about.get("size") or 0))


def fixed_part(pattern: str) -> str:
    """Return the folders of a glob before the first wildcard, with the / after them."""
    match = WILD.search(pattern)
    return pattern[: pattern.rfind("/", 0, match.start() if match else None) + 1]


def size_of(path: Path) -> int:
    """Return the size of a file; 0 where it cannot be told, since its turn comes, and then it is named."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def read_text(url: str) -> str:
    """Return the text of a list. Raises OSError, BadInput."""
    path = local_path(url)
    try:
        if path is not None:
            return path.read_text("utf-8", "surrogateescape")
        fs, place = filesystem(url)
        return bytes(fs.cat_file(place)).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise BadInput(f"source: found {url!r}, expected a list that is there") from None


def members_of(file: File) -> Iterator[File]:
    """Yield the members of a tar; any other file as it is. A tar that is damaged has a problem, after what it still holds."""
    name = file.name.lower()
    expect(not name.endswith(PACKED_TARS) or not file.named, BadInput, "source", file.name, "a tar that is not compressed")
    if not name.endswith(".tar"):
        yield file
        return
    try:
        with opened(file.url) as raw:
            yield from headers(raw, file)
    except (OSError, tarfile.TarError) as error:
        yield replace(file, named=True, problem=f"{type(error).__name__}: {error}")


def headers(raw: Any, tar: File) -> Iterator[File]:
    """Yield the regular files that a tar's headers tell of. Raises TarError where it is damaged."""
    with tarfile.open(fileobj=raw, mode="r:") as members:
        while member := members.next():
            if member.isreg() and not member.issparse():
                name = f"{tar.name}/{member.name.removeprefix('./')}"
                yield File(name, tar.url, member.size, tar.named, member.offset_data, tar.name)
            members.members = []  # type: ignore[attr-defined]  # else the headers of all stay in memory
        raw.seek(members.offset)
        rest = raw.read(tarfile.BLOCKSIZE)
        if rest.strip(b"\0"):  # tarfile takes a damaged header for the end
            raise tarfile.ReadError(f"no header at byte {members.offset}")
