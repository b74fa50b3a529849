"""Pictures of CompressAI: its symbols in fewer bytes, its pixels back, and never a picture out of wrong symbols.

The networks are small and random. Tests that run one are skipped where CompressAI (extra `zoo`) is not installed.
"""

from __future__ import annotations

import string
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

import laconic
from laconic import container, registry
from laconic.container import Chunk, Header
from laconic.media import zoo as medium
from laconic.models import zoo
from laconic.tools.cli import main

KINDS = zoo.KINDS
MEAN = "mbt2018-mean"
ABSENT = "compressai is not installed: pip install laconic-codec[zoo]"
ELSEWHERE = "torch 9.9.9, riscv64 DEFAULT"

sides = st.integers(1, 1 << 24)


def network(kind: str = MEAN, gain: float = 30.0, seed: int = 1, channels: int = 12) -> Any:
    """Return a random network of CompressAI with symbols about as wide as their table rows."""
    models = pytest.importorskip("compressai.models", reason=ABSENT)
    torch.manual_seed(seed)
    net = getattr(models, zoo.CLASSES[KINDS.index(kind)])(8, channels).eval().requires_grad_(False)
    net.g_a[-1].weight *= gain
    quantiles = net.entropy_bottleneck.quantiles
    quantiles += torch.linspace(-0.7, 1.4, len(quantiles))[:, None, None]  # medians that are not 0
    if kind != KINDS[0]:
        net.h_a[-1].weight *= 20
        net.h_s[-2 if kind == KINDS[1] else -1].bias[:channels] += gain / 30
    return net


def save(net: Any, path: Path) -> str:
    """Write the checkpoint of a network as a training does; return its path."""
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models."""
    monkeypatch.setenv("LACONIC_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "none"))
    return tmp_path


def picture(height: int, width: int, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return smooth waves with noise on them."""
    rows, columns, c = np.indices((height, width, channels))
    noise = np.random.default_rng(1).normal(0, 12, rows.shape)
    return (128 + 60 * np.sin(rows / 9 + c) + 50 * np.cos(columns / 7 - c) + noise).clip(0, 255).astype(np.uint8)


def padded(pixels: np.ndarray[Any, Any], unit: int) -> torch.Tensor:
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.pad(x, (0, -x.shape[3] % unit, 0, -x.shape[2] % unit), mode="replicate")


@pytest.mark.parametrize("size", [(1, 1), (65, 40), (130, 193)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_compressai(kind: str, size: tuple[int, int], folder: Path) -> None:
    """Within the one level by which the rounding of their floats may differ."""
    net, pixels = network(kind), picture(*size)
    net.update()
    data = laconic.compress(pixels, model=save(net, folder / "some.pth.tar"))
    laconic.verify(data)
    x = padded(pixels, net.downsampling_factor)
    theirs = net.decompress(**net.compress(x))["x_hat"][0, :, : size[0], : size[1]].permute(1, 2, 0)
    ours = laconic.decompress(data, as_array=True)
    assert isinstance(ours, np.ndarray) and ours.shape == pixels.shape
    assert np.abs(ours - 255 * theirs.numpy()).max() < 0.51


@pytest.mark.parametrize("gain", [5.0, 30.0, 300.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_symbols_are_those_of_compressai_in_no_more_bytes(kind: str, gain: float) -> None:
    net, pixels = network(kind, gain, channels=96), picture(192, 256)
    net.update()
    own, strings = zoo.ZooNetwork(net), net.compress(padded(pixels, 64))["strings"]
    layers = own.encode(pixels)
    y, rows, _ = layers[-1]
    assert len(np.unique(y)) > 2 and len(layers) == len(strings)
    coded = [bytes(chunk.payload or b"")[4:] for chunk in medium.coded(own, pixels, laconic.medium.Run())]
    assert sum(map(len, coded)) < 1.005 * sum(len(string[0]) for string in strings)
    if len(layers) == 2:
        z_hat = net.entropy_bottleneck.decompress(strings[1], layers[0][0].shape[1:])
        scales = net.h_s(z_hat)[:, :96]
        assert (net.gaussian_conditional.build_indexes(scales).flatten().numpy() == rows).all()


def test_scales_beyond_the_table_have_its_ends() -> None:
    """Scales below the least one, which may lie within the table, count as that."""
    net = network()
    net.gaussian_conditional.update_scale_table([0.05, 0.11, 0.2, 1.0, 8.0])
    own = zoo.ZooNetwork(net)
    scales = torch.tensor([-1.0, 0.0, 0.07, 0.2, 0.3, 1e6]).repeat(2)[:, None, None]
    own.h_s = lambda z_hat: torch.cat([scales, scales]).double()[None]
    rows, means = own.prior(np.zeros((8, 1, 1), np.int32))
    assert (rows == net.gaussian_conditional.build_indexes(scales).flatten().numpy()).all()
    assert rows[:6].tolist() == [1, 1, 1, 2, 3, 4] and means.shape == (12, 1, 1)


def test_gray_alpha_and_metadata_come_back(folder: Path) -> None:
    model = save(network(), folder / "some.pth")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(picture(50, 70, 4))
    image.info["icc_profile"] = profile
    found = laconic.decompress(laconic.compress(image, model=model))
    assert isinstance(found, Image.Image) and found.mode == "RGBA" and found.info["icc_profile"] == profile
    assert np.array_equal(np.asarray(found)[:, :, 3], np.asarray(image)[:, :, 3])
    bare = laconic.decompress(laconic.compress(image, model=model, strip=True))
    assert isinstance(bare, Image.Image) and "icc_profile" not in bare.info
    gray = picture(33, 20, 1)
    data = laconic.compress(gray, model=model)
    colours = laconic.decompress(laconic.compress(np.repeat(gray, 3, 2), model=model), as_array=True)
    assert isinstance(colours, np.ndarray)
    means = (colours.sum(2, keepdims=True, dtype=int) + 1) // 3
    assert np.array_equal(laconic.decompress(data, as_array=True), means)
    info = laconic.info(data)
    assert isinstance(info, laconic.ZooInfo) and info.gray
    assert (info.width, info.height, info.channels) == (20, 33, 1)
    assert info.made_by == medium.facts("cpu") and torch.__version__ in info.made_by


def test_damage_is_an_error(folder: Path) -> None:
    data = laconic.compress(picture(40, 60, 4), model=save(network(), folder / "some.pth"))
    for place in range(0, len(data), max(1, len(data) // 40)):
        broken = data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]
        with pytest.raises(laconic.LaconicError, match="found .*, expected"):
            laconic.decompress(broken)
        with pytest.raises(laconic.LaconicError, match="found .*, expected"):
            laconic.verify(data[:place])
    notes: list[str] = []
    found = laconic.decompress(data[:-1], as_array=True, partial=True, notes=notes)
    assert notes == ["damaged, left out: alpha"] and isinstance(found, np.ndarray) and found.shape == (40, 60, 3)
    start = container.read_table(data)[1][1].start
    with pytest.raises(laconic.BadFile, match="y: found 'damage', expected a whole chunk"):
        laconic.decompress(data[:start] + b"~~~~" + data[start + 4 :], partial=True)


def rewritten(data: bytes, kind: int, change: Any, made_by: str | None = None) -> bytes:
    """Return a file with one payload, or what made it, changed, and checksums that fit."""
    header, chunks = container.read(data, medium.KINDS)
    fields = medium.unpack(header.fields)
    new = medium.Fields(fields.width, fields.height, fields.gray, made_by or fields.made_by)
    parts = [replace(c, payload=change(bytes(c.payload or b""))) if c.kind == kind else c for c in chunks]
    return container.write(Header(header.medium, header.model, header.digest, new.pack()), parts)


@pytest.mark.parametrize("kind", [medium.Z, medium.Y])
def test_symbols_other_than_those_written_are_an_error(kind: int, folder: Path) -> None:
    """Whether the coder notices, the stream ends elsewhere, or all goes well but for the checksum."""
    data = laconic.compress(picture(70, 70), model=save(network(), folder / "some.pth"))
    name = medium.KINDS[kind]
    for place in (0, 3, 5, 8, 20, -1):

        def flip(payload: bytes, place: int = place) -> bytes:
            changed = bytearray(payload)
            changed[place] ^= 1
            return bytes(changed)

        for read in (laconic.decompress, laconic.verify):
            with pytest.raises(laconic.UnsupportedFile, match=f"symbols of {name}: found .*, expected those of torch"):
                read(rewritten(data, kind, flip))
    with pytest.raises(laconic.UnsupportedFile, match=f"symbols of {name}"):
        laconic.decompress(rewritten(data, kind, lambda payload: payload[:2]))


def test_threads_do_not_matter(folder: Path) -> None:
    pixels, model = picture(130, 193), save(network(), folder / "some.pth")
    data = laconic.compress(pixels, model=model, threads=1)
    assert laconic.compress(pixels, model=model, threads=2) == data
    notes: list[str] = []
    laconic.decompress(data, threads=2, notes=notes)
    assert not notes


def test_what_was_made_elsewhere_is_read_with_a_note(folder: Path) -> None:
    data = laconic.compress(picture(70, 70), model=save(network(), folder / "some.pth"))
    notes: list[str] = []
    here = laconic.decompress(data, as_array=True, notes=notes)
    assert notes == []
    other = rewritten(data, -1, None, ELSEWHERE)
    assert np.array_equal(laconic.decompress(other, as_array=True, notes=notes), here)
    assert len(notes) == 1 and notes[0].startswith(f"made by {ELSEWHERE}, read by {medium.facts('cpu')}: ")


def test_networks_that_compute_otherwise_end_in_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of y that comes out other than where the file was written stands for another machine."""
    data = rewritten(laconic.compress(picture(70, 70), model=save(network(), folder / "some.pth")), -1, None, ELSEWHERE)
    prior = zoo.ZooNetwork.prior

    def other(self: zoo.ZooNetwork, symbols: Any) -> Any:
        rows, means = prior(self, symbols)
        return rows + (np.arange(len(rows)) == len(rows) // 2), means

    monkeypatch.setattr(zoo.ZooNetwork, "prior", other)
    notes: list[str] = []
    with pytest.raises(laconic.UnsupportedFile, match=f"symbols of y: found .*, expected those of {ELSEWHERE}; here"):
        laconic.decompress(data, notes=notes)
    assert len(notes) == 1 and notes[0].startswith(f"made by {ELSEWHERE}")


def test_the_weights_are_found_by_name_and_digest(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    beside = tmp_path_factory.mktemp("elsewhere")
    notes: list[str] = []
    data = laconic.compress(picture(30, 30), model=save(network(), beside / "some.pth"), notes=notes)
    assert notes[0] == "readers need some.pth in a folder of LACONIC_MODELS, where it is not"
    assert laconic.info(data).model == "compressai:some.pth"
    with pytest.raises(laconic.ModelMissing, match=r"compressai:some.pth: found no some.pth, expected weights with"):
        laconic.decompress(data)
    save(network(seed=2), folder / "some.pth")
    with pytest.raises(laconic.ModelMissing, match=r"some.pth with [0-9a-f]{8}, expected weights with digest"):
        laconic.decompress(data)
    (beside / "some.pth").rename(folder / "some.pth")
    pixels, notes[:] = laconic.decompress(data, as_array=True), []
    assert laconic.compress(picture(30, 30), model="compressai:some.pth", notes=notes) == data and not notes
    assert isinstance(pixels, np.ndarray) and pixels.shape == (30, 30, 3)


def test_checkpoints_with_and_without_tables_code_alike(folder: Path) -> None:
    net = network()
    without = save(net, folder / "without.pth")
    net.update()
    files = [laconic.compress(picture(40, 40), model=model) for model in (without, save(net, folder / "with.pth"))]
    streams = [[chunk.payload for chunk in container.read(data, medium.KINDS)[1]] for data in files]
    assert streams[0] == streams[1]


def test_published_models_go_through_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    url = zoo.library("zoo.image").model_urls[MEAN]["mse"][3]
    weights = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    weights.parent.mkdir(parents=True)
    torch.save(net.state_dict(), weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    Image.fromarray(picture(48, 80)).save(tmp_path / "photo.png")
    photo, coded, back = (str(tmp_path / name) for name in ("photo.png", "photo.lac", "back.png"))
    assert main(["compress", photo, "--model", f"compressai:{MEAN}:3"]) == 0
    assert main(["verify", coded]) == main(["info", coded]) == main(["decompress", coded, "-o", back]) == 0
    with Image.open(back) as found:
        assert found.size == (80, 48)
    assert laconic.info(coded).digest == registry.sha256(weights)[:8]


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    model, pixels = save(network(), folder / "some.pth"), picture(20, 20)
    for options, said in (
        ({"quality": 60}, "target: found quality, expected none: the model .*some.pth has one quality"),
        ({"lossless": True}, "target: found lossless, expected none"),
        ({"effort": 3}, "effort: found 3, expected none"),
        ({"tune": "eye"}, "tune: found 'eye', expected none"),
        ({"progressive": True}, "progressive: found True, expected none"),
        ({"precision": "bf16"}, "precision: found 'bf16', expected float32"),
        ({"max_pixels": 399}, "found 400, expected at most 399"),
    ):
        with pytest.raises(laconic.BadInput, match=said):
            laconic.compress(pixels, model=model, **options)  # type: ignore[arg-type]
    with pytest.raises(laconic.BadInput, match="target of a sound as compressai"):
        laconic.compress(np.zeros(80, np.int16), sample_rate=8000, model=model, notes=[])
    torch.save({"g_a.1.beta": torch.ones(1), "context_prediction.weight": torch.ones(1)}, folder / "serial.pth")
    (folder / "none.pth").write_bytes(b"no checkpoint")
    for name, said in (
        ("serial.pth", f"found 'an autoregressive prior', expected a checkpoint of {', '.join(KINDS)}"),
        ("none.pth", f"expected a checkpoint of {', '.join(KINDS)}"),
        ("missing.pth", "model: found .*missing.pth', expected a file"),
    ):
        with pytest.raises(laconic.BadInput, match=said):
            laconic.compress(pixels, model=str(folder / name))
    for name in ("mbt2018:3", "cheng2020-anchor:3", "mbt2018-mean:9", "../some.pth"):
        with pytest.raises(laconic.LaconicError, match="found .*, expected (one of bmshj2018-|a quality of 1, 2|weights)"):
            laconic.compress(pixels, model=f"compressai:{name}")


def test_a_model_must_be_named() -> None:
    with pytest.raises(laconic.BadInput, match="model: found None, expected compressai:ARCHITECTURE:QUALITY, or a check"):
        laconic.compress(picture(9, 9), medium="compressai")
    assert registry.medium_of("photo-3") is None and registry.medium_of(None) is None


def test_a_file_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is described; what would need the network names the extra."""
    for name in [name for name in sys.modules if name.startswith("compressai")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "compressai", None)
    (folder / "some.pth").write_bytes(b"weights")
    digest = bytes.fromhex(registry.sha256(folder / "some.pth"))
    header = Header(6, "compressai:some.pth", digest, medium.Fields(50, 40, False, ELSEWHERE).pack())
    data = container.write(header, [Chunk(medium.Z, b"1234z"), Chunk(medium.Y, b"1234y")])
    info = laconic.info(data)
    assert isinstance(info, laconic.ZooInfo) and (info.made_by, info.width, info.height) == (ELSEWHERE, 50, 40)
    for call in (lambda: laconic.decompress(data), lambda: laconic.verify(data)):
        with pytest.raises(laconic.ModelMissing, match=r"pip install laconic-codec\[zoo\]"):
            call()
    with pytest.raises(laconic.ModelMissing, match=r"pip install laconic-codec\[zoo\]"):
        laconic.compress(picture(9, 9), model="compressai:mbt2018-mean:3")


@given(sides, sides, st.booleans(), st.text(string.ascii_letters + " +.,", max_size=255))
def test_fields_come_back(width: int, height: int, gray: bool, made_by: str) -> None:
    fields = medium.Fields(width, height, gray, made_by)
    assert medium.unpack(fields.pack()) == fields


@given(st.binary(max_size=12))
def test_any_fields_are_read_or_refused(data: bytes) -> None:
    try:
        assert medium.unpack(data).pack() == data
    except laconic.BadFile as error:
        assert "found" in str(error)


def test_more_pixels_than_the_networks_can_take_are_refused() -> None:
    for fields in (medium.Fields(1 << 12, (1 << 13) + 1, False, ""), medium.Fields(1, 1 << 20, False, "")):
        data = container.write(Header(6, "compressai:some.pth", b"1234", fields.pack()), [])
        with pytest.raises(laconic.BadFile, match="padded pixels: found .*, expected at most 33554432"):
            laconic.decompress(data)
