"""The client of HTTP: connections that are used again, limits, proxies and hosts with several addresses."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias
from unittest.mock import Mock

import pytest

from kproxy.intake.dial import ConnectError, Endpoint, open_endpoint
from kproxy.intake.names import Names, SocketAddress
from kproxy.intake.requests import HttpClient, Request, RequestError, _Parser
from kproxy.limits import RESPONSE_HEAD
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.credentials import Credentials
from tests.apiserver.kubeconfig import token, write_kubeconfig
from tests.event_loop import in_event_loop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
GET = Request("GET", "/")
Answer: TypeAlias = Callable[[int], bytes]
"""Returns what the server sends after so many requests of a connection; b"" to close the connection."""


class Server:
    """Answers each request with what `answer` returns."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.connections: list[list[str]] = []
        """The heads of the requests of each connection."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads: list[str] = []
        self.connections.append(heads)
        try:
            while True:
                heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                if not (data := self._answer(len(heads))):
                    break
                writer.write(data)
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[Server]:
    made = Server(answer)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening, asyncio.timeout(30):
        made.port = listening.sockets[0].getsockname()[1]
        yield made


def client(port: int, endpoint: Endpoint | None = None, names: Names | None = None) -> HttpClient:
    used = endpoint or Endpoint(f"http://127.0.0.1:{port}")
    return HttpClient(partial(open_endpoint, used, names or Names()), {"Host": "test"})


async def body(http: HttpClient, request: Request = GET) -> list[bytes]:
    async with http.send(request, 10) as response:
        return [piece async for piece in response.pieces()]


@in_event_loop
async def test_a_connection_is_used_again() -> None:
    async with server(lambda _: OK) as remote:
        http = client(remote.port)
        for _ in range(3):
            assert await body(http) == [b"ok"]
        assert [len(requests) for requests in remote.connections] == [3]


@pytest.mark.parametrize(("method", "requests"), [("GET", [2, 1]), ("POST", [1, 1])])
@in_event_loop
async def test_only_a_request_that_may_be_repeated_uses_a_connection_that_may_be_closed(
    method: str, requests: list[int]
) -> None:
    async with server(lambda count: OK if count == 1 else b"") as remote:
        http = client(remote.port)
        await body(http)
        assert await body(http, Request(method, "/")) == [b"ok"]
        assert [len(heads) for heads in remote.connections] == requests


@in_event_loop
async def test_a_body_that_is_not_read_ends_its_connection() -> None:
    async with server(lambda _: OK[:-1]) as remote:
        http = client(remote.port)
        for _ in range(2):
            async with http.send(GET, 10) as response:
                assert response.status == 200
        assert [len(heads) for heads in remote.connections] == [1, 1]


@asynccontextmanager
async def fed(*answers: bytes) -> AsyncIterator[tuple[HttpClient, list[asyncio.StreamReader]]]:
    """Yield a client, and the readers of its connections. Each has an answer from the begin."""
    readers: list[asyncio.StreamReader] = []

    async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        readers.append(asyncio.StreamReader())
        readers[-1].feed_data(answers[len(readers) - 1])
        return readers[-1], Mock(spec=asyncio.StreamWriter)

    async with asyncio.timeout(30):
        yield HttpClient(dial, {"Host": "test"}), readers


@pytest.mark.parametrize(
    "happen",
    [
        lambda reader: reader.feed_data(OK.replace(b"ok", b"no")),
        lambda reader: reader.feed_eof(),
        lambda reader: reader.set_exception(ConnectionResetError()),
    ],
    ids=["a response", "the end", "a reset"],
)
@in_event_loop
async def test_a_connection_on_which_something_happens_between_requests_is_not_used_again(
    happen: Callable[[asyncio.StreamReader], None],
) -> None:
    async with fed(b"HTTP/1.1 204 No Content\r\n\r\n", OK) as (http, readers):
        assert await body(http) == []
        happen(readers[0])
        assert await body(http) == [b"ok"]
        assert len(readers) == 2


@pytest.mark.parametrize("answer", [CLOSE, OK[:-1], b"nonsense"], ids=["complete", "incomplete", "invalid"])
@in_event_loop
async def test_responses_are_freed_without_garbage_collection(answer: bytes) -> None:
    async with fed(*[answer] * 10) as (http, readers):
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                with suppress(RequestError):
                    async with http.send(GET, 10):
                        pass
            assert len(readers) == 10
            assert len([each for each in gc.get_objects() if isinstance(each, _Parser)]) <= 1
        finally:
            gc.enable()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "expected", "is_used_again"),
    [
        (OK, b"ok", True),
        (OK.replace(b"200 OK", b"500 Internal Server Error"), b"ok", True),
        (OK.replace(b"200", b"000"), b"ok", True),
        (CLOSE, b"ok", False),
        (OK.replace(b"1.1", b"1.0"), b"ok", False),
        (OK + b"more", b"ok", False),
        (OK + OK, b"ok", False),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (CHUNKED + b"0\r\n\r\n", b"", True),
        (CHUNKED + b"1\r\na\r\n2;extension=1\r\nbc\r\n0\r\nTrailer: x\r\n\r\n", b"abc", True),
        (CONTINUE + OK, b"ok", True),
        (CONTINUE + CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n", b"x" * 100_000, True),
    ],
    ids=range(13),
)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 200])
def test_the_body_of_a_response(answer: bytes, expected: bytes, is_used_again: bool, pieces: int) -> None:
    parser, taken = _Parser(), b""
    size = -(-len(answer) // pieces)
    for start in range(0, len(answer), size):
        parser.feed(answer[start : start + size])
        taken += parser.take()
    if not parser.complete:
        parser.end()
    assert parser.head
    assert (taken, parser.complete, parser.reusable) == (expected, True, is_used_again)


@in_event_loop
async def test_small_chunks_are_few_pieces() -> None:
    async with server(lambda _: CHUNKED + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n") as remote:
        pieces = await body(client(remote.port))
        assert b"".join(pieces) == b"x" * 1000
        assert len(pieces) < 20


LONG = b"x" * 2 * RESPONSE_HEAD
MANY_HEADERS = b"X: y\r\n" * RESPONSE_HEAD


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"nonsense\r\n\r\n", "invalid response: "),
        (b"HTTP/1.1 200 OK\r\nX: " + LONG, "invalid response: it has more than 64 KiB of headers"),
        (b"HTTP/1.1 200 OK\r\n" + MANY_HEADERS + b"\r\n", "it has more than 64 KiB of headers"),
        (CHUNKED + b"1\r\na\r\n0\r\nX: " + LONG * 10, "it has more than 64 KiB of headers"),
        (CHUNKED + b"1\r\na\r\n0\r\n" + MANY_HEADERS * 10, "it has more than 64 KiB of headers"),
        (CHUNKED + b"1;" + LONG * 10, "it has more than 64 KiB of headers"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, "it has more than 64 KiB of headers"),
        (CHUNKED + b"q\r\n", "invalid response: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", "invalid response: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid response: "),
        (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "it changes the protocol"),
    ],
    ids=range(11),
)  # fmt: skip
@in_event_loop
async def test_an_invalid_response_is_a_sentence(answer: bytes, message: str) -> None:
    async with server(lambda _: answer) as remote:
        with pytest.raises(RequestError, match=message):
            await body(client(remote.port))


@pytest.mark.parametrize("answer", [OK[:-1], CHUNKED + b"5\r\nab", CHUNKED + b"1\r\na\r\n", CHUNKED])
def test_a_response_that_ends_too_early_is_an_error(answer: bytes) -> None:
    parser = _Parser()
    parser.feed(answer)
    with pytest.raises(RequestError, match="the response is incomplete"):
        parser.end()


def test_what_arrives_before_an_error_is_used() -> None:
    parser = _Parser()
    parser.feed(CHUNKED + b"2\r\nok\r\nnonsense")
    assert parser.take() == b"ok"
    with pytest.raises(RequestError, match="invalid response: "):
        parser.take()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy 127.0.0.1:PORT refuses the connection: 403 Forbidden"),
        (b"", "the proxy 127.0.0.1:PORT sends no response"),
        (b"HTTP/1.1 " + b"2" * 2 * RESPONSE_HEAD, "cannot connect to api.test:443: Receive buffer too long"),
        (b"nonsense\r\n\r\n", "cannot connect to api.test:443: illegal status line: bytearray(b'nonsense')"),
    ],
)
@in_event_loop
async def test_a_proxy_that_refuses_is_named(answer: bytes, message: str) -> None:
    async with server(lambda _: answer) as remote:
        proxy = f"http://user:p%40ss@127.0.0.1:{remote.port}"
        endpoint = Endpoint("https://api.test", ssl.create_default_context(), None, proxy)
        with pytest.raises(ConnectError) as caught:
            await body(client(0, endpoint))
        assert str(caught.value) == message.replace("PORT", str(remote.port))
        head = remote.connections[0][0]
        assert head.startswith("CONNECT api.test:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in head


@in_event_loop
async def test_without_tls_a_proxy_gets_the_whole_url(tmp_path: Path) -> None:
    async with server(lambda _: OK) as proxy:
        kubeconfig = write_kubeconfig(
            tmp_path / "kubeconfig",
            "http://api.test/prefix",
            token("first"),
            proxy_url=f"http://127.0.0.1:{proxy.port}",
        )
        async with (
            Connection(Credentials(kubeconfig)) as connection,
            connection.get("/api", {"watch": "1"}, 10) as response,
        ):
            assert response.status == 200
        assert proxy.connections[0][0].startswith(
            "GET http://api.test:80/prefix/api?watch=1 HTTP/1.1\r\nHost: api.test\r\n"
        )


class Two(Names):
    """A host with two addresses, of which the first one has no server."""

    async def addresses(self, host: str, port: int) -> list[tuple[int, SocketAddress]]:
        return [(socket.AF_INET, ("127.0.0.2", port)), (socket.AF_INET, ("127.0.0.1", port))]


@in_event_loop
async def test_the_next_address_of_a_host_is_tried() -> None:
    async with server(lambda _: OK) as remote:
        endpoint = Endpoint(f"http://two.test:{remote.port}")
        assert await body(client(0, endpoint, Two())) == [b"ok"]
