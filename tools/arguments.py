"""The flags of commands that code, their help, and the values that they take; the commands are in parser.py."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from laconic.dataset.engines import ENGINES
from laconic.payloads import DEFAULT_MAX_PIXELS

MAX_THREADS = 1024  # far above any use; OpenMP dies, with no error to catch, where it cannot start a thread
TUNES = ("eye", "psnr", "ms-ssim")  # this and the next are those of options.py, whose import takes NumPy's time
PRECISIONS = ("auto", "float32", "bf16")

T = TypeVar("T")


def add_compress_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic compress`."""
    add_coding_options(parser)
    archive = "one file of a folder of small pictures of one size, with --lossless"
    parser.add_argument("--archive", action="store_true", help=archive)
    add_file_options(parser, "photo.lac beside photo.png; stdout for -")


def add_coding_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how files are coded: the target, and the options beside it."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("-q", "--quality", type=quality, metavar="Q", help="0 to 100, fractions allowed (default: 60 of pictures)")
    add("--bpp", type=positive, metavar="X", help="bits per pixel of a picture's file, within 2 %%")
    add("-b", "--bitrate", type=positive, metavar="X", help="kbit/s of a sound's file, within 2 %%")
    add("--size", type=n_bytes, metavar="N", help="bytes of the file at most, such as 40k")
    add("--psnr", type=positive, metavar="DB", help="PSNR of a picture in dB, reached and exceeded by at most 0.1")
    add("--ssimulacra2", type=score, metavar="S", help="SSIMULACRA2 of a picture, exceeded by at most 0.5; needs that package")
    add("--lossless", action="store_true", help="exact to the bit (default of sounds)")
    add("--max-error", type=sample_error, metavar="K", help="no sample of a picture off by more than K, 0 to 255")
    add = parser.add_argument
    add(
        "-e",
        "--effort",
        type=effort,
        metavar="E",
        help="1 to 9: slower, smaller or better (default: 7; with loss: 4 of photos, 3 of sounds)",
    )
    tune = "what a photo with loss is searched for: how it looks, PSNR or MS-SSIM (default: eye)"
    add("--tune", choices=TUNES, help=tune)
    progressive = "slices of a photo, which shows in full from its first bytes on, at about 1 %% more (see --preview)"
    add("--progressive", action="store_true", help=f"{progressive} (default: tiles one after the other)")
    no_fallback = "keep the photo model for what is no photo (default: what is smaller or far better is coded without loss)"
    add("--no-fallback", dest="fallback", action="store_false", help=no_fallback)
    add("--strip", action="store_true", help="leave out EXIF, ICC, XMP and tags (default: they are kept)")
    model = "a name of `laconic models`, compressai:ARCHITECTURE:QUALITY, or a checkpoint of CompressAI (default: ours)"
    add("-m", "--model", help=model)


def add_decompress_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `laconic decompress`."""
    add = parser.add_argument
    add("--region", type=region, metavar="X,Y,W,H", help="only this part, in pixels (default: the whole picture)")
    add("--seek", type=seconds, metavar="S", help="a sound from this second on (default: its beginning)")
    add("--duration", type=positive, metavar="S", help="so many seconds of a sound (default: to its end)")
    add("--member", type=member, metavar="NAME|INDEX", help="this picture of an archive; numbers begin at 0")
    add("--members", action="store_true", help="all pictures of an archive, into the folder OUT")
    add("--slices", type=n_slices, metavar="N", help="only the first N slices of a progressive photo (default: all)")
    add("--preview", action="store_true", help="of a photo that is cut off at its end, what is there (default: an error)")
    add("--partial", action="store_true", help="give what a damaged file still holds (default: damage is an error)")
    add_file_options(parser, "photo.png beside photo.lac; stdout for -")


def add_file_options(parser: argparse.ArgumentParser, beside: str) -> None:
    """Add the flags that both commands have. beside: what is made where -o is not given."""
    add = parser.add_argument
    add("inputs", nargs="+", type=file_name, metavar="IN", help="files or folders; - is stdin")
    add("-o", "--output", type=file_name, metavar="OUT", help=f"file, folder, or - for stdout (default: {beside})")
    add("-f", "--force", action="store_true", help="overwrite existing files (default: they are an error)")
    add("--precision", choices=PRECISIONS, default="auto", help="of the networks (default: %(default)s, the faster one here)")
    add("--threads", type=n_threads, metavar="N", help="threads of the work on one file (default: one per core)")
    add("-j", "--jobs", type=n_threads, default=1, metavar="N", help="files at a time (default: %(default)s)")
    add_common_options(parser)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all commands that code: on what, how large, and what is printed."""
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what the models run on (default: %(default)s)")
    add("--max-pixels", type=n_pixels, default=DEFAULT_MAX_PIXELS, metavar="N", help="refuse larger ones (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object per line (default: text)")
    add("--quiet", action="store_true", help="print notes and failures only (default: one line each)")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say who does the work."""
    add = parser.add_argument
    add("--engine", choices=tuple(ENGINES), default="local", help="who does the work: processes of this machine, or actors "
        "of Ray on a cluster (extra: ray; default: %(default)s)")  # fmt: skip
    add("--address", metavar="A", help="of the Ray cluster; auto: the one that this machine is part of (default: "
        "RAY_ADDRESS, or auto, or else a new one on this machine alone)")  # fmt: skip
    share = "of a GPU that each actor gets, such as 0.25 (default: 1 with --device cuda, else 0)"
    add("--gpus", type=positive, metavar="X", help=share)


def quality(text: str) -> float:
    """Return a quality, 0 to 100."""
    return parsed(text, float, lambda value: 0 <= value <= 100, "0 to 100")


def positive(text: str) -> float:
    """Return a finite number above 0."""
    return parsed(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def score(text: str) -> float:
    """Return a SSIMULACRA2 score, at most 100."""
    return parsed(text, float, lambda value: -math.inf < value <= 100, "a score, at most 100")


def seconds(text: str) -> float:
    """Return seconds, 0 or more."""
    return parsed(text, float, lambda value: 0 <= value < math.inf, "seconds, 0 or more")


def effort(text: str) -> int:
    """Return an effort, 1 to 9."""
    return parsed(text, int, lambda value: 1 <= value <= 9, "1 to 9")


def sample_error(text: str) -> int:
    """Return the largest error of a sample, 0 to 255."""
    return parsed(text, int, lambda value: 0 <= value <= 255, "0 to 255")


def member(text: str) -> str | int:
    """Return the number of a picture in an archive, or its name."""
    return int(text) if text.isdecimal() else file_name(text)


def n_bytes(text: str) -> int:
    """Return a number of bytes; k and M are 1000 and 1000000."""
    factor = {"k": 1000, "K": 1000, "M": 1_000_000}.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    return parsed(text, lambda _: round(float(digits) * factor), lambda value: value > 0, "bytes such as 40000 or 40k")


def n_threads(text: str) -> int:
    """Return a number of threads."""
    return parsed(text, int, lambda value: 0 < value <= MAX_THREADS, f"1 to {MAX_THREADS}")


def n_pixels(text: str) -> int:
    """Return a number of pixels."""
    return parsed(text, int, lambda value: value > 0, "at least 1")


def n_slices(text: str) -> int:
    """Return a number of slices."""
    return parsed(text, int, lambda value: value > 0, "at least 1")


def file_name(text: str) -> str:
    """Return a name that is not empty: an unset variable of a shell would stand for the current folder."""
    return parsed(text, str, lambda value: value != "", "a name")


def region(text: str) -> tuple[int, ...]:
    """Return x, y, width and height in pixels."""
    def fits(value: tuple[int, ...]) -> bool:
        return len(value) == 4 and min(value[:2]) >= 0 and min(value[2:]) > 0

    return parsed(text, lambda _: tuple(int(part) for part in text.split(",")), fits, "X,Y,W,H in pixels")


def parsed(text: str, convert: Callable[[str], T], fits: Callable[[T], bool], expected: str) -> T:
    """Return an argument converted, where it fits; else raise what argparse prints after the flag's name."""
    with suppress(ValueError, OverflowError):  # OverflowError: round(inf)
        value = convert(text)
        if fits(value):
            return value
    raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")


