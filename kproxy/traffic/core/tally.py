"""Computes rates and totals by Service from successive readings.

A node may have 10,000 Services, of which few have new connections at any moment. So a reading takes time in
proportion to the Services that changed, besides one comparison of all totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kproxy.model import NamespacedName, ServicePortName
from kproxy.table.simulator import Reason

RefusedTotals = Mapping[tuple[ServicePortName, Reason], int]


class Live(NamedTuple):
    """The connections of a Service or endpoint that exist at this moment."""

    connections: int = 0
    unanswered: int = 0
    """Those of them without a packet in reply."""


class Row(NamedTuple):
    """The connections of one Service, of one of its endpoints, or of all Services."""

    name: str
    """`namespace/name`, an address and port, or ""."""
    new_rate: float | None
    """New connections per second that were sent to an endpoint; None if its table does not count them."""
    new: int | None
    """The same, since the elements were created."""
    live: Live | None
    """None if the kernel does not list its connections."""
    refused_rate: float = 0.0
    refused: int = 0


class LiveReading(NamedTuple):
    """The live connections by Service and endpoint."""

    found: Mapping[tuple[NamespacedName, str], Live]
    complete: bool = True
    """Whether all connections were read, not only as many as the limit allows."""


class EndpointReading(NamedTuple):
    """The number of connections that each endpoint of a Service got, since its elements were created.

    None for endpoints of a table that does not count by endpoint.
    """

    time: float
    service: NamespacedName
    new: Mapping[str, int | None]


class Tally:
    """The result of all readings so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """The time between the last two readings; 0 before the second one."""
        self.live: LiveReading | None = None
        """None if the kernel does not list connections."""
        self.names: Sequence[NamespacedName] = ()
        """The names of all Services, sorted."""
        self.new: Counter[NamespacedName] = Counter()
        self.new_rates: Mapping[NamespacedName, float] = {}
        self.refused: Counter[NamespacedName] = Counter()
        self.refused_rates: Mapping[NamespacedName, float] = {}
        self.connections: Counter[NamespacedName] = Counter()
        self.unanswered: Counter[NamespacedName] = Counter()
        self._time: float | None = None
        self._ports: Mapping[ServicePortName, int] = {}
        self._reasons: RefusedTotals = {}
        self._endpoints: EndpointReading | None = None
        self._endpoint_rates: Mapping[str, float] = {}

    def take(self, now: float, new: Mapping[ServicePortName, int], refused: RefusedTotals) -> None:
        """Add a reading of all totals, at a time in seconds. Totals never decrease."""
        self.seconds = now - self._time if self._time is not None else 0.0
        self._time = now
        if new.keys() != self._ports.keys():
            self._forget({name.service for name in new})
        more: Counter[NamespacedName] = Counter()
        for port, total in new.items():
            if total != (before := self._ports.get(port, 0)):
                more[port.service] += total - before
        refusals: Counter[NamespacedName] = Counter()
        for refusal, total in refused.items():
            refusals[refusal[0].service] += total - self._reasons.get(refusal, 0)
        self.new += more
        self.refused += refusals
        self.new_rates, self.refused_rates = self._rates(more), self._rates(refusals)
        self._ports, self._reasons = dict(new), dict(refused)

    def _forget(self, services: set[NamespacedName]) -> None:
        """Forget all other Services."""
        self.names = sorted(services)
        for gone in {port.service for port in self._ports} - services:
            del self.new[gone], self.refused[gone]

    def _rates(self, increases: Mapping[NamespacedName, int]) -> dict[NamespacedName, float]:
        """Return the rates of Services with new connections. The first reading has none."""
        return {name: n / self.seconds for name, n in increases.items() if n} if self.seconds else {}

    def take_live(self, reading: LiveReading | None) -> None:
        """Replace the live connections. None: the kernel does not list them."""
        self.live, self.connections, self.unanswered = reading, Counter(), Counter()
        for (service, _), live in (reading.found if reading else {}).items():
            self.connections[service] += live.connections
            self.unanswered[service] += live.unanswered

    def take_endpoints(self, reading: EndpointReading) -> None:
        """Add a reading of the endpoints of one Service."""
        before, self._endpoints, self._endpoint_rates = self._endpoints, reading, {}
        if before and before.service == reading.service and (seconds := reading.time - before.time):
            lasts = (
                (endpoint, total, before.new.get(endpoint) or 0)
                for endpoint, total in reading.new.items()
                if total is not None
            )
            self._endpoint_rates = {  # a rewritten element counts from zero
                endpoint: (total - last if total >= last else total) / seconds
                for endpoint, total, last in lasts
            }

    # --- rows ---

    def row(self, name: NamespacedName) -> Row:
        """Return the connections of a Service."""
        return Row(
            str(name),
            self.new_rates.get(name, 0.0),
            self.new[name],
            Live(self.connections[name], self.unanswered[name]) if self.live else None,
            self.refused_rates.get(name, 0.0),
            self.refused[name],
        )

    def total(self) -> Row:
        """Return the connections of all Services."""
        return Row(
            "",
            sum(self.new_rates.values()),
            self.new.total(),
            Live(self.connections.total(), self.unanswered.total()) if self.live else None,
            sum(self.refused_rates.values()),
            self.refused.total(),
        )

    def endpoints(self, name: NamespacedName) -> list[Row]:
        """Return the connections of each endpoint of a Service, sorted."""
        counted = self._endpoints if self._endpoints and self._endpoints.service == name else None
        new: Mapping[str, int | None] = counted.new if counted else {}
        found = self.live.found if self.live else {}
        live = {endpoint: each for (service, endpoint), each in found.items() if service == name}
        removed = None if None in new.values() else 0
        totals = {endpoint: new.get(endpoint, removed) for endpoint in sorted(new.keys() | live.keys())}
        return [
            Row(
                endpoint,
                None if total is None else self._endpoint_rates.get(endpoint, 0.0),
                total,
                live.get(endpoint, Live()) if self.live else None,
            )
            for endpoint, total in totals.items()
        ]

    def reasons(self, name: NamespacedName) -> dict[Reason, int]:
        """Return how many connections a Service refused, by reason."""
        found: Counter[Reason] = Counter()
        for (port, reason), total in self._reasons.items():
            if port.service == name and total:
                found[reason] += total
        return dict(sorted(found.items()))
