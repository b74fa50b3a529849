"""The command line: `laconic compress photo.png`. Uses only what a user of the library could."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn, TextIO, TypeVar, cast

import laconic

SUFFIX = ".lac"
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".bmp": "BMP"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
INPUTS = {*FORMATS, ".gif", ".pgm", ".pnm", ".jp2"}
SOUND_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".aiff": "AIFF", ".aif": "AIFF", ".caf": "CAF", ".w64": "W64"}
SOUND_INPUTS = {*SOUND_FORMATS, ".ogg", ".opus", ".mp3"}
MADE_OF = {"sound": ".wav"}  # the suffix of what a medium decompresses to, where it is not a picture
SPOOLED = 1 << 26  # bytes of an output that wait in memory, not on disk, until it is whole
COPIED = 1 << 20  # bytes at a time
PATIENCE = 1.0  # seconds that an interrupt may take before the user is told why
FAILURES = (laconic.LaconicError, OSError, MemoryError)  # of one file: the others are still done
MAX_THREADS = 1024  # far above any use; OpenMP dies, with no error to catch, where it cannot start a thread

REPORTING = {  # commands of modules that are imported when the command is used
    "eval": ("laconic.tools.evaluate", "run codecs over a folder, with every figure kept"),
    "plot": ("laconic.tools.plot", "rate-distortion and speed figures, and a table, from results of eval"),
    "report": ("laconic.tools.report", "one HTML page from results of eval"),
}

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Any, Path | None, BinaryIO, list[str]], None]
Summary = Callable[[BinaryIO, float], dict[str, Any]]


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    closed = replace_closed()
    args = build_parser(argv[:1]).parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are not always text; stderr does so too
    try:
        check_streams(args, closed)
        with one_interrupt_waits():
            status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("laconic: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as in `laconic info *.lac | head`: the end, but no failure of a file
        write_no_more(sys.stdout, sys.stderr)
        return 1
    except UsageError as error:
        print(f"laconic: {error}", file=sys.stderr)
        return 2
    except FAILURES as error:
        print(f"laconic: {reason(error)}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # perhaps what failed just now
            write_no_more(sys.stdout)
        return 1


def replace_closed() -> list[str]:
    """The names of the standard streams that were closed when Python began (`>&-`), now /dev/null."""
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115  it stays open
    return closed


def check_streams(args: argparse.Namespace, closed: list[str]) -> None:
    """No closed stream is to be read or written. Raises UsageError."""
    piped = "-" in [*(getattr(args, "inputs", None) or []), *(getattr(args, "files", None) or [])]
    output = getattr(args, "output", "")
    used = {"stdin": piped, "stdout": output == "-" or (output is None and piped)}
    for name in closed:
        if used.get(name):
            raise UsageError(f"-: found {name} closed, expected it open")


def write_no_more(*streams: TextIO) -> None:
    """What a stream still holds cannot be written: it goes to /dev/null, where Python would fail at its own end."""
    for stream in streams:
        with suppress(OSError):  # has no descriptor, where a caller replaced it
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def one_interrupt_waits() -> Iterator[None]:
    """The first interrupt waits for threads, which cannot be stopped, and says so; the second one ends the process."""
    came, over = threading.Event(), threading.Event()

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        came.set()
        raise KeyboardInterrupt

    def tell() -> None:  # begun before: a thread that begins in a signal handler may wait for what it interrupted
        came.wait()
        if not over.wait(PATIENCE):
            print("laconic: waiting for the files in work; interrupt again to end at once", file=sys.stderr, flush=True)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    threading.Thread(target=tell, daemon=True).start()
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        came.set()


class UsageError(Exception):
    """The command line asks for something that makes no sense."""


def compress(args: argparse.Namespace) -> int:
    """Pictures and sounds to .lac files."""
    if args.archive:
        return compress_archive(args)
    codec = laconic.Codec(args.model, args.device, args.precision, args.threads, args.max_pixels)
    exact = args.lossless or args.max_error is not None
    if args.effort is not None and not exact:
        raise UsageError("-e: found no --lossless and no --max-error, expected one of them: it is theirs alone")
    options = {
        k: getattr(args, k) for k in ("quality", "bpp", "size", "psnr", "lossless", "max_error", "effort", "strip")
    }

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        with sample_bar(args) as bar:
            codec.compress_to(file, source, **options, notes=notes, progress=bar)

    def summary(file: BinaryIO, seconds: float) -> dict[str, Any]:
        found = asdict(laconic.info(file))
        row: dict[str, Any] = {"bytes": found["n_bytes"]}
        row |= {key: round(found[key], 4) for key in ("bpp", "bpsp", "kbit_per_s", "quality") if key in found}
        row["seconds"] = round(seconds, 3)
        if "width" in found:
            row["megapixels_per_s"] = round(found["width"] * found["height"] / 1e6 / seconds, 2)
        else:
            row["times_real_time"] = round(found["seconds"] / seconds, 1)
        return row

    accepted = INPUTS | (SOUND_INPUTS if args.lossless else set())
    return each_file(args, SUFFIX, accepted, work, summary)


def compress_archive(args: argparse.Namespace) -> int:
    """A folder of small pictures to one archive."""
    if not args.lossless or len(args.inputs) != 1 or not Path(args.inputs[0]).is_dir():
        raise UsageError("--archive: expected --lossless and one folder of pictures of one size")
    if args.strip or args.effort is not None:
        flag = "--strip" if args.strip else "--effort"
        raise UsageError(f"{flag}: found with --archive, expected without: it keeps samples alone, coded in one way")
    folder = Path(args.inputs[0])
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in INPUTS and path.is_file()]
    if not paths:
        raise UsageError(f"found no {' '.join(sorted(INPUTS))} file in {folder}")
    out = None if args.output == "-" else Path(args.output or folder.resolve().with_suffix(SUFFIX))
    if args.output and out and (out.is_dir() or args.output.endswith("/")):
        out = out / (folder.resolve().name + SUFFIX)

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        names = [path.relative_to(folder).as_posix() for path in paths]
        options = {"model": args.model, "threads": args.threads, "device": args.device}
        file.write(laconic.compress_archive(paths, names=names, notes=notes, **options))

    def summary(file: BinaryIO, seconds: float) -> dict[str, Any]:
        found = laconic.info(file)
        assert isinstance(found, laconic.ArchiveInfo)
        return {
            "bytes": found.n_bytes,
            "pictures": len(paths),
            "bpd": round(found.bpd, 4),
            "seconds": round(seconds, 3),
        }

    return each_job(args, [Job(folder, out)], work, summary)


def decompress(args: argparse.Namespace) -> int:
    """.lac files to pictures and sounds."""
    codec = laconic.Codec(None, args.device, args.precision, args.threads, args.max_pixels)  # each file names its model
    options = {k: getattr(args, k) for k in ("region", "seek", "duration", "member", "partial")}
    if args.members:
        return decompress_members(args)

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        format = format_of(out)
        with sample_bar(args) as bar:
            codec.decompress_to(file, source, format=format, **options, notes=notes, progress=bar)

    def summary(file: BinaryIO, seconds: float) -> dict[str, Any]:
        return {"bytes": file.seek(0, os.SEEK_END), "seconds": round(seconds, 3)}

    return each_file(args, suffix_of, {SUFFIX}, work, summary)


def decompress_members(args: argparse.Namespace) -> int:
    """All pictures of an archive, into a folder, by their names."""
    if len(args.inputs) != 1 or not args.output or args.output == "-":
        raise UsageError("--members: expected one archive, and -o with a folder")
    for flag in ("region", "seek", "duration", "member", "partial"):
        if getattr(args, flag) is not None and getattr(args, flag) is not False:
            raise UsageError(f"--{flag}: found with --members, expected without: all pictures are written, whole")
    source = None if args.inputs[0] == "-" else Path(args.inputs[0])
    folder = Path(args.output).resolve()
    try:
        archive = laconic.open_archive(source or sys.stdin.buffer, args.device)
        outs = member_paths(archive.names or [f"{i:0{len(str(len(archive)))}}" for i in range(len(archive))], folder)
        pictures = archive.all(args.threads)
    except FAILURES as error:
        print(f"laconic: {source or '-'}: {reason(error)}", file=sys.stderr)
        return 1
    numbers: dict[Path | None, int] = {out: i for i, out in enumerate(outs)}

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        from laconic import picture

        picture.save_exact(picture.Exact(pictures[numbers[out]][:, :, None]), file, "PNG")

    def summary(file: BinaryIO, seconds: float) -> dict[str, Any]:
        return {"bytes": file.seek(0, os.SEEK_END), "seconds": round(seconds, 3)}

    jobs = [Job(source, out) for out in outs]
    check_files(jobs)
    return each_job(args, jobs, work, summary)


def member_paths(names: list[str], folder: Path) -> list[Path]:
    """A PNG file in the folder for each name; a.bmp is a.png, or a.bmp.png beside another a. Raises BadFile."""
    times = Counter(Path(name).with_suffix(".png") for name in names)
    outs = []
    for i, name in enumerate(names):
        alone = times[Path(name).with_suffix(".png")] == 1 or name.endswith(".png")
        out = folder / (Path(name).with_suffix(".png") if alone else f"{name}.png")
        if not out.resolve().is_relative_to(folder):
            raise laconic.BadFile(f"name of picture {i}: found {name!r}, expected one inside the folder")
        outs.append(out)
    twice = [out for out, n in Counter(outs).items() if n > 1]
    if twice:
        raise laconic.BadFile(f"names: found two that are {twice[0].name}, expected names that differ")
    return outs


def suffix_of(source: Path | None) -> str:
    """Of what a .lac file decompresses to; a file that cannot be read is named when its turn comes."""
    with suppress(*FAILURES):
        return MADE_OF.get(laconic.info(source).medium, ".png") if source else ".png"
    return ".png"


def info(args: argparse.Namespace) -> int:
    """What is in each file, without decoding it."""

    def show(name: str, source: Any) -> None:
        found = asdict(laconic.info(source))
        if args.json:
            print(json.dumps({"file": name, **found}))
        else:
            rows = [(key, shown(value)) for key, value in found.items() if value != ""]
            width = max(len(key) for key, _ in rows)
            print(name, *(f"  {key:{width}} {text}" for key, text in rows), sep="\n")

    return each_source(args.files, show)


def shown(value: Any) -> str:
    """Of a field of `laconic.info`; of chunks, how many there are of each kind and their bytes."""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if not isinstance(value, tuple):
        return str(value)
    kinds = dict.fromkeys(kind for kind, _ in value)
    sizes = {kind: [n for other, n in value if other == kind] for kind in kinds}
    return ", ".join(f"{len(found)} {kind} of {sum(found)} bytes" for kind, found in sizes.items()) or "none"


def verify(args: argparse.Namespace) -> int:
    """Check files; a line for each."""

    def check(name: str, source: Any) -> None:
        laconic.verify(source)
        print(f"{name}: ok")

    return each_source(args.files, check)


def models(args: argparse.Namespace) -> int:
    """The installed models."""
    for model in laconic.list_models():
        print(json.dumps(asdict(model)) if args.json else f"{model.name}  {model.digest[:8]}  {model.path}")
    return 0


def selftest(args: argparse.Namespace) -> int:
    """Whether this machine decodes the golden files right."""
    checks = laconic.selftest()
    for check in checks:
        print(f"{check.name}: {'ok' if check.ok else 'FAILED'} ({check.detail})")
    return 0 if checks and all(check.ok for check in checks) else 1


@dataclass(frozen=True)
class Job:
    """One file to make. None is a pipe: stdin, stdout."""

    source: Path | None
    out: Path | None

    @property
    def name(self) -> str:
        return str(self.source or "-")


@dataclass(frozen=True)
class Outcome:
    """What became of a job: what to report of it, or why it failed."""

    job: Job
    row: dict[str, Any]
    notes: list[str]
    failure: str = ""


def each_file(
    args: argparse.Namespace,
    suffix: str | Callable[[Path | None], str],
    accepted: set[str],
    work: Work,
    summary: Summary,
) -> int:
    """Plan all outputs, then do the work file by file; failures are listed and the rest is done.

    work: (source, name of the output, the output, notes to add to). summary: (the output, seconds) -> what to report.
    """
    return each_job(args, plan(args.inputs, args.output, suffix, accepted), work, summary)


def each_job(args: argparse.Namespace, jobs: list[Job], work: Work, summary: Summary) -> int:
    stream = sys.stderr if any(job.out is None for job in jobs) else sys.stdout
    args.single = len(jobs) == 1
    failures = []
    with mapped(partial(make, work=work, summary=summary, force=args.force), jobs, args.jobs) as outcomes:
        for outcome in progress(outcomes, len(jobs), args.quiet or stream.isatty()):
            report(outcome, args, stream)
            failures += [f"{outcome.job.name}: {outcome.failure}"] if outcome.failure else []
    if failures and len(jobs) > 1:
        print(f"laconic: {len(failures)} of {len(jobs)} failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def each_source(names: list[str], do: Callable[[str, Any], None]) -> int:
    """Do each file, or stdin; a failure is a line that names it, and the rest is done."""
    status = 0
    for name in names:
        try:
            do(name, sys.stdin.buffer if name == "-" else name)
        except BrokenPipeError:
            raise
        except FAILURES as error:
            status = 1
            print(f"laconic: {name}: {reason(error)}", file=sys.stderr)
    return status


def plan(
    inputs: list[str], output: str | None, suffix: str | Callable[[Path | None], str], accepted: set[str]
) -> list[Job]:
    """The jobs, in the order of the inputs. Raises UsageError before anything is written."""
    folder = Path(output) if output and output != "-" and (output.endswith("/") or Path(output).is_dir()) else None
    many = len(inputs) > 1 or any(Path(name).is_dir() for name in inputs if name != "-")
    if many and output and not folder:
        raise UsageError(f"-o: found {output!r}, expected an existing folder, since there are several inputs")
    if folder and "-" in inputs:
        raise UsageError(f"-o: found the folder {output!r}, expected a file or -, since the input is stdin")
    jobs = []
    for source, relative in sources_of(inputs, accepted):
        ending = suffix if isinstance(suffix, str) else suffix(source) if folder or not output else ""
        if output == "-":
            out = None
        elif folder:
            out = (folder / relative).with_suffix(ending)
        elif output:
            out = Path(output)
        else:
            out = source.with_suffix(ending) if source else None
        jobs.append(Job(source, out))
    if not jobs:
        raise UsageError(f"found no {' '.join(sorted(accepted))} file in {' '.join(inputs)}")
    check_files(jobs)
    return jobs


def sources_of(inputs: list[str], accepted: set[str]) -> Iterator[tuple[Path | None, Path]]:
    """(file, its name in an output folder) of each file: a folder is searched and mirrored. None is stdin."""
    for name in inputs:
        root = Path(name)
        if name == "-":
            yield None, root
        elif root.is_dir():
            found = (path for path in root.rglob("*") if path.suffix.lower() in accepted and path.is_file())
            yield from ((path, path.relative_to(root)) for path in sorted(found))
        else:
            yield root, Path(root.name)


def check_files(jobs: list[Job]) -> None:
    """No output is an input, and none is written twice, however the paths are written. Raises UsageError."""
    if sum(job.source is None for job in jobs) > 1:
        raise UsageError("found - more than once, expected it once: stdin ends where the first one ends")
    inputs = {identity(job.source) for job in jobs if job.source}
    seen = set()
    for out in (job.out for job in jobs if job.out):
        if identity(out) in inputs:
            raise UsageError(f"{out} is an input, and inputs are kept: give another -o")
        if identity(out) in seen:
            raise UsageError(f"two inputs would be written to {out}")
        seen.add(identity(out))


def identity(path: Path) -> object:
    """Equal for two paths of one file, be it through links or, where the system does so, letters of another case."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def make(job: Job, work: Work, summary: Summary, force: bool) -> Outcome:
    """Do one job, on any thread. Prints nothing: the lines of two files would mix."""
    notes: list[str] = []
    try:
        if job.out and job.out.is_file() and not force:
            raise FileExistsError(f"{job.out} exists; -f overwrites it")
        start = time.perf_counter()
        with tempfile.SpooledTemporaryFile(SPOOLED) as spooled:
            file = cast(BinaryIO, spooled)
            work(job.source or sys.stdin.buffer, job.out, file, notes)
            seconds = time.perf_counter() - start
            file.seek(0)
            row = summary(file, seconds)
            file.seek(0)
            deliver(file, job)
    except BrokenPipeError:
        raise
    except FAILURES as error:
        return Outcome(job, {}, notes, reason(error))
    return Outcome(job, row, notes)


def deliver(made: BinaryIO, job: Job) -> None:
    """Write the output of a job. An OSError names the output, not the temporary file."""
    try:
        if job.out is None:
            shutil.copyfileobj(made, sys.stdout.buffer, COPIED)
            sys.stdout.buffer.flush()
        elif is_device(job.out):
            with job.out.open("wb") as device:
                shutil.copyfileobj(made, device, COPIED)
        else:
            write_whole(made, Path(os.path.realpath(job.out)), job.source)
    except OSError as error:
        if job.out is None:
            write_no_more(sys.stdout)
        raise OSError(error.errno, error.strerror, str(job.out or "stdout")) from None


def write_whole(made: BinaryIO, out: Path, source: Path | None) -> None:
    """Write to a temporary name, then rename: no part of a file stays. The input's modification time is kept."""
    if not out.parent.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".laconic-{secrets.token_hex(8)}.part")  # short: out may be as long as names can be
    try:
        # Not tempfile: its mode is 0600, and neither umask nor a folder's access list can be asked for without a race.
        with open(part, "xb") as file:
            shutil.copyfileobj(made, file, COPIED)
        if out.exists():
            shutil.copymode(out, part)
        if source and source.is_file():
            stat = source.stat()
            os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(part, out)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def mapped(do: Callable[[T], R], items: list[T], threads: int) -> Iterator[Iterable[R]]:
    """do(item) of each, in order. Where the block is left early, what has not begun never begins."""
    if threads == 1:
        yield map(do, items)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map(do, items)
    finally:
        pool.shutdown(cancel_futures=True)


def progress(items: Iterable[T], total: int, hidden: bool) -> Iterable[T]:
    """A bar on a terminal where there is more than one item."""
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, total=total, unit="file", disable=True if hidden or total < 2 else None, leave=False)
    return bar


@contextmanager
def sample_bar(args: argparse.Namespace) -> Iterator[Callable[[int, int], None]]:
    """What tells of a sound's progress: a bar on a terminal, where no other bar counts files."""
    from tqdm import tqdm

    hidden = True if args.quiet or not args.single else None
    with tqdm(unit="sample", unit_scale=True, disable=hidden, leave=False, delay=1) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def report(outcome: Outcome, args: argparse.Namespace, stream: TextIO) -> None:
    """Notes and failures go to stderr; what was done to `stream`, at once: a pipe may be read while we work."""
    job = outcome.job
    for note in outcome.notes:
        print(f"laconic: {job.name}: note: {note}", file=sys.stderr)
    if outcome.failure:
        print(f"laconic: {job.name}: {outcome.failure}", file=sys.stderr)
    elif not args.quiet:
        row = {"file": job.name, "output": str(job.out or "-"), **outcome.row}
        plain = f"{job.name} -> {job.out or '-'}: " + ", ".join(f"{value} {key}" for key, value in outcome.row.items())
        print(json.dumps(row) if args.json else plain, file=stream, flush=True)


def reason(error: BaseException) -> str:
    """What to print of an error; a MemoryError has no text of its own."""
    return str(error) or type(error).__name__


def is_device(out: Path) -> bool:
    """/dev/null and the like, which are written to and never replaced; a folder fails there, and is named."""
    return out.exists() and not out.is_file()


def format_of(out: Path | None) -> str | None:
    """The format of an output; a pipe or device gets the usual one of the medium, None. Raises UsageError."""
    if out is None or is_device(out):
        return None
    formats = FORMATS | SOUND_FORMATS
    if out.suffix.lower() not in formats:
        raise UsageError(f"-o: found {str(out)!r}, expected a name that ends in one of {', '.join(sorted(formats))}")
    return formats[out.suffix.lower()]


class Parser(argparse.ArgumentParser):
    """Names the closest flag when one is mistyped; a flag is not cut short."""

    given: Any = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        file = next((arg for arg in self.given if arg.startswith("-") and os.path.lexists(arg)), None)
        super().error(f"{message} (the file {file} is written ./{file})" if file else message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses here what it does not know: only the parser of a command knows the flags of that command."""
        self.given = args or ()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = sorted(flag for action in self._actions for flag in action.option_strings)
            close = difflib.get_close_matches(unknown[0].split("=")[0], flags, 1, 0.8)
            hint = f" (did you mean {close[0]}?)" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def build_parser(asked: list[str]) -> argparse.ArgumentParser:
    """The commands and their flags; each flag's help states its default. asked: the command, if any."""
    parser = Parser(
        prog="laconic", description="Learned image and audio compression. Files decode the same on every machine."
    )
    parser.add_argument("--version", action="version", version=f"laconic {laconic.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], text: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=text, description=f"{text[0].upper()}{text[1:]}.{more}")
        sub.set_defaults(run=run)
        return sub

    kept = " EXIF (GPS positions included), ICC, XMP and the tags of sounds are kept unless --strip is given."
    suffixes = f"{' '.join(FORMATS)}; of sounds {' '.join(SOUND_FORMATS)}"
    formats = f" The suffix of OUT is the format ({suffixes}); in folders, on stdout and without -o it is PNG or WAV."
    add_compress_options(command(compress, "compress pictures and sounds to .lac files", kept))
    add_decompress_options(command(decompress, "decompress .lac files to pictures and sounds", formats))
    tell = command(info, "tell what is in files, without decoding them")
    check = command(verify, "check files: every checksum, every length, every symbol")
    listing = command(models, "list the installed models")
    command(selftest, "tell whether this machine decodes the golden files right")
    for name, (module, text) in REPORTING.items():
        lazy = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if asked == [name]:
            import_module(module).add_options(lazy)
        lazy.set_defaults(run=partial(run_lazily, module))
    for sub in (tell, check):
        sub.add_argument("files", nargs="+", type=file_name, metavar="FILE", help="a file; - is stdin")
    for sub in (tell, listing):
        sub.add_argument("--json", action="store_true", help="print one JSON object a line (default: text)")
    return parser


def run_lazily(module: str, args: argparse.Namespace) -> int:
    return int(import_module(module).run(args))


def add_compress_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_mutually_exclusive_group().add_argument
    add("-q", "--quality", type=quality, metavar="Q", help="0 to 100, fractions allowed (default: 60)")
    add("--bpp", type=positive, metavar="X", help="bits per pixel of the file, within 2 %%")
    add("--size", type=n_bytes, metavar="N", help="bytes of the file at most, such as 40k")
    add("--psnr", type=positive, metavar="DB", help="PSNR in dB, reached and exceeded by at most 0.1")
    add("--lossless", action="store_true", help="exact to the bit; what sounds must be")
    add("--max-error", type=sample_error, metavar="K", help="no sample of a picture off by more than K, 0 to 255")
    add = parser.add_argument
    add(
        "-e",
        "--effort",
        type=effort,
        metavar="E",
        help="1 to 9, of --lossless and --max-error: slower, smaller (default: 7)",
    )
    add("--archive", action="store_true", help="one file of a folder of small pictures of one size, with --lossless")
    add("--strip", action="store_true", help="leave out EXIF, ICC, XMP and tags (default: they are kept)")
    add("-m", "--model", help="a name of `laconic models` (default: the photo model of this version)")
    add_file_options(parser, "photo.lac beside photo.png; stdout for -")


def add_decompress_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--region", type=region, metavar="X,Y,W,H", help="only this part, in pixels (default: the whole picture)")
    add("--seek", type=seconds, metavar="S", help="a sound from this second on (default: its beginning)")
    add("--duration", type=positive, metavar="S", help="so many seconds of a sound (default: to its end)")
    add("--member", type=member, metavar="NAME|INDEX", help="this picture of an archive; numbers begin at 0")
    add("--members", action="store_true", help="all pictures of an archive, into the folder OUT")
    add("--partial", action="store_true", help="give what a damaged file still holds (default: damage is an error)")
    add_file_options(parser, "photo.png beside photo.lac; stdout for -")


def add_file_options(parser: argparse.ArgumentParser, beside: str) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", type=file_name, metavar="IN", help="files or folders; - is stdin")
    add("-o", "--output", type=file_name, metavar="OUT", help=f"file, folder, or - for stdout (default: {beside})")
    add("-f", "--force", action="store_true", help="overwrite existing files (default: they are an error)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what the models run on (default: %(default)s)")
    add("--precision", choices=("float32", "bf16"), default="float32", help="of the networks (default: %(default)s)")
    add("--threads", type=n_threads, metavar="N", help="threads of the work on one file (default: one a core)")
    add("-j", "--jobs", type=n_threads, default=1, metavar="N", help="files at a time (default: %(default)s)")
    add("--max-pixels", type=n_pixels, default=1 << 30, metavar="N", help="refuse larger ones (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object a line (default: text)")
    add("--quiet", action="store_true", help="print notes and failures only (default: a line a file)")


def quality(text: str) -> float:
    return parsed(text, float, lambda value: 0 <= value <= 100, "0 to 100")


def positive(text: str) -> float:
    return parsed(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def seconds(text: str) -> float:
    return parsed(text, float, lambda value: 0 <= value < math.inf, "seconds, 0 or more")


def effort(text: str) -> int:
    return parsed(text, int, lambda value: 1 <= value <= 9, "1 to 9")


def sample_error(text: str) -> int:
    return parsed(text, int, lambda value: 0 <= value <= 255, "0 to 255")


def member(text: str) -> str | int:
    return int(text) if text.isdecimal() else file_name(text)


def n_bytes(text: str) -> int:
    """k and M are 1000 and 1000000."""
    factor = {"k": 1000, "K": 1000, "M": 1_000_000}.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    return parsed(text, lambda _: round(float(digits) * factor), lambda value: value > 0, "bytes such as 40000 or 40k")


def n_threads(text: str) -> int:
    return parsed(text, int, lambda value: 0 < value <= MAX_THREADS, f"1 to {MAX_THREADS}")


def n_pixels(text: str) -> int:
    return parsed(text, int, lambda value: value > 0, "at least 1")


def file_name(text: str) -> str:
    """Not empty: an unset variable of a shell would stand for the current folder."""
    return parsed(text, str, lambda value: value != "", "a name")


def region(text: str) -> tuple[int, ...]:
    def fits(value: tuple[int, ...]) -> bool:
        return len(value) == 4 and min(value[:2]) >= 0 and min(value[2:]) > 0

    return parsed(text, lambda _: tuple(int(part) for part in text.split(",")), fits, "X,Y,W,H in pixels")


def parsed(text: str, convert: Callable[[str], T], fits: Callable[[T], bool], expected: str) -> T:
    """An argument converted, where it fits; else the error that argparse prints after the flag's name."""
    with suppress(ValueError, OverflowError):  # OverflowError: round(inf)
        value = convert(text)
        if fits(value):
            return value
    raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")


if __name__ == "__main__":
    sys.exit(main())
