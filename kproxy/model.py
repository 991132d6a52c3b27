"""The objects that the pipeline passes on, in Kubernetes' terms.

Frozen msgspec structs: as small and as fast to make as Python allows, which counts
at 100,000 services. Addresses are packed bytes in network order (4 or 16 of them),
the form in which map keys hold them; `parse_address` and `format_address` convert.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct

Address: TypeAlias = bytes
if TYPE_CHECKING:
    Network: TypeAlias = IPv4Network | IPv6Network
else:  # a class of both: msgspec takes no union of two types that it does not know itself
    Network = ABCMeta("Network", (), {})
    Network.register(IPv4Network)
    Network.register(IPv6Network)


class Family(StrEnum):
    """An address family, by the name of its nft table family."""

    IPV4 = "ip"
    IPV6 = "ip6"

    @property
    def width(self) -> int:
        """Bytes in an address."""
        return 4 if self is Family.IPV4 else 16


class Protocol(StrEnum):
    """A transport protocol that a service port can have, by nft's name."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The protocol number of the IP header (IANA)."""
        return {"tcp": 6, "udp": 17, "sctp": 132}[self.value]


def parse_ip(text: str) -> IPv4Address | IPv6Address:
    """An address; ValueError if it is none. IPv4-mapped IPv6 and zone ids are refused."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"{text!r} is not a plain IPv4 or IPv6 address")
    return address


def parse_address(text: str) -> Address:
    """Pack an address, as `parse_ip` takes it."""
    return parse_ip(text).packed


def format_address(address: Address) -> str:
    """The canonical text of a packed address."""
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))


def family_of(address: Address) -> Family:
    """The family of a packed address."""
    return Family.IPV4 if len(address) == 4 else Family.IPV6


def network_family(network: Network) -> Family:
    """The family of a network."""
    return Family.IPV4 if network.version == 4 else Family.IPV6


def format_socket(address: Address, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    text = format_address(address)
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"


class NamespacedName(NamedTuple):
    """The identity of a namespaced object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Protects: TypeAlias = Callable[[NamespacedName], bool]
"""Whether a Service is protected: part of its input could not be read, so nothing of it may be removed."""


def protect_nothing(_: NamespacedName) -> bool:
    """For input that was read completely."""
    return False


class Origin(NamedTuple):
    """Where an object came from, for messages, and where it stands among others of its name."""

    source: str
    """File name, or what stands for it."""
    created: str
    """metadata.creationTimestamp (RFC 3339, so that text order is time order), "" if absent."""


class Balance(StrEnum):
    """How a frontend chooses among its endpoints; the name of its chains."""

    RANDOM = "lb"
    STICKY = "sticky"
    """The endpoint that the client last got, or any."""
    CLIENT = "hash-client"
    """By consistent hash of the client's address."""
    CLIENT_PORT = "hash-client-port"
    """By consistent hash of the client's address and port."""


class ServicePort(Struct, frozen=True, gc=False):
    """One entry of spec.ports."""

    name: str
    """ "" if the service has one unnamed port."""
    protocol: Protocol
    port: int
    target_port: int | str
    """A number, or the name of a container port."""
    node_port: int
    """0: none asked for."""


class Service(Struct, frozen=True, gc=False):
    """A Service v1, with defaults filled in."""

    name: NamespacedName
    origin: Origin
    type: str
    """ClusterIP, NodePort, LoadBalancer or ExternalName."""
    ports: tuple[ServicePort, ...]
    selector: dict[str, str]
    cluster_ips: tuple[Address, ...]
    """As asked for or allocated, the primary one first; () while none is."""
    headless: bool
    families: tuple[Family, ...]
    """spec.ipFamilies, () if absent."""
    family_policy: str
    """SingleStack, PreferDualStack, RequireDualStack, "" if absent."""
    affinity_timeout: int | None
    """Seconds; None without ClientIP affinity."""
    publish_not_ready: bool
    internal_local: bool = False
    """internalTrafficPolicy: Local."""
    external_local: bool = False
    """externalTrafficPolicy: Local."""
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    """Of status.loadBalancer.ingress, those that the node serves (ipMode VIP)."""
    pool_ips: tuple[Address, ...] = ()
    """Of these, those that are kproxy's to give, and belong to it."""
    source_ranges: tuple[Network, ...] = ()
    """Who may use the load-balancer addresses; () for everyone."""
    allocate_node_ports: bool = True
    distribution: str = ""
    """spec.trafficDistribution: PreferSameZone, PreferSameNode, "" if absent."""
    proxied_elsewhere: bool = False
    """It has the label service-proxy-name: another proxy serves it."""
    hashing: Balance | None = None
    """Consistent hashing, where an annotation asks for it."""
    weights: dict[str, int] = {}
    """Slots of an endpoint, by its address or its pod's name; 1 if not named."""
    external_name: str = ""
    """What an ExternalName service is a name for."""
    ingress: tuple[str, ...] = ()
    """Of status.loadBalancer.ingress, all addresses and host names, as they are given."""
    labels: dict[str, str] = {}
    health_check_node_port: int = 0
    """Asked for or allocated; 0 while none is, or where none belongs to it."""
    load_balancer_ip: str = ""
    """As it is given: what it means is for whoever gives out such addresses to say."""
    load_balancer_class: str = ""

    @property
    def wants_cluster_ip(self) -> bool:
        """Whether a ClusterIP belongs to it: neither headless nor ExternalName."""
        return not self.headless and self.type != "ExternalName"

    @property
    def wants_health_check(self) -> bool:
        """Whether a node port belongs to it on which load balancers ask if this node has endpoints."""
        return self.type == "LoadBalancer" and self.external_local

    @property
    def wants_node_ports(self) -> bool:
        """Whether its ports get node ports by themselves."""
        return self.type == "NodePort" or (self.type == "LoadBalancer" and self.allocate_node_ports)


class EndpointPort(NamedTuple):
    """A port of a slice; `name` matches the service port's name."""

    name: str
    protocol: Protocol
    port: int


class Endpoint(Struct, frozen=True, gc=False):
    """One address behind a service."""

    address: Address
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    """The node it runs on, "" if unknown."""
    pod: str = ""
    """The name of the pod that it is, "" if unknown."""
    for_nodes: tuple[str, ...] = ()
    """Hints: nodes that should use it."""
    for_zones: tuple[str, ...] = ()
    """Hints: zones that should use it."""


class EndpointSlice(Struct, frozen=True, gc=False):
    """An EndpointSlice, or the part of an Endpoints object or of a selector's pods that has one port list."""

    service: NamespacedName
    origin: Origin
    name: str
    family: Family
    ports: tuple[EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]
    legacy: bool = False
    """Made from an Endpoints object."""
    headless: bool = False
    """It has the label headless: for who asks for addresses, not for frontends."""
    labels: dict[str, str] = {}


class ExecAction(Struct, frozen=True, tag="exec"):
    """A command in the container: exit status 0 is success."""

    command: tuple[str, ...]


class ProbePort(NamedTuple):
    """Where a probe connects to."""

    given: int | str
    """A number, or the name of a port of the container."""
    number: int
    """0: the container has no port of that name."""


class HTTPGetAction(Struct, frozen=True, tag="httpGet"):
    """A request: any status from 200 to 399 is success."""

    port: ProbePort
    path: str = "/"
    host: str = ""
    """ "": the pod's address."""
    scheme: str = "HTTP"
    """HTTP or HTTPS."""
    headers: tuple[tuple[str, str], ...] = ()


class TCPSocketAction(Struct, frozen=True, tag="tcpSocket"):
    """A connection: that it opens is success."""

    port: ProbePort
    host: str = ""
    """ "": the pod's address."""


class GRPCAction(Struct, frozen=True, tag="grpc"):
    """A call of gRPC's health service; kproxy does not make it."""

    port: int
    service: str = ""


class Probe(Struct, frozen=True):
    """A readinessProbe, with defaults filled in; times in seconds."""

    action: ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction
    initial_delay: int = 0
    period: int = 10
    timeout: int = 1
    success_threshold: int = 1
    """So many successes in a row make a container ready,"""
    failure_threshold: int = 3
    """and so many failures not ready."""


class Container(Struct, frozen=True):
    """A container of a pod, or an init container that goes on (a sidecar)."""

    name: str
    image: str = ""
    ports: tuple[EndpointPort, ...] = ()
    probe: Probe | None = None
    """Its readinessProbe."""


class ContainerCounts(NamedTuple):
    """The containers of a pod, counted: as status.containerStatuses says, or as probes found them."""

    ready: int
    total: int
    restarts: int | None
    """None: not known."""


class Pod(Struct, frozen=True):
    """A Pod, as far as services care: its labels, addresses, readiness and named ports."""

    name: NamespacedName
    origin: Origin
    labels: dict[str, str]
    addresses: tuple[Address, ...]
    ports: tuple[EndpointPort, ...]
    """Container ports that have a name."""
    ready: bool
    deleted: str
    """metadata.deletionTimestamp, "" if absent."""
    node: str
    host_network: bool = False
    """It has its node's addresses, and none of its own."""
    service_links: bool = True
    """enableServiceLinks: whether its environment names the services of its namespace."""
    phase: str = ""
    """status.phase, "" if absent."""
    counts: ContainerCounts | None = None
    """None if neither the manifest nor a probe says."""
    containers: tuple[Container, ...] = ()
    gates_open: bool = True
    """Whether the conditions of its readiness gates are all True."""
    uid: str = ""
    """metadata.uid, "" if absent."""

    @property
    def terminating(self) -> bool:
        """Whether it is about to end."""
        return bool(self.deleted)

    @property
    def probes(self) -> tuple[tuple[str, Probe], ...]:
        """Its readiness probes, by the name of the container."""
        return tuple((each.name, each.probe) for each in self.containers if each.probe)


class IngressBackend(NamedTuple):
    """Where a request goes."""

    service: str
    """ "" if it is another resource."""
    port: int | str
    """The number or the name of a port of the service."""
    resource: str = ""
    """`StorageBucket/static`, "" if it is a service."""
    api_group: str = ""
    """Of the resource."""

    def __str__(self) -> str:
        return self.resource or f"{self.service}:{self.port}"


class IngressPath(NamedTuple):
    """Requests for what begins so, or is called so, and where they go."""

    path: str
    path_type: str
    """Exact, Prefix or ImplementationSpecific; with the last one, the path may be ""."""
    backend: IngressBackend


class IngressRule(NamedTuple):
    """What is for one host."""

    host: str
    """May begin with `*.`; "": all hosts."""
    paths: tuple[IngressPath, ...]
    """(): all goes to the default backend."""


class IngressTLS(NamedTuple):
    """The certificate for some hosts."""

    hosts: tuple[str, ...]
    secret: str
    """The name of a Secret, "" if not said."""


class Ingress(Struct, frozen=True):
    """An Ingress of any API version."""

    name: NamespacedName
    origin: Origin
    class_name: str
    """spec.ingressClassName, or what the older annotation says, "" if neither does."""
    rules: tuple[IngressRule, ...]
    default_backend: IngressBackend | None
    """For requests that no rule is for."""
    tls: tuple[IngressTLS, ...] = ()
    addresses: tuple[str, ...] = ()
    """Of status.loadBalancer.ingress: addresses or names."""
    labels: dict[str, str] = {}


class ClusterNode(NamedTuple):
    """A Node v1, as far as services care."""

    name: str
    zone: str
    """Label topology.kubernetes.io/zone, "" if absent."""
    pod_cidrs: tuple[Network, ...]
    leaving: bool = False
    """It is being deleted, or the cluster autoscaler is about to. A cordoned node stays."""


class ClusterState(Struct, frozen=True):
    """Everything that was read, by kind and by what it belongs to."""

    services: dict[NamespacedName, Service]
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    """By service: slices given as such, or else made from its Endpoints."""
    pods: tuple[Pod, ...]
    nodes: dict[str, ClusterNode]
    ingresses: tuple[Ingress, ...] = ()


class Node(Struct, frozen=True):
    """The node that the dataplane is for."""

    name: str
    node_port_addresses: tuple[Address, ...] = ()
    """Addresses on which node ports are served."""
    addresses: tuple[Address, ...] = ()
    """Its primary ones, at most one of each family."""
    zone: str = ""
    leaving: bool = False
    """It is to go: load balancers should turn to others."""


class ServicePortName(NamedTuple):
    """The identity of one port of a service."""

    service: NamespacedName
    port: str

    def __str__(self) -> str:
        return f"{self.service}:{self.port}" if self.port else str(self.service)


class FrontendKind(StrEnum):
    """Why a frontend exists; decides its masquerading."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER = "LoadBalancer"


class Backends(NamedTuple):
    """What connections are spread over."""

    endpoints: tuple[tuple[Address, int], ...]
    """(address, port) by slot: sorted, one that weighs more several times; or a hash's table."""
    elsewhere: bool = False
    """With no endpoint: whether other nodes have some, so that the packet is dropped, not refused."""


class Frontend(Struct, frozen=True):
    """An (address, protocol, port) that is translated to one of its backends: all that the kernel knows."""

    owner: ServicePortName
    kind: FrontendKind
    address: Address
    protocol: Protocol
    port: int
    backends: Backends
    from_outside: Backends | None
    """Those for clients that are neither pods nor this node, where they get others (policy Local)."""
    local: tuple[Address, ...]
    """Addresses of endpoints that may reach themselves through this node (hairpin)."""
    balance: Balance
    affinity_timeout: int | None
    """Seconds; None without ClientIP affinity."""
    source_ranges: tuple[Network, ...] | None = None
    """Who may use it; None: everyone."""
    serving: tuple[tuple[Address, int], ...] = ()
    """UDP: (address, port) of every endpoint that serves, used or not: the flows that it has go on."""
    given: bool = False
    """A load-balancer address that kproxy gave: no port of it is anybody else's."""

    def __str__(self) -> str:
        return f"{format_socket(self.address, self.port)}/{self.protocol}"


class AddressChange(NamedTuple):
    """An address that was put on an interface, or taken from it."""

    address: Address
    interface: str
    added: bool

    def __str__(self) -> str:
        return f"{'+' if self.added else '-'} address {format_address(self.address)} on {self.interface}"
