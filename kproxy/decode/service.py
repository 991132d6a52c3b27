"""Service v1 -> model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from kproxy.decode import wire
from kproxy.decode.explain import expectation
from kproxy.decode.fields import (
    FAMILIES,
    LABEL,
    LABEL_RULE,
    FieldError,
    Notes,
    network,
    object_name,
    origin,
    plain_address,
    port_number,
    protocol,
    share,
    text_map,
    unicast_address,
    usable,
)
from kproxy.limits import OBJECT_ITEMS, SERVICE_FRONTENDS, SERVICE_SOURCES
from kproxy.model import (
    Address,
    Balance,
    Family,
    Network,
    Service,
    ServicePort,
    family_of,
    format_address,
)

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
WEIGHTS = "kproxy.io/weights"
CONSISTENT_HASH = "kproxy.io/consistent-hash"
HASHES = {"client": Balance.CLIENT, "client-port": Balance.CLIENT_PORT}
MAX_WEIGHT = 100
NO_WEIGHTS: dict[str, int] = {}
WEIGHT = r"\s*([^\s=]+)\s*=\s*([0-9]{1,3})\s*"
DEFAULT_AFFINITY_SECONDS = 10800
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
POLICIES = ("Cluster", "Local")


def _service_port(path: str, entry: wire.ServicePort, alone: bool) -> ServicePort:
    if not entry.name and not alone:
        raise FieldError(f"{path}.name", "is required for each port of a Service with several ports")
    target = entry.target_port
    if isinstance(target, int):
        target = port_number(f"{path}.targetPort", target) if target else None
    elif target and (target.isdigit() or not LABEL.fullmatch(target)):
        raise FieldError(f"{path}.targetPort", f"{target!r} is neither a port number nor a valid port name")
    if entry.name and not LABEL.fullmatch(entry.name):
        raise FieldError(f"{path}.name", f"{entry.name!r} is not a DNS label: {LABEL_RULE}")
    return ServicePort(
        name=entry.name or "",
        protocol=protocol(f"{path}.protocol", entry.protocol),
        port=port_number(f"{path}.port", entry.port),
        target_port=target or entry.port,
        node_port=port_number(f"{path}.nodePort", entry.node_port) if entry.node_port else 0,
    )


def _service_ports(spec: wire.ServiceSpec, required: bool) -> tuple[ServicePort, ...]:
    entries = spec.ports or []
    if len(entries) == 1:
        (only,) = entries
        return _only_port(only.name, only.protocol, only.port, only.target_port, only.node_port)
    if required and not entries:
        raise FieldError("spec.ports", "is missing")
    ports: list[ServicePort] = []
    seen: set[tuple[str, object]] = set()
    for index, entry in enumerate(entries):
        port = _service_port(f"spec.ports[{index}]", entry, len(entries) == 1)
        for field, value, text in _unique(port):
            if (field, value) in seen:
                raise FieldError(f"spec.ports[{index}].{field}", f"{text} is a duplicate")
            seen.add((field, value))
        ports.append(port)
    return share(tuple(ports))


@lru_cache(4096)
def _only_port(
    name: str | None, kind: str | None, port: int, target: int | str | None, node_port: int | None
) -> tuple[ServicePort, ...]:
    """Return the only port of a Service. Many Services have an equal one. A long text is an error."""
    entry = wire.ServicePort(port, name, kind, target, node_port)
    return (_service_port("spec.ports[0]", entry, alone=True),)


def _unique(port: ServicePort) -> Iterator[tuple[str, object, str]]:
    """Yield the values that no other port of the Service may have: field, value, and the value as text."""
    yield "name", port.name, repr(port.name)
    if port.node_port:
        yield "nodePort", (port.node_port, port.protocol), str(port.node_port)
    yield "port", (port.port, port.protocol), f"{port.port}/{port.protocol}"


def _cluster_ips(spec: wire.ServiceSpec, notes: Notes) -> tuple[Address, ...]:
    texts = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    if len(texts) == 1 and spec.cluster_ip == texts[0] and (plain := plain_address(texts[0])):
        return (plain,)
    if spec.cluster_ip and spec.cluster_ips and spec.cluster_ips[0] != spec.cluster_ip:
        message = f"{spec.cluster_ips[0]} differs from spec.clusterIP {spec.cluster_ip}"
        raise FieldError("spec.clusterIPs[0]", message)
    plural = "spec.clusterIPs[{}]" if spec.cluster_ips else "spec.clusterIP"
    addresses = tuple(unicast_address(plural.format(i), text, notes) for i, text in enumerate(texts))
    if len({family_of(address) for address in addresses}) < len(addresses):
        raise FieldError("spec.clusterIPs", "contains two addresses of the same family")
    return addresses


def _families(spec: wire.ServiceSpec, cluster_ips: tuple[Address, ...]) -> tuple[Family, ...]:
    families = _named_families(tuple(spec.ip_families or ()))
    for index, address in enumerate(cluster_ips):
        if index < len(families) and families[index] is not family_of(address):
            name = f"spec.clusterIPs[{index}]" if spec.cluster_ips else "spec.clusterIP"
            expected = "IPv4" if families[index] is Family.IPV4 else "IPv6"
            message = f"{format_address(address)} is not {expected}, as spec.ipFamilies[{index}] requires"
            raise FieldError(name, message)
    return families


@lru_cache(16)
def _named_families(texts: tuple[str, ...]) -> tuple[Family, ...]:
    families: list[Family] = []
    for index, text in enumerate(texts):
        if text not in FAMILIES:
            raise FieldError(f"spec.ipFamilies[{index}]", f"{text!r} is not one of IPv4, IPv6")
        if FAMILIES[text] in families:
            raise FieldError(f"spec.ipFamilies[{index}]", f"{text!r} is a duplicate")
        families.append(FAMILIES[text])
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
        raise FieldError(path, f"{client_ip.timeout_seconds} is not in the range 1-86400")
    return client_ip.timeout_seconds


def _choice(path: str, text: str | None, choices: tuple[str, ...]) -> str:
    """Check that the text is one of `choices`. The default is the first one."""
    if text and text not in choices:
        raise FieldError(path, f"{text!r} is not one of {', '.join(choices)}")
    return text or choices[0]


def _external_ips(texts: list[str] | None, notes: Notes) -> tuple[Address, ...]:
    if not texts:
        return ()
    paths = ((f"spec.externalIPs[{index}]", text) for index, text in enumerate(texts))
    return tuple(usable(unicast_address, paths, notes))


def _source_ranges(texts: list[str] | None, notes: Notes) -> tuple[Network, ...]:
    """Parse CIDRs. An invalid one leaves out the Service: without a range, all clients are allowed."""
    if not texts:
        return ()
    return tuple(
        network(f"spec.loadBalancerSourceRanges[{index}]", text, notes) for index, text in enumerate(texts)
    )


def _selector(selector: dict[str, Any], notes: Notes) -> dict[str, str]:
    """Check a map of labels. A Deployment's form of a selector is a common mistake, with its own message."""
    path = "spec.selector"
    for key, value in selector.items():
        if key in ("matchLabels", "matchExpressions") and not isinstance(value, str):
            raise FieldError(path, f"a Service's selector is a map of labels and cannot contain {key}")
        if not isinstance(value, str | None):
            raise FieldError(f"{path}[{key}]", expectation(["str"], value))
    return text_map(path, selector, notes)


def _ingress(status: wire.ObjectStatus | None) -> list[wire.LoadBalancerIngress]:
    return (status and status.load_balancer and status.load_balancer.ingress) or []


def _load_balancer_ips(entries: list[wire.LoadBalancerIngress], notes: Notes) -> tuple[Address, ...]:
    """Return the ingress addresses that the node serves. A load balancer serves those of ipMode Proxy.

    The API server accepts any address here, for example 127.0.0.1, which minikube writes.
    """
    found = []
    for index, entry in enumerate(entries):
        if entry.ip and entry.ip_mode in (None, "", "VIP"):
            try:
                found.append(unicast_address(f"status.loadBalancer.ingress[{index}].ip", entry.ip, notes))
            except FieldError as error:
                notes.warn(error.path, f"{error}: not served")
    return tuple(found)


def _health_check_node_port(spec: wire.ServiceSpec, kind: str, external_local: bool) -> int:
    """Return the port; 0 for other types and policies, where it is left over from an earlier version."""
    number = spec.health_check_node_port
    port = port_number("spec.healthCheckNodePort", number) if number else 0
    return port if kind == "LoadBalancer" and external_local else 0


def _weights(annotations: dict[str, str], notes: Notes) -> dict[str, int]:
    """Parse `pod-a=3, 10.0.0.7=2`: the weight of an endpoint, by the name of its pod or its address."""
    text = annotations.get(WEIGHTS)
    if not text:
        return NO_WEIGHTS
    if text.count(",") >= OBJECT_ITEMS:
        notes.warn(f"metadata.annotations[{WEIGHTS}]", f"has more than {OBJECT_ITEMS:,} entries: ignored")
        return NO_WEIGHTS
    weights: dict[str, int] = {}
    for entry in filter(str.strip, text.split(",")):
        found = re.fullmatch(WEIGHT, entry)
        if found and 1 <= int(found[2]) <= MAX_WEIGHT:
            weights[found[1]] = int(found[2])
        else:
            message = (
                f"{entry.strip()!r} is not ENDPOINT=WEIGHT with a weight from 1 to {MAX_WEIGHT}: ignored"
            )
            notes.warn(f"metadata.annotations[{WEIGHTS}]", message)
    return weights


def _hashing(annotations: dict[str, str], affinity_timeout: int | None, notes: Notes) -> Balance | None:
    path, text = f"metadata.annotations[{CONSISTENT_HASH}]", annotations.get(CONSISTENT_HASH)
    if text is None:
        return None
    if text not in HASHES:
        notes.warn(path, f"{text!r} is not one of {', '.join(HASHES)}: ignored")
    elif affinity_timeout is not None:
        notes.warn(path, "cannot be combined with spec.sessionAffinity: ClientIP: ignored")
        return None
    return HASHES.get(text)


def _of_limited_size(service: Service) -> Service:
    """Check how many frontends and source ranges a Service has. They are products, and objects are small."""
    ports, balancers = len(service.ports), len(service.load_balancer_ips)
    addresses = len(service.cluster_ips) + len(service.external_ips) + balancers
    if (size := ports * addresses) > SERVICE_FRONTENDS:
        message = f"{ports} ports x {addresses} addresses are {size} frontends: at most {SERVICE_FRONTENDS}"
        raise FieldError("spec.ports", message)
    ranges, balancers = len(service.source_ranges), balancers or 1
    if (size := ports * balancers * ranges) > SERVICE_SOURCES:
        message = f"{ports} ports x {balancers} load-balancer addresses x {ranges} ranges are {size}"
        raise FieldError("spec.loadBalancerSourceRanges", f"{message}: at most {SERVICE_SOURCES}")
    return service


def service(source: str, obj: wire.Service, notes: Notes) -> list[Service]:
    """Decode a Service v1."""
    spec = obj.spec
    labels = text_map("metadata.labels", obj.metadata.labels, notes)
    annotations = text_map("metadata.annotations", obj.metadata.annotations, notes)
    kind = _choice("spec.type", spec.type, SERVICE_TYPES)
    name = object_name(obj.metadata)
    if not LABEL.fullmatch(name.name):
        raise FieldError("metadata.name", f"{name.name!r} is not a DNS label: {LABEL_RULE}")
    headless = spec.cluster_ip == "None" or spec.cluster_ips == ["None"]
    if headless and kind != "ClusterIP":
        raise FieldError("spec.clusterIP", f"None is not allowed for type {kind}")
    if spec.ip_family_policy:
        _choice("spec.ipFamilyPolicy", spec.ip_family_policy, FAMILY_POLICIES)
    cluster_ips = () if headless or kind == "ExternalName" else _cluster_ips(spec, notes)
    timeout = _affinity_timeout(spec)
    internal = _choice("spec.internalTrafficPolicy", spec.internal_traffic_policy, POLICIES)
    external = _choice("spec.externalTrafficPolicy", spec.external_traffic_policy, POLICIES)
    ingress = _ingress(obj.status) if kind == "LoadBalancer" else []
    found = Service(
        name=name,
        origin=origin(source, obj.metadata),
        type=kind,
        ports=_service_ports(spec, required=kind != "ExternalName" and not headless),
        selector=_selector(spec.selector or {}, notes),
        cluster_ips=cluster_ips,
        headless=headless,
        families=_families(spec, cluster_ips),
        family_policy=spec.ip_family_policy or "",
        affinity_timeout=timeout,
        publish_not_ready=bool(spec.publish_not_ready_addresses),
        internal_local=internal == "Local",
        external_local=external == "Local",
        external_ips=_external_ips(spec.external_ips, notes),
        load_balancer_ips=_load_balancer_ips(ingress, notes),
        source_ranges=_source_ranges(spec.load_balancer_source_ranges, notes),
        allocate_node_ports=spec.allocate_load_balancer_node_ports is not False,
        distribution=spec.traffic_distribution or "",
        proxied_elsewhere=PROXY_NAME_LABEL in labels,
        hashing=_hashing(annotations, timeout, notes),
        weights=_weights(annotations, notes),
        external_name=spec.external_name or "",
        labels=labels,
        ingress=tuple([entry.ip or entry.hostname or "" for entry in ingress]),
        health_check_node_port=_health_check_node_port(spec, kind, external == "Local"),
        load_balancer_ip=(kind == "LoadBalancer" and spec.load_balancer_ip) or "",
        load_balancer_class=(kind == "LoadBalancer" and spec.load_balancer_class) or "",
    )
    return [_of_limited_size(found)]
