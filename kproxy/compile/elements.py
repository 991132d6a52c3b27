"""Frontends -> elements. What depends on the past (which endpoint sits in which slot) is left to the plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kproxy.model import Backends, Family, Frontend, FrontendKind, family_of
from kproxy.nft.elements import (
    COMMENT_BYTES,
    RANGES,
    Elements,
    Verdict,
    endpoint_value,
    frontend_key,
    range_key,
)
from kproxy.nft.layout import DISCARD, REFUSE, Place, Side, Target


class Desired(NamedTuple):
    """What the table of one family is to hold."""

    targets: dict[Place, Target]
    """The elements of the verdict maps and of `endpoints-*`, but for the slots."""
    elements: Elements
    """Those of the other sets and maps."""


def _target(frontend: Frontend, behind: Backends) -> Target:
    return Target(
        tuple(endpoint_value(*endpoint) for endpoint in behind.endpoints),
        frontend.balance,
        DISCARD if behind.elsewhere else REFUSE,
        str(frontend.owner).encode()[:COMMENT_BYTES].decode(errors="ignore"),
        frozenset(endpoint_value(*endpoint) for endpoint in frontend.serving),
    )


def compile_frontends(frontends: Iterable[Frontend], family: Family) -> Desired:
    """The desired elements of one family; frontends of the other are passed over."""
    targets: dict[Place, Target] = {}
    names = ("cluster-ips", "hairpin", "masquerade-rules", "affinity-rules", "source-restricted", RANGES)
    elements: Elements = {name: {} for name in names}
    for frontend in frontends:
        if family_of(frontend.address) is not family:
            continue
        key = frontend_key(frontend.address, frontend.protocol, frontend.port)
        targets[Place(Side.ANYONE, key)] = _target(frontend, frontend.backends)
        if frontend.from_outside is not None:
            targets[Place(Side.OUTSIDE, key)] = _target(frontend, frontend.from_outside)
        for address in frontend.local:
            elements["hairpin"][address + address] = b""
        if frontend.affinity_timeout is not None:
            elements["affinity-rules"][key] = Verdict(f"goto remember-{frontend.affinity_timeout}")
        if frontend.kind is FrontendKind.CLUSTER_IP:
            elements["cluster-ips"][frontend.address] = b""
        else:
            chain = "masq-always" if frontend.from_outside is None else "masq-node"
            elements["masquerade-rules"][key] = Verdict(f"goto {chain}")
        if frontend.source_ranges is not None:
            elements["source-restricted"][key] = b""
            for network in frontend.source_ranges:
                first, last = network[0].packed, network[-1].packed
                elements[RANGES][range_key(key, first, last)] = b""
    return Desired(targets, elements)
