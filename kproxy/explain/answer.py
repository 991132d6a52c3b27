"""The answer to a question: what happens to the packet, step by step, in words.

The facts come from the simulator. steps.py makes the sentences about the way through the chains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kproxy.explain.endpoints import EndpointUse, endpoint_uses
from kproxy.explain.question import Question
from kproxy.explain.steps import Step, Steps
from kproxy.model import (
    Frontend,
    Protocol,
    format_socket,
)
from kproxy.show.snapshot import Snapshot
from kproxy.table.layout import (
    EndpointScope,
    socket_address,
    socket_port,
)
from kproxy.table.simulator import (
    Affinity,
    Choice,
    Fate,
    Packet,
    PacketOutcome,
    Reason,
    Simulator,
)


class Route(NamedTuple):
    """An endpoint that the packet may go to."""

    choice: Choice
    pod: str
    """"" if unknown."""
    node: str
    """"" if unknown."""

    def __str__(self) -> str:
        return format_socket(socket_address(self.choice.endpoint), socket_port(self.choice.endpoint))


class Answer(NamedTuple):
    """What the table does with a connection, and why."""

    question: Question
    table: Simulator
    outcome: PacketOutcome
    frontend: Frontend | None
    """The frontend that the packet reaches, or None."""
    summary: str
    steps: tuple[Step, ...]
    routes: tuple[Route, ...]
    unused: tuple[EndpointUse, ...]
    """Endpoints of the frontend's port that it does not use."""
    reply: str
    """How the reply comes back; "" if the packet is not translated."""

    @property
    def effect(self) -> Effect:
        """What two tables have to agree on."""
        return Effect(self.outcome.fate, self.outcome.reason, self.outcome.choices)


class Effect(NamedTuple):
    """What a table does with the packet, without the way there."""

    fate: Fate
    reason: Reason | None
    choices: tuple[Choice, ...]


def answer(
    table: Simulator, question: Question, snapshot: Snapshot, affinity: Affinity | None = None
) -> Answer:
    """Return the answer of a table. Names, and endpoints that it does not use, come from the snapshot.

    `affinity` has the entries of the protocol; None if they are unknown.
    """
    packet = question.packet
    outcome = table.first_packet(packet, affinity)
    frontend = _frontend(snapshot, packet)
    uses = _uses(snapshot, frontend, outcome)
    steps = Steps(table, question, outcome, frontend, affinity is not None)
    return Answer(
        question,
        table,
        outcome,
        frontend,
        _summary(question, outcome, uses),
        tuple(steps.all()),
        tuple(_routes(outcome, uses)),
        tuple(use for use in uses if use.unused),
        _reply(outcome, packet),
    )


def _frontend(snapshot: Snapshot, packet: Packet) -> Frontend | None:
    at = packet.destination, packet.protocol, packet.port
    return next((f for f in snapshot.frontends if (f.address, f.protocol, f.port) == at), None)


def _uses(snapshot: Snapshot, frontend: Frontend | None, outcome: PacketOutcome) -> list[EndpointUse]:
    if frontend is None or outcome.side is None:
        return []
    service = snapshot.inventory.owners.get(frontend.owner.service)
    outside = outcome.side.scope is EndpointScope.LOCAL and frontend.from_outside is not None
    side = frontend.from_outside if outside else frontend.backends
    if service is None or side is None:
        return []
    slices = snapshot.inventory.owned_slices.get(service.name, ())
    return endpoint_uses(service, frontend, side, slices, snapshot.node)


def _routes(outcome: PacketOutcome, uses: list[EndpointUse]) -> Iterator[Route]:
    known = {(use.address, use.port): use for use in uses}
    for choice in outcome.choices:
        use = known.get((socket_address(choice.endpoint), socket_port(choice.endpoint)))
        yield Route(choice, use.pod if use else "", use.node if use else "")


BECAUSE = {
    Reason.SOURCE_RANGES: "loadBalancerSourceRanges do not contain the client",
    Reason.NO_LOCAL_ENDPOINTS: "the traffic policy is Local, and no endpoint is on this node",
    Reason.CLUSTER_IP_PORT: "the ClusterIP does not have this port",
    Reason.CLUSTER_IP_PING: "a ClusterIP does not answer ping",
    Reason.LOAD_BALANCER_PORT: "the load-balancer address does not have this port",
    Reason.UNASSIGNED: "no Service has this address of the service range",
    Reason.EMPTY_SLOTS: "the frontend leads to slots without endpoints",
    Reason.NOT_A_SERVICE: "no Service has this address and port on this node",
}
"""Why a packet is not translated, except for frontends without endpoints."""


def _summary(question: Question, outcome: PacketOutcome, uses: list[EndpointUse]) -> str:
    match outcome.fate:
        case Fate.TRANSLATED:
            count = len(outcome.choices)
            return f"translated to {'one endpoint' if count == 1 else f'one of {count} endpoints'}"
        case Fate.REFUSED:
            how = "TCP reset" if question.packet.protocol is Protocol.TCP else "ICMP port unreachable"
            return f"refused ({how}): {_because(outcome, uses)}"
        case Fate.DROPPED:
            return f"dropped: {_because(outcome, uses)}"
        case Fate.UNTOUCHED:
            return f"left as it is: {_because(outcome, uses)}"


def _because(outcome: PacketOutcome, uses: list[EndpointUse]) -> str:
    if outcome.reason is Reason.NO_ENDPOINTS or outcome.reason is None:
        return "no endpoint is ready" if uses else "the Service has no endpoint"
    return BECAUSE[outcome.reason]


def _reply(outcome: PacketOutcome, packet: Packet) -> str:
    if outcome.fate is not Fate.TRANSLATED:
        return ""
    if not packet.interface or all(choice.masqueraded for choice in outcome.choices):
        return "The endpoint replies to this node, which translates the reply for the client."
    mixed = any(choice.masqueraded for choice in outcome.choices)
    which = "Where the source stays, the endpoint" if mixed else "The endpoint"
    return f"{which} replies to the client's own address. That reply must come back through this node."
