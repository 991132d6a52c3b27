"""The lease of the writer of statuses: one holder at a time, and a successor when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from kproxy.gateway.lease import RENEW_SECONDS, SECONDS, Lease
from kproxy.gateway.requests import Client
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.credentials import Credentials
from tests.apiserver import ApiServer
from tests.apiserver.faults import Answer
from tests.apiserver.kubeconfig import write_kubeconfig


def following(api: ApiServer, folder: Path, story: Callable[[Client], Awaitable[None]]) -> None:
    """Run a story with a client of the server."""
    credentials = Credentials(write_kubeconfig(folder / "kubeconfig", api.url, {}))

    async def run() -> None:
        async with asyncio.timeout(60), Connection(credentials) as connection:
            await story(Client(connection))

    asyncio.run(run())


def test_one_of_two_holds_the_lease(api: ApiServer, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        now = 0.0
        one, two = (Lease(client, name, lambda: now) for name in ("n1", "n2"))
        # 1. The first one gets it, and holds it without requests until it is to be renewed.
        assert (await one.acquire(), await two.acquire()) == (True, False)
        before = len(api.requests(resource="leases"))
        assert await one.acquire()
        assert len(api.requests(resource="leases")) == before
        # 2. As long as it renews it, the other one waits.
        for _ in range(4):
            now += RENEW_SECONDS
            assert (await one.acquire(), await two.acquire()) == (True, False)
        # 3. It stops. The other one gets it after some time, not before the first one knows that it lost it.
        now += SECONDS - 1
        assert (one.held, await two.acquire()) == (False, False)
        now += 1
        assert (await two.acquire(), await one.acquire()) == (True, False)
        # 4. Started again, the holder has it at once.
        assert await Lease(client, "n2", lambda: now).acquire()

    following(api, tmp_path, story)


def test_of_two_takers_one_gets_the_lease(api: ApiServer, tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        fault = api.faults.add(Answer(409), verb="create", resource="leases", times=1)
        lease = Lease(client, "n1")
        assert not await lease.acquire()
        api.faults.remove(fault)
        assert await lease.acquire()

    following(api, tmp_path, story)
