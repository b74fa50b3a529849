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
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, TypeVar

import laconic

SUFFIX = ".lac"
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".bmp": "BMP"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
INPUTS = {*FORMATS, ".gif", ".pgm", ".pnm", ".jp2"}
FAILURES = (laconic.LaconicError, OSError, MemoryError)  # of one file: the others are still done
MAX_THREADS = 1024  # far above any use; OpenMP dies, with no error to catch, where it cannot start a thread

REPORTING = {  # commands of modules that are imported when the command is used
    "eval": ("laconic.tools.evaluate", "run codecs over a folder, with every figure kept"),
    "plot": ("laconic.tools.plot", "rate-distortion and speed figures, and a table, from results of eval"),
    "report": ("laconic.tools.report", "one HTML page from results of eval"),
}

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Any, Path | None, list[str]], bytes]
Summary = Callable[[bytes, float], dict[str, Any]]


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(argv[:1]).parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are not always text; stderr does so too
    try:
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("laconic: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as in `laconic info *.lac | head`: the end, but no failure of a file
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # has no descriptor, where a caller replaced it
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1
    except UsageError as error:
        print(f"laconic: {error}", file=sys.stderr)
        return 2
    except FAILURES as error:
        print(f"laconic: {reason(error)}", file=sys.stderr)
        return 1


class UsageError(Exception):
    """The command line asks for something that makes no sense."""


def compress(args: argparse.Namespace) -> int:
    """Pictures to .lac files."""
    codec = laconic.Codec(args.model, args.device, args.precision, args.threads, args.max_pixels)
    targets = {k: getattr(args, k) for k in ("quality", "bpp", "size", "psnr")}

    def work(source: Any, out: Path | None, notes: list[str]) -> bytes:
        return codec.compress(source, **targets, strip=args.strip, notes=notes)

    def summary(data: bytes, seconds: float) -> dict[str, Any]:
        found = laconic.info(data)
        megapixels = found.width * found.height / 1e6
        return {
            "bytes": len(data),
            "bpp": round(found.bpp, 4),
            "quality": found.quality,
            "seconds": round(seconds, 3),
            "megapixels_per_s": round(megapixels / seconds, 2),
        }

    return each_file(args, SUFFIX, INPUTS, work, summary)


def decompress(args: argparse.Namespace) -> int:
    """.lac files to pictures."""
    codec = laconic.Codec(None, args.device, args.precision, args.threads, args.max_pixels)  # each file names its model

    def work(source: Any, out: Path | None, notes: list[str]) -> bytes:
        from laconic import picture

        format = format_of(out)
        image = codec.decompress(source, region=args.region, partial=args.partial, notes=notes)
        file = io.BytesIO()
        notes.extend(picture.save(image, file, format))
        return file.getvalue()

    def summary(data: bytes, seconds: float) -> dict[str, Any]:
        return {"bytes": len(data), "seconds": round(seconds, 3)}

    return each_file(args, ".png", {SUFFIX}, work, summary)


def info(args: argparse.Namespace) -> int:
    """What is in each file, without decoding it."""

    def show(name: str, source: Any) -> None:
        found = asdict(laconic.info(source))
        if args.json:
            print(json.dumps({"file": name, **found}))
        else:
            print(name, *(f"  {key:8} {value}" for key, value in found.items()), sep="\n")

    return each_source(args.files, show)


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


def each_file(args: argparse.Namespace, suffix: str, accepted: set[str], work: Work, summary: Summary) -> int:
    """Plan all outputs, then do the work file by file; failures are listed and the rest is done.

    work: (source, out, notes to add to) -> the bytes of the output. summary: (these bytes, seconds) -> what to report.
    """
    jobs = plan(args.inputs, args.output, suffix, accepted)
    stream = sys.stderr if any(job.out is None for job in jobs) else sys.stdout
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


def plan(inputs: list[str], output: str | None, suffix: str, accepted: set[str]) -> list[Job]:
    """The jobs, in the order of the inputs. Raises UsageError before anything is written."""
    folder = Path(output) if output and output != "-" and (output.endswith("/") or Path(output).is_dir()) else None
    many = len(inputs) > 1 or any(Path(name).is_dir() for name in inputs if name != "-")
    if many and output and not folder:
        raise UsageError(f"-o: found {output!r}, expected an existing folder, since there are several inputs")
    if folder and "-" in inputs:
        raise UsageError(f"-o: found the folder {output!r}, expected a file or -, since the input is stdin")
    jobs = []
    for source, relative in sources_of(inputs, accepted):
        if output == "-":
            out = None
        elif folder:
            out = (folder / relative).with_suffix(suffix)
        elif output:
            out = Path(output)
        else:
            out = source.with_suffix(suffix) if source else None
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
        data = work(job.source or sys.stdin.buffer, job.out, notes)
        row = summary(data, time.perf_counter() - start)
        deliver(data, job)
    except BrokenPipeError:
        raise
    except FAILURES as error:
        return Outcome(job, {}, notes, reason(error))
    return Outcome(job, row, notes)


def deliver(data: bytes, job: Job) -> None:
    """Write the output of a job. An OSError names the output, not the temporary file."""
    if job.out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        if is_device(job.out):
            job.out.write_bytes(data)
        else:
            write_whole(data, Path(os.path.realpath(job.out)), job.source)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(job.out)) from None


def write_whole(data: bytes, out: Path, source: Path | None) -> None:
    """Write to a temporary name, then rename: no part of a file stays. The input's modification time is kept."""
    if not out.parent.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".laconic-{secrets.token_hex(8)}.part")  # short: out may be as long as names can be
    try:
        # Not tempfile: its mode is 0600, and neither umask nor a folder's access list can be asked for without a race.
        with open(part, "xb") as file:
            file.write(data)
        if out.exists():
            shutil.copymode(out, part)
        if source:
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
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # threads cannot be stopped, but the process can
        print("laconic: waiting for the files in work; interrupt again to end at once", file=sys.stderr)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def progress(items: Iterable[T], total: int, hidden: bool) -> Iterable[T]:
    """A bar on a terminal where there is more than one item."""
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, total=total, unit="file", disable=True if hidden or total < 2 else None, leave=False)
    return bar


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


def format_of(out: Path | None) -> str:
    """Pillow's name of a picture's format; a pipe or device gets a PNG. Raises UsageError."""
    suffix = ".png" if out is None or is_device(out) else out.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"-o: found {str(out)!r}, expected a name that ends in one of {', '.join(sorted(FORMATS))}")
    return FORMATS[suffix]


class Parser(argparse.ArgumentParser):
    """Names the closest flag when one is mistyped."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses here what it does not know: only the parser of a command knows the flags of that command."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = sorted(flag for action in self._actions for flag in action.option_strings)
            close = difflib.get_close_matches(unknown[0].split("=")[0], flags, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def build_parser(asked: list[str]) -> argparse.ArgumentParser:
    """The commands and their flags; each flag's help states its default. asked: the command, if any."""
    parser = Parser(prog="laconic", description="Learned image compression. Files decode the same on every machine.")
    parser.add_argument("--version", action="version", version=f"laconic {laconic.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], text: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=text, description=f"{text[0].upper()}{text[1:]}.{more}")
        sub.set_defaults(run=run)
        return sub

    kept = " EXIF (GPS positions included), ICC and XMP are kept unless --strip is given."
    formats = f" The suffix of OUT is the format ({' '.join(FORMATS)}); in folders, on stdout and without -o it is PNG."
    add_compress_options(command(compress, "compress pictures to .lac files", kept))
    add_decompress_options(command(decompress, "decompress .lac files to pictures", formats))
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
    add = parser.add_argument
    add("--strip", action="store_true", help="leave out EXIF, ICC and XMP (default: they are kept)")
    add("-m", "--model", help="a name of `laconic models` (default: the photo model of this version)")
    add_file_options(parser, "photo.lac beside photo.png; stdout for -")


def add_decompress_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--region", type=region, metavar="X,Y,W,H", help="only this part, in pixels (default: the whole picture)")
    add("--partial", action="store_true", help="give what a damaged file still holds (default: damage is an error)")
    add_file_options(parser, "photo.png beside photo.lac; stdout for -")


def add_file_options(parser: argparse.ArgumentParser, beside: str) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", type=file_name, metavar="IN", help="files or folders; - is stdin")
    add("-o", "--output", type=file_name, metavar="OUT", help=f"file, folder, or - for stdout (default: {beside})")
    add("-f", "--force", action="store_true", help="overwrite existing files (default: they are an error)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what the networks run on (default: %(default)s)")
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
