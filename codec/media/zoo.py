"""Pictures by networks of CompressAI that the user has (extra `zoo`; FORMAT.md, section "Picture of CompressAI").

    pixels ─ models/zoo.py ─► symbols and table rows ─ entropy ─► chunks z and y
    alpha, metadata ────────────────────────────────────────────► chunks

The networks are float: on another machine they may choose other table rows, and with them other symbols. So a file
says what computed it, the reader notes where that differs, and a checksum of the symbols makes an error of wrong ones.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic import container, entropy, payloads, picture, registry
from laconic.container import Chunk, Data, Header
from laconic.entropy.errors import BadFile, BadInput, LaconicError, ModelMissing, UnsupportedFile, expect
from laconic.file_info import FileInfo, PictureInfo
from laconic.media.photo import PictureResult
from laconic.medium import Common, Medium, Run, Selection
from laconic.options import Options
from laconic.payloads import CRC_BYTES, MAX_SIDE, METADATA, metadata_chunks, read_metadata
from laconic.picture import Picture
from laconic.suffixes import PICTURE_OUTPUTS

if TYPE_CHECKING:
    from laconic.models.zoo import ZooNetwork

Z, Y, ALPHA = 1, 2, 3  # kinds of chunks
KINDS = {Z: "z", Y: "y", ALPHA: "alpha", **METADATA}
LIMITS = {"width": (1, MAX_SIDE), "height": (1, MAX_SIDE), "gray": (0, 1)}
UNIT = 64  # pixels: sides are padded to multiples of at most this
MOST_PIXELS = 1 << 25  # padded: the networks see the whole picture at once and take up to 800 bytes per pixel
MOST_FACTS = 255  # characters


@dataclass(frozen=True)
class ZooInfo(PictureInfo):
    """Describes a picture of CompressAI. made_by: the software and machine that computed it."""

    gray: bool
    made_by: str


@dataclass(frozen=True)
class Fields:
    """Holds the size in pixels, whether the picture is gray, and what computed it (`facts`)."""

    width: int
    height: int
    gray: bool
    made_by: str

    def pack(self) -> bytes:
        """Return the bytes that `unpack` reads."""
        made_by = self.made_by.encode("ascii")
        return bytes([len(made_by)]) + made_by + payloads.write_fields(self.width, self.height, self.gray)

    def check_size(self, max_pixels: int, error: type[LaconicError]) -> None:
        """Raise an error for more pixels than are allowed, or than the networks can take at once."""
        n_pixels = self.width * self.height
        expect(n_pixels <= max_pixels, error, "pixels", n_pixels, f"at most {max_pixels} (--max-pixels)")
        padded = -(-self.width // UNIT) * -(-self.height // UNIT) * UNIT**2
        expect(padded <= MOST_PIXELS, error, "padded pixels", padded, f"at most {MOST_PIXELS} for models of CompressAI")


@dataclass(frozen=True)
class Opened:
    """Holds a file whose container was read and whose fields were bounded."""

    header: Header
    chunks: list[Chunk]
    fields: Fields


class ZooMedium:
    """Stores pictures with loss, by networks of CompressAI."""

    number, name = 6, registry.COMPRESSAI
    kinds = KINDS
    accepts = frozenset({("picture", "quality")})
    selects = frozenset[str]()
    outputs = PICTURE_OUTPUTS

    def info(self, header: Header, common: Common, data: Data) -> FileInfo:
        """Describe a file by its fields. Raises BadFile."""
        fields = unpack(header.fields)
        *_, n_bytes, chunks = common
        channels = (1 if fields.gray else 3) + any(name == "alpha" for name, _ in chunks)
        bpp = 8 * n_bytes / (fields.width * fields.height)
        return ZooInfo(*common, fields.width, fields.height, channels, 8, bpp, fields.gray, fields.made_by)

    def encode(self, source: Any, options: Options, run: Run, file: BinaryIO) -> None:
        """Write a picture's file. The model alone decides on the quality. Raises BadInput, ModelMissing."""
        for name in ("effort", "tune", "progressive"):
            given = getattr(options, name)
            expect(not given, BadInput, name, given, "none: models of CompressAI have neither search nor slices")
        name, path = named(options.model, run)
        read = picture.read(source, max_pixels=run.max_pixels)
        height, width, n_colours = read.pixels.shape
        network = network_of(path, run)
        fields = Fields(width, height, n_colours == 1, facts(run.device))
        fields.check_size(run.max_pixels, BadInput)
        for note in read.notes:
            run.note(note)
        chunks = coded(network, read.pixels, run)
        if read.alpha is not None:
            chunks.append(Chunk(ALPHA, picture.encode_alpha(read.alpha)))
        metadata = picture.stripped(read.metadata) if options.strip else read.metadata
        header = Header(self.number, name, digest_of(path), fields.pack())
        file.write(container.write(header, [*chunks, *metadata_chunks(metadata)]))

    def decode(self, data: Data, selection: Selection, run: Run) -> PictureResult:
        """Decode a picture. Raises BadFile, ModelMissing, and UnsupportedFile where other symbols come out here."""
        file = opened(data, run)
        network, y_hat = parsed(file, run)
        pixels = network.decode(y_hat, (file.fields.height, file.fields.width))
        if file.fields.gray:
            pixels = ((pixels.sum(2, keepdims=True, dtype=np.uint16) + 1) // 3).astype(np.uint8)
        return PictureResult(Picture(pixels, alpha_of(file, run), metadata_of(file, run)))

    def verify(self, data: Data, run: Run) -> None:
        """Check every symbol, alpha and metadata. h_s has to run for that, as it chooses table rows. Raises BadFile."""
        file = opened(data, run)
        parsed(file, run)
        alpha_of(file, run)
        metadata_of(file, run)


def coded(network: ZooNetwork, pixels: NDArray[np.uint8], run: Run) -> list[Chunk]:
    """Return the chunks of each latent of a picture, uint8 [H, W, 1 or 3]."""
    layers = network.encode(np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels)
    found = []
    for kind, (symbols, rows, tables) in zip((Z, Y)[-len(layers) :], layers, strict=True):
        stream = entropy.encode(symbols.ravel(), rows, tables, threads=run.threads)
        found.append(Chunk(kind, checksum(symbols) + stream))
    return found


def parsed(file: Opened, run: Run) -> tuple[ZooNetwork, Any]:
    """Return the network of a file and y_hat, with a note where the file was made elsewhere.

    Raises ModelMissing, BadFile, UnsupportedFile for symbols other than those that were written.
    """
    network = network_of(weights_of(file.header.model, file.header.digest), run)
    layers = iter(layers_of(file, [Y] if network.factorised else [Z, Y]))
    made_by, here = file.fields.made_by, facts(run.device)
    if made_by != here:
        why = "this model chooses by floats, which may differ; other symbols would be an error"
        run.note(f"made by {made_by}, read by {here}: {why}")

    def read(rows: NDArray[np.int32], tables: entropy.Tables) -> NDArray[np.int32]:
        what, payload = next(layers)
        expected = f"those of {made_by}; here is {here}: read it where it was made"
        try:
            symbols = entropy.decode(payload[CRC_BYTES:], rows, tables, threads=run.threads)
        except BadFile as error:
            raise UnsupportedFile(f"symbols of {what}: found others ({error}), expected {expected}") from None
        expect(checksum(symbols) == payload[:CRC_BYTES], UnsupportedFile, f"symbols of {what}", "others", expected)
        return symbols.astype(np.int32)

    return network, network.parse((file.fields.height, file.fields.width), read)


def layers_of(file: Opened, kinds: list[int]) -> list[tuple[str, bytes]]:
    """Return name and payload of the chunks of latents, which are of these kinds. Raises BadFile."""
    chunks = [chunk for chunk in file.chunks if chunk.kind in (Z, Y)]
    found = [chunk.kind for chunk in chunks]
    expect(found == kinds, BadFile, "chunks", found, f"{kinds}, in this order")
    for chunk in chunks:
        whole = chunk.payload is not None
        expect(whole, BadFile, KINDS[chunk.kind], "damage", "a whole chunk, as all pixels need it")
    return [(KINDS[chunk.kind], bytes(chunk.payload or b"")) for chunk in chunks]


def checksum(symbols: NDArray[Any]) -> bytes:
    """Return the CRC-32 of symbols as 16-bit integers."""
    return payloads.crc(symbols.astype("<i2").tobytes())


def facts(device: str) -> str:
    """Return what the networks' floats depend on here: torch's version, the processor's kind or the GPU's name."""
    import torch

    if device == "cuda":
        place = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    else:
        place = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, {place}".encode("ascii", "replace").decode()[:MOST_FACTS]


def opened(data: Data, run: Run) -> Opened:
    """Read the container of a file and bound its fields. Raises BadFile."""
    header, chunks = container.read(bytes(data[0 : len(data)]), KINDS, partial=run.partial)
    fields = unpack(header.fields)
    fields.check_size(run.max_pixels, BadFile)
    return Opened(header, chunks, fields)


def unpack(data: bytes) -> Fields:
    """Read and bound every field. Raises BadFile."""
    end = 1 + (data[0] if data else 0)
    (width, height, gray), _ = payloads.read_fields(data[end:], LIMITS, ZooMedium.name)
    made_by = data[1:end].decode("ascii", "replace")
    expect(made_by.isprintable() and made_by.isascii(), BadFile, "made by", made_by, "printable ASCII")
    return Fields(width, height, bool(gray), made_by)


def alpha_of(file: Opened, run: Run) -> NDArray[np.uint8] | None:
    """Return the alpha of a picture, uint8 [H, W], if there is any; note where it is damaged. Raises BadFile."""
    for chunk in file.chunks:
        if chunk.kind == ALPHA and chunk.payload is not None:
            return picture.decode_alpha(bytes(chunk.payload), file.fields.height, file.fields.width)
        if chunk.kind == ALPHA:
            run.note("damaged, left out: alpha")
    return None


def metadata_of(file: Opened, run: Run) -> dict[str, bytes]:
    """Return the metadata of a picture; note what partial reading left out. Raises BadFile."""
    return read_metadata(file.chunks, lambda name: run.note(f"damaged, left out: {name}"))


def named(model: str | None, run: Run) -> tuple[str, Path]:
    """Return the name that a file has of a model, and its weights. A note says where a reader will not find them.

    model: `compressai:ARCHITECTURE:QUALITY`, `compressai:FILE` in a folder of models, or the path of a checkpoint.
    Raises BadInput, ModelMissing.
    """
    expected = f"{registry.COMPRESSAI}:ARCHITECTURE:QUALITY, or a checkpoint ({', '.join(registry.CHECKPOINTS)})"
    expect(registry.medium_of(model) == ZooMedium.name, BadInput, "model", model, expected)
    assert model is not None
    if model.startswith(f"{registry.COMPRESSAI}:"):
        return model, weights_of(model)
    path = Path(model)
    expect(path.is_file(), BadInput, "model", model, "a file")
    name = f"{registry.COMPRESSAI}:{path.name}"
    registry.check_name(name)
    if all(registry.sha256(path) != registry.sha256(other) for other in beside(path.name)):
        run.note(f"readers need {path.name} in a folder of LACONIC_MODELS, where it is not")
    return name, path


def weights_of(name: str, digest: bytes | None = None) -> Path:
    """Return the weights of a name, and of the digest that a file asks for. Raises BadInput, ModelMissing."""
    rest = name.removeprefix(f"{registry.COMPRESSAI}:")
    found = list(beside(rest)) if rest.endswith(registry.CHECKPOINTS) else [pretrained(rest)]
    for path in found:
        if digest in (None, digest_of(path)):
            return path
    asked = f" with digest {digest.hex()}" if digest else ""
    mine = ", ".join(f"{path} with {digest_of(path).hex()}" for path in found) or f"no {rest}"
    folders = " or ".join(str(folder) for folder in registry.folders()[:2])
    raise ModelMissing(f"model {name}: found {mine}, expected weights{asked}; checkpoints are looked for in {folders}")


def pretrained(name: str) -> Path:
    from laconic.models import zoo

    return zoo.pretrained(name)


def beside(name: str) -> Iterator[Path]:
    """Yield the checkpoints of a file name in the folders of models. A name with a folder in it has none."""
    if name == Path(name).name:
        yield from (folder / name for folder in registry.folders() if (folder / name).is_file())


def digest_of(path: Path) -> bytes:
    return bytes.fromhex(registry.sha256(path))[: registry.DIGEST_BYTES]


def network_of(path: Path, run: Run) -> ZooNetwork:
    """Return a network, ready to run. Raises BadInput, ModelMissing where CompressAI is not installed."""
    import torch

    if run.device == "cuda":
        expect(torch.cuda.is_available(), BadInput, "device", "no CUDA device", "one, or device cpu")
    expect(run.precision != "bf16", BadInput, "precision", run.precision, "float32 with a model of CompressAI")
    if run.threads:
        torch.set_num_threads(run.threads)
    return loaded(path, registry.sha256(path), run.device)


@lru_cache(maxsize=1)
def loaded(path: Path, digest: str, device: str) -> ZooNetwork:
    from laconic.models import zoo

    return zoo.ZooNetwork(zoo.load(path), device)


MEDIUM: Medium = ZooMedium()
