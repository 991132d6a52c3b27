"""Probes that open a connection from this node to the pod: httpGet and tcpSocket.

The rules are the kubelet's: a status from 200 to 399 is success, certificates are not verified,
redirects are followed only within the same host, and every probe opens a new connection. The
caller enforces the timeout: these coroutines may be cancelled at any point.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import h11

from kproxy import __version__
from kproxy.model import HTTPGetAction, ProbePort, TCPSocketAction
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult

BODY = 10 * 1024
"""Maximum bytes of a body to read."""
HEAD = 256 * 1024
"""Maximum bytes of the status line and headers."""
REDIRECTS = 10
MOVED = (301, 302, 303, 307, 308)
URL_CHARACTERS = "%/?:@!$&'()*+,;=~-._"


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


TLS = _unverified()


class HttpReply(NamedTuple):
    """The part of a response that decides a probe."""

    status: int
    location: str
    body: bytes


async def tcp_socket(action: TCPSocketAction, address: str) -> ProbeResult:
    """Connect to the pod, or to `action.host`, and close the connection."""
    host = action.host or address
    name = socket_name(host, action.port)
    if problem := _no_destination(host, action.port):
        return ProbeResult(ProbeOutcome.FAILURE, f"{name}: {problem}")
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, host, action.port.number
        )
    except (OSError, ValueError) as error:  # ValueError: an invalid host name
        return ProbeResult(ProbeOutcome.FAILURE, f"{name}: {_reason(error)}")
    transport.close()
    return ProbeResult(ProbeOutcome.SUCCESS)


async def http_get(action: HTTPGetAction, address: str) -> ProbeResult:
    """Send a GET request to the pod, or to `action.host`."""
    url = http_url(action, address)
    if problem := _no_destination(action.host or address, action.port):
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {problem}")
    try:
        return await _follow(url, request_headers(action))
    except (OSError, ValueError) as error:
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {_reason(error)}")
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        side = "invalid response" if isinstance(error, h11.RemoteProtocolError) else "invalid request"
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {side}: {error}")


def http_url(action: HTTPGetAction, address: str) -> str:
    """Return the URL of a probe. Characters of the path that a URL cannot contain are escaped."""
    path = quote(action.path.partition("#")[0].removeprefix("/"), safe=URL_CHARACTERS)
    return f"{action.scheme.lower()}://{socket_name(action.host or address, action.port)}/{path}"


def socket_name(host: str, port: ProbePort) -> str:
    """Return `10.0.0.1:8080` or `[fd00::1]:8080`, with the port's name if its number is unknown."""
    suffix = port.number or port.name_or_number
    return f"[{host}]:{suffix}" if ":" in host else f"{host}:{suffix}"


def request_headers(action: HTTPGetAction) -> list[tuple[str, str]]:
    """Return the action's headers, and defaults for User-Agent and Accept. An empty Accept is omitted."""
    names = {name.lower() for name, _ in action.headers}
    headers = [pair for pair in action.headers if pair[0].lower() != "accept" or pair[1]]
    if "user-agent" not in names:
        headers.append(("User-Agent", f"kproxy-probe/{__version__}"))
    if "accept" not in names:
        headers.append(("Accept", "*/*"))
    return [*headers, ("Connection", "close")]


def _no_destination(host: str, port: ProbePort) -> str:
    """Return why there is no address or port to connect to, else ""."""
    if not port.number:
        return f"the container has no port named {port.name_or_number}"
    return "" if host else "the pod has no address"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


async def _follow(url: str, headers: list[tuple[str, str]]) -> ProbeResult:
    first = urlsplit(url)
    for _ in range(REDIRECTS + 1):
        reply = await _request(url, headers)
        if reply.status not in MOVED or not reply.location:
            return _judge(reply)
        target = urljoin(url, reply.location)
        parts = urlsplit(target)
        if parts.hostname != first.hostname:
            return _judge(reply)
        if parts.scheme not in ("http", "https"):
            return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: redirected to {target}")
        if urlsplit(reply.location).netloc:  # a Host header of the probe is valid for the first URL only
            headers = [pair for pair in headers if pair[0].lower() != "host"]
        url = target
    return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: stopped after {REDIRECTS} redirects")


def _judge(reply: HttpReply) -> ProbeResult:
    if 200 <= reply.status < 300:
        return ProbeResult(ProbeOutcome.SUCCESS)
    if 300 <= reply.status < 400:
        where = f" to {reply.location}" if reply.location else ""
        return ProbeResult(
            ProbeOutcome.WARNING, f"HTTP probe was redirected{where} with statuscode: {reply.status}"
        )
    return ProbeResult(ProbeOutcome.FAILURE, f"HTTP probe failed with statuscode: {reply.status}")


async def _request(url: str, headers: list[tuple[str, str]]) -> HttpReply:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    if not any(name.lower() == "host" for name, _ in headers):
        headers = [("Host", parts.netloc), *headers]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
    request = h11.Request(
        method="GET",
        target=target.encode(),
        headers=[(name.encode(), value.encode()) for name, value in headers],
    )
    message = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=TLS if secure else None
    )
    try:
        writer.write(message)
        return await _receive(connection, reader)
    finally:
        writer.transport.abort()  # close without waiting for the server


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> HttpReply:
    status, location, body = 0, "", b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
            found = [value for name, value in event.headers if name == b"location"]
            location = found[0].decode("latin-1") if found else ""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= BODY:
                return HttpReply(status, location, body)
        elif isinstance(event, h11.EndOfMessage):
            return HttpReply(status, location, body)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("connection closed without a response")
