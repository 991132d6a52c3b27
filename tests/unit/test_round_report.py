"""The text of a round's report, as rows: a line for each change, and the summary."""

from __future__ import annotations

import pytest

from kproxy.model import AddressChange, Family, Protocol, parse_address
from kproxy.reconcile.core.report import Report, RoundReport, Totals, describe, lines, summary
from kproxy.table.layout import EndpointScope, FrontendSide, PackedSocket, frontend_key, pack_socket
from kproxy.table.plan import FrontendChange

KEY = frontend_key(parse_address("10.96.0.9"), Protocol.TCP, 80)
NOTHING = Report(Family.IPV4, (), 0, 0, ())


def change(
    before: str | None, after: str | None, scope: EndpointScope = EndpointScope.ALL, comment: str = "a/web"
) -> FrontendChange:
    """Return a change of one frontend. Each letter is an endpoint."""

    def sockets(letters: str | None) -> tuple[PackedSocket, ...] | None:
        return None if letters is None else tuple(pack_socket(b"\n\0\0" + x.encode(), 80) for x in letters)

    return FrontendChange(FrontendSide(scope, KEY), comment, sockets(before), sockets(after))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (change(None, "ab"), "+ a/web 10.96.0.9:80/tcp -> 2 endpoints"),
        (change(None, ""), "+ a/web 10.96.0.9:80/tcp -> no endpoints"),
        (change("a", None), "- a/web 10.96.0.9:80/tcp"),
        (change("a", None, comment=""), "- unknown 10.96.0.9:80/tcp"),
        (change("a", "b"), "~ a/web 10.96.0.9:80/tcp -> 1 endpoint (-10.0.0.97:80 +10.0.0.98:80)"),
        (change("ab", "aab"), "~ a/web 10.96.0.9:80/tcp -> 2 endpoints (other weights)"),
        (change("ab", "ab"), "~ a/web 10.96.0.9:80/tcp -> 2 endpoints"),
        (change("a", "a", EndpointScope.LOCAL), "~ a/web 10.96.0.9:80/tcp (from outside) -> 1 endpoint"),
    ],
)
def test_a_changed_frontend_is_a_line(made: FrontendChange, text: str) -> None:
    assert describe(made) == text


def test_what_was_rewritten_comes_first_and_a_limit_counts_the_rest() -> None:
    report = Report(
        Family.IPV4, (change(None, "a"), change("a", None)), 1, 2, ("services",), repaired=("a", "b")
    )
    done = RoundReport(
        (report,), address_changes=(AddressChange(parse_address("192.0.2.9"), "eth0", added=True),)
    )
    assert list(lines(done, 1)) == [
        "! rewritten: ip kproxy services",
        "! rewritten: ip kproxy a",
        "+ a/web 10.96.0.9:80/tcp -> 1 endpoint",
        "... and 1 more (-v shows them)",
        "+ address 192.0.2.9 on eth0",
    ]
    assert len(list(lines(done, None))) == 6


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (RoundReport((NOTHING,)), "0 services, 0 frontends: nothing to change"),
        (
            RoundReport((), totals=Totals(1, 2, held=1, quarantined=1)),
            "1 service, 2 frontends, 1 held, 1 quarantined: nothing to change",
        ),
        (
            RoundReport((Report(Family.IPV4, (), 1, 1, (), ended=1, handshakes=2),)),
            "0 services, 0 frontends: ip: 1 element added, 1 removed, 1 UDP flow ended, "
            "2 unanswered TCP connections ended",
        ),
        (
            RoundReport(
                (Report(Family.IPV6, (), 0, 2, ()),),
                address_changes=(
                    AddressChange(parse_address("192.0.2.9"), "eth0", added=True),
                    AddressChange(parse_address("10.96.0.10"), "lo", added=False),
                    AddressChange(parse_address("fd00::10"), "lo", added=False),
                ),
            ),
            "0 services, 0 frontends: ip6: 2 elements added, 0 removed; eth0: 1 address added, 0 removed; "
            "lo: 0 addresses added, 2 removed",
        ),
    ],
)
def test_the_summary_has_totals_and_numbers(done: RoundReport, text: str) -> None:
    assert summary(done) == text
