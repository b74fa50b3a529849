"""The plan: which file goes into which shard, and under which name. It depends on the source and the options alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import laconic
from laconic import media, registry, suffixes
from laconic.api import Codec, CodecOptions, target_of
from laconic.dataset.listing import File
from laconic.dataset.records import FORMAT, shard_name
from laconic.entropy.errors import BadInput, expect
from laconic.options import CompressOptions

SHARD_COUNT, SHARD_SIZE = 10_000, 100_000_000
WEBDATASET_KEY = re.compile(r"((?:.*/)?[^.]+)[.]([^/]*)")  # the key and the extension, as webdataset cuts a name
SUFFIXES = {"picture": suffixes.PICTURES.keys(), "sound": suffixes.SOUNDS.keys()}
NOT_FOR_PACKS = ("threads", "notes", "sample_rate")
DEFAULTS = {"fallback": True}  # all other keywords of `laconic.compress` are None or False


@dataclass(frozen=True, slots=True)
class Entry:
    """Describes a file and the name of its member in a tar."""

    file: File
    member: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Describes what stands together in a tar: files to code, and side files to carry."""

    key: str
    media: tuple[Entry, ...]
    sides: tuple[Entry, ...] = ()

    @property
    def n_bytes(self) -> int:
        """How many bytes its source files have."""
        return sum(entry.file.n_bytes for entry in (*self.media, *self.sides))


@dataclass(frozen=True)
class Coding:
    """Says how all files are coded: what decides the bytes besides the source.

    compress, codec: keywords of `laconic.compress` and `laconic.Codec` that are not the default. models: digests by name.
    laconic: the version.
    """

    compress: dict[str, Any]
    codec: dict[str, Any]
    models: dict[str, str]
    laconic: str = laconic.__version__


@dataclass(frozen=True)
class Task:
    """Describes one shard to make; it can be pickled. dest: folder or URL. key: of the index, if it is done."""

    number: int
    dest: str
    samples: tuple[Sample, ...]
    coding: Coding
    verify: bool = False
    fail_fast: bool = False

    @property
    def shard(self) -> str:
        """The name of the tar."""
        return shard_name(self.number)

    @property
    def key(self) -> str:
        """The digest of all that decides the bytes, save the contents of the source files."""
        rows = [
            [sample.key, [[[e.file.name, e.file.n_bytes, e.member] for e in part] for part in (sample.media, sample.sides)]]
            for sample in self.samples
        ]
        return digest([FORMAT, vars(self.coding), rows])


@dataclass(frozen=True)
class Plan:
    """Lists the samples of each shard. skipped: how many files of each suffix are left out. head: what plan.json says."""

    shards: tuple[tuple[Sample, ...], ...]
    coding: Coding
    head: dict[str, Any]

    def task(self, number: int, dest: str, verify: bool = False, fail_fast: bool = False) -> Task:
        """Return the task of one shard."""
        return Task(number, dest, self.shards[number], self.coding, verify, fail_fast)


def make_plan(files: list[File], coding: Coding, shard_count: int = SHARD_COUNT, shard_size: int = SHARD_SIZE) -> Plan:
    """Return the plan of files, sorted by name.

    shard_count: files to code in a shard, at most; shard_size: bytes of source files, at most, unless one alone has more.
    Raises BadInput where nothing is to be coded, or two files would get one key.
    """
    expect(shard_count >= 1, BadInput, "shard_count", shard_count, "at least 1")
    expect(shard_size >= 1, BadInput, "shard_size", shard_size, "at least 1 byte")
    samples, skipped = grouped(files, kinds_of(coding))
    left = ", ".join(f"{n} {suffix}" for suffix, n in skipped.items())
    expect(bool(samples), BadInput, "source", f"nothing to code{f' ({left})' if left else ''}", "pictures or sounds")
    shards = tuple(cut(samples, shard_count, shard_size))
    source = {**totals(samples), "skipped": skipped}
    head = {"format": FORMAT, "laconic": coding.laconic, "options": coding.compress | coding.codec}
    head |= {"models": coding.models, "source": source, "shard_count": shard_count, "shard_size": shard_size}
    return Plan(shards, coding, head | {"shards": len(shards)})


def totals(samples: list[Sample]) -> dict[str, Any]:
    """Return how many files and bytes samples have, and the digest of all names and sizes."""
    n_files = n_bytes = 0
    listing = hashlib.sha256()
    for sample in samples:
        for entry in (*sample.media, *sample.sides):
            n_files, n_bytes = n_files + 1, n_bytes + entry.file.n_bytes
            listing.update(json.dumps([entry.file.name, entry.file.n_bytes]).encode("ascii"))
    return {"files": n_files, "n_bytes": n_bytes, "sha256": listing.hexdigest()}


def coding_of(options: Mapping[str, Any]) -> Coding:
    """Return what is asked for by keywords of `laconic.compress` and `laconic.Codec`.

    Raises BadInput for values, or a target that nothing fits; ModelMissing; TypeError for other keywords.
    """
    for name in NOT_FOR_PACKS:
        if name in options:
            raise TypeError(f"pack got an unexpected keyword argument {name!r}")
    own = {name: value for name, value in options.items() if name in CodecOptions.__annotations__}
    asked = {name: value for name, value in options.items() if name not in own}
    standard = vars(Codec())
    codec = {name: value for name, value in vars(Codec(**own)).items() if value != standard[name]}
    codec.setdefault("precision", "float32")  # "auto" would not be the same on every machine
    target_of(cast(CompressOptions, asked))  # it refuses other keywords
    compress = {name: value for name, value in asked.items() if value is not None and value is not DEFAULTS.get(name, False)}
    coding = Coding(compress, codec, models_here(codec.get("model")))
    kinds_of(coding)
    return coding


def models_here(name: str | None) -> dict[str, str]:
    """Return the digests of the models that this machine would use, by name: the default ones, or the named one.

    Raises ModelMissing, BadInput for a model that only this process knows.
    """
    if name is None:
        return {model: registry.find(model).digest for model in (registry.DEFAULT_PHOTO, registry.DEFAULT_SOUND)}
    if registry.medium_of(name):
        return {name: registry.sha256(path) if (path := Path(name)).is_file() else ""}
    expect(registry.registered(name) is None, BadInput, "model", name, "one on disk: other processes do not know this one")
    return {name: registry.find(name).digest}


def kinds_of(coding: Coding) -> frozenset[str]:
    """Return the kinds of files, "picture" and "sound", that the options are for. Raises BadInput where there are none."""
    options, found = cast(CompressOptions, coding.compress), set()
    problem = BadInput("target: found none that fits, expected one")
    for kind in SUFFIXES:
        try:
            asked = Codec(**coding.codec)._options(options, target_of(options), kind, list[str]().append)
            asked.level()
            media.choose(kind, asked.target.name, asked.medium)
            found.add(kind)
        except BadInput as error:
            problem = error
    if not found:
        raise problem
    return frozenset(found)


def cut(samples: list[Sample], shard_count: int, shard_size: int) -> Iterator[tuple[Sample, ...]]:
    """Yield the samples of each shard, neither too many files nor too many bytes."""
    shard: list[Sample] = []
    n_files = n_bytes = 0
    for sample in samples:
        if shard and (n_files + len(sample.media) > shard_count or n_bytes + sample.n_bytes > shard_size):
            yield tuple(shard)
            shard, n_files, n_bytes = [], 0, 0
        shard.append(sample)
        n_files += len(sample.media)
        n_bytes += sample.n_bytes
    if shard:
        yield tuple(shard)


def grouped(files: list[File], kinds: frozenset[str]) -> tuple[list[Sample], dict[str, int]]:
    """Return the samples of files, sorted, and how many files of each suffix are left out. Raises BadInput."""
    shown = [file for file in files if file.named or not is_hidden(file.tar or file.name)]
    skipped = Counter({"hidden": len(files) - len(shown)} if len(files) > len(shown) else {})
    known = frozenset(suffix for kind in kinds for suffix in SUFFIXES[kind])
    loose = loose_samples([file for file in shown if not file.tar], known, skipped)
    inside = tar_samples([file for file in shown if file.tar], known, skipped)
    samples = sorted([*loose, *inside], key=lambda sample: sample.media[0].file.name)
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.key, sample)
        names = [one.media[0].file.name for one in (other, sample)]
        expect(other is sample, BadInput, f"key {sample.key}", f"{names[0]} and {names[1]}", "one of them: rename the other")
    return samples, dict(sorted(skipped.items()))


def loose_samples(files: list[File], known: frozenset[str], skipped: Counter[str]) -> Iterator[Sample]:
    """Yield a sample for each file of a known suffix that stands in no tar, with its side files."""
    found: list[File] = []
    others: list[File] = []
    for file in files:
        (found if is_medium(file, known) else others).append(file)
    owners = owners_of(found) if others else {}
    sides: dict[str, list[File]] = {}
    for file in others:
        fit = [] if is_coded(file) else next((owners[p] for p in prefixes(file.name) if p in owners), [])
        for owner in fit:
            sides.setdefault(owner.name, []).append(file)
        if not fit and file.named:
            found.append(file)
        elif not fit:
            skipped[suffix_of(file.name) or "without a suffix"] += 1
    keys = told_apart([(escaped(stem(cleaned(file.name))), escaped(cleaned(file.name))) for file in found])
    for file, key in zip(found, keys, strict=True):
        rest = len(stem(file.name)) + 1
        carried = tuple(Entry(side, f"{key}.{side.name[rest:]}") for side in sides.get(file.name, ()))
        yield Sample(key, (Entry(file, f"{key}.lac"),), carried)


def owners_of(found: list[File]) -> dict[str, list[File]]:
    """Return the files that a side file belongs to, by what its name begins with: their names with and without suffix."""
    owners: dict[str, list[File]] = {}
    for file in found:
        for name in {file.name, stem(file.name)}:
            owners.setdefault(name, []).append(file)
    return owners


def tar_samples(files: list[File], known: frozenset[str], skipped: Counter[str]) -> Iterator[Sample]:
    """Yield the samples of tars as webdataset sees them, less those in which nothing is to be coded."""
    groups: dict[tuple[str, str], list[tuple[File, str]]] = {}
    for file in files:
        match = WEBDATASET_KEY.fullmatch(file.name[len(file.tar) + 1 :])
        if match:
            groups.setdefault((file.tar, match[1]), []).append((file, match[2]))
        else:
            skipped[suffix_of(file.name) or "without a suffix"] += 1
    coded = {group: parts for group, parts in groups.items() if any(is_medium(file, known) for file, _ in parts)}
    skipped.update(suffix_of(file.name) for group, parts in groups.items() if group not in coded for file, _ in parts)
    repeated = len({key for _, key in coded}) < len(coded)
    for (tar, key), parts in coded.items():
        yield tar_sample(f"{cleaned(tar)[: -len('.tar')]}/{key}" if repeated else key, parts, known, skipped)


def tar_sample(key: str, parts: list[tuple[File, str]], known: frozenset[str], skipped: Counter[str]) -> Sample:
    """Return the sample of files with one key and these extensions."""
    found = [(file, extension) for file, extension in parts if is_medium(file, known)]
    names = told_apart([(f"{key}.{short(extension)}", f"{key}.{extension}.lac") for _, extension in found])
    sides = [(file, extension) for file, extension in parts if not is_medium(file, known) and not is_coded(file)]
    skipped.update({suffixes.CODED: len(parts) - len(found) - len(sides)} if len(parts) > len(found) + len(sides) else {})
    coded = tuple(Entry(file, name) for (file, _), name in zip(found, names, strict=True))
    return Sample(key, coded, tuple(Entry(file, f"{key}.{extension}") for file, extension in sides))


def short(extension: str) -> str:
    """Return an extension with .lac for its last part: seg.png becomes seg.lac."""
    return f"{extension.rpartition('.')[0]}.lac".removeprefix(".")


def told_apart(names: list[tuple[str, str]]) -> list[str]:
    """Return the first name of each pair, or the second, fuller one where the first would be there twice."""
    chosen = [first for first, _ in names]
    while True:
        times = Counter(chosen)
        clashes = [i for i, (_, full) in enumerate(names) if times[chosen[i]] > 1 and chosen[i] != full]
        if not clashes:
            return chosen
        for i in clashes:
            chosen[i] = names[i][1]


def is_medium(file: File, known: frozenset[str]) -> bool:
    """Tell whether a file is to be coded, by its suffix. What has a problem is, so that it is listed."""
    return bool(file.problem) or suffix_of(file.name) in known


def is_coded(file: File) -> bool:
    """Tell whether a file has the suffix of our own: beside the coded one it would have its name."""
    return suffix_of(file.name) == suffixes.CODED


def is_hidden(name: str) -> bool:
    """Tell whether a name begins with a dot, or that of a folder in it."""
    return name.startswith(".") or "/." in name


def cleaned(name: str) -> str:
    """Return the name of a listed path or URL as it may stand in a tar: nothing before it, no way up."""
    parts = name.replace("://", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def escaped(name: str) -> str:
    """Return a name whose last part has no dot, since webdataset would end the key there."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.replace("%", "%25").replace(".", "%2E")


def prefixes(name: str) -> Iterator[str]:
    """Yield what a name begins with, up to each dot of its last part, the longest first."""
    start = name.rfind("/") + 1
    while (dot := name.rfind(".", start)) > start:
        name = name[:dot]
        yield name


def stem(name: str) -> str:
    """Return a name without its last suffix."""
    return name[: dot_of(name)]


def suffix_of(name: str) -> str:
    """Return the last suffix of a name, in lower case; "" where it has none."""
    return name[dot_of(name) :].lower()


def dot_of(name: str) -> int:
    """Return where the last suffix of a name begins: at its end where it has none."""
    dot = name.rfind(".")
    return dot if dot > name.rfind("/") + 1 else len(name)


def digest(value: object) -> str:
    """Return the SHA-256 of a value's JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()


