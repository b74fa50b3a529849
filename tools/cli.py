"""The command line: `laconic compress photo.png`. Uses only what a user of the library could."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import laconic

SUFFIX = ".lac"
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".bmp": "BMP"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
INPUTS = {*FORMATS, ".gif", ".pgm", ".pnm", ".jp2"}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    args = build_parser().parse_args(argv)
    warnings.filterwarnings("always", category=laconic.LaconicWarning) if args.command in FILE_COMMANDS else None
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("laconic: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        print(f"laconic: {error}", file=sys.stderr)
        return 2
    except (laconic.LaconicError, OSError) as error:
        print(f"laconic: {error}", file=sys.stderr)
        return 1


class UsageError(Exception):
    """The command line asks for something that makes no sense."""


def compress(args: argparse.Namespace) -> int:
    """Pictures to .lac files."""
    codec = make_codec(args)
    targets = {k: getattr(args, k) for k in ("quality", "bpp", "size", "psnr")}

    def work(source: Any) -> bytes:
        return codec.compress(source, **targets, strip=args.strip)

    def summary(source: Path | None, data: bytes, seconds: float) -> dict[str, Any]:
        found = laconic.info(data)
        if source and len(data) > source.stat().st_size:
            note(source, f"the output is larger than the input ({len(data)} > {source.stat().st_size} bytes)")
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
    codec = make_codec(args)
    region = parse_region(args.region) if args.region else None

    def work(source: Any, suffix: str = ".png") -> bytes:
        import io

        from laconic import picture

        if suffix not in FORMATS:
            raise laconic.BadInput(f"output suffix: found {suffix!r}, expected one of {', '.join(sorted(FORMATS))}")
        out = io.BytesIO()
        picture.save(codec.decompress(source, region=region, partial=args.partial), out, FORMATS[suffix])
        return out.getvalue()

    def summary(source: Path | None, data: bytes, seconds: float) -> dict[str, Any]:
        return {"bytes": len(data), "seconds": round(seconds, 3)}

    return each_file(args, ".png", {SUFFIX}, work, summary)


def info(args: argparse.Namespace) -> int:
    """What is in a file, without decoding it."""
    for name in args.files:
        found = asdict(laconic.info(sys.stdin.buffer if name == "-" else name))
        if args.json:
            print(json.dumps({"file": name, **found}))
        else:
            print(name)
            for key, value in found.items():
                print(f"  {key:8} {value}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check files; a line for each."""
    failed = 0
    for name in args.files:
        try:
            laconic.verify(sys.stdin.buffer if name == "-" else name)
            print(f"{name}: ok")
        except (laconic.LaconicError, OSError) as error:
            failed = 1
            print(f"laconic: {name}: {error}", file=sys.stderr)
    return failed


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


FILE_COMMANDS = ("compress", "decompress")


def each_file(
    args: argparse.Namespace,
    suffix: str,
    accepted: set[str],
    work: Callable[..., bytes],
    summary: Callable[[Path | None, bytes, float], dict[str, Any]],
) -> int:
    """Plan all outputs, then do the work file by file; failures are listed and the rest is done."""
    jobs = plan(args.inputs, args.output, suffix, accepted)
    report = sys.stderr if any(out is None for _, out in jobs) else sys.stdout
    failures: list[str] = []

    def one(job: tuple[Path | None, Path | None]) -> None:
        source, out = job
        name = str(source or "-")
        try:
            if out and out.is_file() and not args.force:
                raise FileExistsError(f"{out} exists; -f overwrites it")
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                extra = {"suffix": out.suffix.lower()} if out and suffix != SUFFIX else {}
                data = work(source or sys.stdin.buffer, **extra)
            for warning in caught:
                note(source, str(warning.message))
            row = summary(source, data, time.perf_counter() - start)
            deliver(data, source, out)
            if not args.quiet:
                text = json.dumps({"file": name, "output": str(out or "-"), **row})
                plain = ", ".join(f"{value} {key}" for key, value in row.items())
                print(text if args.json else f"{name} -> {out or '-'}: {plain}", file=report)
        except (laconic.LaconicError, OSError, MemoryError) as error:
            failures.append(f"{name}: {error}")
            print(f"laconic: {name}: {error}", file=sys.stderr)

    if args.jobs > 1 and len(jobs) > 1:
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(one, jobs))
    else:
        for job in progress(jobs, args.quiet):
            one(job)
    if failures and len(jobs) > 1:
        print(f"laconic: {len(failures)} of {len(jobs)} failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def plan(inputs: list[str], output: str | None, suffix: str, accepted: set[str]) -> list[tuple[Path | None, Path | None]]:
    """(input, output) of each file, None being a pipe. Raises UsageError before anything is written."""
    into_folder = output is not None and output != "-" and (Path(output).is_dir() or output.endswith("/"))
    many = len(inputs) > 1 or any(Path(name).is_dir() for name in inputs if name != "-")
    if many and output is not None and not into_folder:
        raise UsageError(f"-o: found {output!r}, expected an existing folder, since there are several inputs")
    jobs: list[tuple[Path | None, Path | None]] = []
    for name in inputs:
        if name == "-":
            to_file = output is not None and output != "-"
            jobs.append((None, Path(str(output)) if to_file else None))
            continue
        root = Path(name)
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in accepted) if root.is_dir() else [root]
        for file in files:
            relative = file.relative_to(root) if root.is_dir() else Path(file.name)
            if output == "-":
                out = None
            elif into_folder:
                out = (Path(str(output)) / relative).with_suffix(suffix)
            else:
                out = Path(output) if output else file.with_suffix(suffix)
            jobs.append((file, out))
    outs = [out for _, out in jobs if out]
    twice = next((out for out in outs if outs.count(out) > 1), None)
    if twice:
        raise UsageError(f"two inputs would be written to {twice}")
    if not jobs:
        raise UsageError(f"found no {' '.join(sorted(accepted))} file in {' '.join(inputs)}")
    return jobs


def deliver(data: bytes, source: Path | None, out: Path | None) -> None:
    """Write to a temporary name, then rename; the input's modification time is kept."""
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if out.exists() and not out.is_file():  # /dev/null and the like
        out.write_bytes(data)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        if source:
            stat = source.stat()
            os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(part, out)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def note(source: Path | None, text: str) -> None:
    print(f"laconic: {source or '-'}: note: {text}", file=sys.stderr)


def progress(jobs: list[Any], quiet: bool) -> Iterator[Any]:
    """A bar on a terminal where there is more than one file."""
    from tqdm import tqdm

    return iter(tqdm(jobs, unit="file", disable=True if quiet or len(jobs) < 2 else None, leave=False))


def make_codec(args: argparse.Namespace) -> laconic.Codec:
    return laconic.Codec(args.model, args.device, args.precision, args.threads, args.max_pixels)


def parse_region(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--region: found {text!r}, expected X,Y,W,H in pixels")
    x, y, width, height = (int(part) for part in parts)
    return x, y, width, height


def parse_size(text: str) -> int:
    """Bytes; k and M are 1000 and 1000000."""
    factor = {"k": 1000, "K": 1000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        value = round(float(text[:-1] if factor > 1 else text) * factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected bytes such as 40000 or 40k") from None
    return value


class Parser(argparse.ArgumentParser):
    """Names the closest flag when one is mistyped."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        if "unrecognized arguments" in message:
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    flags += [f for p in action.choices.values() for a in p._actions for f in a.option_strings]
            wrong = message.split(": ", 1)[1].split()[0].split("=")[0]
            close = difflib.get_close_matches(wrong, sorted(set(flags)), 1)
            message += f" (did you mean {close[0]}?)" if close else ""
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="laconic", description="Learned image compression. Files decode the same on every machine.")
    parser.add_argument("--version", action="version", version=f"laconic {laconic.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    c = command("compress", compress, "compress pictures to .lac files")
    rate = c.add_mutually_exclusive_group()
    rate.add_argument("-q", "--quality", type=float, metavar="Q", help="0 to 100, fractions allowed (default 60)")
    rate.add_argument("--bpp", type=float, metavar="X", help="bits per pixel of the file, within 2 %%")
    rate.add_argument("--size", type=parse_size, metavar="N", help="bytes of the file at most, such as 40k")
    rate.add_argument("--psnr", type=float, metavar="DB", help="PSNR in dB, reached and exceeded by at most 0.1")
    c.add_argument("--strip", action="store_true", help="leave out ICC, EXIF and XMP")
    add_file_options(c)
    d = command("decompress", decompress, "decompress .lac files to pictures")
    d.add_argument("--region", metavar="X,Y,W,H", help="only this part; only the tiles it needs are decoded")
    d.add_argument("--partial", action="store_true", help="give what a damaged file still holds")
    add_file_options(d)
    for name, run, text in (("info", info, "what is in a file"), ("verify", verify, "check files")):
        sub = command(name, run, text)
        sub.add_argument("files", nargs="+", metavar="FILE")
        if name == "info":
            sub.add_argument("--json", action="store_true", help="one JSON object a line")
    m = command("models", models, "list the installed models")
    m.add_argument("--json", action="store_true", help="one JSON object a line")
    command("selftest", selftest, "does this machine decode the golden files right?")
    return parser


def add_file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help="files or folders; - is stdin")
    parser.add_argument("-o", "--output", metavar="OUT", help="a file, a folder, or - for stdout (default: beside IN)")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    parser.add_argument("-m", "--model", help="a name of `laconic models`")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the networks and the entropy coder")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="files at a time")
    parser.add_argument("--max-pixels", type=int, default=1 << 30, metavar="N", help="refuse larger pictures")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quiet", action="store_true", help="print failures only")


if __name__ == "__main__":
    sys.exit(main())
