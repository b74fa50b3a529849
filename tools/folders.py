"""Finds the files of a folder that are to be coded, and keeps account of those that are not."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from laconic import suffixes

PICTURE, SOUND, CODED = "picture", "sound", "Laconic"
NEEDS = {PICTURE: "pictures take -q, --bpp, --size, --psnr, --ssimulacra2", SOUND: "sounds take -q, -b, --size, --lossless"}
MAGIC = b"\x89Lc"  # our files begin so
UTF_16 = b"\xff\xfe"  # texts begin so; MPEG layer I too, but that is rare
# What systems leave in folders: nobody means it, so it is not even counted.
LITTER = {".ds_store", ".localized", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".nomedia"}
SYSTEM = {"$recycle.bin", "system volume information", "lost+found", "__macosx"}
SYSTEM |= {".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems", ".documentrevisions-v100"}


@dataclass
class Search:
    """Holds what was found in folders.

    wanted: kinds of files, of PICTURE, SOUND and CODED. skipped: what was left out, and its suffix or what it is.
    failures: what could not be read, and why. hints: what to do about files of a known kind that is not wanted.
    """

    wanted: frozenset[str]
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    failures: list[tuple[Path, OSError]] = field(default_factory=list)
    hints: set[str] = field(default_factory=set)

    def files(self, root: Path) -> list[Path]:
        """Return the wanted files in a folder and all folders in it, sorted; links to folders are not followed."""
        return sorted(path for path in self.walk(root) if self.is_wanted(path))

    def walk(self, root: Path) -> Iterator[Path]:
        """Yield everything that is no folder and no litter."""
        for place, folders, names in os.walk(root, onerror=self.failed):
            links = [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            self.skipped += [(link, "link to a folder") for link in links]
            folders[:] = [name for name in folders if name.lower() not in SYSTEM]
            for name in names:
                if not name.startswith("._") and name.lower() not in LITTER:  # ._x holds what macOS knows of x
                    yield Path(place, name)

    def failed(self, error: OSError) -> None:
        """Note a folder that could not be entered, or a file that could not be read."""
        self.failures.append((Path(error.filename), error))

    def is_wanted(self, path: Path) -> bool:
        """Tell whether a file is of a wanted kind, and note it where it is not."""
        try:
            kind = kind_of(path)
        except OSError as error:
            self.failed(error)
            return False
        if kind in self.wanted:
            return True
        label = "pipe or device" if is_special(path) else path.suffix.lower() or "without a suffix"
        self.skipped.append((path, label))
        if kind in NEEDS and self.wanted & NEEDS.keys():
            self.hints.add(NEEDS[kind])
        return False

    def account(self, made: Collection[Path | None] = ()) -> str:
        """Return one line on what was skipped: "12 files skipped: 10 .heic, 2 .txt". Empty where nothing was.

        made: outputs; those of an earlier run lie among the inputs, and are not worth a word.
        """
        counts = Counter(label for path, label in self.skipped if path not in made)
        n = counts.total()
        parts = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        hints = f" ({', '.join(sorted(self.hints))})" if self.hints else ""
        text = ", ".join(f"{count} {name}" for name, count in parts)
        return f"{n} {'file' if n == 1 else 'files'} skipped: {text}{hints}" if n else ""


def kind_of(path: Path) -> str:
    """Return PICTURE, SOUND or CODED by the suffix, or by the first bytes where that is unknown; else "".

    Raises OSError where the suffix is unknown and the file cannot be read.
    """
    suffix = path.suffix.lower()
    for kind, known in ((PICTURE, suffixes.PICTURES), (SOUND, suffixes.SOUNDS), (CODED, {suffixes.CODED})):
        if suffix in known:
            return kind if not is_special(path) else ""
    if suffix in suffixes.RAW or is_special(path) or not path.exists():
        return ""
    with path.open("rb") as file:
        start = file.read(suffixes.N_FIRST)
    if start.startswith(MAGIC):
        return CODED
    if suffixes.is_picture(start):
        return PICTURE
    from laconic import sound  # it loads NumPy

    is_read = sound.is_sound(start[:12]) and not sound.foreign(start, suffix)
    return SOUND if is_read and not start.startswith(UTF_16) else ""


def is_special(path: Path) -> bool:
    """Tell whether it is a pipe, socket or device: to read one could wait for ever."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # its turn comes, and then it is named
        return False
