"""The activity of a command that takes longer than a second: one line on a terminal, cleared at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from kproxy.sources.progress import Progress

if TYPE_CHECKING:
    from threading import Event

DELAY = 1.0
"""Seconds until the line is shown."""
INTERVAL = 0.2
"""Seconds between two writings of it."""
CLEAR = "\r\033[K"


def _columns(terminal: TextIO) -> int:
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except OSError:
        return 80


class _Line:
    """The line, which a thread writes until the event."""

    def __init__(self, terminal: TextIO, activity: Progress, ended: Event) -> None:
        from threading import Lock

        self._terminal = terminal
        self._activity = activity
        self._ended = ended
        self._lock = Lock()
        self._shown = False
        self._begun = time.monotonic()

    def write(self) -> None:
        """Write it again and again."""
        if self._ended.wait(DELAY):
            return
        while not self._ended.wait(INTERVAL):
            self._write()

    def _write(self) -> None:
        seconds = time.monotonic() - self._begun
        text = f"kproxy: {self._activity.doing} ({seconds:.0f} s)"
        with self._lock:
            self._shown = True
            self._terminal.write(CLEAR + text[: _columns(self._terminal) - 1])
            self._terminal.flush()

    def clear(self) -> None:
        """Remove it, until it is written again."""
        with self._lock:
            if self._shown:
                self._terminal.write(CLEAR)
                self._terminal.flush()
            self._shown = False


_lines: list[_Line] = []
"""The line that is shown, if any."""


def clear() -> None:
    """Make room on standard error for a message."""
    for line in _lines:
        line.clear()


@contextmanager
def progress() -> Iterator[Progress]:
    """Show on standard error the activity that is told, if that is a terminal."""
    activity = Progress()
    if not (sys.stderr and sys.stderr.isatty()):
        yield activity
        return
    from threading import Event, Thread

    ended = Event()
    line = _Line(sys.stderr, activity, ended)
    thread = Thread(target=line.write, daemon=True)
    _lines.append(line)
    thread.start()
    try:
        yield activity
    finally:
        ended.set()
        thread.join()
        line.clear()
        _lines.remove(line)
