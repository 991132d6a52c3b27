"""What is behind the sentences of an answer: for each step its rule, and the elements that it looks up."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from kproxy.explain.answer import Answer
from kproxy.explain.rules import Handles, OwnRule, OwnRules
from kproxy.explain.steps import Step
from kproxy.nft.render import render_element
from kproxy.nft.ruleset import SetDeclaration
from kproxy.table.simulator import Simulator


class Behind(NamedTuple):
    """What is behind a step."""

    rule: OwnRule | None
    """None if no single rule is."""
    elements: tuple[str, ...]
    """As nft writes them."""


def behind(answer: Answer, handles: Handles | None = None) -> list[Behind]:
    """Return what is behind each step. `handles` are those of the kernel's table; None if it was not read."""
    rules = OwnRules(answer.table, (step.chain for step in answer.steps), handles)
    return [
        Behind(rules.find(step.chain, *step.rule), tuple(_elements(step, answer.table, rules)))
        for step in answer.steps
    ]


def _elements(step: Step, table: Simulator, rules: OwnRules) -> Iterator[str]:
    if not step.set:
        return
    declaration = rules.skeleton.set(step.set)
    members = table.elements.get(step.set, {})
    for key in step.keys:
        if declaration.constant is not None:
            yield from _networks(declaration, key)
        elif key in members:
            yield render_element(declaration, table.family, key, members[key])


def _networks(declaration: SetDeclaration, address: bytes) -> Iterator[str]:
    """Return the networks of a constant set that contain an address."""
    networks = (each for each in declaration.constant or () if not isinstance(each, bytes))
    yield from (str(each) for each in networks if ip_address(address) in each)
