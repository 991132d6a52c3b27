"""EndpointSlice, Endpoints and Pod -> model; the containers of a pod are in containers.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kproxy.decode import wire
from kproxy.decode.containers import containers
from kproxy.decode.fields import (
    FAMILIES,
    FieldError,
    object_name,
    origin,
    port_number,
    protocol,
    share,
    unicast_address,
)
from kproxy.model import (
    Address,
    ContainerCounts,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Pod,
    family_of,
)

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
NO_CONDITIONS = wire.EndpointConditions()
NO_HINTS = wire.EndpointHints()


def _endpoint_ports(path: str, entries: list[wire.EndpointPort] | None) -> tuple[EndpointPort, ...]:
    """Ports that have a number; one without (a headless service's) serves nothing here."""
    return share(
        tuple(
            EndpointPort(
                given.name or "",
                protocol(f"{path}[{index}].protocol", given.protocol),
                port_number(f"{path}[{index}].port", given.port),
            )
            for index, given in enumerate(entries or [])
            if given.port is not None
        )
    )


def _pod_name(reference: wire.ObjectReference | None) -> str:
    return reference.name or "" if reference and reference.kind == "Pod" else ""


def _hints(entries: list[wire.Hint] | None) -> tuple[str, ...]:
    return share(tuple(hint.name for hint in entries)) if entries else ()


def _endpoint(path: str, family: Family, given: wire.Endpoint) -> Endpoint:
    if not given.addresses:
        raise FieldError(f"{path}.addresses", "is empty")
    address = unicast_address(f"{path}.addresses[0]", given.addresses[0])
    if family_of(address) is not family:
        raise FieldError(f"{path}.addresses[0]", f"{given.addresses[0]} is not of the slice's family")
    conditions = given.conditions or NO_CONDITIONS
    hints = given.hints or NO_HINTS
    ready = conditions.ready is not False
    return Endpoint(
        address,
        ready=ready,
        serving=ready if conditions.serving is None else conditions.serving,
        terminating=conditions.terminating is True,
        node=share(given.node_name or ""),
        pod=_pod_name(given.target_ref),
        for_nodes=_hints(hints.for_nodes),
        for_zones=_hints(hints.for_zones),
    )


def endpoint_slice(source: str, given: wire.EndpointSlice) -> list[EndpointSlice]:
    """An EndpointSlice of discovery.k8s.io/v1; none if it belongs to no service."""
    name = object_name(given.metadata)
    labels = given.metadata.labels or {}
    if given.address_type not in (*FAMILIES, "FQDN"):
        raise FieldError("addressType", f"{given.address_type!r} is not one of IPv4, IPv6, FQDN")
    if SERVICE_NAME_LABEL not in labels or given.address_type == "FQDN":
        return []
    family = FAMILIES[given.address_type]
    slice_ = EndpointSlice(
        service=NamespacedName(name.namespace, labels[SERVICE_NAME_LABEL]),
        origin=origin(source, given.metadata),
        name=name.name,
        family=family,
        ports=_endpoint_ports("ports", given.ports),
        endpoints=tuple(
            _endpoint(f"endpoints[{index}]", family, endpoint)
            for index, endpoint in enumerate(given.endpoints or [])
        ),
        headless=HEADLESS_LABEL in labels,
        labels=labels,
    )
    return [slice_]


def _subset_endpoints(path: str, subset: wire.EndpointSubset) -> Iterator[Endpoint]:
    for key, entries, ready in (
        ("addresses", subset.addresses, True),
        ("notReadyAddresses", subset.not_ready_addresses, False),
    ):
        for index, given in enumerate(entries or []):
            address = unicast_address(f"{path}.{key}[{index}].ip", given.ip)
            yield Endpoint(address, ready, ready, False, given.node_name or "", _pod_name(given.target_ref))


def endpoints(source: str, given: wire.Endpoints) -> list[EndpointSlice]:
    """A legacy Endpoints as the slices that Kubernetes would mirror it to: one per subset and family.

    The first one is empty, and says that endpoints were given even if there are none.
    """
    name = object_name(given.metadata)
    place = origin(source, given.metadata)
    labels = given.metadata.labels or {}
    slices = [EndpointSlice(name, place, name.name, Family.IPV4, (), (), legacy=True, labels=labels)]
    for index, subset in enumerate(given.subsets or []):
        path = f"subsets[{index}]"
        ports = _endpoint_ports(f"{path}.ports", subset.ports)
        endpoints = tuple(_subset_endpoints(path, subset))
        for family in Family:
            members = tuple(e for e in endpoints if family_of(e.address) is family)
            if members:
                slices.append(
                    EndpointSlice(name, place, name.name, family, ports, members, legacy=True, labels=labels)
                )
    return slices


def _counts(statuses: list[wire.ContainerStatus] | None) -> ContainerCounts | None:
    if not statuses:
        return None
    ready = sum(status.ready is True for status in statuses)
    return ContainerCounts(ready, len(statuses), sum(status.restart_count or 0 for status in statuses))


def _gates_open(gates: Iterable[wire.ReadinessGate], conditions: Iterable[wire.Condition]) -> bool:
    return {gate.condition_type for gate in gates} <= {c.type for c in conditions if c.status == "True"}


def _addresses(path: str, single: str | None, several: list[wire.IP] | None) -> tuple[Address, ...]:
    texts = [(path, single)] if single else []
    texts += [(f"{path}s[{index}].ip", entry.ip) for index, entry in enumerate(several or [])]
    return tuple(dict.fromkeys(unicast_address(path, text) for path, text in texts))


def pod(source: str, given: wire.Pod) -> list[Pod]:
    """A Pod without any Ready condition (a manifest written by hand) counts as ready, until it is probed."""
    name = object_name(given.metadata)
    spec, status = given.spec or wire.PodSpec(), given.status or wire.PodStatus()
    if status.phase in ("Succeeded", "Failed"):
        return []
    host_network = spec.host_network is True
    addresses = _addresses("status.podIP", status.pod_ip, status.pod_ips)
    if host_network and not addresses:
        addresses = _addresses("status.hostIP", status.host_ip, status.host_ips)
    members = containers(spec)
    pod = Pod(
        name=name,
        origin=origin(source, given.metadata),
        labels=given.metadata.labels or {},
        addresses=addresses,
        ports=tuple(port for container in members for port in container.ports if port.name),
        ready=all(c.status == "True" for c in status.conditions or [] if c.type == "Ready"),
        deleted=given.metadata.deletion_timestamp or "",
        node=spec.node_name or "",
        host_network=host_network,
        service_links=spec.enable_service_links is not False,
        phase=status.phase or "",
        counts=_counts(status.container_statuses),
        containers=members,
        gates_open=_gates_open(spec.readiness_gates or (), status.conditions or ()),
        uid=given.metadata.uid or "",
    )
    return [pod]
