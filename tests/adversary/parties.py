"""The other parties, in a process of their own, so that their work is not that of the test.

    python -m tests.adversary.parties serve ADDRESS FOLDER   answers probes as `attacks.ANSWERS` says
    python -m tests.adversary.parties attack NAME ADDRESSES  sends requests as `attacks.REQUESTS` says

A server touches FOLDER/NAME when it has answered for the first time. A client prints a line when it has
connected as often as it shall. Both run until they are killed.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import cycle
from pathlib import Path

from tests.adversary.attacks import ANSWERS, REQUESTS, Answers, Requests

PORT, TLS_PORT, RAW_PORT = 9999, 9998, 9997
"""The server's ports: plain, in TLS, and without a handshake for clients that expect one."""
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
    path = request.split()[1].decode("latin-1").strip("/")
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
    (folder / "serving").touch()
    await asyncio.Event().wait()


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


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    verb, first, second = sys.argv[1:]
    asyncio.run(serve(first, Path(second)) if verb == "serve" else attack(first, second))
