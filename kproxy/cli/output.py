"""What the verbs print: results on standard output, problems on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

from kproxy.cli.progress import clear
from kproxy.problems import KproxyError, Problem


class OutputError(KproxyError):
    """Standard output cannot be written."""


def write(text: str) -> None:
    """Text on standard output, as it is; OutputError if nothing can be written there."""
    if sys.stdout is None:  # closed by the shell: >&-
        raise OutputError("Standard output is closed.")
    try:
        sys.stdout.write(text)
    except OSError as error:
        raise _given_up(error) from None


def flush() -> None:
    """All that was written is out; OutputError if it cannot be."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _given_up(error) from None


def _given_up(error: OSError) -> OutputError:
    """What is still in the buffer goes nowhere, or Python would try once more at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OutputError(f"Cannot write to standard output: {error.strerror}.")


def warn(sentence: object) -> None:
    """A line on standard error."""
    clear()
    print(f"kproxy: {sentence}", file=sys.stderr)


def print_problems(problems: Iterable[Problem | str]) -> None:
    """What was left out and why, and what may not be as intended."""
    for problem in problems:
        warn(problem)
