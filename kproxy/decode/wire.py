"""Objects in the form of the Kubernetes API, with the fields that kproxy reads.

msgspec decodes JSON bytes directly into these types and names a field whose type is wrong.
None stands for "absent" and for "null". The other modules of this folder interpret the values.

Python evaluates the annotations here when it defines the types (there is no `from __future__ import
annotations`). msgspec needs their values, and would have to compile the text of each.
"""

from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from kproxy.limits import OBJECT_ITEMS

T = TypeVar("T")

Many: TypeAlias = Annotated[list[T], Meta(max_length=OBJECT_ITEMS)]
"""A list of an object. Each item can take some microseconds, and have two bytes."""
Map: TypeAlias = Annotated[dict[str, T], Meta(max_length=OBJECT_ITEMS)]
Int32: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""A number that kproxy only displays. The API server has the same limit, and msgpack has one, too."""


class Wire(Struct, rename="camel", gc=False):
    """A type with snake_case fields in Python and camelCase fields in JSON."""


class Metadata(Wire):
    name: str | None = None
    namespace: str | None = None
    labels: Map[str | None] | None = None
    annotations: Map[str | None] | None = None
    creation_timestamp: str | None = None
    resource_version: str | None = None
    deletion_timestamp: str | None = None
    uid: str | None = None


class ServicePort(Wire):
    port: int
    name: str | None = None
    protocol: str | None = None
    target_port: int | str | None = None
    node_port: int | None = None


class ClientIP(Wire):
    timeout_seconds: int | None = None


class SessionAffinityConfig(Wire):
    client_ip: ClientIP | None = field(default=None, name="clientIP")


class ServiceSpec(Wire):
    type: str | None = None
    ports: Many[ServicePort] | None = None
    selector: Map[Any] | None = None
    cluster_ip: str | None = field(default=None, name="clusterIP")
    cluster_ips: Many[str] | None = field(default=None, name="clusterIPs")
    ip_families: Many[str] | None = None
    ip_family_policy: str | None = None
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    publish_not_ready_addresses: bool | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    external_ips: Many[str] | None = field(default=None, name="externalIPs")
    load_balancer_source_ranges: Many[str] | None = None
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int | None = None
    load_balancer_ip: str | None = field(default=None, name="loadBalancerIP")
    load_balancer_class: str | None = None
    traffic_distribution: str | None = None
    external_name: str | None = None


class LoadBalancerIngress(Wire):
    ip: str | None = None
    hostname: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(Wire):
    ingress: Many[LoadBalancerIngress] | None = None


class ObjectStatus(Wire):
    load_balancer: LoadBalancerStatus | None = None


class Service(Wire):
    metadata: Metadata
    spec: ServiceSpec
    status: ObjectStatus | None = None


class EndpointPort(Wire):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointConditions(Wire):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Wire):
    name: str


class EndpointHints(Wire):
    for_zones: Many[Hint] | None = None
    for_nodes: Many[Hint] | None = None


class ObjectReference(Wire):
    kind: str | None = None
    name: str | None = None
    api_group: str | None = None


class Endpoint(Wire):
    addresses: Many[str] | None = None
    conditions: EndpointConditions | None = None
    node_name: str | None = None
    hints: EndpointHints | None = None
    target_ref: ObjectReference | None = None
    hostname: str | None = None


class EndpointSlice(Wire):
    metadata: Metadata
    address_type: str
    endpoints: Many[Endpoint] | None = None
    ports: Many[EndpointPort] | None = None


class EndpointAddress(Wire):
    ip: str
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointSubset(Wire):
    addresses: Many[EndpointAddress] | None = None
    not_ready_addresses: Many[EndpointAddress] | None = None
    ports: Many[EndpointPort] | None = None


class Endpoints(Wire):
    metadata: Metadata
    subsets: Many[EndpointSubset] | None = None


class ContainerPort(Wire):
    container_port: int
    name: str | None = None
    protocol: str | None = None


class ExecAction(Wire):
    command: Many[str] | None = None


class HTTPHeader(Wire):
    name: str
    value: str | None = None


class HTTPGetAction(Wire):
    port: int | str
    path: str | None = None
    host: str | None = None
    scheme: str | None = None
    http_headers: Many[HTTPHeader] | None = None


class TCPSocketAction(Wire):
    port: int | str
    host: str | None = None


class GRPCAction(Wire):
    port: int
    service: str | None = None


class Probe(Wire):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int | None = None
    period_seconds: int | None = None
    timeout_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None


class Container(Wire):
    name: str | None = None
    image: str | None = None
    ports: Many[ContainerPort] | None = None
    readiness_probe: Probe | None = None
    restart_policy: str | None = None


class ReadinessGate(Wire):
    condition_type: str


class PodSpec(Wire):
    containers: Many[Container] | None = None
    init_containers: Many[Container] | None = None
    readiness_gates: Many[ReadinessGate] | None = None
    node_name: str | None = None
    enable_service_links: bool | None = None
    host_network: bool | None = None
    hostname: str | None = None
    subdomain: str | None = None


class IP(Wire):
    ip: str


class Condition(Wire):
    type: str
    status: str


class ContainerStatus(Wire):
    ready: bool | None = None
    restart_count: Int32 | None = None
    name: str | None = None
    container_id: str | None = field(default=None, name="containerID")


class PodStatus(Wire):
    phase: str | None = None
    pod_ip: str | None = field(default=None, name="podIP")
    pod_ips: Many[IP] | None = field(default=None, name="podIPs")
    host_ip: str | None = field(default=None, name="hostIP")
    host_ips: Many[IP] | None = field(default=None, name="hostIPs")
    conditions: Many[Condition] | None = None
    container_statuses: Many[ContainerStatus] | None = None


class Pod(Wire):
    metadata: Metadata
    spec: PodSpec | None = None
    status: PodStatus | None = None


class Taint(Wire):
    key: str | None = None
    value: str | None = None
    effect: str | None = None


class NodeSpec(Wire):
    pod_cidr: str | None = field(default=None, name="podCIDR")
    pod_cidrs: Many[str] | None = field(default=None, name="podCIDRs")
    taints: Many[Taint] | None = None
    unschedulable: bool | None = None


class NodeAddress(Wire):
    type: str
    address: str


class NodeInfo(Wire):
    kubelet_version: str | None = None
    os_image: str | None = None
    kernel_version: str | None = None
    container_runtime_version: str | None = None


class NodeStatus(Wire):
    addresses: Many[NodeAddress] | None = None
    conditions: Many[Condition] | None = None
    node_info: NodeInfo | None = None


class Node(Wire):
    metadata: Metadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class IngressPort(Wire):
    name: str | None = None
    number: int | None = None


class IngressService(Wire):
    name: str | None = None
    port: IngressPort | None = None


class IngressBackend(Wire):
    service: IngressService | None = None
    resource: ObjectReference | None = None
    service_name: str | None = None
    service_port: int | str | None = None


class IngressPath(Wire):
    backend: IngressBackend
    path: str | None = None
    path_type: str | None = None


class IngressHTTP(Wire):
    paths: Many[IngressPath] | None = None


class IngressRule(Wire):
    host: str | None = None
    http: IngressHTTP | None = None


class IngressTLS(Wire):
    hosts: Many[str] | None = None
    secret_name: str | None = None


class IngressSpec(Wire):
    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    backend: IngressBackend | None = None
    rules: Many[IngressRule] | None = None
    tls: Many[IngressTLS] | None = None


class Ingress(Wire):
    metadata: Metadata
    spec: IngressSpec
    status: ObjectStatus | None = None


class IngressClassSpec(Wire):
    controller: str | None = None


class IngressClass(Wire):
    metadata: Metadata
    spec: IngressClassSpec | None = None


class Secret(Wire):
    metadata: Metadata
    type: str | None = None
    data: Map[str | None] | None = None
    string_data: Map[str | None] | None = None


class OwnerReference(Wire):
    controller: bool | None = None


class OwnedMetadata(Metadata):
    owner_references: Many[OwnerReference] | None = None


class TemplateSpec(PodSpec):
    node_selector: Map[str | None] | None = None


class PodTemplate(Wire):
    metadata: Metadata | None = None
    spec: TemplateSpec | None = None


class SelectorRequirement(Wire):
    key: str
    operator: str
    values: Many[str] | None = None


class LabelSelector(Wire):
    match_labels: Map[str | None] | None = None
    match_expressions: Many[SelectorRequirement] | None = None


class WorkloadSpec(Wire):
    replicas: Int32 | None = None
    selector: LabelSelector | None = None
    template: PodTemplate | None = None


class Workload(Wire):
    metadata: OwnedMetadata
    spec: WorkloadSpec | None = None


class ReplicationControllerSpec(Wire):
    replicas: Int32 | None = None
    selector: Map[str | None] | None = None
    template: PodTemplate | None = None


class ReplicationController(Wire):
    metadata: OwnedMetadata
    spec: ReplicationControllerSpec | None = None


class ServiceCIDRSpec(Wire):
    cidrs: Many[str] | None = None


class ServiceCIDR(Wire):
    metadata: Metadata
    spec: ServiceCIDRSpec | None = None


class TypeMeta(Wire):
    kind: str | None = None
    api_version: str | None = None


class Head(TypeMeta):
    """What an object is, from JSON text. The items of a List stay undecoded until their kind is known."""

    items: list[Raw] | UnsetType | None = UNSET


class LoadedHead(TypeMeta):
    """The same of a loaded value."""

    items: list[Any] | UnsetType | None = UNSET


class ListMeta(Wire):
    resource_version: str | None = None
    continue_: str | None = field(default=None, name="continue")


class Page(TypeMeta, kw_only=True):
    """One page of a list response. Its items stay undecoded, so that each can fail alone."""

    metadata: ListMeta
    items: list[Raw] | None = None


class WatchEvent(Wire):
    """One line of a watch response."""

    type: str
    object: Raw


class Identity(Wire):
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None


class Identified(Wire):
    """An object of which only the identity matters: deleted or undecodable."""

    metadata: Identity


class Named(Wire):
    """An object of which only the metadata matters."""

    metadata: Metadata


class BookmarkMeta(Wire):
    resource_version: str | None = None
    annotations: Map[str] | None = None


class Bookmark(Wire):
    """An object with nothing but a resourceVersion, and perhaps annotations about the watch."""

    metadata: BookmarkMeta


class StatusDetails(Wire):
    retry_after_seconds: int | None = None


class Status(Wire):
    """The API server's error response."""

    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: StatusDetails | None = None
