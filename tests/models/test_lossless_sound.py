"""Lossless sound: what went in comes out, whatever it is; easy sounds cost little, hard ones no more than stored."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laconic.entropy.errors import BadFile, BadInput
from laconic.entropy.threads import LOCAL, mapped
from laconic.models import lossless_sound
from laconic.models.lossless_sound import CHUNK, decode_segment, encode_segment, segment_length
from laconic.models.sound_arithmetic import LANES, solve, to_grid
from laconic.models.sound_presets import PRESETS
from laconic.models.sound_windows import gather

Samples = NDArray[np.int32]


def tones(n: int, channels: int, bits: int, seed: int = 1) -> Samples:
    """Integers like music: resonances struck by noise, a common one in all channels. The same on every machine."""
    state, out = seed, np.zeros((n, channels), np.int64)
    a = b = 0
    own = [(0, 0)] * channels
    peak = (1 << bits - 1) - 1
    for t in range(n):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        a, b = (15 * a >> 3) - (61 * b >> 6) + ((state >> 16) % 2001 - 1000), a
        for c in range(channels):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            x, y = own[c]
            own[c] = (3 * x >> 1) - (7 * y >> 3) + ((state >> 16) % 801 - 400), x
            out[t, c] = min(max((a + own[c][0]) * peak >> 16, -peak), peak)
    return out.astype(np.int32)


def kinds(n: int, channels: int, bits: int, kind: str, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if kind == "noise":
        return rng.integers(low, high, (n, channels), np.int64, endpoint=True).astype(np.int32)
    if kind == "extremes":
        return rng.choice(np.array([low, high], np.int32), (n, channels))
    if kind == "constant":
        return np.broadcast_to(rng.integers(low, high, channels, endpoint=True).astype(np.int32), (n, channels))
    if kind == "square":
        return np.where((np.arange(n) // 20 % 2)[:, None] > 0, high, low).repeat(channels, 1).astype(np.int32)
    if kind == "clicks":
        return np.where(rng.random((n, channels)) < 0.02, high, 0).astype(np.int32)
    return tones(n, channels, bits, seed)


KINDS = ("noise", "extremes", "constant", "square", "clicks", "tones")


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 200),
    channels=st.integers(1, 8),
    bits=st.sampled_from([8, 9, 16, 20, 24, 31, 32]),
    kind=st.sampled_from(KINDS),
    effort=st.sampled_from([1, 3, 6]),
    seed=st.integers(0, 99),
)
def test_what_went_in_comes_out(n: int, channels: int, bits: int, kind: str, effort: int, seed: int) -> None:
    samples = kinds(n, channels, bits, kind, seed)
    data = encode_segment(samples, bits, effort)
    assert len(data) <= 1 + samples.size * ((bits + 7) // 8)
    out = decode_segment(data, n, channels, bits)
    assert out.dtype == np.int32 and np.array_equal(out, samples)


@pytest.mark.parametrize("effort", sorted(PRESETS))
def test_every_effort_over_several_chunks(effort: int) -> None:
    samples = tones(5000 if effort < 8 else 2500, 2, 16)
    assert np.array_equal(decode_segment(encode_segment(samples, 16, effort), *samples.shape, 16), samples)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [16, 32])
def test_long_enough_to_learn(kind: str, bits: int) -> None:
    samples = kinds(6000, 2, bits, kind, 3)
    assert np.array_equal(decode_segment(encode_segment(samples, bits, 5), *samples.shape, bits), samples)


def test_silence_and_constants_cost_almost_nothing() -> None:
    for value in (0, 1, -12345):
        assert len(encode_segment(np.full((40_000, 2), value, np.int32), 16, 2)) < 400


def test_a_copy_of_a_channel_costs_almost_nothing() -> None:
    mono = tones(20_000, 1, 16)
    alone, both = (len(encode_segment(mono.repeat(c, 1), 16, 3)) for c in (1, 2))
    assert both < 1.02 * alone


def test_low_bits_that_are_always_0_cost_nothing() -> None:
    samples = tones(4000, 2, 16)
    assert len(encode_segment(samples << 8, 24, 3)) == len(encode_segment(samples, 16, 3))


def test_prediction_pays() -> None:
    """The resonances of `tones` are known; what is left is the noise that struck them, about 11 bits of it."""
    samples = tones(30_000, 1, 16)
    assert len(encode_segment(samples, 16, 5)) * 8 < 11 * samples.size


def test_bytes_are_the_same_everywhere() -> None:
    """Read, never written: another digest means that files of before can no longer be read."""
    samples = np.vstack([tones(3000, 2, 16, 5), np.zeros((300, 2), np.int32), tones(1500, 2, 16, 6)])
    digest = hashlib.sha256(b"".join(encode_segment(samples, 16, e) for e in (1, 6, 9))).hexdigest()
    assert digest == GOLDEN


def test_subnormal_numbers_are_never_met() -> None:
    """A thread that flushes them to zero, as some libraries make it do, writes the same bytes."""
    samples = np.vstack([tones(2000, 2, 16), np.zeros((60_000, 2), np.int32), tones(2000, 2, 16)])
    samples[10_000:50_000, 1] = tones(40_000, 1, 16)[:, 0]
    expected = encode_segment(samples, 16, 5)
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine cannot flush subnormal numbers")
    try:
        assert encode_segment(samples, 16, 5) == expected
    finally:
        torch.set_flush_denormal(False)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_is_an_error_or_other_samples(data: st.DataObject) -> None:
    """The samples' own checksum stands elsewhere; here nothing crashes, hangs or leaves the range."""
    coded = bytearray(encode_segment(tones(400, 2, 16), 16, 4))
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadFile):
        out = decode_segment(bytes(coded), 400, 2, 16)
        assert out.shape == (400, 2) and -(1 << 15) <= out.min() and out.max() < 1 << 15


@settings(deadline=None)
@given(data=st.data())
def test_a_cut_or_longer_segment_is_an_error(data: st.DataObject) -> None:
    coded = encode_segment(tones(300, 2, 16), 16, 4)
    with pytest.raises(BadFile, match="found .*, expected"):
        decode_segment(coded[: data.draw(st.integers(0, len(coded) - 1))], 300, 2, 16)
    with pytest.raises(BadFile, match="found .*, expected"):
        decode_segment(coded + b"\0", 300, 2, 16)


def test_decoding_stops_once_the_words_have_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the header says that a segment is: 2**22 samples out of some hundred bytes would take minutes."""
    coded, begun, run = encode_segment(tones(200, 2, 16), 16, 1), list[int](), lossless_sound.run

    def counting(samples: Samples, begin: int, *rest: object) -> None:
        begun.append(begin)
        run(samples, begin, *rest)

    monkeypatch.setattr(lossless_sound, "run", counting)
    with pytest.raises(BadFile, match="words of a segment: found .*, expected more"):
        decode_segment(coded, 1 << 22, 2, 16)
    assert begun == [0]
    silence = np.zeros((3 * CHUNK, 1), np.int32)
    assert np.array_equal(decode_segment(encode_segment(silence, 16, 1), len(silence), 1, 16), silence)
    assert begun[1:] == 2 * [0, CHUNK, 2 * CHUNK]


@pytest.mark.parametrize("coding", [True, False])
def test_a_segment_that_nobody_waits_for_is_given_up(coding: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = np.zeros((5 * CHUNK, 1), np.int32)
    data, calls, begun = encode_segment(silence, 16, 1), list[int](), threading.Event()

    def waiting(samples: Samples, begin: int, *rest: object) -> None:
        calls.append(begin)
        begun.set()
        assert LOCAL.over.wait(10)

    def work(i: int) -> object:
        return encode_segment(silence, 16, 1) if coding else decode_segment(data, len(silence), 1, 16)

    monkeypatch.setattr(lossless_sound, "run", waiting)
    results = mapped(lambda i: work(i) if i else begun.wait(10), range(2), 2)
    assert next(results) is True
    results.close()  # type: ignore[attr-defined]
    assert calls == [0]


@pytest.mark.parametrize("place, value", [(0, 10), (1, 2), (1, 1), (2, 2), (3, 16)])
def test_impossible_layouts_are_refused(place: int, value: int) -> None:
    coded = bytearray(encode_segment(tones(300, 2, 16), 16, 4))
    coded[place] = value if coded[place] != value else 0
    with pytest.raises(BadFile, match="found .*, expected"):
        decode_segment(bytes(coded), 300, 2, 16)


def test_wrong_calls_are_refused() -> None:
    quiet = np.zeros((10, 2), np.int32)
    for samples, bits, effort in (
        (quiet, 7, 5),
        (quiet, 33, 5),
        (quiet, 16, 0),
        (quiet, 16, 10),
        (quiet + 40_000, 16, 5),
        (np.zeros((10, 9), np.int32), 16, 5),
    ):
        with pytest.raises(BadInput, match="found .*, expected"):
            encode_segment(samples, bits, effort)


def test_segments_are_bounded() -> None:
    assert segment_length(44_100) == 441_000
    assert segment_length(192_000) == 1 << 20


@numba.njit
def compiled_grid(p, limit):  # type: ignore[no-untyped-def]
    return to_grid(p, limit)


def test_predictions_are_kept_in_range_whatever_they_are() -> None:
    for p, expected in ((np.nan, -100.0), (np.inf, 99.0), (-np.inf, -100.0), (1e30, 99.0), (2 + 1 / 300, 2 + 1 / 256)):
        assert compiled_grid(p, 100.0) == expected


def test_solutions_solve() -> None:
    rng = np.random.default_rng(0)
    for n in (8, 24, 48):
        x = rng.standard_normal((3 * n, n))
        matrix, w = x.T @ x, rng.standard_normal(n)
        vector = matrix @ w
        assert solve(matrix.ravel().copy(), vector, np.zeros(n + LANES), np.uint64(n))
        assert np.allclose(vector, w)
        assert not solve(-matrix.ravel(), vector, np.zeros(n + LANES), np.uint64(n))
        assert not solve(np.full(n * n, np.nan), vector, np.zeros(n + LANES), np.uint64(n))


def test_gathered_rows_are_the_covariances() -> None:
    own, other, n, slots, keep, until = 16, 8, 24, 16, 0.99, 300
    rng = np.random.default_rng(0)
    signals = np.zeros((2, until + own))
    signals[:, own:] = rng.integers(-99, 99, (2, until))
    rows, direct = np.zeros((slots, 2, n)), np.zeros((n, n))
    for t in range(until):
        a, b = (signals[k, own + t - np.arange((own, other)[k])] for k in range(2))
        features = np.concatenate([a, b])
        rows[t % slots] = keep * rows[(t - 1) % slots] + np.outer([a[0], b[0]], features)
        direct = keep * direct + np.outer(features, features)
    matrix = np.zeros(n * n)
    gather(matrix, rows.ravel(), *(np.uint64(v) for v in (0, own, other, until - 1, slots)))
    upper = np.triu_indices(n, 1)
    assert np.allclose(matrix.reshape(n, n)[upper], direct[upper])


def test_presets_have_whole_vectors() -> None:
    for preset in PRESETS.values():
        sizes = [(one.own, one.other) for one in preset.least_squares]
        sizes += [size for one in preset.cascades for size in one.filters]
        assert all(own % LANES == other % LANES == 0 and other <= own for own, other in sizes)


GOLDEN = "da7acd2cea0b03eca7f983ee02acd7cc6a85d447249655719354870bc322ca0c"
