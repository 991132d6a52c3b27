"""HTTP servers on loopback that stand for pods. Each reply says which one got which request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import h11

from tests.loop_thread import LoopThread

STATUS = "x-want-status"
"""A request with this header gets this status."""


class Echo:
    """Servers at several addresses with one port. `port` is known after `start`."""

    def __init__(self, names: dict[str, str]) -> None:
        """`names`: the name of the server at each address."""
        self._names = names
        self._thread = LoopThread("echo")
        self.port = 0

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
        request, size = None, 0
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                size += len(event.data)
            else:
                return False
        assert request is not None
        writer.write(reply(name, request, size, connection))
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def reply(name: str, request: h11.Request, size: int, connection: h11.Connection) -> bytes:
    """Return the bytes of a reply that describes the request."""
    headers = [(key.decode(), value.decode("latin-1")) for key, value in request.headers]
    body = json.dumps(
        {"name": name, "target": request.target.decode(), "headers": headers, "size": size}
    ).encode()
    wanted = next((int(value) for key, value in headers if key == STATUS), 200)
    head = h11.Response(status_code=wanted, headers=[("Content-Length", str(len(body))), *_cookies(headers)])
    parts = (connection.send(head), connection.send(h11.Data(body)), connection.send(h11.EndOfMessage()))
    return b"".join(part or b"" for part in parts)


def _cookies(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers that a gateway may have to replace."""
    return [("X-Old", "server")] if any(key == "x-want-old" for key, _ in headers) else []
