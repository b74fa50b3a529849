"""Mixed y: what is coded comes back, a decoder of FORMAT.md alone finds the same, damage and hostile payloads are refused."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import entropy
from laconic.entropy.errors import BadFile
from laconic.entropy.pmf import TOTAL
from laconic.entropy.tables import Tables
from laconic.entropy.varint import write_varint
from laconic.models.photo_mixing import Decoder, Shape, encode

HERE = Path(__file__).parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(HERE))  # it imports plain_picture
    plain_mixed = SimpleNamespace(**runpy.run_path(str(HERE / "plain_mixed.py")))
Passes = list[tuple[np.ndarray, np.ndarray]]
GAUSSIAN = entropy.gaussian_tables()


def drawn(shape: Shape, tables: Tables, seed: int, widest: int = 63, far_off: float = 0.01) -> Passes:
    """Symbols that their rows expect, more or less; each channel has a habit of its own, and some symbols are far off."""
    rng = np.random.default_rng(seed)
    place = np.add(*np.indices(shape[1:])) % 2 * 2 + np.indices(shape[1:])[0] % 2
    passes = []
    for n in range(4):
        counts = [int((place == n ^ c % 4).sum()) for c in range(shape.channels)]
        rows = rng.integers(0, widest + 1, sum(counts)).astype(np.uint8)
        scales = np.repeat(rng.uniform(0, 2, shape.channels), counts)
        symbols = np.rint(rng.normal(0, 1, len(rows)) * scales * 0.11 * 1.106**rows + 0.3 * (scales > 1))
        far = rng.random(len(rows)) < far_off
        symbols[far] = rng.integers(-32767, 32768, int(far.sum()))
        passes.append((symbols.astype(np.int16), (rows % len(tables.sizes)).astype(np.uint8)))
    return passes


def decoded(data: bytes, passes: Passes, shape: Shape, tables: Tables) -> list[np.ndarray]:
    decoder = Decoder.of(data, shape, tables)
    found = [decoder.next_pass(n, rows) for n, (_, rows) in enumerate(passes)]
    decoder.finish()
    return found


def same(found: list[np.ndarray], passes: Passes) -> bool:
    return all(np.array_equal(a, b) for a, (b, _) in zip(found, passes, strict=True))


@st.composite
def any_tables(draw: st.DrawFn) -> Tables:
    """A few rows of any masses and first symbols: of one side, without 0, of an escape alone."""
    masses, offsets = [], []
    for _ in range(draw(st.integers(1, 5))):
        weights = np.array(draw(st.lists(st.integers(1, 1000), min_size=1, max_size=40)))
        row = np.maximum(weights * (TOTAL - len(weights)) // weights.sum(), 1)
        row[-1] += TOTAL - row.sum()
        masses.append(row)
        offsets.append(draw(st.integers(-40, 5)))
    return Tables.from_masses(masses, offsets)


@given(any_tables(), st.tuples(st.integers(1, 10), st.integers(1, 7), st.integers(1, 7)), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_what_is_coded_comes_back(tables: Tables, size: tuple[int, int, int], seed: int) -> None:
    shape = Shape(*size)
    passes = drawn(shape, tables, seed)
    assert same(decoded(encode(passes, shape, tables), passes, shape, tables), passes)


@given(any_tables(), st.tuples(st.integers(1, 10), st.integers(1, 6), st.integers(1, 6)), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_a_decoder_of_the_format_alone_finds_the_same(tables: Tables, size: tuple[int, int, int], seed: int) -> None:
    check_plain(Shape(*size), tables, drawn(Shape(*size), tables, seed))


@pytest.mark.parametrize("widest", [20, 63])
def test_the_same_with_the_rows_of_photos(widest: int) -> None:
    """Enough symbols for all contexts, octaves and corrections."""
    shape = Shape(17, 12, 14)
    check_plain(shape, GAUSSIAN, drawn(shape, GAUSSIAN, widest, widest))


def check_plain(shape: Shape, tables: Tables, passes: Passes) -> None:
    """The plain decoder finds the symbols, and reads the payload to its end."""
    offsets, cdf = tables.offsets.tolist(), tables.cdf.tolist()
    rows = [(first, starts[: size + 1]) for first, starts, size in zip(offsets, cdf, tables.sizes.tolist(), strict=True)]
    tile = plain_mixed.Tile(encode(passes, shape, tables), shape, rows)
    for n, (symbols, indices) in enumerate(passes):
        assert tile.read_pass(n, indices.tolist()) == symbols.tolist()
    assert tile.bits.x == 1 << 16 and not tile.bits.words


def test_habits_are_learnt() -> None:
    """Channels that are calmer and less calm than their rows, in runs: what a table cannot know."""
    shape = Shape(16, 32, 32)
    passes = drawn(shape, GAUSSIAN, 5, 40, 0)
    known = sum(GAUSSIAN.codelength(*one) for one in passes) / 8
    assert len(encode(passes, shape, GAUSSIAN)) < 0.95 * known


def test_damage_is_refused_or_other_symbols() -> None:
    shape = Shape(8, 8, 8)
    passes = drawn(shape, GAUSSIAN, 3)
    good = encode(passes, shape, GAUSSIAN)
    refused = 0
    cut = [good[:end] for end in range(0, len(good), 7)]
    flipped = [bytes(b ^ (1 << i % 8) * (k == i) for k, b in enumerate(good)) for i in range(0, len(good), 5)]
    for bad in itertools.chain(cut, [good + b"\0"]):
        with pytest.raises(BadFile):
            decoded(bad, passes, shape, GAUSSIAN)
    for bad in flipped:
        try:
            assert not same(decoded(bad, passes, shape, GAUSSIAN), passes)
        except BadFile:
            refused += 1
    assert refused > 0.9 * len(flipped)


@pytest.mark.parametrize("head", [0, 8 * 5, 8 << 29, 4, 1])
def test_hostile_payloads_are_refused(head: int) -> None:
    """No words, fewer than there are, more than symbols can need, escapes, four lanes: for a large tile."""
    shape = Shape(64, 64, 64)
    rows = np.full(64 * 64 * 64 // 4, 63, np.uint8)
    data = write_varint(head) + b"\xff" * 26
    with pytest.raises(BadFile):
        decoded(data, [(rows, rows)] * 4, shape, GAUSSIAN)
