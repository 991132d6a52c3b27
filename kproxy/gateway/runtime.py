"""The socket over which a running HAProxy takes commands.

Each request has a connection of its own, and its reply ends with the connection: replies have no other mark
of their end that no text could contain. A connection costs about 0.1 ms.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from kproxy.gateway.core import replies
from kproxy.gateway.core.configuration import Configuration
from kproxy.gateway.core.plan import Command, Plan, Running, map_commands, unwanted_lines
from kproxy.intake.descriptors import ShortPath
from kproxy.limits import GATEWAY_REPLY, GATEWAY_SECONDS
from kproxy.printable import printable
from kproxy.problems import KproxyError

SHOWN = 200
"""The number of characters of a reply in a message."""
PIECE = 1 << 16


class Runtime:
    """Commands for one process. All methods raise KproxyError if a reply is missing or unexpected."""

    def __init__(self, path: Path) -> None:
        """`path`: the socket."""
        self.path = path

    def ask(self, request: str) -> str:
        """Send a request in one line, with its payload. Returns the reply."""
        try:
            return self._exchange(request.encode()).decode(errors="replace")
        except OSError as error:
            why = error.strerror or str(error)
            raise KproxyError(f"HAProxy does not answer at {self.path}: {why}.") from None

    def run(self, commands: Iterable[Command]) -> None:
        """Send commands, and compare each reply."""
        for command in commands:
            reply = self.ask(command.text).strip()
            if not re.fullmatch(command.reply, reply):
                raise unexpected(command.name, reply)

    def carry_out(self, plan: Plan, lists: Configuration) -> None:
        """Make the changes of a plan. `lists` has the desired certificate lists."""
        self.run(plan.before)
        self._replace_maps(plan)
        self.run(plan.after)
        for file in plan.swept:
            self._sweep(file, lists)
        self.run(plan.last)

    def information(self) -> dict[str, str]:
        """Return what the process says about itself (`show info`)."""
        return replies.information(self.ask("show info"))

    def read(self, desired: Configuration) -> Running:
        """Read back everything that commands can change, of the maps and lists of `desired`."""
        try:
            return Running(
                replies.servers(self.ask("show servers state")),
                {file: replies.entries(self.ask(f"show map {file}")) for file in desired.maps},
                {name: self._fingerprint(name) for name in replies.certificates(self.ask("show ssl cert"))},
                {file: tuple(entry for _, entry in self._listed(file)) for file in desired.certificate_lists},
            )
        except ValueError as error:
            raise KproxyError(
                f"HAProxy's state is not as configured: {printable(str(error))[:SHOWN]}."
            ) from None

    def _fingerprint(self, name: str) -> str:
        return replies.information(self.ask(f"show ssl cert {name}")).get("SHA1 FingerPrint", "")

    def _listed(self, file: str) -> list[tuple[int, tuple[str, tuple[str, ...]]]]:
        return list(replies.listed(self.ask(f"show ssl crt-list -n {file}")))

    def _replace_maps(self, plan: Plan) -> None:
        """Load new versions of maps, and then use them, one right after the other."""
        commits = []
        for file, entries in plan.maps.items():
            version = self._version(file)
            self.run(map_commands(file, version, entries))
            commits.append(Command(f"commit map @{version} {file}"))
        self.run(commits)

    def _version(self, file: str) -> int:
        request = f"prepare map {file}"
        reply = self.ask(request)
        try:
            return replies.version(reply)
        except ValueError:
            raise unexpected(request, reply) from None

    def _sweep(self, file: str, desired: Configuration) -> None:
        for entry in unwanted_lines(self._listed(file), desired.certificate_lists[file]):
            self.run([Command(f"del ssl crt-list {file} {entry}", r"Entry '.*' deleted in crtlist '.*'!")])

    def _exchange(self, request: bytes) -> bytes:
        deadline = time.monotonic() + GATEWAY_SECONDS
        reply = bytearray()
        with connected(self.path) as connection:
            connection.sendall(request + b"\n")
            connection.shutdown(socket.SHUT_WR)  # a master waits for more commands
            while piece := connection.recv(PIECE):
                reply += piece
                if len(reply) > GATEWAY_REPLY:
                    raise OSError(f"more than {GATEWAY_REPLY} bytes")
                connection.settimeout(max(0.001, deadline - time.monotonic()))
        return bytes(reply)


def unexpected(request: str, reply: str) -> KproxyError:
    """Return an error for a reply, which may come from another program."""
    return KproxyError(
        f"HAProxy replied to `{printable(request)[:SHOWN]}`: {printable(reply.strip())[:SHOWN]}"
    )


def connected(path: Path) -> socket.socket:
    """Return a connection to a socket. The path may be longer than the 107 bytes of an address."""
    with ShortPath(path) as short:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(GATEWAY_SECONDS)
            connection.connect(str(short))
        except OSError:
            connection.close()
            raise
    return connection
