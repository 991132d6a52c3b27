"""The attacks, one row each. The first field is the name of the row.

Pods send `Answers` to readiness probes. Clients send `Requests` to kproxy's listeners, and `Queries` to its
DNS server. Upstream DNS servers send `Replies`, and an API server sends `Responses`. A `File` is written into
the folder of manifests.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Literal

Listener = Literal["healthz", "metrics", "services", "control", "dns"]
"""The health check, metrics, health check node ports of six Services, the control socket, DNS over TCP."""


@dataclass(frozen=True)
class Attack:
    """What one party does. `head` is sent once, then `part` again and again, with pauses in seconds."""

    name: str
    """It is also the path that readiness probes request."""


@dataclass(frozen=True)
class Answers(Attack):
    """Sent in answer to readiness probes. Without a `part`, the connection then stays open, unless `ends`."""

    head: bytes
    part: bytes = b""
    pause: float = 0.0
    ends: bool = False
    tls: Literal["", "after", "instead"] = ""
    """After the handshake, or instead of it."""
    pods: int = 20
    probe: dict[str, Any] = field(default_factory=dict)
    """Fields of the action."""


@dataclass(frozen=True)
class Requests(Attack):
    """Sent by clients to a listener. Clients that are disconnected connect again if `again`."""

    to: Listener
    head: bytes = b""
    part: bytes = b""
    pause: float = 0.0
    reads: bool = True
    again: bool = False
    clients: int = 300


@dataclass(frozen=True)
class Queries(Attack):
    """Sent over UDP to the DNS server, as fast as possible, by a pod or a host outside."""

    make: Callable[[], bytes]
    """Returns the next datagram."""
    outside: bool = False


@dataclass(frozen=True)
class Replies(Attack):
    """Sent over UDP by an upstream DNS server, while a pod asks for ever new names."""

    make: Callable[[bytes], list[bytes]]
    """Returns the datagrams for a query."""


@dataclass(frozen=True)
class Responses(Attack):
    """Sent by an API server in answer to each list or watch of EndpointSlices."""

    head: bytes
    part: bytes = b""
    pause: float = 0.0
    to: Literal["list", "watch"] = "list"


@dataclass(frozen=True)
class File(Attack):
    """Written into the folder of manifests. `says` must then be in the log."""

    content: bytes
    says: str = ""
    file: str = "attack.yaml"


ESCAPES = b"\x1b[31mEVIL\x1b]0;owned\x07"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"
PAGE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
METRICS_ONCE = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UPGRADE = {"httpHeaders": [{"name": "Upgrade", "value": "websocket"}]}
HTTPS = {"scheme": "HTTPS"}
HANDSHAKE, CHANGE_CIPHER = b"\x16\x03\x03\x40\x00" + b"\0" * 16384, b"\x14\x03\x03\x00\x01\x01"
"""TLS records."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
ALIASES = b"a: &a [x, x, x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c, *%c, *%c, *%c]\n" % (n + 1, n + 1, *[n] * 5) for n in range(ord("a"), ord("z"))
)


def moved(location: bytes) -> bytes:
    """A redirect."""
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"


ANSWERS = (
    Answers("switching-protocols", SWITCH, probe=UPGRADE),
    Answers("switching-protocols-and-more", SWITCH, b"\x00\xff" * 2048, probe=UPGRADE),
    Answers("switching-protocols-unasked", SWITCH),
    Answers("endless-continue", b"", CONTINUE * 500),
    Answers("endless-continue-of-500-pods", b"", CONTINUE * 500, pods=500),
    Answers("endless-early-hints", b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100),
    Answers("slow-continue", b"", CONTINUE, 0.05),
    Answers("endless-headers", OK, b"X: " + b"a" * 1000 + b"\r\n"),
    Answers("endless-short-headers", OK, b"a:\r\n" * 1000),
    Answers("endless-short-headers-of-200-pods", OK, b"a:\r\n" * 1000, pods=200),
    Answers("endless-header", OK + b"X: ", b"a" * 4096),
    Answers("folded-headers", OK + b"X: a\r\n", b" a\r\n" * 1000),
    Answers("slow-headers", OK, b"X: a\r\n", 0.02),
    Answers("endless-body", OK + b"\r\n", b"x" * 65536),
    Answers("endless-chunks", CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    Answers("tiny-chunks", CHUNKED, b"1\r\nx\r\n" * 1000),
    Answers("tiny-chunks-of-200-pods", CHUNKED, b"1\r\nx\r\n" * 1000, pods=200),
    Answers("long-chunk-extensions", CHUNKED, b"1;" + b"a" * 4096 + b"\r\nx\r\n"),
    Answers("slow-chunks", CHUNKED, b"1;a\r\nx\r\n", 0.01),
    Answers("huge-chunk-size", CHUNKED + b"f" * 15 + b"\r\n", b"x" * 65536),
    Answers("endless-chunk-size", CHUNKED, b"0" * 4096),
    Answers("endless-trailers", CHUNKED + b"0\r\n", b"a: b\r\n" * 1000),
    Answers("huge-content-length", OK + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n", b"x" * 65536),
    Answers("content-length-of-5000-digits", OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
    Answers("compressed-body", OK + b"Content-Encoding: gzip\r\n\r\n", b"\x1f\x8b" + b"\0" * 4094),
    Answers("endless-status-line", b"HTTP/1.1 200 ", b"O" * 4096),
    Answers("endless-zeros", b"", b"\0" * 65536),
    Answers("escapes-in-the-status", b"HTTP/1.1 500 " + ESCAPES + b"\r\nContent-Length: 0\r\n\r\n"),
    Answers("forged-log-lines", ESCAPES + b"FAKE\n2026-11-28T00:00:00Z INFO all is well\n" * 10, ends=True),
    Answers("redirects-in-a-circle", moved(b"/redirects-in-a-circle")),
    Answers("redirect-to-metadata", moved(b"http://169.254.169.254/latest/meta-data")),
    Answers("redirect-with-escapes", moved(b"http://other/" + ESCAPES)),
    Answers("redirect-to-a-bad-address", moved(b"http://[::1")),
    Answers("redirect-to-a-file", moved(b"file:///etc/passwd")),
    Answers("redirect-to-a-long-location", moved(b"/" + b"a" * 60000)),
    Answers("silence", b""),
    Answers("end-at-once", b"", ends=True),
    Answers("tls-handshake-that-never-ends", b"", tls="instead", probe=HTTPS),
    Answers("tls-handshake-of-garbage", b"", HANDSHAKE, tls="instead", probe=HTTPS),
    Answers("tls-records-without-end", b"", CHANGE_CIPHER * 1000, tls="instead", probe=HTTPS),
    Answers("tls-endless-continue", b"", CONTINUE * 500, tls="after", probe=HTTPS),
    Answers("dns-that-does-not-answer", b"", probe={"host": "{pod}.example"}),
)  # fmt: skip

WEB = b"\3web\7default\3svc\7cluster\5local\0"
A, SIG, ANY, AXFR = 1, 24, 255, 252


def query(name: bytes = WEB, kind: int = A, head: bytes = b"\0\1\1\0\0\1\0\0\0\0\0\0") -> bytes:
    """A DNS query: ID, flags and counts, then the question."""
    return head + name + kind.to_bytes(2, "big") + b"\0\1"


def sized(message: bytes) -> bytes:
    """A message over TCP."""
    return len(message).to_bytes(2, "big") + message


def other(domain: bytes = b"\7example\0") -> bytes:
    """A query for a name that was not asked for before."""
    return query(b"\x10" + os.urandom(8).hex().encode() + domain)


SIZED = sized(query())
REQUESTS = (
    Requests("idle-clients", "healthz"),
    Requests("idle-clients-of-services", "services", clients=1800),
    Requests("idle-clients-of-services-again-and-again", "services", b"GET", clients=1800, again=True),
    Requests("slow-requests", "healthz", START, b"X: a\r\n", 0.1),
    Requests("endless-request-head", "healthz", START, b"X: " + b"a" * 1000 + b"\r\n", again=True),
    Requests("endless-request-line", "healthz", b"GET /", b"a" * 4096, again=True),
    Requests("pipelined-requests", "healthz", part=GET * 200),
    Requests("requests-without-reading", "healthz", part=GET * 200, reads=False),
    Requests("garbage-requests", "healthz", part=b"\x16\x03\x01" * 1000, again=True),
    Requests("endless-request-body", "healthz", POST, b"x" * 4096),
    Requests("connections-again-and-again", "healthz", b"", b"\r\n", again=True),
    Requests("metrics-without-reading", "metrics", part=METRICS * 50, reads=False),
    Requests("metrics-from-many", "metrics", METRICS_ONCE, clients=50, again=True),
    Requests("status-page-without-reading", "healthz", part=PAGE * 50, reads=False),
    Requests("status-page-from-many", "healthz", PAGE, clients=100, again=True),
    Requests("idle-clients-of-the-socket", "control"),
    Requests("lines-to-the-socket", "control", part=b"all\n" + b"next\n" * 1000, clients=20),
    Requests("endless-line-to-the-socket", "control", part=b"n" * 65536, clients=20),
    Requests("idle-clients-of-dns", "dns", clients=1000),
    Requests("idle-clients-of-dns-again-and-again", "dns", b"\0", clients=1000, again=True),
    Requests("slow-queries", "dns", b"\0\xff", b"x", 0.1, clients=1000),
    Requests("queries-without-reading", "dns", part=SIZED * 100, reads=False),
    Requests("pipelined-queries", "dns", part=SIZED * 100, clients=50),
    Requests("long-queries", "dns", b"\xff\xff" + b"x" * 65535, again=True),
    Requests("zone-transfers", "dns", part=sized(query(WEB, AXFR)) * 100, clients=50),
)  # fmt: skip

OPT = b"\0\0\x29\x04\xd0\0\0\0\0"
"""The record of EDNS, without the length of its options."""
EDNS = b"\0\1\1\0\0\1\0\0\0\0\0\1"
"""The head of a query with one additional record."""
QUERIES = (
    Queries("plain-queries", query),
    Queries("empty-datagrams", bytes),
    Queries("headers-only", lambda: query()[:12]),
    Queries("datagrams-of-64-kb", lambda: query() + b"\xff" * 65000),
    Queries("random-bytes", lambda: os.urandom(200)),
    Queries("name-that-is-a-pointer-to-itself", lambda: query(b"\xc0\x0c")),
    Queries("name-that-ends-in-a-pointer", lambda: query(b"\3web\xc0\x0c")),
    Queries("label-that-is-too-long", lambda: query(b"\x7f" + b"a" * 127 + b"\0")),
    Queries("name-of-127-labels", lambda: query(b"\1a" * 127 + b"\0")),
    Queries("65535-questions", lambda: query(head=b"\0\1\1\0\xff\xff\0\0\0\0\0\0")),
    Queries("65535-records-in-each-section", lambda: query(head=b"\0\1\1\0\0\1" + b"\xff" * 6)),
    Queries("no-question", lambda: query(head=b"\0\1\1\0" + b"\0" * 8)),
    Queries("edns-that-lies", lambda: query(head=EDNS) + OPT + b"\xff\xff"),
    Queries("edns-of-64-kb", lambda: query(head=EDNS) + OPT + b"\xf0\0" + b"\0" * 61440),
    Queries("replies-instead-of-queries", lambda: query(head=b"\0\1\x81\x80\0\1" + b"\0" * 6)),
    Queries("updates", lambda: query(head=b"\0\1\x28\0\0\1" + b"\0" * 6)),
    Queries("all-types", lambda: query(kind=ANY)),
    Queries("names-that-do-not-exist", lambda: other(WEB)),
    Queries("other-names-of-a-pod", other),
    Queries("other-names-from-outside", other, outside=True),
    Queries("garbage-from-outside", lambda: os.urandom(50), outside=True),
)  # fmt: skip
IN_TURN = cycle(QUERIES)
ALL_QUERIES = Queries("all-queries-in-turn", lambda: next(IN_TURN).make())


def reply(query: bytes, answers: bytes = b"", count: int = 0, flags: bytes = b"\x81\x80") -> bytes:
    """A reply with the ID and the question of a query, and these records."""
    end = query.index(b"\0", 12) + 5
    return query[:2] + flags + b"\0\1" + count.to_bytes(2, "big") + b"\0" * 4 + query[12:end] + answers


RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\1"
FOREVER = b"\xc0\x0c\0\5\0\1\0\0\0\5\0\2\xc0\x1e"
"""A CNAME to a name that is a pointer to itself."""
SIGNATURE = b"\xc0\x0c\0" + bytes((SIG,)) + b"\0\1\0\0\0\5\x10\0" + b"\xff" * 4096
"""A long record that dnspython does not parse further."""
REPLIES = (
    Replies("upstream-silence", lambda query: []),
    Replies("upstream-empty-datagrams", lambda query: [b""] * 50),
    Replies("upstream-guesses-of-the-id", lambda query: [os.urandom(2) + reply(query, RECORD, 1)[2:]] * 50),
    Replies("upstream-other-questions", lambda query: [query[:2] + reply(other(), RECORD, 1)[2:]] * 50),
    Replies("upstream-random-bytes", lambda query: [query[:2] + os.urandom(500) for _ in range(20)]),
    Replies("upstream-64-kb", lambda query: [reply(query, RECORD * 4000, 4000)]),
    Replies("upstream-65535-records", lambda query: [reply(query, RECORD, 65535)]),
    Replies("upstream-pointer-to-itself", lambda query: [reply(query, b"\xc0\x1e" + RECORD[2:], 1)]),
    Replies("upstream-many-pointers", lambda query: [reply(query, FOREVER * 3000, 3000)]),
    Replies("upstream-long-signatures", lambda query: [reply(query, SIGNATURE * 15, 15)]),
    Replies("upstream-truncated", lambda query: [reply(query, flags=b"\x83\x80")]),
    Replies("upstream-failures", lambda query: [reply(query, flags=b"\x81\x82")]),
)  # fmt: skip

API = OK + b"Content-Type: application/json\r\n"
LIST = API + b'\r\n{"metadata":{"resourceVersion":"1"},"items":['
GZIP = API + b"Content-Encoding: gzip\r\n\r\n"
EVENTS = API + b"\r\n"
ZIP = zlib.compressobj(9, wbits=31)
BOMB_BEGIN = ZIP.compress(b'{"items":[') + ZIP.flush(zlib.Z_FULL_FLUSH)
BOMB = ZIP.compress(b" " * (4 << 20)) + ZIP.flush(zlib.Z_FULL_FLUSH)
NOTHING = b"\0\0\0\xff\xff"
"""A block of gzip without content."""
BOOKMARK = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n'
PAGE = b'{"metadata":{"resourceVersion":"1","continue":"x"},"items":[{"metadata":{"name":"a"}}]}'


def parts(number: int) -> bytes:
    """An EndpointSlice with so many empty endpoints."""
    metadata = b'{"name":"a","labels":{"kubernetes.io/service-name":"a"}}'
    head = b'{"metadata":' + metadata + b',"addressType":"IPv4","endpoints":['
    return head + b",".join([b"{}"] * number) + b"]}"


def response(status: bytes, body: bytes, *headers: bytes) -> bytes:
    """A complete response."""
    lines = (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


RESPONSES = (
    Responses("list-gzip-bomb", GZIP + BOMB_BEGIN, BOMB),
    Responses("list-gzip-without-content", GZIP + BOMB_BEGIN, NOTHING * 10000),
    Responses("list-gzip-garbage", GZIP, b"\x1f\x8b\x08garbage"),
    Responses("list-gzip-twice", GZIP + gzip.compress(b"{}"), gzip.compress(b"{}")),
    Responses("list-unknown-encoding", API + b"Content-Encoding: br\r\n\r\n", b"\0" * 65536),
    Responses("list-endless-body", LIST, b" " * 65536),
    Responses("list-endless-chunks", CHUNKED, b"1\r\n \r\n" * 10000),
    Responses("list-endless-items", LIST, b"{}," * 20000),
    Responses("list-endless-numbers", LIST, b"0," * 32768),
    Responses("list-endless-object", LIST + b'{"metadata":{"name":"', b"a" * 65536),
    Responses("list-endless-nesting", LIST, b"[" * 65536),
    Responses("list-of-many-invalid-items", LIST + b"{}," * 100_000 + b"{}]}"),
    Responses("list-of-a-long-item", LIST + b'{"metadata":{"name":"' + b"a" * (16 << 20) + b'"}}]}'),
    Responses("list-of-many-invalid-parts", LIST + b",".join([parts(15_000)] * 50) + b"]}"),
    Responses("list-of-an-item-with-many-parts", LIST + parts(1_390_000) + b"]}"),
    Responses("list-of-endless-pages", response(b"200 OK", PAGE)),
    Responses("list-slowly", LIST, b" ", 0.05),
    Responses("list-endless-continue", b"", CONTINUE * 500),
    Responses("list-endless-headers", OK, b"X: " + b"a" * 1000 + b"\r\n"),
    Responses("list-error-without-end", b"HTTP/1.1 500 No\r\n\r\n" + b'{"message":"', b"a" * 65536),
    Responses("list-forbidden-with-escapes", response(b"403 No", b'{"message":"\\u001b[31mEVIL\\nFAKE"}')),
    Responses("list-redirect", response(b"302 Found", b"", b"Location: http://169.254.169.254/")),
    Responses("list-switching-protocols", SWITCH, b"\0" * 65536),
    Responses("watch-endless-line", EVENTS + b'{"type":"ADDED","object":{"a":"', b"a" * 65536, 0, "watch"),
    Responses("watch-slow-line", EVENTS, b" ", 0.05, "watch"),
    Responses("watch-endless-bookmarks", EVENTS, BOOKMARK * 1000, 0, "watch"),
    Responses("watch-empty-lines", EVENTS, b"\n" * 65536, 0, "watch"),
    Responses("watch-garbage", EVENTS, b"\xff\0\n" * 1000, 0, "watch"),
    Responses("watch-invalid-objects", EVENTS, b'{"type":"ADDED","object":{}}\n' * 1000, 0, "watch"),
    Responses("watch-many-parts", EVENTS, b'{"type":"ADDED","object":' + parts(15_000) + b"}\n", 0, "watch"),
    Responses("watch-errors", EVENTS, b'{"type":"ERROR","object":{"code":500}}\n' * 1000, 0, "watch"),
    Responses("watch-endless-continue", b"", CONTINUE * 500, 0, "watch"),
)  # fmt: skip

MERGES = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [*%c, *%c, *%c, *%c, *%c]}\n" % (n + 1, n + 1, *[n] * 5) for n in range(ord("a"), ord("z"))
)


def evil(spec: str, name: str = "evil") -> bytes:
    """A Service, with parts that are added to its spec."""
    head = f'{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}}, '
    return (head + f'"spec": {{"ports": [{{"port": 80}}]{spec}}}}}').encode(errors="surrogateescape")


EVIL = "Service default/evil"
LIST_OF = b'{"apiVersion": "v1", "kind": "List", "items": ['
DIGITS = "9" * 5000
FILES = (
    File("alias-bomb", ALIASES, "attack.yaml"),
    File("merge-bomb", MERGES, "attack.yaml"),
    File("alias-in-itself", b"a: &a [*a]", "attack.yaml"),
    File("anchors-on-many-levels", b"[&a " * 3000 + b"x" * 1_000_000 + b"]" * 3000, "attack.yaml"),
    File("deep-yaml", b"[" * 100_000, "attack.yaml"),
    File("deep-second-text", b'{"a": 1}\n{"a": ' + b"[" * 100_000, "attack.json", "attack.json"),
    File("number-of-5000-digits-in-yaml", b"a: " + DIGITS.encode(), "attack.yaml"),
    File("number-of-5000-digits-in-a-field", evil(f', "healthCheckNodePort": {DIGITS}'), EVIL),
    File("number-too-large", evil(', "healthCheckNodePort": 1e400'), EVIL),
    File("not-utf-8", evil(', "externalName": "\udcff"'), "attack.yaml"),
    File("not-utf-8-in-json", evil(', "externalName": "\udcff"'), "attack.json", "attack.json"),
    File("half-a-pair-of-surrogates", evil(', "externalName": "\\ud800"'), "attack.yaml"),
    File("blank-lines", b"\n" * 5000 + b"a: 1", "attack.yaml"),
    File("address-of-zeros", evil(f', "externalIPs": ["{"0" * 2_000_000}x."]'), EVIL),
    File("long-name-of-a-field", evil(f', "{"y" * 2_000_000}": 1'), EVIL),
    File("many-unknown-fields", evil("".join(f', "z{n}": 1' for n in range(50_000))), EVIL),
    File("long-kind", b'{"apiVersion": "v1", "kind": "%s"}' % (b"Servicf" * 300_000)),
    File("invalid-name", evil("", "Evil"), "Service default/Evil"),
    File("escapes-in-a-value", evil(', "type": "\\u001b[31m\\nFAKE"'), "\\x1b[31m\\nFAKE"),
    File("many-invalid-documents", b"a: 1\n---\n" * 10_000, "kind: is missing"),
    File("many-objects", LIST_OF + b"1," * 200_000 + b"1]}", "more than"),
    File("many-texts", b"{}\n" * 10_000, "kind: is missing", "attack.json"),
    File("number-of-5000-digits", b'{"a": 1}\n{"kind": ' + b"9" * 5000 + b"}", "attack.json", "attack.json"),
)  # fmt: skip

REPLIES_IN_TURN = cycle(REPLIES)
ALL_REPLIES = Replies("all-replies-in-turn", lambda query: next(REPLIES_IN_TURN).make(query))

OF_FOLDER: tuple[Attack, ...] = (*ANSWERS, *REQUESTS, *QUERIES, *REPLIES, *FILES)
