"""The benchmark of DNS asks for names that the servers know."""

from __future__ import annotations

from collections import Counter

import dns.message

from bench.dns.__main__ import Figures, manifests, questions, table
from kproxy.dns.core.respond import respond
from kproxy.dns.core.zone import Zone
from tests.unit.make import decoded, inventory_of


def test_questions_are_answered_and_one_in_seven_does_not_exist() -> None:
    zone = Zone("cluster.local")
    for name, service in inventory_of(decoded(manifests(300))).services.items():
        zone.update(name, service)
    assert len(zone.answers) > 900
    codes = Counter[int]()
    for question in list(questions(300))[:2000]:
        owner, kind = question.split()
        reply = respond(zone, dns.message.make_query(owner, kind).to_wire())
        assert isinstance(reply, bytes)
        codes[reply[3] & 15] += 1
    assert set(codes) == {0, 3}
    assert 200 < codes[3] < 400


def test_the_table_has_a_line_for_each_server() -> None:
    printed = table([Figures("kproxy", 10_000, 72790.4, 84, 0)])
    assert printed.splitlines()[-1] == "| kproxy | 10,000 | 72,790 | 84 MiB | 0 |"
