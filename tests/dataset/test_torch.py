"""Packed data sets for training: each file once per epoch, whatever the ranks and workers; a run goes on where it was."""

from __future__ import annotations

import random
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Subset

import laconic.dataset
from laconic import BadInput
from laconic.torch import Dataset, IterableDataset, shuffled

N = 11
NAMES = [f"p{i:02}.png" for i in range(N)]
NAME = attrgetter("name")


def pixels(i: int) -> Any:
    return np.random.default_rng(i).integers(0, 256, (8, 9, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    (root / "in").mkdir()
    for i, name in enumerate(NAMES):
        Image.fromarray(pixels(i)).save(root / "in" / name)
    laconic.dataset.pack(root / "in", root / "out", lossless=True, shard_count=3, workers=1)
    return root / "out"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_decode(context: str, packed: Path) -> None:
    """After the parent has decoded: what it has loaded must not stop its children."""
    for dataset in (Dataset(packed, region=(1, 2, 5, 4)), IterableDataset(packed, region=(1, 2, 5, 4), batch_size=4)):
        assert np.array_equal(dataset.packed[0].decode(as_array=True), pixels(0))
        loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=context)
        batches = list(loader)
        assert [len(batch["key"]) for batch in batches] == [4, 4, 3]
        found = torch.cat([batch["pixels"] for batch in batches])
        expected = np.stack([pixels(i)[2:6, 1:6].transpose(2, 0, 1) for i in range(N)])
        assert found.dtype == torch.uint8 and np.array_equal(found.numpy(), expected)
        assert [key for batch in batches for key in batch["key"]] == [name[:-4] for name in NAMES]


def order(dataset: IterableDataset, workers: int = 0, context: str | None = None) -> list[str]:
    loader = DataLoader(dataset, dataset.batch_size, num_workers=workers, multiprocessing_context=context)
    return [name for batch in loader for name in batch]


def test_the_order_is_that_of_seed_and_epoch_for_any_number_of_workers(packed: Path) -> None:
    dataset = IterableDataset(packed, batch_size=2, shuffle=4, seed=5, transform=NAME)
    first = order(dataset)
    assert sorted(first) == NAMES != first and len(dataset) == N
    assert order(dataset) == order(dataset, 2, "fork") == order(dataset, 3, "fork") == first
    dataset.set_epoch(1)
    assert sorted(order(dataset)) == NAMES and order(dataset) != first
    assert order(IterableDataset(packed, shuffle=4, seed=6, transform=NAME)) != first
    assert order(IterableDataset(packed, transform=NAME)) == NAMES


def test_workers_that_persist_learn_of_the_epoch(packed: Path) -> None:
    dataset = IterableDataset(packed, batch_size=2, shuffle=4, transform=NAME)
    loader = DataLoader(dataset, 2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in range(2):
        dataset.set_epoch(epoch)
        assert [name for batch in loader for name in batch] == order(dataset)


@pytest.mark.parametrize("size", [1, 2, 3, 13])
@pytest.mark.parametrize("drop", [False, True])
def test_ranks_share_the_files(size: int, drop: bool, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    monkeypatch.setenv("WORLD_SIZE", str(size))
    for rank in range(size):
        monkeypatch.setenv("RANK", str(rank))
        dataset = IterableDataset(packed, shuffle=3, drop_uneven=drop, transform=NAME)
        parts.append(order(dataset))
        assert len(parts[-1]) == len(dataset)
    found, lengths = sorted(name for part in parts for name in part), {len(part) for part in parts}
    if drop:
        assert lengths == {N // size} and len(found) == len(set(found))
    else:
        assert found == NAMES and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("used", [0, 3, 4, N])
def test_a_run_goes_on_where_it_was(used: int, packed: Path) -> None:
    """With another number of workers, and without a look at what was used."""
    dataset = IterableDataset(packed, batch_size=2, shuffle=4, seed=5, transform=NAME)
    dataset.set_epoch(3)
    whole = order(dataset)
    again = IterableDataset(packed, batch_size=2, shuffle=4, seed=5, transform=NAME)
    again.load_state_dict(dataset.state_dict(used))
    assert order(again, 2, "fork") == order(again) == whole[used:] and len(again) == N - used
    again.set_epoch(4)
    assert len(order(again)) == N


def test_the_state_of_another_order_is_refused(packed: Path) -> None:
    state = IterableDataset(packed, seed=5).state_dict(2)
    with pytest.raises(BadInput, match="state: found"):
        IterableDataset(packed, seed=6).load_state_dict(state)
    with pytest.raises(BadInput, match="state: found"):
        IterableDataset(packed, seed=5).load_state_dict({"epoch": 0, "samples": 2})


def test_calls_that_make_no_sense_are_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="region"):
        Dataset(packed, region=(0, 0, 1, 1), transform=NAME)
    for options in ({"batch_size": 0}, {"shuffle": -1}):
        with pytest.raises(BadInput):
            IterableDataset(packed, **options)
    for rank in ("1", "x", "-1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(BadInput, match="RANK"):
            IterableDataset(packed)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 60), st.integers())
def test_the_buffer_loses_and_repeats_nothing(n: int, size: int, seed: int) -> None:
    found = list(shuffled(iter(range(n)), size, random.Random(seed)))
    assert sorted(found) == list(range(n))
    assert size or found == list(range(n))
    assert all(at >= number - size for at, number in enumerate(found))  # none comes before it can have been read


def test_photos_and_sounds_in_workers_that_fork(tmp_path: Path) -> None:
    """The parent has run the network with threads before: children that used them would hang."""
    (tmp_path / "in").mkdir()
    smooth = np.linspace(0, 255, 96 * 80 * 3).reshape(96, 80, 3).astype(np.uint8)
    samples = np.random.default_rng(1).integers(-99, 99, (500, 2), dtype=np.int16)
    Image.fromarray(smooth).save(tmp_path / "in/a.png")
    soundfile.write(tmp_path / "in/b.wav", samples, 8000, "PCM_16")
    laconic.dataset.pack(tmp_path / "in", tmp_path / "out", quality=60, fallback=False, workers=1)
    laconic.dataset.pack(tmp_path / "in/b.wav", tmp_path / "sound", lossless=True, workers=1)
    photo, sound = Dataset(tmp_path / "out"), Dataset(tmp_path / "sound")
    expected = photo.packed[0].decode(as_array=True, threads=2)
    (found,) = DataLoader(Subset(photo, [0]), None, num_workers=1, multiprocessing_context="fork")
    assert found["pixels"].shape == (3, 96, 80)
    assert np.abs(found["pixels"].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1  # sums of floats may differ
    (heard,) = DataLoader(sound, None, num_workers=1, multiprocessing_context="fork")
    assert heard["rate"] == 8000 and np.array_equal(heard["samples"].numpy(), samples)
