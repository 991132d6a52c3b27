"""The zone: all names of the cluster domain and of the reverse zones of the Services.

Answers are kept as bytes, ready to be copied behind a question. Each belongs to an owner: a Service, a block
of endpoints of a headless Service, or an address of a pod. A change replaces the answers of the owners that
changed. If several owners have parts of one answer, as the blocks of a large Service have, these are merged
when a client asks. So the cost of a change does not depend on the number of Services, and hardly on the
number of endpoints.

`nodes` contains each name that exists, also one that has no records and is above another name, such as
`default.svc.cluster.local`. For such names the answer is empty, and for other names it is NXDOMAIN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from functools import cached_property
from struct import pack

from msgspec import Struct

from kproxy.dns.core.names import Name, below, compressed, name_of, pointers, reverse_zones, suffixes
from kproxy.dns.core.records import (
    TTL,
    Published,
    RecordSet,
    Type,
    endpoint_records,
    own_records,
    pod_records,
    published,
    server_name,
    zone_records,
)
from kproxy.model import Address, EndpointSlice, NamespacedName, Network, Service

CLASS_IN = 1
NO_TYPE = 0
"""In a key: the name exists, with or without records."""
TO_QUESTION = b"\xc0\x0c"
"""A pointer to the name in the question."""
BLOCK_BITS = 3
"""A block of endpoints has the addresses that are equal without their last bits."""
REFRESH, RETRY, EXPIRE = 7200, 1800, 86400
"""Seconds, for secondary servers. kproxy has none."""


class Answer(Struct, frozen=True, gc=False):
    """The records that answer one question, as bytes."""

    records: tuple[bytes, ...]
    """Each begins with `TO_QUESTION`."""
    extras: tuple[bytes, ...] = ()
    """Records for the additional section."""


class SharedAnswer:
    """The parts of several owners as one `Answer`. It does not depend on their order."""

    def __init__(self, parts: Iterable[Answer]) -> None:
        self.parts = [*parts]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedAnswer) and (self.records, self.extras) == (
            other.records,
            other.extras,
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def records(self) -> tuple[bytes, ...]:
        """As in `Answer`."""
        return tuple(sorted({each for part in self.parts for each in part.records}))

    @cached_property
    def extras(self) -> tuple[bytes, ...]:
        """As in `Answer`."""
        return tuple(sorted({each for part in self.parts for each in part.extras}))


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
        self.answers: dict[bytes, Answer | SharedAnswer] = {}
        self.nodes: dict[Name, int] = {}
        """Each existing name, and the number of record sets at or below it."""
        self.apexes = (wire, *(zone for cidr in service_cidrs for zone in reverse_zones(cidr)))
        self._apexes = frozenset(self.apexes)
        self._parts: dict[Hashable, dict[bytes, Answer | None]] = {}
        """The answers of each owner, by key. With `NO_TYPE` and None: other names that it needs."""
        self._blocks: dict[NamespacedName, dict[int, list[Published]]] = {}
        """The endpoints of headless Services, by block."""
        self._pods: frozenset[tuple[str, Address]] = frozenset()
        own = [*zone_records(wire, servers), *self._delegations()]
        self._replace("zone", own, (*self.apexes, *self._below("svc"), *self._below("pod")))

    def update(
        self, name: NamespacedName, service: Service | None, slices: Iterable[EndpointSlice] = ()
    ) -> None:
        """Replace the records of a Service; remove them if `service` is None."""
        self._update_endpoints(name, {} if service is None else _blocks(published(service, slices)))
        if service is None:
            self._remove(name)
        else:
            self._replace(name, own_records(service, self.domain), self._namespace(name.namespace))
        self._changed()

    def _update_endpoints(self, name: NamespacedName, blocks: dict[int, list[Published]]) -> None:
        before = self._blocks.pop(name, {})
        for gone in before.keys() - blocks.keys():
            self._remove((name, gone))
        for block, endpoints in blocks.items():
            if endpoints != before.get(block):
                self._replace((name, block), endpoint_records(name, endpoints, self.domain))
        if blocks:
            self._blocks[name] = blocks

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

    def _replace(self, owner: Hashable, sets: Iterable[RecordSet], nodes: Iterable[Name] = ()) -> None:
        """Replace the answers of an owner, and the names that it needs in addition."""
        found: dict[bytes, Answer | None] = {key(node, NO_TYPE): None for node in nodes}
        found.update((at, _answer(each)) for at, each in _by_key(sets).items())
        before = self._parts.get(owner, {})
        for at in before.keys() - found.keys():
            self._drop(at, before[at])
        for at, part in found.items():
            if at not in before:
                self._count(at[:-4], 1)
            elif part == before[at]:
                found[at] = before[at]  # the part that `answers` has
                continue
            else:
                self._withdraw(at, before[at])
            self._add(at, part)
        self._parts[owner] = found

    def _remove(self, owner: Hashable) -> None:
        for at, part in self._parts.pop(owner, {}).items():
            self._drop(at, part)

    def _drop(self, at: bytes, part: Answer | None) -> None:
        self._count(at[:-4], -1)
        self._withdraw(at, part)

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

    def _add(self, at: bytes, part: Answer | None) -> None:
        if part is None:
            return
        present = self.answers.get(at)
        if present is None:
            self.answers[at] = part
        else:
            others = present.parts if isinstance(present, SharedAnswer) else [present]
            self.answers[at] = SharedAnswer((*others, part))

    def _withdraw(self, at: bytes, part: Answer | None) -> None:
        if part is None:
            return
        present = self.answers[at]
        if not isinstance(present, SharedAnswer):
            del self.answers[at]
            return
        others = [each for each in present.parts if each is not part]
        self.answers[at] = SharedAnswer(others) if len(others) > 1 else others[0]


def _blocks(endpoints: Iterable[Published]) -> dict[int, list[Published]]:
    """Return endpoints by blocks of their addresses, which do not depend on other endpoints."""
    found: dict[int, list[Published]] = defaultdict(list)
    for each in endpoints:
        found[int.from_bytes(each[0].address, "big") >> BLOCK_BITS].append(each)
    return found


def _by_key(sets: Iterable[RecordSet]) -> dict[bytes, RecordSet]:
    """Return record sets by key. An address with several host names has several sets with one key."""
    found: dict[bytes, RecordSet] = {}
    for each in sets:
        at = key(each.name, each.type)
        earlier = found.get(at)
        found[at] = each if earlier is None else each._replace(data=(*earlier.data, *each.data))
    return found


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
