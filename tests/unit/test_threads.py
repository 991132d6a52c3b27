"""The threads of a daemon run before they are needed."""

from __future__ import annotations

import threading

import pytest

from kproxy.intake.threads import started_threads
from kproxy.problems import HostError


def no_more_threads(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_no_thread_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with started_threads(3, "t") as executor:
        monkeypatch.setattr(threading.Thread, "start", no_more_threads)
        together = threading.Barrier(3)
        waiting = [executor.submit(together.wait, 30) for _ in range(3)]
        assert sorted(each.result(30) for each in waiting) == [0, 1, 2]


def test_a_host_that_allows_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start, left = threading.Thread.start, [None, None]

    def start_two(thread: threading.Thread) -> None:
        if not left:
            no_more_threads(thread)
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(HostError, match="Cannot start 3 threads: can't start new thread"):
        started_threads(3, "t")
