"""No sample is lost with success: each row of the table of readers, headers that lie, chained and damaged streams."""

from __future__ import annotations

import hashlib
import io
import runpy
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic import sound, sound_read, sound_streams
from laconic.sound_read import TABLE

made_sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_sounds.py"))))
aiff, by_library, caf, chunk = made_sounds.aiff, made_sounds.by_library, made_sounds.caf, made_sounds.chunk
ogg_flac, tone, wav, with_total = made_sounds.ogg_flac, made_sounds.tone, made_sounds.wav, made_sounds.with_total
RATE = made_sounds.RATE
FORMATS = Path(__file__).parent.parent / "data" / "sounds"
ID3 = b"ID3\4\0\0\0\0\1\0" + bytes(128)
PCM16 = (tone(3000, 1) >> 16).astype("<i2")


def read(raw: bytes, n: int = 777) -> tuple[np.ndarray, sound.Source]:
    """All samples, n at a time, and the source with its notes."""
    source = sound.open_sound(io.BytesIO(raw))
    blocks = list(source.blocks(n))
    assert all(len(block) == n for block in blocks[:-1])
    source.wrapping()
    dtype = f"f{source.bits // 8}" if source.floating else "i4"
    return np.concatenate([np.zeros((0, source.channels), dtype), *blocks]), source


def made(container: str, coding: str, width: int, channels: int) -> tuple[bytes, np.ndarray | None]:
    """A file of this row of the table and the samples in it, None where its coding loses."""
    x = tone(3000, channels)
    library = {"RIFX": "WAV", "Ogg": "OGG", "MPEG": "MP3"}.get(container, container)
    if coding == "PCM":
        subtype = {8: "PCM_U8" if library in ("WAV", "RF64", "W64") else "PCM_S8"}.get(width, f"PCM_{width}")
        raw = by_library(x, library, subtype)
        return (as_rifx(raw, width // 8) if container == "RIFX" else raw), x >> 32 - width
    if coding == "FLOAT":
        floats = (x / 2.0**31).astype(f"f{width // 8}")
        raw = by_library(floats, library, {32: "FLOAT", 64: "DOUBLE"}[width])
        return (as_rifx(raw, width // 8) if container == "RIFX" else raw), floats
    if coding == "ALAC":
        return by_library(x, "CAF", f"ALAC_{width}"), (x >> 32 - width) << (4 if width == 20 else 0)
    if coding == "DWVW":
        return by_library(x[:, :1], "AIFF", f"DWVW_{width}"), x[:, :1] >> 32 - width
    if coding == "FLAC":
        raw = by_library(x, "FLAC", {8: "PCM_S8"}.get(width, f"PCM_{width}"))
        return (ogg_flac(raw) if container == "Ogg" else raw), x >> 32 - width
    subtype = {"NMS_ADPCM": "NMS_ADPCM_32", "MPEG": "MPEG_LAYER_III"}.get(coding, coding)
    raw = by_library(x / 2.0**31, library, subtype, 48000 if container in ("Ogg", "MPEG") else RATE)
    return (as_rifx(raw, 1) if container == "RIFX" else raw), None


def as_rifx(raw: bytes, width: int) -> bytes:
    """A WAV file with all bytes in the other order."""
    out, at = b"RIFX" + raw[7:3:-1] + b"WAVE", 12
    while at < len(raw):
        name, size = raw[at : at + 4], struct.unpack("<I", raw[at + 4 : at + 8])[0]
        body = raw[at + 8 : at + 8 + size]
        if name == b"data":
            body = np.frombuffer(body, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
        elif name == b"fmt ":
            fields = struct.unpack("<HHIIHH", body[:16])
            body = struct.pack(">HHIIHH", *fields) + struct.pack(">H", 0) * (size > 16)
        if name in (b"fmt ", b"data"):
            out += name + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)
        at += 8 + size + size % 2
    return out[:4] + struct.pack(">I", len(out) - 8) + out[8:]


CASES = [
    (container, coding, width, channels)
    for row in TABLE
    for container in row.containers
    for coding in row.codings
    for width in sorted(row.widths or {16})
    for channels in (1, 2)
    if channels in row.channels and not (coding in ("ULAW", "ALAW") and width == 16) and not (coding == "GSM610" and channels > 1)
]  # fmt: skip
CASES = [case for case in CASES if case[3] == 1 or case[:2] not in (("AIFF", "DWVW"), ("AIFF", "IMA_ADPCM"))]
CASES += [("CAF", "ALAC", width, 8) for width in (16, 24, 32)]
CASES += [("WAV", "PCM", 24, 8), ("FLAC", "FLAC", 24, 8), ("Ogg", "FLAC", 16, 6), ("CAF", "ALAC", 24, 6)]


@pytest.mark.parametrize("container, coding, width, channels", CASES)
def test_each_row_of_the_table_is_whole_or_noted(container: str, coding: str, width: int, channels: int) -> None:
    raw, expected = made(container, coding, width, channels)
    samples, source = read(raw)
    assert source.channels == channels == samples.shape[1] and source.n_samples == len(samples)
    if expected is not None:
        assert np.array_equal(samples, expected) and source.notes == []
        assert source.bits == {20: 24}.get(width, width) and source.floating == (coding == "FLOAT")
        return
    assert ["decoded from" in note for note in source.notes] == [True]
    assert len(samples) >= 3000
    whole, _ = soundfile.read(io.BytesIO(raw), frames=4000, always_2d=True) if container not in NOT_SOUGHT else (None, 0)
    if whole is not None and container != "RIFX" and "GSM" not in coding and "G72" not in coding:
        expected = (whole * 32768).round().clip(-32768, 32767)
        assert np.array_equal(samples[: len(expected)], expected)


NOT_SOUGHT = ("MPEG",)  # libsndfile's wrapper seeks after each read, and MP3 then begins anew


@pytest.mark.parametrize(
    "raw, named",
    [
        (wav(bytes(800), 64), "WAV of PCM samples of 64 bits"),
        (wav(bytes(800), 16, tag=3), "WAV of FLOAT samples of 16 bits"),
        (wav(bytes(800), 16, tag=0x55), "WAV of coding format 0x0055"),
        (wav(bytes(800), 16, tag=0xFFFE), "WAV of coding format 0xfffe"),
        (aiff(bytes(800), 16, b"MAC3", stated=100), "AIFF of coding b'MAC3'"),
        (caf(bytes(800), 16, 0, kind=b"aac "), "CAF of coding b'aac '"),
        (b".snd" + struct.pack(">IIIII", 24, 800, 99, RATE, 1) + bytes(800), "AU of coding encoding 99"),
        (b"RIFF\x10\0\0\0AVI LIST" + bytes(8), "RIFF of type b'AVI '"),
        (b"\0\0\0\x20ftypM4A " + bytes(40), "MPEG-4"),
        (b"wvpk" + bytes(60), "WavPack"),
        (b"MAC \x96\x0f" + bytes(60), "Monkey's Audio"),
        (b"\xff\xf1\x50\x80" + bytes(60), "AAC"),
        (by_library(tone(100, 1), "VOC", "PCM_16"), "Creative VOC"),
        (by_library(tone(100, 1), "IRCAM", "PCM_16"), "IRCAM"),
        (by_library(tone(100, 1), "SVX", "PCM_16"), "IFF 16SV"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_named(raw: bytes, named: str) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected") as refused:
        read(raw)
    assert named in str(refused.value)
    assert sound.is_sound(raw[:12]) or "AVI" in named


@pytest.mark.parametrize("name", ["a.m4a", "b.WV", "c.mka", "d.aac", "e.wma", "f.mid"])
def test_foreign_suffixes_get_words_about_sounds(name: str) -> None:
    assert sound.is_sound(b"\x1aE\xdf\xa3" + bytes(8), name)
    with pytest.raises(laconic.BadInput, match=r"sound: found [A-Z].*, expected WAV.*ffmpeg"):
        sound.open_sound(io.BytesIO(bytes(100)), name)


def test_alac_of_20_bits_is_read_where_libsndfile_reads_it_right() -> None:
    with pytest.raises(laconic.BadInput, match="channels: found 2, expected at most 1 in CAF ALAC of 20 bits"):
        read(by_library(tone(), "CAF", "ALAC_20"))


def test_flac_of_other_depths_is_refused_with_the_reason() -> None:
    flac = bytearray(by_library(tone(), "FLAC", "PCM_16"))
    for bits in (12, 20, 32):
        packed = int.from_bytes(flac[18:26], "big") & ~(31 << 36) | (bits - 1) << 36
        with pytest.raises(laconic.BadInput, match=f"FLAC samples of {bits} bits', expected 8, 16, 24 bits"):
            read(bytes(flac[:18]) + packed.to_bytes(8, "big") + bytes(flac[26:]))


@pytest.mark.parametrize("sizes", [(36, 0), (36 + 2000, 2000), (0, 2000), (0, 0), (0xFFFFFFFF, 0xFFFFFFFF)], ids=str)
@pytest.mark.parametrize("tail", [PCM16.tobytes(), bytes(6000)], ids=["noise", "silence"])
def test_wav_data_that_the_file_outruns_runs_to_the_end(sizes: tuple[int, int], tail: bytes) -> None:
    first = PCM16[:1000].tobytes() if sizes[1] else b""
    samples, source = read(wav(first + tail, riff=sizes[0], size=sizes[1]))
    assert samples.tobytes() == np.frombuffer(first + tail, "<i2").astype("i4").tobytes()
    assert len(source.notes) == (sizes[1] != 0xFFFFFFFF)
    around = source.wrapping()
    assert around is not None and len(around[0]) == 44 and around[1] == b""


def test_chunks_after_the_data_are_no_samples() -> None:
    for after in (chunk(b"LIST", b"INFO"), b"TAG" + bytes(125), b"junk", ID3):
        samples, source = read(wav(PCM16.tobytes(), after=after))
        assert len(samples) == 3000 and source.notes == []


def test_more_than_16_mib_around_the_samples_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_read, "MAX_WRAPPING", 4000)
    big = bytes(5000)
    for raw in (
        wav(PCM16.tobytes(), after=chunk(b"blob", big)),
        aiff(PCM16.astype(">i2").tobytes(), 16, stated=3000, after=chunk(b"APPL", big, ">")),
        caf(PCM16.tobytes(), 16, 2, chunks=b"blob" + struct.pack(">q", 5000) + big),
        by_library(tone(), "FLAC", "PCM_16") + bytes(200_000),
    ):
        with pytest.raises(laconic.BadInput, match=r"found '\d+ bytes.*expected at most 4000"):
            read(raw)


def test_two_data_chunks_are_joined() -> None:
    first, second = PCM16[:1000].tobytes(), PCM16[1000:].tobytes()
    samples, source = read(wav(first, after=chunk(b"LIST", b"INFO") + chunk(b"data", second)))
    assert np.array_equal(samples[:, 0], PCM16[:, 0]) and "will not come back" in source.notes[0]
    big = [part.astype(">i2").tobytes() for part in (PCM16[:1000], PCM16[1000:])]
    samples, source = read(aiff(big[0], 16, stated=3000, after=chunk(b"SSND", bytes(8) + big[1], ">")))
    assert np.array_equal(samples[:, 0], PCM16[:, 0]) and "joined" in source.notes[0]


BIG = PCM16.astype(">i2").tobytes()


@pytest.mark.parametrize(
    "raw, n_notes",
    [
        (aiff(BIG, 16, stated=3000), 0),
        (aiff(BIG, 16, stated=0, size=0), 1),
        (aiff(BIG, 16, stated=1000, size=2008), 1),
        (aiff(BIG, 16, stated=1000), 1),
        (aiff(BIG, 16, stated=2999), 1),
        (aiff(BIG, 16, stated=9999), 1),
        (aiff(PCM16.tobytes(), 16, b"sowt", stated=3000), 0),
        (caf(BIG, 16, 0), 0),
        (caf(BIG, 16, 0, size=-1), 0),
        (caf(BIG, 16, 0, size=0), 1),
        (caf(BIG, 16, 0, size=1004), 1),
        (caf(PCM16.tobytes(), 16, 2), 0),
    ],
)
def test_aiff_and_caf_whose_counts_disagree(raw: bytes, n_notes: int) -> None:
    samples, source = read(raw)
    assert np.array_equal(samples[:, 0], PCM16[:, 0]) and len(source.notes) == n_notes


@pytest.mark.parametrize("size, n_notes", [(0, 1), (124, 1), (1 << 40, 1), (24 + 12000, 0)])
def test_w64_whose_size_lies(size: int, n_notes: int) -> None:
    raw = by_library(tone() >> 0, "W64", "PCM_16")
    at = raw.index(b"data") + 16
    samples, source = read(raw[:at] + struct.pack("<Q", size) + raw[at + 8 :])
    assert np.array_equal(samples, tone() >> 16) and len(source.notes) == n_notes


@pytest.mark.parametrize("size, n_notes", [(0, 1), (100, 1), (10**9, 1), (12000, 0), (0xFFFFFFFF, 0)])
def test_au_whose_size_lies(size: int, n_notes: int) -> None:
    raw = by_library(tone(), "AU", "PCM_16")
    samples, source = read(raw[:8] + struct.pack(">I", size) + raw[12:])
    assert np.array_equal(samples, tone() >> 16) and len(source.notes) == n_notes


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "W64", "AU", "FLAC", "OGG", "NIST"])
def test_an_id3_tag_in_front_is_skipped_and_kept(format: str) -> None:
    raw = by_library(tone(), format, "VORBIS" if format == "OGG" else "PCM_16")
    samples, source = read(ID3 + raw)
    assert np.array_equal(samples, read(raw)[0])
    if format == "WAV":
        around = source.wrapping()
        assert around is not None and around[0].startswith(ID3)
    else:
        assert [(one.kind, one.data) for one in source.attached] == [("id3", ID3)]


@pytest.mark.parametrize("total", [0, 1, 1000, 2999, 3000])
def test_flac_is_read_to_its_end_whatever_it_counts(total: int) -> None:
    flac = by_library(tone(), "FLAC", "PCM_16")
    for tail in (b"", b"TAG" + bytes(125)):
        samples, source = read(with_total(flac, total) + tail)
        assert np.array_equal(samples, tone() >> 16)
        assert len(source.notes) == (total not in (0, 3000)) + bool(tail)


@pytest.mark.parametrize("total", [3001, 100_000])
def test_flac_that_counts_more_than_there_is_is_refused(total: int) -> None:
    with pytest.raises(laconic.BadInput, match=f"found '3000 samples', expected {total}"):
        read(with_total(by_library(tone(), "FLAC", "PCM_16"), total))


@pytest.mark.parametrize("subtype, width", [("PCM_S8", 1), ("PCM_16", 2), ("PCM_24", 3)])
def test_md5_of_flac_is_compared(subtype: str, width: int) -> None:
    flac = by_library(tone(), "FLAC", subtype)
    raw = (tone() >> 32 - 8 * width).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    assert flac[26:42] == hashlib.md5(raw).digest()
    with pytest.raises(laconic.BadInput, match="MD5 of the samples: found"):
        read(flac[:26] + bytes([flac[26] ^ 1]) + flac[27:])
    assert len(read(flac[:26] + bytes(16) + flac[42:])[0]) == 3000  # not set
    with pytest.raises(laconic.BadInput, match="MD5"):
        read(ogg_flac(flac[:26] + bytes([flac[26] ^ 1]) + flac[27:]))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_damaged_and_cut_flac_is_refused_or_right(data: st.DataObject) -> None:
    flac = by_library(tone(), "FLAC", "PCM_16")
    at = data.draw(st.integers(0, len(flac) - 1))
    if data.draw(st.booleans()):
        damaged = flac[:at]
    else:
        damaged = flac[:at] + bytes([flac[at] ^ 1 << data.draw(st.integers(0, 7))]) + flac[at + 1 :]
    try:
        samples, source = read(damaged)
    except laconic.BadInput as error:
        assert "found" in str(error) and "expected" in str(error)
        return
    assert np.array_equal(samples, tone() >> 16) or source.channels != 2 or source.bits != 16


def streams() -> dict[str, bytes]:
    """A file of each kind that may be chained."""
    return {
        "VORBIS": (FORMATS / "vorbis_stereo_44k.ogg").read_bytes(),
        "OPUS": (FORMATS / "opus_stereo_48k.opus").read_bytes(),
        "MP3": (FORMATS / "mp3_id3v2_stereo_44k.mp3").read_bytes(),
        "FLAC": by_library(tone(), "FLAC", "PCM_16"),
        "OGG FLAC": ogg_flac(by_library(tone(), "FLAC", "PCM_16")),
    }


@pytest.mark.parametrize("name", streams())
def test_chained_streams_are_kept_whole(name: str) -> None:
    raw = streams()[name]
    once, _ = read(raw)
    for times in (2, 3):
        samples, source = read(raw * times)
        assert np.array_equal(samples, np.concatenate([once] * times))
        assert any(f"{times} streams one after the other" in note for note in source.notes)


def test_chained_streams_that_differ_are_refused() -> None:
    vorbis, mono = streams()["VORBIS"], by_library(tone(3000, 1) / 2.0**31, "OGG", "VORBIS", 44100)
    for other in (streams()["OPUS"], mono, by_library(tone() / 2.0**31, "OGG", "VORBIS", 22050)):
        with pytest.raises(laconic.BadInput, match="Ogg: found .*streams of"):
            read(vorbis + other)
    mpeg = [by_library(tone(9000, c) / 2.0**31, "MP3", "MPEG_LAYER_III", 44100) for c in (1, 2)]
    with pytest.raises(laconic.BadInput, match="MPEG: found 'a stream that changes"):
        read(mpeg[0] + mpeg[1])
    with pytest.raises(laconic.BadInput, match="FLAC: found .*streams of"):
        read(streams()["FLAC"] + by_library(tone(100, 1), "FLAC", "PCM_16"))


def test_streams_side_by_side_are_refused() -> None:
    ogg = ogg_flac(streams()["FLAC"])
    second = ogg.index(b"OggS", 4)
    with pytest.raises(laconic.BadInput, match="several streams at a time"):
        read(ogg[:second] + streams()["VORBIS"])


def test_a_missing_page_is_an_error_and_bytes_are_noted() -> None:
    vorbis = streams()["VORBIS"]
    starts = [i for i in range(len(vorbis)) if vorbis[i : i + 4] == b"OggS"]
    with pytest.raises(laconic.BadInput, match="found '29764 samples', expected 44100"):
        read(vorbis[: starts[3]] + vorbis[starts[4] :])
    samples, source = read(vorbis + b"junk" * 9)
    assert len(samples) == 44100 and any("36 bytes that belong to no page" in note for note in source.notes)


def test_an_mp3_with_tags_everywhere() -> None:
    mp3 = streams()["MP3"]
    once, _ = read(mp3)
    for raw in (mp3 + b"TAG" + bytes(125), ID3 + mp3, mp3[152:]):
        assert np.array_equal(read(raw)[0], once)


@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_of_changing_bit_rate_whose_count_is_missing_or_wrong(channels: int) -> None:
    """libsndfile reads as many samples as the information frame counts, or as it guesses from the first bit rate."""
    loud = np.random.default_rng(0).normal(0, 0.05, (200_000, channels)) * (np.arange(200_000) % 100_000 < 30_000)[:, None]
    out = io.BytesIO()
    ramp = np.linspace(0, 1, 200_000)[:, None]
    x = np.sin(np.arange(200_000) * 0.05)[:, None] * ramp + loud
    soundfile.write(out, x, 44100, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    raw = out.getvalue()
    at, frame = max(raw.find(b"Xing"), raw.find(b"Info")) + 8, sound_streams.frame_size(raw[:4])
    assert at > 8 and len(read(raw)[0]) == 200_000
    for count in (0, 1, 20, 2000):
        samples, source = read(raw[:at] + struct.pack(">I", count) + raw[at + 4 :])
        assert len(samples) >= 200_000 and len(source.notes) == (1 if count == 0 else 2)
    assert len(read(raw[frame:])[0]) == len(samples)
    assert len(read(raw[: len(raw) // 2])[0]) > 80_000


def test_pipes_of_other_codings() -> None:
    for subtype in ("GSM610", "ULAW", "IMA_ADPCM", "MS_ADPCM"):
        raw = by_library(tone(3000, 1), "WAV", subtype)
        at = raw.index(b"data") + 4
        samples, source = read(raw[:at] + bytes(4) + raw[at + 4 :])
        assert np.array_equal(samples, read(raw)[0]) and "never finished" in source.notes[0]


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "ULAW"])
def test_fewer_samples_than_the_file_states_is_an_error(subtype: str) -> None:
    raw = by_library(tone(3000, 1), "WAV", subtype)
    at = raw.find(b"fact") + 8
    if at < 8:
        raw, at = raw[:36] + chunk(b"fact", struct.pack("<I", 3000)) + raw[36:], 44
    with pytest.raises(laconic.BadInput, match=r"found '\d+ samples', expected 90000"):
        read(raw[:at] + struct.pack("<I", 90000) + raw[at + 4 :])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_bytes_only_our_errors_come(data: st.DataObject) -> None:
    """Damage in the first kilobyte of each container, where the headers are."""
    format, subtype = data.draw(
        st.sampled_from([("WAV", "PCM_16"), ("RF64", "PCM_24"), ("AIFF", "PCM_16"), ("CAF", "ALAC_16"), ("W64", "PCM_16"),
                         ("AU", "ULAW"), ("NIST", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_24")])
    )  # fmt: skip
    x = tone(2000)
    raw = bytearray(by_library(x / 2.0**31 if format in ("OGG", "MP3") else x, format, subtype, 44100))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 1024) - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    cut = data.draw(st.integers(0, len(raw)))
    for one in (bytes(raw), bytes(raw[:cut])):
        try:
            read(one)
        except laconic.BadInput as error:
            assert "found" in str(error) and "expected" in str(error)


@pytest.mark.parametrize("block", [0, 1, 4096, 10**6, 0xFFFFFFFF])
def test_a_block_of_aiff_hides_no_samples(block: int) -> None:
    raw = aiff(PCM16.byteswap().tobytes(), 16, stated=2000)
    at = raw.find(b"SSND") + 12
    samples, source = read(raw[:at] + struct.pack(">I", block) + raw[at + 4 :])
    assert np.array_equal(samples, PCM16) and source.notes == ["the header counts 2000 samples, 3000 are there: all are kept"]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -float("inf"), 0.5])
def test_rates_of_caf_that_are_no_numbers(rate: float) -> None:
    raw = caf(PCM16.tobytes(), 16, 2)
    with pytest.raises(laconic.BadInput, match="sample rate: found"):
        read(raw[:20] + struct.pack(">d", rate) + raw[28:])


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW", "ALAW"])
def test_a_caf_file_that_is_cut_is_read_to_its_end_with_a_note(subtype: str) -> None:
    raw = by_library(tone(3000, 1) / 2.0**31, "CAF", subtype)
    whole, cut = read(raw)[0], read(raw[:-800])
    assert np.array_equal(cut[0], whole[: 3000 - 800 // {"PCM_16": 2, "FLOAT": 4}.get(subtype, 1)])
    assert [note for note in cut[1].notes if "ends early" in note]


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW"])
def test_a_cut_wav_of_another_coding_is_noted_or_refused(subtype: str) -> None:
    raw = by_library(tone(3000, 1), "WAV", subtype)
    try:
        _, source = read(raw[:-77])
    except laconic.BadInput:
        return
    assert [note for note in source.notes if "ends early" in note]


def test_a_short_tail_after_a_shorter_stretch_of_samples_is_samples() -> None:
    samples, source = read(wav(PCM16[:500].tobytes(), size=36))
    assert np.array_equal(samples, PCM16[:500]) and "never finished" in source.notes[0]


def test_bytes_that_are_no_whole_sample_and_tails_are_named() -> None:
    au = by_library(tone(3000), "AU", "PCM_16")
    assert "less than a sample" in read(au[:8] + b"\xff" * 4 + au[12:-2])[1].notes[0]
    assert "less than a sample" in read(caf(PCM16.tobytes()[:-1], 16, 2, size=-1))[1].notes[0]
    assert read(au + bytes(500))[1].notes == ["left out: 500 bytes after the last chunk"]
    samples, source = read(by_library(tone(3000, 1), "W64", "PCM_16") + b"TAG" + bytes(125))
    assert np.array_equal(samples, PCM16) and source.notes == ["left out: 128 bytes after the last chunk"]


@pytest.mark.parametrize("start", [0, 23, 10**6, 0xFFFFFFFF])
def test_au_samples_that_begin_nowhere_are_refused(start: int) -> None:
    au = by_library(tone(3000), "AU", "PCM_16")
    with pytest.raises(laconic.BadInput, match="AU samples: found 'from byte"):
        read(au[:4] + struct.pack(">I", start) + au[8:])


def test_alac_that_decodes_to_more_than_its_table_counts_is_noted() -> None:
    raw = by_library(tone(9000, 1), "CAF", "ALAC_16")
    at = raw.find(b"pakt") + 20
    samples, source = read(raw[:at] + struct.pack(">q", 5000) + raw[at + 8 :])
    assert len(samples) == 9000 and "counts 5000 samples, 9000 are there" in source.notes[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_stream_without_its_last_page_is_noted(subtype: str) -> None:
    raw = by_library(tone(48000) / 2.0**31, "OGG", subtype, 48000)
    assert "last page" not in "".join(read(raw)[1].notes)
    assert "no last page" in "".join(read(raw[: raw.rfind(b"OggS")])[1].notes)


def test_an_mp3_whose_tag_is_followed_by_zeros_is_read() -> None:
    raw = by_library(tone(20000) / 2.0**31, "MP3", "MPEG_LAYER_III", 48000)
    samples, source = read(ID3 + bytes(500) + raw)
    assert np.array_equal(samples, read(raw)[0]) and "500 bytes" in source.notes[0]


@pytest.mark.parametrize("format, subtype", [("CAF", "ULAW"), ("CAF", "ALAW"), ("WAV", "GSM610"), ("WAV", "ULAW"), ("WAV", "MS_ADPCM")])
def test_other_codings_whose_size_says_nothing_are_read_to_the_end(format: str, subtype: str) -> None:
    raw = by_library(tone(3000, 1), format, subtype)
    at, unknown = raw.find(b"data") + 4, b"\xff" * (8 if format == "CAF" else 4)
    assert np.array_equal(read(raw[:at] + unknown + raw[at + len(unknown) :])[0], read(raw)[0])
