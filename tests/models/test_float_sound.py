"""Float samples: every bit pattern comes back; integers in disguise are found; noise costs no more than stored."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile
from laconic.models import lossless_sound
from laconic.models.float_sound import as_bits, decode_segment, encode_segment

ODD = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 1e-30, 3e38, 1.0, -1.0]


def walk(n: int, channels: int = 2, seed: int = 0) -> NDArray[np.int64]:
    """Integers of 16 bits, some of them small."""
    steps = np.random.default_rng(seed).integers(-300, 301, (n, channels))
    return (np.cumsum(steps, 0) + 16_000) % 32_000 - 16_000


def comes_back(samples: NDArray[np.floating], effort: int = 1) -> bytes:
    data = encode_segment(samples, effort)
    back = decode_segment(data, *samples.shape, samples.dtype.itemsize * 8)
    assert back.dtype == samples.dtype and np.array_equal(as_bits(back), as_bits(samples))
    assert len(data) <= 1 + samples.nbytes
    return data


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 300),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.float32, np.float64]),
    scale=st.floats(1e-300, 1e300) | st.sampled_from([2.0**-15, 1 / 32767, 2.0**-149, 1.0]),
    blur=st.sampled_from([0.0, 1e-9, 0.3]),
    odd=st.lists(st.tuples(st.integers(0, 1199), st.sampled_from(ODD)), max_size=9),
    seed=st.integers(0, 99),
)
def test_what_went_in_comes_out(
    n: int, channels: int, dtype: type, scale: float, blur: float, odd: list[tuple[int, float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        samples = ((walk(n, channels, seed) + blur * rng.standard_normal((n, channels))) * scale).astype(dtype)
    for place, value in odd if samples.size else []:
        samples.flat[place % samples.size] = value
    comes_back(samples)


@settings(deadline=None, max_examples=30)
@given(raw=st.binary(max_size=800), dtype=st.sampled_from([np.float32, np.float64]))
def test_any_bits_come_back(raw: bytes, dtype: type) -> None:
    """Also NaNs with something in them."""
    comes_back(np.frombuffer(raw[: len(raw) // 8 * 8], dtype)[:, None])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "factors", [(2.0**-15, 2.0**-15), (1 / 32767, 1 / 32767), (0.7 * 2**-15, 0.123456789 * 2**-15)]
)
def test_scaled_integers_cost_what_the_integers_cost(dtype: type, factors: tuple[float, float]) -> None:
    """By any factor, another one in each channel; a few samples that are off it cost their bits."""
    integers = walk(4000)
    alone = len(lossless_sound.encode_segment(integers.astype(np.int32), 16, 1))
    samples = (integers * factors).astype(dtype)
    assert len(comes_back(samples)) <= alone + 40
    samples[::1000, 0], samples[7, 1] = -0.0, 1e30
    assert len(comes_back(samples)) <= alone + 400


def test_integers_of_24_bits_are_found() -> None:
    integers = walk(4000) * 256 + np.random.default_rng(0).integers(0, 256, (4000, 2))
    alone = len(lossless_sound.encode_segment(integers.astype(np.int32), 24, 1))
    for factor in (2.0**-23, 0.7 * 2**-23):
        assert len(comes_back((integers * factor).astype(np.float32))) <= alone + 40


def test_full_mantissas_cost_their_noise_alone() -> None:
    """24 bits of the loudest sample, predicted, and what is below."""
    samples = (np.sin(np.arange(8000) * 0.01)[:, None] * [0.9, 0.8]).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 2.0**-18, samples.shape)
    assert len(comes_back((samples + noise).astype(np.float32))) * 8 < 13 * samples.size


def test_silence_costs_nothing() -> None:
    """Below zero, a bit a sample."""
    silence = np.zeros((40_000, 2), np.float32)
    assert len(comes_back(silence)) < 400
    assert len(comes_back(-silence)) < 400 + silence.size // 8


@settings(deadline=None, max_examples=60)
@given(data=st.data(), blur=st.sampled_from([0.0, 0.3]))
def test_damage_is_an_error_or_other_samples(data: st.DataObject, blur: float) -> None:
    samples = ((walk(200) + blur * np.random.default_rng(0).random((200, 2))) / 32767).astype(np.float32)
    samples[7] = np.nan
    coded = bytearray(encode_segment(samples, 1))
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadFile):
        out = decode_segment(bytes(coded), 200, 2, 32)
        assert out.shape == (200, 2) and out.dtype == np.float32


@settings(deadline=None, max_examples=40)
@given(data=st.data(), blur=st.sampled_from([0.0, 0.3]))
def test_a_cut_or_longer_segment_is_an_error(data: st.DataObject, blur: float) -> None:
    coded = encode_segment(
        ((walk(200) + blur * np.random.default_rng(0).random((200, 2))) / 32767).astype(np.float32), 1
    )
    with pytest.raises(BadFile, match="found .*, expected"):
        decode_segment(coded[: data.draw(st.integers(0, len(coded) - 1))], 200, 2, 32)
    with pytest.raises(BadFile, match="found .*, expected"):
        decode_segment(coded + b"\0", 200, 2, 32)
