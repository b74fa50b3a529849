"""Files: round trips, damage of every kind, targets, formats, exactness over machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic import container, picture
from laconic.container import Chunk, Header
from laconic.files import KINDS, psnr_of
from laconic.golden import symbol_digest

FORMATS = Path(__file__).parent.parent / "data" / "formats"
ASSETS = Path(__file__).parent.parent.parent / "assets"
BAD = ("truncated.png", "bad_crc.png", "empty.png", "text_file.png", "huge_header.png", "zero_width.png", "still.jxl")
MAY_FAIL = ("corrupt.jpg", "truncated.jpg")


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
    for target in ({"size": 20}, {"psnr": 70}, {"bpp": 50}):
        with pytest.raises(laconic.TargetOutOfReach, match="found .*, expected"):
            laconic.compress(pixels, **target)


def test_tiles_have_no_seam_and_regions_equal_the_whole(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    import laconic.fields

    whole = laconic.decompress(laconic.compress(photo, quality=50), as_array=True)
    codec = laconic.Codec()
    encode = laconic.files.Fields
    monkeypatch.setattr(laconic.files, "Fields", lambda *a, **k: encode(*a, **k, tile=192))
    data = codec.compress(photo, quality=50)
    tiled = codec.decompress(data, as_array=True)
    assert laconic.info(data).tile == 192
    assert psnr_of(tiled, whole) > 45  # a symbol on a rounding edge may differ
    assert np.array_equal(codec.decompress(data, region=(150, 170, 100, 90), as_array=True), tiled[170:260, 150:250])


def test_truncation_flips_and_foreign_files_are_errors(file: bytes) -> None:
    rng = np.random.default_rng(1)
    for cut in {*rng.integers(0, len(file), 200).tolist(), 0, 1, 5, 20, len(file) - 1}:
        with pytest.raises(laconic.LaconicError, match="found .*, expected"):
            container.read(file[:cut], KINDS)
    for _ in range(2000):
        bad = bytearray(file)
        bad[rng.integers(len(file))] ^= int(rng.integers(1, 256))
        with pytest.raises(laconic.LaconicError, match="found .*, expected"):
            container.read(bytes(bad), KINDS)
    for other in (b"", b"hello\n", b"\x89PNG\r\n\x1a\n", file + b"x", file.replace(b"\r\n", b"\n", 1)):
        with pytest.raises(laconic.BadFile, match="found .*, expected"):
            laconic.decompress(other)


def test_a_wrong_digest_and_a_huge_size_are_errors(file: bytes) -> None:
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
    with pytest.warns(laconic.LaconicWarning, match="y"):
        out = laconic.decompress(file[:-5], partial=True, as_array=True)
    assert out.shape == (200, 300, 3)


@pytest.mark.parametrize("path", sorted(p for p in FORMATS.iterdir() if p.suffix != ".md"), ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore")
def test_formats(path: Path) -> None:
    if path.name in BAD:
        with pytest.raises(laconic.BadInput, match="found .*, expected"):
            laconic.compress(path)
        return
    try:
        out = laconic.decompress(laconic.compress(path, quality=80))
    except laconic.BadInput:
        assert path.name in MAY_FAIL
        return
    expected = picture.read(path)
    assert out.size == expected.pixels.shape[1::-1]
    assert (out.mode in ("LA", "RGBA")) == (expected.alpha is not None)
    if path.name.startswith("orient"):
        red = np.asarray(out.convert("RGB"))[10, 10].astype(int)
        assert out.size == (128, 80) and red[0] > red[1] + 60
    for key, names in {"icc_profile": ("icc_p3", "icc_prophoto"), "exif": ("exif_gps",), "xmp": ("xmp",)}.items():
        assert path.stem not in names or out.info.get(key)


def test_conversions_are_said() -> None:
    for name, text in {"rgb16.png": "16", "gray16.png": "16", "anim.gif": "first", "cmyk.jpg": "CMYK"}.items():
        with pytest.warns(laconic.LaconicWarning, match=text):
            laconic.compress(FORMATS / name)


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


def test_symbol_digest_sees_a_change(file: bytes, photo: np.ndarray) -> None:
    assert symbol_digest(file) != symbol_digest(laconic.compress(photo[:200, :300], quality=41))


def test_a_model_of_ones_own() -> None:
    class Tiny:
        """Means of 8 x 8 blocks, coded with our engine."""

        name, digest = "tiny", bytes(32)

        def encode(self, pixels: np.ndarray, quality: float) -> bytes:
            h, w = (-(-side // 8) * 8 for side in pixels.shape[:2])
            padded = np.pad(pixels, ((0, h - len(pixels)), (0, w - pixels.shape[1]), (0, 0)), "edge")
            means = padded.reshape(h // 8, 8, w // 8, 8, 3).mean((1, 3)).round().astype(np.int16) - 128
            return laconic.entropy.encode(means.ravel(), np.full(means.size, 63), laconic.entropy.gaussian_tables())

        def decode(self, payload: bytes, height: int, width: int, quality: float) -> np.ndarray:
            shape = (-(-height // 8), -(-width // 8), 3)
            tables = laconic.entropy.gaussian_tables()
            means = laconic.entropy.decode(payload, np.full(int(np.prod(shape)), 63), tables).reshape(shape) + 128
            return means.astype(np.uint8).repeat(8, 0).repeat(8, 1)[:height, :width]

    laconic.register(Tiny())
    pixels = np.full((20, 30, 3), 77, np.uint8)
    data = laconic.compress(pixels, model="tiny")
    assert np.array_equal(laconic.decompress(data, as_array=True), pixels)
    assert laconic.info(data).model == "tiny"


def test_damage_is_found_without_a_network_and_within_2_gigabytes(file: bytes, tmp_path: Path) -> None:
    """A huge declared size, damage and other formats fail before torch loads, under an address-space limit."""
    header, chunks = container.read(file, KINDS)
    huge = Header(1, header.model, header.digest, b"\xff\xff\xff\x07" * 2 + b"\x00\x10")
    cases = [b"", b"text", file[:-1], file[:30], container.write(huge, chunks), b"\x89PNG\r\n\x1a\n"]
    for i, data in enumerate(cases):
        (tmp_path / f"{i}.lac").write_bytes(data)
    script = (
        "import resource, sys, laconic\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "for path in sys.argv[1:]:\n"
        "    try: laconic.decompress(path)\n"
        "    except laconic.LaconicError as error: assert 'expected' in str(error)\n"
        "    else: raise SystemExit(path)\n"
        "assert 'torch' not in sys.modules\n"
    )
    paths = [str(tmp_path / f"{i}.lac") for i in range(len(cases))]
    run = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_bf16_decodes_the_same_symbols_to_nearly_the_same_pixels(file: bytes, photo: np.ndarray) -> None:
    original = photo[:200, :300]
    exact, fast = (laconic.decompress(file, precision=p, as_array=True) for p in ("float32", "bf16"))
    assert psnr_of(exact, fast) >= 48
    assert abs(psnr_of(exact, original) - psnr_of(fast, original)) <= 0.05
