"""What codes one channel of a lossy sound: the interface of the sound model, and how it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from laconic import registry
from laconic.container import Header
from laconic.entropy.errors import UnsupportedFile, expect
from laconic.entropy.threads import mapped
from laconic.registry import ModelInfo

T = TypeVar("T")
R = TypeVar("R")
Floats = NDArray[np.float32]
Frames = Any  # of a coder: a dataclass of integer arrays whose first axis counts frames
Targets = Any  # of a coder: what it encodes at any quality


class Coder(Protocol):
    """Codes runs of frames of one channel at the core's rate. models/sound_coder.py has the one of the package.

    rate, hop: of the core, in Hz; samples from one frame to the next. before, after: how many frames around a part its
    synthesis looks at.
    """

    rate: int
    hop: int
    before: int
    after: int

    def at(self, rate: int) -> Coder:
        """Return the coder for another rate of the core, one of CORE_RATES. Raises UnsupportedFile where there is none."""

    def rate_for(self, sample_rate: int, quality: int) -> int:
        """Return the rate of the core that suits a sound's rate at a quality, 0 to 10,000."""

    def quality_at(self, bitrate: float) -> int:
        """Return the quality at which a typical sound takes so many kbit/s."""

    def analyse(self, x: Floats) -> Targets:
        """Return what n frames t0, t0 + 1 ... are to keep. x [(n + 3) hop]: the samples from (t0 - 2) hop on."""

    def searched(self, x: Floats, targets: Targets, quality: int, iterations: int) -> Targets:
        """Return targets of the same frames that, coded at a quality, sound nearer to x."""

    def cut(self, targets: Targets, start: int, end: int) -> Targets:
        """Return the targets of the frames from start up to end."""

    def encode(self, targets: Targets, quality: int) -> tuple[bytes, Frames]:
        """Return a run of frames that parses alone, and its frames as decoded. quality: 0 to 10,000."""

    def decode(self, data: bytes, n: int, quality: int) -> Frames:
        """Return the n frames of a run, without a float network. Raises BadFile."""

    def synthesise(self, frames: Frames, quality: int, seed: int, first: int) -> Floats:
        """Return the samples from first hop to (first + m - 1) hop of m frames, of which `first` is the first."""


@dataclass(frozen=True)
class Named:
    """Holds a coder, its model's name, and the first bytes of the model's digest."""

    name: str
    digest: bytes
    coder: Coder


def named(name: str | None, device: str) -> Named:
    """Return the coder to encode with, by default the package's. Raises ModelMissing."""
    return opened(registry.find(name or registry.DEFAULT_SOUND), device)


def of_file(header: Header, device: str) -> Coder:
    """Return the coder of a file, for the least rate of the core. Raises ModelMissing, UnsupportedFile."""
    expect(bool(header.model), UnsupportedFile, "model of a lossy sound", header.model, "a name")
    return opened(registry.find(header.model, header.digest), device).coder


def opened(model: ModelInfo, device: str) -> Named:
    """Return the coder of an installed model. Raises ModelMissing."""
    from laconic.models.sound_coder import SoundCoder

    coder = SoundCoder.of(registry.load(model, registry.SOUND, device))
    return Named(model.name, bytes.fromhex(model.digest)[: registry.DIGEST_BYTES], cast(Coder, coder))


def over_segments(work: Callable[[T], R], items: Iterable[T], threads: int | None) -> Iterator[R]:
    """Yield as `mapped` does, torch in one thread for each: segments are what threads share, more would only wait."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, and of those that begin after
    try:
        yield from mapped(work, items, threads)
    finally:
        torch.set_num_threads(before)
