"""Counts refused connections by service port and reason, and tells when a Service refuses some.

The kernel counts the packets that find an element. An element of a verdict map that leads to no endpoint
counts what its frontend refuses. The sets `refused-sources` and `refused-ports` count the other refusals.
A refused packet leaves no entry in conntrack. So each packet counts that would open a connection: for UDP
each datagram, and for TCP each SYN, also one that the client sends again because the first one was dropped.

Between the first refusal of a Service and a minute without one, its refusals are one event. The log tells of
it immediately, and then less and less often.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from kproxy.limits import EVENT_MESSAGE
from kproxy.model import Event, Family, NamespacedName, ServicePortName
from kproxy.nft.elements import Value, Verdict
from kproxy.observe.core.counters import Counted, service_port_of
from kproxy.reconcile.core.report import plural
from kproxy.table.layout import (
    ChainName,
    EndpointScope,
    SetName,
    frontend_address,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    socket_port,
)
from kproxy.table.simulator import Reason

REASONS = {ChainName.NO_ENDPOINTS: Reason.NO_ENDPOINTS, ChainName.DISCARD: Reason.NO_LOCAL_ENDPOINTS}
"""Why an element of a verdict map leads to no endpoint, by the chain that it leads to."""
PORTS_SHOWN = 3
QUIET_SECONDS = 60.0
"""After this time without a refusal, the next one is another event."""
MAX_PAUSE = 300.0
"""The maximum interval between two lines of the log about one event, in seconds."""


class Refusal(NamedTuple):
    """What refuses connections, and why."""

    owner: ServicePortName
    """With the port "" if the Service does not have the port."""
    reason: Reason
    port: str = ""
    """The port that the Service does not have: `81/tcp`."""


class Counter(NamedTuple):
    """A counter of refused packets in the kernel, as read."""

    element: Hashable
    """Family, set and key."""
    refusal: Refusal
    packets: int


def refusal_reason(verdict: Value) -> Reason | None:
    """Return why an element of a verdict map refuses connections; None if it does not."""
    return _reason(verdict.text) if isinstance(verdict, Verdict) else None


@lru_cache(maxsize=4096)
def _reason(text: str) -> Reason | None:
    """Return the reason for the text of a verdict. Cached, because 10,000 frontends share a few verdicts."""
    return next((reason for chain, reason in REASONS.items() if text == f"goto {chain}"), None)


FullNames: TypeAlias = Mapping[bytes, ServicePortName]
"""Owners of the frontends whose comment is too short for the name of the owner, by key."""
Verdicts: TypeAlias = Mapping[str, Mapping[bytes, Value]]
"""The elements of the verdict maps, by map."""


def frontend_counters(
    family: Family, scope: EndpointScope, counted: Iterable[Counted], full_names: FullNames
) -> Iterator[Counter]:
    """Return the counters of the elements of a verdict map that refuse connections."""
    for key, verdict, packets in counted:
        reason = refusal_reason(verdict)
        if reason and (owner := full_names.get(key) or service_port_of(verdict)):
            yield Counter((family, scope, key), Refusal(owner, reason), packets)


def source_counters(
    family: Family, found: Mapping[bytes, int], verdicts: Verdicts, full_names: FullNames
) -> Iterator[Counter]:
    """Return the counters of the set `refused-sources`, whose packets `found` has by key."""
    for key, packets in found.items():
        elements = (verdicts.get(scope.verdicts, {}).get(key, b"") for scope in EndpointScope)
        owner = full_names.get(key) or next(filter(None, map(service_port_of, elements)), None)
        if owner:
            name = SetName.REFUSED_SOURCES
            yield Counter((family, name, key), Refusal(owner, Reason.SOURCE_RANGES), packets)


def port_counters(
    family: Family, found: Mapping[bytes, int], verdicts: Verdicts, full_names: FullNames
) -> Iterator[Counter]:
    """Return the counters of the set `refused-ports`. The Service is that of another port of the address."""
    frontends = verdicts.get(SetName.SERVICES, {})
    of_address = {frontend_address(key): key for key in list(frontends) if is_frontend(key)}
    cluster_ips = verdicts.get(SetName.CLUSTER_IPS, {})
    for key, packets in found.items():
        if not is_frontend(key) or (frontend := of_address.get(frontend_address(key))) is None:
            continue
        if owner := full_names.get(frontend) or service_port_of(frontends.get(frontend, b"")):
            on_cluster_ip = frontend_address(key) in cluster_ips
            reason = Reason.CLUSTER_IP_PORT if on_cluster_ip else Reason.LOAD_BALANCER_PORT
            port = f"{socket_port(frontend_socket(key))}/{frontend_protocol(key)}"
            refusal = Refusal(owner._replace(port=""), reason, port)
            yield Counter((family, SetName.REFUSED_PORTS, key), refusal, packets)


class Refused:
    """Totals since the elements were created. What was counted at the first reading is no news."""

    def __init__(self) -> None:
        self.totals: dict[tuple[ServicePortName, Reason], int] = {}
        self._last: dict[Hashable, Counter] = {}
        self._news: dict[Refusal, int] = {}

    def take(self, counters: Iterable[Counter]) -> None:
        """Add readings of some elements."""
        for counter in counters:
            last = self._last.get(counter.element)
            self._last[counter.element] = counter
            same = last is not None and last.refusal == counter.refusal and last.packets <= counter.packets
            increase = counter.packets - last.packets if same and last else counter.packets
            total = counter.refusal.owner, counter.refusal.reason
            self.totals[total] = self.totals.get(total, 0) + increase
            if increase:
                self._news[counter.refusal] = self._news.get(counter.refusal, 0) + increase

    def forget(self, elements: Iterable[Hashable]) -> None:
        """Forget elements that are removed or rewritten after their last reading. New ones begin at zero."""
        for element in elements:
            self._last.pop(element, None)

    def retain(self, exists: Callable[[ServicePortName], bool]) -> None:
        """Forget the totals of all other service ports. The port of those of a whole Service is ""."""
        self.totals = {key: total for key, total in self.totals.items() if exists(key[0])}

    def take_news(self) -> dict[Refusal, int]:
        """Return what was refused since the last call."""
        news, self._news = self._news, {}
        return news


class _Episode(NamedTuple):
    """The refusals of a Service for one reason, since they began."""

    begun: float
    last: float
    refused: int
    ports: tuple[str, ...]
    told: int
    """How many of them the log has told of."""
    told_at: float
    pause: float
    """The seconds until the log tells of it again."""


class RefusalEvent(NamedTuple):
    """An event, and the Service and the key under which the event log keeps it."""

    service: NamespacedName
    key: Hashable
    event: Event


class Episodes:
    """Makes events and lines of the log from what was refused."""

    def __init__(self, now: float) -> None:
        """`now` is in seconds of a clock that is never set, as all times but those of events."""
        self._looked = now
        self._episodes: dict[tuple[NamespacedName, Reason], _Episode] = {}

    def take(self, news: Mapping[Refusal, int], now: float, time_of_day: float) -> list[RefusalEvent]:
        """Add what was refused since the last call. Returns the events that are new or changed.

        `time_of_day`: that of `now`, in seconds of the Unix epoch.
        """
        changed: dict[tuple[NamespacedName, Reason], None] = {}
        for (owner, reason, port), count in news.items():
            key = owner.service, reason
            begun = self._looked
            one = self._episodes.get(key) or _Episode(begun, now, 0, (), 0, begun, 0.0)
            ports = one.ports
            if port and port not in ports and len(ports) <= PORTS_SHOWN:
                ports = (*ports, port)
            self._episodes[key] = one._replace(last=now, refused=one.refused + count, ports=ports)
            changed[key] = None
        self._looked = now
        return [self._event(*key, time_of_day) for key in changed]

    def lines(self, now: float) -> Iterator[str]:
        """Return the lines of the log that are due, and end the episodes without refusals in a minute."""
        for (service, reason), one in list(self._episodes.items()):
            ended = now - one.last > QUIET_SECONDS
            if one.refused > one.told and (ended or now - one.told_at >= one.pause):
                yield f"{service} {_sentence(one.refused - one.told, now - one.told_at, reason, one.ports)}"
                pause = min(max(2 * (now - one.told_at), one.pause), MAX_PAUSE)
                self._episodes[service, reason] = one._replace(told=one.refused, told_at=now, pause=pause)
            if ended:
                del self._episodes[service, reason]

    def _event(self, service: NamespacedName, reason: Reason, time_of_day: float) -> RefusalEvent:
        one = self._episodes[service, reason]
        message = _sentence(one.refused, one.last - one.begun, reason, one.ports)[:EVENT_MESSAGE]
        event = Event("Refused", message, 1, time_of_day, time_of_day)
        return RefusalEvent(service, (reason, one.begun), event)


def _sentence(count: int, seconds: float, reason: Reason, ports: tuple[str, ...]) -> str:
    return f"refused {plural(count, 'connection')} in {max(1, round(seconds))} s: {_because(reason, ports)}"


def _because(reason: Reason, ports: tuple[str, ...]) -> str:
    match reason:
        case Reason.NO_ENDPOINTS:
            return "no endpoint is ready"
        case Reason.NO_LOCAL_ENDPOINTS:
            return "the traffic policy is Local, and no endpoint is on this node"
        case Reason.SOURCE_RANGES:
            return "loadBalancerSourceRanges do not contain the clients"
        case _:
            more = " and others" if len(ports) > PORTS_SHOWN else ""
            shown = sorted(ports[:PORTS_SHOWN], key=lambda port: int(port.partition("/")[0]))
            return f"it has no port {', '.join(shown)}{more}"
