"""`kproxy compile`: print the whole ruleset as one nft script. Needs no root and no kernel."""

from __future__ import annotations

import argparse
import sys

from kproxy.cli import options
from kproxy.control.lookup import look_up
from kproxy.model import Family
from kproxy.nft.render import render_replacement
from kproxy.problems import UsageError
from kproxy.settings import text
from kproxy.settings.derived import dataplane_options
from kproxy.settings.settings import Settings
from kproxy.table.compile import compile_frontends
from kproxy.table.names import SetName
from kproxy.table.plan import fill_empty
from kproxy.table.skeleton import numbered_chains, skeleton

OLDEST = (1, 0, 6)
IPV6_AFFINITY = (1, 1, 3)
"""The oldest version known to load the rule that remembers IPv6 clients; 1.0.6 aborts on it."""


def dotted(numbers: tuple[int, ...]) -> str:
    """A version as text."""
    return ".".join(map(str, numbers))


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "compile",
        help="print the ruleset as an nft script",
        description="Print the complete ruleset as one nft script that `nft -f` loads, in place of what "
        "it finds. Equal input gives equal bytes. Allocations under --state-dir are used, not changed.",
    )
    options.add_input(parser)
    options.add_dataplane(parser)
    parser.add_argument(
        "--nft-version",
        metavar="VERSION",
        type=options.of(text.version),
        default=OLDEST,
        help=f"the nft that will load it (default: {dotted(OLDEST)})",
    )
    parser.set_defaults(run=run)


def run(chosen: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    if arguments.nft_version < OLDEST:
        raise UsageError(f"kproxy's rules need nft {dotted(OLDEST)} or later.")
    given = look_up(chosen)
    options.print_problems(given.problems)
    stateless = arguments.nft_version < IPV6_AFFINITY
    rules = dataplane_options(chosen, given.inventory.nodes)._replace(stateless_ipv6_affinity=stateless)
    print(f"# Written by `kproxy compile` for nft {dotted(arguments.nft_version)} and later.")
    if stateless:
        print(f"# nft before {dotted(IPV6_AFFINITY)} cannot load the rule that remembers IPv6 clients: here")
        print("# they are spread by a hash of their address, so some move when endpoints change.")
    for family in Family:
        desired = compile_frontends(given.frontends, family)
        if stateless and family is Family.IPV6:
            desired.elements[SetName.AFFINITY_RULES].clear()
        elements = fill_empty(*desired)
        sys.stdout.write(
            "\n" + render_replacement(skeleton(family, rules, numbered_chains(elements)), elements)
        )
    return 1 if given.problems else 0
