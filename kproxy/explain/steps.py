"""The way of one packet through the chains, as sentences.

Each step names its chain, what its rule contains, and the elements that the rule looks up. So a view can show
the rule and the elements behind each sentence (behind.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kproxy.explain.question import Question
from kproxy.explain.rules import Needle
from kproxy.model import (
    Balance,
    Frontend,
    FrontendKind,
    Protocol,
    format_address,
    format_socket,
    is_gateway,
    owner_text,
)
from kproxy.nft.elements import Verdict
from kproxy.nft.expressions import Meta
from kproxy.nft.rules import Conclusion, Match, Reject
from kproxy.problems import enumeration
from kproxy.show.tables import duration
from kproxy.table.layout import (
    ChainName,
    EndpointScope,
    FrontendKey,
    SetName,
    SlotChain,
    affinity_key,
    affinity_map,
    draw_chain,
    endpoints_map,
    frontend_key,
    frontend_socket,
    remember_timeout,
    slots,
    socket_address,
    socket_port,
)
from kproxy.table.simulator import (
    Choice,
    Fate,
    Masquerade,
    PacketOutcome,
    Reason,
    Sender,
    Simulator,
)
from kproxy.table.skeleton import DROP, MASQUERADE, REFUSE_PORT


class Step(NamedTuple):
    """One step of the packet through the chains."""

    chain: str
    sentence: str
    rule: tuple[Needle, ...] = ()
    """What the rule of the chain contains that decides the step; () if no single rule does."""
    set: str = ""
    """The set or map that the rule looks up, "" if none."""
    keys: tuple[bytes, ...] = ()
    """The keys of the elements that it finds, or may find."""


_NO_FRONTEND: dict[Reason | None, tuple[str, tuple[Needle, ...]]] = {
    Reason.CLUSTER_IP_PORT: ("is a ClusterIP, but not with this port", (SetName.CLUSTER_IPS, REFUSE_PORT)),
    Reason.CLUSTER_IP_PING: ("is a ClusterIP, which does not answer ping", (SetName.CLUSTER_IPS, DROP)),
    Reason.LOAD_BALANCER_PORT: ("is of the pool, but not with this port", (SetName.LOAD_BALANCER_IPS,)),
    Reason.UNASSIGNED: ("is in the service range, but no Service has it", (SetName.SERVICE_CIDRS,)),
    Reason.NOT_A_SERVICE: ("with this port belongs to no Service", ()),
}
"""Words about a destination that is no frontend, and its rule."""


class Steps(NamedTuple):
    """Makes the sentences about the steps of one packet."""

    table: Simulator
    question: Question
    outcome: PacketOutcome
    frontend: Frontend | None
    affinity_is_known: bool

    def all(self) -> Iterator[Step]:
        """Return the steps in order."""
        yield self._arrival()
        yield from self._source_check()
        if self.outcome.side is None:
            yield from self._no_frontend()
            return
        yield self._lookup()
        yield from self._empty()
        yield from self._selection()
        if self.outcome.fate is Fate.TRANSLATED:
            yield from self._affinity()
            yield from self._masquerade()

    @property
    def _key(self) -> FrontendKey:
        packet = self.question.packet
        assert packet.protocol is not None
        return frontend_key(packet.destination, packet.protocol, packet.port)

    def _arrival(self) -> Step:
        packet, options = self.question.packet, self.table.options
        if not packet.interface:
            return Step(ChainName.OUTPUT, "this node itself sends the packet")
        match self.table.sender(packet):
            case Sender.NODE:
                sentence = "the source is an address of this node"
            case Sender.POD if options.pod_interface:
                sentence = f"the sender is a pod: it uses interface {options.pod_interface}"
            case Sender.POD:
                ranges = options.cidrs(options.pod_cidrs, self.table.family)
                sentence = f"the sender is a pod: its address is in {enumeration(list(map(str, ranges)))}"
            case Sender.OUTSIDE if not options.not_a_pod(self.table.family):
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
        rule = SetName.SOURCE_RANGES if allowed else DROP
        keys = self.table.ranges_with(self._key, packet.source)
        yield Step(ChainName.CHECK_SOURCE, sentence, (rule,), SetName.SOURCE_RANGES, keys)

    def _no_frontend(self) -> Iterator[Step]:
        address = self.question.packet.destination
        if self.outcome.reason in _NO_FRONTEND:
            words, rule = _NO_FRONTEND[self.outcome.reason]
            name = next((needle for needle in rule if isinstance(needle, SetName)), "")
            yield Step(ChainName.SERVICES, f"{format_address(address)} {words}", rule, name, (address,))

    def _lookup(self) -> Step:
        assert self.outcome.side is not None
        scope = self.outcome.side.scope
        chain = ChainName.PREROUTING if scope is EndpointScope.LOCAL else ChainName.SERVICES
        sentence = f"the destination is {self._owner()}"
        if scope is EndpointScope.LOCAL:
            sentence += "; clients from outside get only its endpoints on this node (policy Local)"
        return Step(chain, sentence, (scope.verdicts,), scope.verdicts, (self._key,))

    def _owner(self) -> str:
        if self.frontend is None:
            return f"a frontend of Service {self._comment()}"
        service, port = self.frontend.owner
        if is_gateway(service):
            return f"listener {port} of {owner_text(service)}"
        return f"{_KINDS[self.frontend.kind]} of Service {self.frontend.owner}"

    def _comment(self) -> str:
        assert self.outcome.side is not None
        verdict = self.table.elements[self.outcome.side.scope.verdicts].get(self._key)
        return verdict.comment if isinstance(verdict, Verdict) else ""

    def _empty(self) -> Iterator[Step]:
        """Return the step of a packet that has no endpoint."""
        match self.outcome.reason:
            case Reason.NO_ENDPOINTS:
                is_tcp = self.question.packet.protocol is Protocol.TCP
                sentence = "the frontend has no endpoint: the packet is refused"
                yield Step(ChainName.NO_ENDPOINTS, sentence, (Reject(reset=is_tcp),))
            case Reason.NO_LOCAL_ENDPOINTS:
                sentence = "all endpoints are on other nodes: the packet is dropped"
                yield Step(ChainName.DISCARD, sentence, (DROP,))

    def _selection(self) -> Iterator[Step]:
        """Return the steps that choose an endpoint."""
        chosen = self.outcome.slot_chain
        if chosen is None:
            return
        if chosen.balance is Balance.STICKY and self.outcome.hashed is None:
            yield self._remembered(chosen)
            if self.outcome.remembered:
                return
            chosen = chosen._replace(balance=Balance.RANDOM)
        yield from self._choice(chosen)

    def _remembered(self, sticky: SlotChain) -> Step:
        packet = self.question.packet
        assert packet.protocol is not None
        entries = affinity_map(packet.protocol)
        if self.outcome.remembered:
            sentence = "the client has an affinity entry, which leads to its endpoint"
            keys = (affinity_key(packet.source, frontend_socket(self._key)),)
            return Step(sticky.chain, sentence, (entries,), entries, keys)
        known = "the client has no affinity entry"
        unknown = "an affinity entry would lead the client to its endpoint; this is the way without one"
        otherwise = Conclusion(f"goto {sticky._replace(balance=Balance.RANDOM).chain}")
        return Step(sticky.chain, known if self.affinity_is_known else unknown, (otherwise,))

    def _choice(self, chosen: SlotChain) -> Iterator[Step]:
        chain, hashed = chosen.chain, self.outcome.hashed
        if chosen.repeats and hashed is None:
            drawn = draw_chain(chosen.scope, chosen.slots)
            sentence = f"one of {chosen.slots} slots is drawn at random, again if it is empty"
            yield Step(chain, sentence, (Conclusion(f"jump {drawn}"),))
            chain = drawn if self.outcome.choices else chain
        if not self.outcome.choices:
            empty = "the slots of the frontend are" if hashed is None else f"slot {hashed} is"
            yield Step(chain, f"{empty} empty: the packet is dropped", (DROP,))
            return
        assert self.outcome.side is not None
        assert self.question.packet.protocol is not None
        endpoints = endpoints_map(self.question.packet.protocol)
        keys = slots(self.outcome.side, chosen.slots)
        keys = keys if hashed is None else keys[hashed : hashed + 1]
        yield Step(chain, self._chosen(chosen), (endpoints,), endpoints, tuple(keys))

    def _chosen(self, chosen: SlotChain) -> str:
        if self.outcome.hashed is not None:
            data = "address and port" if chosen.balance is Balance.CLIENT_PORT else "address"
            return f"a hash of the client's {data} selects slot {self.outcome.hashed} of {chosen.slots}"
        count = len(self.outcome.choices)
        only = "its only endpoint" if count == 1 else f"one of {count} endpoints, at random"
        refused = self.outcome.refused
        share = f"; {float(refused):.1%} of connections are refused, for backends without endpoints"
        return f"the destination becomes {only}{share if refused else ''}"

    def _affinity(self) -> Iterator[Step]:
        rule = self.table.elements[SetName.AFFINITY_RULES].get(self._key)
        seconds = remember_timeout(rule.chain) if isinstance(rule, Verdict) else None
        if isinstance(rule, Verdict) and seconds is not None:
            sentence = (
                f"the client keeps its endpoint until {duration(seconds)} after its last new connection"
            )
            protocol = self.question.packet.protocol
            assert protocol is not None
            yield Step(rule.chain, sentence, (affinity_map(protocol),), SetName.AFFINITY_RULES, (self._key,))

    def _masquerade(self) -> Iterator[Step]:
        routes = self.outcome.choices
        for why in dict.fromkeys(choice.masquerade for choice in routes):
            some = [choice for choice in routes if choice.masquerade is why]
            which = "" if len(some) == len(routes) else f" (at {_named(some)})"
            if why is None:
                yield Step(ChainName.TRANSLATED, f"the source stays{which}")
            else:
                yield self._masqueraded(why, which)

    def _masqueraded(self, why: Masquerade, which: str) -> Step:
        becomes = f"the source becomes this node's address{which}"
        packet, external = self.question.packet, (SetName.MASQUERADE_RULES, (self._key,))
        match why:
            case Masquerade.HAIRPIN:
                sentence = f"{becomes}: the endpoint is the sender itself"
                return Step(ChainName.TRANSLATED, sentence, (SetName.EQUAL_BYTES,))
            case Masquerade.BRIDGE:
                sentence = f"{becomes}: the endpoint would reply over bridge {packet.interface}"
                is_internal = packet.destination in self.table.elements[SetName.CLUSTER_IPS]
                chain = ChainName.TRANSLATED if is_internal else ChainName.MASQ_NODE
                leaving = Match(Meta.OUTPUT_INTERFACE, packet.interface)
                return Step(chain, sentence, (leaving,))
            case Masquerade.CLUSTER_IP:
                cause = "--masquerade-all" if self.table.options.masquerade_all else "the sender is not a pod"
                rule, at = (SetName.CLUSTER_IPS, MASQUERADE), (packet.destination,)
                return Step(ChainName.TRANSLATED, f"{becomes}: {cause}", rule, SetName.CLUSTER_IPS, at)
            case Masquerade.EXTERNAL:
                sentence = f"{becomes}, so that the reply comes back here"
                return Step(ChainName.MASQ_ALWAYS, sentence, (MASQUERADE,), *external)
            case Masquerade.FROM_NODE:
                return Step(
                    ChainName.MASQ_NODE, f"{becomes}: this node is the sender", (MASQUERADE,), *external
                )


def _named(choices: list[Choice]) -> str:
    return enumeration([format_socket(socket_address(c.endpoint), socket_port(c.endpoint)) for c in choices])


_KINDS = {
    FrontendKind.CLUSTER_IP: "the ClusterIP",
    FrontendKind.NODE_PORT: "a node port",
    FrontendKind.EXTERNAL_IP: "an external IP",
    FrontendKind.LOAD_BALANCER: "a load-balancer address",
}
