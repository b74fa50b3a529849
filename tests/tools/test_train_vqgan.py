"""The trainer of the extreme model: pieces that resume each other, codes in use; LPIPS of made-up backbones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from laconic.models.vqgan import VqganConfig
from laconic.tools import train_vqgan
from laconic.tools.lpips import Lpips


class Distance(torch.nn.Module):
    """Stands in for LPIPS."""

    def __init__(self, folder: Path, backbone: str = "squeeze") -> None:
        super().__init__()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean((1, 2, 3))


@pytest.mark.parametrize("paper", [False, True])
def test_two_pieces_go_on_from_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paper: bool) -> None:
    monkeypatch.setattr(train_vqgan, "Lpips", Distance)
    monkeypatch.setattr(train_vqgan, "START_CROPS", 4)
    monkeypatch.setattr(train_vqgan, "VqganConfig", lambda: VqganConfig(decoder_blocks=(4, 5), first_depth=4, second_depth=2))
    rng = np.random.default_rng(0)
    for i in range(2):
        smooth = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((90, 80))
        smooth.save(tmp_path / f"{i}.png")
    out = tmp_path / "out.pt"
    options = ["--data", str(tmp_path), "--out", str(out), "--lpips", str(tmp_path), "--batch", "2", "--crop", "48"]
    options += ["--warmup", "1", *(["--paper"] if paper else ["--adversary", "0.1", "--late", "0"])]
    steps = []
    for n in (1, 2):
        train_vqgan.main([*options, "--steps", str(n)])
        steps.append(torch.load(out, weights_only=True))
    first, second = steps
    assert (first["step"], second["step"]) == (1, 2) and second["elapsed_s"] > first["elapsed_s"]
    moved = {name for name, value in second["model"].items() if not torch.equal(value, first["model"][name])}
    assert "codes" in moved and "from_code.weight" in moved
    assert ("stem.weight" in moved) == (not paper)
    model = train_vqgan.load_checkpoint(out)
    assert model.config.depth == 6 and bool(model.codes.isfinite().all())
    lines = train_vqgan.validate(model, [np.zeros((40, 50, 3), np.uint8)], tmp_path).splitlines()
    assert [line.split()[2] for line in lines] == ["3", "5"]


def test_what_is_no_folder_of_pictures_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match="at least 48 x 48"):
        train_vqgan.main(["--data", str(tmp_path), "--out", str(tmp_path / "o"), "--lpips", "x", "--crop", "48"])


def test_lpips_is_nothing_for_the_same_picture(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision: extra metrics")
    from laconic.entropy.errors import BadInput

    with pytest.raises(BadInput, match="squeezenet1_1_features"):
        Lpips(tmp_path, "squeeze")
    torch.manual_seed(0)
    features = models.squeezenet1_1(weights=None).features.state_dict()
    save_file({f"features.{name}": value for name, value in features.items()}, tmp_path / "squeezenet1_1_features.safetensors")
    channels = (64, 128, 256, 384, 384, 512, 512)
    linear = {f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(channels)}
    torch.save(linear, tmp_path / "lpips_v0.1_squeeze.pth")
    measure = Lpips(tmp_path, "squeeze")
    a, noise = torch.rand(1, 3, 64, 70), torch.randn(1, 3, 64, 70)
    same, near, far = (float(measure(a, (a + share * noise).clamp(0, 1))) for share in (0.0, 0.05, 0.5))
    assert abs(same) < 1e-4 < near < far
