"""The command line: exit statuses, names, pipes, nothing lost."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from laconic import registry
from laconic.models.hclt_learn import LearnConfig, Learner
from laconic.options import PRECISIONS, TUNES
from laconic.tools import cli, files
from laconic.tools.arguments import PRECISIONS as OFFERED_PRECISIONS
from laconic.tools.arguments import TUNES as OFFERED_TUNES
from laconic.tools.cli import main

FORMATS = Path(__file__).parent.parent / "data" / "formats"
RUN = [sys.executable, "-m", "laconic.tools.cli"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return Path(shutil.copy(FORMATS / "interlaced.png", tmp_path / "photo.png"))


@contextmanager
def nobody_reads() -> Iterator[None]:
    """stdout is a pipe whose other end is closed."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout, redirect_stdout(stdout):
        yield


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def interrupts_heard() -> Iterator[None]:
    """Children begun in the block hear interrupts, also where a shell started the tests in the background, deaf to them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def started(*arguments: str, command: list[str] = RUN) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running. It is killed where it hangs, and at the end of the block."""
    with interrupts_heard():
        process = subprocess.Popen([*command, *arguments], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    with process:
        alarm = threading.Timer(30, process.kill)
        alarm.start()
        try:
            yield process
        finally:
            alarm.cancel()
            process.kill()


def let_read(process: subprocess.Popen[bytes], pipe: int) -> None:
    """Write more than a pipe holds; return when the process has read it all and waits for the rest.

    Python looks at signals where one cuts a read short: one that comes between two reads would wait for the second.
    """
    os.set_blocking(pipe, False)
    data = bytes(1 << 18)
    deadline = time.monotonic() + 30
    while data or n_unread(pipe) or not is_asleep(process):
        assert time.monotonic() < deadline, "the process does not read"
        with suppress(BlockingIOError):
            data = data[os.write(pipe, data) :]
        time.sleep(0.01)


def n_unread(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def is_asleep(process: subprocess.Popen[bytes]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_there_and_back(photo: Path) -> None:
    assert main(["compress", str(photo), "--quiet"]) == 0
    file = photo.with_suffix(".lac")
    assert file.stat().st_mtime_ns == photo.stat().st_mtime_ns
    assert main(["decompress", str(file)]) == 1  # photo.png exists
    assert main(["decompress", str(file), "-f"]) == 0
    assert main(["decompress", str(file), "--region", "10,20,30,40", "-o", str(photo.with_name("part.jpg"))]) == 0
    assert main(["decompress", str(file), "--region", "10,20,300,40", "-o", str(photo.with_name("no.jpg"))]) == 1
    assert main(["verify", str(file)]) == 0 and main(["info", str(file), "--json"]) == 0
    assert names(photo.parent) == ["part.jpg", "photo.lac", "photo.png"]


def test_damage_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Path(shutil.copy(FORMATS / "truncated.png", tmp_path))
    assert main(["compress", str(bad)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "x.lac").write_bytes(b"not ours")
    assert main(["decompress", str(tmp_path / "x.lac")]) == 1
    assert names(tmp_path) == ["truncated.png", "x.lac"]


def test_collisions_and_wrong_usage_write_nothing(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    shutil.copy(photo, "photo.bmp")
    Path("folder").mkdir()
    assert main(["compress", "photo.png", "photo.bmp"]) == 2
    assert main(["compress", "photo.png", f"../{photo.parent.name}/photo.png"]) == 2
    assert main(["compress", "photo.png", "photo.bmp", "-o", "x.lac"]) == 2
    assert main(["compress", "photo.png", "folder", "-o", "-"]) == 2
    assert main(["compress", "folder"]) == 2  # holds no picture
    assert main(["compress", "-", "-o", "folder"]) == 2
    assert main(["compress", "-", "-"]) == 2
    assert main(["decompress", "x.lac", "-o", "x.doc"]) == 2
    assert names(photo.parent) == ["photo.bmp", "photo.png"]


@pytest.mark.parametrize("other_name", ["photo.png", "folder/../photo.png", "symbolic.png", "hard.png"])
def test_inputs_are_kept(photo: Path, monkeypatch: pytest.MonkeyPatch, other_name: str) -> None:
    monkeypatch.chdir(photo.parent)
    Path("folder").mkdir()
    Path("symbolic.png").symlink_to("photo.png")
    Path("hard.png").hardlink_to("photo.png")
    before = photo.read_bytes()
    assert main(["compress", "photo.png", "-o", other_name, "-f"]) == 2
    assert photo.read_bytes() == Path(other_name).read_bytes() == before


@pytest.mark.parametrize(
    "flags",
    [
        *(["--size", value] for value in ("inf", "nan", "1e999k", "-5", "0", "0.2", "many", "")),
        *(["-q", value] for value in ("101", "-1", "nan", "good")),
        *([flag, value] for flag in ("--bpp", "--psnr") for value in ("0", "-1", "nan", "inf")),
        *(["--ssimulacra2", value] for value in ("100.5", "nan", "-inf")),
        ["--tune", "ear"],
        *([flag, value] for flag in ("--threads", "-j") for value in ("0", "-3", "1.5", "99999999999")),
        *([f"--region={value}"] for value in ("²,0,1,1", "1,2", "-1,0,1,1", "0,0,0,1", "a,b,c,d")),
        ["--max-pixels", "0"],
        ["-o", ""],
        ["-q", "3", "--bpp", "1"],
    ],
    ids="=".join,
)
def test_a_wrong_value_is_one_message(photo: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    command = "decompress" if flags[0].startswith("--region") else "compress"
    with pytest.raises(SystemExit) as stop:
        main([command, str(photo), str(photo), *flags])
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and flags[0].split("=")[0] in last and "error:" in last
    assert names(photo.parent) == ["photo.png"]


def test_values_are_read() -> None:
    parse = cli.build_parser([]).parse_args
    for text, n_bytes in (("40000", 40000), ("1.5k", 1500), ("2K", 2000), ("3M", 3_000_000)):
        assert parse(["compress", "a", "--size", text]).size == n_bytes
    for text in ("0", "42.5", "100"):
        assert parse(["compress", "a", "-q", text]).quality == float(text)
    assert parse(["decompress", "a", "--region", "0, 2,3,4"]).region == (0, 2, 3, 4)


def test_a_folder_is_mirrored_and_the_rest_is_done(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = photo.parent / "in", photo.parent / "out"
    for name in ("a.png", "deep/b.png", "a folder.png/with space.PNG"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, root / name)
    (root / "c.png").write_text("no picture")
    assert main(["compress", str(root), "-o", f"{out}/", "-j", "2"]) == 1
    assert names(out) == ["a folder.png/with space.lac", "a.lac", "deep/b.lac"]
    err = capsys.readouterr().err
    assert "c.png: " in err and "1 of 4 failed" in err


def test_info_and_verify_do_the_rest_and_name_what_failed(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, other, bad = (photo.with_name(name) for name in ("good.lac", "other.lac", "bad.lac"))
    assert main(["compress", str(photo), "-o", str(good), "--quiet"]) == 0
    shutil.copy(good, other)
    bad.write_bytes(b"not ours")
    for command in ("info", "verify"):
        assert main([command, str(good), str(bad), "missing.lac", str(other)]) == 1
        out, err = capsys.readouterr()
        assert str(good) in out and str(other) in out
        assert [line.split(": ")[1] for line in err.splitlines()] == [str(bad), "missing.lac"]


def test_notes_are_credited_to_their_file(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"gray16.png": "reduced", "multipage.tif": "pages", "cmyk.jpg": "converted", "rgb16.png": "reduced"}
    for name in said:
        shutil.copy(FORMATS / name, photo.parent)
    inputs = [str(photo.parent / name) for name in said]
    assert main(["compress", str(photo), *inputs, "-j", "4"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "larger" not in line]
    assert len(notes) == len(said)
    for note, (name, text) in zip(notes, said.items(), strict=True):
        assert f"/{name}: note: " in note and text in note


def test_what_a_format_cannot_hold_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(FORMATS / "rgba_soft.png", tmp_path / "soft.png")
    assert main(["compress", f"{tmp_path}/soft.png"]) == 0
    capsys.readouterr()
    assert main(["decompress", f"{tmp_path}/soft.lac", "-o", f"{tmp_path}/soft.jpg"]) == 0
    assert f"{tmp_path}/soft.lac: note: alpha" in capsys.readouterr().err


def test_pipes(photo: Path) -> None:
    compress = [*RUN, "compress", "-", "-o", "-", "--json"]
    packed = subprocess.run(compress, input=photo.read_bytes(), capture_output=True, check=True)
    assert packed.stdout.startswith(b"\x89Lc")
    assert json.loads(packed.stderr)["bytes"] == len(packed.stdout)
    back = subprocess.run([*RUN, "decompress", "-"], input=packed.stdout, capture_output=True, check=True)
    assert back.stdout.startswith(b"\x89PNG")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_pipe_ends_the_work_quietly(photo: Path, capsys: pytest.CaptureFixture[str], jobs: int) -> None:
    root = photo.parent / "in"
    root.mkdir()
    for k in range(16):
        shutil.copy(photo, root / f"{k}.png")
    with nobody_reads():
        assert main(["compress", str(root), "-j", str(jobs)]) == 1
    assert capsys.readouterr().err == ""
    n_done = len(list(root.glob("*.lac")))
    assert n_done == 1 if jobs == 1 else 1 <= n_done < 16


def test_a_broken_pipe_for_the_output_is_quiet(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with nobody_reads():
        assert main(["compress", str(photo), "-o", "-"]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_broken_pipe_is_quiet_wherever_it_is_met(monkeypatch: pytest.MonkeyPatch, unbuffered: str) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)  # it is met where a line is printed, or else at the end
    golden = next((Path(__file__).parent.parent.parent / "assets" / "golden").glob("*.lac"))
    with started("info", str(golden)) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
    with started("info", "missing.lac") as process:
        assert process.stderr
        process.stderr.close()
        assert process.wait() == 1


def test_a_mistyped_flag_is_compared_with_those_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command, flag, hint in (
        ("compress", "--qualty", "(did you mean --quality?)"),
        ("compress", "--sise=3", "(did you mean --size?)"),
        ("compress", "--lossles", "(did you mean --lossless?)"),
        ("decompress", "--effort", "--effort"),
        ("decompress", "--bpp", "--bpp"),
        ("decompress", "-m", "-m"),
        ("info", "--jsn", "(did you mean --json?)"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([command, "x", flag])
        assert stop.value.code == 2 and capsys.readouterr().err.rstrip().endswith(hint)


def test_a_file_whose_name_begins_with_a_dash(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photo.parent)
    photo.rename("-dash.png")
    with pytest.raises(SystemExit):
        main(["compress", "-dash.png"])
    assert capsys.readouterr().err.rstrip().endswith("(the file -dash.png is written ./-dash.png)")
    assert main(["compress", "./-dash.png"]) == 0


def closed(redirection: str, *arguments: str) -> tuple[int, bytes]:
    """Status and stderr of the command with a stream closed by the shell."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *RUN, *arguments]
    found = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return found.returncode, found.stderr


def test_streams_that_are_closed(photo: Path) -> None:
    file = str(photo)
    assert closed(">&-", "compress", file, "--lossless", "-e", "1", "-f") == (0, b"")
    assert closed("2>&-", "compress", file, "--lossless", "-e", "1") == (1, b"")  # exists
    assert closed(">&-", "models") == (0, b"")
    assert closed(">&-", "report", str(photo.parent))[0] == 1  # holds no results
    assert closed("<&-", "verify", file.replace("png", "lac")) == (0, b"")
    names = [(">&-", "stdout", ["-o", "-", file]), ("<&-", "stdin", ["-o", "x.lac", "-"]), (">&-", "stdout", ["-"])]
    for redirection, name, arguments in names:
        text = f"laconic: -: found {name} closed, expected it open\n".encode()
        assert closed(redirection, "compress", *arguments) == (2, text)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_named(photo: Path) -> None:
    status, err = closed(">/dev/full", "compress", str(photo), "-o", "-", "--lossless", "-e", "1", "--quiet")
    assert status == 1 and err == f"laconic: {photo}: [Errno 28] No space left on device: 'stdout'\n".encode()
    status, err = closed(">/dev/full", "models")
    assert status == 1 and err == b"laconic: [Errno 28] No space left on device\n"


def test_help_states_defaults_and_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    for command, texts in (
        ("compress", ("GPS", "--strip", "(default: 60 of pictures)", "(default: cpu)", "(default: auto,", "(default: 1)")),
        ("decompress", (".avif", "(default: cpu)", f"(default: {1 << 28})")),
    ):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert all(expected in text for expected in texts)


def test_help_loads_neither_torch_nor_numba_nor_numpy() -> None:
    script = "import sys, laconic.tools.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'numba', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("name", [b"y" * 251 + b".png", b"a  b.png", b"\xff.png"], ids=["long", "spaced", "bytes"])
def test_any_file_name_will_do(photo: Path, capsys: pytest.CaptureFixture[str], name: bytes) -> None:
    path = photo.rename(photo.with_name(os.fsdecode(name)))
    assert main(["compress", str(path)]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert sorted(os.listdir(path.parent)) == [path.with_suffix(".lac").name, path.name]


def test_modes_and_links_are_those_of_a_plain_open(photo: Path) -> None:
    out, link = photo.with_name("x.lac"), photo.with_name("link.lac")
    before = os.umask(0o027)
    try:
        assert main(["compress", str(photo), "-o", str(out)]) == 0
        assert out.stat().st_mode & 0o777 == 0o640
        out.chmod(0o604)
        link.symlink_to(out.name)
        assert main(["compress", str(photo), "-o", str(link), "-f", "-q", "10"]) == 0
        assert out.stat().st_mode & 0o777 == 0o604 and link.is_symlink()
    finally:
        os.umask(before)


class FullDisk(io.FileIO):
    """Takes ten bytes of what is written."""

    error: BaseException

    def write(self, data: Any) -> int:
        super().write(data[:10])
        raise self.error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()], ids=["full", "stop"])
@pytest.mark.parametrize("place", ["write", "rename"])
def test_a_failure_while_writing_leaves_what_was_there(
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    error: BaseException,
) -> None:
    def rename(part: Path, out: Path) -> None:
        assert part.exists()
        raise error

    if place == "write":
        monkeypatch.setattr(FullDisk, "error", error, raising=False)
        monkeypatch.setattr(files, "open", FullDisk, raising=False)
    else:
        monkeypatch.setattr(os, "replace", rename)
    photo.with_suffix(".lac").write_bytes(b"before")
    for out in ("photo.lac", "new.lac"):
        status = main(["compress", str(photo), "-f", "-o", str(photo.with_name(out))])
        err = capsys.readouterr().err
        assert status == (1 if isinstance(error, OSError) else 130)
        assert err.count("\n") == 1 and ".part" not in err
        assert isinstance(error, KeyboardInterrupt) or ("No space left" in err and out in err)
    assert names(photo.parent) == ["photo.lac", "photo.png"]
    assert photo.with_suffix(".lac").read_bytes() == b"before"


def test_devices_are_written_to_and_never_replaced(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(part: Path, out: Path) -> None:
        pytest.fail(f"{out} would be gone")  # and for root it would be

    monkeypatch.setattr(os, "replace", rename)
    assert main(["compress", str(photo), "-o", "/dev/full"]) == 1
    assert "No space left on device: '/dev/full'" in capsys.readouterr().err
    assert main(["compress", str(photo), "-o", "/dev/null"]) == 0
    assert main(["decompress", str(FORMATS / "text_file.png"), "-o", "/dev/null"]) == 1
    assert "/dev/null" not in capsys.readouterr().err  # the input is wrong; a device needs no suffix


def test_an_output_that_cannot_be_written_is_named(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(photo), "-o", str(photo / "x.lac")]) == 1
    assert f"Not a directory: '{photo / 'x.lac'}'" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing(photo: Path) -> None:
    with started("compress", "-", "-o", str(photo.with_suffix(".lac"))) as process:
        assert process.stdin and process.stderr
        let_read(process, process.stdin.fileno())
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"laconic: interrupted\n" and process.wait() == 130
    assert names(photo.parent) == ["photo.png"]


INTERRUPTED_IMPORT = """
import os, signal, sys
module = sys.argv.pop(1)
sys.argv[0] = "laconic"
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100): pass
            except KeyboardInterrupt:  # which foreign code may do
                pass
sys.meta_path.insert(0, Finder())
from laconic.tools.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["laconic.tools.process", "numpy", "tqdm", "numba", "PIL.Image"])
def test_an_interrupt_while_modules_are_imported(photo: Path, module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module]
    with started("compress", "--lossless", "-e", "1", str(photo), command=command) as process:
        assert process.stderr
        assert process.stderr.read() in (b"", b"laconic: interrupted\n")
        assert process.wait() in (130, -signal.SIGINT)
    assert names(photo.parent) == ["photo.png"]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_three_interrupts_during_one_file_are_no_traceback(tmp_path: Path, threads: str) -> None:
    samples = np.random.default_rng(0).integers(-3000, 3000, 3_000_000).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", samples, 8000)
    with started("compress", "--lossless", "-e", "9", str(tmp_path / "long.wav"), "--threads", threads) as process:
        assert process.stderr
        time.sleep(3)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        err = process.stderr.read()
        assert b"Traceback" not in err and b"Exception" not in err
        assert process.wait() in (130, -signal.SIGINT)
    assert names(tmp_path) == ["long.wav"]


@pytest.mark.parametrize("patient", [True, False])
def test_an_interrupt_of_several_jobs_begins_no_other(photo: Path, patient: bool) -> None:
    fifo = photo.with_name("fifo.png")
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)
    with started("compress", "-", str(fifo), str(photo), "-j", "2") as process:
        assert process.stdin and process.stderr
        let_read(process, process.stdin.fileno())
        let_read(process, held)
        process.send_signal(signal.SIGINT)
        assert b"waiting for the files in work" in process.stderr.readline()
        if patient:
            os.close(held)
            process.stdin.close()
            assert process.stderr.read() == b"laconic: interrupted\n" and process.wait() == 130
        else:
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b"" and process.wait() == -signal.SIGINT
            os.close(held)
    assert names(photo.parent) == ["photo.png"]


SOUND = FORMATS.parent / "sounds" / "id3_and_list_after_data.wav"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return Path(shutil.copy(SOUND, tmp_path / "sound.wav"))


def test_a_sound_comes_back_to_the_byte(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sound.read_bytes()
    assert main(["compress", "--lossless", "-e", "1", str(sound), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["bytes"] == sound.with_suffix(".lac").stat().st_size and row["kbit_per_s"] > 0
    sound.unlink()
    assert main(["decompress", str(sound.with_suffix(".lac"))]) == 0
    assert sound.read_bytes() == before
    assert main(["verify", str(sound.with_suffix(".lac"))]) == 0
    capsys.readouterr()
    assert main(["info", str(sound.with_suffix(".lac"))]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
    assert ["sample_rate", "22050"] in lines and all(len(line) == 2 for line in lines)
    assert dict(lines)["chunks"].startswith("1 segment of ") and len(dict(lines)["kbit_per_s"].split(".")[1]) <= 4


def test_a_part_of_a_sound_through_pipes(sound: Path) -> None:
    data = subprocess.run(
        [*RUN, "compress", "--lossless", "-e", "1", "-"], input=sound.read_bytes(), capture_output=True, check=True
    )
    part = [*RUN, "decompress", "-", "--seek", "0.1", "--duration", "0.05"]
    back = subprocess.run(part, input=data.stdout, capture_output=True, check=True)
    samples, rate = soundfile.read(io.BytesIO(back.stdout), dtype="int16")
    whole, _ = soundfile.read(SOUND, dtype="int16")
    assert rate == 22050 and np.array_equal(samples, whole[2205 : 2205 + 1102])


def test_a_sound_to_flac_and_a_wrong_suffix(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--lossless", "-e", "1", str(sound)]) == 0
    lac = str(sound.with_suffix(".lac"))
    assert main(["decompress", lac, "-o", str(sound.with_suffix(".flac"))]) == 0
    found = soundfile.SoundFile(sound.with_suffix(".flac"))
    assert found.title == "Test title" and found.frames == 6615
    assert main(["decompress", lac, "-o", str(sound.with_suffix(".png"))]) == 1
    said = "output format: found 'PNG', expected one of WAV, FLAC, AIFF, CAF, W64: the file holds a sound"
    assert said in capsys.readouterr().err
    assert main(["decompress", lac, "-o", str(sound.with_suffix(".xyz"))]) == 2
    assert names(sound.parent) == ["sound.flac", "sound.lac", "sound.wav"]


def test_a_sound_without_a_target_is_coded_without_loss(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(sound)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "note: coded without loss, as no target is given; a quality, bitrate or size" in line
    assert main(["decompress", str(sound.with_suffix(".lac")), "-o", str(sound.with_name("back.wav"))]) == 0
    assert sound.with_name("back.wav").read_bytes() == sound.read_bytes()


def test_targets_of_the_other_kind_are_refused(photo: Path, sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, path, expected in (
        (["-b", "6"], photo, "target of a picture: found 'bitrate', expected one of bpp, lossless, max_error, psnr, quality, size, ssimulacra2"),
        (["--bpp", "1"], sound, "target of a sound: found 'bpp', expected one of bitrate, lossless, quality, size"),
        (["--psnr", "40"], sound, "target of a sound: found 'psnr', expected one of bitrate, lossless, quality, size"),
    ):
        assert main(["compress", *flags, str(path)]) == 1
        assert expected in capsys.readouterr().err
    main(["compress", "-b", "100", str(photo.parent), "-o", f"{photo.parent}/out/"])
    assert "pictures take -q, --bpp, --size, --psnr, --ssimulacra2" in capsys.readouterr().err


def test_a_folder_of_both(photo: Path, sound: Path, tmp_path: Path) -> None:
    assert main(["compress", "--lossless", "-e", "1", str(tmp_path), "-o", f"{tmp_path}/packed/", "-j", "2"]) == 0
    assert main(["decompress", f"{tmp_path}/packed", "-o", f"{tmp_path}/back/"]) == 0
    assert (tmp_path / "back" / "sound.wav").read_bytes() == sound.read_bytes()
    assert np.array_equal(*(np.asarray(Image.open(path)) for path in (photo, tmp_path / "back" / "photo.png")))


def test_max_error(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--max-error", "2", "-e", "1", str(photo)]) == 0
    assert "bpsp" in capsys.readouterr().out
    assert main(["decompress", str(photo.with_suffix(".lac")), "-o", str(photo.with_name("back.png"))]) == 0
    given, back = (np.asarray(Image.open(path), int) for path in (photo, photo.with_name("back.png")))
    assert 0 < np.abs(given - back).max() <= 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lossless", "-e", "0"], "1 to 9"),
        (["--lossless", "-q", "5"], "not allowed with"),
        (["--max-error", "300"], "0 to 255"),
        (["--max-error", "x"], "0 to 255"),
        (["--archive"], "--archive"),
        (["--lossless", "--tune", "eye"], "tune: found 'eye', expected none"),
    ],
)
def test_wrong_flags_of_lossless_coding(
    photo: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        assert main(["compress", str(photo), *flags]) in (1, 2)
    assert says in capsys.readouterr().err and names(photo.parent) == ["photo.png"]


def test_effort_and_tune_of_a_photo(photo: Path) -> None:
    made = []
    for flags in (["-e", "1"], ["-e", "2", "--tune", "psnr"], ["-e", "2", "--tune", "eye"]):
        assert main(["compress", "--no-fallback", "-f", str(photo), *flags]) == 0
        made.append(photo.with_suffix(".lac").read_bytes())
    assert len(set(made)) == 3


def test_a_tune_is_for_pictures(photo: Path, sound: Path, tmp_path: Path) -> None:
    assert (OFFERED_TUNES, OFFERED_PRECISIONS) == (TUNES, PRECISIONS)
    assert main(["compress", "-q", "30", "--tune", "psnr", str(tmp_path), "-o", f"{tmp_path}/packed/"]) == 0
    assert names(tmp_path / "packed") == ["photo.lac"] and sound.exists()


def test_a_progressive_photo_and_its_first_part(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--progressive", "--no-fallback", "-e", "1", "-q", "80", str(photo)]) == 0
    file = photo.with_suffix(".lac")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    capsys.readouterr()
    for flags, status in (([], 1), (["--slices", "1"], 1), (["--preview"], 0), (["--preview", "--slices", "1"], 0), (["--partial"], 0)):
        out = photo.with_name(f"out{''.join(flags)}.png")
        assert main(["decompress", str(file), "-o", str(out), *flags]) == status
        assert out.exists() == (status == 0)
    said = capsys.readouterr().err
    assert "file length: found" in said and "preview: " in said and "from slice" in said
    with pytest.raises(SystemExit):
        main(["decompress", str(file), "--slices", "0"])


def test_flags_of_another_medium_are_errors(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--lossless", "-e", "1", str(photo)]) == 0
    for flags in (["--seek", "1"], ["--member", "x"], ["--duration", "2"]):
        assert main(["decompress", str(photo.with_suffix(".lac")), "-o", str(photo.with_name("y.png")), *flags]) == 1
        assert f"{flags[0][2:]}: found" in capsys.readouterr().err
    assert names(photo.parent) == ["photo.lac", "photo.png"]


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small pictures, and a circuit of their size that is installed."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 200, (70, 1, 1)) + rng.integers(0, 30, (70, 4, 3))).astype(np.uint8)
    learner = Learner.start(pictures, LearnConfig(states=8, contexts=1, epochs=1, full_epochs=1))
    learner.run()
    registry.save(learner.export(), tmp_path / "models", "tiny-circuit")
    monkeypatch.setenv("LACONIC_MODELS", str(tmp_path / "models"))
    (tmp_path / "digits" / "deep").mkdir(parents=True)
    for i, samples in enumerate(pictures):
        Image.fromarray(samples).save(tmp_path / "digits" / (f"deep/{i}.png" if i % 2 else f"{i}.png"))
    return tmp_path / "digits"


def test_an_archive_and_its_members(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = digits.parent
    assert main(["compress", "--lossless", "--archive", str(digits)]) == 0
    file = str(folder / "digits.lac")
    assert "70 pictures" in capsys.readouterr().out and main(["verify", file]) == 0
    assert main(["decompress", file, "--members", "-o", str(folder / "back")]) == 0
    assert names(folder / "back") == names(digits)
    for name in names(digits):
        assert np.array_equal(*(np.asarray(Image.open(path / name)) for path in (digits, folder / "back")))
    for member, name in (("deep/7.png", "deep/7.png"), ("0", "0.png")):
        assert main(["decompress", file, "--member", member, "-f", "-o", str(folder / "one.png")]) == 0
        assert np.array_equal(*(np.asarray(Image.open(path)) for path in (digits / name, folder / "one.png")))
    capsys.readouterr()
    for flags, says in ((["--member", "no.png"], "no.png"), ([], "member")):
        assert main(["decompress", file, "-f", "-o", str(folder / "two.png"), *flags]) == 1
        assert says in capsys.readouterr().err
    assert not (folder / "two.png").exists()


def test_wrong_flags_of_archives(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, back = str(digits.parent / "digits.lac"), str(digits.parent / "back")
    for flags in (["--strip"], ["-e", "3"]):
        assert main(["compress", "--lossless", "--archive", str(digits), *flags]) == 2
        assert "with --archive, expected without" in capsys.readouterr().err
    assert main(["compress", "--lossless", "--archive", str(digits)]) == 0
    capsys.readouterr()
    for flags in (["--member", "0"], ["--region", "0,0,1,1"], ["--seek", "0"], ["--duration", "1"], ["--partial"]):
        assert main(["decompress", file, "--members", "-o", back, *flags]) == 2
        assert f"{flags[0]}: found with --members" in capsys.readouterr().err
    assert main(["compress", "--lossless", "--archive", str(digits), "-o", f"{digits.parent}/new/"]) == 0
    assert names(digits.parent / "new") == ["digits.lac"] and not Path(back).exists()


def test_members_are_reported_under_their_archive(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2, 70):
        (digits / (f"deep/{i}.png" if i % 2 else f"{i}.png")).unlink()
    Image.open(digits / "0.png").save(digits / "0.bmp")
    exif = Image.Exif()
    exif[0x010E] = "a digit"
    Image.open(digits / "0.png").save(digits / "0.png", exif=exif)
    file, back = digits.with_suffix(".lac"), digits.parent / "back"
    assert main(["compress", "--lossless", "--archive", str(digits)]) == 0
    note = f"laconic: {digits}: note: picture"
    assert capsys.readouterr().err == f"{note} 0: RESOLUTION is not kept\n{note} 1: EXIF is not kept\n"
    assert main(["decompress", str(file), "--members", "-o", str(back), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["file"] for row in rows} == {str(file)} and names(back) == ["0.bmp.png", "0.png", "deep/1.png"]
    assert main(["decompress", str(file), "--members", "-o", str(back)]) == 1
    assert f"laconic: {file}: {back / '0.png'} exists" in capsys.readouterr().err
    main(["compress", "--lossless", "-e", "1", str(digits / "0.png"), "-o", str(file), "-f"])
    assert main(["decompress", str(file), "--members", "-o", str(back)]) == 1
    assert f"{file}: medium: found 'lossless picture', expected archive" in capsys.readouterr().err


def test_an_archive_without_a_circuit_says_how_to_train_one(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LACONIC_MODELS", "")
    assert main(["compress", "--lossless", "--archive", str(digits)]) == 1
    assert "lossless_table" in capsys.readouterr().err and not digits.with_suffix(".lac").exists()
