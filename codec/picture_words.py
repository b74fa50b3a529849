"""What Pillow says beside a picture, as notes of ours: its warnings in Python, and the errors of its libtiff on stderr.

A filter of warnings and libtiff's handler of errors belong to the whole process. So both are ours only while a file is
read, by one thread at a time, and what another thread causes meanwhile goes where it went: a warning to whoever shows
warnings; of libtiff's lines alone none is shown. Descriptor 2, which every thread writes to, is left alone.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

LOCK = threading.RLock()
WORDS: dict[int, list[str]] = {}  # what is said in a thread that listens


@contextmanager
def words_kept() -> Iterator[list[str]]:
    """Yield a list that is told what Pillow and its libtiff say in this thread, each text once, instead of the user."""
    me = threading.get_ident()
    with LOCK, warnings.catch_warnings(), libtiff_heard():
        before, usual = WORDS.get(me), warnings.showwarning

        def show(message: Warning | str, *where: Any, **more: Any) -> None:
            if not hear(str(message)):
                usual(message, *where, **more)

        warnings.filterwarnings("always", category=UserWarning, module=r"PIL\.")
        warnings.showwarning = show
        words = WORDS[me] = []
        try:
            yield words
        finally:
            del WORDS[me]
            if before is not None:
                WORDS[me] = before


def hear(text: str) -> bool:
    """Keep a text where this thread listens. Returns whether it does."""
    words = WORDS.get(threading.get_ident())
    note = f"Pillow says: {' '.join(text.split())}"
    if words is not None and note not in words:
        words.append(note)
    return words is not None


@contextmanager
def libtiff_heard() -> Iterator[None]:
    """Give the errors of Pillow's libtiff to `hear`, where its function that sets the handler can be reached."""
    setter = libtiff_setter()
    if setter is None:
        yield
        return
    before = setter(ctypes.cast(on_error, ctypes.c_void_p))
    try:
        yield
    finally:
        setter(before)


@cache
def libtiff_setter() -> Any:
    """Return libtiff's TIFFSetErrorHandler, or None where Pillow was built so that it cannot be found."""
    try:
        setter = ctypes.CDLL(import_module("PIL._imaging").__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return None
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setter


# It lives as long as the process: another thread may be about to call it when the handler of before is put back.
@ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def on_error(place: bytes | None, text: bytes | None, values: int | None) -> None:
    """Hear that libtiff found an error; the text is one for printf, whose values Python cannot take."""
    hear("libtiff found an error in the file, and the picture may be damaged")
