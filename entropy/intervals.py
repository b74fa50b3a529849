"""Coding for models that make each interval from the symbols before it: adaptive contexts, circuits.

    encode   The model runs forward and notes (start, freq) of each symbol; `encode_intervals` then codes them backward.
    decode   `open_stream` gives states and words. A kernel of the model's own finds the interval in which the slot,
             the state modulo 2**bits, lies, and takes it out (`rans_numba.pop`, `pop_wide`). `Stream.finish` checks
             the end.

The bytes are those of a block without escapes (`blocks.py`); in the wide form, states have 8 bytes and words 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from laconic.entropy.blocks import LANES, flat
from laconic.entropy.errors import BadFile, BadInput, expect
from laconic.entropy.pmf import PRECISION
from laconic.entropy.rans import START, START_WIDE, expect_end
from laconic.entropy.tables import checked
from laconic.entropy.varint import read_varint, write_varint

WIDE_BITS = 31


@dataclass(frozen=True)
class Form:
    """Holds the sizes of a stream. start: the least state of a lane, and its state before the first symbol."""

    state: np.dtype[Any]
    word: np.dtype[Any]
    start: int


NARROW = Form(np.dtype("<u4"), np.dtype("<u2"), START)
WIDE = Form(np.dtype("<u8"), np.dtype("<u4"), START_WIDE)


def encode_intervals(starts: ArrayLike, freqs: ArrayLike, bits: int = PRECISION, lanes: int = 1) -> bytes:
    """Code intervals [start, start + freq) of 2**bits; the i-th goes into lane i mod lanes.

    starts, freqs: integers [N], start >= 0, freq >= 1, start + freq <= 2**bits.
    bits: 15, or up to 31 for the wide form.
    lanes: 1, 4, 8 or 32. More lanes decode faster and take 4 or 8 bytes each. Raises BadInput.
    """
    from laconic.entropy import rans_numba

    expect(PRECISION <= bits <= WIDE_BITS, BadInput, "bits", bits, f"{PRECISION} to {WIDE_BITS}")
    expect(lanes in LANES, BadInput, "lanes", lanes, f"one of {LANES}")
    first, width = checked(starts, "starts", 0, 1 << bits), checked(freqs, "freqs", 1, (1 << bits) + 1)
    expect(len(first) == len(width), BadInput, "freqs", len(width), f"{len(first)}, one per start")
    last = int((first.astype(np.int64) + width.astype(np.int64)).max(initial=0))
    expect(last <= 1 << bits, BadInput, "start + freq", last, f"at most {1 << bits}")
    n = len(first)
    if bits == PRECISION:
        packed = first.astype(np.uint32) | (width.astype(np.uint32) - np.uint32(1)) << np.uint32(PRECISION)
        states, words = np.full(lanes, START, np.uint32), np.empty(n, np.uint16)
        begin = rans_numba.push_packed(packed, 1, rans_numba.INVERSES, states, words)
    else:
        states, words = np.full(lanes, START_WIDE, np.uint64), np.empty(n, np.uint32)
        begin = rans_numba.push_all_wide(first.astype(np.uint64), width.astype(np.uint64), bits, states, words)
    return write_stream(states, words[begin:])


def write_stream(states: NDArray[Any], words: NDArray[Any]) -> bytes:
    """Return the bytes of a stream. states: the final one of each lane. words: in reading order."""
    head = write_varint(len(words) << 3 | LANES.index(len(states)))
    return head + b"".join(a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes() for a in (states, words))


@dataclass
class Stream:
    """Holds what a decoding kernel needs.

    states: [lanes], which it moves on. words: with a spare one at the end; see `pop`.
    """

    states: NDArray[Any]
    words: NDArray[Any]
    form: Form

    def finish(self, cursor: int) -> None:
        """Check the end, after the last symbol.

        cursor: how many words were read. Raises BadFile as `rans.expect_end` does.
        """
        expect_end(self.states, len(self.words) - 1, int(cursor), self.form.start)


def open_stream(data: bytes | memoryview, n: int, bits: int = PRECISION, position: int = 0) -> tuple[Stream, int]:
    """Find the stream of n symbols that begins at a position; also return the position after it. Raises BadFile."""
    expect(PRECISION <= bits <= WIDE_BITS, BadInput, "bits", bits, f"{PRECISION} to {WIDE_BITS}")
    raw, form = flat(data), NARROW if bits == PRECISION else WIDE
    head, position = read_varint(raw, position, "stream head")
    n_words, lanes = head >> 3, LANES[head & 3]
    expect(head & 4 == 0, BadFile, "stream head", head, "no escapes")
    expect(n_words <= n, BadFile, "words", n_words, f"at most {n}, as the symbols can need")
    middle = position + form.state.itemsize * lanes
    end = middle + form.word.itemsize * n_words
    expect(end <= len(raw), BadFile, "stream length", len(raw) - position, f"at least {end - position} bytes")
    states = np.frombuffer(raw[position:middle], form.state).astype(form.state.newbyteorder("="))
    low, high = int(states.min()), int(states.max())
    ok = low >= form.start and high < form.start << 8 * form.word.itemsize
    expect(ok, BadFile, "states", (low, high), f"{form.start} and more, below {form.start << 8 * form.word.itemsize}")
    words = np.zeros(n_words + 1, form.word.newbyteorder("="))
    words[:-1] = np.frombuffer(raw[middle:end], form.word)
    return Stream(states, words, form), end
