"""What the servers of all addresses share: the zone, who may ask for other names, limits and counts.

Queries for other names wait for an upstream server. The number of those that wait is limited, also for each
client, so that one client cannot use all places. To parse a long reply may take half a second, if its author
wants that. So it is done in a thread, one at a time. Short replies have their turns, so that many of them do
not delay other tasks.

Clients that send what is refused or malformed get at most `DNS_ERRORS` replies a second over UDP, together
with the other clients of their network. So a sender with a false address cannot direct a flood at another
host. Answers are not limited.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from kproxy.dns.core.respond import Outside, respond
from kproxy.dns.core.wire import CD, DO, LIMIT_UDP, RA, Code, Query, compose, parse
from kproxy.dns.core.zone import Zone
from kproxy.dns.relay import relay
from kproxy.dns.upstream import Question, Upstream
from kproxy.intake.turns import Turns
from kproxy.limits import DNS_ERRORS, DNS_LONG_REPLIES, DNS_NETWORKS, DNS_WAITING, DNS_WAITING_OF_CLIENT

NO_ANSWERS = frozenset({Code.FORMERR, Code.SERVFAIL, Code.NOTIMP, Code.REFUSED})


class Resolver:
    """Answers messages. Not thread-safe."""

    def __init__(
        self,
        zone: Zone,
        clock: Callable[[], float] = time.monotonic,
        upstream: Upstream | None = None,
        may_recurse: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`may_recurse` returns whether a client may ask for names outside the zone. Its results are kept."""
        self.zone = zone
        self.ready = False
        """Whether the zone has its Services. Until then, the names of the zone are not known."""
        self.requests: Counter[tuple[str, str]] = Counter()
        """Messages by protocol (`udp`, `tcp`) and family (`1` for IPv4, `2` for IPv6)."""
        self.responses: Counter[int] = Counter()
        """Replies by code."""
        self.forwarded = 0
        """Queries for which an upstream server was asked."""
        self.dropped = 0
        """Messages without a reply: not a query, or over the limit of errors."""
        self._clock = clock
        self._upstream = upstream
        self._may_recurse = may_recurse
        self._recursive: dict[str, bool] = {}
        self._waiting: Counter[str] = Counter()
        """How many queries wait for upstream servers, by client."""
        self._waiting_together = self._long = 0
        """How many queries wait for upstream servers, and how many long replies wait to be parsed."""
        self._turns, self._one = Turns(), asyncio.Lock()
        self._second = 0
        self._errors: dict[str, int] = {}
        self._turn = 0

    def answer(self, data: bytes, host: str, over_tcp: bool) -> bytes | Awaitable[bytes] | None:
        """Return the reply to a message from `host`, or what returns it later; None for no reply."""
        self.requests["tcp" if over_tcp else "udp", "2" if ":" in host else "1"] += 1
        self._turn += 1
        recursive = self._is_recursive(host)
        found = respond(self.zone, data, over_tcp, recursive, self._turn) if self.ready else _not_ready(data)
        if isinstance(found, Outside):
            if not (recursive and found.query.recursion_desired):
                found = _without_upstream(found, over_tcp)
            elif self._has_room(found, host):
                return self._forward(found, host, over_tcp)
            else:
                found = _failure(found, over_tcp)
        if found is not None:
            code = found[3] & 15
            if code not in NO_ANSWERS or over_tcp or self._may_send_error(host):
                self.responses[code] += 1
                return found
        self.dropped += 1
        return None

    def clients_changed(self) -> None:
        """Ask again which clients may ask for names outside the zone."""
        self._recursive = {}

    def _is_recursive(self, host: str) -> bool:
        if self._upstream is None or not self._upstream.exists:
            return False
        found = self._recursive.get(host)
        if found is None:
            if len(self._recursive) >= DNS_NETWORKS:
                self._recursive = {}
            found = self._recursive[host] = self._may_recurse(host)
        return found

    def _has_room(self, found: Outside, host: str) -> bool:
        assert self._upstream is not None
        if self._waiting_together >= DNS_WAITING or self._waiting[host] >= DNS_WAITING_OF_CLIENT:
            return False
        return self._upstream.has_room(_question(found))

    async def _forward(self, found: Outside, host: str, over_tcp: bool) -> bytes:
        assert self._upstream is not None
        self.forwarded += 1
        self._waiting[host] += 1
        self._waiting_together += 1
        try:
            made = await self._relay(found, await self._upstream.ask(_question(found)), over_tcp)
        finally:
            self._waiting_together -= 1
            self._waiting[host] -= 1
            if not self._waiting[host]:
                del self._waiting[host]
        self.responses[made[3] & 15] += 1
        return made

    async def _relay(self, found: Outside, reply: bytes | None, over_tcp: bool) -> bytes:
        """Return the reply to a client."""
        if reply is None or len(reply) <= LIMIT_UDP:
            async with self._turns:
                return relay(found, reply, over_tcp)
        if self._long >= DNS_LONG_REPLIES:
            return _failure(found, over_tcp)
        self._long += 1
        try:
            async with self._one:
                return await asyncio.to_thread(relay, found, reply, over_tcp)
        finally:
            self._long -= 1

    def _may_send_error(self, host: str) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._errors = second, {}
        network = _network(host)
        if network not in self._errors and len(self._errors) >= DNS_NETWORKS:
            network = ""
        count = self._errors[network] = self._errors.get(network, 0) + 1
        return count <= DNS_ERRORS


def _question(found: Outside) -> Question:
    """Return what an upstream server is asked."""
    query = found.query
    name = (found.target or query.name) + query.question[-4:]
    dnssec = query.edns is not None and bool(query.edns[1] & DO)
    return Question(name, bool(query.flags & CD), dnssec)


def _failure(found: Outside, over_tcp: bool) -> bytes:
    return compose(found.query, Code.SERVFAIL, flags=RA, limit=found.query.limit(over_tcp))


def _not_ready(data: bytes) -> bytes | None:
    query = parse(data)
    return compose(query, Code.SERVFAIL) if isinstance(query, Query) else query


def _network(host: str) -> str:
    """Return the /24 or /56 of an address, as text."""
    if ":" not in host:
        return host.rpartition(".")[0]
    return ip_address(host.partition("%")[0]).packed[:7].hex()


def _without_upstream(found: Outside, over_tcp: bool) -> bytes:
    """Return the reply without what only another server knows."""
    code = Code.NOERROR if found.chain else Code.REFUSED
    return compose(found.query, code, found.chain, limit=found.query.limit(over_tcp))
