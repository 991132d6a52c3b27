"""The desired content of the tables does not depend on the order of changes that led to it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netns_lab.netns import in_fresh_namespace

from kproxy import model
from kproxy.kernel.netlink.socket import Netlink
from kproxy.nft.elements import Elements
from kproxy.reconcile.core.report import Report
from kproxy.reconcile.dataplane import Dataplane
from kproxy.resolve.claims import Claims, FrontendClaim
from kproxy.table.compile import SETS, Desired, compile_frontends, deltas, merged, whole
from kproxy.table.layout import EndpointScope, endpoints_map
from kproxy.table.plan import initial_elements, plan_change
from kproxy.table.skeleton import Options

SERVICES = [model.NamespacedName("default", letter) for letter in "abcd"]
ENDPOINTS = [(bytes([10, 0, 0, n]), 80) for n in range(1, 4)]

Change: TypeAlias = dict[model.NamespacedName, FrontendClaim | None]
"""What each Service claims from now on; None if it is deleted."""


@st.composite
def frontends(draw: st.DrawFn, service: model.NamespacedName) -> model.Frontend:
    """Few addresses are used, so that Services conflict."""
    kind = draw(st.sampled_from([model.FrontendKind.EXTERNAL_IP, model.FrontendKind.CLUSTER_IP]))
    own = SERVICES.index(service)
    address = (
        bytes([10, 96, 0, own])
        if kind is model.FrontendKind.CLUSTER_IP
        else bytes([192, 0, 2, draw(st.integers(1, 2))])
    )
    endpoints = tuple(draw(st.lists(st.sampled_from(ENDPOINTS), unique=True)))
    external = kind is model.FrontendKind.EXTERNAL_IP
    outside = draw(st.sampled_from([None, model.Backends(endpoints[:1], True)])) if external else None
    timeout = draw(st.sampled_from([None, 60]))
    return model.Frontend(
        owner=model.ServicePortName(service, ""),
        kind=kind,
        address=address,
        protocol=draw(st.sampled_from([model.Protocol.TCP, model.Protocol.UDP])),
        port=draw(st.integers(80, 81)),
        backends=model.Backends(endpoints),
        from_outside=outside,
        balance=model.Balance.STICKY if timeout else model.Balance.RANDOM,
        affinity_timeout=timeout,
        source_ranges=draw(st.sampled_from([None, (ip_network("10.0.0.0/8"),)])) if external else None,
    )


@st.composite
def changes(draw: st.DrawFn) -> Change:
    names = draw(st.lists(st.sampled_from(SERVICES), unique=True, min_size=1))
    created = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
    wanted: Change = {}
    for name in names:
        found = {(f.address, f.protocol, f.port): f for f in draw(st.lists(frontends(name), max_size=3))}
        claim = FrontendClaim(model.Origin("in.yaml", draw(created)), tuple(found.values()))
        wanted[name] = claim if draw(st.booleans()) or found else None
    return wanted


def empty() -> Elements:
    names = [*SETS, *(scope.verdicts for scope in EndpointScope), *map(endpoints_map, model.Protocol)]
    return {name: {} for name in names}


def full_content(claims: Claims) -> Desired:
    return compile_frontends(claims.all_frontends(), model.Family.IPV4)


def without_slots(elements: Elements) -> Elements:
    """Leave out the slots: their order depends on earlier changes."""
    slots = [endpoints_map(protocol) for protocol in model.Protocol]
    return {name: members for name, members in elements.items() if name not in slots}


@given(st.lists(changes(), max_size=6), st.booleans())
def test_changes_add_up_to_the_full_content(history: list[Change], alone: bool) -> None:
    """They are applied together, or for one Service after the other in reverse order."""
    claims, held = Claims(), empty()
    for wanted in history:
        parts = list(deltas(claims.change(wanted), model.Family.IPV4).values())
        for delta in reversed(parts) if alone else [merged(parts)]:
            todo = plan_change(held, delta.specs, delta.elements)
            todo.switch.apply_to(held)
            todo.sweep.apply_to(held)
    desired = full_content(claims)
    assert without_slots(held) == without_slots(initial_elements(*desired))
    for protocol in model.Protocol:
        name = endpoints_map(protocol)
        assert len(held[name]) == len(initial_elements(*desired)[name])


@given(st.lists(changes(), max_size=6))
def test_the_history_of_claims_does_not_matter(
    history: list[Change],
) -> None:
    grown, fresh = Claims(), Claims()
    final: Change = {}
    for wanted in history:
        grown.change(wanted)
        final |= wanted
    fresh.change({name: final[name] for name in sorted(final, reverse=True)})
    assert full_content(grown) == full_content(fresh)
    assert grown.problems() == fresh.problems()


@given(st.lists(changes(), max_size=4))
def test_the_parts_of_all_services_are_the_full_content(
    history: list[Change],
) -> None:
    claims = Claims()
    for wanted in history:
        claims.change(wanted)
    parts = merged(whole(claims.frontends(name), model.Family.IPV4) for name in claims.names())
    desired = full_content(claims)
    elements = {name: parts.elements.get(name, {}) for name in SETS}
    assert Desired(parts.specs, elements) == desired  # type: ignore[arg-type]


@pytest.mark.lab
@settings(max_examples=20, deadline=None)
@given(st.lists(changes(), min_size=1, max_size=5))
def test_the_kernel_accepts_every_change(
    history: list[Change],
) -> None:
    """Afterwards the copy equals the table, and a full comparison finds no difference."""

    def follow() -> tuple[bool, Report]:
        with Netlink() as netlink:
            claims, dataplane = Claims(), Dataplane(netlink, model.Family.IPV4, Options())
            dataplane.reconcile(full_content(claims))
            for wanted in history:
                dataplane.change(merged(deltas(claims.change(wanted), model.Family.IPV4).values()))
            copy = {name: dict(members) for name, members in dataplane.applied.items()}
            dataplane.read()
            return copy == dataplane.applied, dataplane.reconcile(full_content(claims))

    same, report = in_fresh_namespace(follow)
    assert same
    assert not report
