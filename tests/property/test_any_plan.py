"""A plan leads from any table to any other, with no moment in between that a packet could fall into."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kproxy.compile.elements import Desired, compile_frontends
from kproxy.compile.skeleton import Options, Shapes, is_sticky, skeleton, target_verdict, verdict_count
from kproxy.kernel.dataplane import transaction_messages
from kproxy.kernel.netlink import Netlink, read_element
from kproxy.kernel.structure import load_skeleton
from kproxy.model import Family, Frontend, FrontendKind, NamespacedName, Protocol, ServicePortName
from kproxy.nft.elements import (
    Elements,
    Value,
    Verdict,
    endpoint_value,
    frontend_key,
    frontend_protocol,
    slot_key,
    slot_prefix,
)
from kproxy.nft.fake import FakeTable
from kproxy.nft.plan import endpoints_map, owner_of, place, plan, plan_frontends, slots_of, stale_affinity
from kproxy.nft.transaction import Transaction, everything
from tests.unit.namespace import in_fresh_namespace

MOST = 6
COUNTS = frozenset(range(1, 2 * MOST + 1))  # kept endpoints stay beside new ones
SHAPES = Shapes(COUNTS, COUNTS, frozenset({60, 10800}))
OWNERS = [NamespacedName("default", name) for name in ("a", "b", "c")]
FrontendId: TypeAlias = tuple[int, Protocol, int]


def address(number: int) -> bytes:
    return bytes([10, 0, 0, number])


def table() -> FakeTable:
    return FakeTable(skeleton(Family.IPV4, Options(), SHAPES))


def frontend(at: FrontendId, endpoints: list[int], timeout: int | None) -> Frontend:
    """Frontends of one address have one owner; the last address is a node's."""
    where, protocol, port = at
    return Frontend(
        owner=ServicePortName(OWNERS[where % len(OWNERS)], ""),
        kind=FrontendKind.NODE_PORT if where == 3 else FrontendKind.CLUSTER_IP,
        address=address(where),
        protocol=protocol,
        port=port,
        endpoints=tuple((address(100 + number), 8080) for number in endpoints),
        local=tuple(address(100 + number) for number in endpoints if number % 2),
        affinity_timeout=timeout,
    )


ids = st.tuples(st.integers(0, 3), st.sampled_from(Protocol), st.sampled_from([80, 443]))
endpoint_lists = st.lists(st.integers(0, MOST), max_size=MOST)  # of seven, so that some occur twice
timeouts = st.sampled_from([None, 60, 10800])
states = st.dictionaries(ids, st.tuples(endpoint_lists, timeouts), max_size=5).map(
    lambda members: compile_frontends([frontend(at, *rest) for at, rest in members.items()], Family.IPV4)
)


def holding(desired: Desired) -> FakeTable:
    fake = table()
    fake.commit(everything(place(desired)))
    return fake


def without_clients(elements: Elements) -> Elements:
    return {name: members for name, members in elements.items() if not name.startswith("affinity-t")}


def services(elements: Elements) -> dict[bytes, Verdict]:
    return {key: value for key, value in elements["services"].items() if isinstance(value, Verdict)}


def holds(elements: Elements, desired: Desired) -> bool:
    """Whether these are the elements of `desired` and no others, each endpoint in one of the slots 0..n-1."""
    expected: Elements = {endpoints_map(protocol): {} for protocol in Protocol}
    for key, target in desired.targets.items():
        slots = slots_of(elements, key)
        if Counter(slots) != Counter(target.endpoints):
            return False
        members = expected[endpoints_map(target.protocol)]
        members.update((slot_key(slot_prefix(key), n), value) for n, value in enumerate(slots) if value)
    verdicts = {k: target_verdict(len(t.endpoints), t.sticky, t.comment) for k, t in desired.targets.items()}
    held = {
        name: members for name, members in elements.items() if name not in ("affinity-tcp", "affinity-udp")
    }
    return held == {"services": verdicts, **expected, **desired.elements}


def leads_somewhere(verdicts: Elements, slots: Elements) -> bool:
    """Whether a packet that took its verdict from one table finds every slot of it in another."""
    mixed = {**slots, "services": verdicts["services"]}
    return all(None not in slots_of(mixed, key) for key in services(verdicts))


def copy(elements: Elements) -> Elements:
    return {name: dict(members) for name, members in elements.items()}


@given(st.lists(states, min_size=2, max_size=4))
def test_a_plan_leads_from_any_state_to_any_other(history: list[Desired]) -> None:
    fake = holding(history[0])
    for wanted in history[1:]:
        todo = plan(fake.elements, wanted)
        before = copy(fake.elements)
        fake.commit(todo.switch)
        assert leads_somewhere(before, fake.elements), "the old verdict, the new elements"
        assert leads_somewhere(fake.elements, fake.elements)
        switched = copy(fake.elements)
        fake.commit(todo.sweep)
        assert leads_somewhere(switched, fake.elements), "the new verdict, after the sweep"
        assert holds(fake.elements, wanted)
        assert not todo.sweep.add


@given(states)
def test_what_is_right_is_left_alone(state: Desired) -> None:
    todo = plan(holding(state).elements, state)
    assert (bool(todo), todo.changes) == (False, ())


@given(states, states)
def test_the_input_of_a_plan_is_not_changed(a: Desired, b: Desired) -> None:
    elements = holding(a).elements
    before = copy(elements)
    plan(elements, b, lambda owner: owner == OWNERS[0])
    assert elements == before


@given(states, states, states)
def test_an_interrupted_sync_is_completed_by_the_next(a: Desired, b: Desired, c: Desired) -> None:
    fake = holding(a)
    fake.commit(plan(fake.elements, b).switch)  # killed here
    for transaction in plan(fake.elements, c)[:2]:
        fake.commit(transaction)
    assert holds(fake.elements, c)


@st.composite
def damaged(draw: st.DrawFn) -> Elements:
    """A table that somebody has been at: elements gone, added and changed."""
    elements = holding(draw(states)).elements
    spoils: st.SearchStrategy[Value]
    for name, members in elements.items():
        for key in draw(st.lists(st.sampled_from(sorted(members)), unique=True)) if members else ():
            del members[key]
        if name == "services":
            spoils = st.sampled_from([Verdict("goto lb-3"), Verdict("jump sticky-2", "x"), Verdict("drop")])
            keys = st.builds(lambda at: frontend_key(address(at[0]), at[1], at[2]), ids)
        elif name.startswith("endpoints-"):
            spoils = st.just(endpoint_value(address(200), 1))
            keys = st.builds(
                lambda at, slot: slot_key(slot_prefix(frontend_key(address(at[0]), at[1], at[2])), slot),
                *(ids, st.integers(0, MOST + 2)),
            )
        else:
            continue
        members.update(draw(st.dictionaries(keys, spoils, max_size=3)))
    return elements


@given(damaged(), states)
def test_a_plan_repairs_whatever_it_finds(elements: Elements, wanted: Desired) -> None:
    fake = table()
    fake.elements = elements
    for transaction in plan(elements, wanted)[:2]:
        fake.commit(transaction)
    assert holds(fake.elements, wanted)


def element_changes(transaction: Transaction, names: set[str], keys: set[bytes]) -> int:
    return sum(
        key in keys for part in (transaction.remove, transaction.add) for name in names for key in part[name]
    )


@given(states, states)
def test_a_change_costs_what_it_changes(a: Desired, b: Desired) -> None:
    elements = place(a)
    todo = plan(elements, b)
    for key in a.targets.keys() & b.targets.keys():
        old, new = Counter(a.targets[key].endpoints), Counter(b.targets[key].endpoints)
        gone, come = (old - new).total(), (new - old).total()
        slots = {slot_key(slot_prefix(key), slot) for slot in range(MOST)}
        cost = sum(
            element_changes(part, {endpoints_map(frontend_protocol(key))}, slots)
            for part in (todo.switch, todo.sweep)
        )
        assert cost <= 3 * gone + come
        same = elements["services"][key] == target_verdict(new.total(), *b.targets[key][2:])
        assert element_changes(todo.switch, {"services"}, {key}) == (0 if same else 2)


@given(states, states)
def test_an_event_costs_the_same_plan_as_everything(a: Desired, b: Desired) -> None:
    """plan_frontends, told only of what is different, does what plan does."""
    elements = place(a)
    touched = {
        key: b.targets.get(key)
        for key in a.targets.keys() | b.targets.keys()
        if a.targets.get(key) != b.targets.get(key)
    }
    some, whole = plan_frontends(elements, touched), plan(elements, b)
    assert sorted(some.changes, key=lambda change: change.key) == sorted(
        whole.changes, key=lambda change: change.key
    )
    for part in ("switch", "sweep"):
        for name in ("services", *map(endpoints_map, Protocol)):
            assert getattr(some, part).add[name] == getattr(whole, part).add[name]
            assert getattr(some, part).remove[name] == getattr(whole, part).remove[name]


def keep(elements: Elements, wanted: Desired) -> Elements:
    """What the table holds after a plan for which the first owner's input is in doubt."""
    fake = table()
    fake.elements = elements
    for transaction in plan(elements, wanted, lambda owner: owner == OWNERS[0])[:2]:
        fake.commit(transaction)
    return fake.elements


def kept_keys(elements: Elements) -> set[bytes]:
    return {key for key, value in services(elements).items() if owner_of(value.comment) == OWNERS[0]}


@given(states, states)
def test_what_is_kept_loses_neither_frontend_nor_endpoint(a: Desired, b: Desired) -> None:
    before, after = place(a), keep(holding(a).elements, b)
    assert leads_somewhere(after, after)
    for key in kept_keys(before):
        assert set(slots_of(before, key)) <= set(slots_of(after, key))
        for name in ("affinity-rules", "masquerade-rules"):
            if key not in b.targets:  # it is not in the input at all: all of it stays
                assert after[name].get(key) == before[name].get(key)
        assert (key[:-8] in before["cluster-ips"]) <= (key[:-8] in after["cluster-ips"])


@given(states, states)
def test_the_rest_is_as_if_nothing_were_kept(a: Desired, b: Desired) -> None:
    after = keep(holding(a).elements, b)
    for key in services(after).keys() - kept_keys(place(a)):
        if owner_of(services(after)[key].comment) != OWNERS[0]:
            assert Counter(slots_of(after, key)) == Counter(b.targets[key].endpoints)
    assert b.targets.keys() <= services(after).keys() <= b.targets.keys() | kept_keys(place(a))


@given(states, st.lists(st.tuples(ids, st.integers(0, MOST + 1), st.integers(1, 9)), max_size=8))
def test_affinity_is_stale_where_its_endpoint_or_its_frontend_went(
    state: Desired, remembered: list[tuple[FrontendId, int, int]]
) -> None:
    elements = place(state)
    for protocol in (Protocol.TCP, Protocol.UDP):
        entries, stale = [], []
        for (where, _, port), endpoint, client in remembered:
            key, value = (
                frontend_key(address(where), protocol, port),
                endpoint_value(address(100 + endpoint), 8080),
            )
            entries.append((address(client) + slot_prefix(key), value))
            target = state.targets.get(key)
            if target is None or not target.sticky or value not in target.endpoints:
                stale.append(entries[-1][0])
        assert stale_affinity(entries, protocol, elements) == stale


@given(states)
def test_a_table_without_a_past_has_its_endpoints_in_order(state: Desired) -> None:
    elements = place(state)
    assert holds({**table().elements, **elements}, state)
    for key, target in state.targets.items():
        assert sorted(e for e in slots_of(elements, key) if e) == sorted(target.endpoints)
        assert verdict_count(services(elements)[key]) == len(target.endpoints)
        assert is_sticky(services(elements)[key]) == bool(target.sticky and target.endpoints)


@pytest.mark.lab
@settings(max_examples=4, deadline=None)
@given(st.lists(states, min_size=8, max_size=8))
def test_the_kernel_takes_every_plan(history: list[Desired]) -> None:
    def follow() -> list[Elements]:
        held, seen = holding(history[0]).elements, []
        with Netlink() as netlink:
            load_skeleton(netlink, skeleton(Family.IPV4, Options(), SHAPES))
            if initial := transaction_messages(Family.IPV4, everything(held)):
                netlink.commit(initial)
            for wanted in history[1:]:
                for transaction in plan(held, wanted)[:2]:
                    if transaction:
                        netlink.commit(transaction_messages(Family.IPV4, transaction))
                held = {name: dict(map(read_element, netlink.elements(Family.IPV4, name))) for name in held}
                seen.append(held)
        return seen

    for elements, wanted in zip(in_fresh_namespace(follow), history[1:], strict=True):
        assert holds(elements, wanted)
