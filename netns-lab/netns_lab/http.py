"""Just enough HTTP/1.1 for the pods: bytes in, requests out, responses as bytes; no sockets.

GET and HEAD, with or without a body to skip, keep-alive and pipelining. What
is not HTTP is a ``BadRequest``, to be answered with its status and a closed
connection.
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
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


class BadRequest(Exception):
    """What came is no request this server can read on after."""

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
    def by_https(self) -> str:
        """The same host and path by https, on its usual port."""
        return f"https://{re.sub(r':[0-9]+$', '', self.host)}{self.path}"

    def number(self, name: str, default: int) -> int:
        """A parameter of the query, a whole number from 0."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise BadRequest(400, f"{name}={text} is no number")
        return int(text)


def next_request(buffer: bytearray) -> Request | None:
    """Take one whole request off the front of ``buffer``; None, and nothing taken, if more must come."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0 or end > LONGEST_HEAD:
        if len(buffer) > LONGEST_HEAD:
            raise BadRequest(431, "the head is too long")
        return None
    line, *fields = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    headers = _headers(fields)
    method, target, version = _request_line(line)
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequest(400, "no Host")
    if "transfer-encoding" in headers:
        raise BadRequest(501, "no transfer encoding is understood here")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "Content-Length is no number")
    if int(length[:16]) > LONGEST_BODY:
        raise BadRequest(413, "the body is too long")
    whole = end + 4 + int(length)
    if len(buffer) < whole:
        return None
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, f"{method} is not served here")
    del buffer[:whole]
    path, _, query = target.partition("?")
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep_alive = "keep-alive" in options if version == "HTTP/1.0" else "close" not in options
    return Request(method, path, dict(parse_qsl(query)), keep_alive, headers.get("host", ""))


def _request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[1]:
        raise BadRequest(400, "no request line")
    method, target, version = words
    if not version.startswith("HTTP/"):
        raise BadRequest(400, "no request line")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest(505, f"{version} is not spoken here")
    return method, target, version


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise BadRequest(400, f"no header: {line[:60]}")
        if name == "content-length" and headers.get(name, value.strip()) != value.strip():
            raise BadRequest(400, "two Content-Lengths")
        headers[name] = value.strip()
    return headers


def head(status: int, length: int, keep_alive: bool, headers: Mapping[str, str]) -> bytes:
    """Status line and headers of a response whose body has ``length`` bytes."""
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")
