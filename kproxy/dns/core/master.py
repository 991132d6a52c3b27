"""Record sets as a zone file (RFC 1035), for BIND, Knot and NSD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from struct import unpack_from
from typing import NamedTuple

from kproxy.dns.core import records
from kproxy.dns.core.names import Name, name_of, suffixes, text_of
from kproxy.dns.core.zone import soa_data
from kproxy.model import Address, EndpointSlice, NamespacedName, Pod, Service, format_address


class Content(NamedTuple):
    """The objects that have names."""

    services: Mapping[NamespacedName, Service]
    slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]]
    pods: Iterable[Pod]


def zone_file(content: Content, domain: Name, servers: Iterable[Address], origin: Name, serial: int) -> str:
    """Return the zone file of `origin`, which is the cluster domain or a reverse zone, sorted by name."""
    sets = [each for each in _records(content, domain, servers) if origin in suffixes(each.name)]
    if origin != domain:
        sets.append(records.RecordSet(origin, records.Type.NS, (records.server_name(domain),)))
    lines = {line: None for each in sorted(sets, key=_order) for line in _lines(each)}
    soa = records.RecordSet(origin, records.Type.SOA, (soa_data(domain, serial),))
    return "".join(
        f"{line}\n" for line in (f"$ORIGIN {text_of(origin)}", f"$TTL {records.TTL}", *_lines(soa), *lines)
    )


def _records(content: Content, domain: Name, servers: Iterable[Address]) -> Iterator[records.RecordSet]:
    yield from records.zone_records(domain, servers)
    for name, service in content.services.items():
        yield from records.service_records(service, content.slices.get(name, ()), domain)
    for pod in content.pods:
        for address in pod.addresses:
            yield from records.pod_records(pod.name.namespace, address, domain)


def _order(found: records.RecordSet) -> tuple[list[Name], int]:
    """Return the key that sorts names label by label, from the root."""
    return [*reversed(list(suffixes(found.name)))], found.type


def _lines(found: records.RecordSet) -> Iterator[str]:
    name = text_of(found.name)
    for data in found.data:
        yield f"{name} {found.ttl} IN {found.type.name} {presentation(found.type, data)}"


def presentation(kind: records.Type, data: bytes) -> str:
    """Return the data of a record as a zone file has it."""
    match kind:
        case records.Type.A | records.Type.AAAA:
            return format_address(data)
        case records.Type.SRV:
            return f"{' '.join(map(str, unpack_from('!HHH', data)))} {text_of(data[6:])}"
        case records.Type.TXT:
            return f'"{data[1:].decode()}"'
        case records.Type.SOA:
            server, mailbox = text_of(data), text_of(data[len(_first(data)) :])
            return f"{server} {mailbox} {' '.join(map(str, unpack_from('!5I', data, len(data) - 20)))}"
        case _:
            return text_of(data)


def _first(data: bytes) -> Name:
    """Return the name at the beginning of a record's data."""
    found = name_of(text_of(data))
    assert found is not None
    return found
