"""The media that files can hold. A new one is a file here, a line in the table, and a section of FORMAT.md."""

from __future__ import annotations

from importlib import import_module

from laconic.entropy.errors import BadInput, UnsupportedFile, expect
from laconic.medium import Batched, Medium, Note, Region, Result, Run, Selection

__all__ = ["Batched", "Medium", "Note", "Region", "Result", "Run", "Selection", "choose", "installed", "named", "of", "register"]

TABLE = {  # number: module, loaded when first needed; each has its medium under the name MEDIUM
    1: "laconic.media.photo",
    2: "laconic.media.lossless_picture",
    3: "laconic.media.lossless_sound",
    4: "laconic.media.archive",
    5: "laconic.media.lossy_sound",
    6: "laconic.media.zoo",
}
OWN = range(128, 256)  # numbers that stay free for media of users

_registered: dict[int, Medium] = {}


def of(number: int) -> Medium:
    """Return the medium of a file's number. Raises UnsupportedFile."""
    if number in _registered:
        return _registered[number]
    if number not in TABLE:
        known = ", ".join(f"{medium.number} ({medium.name})" for medium in installed())
        raise UnsupportedFile(f"medium: found {number}, expected one of {known}")
    medium: Medium = import_module(TABLE[number]).MEDIUM
    return medium


def installed() -> list[Medium]:
    """Return all media, those of the package first."""
    return [import_module(module).MEDIUM for module in TABLE.values()] + list(_registered.values())


def named(name: str) -> Medium:
    """Return the medium of a name, such as `FileInfo.medium` has it. Raises BadInput."""
    names = {medium.name: medium for medium in installed()}
    expect(name in names, BadInput, "medium", name, f"one of {', '.join(names)}")
    return names[name]


def choose(kind: str, target: str, name: str | None = None) -> Medium:
    """Return the first medium, or the one of a name, that codes a kind of source towards a target. Raises BadInput."""
    media = installed() if name is None else [named(name)]
    fit = [medium for medium in media if (kind, target) in medium.accepts]
    targets = sorted({other for medium in media for known, other in medium.accepts if known == kind})
    whose = f"a {kind}" if name is None else f"a {kind} as {name}"
    expect(bool(fit), BadInput, f"target of {whose}", target, f"one of {', '.join(targets) or 'none: there is no way yet'}")
    return fit[0]


def register(medium: Medium) -> None:
    """Make a medium of one's own known, for coding and for reading. Raises BadInput.

    Its number is from 128 to 255 and, as its name, in no other's use. Registering it again replaces it.
    """
    expect(medium.number in OWN, BadInput, "medium number", medium.number, "128 to 255")
    others = {other.name for other in installed() if other.number != medium.number}
    expect(medium.name not in others, BadInput, "medium name", medium.name, "a name not in use")
    _registered[medium.number] = medium
