"""Ends what a gateway started. Of this room, `kproxy cleanup` imports only this module and `folder.py`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from kproxy.gateway.folder import Folders


def remove(folders: Folders) -> list[int]:
    """Stop all processes, also those that finish connections, and remove the folders. Returns the pids."""
    stopped = []
    for pid in _below(folders.path):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
            stopped.append(pid)
    folders.remove()
    return stopped


def _below(path: Path) -> Iterator[int]:
    start = f"{path}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(flag == b"-C" and word.startswith(start) for flag, word in pairwise(words)):
                    yield int(entry.name)
