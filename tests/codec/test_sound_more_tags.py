"""Tags of several kinds in one file, odd frames of ID3, tails: all are kept, or named where they are left out."""

from __future__ import annotations

import io
import runpy
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mutagen.id3
import numpy as np
import pytest

import laconic

made_sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_sounds.py"))))
by_library, chunk = made_sounds.by_library, made_sounds.chunk
FEW = made_sounds.tone(300)


def squeezed(raw: bytes) -> bytes:
    return laconic.compress(io.BytesIO(raw), lossless=True, effort=1, notes=[])


def out_of(data: bytes, format: str) -> tuple[bytes, list[str]]:
    """The file that a sound decompresses to, and notes."""
    out, notes = io.BytesIO(), list[str]()
    laconic.Codec().decompress_to(out, data, format=format, notes=notes)
    return out.getvalue(), notes


def id3(*frames: Any, version: int = 4) -> bytes:
    """An ID3v2 tag."""
    tag, out = mutagen.id3.ID3(), io.BytesIO()
    for frame in frames:
        tag.add(frame)
    tag.save(out, v1=0, v2_version=version, padding=lambda info: 0)
    return out.getvalue()


def finished(wav: bytes) -> bytes:
    """A WAV file to which chunks were added, its size set right."""
    return wav[:4] + struct.pack("<I", len(wav) - 8) + wav[8:]


ONE, TWO = id3(mutagen.id3.TIT2(encoding=3, text=["one"])), id3(mutagen.id3.TPE1(encoding=3, text=["two"]))


@pytest.mark.parametrize("format", ["FLAC", "AIFF", "CAF", "WAV"])
def test_texts_of_a_second_id3_tag_are_kept(format: str) -> None:
    mp3 = by_library(np.zeros((9000, 2)), "MP3", "MPEG_LAYER_III", 48000)
    aiff = by_library(FEW, "AIFF", "PCM_16") + chunk(b"ID3 ", TWO, ">")
    plain = by_library(FEW, "WAV", "PCM_16") + chunk(b"id3 ", ONE) + chunk(b"id3 ", TWO)
    for raw in (ONE + TWO + mp3, ONE + aiff, finished(plain)):
        back, notes = out_of(squeezed(raw), format)
        held = laconic.decompress(squeezed(back))
        pairs = {*held.tags.items(), *((name.lower(), text) for name, text in held.comments)}
        assert {("title", "one"), ("artist", "two")} <= pairs and notes == []


def test_an_mp3_keeps_what_only_its_old_or_appended_tag_says() -> None:
    mp3 = by_library(np.zeros((9000, 2)), "MP3", "MPEG_LAYER_III", 48000)
    old = b"TAG" + b"Title".ljust(30, b"\0") + b"one".ljust(30, b"\0") + bytes(34) + bytes(30) + b"\xff"
    held = laconic.decompress(squeezed(id3(mutagen.id3.TPE1(encoding=3, text=["one and only"])) + mp3 + old))
    assert held.tags == {"title": "Title", "artist": "one and only"}
    footed = ONE[:5] + bytes([ONE[5] | 16]) + ONE[6:]
    assert laconic.decompress(squeezed(mp3 + footed + b"3DI" + footed[3:10])).tags == {"title": "one"}


@pytest.mark.parametrize(
    "tag, named",
    [
        (id3(mutagen.id3.TIPL(encoding=3, people=[["producer", "P"]])), "TIPL"),
        (id3(mutagen.id3.TIPL(encoding=3, people=[["producer", "P"]]), version=3), "TIPL"),
        (b"ID3\4\0\0\0\0\0\x10XYZW\0\0\0\6\0\0hello!", "XYZW"),
        (b"garbage", "of a damaged tag"),
    ],
    ids=["people", "people of 2.3", "unknown", "damaged"],
)
def test_frames_that_are_no_texts_are_named(tag: bytes, named: str) -> None:
    raw = by_library(FEW, "WAV", "PCM_16") + chunk(b"id3 ", tag)
    _, notes = out_of(squeezed(finished(raw)), "FLAC")
    assert len(notes) == 1 and named in notes[0]


def test_a_tag_after_a_wav_file_is_named_where_it_is_left_out() -> None:
    raw = by_library(FEW, "WAV", "PCM_16") + b"TAG" + bytes(125)
    data = squeezed(raw)
    assert out_of(data, "WAV") == (raw, [])
    assert out_of(data, "FLAC")[1] == ["left out: 128 bytes after the WAV file's last chunk"]


@pytest.mark.parametrize("rate", [65_537, 88_201, 655_349])
def test_rates_that_frames_of_flac_cannot_state_are_refused(rate: int) -> None:
    data = laconic.compress((FEW >> 16).astype(np.int16), sample_rate=rate, lossless=True, effort=1)
    with pytest.raises(laconic.BadInput, match=f"FLAC output: found '{rate} Hz'"):
        out_of(data, "FLAC")


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "FLAC"])
@pytest.mark.parametrize("n", [4096, 4097, 33_000, 200_000])
def test_a_long_text_costs_no_sample(format: str, n: int) -> None:
    tags = {"title": "t" * n, "artist": "a" * n, "copyright": "c" * n, "comment": "x" * n}
    few = (FEW >> 16).astype(np.int16)
    raw, _ = out_of(laconic.compress(laconic.Sound(few, 8000, 16, tags), lossless=True, effort=1, notes=[]), format)
    held = laconic.decompress(squeezed(raw))
    assert np.array_equal(held.samples, few) and held.tags == tags


@pytest.mark.parametrize("format", ["WAV", "AIFF"])
def test_texts_that_id3_has_no_frame_for_are_kept(format: str) -> None:
    comments = (("COMMENT", "c"), ("DESCRIPTION", "d"), ("DATE", "in spring"), ("TITLE", "a\0b"), ("ALBUM", "x"))
    held = laconic.Sound((FEW >> 16).astype(np.int16), 8000, 16, comments=comments)
    raw, notes = out_of(laconic.compress(held, lossless=True, effort=1, notes=[]), format)
    back = laconic.decompress(squeezed(raw))
    found = {*back.tags.items(), *((name.lower(), text) for name, text in back.comments)}
    expected = {(name.lower(), text.replace("\0", "/")) for name, text in comments}
    assert expected <= found and notes == []
