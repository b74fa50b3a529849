"""What stands beside the samples: every text, every picture and the layout come back, or a note names what is left out."""

from __future__ import annotations

import io
import json
import runpy
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mutagen.aiff
import mutagen.apev2
import mutagen.flac
import mutagen.id3
import mutagen.oggvorbis
import mutagen.wave
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic import container, sound
from laconic.container import Chunk, Header, write_varint
from laconic.media import lossless_sound, sound_parts
from laconic.media.lossless_sound import SOUND
from laconic.media.sound_parts import ATTACHED, COMMENTS, LAYOUT, TAGS
from laconic.sound import Attached
from laconic.sound_tags import id3_tag

made_sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_sounds.py"))))
by_library, caf, chunk, wav = made_sounds.by_library, made_sounds.caf, made_sounds.chunk, made_sounds.wav
FORMATS = Path(__file__).parent.parent / "data" / "sounds"
RATE = 8000
FEW = made_sounds.tone(300)
TEXTS = [("TITLE", "t"), ("ARTIST", "a"), ("ARTIST", "b"), ("ALBUMARTIST", "ä"), ("COMPOSER", "c"), ("Mixed", "m")]
TEXTS += [("REPLAYGAIN_TRACK_GAIN", "-3.1 dB"), ("LYRICS", "la\nla"), ("write", "w"), ("__class__", "x")]


def picture(type: int, desc: str) -> mutagen.flac.Picture:
    out = mutagen.flac.Picture()
    out.data, out.mime, out.type, out.desc = b"\x89PNG" + bytes([type] * 50), "image/png", type, desc
    return out


@pytest.fixture(scope="module")
def tagged() -> bytes:
    """A FLAC file with texts, repeated and odd ones, two pictures, a cue sheet and an application block."""
    out = io.BytesIO(by_library(FEW, "FLAC", "PCM_16"))
    flac: Any = mutagen.flac.FLAC(out)
    flac.tags.extend(TEXTS)
    flac.add_picture(picture(3, "front"))
    flac.add_picture(picture(4, ""))
    cue = mutagen.flac.CueSheet(bytes(136) + b"\x80" + bytes(258) + b"\1" + bytes(8) + b"\xaa" + bytes(27))
    other: Any = mutagen.flac.MetadataBlock(b"riffabcd")
    other.code = 2
    flac.metadata_blocks += [cue, other]
    out.seek(0)
    flac.save(out)
    return out.getvalue()


@pytest.fixture(scope="module")
def coded(tagged: bytes) -> bytes:
    return squeezed(tagged)


def squeezed(raw: bytes, notes: list[str] | None = None) -> bytes:
    return laconic.compress(io.BytesIO(raw), lossless=True, effort=1, notes=[] if notes is None else notes)


def out_of(data: bytes, format: str, **options: Any) -> tuple[bytes, list[str]]:
    """The file that a sound decompresses to, and notes."""
    out, notes = io.BytesIO(), list[str]()
    laconic.Codec().decompress_to(out, data, format=format, notes=notes, **options)
    return out.getvalue(), notes


def opened(raw: bytes) -> sound.Source:
    return sound.open_sound(io.BytesIO(raw))


def test_flac_tags_and_pictures_come_back_as_they_were(tagged: bytes, coded: bytes) -> None:
    raw, notes = out_of(coded, "FLAC")
    before, after = (mutagen.flac.FLAC(io.BytesIO(one)) for one in (tagged, raw))
    assert list(after.tags) == TEXTS == list(before.tags) and notes == []  # type: ignore[arg-type]
    assert [one.write() for one in after.pictures] == [one.write() for one in before.pictures]
    blocks = [[(one.code, one.write()) for one in file.metadata_blocks if one.code in (2, 5)] for file in (before, after)]
    assert blocks[0] == blocks[1] and len(blocks[0]) == 2
    assert np.array_equal(soundfile.read(io.BytesIO(raw), dtype="int16")[0], FEW >> 16)


def test_a_sound_in_memory_has_them_and_comes_back(coded: bytes) -> None:
    held = laconic.decompress(coded)
    assert held.comments == tuple(TEXTS) and held.tags == {"title": "t", "artist": "a"}
    assert [one.kind for one in held.attached] == ["picture", "picture", "cuesheet", "application"]
    again = laconic.decompress(laconic.compress(held, lossless=True, effort=1))
    assert again == held and (again != held) is False
    assert held != laconic.Sound(held.samples, RATE, 16) and held != 5


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "W64"])
def test_other_formats_hold_them_or_a_note_names_them(format: str, coded: bytes) -> None:
    raw, notes = out_of(coded, format)
    assert np.array_equal(soundfile.read(io.BytesIO(raw), dtype="int16")[0], FEW >> 16)
    assert len(notes) == 1 and "cuesheet; application" in notes[0]
    if format == "W64":
        assert all(f"{name} tags" in notes[0] for name, _ in TEXTS) and "2 pictures" in notes[0]
        return
    back, more = out_of(squeezed(raw), "FLAC")
    flac = mutagen.flac.FLAC(io.BytesIO(back))
    known = sorted((name.lower(), text) for name, text in TEXTS)
    assert sorted((name.lower(), text) for name, text in flac.tags) == known and more == []  # type: ignore[union-attr]
    if format == "CAF":
        assert "2 pictures" in notes[0]
    else:
        assert [one.data for one in flac.pictures] == [one.data for one in (picture(3, ""), picture(4, ""))]


@pytest.mark.parametrize("format", ["AIFF", "WAV"])
def test_id3_tags_of_chunks_are_kept_whole(format: str) -> None:
    out = io.BytesIO(by_library(FEW, format, "PCM_16"))
    file: Any = (mutagen.aiff.AIFF if format == "AIFF" else mutagen.wave.WAVE)(out)
    file.add_tags()
    file.tags.add(mutagen.id3.TPE1(encoding=3, text=["a", "b"]))
    file.tags.add(mutagen.id3.APIC(encoding=3, mime="image/png", type=3, desc="front", data=b"\x89PNG"))
    file.tags.add(mutagen.id3.PRIV(owner="me", data=b"1234"))
    out.seek(0)
    file.save(out)
    notes = list[str]()
    data = squeezed(out.getvalue(), notes)
    assert notes == []
    raw, notes = out_of(data, format)
    again: Any = (mutagen.aiff.AIFF if format == "AIFF" else mutagen.wave.WAVE)(io.BytesIO(raw))
    assert notes == [] and again.tags.pprint() == file.tags.pprint() and again.tags.getall("PRIV")[0].data == b"1234"
    raw, notes = out_of(data, "FLAC")
    flac = mutagen.flac.FLAC(io.BytesIO(raw))
    assert flac["artist"] == ["a", "b"] and flac.pictures[0].data == b"\x89PNG" and "ID3 frames PRIV" in notes[0]


def test_what_a_comment_says_beside_its_text_is_named() -> None:
    out = io.BytesIO(by_library(FEW, "WAV", "PCM_16"))
    file: Any = mutagen.wave.WAVE(out)
    file.add_tags()
    file.tags.add(mutagen.id3.COMM(encoding=3, lang="deu", desc="mood", text=["quiet"]))
    out.seek(0)
    file.save(out)
    raw, notes = out_of(squeezed(out.getvalue()), "FLAC")
    assert mutagen.flac.FLAC(io.BytesIO(raw))["comment"] == ["quiet"] and "COMM (its description)" in notes[0]


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(laconic.BadInput, match="sound: found an empty file, expected"):
        laconic.compress(tmp_path / "x.wav", lossless=True)


def test_ogg_comments_and_pictures_are_kept() -> None:
    import base64

    out = io.BytesIO((FORMATS / "vorbis_stereo_44k.ogg").read_bytes())
    ogg: Any = mutagen.oggvorbis.OggVorbis(out)
    ogg.tags.extend([*TEXTS, ("METADATA_BLOCK_PICTURE", base64.b64encode(picture(3, "front").write()).decode())])
    out.seek(0)
    ogg.save(out)
    raw, _ = out_of(squeezed(out.getvalue()), "FLAC")
    flac = mutagen.flac.FLAC(io.BytesIO(raw))
    assert list(flac.tags) == TEXTS and flac.pictures[0].write() == picture(3, "front").write()  # type: ignore[arg-type]


def test_mp3_tags_of_three_kinds_are_kept() -> None:
    mp3 = (FORMATS / "mp3_id3v2_stereo_44k.mp3").read_bytes()
    raw, notes = out_of(squeezed(mp3), "AIFF")
    tags: Any = mutagen.aiff.AIFF(io.BytesIO(raw)).tags
    assert tags.pprint() == mutagen.id3.ID3(io.BytesIO(mp3)).pprint() and notes == []
    bare = mp3[152:]
    old = b"TAG" + b"Title".ljust(30, b"\0") + b"Someone".ljust(30, b"\0") + bytes(64) + b"\xff"
    assert len(old) == 128 and opened(bare + old).tags == {"title": "Title", "artist": "Someone"}
    ape = io.BytesIO(bare)
    new = mutagen.apev2.APEv2()
    new["Artist"], new["Cover Art (Front)"] = ["a", "b"], mutagen.apev2.APEBinaryValue(b"c.png\0\x89PNG")
    new.save(ape)
    source = opened(ape.getvalue())
    assert source.comments == (("Artist", "a"), ("Artist", "b"))
    assert [mutagen.flac.Picture(one.data).data for one in source.attached] == [b"\x89PNG"]


def test_texts_of_aiff_caf_au_and_nist() -> None:
    texts = chunk(b"ANNO", b"one", ">") + chunk(b"ANNO", b"two", ">") + chunk(b"NAME", b"n", ">") + chunk(b"MARK", b"..", ">")
    source = opened(made_sounds.aiff(bytes(600), 16, stated=300, after=texts))
    assert source.comments == (("comment", "one"), ("comment", "two"), ("title", "n"))
    assert source.notes == ["left out: the AIFF chunks MARK"]
    info = struct.pack(">I", 2) + b"title\0t\0Subject\0s\0"
    source = opened(caf(bytes(600), 16, 2, chunks=b"info" + struct.pack(">q", len(info)) + info))
    assert source.comments == (("title", "t"), ("Subject", "s")) and source.tags == {"title": "t"}
    assert opened(b".snd" + struct.pack(">IIIII", 32, 600, 3, RATE, 1) + b"note\0\0\0\0" + bytes(600)).tags == {"comment": "note"}
    nist = by_library(FEW, "NIST", "PCM_16").replace(b"sample_n_bytes", b"speaker_id -s3 me1\nsample_n_bytes", 1)
    assert ("speaker_id", "me1") in opened(nist[:1024] + nist[1043:]).comments


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "CAF", "W64"])
def test_odd_names_and_empty_values_do_no_harm(format: str) -> None:
    tags = {"title": "", "artist": "ü", "write": "w", "__class__": "q", "seek": "5", "": "x", "a=b": "y", "date": ""}
    data = laconic.compress(laconic.Sound(FEW >> 16, RATE, 32, tags), lossless=True, effort=1)
    if format == "FLAC":
        with pytest.raises(laconic.BadInput, match="FLAC output: found 'samples of 32"):
            out_of(data, format)
    data = laconic.compress(laconic.Sound((FEW >> 16).astype(np.int16), RATE, 16, tags), lossless=True, effort=1)
    raw, notes = out_of(data, format)
    source = opened(raw)
    assert np.array_equal(next(source.blocks(300)), FEW >> 16)
    if format == "FLAC":
        assert len(notes) == 2 and all("cannot hold" in note for note in notes)
    assert source.tags == ({} if format == "W64" else {"artist": "ü"})


@pytest.mark.parametrize("name, mask", [("pcm16_5.1_48k_extensible.wav", 0x3F), ("pcm16_8ch_44k_extensible.wav", 0x63F)])
def test_the_layout_of_channels_is_kept(name: str, mask: int) -> None:
    data = squeezed((FORMATS / name).read_bytes())
    part, notes = out_of(data, "WAV", duration=0.01)
    assert struct.unpack("<I", part[40:44])[0] == mask and notes == []
    for format in ("FLAC", "AIFF", "CAF"):
        raw, notes = out_of(data, format)
        assert opened(raw).layout == mask and notes == []
        assert struct.unpack("<I", out_of(squeezed(raw), "WAV")[0][40:44])[0] == mask
    assert "layout of the channels" in out_of(data, "W64")[1][0]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(1, 0), (1, 1), (2, 0x600), (3, 0), (4, 0x603), (4, 0x33), (4, 0), (5, 0x607), (6, 0x60F), (8, 0xFF)]))
def test_layouts_other_than_flac_s_own(case: tuple[int, int]) -> None:
    channels, mask = case
    held = laconic.Sound(np.zeros((9, channels), np.int16), RATE, 16, layout=mask)
    data = laconic.compress(held, lossless=True, effort=1)
    assert laconic.decompress(data) == held
    for format in ("FLAC", "AIFF", "CAF", "WAV"):
        raw, _ = out_of(data, format)
        kept = laconic.decompress(squeezed(raw))
        assert kept.layout == mask, format


def test_chunks_of_wav_that_a_part_or_another_format_lacks_are_named() -> None:
    inside = chunk(b"bext", bytes(602)) + chunk(b"smpl", bytes(36))
    data = squeezed(wav(FEW.astype("<i2").tobytes(), before=inside, after=chunk(b"cue ", bytes(4))))
    assert out_of(data, "WAV")[1] == []
    for format, part in (("WAV", {"duration": 0.01}), ("WAV", {"seek": 0.001}), ("FLAC", {}), ("AIFF", {}), ("CAF", {})):
        assert out_of(data, format, **part)[1][0] == "left out: the WAV chunks bext, smpl, cue"


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("bits, dtype", [(8, np.uint8), (16, np.int16), (24, np.int32)])
def test_an_empty_sound_is_a_valid_file(channels: int, bits: int, dtype: type) -> None:
    held = laconic.Sound(np.zeros((0, channels), dtype), RATE, bits, {"title": "nothing"})
    data = laconic.compress(held, lossless=True)
    for format in ("WAV", "FLAC", "AIFF", "CAF"):
        back = laconic.decompress(squeezed(out_of(data, format)[0]))
        assert (back.samples.shape, back.bits, back.tags) == ((0, channels), bits, {"title": "nothing"})
    info = mutagen.flac.FLAC(io.BytesIO(out_of(data, "FLAC")[0])).info
    assert (info.channels, info.bits_per_sample, info.total_samples) == (channels, bits, 0)


class Pipe(io.RawIOBase):
    """A file that does not seek, as a pipe."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "CAF", "W64"])
def test_a_pipe_gets_the_same_file(format: str, coded: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = Pipe()
    laconic.Codec().decompress_to(pipe, coded, format=format, notes=[])  # type: ignore[arg-type]
    assert pipe.data == out_of(coded, format)[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rate", [655_351, 700_000, (1 << 24) - 1])
def test_rates_beyond_flac_s_are_refused(rate: int) -> None:
    data = laconic.compress((FEW >> 16).astype(np.int16), sample_rate=rate, lossless=True, effort=1)
    with pytest.raises(laconic.BadInput, match=f"FLAC output: found '{rate} Hz', expected at most 655350"):
        out_of(data, "FLAC")
    assert opened(out_of(data, "AIFF")[0]).sample_rate == rate


def empty(*chunks: Chunk) -> bytes:
    fields = b"".join(map(write_varint, (RATE, 1, 16, 0, 1000)))
    return container.write(Header(SOUND, "", b"", fields), list(chunks))


def squashed(raw: bytes) -> bytes:
    return write_varint(len(raw)) + zlib.compress(raw, 9)


@pytest.mark.parametrize("kind", [TAGS, COMMENTS])
@pytest.mark.parametrize(
    "raw",
    [b"[" * 200_000, b"[" + b"{}," * 22_000_000 + b"{}]", b"[" + b"{}," * 300_000 + b"{}]", b"{", b"5", b'[["a"]]', b'[["a", 5]]'],
    ids=["deep", "long", "many", "cut", "number", "single", "mixed"],
)
def test_hostile_texts_are_damage(kind: int, raw: bytes) -> None:
    with pytest.raises(laconic.BadFile, match="found .*, expected") as error:
        laconic.decompress(empty(Chunk(kind, squashed(raw), optional=True)))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "kind, payload",
    [
        (ATTACHED, squashed(b"no nul")),
        (ATTACHED, squashed(b"\0nothing")),
        (ATTACHED, squashed(b"Picture\0x")),
        (ATTACHED, b"\5"),
        (LAYOUT, b""),
        (LAYOUT, write_varint(1 << 32)),
        (LAYOUT, b"\3\3"),
    ],
)
def test_damage_beside_the_samples(kind: int, payload: bytes) -> None:
    data = empty(Chunk(kind, payload, optional=True))
    with pytest.raises(laconic.BadFile, match="found .*, expected"):
        laconic.decompress(data)
    notes: list[str] = []
    assert len(laconic.decompress(data, partial=True, notes=notes).samples) == 0
    assert len(notes) == 1 and notes[0].startswith("damaged, left out")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_tags_do_no_harm(data: st.DataObject) -> None:
    """Samples come, texts come or not; only our errors, whatever the bytes of a tag."""
    kind = data.draw(st.sampled_from(["id3", "flac", "ogg", "ape", "aiff"]))
    files = {"id3": FORMATS / "mp3_id3v2_stereo_44k.mp3", "ogg": FORMATS / "vorbis_stereo_44k.ogg"}
    raw = bytearray(files[kind].read_bytes() if kind in files else tag_files()[kind])
    first, last = {"id3": (10, 150), "ogg": (58, 200), "ape": (len(raw) - 100, len(raw))}.get(kind, (42, 600))
    if kind == "aiff":
        first, last = len(raw) - 100, len(raw)
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(first, last - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    try:
        source = opened(bytes(raw))
        samples = next(source.blocks(100))
    except laconic.BadInput:
        return
    assert len(samples) == 100
    made = sound.Source(RATE, 2, 16, 0, lambda n: iter(()), tags=source.tags, comments=source.comments, attached=source.attached)
    for format in ("FLAC", "AIFF", "WAV", "CAF"):
        sound.write(io.BytesIO(), [], made, format)


def tag_files() -> dict[str, bytes]:
    """Files with the tags that are damaged."""
    mp3 = io.BytesIO((FORMATS / "mp3_id3v2_stereo_44k.mp3").read_bytes()[152:])
    ape = mutagen.apev2.APEv2()
    ape["Artist"], ape["Cover Art (Front)"] = ["a", "b"], mutagen.apev2.APEBinaryValue(b"c.png\0\x89PNG")
    ape.save(mp3)
    flac, aiff = io.BytesIO(by_library(FEW, "FLAC", "PCM_16")), io.BytesIO(by_library(FEW, "AIFF", "PCM_16"))
    one: Any = mutagen.flac.FLAC(flac)
    one.tags.extend(TEXTS)
    one.add_picture(picture(3, "front"))
    flac.seek(0)
    one.save(flac, padding=lambda info: 0)
    two: Any = mutagen.aiff.AIFF(aiff)
    two.add_tags()
    two.tags.add(mutagen.id3.TPE1(encoding=3, text=["a", "b"]))
    two.tags.add(mutagen.id3.APIC(encoding=3, mime="image/png", type=3, desc="front", data=b"\x89PNG"))
    aiff.seek(0)
    two.save(aiff, padding=lambda info: 0)
    return {"ape": mp3.getvalue(), "flac": flac.getvalue(), "aiff": aiff.getvalue()}


def test_damaged_pictures_are_left_out_with_a_note() -> None:
    held = laconic.Sound(np.zeros(9, np.int16), RATE, 16, attached=(Attached("picture", b"\xff" * 9), Attached("other", b"1")))
    data = laconic.compress(held, lossless=True)
    for format in ("FLAC", "AIFF", "WAV"):
        assert any("1 damaged" in note for note in out_of(data, format)[1])


def test_texts_too_long_to_keep_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_parts, "MAX_TEXTS", 100)
    held = laconic.Sound(np.zeros(9, np.int16), RATE, 16, {"title": "x" * 99}, (("a", "y" * 99),))
    notes: list[str] = []
    data = laconic.compress(held, lossless=True, notes=notes)
    assert [note.split(":")[0] for note in notes] == ["tags left out", "comments left out"]
    assert laconic.decompress(data).tags == {}


def test_longer_segments_than_the_encoder_writes_are_damage() -> None:
    for rate, most in ((1, 4096), (RATE, 80_000), (1 << 20, 1 << 20)):
        for segment in (most, most + 1):
            fields = b"".join(map(write_varint, (rate, 1, 16, 0, segment)))
            data = container.write(Header(SOUND, "", b"", fields), [])
            if segment == most:
                assert len(laconic.decompress(data).samples) == 0
            else:
                with pytest.raises(laconic.BadFile, match="segment: found"):
                    laconic.decompress(data)


@pytest.mark.parametrize("rate", [1, 2, 50, 409, 410, 8000])
def test_a_low_rate_costs_little(rate: int) -> None:
    from laconic.models.lossless_sound import segment_length

    noise = np.random.default_rng(0).integers(-32768, 32768, 20_000).astype(np.int16)
    data = laconic.compress(noise, sample_rate=rate, lossless=True, effort=1)
    assert len(data) < noise.nbytes + 200
    lengths = lossless_sound.unpack(container.read_table(data)[0].fields).segment
    assert lengths == max(4096, segment_length(rate))


def test_a_file_that_grows_is_noted() -> None:
    notes: list[str] = []
    data = squeezed((FORMATS / "opus_stereo_48k.opus").read_bytes(), notes)
    assert f"the output is larger than the input ({len(data)} > 8294 bytes)" in notes


def test_arrays_as_people_have_them() -> None:
    samples = (FEW >> 16).astype(np.int16)
    plain = laconic.compress(samples, sample_rate=RATE, lossless=True, effort=1)
    assert laconic.compress(samples.astype(">i2"), sample_rate=float(RATE), lossless=True, effort=1) == plain
    assert laconic.compress(samples, sample_rate=np.int64(RATE), lossless=True, effort=1) == plain  # type: ignore[arg-type]
    floats = (samples / 32768).astype(">f4")
    back = laconic.decompress(laconic.compress(floats, sample_rate=RATE, lossless=True, effort=1))
    assert np.array_equal(back.samples, floats)


class Tensor:
    """Something that is no array."""


@pytest.mark.parametrize(
    "bad",
    [[1, 2], Tensor(), np.ma.masked_array(np.zeros(9, np.int16), np.ones(9, bool)), np.matrix([[1, 2]], dtype=np.int16)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_gets_words_about_arrays(bad: Any) -> None:
    with pytest.raises(laconic.BadInput, match=f"samples: found '{type(bad).__name__}', expected a NumPy array"):
        laconic.compress(bad, sample_rate=RATE, lossless=True)


@pytest.mark.parametrize("rate", [44100.5, float("nan"), float("inf"), "44100", True, 0, -1, 1 << 24], ids=str)
def test_rates_that_are_none(rate: Any) -> None:
    with pytest.raises(laconic.BadInput, match="sample.rate: found"):
        laconic.compress(np.zeros(9, np.int16), sample_rate=rate, lossless=True)


@pytest.mark.parametrize(
    "more", [{"comments": [["a", "b"]]}, {"comments": (("a", 5),)}, {"attached": (5,)}, {"layout": -1}, {"layout": "x"}], ids=str
)
def test_what_no_file_holds_beside_samples_is_refused(more: Any) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        laconic.compress(laconic.Sound(np.zeros(9, np.int16), RATE, 16, **more), lossless=True)


@pytest.mark.parametrize("options", [{"seek": 1e308}, {"seek": float("inf")}, {"duration": float("nan")}], ids=str)
def test_parts_beyond_all_numbers(options: Any, coded: bytes) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        laconic.decompress(coded, **options)
    assert len(laconic.decompress(coded, duration=1e308).samples) == 300


def test_old_files_with_tags_alone_are_written_as_before() -> None:
    held = laconic.Sound(np.zeros(9, np.int16), RATE, 16, {"title": "ä"})
    _, chunks = container.read(laconic.compress(held, lossless=True), lossless_sound.KINDS)
    assert [one.kind for one in chunks][1:] == [TAGS]
    assert json.loads(zlib.decompress(bytes(chunks[1].payload or b"")[1:])) == {"title": "ä"}
    assert laconic.decompress(laconic.compress(held, lossless=True)).attached == tuple[Attached, ...]()


def test_a_picture_of_a_damaged_type_is_written() -> None:
    picture = mutagen.flac.Picture()
    picture.mime, picture.data = "\ufffdmage/png", b"\x89PNG"
    held = laconic.Sound(np.zeros(9, np.int16), RATE, 16, attached=(Attached("picture", picture.write()),))
    back = mutagen.id3.ID3(io.BytesIO(id3_tag((), held.attached)))
    assert back.getall("APIC")[0].mime == "?mage/png"
