"""Topologies as data: nodes, pods and clients, their addresses and ports.

Every node and client has one address per family on the LAN, a bridge that
connects them. A node has a range of pod addresses in each family; a pod has an
address in its node's range, or the node's own with ``host_network``. Names are
unique in a topology, because each is a namespace: lower-case DNS labels.

``chapter``, ``single`` and ``multi`` return the usual topologies, ``nodes_only``
one for pods that come later.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any, Literal, TypeVar
from zlib import crc32

Family = Literal[4, 6]

LAN_GATEWAY: dict[Family, str] = {4: "192.168.77.1", 6: "fd77::1"}
"""The default gateway of the nodes. It forwards nothing, and answers only its neighbours."""

LOCALHOST: dict[Family, str] = {4: "127.0.0.1", 6: "::1"}

LAN: dict[Family, str] = {4: "192.168.77.0/24", 6: "fd77::/64"}

POD_NETWORK: dict[Family, str] = {4: "10.244.0.0/16", 6: "fd00:10:244::/48"}
"""The cluster CIDRs, which contain the pod ranges of all nodes."""

RESERVED_NAMES = frozenset({"lan", "lo", "eth0"})
KUBIA_NAMES = ("kubia-4bv25", "kubia-7sd67", "kubia-zhg6k")


@dataclass(frozen=True, slots=True)
class Port:
    """A named port with a server: HTTP on tcp, an echo on udp. HTTP appends ``text`` to its answers.

    With ``to_https``, HTTP redirects its clients to the same address with https (301). With
    ``fails_after``, it answers 500 to all requests after that number of them.
    """

    name: str
    number: int
    protocol: Literal["tcp", "udp"] = "tcp"
    text: str = ""
    to_https: bool = False
    fails_after: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    v4: str
    v6: str
    pod_cidr_v4: str
    pod_cidr_v6: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. With ``host_network``, ``v4`` and ``v6`` are empty, and it has its node's addresses.

    Processes in it have ``environment``, and ``resolv_conf`` as their /etc/resolv.conf, unless it is empty.
    With ``localhost_only``, it listens on 127.0.0.1 and ::1 instead of its addresses. ``manifest`` has the
    ``metadata`` and the ``spec`` of its Kubernetes object, if it was started for one.
    """

    name: str
    node: str
    v4: str = ""
    v6: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    host_network: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    localhost_only: bool = False
    resolv_conf: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Client:
    """A host on the LAN that is not a node. ``via`` is the node that it routes through (default: the first).

    With ``lan`` it routes through the gateway of the LAN, which drops all packets, so it reaches only hosts
    on the LAN.

    It can have an address from another network, and ports with servers, like a host on the internet.
    """

    name: str
    v4: str
    v6: str
    via: str = ""
    ports: tuple[Port, ...] = ()


Host = Node | Pod | Client
Each = TypeVar("Each", bound=Host)


@dataclass(frozen=True)
class Topology:
    """The content of a lab. Raises ValueError with a message if it is not valid."""

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...] = ()
    clients: tuple[Client, ...] = ()
    families: tuple[Family, ...] = (4, 6)

    def __post_init__(self) -> None:
        node_names = {node.name for node in self.nodes}
        names = [host.name for host in self.hosts]
        if not self.nodes:
            raise ValueError("a topology needs at least one node")
        for name in names:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) or name in RESERVED_NAMES:
                raise ValueError(f"{name!r} is not a valid name of a node, pod or client")
            if names.count(name) > 1:
                raise ValueError(f"duplicate name {name!r}")
        for pod in self.pods:
            if pod.node not in node_names:
                raise ValueError(f"pod {pod.name}: there is no node {pod.node!r}")
            for variable, value in pod.environment.items():
                if not variable or "=" in variable or "\0" in variable + value:
                    raise ValueError(f"pod {pod.name}: invalid variable {variable!r} with value {value!r}")
        for client in self.clients:
            if client.via and client.via not in {*node_names, "lan"}:
                raise ValueError(f"client {client.name} routes via {client.via!r}, which is not a node")
        for host in self.hosts:
            for family, address in self.addresses(host).items():
                if not _is_address(address, family):
                    raise ValueError(f"{host.name}: {address!r} is not an IPv{family} address")

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (*self.nodes, *self.pods, *self.clients)

    def host(self, name: str) -> Host:
        return _named(self.hosts, "node, pod or client", name)

    def node(self, name: str) -> Node:
        return _named(self.nodes, "node", name)

    def pod(self, name: str) -> Pod:
        return _named(self.pods, "pod", name)

    def client(self, name: str) -> Client:
        return _named(self.clients, "client", name)

    def addresses(self, owner: Host) -> dict[Family, str]:
        """Return the addresses of ``owner`` by family; those of its node for a host-network pod."""
        if isinstance(owner, Pod) and owner.host_network:
            owner = self.node(owner.node)
        both: dict[Family, str] = {4: owner.v4, 6: owner.v6}
        return {family: both[family] for family in self.families}

    def gateway(self, client: Client) -> dict[Family, str]:
        """Return the default gateways of a client."""
        if client.via == "lan":
            return {family: LAN_GATEWAY[family] for family in self.families}
        return self.addresses(self.node(client.via) if client.via else self.nodes[0])

    def pod_cidrs(self, node: Node) -> dict[Family, str]:
        both: dict[Family, str] = {4: node.pod_cidr_v4, 6: node.pod_cidr_v6}
        return {family: both[family] for family in self.families}

    def listens_on(self, owner: Pod | Client) -> list[str]:
        """Return the addresses that its servers listen on."""
        alone = isinstance(owner, Pod) and owner.localhost_only
        return [LOCALHOST[f] if alone else own for f, own in self.addresses(owner).items()]

    def with_pod(self, pod: Pod) -> "Topology":
        return replace(self, pods=(*self.pods, pod))

    def with_replaced(self, pod: Pod) -> "Topology":
        """Return the topology with another pod of the same name."""
        old = self.pod(pod.name)
        return replace(self, pods=tuple(pod if each is old else each for each in self.pods))

    def without_pod(self, name: str) -> "Topology":
        removed = self.pod(name)
        return replace(self, pods=tuple(pod for pod in self.pods if pod is not removed))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Topology":
        """Return a topology from its ``asdict`` after a conversion to JSON and back."""
        return cls(
            nodes=tuple(Node(**node) for node in plain["nodes"]),
            pods=tuple(Pod(**_with_ports(pod)) for pod in plain["pods"]),
            clients=tuple(Client(**_with_ports(client)) for client in plain["clients"]),
            families=tuple(plain["families"]),
        )


def _with_ports(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {**plain, "ports": tuple(Port(**port) for port in plain["ports"])}


def _is_address(text: str, family: Family) -> bool:
    try:
        return ip_address(text).version == family
    except ValueError:
        return False


def _named(all_of: tuple[Each, ...], kind: str, name: str) -> Each:
    for each in all_of:
        if each.name == name:
            return each
    raise LookupError(f"no {kind} {name!r}; present: {', '.join(each.name for each in all_of) or 'none'}")


def lab_node(number: int) -> Node:
    """Return the node ``n<number>``, counted from 1, with the addresses and ranges of that number."""
    return Node(
        name=f"n{number}",
        v4=f"192.168.77.{10 + number}",
        v6=f"fd77::{10 + number}",
        pod_cidr_v4=f"10.244.{number}.0/24",
        pod_cidr_v6=f"fd00:10:244:{number}::/64",
    )


def lab_pod(
    name: str, node: int, number: int, labels: Mapping[str, str] | None = None, ports: tuple[Port, ...] = ()
) -> Pod:
    """Return a pod of node ``n<node>`` with the address of that number, counted from 1, in its ranges."""
    return Pod(
        name=name,
        node=f"n{node}",
        v4=f"10.244.{node}.{1 + number}",
        v6=f"fd00:10:244:{node}::{1 + number}",
        labels=labels or {},
        ports=ports,
    )


def pod_addresses(node: Node, taken: Iterable[Pod]) -> dict[Family, str]:
    """Return the addresses of a node's next pod: after all that are taken, or else the first free ones.

    Raises ValueError if there are none.
    """
    v4, v6 = ip_network(node.pod_cidr_v4), ip_network(node.pod_cidr_v6)
    used = {
        int(ip_address(pod.v4)) - int(v4.network_address) for pod in taken if pod.v4 and pod.node == node.name
    }
    free = (number for number in range(2, v4.num_addresses - 1) if number not in used)
    after = max(used, default=1) + 1
    number = after if after < v4.num_addresses - 1 else next(free, None)
    if number is None:
        raise ValueError(f"node {node.name} has no more addresses for pods")
    return {4: str(v4.network_address + number), 6: str(v6.network_address + number)}


WEB = (Port("http", 8080), Port("echo", 5353, "udp"))
KUBIA = (
    Port("http-default", 8080, text="on default mux"),
    Port("http-mux1", 8090, text="on mux1"),
    Port("echo", 5353, "udp"),
)
OUTSIDE = Client("outside", v4="192.168.77.200", v6="fd77::200")


def chapter(pods: int = 3) -> Topology:
    """Return the book chapter's cluster: one node with kubia pods, a client pod and an external client."""
    names = [*KUBIA_NAMES, *(f"kubia-{crc32(bytes([n])):05x}"[:11] for n in range(3, pods))][:pods]
    kubia = [lab_pod(name, 1, n, {"app": "kubia"}, KUBIA) for n, name in enumerate(names, start=1)]
    client = lab_pod("client", 1, pods + 1, {"app": "client"})
    return Topology(nodes=(lab_node(1),), pods=(*kubia, client), clients=(OUTSIDE,))


def single(n_pods: int = 1) -> Topology:
    """Return one node with pods ``pod-1``... that serve 8080/tcp and 5353/udp, and an external client."""
    pods = [lab_pod(f"pod-{n}", 1, n, {"app": "web"}, WEB) for n in range(1, n_pods + 1)]
    return Topology(nodes=(lab_node(1),), pods=tuple(pods), clients=(OUTSIDE,))


def nodes_only(n_nodes: int, external: tuple[Client, ...] = ()) -> Topology:
    """Return nodes ``n1``, ``n2``... without pods, the client ``outside``, and other external clients."""
    return Topology(
        nodes=tuple(lab_node(number) for number in range(1, n_nodes + 1)), clients=(OUTSIDE, *external)
    )


def multi(n_nodes: int = 2, pods_per_node: int = 2) -> Topology:
    """Return nodes ``n1``, ``n2``..., each with pods as in ``single``, and an external client."""
    numbers = range(1, n_nodes + 1)
    pods = [
        lab_pod(f"n{node}-pod-{n}", node, n, {"app": "web"}, WEB)
        for node in numbers
        for n in range(1, pods_per_node + 1)
    ]
    return Topology(nodes=tuple(map(lab_node, numbers)), pods=tuple(pods), clients=(OUTSIDE,))
