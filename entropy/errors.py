"""The errors that Laconic raises on purpose, at the bottom so that every layer can raise them.

LaconicError
  BadInput            the caller gave something that cannot be coded: change the call
  TargetOutOfReach    a rate or quality target outside what the model can do: change the target
  BadFile             the bytes are damaged or not ours: get the file again
    UnsupportedFile   the bytes are sound, this version cannot read them: get a newer Laconic
  ModelMissing        the file needs a model that is not installed: install it
"""

from __future__ import annotations

import reprlib


class LaconicError(Exception):
    """Is the base of every error that Laconic raises on purpose."""


class BadInput(LaconicError, ValueError):
    """Says that the caller gave something that cannot be coded."""


class TargetOutOfReach(BadInput):
    """Says that a target (size, bpp, psnr) lies outside the range that the message names."""


class BadFile(LaconicError):
    """Says that the bytes are damaged or were not written by Laconic."""


class UnsupportedFile(BadFile):
    """Says that the bytes are sound, but need a feature that this version does not have."""


class ModelMissing(LaconicError):
    """Says that the file names a model that is not installed here."""


LONGEST_FOUND = 200  # characters of what was found that a message shows
SHORT = reprlib.Repr()
SHORT.maxdict = SHORT.maxlist = SHORT.maxtuple = SHORT.maxset = SHORT.maxfrozenset = 20
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = LONGEST_FOUND


def expect(ok: bool, error: type[LaconicError], field: str, found: object, expected: object) -> None:
    """Raise `error` with the house message "field: found X, expected Y" unless `ok`; a long X is cut short."""
    if not ok:
        raise error(f"{field}: found {shortened(found)}, expected {expected}")


def shortened(found: object) -> str:
    """Return what `repr` says of a value in at most LONGEST_FOUND characters, without spelling out a huge one first."""
    if isinstance(found, (str, bytes)):
        text = repr(found[:LONGEST_FOUND])
        text += "..." * (len(found) > LONGEST_FOUND)
    elif isinstance(found, (list, tuple, dict, set, frozenset, range)) and len(found) > 20:
        text = f"{type(found).__name__} of {len(found)}"
    else:
        text = SHORT.repr(found) if isinstance(found, (list, tuple, dict, set, frozenset)) else repr(found)
    return text if len(text) <= LONGEST_FOUND else text[: LONGEST_FOUND - 3] + "..."
