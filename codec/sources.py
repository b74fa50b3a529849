"""Where bytes come from: paths, file objects, pipes, bytes; and where notes go."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from laconic import sound
from laconic.container import Data, FileBytes
from laconic.entropy.errors import BadInput, expect
from laconic.sound import Sound

Source = Any  # path, file object, bytes (decompress), PIL.Image, array or Sound (compress)
SPOOLED = 1 << 26  # bytes of a pipe that wait in memory, not on disk


class LaconicWarning(UserWarning):
    """Something that the caller should know: a conversion, a file larger than its input."""


@contextmanager
def as_sound(source: Source, sample_rate: int | None) -> Iterator[tuple[sound.Source | None, Source]]:
    """The sound that a source is, or None, and the source, opened if it is a path: a pipe is read once only.

    Arrays are sounds where a sample_rate comes with them.
    """
    if isinstance(source, Sound):
        yield sound.from_sound(source), source
    elif sample_rate is not None:
        expected = "a NumPy array, which sample_rate goes with: np.asarray(samples) makes one of lists and tensors"
        expect(isinstance(source, np.ndarray), BadInput, "samples", type(source).__name__, expected)
        yield sound.from_array(source, sample_rate), source
    elif isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        with seekable(source) as file:
            start = file.read(12)
            expect(isinstance(start, bytes), BadInput, "file object", type(start).__name__, "one opened in binary mode")
            file.seek(-len(start), os.SEEK_CUR)
            name = str(source) if isinstance(source, (str, os.PathLike)) else ""
            known = sound.is_sound(start, name)
            yield (sound.open_sound(file, name) if known else None), file
    else:
        yield None, source


@contextmanager
def opened(data: Source) -> Iterator[Data]:
    """A coded file, of which only what is asked for is read where it is a path."""
    if isinstance(data, (str, os.PathLike)):
        with open(data, "rb") as file:
            yield FileBytes(file) if seeks(file) else file.read()
    elif seeks(data):
        yield FileBytes(data)
    else:
        yield load(data)


@contextmanager
def seekable(source: Source) -> Iterator[BinaryIO]:
    """A path or file object as a file that seeks: a pipe's contents are copied."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file, seekable(file) as sure:
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


def seeks(file: Any) -> bool:
    return bool(getattr(file, "seekable", lambda: False)())


def load(data: Source) -> bytes:
    """Bytes of a file from bytes, a path or a file object."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, (str, os.PathLike)):
        return Path(data).read_bytes()
    expect(hasattr(data, "read"), BadInput, "source", type(data).__name__, "bytes, a path or a file object")
    file: BinaryIO = data
    raw = file.read()
    expect(isinstance(raw, bytes), BadInput, "file object", type(raw).__name__, "one opened in binary mode")
    return raw


def tell(texts: list[str], notes: list[str] | None) -> None:
    """Into the caller's list, or as warnings that point at the line which called the codec."""
    if notes is not None:
        notes += texts
    else:
        frame, level = sys._getframe(), 1
        while frame.f_back is not None and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
            frame, level = frame.f_back, level + 1
        for text in texts:
            warnings.warn(text, LaconicWarning, stacklevel=level)
