"""What kproxy answers from its zone equals what dnspython finds in the zone file.

The zone file has other code than the answers, and dnspython reads it as BIND, Knot and NSD do.
"""

from __future__ import annotations

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.zone
from hypothesis import given, settings
from hypothesis import strategies as st

from kproxy.dns.core.master import Content, zone_file
from kproxy.dns.core.names import name_of
from kproxy.dns.core.respond import Outside, respond
from tests.dnszone.table import SERIAL, SERVERS, inventory, section, world

ZONE = world()
FOUND = inventory()
ORIGINS = ["cluster.local", "96.10.in-addr.arpa"]
KINDS = ["A", "AAAA", "SRV", "PTR", "TXT", "NS", "SOA", "MX", "CNAME"]


def reference(origin: str) -> dns.zone.Zone:
    domain, wire = name_of("cluster.local"), name_of(origin)
    assert domain
    assert wire
    content = Content(FOUND.services, FOUND.slices, FOUND.pods)
    return dns.zone.from_text(zone_file(content, domain, SERVERS, wire, SERIAL), relativize=False)


ZONES = {origin: reference(origin) for origin in ORIGINS}
NAMES = sorted(
    {
        dns.name.Name(name.labels[place:])
        for zone in ZONES.values()
        for name in zone.nodes
        for place in range(len(name) - len(zone.origin or ()) + 1)
    }
)
LABELS = [*sorted({label for name in NAMES for label in name.labels[:-1]}), b"x", b"_tcp", b"*"]


@st.composite
def names(draw: st.DrawFn) -> dns.name.Name:
    """A name of a zone, also with labels that are changed, added or removed."""
    name = draw(st.sampled_from(NAMES))
    labels = list(name.labels[:-1])
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, max(len(labels) - 3, 0)))
        labels[place : place + draw(st.integers(0, 1))] = draw(st.lists(st.sampled_from(LABELS), max_size=1))
    return dns.name.Name([*labels, b""])


def expected(zone: dns.zone.Zone, name: dns.name.Name, kind: str) -> tuple[str, frozenset[str]]:
    """The code and the records of an answer, as dnspython finds them. Aliases are not followed."""
    rrset = zone.get_rrset(name, kind)
    if rrset is None and kind != "CNAME":
        rrset = zone.get_rrset(name, "CNAME")
    exists = any(each.is_subdomain(name) for each in zone.nodes)
    return "NOERROR" if exists else "NXDOMAIN", section([rrset] if rrset else [])


@settings(max_examples=300, deadline=None)
@given(names(), st.sampled_from(KINDS))
def test_any_question_has_the_answer_of_the_zone_file(name: dns.name.Name, kind: str) -> None:
    origin = next((origin for origin in ORIGINS if name.is_subdomain(dns.name.from_text(origin))), None)
    reply = respond(ZONE, dns.message.make_query(name, kind).to_wire(), over_tcp=True)
    if isinstance(reply, Outside):
        assert origin is None or reply.chain
        return
    assert origin is not None
    assert isinstance(reply, bytes)
    found = dns.message.from_wire(reply)
    code, records = expected(ZONES[origin], name, kind)
    own = [rrset for rrset in found.answer if rrset.name == name]
    assert section(own) == records
    if len(own) == len(found.answer) and not any(rrset.rdtype == dns.rdatatype.CNAME for rrset in own):
        assert dns.rcode.to_text(found.rcode()) == code
        assert bool(found.authority) == (not records)


def test_the_reference_has_all_names_that_are_answered() -> None:
    answered = {bytes(at[:-4]) for at in ZONE.answers if at.endswith((b"\0\1\0\1", b"\0\x21\0\1"))}
    written = {name.to_wire() for name in ZONES["cluster.local"].nodes}
    assert len(answered) > 30
    assert answered <= written
