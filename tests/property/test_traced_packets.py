"""The kernel's trace of random packets shows the rules that `explain` names, and ends as it says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.explain.answer import Answer
from kproxy.explain.behind import behind
from kproxy.explain.rules import Handles
from kproxy.explain.tracing import verdict
from kproxy.kernel.live_table import rule_handles
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.tracer import traced
from kproxy.nft.tracing import Flow, Trace
from kproxy.table.layout import TABLE
from kproxy.table.simulator import Fate, Packet
from tests.property.random_node import RandomNode
from tests.property.tunnels import Tunnels

RUNS, PACKETS = 20, 25
FIRST_SEED = 1000
STARTS = {
    Fate.TRANSLATED: "Translated to ",
    Fate.REFUSED: "Refused: ",
    Fate.DROPPED: f"Dropped: table {TABLE}, chain ",
    Fate.UNTOUCHED: "Not translated: ",
}
"""How the sentence of a trace begins."""


def trace(tunnels: Tunnels, packet: Packet) -> Trace:
    """Send a packet, and return its trace."""
    with Netlink() as netlink, traced(netlink, Flow(*packet[:4])) as tracer:
        tunnels.send(packet)
        return Trace(tuple(tracer.first_packet(30.0)))


def disagreements(found: Answer, seen: Trace, handles: Handles) -> Iterator[str]:
    """Return what is in an answer, and not in the trace of the packet."""
    summary = verdict(seen, Flow(*found.question.packet[:4]), {})
    if not summary.startswith(STARTS[found.outcome.fate]):
        yield summary
    endpoint = summary.removeprefix(STARTS[Fate.TRANSLATED]).partition(". ")[0]
    if found.outcome.fate is Fate.TRANSLATED and endpoint not in map(str, found.routes):
        yield f"{endpoint} is not an endpoint"
    if found.outcome.fate is Fate.DROPPED and not summary.endswith(f"chain {found.steps[-1].chain}."):
        yield f"{summary} instead of {found.steps[-1].chain}"
    hits = {(hit.chain, hit.handle) for hit in seen.hits if hit.table == TABLE}
    drawn = {chain for chain, _ in hits if "draw-" in chain}  # with half of the slots after empty slots
    for step, details in zip(found.steps, behind(found, handles), strict=True):
        others = "(at " in step.sentence and endpoint not in step.sentence
        others |= "draw-" in step.chain and any(drawn - {step.chain})
        if details.rule and not others and (step.chain, details.rule.handle) not in hits:
            yield f"no hit of {step.chain} {details.rule}"


def run(seed: int) -> tuple[list[str], int]:
    """Return the disagreements of traces and answers, and the number of hits."""
    node, wrong, hits = RandomNode(seed), [], 0
    for state in node.states(1):
        for number in range(PACKETS):
            packet = node.draw.packet(state.services, 20000 + number)
            found = state.explained.answer(packet, state.affinity(packet.protocol))
            with Netlink() as netlink:
                handles = rule_handles(netlink, node.draw.family)
            seen = trace(node.tunnels, packet)
            hits += len(seen.hits)
            wrong += [f"seed {seed}: {packet}: {each}" for each in disagreements(found, seen, handles)]
    return wrong, hits


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + RUNS))
def test_a_trace_shows_what_explain_says(seed: int) -> None:
    wrong, hits = in_fresh_namespace(partial(run, seed))
    assert wrong == []
    assert hits > PACKETS
