"""The other parties, in a process of their own, so that their work is not that of the test.

    python -m tests.adversary.parties serve ADDRESS FOLDER   answers probes as `attacks.ANSWERS` says
    python -m tests.adversary.parties attack NAME ADDRESSES  sends requests as `attacks.REQUESTS` says
    python -m tests.adversary.parties query NAME ADDRESS     sends DNS queries as `attacks.QUERIES` says

A server touches FOLDER/NAME when it has answered for the first time. It is also an upstream DNS server, with
the row that FOLDER/upstream names. A client prints a line when it has connected as often as it shall, or has
sent some queries. All run until they are killed.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any

from tests.adversary.attacks import (
    ALL_QUERIES,
    ALL_REPLIES,
    ANSWERS,
    QUERIES,
    REPLIES,
    REQUESTS,
    Answers,
    Requests,
)

PORT, TLS_PORT, RAW_PORT = 9999, 9998, 9997
"""The server's ports: plain, in TLS, and without a handshake for clients that expect one."""
UPSTREAM_PORT = 9953
CERTIFICATE = Path(__file__).parents[1] / "unit" / "certificate.pem"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def send(writer: asyncio.StreamWriter, head: bytes, part: bytes, pause: float) -> None:
    """Send a head, and then a part again and again."""
    writer.write(head)
    await writer.drain()
    while part:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)


# --- servers in a pod ---


def answerer(folder: Path, find: Callable[[bytes], Answers]) -> Callable[..., Awaitable[None]]:
    """Return a handler of connections. `find` returns the row for what was received first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            row = find(await reader.read(65536))
            (folder / row.name).touch()
            await send(writer, row.head, row.part, row.pause)
            if not row.ends:
                await reader.read()
        writer.transport.abort()

    return answer


def by_path(request: bytes) -> Answers:
    """Return the row that a request names."""
    path = request.partition(b" ")[2].partition(b" ")[0].decode("latin-1").strip("/")
    return next((row for row in ANSWERS if row.name == path), ANSWERS[-1])


async def serve(address: str, folder: Path) -> None:
    """Answer probes for ever. The row of a connection without a handshake is the one that was set last."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)

    def by_file(_: bytes) -> Answers:
        name = (folder / "raw").read_text()
        return next(row for row in ANSWERS if row.name == name)

    for port, find, context in ((PORT, by_path, None), (TLS_PORT, by_path, tls), (RAW_PORT, by_file, None)):
        await asyncio.start_server(answerer(folder, find), address, port, ssl=context, backlog=1024)
    await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Upstream(folder), (address, UPSTREAM_PORT)
    )
    await asyncio.start_server(endless_reply, address, UPSTREAM_PORT)
    (folder / "serving").touch()
    await asyncio.Event().wait()


class Upstream(asyncio.DatagramProtocol):
    """An upstream DNS server over UDP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        name = (self._folder / "upstream").read_text()
        row = next(row for row in (*REPLIES, ALL_REPLIES) if row.name == name)
        for reply in row.make(data):
            self._transport.sendto(reply, addr)
        (self._folder / row.name).touch()


async def endless_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send an upstream DNS server's replies over TCP that are none, as long as they are read."""
    with suppress(OSError):
        await send(writer, b"", b"\xff\xff" + b"x" * 65535, 0)


# --- clients ---


async def connect(address: str) -> Streams:
    """Connect to HOST:PORT or to the path of a socket."""
    host, _, port = address.rpartition(":")
    if not host:
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(host, int(port))


async def client(row: Requests, address: str, connected: Callable[[], None]) -> None:
    """Be one client."""
    while True:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await connect(address)
            connected()
            receiving = asyncio.create_task(reader.read() if row.reads else asyncio.Event().wait())
            with suppress(OSError):
                await send(writer, row.head, row.part, row.pause)
                await receiving
            receiving.cancel()
            writer.transport.abort()
        if not row.again:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def attack(name: str, addresses: str) -> None:
    """Be all clients of a row, which are distributed over the addresses."""
    row = next(row for row in REQUESTS if row.name == name)
    waiting, enough = row.clients, asyncio.Event()

    def connected() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting <= row.clients // 4:
            enough.set()

    places = cycle(addresses.split(","))
    tasks = [asyncio.create_task(client(row, next(places), connected)) for _ in range(row.clients)]
    with suppress(TimeoutError):  # kproxy may refuse most of them
        async with asyncio.timeout(3):
            await enough.wait()
    print("connected", flush=True)
    await asyncio.gather(*tasks)


def query(name: str, address: str) -> None:
    """Send queries to HOST:PORT for ever, from ever new ports, without reading the replies."""
    row = next(row for row in (*QUERIES, ALL_QUERIES) if row.name == name)
    host, _, port = address.rpartition(":")
    for turn in count():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((host, int(port)))
            for _ in range(100):
                with suppress(ConnectionError):
                    client.send(row.make())
        if turn == 0:
            print("sent", flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    verb, first, second = sys.argv[1:]
    match verb:
        case "serve":
            asyncio.run(serve(first, Path(second)))
        case "attack":
            asyncio.run(attack(first, second))
        case "query":
            query(first, second)
