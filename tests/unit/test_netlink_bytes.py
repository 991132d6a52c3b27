"""Packing and reading netlink messages, and evaluating the kernel's answers to a batch."""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.kernel.netlink.core.codec import (
    MAX_REFUSALS,
    Batch,
    BatchMessage,
    ErrorReply,
    Message,
    attribute,
    attributes,
    messages,
    nested,
    read_error,
    string,
)
from kproxy.kernel.netlink.core.constants import (
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSETELEM,
    NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSG_HDRLEN,
    NLMSGERR_ATTR_MSG,
    NLMSGERR_ATTR_OFFS,
)
from kproxy.kernel.netlink.core.elements import KernelRefusal, element_messages, refusals
from kproxy.model import Family
from kproxy.nft.elements import Value, Verdict

BEGIN = 7
"""The sequence number of the batches here."""
A, B, C = (bytes([10, 0, 0, last]) + b"\x06\0\0\0\0\x50\0\0" for last in (1, 2, 3))
"""Keys of a map."""
TO = Verdict("goto lb-1", "default/web:http")


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=20)), max_size=5))
def test_attributes_are_read_as_they_are_packed(items: list[tuple[int, bytes]]) -> None:
    packed = b"".join(attribute(kind, data) for kind, data in items)
    assert len(packed) % 4 == 0
    assert [(kind, bytes(data)) for kind, data in attributes(memoryview(packed))] == items


def test_an_attribute_of_attributes() -> None:
    packed = memoryview(nested(3, attribute(1, b"a"), attribute(2, b"bc")))
    ((kind, content),) = attributes(packed)
    assert kind == 3
    assert [(inner, bytes(data)) for inner, data in attributes(content)] == [(1, b"a"), (2, b"bc")]


def raw(kind: int, flags: int, sequence: int, content: bytes) -> bytes:
    """Return a message of the kernel, padded."""
    head = struct.pack("=IHHII", NLMSG_HDRLEN + len(content), kind, flags, sequence, 0)
    return head + content + b"\0" * (-len(content) % 4)


def test_a_datagram_of_several_messages() -> None:
    data = raw(3, 0x10, 5, b"abc") + raw(2, 0, 6, b"") + raw(9, 1, 7, b"12345678")
    found = [(*message[:3], bytes(message.content)) for message in messages(memoryview(data))]
    assert found == [(3, 0x10, 5, b"abc"), (2, 0, 6, b""), (9, 1, 7, b"12345678")]


def reply(
    sequence: int, code: int, offset: int | None = None, text: str = "", request: bytes = b""
) -> Message:
    """Return an answer of the kernel. `request` is the content that it returns without NETLINK_CAP_ACK."""
    flags = 0 if request else NLM_F_CAPPED
    content = struct.pack("=i", -code) + raw(0, 0, sequence, request)
    if text:
        content += string(NLMSGERR_ATTR_MSG, text)
    if offset is not None:
        content += attribute(NLMSGERR_ATTR_OFFS, struct.pack("=I", offset))
    if text or offset is not None:
        flags |= NLM_F_ACK_TLVS
    return Message(NLMSG_ERROR, flags, sequence, memoryview(content))


@pytest.mark.parametrize("request_", [b"", attribute(1, b"all"), b"odd"])
@pytest.mark.parametrize(
    ("code", "text", "offset"),
    [(0, "", None), (2, "", None), (22, "bytes left over", None), (17, "", 104), (22, "unknown type", 20)],
)
def test_an_answer(code: int, text: str, offset: int | None, request_: bytes) -> None:
    assert read_error(reply(1, code, offset, text, request_)) == ErrorReply(code, text, offset)


def batch(*contents: BatchMessage) -> Batch:
    return Batch(contents, BEGIN)


def add(name: str, members: dict[bytes, Value], ranges: bool = False) -> BatchMessage:
    (message,) = element_messages(NFT_MSG_NEWSETELEM, Family.IPV4, name, members, ranges)
    return message


def remove(name: str, *keys: bytes) -> BatchMessage:
    (message,) = element_messages(NFT_MSG_DELSETELEM, Family.IPV4, name, dict.fromkeys(keys, b""))
    return message


def rule(chain: str) -> BatchMessage:
    body = string(NFTA_RULE_TABLE, "kproxy") + string(NFTA_RULE_CHAIN, chain)
    return BatchMessage(NFT_MSG_NEWRULE, 0, Family.IPV4, body)


def element_offset(content: BatchMessage, number: int) -> int:
    """Return the offset of an element in a message."""
    position = NLMSG_HDRLEN + 4
    for kind, data in attributes(memoryview(content.body)):
        if kind == NFTA_SET_ELEM_LIST_ELEMENTS:
            sizes = [4 + len(element) for _, element in attributes(data)]
            return position + 4 + sum(sizes[:number])
        position += 4 + (len(data) + 3) // 4 * 4
    raise AssertionError("no elements")


def test_only_the_last_message_of_a_batch_requests_an_acknowledgement() -> None:
    packed = batch(remove("services", A), add("services", {A: TO}), rule("remember-60")).pack()
    found = list(messages(memoryview(packed)))
    assert [message.sequence for message in found] == [BEGIN, BEGIN + 1, BEGIN + 2, BEGIN + 3, BEGIN + 4]
    assert [bool(message.flags & NLM_F_ACK) for message in found] == [False, False, False, True, False]
    assert all(message.flags & NLM_F_REQUEST for message in found)
    assert (found[0].kind, found[-1].kind) == (NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END)
    assert {bytes(message.content[:4]) for message in found[:1] + found[-1:]} == {b"\0\0\0\x0a"}


class Row(NamedTuple):
    """The kernel's answers to a batch, and the expected result."""

    contents: list[BatchMessage]
    replies: list[Message]
    errno: int
    refused: list[tuple[str, bytes]]
    """Set and key."""


TWO = add("services", {A: TO, B: TO, C: TO})
"""A message of several elements."""
ROWS = {
    "accepted": Row([remove("services", A), TWO], [reply(BEGIN + 2, 0)], 0, []),
    "the first element of a message": Row(
        [TWO], [reply(BEGIN + 1, errno.ENOENT, element_offset(TWO, 0))], errno.ENOENT, [("services", A)]
    ),
    "the last element of a message": Row(
        [TWO], [reply(BEGIN + 1, errno.ENOENT, element_offset(TWO, 2))], errno.ENOENT, [("services", C)]
    ),
    "an attribute of an element": Row(
        [TWO], [reply(BEGIN + 1, errno.EINVAL, element_offset(TWO, 1) + 4)], errno.EINVAL, [("services", B)]
    ),
    "not an element": Row([TWO], [reply(BEGIN + 1, errno.ENOENT, 32)], errno.ENOENT, [("services", b"")]),
    "beyond the message": Row(
        [TWO], [reply(BEGIN + 1, errno.ENOENT, 9999)], errno.ENOENT, [("services", b"")]
    ),
    "no offset": Row([TWO], [reply(BEGIN + 1, errno.EMLINK)], errno.EMLINK, [("services", b"")]),
    "several messages": Row(
        [TWO, add("cluster-ips", {A: b""}), rule("remember-60"), add("endpoints-tcp", {B: A})],
        [
            reply(BEGIN + 1, errno.EEXIST, element_offset(TWO, 1)),
            reply(BEGIN + 3, errno.ENOENT, 52),
            reply(BEGIN + 4, errno.EINVAL, element_offset(add("endpoints-tcp", {B: A}), 0)),
        ],
        errno.EEXIST,
        [("services", B), ("remember-60", b""), ("endpoints-tcp", B)],
    ),
    "the batch as a whole": Row([TWO], [reply(BEGIN, errno.EPERM)], errno.EPERM, []),
    "the batch as a whole, and a message": Row(
        [TWO], [reply(BEGIN, errno.ENOMEM), reply(BEGIN + 1, 0)], errno.ENOMEM, []
    ),
    "no acknowledgement": Row([TWO], [], errno.ENOBUFS, []),
    "no acknowledgement, but an error": Row(
        [TWO, TWO],
        [reply(BEGIN + 1, errno.ENOENT, element_offset(TWO, 0))],
        errno.ENOENT,
        [("services", A)],
    ),
    "an addition that follows from a removal": Row(
        [
            remove("services", A, B),
            remove("cluster-ips", A),
            add("services", {B: TO}),
            add("cluster-ips", {B: b""}),
        ],
        [
            reply(BEGIN + 1, errno.ENOENT, element_offset(remove("services", A), 0)),
            reply(BEGIN + 3, errno.EEXIST, element_offset(add("services", {B: TO}), 0)),
            reply(BEGIN + 4, errno.EINVAL, element_offset(add("cluster-ips", {B: b""}), 0)),
        ],
        errno.ENOENT,
        [("services", A), ("cluster-ips", B)],
    ),
    "more than MAX_REFUSALS": Row(
        [remove("services", A)] * (MAX_REFUSALS + 5),
        [reply(BEGIN + 1 + number, errno.ENOENT) for number in range(MAX_REFUSALS + 5)],
        errno.ENOENT,
        [("services", b"")] * MAX_REFUSALS,
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_answers_to_a_batch_are_evaluated(row: Row) -> None:
    result = batch(*row.contents).read(row.replies)
    assert result.errno == row.errno
    assert [(refusal.name, refusal.key) for refusal in refusals(result.refused)] == row.refused


def test_a_refused_range_is_named_by_both_ends() -> None:
    key = A + bytes([10, 9, 0, 0]) + A + bytes([10, 9, 0, 255])
    content = add("source-ranges", {key: b""}, ranges=True)
    answer = reply(BEGIN + 1, errno.EEXIST, element_offset(content, 0), "overlaps")
    assert refusals(batch(content).read([answer]).refused) == (
        KernelRefusal(errno.EEXIST, NFT_MSG_NEWSETELEM, Family.IPV4, "source-ranges", key, "overlaps"),
    )
