"""Notifies systemd of the state of a service of Type=notify, by datagrams to the socket in NOTIFY_SOCKET.

If the variable is not set, nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress


class Notifier:
    """Notifies the service manager. Its methods never raise errors, and only `watchdog` waits."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name  # `@` marks an abstract socket
        for_this_process = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "") if for_this_process else ""
        is_number = microseconds.isdecimal() and len(microseconds) < 20
        self.watchdog_seconds = int(microseconds) / 1e6 if is_number else 0.0
        """The maximum time between keep-alive notifications; 0: the watchdog is off."""

    def ready(self, status: str) -> None:
        """Notify that all services are programmed, so that units ordered after kproxy can start."""
        self._send("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Notify that kproxy is shutting down."""
        self._send("STOPPING=1")

    async def watchdog(self, alive: Callable[[], bool]) -> None:
        """Send keep-alive notifications at twice the required rate while `alive()`, until cancelled."""
        while self._address and self.watchdog_seconds:
            if alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
            to.sendto(text.encode(), self._address)
