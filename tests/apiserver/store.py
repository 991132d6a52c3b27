"""Objects, one revision counter for all of them, and a window of history.

As in etcd, every write increments the revision, which becomes the resourceVersion of the object. A write
without a change is ignored. An object is stored as its JSON in a list, without kind and apiVersion, so that
a list is joined and not encoded. Each resource keeps its last changes. Changes up to the revision `floor` are
compacted: a request for them is 410 Expired. All methods may be called from any thread.
"""

from __future__ import annotations

import threading
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from tests.apiserver.resources import BY_KIND, RESOURCES, Manifest, Resource
from tests.apiserver.status import already_exists, conflict, expired, not_found

_encode = msgspec.json.encode
_NO_LABELS: dict[str, str] = {}


class Stored(NamedTuple):
    """An object at one revision."""

    key: str
    revision: int
    body: bytes
    """JSON without kind and apiVersion."""
    labels: Mapping[str, str]

    def manifest(self) -> Manifest:
        """The object, without kind and apiVersion."""
        content: Manifest = msgspec.json.decode(self.body)
        return content

    def at(self, revision: int) -> Stored:
        """Return a copy with another resourceVersion, for a DELETED event."""
        content = self.manifest()
        content["metadata"]["resourceVersion"] = str(revision)
        return self._replace(revision=revision, body=_encode(content))


class Event(NamedTuple):
    """A change. `before` is None for a creation; `after` is None for a deletion."""

    revision: int
    before: Stored | None
    after: Stored | None

    @property
    def key(self) -> str:
        found = self.after or self.before
        assert found
        return found.key


Deliver = Callable[[Sequence[Event]], None]


class Collection:
    """The objects of one resource, and their history."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.events: list[Event] = []
        self.floor = 0
        """Changes up to this revision are compacted."""
        self.watchers: list[Deliver] = []
        self._keys: list[str] = []
        self._sorted = True

    @property
    def keys(self) -> list[str]:
        """The keys in etcd's order."""
        if not self._sorted:
            self._keys.sort()
            self._sorted = True
        return self._keys

    def change(self, event: Event, capacity: int) -> None:
        """Apply a change to the objects, and record it."""
        if event.after is None:
            del self.objects[event.key]
            del self.keys[bisect_left(self.keys, event.key)]
        else:
            self.objects[event.key] = event.after
            if event.before is None:
                self._sorted = self._sorted and (not self._keys or self._keys[-1] < event.key)
                self._keys.append(event.key)
        self.events.append(event)
        if len(self.events) > 2 * capacity:
            self.floor = self.events[-capacity - 1].revision
            del self.events[:-capacity]

    def deliver(self, events: Sequence[Event]) -> None:
        """Send events to all watchers."""
        for deliver in self.watchers:
            deliver(events)

    def since(self, revision: int) -> list[Event]:
        """Return the changes after a revision; 410 if some of them are compacted."""
        if revision < self.floor:
            raise expired(f"too old resource version: {revision} ({self.floor})")
        return self.events[bisect_right(self.events, revision, key=lambda event: event.revision) :]

    def at(self, revision: int) -> tuple[Mapping[str, Stored], list[str]]:
        """Return the objects and sorted keys at a revision; 410 if it is compacted."""
        later = self.since(revision)
        if not later:
            return self.objects, self.keys
        objects = dict(self.objects)
        for event in reversed(later):
            if event.before is None:
                del objects[event.key]
            else:
                objects[event.key] = event.before
        return objects, sorted(objects)


class Snapshot(NamedTuple):
    """A backup of etcd."""

    revision: int
    objects: dict[Resource, dict[str, Stored]]


class Store:
    """All collections. Each keeps its last `capacity` changes."""

    def __init__(self, capacity: int = 10_000) -> None:
        self.capacity = capacity
        self.revision = 1
        self.lock = threading.RLock()
        self.collections = {resource: Collection() for resource in RESOURCES}
        self._held: list[tuple[Collection, Event]] | None = None

    # Writes

    def create(self, resource: Resource, manifest: Manifest) -> Stored:
        """Create an object; 409 if it exists."""
        with self.lock:
            if resource.key(manifest) in self.collections[resource].objects:
                raise already_exists(resource, manifest["metadata"]["name"])
            return self.put(resource, manifest)

    def update(self, resource: Resource, manifest: Manifest) -> Stored:
        """Update an object; 404 if it does not exist, 409 if the resourceVersion in it is another one."""
        with self.lock:
            metadata = manifest["metadata"]
            before = self.collections[resource].objects.get(resource.key(manifest))
            if before is None:
                raise not_found(resource, metadata["name"])
            if metadata.get("resourceVersion", str(before.revision)) != str(before.revision):
                raise conflict(resource, metadata["name"])
            return self.put(resource, manifest)

    def put(self, resource: Resource, manifest: Manifest) -> Stored:
        """Create or replace an object."""
        with self.lock:
            collection = self.collections[resource]
            key = resource.key(manifest)
            before = collection.objects.get(key)
            if before and _encode(_complete(resource, manifest, before, before.revision)) == before.body:
                return before
            content = _complete(resource, manifest, before, self.revision + 1)
            labels = content["metadata"].get("labels")
            self.revision += 1
            after = Stored(
                key, self.revision, _encode(content), labels if isinstance(labels, dict) else _NO_LABELS
            )
            self._commit(collection, Event(self.revision, before, after))
            return after

    def delete(self, resource: Resource, key: str) -> Stored:
        """Delete an object; 404 if it does not exist. Returns its state at the revision of the deletion."""
        with self.lock:
            collection = self.collections[resource]
            before = collection.objects.get(key)
            if before is None:
                raise not_found(resource, key.rpartition("/")[2])
            self.revision += 1
            self._commit(collection, Event(self.revision, before, None))
            return before.at(self.revision)

    def load(self, manifests: Iterable[Manifest]) -> None:
        """Create or replace many objects of any kinds."""
        with self.lock:
            for manifest in manifests:
                self.put(BY_KIND[manifest["kind"]], manifest)

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Send the changes in the block to watchers in one piece at its end. The server waits meanwhile."""
        with self.lock:
            assert self._held is None, "bursts do not nest"
            self._held = []
            try:
                yield
            finally:
                held, self._held = self._held, None
                for collection in self.collections.values():
                    collection.deliver([event for of, event in held if of is collection])

    def _commit(self, collection: Collection, event: Event) -> None:
        collection.change(event, self.capacity)
        if self._held is None:
            collection.deliver([event])
        else:
            self._held.append((collection, event))

    # History

    def subscribe(self, resource: Resource, since: int | None, deliver: Deliver) -> list[Event]:
        """Subscribe to changes. Returns those after `since`, or all objects as creations if it is None."""
        with self.lock:
            collection = self.collections[resource]
            if since is None:
                events = [
                    Event(found.revision, None, found)
                    for found in map(collection.objects.__getitem__, collection.keys)
                ]
            else:
                events = collection.since(since)
            collection.watchers.append(deliver)
            return events

    def unsubscribe(self, resource: Resource, deliver: Deliver) -> None:
        with self.lock:
            self.collections[resource].watchers.remove(deliver)

    def compact(self) -> None:
        """Remove all history: every older resourceVersion is 410 now."""
        with self.lock:
            for collection in self.collections.values():
                collection.events.clear()
                collection.floor = self.revision

    def advance(self, by: int = 1) -> int:
        """Increase the revision, as writes to other resources do."""
        with self.lock:
            self.revision += by
            return self.revision

    def backup(self) -> Snapshot:
        """Return a copy, for `restore`."""
        with self.lock:
            objects = {resource: dict(found.objects) for resource, found in self.collections.items()}
            return Snapshot(self.revision, objects)

    def restore(self, snapshot: Snapshot | None) -> None:
        """Restore objects and revision of a backup, or of an empty etcd, without history. Watchers stay."""
        with self.lock:
            revision, objects = snapshot or Snapshot(1, {resource: {} for resource in RESOURCES})
            self.revision = revision
            for resource, collection in self.collections.items():
                restored = Collection()
                restored.objects = dict(objects[resource])
                restored._keys = sorted(restored.objects)
                restored.floor = revision
                restored.watchers = collection.watchers
                self.collections[resource] = restored


def _complete(resource: Resource, manifest: Manifest, before: Stored | None, revision: int) -> Manifest:
    """Return a copy with the metadata that the server sets, without kind and apiVersion."""
    old = before.manifest()["metadata"] if before else {}
    metadata = {
        "name": manifest["metadata"]["name"],
        **({"namespace": "default"} if resource.namespaced else {}),
        **manifest["metadata"],
        "uid": old.get("uid") or manifest["metadata"].get("uid") or str(uuid.uuid4()),
        "resourceVersion": str(revision),
        "creationTimestamp": old.get("creationTimestamp")
        or manifest["metadata"].get("creationTimestamp")
        or _now(),
    }
    rest = {
        field: value for field, value in manifest.items() if field not in {"kind", "apiVersion", "metadata"}
    }
    return {"metadata": metadata, **rest}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
