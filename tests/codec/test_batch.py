"""Batches: the files and pictures of single calls; with a GPU's coder, its kernels interpreted, the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import laconic
from laconic import entropy
from laconic.media import photo

ON_GPU = """
import numpy as np, torch
from laconic.entropy import BadFile
from laconic.media.photo_fields import Fields
from laconic.models.photo import Photo, PhotoConfig
from laconic.media.photo_coder import PhotoCoder

torch.set_num_threads(1)
torch.manual_seed(1)
sizes = dict(c8=8, c16=8, latent_channels=8, hyper_channels=4, context_channels=8)
model = Photo(PhotoConfig(**sizes)).eval()  # small: the interpreter is slow
torch.nn.init.normal_(model.to_y.weight, std=20.0)
torch.nn.init.normal_(model.h_scale.leave.weight, std=0.3)
cpu = PhotoCoder(model)
PhotoCoder.codes_on_gpu = False
rng = np.random.default_rng(1)
sizes = [(40, 50, 64), (64, 65, 64), (1, 1, 64)]
pictures = [
    (rng.integers(0, 256, (height, width, 3), np.uint8), Fields(width, height, 100 * quality, gray=False, tile=tile))
    for (height, width, tile), quality in zip(sizes, (0, 50, 100))
]
files = [cpu.encode(*picture) for picture in pictures]
assert sum(len(set(payload)) > 8 for payloads in files for payload in payloads) > 2  # something is coded
parsed = [cpu.parse(payloads, fields) for payloads, (_, fields) in zip(files, pictures)]
PhotoCoder.codes_on_gpu = True
assert cpu.encode_batch(pictures) == files
for one, other in zip(cpu.parse_batch([(p, f) for p, (_, f) in zip(files, pictures)]), parsed):
    assert torch.equal(one.z, other.z) and one.y.keys() == other.y.keys()
    assert all(torch.equal(one.y[tile], other.y[tile]) for tile in one.y)
for bad in ([None, files[0][1]], [files[0][0], files[0][1] + b"x"], [files[0][0], files[0][1][:-1]]):
    try:
        cpu.parse_batch([(bad, pictures[0][1])])
    except BadFile as error:
        assert "expected" in str(error)
    else:
        raise AssertionError(bad)
"""


def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = [(30, 70, 3), (64, 64, 3), (20, 20), (50, 40, 4)]
    return [rng.integers(0, 256, shape, np.uint8) for shape in shapes]


def test_a_batch_is_its_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = laconic.Codec()
    alone = [codec.compress(photo, quality=30) for photo in photos()]
    decoded = [codec.decompress(data, as_array=True) for data in alone]
    for most in (0, 64 * 64 + 30 * 70, 1 << 30):
        monkeypatch.setattr(photo, "batch_pixels", lambda run, most=most: most)
        assert codec.compress_batch(photos(), quality=30) == alone
        found = codec.decompress_batch(alone, as_array=True)
        assert all(np.array_equal(a, b) for a, b in zip(found, decoded, strict=True))
    assert codec.compress_batch([]) == codec.decompress_batch([]) == []


def test_a_batch_takes_what_single_calls_take() -> None:
    codec = laconic.Codec()
    assert codec.compress_batch(photos()[:2], size=2000) == [codec.compress(photo, size=2000) for photo in photos()[:2]]
    (data,) = codec.compress_batch(photos()[:1])
    (part,) = codec.decompress_batch([data], region=(3, 4, 10, 9), as_array=True)
    assert np.array_equal(part, codec.decompress(data, region=(3, 4, 10, 9), as_array=True))
    with pytest.raises(entropy.BadFile):
        codec.decompress_batch([data, data[:-1]])
    with pytest.raises(entropy.BadInput, match="at most one of"):
        codec.compress_batch(photos(), quality=5, bpp=1)


def test_a_misspelt_option_is_an_error_and_a_warning_names_the_callers_line() -> None:
    codec = laconic.Codec()
    with pytest.raises(TypeError, match="qualty"):
        codec.compress_batch(photos()[:1], qualty=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="regoin"):
        codec.decompress_batch([], regoin=(0, 0, 5, 5))  # type: ignore[call-arg]
    deep = np.full((4, 4, 3), 300, np.uint16)
    for compress in (laconic.compress, codec.compress, lambda image: codec.compress_batch([image])):
        with pytest.warns(laconic.LaconicWarning) as seen:
            compress(deep)
        assert [warning.filename for warning in seen] == [__file__] * len(seen)


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton here: its wheels are for Linux")
def test_what_a_gpu_codes_is_the_same() -> None:
    """In a process of its own: Triton chooses its interpreter when it reads the kernels."""
    done = subprocess.run(
        [sys.executable, "-c", ON_GPU],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
