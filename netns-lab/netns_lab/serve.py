"""The server process of a lab: it runs the HTTP and UDP servers of all pods, and removes the lab.

HTTP answers ``You've hit <pod> <text>``, with the headers X-Pod, X-Client (the
peer that it sees) and X-Port. ``/stream?bytes=N&rate=BYTES-PER-SECOND`` answers
slowly. A port with ``to_https`` answers 301 to the same address with https. One with
``fails_after`` answers 500 after that number of requests. UDP answers with a line
of JSON that contains the same, and echoes the request.

The listening sockets are made inside the pods' namespaces; the process itself
stays outside. Its owner sends commands as lines of JSON on stdin, which is a socket.
Each is answered with a line: null, or an error.

    {"serve": {"pod": ..., "namespace": ..., "addresses": [...], "ports": [{...}]}}
    {"stop": "pod"}      does nothing if the pod has no servers
    {"detach": true}     continue without an owner
    {"attach": true}     does nothing

When stdin is closed, the owner has died: the server removes the lab. After
``detach``, it takes commands on a Unix socket (``registry.control``) instead, from
one connection at a time, so the others wait for their first answer.
"""

import asyncio
import json
import os
import resource
import socket
import sys
from collections import Counter
from collections.abc import Coroutine
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from netns_lab import http, netns, registry
from netns_lab.topology import Port

BACKLOG = 4096
BATCH = 256
CHUNK = 64 * 1024
STREAM_STEP = 0.05
LONGEST_COMMAND = 1024 * 1024
BODY = b"0123456789abcdefghijklmnopqrstuvwxyz\n" * (CHUNK // 37 + 1)

Listener = tuple[Port, socket.socket]


def listen(addresses: list[str], ports: list[Port]) -> list[Listener]:
    """Return a non-blocking socket in the calling thread's namespace for each address and port."""
    listeners = []
    for address in addresses:
        for port in ports:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
            listener = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            if port.protocol == "tcp":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port.number))
            if port.protocol == "tcp":
                listener.listen(BACKLOG)
            listeners.append((port, listener))
    return listeners


class PodServers:
    """The servers of one pod. They run from construction until ``stop``."""

    def __init__(self, pod: str, namespace: str, addresses: list[str], ports: list[Port]) -> None:
        self.pod = pod
        self.answered: Counter[int] = Counter()
        self.loop = asyncio.get_running_loop()
        self.conversations: set[asyncio.Task[None]] = set()
        self.listeners = netns.inside(namespace, partial(listen, addresses, ports))
        for port, listener in self.listeners:
            ready = self._accept if port.protocol == "tcp" else self._echo
            self.loop.add_reader(listener, ready, port, listener)

    def stop(self) -> None:
        """Close all sockets, including open connections, as when a process dies."""
        for _, listener in self.listeners:
            self.loop.remove_reader(listener)
            listener.close()
        for conversation in self.conversations:
            conversation.cancel()

    def _accept(self, port: Port, listener: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                connection, peer = listener.accept()
            except OSError:  # no more connections, or the peer has closed already
                return
            connection.setblocking(False)
            seen = {"X-Pod": self.pod, "X-Client": endpoint(peer), "X-Port": str(port.number)}
            self._begin(self._converse(connection, port, seen))

    def _begin(self, conversation: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(conversation)
        self.conversations.add(task)
        task.add_done_callback(self.conversations.discard)

    async def _converse(self, connection: socket.socket, port: Port, seen: dict[str, str]) -> None:
        buffer = bytearray()
        with connection, suppress(OSError):
            try:
                keep_alive = True
                while keep_alive:
                    while (request := http.next_request(buffer)) is None:
                        more = await self.loop.sock_recv(connection, CHUNK)
                        if not more:
                            return
                        buffer += more
                    keep_alive = request.keep_alive
                    if port.to_https:
                        head = http.head(301, 0, keep_alive, {"Location": request.https_url, **seen})
                        await self.loop.sock_sendall(connection, head)
                    elif request.path == "/stream":
                        await self._stream(connection, request, seen)
                    else:
                        status, text = self._answer(port)
                        body = text.encode() + b"\n"
                        head = http.head(status, len(body), keep_alive, seen)
                        await self.loop.sock_sendall(
                            connection, head if request.method == "HEAD" else head + body
                        )
            except http.BadRequest as bad:
                body = f"{bad}\n".encode()
                head = http.head(bad.status, len(body), False, seen)
                await self.loop.sock_sendall(connection, head + body)

    def _answer(self, port: Port) -> tuple[int, str]:
        """Return the status and the text of the next answer on this port."""
        self.answered[port.number] += 1
        if port.fails_after and self.answered[port.number] > port.fails_after:
            return 500, "I'm not well. Please restart me!"
        return 200, f"You've hit {self.pod} {port.text}".rstrip()

    async def _stream(self, connection: socket.socket, request: http.Request, seen: dict[str, str]) -> None:
        left = request.number("bytes", CHUNK)
        rate = request.number("rate", 0)
        await self.loop.sock_sendall(connection, http.head(200, left, request.keep_alive, seen))
        if request.method == "HEAD":
            return
        step = min(max(1, int(rate * STREAM_STEP)), CHUNK) if rate else CHUNK
        while left:
            size = min(step, left)
            await self.loop.sock_sendall(connection, BODY[:size])
            left -= size
            if rate:
                await asyncio.sleep(size / rate)

    def _echo(self, port: Port, listener: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                payload, peer = listener.recvfrom(CHUNK)
            except OSError:
                return
            answer = {
                "pod": self.pod,
                "client": endpoint(peer),
                "port": port.number,
                "echo": payload.decode(errors="replace"),
            }
            with suppress(OSError):  # a full buffer loses a datagram, as in a network
                listener.sendto(json.dumps(answer).encode() + b"\n", peer)


def endpoint(peer: tuple[Any, ...]) -> str:
    """Format ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


class Commands:
    """Executes the commands of the owner."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.pods: dict[str, PodServers] = {}
        self.control: socket.socket | None = None
        """The socket for commands, once the lab is detached."""

    def do(self, line: bytes) -> None:
        match json.loads(line):
            case {"serve": {"pod": pod, "namespace": namespace, "addresses": addresses, "ports": ports}}:
                self.pods[pod] = PodServers(pod, namespace, addresses, [Port(**port) for port in ports])
            case {"stop": pod}:
                if pod in self.pods:
                    self.pods.pop(pod).stop()
            case {"detach": True}:
                self.control = listen_for_commands(registry.control(self.lab))


def listen_for_commands(path: Path) -> socket.socket:
    """Return a listening Unix socket that only root can connect to."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(str(path))
    path.chmod(0o600)
    control.listen()
    return control


async def follow(commands: Commands, connection: socket.socket, until_detached: bool = False) -> None:
    """Execute and answer the commands of a connection until it ends, or detaches the lab."""
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LONGEST_COMMAND)
    with closing(writer):
        while line := await reader.readline():
            failure = None
            try:
                commands.do(line)
            except (OSError, LookupError, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
            writer.write(json.dumps(failure).encode() + b"\n")
            await writer.drain()
            if until_detached and commands.control:
                return


async def serve_alone(commands: Commands, control: socket.socket) -> None:
    """Close the owner's terminal, and execute commands until killed."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    control.setblocking(False)
    while True:
        connection, _ = await asyncio.get_running_loop().sock_accept(control)
        with suppress(OSError, ValueError):  # the other process died, or sends no lines
            await follow(commands, connection)


async def serve(lab: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    commands = Commands(lab)
    with suppress(ConnectionError):  # the owner died before it received an answer
        await follow(commands, socket.socket(fileno=os.dup(0)), until_detached=True)
    if commands.control:
        await serve_alone(commands, commands.control)
    registry.remove(lab)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
