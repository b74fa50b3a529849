"""Planes: taps are where samples are known, and as many as the largest window needs."""

from __future__ import annotations

from laconic.models.planes import PAD, TAPS


def test_taps_are_past_and_fill_the_windows() -> None:
    for taps in TAPS:
        places = [tap for tap in taps.split() if tap[0] not in "bc"]
        assert all(dy < 0 or dx < 0 for dy, dx in (map(int, tap.split(",")) for tap in places))
        assert all(abs(int(v)) <= PAD for tap in places for v in tap.split(","))
        assert all(
            abs(int(tap.lstrip("bc").split(",")[0])) <= 2 for tap in taps.split() if tap[0] in "bc" and "-" not in tap
        )
        assert len(set(taps.split())) == len(taps.split()) == 48
