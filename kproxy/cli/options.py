"""Flags that several verbs share; kube-proxy's names where it has them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from kproxy.controlplane.ranges import Pool, Ranges, parse_pool
from kproxy.controlplane.settle import resolve
from kproxy.decode import Decoded, decode
from kproxy.kernel.host import HostAddresses, host_name
from kproxy.model import Address, ClusterNode, Network, Node, family_of, network_family, parse_address
from kproxy.problems import Problem, UsageError
from kproxy.resolve.frontends import merged
from kproxy.show.snapshot import Snapshot
from kproxy.sources.files import read_documents
from kproxy.state.store import Store
from kproxy.table.skeleton import Options

if TYPE_CHECKING:
    from kproxy.probes.exec import ExecRunner

DEFAULT_SERVICE_CIDR = ip_network("10.96.0.0/12")
DEFAULT_STATE_DIR = Path("/var/lib/kproxy")
INTERFACE = re.compile(r"[\w.:@-]{1,15}")


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def networks(text: str) -> tuple[Network, ...]:
    """`A[,B...]`: CIDRs; what overlaps is one, since nft takes no overlapping intervals."""
    return tuple(merged(_network(part) for part in text.split(",")))


def nodeport_addresses(text: str) -> tuple[Network, ...] | None:
    """`CIDR[,CIDR...]`, or `primary` (None)."""
    return None if text == "primary" else networks(text)


def network_per_family(text: str) -> tuple[Network, ...]:
    """`A[,B]`: CIDRs, one of each family at most."""
    values = tuple(_network(part) for part in text.split(","))
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


def address_pool(text: str) -> Pool:
    """`RANGE[,RANGE...]`, each a CIDR or `FIRST-LAST`; what overlaps is one."""
    try:
        return parse_pool(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port_range(text: str) -> tuple[int, int]:
    """`FIRST-LAST`: ports, both included."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST within 1-65535")
    return int(first), int(last)


def add_view(parser: argparse.ArgumentParser) -> None:
    """What `snapshot` reads."""
    add_input(parser, required=False)
    add_node(parser)


def add_input(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Where objects come from, and what a control plane would know."""
    default = (
        "" if required else "; without, the kproxy that runs with --state-dir is asked, as it was started"
    )
    group = parser.add_argument_group("input")
    group.add_argument(
        "-f",
        "--filename",
        metavar="PATH",
        action="append",
        required=required,
        help="file or folder of YAML or JSON manifests, - for standard input; may be given several "
        f"times{default}",
    )
    add_control_plane(group)


def add_control_plane(group: argparse._ArgumentGroup) -> None:
    """What is kept, and what `ranges` reads."""
    group.add_argument(
        "--state-dir",
        metavar="DIR",
        type=Path,
        default=DEFAULT_STATE_DIR,
        help="where allocated addresses and node ports are kept, and where a running kproxy is asked what it "
        "knows (default: %(default)s)",
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
    group.add_argument(
        "--load-balancer-pool",
        metavar="RANGE[,RANGE...]",
        type=address_pool,
        default=Pool((), ""),
        help="CIDRs or FIRST-LAST, where addresses of type LoadBalancer are allocated (default: nowhere)",
    )


def add_node(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which node it is; what `node` reads."""
    group = parser.add_argument_group("node")
    group.add_argument("--node-name", metavar="NAME", help="this node's name (default: the host's name)")
    group.add_argument(
        "--node-ip",
        metavar="IP[,IP]",
        type=addresses,
        help="this node's primary addresses (default: those of its default routes)",
    )
    group.add_argument(
        "--nodeport-addresses",
        metavar="CIDR[,CIDR]",
        type=nodeport_addresses,
        help="serve node ports on this node's addresses in these ranges (default: primary, the primary ones)",
    )
    return group


def add_dataplane(parser: argparse.ArgumentParser) -> None:
    """What the node and its network are like."""
    group = add_node(parser)
    group.add_argument(
        "--detect-local-mode",
        choices=("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"),
        default="ClusterCIDR",
        help="how pods are told from other clients (default: %(default)s, where --cluster-cidr is given)",
    )
    group.add_argument(
        "--cluster-cidr",
        metavar="CIDR[,CIDR]",
        type=networks,
        default=(),
        help="where pods are; traffic to ClusterIPs from elsewhere is masqueraded (default: not known)",
    )
    group.add_argument(
        "--pod-bridge-interface", metavar="NAME", help="the bridge of the pods, for mode BridgeInterface"
    )
    group.add_argument(
        "--pod-interface-name-prefix",
        metavar="PREFIX",
        help="what names of the pods' interfaces begin with, for mode InterfaceNamePrefix",
    )
    group.add_argument(
        "--masquerade-all", action="store_true", help="masquerade all traffic to ClusterIPs, pods' too"
    )


def exec_runner(text: str) -> ExecRunner:
    """A name or a template of `--probe-exec`."""
    from kproxy.probes.exec import ExecRunner  # asyncio takes long to import

    try:
        return ExecRunner(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def add_probes(parser: argparse.ArgumentParser) -> None:
    """How readiness probes get into a pod."""
    parser.add_argument_group("readiness probes").add_argument(
        "--probe-exec",
        metavar="HOW",
        type=exec_runner,
        default="netns",
        help="what runs the command of an exec probe in its container: netns (ip netns exec POD), docker, "
        "podman, nerdctl, or a command line of your own with {namespace}, {pod} and {container}; the "
        "probe's command is added to it (default: %(default)s)",
    )


def node(
    arguments: argparse.Namespace, nodes: Mapping[str, ClusterNode], host: HostAddresses | None = None
) -> Node:
    """The node that the flags, this host and a Node object of its name describe."""
    name, host = arguments.node_name or host_name(), host or HostAddresses()
    primary = arguments.node_ip if arguments.node_ip is not None else host.primary()
    shown = primary
    if arguments.nodeport_addresses is not None:
        ranges = arguments.nodeport_addresses
        shown = tuple(sorted({a for a in (*primary, *host.all()) if _is_in(a, ranges)}))
    known = nodes.get(name) or ClusterNode(name, "", ())
    return Node(name, shown, primary, known.zone, known.leaving)


def _is_in(address: Address, ranges: tuple[Network, ...]) -> bool:
    return any(network_family(n) is family_of(address) and ip_address(address) in n for n in ranges)


def dataplane_options(arguments: argparse.Namespace, nodes: Mapping[str, ClusterNode]) -> Options:
    """What the rules depend on."""
    mode, name = arguments.detect_local_mode, arguments.node_name or host_name()
    cidrs: tuple[Network, ...] = ()
    interface = ""
    if mode == "ClusterCIDR":
        cidrs = arguments.cluster_cidr
    elif mode == "NodeCIDR":
        if name not in nodes or not nodes[name].pod_cidrs:
            raise UsageError(f"--detect-local-mode {mode} needs a Node {name} with podCIDRs in the input.")
        cidrs = nodes[name].pod_cidrs
    elif mode == "BridgeInterface":
        interface = _required(arguments.pod_bridge_interface, mode, "--pod-bridge-interface")
    else:
        interface = _required(arguments.pod_interface_name_prefix, mode, "--pod-interface-name-prefix") + "*"
    return Options(cidrs, arguments.service_cidr or (), arguments.masquerade_all, pod_interface=interface)


def _required(value: str | None, mode: str, flag: str) -> str:
    if not value or not INTERFACE.fullmatch(value):
        raise UsageError(f"--detect-local-mode {mode} needs {flag}, the name of an interface.")
    return value


def ranges(arguments: argparse.Namespace) -> Ranges:
    """Where allocations come from; UsageError if one address would be of two sorts."""
    cidrs, pool = arguments.service_cidr or (DEFAULT_SERVICE_CIDR,), arguments.load_balancer_pool
    pods: tuple[Network, ...] = getattr(arguments, "cluster_cidr", ())
    given = [("--service-cidr", cidr) for cidr in cidrs] + [("--cluster-cidr", cidr) for cidr in pods]
    for flag, cidr in given:
        for part in pool.ranges:
            if part.meets(cidr):
                raise UsageError(f"--load-balancer-pool {part} and {flag} {cidr} overlap.")
    for cidr in arguments.service_cidr or ():  # a default range that nobody gave is dropped nowhere
        for own in pods:
            if own.version == cidr.version and own.overlaps(cidr):
                raise UsageError(f"--cluster-cidr {own} and --service-cidr {cidr} overlap.")
    return Ranges(cidrs, arguments.service_node_port_range, pool)


def read_input(arguments: argparse.Namespace) -> Decoded:
    """Read and decode all that -f names; what could not be read is among the problems."""
    documents, unread = read_documents(arguments.filename)
    decoded = decode(documents)
    if unread:
        decoded.unreadable.everything = True
    return decoded._replace(problems=unread + decoded.problems)


def snapshot(arguments: argparse.Namespace) -> Snapshot:
    """What is to be shown: the manifests as this node would serve them, else what the kproxy knows that runs.

    --state-dir is read, not changed.
    """
    if arguments.filename is None:
        from kproxy.control.channel import fetch  # with asyncio, which takes long to import

        return fetch(arguments.state_dir)
    decoded = read_input(arguments)
    held = Store(arguments.state_dir).load()
    own = node(arguments, decoded.state.nodes)
    outcome = resolve(decoded, held, ranges(arguments), own)
    return Snapshot(
        decoded.state,
        outcome.services,
        outcome.frontends,
        outcome.problems,
        own,
        warnings=tuple(outcome.warnings),
    )


def print_problems(problems: Iterable[Problem]) -> None:
    """Say on standard error what was left out and why, or what may not be as it was meant."""
    for problem in problems:
        print(f"kproxy: {problem}", file=sys.stderr)
