"""The endpoints of a service port: from pods by selector, or from slices."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from kproxy.controlplane.slices import with_host_addresses
from kproxy.decode import Document, decode
from kproxy.model import (
    Backends,
    Balance,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    Node,
    Origin,
    Protocol,
    Service,
    ServicePort,
    format_socket,
    parse_address,
)
from kproxy.resolve.frontends import Choices, balance_of, choices, service_frontends
from kproxy.resolve.maglev import SLOTS
from tests.unit.make import manifest, name, selected_slices, service, slice_of


def pod(
    own_name: str, ip: str | list[str], ready: bool = True, app: str = "web", **metadata: Any
) -> dict[str, Any]:
    """A pod with a named port 8080/TCP `http`."""
    ips = [ip] if isinstance(ip, str) else ip
    return manifest(
        "Pod",
        own_name,
        metadata={"labels": {"app": app, "own": own_name}, **metadata},
        spec={"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}], "nodeName": "n1"},
        status={
            "podIP": ips[0],
            "podIPs": [{"ip": text} for text in ips],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    )


NODE = Node("n1", addresses=(parse_address("192.0.2.1"), parse_address("2001:db8::1")))
GONE: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
TWO = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]


def served(*objects: dict[str, Any], family: Family = Family.IPV4, **spec: Any) -> list[str]:
    """The endpoints of the first port of Service `web`, once selectors are resolved."""
    selected = service(**{"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec})
    result = decode(Document("f", content) for content in (selected, *objects))
    assert result.problems == []
    selecting = result.state.services[name("web")]
    slices = selected_slices(result.state, NODE).get(name("web"), ())
    found = choices(selecting, selecting.ports[0], slices, family, NODE)
    return [format_socket(*socket) for socket in found.cluster.endpoints]


def endpoints_of(ip: str) -> dict[str, Any]:
    return manifest("Endpoints", "web", subsets=[{"addresses": [{"ip": ip}], "ports": [{"port": 2}]}])


OTHER_PORT = {"containers": [{"ports": [{"name": "http", "containerPort": 9090}]}]}
UDP_PORT = {"containers": [{"ports": [{"name": "http", "containerPort": 9090, "protocol": "UDP"}]}]}


@pytest.mark.parametrize(
    ("objects", "spec", "expected"),
    [
        pytest.param(TWO, {}, ["10.0.0.1:8080", "10.0.0.2:8080"], id="by label"),
        pytest.param([*TWO, pod("c", "10.0.0.3", app="x")], {}, ["10.0.0.1:8080", "10.0.0.2:8080"], id="other labels"),
        pytest.param(TWO, {"selector": {"app": "web", "own": "b"}}, ["10.0.0.2:8080"], id="every label counts"),
        pytest.param(TWO, {"selector": {"app": "other"}}, [], id="no match"),
        pytest.param(TWO, {"selector": {}}, [], id="no selector selects nothing"),
        pytest.param([pod("a", "10.0.0.1", namespace="other")], {}, [], id="another namespace"),
        pytest.param(TWO, {"ports": [{"port": 80}]}, ["10.0.0.1:80", "10.0.0.2:80"], id="target port absent"),
        pytest.param(TWO, {"ports": [{"port": 80, "targetPort": 81}]}, ["10.0.0.1:81", "10.0.0.2:81"], id="a number"),
        pytest.param([TWO[0], {**TWO[1], "spec": OTHER_PORT}], {}, ["10.0.0.1:8080", "10.0.0.2:9090"], id="a name, per pod"),
        pytest.param([TWO[0], {**TWO[1], "spec": UDP_PORT}], {}, ["10.0.0.1:8080"], id="a name of another protocol"),
        pytest.param([TWO[0], {**TWO[1], "spec": None}], {}, ["10.0.0.1:8080"], id="a name that a pod lacks"),
        pytest.param([TWO[0], pod("b", "10.0.0.2", False)], {}, ["10.0.0.1:8080"], id="not ready"),
        pytest.param([pod("b", "10.0.0.2", False)], {}, [], id="none ready"),
        pytest.param([pod("b", "10.0.0.2", False)], {"publishNotReadyAddresses": True}, ["10.0.0.2:8080"], id="published"),
        pytest.param([TWO[0], pod("b", "10.0.0.2", **GONE)], {}, ["10.0.0.1:8080"], id="terminating"),
        pytest.param([pod("b", "10.0.0.2", **GONE)], {}, ["10.0.0.2:8080"], id="only terminating ones serve"),
        pytest.param([pod("b", "10.0.0.2", False, **GONE)], {}, [], id="terminating and not serving"),
        pytest.param([manifest("Pod", "p", metadata={"labels": {"app": "web"}})], {}, [], id="no address yet"),
        pytest.param([*TWO, slice_of("web", "10.0.0.9", port=1)], {}, ["10.0.0.9:1"], id="an EndpointSlice replaces the pods"),
        pytest.param([*TWO, endpoints_of("10.0.0.9")], {}, ["10.0.0.9:2"], id="Endpoints replace the pods"),
        pytest.param([slice_of("web", "10.0.0.9", port=1), endpoints_of("10.0.0.8")], {}, ["10.0.0.9:1"], id="slices replace Endpoints"),
        pytest.param([*TWO, slice_of()], {}, [], id="an EndpointSlice without endpoints replaces the pods"),
        pytest.param([slice_of("web", "10.0.0.9", ports=[{"name": "x", "port": 1}])], {}, [], id="a port of another name"),
        pytest.param([slice_of("web", "10.0.0.9", ports=[{"port": 1, "protocol": "UDP"}])], {}, [], id="of another protocol"),
    ],
)  # fmt: skip
def test_endpoints_of_a_service(
    objects: list[dict[str, Any]], spec: dict[str, Any], expected: list[str]
) -> None:
    assert served(*objects, **spec) == expected


def host_pod(node: str = "", **status: Any) -> dict[str, Any]:
    return {**pod("h", "10.0.0.1"), "spec": {"hostNetwork": True, "nodeName": node}, "status": status}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(host_pod(), ["192.0.2.1:80"], id="no nodeName: this node"),
        pytest.param(host_pod("n1"), ["192.0.2.1:80"], id="this node"),
        pytest.param(host_pod("n2"), [], id="another node"),
        pytest.param(host_pod("n2", hostIP="192.0.2.2"), ["192.0.2.2:80"], id="another node with an address"),
        pytest.param(host_pod("n1", hostIPs=[{"ip": "192.0.2.3"}]), ["192.0.2.3:80"], id="hostIPs first"),
        pytest.param(host_pod("n1", podIP="192.0.2.4", hostIP="192.0.2.3"), ["192.0.2.4:80"], id="podIP first"),
        pytest.param({**host_pod(), "spec": {}}, [], id="hostNetwork is false"),
    ],
)  # fmt: skip
def test_addresses_of_a_host_network_pod(own: dict[str, Any], expected: list[str]) -> None:
    assert served(own, ports=[{"port": 80}]) == expected


def test_a_host_network_pod_without_node_name_is_on_this_node() -> None:
    pods = decode([Document("f", host_pod())]).state.pods
    assert [(pod.node, pod.addresses) for pod in with_host_addresses(pods, NODE)] == [("n1", NODE.addresses)]
    assert served(host_pod(), family=Family.IPV6, ports=[{"port": 80}]) == ["[2001:db8::1]:80"]


def test_an_endpoints_object_without_addresses_replaces_the_pods() -> None:
    assert served(*TWO, manifest("Endpoints", "web")) == []


@pytest.mark.parametrize(
    ("family", "expected"), [(Family.IPV4, ["10.0.0.1:8080"]), (Family.IPV6, ["[fd00::1]:8080"])]
)
def test_each_family_has_its_own_endpoints(family: Family, expected: list[str]) -> None:
    assert served(pod("a", ["10.0.0.1", "fd00::1"]), family=family) == expected


def test_an_external_name_selects_nothing() -> None:
    result = decode(Document("f", c) for c in (service(type="ExternalName", selector={"app": "web"}), *TWO))
    assert selected_slices(result.state, NODE) == {}


def test_endpoints_are_sorted_and_unique() -> None:
    """Two slices may overlap while a controller moves endpoints. Ready in one of them is ready."""
    ips = [parse_address(f"10.0.0.{n}") for n in range(4)]
    slices = [
        EndpointSlice(
            name("web"), Origin("f", ""), own, Family.IPV4, (EndpointPort("", Protocol.TCP, port),), members
        )
        for own, port, members in (
            ("x", 80, (Endpoint(ips[3], node="n1"), Endpoint(ips[1], ready=False))),
            ("y", 80, (Endpoint(ips[1], node="n2"), Endpoint(ips[3], node="n1"))),
            ("z", 81, (Endpoint(ips[2]), Endpoint(ips[1], node="n2"))),
        )
    ]
    found = choices(plain(), PORT, slices, Family.IPV4, Node("n1"))
    assert found.internal.endpoints == ((ips[1], 80), (ips[1], 81), (ips[2], 81), (ips[3], 80))


# --- policies ---

PORT = ServicePort("", Protocol.TCP, 80, 80, 0)
HERE, THERE, NOWHERE = {"node": "n1"}, {"node": "n2"}, {"node": ""}
DRAINS = {"ready": False, "terminating": True}
STARTS = {"ready": False}


def plain(**spec: Any) -> Service:
    (made,) = decode([Document("f", service(**spec))]).state.services.values()
    return made


def chosen(spec: dict[str, Any], *members: dict[str, Any], protocol: Protocol = Protocol.TCP) -> Choices:
    """The choices of a Service with these endpoints, named a, b, c and so on."""
    endpoints = tuple(Endpoint(bytes([10, 0, 0, 97 + n]), **rest) for n, rest in enumerate(members))
    ports = (EndpointPort("", protocol, 80),)
    slice_ = EndpointSlice(name("web"), Origin("f", ""), "x", Family.IPV4, ports, endpoints)
    return choices(plain(**spec), replace(PORT, protocol=protocol), [slice_], Family.IPV4, Node("n1"))


def letters(behind: Backends | None) -> str | None:
    """`ab`: a and b; `!`: none on this node, some on others."""
    if behind is None:
        return None
    return "".join(chr(address[3]) for address, _ in behind.endpoints) or "!" * behind.elsewhere


INTERNAL, EXTERNAL = {"internalTrafficPolicy": "Local"}, {"externalTrafficPolicy": "Local"}
LOCAL_LOCAL = {**INTERNAL, **EXTERNAL}
MIXED = (HERE, THERE, NOWHERE)


@pytest.mark.parametrize(
    ("spec", "members", "internal", "cluster", "outside"),
    [
        pytest.param({}, MIXED, "abc", "abc", None, id="no policy"),
        pytest.param(EXTERNAL, MIXED, "abc", "abc", "a", id="external"),
        pytest.param(INTERNAL, MIXED, "a", "abc", None, id="internal"),
        pytest.param(LOCAL_LOCAL, MIXED, "a", "abc", "a", id="both"),
        pytest.param(EXTERNAL, (THERE,), "a", "a", "!", id="external, all elsewhere"),
        pytest.param(INTERNAL, (THERE,), "!", "a", None, id="internal, all elsewhere"),
        pytest.param(LOCAL_LOCAL, (NOWHERE,), "!", "a", "!", id="node unknown"),
        pytest.param(LOCAL_LOCAL, (), "", "", "", id="none at all"),
        pytest.param(LOCAL_LOCAL, ({**HERE, **STARTS}, {**THERE, **STARTS}), "", "", "", id="none that serves"),
        pytest.param(EXTERNAL, ({**HERE, **DRAINS}, THERE), "b", "b", "a", id="draining here, ready there"),
        pytest.param(LOCAL_LOCAL, ({**HERE, **DRAINS}, HERE, THERE), "b", "bc", "b", id="draining and ready here"),
        pytest.param(EXTERNAL, ({**THERE, **DRAINS},), "a", "a", "!", id="draining there"),
    ],
)  # fmt: skip
def test_endpoints_by_traffic_policy(
    spec: dict[str, Any],
    members: tuple[dict[str, Any], ...],
    internal: str,
    cluster: str,
    outside: str | None,
) -> None:
    found = chosen(spec, *members)
    assert tuple(map(letters, (found.internal, found.cluster, found.outside))) == (internal, cluster, outside)


@pytest.mark.parametrize(
    ("protocol", "serving"),
    [(Protocol.TCP, ""), (Protocol.SCTP, ""), (Protocol.UDP, "abd")],
)
def test_udp_has_all_serving_endpoints(protocol: Protocol, serving: str) -> None:
    members = (HERE, {**THERE, **DRAINS}, {**STARTS, "serving": False}, {**HERE, **STARTS})
    found = chosen({}, *members, protocol=protocol)
    assert "".join(chr(address[3]) for address, _ in found.serving) == serving


def annotated(annotation: str, text: str, **spec: Any) -> Service:
    made = service(**spec)
    made["metadata"]["annotations"] = {f"kproxy.io/{annotation}": text}
    (found,) = decode([Document("f", made)]).state.services.values()
    return found


PODS = tuple(
    Endpoint(bytes([10, 0, 0, 97 + n]), node=node, pod=pod)
    for n, (node, pod) in enumerate([("n1", "web-1"), ("n2", "web-2"), ("n2", "")])
)


def weighted(selecting: Service) -> Choices:
    slice_ = EndpointSlice(
        *(name("web"), Origin("f", ""), "x", Family.IPV4, (EndpointPort("", Protocol.TCP, 80),), PODS)
    )
    return choices(selecting, PORT, [slice_], Family.IPV4, Node("n1"))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("", "abc"),
        ("web-1=3", "aaabc"),
        ("10.0.0.97=2, 10.0.0.99=2", "aabcc"),
        ("web-1=1,web-2=2,10.0.0.99=3", "abbccc"),
        ("web-1=2,10.0.0.97=5", "aabc"),
        ("other=9", "abc"),
    ],
    ids=["none", "a pod", "addresses", "all", "a pod's name counts first", "no such endpoint"],
)
def test_an_endpoint_has_as_many_slots_as_its_weight(weights: str, expected: str) -> None:
    assert letters(weighted(annotated("weights", weights)).cluster) == expected


def test_weights_count_in_every_list() -> None:
    found = weighted(annotated("weights", "web-1=3", **LOCAL_LOCAL))
    assert list(map(letters, (found.internal, found.cluster, found.outside))) == ["aaa", "aaabc", "aaa"]


def test_consistent_hashing_has_one_table_for_each_list() -> None:
    found = weighted(annotated("consistent-hash", "client", **EXTERNAL))
    assert found.outside is not None
    assert [len(behind.endpoints) for behind in (found.cluster, found.outside)] == [SLOTS, SLOTS]
    assert set(letters(found.cluster) or "") == set("abc")
    assert set(letters(found.outside) or "") == set("a")


@pytest.mark.parametrize(
    ("selecting", "balance"),
    [
        (plain(), Balance.RANDOM),
        (plain(sessionAffinity="ClientIP"), Balance.STICKY),
        (annotated("consistent-hash", "client"), Balance.CLIENT),
        (annotated("consistent-hash", "client-port"), Balance.CLIENT_PORT),
    ],
)
def test_balance_of_a_service(selecting: Service, balance: Balance) -> None:
    assert balance_of(selecting) is balance


class Ports(tuple[EndpointPort, ...]):
    """Ports that count how often they are looked at one after the other."""

    looks = 0

    def __iter__(self) -> Iterator[EndpointPort]:
        Ports.looks += 1
        return super().__iter__()


def test_the_ports_of_a_slice_are_looked_at_as_often_for_one_port_as_for_many() -> None:
    numbers = range(1, 10)
    ports = Ports([EndpointPort(f"p{number}", Protocol.TCP, number) for number in numbers])
    endpoints = (Endpoint(parse_address("10.0.0.1")),)
    slice_ = EndpointSlice(name("web"), Origin("f", ""), "x", Family.IPV4, ports, endpoints)
    made = tuple(ServicePort(f"p{number}", Protocol.TCP, number, number, 0) for number in numbers)
    many = replace(plain(clusterIP="10.96.0.9"), ports=made)
    found = list(service_frontends(many, (slice_,), Node("n1")))
    assert [each.backends.endpoints[0][1] for each in found] == list(numbers)
    assert Ports.looks == 1
