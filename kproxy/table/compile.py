"""Compiles frontends to the desired elements of a table, and changes of some Services to changes of elements.

A change takes time in proportion to these Services only. All changes together give the same elements as all
frontends at once, in any order.

The assignment of endpoints to slots is not decided here: it depends on what is applied, so it is part of
the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

from msgspec import Struct

from kproxy.model import (
    Backends,
    Balance,
    Family,
    Frontend,
    FrontendKind,
    NamespacedName,
    ServicePortName,
    family_of,
)
from kproxy.nft.elements import COMMENT_BYTES, Elements, Value, Verdict
from kproxy.resolve.claims import FrontendDiff
from kproxy.table.layout import (
    ChainName,
    EndpointScope,
    FrontendSide,
    FrontendSpec,
    SetName,
    frontend_key,
    pack_sockets,
    range_key,
    remember_chain,
)

K = TypeVar("K")
V = TypeVar("V")
SETS = (
    SetName.CLUSTER_IPS,
    SetName.LOAD_BALANCER_IPS,
    SetName.MASQUERADE_RULES,
    SetName.AFFINITY_RULES,
    SetName.SOURCE_RESTRICTED,
    SetName.SOURCE_RANGES,
)
"""The sets and maps with elements of services, other than the verdict maps and the endpoints maps."""


class Desired(NamedTuple):
    """The desired content of a family's table."""

    specs: dict[FrontendSide, FrontendSpec]
    """The content of the verdict maps and of `endpoints-*`. The plan assigns the slots."""
    elements: Elements
    """The elements of the sets and maps in `SETS`."""


class Delta(Struct, frozen=True):
    """A change of the desired content of a table."""

    specs: dict[FrontendSide, FrontendSpec | None]
    """New or changed specs; None: the frontend side is removed."""
    elements: dict[str, dict[bytes, Value | None]]
    """New or changed elements by set or map; None: the element is removed."""

    def __bool__(self) -> bool:
        return bool(self.specs) or any(self.elements.values())


def _comment(owner: ServicePortName) -> str:
    text = str(owner)
    if len(text) <= COMMENT_BYTES and text.isascii():
        return text
    return text.encode()[:COMMENT_BYTES].decode(errors="ignore")


def _frontend_spec(frontend: Frontend, backends: Backends) -> FrontendSpec:
    return FrontendSpec(
        tuple(pack_sockets(backends.endpoints)),
        Balance.SHARES if backends.refusing else frontend.balance,
        ChainName.DISCARD if backends.elsewhere else ChainName.NO_ENDPOINTS,
        _comment(frontend.owner),
        frozenset(pack_sockets(frontend.serving)),
        backends.refusing,
    )


def compile_frontends(frontends: Iterable[Frontend], family: Family) -> Desired:
    """Return what the table of one family is to contain. Frontends of the other family are ignored."""
    specs: dict[FrontendSide, FrontendSpec] = {}
    elements: Elements = {name: {} for name in SETS}
    for frontend in frontends:
        if family_of(frontend.address) is not family:
            continue
        key = frontend_key(frontend.address, frontend.protocol, frontend.port)
        specs[FrontendSide(EndpointScope.ALL, key)] = _frontend_spec(frontend, frontend.backends)
        if frontend.from_outside is not None:
            specs[FrontendSide(EndpointScope.LOCAL, key)] = _frontend_spec(frontend, frontend.from_outside)
        if frontend.affinity_timeout is not None:
            remember = remember_chain(frontend.affinity_timeout)
            elements[SetName.AFFINITY_RULES][key] = Verdict(f"goto {remember}")
        if frontend.kind is FrontendKind.CLUSTER_IP:
            elements[SetName.CLUSTER_IPS][frontend.address] = b""
        else:
            chain = ChainName.MASQ_ALWAYS if frontend.from_outside is None else ChainName.MASQ_NODE
            elements[SetName.MASQUERADE_RULES][key] = Verdict(f"goto {chain}")
        if frontend.from_pool:
            elements[SetName.LOAD_BALANCER_IPS][frontend.address] = b""
        if frontend.source_ranges is not None:
            elements[SetName.SOURCE_RESTRICTED][key] = b""
            for network in frontend.source_ranges:
                first, last = network[0].packed, network[-1].packed
                elements[SetName.SOURCE_RANGES][range_key(key, first, last)] = b""
    return Desired(specs, elements)


def difference(before: Desired, after: Desired) -> Delta:
    """Return the change from `before` to `after`."""
    return Delta(
        _changed(before.specs, after.specs),
        {name: _changed(before.elements[name], after.elements[name]) for name in SETS},
    )


def _changed(before: Mapping[K, V], after: Mapping[K, V]) -> dict[K, V | None]:
    changed: dict[K, V | None] = {key: None for key in before if key not in after}
    changed.update((key, value) for key, value in after.items() if before.get(key) != value)
    return changed


def merged(deltas: Iterable[Delta]) -> Delta:
    """Combine deltas. A later delta takes precedence."""
    combined = Delta({}, {})
    for delta in deltas:
        combined.specs.update(delta.specs)
        for name, members in delta.elements.items():
            combined.elements.setdefault(name, {}).update(members)
    return combined


def whole(frontends: Iterable[Frontend], family: Family) -> Delta:
    """Return the addition of everything that the table is to contain for these frontends."""
    return difference(compile_frontends((), family), compile_frontends(frontends, family))


def deltas(changes: Mapping[NamespacedName, FrontendDiff], family: Family) -> dict[NamespacedName, Delta]:
    """Return the changes of a family's elements by Service. They can be applied singly, in any order."""
    found: dict[NamespacedName, Delta] = {}
    for name, change in changes.items():
        before = compile_frontends(change.before, family)
        delta = difference(before, compile_frontends(change.after, family))
        if delta:
            found[name] = delta
    _prefer_additions(found.values())
    return found


def _prefer_additions(deltas: Collection[Delta]) -> None:
    """Drop the removal of elements that another delta adds. So the order of deltas does not matter."""
    if len(deltas) < 2:
        return
    added_sides = {side for delta in deltas for side, spec in delta.specs.items() if spec is not None}
    added = {
        (name, key)
        for delta in deltas
        for name, members in delta.elements.items()
        for key, value in members.items()
        if value is not None
    }
    for delta in deltas:
        for side in [side for side, spec in delta.specs.items() if spec is None and side in added_sides]:
            del delta.specs[side]
        for name, members in delta.elements.items():
            for key in [key for key, value in members.items() if value is None and (name, key) in added]:
                del members[key]
