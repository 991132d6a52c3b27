"""Whatever a cluster does, in whatever way it is told: the cache holds what is there and says what changed.

A made-up cluster changes at random. A list says what there is; a watch says each change, some of
them twice, and each kind in its own time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kproxy.model import EndpointSlice, NamespacedName
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import SERVICES, SLICES, ApiResource, ObjectChange
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
    """What there is, by kind and name, and what of it was ever good and not deleted since."""

    def __init__(self) -> None:
        self.now: dict[str, dict[NamespacedName, ObjectChange]] = {"Service": {}, "EndpointSlice": {}}
        self.good: dict[str, dict[NamespacedName, ObjectChange]] = {"Service": {}, "EndpointSlice": {}}

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


def told(cluster: Cluster, changes: Iterable[ObjectChange]) -> None:
    """Note what a watcher has seen."""
    for seen in changes:
        good = cluster.good[seen.kind]
        if seen.undecodable is None:
            good.pop(seen.key, None)
            if seen.model is not None:
                good[seen.key] = seen


def relist(cluster: Cluster, cache: Cache, kind: str) -> None:
    for seen in cluster.now[kind].values():
        cache.apply(seen)
    cache.retain(kind, cluster.now[kind].keys())
    good = cluster.good[kind]
    told(cluster, cluster.now[kind].values())
    for key in [key for key in good if key not in cluster.now[kind]]:
        del good[key]


def expected(cluster: Cluster) -> dict[NamespacedName, tuple[Any, list[Any]]]:
    """Of every service: itself, its slices, by what is good."""
    found: dict[NamespacedName, tuple[Any, list[Any]]] = {}
    for own in map(name, NAMES):
        service = cluster.good["Service"].get(own)
        members = [seen.model for _, seen in sorted(cluster.good["EndpointSlice"].items())]
        found[own] = (service and service.model, [m for m in members if m is not None and m.service == own])  # type: ignore[union-attr]
    return found


def held(cache: Cache) -> dict[NamespacedName, tuple[Any, list[Any]]]:
    return {own: (cache.service(own), list(cache.slices(own))) for own in map(name, NAMES)}


steps = st.one_of(
    st.tuples(
        st.sampled_from(("put", "put", "missed put", "delete", "missed delete")), st.one_of(services, slices)
    ),
    st.tuples(st.sampled_from(("relist", "again", "take")), st.sampled_from((SERVICES, SLICES))),
)


@given(st.lists(steps, min_size=10, max_size=40))
def test_the_cache_holds_what_is_there_and_says_what_changed(happened: list[tuple[str, Any]]) -> None:
    cluster, cache = Cluster(), Cache()
    missed: set[str] = set()
    last: dict[str, ObjectChange] = {}
    before, doubted = held(cache), set[NamespacedName]()
    for what, which in [*happened, ("relist", SERVICES), ("relist", SLICES), ("take", SERVICES)]:
        if what == "relist":
            relist(cluster, cache, which.kind)
            missed.discard(which.kind)
            last.pop(which.kind, None)
        elif what == "again" and which.kind in last:
            cache.apply(last[which.kind])
        elif what == "take":
            touched, after = cache.take(), held(cache)
            freed = {own for own in doubted if not cache.is_protected(own)}
            assert {own for own in after if after[own] != before[own]} | freed <= touched
            before, doubted = after, {own for own in touched | doubted if cache.is_protected(own)}
        elif what != "again":
            kind = resource_of(which).kind
            found = cluster.put(which) if what.endswith("put") else cluster.delete(which)
            if what.startswith("missed"):
                missed.add(kind)  # the connection is lost: nothing more of this kind until a relist
            if kind not in missed:
                cache.apply(found)
                told(cluster, [found])
                last[kind] = found
    assert held(cache) == expected(cluster)
    wrong = [seen for kind in cluster.now.values() for seen in kind.values() if seen.undecodable]
    assert cache.problems() == [
        seen.undecodable.problem for seen in sorted(wrong, key=lambda s: s[:2]) if seen.undecodable
    ]
    for own in map(name, NAMES):
        lacking = any(
            seen.undecodable is not None
            and seen.undecodable.unreadable.covers(own)
            and not (seen.undecodable.unreadable.services and owner_of(cluster, seen) == own)
            for seen in wrong
        )
        assert cache.is_protected(own) is lacking


def owner_of(cluster: Cluster, seen: ObjectChange) -> NamespacedName | None:
    """What the last good version of an object is a part of."""
    good = cluster.good[seen.kind].get(seen.key)
    if good is None or seen.kind == "Service":
        return good and seen.key
    return good.model.service if isinstance(good.model, EndpointSlice) else None


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
    assert held(one) == held(other)
    assert one.take() == other.take()
    assert one.problems() == other.problems()
