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

from kproxy.compile.elements import Desired, Target
from kproxy.compile.skeleton import is_sticky, target_verdict, verdict_count
from kproxy.model import NamespacedName, Protocol
from kproxy.nft.elements import (
    Elements,
    Value,
    Verdict,
    frontend_address,
    frontend_protocol,
    slot_key,
    slot_prefix,
)
from kproxy.nft.transaction import Transaction


class FrontendChange(NamedTuple):
    """What happens to one frontend, for people."""

    key: bytes
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
    """The service that an element of `services` says it is for."""
    namespace, _, name = comment.partition(":")[0].partition("/")
    return NamespacedName(namespace, name)


def keep_nothing(_: NamespacedName) -> bool:
    """For inputs that are known to be whole."""
    return False


def fill_slots(before: Sequence[bytes | None], wanted: Sequence[bytes]) -> tuple[bytes, ...]:
    """Put `wanted` into slots 0..n-1 such that as many as can be stay where `before` has them."""
    if len(before) == len(wanted) and Counter(before) == Counter(wanted):
        return tuple(endpoint for endpoint in before if endpoint is not None)
    missing = Counter(wanted)
    slots: list[bytes | None] = [None] * len(wanted)
    for slot, endpoint in enumerate(before[: len(wanted)]):
        if endpoint is not None and missing[endpoint]:
            slots[slot] = endpoint
            missing[endpoint] -= 1
    rest = missing.elements()
    return tuple(next(rest) if endpoint is None else endpoint for endpoint in slots)


def slots_of(applied: Elements, key: bytes) -> tuple[bytes | None, ...]:
    """The endpoints of a frontend, slot by slot, as its verdict makes use of them."""
    verdict = applied["services"].get(key)
    if not isinstance(verdict, Verdict):
        return ()
    prefix, held = slot_prefix(key), applied[endpoints_map(frontend_protocol(key))]
    return tuple(_bytes(held.get(slot_key(prefix, slot))) for slot in range(verdict_count(verdict)))


def endpoints_map(protocol: Protocol) -> str:
    """The name of the map from slots to endpoints."""
    return f"endpoints-{protocol}"


def _bytes(value: Value | None) -> bytes | None:
    return value if isinstance(value, bytes) else None


def plan_frontends(
    applied: Elements,
    targets: Mapping[bytes, Target | None],
    kept: Callable[[NamespacedName], bool] = keep_nothing,
) -> Plan:
    """The plan for these frontends only; None: the frontend goes.

    `applied` is what the table holds, and is not changed. Costs as much as these frontends have endpoints.
    """
    switch, sweep = Transaction(), Transaction()
    changes: list[FrontendChange] = []
    services = applied["services"]
    for key, target in targets.items():
        verdict = services.get(key)
        before = slots_of(applied, key)
        if target is None:
            after: tuple[bytes, ...] = ()
            wanted_verdict = None
        else:
            wanted = target.endpoints
            if kept(owner_of(target.comment)):
                wanted += tuple(sorted({e for e in before if e is not None} - set(wanted)))
            after = fill_slots(before, wanted)
            wanted_verdict = target_verdict(len(after), target.sticky, target.comment)
        switch.change("services", key, verdict, wanted_verdict)
        name, prefix = endpoints_map(frontend_protocol(key)), slot_prefix(key)
        for slot in range(max(len(before), len(after))):
            old = before[slot] if slot < len(before) else applied[name].get(slot_key(prefix, slot))
            if slot >= len(after):
                sweep.change(name, slot_key(prefix, slot), old, None)
            else:
                switch.change(name, slot_key(prefix, slot), old, after[slot])
        known = tuple(e for e in before if e is not None)
        if verdict != wanted_verdict or known != after:
            comment = target.comment if target else (verdict.comment if isinstance(verdict, Verdict) else "")
            changes.append(
                FrontendChange(
                    key,
                    comment,
                    known if verdict is not None else None,
                    after if target is not None else None,
                )
            )
    return Plan(switch, sweep, tuple(changes))


def plan(applied: Elements, desired: Desired, kept: Callable[[NamespacedName], bool] = keep_nothing) -> Plan:
    """The plan that makes a table that holds `applied` hold `desired`.

    Of a service for which `kept` says so (part of its input could not be read), nothing that is
    programmed is removed: neither a frontend nor an endpoint.
    """
    targets: dict[bytes, Target | None] = dict(desired.targets)
    remaining: set[bytes] = set(desired.targets)
    for key, verdict in applied["services"].items():
        if key not in targets:
            if isinstance(verdict, Verdict) and kept(owner_of(verdict.comment)):
                remaining.add(key)
            else:
                targets[key] = None
    result = plan_frontends(applied, targets, kept)
    for name, members in desired.elements.items():
        _change_set(result.switch, applied, name, members, remaining, len(remaining) > len(desired.targets))
    _sweep_strays(result, applied, remaining)
    return result


def _change_set(
    switch: Transaction,
    applied: Elements,
    name: str,
    members: Mapping[bytes, Value],
    remaining: set[bytes],
    some_are_kept: bool,
) -> None:
    """Elements of sets and maps other than `services` and `endpoints-*`: those of kept frontends stay."""
    held = applied[name]
    for key, value in members.items():
        switch.change(name, key, held.get(key), value)
    addresses = {frontend_address(key) for key in remaining} if some_are_kept else set()
    for key, value in held.items():
        if key in members:
            continue
        if some_are_kept and (name == "hairpin" or key in remaining or key in addresses):
            continue
        switch.change(name, key, value, None)


def _sweep_strays(result: Plan, applied: Elements, remaining: set[bytes]) -> None:
    """Slots that no frontend makes use of, before or after: a sync was interrupted, or someone added them."""
    used: dict[str, set[bytes]] = {}
    for protocol in Protocol:
        name = endpoints_map(protocol)
        used[name] = set(result.switch.remove[name]) | set(result.sweep.remove[name])
    for key in remaining:
        verdict = result.switch.add["services"].get(key, applied["services"].get(key))
        prefix, members = slot_prefix(key), used[endpoints_map(frontend_protocol(key))]
        count = verdict_count(verdict) if isinstance(verdict, Verdict) else 0
        members.update(slot_key(prefix, slot) for slot in range(count))
    for name, members in used.items():
        for key in applied[name].keys() - members:
            result.sweep.change(name, key, applied[name][key], None)


def place(desired: Desired) -> Elements:
    """All elements of a table that has no past: endpoints sit in their slots in order."""
    empty: Elements = {"services": {}, **{endpoints_map(protocol): {} for protocol in Protocol}}
    empty.update({name: {} for name in desired.elements})
    plan(empty, desired).switch.apply_to(empty)
    return empty


def stale_affinity(
    entries: Iterable[tuple[bytes, bytes]], protocol: Protocol, applied: Elements
) -> list[bytes]:
    """Keys of affinity entries whose frontend has no affinity, or not that endpoint.

    `entries` are (client . address . port, endpoint), as a dump of `affinity-PROTOCOL` gives them.
    """
    known: dict[bytes, frozenset[bytes | None]] = {}
    stale = []
    for key, endpoint in entries:
        width = (len(key) - 4) // 2
        frontend = key[width:]
        if frontend not in known:
            service = frontend[:-4] + bytes([protocol.number, 0, 0, 0]) + frontend[-4:]
            verdict = applied["services"].get(service)
            sticky = isinstance(verdict, Verdict) and is_sticky(verdict)
            known[frontend] = frozenset(slots_of(applied, service)) if sticky else frozenset()
        if endpoint not in known[frontend]:
            stale.append(key)
    return stale
