"""The words of a command line that say which objects a command is about."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from kproxy.show.kinds import KINDS, Wanted, parse_targets


def add_targets(parser: argparse.ArgumentParser, kinds: Collection[str]) -> None:
    """What to show, and where to look."""
    every = ", ".join(f"{plural} ({KINDS[plural].aliases[-1]})" for plural in kinds)
    parser.add_argument(
        "targets",
        metavar="WHAT",
        nargs="+",
        help=f"KIND for all of them (several with commas), KIND NAME..., or KIND/NAME...; a KIND is {every}",
    )
    parser.add_argument(
        "-n", "--namespace", metavar="NAMESPACE", default="default", help="of the objects (default: default)"
    )
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", default=False, help="of all namespaces"
    )


def wanted(arguments: argparse.Namespace, kinds: Collection[str]) -> list[Wanted]:
    """The objects that are asked for, each kind once."""
    return parse_targets(arguments.targets, kinds, namespace(arguments))


def namespace(arguments: argparse.Namespace) -> str | None:
    """The namespace of the objects; None: all namespaces."""
    return None if arguments.all_namespaces else arguments.namespace
