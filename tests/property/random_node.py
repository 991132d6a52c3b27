"""A node in this network namespace with random Services, policies and flags, and random packets for it.

A seed determines everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import ip_address, ip_network
from random import Random
from typing import NamedTuple, TypeAlias, TypeVar

from kproxy.explain.answer import Answer, answer
from kproxy.explain.question import Asker
from kproxy.explain.tables import simulator
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import (
    Address,
    Balance,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Network,
    Node,
    Origin,
    Protocol,
    Service,
    ServicePort,
    format_address,
    format_socket,
    parse_address,
)
from kproxy.reconcile.dataplane import Dataplane
from kproxy.resolve.claims import all_frontends
from kproxy.show.snapshot import Snapshot
from kproxy.sources.core.inventory import Inventory
from kproxy.table.compile import compile_frontends
from kproxy.table.layout import (
    AffinityKey,
    PackedSocket,
    affinity_map,
)
from kproxy.table.simulator import Affinity, Packet, Simulator
from kproxy.table.skeleton import Options
from tests.property.tunnels import Tunnels

T = TypeVar("T")
Slices: TypeAlias = dict[NamespacedName, tuple[EndpointSlice, ...]]
PREFIX = {Family.IPV4: "10.0.{}.{}", Family.IPV6: "fd00:10:{}::{}"}
PODS_HERE, PODS_ELSEWHERE, NODE, CLUSTER_IPS, SHOWN, LOCAL = 0, 1, 2, 3, 4, 5
"""The kind of an address, which is the third part of it."""
INTERFACES = ("out0", "pod0", "pod1")
ORIGIN = Origin("test", "")


class Draw:
    """Random values of one family."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.family = self.of(Family)

    def of(self, values: Iterable[T]) -> T:
        """Return a random one of `values`."""
        return self.random.choice(list(values))

    def some(self, values: Iterable[T], least: int = 0, most: int = 4) -> list[T]:
        """Return a random selection of `values`, each at most once."""
        values = list(values)
        return self.random.sample(values, min(len(values), self.random.randint(least, most)))

    def chance(self, share: float) -> bool:
        """Return True with the probability `share`."""
        return self.random.random() < share

    def address(self, kind: int, number: int) -> Address:
        return parse_address(PREFIX[self.family].format(kind, number))

    def network(self, kind: int, bits: int = 24, number: int = 0) -> Network:
        return ip_network(
            (self.address(kind, number), bits + (self.family is Family.IPV6) * (48 - 24)), strict=False
        )

    def host(self, kind: int, number: int) -> Network:
        return ip_network(self.address(kind, number))

    # --- a state ---

    def options(self) -> Options:
        pods = self.of(
            [(), (self.network(PODS_HERE),), (self.network(PODS_HERE), self.network(PODS_ELSEWHERE))]
        )
        return Options(
            pod_cidrs=pods,
            service_cidrs=(self.network(CLUSTER_IPS),) if self.chance(0.5) else (),
            masquerade_all=self.chance(0.2),
            pod_interface="" if pods else self.of(["", "pod*", "pod0", "out*"]),
            max_endpoint_counters=self.of([None, 0, 12]),
        )

    def node(self) -> Node:
        own = [self.address(NODE, 1), self.address(NODE, 2)]
        return Node("n1", tuple(own if self.chance(0.3) else own[:1]), (own[0],), self.of(["", "a", "b"]))

    def service(self, number: int) -> Service:
        kind = self.of(["ClusterIP", "NodePort", "LoadBalancer"])
        wanted = [(p, n) for p in Protocol for n in (80, 53)]
        ports = [
            ServicePort(f"p{i}", protocol, n, 8000 + i, 30000 + 10 * number + i if kind != "ClusterIP" else 0)
            for i, (protocol, n) in enumerate(self.some(wanted, 1, 3))
        ]
        sticky = self.chance(0.3)
        shown = [self.address(SHOWN, 10 * number + i) for i in range(1, 5)]
        ranges = [
            self.host(NODE, 1),
            self.network(LOCAL),
            self.network(LOCAL, 30, 5),
            self.network(PODS_HERE),
        ]
        return Service(
            name=NamespacedName("default", f"s{number}"),
            origin=ORIGIN,
            type=kind,
            ports=tuple(ports),
            selector={},
            cluster_ips=(self.address(CLUSTER_IPS, number + 1),),
            headless=False,
            families=(self.family,),
            family_policy="",
            affinity_timeout=self.of([600, 10800]) if sticky else None,
            publish_not_ready=False,
            internal_local=self.chance(0.25),
            external_local=self.chance(0.4),
            external_ips=tuple(self.some(shown[:2], 0, 2)),
            load_balancer_ips=tuple(self.some(shown[1:], 1, 2)) if kind == "LoadBalancer" else (),
            source_ranges=tuple(self.some(ranges, 1, 3)) if self.chance(0.4) else (),
            hashing=None if sticky else self.of([None, None, Balance.CLIENT, Balance.CLIENT_PORT]),
            weights={str(ip_address(self.address(PODS_HERE, 1))): 3} if self.chance(0.2) else {},
        )

    def endpoint(self, address: Address, here: bool) -> Endpoint:
        ready = self.chance(0.7)
        return Endpoint(
            address,
            ready=ready,
            serving=ready or self.chance(0.6),
            terminating=not ready and self.chance(0.7),
            node=self.of(["n1", "n1", ""]) if here else self.of(["n2", "n2", ""]),
            for_zones=tuple(self.some("ab", 1, 2)) if self.chance(0.6) else (),
            for_nodes=(self.of(["n1", "n2"]),) if self.chance(0.3) else (),
        )

    def slices(self, service: Service) -> tuple[EndpointSlice, ...]:
        here = [self.address(PODS_HERE, n) for n in range(1, 5)] + [self.address(NODE, 1)]
        elsewhere = [self.address(PODS_ELSEWHERE, n) for n in range(1, 5)]
        endpoints = [self.endpoint(address, True) for address in self.some(here, 0, 3)]
        endpoints += [self.endpoint(address, False) for address in self.some(elsewhere, 0, 3)]
        ports = tuple(EndpointPort(p.name, p.protocol, 8000 + i) for i, p in enumerate(service.ports))
        return (EndpointSlice(service.name, ORIGIN, "s", self.family, ports, tuple(endpoints)),)

    # --- a packet ---

    def packet(self, services: list[Service], source_port: int) -> Packet:
        interface = self.of([*INTERFACES, ""])
        here, elsewhere = (
            self.address(PODS_HERE, self.of([1, 2, 3, 4])),
            self.address(PODS_ELSEWHERE, self.of([1, 2])),
        )
        outside = self.address(LOCAL, self.random.randint(1, 20))
        if not interface:
            source = self.address(NODE, self.of([1, 1, 2]))
        else:
            likely = here if interface.startswith("pod") else self.of([outside, outside, elsewhere])
            source = likely if self.chance(0.8) else self.of([here, elsewhere, outside])
        service = self.of(services)
        protocol, number, node_port = self.of((p.protocol, p.port, p.node_port) for p in service.ports)
        to, port = self.of([
            (service.cluster_ips[0], number),
            *((address, number) for address in (*service.external_ips, *service.load_balancer_ips)),
            *((self.address(NODE, n), node_port) for n in (1, 2) if node_port),
        ])  # fmt: skip
        if self.chance(0.15):
            protocol, port = self.of(Protocol), self.of([80, 53, 443, 30000])
        if self.chance(0.05):
            to = self.of(
                [self.address(CLUSTER_IPS, 200), self.address(SHOWN, 200), here, self.address(NODE, 2)]
            )
        if self.chance(0.05):
            return Packet(source, to, None, 0, source_port, interface)
        return Packet(source, to, protocol, port, source_port, interface)


class Explained:
    """What `kproxy explain` answers about packets in one state."""

    def __init__(self, table: Simulator, services: list[Service], slices: Slices, node: Node) -> None:
        inventory = Inventory({service.name: service for service in services}, slices)
        frontends = list(all_frontends(services, slices, node).frontends)
        self._snapshot = Snapshot(inventory, frontends, [], node, options=table.options)
        self._local = table.local

    def answer(self, packet: Packet, affinity: Affinity) -> Answer:
        """Return the answer to the question about a packet, as a user asks it."""
        asker = Asker(self._snapshot, "default", packet.interface, packet.source_port, self._local)
        to = format_socket(packet.destination, packet.port) if packet.protocol else f"[{host(packet)}]"
        question = asker.question(format_address(packet.source), f"{to}/{packet.protocol or 'icmp'}")
        assert question.packet == packet
        table = simulator(self._snapshot, packet.destination, self._local)
        return answer(table, question, self._snapshot, affinity)


def host(packet: Packet) -> str:
    """Return the destination."""
    return format_address(packet.destination)


class State(NamedTuple):
    """One state of a node: its Services are programmed."""

    services: list[Service]
    table: Simulator
    explained: Explained
    affinity: Callable[[Protocol | None], dict[AffinityKey, PackedSocket]]
    """Reads the affinity entries of a protocol from the kernel."""


class RandomNode:
    """A node with random options in this network namespace, which must be new."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = Draw(seed)
        self._own = [draw.address(NODE, 1), draw.address(NODE, 2)]
        anywhere = "0.0.0.0/0" if draw.family is Family.IPV4 else "::/0"
        pods = {str(draw.host(PODS_HERE, 1)): "pod0", str(draw.network(PODS_HERE)): "pod1"}
        self.tunnels = Tunnels(INTERFACES, self._own, {anywhere: "out0"} | pods)
        self.options = draw.options()

    def states(self, count: int) -> Iterator[State]:
        """Program random states, one after the other."""
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, self.draw.family, self.options)
            for _ in range(count):
                yield self._state(netlink, dataplane)

    def _state(self, netlink: Netlink, dataplane: Dataplane) -> State:
        draw = self.draw
        services = [draw.service(number) for number in range(draw.random.randint(1, 6))]
        slices = {service.name: draw.slices(service) for service in services}
        node = draw.node()
        frontends = all_frontends(services, slices, node).frontends
        dataplane.reconcile(compile_frontends(frontends, draw.family))
        table = Simulator(draw.family, dataplane.applied, self.options, frozenset(self._own))
        explained = Explained(table, services, slices, node)
        return State(services, table, explained, partial(_affinity, netlink, draw.family))


def _affinity(netlink: Netlink, family: Family, protocol: Protocol | None) -> dict[AffinityKey, PackedSocket]:
    if protocol is None:
        return {}
    elements = map(read_element, netlink.elements(family, affinity_map(protocol)))
    return {AffinityKey(key): PackedSocket(value) for key, value in elements if isinstance(value, bytes)}
