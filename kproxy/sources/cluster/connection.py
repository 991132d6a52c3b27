"""Sends requests to the API server.

If the server rejects the credentials (401) or TLS fails, the credentials are loaded again: files may have
been rotated, or a plugin may return new ones. TCP detects a connection whose other end has disappeared (by
keepalive, and by a limit for unacknowledged data). Otherwise the idle timeout ends it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from kproxy import __version__
from kproxy.limits import API_CONNECT_SECONDS, API_HEAD_SECONDS
from kproxy.sources.cluster.credentials import Credentials, Endpoint

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "User-Agent": f"kproxy/{__version__}",
}
READ_BUFFER = 1 << 20
"""The size of the read buffer in bytes: about one page of a list."""
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 45_000),
)


class Request(NamedTuple):
    """A request to the API server."""

    method: str
    path: str
    query: Mapping[str, str] = MappingProxyType({})
    content: Any = None
    """What is sent as JSON; None for nothing."""


class Connection:
    """A client of one API server. Use it with `async with`."""

    def __init__(self, credentials: Credentials) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """By status code (`<error>` without a response), host and method."""
        self._credentials = credentials
        self._endpoint: Endpoint | None = None
        self._loading = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Connection:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=_socket),
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BUFFER,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    @asynccontextmanager
    async def get(
        self, path: str, query: Mapping[str, str], idle_timeout: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Return the response to a request, whatever its status. `idle_timeout` limits pauses in it (s).

        Raises aiohttp.ClientError, OSError (including TimeoutError) and CredentialsError.
        """
        async with self.send(Request("GET", path, query), idle_timeout) as response:
            yield response

    @asynccontextmanager
    async def send(self, request: Request, idle_timeout: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """Return the response to a request, as `get` does."""
        used = await self._load(stale=None)
        response = await self._request(used, request, idle_timeout)
        if response.status == 401:
            response.release()
            response = await self._request(await self._load(stale=used), request, idle_timeout)
        async with response:
            yield response

    async def _load(self, stale: Endpoint | None) -> Endpoint:
        """Return credentials other than the stale ones. If several requests need new ones, one loads them."""
        async with self._loading:
            if self._endpoint is None or self._endpoint is stale:
                self._endpoint = await asyncio.to_thread(self._credentials.load)
            return self._endpoint

    async def _request(
        self, endpoint: Endpoint, request: Request, idle_timeout: float
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        async with self._loading:
            authorization = await asyncio.to_thread(self._credentials.authorization)
        code, host = "<error>", urlsplit(endpoint.server).netloc
        try:
            async with asyncio.timeout(API_HEAD_SECONDS):  # also if informational responses never end
                response = await self._session.request(
                    request.method,
                    endpoint.server + request.path,
                    params=request.query,
                    json=request.content,
                    headers={"Authorization": authorization} if authorization else {},
                    ssl=endpoint.tls if endpoint.tls else True,
                    server_hostname=endpoint.server_name,
                    proxy=endpoint.proxy,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=API_CONNECT_SECONDS, sock_read=idle_timeout
                    ),
                )
            code = str(response.status)
        except aiohttp.ClientSSLError:
            if self._endpoint is endpoint:
                self._endpoint = None
            raise
        finally:
            self.requests[code, host, request.method] += 1
        return response


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for level, option, value in KEEPALIVE:
        made.setsockopt(level, option, value)
    return made
