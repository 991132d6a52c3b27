"""Frontends -> elements. What depends on the past (which endpoint sits in which slot) is left to the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from kproxy.model import Backends, Family, Frontend, FrontendKind, family_of
from kproxy.nft.elements import (
    COMMENT_BYTES,
    RANGES,
    Elements,
    Value,
    Verdict,
    endpoint_value,
    frontend_key,
    range_key,
)
from kproxy.table.layout import DISCARD, REFUSE, EndpointScope, FrontendSide, FrontendSpec

K = TypeVar("K")
V = TypeVar("V")
SETS = (
    *("cluster-ips", "load-balancer-ips", "hairpin", "masquerade-rules", "affinity-rules"),
    *("source-restricted", RANGES),
)
"""The sets and maps that services have elements in, besides the verdict and endpoints maps."""


class Desired(NamedTuple):
    """What the table of one family is to hold."""

    specs: dict[FrontendSide, FrontendSpec]
    """The elements of the verdict maps and of `endpoints-*`, but for the slots."""
    elements: Elements
    """Those of the other sets and maps."""


class Delta(NamedTuple):
    """What of a table is to be otherwise."""

    specs: dict[FrontendSide, FrontendSpec | None]
    """None: it goes."""
    elements: dict[str, dict[bytes, Value | None]]

    def __bool__(self) -> bool:
        return bool(self.specs) or any(self.elements.values())


def _frontend_spec(frontend: Frontend, behind: Backends) -> FrontendSpec:
    return FrontendSpec(
        tuple(endpoint_value(*endpoint) for endpoint in behind.endpoints),
        frontend.balance,
        DISCARD if behind.elsewhere else REFUSE,
        str(frontend.owner).encode()[:COMMENT_BYTES].decode(errors="ignore"),
        frozenset(endpoint_value(*endpoint) for endpoint in frontend.serving),
    )


def compile_frontends(frontends: Iterable[Frontend], family: Family) -> Desired:
    """The desired elements of one family; frontends of the other are passed over."""
    specs: dict[FrontendSide, FrontendSpec] = {}
    elements: Elements = {name: {} for name in SETS}
    for frontend in frontends:
        if family_of(frontend.address) is not family:
            continue
        key = frontend_key(frontend.address, frontend.protocol, frontend.port)
        specs[FrontendSide(EndpointScope.ALL, key)] = _frontend_spec(frontend, frontend.backends)
        if frontend.from_outside is not None:
            specs[FrontendSide(EndpointScope.LOCAL, key)] = _frontend_spec(frontend, frontend.from_outside)
        for address in frontend.local:
            elements["hairpin"][address + address] = b""
        if frontend.affinity_timeout is not None:
            elements["affinity-rules"][key] = Verdict(f"goto remember-{frontend.affinity_timeout}")
        if frontend.kind is FrontendKind.CLUSTER_IP:
            elements["cluster-ips"][frontend.address] = b""
        else:
            chain = "masq-always" if frontend.from_outside is None else "masq-node"
            elements["masquerade-rules"][key] = Verdict(f"goto {chain}")
        if frontend.given:
            elements["load-balancer-ips"][frontend.address] = b""
        if frontend.source_ranges is not None:
            elements["source-restricted"][key] = b""
            for network in frontend.source_ranges:
                first, last = network[0].packed, network[-1].packed
                elements[RANGES][range_key(key, first, last)] = b""
    return Desired(specs, elements)


def difference(before: Desired, after: Desired) -> Delta:
    """What makes a table that holds `before` hold `after`."""
    return Delta(
        _changed(before.specs, after.specs),
        {name: _changed(before.elements[name], after.elements[name]) for name in SETS},
    )


def _changed(before: Mapping[K, V], after: Mapping[K, V]) -> dict[K, V | None]:
    changed: dict[K, V | None] = {key: None for key in before if key not in after}
    changed.update((key, value) for key, value in after.items() if before.get(key) != value)
    return changed


def merged(deltas: Iterable[Delta]) -> Delta:
    """One that does what these do one after another."""
    whole = Delta({}, {})
    for delta in deltas:
        whole.specs.update(delta.specs)
        for name, members in delta.elements.items():
            whole.elements.setdefault(name, {}).update(members)
    return whole
