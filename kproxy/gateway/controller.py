"""Writes the status of Gateways and their routes to the API server, for `kproxy run --gateway-controller`.

After each round, the statuses are computed from the objects in use. Only what changed is written, by the
holder of a lease. An object is read before it is written: so the times of conditions stay, and so does what
other controllers wrote. The server refuses a write if the object changed in between; then it is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeAlias

from kproxy.gateway.core.status import Statuses
from kproxy.gateway.core.written import merged_status
from kproxy.gateway.lease import RENEW_SECONDS, Lease
from kproxy.gateway.requests import Client
from kproxy.gatewayapi import GatewayObjects, Object
from kproxy.model import Frontend, NamespacedName
from kproxy.problems import InvalidResponseError, KproxyError
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.show.gateways import status_of
from kproxy.sources.cluster.core.resources import ApiResource
from kproxy.sources.cluster.failures import StatusError
from kproxy.sources.cluster.source import Cluster

logger = logging.getLogger(__name__)
Place: TypeAlias = tuple[str, NamespacedName]
"""The kind and the name of an object."""
Wanted: TypeAlias = Mapping[Place, tuple[int, dict[str, Any]]]
"""The generation and the status of objects."""
PAUSE = 1.0
"""Seconds before the statuses are computed again."""
EMPTY: Mapping[str, dict[str, Any]] = {"TCPRoute": {"parents": []}, "UDPRoute": {"parents": []}}
"""The status of a route without Gateways."""


def statuses_of(objects: GatewayObjects, statuses: Statuses) -> Wanted:
    """Return what is to be written. A route that refers to no Gateway of kproxy's loses kproxy's entries."""
    kinds: dict[str, Mapping[NamespacedName, Object]] = {
        "GatewayClass": objects.classes,
        "Gateway": objects.gateways,
        **objects.routes,
    }
    found = {
        (kind, name): (each.generation, status_of(each, statuses) or EMPTY.get(kind, {}))
        for kind, members in kinds.items()
        for name, each in members.items()
    }
    return {place: status for place, status in found.items() if status[1]}


def controller_of(
    source: Cluster, holder: str, frontends: Callable[[], Awaitable[Iterable[Frontend]]]
) -> Controller:
    """Return the controller of a cluster. `holder` is the name of this node."""
    client = Client(source.connection)

    async def find() -> Wanted:
        found, objects = await frontends(), source.gateways()
        return statuses_of(objects, Statuses(objects, source.service, found, http=False))

    return Controller(client, Lease(client, holder), find, source.resource)


class Controller(RoundObserver):
    """Writes statuses, in a task of its own."""

    def __init__(
        self,
        client: Client,
        lease: Lease,
        find: Callable[[], Awaitable[Wanted]],
        resource: Callable[[str], ApiResource],
    ) -> None:
        """`find` returns the statuses of all objects that are kproxy's; `resource` that of a kind."""
        self._client, self._lease, self._find, self._resource = client, lease, find, resource
        self._written: dict[Place, tuple[int, dict[str, Any]]] = {}
        """What the server has, as far as this kproxy wrote or read it."""
        self._changed = asyncio.Event()
        self._backoff = Backoff()
        self.problem = ""
        """Why the last attempt failed; "" if it did not."""

    def round_done(self, done: RoundReport) -> None:
        """Look at the statuses again."""
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                await self._work()
                self._backoff.succeeded()
                self.problem = ""
            except (KproxyError, InvalidResponseError, OSError) as error:
                self._failed(error)
                await asyncio.sleep(max(self._backoff.due - asyncio.get_running_loop().time(), 0))
                self._changed.set()

    def _failed(self, error: Exception) -> None:
        self._backoff.failed(asyncio.get_running_loop().time())
        message = f"cannot write the status of Gateways: {error}"
        if message != self.problem:
            logger.warning("%s", message)
        self.problem = message

    async def _work(self) -> None:
        """Write what changed. Another holder of the lease may have written other statuses meanwhile."""
        held = self._lease.held
        if not await self._lease.acquire():
            self._written.clear()
            await asyncio.sleep(RENEW_SECONDS)
            return
        if not held:
            logger.info("this node writes the status of Gateways")
            self._changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_SECONDS):
                await self._changed.wait()
        if self._changed.is_set():
            self._changed.clear()
            await self._write_all()
            await asyncio.sleep(PAUSE)

    async def _write_all(self) -> None:
        desired = await self._find()
        for place in self._written.keys() - desired.keys():
            del self._written[place]
        for place, status in desired.items():
            if self._written.get(place) != status and await self._lease.acquire():
                await self._write(place, status[1])
                self._written[place] = status

    async def _write(self, place: Place, status: dict[str, Any]) -> None:
        """Write a status, if the server has another one. An object that is gone needs none."""
        path, _ = self._resource(place[0]).single(place[1])
        path = f"{path}/{place[1].name}"
        while (found := await self._client.get(path)) is not None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            current = found.get("status") or {}
            merged = merged_status(place[0], current, status, now)
            if merged == current:
                return
            try:
                await self._client.send("PUT", f"{path}/status", {**found, "status": merged})
            except StatusError as error:
                if error.code != HTTPStatus.CONFLICT:
                    raise
            else:
                return
