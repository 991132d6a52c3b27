"""Reads the counters of kproxy's tables, and the live connections, from the kernel."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from kproxy.kernel.conntrack import Translated, translated
from kproxy.kernel.netlink.core.elements import read_counter, read_element
from kproxy.kernel.netlink.socket import MESSAGES_PER_SEND, Netlink
from kproxy.kernel.structure import has_table, lacks_counters
from kproxy.limits import LIVE_CONNECTIONS
from kproxy.model import Family, NamespacedName, Protocol, ServicePortName
from kproxy.nft.elements import Value
from kproxy.observe.core.counters import Connections, Counted, service_port_of
from kproxy.observe.core.refused import Refused, Verdicts, frontend_counters, port_counters, source_counters
from kproxy.observe.kernel_counters import dump_map, known_maps, read_frontend
from kproxy.observe.refused import read_written
from kproxy.problems import KproxyError
from kproxy.table.layout import (
    EndpointScope,
    FrontendSide,
    PackedSocket,
    SetName,
    endpoints_map,
    format_packed,
    frontend_of,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    slot_chain_of,
    slots,
    socket_port,
)
from kproxy.traffic.core.tally import EndpointReading, Live, LiveReading, Tally


class Reader:
    """Reads into a tally. Needs root. For one thread."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._connections = Connections()
        self._refused = Refused()
        self._known = known_maps()
        self._counted: dict[tuple[Family, EndpointScope], list[Counted]] = {}

    def counters(self) -> None:
        """Read the counters of all tables. Raises KproxyError, also if there was never a table."""
        names: list[frozenset[ServicePortName]] = []
        complete, now = True, time.monotonic()
        with Netlink() as netlink:
            families = [family for family in Family if has_table(netlink, family)]
            if not families and not self._counted:
                raise KproxyError(
                    "This host has no tables of kproxy.", "kproxy run and kproxy sync make them."
                )
            for family in families:
                for scope in EndpointScope:
                    known = self._known[family, scope.verdicts]
                    counted, whole = dump_map(netlink, family, scope.verdicts, read_frontend, known)
                    complete &= whole
                    self._counted[family, scope] = counted
                    names.append(self._connections.take_frontends(family, scope, counted, whole).names)
                    self._refused.take(frontend_counters(family, scope, counted, {}))
                self._read_refused(netlink, family)
        self._connections.retain(frozenset().union(*names), complete)
        self.tally.take(now, self._connections.services, self._refused.totals)

    def _read_refused(self, netlink: Netlink, family: Family) -> None:
        """Read the sets whose elements packets write."""
        sources, _ = read_written(netlink, family, SetName.REFUSED_SOURCES)
        ports, _ = read_written(netlink, family, SetName.REFUSED_PORTS)
        if sources or ports:
            verdicts = self._verdicts(netlink, family)
            self._refused.take(source_counters(family, sources, verdicts, {}))
            self._refused.take(port_counters(family, ports, verdicts, {}))

    def _verdicts(self, netlink: Netlink, family: Family) -> Verdicts:
        cluster_ips = map(read_element, netlink.elements(family, SetName.CLUSTER_IPS))
        found: dict[str, Mapping[bytes, Value]] = {
            scope.verdicts: {key: verdict for key, verdict, _ in self._counted[family, scope]}
            for scope in EndpointScope
        }
        return {**found, SetName.CLUSTER_IPS: dict(cluster_ips)}

    def endpoints(self, service: NamespacedName) -> None:
        """Read the counters of the endpoints of one Service, as of the last reading of all counters."""
        new: Counter[str] = Counter()
        uncounted: set[str] = set()
        with Netlink() as netlink:
            for family, side, count in self._sides(service):
                name = endpoints_map(frontend_protocol(side.key))
                keys, lacking = slots(side, count), lacks_counters(netlink, family, name)
                for start in range(0, len(keys), MESSAGES_PER_SEND):
                    part = keys[start : start + MESSAGES_PER_SEND]
                    for _, packed, packets in map(read_counter, netlink.some_elements(family, name, part)):
                        endpoint = format_packed(PackedSocket(packed))
                        new[endpoint] += packets
                        if lacking:
                            uncounted.add(endpoint)
        reading = {endpoint: None if endpoint in uncounted else total for endpoint, total in new.items()}
        self.tally.take_endpoints(EndpointReading(time.monotonic(), service, reading))

    def _sides(self, service: NamespacedName) -> Iterator[tuple[Family, FrontendSide, int]]:
        """Return the frontend sides of a Service, and the number of their slots."""
        for (family, scope), counted in self._counted.items():
            for key, verdict, _ in counted:
                owner, slot_chain = service_port_of(verdict), slot_chain_of(verdict)
                if owner and owner.service == service and is_frontend(key):
                    yield family, FrontendSide(scope, key), slot_chain.slots if slot_chain else 0

    def live(self, only: NamespacedName | None = None) -> None:
        """Read the live connections, or those of one Service, as of the last reading of all counters.

        If the kernel cannot list them, they are unknown.
        """
        found: dict[tuple[NamespacedName, str], Live] = {}
        complete = True
        try:
            for family in {family for family, _ in self._counted}:
                counts = self._connections_of(family, only)
                complete &= counts.total() <= LIVE_CONNECTIONS
                self._add(found, family, counts)
        except (OSError, KproxyError):
            self.tally.take_live(None)
        else:
            self.tally.take_live(LiveReading(found, complete))

    def _connections_of(self, family: Family, only: NamespacedName | None) -> Counter[Translated]:
        """Return the numbers of equal connections, of a limited number of all."""
        ports: set[tuple[Protocol, int]] = set()
        if only:
            sides = (side for of, side, _ in self._sides(only) if of is family)
            ports = {(frontend_protocol(key), socket_port(frontend_socket(key))) for _, key in sides}
            if not ports:
                return Counter()
        with Netlink() as netlink:  # closing it ends a list that is too long
            return Counter(islice(translated(netlink, family, ports), LIVE_CONNECTIONS + 1))

    def _add(
        self, found: dict[tuple[NamespacedName, str], Live], family: Family, counts: Counter[Translated]
    ) -> None:
        """Add the connections of the frontends of a family to those of their Service and endpoint."""
        verdicts = {key: verdict for key, verdict, _ in self._counted[family, EndpointScope.ALL]}
        for (protocol, frontend, endpoint, is_answered), count in counts.items():
            owner = service_port_of(verdicts.get(frontend_of(frontend, protocol), b""))
            if owner:
                at = owner.service, format_packed(endpoint)
                live = found.get(at, Live())
                unanswered = 0 if is_answered else count
                found[at] = Live(live.connections + count, live.unanswered + unanswered)
