"""A minimal HTTP/1.1 for the pods: it converts bytes to requests, and responses to bytes. No sockets.

It supports GET and HEAD, bodies (which it skips), keep-alive and pipelining.
Other input raises ``BadRequest``. The server then answers with its status and
closes the connection.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

LONGEST_HEAD = 16 * 1024
LONGEST_BODY = 1024 * 1024
REASONS = {
    200: "OK",
    301: "Moved Permanently",
    400: "Bad Request",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


class BadRequest(Exception):
    """An invalid request. The server cannot read further requests after it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    keep_alive: bool
    host: str

    @property
    def https_url(self) -> str:
        """The URL with https and the default port, for the same host and path."""
        return f"https://{re.sub(r':[0-9]+$', '', self.host)}{self.path}"

    def number(self, name: str, default: int) -> int:
        """Return a parameter of the query, which must be a whole number from 0."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise BadRequest(400, f"{name}={text} is not a number")
        return int(text)


def next_request(buffer: bytearray) -> Request | None:
    """Remove one complete request from ``buffer``. Returns None, and removes nothing, if it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0 or end > LONGEST_HEAD:
        if len(buffer) > LONGEST_HEAD:
            raise BadRequest(431, "the head is too long")
        return None
    line, *fields = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    headers = _headers(fields)
    method, target, version = _request_line(line)
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequest(400, "the Host header is missing")
    if "transfer-encoding" in headers:
        raise BadRequest(501, "transfer encodings are not supported")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "Content-Length is not a number")
    if int(length[:16]) > LONGEST_BODY:
        raise BadRequest(413, "the body is too long")
    whole = end + 4 + int(length)
    if len(buffer) < whole:
        return None
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, f"{method} is not supported")
    del buffer[:whole]
    path, _, query = target.partition("?")
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep_alive = "keep-alive" in options if version == "HTTP/1.0" else "close" not in options
    return Request(method, path, dict(parse_qsl(query)), keep_alive, headers.get("host", ""))


def _request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[1]:
        raise BadRequest(400, "invalid request line")
    method, target, version = words
    if not version.startswith("HTTP/"):
        raise BadRequest(400, "invalid request line")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest(505, f"{version} is not supported")
    return method, target, version


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise BadRequest(400, f"invalid header: {line[:60]}")
        if name == "content-length" and headers.get(name, value.strip()) != value.strip():
            raise BadRequest(400, "several Content-Length headers")
        headers[name] = value.strip()
    return headers


def head(status: int, length: int, keep_alive: bool, headers: Mapping[str, str]) -> bytes:
    """Return the status line and headers of a response whose body has ``length`` bytes."""
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")
