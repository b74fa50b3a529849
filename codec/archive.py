"""Archives: many small gray pictures of one size in one file, each in reach (FORMAT.md, section "Archive").

The pictures are coded by a circuit that the file names, in blocks; a picture needs its block alone. Circuits are models on
disk as others (`registry.py`), found by their size; `python -m laconic.tools.lossless_table` trains them.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laconic import container, registry
from laconic.container import Chunk, Entry, Header, read_varint, write_varint
from laconic.entropy.errors import BadFile, BadInput, LaconicError, ModelMissing, UnsupportedFile, expect
from laconic.entropy.threads import mapped
from laconic.kinds import ARCHIVE, BLOCK, MEDIA, MEMBERS

if TYPE_CHECKING:
    from laconic.models.hclt import Hclt

PER_BLOCK = 128
MAX_PER_BLOCK = 1024
MAX_PICTURES = 1 << 30
MAX_SIDE = 1 << 14
MAX_NAME_BYTES = 1024
UNFIT = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, halves of surrogate pairs
CRC_BYTES = 4
SIZE = "height width"  # in the metadata of weights
CLASS = "laconic.models.hclt.Hclt"
DEVICES = ("cpu", "cuda")
SAMPLED = 64  # pictures that a circuit is chosen by


@dataclass(frozen=True)
class Circuit:
    """A model with its name and its digest, SHA-256 of its weights in hexadecimal."""

    name: str
    digest: str
    model: Hclt


@dataclass(frozen=True)
class Fields:
    """The archive's own part of the header: sizes in pixels, pictures a block (the last may have fewer)."""

    n_pictures: int
    height: int
    width: int
    per_block: int = PER_BLOCK

    def pack(self) -> bytes:
        return b"".join(write_varint(value) for value in (self.n_pictures, self.height, self.width, self.per_block))

    @property
    def n_blocks(self) -> int:
        return -(-self.n_pictures // self.per_block)


def unpack(data: bytes) -> Fields:
    """Read and bound every field. Raises BadFile."""
    position, values = 0, []
    limits = {"number of pictures": (0, MAX_PICTURES), "height": (1, MAX_SIDE), "width": (1, MAX_SIDE)}
    for name, (low, high) in {**limits, "pictures a block": (1, MAX_PER_BLOCK)}.items():
        value, position = read_varint(data, position, name)
        expect(low <= value <= high, BadFile, name, value, f"{low} to {high}")
        values.append(value)
    expect(position == len(data), BadFile, "archive header length", len(data), f"{position} bytes")
    return Fields(*values)


def encode(
    pictures: NDArray[np.uint8],
    names: list[str] | None,
    circuit: Circuit,
    threads: int | None = None,
    per_block: int = PER_BLOCK,
    device: str = "cpu",
) -> bytes:
    """uint8 [N, H, W] -> the bytes of a file, the same from each device. names: one each, none twice. Raises BadInput."""
    height, width = circuit.model.height, circuit.model.width
    ok = pictures.dtype == np.uint8 and pictures.ndim == 3 and pictures.shape[1:] == (height, width)
    found = f"{pictures.dtype} {list(pictures.shape)}"
    expect(ok, BadInput, "pictures", found, f"uint8 [N, {height}, {width}], as model {circuit.name} codes")
    expect(1 <= per_block <= MAX_PER_BLOCK, BadInput, "per_block", per_block, f"1 to {MAX_PER_BLOCK}")
    expect(device in DEVICES, BadInput, "device", device, "cpu or cuda")
    fields = Fields(len(pictures), height, width, per_block)
    chunks = [] if names is None else [Chunk(MEMBERS, pack_names(names, len(pictures)), optional=True)]
    parts = [np.ascontiguousarray(pictures[k : k + per_block]) for k in range(0, len(pictures), per_block)]
    if device == "cuda":
        streams: Iterable[bytes] = gpu().encode(circuit.model, parts)
    else:
        streams = mapped(circuit.model.encode, parts, threads)
    chunks += [Chunk(BLOCK, checksum(part) + stream) for part, stream in zip(parts, streams, strict=True)]
    header = Header(ARCHIVE, circuit.name, bytes.fromhex(circuit.digest)[: registry.DIGEST_BYTES], fields.pack())
    return container.write(header, chunks)


@dataclass(frozen=True)
class Archive:
    """An opened file. names: one a picture, or None; blocks: payloads, not tested yet; entries: their lines in the chunk table;
    model: what decodes them; device: where, if all.
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
        """The picture of that number, from 0, or name: uint8 [H, W]; only its block is decoded. Raises BadInput, BadFile."""
        index = self.index(which)
        block, inside = divmod(index, self.fields.per_block)
        return np.asarray(self.block(block)[inside].copy())

    def all(self, threads: int | None = None) -> NDArray[np.uint8]:
        """All pictures, uint8 [N, H, W]. Raises BadFile; BadInput where there is no such device."""
        numbers = range(len(self.blocks))
        if self.device == "cuda":
            streams, sizes = [self.stream(b) for b in numbers], [self.size(b) for b in numbers]
            parts = [self.checked(b, part) for b, part in enumerate(gpu().decode(self.model, streams, sizes))]
        else:
            parts = list(mapped(self.block, numbers, threads))
        empty = np.zeros((0, self.fields.height, self.fields.width), np.uint8)
        return np.concatenate([empty, *parts])

    def index(self, which: int | str) -> int:
        """The number of a picture. Raises BadInput."""
        if isinstance(which, str):
            known = self.names if self.names is not None else []
            expect(which in known, BadInput, "member", which, f"a name among the archive's {len(known)}")
            return known.index(which)
        last = len(self) - 1
        ok = isinstance(which, Integral) and 0 <= which <= last
        expect(ok, BadInput, "member", which, f"a name, or a number from 0 to {last}")
        return int(which)

    def block(self, number: int) -> NDArray[np.uint8]:
        """The pictures of a block, which are those that were written, or BadFile."""
        return self.checked(number, self.model.decode(self.stream(number), self.size(number)))

    def stream(self, number: int) -> bytes | memoryview:
        """What the model codes of a block, the checksum of its chunk tested. Raises BadFile."""
        payload = self.blocks[number]
        expect(len(payload) >= CRC_BYTES, BadFile, f"block {number}", len(payload), f"{CRC_BYTES} bytes and more")
        container.is_whole(payload, self.entries[number])
        return payload[CRC_BYTES:]

    def size(self, number: int) -> int:
        """Pictures of a block."""
        return min(self.fields.per_block, len(self) - number * self.fields.per_block)

    def checked(self, number: int, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pictures of a block if they have its checksum, or BadFile."""
        found, expected = checksum(pictures).hex(), bytes(self.blocks[number][:CRC_BYTES]).hex()
        expect(found == expected, BadFile, f"checksum of the samples of block {number}", found, expected)
        return pictures


def open_archive(
    data: bytes,
    find_model: Callable[[str, bytes], Hclt] | None = None,
    device: str = "cpu",
    partial: bool = False,
    notes: list[str] | None = None,
) -> Archive:
    """An archive, no picture decoded yet; the checksum of a block is tested when a picture of it is asked for.

    find_model: the circuit of a name and the first bytes of its digest; by default an installed one. device: of `all`.
    partial: a file that is cut off, or whose names are damaged, opens too, the latter with a note and without names.
    Raises BadFile, ModelMissing.
    """
    expect(device in DEVICES, BadInput, "device", device, "cpu or cuda")
    medium = container.read_table(data, partial=True)[0].medium
    expect(medium == ARCHIVE, UnsupportedFile, "medium", MEDIA.get(medium, medium), MEDIA[ARCHIVE])
    header, table = container.read_table(data, {BLOCK, MEMBERS}, partial)
    fields = unpack(header.fields)
    entries = [entry for entry in table if entry.kind == BLOCK]
    expect(len(entries) == fields.n_blocks, BadFile, "blocks", len(entries), f"{fields.n_blocks}, as the pictures need")
    view = memoryview(data)
    blocks: list[bytes | memoryview] = [view[entry.start : entry.start + entry.length] for entry in entries]
    names = read_names(data, [entry for entry in table if entry.kind == MEMBERS], fields, partial, notes)
    model = (find_model or find_by_digest)(header.model, header.digest)
    size, expected = (fields.height, fields.width), (model.height, model.width)
    expect(size == expected, BadFile, "height and width", size, f"{expected}, as the model codes")
    return Archive(fields, names, blocks, entries, model, device)


def read_names(
    data: bytes, entries: list[Entry], fields: Fields, partial: bool, notes: list[str] | None
) -> list[str] | None:
    """The names, if the file has any. Raises BadFile."""
    expect(len(entries) <= 1, BadFile, "lists of names", len(entries), "one at most")
    try:
        return unpack_names(container.payload(data, entries[0]), fields.n_pictures) if entries else None
    except BadFile as error:
        if not partial:
            raise
        (notes if notes is not None else []).append(f"damaged, left out: the names ({error})")
        return None


def gpu() -> ModuleType:
    """What codes many blocks at once. Raises BadInput."""
    try:
        from laconic.models import hclt_cuda
    except ImportError as error:
        raise BadInput(f"device: found no Triton ({error}), expected it, or device cpu") from error
    return hclt_cuda


def find(name: str | None, height: int, width: int) -> Circuit:
    """The installed circuit of a name, or the first one, for pictures of this size. Raises ModelMissing."""
    return candidates(name, height, width)[0]


def choose(name: str | None, pictures: NDArray[np.uint8]) -> Circuit:
    """As `find`, but of several circuits the one that codes some of these pictures best."""
    circuits = candidates(name, *pictures.shape[1:])
    sample = np.ascontiguousarray(pictures[:: max(1, len(pictures) // SAMPLED)][:SAMPLED])
    return min(circuits, key=lambda circuit: circuit.model.codelength(sample)) if len(circuits) > 1 else circuits[0]


def candidates(name: str | None, height: int, width: int) -> list[Circuit]:
    """Installed circuits for pictures of this size, first found first. Raises ModelMissing."""
    of_name = [info for info in installed() if name is None or info.name == name]
    fit = [info for info in of_name if shape_of(info) == (height, width)]
    if not fit:
        known = ", ".join(f"{info.name} {shape_of(info)[0]}x{shape_of(info)[1]}" for info in installed()) or "none"
        raise ModelMissing(
            f"circuit: found none{f' named {name!r}' if name else ''} for pictures of {height} x {width} (installed: {known}), "
            "expected one that `python -m laconic.tools.lossless_table DATA` trains from pictures like these, in "
            f"{' or '.join(str(folder) for folder in registry.folders()[:2])}"
        )
    return [Circuit(info.name, info.digest, load(info.path)) for info in fit]


def find_by_digest(name: str, digest: bytes) -> Hclt:
    """The installed circuit that a file names. Raises ModelMissing."""
    info = registry.find(name, digest)
    expect(info in installed(), ModelMissing, f"model {name}", info.card.get("medium"), "a circuit for archives")
    return load(info.path)


def installed() -> list[registry.ModelInfo]:
    """The circuits among the installed models."""
    return [info for info in registry.list_models() if architecture(info).get("class") == CLASS]


def shape_of(info: registry.ModelInfo) -> tuple[int, int]:
    """height, width of the pictures that a circuit is for."""
    return architecture(info).get("height", 0), architecture(info).get("width", 0)


def architecture(info: registry.ModelInfo) -> dict[str, Any]:
    found = info.card.get("architecture")
    return found if isinstance(found, dict) else {}


def save(model: Hclt, folder: Path, name: str, card: dict[str, Any] | None = None) -> Circuit:
    """Write NAME.safetensors and NAME.json into a folder. card: what is to be said of it besides name, size and digest."""
    from safetensors.numpy import save_file

    from laconic.models.hclt import FIELDS

    expect(
        name.isascii() and 0 < len(name) <= 200 and name == Path(name).name, BadInput, "model name", name, "1-200 ASCII"
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    arrays = {field: getattr(model, field) for field in FIELDS}
    save_file(arrays, path, {SIZE: f"{model.height} {model.width}"})  # one entry: safetensors keeps no order of several
    digest = registry.sha256(path)
    size = {"class": CLASS, "height": model.height, "width": model.width}
    about = {"name": name, "medium": "archive", "digest": digest, "architecture": size, **(card or {})}
    path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")
    return Circuit(name, digest, model)


def load(path: str | Path) -> Hclt:
    """The circuit of a weights file, checked. Raises ModelMissing."""
    stat = Path(path).stat()
    return _load(str(path), stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _load(path: str, mtime_ns: int) -> Hclt:
    from safetensors import SafetensorError, safe_open

    from laconic.models.hclt import FIELDS, Hclt

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {field: file.get_tensor(field) for field in FIELDS}
        height, width = map(int, metadata[SIZE].split())
        return Hclt(height, width, **arrays).check()
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelMissing(f"model {path}: found weights that do not load ({error}), expected a circuit") from error


def pack_names(names: list[str], n: int) -> bytes:
    """UTF-8 with a NUL after each, deflated. Raises BadInput."""
    expect(len(names) == n, BadInput, "names", len(names), f"{n}, one a picture")
    for name in names:
        check_name(name, BadInput)
    twice = len(names) - len(set(names))
    expect(twice == 0, BadInput, "names", f"{twice} more than once", "each once")
    return zlib.compress("".join(f"{name}\0" for name in names).encode(), 9)


def unpack_names(data: bytes, n: int) -> list[str]:
    """Raises BadFile."""
    inflate, limit = zlib.decompressobj(), n * (MAX_NAME_BYTES + 1)
    try:
        text = inflate.decompress(data, limit + 1)
        ok = inflate.eof and not inflate.unused_data and len(text) <= limit
        expect(ok, BadFile, "names", f"{len(text)} bytes and more", f"at most {limit}, deflated, and the end")
        names = text.decode().split("\0")
    except (zlib.error, UnicodeDecodeError) as error:
        raise BadFile(f"names: found damage ({error}), expected deflated UTF-8") from error
    ok = len(names) == n + 1 and names[-1] == "" and len(set(names)) == n + 1
    expect(ok, BadFile, "names", len(names) - 1, f"{n}, one a picture, none empty or twice")
    for name in names[:-1]:
        check_name(name, BadFile)
    return names[:-1]


def check_name(name: object, error: type[LaconicError]) -> None:
    """A name is a path inside a folder, of parts between slashes, that a terminal shows as it is."""
    ok = isinstance(name, str) and 0 < len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    expect(ok, error, "name", name, f"a text of 1 to {MAX_NAME_BYTES} bytes of UTF-8")
    fit = not UNFIT.search(str(name))
    expect(fit, error, "name", name, "no control characters and no halves of surrogate pairs")
    parts = str(name).split("/")
    expect(not {"", ".", ".."} & set(parts), error, "name", name, "parts between slashes, none of them empty, . or ..")


def checksum(pictures: NDArray[np.uint8]) -> bytes:
    return zlib.crc32(pictures.tobytes()).to_bytes(CRC_BYTES, "little")
