"""Reads from the kernel how many connections the frontends refused.

The tables have an element for each frontend, but only those without endpoints refuse connections. So the
elements of these are read one by one, in a thread of its own, and the time between two readings depends on
how long they take. What an element counted since then is read again before a round removes it, so no refusal
is lost when the first endpoint comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TypeAlias

from kproxy.kernel.netlink.core.elements import read_element, read_packets
from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError, is_missing
from kproxy.model import Family, ServicePortName
from kproxy.nft.elements import Elements
from kproxy.nft.transaction import Transaction
from kproxy.observe.core.counters import forget_names, service_port_of
from kproxy.observe.core.refused import (
    Counter,
    FullNames,
    Refusal,
    Refused,
    frontend_counters,
    port_counters,
    refusal_reason,
    source_counters,
)
from kproxy.problems import KproxyError
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.layout import EndpointScope, SetName
from kproxy.table.simulator import Reason

AT_ONCE = 50
"""The number of elements that are read while a round may have to wait. It takes about a millisecond."""
PAUSE = 0.001
"""The seconds between two such readings. Without a pause, a round that waits would seldom get its turn."""
MANY = 1000
"""The number of totals from which those of removed Services are searched."""
MOST_REMOVED = 100
"""The maximum number of elements that are read before a round removes them."""
_Counters: TypeAlias = Callable[[Family, Mapping[bytes, int], Elements, FullNames], Iterator[Counter]]


class RefusedCounters:
    """The counters of refused connections of all tables. Thread-safe."""

    def __init__(self, dataplanes: Mapping[Family, Dataplane]) -> None:
        self._dataplanes = dataplanes
        self._refused = Refused()
        self._lock = Lock()
        """Held while some elements are read, and while a round removes elements."""
        self._turn = Lock()
        """Held during a whole reading."""
        self.full_names: FullNames = {}
        self._many = MANY
        self._written: dict[tuple[Family, SetName], set[bytes]] = {}
        """The keys that packets have written, as of the last complete reading."""
        self.seconds = 0.0
        """The CPU time of the last reading."""
        for dataplane in dataplanes.values():
            dataplane.removing = self._removing

    def read(self) -> None:
        """Read the counters, in a thread of its own. Raises KproxyError and OSError."""
        with self._turn, Netlink() as netlink:
            begun = time.thread_time()
            for family, dataplane in self._dataplanes.items():
                self._read_family(netlink, family, dataplane.applied)
            self._forget_removed_services()
            self.seconds = time.thread_time() - begun

    def read_news(self) -> dict[Refusal, int]:
        """Read the counters as `read` does. Returns what was refused since the last call."""
        self.read()
        with self._lock:
            return self._refused.take_news()

    def totals(self) -> dict[tuple[ServicePortName, Reason], int]:
        """Return the totals as of the last reading, also of some Services that no longer exist."""
        with self._lock:
            return dict(self._refused.totals)

    def _forget_removed_services(self) -> None:
        """Forget their names and totals, and those of removed ports, once there are many."""
        every = [
            dataplane.applied.get(scope.verdicts, {})
            for dataplane in self._dataplanes.values()
            for scope in EndpointScope
        ]
        forget_names(sum(map(len, every)))
        if len(self._refused.totals) < self._many:
            return
        owners = (service_port_of(verdict) for verdicts in every for verdict in list(verdicts.values()))
        present = {owner for owner in owners if owner} | set(self.full_names.values())
        present |= {owner._replace(port="") for owner in present}
        with self._lock:
            self._refused.retain(present.__contains__)
            self._many = 2 * len(self._refused.totals) + MANY

    def _read_family(self, netlink: Netlink, family: Family, applied: Elements) -> None:
        for scope in EndpointScope:
            members = list(applied.get(scope.verdicts, {}).items())  # one step: a round may change `applied`
            keys = [key for key, verdict in members if refusal_reason(verdict)]
            for start in range(0, len(keys), AT_ONCE):
                with self._lock:
                    self._refused.take(self._frontends(netlink, family, scope, keys[start : start + AT_ONCE]))
                time.sleep(PAUSE)
        self._read_written(netlink, family, SetName.REFUSED_SOURCES, applied, source_counters)
        self._read_written(netlink, family, SetName.REFUSED_PORTS, applied, port_counters)

    def _read_written(
        self, netlink: Netlink, family: Family, name: SetName, applied: Elements, counters: _Counters
    ) -> None:
        """Read a set whose elements packets write, and forget those that have expired."""
        found, complete = read_written(netlink, family, name)
        before = self._written.get((family, name), set())
        if not found and not before:
            return
        gone = before - found.keys() if complete else set()
        self._written[family, name] = before - gone | found.keys()
        taken = list(counters(family, found, applied, self.full_names))  # before a round may have to wait
        with self._lock:
            self._refused.forget((family, name, key) for key in gone)
            self._refused.take(taken)

    @contextmanager
    def _removing(self, family: Family, transaction: Transaction) -> Iterator[None]:
        """Read the counters of elements before a transaction removes them, and forget them after it.

        Nothing else reads in between, so new elements with the same keys begin at zero.
        """
        removed = {
            scope: [key for key, verdict in members.items() if refusal_reason(verdict)]
            for scope in EndpointScope
            if (members := transaction.remove.get(scope.verdicts))
        }
        if not any(removed.values()):
            yield
            return
        netlink = self._dataplanes[family].netlink
        with self._lock:
            with suppress(KproxyError, OSError):  # the round is more important than the last refusals
                for scope, keys in removed.items():
                    self._refused.take(self._frontends(netlink, family, scope, keys[:MOST_REMOVED]))
            yield
            self._refused.forget((family, scope, key) for scope, keys in removed.items() for key in keys)

    def _frontends(
        self, netlink: Netlink, family: Family, scope: EndpointScope, keys: Sequence[bytes]
    ) -> Iterator[Counter]:
        """Read the elements with these keys in a verdict map."""
        elements = netlink.some_elements(family, scope.verdicts, keys)
        counted = ((*read_element(element), read_packets(element)) for element in elements)
        return frontend_counters(family, scope, counted, self.full_names)


def read_written(netlink: Netlink, family: Family, name: SetName) -> tuple[dict[bytes, int], bool]:
    """Return the packets of each element that packets wrote, and whether these are all elements."""
    found: dict[bytes, int] = {}
    try:
        for element in netlink.elements(family, name):
            found[read_element(element)[0]] = read_packets(element)
    except Interrupted:
        return found, False
    except NetlinkError as error:
        if not is_missing(error):
            raise
        return found, False  # kproxy may be about to restore the table
    return found, True
