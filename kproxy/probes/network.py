"""Probes that open a connection, from this node to the pod: httpGet and tcpSocket.

What counts is what counts for the kubelet: a status from 200 to 399 is success, a certificate
is not verified, a redirect is followed as long as it stays with its host. Every connection
is a new one. Deadlines are the caller's: these coroutines may be cancelled at any point.
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
"""Bytes of a body that are waited for."""
HEAD = 256 * 1024
"""Bytes of a head that are taken."""
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
    """What came back."""

    status: int
    location: str
    body: bytes


async def tcp_socket(action: TCPSocketAction, address: str) -> ProbeResult:
    """Connect to the pod, or to `action.host`, and hang up."""
    host = action.host or address
    where = socket_name(host, action.port)
    if problem := _no_way(host, action.port):
        return ProbeResult(ProbeOutcome.FAILURE, f"{where}: {problem}")
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, host, action.port.number
        )
    except (OSError, ValueError) as error:  # ValueError: a host that is no name
        return ProbeResult(ProbeOutcome.FAILURE, f"{where}: {_reason(error)}")
    transport.close()
    return ProbeResult(ProbeOutcome.SUCCESS)


async def http_get(action: HTTPGetAction, address: str) -> ProbeResult:
    """Ask the pod, or `action.host`."""
    url = http_url(action, address)
    if problem := _no_way(action.host or address, action.port):
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {problem}")
    try:
        return await _follow(url, request_headers(action))
    except (OSError, ValueError) as error:
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {_reason(error)}")
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        whose = "the answer is not HTTP" if isinstance(error, h11.RemoteProtocolError) else "the request"
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {whose}: {error}")


def http_url(action: HTTPGetAction, address: str) -> str:
    """What is asked for; in the path, what a URL cannot have is escaped."""
    path = quote(action.path.partition("#")[0].removeprefix("/"), safe=URL_CHARACTERS)
    return f"{action.scheme.lower()}://{socket_name(action.host or address, action.port)}/{path}"


def socket_name(host: str, port: ProbePort) -> str:
    """Return `10.0.0.1:8080` or `[fd00::1]:8080`, with the port's name if its number is unknown."""
    suffix = port.number or port.name_or_number
    return f"[{host}]:{suffix}" if ":" in host else f"{host}:{suffix}"


def request_headers(action: HTTPGetAction) -> list[tuple[str, str]]:
    """The headers given; User-Agent and Accept where they are not, and no Accept where it is empty."""
    given = {name.lower(): value for name, value in action.headers}
    headers = [pair for pair in action.headers if pair[0].lower() != "accept" or pair[1]]
    if "user-agent" not in given:
        headers.append(("User-Agent", f"kproxy-probe/{__version__}"))
    if "accept" not in given:
        headers.append(("Accept", "*/*"))
    return [*headers, ("Connection", "close")]


def _no_way(host: str, port: ProbePort) -> str:
    """Why there is nothing to connect to; "" if there is."""
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
        answer = await _ask(url, headers)
        if answer.status not in MOVED or not answer.location:
            return _judge(answer)
        there = urljoin(url, answer.location)
        parts = urlsplit(there)
        if parts.hostname != first.hostname:
            return _judge(answer)
        if parts.scheme not in ("http", "https"):
            return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: redirected to {there}")
        if urlsplit(answer.location).netloc:  # a Host of its own was meant for the place that we leave
            headers = [pair for pair in headers if pair[0].lower() != "host"]
        url = there
    return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: stopped after {REDIRECTS} redirects")


def _judge(answer: HttpReply) -> ProbeResult:
    if 200 <= answer.status < 300:
        return ProbeResult(ProbeOutcome.SUCCESS)
    if 300 <= answer.status < 400:
        where = f" to {answer.location}" if answer.location else ""
        return ProbeResult(
            ProbeOutcome.WARNING, f"HTTP probe was redirected{where} with statuscode: {answer.status}"
        )
    return ProbeResult(ProbeOutcome.FAILURE, f"HTTP probe failed with statuscode: {answer.status}")


async def _ask(url: str, headers: list[tuple[str, str]]) -> HttpReply:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    if not any(name.lower() == "host" for name, _ in headers):
        headers = [("Host", parts.netloc), *headers]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
    request = h11.Request(
        method="GET",
        target=target.encode(),
        headers=[(name.encode(), value.encode()) for name, value in headers],
    )
    message = (talk.send(request) or b"") + (talk.send(h11.EndOfMessage()) or b"")
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=TLS if secure else None
    )
    try:
        writer.write(message)
        return await _receive(talk, reader)
    finally:
        writer.transport.abort()  # nothing is left to say, and nobody to wait for


async def _receive(talk: h11.Connection, reader: asyncio.StreamReader) -> HttpReply:
    status, location, body = 0, "", b""
    while True:
        event = talk.next_event()
        if event is h11.NEED_DATA:
            talk.receive_data(await reader.read(65536))
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
            raise ConnectionResetError("closed without an answer")
