"""The daemon's HTTP server and health check node ports, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest

from kproxy.intake import clients
from kproxy.model import Family, NamespacedName
from kproxy.observe import http as http_server
from kproxy.observe.checks import HealthCheckPorts, health_handler
from kproxy.observe.core.health import Health
from kproxy.observe.http import HttpServer, Request, Response
from kproxy.settings.text import SocketAddress, socket_address
from tests.ports import kept_ports

GET = b"GET /path?query HTTP/1.1\r\nHost: a\r\n\r\n"
LOOPBACK = SocketAddress("127.0.0.1", 0)


def echo(request: Request) -> Response:
    text = f"{request.method} {request.path}"
    return Response(200, (("Content-Type", "text/plain"),), text.encode())


async def slowly(request: Request) -> Response:
    await asyncio.sleep(0.01)
    return echo(request)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def opened(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a connection is accepted there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionError:  # refused, or reset by a server that closes
        return False
    writer.close()
    return True


async def becomes(open_: bool, port: int, host: str = "127.0.0.1") -> None:
    """Wait until connections there are accepted, or refused."""
    async with asyncio.timeout(60):
        while await opened(port, host) is not open_:
            await asyncio.sleep(0.005)


async def ask(server: HttpServer, *requests: bytes, host: str = "127.0.0.1") -> str:
    """Return everything that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(host, server.address.port)
    for request in requests:
        writer.write(request)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer.decode()


async def all_of(client: socket.socket) -> int:
    """Return the number of bytes that can be received until the connection is closed."""
    count = 0
    with suppress(ConnectionError):
        while data := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            count += len(data)
    return count


def served(test: Callable[[HttpServer], Awaitable[None]], handler: http_server.Handler = echo) -> list[str]:
    """Run a test against a server. Returns the server's warnings."""
    warnings: list[str] = []

    async def main() -> None:
        server = HttpServer(LOOPBACK, "test", handler, warnings.append)
        server.open()
        try:
            await test(server)
        finally:
            server.close()

    asyncio.run(main())
    return warnings


CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize("handler", [echo, slowly])
def test_requests_of_one_connection_are_answered_in_order(handler: http_server.Handler) -> None:
    async def test(server: HttpServer) -> None:
        answer = await ask(server, GET + GET, b"HEAD /b HTTP/1.1\r\nHost: a\r\n" + CLOSE)
        parts = answer.split("HTTP/1.1 200")[1:]
        assert [part.partition("\r\n\r\n")[2] for part in parts] == ["GET /path", "GET /path", ""]
        assert all("content-length: 9" in part.lower() for part in parts[:2])
        assert "content-length: 7" in parts[2].lower()

    assert served(test, handler) == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + CLOSE, 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 200),  # the body is not read
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
    ],
)
def test_a_request_gets_its_status_and_the_connection_ends(request_: bytes, status: int) -> None:
    async def test(server: HttpServer) -> None:
        assert (await ask(server, request_)).startswith(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n")

    assert served(test) == []


def test_a_handler_that_fails_causes_a_warning_and_the_server_continues() -> None:
    def handler(request: Request) -> Response:
        if request.path == "/bad":
            raise ValueError("oops")
        return echo(request)

    async def test(server: HttpServer) -> None:
        with suppress(ConnectionResetError):
            assert await ask(server, b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n") == ""
        assert "GET /good" in await ask(server, b"GET /good HTTP/1.1\r\nHost: a\r\n" + CLOSE)

    (warning,) = served(test, handler)
    assert "ValueError('oops')" in warning


def test_clients_that_are_slow_to_send_or_to_read_are_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "FIRST_REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(http_server, "RESPONSE_SECONDS", 0.2)

    def large(_: Request) -> Response:
        return Response(200, (), b"x" * (16 << 20))

    async def test(server: HttpServer) -> None:
        loop = asyncio.get_running_loop()
        silent, dripping, paused = [socket.socket() for _ in range(3)]
        for client in (silent, dripping, paused):
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", server.address.port))
        await loop.sock_sendall(paused, GET[:-2] + CLOSE)
        for byte in b"GET /slowly":
            with suppress(ConnectionError):
                await loop.sock_sendall(dripping, bytes([byte]))
            await asyncio.sleep(0.05)
        await until(lambda: not server.connections)
        assert await all_of(paused) < 16 << 20  # the rest of the response was discarded
        for client in (silent, dripping, paused):
            client.close()

    assert served(test, large) == []


def test_if_there_are_too_many_connections_the_idlest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CONNECTIONS_OF_LISTENER", 3)

    async def test(server: HttpServer) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", server.address.port) for _ in range(3)]
        await until(lambda: server.connections == 3)
        reader, writer = idle[0]
        writer.write(GET)  # the first connection is the last one that was active
        await reader.readuntil(b"GET /path")
        assert "GET /path" in await ask(server, GET[:-2] + CLOSE)
        assert await idle[1][0].read() == b""
        writer.write(GET)
        await reader.readuntil(b"GET /path")
        for _, writer in idle:
            writer.close()

    assert served(test) == []


def test_a_client_that_sends_requests_without_pause_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_PAUSE", 600)
    served_paths: list[str] = []

    def handler(request: Request) -> Response:
        served_paths.append(request.path)
        return echo(request)

    async def test(server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port)
        writer.write(GET * 100)
        await reader.readuntil(b"GET /path")
        assert "GET /path" in await ask(server, GET[:-2] + CLOSE)
        writer.close()

    assert served(test, handler) == []
    assert len(served_paths) == 2


def test_a_port_in_use_causes_a_warning_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "RETRY_SECONDS", 0.05)
    warnings: list[str] = []

    async def main() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            address = SocketAddress("127.0.0.1", holder.getsockname()[1])
            server = HttpServer(address, "--its-flag", echo, warnings.append)
            server.open()
            await until(lambda: bool(warnings))
            await asyncio.sleep(0.2)
        await until(lambda: len(warnings) == 2)
        assert "GET /path" in await ask(server, GET[:-2] + CLOSE)
        server.close()

    asyncio.run(main())
    first, second = warnings  # one for each reason, however often it is tried
    assert first.endswith(" (--its-flag): Address already in use; retrying every 0.05 s")
    assert second.startswith("now listening on 127.0.0.1:")


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_wildcard_stands_for_both_families(wildcard: str) -> None:
    async def main() -> None:
        server = HttpServer(SocketAddress(wildcard, 0), "test", echo, pytest.fail)
        server.open()
        for host in ("127.0.0.1", "::1"):
            assert "GET /path" in await ask(server, GET[:-2] + CLOSE, host=host)
        server.close()

    asyncio.run(main())


def test_close_releases_the_port() -> None:
    async def main() -> None:
        server = HttpServer(LOOPBACK, "test", echo, pytest.fail)
        server.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port)
        await until(lambda: bool(server.connections))
        server.close()
        assert await reader.read() == b""
        writer.close()
        again = HttpServer(server.address, "test", echo, pytest.fail)
        again.open()
        again.close()  # before its task ran
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await ask(again, GET)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:10256", SocketAddress("0.0.0.0", 10256)),
        ("[::]:10256", SocketAddress("::", 10256)),
        ("[fd00::1]:1", SocketAddress("fd00::1", 1)),
        ("", None),
    ],
)
def test_an_address_is_parsed_and_written(text: str, address: SocketAddress | None) -> None:
    assert socket_address(text) == address
    assert address is None or str(address) == text


@pytest.mark.parametrize(
    "text", ["10256", ":10256", "host:1", "0.0.0.0", "::1:80", "[1.2.3.4]:80", "1.2.3.4:65536", "1.2.3.4:-1"]
)
def test_an_invalid_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|ADDRESS"):
        socket_address(text)


# --- responses ---


def parsed(answer: str) -> tuple[int, dict[str, str], Any]:
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body) if body.startswith("{") else body


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n".encode() + CLOSE


def test_health_is_served_and_counted() -> None:
    health, counted = Health(), list[tuple[str, int]]()

    async def test(server: HttpServer) -> None:
        assert parsed(await ask(server, request("/healthz")))[0] == 503
        assert parsed(await ask(server, request("/livez")))[0] == 200
        now = asyncio.get_running_loop().time()
        for family in Family:
            health.applied(family, now)
        status, headers, body = parsed(await ask(server, request("/healthz")))
        assert (status, headers["content-type"]) == (200, "application/json")
        assert body["lastUpdated"] == body["currentTime"]
        assert body["lastUpdated"].endswith("Z")
        assert body["status"]["IPv4"]["lastUpdated"] <= body["currentTime"]
        assert parsed(await ask(server, request("/other")))[0] == 404

    served(test, health_handler(health, lambda path, status: counted.append((path, status))))
    assert counted == [("/healthz", 503), ("/livez", 200), ("/healthz", 200)]


WEB, SHOP = NamespacedName("default", "web"), NamespacedName("default", "shop")
HERE = ("127.0.0.1",)


def test_health_check_node_ports_are_added_changed_and_removed() -> None:
    async def main(first: int, second: int) -> None:
        health = Health()
        refused = set[NamespacedName]()
        ports = HealthCheckPorts(health, pytest.fail, refused.__contains__)
        ports.set({first: (WEB, 2), second: (SHOP, 0)}, HERE)

        async def check(port: int) -> tuple[int, dict[str, str], Any]:
            server = HttpServer(SocketAddress("127.0.0.1", port), "test", echo, pytest.fail)
            return parsed(await ask(server, request("/")))

        status, headers, body = await check(first)
        assert (status, body["serviceProxyHealthy"]) == (503, False)  # nothing is programmed yet
        for family in Family:
            health.applied(family, asyncio.get_running_loop().time())
        status, headers, body = await check(first)
        assert (status, headers["x-load-balancing-endpoint-weight"]) == (200, "2")
        assert body["service"] == {"namespace": "default", "name": "web"}
        refused.add(WEB)
        assert (await check(first))[0] == 503  # the kernel refused the service
        refused.clear()
        assert (await check(second))[0] == 503

        reader, writer = await asyncio.open_connection("127.0.0.1", first)
        writer.write(GET)
        assert b"200" in await reader.readuntil(b"serviceProxyHealthy")
        ports.set({first: (SHOP, 1)}, HERE)
        writer.write(request("/"))  # on the same connection
        _, _, rest = (await reader.read()).partition(b"HTTP/1.1 ")
        assert b'"name":"shop"' in rest
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await check(second)

        ports.close()
        await becomes(False, first)

    with kept_ports(2) as numbers:
        run(main(*numbers))


def test_health_check_node_ports_move_with_the_nodes_addresses() -> None:
    async def main(port: int) -> None:
        ports = HealthCheckPorts(Health(), pytest.fail)
        ports.set({port: (WEB, 1)}, HERE)
        reader, first_writer = await asyncio.open_connection("127.0.0.1", port)
        ports.set({port: (WEB, 1)}, [*HERE, "127.0.0.2"])
        first_writer.write(request("/"))
        assert b"web" in await reader.read()
        ports.set({port: (WEB, 1)}, ["127.0.0.2"])
        await becomes(True, port, "127.0.0.2")
        first_writer.close()
        assert not await opened(port)
        ports.close()

    with kept_ports(1) as numbers:
        run(main(*numbers))
