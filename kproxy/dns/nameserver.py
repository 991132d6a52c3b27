"""The name server of `kproxy run` and `kproxy dns serve`: the zone, the sockets, and the upstream servers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from kproxy.dns.addresses import NameServerAddresses
from kproxy.dns.core.zone import Zone
from kproxy.dns.host import HostServers, may_recurse
from kproxy.dns.names import Names
from kproxy.dns.resolver import Resolver
from kproxy.dns.server import Server
from kproxy.dns.upstream import Upstream
from kproxy.intake.clients import Clients
from kproxy.model import Address, format_address
from kproxy.settings.derived import cluster_dns, service_ranges
from kproxy.settings.settings import DNS_PORT, Settings
from kproxy.settings.text import SocketAddress
from kproxy.sources.source import FollowedSource


class NameServer(Names):
    """Answers from `open` to `close`. As an observer of rounds, it changes its zone."""

    def __init__(
        self, settings: Settings, listen: Iterable[SocketAddress], source: FollowedSource, clients: Clients
    ) -> None:
        """`clients` are those of all servers together."""
        sockets = tuple(listen)
        domain, ranges = settings.cluster_domain, service_ranges(settings)
        zone = Zone(domain, cluster_dns(settings), ranges, int(time.time()))
        self.resolver = Resolver(zone, time.monotonic, _upstream(settings, sockets), self._may_recurse)
        super().__init__(self.resolver, source)
        self.server = Server(sockets, self.resolver, clients)
        self.domain = domain
        self._pod_networks = settings.cluster_cidr
        self._node_source = source

    def open(self) -> None:
        """Start the server."""
        self.server.open()

    def close(self) -> None:
        """Stop the server."""
        self.server.close()

    def _may_recurse(self, host: str) -> bool:
        networks = (*self._pod_networks, *self._node_source.node().pod_cidrs)
        return may_recurse(host, networks, lambda: self.pods)


class ClusterNameServer(NameServer):
    """The name server of `kproxy run`, on addresses that kproxy adds to this host."""

    def __init__(
        self, settings: Settings, wanted: tuple[Address, ...], source: FollowedSource, clients: Clients
    ) -> None:
        """`wanted`: the addresses of --cluster-dns."""
        sockets = (SocketAddress(format_address(address), DNS_PORT) for address in wanted)
        super().__init__(settings, sockets, source, clients)
        self.addresses = NameServerAddresses(wanted, source)
        """The addresses that this host needs."""


def _upstream(settings: Settings, own: tuple[SocketAddress, ...]) -> Upstream:
    if settings.upstream is None:
        return Upstream(HostServers(own, Path(settings.resolv_conf)).servers)
    servers = tuple(server for server in settings.upstream if server not in own)
    return Upstream(lambda: servers)
