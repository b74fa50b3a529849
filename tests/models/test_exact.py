"""The arithmetic under the table indices: floors, not roundings, whatever the sign."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.models.exact import interpolate, requantise


@given(st.lists(st.integers(-5_000, 5_000), min_size=2, max_size=6), st.integers(1, 10_000), st.data())
def test_interpolation_is_the_floor_of_the_line(anchors: list[int], span: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, (len(anchors) - 1) * span))
    row, rest = divmod(position, span)
    upper = anchors[min(row + 1, len(anchors) - 1)]
    expected = (anchors[row] * (span - rest) + upper * rest) // span
    assert interpolate(torch.tensor(anchors)[:, None], position, span).tolist() == [expected]


def test_requantised_sums() -> None:
    sums = torch.tensor([-(2.0**24) + 1, -1, 0, 63, 64, 127 * 64 - 1, 127 * 64, 128 * 64, 2.0**24 - 1])
    assert requantise(sums).tolist() == [0, 0, 0, 0, 1, 126, 127, 127, 127]
    with torch.no_grad():
        assert requantise(sums).tolist() == [0, 0, 0, 0, 1, 126, 127, 127, 127]
