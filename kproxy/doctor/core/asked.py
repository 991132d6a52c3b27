"""What the user asks about: a Service, and perhaps the address, the port and the client of a connection."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.explain.question import ICMP, Asker, Party, service_name, split
from kproxy.model import (
    Address,
    Family,
    FrontendKind,
    NamespacedName,
    Service,
    ServicePort,
    address_or_none,
    family_of,
)
from kproxy.show.snapshot import NODE, Snapshot


class Asked(NamedTuple):
    """The operand of the command, and `--from`."""

    text: str
    """The operand."""
    service: NamespacedName | None
    """The Service of that name, which may not exist; None for an address that no Service has."""
    address: Address | None
    """The address, if the operand has one."""
    port: str
    """A number or the name of a port; "" for all ports."""
    protocol: str
    """ "" if the operand has none; may be `icmp`."""
    client: Party | None
    """The client of `--from`."""

    @property
    def services(self) -> frozenset[NamespacedName]:
        """The Service in question; none for an address that no Service has."""
        return frozenset((self.service,)) if self.service else frozenset()

    @property
    def ping(self) -> bool:
        """Whether the question is about ping."""
        return self.protocol == ICMP

    def ports(self, service: Service) -> list[ServicePort]:
        """Return the ports of the Service that the question is about."""
        return [port for port in service.ports if self.fits(port) and self._has_protocol(port)]

    def fits(self, port: ServicePort) -> bool:
        """Whether the number or name of the question is that of a port."""
        return self.port in ("", str(port.port), port.name)

    def _has_protocol(self, port: ServicePort) -> bool:
        return self.protocol in ("", port.protocol)

    def source(self, family: Family) -> Address | None:
        """Return the address of the client in a family."""
        addresses = self.client.addresses if self.client else ()
        return next((address for address in addresses if family_of(address) is family), None)


def parse_asked(text: str, client: str, namespace: str, snapshot: Snapshot | None) -> Asked:
    """Parse the operand and `--from`. Raises CommandLineError, and KproxyError if the client is unknown.

    Without a snapshot, only the operand's own words are known.
    """
    host, port, protocol = split(text)
    address = _address(host, snapshot)
    service = service_name(host, namespace) if address is None else None
    if address is not None and snapshot is not None:
        service = _owner(snapshot, address, port)
    party = Asker(snapshot, namespace).sender(client) if client and snapshot else None
    return Asked(text, service, address, port, protocol, party)


def _address(host: str, snapshot: Snapshot | None) -> Address | None:
    if host == NODE and snapshot is not None and snapshot.node.addresses:
        return snapshot.node.addresses[0]
    return address_or_none(host.strip("[]"))


def _owner(snapshot: Snapshot, address: Address, port: str) -> NamespacedName | None:
    """Return the Service that has an address: the one at this port, if there are several."""
    at = [each for each in snapshot.frontends if each.address == address]
    at.sort(key=lambda frontend: str(frontend.port) != port)
    if at:
        return at[0].owner.service
    by_port = (
        each for each in snapshot.frontends if each.kind is FrontendKind.NODE_PORT and str(each.port) == port
    )
    return next((each.owner.service for each in by_port), None)
