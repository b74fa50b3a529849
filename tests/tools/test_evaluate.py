"""laconic eval: its figures against the files on disk, killed runs, failures, missing programs, tasks."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic.tools import cli, evaluate, sound_coders
from laconic.tools.coder import Coder
from laconic.tools.curves import read_curves
from laconic.tools.plan import default_metrics
from laconic.tools.plot import metrics_of

MEASURED = {"encode_s", "decode_s", "peak_memory_bytes"}  # what differs from run to run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    y, x = np.mgrid[:72, :96]
    for i in range(3):
        noise = np.random.default_rng(i).normal(0, 12, (72, 96, 3))
        pixels = np.stack([x * 2, y * 3, (x + y + 20 * i)], -1) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"p{i}.png")
    return folder


def rows_of(results: Path) -> list[dict[str, str]]:
    with (results / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steady(results: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows_of(results)]


def without_times(path: Path) -> Any:
    found = json.loads(path.read_text())
    for key in ("encoding_time", "decoding_time", "peak_memory_bytes"):
        found["results"].pop(key)
    return found


def test_figures_are_those_of_the_files(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    options = ["--codecs", "laconic,jpeg", "--metrics", "psnr", "--rates", "jpeg=20,80", "--rates", "laconic=10,70.5"]
    assert cli.main(["eval", str(pictures), "-o", str(out), *options]) == 0
    rows = rows_of(out)
    assert len(rows) == 12
    for row in rows:
        suffix = {"jpeg": ".jpg", "laconic": ".lac"}[row["codec"]]
        coded = out / "files" / row["codec"] / f"{row['file']}@{row['rate'].removesuffix('.0')}{suffix}"
        assert coded.stat().st_size == int(row["bytes"])
        assert float(row["bpp"]) == pytest.approx(8 * coded.stat().st_size / (72 * 96))
        assert int(row["peak_memory_bytes"]) >= 0 and float(row["encode_s"]) > 0 and float(row["decode_s"]) > 0
        if row["codec"] == "jpeg":
            a, b = (np.asarray(Image.open(p).convert("RGB")).astype(float) for p in (pictures / row["file"], coded))
            assert float(row["psnr-rgb"]) == pytest.approx(10 * np.log10(255**2 / np.mean((a - b) ** 2)), abs=1e-6)
            assert row["codelength_bits"] == ""
        else:
            assert float(row["codelength_bits"]) < 8 * int(row["bytes"])
    curve = json.loads((out / "jpeg.json").read_text())
    assert curve["files"] == 3 and curve["results"]["rate"] == [20.0, 80.0]
    mine = [float(row["psnr-rgb"]) for row in rows if row["codec"] == "jpeg" and row["rate"] == "20.0"]
    assert curve["results"]["psnr-rgb"][0] == pytest.approx(np.mean(mine))
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["dataset"]["files"]) == {"p0.png", "p1.png", "p2.png"} and not manifest["failures"]


def test_a_killed_run_goes_on_to_the_same_results(pictures: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ["--codecs", "jpeg,webp", "--metrics", "psnr", "--rates", f"jpeg={','.join(map(str, range(5, 95, 3)))}"]
    command = [sys.executable, "-m", "laconic.tools.cli", "eval", str(pictures), *options]
    assert cli.main([*command[3:], "-o", str(whole)]) == 0
    journal = killed / "rows.jsonl"
    child = subprocess.Popen([*command, "-o", str(killed)])
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_text().splitlines()) > 20) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    made = len(journal.read_text().splitlines())
    assert 20 < made and not (killed / "rows.csv").exists()
    with journal.open("a") as file:
        file.write('{"codec": "jpeg", "torn')
    assert cli.main([*command[3:], "-o", str(killed), "-j", "2"]) == 0
    assert steady(killed) == steady(whole)
    for name in ("jpeg.json", "webp.json"):
        assert without_times(killed / name) == without_times(whole / name)
    coded = [{p.relative_to(root): p.read_bytes() for p in root.glob("files/*/*")} for root in (killed, whole)]
    assert coded[0] == coded[1]
    assert len(journal.read_text().splitlines()) == len(steady(whole))


def test_a_bad_file_is_listed_and_the_rest_is_done(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_text("no picture")
    out = tmp_path / "results"
    options = ["--codecs", "jpeg", "--rates", "jpeg=50", "--metrics", "psnr"]
    assert cli.main(["eval", str(pictures), "-o", str(out), *options]) == 1
    assert json.loads((out / "manifest.json").read_text())["files_in_means"] == 3
    assert [row["file"] for row in rows_of(out)] == ["p0.png", "p1.png", "p2.png"]
    assert list(json.loads((out / "manifest.json").read_text())["failures"]) == ["jpeg at 50, broken.png"]
    assert "jpeg at 50, broken.png: BadInput: " in capsys.readouterr().err


def test_what_is_missing_is_named(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LACONIC_BACKBONES", raising=False)
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    evaluate.metric.cache_clear()
    command = "nosuch=nosuch-encoder {in} {out} {q}|nosuch-decoder {in} {out}"
    options = ["--codecs", "jpeg", "--codec", command, "--rates", "jpeg=50", "--rates", "nosuch=1", "--metrics", "psnr"]
    assert cli.main(["eval", str(pictures), "-o", str(tmp_path / "r"), *options]) == 1
    assert "no program nosuch-encoder, expected it on PATH" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "r")) == 3
    assert cli.main(["eval", str(pictures), "-o", str(tmp_path / "s"), *options[:2], "--metrics", "psnr,ms-ssim"]) == 1
    assert "pip install pytorch-msssim" in capsys.readouterr().err


def test_any_program_is_a_codec(pictures: Path, tmp_path: Path) -> None:
    script = tmp_path / "half.py"
    script.write_text(
        "import sys\nfrom PIL import Image\nsource, out, *q = sys.argv[1:]\nimage = Image.open(source)\n"
        "image.save(out, 'JPEG', quality=int(q[0])) if q else image.save(out)\n"
    )
    codec = f"own={sys.executable} {script} {{in}} {{out}} {{q}}|{sys.executable} {script} {{in}} {{out}}"
    options = ["--codec", codec, "--rates", "own=30,60", "--metrics", "psnr"]
    assert cli.main(["eval", str(pictures), "-o", str(tmp_path / "r"), *options]) == 0
    rows = rows_of(tmp_path / "r")
    assert len(rows) == 6 and all(float(row["psnr-rgb"]) > 20 for row in rows)
    assert {row["codec"] for row in rows} == {"own"}
    assert all(1 << 23 < int(row["peak_memory_bytes"]) < 1 << 27 for row in rows)  # Python's and Pillow's, not ours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "jpeg", "--rates", "jpeg=50.5"], "--rates jpeg: found [50.5], expected whole numbers"),
        (["--codecs", "jpeg", "-j", "0"], "-j: found 0, expected at least 1"),
        (
            ["--codecs", "jpeg", "--codec", "jpeg=true {in} {out} {q}|true {in} {out}"],
            "found 'jpeg', expected a name of",
        ),
        (["--codecs", "jpg"], "codec: found 'jpg', expected one of laconic, jpeg"),
        (["--codecs", "jpeg", "--metrics", "stoi"], "--metrics: found 'stoi', expected one for pictures"),
        (["--codecs", "jpeg", "--rates", "webp=1"], "--rates: found 'webp', expected one of jpeg"),
        (["--codecs", "jpeg", "--rates", "jpeg=a"], "--rates jpeg: found 'a', expected numbers"),
        (["--codec", "x=enc {in} {out}|dec {in} {out}"], "--codec x: found enc 'enc {in} {out}', expected {q} in it"),
        (["--codecs", "jpeg", "--task", "nosuch:f", "--rates", "jpeg=9"], "--task: found 'nosuch:f'"),
    ],
)
def test_wrong_options_are_named(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert cli.main(["eval", str(pictures), "-o", str(tmp_path / "r"), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_without_pictures_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", str(tmp_path)]) == 1
    assert "found 'nothing to code', expected pictures or sounds" in capsys.readouterr().err


def test_a_task_scores_the_decoded_parts(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_task.py").write_text(
        "def bright(arrays, labels):\n"
        "    assert all(a.shape == (16, 24, 3) for a in arrays)\n"
        "    return sum((a.mean() > 110) == (label == 'bright') for a, label in zip(arrays, labels)) / len(labels)\n"
    )
    monkeypatch.chdir(tmp_path)
    lines = ["file,label,x,y,width,height", "p0.png,dark,0,0,24,16", "p1.png,bright,70,50,24,16"]
    (pictures / "labels.csv").write_text("\n".join(lines))
    options = ["--codecs", "jpeg", "--rates", "jpeg=5,90", "--metrics", "psnr", "--task", "own_task:bright"]
    assert cli.main(["eval", str(pictures), "-o", "r", *options]) == 0
    assert json.loads(Path("r/manifest.json").read_text())["task"] == {"name": "own_task:bright", "original": 1.0}
    assert json.loads(Path("r/jpeg.json").read_text())["results"]["task"] == [1.0, 1.0]


def test_ours_runs_on_sounds(tmp_path: Path) -> None:
    import soundfile

    folder, out = tmp_path / "sounds", tmp_path / "r"
    folder.mkdir()
    soundfile.write(folder / "a.wav", 0.3 * np.sin(np.arange(8000) / 20), 8000)
    options = ["--codecs", "laconic-lossless", "--rates", "laconic-lossless=1", "--metrics", "si-sdr"]
    cli.main(["eval", str(folder), "-o", str(out), *options])  # 1 where torchmetrics is missing
    [row] = rows_of(out)
    assert int(row["bytes"]) == (out / "files" / "laconic-lossless" / "a.wav@1.lac").stat().st_size < 16000
    samples, rate = soundfile.read(folder / "a.wav", dtype="int16")
    back = laconic.decompress(out / "files" / "laconic-lossless" / "a.wav@1.lac")
    assert back.sample_rate == rate and back.bits == 16 and np.array_equal(back.samples.ravel(), samples)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    import soundfile

    folder = tmp_path / "sounds"
    folder.mkdir()
    t = np.arange(22051) / 22050
    stereo = np.stack([0.3 * np.sin(2 * np.pi * 440 * t), 0.2 * np.sin(2 * np.pi * 660 * t)], 1)
    soundfile.write(folder / "a.wav", stereo, 22050)
    return folder


def test_sounds_come_back_in_their_length(sounds: Path, tmp_path: Path) -> None:
    options = ["--codecs", "opus,flac", "--rates", "opus=48", "--rates", "flac=5", "--metrics", "psnr"]
    assert cli.main(["eval", str(sounds), "-o", str(tmp_path / "r"), *options]) == 1  # PSNR is for pictures
    pytest.importorskip("torchmetrics")
    options[-1] = "si-sdr"
    assert cli.main(["eval", str(sounds), "-o", str(tmp_path / "r"), *options]) == 0
    opus, flac = sorted(rows_of(tmp_path / "r"), key=lambda row: row["codec"] == "flac")
    assert float(opus["si-sdr"]) > 15 and float(flac["si-sdr"]) > 60
    assert float(opus["kbit_per_s"]) == pytest.approx(8 * int(opus["bytes"]) / (22051 / 22050) / 1000)
    assert 0 < float(opus["payload_kbit_per_s"]) < float(opus["kbit_per_s"]) and flac["payload_kbit_per_s"] == ""
    curve = json.loads((tmp_path / "r" / "flac.json").read_text())["results"]
    assert curve["payload_kbit_per_s"] == [None] and "payload_kbit_per_s" not in metrics_of(read_curves(tmp_path / "r"))


def test_laconic_is_the_model_of_the_medium(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lossless = sound_coders.own_lossless()

    def model_of_sounds(model: str) -> Coder:
        return replace(lossless, name="laconic", rates=(3.0,), encode=lambda item, _: lossless.encode(item, 1))

    monkeypatch.setattr(sound_coders, "own", model_of_sounds)
    for options in (["--rates", "laconic=3"], []):
        options = ["--codecs", "laconic", *options, "--metrics", "si-sdr"]
        cli.main(["eval", str(sounds), "-o", str(tmp_path / "r"), *options])  # 1 where torchmetrics is missing
        assert [(row["codec"], row["rate"]) for row in rows_of(tmp_path / "r")] == [("laconic", "3.0")]
    assert cli.main(["eval", str(sounds), "-o", str(tmp_path / "r"), "--codecs", "jpeg"]) == 1
    assert "found 'one for pictures', expected one for sounds" in capsys.readouterr().err


def test_metrics_are_those_of_the_field(sounds: Path) -> None:
    import soundfile

    assert default_metrics(sounds, "sound", ["a.wav"]) == "visqol,si-sdr,mr-stft"
    soundfile.write(sounds / "b.wav", np.zeros(100), 24000)
    (sounds / "c.wav").write_text("no sound")
    assert default_metrics(sounds, "sound", ["b.wav", "c.wav"]) == "pesq,stoi,visqol-speech"
    assert default_metrics(sounds, "sound", ["a.wav", "b.wav"]) == "visqol,si-sdr,mr-stft"
    soundfile.write(sounds / "b.wav", np.zeros(100), 44100)
    assert default_metrics(sounds, "sound", ["b.wav"]) == "visqol,si-sdr,mr-stft"
    assert default_metrics(sounds, "picture", []) == "psnr-rgb,ms-ssim-rgb"


def test_spoken_digits_are_scored(tmp_path: Path) -> None:
    folder, out = Path(__file__).parent.parent / "data" / "digits", tmp_path / "r"
    options = ["--codecs", "opus,laconic-lossless", "--rates", "opus=6,24", "--rates", "laconic-lossless=1"]
    task = "laconic.tools.tasks:digits"
    cli.main(["eval", str(folder), "-o", str(out), *options, "--metrics", "si-sdr", "--task", task])
    original = json.loads((out / "manifest.json").read_text())["task"]["original"]
    exact, opus = (json.loads((out / f"{name}.json").read_text())["results"] for name in ("laconic-lossless", "opus"))
    assert original >= 0.9 and exact["task"] == [original] and opus["task"][1] >= 0.8


def test_models_of_compressai_give_real_bytes(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressai")
    options = ["--codecs", "zoo:bmshj2018-hyperprior!random", "--metrics", "psnr"]
    rates = ["--rates", "bmshj2018-hyperprior-random=1"]
    assert cli.main(["eval", str(pictures), "-o", str(tmp_path / "r"), *options, *rates]) == 0
    assert all(int(row["bytes"]) > 10 for row in rows_of(tmp_path / "r"))
