"""The zone: all names of the cluster domain and of the reverse zones of the Services.

Answers are kept as bytes, ready to be copied behind a question. Each record set belongs to an owner: a
Service, or an address of a pod. A change of one Service replaces its record sets, and its cost depends only
on this Service. Only reverse names can have several owners.

`nodes` contains each name that exists, also one that has no records and is above another name, such as
`default.svc.cluster.local`. For such names the answer is empty, and for other names it is NXDOMAIN.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from struct import pack

from msgspec import Struct

from kproxy.dns.core.names import Name, below, compressed, name_of, pointers, reverse_zones, suffixes
from kproxy.dns.core.records import (
    TTL,
    RecordSet,
    Type,
    pod_records,
    server_name,
    service_records,
    zone_records,
)
from kproxy.model import Address, EndpointSlice, NamespacedName, Network, Service

CLASS_IN = 1
NO_TYPE = 0
"""In a key: the name exists, with or without records."""
TO_QUESTION = b"\xc0\x0c"
"""A pointer to the name in the question."""
REFRESH, RETRY, EXPIRE = 7200, 1800, 86400
"""Seconds, for secondary servers. kproxy has none."""


class Answer(Struct, frozen=True, gc=False):
    """The records that answer one question, as bytes."""

    records: tuple[bytes, ...]
    """Each begins with `TO_QUESTION`."""
    extras: tuple[bytes, ...] = ()
    """Records for the additional section."""


def key(name: Name, kind: int) -> bytes:
    """Return the key of an answer: a question of class IN."""
    return name + pack("!HH", kind, CLASS_IN)


def record(owner: bytes, kind: int, ttl: int, data: bytes) -> bytes:
    """Return a record of class IN in wire format. `owner` may be compressed."""
    return owner + pack("!HHIH", kind, CLASS_IN, ttl, len(data)) + data


def soa_data(domain: Name, serial: int) -> bytes:
    """Return the data of a SOA record."""
    mailbox = below(domain, "hostmaster")
    assert mailbox is not None
    times = pack("!IIIII", serial & 0xFFFFFFFF, REFRESH, RETRY, EXPIRE, TTL)
    return server_name(domain) + mailbox + times


class Zone:
    """The answers. `answers` and `nodes` are to be read only."""

    def __init__(
        self,
        domain: str,
        servers: Iterable[Address] = (),
        service_cidrs: Iterable[Network] = (),
        serial: int = 1,
    ) -> None:
        """`servers`: the addresses of the name server. `service_cidrs`: the networks of ClusterIPs.

        `serial` is the first serial number. Raises ValueError if the domain is not a name.
        """
        wire = name_of(domain)
        if wire is None or len(wire) > 128:
            raise ValueError(f"{domain!r} is not a domain name")
        self.domain: Name = wire
        self.serial = serial
        self.soa = soa_data(wire, serial)
        """The data of the SOA records."""
        self.answers: dict[bytes, Answer] = {}
        self.nodes: dict[Name, int] = {}
        """Each existing name, and the number of record sets at or below it."""
        self.apexes = (wire, *(zone for cidr in service_cidrs for zone in reverse_zones(cidr)))
        self._apexes = frozenset(self.apexes)
        self._keys: dict[Hashable, tuple[bytes, ...]] = {}
        """The keys of each owner's record sets, and with `NO_TYPE` those of other names that it needs."""
        self._shared: dict[bytes, dict[Hashable, RecordSet]] = {}
        """Record sets of reverse names, by key and owner."""
        self._pods: frozenset[tuple[str, Address]] = frozenset()
        own = [*zone_records(wire, servers), *self._delegations()]
        self._replace("zone", own, (*self.apexes, *self._below("svc"), *self._below("pod")))

    def update(
        self, name: NamespacedName, service: Service | None, slices: Iterable[EndpointSlice] = ()
    ) -> None:
        """Replace the records of a Service; remove them if `service` is None."""
        if service is None:
            self._remove(name)
        else:
            sets = service_records(service, slices, self.domain)
            self._replace(name, sets, self._namespace(name.namespace))
        self._changed()

    def set_pods(self, pods: frozenset[tuple[str, Address]]) -> None:
        """Replace the records of pods, by namespace and address. The cost depends on those that changed."""
        if pods == self._pods:
            return
        for gone in self._pods - pods:
            self._remove(gone)
        for new in pods - self._pods:
            self._replace(new, pod_records(*new, self.domain), self._namespace(new[0]))
        self._pods = pods
        self._changed()

    def apex_of(self, name: Name) -> Name | None:
        """Return the zone that contains a name; None if the name is outside."""
        start = 0
        while length := name[start]:
            if (suffix := name[start:]) in self._apexes:
                return suffix
            start += length + 1
        return None

    def set_serial(self, serial: int) -> None:
        """Set the serial number of the SOA records. Each change increases it."""
        self.serial, self.soa = serial, soa_data(self.domain, serial)

    def _changed(self) -> None:
        self.set_serial(self.serial + 1)

    def _below(self, *labels: str) -> tuple[Name, ...]:
        name = below(self.domain, *labels)
        return () if name is None else (name,)

    def _namespace(self, namespace: str) -> tuple[Name, ...]:
        return (*self._below(namespace, "svc"), *self._below(namespace, "pod"))

    def _delegations(self) -> Iterator[RecordSet]:
        server = server_name(self.domain)
        return (RecordSet(apex, Type.NS, (server,)) for apex in self.apexes if apex != self.domain)

    def _replace(self, owner: Hashable, sets: Iterable[RecordSet], nodes: Iterable[Name]) -> None:
        """Replace the record sets of an owner, and the names that it needs in addition."""
        found = {key(node, NO_TYPE): None for node in nodes} | _by_key(sets)
        before = frozenset(self._keys.get(owner, ()))
        self._keys[owner] = tuple(found)
        for gone in before - found.keys():
            self._drop(owner, gone)
        for at, each in found.items():
            if at not in before:
                self._count(at[:-4], 1)
            if each is not None:
                self._set(owner, at, each)

    def _remove(self, owner: Hashable) -> None:
        for gone in self._keys.pop(owner, ()):
            self._drop(owner, gone)

    def _count(self, name: Name, change: int) -> None:
        """Count a record set for its name and for the names above it in the zone."""
        apex = self.apex_of(name)
        if apex is None:
            return
        for node in suffixes(name):
            count = self.nodes.get(node, 0) + change
            if count:
                self.nodes[node] = count
            else:
                del self.nodes[node]
            if node == apex:
                break

    def _drop(self, owner: Hashable, at: bytes) -> None:
        self._count(at[:-4], -1)
        shared = self._shared.get(at)
        if shared is None:
            self.answers.pop(at, None)
            return
        del shared[owner]
        if shared:
            self.answers[at] = _merged(shared.values())
        else:
            del self._shared[at], self.answers[at]

    def _set(self, owner: Hashable, at: bytes, found: RecordSet) -> None:
        if found.type is not Type.PTR:
            self.answers[at] = _answer(found)
            return
        shared = self._shared.setdefault(at, {})
        if shared.get(owner) != found:
            shared[owner] = found
            self.answers[at] = _merged(shared.values())


def _by_key(sets: Iterable[RecordSet]) -> dict[bytes, RecordSet]:
    """Return record sets by key. An address with several host names has several sets with one key."""
    found: dict[bytes, RecordSet] = {}
    for each in sets:
        at = key(each.name, each.type)
        earlier = found.get(at)
        found[at] = each if earlier is None else each._replace(data=(*earlier.data, *each.data))
    return found


def _merged(sets: Iterable[RecordSet]) -> Answer:
    """Return the answer of several owners. It does not depend on their order."""
    every = [*sets]
    if len(every) == 1:
        return _answer(every[0])
    data = sorted({data for each in every for data in each.data})
    return _answer(every[0]._replace(data=tuple(data)))


def _answer(found: RecordSet) -> Answer:
    records = tuple(record(TO_QUESTION, found.type, found.ttl, data) for data in found.data)
    if not found.extras:
        return Answer(records)
    known = pointers(found.name)
    extras = (
        record(compressed(each.name, known), each.type, each.ttl, data)
        for each in found.extras
        for data in each.data
    )
    return Answer(records, tuple(extras))
