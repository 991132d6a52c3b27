"""A separate namespace for a test, in the double or a real API server. Both must behave equally.

Revisions only grow; in a real server, they also count the writes of other clients. A real server accepts the
objects, and fills in missing fields.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.apiserver import objects
from tests.apiserver.client import Answer, Client
from tests.apiserver.resources import Manifest

Connect = Callable[[], Client]


class Own:
    """The namespace, as a context manager, which deletes it and its objects at the end."""

    def __init__(self, connect: Connect, name: str = "") -> None:
        self.namespace = name or f"kproxy-test-{uuid.uuid4().hex[:8]}"
        self.services = f"/api/v1/namespaces/{self.namespace}/services"
        self.slices = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        self.client = connect()
        self._connect = connect
        self._made: dict[tuple[str, str], Manifest] = {}

    def __enter__(self) -> Own:
        done(self.client.create(self._itself))
        return self

    def __exit__(self, *_: object) -> None:
        for manifest in self._made.values():
            self.client.delete(manifest)
        self.client.delete(self._itself)
        self.client.connection.close()

    @property
    def _itself(self) -> Manifest:
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}

    def sibling(self, suffix: str) -> Own:
        """Return another namespace, whose name begins with the name of this one."""
        return Own(self._connect, self.namespace + suffix)

    def connected(self) -> Client:
        """Return another client."""
        return self._connect()

    # Objects in the namespace

    def service(self, name: str = "web", port: int = 80, labels: dict[str, str] | None = None) -> Manifest:
        return objects.service(name, self.namespace, port, labels)

    def slice(self, name: str = "web-1", labels: dict[str, str] | None = None) -> Manifest:
        return objects.endpoint_slice(name, self.namespace, labels)

    # Writes that must succeed; each returns the object afterwards

    def create(self, *manifests: Manifest) -> list[Any]:
        self._made |= {(each["kind"], each["metadata"]["name"]): each for each in manifests}
        return [done(self.client.create(manifest)).json for manifest in manifests]

    def update(self, manifest: Manifest) -> Any:
        return done(self.client.update(manifest)).json

    def delete(self, manifest: Manifest) -> Any:
        return done(self.client.delete(manifest)).json

    # Reads

    def names(self, **query: Any) -> list[str]:
        """Return the names of the Services in a list."""
        return done(self.client.get(self.services, **query)).names

    def revision(self) -> str:
        """Return the present revision, according to a list of Services."""
        return done(self.client.get(self.services)).revision

    @contextmanager
    def watch(self, path: str, revision: str = "", **query: Any) -> Iterator[Iterator[Any]]:
        """Yield the events of a watch on a new connection. An event must arrive within a minute."""
        with self._connect() as client, client.watch(path, revision, **query) as events:
            yield events

    def watch_services(self, revision: str = "", **query: Any) -> AbstractContextManager[Iterator[Any]]:
        return self.watch(self.services, revision, **query)


def done(answer: Answer) -> Answer:
    """Return the answer, which must not be an error."""
    assert answer.status in (200, 201), answer.body.decode(errors="replace")
    return answer


def revision_of(manifest: Any) -> int:
    """Return the resourceVersion of an object."""
    return int(manifest["metadata"]["resourceVersion"])
