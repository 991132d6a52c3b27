"""A real API server as a process, and changes of its objects.

It does not report when it sends an event. Another watching client records when it receives the event.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.daemon.server import this_node
from bench.manifests import manifests
from bench.process import Failed, until
from bench.samples import NAMESPACES, samples
from tests.apiserver.client import Answer, Client
from tests.controlplane import ControlPlane

WRITERS = 8
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SERVER_FIELDS = ("resourceVersion", "uid", "creationTimestamp")
"""Metadata that the server sets."""
PATIENCE = 60.0
IDLE = 30.0
"""Seconds. The server closes a connection that is idle for longer; kube-apiserver waits for 90 s."""


class RealServer:
    """A client of the server. It sends one request at a time, and as a context manager it also watches."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.control_plane = control_plane
        self._client = control_plane.client()
        self._lock = threading.Lock()
        self._newest = 0
        self._used = time.monotonic()
        self._sent: dict[int, float] = {}
        self._watching = control_plane.client()
        self._watching.connection.timeout = None

    def __enter__(self) -> RealServer:
        revision = _done(self._client.get(SLICES, limit=1)).revision
        response = self._watching.open("GET", SLICES, watch=1, resourceVersion=revision)
        threading.Thread(target=self._watch, args=(response,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.connection.close()

    def apply(self, manifests: Iterable[Any]) -> int:
        """Replace objects. Returns the revision afterwards."""
        with self._lock:
            if time.monotonic() > self._used + IDLE:
                self._client.connection.close()  # it is opened again
            for manifest in manifests:
                changed = _done(self._client.update(_bare(manifest))).json
                self._newest = int(changed["metadata"]["resourceVersion"])
            self._used = time.monotonic()
            return self._newest

    def sent_at(self, after: int) -> dict[int, float]:
        """Return when events of EndpointSlices after a revision arrived (time.monotonic), by revision."""
        until(
            lambda: self._newest in self._sent,
            lambda: "the API server does not send an event for a change",
            PATIENCE,
            0.001,
        )
        return {revision: when for revision, when in self._sent.copy().items() if revision > after}

    def _watch(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            now = time.monotonic()
            event = msgspec.json.decode(line)
            self._sent[int(event["object"]["metadata"]["resourceVersion"])] = now


def _bare(manifest: Any) -> Any:
    metadata = {field: value for field, value in manifest["metadata"].items() if field not in SERVER_FIELDS}
    return {**manifest, "metadata": metadata}


def _done(answer: Answer) -> Answer:
    if answer.status not in (200, 201):
        raise Failed(f"the API server: {answer.body.decode(errors='replace')}")
    return answer


@contextmanager
def started(assets: Path, folder: Path, services: int) -> Iterator[RealServer]:
    """Start the kube-apiserver and etcd in `assets` with so many Services. `folder` gets the kubeconfig."""
    with ControlPlane(assets, folder) as control_plane:
        (folder / "kubeconfig").write_bytes(control_plane.kubeconfig.read_bytes())
        _load(control_plane, services)
        yield RealServer(control_plane)


@contextmanager
def serving_real(assets: Path, folder: Path, services: int) -> Iterator[RealServer]:
    """Start a server as `started` does, and watch it."""
    with started(assets, folder, services) as server, server:
        yield server


def _load(control_plane: ControlPlane, services: int) -> None:
    local = threading.local()

    def create(manifest: Any) -> None:
        if not hasattr(local, "client"):
            local.client = control_plane.client()
        client: Client = local.client
        _done(client.create(_bare(manifest)))

    create(this_node())
    _done(local.client.update(this_node(), "/status"))
    names = (f"team-{number}" for number in range(NAMESPACES))
    for name in names:
        create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(create, manifests(samples(services))["items"]):
            pass
