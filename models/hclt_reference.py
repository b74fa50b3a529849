"""Coding with a hidden Chow-Liu tree in plain words: the reference of the kernels in `hclt.py`, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from laconic.entropy import rans
from laconic.entropy.intervals import WIDE_BITS, open_stream, write_stream
from laconic.entropy.rans import START_WIDE
from laconic.models.hclt import (
    CDF_SHIFT,
    INVERSE_BITS,
    MESSAGE_BITS,
    PREDICTION_BITS,
    VALUES,
    WEIGHT_BITS,
    Hclt,
    first_places,
    unpacked,
)


class Reference:
    """Visits the tree once, depth-first, for n pictures at once. Messages are int64 [n, M], M a pixel's states.

    a[z]: weight of state z given all that was coded outside the subtree so far, and the part of the subtree that is
    done. up[z]: probability of what was coded in the subtree, given state z.
    """

    def __init__(self, model: Hclt, n: int, code: Callable[[int, NDArray[np.int64]], NDArray[np.int64]]) -> None:
        """Take a model.

        code: is called for each pixel in coding order with CDFs, int64 [n, 257] of 2**31; gives the values [n].
        """
        self.model, self.n, self.code = model, n, code
        self.pictures = np.zeros((n, model.n_pixels), np.int64)
        self.children = [np.flatnonzero(model.parent == v).tolist() for v in range(model.n_pixels)]
        self.read = 0  # integers of the transitions so far

    def run(self) -> NDArray[np.uint8]:
        """Code all pixels. Return the pictures, uint8 [n, H, W]."""
        (root,) = np.flatnonzero(self.model.parent == -1).tolist()
        self.visit(root, np.tile(self.model.initial.astype(np.int64), (self.n, 1)))
        return self.pictures.astype(np.uint8).reshape(self.n, self.model.height, self.model.width)

    def visit(self, v: int, a: NDArray[np.int64]) -> NDArray[np.int64]:
        """Code the subtree of inner pixel v, whose message from above is a.

        Return the message to above, before the transition.
        """
        states, up = self.model.states, np.ones_like(a)
        inner = [c for c in self.children[v] if states[c]]
        for pixel in [v, *(c for c in self.children[v] if not states[c])]:
            likelihood = self.emit(pixel, a)
            a, up = rescaled(a * likelihood), rescaled(up * likelihood)
        for c in inner:
            m, n = int(states[v]), int(states[c])
            transition = self.model.transitions[self.read : self.read + m * n].astype(np.int64).reshape(m, n)
            self.read += m * n
            message = rescaled(self.visit(c, rescaled(a @ transition)) @ transition.T)
            a, up = rescaled(a * message), rescaled(up * message)
        return up

    def emit(self, pixel: int, a: NDArray[np.int64]) -> NDArray[np.int64]:
        """Code a pixel of all pictures by its mixture.

        Return how likely each state makes its values, of 2**20, [n, M].
        """
        weights = (a * ((1 << INVERSE_BITS) // a.sum(1, keepdims=True))) >> (INVERSE_BITS - WEIGHT_BITS)
        weights[np.arange(self.n), a.argmax(1)] += (1 << WEIGHT_BITS) - weights.sum(1)
        rows = self.emissions(pixel)[self.contexts(pixel)]  # [n, 256, M]
        cdf = np.zeros((self.n, VALUES + 1), np.int64)
        cdf[:, 1:] = np.cumsum((rows @ weights[:, :, None])[:, :, 0], 1) >> CDF_SHIFT
        self.pictures[:, pixel] = self.code(pixel, cdf)
        return np.asarray(rows[np.arange(self.n), self.pictures[:, pixel]])

    def emissions(self, pixel: int) -> NDArray[np.int64]:
        """Return the emissions of a pixel, [contexts, 256, M]."""
        widths = self.model.states[self.model.owners].astype(np.int64)
        first = first_places(self.model.n_contexts.astype(np.int64) * VALUES * widths)
        flat = self.model.emissions[first[pixel] : first[pixel + 1]]
        return np.asarray(unpacked(flat).astype(np.int64).reshape(-1, VALUES, widths[pixel]))

    def contexts(self, pixel: int) -> NDArray[np.int64]:
        """Return the context of a pixel in each picture, [n]: how many thresholds its prediction reaches."""
        near, cuts = first_places(self.model.n_neighbours), first_places(self.model.n_contexts.astype(np.int64) - 1)
        part = slice(near[pixel], near[pixel + 1])
        seen = self.pictures[:, self.model.neighbours[part]]
        prediction = (seen @ self.model.weights[part].astype(np.int64)) >> PREDICTION_BITS
        thresholds = self.model.thresholds[cuts[pixel] : cuts[pixel + 1]].astype(np.int64)
        return np.asarray((prediction[:, None] >= thresholds).sum(1))


def rescaled(messages: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return messages [n, M], shifted so that the maximum of each row has 20 bits, and then at least 1."""
    shifts = np.array([int(top).bit_length() - MESSAGE_BITS for top in messages.max(1)])[:, None]
    shifted = np.where(shifts >= 0, messages >> np.maximum(shifts, 0), messages << np.maximum(-shifts, 0))
    return np.asarray(np.maximum(shifted, 1))


def encode_reference(model: Hclt, pictures: NDArray[np.uint8]) -> bytes:
    """Return what `Hclt.encode` returns."""
    rows, words = pictures.reshape(len(pictures), -1).astype(np.int64), list[int]()
    starts, freqs = list[int](), list[int]()

    def code(pixel: int, cdf: NDArray[np.int64]) -> NDArray[np.int64]:
        values, each = rows[:, pixel], np.arange(len(rows))
        starts.extend(cdf[each, values].tolist())
        freqs.extend((cdf[each, values + 1] - cdf[each, values]).tolist())
        return values

    Reference(model, len(pictures), code).run()
    x = START_WIDE
    for start, freq in zip(reversed(starts), reversed(freqs), strict=True):
        x = rans.push_wide(x, start, freq, WIDE_BITS, words)
    return write_stream(np.array([x], np.uint64), np.array(words[::-1], np.uint32))


def decode_reference(model: Hclt, data: bytes, n: int) -> NDArray[np.uint8]:
    """Return what `Hclt.decode` returns, for sound streams."""
    stream, _ = open_stream(data, n * model.n_pixels, WIDE_BITS)
    x, words = int(stream.states[0]), iter(stream.words[:-1].tolist())

    def code(pixel: int, cdf: NDArray[np.int64]) -> NDArray[np.int64]:
        nonlocal x
        values = np.zeros(n, np.int64)
        for b in range(n):
            value = int(np.searchsorted(cdf[b], x % (1 << WIDE_BITS), side="right")) - 1
            x = rans.pop_wide(x, int(cdf[b, value]), int(cdf[b, value + 1] - cdf[b, value]), WIDE_BITS)
            if x < START_WIDE:
                x = x << 32 | next(words)
            values[b] = value
        return values

    return Reference(model, n, code).run()
