"""The command line: exit statuses, names, pipes, nothing lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from laconic.tools.cli import main

FORMATS = Path(__file__).parent.parent / "data" / "formats"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return Path(shutil.copy(FORMATS / "interlaced.png", tmp_path / "photo.png"))


def test_there_and_back(photo: Path) -> None:
    assert main(["compress", str(photo), "--quiet"]) == 0
    file = photo.with_suffix(".lac")
    assert file.stat().st_mtime_ns == photo.stat().st_mtime_ns
    assert main(["decompress", str(file)]) == 1  # photo.png exists
    assert main(["decompress", str(file), "-f"]) == 0
    assert main(["verify", str(file)]) == 0 and main(["info", str(file), "--json"]) == 0
    assert sorted(p.name for p in photo.parent.iterdir()) == ["photo.lac", "photo.png"]


def test_damage_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Path(shutil.copy(FORMATS / "truncated.png", tmp_path))
    assert main(["compress", str(bad)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "x.lac").write_bytes(b"not ours")
    assert main(["decompress", str(tmp_path / "x.lac")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["truncated.png", "x.lac"]


def test_collisions_and_wrong_usage_write_nothing(photo: Path) -> None:
    twin = Path(shutil.copy(photo, photo.with_suffix(".bmp")))
    assert main(["compress", str(photo), str(twin)]) == 2
    assert main(["compress", str(photo), str(twin), "-o", str(photo.parent / "x.lac")]) == 2
    assert main(["decompress", "x.lac", "--region", "1,2"]) == 2
    assert not list(photo.parent.glob("*.lac"))


def test_a_folder_is_mirrored_and_the_rest_is_done(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copy(photo, tmp_path / "in" / "a.png")
    shutil.copy(photo, tmp_path / "in" / "deep" / "b.png")
    (tmp_path / "in" / "c.png").write_text("no picture")
    (tmp_path / "out").mkdir()
    assert main(["compress", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-j", "2"]) == 1
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*.lac")) == [
        "a.lac",
        "deep/b.lac",
    ]


def test_pipes_and_a_mistyped_flag(photo: Path) -> None:
    run = [sys.executable, "-m", "laconic.tools.cli"]
    packed = subprocess.run([*run, "compress", "-", "-o", "-"], input=photo.read_bytes(), capture_output=True, check=True)
    assert packed.stdout.startswith(b"\x89Lc")
    back = subprocess.run([*run, "decompress", "-", "-o", "-"], input=packed.stdout, capture_output=True, check=True)
    assert back.stdout.startswith(b"\x89PNG")
    typo = subprocess.run([*run, "compress", "--qualty", "3", str(photo)], capture_output=True, text=True, check=False)
    assert typo.returncode == 2 and "--quality" in typo.stderr


def test_help_loads_neither_torch_nor_numba() -> None:
    script = "import sys, laconic.tools.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_full_disk_and_an_interrupt_leave_nothing(photo: Path) -> None:
    run = [sys.executable, "-m", "laconic.tools.cli", "compress", str(photo)]
    full = subprocess.run([*run, "-o", "/dev/full"], capture_output=True, text=True, check=False)
    assert full.returncode == 1 and "No space left" in full.stderr and "Traceback" not in full.stderr
    command = [*run[:-1], "-", "-o", str(photo.with_suffix(".lac"))]
    many = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert many.stdin and many.stderr
    many.stdin.write(photo.read_bytes()[:100])  # it waits for the rest
    many.stdin.flush()
    time.sleep(2)
    many.send_signal(signal.SIGINT)
    assert many.wait(30) == 130
    assert b"Traceback" not in many.stderr.read()
    assert [p.name for p in photo.parent.iterdir()] == ["photo.png"]
