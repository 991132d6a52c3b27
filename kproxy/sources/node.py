"""The node on which kproxy runs, from the settings, the kernel and its Node object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from kproxy.kernel.host import HostAddresses
from kproxy.model import Address, ClusterNode, Family, Network, Node, family_of, network_family
from kproxy.problems import Problem, enumeration
from kproxy.settings.settings import Settings


def find_node(
    settings: Settings, nodes: Mapping[str, ClusterNode], host: HostAddresses | None = None
) -> Node:
    """Return this node. `nodes` are the known Node objects by name. `host` caches the kernel's addresses."""
    host = host or HostAddresses()
    known = nodes.get(settings.node_name) or ClusterNode(settings.node_name, "", ())
    primary = settings.node_ip if settings.node_ip is not None else _primary(known, host)
    serving = primary
    if settings.nodeport_addresses is not None:
        ranges = settings.nodeport_addresses
        serving = tuple(sorted({a for a in (*primary, *host.all()) if _is_in(a, ranges)}))
    relied_on = [(address, "this node's gateway") for address in host.gateways()]
    relied_on += [(address, "a DNS server of this node") for address in host.name_servers()]
    return Node(
        settings.node_name,
        serving,
        primary,
        known.zone,
        known.leaving,
        known.pod_cidrs,
        tuple(relied_on),
        settings.deny_external_addresses,
        host.bridges(),
    )


def unknown_node(source: str, name: str, others: Iterable[str] = ()) -> Problem:
    """Return the warning that no Node has this node's name. `others`: the names of the Nodes, if known."""
    names = sorted(others)
    known = f", only {enumeration(names)}" if names else ""
    message = f"there is no Node of this name{known}: which endpoints are local is unclear; see --node-name"
    return Problem(source, f"Node {name}", "", message)


def _primary(known: ClusterNode, host: HostAddresses) -> tuple[Address, ...]:
    """Return the addresses of the Node object, and the host's for families in which it has none."""
    own = {family_of(address): address for address in known.host_ips}
    if len(own) < len(Family):
        own = {family_of(address): address for address in host.primary()} | own
    return tuple(own[family] for family in Family if family in own)


def _is_in(address: Address, ranges: tuple[Network, ...]) -> bool:
    return any(network_family(n) is family_of(address) and ip_address(address) in n for n in ranges)
