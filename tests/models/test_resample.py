"""Resampling: sines pass or are stopped, nothing is delayed, and any part is that part of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.models.resample import Resampler

RATES = [1000, 8000, 11025, 16000, 22050, 44100, 44101, 48000, 96000, 192000]


def resampled(x: np.ndarray, rate_in: int, rate_out: int, first: int = 0, end: int | None = None) -> np.ndarray:
    """The outputs of a range of a sound, zeros outside of it."""
    resampler = Resampler(rate_in, rate_out)
    end = -(-len(x) * rate_out // rate_in) if end is None else end
    low, high = resampler.needed(first, end)
    padded = np.pad(x, (max(0, -low), max(0, high - len(x))))
    return resampler.apply(padded[low + max(0, -low) : high + max(0, -low)].astype(np.float32), first, end)


def sine(frequency: float, rate: int, n: int) -> np.ndarray:
    """A sine in a window that keeps it clear of the ends."""
    return np.sin(2 * np.pi * frequency * np.arange(n) / rate + 0.3) * np.hanning(n)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("to_core", [True, False])
def test_a_sine_passes_where_it_was(rate: int, to_core: bool) -> None:
    a, b = (rate, 16000) if to_core else (16000, rate)
    for share in (0.01, 0.4, 0.92):
        frequency = share * min(a, b) / 2
        seconds = 4096 / min(a, b)
        found = resampled(sine(frequency, a, round(seconds * a)), a, b)
        # The same window at the other rate: of one length in seconds.
        times = np.arange(len(found)) / b
        expected = np.sin(2 * np.pi * frequency * times + 0.3) * (0.5 - 0.5 * np.cos(2 * np.pi * times * a / (round(seconds * a) - 1)))
        inside = slice(len(found) // 10, -len(found) // 10)
        assert np.abs(found - expected)[inside].max() < 10 ** (-80 / 20)


@pytest.mark.parametrize("rate", [22050, 44100, 44101, 48000, 192000])
def test_what_the_lower_rate_cannot_hold_is_stopped(rate: int) -> None:
    for frequency in (8001, 8500, min(0.49 * rate, 20000)):
        found = resampled(sine(frequency, rate, rate // 4), rate, 16000)
        assert np.abs(found).max() < 10 ** (-90 / 20)


def test_equal_rates_change_nothing() -> None:
    x = np.arange(9, dtype=np.float32)
    assert Resampler(16000, 16000).reach == 0 and np.array_equal(resampled(x, 16000, 16000), x)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(RATES), st.booleans(), st.integers(0, 3000), st.integers(0, 300))
def test_a_part_is_that_part(rate: int, to_core: bool, first: int, n: int) -> None:
    a, b = (rate, 16000) if to_core else (16000, rate)
    x = np.random.default_rng(0).normal(size=600)
    whole = resampled(x, a, b, 0, 3300)
    assert np.array_equal(resampled(x, a, b, first, first + n), whole[first : first + n])


@pytest.mark.parametrize("rate", RATES)
def test_a_constant_stays_one(rate: int) -> None:
    n = 20 * rate // 100 + 2000
    found = resampled(np.ones(n), rate, 16000)
    assert np.abs(found[len(found) // 2] - 1) < 1e-6 and len(found) == -(-n * 16000 // rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_as_scipy_does(rate: int) -> None:
    """Speech-like noise below 6 kHz, by another filter with the same promise."""
    signal = pytest.importorskip("scipy.signal")
    x = signal.sosfilt(signal.butter(12, min(6000, 0.35 * rate), fs=rate, output="sos"), np.random.default_rng(1).normal(size=rate // 4))
    theirs = signal.resample_poly(x, 16000, rate, window=("kaiser", 10.0))
    ours = resampled(x, rate, 16000)
    inside = slice(400, -400)
    error = (ours[: len(theirs)] - theirs[: len(ours)])[inside]
    assert np.sqrt(np.mean(error**2) / np.mean(theirs[inside] ** 2)) < 0.03
