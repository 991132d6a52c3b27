"""External addresses that something else has are said, and refused on request."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import struct
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kproxy.cli import settings_from
from kproxy.decode import Document, decode
from kproxy.kernel import host
from kproxy.kernel.netlink.core.codec import attribute
from kproxy.kernel.netlink.core.constants import RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA
from kproxy.kernel.netlink.core.route import read_default_route
from kproxy.model import API_SERVER, FrontendKind, Node, format_address, parse_address
from kproxy.problems import UsageError
from kproxy.resolve.claims import Claims, Resolved, all_frontends, claim
from kproxy.settings.derived import ranges
from tests.unit.make import manifest, name, service

NODE = Node(
    "n1",
    (parse_address("192.0.2.1"),),
    (parse_address("192.0.2.1"),),
    relied_on=(
        (parse_address("192.0.2.254"), "this node's gateway"),
        (parse_address("2001:db8::53"), "a DNS server of this node"),
    ),
)
DENYING = replace(NODE, denied=(ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/48")))
DNS = service("kube-dns", clusterIP="10.96.0.10", ports=[{"port": 53, "protocol": "UDP"}])
API: list[dict[str, Any]] = [
    manifest("Service", "kubernetes", spec={"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}),
    manifest(
        "Endpoints", "kubernetes", subsets=[{"addresses": [{"ip": "192.0.2.100"}], "ports": [{"port": 6443}]}]
    ),
]


def web(*external: str, **spec: Any) -> dict[str, Any]:
    return service(
        "web",
        clusterIP="10.96.0.80",
        clusterIPs=["10.96.0.80", "fd00::80"],
        externalIPs=list(external),
        **spec,
    )


def balanced(ip: str) -> dict[str, Any]:
    return {**web(type="LoadBalancer"), "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}


def resolved(objects: list[dict[str, Any]], node: Node = NODE) -> Resolved:
    decoded = decode(Document("f", each) for each in objects)
    assert decoded.problems == []
    state = decoded.state
    return all_frontends(state.services.values(), state.slices, node)


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        pytest.param([web("198.51.100.7")], [], id="an address of its own"),
        pytest.param([web("10.96.0.80")], [], id="its own ClusterIP"),
        pytest.param([web("192.0.2.1")], ["192.0.2.1 is the address of this node"], id="this node"),
        pytest.param([service("web", clusterIP="192.0.2.1")], ["192.0.2.1 is the address of this node"], id="node's ClusterIP"),
        pytest.param([web("192.0.2.254")], ["192.0.2.254 is the address of this node's gateway"], id="the gateway"),
        pytest.param([web("2001:db8::53")], ["2001:db8::53 is the address of a DNS server of this node"], id="DNS"),
        pytest.param([balanced("192.0.2.254")], ["192.0.2.254 is the address of this node's gateway"], id="balancer"),
        pytest.param([DNS, web("10.96.0.10")], ["10.96.0.10 is the ClusterIP of Service default/kube-dns"], id="ClusterIP"),
        pytest.param([*API, web("192.0.2.100")], ["192.0.2.100 is the address of an API server"], id="API server"),
        pytest.param([*API, web("10.96.0.1")], ["10.96.0.1 is the ClusterIP of Service default/kubernetes"], id="API"),
    ],
)  # fmt: skip
def test_an_address_that_something_else_has_is_a_warning(
    objects: list[dict[str, Any]], said: list[str]
) -> None:
    found = resolved(objects)
    assert found.problems == []
    assert [warning.message.partition(":  ")[0].rpartition(": ")[0] for warning in found.warnings] == said
    assert {warning.object for warning in found.warnings} <= {"Service default/web"}


def test_an_address_of_the_pool_is_no_warning() -> None:
    (found,) = decode([Document("f", balanced("192.0.2.1"))]).state.services.values()
    assert claim(found, (), NODE).warnings
    assert not claim(replace(found, pool_ips=found.load_balancer_ips), (), NODE).warnings


def test_a_warning_ends_with_the_service_that_has_the_address() -> None:
    services = decode(Document("f", each) for each in (web("10.96.0.10"), DNS)).state.services
    claims = Claims()
    made = {own: claim(each, (), NODE) for own, each in services.items()}
    claims.change({name("web"): made[name("web")]})
    assert claims.warnings() == []
    claims.change({name("kube-dns"): made[name("kube-dns")]})
    assert len(claims.warnings()) == 1
    claims.change({name("kube-dns"): None})
    assert claims.warnings() == []
    assert API_SERVER not in claims.names()


def test_a_denied_address_is_refused() -> None:
    found = resolved([web("198.51.100.7", "203.0.113.7", "2001:db8:1::7")], DENYING)
    assert [(problem.object, problem.field, problem.message) for problem in found.problems] == [
        (
            "Service default/web",
            "spec.externalIPs",
            f"{address} is refused: --deny-external-addresses {network}",
        )
        for address, network in (("198.51.100.7", "198.51.100.0/24"), ("2001:db8:1::7", "2001:db8:1::/48"))
    ]
    external = [f for f in found.frontends if f.kind is FrontendKind.EXTERNAL_IP]
    assert [format_address(frontend.address) for frontend in external] == ["203.0.113.7"]


def test_a_denied_load_balancer_address_is_refused_and_a_cluster_ip_is_not() -> None:
    found = resolved([balanced("198.51.100.7"), service("own", clusterIP="198.51.100.9")], DENYING)
    assert [problem.field for problem in found.problems] == ["status.loadBalancer.ingress"]
    assert {format_address(f.address) for f in found.frontends} == {"10.96.0.80", "fd00::80", "198.51.100.9"}


def test_the_flag() -> None:
    words = ["get", "svc", "--deny-external-addresses"]
    found = settings_from([*words, "198.51.100.0/24,2001:db8::/32"]).deny_external_addresses
    assert found == (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))
    with pytest.raises(UsageError, match="overlap"):
        ranges(settings_from([*words, "198.51.100.0/24", "--load-balancer-pool", "198.51.100.7/32"]))


def test_name_servers_of_resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    monkeypatch.setattr(host, "RESOLV_CONF", path)
    assert host.name_servers() == ()
    path.write_bytes(
        b"# x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver\nnameserver \xff\nsearch a\n"
        b"nameserver 192.0.2.53 # again\noptions ndots:5 ndots:" + b"9" * 5000 + b"\n" + b"x" * 1_000_000
    )
    assert host.name_servers() == (parse_address("192.0.2.53"), parse_address("fe80::1"))


A, B = parse_address("192.0.2.254"), parse_address("2001:db8::1")


@pytest.mark.parametrize(
    ("attributes", "gateways"),
    [
        (b"", ()),
        (attribute(RTA_GATEWAY, A), (A,)),
        (attribute(RTA_VIA, struct.pack("=H", 10) + B), (B,)),
        (
            attribute(
                RTA_MULTIPATH,
                struct.pack("=HBBi", 16, 0, 0, 2) + attribute(RTA_GATEWAY, A)
                + struct.pack("=HBBi", 28, 0, 0, 3) + attribute(RTA_GATEWAY, B),
            ),
            (A, B),
        ),
        (attribute(RTA_MULTIPATH, struct.pack("=HBBi", 0, 0, 0, 2)), ()),
    ],
    ids=["none", "one", "of another family", "several", "malformed"],
)  # fmt: skip
def test_gateways_of_a_route(attributes: bytes, gateways: tuple[bytes, ...]) -> None:
    route = read_default_route(memoryview(struct.pack("=BBBBBBBBI", 2, *[0] * 8) + attributes))
    assert route is not None
    assert route.gateways == gateways
