"""Archives: many small gray pictures of one size in one file, each in reach (FORMAT.md, section "Archive").

The pictures are coded by a circuit that the file names, in blocks; a picture needs its block alone. Circuits are models on
disk as others (`registry.py`), found by their size; `python -m laconic.tools.lossless_table` trains them.
"""

from __future__ import annotations

import io
import re
import unicodedata
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic import container, picture, registry
from laconic.container import Chunk, Data, Entry, Header
from laconic.entropy.errors import BadFile, BadInput, LaconicError, ModelMissing, UnsupportedFile, expect
from laconic.entropy.threads import mapped, n_threads
from laconic.file_info import FileInfo
from laconic.media.lossless_picture import ExactResult
from laconic.medium import Common, Medium, Run, Selection, warn
from laconic.options import Lossless, Options
from laconic.payloads import CRC_BYTES, crc, read_fields, write_fields
from laconic.picture import Exact
from laconic.registry import CIRCUIT, ModelInfo
from laconic.sources import Source
from laconic.suffixes import PICTURE_OUTPUTS

if TYPE_CHECKING:
    from laconic.models.hclt import Hclt

ARCHIVE = 4
BLOCK, MEMBERS = 11, 12
KINDS = {BLOCK: "block", MEMBERS: "names"}
PER_BLOCK = 128
MAX_PER_BLOCK = 1024
MAX_PICTURES = 1 << 30
MAX_SIDE = 1 << 14
MAX_NAME_BYTES = 1024
UNFIT = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, marks that turn a terminal's line around, halves of surrogate pairs
DEVICES = ("cpu", "cuda")
SAMPLED = 64  # pictures that a circuit is chosen by


@dataclass(frozen=True)
class ArchiveInfo(FileInfo):
    """Describes an archive of n_pictures of one size. bpd: bits per sample of the file."""

    n_pictures: int
    width: int
    height: int
    bpd: float


@dataclass(frozen=True)
class Fields:
    """Holds the archive's own part of the header: sizes in pixels, pictures per block (the last may have fewer)."""

    n_pictures: int
    height: int
    width: int
    per_block: int = PER_BLOCK

    def pack(self) -> bytes:
        return write_fields(self.n_pictures, self.height, self.width, self.per_block)

    @property
    def n_blocks(self) -> int:
        return -(-self.n_pictures // self.per_block)


LIMITS = {
    "number of pictures": (0, MAX_PICTURES),
    "height": (1, MAX_SIDE),
    "width": (1, MAX_SIDE),
    "pictures per block": (1, MAX_PER_BLOCK),
}


def unpack(data: bytes) -> Fields:
    """Read and bound every field. Raises BadFile."""
    return Fields(*read_fields(data, LIMITS, "archive")[0])


@dataclass(frozen=True)
class Pictures:
    """Holds a set to be coded: uint8 [N, H, W], and a name per picture, or None."""

    stack: NDArray[np.uint8]
    names: list[str] | None


class ArchiveMedium:
    """Stores sets of small pictures."""

    number, name = ARCHIVE, "archive"
    kinds = KINDS
    accepts = frozenset({("set", "lossless")})
    selects = frozenset({"member"})
    outputs = PICTURE_OUTPUTS

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe an archive by its fields. Raises BadFile."""
        held = unpack(header.fields)
        n_samples = held.n_pictures * held.height * held.width
        return ArchiveInfo(*common, held.n_pictures, held.width, held.height, 8 * common[3] / max(1, n_samples))

    def encode(self, source: Pictures, options: Options, run: Run, file: BinaryIO) -> None:
        """Write the file of a set. Raises BadInput, ModelMissing."""
        circuit = choose(options.model, source.stack)
        file.write(encode(source.stack, source.names, circuit, run.threads, device=run.device))

    def decode(self, data: Data, selection: Selection, run: Run) -> ExactResult:
        """Decode one picture. Raises BadInput where none is named, BadFile, ModelMissing."""
        if selection.member is None:
            raise BadInput("member: found none, expected a name or number; laconic.open_archive gives them all")
        return ExactResult(Exact(self.open(data, run).member(selection.member)[:, :, None]))

    def open(self, data: Data, run: Run) -> Archive:
        """Return the archive, no picture decoded yet. Raises BadFile, ModelMissing."""
        return parsed(bytes(data[0 : len(data)]), run)

    def verify(self, data: Data, run: Run) -> None:
        """Decode all pictures. Raises BadFile, ModelMissing."""
        whole = bytes(data[0 : len(data)])
        container.read(whole, KINDS)
        parsed(whole, run).all(run.threads)


def compress_archive(
    pictures: NDArray[np.uint8] | Iterable[Source],
    *,
    names: list[str] | None = None,
    model: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    notes: list[str] | None = None,
) -> bytes:
    """Compress small gray pictures of one size to one file, lossless, with access to each.

    pictures: uint8 [N, H, W], or sources as `Codec.compress` takes them. names: one for each, for `open_archive`. model: a
    circuit of their size; None is the one installed that codes them best. device: "cpu" or "cuda", for the same bytes.
    notes: a list that is told what is left out, metadata among it; None warns (LaconicWarning).
    Raises BadInput; ModelMissing says how to train one.
    """
    n_threads(threads)
    run = Run(device, threads=threads, note=warn if notes is None else notes.append)
    left: list[str] = []
    if isinstance(pictures, np.ndarray):
        ok = pictures.ndim == 3 and pictures.dtype == np.uint8
        expect(ok, BadInput, "pictures", f"{pictures.dtype} {pictures.shape}", "uint8 [N, H, W]")
        stack = pictures
    else:
        read = [picture.read_exact(source) for source in pictures]
        stack = stacked([exact.samples for exact in read])
        left = left_out(read)
    out = io.BytesIO()
    MEDIUM.encode(Pictures(stack, names), Options(Lossless(1), model), run, out)
    for note in left:
        run.note(note)
    return out.getvalue()


def left_out(read: list[Exact]) -> list[str]:
    """Return what an archive does not keep of its pictures: a note of each kind, with the first of them and how many."""
    places: dict[str, tuple[str, list[int]]] = {}
    for i, exact in enumerate(read):
        for note in (*(f"{name.upper()} is not kept" for name in exact.metadata), *exact.notes):
            kind = re.sub(r"[\d.]+", "", note)  # the numbers in it (frames, gamma) differ from picture to picture
            places.setdefault(kind, (note, []))[1].append(i)
    return [
        f"picture {found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {note}"
        for note, found in places.values()
    ]


def stacked(pictures: list[NDArray[Any]]) -> NDArray[np.uint8]:
    """Return pictures [H, W, 1] of one size as one array [N, H, W]. Raises BadInput."""
    expect(len(pictures) > 0, BadInput, "pictures", 0, "one or more")
    first = pictures[0].shape
    for i, samples in enumerate(pictures):
        ok = samples.shape == first and samples.shape[2] == 1 and samples.dtype == np.uint8
        expected = f"8-bit gray of {first[1]} x {first[0]} pixels, as the first"
        expect(ok, BadInput, f"picture {i}", f"{samples.dtype} {samples.shape}", expected)
    return np.stack(pictures)[:, :, :, 0]


def encode(
    pictures: NDArray[np.uint8],
    names: list[str] | None,
    circuit: ModelInfo,
    threads: int | None = None,
    per_block: int = PER_BLOCK,
    device: str = "cpu",
) -> bytes:
    """Return the file of uint8 [N, H, W], the same from each device. names: one per picture, none twice. Raises BadInput."""
    model = registry.load_circuit(circuit)
    height, width = model.height, model.width
    ok = pictures.dtype == np.uint8 and pictures.ndim == 3 and pictures.shape[1:] == (height, width)
    found = f"{pictures.dtype} {list(pictures.shape)}"
    expect(ok, BadInput, "pictures", found, f"uint8 [N, {height}, {width}], as model {circuit.name} codes")
    expect(1 <= per_block <= MAX_PER_BLOCK, BadInput, "per_block", per_block, f"1 to {MAX_PER_BLOCK}")
    expect(device in DEVICES, BadInput, "device", device, "cpu or cuda")
    fields = Fields(len(pictures), height, width, per_block)
    chunks = [] if names is None else [Chunk(MEMBERS, pack_names(names, len(pictures)), optional=True)]
    parts = [np.ascontiguousarray(pictures[k : k + per_block]) for k in range(0, len(pictures), per_block)]
    if device == "cuda":
        streams: Iterable[bytes] = gpu().encode(model, parts)
    else:
        streams = mapped(model.encode, parts, threads)
    chunks += [Chunk(BLOCK, checksum(part) + stream) for part, stream in zip(parts, streams, strict=True)]
    header = Header(ARCHIVE, circuit.name, bytes.fromhex(circuit.digest)[: registry.DIGEST_BYTES], fields.pack())
    return container.write(header, chunks)


@dataclass(frozen=True)
class Archive:
    """Reads an opened file.

    names: one per picture, or None. blocks: payloads, not tested yet. entries: their lines in the chunk table. model: what
    decodes them. device: where all are decoded at once.
    """

    fields: Fields
    names: list[str] | None
    blocks: list[bytes | memoryview]
    entries: list[Entry]
    model: Hclt
    device: str = "cpu"

    def __len__(self) -> int:
        return self.fields.n_pictures

    def member(self, which: int | str) -> NDArray[np.uint8]:
        """Return the picture of a number, from 0, or name: uint8 [H, W]; only its block is decoded. Raises BadInput, BadFile."""
        index = self.index(which)
        block, inside = divmod(index, self.fields.per_block)
        return np.asarray(self.block(block)[inside].copy())

    def all(self, threads: int | None = None) -> NDArray[np.uint8]:
        """Return all pictures, uint8 [N, H, W]. Raises BadFile; BadInput where there is no such device."""
        numbers = range(len(self.blocks))
        if self.device == "cuda":
            streams, sizes = [self.stream(b) for b in numbers], [self.size(b) for b in numbers]
            parts = [self.checked(b, part) for b, part in enumerate(gpu().decode(self.model, streams, sizes))]
        else:
            parts = list(mapped(self.block, numbers, threads))
        empty = np.zeros((0, self.fields.height, self.fields.width), np.uint8)
        return np.concatenate([empty, *parts])

    def index(self, which: int | str) -> int:
        """Return the number of a picture. Raises BadInput."""
        if isinstance(which, str):
            known = self.names if self.names is not None else []
            expect(which in known, BadInput, "member", which, f"a name among the archive's {len(known)}")
            return known.index(which)
        last = len(self) - 1
        ok = isinstance(which, Integral) and 0 <= which <= last
        expect(ok, BadInput, "member", which, f"a name, or a number from 0 to {last}")
        return int(which)

    def block(self, number: int) -> NDArray[np.uint8]:
        """Return the pictures of a block, which are those that were written. Raises BadFile where they are not."""
        return self.checked(number, self.model.decode(self.stream(number), self.size(number)))

    def stream(self, number: int) -> bytes | memoryview:
        """Return what the model codes of a block, the checksum of its chunk tested. Raises BadFile."""
        payload = self.blocks[number]
        expect(len(payload) >= CRC_BYTES, BadFile, f"block {number}", len(payload), f"{CRC_BYTES} bytes and more")
        container.is_whole(payload, self.entries[number])
        return payload[CRC_BYTES:]

    def size(self, number: int) -> int:
        """Return the number of pictures of a block."""
        return min(self.fields.per_block, len(self) - number * self.fields.per_block)

    def checked(self, number: int, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pictures of a block if they have its checksum. Raises BadFile where not."""
        found, expected = checksum(pictures).hex(), bytes(self.blocks[number][:CRC_BYTES]).hex()
        expect(found == expected, BadFile, f"checksum of the samples of block {number}", found, expected)
        return pictures


def parsed(data: bytes, run: Run, circuit: Hclt | None = None) -> Archive:
    """Return an archive, no picture decoded yet; the checksum of a block is tested when a picture of it is asked for.

    circuit: the one that the file names, where it is not installed.
    With `run.partial` a file that is cut off, or whose names are damaged, opens too, the latter without names and with a
    note. Raises BadFile, ModelMissing.
    """
    expect(run.device in DEVICES, BadInput, "device", run.device, "cpu or cuda")
    medium = container.read_table(data, partial=True)[0].medium
    expect(medium == ARCHIVE, UnsupportedFile, "medium number", medium, f"{ARCHIVE}, an archive")
    header, table = container.read_table(data, KINDS, run.partial)
    fields = unpack(header.fields)
    entries = [entry for entry in table if entry.kind == BLOCK]
    expect(len(entries) == fields.n_blocks, BadFile, "blocks", len(entries), f"{fields.n_blocks}, as the pictures need")
    view = memoryview(data)
    blocks: list[bytes | memoryview] = [view[entry.start : entry.start + entry.length] for entry in entries]
    names = read_names(data, [entry for entry in table if entry.kind == MEMBERS], fields, run)
    model = circuit or registry.load_circuit(registry.find(header.model, header.digest))
    size, expected = (fields.height, fields.width), (model.height, model.width)
    expect(size == expected, BadFile, "height and width", size, f"{expected}, as the model codes")
    return Archive(fields, names, blocks, entries, model, run.device)


def read_names(data: bytes, entries: list[Entry], fields: Fields, run: Run) -> list[str] | None:
    """Return the names, if the file has any. Raises BadFile."""
    expect(len(entries) <= 1, BadFile, "lists of names", len(entries), "one at most")
    try:
        return unpack_names(container.payload(data, entries[0]), fields.n_pictures) if entries else None
    except BadFile as error:
        if not run.partial:
            raise
        run.note(f"damaged, left out: the names ({error})")
        return None


def gpu() -> ModuleType:
    """Return what codes many blocks at once. Raises BadInput where Triton is not installed."""
    try:
        from laconic.models import hclt_cuda
    except ImportError as error:
        raise BadInput(f"device: found no Triton ({error}), expected it, or device cpu") from error
    return hclt_cuda


def choose(name: str | None, pictures: NDArray[np.uint8]) -> ModelInfo:
    """Return the installed circuit of a name, or the one that codes some of these pictures best. Raises ModelMissing."""
    circuits = candidates(name, *pictures.shape[1:])
    sample = np.ascontiguousarray(pictures[:: max(1, len(pictures) // SAMPLED)][:SAMPLED])
    if len(circuits) == 1:
        return circuits[0]
    return min(circuits, key=lambda circuit: registry.load_circuit(circuit).codelength(sample))


def candidates(name: str | None, height: int, width: int) -> list[ModelInfo]:
    """Return the installed circuits for pictures of this size, first found first. Raises ModelMissing."""
    of_name = [info for info in installed() if name is None or info.name == name]
    fit = [info for info in of_name if shape_of(info) == (height, width)]
    if not fit:
        known = ", ".join(f"{info.name} {shape_of(info)[0]}x{shape_of(info)[1]}" for info in installed()) or "none"
        raise ModelMissing(
            f"circuit: found none{f' named {name!r}' if name else ''} for pictures of {height} x {width} (installed: {known}), "
            "expected one that `python -m laconic.tools.lossless_table DATA` trains from pictures like these, in "
            f"{' or '.join(str(folder) for folder in registry.folders()[:2])}"
        )
    return fit


def installed() -> list[ModelInfo]:
    """Return the circuits among the installed models."""
    return [info for info in registry.list_models() if info.architecture.get("class") == CIRCUIT]


def shape_of(info: ModelInfo) -> tuple[int, int]:
    """Return height and width of the pictures that a circuit is for."""
    return info.architecture.get("height", 0), info.architecture.get("width", 0)


def pack_names(names: list[str], n: int) -> bytes:
    """Return names as UTF-8 with a NUL after each, deflated. Raises BadInput."""
    expect(len(names) == n, BadInput, "names", len(names), f"{n}, one per picture")
    for name in names:
        check_name(name, BadInput)
    twice = len(names) - len(set(names))
    expect(twice == 0, BadInput, "names", f"{twice} more than once", "each once")
    return zlib.compress("".join(f"{name}\0" for name in names).encode(), 9)


def unpack_names(data: bytes, n: int) -> list[str]:
    """Return the names of n pictures. Raises BadFile."""
    inflate, limit = zlib.decompressobj(), n * (MAX_NAME_BYTES + 1)
    try:
        text = inflate.decompress(data, limit + 1)
        ok = inflate.eof and not inflate.unused_data and len(text) <= limit
        expect(ok, BadFile, "names", f"{len(text)} bytes and more", f"at most {limit}, deflated, and the end")
        expect(text.count(0) == n, BadFile, "names", text.count(0), f"{n}, one for each picture")  # before they take memory
        names = text.decode().split("\0")
    except (zlib.error, UnicodeDecodeError) as error:
        raise BadFile(f"names: found damage ({error}), expected deflated UTF-8") from error
    ok = names[-1] == "" and len(set(names)) == n + 1
    expect(ok, BadFile, "names", len(set(names)) - 1, f"{n}, one for each picture, none empty or twice")
    for name in names[:-1]:
        check_name(name, BadFile)
    return names[:-1]


def check_name(name: object, error: type[LaconicError]) -> None:
    """Refuse what is no path inside a folder, of parts between slashes, that a terminal shows as it is."""
    ok = isinstance(name, str) and 0 < len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    expect(ok, error, "name", name, f"a text of 1 to {MAX_NAME_BYTES} bytes of UTF-8")
    fit = not UNFIT & {unicodedata.category(letter) for letter in str(name)}
    expect(fit, error, "name", name, "no control characters, no marks of direction and no halves of surrogate pairs")
    parts = str(name).split("/")
    expect(not {"", ".", ".."} & set(parts), error, "name", name, "parts between slashes, none of them empty, . or ..")


def checksum(pictures: NDArray[np.uint8]) -> bytes:
    """Return the CRC-32 of the samples."""
    return crc(pictures.tobytes())


MEDIUM: Medium = ArchiveMedium()
