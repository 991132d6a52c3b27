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
        self.failing = 0
        """The number of inspections to answer with status 500."""
        self.outcomes: dict[str, tuple[int, bytes]] = {}
        """Of commands in containers, by their first word: the exit status and the output."""
        self._lists = 0
        self._commands: list[str] = []
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
        app.router.add_post("/v1.41/containers/{id}/exec", self._create_command)
        app.router.add_post("/v1.41/exec/{id}/start", self._start_command)
        app.router.add_get("/v1.41/exec/{id}/json", self._inspect_command)
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

    async def asked(self) -> None:
        """Wait until two more lists have been asked for."""
        wanted = self._lists + 2
        while self._lists < wanted:
            await asyncio.sleep(0.01)

    async def _list(self, _: web.Request) -> web.Response:
        self._lists += 1
        text = json.dumps([{"Id": identity} for identity in self.containers]).encode()
        return web.Response(body=text if self.body is None else self.body)

    async def _inspect(self, request: web.Request) -> web.Response:
        found = self.containers.get(request.match_info["id"])
        if self.failing:
            self.failing -= 1
            return web.Response(status=500)
        return web.json_response(found) if found else web.Response(status=404)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        self._streams.append(stream)
        await asyncio.sleep(3600)
        return stream

    async def _create_command(self, request: web.Request) -> web.Response:
        if self.containers[request.match_info["id"]]["State"]["Status"] == "paused":
            return web.json_response({"message": "container is paused"}, status=409)
        self._commands.append((await request.json())["Cmd"][0])
        return web.json_response({"Id": str(len(self._commands) - 1)}, status=201)

    async def _start_command(self, request: web.Request) -> web.StreamResponse:
        """Answer with two frames, and end the connection, as docker does."""
        _, output = self.outcomes[self._commands[int(request.match_info["id"])]]
        stream = web.StreamResponse(headers={"Connection": "close"})
        await stream.prepare(request)
        for number, part in ((1, output[:3]), (2, output[3:])):
            await stream.write(bytes((number, 0, 0, 0)) + len(part).to_bytes(4, "big") + part)
        return stream

    async def _inspect_command(self, request: web.Request) -> web.Response:
        status, _ = self.outcomes[self._commands[int(request.match_info["id"])]]
        return web.json_response({"Running": False, "ExitCode": status, "Pid": 0})

    async def _send(self, line: bytes) -> None:
        for stream in self._streams:
            try:
                await stream.write(line)
            except ConnectionError:
                continue
