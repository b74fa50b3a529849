"""Lossy sounds: the medium around a coder of one channel, for which a plain one stands here (plain_sound_coder.py)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_sound_coder import PlainCoder

import laconic
from laconic import container
from laconic.container import Chunk
from laconic.media import lossy_sound, lossy_sound_coder, lossy_sound_encode, lossy_sound_read
from laconic.media.lossy_sound_fields import MARKED, PLAIN, Fields, Segment, read_segment, unpack
from laconic.medium import Run

SOUNDS = Path(__file__).parent.parent / "data" / "sounds"
RATES = [1000, 8000, 11025, 16000, 22050, 44100, 48000, 192000]
SCALE = {np.uint8: 128, np.int16: 1 << 15, np.int32: 1 << 31, np.float32: 1, np.float64: 1}


@pytest.fixture(autouse=True, scope="module")
def plain() -> Iterator[None]:
    """The stand-in for the sound model."""
    known = lossy_sound_coder.Named("sound-2", b"abcd", PlainCoder())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lossy_sound_coder, "named", lambda name, device: known)
        patched.setattr(lossy_sound_coder, "of_file", lambda header, device: known.coder)
        yield


def wave(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """float64 [T, C]: gliding tones below 3 kHz and noise, no two channels alike."""
    t = np.arange(round(seconds * rate))[:, None] / rate
    tones = np.sin(2 * np.pi * (200 + 17 * np.arange(channels)) * t * (1 + 0.05 * np.sin(t))) * (1.1 + np.sin(3 * t))
    return 0.1 * tones + 0.003 * np.random.default_rng(seed).normal(size=tones.shape)


def as_type(x: np.ndarray, dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return x.astype(dtype)
    return (np.rint(x * (SCALE[dtype] - 1)) + (128 if dtype == np.uint8 else 0)).astype(dtype)


def as_float(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float64) - (128 if x.dtype == np.uint8 else 0)) / SCALE[x.dtype.type]


def coded(samples: np.ndarray, rate: int, notes: list[str] | None = None, **options: Any) -> bytes:
    options = {"fallback": False, **options} if options else {"quality": 75, "fallback": False}
    return laconic.compress(samples, sample_rate=rate, notes=[] if notes is None else notes, **options)


def error(back: np.ndarray, given: np.ndarray) -> float:
    """The signal-to-noise ratio in dB."""
    noise = as_float(back) - as_float(given)
    return float(10 * np.log10((as_float(given) ** 2).mean() / max((noise**2).mean(), 1e-20)))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """int16 [T, 2] at 16 kHz: three segments and a half."""
    return as_type(wave(13.7, 16000, 2), np.int16)


@pytest.fixture(scope="module")
def file(speech: np.ndarray) -> bytes:
    return coded(speech, 16000)


@pytest.mark.parametrize("rate", RATES)
def test_sounds_of_all_rates_come_back(rate: int) -> None:
    notes: list[str] = []
    given = as_type(wave(4.3, rate), np.int16)
    data = coded(given, rate, notes)
    laconic.verify(data)
    back = laconic.decompress(data)
    assert back.sample_rate == rate and back.samples.shape == given.shape and back.samples.dtype == given.dtype
    assert error(back.samples, given) > (20 if rate >= 8000 else 5)
    assert notes == (["what is above 8 kHz is not kept"] if rate > 16000 else [])


@pytest.mark.parametrize("dtype", SCALE)
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_all_types_and_channels_come_back(dtype: type, channels: int) -> None:
    given = as_type(wave(0.5, 16000, channels), dtype)
    back = laconic.decompress(coded(given, 16000))
    assert back.samples.dtype == dtype and back.samples.shape == given.shape and back.bits == 8 * given.itemsize
    assert error(back.samples, given) > 20


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 700), rate=st.sampled_from([1000, 8000, 16000, 44100]), channels=st.integers(1, 8))
def test_short_sounds_come_back_with_their_length(n: int, rate: int, channels: int) -> None:
    given = as_type(wave(1, 1000, channels)[:n], np.int16)
    for options in ({"quality": 50}, {"size": 4000}):
        data = coded(given, rate, **options)
        laconic.verify(data)
        assert laconic.decompress(data).samples.shape == given.shape and laconic.info(data).n_samples == n


def test_24_bits(speech: np.ndarray) -> None:
    given = laconic.Sound(speech[:5000].astype(np.int32) * 256, 16000, 24)
    back = laconic.decompress(laconic.compress(given, quality=80, notes=[], fallback=False))
    assert back.bits == 24 and error(back.samples, given.samples) > 25


@pytest.mark.parametrize("kind", ["dc", "square", "noise", "impulse", "tiny", "huge"])
def test_odd_sounds_do_not_run_away(kind: str) -> None:
    n = 20000
    x = {
        "dc": np.full(n, 0.5),
        "square": np.where(np.arange(n) // 50 % 2, -1.0, 1.0),
        "noise": np.random.default_rng(0).uniform(-1, 1, n),
        "impulse": np.eye(1, n, n // 2)[0],
        "tiny": 1e-7 * wave(2, 10000)[:n, 0],
        "huge": 1e6 * wave(2, 10000)[:n, 0],
    }[kind]
    back = laconic.decompress(coded(x.astype(np.float32), 16000, quality=95)).samples[:, 0]
    assert np.isfinite(back).all() and np.abs(back).max() <= 2.5 * np.abs(x).max()
    assert kind == "impulse" or np.mean((back - x) ** 2) < 0.1 * np.mean(x**2)


def test_what_is_no_number_is_replaced_with_a_note() -> None:
    x = wave(1, 16000).astype(np.float32)
    x[[100, 200, 300, 400], 0] = np.nan, np.inf, -np.inf, 1e30
    notes: list[str] = []
    back = laconic.decompress(coded(x, 16000, notes))
    assert np.isfinite(back.samples).all() and notes[0].startswith("4 samples that are no numbers")


@pytest.mark.parametrize("rate", [999, 768_001])
def test_rates_that_are_no_sound_are_refused(rate: int) -> None:
    with pytest.raises(laconic.BadInput, match=f"sample rate: found {rate}, expected 1000 to 768000 Hz; lossless coding"):
        coded(np.zeros(9, np.int16), rate)
    for effort in (0, 10):
        with pytest.raises(laconic.BadInput, match=f"effort: found {effort}, expected 1 to 9"):
            coded(np.zeros(9, np.int16), 16000, quality=5, effort=effort)


def test_effort_is_spent_and_the_rate_is_kept(speech: np.ndarray) -> None:
    plain, searched = (coded(speech, 16000, quality=50, effort=effort) for effort in (1, 9))
    assert len(searched) < len(plain), "the search of the stand-in saves bits"
    rate = laconic.info(plain).kbit_per_s  # type: ignore[attr-defined]
    for effort in (1, 9):
        found = laconic.info(coded(speech, 16000, bitrate=rate, effort=effort)).kbit_per_s  # type: ignore[attr-defined]
        assert abs(found / rate - 1) < 0.02


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_part_is_that_part(file: bytes, data: st.DataObject) -> None:
    whole = laconic.decompress(file).samples.astype(int)
    start = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.sampled_from([63999, 64000, 64001, 127990, 192000])))
    n = data.draw(st.integers(1, 70000))
    part = laconic.decompress(file, seek=start / 16000, duration=n / 16000).samples
    assert len(part) == min(n, len(whole) - start) and np.abs(part - whole[start : start + n]).max() <= 1


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_part_is_that_part_at_other_rates(rate: int) -> None:
    data = coded(wave(9, rate).astype(np.float32), rate)
    whole = laconic.decompress(data).samples
    for first in (0, 4 * rate - 7, 4 * rate, 4 * rate + 300, 8 * rate - 1):
        part = laconic.decompress(data, seek=first / rate, duration=0.2).samples
        assert np.abs(part - whole[first : first + len(part)]).max() < 1e-5 and len(part) == round(0.2 * rate)


def test_segments_leave_no_seam(speech: np.ndarray) -> None:
    """What is decoded in segments is what one synthesis of all frames gives."""
    given = (speech[:, :1] / 32768).astype(np.float32)
    data = coded(given, 16000)
    fields, coder = unpack(container.read_table(data)[0].fields), PlainCoder()
    decoder, _ = lossy_sound.opened(data, Run())
    parts = [decoder.parse(i).frames[0] for i in range(fields.n_segments)]
    frames = type(parts[0]).joined(parts)
    at_once = coder.synthesise(frames, fields.quality, fields.seed, 0)[: len(given)] / lossy_sound_read.gains(fields.levels)
    assert np.abs(laconic.decompress(data).samples[:, 0] - at_once).max() < 1e-5


def test_threads_paths_and_blocks_make_the_same(speech: np.ndarray, file: bytes, tmp_path: Path) -> None:
    for threads in (1, 3):
        assert coded(speech, 16000, quality=75, threads=threads) == file
        assert laconic.decompress(file, threads=threads) == laconic.decompress(file)
    (tmp_path / "x.lac").write_bytes(file)
    assert laconic.decompress(tmp_path / "x.lac") == laconic.decompress(file)
    seen: list[tuple[int, int]] = []
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, file, progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(speech), len(speech)) and len(seen) == 4
    out.seek(0)
    samples, rate = soundfile.read(out, dtype="int16")
    assert rate == 16000 and np.array_equal(samples, laconic.decompress(file).samples)


@pytest.mark.parametrize("threads", [1, 3])
def test_torch_takes_one_thread_of_each_segment(threads: int, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, analyse, synthesise = set[int](), PlainCoder.analyse, PlainCoder.synthesise
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(PlainCoder, "analyse", lambda *x: (seen.add(torch.get_num_threads()), analyse(*x))[1])
    monkeypatch.setattr(PlainCoder, "synthesise", lambda *x: (seen.add(torch.get_num_threads()), synthesise(*x))[1])
    try:
        for options in ({"quality": 50}, {"bitrate": 30}):
            laconic.decompress(coded(speech, 16000, threads=threads, **options), threads=threads)
            assert seen == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_silence_is_exact_and_free() -> None:
    x = wave(21, 22050, 2)
    quiet = [(0, 3000), (30000, 30500), (100000, 340000), (len(x) - 200, len(x))]
    for a, b in quiet:
        x[a:b] = 0
    for dtype in (np.int16, np.float32):
        data = coded(as_type(x, dtype), 22050)
        back = laconic.decompress(data).samples
        assert all(not back[a:b].any() for a, b in quiet) and error(back, as_type(x, dtype)) > 20
        assert [n for _, n in laconic.info(data).chunks][2] == 0
    longer = coded(np.zeros((16000 * 400, 2), np.int16), 16000)
    shorter = coded(np.zeros((16000 * 4, 2), np.int16), 16000)
    assert len(longer) - len(shorter) <= 99 * 6 + 4 and len(shorter) <= 40
    assert not laconic.decompress(longer).samples.any()


def test_equal_channels_cost_one(speech: np.ndarray) -> None:
    mono = coded(speech[:, 0], 16000)
    both = coded(speech[:, [0, 0]], 16000)
    assert len(both) - len(mono) <= 1 + 4  # a level, a byte a segment
    back = laconic.decompress(both).samples
    assert np.array_equal(back[:, 0], back[:, 1])
    assert np.array_equal(back[:, 0], laconic.decompress(mono).samples[:, 0])


def test_a_quiet_side_costs_less_than_the_middle() -> None:
    """Side and mid are coded at the level of the louder one, whichever it is; silence is no level."""
    mid, side = wave(3, 16000, 2).T
    sizes = [len(coded(np.stack([mid + g * side, mid - g * side], 1), 16000, quality=60)) for g in (0, 0.01, 0.1, 1, 10)]
    assert sizes[0] < sizes[1] < 0.8 * sizes[3] and sizes[1] < sizes[2] < sizes[3]
    for x in ([mid, mid], [mid, -mid], [mid + 0.1 * side, mid - 0.1 * side], [side, mid]):
        fields = unpack(container.read_table(coded(1e-2 * np.stack(x, 1), 16000))[0].fields)
        assert fields.levels[0] == fields.levels[1] < 128 - 20


def test_what_a_file_costs_besides_its_runs(speech: np.ndarray) -> None:
    one, many = coded(speech[:60000, 0], 16000), coded(np.tile(speech[:64000, 0], 9), 16000)
    runs = [sum(n for kind, n in laconic.info(data).chunks) for data in (one, many)]
    assert len(one) - runs[0] <= 40 and (len(many) - runs[1]) - (len(one) - runs[0]) <= 8 * 8
    stereo = coded(as_type(wave(4, 48000, 2), np.int16), 48000)
    assert len(stereo) - sum(n for _, n in laconic.info(stereo).chunks) <= 39


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.1, 0.9), seconds=st.sampled_from([0.7, 1.5, 5.0]), rate=st.sampled_from([16000, 44100]))
def test_targets_are_kept(share: float, seconds: float, rate: int) -> None:
    given = as_type(wave(seconds, rate), np.int16)
    least, most = (len(coded(given, rate, quality=q)) for q in (0, 100))
    size = round(least + share * (most - least))
    assert 0.97 * size <= len(coded(given, rate, size=size)) <= size
    asked = 8 * size / 1000 / seconds
    found = laconic.info(coded(given, rate, bitrate=asked)).kbit_per_s
    assert abs(found / asked - 1) <= (0.05 if seconds < 2 else 0.02)


def test_targets_of_long_sounds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of a long sound stays in memory: it is searched in samples of it, and read again."""
    monkeypatch.setattr(lossy_sound_encode, "KEPT", 4)
    monkeypatch.setattr(lossy_sound_encode, "SAMPLED", 2)
    x = wave(58, 8000) * np.linspace(0.05, 1, 58 * 8000)[:, None]
    given = as_type(x, np.int16)
    assert abs(laconic.info(coded(given, 8000, bitrate=8)).kbit_per_s / 8 - 1) <= 0.02
    assert 0.96 * 60000 <= len(coded(given, 8000, size=60000)) <= 60000
    with pytest.raises(laconic.TargetOutOfReach, match="bitrate: found 0.01, expected about one of the values reached"):
        coded(given, 8000, bitrate=0.01)


def test_a_target_out_of_reach_names_the_range(speech: np.ndarray) -> None:
    for asked in (0.001, 1000):
        with pytest.raises(laconic.TargetOutOfReach, match="bitrate: found .* kbit/s, expected .* to .* kbit/s for this sound"):
            coded(speech[:20000], 16000, bitrate=asked)


def test_what_lossless_coding_makes_smaller_is_coded_so(speech: np.ndarray) -> None:
    square = np.where(np.arange(80000) // 40 % 2, -20000, 20000).astype(np.int16)
    for options in ({"quality": 90}, {"bitrate": 8}, {"size": 9000}):
        notes: list[str] = []
        data = coded(square, 16000, notes, fallback=True, **options)
        assert np.array_equal(laconic.decompress(data).samples[:, 0], square) and "coded without loss" in notes[0]
    notes = []
    assert laconic.info(coded(speech, 16000, notes, fallback=True, quality=50)).medium == "lossy-sound" and not notes


def test_levels_do_not_matter() -> None:
    x = wave(3, 16000)
    ratios = [error(laconic.decompress(coded(g * x, 16000)).samples, g * x) for g in (1e-5, 1e-2, 1.0, 1e4)]
    assert min(ratios) > 20 and max(ratios) - min(ratios) < 3


@pytest.mark.parametrize("name", ["id3_and_list_after_data.wav", "flac16_stereo_44k.flac", "mp3_id3v2_stereo_44k.mp3", "pcm16_5.1_48k_extensible.wav"])
def test_what_stands_beside_the_samples_is_kept(name: str) -> None:
    exact = laconic.decompress(laconic.compress(SOUNDS / name, lossless=True, notes=[]))
    notes: list[str] = []
    data = laconic.compress(SOUNDS / name, quality=50, notes=notes, fallback=False)
    lossy = laconic.decompress(data)
    assert (lossy.tags, lossy.comments, lossy.attached) == (exact.tags, exact.comments, exact.attached)
    assert lossy.layout == exact.layout and lossy.samples.shape == exact.samples.shape and lossy.bits == exact.bits
    bare = laconic.compress(SOUNDS / name, quality=50, notes=[], fallback=False, strip=True)
    assert laconic.decompress(bare).tags == {} and len(bare) <= len(data)


@pytest.mark.parametrize("path", sorted(SOUNDS.glob("*.*")), ids=lambda path: path.name)
def test_every_file_is_coded_or_refused(path: Path) -> None:
    if path.suffix == ".md":
        return
    try:
        exact = laconic.compress(path, lossless=True, effort=1, notes=[])
    except laconic.BadInput:
        with pytest.raises(laconic.BadInput, match="found .*, expected"):
            laconic.compress(path, quality=40, notes=[])
        return
    data = laconic.compress(path, quality=40, notes=[], fallback=False)
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, data)
    lossy, whole = laconic.info(data), laconic.info(exact)
    assert (lossy.sample_rate, lossy.channels, lossy.bits, lossy.n_samples) == (whole.sample_rate, whole.channels, whole.bits, whole.n_samples)
    assert (lossy.quality, lossy.core_rate, lossy.medium) == (40, 16000, "lossy-sound")


def test_damage_is_an_error_or_silence(file: bytes) -> None:
    _, table = container.read_table(file)
    whole = laconic.decompress(file).samples
    for entry in table:
        damaged = bytearray(file)
        damaged[entry.start + entry.length // 2] ^= 1
        with pytest.raises(laconic.BadFile, match="checksum"):
            laconic.verify(bytes(damaged))
        notes: list[str] = []
        back = laconic.decompress(bytes(damaged), partial=True, notes=notes).samples
        first = 64000 * entry.number
        assert not back[first : first + 64000].any() and len(back) == len(whole)
        assert [note.startswith(f"damaged, silent: {4 * entry.number:.2f} to") for note in notes] == [True]
        far = [*range(first - 2000), *range(first + 66000, len(whole))]
        assert np.array_equal(back[far], whole[far])
    far_part = laconic.decompress(bytes(damaged), seek=0, duration=4).samples  # the last segment is the damaged one
    assert np.array_equal(far_part, whole[:64000])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_hostile_segments_are_bad_files(file: bytes, data: st.DataObject) -> None:
    header, chunks = container.read(file, lossy_sound.KINDS)
    i = data.draw(st.integers(0, len(chunks) - 1))
    payload = bytearray(chunks[i].payload or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, min(len(payload) - 1, 40)))] = data.draw(st.integers(0, 255))
    chunks[i] = Chunk(data.draw(st.sampled_from([PLAIN, MARKED])), bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    bad = container.write(header, chunks)
    try:
        laconic.verify(bad)
    except laconic.BadFile:
        return
    assert laconic.decompress(bad).samples.shape[1] == 2


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=30))
def test_hostile_fields_are_bad_files(raw: bytes) -> None:
    try:
        assert unpack(raw).pack() == raw
    except laconic.BadFile:
        pass


spans = st.lists(st.integers(0, 1000), max_size=8, unique=True).map(sorted).map(lambda at: tuple(zip(at[::2], at[1::2], strict=False)))


@given(spans, st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_segments_come_back(silences: tuple[tuple[int, int], ...], runs: list[bytes]) -> None:
    segment = Segment(silences if any(runs) else ((0, 1000),), tuple(runs))
    assert read_segment(segment.pack(), 1000, len(runs), not segment.silences) == segment


@given(
    st.integers(1000, 768000),
    st.integers(0, 1 << 34),
    st.integers(1, 8),
    st.sampled_from([(8, False), (32, True)]),
    st.sampled_from([16000, 24000, 48000]),
)
def test_fields_come_back(rate: int, n: int, channels: int, width: tuple[int, bool], core: int) -> None:
    fields = Fields(rate, channels, *width, core, 5000, n, 7, (128,) * channels)
    assert unpack(fields.pack()) == fields
    assert sum(b - a for a, b in map(fields.frames_of, range(min(3, fields.n_segments)))) <= fields.n_frames or n == 0
    if n:
        last = fields.n_segments - 1
        assert fields.frames_of(last)[1] - fields.frames_of(last)[0] in range(2, 252) and fields.samples_of(last)[1] == n


def test_other_counts_of_segments_are_refused(file: bytes) -> None:
    header, chunks = container.read(file, lossy_sound.KINDS)
    for bad in (chunks[:-1], [*chunks, chunks[0]]):
        with pytest.raises(laconic.BadFile, match="segments: found .*, expected 4, by the header"):
            laconic.verify(container.write(header, bad))
