"""Packed data sets for training: map style and iterable, decoded in the workers of a DataLoader (docs/dataset.md).

    loader = DataLoader(laconic.torch.Dataset("packed", region=(0, 0, 64, 64)), batch_size=32, num_workers=2)
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import torch
from torch import distributed
from torch.utils import data

from laconic.dataset.opened import Item, Opened
from laconic.dataset.opened import open as open_packed
from laconic.entropy.errors import BadInput, expect
from laconic.medium import Region

Transform = Callable[[Item], Any]


class Decoder:
    """Decodes a file to {"key": str, "pixels": uint8 or uint16 [C, H, W]}; a sound has "samples" [T, C] and "rate" (Hz).

    region: x, y, width, height in pixels: only the tiles that it needs are decoded. One thread: workers run side by side.
    """

    def __init__(self, region: Region | None = None) -> None:
        self.region = region

    def __call__(self, item: Item) -> dict[str, Any]:
        """Decode a file. Raises BadFile, ModelMissing, BadInput."""
        from laconic.sound import Sound

        options: dict[str, Any] = {} if self.region is None else {"region": self.region}
        found = item.decode(as_array=True, threads=1, **options)
        if isinstance(found, Sound):
            return {"key": item.key, "samples": torch.from_numpy(found.samples), "rate": found.sample_rate}
        pixels = torch.from_numpy(found)
        return {"key": item.key, "pixels": (pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)}


class Dataset(data.Dataset[Any]):
    """Gives the files of a packed data set by number.

    url: of the data set. region: see `Decoder`. transform: what is made of a `laconic.dataset.Item`, in the worker, in
    place of `Decoder`; `operator.attrgetter("data")` gives the bytes, for `Codec.decompress_batch` on a GPU.
    """

    def __init__(
        self, url: str | os.PathLike[str], *, region: Region | None = None, transform: Transform | None = None
    ) -> None:
        self.packed: Opened = open_packed(url)
        self.transform = one_transform(region, transform)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, i: int) -> Any:
        """Fetch and decode a file. Raises IndexError, BadFile, ModelMissing."""
        return self.transform(self.packed[i])


class IterableDataset(data.IterableDataset[Any]):
    """Gives the files of a packed data set in an order that the seed and the epoch decide, each once per epoch.

    Each rank has a part of its own, of consecutive shards, so that it reads few indexes; parts differ by one file at
    most. Workers take batches in turn: with the same batch_size in the DataLoader, the order is the same for any number
    of workers.

    batch_size: of the DataLoader. shuffle: how many files the shuffle buffer holds (their numbers alone: it costs no
    memory); 0 keeps the order of the data set, else shards come in a random order too. seed: of the order.
    drop_uneven: leave out up to world_size - 1 files per epoch, so that all ranks have the same number.
    url, region, transform: see `Dataset`. Rank and world size are those of torch.distributed, else RANK and WORLD_SIZE.
    Raises BadInput.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        shuffle: int = 0,
        seed: int = 0,
        drop_uneven: bool = False,
        region: Region | None = None,
        transform: Transform | None = None,
    ) -> None:
        expect(batch_size >= 1, BadInput, "batch_size", batch_size, "1 or more")
        expect(shuffle >= 0, BadInput, "shuffle", shuffle, "0 or more")
        self.packed: Opened = open_packed(url)
        self.transform = one_transform(region, transform)
        self.batch_size, self.shuffle, self.seed, self.drop_uneven = batch_size, shuffle, seed, drop_uneven
        self.rank, self.world_size = rank_and_size()
        self._at = torch.zeros(2, dtype=torch.int64).share_memory_()  # epoch, samples: workers that persist see them

    def __len__(self) -> int:
        """Return how many files of this epoch are left for this rank."""
        return max(0, len(self._part()) - int(self._at[1]))

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: another order. Call it before each."""
        self._at[0], self._at[1] = epoch, 0

    def state_dict(self, samples: int) -> dict[str, int]:
        """Return where the training stands. samples: how many of this epoch this rank has used, since its beginning.

        The loader reads ahead, so only the training can tell.
        """
        return {"epoch": int(self._at[0]), "samples": samples, **self._order()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the samples that were used; what was used is not fetched. Raises BadInput for another order."""
        found = {name: state.get(name) for name in self._order()}
        expect(found == self._order(), BadInput, "state", found, self._order())
        self._at[0], self._at[1] = state["epoch"], state["samples"]

    def __iter__(self) -> Iterator[Any]:
        """Yield what this worker has to give. Raises BadFile, ModelMissing."""
        worker = data.get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, samples = self._at.tolist()
        for k, i in enumerate(islice(self._numbers(epoch), samples, None)):
            if k // self.batch_size % workers == mine:
                yield self.transform(self.packed[i])

    def _order(self) -> dict[str, int]:
        """Return all that decides the order, but the epoch."""
        own = {"seed": self.seed, "shuffle": self.shuffle, "rank": self.rank, "world_size": self.world_size}
        return own | {"files": len(self.packed), "drop_uneven": int(self.drop_uneven)}

    def _part(self) -> range:
        """Return which places of the order of all files are this rank's."""
        n, size = len(self.packed), self.world_size
        if self.drop_uneven:
            n -= n % size
        return range(n * self.rank // size, n * (self.rank + 1) // size)

    def _numbers(self, epoch: int) -> Iterator[int]:
        """Yield the numbers of this rank's files in the order of an epoch."""
        shards, start = list[range](), 0
        for shard in self.packed.manifest.shards:
            shards.append(range(start, start + shard.members))
            start += shard.members
        if self.shuffle:
            random.Random(f"{self.seed} {epoch}").shuffle(shards)
        part = self._part()
        numbers = islice((i for shard in shards for i in shard), part.start, part.stop)
        return shuffled(numbers, self.shuffle, random.Random(f"{self.seed} {epoch} {self.rank}"))


def shuffled(numbers: Iterator[int], size: int, choose: random.Random) -> Iterator[int]:
    """Yield all numbers in a random order, made by a buffer of some size; 0 keeps the order."""
    buffer = list(islice(numbers, size))
    for number in numbers:
        if buffer:
            at = choose.randrange(size)
            buffer[at], number = number, buffer[at]
        yield number
    choose.shuffle(buffer)
    yield from buffer


def one_transform(region: Region | None, transform: Transform | None) -> Transform:
    """Return the transform that is asked for. Raises BadInput for both."""
    expect(region is None or transform is None, BadInput, "region", region, "none with a transform, which can crop itself")
    return transform or Decoder(region)


def rank_and_size() -> tuple[int, int]:
    """Return the rank and the number of ranks. Raises BadInput where the environment makes no sense."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    found = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    good = all(text.isdecimal() for text in found) and int(found[0]) < int(found[1])
    expect(good, BadInput, "RANK and WORLD_SIZE", found, "a rank below the number of ranks")
    return cast("tuple[int, int]", tuple(map(int, found)))
