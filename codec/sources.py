"""Where bytes come from: paths, file objects, pipes, bytes; and whether a source is a picture or a sound."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from laconic import sound
from laconic.container import Data, FileBytes
from laconic.entropy.errors import BadInput, expect
from laconic.sound import Sound

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = "str | os.PathLike[str] | IO[bytes] | NDArray[Any] | Image | Sound"  # what can be compressed
Coded: TypeAlias = "str | os.PathLike[str] | IO[bytes] | bytes | bytearray | memoryview"  # what can be decompressed
SPOOLED = 1 << 26  # bytes of a pipe that wait in memory, not on disk
START = 12  # bytes that tell a sound from a picture


@dataclass(frozen=True)
class Input:
    """Holds a source whose kind is known.

    kind: "picture", "sound" or "set". content: a picture's file object, PIL.Image or array; a sound's `sound.Source`;
    of a set, what its medium takes. n_bytes: of the file that it comes from, or None.
    """

    kind: str
    content: Any
    n_bytes: int | None = None


@contextmanager
def identified(source: Source, sample_rate: int | None = None) -> Iterator[Input]:
    """Tell a picture from a sound, and open it: an array is a sound where a sample_rate comes with it. Raises BadInput."""
    if isinstance(source, Sound):
        yield Input("sound", sound.from_sound(source))
    elif sample_rate is not None:
        expected = "a NumPy array, which sample_rate goes with: np.asarray(samples) makes one of lists and tensors"
        expect(isinstance(source, np.ndarray), BadInput, "samples", type(source).__name__, expected)
        yield Input("sound", sound.from_array(cast(NDArray[Any], source), sample_rate))
    elif is_file(source):
        with seekable(source) as file:
            yield identified_file(file, str(source) if is_path(source) else "")
    else:
        yield Input("picture", source)


def identified_file(file: BinaryIO, name: str) -> Input:
    """Tell by the first bytes of a seekable file, or by its name."""
    start = file.read(START)
    expect(isinstance(start, bytes), BadInput, "file object", type(start).__name__, "one opened in binary mode")
    here = file.seek(-len(start), os.SEEK_CUR)
    if sound.is_sound(start, name):
        n_bytes = file.seek(0, os.SEEK_END) - here
        file.seek(here)
        return Input("sound", sound.open_sound(file, name), n_bytes)
    raw = file.read()
    return Input("picture", io.BytesIO(raw), len(raw))


@contextmanager
def opened(data: Coded) -> Iterator[Data]:
    """Open a coded file, of which only what is asked for is read where it can seek. Raises BadInput."""
    if is_path(data):
        with open_path(data) as file:
            yield FileBytes(file) if seeks(file) else file.read()
    elif seeks(data):
        expect(isinstance(cast(Any, data).read(0), bytes), BadInput, "file object", "text", "one opened in binary mode")
        yield FileBytes(cast(BinaryIO, data))
    else:
        yield load(data)


@contextmanager
def seekable(source: Any) -> Iterator[BinaryIO]:
    """Open a path, or make a file object seek: a pipe's contents are copied."""
    if is_path(source):
        with open_path(source) as file, seekable(file) as sure:
            yield sure
    elif seeks(source):
        yield source
    else:
        with tempfile.SpooledTemporaryFile(SPOOLED) as copy:
            try:
                shutil.copyfileobj(source, copy, 1 << 20)
            except TypeError:
                raise BadInput("file object: found text, expected one opened in binary mode") from None
            copy.seek(0)
            yield cast(BinaryIO, copy)


def load(data: Any) -> bytes:
    """Return the bytes of bytes, a path or a file object. Raises BadInput."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if is_path(data):
        with open_path(data) as file:
            return file.read()
    expect(hasattr(data, "read"), BadInput, "source", type(data).__name__, "bytes, a path or a file object")
    raw = data.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    return bytes(raw)


def open_path(path: Any) -> BinaryIO:
    """Open a file for reading. Raises BadInput for a name that no file can have, OSError where it cannot be read."""
    try:
        return Path(path).open("rb")
    except ValueError as error:  # a NUL in the name
        raise BadInput(f"path: found {str(path)!r} ({error}), expected the name of a file") from None


def is_path(source: object) -> bool:
    return isinstance(source, (str, os.PathLike))


def is_file(source: object) -> bool:
    return is_path(source) or hasattr(source, "read")


def seeks(file: Any) -> bool:
    return bool(getattr(file, "seekable", lambda: False)())
