"""The whole ruleset as one nft script, for hosts on which kproxy does not run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from kproxy.model import Family, Frontend
from kproxy.nft.render import render_replacement
from kproxy.table.compile import compile_frontends
from kproxy.table.layout import SetName, count_endpoints, counts_endpoints
from kproxy.table.plan import initial_elements
from kproxy.table.skeleton import Options, numbered_chains, skeleton

IPV6_AFFINITY = (1, 1, 3)
"""The oldest nft known to load the rule that stores the endpoint of an IPv6 client; 1.0.6 aborts on it."""


def script(frontends: Sequence[Frontend], options: Options, nft_version: tuple[int, ...]) -> Iterator[str]:
    """Yield the parts of a script for nft of this version and later. Equal arguments give equal text."""
    stateless = nft_version < IPV6_AFFINITY
    options = replace(options, stateless_ipv6_affinity=stateless)
    yield _heading(nft_version, stateless)
    for family in Family:
        desired = compile_frontends(frontends, family)
        if stateless and family is Family.IPV6:
            desired.elements[SetName.AFFINITY_RULES].clear()
        elements = initial_elements(*desired)
        counted = counts_endpoints(count_endpoints(elements), options.max_endpoint_counters)
        rules = skeleton(family, options, numbered_chains(elements), counted)
        yield "\n" + render_replacement(rules, elements)


def _heading(nft_version: tuple[int, ...], stateless: bool) -> str:
    lines = [f"# Written by `kproxy compile` for nft {_dotted(nft_version)} and later."]
    if stateless:
        lines += [
            f"# nft before {_dotted(IPV6_AFFINITY)} cannot load the rule that stores the endpoint of an IPv6",
            "# client. So sessionAffinity over IPv6 selects the endpoint by a hash of the client's",
            "# address. When the endpoints change, some clients get another one.",
        ]
    return "".join(f"{line}\n" for line in lines)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
