"""Makes the plan: the difference between the applied and the desired elements, as two transactions.

This is the only code that depends on what was programmed before. Endpoints keep their slots. A freed slot
is filled with a new endpoint, or with an endpoint from a slot beyond the new number of slots. So the number
of changed elements depends only on the number of changed endpoints.

There are two transactions because a packet may be evaluated while the first one commits: it followed
`goto lb-8` before the commit, and looks up slot 4 after it. So the slots that no verdict leads to any more
are removed in the second one. A slot that becomes empty, but to which the new verdict leads, must not keep an
endpoint that is gone. If the chain stays the same, the slot is removed in the first transaction. If not, it
contains one of the other endpoints until the second one, because the old chain may expect one there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from kproxy.model import Address, Balance, NamespacedName, Protects, Protocol, protect_nothing
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.transaction import Transaction
from kproxy.table.layout import (
    AffinityKey,
    EndpointScope,
    FrontendKey,
    FrontendSide,
    FrontendSpec,
    PackedSocket,
    RangeKey,
    SetName,
    endpoints_map,
    frontend_address,
    frontend_of,
    frontend_protocol,
    is_frontend,
    range_frontend,
    slot_chain_of,
    slot_endpoints,
    slots,
    split_affinity_key,
)


class FrontendChange(Struct, frozen=True):
    """The change of one frontend side, for messages."""

    side: FrontendSide
    comment: str
    before: tuple[PackedSocket, ...] | None
    """Its endpoints by slot; None: the frontend side is new."""
    after: tuple[PackedSocket, ...] | None
    """None: the frontend side is removed."""


class Plan(NamedTuple):
    """The transactions to commit, in this order. Both are empty if there is nothing to do."""

    switch: Transaction
    """All changes except the sweep."""
    sweep: Transaction
    """Removes the slots that are not used any more."""
    changes: tuple[FrontendChange, ...]

    def __bool__(self) -> bool:
        return bool(self.switch) or bool(self.sweep)


def owner_of(comment: str) -> NamespacedName:
    """Return the service that the comment of an element of a verdict map names."""
    namespace, _, name = comment.partition(":")[0].partition("/")
    return NamespacedName(namespace, name)


def fill_slots(
    before: Sequence[PackedSocket | None], desired: Sequence[PackedSocket]
) -> tuple[PackedSocket, ...]:
    """Assign `desired` to slots 0..n-1. As many endpoints as possible keep their slot in `before`."""
    missing = Counter(desired)
    slots: list[PackedSocket | None] = [None] * len(desired)
    for number, endpoint in enumerate(before[: len(desired)]):
        if endpoint is not None and missing[endpoint]:
            slots[number] = endpoint
            missing[endpoint] -= 1
    rest = missing.elements()
    return tuple(next(rest) if endpoint is None else endpoint for endpoint in slots)


def _comment(verdict: Value | None) -> str:
    return verdict.comment if isinstance(verdict, Verdict) else ""


def _assign_slots(
    spec: FrontendSpec,
    before: Sequence[PackedSocket | None],
    programmed: tuple[PackedSocket, ...],
    protected: Protects,
) -> tuple[PackedSocket, ...]:
    """Return the endpoints of a frontend side by slot. Those that a protected service has stay.

    `programmed` are the endpoints in the slots `before`.

    The hash table of a protected service stays unchanged, because the slots of the endpoints that cannot be
    read are unknown.
    """
    if spec.endpoints == programmed or not programmed:
        return spec.endpoints
    keep = protected(owner_of(spec.comment))
    if spec.ordered:
        return programmed if keep else spec.endpoints
    gone = set(programmed) - set(spec.endpoints) if keep else set()
    return fill_slots(before, spec.endpoints + tuple(sorted(gone)))


def plan_frontends(
    applied: Mapping[str, Mapping[bytes, Value]],
    specs: Mapping[FrontendSide, FrontendSpec | None],
    protected: Protects = protect_nothing,
) -> Plan:
    """Return the plan for these frontend sides only. A side whose spec is None is removed.

    `applied` contains the elements of the table, and is not changed. Takes time in proportion to the
    endpoints of these sides.
    """
    result = Plan(Transaction(), Transaction(), ())
    changes = [
        change
        for side, spec in specs.items()
        if (change := _plan_side(result, applied, side, spec, protected)) is not None
    ]
    return result._replace(changes=tuple(changes))


def plan_change(
    applied: Mapping[str, Mapping[bytes, Value]],
    specs: Mapping[FrontendSide, FrontendSpec | None],
    elements: Mapping[str, Mapping[bytes, Value | None]],
) -> Plan:
    """Return the plan for these frontend sides and elements of other sets and maps. None: it is removed."""
    result = plan_frontends(applied, specs)
    for name, members in elements.items():
        for key, value in members.items():
            result.switch.change(name, key, applied[name].get(key), value)
    return result


def _plan_side(
    result: Plan,
    applied: Mapping[str, Mapping[bytes, Value]],
    side: FrontendSide,
    spec: FrontendSpec | None,
    protected: Protects,
) -> FrontendChange | None:
    protocol = frontend_protocol(side.key)
    verdict = applied[side.scope.verdicts].get(side.key)
    before = slot_endpoints(applied, side, protocol)
    programmed = tuple([endpoint for endpoint in before if endpoint is not None])
    after: tuple[PackedSocket, ...] = ()
    new_verdict = None
    if spec is not None:
        after = _assign_slots(spec, before, programmed, protected)
        new_verdict = spec.verdict(side.scope, len(after))
    if verdict == new_verdict and programmed == after == before[: len(after)]:
        return None
    result.switch.change(side.scope.verdicts, side.key, verdict, new_verdict)
    name, endpoints = endpoints_map(protocol), applied[endpoints_map(protocol)]
    chain, new_chain = slot_chain_of(verdict), slot_chain_of(new_verdict)
    reached = new_chain.slots if new_chain else 0
    keys = slots(side, max(len(before), reached))
    result.switch.change_all(name, endpoints, dict(zip(keys, after, strict=False)))
    others = () if chain in (None, new_chain) else after
    kept = frozenset[Value](others)
    for key in keys[len(after) : reached] if endpoints else ():
        found = endpoints.get(key)
        meanwhile = found if found is None or found in kept else next(iter(others), None)
        result.switch.change(name, key, found, meanwhile)
        result.sweep.change(name, key, meanwhile, None)
    for key in keys[reached:]:
        result.sweep.change(name, key, endpoints.get(key), None)
    if verdict == new_verdict and programmed == after:
        return None
    return FrontendChange(
        side,
        spec.comment if spec else _comment(verdict),
        programmed if verdict is not None else None,
        after if spec is not None else None,
    )


def plan(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec],
    elements: Elements,
    protected: Protects = protect_nothing,
) -> Plan:
    """Return the plan that makes a table with the elements `applied` contain exactly `specs` and `elements`.

    Of a protected service (part of its input cannot be read), the plan removes nothing: neither a frontend
    nor an endpoint.
    """
    todo: dict[FrontendSide, FrontendSpec | None] = dict(specs)
    stay: set[FrontendSide] = set()
    foreign: list[tuple[SetName, bytes]] = []
    for scope in EndpointScope:
        for key, verdict in applied[scope.verdicts].items():
            if not is_frontend(key):
                foreign.append((scope.verdicts, key))
            elif (side := FrontendSide(scope, key)) not in specs:
                if protected(owner_of(_comment(verdict))):
                    stay.add(side)
                else:
                    todo[side] = None
    result = plan_frontends(applied, todo, protected)
    for verdicts, key in foreign:
        result.switch.change(verdicts, key, applied[verdicts][key], None)
    protected_keys = {side.key for side in stay}
    for name, members in elements.items():
        _change_set(result.switch, name, applied[name], members, protected_keys)
    refusing = dict.fromkeys(stay, 0) | {side: spec.refusing for side, spec in specs.items()}
    _sweep_strays(result, applied, refusing)
    return result


def _change_set(
    switch: Transaction,
    name: str,
    before: Mapping[bytes, Value],
    after: Mapping[bytes, Value],
    protected_keys: set[FrontendKey],
) -> None:
    """Plan the elements of another set or map. Elements of protected frontends are not removed."""
    switch.change_all(name, before, after)
    stay = protected_keys | {frontend_address(key) for key in protected_keys}
    for key, value in before.items():
        if key not in after and _owner(name, key) not in stay:
            switch.change(name, key, value, None)


def _owner(name: str, key: bytes) -> bytes:
    """Return the frontend or the address that an element of a set or map in `compile.SETS` belongs to."""
    return range_frontend(RangeKey(key)) if name == SetName.SOURCE_RANGES else key


def _sweep_strays(result: Plan, applied: Elements, refusing: Mapping[FrontendSide, int]) -> None:
    """Sweep slots that are not in use: an interrupted round or another program left them.

    `refusing` has the sides that remain. So many of the last slots that their verdict leads to stay empty.
    """
    if not any(applied[endpoints_map(protocol)] for protocol in Protocol):
        return
    used: dict[SetName, set[bytes]] = {}
    for protocol in Protocol:
        name = endpoints_map(protocol)
        used[name] = set(result.switch.remove[name]) | set(result.sweep.remove[name])
    for side, empty in refusing.items():
        verdicts = side.scope.verdicts
        slot_chain = slot_chain_of(result.switch.add[verdicts].get(side.key, applied[verdicts].get(side.key)))
        members = used[endpoints_map(frontend_protocol(side.key))]
        members.update(slots(side, slot_chain.slots - empty if slot_chain else 0))
    for name, members in used.items():
        for key in applied[name].keys() - members:
            result.sweep.change(name, key, applied[name][key], None)


def initial_elements(specs: Mapping[FrontendSide, FrontendSpec], elements: Elements) -> Elements:
    """Return all elements of a table that was empty before. Endpoints are in their slots in order."""
    empty: Elements = {scope.verdicts: {} for scope in EndpointScope}
    empty.update({endpoints_map(protocol): {} for protocol in Protocol})
    empty.update({name: {} for name in elements})
    plan(empty, specs, elements).switch.apply_to(empty)
    return empty


def is_sticky(verdict: Value | None) -> bool:
    """Whether the chain that a frontend's verdict leads to uses the affinity maps."""
    slot_chain = slot_chain_of(verdict)
    return slot_chain is not None and slot_chain.balance is Balance.STICKY


def may_end_affinity(applied: Elements, switch: Transaction, change: FrontendChange) -> bool:
    """Whether a change, which `applied` does not contain yet, may make affinity entries stale.

    An endpoint or the affinity of a frontend goes, or its externalTrafficPolicy becomes Local.
    """
    scope, key = change.side
    verdicts = scope.verdicts
    if change.before is None:
        return scope is EndpointScope.LOCAL and is_sticky(applied[EndpointScope.ALL.verdicts].get(key))
    before = applied[verdicts].get(key)
    stays = is_sticky(switch.add[verdicts].get(key, before)) and set(change.before) <= set(change.after or ())
    return is_sticky(before) and not stays


def never_inside(_: Address) -> bool:
    """Return False: for configurations in which pods cannot be recognized."""
    return False


def stale_affinity(
    entries: Iterable[tuple[AffinityKey, PackedSocket]],
    protocol: Protocol,
    applied: Elements,
    newly_local: set[FrontendKey],
    is_inside: Callable[[Address], bool] = never_inside,
) -> list[AffinityKey]:
    """Return the keys of stale affinity entries: their frontend has no affinity, or not their endpoint.

    `entries` are the entries of `affinity-PROTOCOL`: key and endpoint. Any endpoint of the frontend is valid,
    in either scope. For `newly_local` frontends (their externalTrafficPolicy has just become Local), only an
    endpoint of scope LOCAL is valid, unless the client `is_inside` (a pod or this node).
    """
    valid: dict[tuple[FrontendKey, bool], frozenset[PackedSocket | None]] = {}
    stale = []
    for key, endpoint in entries:
        client, socket = split_affinity_key(key)
        frontend = frontend_of(socket, protocol)
        only_local = frontend in newly_local and not is_inside(client)
        if (frontend, only_local) not in valid:
            scopes = (EndpointScope.LOCAL,) if only_local else tuple(EndpointScope)
            valid[frontend, only_local] = frozenset(
                endpoint
                for scope in scopes
                if is_sticky(applied[scope.verdicts].get(frontend))
                for endpoint in slot_endpoints(applied, FrontendSide(scope, frontend), protocol)
            )
        if endpoint not in valid[frontend, only_local]:
            stale.append(key)
    return stale
