"""Metrics from the tables in the kernel: their size and their counters. They are read at each scrape.

The comments of the map `services` name the owner of each element. So this code shares nothing with the loop,
and runs in another thread. While a program commits (also kproxy itself), a dump of a map may lack elements
and contain others twice, without an error. A changed generation reveals that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.kernel.netlink.core.elements import read_counter, read_element
from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError, is_missing
from kproxy.model import Family, Protocol, ServicePortName
from kproxy.nft.elements import Value, Verdict
from kproxy.observe.core.counters import Connections, Counted, NoLocal, no_local, owners_of
from kproxy.problems import KproxyError
from kproxy.table.keys import PackedSocket, format_packed
from kproxy.table.layout import EndpointScope, slot_chain_of
from kproxy.table.names import endpoints_map

logger = logging.getLogger(__name__)
FAMILY = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
"""Values of the label ip_family."""


class Reading(NamedTuple):
    """The size of one family's table."""

    frontends: int
    slots: int
    """The number of endpoints of all frontends."""
    no_local: NoLocal


class KernelCounters(Collector):
    """The size of the tables, and connections by service port, optionally also by endpoint."""

    def __init__(self, by_endpoint: bool) -> None:
        self.connections = Connections(by_endpoint)
        self._readings: dict[Family, Reading] = {}

    def describe(self) -> Iterator[Metric]:
        """Return nothing. Otherwise the registry would call `collect` to determine the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the tables, and return the metrics. Must not run twice at the same time."""
        try:
            self._readings = read_tables(self.connections)
        except (KproxyError, OSError) as error:
            logger.warning("cannot read the kernel's counters: %s", error)
        yield from self._tables()
        yield from self._counted()

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
        slots = sum(reading.slots for reading in self._readings.values())
        yield frontends
        yield GaugeMetricFamily("kproxy_endpoint_slots", "Endpoints of all frontends", slots)
        yield no_local

    def _counted(self) -> Iterator[Metric]:
        labels = ["namespace", "service", "port"]
        served = "New connections that were sent to an endpoint"
        for name, text, totals in (
            ("kproxy_service_connections", f"{served}, by service port", self.connections.services),
            (
                "kproxy_service_connections_unserved",
                "New connections without an endpoint, by service port",
                self.connections.unserved,
            ),
        ):
            family = CounterMetricFamily(name, text, labels=labels)
            for owner, count in totals.items():
                family.add_metric([*owner.service, owner.port], count)
            yield family
        if self.connections.by_endpoint:
            labels.append("endpoint")
            text = f"{served}, by endpoint"
            endpoints = CounterMetricFamily("kproxy_endpoint_connections", text, labels=labels)
            for (owner, socket), count in self.connections.endpoints.items():
                endpoints.add_metric([*owner.service, owner.port, format_packed(socket)], count)
            yield endpoints


class _Dump(NamedTuple):
    """The elements of a map, without duplicates."""

    counted: list[Counted]
    complete: bool
    """No program committed during the dump."""


def read_tables(connections: Connections) -> dict[Family, Reading]:
    """Add all counters of kproxy's tables to `connections`, and return the size of the tables."""
    owners: dict[tuple[Protocol, PackedSocket], ServicePortName] = {}
    readings: dict[Family, Reading] = {}
    complete = True
    with Netlink() as netlink:
        for family in Family:
            verdicts: dict[EndpointScope, list[Value]] = {}
            slots = 0
            for scope in EndpointScope:
                dump = _named(_dump(netlink, family, scope.verdicts, _frontend), connections.full_names)
                complete &= dump.complete
                connections.take_frontends(family, scope, *dump)
                owners.update(owners_of((key, verdict) for key, verdict, _ in dump.counted))
                verdicts[scope] = [verdict for _, verdict, _ in dump.counted]
                slot_chains = map(slot_chain_of, verdicts[scope])
                slots += sum(slot_chain.slots for slot_chain in slot_chains if slot_chain is not None)
            local = no_local(verdicts[EndpointScope.ALL], verdicts[EndpointScope.LOCAL])
            readings[family] = Reading(len(verdicts[EndpointScope.ALL]), slots, local)
        for family in Family if connections.by_endpoint else ():
            for protocol in Protocol:
                counted, dump_complete = _dump(netlink, family, endpoints_map(protocol), read_counter)
                connections.take_endpoints(family, protocol, counted, owners, dump_complete)
    connections.retain(owners, complete)
    return readings


def _named(dump: _Dump, names: Mapping[bytes, ServicePortName]) -> _Dump:
    """Replace comments that were cut off by the full names."""
    if not names:
        return dump
    counted = [
        (key, value._replace(comment=str(names[key])), count)
        if key in names and isinstance(value, Verdict)
        else (key, value, count)
        for key, value, count in dump.counted
    ]
    return _Dump(counted, dump.complete)


def _frontend(element: memoryview) -> Counted:
    key, verdict = read_element(element)
    return key, verdict, read_counter(element)[2]


def _dump(netlink: Netlink, family: Family, name: str, read: Callable[[memoryview], Counted]) -> _Dump:
    """Dump a map. A missing table counts as incomplete, because kproxy may be about to restore it."""
    before, found = netlink.generation(), dict[bytes, Counted]()
    try:
        for element in map(read, netlink.elements(family, name)):
            found[element[0]] = element
    except Interrupted:
        return _Dump(list(found.values()), complete=False)
    except NetlinkError as error:
        if not is_missing(error):
            raise
        return _Dump([], complete=False)
    return _Dump(list(found.values()), complete=netlink.generation() == before)
