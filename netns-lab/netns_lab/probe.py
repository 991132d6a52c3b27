"""Clients for tests: HTTP, UDP, ping, and many connections.

A probe runs in the namespace of its handle. It does not raise exceptions for
network errors; the ``outcome`` of the reply reports them.
"""

import errno
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import getrandbits

from netns_lab import netns
from netns_lab.lab import Handle

PATIENCE = 60.0
"""Seconds until a server that accepted a connection must answer."""


class Outcome(StrEnum):
    ANSWERED = "answered"
    REFUSED = "refused"
    """A reset instead of a handshake, or ICMP port unreachable."""
    RESET = "reset"
    """The connection broke, or ended early, after the handshake."""
    TIMEOUT = "timeout"
    """No answer, also if the host's own output hook dropped the packet."""
    UNREACHABLE = "unreachable"
    """No route, or another ICMP unreachable."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a pod: its name, the client's address as it sees it, and its port. Empty without one.

    ``location`` is the Location header of a redirect.

    Servers outside the lab leave pod, client and port empty.
    """

    outcome: Outcome
    pod: str = ""
    client: str = ""
    client_port: int = 0
    port: int = 0
    status: int = 0
    body: str = ""
    location: str = ""


def http_get(
    handle: Handle,
    address: str,
    port: int,
    timeout: float = 10,
    source_port: int | None = None,
    path: str = "/",
    patience: float = PATIENCE,
) -> Reply:
    """GET on a new connection. ``timeout`` applies to connecting, which only the kernels take part in.

    Once connected, the server answers or ends the connection, but may have to wait for a CPU. ``patience``
    applies to that.
    """
    return handle.inside(partial(_http, address, port, timeout, source_port, path, patience))


class Download:
    """A GET whose answer the caller reads in parts. So it lasts as long as the caller wants.

    The answer has ``size`` bytes, which must be more than all buffers on the path hold: then the server
    cannot finish before the caller reads. A context manager. Errors before the answer begins are raised.
    """

    BUFFER = 64 * 1024

    def __init__(
        self, handle: Handle, address: str, port: int, size: int = 16 << 20, timeout: float = PATIENCE
    ) -> None:
        self._path = f"/stream?bytes={size}"
        self._to = address, port
        self._socket = handle.inside(partial(_socket, address, socket.SOCK_STREAM, timeout, None))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.BUFFER)
        self._answer = bytearray()

    def __enter__(self) -> "Download":
        self._socket.connect(self._to)
        self._socket.sendall(_request(*self._to, self._path))
        self.read(self.BUFFER)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self, size: int) -> None:
        """Read ``size`` more bytes, or to the end. Raises ConnectionError if the connection breaks."""
        wanted = len(self._answer) + size
        while len(self._answer) < wanted and (piece := self._socket.recv(self.BUFFER)):
            self._answer += piece

    def rest(self) -> Reply:
        """Read to the end. Returns the complete reply; its outcome is RESET if the connection broke."""
        try:
            while piece := self._socket.recv(1 << 20):
                self._answer += piece
        except ConnectionError:
            return Reply(Outcome.RESET)
        return _read(bytes(self._answer))


def many(
    handle: Handle, address: str, port: int, n: int, concurrency: int = 16, timeout: float = 10
) -> Counter[str]:
    """GET ``n`` times, ``concurrency`` at a time. Counts the answers of each pod and the other outcomes."""
    with ThreadPoolExecutor(concurrency, initializer=partial(netns.enter, handle.netns)) as pool:
        replies = pool.map(lambda _: _http(address, port, timeout), range(n))
        return Counter(reply.pod or str(reply.outcome) for reply in replies)


def udp_ask(
    handle: Handle,
    address: str,
    port: int,
    payload: str = "",
    timeout: float = 10,
    source_port: int | None = None,
) -> Reply:
    """Send a datagram and wait for the echo, which is the reply's body. Only ``address`` may answer."""
    return handle.inside(partial(_udp, address, port, payload, timeout, source_port))


def echo(handle: Handle, address: str, timeout: float = 10) -> bool:
    """Whether ``address`` answers an ICMP echo request, which is sent again every half second."""
    return handle.inside(partial(_ping, address, timeout))


PING_AGAIN = 0.5  # seconds until a request without an answer is sent again
IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, in6.h; Python's socket has one of them, in newer versions


def _socket(address: str, kind: int, timeout: float, source_port: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.settimeout(timeout)
    # Without this option, UDP reports no ICMP error except port unreachable, and TCP ignores an error that
    # arrives while the SYN is being sent: it is reported after the retransmission, a second later (6.18).
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    if source_port is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", source_port))
    return sock


def _http(
    address: str,
    port: int,
    timeout: float,
    source_port: int | None = None,
    path: str = "/",
    patience: float = PATIENCE,
) -> Reply:
    request = _request(address, port, path)
    with _socket(address, socket.SOCK_STREAM, timeout, source_port) as sock:
        try:
            sock.connect((address, port))
        except OSError as error:
            return Reply(_outcome(error))
        sock.settimeout(patience)
        try:
            sock.sendall(request)
            answer = b"".join(iter(partial(sock.recv, 65536), b""))
        except ConnectionError:
            return Reply(Outcome.RESET)
        except OSError as error:
            return Reply(_outcome(error))
    return _read(answer)


def _request(address: str, port: int, path: str) -> bytes:
    host = f"[{address}]" if ":" in address else address
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()


def _read(answer: bytes) -> Reply:
    head, blank, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    if not blank or len(body) != int(headers.get("content-length", len(body))):
        return Reply(Outcome.RESET)
    client, client_port = _endpoint(headers.get("x-client", ":0"))
    return Reply(
        Outcome.ANSWERED,
        pod=headers.get("x-pod", ""),
        client=client,
        client_port=client_port,
        port=int(headers.get("x-port", 0)),
        status=int(status.split()[1]),
        body=body.decode(),
        location=headers.get("location", ""),
    )


def _udp(address: str, port: int, payload: str, timeout: float, source_port: int | None) -> Reply:
    with _socket(address, socket.SOCK_DGRAM, timeout, source_port) as sock:
        try:
            sock.connect((address, port))
            # If the host's own output hook drops the packet, wait for an ICMP error of a reject rule.
            with suppress(PermissionError):
                sock.send(payload.encode())
            answer = json.loads(sock.recv(65536))
        except OSError as error:
            return Reply(_outcome(error))
    client, client_port = _endpoint(answer["client"])
    return Reply(Outcome.ANSWERED, answer["pod"], client, client_port, answer["port"], body=answer["echo"])


def _outcome(error: OSError) -> Outcome:
    """Return the outcome that an error stands for, or raise the error if it is not a network error."""
    if isinstance(error, TimeoutError) or error.errno == errno.EPERM:
        return Outcome.TIMEOUT
    if error.errno == errno.ECONNREFUSED:
        return Outcome.REFUSED
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES):
        return Outcome.UNREACHABLE
    raise error


def _endpoint(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def _ping(address: str, timeout: float) -> bool:
    identifier = getrandbits(16)
    family, protocol, request, answers = (_ping_v6 if ":" in address else _ping_v4)(identifier)
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        end = time.monotonic() + timeout
        while (now := time.monotonic()) < end:
            with suppress(PermissionError):  # dropped in the host's own output hook
                sock.sendto(request, (address, 0))
            try:
                _wait_for_echo(sock, address, answers, min(end, now + PING_AGAIN))
                return True
            except TimeoutError:
                continue
            except OSError:
                return False
    return False


def _wait_for_echo(sock: socket.socket, address: str, answers: Callable[[bytes], bool], end: float) -> None:
    """Wait for an answer from the address. TimeoutError if none has come at the time ``end``."""
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        packet, source = sock.recvfrom(65536)
        if source[0] == address and answers(packet):
            return
    raise TimeoutError


Ping = tuple[socket.AddressFamily, int, bytes, Callable[[bytes], bool]]


def _ping_v4(identifier: int) -> Ping:
    quiet_scapy()
    from scapy.layers.inet import ICMP, IP

    def answers(packet: bytes) -> bool:
        parsed = IP(packet)
        return ICMP in parsed and parsed[ICMP].type == 0 and parsed[ICMP].id == identifier

    return socket.AF_INET, socket.IPPROTO_ICMP, bytes(ICMP(id=identifier) / b"netns-lab"), answers


def _ping_v6(identifier: int) -> Ping:
    quiet_scapy()
    from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest

    def answers(packet: bytes) -> bool:
        return packet[0] == 129 and ICMPv6EchoReply(packet).id == identifier

    request = ICMPv6EchoRequest(id=identifier, data=b"netns-lab", cksum=0)  # the kernel adds the checksum
    return socket.AF_INET6, socket.IPPROTO_ICMPV6, bytes(request), answers


def quiet_scapy() -> None:
    """Stop scapy from reading routes and logging about them: here it only makes packets."""
    from scapy.config import conf

    logging.getLogger("scapy").setLevel(logging.CRITICAL)
    conf.route_autoload = conf.route6_autoload = False
