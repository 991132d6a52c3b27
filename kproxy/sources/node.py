"""The node on which kproxy runs, from the settings, the kernel and its Node object."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from kproxy.kernel.host import HostAddresses
from kproxy.model import Address, ClusterNode, Network, Node, family_of, network_family
from kproxy.settings.settings import Settings


def find_node(chosen: Settings, nodes: Mapping[str, ClusterNode], host: HostAddresses | None = None) -> Node:
    """Return this node. `nodes` are the known Node objects by name. `host` caches the kernel's addresses."""
    host = host or HostAddresses()
    primary = chosen.node_ip if chosen.node_ip is not None else host.primary()
    serving = primary
    if chosen.nodeport_addresses is not None:
        ranges = chosen.nodeport_addresses
        serving = tuple(sorted({a for a in (*primary, *host.all()) if _is_in(a, ranges)}))
    known = nodes.get(chosen.node_name) or ClusterNode(chosen.node_name, "", ())
    return Node(chosen.node_name, serving, primary, known.zone, known.leaving, known.pod_cidrs)


def _is_in(address: Address, ranges: tuple[Network, ...]) -> bool:
    return any(network_family(n) is family_of(address) and ip_address(address) in n for n in ranges)
