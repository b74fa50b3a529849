"""What a medium is: an object that turns one kind of source into the chunks of a file, and back (docs/new-medium.md).

All that lies above, `laconic.compress` and the command line among it, knows media by these protocols alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from laconic.container import Data, Header
from laconic.entropy.errors import BadInput, expect
from laconic.file_info import FileInfo
from laconic.options import Options
from laconic.payloads import DEFAULT_MAX_PIXELS

Region = tuple[int, int, int, int]  # x, y, width, height, in pixels
Slices = tuple[slice, slice]  # rows, columns
Progress = Callable[[int, int], None]  # (samples done, all samples)
Note = Callable[[str], None]
Common = tuple[str, str, str, int, tuple[tuple[str, int], ...]]  # the arguments of FileInfo
Symbols = list[tuple[NDArray[np.int16], NDArray[np.uint8]]]  # symbols and table indices, in the order they are coded
PACKAGE = Path(__file__).parent


class LaconicWarning(UserWarning):
    """Warns of something that the caller should know: a conversion, what is left out, a file larger than its input."""


def warn(text: str) -> None:
    """Warn of a note, at the line that called the package."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, LaconicWarning, stacklevel=level)


@dataclass(frozen=True)
class Run:
    """Says how the work is done: where, how exactly, in how many threads, and who is told.

    device: "cpu" or "cuda". precision: "auto", "float32" or "bf16", of networks. threads: None is one per core. max_pixels: refuse
    larger pictures. partial: give what a damaged file still holds. note: is told what was changed or is missing; call it in
    the caller's thread. progress: is called with (samples done, all samples) of sounds.
    """

    device: str = "cpu"
    precision: str = "auto"
    threads: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    partial: bool = False
    note: Note = warn
    progress: Progress | None = None


def checked_region(region: Region | None, width: int, height: int) -> Region:
    """Return x, y, width, height of a region, or of the whole picture. Raises BadInput where it does not lie inside."""
    if region is None:
        return 0, 0, width, height
    expected = f"four integers X,Y,W,H inside {width} x {height}"
    four = isinstance(region, (tuple, list)) and len(region) == 4
    expect(four and all(isinstance(value, (int, np.integer)) for value in region), BadInput, "region", region, expected)
    x, y, w, h = region
    ok = min(x, y) >= 0 and min(w, h) > 0 and x + w <= width and y + h <= height
    expect(ok, BadInput, "region", region, expected)
    return x, y, w, h


def shared(a: Region, b: Region) -> tuple[Slices, Slices] | None:
    """Return what two rectangles share, as rows and columns of each; None where they do not meet."""
    left, right = max(a[0], b[0]), min(a[0] + a[2], b[0] + b[2])
    top, bottom = max(a[1], b[1]), min(a[1] + a[3], b[1] + b[3])
    if left >= right or top >= bottom:
        return None
    of_a, of_b = ((slice(top - y, bottom - y), slice(left - x, right - x)) for x, y, _, _ in (a, b))
    return of_a, of_b


@dataclass(frozen=True)
class Selection:
    """Names the part of a file that is asked for; None is all. Only fields that the medium `selects` are ever set."""

    region: Region | None = None
    seek: float | None = None
    duration: float | None = None
    member: str | int | None = None
    slices: int | None = None
    preview: bool | None = None


class SelectionOptions(TypedDict, total=False):
    """Names the keywords of `decompress` that choose a part of a file or say what happens to damage."""

    region: Region | None
    seek: float | None
    duration: float | None
    member: str | int | None
    slices: int | None
    preview: bool
    partial: bool
    notes: list[str] | None


class DamageOptions(TypedDict, total=False):
    """Names the keywords of `decompress` that fit every medium."""

    partial: bool
    notes: list[str] | None


class Result(Protocol):
    """Holds what was decoded."""

    def value(self, as_array: bool) -> Any:
        """Return what the library gives its caller: a PIL.Image, an array, a `Sound`."""

    def write(self, file: BinaryIO, format: str, note: Note) -> None:
        """Write it as a file of one of the medium's output formats; note what that format cannot hold."""


class Medium(Protocol):
    """Stores one kind of thing in files, and reads them. Its attributes may be those of the class."""

    @property
    def number(self) -> int:
        """The number in the header of its files; from 128 on, numbers are free for media of one's own."""

    @property
    def name(self) -> str:
        """What `laconic.info` and errors call it."""

    @property
    def kinds(self) -> Mapping[int, str]:
        """The names of its chunks, by their numbers."""

    @property
    def accepts(self) -> frozenset[tuple[str, str]]:
        """Pairs of a source's kind ("picture", "sound", "set") and a target (options.py)."""

    @property
    def selects(self) -> frozenset[str]:
        """The fields of `Selection` that it knows."""

    @property
    def outputs(self) -> Mapping[str, str]:
        """Suffixes of the files that it can be written as, with the names of their formats; the first is the default."""

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe a file. common: the arguments of FileInfo. data: the file, to read as little of as will do. Raises BadFile."""

    def encode(self, source: Any, options: Options, run: Run, file: BinaryIO) -> None:
        """Write the file of a source. source: `Input.content` (sources.py) of a kind that it accepts. Raises BadInput."""

    def decode(self, data: Data, selection: Selection, run: Run) -> Result:
        """Decode a file, or a part of it. Raises BadFile, ModelMissing, BadInput."""

    def verify(self, data: Data, run: Run) -> None:
        """Check every checksum, length and symbol, without a float network. Raises BadFile, ModelMissing."""


@runtime_checkable
class Batched(Protocol):
    """Codes several pictures at once, which a GPU does faster, to the files of single calls. Some media can."""

    def encode_batch(self, sources: Iterable[Any], options: Options, run: Run) -> Iterator[bytes]:
        """Yield the file of each source, in order."""

    def decode_batch(self, files: Iterable[bytes], run: Run) -> Iterator[Result]:
        """Yield what each whole file holds, in order."""


@runtime_checkable
class Set(Protocol):
    """Holds many pictures in a file and reaches each of them. Some media do."""

    def open(self, data: Data, run: Run) -> Any:
        """Return what gives the pictures, none of them decoded yet. Raises BadFile, ModelMissing."""


@runtime_checkable
class Symbolic(Protocol):
    """Shows the integers of its files, for golden files and benchmarks. Some media do."""

    def coded(self, data: Data, run: Run) -> Symbols:
        """Return the symbols and table indices of a file in the order they are coded."""

    def codelength(self, data: Data, run: Run) -> float:
        """Return the ideal bits of a file's symbols under its model."""


@runtime_checkable
class Integral(Protocol):
    """Shows what its files hold before any float network, for golden files. Some media do."""

    def integers(self, data: Data, run: Run) -> Iterator[NDArray[np.int32]]:
        """Yield all integers that its samples are made from. Raises BadFile, ModelMissing."""
