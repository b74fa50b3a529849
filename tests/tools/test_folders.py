"""Folders as real people have them: what is taken, what is skipped and said, what cannot be read."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from laconic import sound, suffixes
from laconic.tools.cli import main
from laconic.tools.folders import CODED, PICTURE, SOUND, Search, kind_of
from laconic.tools.jobs import plan
from laconic.tools.process import UsageError

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
WAV = b"RIFF\x24\0\0\0WAVEfmt "
LAC = b"\x89Lc\r\n\x1a\n"


def put(folder: Path, *names: str, data: bytes = b"") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def planned(inputs: list[str], output: str | None, ending: str = ".lac", *kinds: str) -> dict[str, str]:
    """{input: output} of a plan, both as they are written."""
    jobs = plan(inputs, output, lambda source: ending, frozenset(kinds or (PICTURE,))).jobs
    return {str(job.source): str(job.out) for job in jobs}


@pytest.mark.parametrize("output", [None, "out/"])
def test_names_that_collide_keep_the_suffix_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "in/IMG_1.JPG", "in/IMG_1.PNG", "in/IMG_2.JPG", "in/deep/IMG_1.PNG", "in/x.wav", "in/x.flac")
    found = planned(["in"], output, ".lac", PICTURE, SOUND)
    root = output or "in/"
    assert found == {
        "in/IMG_1.JPG": f"{root}IMG_1.JPG.lac",
        "in/IMG_1.PNG": f"{root}IMG_1.PNG.lac",
        "in/IMG_2.JPG": f"{root}IMG_2.lac",
        "in/deep/IMG_1.PNG": f"{root}deep/IMG_1.lac",
        "in/x.wav": f"{root}x.wav.lac",
        "in/x.flac": f"{root}x.flac.lac",
    }
    put(tmp_path, *found.values())
    back = planned([output or "in"], "back/", ".png", CODED)
    assert len(back) == len(set(back.values())) == 6
    assert {"back/IMG_1.JPG.png", "back/IMG_1.PNG", "back/IMG_2.png"} <= set(back.values())


def test_a_fuller_name_that_is_taken_makes_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "in/a.jpg", "in/a.png", "in/a.jpg.bmp", "in/a.png.jpg.gif")
    assert planned(["in"], None) == {
        "in/a.jpg": "in/a.jpg.lac",
        "in/a.png": "in/a.png.lac",
        "in/a.jpg.bmp": "in/a.jpg.bmp.lac",
        "in/a.png.jpg.gif": "in/a.png.jpg.lac",
    }


def test_decompressed_names_tell_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "in/a.lac", "in/a.LAC", "in/a.png.lac")
    assert sorted(planned(["in"], "o/", ".png", CODED).values()) == ["o/a.LAC.png", "o/a.lac.png", "o/a.png.lac.png"]


@pytest.mark.parametrize(
    ("inputs", "output"),
    [(["a/x.png", "b/x.jpg"], "out/"), (["a/x.png", "b/x.jpg"], "x.lac"), (["a/x.png", "a/x.jpg"], None)],
)
def test_named_inputs_that_collide_are_both_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], output: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, *inputs)
    with pytest.raises(UsageError) as error:
        planned(inputs, output)
    assert all(name in str(error.value) for name in inputs)


def test_folders_that_would_mix_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a/x.png", "b/x.png")
    with pytest.raises(UsageError, match="a/x.png and b/x.png would both be written to out/x.png.lac"):
        planned(["a", "b"], "out/")


def test_a_file_that_is_named_twice_in_effect_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a/x.png", "a/y.png")
    assert planned(["a", "a/x.png", "a/"], "out/") == {"a/x.png": "out/x.lac", "a/y.png": "out/y.lac"}


def test_what_is_skipped_is_counted_and_litter_is_not(tmp_path: Path) -> None:
    put(tmp_path, *(f"{i}.heic" for i in range(10)), "a.txt", "b.TXT", "README")
    put(tmp_path, "raw.NEF", "fax", data=b"II*\0 as TIFF")
    put(tmp_path, "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "lost+found/x.png", "__MACOSX/x.png", data=PNG)
    put(tmp_path, "a.png", "old.lac", data=PNG)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link").symlink_to(tmp_path.parent)
    search = Search(frozenset({PICTURE}))
    assert [path.name for path in search.files(tmp_path)] == ["a.png", "fax"]
    counts = "10 .heic, 2 .txt, 1 .lac, 1 .nef, 1 link to a folder, 1 pipe or device, 1 without a suffix"
    assert search.account() == f"17 files skipped: {counts}"


def test_contents_tell_where_the_suffix_does_not(tmp_path: Path) -> None:
    starts = {
        PICTURE: (PNG, b"\xff\xd8\xff\xe1", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"MM\0*", b"\0\0\0 ftypavif", b"P5 2 2 255\n"),
        SOUND: (WAV, b"fLaC\0\0\0\x22", b"OggS\0\2", b"FORM\0\0\0\0AIFF", b"ID3\4"),
        CODED: (LAC,),
        "": (b"\0\0\0 ftypM4A ", b"\x1aE\xdf\xa3 webm", b"", b"text", b"BMW makes", b"P1 is a letter", b"RIFF\0\0\0\0AVI LIST", b"\0\0\0 ftypheic", b"\xff\xfet\0"),
    }
    for kind, some in starts.items():
        for start in some:
            put(tmp_path, "unknown.xyz", "without", "known.txt", data=start)
            assert {kind_of(tmp_path / name) for name in ("unknown.xyz", "without", "known.txt")} == {kind}, start
    put(tmp_path, "a.lac", "a.png", data=b"BMW makes")
    assert (kind_of(tmp_path / "a.lac"), kind_of(tmp_path / "a.png")) == (CODED, PICTURE)  # damage is said when read


def test_every_suffix_that_works_alone_works_in_folders() -> None:
    for suffix in (".jpg", ".JPEG", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".tif", ".gif", ".ppm", ".jp2"):
        assert kind_of(Path(f"x{suffix}")) == PICTURE
    pcm = (".wav", ".WAVE", ".bwf", ".rf64", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".au")
    for suffix in (*pcm, ".ogg", ".oga", ".opus", ".mp3"):
        assert kind_of(Path(f"x{suffix}")) == SOUND
        assert sound.is_sound(b"", f"x{suffix}")
    assert not set(suffixes.PICTURES) & set(suffixes.SOUNDS)


def test_outputs_of_an_earlier_run_are_not_worth_a_word(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.lac", "b.jpg", "b.bmp", "b.lac")
    made = plan([str(tmp_path)], None, lambda source: ".lac", frozenset({PICTURE}))
    assert made.skipped == "1 file skipped: 1 .lac"  # b.lac: there are b.jpg.lac and b.bmp.lac
    back = plan([str(tmp_path)], None, lambda source: ".png", frozenset({CODED}))
    assert back.skipped == "2 files skipped: 1 .bmp, 1 .jpg"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    put(tmp_path, "in/song.wav", data=WAV)
    (tmp_path / "in" / "locked").mkdir()
    for name in ("a.png", "locked/b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    return tmp_path / "in"


EXACT = ["compress", "--max-error", "0", "-e", "1"]


def test_a_folder_with_sounds_says_what_they_need(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EXACT, str(photos)]) == 0
    assert capsys.readouterr().err.endswith("laconic: 1 file skipped: 1 .wav (sounds take -q, -b, --size, --lossless)\n")
    (photos / "a.png").unlink()
    (photos / "locked" / "b.png").unlink()
    (photos / "a.lac").unlink()
    (photos / "locked" / "b.lac").unlink()
    assert main([*EXACT, str(photos)]) == 2
    assert "1 file skipped: 1 .wav (sounds take -q, -b, --size, --lossless)" in capsys.readouterr().err


def test_a_locked_folder_is_a_failure_and_the_rest_is_done(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.scandir

    def scandir(path: Any) -> Iterator[os.DirEntry[str]]:  # root may enter everything
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main([*EXACT, str(photos)]) == 1
    out, err = capsys.readouterr()
    assert "a.lac" in out and f"laconic: {photos}/locked: [Errno 13] Permission denied: '{photos}/locked'\n" in err
    assert "1 of 2 failed" in err


def test_a_file_that_cannot_be_asked_is_a_failure(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(photos, "secret", data=PNG)
    (photos / "gone.png").symlink_to("nowhere")
    real = Path.open

    def locked(self: Path, *args: Any) -> Any:
        if self.name == "secret":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args)

    monkeypatch.setattr(Path, "open", locked)
    assert main([*EXACT, str(photos)]) == 1
    err = capsys.readouterr().err
    assert "secret: [Errno 13]" in err and "gone.png: [Errno 2]" in err and "2 of 4 failed" in err


def test_a_riff_that_is_no_wave_is_skipped(tmp_path: Path) -> None:
    put(tmp_path, "film.avi", data=b"RIFF" + struct.pack("<I", 4) + b"AVI ")
    search = Search(frozenset({PICTURE, SOUND}))
    assert search.files(tmp_path) == [] and search.account() == "1 file skipped: 1 .avi"
