"""A coder of one channel that stands in for the network in tests: an MDCT whose coefficients are rounded and deflated.

Its synthesis looks at three frames before a part and two after it, and adds noise by the number of the frame, as the
network's does.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from laconic.entropy.errors import BadFile, UnsupportedFile, expect

HOP, KEPT = 256, 240
BEFORE, AFTER = 3, 2
TAPS = np.array([0.01, -0.02, 0.02, 1.0, -0.02, 0.01])  # of frames -3 .. 2
n = np.arange(2 * HOP)
WINDOW = np.sin(np.pi * (n + 0.5) / (2 * HOP))
BASIS = np.cos(np.pi / HOP * (n[:, None] + 0.5 + HOP / 2) * (np.arange(HOP) + 0.5)) * WINDOW[:, None] * np.sqrt(2 / HOP)


@dataclass(frozen=True)
class Frames:
    """Holds rounded coefficients, int32 [T, KEPT]."""

    symbols: np.ndarray

    @classmethod
    def joined(cls, parts: list[Frames]) -> Frames:
        return cls(np.concatenate([part.symbols for part in parts]))

    def part(self, start: int, end: int) -> Frames:
        return Frames(self.symbols[start:end])


class PlainCoder:
    """Codes one channel with a step for each quality."""

    rate, hop = 16000, HOP
    before, after = BEFORE, AFTER

    def at(self, rate: int) -> PlainCoder:
        expect(rate == self.rate, UnsupportedFile, "core rate", rate, self.rate)
        return self

    def rate_for(self, sample_rate: int, quality: int) -> int:
        return self.rate

    def quality_at(self, bitrate: float) -> int:
        return round(100 * min(bitrate, 100))

    def analyse(self, x: np.ndarray) -> np.ndarray:
        assert x.dtype == np.float32 and len(x) % HOP == 0
        windows = np.lib.stride_tricks.sliding_window_view(x[HOP:-HOP], 2 * HOP)[::HOP]
        return (windows @ BASIS)[:, :KEPT]

    def searched(self, x: np.ndarray, targets: np.ndarray, quality: int, iterations: int) -> np.ndarray:
        return np.where(np.abs(targets) < step_of(quality) * (0.5 + 0.01 * iterations), 0, targets)  # a dead zone

    def cut(self, targets: np.ndarray, start: int, end: int) -> np.ndarray:
        return targets[start:end]

    def encode(self, targets: np.ndarray, quality: int) -> tuple[bytes, Frames]:
        symbols = np.clip(np.rint(targets / step_of(quality)), -32768, 32767).astype("<i2")
        return zlib.compress(symbols.T.tobytes(), 6), Frames(symbols.astype(np.int32))

    def decode(self, data: bytes, n: int, quality: int) -> Frames:
        try:
            raw = zlib.decompressobj().decompress(data, 2 * n * KEPT + 1)
        except zlib.error as error:
            raise BadFile(f"run: found damage ({error}), expected a zlib stream") from None
        expect(len(raw) == 2 * n * KEPT, BadFile, "run length", len(raw), 2 * n * KEPT)
        return Frames(np.frombuffer(raw, "<i2").reshape(KEPT, n).T.astype(np.int32))

    def synthesise(self, frames: Frames, quality: int, seed: int, first: int) -> np.ndarray:
        rows = np.pad(frames.symbols * step_of(quality), ((BEFORE, AFTER), (0, HOP - KEPT)))
        count = len(frames.symbols)
        filtered = sum(tap * rows[i : i + count] for i, tap in enumerate(TAPS))
        noise = [np.random.default_rng((seed, first + i)).normal(size=HOP) for i in range(count)]
        filtered = filtered + 0.01 * step_of(quality) * np.array(noise)
        pieces = filtered @ BASIS.T
        return (pieces[:-1, HOP:] + pieces[1:, :HOP]).ravel().astype(np.float32)


def step_of(quality: int) -> float:
    """The step of coefficients: from 0.3 down to 0.3 / 2**14."""
    return float(0.3 * 2 ** (-14 * quality / 10_000))
