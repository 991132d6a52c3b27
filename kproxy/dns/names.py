"""Keeps the zone up to date with the tables: an observer that changes it after each round.

The zone changes in the event loop's thread, between two answers, before other observers report the round.
So a client that knows of the round gets the new answer. Services whose tables failed, or that the kernel
refused, keep their names as they were, until a later round succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from kproxy.dns.resolver import Resolver
from kproxy.model import Address, EndpointSlice, Family, NamespacedName, Service, family_of
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.sources.source import FollowedSource


class Names(RoundObserver):
    """The names of a source's objects in the zone of a resolver."""

    def __init__(self, resolver: Resolver, source: FollowedSource) -> None:
        self.is_refused: Callable[[NamespacedName], bool] = lambda _: False
        """Returns whether the kernel refused a Service."""
        self.pods: frozenset[Address] = frozenset()
        """The addresses of pods."""
        self._resolver = resolver
        self._source = source
        self._pending: set[NamespacedName] = set()
        self._served: dict[NamespacedName, tuple[Service, tuple[EndpointSlice, ...]]] = {}
        self._revision: int | None = None

    def round_done(self, done: RoundReport) -> None:
        """Change the names of the Services that are programmed."""
        self._pending.update(done.names)
        for name in tuple(self._pending):
            if not self._failed(name, done.failures.keys()):
                self._pending.remove(name)
                self._update(name)
        if self._revision != self._source.revision:
            self._revision = self._source.revision
            pods = frozenset(self._pods())
            self._resolver.zone.set_pods(pods)
            self.pods = frozenset(address for _, address in pods)
            self._resolver.clients_changed()
        self._resolver.ready |= len(done.failures) < len(Family)

    def _update(self, name: NamespacedName) -> None:
        """Change the names of a Service, unless it is as before: a round may have looked at all."""
        service, slices = self._source.service(name), self._source.slices(name)
        found = None if service is None else (service, slices)
        if found != self._served.get(name):
            self._resolver.zone.update(name, service, slices)
        if found is None:
            self._served.pop(name, None)
        else:
            self._served[name] = found

    def _failed(self, name: NamespacedName, failures: Collection[Family]) -> bool:
        if self.is_refused(name):
            return True
        return bool(failures) and not self._families(name).isdisjoint(failures)

    def _families(self, name: NamespacedName) -> set[Family]:
        """Return the families in which a Service has addresses or had some."""
        service, slices = self._source.service(name), self._source.slices(name)
        before, slices_before = self._served.get(name, (None, ()))
        found = {slice_.family for slice_ in (*slices, *slices_before)}
        for each in (service, before):
            found.update(map(family_of, each.cluster_ips if each else ()))
        return found

    def _pods(self) -> Iterable[tuple[str, Address]]:
        pods = self._source.inventory().pods
        return ((pod.name.namespace, address) for pod in pods for address in pod.addresses)
