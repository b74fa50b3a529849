"""Segments of a lossy sound that are coded without loss: exact, no larger, met without a step by those beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_sound_coder import PlainCoder

import laconic
from laconic import container
from laconic.container import Chunk
from laconic.entropy.errors import BadFile
from laconic.media import lossy_sound, lossy_sound_coder, lossy_sound_decode, lossy_sound_encode
from laconic.media.lossy_sound_exact import is_offered, joined, nearest
from laconic.media.lossy_sound_fields import DEFLATED, EXACT, HEAD, PLAIN, TAIL, ExactSegment, read_exact, unpack
from laconic.medium import Run

RATE = 8000
N = 4 * RATE  # samples of a segment
SCALE = {np.uint8: 128, np.int16: 1 << 15, np.int32: 1 << 31, np.float32: 1, np.float64: 1}


@pytest.fixture(autouse=True, scope="module")
def plain() -> Iterator[None]:
    """The stand-in for the sound model."""
    known = lossy_sound_coder.Named("sound-2", b"abcd", PlainCoder())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lossy_sound_coder, "named", lambda name, device: known)
        patched.setattr(lossy_sound_coder, "of_file", lambda header, device: known.coder)
        yield


def voice(n: int, seed: int = 0) -> np.ndarray:
    """float64 [n]: a gliding tone and noise, which cost least with loss."""
    t = np.arange(n) / RATE
    return 0.2 * np.sin(2 * np.pi * 300 * t * (1 + 0.05 * np.sin(t))) + 0.02 * np.random.default_rng(seed).normal(size=n)


def made(kind: str, n: int = N) -> np.ndarray:
    """float64 [n]: what no network codes well."""
    t = np.arange(n)
    return {
        "square": np.where(t // 37 % 2, 0.25, -0.25),
        "dc": np.full(n, 0.5),
        "impulse": 0.5 * (t == n // 3),
        "stairs": (t // 23 % 8) / 16 - 0.25,
        "coarse": np.rint(np.random.default_rng(1).normal(size=n) * 2) / 64,
        "bits": np.random.default_rng(1).integers(0, 2, n // 50 + 1).repeat(50)[:n] / 4,
        "loop": np.resize(np.random.default_rng(1).uniform(-0.2, 0.2, 1000), n),
        "silence": np.zeros(n),
    }[kind]


def as_type(x: np.ndarray, dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return x.astype(dtype)
    return np.asarray(np.rint(x * (SCALE[dtype] - 1)) + (128 if dtype == np.uint8 else 0)).astype(dtype)


def coded(samples: np.ndarray, rate: int = RATE, notes: list[str] | None = None, **options: Any) -> bytes:
    return laconic.compress(samples, sample_rate=rate, notes=[] if notes is None else notes, **(options or {"quality": 45}))


@pytest.fixture(scope="module")
def between() -> np.ndarray:
    """int16 [T, 2]: a segment to be coded with loss, a square wave, and one and a half with loss."""
    x = np.concatenate([voice(N), made("square"), voice(N + N // 2, 1)])
    return as_type(np.stack([x, 0.5 * x], 1), np.int16)


@pytest.fixture(scope="module")
def file(between: np.ndarray) -> bytes:
    return coded(between)


@pytest.mark.parametrize("kind", ["square", "dc", "impulse", "stairs", "bits", "loop"])
@pytest.mark.parametrize("dtype", SCALE)
def test_what_is_smaller_without_loss_comes_back_exactly(kind: str, dtype: type) -> None:
    given = as_type(np.concatenate([voice(N), made(kind), voice(N, 1)]), dtype)
    notes: list[str] = []
    quality = 25 if dtype is np.uint8 else 45
    data = coded(given, notes=notes, quality=quality)
    laconic.verify(data)
    info, back = laconic.info(data), laconic.decompress(data).samples[:, 0]
    assert (info.medium, info.segments, info.exact_segments) == ("lossy-sound", 3, 1)
    assert notes == ["coded without loss, which is no larger: 1 of 3 segments of 4 seconds"]
    assert back.dtype == dtype and back[N : 2 * N].tobytes() == given[N : 2 * N].tobytes()
    assert not np.array_equal(back[:N], given[:N]) and not np.array_equal(back[2 * N :], given[2 * N :])
    without = laconic.info(coded(given, quality=quality, fallback=False))
    assert without.exact_segments == 0 and info.chunks[1][1] <= without.chunks[1][1]
    assert info.chunks[::2] == without.chunks[::2]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_both_ways_of_coding_are_used(dtype: type) -> None:
    given = as_type(np.concatenate([voice(N), made("coarse"), voice(N, 1), made("loop"), voice(N, 2)]), dtype)
    data = coded(given)
    _, chunks = container.read(data, lossy_sound.KINDS)
    found = [read_exact(chunk.payload or b"", 1, HEAD | TAIL) for chunk in chunks if chunk.kind == EXACT]
    assert [one.deflated for one in found] == [False, True]
    back = laconic.decompress(data).samples[:, 0]
    assert all(np.array_equal(back[i * N : (i + 1) * N], given[i * N : (i + 1) * N]) for i in (1, 3))


def test_only_edges_that_a_neighbour_needs_are_there() -> None:
    """A segment without loss beside another, beside silence, or where the sound ends, has no frames there."""
    parts = ["square", "voice", "square", "bits", "silence", "square", "voice", "square"]
    x = np.concatenate([voice(N, i) if kind == "voice" else made(kind) for i, kind in enumerate(parts)])
    _, chunks = container.read(coded(as_type(x, np.int16)), lossy_sound.KINDS)
    flags = [chunk.payload[0] & (HEAD | TAIL) if chunk.kind == EXACT and chunk.payload else None for chunk in chunks]
    assert flags == [TAIL, None, HEAD, 0, 0, TAIL, None, HEAD]
    back = laconic.decompress(coded(as_type(x, np.int16))).samples[:, 0]
    assert not back[4 * N : 5 * N].any()


def tone_with_square() -> tuple[np.ndarray, slice]:
    """float32 [3 N]: a tone of 50 Hz that goes on over all segments; far inside the middle one, a square wave."""
    x = np.resize(0.3 * np.sin(2 * np.pi * np.arange(160) / 160 + 0.4), 3 * N)
    x[N + 4000 : 2 * N - 4000] = made("square", N - 8000)
    return x.astype(np.float32), slice(N, 2 * N)


def test_there_is_no_step_at_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last lossy sample to the first exact one it is as far as in the sound; unmet it would be farther."""
    given, middle = tone_with_square()
    data = coded(given, quality=25)
    back = laconic.decompress(data).samples[:, 0]
    assert laconic.info(data).exact_segments == 1 and np.array_equal(back[middle], given[middle])
    monkeypatch.setattr(lossy_sound_decode, "joined", lambda x, before, after: x[len(before) : len(x) - len(after)])
    unmet = laconic.decompress(data).samples[:, 0]
    far = np.r_[0 : N - RATE // 250, 2 * N + RATE // 250 : 3 * N]
    assert np.array_equal(unmet[far], back[far])
    steps = [[abs(x[at] - x[at - 1] - given[at] + given[at - 1]) for at in (N, 2 * N)] for x in (back, unmet)]
    assert max(steps[0]) < 0.25 * min(steps[1]) and max(steps[0]) < 0.005


def test_edges_carry_the_synthesis_over_the_seam() -> None:
    """Without its edges an exact segment would leave the lossy samples beside it without half of their frames."""
    given, _ = tone_with_square()
    data = coded(given, quality=45)
    header, chunks = container.read(data, lossy_sound.KINDS)
    exact = read_exact(chunks[1].payload or b"", 1, HEAD | TAIL)
    bare = [*chunks]
    bare[1] = Chunk(EXACT, replace(exact, head=(), tail=()).pack())
    near = slice(N - 64, N - 32)  # before what fades, in the last frame's hop
    errors = [
        np.abs(laconic.decompress(one).samples[near, 0] - given[near]).max() for one in (data, container.write(header, bare))
    ]
    assert errors[0] < 0.05 < errors[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 12), st.integers(0, 12), st.integers(1, 3), st.integers(0, 999))
def test_joined_meets_both_sides_and_changes_no_more(n: int, before: int, after: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, first, last = (rng.normal(size=(k, channels)).astype(np.float32) for k in (before + n + after, before, after))
    out, lossy = joined(x, first, last), x[before : before + n]
    assert out.shape == lossy.shape and out.dtype == np.float32
    assert np.array_equal(out[min(n, before) : max(0, n - after)], lossy[min(n, before) : max(0, n - after)])
    same = joined(x, x[:before], x[before + n :])
    assert np.array_equal(same, lossy), "where the synthesis is right beyond the seam, nothing changes"
    if n > before + after and before:
        weight = (out[0] - lossy[0]) / (first[-1] - x[before - 1])
        assert np.allclose(weight, 0.5 + 0.5 * np.cos(np.pi * 0.5 / before), atol=1e-2)


@settings(max_examples=15, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["voice", "square", "impulse", "silence", "coarse"]), min_size=2, max_size=5),
    rest=st.integers(1, 4000),
    rate=st.sampled_from([1000, 2000, 8000]),
    channels=st.integers(1, 3),
    place=st.floats(0, 1),
)
def test_parts_of_any_order_are_parts_of_the_whole(kinds: list[str], rest: int, rate: int, channels: int, place: float) -> None:
    n = 4 * rate
    x = np.concatenate([voice(n, i) if kind == "voice" else made(kind, n) for i, kind in enumerate(kinds)])
    x = np.stack([x * gain for gain in (1, 0.5, -0.25)[:channels]], 1)[: len(x) - n + min(rest, n)]
    given = as_type(x, np.int16)
    data = laconic.compress(given, sample_rate=rate, quality=15, notes=[])
    laconic.verify(data)
    info = laconic.info(data)
    whole = laconic.decompress(data, threads=1).samples
    assert np.array_equal(laconic.decompress(data, threads=3).samples, whole) and whole.shape == given.shape
    for i, (kind, _) in enumerate(info.chunks if info.medium == "lossy-sound" else ()):
        if kind == lossy_sound.KINDS[EXACT] or kinds[i] == "silence":
            assert np.array_equal(whole[i * n : (i + 1) * n], given[i * n : (i + 1) * n])
    start = min(int(place * len(x)), len(x) - 1)
    for first in {start, (len(kinds) - 1) * n - 1, (len(kinds) - 1) * n}:
        part = laconic.decompress(data, seek=first / rate, duration=0.1).samples.astype(int)
        assert np.abs(part - whole[first : first + len(part)]).max() <= 1


def test_targets_count_exact_segments(between: np.ndarray) -> None:
    """What the exact segment saves, the others get."""
    least, most = (len(coded(between, quality=q)) for q in (20, 70))
    size = (least + most) // 2
    data = coded(between, size=size)
    assert 0.97 * size <= len(data) <= size and laconic.info(data).exact_segments == 1
    assert laconic.info(data).quality > laconic.info(coded(between, size=size, fallback=False)).quality + 1
    rate = 8 * size / 1000 / (len(between) / RATE)
    assert abs(laconic.info(coded(between, bitrate=rate)).kbit_per_s / rate - 1) <= 0.02


def test_targets_of_long_sounds_count_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossy_sound_encode, "KEPT", 4)
    monkeypatch.setattr(lossy_sound_encode, "SAMPLED", 2)
    x = np.concatenate([voice(N, i) if i % 3 else made("square") for i in range(14)])
    data = coded(as_type(x, np.int16), bitrate=12)
    assert abs(laconic.info(data).kbit_per_s / 12 - 1) <= 0.02 and laconic.info(data).exact_segments == 5
    assert np.array_equal(laconic.decompress(data, seek=12, duration=4).samples[:, 0], as_type(made("square"), np.int16))


def test_what_is_replaced_is_not_coded_exactly() -> None:
    x = np.concatenate([voice(N), made("dc"), voice(N, 1)]).astype(np.float32)
    x[N + 100] = np.nan
    notes: list[str] = []
    data = coded(x, notes=notes)
    assert laconic.info(data).exact_segments == 0 and np.isfinite(laconic.decompress(data).samples).all()
    assert notes == ["1 samples that are no numbers, or beyond 2^31, are replaced by 0, 1 or -1"]
    odd = np.array([[np.nan], [np.inf], [-1e30], [0.5]], np.float64)
    assert np.array_equal(nearest(odd, True, 1000, 64, True), [[0], [0], [0], [0.5]])


def test_damage_is_an_error_or_silence(between: np.ndarray, file: bytes) -> None:
    _, table = container.read_table(file)
    whole = laconic.decompress(file).samples
    assert table[1].kind == EXACT
    damaged = bytearray(file)
    damaged[table[1].start + table[1].length // 2] ^= 1
    with pytest.raises(BadFile, match="checksum"):
        laconic.verify(bytes(damaged))
    notes: list[str] = []
    back = laconic.decompress(bytes(damaged), partial=True, notes=notes).samples
    assert not back[N : 2 * N].any() and [note.startswith("damaged, silent: 4.00 to 8.00 s") for note in notes] == [True]
    far = [*range(N - 1000), *range(2 * N + 2000, len(whole))]
    assert np.array_equal(back[far], whole[far])
    damaged = bytearray(file)
    damaged[table[0].start + 9] ^= 1
    back = laconic.decompress(bytes(damaged), partial=True, notes=[]).samples
    assert np.array_equal(back[N : 2 * N], between[N : 2 * N]) and np.array_equal(back[2 * N :], whole[2 * N :])


@pytest.mark.parametrize("where", ["head", "stream", "lossless"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_hostile_segments_are_bad_files(file: bytes, between: np.ndarray, where: str, data: st.DataObject) -> None:
    header, chunks = container.read(file, lossy_sound.KINDS)
    payload = bytearray(chunks[1].payload or b"")
    if where == "lossless":
        exact = read_exact(bytes(payload), 2, HEAD | TAIL)
        payload = bytearray(replace(exact, coded=data.draw(st.binary(max_size=60)), deflated=False).pack())
    for _ in range(data.draw(st.integers(1, 3))):
        last = min(len(payload) - 1, 4) if where == "head" else len(payload) - 1
        payload[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    i = data.draw(st.sampled_from([0, 1, 1, 1, 3]))
    chunks[i] = Chunk(data.draw(st.sampled_from([EXACT, EXACT, PLAIN])), bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    bad = container.write(header, chunks)
    try:
        laconic.verify(bad)
    except BadFile:
        return
    assert laconic.decompress(bad).samples.shape == between.shape


@pytest.mark.parametrize("i, flags", [(0, HEAD), (3, TAIL), (1, 8), (1, 255)])
def test_edges_beyond_the_sound_are_refused(file: bytes, i: int, flags: int) -> None:
    header, chunks = container.read(file, lossy_sound.KINDS)
    chunks[i] = Chunk(EXACT, bytes([flags]) + bytes(40))
    with pytest.raises(BadFile, match="flags of a segment"):
        laconic.verify(container.write(header, chunks))


def test_other_samples_than_were_written_are_refused(file: bytes) -> None:
    """Deflated samples are as many as the segment has; lossless ones have the checksum that was written."""
    header, chunks = container.read(file, lossy_sound.KINDS)
    for exact, match in (
        (ExactSegment((), (), b"\x78\x9c\x03\x00\x00\x00\x00\x01", True), "samples length: found 0, expected 128000 bytes"),
        (ExactSegment((), (), bytes(4) + b"\0" + bytes(N * 4), False), "checksum of the samples"),
        (ExactSegment((), (), bytes(range(40)), True), "samples: found damage"),
    ):
        chunks[1] = Chunk(EXACT, exact.pack())
        with pytest.raises(BadFile, match=match):
            laconic.verify(container.write(header, chunks))


def test_rates_beyond_those_of_lossless_segments_have_none() -> None:
    assert is_offered(192_000) and is_offered(1 << 18) and not is_offered((1 << 18) + 1)
    header, _ = container.read(coded(as_type(voice(3000), np.int16), 384_000, quality=40, fallback=False), lossy_sound.KINDS)
    bad = container.write(header, [Chunk(EXACT, ExactSegment((), (), bytes(20), True).pack())])
    with pytest.raises(BadFile, match="rate of a segment without loss: found 384000"):
        laconic.verify(bad)


@given(st.integers(1, 8), st.data(), st.binary(max_size=50), st.booleans())
def test_segments_come_back(n_runs: int, data: st.DataObject, coded: bytes, deflated: bool) -> None:
    run = st.lists(st.binary(max_size=150), min_size=n_runs, max_size=n_runs).map(tuple)
    head, tail = (data.draw(st.one_of(st.just(()), run)) for _ in range(2))
    segment = ExactSegment(head, tail, coded, deflated)
    payload = segment.pack()
    assert read_exact(payload, n_runs, HEAD | TAIL) == segment
    assert payload[0] == HEAD * bool(head) + TAIL * bool(tail) + DEFLATED * deflated


def test_integers_have_edges_and_samples(file: bytes, between: np.ndarray) -> None:
    decoder, _ = lossy_sound.opened(file, Run())
    parsed = decoder.parse(1)
    assert parsed.exact is not None and np.array_equal(parsed.exact, between[N : 2 * N])
    assert [len(one.symbols) for one in (*parsed.head, *parsed.tail)] == [3] * 4
    fields = unpack(container.read_table(file)[0].fields)
    assert fields.edges_of(1) == ((250, 253), (497, 500))
