"""Service v1 -> model."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

from kproxy.decode import wire
from kproxy.decode.fields import (
    FAMILIES,
    FieldError,
    checked,
    object_name,
    origin,
    port_number,
    protocol,
    share,
    unicast_address,
)
from kproxy.model import Address, Balance, Family, Network, Service, ServicePort, family_of

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
WEIGHTS = "kproxy.io/weights"
CONSISTENT_HASH = "kproxy.io/consistent-hash"
HASHES = {"client": Balance.CLIENT, "client-port": Balance.CLIENT_PORT}
MAX_WEIGHT = 100
NO_WEIGHTS: dict[str, int] = {}
WEIGHT = re.compile(r"\s*([^\s=]+)\s*=\s*([0-9]{1,3})\s*")
DEFAULT_AFFINITY_SECONDS = 10800
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
POLICIES = ("Cluster", "Local")
JSON_TYPES = {dict: "object", list: "array", type(None): "null"}


def _service_port(path: str, given: wire.ServicePort, alone: bool) -> ServicePort:
    if not given.name and not alone:
        raise FieldError(f"{path}.name", "is required where a service has several ports")
    target = given.target_port
    if isinstance(target, int):
        target = port_number(f"{path}.targetPort", target) if target else None
    elif target and (target.isdigit() or not LABEL.fullmatch(target)):
        raise FieldError(f"{path}.targetPort", f"{target!r} is neither a number nor a port's name")
    if given.name and not LABEL.fullmatch(given.name):
        raise FieldError(f"{path}.name", f"{given.name!r} is not a name: lower-case letters, digits and -")
    return ServicePort(
        name=given.name or "",
        protocol=protocol(f"{path}.protocol", given.protocol),
        port=port_number(f"{path}.port", given.port),
        target_port=target or given.port,
        node_port=port_number(f"{path}.nodePort", given.node_port) if given.node_port else 0,
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
            if earlier.node_port and (earlier.node_port, earlier.protocol) == (port.node_port, port.protocol):
                raise FieldError(f"spec.ports[{index}].nodePort", f"{port.node_port} is given twice")
            if (earlier.port, earlier.protocol) == (port.port, port.protocol):
                raise FieldError(f"spec.ports[{index}].port", f"{port.port}/{port.protocol} is given twice")
        ports.append(port)
    return share(tuple(ports))


def _cluster_ips(spec: wire.ServiceSpec) -> tuple[Address, ...]:
    texts = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    if spec.cluster_ip and spec.cluster_ips and spec.cluster_ips[0] != spec.cluster_ip:
        raise FieldError("spec.clusterIPs[0]", f"differs from spec.clusterIP {spec.cluster_ip}")
    plural = "spec.clusterIPs[{}]" if spec.cluster_ips else "spec.clusterIP"
    addresses = tuple(unicast_address(plural.format(i), text) for i, text in enumerate(texts))
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
    return share(tuple(families))


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


def _choice(path: str, text: str | None, choices: tuple[str, ...]) -> str:
    """One of `choices`, the first if absent."""
    if text not in (None, "", *choices):
        raise FieldError(path, f"{text!r} is not one of {', '.join(choices)}")
    return text or choices[0]


def _addresses(path: str, texts: list[str] | None) -> tuple[Address, ...]:
    return tuple(unicast_address(f"{path}[{index}]", text) for index, text in enumerate(texts or []))


def _source_ranges(texts: list[str] | None) -> tuple[Network, ...]:
    """CIDRs; bits behind the prefix count for nothing, as in Kubernetes."""
    path = "spec.loadBalancerSourceRanges"
    return tuple(
        checked(f"{path}[{index}]", lambda text: ip_network(text.strip(), strict=False), text)
        for index, text in enumerate(texts or [])
    )


def _selector(given: dict[str, Any]) -> dict[str, str]:
    """A plain map of labels. Many write a Deployment's form of it, so this has a message of its own."""
    path = "spec.selector"
    for key, value in given.items():
        if key in ("matchLabels", "matchExpressions") and not isinstance(value, str):
            raise FieldError(path, f"a Service's selector is a plain map of labels; {key} is a Deployment's")
        if not isinstance(value, str):
            kind = JSON_TYPES.get(type(value), type(value).__name__)
            raise FieldError(f"{path}[{key}]", f"expected str, got {kind}")
    return given


def _ingress(status: wire.ObjectStatus | None) -> list[wire.LoadBalancerIngress]:
    return (status and status.load_balancer and status.load_balancer.ingress) or []


def _load_balancer_ips(entries: list[wire.LoadBalancerIngress]) -> tuple[Address, ...]:
    """Ingress addresses that the node serves; those of mode Proxy are somebody else's."""
    return tuple(
        unicast_address(f"status.loadBalancer.ingress[{index}].ip", entry.ip)
        for index, entry in enumerate(entries)
        if entry.ip and entry.ip_mode in (None, "", "VIP")
    )


def _health_check_node_port(spec: wire.ServiceSpec, kind: str, external_local: bool) -> int:
    """What is left over from when it was of another type or policy does not count, as with nodePort."""
    number = spec.health_check_node_port
    port = port_number("spec.healthCheckNodePort", number) if number else 0
    return port if kind == "LoadBalancer" and external_local else 0


def _weights(annotations: dict[str, str]) -> dict[str, int]:
    """`pod-a=3, 10.0.0.7=2`: slots of an endpoint, by its pod's name or its address."""
    if WEIGHTS not in annotations:
        return NO_WEIGHTS
    path, weights = f"metadata.annotations[{WEIGHTS}]", {}
    for entry in annotations[WEIGHTS].split(","):
        if not entry.strip():
            continue
        found = WEIGHT.fullmatch(entry)
        if not found or not 1 <= int(found[2]) <= MAX_WEIGHT:
            raise FieldError(
                path, f"{entry.strip()!r} is not ENDPOINT=WEIGHT with a weight in 1-{MAX_WEIGHT}"
            )
        weights[found[1]] = int(found[2])
    return weights


def _hashing(annotations: dict[str, str], affinity_timeout: int | None) -> Balance | None:
    path, text = f"metadata.annotations[{CONSISTENT_HASH}]", annotations.get(CONSISTENT_HASH)
    if text is None:
        return None
    if text not in HASHES:
        raise FieldError(path, f"{text!r} is not one of {', '.join(HASHES)}")
    if affinity_timeout is not None:
        raise FieldError(path, "does not go with spec.sessionAffinity ClientIP")
    return HASHES[text]


def service(source: str, given: wire.Service) -> list[Service]:
    """A Service v1."""
    spec = given.spec
    labels, annotations = given.metadata.labels or {}, given.metadata.annotations or {}
    kind = _choice("spec.type", spec.type, SERVICE_TYPES)
    name = object_name(given.metadata)
    if not LABEL.fullmatch(name.name):
        raise FieldError("metadata.name", f"{name.name!r} is not a Service's name: it has to be a DNS label")
    headless = spec.cluster_ip == "None" or spec.cluster_ips == ["None"]
    if headless and kind != "ClusterIP":
        raise FieldError("spec.clusterIP", f"None does not go with type {kind}")
    if spec.ip_family_policy:
        _choice("spec.ipFamilyPolicy", spec.ip_family_policy, FAMILY_POLICIES)
    cluster_ips = () if headless or kind == "ExternalName" else _cluster_ips(spec)
    timeout = _affinity_timeout(spec)
    internal = _choice("spec.internalTrafficPolicy", spec.internal_traffic_policy, POLICIES)
    external = _choice("spec.externalTrafficPolicy", spec.external_traffic_policy, POLICIES)
    ingress = _ingress(given.status) if kind == "LoadBalancer" else []
    return [
        Service(
            name=name,
            origin=origin(source, given.metadata),
            type=kind,
            ports=_service_ports(spec, required=kind != "ExternalName" and not headless),
            selector=_selector(spec.selector or {}),
            cluster_ips=cluster_ips,
            headless=headless,
            families=_families(spec, cluster_ips),
            family_policy=spec.ip_family_policy or "",
            affinity_timeout=timeout,
            publish_not_ready=bool(spec.publish_not_ready_addresses),
            internal_local=internal == "Local",
            external_local=external == "Local",
            external_ips=_addresses("spec.externalIPs", spec.external_ips),
            load_balancer_ips=_load_balancer_ips(ingress),
            source_ranges=_source_ranges(spec.load_balancer_source_ranges),
            allocate_node_ports=spec.allocate_load_balancer_node_ports is not False,
            distribution=spec.traffic_distribution or "",
            proxied_elsewhere=PROXY_NAME_LABEL in labels,
            hashing=_hashing(annotations, timeout),
            weights=_weights(annotations),
            external_name=spec.external_name or "",
            labels=labels,
            ingress=tuple(entry.ip or entry.hostname or "" for entry in ingress),
            health_check_node_port=_health_check_node_port(spec, kind, external == "Local"),
            load_balancer_ip=(kind == "LoadBalancer" and spec.load_balancer_ip) or "",
            load_balancer_class=(kind == "LoadBalancer" and spec.load_balancer_class) or "",
        )
    ]
