"""The benchmark of DNS asks for names that the servers know."""

from __future__ import annotations

from collections import Counter

import dns.message

from bench.dns.__main__ import Figures, manifests, questions, table, table_of_changes
from bench.dns.changes import in_memory
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


def test_each_replacement_in_memory_is_answered() -> None:
    found = in_memory(manifests(30), endpoints=250, count=5)
    assert (len(found.seconds), found.counts.asked, found.counts.wrong) == (5, 10, 0)
    (line,) = table_of_changes([found]).splitlines()[2:]
    assert line.startswith("| memory | 30 | 250 | ")


def test_the_table_has_a_line_for_each_server() -> None:
    printed = table([Figures("kproxy", 10_000, 72790.4, 84, 0)])
    assert printed.splitlines()[-1] == "| kproxy | 10,000 | 72,790 | 84 MiB | 0 |"
