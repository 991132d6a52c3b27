"""The difference between what the table holds and what it ought to hold, as transactions.

The only place that knows the past. Endpoints keep their slots; a hole is filled by a new
endpoint or by one from beyond the new end, so that a change costs as many elements as
endpoints changed, and those of a client that another endpoint serves stay where they are.

Two transactions: a packet that is being evaluated while the first one commits may have
taken `goto lb-3` from before and look for slot 2 after; so slots that nothing points to
any more go in the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from kproxy.model import Address, Balance, NamespacedName, Protects, Protocol, protect_nothing
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.transaction import Transaction
from kproxy.table.keys import (
    AffinityKey,
    FrontendKey,
    PackedSocket,
    RangeKey,
    frontend_address,
    frontend_of,
    frontend_protocol,
    is_frontend,
    range_frontend,
    split_affinity_key,
)
from kproxy.table.layout import (
    EndpointScope,
    FrontendSide,
    FrontendSpec,
    held_slots,
    slot_chain_of,
    slots,
)
from kproxy.table.names import SetName, endpoints_map


class FrontendChange(NamedTuple):
    """What happens to one list of endpoints of one frontend, for people."""

    side: FrontendSide
    comment: str
    before: tuple[PackedSocket, ...] | None
    """Its endpoints by slot; None: it is new."""
    after: tuple[PackedSocket, ...] | None
    """None: it goes."""


class Plan(NamedTuple):
    """What to do, in this order; all of it empty if there is nothing to do."""

    switch: Transaction
    """Everything that decides where packets go."""
    sweep: Transaction
    """Slots that nothing points to any more."""
    changes: tuple[FrontendChange, ...]

    def __bool__(self) -> bool:
        return bool(self.switch) or bool(self.sweep)


def owner_of(comment: str) -> NamespacedName:
    """The service that an element of a verdict map says it is for."""
    namespace, _, name = comment.partition(":")[0].partition("/")
    return NamespacedName(namespace, name)


def fill_slots(
    before: Sequence[PackedSocket | None], wanted: Sequence[PackedSocket]
) -> tuple[PackedSocket, ...]:
    """Put `wanted` into slots 0..n-1 such that as many as can be stay where `before` has them."""
    missing = Counter(wanted)
    slots: list[PackedSocket | None] = [None] * len(wanted)
    for number, endpoint in enumerate(before[: len(wanted)]):
        if endpoint is not None and missing[endpoint]:
            slots[number] = endpoint
            missing[endpoint] -= 1
    rest = missing.elements()
    return tuple(next(rest) if endpoint is None else endpoint for endpoint in slots)


def _comment(verdict: Value | None) -> str:
    return verdict.comment if isinstance(verdict, Verdict) else ""


def _wanted(
    spec: FrontendSpec, before: Sequence[PackedSocket | None], protected: Protects
) -> tuple[PackedSocket, ...]:
    """The endpoints of a target by slot; of a kept service, those programmed as well.

    A kept hash table stays as it is: which slots another endpoint should have had is not known.
    """
    if spec.endpoints == before or not before:
        return spec.endpoints
    programmed = tuple(endpoint for endpoint in before if endpoint is not None)
    keep = protected(owner_of(spec.comment))
    if spec.ordered:
        return programmed if keep and programmed else spec.endpoints
    gone = set(programmed) - set(spec.endpoints) if keep else set()
    return fill_slots(before, spec.endpoints + tuple(sorted(gone)))


def plan_frontends(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec | None],
    protected: Protects = protect_nothing,
) -> Plan:
    """The plan for these places only; None: it goes.

    `applied` is what the table holds, and is not changed. Costs as much as these places have endpoints.
    """
    result = Plan(Transaction(), Transaction(), ())
    changes = [
        change
        for side, spec in specs.items()
        if (change := _plan_side(result, applied, side, spec, protected)) is not None
    ]
    return result._replace(changes=tuple(changes))


def plan_change(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec | None],
    elements: Mapping[str, Mapping[bytes, Value | None]],
) -> Plan:
    """The plan for these places and for these elements of the other sets and maps; None: it goes."""
    result = plan_frontends(applied, specs)
    for name, members in elements.items():
        for key, value in members.items():
            result.switch.change(name, key, applied[name].get(key), value)
    return result


def _plan_side(
    result: Plan,
    applied: Elements,
    side: FrontendSide,
    spec: FrontendSpec | None,
    protected: Protects,
) -> FrontendChange | None:
    protocol = frontend_protocol(side.key)
    verdict = applied[side.scope.verdicts].get(side.key)
    before = held_slots(applied, side, protocol)
    after: tuple[PackedSocket, ...] = ()
    wanted = None
    if spec is not None:
        after = _wanted(spec, before, protected)
        wanted = spec.verdict(side.scope, len(after))
    result.switch.change(side.scope.verdicts, side.key, verdict, wanted)
    name, held = endpoints_map(protocol), applied[endpoints_map(protocol)]
    keys = slots(side, max(len(before), len(after)))
    for key, endpoint in zip(keys, after, strict=False):
        result.switch.change(name, key, held.get(key), endpoint)
    for key in keys[len(after) :]:
        result.sweep.change(name, key, held.get(key), None)
    known = tuple(endpoint for endpoint in before if endpoint is not None)
    if verdict == wanted and known == after:
        return None
    return FrontendChange(
        side,
        spec.comment if spec else _comment(verdict),
        known if verdict is not None else None,
        after if spec is not None else None,
    )


def plan(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec],
    elements: Elements,
    protected: Protects = protect_nothing,
) -> Plan:
    """The plan that makes a table that holds `applied` hold these targets and other elements.

    Of a service for which `protected` says so (part of its input could not be read), nothing that is
    programmed is removed: neither a frontend nor an endpoint.
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
    some_protected = bool(stay) or any(protected(owner_of(spec.comment)) for spec in specs.values())
    for name, members in elements.items():
        if name == SetName.HAIRPIN and some_protected:  # it does not tell whose an endpoint is
            members = {**applied[name], **members}
        _change_set(result.switch, name, applied[name], members, protected_keys)
    _sweep_strays(result, applied, stay | specs.keys())
    return result


def _change_set(
    switch: Transaction,
    name: str,
    held: Mapping[bytes, Value],
    members: Mapping[bytes, Value],
    protected_keys: set[FrontendKey],
) -> None:
    """Elements of the other sets and maps: those that belong to protected frontends stay."""
    for key, value in members.items():
        switch.change(name, key, held.get(key), value)
    stay = protected_keys | {frontend_address(key) for key in protected_keys}
    for key, value in held.items():
        if key not in members and _owner(name, key) not in stay:
            switch.change(name, key, value, None)


def _owner(name: str, key: bytes) -> bytes:
    """The frontend or the address that an element of one of the other sets and maps belongs to."""
    return range_frontend(RangeKey(key)) if name == SetName.SOURCE_RANGES else key


def _sweep_strays(result: Plan, applied: Elements, remaining: Iterable[FrontendSide]) -> None:
    """Slots that nobody makes use of, before or after: a sync was interrupted, or someone added them."""
    if not any(applied[endpoints_map(protocol)] for protocol in Protocol):
        return
    used: dict[SetName, set[bytes]] = {}
    for protocol in Protocol:
        name = endpoints_map(protocol)
        used[name] = set(result.switch.remove[name]) | set(result.sweep.remove[name])
    for side in remaining:
        verdicts = side.scope.verdicts
        slot_chain = slot_chain_of(result.switch.add[verdicts].get(side.key, applied[verdicts].get(side.key)))
        members = used[endpoints_map(frontend_protocol(side.key))]
        members.update(slots(side, slot_chain.slots if slot_chain else 0))
    for name, members in used.items():
        for key in applied[name].keys() - members:
            result.sweep.change(name, key, applied[name][key], None)


def fill_empty(specs: Mapping[FrontendSide, FrontendSpec], elements: Elements) -> Elements:
    """All elements of a table that has no past: endpoints sit in their slots in order."""
    empty: Elements = {scope.verdicts: {} for scope in EndpointScope}
    empty.update({endpoints_map(protocol): {} for protocol in Protocol})
    empty.update({name: {} for name in elements})
    plan(empty, specs, elements).switch.apply_to(empty)
    return empty


def is_sticky(verdict: Value | None) -> bool:
    """Whether a frontend's verdict looks into the affinity maps."""
    slot_chain = slot_chain_of(verdict)
    return slot_chain is not None and slot_chain.balance is Balance.STICKY


def is_nobody(_: Address) -> bool:
    """For where clients cannot be told apart."""
    return False


def stale_affinity(
    entries: Iterable[tuple[AffinityKey, PackedSocket]],
    protocol: Protocol,
    applied: Elements,
    newly_local: set[FrontendKey],
    is_inside: Callable[[Address], bool] = is_nobody,
) -> list[AffinityKey]:
    """Keys of affinity entries whose frontend has no affinity, or not that endpoint.

    `entries` are clients of frontends and their endpoints, as a dump of `affinity-PROTOCOL` gives them.
    Any endpoint of the frontend will do, whichever side its client is on, but for `newly_local`
    frontends (their policy just became Local): there it has to be one for outside, unless
    the client `is_inside` (a pod or this node).
    """
    known: dict[tuple[FrontendKey, bool], frozenset[PackedSocket | None]] = {}
    stale = []
    for key, endpoint in entries:
        client, socket = split_affinity_key(key)
        frontend = frontend_of(socket, protocol)
        outside = frontend in newly_local and not is_inside(client)
        if (frontend, outside) not in known:
            scopes = (EndpointScope.LOCAL,) if outside else tuple(EndpointScope)
            known[frontend, outside] = frozenset(
                endpoint
                for scope in scopes
                if is_sticky(applied[scope.verdicts].get(frontend))
                for endpoint in held_slots(applied, FrontendSide(scope, frontend), protocol)
            )
        if endpoint not in known[frontend, outside]:
            stale.append(key)
    return stale
