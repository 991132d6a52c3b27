"""Descriptions of connection errors, from real connections on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from kproxy.decode import wire
from kproxy.intake.dial import Endpoint, open_endpoint
from kproxy.intake.names import Names
from kproxy.intake.requests import HttpClient, Request
from kproxy.model import Node
from kproxy.sources.cluster.credentials import Credentials
from kproxy.sources.cluster.failures import Failure, StatusError, is_common, sentence
from kproxy.sources.cluster.source import Cluster

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"


def hang_up(client: socket.socket) -> None:
    """Close the connection after the request."""
    client.recv(1 << 16)


def reset(client: socket.socket) -> None:
    client.recv(1 << 16)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answers(
    data: bytes, then: Callable[[socket.socket], None] | None = None
) -> Callable[[socket.socket], None]:
    def answer(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(data)
        if then:
            client.recv(1)  # until the client has read that
            then(client)

    return answer


def silent(client: socket.socket) -> None:
    while client.recv(1 << 16):
        pass


@contextmanager
def server(behaves: Callable[[socket.socket], None]) -> Iterator[int]:
    """Return a port of a server that calls `behaves` for each connection, and then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    behaves(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def error_of(url: str) -> str:
    """Return the description of the error of a request."""

    endpoint = Endpoint(url, ssl.create_default_context() if url.startswith("https") else None)

    async def ask() -> None:
        client = HttpClient(partial(open_endpoint, endpoint, Names()), {"Host": "test"})
        async with client.send(Request("GET", "/"), 0.2) as response:
            async for _ in response.pieces():
                pass

    with pytest.raises(OSError) as caught:  # noqa: PT011 - `sentence` takes any
        asyncio.run(ask())
    return sentence(caught.value)


@pytest.mark.parametrize(
    ("scheme", "behaves", "expected"),
    [
        ("http", hang_up, "the server closed the connection without a response"),
        ("http", reset, "Connection reset by peer"),
        ("http", silent, "timeout while waiting for data"),
        ("http", answers(HALF), "the response is incomplete"),
        ("https", reset, "cannot connect to 127.0.0.1:PORT: Connection reset by peer"),
        ("https", answers(b"plain text"), "cannot connect to 127.0.0.1:PORT: wrong version number"),
    ],
)
def test_a_server_that_fails(scheme: str, behaves: Callable[[socket.socket], None], expected: str) -> None:
    with server(behaves) as port:
        assert error_of(f"{scheme}://127.0.0.1:{port}") == expected.replace("PORT", str(port))


def test_no_server() -> None:
    with server(silent) as port:
        pass
    for host in ("127.0.0.1", "[::1]"):
        assert error_of(f"http://{host}:{port}") == f"cannot connect to {host}:{port}: Connection refused"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "timeout while waiting for data"),
        (ValueError("invalid watch event"), "invalid watch event"),
        (ssl.SSLError(1, "[SSL] odd"), "[SSL] odd"),
    ],
)
def test_other_errors_are_described_by_their_text(error: Exception, expected: str) -> None:
    assert expected in sentence(error)


# --- one problem for one cause ---

REFUSED, TIMEOUT, FORBIDDEN = (
    ConnectionRefusedError("refused"),
    TimeoutError(),
    StatusError(wire.Status(reason="Forbidden", message="no"), 403),
)


def problems(cluster: Cluster, **failing: Exception) -> list[str]:
    """Return the problems when these kinds fail."""
    for kind, reflector in cluster._reflectors.items():
        error = failing.get(kind)
        reflector.failure = Failure(sentence(error), is_common(error)) if error else None
    return [problem.message for problem in cluster.problems()]


def test_what_concerns_all_kinds_is_one_problem_that_stays_the_same() -> None:
    cluster = Cluster(Credentials(None), "n1", lambda _: Node("n1"))
    timeout, refused = (f"cannot use the API server: {sentence(each)}" for each in (TIMEOUT, REFUSED))
    assert problems(cluster, Node=TIMEOUT) == [timeout]
    assert problems(cluster, Node=TIMEOUT, Service=REFUSED) == [timeout]
    assert problems(cluster, Node=REFUSED, Service=REFUSED) == [refused]
    assert problems(cluster, Node=REFUSED, Service=TIMEOUT) == [refused]
    forbidden = "cannot follow Services: 403 Forbidden: no"
    assert problems(cluster, Node=REFUSED, Service=FORBIDDEN) == [refused, forbidden]
    assert problems(cluster) == []


@pytest.mark.parametrize(
    ("status", "code", "common"),
    [
        (wire.Status(), 503, True),
        (wire.Status(reason="InternalError", message="etcdserver: no leader"), 500, False),
        (wire.Status(reason="Unauthorized"), 401, True),
        (wire.Status(), 403, False),
    ],
)
def test_responses_that_concern_all_kinds(status: wire.Status, code: int, common: bool) -> None:
    assert is_common(StatusError(status, code)) is common
