"""Opens connections to servers: TCP, TLS, the tunnel of an HTTP proxy, and Unix sockets.

TCP detects a connection whose other end has disappeared, by keepalive and by a limit for unacknowledged data.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from errno import ECONNRESET
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

import h11
from aiohappyeyeballs import start_connection

from kproxy.intake.names import Names
from kproxy.limits import CONNECT_SECONDS, READ_BUFFER, RESPONSE_HEAD

NEXT_ADDRESS_SECONDS = 0.25
"""The time after which the next address of a host is tried, too (RFC 8305)."""
TUNNEL_PIECE = 4096
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 45_000),
)
FAILURES = (OSError, ValueError, h11.ProtocolError)
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial: TypeAlias = Callable[[], Awaitable[Streams]]
"""Opens a connection. Raises ConnectError."""


class ConnectError(OSError):
    """A server cannot be reached. The text is a sentence."""


class TlsError(ConnectError):
    """The TLS handshake failed."""


class Endpoint(NamedTuple):
    """The address of a server, and the parameters of connections to it."""

    server: str
    """A URL without a slash at its end."""
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    """The name in the server's certificate, if it differs from the URL."""
    proxy: str | None = None
    """The URL of an HTTP proxy."""


async def open_endpoint(endpoint: Endpoint, names: Names) -> Streams:
    """Connect to a server. Raises ConnectError."""
    server = urlsplit(endpoint.server)
    proxy = urlsplit(endpoint.proxy) if endpoint.proxy else None
    connected = await _tcp(proxy or server, names)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if proxy and endpoint.tls:
                await _tunnel(connected, server, proxy)
            return await _streams(connected, endpoint, server)
    except FAILURES as error:
        connected.close()
        raise _described(error, server) from None
    except asyncio.CancelledError:
        connected.close()
        raise


async def open_unix(path: str) -> Streams:
    """Connect to a Unix socket. Raises ConnectError."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_unix_connection(path, limit=READ_BUFFER)
    except OSError as error:
        raise ConnectError(f"{path}: {reason(error)}") from None


def host_and_port(url: SplitResult) -> str:
    """Return for example `192.0.2.1:6443` or `[fd00::1]:6443`, with the default port of the scheme."""
    host = url.hostname or ""
    return f"[{host}]:{_port(url)}" if ":" in host else f"{host}:{_port(url)}"


def proxy_authorization(proxy: SplitResult) -> list[tuple[str, str]]:
    """Return the header with the user and the password that the URL of a proxy contains; [] without them."""
    if proxy.username is None:
        return []
    plain = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return [("Proxy-Authorization", f"Basic {b64encode(plain.encode()).decode()}")]


def reason(error: BaseException) -> str:
    """Return the system's text for an error, if it has one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        text = getattr(error, "reason", None)
        return text.lower().replace("_", " ") if text else str(error)
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    if isinstance(error, ConnectionResetError):  # during the TLS handshake, asyncio raises it without errno
        return os.strerror(ECONNRESET)
    if isinstance(error, TimeoutError):
        return "timeout"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


async def _tcp(url: SplitResult, names: Names) -> socket.socket:
    """Connect to the first address of a host that accepts the connection."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await names.addresses(url.hostname or "", _port(url))
            infos = [(family, socket.SOCK_STREAM, 0, "", address) for family, address in found]
            return await start_connection(
                infos, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, socket_factory=_socket
            )
    except FAILURES as error:
        raise _described(error, url) from None


def _socket(info: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(*info[:3])
    for level, option, value in KEEPALIVE:
        made.setsockopt(level, option, value)
    return made


async def _tunnel(connected: socket.socket, server: SplitResult, proxy: SplitResult) -> None:
    """Let a proxy connect to the server."""
    loop, target = asyncio.get_running_loop(), host_and_port(server)
    protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=RESPONSE_HEAD)
    headers = [("Host", target), *proxy_authorization(proxy)]
    request = protocol.send(h11.Request(method="CONNECT", target=target, headers=headers))
    await loop.sock_sendall(connected, request or b"")
    while not isinstance(event := protocol.next_event(), h11.Response):
        data = await loop.sock_recv(connected, TUNNEL_PIECE)
        if not data:
            raise ConnectError(f"the proxy {host_and_port(proxy)} sends no response")
        protocol.receive_data(data)
    if not 200 <= event.status_code < 300:
        status = f"{event.status_code} {event.reason.decode('latin-1')}".strip()
        raise ConnectError(f"the proxy {host_and_port(proxy)} refuses the connection: {status}")


async def _streams(connected: socket.socket, endpoint: Endpoint, server: SplitResult) -> Streams:
    name = (endpoint.server_name or server.hostname) if endpoint.tls else None
    return await asyncio.open_connection(
        sock=connected, ssl=endpoint.tls, server_hostname=name, limit=READ_BUFFER
    )


def _described(error: Exception, server: SplitResult) -> ConnectError:
    """Return an error of a connection as a ConnectError."""
    if isinstance(error, ConnectError):
        return error
    kind = TlsError if isinstance(error, ssl.SSLError) else ConnectError
    return kind(f"cannot connect to {host_and_port(server)}: {reason(error)}")
