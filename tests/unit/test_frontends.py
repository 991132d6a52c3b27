"""The frontends of Services, and their elements in sets and maps."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from kproxy.model import Balance, Family, Frontend, FrontendKind, Node, Protocol, format_socket, parse_address
from kproxy.nft.elements import Verdict
from kproxy.resolve import claims
from kproxy.resolve.claims import Socket, socket_of
from kproxy.resolve.frontends import merged
from kproxy.table.compile import SETS, compile_frontends
from kproxy.table.layout import EndpointScope, FrontendSide, SetName, SlotChain, frontend_key, range_key
from kproxy.table.plan import initial_elements
from kproxy.table.skeleton import NumberedChains, numbered_chains
from tests.unit.make import NODE, desired, frontend, name, resolved, service, slice_of
from tests.unit.test_allocate import RANGES as ALLOCATION

DUAL = {"clusterIPs": ["10.96.0.9", "fd00:96::9"], "ipFamilyPolicy": "PreferDualStack"}
FIXED = {"clusterIP": "10.96.0.9"}
NODE_PORT: dict[str, Any] = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30123}]}


VIPS = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "2001:db8:1::1"}]}}
BALANCED = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}
EXTERNAL = {"externalIPs": ["198.51.100.7", "2001:db8:1::7"]}


def frontends(
    spec: dict[str, Any], node: Node = NODE, status: dict[str, Any] | None = None, **metadata: Any
) -> list[Frontend]:
    made = service(**spec)
    made["metadata"] |= metadata
    outcome = resolved([{**made, "status": status}], ALLOCATION, node=node)
    assert outcome.problems == []
    return outcome.frontends


def shown(spec: dict[str, Any], node: Node = NODE, status: dict[str, Any] | None = None) -> list[str]:
    return [f"{frontend} {frontend.kind}" for frontend in frontends(spec, node, status)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(FIXED, ["10.96.0.9:80/tcp ClusterIP"], id="a ClusterIP"),
        pytest.param(
            {**FIXED, "ports": [{"name": "a", "port": 53, "protocol": p} for p in ("UDP",)] + [{"name": "b", "port": 53}]},
            ["10.96.0.9:53/udp ClusterIP", "10.96.0.9:53/tcp ClusterIP"],
            id="one port, two protocols",
        ),
        pytest.param(
            {**FIXED, **NODE_PORT},
            ["10.96.0.9:80/tcp ClusterIP", "192.0.2.1:30123/tcp NodePort"],
            id="a node port of the service's family",
        ),
        pytest.param(
            {**DUAL, **NODE_PORT},
            [
                *("10.96.0.9:80/tcp ClusterIP", "[fd00:96::9]:80/tcp ClusterIP"),
                *("192.0.2.1:30123/tcp NodePort", "[2001:db8::1]:30123/tcp NodePort"),
            ],
            id="dual stack",
        ),
        pytest.param(
            {**FIXED, **NODE_PORT, "type": "LoadBalancer"},
            ["10.96.0.9:80/tcp ClusterIP", "192.0.2.1:30123/tcp NodePort"],
            id="a load balancer has node ports",
        ),
        pytest.param({**FIXED, **NODE_PORT, "type": "ClusterIP"}, ["10.96.0.9:80/tcp ClusterIP"], id="node port ignored"),
        pytest.param({"clusterIP": "None"}, [], id="headless"),
        pytest.param({"type": "ExternalName"}, [], id="an external name"),
    ],
)  # fmt: skip
def test_frontends_of_a_service(spec: dict[str, Any], expected: list[str]) -> None:
    assert shown(spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({**FIXED, **BALANCED}, ["198.51.100.1:80/tcp LoadBalancer"], id="a load balancer"),
        pytest.param({**DUAL, **BALANCED}, ["198.51.100.1:80/tcp LoadBalancer", "[2001:db8:1::1]:80/tcp LoadBalancer"], id="of both families"),
        pytest.param({**FIXED, **NODE_PORT}, ["192.0.2.1:30123/tcp NodePort"], id="the status of another type"),
        pytest.param({**FIXED, **EXTERNAL}, ["198.51.100.7:80/tcp ExternalIP"], id="external IPs"),
        pytest.param({**DUAL, **EXTERNAL}, ["198.51.100.7:80/tcp ExternalIP", "[2001:db8:1::7]:80/tcp ExternalIP"], id="external IPs of both families"),
        pytest.param({**FIXED, "externalIPs": ["198.51.100.7"] * 2}, ["198.51.100.7:80/tcp ExternalIP"], id="a duplicate"),
        pytest.param({"clusterIP": "None", **EXTERNAL}, [], id="external IPs of a headless service"),
        pytest.param(
            {**FIXED, **NODE_PORT, **EXTERNAL, "type": "LoadBalancer", "ports": [{"name": "a", "port": 80, "nodePort": 30123}, {"name": "b", "port": 81, "nodePort": 30124}]},
            [
                *("198.51.100.7:80/tcp ExternalIP", "198.51.100.1:80/tcp LoadBalancer", "192.0.2.1:30123/tcp NodePort"),
                *("198.51.100.7:81/tcp ExternalIP", "198.51.100.1:81/tcp LoadBalancer", "192.0.2.1:30124/tcp NodePort"),
            ],
            id="all of it, port by port",
        ),
    ],
)  # fmt: skip
def test_external_frontends(spec: dict[str, Any], expected: list[str]) -> None:
    assert [text for text in shown(spec, status=VIPS) if not text.endswith("ClusterIP")] == expected


def test_a_service_of_another_proxy_has_no_frontends() -> None:
    assert frontends(FIXED, labels={"service.kubernetes.io/service-proxy-name": "other"}) == []


# This node is 192.0.2.1 and 2001:db8::1; the load balancer's addresses are 198.51.100.1 and 2001:db8:1::1.
OWN = Node("n1", addresses=NODE.node_port_addresses)


@pytest.mark.parametrize(
    ("source_ranges", "v4", "v6"),
    [
        pytest.param(None, None, None, id="none"),
        pytest.param([], None, None, id="an empty list"),
        pytest.param(["203.0.113.0/25"], ["203.0.113.0/25"], None, id="no range of the other family"),
        pytest.param(["fd00::/8"], None, ["fd00::/8"], id="IPv6"),
        pytest.param(["203.0.113.0/25", " fd00::/8 "], ["203.0.113.0/25"], ["fd00::/8"], id="of both"),
        pytest.param(["203.0.113.9/25", "203.0.113.0/24"], ["203.0.113.0/24"], None, id="one within another"),
        pytest.param(["203.0.113.0/25", "203.0.113.128/25"], ["203.0.113.0/24"], None, id="neighbours"),
        pytest.param(["0.0.0.0/0"], ["0.0.0.0/0"], None, id="all of a family"),
        pytest.param(["192.0.2.0/24"], ["192.0.2.0/24", "198.51.100.1/32"], None, id="this node: the VIP, too"),
        pytest.param(["2001:db8::1/128"], None, ["2001:db8::1/128", "2001:db8:1::1/128"], id="this node by IPv6"),
        pytest.param(["192.0.2.1/32", "198.51.100.0/24"], ["192.0.2.1/32", "198.51.100.0/24"], None, id="the VIP is allowed anyway"),
        pytest.param(["192.0.2.2/32"], ["192.0.2.2/32"], None, id="another node"),
    ],
)  # fmt: skip
def test_source_ranges_of_a_load_balancer(
    source_ranges: list[str] | None, v4: list[str] | None, v6: list[str] | None
) -> None:
    spec = {
        **DUAL,
        **NODE_PORT,
        **EXTERNAL,
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": source_ranges,
    }
    found = {str(f): f.source_ranges for f in frontends(spec, OWN, VIPS) if f.source_ranges is not None}
    expected = {"198.51.100.1:80/tcp": v4, "[2001:db8:1::1]:80/tcp": v6}
    assert {at: [str(network) for network in ranges] for at, ranges in found.items()} == {
        at: ranges for at, ranges in expected.items() if ranges is not None
    }


def test_ranges_with_this_node_include_all_load_balancer_addresses() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "198.51.100.9"}]}}
    spec = {**FIXED, **BALANCED, "loadBalancerSourceRanges": ["192.0.2.1/32"]}
    found = [f.source_ranges for f in frontends(spec, OWN, status) if f.kind is FrontendKind.LOAD_BALANCER]
    expected = tuple(ip_network(text) for text in ("192.0.2.1", "198.51.100.1", "198.51.100.9"))
    assert found == [expected, expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("10.0.0.0/8 10.1.0.0/16", "10.0.0.0/8"),
        ("10.1.0.0/16 10.0.0.0/16", "10.0.0.0/15"),
        ("fd00::/8 10.0.0.0/8 fd00::1/128", "10.0.0.0/8 fd00::/8"),
        ("10.0.0.0/8 10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_merged_ranges_do_not_overlap(text: str, expected: str) -> None:
    assert " ".join(map(str, merged(map(ip_network, text.split())))) == expected


LOCAL: dict[str, Any] = {"externalTrafficPolicy": "Local"}


@pytest.mark.parametrize(
    ("policies", "with_two_lists"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"internalTrafficPolicy": "Local"}, [], id="internal"),
        pytest.param(LOCAL, ["ExternalIP", "LoadBalancer", "NodePort"], id="external"),
    ],
)
def test_external_policy_local_has_a_list_for_clients_from_outside(
    policies: dict[str, str], with_two_lists: list[str]
) -> None:
    spec = {**FIXED, **NODE_PORT, **EXTERNAL, **policies, "type": "LoadBalancer"}
    found = frontends(spec, status=VIPS)
    assert [f.kind for f in found if f.from_outside is not None] == with_two_lists


INSIDE: dict[str, Any] = {"internalTrafficPolicy": "Local"}
OUT = "spec.externalTrafficPolicy: no endpoint is on this node, n1: packets from outside are dropped;"
IN = "spec.internalTrafficPolicy: no endpoint is on this node, n1: packets to the ClusterIP are dropped;"
DROPS: dict[str, tuple[dict[str, Any], list[str | None], list[str]]] = {
    "policy Cluster": ({}, ["n2"], []),
    "an endpoint here": (LOCAL, ["n1", "n2"], []),
    "no endpoint at all": ({**LOCAL, **INSIDE}, [], []),
    "from outside": (
        LOCAL,
        ["n3", "n2"],
        [f"{OUT} its endpoints are on n2, n3"],
    ),
    "from inside": (INSIDE, ["n2"], [f"{IN} its endpoints are on n2"]),
    "both": (
        {**LOCAL, **INSIDE},
        ["n5", "n4", "n3", "n2"],
        [
            f"{OUT} its endpoints are on n2, n3, n4 and 1 more",
            f"{IN} its endpoints are on n2, n3, n4 and 1 more",
        ],
    ),
    "unknown nodes": (
        LOCAL,
        [None],
        [f"{OUT} the nodes of its endpoints are unknown (no nodeName)"],
    ),
    "some unknown": (
        LOCAL,
        [None, "n2"],
        [f"{OUT} its endpoints are on n2, some on unknown nodes (no nodeName)"],
    ),
}


@pytest.mark.parametrize(("policies", "nodes", "expected"), DROPS.values(), ids=DROPS)
def test_a_policy_that_drops_packets_is_a_warning(
    policies: dict[str, Any], nodes: list[str | None], expected: list[str]
) -> None:
    slices = slice_of(
        endpoints=[{"addresses": [f"10.0.0.{n}"], "nodeName": node} for n, node in enumerate(nodes, 1)]
    )
    outcome = resolved([service(**FIXED, **NODE_PORT, **policies), slices], ALLOCATION, node=NODE)
    assert outcome.problems == []
    assert [str(w) for w in outcome.warnings] == [
        f"in.yaml: Service default/web: {text}" for text in expected
    ]


def test_a_node_without_addresses_has_no_node_ports() -> None:
    assert shown({**FIXED, **NODE_PORT}, Node("n1")) == ["10.96.0.9:80/tcp ClusterIP"]


def test_frontends_are_in_order_of_names_and_each_port_has_its_own_endpoints() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "tls", "port": 443}]
    slices = slice_of("b", "10.0.0.1", ports=[{"name": "tls", "port": 8443}])
    outcome = resolved(
        [service("b", clusterIP="10.96.0.2", ports=ports), slices, service("a", clusterIP="10.96.0.1")],
        ALLOCATION,
    )
    found = [(str(f.owner), [format_socket(*e) for e in f.backends.endpoints]) for f in outcome.frontends]
    assert found == [("default/a", []), ("default/b:http", []), ("default/b:tls", ["10.0.0.1:8443"])]


# --- several Services claim one frontend ---


def contender(own: str, created: str | None = None, **spec: Any) -> dict[str, Any]:
    ip = f"10.96.0.{ord(own[0])}"
    made = service(own, clusterIP=ip, **{"externalIPs": ["198.51.100.7"], **spec})
    made["metadata"]["creationTimestamp"] = created
    return made


UDP: dict[str, Any] = {"ports": [{"port": 80, "protocol": "UDP"}]}
BALANCER: dict[str, Any] = {"type": "LoadBalancer", "externalIPs": [], "allocateLoadBalancerNodePorts": False}


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        pytest.param([contender("a"), contender("b")], ("b", "spec.externalIPs", "198.51.100.7:80/tcp belongs to Service default/a"), id="the first by name"),
        pytest.param([contender("b"), contender("a")], ("b", "spec.externalIPs", "198.51.100.7:80/tcp belongs to Service default/a"), id="in any order"),
        pytest.param([contender("a", "2026-01-02"), contender("b", "2026-01-01")], ("a", "spec.externalIPs", "198.51.100.7:80/tcp belongs to Service default/b"), id="the older one"),
        pytest.param([contender("a"), contender("b", "2026-01-01")], ("a", "spec.externalIPs", "198.51.100.7:80/tcp belongs to Service default/b"), id="one with a timestamp"),
        pytest.param([contender("a"), contender("b", **UDP)], None, id="another protocol"),
        pytest.param([contender("a"), contender("b", ports=[{"port": 81}])], None, id="another port"),
        pytest.param([contender("a"), contender("b", externalIPs=["198.51.100.8"])], None, id="another address"),
        pytest.param(
            [contender("a", externalIPs=["10.96.0.98"]), contender("b")],
            ("a", "spec.externalIPs", "10.96.0.98:80/tcp belongs to Service default/b"),
            id="the ClusterIP of a later Service",
        ),
        pytest.param(
            [contender("a", externalIPs=["192.0.2.1"], ports=[{"port": 30080}]), contender("b", externalIPs=[], type="NodePort", ports=[{"port": 1, "nodePort": 30080}])],
            ("a", "spec.externalIPs", "192.0.2.1:30080/tcp belongs to Service default/b"),
            id="a node port",
        ),
        pytest.param(
            [contender("a"), {**contender("b", **BALANCER), "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}}],
            ("b", "status.loadBalancer.ingress", "198.51.100.7:80/tcp belongs to Service default/a"),
            id="a load balancer's address",
        ),
        pytest.param([contender("a", externalIPs=["198.51.100.7", "10.96.0.97"])], None, id="its own ClusterIP"),
    ],
)  # fmt: skip
def test_an_address_that_several_services_claim(
    objects: list[dict[str, Any]], problem: tuple[str, str, str] | None
) -> None:
    outcome = resolved(objects, ALLOCATION)
    expected = [] if problem is None else [("in.yaml", f"Service default/{problem[0]}", *problem[1:])]
    assert outcome.problems == expected
    everyone = {made["metadata"]["name"] for made in objects}
    assert {f.owner.service.name for f in outcome.frontends if f.kind is FrontendKind.CLUSTER_IP} == everyone
    if problem is not None:
        at = problem[2].partition(" belongs")[0]
        owner = problem[2].rpartition("/")[2]
        assert {f.owner.service.name for f in outcome.frontends if str(f) == at} == {owner}
    assert not any(outcome.protected(name(own)) for own in everyone)


def test_a_service_keeps_its_other_addresses() -> None:
    """b loses one address to a, and keeps the other one, which c claims, too."""
    b = contender("b", externalIPs=["198.51.100.7", "198.51.100.8"])
    outcome = resolved([contender("a"), b, contender("c", externalIPs=["198.51.100.8"])], ALLOCATION)
    assert [problem.object for problem in outcome.problems] == ["Service default/b", "Service default/c"]
    shown = [(f.owner.service.name, str(f)) for f in outcome.frontends if f.kind is FrontendKind.EXTERNAL_IP]
    assert shown == [("a", "198.51.100.7:80/tcp"), ("b", "198.51.100.8:80/tcp")]


def test_every_address_that_a_service_loses_is_reported() -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    claimed = ["198.51.100.7", "198.51.100.8"]
    a, b = (contender(own, externalIPs=claimed, ports=ports) for own in "ab")
    assert [problem.message for problem in resolved([a, b], ALLOCATION).problems] == [
        f"{address}:{port}/tcp belongs to Service default/a" for address in claimed for port in (80, 81)
    ]


def test_many_lost_addresses_take_time_in_proportion_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def counted(frontend: Frontend) -> Socket:
        nonlocal looks
        looks += 1
        return socket_of(frontend)

    monkeypatch.setattr(claims, "socket_of", counted)
    ports = [{"name": f"p{number}", "port": number} for number in range(1, 301)]
    a, b = (contender(own, externalIPs=["198.51.100.7"], ports=ports) for own in "ab")
    problems = resolved([a, b], ALLOCATION).problems
    assert problems[-1] == ("in.yaml", "Service default/b", "", "250 more addresses belong to other Services")
    assert len(problems) == 51
    assert 0 < looks < 20 * 2 * 600


# --- their elements ---

KEY = frontend_key(parse_address("10.96.0.9"), Protocol.TCP, 80)
AT, ENDS = "10.96.0.9:80", ["10.0.0.1:80", "10.0.0.2:80"]


@pytest.mark.parametrize(
    ("own", "elements"),
    [
        pytest.param(frontend(AT, ENDS), {SetName.CLUSTER_IPS: {KEY[:4]: b""}}, id="a ClusterIP"),
        pytest.param(
            frontend(AT, ENDS, timeout=60),
            {SetName.CLUSTER_IPS: {KEY[:4]: b""}, SetName.AFFINITY_RULES: {KEY: Verdict("goto remember-60")}},
            id="affinity",
        ),
        pytest.param(
            frontend(AT, ENDS, kind=FrontendKind.NODE_PORT),
            {SetName.MASQUERADE_RULES: {KEY: Verdict("goto masq-always")}},
            id="a node port",
        ),
        pytest.param(
            frontend(AT, ENDS, kind=FrontendKind.NODE_PORT, outside=()),
            {SetName.MASQUERADE_RULES: {KEY: Verdict("goto masq-node")}},
            id="a node port with policy Local",
        ),
        pytest.param(
            frontend(AT, ENDS, kind=FrontendKind.LOAD_BALANCER, ranges=["10.0.0.0/8", "192.0.2.1/32"]),
            {
                SetName.MASQUERADE_RULES: {KEY: Verdict("goto masq-always")},
                SetName.SOURCE_RESTRICTED: {KEY: b""},
                SetName.SOURCE_RANGES: {
                    range_key(KEY, bytes([10, 0, 0, 0]), bytes([10, 255, 255, 255])): b"",
                    range_key(KEY, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 1])): b"",
                },
            },
            id="source ranges",
        ),
        pytest.param(
            frontend(AT, ENDS, kind=FrontendKind.LOAD_BALANCER, ranges=[]),
            {
                SetName.MASQUERADE_RULES: {KEY: Verdict("goto masq-always")},
                SetName.SOURCE_RESTRICTED: {KEY: b""},
            },
            id="no source allowed",
        ),
        pytest.param(
            frontend(AT, ENDS, kind=FrontendKind.LOAD_BALANCER, from_pool=True),
            {
                SetName.MASQUERADE_RULES: {KEY: Verdict("goto masq-always")},
                SetName.LOAD_BALANCER_IPS: {KEY[:4]: b""},
            },
            id="a load-balancer address from the pool",
        ),
    ],
)
def test_elements_of_a_frontend(own: Frontend, elements: dict[str, Any]) -> None:
    expected: dict[str, Any] = {name: {} for name in SETS}
    assert desired(own).elements == expected | elements


def test_every_protocol_has_affinity() -> None:
    members = [frontend(AT, ENDS, protocol=protocol, timeout=60) for protocol in Protocol]
    keys = {frontend_key(KEY[:4], protocol, 80) for protocol in Protocol}
    assert desired(*members).elements[SetName.AFFINITY_RULES].keys() == keys


def test_frontends_of_the_other_family_are_ignored() -> None:
    both = [frontend(AT, ENDS), frontend("[fd00:96::9]:80", ["[fd00::1]:80"])]
    assert [len(compile_frontends(both, family).specs) for family in Family] == [1, 1]


def test_each_list_of_endpoints_has_a_frontend_side() -> None:
    specs = desired(frontend(AT, ENDS, outside=ENDS[:1])).specs
    assert {side: len(spec.endpoints) for side, spec in specs.items()} == {
        FrontendSide(EndpointScope.ALL, KEY): 2,
        FrontendSide(EndpointScope.LOCAL, KEY): 1,
    }


@pytest.mark.parametrize(
    ("elsewhere", "chain"),
    [(False, "no-endpoints"), (True, "discard")],
    ids=["no endpoints", "endpoints on other nodes"],
)
def test_without_endpoints_a_packet_is_rejected_or_dropped(elsewhere: bool, chain: str) -> None:
    specs = desired(frontend(AT, outside=(), elsewhere=elsewhere)).specs
    assert {side.scope: spec.verdict(side.scope, 0).text for side, spec in specs.items()} == {
        EndpointScope.ALL: "goto no-endpoints",
        EndpointScope.LOCAL: f"goto {chain}",
    }


def test_numbered_chains_of_frontends() -> None:
    members = (
        frontend(AT, ENDS),
        frontend("10.96.0.9:81", ENDS[:1], timeout=60),
        frontend("10.96.0.9:82"),
        frontend("10.96.0.9:83", ENDS, outside=ENDS[:1]),
        frontend("10.96.0.9:84", outside=(), elsewhere=True),
        frontend("10.96.0.9:85", ENDS, balance=Balance.CLIENT),
        frontend("10.96.0.9:86", ENDS, balance=Balance.CLIENT_PORT, outside=ENDS),
    )
    slot_chains = {
        SlotChain(EndpointScope.ALL, Balance.RANDOM, 4),
        SlotChain(EndpointScope.ALL, Balance.STICKY, 1),
        SlotChain(EndpointScope.LOCAL, Balance.RANDOM, 1),
        SlotChain(EndpointScope.ALL, Balance.CLIENT, 2),
        SlotChain(EndpointScope.ALL, Balance.CLIENT_PORT, 2),
        SlotChain(EndpointScope.LOCAL, Balance.CLIENT_PORT, 2),
    }
    assert numbered_chains(initial_elements(*desired(*members))) == NumberedChains(
        frozenset(slot_chains), frozenset({60})
    )


def test_comments_are_truncated() -> None:
    (spec,) = desired(frontend(AT, owner="n" * 63 + "/" + "x" * 70)).specs.values()
    assert spec.comment == "n" * 63 + "/" + "x" * 63
