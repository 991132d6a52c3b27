"""What systemd wants to know of a service of Type=notify: datagrams to the socket in NOTIFY_SOCKET.

Where nobody set that variable nothing is sent, so the daemon says all of it always.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress


class Notifier:
    """Tells the service manager how far we are; never raises, never waits."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name  # @: abstract
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "") if ours else ""
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() else 0.0
        """How long we may be silent; 0: nobody watches."""

    def ready(self, status: str) -> None:
        """What is wanted is programmed: those that are ordered after us may start."""
        self._send("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """On our way out."""
        self._send("STOPPING=1")

    async def watchdog(self, alive: Callable[[], bool]) -> None:
        """Twice as often as is asked for, say that we are `alive`, as long as we are; until cancelled."""
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
