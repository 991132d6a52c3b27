"""Who is accepted, and who must leave, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable

import pytest

from kproxy.intake import clients as clients_module
from kproxy.intake.clients import Client, Clients, raise_file_limit
from tests.unit.test_http_server import until


async def echo(_: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)


class Place:
    """A listening socket, and connections to it."""

    def __init__(self, clients: Clients) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.warnings: list[str] = []
        self._task = asyncio.create_task(clients.accept(self.socket, echo, self.warnings.append))
        self._clients = clients

    async def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Connect from an address, and wait until the connection was accepted."""
        before = set(self._clients.of(self.socket))
        made = socket.create_connection(self.socket.getsockname(), source_address=(source, 0))
        made.setblocking(False)
        await until(lambda: bool(set(self._clients.of(self.socket)) - before))
        return made

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def is_served(client: socket.socket) -> bool:
    """Whether a line comes back."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(client, b"hello\n")
        return await loop.sock_recv(client, 16) == b"hello\n"
    except ConnectionError:
        return False


def play(test: Callable[[Clients, Place, Place], Awaitable[None]]) -> list[str]:
    """Run a test with two listeners. Returns their warnings."""

    async def main() -> list[str]:
        clients = Clients(files=1024)
        places = Place(clients), Place(clients)
        await test(clients, *places)
        for place in places:
            clients.disconnect(place.socket)
            await place.close()
        return [warning for place in places for warning in place.warnings]

    return asyncio.run(main())


def test_a_new_client_replaces_an_idle_one_of_the_same_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens connections without end loses its own."""
    monkeypatch.setattr(clients_module, "CONNECTIONS_OF_LISTENER", 8)

    async def test(_: Clients, place: Place, __: Place) -> None:
        kubelet = await place.connect()
        flood = [await place.connect("127.0.0.2") for _ in range(20)]
        assert await is_served(kubelet)
        assert [await is_served(client) for client in flood] == [False] * 13 + [True] * 7

    assert play(test) == []


def test_the_connections_of_all_listeners_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "CONNECTIONS", 6)

    async def test(clients: Clients, first: Place, second: Place) -> None:
        flood = [await first.connect("127.0.0.2") for _ in range(6)]
        kubelet = await second.connect()
        assert len(clients.of(first.socket)) + len(clients.of(second.socket)) == 6
        assert [await is_served(client) for client in (*flood, kubelet)] == [False] + [True] * 6

    assert play(test) == []


def test_without_files_it_waits_and_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "WAIT", 0.001)

    async def test(clients: Clients, place: Place, _: Place) -> None:
        loop = asyncio.get_running_loop()
        accept, refused = loop.sock_accept, 0

        async def refuse(listener: socket.socket) -> object:
            nonlocal refused
            refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        client = await place.connect()
        monkeypatch.setattr(loop, "sock_accept", refuse)
        waiting = await place.connect()  # by the call that waited already
        await until(lambda: refused > 20)
        monkeypatch.setattr(loop, "sock_accept", accept)
        assert await is_served(client)
        assert await is_served(waiting)
        assert await is_served(await place.connect())

    assert play(test) == ["cannot accept connections: Too many open files; retrying every 0.001 s"]


def test_the_limit_of_open_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("files", "limit"), [(256, 64), (1024, 256), (65536, 1024)])
def test_a_part_of_the_files_is_for_clients(files: int, limit: int) -> None:
    async def main() -> int:
        return Clients(files)._limit

    assert asyncio.run(main()) == limit
