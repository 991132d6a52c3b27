"""Flags that several verbs share; kube-proxy's names where it has them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path

from kproxy.compile.skeleton import Options
from kproxy.decode import Decoded, decode
from kproxy.kernel.host import all_addresses, host_name, primary_addresses
from kproxy.model import Address, Network, Node, family_of, network_family, parse_address
from kproxy.problems import Problem
from kproxy.sources.files import read_documents
from kproxy.standalone.allocate import Ranges

DEFAULT_SERVICE_CIDR = ip_network("10.96.0.0/12")
DEFAULT_STATE_DIR = Path("/var/lib/kproxy")


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def networks(text: str) -> tuple[Network, ...]:
    """`A[,B...]`: CIDRs."""
    return tuple(_network(part) for part in text.split(","))


def nodeport_addresses(text: str) -> tuple[Network, ...] | None:
    """`CIDR[,CIDR...]`, or `primary` (None)."""
    return None if text == "primary" else networks(text)


def network_per_family(text: str) -> tuple[Network, ...]:
    """`A[,B]`: CIDRs, one of each family at most."""
    values = networks(text)
    if len({value.version for value in values}) < len(values):
        raise argparse.ArgumentTypeError(f"{text}: one CIDR of each family at most")
    return values


def addresses(text: str) -> tuple[Address, ...]:
    """`IP[,IP6]`: addresses, one of each family at most."""
    try:
        values = tuple(parse_address(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len({len(value) for value in values}) < len(values):
        raise argparse.ArgumentTypeError(f"{text}: one address of each family at most")
    return values


def port_range(text: str) -> tuple[int, int]:
    """`FIRST-LAST`: ports, both included."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST within 1-65535")
    return int(first), int(last)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Where objects come from, and what a control plane would know."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "-f",
        "--filename",
        metavar="PATH",
        action="append",
        required=True,
        help="file or folder of YAML or JSON manifests, - for standard input; may be given several times",
    )
    group.add_argument(
        "--state-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_STATE_DIR,
        help="where allocated addresses and node ports are kept (default: %(default)s)",
    )
    group.add_argument(
        "--service-cidr",
        metavar="CIDR[,CIDR]",
        type=network_per_family,
        help="where ClusterIPs are allocated, the primary family first; where given, packets to "
        f"addresses in it that no service has are dropped (default: {DEFAULT_SERVICE_CIDR}, not dropped)",
    )
    group.add_argument(
        "--service-node-port-range",
        metavar="FIRST-LAST",
        type=port_range,
        default=(30000, 32767),
        help="where node ports are allocated (default: 30000-32767)",
    )


def add_dataplane(parser: argparse.ArgumentParser) -> None:
    """What the node and its network are like."""
    group = parser.add_argument_group("node")
    group.add_argument("--node-name", metavar="NAME", help="this node's name (default: the host's name)")
    group.add_argument(
        "--node-ip",
        metavar="IP[,IP]",
        type=addresses,
        help="this node's primary addresses (default: those of its default routes)",
    )
    group.add_argument(
        "--cluster-cidr",
        metavar="CIDR[,CIDR]",
        type=networks,
        default=(),
        help="where pods are; traffic to ClusterIPs from elsewhere is masqueraded (default: not known)",
    )
    group.add_argument(
        "--nodeport-addresses",
        metavar="CIDR[,CIDR]",
        type=nodeport_addresses,
        help="serve node ports on this node's addresses in these ranges (default: primary, the primary ones)",
    )
    group.add_argument(
        "--masquerade-all", action="store_true", help="masquerade all traffic to ClusterIPs, pods' too"
    )


def node(arguments: argparse.Namespace) -> Node:
    """The node that the flags and this host describe."""
    name = arguments.node_name or host_name()
    primary = arguments.node_ip if arguments.node_ip is not None else primary_addresses()
    if arguments.nodeport_addresses is None:
        return Node(name, primary)
    chosen = {
        address
        for address in (*primary, *all_addresses())
        if any(
            network_family(network) is family_of(address) and ip_address(address) in network
            for network in arguments.nodeport_addresses
        )
    }
    return Node(name, tuple(sorted(chosen)))


def dataplane_options(arguments: argparse.Namespace) -> Options:
    """What the rules depend on."""
    return Options(arguments.cluster_cidr, arguments.service_cidr or (), arguments.masquerade_all)


def ranges(arguments: argparse.Namespace) -> Ranges:
    """Where allocations come from."""
    return Ranges(arguments.service_cidr or (DEFAULT_SERVICE_CIDR,), arguments.service_node_port_range)


def read_input(arguments: argparse.Namespace) -> Decoded:
    """Read and decode all that -f names; what could not be read is among the problems."""
    documents, unread = read_documents(arguments.filename)
    decoded = decode(documents)
    if unread:
        decoded.doubt.everything = True
    return decoded._replace(problems=unread + decoded.problems)


def print_problems(problems: Iterable[Problem]) -> None:
    """Say what was left out and why, on standard error."""
    for problem in problems:
        print(f"kproxy: {problem}", file=sys.stderr)
