"""For any changes of a cluster, the cache contains the present objects, and returns the changed services.

A simulated cluster changes at random. Lists contain its present objects. Watches send each change, some of
them twice. The order of changes of different kinds is random.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kproxy.model import EndpointSlice, NamespacedName
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import ObjectChange
from kproxy.sources.cluster.core.resources import SERVICES, SLICES, ApiResource
from tests.unit.cluster import api_service, api_slice, change
from tests.unit.make import name

NAMES = ("a", "b")
WRONG = "nonsense"

services = st.builds(
    lambda own, port: api_service(own, ports=[{"port": port}]), st.sampled_from(NAMES), st.integers(0, 2)
)
slices = st.builds(
    lambda own, of, address: api_slice(own, of, 1, address),
    st.sampled_from(("x", "y")),
    st.sampled_from((*NAMES, None, 5)),
    st.sampled_from(("10.0.0.1", "10.0.0.2", WRONG)),
)


def resource_of(content: dict[str, Any]) -> ApiResource:
    return SLICES if "addressType" in content else SERVICES


class Cluster:
    """The present objects by kind and name, and their last valid versions."""

    def __init__(self) -> None:
        self.now: dict[str, dict[NamespacedName, ObjectChange]] = {"Service": {}, "EndpointSlice": {}}
        self.valid: dict[str, dict[NamespacedName, ObjectChange]] = {"Service": {}, "EndpointSlice": {}}

    def put(self, content: dict[str, Any]) -> ObjectChange:
        resource = resource_of(content)
        found = change(resource, "MODIFIED", content)
        self.now[resource.kind][found.key] = found
        return found

    def delete(self, content: dict[str, Any]) -> ObjectChange:
        resource = resource_of(content)
        found = change(resource, "DELETED", content)
        self.now[resource.kind].pop(found.key, None)
        return found


def record(cluster: Cluster, changes: Iterable[ObjectChange]) -> None:
    """Record the valid versions that the cache has got."""
    for seen in changes:
        valid = cluster.valid[seen.kind]
        if seen.undecodable is None:
            valid.pop(seen.key, None)
            if seen.model is not None:
                valid[seen.key] = seen


def relist(cluster: Cluster, cache: Cache, kind: str) -> None:
    for seen in cluster.now[kind].values():
        cache.apply(seen)
    cache.retain(kind, cluster.now[kind].keys())
    valid = cluster.valid[kind]
    record(cluster, cluster.now[kind].values())
    for key in [key for key in valid if key not in cluster.now[kind]]:
        del valid[key]


def expected(cluster: Cluster) -> dict[NamespacedName, tuple[Any, list[Any]]]:
    """Return each service with its slices, in their last valid versions."""
    found: dict[NamespacedName, tuple[Any, list[Any]]] = {}
    for own in map(name, NAMES):
        service = cluster.valid["Service"].get(own)
        members = [seen.model for _, seen in sorted(cluster.valid["EndpointSlice"].items())]
        found[own] = (service and service.model, [m for m in members if m is not None and m.service == own])  # type: ignore[union-attr]
    return found


def content(cache: Cache) -> dict[NamespacedName, tuple[Any, list[Any]]]:
    return {own: (cache.service(own), list(cache.slices(own))) for own in map(name, NAMES)}


steps = st.one_of(
    st.tuples(
        st.sampled_from(("put", "put", "missed put", "delete", "missed delete")), st.one_of(services, slices)
    ),
    st.tuples(st.sampled_from(("relist", "again", "take")), st.sampled_from((SERVICES, SLICES))),
)


@given(st.lists(steps, min_size=10, max_size=40))
def test_the_cache_contains_the_objects_and_returns_the_changed_services(
    happened: list[tuple[str, Any]],
) -> None:
    cluster, cache = Cluster(), Cache()
    missed: set[str] = set()
    last: dict[str, ObjectChange] = {}
    before, protected = content(cache), set[NamespacedName]()
    for what, which in [*happened, ("relist", SERVICES), ("relist", SLICES), ("take", SERVICES)]:
        if what == "relist":
            relist(cluster, cache, which.kind)
            missed.discard(which.kind)
            last.pop(which.kind, None)
        elif what == "again" and which.kind in last:
            cache.apply(last[which.kind])
        elif what == "take":
            changed, after = cache.take(), content(cache)
            unprotected = {own for own in protected if not cache.is_protected(own)}
            assert {own for own in after if after[own] != before[own]} | unprotected <= changed
            before, protected = after, {own for own in changed | protected if cache.is_protected(own)}
        elif what != "again":
            kind = resource_of(which).kind
            found = cluster.put(which) if what.endswith("put") else cluster.delete(which)
            if what.startswith("missed"):
                missed.add(kind)  # the connection is lost: no changes of this kind until a new list
            if kind not in missed:
                cache.apply(found)
                record(cluster, [found])
                last[kind] = found
    assert content(cache) == expected(cluster)
    invalid = [seen for kind in cluster.now.values() for seen in kind.values() if seen.undecodable]
    assert cache.problems() == [
        seen.undecodable.problem for seen in sorted(invalid, key=lambda s: s[:2]) if seen.undecodable
    ]
    for own in map(name, NAMES):
        is_protected = any(
            seen.undecodable is not None
            and seen.undecodable.unreadable.covers(own)
            and not (seen.undecodable.unreadable.services and owner_of(cluster, seen) == own)
            for seen in invalid
        )
        assert cache.is_protected(own) is is_protected


def owner_of(cluster: Cluster, seen: ObjectChange) -> NamespacedName | None:
    """Return the service to which the last valid version of an object belongs."""
    valid = cluster.valid[seen.kind].get(seen.key)
    if valid is None or seen.kind == "Service":
        return valid and seen.key
    return valid.model.service if isinstance(valid.model, EndpointSlice) else None


@given(st.lists(st.one_of(services, slices), max_size=20), st.randoms())
def test_the_order_of_objects_does_not_matter(contents: list[dict[str, Any]], random: Any) -> None:
    latest = {(resource_of(c).kind, c["metadata"]["name"]): c for c in contents}
    found = [change(resource_of(content), "ADDED", content) for content in latest.values()]
    one, other = Cache(), Cache()
    for seen in found:
        one.apply(seen)
    random.shuffle(found)
    for seen in found:
        other.apply(seen)
    assert content(one) == content(other)
    assert one.take() == other.take()
    assert one.problems() == other.problems()
