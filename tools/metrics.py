"""Metrics of the kept libraries, one table for all: `METRICS["psnr-rgb"].load()` gives the function.

A library that is missing is an `Absent` that names its package; weights are never downloaded.
Pictures are uint8 [H, W, 3]; sounds float32 [T, C] in -1..1.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import laconic
from laconic.search import psnr_of

Metric = Callable[[Any, Any], float]  # (original, decoded) items -> value; NaN where it is not defined for them
WEIGHTS_VARIABLE = "LACONIC_BACKBONES"
INFINITE_DB = 100.0  # what a lossless copy counts in a mean of dB


class Absent(laconic.LaconicError):
    """Says that a program, library or weights file is not on this machine; the message says what brings it."""


@dataclass(frozen=True)
class Item:
    """Holds a picture, [H, W, C], or a sound, [T, C], in memory.

    bits: of the integer samples of a sound; 0 where they are floats.
    """

    medium: str
    data: np.ndarray
    sample_rate: int = 0
    bits: int = 0

    @property
    def amount(self) -> float:
        """The number of pixels, or of seconds."""
        if self.medium == "picture":
            return float(self.data.shape[0] * self.data.shape[1])
        return len(self.data) / self.sample_rate


@dataclass(frozen=True)
class Kind:
    """Describes a metric: the medium it is for, what it is and how its mean over the files is made, how to get the function."""

    medium: str
    about: str
    load: Callable[[], Metric]


def psnr() -> Metric:
    """Load PSNR."""
    return lambda a, b: min(psnr_of(a.data, b.data), INFINITE_DB)


def ms_ssim() -> Metric:
    """Load MS-SSIM."""
    library = needed("pytorch_msssim", "pytorch-msssim")

    def measure(a: Item, b: Item) -> float:
        return float(library.ms_ssim(tensor(a), tensor(b), data_range=255)) if min(a.data.shape[:2]) > 160 else math.nan

    return measure


def ssimulacra2() -> Metric:
    """Load SSIMULACRA2."""
    needed("ssimulacra2", "ssimulacra2")
    from laconic.search import ssimulacra2_of

    return lambda a, b: ssimulacra2_of(a.data, b.data)


def butteraugli() -> Metric:
    """Load Butteraugli, a program."""
    program = shutil.which("butteraugli_main") or shutil.which("butteraugli")
    if not program:
        raise Absent(
            "butteraugli: found no butteraugli_main, expected it on PATH: build libjxl with JPEGXL_ENABLE_DEVTOOLS"
        )
    from PIL import Image

    def measure(a: Item, b: Item) -> float:
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("a.png", "b.png")]
            for path, item in zip(paths, (a, b), strict=True):
                Image.fromarray(item.data).save(path)
            text = subprocess.run([program, *paths], capture_output=True, text=True, check=True).stdout
        return float(re.findall(r"-?\d+\.\d+", text)[-1])  # the last line is the 3-norm

    return measure


def lpips() -> Metric:
    """Load LPIPS; the backbone comes from `backbone`."""
    library = needed("lpips", "lpips")
    import torch

    features = backbone("alexnet_features")
    with warnings.catch_warnings(action="ignore"):  # it calls torchvision as of old
        network = library.LPIPS(net="alex", pretrained=True, pnet_rand=True, verbose=False)
    own = {name: re.sub(r"slice\d+\.(\d+)", r"features.\1", name) for name in network.net.state_dict()}
    network.net.load_state_dict({name: features[theirs].float() for name, theirs in own.items()})
    network.eval()

    @torch.inference_mode()
    def measure(a: Item, b: Item) -> float:
        return float(network(tensor(a) / 127.5 - 1, tensor(b) / 127.5 - 1))

    return measure


def dists() -> Metric:
    """Load DISTS; the backbone comes from `backbone`."""
    library = needed("DISTS_pytorch.DISTS_pt", "DISTS-pytorch")
    import torch
    import torchvision

    features = backbone("vgg16_features")
    original = torchvision.models.vgg16
    torchvision.models.vgg16 = library.models.vgg16 = lambda **_: original(weights=None)  # it would download
    try:
        network = library.DISTS().eval()
    finally:
        torchvision.models.vgg16 = library.models.vgg16 = original
    own = {
        name: re.sub(r"stage\d+\.", "features.", name) for name in network.state_dict() if re.search(r"\.\d+\.", name)
    }
    network.load_state_dict({name: features[theirs].float() for name, theirs in own.items()}, strict=False)

    @torch.inference_mode()
    def measure(a: Item, b: Item) -> float:
        return float(network(tensor(a) / 255, tensor(b) / 255))

    return measure


def si_sdr() -> Metric:
    """Load SI-SDR."""
    library = needed("torchmetrics.functional.audio", "torchmetrics")
    function = library.scale_invariant_signal_distortion_ratio
    return lambda a, b: min(float(function(channels(b), channels(a), zero_mean=True).mean()), INFINITE_DB)


def log_mel() -> Metric:
    """Load the log-mel distance."""
    library = needed("torchaudio.transforms", "laconic-codec[audio]")

    def measure(a: Item, b: Item) -> float:
        transform = library.MelSpectrogram(a.sample_rate, n_fft=1024, hop_length=256, n_mels=80)
        x, y = (transform(channels(item)).clamp_min(1e-5).log10() for item in (a, b))
        return float((x - y).abs().mean())

    return measure


def mr_stft() -> Metric:
    """Load the multi-resolution STFT distance."""
    loss = needed("auraloss.freq", "auraloss").MultiResolutionSTFTLoss()
    return lambda a, b: float(loss(channels(b)[None], channels(a)[None]))


def pesq() -> Metric:
    """Load PESQ."""
    library = needed("pesq", "pesq")

    def measure(a: Item, b: Item) -> float:
        pairs = zip(at_rate(a, 16000).T, at_rate(b, 16000).T, strict=True)
        try:
            return float(np.mean([library.pesq(16000, x, y, "wb") for x, y in pairs]))
        except (library.NoUtterancesError, library.BufferTooShortError):
            return math.nan

    return measure


def stoi(extended: bool = False) -> Metric:
    """Load STOI, or extended STOI."""
    library = needed("pystoi", "pystoi")
    return lambda a, b: float(
        np.mean([library.stoi(x, y, a.sample_rate, extended) for x, y in zip(a.data.T, b.data.T, strict=True)])
    )


def visqol(mode: str, rate: int) -> Metric:
    """Load ViSQOL. mode: "audio" or "speech". rate: the sample rate that it is made for."""
    library = needed("visqol", "visqol-python")
    if mode == "speech":
        needed("ai_edge_litert", "visqol-python[lattice]")  # without it the score is 1 to 2 points too high
    api = library.VisqolApi()
    api.create(mode=mode)

    def measure(a: Item, b: Item) -> float:
        pairs = zip(at_rate(a, rate).T, at_rate(b, rate).T, strict=True)
        return float(np.mean([api.measure_from_arrays(x, y, rate).moslqo for x, y in pairs]))

    return measure


METRICS = {
    "psnr-rgb": Kind(
        "picture", f"PSNR of RGB, 8 bits, dB, a copy counting {INFINITE_DB:g}; mean of the pictures'", psnr
    ),
    "ms-ssim-rgb": Kind(
        "picture", "MS-SSIM of RGB, 0..1, not defined for sides up to 160; mean of the pictures'", ms_ssim
    ),
    "ssimulacra2": Kind("picture", "SSIMULACRA2, at most 100; mean of the pictures'", ssimulacra2),
    "butteraugli": Kind("picture", "Butteraugli, 3-norm, 0 is best; mean of the pictures'", butteraugli),
    "lpips": Kind("picture", "LPIPS v0.1, AlexNet, 0 is best; mean of the pictures'", lpips),
    "dists": Kind("picture", "DISTS, 0 is best; mean of the pictures'", dists),
    "si-sdr": Kind("sound", f"SI-SDR, dB, a copy counting {INFINITE_DB:g}; mean of channels, then of sounds", si_sdr),
    "log-mel": Kind(
        "sound",
        "log-mel distance, 80 bands, mean |difference| of log10 power, 0 is best; mean of channels, then of sounds",
        log_mel,
    ),
    "mr-stft": Kind("sound", "multi-resolution STFT distance, 0 is best; mean of channels, then of sounds", mr_stft),
    "pesq": Kind(
        "sound", "PESQ wide band at 16 kHz, 1..4.64, not defined without speech; mean of channels, then of sounds", pesq
    ),
    "stoi": Kind("sound", "STOI, 0..1; mean of channels, then of sounds", stoi),
    "estoi": Kind("sound", "extended STOI, 0..1; mean of channels, then of sounds", lambda: stoi(extended=True)),
    "visqol": Kind(
        "sound", "ViSQOL audio mode at 48 kHz, 1..5; mean of channels, then of sounds", lambda: visqol("audio", 48000)
    ),
    "visqol-speech": Kind(
        "sound", "ViSQOL speech mode at 16 kHz, 1..5; mean of channels, then of sounds", lambda: visqol("speech", 16000)
    ),
}
ALIASES = {"psnr": "psnr-rgb", "ms-ssim": "ms-ssim-rgb"}


def needed(module: str, package: str) -> Any:
    """Import a module and return it. Raises Absent naming the package that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"found no module {module} ({error}), expected it: pip install {package}") from None


def backbone(name: str) -> dict[str, Any]:
    """Return the weights of a perceptual metric's network, keys as in torchvision. Raises Absent: nothing is downloaded."""
    from safetensors.torch import load_file

    folder = os.environ.get(WEIGHTS_VARIABLE, "")
    found = sorted(Path(folder).glob(f"{name}*.safetensors")) if folder else []
    if not found:
        raise Absent(
            f"{WEIGHTS_VARIABLE}: found {folder!r}, expected a folder with {name}.safetensors, the convolutions of "
            "torchvision's ImageNet network (keys features.N.weight); nothing is downloaded"
        )
    return dict(load_file(found[0]))


def tensor(item: Item) -> Any:
    """Return a picture as float32 [1, 3, H, W], 0..255."""
    import torch

    return torch.from_numpy(item.data.copy()).permute(2, 0, 1)[None].float()


def channels(item: Item) -> Any:
    """Return a sound as float32 [C, T]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(item.data.T))


def at_rate(item: Item, sample_rate: int) -> np.ndarray:
    """Return the samples [T, C] of a sound at another sample rate."""
    from scipy.signal import resample_poly

    if item.sample_rate == sample_rate:
        return item.data
    divisor = np.gcd(item.sample_rate, sample_rate)
    return np.asarray(resample_poly(item.data, sample_rate // divisor, item.sample_rate // divisor))
