"""A double of a container engine: docker's API on a Unix socket, with containers that tests change."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.loop_thread import LoopThread


class Engine:
    """Listens from `start` to `stop`, which can be repeated. Its methods are called from any thread."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kp-"))  # the path of a socket must be short
        self.socket = self.folder / "engine.sock"
        self.containers: dict[str, dict[str, Any]] = {}
        self.body: bytes | None = None
        """What to answer instead of a list."""
        self._streams: list[web.StreamResponse] = []
        self._thread = LoopThread("engine")
        self._thread.start()
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.end()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Listen."""
        self._thread.call(self._start())

    def stop(self) -> None:
        """End all connections, and remove the socket."""
        self._thread.call(self._stop())

    def put(
        self, name: str, address: str, status: str = "running", health: str = "none", **labels: str
    ) -> None:
        """Create or change a container, without an event."""
        self.containers[f"id-{name}"] = {
            "Id": f"id-{name}",
            "Name": f"/{name}",
            "Created": "2026-01-01T00:00:00Z",
            "State": {"Status": status, "Health": {"Status": health}},
            "Config": {"Labels": labels, "ExposedPorts": {"8080/tcp": {}}},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address}}},
            "HostConfig": {"NetworkMode": "bridge"},
        }

    def tell(self, action: str, name: str, **attributes: str) -> None:
        """Send the event of a container."""
        actor = {"ID": f"id-{name}", "Attributes": attributes}
        self.send(json.dumps({"Type": "container", "Action": action, "Actor": actor}).encode() + b"\n")

    def send(self, line: bytes) -> None:
        """Send bytes to all who follow the events."""
        self._thread.call(self._send(line))

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1.41/containers/json", self._list)
        app.router.add_get("/v1.41/containers/{id}/json", self._inspect)
        app.router.add_get("/v1.41/events", self._events)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def _stop(self) -> None:
        if self._runner:
            for stream in self._streams:
                if stream._payload_writer and stream._payload_writer.transport:
                    stream._payload_writer.transport.abort()
            await self._runner.cleanup()
            self._runner = None
        self._streams.clear()
        self.socket.unlink(missing_ok=True)

    async def _list(self, _: web.Request) -> web.Response:
        text = json.dumps([{"Id": identity} for identity in self.containers]).encode()
        return web.Response(body=text if self.body is None else self.body)

    async def _inspect(self, request: web.Request) -> web.Response:
        found = self.containers.get(request.match_info["id"])
        return web.json_response(found) if found else web.Response(status=404)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        self._streams.append(stream)
        await asyncio.sleep(3600)
        return stream

    async def _send(self, line: bytes) -> None:
        for stream in self._streams:
            try:
                await stream.write(line)
            except ConnectionError:
                continue
