"""What must be settled before numba and torch are loaded: the kernel cache, how OpenMP waits, how many cores there are.

Importing laconic.entropy, which everything else does, calls `prepare`. It only fills in environment variables that
are not set: the user's own settings win.
"""

from __future__ import annotations

import atexit
import math
import os
import stat
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath

HERE = Path(__file__).parent
KERNELS = (HERE, HERE.parent / "models")  # the packages whose kernels numba caches


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that numba and OpenMP read when they are loaded, where the user did not.

    NUMBA_CACHE_DIR: a private folder, only where numba could cache neither beside the package nor in the user's home.
    OMP_WAIT_POLICY, GOMP_SPINCOUNT: threads sleep while they wait. On a busy machine spinning threads take the core
    from the one that they wait for. OMP_NUM_THREADS: only where a quota of the cgroup allows less than the affinity,
    because OpenMP counts by affinity.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(environ):
        environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")
    if n_cores() < affinity():
        environ.setdefault("OMP_NUM_THREADS", str(n_cores()))
    if not environ.get("NUMBA_CACHE_DIR") and not can_cache():
        with suppress(OSError):  # no place for any file: numba says so where kernels are used
            environ["NUMBA_CACHE_DIR"] = folder = private_folder()
            if "numba" in sys.modules:  # it has read its variables already
                sys.modules["numba"].config.CACHE_DIR = folder


def n_cores() -> int:
    """Return how many cores this process may use: its affinity, or its cgroup's quota rounded up where that is less."""
    return max(1, min(affinity(), math.ceil(min(cgroup_quota(), affinity()))))


def affinity() -> int:
    """Return the number of cores that the system may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cgroup_quota(root: Path = Path("/")) -> float:
    """Return the time that Linux control groups grant, in cores; infinity where nothing limits it.

    The least of the process's group and all groups above it, in version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
    """
    quota = math.inf
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            group = PurePosixPath(path)
            for level in (group, *group.parents):
                quota = min(quota, group_quota(mount / str(level).lstrip("/")))
    return quota


def group_quota(group: Path) -> float:
    """Return the quota of one control group, in cores; infinity where it has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if quota.isdecimal() and int(quota) > 0:  # else "max" or -1: without limit
                return int(quota) / int(period)
    return math.inf


def can_cache() -> bool:
    """Return whether numba finds a place for its files: beside each package of kernels, or in the user's cache."""
    if all(is_writable(package / "__pycache__") for package in KERNELS):
        return True
    import platformdirs

    return os.path.expanduser("~") != "~" and is_writable(Path(platformdirs.user_cache_dir("numba")))


def is_writable(folder: Path) -> bool:
    """Return whether a folder can be written to, or made where it is missing."""
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def private_folder() -> str:
    """Return a folder in the temporary one that nobody else can write to; the same one for each process of a user.

    numba runs what its cache holds, so a folder that is a link, another user's or open to others is not used: then
    there is a new one, which is removed when the process ends. Raises OSError where there is no place for temporary files.
    """
    import shutil
    import tempfile

    place = tempfile.gettempdir()
    if hasattr(os, "geteuid"):
        folder = os.path.join(place, f"laconic-kernels-{os.geteuid()}")
        with suppress(OSError):
            os.mkdir(folder, 0o700)
        if is_private(folder):
            return folder
    folder, process = tempfile.mkdtemp(prefix="laconic-kernels-"), os.getpid()

    def remove() -> None:
        if os.getpid() == process:  # not in a forked child
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def is_private(folder: str) -> bool:
    """Return whether it is a folder of our own, no link, that others can neither read nor write."""
    with suppress(OSError):
        found = os.lstat(folder)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o777 == 0o700
    return False
