"""Addresses of hosts that others name: addresses as text, names of /etc/hosts, and names of DNS.

`getaddrinfo` occupies a thread for each name until the DNS servers answer, and other work of the daemon
would wait for a thread. c-ares (aiodns) needs no thread for each name. It reads /etc/hosts and
/etc/resolv.conf, also when they change. Requests for the same name share one lookup. A lookup ends when
c-ares gives up, even if what waits for it has timed out before.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from kproxy.limits import NAME_ADDRESSES, NAME_LOOKUPS

SocketAddress = tuple[Any, ...]
"""An address with its port, as a socket takes it."""


class Names:
    """Looks up names in the running event loop, from the first lookup to `close`."""

    def __init__(self) -> None:
        self._resolver: Any = None
        self._lookups: dict[str, asyncio.Future[Any]] = {}

    async def addresses(self, host: str, port: int) -> list[tuple[int, SocketAddress]]:
        """Return the addresses of a host, at least one, each with its family (AF_*).

        Raises OSError if there are none, and ValueError if the name is invalid.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            nodes = (await self._look_up(host)).nodes[:NAME_ADDRESSES]
            return [(node.family, (node.addr[0].decode(), port, *node.addr[2:])) for node in nodes]
        return [(family, address) for family, _, _, _, address in found]

    async def close(self) -> None:
        """End all lookups."""
        if self._resolver is not None:
            await self._resolver.close()

    async def _look_up(self, host: str) -> Any:
        from aiodns.error import DNSError

        if host not in self._lookups:
            self._start(host)
        try:
            return await asyncio.shield(self._lookups[host])
        except DNSError as error:
            raise OSError(f"cannot look up {host}: {error.args[-1]}") from None

    def _start(self, host: str) -> None:
        if len(self._lookups) >= NAME_LOOKUPS:
            raise OSError(f"cannot look up {host}: {NAME_LOOKUPS} other names are being looked up")
        if self._resolver is None:
            import aiodns  # not at the top, because most hosts are addresses

            self._resolver = aiodns.DNSResolver(loop=asyncio.get_running_loop())

        def ended(lookup: asyncio.Future[Any]) -> None:
            del self._lookups[host]
            if not lookup.cancelled():
                lookup.exception()  # nothing may be left that waits for it

        lookup = self._lookups[host] = self._resolver.getaddrinfo(host, type=socket.SOCK_STREAM)
        lookup.add_done_callback(ended)
