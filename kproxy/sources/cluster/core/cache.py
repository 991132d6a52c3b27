"""Caches the objects of the API server, and determines which services changed.

Changes are applied one by one, in any order and any number of times. `take` returns the services that changed
since the last call, whatever the number of changes.

An object that cannot be decoded is a problem, and its last valid version stays in use. If there is no valid
version, the services to which the object may belong are protected: nothing of them may be removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from types import MappingProxyType

from kproxy.decode import gateway_objects
from kproxy.decode.objects import GATEWAY_KINDS, GatewayObject, UndecodableError, Unreadable
from kproxy.gatewayapi import GatewayObjects
from kproxy.model import Address, ClusterNode, EndpointSlice, NamespacedName, Network, Service, ServiceCIDR
from kproxy.problems import Problem, unreadable_sentence
from kproxy.sources.cluster.core.events import ObjectChange
from kproxy.sources.cluster.core.ranges import without


class Cache:
    """The objects of a cluster that one node needs. Empty at first."""

    def __init__(self) -> None:
        self.node: ClusterNode | None = None
        self.rules_changed = False
        """Since the last `take`, something changed on which the rules depend: the node or a ServiceCIDR."""
        self._service_cidrs: dict[NamespacedName, ServiceCIDR] = {}
        self._elsewhere: dict[NamespacedName, tuple[Address, ...]] = {}
        """The ClusterIPs of Services that another proxy serves."""
        self._ranges: tuple[Network, ...] | None = None
        """The cached result of `service_cidrs`."""
        self._services: dict[NamespacedName, Service] = {}
        self._slices: dict[NamespacedName, EndpointSlice] = {}
        """By namespace and name of the slice."""
        self._slices_of: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
        """The same slices by service, sorted by name."""
        self._undecodable: dict[tuple[str, NamespacedName], UndecodableError] = {}
        self._warnings: dict[tuple[str, NamespacedName], tuple[Problem, ...]] = {}
        self._unreadable: Unreadable | None = None
        """The cached result of `_never_readable`."""
        self._taken_protected: set[NamespacedName] = set()
        """Services that were protected when they were taken. They change again when the protection ends."""
        self._protection_ended = False
        """Since the last `take`. What the table contains of services that no longer exist may be removed."""
        self._gateway_objects: dict[tuple[str, NamespacedName], GatewayObject] = {}
        """By kind and name."""
        self.gateways_changed = False
        """Whether an object of the Gateway API changed since `take_gateways`."""
        self._changed: set[NamespacedName] = set()
        self._triggers: list[str] = []

    @property
    def has_node(self) -> bool:
        """Whether the Node exists, even if it cannot be decoded."""
        return bool(self._keys("Node"))

    def apply(self, change: ObjectChange) -> None:
        """Apply the present state of one object."""
        place = change.kind, change.key
        ended = self._undecodable.pop(place, None)
        if change.warnings and change.model is not None:
            self._warnings[place] = change.warnings
        else:
            self._warnings.pop(place, None)
        if change.undecodable is None:
            self._store(change)
        else:
            self._undecodable[place] = change.undecodable
            self._changed.update(change.undecodable.unreadable.services)
        if ended or self._undecodable:
            self._unreadable = None
        if ended:
            unprotected = {name for name in self._taken_protected if not self.is_protected(name)}
            self._changed |= ended.unreadable.services.keys() | unprotected
            self._taken_protected -= unprotected
            self._protection_ended = True

    def retain(self, kind: str, keys: Collection[NamespacedName]) -> None:
        """Delete all objects of a kind except those with these names."""
        for key in [key for key in self._keys(kind) if key not in keys]:
            self.apply(ObjectChange(kind, key, None))

    @property
    def pending(self) -> bool:
        """Whether a service or the rules changed, or a protection ended, since the last `take`."""
        return bool(self._changed) or self.rules_changed or self._protection_ended or self.gateways_changed

    def take(self) -> set[NamespacedName]:
        """Return the services that changed since the last call, and reset `pending`."""
        changed, self._changed = self._changed, set()
        self.rules_changed = self._protection_ended = False
        if self._undecodable:
            self._taken_protected |= {name for name in changed if self.is_protected(name)}
        return changed

    def take_gateways(self) -> GatewayObjects:
        """Return the objects of the Gateway API, and reset `gateways_changed`."""
        self.gateways_changed = False
        return gateway_objects(self._gateway_objects.values())

    def take_triggers(self) -> list[str]:
        """Return the times (RFC 3339) of events that changed endpoints since the last call."""
        triggers, self._triggers = self._triggers, []
        return triggers

    def service(self, name: NamespacedName) -> Service | None:
        """Return the Service of this name; None if it does not exist."""
        return self._services.get(name)

    def services(self) -> Mapping[NamespacedName, Service]:
        """Return all Services, as a view that changes with the cache."""
        return MappingProxyType(self._services)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Return the EndpointSlices of a service, sorted by name. The service need not exist."""
        return self._slices_of.get(name, ())

    def all_slices(self) -> Mapping[NamespacedName, tuple[EndpointSlice, ...]]:
        """Return all EndpointSlices by service, as a view that changes with the cache."""
        return MappingProxyType(self._slices_of)

    def service_cidrs(self) -> tuple[Network, ...]:
        """Return the ranges of all ServiceCIDRs, without ClusterIPs of Services that another proxy serves."""
        if self._ranges is None:
            networks = (network for each in self._service_cidrs.values() for network in each.networks)
            taken = (address for each in self._elsewhere.values() for address in each)
            self._ranges = without(networks, taken)
        return self._ranges

    def problems(self) -> list[Problem]:
        """Return the present problems, sorted by object."""
        return [self._undecodable[key].problem for key in sorted(self._undecodable)]

    def warnings(self) -> list[Problem]:
        """Return the warnings about objects that are in use, sorted by the objects' names."""
        return [warning for key in sorted(self._warnings) for warning in self._warnings[key]]

    def held(self) -> dict[NamespacedName, str]:
        """Return the services for which the last valid version of an object is in use, and why."""
        causes: dict[NamespacedName, list[Problem]] = defaultdict(list)
        for (kind, key), undecodable in sorted(self._undecodable.items(), key=lambda item: item[0]):
            for service in self._services_in_use(kind, key):
                causes[service].append(undecodable.problem)
        return {service: unreadable_sentence(found) for service, found in causes.items()}

    def is_protected(self, name: NamespacedName) -> bool:
        """Whether an object of this service cannot be decoded, and never could."""
        return bool(self._undecodable) and self._never_readable().covers(name)

    def why_protected(self, name: NamespacedName) -> str:
        """Return a sentence that names the objects because of which a service is protected; "" if none."""
        causes = self._never_readable().causes(name)
        return unreadable_sentence(causes) if causes else ""

    def _never_readable(self) -> Unreadable:
        if self._unreadable is None:
            self._unreadable = Unreadable()
            for (kind, key), undecodable in self._undecodable.items():
                if (kind, key) in self._gateway_objects:
                    continue
                in_use = self._services_in_use(kind, key)
                if kind != "Node" and not (in_use and undecodable.unreadable.services.keys() == in_use):
                    self._unreadable.update(undecodable.unreadable)
        return self._unreadable

    def _services_in_use(self, kind: str, key: NamespacedName) -> set[NamespacedName]:
        """Return the service to which the last valid version of an object belongs."""
        if kind == "Service":
            return {key} & self._services.keys()
        return {self._slices[key].service} if kind == "EndpointSlice" and key in self._slices else set()

    def _keys(self, kind: str) -> set[NamespacedName]:
        undecodable = {key for of, key in self._undecodable if of == kind}
        if kind == "Service":
            return undecodable | self._services.keys()
        if kind == "EndpointSlice":
            return undecodable | self._slices.keys()
        if kind == "ServiceCIDR":
            return undecodable | self._service_cidrs.keys()
        if kind in GATEWAY_KINDS:
            return undecodable | {key for of, key in self._gateway_objects if of == kind}
        return undecodable | ({NamespacedName("default", self.node.name)} if self.node else set())

    def _store(self, change: ObjectChange) -> None:
        key, model = change.key, change.model
        if change.kind == "Service":
            assert model is None or isinstance(model, Service)
            if self._services.get(key) != model:
                self._changed.add(key)
                self._store_elsewhere(key, model.cluster_ips if model and model.proxied_elsewhere else ())
                if model is None:
                    del self._services[key]
                else:
                    self._services[key] = model
        elif change.kind == "EndpointSlice":
            assert model is None or isinstance(model, EndpointSlice)
            self._store_slice(key, model, change.trigger)
        elif change.kind == "ServiceCIDR":
            assert model is None or isinstance(model, ServiceCIDR)
            self._store_service_cidr(key, model)
        elif change.kind in GATEWAY_KINDS:
            assert model is None or isinstance(model, GatewayObject)
            self._store_gateway_object((change.kind, key), model)
        else:
            assert model is None or isinstance(model, ClusterNode)
            if self.node != model:
                self.node, self.rules_changed = model, True

    def _store_gateway_object(self, place: tuple[str, NamespacedName], model: GatewayObject | None) -> None:
        if self._gateway_objects.get(place) == model:
            return
        self.gateways_changed = True
        if model is None:
            self._gateway_objects.pop(place, None)
        else:
            self._gateway_objects[place] = model

    def _store_elsewhere(self, key: NamespacedName, cluster_ips: tuple[Address, ...]) -> None:
        if self._elsewhere.get(key, ()) != cluster_ips:
            self._ranges, self.rules_changed = None, True
            self._elsewhere[key] = cluster_ips
            if not cluster_ips:
                del self._elsewhere[key]

    def _store_service_cidr(self, key: NamespacedName, model: ServiceCIDR | None) -> None:
        if self._service_cidrs.get(key) == model:
            return
        self._ranges, self.rules_changed = None, True
        if model is None:
            self._service_cidrs.pop(key, None)
        else:
            self._service_cidrs[key] = model

    def _store_slice(self, key: NamespacedName, after: EndpointSlice | None, trigger: str) -> None:
        before = self._slices.get(key)
        if before == after:
            return
        if before is not None:
            self._replace_slice(before.service, before.name, None)
            del self._slices[key]
        if after is not None:
            self._replace_slice(after.service, after.name, after)
            self._slices[key] = after
            if trigger:
                self._triggers.append(trigger)

    def _replace_slice(self, service: NamespacedName, name: str, after: EndpointSlice | None) -> None:
        slices = [each for each in self._slices_of.get(service, ()) if each.name != name]
        if after is not None:
            slices.append(after)
            slices.sort(key=lambda each: each.name)
        if slices:
            self._slices_of[service] = tuple(slices)
        else:
            self._slices_of.pop(service, None)
        self._changed.add(service)
