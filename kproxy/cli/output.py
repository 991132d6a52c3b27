"""Functions that print: results on standard output, problems on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from io import TextIOWrapper
from typing import TextIO

from kproxy.cli.progress import clear
from kproxy.printable import one_line, printable
from kproxy.problems import KproxyError, Problem


class OutputError(KproxyError):
    """Standard output is closed, or writing to it failed."""


def write(text: str) -> None:
    """Write text to standard output. Raises OutputError."""
    if sys.stdout is None:  # closed by the shell: >&-
        raise OutputError("Standard output is closed.")
    try:
        sys.stdout.write(text)
    except OSError as error:
        raise _output_error(error) from None


def write_text(text: str) -> None:
    """Write lines for people to standard output. Raises OutputError."""
    write("\n".join(map(printable, text.split("\n"))))


def write_lines(lines: Iterable[str]) -> None:
    """Write lines for people to standard output. Raises OutputError."""
    write("".join(f"{printable(line)}\n" for line in lines))


def write_json(value: object) -> None:
    """Write a value as JSON to standard output. Raises OutputError."""
    import json  # not at the top: most commands print none

    write(json.dumps(value, indent=4) + "\n")


def flush() -> None:
    """Write all buffered text. Raises OutputError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _output_error(error) from None


def _output_error(error: OSError) -> OutputError:
    _discard(sys.stdout)
    return OutputError(f"Cannot write to standard output: {error.strerror}.")


def warn(sentence: object) -> None:
    """Print a line on standard error, with the name of the program."""
    note(f"kproxy: {sentence}")


def note(sentence: str) -> None:
    """Print a line on standard error. If that fails or is closed, the command goes on without the line."""
    clear()
    if sys.stderr is None:  # print would write to standard output
        return
    try:
        print(one_line(sentence), file=sys.stderr)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Redirect a stream that failed, so that Python does not write its buffer again at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape_unencodable() -> None:
    """Let characters that the encoding of a standard stream does not have appear escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_problems(problems: Iterable[Problem | str]) -> None:
    """Print problems on standard error."""
    for problem in problems:
        warn(problem)


def print_warnings(warnings: Iterable[Problem | str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        warn(f"warning: {warning}")
