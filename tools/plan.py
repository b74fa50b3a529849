"""What a run of `laconic eval` is to do: which codecs at which rates with which files, by which metrics."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from laconic.entropy.errors import BadInput, expect
from laconic.suffixes import PICTURES, SOUNDS
from laconic.tools import coders, tasks
from laconic.tools.coder import Coder
from laconic.tools.curves import MANIFEST
from laconic.tools.metrics import ALIASES, METRICS, Absent, Item, Metric

DEFAULT_CODECS = {
    "picture": "laconic,jpeg,webp,avif,avif-psnr,jxl,jpeg2000",
    "sound": "laconic,laconic-lossless,opus,mp3,vorbis,flac",
}
PICTURE_METRICS = "psnr-rgb,ms-ssim-rgb"
SPEECH_METRICS, SOUND_METRICS = "pesq,stoi,visqol-speech", "visqol,si-sdr,mr-stft"
SPEECH_RATE = 24000  # speech is mostly kept in mono at up to this rate, music is not


@dataclass(frozen=True)
class Work:
    """Describes one row to make. `codec` and `metrics` are names: workers build what they stand for."""

    codec: str
    version: str
    rate: float
    path: str
    file: str  # the path in the folder
    sha256: str
    medium: str
    out: str
    metrics: tuple[str, ...]
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What is equal for rows that say the same: a row of the journal with this key need not be made again."""
        return self.codec, self.version, self.rate, self.file, self.sha256, self.seed


@dataclass(frozen=True)
class Plan:
    """Says what a run does: coders and their rates by name, and the files, metrics and task that they meet."""

    root: Path
    files: dict[str, str]  # path in the folder: sha256
    medium: str
    coders: dict[str, Coder]
    rates: dict[str, tuple[float, ...]]
    metrics: tuple[str, ...]
    task: tasks.Task | None
    labels: list[dict[str, str]]
    missing: dict[str, str]
    results: Path
    seed: int

    def works(self) -> Iterator[Work]:
        """Yield every row that the run asks for."""
        for file, digest in self.files.items():
            for name, coder in self.coders.items():
                for rate in self.rates[name]:
                    path, out = str(self.root / file), str(coded_path(self.results, coder, file, rate))
                    yield Work(name, coder.version, rate, path, file, digest, self.medium, out, self.metrics, self.seed)


def make_plan(args: argparse.Namespace) -> Plan:
    """Return the plan of a command line. What is not on this machine is left out and named. Raises BadInput."""
    expect(args.jobs is None or args.jobs >= 1, BadInput, "-j", args.jobs, "at least 1")
    medium, files = find_files(args.folder, args.output)
    missing: dict[str, str] = {}
    names = (args.codecs or ("" if args.codec else DEFAULT_CODECS[medium])).split(",")
    built = build_coders([name for name in [*names, *args.codec] if name], medium, missing)
    metrics = available_metrics((args.metrics or default_metrics(args.folder, medium, files)).split(","), medium, missing)
    rates = choose_rates(args.rates, built, missing)
    task = tasks.load(args.task) if args.task else None
    labels = tasks.read_labels(args.labels or args.folder / "labels.csv", list(files)) if task else []
    return Plan(args.folder, files, medium, built, rates, metrics, task, labels, missing, args.output, args.seed)


def build_coders(names: list[str], medium: str, missing: dict[str, str]) -> dict[str, Coder]:
    """Return the coders by the names that were asked for; absent ones are added to `missing`."""
    built: dict[str, Coder] = {}
    for name in names:
        try:
            coder = coders.build(name, medium)
        except Absent as error:
            short = name.partition("=")[0]
            missing[short] = str(error).removeprefix(f"{short}: ")
            continue
        expect(coder.medium == medium, BadInput, f"codec {coder.name}", f"one for {coder.medium}s", f"one for {medium}s")
        taken = [plain(other.name) for other in built.values()] + [Path(MANIFEST).stem, ""]
        expect(plain(coder.name) not in taken, BadInput, "codec", coder.name, "a name of its own")
        built[name] = coder
    return built


def default_metrics(folder: Path, medium: str, files: Iterable[str]) -> str:
    """Return the metrics that the field uses for what the files seem to be."""
    if medium == "picture":
        return PICTURE_METRICS
    import soundfile

    kinds = []
    for name in files:
        with suppress(soundfile.LibsndfileError):  # whoever reads it says so
            found = soundfile.info(str(folder / name))
            kinds.append(found.channels == 1 and found.samplerate <= SPEECH_RATE)
    return SPEECH_METRICS if all(kinds) else SOUND_METRICS


def available_metrics(names: list[str], medium: str, missing: dict[str, str]) -> tuple[str, ...]:
    """Return the full names of metrics; absent ones are added to `missing`."""
    known = [name for name, kind in METRICS.items() if kind.medium == medium]
    found = []
    for name in dict.fromkeys(ALIASES.get(name, name) for name in names):
        expect(name in known, BadInput, "--metrics", name, f"one for {medium}s: {' '.join(known)}")
        try:
            metric(name)
            found.append(name)
        except Absent as error:
            missing[name] = str(error).removeprefix(f"{name}: ")
    return tuple(found)


def choose_rates(texts: list[str], built: dict[str, Coder], missing: dict[str, str]) -> dict[str, tuple[float, ...]]:
    """Return the settings of each coder: its own, or those of --rates. Raises BadInput."""
    rates = {name: coder.rates for name, coder in built.items()}
    for text in texts:
        short, _, values = text.partition("=")
        chosen = [name for name, coder in built.items() if coder.name == short]
        if not chosen and short in missing:
            continue
        expect(len(chosen) == 1, BadInput, "--rates", short, f"one of {', '.join(coder.name for coder in built.values())}")
        try:
            rates[chosen[0]] = tuple(sorted({float(value) for value in values.split(",")}))
        except ValueError:
            raise BadInput(f"--rates {short}: found {values!r}, expected numbers such as 10,20") from None
    for name, coder in built.items():
        expect(bool(rates[name]), BadInput, f"rates of {coder.name}", "none", f"--rates {coder.name}=...")
        fractions = [rate for rate in rates[name] if coder.whole and rate != int(rate)]
        expect(not fractions, BadInput, f"--rates {coder.name}", fractions, "whole numbers")
    return rates


def find_files(folder: Path, results: Path | None = None) -> tuple[str, dict[str, str]]:
    """Return the medium of a folder, and its files in order with their digests; results that lie in it are not its files.

    Raises BadInput where the folder holds neither pictures nor sounds, or both.
    """
    expect(folder.is_dir(), BadInput, "DIR", str(folder), "a folder")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if results:
        paths = [path for path in paths if results.resolve() not in path.resolve().parents]
    found = {
        "picture": [path for path in paths if path.suffix.lower() in PICTURES],
        "sound": [path for path in paths if path.suffix.lower() in SOUNDS],
    }
    media = [medium for medium, some in found.items() if some]
    both = " and ".join(f"{medium}s" for medium in media)
    expect(len(media) == 1, BadInput, str(folder), both or "nothing to code", "pictures or sounds")
    return media[0], {p.relative_to(folder).as_posix(): sha256(p.read_bytes()) for p in found[media[0]]}


def coded_path(results: Path, coder: Coder, file: str, rate: float) -> Path:
    """Return where a coded file lies. The name of the original stays whole in it: two may differ in the suffix only."""
    return results / "files" / plain(coder.name) / f"{file}@{rate:g}{coder.suffix}"


def plain(name: str) -> str:
    """Return the name of a codec as part of a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


@cache
def coder_of(name: str, medium: str) -> Coder:
    """Return the coder of a name for a medium, built once."""
    return coders.build(name, medium)


@cache
def metric(name: str) -> Metric:
    """Return the function of a metric, loaded once."""
    return METRICS[name].load()


@lru_cache(maxsize=1)
def read(path: str, medium: str) -> Item:
    """Read a picture, uint8 [H, W, 3] in RGB, or a sound, float32 [T, C] in -1..1."""
    if medium == "sound":
        import soundfile

        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return Item("sound", samples, rate)
    from laconic import picture

    pixels = picture.read(path).pixels
    return Item("picture", np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def sha256(data: bytes) -> str:
    """Return the digest of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(files: dict[str, str]) -> str:
    """Return one digest of many files, given theirs: that of the text that sha256sum would print."""
    return sha256("".join(f"{digest}  {name}\n" for name, digest in files.items()).encode(errors="surrogateescape"))


