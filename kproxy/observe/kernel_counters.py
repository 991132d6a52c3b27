"""Metrics from the tables in the kernel: their size and their counters. They are read at each scrape.

The comments of the map `services` name the owner of each element. So this code shares nothing with the loop,
and runs in another thread. While a program commits (also kproxy itself), a dump of a map may lack elements
and contain others twice, without an error. A changed generation reveals that.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.kernel.netlink.core.elements import read_counter, read_element, split_counter
from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError, is_missing, listed_elements
from kproxy.kernel.structure import lacks_counters
from kproxy.model import Family, Protocol, ServicePortName
from kproxy.nft.elements import Value, Verdict
from kproxy.observe.core.counters import (
    Connections,
    Counted,
    EndpointName,
    Members,
    NoLocal,
    Owners,
    forget_unused,
    owners_of,
)
from kproxy.observe.refused import RefusedCounters
from kproxy.observe.series import Series
from kproxy.problems import KproxyError
from kproxy.table.layout import EndpointScope, PackedSocket, SetName, endpoints_map, format_packed
from kproxy.table.simulator import Reason

logger = logging.getLogger(__name__)
FAMILY = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
"""Values of the label ip_family."""


class Reading(NamedTuple):
    """The size of one family's table."""

    frontends: int
    no_local: NoLocal


class KernelCounters(Collector):
    """The size of the tables, and connections by service port, optionally also by endpoint."""

    def __init__(self, by_endpoint: bool, refused: RefusedCounters | None = None) -> None:
        self.connections = Connections(by_endpoint)
        self._readings: dict[Family, Reading] = {}
        self._known = known_maps()
        served = "New connections that were sent to an endpoint"
        self._services = Series("kproxy_service_connections", f"{served}, by service port", _labels)
        self._counters = refused
        self._refused = Series(
            "kproxy_refused_connections",
            "New connections that were refused or dropped, by service port and reason",
            _refusal_labels,
        )
        self._endpoints = Series("kproxy_endpoint_connections", f"{served}, by endpoint", _endpoint_labels)

    def describe(self) -> Iterator[Metric]:
        """Return nothing. Otherwise the registry would call `collect` to determine the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the tables, and return their sizes. Must not run twice at the same time."""
        try:
            self._readings = read_tables(self.connections, self._known)
            if self._counters:
                self._counters.read()
        except (KproxyError, OSError) as error:
            logger.warning("cannot read the kernel's counters: %s", error)
        yield from self._tables()

    def series(self) -> Iterator[bytes]:
        """Return the counters of the last `collect` in Prometheus' text format."""
        connections = self.connections
        version = connections.changes
        yield self._services.text(version, lambda: connections.services)
        refused = self._counters.totals() if self._counters else {}
        yield self._refused.text((connections.renamed, refused), lambda: self._refusals(refused))
        if connections.by_endpoint:
            yield self._endpoints.text(version, lambda: connections.endpoints)

    def set_full_names(self, names: Mapping[bytes, ServicePortName]) -> None:
        """Set the owners of frontends whose comments in the kernel are too short for them, by key."""
        self.connections.full_names = names
        if self._counters:
            self._counters.full_names = names

    def _refusals(
        self, totals: Mapping[tuple[ServicePortName, Reason], int]
    ) -> dict[tuple[ServicePortName, Reason], int]:
        """Return the totals. A service port that refused nothing has one, because a rate needs a zero."""
        present = self.connections.services
        owners = present.keys() | {name._replace(port="") for name in present}
        found = {key: total for key, total in totals.items() if key[0] in owners}
        nothing = ((name, Reason.NO_ENDPOINTS) for name in present)
        return dict.fromkeys(nothing, 0) | found

    def _tables(self) -> Iterator[Metric]:
        frontends = GaugeMetricFamily("kproxy_frontends", "Frontends in the table", labels=["ip_family"])
        no_local = GaugeMetricFamily(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with traffic policy Local whose endpoints are all on other nodes",
            labels=["ip_family", "traffic_policy"],
        )
        for family, reading in self._readings.items():
            frontends.add_metric([FAMILY[family]], reading.frontends)
            for policy, count in reading.no_local._asdict().items():
                no_local.add_metric([FAMILY[family], policy], count)
        yield frontends
        yield no_local


def _labels(owner: ServicePortName) -> dict[str, str]:
    return {"namespace": owner.service.namespace, "service": owner.service.name, "port": owner.port}


def _refusal_labels(refusal: tuple[ServicePortName, Reason]) -> dict[str, str]:
    owner, reason = refusal
    return {**_labels(owner), "reason": reason}


def _endpoint_labels(name: EndpointName) -> dict[str, str]:
    return {**_labels(name.owner), "endpoint": format_packed(name.socket)}


class Dump(NamedTuple):
    """The elements of a map, without duplicates."""

    counted: list[Counted]
    complete: bool
    """No program committed during the dump."""


class Piece(NamedTuple):
    """A list of elements as the kernel returned it, and its elements."""

    content: bytes
    counted: tuple[Counted, ...]


class KnownMap:
    """The last dump of a map. What has the same bytes in the next one is not read again."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.counted: list[Counted] = []
        """The elements, without duplicates."""


KnownMaps: TypeAlias = defaultdict[tuple[Family, SetName], KnownMap]
"""The last dumps of all maps."""


def known_maps() -> KnownMaps:
    """Return no dumps yet."""
    return defaultdict(KnownMap)


def read_tables(connections: Connections, known: KnownMaps) -> dict[Family, Reading]:
    """Add all counters of kproxy's tables to `connections`, and return the size of the tables.

    `known` has the last dumps, which are replaced.
    """
    owners: dict[tuple[Protocol, PackedSocket], ServicePortName] = {}
    names: list[frozenset[ServicePortName]] = []
    readings: dict[Family, Reading] = {}
    complete, total = True, 0
    with Netlink() as netlink:
        for family in Family:
            found: dict[EndpointScope, Members] = {}
            for scope in EndpointScope:
                last = known[family, scope.verdicts]
                dump = _named(
                    dump_map(netlink, family, scope.verdicts, read_frontend, last), connections.full_names
                )
                complete &= dump.complete
                total += len(dump.counted)
                found[scope] = connections.take_frontends(family, scope, *dump)
                names.append(found[scope].names)
                if connections.by_endpoint:
                    owners.update(owners_of((key, verdict) for key, verdict, _ in dump.counted))
            inside, outside = found[EndpointScope.ALL], found[EndpointScope.LOCAL]
            local = NoLocal(inside.without_local, outside.without_local)
            readings[family] = Reading(inside.frontends, local)
        for family in Family if connections.by_endpoint else ():
            _take_endpoints(netlink, family, connections, owners, known)
    connections.retain(frozenset().union(*names), complete)
    forget_unused(_parsed, total)
    return readings


def _take_endpoints(
    netlink: Netlink, family: Family, connections: Connections, owners: Owners, known: KnownMaps
) -> None:
    """Add the counters of endpoints, if the table has them."""
    names = {protocol: endpoints_map(protocol) for protocol in Protocol}
    if any(lacks_counters(netlink, family, name) for name in names.values()):
        connections.forget_endpoints(family)
        for name in names.values():
            known.pop((family, name), None)
        return
    for protocol, name in names.items():
        counted, complete = dump_map(netlink, family, name, read_counter, known[family, name])
        connections.take_endpoints(family, protocol, counted, owners, complete)


def _named(dump: Dump, names: Mapping[bytes, ServicePortName]) -> Dump:
    """Replace comments that were cut off by the full names."""
    if not names:
        return dump
    counted = [
        (key, value._replace(comment=str(names[key])), count)
        if key in names and isinstance(value, Verdict)
        else (key, value, count)
        for key, value, count in dump.counted
    ]
    return Dump(counted, dump.complete)


def read_frontend(element: memoryview) -> Counted:
    """Return key, verdict and counter of an element of a verdict map."""
    constant, count = split_counter(element)
    return *_parsed(constant), count


@lru_cache(maxsize=1 << 17)
def _parsed(element: bytes) -> tuple[bytes, Value]:
    """Parse an element without its counter. Cached, because most are the same in each scrape."""
    return read_element(memoryview(element))


def dump_map(
    netlink: Netlink,
    family: Family,
    name: str,
    read: Callable[[memoryview], Counted],
    known: KnownMap,
) -> Dump:
    """Dump a map. A missing table counts as incomplete, because kproxy may be about to restore it.

    `known` is the last dump, which is replaced. If the map is the same, so are the objects in the result.
    """
    before = netlink.generation()
    pieces: list[Piece] = []
    try:
        for content, last in zip_longest(netlink.element_lists(family, name), known.pieces):
            if content is None:
                break
            same = last is not None and last.content == content
            pieces.append(last if same else Piece(bytes(content), tuple(map(read, listed_elements(content)))))
    except Interrupted:
        return Dump(_distinct(pieces), complete=False)
    except NetlinkError as error:
        if not is_missing(error):
            raise
        return Dump([], complete=False)
    if pieces != known.pieces:
        known.pieces, known.counted = pieces, _distinct(pieces)
    return Dump(known.counted, complete=netlink.generation() == before)


def _distinct(pieces: Iterable[Piece]) -> list[Counted]:
    return list({element[0]: element for piece in pieces for element in piece.counted}.values())
