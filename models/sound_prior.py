"""The prior of lossy sound in integers: symbols of frames to bytes and back, the same on every machine (FORMAT.md,
"Frames").

    frames before ─► context ─► mean, row of the envelope ─► envelope symbols ─► mean, row of the shape ─► shape symbols

`IntegerPrior` rounds what `sound.Prior` trained. Activations have 8 fractional bits, weights 10, sums 18; sums are held
in int32, which a bound proves to be wide enough when a model is loaded. A symbol is what is left of a number in steps
when its mean, a multiple of 1/16, is taken away; its row in the stored tables is the nearest scale. Symbols beyond a
row's radius are not written: the encoder takes the nearest, and the next frames make up for it. The levels of what is
above the network's band follow the frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, expect
from laconic.entropy.intervals import encode_intervals, open_stream
from laconic.entropy.pmf import PRECISION
from laconic.entropy.rans_numba import I64, U32, U64, pop
from laconic.models.exact import interpolate
from laconic.models.sound import N_ROWS, RECENT, ROWS_PER_OCTAVE, Sound
from laconic.models.sound_high import EDGES, FRAMES_PER_LEVEL, LEAST_LEVEL, LEVEL_START, MOST_LEVEL

ACTIVATION_BITS, WEIGHT_BITS = 8, 10
SUM_BITS = ACTIVATION_BITS + WEIGHT_BITS
MEAN_BITS = 4  # fractional bits of means, and so of numbers in steps
GAIN_BITS = 16
GAINS_PER_OCTAVE = 64
ROW_BITS = SUM_BITS - ROWS_PER_OCTAVE.bit_length() + 1  # of a sum, below a row
LEAST_SCALE = -801_871  # log2(0.12), of the first row, with 18 fractional bits
HIDDEN_MAX = (1 << 13) - 1  # of activations
COMPONENT_MAX = (1 << 13) - 1  # 32 octaves
FEATURE_SPAN = 1 << 10  # numbers in steps have features up to 64
QUALITY_UNITS = 10_000
SUM_LIMIT = 1 << 31
FIRST_LEVEL_ROW, LEVEL_ROW = 28, 22  # of the tables: for the lowest band above the network's, for the others
I32 = np.int32

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """Holds frames as decoded.

    components: of the envelope, in 1/256 octave, int32 [T, E]. shape: in 1/16 steps, int32 [T, K]. levels: of the bands
    above the network's, log2 of power, int32 [T, B].
    """

    components: Ints
    shape: Ints
    levels: Ints

    @classmethod
    def joined(cls, parts: list[Frames]) -> Frames:
        """Return frames in a row."""
        arrays = zip(*((p.components, p.shape, p.levels) for p in parts), strict=True)
        return cls(*map(np.concatenate, arrays))

    def part(self, start: int, end: int) -> Frames:
        """Return the frames from start up to end."""
        return Frames(self.components[start:end], self.shape[start:end], self.levels[start:end])


class Layers(NamedTuple):
    """Holds the integer layers: weights int16 [in, out] with 10 fractional bits, biases int32 with 18."""

    enter: Any
    enter_bias: Any
    middle: Any
    middle_bias: Any
    to_envelope: Any
    to_envelope_bias: Any
    shape_enter: Any
    shape_enter_bias: Any
    shape_middle: Any
    shape_middle_bias: Any
    to_shape: Any
    to_shape_bias: Any
    rho: Any  # int32 [E], 10 fractional bits
    level: Any  # int16 [E, K]: how the components move the rows of the shape
    tanh: Any  # int32 [FEATURE_SPAN], of numbers in 1/16 steps
    log: Any
    starts: Any  # int32: where the intervals of each row begin; 2 * radius + 2 a row
    offsets: Any  # int64 [N_ROWS]
    radii: Any  # int32 [N_ROWS]


class Settings(NamedTuple):
    """Holds what depends on the quality.

    quality: the activation. gain, inverse: int64 [E], 2**16 is 1. envelope_row, shape_row: int32 [E], [K], what the rows
    begin with, 18 fractional bits of an octave.
    """

    quality: Any
    gain: Any
    inverse: Any
    envelope_row: Any
    shape_row: Any


class Room(NamedTuple):
    """Holds where a run of frames is computed. before: int32, what the net sees of frames before, and the quality."""

    before: Any
    first: Any
    context: Any
    inputs: Any
    hidden: Any
    last: Any
    envelope_sums: Any
    shape_sums: Any
    mean: Any
    row: Any
    steps: Any
    known: Any  # levels of the bands above, as they were last


class IntegerPrior:
    """Codes runs of frames. Made once from a model; raises ValueError where its sums could leave int32."""

    def __init__(self, model: Sound) -> None:
        c, p = model.config, model.prior
        self.bands, self.bins, self.hidden = c.bands, c.coded_bins, c.prior_channels
        weights = {}
        for name in ("enter", "middle", "to_envelope", "shape_enter", "shape_middle", "to_shape"):
            layer = getattr(p, name)
            weights[name] = integers(layer.weight.T, WEIGHT_BITS, np.int16)
            weights[f"{name}_bias"] = integers(layer.bias, SUM_BITS, np.int32)
        starts, radii = model.table_starts.cpu().numpy(), model.table_radii.cpu().numpy()
        check_tables(starts, radii)
        self.layers = Layers(
            **weights,
            rho=integers(p.rho, WEIGHT_BITS, np.int32),
            level=model.level_weights.cpu().numpy(),
            tanh=features(np.tanh(np.arange(FEATURE_SPAN) / 32)),
            log=features(np.log1p(np.arange(FEATURE_SPAN) / 16)),
            starts=starts,
            offsets=np.cumsum(2 * radii.astype(np.int64) + 2) - 2 * radii - 2,
            radii=radii,
        )
        self.envelope_row = integers(p.envelope_scale, SUM_BITS, np.int64) - LEAST_SCALE
        self.shape_row = integers(p.shape_scale, SUM_BITS, np.int64) + model.level_offset.cpu().numpy() - LEAST_SCALE
        self.gains = tuple(integers(table, GAIN_BITS, np.int64) for table in (model.envelope_gain, model.shape_gain))
        self.prove()

    def prove(self) -> None:
        """Raise ValueError unless every sum stays in int32."""
        e, k = self.bands, self.bins
        features_of_shape = np.repeat((self.layers.tanh.max(), self.layers.log.max()), k)
        before = np.concatenate([np.full(RECENT * e, COMPONENT_MAX), np.tile(features_of_shape, 2), [1 << ACTIVATION_BITS]])
        hidden = np.full(self.hidden, HIDDEN_MAX)
        inputs = np.concatenate([hidden, np.full(e, COMPONENT_MAX), [1 << ACTIVATION_BITS]])
        reach = {"enter": before, "middle": hidden, "to_envelope": hidden}
        reach |= {"shape_enter": inputs, "shape_middle": hidden, "to_shape": hidden}
        extra = {  # what is added to the sums of heads before they are rows or means
            "to_envelope": np.concatenate([np.abs(self.layers.rho.astype(np.int64)) * COMPONENT_MAX, self._most(0)]),
            "to_shape": np.concatenate([np.zeros(k), self._most(1) + np.abs(self.layers.level.astype(np.int64)).sum(0) * COMPONENT_MAX]),
        }
        for name, most in reach.items():
            weight, bias = (getattr(self.layers, part).astype(np.int64) for part in (name, f"{name}_bias"))
            largest = int((most @ np.abs(weight) + np.abs(bias) + extra.get(name, 0)).max())
            if largest >= SUM_LIMIT:
                raise ValueError(f"prior.{name}: found a sum of {largest}, expected less than {SUM_LIMIT}")

    def _most(self, which: int) -> NDArray[np.int64]:
        row = (self.envelope_row, self.shape_row)[which]
        return np.asarray(np.abs(row) + (np.abs(self.gains[which]).max(0) << SUM_BITS - GAIN_BITS))

    def gain(self, which: int, quality: int) -> NDArray[np.int64]:
        """Return log2 gains of the envelope (0) or the shape (1) at a quality x 100, in 1/64 octave."""
        import torch

        anchors = torch.from_numpy(self.gains[which])
        exact = interpolate(anchors, quality * (len(anchors) - 1), QUALITY_UNITS).numpy()
        return np.asarray(exact + (1 << GAIN_BITS - 7) >> GAIN_BITS - 6)

    def settings(self, quality: int) -> Settings:
        """Return what depends on a quality x 100."""
        envelope, shape = self.gain(0, quality), self.gain(1, quality)
        to_sum = SUM_BITS - 6
        return Settings(
            quality=I32(((quality << ACTIVATION_BITS) + QUALITY_UNITS // 2) // QUALITY_UNITS),
            gain=powers_of_two(envelope),
            inverse=powers_of_two(-envelope),
            envelope_row=(self.envelope_row + (envelope << to_sum)).astype(np.int32),
            shape_row=(self.shape_row + (shape << to_sum)).astype(np.int32),
        )

    def encode(
        self, envelope: Floats, shape: Floats, quality: int, room: Room | None = None, levels: Ints | None = None
    ) -> tuple[bytes, Frames]:
        """Code a run of frames: float32 [T, E] and [T, K] in steps of the quality. Also return it as decoded.

        room: goes on from the run that it was given to before; without one the run parses alone. levels: of the bands
        above, int32 [ceil(T / 2), B].
        """
        room = room or self.room()
        frames, rows = self._nothing(len(envelope), 0 if levels is None else levels.shape[1])
        n = frames.components.size + frames.shape.size + rows.size
        starts, freqs = np.empty(n, np.int32), np.empty(n, np.int32)
        settings = self.settings(quality)
        target = (rows if levels is None else levels).astype(np.float32)
        at = push_frames(self.layers, settings, room, envelope, shape, frames.components, frames.shape, starts, freqs)
        push_levels(self.layers, room, target, rows, starts, freqs, at)
        return encode_intervals(starts, freqs), with_levels(frames, rows)

    def decode(self, data: bytes, n: int, quality: int, room: Room | None = None, bands: int = 0) -> Frames:
        """Return the n frames of a run. room: as it was coded. bands: above the network's. Raises BadFile."""
        frames, rows = self._nothing(n, bands)
        stream, end = open_stream(data, frames.components.size + frames.shape.size + rows.size)
        expect(end == len(data), BadFile, "bytes after a run of frames", len(data) - end, 0)
        expect(len(stream.states) == 1, BadFile, "lanes", len(stream.states), 1)
        room = room or self.room()
        parts = frames.components, frames.shape, stream.states, stream.words
        cursor = pop_frames(self.layers, self.settings(quality), room, *parts)
        cursor = pop_levels(self.layers, room, rows, stream.states, stream.words, cursor)
        stream.finish(cursor)
        return with_levels(frames, rows)

    def _nothing(self, n: int, bands: int) -> tuple[Frames, Ints]:
        """Return n empty frames, and room for their levels."""
        sizes = ((n, self.bands), (n, self.bins), (n, 0), (-(-n // FRAMES_PER_LEVEL), bands))
        components, shape, none, rows = (np.zeros(size, np.int32) for size in sizes)
        return Frames(components, shape, none), rows

    def room(self) -> Room:
        """Return the state before the first frame: nothing was before."""
        e, k, h = self.bands, self.bins, self.hidden
        sizes = {"before": RECENT * e + 4 * k + 1, "first": h, "context": h, "inputs": h + e + 1, "hidden": h, "last": h}
        sizes |= {"envelope_sums": 2 * e, "shape_sums": 2 * k, "mean": k, "row": k, "steps": k}
        known = np.full(len(EDGES) - 1, LEVEL_START, np.int32)
        return Room(**{name: np.zeros(size, np.int32) for name, size in sizes.items()}, known=known)


def with_levels(frames: Frames, rows: Ints) -> Frames:
    """Return frames with levels int32 [ceil(T / 2), B], each of which holds for two frames."""
    levels = np.repeat(rows, FRAMES_PER_LEVEL, axis=0)[: len(frames.components)]
    return Frames(frames.components, frames.shape, levels)


@numba.njit(cache=True, nogil=True)
def push_frames(layers, settings, room, envelope, shape, components, steps, starts, freqs):  # type: ignore[no-untyped-def]
    """Choose the symbols of all frames, and note the interval of each."""
    at = 0
    for t in range(envelope.shape[0]):
        predict_envelope(layers, settings, room)
        at = push_part(layers, room, envelope[t], starts, freqs, at)
        to_components(settings, room, components[t])
        predict_shape(layers, settings, room, components[t])
        at = push_part(layers, room, shape[t], starts, freqs, at)
        steps[t] = room.steps[: steps.shape[1]]
        remember(layers, room, components[t], steps[t])
    return at


@numba.njit(cache=True, nogil=True)
def push_levels(layers, room, target, levels, starts, freqs, at):  # type: ignore[no-untyped-def]
    """Choose the symbols of all levels, and note their intervals; `levels` are as decoded."""
    for i in range(levels.shape[0]):
        change = I32(0)
        for band in range(levels.shape[1]):
            predict_level(room, band, change)
            at = push_part(layers, room, target[i, band : band + 1], starts, freqs, at)
            change = keep_level(room, band, levels[i])


@numba.njit(cache=True, nogil=True)
def push_part(layers, room, target, starts, freqs, at):  # type: ignore[no-untyped-def]
    """Choose symbols nearest to the targets, float32 in steps; return the number of intervals so far."""
    for i in range(target.size):
        row = room.row[i]
        radius = layers.radii[row]
        left = np.floor(target[i] - room.mean[i] / 16 + 0.5)
        symbol = I32(max(-radius, min(radius, left)))
        entry = layers.offsets[row] + symbol + radius
        starts[at] = layers.starts[entry]
        freqs[at] = layers.starts[entry + 1] - layers.starts[entry]
        room.steps[i] = symbol * 16 + room.mean[i]
        at += 1
    return at


@numba.njit(cache=True, nogil=True)
def pop_frames(layers, settings, room, components, steps, states, words):  # type: ignore[no-untyped-def]
    """Decode all frames; return how many words were read."""
    x, cursor = states[0], U64(0)
    for t in range(components.shape[0]):
        predict_envelope(layers, settings, room)
        x, cursor = pop_part(layers, room, components.shape[1], x, words, cursor)
        to_components(settings, room, components[t])
        predict_shape(layers, settings, room, components[t])
        x, cursor = pop_part(layers, room, steps.shape[1], x, words, cursor)
        steps[t] = room.steps[: steps.shape[1]]
        remember(layers, room, components[t], steps[t])
    states[0] = x
    return cursor


@numba.njit(cache=True, nogil=True)
def pop_levels(layers, room, levels, states, words, cursor):  # type: ignore[no-untyped-def]
    """Decode all levels; return how many words were read."""
    x, cursor = states[0], U64(cursor)
    for i in range(levels.shape[0]):
        change = I32(0)
        for band in range(levels.shape[1]):
            predict_level(room, band, change)
            x, cursor = pop_part(layers, room, 1, x, words, cursor)
            change = keep_level(room, band, levels[i])
    states[0] = x
    return cursor


@numba.njit(cache=True, nogil=True)
def pop_part(layers, room, n, x, words, cursor):  # type: ignore[no-untyped-def]
    """Take n symbols out of the state, each found by bisection of its row."""
    for i in range(n):
        row = room.row[i]
        radius = layers.radii[row]
        low = layers.offsets[row]
        high = low + 2 * radius + 1
        slot = I64(x & U32((1 << PRECISION) - 1))
        first = low
        while high - low > 1:
            middle = (low + high) >> 1
            if layers.starts[middle] <= slot:
                low = middle
            else:
                high = middle
        start = layers.starts[low]
        x, cursor = pop(x, U32(start), U32(layers.starts[low + 1] - start), words, cursor)
        room.steps[i] = I32(low - first - radius) * 16 + room.mean[i]
    return x, cursor


@numba.njit(cache=True, nogil=True)
def predict_envelope(layers, settings, room):  # type: ignore[no-untyped-def]
    """Compute means, in 1/16 steps, and rows of the envelope from the frames before."""
    e = settings.gain.size
    room.before[room.before.size - 1] = settings.quality
    dense(layers.enter, layers.enter_bias, room.before, room.first)
    rectify(room.first)
    dense(layers.middle, layers.middle_bias, room.first, room.context)
    rectify(room.context)
    dense(layers.to_envelope, layers.to_envelope_bias, room.context, room.envelope_sums)
    for i in range(e):
        mean = I64(room.envelope_sums[i] + room.before[i] * layers.rho[i])
        room.mean[i] = I32((mean * settings.gain[i] + (1 << 29)) >> 30)
        room.row[i] = row_of(I32(room.envelope_sums[e + i] + settings.envelope_row[i]))


@numba.njit(cache=True, nogil=True)
def to_components(settings, room, components):  # type: ignore[no-untyped-def]
    """Take the gain out of the envelope's steps: int32 [E] in 1/256 octave."""
    for i in range(components.size):
        value = (room.steps[i] * settings.inverse[i] + (1 << 11)) >> 12
        components[i] = I32(max(-COMPONENT_MAX, min(COMPONENT_MAX, value)))


@numba.njit(cache=True, nogil=True)
def predict_shape(layers, settings, room, components):  # type: ignore[no-untyped-def]
    """Compute means and rows of the shape from the context and this frame's envelope."""
    h, e, k = room.context.size, components.size, settings.shape_row.size
    room.inputs[:h] = room.context
    room.inputs[h : h + e] = components
    room.inputs[h + e] = settings.quality
    dense(layers.shape_enter, layers.shape_enter_bias, room.inputs, room.hidden)
    rectify(room.hidden)
    dense(layers.shape_middle, layers.shape_middle_bias, room.hidden, room.last)
    rectify(room.last)
    dense(layers.to_shape, layers.to_shape_bias, room.last, room.shape_sums)
    dense(layers.level, settings.shape_row, components, room.row)
    for i in range(k):
        room.mean[i] = (room.shape_sums[i] + (1 << 13)) >> 14
        room.row[i] = row_of(I32(room.shape_sums[k + i] + room.row[i]))


@numba.njit(cache=True, nogil=True)
def predict_level(room, band, change):  # type: ignore[no-untyped-def]
    """Set mean and row of a band's level: it moves by two thirds of how the band below moved, about."""
    size = abs(change)
    move = (2 * size + 1) // 3
    room.mean[0] = I32(16 * (room.known[band] + (move if change > 0 else -move)))
    room.row[0] = I32(FIRST_LEVEL_ROW if band == 0 else LEVEL_ROW + 3 * min(size, 5))


@numba.njit(cache=True, nogil=True)
def keep_level(room, band, levels):  # type: ignore[no-untyped-def]
    """Store the level that was coded; return how it moved."""
    level = I32(min(max(room.steps[0] >> 4, LEAST_LEVEL), MOST_LEVEL))
    change = level - room.known[band]
    room.known[band] = levels[band] = level
    return I32(change)


@numba.njit(cache=True, nogil=True)
def remember(layers, room, components, steps):  # type: ignore[no-untyped-def]
    """Move what the net sees of the past on by a frame."""
    e, k, before = components.size, steps.size, room.before
    for i in range(RECENT * e - 1, e - 1, -1):
        before[i] = before[i - e]
    before[:e] = components
    at = RECENT * e
    for i in range(2 * k):
        before[at + 2 * k + i] = before[at + i]
    for i in range(k):
        size = min(abs(steps[i]), FEATURE_SPAN - 1)
        before[at + i] = layers.tanh[size] if steps[i] >= 0 else -layers.tanh[size]
        before[at + k + i] = layers.log[size]


@numba.njit(cache=True, nogil=True)
def dense(weight, bias, x, out):  # type: ignore[no-untyped-def]
    """Compute out = x weight + bias in int32. Many inputs are 0, and so are their products."""
    n = U64(out.size)
    for o in range(n):
        out[o] = bias[o]
    for i in range(U64(x.size)):
        factor, row = x[i], weight[i]
        if factor != 0:
            for o in range(n):
                out[o] = I32(out[o] + I32(I32(row[o]) * factor))


@numba.njit(cache=True, nogil=True)
def rectify(x):  # type: ignore[no-untyped-def]
    """Turn sums into activations 0 .. HIDDEN_MAX."""
    for i in range(x.size):
        x[i] = min(max(x[i], 0) >> WEIGHT_BITS, HIDDEN_MAX)


@numba.njit(cache=True, nogil=True)
def row_of(octaves):  # type: ignore[no-untyped-def]
    """Return the row nearest to a scale, given in octaves above the least one with 18 fractional bits."""
    return min(max((octaves + (1 << ROW_BITS - 1)) >> ROW_BITS, 0), N_ROWS - 1)


def integers(values: Any, bits: int, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    """Round a tensor to integers with so many fractional bits. Raises ValueError where they do not fit the type."""
    scaled = np.rint(values.detach().double().cpu().numpy() * (1 << bits))
    limit = np.iinfo(dtype)
    if not (np.isfinite(scaled).all() and limit.min <= scaled.min() and scaled.max() <= limit.max):
        raise ValueError(f"weights: found {scaled.min():g} to {scaled.max():g}, expected to fit {np.dtype(dtype)}")
    return np.ascontiguousarray(scaled.astype(dtype))


def features(values: NDArray[np.float64]) -> Ints:
    """Round features to activations; a test shows that none lies so near a half that libraries could differ."""
    return np.asarray(np.rint(values * (1 << ACTIVATION_BITS)), np.int32)


def powers_of_two(exponents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 2**(exponent / 64) with 16 fractional bits, from exact roots, rounded down."""
    octaves, parts = np.divmod(exponents, GAINS_PER_OCTAVE)
    mantissas = FRACTIONS[parts] << 16
    return np.asarray(np.maximum(mantissas >> np.clip(16 - octaves, 0, 63), 1))


def fractions() -> NDArray[np.int64]:
    """Return 2**(i / 64) with 16 fractional bits: six square roots, each rounded down, of a power of two."""
    found = []
    for i in range(GAINS_PER_OCTAVE):
        value = 1 << i + GAINS_PER_OCTAVE * GAIN_BITS
        for _ in range(6):
            value = math.isqrt(value)
        found.append(value)
    return np.array(found, np.int64)


FRACTIONS = fractions()


def check_tables(starts: Ints, radii: Ints) -> None:
    """Raise ValueError unless every row of the tables divides 2**15 into intervals, none of them empty."""
    ok = radii.shape == (N_ROWS,) and bool((radii >= 0).all()) and len(starts) == int((2 * radii.astype(np.int64) + 2).sum())
    rows = np.split(starts, np.cumsum(2 * radii + 2)[:-1]) if ok else []
    if not ok or any(row[0] != 0 or row[-1] != 1 << PRECISION or (np.diff(row) < 1).any() for row in rows):
        raise ValueError("tables: found rows that are no cumulative frequencies, expected 81 from 0 to 2**15")
