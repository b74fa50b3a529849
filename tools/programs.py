"""Runs programs as codecs: a file through a command, and how much memory that took."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from laconic.tools.machine import memory

POLL_S = 0.005
children_peak_bytes = 0  # the most of any program that ran since it was last set to 0


def through(data: bytes, before: str, after: str, words: list[str]) -> bytes:
    """Run a command on a file and return the file that it makes. {in} and {out} in its words are files with these suffixes.

    Raises OSError where the program fails, with what it said.
    """
    global children_peak_bytes
    with tempfile.TemporaryDirectory() as folder:
        source, out, log = (os.path.join(folder, name) for name in (f"in{before}", f"out{after}", "log"))
        Path(source).write_bytes(data)
        command = [word.replace("{in}", source).replace("{out}", out) for word in words]
        with open(log, "wb") as text:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=text, stderr=text)
            while child.poll() is None:  # what the system keeps for wait4 begins with the memory of the parent
                children_peak_bytes = max(children_peak_bytes, memory("VmHWM", child.pid))
                with suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_S)
        if child.returncode or not os.path.exists(out):
            said = Path(log).read_text(errors="replace").strip().splitlines()
            raise OSError(
                f"{command[0]}: found exit status {child.returncode}, expected 0 and a file: {' '.join(said[-2:])}"
            )
        return Path(out).read_bytes()


class PeakMemory:
    """Measures the most memory that a `with` block took, in `bytes`: the programs that it ran, or this process beyond before.

    0 where the system has no /proc.
    """

    def __enter__(self) -> Self:
        global children_peak_bytes
        children_peak_bytes = 0
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew
        self.before = memory("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = children_peak_bytes or max(0, memory("VmHWM") - self.before)


def said_by(*command: str) -> str:
    """Return what a command prints. Raises CalledProcessError where it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
