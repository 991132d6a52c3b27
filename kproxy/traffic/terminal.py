"""Shows `kproxy top` in a terminal: reads keys, and writes the lines of core/screen.py with rich."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kproxy.traffic.core.pace import Pace
from kproxy.traffic.core.screen import Line, Status, Style, View, frame, keys, page_of, press
from kproxy.traffic.reader import Reader

STYLES = {
    Style.PLAIN: "",
    Style.TITLE: "bold",
    Style.HEADER: "reverse",
    Style.SELECTED: "bold reverse",
    Style.ALARM: "bold red",
    Style.FAINT: "dim",
}
"""Attributes of the terminal's own colours, and one colour that dark and light backgrounds show well."""
ENDS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
"""The signals that end it, after which the terminal is as before."""


def is_interactive() -> bool:
    """Whether a person looks at standard output, and can type."""
    streams = sys.stdin, sys.stdout
    return all(stream and stream.isatty() for stream in streams) and not Console().is_dumb_terminal


def show(reader: Reader, interval: float, view: View) -> None:
    """Show the connections until the user ends it. `interval` is the minimum time between two readings."""
    console, pace = Console(highlight=False), Pace(interval)
    with _keyboard() as pressed, Live(console=console, screen=True, auto_refresh=False) as screen:
        while not view.ended:
            _read(reader, pace, view)
            due = time.monotonic() + pace.every
            while not view.ended:
                _draw(screen, reader, pace, view)
                if (left := due - time.monotonic()) <= 0:
                    break
                for key in keys(pressed(left)):
                    view = _press(reader, view, key, console.height)


def _read(reader: Reader, pace: Pace, view: View) -> None:
    reader.counters()
    if view.expanded:
        reader.endpoints(view.expanded)
    begun = time.process_time()
    is_due = time.monotonic() >= pace.live_due
    if is_due:
        reader.live()
    cpu = time.process_time()
    pace.record(time.monotonic(), cpu, cpu - begun if is_due else 0.0)


def _press(reader: Reader, view: View, key: str, height: int) -> View:
    after = press(view, key, reader.tally, page_of(height))
    if after.expanded and after.expanded != view.expanded:
        reader.endpoints(after.expanded)
    return after


def _draw(screen: Live, reader: Reader, pace: Pace, view: View) -> None:
    width, height = screen.console.size
    status = Status(time.strftime("%H:%M:%S"), pace.every, pace.share())
    lines = frame(reader.tally, view, status, width, height)
    screen.update(Group(*map(_text, lines)), refresh=True)


def _text(line: Line) -> Text:
    parts = ((span.text, STYLES[span.style]) for span in line)
    return Text.assemble(*parts, no_wrap=True, overflow="crop")


@contextmanager
def _keyboard() -> Iterator[Callable[[float], bytes]]:
    """Let keys arrive without Enter, and do not show them.

    Returns a function that waits for keys, or for another size of the terminal.
    """
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    with _signals() as signals:

        def pressed(seconds: float) -> bytes:
            ready, _, _ = select.select([keyboard, signals], [], [], seconds)
            if signals in ready:
                _obey(os.read(signals, 1024))
            if keyboard not in ready:
                return b""
            with suppress(OSError):
                return os.read(keyboard, 1024) or b"q"
            return b"q"  # the terminal was closed

        try:
            tty.setcbreak(keyboard)
            yield pressed
        finally:
            with suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextmanager
def _signals() -> Iterator[int]:
    """Return a pipe to which the number of each received signal is written, as a byte.

    So no signal interrupts a change of the terminal, which would leave half of it. A second signal that ends
    the program has its usual effect.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def receive(number: int, _: object) -> None:
        with suppress(BlockingIOError):
            os.write(writing, bytes([number]))
        if number in ENDS:
            signal.signal(number, before[number])

    handlers = {each: signal.getsignal(each) for each in (signal.SIGWINCH, *ENDS)}
    before: dict[int, Any] = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, receive)
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _obey(numbers: bytes) -> None:
    """Raise what ends the program, if one of these signals does."""
    for number in numbers:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number in ENDS:
            sys.exit(128 + number)
