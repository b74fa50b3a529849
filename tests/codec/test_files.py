"""Files: round trips, damage of every kind, targets, formats, exactness over machines."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import laconic
from laconic import container, registry
from laconic.container import Chunk, Header
from laconic.golden import bit_digests
from laconic.media import photo_encode
from laconic.media.photo import KINDS
from laconic.search import psnr_of
from laconic.tools.own_model import TinyAutoencoder

ASSETS = Path(__file__).parent.parent.parent / "assets"


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    return np.asarray(Image.open(ASSETS / "sample.webp").convert("RGB"))


@pytest.fixture(scope="session")
def file(photo: np.ndarray) -> bytes:
    return laconic.compress(photo[:200, :300], quality=40)


def test_selftest_passes() -> None:
    checks = laconic.selftest()
    assert len(checks) >= 2 and all(check.ok for check in checks), checks


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (65, 63), (64, 64, 3), (5, 7, 4), (33, 20, 2)])
def test_any_size_and_channels(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    out = laconic.decompress(laconic.compress(array), as_array=True)
    assert out.shape[:2] == shape[:2] and out.shape[2] == (shape[2] if len(shape) > 2 else 1)
    if out.shape[2] in (2, 4):
        assert np.array_equal(out[:, :, -1], array[:, :, -1])


def test_quality_is_monotonic_and_overhead_small(photo: np.ndarray) -> None:
    sizes = [len(laconic.compress(photo, quality=q)) for q in (0, 20, 40, 60, 80, 100)]
    assert sizes == sorted(sizes)
    info = laconic.info(laconic.compress(photo[:512, :768]))
    assert info.n_bytes - sum(n for _, n in info.chunks) <= 40


def test_targets_are_kept(photo: np.ndarray) -> None:
    pixels = photo[:256, :384]
    assert 0.97 * 5000 <= len(laconic.compress(pixels, size=5000)) <= 5000
    assert 8 * len(laconic.compress(pixels, bpp=0.6)) / pixels[..., 0].size == pytest.approx(0.6, rel=0.02)
    reached = psnr_of(laconic.decompress(laconic.compress(pixels, psnr=31), as_array=True), pixels)
    assert 31 <= reached <= 31.1
    for target in ({"size": 20}, {"psnr": 70}, {"psnr": 5}, {"bpp": 50}, {"bpp": 0.001}):
        with pytest.raises(laconic.TargetOutOfReach, match="found .*, expected .* to .* for this picture"):
            laconic.compress(pixels, **target)


def test_tiles_have_no_seam_and_regions_equal_the_whole(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = laconic.decompress(laconic.compress(photo, quality=50, effort=1), as_array=True)
    codec = laconic.Codec()
    encode = photo_encode.Fields
    monkeypatch.setattr(photo_encode, "Fields", lambda *a, **k: encode(*a, **k, tile=192))
    data = codec.compress(photo, quality=50, effort=1)  # a search finds other symbols in other tiles
    tiled = codec.decompress(data, as_array=True)
    assert laconic.info(data).tile == 192
    assert psnr_of(tiled, whole) > 45  # a symbol on a rounding edge may differ
    assert np.array_equal(codec.decompress(data, region=(150, 170, 100, 90), as_array=True), tiled[170:260, 150:250])


def test_a_wrong_digest_and_a_huge_size_are_named(file: bytes) -> None:
    header, chunks = container.read(file, KINDS)
    wrong = Header(1, header.model, b"abcd", header.fields)
    with pytest.raises(laconic.ModelMissing, match="digest"):
        laconic.decompress(container.write(wrong, chunks))
    with pytest.raises(laconic.ModelMissing, match="nobody"):
        laconic.decompress(container.write(Header(1, "nobody", b"abcd", header.fields), chunks))
    huge = Header(1, header.model, header.digest, b"\xff\xff\xff\x07" * 2 + b"\x00\x10")
    with pytest.raises(laconic.BadFile, match="pixels"):
        laconic.decompress(container.write(huge, chunks))


def test_optional_chunks_are_skipped_and_others_refused(file: bytes) -> None:
    header, chunks = container.read(file, KINDS)
    laconic.verify(container.write(header, [*chunks, Chunk(99, b"later", optional=True)]))
    with pytest.raises(laconic.UnsupportedFile, match="kind"):
        laconic.verify(container.write(header, [*chunks, Chunk(99, b"later")]))


def test_partial_gives_what_is_left(file: bytes) -> None:
    with pytest.warns(laconic.LaconicWarning, match="damaged, left out: y of the tile at 0,0"):
        out = laconic.decompress(file[:-5], partial=True, as_array=True)
    assert out.shape == (200, 300, 3)
    notes: list[str] = []
    laconic.decompress(file[:-5], partial=True, notes=notes)
    assert len(notes) == 1


def test_a_file_larger_than_its_input_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    with pytest.warns(laconic.LaconicWarning, match="larger than the input"):
        laconic.compress(tmp_path / "small.png", quality=100, fallback=False)


@pytest.mark.parametrize(
    "options",
    [{"quality": 101}, {"quality": float("nan")}, {"quality": "high"}, {"size": -5}, {"bpp": 0}, {"quality": 1, "size": 2}],
    ids=str,
)
def test_bad_targets_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(laconic.BadInput, match="found .*, expected"):
        laconic.compress(np.zeros((8, 8, 3), np.uint8), **options)


@pytest.mark.parametrize("region", [(0, 0, 5), (0, 0, 301, 1), (-1, 0, 5, 5), (0, 0, 0, 5), (0.5, 0, 5, 5)], ids=str)
def test_bad_regions_are_named(file: bytes, region: tuple[float, ...]) -> None:
    with pytest.raises(laconic.BadInput, match="region: found .*, expected four integers"):
        laconic.decompress(file, region=region)


@pytest.mark.parametrize(
    "environment",
    [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}, {"ATEN_CPU_CAPABILITY": "default"}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}],
    ids=str,
)
def test_symbols_are_the_same_on_every_machine(environment: dict[str, str]) -> None:
    script = "from laconic.golden import selftest; c = selftest(); print(c); raise SystemExit(not all(x.ok for x in c))"
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_bits_are_the_same_on_cuda(file: bytes) -> None:
    assert bit_digests(file) == bit_digests(file, "cuda")


def test_digests_see_a_change(file: bytes, photo: np.ndarray) -> None:
    ours, other = bit_digests(file), bit_digests(laconic.compress(photo[:200, :300], quality=41))
    assert ours.keys() == {"symbols", "indices", "bytes"} and all(ours[name] != other[name] for name in ours)


def test_a_model_of_ones_own(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    pixels = photo[:70, :93]
    model = TinyAutoencoder(pixels)
    laconic.register(model)
    data = laconic.compress(pixels, model=model.name)
    decoded = laconic.decompress(data, as_array=True)
    assert np.array_equal(decoded, model.decode(model.encode(pixels, 60), 70, 93, 60)) and psnr_of(decoded, pixels) > 20
    assert laconic.info(data).model == "tiny-autoencoder"
    laconic.register(TinyAutoencoder(pixels, steps=1))
    with pytest.raises(laconic.ModelMissing, match="digest: found .*, expected"):
        laconic.decompress(data)
    with pytest.raises(laconic.BadInput, match="name: found 'photo-3', expected"):
        model.name = "photo-3"
        laconic.register(model)


def damaged(file: bytes) -> Iterator[bytes]:
    """Cuts at every boundary and 200 places, 2,000 flips, other formats, false headers."""
    rng = np.random.default_rng(1)
    lengths = [n for _, n in laconic.info(file).chunks]
    boundaries = [len(file) - sum(lengths[i:]) for i in range(len(lengths))]
    for cut in {*rng.choice(len(file), 200, replace=False).tolist(), 0, 1, 5, 20, len(file) - 1, *boundaries}:
        yield file[:cut]
    for _ in range(2000):
        bad = bytearray(file)
        bad[rng.integers(len(file))] ^= int(rng.integers(1, 256))
        yield bytes(bad)
    yield from (b"", b"hello\n", b"\x89PNG\r\n\x1a\n", file + b"x", file.replace(b"\r\n", b"\n", 1))
    header, chunks = container.read(file, KINDS)
    yield container.write(Header(1, header.model, b"abcd", header.fields), chunks)
    yield container.write(Header(1, "nobody", b"abcd", header.fields), chunks)
    yield container.write(Header(1, header.model, header.digest, b"\xff\xff\xff\x07" * 2 + b"\x00\x10"), chunks)
    yield container.write(Header(2, header.model, header.digest, header.fields), chunks)
    for wrong in ([], chunks[:1], chunks[::-1]):
        yield container.write(header, wrong)


def test_damage_is_an_error_before_any_network_and_within_2_gigabytes(file: bytes, tmp_path: Path) -> None:
    cases = list(damaged(file))
    assert len(cases) > 2200
    np.save(tmp_path / "lengths.npy", [len(case) for case in cases])
    (tmp_path / "cases").write_bytes(b"".join(cases))
    script = (
        "import resource, re, sys, numpy, laconic\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "raw, position = open('cases', 'rb').read(), 0\n"
        "for i, length in enumerate(numpy.load('lengths.npy').tolist()):\n"
        "    data, position = raw[position : position + length], position + length\n"
        "    for read in (laconic.decompress, laconic.verify):\n"
        "        try: read(data)\n"
        "        except laconic.LaconicError as error: assert re.search('found .*, expected', str(error)), (i, error)\n"
        "        else: raise SystemExit(f'case {i}')\n"
        "assert 'torch' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_integers_of_numpy_are_efforts() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    ours, theirs = (laconic.compress(pixels, lossless=True, effort=effort) for effort in (3, np.int64(3)))
    assert ours == theirs
    for effort in (0, 2.5, "3"):
        with pytest.raises(laconic.BadInput, match="effort: found .*, expected 1 to 9"):
            laconic.compress(pixels, lossless=True, effort=effort)


def test_a_picture_is_not_written_as_a_sound() -> None:
    data = laconic.compress(np.zeros((8, 8), np.uint8), lossless=True)
    with pytest.raises(laconic.BadInput, match="output format: found 'WAV', .*: the file holds a lossless picture"):
        laconic.Codec().decompress_to(io.BytesIO(), data, format="WAV")


def test_bad_metadata_is_found_by_verify(file: bytes) -> None:
    header, chunks = container.read(file, KINDS)
    bad = container.write(header, [*chunks, Chunk(5, b"\x05no zlib", optional=True)])
    for read in (laconic.verify, laconic.decompress):
        with pytest.raises(laconic.BadFile, match="metadata: found damage"):
            read(bad)


def test_bf16_decodes_the_same_symbols_to_nearly_the_same_pixels(file: bytes, photo: np.ndarray) -> None:
    original = photo[:200, :300]
    exact, fast = (laconic.decompress(file, precision=p, as_array=True) for p in ("float32", "bf16"))
    assert psnr_of(exact, fast) >= 55
    assert abs(psnr_of(exact, original) - psnr_of(fast, original)) <= 0.05
