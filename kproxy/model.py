"""The objects of the pipeline, in Kubernetes' terms.

They are frozen msgspec structs: small and fast to create, which matters with 100,000
Services. An address is 4 or 16 packed bytes in network order, as in the keys of nftables
maps. `parse_address` and `format_address` convert between text and packed bytes.
"""

from __future__ import annotations

import re
from abc import ABCMeta
from collections.abc import Callable, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct

Address: TypeAlias = bytes
Annotations: TypeAlias = str
"""A JSON object as text, "" if empty. The text needs a third of the memory of a dict; only views parse it."""
if TYPE_CHECKING:
    Network: TypeAlias = IPv4Network | IPv6Network
else:  # an abstract base class of both: msgspec rejects a union of two types that are unknown to it
    Network = ABCMeta("Network", (), {})
    Network.register(IPv4Network)
    Network.register(IPv6Network)


LONGEST_ADDRESS = 64
"""The maximum number of characters of an address. The longest ones have 45, and may have more zeros."""
LABEL_NUMBER = re.compile(r"-?\d{1,19}")
"""The value of a label that `<` and `>` of a selector compare."""
_ZEROS = re.compile(r"(?<![0-9A-Fa-f])0+([0-9]+)(?=\.|$)")


class Family(StrEnum):
    """An address family. The value is nft's name for it."""

    IPV4 = "ip"
    IPV6 = "ip6"

    @property
    def width(self) -> int:
        """The length of an address in bytes."""
        return 4 if self is Family.IPV4 else 16


class Protocol(StrEnum):
    """A transport protocol of a service port. The value is nft's name for it."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The protocol number of the IP header (IANA)."""
        return {"tcp": 6, "udp": 17, "sctp": 132}[self.value]


def parse_ip(text: str) -> IPv4Address | IPv6Address:
    """Parse an address. Raises ValueError, also for IPv4-mapped IPv6 addresses and zone ids."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"{text!r} is not a plain IPv4 or IPv6 address")
    return address


def read_ip(text: str) -> IPv4Address | IPv6Address:
    """Parse an address of an object as kube-proxy does. Raises ValueError.

    `010.0.0.1` is 10.0.0.1, because zeros do not make a number octal, and an IPv4-mapped address is the IPv4
    address. Old versions of the API server accepted both.
    """
    if len(text) > LONGEST_ADDRESS:
        raise ValueError(f"{text[:LONGEST_ADDRESS]!r}... is too long for an address")
    address = ip_address(_ZEROS.sub(r"\1", text) if "." in text else text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise ValueError(f"{text!r} is not a plain IPv4 or IPv6 address")
    return mapped or address


def read_network(text: str) -> Network:
    """Parse a CIDR of an object as kube-proxy does: like `read_ip`, and bits after the prefix are ignored."""
    address, slash, prefix = text.strip().partition("/")
    try:
        ip, mapped = read_ip(address), ":" in address
        if mapped and slash and prefix.isdecimal() and ip.version == 4:
            prefix = str(int(prefix) - 96)
        return ip_network(f"{ip}{slash}{prefix}", strict=False)
    except ValueError:
        raise ValueError(f"{text!r} does not appear to be an IPv4 or IPv6 network") from None


def parse_address(text: str) -> Address:
    """Parse and pack an address. Raises ValueError, as `parse_ip` does."""
    return parse_ip(text).packed


def address_or_none(text: str) -> Address | None:
    """Return the packed address that a text is; None if it is none."""
    try:
        return read_ip(text).packed
    except ValueError:
        return None


def format_address(address: Address) -> str:
    """Return the canonical text of a packed address."""
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))


def node_name_of(host_name: str) -> str:
    """Return the name of the node that runs on a host: in lower case, as Kubernetes names nodes."""
    return host_name.strip().lower()


def family_of(address: Address) -> Family:
    """Return the family of a packed address."""
    return Family.IPV4 if len(address) == 4 else Family.IPV6


def network_family(network: Network) -> Family:
    """Return the family of a network."""
    return Family.IPV4 if network.version == 4 else Family.IPV6


def format_socket(address: Address, port: int) -> str:
    """Return `10.0.0.1:80` or `[fd00::1]:80`."""
    text = format_address(address)
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"


class NamespacedName(NamedTuple):
    """The identity of a namespaced object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


GATEWAY_PREFIX = "gateway/"
"""The prefix of the name under which frontends of a Gateway are kept. No Service has such a name."""


def gateway_owner(name: NamespacedName) -> NamespacedName:
    """Return the name under which the frontends of a Gateway are kept."""
    return NamespacedName(name.namespace, GATEWAY_PREFIX + name.name)


def is_gateway(owner: NamespacedName) -> bool:
    """Whether the owner of frontends is a Gateway; otherwise it is a Service."""
    return owner.name.startswith(GATEWAY_PREFIX)


def owner_text(owner: NamespacedName) -> str:
    """Return `Service default/web` or `Gateway default/web`."""
    if not is_gateway(owner):
        return f"Service {owner}"
    return f"Gateway {owner.namespace}/{owner.name.removeprefix(GATEWAY_PREFIX)}"


Protects: TypeAlias = Callable[[NamespacedName], bool]
"""Whether a Service is protected: part of its input could not be read, so nothing of it may be removed."""


def protect_nothing(_: NamespacedName) -> bool:
    """Return False: all input was read, so no Service is protected."""
    return False


class Origin(Struct, frozen=True):
    """Where an object was read, and when it was created."""

    source: str
    """The file, or another name of the source; used in messages."""
    created: str
    """metadata.creationTimestamp, "" if absent. In RFC 3339 text order is time order."""


class Event(Struct, frozen=True):
    """What happened to an object, and how often. Times are seconds of the Unix epoch."""

    reason: str
    """A word in CamelCase, for example Unhealthy."""
    message: str
    count: int
    first: float
    last: float
    is_warning: bool = True
    """The type of the event: Warning or Normal."""

    def again(self, now: float) -> Event:
        """Return the event after it happened once more."""
        return Event(self.reason, self.message, self.count + 1, self.first, now, self.is_warning)


class Balance(StrEnum):
    """How a frontend chooses an endpoint. The value is the prefix of its slot chains."""

    RANDOM = "lb"
    SHARES = "shares"
    """A random slot. Some slots are empty: they refuse the share of backends without endpoints."""
    STICKY = "sticky"
    """ClientIP affinity: the endpoint of the client's last connection, else a random one."""
    CLIENT = "hash-client"
    """Consistent hash of the client's address."""
    CLIENT_PORT = "hash-client-port"
    """Consistent hash of the client's address and port."""


GATEWAY = "Gateway"
"""The `type` of the Service that stands for a Gateway: it has load-balancer addresses, but no ClusterIP."""


class ServicePort(Struct, frozen=True, gc=False):
    """One entry of spec.ports."""

    name: str
    """ "" if the Service's only port has no name."""
    protocol: Protocol
    port: int
    target_port: int | str
    """A number, or the name of a container port."""
    node_port: int
    """0 if not requested."""


class Service(Struct, frozen=True, gc=False):
    """A Service v1, with defaults filled in."""

    name: NamespacedName
    origin: Origin
    type: str
    """ClusterIP, NodePort, LoadBalancer or ExternalName; GATEWAY for what a Gateway serves."""
    ports: tuple[ServicePort, ...]
    selector: dict[str, str]
    cluster_ips: tuple[Address, ...]
    """The requested or allocated addresses, primary first; () before allocation."""
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
    """Addresses in status.loadBalancer.ingress that the node serves (ipMode VIP)."""
    pool_ips: tuple[Address, ...] = ()
    """The load_balancer_ips that kproxy allocated to this Service from --load-balancer-pool."""
    source_ranges: tuple[Network, ...] = ()
    """spec.loadBalancerSourceRanges: clients that may use the load-balancer addresses; () for all."""
    allocate_node_ports: bool = True
    distribution: str = ""
    """spec.trafficDistribution: PreferSameZone, PreferSameNode, "" if absent."""
    proxied_elsewhere: bool = False
    """The label service.kubernetes.io/service-proxy-name is set: another proxy serves it."""
    hashing: Balance | None = None
    """CLIENT or CLIENT_PORT if the annotation kproxy.io/consistent-hash requests it."""
    weights: dict[str, int] = {}
    """The weight of an endpoint by its address or the name of its pod; others have weight 1."""
    external_name: str = ""
    ingress: tuple[str, ...] = ()
    """Every address and host name in status.loadBalancer.ingress, as text."""
    labels: dict[str, str] = {}
    health_check_node_port: int = 0
    """The requested or allocated port; 0 before allocation, or if the Service needs none."""
    load_balancer_ip: str = ""
    """spec.loadBalancerIP as text, not checked: only the allocator of such addresses interprets it."""
    load_balancer_class: str = ""
    annotations: Annotations = ""
    """Those of the manifest, without kubectl's copy of it; {} for objects of a cluster."""

    @property
    def wants_cluster_ip(self) -> bool:
        """Whether it has a ClusterIP: it is neither headless nor of type ExternalName, nor a Gateway."""
        return not self.headless and self.type not in ("ExternalName", GATEWAY)

    @property
    def wants_frontends(self) -> bool:
        """Whether it has frontends: it has a ClusterIP, or is a Gateway."""
        return self.wants_cluster_ip or self.type == GATEWAY

    @property
    def wants_health_check(self) -> bool:
        """Whether it has a health check node port: load balancers ask it for endpoints on this node."""
        return self.type == "LoadBalancer" and self.external_local

    @property
    def wants_node_ports(self) -> bool:
        """Whether every port gets a node port, requested or not."""
        return self.type == "NodePort" or (self.type == "LoadBalancer" and self.allocate_node_ports)


class EndpointPort(NamedTuple):
    """A port of a slice or of a container. In a slice, `name` is the name of the service port."""

    name: str
    protocol: Protocol
    port: int


class Share(NamedTuple):
    """The share of the connections to a port of a Gateway that a backend of its route gets."""

    backend: int
    """The number of the backend. Several slices have the endpoints of one backend."""
    weight: int
    """In proportion to the weights of all backends."""


class Endpoint(Struct, frozen=True, gc=False):
    """One address that serves a Service."""

    address: Address
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    """Its node, "" if unknown."""
    pod: str = ""
    """Its pod, "" if unknown."""
    for_nodes: tuple[str, ...] = ()
    """hints.forNodes: the nodes that should use it."""
    for_zones: tuple[str, ...] = ()
    """hints.forZones: the zones that should use it."""
    hostname: str = ""
    """Its label in the DNS names of the Service, "" for one that is made from its address."""


class EndpointSlice(Struct, frozen=True, gc=False):
    """Endpoints of one Service with one port list.

    It is an EndpointSlice, or made from a legacy Endpoints object or from the pods that a selector matches.
    """

    service: NamespacedName
    origin: Origin
    name: str
    family: Family
    ports: tuple[EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]
    legacy: bool = False
    """Made from a legacy Endpoints object."""
    headless: bool = False
    """The label service.kubernetes.io/headless is set: frontends do not use this slice."""
    labels: dict[str, str] = {}
    annotations: Annotations = ""
    share: Share | None = None
    """The share of the connections that its endpoints get. Only slices of a Gateway have one."""


class ExecAction(Struct, frozen=True, tag="exec"):
    """A command in the container. Exit status 0 is success."""

    command: tuple[str, ...]


class ProbePort(Struct, frozen=True):
    """The port that a probe connects to."""

    name_or_number: int | str
    """As in the manifest: a number, or the name of a container port."""
    number: int
    """0 if the container has no port of that name."""


class HTTPGetAction(Struct, frozen=True, tag="httpGet"):
    """A GET request. A status from 200 to 399 is success."""

    port: ProbePort
    path: str = "/"
    host: str = ""
    """ "" stands for the pod's address."""
    scheme: str = "HTTP"
    """HTTP or HTTPS."""
    headers: tuple[tuple[str, str], ...] = ()


class TCPSocketAction(Struct, frozen=True, tag="tcpSocket"):
    """A TCP connection. It is a success if the connection is established."""

    port: ProbePort
    host: str = ""
    """ "" stands for the pod's address."""


class GRPCAction(Struct, frozen=True, tag="grpc"):
    """A call of the gRPC health service. kproxy does not support it."""

    port: int
    service: str = ""


class Probe(Struct, frozen=True):
    """A readinessProbe, with defaults filled in. Times are in seconds."""

    action: ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction
    initial_delay: int = 0
    period: int = 10
    timeout: int = 1
    success_threshold: int = 1
    """The number of consecutive successes that make a container ready."""
    failure_threshold: int = 3
    """The number of consecutive failures that make a container not ready."""


class Container(Struct, frozen=True):
    """A container or a sidecar (an init container with `restartPolicy: Always`) of a pod."""

    name: str
    image: str = ""
    ports: tuple[EndpointPort, ...] = ()
    probe: Probe | None = None
    """The readinessProbe."""
    identifier: str = ""
    """`ENGINE://ID`, as in status.containerStatuses; "" if unknown."""


class ContainerCounts(NamedTuple):
    """Numbers of containers of a pod, from status.containerStatuses or from the results of probes."""

    ready: int
    total: int
    restarts: int | None
    """None if unknown."""


class EndedPod(Struct, frozen=True):
    """A Pod whose containers have ended for good. It has no address."""

    name: NamespacedName
    labels: dict[str, str]
    phase: str
    """Succeeded or Failed."""
    annotations: Annotations = ""


class Pod(Struct, frozen=True):
    """The part of a Pod that kproxy reads."""

    name: NamespacedName
    origin: Origin
    labels: dict[str, str]
    addresses: tuple[Address, ...]
    ports: tuple[EndpointPort, ...]
    """The named ports of all containers."""
    ready: bool
    deleted: str
    """metadata.deletionTimestamp, "" if absent."""
    node: str
    host_network: bool = False
    """hostNetwork: it has the addresses of its node."""
    service_links: bool = True
    """enableServiceLinks: its environment contains the Services of its namespace."""
    phase: str = ""
    """status.phase, "" if absent."""
    counts: ContainerCounts | None = None
    """None if neither the manifest nor a probe provides them."""
    containers: tuple[Container, ...] = ()
    gates_open: bool = True
    """Whether the conditions of all readiness gates are True."""
    hostname: str = ""
    """spec.hostname, "" if absent."""
    subdomain: str = ""
    """spec.subdomain: the headless Service in whose DNS names the host name occurs; "" if absent."""
    uid: str = ""
    """metadata.uid, "" if absent."""
    annotations: Annotations = ""

    @property
    def terminating(self) -> bool:
        """Whether metadata.deletionTimestamp is set."""
        return bool(self.deleted)

    @property
    def probes(self) -> tuple[tuple[str, Probe], ...]:
        """Each container that has a readiness probe, by name, and the probe."""
        return tuple((each.name, each.probe) for each in self.containers if each.probe)


class IngressBackend(Struct, frozen=True):
    """The Service or resource that serves a request."""

    service: str
    """ "" if the backend is a resource."""
    port: int | str
    """The number or the name of a port of the Service."""
    resource: str = ""
    """KIND/NAME, for example `StorageBucket/static`; "" if the backend is a Service."""
    api_group: str = ""
    """The API group of the resource."""

    def __str__(self) -> str:
        return self.resource or f"{self.service}:{self.port}"


class IngressPath(Struct, frozen=True):
    """A path, how to match it, and its backend."""

    path: str
    path_type: str
    """Exact, Prefix or ImplementationSpecific. Only with the last one the path may be ""."""
    backend: IngressBackend


class IngressRule(Struct, frozen=True):
    """The paths of one host."""

    host: str
    """May begin with `*.`; "" for all hosts."""
    paths: tuple[IngressPath, ...]
    """() if all requests go to the default backend."""


class IngressTLS(Struct, frozen=True):
    """The certificate of some hosts."""

    hosts: tuple[str, ...]
    secret: str
    """The name of a Secret, "" if absent."""


class Ingress(Struct, frozen=True):
    """An Ingress of any API version."""

    name: NamespacedName
    origin: Origin
    class_name: str
    """spec.ingressClassName, else the annotation kubernetes.io/ingress.class, "" if both are absent."""
    rules: tuple[IngressRule, ...]
    default_backend: IngressBackend | None
    """Serves requests that match no rule."""
    tls: tuple[IngressTLS, ...] = ()
    addresses: tuple[str, ...] = ()
    """Addresses and host names in status.loadBalancer.ingress."""
    labels: dict[str, str] = {}
    annotations: Annotations = ""


class IngressClass(Struct, frozen=True):
    """The part of an IngressClass v1 that kproxy uses."""

    name: str
    origin: Origin
    controller: str
    """spec.controller: the program that serves Ingresses of the class."""
    is_default: bool = False
    """Whether Ingresses without a class belong to it."""
    annotations: Annotations = ""


class Secret(Struct, frozen=True):
    """A Secret v1. Its content must not get into messages, views or the snapshot."""

    name: NamespacedName
    origin: Origin
    type: str
    data: dict[str, bytes]
    """Those of data and stringData."""
    annotations: Annotations = ""


class Taint(NamedTuple):
    """A taint of a node, which keeps pods away from it."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


API_SERVER = NamespacedName("default", "kubernetes")
"""The Service of the API server, in every cluster."""


class NodeInfo(Struct, frozen=True):
    """The fields of status.nodeInfo that kproxy shows; "" if absent."""

    kubelet: str = ""
    os_image: str = ""
    kernel: str = ""
    container_runtime: str = ""


TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
"""The cluster autoscaler adds this taint to a node before it deletes the node."""


class ClusterNode(Struct, frozen=True):
    """The part of a Node v1 that kproxy uses or shows."""

    name: str
    zone: str
    """Label topology.kubernetes.io/zone, "" if absent."""
    pod_cidrs: tuple[Network, ...]
    origin: Origin = Origin("", "")
    labels: dict[str, str] = {}
    annotations: Annotations = ""
    addresses: tuple[tuple[str, str], ...] = ()
    """status.addresses: type (InternalIP, ExternalIP, Hostname, ...) and address, both as text."""
    ready: str = ""
    """The status of the condition Ready: True, False, Unknown; "" if absent."""
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    deleted: str = ""
    """metadata.deletionTimestamp, "" if absent."""
    info: NodeInfo = NodeInfo()

    @property
    def host_ips(self) -> tuple[Address, ...]:
        """Of each family the first InternalIP in status.addresses, else the first ExternalIP (as kube-proxy).

        Entries without an address are skipped.
        """
        found: dict[Family, Address] = {}
        for wanted in ("InternalIP", "ExternalIP"):
            for kind, text in self.addresses:
                if kind == wanted and (address := address_or_none(text)):
                    found.setdefault(family_of(address), address)
        return tuple(found[family] for family in Family if family in found)

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted or the cluster autoscaler marked it. A cordoned node is not leaving."""
        return bool(self.deleted) or any(taint.key == TO_BE_DELETED_TAINT for taint in self.taints)


class ServiceCIDR(Struct, frozen=True):
    """The part of a ServiceCIDR that kproxy uses: ranges of ClusterIPs of a cluster."""

    name: str
    networks: tuple[Network, ...]


class Requirement(Struct, frozen=True):
    """The requirement of a selector for one label."""

    key: str
    operator: str
    """`in`, `notin`, `exists`, `absent`, `<` or `>`."""
    values: tuple[str, ...] = ()
    """For `<` and `>`, one number."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels fulfill the requirement. An absent label fulfills `notin`."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case _:
                return value is not None and self._compares(value)

    def _compares(self, value: str) -> bool:
        (limit,) = self.values
        if not LABEL_NUMBER.fullmatch(value):
            return False
        return int(value) > int(limit) if self.operator == ">" else int(value) < int(limit)

    def __str__(self) -> str:
        """Return the requirement as kubectl shows it: `app=web`, `tier in (a,b)`, `old`, `!old`."""
        match self.operator:
            case "exists":
                return self.key
            case "absent":
                return f"!{self.key}"
            case "in" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


class Selector(Struct, frozen=True):
    """A selector. It matches if all requirements are fulfilled, so without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the selector matches an object with these labels."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def equalities(self) -> dict[str, str]:
        """The labels that must have one value."""
        single = (each for each in self.requirements if each.operator == "in" and len(each.values) == 1)
        return {each.key: each.values[0] for each in single}


def labels_selector(labels: Mapping[str, str]) -> Selector:
    """Return the selector that requires these labels."""
    return Selector(tuple(Requirement(key, "in", (value,)) for key, value in sorted(labels.items())))


WORKLOADS = {
    "ReplicationController": ("",),
    "DaemonSet": ("apps", "extensions"),
    "Deployment": ("apps", "extensions"),
    "ReplicaSet": ("apps", "extensions"),
    "StatefulSet": ("apps",),
}
"""The API groups of each kind of workload."""


class Workload(Struct, frozen=True):
    """An object for which a cluster starts pods, for example a Deployment. kproxy starts none."""

    kind: str
    name: NamespacedName
    origin: Origin
    replicas: int | None
    """The number of pods; None for one on each node."""
    selector: Selector
    """Which pods it counts as its own. Without requirements it has none."""
    template: dict[str, str]
    """The labels of its pods."""
    containers: tuple[Container, ...] = ()
    """Those of its pods."""
    node_selector: dict[str, str] = {}
    """The labels of the nodes on which a DaemonSet wants pods."""
    owned: bool = False
    """It belongs to another workload, for example to a Deployment."""
    labels: dict[str, str] = {}
    """Its own labels."""
    annotations: Annotations = ""


class ClusterState(Struct, frozen=True):
    """Every object that was read."""

    services: dict[NamespacedName, Service]
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    """By Service: its EndpointSlices; if it has none, slices made from its Endpoints object."""
    pods: tuple[Pod, ...]
    nodes: dict[str, ClusterNode]
    ingresses: tuple[Ingress, ...] = ()
    workloads: tuple[Workload, ...] = ()
    ingress_classes: tuple[IngressClass, ...] = ()
    secrets: dict[NamespacedName, Secret] = {}
    ended_pods: tuple[EndedPod, ...] = ()


class Bridge(Struct, frozen=True):
    """A bridge of this host. The pods that are connected to it send to each other without this host."""

    name: str
    networks: tuple[Network, ...]
    """Those of its own addresses. Its pods have addresses in them."""
    filtered: tuple[Family, ...] = ()
    """The families whose packets pass the rules of this host although the bridge forwards them."""

    def connects(self, interface: str, address: Address) -> bool:
        """Whether a packet that comes from it leaves through it to an address."""
        family, ip = family_of(address), ip_address(address)
        return interface == self.name and any(
            network_family(network) is family and ip in network for network in self.networks
        )


class Node(Struct, frozen=True):
    """The node on which kproxy programs the dataplane."""

    name: str
    node_port_addresses: tuple[Address, ...] = ()
    """The addresses on which it serves node ports."""
    addresses: tuple[Address, ...] = ()
    """Its primary addresses, at most one of each family."""
    zone: str = ""
    leaving: bool = False
    """It is about to be deleted: load balancers should use other nodes."""
    pod_cidrs: tuple[Network, ...] = ()
    """The addresses of its pods, from its Node object; () if unknown."""
    relied_on: tuple[tuple[Address, str], ...] = ()
    """Addresses of other hosts that this node needs, and what has them: `a DNS server of this node`."""
    denied: tuple[Network, ...] = ()
    """External and load-balancer addresses on which it serves no Service."""
    bridges: tuple[Bridge, ...] = ()
    """Those of this host, sorted by name."""


class ServicePortName(NamedTuple):
    """The identity of one port of a Service."""

    service: NamespacedName
    port: str

    def __str__(self) -> str:
        return f"{self.service}:{self.port}" if self.port else str(self.service)


class FrontendKind(StrEnum):
    """Which field of the Service requires a frontend. Masquerading depends on it."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER = "LoadBalancer"
    GATEWAY = "Gateway"
    """A listener of a Gateway."""


class Backends(Struct, frozen=True):
    """The endpoints among which one side of a frontend distributes connections."""

    endpoints: tuple[tuple[Address, int], ...]
    """(address, port) by slot: sorted, repeated according to weight; or a consistent hash table."""
    elsewhere: bool = False
    """Whether any node has an endpoint. If `endpoints` is empty: drop packets instead of rejecting them."""
    refusing: int = 0
    """The number of slots, besides those of `endpoints`, that refuse connections."""


class Frontend(Struct, frozen=True):
    """An (address, protocol, port) that the kernel translates to one of its backends."""

    owner: ServicePortName
    kind: FrontendKind
    address: Address
    protocol: Protocol
    port: int
    backends: Backends
    from_outside: Backends | None
    """Backends for clients that are neither pods nor this node, if these differ (policy Local)."""
    balance: Balance
    affinity_timeout: int | None
    """Seconds; None without ClientIP affinity."""
    source_ranges: tuple[Network, ...] | None = None
    """The clients that may use it; None for all."""
    serving: tuple[tuple[Address, int], ...] = ()
    """UDP: (address, port) of every serving endpoint, selected or not. Its existing flows continue."""
    from_pool: bool = False
    """Allocated from --load-balancer-pool, and not an address of this node: kproxy owns all its ports."""

    @property
    def sides(self) -> tuple[Backends, ...]:
        """Its lists of endpoints: one, or two with externalTrafficPolicy Local."""
        return (self.backends,) if self.from_outside is None else (self.backends, self.from_outside)

    def __str__(self) -> str:
        return f"{format_socket(self.address, self.port)}/{self.protocol}"


class AddressChange(Struct, frozen=True):
    """An address that was added to an interface or removed from it."""

    address: Address
    interface: str
    added: bool

    def __str__(self) -> str:
        return f"{'+' if self.added else '-'} address {format_address(self.address)} on {self.interface}"
