"""The table of small pictures: reading idx files, training, reusing, errors."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import numpy as np
import pytest

from laconic.entropy.errors import BadInput
from laconic.tools import lossless_table
from laconic.tools.lossless_table import read_idx


def idx(pictures: np.ndarray) -> bytes:
    return struct.pack(">4B3I", 0, 0, 8, 3, *pictures.shape) + pictures.tobytes()


def tones(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 200, (n, 1, 1)) + rng.integers(0, 20, (n, 3, 4))).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "tones").mkdir()
    (tmp_path / "tones" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(tones(300, 1))))
    (tmp_path / "tones" / "t10k-images-idx3-ubyte").write_bytes(idx(tones(80, 2)))
    return tmp_path


def run(data: Path, *more: str) -> int:
    small = ["--states", "8", "--contexts", "2", "--epochs", "2", "--threads", "1", "-o", str(data / "models")]
    return lossless_table.main([str(data), "--datasets", "tones", *small, *more])


def test_trains_once_and_prints_bits_of_real_bytes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data) == 0
    first = capsys.readouterr()
    assert "epoch 2" in first.err
    assert run(data) == 0
    second = capsys.readouterr()
    assert second.err == ""
    figures = [out.splitlines()[1].split()[:6] for out in (first.out, second.out)]
    assert figures[0] == figures[1]
    name, model, *bpd, n_bytes = figures[0]
    assert (name, model) == ("tones", "tones-hclt8-c2")
    exact, integer, coded = map(float, bpd)
    assert exact == pytest.approx(integer, rel=0.005)
    assert integer < coded == pytest.approx(8 * int(n_bytes) / (80 * 12), abs=1e-3)


def test_literature_stands_beside_its_data_sets() -> None:
    row = lossless_table.Row("mnist", "m", None, 1.0, 1.0, 1, 1.0, 1.0)
    assert row.line().endswith("     1.14     1.20     1.90     1.27     1.39")
    assert len(row.line()) == len(lossless_table.HEAD)


def test_limit_codes_fewer(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "--limit", "10", "--train-limit", "100") == 0
    assert run(data) == 0  # the float model's figure is of 10 pictures
    assert capsys.readouterr().out.splitlines()[-1].split()[2] == "-"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_idx_files_come_back(tmp_path: Path, pack: object) -> None:
    suffix = {bytes: "", gzip.compress: ".gz", lzma.compress: ".xz"}[pack]  # type: ignore[index]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(pack(idx(tones(5, 1))))  # type: ignore[operator]
    assert np.array_equal(read_idx(path), tones(5, 1))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_idx_files_that_are_not_sound(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    raw = idx(tones(5, 1))
    packed: list[bytes] = [pack(part) for part in (b"", raw[:15], raw[:-1], raw + b"\0", b"\0\0\x08\x01" + raw[4:])]
    for content in [*packed, pack(raw)[:-3], b"not packed"]:
        path.write_bytes(content)
        with pytest.raises(BadInput, match="found .*, expected"):
            read_idx(path)


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 1
    assert "t10k-images-idx3-ubyte" in capsys.readouterr().err
