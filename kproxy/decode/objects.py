"""Wire objects -> model: what types cannot say is checked here, and defaults are filled in.

What the API server would refuse is refused, with the path of the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import TypeVar

from kproxy.decode import wire
from kproxy.model import (
    Address,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Origin,
    Pod,
    Protocol,
    Service,
    ServicePort,
    family_of,
    parse_address,
)

T = TypeVar("T")

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
DEFAULT_AFFINITY_SECONDS = 10800
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
FAMILIES = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}


class FieldError(ValueError):
    """A field whose type is right and whose value is not."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def _checked(path: str, check: Callable[[str], T], text: str) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise FieldError(path, str(error)) from None


def _port(path: str, number: int) -> int:
    if not 1 <= number <= 65535:
        raise FieldError(path, f"{number} is not a port (1-65535)")
    return number


def _protocol(path: str, text: str | None) -> Protocol:
    try:
        return Protocol[text or "TCP"]
    except KeyError:
        raise FieldError(path, f"{text!r} is not one of TCP, UDP, SCTP") from None


def _endpoint_address(path: str, text: str) -> Address:
    """An address that packets can be sent on to; the API server refuses the others, too."""
    address = _checked(path, parse_address, text)
    ip = ip_address(address)
    if ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast:
        raise FieldError(
            path, f"{text} cannot be an endpoint (loopback, link-local, multicast or unspecified)"
        )
    return address


def object_name(metadata: wire.Metadata) -> NamespacedName:
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    return NamespacedName(metadata.namespace or "default", metadata.name)


def _origin(source: str, metadata: wire.Metadata) -> Origin:
    return Origin(source, metadata.creation_timestamp or "")


def _service_port(path: str, given: wire.ServicePort, alone: bool) -> ServicePort:
    if not given.name and not alone:
        raise FieldError(f"{path}.name", "is required where a service has several ports")
    target = given.target_port
    if isinstance(target, int):
        target = _port(f"{path}.targetPort", target) if target else None
    return ServicePort(
        name=given.name or "",
        protocol=_protocol(f"{path}.protocol", given.protocol),
        port=_port(f"{path}.port", given.port),
        target_port=target or given.port,
        node_port=_port(f"{path}.nodePort", given.node_port) if given.node_port else 0,
    )


def _service_ports(spec: wire.ServiceSpec, required: bool) -> tuple[ServicePort, ...]:
    entries = spec.ports or []
    if required and not entries:
        raise FieldError("spec.ports", "is missing")
    ports: list[ServicePort] = []
    for index, given in enumerate(entries):
        port = _service_port(f"spec.ports[{index}]", given, len(entries) == 1)
        for earlier in ports:
            if earlier.name == port.name:
                raise FieldError(f"spec.ports[{index}].name", f"{port.name!r} is given twice")
            if (earlier.port, earlier.protocol) == (port.port, port.protocol):
                raise FieldError(f"spec.ports[{index}].port", f"{port.port}/{port.protocol} is given twice")
        ports.append(port)
    return tuple(ports)


def _cluster_ips(spec: wire.ServiceSpec) -> tuple[Address, ...]:
    texts = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    if spec.cluster_ip and spec.cluster_ips and spec.cluster_ips[0] != spec.cluster_ip:
        raise FieldError("spec.clusterIPs[0]", f"differs from spec.clusterIP {spec.cluster_ip}")
    plural = "spec.clusterIPs[{}]" if spec.cluster_ips else "spec.clusterIP"
    addresses = tuple(_checked(plural.format(i), parse_address, text) for i, text in enumerate(texts))
    if len({family_of(address) for address in addresses}) < len(addresses):
        raise FieldError("spec.clusterIPs", "has two addresses of one family")
    return addresses


def _families(spec: wire.ServiceSpec, cluster_ips: tuple[Address, ...]) -> tuple[Family, ...]:
    families = []
    for index, text in enumerate(spec.ip_families or []):
        if text not in FAMILIES or FAMILIES[text] in families:
            raise FieldError(f"spec.ipFamilies[{index}]", f"{text!r} is not one of IPv4, IPv6, each once")
        families.append(FAMILIES[text])
    for index, address in enumerate(cluster_ips):
        if index < len(families) and families[index] is not family_of(address):
            name = f"spec.clusterIPs[{index}]" if spec.cluster_ips else "spec.clusterIP"
            raise FieldError(name, f"is of the wrong family: spec.ipFamilies[{index}] is {spec.ip_families}")
    return tuple(families)


def _affinity_timeout(spec: wire.ServiceSpec) -> int | None:
    if spec.session_affinity in (None, "", "None"):
        return None
    if spec.session_affinity != "ClientIP":
        raise FieldError("spec.sessionAffinity", f"{spec.session_affinity!r} is not one of ClientIP, None")
    client_ip = spec.session_affinity_config and spec.session_affinity_config.client_ip
    if not client_ip or client_ip.timeout_seconds is None:
        return DEFAULT_AFFINITY_SECONDS
    if not 1 <= client_ip.timeout_seconds <= 86400:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        raise FieldError(path, f"{client_ip.timeout_seconds} is not in 1-86400")
    return client_ip.timeout_seconds


def service(source: str, given: wire.Service) -> list[Service]:
    spec = given.spec
    kind = spec.type or "ClusterIP"
    if kind not in SERVICE_TYPES:
        raise FieldError("spec.type", f"{kind!r} is not one of {', '.join(SERVICE_TYPES)}")
    headless = spec.cluster_ip == "None" or spec.cluster_ips == ["None"]
    if headless and kind != "ClusterIP":
        raise FieldError("spec.clusterIP", f"None does not go with type {kind}")
    if spec.ip_family_policy not in (None, "", "SingleStack", "PreferDualStack", "RequireDualStack"):
        raise FieldError("spec.ipFamilyPolicy", f"{spec.ip_family_policy!r} is unknown")
    cluster_ips = () if headless or kind == "ExternalName" else _cluster_ips(spec)
    return [
        Service(
            name=object_name(given.metadata),
            origin=_origin(source, given.metadata),
            type=kind,
            ports=_service_ports(spec, required=kind != "ExternalName" and not headless),
            selector=spec.selector or {},
            cluster_ips=cluster_ips,
            headless=headless,
            families=_families(spec, cluster_ips),
            family_policy=spec.ip_family_policy or "",
            affinity_timeout=_affinity_timeout(spec),
            publish_not_ready=bool(spec.publish_not_ready_addresses),
        )
    ]


def _endpoint_ports(path: str, entries: list[wire.EndpointPort] | None) -> tuple[EndpointPort, ...]:
    """Ports that have a number; one without (a headless service's) serves nothing here."""
    return tuple(
        EndpointPort(
            given.name or "",
            _protocol(f"{path}[{index}].protocol", given.protocol),
            _port(f"{path}[{index}].port", given.port),
        )
        for index, given in enumerate(entries or [])
        if given.port is not None
    )


def _endpoint(path: str, family: Family, given: wire.Endpoint) -> Endpoint:
    if not given.addresses:
        raise FieldError(f"{path}.addresses", "is empty")
    address = _endpoint_address(f"{path}.addresses[0]", given.addresses[0])
    if family_of(address) is not family:
        raise FieldError(f"{path}.addresses[0]", f"{given.addresses[0]} is not of the slice's family")
    node = given.node_name or ""
    conditions = given.conditions
    if conditions is None:
        return Endpoint(address, node=node)
    ready = conditions.ready is not False
    serving = ready if conditions.serving is None else conditions.serving
    return Endpoint(address, ready, serving, conditions.terminating is True, node)


def endpoint_slice(source: str, given: wire.EndpointSlice) -> list[EndpointSlice]:
    name = object_name(given.metadata)
    labels = given.metadata.labels or {}
    if given.address_type not in (*FAMILIES, "FQDN"):
        raise FieldError("addressType", f"{given.address_type!r} is not one of IPv4, IPv6, FQDN")
    if SERVICE_NAME_LABEL not in labels or HEADLESS_LABEL in labels or given.address_type == "FQDN":
        return []
    family = FAMILIES[given.address_type]
    slice_ = EndpointSlice(
        service=NamespacedName(name.namespace, labels[SERVICE_NAME_LABEL]),
        origin=_origin(source, given.metadata),
        name=name.name,
        family=family,
        ports=_endpoint_ports("ports", given.ports),
        endpoints=tuple(
            _endpoint(f"endpoints[{index}]", family, endpoint)
            for index, endpoint in enumerate(given.endpoints or [])
        ),
    )
    return [slice_]


def _subset_endpoints(path: str, subset: wire.EndpointSubset) -> Iterator[Endpoint]:
    for key, entries, ready in (
        ("addresses", subset.addresses, True),
        ("notReadyAddresses", subset.not_ready_addresses, False),
    ):
        for index, given in enumerate(entries or []):
            address = _endpoint_address(f"{path}.{key}[{index}].ip", given.ip)
            yield Endpoint(address, ready, ready, False, given.node_name or "")


def endpoints(source: str, given: wire.Endpoints) -> list[EndpointSlice]:
    """A legacy Endpoints as the slices that Kubernetes would mirror it to: one per subset and family."""
    name = object_name(given.metadata)
    slices = []
    for index, subset in enumerate(given.subsets or []):
        path = f"subsets[{index}]"
        ports = _endpoint_ports(f"{path}.ports", subset.ports)
        endpoints = tuple(_subset_endpoints(path, subset))
        for family in Family:
            members = tuple(e for e in endpoints if family_of(e.address) is family)
            if members:
                origin = _origin(source, given.metadata)
                slices.append(EndpointSlice(name, origin, name.name, family, ports, members, legacy=True))
    return slices


def pod(source: str, given: wire.Pod) -> list[Pod]:
    """A Pod without any Ready condition (a manifest written by hand) counts as ready."""
    name = object_name(given.metadata)
    spec, status = given.spec or wire.PodSpec(), given.status or wire.PodStatus()
    if status.phase in ("Succeeded", "Failed"):
        return []
    texts = [("status.podIP", status.pod_ip)] if status.pod_ip else []
    texts += [(f"status.podIPs[{i}].ip", pod_ip.ip) for i, pod_ip in enumerate(status.pod_ips or [])]
    ports = [
        EndpointPort(
            port.name,
            _protocol(f"spec.containers[{c}].ports[{p}].protocol", port.protocol),
            _port(f"spec.containers[{c}].ports[{p}].containerPort", port.container_port),
        )
        for c, container in enumerate(spec.containers or [])
        for p, port in enumerate(container.ports or [])
        if port.name
    ]
    pod = Pod(
        name=name,
        origin=_origin(source, given.metadata),
        labels=given.metadata.labels or {},
        addresses=tuple(dict.fromkeys(_endpoint_address(path, text) for path, text in texts)),
        ports=tuple(ports),
        ready=all(c.status == "True" for c in status.conditions or [] if c.type == "Ready"),
        terminating=given.metadata.deletion_timestamp is not None,
        node=spec.node_name or "",
    )
    return [pod]
