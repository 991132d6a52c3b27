"""httpGet and tcpSocket probes, against servers of every kind on this host's loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kproxy.model import HTTPGetAction, Pod, Probe, ProbePort, TCPSocketAction, parse_address
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult
from kproxy.probes.exec import ExecRunner
from kproxy.probes.network import http_url
from kproxy.probes.prober import Prober
from tests.unit.make import decoded, manifest

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""Of another host, signed by itself, and expired."""


def pod(address: str = "127.0.0.1") -> Pod:
    made = decoded('{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1"}}').state.pods[0]
    return Pod(
        **{**{f: getattr(made, f) for f in made.__struct_fields__}, "addresses": (parse_address(address),)}
    )


async def once(action: Any, timeout: int = 2, address: str = "127.0.0.1") -> ProbeResult:
    """What one probe finds."""
    prober = Prober(ExecRunner(CommandTemplate("netns")), lambda: None)
    return await prober._once(pod(address), "c", Probe(action, timeout=timeout))


def at(port: int) -> ProbePort:
    return ProbePort(port, port)


def probed(
    serve: Serve, timeout: int = 2, tls: bool = False, tcp: bool = False, **action: Any
) -> ProbeResult:
    """What a probe finds of a server."""

    async def main() -> ProbeResult:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
        if context:
            context.load_cert_chain(CERTIFICATE)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = at(server.sockets[0].getsockname()[1])
        probe = TCPSocketAction(port, **action) if tcp else HTTPGetAction(port, **action)
        result = await once(probe, timeout)
        server.close()  # and do not wait for those who hang
        return result

    return asyncio.run(main())


def says(*answers: bytes, then: Callable[[], Awaitable[Any]] | None = None) -> Serve:
    """A server that reads a request, and says one thing after the other."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for answer in answers:
                writer.write(answer)
                await writer.drain()
            if then:
                await then()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve


async def hang() -> None:
    await asyncio.sleep(60)


def status(code: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} X", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("answer", "outcome", "message"),
    [
        (OK, ProbeOutcome.SUCCESS, ""),
        (status(204), ProbeOutcome.SUCCESS, ""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", ProbeOutcome.SUCCESS, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, ProbeOutcome.SUCCESS, ""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ProbeOutcome.SUCCESS,
            "",
        ),
        (status(304), ProbeOutcome.WARNING, "HTTP probe was redirected with statuscode: 304"),
        (status(302), ProbeOutcome.WARNING, "HTTP probe was redirected with statuscode: 302"),
        (status(400), ProbeOutcome.FAILURE, "HTTP probe failed with statuscode: 400"),
        (status(503), ProbeOutcome.FAILURE, "HTTP probe failed with statuscode: 503"),
    ],
)  # fmt: skip
def test_a_status_decides(answer: bytes, outcome: ProbeOutcome, message: str) -> None:
    assert probed(says(answer)) == ProbeResult(outcome, message)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n\r\n",
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        bytes(range(256)) * 100,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    ],
    ids=range(9),
)
def test_garbage_is_a_failure(garbage: bytes) -> None:
    result = probed(says(garbage))
    assert (result.outcome, result.hung) == (ProbeOutcome.FAILURE, False)
    assert result.message.startswith("Get http://127.0.0.1:")


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]
)
def test_a_server_that_hangs_is_given_up(start: bytes) -> None:
    result = probed(says(start, then=hang), timeout=1)
    assert (result.outcome, result.hung) == (ProbeOutcome.FAILURE, True)
    assert result.message.endswith("/: timed out after 1s")


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    assert probed(flood, timeout=30).outcome is ProbeOutcome.SUCCESS


def test_a_slow_answer_counts_if_it_comes_in_time() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in OK:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.002)
        writer.close()

    assert probed(slowly, timeout=30).outcome is ProbeOutcome.SUCCESS


# --- requests ---


def requested(**action: Any) -> tuple[str, list[str]]:
    """The request's first line and its headers, as a server gets them."""
    got: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2])
        writer.write(OK)
        writer.close()

    assert probed(serve, **action).outcome is ProbeOutcome.SUCCESS
    return got[0], got[1:]


def test_a_request_says_who_it_is() -> None:
    line, headers = requested(path="/ready")
    assert line == "GET /ready HTTP/1.1"
    host, *rest = headers
    assert host.startswith("Host: 127.0.0.1:")
    assert rest == ["User-Agent: kproxy-probe/0.1.0", "Accept: */*", "Connection: close"]


@pytest.mark.parametrize(
    ("given", "seen", "unseen"),
    [
        ((("Host", "web.example"),), "Host: web.example", "127.0.0.1"),
        ((("user-agent", "me"),), "user-agent: me", "kproxy"),
        ((("Accept", "text/plain"),), "Accept: text/plain", "*/*"),
        ((("Accept", ""),), "Connection: close", "Accept"),
        ((("X", "a"), ("X", "b")), "X: a|X: b", "X: c"),
        ((("X", "grün"),), "X: grün", "?"),
    ],
)
def test_headers_are_those_given(given: Any, seen: str, unseen: str) -> None:
    _, headers = requested(headers=given)
    assert seen in "|".join(headers)
    assert unseen not in "|".join(headers)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("ready", "/ready"),
        ("/a?b=c&d", "/a?b=c&d"),
        ("/a b/ü#c", "/a%20b/%C3%BC"),
        ("/100%25", "/100%25"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
        ("//b", "//b"),
    ],
)
def test_paths(path: str, line: str) -> None:
    assert requested(path=path)[0] == f"GET {line} HTTP/1.1"


def test_the_url_of_an_ipv6_pod() -> None:
    assert http_url(HTTPGetAction(at(8080), "/x"), "fd00::1") == "http://[fd00::1]:8080/x"


# --- redirects ---


def test_a_redirect_within_the_host_is_followed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            status(503) if b" /b " in head and b"Host: x\r\n" in head else status(302, "Location: /b")
        )
        writer.close()

    result = probed(serve, path="/a", headers=(("Host", "x"),))
    assert result == ProbeResult(ProbeOutcome.FAILURE, "HTTP probe failed with statuscode: 503")


def test_a_redirect_to_elsewhere_is_a_warning() -> None:
    result = probed(says(status(301, "Location: https://192.0.2.1/login")))
    expected = "HTTP probe was redirected to https://192.0.2.1/login with statuscode: 301"
    assert result == ProbeResult(ProbeOutcome.WARNING, expected)


@pytest.mark.parametrize(
    ("location", "message"),
    [("/", "stopped after 10 redirects"), ("ftp://127.0.0.1/", "redirected to ftp://")],
)
def test_a_redirect_that_leads_nowhere_is_a_failure(location: str, message: str) -> None:
    result = probed(says(status(302, f"Location: {location}")))
    assert result.outcome is ProbeOutcome.FAILURE
    assert message in result.message


@pytest.mark.parametrize("location", ["http://[::1", "http://127.0.0.1:x/", "//127.0.0.1:99999/"])
def test_a_redirect_that_is_no_url_is_a_failure(location: str) -> None:
    assert probed(says(status(302, f"Location: {location}"))).outcome is ProbeOutcome.FAILURE


# --- TLS ---


def test_a_certificate_is_not_verified() -> None:
    assert probed(says(OK), tls=True, scheme="HTTPS") == ProbeResult(ProbeOutcome.SUCCESS)
    assert probed(says(status(500)), tls=True, scheme="HTTPS").outcome is ProbeOutcome.FAILURE


def test_tls_and_none_do_not_meet() -> None:
    result = probed(says(OK), scheme="HTTPS", timeout=1)
    assert result.outcome is ProbeOutcome.FAILURE
    result = probed(says(OK), tls=True)
    assert result.outcome is ProbeOutcome.FAILURE


# --- connections ---


def test_a_connection_is_enough_for_tcp() -> None:
    assert probed(says(), tcp=True) == ProbeResult(ProbeOutcome.SUCCESS)


@pytest.mark.parametrize("kind", [TCPSocketAction, HTTPGetAction])
def test_nobody_listens(kind: type) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = asyncio.run(once(kind(at(port))))
    assert result.outcome is ProbeOutcome.FAILURE
    assert result.message.endswith(
        f"127.0.0.1:{port}{'/' if kind is HTTPGetAction else ''}: connection refused"
    )


@pytest.mark.parametrize("kind", [TCPSocketAction, HTTPGetAction])
def test_a_port_that_the_container_does_not_have(kind: type) -> None:
    result = asyncio.run(once(kind(ProbePort("web", 0))))
    assert result.outcome is ProbeOutcome.FAILURE
    assert "127.0.0.1:web" in result.message
    assert result.message.endswith("the container has no port named web")


@pytest.mark.parametrize("kind", [TCPSocketAction, HTTPGetAction])
@pytest.mark.parametrize("host", ["a" * 100, "-", "no.such.host.invalid"])
def test_a_host_that_is_none(kind: type, host: str) -> None:
    assert asyncio.run(once(kind(at(80), host=host), timeout=10)).outcome is ProbeOutcome.FAILURE


def test_another_host_is_asked_if_one_is_given() -> None:
    assert probed(says(OK), host="localhost").outcome is ProbeOutcome.SUCCESS
    assert probed(says(), tcp=True, host="localhost").outcome is ProbeOutcome.SUCCESS


def test_a_pod_without_address() -> None:
    made = decoded(str(manifest("Pod", "web-1"))).state.pods[0]
    prober = Prober(ExecRunner(CommandTemplate("netns")), lambda: None)
    result = asyncio.run(prober._once(made, "c", Probe(TCPSocketAction(at(80)))))
    assert result == ProbeResult(ProbeOutcome.FAILURE, ":80: the pod has no address")


def test_a_listener_that_does_not_accept_and_is_full_is_given_up() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        result = asyncio.run(once(TCPSocketAction(at(full.getsockname()[1])), timeout=1))
    assert result.hung
    assert result.message.endswith(": timed out after 1s")
