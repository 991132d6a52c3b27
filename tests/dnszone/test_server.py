"""The server on loopback: many queries on one connection, and clients that misbehave."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import dns.message
import dns.rcode
import pytest

from kproxy.dns import server as serving
from kproxy.dns.resolver import Resolver
from kproxy.dns.server import Server
from kproxy.intake import clients
from kproxy.model import Endpoint, EndpointSlice, Family, Origin, parse_address
from kproxy.settings.text import SocketAddress
from tests.dnszone.table import inventory, world
from tests.support import PATIENCE
from tests.unit.make import name

WEB = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()
SIZED = len(WEB).to_bytes(2, "big") + WEB


def run(test: Callable[[Server], Awaitable[None]], *hosts: str) -> None:
    """Run a test with a server on loopback."""

    async def with_server() -> None:
        async with asyncio.timeout(PATIENCE), opened(*hosts) as server:
            await test(server)

    asyncio.run(with_server())


@asynccontextmanager
async def opened(*hosts: str) -> AsyncIterator[Server]:
    resolver = Resolver(world())
    resolver.ready = True
    server = Server([SocketAddress(host, 0) for host in hosts or ("127.0.0.1",)], resolver)
    server.open()
    try:
        yield server
    finally:
        server.close()


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    (address,) = server.listening
    return await asyncio.open_connection(address.host, address.port)


async def reply(reader: asyncio.StreamReader) -> dns.message.Message:
    length = int.from_bytes(await reader.readexactly(2), "big")
    return dns.message.from_wire(await reader.readexactly(length))


def test_a_connection_sends_many_queries_in_any_pieces() -> None:
    async def test(server: Server) -> None:
        reader, writer = await connect(server)
        writer.write(SIZED * 3 + SIZED[:1])
        for _ in range(3):
            assert (await reply(reader)).answer
        for piece in (SIZED[1:2], SIZED[2:9], SIZED[9:] + SIZED):
            writer.write(piece)
            await writer.drain()
        for _ in range(2):
            assert (await reply(reader)).answer
        writer.close()

    run(test)


@pytest.mark.parametrize("sent", [b"\xff\xff" + b"x" * 10, b"\x10\x01", b"\0\0", b"\0\3abc"])
def test_a_connection_that_sends_what_is_no_query_is_closed(sent: bytes) -> None:
    async def test(server: Server) -> None:
        reader, writer = await connect(server)
        writer.write(sent)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()

    run(test)


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "DNS_IDLE_SECONDS", 0.05)

    async def test(server: Server) -> None:
        reader, writer = await connect(server)
        writer.write(SIZED[:5])
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()

    run(test)


def test_an_address_with_many_idle_connections_does_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "CONNECTIONS_OF_LISTENER", 8)

    async def test(server: Server) -> None:
        connected = [await connect(server) for _ in range(30)]
        reader, writer = connected[-1]
        writer.write(SIZED)
        assert (await reply(reader)).answer
        assert server.connections <= 8
        for _, each in connected:
            each.close()

    run(test)


def test_a_client_that_does_not_read_is_not_read_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "DNS_IDLE_SECONDS", 0.5)

    async def test(server: Server) -> None:
        (address,) = server.listening
        with socket.create_connection((address.host, address.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            with suppress(ConnectionError):  # until the server has closed the connection
                while True:
                    await asyncio.get_running_loop().sock_sendall(client, SIZED * 100)
        assert server.resolver.responses[0] < 1_000_000
        assert server.connections == 0

    run(test)


def test_no_answer_is_empty_or_mixed_while_a_service_changes() -> None:
    states = [frozenset(f"10.1.{state}.{number}" for number in range(20)) for state in range(2)]
    asked = dns.message.make_query("db.default.svc.cluster.local", "A", use_edns=0).to_wire()
    found = inventory().services[name("db")]
    slices = [[slice_of(sorted(state)[:10]), slice_of(sorted(state)[10:])] for state in states]

    async def test(server: Server) -> None:
        (address,) = server.listening
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        async def change() -> None:
            for number in range(300):
                server.resolver.zone.update(found.name, found, slices[number % 2])
                await asyncio.sleep(0)
            done.set()

        server.resolver.zone.update(found.name, found, slices[1])
        changing = asyncio.create_task(change())
        seen = set[frozenset[str]]()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((address.host, address.port))
            while not done.is_set() or len(seen) < 1:
                await loop.sock_sendall(client, asked)
                answer = dns.message.from_wire(await loop.sock_recv(client, 4096)).answer
                seen.add(frozenset(str(data) for rrset in answer for data in rrset))
        await changing
        assert seen <= set(states)

    run(test)


def slice_of(addresses: list[str]) -> EndpointSlice:
    endpoints = tuple(Endpoint(parse_address(address)) for address in addresses)
    return EndpointSlice(name("db"), Origin("", ""), addresses[0], Family.IPV4, (), endpoints)


def test_both_protocols_and_families_are_served() -> None:
    async def test(server: Server) -> None:
        for address in server.listening:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(SIZED)
            assert (await reply(reader)).answer
            writer.close()
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendto(client, WEB, (address.host, address.port))
                assert dns.message.from_wire(await loop.sock_recv(client, 4096)).answer

    run(test, "127.0.0.1", "::1")


def test_an_address_in_use_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "RETRY_SECONDS", 0.05)
    own = f"127.1.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # where no other process takes the port

    async def wait() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((own, 0))
            address = SocketAddress(own, other.getsockname()[1])
            resolver = Resolver(world())
            server = Server([address], resolver)
            server.open()
            assert (list(server.failing), server.listening) == ([address], [])
        async with asyncio.timeout(30):
            while server.failing:
                await asyncio.sleep(0)
        server.close()
        assert server.listening == [address]

    with caplog.at_level(logging.INFO):
        asyncio.run(wait())
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert f"cannot serve DNS on {own}:" in warned[0]
    assert "Address already in use" in warned[0]


def test_a_free_port_is_free_for_udp_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = serving._bound
    others: list[socket.socket] = []

    def taken_once(address: SocketAddress, kind: socket.SocketKind) -> socket.socket:
        if kind is socket.SOCK_DGRAM and not others:
            others.append(bound(address, kind))
        return bound(address, kind)

    async def test(server: Server) -> None:
        (address,) = server.listening
        assert address.port not in (0, others[0].getsockname()[1])

    monkeypatch.setattr(serving, "_bound", taken_once)
    run(test)
    others[0].close()


def test_an_address_that_the_host_does_not_have_yet_can_be_served() -> None:
    async def test(server: Server) -> None:
        assert not server.failing
        assert len(server.listening) == 2

    run(test, "192.0.2.53", "2001:db8::53")
