"""What a benchmark says of the machine that it ran on."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path


def processor() -> str:
    """Return the name of the processor, or of its architecture."""
    with suppress(OSError):  # not Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def memory(field: str, process: int | str = "self") -> int:
    """Return a field of /proc/PROCESS/status in bytes, 0 where there is none."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0
