"""Training: pieces resume each other, and two processes compute what one does with the doubled batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from PIL import Image

from laconic.models.photo import Photo, PhotoConfig
from laconic.tools import export, train_image

GRADIENT = """
import sys, torch
from dataclasses import replace
import torch.distributed as dist
from laconic.tools.train_image import Config, Training, rank
torch.set_num_threads(1)
data, out, batch = sys.argv[1:]
if dist.is_torchelastic_launched():
    dist.init_process_group("gloo")
state = Training(Config(data=data, out=out, batch=int(batch)))
state.model.eval()  # no noise: the same rounding in both
state.step()
if rank() == 0:
    torch.save(torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None]), out)
state.model.train()
state.config = replace(state.config, steps=4)
state.run()
assert state.step_number == 4
if dist.is_initialized():
    weights = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    everywhere = [torch.empty_like(weights) for _ in range(2)]
    dist.all_gather(everywhere, weights)
    assert torch.equal(*everywhere)
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    sample = Image.open(str(files("laconic.assets") / "sample.webp")).convert("RGB")
    for i in range(3):
        sample.crop((100 * i, 60 * i, 100 * i + 200, 60 * i + 160)).save(folder / f"{i}.png")
    return folder


def test_pieces_resume_each_other_and_export(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "checkpoint.pt"
    common = ["--data", str(pictures), "--out", str(out), "--batch", "1", "--valid", str(pictures), "--total", "5"]
    train_image.main([*common, "--steps", "2"])
    train_image.main([*common, "--steps", "3"])
    saved = torch.load(out, weights_only=True)
    assert saved["step"] == 3 and saved["skipped"] == 0
    assert capsys.readouterr().out.count("valid bpp/PSNR: q0 ") == 2
    export.main([str(out), str(tmp_path / "photo-x"), "--hardware", "a test", "--data", "3 pictures"])
    assert (tmp_path / "photo-x.json").exists() and (tmp_path / "photo-x.safetensors").stat().st_size < 12_000_000


def test_the_eye_sees_a_wrong_colour_where_squares_see_noise(pictures: Path, tmp_path: Path) -> None:
    x, q, nothing = torch.full((2, 3, 128, 128), 0.5), torch.tensor([20.0, 60.0]), torch.zeros(2)
    sign = 1 - 2.0 * ((torch.arange(128)[:, None] + torch.arange(128)) % 2)
    losses = []
    for eye in (0.0, 0.15):
        state = train_image.Training(train_image.Config(data=str(pictures), out=str(tmp_path / "none.pt"), eye=eye))
        for error in (torch.full((128, 128), 0.02), 0.02 * sign):
            state.forward = lambda x, q, error=error: (x + error, nothing, nothing)
            losses.append(float(state.loss(x, q)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "without the eye, only the squared error counts"
    assert losses[2] > 1.5 * losses[3] > 1.5 * losses[1]


def test_more_blocks_start_as_the_network_without_them() -> None:
    torch.manual_seed(1)
    small = Photo(replace(PhotoConfig(), encoder_blocks=(3, 1), decoder_blocks=(2, 5))).eval()
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    grown = Photo().eval()
    train_image.load_grown(grown, small.state_dict())
    x, quality = torch.rand(1, 3, 64, 64), torch.tensor([50.0])
    with torch.no_grad():
        for a, b in zip(small(x, quality), grown(x, quality), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(SystemExit, match="expected weights of this architecture"):
        train_image.load_grown(small, grown.state_dict())


def test_two_processes_equal_one_with_the_doubled_batch(pictures: Path, tmp_path: Path) -> None:
    script = tmp_path / "gradient.py"
    script.write_text(GRADIENT)
    gradients = {}
    for name, launcher, batch in (
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"], 2),
        ("one", [], 4),
        ("half", [], 2),
    ):
        command = [sys.executable, *launcher, str(script), str(pictures), str(tmp_path / name), str(batch)]
        run = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        gradients[name] = torch.load(tmp_path / name, weights_only=True)
    difference = {name: float((g - gradients["one"]).norm() / gradients["one"].norm()) for name, g in gradients.items()}
    assert difference["two"] < 0.02, difference  # bfloat16 sums in another order
    assert difference["half"] > 0.1, difference
