"""The search for a target: from wherever it starts, it ends at a file that keeps the target, or names the range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.entropy.errors import TargetOutOfReach
from laconic.options import Bitrate, Size
from laconic.search import HUNDREDTHS, around, search

starts = st.none() | st.integers(0, HUNDREDTHS)


@given(st.floats(1.0, 24.0), starts, st.floats(0.8, 2.0))
def test_a_rate_is_kept_from_any_start(asked: float, start: int | None, bend: float) -> None:
    def rate_of(units: int) -> float:
        return math.exp(math.log(24) * (units / HUNDREDTHS) ** bend)

    tried: list[int] = []

    def encode(units: int) -> float:
        tried.append(units)
        return rate_of(units)

    assert abs(search(Bitrate(asked), encode, lambda rate: rate, "sound", start) / asked - 1) <= 0.005
    assert len(tried) == len(set(tried)) <= 20, "no quality is coded twice"


def test_a_start_that_is_near_saves_work() -> None:
    tried: list[int] = []

    def encode(units: int) -> int:
        tried.append(units)
        return units + 20

    search(Size(5000), encode, float, "sound", 4990)
    assert len(tried) <= 4 and 0 not in tried and HUNDREDTHS not in tried


@given(starts, st.sampled_from([0.5, 30.0]))
def test_out_of_reach_names_the_range_from_any_start(start: int | None, asked: float) -> None:
    with pytest.raises(TargetOutOfReach, match=f"found {asked:g} kbit/s, expected 1 to 11 kbit/s for this sound"):
        search(Bitrate(asked), lambda units: 1 + units / 1000, lambda rate: rate, "sound", start)


@given(st.integers(0, HUNDREDTHS), st.integers(1, HUNDREDTHS), st.integers(-1, HUNDREDTHS + 1))
def test_the_two_around_a_start_hold_the_edge(start: int, step: int, edge: int) -> None:
    low, high = around(start, step, lambda units: units <= edge)
    assert 0 <= low <= high <= HUNDREDTHS
    assert (low <= edge or low == 0) and (high > edge or high == HUNDREDTHS)
