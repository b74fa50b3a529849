"""What is settled before numba and torch are loaded: cores, waiting threads, a cache that is ours."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from laconic.entropy import environment
from laconic.entropy.threads import n_threads


@pytest.fixture
def anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that is empty, and nowhere else to cache."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(environment, "can_cache", lambda: False)
    return tmp_path


def group(root: Path, line: str) -> None:
    """Add a line to /proc/self/cgroup."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    with (root / "proc/self/cgroup").open("a") as text:
        text.write(line + "\n")


def limit(root: Path, folder: str, **texts: str) -> None:
    """Write files of a control group; the first _ of a name stands for a dot."""
    (root / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (root / "sys/fs/cgroup" / folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_a_quota_is_the_least_of_all_groups_above(tmp_path: Path) -> None:
    group(tmp_path, "0::/a/b")
    assert environment.cgroup_quota(tmp_path) == math.inf
    environment.cgroup_quota.cache_clear()
    limit(tmp_path, "a/b", cpu_max="max 100000")
    limit(tmp_path, "a", cpu_max="150000 100000")
    limit(tmp_path, "", cpu_max="400000 100000")
    assert environment.cgroup_quota(tmp_path) == 1.5


def test_a_quota_of_version_1(tmp_path: Path) -> None:
    group(tmp_path, "9:name=systemd:/")
    group(tmp_path, "3:cpuset:/x")
    group(tmp_path, "2:cpu,cpuacct:/docker/abc")
    limit(tmp_path, "cpu/docker/abc", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    limit(tmp_path, "cpu", cpu_cfs_quota_us="50000", cpu_cfs_period_us="100000")
    limit(tmp_path, "x", cpu_max="1 100000")
    assert environment.cgroup_quota(tmp_path) == 0.5


@pytest.mark.parametrize("text", ["", "max", "-1 0", "many 100000", "1 0 0", "0 100000"])
def test_a_quota_that_says_nothing(tmp_path: Path, text: str) -> None:
    group(tmp_path, "0::/")
    limit(tmp_path, "", cpu_max=text)
    assert environment.cgroup_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (64.0, 8), (2.5, 3), (1.0, 1), (0.1, 1)])
def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: 8)
    monkeypatch.setattr(environment, "cgroup_quota", lambda: quota)
    assert environment.n_cores() == n_threads(None) == cores
    environ: dict[str, str] = {"NUMBA_CACHE_DIR": "x"}
    environment.prepare(environ)
    assert environ.get("OMP_NUM_THREADS") == (str(cores) if cores < 8 else None)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_affinity_counts() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "from laconic.entropy.environment import n_cores; assert n_cores() == 1"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_settings_of_the_user_win(anywhere: Path) -> None:
    own = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "7", "NUMBA_CACHE_DIR": "here"}
    environ = dict(own)
    environment.prepare(environ)
    assert environ == own and not list(anywhere.iterdir())
    environ = {"NUMBA_CACHE_DIR": "here"}
    environment.prepare(environ)
    assert (environ["OMP_WAIT_POLICY"], environ["GOMP_SPINCOUNT"]) == ("PASSIVE", "0")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as POSIX has them")
def test_a_cache_of_nobody_else(anywhere: Path) -> None:
    environ: dict[str, str] = {}
    environment.prepare(environ)
    folder = Path(environ["NUMBA_CACHE_DIR"])
    assert folder.parent == anywhere and folder.stat().st_mode & 0o777 == 0o700
    assert environment.private_folder() == str(folder)  # kernels stay for the next process


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as POSIX has them")
@pytest.mark.parametrize("trap", ["open", "link", "file", "foreign"])
def test_a_cache_that_others_prepared_is_not_used(anywhere: Path, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    usual = anywhere / f"laconic-kernels-{os.geteuid()}"
    if trap == "link":
        (anywhere / "theirs").mkdir(0o700)
        usual.symlink_to("theirs")
    elif trap == "file":
        usual.touch(0o700)
    else:
        usual.mkdir(0o700)
        if trap == "open":
            usual.chmod(0o770)
        else:
            other = os.geteuid() + 1
            usual.rename(anywhere / f"laconic-kernels-{other}")
            monkeypatch.setattr(os, "geteuid", lambda: other)
    found = environment.private_folder()
    assert Path(found).parent == anywhere and Path(found) != usual and not os.path.islink(found)
    assert os.stat(found).st_mode & 0o777 == 0o700 and not list(Path(found).iterdir())
    assert found != environment.private_folder()


@pytest.mark.parametrize("numba_first", [False, True])
def test_kernels_are_cached_there(tmp_path: Path, numba_first: bool) -> None:
    script = "import numba\n" if numba_first else ""
    script += (
        "import laconic.entropy.environment as e\n"
        "e.can_cache = lambda: False; e.prepare()\n"
        "from laconic.entropy.rans_numba import push_all\n"
        "print(push_all._cache.cache_path)"
    )
    environ = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environ["TMPDIR"] = str(tmp_path)
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environ)
    assert found.stdout.startswith(f"{tmp_path}/laconic-kernels-")


def test_where_numba_can_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.is_writable(tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    assert not environment.is_writable(tmp_path / "file" / "x")
    monkeypatch.setattr(environment, "KERNELS", (tmp_path, tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if sys.platform == "linux":
        assert not environment.can_cache()
    monkeypatch.setattr(environment, "KERNELS", (tmp_path,))
    assert environment.can_cache()
