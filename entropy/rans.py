"""rANS, the plain reference (Duda 2013; Giesen 2014, interleaved): what every kernel must equal byte for byte.

A state x in [2**16, 2**32) holds what was coded; 16-bit words take the overflow. Coding runs backward, so decoding
runs forward. Symbol i belongs to lane i mod N; in a row of N symbols the decoder refills its lanes in order. The wide
form is for models whose probabilities need more than 15 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.pmf import PRECISION, TOTAL
from laconic.entropy.tables import Tables

START = 1 << 16  # the state of every lane before the first symbol, and after the last one is read
START_WIDE = 1 << 31
WORD = 1 << 16


def push(x: int, start: int, freq: int, words: list[int]) -> int:
    """Code an interval [start, start + freq) of 2**15 into state x; words come out in reverse reading order."""
    if x >= freq << (32 - PRECISION):
        words.append(x % WORD)
        x >>= 16
    return (x // freq << PRECISION) + start + x % freq


def pop(x: int, start: int, freq: int) -> int:
    """Take the interval that x points at out of it; call `refill` after."""
    return freq * (x >> PRECISION) + x % TOTAL - start


def push_wide(x: int, start: int, freq: int, bits: int, words: list[int]) -> int:
    """As `push`, of an interval of 2**bits, bits <= 31, into a state in [2**31, 2**63); words have 32 bits."""
    if x >= freq << (63 - bits):
        words.append(x % (1 << 32))
        x >>= 32
    return (x // freq << bits) + start + x % freq


def pop_wide(x: int, start: int, freq: int, bits: int) -> int:
    """As `pop`; call for a word where the state falls below 2**31."""
    return freq * (x >> bits) + x % (1 << bits) - start


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """Symbols and their rows -> the final state of each lane, the words in reading order, where escapes were coded."""
    entries = tables.entries(symbols, indices)
    states, words = [START] * n_lanes, list[int]()
    for i, entry in reversed(list(enumerate(entries.tolist()))):
        cdf = tables.cdf[indices[i]]
        start = int(cdf[entry])
        states[i % n_lanes] = push(states[i % n_lanes], start, int(cdf[entry + 1]) - start, words)
    return states, np.array(words[::-1], np.uint16), tables.escapes(symbols, indices)


def decode_block(
    states: list[int], words: NDArray[np.uint16], indices: NDArray[Any], tables: Tables, out: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Write the symbols to `out`, and return where escapes stand, which may be anything. Raises BadFile on damage."""
    n_lanes, cursor = len(states), 0
    states = list(states)
    symbols = np.empty(len(indices), np.int32)
    for i, row in enumerate(indices.tolist()):
        x, cdf = states[i % n_lanes], tables.cdf[row]
        entry = int(np.searchsorted(cdf, x % TOTAL, side="right")) - 1
        start = int(cdf[entry])
        x = pop(x, start, int(cdf[entry + 1]) - start)
        if x < WORD:
            expect(cursor < len(words), BadFile, "words", len(words), "more: the stream ends early")
            x = x << 16 | int(words[cursor])
            cursor += 1
        states[i % n_lanes] = x
        symbols[i] = tables.offsets[row] + entry
    expect_end(states, len(words), cursor)
    out[:] = symbols.astype(np.int16)
    return tables.escaped(symbols, indices)


def expect_end(states: ArrayLike, n_words: int, cursor: int, start: int = START) -> None:
    """Of a stream that was read: all words used, and the lanes as they started. Raises BadFile."""
    expect(cursor <= n_words, BadFile, "words", n_words, "more: the stream ends early")
    expect(cursor == n_words, BadFile, "words", n_words, f"{cursor}, as the symbols need")
    started = bool((np.asarray(states) == start).all())
    expect(started, BadFile, "final states", "another state", "the start state in every lane")
