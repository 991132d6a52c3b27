"""Probes that open a connection from this node to the pod: httpGet and tcpSocket.

The rules are the kubelet's: a status from 200 to 399 is success, certificates are not verified,
redirects are followed only within the same host, and every probe opens a new connection. The
caller enforces the timeout: these coroutines may be cancelled at any point.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import h11

from kproxy import __version__
from kproxy.intake.names import Names
from kproxy.intake.turns import Turns
from kproxy.limits import (
    PROBE_BODY,
    PROBE_BODY_PIECES,
    PROBE_HEAD,
    PROBE_HEAD_LINES,
    PROBE_INFORMATIONAL,
    PROBE_REDIRECTS,
)
from kproxy.model import HTTPGetAction, ProbePort, TCPSocketAction
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult, unsuccessful
from kproxy.probes.wire import Allowance, ProbeLimitError, Wire, connected, wire

MOVED = (301, 302, 303, 307, 308)
URL_CHARACTERS = "%/?:@!$&'()*+,;=~-._"


class HttpReply(NamedTuple):
    """The part of a response that decides a probe."""

    status: int
    location: str


class NetworkProbes:
    """Carries out probes in the running event loop. Use `close` at the end."""

    def __init__(self) -> None:
        self._names = Names()
        self._turns = Turns()

    async def close(self) -> None:
        """Release the resources."""
        await self._names.close()

    def allowance(self) -> Allowance:
        """Return the allowance for one probe."""
        return Allowance(self._turns)

    async def tcp_socket(self, action: TCPSocketAction, address: str) -> ProbeResult:
        """Connect to the pod, or to `action.host`, and close the connection."""
        host = action.host or address
        name = socket_name(host, action.port)
        if problem := _no_destination(host, action.port):
            return ProbeResult(ProbeOutcome.FAILURE, f"{name}: {problem}")
        try:
            async with connected(self._names, host, action.port.number):
                return ProbeResult(ProbeOutcome.SUCCESS)
        except (OSError, ValueError) as error:  # ValueError: an invalid host name
            return unsuccessful(error, f"{name}: {_reason(error)}")

    async def http_get(self, action: HTTPGetAction, address: str, allowance: Allowance) -> ProbeResult:
        """Send a GET request to the pod, or to `action.host`."""
        url = http_url(action, address)
        if problem := _no_destination(action.host or address, action.port):
            return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {problem}")
        try:
            return await self._follow(url, request_headers(action), allowance)
        except (OSError, ValueError) as error:
            return unsuccessful(error, f"Get {url}: {_reason(error)}")
        except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            side = "invalid response" if isinstance(error, h11.RemoteProtocolError) else "invalid request"
            return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: {side}: {error}")

    async def _follow(self, url: str, headers: list[tuple[str, str]], allowance: Allowance) -> ProbeResult:
        first = urlsplit(url)
        for _ in range(PROBE_REDIRECTS + 1):
            reply = await self._request(url, headers, allowance)
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
        return ProbeResult(ProbeOutcome.FAILURE, f"Get {url}: stopped after {PROBE_REDIRECTS} redirects")

    async def _request(self, url: str, headers: list[tuple[str, str]], allowance: Allowance) -> HttpReply:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=PROBE_HEAD)
        message = _message(connection, url, headers)
        port = parts.port or (443 if secure else 80)
        async with wire(self._names, parts.hostname or "", port, secure, allowance) as opened:
            await opened.send(message)
            return await _receive(opened, Response(connection), allowance)


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


def _judge(reply: HttpReply) -> ProbeResult:
    if 200 <= reply.status < 300:
        return ProbeResult(ProbeOutcome.SUCCESS)
    if 300 <= reply.status < 400:
        where = f" to {reply.location}" if reply.location else ""
        return ProbeResult(
            ProbeOutcome.WARNING, f"HTTP probe was redirected{where} with statuscode: {reply.status}"
        )
    return ProbeResult(ProbeOutcome.FAILURE, f"HTTP probe failed with statuscode: {reply.status}")


def _message(connection: h11.Connection, url: str, headers: list[tuple[str, str]]) -> bytes:
    """Return a request as bytes."""
    parts = urlsplit(url)
    if not any(name.lower() == "host" for name, _ in headers):
        headers = [("Host", parts.netloc), *headers]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = h11.Request(
        method="GET",
        target=target.encode(),
        headers=[(name.encode(), value.encode()) for name, value in headers],
    )
    return (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")


async def _receive(opened: Wire, response: Response, allowance: Allowance) -> HttpReply:
    while True:
        try:
            data = await opened.receive()
        except ProbeLimitError:
            if response.reply is None:
                raise
            return response.reply
        async with allowance.turn():
            complete = response.feed(data)
        if complete and response.reply:
            return response.reply


class Response:
    """A response that arrives in pieces. What is counted here is cheap to send and costly to parse."""

    def __init__(self, connection: h11.Connection) -> None:
        """`connection` has sent the request."""
        self.reply: HttpReply | None = None
        """Known as soon as the headers are complete."""
        self._connection = connection
        self._lines = self._informational = self._pieces = self._body = 0

    def feed(self, data: bytes) -> bool:
        """Take a piece (b"": the end), and return whether the response is complete.

        Raises h11.RemoteProtocolError, ProbeLimitError and ConnectionResetError.
        """
        self._connection.receive_data(data)
        while (event := self._connection.next_event()) is not h11.NEED_DATA:
            if self._take(event):
                return True
        if self.reply is None:
            self._lines += data.count(b"\n")
            if self._lines > PROBE_HEAD_LINES:
                raise ProbeLimitError(f"the response has more than {PROBE_HEAD_LINES} lines of headers")
        return False

    def _take(self, event: object) -> bool:
        match event:
            case h11.InformationalResponse(status_code=101) | h11.Response():
                self.reply = HttpReply(event.status_code, _location(event))
                return event.status_code == 101  # what follows is not HTTP
            case h11.InformationalResponse():
                self._informational += 1
                if self._informational > PROBE_INFORMATIONAL:
                    raise ProbeLimitError(f"more than {PROBE_INFORMATIONAL} informational responses")
                return False
            case h11.Data(data=data):
                self._pieces += 1
                self._body += len(data)
                return self._body >= PROBE_BODY or self._pieces >= PROBE_BODY_PIECES
            case h11.EndOfMessage():
                return True
            case _:
                raise ConnectionResetError("connection closed without a response")


def _location(event: h11.Response | h11.InformationalResponse) -> str:
    found = [value for name, value in event.headers if name == b"location"]
    return found[0].decode("latin-1") if found else ""
