"""Objects as kubectl shows them: rows of a table, and as they would be written in a manifest.

Columns, cuts ("+ 3 more...") and words ("<none>", "<pending>") are those of kubectl, so that
what is written about kubectl is true here. What no manifest says is not made up: it is
<unknown>, or has no line. Pure: an `Age` is given, and text and plain values come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from kproxy.decode.service import CONSISTENT_HASH, PROXY_NAME_LABEL, WEIGHTS
from kproxy.model import (
    Endpoint,
    EndpointSlice,
    Family,
    NamespacedName,
    Pod,
    Service,
    ServicePort,
    format_address,
    format_socket,
)
from kproxy.standalone.endpoints import addressed, all_slices
from kproxy.standalone.snapshot import Snapshot

Age: TypeAlias = Callable[[str], str]
"""A creationTimestamp ("" if there is none) as the cell of a table."""

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"
SHOWN = 3
"""Endpoints that a cell names."""
LOAD_BALANCER_WIDTH = 16
FAMILY_NAMES = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


class EndpointsView(NamedTuple):
    """What `get endpoints` shows: the slices of one service, as one object."""

    name: NamespacedName
    slices: tuple[EndpointSlice, ...]
    created: str


class Objects(NamedTuple):
    """What can be shown: of each kind, in order of names."""

    services: list[Service]
    """With the addresses and node ports that are theirs."""
    endpoints: list[EndpointsView]
    slices: list[EndpointSlice]
    pods: list[Pod]
    given: frozenset[NamespacedName]
    """Services whose endpoints the input gives, so that selectors do not count."""


def objects(given: Snapshot) -> Objects:
    """All that there is, with what was allocated where something was."""
    state = given.state
    known = {**state.services, **given.services}
    slices = all_slices(state, given.node)
    for name in slices.keys() - state.slices.keys():
        slices[name] = _of_its_families(known[name], slices[name])
    selecting = {s.name for s in known.values() if s.selector and s.type != "ExternalName"}
    names = sorted(selecting | slices.keys())
    every = (slice_ for name in names for slice_ in _named(slices.get(name, ())))
    return Objects(
        [known[name] for name in sorted(known)],
        [_endpoints_view(name, known.get(name), slices.get(name, ())) for name in names],
        sorted(every, key=lambda slice_: (slice_.service.namespace, slice_.name)),
        sorted(addressed(state.pods, given.node), key=lambda pod: pod.name),
        frozenset(state.slices),
    )


def _of_its_families(service: Service, made: tuple[EndpointSlice, ...]) -> tuple[EndpointSlice, ...]:
    """Without those that a cluster would not make; nothing was allocated to a headless service."""
    families = service.families
    if not families and service.family_policy in ("", "SingleStack"):
        families = tuple(slice_.family for slice_ in made[:1])
    return tuple(slice_ for slice_ in made if not families or slice_.family in families)


def _endpoints_view(
    name: NamespacedName, service: Service | None, slices: tuple[EndpointSlice, ...]
) -> EndpointsView:
    """Of the primary family only, as the endpoints controller makes them, unless Endpoints were given."""
    primary = service.families[0] if service and service.families else None
    if primary is None and slices:
        primary = slices[0].family
    shown = tuple(slice_ for slice_ in slices if slice_.legacy or slice_.family is primary)
    origins = [slice_.origin for slice_ in slices] or ([service.origin] if service else [])
    return EndpointsView(name, shown, origins[0].created if origins else "")


def _named(slices: tuple[EndpointSlice, ...]) -> list[EndpointSlice]:
    """Slices as objects of their own: those of an Endpoints object share its name, and the first is empty."""
    if not slices or not slices[0].legacy:
        return list(slices)
    return [
        EndpointSlice(s.service, s.origin, f"{s.name}-{index}", s.family, s.ports, s.endpoints, s.legacy)
        for index, s in enumerate(slices[1:])
    ]


# --- cells ---


def table(rows: Iterable[Sequence[str]], gap: int = 3) -> str:
    """Lines of columns, each as wide as its widest cell and `gap` blanks."""
    rows = list(rows)
    widths = [max(map(len, column)) + gap for column in zip(*rows, strict=True)]
    lines = ("".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def duration(seconds: int) -> str:
    """`47s`, `8m48s`, `9h`, `2d`, `97d`: as exact as kubectl is."""
    if seconds < 0:
        return "0s" if seconds == -1 else "<invalid>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365 if days < 365 * 8 else 0, "d")


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}" + (f"{small}{small_unit}" if small else "")


def cut(items: Sequence[str], limit: int = SHOWN) -> str:
    """The first few, and how many more there are; "" for none."""
    more = f" + {len(items) - limit} more..." if len(items) > limit else ""
    return ",".join(items[:limit]) + more


def labels(selector: Mapping[str, str]) -> str:
    """`app=kubia,tier=web`."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or NONE


def cluster_ip(service: Service) -> str:
    """The primary one; `None` of a headless service."""
    if service.headless:
        return "None"
    return format_address(service.cluster_ips[0]) if service.cluster_ips else NONE


def ingress(service: Service) -> list[str]:
    """Addresses and names of its load balancer."""
    if service.type != "LoadBalancer":
        return []
    return sorted({*map(format_address, service.load_balancer_ips), *filter(None, service.ingress)})


def _external_ip(service: Service, wide: bool) -> str:
    if service.type == "ExternalName":
        return service.external_name or NONE
    balancer = ",".join(ingress(service))
    if len(balancer) > LOAD_BALANCER_WIDTH and not wide:
        balancer = balancer[: LOAD_BALANCER_WIDTH - 3] + "..."
    found = [*([balancer] if balancer else []), *map(format_address, service.external_ips)]
    return ",".join(found) or ("<pending>" if service.type == "LoadBalancer" else NONE)


def _port(port: ServicePort) -> str:
    node_port = f":{port.node_port}" if port.node_port else ""
    return f"{port.port}{node_port}/{port.protocol.upper()}"


def sockets(
    slices: Iterable[EndpointSlice], port: ServicePort | None = None, ready: bool = True
) -> list[str]:
    """What is ready, or what is not: `10.0.0.1:8080`, of one port or of all; without ports, addresses."""
    found: list[str] = []
    for slice_ in slices:
        addresses = [endpoint.address for endpoint in slice_.endpoints if endpoint.ready is ready]
        if not slice_.ports and port is None:
            found += map(format_address, addresses)
        for slice_port in slice_.ports:
            if port is None or (slice_port.name, slice_port.protocol) == (port.name, port.protocol):
                found += (format_socket(address, slice_port.port) for address in addresses)
    return found


# --- tables ---


def service_rows(services: Iterable[Service], age: Age, wide: bool) -> list[list[str]]:
    """Without the namespace."""
    rows = [["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", *(["SELECTOR"] if wide else [])]]
    for service in services:
        ports = ",".join(map(_port, service.ports)) or NONE
        row = [service.name.name, service.type, cluster_ip(service), _external_ip(service, wide), ports]
        rows.append([*row, age(service.origin.created), *([labels(service.selector)] if wide else [])])
    return rows


def endpoints_rows(views: Iterable[EndpointsView], age: Age, wide: bool) -> list[list[str]]:
    """Wide is no wider, as with kubectl."""
    rows = [["NAME", "ENDPOINTS", "AGE"]]
    rows += ([view.name.name, cut(sockets(view.slices)) or NONE, age(view.created)] for view in views)
    return rows


def slice_rows(slices: Iterable[EndpointSlice], age: Age, wide: bool) -> list[list[str]]:
    """All endpoints, ready or not."""
    rows = [["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]]
    for slice_ in slices:
        ports = cut([str(port.port) for port in slice_.ports]) or UNSET
        members = cut([format_address(endpoint.address) for endpoint in slice_.endpoints]) or UNSET
        row = [slice_.name, FAMILY_NAMES[slice_.family], ports, members, age(slice_.origin.created)]
        rows.append(row)
    return rows


def pod_rows(pods: Iterable[Pod], age: Age, wide: bool) -> list[list[str]]:
    """READY counts containers as probes or the pod's status do; else all or none of them are."""
    rows = [["NAME", "READY", "STATUS", "RESTARTS", "AGE", *(["IP", "NODE"] if wide else [])]]
    for pod in pods:
        row = [
            pod.name.name,
            ready_containers(pod),
            "Terminating" if pod.terminating else pod.phase or UNKNOWN,
            str(pod.counts.restarts) if pod.counts and pod.counts.restarts is not None else UNKNOWN,
            age(pod.origin.created),
        ]
        if wide:
            row += [format_address(pod.addresses[0]) if pod.addresses else NONE, pod.node or NONE]
        rows.append(row)
    return rows


def ready_containers(pod: Pod) -> str:
    """`0/1`; of a pod whose containers nobody names, whether it is taken for ready."""
    if pod.counts:
        return f"{pod.counts.ready}/{pod.counts.total}"
    total = len(pod.containers)
    return f"{total if pod.ready else 0}/{total}" if total else str(pod.ready)


# --- manifests ---


def service_manifest(service: Service) -> dict[str, Any]:
    """A v1 Service: what kproxy read of it, defaults filled in, with what was allocated."""
    spec: dict[str, Any] = {"type": service.type}
    texts = ["None"] if service.headless else [format_address(ip) for ip in service.cluster_ips]
    if texts:
        spec |= {"clusterIP": texts[0], "clusterIPs": texts}
    if service.type == "ExternalName":
        spec["externalName"] = service.external_name
    else:
        spec |= _traffic(service)
    spec["ports"] = [_port_manifest(port) for port in service.ports]
    spec["selector"] = dict(sorted(service.selector.items()))
    status = {"loadBalancer": {"ingress": [_ingress_entry(service, text) for text in ingress(service)]}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service.name, service.origin.created, **_marks(service)),
        "spec": {key: value for key, value in spec.items() if value not in ("", [], {})},
        **({"status": status} if ingress(service) else {}),
    }


def _marks(service: Service) -> dict[str, dict[str, str]]:
    """Labels and annotations that kproxy reads; of the label, only that it is there."""
    annotations = {}
    if service.weights:
        annotations[WEIGHTS] = ", ".join(f"{name}={weight}" for name, weight in service.weights.items())
    if service.hashing is not None:
        annotations[CONSISTENT_HASH] = service.hashing.removeprefix("hash-")
    return {
        **({"labels": {PROXY_NAME_LABEL: ""}} if service.proxied_elsewhere else {}),
        **({"annotations": annotations} if annotations else {}),
    }


def _traffic(service: Service) -> dict[str, Any]:
    external = service.type in ("NodePort", "LoadBalancer") or service.external_local
    spec: dict[str, Any] = {
        "ipFamilies": [FAMILY_NAMES[family] for family in service.families],
        "ipFamilyPolicy": service.family_policy,
        "sessionAffinity": affinity(service),
        "internalTrafficPolicy": policy(service.internal_local),
        "externalTrafficPolicy": policy(service.external_local) if external else "",
        "externalIPs": [format_address(address) for address in service.external_ips],
        "loadBalancerSourceRanges": [str(network) for network in service.source_ranges],
        "trafficDistribution": service.distribution,
    }
    if service.affinity_timeout is not None:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": service.affinity_timeout}}
    if service.publish_not_ready:
        spec["publishNotReadyAddresses"] = True
    if not service.allocate_node_ports:
        spec["allocateLoadBalancerNodePorts"] = False
    return spec


def affinity(service: Service) -> str:
    """The value of spec.sessionAffinity."""
    return "None" if service.affinity_timeout is None else "ClientIP"


def policy(local: bool) -> str:
    """The value of a traffic policy."""
    return "Local" if local else "Cluster"


def _ingress_entry(service: Service, text: str) -> dict[str, str]:
    served = text in map(format_address, service.load_balancer_ips)
    if served:
        return {"ip": text, "ipMode": "VIP"}
    is_address = ":" in text or text.replace(".", "").isdigit()
    return {"ip": text, "ipMode": "Proxy"} if is_address else {"hostname": text}


def _metadata(name: NamespacedName, created: str, **rest: Any) -> dict[str, Any]:
    return {
        "name": name.name,
        "namespace": name.namespace,
        **({"creationTimestamp": created} if created else {}),
        **rest,
    }


def _port_manifest(port: ServicePort) -> dict[str, Any]:
    return {
        **({"name": port.name} if port.name else {}),
        "port": port.port,
        "protocol": port.protocol.upper(),
        "targetPort": port.target_port,
        **({"nodePort": port.node_port} if port.node_port else {}),
    }


def slice_manifest(slice_: EndpointSlice) -> dict[str, Any]:
    """A discovery.k8s.io/v1 EndpointSlice."""
    name = NamespacedName(slice_.service.namespace, slice_.name)
    owner = {"kubernetes.io/service-name": slice_.service.name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _metadata(name, slice_.origin.created, labels=owner),
        "addressType": FAMILY_NAMES[slice_.family],
        "ports": [
            {"name": port.name, "port": port.port, "protocol": port.protocol.upper()} for port in slice_.ports
        ],
        "endpoints": [_endpoint_manifest(endpoint, name.namespace) for endpoint in slice_.endpoints],
    }


def _endpoint_manifest(endpoint: Endpoint, namespace: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "addresses": [format_address(endpoint.address)],
        "conditions": {
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
        },
    }
    if endpoint.node:
        made["nodeName"] = endpoint.node
    if endpoint.pod:
        made["targetRef"] = {"kind": "Pod", "name": endpoint.pod, "namespace": namespace}
    hints = {"forNodes": endpoint.for_nodes, "forZones": endpoint.for_zones}
    if any(hints.values()):
        made["hints"] = {key: [{"name": name} for name in names] for key, names in hints.items() if names}
    return made
