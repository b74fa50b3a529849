"""rANS, the plain reference (Duda 2013; Giesen 2014, interleaved): what every kernel must equal byte for byte.

A state x in [2**16, 2**32) holds what was coded; 16-bit words take what overflows. Coding runs backward, so that
decoding runs forward. Symbol i belongs to lane i mod N; in a row of N symbols the decoder refills its lanes in order.
The wide form is for models whose probabilities need more than 15 bits. FORMAT.md, "Symbols", proves that all this
decodes.
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
    """Code an interval [start, start + freq) of 2**15 into state x; return the new state.

    words: what overflows is appended, so they come out in the reverse of the order in which they are read.
    """
    if x >= freq << (32 - PRECISION):  # from here on the new state would not be below 2**32
        words.append(x % WORD)
        x >>= 16
    return (x // freq << PRECISION) + start + x % freq


def pop(x: int, start: int, freq: int) -> int:
    """Take the interval that x mod 2**15 lies in out of state x; return what is left.

    Below 2**16 it needs the next word.
    """
    return freq * (x >> PRECISION) + x % TOTAL - start


def push_wide(x: int, start: int, freq: int, bits: int, words: list[int]) -> int:
    """Code as `push` does an interval of 2**bits, bits <= 31, into a state in [2**31, 2**63); words have 32 bits."""
    if x >= freq << (63 - bits):
        words.append(x % (1 << 32))
        x >>= 32
    return (x // freq << bits) + start + x % freq


def pop_wide(x: int, start: int, freq: int, bits: int) -> int:
    """Take out an interval of 2**bits as `pop` does. Below 2**31 the state needs the next word."""
    return freq * (x >> bits) + x % (1 << bits) - start


def encode_block(
    symbols: NDArray[np.int16], indices: NDArray[Any], tables: Tables, n_lanes: int
) -> tuple[list[int], NDArray[np.uint16], NDArray[np.int64]]:
    """Code a block: symbols [n] and their rows of the tables, unsigned integers [n].

    Returns the final state of each lane, the words in reading order, and the positions of the symbols coded as escapes.
    """
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
    """Decode a block into `out` [n]; return the positions of escapes, where the values in `out` mean nothing yet.

    states: of each lane, at least 2**16. words: in reading order. Raises BadFile on damage.
    """
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
    """Raise BadFile unless a stream was read to its end: all words are used, and all lanes are as they started.

    cursor: how many words were asked for. start: the state of every lane before the first symbol was coded.
    """
    expect(cursor <= n_words, BadFile, "words", n_words, "more: the stream ends early")
    expect(cursor == n_words, BadFile, "words", n_words, f"{cursor}, as the symbols need")
    started = bool((np.asarray(states) == start).all())
    expect(started, BadFile, "final states", "another state", "the start state in every lane")
