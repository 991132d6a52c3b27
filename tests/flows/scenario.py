"""A scenario: a cluster, and one line for each packet with its expected result.

    FROM     PROTOCOL  TO        RESULT
    pod-3    tcp       web:80 -> pod-1 pod-2            one of these endpoints; the source address stays
    outside  udp       n1:30053 -> pod-1 pod-2 masq     the source address is replaced (masqueraded)
    pod-1    tcp       web:80 -> pod-1/masq pod-2:8090  masqueraded for one of them; the endpoint's port
    n1       tcp       web:80 -> pod-1*3 pod-2          three times as often
    pod-1    tcp       web:80 -> hash pod-1 pod-2       one of these, always the same for a client
    pod-1    tcp       vip:80 -> pod-1*2 refused        refused instead, one time in three
    pod-1    sctp      web:81 -> refused                answered with a reset or port unreachable
    pod-1    ping      web -> dropped                   no answer
    outside  tcp       vip:81 -> untouched              no rule of the table applies

TO is a Service (its ClusterIP), a node, a pod or a name in `BOOK` (objects.py). A line applies to both
families unless it ends in `(4)` or `(6)`. Text after `#` is a comment. If it names a test of kube-proxy,
docs/kube-proxy-flows.md lists that test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from msgspec.structs import replace
from netns_lab.topology import KUBIA, POD_NETWORK, Client, Family, Topology, lab_node, lab_pod
from netns_lab.wire import interface_name

from kproxy.cli import settings_from
from kproxy.controlplane.ledger import NOTHING
from kproxy.decode import Document, decode
from kproxy.model import Address, Protocol, parse_address
from kproxy.model import Family as TableFamily
from kproxy.model import Node as ProxyNode
from kproxy.settings.derived import dataplane_options, ranges
from kproxy.table.compile import Desired, compile_frontends
from kproxy.table.plan import initial_elements
from kproxy.table.simulator import Packet, Simulator
from kproxy.table.skeleton import Options
from tests.flows.objects import BOOK, FAMILIES, Manifest, Service, cluster_ip
from tests.resolution import resolve

TABLE_FAMILY = {4: TableFamily.IPV4, 6: TableFamily.IPV6}
SERVICE_CIDRS = "10.96.0.0/16,fd00:96::/112"
LOCAL = Client("outside", v4="192.168.77.200", v6="fd77::200")
BLOCKED = Client("blocked", v4="192.168.77.130", v6="fd77::130")


def topology(nodes: int = 1, pods: int = 3) -> Topology:
    """One node with `pod-1`, `pod-2`..., or several nodes with `n1-pod-1`...; two external clients."""
    return Topology(
        nodes=tuple(lab_node(number) for number in range(1, nodes + 1)),
        pods=tuple(
            lab_pod(f"pod-{p}" if nodes == 1 else f"n{n}-pod-{p}", n, p, {"app": "web"}, KUBIA)
            for n in range(1, nodes + 1)
            for p in range(1, pods + 1)
        ),
        clients=(LOCAL, BLOCKED),
    )


ONE = topology()
TWO = topology(nodes=2, pods=2)


REFUSED = "refused"


class Expected(NamedTuple):
    """An endpoint in a row, or REFUSED for a share of connections."""

    pod: str
    port: int | None
    """None: any port."""
    weight: int
    masqueraded: bool


class Row(NamedTuple):
    """A packet and its expected result."""

    source: str
    protocol: str
    destination: str
    port: int
    fate: str
    """translated, refused, dropped or untouched."""
    endpoints: tuple[Expected, ...]
    hashed: bool
    families: tuple[Family, ...]
    text: str

    @property
    def silent(self) -> bool:
        """Whether no answer is expected."""
        return self.fate in ("dropped", "untouched")


_ROW = re.compile(
    r"(?P<source>\S+) (?P<protocol>tcp|udp|sctp|ping) (?P<to>[^\s:]+)(:(?P<port>\d+))? -> "
    r"(?P<result>[^()]+?)( \((?P<family>[46])\))?"
)
_ENDPOINT = re.compile(r"(?P<pod>[-\w]+)(:(?P<port>\d+))?(\*(?P<weight>\d+))?(?P<masq>/masq)?")


def parse_row(line: str) -> Row:
    """Parse a row. Raises ValueError if it is not valid."""
    text = " ".join(line.partition("#")[0].split())
    found = _ROW.fullmatch(text)
    if not found:
        raise ValueError(f"not a row: {text!r}")
    words, hashed, masqueraded = found["result"].split(), False, False
    fate = words[0] if words[0] in (REFUSED, "dropped", "untouched") else "translated"
    if fate != "translated":
        words = words[1:]
    elif words[0] == "hash":
        words, hashed = words[1:], True
    if words and words[-1] == "masq":
        words, masqueraded = words[:-1], True
    endpoints = []
    for word in words:
        named = _ENDPOINT.fullmatch(word)
        if not named:
            raise ValueError(f"{word!r} is not an endpoint in {text!r}")
        number = int(named["port"]) if named["port"] else None
        masked = (masqueraded or bool(named["masq"])) and named["pod"] != REFUSED
        endpoints.append(Expected(named["pod"], number, int(named["weight"] or 1), masked))
    families: tuple[Family, ...] = FAMILIES
    if found["family"]:
        families = (4,) if found["family"] == "4" else (6,)
    to_port = int(found["port"] or 0)
    source, protocol, to = found["source"], found["protocol"], found["to"]
    return Row(source, protocol, to, to_port, fate, tuple(endpoints), hashed, families, text)


def _packed(addresses: Iterable[str]) -> tuple[Address, ...]:
    return tuple(map(parse_address, addresses))


class Scenario(NamedTuple):
    """A cluster, the flags of kproxy on its nodes, and rows."""

    name: str
    services: Sequence[Service]
    rows: str
    flags: str = ""
    topology: Topology = ONE
    others: Sequence[Manifest] = ()
    """Nodes and pods, where they have an effect."""
    cluster_cidr: bool = True
    service_cidr: str = SERVICE_CIDRS
    local: tuple[str, ...] = ()
    """Names in `BOOK` of additional addresses of n1."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes, all of which run kproxy."""
        return tuple(node.name for node in self.topology.nodes)

    def parsed(self) -> Iterator[Row]:
        """Return the rows."""
        return (parse_row(line) for line in self.rows.splitlines() if line.partition("#")[0].strip())

    def manifests(self) -> list[Manifest]:
        """Return all objects."""
        numbered = enumerate(self.services)
        return [
            *(m for index, service in numbered for m in service.manifests(index, self.topology)),
            *self.others,
        ]

    def arguments(self, name: str) -> list[str]:
        """Return the flags of kproxy on a node."""
        own = self.topology.addresses(self.topology.node(name)).values()
        return [
            *("--node-name", name, "--node-ip", ",".join(own)),
            *(("--service-cidr", self.service_cidr) if self.service_cidr else ()),
            *(("--cluster-cidr", ",".join(POD_NETWORK.values())) if self.cluster_cidr else ()),
            *self.flags.split(),
        ]

    def address(self, name: str, family: Family) -> str:
        """Return the address that a name in a row stands for."""
        for index, service in enumerate(self.services):
            if service.name == name:
                return cluster_ip(index, family)
        return (
            BOOK[name][family] if name in BOOK else self.topology.addresses(self.topology.host(name))[family]
        )

    def packed(self, name: str, family: Family) -> Address:
        """Return the same address, packed."""
        return parse_address(self.address(name, family))

    def local_addresses(self, node: str, family: Family) -> list[str]:
        """Return a node's addresses, the primary one first."""
        primary = self.topology.addresses(self.topology.node(node))[family]
        return [primary, *(BOOK[name][family] for name in (self.local if node == "n1" else ()))]

    # --- the path of the packet ---

    def source_address(self, row: Row, family: Family) -> str:
        """Return the sender's address. A node that sends to itself uses the destination as source."""
        to = self.address(row.destination, family)
        if self._is_node(row.source) and to in self.local_addresses(row.source, family):
            return to
        return self.address(row.source, family)

    def path(self, row: Row, family: Family) -> list[tuple[str, str]]:
        """Return the nodes with kproxy that an untranslated packet passes, and where it arrives on each."""
        where, interface = row.source, ""
        hosts = self.topology
        if row.source in {pod.name for pod in hosts.pods}:
            where, interface = hosts.pod(row.source).node, interface_name(row.source)
        owners = [n.name for n in hosts.nodes if row.destination == n.name]
        if row.source in {client.name for client in hosts.clients}:
            where, interface = (
                owners[0] if owners else hosts.client(row.source).via or hosts.nodes[0].name,
                "eth0",
            )
        way = [(where, interface)]
        if owners and owners[0] != where:
            way.append((owners[0], "eth0"))
        return [(name, arriving) for name, arriving in way if name in self.nodes]

    def _is_node(self, name: str) -> bool:
        return name in {node.name for node in self.topology.nodes}

    # --- for the simulator ---

    def compiled(self, node: str) -> tuple[Options, dict[Family, Desired]]:
        """Return the rules' options and the desired elements on a node."""
        settings = settings_from(["sync", "-f", "-", *self.arguments(node)])
        decoded = decode([Document("scenario", manifest) for manifest in self.manifests()])
        primary = self.topology.addresses(self.topology.node(node)).values()
        shown = [a for f in FAMILIES for a in self.local_addresses(node, f)]
        if settings.nodeport_addresses is None:
            shown = list(primary)
        else:
            shown = [a for a in shown if any(ip_address(a) in n for n in settings.nodeport_addresses)]
        known = decoded.state.nodes.get(node)
        proxy_node = ProxyNode(node, _packed(shown), _packed(primary))
        if known:
            proxy_node = replace(proxy_node, zone=known.zone, pod_cidrs=known.pod_cidrs)
        outcome = resolve(decoded, NOTHING, ranges(settings), proxy_node)
        assert outcome.problems == []
        desired = {f: compile_frontends(outcome.frontends, TABLE_FAMILY[f]) for f in FAMILIES}
        return dataplane_options(settings, proxy_node), desired

    def simulator(self, node: str, family: Family) -> Simulator:
        """Return a simulator of the table on a node."""
        options, desired = self.compiled(node)
        elements = initial_elements(desired[family].specs, desired[family].elements)
        local = frozenset(map(parse_address, self.local_addresses(node, family)))
        return Simulator(TABLE_FAMILY[family], elements, options, local)

    def packet(self, row: Row, family: Family, interface: str, source_port: int = 0) -> Packet:
        """Return the packet of a row as it arrives at a node."""
        return Packet(
            source=parse_address(self.source_address(row, family)),
            destination=self.packed(row.destination, family),
            protocol=None if row.protocol == "ping" else Protocol(row.protocol),
            port=row.port,
            source_port=source_port,
            interface=interface,
        )
