"""The line that shows on a terminal what a command does."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from contextlib import redirect_stderr
from pathlib import Path
from select import select

import pytest

from kproxy.cli import progress as module
from kproxy.cli.output import warn
from kproxy.cli.progress import CLEAR, progress
from tests.support import open_for_reader

ROOT = Path(__file__).parents[2]
PATIENCE = 60


class Terminal(io.StringIO):
    """A terminal; `changed` is set at each writing."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Event()

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Keep the text."""
        written = super().write(text)
        self.changed.set()
        return written

    def wait_for(self, pattern: str) -> None:
        """Until the text so far has the pattern."""
        while not re.search(pattern, self.getvalue()):
            assert self.changed.wait(PATIENCE), self.getvalue()
            self.changed.clear()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """To become standard error; the line is shown without delay."""
    monkeypatch.setattr(module, "DELAY", 0.0)
    monkeypatch.setattr(module, "INTERVAL", 0.001)
    return Terminal()


def shown(text: str) -> list[str]:
    """The lines that a terminal shows after the text."""
    return [line.rpartition(CLEAR)[2] for line in text.split("\n")]


def test_the_line_is_rewritten_and_cleared(terminal: Terminal) -> None:
    with redirect_stderr(terminal), progress() as activity:
        activity.begin("reading a.yaml")
        terminal.wait_for(r"kproxy: reading a\.yaml \(\d+ s\)$")
        activity.begin("resolving 3 services")
        terminal.wait_for(r"kproxy: resolving 3 services \(\d+ s\)$")
    assert shown(terminal.getvalue()) == [""]


def test_a_message_has_a_separate_line(terminal: Terminal) -> None:
    with redirect_stderr(terminal), progress() as activity:
        activity.begin("reading a.yaml")
        terminal.wait_for("reading")
        warn("a.yaml: is not YAML")
    assert shown(terminal.getvalue()) == ["kproxy: a.yaml: is not YAML", ""]


def test_a_line_is_not_longer_than_the_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_columns", lambda _: 20)
    with redirect_stderr(terminal), progress() as activity:
        activity.begin("reading a-file-with-a-long-name.yaml")
        terminal.wait_for("reading")
    assert max(map(len, terminal.getvalue().split(CLEAR))) == 19


def test_a_short_command_shows_no_progress(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 1000.0)
    with redirect_stderr(terminal), progress() as activity:
        activity.begin("reading a.yaml")
    assert terminal.getvalue() == ""


def test_no_progress_is_shown_without_a_terminal() -> None:
    terminal = io.StringIO()
    threads = threading.active_count()
    with redirect_stderr(terminal), progress() as activity:
        activity.begin("reading a.yaml")
        assert threading.active_count() == threads
    assert terminal.getvalue() == ""


def test_progress_names_the_file(tmp_path: Path) -> None:
    fifo = tmp_path / "services.yaml"
    os.mkfifo(fifo)
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 200))
    command = [sys.executable, "-m", "kproxy", "get", "svc", "-f", str(fifo), "-o", "name"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=side, text=True) as process:
        os.close(side)
        printed = ""
        with open_for_reader(fifo) as manifest:
            while f"kproxy: reading {fifo} (" not in printed:
                assert select([main], [], [], PATIENCE)[0], printed
                printed += os.read(main, 65536).decode()
            manifest.write(
                "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [port: 80]}\n"
            )
        assert process.communicate(timeout=PATIENCE)[0] == "service/web\n"
    assert process.returncode == 0
    while not printed.endswith(CLEAR):
        assert select([main], [], [], PATIENCE)[0], printed
        printed += os.read(main, 65536).decode()
    os.close(main)
