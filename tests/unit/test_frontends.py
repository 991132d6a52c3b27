"""On which (address, protocol, port) a service is shown, and what comes of it in the maps."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from typing import Any

import pytest

from kproxy.compile.elements import compile_frontends
from kproxy.compile.skeleton import Shapes, is_sticky, target_verdict, verdict_count
from kproxy.model import Family, Frontend, FrontendKind, Node, Protocol, format_socket, parse_address
from kproxy.nft.elements import Verdict, frontend_key
from tests.unit.make import NODE, desired, frontend, manifest, resolved, service
from tests.unit.test_allocate import RANGES

DUAL = {"clusterIPs": ["10.96.0.9", "fd00:96::9"], "ipFamilyPolicy": "PreferDualStack"}
FIXED = {"clusterIP": "10.96.0.9"}
NODE_PORT = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30123}]}


def shown(spec: dict[str, Any], node: Node = NODE) -> list[str]:
    outcome = resolved([service(**spec)], RANGES, node=node)
    assert outcome.problems == []
    return [f"{frontend} {frontend.kind}" for frontend in outcome.frontends]


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
def test_where_a_service_is_shown(spec: dict[str, Any], expected: list[str]) -> None:
    assert shown(spec) == expected


def test_a_node_without_addresses_has_no_node_ports() -> None:
    assert shown({**FIXED, **NODE_PORT}, Node("n1")) == ["10.96.0.9:80/tcp ClusterIP"]


def test_services_come_in_order_of_their_names_and_ports_have_endpoints_of_their_own() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "tls", "port": 443}]
    slices = manifest(
        "EndpointSlice",
        "b-x",
        metadata={"labels": {"kubernetes.io/service-name": "b"}},
        addressType="IPv4",
        ports=[{"name": "tls", "port": 8443}],
        endpoints=[{"addresses": ["10.0.0.1"]}],
    )
    outcome = resolved(
        [service("b", clusterIP="10.96.0.2", ports=ports), slices, service("a", clusterIP="10.96.0.1")],
        RANGES,
    )
    found = [(str(f.owner), [format_socket(*e) for e in f.endpoints]) for f in outcome.frontends]
    assert found == [("default/a", []), ("default/b:http", []), ("default/b:tls", ["10.0.0.1:8443"])]


# --- their elements ---

KEY = frontend_key(parse_address("10.96.0.9"), Protocol.TCP, 80)
AT, ENDS = "10.96.0.9:80", ["10.0.0.1:80", "10.0.0.2:80"]
ONE_IP = parse_address("10.0.0.1")


@pytest.mark.parametrize(
    ("given", "elements"),
    [
        pytest.param(frontend(AT, ENDS), {"cluster-ips": {KEY[:4]: b""}}, id="a ClusterIP"),
        pytest.param(
            frontend(AT, ENDS, timeout=60),
            {"cluster-ips": {KEY[:4]: b""}, "affinity-rules": {KEY: Verdict("goto remember-60")}},
            id="affinity",
        ),
        pytest.param(
            frontend(AT, ENDS, kind=FrontendKind.NODE_PORT),
            {"masquerade-rules": {KEY: Verdict("goto masq-always")}},
            id="a node port",
        ),
        pytest.param(
            frontend(AT, ENDS, local=["10.0.0.1"]),
            {"cluster-ips": {KEY[:4]: b""}, "hairpin": {ONE_IP + ONE_IP: b""}},
            id="a local endpoint",
        ),
    ],
)
def test_the_elements_of_a_frontend(given: Frontend, elements: dict[str, Any]) -> None:
    empty: dict[str, Any] = {"cluster-ips": {}, "hairpin": {}, "masquerade-rules": {}, "affinity-rules": {}}
    assert desired(given).elements == {**empty, **elements}


def test_sctp_has_no_affinity() -> None:
    result = desired(frontend(AT, ENDS, protocol=Protocol.SCTP, timeout=60))
    assert (result.elements["affinity-rules"], result.timeouts) == ({}, frozenset())
    assert result.shapes.sticky == frozenset()


def test_the_other_family_is_passed_over() -> None:
    both = [frontend(AT, ENDS), frontend("[fd00:96::9]:80", ["[fd00::1]:80"])]
    assert [len(compile_frontends(both, family).targets) for family in Family] == [1, 1]


def test_the_chains_that_are_needed() -> None:
    shapes = desired(
        frontend(AT, ENDS), frontend("10.96.0.9:81", ENDS[:1], timeout=60), frontend("10.96.0.9:82")
    ).shapes
    assert shapes == Shapes(frozenset({2}), frozenset({1}), frozenset({60}))


@pytest.mark.parametrize(
    ("count", "sticky", "text"),
    [
        (0, False, "goto no-endpoints"),
        (0, True, "goto no-endpoints"),
        (3, False, "goto lb-3"),
        (3, True, "goto sticky-3"),
    ],
)
def test_verdicts_say_how_many_slots_they_use(count: int, sticky: bool, text: str) -> None:
    verdict = target_verdict(count, sticky)
    assert verdict.text == text
    assert (verdict_count(verdict), is_sticky(verdict)) == (count, sticky and count > 0)


@pytest.mark.parametrize("text", ["drop", "goto elsewhere", "goto lb-", "goto lb-x", "goto masq-3", "accept"])
def test_verdicts_of_others_use_none(text: str) -> None:
    assert verdict_count(Verdict(text)) == 0


def test_a_comment_has_its_limit() -> None:
    (target,) = desired(frontend(AT, owner="n" * 63 + "/" + "x" * 70)).targets.values()
    assert target.comment == "n" * 63 + "/" + "x" * 63
