"""How much the encoder of a photo searches, for what, and what that makes of qualities and targets.

    effort 1      plain rounding                          quality as it is
    effort 2..9   models/photo_search.py, more and more   quality mapped, so that a picture looks as good as with effort 1
    effort 9      models/photo_mixing.py, where smaller
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from laconic.entropy.errors import TargetOutOfReach
from laconic.options import DEFAULT_TUNE, Options, Rate, Searched, Ssimulacra2
from laconic.search import HUNDREDTHS, between, inside, search

DEFAULT_PHOTO_EFFORT = 4
# Of the search, at efforts 1 to 9. At 768 x 512 pixels the default took 2 seconds on two cores of a server, 9 took 80 on one.
ITERATIONS = {
    "eye": (0, 1, 2, 3, 6, 12, 30, 70, 150),
    "psnr": (0, 1, 2, 4, 8, 16, 45, 110, 240),
    "ms-ssim": (0, 1, 2, 3, 6, 12, 25, 50, 100),
}
# Points of quality by which the searched picture looks better (SSIMULACRA2) than the plain one of the same quality, at
# qualities 0, 10, ... 100: so much lower is the quality that is coded. Means of valid photos; from FULL iterations on.
BETTER = {
    "eye": (0.0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 3.0, 3.0, 0.0),
    "psnr": (0.0,) * 11,
    "ms-ssim": (0.0,) * 11,
}
FULL = 3
MIXES_FROM = 9
NUDGE = 20  # hundredths of a point of quality
ROUNDS = 12  # of the correction of a target: the first one learns what the effort changes, the others meet the target


@dataclass(frozen=True)
class Effort:
    """Says what the encoder searches for (a key of `photo_search.TUNES`), and in how many iterations; 0 is plain rounding.

    mixes: whether tiles are mixed y where that is smaller. It makes decoding slower.
    """

    tune: str
    iterations: int
    mixes: bool = False

    def quality(self, asked: int) -> int:
        """Return the quality to code with, for a picture that looks as the plain one of the quality asked for; both x 100.

        It rises with the quality asked for.
        """
        asked_for = np.linspace(0, HUNDREDTHS, len(BETTER[self.tune]))
        share = min(1.0, self.iterations / FULL)
        coded = asked_for - 100 * share * np.array(BETTER[self.tune])
        return round(float(np.interp(asked, asked_for, coded)))


PLAIN = Effort(DEFAULT_TUNE, 0)


def effort_of(options: Options) -> Effort:
    """Return what the options ask for, by default DEFAULT_PHOTO_EFFORT for the eye. Raises BadInput."""
    level = DEFAULT_PHOTO_EFFORT if options.effort is None else options.level()
    tune = options.tune or DEFAULT_TUNE
    return Effort(tune, ITERATIONS[tune][level - 1], level >= MIXES_FROM)


def spent_towards(
    target: Searched, plain: Callable[[int], bytes], spent: Callable[[int], bytes], measure: Callable[[bytes], float]
) -> bytes:
    """Return the file that keeps a target, the effort spent on it. Raises TargetOutOfReach.

    plain, spent: make a file of a quality, 0 to 10,000, at no effort and at that asked for. The quality is searched with
    plain files. What the effort then changes is taken off the target of the next search, until the file keeps the target;
    between two files that lie on either side of it, the quality is interpolated.
    """
    made: dict[int, tuple[float, bytes]] = {}
    reached: dict[int, tuple[float, bytes]] = {}

    def quality_for(aim: Searched) -> int:
        """Return the quality of the plain file that keeps the aim best, or of the nearest one."""
        try:
            return search(aim, lambda units: units, lambda units: known(units)[0], "picture")
        except TargetOutOfReach:
            return min(made, key=lambda units: abs(made[units][0] - aim.value))

    def known(units: int) -> tuple[float, bytes]:
        if units not in made:
            data = plain(units)
            made[units] = measure(data), data
        return made[units]

    units = quality_for(target)
    for _ in range(ROUNDS):
        while units in reached and 0 < units < HUNDREDTHS:  # as near as plain files tell
            units += NUDGE if reached[units][0] < target.value else -NUDGE
        if units in reached:
            break
        data = spent(units)
        value = measure(data)
        reached[units] = value, data
        if inside(target, {units: reached[units]}) and target.slack(value) <= target.tolerance:
            break
        before = known(units)[0]
        change = target.value * before / value if isinstance(target, Rate) else target.value + before - value
        low = max((one for one in reached if reached[one][0] <= target.value), default=HUNDREDTHS)
        high = min((one for one in reached if reached[one][0] > target.value), default=0)
        if low + 1 < high:
            units = between(target, low, high, reached[low][0], reached[high][0])
            continue
        units = quality_for(replace(target, value=min(change, 100.0) if isinstance(target, Ssimulacra2) else change))
    kept = inside(target, reached) or inside(target, made)
    if not kept:
        return search(target, lambda units: known(units)[1], measure, "picture")  # which says what can be reached
    return min(kept, key=lambda one: target.slack(one[0]))[1]
