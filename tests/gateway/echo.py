"""HTTP servers on loopback that stand for pods. Each reply says which one got which request."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from hashlib import sha1

import h11

from tests.loop_thread import LoopThread

STATUS, OLD, SILENCE, CLOSE = "x-want-status", "x-want-old", "x-want-silence", "x-want-close"
"""Headers of requests: reply with this status, reply with a header X-Old, do not reply, close."""


class Echo:
    """Servers at several addresses with one port. `port` is known after `start`."""

    def __init__(self, names: dict[str, str]) -> None:
        """`names`: the name of the server at each address."""
        self._names = names
        self._thread = LoopThread("echo")
        self.port = 0
        self.targets: list[str] = []
        """Method and target of each request."""

    def start(self) -> None:
        self._thread.start()
        self._thread.call(self._listen())

    def end(self) -> None:
        self._thread.end()

    async def _listen(self) -> None:
        for address in self._names:
            server = await asyncio.start_server(self._serve, address, self.port)
            self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = self._names[writer.get_extra_info("sockname")[0]]
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._reply(name, connection, reader, writer):
                connection.start_next_cycle()
        except (h11.ProtocolError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _reply(
        self,
        name: str,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request. False at the end of the connection."""
        request = await _request(connection, reader)
        if request is None:
            return False
        self.targets.append(f"{request.method.decode()} {request.target.decode()}")
        headers = {key.decode(): value.decode("latin-1") for key, value in request.headers}
        if SILENCE in headers:
            await reader.read()
        if SILENCE in headers or CLOSE in headers:
            return False
        if headers.get("upgrade") == "websocket":
            await _tunnel(headers["sec-websocket-key"], reader, writer)
            return False
        writer.write(reply(name, request, connection))
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read a request with its body; None at the end of the connection."""
    request = None
    while not isinstance(event := connection.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif event is h11.PAUSED:
            break
        elif isinstance(event, h11.Request):
            request = event
    return request


async def _tunnel(key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept an upgrade to WebSocket (RFC 6455), and send back what comes."""
    accept = b64encode(sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    writer.write("\r\n".join((*lines, f"Sec-WebSocket-Accept: {accept}", "", "")).encode())
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def reply(name: str, request: h11.Request, connection: h11.Connection) -> bytes:
    """Return the bytes of a reply that describes the request."""
    headers = [(key.decode(), value.decode("latin-1")) for key, value in request.headers]
    body = json.dumps({"name": name, "target": request.target.decode(), "headers": headers}).encode()
    wanted = next((int(value) for key, value in headers if key == STATUS), 200)
    own = [("X-Old", "server")] if any(key == OLD for key, _ in headers) else []
    head = h11.Response(status_code=wanted, headers=[("Content-Length", str(len(body))), *own])
    parts = (connection.send(head), connection.send(h11.Data(body)), connection.send(h11.EndOfMessage()))
    return b"".join(part or b"" for part in parts)
