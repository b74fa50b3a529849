"""Adaptive models: kernels equal the plain form, masses stay positive, what is learnt shortens, damage is an error."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import entropy
from laconic.entropy import adaptive, rans
from laconic.entropy.adaptive import FAST, SLOW
from laconic.entropy.intervals import write_stream
from laconic.entropy.pmf import TOTAL


class Row:
    """The plain form of a row: two CDFs, each stepping towards the one that gives the symbol all but 1 a symbol."""

    def __init__(self, n: int) -> None:
        self.cdfs = [[i * (TOTAL // n) for i in range(n)] for _ in (FAST, SLOW)]

    def bounds(self) -> list[int]:
        return [sum(both) >> 1 for both in zip(*self.cdfs, strict=True)] + [TOTAL]

    def code(self, symbol: int) -> tuple[int, int]:
        start, end = self.bounds()[symbol : symbol + 2]
        for cdf, rate in zip(self.cdfs, (FAST, SLOW), strict=True):
            n = len(cdf)
            for i in range(1, n):
                target = i if i <= symbol else TOTAL - n + i
                cdf[i] += (target - cdf[i]) >> rate
        return start, end - start


def encode_plain(symbols: list[int], alphabet: int, order: int, strips: int) -> bytes:
    """The plain form of `adaptive.encode`."""
    symbol_bits = (alphabet - 1).bit_length()
    bits = 1 if alphabet == 2 else 4
    shifts = range(bits * (-(-symbol_bits // bits) - 1), -1, -bits)
    length = -(-len(symbols) // strips)
    symbols = symbols + [0] * (length * strips - len(symbols))
    rows: dict[tuple[int, ...], Row] = {}
    coded = []
    for i in range(length):
        for strip in range(strips):
            part = [0] * order + symbols[strip * length : (strip + 1) * length]
            for shift in shifts:
                key = (strip, *part[i : i + order], shift, part[i + order] >> shift + bits)
                digit = part[i + order] >> shift & (1 << bits) - 1
                coded.append((strip, *rows.setdefault(key, Row(1 << bits)).code(digit)))
    words: list[int] = []
    states = [rans.START] * strips
    for strip, start, freq in reversed(coded):
        states[strip] = rans.push(states[strip], start, freq, words)
    return write_stream(np.array(states, np.uint32), np.array(words[::-1], np.uint16))


CASES = [
    (2, 0),
    (2, 3),
    (2, 10),
    (3, 2),
    (16, 0),
    (16, 1),
    (16, 2),
    (17, 1),
    (200, 1),
    (256, 0),
    (5000, 0),
    (1 << 16, 0),
]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CASES), st.sampled_from([1, 4, 8, 32]), st.integers(0, 150), st.integers(0, 1 << 30))
def test_kernels_are_the_plain_form(case: tuple[int, int], strips: int, n: int, seed: int) -> None:
    alphabet, order = case
    rng = np.random.default_rng(seed)
    symbols = np.minimum(rng.geometric(rng.uniform(0.01, 0.9), n) - 1, alphabet - 1)
    data = adaptive.encode(symbols, alphabet, order, strips)
    assert data == encode_plain(symbols.tolist(), alphabet, order, strips)
    assert np.array_equal(adaptive.decode(data, n, alphabet, order), symbols)


@settings(deadline=None)  # the first call compiles
@given(st.sampled_from([2, 16]), st.data())
def test_masses_stay_positive(n: int, data: st.DataObject) -> None:
    row = Row(n)
    for symbol, times in data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, 400)), max_size=6)):
        for _ in range(times):
            row.code(symbol)
            assert all(b > a for cdf in row.cdfs for a, b in zip(cdf, [*cdf[1:], TOTAL], strict=True))


@pytest.mark.parametrize("alphabet", [2, 16])
def test_what_is_learnt_shortens(alphabet: int) -> None:
    """A Markov source of order 1: within 10 % of its entropy in its own context, and far from it without."""
    rng = np.random.RandomState(3)
    rows = np.roll(np.eye(alphabet), 1, axis=1) * 0.8 + 0.2 / alphabet
    symbols, draws = [0], rng.random_sample(60_000)
    for draw in draws:
        symbols.append(min(int(np.searchsorted(np.cumsum(rows[symbols[-1]]), draw)), alphabet - 1))
    ideal = -sum(float(np.log2(rows[a, b])) for a, b in pairwise(symbols))
    assert 8 * len(adaptive.encode(symbols, alphabet, 1)) < 1.1 * ideal
    assert 8 * len(adaptive.encode(symbols, alphabet, 0)) > 1.1 * ideal


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(CASES), st.sampled_from([1, 4]), st.integers(1, 300), st.data())
def test_damage_is_an_error_or_other_symbols(case: tuple[int, int], strips: int, n: int, data: st.DataObject) -> None:
    alphabet, order = case
    symbols = np.random.default_rng(n).integers(0, alphabet, n)
    good = adaptive.encode(symbols, alphabet, order, strips)
    with pytest.raises(entropy.BadFile, match="found .*, expected"):
        adaptive.decode(good[: data.draw(st.integers(0, len(good) - 1))], n, alphabet, order)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(entropy.BadFile):
        found = adaptive.decode(bytes(bad), n, alphabet, order)
        assert len(found) == n and found.max() < alphabet


def test_golden_stream() -> None:
    """A change of the models is a change of format."""
    symbols = np.random.RandomState(5).randint(0, 200, 5000) // (1 + np.arange(5000) % 7)
    data = adaptive.encode(symbols, 200, 1, 4)
    assert hashlib.sha256(data).hexdigest() == "23e3715ff157e7608c1cb0af74456a3a2f9ffe0d889a17a97728f8cf95eaf25a"
    assert np.array_equal(adaptive.decode(data, 5000, 200, 1), symbols)


def test_more_memory_than_the_models_may_take_is_refused() -> None:
    """Strips are read from the stream: damage there must not multiply the models."""
    good = adaptive.encode([1, 2, 3], 16, 4)
    many = bytes([good[0] | 3]) + good[1:] + bytes([0, 0, 1, 0] * 31)
    with pytest.raises(entropy.BadFile, match="strips: found 32, expected fewer"):
        adaptive.decode(many, 3, 16, 4)
    for alphabet, order, strips in ((256, 2000, 1), (16, 4, 32)):
        with pytest.raises(entropy.BadInput, match="found .*, expected"):
            adaptive.encode([0, 1], alphabet, order, strips)


@pytest.mark.parametrize(
    "call", [{"alphabet": 1}, {"alphabet": 16, "order": 9}, {"alphabet": 4}, {"alphabet": 16, "strips": 3}]
)
def test_bad_input_is_named(call: dict[str, int]) -> None:
    with pytest.raises(entropy.BadInput, match="found .*, expected"):
        adaptive.encode([5, 0, 1], **call)
