"""Flags about load-balancer addresses: on which interface, and on which of several nodes."""

from __future__ import annotations

import argparse

from kproxy.cli.options import INTERFACE
from kproxy.kernel.host import host_name
from kproxy.problems import UsageError


def add_uplink(parser: argparse.ArgumentParser) -> None:
    """Where load-balancer addresses go, and which of several nodes has them; what `nodes` reads."""
    group = parser.add_argument_group("load-balancer addresses")
    group.add_argument(
        "--nodes",
        metavar="NAME[,NAME...]",
        type=names,
        help="the nodes that share --load-balancer-pool: each address is announced by one of them "
        "(default: this node alone)",
    )
    group.add_argument(
        "--load-balancer-interface",
        metavar="NAME",
        type=interface_name,
        help="where addresses of --load-balancer-pool are put (default: where the default route leads)",
    )


def names(text: str) -> tuple[str, ...]:
    """`NAME[,NAME...]`."""
    values = tuple(part.strip() for part in text.split(","))
    if not all(values):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME[,NAME...]")
    return values


def interface_name(text: str) -> str:
    """The name of an interface, which need not exist."""
    if not INTERFACE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of an interface")
    return text


def nodes(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The names of the nodes that share the pool; UsageError if this node is not among them."""
    own = arguments.node_name or host_name()
    found: tuple[str, ...] = arguments.nodes or (own,)
    if own not in found:
        raise UsageError(f"--nodes {','.join(found)} does not have this node, {own}.", "See --node-name.")
    return found
