"""A client that sends exactly the bytes that a row says, which other clients refuse to send."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any, NamedTuple

import h11


class Reply(NamedTuple):
    """A response, and the request as a server got it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """What a server saw, {} if none replied."""
        found: dict[str, Any] = json.loads(self.body) if self.body.startswith(b'{"name"') else {}
        return found

    def header(self, name: str) -> str:
        """The values of a header, joined."""
        return ", ".join(value for key, value in self.headers if key == name.lower())

    def got(self, name: str) -> str:
        """The values of a header that the server got, joined."""
        return ", ".join(value for key, value in self.seen["headers"] if key == name.lower())


def head(host: str, path: str, headers: list[str], method: str = "GET", version: str = "1.1") -> bytes:
    """Return the head of a request. Nothing is checked or escaped."""
    lines = [f"{method} {path} HTTP/{version}", *([f"Host: {host}"] if host else []), *headers]
    return ("\r\n".join((*lines, "", ""))).encode("latin-1")


def exchange(port: int, request: bytes, server_name: str = "") -> Reply:
    """Send bytes, and return the first response. With `server_name`, over TLS."""
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        if not server_name:
            return _exchange(plain, request)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname=server_name) as secure:
            return _exchange(secure, request)


def _exchange(connected: socket.socket, request: bytes) -> Reply:
    connected.sendall(request)
    parser = h11.Connection(h11.CLIENT)
    method = request.split(b" ", 1)[0]
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Connection", "close")]))
    parser.send(h11.EndOfMessage())
    status, headers, body = 0, [], b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            parser.receive_data(connected.recv(65536))
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, [(k.decode(), v.decode()) for k, v in event.headers]
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    return Reply(status, headers, body)
