"""Files made to hurt, with right checksums: each is an error that says what is wrong, in little time and memory."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import laconic
from laconic import container, registry
from laconic.container import Chunk, Header
from laconic.payloads import write_fields as fields
from laconic.tools.own_model import TinyAutoencoder

ROOT = Path(__file__).parent.parent.parent
STATE = fields(0) + struct.pack("<I", 2**32 - 1)


def tags(text: bytes) -> bytes:
    header = Header(3, "", b"", fields(8000, 1, 16, 0, 1000))
    return container.write(header, [Chunk(10, fields(len(text)) + zlib.compress(text, 9), True)])


def endless_sound(n: int) -> bytes:
    segment = bytes(4) + b"\x09" + b"".join(bytes([i, (i + 1) % 8, 0]) for i in range(8)) + STATE
    return container.write(Header(3, "", b"", fields(8000, 8, 32, n, n)), [Chunk(8, segment)])


def endless_tile(side: int) -> bytes:
    tile = bytes(4) + b"\x47" + b"\0\0\0\xff\xff" * 4 + STATE
    return container.write(Header(2, "", b"", fields(side, side, 15, 0)), [Chunk(7, tile)])


def photo(width: int, height: int, tile: int = 16) -> bytes:
    model = registry.find("photo")
    header = Header(1, model.name, bytes.fromhex(model.digest)[:4], fields(width, height, 6000) + bytes([tile]))
    return container.write(header, [Chunk(1, b"")])


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (tags(b"[" * 200_000), "tags"),
        (tags(b"[" + b"{}," * 22_369_000 + b"{}]"), "tags"),
        (container.write(Header(2, "", b"", fields(1 << 14, 1 << 14, 7, 0)), []), "tiles"),
        (container.write(Header(2, "", b"", fields(1 << 15, 1 << 15, 7, 0)), []), "pixels"),
        (endless_sound(1 << 16), ""),
        (endless_tile(1024), ""),
        (photo(1, 1 << 23), "pixels"),
        (photo(4032, 4032, 63), "tile byte"),
    ],
    ids=["nested", "large", "no tiles", "pixels", "endless sound", "endless tile", "padding", "tile"],
)
def test_it_is_refused_in_little_memory(data: bytes, field: str, tmp_path: Path) -> None:
    """In a process of its own, whose memory is limited to 3 GB, and its time to what kernels take to compile on a slow machine."""
    (tmp_path / "x.lac").write_bytes(data)
    script = (
        "import resource, laconic\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); resource.setrlimit(resource.RLIMIT_CPU, (400, 400))\n"
        "for read in (laconic.decompress, laconic.verify):\n"
        "    try: read('x.lac')\n"
        "    except laconic.BadFile as error: print(len(str(error)), error)\n"
        "    else: raise SystemExit('no error')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    run = subprocess.run([sys.executable, "-c", script], check=False, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 2 and all(f" {field}" in line and int(line.split()[0]) < 1000 for line in lines), lines


def test_a_name_that_would_write_to_the_terminal_is_refused() -> None:
    with pytest.raises(laconic.BadFile, match="model name: found .*, expected printable ASCII"):
        laconic.info(container.write(Header(1, "\x1b]0;x\x07\x1b[2J", b"1234", b""), []))


@pytest.mark.parametrize(
    "read",
    [
        lambda data, sound: laconic.decompress(data, region=5),  # type: ignore[call-overload]
        lambda data, sound: laconic.decompress(data, region="0,0,1,1"),  # type: ignore[call-overload]
        lambda data, sound: laconic.decompress(sound, seek=1e308),
        lambda data, sound: laconic.decompress(sound, duration=float("nan")),
        lambda data, sound: laconic.info(io.StringIO("text")),  # type: ignore[arg-type]
        lambda data, sound: laconic.info("a\0b"),
        lambda data, sound: laconic.compress("a\0b.png"),
        lambda data, sound: laconic.verify(5),  # type: ignore[arg-type]
    ],
)
def test_senseless_arguments_are_bad_input(read: Any) -> None:
    picture = laconic.compress(np.zeros((4, 4), np.uint8), lossless=True)
    sound = laconic.compress(np.zeros(40, np.int16), sample_rate=8000, lossless=True)
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        read(picture, sound)
    assert len(laconic.decompress(sound, duration=1e308).samples) == 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LACONIC_MODELS", str(tmp_path))
    return tmp_path


def weights(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "make",
    [weights, loop, sparse, os.mkfifo, lambda path: path.symlink_to(path.with_name("nowhere"))],
    ids=["folder", "loop", "sparse", "pipe", "dangling"],
)
def test_what_is_no_weights_file_is_passed_over(folder: Path, make: Any) -> None:
    (folder / "x.json").write_text("{}")
    make(folder / "x.safetensors")
    with pytest.warns(UserWarning, match="left out"):
        assert [model.name for model in laconic.list_models()] == ["photo-3", "photo-6", "sound-2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.find("photo").name == "photo-6"  # what has another name is not looked at


@pytest.mark.parametrize("card", ["[[[[", "[" * 200_000, "5", "", "\ud800"], ids=["open", "deep", "number", "empty", "half"])
def test_a_card_that_is_none_is_passed_over(folder: Path, card: str) -> None:
    (folder / "x.json").write_bytes(card.encode(errors="surrogatepass"))
    (folder / "x.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        assert [model.name for model in laconic.list_models()] == ["photo-3", "photo-6", "sound-2"]


@pytest.mark.parametrize("config", [[], 5, {"c8": "many"}, {"c8": -1}, {"anchors": 10**9}, {"unknown": 1}], ids=str)
def test_an_architecture_that_is_none_is_said(folder: Path, config: object) -> None:
    shipped = registry.find("photo")
    card = {**shipped.card, "architecture": {**shipped.architecture, "config": config}}
    (folder / "mine.json").write_text(json.dumps(card))
    (folder / "mine.safetensors").write_bytes(Path(shipped.path).read_bytes())
    with pytest.raises(laconic.ModelMissing, match="found .*, expected"):
        laconic.compress(np.zeros((8, 8, 3), np.uint8), model="mine")


@pytest.mark.parametrize("name", ["z_index", "scale_offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf, np.int8(3)], ids=["nan", "inf", "int8"])
def test_numbers_that_are_none_are_not_loaded(folder: Path, name: str, value: Any) -> None:
    shipped = registry.find("photo")
    arrays = load_file(shipped.path)
    if isinstance(value, np.int8):
        arrays[name] = np.full(arrays[name].shape, value)
    else:
        arrays[name].flat[0] = value
    save_file(arrays, folder / "mine.safetensors")
    (folder / "mine.json").write_text(json.dumps(shipped.card))
    with pytest.raises(laconic.ModelMissing, match="do not load"):
        laconic.compress(np.zeros((8, 8, 3), np.uint8), model="mine")


def test_a_folder_that_cannot_be_entered_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    there = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: there(path) if "assets" in path.parts else locked(path))
    assert registry.find("photo").name == "photo-6"


@pytest.mark.parametrize("back", [None, [1], np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)], ids=lambda b: type(b).__name__)
def test_a_model_of_ones_own_that_returns_no_picture_is_named(monkeypatch: pytest.MonkeyPatch, back: Any) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    pixels = np.zeros((8, 8, 3), np.uint8)
    model = TinyAutoencoder(pixels, steps=1)
    laconic.register(model)
    data = laconic.compress(pixels, model=model.name)
    monkeypatch.setattr(model, "decode", lambda *arguments: back)
    with pytest.raises(laconic.BadInput, match="decode of the model tiny-autoencoder returns: found .*, expected uint8"):
        laconic.decompress(data)
    monkeypatch.setattr(model, "encode", lambda *arguments: None)
    with pytest.raises(laconic.BadInput, match="encode of the model tiny-autoencoder returns: found 'NoneType', expected bytes"):
        laconic.compress(pixels, model=model.name)
