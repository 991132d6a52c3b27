"""`kproxy compile`: print the whole ruleset as one nft script. Needs no root and no kernel."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import print_problems, write
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.model import Family
from kproxy.nft.render import render_replacement
from kproxy.settings.derived import dataplane_options
from kproxy.settings.settings import Settings
from kproxy.table.compile import compile_frontends
from kproxy.table.names import SetName
from kproxy.table.plan import initial_elements
from kproxy.table.skeleton import numbered_chains, skeleton

IPV6_AFFINITY = (1, 1, 3)
"""The oldest version known to load the rule that remembers IPv6 clients; 1.0.6 aborts on it."""


def dotted(numbers: tuple[int, ...]) -> str:
    """A version as text."""
    return ".".join(map(str, numbers))


def run(chosen: Settings, operands: Sequence[str]) -> int:
    """Returns the exit status."""
    with progress() as tell:
        given = look_up(chosen, tell)
    print_problems(given.problems)
    stateless = chosen.nft_version < IPV6_AFFINITY
    rules = dataplane_options(chosen, given.node)._replace(stateless_ipv6_affinity=stateless)
    write(heading(chosen.nft_version, stateless))
    for family in Family:
        desired = compile_frontends(given.frontends, family)
        if stateless and family is Family.IPV6:
            desired.elements[SetName.AFFINITY_RULES].clear()
        elements = initial_elements(*desired)
        write("\n" + render_replacement(skeleton(family, rules, numbered_chains(elements)), elements))
    return 1 if given.problems else 0


def heading(nft_version: tuple[int, ...], stateless: bool) -> str:
    """The script's first lines."""
    lines = [f"# Written by `kproxy compile` for nft {dotted(nft_version)} and later."]
    if stateless:
        lines += [
            f"# nft before {dotted(IPV6_AFFINITY)} cannot load the rule that remembers IPv6 clients: here",
            "# they are spread by a hash of their address, so some move when endpoints change.",
        ]
    return "".join(f"{line}\n" for line in lines)
