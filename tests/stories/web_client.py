"""A client of the gateway, and clients that count every failed request."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType

from netns_lab.lab import Handle

from tests.ingresses import HOST

PATIENCE = 60.0


class Client:
    """Requests to the gateway, on a new connection each."""

    def __init__(self, handle: Handle, address: str) -> None:
        self.handle, self.address = handle, address

    def get(self, host: str = HOST, path: str = "/") -> tuple[int, str]:
        """Return the status and the body; status 0 without a response."""
        return self.handle.inside(partial(_get, self.address, host, path))

    def pods(self, count: int = 30, host: str = HOST) -> set[str]:
        """Return the pods that answer some requests, or `status N`."""

        def ask() -> set[str]:
            found = (_get(self.address, host, "/") for _ in range(count))
            return {
                text.removeprefix("You've hit ").strip() if s == 200 else f"status {s}" for s, text in found
            }

        return self.handle.inside(ask)

    def connect(self) -> socket.socket:
        """Return a connection, for `exchange`."""
        connection = self.handle.inside(lambda: socket.create_connection((self.address, 80), PATIENCE))
        connection.settimeout(PATIENCE)
        return connection

    def serial(self, name: str) -> int:
        """Return the serial number of the certificate for a server name; 0 if the handshake fails."""
        return self.handle.inside(partial(_serial, self.address, name))


def _get(address: str, host: str, path: str) -> tuple[int, str]:
    try:
        with socket.create_connection((address, 80), PATIENCE) as connection:
            connection.settimeout(PATIENCE)
            return exchange(connection, request(host, path, close=True))[:2]
    except OSError:
        return 0, ""


def request(host: str = HOST, path: str = "/", *, close: bool = False) -> bytes:
    """Return a GET request."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{'Connection: close' if close else 'X: y'}\r\n\r\n".encode()
    )


def exchange(connection: socket.socket, sent: bytes) -> tuple[int, str, bool]:
    """Return the status, the body, and whether the connection stays open. Raises OSError."""
    connection.sendall(sent)
    text = b""
    while b"\r\n\r\n" not in text:
        text += _some(connection)
    head, _, body = text.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").lower().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    while len(body) < int(headers["content-length"]):
        body += _some(connection)
    return int(line.split()[1]), body.decode(), headers.get("connection") != "close"


def _some(connection: socket.socket) -> bytes:
    if not (data := connection.recv(65536)):
        raise ConnectionResetError("the connection ended before the response")
    return data


def _serial(address: str, name: str) -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, 443), PATIENCE) as connection,
            context.wrap_socket(connection, server_hostname=name) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except OSError:
        return 0
    text = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-serial"],
        input=shown,
        capture_output=True,
        check=True,
    )
    return int(text.stdout.decode().strip().partition("=")[2], 16)


class Load:
    """Some clients that send requests without a pause, each over one connection while it stays open.

    A response other than 200 is a failure, and so is an error: also of a connection that ended although the
    response before did not say so. A context manager.
    """

    def __init__(self, client: Client, clients: int = 4, host: str = HOST) -> None:
        self.failures: Counter[str] = Counter()
        self.requests = 0
        self._client, self._count, self._host = client, clients, host
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._done: list[Future[None]] = []

    def __enter__(self) -> Load:
        for _ in range(self._count):
            self._done.append(self._pool.submit(self._client.handle.inside, self._run))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        if not error:
            for done in self._done:
                done.result()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection((self._client.address, 80), PATIENCE) as connection:
                    connection.settimeout(PATIENCE)
                    self._converse(connection)
            except OSError as error:
                self.failures[str(error)] += 1

    def _converse(self, connection: socket.socket) -> None:
        stays = True
        while stays and not self._stop.is_set():
            status, _, stays = exchange(connection, request(self._host, "/"))
            self.requests += 1
            if status != 200:
                self.failures[f"status {status}"] += 1
