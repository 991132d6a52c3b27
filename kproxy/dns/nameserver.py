"""The name server of `kproxy run`: its addresses, its zone, and the sockets."""

from __future__ import annotations

from kproxy.dns.addresses import NameServerAddresses
from kproxy.dns.names import Names
from kproxy.dns.resolver import Resolver
from kproxy.dns.server import Server
from kproxy.intake.clients import Clients
from kproxy.model import Address, format_address
from kproxy.settings.settings import DNS_PORT
from kproxy.settings.text import SocketAddress
from kproxy.sources.source import FollowedSource


class NameServer(Names):
    """Answers on `addresses` from `open` to `close`. As an observer of rounds, it changes its zone."""

    def __init__(
        self, resolver: Resolver, wanted: tuple[Address, ...], source: FollowedSource, clients: Clients
    ) -> None:
        """`wanted`: the addresses of --cluster-dns. `clients` are those of all servers together."""
        super().__init__(resolver, source)
        self.addresses = NameServerAddresses(wanted, source)
        """The addresses that this host needs."""
        sockets = (SocketAddress(format_address(address), DNS_PORT) for address in wanted)
        self.server = Server(sockets, resolver, clients)

    def open(self) -> None:
        """Start the server."""
        self.server.open()

    def close(self) -> None:
        """Stop the server."""
        self.server.close()
