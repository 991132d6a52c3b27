"""What the kernel's table does otherwise than desired with one packet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kproxy.explain.answer import Answer, Route
from kproxy.explain.rules import Handles, OwnRules


class Difference(NamedTuple):
    """One thing that differs."""

    what: str
    """`result`, `endpoint 10.0.0.1:80`, or `chain services`."""
    desired: str
    kernel: str


def differences(desired: Answer, kernel: Answer, handles: Handles) -> Iterator[Difference]:
    """Return what differs: the result, the endpoints, and the number of rules in the chains of the packet."""
    if (desired.outcome.fate, desired.outcome.reason) != (kernel.outcome.fate, kernel.outcome.reason):
        yield Difference("result", desired.summary, kernel.summary)
    yield from _endpoints(desired, kernel)
    rules = OwnRules(desired.table, (step.chain for step in desired.steps), handles)
    for chain, expected, found in rules.changed():
        yield Difference(f"chain {chain}", _rules(expected), _rules(found))


def _endpoints(desired: Answer, kernel: Answer) -> Iterator[Difference]:
    one, other = ({str(route): _route(route) for route in each.routes} for each in (desired, kernel))
    for endpoint in sorted({*one, *other}):
        texts = one.get(endpoint, "not used"), other.get(endpoint, "not used")
        if texts[0] != texts[1]:
            yield Difference(f"endpoint {endpoint}", *texts)


def _route(route: Route) -> str:
    source = "the source is replaced" if route.choice.masqueraded else "the source stays"
    return f"{float(route.choice.probability):.1%}, {source}"


def _rules(count: int) -> str:
    return "1 rule" if count == 1 else f"{count} rules"
