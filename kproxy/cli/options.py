"""Flags, and the settings that they come to; kube-proxy's names where it has them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from kproxy.kernel.host import host_name
from kproxy.problems import Problem
from kproxy.settings import text
from kproxy.settings.derived import DEFAULT_SERVICE_CIDR
from kproxy.settings.settings import HEALTHZ_PORT, LocalMode, Settings, settings


def of(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser of text as argparse takes it."""

    def convert(value: str) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings: flags, else the configuration file, else defaults."""
    flags = {name: value for name, value in vars(arguments).items() if name in Settings.__struct_fields__}
    for name in ("manifests", "nodes"):
        if name in flags:
            flags[name] = tuple(flags[name])
    if "detect_local_mode" in flags:
        flags["detect_local_mode"] = LocalMode(flags["detect_local_mode"])
    file: dict[str, Any] = {}
    if "config" in flags:
        from kproxy.sources.configuration import read_configuration

        file, warnings = read_configuration(flags["config"])
        for warning in warnings:
            print(f"kproxy: {warning}", file=sys.stderr)
    return settings(flags, file, host_name())


def add_view(parser: argparse.ArgumentParser) -> None:
    """What `look_up` reads."""
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
        dest="manifests",
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
        type=str,
        help="where allocated addresses and node ports are kept, and where a running kproxy is asked what it "
        "knows (default: /var/lib/kproxy)",
    )
    group.add_argument(
        "--service-cidr",
        metavar="CIDR[,CIDR]",
        type=of(text.network_per_family),
        help="where ClusterIPs are allocated, the primary family first; where given, packets to "
        f"addresses in it that no service has are dropped (default: {DEFAULT_SERVICE_CIDR}, not dropped)",
    )
    group.add_argument(
        "--service-node-port-range",
        metavar="FIRST-LAST",
        type=of(text.port_range),
        help="where node ports are allocated (default: 30000-32767)",
    )
    group.add_argument(
        "--load-balancer-pool",
        metavar="RANGE[,RANGE...]",
        type=of(text.address_pool),
        help="CIDRs or FIRST-LAST, where addresses of type LoadBalancer are allocated (default: nowhere)",
    )


def add_node(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which node it is; what `find_node` reads."""
    group = parser.add_argument_group("node")
    group.add_argument("--node-name", metavar="NAME", help="this node's name (default: the host's name)")
    group.add_argument(
        "--node-ip",
        metavar="IP[,IP]",
        type=of(text.addresses),
        help="this node's primary addresses (default: those of its default routes)",
    )
    group.add_argument(
        "--nodeport-addresses",
        metavar="CIDR[,CIDR]",
        type=of(text.nodeport_addresses),
        help="serve node ports on this node's addresses in these ranges (default: primary, the primary ones)",
    )
    return group


def add_dataplane(parser: argparse.ArgumentParser) -> None:
    """What the node and its network are like."""
    group = add_node(parser)
    group.add_argument(
        "--detect-local-mode",
        choices=tuple(LocalMode),
        help="how pods are told from other clients (default: ClusterCIDR, where --cluster-cidr is given)",
    )
    group.add_argument(
        "--cluster-cidr",
        metavar="CIDR[,CIDR]",
        type=of(text.networks),
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


def add_probes(parser: argparse.ArgumentParser) -> None:
    """How readiness probes get into a pod."""
    parser.add_argument_group("readiness probes").add_argument(
        "--probe-exec",
        metavar="HOW",
        type=of(text.command_template),
        help="what runs the command of an exec probe in its container: netns (ip netns exec POD), docker, "
        "podman, nerdctl, or a command line of your own with {namespace}, {pod} and {container}; the "
        "probe's command is added to it (default: netns)",
    )


def add_uplink(parser: argparse.ArgumentParser) -> None:
    """Where load-balancer addresses go, and which of several nodes has them."""
    group = parser.add_argument_group("load-balancer addresses")
    group.add_argument(
        "--nodes",
        metavar="NAME[,NAME...]",
        type=of(text.names),
        help="the nodes that share --load-balancer-pool: each address is announced by one of them "
        "(default: this node alone)",
    )
    group.add_argument(
        "--load-balancer-interface",
        metavar="NAME",
        type=of(text.interface_name),
        help="where addresses of --load-balancer-pool are put (default: where the default route leads)",
    )


def add_daemon(parser: argparse.ArgumentParser) -> None:
    """What the daemon says of itself, and where; and the file that has flags' defaults."""
    group = parser.add_argument_group("daemon")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="a KubeProxyConfiguration, or the ConfigMap that holds one; flags that are given win",
    )
    group.add_argument(
        "--healthz-bind-address",
        metavar="IP:PORT",
        type=of(text.socket_address),
        help=f'where /healthz and /livez are served, "" for nowhere (default: 0.0.0.0:{HEALTHZ_PORT}, both '
        f"families; with --manifests 127.0.0.1:{HEALTHZ_PORT})",
    )
    group.add_argument(
        "--metrics-bind-address",
        metavar="IP:PORT",
        type=of(text.socket_address),
        help='where /metrics is served, "" for nowhere (default: 127.0.0.1:10249)',
    )
    group.add_argument(
        "--max-silence",
        metavar="DURATION",
        type=of(text.seconds),
        help="/healthz fails when the API server has not been heard for so long, 0s for never (default: 10m)",
    )
    group.add_argument(
        "--endpoint-metrics",
        action="store_true",
        help="count connections by endpoint, too: a series for each endpoint of each service port",
    )
    group.add_argument(
        "--sync-period",
        metavar="DURATION",
        type=of(text.seconds),
        help="compare the tables as a whole so often, if others changed any (default: 5m); what they do "
        "to ours is seen at once",
    )
    group.add_argument(
        "--min-sync-period",
        metavar="DURATION",
        type=of(text.seconds),
        help="from one round of changes to the next (default: 0s); those between are one round",
    )
    group.add_argument("-v", "--verbose", action="store_true", help="log every change, however many")


def print_problems(problems: Iterable[Problem | str]) -> None:
    """Say on standard error what was left out and why, or what may not be as it was meant."""
    for problem in problems:
        print(f"kproxy: {problem}", file=sys.stderr)
