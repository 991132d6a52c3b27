"""Metrics of what the tables hold and count: read when somebody asks, and only from the kernel.

Whose an element is, the comments of the map `services` say, so nothing is shared with the loop, and this
can be done in another thread. A dump that somebody's commit interrupted may lack elements, which would
then count twice: it is read again, and if it never gets whole, the totals stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.daemon.counters import Connections, NoLocal, no_local, owners_of
from kproxy.kernel.netlink import Interrupted, Netlink, NetlinkError, is_missing, read_counter, read_element
from kproxy.model import Family, Protocol, ServicePortName, format_socket
from kproxy.nft.elements import Value
from kproxy.nft.layout import Side, endpoints_map
from kproxy.problems import KproxyError

logger = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS = 5
FAMILY = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
"""Values of the label ip_family."""


class Reading(NamedTuple):
    """What one family's table holds."""

    frontends: int
    no_local: NoLocal


class KernelCounters(Collector):
    """What the tables hold, and connections by service port; by endpoint, too, if that is asked for."""

    def __init__(self, by_endpoint: bool) -> None:
        self._by_endpoint = by_endpoint
        self._connections = Connections(by_endpoint)
        self._readings: dict[Family, Reading] = {}

    def describe(self) -> Iterator[Metric]:
        """Nothing: or the kernel would be read to find the names out."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """One reading. Two at a time must not be."""
        try:
            self._readings = read_tables(self._connections)
        except (KproxyError, OSError, Interrupted) as error:
            logger.warning("the kernel's counters could not be read: %s", error or "the table keeps changing")
        yield from self._tables()
        yield from self._counted()

    def _tables(self) -> Iterator[Metric]:
        frontends = GaugeMetricFamily("kproxy_frontends", "Frontends in the table", labels=["ip_family"])
        no_local = GaugeMetricFamily(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with a traffic policy Local whose endpoints are all on other nodes",
            labels=["ip_family", "traffic_policy"],
        )
        for family, reading in self._readings.items():
            frontends.add_metric([FAMILY[family]], reading.frontends)
            for policy, count in reading.no_local._asdict().items():
                no_local.add_metric([FAMILY[family], policy], count)
        slots = self._connections.slots
        yield frontends
        yield GaugeMetricFamily("kproxy_endpoint_slots", "Endpoints of all frontends together", slots)
        yield no_local

    def _counted(self) -> Iterator[Metric]:
        labels = ["namespace", "service", "port"]
        text = "New connections that were led to an endpoint"
        services = CounterMetricFamily(
            "kproxy_service_connections", f"{text}, by service port", labels=labels
        )
        for owner, count in self._connections.services.items():
            services.add_metric([*owner.service, owner.port], count)
        yield services
        if self._by_endpoint:
            labels.append("endpoint")
            endpoints = CounterMetricFamily("kproxy_endpoint_connections", f"{text}, by it", labels=labels)
            for (owner, socket), count in self._connections.endpoints.items():
                endpoint = format_socket(socket[:-4], int.from_bytes(socket[-4:-2], "big"))
                endpoints.add_metric([*owner.service, owner.port, endpoint], count)
            yield endpoints


def read_tables(connections: Connections) -> dict[Family, Reading]:
    """Take all counters of our tables in. Interrupted: some of them; the rest is for the next time."""
    owners: dict[tuple[Protocol, bytes], ServicePortName] = {}
    readings: dict[Family, Reading] = {}
    with Netlink() as netlink:

        def verdicts(family: Family, side: Side) -> dict[bytes, Value]:
            return dict(map(read_element, _elements(netlink, family, side.verdicts)))

        def take(family: Family, protocol: Protocol) -> None:
            elements = _elements(netlink, family, endpoints_map(protocol))
            connections.take(family, protocol, map(read_counter, elements), owners)

        for family in Family:
            anyone, outside = (_whole(partial(verdicts, family, side)) for side in Side)
            owners.update(owners_of(anyone.items()))
            readings[family] = Reading(len(anyone), no_local(anyone.values(), outside.values()))
        for family in Family:
            for protocol in Protocol:
                _whole(partial(take, family, protocol))
    connections.keep(owners)
    return readings


def _whole(read: Callable[[], T]) -> T:
    """Read until nobody interrupts, or for a while."""
    for _ in range(ATTEMPTS - 1):
        with suppress(Interrupted):
            return read()
    return read()


def _elements(netlink: Netlink, family: Family, name: str) -> Iterator[memoryview]:
    try:
        yield from netlink.elements(family, name)
    except NetlinkError as error:
        if not is_missing(error):  # without a table there is nothing
            raise
