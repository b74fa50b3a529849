"""What one runs: the command line, training, benchmarks."""

import os
import signal
import sys


def is_command() -> bool:
    """Tell whether this process was started as `laconic` or `python -m laconic.tools.cli`."""
    name = os.path.basename(sys.argv[0]).removesuffix(".exe") if sys.argv else ""
    return name in ("laconic", "laconic-codec") or (name == "-m" and "laconic.tools.cli" in sys.orig_argv)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `main` runs there is nothing to clean up: an interrupt ends the process, where Python would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
