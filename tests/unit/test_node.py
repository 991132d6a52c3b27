"""This node's addresses and name: from flags, from its Node object, from the host."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kproxy.kernel.host import HostAddresses
from kproxy.model import Address, ClusterNode, format_address, parse_address
from kproxy.settings.settings import Settings
from kproxy.settings.text import networks
from kproxy.sources.node import find_node, unknown_node


def packed(*texts: str) -> tuple[Address, ...]:
    return tuple(map(parse_address, texts))


class Host(HostAddresses):
    def primary(self) -> tuple[Address, ...]:
        return packed("192.0.2.1", "2001:db8::1")

    def all(self) -> tuple[Address, ...]:
        return packed("192.0.2.1", "10.50.0.11", "2001:db8::1")


INTERNAL = [("InternalIP", "10.50.0.11"), ("InternalIP", "fd50::11")]
ADDRESSES: dict[str, tuple[list[tuple[str, str]], dict[str, object], list[str]]] = {
    "the host's, if the Node has none": ([], {}, ["192.0.2.1", "2001:db8::1"]),
    "the Node's": (INTERNAL, {}, ["10.50.0.11", "fd50::11"]),
    "IPv4 first": (INTERNAL[::-1], {}, ["10.50.0.11", "fd50::11"]),
    "the first of each family": (
        [*INTERNAL, ("InternalIP", "10.50.0.12"), ("InternalIP", "fd50::12")],
        {},
        ["10.50.0.11", "fd50::11"],
    ),
    "the host's of the other family": (INTERNAL[:1], {}, ["10.50.0.11", "2001:db8::1"]),
    "no other types": (
        [("Hostname", "n1"), ("ExternalIP", "203.0.113.1"), ("InternalIP", "n1"), *INTERNAL[:1]],
        {},
        ["10.50.0.11", "2001:db8::1"],
    ),
    "an ExternalIP, if the family has no other": (
        [
            ("ExternalIP", "203.0.113.1"),
            ("ExternalIP", "2001:db8::7"),
            ("ExternalIP", "fd50::9"),
            *INTERNAL[:1],
        ],
        {},
        ["10.50.0.11", "2001:db8::7"],
    ),
    "the flag's": (INTERNAL, {"node_ip": packed("192.0.2.9")}, ["192.0.2.9"]),
}


@pytest.mark.parametrize(("own", "chosen", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_primary_addresses(
    own: Iterable[tuple[str, str]], chosen: dict[str, object], expected: list[str]
) -> None:
    nodes = {"n1": ClusterNode("n1", "", (), addresses=tuple(own))}
    settings = Settings(node_name="n1", **chosen)  # type: ignore[arg-type]
    node = find_node(settings, nodes, Host())
    assert [format_address(address) for address in node.addresses] == expected
    assert node.node_port_addresses == node.addresses


def test_node_ports_on_the_internal_ip_and_on_ranges() -> None:
    nodes = {"n1": ClusterNode("n1", "", (), addresses=tuple(INTERNAL))}
    settings = Settings(node_name="n1", nodeport_addresses=networks("192.0.2.0/24,fd50::/64"))
    found = find_node(settings, nodes, Host()).node_port_addresses
    assert set(found) == set(packed("192.0.2.1", "fd50::11"))


@pytest.mark.parametrize(
    ("others", "known"),
    [((), ""), (("n2",), ", only n2"), (("e", "d", "c", "b"), ", only b, c, d and 1 more")],
)
def test_a_name_that_no_node_has(others: tuple[str, ...], known: str) -> None:
    text = f"Node gone: there is no Node of this name{known}: which endpoints are local is unclear"
    assert str(unknown_node("cluster", "gone", others)).startswith(f"cluster: {text}")
