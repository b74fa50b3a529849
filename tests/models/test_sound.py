"""Lossy sound: the transform is exact, parts equal the whole, and files hold what a second decoder reads."""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.entropy.errors import BadFile
from laconic.models import sound_prior
from laconic.models.sound import (
    BINS,
    FRAME_RATE,
    RATE_WEIGHTS,
    Sound,
    SoundConfig,
    inverse_mdct,
    logistic_bits,
    mdct,
    mdct_matrix,
)
from laconic.models.sound_coder import SoundCoder, Synthesiser, Targets, noise_of
from laconic.models.sound_distance import Distance
from laconic.models.sound_high import CORE_RATES, EDGES, Core, core_rate, levels_of, signs_of
from laconic.models.sound_prior import IntegerPrior, check_tables
from laconic.models.sound_search import PESQ_WEIGHT

plain = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "plain_frames.py")))
HOP = BINS
SMALL = SoundConfig(
    bands=6, coded_bins=20, channels=12, hidden_channels=24, blocks=2, kernel=5, look_ahead=1, prior_channels=16
)


def tones(n: int, seed: int = 1) -> np.ndarray:
    """float32 [n]: two tones that swell, and noise."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    swell = 0.1 + np.sin(t / 3000) ** 2
    return ((np.sin(t / 9) + np.sin(t / 4)) * swell * 0.05 + rng.normal(0, 0.003, n)).astype(np.float32)


def small_model(seed: int = 1) -> Sound:
    """A small network with weights in every layer, that starts from tones."""
    torch.manual_seed(seed)
    model = Sound(SMALL)
    model.start(torch.from_numpy(np.stack([tones(20 * BINS, i) for i in range(4)])))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.settle()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[SoundCoder, Path]:
    path = tmp_path_factory.mktemp("sound") / "small.safetensors"
    model = small_model()
    about = model.save(path)
    return SoundCoder(Sound.load(str(path), about["config"])), path


def targets_of(coder: SoundCoder, x: np.ndarray) -> tuple[Any, int]:
    """The analysed frames of a sound that has as many samples as whole frames."""
    n = len(x) // HOP + 1
    around = np.zeros((n + 3) * HOP, np.float32)
    around[2 * HOP : 2 * HOP + len(x)] = x
    return coder.analyse(around), n


def test_mdct_gives_back_the_samples() -> None:
    x = torch.randn(2, 7 * 16, dtype=torch.float64)
    matrix = mdct_matrix(16).double()
    assert torch.allclose(inverse_mdct(mdct(x, matrix), matrix), x, atol=1e-5)


def test_at_the_start_a_fine_step_gives_back_low_frequencies() -> None:
    model = Sound(SMALL)
    x = torch.from_numpy(np.sin(np.arange(30 * BINS) / 40).astype(np.float32)[None] * 0.1)
    model.start(x.expand(16, -1))
    with torch.no_grad():
        model.shape_gain.fill_(6)
        model.noise_level.fill_(-30)
        y = model.eval()(x, torch.ones(1))[0]
    assert (x - y).square().mean() < 1e-3 * x.square().mean(), "30 dB; the start of the tone is wider than 20 bins"


def test_parts_are_analysed_as_the_whole(saved: tuple[SoundCoder, Path]) -> None:
    x = tones(40 * HOP)
    whole, n = targets_of(saved[0], x)
    part = saved[0].analyse(np.concatenate([x[8 * HOP :], np.zeros(2 * HOP, np.float32)]))
    assert n == 41 and np.allclose(part.components, whole.components[10:], atol=1e-5)
    assert np.allclose(part.shape, whole.shape[10:], atol=1e-4)


def test_parts_are_synthesised_as_the_whole(saved: tuple[SoundCoder, Path]) -> None:
    coder = saved[0]
    targets, n = targets_of(coder, tones(60 * HOP))
    _, frames = coder.encode(targets, 6000)
    whole = coder.synthesise(frames, 6000, 3, 0)
    assert whole.shape == ((n - 1) * HOP,)
    start, end = 20, 40
    first = start - coder.before
    part = coder.synthesise(frames.part(first, end + coder.after), 6000, 3, first)
    wanted = slice(coder.before * HOP, (coder.before + end - start - 1) * HOP)
    assert np.allclose(part[wanted], whole[start * HOP : (end - 1) * HOP], atol=1e-6)
    other = coder.synthesise(frames, 6000, 4, 0)
    assert not np.allclose(whole, other), "the seed is another noise"


@pytest.mark.parametrize("rate", CORE_RATES[1:])
def test_noise_above_is_as_strong_as_the_sound_was(saved: tuple[SoundCoder, Path], rate: int) -> None:
    """Noise of another strength in each band, in the middle of which it jumps: powers come back within 3 dB each."""
    coder = saved[0].at(rate)
    core, n = coder.core, 120
    rng = np.random.default_rng(1)
    spectrum = rng.choice((-1.0, 1.0), (1, n, core.hop)) * 0.01
    for band in range(core.bands):
        spectrum[:, :, EDGES[band] : EDGES[band + 1]] *= 2.0 ** (band + 1)
    spectrum[:, n // 2 :, 256:] *= 0.1
    x = np.pad(coder.samples(torch.from_numpy(spectrum).float()), (2 * core.hop, 2 * core.hop))
    targets = coder.analyse(x)
    data, frames = coder.encode(targets, 5000)
    assert np.array_equal(coder.decode(data, n, 5000).levels, frames.levels)
    above = coder.spectrum(np.pad(coder.synthesise(frames, 5000, 0, 0), (core.hop, core.hop)))[0, 1:-1, 256:].numpy()
    wanted = coder.spectrum(x)[0, 2:-2, 256:].numpy()
    for part in (slice(10, n // 2 - 5), slice(n // 2 + 5, n - 10)):
        for a, b in pairwise(EDGES[: core.bands + 1]):
            ratio = np.square(above[part, a - 256 : b - 256]).mean() / np.square(wanted[part, a - 256 : b - 256]).mean()
            assert 0.6 < ratio < 1.6, (part, a, ratio)


def test_below_8_khz_the_rate_of_the_core_changes_nothing(saved: tuple[SoundCoder, Path]) -> None:
    """One tone at 300 Hz at each rate: the frames' integers differ by what resampling does."""
    found = []
    for rate in CORE_RATES:
        coder = saved[0].at(rate)
        x = 0.05 * np.sin(2 * np.pi * 300 * (np.arange(43 * coder.hop) + 0.5) / rate).astype(np.float32)
        found.append(coder.analyse(x))
        assert (found[-1].amplitudes < 1e-3).all()
    for one in found[1:]:
        assert np.allclose(one.components, found[0].components, atol=0.02)
        assert np.allclose(one.shape, found[0].shape, atol=0.05 * np.abs(found[0].shape).max())


@given(st.integers(1000, 768000), st.floats(0.5, 30))
def test_the_core_is_as_wide_as_the_sound_and_the_rate_allow(rate: int, bitrate: float) -> None:
    found = core_rate(rate, bitrate)
    assert found in CORE_RATES and found <= core_rate(rate, bitrate + 1)
    assert found == 16000 or bitrate >= 4
    assert core_rate(rate, 100.0) == min([r for r in CORE_RATES if r >= rate], default=48000)


def test_levels_are_of_two_frames_and_bounded() -> None:
    amplitudes = np.array([[2.0], [2.0], [1.0], [3.0], [0.0]], np.float32)
    assert levels_of(amplitudes)[:, 0].tolist() == [2, 2, -32]
    assert (Core(24000).noise(np.full((3, 2), -32, np.int32), 1, 0) == 0).all(), "the least level is silence"
    noise = signs_of(1, 0x85EBCA6B, 7, 500, 512)
    assert set(np.unique(noise)) == {-1, 1} and abs(noise.mean()) < 0.01
    assert np.array_equal(signs_of(1, 0x85EBCA6B, 9, 3, 512), noise[2:5])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(-3, 6), st.integers(0, 99), st.sampled_from(CORE_RATES))
def test_a_plain_decoder_reads_what_the_kernel_wrote(
    saved: tuple[SoundCoder, Path], quality: int, n: int, octaves: float, seed: int, rate: int
) -> None:
    coder, path = saved[0].at(rate), saved[1]
    rng = np.random.default_rng(seed)
    envelope = (rng.standard_normal((n, SMALL.bands)) * 2.0**octaves).astype(np.float32)
    shape = (rng.standard_normal((n, SMALL.coded_bins)) * 2.0**octaves).astype(np.float32)
    asked = (rng.standard_normal((-(-n // 2), coder.core.bands)) * 2.0**octaves).astype(np.int32)
    data, frames = coder.prior.encode(envelope, shape, quality, levels=asked)
    back = coder.decode(data, n, quality)
    assert np.array_equal(back.components, frames.components) and np.array_equal(back.shape, frames.shape)
    assert np.array_equal(back.levels, frames.levels)
    components, steps, levels = plain.frames(data, n, quality, plain.weights(str(path)), coder.core.bands)
    assert np.array_equal(components, frames.components) and np.array_equal(steps, frames.shape)
    assert np.array_equal(levels, frames.levels)


def test_symbols_are_nearest_to_the_targets(saved: tuple[SoundCoder, Path]) -> None:
    coder = saved[0]
    targets, _ = targets_of(coder, tones(30 * HOP))
    gain = np.exp2(coder.prior.gain(1, 9000) / 64)
    _, frames = coder.encode(targets, 9000)
    off = np.abs(frames.shape / 16 - targets.shape * gain)
    assert off.max() <= 0.5 + 1e-3, "no symbol is clamped here"


def test_targets_beyond_every_row_are_clamped(saved: tuple[SoundCoder, Path]) -> None:
    coder = saved[0]
    far = np.float32(1e30)
    data, frames = coder.prior.encode(np.full((5, SMALL.bands), far), np.full((5, SMALL.coded_bins), -far), 10_000)
    back = coder.decode(data, 5, 10_000)
    assert np.array_equal(back.shape, frames.shape) and (frames.shape[0] < 0).all()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damage_is_an_error_or_other_frames(saved: tuple[SoundCoder, Path], data: st.DataObject) -> None:
    coder = saved[0]
    targets, n = targets_of(coder, tones(8 * HOP))
    raw = bytearray(coder.encode(targets, 5000)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for damaged in (bytes(raw), cut):
        try:
            frames = coder.decode(damaged, n, 5000)
        except BadFile:
            continue
        assert frames.shape.shape == (n, SMALL.coded_bins)


def test_coded_bytes_are_what_training_counts(saved: tuple[SoundCoder, Path]) -> None:
    coder, x = saved[0], tones(100 * HOP)
    targets, _ = targets_of(coder, x)
    _, _, envelope_bits, shape_bits = coder.model.quantise(torch.from_numpy(x)[None], torch.tensor([0.8]), passes=12)
    expected = (envelope_bits + shape_bits).sum().item()
    found = 8 * len(coder.encode(targets, 8000)[0])
    assert abs(found / expected - 1) < 0.04


def test_sums_that_could_leave_int32_are_refused() -> None:
    model = small_model()
    model.prior.middle.weight.fill_(30)
    with pytest.raises(ValueError, match=r"prior.middle: found a sum of \d+, expected less than 2147483648"):
        IntegerPrior(model)
    model.prior.middle.weight.fill_(40)
    with pytest.raises(ValueError, match="expected to fit int16"):
        IntegerPrior(model)


@pytest.mark.parametrize("change", [lambda s, r: s[:-1], lambda s, r: np.where(np.arange(s.size) == 1, 0, s)])
def test_tables_that_divide_nothing_are_refused(change: Any) -> None:
    model = Sound(SMALL)
    starts, radii = model.table_starts.numpy(), model.table_radii.numpy()
    check_tables(starts, radii)
    with pytest.raises(ValueError, match="tables: found rows"):
        check_tables(change(starts, radii), radii)


def test_features_are_the_same_in_every_library() -> None:
    for exact in (np.tanh(np.arange(1024) / 32), np.log1p(np.arange(1024) / 16)):
        scaled = exact * 256
        assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6, "so near a half, the last bit would decide"


def test_powers_of_two() -> None:
    exponents = np.arange(-600, 600)
    expected = 2.0 ** (exponents / 64)
    found = sound_prior.powers_of_two(exponents) / 2**16
    assert np.abs(found - expected).max() < 2**-5 and np.abs(found / expected - 1)[300:].max() < 1e-3


def test_noise_is_keyed_by_place() -> None:
    whole = noise_of(7, 0, 50)
    assert np.array_equal(noise_of(7, 20, 5), whole[20:25])
    assert abs(float(whole.mean())) < 0.02 and abs(float(whole.std()) - 1) < 0.02
    assert whole[0, :4].tolist() == noise_of(7, 0, 1)[0, :4].tolist()


def test_bits_of_a_logistic_add_up_to_one() -> None:
    for log_scale in (-2.0, 0.0, 3.0):
        x = torch.arange(-800, 801).double()
        mass = torch.exp2(-logistic_bits(x, torch.tensor(log_scale).double())).sum().item()
        assert abs(mass - 1) < 1e-6


@pytest.mark.parametrize("sizes", [[1], [3, 7], [30], [60]])
def test_frames_as_they_come_are_synthesised_as_the_whole(saved: tuple[SoundCoder, Path], sizes: list[int]) -> None:
    coder = saved[0]
    targets, n = targets_of(coder, tones(59 * HOP))
    _, frames = coder.encode(targets, 6000)
    synthesiser, parts, at = Synthesiser(coder, 6000, 3), [], 0
    while at < n:
        end = min(n, at + sizes[len(parts) % len(sizes)])
        parts.append(synthesiser.push(frames.part(at, end), end == n))
        at = end
    assert np.allclose(np.concatenate(parts), coder.synthesise(frames, 6000, 3, 0), atol=1e-6)


def test_runs_that_go_on_are_one_run(saved: tuple[SoundCoder, Path]) -> None:
    coder = saved[0]
    targets, _ = targets_of(coder, tones(19 * HOP))
    _, whole = coder.encode(targets, 6000)
    there, back, parts = coder.room(), coder.room(), []
    for start, end in ((0, 7), (7, 8), (8, 20)):
        part = type(targets)(targets.components[start:end], targets.shape[start:end], targets.amplitudes[start:end])
        parts.append(coder.decode(coder.encode(part, 6000, there)[0], end - start, 6000, back))
    assert np.array_equal(type(whole).joined(parts).shape, whole.shape)


def test_the_search_lowers_what_it_descends(saved: tuple[SoundCoder, Path]) -> None:
    coder, quality = saved[0], 5000
    x = np.zeros(43 * HOP, np.float32)
    x[2 * HOP : 42 * HOP] = tones(40 * HOP)
    plain = coder.analyse(x)

    def cost(targets: Targets) -> float:
        data, frames = coder.encode(targets, quality)
        y = torch.from_numpy(coder.synthesise(frames, quality, 0, 0))[None]
        low, high = RATE_WEIGHTS
        weight = low * (high / low) ** 0.5 * FRAME_RATE / 1000
        distance = Distance(PESQ_WEIGHT)(torch.from_numpy(x[None, 2 * HOP : -2 * HOP]), y).item()
        return distance * len(targets.shape) + weight * 8 * len(data)

    found = coder.searched(x, plain, quality, 20)
    assert found.shape.shape == plain.shape.shape and cost(found) < 0.98 * cost(plain)
    again = coder.searched(x, plain, quality, 20)
    assert np.array_equal(found.shape, again.shape), "the same each time"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_shortest_runs_can_be_searched(saved: tuple[SoundCoder, Path], n: int) -> None:
    x = tones((n + 3) * HOP)
    plain = saved[0].analyse(x)
    found = saved[0].searched(x, plain, 5000, 2)
    assert found.shape.shape == plain.shape.shape and np.isfinite(found.shape).all()
