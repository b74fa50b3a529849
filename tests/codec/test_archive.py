"""Archives: pictures and names come back, alone and together; damage and other models are errors."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import laconic
from laconic import container, registry
from laconic.container import Chunk, Header
from laconic.entropy.errors import BadFile, BadInput, LaconicError, ModelMissing, UnsupportedFile
from laconic.media import archive
from laconic.media.archive import ARCHIVE, BLOCK, MEMBERS, Fields
from laconic.medium import Run
from laconic.models.hclt import Hclt
from laconic.models.hclt_learn import LearnConfig, Learner
from laconic.registry import ModelInfo

HEIGHT, WIDTH = 4, 3


def pictures(n: int, seed: int, kind: str = "smooth") -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (n, HEIGHT, WIDTH)).astype(np.uint8)
    if kind == "constant":
        return np.full((n, HEIGHT, WIDTH), seed % 256, np.uint8)
    return (rng.integers(0, 200, (n, 1, 1)) + rng.integers(0, 30, (n, HEIGHT, WIDTH))).astype(np.uint8)


def learnt(seed: int) -> Hclt:
    torch.set_num_threads(1)
    learner = Learner.start(pictures(400, seed), LearnConfig(states=8, contexts=2, epochs=2, full_epochs=1, seed=seed))
    learner.run()
    return learner.export()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two circuits of one size."""
    folder = tmp_path_factory.mktemp("models")
    registry.save(learnt(1), folder, "small-a", {"data": "made up"})
    registry.save(learnt(2), folder, "small-b")
    return folder


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LACONIC_MODELS", str(folder))
    return folder


@pytest.fixture(scope="module")
def circuit(folder: Path) -> ModelInfo:
    path = folder / "small-a.safetensors"
    return registry.model_at(path)


many = settings(deadline=None, max_examples=25)
kinds = st.sampled_from(["smooth", "noise", "constant"])


@many
@given(st.integers(0, 20), kinds, st.integers(0, 1 << 20), st.integers(1, 9), st.booleans())
def test_all_comes_back(circuit: ModelInfo, n: int, kind: str, seed: int, per_block: int, named: bool) -> None:
    stack, names = pictures(n, seed, kind), [f"{i}.png" for i in range(n)] if named else None
    data = archive.encode(stack, names, circuit, 1, per_block)
    assert data == archive.encode(stack, names, circuit, 2, per_block)
    opened = archive.parsed(data, Run(), registry.load_circuit(circuit))
    assert len(opened) == n and opened.names == names
    assert np.array_equal(opened.all(1), stack) and np.array_equal(opened.all(2), stack)
    for i in range(n):
        assert np.array_equal(opened.member(i), stack[i])
        if named:
            assert np.array_equal(opened.member(f"{i}.png"), stack[i])


def test_a_member_needs_its_block_alone(circuit: ModelInfo) -> None:
    opened = archive.parsed(archive.encode(pictures(30, 1), None, circuit, 1, 10), Run(), registry.load_circuit(circuit))
    opened.blocks[0] = opened.blocks[2] = b""
    assert np.array_equal(opened.member(15), pictures(30, 1)[15])
    for i in (9, 20):
        with pytest.raises(BadFile, match="block"):
            opened.member(i)


def test_damage_elsewhere_does_not_matter(circuit: ModelInfo, installed: Path) -> None:
    names = [f"{i}" for i in range(30)]
    raw = bytearray(archive.encode(pictures(30, 1), names, circuit, 1, 10))
    _, table = container.read_table(bytes(raw))
    raw[table[2].start + 9] ^= 1
    assert np.array_equal(laconic.decompress(bytes(raw), member="25", as_array=True)[:, :, 0], pictures(30, 1)[25])
    for read in (
        laconic.verify,
        lambda data: laconic.open_archive(data).all(),
        lambda data: laconic.decompress(data, member="15", partial=True),
    ):
        with pytest.raises(BadFile, match="chunk 2 checksum: found '0x.{8}', expected 0x.{8}"):
            read(bytes(raw))
    cut = bytes(raw[:-5])
    with pytest.raises(BadFile, match="length"):
        laconic.decompress(cut, member=0)
    assert np.array_equal(laconic.decompress(cut, member=0, partial=True, as_array=True)[:, :, 0], pictures(30, 1)[0])
    raw[table[0].start] ^= 1
    notes: list[str] = []
    laconic.decompress(bytes(raw), member=0, partial=True, notes=notes)
    assert len(notes) == 1 and notes[0].startswith("damaged, left out: the names (chunk 0 checksum")


def test_what_an_archive_does_not_keep_is_a_note(installed: Path) -> None:
    files = []
    for i, options in enumerate([{}, {"exif": b"Exif\0\0II*\0\b\0\0\0\0\0\0\0\0\0"}, {"dpi": (72, 72)}] * 2):
        files.append(io.BytesIO())
        Image.fromarray(pictures(6, 1)[i]).save(files[-1], "PNG", **options)
    files.append(io.BytesIO())
    Image.fromarray(pictures(6, 1)[0]).save(
        files[-1], "TIFF", save_all=True, append_images=[Image.new("L", (3, 4))] * 2
    )
    for file in files:
        file.seek(0)
    notes: list[str] = []
    laconic.compress_archive(files, notes=notes)
    assert notes == [
        "picture 1 and 1 more: EXIF is not kept",
        "picture 2 and 1 more: RESOLUTION is not kept",
        "picture 6: only the first of 3 frames or pages is kept",
    ]
    with warnings.catch_warnings(action="error"):
        laconic.compress_archive(pictures(3, 1))
    files[1].seek(0)
    with pytest.warns(laconic.LaconicWarning, match="EXIF"):
        laconic.compress_archive(files[1:2])


@pytest.mark.parametrize("threads", [-3, 0, 1.5, "2"])
def test_threads_that_are_none(installed: Path, threads: Any) -> None:
    for wrong in (
        lambda: laconic.compress_archive(pictures(3, 1), threads=threads),
        lambda: laconic.open_archive(laconic.compress_archive(pictures(3, 1))).all(threads),
        lambda: laconic.compress(pictures(1, 1)[0], lossless=True, threads=threads),
    ):
        with pytest.raises(BadInput, match="threads: found .*, expected a number of 1 or more"):
            wrong()


def test_members_that_are_not_there(circuit: ModelInfo) -> None:
    named = archive.parsed(archive.encode(pictures(2, 1), ["a", "b"], circuit), Run(), registry.load_circuit(circuit))
    for which in (2, -1, "c", None, 1.5):
        with pytest.raises(BadInput, match="member"):
            named.member(which)  # type: ignore[arg-type]
    nameless = archive.parsed(archive.encode(pictures(2, 1), None, circuit), Run(), registry.load_circuit(circuit))
    with pytest.raises(BadInput, match="member"):
        nameless.member("a")


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", ""], ["a", "b\0"], ["a", "b" * 1025]])
def test_names_that_cannot_be_kept(circuit: ModelInfo, names: list[str]) -> None:
    with pytest.raises(BadInput, match="name"):
        archive.encode(pictures(2, 1), names, circuit)


@many
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=[]), min_size=1), unique=True))
def test_any_names(names: list[str]) -> None:
    try:
        packed = archive.pack_names(names, len(names))
    except BadInput:
        assert any(map(unfit, names))
    else:
        assert archive.unpack_names(packed, len(names)) == names and not any(map(unfit, names))


def unfit(name: str) -> bool:
    """No path inside a folder, or not fit for a terminal."""
    odd = any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    return odd or not {"", ".", ".."}.isdisjoint(name.split("/")) or len(name.encode()) > archive.MAX_NAME_BYTES


@pytest.mark.parametrize(
    "name", ["/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\n", "\x1b[2J", "\x7f", "\x9b", "\ud800", 3, None]
)
def test_names_that_are_no_paths_in_a_folder(circuit: ModelInfo, name: Any) -> None:
    with pytest.raises(BadInput, match="name: found .*, expected"):
        archive.encode(pictures(2, 1), ["a", name], circuit)
    if isinstance(name, str):
        text = f"a\0{name}\0".encode("utf-8", "surrogatepass")
        raw = rebuilt(archive.encode(pictures(2, 1), ["a", "b"], circuit), change={0: zlib.compress(text)})
        with pytest.raises(BadFile, match="names?: found .*, expected"):
            archive.parsed(raw, Run(), registry.load_circuit(circuit))


@pytest.mark.parametrize("stack", [np.zeros((1, 3, 4), np.uint8), np.zeros((1, 4, 3), int), np.zeros((4, 3), np.uint8)])
def test_other_pictures_are_refused(circuit: ModelInfo, stack: np.ndarray) -> None:
    with pytest.raises(BadInput, match="pictures"):
        archive.encode(stack, None, circuit)


@many
@given(st.data())
def test_damage_is_an_error(circuit: ModelInfo, data: st.DataObject) -> None:
    raw = archive.encode(pictures(20, 3), [str(i) for i in range(20)], circuit, 1, 8)
    place = data.draw(st.integers(0, len(raw) - 1))
    cut = data.draw(st.booleans())
    broken = (
        raw[:place] if cut else raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]
    )
    with pytest.raises(LaconicError, match="found .*, expected"):
        archive.parsed(broken, Run(), registry.load_circuit(circuit)).all(1)


def test_an_unknown_device_is_refused(circuit: ModelInfo) -> None:
    with pytest.raises(BadInput, match="device: found 'tpu', expected cpu or cuda"):
        archive.encode(pictures(2, 1), None, circuit, device="tpu")
    with pytest.raises(BadInput, match="device: found 'tpu', expected cpu or cuda"):
        archive.parsed(archive.encode(pictures(2, 1), None, circuit), Run("tpu"), registry.load_circuit(circuit))


def test_a_gpu_needs_triton(circuit: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "laconic.models.hclt_cuda", None)
    monkeypatch.delattr("laconic.models.hclt_cuda", raising=False)
    with pytest.raises(BadInput, match="device: found no Triton .*, expected it, or device cpu"):
        archive.encode(pictures(2, 1), None, circuit, device="cuda")


def rebuilt(data: bytes, change_fields: Fields | None = None, change: dict[int, bytes] | None = None) -> bytes:
    """The file with other fields or payloads, and checksums that fit."""
    header, chunks = container.read(data, {BLOCK, MEMBERS})
    fields = change_fields.pack() if change_fields else header.fields
    payloads = [(change or {}).get(i, bytes(chunk.payload or b"")) for i, chunk in enumerate(chunks)]
    kept = [Chunk(c.kind, p, c.optional) for c, p in zip(chunks, payloads, strict=True)]
    return container.write(Header(header.medium, header.model, header.digest, fields), kept)


@many
@given(st.integers(0, 200), st.integers(0, 7))
def test_samples_have_a_checksum_of_their_own(circuit: ModelInfo, place: int, bit: int) -> None:
    """A file whose chunks are sound but whose samples decode to others."""
    raw = archive.encode(pictures(8, 4), None, circuit)
    payload = bytearray(bytes(container.read(raw, {BLOCK})[1][0].payload or b""))
    payload[place % len(payload)] ^= 1 << bit
    with pytest.raises(BadFile):
        archive.parsed(rebuilt(raw, change={0: bytes(payload)}), Run(), registry.load_circuit(circuit)).all(1)


@pytest.mark.parametrize(
    "fields",
    [
        Fields(8, 4, 3, 4),
        Fields(1 << 29, 4, 3),
        Fields(8, 3, 4),
        Fields(8, 0, 3),
        Fields(8, 4, 3, 2000),
        Fields(7, 4, 3),
    ],
)
def test_fields_that_do_not_fit(circuit: ModelInfo, fields: Fields) -> None:
    raw = rebuilt(archive.encode(pictures(8, 4), None, circuit), fields)
    with pytest.raises(BadFile):
        archive.parsed(raw, Run(), registry.load_circuit(circuit)).all(1)


@pytest.mark.parametrize("text", [b"a\0", b"a\0b\0c\0", b"a\0b", b"a\0a\0", b"\0\0", b"\xff\0b\0", b"a\0" * 5000])
def test_lists_of_names_that_do_not_fit(circuit: ModelInfo, text: bytes) -> None:
    raw = archive.encode(pictures(2, 4), ["a", "b"], circuit)
    for payload in (zlib.compress(text), zlib.compress(text)[:-1], zlib.compress(text) + b"\0", text):
        with pytest.raises(BadFile, match="names"):
            archive.parsed(rebuilt(raw, change={0: payload}), Run(), registry.load_circuit(circuit))


def test_another_medium_is_refused() -> None:
    with pytest.raises(UnsupportedFile, match="medium"):
        laconic.open_archive(container.write(Header(1, "m", b"1234", b""), []))
    with pytest.raises(UnsupportedFile, match="medium: found 'lossless picture', expected archive"):
        laconic.open_archive(container.write(Header(2, "", b"", b""), [Chunk(7, b"")]))


def test_models_are_found_by_name_size_and_digest(installed: Path) -> None:
    assert archive.candidates("small-b", HEIGHT, WIDTH)[0].name == "small-b"
    assert archive.candidates(None, HEIGHT, WIDTH)[0].name == "small-a"
    raw = archive.encode(pictures(3, 1), None, archive.candidates("small-b", HEIGHT, WIDTH)[0])
    assert np.array_equal(laconic.open_archive(raw).all(), pictures(3, 1))
    card = json.loads((installed / "small-a.json").read_text())
    assert card["digest"] == registry.sha256(installed / "small-a.safetensors") and card["data"] == "made up"
    with pytest.raises(ModelMissing, match="lossless_table"):
        archive.candidates(None, WIDTH, HEIGHT)
    with pytest.raises(ModelMissing, match="small-c"):
        archive.candidates("small-c", HEIGHT, WIDTH)
    with pytest.raises(ModelMissing, match="digest"):
        registry.find("small-a", b"1234")


def test_of_several_circuits_the_best_is_chosen(installed: Path) -> None:
    """small-a and small-b know pictures of the same kind, a third one knows dark ones."""
    dark = pictures(200, 9) // 8
    learner = Learner.start(dark, LearnConfig(states=8, contexts=1, epochs=2, full_epochs=1))
    registry.save(learner.export(), installed, "small-dark")
    try:
        assert archive.choose(None, dark).name == "small-dark"
        assert archive.choose(None, pictures(50, 5)).name in ("small-a", "small-b")
        assert archive.choose("small-a", dark).name == "small-a"
    finally:
        for suffix in (".safetensors", ".json"):
            (installed / f"small-dark{suffix}").unlink()


def test_weights_that_are_not_a_circuit(tmp_path: Path, circuit: ModelInfo) -> None:
    model = registry.load_circuit(circuit)
    broken = registry.save(replace(model, initial=np.zeros_like(model.initial)), tmp_path, "bad")
    with pytest.raises(ModelMissing, match="initial"):
        registry.load_circuit(broken)
    for content in (b"", b"{}", b"\x08" + bytes(7) + b"{}      "):
        Path(broken.path).write_bytes(content)
        with pytest.raises(ModelMissing, match="do not load"):
            registry.load_circuit(registry.model_at(Path(broken.path)))
    with pytest.raises(BadInput, match="model name"):
        registry.save(model, tmp_path, "../x")


def test_saving_gives_the_same_integers(tmp_path: Path, circuit: ModelInfo) -> None:
    saved = registry.save(registry.load_circuit(circuit), tmp_path, "again")
    assert saved.digest == circuit.digest
    assert registry.load_circuit(saved).encode(pictures(5, 5)) == registry.load_circuit(circuit).encode(pictures(5, 5))


def test_the_medium_is_the_archives(circuit: ModelInfo) -> None:
    header, table = container.read_table(archive.encode(pictures(3, 1), ["x", "y", "z"], circuit))
    assert (header.medium, header.model) == (ARCHIVE, "small-a") and header.digest.hex() == circuit.digest[:8]
    assert archive.unpack(header.fields) == Fields(3, HEIGHT, WIDTH)
    assert [entry.kind for entry in table] == [MEMBERS, BLOCK] and table[0].optional
