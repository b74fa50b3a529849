"""Coded files in the data sets of others, by the real libraries, and packed data sets in S3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import laconic.dataset

N = 4


def pixels(i: int) -> Any:
    return np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    (root / "in").mkdir()
    for i in range(N):
        Image.fromarray(pixels(i)).save(root / f"in/p{i}.png")
    laconic.dataset.pack(root / "in", root / "out", lossless=True, shard_count=3, workers=1)
    return root


def test_webdataset_decodes(root: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed: pip install laconic-codec[loaders]")
    tars = [str(path) for path in sorted((root / "out").glob("*.tar"))]
    found = list(wds.WebDataset(tars, shardshuffle=False).decode(wds.handle_extension("lac", laconic.decompress)))
    assert len(found) == N
    for i, sample in enumerate(found):
        assert sample["__key__"] == f"p{i}" and np.array_equal(np.asarray(sample["lac"]), pixels(i))


def test_hugging_face_data_sets_decode(root: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install laconic-codec[loaders]")
    from laconic.dataset.hf import Coded

    columns = {"image": [item.data for item in laconic.dataset.open(root / "out")]}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features({"image": Coded()}))
    made.save_to_disk(tmp_path / "hf")
    found = datasets.load_from_disk(tmp_path / "hf")
    assert len(found) == N and found.features["image"] == Coded()
    for i in range(N):
        assert np.array_equal(np.asarray(found[i]["image"]), pixels(i))
    assert found.cast_column("image", Coded(decode=False))[1]["image"] == {"bytes": columns["image"][1]}


def test_hugging_face_formats_keep_zeros_at_the_end() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install laconic-codec[loaders]")
    from laconic.dataset.hf import Coded

    noise = (np.random.default_rng(i).integers(0, 256, (3, 3), dtype=np.uint8) for i in range(5000))
    data = next(data for one in noise if (data := laconic.compress(one, lossless=True, notes=[]))[-1] == 0)
    made = datasets.Dataset.from_dict({"image": [data]}).cast_column("image", Coded())
    for form in ("numpy", "torch"):
        assert np.array_equal(np.squeeze(np.asarray(made.with_format(form)[0]["image"])), np.asarray(laconic.decompress(data)))


def test_s3(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install laconic-codec[dev]")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install laconic-codec[dev]")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*running.get_host_and_port()))
        s3fs.S3FileSystem.clear_instance_cache()
        fs = s3fs.S3FileSystem()
        fs.mkdir("mine")
        for path in (root / "in").iterdir():
            fs.pipe_file(f"mine/in/{path.name}", path.read_bytes())
        laconic.dataset.pack("s3://mine/in", "s3://mine/out", lossless=True, shard_count=3, workers=1)
        for path in (root / "out").iterdir():
            assert fs.cat_file(f"mine/out/{path.name}") == path.read_bytes()
        opened = laconic.dataset.open("s3://mine/out")
        assert [np.array_equal(item.decode(as_array=True), pixels(i)) for i, item in enumerate(opened)] == [True] * N
    finally:
        running.stop()
        s3fs.S3FileSystem.clear_instance_cache()
