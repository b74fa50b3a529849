"""The parser of the command line: its commands, and what they are for."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import laconic
from laconic.suffixes import PICTURES, SOUNDS
from laconic.tools import arguments
from laconic.tools.process import printable

REPORTING = {  # commands of modules that are imported when the command is used
    "pack": ("laconic.tools.pack", "code a whole data set into tars that webdataset reads"),
    "eval": ("laconic.tools.evaluate", "run codecs over a folder, with every figure kept"),
    "plot": ("laconic.tools.plot", "rate-distortion and speed figures, and a table, from results of eval"),
    "report": ("laconic.tools.report", "one HTML page from results of eval"),
    "iscs": ("laconic.tools.iscs", "order and group the channels of a model's latent by importance"),
}
KEPT = " EXIF (GPS positions included), ICC, XMP and the tags of sounds are kept unless --strip is given."
FORMATS = {suffix: format for suffix, format in (PICTURES | SOUNDS).items() if format}  # the suffixes that can be written
WRITTEN = (
    f" The suffix of OUT is the format ({' '.join(s for s in FORMATS if s in PICTURES)}; of sounds "
    f"{' '.join(s for s in FORMATS if s in SOUNDS)}); in folders, on stdout and without -o it is PNG or WAV."
)
COMPLETION = (
    ' For the shell you use: in ~/.bashrc or, below compinit, in ~/.zshrc: eval "$(laconic completion bash)" or zsh; '
    "in ~/.config/fish/config.fish: laconic completion fish | source"
)
SHELLS = ("bash", "zsh", "fish")

Run = Callable[[argparse.Namespace], int]


def build_parser(runs: Mapping[str, Run], asked: list[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands. Each flag's help states its default.

    runs: what each command does. asked: the command, if any; the flags of a command in another module are there only
    where it is asked for, or its completion.
    """
    parser = Parser(
        prog="laconic", description="Learned image and audio compression. Files decode the same on every machine."
    )
    parser.add_argument("--version", action="version", version=f"laconic {laconic.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}")
        sub.set_defaults(run=runs.get(name))
        return sub

    arguments.add_compress_options(command("compress", "compress pictures and sounds to .lac files", KEPT))
    arguments.add_decompress_options(command("decompress", "decompress .lac files to pictures and sounds", WRITTEN))
    tell = command("info", "tell what is in files, without decoding them")
    check = command("verify", "check files: every checksum, every length, every symbol")
    listing = command("models", "list the installed models")
    command("selftest", "tell whether this machine decodes the golden files right")
    shells = command("completion", "print what completes commands and flags on TAB in a shell", COMPLETION)
    shells.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    for name, (module, text) in REPORTING.items():
        lazy = command(name, text)
        if asked in ([name], ["completion"]):
            import_module(module).add_options(lazy)
        lazy.set_defaults(run=partial(run_lazily, module))
    for sub in (tell, check):
        sub.add_argument("files", nargs="+", type=arguments.file_name, metavar="FILE", help="a file; - is stdin")
    for sub in (tell, listing):
        sub.add_argument("--json", action="store_true", help="print one JSON object per line (default: text)")
    return parser


def run_lazily(module: str, args: argparse.Namespace) -> int:
    """Run a command of `REPORTING`. Returns its exit status."""
    return int(import_module(module).run(args))


class Parser(argparse.ArgumentParser):
    """Names the closest flag when one is mistyped; a flag is not cut short."""

    given: Any = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2. A file whose name looks like a flag is explained."""
        file = next((arg for arg in self.given if arg.startswith("-") and os.path.lexists(arg)), None)
        super().error(printable(f"{message} (the file {file} is written ./{file})" if file else message))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse here what is not known: only the parser of a command knows the flags of that command."""
        self.given = args or ()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = sorted(flag for action in self._actions for flag in action.option_strings)
            close = difflib.get_close_matches(unknown[0].split("=")[0], flags, 1, 0.8)
            hint = f" (did you mean {close[0]}?)" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown
