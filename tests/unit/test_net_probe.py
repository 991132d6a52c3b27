"""httpGet and tcpSocket probes of servers on this host's loopback interface."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kproxy.model import ExecAction, HTTPGetAction, Pod, Probe, ProbePort, TCPSocketAction, parse_address
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult
from kproxy.probes.exec import ExecRunner
from kproxy.probes.network import http_url
from kproxy.probes.prober import Prober, _new_slots
from tests.ports import kept_ports
from tests.unit.make import decoded, manifest

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""A certificate of another host, self-signed and expired."""


def pod(address: str = "127.0.0.1") -> Pod:
    made = decoded('{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1"}}').state.pods[0]
    return Pod(
        **{**{f: getattr(made, f) for f in made.__struct_fields__}, "addresses": (parse_address(address),)}
    )


async def once(action: Any, timeout: int = 2, address: str = "127.0.0.1") -> ProbeResult:
    """Run one probe."""
    prober = Prober(ExecRunner(CommandTemplate("netns")), lambda: None)
    result = await prober._once(
        pod(address), "c", Probe(action, timeout=timeout), prober._network.allowance()
    )
    await prober.close()
    return result


def at(port: int) -> ProbePort:
    return ProbePort(port, port)


def probed(
    serve: Serve, timeout: int = 2, tls: bool = False, tcp: bool = False, **action: Any
) -> ProbeResult:
    """Run one probe of a server."""

    async def main() -> ProbeResult:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
        if context:
            context.load_cert_chain(CERTIFICATE)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = at(server.sockets[0].getsockname()[1])
        probe = TCPSocketAction(port, **action) if tcp else HTTPGetAction(port, **action)
        result = await once(probe, timeout)
        server.close()  # without waiting for connections that hang
        return result

    return asyncio.run(main())


def responds(*answers: bytes, then: Callable[[], Awaitable[Any]] | None = None) -> Serve:
    """A server that reads a request and sends these parts of a response."""

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
def test_outcome_by_status(answer: bytes, outcome: ProbeOutcome, message: str) -> None:
    assert probed(responds(answer)) == ProbeResult(outcome, message)


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
def test_an_invalid_response_is_a_failure(garbage: bytes) -> None:
    result = probed(responds(garbage))
    assert (result.outcome, result.timed_out) == (ProbeOutcome.FAILURE, False)
    assert result.message.startswith("Get http://127.0.0.1:")


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]
)
def test_a_server_that_hangs_times_out(start: bytes) -> None:
    result = probed(responds(start, then=hang), timeout=1)
    assert (result.outcome, result.timed_out) == (ProbeOutcome.FAILURE, True)
    assert result.message.endswith("/: timed out after 1s")


def test_an_endless_body_is_not_read_completely() -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    assert probed(flood, timeout=30).outcome is ProbeOutcome.SUCCESS


def endless(head: bytes, part: bytes) -> Serve:
    """A server that sends a head, and then a part again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while True:
                writer.write(part * (65536 // len(part)))
                await writer.drain()
        except ConnectionError:
            writer.close()

    return serve


START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "part", "message"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "more than 5 informational responses"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "more than 5 informational responses"),
        (b"", b"x", "invalid response: Receive buffer too long"),
        (START, b"a:\r\n", "the response has more than 500 lines of headers"),
        (START, b"X: " + b"x" * 1000 + b"\r\n", "invalid response: Receive buffer too long"),
        (START + b"X: ", b"x", "invalid response: Receive buffer too long"),
        (CHUNKED, b"1;" + b"x" * 1000 + b"\r\na\r\n", ""),
        (CHUNKED, b"1\r\na\r\n", ""),
        (CHUNKED + b"0\r\n", b"a: b\r\n", "invalid response: Receive buffer too long"),
        (START + b"\r\n", b"x", ""),
    ],
)  # fmt: skip
def test_an_endless_response_ends_the_probe(head: bytes, part: bytes, message: str) -> None:
    result = probed(endless(head, part), timeout=30)
    assert not result.timed_out
    assert message in result.message
    assert (result.outcome is ProbeOutcome.SUCCESS) == (not message)


def test_a_switch_of_protocols_is_a_failure() -> None:
    """As a WebSocket answers. What follows is not HTTP."""
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    result = probed(responds(answer, then=hang), timeout=30, headers=(("Upgrade", "websocket"),))
    assert result == ProbeResult(ProbeOutcome.FAILURE, "HTTP probe failed with statuscode: 101")


def test_a_slow_response_within_the_timeout_is_a_success() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in OK:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.002)
        writer.close()

    assert probed(slowly, timeout=30).outcome is ProbeOutcome.SUCCESS


# --- requests ---


def requested(**action: Any) -> tuple[str, list[str]]:
    """The request line and the headers that a server receives."""
    got: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2])
        writer.write(OK)
        writer.close()

    assert probed(serve, **action).outcome is ProbeOutcome.SUCCESS
    return got[0], got[1:]


def test_default_headers() -> None:
    line, headers = requested(path="/ready")
    assert line == "GET /ready HTTP/1.1"
    host, *rest = headers
    assert host.startswith("Host: 127.0.0.1:")
    assert rest == ["User-Agent: kproxy-probe/0.1.0", "Accept: */*", "Connection: close"]


@pytest.mark.parametrize(
    ("headers", "present", "absent"),
    [
        ((("Host", "web.example"),), "Host: web.example", "127.0.0.1"),
        ((("user-agent", "me"),), "user-agent: me", "kproxy"),
        ((("Accept", "text/plain"),), "Accept: text/plain", "*/*"),
        ((("Accept", ""),), "Connection: close", "Accept"),
        ((("X", "a"), ("X", "b")), "X: a|X: b", "X: c"),
        ((("X", "grün"),), "X: grün", "?"),
    ],
)
def test_headers_of_the_probe(headers: Any, present: str, absent: str) -> None:
    _, received = requested(headers=headers)
    assert present in "|".join(received)
    assert absent not in "|".join(received)


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


def test_a_redirect_to_another_host_is_a_warning() -> None:
    result = probed(responds(status(301, "Location: https://192.0.2.1/login")))
    expected = "HTTP probe was redirected to https://192.0.2.1/login with statuscode: 301"
    assert result == ProbeResult(ProbeOutcome.WARNING, expected)


@pytest.mark.parametrize(
    ("location", "message"),
    [("/", "stopped after 10 redirects"), ("ftp://127.0.0.1/", "redirected to ftp://")],
)
def test_a_redirect_that_cannot_be_followed_is_a_failure(location: str, message: str) -> None:
    result = probed(responds(status(302, f"Location: {location}")))
    assert result.outcome is ProbeOutcome.FAILURE
    assert message in result.message


@pytest.mark.parametrize("location", ["http://[::1", "http://127.0.0.1:x/", "//127.0.0.1:99999/"])
def test_a_redirect_to_an_invalid_url_is_a_failure(location: str) -> None:
    assert probed(responds(status(302, f"Location: {location}"))).outcome is ProbeOutcome.FAILURE


# --- TLS ---


def test_a_certificate_is_not_verified() -> None:
    assert probed(responds(OK), tls=True, scheme="HTTPS") == ProbeResult(ProbeOutcome.SUCCESS)
    assert probed(responds(status(500)), tls=True, scheme="HTTPS").outcome is ProbeOutcome.FAILURE


def test_tls_with_a_plain_server_and_vice_versa() -> None:
    result = probed(responds(OK), scheme="HTTPS", timeout=1)
    assert result.outcome is ProbeOutcome.FAILURE
    result = probed(responds(OK), tls=True)
    assert result.outcome is ProbeOutcome.FAILURE


# --- connections ---


def test_a_tcp_probe_only_needs_a_connection() -> None:
    assert probed(responds(), tcp=True) == ProbeResult(ProbeOutcome.SUCCESS)


@pytest.mark.parametrize("kind", [TCPSocketAction, HTTPGetAction])
def test_a_port_without_a_listener(kind: type) -> None:
    with kept_ports(1) as (port,):
        result = asyncio.run(once(kind(at(port))))
    assert result.outcome is ProbeOutcome.FAILURE
    assert result.message.endswith(
        f"127.0.0.1:{port}{'/' if kind is HTTPGetAction else ''}: connection refused"
    )


@contextmanager
def no_files_left() -> Iterator[None]:
    """Let this process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("action", [TCPSocketAction(at(9)), HTTPGetAction(at(9)), ExecAction(("true",))])
def test_without_files_a_probe_is_not_possible(action: Any) -> None:
    async def main() -> ProbeResult:
        with no_files_left():
            return await once(action)

    result = asyncio.run(main())
    assert result.outcome is ProbeOutcome.UNKNOWN
    assert result.message.lower().endswith("too many open files")


@pytest.mark.parametrize(
    ("files", "connections", "commands"), [(64, 6, 1), (1024, 102, 20), (20_000, 256, 32)]
)
def test_probes_may_take_a_part_of_the_files(files: int, connections: int, commands: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        slots = _new_slots()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {kind: each._value for kind, each in slots.items()} == {
        ExecAction: commands,
        HTTPGetAction: connections,
        TCPSocketAction: connections,
    }


@pytest.mark.parametrize("kind", [TCPSocketAction, HTTPGetAction])
def test_a_port_that_the_container_does_not_have(kind: type) -> None:
    result = asyncio.run(once(kind(ProbePort("web", 0))))
    assert result.outcome is ProbeOutcome.FAILURE
    assert "127.0.0.1:web" in result.message
    assert result.message.endswith("the container has no port named web")


@pytest.mark.parametrize("kind", [TCPSocketAction, HTTPGetAction])
@pytest.mark.parametrize("host", ["a" * 100, "-", "no.such.host.invalid"])
def test_an_invalid_host(kind: type, host: str) -> None:
    assert asyncio.run(once(kind(at(80), host=host), timeout=10)).outcome is ProbeOutcome.FAILURE


def test_the_host_of_the_probe_replaces_the_address_of_the_pod() -> None:
    assert probed(responds(OK), host="localhost").outcome is ProbeOutcome.SUCCESS
    assert probed(responds(), tcp=True, host="localhost").outcome is ProbeOutcome.SUCCESS


def test_a_pod_without_address() -> None:
    made = decoded(str(manifest("Pod", "web-1"))).state.pods[0]
    prober = Prober(ExecRunner(CommandTemplate("netns")), lambda: None)
    result = asyncio.run(prober._once(made, "c", Probe(TCPSocketAction(at(80))), prober._network.allowance()))
    assert result == ProbeResult(ProbeOutcome.FAILURE, ":80: the pod has no address")


def test_a_listener_with_a_full_backlog_times_out() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        result = asyncio.run(once(TCPSocketAction(at(full.getsockname()[1])), timeout=1))
    assert result.timed_out
    assert result.message.endswith(": timed out after 1s")
