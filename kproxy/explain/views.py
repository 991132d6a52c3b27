"""An answer as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from kproxy.explain.answer import Answer, Route, Step
from kproxy.explain.endpoints import EndpointUse
from kproxy.model import Protocol, format_address, format_socket
from kproxy.nft.render import render_element
from kproxy.nft.ruleset import Skeleton
from kproxy.show.tables import duration, table
from kproxy.table.keys import PackedSocket, format_packed
from kproxy.table.names import endpoints_map
from kproxy.table.simulator import Packet
from kproxy.table.skeleton import numbered_chains, skeleton

INDENT = "  "


class Kernel(NamedTuple):
    """What the kernel's tables do, and the client's affinity entry in them."""

    answer: Answer
    same: bool
    """Whether they do what is desired."""
    remembered: PackedSocket | None
    """The endpoint in the affinity entry, None if there is no entry."""
    expires: int | None
    """Seconds until the entry expires."""


def text(answer: Answer, rules: bool, kernel: Kernel | None = None) -> str:
    """Return the answer in words; with `rules`, also the rule and the element behind each step."""
    question = answer.question
    lines = [
        f"From {question.sender} to {question.target}{_socket(question.packet)}:",
        *_body(answer, rules),
        *(["", answer.reply] if answer.reply else []),
        *(["", *_kernel(kernel)] if kernel else []),
    ]
    return "".join(f"{line}\n" for line in lines)


def _body(answer: Answer, rules: bool) -> Iterator[str]:
    yield answer.summary
    yield from ("", *_steps(answer, rules))
    if answer.routes:
        yield from ("", "Endpoints:", *_block([_route(route) for route in answer.routes]))
    if answer.unused:
        yield from ("", "Not used:", *_block([_unused(use) for use in answer.unused]))


def _kernel(kernel: Kernel) -> Iterator[str]:
    if kernel.remembered is not None:
        yield f"The client has an affinity entry: {format_packed(kernel.remembered)}{_for(kernel.expires)}."
    if kernel.same:
        yield "The kernel's table does the same."
        return
    yield "The kernel's table does something else:"
    yield from _body(kernel.answer, False)


def _for(seconds: int | None) -> str:
    return "" if seconds is None else f", for {duration(seconds)}"


def _socket(packet: Packet) -> str:
    """Return for example ` (10.96.0.10:80/tcp)`."""
    if packet.protocol is None:
        where = format_address(packet.destination), "icmp"
    else:
        where = format_socket(packet.destination, packet.port), packet.protocol
    return f" ({'/'.join(where)})"


def _steps(answer: Answer, rules: bool) -> Iterator[str]:
    found = _Rules(answer) if rules else None
    width = max(len(step.chain) for step in answer.steps)
    for step in answer.steps:
        yield f"{INDENT}{step.chain.ljust(width)}{INDENT}{step.sentence}"
        details = (("rule", found.rule(step)), ("element", found.element(step))) if found else ()
        yield from (f"{INDENT}{' ' * width}{INDENT}{name}: {it}" for name, it in details if it)


def _block(rows: list[tuple[str, ...]]) -> list[str]:
    return [INDENT + line for line in table(rows).splitlines()]


def _route(route: Route) -> tuple[str, ...]:
    share = f"{float(route.choice.probability):.1%}"
    return str(route), share, *_place(route.pod, route.node)


def _unused(use: EndpointUse) -> tuple[str, ...]:
    return format_socket(use.address, use.port), use.unused, *_place(use.pod, use.node)


def _place(pod: str, node: str) -> tuple[str, str]:
    return f"pod {pod}" if pod else "", f"node {node}" if node else ""


class _Rules:
    """Finds the rules and elements behind the steps of an answer."""

    def __init__(self, answer: Answer) -> None:
        self._table = answer.table
        self._protocol = answer.question.packet.protocol
        needed = numbered_chains(answer.table.elements)
        self._skeleton: Skeleton = skeleton(answer.table.family, answer.table.options, needed)

    def rule(self, step: Step) -> str:
        """Return the rule that a step depends on; "" if there is no single one."""
        chains = sorted(self._skeleton.chains, key=lambda chain: chain.name != step.chain)
        needles = self._needles(step)
        rules = (str(rule) for chain in chains if needles or chain.name == step.chain for rule in chain.rules)
        return next((rule for rule in rules if needles and all(needle in rule for needle in needles)), "")

    def _needles(self, step: Step) -> tuple[str, ...]:
        """Return the texts that the rule of a step contains; () if the step has no rule of its own."""
        protocol = self._protocol or Protocol.TCP
        if step.chain.startswith(("lb-", "outside-", "sticky-", "hash-")):
            return (f"@{endpoints_map(protocol)}",)
        return (f"@{step.set}",) if step.set else ()

    def element(self, step: Step) -> str:
        """Return the element that a step depends on, as nft writes it; "" if there is none."""
        members = self._table.elements.get(step.set, {})
        if step.key not in members:
            return ""
        declaration = self._skeleton.set(step.set)
        return render_element(declaration, self._table.family, step.key, members[step.key])


def as_json(answer: Answer, rules: bool, kernel: Kernel | None = None) -> str:
    """Return the answer as a JSON object. docs/explain.md describes it."""
    return json.dumps(_object(answer, rules) | {"kernel": _kernel_object(kernel)}, indent=4) + "\n"


def _kernel_object(kernel: Kernel | None) -> dict[str, Any] | None:
    if kernel is None:
        return None
    outcome = kernel.answer.outcome
    return {
        "same": kernel.same,
        "fate": outcome.fate,
        "reason": outcome.reason,
        "endpoints": [_endpoint(route) for route in kernel.answer.routes],
        "affinity": format_packed(kernel.remembered) if kernel.remembered else None,
        "affinityExpiresSeconds": kernel.expires,
    }


def _object(answer: Answer, rules: bool) -> dict[str, Any]:
    packet, outcome = answer.question.packet, answer.outcome
    found = _Rules(answer)
    return {
        "from": {"name": answer.question.sender, "address": format_address(packet.source)},
        "to": {
            "name": answer.question.target,
            "address": format_address(packet.destination),
            "port": packet.port,
            "protocol": packet.protocol or "icmp",
        },
        "service": str(answer.frontend.owner.service) if answer.frontend else None,
        "fate": outcome.fate,
        "reason": outcome.reason,
        "summary": answer.summary,
        "steps": [_step(step, found, rules) for step in answer.steps],
        "endpoints": [_endpoint(route) for route in answer.routes],
        "unused": [_left_out(use) for use in answer.unused],
        "reply": answer.reply,
    }


def _step(step: Step, found: _Rules, rules: bool) -> dict[str, str]:
    plain = {"chain": str(step.chain), "text": step.sentence}
    return plain | {"rule": found.rule(step), "element": found.element(step)} if rules else plain


def _endpoint(route: Route) -> dict[str, Any]:
    return {
        "endpoint": str(route),
        "probability": float(route.choice.probability),
        "masquerade": route.choice.masquerade,
        "pod": route.pod or None,
        "node": route.node or None,
    }


def _left_out(use: EndpointUse) -> dict[str, Any]:
    return {
        "endpoint": format_socket(use.address, use.port),
        "why": use.unused,
        "pod": use.pod or None,
        "node": use.node or None,
    }
