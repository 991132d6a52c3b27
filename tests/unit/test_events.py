"""Events of Services: what makes one, how long it stays, and how much of them is kept."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kproxy.limits import (
    EVENT_BYTES,
    EVENT_CHANGES,
    EVENT_MESSAGE,
    EVENT_SECONDS,
    EVENTS,
    EVENTS_OF_SERVICE,
)
from kproxy.model import Event, Family, NamespacedName, Protocol, parse_address
from kproxy.observe.core.events import EventLog, Happening, Marks, changed_endpoints
from kproxy.reconcile.core.report import Report, RoundReport
from kproxy.table.layout import EndpointScope, FrontendSide, PackedSocket, frontend_key, pack_socket
from kproxy.table.plan import FrontendChange
from tests.unit.make import name

WEB, SHOP = name("web"), name("shop")
Endpoints = Iterable[int] | None


def sockets(numbers: Endpoints) -> tuple[PackedSocket, ...] | None:
    return None if numbers is None else tuple(pack_socket(bytes([10, 0, 0, n]), 8080) for n in numbers)


def change(
    before: Endpoints, after: Endpoints, comment: str = "default/web:", at: str = "10.96.0.1"
) -> FrontendChange:
    side = FrontendSide(EndpointScope.ALL, frontend_key(parse_address(at), Protocol.TCP, 80))
    return FrontendChange(side, comment, sockets(before), sockets(after))


def happened(*changes: FrontendChange, names: Iterable[NamespacedName] = (WEB,)) -> list[Happening]:
    report = Report(Family.IPV4, changes, 0, 0, ())
    return list(changed_endpoints(RoundReport((report,), names=set(names))))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([change(None, [1, 2])], [("Programmed", "1 frontend added, with 2 endpoints")]),
        ([change([1], None)], [("Programmed", "1 frontend removed")]),
        (
            [change([1, 2], [2, 3]), change([1, 2], [2, 3], at="192.0.2.1")],
            [("EndpointsChanged", "added 10.0.0.3:8080; removed 10.0.0.1:8080: 2 endpoints left")],
        ),
        ([change([1], [])], [("NoEndpoints", "removed 10.0.0.1:8080: no endpoint left")]),
        (
            [change([], range(1, 6))],
            [
                (
                    "EndpointsChanged",
                    "added 10.0.0.1:8080, 10.0.0.2:8080, 10.0.0.3:8080 and 2 more: 5 endpoints left",
                )
            ],
        ),
        ([change([1, 1, 2], [1, 2, 2])], []),
    ],
)
def test_changes_of_frontends(changes: list[FrontendChange], expected: list[tuple[str, str]]) -> None:
    assert [(each.reason, each.message) for each in happened(*changes)] == expected
    assert all(each.is_warning is (each.reason == "NoEndpoints") for each in happened(*changes))


def test_what_another_program_changed_is_a_repair() -> None:
    (found,) = happened(change(None, [1]), names=())
    assert (found.reason, found.is_warning) == ("Repaired", True)


def test_a_service_whose_name_is_longer_than_a_comment() -> None:
    first, second = name(f"{'n' * 63}/{'s' * 63}"), name(f"{'n' * 63}/{'s' * 62}")
    found = happened(change(None, [1], f"{first}:http"[:127]), names=(first, second))
    assert [each.service for each in found] == [first]


def test_a_large_round_makes_a_limited_number_of_events() -> None:
    many = [change(None, [1], f"default/s{n}:") for n in range(EVENT_CHANGES + 10)]
    assert len(happened(*many, names=())) == EVENT_CHANGES


def test_marks_make_an_event_when_they_begin_and_when_they_end() -> None:
    marks = Marks()
    begun = list(marks.change(frozenset({WEB}), {SHOP: "x.yaml cannot be read"}))
    assert [(each.service, each.reason, each.is_warning) for each in begun] == [
        (WEB, "Quarantined", True),
        (SHOP, "Held", True),
    ]
    assert list(marks.change(frozenset({WEB}), {SHOP: "still"})) == []
    assert [each.reason for each in marks.change(frozenset(), {})] == ["Accepted", "Released"]


def test_an_event_that_happens_again_is_counted_and_is_the_last_one() -> None:
    log = EventLog()
    log.record(WEB, "A", "x", 1.0)
    log.record(WEB, "B", "x", 2.0, warning=False)
    log.record(WEB, "A", "x", 5.0)
    log.record(SHOP, "A", "x", 6.0)
    assert log.events(7.0) == {
        WEB: (Event("B", "x", 1, 2.0, 2.0, is_warning=False), Event("A", "x", 2, 1.0, 5.0)),
        SHOP: (Event("A", "x", 1, 6.0, 6.0),),
    }


def test_old_events_are_forgotten() -> None:
    log = EventLog()
    log.record(WEB, "A", "x", 0.0)
    log.record(WEB, "B", "x", 1.0)
    assert [event.reason for event in log.events(EVENT_SECONDS)[WEB]] == ["B"]
    assert log.events(EVENT_SECONDS + 1) == {}


def test_events_have_limits() -> None:
    log = EventLog()
    for number in range(EVENTS_OF_SERVICE + 3):
        log.record(WEB, "A", f"{number}", number)
    log.record(WEB, "A", "y" * (EVENT_MESSAGE + 9), 99.0)
    own = log.events(99.0)[WEB]
    assert (len(own), own[0].message, len(own[-1].message)) == (EVENTS_OF_SERVICE, "4", EVENT_MESSAGE)
    for number in range(EVENTS + 9):
        log.record(name(f"s{number}"), "A", "x", 100.0)
    assert list(log.events(100.0)) == [name(f"s{number}") for number in range(9, EVENTS + 9)]
    for number in range(EVENTS):
        log.record(name(f"s{number}"), "A", "\u20ac" * EVENT_MESSAGE, 101.0)
    texts = [event.message for events in log.events(101.0).values() for event in events]
    assert (
        sum(len(text.encode()) for text in texts) <= EVENT_BYTES < sum(len(t.encode()) for t in texts) * 1.01
    )
