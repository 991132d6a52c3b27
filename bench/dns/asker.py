"""Asks a DNS server for an endpoint that is replaced again and again: `python -m bench.dns.asker PORT RATE`.

It is a process of its own, so that its work is not that of the server. If it gets less CPU time than it
needs, it asks less often. It asks in turn for the headless Service and for its endpoint `db-0`, whose address
ends with the number of the replacement. When it sees a number for the first time, it prints the number and
the time (CLOCK_MONOTONIC). At the end of its standard input, it prints its counts as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from itertools import cycle

from msgspec import Struct, structs

SERVICE = b"\2db\7default\3svc\7cluster\5local\0"
NAMES = (SERVICE, b"\4db-0" + SERVICE)
TICK = 0.001
"""Seconds between two bursts of questions."""
LAST_SECONDS = 1.0
"""How long to wait for the last answers."""


class Counts(Struct):
    """What was asked and answered."""

    asked: int = 0
    answered: int = 0
    empty: int = 0
    """NXDOMAIN, another error, or no address."""
    wrong: int = 0
    """An earlier address than one that was seen before."""
    slowest: float = 0.0
    """Seconds until an answer."""


class Asker:
    """Asks, and checks each answer."""

    def __init__(self, port: int) -> None:
        self.counts = Counts()
        self.newest = -1
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._names = cycle(NAMES)
        self._sent: dict[bytes, tuple[float, bytes]] = {}

    def ask(self) -> None:
        """Send a question. Its name does not depend on its number."""
        ident, name = (self.counts.asked & 0xFFFF).to_bytes(2, "big"), next(self._names)
        self._sent[ident] = time.monotonic(), name
        self._socket.send(ident + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1")
        self.counts.asked += 1

    def receive(self, until: float) -> Iterator[int]:
        """Check the answers that arrive until this time. Yields new numbers."""
        while (left := until - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                yield from self._check(self._socket.recv(4096), time.monotonic())

    def _check(self, reply: bytes, now: float) -> Iterator[int]:
        sent, name = self._sent.pop(reply[:2])
        self.counts.answered += 1
        self.counts.slowest = max(self.counts.slowest, now - sent)
        if reply[3] & 15 or reply[6:8] == b"\0\0":
            self.counts.empty += 1
        elif name is NAMES[1]:
            number = int.from_bytes(reply[-2:], "big")
            self.counts.wrong += number < self.newest
            if number > self.newest:
                self.newest = number
                yield number


def main() -> None:
    """Ask until standard input ends."""
    asker, rate = Asker(int(sys.argv[1])), float(sys.argv[2])
    while not select.select([sys.stdin], [], [], 0)[0]:
        due = time.monotonic() + TICK
        for _ in range(round(rate * TICK)):
            asker.ask()
        for number in asker.receive(due):
            print(number, time.monotonic(), flush=True)
    list(asker.receive(time.monotonic() + LAST_SECONDS))
    print(json.dumps(structs.asdict(asker.counts)))


if __name__ == "__main__":
    main()
