"""The relay, with an echo server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from tests.apiserver.relay import Fate, Relay
from tests.loop_thread import LoopThread
from tests.ports import kept_ports

BYTES = bytes(range(256)) * 40


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay to an echo server. The server ends a connection when the client does."""
    thread = LoopThread("echo")
    thread.start()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    server = thread.call(asyncio.start_server(echo, "127.0.0.1", 0))
    with Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as relay:
        yield relay
    thread.loop.call_soon_threadsafe(server.close)
    thread.end()


def connected(relay: Relay) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", relay.port), timeout=60)
    client.sendall(b"hello")
    assert received(client, 5) == b"hello"
    return client


def received(client: socket.socket, length: int) -> bytes:
    """Receive so many bytes, or fewer if the connection ends."""
    data = b""
    while len(data) < length and (more := client.recv(length - len(data))):
        data += more
    return data


def test_bytes_pass_both_ways(relay: Relay) -> None:
    with connected(relay) as client:
        client.sendall(BYTES)
        assert received(client, len(BYTES)) == BYTES
        assert relay.connections == 1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_closed_relay_can_be_opened_again(relay: Relay) -> None:
    with connected(relay) as client:
        relay.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connected(relay)
    relay.open()
    connected(relay).close()


def test_existing_connections_stay_when_new_ones_are_refused(relay: Relay) -> None:
    with connected(relay) as client:
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            connected(relay)
        client.sendall(b"still")
        assert received(client, 5) == b"still"


def test_reset_and_close(relay: Relay) -> None:
    with connected(relay) as client:
        relay.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(relay) as client:
        relay.hang_up()
        assert client.recv(1) == b""


def test_held_bytes_arrive_after_the_release(relay: Relay) -> None:
    with connected(relay) as client:
        relay.hold()
        client.sendall(b"later")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(5)
        connected(relay).close()  # other connections are not held
        relay.release()
        client.settimeout(60)
        assert received(client, 5) == b"later"


def test_faults_of_the_next_connections(relay: Relay) -> None:
    relay.next(Fate(remaining=5 + 3), times=2)
    for _ in range(2):
        with connected(relay) as client:
            client.sendall(b"torn off")
            with pytest.raises(ConnectionResetError):
                received(client, 8)  # a RST may overtake the bytes before it
    relay.next(Fate(piece=2, pause=0.01))
    with connected(relay) as client:
        begun = time.monotonic()
        client.sendall(b"slow" * 5)
        assert received(client, 20) == b"slow" * 5
        assert time.monotonic() - begun > 0.08
    connected(relay).close()


def test_a_missing_server() -> None:
    with kept_ports(1) as (port,), Relay("127.0.0.1", port) as relay, pytest.raises(ConnectionResetError):
        connected(relay)
