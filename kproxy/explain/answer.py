"""The answer to a question: what happens to the packet, step by step, in words.

The facts come from the simulator. Each step names its chain and, where it depends on one, the set or map that
the chain looks up and the key. So a view can show the rule and the element behind each sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kproxy.explain.endpoints import EndpointUse, endpoint_uses
from kproxy.explain.question import Question
from kproxy.model import (
    Balance,
    Frontend,
    FrontendKind,
    Protocol,
    format_address,
    format_socket,
)
from kproxy.nft.elements import Verdict
from kproxy.problems import enumeration
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import duration
from kproxy.table.keys import FrontendKey, frontend_key, socket_address, socket_port
from kproxy.table.layout import EndpointScope
from kproxy.table.names import ChainName, SetName, remember_timeout
from kproxy.table.simulator import (
    Affinity,
    Choice,
    Fate,
    Masquerade,
    Packet,
    PacketOutcome,
    Reason,
    Sender,
    Simulator,
)


class Step(NamedTuple):
    """One step of the packet through the chains."""

    chain: str
    sentence: str
    set: str = ""
    """The set or map that the step depends on, "" if none."""
    key: bytes = b""
    """The key that is looked up in it."""


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


def answer(
    table: Simulator, question: Question, snapshot: Snapshot, affinity: Affinity | None = None
) -> Answer:
    """Return the answer of a table. Names, and endpoints that it does not use, come from the snapshot."""
    packet = question.packet
    outcome = table.first_packet(packet, affinity)
    frontend = _frontend(snapshot, packet)
    uses = _uses(snapshot, frontend, outcome)
    steps = _Steps(table, question, outcome, frontend)
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
    service = snapshot.inventory.services.get(frontend.owner.service)
    outside = outcome.side.scope is EndpointScope.LOCAL and frontend.from_outside is not None
    side = frontend.from_outside if outside else frontend.backends
    if service is None or side is None:
        return []
    slices = snapshot.inventory.slices.get(service.name, ())
    return endpoint_uses(service, frontend, side, slices, snapshot.node)


def _routes(outcome: PacketOutcome, uses: list[EndpointUse]) -> Iterator[Route]:
    known = {(use.address, use.port): use for use in uses}
    for choice in outcome.choices:
        use = known.get((socket_address(choice.endpoint), socket_port(choice.endpoint)))
        yield Route(choice, use.pod if use else "", use.node if use else "")


_BECAUSE = {
    Reason.SOURCE_RANGES: "loadBalancerSourceRanges do not contain the client",
    Reason.NO_LOCAL_ENDPOINTS: "the traffic policy is Local, and no endpoint is on this node",
    Reason.CLUSTER_IP_PORT: "the ClusterIP does not have this port",
    Reason.CLUSTER_IP_PING: "a ClusterIP does not answer ping",
    Reason.LOAD_BALANCER_PORT: "the load-balancer address does not have this port",
    Reason.UNASSIGNED: "no Service has this address of the service range",
    Reason.EMPTY_SLOTS: "the frontend leads to slots without endpoints",
    Reason.NOT_A_SERVICE: "no Service has this address and port on this node",
}


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
    return _BECAUSE[outcome.reason]


def _reply(outcome: PacketOutcome, packet: Packet) -> str:
    if outcome.fate is not Fate.TRANSLATED:
        return ""
    if not packet.interface or all(choice.masqueraded for choice in outcome.choices):
        return "The endpoint replies to this node, which translates the reply for the client."
    mixed = any(choice.masqueraded for choice in outcome.choices)
    which = "Where the source stays, the endpoint" if mixed else "The endpoint"
    return f"{which} replies to the client's own address. That reply must come back through this node."


class _Steps(NamedTuple):
    """Makes the sentences about the steps of one packet."""

    table: Simulator
    question: Question
    outcome: PacketOutcome
    frontend: Frontend | None

    def all(self) -> Iterator[Step]:
        """Return the steps in order."""
        yield self._arrival()
        yield from self._source_check()
        if self.outcome.side is None:
            yield from self._no_frontend()
            return
        yield self._lookup()
        yield from self._verdict()
        if self.outcome.fate is Fate.TRANSLATED:
            yield from self._affinity()
            yield from self._masquerade()

    @property
    def _key(self) -> FrontendKey:
        packet = self.question.packet
        assert packet.protocol is not None
        return frontend_key(packet.destination, packet.protocol, packet.port)

    def _arrival(self) -> Step:
        packet = self.question.packet
        if not packet.interface:
            return Step(ChainName.OUTPUT, "this node itself sends the packet")
        match self.table.sender(packet):
            case Sender.NODE:
                sentence = "the source is an address of this node"
            case Sender.POD if self.table.options.pod_interface:
                sentence = f"the sender is a pod: it uses interface {self.table.options.pod_interface}"
            case Sender.POD:
                sentence = "the sender is a pod (--cluster-cidr)"
            case Sender.OUTSIDE if not self.table.options.not_a_pod(self.table.family):
                sentence = "the sender is not this node; pods cannot be recognized without --cluster-cidr"
            case Sender.OUTSIDE:
                sentence = "the sender is neither a pod nor this node"
        return Step(ChainName.PREROUTING, sentence)

    def _source_check(self) -> Iterator[Step]:
        packet = self.question.packet
        if packet.protocol is None or not self.table.restricted(self._key):
            return
        allowed = self.outcome.reason is not Reason.SOURCE_RANGES
        ranges = self.frontend.source_ranges if self.frontend else ()
        verb = "contain" if allowed else "do not contain"
        texts = f" ({enumeration([str(each) for each in ranges or ()])})" if ranges else ""
        sentence = f"loadBalancerSourceRanges{texts} {verb} {format_address(packet.source)}"
        yield Step(ChainName.CHECK_SOURCE, sentence, SetName.SOURCE_RESTRICTED, self._key)

    def _no_frontend(self) -> Iterator[Step]:
        address = self.question.packet.destination
        about = {
            Reason.CLUSTER_IP_PORT: ("is a ClusterIP, but not with this port", SetName.CLUSTER_IPS),
            Reason.CLUSTER_IP_PING: ("is a ClusterIP, which does not answer ping", SetName.CLUSTER_IPS),
            Reason.LOAD_BALANCER_PORT: (
                "is of the pool, but not with this port",
                SetName.LOAD_BALANCER_IPS,
            ),
            Reason.UNASSIGNED: ("is in the service range, but no Service has it", SetName.SERVICE_CIDRS),
            Reason.NOT_A_SERVICE: ("with this port belongs to no Service", ""),
        }
        if self.outcome.reason in about:
            sentence, name = about[self.outcome.reason]
            yield Step(ChainName.SERVICES, f"{format_address(address)} {sentence}", name, address)

    def _lookup(self) -> Step:
        assert self.outcome.side is not None
        scope = self.outcome.side.scope
        chain = ChainName.PREROUTING if scope is EndpointScope.LOCAL else ChainName.SERVICES
        owner = self.frontend.owner if self.frontend else self._comment()
        sentence = f"the destination is {_kind(self.frontend)}of Service {owner}"
        if scope is EndpointScope.LOCAL:
            sentence += "; clients from outside get only its endpoints on this node (policy Local)"
        return Step(chain, sentence, scope.verdicts, self._key)

    def _comment(self) -> str:
        assert self.outcome.side is not None
        verdict = self.table.elements[self.outcome.side.scope.verdicts].get(self._key)
        return verdict.comment if isinstance(verdict, Verdict) else ""

    def _verdict(self) -> Iterator[Step]:
        match self.outcome.reason:
            case Reason.NO_ENDPOINTS:
                yield Step(ChainName.NO_ENDPOINTS, "the frontend has no endpoint: the packet is refused")
            case Reason.NO_LOCAL_ENDPOINTS:
                yield Step(ChainName.DISCARD, "all endpoints are on other nodes: the packet is dropped")
            case Reason.EMPTY_SLOTS | None if self.outcome.slot_chain:
                yield Step(self.outcome.slot_chain.chain, self._choice())
            case _:
                return

    def _choice(self) -> str:
        slot_chain = self.outcome.slot_chain
        assert slot_chain is not None
        if self.outcome.remembered:
            return "the client has an affinity entry, which leads to its endpoint"
        if self.outcome.hashed is not None:
            data = "address and port" if slot_chain.balance is Balance.CLIENT_PORT else "address"
            return f"a hash of the client's {data} selects slot {self.outcome.hashed} of {slot_chain.slots}"
        count = len(self.outcome.choices)
        chosen = "its only endpoint" if count == 1 else f"one of {count} endpoints, at random"
        return f"the destination becomes {chosen}"

    def _affinity(self) -> Iterator[Step]:
        rule = self.table.elements[SetName.AFFINITY_RULES].get(self._key)
        seconds = remember_timeout(rule.chain) if isinstance(rule, Verdict) else None
        if isinstance(rule, Verdict) and seconds is not None:
            sentence = (
                f"the client keeps its endpoint until {duration(seconds)} after its last new connection"
            )
            yield Step(rule.chain, sentence, SetName.AFFINITY_RULES, self._key)

    def _masquerade(self) -> Iterator[Step]:
        routes = self.outcome.choices
        for why in dict.fromkeys(choice.masquerade for choice in routes):
            some = [choice for choice in routes if choice.masquerade is why]
            which = "" if len(some) == len(routes) else f" (at {_named(some)})"
            yield self._masquerade_step(why, which)

    def _masquerade_step(self, why: Masquerade | None, which: str) -> Step:
        match why:
            case None:
                return Step(ChainName.TRANSLATED, f"the source stays{which}")
            case Masquerade.HAIRPIN:
                sentence = f"the source becomes this node's address{which}: the endpoint is the sender itself"
                return Step(ChainName.TRANSLATED, sentence, SetName.HAIRPIN)
            case Masquerade.CLUSTER_IP:
                cause = "--masquerade-all" if self.table.options.masquerade_all else "the sender is not a pod"
                sentence = f"the source becomes this node's address{which}: {cause}"
                return Step(ChainName.TRANSLATED, sentence, SetName.CLUSTER_IPS)
            case Masquerade.EXTERNAL:
                sentence = f"the source becomes this node's address{which}, so that the reply comes back here"
                return Step(ChainName.MASQ_ALWAYS, sentence, SetName.MASQUERADE_RULES, self._key)
            case Masquerade.FROM_NODE:
                sentence = f"the source becomes this node's address{which}: this node is the sender"
                return Step(ChainName.MASQ_NODE, sentence, SetName.MASQUERADE_RULES, self._key)


def _named(choices: list[Choice]) -> str:
    return enumeration([format_socket(socket_address(c.endpoint), socket_port(c.endpoint)) for c in choices])


_KINDS = {
    FrontendKind.CLUSTER_IP: "the ClusterIP ",
    FrontendKind.NODE_PORT: "a node port ",
    FrontendKind.EXTERNAL_IP: "an external IP ",
    FrontendKind.LOAD_BALANCER: "a load-balancer address ",
}


def _kind(frontend: Frontend | None) -> str:
    return _KINDS[frontend.kind] if frontend else "a frontend "
