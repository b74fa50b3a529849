"""The command line as a process: interrupts, standard streams, and what may be printed to a terminal."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from functools import partial
from types import FrameType
from typing import IO, TextIO

import laconic

PATIENCE = 1.0  # seconds that an interrupt may take before the user is told why
FAILURES = (laconic.LaconicError, OSError, MemoryError)  # what a command may end with; anything else is a bug of ours
INTERRUPTED = 130  # the exit status, as shells give it


class UsageError(Exception):
    """Says that the command line asks for something that makes no sense."""


def say(*lines: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines, each of them `printable`."""
    print(*map(printable, lines), sep="\n", file=file, flush=flush)


def complain(text: str) -> None:
    """Print a line to stderr that names this program."""
    say(f"laconic: {text}", file=sys.stderr)


def printable(text: str) -> str:
    r"""Return a text with everything escaped, as \x1b or \u202e, that could steer a terminal or turn the reading order."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def reason(error: BaseException) -> str:
    """Return what to print of an error, in one line; of those that libraries raise by themselves, the type too."""
    text = " ".join(str(error).splitlines())
    if isinstance(error, (laconic.LaconicError, OSError)):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def one_interrupt_waits() -> Iterator[None]:
    """Let the first interrupt wait for threads, which cannot be stopped, and say so; the second one ends the process.

    While modules are imported nothing is half done, and an exception could be lost in foreign code: there the first
    interrupt ends the process at once.
    """
    came, over = threading.Event(), threading.Event()

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if is_importing(frame):
            with suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), b"laconic: interrupted\n")
            os._exit(INTERRUPTED)
        came.set()
        raise KeyboardInterrupt

    def tell() -> None:  # begun before: a thread that begins in a signal handler may wait for what it interrupted
        came.wait()
        if not over.wait(PATIENCE):
            print("laconic: waiting for the files in work; interrupt again to end at once", file=sys.stderr, flush=True)

    before = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or before not in (signal.default_int_handler, signal.SIG_DFL):
        yield
        return
    threading.Thread(target=tell, daemon=True).start()
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
        came.set()


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether a frame runs within an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def replace_closed() -> list[str]:
    """Open /dev/null for each standard stream that was closed when Python began (`>&-`). Returns their names."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115  it stays open
    return closed


def check_streams(args: argparse.Namespace, closed: list[str]) -> None:
    """Raise UsageError where a closed stream is to be read or written."""
    piped = "-" in [*(getattr(args, "inputs", None) or []), *(getattr(args, "files", None) or [])]
    output = getattr(args, "output", "")
    used = {"stdin": piped, "stdout": output == "-" or (output is None and piped)}
    for name in closed:
        if used.get(name):
            raise UsageError(f"-: found {name} closed, expected it open")


def write_no_more(*streams: TextIO) -> None:
    """Send what a stream still holds to /dev/null: it cannot be written, and Python would fail at its own end."""
    for stream in streams:
        with suppress(OSError):  # has no descriptor, where a caller replaced it
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


WARNED: dict[int, list[str]] = {}  # what libraries warned of, by thread


@contextmanager
def warnings_kept() -> Iterator[None]:
    """Keep Python's warnings for `warned`, which else are printed with a path of ours but without the file's name."""

    def keep(message: Warning | str, *_: object, **__: object) -> None:
        WARNED.setdefault(threading.get_ident(), []).append(" ".join(str(message).split()))

    with warnings.catch_warnings():
        if not sys.warnoptions:  # -W is the user's own choice
            warnings.simplefilter("ignore")
            for kind in (UserWarning, RuntimeWarning):
                warnings.simplefilter("always", kind)
        warnings.showwarning = keep
        try:
            yield
        finally:
            for text in dict.fromkeys(text for texts in WARNED.values() for text in texts):
                complain(f"note: {text}")
            WARNED.clear()


def warned() -> list[str]:
    """Return what libraries warned of in this thread since the last call, each text once."""
    return list(dict.fromkeys(WARNED.pop(threading.get_ident(), [])))


@contextmanager
def words_kept() -> Iterator[Callable[[], list[str]]]:
    """Keep what C libraries print to descriptor 2. Yields a function that returns the lines since its last call.

    sys.stderr still goes where it went, and so does the traceback of a crash. Where no file can be made, nothing is kept.
    """
    with ExitStack() as stack:
        try:
            words = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            own = stack.enter_context(open(os.dup(2), "w", 1, "utf-8", "backslashreplace"))
        except OSError:
            yield list
            return
        sys.stderr.flush()
        stack.callback(os.dup2, own.fileno(), 2)
        os.dup2(words.fileno(), 2)
        if is_descriptor_2(sys.stderr):
            stack.enter_context(redirect_stderr(own))
        if not faulthandler.is_enabled():
            faulthandler.enable(own)
            stack.callback(faulthandler.disable)
        yield partial(taken_lines, words)


def taken_lines(words: IO[bytes]) -> list[str]:
    """Return the lines of a file that somebody writes through another descriptor, each once, and empty it."""
    n_bytes = words.seek(0, os.SEEK_CUR)
    words.seek(0)
    text = words.read(n_bytes).decode(errors="replace")
    words.seek(0)
    words.truncate()
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def is_descriptor_2(stream: TextIO) -> bool:
    """Tell whether a stream writes to descriptor 2; one that a caller put in its place may not."""
    with suppress(OSError, ValueError):
        return stream.fileno() == 2
    return False
