"""Parses a question: the sender and the destination of a connection, by address or by name.

A sender is an address, `pod/NAME`, or `node`. A destination is HOST:PORT, HOST:PORT/PROTOCOL or HOST/icmp.
HOST is an address (IPv6 in brackets), `node`, or a Service: NAME, NAMESPACE/NAME, or its name in DNS. PORT is
a number, or the name of a port of the Service.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from ipaddress import ip_address
from typing import NamedTuple

from kproxy.model import (
    Address,
    Family,
    NamespacedName,
    Protocol,
    Service,
    ServicePort,
    address_or_none,
    family_of,
    format_address,
)
from kproxy.problems import CommandLineError, KproxyError, enumeration
from kproxy.show.snapshot import NODE, Snapshot
from kproxy.table.simulator import Packet

ICMP = "icmp"
_DESTINATION = re.compile(
    r"(?P<host>\[[^]]+\]|[^\[\]:]+?)(:(?P<port>[a-z0-9-]+))?(/(?P<protocol>[a-z]+))?", re.IGNORECASE
)
_KIND = re.compile(r"(?:svc|services?)/(.+)")


class Party(NamedTuple):
    """The sender or the destination of a connection."""

    text: str
    """As the answer calls it: `pod default/web-1`, `Service default/web`, `this node`, or an address."""
    addresses: tuple[Address, ...]
    """At most one of each family."""
    service: Service | None = None


class Question(NamedTuple):
    """A connection."""

    sender: str
    """As `Party.text`."""
    target: str
    packet: Packet


class Asker(NamedTuple):
    """What a question is parsed with."""

    snapshot: Snapshot
    namespace: str
    interface: str = ""
    """The interface on which the packet arrives; "" to derive it from the sender."""
    source_port: int = 0
    host: Set[Address] = frozenset()
    """The addresses of this host, as far as they are known besides those of its node."""

    def question(self, sender: str, destination: str) -> Question:
        """Parse a question. Raises CommandLineError, and KproxyError if something named does not exist."""
        host, port, protocol = split(destination)
        target = self._target(host)
        origin = self.sender(sender)
        source, address = _same_family(origin, target)
        number, transport = _transport(target, port, protocol)
        interface = "" if origin.text == THIS_NODE else self.interface or self._interface(origin)
        packet = Packet(source, address, transport, number, self.source_port, interface)
        return Question(origin.text, target.text, packet)

    def _interface(self, origin: Party) -> str:
        """Return an interface of the kind on which packets of the sender arrive."""
        of_pods = self.snapshot.options.pod_interface.replace("*", "0")
        return of_pods if of_pods and origin.text.startswith("pod ") else "uplink"

    def sender(self, text: str) -> Party:
        """Return the sender that a text names. Raises KproxyError if it does not exist."""
        address = address_or_none(text)
        if address is not None:
            return self._at(address)
        if text == NODE:
            return self._this_node()
        name = _name(text.removeprefix("pod/"), self.namespace)
        for pod in self.snapshot.inventory.pods:
            if pod.name == name:
                return Party(f"pod {name}", pod.addresses)
        if "Pod" not in self.snapshot.inventory.followed:
            raise KproxyError(f"kproxy does not follow Pods. Use the address of pod {name.name}.")
        raise KproxyError(f"Pod {name} not found.", "A sender is an address, pod/NAME or node.")

    def _at(self, address: Address) -> Party:
        """Return the sender that has an address: this node, a pod, or another host."""
        node = self.snapshot.node
        is_own = address in (*node.addresses, *node.node_port_addresses, *self.host)
        if is_own or ip_address(address).is_loopback:
            return Party(THIS_NODE, (address,))
        for pod in self.snapshot.inventory.pods:
            if address in pod.addresses and not pod.host_network:
                return Party(f"pod {pod.name}", (address,))
        return Party(format_address(address), (address,))

    def _this_node(self) -> Party:
        if not self.snapshot.node.addresses:
            raise KproxyError("The addresses of this node are unknown.", "--node-ip sets them.")
        return Party(THIS_NODE, self.snapshot.node.addresses)

    def _target(self, text: str) -> Party:
        address = address_or_none(text.strip("[]"))
        if address is not None:
            return Party(format_address(address), (address,))
        if text == NODE:
            return self._this_node()
        return _of_service(self._service(text))

    def _service(self, text: str) -> Service:
        name = service_name(text, self.namespace)
        inventory = self.snapshot.inventory
        if name in inventory.services:
            return inventory.services[name]
        if name in inventory.left_out:
            raise KproxyError(f"Service {name} is not served.", f"See kproxy describe svc {name.name}.")
        elsewhere = sorted(other.namespace for other in inventory.services if other.name == name.name)
        hint = f"It exists in namespace {enumeration(elsewhere)}." if elsewhere else ""
        raise KproxyError(f"Service {name} not found.", hint)


THIS_NODE = "this node"


def split(text: str) -> tuple[str, str, str]:
    """Return host, port and protocol of a destination; "" for what is missing. Raises CommandLineError."""
    kind = _KIND.match(text)
    if kind:
        text = kind[1]
    namespace, slash, rest = text.partition("/")
    if slash and ":" not in namespace and rest.lower() != ICMP:  # NAMESPACE/NAME...
        host, port, protocol = split(rest)
        return f"{namespace}/{host}", port, protocol
    found = _DESTINATION.fullmatch(text)
    if not found:
        raise CommandLineError(f"{text!r} is not HOST:PORT, HOST:PORT/PROTOCOL or HOST/icmp.")
    return found["host"], found["port"] or "", (found["protocol"] or "").lower()


def words_of(sender: str, destination: str, namespace: str) -> frozenset[str]:
    """Return the names and addresses in a question, for `snapshot_about`. Raises CommandLineError."""
    host = split(destination)[0].strip("[]")
    return frozenset(
        text if address_or_none(text) or text == NODE else name.name
        for text, name in (
            (sender, _name(sender.removeprefix("pod/"), namespace)),
            (host, service_name(host, namespace)),
        )
    )


def _name(text: str, namespace: str) -> NamespacedName:
    before, slash, after = text.partition("/")
    return NamespacedName(before, after) if slash else NamespacedName(namespace, text)


def service_name(text: str, namespace: str) -> NamespacedName:
    """Return the name of the Service that `web`, `svc/web`, `shop/web` or a name in DNS (`web.shop.svc`)
    stands for."""
    if kind := _KIND.fullmatch(text):
        text = kind[1]
    if "/" in text:
        return _name(text, namespace)
    name, _, rest = text.partition(".")
    return NamespacedName(rest.partition(".")[0] or namespace, name)


def _of_service(service: Service) -> Party:
    if service.cluster_ips:
        return Party(f"Service {service.name}", service.cluster_ips, service)
    if service.external_name:
        raise KproxyError(
            f"Service {service.name} is of type ExternalName, a name in DNS for {service.external_name}. "
            "kproxy does not see its connections."
        )
    raise KproxyError(
        f"Service {service.name} is headless: clients connect to its endpoints themselves.",
        f"See kproxy get ep {service.name.name}.",
    )


def _same_family(sender: Party, target: Party) -> tuple[Address, Address]:
    """Return the source and the destination. The target's first address that the sender can reach is used."""
    sources: dict[Family, Address] = {family_of(address): address for address in reversed(sender.addresses)}
    for address in target.addresses:
        if family_of(address) in sources:
            return sources[family_of(address)], address
    raise KproxyError(f"{sender.text} and {target.text} have no addresses of the same family.")


def _transport(target: Party, port: str, protocol: str) -> tuple[int, Protocol | None]:
    """Return the port and the protocol."""
    if protocol == ICMP:
        if port:
            raise CommandLineError("icmp has no ports: use HOST/icmp.")
        return 0, None
    if protocol and protocol not in list(Protocol):
        raise CommandLineError(f"{protocol!r} is not one of {', '.join(Protocol)} and icmp.")
    ports = target.service.ports if target.service else ()
    if port.isdigit():
        return _numbered(ports, int(port), protocol)
    return _named(target, [each for each in ports if not protocol or each.protocol == protocol], port)


def _numbered(ports: Sequence[ServicePort], number: int, protocol: str) -> tuple[int, Protocol]:
    """Return a port with its protocol: the one on the command line, that of the Service's port, or TCP."""
    if not 0 < number < 65536:
        raise CommandLineError(f"Port {number} is not between 1 and 65535.")
    own = next((each.protocol for each in ports if each.port == number), Protocol.TCP)
    return number, Protocol(protocol) if protocol else own


def _named(target: Party, ports: Sequence[ServicePort], name: str) -> tuple[int, Protocol]:
    """Return the Service's port of this name, or its only one for ""."""
    if target.service is None:
        raise CommandLineError(f"{target.text} needs a port: HOST:PORT, or HOST/icmp for ping.")
    found = [each for each in ports if each.name == name] if name else ports
    if len(found) == 1:
        return found[0].port, found[0].protocol
    known = ", ".join(f"{each.name or '-'} ({each.port}/{each.protocol})" for each in target.service.ports)
    problem = f"has no port {name!r}" if name else "has several ports"
    raise KproxyError(f"{target.text} {problem}. Its ports are {known}.")
