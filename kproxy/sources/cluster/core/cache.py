"""What the API server last said, by service, and which services that touches.

Changes go in one by one, in any order and any number of times; `take` gives the services for
which something is different since the last time. How many changes there were does not matter.

An object that cannot be decoded is a problem, and its last good version stays in force. Where
there is none, what it would have been a part of is in doubt: nothing of it may be removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from types import MappingProxyType

from kproxy.decode.objects import UndecodableError, Unreadable
from kproxy.model import ClusterNode, EndpointSlice, NamespacedName, Service
from kproxy.problems import Problem, unreadable_sentence
from kproxy.sources.cluster.core.events import ObjectChange


class Cache:
    """The objects of a cluster as far as one node needs them; empty at first."""

    def __init__(self) -> None:
        self.node: ClusterNode | None = None
        self.node_changed = False
        self._services: dict[NamespacedName, Service] = {}
        self._slices: dict[NamespacedName, EndpointSlice] = {}
        """By namespace and the slice's own name."""
        self._members: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
        """The same ones by service, in order of their names."""
        self._undecodable: dict[tuple[str, NamespacedName], UndecodableError] = {}
        self._unreadable: Unreadable | None = None
        """Of all that is undecodable; None until it is asked for."""
        self._uncertain: set[NamespacedName] = set()
        """Services that were taken while in doubt: they are touched again when the doubt ends."""
        self._unreadable_ended = False
        """Since the last `take`: what was kept of services that nobody knows any more may go."""
        self._touched: set[NamespacedName] = set()
        self._triggers: list[str] = []

    def apply(self, change: ObjectChange) -> None:
        """Take in what the server says of one object."""
        place = change.kind, change.key
        ended = self._undecodable.pop(place, None)
        if change.undecodable is None:
            self._store(change)
        else:
            self._undecodable[place] = change.undecodable
            self._touched.update(change.undecodable.unreadable.services)
        if ended or self._undecodable:
            self._unreadable = None
        if ended:
            freed = {name for name in self._uncertain if not self.is_protected(name)}
            self._touched |= ended.unreadable.services.keys() | freed
            self._uncertain -= freed
            self._unreadable_ended = True

    def retain(self, kind: str, keys: Collection[NamespacedName]) -> None:
        """Of a kind there are only those of these names: what else is known of it is gone."""
        for key in [key for key in self._keys(kind) if key not in keys]:
            self.apply(ObjectChange(kind, key, None))

    @property
    def pending(self) -> bool:
        """Whether `take` has something, the node is another, or a doubt ended."""
        return bool(self._touched) or self.node_changed or self._unreadable_ended

    def take(self) -> set[NamespacedName]:
        """The services that something happened to since the last call; also settles what `pending` says."""
        touched, self._touched = self._touched, set()
        self.node_changed = self._unreadable_ended = False
        if self._undecodable:
            self._uncertain |= {name for name in touched if self.is_protected(name)}
        return touched

    def take_triggers(self) -> list[str]:
        """When what changed endpoints since the last call happened (RFC 3339)."""
        triggers, self._triggers = self._triggers, []
        return triggers

    def service(self, name: NamespacedName) -> Service | None:
        """The Service of this name."""
        return self._services.get(name)

    def services(self) -> Mapping[NamespacedName, Service]:
        """All Services; a view that changes with the cache."""
        return MappingProxyType(self._services)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """The EndpointSlices of a service, in order of their names; it need not exist itself."""
        return self._members.get(name, ())

    def all_slices(self) -> Mapping[NamespacedName, tuple[EndpointSlice, ...]]:
        """The same for every service that has some; a view that changes with the cache."""
        return MappingProxyType(self._members)

    def problems(self) -> list[Problem]:
        """What is wrong now, in order of the objects' names."""
        return [self._undecodable[key].problem for key in sorted(self._undecodable)]

    def held(self) -> dict[NamespacedName, str]:
        """Services of which the last good version of an object is in force, and why."""
        causes: dict[NamespacedName, list[Problem]] = defaultdict(list)
        for (kind, key), undecodable in sorted(self._undecodable.items(), key=lambda item: item[0]):
            for service in self._good(kind, key):
                causes[service].append(undecodable.problem)
        return {service: unreadable_sentence(found) for service, found in causes.items()}

    def is_protected(self, name: NamespacedName) -> bool:
        """Whether some of this service cannot be decoded and never could: nothing of it may be removed."""
        return bool(self._undecodable) and self._never_readable().covers(name)

    def why_protected(self, name: NamespacedName) -> str:
        """What of it cannot be decoded and never could, as a sentence; "" if nothing."""
        causes = self._never_readable().causes(name)
        return unreadable_sentence(causes) if causes else ""

    def _never_readable(self) -> Unreadable:
        if self._unreadable is None:
            self._unreadable = Unreadable()
            for (kind, key), undecodable in self._undecodable.items():
                good = self._good(kind, key)
                if kind != "Node" and not (good and undecodable.unreadable.services.keys() == good):
                    self._unreadable.update(undecodable.unreadable)
        return self._unreadable

    def _good(self, kind: str, key: NamespacedName) -> set[NamespacedName]:
        """What an object's last good version is a part of."""
        if kind == "Service":
            return {key} & self._services.keys()
        return {self._slices[key].service} if key in self._slices else set()

    def _keys(self, kind: str) -> set[NamespacedName]:
        undecodable = {key for of, key in self._undecodable if of == kind}
        if kind == "Service":
            return undecodable | self._services.keys()
        if kind == "EndpointSlice":
            return undecodable | self._slices.keys()
        return undecodable | ({NamespacedName("default", self.node.name)} if self.node else set())

    def _store(self, change: ObjectChange) -> None:
        key, model = change.key, change.model
        if change.kind == "Service":
            assert model is None or isinstance(model, Service)
            if self._services.get(key) != model:
                self._touched.add(key)
                if model is None:
                    del self._services[key]
                else:
                    self._services[key] = model
        elif change.kind == "EndpointSlice":
            assert model is None or isinstance(model, EndpointSlice)
            self._store_slice(key, model, change.trigger)
        else:
            assert model is None or isinstance(model, ClusterNode)
            if self.node != model:
                self.node, self.node_changed = model, True

    def _store_slice(self, key: NamespacedName, after: EndpointSlice | None, trigger: str) -> None:
        before = self._slices.get(key)
        if before == after:
            return
        if before is not None:
            self._replace_member(before.service, before.name, None)
            del self._slices[key]
        if after is not None:
            self._replace_member(after.service, after.name, after)
            self._slices[key] = after
            if trigger:
                self._triggers.append(trigger)

    def _replace_member(self, service: NamespacedName, name: str, after: EndpointSlice | None) -> None:
        members = [member for member in self._members.get(service, ()) if member.name != name]
        if after is not None:
            members.append(after)
            members.sort(key=lambda member: member.name)
        if members:
            self._members[service] = tuple(members)
        else:
            self._members.pop(service, None)
        self._touched.add(service)
