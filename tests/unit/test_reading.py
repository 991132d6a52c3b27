"""Reading up to a limit needs memory for what there is, not for the limit."""

from __future__ import annotations

import io
import socket
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kproxy.control import client
from kproxy.intake.reading import PIECE, read_up_to
from kproxy.limits import MIB
from kproxy.sources.files import Reader, content_of

BEYOND = 16 * MIB
"""More memory than a reader needs for a few bytes, and less than its limit."""


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("limit", [0, 1, PIECE - 1, PIECE, 2 * PIECE + 1, 4 * PIECE])
def test_a_file_is_read_to_its_end_or_to_the_limit(size: int, limit: int) -> None:
    content = bytes(size)
    assert read_up_to(io.BytesIO(content), limit) == content[:limit]


def of_file(path: Path) -> None:
    assert content_of(path, pipes=False) == b"a: 1"


def of_standard_input(path: Path) -> None:
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
        assert Reader(["-"]).read().documents


def of_control_socket(path: Path) -> None:
    """A message whose first line promises more than follows."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as file:
        theirs.sendall(f"kproxy {128 * MIB}\n".encode())
        theirs.shutdown(socket.SHUT_WR)
        assert client._message(file) == f"kproxy {128 * MIB}\n".encode()


@pytest.mark.parametrize("reads", [of_file, of_standard_input, of_control_socket])
def test_a_few_bytes_need_little_memory(reads: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "few.yaml"
    path.write_text("a: 1")
    tracemalloc.start()
    try:
        reads(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BEYOND
