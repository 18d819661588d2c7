"""The ``hebbian`` command."""

import signal
import sys

from ._native import command


def main() -> int:
    """Runs the command on the process's arguments; returns its exit status."""
    # the command has its own answer to Ctrl-C: it saves everything
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command(["hebbian", *sys.argv[1:]])
