"""An answer as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kproxy.explain.answer import Answer, Route
from kproxy.explain.behind import Behind
from kproxy.explain.compared import differences
from kproxy.explain.endpoints import EndpointUse
from kproxy.explain.rules import Handles
from kproxy.explain.steps import Step
from kproxy.model import format_address, format_socket
from kproxy.show.tables import duration, table
from kproxy.table.layout import format_packed
from kproxy.table.simulator import Affinity, Packet

INDENT = "  "
SHOWN_ELEMENTS = 10
"""The number of elements of one step to print. JSON contains all."""


class Kernel(NamedTuple):
    """What the kernel's tables do, and the client's affinity entry in them."""

    answer: Answer
    behind: Sequence[Behind] | None
    handles: Handles
    affinity: Affinity
    """The entry; {} if there is none."""
    expires: int | None
    """Seconds until the entry expires."""

    @property
    def remembered(self) -> str | None:
        """The endpoint in the affinity entry; None without an entry."""
        return next(map(format_packed, self.affinity.values()), None)


def text(answer: Answer, behind: Sequence[Behind] | None = None, kernel: Kernel | None = None) -> str:
    """Return the answer in words. `behind` has what to show behind each step."""
    question = answer.question
    lines = [
        f"From {question.sender} to {question.target}{_socket(question.packet)}:",
        *_body(answer, behind),
        *(["", answer.reply] if answer.reply else []),
        *(["", *_kernel(answer, kernel)] if kernel else []),
    ]
    return "".join(f"{line}\n" for line in lines)


def _body(answer: Answer, behind: Sequence[Behind] | None) -> Iterator[str]:
    yield answer.summary
    yield from ("", *_steps(answer, behind))
    if answer.routes:
        yield from ("", "Endpoints:", *_block([_route(route) for route in answer.routes]))
    if answer.unused:
        yield from ("", "Not used:", *_block([_unused(use) for use in answer.unused]))


def _kernel(desired: Answer, kernel: Kernel) -> Iterator[str]:
    if kernel.remembered is not None:
        yield f"The client has an affinity entry: {kernel.remembered}{_for(kernel.expires)}."
    found = list(differences(desired, kernel.answer, kernel.handles))
    if not found:
        yield "The kernel's table does the same."
        return
    yield "The kernel's table differs:"
    yield from _block([("", "desired", "kernel"), *found])
    if kernel.answer.effect != desired.effect:
        yield from ("", "With the kernel's table:", *_body(kernel.answer, kernel.behind))


def _for(seconds: int | None) -> str:
    return "" if seconds is None else f", for {duration(seconds)}"


def _socket(packet: Packet) -> str:
    """Return for example ` (10.96.0.10:80/tcp)`."""
    if packet.protocol is None:
        where = format_address(packet.destination), "icmp"
    else:
        where = format_socket(packet.destination, packet.port), packet.protocol
    return f" ({'/'.join(where)})"


def _steps(answer: Answer, behind: Sequence[Behind] | None) -> Iterator[str]:
    width = max(len(step.chain) for step in answer.steps)
    for number, step in enumerate(answer.steps):
        yield f"{INDENT}{step.chain.ljust(width)}{INDENT}{step.sentence}"
        if behind:
            yield from (f"{INDENT}{' ' * width}{INDENT}{line}" for line in _details(behind[number]))


def _details(found: Behind) -> Iterator[str]:
    if found.rule:
        yield f"rule: {found.rule}"
    yield from (f"element: {element}" for element in found.elements[:SHOWN_ELEMENTS])
    if len(found.elements) > SHOWN_ELEMENTS:
        yield f"... and {len(found.elements) - SHOWN_ELEMENTS} more elements"


def _block(rows: list[tuple[str, ...]]) -> list[str]:
    return [INDENT + line for line in table(rows).splitlines()]


def _route(route: Route) -> tuple[str, ...]:
    share = f"{float(route.choice.probability):.1%}"
    return str(route), share, *_place(route.pod, route.node)


def _unused(use: EndpointUse) -> tuple[str, ...]:
    return format_socket(use.address, use.port), use.unused, *_place(use.pod, use.node)


def _place(pod: str, node: str) -> tuple[str, str]:
    return f"pod {pod}" if pod else "", f"node {node}" if node else ""


def as_json(answer: Answer, behind: Sequence[Behind] | None = None, kernel: Kernel | None = None) -> str:
    """Return the answer as a JSON object. docs/explain.md describes it."""
    in_kernel = _kernel_object(answer, kernel) if kernel else None
    return json.dumps(_object(answer, behind) | {"kernel": in_kernel}, indent=4) + "\n"


def _kernel_object(desired: Answer, kernel: Kernel) -> dict[str, Any]:
    outcome = kernel.answer.outcome
    found = [each._asdict() for each in differences(desired, kernel.answer, kernel.handles)]
    return {
        "same": not found,
        "differences": found,
        "fate": outcome.fate,
        "reason": outcome.reason,
        "endpoints": [_endpoint(route) for route in kernel.answer.routes],
        "affinity": kernel.remembered,
        "affinityExpiresSeconds": kernel.expires,
    }


def _object(answer: Answer, behind: Sequence[Behind] | None) -> dict[str, Any]:
    packet, outcome = answer.question.packet, answer.outcome
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
        "steps": [
            _step(step) | (_behind(behind[number]) if behind else {})
            for number, step in enumerate(answer.steps)
        ],
        "endpoints": [_endpoint(route) for route in answer.routes],
        "unused": [_left_out(use) for use in answer.unused],
        "reply": answer.reply,
    }


def _step(step: Step) -> dict[str, Any]:
    return {"chain": str(step.chain), "text": step.sentence}


def _behind(found: Behind) -> dict[str, Any]:
    return {
        "rule": found.rule.text if found.rule else None,
        "handle": found.rule.handle if found.rule else None,
        "elements": list(found.elements),
    }


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
