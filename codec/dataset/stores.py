"""Where shards lie and sources come from: a folder, or whatever fsspec has for a URL. fsspec is imported for URLs alone."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

from laconic.entropy.errors import BadInput, expect

COPIED = 1 << 23  # bytes at a time


class Store(Protocol):
    """Holds whole files by name, in one place. A file appears under its name only when it is whole."""

    def names(self) -> set[str]:
        """Return the names of all files; none where the place is not there."""

    def size(self, name: str) -> int:
        """Return the bytes that a file has. Raises OSError."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a part of a file, by default all of it; no more than that is fetched. Raises OSError."""

    def writing(self, name: str) -> Any:
        """Return a context: a binary file, to write and to read, that takes the name when the block ends well."""

    def remove(self, name: str) -> None:
        """Remove a file, and what a crash left of an attempt to write it; that it is not there is no error."""


def store_of(url: str | os.PathLike[str]) -> Store:
    """Return the store of a folder or URL. Raises BadInput where the package for the URL is missing."""
    path = local_path(str(url))
    return Folder(path) if path is not None else Objects(str(url))


def local_path(url: str) -> Path | None:
    """Return the path that a name or a file:// URL stands for; None for all other URLs."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it. Raises BadInput where a package is missing."""
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
    except ImportError as error:
        raise BadInput(f"{url}: found no package for it ({error}), expected the extra: laconic-codec[cloud]") from None
    except ValueError as error:  # a protocol that is not known
        raise BadInput(f"{url}: found {error}, expected a protocol of fsspec") from None
    return fs, str(path)


class Folder:
    """Holds files in a local folder, which is made with the first file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> set[str]:
        """Return the names of all files but those that are not yet whole."""
        with suppress(FileNotFoundError):
            return {name for name in os.listdir(self.root) if not name.startswith(".")}
        return set()

    def size(self, name: str) -> int:
        """Return the bytes that a file has."""
        return (self.root / name).stat().st_size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a part of a file."""
        with open(self.root / name, "rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yield a file that is renamed when it is whole, and on the disk; else nothing of it stays."""
        self.root.mkdir(parents=True, exist_ok=True)
        part = self.root / f".{name}.{secrets.token_hex(8)}.part"
        try:
            with open(part, "x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.root / name)
        except BaseException as error:
            with suppress(OSError):
                part.unlink()
            if isinstance(error, OSError) and error.filename in (None, str(part)):
                raise OSError(error.errno, error.strerror, str(self.root / name)) from None
            raise

    def remove(self, name: str) -> None:
        """Remove a file, and what a crash left of it."""
        with suppress(FileNotFoundError):
            for left in [n for n in os.listdir(self.root) if n.startswith(f".{name}.") and n.endswith(".part")]:
                (self.root / left).unlink(missing_ok=True)
            (self.root / name).unlink(missing_ok=True)


class Objects:
    """Holds files under a URL. Each is written with one put, from a temporary file."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = filesystem(url)

    def path(self, name: str) -> str:
        """Return the path of a file in the file system."""
        return f"{self.root.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        """Return the names of all files."""
        self.fs.invalidate_cache()
        with suppress(FileNotFoundError):
            return {PurePosixPath(path).name for path in self.fs.ls(self.root, detail=False)}
        return set()

    def size(self, name: str) -> int:
        """Return the bytes that a file has."""
        return int(self.fs.info(self.path(name))["size"])

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a part of a file by a range request."""
        end = None if length is None else offset + length
        return bytes(self.fs.cat_file(self.path(name), start=offset, end=end))

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yield a temporary file that is put under its name when the block ends well."""
        with tempfile.NamedTemporaryFile() as file:
            yield cast(BinaryIO, file)
            file.flush()
            self.fs.makedirs(self.root, exist_ok=True)
            self.fs.put_file(file.name, self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))


def opened(url: str) -> AbstractContextManager[BinaryIO]:
    """Open a path or URL for reading; it seeks. Raises OSError, or what a file system of fsspec raises."""
    path = local_path(url)
    if path is not None:
        return path.open("rb")
    fs, place = filesystem(url)
    return cast(BinaryIO, fs.open(place, "rb"))


@contextmanager
def fetched(url: str, suffix: str, offset: int | None = None, length: int = 0) -> Iterator[tuple[Path, str]]:
    """Yield the path of a source file and its SHA-256: its own path, or that of a copy with the same suffix.

    offset, length: the part of the file that is meant, as of a member of a tar; None is the whole file. Raises OSError, or
    what a file system raises, where it cannot be read.
    """
    path = local_path(url)
    if path is not None and offset is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield path, digest
        return
    with tempfile.NamedTemporaryFile(suffix=suffix) as copy:
        if offset is not None:
            copy_part(url, cast(BinaryIO, copy), offset, length)
        else:
            with opened(url) as remote:
                shutil.copyfileobj(remote, copy, COPIED)
        copy.flush()
        copy.seek(0)
        yield Path(copy.name), hashlib.file_digest(cast(Any, copy), "sha256").hexdigest()


def copy_part(url: str, copy: BinaryIO, offset: int, length: int) -> None:
    """Copy a part of a file. Raises BadInput where the file ends before."""
    place = url.rpartition("/")
    path = local_path(url)
    store = Folder(path.parent) if path else Objects(place[0])
    name = path.name if path else place[2]
    for start in range(offset, offset + length, COPIED):
        wanted = min(COPIED, offset + length - start)
        data = store.read(name, start, wanted)
        expect(len(data) == wanted, BadInput, "bytes of the tar", start + len(data), f"{offset + length} or more")
        copy.write(data)
