"""Descriptions of what the kernel refused: map, key and service."""

from __future__ import annotations

import errno
from ipaddress import ip_network

import pytest

from kproxy.kernel.netlink.core.constants import NFT_MSG_DELSETELEM, NFT_MSG_NEWRULE, NFT_MSG_NEWSETELEM
from kproxy.kernel.netlink.core.elements import KernelRefusal
from kproxy.model import Family, Protocol, parse_address
from kproxy.nft.elements import Elements, Verdict
from kproxy.problems import RefusedElement
from kproxy.reconcile.core.refusals import NAMED, describe, refused_elements
from kproxy.table.layout import SetName, affinity_key, frontend_key, frontend_socket, range_key
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, Options, skeleton
from tests.keys import slot_key

IP = {Family.IPV4: "10.96.0.9", Family.IPV6: "fd00:96::9"}
CLIENT = {Family.IPV4: "192.0.2.7", Family.IPV6: "2001:db8::7"}
CLIENTS = {Family.IPV4: "192.0.2.0/24", Family.IPV6: "2001:db8::/120"}
CLIENTS_TEXT = {Family.IPV4: "192.0.2.0-192.0.2.255", Family.IPV6: "2001:db8::-2001:db8::ff"}
TCP, UDP = "default/web:http", "default/dns"


def keys(family: Family) -> dict[SetName, tuple[bytes, str, str]]:
    """Return an element of each set: its key, the key as nft writes it, and its owner."""
    address, client = parse_address(IP[family]), parse_address(CLIENT[family])
    tcp, udp = frontend_key(address, Protocol.TCP, 80), frontend_key(address, Protocol.UDP, 53)
    network = ip_network(CLIENTS[family])
    clients = range_key(tcp, network[0].packed, network[-1].packed)
    ip = IP[family]
    return {
        SetName.SERVICES: (tcp, f"{ip} . tcp . 80", TCP),
        SetName.SERVICES_FROM_OUTSIDE: (udp, f"{ip} . udp . 53", UDP),
        SetName.MASQUERADE_RULES: (tcp, f"{ip} . tcp . 80", TCP),
        SetName.AFFINITY_RULES: (udp, f"{ip} . udp . 53", UDP),
        SetName.SOURCE_RESTRICTED: (tcp, f"{ip} . tcp . 80", TCP),
        SetName.SOURCE_RANGES: (clients, f"{ip} . tcp . 80 . {CLIENTS_TEXT[family]}", TCP),
        SetName.ENDPOINTS_TCP: (slot_key(frontend_socket(tcp), 3), f"{ip} . 80 . 3", TCP),
        SetName.ENDPOINTS_UDP: (slot_key(frontend_socket(udp), 0), f"{ip} . 53 . 0", UDP),
        SetName.ENDPOINTS_SCTP: (slot_key(frontend_socket(tcp), 0), f"{ip} . 80 . 0", ""),
        SetName.AFFINITY_TCP: (
            affinity_key(client, frontend_socket(tcp)),
            f"{CLIENT[family]} . {ip} . 80",
            TCP,
        ),
        SetName.CLUSTER_IPS: (address, ip, TCP),
        SetName.LOAD_BALANCER_IPS: (client, CLIENT[family], ""),
    }


def tables(family: Family) -> tuple[Elements, Elements]:
    """Return the elements of the table, and those that the transaction removes."""
    address = parse_address(IP[family])
    tcp, udp = frontend_key(address, Protocol.TCP, 80), frontend_key(address, Protocol.UDP, 53)
    foreign = {b"": Verdict("drop"), address + b"\x01\0\0\0\0\x50\0\0": Verdict("drop")}
    return (
        {SetName.SERVICES: {**foreign, tcp: Verdict("goto lb-1", TCP)}, SetName.SERVICES_FROM_OUTSIDE: {}},
        {SetName.SERVICES_FROM_OUTSIDE: {udp: Verdict("goto lb-1", UDP)}},
    )


@pytest.mark.parametrize("name", keys(Family.IPV4))
@pytest.mark.parametrize("family", Family)
def test_a_refused_element(name: SetName, family: Family) -> None:
    key, text, owner = keys(family)[name]
    refusal = KernelRefusal(errno.ENOENT, NFT_MSG_DELSETELEM, family, name, key, "no")
    elements = tables(family)
    assert refused_elements([refusal], *elements) == (RefusedElement(str(family), name, key, "no", owner),)
    of = f" of {owner}" if owner else ""
    table = skeleton(family, Options(), NO_NUMBERED_CHAINS)
    assert describe(table, [refusal], *elements) == f"{name} {{ {text} }}{of}"


def refusal(name: str, key: bytes, kind: int = NFT_MSG_NEWSETELEM) -> KernelRefusal:
    return KernelRefusal(errno.EINVAL, kind, Family.IPV4, name, key, "")


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (refusal(SetName.SERVICES, b""), "services"),
        (refusal("remember-60", b"", NFT_MSG_NEWRULE), "a rule in remember-60"),
        (refusal(SetName.CLUSTER_IPS, b"\x0a\0\0\x01\0\0\0\0"), "cluster-ips { 0a00000100000000 }"),
        (refusal("unknown", b"\x0a"), "unknown { 0a }"),
    ],
)
def test_refusals_that_cannot_be_assigned_to_a_service(refused: KernelRefusal, text: str) -> None:
    table = skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS)
    assert describe(table, [refused], *tables(Family.IPV4)) == text


def test_a_refused_rule_is_not_a_refused_element() -> None:
    assert refused_elements([refusal("remember-60", b"", NFT_MSG_NEWRULE)]) == ()


def test_the_text_names_only_the_first_refusals() -> None:
    table = skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS)
    assert describe(table, []) == ""
    names = [SetName.SERVICES, SetName.SOURCE_RANGES, SetName.CLUSTER_IPS]
    many = [refusal(name, b"") for name in names]
    assert describe(table, many[:NAMED]) == "services, source-ranges, cluster-ips"
    assert describe(table, [*many, *many]) == "services, source-ranges, cluster-ips and 3 more"
