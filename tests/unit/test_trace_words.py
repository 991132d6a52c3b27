"""What `kproxy trace` says of the rules that a packet matched."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import pytest

from kproxy.explain.rules import OwnRules
from kproxy.explain.tracing import trace_json, trace_text
from kproxy.model import Address, Family, Protocol
from kproxy.nft.tracing import Flow, Hit, Trace
from kproxy.table.simulator import Simulator
from kproxy.table.skeleton import Options

CLIENT, SERVICE, POD = (bytes([10, 0, 0, n]) for n in (1, 2, 3))
FLOW = Flow(CLIENT, SERVICE, Protocol.TCP, 80)
NAMES = {POD: "pod default/a"}
TABLE = Simulator(Family.IPV4, {}, Options(), frozenset())
RULES = OwnRules(TABLE, (), {"services": [5, 6, 7, 8], "output": [1]})
"""As the kernel lists them: `output` has another number of rules than expected."""
LOOKUP_TEXT = "ip daddr . meta l4proto . th dport vmap @services"


def hit(
    table: str,
    chain: str,
    verdict: str,
    handle: int | None = 5,
    to: tuple[Address, int] = (SERVICE, 80),
    interface: str = "",
) -> Hit:
    return Hit(table, chain, handle, verdict, (CLIENT, 4000), to, interface)


START = hit("kproxy-trace-1", "prerouting", "continue")
LOOKUP = hit("kproxy", "services", "goto lb-1")
LEFT = hit("kproxy", "postrouting", "accept", None, (POD, 8080), "eth0")
ROWS = [
    (Trace(()), "No packet of this connection came to this node."),
    (Trace((START, LOOKUP, LEFT), True), "Translated to 10.0.0.3:8080 (pod default/a). It left through eth0. A reply came."),
    (Trace((START, LOOKUP, LEFT), False), "It left through eth0. No reply came."),
    (Trace((START, LOOKUP, LEFT), None), "The connection was refused: a TCP reset came."),
    (Trace((START, hit("kproxy", "input", "accept", None)), True), "Not translated: the destination stays 10.0.0.2:80. It is for this node itself."),
    (Trace((START, LOOKUP, hit("kproxy", "no-endpoints", "drop"))), "Refused: the frontend has no endpoint."),
    (Trace((START, hit("kproxy", "unknown-port", "goto no-endpoints"), hit("kproxy", "no-endpoints", "drop"))), "Refused: the address does not have the port."),
    (Trace((START, hit("filter", "FORWARD", "drop", None))), "Dropped: table filter, chain FORWARD."),
]  # fmt: skip


@pytest.mark.parametrize(("trace", "expected"), ROWS)
def test_what_became_of_the_packet(trace: Trace, expected: str) -> None:
    assert expected in trace_text(trace, FLOW, RULES, NAMES)
    assert expected in trace_json(trace, FLOW, RULES, NAMES)["summary"]


def test_a_line_for_each_rule() -> None:
    unknown = hit("kproxy", "output", "goto services", 1)
    trace = Trace((START, LOOKUP, hit("filter", "OUTPUT", "accept", 9), unknown, LEFT), False)
    lines = trace_text(trace, FLOW, RULES, NAMES).splitlines()
    assert lines[0].split() == ["kproxy", "services", "goto", "lb-1", *LOOKUP_TEXT.split()]
    assert lines[1].split() == ["filter", "OUTPUT", "accept", "rule", "with", "handle", "9"]
    assert lines[2].split() == ["kproxy", "output", "goto", "services", "rule", "with", "handle", "1"]
    assert lines[3] == ""
    hits = trace_json(trace, FLOW, RULES, NAMES)["hits"]
    assert [each["destination"] for each in hits] == ["10.0.0.2:80"] * 3


def test_without_an_entry_of_conntrack_only_tcp_was_refused() -> None:
    text = trace_text(Trace((LOOKUP, LEFT)), FLOW._replace(protocol=Protocol.UDP), RULES, {})
    assert text.endswith(
        "Translated to 10.0.0.3:8080. It left through eth0. The kernel no longer tracks it.\n"
    )
