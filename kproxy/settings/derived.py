"""Values derived from the settings, in the types of the folders that use them.

The functions raise UsageError if settings conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from msgspec import Struct
from msgspec.structs import replace

from kproxy.controlplane.ranges import Pool, Ranges
from kproxy.model import Address, Network, Node, format_address
from kproxy.probes.core.command import CommandTemplate
from kproxy.problems import UsageError
from kproxy.settings.flags import flags_of
from kproxy.settings.settings import LocalMode, Origin, Settings
from kproxy.settings.text import INTERFACE, EngineSocket, SocketAddress
from kproxy.table.skeleton import Options

DEFAULT_SERVICE_CIDR = ip_network("10.96.0.0/12")
DNS_PLACE = 10
"""The place of the name server's address in a service range, as in clusters made by kubeadm."""


class StatusAccess(Struct, frozen=True):
    """Who gets the status page."""

    state_dir: str
    """The state directory, in which `kproxy doctor` finds the running kproxy."""
    names: tuple[str, ...]
    """The names of this host that clients may use, besides localhost."""
    everywhere: bool = False
    """Whether also clients of other addresses than loopback get it."""


class ListenAddresses(Struct, frozen=True):
    """The addresses on which `kproxy run` serves health and metrics; None if it does not serve them."""

    healthz: SocketAddress | None
    metrics: SocketAddress | None
    by_endpoint: bool = False
    """Whether the metrics also count connections per endpoint."""
    max_silence: float = 600.0
    """Seconds without a message from the source until /healthz fails; 0 for no limit."""
    configz: str = "{}"
    """The text that /configz returns, on the address for metrics."""
    status: StatusAccess | None = None
    """Who gets the status page, on the address for health; None if it is not served."""


def listen_addresses(settings: Settings) -> ListenAddresses:
    """Return the addresses. By default, a host without a cluster serves health on loopback only."""
    healthz = settings.healthz_bind_address
    if healthz and settings.manifests and settings.origin("healthz_bind_address") is Origin.DEFAULT:
        healthz = replace(healthz, host="127.0.0.1")
    return ListenAddresses(
        healthz,
        settings.metrics_bind_address,
        settings.endpoint_metrics,
        settings.max_silence,
        configz(settings),
        status_access(settings) if settings.status_page else None,
    )


def status_access(settings: Settings) -> StatusAccess:
    """Return who gets the status page. An address in kube-proxy's configuration was not meant for it."""
    everywhere = settings.origin("healthz_bind_address") is Origin.FLAG
    return StatusAccess(settings.state_dir, (settings.node_name,), everywhere)


def configz(settings: Settings) -> str:
    """Return the settings of `run` as a JSON object, by the names of its flags."""
    import json  # not at the top: only a daemon serves it

    values = {flag.name: _plain(getattr(settings, flag.field)) for flag in flags_of("run")}
    return json.dumps({"kproxy": values}, sort_keys=True)


def _plain(value: object) -> object:
    """Return a setting as a JSON value. Addresses and ranges become text, as in flags."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return format_address(value)
        case Pool() | CommandTemplate():
            return value.text
        case SocketAddress() | EngineSocket():
            return str(value)
        case tuple():
            return [_plain(each) for each in value]
        case _:
            return str(value)


def pool_nodes(settings: Settings) -> tuple[str, ...]:
    """Return the names of the nodes that share the pool. Raises UsageError if they lack this node."""
    found = settings.nodes or (settings.node_name,)
    if settings.node_name not in found:
        message = f"--nodes {','.join(found)} does not contain this node, {settings.node_name}."
        raise UsageError(message, "See --node-name.")
    return found


def dataplane_options(settings: Settings, node: Node, service_cidrs: tuple[Network, ...] = ()) -> Options:
    """Return the options of the rules. Raises UsageError if `node` lacks required podCIDRs.

    `service_cidrs`: the ranges of ClusterIPs that the source knows. They count if no flag sets them.
    """
    mode = settings.detect_local_mode
    cidrs: tuple[Network, ...] = ()
    interface = ""
    match mode:
        case LocalMode.CLUSTER_CIDR:
            cidrs = settings.cluster_cidr
        case LocalMode.NODE_CIDR:
            if not node.pod_cidrs:
                needs = f"needs a Node {node.name} with podCIDRs in the input"
                raise UsageError(f"{_named(settings, 'detect_local_mode')} {mode} {needs}.")
            cidrs = node.pod_cidrs
        case LocalMode.BRIDGE_INTERFACE:
            interface = _interface(settings, "pod_bridge_interface")
        case LocalMode.INTERFACE_NAME_PREFIX:
            interface = _interface(settings, "pod_interface_name_prefix") + "*"
    services = settings.service_cidr or service_cidrs
    return Options(
        cidrs,
        services,
        settings.masquerade_all,
        pod_interface=interface,
        bridges=node.bridges,
        max_endpoint_counters=settings.max_endpoint_counters,
    )


def conntrack_sysctls(settings: Settings, cpus: int) -> dict[str, int]:
    """Return the minimum values of `net.netfilter.*` by name. Without a cluster, only explicit ones."""

    def requested(field: str) -> float:
        is_default = settings.origin(field) is Origin.DEFAULT
        return 0 if is_default and settings.manifests else getattr(settings, field)

    values = {name: int(requested(field)) for name, field in _CONNTRACK.items()}
    if requested("conntrack_max_per_core") or requested("conntrack_min"):
        per_core = settings.conntrack_max_per_core
        values["nf_conntrack_max"] = max(per_core * cpus, settings.conntrack_min) if per_core else 0
    return {name: value for name, value in values.items() if value}


_CONNTRACK = {
    "nf_conntrack_tcp_timeout_established": "conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_close_wait": "conntrack_tcp_timeout_close_wait",
    "nf_conntrack_tcp_be_liberal": "conntrack_tcp_be_liberal",
    "nf_conntrack_udp_timeout": "conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream": "conntrack_udp_timeout_stream",
}
"""Fields of Settings, by name of the sysctl."""


def _interface(settings: Settings, field: str) -> str:
    name: str = getattr(settings, field)
    if not re.fullmatch(INTERFACE, name):
        mode = f"{_named(settings, 'detect_local_mode')} {settings.detect_local_mode}"
        in_file = settings.origin("detect_local_mode") is Origin.FILE
        raise UsageError(f"{mode} needs {_name(field, in_file)}, the name of an interface.")
    return name


def _named(settings: Settings, field: str) -> str:
    """Return the name under which a setting was set: a flag, or a field of the configuration file."""
    return _name(field, settings.origin(field) is Origin.FILE)


def _name(field: str, in_file: bool) -> str:
    if in_file:
        from kproxy.settings.kubeproxy import field_of

        return field_of(field)
    return f"--{field.replace('_', '-')}"


def ranges(settings: Settings) -> Ranges:
    """Return the ranges for allocations. Raises UsageError if the pool overlaps another range.

    A range restricts what Services may request only where it was set: manifests of another cluster have
    its addresses and ports.
    """
    cidrs, pool = service_ranges(settings), settings.load_balancer_pool
    flagged = [("--service-cidr", cidr) for cidr in cidrs]
    flagged += [(_named(settings, "cluster_cidr"), cidr) for cidr in settings.cluster_cidr]
    for flag, cidr in flagged:
        for part in pool.ranges:
            if part.overlaps(cidr):
                raise UsageError(f"--load-balancer-pool {part} and {flag} {cidr} overlap.")
    for denied in settings.deny_external_addresses:
        if any(part.overlaps(denied) for part in pool.ranges):
            raise UsageError(f"--load-balancer-pool {pool} and --deny-external-addresses {denied} overlap.")
    restricts_ports = settings.origin("service_node_port_range") is not Origin.DEFAULT
    return Ranges(cidrs, settings.service_node_port_range, pool, bool(settings.service_cidr), restricts_ports)


def service_ranges(settings: Settings) -> tuple[Network, ...]:
    """Return the networks from which ClusterIPs are allocated."""
    return settings.service_cidr or (DEFAULT_SERVICE_CIDR,)


def cluster_dns(settings: Settings) -> tuple[Address, ...]:
    """Return the addresses of the name server: of each service range that has one, the tenth address."""
    if settings.cluster_dns:
        return settings.cluster_dns
    found = (network for network in service_ranges(settings) if network.num_addresses > DNS_PLACE)
    return tuple(network[DNS_PLACE].packed for network in found)


def required_cluster_dns(settings: Settings) -> tuple[Address, ...]:
    """Return the addresses of the name server. Raises UsageError if there are none."""
    if not (found := cluster_dns(settings)):
        ranges = ",".join(map(str, service_ranges(settings)))
        raise UsageError(f"--service-cidr {ranges} has no tenth address.", "See --cluster-dns.")
    return found


def warnings(settings: Settings) -> list[str]:
    """Return warnings about settings that work, but perhaps not as intended."""
    ranges = overlaps(settings, "--service-cidr", settings.service_cidr)
    return [*_without_node_ports(settings), *_unreachable_page(settings), *ranges]


def _unreachable_page(settings: Settings) -> Iterator[str]:
    if not settings.status_page:
        return
    address, name = settings.healthz_bind_address, _named(settings, "healthz_bind_address")
    host = ip_address(address.host) if address else None
    if host is None:
        yield f"--status-page has no effect: {name} is empty"
    elif not (status_access(settings).everywhere or host.is_loopback or host.is_unspecified):
        yield f"--status-page has no effect: {name} is no loopback address, and not on the command line"


def _without_node_ports(settings: Settings) -> Iterator[str]:
    ranges = settings.nodeport_addresses
    if ranges is not None and all(each.is_loopback for each in ranges):
        name = _named(settings, "nodeport_addresses")
        yield f"{name}: no node ports: kproxy does not serve them on loopback"


def overlaps(settings: Settings, name: str, service_cidrs: Iterable[Network]) -> list[str]:
    """Return a warning for each range of pods that overlaps one of these ranges of ClusterIPs."""
    pods_name = _named(settings, "cluster_cidr")
    return [
        f"{pods_name} {pods} and {name} {services} overlap: packets to a pod's address in {name} are dropped"
        for services in service_cidrs
        for pods in settings.cluster_cidr
        if pods.version == services.version and pods.overlaps(services)
    ]


def check_daemon(settings: Settings, in_pod: bool) -> None:
    """Raise UsageError for invalid settings of `run`, as far as they do not depend on the source."""
    pool_nodes(settings)
    if settings.init_only:
        return
    # A configuration file may name a kubeconfig, although --manifests is set.
    if settings.manifests and settings.origin("kubeconfig") is Origin.FLAG:
        raise UsageError("Services come from manifests (-f) or from a cluster (--kubeconfig), not from both.")
    if settings.gateway and not settings.manifests:
        raise UsageError("--gateway needs manifests: -f PATH. It does not follow the Ingresses of a cluster.")
    if not (settings.manifests or settings.kubeconfig or in_pod):
        raise UsageError("Not running in a pod: give -f PATH or --kubeconfig FILE.")
    if settings.gateway_controller and settings.manifests:
        raise UsageError("--gateway-controller follows a cluster. With -f, Gateways need no flag.")
    if settings.gateway_socket and not settings.gateway:
        raise UsageError("--gateway-socket needs --gateway.")
    if "-" in settings.manifests:
        raise UsageError("-f cannot follow standard input: name files or folders.")
    if settings.sync_period < 1:
        raise UsageError(f"{_named(settings, 'sync_period')} must be at least 1s.")
    ranges(settings)
    if settings.detect_local_mode is not LocalMode.NODE_CIDR:  # this mode needs the Node from the source
        dataplane_options(settings, Node(settings.node_name))
