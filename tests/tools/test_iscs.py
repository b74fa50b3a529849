"""`laconic iscs` shows every channel, of CompressAI's models too; the judge finds what a codec of known worth is worth."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import laconic
from laconic.models import iscs
from laconic.models.photo import N_PASSES, Photo, PhotoConfig
from laconic.tools import iscs_judge, iscs_models, iscs_train
from laconic.tools.cli import main
from laconic.tools.metrics import Absent

SIZES = PhotoConfig(8, 12, 16, 8, 8, encoder_blocks=(1, 1), decoder_blocks=(1, 1), anchors=4)
KINDS = iscs_models.KINDS


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed photo model with 16 channels."""
    torch.manual_seed(1)
    model = Photo(SIZES)
    save_file(model.state_dict(), tmp_path / "small.safetensors")
    card = {"architecture": {"class": "laconic.models.photo.Photo", "config": asdict(SIZES)}}
    (tmp_path / "small.json").write_text(json.dumps(card))
    monkeypatch.setenv("LACONIC_MODELS", str(tmp_path))
    return "small"


def compressai_model(kind: str, seed: int = 1) -> Any:
    pytest.importorskip("compressai", reason="compressai is not installed: pip install laconic-codec[zoo]")
    torch.manual_seed(seed)
    return iscs_train.architectures()[kind](16, 24).eval().requires_grad_(False)


def test_the_command_prints_every_channel_and_draws(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "figure.png"
    assert main(["iscs", small, "--quality", "30", "--plot", str(figure)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["rank", "channel", "importance", "set", "slice", "core", "channel"]
    cells = [row.split() for row in rows]
    assert [int(cell[0]) for cell in cells] == list(range(16))
    assert sorted(int(cell[1]) for cell in cells) == list(range(16))
    worth = [float(cell[2]) for cell in cells]
    assert all(b <= a * 1.02 for a, b in pairwise(worth))
    n_core = [cell[3] for cell in cells].count("core")
    assert [cell[3] for cell in cells] == ["core"] * n_core + ["auxiliary"] * (16 - n_core)
    assert sorted({cell[4] for cell in cells}) == ["0", "1", "2", "3"]
    core = {cell[1] for cell in cells if cell[3] == "core"}
    assert core and {cell[5] for cell in cells} <= core
    with Image.open(figure) as drawn:
        assert drawn.width > drawn.height > 500 and len(set(drawn.convert("RGB").resize((40, 20)).get_flattened_data())) > 5


@pytest.mark.parametrize(
    "words, said",
    [
        (["--plot", "figure.txt"], "--plot: found"),
        (["--quality", "101"], "--quality: found 101"),
        (["--quality", "nan"], "--quality: found nan"),
    ],
)
def test_what_cannot_be_is_said(small: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["iscs", small, *words]) == 1
    assert said in capsys.readouterr().err


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(laconic.ModelMissing, match="found no 'nowhere'"):
        iscs_models.load("nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_compressai_are_shown_as_they_code(kind: str, tmp_path: Path) -> None:
    model, x = compressai_model(kind), torch.rand(2, 3, 64, 128)
    model.g_a[-1].weight.mul_(30)  # else every symbol is 0
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "checkpoint.pth.tar")
    latents = iscs_models.load(str(tmp_path / "checkpoint.pth.tar"))
    assert isinstance(latents, iscs_models.ZooLatents)
    out = model(x)
    y_hat, bits = latents.encode(x)
    assert len(y_hat.unique()) > 5
    assert torch.allclose(latents.decode(y_hat), out["x_hat"], atol=1e-5)
    assert torch.allclose(bits, -out["likelihoods"]["y"].log2(), atol=1e-4)
    first, again = iscs.analyse(latents), iscs.analyse(latents)
    assert torch.equal(first.importance, again.importance) and bool((first.importance > 0).all())


def test_the_importance_of_a_hyperprior_goes_along_with_a_permutation() -> None:
    """Exactly, but for the rounding of sums: z is drawn, and its order stays."""
    model, order = compressai_model("mbt2018-mean"), torch.randperm(24)
    first = iscs.analyse(iscs_models.ZooLatents(model)).importance
    twice = torch.cat([order, order + 24])
    for layer, rows in ((model.g_a[-1], order), (model.h_s[4], twice)):
        layer.weight.copy_(layer.weight[rows])
        layer.bias.copy_(layer.bias[rows])
    model.g_s[0].weight.copy_(model.g_s[0].weight[order])
    model.h_a[0].weight.copy_(model.h_a[0].weight[:, order])
    assert torch.allclose(iscs.analyse(iscs_models.ZooLatents(model)).importance, first[order], rtol=1e-4)


def test_a_factorised_prior_is_drawn_as_it_is() -> None:
    bottleneck = compressai_model("bmshj2018-factorized").entropy_bottleneck
    values, mass = iscs_models.bottleneck_masses(bottleneck)
    _, likelihood = bottleneck(values[None, :, None, 1020:1029])
    assert torch.allclose(mass[:, 1020:1029].float(), likelihood[0, :, 0], rtol=1e-3)
    assert torch.allclose(mass.sum(1), torch.ones(24, dtype=torch.float64))


@pytest.mark.parametrize("name", ["compressai:mbt2018:3", "compressai:mbt2018-mean:9", "compressai:mbt2018-mean"])
def test_published_models_that_are_none_are_refused(name: str) -> None:
    pytest.importorskip("compressai")
    with pytest.raises(laconic.BadInput, match="model of compressai: found"):
        iscs_models.load(name)


def test_published_weights_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("compressai")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(laconic.ModelMissing, match=r"mbt2018-mean:3: found .*no .*expected the weights from https://"):
        iscs_models.load("compressai:mbt2018-mean:3")


@pytest.mark.parametrize("stored", [b"no checkpoint", None])
def test_files_that_are_no_checkpoints_are_refused(stored: bytes | None, tmp_path: Path) -> None:
    pytest.importorskip("compressai")
    path = tmp_path / "file.pth"
    path.write_bytes(stored or b"")
    if stored is None:
        torch.save({"g_a.1.beta": torch.ones(1), "context_prediction.weight": torch.ones(1)}, path)
    with pytest.raises(laconic.BadInput, match="model: found"):
        iscs_models.load(str(path))


def test_compressai_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "compressai", None)
    with pytest.raises(Absent, match=r"laconic-codec\[zoo\]"):
        iscs_models.load("compressai:mbt2018-mean:3")


class Linear:
    """Is a codec of blocks of 4 x 4 pixels, whose channels' worth is what is squared in them."""

    reach = 1

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.n_channels = 12
        self.blocks = 0.1 * torch.randn(12, 3, 4, 4, generator=generator)
        self.scales = torch.linspace(-2, 4, 12).exp()[torch.randperm(12, generator=generator)]
        self.y_hat = (torch.randn(1, 12, 16, 16, generator=generator) * self.scales[:, None, None]).round()

    def decode(self, y_hat: Tensor) -> Tensor:
        return torch.nn.functional.conv_transpose2d(y_hat, self.blocks, stride=4)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.y_hat, torch.ones_like(self.y_hat) * self.scales[:, None, None]

    def energy(self, seed: int) -> Tensor:
        return iscs.rounded_energy(self.scales)[None]

    def neighbours(self) -> iscs.Neighbours:
        return iscs.Neighbours(self.blocks.flatten(1), self.scales, self.blocks.flatten(1))


def test_the_judge_agrees_where_worth_is_known() -> None:
    codec = Linear()
    x = codec.decode(codec.y_hat) + 0.01 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = iscs_judge.judge("linear", codec, torch.arange(12), x, seed=0)
    assert found.rho["ISCS"] > 0.97 > found.rho["natural"]
    assert found.bpp == pytest.approx(float(codec.scales.sum()) / 16)
    oracle, ours, chance = (found.curves[key] for key in ("oracle", "ISCS", "random"))
    assert all(a >= b - 0.5 for a, b in zip(oracle, ours, strict=True)) and sum(ours) > sum(chance) + 4
    assert oracle == sorted(oracle) and max(oracle) <= found.psnr
    table = iscs_judge.markdown([found])
    assert table.count("| ISCS |") == 2 and "literal, decoder" in table
    assert iscs_judge.draw([found]).get_axes()


def test_a_channel_that_fits_in_part_counts_in_part() -> None:
    codec = Linear()
    true = iscs_judge.truth(codec, codec.decode(codec.y_hat))
    order = true.worth.argsort(descending=True)
    end = float(true.bits[order[0]] / true.bits.sum())
    ends = [iscs_judge.error_at(codec, true, order, part) for part in (1e-9, end / 2, end + 1e-9)]
    assert ends[1] == pytest.approx((ends[0] + ends[2]) / 2, rel=1e-5)
    assert ends[0] == pytest.approx(float(true.x.double().square().mean()), rel=1e-5)


def test_a_random_order_keeps_channels_in_their_pass() -> None:
    order = iscs_judge.within_passes(64, 5)
    assert sorted(order.tolist()) == list(range(64)) != order.tolist()
    assert np.array_equal(order.numpy() % N_PASSES, np.arange(64) % N_PASSES)


def test_a_photo_model_is_judged(small: str, tmp_path: Path) -> None:
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(folder / path.name)
    options = ["--data", str(folder), "--out", str(tmp_path / "out"), "--side", "64", "--pictures", "2"]
    iscs_judge.main([small, *options])
    (found,) = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert len(found["curves"]["ISCS"]) == len(iscs_judge.FRACTIONS)
    assert (tmp_path / "out" / "judge.png").stat().st_size > 1000 and (tmp_path / "out" / "judge.md").exists()
