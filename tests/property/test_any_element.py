"""Packed elements and keys can be read again, and are rendered as nft writes them."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from kproxy.kernel.netlink.core.codec import attributes
from kproxy.kernel.netlink.core.constants import (
    NFT_MSG_NEWSETELEM,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NLA_HDRLEN,
)
from kproxy.kernel.netlink.core.elements import element_messages, pack_elements, read_element, read_elements
from kproxy.model import Family, Protocol
from kproxy.nft.elements import COMMENT_BYTES, Field, Value, Verdict, range_ends, unpack
from kproxy.table.layout import (
    affinity_key,
    frontend_address,
    frontend_key,
    frontend_of,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    pack_socket,
    range_frontend,
    range_key,
    slot_frontend,
    socket_address,
    socket_port,
    split_affinity_key,
)
from tests.keys import slot_key

words = st.integers(1, 10).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count))
comments = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=COMMENT_BYTES // 4)
verdicts = st.builds(
    Verdict, st.from_regex(r"\A(goto|jump) [a-z][a-z0-9-]{0,30}\Z"), comments | st.just("x" * COMMENT_BYTES)
)
values: st.SearchStrategy[Value] = st.just(b"") | words | verdicts
addresses = st.ip_addresses().map(lambda address: address.packed)
protocols = st.sampled_from(Protocol)
ports = st.integers(1, 65535)


@given(st.dictionaries(words, values, max_size=5))
def test_packed_elements_can_be_read(members: dict[bytes, Value]) -> None:
    packed = memoryview(b"".join(pack_elements(members)))
    assert dict(read_element(element) for _, element in attributes(packed)) == members


fours = st.binary(min_size=4, max_size=4)
uniform = st.dictionaries(fours, fours, min_size=1) | st.dictionaries(fours, st.just(b""), min_size=1)
wide = st.dictionaries(fours, st.binary(min_size=40, max_size=40))
mixed = st.dictionaries(words, values, max_size=5)


@given(
    uniform
    | mixed
    | st.tuples(uniform, uniform, mixed).map(lambda parts: {**parts[0], **parts[1], **parts[2]})
)
def test_lists_are_read_as_their_elements(members: dict[bytes, Value]) -> None:
    packed = memoryview(b"".join(pack_elements(members)))
    assert dict(read_elements(packed)) == members


@given(uniform.filter(lambda members: not len(members) % 2))
def test_a_list_of_ranges_is_read_as_its_elements(members: dict[bytes, Value]) -> None:
    ranges = {key + key: b"" for key in members}
    packed = memoryview(b"".join(pack_elements(ranges, ranges=True)))
    assert dict(read_elements(packed, ranges=True)) == dict(read_elements(packed)) == ranges


@given(uniform | wide | mixed, st.integers(1, 3000))
def test_messages_contain_all_elements(members: dict[bytes, Value], times: int) -> None:
    members = {
        key + bytes([0, 0, *place.to_bytes(2)]): members[key] for key in members for place in range(times)
    }
    messages = list(element_messages(NFT_MSG_NEWSETELEM, Family.IPV4, "set", members))
    lists = [dict(attributes(memoryview(each.body)))[NFTA_SET_ELEM_LIST_ELEMENTS] for each in messages]
    assert b"".join(lists) == b"".join(pack_elements(members))
    assert all(len(each) <= 0xFFFF - NLA_HDRLEN for each in lists)


@given(addresses, protocols, ports, st.integers(0, 2**32 - 1))
def test_keys_are_read_as_nft_writes_them(address: bytes, protocol: Protocol, port: int, slot: int) -> None:
    key, family = frontend_key(address, protocol, port), Family.IPV4 if len(address) == 4 else Family.IPV6
    text = str(ip_address(address))
    assert unpack(key, (Field.ADDRESS, Field.PROTOCOL, Field.PORT), family) == (text, protocol, str(port))
    assert (frontend_address(key), frontend_protocol(key)) == (address, protocol)
    slotted = slot_key(frontend_socket(key), slot)
    assert unpack(slotted, (Field.ADDRESS, Field.PORT, Field.NUMBER), family) == (text, str(port), str(slot))
    value = pack_socket(address, port)
    assert unpack(value, (Field.ADDRESS, Field.PORT), family) == (text, str(port))


@given(addresses, protocols, ports, st.integers(0, 2**32 - 1))
def test_the_parts_of_a_key_can_be_read(address: bytes, protocol: Protocol, port: int, slot: int) -> None:
    key, socket = frontend_key(address, protocol, port), pack_socket(address, port)
    first, last, client = (bytes([byte]) * len(address) for byte in (1, 254, 9))
    assert is_frontend(key)
    assert (frontend_socket(key), frontend_of(socket, protocol)) == (socket, key)
    assert (socket_address(socket), socket_port(socket)) == (address, port)
    assert slot_frontend(slot_key(socket, slot)) == socket
    assert split_affinity_key(affinity_key(client, socket)) == (client, socket)
    ranged = range_key(key, first, last)
    assert (range_frontend(ranged), range_ends(ranged)) == (key, (key + first, key + last))
