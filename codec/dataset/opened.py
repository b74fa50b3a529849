"""Reads packed data sets through their indexes: a member costs one range request (docs/dataset.md, "Reading back")."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, overload

from laconic import api
from laconic.dataset.records import MANIFEST, Manifest, Member, Shard, ShardIndex, Side, index_name
from laconic.dataset.stores import Store, store_of
from laconic.entropy.errors import BadFile, BadInput, expect

MEMBERS_KEPT = 200_000  # of the indexes in memory: some 300 MB at most


def open(url: str | os.PathLike[str]) -> Opened:
    """Open what `laconic pack` has written to a folder or URL; only the manifest is read.

    Raises BadInput where no manifest is there, or a package for the URL is missing; BadFile, UnsupportedFile.
    """
    try:
        manifest = Manifest.from_bytes(store_of(url).read(MANIFEST), f"{url}/{MANIFEST}")
    except FileNotFoundError:
        raise BadInput(f"{url}: found no {MANIFEST}, expected what `laconic pack` writes when all is done") from None
    return Opened(str(url), manifest)


class Opened(Sequence["Item"]):
    """Holds the coded files of a data set in the order of their names; bytes are fetched when they are asked for.

    It can be pickled, and used after a fork: each process makes its own connections. url: of the data set. manifest: its
    manifest.
    """

    def __init__(self, url: str, manifest: Manifest) -> None:
        self.url = url
        self.manifest = manifest
        self._starts = [0, *accumulate(shard.members for shard in manifest.shards)]
        self._indexes = OrderedDict[int, ShardIndex]()
        self._store: tuple[int, Store] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_store": None, "_indexes": OrderedDict()}

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, at: int | str) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | str | slice) -> Item | list[Item]:
        """Return the file of a number from 0 (or from the end, below 0) or of a source name, or those of a slice.

        Raises IndexError; BadInput for a name that is not there, with the reason where it could not be coded; BadFile.
        """
        if isinstance(at, slice):
            return [self._item(i) for i in range(*at.indices(len(self)))]
        return self._named(at) if isinstance(at, str) else self._item(range(len(self))[at])

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, range(len(self)))

    def __contains__(self, name: object) -> bool:
        """Tell whether a coded file has this source name."""
        return isinstance(name, str) and self._place(name) is not None

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Return a part of a shard. Raises OSError, or what a file system of fsspec raises."""
        return self._files().read(shard, offset, length)

    def _item(self, i: int) -> Item:
        number = bisect_right(self._starts, i) - 1
        member = self._index(number).members[i - self._starts[number]]
        return Item(self, self.manifest.shards[number].shard, member)

    def _named(self, name: str) -> Item:
        found = self._place(name)
        if found is None:
            failed = [failure.reason for failure in self.manifest.failures if failure.name == name]
            expected = f"a file that could be coded ({failed[0]})" if failed else f"a name that {self.url} has"
            raise BadInput(f"name: found {name!r}, expected {expected}")
        return found

    def _place(self, name: str) -> Item | None:
        number = bisect_right(self.manifest.shards, name, key=lambda shard: shard.first) - 1
        if number < 0 or self.manifest.shards[number].last < name:
            return None
        found = [member for member in self._index(number).members if member.name == name]
        return Item(self, self.manifest.shards[number].shard, found[0]) if found else None

    def _index(self, number: int) -> ShardIndex:
        """Return the index of a shard, and keep it; the oldest are dropped where many are kept."""
        if number not in self._indexes:
            shard = self.manifest.shards[number]
            name = index_name(shard.shard)
            index = ShardIndex.from_bytes(self._files().read(name), name)
            check_index(name, index, shard)
            self._indexes[number] = index
            while len(self._indexes) > 1 and sum(len(kept.members) for kept in self._indexes.values()) > MEMBERS_KEPT:
                self._indexes.popitem(last=False)
            return index
        return self._indexes[number]

    def _files(self) -> Store:
        """Return the store of this process: connections do not live through a fork."""
        if self._store is None or self._store[0] != os.getpid():
            self._store = os.getpid(), store_of(self.url)
        return self._store[1]


@dataclass(frozen=True)
class Item:
    """Is a coded file of a data set. source: the data set. shard: the name of the tar. member: the line of the index."""

    source: Opened
    shard: str
    member: Member

    @property
    def name(self) -> str:
        """Return the name of the source file, relative to the source."""
        return self.member.name

    @property
    def key(self) -> str:
        """Return webdataset's key of the sample."""
        return self.member.key

    @cached_property
    def data(self) -> bytes:
        """Fetch the bytes of the .lac file, once. Raises BadFile where they are damaged."""
        return checked(self, self.member)

    @cached_property
    def sides(self) -> Mapping[str, bytes]:
        """Fetch the side files, once, by what follows the key in their names: {".json": bytes}. Raises BadFile."""
        return {side.member.removeprefix(self.key): checked(self, side) for side in self.member.sides}

    def decode(self, **options: Any) -> Any:
        """Decompress the file with the options of `laconic.decompress`, such as region or as_array.

        Raises BadFile, with the names of file and shard before the reason; ModelMissing, BadInput.
        """
        try:
            return api.decompress(self.data, **options)
        except BadFile as error:
            raise type(error)(f"{self.name} in {self.shard}: {error}") from None


def checked(item: Item, part: Member | Side) -> bytes:
    """Return the bytes of a file in a shard. Raises BadFile where they are not those that were packed."""
    data = item.source.read(item.shard, part.offset, part.length)
    name = part.name if isinstance(part, Member) else part.member
    expect(len(data) == part.length, BadFile, f"{name} in {item.shard}: bytes", len(data), part.length)
    digest = hashlib.sha256(data).hexdigest()
    expect(digest == part.sha256, BadFile, f"{name} in {item.shard}: SHA-256", digest, part.sha256)
    return data


def check_index(name: str, index: ShardIndex, shard: Shard) -> None:
    """Refuse an index of another run than the manifest's. Raises BadFile."""
    found = index.shard, index.key, index.sha256, len(index.members)
    expected = shard.shard, shard.key, shard.sha256, shard.members
    expect(found == expected, BadFile, f"{name}: shard, key, SHA-256 and members", found, f"{expected}, as the manifest says")
