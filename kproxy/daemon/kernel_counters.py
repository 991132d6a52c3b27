"""Metrics of connections, as the kernel counts them: read when somebody asks, and only from the kernel.

Whose an element is, the comments of the map `services` say, so nothing is shared with the loop, and this
can be done in another thread. A dump that somebody's commit interrupted may lack elements, which would
then count twice: it is read again, and if it never gets whole, the totals stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.daemon.counters import Connections, owners_of
from kproxy.kernel.netlink import Interrupted, Netlink, NetlinkError, is_missing, read_counter, read_element
from kproxy.model import Family, Protocol, ServicePortName, format_socket
from kproxy.nft.layout import Side, endpoints_map
from kproxy.problems import KproxyError

logger = logging.getLogger(__name__)
ATTEMPTS = 5


class KernelCounters(Collector):
    """Connections by service port, and if asked for by endpoint: a series for each one of a service port."""

    def __init__(self, by_endpoint: bool) -> None:
        self._by_endpoint = by_endpoint
        self._connections = Connections(by_endpoint)

    def describe(self) -> Iterator[Metric]:
        """Nothing: or the kernel would be read to find the names out."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """One reading. Two at a time must not be."""
        try:
            read_connections(self._connections)
        except (KproxyError, OSError, Interrupted) as error:
            logger.warning("the kernel's counters could not be read: %s", error or "the table keeps changing")
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


def read_connections(connections: Connections) -> None:
    """Take all counters of our tables in. Interrupted: some of them; the rest is for the next time."""
    owners: dict[tuple[Protocol, bytes], ServicePortName] = {}
    with Netlink() as netlink:

        def take_owners(family: Family) -> None:
            elements = _elements(netlink, family, Side.ANYONE.verdicts)
            owners.update(owners_of(map(read_element, elements)))

        def take_counters(family: Family, protocol: Protocol) -> None:
            elements = _elements(netlink, family, endpoints_map(protocol))
            connections.take(family, protocol, map(read_counter, elements), owners)

        for family in Family:
            _whole(partial(take_owners, family))
        for family in Family:
            for protocol in Protocol:
                _whole(partial(take_counters, family, protocol))
    connections.keep(owners)


def _whole(read: Callable[[], None]) -> None:
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
