"""Cascades of NLMS filters on what least-squares predictors leave (FORMAT.md, "Prediction", G).

A filter of a cascade foretells the error of the guess that it stands on, from the latest such errors of its channel and
of the partner, and its guess is the sum. The next filter stands on that guess. Long filters come first: they hear
reverberation and slow tones; short ones mend the rest. Taps and errors are float32, twice as many to a vector as
float64.

After: Monkey's Audio (cascades of normalised LMS filters) and Sac (cascades behind least squares).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from laconic.entropy.rans_numba import U64
from laconic.entropy.vectors import add_scaled, dot
from laconic.models.sound_arithmetic import F64, to_grid
from laconic.models.sound_presets import Preset

F32 = numba.float32
STEP = 0.06  # times the normalised gradient: larger steps forget more, smaller ones lag behind (FORMAT.md, "Prediction")
POWER_PACE = 4.0  # the mean power of a filter's errors moves by POWER_PACE / own of the way
LEAST_POWER = 0.001  # keeps the mean power far from subnormal numbers
BASE, OWN, OTHER, TAPS_AT = range(4)  # columns of Filters.plan


class Filters(NamedTuple):
    """Holds what the filters of all channels have learnt: flat arrays, channel after channel.

    plan: int64 [S, 4], a row per filter: the guess that it adds to, how many errors it sees of its channel and of the
    partner, where a channel's taps begin. taps: float32 [C * n_taps]. errors: float32 [C * S * 2 * ring], histories of
    what the guess under each filter missed. power: float64 [C * S], mean squares of those errors.
    """

    plan: Any
    taps: Any
    errors: Any
    power: Any
    n_taps: int

    @classmethod
    def of(cls, preset: Preset, channels: int, ring: int) -> Filters:
        """Make the state before the first sample: taps are 0. ring: length of the histories."""
        plan, n_taps, n_windows = list[tuple[int, int, int, int]](), 0, len(preset.least_squares)
        for cascade in preset.cascades:
            for k, (own, helped) in enumerate(cascade.filters):
                other = helped if channels > 1 else 0
                plan.append((n_windows + len(plan) - 1 if k else cascade.source, own, other, n_taps))
                n_taps += own + other
        return cls(
            plan=np.array(plan, np.int64).reshape(-1, 4),
            taps=np.zeros(channels * n_taps, np.float32),
            errors=np.zeros(channels * len(plan) * 2 * ring, np.float32),
            power=np.ones(channels * len(plan)),
            n_taps=n_taps,
        )


@numba.njit(cache=True, nogil=True, inline="always")
def guess_filters(f, guesses, n_windows, c, partner, now, ring, limit):  # type: ignore[no-untyped-def]
    """Put each filter's guess after those of the least-squares predictors: the guess under it and what it adds.

    now: the place in a history where the error of this sample will stand. A partner that was coded before this channel
    has one there already.
    """
    n = U64(f.plan.shape[0])
    for i in range(n):
        base, own, other = U64(f.plan[i, BASE]), U64(f.plan[i, OWN]), U64(f.plan[i, OTHER])
        at = c * U64(f.n_taps) + U64(f.plan[i, TAPS_AT])
        own_at = (c * n + i) * U64(2) * ring + now + U64(1)
        other_at = (partner * n + i) * U64(2) * ring + now + U64(partner >= c)
        p = guesses[base] + F64(dot(f.taps, at, f.errors, own_at, own))
        p += F64(dot(f.taps, at + own, f.errors, other_at, other))
        guesses[n_windows + i] = to_grid(p, limit)


@numba.njit(cache=True, nogil=True, inline="always")
def descend(f, guesses, n_windows, c, partner, now, ring, x):  # type: ignore[no-untyped-def]
    """Move each filter's taps down the gradient of its squared error at sample x, then note its new error.

    The step is divided by the power of all errors that the filter sees (normalised LMS), so that loud and quiet sounds
    are learnt alike; + 1.0 keeps silence from being divided by.
    """
    n = U64(f.plan.shape[0])
    for i in range(n):
        base, own, other = U64(f.plan[i, BASE]), U64(f.plan[i, OWN]), U64(f.plan[i, OTHER])
        at = c * U64(f.n_taps) + U64(f.plan[i, TAPS_AT])
        place, partner_place = c * n + i, partner * n + i
        own_at, other_at = place * U64(2) * ring + now, partner_place * U64(2) * ring + now + U64(partner >= c)
        e, error = x - guesses[base], x - guesses[n_windows + i]  # the error of the guess under it, and its own
        energy = (f.power[place] + 1.0) * F64(own) + (f.power[partner_place] + 1.0) * F64(other)
        g = F32(STEP * error / energy)
        add_scaled(f.taps, at, g, f.errors, own_at + U64(1), own)
        add_scaled(f.taps, at + own, g, f.errors, other_at, other)
        f.errors[own_at], f.errors[own_at + ring] = F32(e), F32(e)
        power = f.power[place] + (e * e - f.power[place]) * POWER_PACE / F64(own)
        f.power[place] = max(LEAST_POWER, power)
