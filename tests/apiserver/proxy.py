"""An HTTP proxy between client and server, for a kubeconfig's proxy-url. It supports only CONNECT."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """A proxy on 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        """The destinations of the clients: `host:port`."""
        self.credentials: list[str] = []
        """The Proxy-Authorization header of each request, "" without one."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for open_ in (self._listener, *self._open):
            with suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
            open_.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(4096)):
                    return
                head += data
            first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            if method != "CONNECT":
                client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                return
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.connected.append(target)
            self.credentials.append(headers.get("proxy-authorization", ""))
            host, _, port = target.rpartition(":")
            server = socket.create_connection((host.strip("[]"), int(port)))
            self._open.append(server)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()
            _copy(client, server)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy until one side ends. Then end both."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
