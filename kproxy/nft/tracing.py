"""Traces: the rules that one packet matched, and the table that makes the kernel report them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kproxy.model import Address, Family, Protocol, family_of
from kproxy.nft.expressions import HeaderField, Meta
from kproxy.nft.rules import Comparison, Match, Rule, StartTrace, Statement
from kproxy.nft.ruleset import Chain, Hook, Skeleton

BEFORE_ALL = -450
"""The priority of the chains that start a trace: before the kernel puts fragments together."""
ICMP = {Family.IPV4: "icmp", Family.IPV6: "icmpv6"}


class Flow(NamedTuple):
    """The packets to trace."""

    source: Address
    destination: Address
    protocol: Protocol | None
    """None for ICMP echo, without a port."""
    port: int = 0


class Hit(NamedTuple):
    """A rule that the packet matched, or the end of a chain: its policy, or the return from it."""

    table: str
    chain: str
    handle: int | None
    """The handle of the rule; None for the end of a chain."""
    verdict: str
    """As nft writes it: `accept`, `goto lb-3`, `continue`."""
    source: tuple[Address, int]
    """Address and port in the packet at this moment. The port is 0 if the protocol has none."""
    destination: tuple[Address, int]
    interface: str
    """The interface through which the packet leaves; "" before that is known."""


class Trace(NamedTuple):
    """The way of one packet."""

    hits: tuple[Hit, ...]
    """In order. () if no packet came."""
    answered: bool | None = None
    """Whether a reply came; None if the kernel has no entry of the connection."""


def trace_table(flow: Flow, name: str) -> Skeleton:
    """Return the table that starts the trace of all packets of a flow. It has no other effect."""
    family = family_of(flow.destination)
    started = Rule((*_matches(flow, family), StartTrace()))
    chains = (
        Chain(hook, (started,), "starts the trace", Hook(hook, BEFORE_ALL, type="filter"))
        for hook in ("prerouting", "output")
    )
    return Skeleton(family, name, (), tuple(chains))


def _matches(flow: Flow, family: Family) -> Iterator[Statement]:
    yield Comparison(HeaderField(family, "saddr"), flow.source)
    yield Comparison(HeaderField(family, "daddr"), flow.destination)
    yield Match(Meta.PROTOCOL, flow.protocol or ICMP[family])
    if flow.protocol:
        yield Comparison(HeaderField("th", "dport"), flow.port.to_bytes(2, "big"))
