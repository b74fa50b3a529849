"""Packed data sets: the same bytes by any way, nothing half done, nothing lost without a word."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import laconic
from laconic import BadFile, BadInput, LaconicError, ModelMissing
from laconic.dataset import Manifest, ShardIndex, local, pack, shard
from laconic.dataset.runner import Packed
from laconic.dataset.shard import Tar, make_shard
from laconic.tools.cli import main

RUN = [sys.executable, "-m", "laconic.tools.cli", "pack"]
N = 7  # pictures, in shards of 3
OPTIONS: dict[str, Any] = {"lossless": True, "shard_count": 3, "workers": 1}


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i in range(N):
        save(tmp_path / f"in/{'ab'[i % 2]}/p{i}.png", i)
        (tmp_path / f"in/{'ab'[i % 2]}/p{i}.cls").write_text(str(i))
    return tmp_path / "in"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file that packing `source` makes."""
    root = tmp_path_factory.mktemp("expected")
    for i in range(N):
        save(root / f"in/{'ab'[i % 2]}/p{i}.png", i)
        (root / f"in/{'ab'[i % 2]}/p{i}.cls").write_text(str(i))
    pack(root / "in", root / "out", **OPTIONS)
    return contents(root / "out")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def index_of(folder: Path, number: int = 0) -> ShardIndex:
    return ShardIndex.from_bytes((folder / f"{number:06}.jsonl").read_bytes())


def kept(packed: Packed) -> list[bool]:
    return [report.kept for report in packed.reports]


def test_what_is_written_is_what_the_index_says(source: Path, tmp_path: Path) -> None:
    packed = pack(source, tmp_path / "out", **OPTIONS)
    manifest = Manifest.from_bytes((tmp_path / "out/manifest.json").read_bytes())
    assert manifest == packed.manifest and manifest.members == N and not packed.failures
    assert sorted(contents(tmp_path / "out")) == sorted(
        [f"{i:06}.{end}" for i in range(3) for end in ("tar", "jsonl")] + ["manifest.json", "plan.json"]
    )
    seen = []
    for number, row in enumerate(manifest.shards):
        index, data = index_of(tmp_path / "out", number), (tmp_path / "out" / row.shard).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (index.n_bytes, index.sha256) == (row.n_bytes, row.sha256)
        assert (row.first, row.last) == (index.members[0].name, index.members[-1].name)
        for member in index.members:
            coded = data[member.offset : member.offset + member.length]
            assert hashlib.sha256(coded).hexdigest() == member.sha256
            original = source / member.name
            assert hashlib.sha256(original.read_bytes()).hexdigest() == member.source_sha256
            assert np.array_equal(laconic.decompress(coded, as_array=True), np.asarray(Image.open(original)))
            (side,) = member.sides
            assert data[side.offset : side.offset + side.length] == original.with_suffix(".cls").read_bytes()
            seen.append(member.name)
    assert seen == sorted(path.relative_to(source).as_posix() for path in source.rglob("*.png"))


def test_a_tar_tells_nothing_of_when_and_by_whom_it_was_made(source: Path, tmp_path: Path) -> None:
    long, strange = "d" * 120, "n\udcff\xe9"
    save(source / long / "x.png", 1)
    shutil.copy(source / long / "x.png", source / f"{strange}.png")
    pack(source, tmp_path / "out", lossless=True, workers=1)
    with tarfile.open(tmp_path / "out/000000.tar") as tar:
        for member in tar.getmembers():
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) == (0, 0, 0, "", "", 0o644)
            assert member.isreg()
        assert {f"{long}/x.lac", f"{strange}.lac"} <= set(tar.getnames())
        index = index_of(tmp_path / "out")
        for found in index.members:
            assert tar.getmember(found.member).offset_data == found.offset
    assert f"{strange}.png" in [member.name for member in index.members]


def test_webdataset_reads_the_shards(source: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    save(source / "v1.2.png", 9)
    pack(source, tmp_path / "out", **OPTIONS)
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    data = webdataset.WebDataset(shards, shardshuffle=False).decode(
        webdataset.handle_extension("lac", lambda coded: laconic.decompress(coded, as_array=True))
    )
    samples = list(data)
    assert [sample["__key__"] for sample in samples] == [f"a/p{i}" for i in (0, 2, 4, 6)] + [
        f"b/p{i}" for i in (1, 3, 5)
    ] + ["v1%2E2"]
    for sample in samples[:-1]:
        assert np.array_equal(sample["lac"], np.asarray(Image.open(source / f"{sample['__key__']}.png")))
        assert str(sample["cls"]) == sample["__key__"][-1]


def test_tars_of_webdataset_come_back_with_their_keys_and_all_their_parts(source: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with webdataset.TarWriter(str(tmp_path / "data-0.tar")) as writer:
        for i in (1, 0):
            picture = (source / f"{'ab'[i]}/p{i}.png").read_bytes()
            writer.write({"__key__": f"k/{i}", "png": picture, "seg.png": picture, "json": {"i": i}})
    pack(tmp_path / "data-0.tar", tmp_path / "out", **OPTIONS)
    samples = list(webdataset.WebDataset(str(tmp_path / "out/000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["k/0"]  # 2 files each: the next is in the next shard
    assert json.loads(samples[0]["json"]) == {"i": 0}
    for part in ("lac", "seg.lac"):
        back = laconic.decompress(samples[0][part], as_array=True)
        assert np.array_equal(back, np.asarray(Image.open(source / "a/p0.png")))
    assert [member.name for member in index_of(tmp_path / "out").members] == ["data-0.tar/k/0.png", "data-0.tar/k/0.seg.png"]


def test_two_workers_make_the_same_bytes(source: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    pack(source, tmp_path / "out", **OPTIONS | {"workers": 2})
    assert contents(tmp_path / "out") == expected


def test_ranks_make_the_same_bytes_and_the_last_one_the_manifest(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    one = pack(source, tmp_path / "out", rank=(1, 2), **OPTIONS)
    assert one.manifest is None and [report.shard.shard for report in one.reports] == ["000001.tar"]
    assert "manifest.json" not in contents(tmp_path / "out")
    other = pack(source, tmp_path / "out", rank=(0, 2), **OPTIONS)
    assert other.manifest is not None and other.manifest.members == N
    assert contents(tmp_path / "out") == expected
    assert pack(source, tmp_path / "out", rank=(1, 2), **OPTIONS).manifest == other.manifest
    with pytest.raises(BadInput, match="rank: found '2/2'"):
        pack(source, tmp_path / "out", rank=(2, 2), **OPTIONS)


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_urls_make_the_same_bytes(protocol: str, source: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    fsspec = pytest.importorskip("fsspec", reason="laconic-codec[cloud] is not installed")
    root = f"memory://{tmp_path.name}-{protocol}" if protocol == "memory" else f"file://{tmp_path}/remote"
    fs, place = fsspec.core.url_to_fs(root)
    for path in source.rglob("*.*"):
        fs.makedirs(f"{place}/in/{path.parent.name}", exist_ok=True)
        fs.pipe_file(f"{place}/in/{path.parent.name}/{path.name}", path.read_bytes())
    packed = pack(f"{root}/in", f"{root}/out", **OPTIONS)
    assert {name.rpartition("/")[2]: fs.cat_file(name) for name in fs.ls(f"{place}/out", detail=False)} == expected
    assert kept(pack(f"{root}/in", f"{root}/out", **OPTIONS)) == [True] * 3
    assert packed.manifest is not None
    fs.pipe_file(f"{place}/in/a/p0.cls", b"9")
    assert kept(pack(f"{root}/in", f"{root}/out", **OPTIONS)) == [False, True, True]
    made = pack(f"{root}/in/*/*.png", f"{root}/glob", **OPTIONS).manifest
    assert made is not None and made.members == N
    with pytest.raises(BadInput, match="source: found"):
        pack(f"{root}/nothing", f"{root}/out", **OPTIONS)
    if protocol == "memory":
        with pytest.raises(BadInput, match="workers: found 2, expected 1"):
            pack(f"{root}/in", f"{root}/out", **OPTIONS | {"workers": 2})


def test_tars_at_urls_are_read_in_parts(source: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="laconic-codec[cloud] is not installed")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(source, "x")
    fs, _ = fsspec.core.url_to_fs("memory://")
    fs.pipe_file(f"/{tmp_path.name}/t.tar", (tmp_path / "t.tar").read_bytes())
    pack(f"memory://{tmp_path.name}/*.tar", tmp_path / "one", **OPTIONS)
    pack(tmp_path / "t.tar", tmp_path / "other", **OPTIONS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_what_is_done_is_not_done_again(
    source: Path, tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(source, tmp_path / "out", **OPTIONS)
    monkeypatch.setattr(laconic.Codec, "compress_to", None)  # nothing can be coded
    assert kept(pack(source, tmp_path / "out", **OPTIONS)) == [True] * 3
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("change", ["picture", "side", "tar", "index"])
def test_what_changed_is_made_again_though_size_and_time_are_the_same(change: str, source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out", **OPTIONS)
    path = {
        "picture": source / "a/p0.png",
        "side": source / "a/p0.cls",
        "tar": tmp_path / "out/000000.tar",
        "index": tmp_path / "out/000000.jsonl",
    }[change]
    before = path.stat()
    data = path.read_bytes()
    if change == "picture":
        save(path, 99)
        assert path.stat().st_size == before.st_size
    else:
        path.write_bytes({"side": b"9", "tar": data[:-1], "index": data[:-9]}[change])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept(pack(source, tmp_path / "out", **OPTIONS)) == [False, True, True]
    if change == "picture":
        member = index_of(tmp_path / "out").members[0]
        coded = (tmp_path / "out/000000.tar").read_bytes()[member.offset : member.offset + member.length]
        assert np.array_equal(laconic.decompress(coded, as_array=True), np.asarray(Image.open(path)))


def test_another_plan_is_refused_and_with_force_takes_over_what_is_alike(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out", **OPTIONS)
    save(source / "c/new.png", 50)
    with pytest.raises(BadInput, match=r"plan.json: found another plan \(source"):
        pack(source, tmp_path / "out", **OPTIONS)
    assert kept(pack(source, tmp_path / "out", force=True, **OPTIONS)) == [True, True, False]
    with pytest.raises(BadInput, match="options"):
        pack(source, tmp_path / "out", max_error=1, **{k: v for k, v in OPTIONS.items() if k != "lossless"})
    shutil.rmtree(source / "b")
    again = pack(source, tmp_path / "out", force=True, **OPTIONS)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["000000.tar", "000001.tar"]
    fresh = pack(source, tmp_path / "fresh", **OPTIONS)
    assert again.manifest == fresh.manifest and contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_tars_of_somebody_else_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/000000.tar").write_bytes(b"mine")
    with pytest.raises(BadInput, match="tars without a plan"):
        pack(source, tmp_path / "out", **OPTIONS)
    assert contents(tmp_path / "out") == {"000000.tar": b"mine"}


def test_bad_files_are_listed_and_all_others_are_there(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "a/p1.png").write_bytes(b"no picture")
    (source / "a/p1.cls").write_text("1")
    (source / "b/gone.png").symlink_to("nowhere")
    args = ["pack", str(source), "-o", str(tmp_path / "out"), "--lossless", "--shard-count", "3", "-j", "1"]
    assert main(args) == 1
    said = capsys.readouterr().err
    assert "a/p1.png: picture: found no picture" in said and "b/gone.png: " in said and "2 of 9 failed" in said
    manifest = Manifest.from_bytes((tmp_path / "out/manifest.json").read_bytes())
    assert [failure.name for failure in manifest.failures] == ["a/p1.png", "b/gone.png"]
    assert [bool(failure.source_sha256) for failure in manifest.failures] == [True, False]
    assert str(tmp_path) not in manifest.failures[1].reason  # a machine's own paths would differ
    assert manifest.members == N
    with tarfile.open(tmp_path / "out/000000.tar") as tar:
        assert not [name for name in tar.getnames() if "p1" in name]
    assert main(args) == 1  # nothing to do, and still not all is well
    assert "made" not in capsys.readouterr().out
    (source / "b/gone.png").unlink()
    save(source / "b/gone.png", 5)
    assert main(args) == 2  # its size is another now
    assert main([*args, "-f"]) == 1


def test_a_file_that_can_be_read_again_is_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    fetched = shard.fetched

    def flaky(url: str, *args: Any) -> Any:
        if "p2" in url:
            raise ConnectionError("the network is down")
        return fetched(url, *args)

    monkeypatch.setattr(shard, "fetched", flaky)
    packed = pack(source, tmp_path / "out", **OPTIONS)
    assert [(failure.name, failure.reason) for failure in packed.failures] == [("a/p2.png", "the network is down")]
    assert kept(pack(source, tmp_path / "out", **OPTIONS)) == [True] * 3
    monkeypatch.setattr(shard, "fetched", fetched)
    assert kept(pack(source, tmp_path / "out", **OPTIONS)) == [False, True, True]
    assert contents(tmp_path / "out") == expected


def test_a_side_file_that_cannot_be_read_is_listed(source: Path, tmp_path: Path) -> None:
    (source / "a/p0.json").symlink_to("nowhere")
    packed = pack(source, tmp_path / "out", **OPTIONS)
    assert [failure.name for failure in packed.failures] == ["a/p0.json"]
    assert [side.member for side in index_of(tmp_path / "out").members[0].sides] == ["a/p0.cls"]
    assert kept(pack(source, tmp_path / "out", **OPTIONS)) == [True] * 3


def test_fail_fast_ends_the_run_at_the_first_failure(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "b/p3.png").write_bytes(b"no")
    args = ["pack", str(source), "-o", str(tmp_path / "out"), "--lossless", "--shard-count", "3", "-j", "1", "--fail-fast"]
    assert main(args) == 1
    assert "b/p3.png: picture: found no picture" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "out")) == ["000000.jsonl", "000000.tar", "plan.json"]
    assert main(args[:-1]) == 1 and "manifest.json" in contents(tmp_path / "out")
    with pytest.raises(BadInput, match="b/p3.png: picture: found no picture"):
        pack(source, tmp_path / "out", fail_fast=True, **OPTIONS)


def test_verify_finds_damage_in_what_was_kept(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out", verify=True, **OPTIONS)
    path = tmp_path / "out/000001.tar"
    data = bytearray(path.read_bytes())
    data[index_of(tmp_path / "out", 1).members[0].offset + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFile, match="000001.tar: digest of a/p6.lac"):
        pack(source, tmp_path / "out", verify=True, **OPTIONS)


def test_verify_decodes_what_is_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compress_to = laconic.Codec.compress_to

    def damaging(self: laconic.Codec, file: Any, *args: Any, **options: Any) -> None:
        compress_to(self, file, *args, **options)
        file.seek(-1, os.SEEK_END)
        file.write(b"!")

    monkeypatch.setattr(laconic.Codec, "compress_to", damaging)
    with pytest.raises(BadFile, match="000000.tar: a/p0.lac: "):
        pack(source, tmp_path / "out", verify=True, **OPTIONS)
    assert sorted(contents(tmp_path / "out")) == ["plan.json"]


@pytest.mark.parametrize("where", ["write", "sync"])
def test_a_full_destination_ends_the_run_and_leaves_no_part(
    where: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pack(source, tmp_path / "out", rank=(0, 3), **OPTIONS)
    before = contents(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(*(Tar, "_write") if where == "write" else (os, "fsync"), full)
        args = ["pack", str(source), "-o", str(tmp_path / "out"), "--lossless", "--shard-count", "3", "-j", "1"]
        assert main(args) == 1
    assert f"No space left on device: '{tmp_path}/out/000001.tar'" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert kept(pack(source, tmp_path / "out", **OPTIONS)) == [True, False, False]


def test_a_full_disk_for_temporary_files_is_no_fault_of_the_input(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(laconic.Codec, "compress_to", full)
    with pytest.raises(OSError, match="No space left.*TMPDIR"):
        pack(source, tmp_path / "out", **OPTIONS)
    assert sorted(contents(tmp_path / "out")) == ["plan.json"]


def test_another_model_or_version_on_a_machine_is_refused(source: Path, tmp_path: Path) -> None:
    packed = pack(source, tmp_path / "out", **OPTIONS)
    task = packed.plan.task(0, str(tmp_path / "out"))
    assert make_shard(task).kept
    (name, digest), *_ = task.coding.models.items()
    with pytest.raises(ModelMissing, match=f"model {name} on this machine: digest: found '{digest[:8]}', expected 00000000"):
        make_shard(replace(task, coding=replace(task.coding, models={name: "0" * 64})))
    with pytest.raises(ModelMissing, match="laconic on this machine: found '.*', expected 9.9"):
        make_shard(replace(task, coding=replace(task.coding, laconic="9.9")))


HANGING = """
import sys, time, pathlib, laconic
from laconic.dataset import pack
compress_to = laconic.Codec.compress_to
def slow(self, file, source, **options):
    if "p1.png" in str(source):
        pathlib.Path(sys.argv[3]).touch()
        time.sleep(600)
    compress_to(self, file, source, **options)
laconic.Codec.compress_to = slow
pack(sys.argv[1], sys.argv[2], lossless=True, shard_count=3, workers=1)
"""


@contextmanager
def interrupts_heard() -> Iterator[None]:
    """Children begun in the block hear interrupts, also where a shell started the tests in the background, deaf to them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def wait_until(is_so: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_run_goes_on_where_it_was(source: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    marker, out = tmp_path / "there", tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HANGING, str(source), str(out), str(marker)])
    wait_until(marker.exists)
    process.kill()
    process.wait()
    names = sorted(contents(out))
    assert names[0].startswith(".000001.tar.") and names[1:] == ["000000.jsonl", "000000.tar", "plan.json"]
    assert kept(pack(source, out, **OPTIONS)) == [True, False, False]
    assert contents(out) == expected


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupted_run_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    for i in range(60):
        save(tmp_path / f"in/{i}.png", i)
    args = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--lossless", "--shard-count", "1"]
    with interrupts_heard():
        process = subprocess.Popen([*RUN, *args, "-j", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "made, 1 files" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in said, said
    found = contents(tmp_path / "out")
    assert "manifest.json" not in found and not [name for name in found if name.endswith(".part")]
    for name in found:
        if name.endswith(".jsonl"):
            index = ShardIndex.from_bytes(found[name])
            assert hashlib.sha256(found[index.shard]).hexdigest() == index.sha256
    pack(tmp_path / "in", tmp_path / "out", lossless=True, shard_count=1, workers=1)
    pack(tmp_path / "in", tmp_path / "fresh", lossless=True, shard_count=1, workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


MANY = """
import resource, sys
from laconic.dataset import pack
peaks = []
note = lambda report: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
pack(sys.argv[1], sys.argv[2], lossless=True, shard_count=100, workers=1, progress=note)
print(peaks[0], peaks[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """With LACONIC_MANY_FILES=10000 it takes minutes."""
    save(tmp_path / "in/0.png", 0)
    n = int(os.environ.get("LACONIC_MANY_FILES", "400"))
    for i in range(1, n):
        os.link(tmp_path / "in/0.png", tmp_path / f"in/{i}.png")
    script = [sys.executable, "-c", MANY, str(tmp_path / "in"), str(tmp_path / "out")]
    first, last = map(int, subprocess.run(script, check=True, capture_output=True, text=True).stdout.split())
    assert last - first < 16 << 10


def test_a_worker_that_dies_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(LaconicError, match="a worker: found it dead"):
        list(local.in_processes(os._exit, 2, [1]))


def test_processes_yield_all_results_and_take_no_more_tasks_than_they_need() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield -i

    results = local.in_processes(abs, 2, tasks())
    first = next(results)
    assert len(taken) <= 8
    assert sorted([first, *results]) == list(range(20))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(sent: signal.Signals) -> None:
    script = "import time\nfrom laconic.dataset.local import in_processes\nlist(in_processes(time.sleep, 2, [600] * 9))"
    with interrupts_heard():
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def workers() -> list[str]:
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()}
        return [pid for pid, line in lines.items() if b"spawn_main" in line]

    wait_until(lambda: len(workers()) == 2)
    found = workers()
    try:
        time.sleep(2)  # they have begun to work
        process.send_signal(sent)
        process.wait(60)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), 60)
    finally:
        for pid in [process.pid, *map(int, found)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


DEADLY = """
import os, sys

def hook(event, args):
    if event == "open" and str(args[0]).endswith("deadly.png"):
        frame = sys._getframe()
        while frame and frame.f_code.co_name != "compress_to":
            frame = frame.f_back
        if frame:
            os.kill(os.getpid(), 9)

sys.addaudithook(hook)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_file_that_kills_its_process_is_listed_and_all_others_are_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(DEADLY)  # runs in the workers, and not in this process
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    save(source / "a/p1-deadly.png", 1)
    (source / "a/p1-deadly.cls").write_text("1")
    told: list[tuple[int, int]] = []
    options = OPTIONS | {"workers": 2, "shard_count": 4}
    packed = pack(source, tmp_path / "out", told=lambda *words: told.append(words), **options)
    (failure,) = packed.failures
    digest = hashlib.sha256((source / "a/p1-deadly.png").read_bytes()).hexdigest()
    assert (failure.name, failure.source_sha256) == ("a/p1-deadly.png", digest) and "ends the process" in failure.reason
    assert packed.manifest is not None and packed.manifest.members == N
    assert {1, 2, 3, 4} == {n for number, n in told if number == 0}
    assert kept(pack(source, tmp_path / "out", **options)) == [True, True]
    with pytest.raises(BadInput, match="a/p1-deadly.png: ends the process"):
        pack(source, tmp_path / "fast", fail_fast=True, **options)
    for path in (source / "a").glob("p1-deadly.*"):
        path.unlink()
    pack(source, tmp_path / "without", **OPTIONS)
    assert contents(tmp_path / "without") == expected


def test_a_task_whose_worker_died_is_done_again_in_the_other_way() -> None:
    assert sorted(local.in_processes(os._exit, 2, [1, 2, 3], again=abs)) == [1, 2, 3]


def test_an_unknown_engine_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="engine: found 'steam', expected one of local"):
        pack(source, tmp_path / "out", engine="steam", **OPTIONS)


def test_sounds_and_pictures_and_notes(source: Path, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(source / "a/tone.wav", np.arange(-200, 200, dtype=np.int16), 8000)
    packed = pack(source, tmp_path / "out", workers=1, max_pixels=10, verify=True)
    assert len(packed.failures) == N and all("pixels" in failure.reason for failure in packed.failures)
    (member,) = index_of(tmp_path / "out").members
    assert member.notes and packed.manifest is not None and packed.manifest.notes == dict.fromkeys(member.notes, 1)
    data = (tmp_path / "out/000000.tar").read_bytes()[member.offset : member.offset + member.length]
    back = BytesIO()
    laconic.Codec().decompress_to(back, data)
    assert back.getvalue() == (source / "a/tone.wav").read_bytes()


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_index_or_manifest_is_an_error_of_ours(expected: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["000000.jsonl", "manifest.json"]))
    raw = bytearray(expected[name])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    read = ShardIndex.from_bytes if name.endswith("jsonl") else Manifest.from_bytes
    try:
        read(bytes(raw))
    except LaconicError:
        return


def test_a_list_of_urls_is_fetched_over_http(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="laconic-codec[cloud] is not installed")
    handler = partial(QuietHandler, directory=str(source))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{root}/a/p0.png", f"{root}/a/p2.png", f"{root}/a/p0.cls", f"{root}/a/none.png"]
        (tmp_path / "list.txt").write_text("\n".join(urls))
        packed = pack(tmp_path / "list.txt", tmp_path / "out", **OPTIONS)
        server.shutdown()
    assert [failure.name for failure in packed.failures] == [urls[3]]
    members = index_of(tmp_path / "out").members
    assert [member.name for member in members] == urls[:2]
    assert members[0].key == f"http/127.0.0.1:{server.server_port}/a/p0" and len(members[0].sides) == 1
    for member in members:
        assert member.source_sha256 == hashlib.sha256((source / member.name[len(root) + 1 :]).read_bytes()).hexdigest()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: Any) -> None:
        return
