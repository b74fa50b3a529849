"""Packed data sets are read by their indexes: only the bytes of a member are fetched, and damage is named."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

import laconic.dataset
from laconic import BadFile, BadInput
from laconic.dataset import stores

N = 7
SHARD = "000001.tar"


def pixels(i: int) -> Any:
    return np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N pictures with a class each, and one that cannot be coded, in shards of three."""
    root = tmp_path_factory.mktemp("made")
    (root / "in").mkdir()
    for i in range(N):
        Image.fromarray(pixels(i)).save(root / f"in/p{i}.png")
        (root / f"in/p{i}.cls").write_text(str(i))
    (root / "in/p9.png").write_bytes(b"none")
    laconic.dataset.pack(root / "in", root / "out", lossless=True, shard_count=3, workers=1)
    return root / "out"


@pytest.fixture
def packed(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    (tmp_path / "out").mkdir()
    for path in made.iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "out"


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files and parts of files, and counts the bytes of tars."""

    sent: list[int]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data, wanted = path.read_bytes(), self.headers.get("Range")
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            data = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if path.suffix == ".tar":
            self.sent.append(len(data))

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[int]]]:
    sent = list[int]()
    handler = type("Handler", (RangeHandler,), {"sent": sent})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


@contextmanager
def placed(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[int]]]:
    """Yield the URL of a data set, and a list of how many bytes of tars each read has given."""
    if kind == "http":
        with served(folder) as found:
            yield found
        return
    url, sent, cls = str(folder), list[int](), stores.Folder if kind == "folder" else stores.Objects
    if kind == "memory":
        url = f"memory://{folder.parent.name}"
        fs, place = stores.filesystem(url)
        for path in folder.iterdir():
            fs.pipe_file(f"{place}/{path.name}", path.read_bytes())
    whole = cls.read

    def read(self: Any, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = whole(self, name, offset, length)
        if name.endswith(".tar"):
            sent.append(len(data))
        return data

    patch.setattr(cls, "read", read)
    yield url, sent


@pytest.mark.parametrize("kind", ["folder", "memory", "http"])
def test_only_the_bytes_of_a_member_are_fetched(kind: str, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind != "folder":
        pytest.importorskip("fsspec", reason="fsspec is not installed: pip install laconic-codec[cloud]")
    with placed(kind, packed, monkeypatch) as (url, sent):
        opened = laconic.dataset.open(url)
        item = opened[4]
        assert (len(opened), item.name, item.key, sent) == (N, "p4.png", "p4", [])
        assert np.array_equal(item.decode(as_array=True), pixels(4))
        assert sent == [item.member.length]
        assert item.sides == {".cls": b"4"} and sent == [item.member.length, 1]
        assert item.data == item.data and len(sent) == 2


def test_it_is_a_sequence_and_has_names(made: Path) -> None:
    opened = laconic.dataset.open(made)
    names = [f"p{i}.png" for i in range(N)]
    assert [item.name for item in opened] == names
    assert [item.name for item in opened[1:6:2]] == names[1:6:2] and opened[-1].name == names[-1]
    for i, name in enumerate(names):
        assert opened[name].name == name and name in opened
        assert opened[name].sides[".cls"] == str(i).encode()
    assert "p9.png" not in opened and "a" not in opened and "p2x" not in opened and "z" not in opened
    with pytest.raises(IndexError):
        opened[N]
    with pytest.raises(BadInput, match="expected a name that"):
        opened["p2x"]
    with pytest.raises(BadInput, match="could be coded"):
        opened["p9.png"]


def test_a_region_is_decoded(made: Path) -> None:
    found = laconic.dataset.open(made)[2].decode(region=(1, 2, 3, 4), as_array=True)
    assert np.array_equal(found, pixels(2)[2:6, 1:4])


def test_it_can_be_pickled(made: Path) -> None:
    opened = laconic.dataset.open(made)
    assert opened[0].data == pickle.loads(pickle.dumps(opened))[0].data


def test_few_indexes_are_kept(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laconic.dataset.opened.MEMBERS_KEPT", 4)
    opened = laconic.dataset.open(made)
    assert [item.name for item in opened] == [f"p{i}.png" for i in range(N)]
    assert list(opened._indexes) == [1, 2]  # of 3 and 1 members


def test_damage_names_member_and_shard(packed: Path) -> None:
    member = laconic.dataset.open(packed)[3].member
    data = bytearray((packed / SHARD).read_bytes())
    data[member.offset + 20] ^= 1
    data[member.sides[0].offset] ^= 1
    (packed / SHARD).write_bytes(data)
    opened = laconic.dataset.open(packed)
    with pytest.raises(BadFile, match=r"p3\.png in 000001\.tar: SHA-256"):
        opened[3].decode()
    with pytest.raises(BadFile, match=r"p3\.cls in 000001\.tar: SHA-256"):
        _ = opened[3].sides
    assert opened[4].data
    (packed / SHARD).write_bytes(data[: member.offset + 5])
    with pytest.raises(BadFile, match=r"p3\.png in 000001\.tar: bytes: found 5"):
        _ = opened[3].data


def test_an_index_of_another_run_is_refused(packed: Path) -> None:
    path = packed / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"key":"', b'"key":"0', 1))
    with pytest.raises(BadFile, match=r"000001\.jsonl: shard, key"):
        laconic.dataset.open(packed)[3]


def test_what_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"found no manifest\.json"):
        laconic.dataset.open(tmp_path)
