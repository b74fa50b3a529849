"""Train the small recognisers of tools/tasks.py: `python -m laconic.tools.train_task groceries --data DIR --out DIR`.

groceries: DIR has train.avif and test.avif, contact sheets of 64 x 64 pictures, 32 in a row, and labels.npz
(GroceryStoreDataset). digits: DIR has train.flac, test.flac, 8 kHz, and train.csv, test.csv with label, start, length
(free-spoken-digit-dataset). Writes NAME.safetensors, and NAME/ with the test set and labels.csv for
`laconic eval OUT/NAME --task laconic.tools.tasks:NAME`. Minutes on one core. The weights of both are shipped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from laconic.tools.metrics import Absent

SIDE, PER_ROW = 64, 32
SAMPLES = 8000  # per digit: a second, cut or padded
WIDTHS = (24, 48, 96, 128)  # of the recogniser of pictures: 0.35 M weights
DIGIT_WIDTHS = (12, 24, 40, 64)  # 0.08 M weights: ten words of six voices need no more
Prepare = Callable[[list[np.ndarray]], Tensor]


def main(argv: list[str] | None = None) -> None:
    """Train, print the accuracy on the test set, write weights and test set."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.train_task", description=__doc__)
    parser.add_argument("name", choices=tuple(TASKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args(argv)
    read, prepare, augment, n_in, widths = TASKS[args.name]
    folder = args.out / args.name
    folder.mkdir(parents=True, exist_ok=True)
    (x, y), (x_test, y_test), classes = read(args.data, folder)
    torch.manual_seed(1)
    network = train(Recogniser(n_in, len(classes), widths), prepare(x), torch.tensor(y), augment, args.epochs)
    with torch.inference_mode():
        right = (network(prepare(x_test)).argmax(1) == torch.tensor(y_test)).float().mean()
    print(f"{args.name}: {100 * right:.1f} % of {len(y_test)} right")
    save(network, n_in, widths, classes, args.out / f"{args.name}.safetensors")


class Recogniser(nn.Module):
    """Recognises by a small residual network: float [N, C, H, W] -> scores [N, classes]. widths: of its four stages."""

    def __init__(self, n_in: int, n_classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(n_in, widths[0], 3, padding=1)
        stages = zip(widths, (*widths[1:], widths[-1]), strict=True)
        self.stages = nn.Sequential(*(Stage(before, after) for before, after in stages))
        self.leave = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores [N, classes] of [N, C, H, W]."""
        scores: Tensor = self.leave(self.stages(self.enter(x)).amax((2, 3)))
        return scores


class Stage(nn.Module):
    """Applies a residual block, then halves the resolution."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.BatchNorm2d(n_in), nn.ReLU(), nn.Conv2d(n_in, n_in, 3, padding=1, groups=n_in), nn.Conv2d(n_in, n_in, 1)
        )
        self.down = nn.Sequential(nn.BatchNorm2d(n_in), nn.ReLU(), nn.Conv2d(n_in, n_out, 3, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, n_out, H / 2, W / 2] of [N, n_in, H, W]."""
        out: Tensor = self.down(x + self.block(x))
        return out


def train(network: Recogniser, x: Tensor, y: Tensor, augment: Callable[[Tensor], Tensor], epochs: int) -> Recogniser:
    """Train a network on x with the classes y, and return it."""
    n, batch = len(x), 64
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs * (-(-n // batch)))
    for _ in range(epochs):
        for rows in torch.randperm(n).split(batch):
            loss = F.cross_entropy(network(augment(x[rows])), y[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def read_groceries(data: Path, folder: Path) -> tuple[Any, Any, list[str]]:
    """Read two contact sheets. The test set becomes a lossless sheet with one labelled box per picture."""
    labels = np.load(data / "labels.npz")
    classes = [str(name) for name in labels["classes"]]
    parts = []
    for part in ("train", "test"):
        sheet = np.asarray(Image.open(data / f"{part}.avif").convert("RGB"))
        tiles = sheet.reshape(-1, SIDE, PER_ROW, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
        parts.append((list(tiles[: len(labels[part])]), labels[part].astype(np.int64)))
    Image.fromarray(sheet).save(folder / "sheet.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "x", "y", "width", "height"))
        for i, label in enumerate(parts[1][1]):
            writer.writerow(("sheet.png", classes[label], i % PER_ROW * SIDE, i // PER_ROW * SIDE, SIDE, SIDE))
    return parts[0], parts[1], classes


def prepare_pictures(pictures: list[np.ndarray]) -> Tensor:
    """Return uint8 pictures as float32 [N, 3, 64, 64] in -1..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def augment_pictures(x: Tensor) -> Tensor:
    """Return pictures shifted, mirrored, turned up and down in brightness."""
    x = F.pad(x, (8, 8, 8, 8), mode="reflect")
    top, left = (int(v) for v in torch.randint(0, 17, (2,)))
    x = x[:, :, top : top + SIDE, left : left + SIDE]
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    return x * (0.7 + 0.6 * torch.rand(len(x), 1, 1, 1)) + 0.3 * (torch.rand(len(x), 3, 1, 1) - 0.5)


def read_digits(data: Path, folder: Path) -> tuple[Any, Any, list[str]]:
    """Read two long files of clips. The test set is copied with its list."""
    import soundfile

    parts = []
    for part in ("train", "test"):
        samples, _ = soundfile.read(data / f"{part}.flac", dtype="float32", always_2d=True)
        with (data / f"{part}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        clips = [samples[int(row["start"]) : int(row["start"]) + int(row["length"])] for row in rows]
        parts.append((clips, np.array([int(row["label"]) for row in rows])))
    shutil.copyfile(data / "test.flac", folder / "test.flac")
    shutil.copyfile(data / "test.csv", folder / "labels.csv")
    return parts[0], parts[1], [str(digit) for digit in range(10)]


def prepare_sounds(sounds: list[np.ndarray]) -> Tensor:
    """Return log spectrograms of a second each, [N, 1, 64, 62]."""
    x = torch.stack([F.pad(torch.from_numpy(s[:SAMPLES, 0].copy()), (0, max(0, SAMPLES - len(s)))) for s in sounds])
    x = x / x.abs().amax(1, keepdim=True).clamp_min(1e-4)
    spectrum = torch.stft(x, 256, 128, window=torch.hann_window(256), return_complex=True).abs()
    return F.avg_pool2d((spectrum[:, None, 1:] + 1e-2).log10() + 1, (2, 1))


def augment_sounds(x: Tensor) -> Tensor:
    """Return spectrograms shifted in time and a little in pitch, with a band of time left out."""
    x = x.roll(int(torch.randint(-8, 9, ())), 3).roll(int(torch.randint(-1, 2, ())), 2)
    start = int(torch.randint(0, 56, ()))
    x[:, :, :, start : start + 6] = -1
    return x


def save(network: Recogniser, n_in: int, widths: tuple[int, ...], classes: list[str], path: Path) -> None:
    """Write the weights in half precision, with the sizes and the names of the classes."""
    from safetensors.torch import save_file

    state = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    save_file(state, path, {"n_in": str(n_in), "widths": json.dumps(widths), "classes": json.dumps(classes)})


def load_recogniser(name: str) -> tuple[Recogniser, list[str], Prepare]:
    """Return the network, its classes, and what makes its input. Raises Absent where it is not trained yet."""
    from safetensors import safe_open

    folders = [*os.environ.get("LACONIC_MODELS", "").split(os.pathsep), str(files("laconic.assets") / "tasks")]
    paths = [path for folder in folders if folder and (path := Path(folder) / f"{name}.safetensors").exists()]
    if not paths:
        raise Absent(
            f"LACONIC_MODELS: found no {name}.safetensors, expected a folder with it: "
            f"python -m laconic.tools.train_task {name} --data DIR --out FOLDER, then LACONIC_MODELS=FOLDER"
        )
    with safe_open(paths[0], "pt") as file:
        classes = json.loads(file.metadata()["classes"])
        widths = json.loads(file.metadata().get("widths", json.dumps(WIDTHS)))
        network = Recogniser(int(file.metadata()["n_in"]), len(classes), tuple(widths))
        network.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118
    return network.eval(), classes, TASKS[name][1]


TASKS: dict[str, tuple[Callable[..., Any], Prepare, Callable[[Tensor], Tensor], int, tuple[int, ...]]] = {
    "groceries": (read_groceries, prepare_pictures, augment_pictures, 3, WIDTHS),
    "digits": (read_digits, prepare_sounds, augment_sounds, 1, DIGIT_WIDTHS),
}


if __name__ == "__main__":
    main()
