"""HAProxy's program as kproxy calls it. A script stands for HAProxy."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kproxy.gateway import process
from kproxy.gateway.folder import Folders
from kproxy.gateway.process import EndedError, Own
from kproxy.problems import KproxyError
from tests.support import PATIENCE, open_for_reader

MUCH = 1 << 20
"""Bytes that do not fit into a pipe."""


@pytest.fixture
def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Returns what sets the script."""
    path = tmp_path / "haproxy"
    monkeypatch.setattr(process, "program", lambda: str(path))

    def write(script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(Folders(tmp_path))


@pytest.mark.parametrize("verb", ["check", "start"])
def test_the_end_of_kproxy_kills_a_haproxy_that_hangs(
    verb: str, own: Own, haproxy: Callable[[str], None], tmp_path: Path
) -> None:
    process_folder, fifo = tmp_path / "1", tmp_path / "fifo"
    os.mkfifo(fifo)
    haproxy(f"read line < {fifo}")
    jobs = {
        "check": lambda: own.program.check(process_folder),
        "start": lambda: own.start(process_folder, None),
    }
    with ThreadPoolExecutor(1) as thread:
        job = thread.submit(jobs[verb])
        with open_for_reader(fifo) as hanging:
            own.program.ended.set()
            assert isinstance(job.exception(PATIENCE), EndedError)
            with pytest.raises(BrokenPipeError):  # the script, which alone read, is gone
                os.write(hanging.fileno(), b"line\n")


def test_a_call_that_takes_too_long_is_killed(
    own: Own, haproxy: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GATEWAY_START_SECONDS", 0.0)
    haproxy("exec sleep 600")
    with pytest.raises(KproxyError, match="did not start in 0 s"):
        own.program.call(tmp_path, "-c")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo fine", ""),
        ("echo no >&2; exit 1", "no\n"),
        ("exit 3", "status 3"),
        (f"head -c {MUCH} /dev/zero; exit 1", "\0" * MUCH),
        ("sleep 0.3; echo late; exit 1", "late\n"),
    ],
)
def test_what_haproxy_says_when_it_fails(
    script: str, said: str, own: Own, haproxy: Callable[[str], None], tmp_path: Path
) -> None:
    haproxy(script)
    assert own.program.call(tmp_path, "-c") == said
