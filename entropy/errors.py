"""The errors that Laconic raises on purpose, at the bottom so that every layer can raise them.

LaconicError
  BadInput            the caller gave something that cannot be coded: change the call
  TargetOutOfReach    a rate or quality target outside what the model can do: change the target
  BadFile             the bytes are damaged or not ours: get the file again
    UnsupportedFile   the bytes are sound, this version cannot read them: get a newer Laconic
  ModelMissing        the file needs a model that is not installed: install it
"""


class LaconicError(Exception):
    """Base of every error that Laconic raises on purpose."""


class BadInput(LaconicError, ValueError):
    """The caller gave something that cannot be coded."""


class TargetOutOfReach(BadInput):
    """A target (size, bpp, psnr) lies outside the range that the message names."""


class BadFile(LaconicError):
    """The bytes are damaged or were not written by Laconic."""


class UnsupportedFile(BadFile):
    """The bytes are sound, but need a feature that this version does not have."""


class ModelMissing(LaconicError):
    """The file names a model that is not installed here."""


def expect(ok: bool, error: type[LaconicError], field: str, found: object, expected: object) -> None:
    """Raise `error` with the house message "field: found X, expected Y" unless `ok`."""
    if not ok:
        raise error(f"{field}: found {found!r}, expected {expected}")
