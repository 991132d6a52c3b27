"""Shows the progress of a command that takes longer than a second, on one line of a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from kproxy.printable import printable
from kproxy.sources.progress import Progress

if TYPE_CHECKING:
    from threading import Event

DELAY = 1.0
"""Seconds until the line is shown."""
INTERVAL = 0.2
"""Seconds between updates of the line."""
CLEAR = "\r\033[K"


def _columns(terminal: TextIO) -> int:
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except OSError:
        return 80


class _Line:
    """The line, which a thread updates until the event is set."""

    def __init__(self, terminal: TextIO, progress: Progress, ended: Event) -> None:
        from threading import Lock

        self._terminal = terminal
        self._progress = progress
        self._ended = ended
        self._lock = Lock()
        self._shown = False
        self._begun = time.monotonic()

    def write(self) -> None:
        """Update the line repeatedly, after a delay."""
        if self._ended.wait(DELAY):
            return
        while not self._ended.wait(INTERVAL):
            self._write()

    def _write(self) -> None:
        seconds = time.monotonic() - self._begun
        text = f"kproxy: {printable(self._progress.activity)} ({seconds:.0f} s)"
        with self._lock:
            self._shown = True
            self._terminal.write(CLEAR + text[: _columns(self._terminal) - 1])
            self._terminal.flush()

    def clear(self) -> None:
        """Remove the line. The next update writes it again."""
        with self._lock:
            if self._shown:
                self._terminal.write(CLEAR)
                self._terminal.flush()
            self._shown = False


_lines: list[_Line] = []
"""The line of the running command, if there is one."""


def clear() -> None:
    """Remove the line before a message is printed on standard error."""
    for line in _lines:
        line.clear()


@contextmanager
def progress() -> Iterator[Progress]:
    """Show the progress on standard error, if that is a terminal."""
    current = Progress()
    if not (sys.stderr and sys.stderr.isatty()):
        yield current
        return
    from threading import Event, Thread

    ended = Event()
    line = _Line(sys.stderr, current, ended)
    thread = Thread(target=line.write, daemon=True)
    _lines.append(line)
    thread.start()
    try:
        yield current
    finally:
        ended.set()
        thread.join()
        line.clear()
        _lines.remove(line)
