r"""Rows of the table: a request, and where it goes.

    [SCHEME://]HOST PATH [HEADER:VALUE]... -> RESULT [CHECK]...

SCHEME is a listener: http (the default), https, or api, which has routes as an HTTPRoute has. PATH may begin
with `METHOD:`. HOST `-` stands for a request without the header. Escapes are those of Python: `\x20` for a
blank.

RESULT is the name of a Service, or a status. A CHECK is `path=PATH`, the path that the Service got;
`location=URL`; `got:HEADER=VALUE`, a header that the Service got; `has:HEADER=VALUE`, one of the response.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.gateway.client import Reply, exchange, head


class Row(NamedTuple):
    """A request, and its result."""

    text: str
    scheme: str
    host: str
    method: str
    path: str
    headers: tuple[str, ...]
    result: str
    checks: tuple[str, ...]

    def send(self, ports: dict[str, int]) -> Reply:
        """Send the request."""
        host = "" if self.host == "-" else self.host
        name = host.rpartition(":")[0] or host
        request = head(host, self.path, list(self.headers), self.method)
        return exchange(ports[self.scheme], request, name if self.scheme == "https" else "")

    def outcome(self, reply: Reply) -> tuple[str, ...]:
        """Return the result and the checks as they are, in the form of the row."""
        served = reply.status == 200 or "x-want-status" in self.text
        result = str(reply.seen.get("name") if served and reply.seen else reply.status)
        return (result, *(f"{check.partition('=')[0]}={_found(check, reply)}" for check in self.checks))


def _found(check: str, reply: Reply) -> str:
    name = check.partition("=")[0]
    if name == "path":
        return str(reply.seen["target"])
    if name == "location":
        return reply.header("location")
    kind, _, header = name.partition(":")
    value = reply.got(header) if kind == "got" else reply.header(header)
    return value.replace(" ", "_")


def parse(line: str) -> Row:
    """Return the row of a line."""
    request, _, result = line.partition("->")
    where, path, *headers = (word.encode().decode("unicode_escape") for word in request.split())
    scheme, separator, host = where.rpartition("://")
    method, colon, target = path.partition(":")
    if not colon or not method.isupper():
        method, target = "GET", path
    outcome = result.split()
    lines = tuple(f"{name}: {value}" for name, _, value in (header.partition(":") for header in headers))
    return Row(
        line, scheme if separator else "http", host, method, target, lines, outcome[0], tuple(outcome[1:])
    )


def rows(path: Path) -> list[Row]:
    """Return all rows of a file. Lines that begin with # are comments."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [parse(line) for line in lines if line and not line.startswith("#")]
