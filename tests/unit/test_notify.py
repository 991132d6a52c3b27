"""Notifications of a service manager, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kproxy.observe.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and the value of NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@kproxy-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.settimeout(60)
        yield listener, name


def test_notifications_arrive(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("2 services\nand more")
    assert listener.recv(999) == b"READY=1\nSTATUS=2 services and more"
    notifier.stopping()
    assert listener.recv(999) == b"STOPPING=1"


def test_keep_alive_notifications_stop_when_the_loop_hangs(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
    alive = True

    async def main() -> None:
        nonlocal alive
        begun = time.monotonic()
        task = asyncio.create_task(notifier.watchdog(lambda: alive))
        for _ in range(3):
            assert await asyncio.to_thread(listener.recv, 99) == b"WATCHDOG=1"
        assert time.monotonic() - begun > 0.09  # half of the watchdog's time between two
        alive = False
        listener.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                assert listener.recv(99) == b"WATCHDOG=1"
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(BlockingIOError):
            listener.recv(99)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
)
def test_the_watchdog_is_configured_by_the_environment(environment: dict[str, str], seconds: float) -> None:
    assert Notifier(environment).watchdog_seconds == seconds


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_is_sent(environment: dict[str, str]) -> None:
    notifier = Notifier({**environment})
    notifier.ready("fine")
    notifier.stopping()
    asyncio.run(asyncio.wait_for(Notifier({}).watchdog(lambda: True), 1))
