"""Arrays of zarr, both formats, whose chunks are ours: exact, refused by name, and damage is an error."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import laconic
from laconic import zarr_chunks
from laconic.zarr_chunks import Pictures, Sounds

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr: extra zarr")
numcodecs = pytest.importorskip("numcodecs", reason="numcodecs: extra zarr")

import laconic.zarr as ours
from laconic import zarr_numcodecs

ROOT = Path(__file__).parents[2]
FAST = {"effort": 1}
PIXELS = ("uint8", "uint16")


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """The codecs by name, as an installed package's entry points give them."""
    for name, codec in ours.NAMES.items():
        zarr.registry.register_codec(name, codec)
    for name, codec in zarr_numcodecs.NAMES.items():
        numcodecs.register_codec(codec, name)


def noise(shape: tuple[int, ...], dtype: str, top: int = 2000) -> NDArray[Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(3).integers(max(info.min, -top), min(info.max, top), shape).astype(dtype)


def smooth(*shape: int) -> NDArray[Any]:
    return (np.indices(shape).sum(0) % 200).astype(np.uint8)


def new(store: Any, array: NDArray[Any], chunks: tuple[int, ...], codec: Any = None, **more: Any) -> Any:
    codec = codec or ours.ImageCodec(**FAST)
    created = zarr.create_array(
        store, shape=array.shape, chunks=chunks, dtype=array.dtype, serializer=codec, compressors=None, **more
    )
    created[...] = array
    return created


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_stacks_come_back_exactly(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=5)))
    dtype = data.draw(st.sampled_from(["u1", "<u2", ">u2"]))
    order = data.draw(st.sampled_from("CF"))
    channels = data.draw(st.sampled_from([None, False] + [True] * (len(shape) > 2)))
    array = np.asarray(noise(shape, "u2").astype(dtype), order=order)
    codec = Pictures(channels=channels, **FAST)
    found = zarr_chunks.decode(codec, zarr_chunks.encode(codec, array), shape)
    assert found.dtype == array.dtype and found.flags.f_contiguous == array.flags.f_contiguous
    assert np.array_equal(found, array)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.sampled_from([None, 0, 1, 8, 9, 17]), st.sampled_from(["<i2", ">i2", "<i4"]))
def test_sounds_come_back_exactly(n: int, channels: int | None, dtype: str) -> None:
    array = noise((n,) if channels is None else (n, channels), "i2").astype(dtype)
    array[:1] = np.iinfo(dtype).min
    found = zarr_chunks.decode(Sounds(**FAST), zarr_chunks.encode(Sounds(**FAST), array), array.shape)
    assert found.dtype == array.dtype and np.array_equal(found, array)


@pytest.mark.parametrize("limit", [40, 1000])
def test_planes_are_joined_and_cut(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small planes share a picture; those above the largest size are cut, none across the border of two planes."""
    array = noise((5, 9, 7), "uint8")
    monkeypatch.setattr(zarr_chunks, "LARGEST", limit)
    monkeypatch.setattr(zarr_chunks, "JOINED", 130)
    data = zarr_chunks.encode(Pictures(**FAST), array)
    rows = [n for n, _ in zarr_chunks.Parsed.of(memoryview(data)).files]
    assert rows == ([5, 4] * 5 if limit == 40 else [18, 18, 9])
    assert np.array_equal(zarr_chunks.decode(Pictures(), data), array)


@pytest.mark.parametrize("dtype", PIXELS)
def test_a_group_opened_anew_and_read_in_part(dtype: str, tmp_path: Path) -> None:
    array = noise((4, 30, 25, 3), dtype)
    group = zarr.create_group(tmp_path / "g.zarr")
    new(group.store, array, (2, 16, 16, 3), name="images", fill_value=7)
    found = zarr.open_group(tmp_path / "g.zarr", mode="r")["images"]
    assert found.dtype == array.dtype and isinstance(found.metadata.codecs[0], ours.ImageCodec)
    assert found.metadata.codecs[0] == ours.ImageCodec(**FAST)
    assert np.array_equal(found[1:3, 5:20, 24, ::2], array[1:3, 5:20, 24, ::2])


def test_a_part_is_written_and_what_was_not_has_the_fill_value() -> None:
    array = np.full((20, 20), 9, np.uint16)
    created = zarr.create_array(
        {}, shape=(20, 20), chunks=(8, 8), dtype="uint16", serializer=ours.ImageCodec(**FAST), compressors=None, fill_value=9
    )
    created[3:11, 5] = array[3:11, 5] = 300
    assert np.array_equal(created[:], array)


def test_shards(tmp_path: Path) -> None:
    array = noise((32, 32), "uint8")
    new(tmp_path / "s.zarr", array, (8, 8), shards=(16, 16))
    assert np.array_equal(zarr.open_array(tmp_path / "s.zarr")[7:19, 3:30], array[7:19, 3:30])
    with pytest.raises(laconic.BadInput, match="dtype"):
        new({}, noise((32, 32), "int64"), (8, 8), shards=(16, 16))


def test_a_pyramid_as_ome_zarr_has_it(tmp_path: Path) -> None:
    levels = [smooth(1, 2, 1, 64, 64)[..., :: 1 << k, :: 1 << k] for k in range(3)]
    group = zarr.create_group(tmp_path / "image.zarr")
    for k, level in enumerate(levels):
        new(group.store, level, (1, 1, 1, 32, 32), name=str(k), dimension_names=list("tczyx"))
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": str(k)} for k in range(3)]}]}
    opened = zarr.open_group(tmp_path / "image.zarr", mode="r")
    for dataset in opened.attrs["ome"]["multiscales"][0]["datasets"]:
        assert np.array_equal(opened[dataset["path"]][:], levels[int(dataset["path"])])


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
def test_the_second_format(order: str, dtype: str, tmp_path: Path) -> None:
    array = noise((3, 20, 18), "uint8").astype(dtype)
    codec = zarr_numcodecs.Image(**FAST)
    created = zarr.create_array(
        tmp_path / "x.zarr", shape=array.shape, chunks=(2, 8, 8), dtype=dtype, zarr_format=2, order=order, compressors=codec
    )
    created[:] = array
    found = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert found.metadata.compressor.get_config() == {"id": "laconic.image", **FAST}
    assert found.dtype == array.dtype and np.array_equal(found[:], array)


def test_sounds_of_both_formats() -> None:
    array = noise((500, 11), "int16")
    assert np.array_equal(new({}, array, (200, 11), ours.SoundCodec(**FAST))[:], array)
    codec = numcodecs.get_codec({"id": "laconic.sound", **FAST})
    out = np.empty_like(array)
    assert codec.decode(codec.encode(array), out) is out and np.array_equal(out, array)


def test_largest_error_and_quality() -> None:
    array = noise((3, 24, 24), "uint16")
    off = np.abs(new({}, array, (3, 24, 24), ours.ImageCodec(max_error=20, **FAST))[:].astype(int) - array)
    assert 0 < off.max() <= 20
    for shape in ((40, 40, 3), (2, 40, 40), (40, 40, 4)):
        pixels = smooth(*shape)
        codec = Pictures(quality=80, channels=len(shape) == 3 and shape[0] == 40 or None, **FAST)
        found = zarr_chunks.decode(codec, zarr_chunks.encode(codec, pixels))
        assert found.shape == shape and np.abs(found.astype(int) - pixels).mean() < 30


REFUSED = [
    (lambda: new({}, noise((8, 8), "int32"), (8, 8)), "dtype: found 'int32'"),
    (lambda: new({}, np.zeros((8, 8), np.float32), (8, 8)), "dtype: found 'float32'"),
    (lambda: new({}, np.zeros(8, np.uint8), (8,)), "dimensions: found 1"),
    (lambda: new({}, np.zeros((8, 8), np.uint8), (8, 8), ours.ImageCodec(channels=True)), "dimensions: found 2"),
    (lambda: new({}, np.zeros((8, 8), np.uint16), (8, 8), ours.ImageCodec(quality=50)), "dtype with quality"),
    (lambda: new({}, np.zeros((8, 8), np.uint16), (8, 8), ours.SoundCodec()), "dtype: found 'uint16'"),
    (lambda: new({}, np.zeros((8, 8, 8), np.int16), (8, 8, 8), ours.SoundCodec()), "dimensions: found 3"),
    (lambda: ours.ImageCodec(max_error=1, quality=50), "targets"),
    (lambda: ours.ImageCodec(max_error=256), "max_error"),
    (lambda: ours.ImageCodec(quality=101), "quality"),
    (lambda: ours.ImageCodec(effort=0), "effort"),
    (lambda: ours.SoundCodec(sample_rate=0), "sample_rate"),
    (lambda: ours.ImageCodec.from_dict({"name": "laconic.image", "configuration": {"depth": 1}}), "options of laconic.image"),
    (lambda: ours.ImageCodec.from_dict({"name": "laconic.image", "configuration": {"name": "x"}}), "options of laconic.image"),
    (lambda: numcodecs.get_codec({"id": "laconic.image", "depth": 1}), "options of laconic.image"),
    (lambda: zarr_numcodecs.Image().encode(b"flat"), "chunk: found 'bytes'"),
    (lambda: zarr_numcodecs.Sound().encode(np.zeros(3, np.float64)), "dtype: found 'float64'"),
]


@pytest.mark.parametrize("call, message", REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_coded_is_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises(laconic.BadInput, match=message):
        call()


@pytest.mark.parametrize("shards", [None, 2])
def test_what_does_not_fit_is_refused_when_the_array_is_created(shards: int | None) -> None:
    """Also inside shards, each of two chunks; but an array may be wider than its chunks."""

    def create(shape: tuple[int, ...], dtype: str, codec: Any, chunk: tuple[int, ...] | None = None) -> Any:
        chunk = chunk or shape
        shard = (2 * chunk[0], *chunk[1:]) if shards else None
        return zarr.create_array({}, shape=shape, chunks=chunk, shards=shard, dtype=dtype, serializer=codec, compressors=None)

    for shape in ((1, 1 << 25), (1, 1 << 25, 3)):
        with pytest.raises(laconic.BadInput, match="width of a chunk"):
            create(shape, "uint8", ours.ImageCodec())
        create(shape, "uint8", ours.ImageCodec(), (1, 1 << 20, *shape[2:]))
    for shape, dtype, codec, message in (
        ((8, 8), "int64", ours.ImageCodec(), "dtype: found 'int64'"),
        ((8,), "uint8", ours.ImageCodec(), "dimensions: found 1"),
        ((8, 8), "uint16", ours.ImageCodec(quality=50), "dtype with quality"),
        ((8, 8, 8), "int16", ours.SoundCodec(), "dimensions: found 3"),
    ):
        with pytest.raises(laconic.BadInput, match=message):
            create(shape, dtype, codec)


@pytest.mark.parametrize("coder, array", [(Pictures(**FAST), smooth(3, 8, 9)), (Sounds(**FAST), noise((50, 9), "int16"))])
def test_a_cut_or_flipped_chunk_is_an_error(coder: Any, array: NDArray[Any]) -> None:
    data = zarr_chunks.encode(coder, array)
    for n in range(len(data)):
        with pytest.raises(laconic.BadFile):
            zarr_chunks.decode(coder, data[:n])
        with pytest.raises(laconic.BadFile):
            zarr_chunks.decode(coder, data[:n] + bytes([data[n] ^ 1 << n % 8]) + data[n + 1 :])
    with pytest.raises(laconic.BadFile):
        zarr_chunks.decode(coder, data + b"\0")
    with pytest.raises(laconic.BadFile, match="shape of a chunk"):
        zarr_chunks.decode(coder, data, (*array.shape[:-1], 1))
    with pytest.raises(laconic.BadFile, match="kind of chunk"):
        zarr_chunks.decode(Sounds() if isinstance(coder, Pictures) else Pictures(), data)


def test_a_damaged_chunk_in_a_store_is_an_error(tmp_path: Path) -> None:
    new(tmp_path / "x.zarr", smooth(8, 9), (8, 9))
    chunk = tmp_path / "x.zarr" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(laconic.BadFile):
        zarr.open_array(tmp_path / "x.zarr")[:]


def test_a_chunk_of_another_depth_is_an_error(tmp_path: Path) -> None:
    """Both arrays have one name of chunk: a copied one must not be taken for the other's samples."""
    for dtype in PIXELS:
        new(tmp_path / dtype, noise((8, 9), dtype), (8, 9))
    (tmp_path / "uint8/c/0/0").write_bytes((tmp_path / "uint16/c/0/0").read_bytes())
    with pytest.raises(laconic.BadFile, match="dtype of a chunk"):
        zarr.open_array(tmp_path / "uint8")[:]


def entry_points() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    return {group: found[group] for group in ("zarr.codecs", "numcodecs.codecs")}


def test_the_entry_points_name_what_the_modules_have() -> None:
    both = {"zarr.codecs": ours.NAMES, "numcodecs.codecs": zarr_numcodecs.NAMES}
    for group, names in both.items():
        assert entry_points()[group] == {name: f"{codec.__module__}:{codec.__name__}" for name, codec in names.items()}


def test_zarr_and_numcodecs_find_them_by_entry_points(tmp_path: Path) -> None:
    """A process of its own has nothing registered but what an installed distribution's table says."""
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in entry_points().items()]
    info = tmp_path / "stand_in-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import numcodecs, zarr, zarr.registry
for name in ("image", "sound"):
    assert zarr.registry.get_codec_class("laconic." + name).name == "laconic." + name
    assert numcodecs.get_codec({{"id": "laconic." + name}}).codec_id == "laconic." + name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_laconic_zarr_and_numcodecs_name_the_codec(tmp_path: Path) -> None:
    """As docs/zarr.md has it. A finder in front of all others hides the entry points."""
    for name, more in (("three", {"serializer": ours.ImageCodec(**FAST)}), ("two", {"zarr_format": 2})):
        if name == "two":
            more["compressors"] = zarr_numcodecs.Image(**FAST)
        zarr.create_array(tmp_path / name, shape=(8, 9), chunks=(8, 9), dtype="uint8", **({"compressors": None} | more))
    code = f"""
import importlib.metadata as metadata
metadata.entry_points = lambda **_: metadata.EntryPoints()
import zarr
for name in ("three", "two"):
    try:
        zarr.open_array({str(tmp_path)!r} + "/" + name, mode="r")[:]
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    three, two = done.stdout.splitlines()
    page = (ROOT / "docs" / "zarr.md").read_text()
    assert "laconic.image" in three and "laconic.image" in two
    assert f"`{three.partition(' ')[2]}`" in page and f"`{two.partition(' ')[2]}`" in page


@pytest.mark.parametrize("module, needs", [("zarr", "zarr"), ("zarr_numcodecs", "numcodecs")])
def test_without_the_library_the_error_names_the_extra(module: str, needs: str) -> None:
    code = f"import sys; sys.modules[{needs!r}] = None\nimport laconic.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install laconic-codec[zarr]" in done.stderr
