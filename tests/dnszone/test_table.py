"""Each line of queries.txt, asked in the process and parsed by dnspython."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from kproxy.dns.core.respond import Outside, respond
from tests.dnszone.table import DOMAIN, ROWS, Row, check, reply_of, world

ZONE = world()


def ask(query: dns.message.Message, over_tcp: bool = False) -> dns.message.Message:
    """Return the reply, as dnspython parses it. Rendered again, it has the same meaning."""
    reply = respond(ZONE, query.to_wire(), over_tcp)
    assert isinstance(reply, bytes)
    found = dns.message.from_wire(reply)
    assert query.is_response(found)
    assert dns.message.from_wire(found.to_wire()) == found
    return found


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_query(row: Row) -> None:
    for edns in (False, True):
        query = dns.message.make_query(row.name, row.kind, use_edns=edns, want_dnssec=edns)
        reply = ask(query, over_tcp=not edns)
        check(row, reply_of(reply))
        assert bool(reply.flags & dns.flags.AA) == (row.code != "REFUSED")
        assert not reply.flags & (dns.flags.RA | dns.flags.TC)
        assert (reply.edns, reply.payload) == ((0, 1232) if edns else (-1, 0))
        assert bool(reply.ednsflags & dns.flags.DO) == edns


def test_there_are_a_hundred_queries() -> None:
    assert len(set(map(str, ROWS))) >= 100


@pytest.mark.parametrize("kind", ["A", "AAAA", "SRV"])
def test_an_alias_to_a_name_elsewhere_is_for_an_upstream_server(kind: str) -> None:
    name = f"ext.default.svc.{DOMAIN}"
    found = respond(ZONE, dns.message.make_query(name, kind).to_wire())
    assert isinstance(found, Outside)
    assert (found.target, len(found.chain)) == (b"\x03www\x07example\x03com\0", 1)


@pytest.mark.parametrize(
    "name", ["example.org.", "local.", "xcluster.local.", "9.9.9.9.in-addr.arpa.", "11.cluster.local.org."]
)
def test_a_name_outside_is_for_an_upstream_server(name: str) -> None:
    found = respond(ZONE, dns.message.make_query(name, "A").to_wire())
    assert isinstance(found, Outside)
    assert not found.chain


def test_a_label_that_contains_the_domain_as_bytes_is_not_in_the_zone() -> None:
    name = dns.name.Name((b"x\x07cluster\x05local", b"org", b""))
    assert isinstance(respond(ZONE, dns.message.make_query(name, "A").to_wire()), Outside)
