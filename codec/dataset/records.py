"""What stands beside the shards: the index of each, and the manifest of all (docs/dataset.md).

Both are JSON in ASCII, with no time and no name of a machine in them: the same work gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from laconic.entropy.errors import BadFile, UnsupportedFile, expect

FORMAT = 1
MANIFEST = "manifest.json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Side:
    """Describes a side file, which is carried as it is.

    member: its name in the tar. offset, length: where its bytes lie in the shard. sha256: of these bytes, hexadecimal.
    """

    member: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Member:
    """Describes a coded file in a shard.

    name: of the source file, relative to the source. key: webdataset's key of the sample. member: the name in the tar,
    which ends in .lac. offset, length: where its bytes lie in the shard: one range request gets them. sha256: of these
    bytes, hexadecimal. source_bytes, source_sha256: of the source file. sides: the side files of its sample.
    notes: what was changed or left out, as `laconic compress` tells it.
    """

    name: str
    key: str
    member: str
    offset: int
    length: int
    sha256: str
    source_bytes: int
    source_sha256: str
    sides: tuple[Side, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Describes a source file that could not be coded. source_sha256: of its bytes; "" where it could not be read."""

    name: str
    reason: str
    source_sha256: str = ""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Lists what is in a shard. That it is there, with the key of the task, says that the shard is done.

    shard: the name of the tar. key: SHA-256 of the task (names, sizes, options, models, versions), hexadecimal.
    n_bytes, sha256: of the tar. members, failures: in the order of the plan.
    """

    shard: str
    key: str
    n_bytes: int
    sha256: str
    members: tuple[Member, ...]
    failures: tuple[Failure, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the JSON lines of the index: a head, a line for each member, a line for each failure."""
        head = {"format": FORMAT, "shard": self.shard, "key": self.key, "n_bytes": self.n_bytes, "sha256": self.sha256}
        head |= {"members": len(self.members), "failures": len(self.failures)}
        rows = [head, *map(asdict, self.members), *map(asdict, self.failures)]
        return b"".join(line_of(row) for row in rows)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "index") -> ShardIndex:
        """Return the index that JSON lines hold. name: of the file, for errors. Raises BadFile, UnsupportedFile."""
        head, *rows = parsed(name, lambda: [json.loads(line) for line in data.splitlines()] or [{}])
        check_format(name, head)
        n = parsed(name, lambda: int(head["members"]))
        told = 1 + n + parsed(name, lambda: int(head["failures"]))
        expect(len(rows) + 1 == told, BadFile, f"{name}: lines", len(rows) + 1, f"{told}, as its head says")
        return parsed(
            name,
            lambda: cls(
                **{key: head[key] for key in ("shard", "key", "n_bytes", "sha256")},
                members=tuple(map(member_of, rows[:n])),
                failures=tuple(Failure(**row) for row in rows[n:]),
            ),
        )


@dataclass(frozen=True, slots=True)
class Shard:
    """Describes a shard in the manifest.

    shard: the name of the tar. key, n_bytes, sha256: as its index has them. members, failures: how many there are.
    first, last: the names of the first and the last source file that the plan gave it, failed ones included; names grow
    from shard to shard, by code points.
    """

    shard: str
    key: str
    n_bytes: int
    sha256: str
    members: int
    failures: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Describes a data set: what it was made of and how, its shards, and what failed. It is written when all is done.

    laconic: the version that coded. options: those of `laconic.compress` and `laconic.Codec` that are not the default.
    models: the digest, SHA-256, of each model that the options lead to, by name. source: `files`, `n_bytes` and `sha256`
    of the listing (names and sizes), and how many files were `skipped` of each suffix. notes: how many members have each.
    """

    laconic: str
    options: dict[str, Any]
    models: dict[str, str]
    source: dict[str, Any]
    shards: tuple[Shard, ...]
    failures: tuple[Failure, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def members(self) -> int:
        """How many coded files the data set has."""
        return sum(shard.members for shard in self.shards)

    @property
    def n_bytes(self) -> int:
        """How many bytes all shards have."""
        return sum(shard.n_bytes for shard in self.shards)

    def to_bytes(self) -> bytes:
        """Return the JSON of the manifest."""
        counts = {"members": self.members, "n_bytes": self.n_bytes}
        return json.dumps({"format": FORMAT, **counts, **asdict(self)}, indent=1).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, name: str = MANIFEST) -> Manifest:
        """Return the manifest that JSON holds. name: of the file, for errors. Raises BadFile, UnsupportedFile."""
        row = parsed(name, lambda: dict(json.loads(data)))
        check_format(name, row)
        return parsed(
            name,
            lambda: cls(
                **{key: row[key] for key in ("laconic", "options", "models", "source")},
                shards=tuple(Shard(**shard) for shard in row["shards"]),
                failures=tuple(Failure(**failure) for failure in row["failures"]),
                notes=dict(row["notes"]),
            ),
        )


def index_name(shard: str) -> str:
    """Return the name of the index of a shard: 000000.jsonl of 000000.tar."""
    return shard.removesuffix(".tar") + ".jsonl"


def shard_name(number: int) -> str:
    """Return the name of a shard, numbered from 0."""
    return f"{number:06}.tar"


def member_of(row: dict[str, Any]) -> Member:
    """Return a member from its line."""
    sides = tuple(Side(**side) for side in row["sides"])
    return Member(**(row | {"sides": sides, "notes": tuple(row["notes"])}))


def line_of(row: dict[str, Any]) -> bytes:
    """Return a line of JSON. Names of files that are no text are escaped, and come back as they were."""
    return json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"


def check_format(name: str, head: dict[str, Any]) -> None:
    """Refuse a format that is not ours. Raises UnsupportedFile."""
    found = head.get("format") if isinstance(head, dict) else None
    expect(found == FORMAT, UnsupportedFile, f"{name}: format", found, FORMAT)


def parsed(name: str, read: Callable[[], T]) -> T:
    """Return what a function reads from JSON. Raises BadFile where something is missing or of another type."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadFile(f"{name}: found {type(error).__name__} ({error}), expected what docs/dataset.md says") from None
