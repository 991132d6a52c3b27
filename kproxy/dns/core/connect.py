"""What the resolver of a host needs to find Services by name: one file for each resolver.

Each file sends the cluster domain and the reverse zones of the service ranges to the name server, and nothing
else is changed. The resolvers have rules against private addresses and for private zones. Where such a rule
would hide the names, the file has an exception for these zones only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import ip_address

from msgspec import Struct

from kproxy.dns.core.names import name_of, reverse_zones, text_of
from kproxy.model import Address, Network, format_address

HEADING = "# Written by kproxy. `kproxy dns connect --undo` removes this file."
"""The first line of each file. kproxy replaces and removes only files that begin with it."""
STUBS = frozenset({"127.0.0.53", "127.0.0.54"})
"""The addresses of systemd-resolved."""


class Target(Struct, frozen=True):
    """The zones that a resolver is to ask for, with a dot at their end, and the addresses of the server."""

    zones: tuple[str, ...]
    servers: tuple[str, ...]


class Resolver(Struct, frozen=True):
    """A resolver that a host can have."""

    name: str
    """The name of its unit."""
    path: str
    """The file that connects it."""
    lines: Callable[[Target], Iterator[str]]

    def content(self, target: Target) -> str:
        """Return the content of the file."""
        return "\n".join([HEADING, *self.lines(target)]) + "\n"

    @property
    def command(self) -> tuple[str, ...]:
        """The command that makes it read the file. It starts no resolver that does not run."""
        return ("systemctl", "try-restart", f"{self.name}.service")


def target(domain: str, servers: Iterable[Address], service_cidrs: Iterable[Network]) -> Target:
    """Return the zones and servers to connect a resolver to. `domain` must be a valid name."""
    name = name_of(domain)
    assert name is not None
    zones = (name, *(zone for cidr in service_cidrs for zone in reverse_zones(cidr)))
    return Target(tuple(map(text_of, dict.fromkeys(zones))), tuple(map(format_address, servers)))


def _resolved(found: Target) -> Iterator[str]:
    yield "[Resolve]"
    yield f"DNS={' '.join(found.servers)}"
    yield from (f"Domains=~{zone.removesuffix('.')}" for zone in found.zones)


def _dnsmasq(found: Target) -> Iterator[str]:
    for zone in found.zones:
        yield from (f"server=/{zone.removesuffix('.')}/{server}" for server in found.servers)
    yield f"rebind-domain-ok=/{found.zones[0].removesuffix('.')}/"


def _unbound(found: Target) -> Iterator[str]:
    yield "server:"
    yield f'    private-domain: "{found.zones[0]}"'
    if any(ip_address(server).is_loopback for server in found.servers):
        yield "    do-not-query-localhost: no"
    for zone in found.zones:
        yield f'    local-zone: "{zone}" transparent'
        yield f'    domain-insecure: "{zone}"'
    for zone in found.zones:
        yield from ("stub-zone:", f'    name: "{zone}"')
        yield from (f"    stub-addr: {server}" for server in found.servers)


RESOLVED = Resolver("systemd-resolved", "/etc/systemd/resolved.conf.d/kproxy.conf", _resolved)
RESOLVERS = (
    RESOLVED,
    Resolver("dnsmasq", "/etc/dnsmasq.d/kproxy.conf", _dnsmasq),
    Resolver("unbound", "/etc/unbound/unbound.conf.d/kproxy.conf", _unbound),
)


def in_use(servers: Collection[Address], running: Collection[Resolver]) -> Resolver | None:
    """Return the resolver that programs of the host ask; None if there is none, or it cannot be told which.

    `servers` are those in resolv.conf, `running` the resolvers whose unit runs.
    """
    asked = {format_address(server) for server in servers}
    if asked & STUBS:
        return RESOLVED if RESOLVED in running else None
    others = [each for each in running if each is not RESOLVED]
    on_loopback = any(ip_address(server).is_loopback for server in asked)
    return others[0] if on_loopback and len(others) == 1 else None
