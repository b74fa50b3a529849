"""Model-driven coding: push and pop in two widths, in kernels as in the reference; damage is an error."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import entropy
from laconic.entropy import rans
from laconic.entropy.intervals import Stream, encode_intervals, open_stream, write_stream
from laconic.entropy.rans_numba import I64, U32, U64, pop, pop_wide


@given(st.integers(15, 31), st.integers(1 << 31, (1 << 63) - 1), st.data())
def test_pop_wide_undoes_push_wide(bits: int, x: int, data: st.DataObject) -> None:
    freq = data.draw(st.integers(1, 1 << bits))
    start = data.draw(st.integers(0, (1 << bits) - freq))
    words: list[int] = []
    y = rans.push_wide(x, start, freq, bits, words)
    assert 1 << 31 <= y < 1 << 63
    assert start <= y % (1 << bits) < start + freq
    back = rans.pop_wide(y, start, freq, bits)
    if words:
        assert back < 1 << 31
        back = back << 32 | words.pop()
    assert back == x and not words


@st.composite
def intervals(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """starts, freqs, bits: whole ranges, single slots, both ends."""
    bits, n = draw(st.sampled_from([15, 16, 24, 31])), draw(st.integers(0, 200))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    freqs = np.maximum(1, (1 << bits) >> rng.integers(0, bits + 1, n))
    starts = (rng.random(n) * ((1 << bits) - freqs + 1)).astype(np.int64)
    return starts, freqs, bits


def encode_plain(starts: np.ndarray, freqs: np.ndarray, bits: int, lanes: int) -> bytes:
    """The plain form of `encode_intervals`."""
    wide = bits > 15
    words: list[int] = []
    states = [rans.START_WIDE if wide else rans.START] * lanes
    for i in reversed(range(len(starts))):
        args = states[i % lanes], int(starts[i]), int(freqs[i])
        states[i % lanes] = rans.push_wide(*args, bits, words) if wide else rans.push(*args, words)
    kinds = ("<u8", "<u4") if wide else ("<u4", "<u2")
    return write_stream(np.array(states, kinds[0]), np.array(words[::-1], kinds[1]))


@numba.njit
def read_narrow(starts: Any, freqs: Any, bits: Any, states: Any, words: Any) -> Any:
    """What a model's decoder does, the model being that it knows all intervals. -1 where a slot is outside of one."""
    cursor, lanes = U64(0), U64(states.size)
    for i in range(U64(starts.size)):
        slot = I64(states[i % lanes] & U32(0x7FFF))
        if not starts[i] <= slot < starts[i] + freqs[i]:
            return I64(-1)
        states[i % lanes], cursor = pop(states[i % lanes], U32(starts[i]), U32(freqs[i]), words, cursor)
    return I64(cursor)


@numba.njit
def read_wide(starts: Any, freqs: Any, bits: Any, states: Any, words: Any) -> Any:
    cursor, lanes = U64(0), U64(states.size)
    for i in range(U64(starts.size)):
        slot = I64(states[i % lanes] & ((U64(1) << U64(bits)) - U64(1)))
        if not starts[i] <= slot < starts[i] + freqs[i]:
            return I64(-1)
        states[i % lanes], cursor = pop_wide(states[i % lanes], U64(starts[i]), U64(freqs[i]), U64(bits), words, cursor)
    return I64(cursor)


def read(stream: Stream, starts: np.ndarray, freqs: np.ndarray, bits: int) -> bool:
    """Whether all symbols were found. Raises BadFile where the stream ends otherwise."""
    kernel = read_wide if bits > 15 else read_narrow
    cursor = kernel(starts, freqs, bits, stream.states, stream.words)
    if cursor >= 0:
        stream.finish(cursor)
    return bool(cursor >= 0)


@settings(deadline=None, max_examples=150)
@given(intervals(), st.sampled_from([1, 4, 8, 32]), st.data())
def test_kernels_are_the_reference_and_damage_is_seen(
    case: tuple[np.ndarray, np.ndarray, int], lanes: int, data: st.DataObject
) -> None:
    starts, freqs, bits = case
    good = encode_intervals(starts, freqs, bits, lanes)
    assert good == encode_plain(starts, freqs, bits, lanes)
    stream, end = open_stream(good, len(starts), bits)
    assert end == len(good) and read(stream, starts, freqs, bits)
    with pytest.raises(entropy.BadFile, match="found .*, expected"):
        open_stream(good[: data.draw(st.integers(0, len(good) - 1))], len(starts), bits)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        stream, end = open_stream(bytes(bad), len(starts), bits)
        whole = end < len(bad) or not read(stream, starts, freqs, bits)
    except entropy.BadFile:
        whole = True
    assert whole  # with the model's intervals given, no other stream is read to its end


def test_size_is_the_codelength() -> None:
    rng = np.random.default_rng(1)
    freqs = rng.integers(1, 1 << 31, 100_000)
    starts = (rng.random(len(freqs)) * ((1 << 31) - freqs)).astype(np.int64)
    ideal = float((31 - np.log2(freqs)).sum())
    assert 8 * len(encode_intervals(starts, freqs, 31)) <= ideal * 1.002 + 64 + 40
    assert 8 * len(encode_intervals(starts >> 7, (freqs >> 7) + 1, 24)) <= ideal * 1.0001 + 64 + 40


@pytest.mark.parametrize(
    "starts, freqs, bits, lanes",
    [
        ([0], [0], 15, 1),
        ([1], [1 << 15], 15, 1),
        ([0], [1, 2], 15, 1),
        ([0], [1], 32, 1),
        ([0], [1], 15, 2),
        ([-1], [1], 20, 1),
    ],
)
def test_bad_intervals_are_named(starts: list[int], freqs: list[int], bits: int, lanes: int) -> None:
    with pytest.raises(entropy.BadInput, match="found .*, expected"):
        encode_intervals(starts, freqs, bits, lanes)
