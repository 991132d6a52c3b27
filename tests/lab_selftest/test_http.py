"""The pods' HTTP as bytes, and topologies; without namespaces."""

import json
from dataclasses import asdict, replace
from ipaddress import ip_network

import pytest
from netns_lab.http import BadRequest, Request, head, next_request
from netns_lab.manifests import pod_manifests
from netns_lab.topology import POD_NETWORK, Client, Pod, Port, Topology, chapter, lab_node, multi, single
from netns_lab.wire import interface_name

HOST = b"Host: a\r\n"


def request(
    method: str = "GET", path: str = "/", *, keep_alive: bool = True, host: str = "a", **query: str
) -> Request:
    return Request(method, path, query, keep_alive, host)


@pytest.mark.parametrize(
    ("sent", "read", "left"),
    [
        (b"", None, b""),
        (b"GET / HTTP/1.1\r\n" + HOST, None, b"GET / HTTP/1.1\r\n" + HOST),
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", request(), b""),
        (b"HEAD /a HTTP/1.1\r\n" + HOST + b"\r\nGET", request("HEAD", "/a"), b"GET"),
        (b"GET /s?n=1&m=a%20b HTTP/1.1\r\n" + HOST + b"\r\n", request(path="/s", n="1", m="a b"), b""),
        (b"GET / HTTP/1.1\r\n" + HOST + b"connection: x, CLOSE\r\n\r\n", request(keep_alive=False), b""),
        (b"GET / HTTP/1.0\r\n\r\n", request(keep_alive=False, host=""), b""),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", request(host=""), b""),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabcde", request(), b"de"),
        (
            b"GET / HTTP/1.0\r\nContent-Length: 3\r\n\r\nab",
            None,
            b"GET / HTTP/1.0\r\nContent-Length: 3\r\n\r\nab",
        ),
    ],
)
def test_requests(sent: bytes, read: Request | None, left: bytes) -> None:
    buffer = bytearray(sent)
    assert next_request(buffer) == read
    assert buffer == left


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"\x00\xff \x01 \x02\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / SPDY/1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"a" * 20_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n", 431),
    ],
)
def test_invalid_requests(sent: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        next_request(bytearray(sent))
    assert caught.value.status == status


def test_numbers_of_the_query() -> None:
    asked = request(n="12", m="-1")
    assert (asked.number("n", 5), asked.number("other", 5)) == (12, 5)
    with pytest.raises(BadRequest, match="m=-1 is not a number"):
        asked.number("m", 5)


def test_response_head() -> None:
    assert head(200, 3, False, {"X-Pod": "a"}).split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 3",
        b"Connection: close",
        b"X-Pod: a",
        b"",
        b"",
    ]


AGENT = Pod("agent", "n1", environment={"A": "1"}, localhost_only=True, host_network=True)
WEB = Client("web", "192.0.2.1", "2001:db8::1", via="lan", ports=(Port("http", 80, to_https=True),))


@pytest.mark.parametrize(
    "topology",
    [
        chapter(),
        chapter(100),
        multi(3, 2),
        replace(single(), families=(4,)),
        replace(single().with_pod(AGENT), clients=(WEB,)),
    ],
)
def test_a_topology_can_be_converted_to_json_and_back(topology: Topology) -> None:
    assert Topology.from_dict(json.loads(json.dumps(asdict(topology)))) == topology


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: Topology(nodes=()), "needs at least one node"),
        (lambda: single().with_pod(single().pods[0]), "duplicate name 'pod-1'"),
        (lambda: single().with_pod(Pod("Big", "n1")), "'Big' is not a valid name"),
        (lambda: single().with_pod(Pod("lan", "n1")), "'lan' is not a valid name"),
        (lambda: single().with_pod(Pod("p", "n9", "10.244.9.9", "fd00::1")), "pod p: there is no node 'n9'"),
        (lambda: single().with_pod(Pod("p", "n1", "fd00::1", "::2")), "p: 'fd00::1' is not an IPv4 address"),
        (lambda: single().with_pod(Pod("p", "n1")), "p: '' is not an IPv4 address"),
        (lambda: single().with_pod(replace(AGENT, environment={"A=B": ""})), "invalid variable 'A=B'"),
        (lambda: single().with_pod(replace(AGENT, environment={"A": "\0"})), "invalid variable 'A'"),
        (lambda: Topology((lab_node(1),), clients=(replace(chapter().clients[0], via="n2"),)), "via 'n2'"),
    ],
)
def test_an_invalid_topology(build: object, why: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=why):
        build()


def test_pod_addresses_are_in_their_nodes_ranges() -> None:
    topology = multi(3, 2)
    for pod in topology.pods:
        ranges = topology.pod_cidrs(topology.node(pod.node))
        for family, address in topology.addresses(pod).items():
            assert ip_network(address).overlaps(ip_network(ranges[family]))
            assert ip_network(ranges[family]).overlaps(ip_network(POD_NETWORK[family]))


def test_interface_names_fit() -> None:
    assert interface_name("kubia-4bv25") == "kubia-4bv25"
    long = [interface_name(f"a-pod-of-a-long-name-{n}") for n in range(100)]
    assert {len(name) for name in long} == {15}
    assert len(set(long)) == 100


def test_manifests() -> None:
    pod = pod_manifests(chapter())[0]
    assert pod["metadata"] == {"name": "kubia-4bv25", "namespace": "default", "labels": {"app": "kubia"}}
    assert [(port["name"], port["containerPort"]) for port in pod["spec"]["containers"][0]["ports"]] == [
        ("http-default", 8080),
        ("http-mux1", 8090),
        ("echo", 5353),
    ]
    assert pod["status"]["podIPs"] == [{"ip": "10.244.1.2"}, {"ip": "fd00:10:244:1::2"}]
