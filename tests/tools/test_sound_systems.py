"""The named systems are trained by the same script and measured by one other, from a tar of sounds to a row of figures."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import laconic
from laconic.models.sound import Sound
from laconic.tools import sound_systems, train_sound

WEIGHTS = str(Path(laconic.__file__).parents[1] / "assets" / "weights" / "sound-2.safetensors")
SYSTEMS = {
    "default": ("--decoder", "default"),
    "wavehax": ("--decoder", "wavehax"),
    "latent": ("--quantiser", "latent"),
    "fsq": ("--quantiser", "fsq"),
    "rvq": ("--quantiser", "rvq"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tar of three sounds and the list of the one that is left out."""
    folder = tmp_path_factory.mktemp("sounds")
    rng, t = np.random.default_rng(1), np.arange(20_000)
    with tarfile.open(folder / "sounds.tar", "w") as archive:
        for i, name in enumerate(("a", "b", "left")):
            x = np.sin(t / (7 + 3 * i)) * np.sin(t / 2000) ** 2 * 0.1 + rng.normal(0, 0.003, len(t))
            file = io.BytesIO()
            soundfile.write(file, x.astype(np.float32), 16_000, format="WAV")
            member = tarfile.TarInfo(f"train/speech/{name}.wav")
            member.size = file.tell()
            archive.addfile(member, io.BytesIO(file.getvalue()))
    (folder / "left.txt").write_text("train/speech/left.wav\n")
    return str(folder / "sounds.tar"), str(folder / "left.txt")


def trained(data: tuple[str, str], out: Path, system: str) -> train_sound.Training:
    """Take one step with a system."""
    arguments = ["--data", data[0], "--leave-out", data[1], "--out", str(out), "--init", WEIGHTS, *SYSTEMS[system]]
    train_sound.main([*arguments, "--batch", "2", "--frames", "24", "--minutes", "1e-6"])
    return torch.load(out, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_is_trained_and_measured(
    data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    path = tmp_path / "system.pt"
    state = trained(data, path, system)
    assert state["step"] == 1 and state["config"][SYSTEMS[system][0][2:]] == system
    arguments = [str(path), "--data", data[0], "--leave-out", data[1], "--metrics", "stoi", "--seconds", "1"]
    sound_systems.main([*arguments, "--rates", "4"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["steps"] == 1 and row["kbit_per_s"] == pytest.approx(4, rel=0.1) and row["decode_x"] > 0
    assert 0 < row["envelope"] < row["kbit_per_s"]


@pytest.mark.parametrize("system", ["default", "wavehax"])
def test_a_decoder_is_trained_for_the_same_codes(data: tuple[str, str], tmp_path: Path, system: str) -> None:
    state = trained(data, tmp_path / "system.pt", system)["model"]
    before = Sound.load(WEIGHTS, {}).state_dict()
    prefix = "sound." if system == "wavehax" else ""
    for name, weight in before.items():
        if name.split(".")[0] not in ("enter", "blocks", "norm", "leave", "noise_level"):
            assert torch.equal(state[prefix + name], weight), name
    moved = "leave.bias"
    assert state[moved].abs().max() > 0, "it begins at zero"


def test_only_what_the_format_has_is_exported(data: tuple[str, str], tmp_path: Path) -> None:
    arguments = ["--data", data[0], "--out", str(tmp_path / "x.pt")]
    for more in (
        ["--decoder", "wavehax"],
        ["--quantiser", "fsq", "--init", WEIGHTS, "--export", str(tmp_path)],
        ["--quantiser", "fsq", "--decoder", "default", "--init", WEIGHTS],
    ):
        with pytest.raises(SystemExit):
            train_sound.main([*arguments, *more])


def test_clips_are_of_one_level_and_evenly_chosen() -> None:
    sounds = [np.full(n, 0.01 * n, np.float32) for n in (5, 20, 21, 22, 23)]
    found = sound_systems.clips(sounds, 2, 20)
    assert found.shape == (2, 20) and torch.allclose(found, torch.full((2, 20), 10 ** (-26 / 20)))
