"""Any bytes get a reply that dnspython can read, or none. It repeats the question as dnspython reads it."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kproxy.dns.core.respond import Outside, respond
from kproxy.dns.core.wire import LIMIT_PLAIN, LIMIT_TCP, LIMIT_UDP
from tests.dnszone.table import ROWS, world

ZONE = world()
QUERIES = [
    dns.message.make_query(row.name, row.kind, use_edns=place % 2 - 1) for place, row in enumerate(ROWS)
]
WIRES = [query.to_wire() for query in QUERIES]
LOOP = b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"
"""A name in the question that is a pointer to itself."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A query in which some bytes are changed, inserted or removed."""
    data = bytearray(draw(st.sampled_from(WIRES)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data) - 1)) if data else 0
        match draw(st.sampled_from(["change", "insert", "remove", "cut"])):
            case "change" if data:
                data[place] = draw(st.integers(0, 255))
            case "insert":
                data[place:place] = draw(st.binary(max_size=300))
            case "remove":
                del data[place : place + draw(st.integers(1, 12))]
            case "cut":
                del data[place:]
    return bytes(data)


def check(data: bytes, over_tcp: bool) -> None:
    found = respond(ZONE, data, over_tcp)
    if found is None:
        assert len(data) < 12 or data[2] & 0x80
        return
    if isinstance(found, Outside):
        assert data[2] & 0xF8 == 0  # only the operation QUERY leaves
        return
    assert len(found) <= (LIMIT_TCP if over_tcp else LIMIT_UDP)
    reply = dns.message.from_wire(found)
    assert found[:2] == data[:2]
    assert reply.flags & dns.flags.QR
    assert reply.opcode() == data[2] >> 3 & 15
    assert len(found) <= max(LIMIT_PLAIN, LIMIT_UDP if reply.edns == 0 else 0) or over_tcp
    try:
        query = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError, EOFError):
        return
    if reply.question:
        assert query.is_response(reply)
        assert reply.question[0].name.to_wire() == query.question[0].name.to_wire()  # in the same case


@settings(max_examples=400, deadline=None)
@given(damaged(), st.booleans())
@example(LOOP, False)
@example(b"\0" * 65535, True)
@example(b"\xff" * 65535, True)
@example(b"\0\1\1\0\xff\xff" + b"\0" * 60, False)  # 65,535 questions
@example(WIRES[0][:4] + b"\0\2" + WIRES[0][6:], False)  # two questions, of which one is missing
@example(WIRES[0] + b"\0", False)
def test_a_damaged_query(data: bytes, over_tcp: bool) -> None:
    check(data, over_tcp)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_any_bytes(data: bytes, over_tcp: bool) -> None:
    check(data, over_tcp)


@pytest.mark.long
@settings(max_examples=200_000, deadline=None)
@given(st.one_of(damaged(), st.binary(max_size=4096)), st.booleans())
def test_many_messages(data: bytes, over_tcp: bool) -> None:
    check(data, over_tcp)


LABEL = st.binary(min_size=1, max_size=63)


@settings(max_examples=200, deadline=None)
@given(st.lists(LABEL, max_size=6), st.sampled_from([*ROWS]), st.sampled_from(["A", "SRV", "ANY", "TYPE999"]))
def test_any_name_below_a_name_of_the_zone(labels: list[bytes], row: object, kind: str) -> None:
    below = ROWS[0].name if row is None else row.name  # type: ignore[attr-defined]
    try:
        name = dns.name.Name(labels).concatenate(below)
    except dns.name.NameTooLong:
        return
    check(dns.message.make_query(name, kind, id=1).to_wire(), False)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (LOOP, "FORMERR"),
        (WIRES[0][:4] + b"\0\0" + WIRES[0][6:], "FORMERR"),
        (WIRES[0][:4] + b"\0\2" + WIRES[0][6:], "FORMERR"),
        (WIRES[0][:6] + b"\0\1" + WIRES[0][8:], "FORMERR"),
        (WIRES[0] + b"x", "FORMERR"),
        (WIRES[0][:-1], "FORMERR"),
        (WIRES[0][:12], "FORMERR"),
        (WIRES[0][:2] + b"\x28" + WIRES[0][3:], "NOTIMP"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\0\x40" + b"a" * 64 + b"\0\0\1\0\1", "FORMERR"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\0" + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", "FORMERR"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\1\0\0\1\0\1\0\0\x29\4\xd0\0\1\0\0\0\0", "BADVERS"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\1\0\0\1\0\1\0\0\x29\4\xd0\0\0\0\0\0\4\0\x0a\0\1", "FORMERR"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\2\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2, "FORMERR"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\0\4none\0\0\1\0\3", "REFUSED"),
        (b"\0\1\1\0\0\1\0\0\0\0\0\0\4none\0\0\xfa\0\1", "FORMERR"),
    ],
    ids=[
        *("pointer", "no question", "two questions", "an answer", "more bytes", "fewer bytes", "header only"),
        *("UPDATE", "long label", "long name", "EDNS 1", "bad option", "two OPT", "class CHAOS", "type TSIG"),
    ],
)
def test_the_code_of_a_message_that_is_no_plain_query(data: bytes, code: str) -> None:
    found = respond(ZONE, data)
    assert isinstance(found, bytes)
    assert dns.rcode.to_text(dns.message.from_wire(found).rcode()) == code


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 11, WIRES[0][:2] + b"\x81" + WIRES[0][3:]], ids=["nothing", "short", "a reply"]
)
def test_what_gets_no_reply(data: bytes) -> None:
    assert respond(ZONE, data) is None
