"""Making and delivering files: as private as their inputs, whole, never over another's; one bad file ends nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import laconic
from laconic.tools import cli
from laconic.tools.cli import main
from laconic.tools.jobs import Job, deliver
from laconic.tools.process import printable, reason, words_kept

HOSTILE = "a\x1b]0;x\x07\u202e\u2028\u200b\x9b.png"
ESCAPED = r"a\x1b]0;x\x07\u202e\u2028\u200b\x9b.png"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("given", "made"), [(0o600, 0o600), (0o640, 0o640), (0o666, 0o644), (0o755, 0o644), (0o400, 0o400)])
@pytest.mark.parametrize("linked", [True, False])
def test_an_output_is_as_private_as_its_input(
    photo: Path, monkeypatch: pytest.MonkeyPatch, given: int, made: int, linked: bool
) -> None:
    photo.chmod(given)
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    out = photo.with_name("out")
    deliver(io.BytesIO(b"data"), Job(photo, out), force=False)
    assert out.stat().st_mode & 0o777 == made and out.read_bytes() == b"data"
    assert out.stat().st_mtime_ns == photo.stat().st_mtime_ns
    assert sorted(os.listdir(photo.parent)) == ["out", "photo.png"]


@pytest.mark.usefixtures("umask")
def test_a_private_input_makes_an_open_output_private(photo: Path) -> None:
    out = photo.with_name("out")
    out.touch()
    photo.chmod(0o600)
    deliver(io.BytesIO(b"data"), Job(photo, out), force=True)
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("umask")
def test_an_archive_is_as_private_as_its_most_private_picture(photo: Path) -> None:
    private, out = photo.with_name("private.png"), photo.with_name("out")
    private.touch(0o600)
    deliver(io.BytesIO(), Job(photo.parent, out, (photo, private)), force=False)
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("umask")
def test_folders_that_mirror_private_ones_are_private(photo: Path) -> None:
    root = photo.parent / "in"
    (root / "deep").mkdir(parents=True)
    photo.rename(root / "deep" / "a.png")
    root.chmod(0o500)
    (root / "deep").chmod(0o750)
    assert main(["compress", "--lossless", "-e", "1", str(root), "-o", f"{photo.parent}/new/out/"]) == 0
    out = photo.parent / "new" / "out"
    modes = [path.stat().st_mode & 0o777 for path in (out / "deep" / "a.lac", out / "deep", out, out.parent)]
    assert modes == [0o644, 0o750, 0o700, 0o755]
    root.chmod(0o700)


@pytest.mark.usefixtures("umask")
def test_there_and_back_stays_private(photo: Path) -> None:
    photo.chmod(0o600)
    assert main(["compress", "--lossless", "-e", "1", str(photo)]) == 0
    assert photo.with_suffix(".lac").stat().st_mode & 0o777 == 0o600
    assert main(["decompress", str(photo.with_suffix(".lac")), "-o", str(photo.with_name("back.bmp"))]) == 0
    assert photo.with_name("back.bmp").stat().st_mode & 0o777 == 0o600


def no_links(source: Path, target: Path) -> None:
    """As a file system without hard links."""
    raise PermissionError(1, "Operation not permitted", str(source), None, str(target))


@pytest.mark.parametrize("linked", [True, False])
def test_of_two_that_race_for_a_name_the_second_fails(
    photo: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    out, n = photo.with_name("out"), 8
    barrier, lost = threading.Barrier(n), []

    def race(i: int) -> None:
        barrier.wait()
        try:
            deliver(io.BytesIO(bytes([i]) * 100), Job(photo, out), force=False)
        except FileExistsError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=race, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == [f"{out} exists; -f overwrites it"] * (n - 1)
    assert len(set(out.read_bytes())) == 1 and len(out.read_bytes()) == 100
    assert sorted(os.listdir(photo.parent)) == ["out", "photo.png"]


def test_another_process_that_was_faster_is_an_error(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compress(codec: laconic.Codec, file: Any, source: Path, **options: Any) -> None:
        photo.with_suffix(".lac").write_bytes(b"theirs")

    monkeypatch.setattr(laconic.Codec, "compress_to", compress)
    monkeypatch.setattr(cli, "rates", lambda file, seconds: {})
    assert main(["compress", str(photo)]) == 1
    assert photo.with_suffix(".lac").read_bytes() == b"theirs"
    assert capsys.readouterr().err.endswith(".lac exists; -f overwrites it\n")


@pytest.mark.parametrize("jobs_at_a_time", ["1", "2"])
def test_whatever_a_reader_raises_is_one_line_and_the_rest_is_done(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], jobs_at_a_time: str
) -> None:
    errors = [RecursionError("too\ndeep"), KeyError("x"), SystemError(), MemoryError(), AssertionError(), EOFError("end")]

    def compress(codec: laconic.Codec, file: Any, source: Path, **options: Any) -> None:
        if source.stem.isdecimal():
            raise errors[int(source.stem)]

    monkeypatch.setattr(laconic.Codec, "compress_to", compress)
    monkeypatch.setattr(cli, "rates", lambda file, seconds: {})
    for i in range(len(errors)):
        photo.with_name(f"{i}.png").touch()
    assert main(["compress", str(photo.parent), "-j", jobs_at_a_time]) == 1
    out, err = capsys.readouterr()
    said = ["RecursionError: too deep", "KeyError: 'x'", "SystemError", "MemoryError", "AssertionError", "EOFError: end"]
    expected = [f"laconic: {photo.parent}/{i}.png: {text}" for i, text in enumerate(said)]
    assert err.splitlines()[: len(errors)] == expected and "6 of 7 failed" in err
    assert photo.with_suffix(".lac").exists() and out.count("\n") == 1


def test_whatever_a_damaged_file_brings_about_does_not_end_info(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(source: Any) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr(laconic, "info", raises)
    monkeypatch.setattr(laconic, "verify", raises)
    for command in ("info", "verify"):
        assert main([command, "a", "b"]) == 1
        assert capsys.readouterr().err == "laconic: a: RecursionError: deep\nlaconic: b: RecursionError: deep\n"


def test_what_libraries_say_is_a_note_of_the_file(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compress(codec: laconic.Codec, file: Any, source: Path, notes: list[str], **options: Any) -> None:
        notes.append("ours")
        warnings.warn("Corrupt EXIF data.  Expecting 2 bytes", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        for _ in range(2):
            os.write(2, b"TIFFReadDirectory: Warning, unknown tag.\n")

    monkeypatch.setattr(laconic.Codec, "compress_to", compress)
    monkeypatch.setattr(cli, "rates", lambda file, seconds: {})
    other = photo.with_name("other.png")
    other.touch()
    assert main(["compress", str(photo), str(other)]) == 0
    words = ["ours", "Corrupt EXIF data. Expecting 2 bytes", "TIFFReadDirectory: Warning, unknown tag."]
    lines = [f"laconic: {path}: note: {text}" for path in (photo, other) for text in words]
    assert capsys.readouterr().err.splitlines() == lines


def test_words_of_c_libraries_are_kept_and_ours_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    with words_kept() as heard:
        os.write(2, b"one\n\ntwo\none\n")
        print("ours", file=sys.stderr)
        assert heard() == ["one", "two"] and heard() == []
        os.write(2, b"three")
        assert heard() == ["three"]
    os.write(2, b"four\n")
    assert capfd.readouterr().err.split() == ["ours", "four"]


def test_where_no_file_can_be_made_words_go_where_they_went(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(**_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with words_kept() as heard:
        os.write(2, b"one\n")
        assert heard() == []
    assert capfd.readouterr().err == "one\n"


def test_names_cannot_steer_the_terminal(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = photo.rename(photo.with_name(HOSTILE))
    assert main(["compress", "--lossless", "-e", "1", str(path)]) == 0
    file = str(path.with_suffix(".lac"))
    assert main(["info", file]) == main(["verify", file]) == 0
    assert main(["info", file + HOSTILE]) == main(["decompress", f"{file}{HOSTILE}.lac"]) == 1
    found = laconic.info(file)
    monkeypatch.setattr(laconic, "info", lambda _: type(found)(**{**vars(found), "model": HOSTILE}))
    assert main(["info", file]) == 0
    monkeypatch.setattr(laconic, "list_models", lambda: [laconic.ModelInfo(HOSTILE, "0" * 64, str(path), {})])
    assert main(["models"]) == 0
    with pytest.raises(SystemExit):
        main(["info", f"--{HOSTILE}"])
    out, err = capsys.readouterr()
    assert ESCAPED in out and ESCAPED in err and "model" in out
    assert all(line.isprintable() for line in [*out.split("\n"), *err.split("\n")])


def test_printable() -> None:
    assert printable("é 漢 – a  b") == "é 漢 – a  b"
    assert printable("\x1b\x85\n\u202e\udcff") == r"\x1b\x85\n\u202e\udcff"
    assert reason(laconic.BadFile("a\nb")) == "a b" and reason(OSError()) == "OSError"


def test_json_is_read_back(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = photo.rename(photo.with_name(HOSTILE))
    assert main(["compress", "--lossless", "-e", "1", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(path)


def test_a_full_folder_of_temporary_files_is_named(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(laconic.Codec, "compress_to", full)
    assert main(["compress", str(photo)]) == 1
    expected = f"[Errno {errno.ENOSPC}] No space left on device: the folder of temporary files, {tempfile.gettempdir()}"
    assert expected in capsys.readouterr().err
