"""Sends requests to the API server.

If the server rejects the credentials (401) or TLS fails, the credentials are loaded again: files may have
been rotated, or a plugin may return new ones.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from urllib.parse import urlencode, urlsplit

from kproxy import __version__
from kproxy.intake.dial import Endpoint, TlsError, host_and_port, open_endpoint, proxy_authorization
from kproxy.intake.names import Names
from kproxy.intake.requests import HttpClient, Request, Response
from kproxy.sources.cluster.core.formats import JSON
from kproxy.sources.cluster.credentials import Credentials

HEADERS = {
    "Accept-Encoding": "gzip",
    "User-Agent": f"kproxy/{__version__}",
}


class _Server:
    """An API server, as the credentials name it."""

    def __init__(self, endpoint: Endpoint, names: Names) -> None:
        url = urlsplit(endpoint.server)
        self.host = url.netloc
        self.prefix = url.path
        headers = {"Host": url.netloc.rpartition("@")[2], **HEADERS}
        if (
            endpoint.proxy and not endpoint.tls
        ):  # without TLS, there is no tunnel: the proxy reads the request
            self.prefix = f"http://{host_and_port(url)}{url.path}"
            headers.update(proxy_authorization(urlsplit(endpoint.proxy)))
        self.http = HttpClient(partial(open_endpoint, endpoint, names), headers)


class Connection:
    """A client of one API server. Use it with `async with`."""

    def __init__(self, credentials: Credentials) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """By status code (`<error>` without a response), host and method."""
        self.contact = float("-inf")
        """When a `Reflector` last received data, of any kind (time.monotonic())."""
        self._credentials = credentials
        self._names = Names()
        self._server: _Server | None = None
        self._loading = asyncio.Lock()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget(self._server)
        await self._names.close()

    @asynccontextmanager
    async def get(
        self, path: str, query: Mapping[str, str], idle_timeout: float, accept: str = JSON
    ) -> AsyncIterator[Response]:
        """Return the response to a request, whatever its status. `idle_timeout` limits pauses in it (s).

        `accept`: the requested formats, as in the header. Raises OSError (including TimeoutError) and
        CredentialsError.
        """
        request = Request("GET", f"{path}?{urlencode(query)}" if query else path)
        async with self.send(request, idle_timeout, accept) as response:
            yield response

    @asynccontextmanager
    async def send(
        self, request: Request, idle_timeout: float, accept: str = JSON
    ) -> AsyncIterator[Response]:
        """Return the response to a request, as `get` does."""
        used = await self._load(stale=None)
        async with self._request(used, request, idle_timeout, accept) as response:
            if response.status != 401:
                yield response
                return
        used = await self._load(stale=used)
        async with self._request(used, request, idle_timeout, accept) as response:
            yield response

    async def _load(self, stale: _Server | None) -> _Server:
        """Return credentials other than the stale ones. If several requests need new ones, one loads them."""
        async with self._loading:
            if self._server is None or self._server is stale:
                endpoint = await asyncio.to_thread(self._credentials.load)
                self._forget(self._server)
                self._server = _Server(endpoint, self._names)
            return self._server

    def _forget(self, server: _Server | None) -> None:
        """Load the credentials again before the next request, if these are in use."""
        if server is not None and server is self._server:
            server.http.close()
            self._server = None

    @asynccontextmanager
    async def _request(
        self, server: _Server, request: Request, idle_timeout: float, accept: str
    ) -> AsyncIterator[Response]:
        async with self._loading:
            authorization = await asyncio.to_thread(self._credentials.authorization)
        headers = {"Accept": accept, **({"Authorization": authorization} if authorization else {})}
        target = request._replace(path=server.prefix + request.path)
        code = "<error>"
        try:
            async with server.http.send(target, idle_timeout, headers) as response:
                code = self._count(server, request, str(response.status))
                yield response
        except (TlsError, ssl.SSLError):
            self._forget(server)
            raise
        finally:
            if code == "<error>":
                self._count(server, request, code)

    def _count(self, server: _Server, request: Request, code: str) -> str:
        self.requests[code, server.host, request.method] += 1
        return code
