"""Runs a cluster source in a separate thread for tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kproxy.model import NamespacedName, Node
from kproxy.sources.cluster.core.formats import PROTOBUF
from kproxy.sources.cluster.credentials import Credentials
from kproxy.sources.cluster.reflector import Pacing
from kproxy.sources.cluster.source import Cluster
from tests.apiserver import ApiServer
from tests.apiserver.kubeconfig import User, write_kubeconfig
from tests.unit.make import name

Result = TypeVar("Result")
FOLLOWED = ("services", "endpointslices", "nodes", "servicecidrs")
"""The resources that a `Cluster` follows."""
QUICK = Pacing(page=2, idle_timeout=5.0, jitter=0.02, first_delay=0.02, max_delay=0.1, min_watch=0.05)
"""The pacing of kproxy with shorter times."""


def service(own_name: str = "web", /, port: int = 80, **rest: Any) -> dict[str, Any]:
    """Return a Service for `ApiServer.create`."""
    metadata = {"name": own_name, "namespace": "default", **rest.pop("metadata", {})}
    spec = {"clusterIP": "10.96.0.1", "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def slice_(
    own_name: str = "web-1", of: str = "web", address: str = "10.0.0.1", **metadata: Any
) -> dict[str, Any]:
    """Return an EndpointSlice with one endpoint for `ApiServer.create`."""
    labels = {"kubernetes.io/service-name": of, **metadata.pop("labels", {})}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": own_name, "namespace": "default", "labels": labels, **metadata},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": [address]}],
    }


class Follower:
    """Follows `api` as node n1. `with` waits until it is synced, unless `sync` is false."""

    def __init__(
        self,
        api: ApiServer,
        folder: Path,
        pacing: Pacing = QUICK,
        *,
        user: User | None = None,
        credentials: Credentials | None = None,
        sync: bool = True,
        start_jitter: float = 0.0,
        content_type: str = PROTOBUF,
        **cluster: Any,
    ) -> None:
        if credentials is None:
            config = write_kubeconfig(
                folder / "kubeconfig", cluster.pop("url", api.url), user or {}, **cluster
            )
            credentials = Credentials(config)
        self.source = Cluster(
            credentials,
            "n1",
            lambda _: Node("n1"),
            pacing,
            start_jitter=start_jitter,
            content_type=content_type,
        )
        self.woken = threading.Event()
        self._sync = sync
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        if self._sync:
            self.wait(lambda: self.source.synced)
            self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _follow(self) -> None:
        async def follow() -> None:
            self._task = asyncio.ensure_future(self.source.run(self.woken.set))
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

        self._loop.run_until_complete(follow())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def wait(self, condition: Callable[[], Result], seconds: float = 60) -> Result:
        """Wait until `condition()` is true, and return its value."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert self._thread.is_alive(), "the source has ended"
            assert time.monotonic() < deadline, f"not within {seconds} s; {self.source.problems()}"
            time.sleep(0.002)
        return result

    def take(self) -> set[NamespacedName]:
        """Return the services that changed, as the source's `take` returns them."""
        return set(asyncio.run_coroutine_threadsafe(self.source.take(), self._loop).result(60))

    def changed(self, *names: str) -> None:
        """Wait until these services have changed. Fails if others have."""
        wanted, found = set(map(name, names)), set[NamespacedName]()

        def complete() -> bool:
            found.update(self.take())
            return wanted <= found

        self.wait(complete)
        assert found == wanted

    def names(self) -> list[str]:
        """Return the names of all services."""
        return sorted(own.name for own in self.source.names())

    def sees(self, *names: str) -> None:
        """Wait until exactly these services exist."""
        self.wait(lambda: self.names() == sorted(names))

    def port(self, own: str = "web") -> int:
        """Return the port of a service; 0 if it does not exist."""
        found = self.source.service(name(own))
        return found.ports[0].port if found else 0

    def messages(self) -> list[str]:
        """Return the present problems as text."""
        return [str(problem) for problem in self.source.problems()]
