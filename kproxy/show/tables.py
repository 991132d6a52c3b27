"""Makes the rows of kubectl's tables.

Columns, abbreviations ("+ 3 more...") and words ("<none>", "<pending>") are those of kubectl, so that
documentation of kubectl applies. What the manifests do not contain is <unknown>, or has no line. Pure: the
caller passes an `Age`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from kproxy.controlplane.slices import PodIndex, selects
from kproxy.controlplane.workloads import Counts, counted
from kproxy.gateway.core.status import Statuses
from kproxy.gatewayapi import GatewayObjects
from kproxy.model import (
    Address,
    Annotations,
    ClusterNode,
    EndpointSlice,
    Family,
    Ingress,
    NamespacedName,
    Pod,
    Service,
    ServicePort,
    Workload,
    format_address,
    format_socket,
)
from kproxy.printable import printable
from kproxy.settings.text import ENGINES
from kproxy.show.components import Component
from kproxy.show.snapshot import Snapshot
from kproxy.sources.core.inventory import Inventory

Age: TypeAlias = Callable[[str], str]
"""Returns the cell for a creationTimestamp, which may be ""."""

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"
UNFOLLOWED = "endpoints not followed (headless)"
SHOWN = 3
"""The maximum number of endpoints in a cell."""
LOAD_BALANCER_WIDTH = 16
ROLE_PREFIX, ROLE_LABEL = "node-role.kubernetes.io/", "kubernetes.io/role"
FAMILY_NAMES = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


class EndpointsView(NamedTuple):
    """The slices of one service as one object, as `get endpoints` shows it."""

    name: NamespacedName
    slices: tuple[EndpointSlice, ...]
    created: str
    labels: dict[str, str]
    annotations: Annotations
    followed: bool = True
    """Whether kproxy reads the endpoints. In a cluster it does not read those of headless services."""


class WorkloadView(NamedTuple):
    """A workload and its pods."""

    workload: Workload
    counts: Counts


class Objects(NamedTuple):
    """All objects by kind, sorted by name."""

    services: list[Service]
    """With their addresses and node ports."""
    endpoints: list[EndpointsView]
    slices: list[EndpointSlice]
    pods: list[Pod]
    ingresses: list[Ingress]
    nodes: list[ClusterNode]
    workloads: list[WorkloadView]
    programmed: dict[NamespacedName, str]
    """A sentence for each service of which nothing is known but frontends in the tables."""
    gateways: GatewayObjects
    statuses: Statuses
    """The status of each of `gateways`."""
    components: tuple[Component, ...] = ()
    """The parts of the running kproxy; () if the objects are those of files."""

    def services_of(self, pod: NamespacedName) -> list[str]:
        """Return the names of the services of which a pod is an endpoint. `pods` need not contain the pod."""
        return sorted(
            {
                slice_.service.name
                for slice_ in self.slices
                if slice_.service.namespace == pod.namespace
                and any(endpoint.pod == pod.name for endpoint in slice_.endpoints)
            }
        )


def objects(snapshot: Snapshot) -> Objects:
    """Return all objects of a snapshot."""
    inventory = snapshot.inventory
    known = {**inventory.left_out, **inventory.services}
    slices = inventory.slices
    named = {name for name, service in known.items() if selects(service) or not follows(inventory, service)}
    names = sorted(named | slices.keys())
    every = (slice_ for name in names for slice_ in _named(slices.get(name, ())))
    return Objects(
        [known[name] for name in sorted(known)],
        [_endpoints_view(inventory, name, known.get(name)) for name in names],
        sorted(every, key=lambda slice_: (slice_.service.namespace, slice_.name)),
        sorted(inventory.pods, key=lambda pod: pod.name),
        sorted(inventory.ingresses, key=lambda ingress: ingress.name),
        [inventory.nodes[name] for name in sorted(inventory.nodes)],
        _workload_views(inventory),
        _only_programmed(snapshot, known.keys()),
        inventory.gateways,
        Statuses(inventory.gateways, inventory.owners.get, snapshot.frontends, snapshot.http),
        snapshot.components,
    )


def _workload_views(inventory: Inventory) -> list[WorkloadView]:
    if not inventory.workloads:
        return []
    pods = PodIndex(inventory.pods)
    every = sorted(inventory.workloads, key=lambda workload: workload.name)
    return [WorkloadView(each, counted(each, pods, inventory.nodes)) for each in every]


def _only_programmed(snapshot: Snapshot, known: Set[NamespacedName]) -> dict[NamespacedName, str]:
    sides: dict[NamespacedName, list[str]] = defaultdict(list)
    for frontend in snapshot.held_frontends:
        if frontend.service not in known:
            endpoints = cut([format_socket(*endpoint) for endpoint in frontend.endpoints]) or "no endpoint"
            sides[frontend.service].append(f"{frontend} -> {endpoints}")
    why = snapshot.inventory.held
    return {name: f"It is programmed ({cut(each)}) and held: {why[name]}." for name, each in sides.items()}


def follows(inventory: Inventory, service: Service) -> bool:
    """Whether the source reads the endpoints of a service."""
    return inventory.headless or not service.headless


def _endpoints_view(inventory: Inventory, name: NamespacedName, service: Service | None) -> EndpointsView:
    """Return the endpoints as the endpoints controller does: the primary family, without terminating pods.

    If the input contains Endpoints, it returns those.
    """
    slices = inventory.slices.get(name, ())
    primary = service.families[0] if service and service.families else None
    if primary is None and slices:
        primary = slices[0].family
    shown = _subsets(slice_ for slice_ in slices if slice_.legacy or slice_.family is primary)
    origins = [slice_.origin for slice_ in slices] or ([service.origin] if service else [])
    own = slices[0] if slices and (slices[0].legacy or service is None) else service
    return EndpointsView(
        name,
        shown,
        origins[0].created if origins else "",
        own.labels if own else {},
        slices[0].annotations if slices and slices[0].legacy else "",
        followed=service is None or follows(inventory, service),
    )


def _subsets(slices: Iterable[EndpointSlice]) -> tuple[EndpointSlice, ...]:
    """Merge slices with equal ports, and sort endpoints by address. Endpoints objects stay unchanged."""
    by_ports: dict[tuple[object, ...], EndpointSlice] = {}
    for slice_ in slices:
        endpoints = tuple(e for e in slice_.endpoints if e.ready or not e.terminating)
        key = (len(by_ports),) if slice_.legacy else slice_.ports
        if earlier := by_ports.get(key):
            endpoints += earlier.endpoints
        if not slice_.legacy:
            endpoints = tuple(sorted(endpoints, key=lambda endpoint: endpoint.address))
        by_ports[key] = replace(earlier or slice_, endpoints=endpoints)
    return tuple(by_ports.values())


def _named(slices: tuple[EndpointSlice, ...]) -> list[EndpointSlice]:
    """Give the slices of an Endpoints object different names, and omit empty ones."""
    shown = (slice_ for slice_ in slices if slice_.endpoints or not slice_.legacy)
    numbered = enumerate(shown)
    return [replace(each, name=f"{each.name}-{index}") if each.legacy else each for index, each in numbered]


# --- cells ---


def table(rows: Iterable[Sequence[str]], gap: int = 3, least: Sequence[int] = ()) -> str:
    """Return lines whose columns are as wide as their widest cell, at least `least`, plus `gap` blanks.

    Characters that cannot be seen are escaped.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    padded = [width + gap for width in widths(rows, least)]
    lines = ("".join(map(str.ljust, row, padded)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def widths(rows: Sequence[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    """Return the widths of the columns: those of the widest cells, but at least `least`."""
    found = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [max(pair) for pair in zip_longest(found, least, fillvalue=0)]


_SECOND, _MINUTE, _HOUR, _DAY, _YEAR = (1, "s"), (60, "m"), (3600, "h"), (86400, "d"), (365 * 86400, "y")
_DURATIONS = (
    (2 * 60, (_SECOND,)),
    (10 * 60, (_MINUTE, _SECOND)),
    (3 * 3600, (_MINUTE,)),
    (8 * 3600, (_HOUR, _MINUTE)),
    (2 * 86400, (_HOUR,)),
    (8 * 86400, (_DAY, _HOUR)),
    (2 * 365 * 86400, (_DAY,)),
    (8 * 365 * 86400, (_YEAR, _DAY)),
)
"""The units of durations that are shorter than so many seconds."""


def duration(seconds: int) -> str:
    """Return for example `47s`, `8m48s`, `9h`, `2d`, `97d`, with kubectl's precision."""
    if seconds < 0:
        return "0s" if seconds == -1 else "<invalid>"
    units = next((units for limit, units in _DURATIONS if seconds < limit), (_YEAR,))
    text = ""
    for size, unit in units:
        number, seconds = divmod(seconds, size)
        text += f"{number}{unit}" if number or not text else ""
    return text


def cut(items: Sequence[str], limit: int = SHOWN) -> str:
    """Return the first items, and the number of the others; "" if there are no items."""
    more = f" + {len(items) - limit} more..." if len(items) > limit else ""
    return ",".join(items[:limit]) + more


def labels(selector: Mapping[str, str]) -> str:
    """Return for example `app=kubia,tier=web`; `<none>` if there are no labels."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or NONE


def cluster_ip(service: Service) -> str:
    """Return the primary ClusterIP; `None` for a headless service."""
    if service.headless:
        return "None"
    return format_address(service.cluster_ips[0]) if service.cluster_ips else NONE


def balancer(service: Service) -> list[str]:
    """Return the addresses and names of the load balancer."""
    if service.type != "LoadBalancer":
        return []
    return sorted({*map(format_address, service.load_balancer_ips), *filter(None, service.ingress)})


def shortened(addresses: Iterable[str], wide: bool) -> str:
    """Return a list, cut to the width of a cell unless `wide`."""
    text = ",".join(addresses)
    return text if wide or len(text) <= LOAD_BALANCER_WIDTH else text[: LOAD_BALANCER_WIDTH - 3] + "..."


def _external_ip(service: Service, wide: bool) -> str:
    if service.type == "ExternalName":
        return service.external_name or NONE
    addresses = shortened(balancer(service), wide)
    found = [*([addresses] if addresses else []), *map(format_address, service.external_ips)]
    return ",".join(found) or ("<pending>" if service.type == "LoadBalancer" else NONE)


def _port(port: ServicePort) -> str:
    node_port = f":{port.node_port}" if port.node_port else ""
    return f"{port.port}{node_port}/{port.protocol.upper()}"


def sockets(
    slices: Sequence[EndpointSlice], port: ServicePort | None = None, ready: bool = True
) -> list[str]:
    """Return the ready or unready sockets (`10.0.0.1:8080`) of one port or all. Without ports: addresses.

    The sockets of one port are sorted by address, unless the input contains Endpoints.
    """
    found = [at for slice_ in slices for at in _sockets(slice_, port, ready)]
    if port is not None and not any(slice_.legacy for slice_ in slices):
        found.sort(key=lambda at: (len(at[0]), at))
    return [format_socket(*at) if at[1] else format_address(at[0]) for at in found]


def _sockets(slice_: EndpointSlice, port: ServicePort | None, ready: bool) -> Iterator[tuple[Address, int]]:
    """Return addresses and ports. The port is 0 if the slice has no port."""
    addresses = [endpoint.address for endpoint in slice_.endpoints if endpoint.ready is ready]
    if not slice_.ports and port is None:
        yield from ((address, 0) for address in addresses)
    for slice_port in slice_.ports:
        if port is None or (slice_port.name, slice_port.protocol) == (port.name, port.protocol):
            yield from ((address, slice_port.port) for address in addresses)


# --- tables ---


def service_rows(services: Iterable[Service], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each Service."""
    rows = [["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", *(["SELECTOR"] if wide else [])]]
    for service in services:
        ports = ",".join(map(_port, service.ports)) or NONE
        row = [service.name.name, service.type, cluster_ip(service), _external_ip(service, wide), ports]
        rows.append([*row, age(service.origin.created), *([labels(service.selector)] if wide else [])])
    return rows


def endpoints_rows(views: Iterable[EndpointsView], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each Endpoints. As in kubectl, `wide` adds no columns."""
    rows = [["NAME", "ENDPOINTS", "AGE"]]
    rows += ([view.name.name, _endpoints(view), age(view.created)] for view in views)
    return rows


def _endpoints(view: EndpointsView) -> str:
    return cut(sockets(view.slices)) or (NONE if view.followed else UNFOLLOWED)


def slice_rows(slices: Iterable[EndpointSlice], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each EndpointSlice, with ready and unready endpoints."""
    rows = [["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]]
    for slice_ in slices:
        ports = cut([str(port.port) for port in slice_.ports]) or UNSET
        members = cut([format_address(endpoint.address) for endpoint in slice_.endpoints]) or UNSET
        row = [slice_.name, FAMILY_NAMES[slice_.family], ports, members, age(slice_.origin.created)]
        rows.append(row)
    return rows


def pod_rows(pods: Iterable[Pod], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each pod. The column SOURCE exists if a pod is a container."""
    pods = list(pods)
    has_source = wide and any(pod.origin.source in ENGINES for pod in pods)
    more = [*(["IP", "NODE"] if wide else []), *(["SOURCE"] if has_source else [])]
    rows = [["NAME", "READY", "STATUS", "RESTARTS", "AGE", *more]]
    for pod in pods:
        row = [
            pod.name.name,
            ready_containers(pod),
            status_of(pod),
            str(pod.counts.restarts) if pod.counts and pod.counts.restarts is not None else UNKNOWN,
            age(pod.origin.created),
        ]
        if wide:
            row += [format_address(pod.addresses[0]) if pod.addresses else NONE, pod.node or NONE]
        if has_source:
            row.append(pod.origin.source)
        rows.append(row)
    return rows


def status_of(pod: Pod) -> str:
    """Return the phase. Without phase and address it is pending, as a new pod of an API server."""
    if pod.terminating:
        return "Terminating"
    return "Pending" if _new(pod) else pod.phase or UNKNOWN


def _new(pod: Pod) -> bool:
    return not (pod.phase or pod.addresses)


def ready_containers(pod: Pod) -> str:
    """Return for example `0/1`. Without known containers, return whether the pod counts as ready.

    The number comes from probes or the status of the pod. Otherwise all containers are ready, or none. None
    is, if the pod has neither a phase nor an address.
    """
    if pod.counts:
        return f"{pod.counts.ready}/{pod.counts.total}"
    total, ready = len(pod.containers), pod.ready and not _new(pod)
    return f"{total if ready else 0}/{total}" if total else str(ready)


def ingress_rows(ingresses: Iterable[Ingress], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each Ingress. Old versions of kubectl have no column CLASS."""
    rows = [["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"]]
    for ingress in ingresses:
        hosts = cut([rule.host for rule in ingress.rules if rule.host]) or "*"
        address = shortened(sorted(set(filter(None, ingress.addresses))), wide)
        ports = "80, 443" if ingress.tls else "80"
        row = [ingress.name.name, ingress.class_name or NONE, hosts, address, ports]
        rows.append([*row, age(ingress.origin.created)])
    return rows


def node_rows(nodes: Iterable[ClusterNode], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each Node. VERSION is that of the kubelet."""
    rows = [["NAME", "STATUS", "ROLES", "AGE", "VERSION"]]
    if wide:
        rows[0] += ["INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"]
    for node in nodes:
        info = node.info
        row = [node.name, node_status(node), roles(node), age(node.origin.created), info.kubelet or UNKNOWN]
        if wide:
            row += [_node_address(node, "InternalIP"), _node_address(node, "ExternalIP")]
            row += [text or UNKNOWN for text in (info.os_image, info.kernel, info.container_runtime)]
        rows.append(row)
    return rows


def node_status(node: ClusterNode) -> str:
    """Return `Ready`, `NotReady` or `Unknown` by the condition Ready, and whether the node is cordoned."""
    status = {"True": "Ready", "": "Unknown"}.get(node.ready, "NotReady")
    return f"{status},SchedulingDisabled" if node.unschedulable else status


def roles(node: ClusterNode) -> str:
    """Return the roles in the labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role`."""
    found = {key.removeprefix(ROLE_PREFIX) for key in node.labels if key.startswith(ROLE_PREFIX)}
    found |= {text for key, text in node.labels.items() if key == ROLE_LABEL}
    return ",".join(sorted(filter(None, found))) or NONE


def _node_address(node: ClusterNode, kind: str) -> str:
    return next((address for of, address in node.addresses if of == kind), NONE)
