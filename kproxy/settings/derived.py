"""Values derived from the settings, in the types of the folders that use them.

The functions raise UsageError if settings conflict.
"""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import NamedTuple

from kproxy.controlplane.ranges import Pool, Ranges
from kproxy.model import Network, Node, format_address
from kproxy.probes.core.command import CommandTemplate
from kproxy.problems import UsageError
from kproxy.settings.flags import flags_of
from kproxy.settings.settings import LocalMode, Origin, Settings
from kproxy.settings.text import INTERFACE, SocketAddress
from kproxy.table.skeleton import Options

DEFAULT_SERVICE_CIDR = ip_network("10.96.0.0/12")


class ListenAddresses(NamedTuple):
    """The addresses on which `kproxy run` serves health and metrics; None if it does not serve them."""

    healthz: SocketAddress | None
    metrics: SocketAddress | None
    by_endpoint: bool = False
    """Whether the metrics also count connections per endpoint."""
    max_silence: float = 600.0
    """Seconds without a message from the source until /healthz fails; 0 for no limit."""
    configz: str = "{}"
    """What /configz on the address of the metrics shows."""


def listen_addresses(chosen: Settings) -> ListenAddresses:
    """Return the addresses. By default, a host without a cluster serves health on loopback only."""
    healthz = chosen.healthz_bind_address
    if healthz and chosen.manifests and chosen.origin("healthz_bind_address") is Origin.DEFAULT:
        healthz = healthz._replace(host="127.0.0.1")
    return ListenAddresses(
        healthz, chosen.metrics_bind_address, chosen.endpoint_metrics, chosen.max_silence, configz(chosen)
    )


def configz(chosen: Settings) -> str:
    """Return the settings of `run` as a JSON object, by the names of its flags."""
    values = {flag.name: _plain(getattr(chosen, flag.field)) for flag in flags_of("run")}
    return json.dumps({"kproxy": values}, sort_keys=True)


def _plain(value: object) -> object:
    """Return a setting as JSON has it; addresses and ranges as they are typed."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return format_address(value)
        case Pool() | CommandTemplate():
            return value.text
        case SocketAddress():
            return str(value)
        case tuple():
            return [_plain(each) for each in value]
        case _:
            return str(value)


def pool_nodes(chosen: Settings) -> tuple[str, ...]:
    """Return the names of the nodes that share the pool. Raises UsageError if they lack this node."""
    found = chosen.nodes or (chosen.node_name,)
    if chosen.node_name not in found:
        message = f"--nodes {','.join(found)} does not contain this node, {chosen.node_name}."
        raise UsageError(message, "See --node-name.")
    return found


def dataplane_options(chosen: Settings, node: Node) -> Options:
    """What the rules depend on. UsageError: `node` lacks what the settings need of it."""
    mode = chosen.detect_local_mode
    cidrs: tuple[Network, ...] = ()
    interface = ""
    match mode:
        case LocalMode.CLUSTER_CIDR:
            cidrs = chosen.cluster_cidr
        case LocalMode.NODE_CIDR:
            if not node.pod_cidrs:
                needs = f"needs a Node {node.name} with podCIDRs in the input"
                raise UsageError(f"{_named(chosen, 'detect_local_mode')} {mode} {needs}.")
            cidrs = node.pod_cidrs
        case LocalMode.BRIDGE_INTERFACE:
            interface = _interface(chosen, "pod_bridge_interface")
        case LocalMode.INTERFACE_NAME_PREFIX:
            interface = _interface(chosen, "pod_interface_name_prefix") + "*"
    return Options(cidrs, chosen.service_cidr, chosen.masquerade_all, pod_interface=interface)


def conntrack_sysctls(chosen: Settings, cpus: int) -> dict[str, int]:
    """Return the least values of `net.netfilter.*`, by name. Without a cluster, only those with a flag."""

    def wanted(field: str) -> float:
        is_default = chosen.origin(field) is Origin.DEFAULT
        return 0 if is_default and chosen.manifests else getattr(chosen, field)

    values = {name: int(wanted(field)) for name, field in _CONNTRACK.items()}
    if wanted("conntrack_max_per_core") or wanted("conntrack_min"):
        per_core = chosen.conntrack_max_per_core
        values["nf_conntrack_max"] = max(per_core * cpus, chosen.conntrack_min) if per_core else 0
    return {name: value for name, value in values.items() if value}


_CONNTRACK = {
    "nf_conntrack_tcp_timeout_established": "conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_close_wait": "conntrack_tcp_timeout_close_wait",
    "nf_conntrack_tcp_be_liberal": "conntrack_tcp_be_liberal",
    "nf_conntrack_udp_timeout": "conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream": "conntrack_udp_timeout_stream",
}
"""Names of settings of the kernel, and of the fields with their values."""


def _interface(chosen: Settings, field: str) -> str:
    name: str = getattr(chosen, field)
    if not INTERFACE.fullmatch(name):
        mode = f"{_named(chosen, 'detect_local_mode')} {chosen.detect_local_mode}"
        in_file = chosen.origin("detect_local_mode") is Origin.FILE
        raise UsageError(f"{mode} needs {_name(field, in_file)}, the name of an interface.")
    return name


def _named(chosen: Settings, field: str) -> str:
    """The name by which a setting was set: its flag, or its field of the configuration file."""
    return _name(field, chosen.origin(field) is Origin.FILE)


def _name(field: str, in_file: bool) -> str:
    if in_file:
        from kproxy.settings.kubeproxy import field_of

        return field_of(field)
    return f"--{field.replace('_', '-')}"


def ranges(chosen: Settings) -> Ranges:
    """Return the ranges for allocations. Raises UsageError if ranges overlap."""
    cidrs, pool, pods = (
        chosen.service_cidr or (DEFAULT_SERVICE_CIDR,),
        chosen.load_balancer_pool,
        chosen.cluster_cidr,
    )
    pods_name = _named(chosen, "cluster_cidr")
    flagged = [("--service-cidr", cidr) for cidr in cidrs] + [(pods_name, cidr) for cidr in pods]
    for flag, cidr in flagged:
        for part in pool.ranges:
            if part.overlaps(cidr):
                raise UsageError(f"--load-balancer-pool {part} and {flag} {cidr} overlap.")
    for cidr in chosen.service_cidr:  # not the default one: the rules only drop packets to a configured range
        for own in pods:
            if own.version == cidr.version and own.overlaps(cidr):
                raise UsageError(f"{pods_name} {own} and --service-cidr {cidr} overlap.")
    return Ranges(cidrs, chosen.service_node_port_range, pool)


def check_daemon(chosen: Settings, in_pod: bool) -> None:
    """Raise UsageError for invalid settings of `run`, as far as they do not depend on the source."""
    pool_nodes(chosen)
    if chosen.init_only:
        return
    if chosen.manifests and chosen.origin("kubeconfig") is Origin.FLAG:  # a configuration file may name one
        raise UsageError("Services come from --manifests or from a cluster (--kubeconfig), not from both.")
    if not (chosen.manifests or chosen.kubeconfig or in_pod):
        raise UsageError("Not running in a pod: give --manifests or --kubeconfig.")
    if "-" in chosen.manifests:
        raise UsageError("--manifests cannot follow standard input: name files or folders.")
    if chosen.sync_period < 1:
        raise UsageError(f"{_named(chosen, 'sync_period')} must be at least 1s.")
    ranges(chosen)
    if chosen.detect_local_mode is not LocalMode.NODE_CIDR:  # this mode needs the Node from the source
        dataplane_options(chosen, Node(chosen.node_name))
