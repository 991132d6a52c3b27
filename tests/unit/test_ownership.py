"""Each address has one owner, and no address moves without need."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.controlplane.ownership import announced, eligible_nodes, owner
from kproxy.decode import decode
from kproxy.model import parse_address
from tests.unit.make import as_json, manifest, name, service, slice_of

ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
NODES = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8, unique=True)


@given(ADDRESSES, NODES, st.randoms(use_true_random=False))
def test_every_node_computes_the_same_owner(address: bytes, nodes: list[str], chance: Random) -> None:
    shuffled = list(nodes)
    chance.shuffle(shuffled)
    assert owner(address, nodes) == owner(address, shuffled)
    assert owner(address, nodes) in nodes


@given(st.lists(ADDRESSES, max_size=40), NODES)
def test_removing_a_node_moves_only_its_own_addresses(addresses: list[bytes], nodes: list[str]) -> None:
    for gone in nodes if len(nodes) > 1 else []:
        rest = [node for node in nodes if node != gone]
        for address in addresses:
            before = owner(address, nodes)
            assert before == gone or owner(address, rest) == before


@pytest.mark.parametrize("count", [2, 3, 7])
def test_addresses_are_distributed_evenly(count: int) -> None:
    nodes = [f"node-{number}" for number in range(count)]
    addresses = [parse_address(f"192.168.{n // 256}.{n % 256}") for n in range(7000)]
    shares = Counter(owner(address, nodes) for address in addresses)
    assert all(0.9 < shares[node] * count / len(addresses) < 1.1 for node in nodes), shares


def test_the_owner_is_the_same_in_every_version() -> None:
    """Nodes with different versions must agree, for example during an upgrade."""
    owners = [owner(parse_address(f"192.168.77.{n}"), ["n1", "n2", "n3"]) for n in range(100, 110)]
    assert owners == OWNERS


OWNERS = ["n2", "n1", "n2", "n3", "n2", "n2", "n3", "n3", "n3", "n1"]


@pytest.mark.parametrize(
    ("policy", "placed", "expected"),
    [
        ("Cluster", ["n1"], {"n1", "n2", "n3"}),
        ("Local", ["n1", "n3"], {"n1", "n3"}),
        ("Local", ["n3", "elsewhere", ""], {"n3"}),
        ("Local", ["elsewhere"], {"n1", "n2", "n3"}),
        ("Local", [], {"n1", "n2", "n3"}),
    ],
)
def test_with_policy_local_nodes_with_an_endpoint_are_eligible(
    policy: str, placed: list[str], expected: set[str]
) -> None:
    endpoints = [
        {"addresses": [f"10.244.0.{n}"], "nodeName": node, "conditions": {"ready": False}}
        for n, node in enumerate(placed)
    ]
    objects = [
        service(type="LoadBalancer", externalTrafficPolicy=policy),
        slice_of(endpoints=endpoints),
    ]
    state = decode(map(as_json, objects)).state
    web = state.services[name("web")]
    assert eligible_nodes(web, state.slices.get(web.name, ()), ["n1", "n2", "n3"]) == expected


PAIR = ["n1", "n2"]
ALLOCATED = {parse_address(f"192.168.77.{n}"): name(f"web-{n}") for n in range(100, 110)}
OF_N1 = {address for address in ALLOCATED if owner(address, PAIR) == "n1"}
PROXY = "service.kubernetes.io/service-proxy-name"


@pytest.mark.parametrize(
    ("policy", "labels", "exists", "protected", "own", "undecided"),
    [
        pytest.param("Cluster", {}, True, False, OF_N1, set(), id="all readable"),
        pytest.param("Cluster", {}, True, True, OF_N1, set(), id="policy Cluster, endpoints may be missing"),
        pytest.param(
            "Local", {}, True, True, set(), set(ALLOCATED), id="policy Local, endpoints may be missing"
        ),
        pytest.param("Cluster", {}, False, True, set(), set(ALLOCATED), id="unreadable Service"),
        pytest.param("Cluster", {}, False, False, set(), set(), id="deleted Service"),
        pytest.param("Cluster", {PROXY: "x"}, True, False, set(), set(), id="Service of another proxy"),
    ],
)
def test_which_addresses_a_node_announces(
    policy: str,
    labels: dict[str, str],
    exists: bool,
    protected: bool,
    own: set[bytes],
    undecided: set[bytes],
) -> None:
    objects = [
        manifest(
            "Service",
            service_name.name,
            metadata={"labels": labels},
            spec={"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
        )
        for service_name in ALLOCATED.values()
    ]
    services = decode(map(as_json, objects if exists else [])).state.services
    found = announced(ALLOCATED, services.get, lambda _: (), lambda _: protected, PAIR, "n1")
    assert (set(found.own), set(found.undecided)) == (own, undecided)
    assert found.protected == own | undecided
