"""Reads and writes single objects of an API server."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from kproxy.decode.text import from_json
from kproxy.intake.requests import Request
from kproxy.limits import API_IDLE_SECONDS
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.formats import Json
from kproxy.sources.cluster.failures import StatusError


class Client:
    """Requests with the credentials of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, path: str) -> dict[str, Any] | None:
        """Return an object; None if there is none. Raises StatusError, and what `Connection.get` raises."""
        try:
            return await self.send("GET", path)
        except StatusError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def send(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        """Send an object, and return the server's. Raises as `get` does."""
        async with self._connection.send(Request(method, path, content), API_IDLE_SECONDS) as response:
            if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
                raise StatusError(Json().read_status(await response.begin()), response.status)
            return from_json(await response.read(), dict[str, Any])
