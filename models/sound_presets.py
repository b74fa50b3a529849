"""The predictors of each effort of lossless sound (FORMAT.md, "Coded sound samples", Presets): part of the format.

A segment names its effort, and its decoder builds the same predictors; so no number here may change. Efforts differ in
how many predictors there are, how far back they look and how often they are solved for, and so in time alone, not in
method.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LeastSquares:
    """Describes a least-squares predictor: L(own, other, memory, every) of FORMAT.md.

    own, other: how many samples of the channel and of its partner it looks at, multiples of 8. memory: a sample's
    weight in the covariances is (1 - 1 / memory)**age. every: samples from one solution to the next.
    """

    own: int
    other: int
    memory: int
    every: int


@dataclass(frozen=True)
class Cascade:
    """Runs NLMS filters in turn, on what least-squares predictor `source` leaves: G(source, filters) of FORMAT.md.

    filters: (own, other) per filter, how many errors of the channel and of its partner it sees, multiples of 8.
    """

    source: int
    filters: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Preset:
    """Lists all predictors of an effort.

    Their guesses are numbered in this order: least squares, then each cascade's filters.
    """

    least_squares: tuple[LeastSquares, ...]
    cascades: tuple[Cascade, ...]


SHORT = ((32, 16), (16, 0))
C4, S4 = ((1024, 0), (256, 0), *SHORT), ((1024, 512), (256, 0), *SHORT)  # FORMAT.md's names: one channel, stereo
FAST, MEDIUM, SLOW = LeastSquares(16, 8, 100, 8), LeastSquares(32, 16, 500, 16), LeastSquares(8, 8, 5000, 16)
OFTEN = (  # what efforts 8 and 9 begin with: solved for more often, and wider
    LeastSquares(32, 16, 500, 8),
    LeastSquares(16, 8, 100, 4),
    LeastSquares(16, 8, 5000, 16),
    LeastSquares(64, 32, 500, 32),
    LeastSquares(128, 32, 1000, 64),
)
NERVOUS = LeastSquares(8, 8, 33, 2)  # remembers less than a millisecond at 44.1 kHz

PRESETS = {  # by effort
    1: Preset((LeastSquares(16, 8, 500, 32),), (Cascade(0, ((16, 0),)),)),
    2: Preset((LeastSquares(16, 8, 500, 32),), (Cascade(0, ((256, 0), (16, 0))),)),
    3: Preset((LeastSquares(24, 8, 500, 32), LeastSquares(16, 8, 100, 16)), (Cascade(0, ((256, 0), *SHORT)),)),
    4: Preset((LeastSquares(32, 8, 500, 32), LeastSquares(16, 8, 100, 16)), (Cascade(0, C4),)),
    5: Preset((MEDIUM, FAST), (Cascade(0, C4),)),
    6: Preset((MEDIUM, FAST, SLOW), (Cascade(0, C4), Cascade(2, S4))),
    7: Preset((MEDIUM, FAST, SLOW, LeastSquares(128, 32, 1000, 256)), (Cascade(0, C4), Cascade(2, S4))),
    8: Preset((*OFTEN, NERVOUS), (Cascade(0, C4), Cascade(2, S4), Cascade(4, C4))),
    9: Preset(
        (*OFTEN, LeastSquares(24, 16, 200, 8), NERVOUS, LeastSquares(256, 32, 2000, 128)),
        (
            Cascade(0, C4),
            Cascade(2, ((2048, 1024), (512, 0), (256, 0), *SHORT)),
            Cascade(4, C4),
            Cascade(7, ((1024, 0), (256, 0), (16, 0))),
        ),
    ),
}
