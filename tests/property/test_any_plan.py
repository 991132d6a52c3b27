"""A plan changes any table into any other, and at every moment each verdict leads to existing slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from ipaddress import ip_network
from itertools import product, starmap, zip_longest
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.core.structure import whole_table
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Backends, Balance, Family, Frontend, FrontendKind, NamespacedName, Protocol
from kproxy.model import ServicePortName as PortName
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.transaction import Transaction
from kproxy.reconcile.dataplane import transaction_messages
from kproxy.table import layout
from kproxy.table.compile import Desired, compile_frontends
from kproxy.table.layout import (
    FrontendKey,
    SetName,
    affinity_key,
    affinity_map,
    endpoints_map,
    frontend_address,
    frontend_key,
    frontend_protocol,
    frontend_socket,
    pack_socket,
)
from kproxy.table.plan import initial_elements, is_sticky, owner_of, plan, plan_frontends, stale_affinity
from kproxy.table.skeleton import NumberedChains, Options, skeleton
from tests.fake_table import FakeTable
from tests.keys import slot
from tests.unit.make import everything

MOST = 6
REFUSING = 2
"""The number of empty slots of frontends with balance SHARES."""
COUNTS = range(1, 16 + 1)  # a protected service has its programmed endpoints and the new ones
CHAINS = NumberedChains(
    frozenset(starmap(layout.SlotChain, product(layout.EndpointScope, Balance, COUNTS))),
    frozenset({60, 10800}),
)
OWNERS = [NamespacedName("default", name) for name in ("a", "b", "c")]
RANGE = ip_network("192.0.2.0/24")
CLIENTS = {SetName.REFUSED_SOURCES, SetName.REFUSED_PORTS, *map(affinity_map, Protocol)}
SLOTS = {endpoints_map(protocol) for protocol in Protocol}
OF_FRONTENDS = (SetName.AFFINITY_RULES, SetName.MASQUERADE_RULES, SetName.SOURCE_RESTRICTED)
FrontendId: TypeAlias = tuple[int, Protocol, int]
Spec: TypeAlias = tuple[list[int], list[int] | None, bool, Balance, int, bool]
"""Endpoints, endpoints in scope LOCAL, whether other nodes have endpoints, balance, timeout, restricted."""


def address(number: int) -> bytes:
    return bytes([10, 0, 0, number])


def table() -> FakeTable:
    return FakeTable(skeleton(Family.IPV4, Options(), CHAINS))


def backends(endpoints: list[int], elsewhere: bool, balance: Balance) -> Backends:
    refusing = REFUSING if balance is Balance.SHARES else 0
    return Backends(tuple((address(100 + number), 8080) for number in endpoints), elsewhere, refusing)


def frontend(at: FrontendId, spec: Spec) -> Frontend:
    """Frontends of one address have one owner; the last address is a load balancer's."""
    where, protocol, port = at
    endpoints, outside, elsewhere, balance, timeout, restricted = spec
    is_vip = where == 3
    return Frontend(
        owner=PortName(OWNERS[where % len(OWNERS)], ""),
        kind=FrontendKind.LOAD_BALANCER if is_vip else FrontendKind.CLUSTER_IP,
        address=address(where),
        protocol=protocol,
        port=port,
        backends=backends(endpoints, elsewhere, balance),
        from_outside=backends(outside, elsewhere, balance) if outside is not None else None,
        balance=balance,
        affinity_timeout=timeout if balance is Balance.STICKY else None,
        source_ranges=(RANGE,) if is_vip and restricted else None,
    )


ids = st.tuples(st.integers(0, 3), st.sampled_from(Protocol), st.sampled_from([80, 443]))
endpoint_lists = st.lists(st.integers(0, MOST), max_size=MOST)  # of seven, so that some occur twice
specs = st.tuples(
    *(endpoint_lists, st.none() | endpoint_lists, st.booleans(), st.sampled_from(Balance)),
    *(st.sampled_from([60, 10800]), st.booleans()),
)
states = st.dictionaries(ids, specs, max_size=5).map(
    lambda members: compile_frontends([frontend(*member) for member in members.items()], Family.IPV4)
)


def holding(desired: Desired) -> FakeTable:
    fake = table()
    fake.commit(everything(initial_elements(*desired)))
    return fake


def sides(elements: Elements) -> Iterator[layout.FrontendSide]:
    """Return the frontend sides that have a verdict."""
    for scope in layout.EndpointScope:
        for key, value in elements[scope.verdicts].items():
            if isinstance(value, Verdict):
                yield layout.FrontendSide(scope, FrontendKey(key))


def verdict(elements: Elements, side: layout.FrontendSide) -> Verdict:
    value = elements[side.scope.verdicts][side.key]
    assert isinstance(value, Verdict)
    return value


def slots_of(elements: Elements, side: layout.FrontendSide) -> tuple[bytes | None, ...]:
    """Return the slots that the verdict of a side leads to, without the last ones that may be empty."""
    slots = layout.slot_endpoints(elements, side, frontend_protocol(side.key))
    chain = layout.slot_chain_of(elements[side.scope.verdicts].get(side.key))
    while len(slots) > always_filled(chain) and slots[-1] is None:
        slots = slots[:-1]
    return slots


def always_filled(chain: layout.SlotChain | None) -> int:
    """Return the number of slots that a chain expects to contain endpoints."""
    if chain is None:
        return 0
    return chain.slots - REFUSING if chain.balance is Balance.SHARES else chain.tries[-1]


def is_right(spec: layout.FrontendSpec, slots: tuple[bytes | None, ...]) -> bool:
    """Whether the slots contain the endpoints of `spec`: in this order for a hash, otherwise in any order."""
    return slots == spec.endpoints if spec.ordered else Counter(slots) == Counter(spec.endpoints)


def holds(elements: Elements, desired: Desired) -> bool:
    """Whether `elements` are exactly those of `desired`, with the endpoints in slots 0..n-1."""
    expected: Elements = {endpoints_map(protocol): {} for protocol in Protocol}
    expected.update({scope.verdicts: {} for scope in layout.EndpointScope})
    for side, spec in desired.specs.items():
        slots = slots_of(elements, side)
        if not is_right(spec, slots):
            return False
        members = expected[endpoints_map(frontend_protocol(side.key))]
        members.update((slot(side, n), value) for n, value in enumerate(slots) if value)
        expected[side.scope.verdicts][side.key] = spec.verdict(side.scope, len(spec.endpoints))
    held = {name: members for name, members in elements.items() if name not in CLIENTS}
    expected.update(desired.elements)
    return held == expected


def leads_somewhere(verdicts: Elements, slots: Elements) -> bool:
    """Whether a packet that follows a verdict of `verdicts` finds an endpoint in `slots`.

    A random choice finds one at the latest in the last try.
    """
    mixed = dict(slots)
    mixed.update({scope.verdicts: verdicts[scope.verdicts] for scope in layout.EndpointScope})
    return not any(None in slots_of(mixed, side) for side in sides(verdicts))


def leads_only_to(elements: Elements, desired: Desired) -> bool:
    """Whether no verdict leads to another endpoint than those that are desired."""
    return all(
        set(slots_of(elements, side)) - {None} <= set(spec.endpoints) for side, spec in desired.specs.items()
    )


def copy(elements: Elements) -> Elements:
    return {name: dict(members) for name, members in elements.items()}


@given(st.lists(states, min_size=2, max_size=4))
def test_a_plan_changes_any_state_into_any_other(history: list[Desired]) -> None:
    fake = holding(history[0])
    for wanted in history[1:]:
        todo = plan(fake.elements, *wanted)
        before = copy(fake.elements)
        fake.commit(todo.switch)
        assert leads_somewhere(before, fake.elements), "the old verdict, the new elements"
        assert leads_somewhere(fake.elements, fake.elements)
        assert leads_only_to(fake.elements, wanted)
        switched = copy(fake.elements)
        fake.commit(todo.sweep)
        assert leads_somewhere(switched, fake.elements), "the new verdict, after the sweep"
        assert holds(fake.elements, wanted)
        assert not todo.sweep.add


@given(states)
def test_the_plan_of_an_unchanged_state_is_empty(state: Desired) -> None:
    todo = plan(holding(state).elements, *state)
    assert (bool(todo), todo.changes) == (False, ())


@given(states, states)
def test_the_input_of_a_plan_is_not_changed(a: Desired, b: Desired) -> None:
    elements = holding(a).elements
    before = copy(elements)
    plan(elements, *b, lambda owner: owner == OWNERS[0])
    assert elements == before


@given(states, states, states)
def test_a_round_completes_an_interrupted_one(a: Desired, b: Desired, c: Desired) -> None:
    fake = holding(a)
    fake.commit(plan(fake.elements, *b).switch)  # killed here
    for transaction in plan(fake.elements, *c)[:2]:
        fake.commit(transaction)
    assert holds(fake.elements, c)


@st.composite
def damaged(draw: st.DrawFn) -> Elements:
    """A table in which another program has removed, added and changed elements."""
    elements = holding(draw(states)).elements
    foreign: st.SearchStrategy[Value]
    keys: st.SearchStrategy[bytes]
    for name, members in elements.items():
        for key in draw(st.lists(st.sampled_from(sorted(members)), unique=True)) if members else ():
            del members[key]
        if name in [scope.verdicts for scope in layout.EndpointScope]:
            texts = ("goto lb-3", "jump sticky-2", "drop", "goto outside-lb-2", "goto hash-client-4")
            foreign = st.builds(Verdict, st.sampled_from(texts), st.sampled_from(["", "x"]))
            keys = st.builds(lambda at: frontend_key(address(at[0]), at[1], at[2]), ids)
        elif name in SLOTS:
            foreign = st.just(pack_socket(address(200), 1))
            keys = st.builds(
                lambda scope, at, number: slot(
                    layout.FrontendSide(scope, frontend_key(address(at[0]), at[1], at[2])), number
                ),
                *(st.sampled_from(layout.EndpointScope), ids, st.integers(0, MOST + 2)),
            )
        else:
            continue
        members.update(draw(st.dictionaries(keys, foreign, max_size=3)))
    return elements


@given(damaged(), states)
def test_a_plan_repairs_any_damage(elements: Elements, wanted: Desired) -> None:
    fake = table()
    fake.elements = elements
    for transaction in plan(elements, *wanted)[:2]:
        fake.commit(transaction)
    assert holds(fake.elements, wanted)


def element_changes(transaction: Transaction, names: Collection[str], keys: Collection[bytes]) -> int:
    return sum(
        key in keys for part in (transaction.remove, transaction.add) for name in names for key in part[name]
    )


@given(states, states)
def test_the_size_of_a_plan_depends_on_the_changed_endpoints(a: Desired, b: Desired) -> None:
    elements = initial_elements(*a)
    todo = plan(elements, *b)
    for side in a.specs.keys() & b.specs.keys():
        before, spec = a.specs[side], b.specs[side]
        old, new = Counter(before.endpoints), Counter(spec.endpoints)
        removed, added = (old - new).total(), (new - old).total()
        slots = {slot(side, number) for number in range(MOST)}
        cost = sum(
            element_changes(part, {endpoints_map(frontend_protocol(side.key))}, slots)
            for part in (todo.switch, todo.sweep)
        )
        if spec.ordered:
            pairs = list(zip_longest(slots_of(elements, side), spec.endpoints))
            assert cost == sum((x is not None) + (y is not None) for x, y in pairs if x != y)
        else:
            assert cost <= 3 * removed + added
        same = verdict(elements, side) == spec.verdict(side.scope, new.total())
        assert element_changes(todo.switch, {side.scope.verdicts}, {side.key}) == (0 if same else 2)


@given(states, states)
def test_the_plan_of_changed_frontends_equals_the_full_plan(a: Desired, b: Desired) -> None:
    """`plan_frontends` with the differences returns the same plan as `plan` with everything."""
    elements = initial_elements(*a)
    touched = {
        side: b.specs.get(side)
        for side in a.specs.keys() | b.specs.keys()
        if a.specs.get(side) != b.specs.get(side)
    }
    some, whole = plan_frontends(elements, touched), plan(elements, *b)
    by_side = {change.side: change for change in some.changes}
    assert by_side == {change.side: change for change in whole.changes}
    assert len(by_side) == len(some.changes) == len(whole.changes)
    for part in ("switch", "sweep"):
        for name in (*(scope.verdicts for scope in layout.EndpointScope), *map(endpoints_map, Protocol)):
            assert getattr(some, part).add[name] == getattr(whole, part).add[name]
            assert getattr(some, part).remove[name] == getattr(whole, part).remove[name]


def commit_protecting_the_first(elements: Elements, wanted: Desired) -> Elements:
    """Return the elements after a plan that protects the first owner."""
    fake = table()
    fake.elements = elements
    for transaction in plan(elements, *wanted, lambda owner: owner == OWNERS[0])[:2]:
        fake.commit(transaction)
    return fake.elements


def protected_sides(elements: Elements) -> set[layout.FrontendSide]:
    return {p for p in sides(elements) if owner_of(verdict(elements, p).comment) == OWNERS[0]}


@given(states, states)
def test_a_protected_service_loses_neither_frontend_nor_endpoint(a: Desired, b: Desired) -> None:
    before, after = initial_elements(*a), commit_protecting_the_first(holding(a).elements, b)
    assert leads_somewhere(after, after)
    keys = {side.key for side in b.specs}
    for side in protected_sides(before):
        spec = b.specs.get(side)
        assert set(slots_of(before, side)) <= set(slots_of(after, side))
        if spec is not None and spec.ordered:  # additional endpoints would move every client
            assert slots_of(after, side) == (slots_of(before, side) or spec.endpoints)
        if side.key not in keys:  # the input does not contain it: all its elements stay
            for name in OF_FRONTENDS:
                assert after[name].get(side.key) == before[name].get(side.key)
            ranges = [
                {key for key in elements[SetName.SOURCE_RANGES] if key.startswith(side.key)}
                for elements in (before, after)
            ]
            assert ranges[0] == ranges[1]
        at = frontend_address(side.key)
        assert (at in before[SetName.CLUSTER_IPS]) <= (at in after[SetName.CLUSTER_IPS])


@given(states, states)
def test_a_protected_service_does_not_affect_others(a: Desired, b: Desired) -> None:
    after = commit_protecting_the_first(holding(a).elements, b)
    protected = protected_sides(initial_elements(*a))
    for side in set(sides(after)) - protected:
        if owner_of(verdict(after, side).comment) != OWNERS[0]:
            assert is_right(b.specs[side], slots_of(after, side))
    assert b.specs.keys() <= set(sides(after)) <= b.specs.keys() | protected
    keys = {side.key for side in protected} | {side.key for side in b.specs}
    for name in OF_FRONTENDS:
        assert after[name].keys() <= keys
        if not protected:
            assert after[name] == b.elements[name]


@given(states, st.lists(st.tuples(ids, st.integers(0, MOST + 1), st.integers(1, 9)), max_size=8), st.data())
def test_affinity_is_stale_without_its_endpoint_or_frontend(
    state: Desired, remembered: list[tuple[FrontendId, int, int]], data: st.DataObject
) -> None:
    elements = initial_elements(*state)
    keys = sorted({side.key for side in state.specs})
    newly_local = set(data.draw(st.lists(st.sampled_from(keys)))) if keys else set()
    for protocol in Protocol:
        entries, stale = [], []
        for (where, _, port), endpoint, client in remembered:
            key, value = (
                frontend_key(address(where), protocol, port),
                pack_socket(address(100 + endpoint), 8080),
            )
            entries.append((affinity_key(address(client), frontend_socket(key)), value))
            scopes = [layout.EndpointScope.LOCAL] if key in newly_local else list(layout.EndpointScope)
            specs = [state.specs.get(layout.FrontendSide(scope, key)) for scope in scopes]
            if not any(t and t.balance is Balance.STICKY and value in t.endpoints for t in specs):
                stale.append(entries[-1][0])
        assert stale_affinity(entries, protocol, elements, newly_local) == stale


@given(states)
def test_initial_elements_have_the_endpoints_in_order(state: Desired) -> None:
    elements = initial_elements(*state)
    assert holds({**table().elements, **elements}, state)
    for side, spec in state.specs.items():
        if spec.ordered:
            assert slots_of(elements, side) == spec.endpoints
        else:
            assert sorted(e for e in slots_of(elements, side) if e) == sorted(spec.endpoints)
        sticky = spec.balance is Balance.STICKY and bool(spec.endpoints)
        assert is_sticky(verdict(elements, side)) == sticky


def listed(netlink: Netlink, name: str) -> dict[bytes, Value]:
    is_range = name == SetName.SOURCE_RANGES
    return dict(read_element(element, is_range) for element in netlink.elements(Family.IPV4, name))


@pytest.mark.lab
@settings(max_examples=4, deadline=None)
@given(st.lists(states, min_size=8, max_size=8))
def test_the_kernel_accepts_every_plan(history: list[Desired]) -> None:
    def follow() -> list[Elements]:
        held, seen = holding(history[0]).elements, []
        with Netlink() as netlink:
            netlink.commit(whole_table(skeleton(Family.IPV4, Options(), CHAINS)))
            if initial := transaction_messages(Family.IPV4, everything(held)):
                netlink.commit(initial)
            for wanted in history[1:]:
                for transaction in plan(held, *wanted)[:2]:
                    if transaction:
                        netlink.commit(transaction_messages(Family.IPV4, transaction))
                held = {name: listed(netlink, name) for name in held}
                seen.append(held)
        return seen

    for elements, wanted in zip(in_fresh_namespace(follow), history[1:], strict=True):
        assert holds(elements, wanted)
