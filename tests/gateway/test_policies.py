"""Policies and protocols through a running HAProxy: limits, cookies, WebSockets, HTTP/2, error pages."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kproxy.decode import Document, decode
from kproxy.gateway.certificates import self_signed
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.ingress import Objects, Ports
from kproxy.gateway.renderer import Renderer
from tests.gateway.client import Reply, exchange, head
from tests.gateway.echo import Echo
from tests.gateway.running import OTHER, Running, serving
from tests.gateway.world import secret
from tests.ports import kept_ports
from tests.support import eventually

PODS = {"127.1.2.1": "pod-1", "127.1.2.2": "pod-2", "127.1.2.3": "canary"}
INGRESSES: dict[str, dict[str, str]] = {
    "plain": {},
    "rate": {"limit-rpm": "1", "limit-burst-multiplier": "3"},
    "exempt": {"limit-rpm": "1", "limit-burst-multiplier": "1", "limit-whitelist": "127.0.0.0/8"},
    "connections": {"limit-connections": "1"},
    "cookie": {"affinity": "cookie", "session-cookie-max-age": "60", "session-cookie-samesite": "Strict"},
    "slow": {"proxy-read-timeout": "100ms"},
    "tls": {},
    "h2c": {"backend-protocol": "GRPC"},
    "https": {"backend-protocol": "HTTPS"},
    "h2": {"backend-protocol": "GRPCS"},
}
"""Ingresses NAME for the host NAME.test, with their annotations."""
OTHER_SERVERS = ("h2c", "https", "h2")
"""Those whose Service is not an echo server."""


def service(name: str, port: int, *addresses: str) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"port": port}],
            "endpoints": [{"addresses": [address]} for address in addresses],
        },
    ]


def ingress(name: str, host: str, to: str, annotations: dict[str, str]) -> dict[str, Any]:
    backend = {"service": {"name": to, "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    named = {f"nginx.ingress.kubernetes.io/{key}": value for key, value in annotations.items()}
    spec: dict[str, Any] = {"rules": [{"host": host, "http": {"paths": [path]}}]}
    if name in ("tls", "grpc"):
        spec["tls"] = [{"hosts": [host], "secretName": "tls"}]
    metadata = {"name": name, "annotations": named}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


class Gateway(NamedTuple):
    """What runs."""

    http: int
    https: int
    pods: Echo

    def get(self, host: str, *headers: str) -> Reply:
        return exchange(self.http, head(f"{host}.test", "/", list(headers)))


def objects(ports: dict[str, int]) -> Objects:
    found = service("web", 80, "10.0.2.1", "10.0.2.2") + service("canary", 80, "10.0.2.3")
    found.append(secret("tls", *self_signed(["tls.test", "grpc.test"])))
    for name, texts in INGRESSES.items():
        if name in OTHER_SERVERS:
            found += service(name, ports[name], OTHER)
        found.append(ingress(name, f"{name}.test", name if name in OTHER_SERVERS else "web", texts))
    canary = {"canary": "true", "canary-weight": "20"}
    found.append(ingress("grpc", "grpc.test", "h2c", {"backend-protocol": "GRPC"}))
    found += [ingress("main", "canary.test", "web", {}), ingress("canary", "canary.test", "canary", canary)]
    decoded = decode(Document("f", json.loads(json.dumps(each))) for each in found)
    state = decoded.state
    assert decoded.problems == []
    return Objects(state.ingresses, Services(state.services, state.slices), (), state.secrets)


def other_servers(folder: Path, ports: list[int]) -> Path:
    """Write a configuration of HAProxy whose replies say how the request came."""
    (folder / "own.pem").write_bytes(b"".join(self_signed(["pod.test"])))
    options = ("proto h2", "ssl crt own.pem alpn http/1.1", "ssl crt own.pem alpn h2")
    binds = (f"    bind 127.0.0.1:{port} {option}\n" for port, option in zip(ports, options, strict=True))
    path = folder / "servers.cfg"
    path.write_text(
        f"defaults\n    mode http\n    timeout client 20s\nfrontend all\n{''.join(binds)}"
        "    http-request return status 200 content-type text/plain lf-string HTTP/%[req.ver],TLS=%[ssl_fc]\n"
    )
    return path


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    with kept_ports(2 + len(OTHER_SERVERS)) as found:
        yield found


@pytest.fixture(scope="module")
def gateway(ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    http, https, *others = ports
    found = objects(dict(zip(OTHER_SERVERS, others, strict=True)))
    rendering = Renderer(Ports(http, https, "127.0.0.1")).render(found, time.time())
    assert (rendering.problems, rendering.warnings) == ([], [])
    servers = Running(other_servers(tmp_path_factory.mktemp("servers"), others))
    pods, folder = Echo(PODS), tmp_path_factory.mktemp("haproxy")
    try:
        servers.start(others)
        with serving(rendering.configuration, folder, (http, https), pods):
            yield Gateway(http, https, pods)
    finally:
        servers.end()


def test_a_client_over_its_rate_is_refused(gateway: Gateway) -> None:
    assert [gateway.get("rate").status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert [gateway.get("exempt").status for _ in range(5)] == [200] * 5


def test_a_cookie_binds_a_client_to_a_pod(gateway: Gateway) -> None:
    first = gateway.get("cookie")
    name, _, rest = first.header("set-cookie").partition("=")
    value, _, attributes = rest.partition(";")
    assert name == "INGRESSCOOKIE"
    assert sorted(attributes.lower().replace(" ", "").split(";")) == [
        *("httponly", "max-age=60", "path=/", "samesite=strict")
    ]
    pods = {gateway.get("cookie", f"Cookie: {name}={value}").seen["name"] for _ in range(6)}
    assert pods == {first.seen["name"]}
    assert {gateway.get("cookie").seen["name"] for _ in range(6)} == {"pod-1", "pod-2"}


def test_the_service_does_not_see_the_cookie_of_the_gateway(gateway: Gateway) -> None:
    value = gateway.get("cookie").header("set-cookie").partition(";")[0]
    assert gateway.get("cookie", f"Cookie: a=b; {value}").got("cookie") == "a=b"


def test_a_canary_gets_its_share(gateway: Gateway) -> None:
    counts = Counter(gateway.get("canary").seen["name"] for _ in range(50))
    assert counts == {"pod-1": 20, "pod-2": 20, "canary": 10}


@contextmanager
def upgraded(gateway: Gateway, host: str) -> Iterator[socket.socket]:
    """A WebSocket to a pod."""
    key = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    with socket.create_connection(("127.0.0.1", gateway.http), 20) as connected:
        connected.sendall(head(host, "/", ["Connection: Upgrade", "Upgrade: websocket", *key]))
        received = b""
        while b"\r\n\r\n" not in received:
            received += connected.recv(4096)
        assert received.startswith(b"HTTP/1.1 101 ")
        yield connected


def test_a_websocket(gateway: Gateway) -> None:
    with upgraded(gateway, "plain.test") as connected:
        connected.sendall(b"\x81\x05hello")
        assert connected.recv(4096) == b"\x81\x05hello"


def test_connections_of_a_client_are_counted(gateway: Gateway) -> None:
    with upgraded(gateway, "connections.test"):
        assert gateway.get("connections").status == 429
    eventually(lambda: gateway.get("connections").status == 200)


@pytest.mark.parametrize(
    ("host", "header", "status", "words"),
    [
        ("plain", "X-Want-Close: 1", 502, b"502 Server Error"),
        ("slow", "X-Want-Silence: 1", 504, b"504 Gateway Timeout"),
        ("unknown", "X: 1", 404, b"404 Not Found"),
    ],
)
def test_an_error_has_a_page_of_the_gateway(
    gateway: Gateway, host: str, header: str, status: int, words: bytes
) -> None:
    found = gateway.get(host, header)
    assert (found.status, found.header("content-type")) == (status, "text/html; charset=utf-8")
    assert words in found.body


@pytest.mark.parametrize(
    ("host", "body"), [("h2c", "HTTP/2.0,TLS=0"), ("https", "HTTP/1.1,TLS=1"), ("h2", "HTTP/2.0,TLS=1")]
)
def test_a_protocol_of_pods(gateway: Gateway, host: str, body: str) -> None:
    assert gateway.get(host).body.decode() == body


def test_a_client_gets_http_2_and_the_certificate_of_its_host(gateway: Gateway) -> None:
    url, resolve = f"https://tls.test:{gateway.https}/", f"tls.test:{gateway.https}:127.0.0.1"
    command = ["curl", "-k", "-v", "-s", "--max-time", "20", "--resolve", resolve, url]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["name"] in ("pod-1", "pod-2")
    for words in ("ALPN: server accepted h2", "subject: CN=tls.test", "< HTTP/2 200"):
        assert words in found.stderr


def test_grpc_has_http_2_from_end_to_end(gateway: Gateway) -> None:
    url, resolve = f"https://grpc.test:{gateway.https}/a.B/C", f"grpc.test:{gateway.https}:127.0.0.1"
    command = ["curl", "-k", "-s", "--max-time", "20", "-w", " %{http_version}", "--resolve", resolve, url]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "HTTP/2.0,TLS=0 2"


def test_a_client_of_an_unknown_host_gets_no_certificate(gateway: Gateway) -> None:
    with pytest.raises(ssl.SSLError):
        exchange(gateway.https, head("plain.test", "/", []), "plain.test")


def test_a_request_within_the_body_of_another_stays_a_body(gateway: Gateway) -> None:
    """A client cannot smuggle a request past the gateway by two different lengths."""
    inner = head("plain.test", "/smuggled", [])
    chunked = b"0\r\n\r\n" + inner
    lengths = [f"Content-Length: {len(chunked)}", "Transfer-Encoding: chunked"]
    begun = len(gateway.pods.targets)
    found = exchange(gateway.http, head("plain.test", "/outer", lengths, "POST") + chunked)
    assert found.status in (200, 400)
    gateway.get("plain")
    assert "GET /smuggled" not in gateway.pods.targets[begun:]
