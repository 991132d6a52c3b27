"""The simulator and the kernel agree for random services, policies, flags and packets.

Each run programs several random states on one node, one after the other, and sends packets in each. The seed
of the run determines everything. A failure shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address, ip_network
from random import Random
from typing import TypeVar

import pytest

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
    parse_address,
)
from kproxy.reconcile.dataplane import Dataplane
from kproxy.resolve.frontends import all_frontends
from kproxy.table.compile import compile_frontends
from kproxy.table.keys import (
    AffinityKey,
    PackedSocket,
    affinity_key,
    frontend_key,
    frontend_socket,
    pack_socket,
)
from kproxy.table.names import SetName, affinity_map
from kproxy.table.simulator import Fate, Packet, PacketOutcome, Simulator
from kproxy.table.skeleton import Options
from tests.property.tunnels import Entry, Tunnels
from tests.unit.namespace import in_fresh_namespace

T = TypeVar("T")
STATES, PACKETS = 2, 125
"""The states of a run, and the packets of a state."""
RUNS, LONG_RUNS = 8, 200
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


def agrees(outcome: PacketOutcome, packet: Packet, entry: Entry | None, refused: bool) -> bool:
    """Whether the kernel did what the simulator computed."""
    if entry is None:
        return outcome.fate is (Fate.REFUSED if refused else Fate.DROPPED)
    ports = (packet.source_port, packet.port) if packet.protocol else (0, 0)
    masqueraded = entry.client != (packet.source, ports[0])
    if entry.endpoint == pack_socket(packet.destination, ports[1]) and outcome.fate is Fate.UNTOUCHED:
        return not masqueraded
    return (entry.endpoint, masqueraded) in {(c.endpoint, c.masqueraded) for c in outcome.choices}


def run(seed: int) -> tuple[list[str], dict[Fate, int]]:
    """Return the disagreements of simulator and kernel, and the number of packets with each fate."""
    draw = Draw(seed)
    own = [draw.address(NODE, 1), draw.address(NODE, 2)]
    anywhere = "0.0.0.0/0" if draw.family is Family.IPV4 else "::/0"
    routes = {anywhere: "out0", str(draw.host(PODS_HERE, 1)): "pod0", str(draw.network(PODS_HERE)): "pod1"}
    tunnels = Tunnels(INTERFACES, own, routes)
    disagreements: list[str] = []
    fates = dict.fromkeys(Fate, 0)
    options = draw.options()
    with Netlink() as netlink:
        dataplane = Dataplane(netlink, draw.family, options)
        for state in range(STATES):
            services = [draw.service(number) for number in range(draw.random.randint(1, 6))]
            slices = {service.name: draw.slices(service) for service in services}
            resolved = all_frontends(services, slices, draw.node())
            dataplane.reconcile(compile_frontends(resolved.frontends, draw.family))
            simulator = Simulator(draw.family, dataplane.applied, options, frozenset(own))
            affinity = {protocol: _affinity(netlink, draw.family, protocol) for protocol in Protocol}
            first = 20000 + state * PACKETS
            packets = [draw.packet(services, first + number) for number in range(PACKETS)]
            refusals = [tunnels.send(packet) for packet in packets]
            entries = tunnels.connections()
            for packet, refused in zip(packets, refusals, strict=True):
                remembered = affinity[packet.protocol] if packet.protocol else {}
                outcome = simulator.first_packet(packet, remembered)
                entry = entries.get((packet.protocol or "ping", packet.source_port))
                fates[outcome.fate] += 1
                if not agrees(outcome, packet, entry, refused):
                    disagreements.append(
                        f"seed {seed}, state {state}: {packet} {outcome} {entry} {refused=} {options}"
                    )
                if packet.protocol and entry and outcome.fate is Fate.TRANSLATED:
                    key = frontend_key(packet.destination, packet.protocol, packet.port)
                    if key in dataplane.applied[SetName.AFFINITY_RULES]:
                        remembered[affinity_key(packet.source, frontend_socket(key))] = entry.endpoint
    return disagreements, fates


def _affinity(netlink: Netlink, family: Family, protocol: Protocol) -> dict[AffinityKey, PackedSocket]:
    elements = map(read_element, netlink.elements(family, affinity_map(protocol)))
    return {AffinityKey(key): PackedSocket(value) for key, value in elements if isinstance(value, bytes)}


@pytest.mark.lab
@pytest.mark.parametrize("seed", range(RUNS))
def test_simulator_and_kernel_agree(seed: int) -> None:
    disagreements, fates = in_fresh_namespace(partial(run, seed))
    assert disagreements == []
    assert sum(fates.values()) == STATES * PACKETS


@pytest.mark.lab
@pytest.mark.long
def test_simulator_and_kernel_agree_on_many_packets() -> None:
    packets = 0
    for seed in range(RUNS, RUNS + LONG_RUNS):
        disagreements, fates = in_fresh_namespace(partial(run, seed))
        assert disagreements == []
        packets += sum(fates.values())
    assert packets >= 50_000
