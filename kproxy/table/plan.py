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

from kproxy.model import Address, Balance, NamespacedName, Protocol
from kproxy.nft.elements import Elements, Value, Verdict, frontend_address, frontend_protocol, is_frontend
from kproxy.nft.transaction import Transaction
from kproxy.table.layout import Place, Side, Target, endpoints_map, held_slots, slots, spread_of


class FrontendChange(NamedTuple):
    """What happens to one list of endpoints of one frontend, for people."""

    place: Place
    comment: str
    before: tuple[bytes, ...] | None
    """Its endpoints by slot; None: it is new."""
    after: tuple[bytes, ...] | None
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


def keep_nothing(_: NamespacedName) -> bool:
    """For inputs that are known to be whole."""
    return False


def fill_slots(before: Sequence[bytes | None], wanted: Sequence[bytes]) -> tuple[bytes, ...]:
    """Put `wanted` into slots 0..n-1 such that as many as can be stay where `before` has them."""
    missing = Counter(wanted)
    slots: list[bytes | None] = [None] * len(wanted)
    for number, endpoint in enumerate(before[: len(wanted)]):
        if endpoint is not None and missing[endpoint]:
            slots[number] = endpoint
            missing[endpoint] -= 1
    rest = missing.elements()
    return tuple(next(rest) if endpoint is None else endpoint for endpoint in slots)


def _comment(verdict: Value | None) -> str:
    return verdict.comment if isinstance(verdict, Verdict) else ""


def _wanted(
    target: Target, before: Sequence[bytes | None], kept: Callable[[NamespacedName], bool]
) -> tuple[bytes, ...]:
    """The endpoints of a target by slot; of a kept service, those programmed as well.

    A kept hash table stays as it is: which slots another endpoint should have had is not known.
    """
    if target.endpoints == before or not before:
        return target.endpoints
    programmed = tuple(endpoint for endpoint in before if endpoint is not None)
    keep = kept(owner_of(target.comment))
    if target.ordered:
        return programmed if keep and programmed else target.endpoints
    gone = set(programmed) - set(target.endpoints) if keep else set()
    return fill_slots(before, target.endpoints + tuple(sorted(gone)))


def plan_frontends(
    applied: Elements,
    targets: Mapping[Place, Target | None],
    kept: Callable[[NamespacedName], bool] = keep_nothing,
) -> Plan:
    """The plan for these places only; None: it goes.

    `applied` is what the table holds, and is not changed. Costs as much as these places have endpoints.
    """
    result = Plan(Transaction(), Transaction(), ())
    changes = [
        change
        for place, target in targets.items()
        if (change := _plan_place(result, applied, place, target, kept)) is not None
    ]
    return result._replace(changes=tuple(changes))


def plan_change(
    applied: Elements,
    targets: Mapping[Place, Target | None],
    elements: Mapping[str, Mapping[bytes, Value | None]],
) -> Plan:
    """The plan for these places and for these elements of the other sets and maps; None: it goes."""
    result = plan_frontends(applied, targets)
    for name, members in elements.items():
        for key, value in members.items():
            result.switch.change(name, key, applied[name].get(key), value)
    return result


def _plan_place(
    result: Plan,
    applied: Elements,
    place: Place,
    target: Target | None,
    kept: Callable[[NamespacedName], bool],
) -> FrontendChange | None:
    protocol = frontend_protocol(place.key)
    verdict = applied[place.side.verdicts].get(place.key)
    before = held_slots(applied, place, protocol)
    after: tuple[bytes, ...] = ()
    wanted = None
    if target is not None:
        after = _wanted(target, before, kept)
        wanted = target.verdict(place.side, len(after))
    result.switch.change(place.side.verdicts, place.key, verdict, wanted)
    name, held = endpoints_map(protocol), applied[endpoints_map(protocol)]
    keys = slots(place, max(len(before), len(after)))
    for key, endpoint in zip(keys, after, strict=False):
        result.switch.change(name, key, held.get(key), endpoint)
    for key in keys[len(after) :]:
        result.sweep.change(name, key, held.get(key), None)
    known = tuple(endpoint for endpoint in before if endpoint is not None)
    if verdict == wanted and known == after:
        return None
    return FrontendChange(
        place,
        target.comment if target else _comment(verdict),
        known if verdict is not None else None,
        after if target is not None else None,
    )


def plan(
    applied: Elements,
    targets: Mapping[Place, Target],
    elements: Elements,
    kept: Callable[[NamespacedName], bool] = keep_nothing,
) -> Plan:
    """The plan that makes a table that holds `applied` hold these targets and other elements.

    Of a service for which `kept` says so (part of its input could not be read), nothing that is
    programmed is removed: neither a frontend nor an endpoint.
    """
    todo: dict[Place, Target | None] = dict(targets)
    stay: set[Place] = set()
    foreign: list[Place] = []
    for side in Side:
        for key, verdict in applied[side.verdicts].items():
            place = Place(side, key)
            if not is_frontend(key):
                foreign.append(place)
            elif place not in targets:
                if kept(owner_of(_comment(verdict))):
                    stay.add(place)
                else:
                    todo[place] = None
    result = plan_frontends(applied, todo, kept)
    for name, key in ((place.side.verdicts, place.key) for place in foreign):
        result.switch.change(name, key, applied[name][key], None)
    kept_keys = {place.key for place in stay}
    some_kept = bool(stay) or any(kept(owner_of(target.comment)) for target in targets.values())
    for name, members in elements.items():
        if name == "hairpin" and some_kept:  # it does not tell whose an endpoint is
            members = {**applied[name], **members}
        _change_set(result.switch, name, applied[name], members, kept_keys)
    _sweep_strays(result, applied, stay | targets.keys())
    return result


def _change_set(
    switch: Transaction,
    name: str,
    held: Mapping[bytes, Value],
    members: Mapping[bytes, Value],
    kept_keys: set[bytes],
) -> None:
    """Elements of the other sets and maps: those that belong to kept frontends stay."""
    for key, value in members.items():
        switch.change(name, key, held.get(key), value)
    addresses = {frontend_address(key) for key in kept_keys}
    width = len(next(iter(kept_keys), b""))
    for key, value in held.items():
        if key in members:
            continue
        if kept_keys and (key[:width] in kept_keys or key in addresses):
            continue
        switch.change(name, key, value, None)


def _sweep_strays(result: Plan, applied: Elements, remaining: Iterable[Place]) -> None:
    """Slots that nobody makes use of, before or after: a sync was interrupted, or someone added them."""
    if not any(applied[endpoints_map(protocol)] for protocol in Protocol):
        return
    used: dict[str, set[bytes]] = {}
    for protocol in Protocol:
        name = endpoints_map(protocol)
        used[name] = set(result.switch.remove[name]) | set(result.sweep.remove[name])
    for place in remaining:
        verdicts = place.side.verdicts
        spread = spread_of(result.switch.add[verdicts].get(place.key, applied[verdicts].get(place.key)))
        members = used[endpoints_map(frontend_protocol(place.key))]
        members.update(slots(place, spread.slots if spread else 0))
    for name, members in used.items():
        for key in applied[name].keys() - members:
            result.sweep.change(name, key, applied[name][key], None)


def place_all(targets: Mapping[Place, Target], elements: Elements) -> Elements:
    """All elements of a table that has no past: endpoints sit in their slots in order."""
    empty: Elements = {side.verdicts: {} for side in Side}
    empty.update({endpoints_map(protocol): {} for protocol in Protocol})
    empty.update({name: {} for name in elements})
    plan(empty, targets, elements).switch.apply_to(empty)
    return empty


def is_sticky(verdict: Value | None) -> bool:
    """Whether a frontend's verdict looks into the affinity maps."""
    spread = spread_of(verdict)
    return spread is not None and spread.balance is Balance.STICKY


def is_nobody(_: Address) -> bool:
    """For where clients cannot be told apart."""
    return False


def stale_affinity(
    entries: Iterable[tuple[bytes, bytes]],
    protocol: Protocol,
    applied: Elements,
    newly_local: set[bytes],
    is_inside: Callable[[Address], bool] = is_nobody,
) -> list[bytes]:
    """Keys of affinity entries whose frontend has no affinity, or not that endpoint.

    `entries` are (client . address . port, endpoint), as a dump of `affinity-PROTOCOL` gives them.
    Any endpoint of the frontend will do, whichever side its client is on, but for `newly_local`
    frontends (their policy just became Local): there it has to be one for outside, unless
    the client `is_inside` (a pod or this node).
    """
    known: dict[tuple[bytes, bool], frozenset[bytes | None]] = {}
    stale = []
    for key, endpoint in entries:
        width = (len(key) - 4) // 2
        frontend = key[width:]
        service = frontend[:-4] + bytes([protocol.number, 0, 0, 0]) + frontend[-4:]
        outside = service in newly_local and not is_inside(key[:width])
        if (frontend, outside) not in known:
            sides = (Side.OUTSIDE,) if outside else tuple(Side)
            known[frontend, outside] = frozenset(
                endpoint
                for side in sides
                if is_sticky(applied[side.verdicts].get(service))
                for endpoint in held_slots(applied, Place(side, service), protocol)
            )
        if endpoint not in known[frontend, outside]:
            stale.append(key)
    return stale
