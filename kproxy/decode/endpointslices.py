"""EndpointSlice, Endpoints and Pod -> model. containers.py decodes the containers of a Pod."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from msgspec.structs import replace

from kproxy.decode import wire
from kproxy.decode.containers import containers
from kproxy.decode.fields import (
    FAMILIES,
    SHARED_TEXT,
    FieldError,
    Notes,
    endpoint_address,
    node_name,
    object_name,
    origin,
    plain_address,
    protocol,
    share,
    text_map,
    usable,
)
from kproxy.model import (
    Address,
    Container,
    ContainerCounts,
    EndedPod,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Pod,
    Protocol,
    family_of,
)

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
ADDRESS_TYPES = (*FAMILIES, "FQDN")
NO_CONDITIONS = wire.EndpointConditions()
PROTOCOLS: dict[str | None, Protocol] = {None: Protocol.TCP, **{each.name: each for each in Protocol}}


def _endpoint_ports(
    path: str, entries: list[wire.EndpointPort] | None, notes: Notes
) -> tuple[EndpointPort, ...]:
    """Decode the ports that have a number. A port of a headless Service may have none; it is ignored.

    The API server accepts any number in a slice. kube-proxy ignores what is not a port, too.
    """
    if entries and len(entries) == 1:
        only, name = entries[0], entries[0].name or ""
        kind, number = PROTOCOLS.get(only.protocol), only.port
        if kind and number and 1 <= number <= 65535 and len(name) <= SHARED_TEXT:
            return _only_port(name, kind, number)
    found = []
    for index, entry in enumerate(entries or []):
        if entry.port is None:
            continue
        if not 1 <= entry.port <= 65535:
            notes.warn(f"{path}[{index}].port", f"{entry.port} is not a port (1-65535): ignored")
            continue
        try:
            kind = protocol(f"{path}[{index}].protocol", entry.protocol)
            found.append(EndpointPort(entry.name or "", kind, entry.port))
        except FieldError as error:
            notes.leave_out(error)
    return share(tuple(found))


@lru_cache(4096)
def _only_port(name: str, kind: Protocol, number: int) -> tuple[EndpointPort, ...]:
    """Return the only port of a slice. Many slices have an equal one."""
    return (EndpointPort(name, kind, number),)


def _pod_name(reference: wire.ObjectReference | None) -> str:
    return reference.name or "" if reference and reference.kind == "Pod" else ""


def _hints(entries: list[wire.Hint] | None) -> tuple[str, ...]:
    return share(tuple(hint.name for hint in entries)) if entries else ()


def _address(index: int, family: Family, entry: wire.Endpoint, notes: Notes) -> Address:
    path = f"endpoints[{index}].addresses"
    if not entry.addresses:
        raise FieldError(path, "is empty")
    address = endpoint_address(f"{path}[0]", entry.addresses[0], notes)
    if family_of(address) is not family:
        raise FieldError(f"{path}[0]", f"{entry.addresses[0]} is not of the slice's addressType")
    return address


def _endpoints(family: Family, entries: Iterable[wire.Endpoint], notes: Notes) -> Iterator[Endpoint]:
    """Yield the valid endpoints. The others are left out, and do not affect them.

    There are hundreds of thousands, so this calls little, and passes the fields by position.
    """
    is_ipv4 = family is Family.IPV4
    for index, entry in enumerate(entries):
        plain = plain_address(entry.addresses[0]) if is_ipv4 and entry.addresses else None
        try:
            address = plain or _address(index, family, entry, notes)
        except FieldError as error:
            notes.leave_out(error)
            continue
        conditions, hints = entry.conditions or NO_CONDITIONS, entry.hints
        ready, node, reference = conditions.ready is not False, entry.node_name, entry.target_ref
        yield Endpoint(
            address,
            ready,
            ready if conditions.serving is None else conditions.serving,
            conditions.terminating is True,
            node_name(node) if node else "",
            _pod_name(reference) if reference else "",
            _hints(hints.for_nodes) if hints else (),
            _hints(hints.for_zones) if hints else (),
            entry.hostname or "",
        )


def endpoint_slice(source: str, obj: wire.EndpointSlice, notes: Notes) -> list[EndpointSlice]:
    """Decode an EndpointSlice of discovery.k8s.io/v1. [] if it has no Service or no addresses (FQDN)."""
    name = object_name(obj.metadata)
    labels = text_map("metadata.labels", obj.metadata.labels, notes)
    if obj.address_type not in ADDRESS_TYPES:
        raise FieldError("addressType", f"{obj.address_type!r} is not one of IPv4, IPv6, FQDN")
    if SERVICE_NAME_LABEL not in labels or obj.address_type == "FQDN":
        return []
    family = FAMILIES[obj.address_type]
    slice_ = EndpointSlice(
        service=NamespacedName(name.namespace, labels[SERVICE_NAME_LABEL]),
        origin=origin(source, obj.metadata),
        name=name.name,
        family=family,
        ports=_endpoint_ports("ports", obj.ports, notes),
        endpoints=tuple(_endpoints(family, obj.endpoints or (), notes)),
        headless=HEADLESS_LABEL in labels,
        labels=labels,
    )
    return [slice_]


def _subset_endpoints(path: str, subset: wire.EndpointSubset, notes: Notes) -> Iterator[Endpoint]:
    for key, entries, ready in (
        ("addresses", subset.addresses, True),
        ("notReadyAddresses", subset.not_ready_addresses, False),
    ):
        for index, entry in enumerate(entries or []):
            for address in usable(endpoint_address, [(f"{path}.{key}[{index}].ip", entry.ip)], notes):
                pod, node = _pod_name(entry.target_ref), node_name(entry.node_name)
                yield Endpoint(address, ready, ready, False, node, pod, hostname=entry.hostname or "")


def endpoints(source: str, obj: wire.Endpoints, notes: Notes) -> list[EndpointSlice]:
    """Decode a legacy Endpoints object to slices as Kubernetes mirrors it: one per subset and family.

    The first slice is empty, so that an Endpoints object without addresses has a slice, too.
    """
    name = object_name(obj.metadata)
    place = origin(source, obj.metadata)
    labels = text_map("metadata.labels", obj.metadata.labels, notes)
    slices = [EndpointSlice(name, place, name.name, Family.IPV4, (), (), legacy=True, labels=labels)]
    for index, subset in enumerate(obj.subsets or []):
        path = f"subsets[{index}]"
        ports = _endpoint_ports(f"{path}.ports", subset.ports, notes)
        endpoints = tuple(_subset_endpoints(path, subset, notes))
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


def _identified(
    members: tuple[Container, ...], statuses: list[wire.ContainerStatus] | None
) -> tuple[Container, ...]:
    """Add the identifiers of containers that run."""
    found = {status.name: status.container_id for status in statuses or () if status.container_id}
    return tuple(replace(each, identifier=found.get(each.name, "")) for each in members) if found else members


def _gates_open(gates: Iterable[wire.ReadinessGate], conditions: Iterable[wire.Condition]) -> bool:
    return {gate.condition_type for gate in gates} <= {c.type for c in conditions if c.status == "True"}


def _addresses(
    path: str, single: str | None, several: list[wire.IP] | None, notes: Notes
) -> tuple[Address, ...]:
    texts = [(path, single)] if single else []
    texts += [(f"{path}s[{index}].ip", entry.ip) for index, entry in enumerate(several or [])]
    return tuple(dict.fromkeys(usable(endpoint_address, texts, notes)))


def pod(source: str, obj: wire.Pod, notes: Notes) -> list[Pod | EndedPod]:
    """Decode a Pod.

    A Pod without a Ready condition (a manifest written by hand) is ready until it is probed.
    """
    name = object_name(obj.metadata)
    spec, status = obj.spec or wire.PodSpec(), obj.status or wire.PodStatus()
    if status.phase in ("Succeeded", "Failed"):
        return [EndedPod(name, text_map("metadata.labels", obj.metadata.labels, notes), status.phase)]
    host_network = spec.host_network is True
    addresses = _addresses("status.podIP", status.pod_ip, status.pod_ips, notes)
    if host_network and not addresses:
        addresses = _addresses("status.hostIP", status.host_ip, status.host_ips, notes)
    members = _identified(containers(spec), status.container_statuses)
    pod = Pod(
        name=name,
        origin=origin(source, obj.metadata),
        labels=text_map("metadata.labels", obj.metadata.labels, notes),
        addresses=addresses,
        ports=tuple(port for container in members for port in container.ports if port.name),
        ready=all(c.status == "True" for c in status.conditions or [] if c.type == "Ready"),
        deleted=obj.metadata.deletion_timestamp or "",
        node=node_name(spec.node_name),
        host_network=host_network,
        service_links=spec.enable_service_links is not False,
        phase=status.phase or "",
        counts=_counts(status.container_statuses),
        containers=members,
        gates_open=_gates_open(spec.readiness_gates or (), status.conditions or ()),
        uid=obj.metadata.uid or "",
        hostname=spec.hostname or "",
        subdomain=spec.subdomain or "",
    )
    return [pod]
