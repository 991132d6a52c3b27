"""A namespace of a test's own, in whichever API server there is: what is done here is done to the double
and to a real one, and both have to do the same.

Revisions only grow: a real server counts what others write, too. Objects are ones that it takes, and it
fills in what they leave out.
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
    """The namespace; a context manager, which leaves nothing behind."""

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

    def beside(self, suffix: str) -> Own:
        """Another one, whose name begins as this one's."""
        return Own(self._connect, self.namespace + suffix)

    # Objects of it

    def service(self, name: str = "web", port: int = 80, labels: dict[str, str] | None = None) -> Manifest:
        return objects.service(name, self.namespace, port, labels)

    def slice(self, name: str = "web-1", labels: dict[str, str] | None = None) -> Manifest:
        return objects.endpoint_slice(name, self.namespace, labels)

    # Writes that succeed; each gives the object as it is then

    def create(self, *manifests: Manifest) -> list[Any]:
        self._made |= {(each["kind"], each["metadata"]["name"]): each for each in manifests}
        return [done(self.client.create(manifest)).json for manifest in manifests]

    def update(self, manifest: Manifest) -> Any:
        return done(self.client.update(manifest)).json

    def delete(self, manifest: Manifest) -> Any:
        return done(self.client.delete(manifest)).json

    # Reads

    def names(self, **query: Any) -> list[str]:
        """Of the services that a list has."""
        return done(self.client.get(self.services, **query)).names

    def revision(self) -> str:
        """Of now, as a list of services has it."""
        return done(self.client.get(self.services)).revision

    @contextmanager
    def watch(self, path: str, revision: str = "", **query: Any) -> Iterator[Iterator[Any]]:
        """The events of a watch, by a connection of its own; they come within ten seconds or never."""
        with self._connect() as client, client.watch(path, revision, **query) as events:
            yield events

    def watch_services(self, revision: str = "", **query: Any) -> AbstractContextManager[Iterator[Any]]:
        return self.watch(self.services, revision, **query)


def done(answer: Answer) -> Answer:
    """It is not an error."""
    assert answer.status in (200, 201), answer.body.decode(errors="replace")
    return answer


def revision_of(manifest: Any) -> int:
    """The resourceVersion of an object."""
    return int(manifest["metadata"]["resourceVersion"])
