"""Training: pieces resume each other, and two processes compute what one does with the doubled batch, also when one dies."""

from __future__ import annotations

import os
import re
import socket
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

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # see docs/training.md
SIZES = {"c8": 16, "c16": 24, "latent_channels": 24, "hyper_channels": 8, "context_channels": 16}
DYING = f"""
import os, signal, torch
import torch.distributed as dist
from dataclasses import replace
from pathlib import Path
from laconic.models.photo import PhotoConfig
from laconic.tools import train_image
from laconic.tools.train_image import Training, check_alike, furthest_checkpoint, rank

train_image.PhotoConfig = lambda: PhotoConfig(**{SIZES})
here = Path(__file__).parent
make_step = Training.step

def step(self):
    if self.step_number == 3 and rank() == 1 and not (here / "died").exists():
        (here / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    loss = make_step(self)
    if self.step_number == 1 and rank() == 0:
        torch.save(torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]), here / "gradient")
    if self.step_number == 6:
        check(self)
    return loss

def check(self):
    weights = torch.cat([p.detach().flatten() for p in self.model.parameters()])
    everywhere = [torch.empty_like(weights) for _ in range(2)]
    dist.all_gather(everywhere, weights)
    assert torch.equal(*everywhere)
    own = here / str(rank())
    torch.save({{"step": rank(), "text": "x" * 9 * rank()}}, own)
    assert furthest_checkpoint(own, self.device) == {{"step": 1, "text": "x" * 9}}
    try:
        check_alike(replace(self.config, seed=7 + rank()), self.pictures, self.device)
    except SystemExit as error:
        assert "expected the same in all" in str(error)
    else:
        raise AssertionError("two seeds were taken for one")
    check_alike(replace(self.config, threads=7 + rank()), self.pictures, self.device)

Training.step = step
train_image.main()
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
            state.forward = lambda x, q, noise, error=error: (x + error, nothing, nothing)
            losses.append(float(state.loss(x, q, nothing)))
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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of SIZES in place of those of the shipped model."""
    monkeypatch.setattr(train_image, "PhotoConfig", lambda: PhotoConfig(**SIZES))


def test_a_run_that_is_resumed_ends_in_the_same_weights(pictures: Path, tmp_path: Path, small: None) -> None:
    """Also from a checkpoint of versions before --save-every, whose configuration lacks it."""
    ends = {}
    for name, pieces in (("whole", [4]), ("resumed", [1, 3])):
        config = train_image.Config(data=str(pictures), out=str(tmp_path / name), batch=2, steps=4)
        for n_steps in pieces:
            state = train_image.Training(config)
            for _ in range(n_steps):
                state.step()
            state.save()
            saved = torch.load(config.out, weights_only=True)
            del saved["config"]["save_every"]
            torch.save(saved, config.out)
        ends[name] = saved
    names = {"model", "ema", "optimiser", "elapsed_s", "step", "skipped", "config", "model_config"}
    assert set(saved) == names and ends["resumed"]["step"] == 4
    for part in ("model", "ema"):
        assert all(torch.equal(weight, ends["whole"][part][name]) for name, weight in ends["resumed"][part].items())


@pytest.fixture(scope="module")
def two_machines(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What two agents on the loopback printed, and their folder.

    Each has a checkpoint of its own; the second process is killed after three of six steps.
    """
    folder = tmp_path_factory.mktemp("two")
    (folder / "dying.py").write_text(DYING)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--max-restarts", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "7", "--local-addr", "127.0.0.1"]
    agents = []
    for name in ("first", "second"):
        command = [*launcher, str(folder / "dying.py"), *arguments(pictures, folder / name, 2)]
        agents.append(subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        outputs = [agent.communicate(timeout=300) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    return folder, "".join(out for out, _ in outputs)


def arguments(pictures: Path, out: Path, batch: int) -> list[str]:
    """The command line of a training, which saves and tells after every step."""
    return ["--data", str(pictures), "--out", str(out), "--batch", str(batch), "--steps", "6", "--save-every", "0"]


def test_two_processes_equal_one_with_the_doubled_batch(
    two_machines: tuple[Path, str], pictures: Path, tmp_path: Path, small: None
) -> None:
    gradients = {"two": torch.load(two_machines[0] / "gradient", weights_only=True)}
    for name, batch in (("one", 4), ("half", 2)):
        state = train_image.Training(train_image.parse(arguments(pictures, tmp_path / name, batch)))
        state.step()
        gradients[name] = torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None])
    difference = {name: float((g - gradients["one"]).norm() / gradients["one"].norm()) for name, g in gradients.items()}
    assert difference["two"] < 0.02, difference  # bfloat16 sums in another order
    assert difference["half"] > 0.1, difference


def test_two_machines_of_which_one_dies_have_the_losses_of_one_with_the_doubled_batch(
    two_machines: tuple[Path, str], pictures: Path, tmp_path: Path, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, told = two_machines
    assert (folder / "died").exists() and "goes on from step 3" in told
    losses = {"two": losses_of(told)}
    for name, batch in (("one", 4), ("half", 2)):
        train_image.main(arguments(pictures, tmp_path / name, batch))
        losses[name] = losses_of(capsys.readouterr().out)
    assert all(list(found) == [1, 2, 3, 4, 5, 6] for found in losses.values()), losses
    difference = {name: max(abs(losses[name][n] / losses["one"][n] - 1) for n in range(1, 7)) for name in ("two", "half")}
    assert difference["two"] < 0.001 and difference["half"] > 0.02, difference


def losses_of(told: str) -> dict[int, float]:
    """The loss by step, of the lines that the trainer prints."""
    return {int(step): float(loss) for step, loss in re.findall(r"step (\d+), .*: loss ([\d.]+), mean of 1;", told)}
