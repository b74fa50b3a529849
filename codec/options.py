"""What `compress` is asked for: one target, and the options beside it.

A new target is a class here and a keyword of `compress`; a test compares the two.

    Quality  Bpp  Bitrate  Size  Psnr  Ssimulacra2     searched or set: lossy coding
    Lossless  MaxError                                 exact, or no sample off by more
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar, TypedDict

import numpy as np

from laconic.entropy.errors import BadInput, expect

DEFAULT_QUALITY = 60.0
DEFAULT_EFFORT = 7
TUNES = ("eye", "psnr", "ms-ssim")  # what a photo with loss is searched for
DEFAULT_TUNE = "eye"
PRECISIONS = ("auto", "float32", "bf16")
MAX_ERROR = 255


class CompressOptions(TypedDict, total=False):
    """Names the keywords of `laconic.compress`, for functions that hand them on."""

    quality: float | None
    bpp: float | None
    bitrate: float | None
    size: int | None
    psnr: float | None
    ssimulacra2: float | None
    lossless: bool
    max_error: int | None
    effort: int | None
    tune: str | None
    progressive: bool
    sample_rate: int | None
    strip: bool
    fallback: bool
    medium: str | None
    notes: list[str] | None


@dataclass(frozen=True)
class Target:
    """Says what a file is to keep: the base of the targets. Raises BadInput for a value that no file could have."""

    value: float
    name: ClassVar[str]
    expected: ClassVar[str] = "a positive number"

    def __post_init__(self) -> None:
        number = isinstance(self.value, (int, float, np.integer, np.floating)) and math.isfinite(self.value)
        expect(number and self.fits(), BadInput, self.name, self.value, self.expected)

    def fits(self) -> bool:
        """Tell whether a finite value makes sense."""
        return self.value > 0


@dataclass(frozen=True)
class Searched(Target):
    """Says what is kept by searching the quality. The slack says how near to it a reached value is."""

    unit: ClassVar[str]
    tolerance: ClassVar[float]  # the slack at which the search ends early

    def window(self) -> tuple[float, float]:
        """Return the lowest and the highest value that keep the target."""
        raise NotImplementedError

    def slack(self, reached: float) -> float:
        """Return how far a value in the window lies from what was asked: 0 is best."""
        raise NotImplementedError


class Rate(Searched):
    """Says what is measured on the bytes of the file alone."""

    def rate(self, n_bytes: float, n_units: float) -> float:
        """Return what a file of so many bytes reaches. n_units: pixels of a picture, seconds of a sound."""
        raise NotImplementedError


class Quality(Target):
    """Asks for a quality, 0 to 100: higher is better, fractions are allowed."""

    name = "quality"
    expected = "0 to 100"

    def fits(self) -> bool:
        return 0 <= self.value <= 100


class Bpp(Rate):
    """Asks for bits per pixel of the whole file, kept within 2 %."""

    name, unit, tolerance = "bpp", "bpp", 0.005

    def rate(self, n_bytes: float, n_units: float) -> float:
        return 8 * n_bytes / n_units

    def window(self) -> tuple[float, float]:
        return 0.98 * self.value, 1.02 * self.value

    def slack(self, reached: float) -> float:
        return abs(reached / self.value - 1)


@dataclass(frozen=True)
class Bitrate(Rate):
    """Asks for kbit/s (1000 bits per second) of the whole file over its duration, kept within 2 %, short ones within 5 %."""

    margin: float = 0.02

    name, unit, tolerance = "bitrate", "kbit/s", 0.005
    short = 2.0  # seconds: of sounds below, a byte or two is much

    def over(self, seconds: float) -> Bitrate:
        """Return the target with the margin of a sound of some length."""
        return Bitrate(self.value, 0.05 if seconds < self.short else 0.02)

    def rate(self, n_bytes: float, n_units: float) -> float:
        return 8 * n_bytes / 1000 / n_units

    def window(self) -> tuple[float, float]:
        return (1 - self.margin) * self.value, (1 + self.margin) * self.value

    def slack(self, reached: float) -> float:
        return abs(reached / self.value - 1)


class Size(Rate):
    """Asks for bytes of the whole file: never more, and 97 % of them where the range of qualities allows."""

    name, unit, tolerance = "size", "bytes", 0.01

    def rate(self, n_bytes: float, n_units: float) -> float:
        return n_bytes

    def window(self) -> tuple[float, float]:
        return 0.0, self.value

    def slack(self, reached: float) -> float:
        return 1 - reached / self.value


class Psnr(Searched):
    """Asks for decibels over all samples, reached and exceeded by at most 0.1."""

    name, unit, tolerance = "psnr", "dB", 0.05
    margin = 0.1

    def window(self) -> tuple[float, float]:
        return self.value, self.value + self.margin

    def slack(self, reached: float) -> float:
        return reached - self.value


class Ssimulacra2(Searched):
    """Asks for a SSIMULACRA2 score, at most 100, reached and exceeded by at most 0.5."""

    name, unit, tolerance = "ssimulacra2", "points", 0.25
    expected = "a score, at most 100: 30 is low, 50 medium, 70 high, 90 visually lossless"
    margin = 0.5

    def fits(self) -> bool:
        return self.value <= 100

    def window(self) -> tuple[float, float]:
        return self.value, self.value + self.margin

    def slack(self, reached: float) -> float:
        return reached - self.value


class Lossless(Target):
    """Asks that every sample comes back as it was."""

    name = "lossless"


class MaxError(Target):
    """Asks that no sample of a picture comes back further away than this."""

    name, expected = "max_error", "an integer, 0 or more"

    def fits(self) -> bool:
        return self.value == int(self.value) and self.value >= 0


TARGETS: tuple[type[Target], ...] = (Quality, Bpp, Bitrate, Size, Psnr, Ssimulacra2, Lossless, MaxError)


@dataclass(frozen=True)
class Options:
    """Says what a medium needs to know in order to encode, besides the source.

    model: the name of a model; medium: the name of a medium; None leaves the choice to Laconic. effort: 1 to 9, slower and
    smaller or better; None is the medium's default. tune: of TUNES, what a photo with loss is searched for; None is the
    default. strip: leave out metadata. fallback: another way of coding than the one asked for
    may be taken where it is better, with a note. progressive: cut a photo into slices, so that its first bytes show it all.
    """

    target: Target
    model: str | None = None
    medium: str | None = None
    effort: int | None = None
    strip: bool = False
    fallback: bool = True
    tune: str | None = None
    progressive: bool = False

    def __post_init__(self) -> None:
        exact = isinstance(self.target, (Lossless, MaxError))
        if self.tune is not None:
            expect(self.tune in TUNES, BadInput, "tune", self.tune, f"one of {', '.join(TUNES)}")
            expect(not exact, BadInput, "tune", self.tune, f"none: {self.target.name} leaves no choice")
        if self.progressive:
            expected = f"none: photos alone have slices, and the target is {self.target.name}"
            expect(not exact, BadInput, "progressive", self.progressive, expected)

    def level(self) -> int:
        """Return the effort, or the default one. Raises BadInput."""
        level = DEFAULT_EFFORT if self.effort is None else self.effort
        expect(isinstance(level, Integral) and 1 <= level <= 9, BadInput, "effort", level, "1 to 9")
        return int(level)


def one_target(lossless: bool, **values: float | None) -> Target | None:
    """Return the target that was given, if any. Raises BadInput for several, or a senseless value."""
    by_name: dict[str, Callable[[float], Target]] = {kind.name: kind for kind in TARGETS}
    given = {name: value for name, value in (values | {"lossless": 1.0 if lossless else None}).items() if value is not None}
    expect(len(given) <= 1, BadInput, "targets", sorted(given), f"at most one of {', '.join(by_name)}")
    return next((by_name[name](value) for name, value in given.items()), None)


def default_target(kind: str) -> tuple[Target, str]:
    """Return what a kind of source is coded towards where no target is given, and a note on it."""
    if kind == "sound":
        return Lossless(1.0), "coded without loss, as no target is given; a quality, bitrate or size makes it far smaller"
    return Quality(DEFAULT_QUALITY), ""
