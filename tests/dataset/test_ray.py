"""Packing on a real cluster of Ray, two nodes on this machine: the same bytes, whatever dies."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from laconic import BadInput, LaconicError, ModelMissing, registry
from laconic.dataset import ray_engine
from laconic.dataset.engines import Team
from laconic.dataset.runner import Packed, pack
from laconic.ray import Compress, Decompress
from laconic.tools.cli import main

ray = pytest.importorskip("ray", reason="laconic-codec[ray] is not installed")
pytestmark = pytest.mark.xdist_group("ray")  # one cluster for all
if sys.platform != "linux":
    pytest.skip("looks for processes in /proc", allow_module_level=True)

DOCS = Path(__file__).parents[2] / "docs/dataset.md"
N = 8  # pictures, in shards of 2
MEASURED = {"encode_s", "decode_s", "peak_memory_bytes"}  # what differs from run to run
OPTIONS: dict[str, Any] = {"lossless": True, "shard_count": 2}
ENVIRONMENT = {  # nothing leaves the machine, and nothing is kept outside the test's folder
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    "RAY_health_check_failure_threshold": "2",
    "RAY_health_check_period_ms": "1000",
}
# Runs in every process of the cluster: what codes a file whose name is slow-* says so by a file beside its folder,
# and waits for another one; what codes deadly-* ends; and a folder in which .full stands takes nothing.
SITE = """
import errno, os, sys, time

def hook(event, args):
    if event != "open" or not isinstance(args[0], (str, os.PathLike)):
        return
    path = os.fspath(args[0])
    name = os.path.basename(path) if isinstance(path, str) else ""
    if name.endswith(".part") and os.path.exists(os.path.join(os.path.dirname(path), ".full")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    if not name.startswith(("slow-", "deadly-")) or not name.endswith(".png"):
        return
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "compress_to":
        frame = frame.f_back
    if not frame:
        return
    if name.startswith("deadly-"):
        os.kill(os.getpid(), 9)
    marker = os.path.join(os.path.dirname(os.path.dirname(path)), name)
    with open(marker + ".pid", "w") as file:
        file.write(str(os.getpid()))
    os.replace(marker + ".pid", marker + ".at")
    while not os.path.exists(marker + ".go"):
        time.sleep(0.05)

sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes of one CPU each. The driver is on the first, the head."""
    from ray.cluster_utils import Cluster

    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (ENVIRONMENT | {"PYTHONPATH": str(site)}).items():
            patched.setenv(name, value)
        common = {"object_store_memory": 80 << 20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=common | {"num_cpus": 1, "num_gpus": 1})
        made.common = common
        made.add_node(num_cpus=1, **common)
        try:
            ray.init(address=made.address, log_to_driver=False, logging_level="error")
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i in range(N):
        save(tmp_path / f"in/p{i}.png", i)
        (tmp_path / f"in/p{i}.cls").write_text(str(i))
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def locally(source: Path, out: Path) -> dict[str, bytes]:
    pack(source, out, workers=1, **OPTIONS)
    return contents(out)


def wait_until(is_so: Any, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bytes_are_those_of_the_local_engine(workers: int, cluster: Any, source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pack(source, tmp_path / "out", engine="ray", workers=workers, told=lambda *words: told.append(words), **OPTIONS)
    assert contents(tmp_path / "out") == locally(source, tmp_path / "local")
    assert all(0 <= number < N // 2 and 1 <= n <= 2 for number, n in told) and told


class Slow:
    """Packs, in a thread, a source in which two files each wait in mid-shard, on two actors."""

    def __init__(self, source: Path, out: Path) -> None:
        self.paths = [source / f"slow-{i}.png" for i in range(2)]
        for i, path in enumerate(self.paths):
            save(path, 50 + i)
        pool = ThreadPoolExecutor(1)
        self.run = pool.submit(pack, source, out, engine="ray", workers=2, lossless=True, shard_count=1)
        wait_until(lambda: all(beside(path, ".at").exists() for path in self.paths) or self.run.done())

    def pids(self) -> list[int]:
        return [int(beside(path, ".at").read_text()) for path in self.paths]

    def end(self) -> Packed:
        """Let the files be coded from now on."""
        for path in self.paths:
            beside(path, ".go").touch()
        return self.run.result(100)


def beside(path: Path, ending: str) -> Path:
    return path.parent.with_name(path.name + ending)


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def check_bytes(source: Path, out: Path) -> None:
    pack(source, out.with_name("local"), lossless=True, shard_count=1, workers=1)
    assert contents(out) == contents(out.with_name("local"))


def test_an_actor_that_is_killed_in_mid_shard_changes_no_byte(cluster: Any, source: Path, tmp_path: Path) -> None:
    slow = Slow(source, tmp_path / "out")
    os.kill(slow.pids()[0], signal.SIGKILL)
    assert not slow.end().failures
    check_bytes(source, tmp_path / "out")


def test_a_node_that_goes_changes_no_byte(cluster: Any, source: Path, tmp_path: Path) -> None:
    slow = Slow(source, tmp_path / "out")
    (node,) = cluster.worker_nodes
    raylet = node.all_processes["raylet"][0].process.pid
    assert raylet in [parent(pid) for pid in slow.pids()]
    cluster.remove_node(node, allow_graceful=False)
    try:
        assert not slow.end().failures
    finally:
        cluster.add_node(num_cpus=1, **cluster.common)
    check_bytes(source, tmp_path / "out")


def test_a_driver_that_is_killed_goes_on_when_it_is_begun_again(cluster: Any, source: Path, tmp_path: Path) -> None:
    slow, out = source / "slow-0.png", tmp_path / "out"
    save(slow, 50)
    args = ["pack", str(source), "-o", str(out), "--lossless", "--shard-count", "1"]
    command = [sys.executable, "-m", "laconic.tools.cli", *args, "--engine", "ray", "--address", cluster.address]
    process = subprocess.Popen([*command, "-j", "2"], stdout=subprocess.DEVNULL)
    wait_until(lambda: beside(slow, ".at").exists() or process.poll() is not None)
    process.kill()
    process.wait()
    actor = int(beside(slow, ".at").read_text())
    wait_until(lambda: not Path(f"/proc/{actor}").exists())
    found = contents(out)
    assert "plan.json" in found and "manifest.json" not in found and f"{N:06}.jsonl" not in found
    beside(slow, ".go").touch()
    packed = pack(source, out, engine="ray", workers=2, lossless=True, shard_count=1)
    assert [report.kept for report in packed.reports] == [f"{i:06}.jsonl" in found for i in range(N + 1)]
    check_bytes(source, out)


def test_a_file_that_kills_its_process_is_listed_and_all_others_are_there(
    cluster: Any, source: Path, tmp_path: Path
) -> None:
    save(source / "deadly-0.png", 60)
    packed = pack(source, tmp_path / "out", engine="ray", workers=2, **OPTIONS)
    assert [(failure.name, "ends the process" in failure.reason) for failure in packed.failures] == [("deadly-0.png", True)]
    assert packed.manifest is not None and packed.manifest.members == N


def test_a_full_destination_ends_the_run_and_leaves_no_part(cluster: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(source, out, rank=(0, 4), workers=1, **OPTIONS)
    (out / ".full").touch()
    with pytest.raises(OSError, match=f"No space left on device: '{out}/00000[123].tar'"):
        pack(source, out, engine="ray", workers=2, **OPTIONS)
    (out / ".full").unlink()
    assert sorted(contents(out)) == ["000000.jsonl", "000000.tar", "plan.json"]
    kept = [report.kept for report in pack(source, out, workers=1, **OPTIONS).reports]
    assert kept == [True, False, False, False]


def test_another_model_on_one_node_is_an_error_that_names_both(cluster: Any, source: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    card = json.loads((DOCS.parents[1] / f"assets/weights/{registry.DEFAULT_PHOTO}.json").read_text())
    (models / f"{registry.DEFAULT_PHOTO}.json").write_text(json.dumps(card))
    (models / f"{registry.DEFAULT_PHOTO}.safetensors").write_bytes(b"other weights")
    node = cluster.add_node(num_cpus=1, env_vars={"LACONIC_MODELS": str(models)}, **cluster.common)
    try:
        with pytest.raises(ModelMissing, match=f"node .*: model {registry.DEFAULT_PHOTO} on this machine: digest"):
            pack(source, tmp_path / "out", engine="ray", workers=3, **OPTIONS | {"shard_count": 1})
    finally:
        cluster.remove_node(node, allow_graceful=False)


MANY = """
import resource, sys
from laconic.dataset import pack
peaks = []
note = lambda report: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
pack(sys.argv[1], sys.argv[2], lossless=True, shard_count=100, engine="ray", address=sys.argv[3], progress=note)
print(peaks[0], peaks[-1])
"""


def test_memory_of_the_driver_does_not_grow_with_the_number_of_files(cluster: Any, tmp_path: Path) -> None:
    """With LACONIC_MANY_FILES=10000 it takes minutes."""
    save(tmp_path / "in/0.png", 0)
    n = int(os.environ.get("LACONIC_MANY_FILES", "400"))
    for i in range(1, n):
        os.link(tmp_path / "in/0.png", tmp_path / f"in/{i}.png")
    script = [sys.executable, "-c", MANY, str(tmp_path / "in"), str(tmp_path / "out"), cluster.address]
    first, last = map(int, subprocess.run(script, check=True, capture_output=True, text=True).stdout.split())
    assert last - first < 16 << 10


def test_actors_get_their_share_of_a_gpu_and_others_are_not_waited_for(cluster: Any) -> None:
    """The second actor would have half the GPU, but the node of the GPU has one CPU: it never comes."""
    run = ray_engine.engine(os.getenv, Team(2, None, 0.5))
    assert list(run(["CUDA_VISIBLE_DEVICES"] * 5)) == ["0"] * 5


def test_an_actor_that_always_dies_is_an_error_and_not_a_wait(cluster: Any) -> None:
    with pytest.raises(LaconicError, match="a worker: found it dead 5 times"):
        list(ray_engine.engine(os._exit, Team(1))([1]))


def test_a_missing_package_is_an_error_with_the_name_of_the_extra(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["pack", str(source), "-o", str(tmp_path / "out"), "--lossless", "--engine", "ray"]) == 2
    assert "laconic-codec[ray]" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_eval_makes_the_same_rows(cluster: Any, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="laconic-codec[eval] is not installed")
    for file in source.glob("*.cls"):
        file.unlink()
    args = ["eval", str(source), "--codecs", "jpeg", "--rates", "jpeg=30,60", "--metrics", "psnr-rgb"]
    rows = []
    for engine in ("local", "ray"):
        assert main([*args, "-o", str(tmp_path / engine), "--engine", engine]) == 0
        with (tmp_path / engine / "rows.csv").open(newline="") as file:
            rows.append([{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)])
    assert sorted(rows[0], key=str) == sorted(rows[1], key=str) and len(rows[0]) == 2 * N


def test_the_example_of_ray_data_runs(cluster: Any, source: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"^    import ray\n(?:    .*\n|\n)+", DOCS.read_text(), re.MULTILINE)
    source.rename(tmp_path / "photos")
    for file in (tmp_path / "photos").glob("*.cls"):
        file.unlink()
    code = textwrap.dedent(example)
    for name in ("photos", "packed"):
        code = code.replace(f'"{name}"', repr(str(tmp_path / name)))
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert list((tmp_path / "packed").glob("*.parquet"))


def test_stages_give_back_what_they_got() -> None:
    noise = np.random.default_rng(1)
    images = noise.integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    coded = Compress(lossless=True)({"image": images, "label": np.arange(3)})
    assert sorted(coded) == ["label", "lac"] and all(isinstance(file, bytes) for file in coded["lac"])
    back = Decompress(to="image")(coded)
    assert np.array_equal(back["image"], images) and np.array_equal(back["label"], np.arange(3))
    ragged = np.empty(2, object)
    ragged[0], ragged[1] = images[0], images[1, :5]
    back = Decompress()(Compress(lossless=True)({"image": ragged}))
    assert [np.array_equal(one, other) for one, other in zip(back["image"], ragged, strict=True)] == [True, True]
    sounds = noise.integers(-99, 99, (2, 400, 1), dtype=np.int16)
    heard = Decompress("lac", "sound")(Compress("sound", sample_rate=8000, notes=[])({"sound": sounds}))
    assert np.array_equal(heard["sound"], sounds) and heard["sample_rate"].tolist() == [8000, 8000]
    with pytest.raises(BadInput, match="column: found 'image', expected one of sound"):
        Compress()({"sound": sounds})


def test_a_stage_takes_the_bytes_of_files(source: Path) -> None:
    files = np.empty(1, object)
    files[0] = (source / "p0.png").read_bytes()
    back = Decompress()(Compress("bytes", lossless=True)({"bytes": files}))
    assert np.array_equal(back["image"][0], np.asarray(Image.open(source / "p0.png")))
