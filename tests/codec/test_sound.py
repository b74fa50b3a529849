"""Sounds: files read and written, to the byte where they are WAV; segments, seeking, damage."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic import container, payloads, sound, sound_read
from laconic.container import Chunk
from laconic.media import lossless_sound
from laconic.media.lossless_sound import SEGMENT
from laconic.media.sound_parts import TAGS, WRAPPING

FORMATS = Path(__file__).parent.parent / "data" / "sounds"
REFUSED = {"bad_fmt_zero_channels.wav", "empty.wav", "text.wav", "truncated_header.wav"}
files = sorted(path for path in FORMATS.iterdir() if path.suffix != ".md")
RATE = 8000


@pytest.fixture(scope="session")
def tone() -> np.ndarray:
    """int16 [T, 2]: three segments and a half of a noisy tone."""
    length = int(3.5 * segment())
    t = np.arange(length)[:, None] * [0.05, 0.051]
    return (9000 * np.sin(t) + np.random.default_rng(0).normal(0, 30, t.shape)).astype(np.int16)


@pytest.fixture(scope="session")
def file(tone: np.ndarray) -> bytes:
    return laconic.compress(tone, sample_rate=RATE, lossless=True, effort=1)


def segment() -> int:
    from laconic.models.lossless_sound import segment_length

    return segment_length(RATE)


@pytest.mark.parametrize("path", files, ids=lambda path: path.name)
def test_every_file_comes_back_or_is_refused(path: Path) -> None:
    notes: list[str] = []
    if path.name in REFUSED:
        with pytest.raises(laconic.BadInput, match="found .*, expected"):
            laconic.compress(path, lossless=True)
        return
    data = laconic.compress(path, lossless=True, effort=1, notes=notes)
    laconic.verify(data)
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, data)
    with path.open("rb") as raw:
        known = sound.open_sound(raw)
        if path.suffix == ".wav" and "mulaw" not in path.name:
            assert out.getvalue() == path.read_bytes() and not [note for note in notes if "larger than" not in note]
        elif path.suffix not in (".flac", ".aiff"):
            assert "decoded from" in notes[0]
        out.seek(0)
        back = sound.open_sound(out)
        ours, theirs = (
            (s.sample_rate, s.channels, s.bits, s.floating, s.tags, b"".join(b.tobytes() for b in s.blocks(999)))
            for s in (back, known)
        )
        assert ours == theirs


def riff(size: int | None, data_size: int, pcm: bytes, after: bytes = b"") -> bytes:
    """A WAV file of 16 bits, 1 channel; size: what RIFF says, if not the truth."""
    body = b"WAVE" + sound.chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
    body += b"data" + struct.pack("<I", data_size) + pcm + after
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def through(raw: bytes, skipped: int = 0, **options: Any) -> tuple[bytes, int, list[str]]:
    """What comes back as WAV, its samples, notes."""
    notes: list[str] = []
    source, out = io.BytesIO(raw), io.BytesIO()
    source.seek(skipped)
    data = laconic.compress(source, lossless=True, effort=1, notes=notes, **options)
    laconic.Codec().decompress_to(out, data)
    return out.getvalue(), laconic.info(data).n_samples, notes


@pytest.mark.parametrize("size", [0, 8, 36, 0xFFFFFFFF])
def test_a_header_that_was_never_finished(size: int, tone: np.ndarray) -> None:
    raw = riff(size, 0, tone[:900, 0].tobytes() + b"x")
    back, n, notes = through(raw)
    assert back == raw and n == 900 and ["never finished (0 bytes" in note for note in notes] == [True]


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_a_header_of_64_bits_that_was_never_finished(name: bytes, tone: np.ndarray) -> None:
    raw = riff(0xFFFFFFFF, 0xFFFFFFFF, tone[:900, 0].tobytes())
    raw = name + raw[4:12] + sound.chunk(b"ds64", bytes(28)) + raw[12:]
    back, n, notes = through(raw)
    assert back == raw and n == 900 and ["never finished (0 bytes" in note for note in notes] == [True]


def test_sizes_that_are_wrong_by_much(monkeypatch: pytest.MonkeyPatch, tone: np.ndarray) -> None:
    pcm = tone[:900, 0].tobytes()
    monkeypatch.setattr(sound_read, "MAX_WRAPPING", 1000)
    for outrun in (riff(0, 100, pcm), riff(136, 100, pcm)):
        back, n, notes = through(outrun)
        assert (back, n) == (outrun, 900) and ["never finished (100 bytes" in note for note in notes] == [True]
    junk = riff(None, 1800, pcm, sound.chunk(b"id3 ", bytes(1200)))
    with pytest.raises(laconic.BadInput, match="around the samples: found '1252 bytes', expected at most 1000"):
        through(junk)
    assert through(junk, strip=True)[1:] == (900, [])
    whole = riff(None, 0, b"", sound.chunk(b"id3 ", bytes(200)))
    assert through(whole) == (whole, 0, [])


def test_samples_that_stand_otherwise_are_a_note(tone: np.ndarray) -> None:
    """Two data chunks: all samples are kept, in order."""
    first, second = tone[:500, 0], tone[500:900, 0]
    back, n, notes = through(riff(None, 1000, first.tobytes(), sound.chunk(b"data", second.tobytes())))
    assert n == 900 and "will not come back byte for byte" in notes[0]
    assert np.array_equal(soundfile.read(io.BytesIO(back), dtype="int16")[0], tone[:900, 0])


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "W64"])
def test_a_file_object_is_read_from_where_it_stands(format: str, file: bytes, tone: np.ndarray) -> None:
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, file, format=format)
    back, n, notes = through(b"before" + out.getvalue(), skipped=6)
    assert n == len(tone) and not notes and (format != "WAV" or back == out.getvalue())


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(8, np.uint8), (16, np.int16), (24, np.int32), (32, np.int32)]), st.integers(1, 8), st.data())
def test_arrays_come_back(width: tuple[int, type], channels: int, data: st.DataObject) -> None:
    bits, dtype = width
    low, high = (0, 255) if bits == 8 else (-(1 << bits - 1), (1 << bits - 1) - 1)
    few = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=4))  # extremes are drawn often
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    samples = rng.choice(np.array(few, dtype), (data.draw(st.integers(0, 300)), channels))
    rate = data.draw(st.integers(1, 1 << 20))
    back = laconic.decompress(
        laconic.compress(laconic.Sound(samples, rate, bits, {"title": "ä"}), lossless=True, effort=1)
    )
    assert back.samples.dtype == dtype and np.array_equal(back.samples, samples)
    assert (back.sample_rate, back.bits, back.tags) == (rate, bits, {"title": "ä"})


def floats(kind: str, n: int, channels: int, dtype: type) -> np.ndarray:
    """Sounds of integers that became floats, of floats alone, and bits that are no number."""
    rng = np.random.default_rng(n)
    tone = (9000 * np.sin(np.arange(n)[:, None] * 0.05) + rng.normal(0, 30, (n, channels))).astype(np.int16)
    if kind == "bits":
        return rng.integers(0, 256, (n, channels * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    scale = {"converted": 1 / 32768, "normalised": 1 / 32767, "gain": 0.7 / 32768}.get(kind, 1e-6)
    return (tone * scale + (tone / 33333) ** 2 * (kind == "mixed")).astype(dtype)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(["converted", "normalised", "gain", "mixed", "bits"]),
    n=st.integers(0, 500),
    channels=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_float_arrays_come_back(kind: str, n: int, channels: int, dtype: type) -> None:
    samples = floats(kind, n, channels, dtype)
    data = laconic.compress(samples, sample_rate=RATE, lossless=True, effort=1)
    back = laconic.decompress(data)
    assert back.samples.dtype == dtype and back.samples.shape == samples.shape
    assert back.samples.tobytes() == samples.tobytes() and laconic.info(data).bits == samples.dtype.itemsize * 8


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "W64"])
def test_other_formats_hold_float_samples(format: str) -> None:
    samples, out = floats("mixed", 500, 2, np.float32), io.BytesIO()
    laconic.Codec().decompress_to(
        out, laconic.compress(samples, sample_rate=RATE, lossless=True, effort=1), format=format
    )
    out.seek(0)
    back = sound.open_sound(out)
    assert back.floating and next(back.blocks(500)).tobytes() == samples.tobytes()


def test_damaged_float_segments_are_silent() -> None:
    samples = floats("mixed", segment() + 100, 1, np.float64)
    data = bytearray(laconic.compress(samples, sample_rate=RATE, lossless=True, effort=1))
    data[-20] ^= 1
    back = laconic.decompress(bytes(data), partial=True, notes=[]).samples
    assert back.dtype == np.float64 and np.array_equal(back[:-100], samples[:-100]) and not back[-100:].any()


@settings(max_examples=25, deadline=None)
@given(dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]), channels=st.integers(1, 8))
def test_noise_costs_its_raw_samples_and_little_more(dtype: type, channels: int) -> None:
    """White noise of full range is stored: 14 bytes a segment and the header."""
    n, rate = 2500, 100  # three segments
    raw = np.random.default_rng(channels).bytes(n * channels * np.dtype(dtype).itemsize)
    samples = np.frombuffer(raw, dtype).reshape(n, channels)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lossless_sound, "LEAST_SEGMENT", 1)
        data = laconic.compress(samples, sample_rate=rate, lossless=True, effort=1, notes=[])
    assert [kind for kind, _ in laconic.info(data).chunks] == ["segment"] * 3
    assert len(data) <= len(raw) + 3 * 14 + 30


def test_one_channel_may_be_flat(tone: np.ndarray) -> None:
    back = laconic.decompress(laconic.compress(tone[:500, 0], sample_rate=RATE, lossless=True))
    assert np.array_equal(back.samples[:, 0], tone[:500, 0]) and back.bits == 16


@pytest.mark.parametrize(
    "bad",
    [np.zeros(5, np.float16), np.zeros((5, 9), np.int16), np.zeros((5, 0), np.int16), np.zeros((2, 2, 2), np.int16)],
)
def test_arrays_that_are_no_sounds_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        laconic.compress(bad, sample_rate=RATE, lossless=True)


@pytest.mark.parametrize("tags", [{"a": 5}, {5: "a"}, {"a": "\ud800"}, {"a": None}, ["a"]], ids=str)
def test_what_no_file_holds_is_refused(tags: Any, file: bytes) -> None:
    with pytest.raises(laconic.BadInput, match="tags: found .*, expected a dictionary of names with texts"):
        laconic.compress(laconic.Sound(np.zeros(9, np.int16), RATE, 16, tags), lossless=True)
    with pytest.raises(laconic.BadInput, match="samples: found 'list', expected a NumPy array"):
        laconic.compress(laconic.Sound([1, 2], RATE, 16), lossless=True)  # type: ignore[arg-type]
    header, chunks = container.read(file, lossless_sound.KINDS)
    content = payloads.encode_metadata(json.dumps(tags if tags != {5: "a"} else 5).encode())
    with pytest.raises(laconic.BadFile, match="tags: found .*, expected names with texts"):
        laconic.decompress(container.write(header, [*chunks, Chunk(TAGS, content, optional=True)]))


def test_values_beyond_the_width_are_refused() -> None:
    with pytest.raises(laconic.BadInput, match="samples: found 8388608, expected -8388608 to 8388607"):
        laconic.compress(laconic.Sound(np.array([1 << 23], np.int32), RATE, 24), lossless=True)


def test_nothing_is_lost_where_no_target_is_given(tone: np.ndarray) -> None:
    notes: list[str] = []
    back = laconic.decompress(laconic.compress(tone[:500], sample_rate=RATE, notes=notes))
    assert np.array_equal(back.samples, tone[:500]) and [note.startswith("coded without loss") for note in notes] == [True]


def test_a_part_is_that_part(file: bytes, tone: np.ndarray) -> None:
    for seek, duration in [(0.0, 0.1), (1.0, None), (segment() / RATE - 0.01, 0.02), (0.0, 1e9), (0.00005, 0.0001)]:
        part = laconic.decompress(file, seek=seek, duration=duration).samples
        start = round(seek * RATE)
        assert np.array_equal(part, tone[start : None if duration is None else start + round(duration * RATE)])


@pytest.mark.parametrize(
    "options",
    [
        *({"seek": value} for value in (-1.0, 1e9, float("nan"), "a")),
        *({"duration": value} for value in (0.0, 0.4 / RATE, "a")),
        {"region": (0, 0, 1, 1)},
    ],
    ids=str,
)
def test_a_part_that_is_none_is_an_error(file: bytes, options: dict) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        laconic.decompress(file, **options)


def test_a_part_after_the_last_sample_is_none(file: bytes, tone: np.ndarray) -> None:
    for seek in (len(tone) / RATE, (len(tone) - 0.4) / RATE):
        with pytest.raises(laconic.BadInput, match="seek: found .*, expected 0 up to"):
            laconic.decompress(file, seek=seek)
    assert len(laconic.decompress(file, seek=(len(tone) - 1) / RATE).samples) == 1


def test_only_the_segments_of_a_part_are_read(file: bytes, tone: np.ndarray) -> None:
    _, table = container.read_table(file)
    damaged = bytearray(file)
    damaged[table[2].start + 9] ^= 1
    part = laconic.decompress(bytes(damaged), seek=0.0, duration=segment() / RATE).samples
    assert np.array_equal(part, tone[: segment()])
    with pytest.raises(laconic.BadFile, match="checksum"):
        laconic.decompress(bytes(damaged))
    notes: list[str] = []
    back = laconic.decompress(bytes(damaged), partial=True, notes=notes).samples
    assert len(notes) == 1 and notes[0].startswith("damaged, silent:")
    assert not back[2 * segment() : 3 * segment()].any() and np.array_equal(
        back[: 2 * segment()], tone[: 2 * segment()]
    )
    assert np.array_equal(back[3 * segment() :], tone[3 * segment() :])


def test_wrong_samples_are_an_error_even_with_a_right_chunk(file: bytes) -> None:
    """The samples have a checksum of their own: a chunk that was written anew does not pass."""
    header, chunks = container.read(file, lossless_sound.KINDS)
    payload = bytearray(chunks[1].payload or b"")
    payload[-1] ^= 1
    chunks[1] = Chunk(SEGMENT, bytes(payload))
    with pytest.raises(laconic.BadFile):
        laconic.decompress(container.write(header, chunks))


def test_threads_and_paths_make_the_same_bytes(tone: np.ndarray, file: bytes, tmp_path: Path) -> None:
    for threads in (1, 2, 5):
        assert laconic.compress(tone, sample_rate=RATE, lossless=True, effort=1, threads=threads) == file
        assert np.array_equal(laconic.decompress(file, threads=threads).samples, tone)
    (tmp_path / "x.lac").write_bytes(file)
    assert np.array_equal(laconic.decompress(tmp_path / "x.lac").samples, tone)
    assert laconic.info(tmp_path / "x.lac") == laconic.info(file)


def test_info(file: bytes, tone: np.ndarray) -> None:
    found = laconic.info(file)
    assert (found.medium, found.channels, found.bits, found.sample_rate) == ("sound", 2, 16, RATE)
    assert found.n_samples == len(tone) and [kind for kind, _ in found.chunks] == ["segment"] * 4


def test_strip_leaves_out_what_is_no_sample() -> None:
    path = FORMATS / "id3_and_list_after_data.wav"
    kinds = [kind for kind, _ in laconic.info(laconic.compress(path, lossless=True)).chunks]
    assert kinds == ["segment", "wrapping", "tags"]
    data = laconic.compress(path, lossless=True, strip=True)
    assert [kind for kind, _ in laconic.info(data).chunks] == ["segment"]
    assert laconic.decompress(data).tags == {}


def test_damage_of_what_stands_around(file: bytes) -> None:
    header, chunks = container.read(file, lossless_sound.KINDS)
    for payload in (b"", b"\x05", b"\x05\x00no zlib", b"\xff\xff\xff\xff\x7f\x00"):
        bad = container.write(header, [*chunks, Chunk(WRAPPING, payload, optional=True)])
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            laconic.decompress(bad)
        notes: list[str] = []
        laconic.decompress(bad, partial=True, notes=notes)
        assert "left out: what stood around" in notes[0]


@pytest.mark.parametrize("format", ["FLAC", "AIFF", "CAF", "W64"])
def test_other_formats_hold_the_samples(file: bytes, tone: np.ndarray, format: str) -> None:
    out = io.BytesIO()
    laconic.Codec().decompress_to(out, file, format=format)
    out.seek(0)
    samples, rate = soundfile.read(out, dtype="int16")
    assert rate == RATE and np.array_equal(samples, tone)


def test_a_format_that_cannot_hold_them_is_refused() -> None:
    data = laconic.compress(np.zeros(9, np.int32), sample_rate=RATE, lossless=True)
    with pytest.raises(laconic.BadInput, match="FLAC output: found 'samples of 32"):
        laconic.Codec().decompress_to(io.BytesIO(), data, format="FLAC")
    data = laconic.compress(np.zeros(9, np.float32), sample_rate=RATE, lossless=True)
    with pytest.raises(laconic.BadInput, match="FLAC output: found 'float samples of 32"):
        laconic.Codec().decompress_to(io.BytesIO(), data, format="FLAC")


def test_a_long_wav_is_rf64() -> None:
    many = sound.Source(RATE, 2, 16, 1 << 31, lambda n: iter(()))
    before, after = sound.wav_around(many)
    assert before[:4] == b"RF64" and int.from_bytes(before[28:36], "little") == 1 << 33 and after == b""


@given(st.integers(1, 1 << 23), st.integers(1, 8), st.sampled_from([8, 16, 24, 32]), st.integers(0, 9))
def test_a_new_wav_file_is_read_by_others(rate: int, channels: int, bits: int, length: int) -> None:
    out = io.BytesIO()
    samples = np.full((length, channels), -7, np.int32)
    sound.write(
        out,
        [samples],
        sound.Source(rate, channels, bits, length, lambda n: iter(()), tags={"artist": "x", "none": "y"}),
    )
    out.seek(0)
    back = sound.open_sound(out)
    assert (back.sample_rate, back.channels, back.bits, back.n_samples) == (rate, channels, bits, length)
    assert back.tags == {"artist": "x"} and all((block == -7).all() for block in back.blocks(5))
