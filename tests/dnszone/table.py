"""The table of queries and answers (queries.txt), and a zone of the objects in world.yaml.

A new case is one line of queries.txt. test_table.py asks the functions, and test_dig.py a running server.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from kproxy.controlplane.ranges import Ranges
from kproxy.dns.core.zone import Zone
from kproxy.model import parse_address
from kproxy.sources.core.inventory import Inventory
from tests.unit.make import decoded, inventory_of

HERE = Path(__file__).parent
WORLD = HERE / "world.yaml"
DOMAIN = dns.name.from_text("cluster.local.")
SERVERS = (parse_address("10.96.0.10"), parse_address("fd00:10:96::a"))
SERVICE_CIDRS = (ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112"))
RANGES = Ranges(SERVICE_CIDRS, (30000, 32767))
SERIAL = 7
TTLS = {"TXT": 28800}
"""The others have 5 seconds."""


class Row(NamedTuple):
    """One line of queries.txt."""

    name: dns.name.Name
    kind: str
    code: str
    """NOERROR, NXDOMAIN or REFUSED."""
    records: frozenset[str]
    """`NAME TTL TYPE DATA`, absolute and in lower case."""
    extras: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} {self.kind}"


def absolute(text: str) -> dns.name.Name:
    """The name that a word of the table means."""
    if text.endswith("?"):
        return dns.reversename.from_address(text[:-1])
    return dns.name.from_text(text, None if text.endswith(".") else DOMAIN)


def read(line: str) -> Row:
    """Parse a line."""
    question, _, expected = line.partition(" -> ")
    owner, kind = question.split()
    name, (answer, _, extras) = absolute(owner), expected.partition(" + ")
    code, _, rest = answer.partition(" ")
    if code not in ("NODATA", "NXDOMAIN", "REFUSED"):
        code, rest = "NOERROR", answer
    records, at = [], name
    for text in rest.split(" | ") if rest else ():
        first, _, data = text.partition(" ")
        typed = first.isalpha() and first.isupper()
        records.append(record(at, first, data) if typed else record(at, kind, text))
        at = absolute(data) if first == "CNAME" else at
    more = (text.split(" ", 2) for text in (extras.split(" | ") if extras else ()))
    found = frozenset(record(absolute(owner), kind, data) for owner, kind, data in more)
    return Row(name, kind, code.replace("NODATA", "NOERROR"), frozenset(records), found)


def record(owner: dns.name.Name, kind: str, data: str) -> str:
    """A record as `told` prints it."""
    text = data.replace("SERIAL", str(SERIAL))
    rrset = dns.rrset.from_text(owner, TTLS.get(kind, 5), "IN", kind, *[expanded(text, kind)])
    return told(rrset)[0]


def expanded(data: str, kind: str) -> str:
    """The data of a record with absolute names."""
    words = data.split()
    for place in {"SOA": (0, 1), "SRV": (3,), "CNAME": (0,), "PTR": (0,), "NS": (0,)}.get(kind, ()):
        words[place] = absolute(words[place]).to_text()
    return " ".join(words)


def told(rrset: dns.rrset.RRset) -> list[str]:
    """The records of a set, one a line."""
    kind = dns.rdatatype.to_text(rrset.rdtype)
    return [f"{rrset.name.canonicalize()} {rrset.ttl} {kind} {data}" for data in rrset]


def section(rrsets: list[dns.rrset.RRset]) -> frozenset[str]:
    """The records of a section of a message."""
    return frozenset(line for rrset in rrsets for line in told(rrset))


ROWS = [read(line) for line in (HERE / "queries.txt").read_text().splitlines() if line and line[0] != "#"]


def inventory() -> Inventory:
    """The objects, settled."""
    found = decoded(WORLD.read_text())
    assert found.problems == []
    return inventory_of(found, RANGES)


def filled(zone: Zone, found: Inventory) -> Zone:
    """Add all objects of an inventory to a zone."""
    for name, service in found.services.items():
        zone.update(name, service, found.slices.get(name, ()))
    zone.set_pods(frozenset((pod.name.namespace, address) for pod in found.pods for address in pod.addresses))
    return zone


def world() -> Zone:
    """The zone of the table."""
    zone = filled(Zone("cluster.local", SERVERS, SERVICE_CIDRS), inventory())
    zone.set_serial(SERIAL)
    return zone


class Reply(NamedTuple):
    """The parts of a reply that the table describes. Records are lines as in `Row`."""

    code: str
    answer: frozenset[str]
    authority: frozenset[str]
    extras: frozenset[str]


def reply_of(message: dns.message.Message) -> Reply:
    """The parts of a message."""
    sections = map(section, (message.answer, message.authority, message.additional))
    return Reply(dns.rcode.to_text(message.rcode()), *sections)


def check(row: Row, reply: Reply) -> None:
    """Compare a reply with a row: code, records, additional records, and the SOA of a negative answer."""
    assert reply.code == row.code
    assert reply.answer == row.records
    assert reply.extras == row.extras
    final = {line.split()[2] for line in row.records} - {"CNAME"}
    alias = row.records and (row.kind in ("CNAME", "ANY") or looped(row))
    negative = row.code == "NXDOMAIN" or (row.code == "NOERROR" and not final and not alias)
    assert len(reply.authority) == negative
    for line in reply.authority:
        zone, ttl, kind, _ = line.split(" ", 3)
        assert (ttl, kind) == ("5", "SOA")
        assert zone in ("cluster.local.", "96.10.in-addr.arpa.", REVERSE_SIX)


REVERSE_SIX = dns.reversename.from_address("fd00:10:96::").to_text().split(".", 4)[4]


def looped(row: Row) -> bool:
    """Whether the aliases lead back to the name that was asked for."""
    return any(line.endswith(f"CNAME {row.name.canonicalize()}") for line in row.records)
