"""The command line: `laconic compress photo.png`. Uses only what a user of the library could.

`main` parses (parser.py, arguments.py) and runs one of the commands below; those that make files do so through jobs.py.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import laconic
from laconic.suffixes import CODED as CODED_SUFFIX
from laconic.tools import completion, parser
from laconic.tools.archives import compress_archive, decompress_members
from laconic.tools.folders import CODED, PICTURE, SOUND
from laconic.tools.jobs import each_file, is_device, sample_bar, size_and_time
from laconic.tools.process import (
    FAILURES,
    INTERRUPTED,
    UsageError,
    check_streams,
    complain,
    one_interrupt_waits,
    reason,
    replace_closed,
    say,
    warned,
    warnings_kept,
    write_no_more,
)


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    closed = replace_closed()
    args = build_parser(argv[:1]).parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are not always text; stderr does so too
    try:
        check_streams(args, closed)
        with one_interrupt_waits(), warnings_kept():
            status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # nobody reads on, as in `laconic info *.lac | head`: the end, but no failure of a file
        write_no_more(sys.stdout, sys.stderr)
        return 1
    except UsageError as error:
        complain(str(error))
        return 2
    except FAILURES as error:
        complain(reason(error))
        try:
            sys.stdout.flush()
        except OSError:  # perhaps what failed just now
            write_no_more(sys.stdout)
        return 1


def build_parser(asked: list[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands. asked: the command, if any."""
    runs = (compress, decompress, info, verify, models, selftest)
    return parser.build_parser({run.__name__: run for run in runs} | {"completion": complete}, asked)


def compress(args: argparse.Namespace) -> int:
    """Compress pictures and sounds to .lac files. Returns the exit status."""
    if args.archive:
        return compress_archive(args)
    codec = laconic.Codec(args.model, args.device, args.precision, args.threads, args.max_pixels)
    targets = ("quality", "bpp", "bitrate", "size", "psnr", "ssimulacra2", "lossless", "max_error")
    options = {name: getattr(args, name) for name in (*targets, "effort", "tune", "progressive", "strip", "fallback")}

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        with sample_bar(args) as bar:
            codec.compress_to(file, source, **options, notes=notes, progress=bar)

    return each_file(args, lambda source: CODED_SUFFIX, taken(args), work, rates)


def taken(args: argparse.Namespace) -> frozenset[str]:
    """Return the kinds of files that the target is for: of a folder, no others are coded."""
    if args.progressive or any(getattr(args, name) is not None for name in ("bpp", "psnr", "ssimulacra2", "max_error", "tune")):
        return frozenset({PICTURE})
    return frozenset({SOUND} if args.bitrate is not None else {PICTURE, SOUND})


def rates(file: BinaryIO, seconds: float) -> dict[str, Any]:
    """Return what to report of a file that was compressed in so many seconds: its size, its rates, the speed."""
    found = asdict(laconic.info(file))
    row: dict[str, Any] = {"bytes": found["n_bytes"]}
    row |= {key: round(found[key], 4) for key in ("bpp", "bpsp", "kbit_per_s", "quality") if key in found}
    row["seconds"] = round(seconds, 3)
    if "width" in found:
        row["megapixels_per_s"] = round(found["width"] * found["height"] / 1e6 / seconds, 2)
    else:
        row["times_real_time"] = round(found["seconds"] / seconds, 1)
    return row


def decompress(args: argparse.Namespace) -> int:
    """Decompress .lac files to pictures and sounds. Returns the exit status."""
    if args.members:
        return decompress_members(args)
    codec = laconic.Codec(None, args.device, args.precision, args.threads, args.max_pixels)  # each file names its model
    options = {name: getattr(args, name) for name in ("region", "seek", "duration", "member", "slices", "preview", "partial")}

    def work(source: Any, out: Path | None, file: BinaryIO, notes: list[str]) -> None:
        format = format_of(out)
        with sample_bar(args) as bar:
            codec.decompress_to(file, source, format=format, **options, notes=notes, progress=bar)

    if args.output not in (None, "-") and not (args.output.endswith("/") or os.path.isdir(args.output)):
        format_of(Path(args.output))
    return each_file(args, suffix_of, frozenset({CODED}), work, size_and_time)


def suffix_of(source: Path | None) -> str:
    """Return the suffix of what a .lac file decompresses to; a file that cannot be read is named when its turn comes."""
    from laconic import media  # it loads NumPy

    with suppress(Exception):
        return next(iter(media.named(laconic.info(source).medium).outputs)) if source else ".png"
    return ".png"


def format_of(out: Path | None) -> str | None:
    """Return the format of an output; None, the usual one of the medium, for a pipe or device. Raises UsageError."""
    if out is None or is_device(out):
        return None
    from laconic import media

    formats = {suffix: format for medium in media.installed() for suffix, format in medium.outputs.items()}
    if out.suffix.lower() not in formats:
        raise UsageError(f"-o: found {str(out)!r}, expected a name that ends in one of {', '.join(sorted(formats))}")
    return formats[out.suffix.lower()]


def info(args: argparse.Namespace) -> int:
    """Print what is in each file, without decoding it. Returns the exit status."""

    def show(name: str, source: Any) -> None:
        found = asdict(laconic.info(source))
        if args.json:
            print(json.dumps({"file": name, **found}))
        else:
            rows = [(key, shown(value)) for key, value in found.items() if value != ""]
            width = max(len(key) for key, _ in rows)
            say(name, *(f"  {key:{width}} {text}" for key, text in rows))

    return each_source(args.files, show)


def shown(value: Any) -> str:
    """Return a field of `laconic.info` as text; of chunks, how many there are of each kind and their bytes."""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if not isinstance(value, tuple):
        return str(value)
    kinds = dict.fromkeys(kind for kind, _ in value)
    sizes = {kind: [n for other, n in value if other == kind] for kind in kinds}
    return ", ".join(f"{len(found)} {kind} of {sum(found)} bytes" for kind, found in sizes.items()) or "none"


def verify(args: argparse.Namespace) -> int:
    """Check files, and print a line for each. Returns the exit status."""

    def check(name: str, source: Any) -> None:
        laconic.verify(source)
        say(f"{name}: ok")

    return each_source(args.files, check)


def each_source(names: list[str], do: Callable[[str, Any], None]) -> int:
    """Do each file, or stdin; a failure is a line that names it, and the rest is done. Returns the exit status."""
    status = 0
    for name in names:
        try:
            do(name, sys.stdin.buffer if name == "-" else name)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one file brings about, the others are done
            status = 1
            complain(f"{name}: {reason(error)}")
        for text in warned():
            complain(f"{name}: note: {text}")
    return status


def models(args: argparse.Namespace) -> int:
    """List the installed models. Returns 0."""
    for model in laconic.list_models():
        plain = f"{model.name}  {model.digest[:8]}  {model.path}"
        say(json.dumps(asdict(model)) if args.json else plain)
    return 0


def selftest(args: argparse.Namespace) -> int:
    """Tell whether this machine decodes the golden files right. Returns 0 if so, else 1."""
    checks = laconic.selftest()
    for check in checks:
        say(f"{check.name}: {'ok' if check.ok else 'FAILED'} ({check.detail})")
    return 0 if checks and all(check.ok for check in checks) else 1


def complete(args: argparse.Namespace) -> int:
    """Print what completes our commands and flags in a shell. Returns 0."""
    print(completion.script(build_parser(["completion"]), args.shell), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
