"""The cache of a cluster: its content, the services that a change concerns, and protected services."""

from __future__ import annotations

from typing import Any

import pytest

from kproxy.model import format_address
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import TRIGGER
from kproxy.sources.cluster.core.resources import SERVICE_CIDRS, SERVICES, SLICES, node_resource
from tests.unit.cluster import LABEL, api_node, api_service, api_service_cidr, api_slice, change
from tests.unit.make import name

NODE = node_resource("n1")
NO_PORT = {"ports": [{"port": 0}]}


def put(cache: Cache, *contents: dict[str, Any], event: str = "MODIFIED") -> None:
    for content in contents:
        resource = SLICES if "addressType" in content else SERVICES if "spec" in content else NODE
        cache.apply(change(resource, event, content))


def delete(cache: Cache, *contents: dict[str, Any]) -> None:
    put(cache, *contents, event="DELETED")


def filled(*contents: dict[str, Any]) -> Cache:
    """Return a cache with these objects, after `take`."""
    cache = Cache()
    put(cache, *contents)
    cache.take()
    cache.take_triggers()
    return cache


def names_of(cache: Cache, service: str) -> list[str]:
    return [member.name for member in cache.slices(name(service))]


def test_nothing_is_pending_at_first() -> None:
    cache = Cache()
    assert not cache.pending
    assert cache.take() == set()
    assert (cache.service(name("web")), cache.slices(name("web")), cache.node) == (None, (), None)


def test_a_service_changes_with_its_slices() -> None:
    cache = Cache()
    put(cache, api_service())
    assert cache.pending
    assert cache.take() == {name("web")}
    assert not cache.pending
    put(cache, api_slice("web-b"), api_slice("web-a"))
    assert cache.take() == {name("web")}
    assert names_of(cache, "web") == ["web-a", "web-b"]
    assert list(cache.services()) == list(cache.all_slices()) == [name("web")]


def test_the_end_of_a_protection_is_pending_although_no_service_changed() -> None:
    nameless = api_slice("web-1")
    del nameless["metadata"]["labels"]
    nameless["endpoints"] = 7
    cache = filled(nameless)
    assert not cache.pending
    delete(cache, nameless)
    assert cache.pending
    cache.take()
    assert not cache.pending


def test_slices_may_arrive_before_their_service() -> None:
    cache = filled(api_slice())
    assert names_of(cache, "web") == ["web-1"]
    assert cache.service(name("web")) is None


def test_an_equal_object_changes_nothing() -> None:
    cache = filled(api_service("web", 1), api_slice("web-1", "web", 1), api_node("n1", "here"))
    put(cache, api_service("web", 2), api_slice("web-1", "web", 2), api_node("n1", "here", 2))
    assert not cache.pending


def test_a_slice_that_moves_changes_both_services() -> None:
    cache = filled(api_slice("x-1", "old"))
    put(cache, api_slice("x-1", "new"))
    assert cache.take() == {name("old"), name("new")}
    assert (names_of(cache, "old"), names_of(cache, "new")) == ([], ["x-1"])


@pytest.mark.parametrize(
    "content", [api_slice("web-1", None), api_slice(metadata={"labels": {}}), api_slice(addressType="FQDN")]
)
def test_a_slice_that_kproxy_no_longer_uses_is_removed(content: dict[str, Any]) -> None:
    cache = filled(api_slice())
    put(cache, content)
    assert cache.take() == {name("web")}
    assert not cache.all_slices()


def test_objects_may_be_deleted_twice() -> None:
    cache = filled(api_service(), api_slice(), api_node())
    delete(cache, api_service(), api_slice(), api_node())
    assert cache.take() == {name("web")}
    assert (dict(cache.services()), dict(cache.all_slices()), cache.node) == ({}, {}, None)
    delete(cache, api_service(), api_slice(), api_node())
    assert not cache.pending


def test_a_list_removes_objects_of_its_kind_that_it_does_not_contain() -> None:
    cache = filled(api_service("a"), api_service("b"), api_slice("a-1", "a"))
    cache.retain("Service", {name("b")})
    assert cache.take() == {name("a")}
    assert (list(cache.services()), names_of(cache, "a")) == ([name("b")], ["a-1"])
    cache.retain("EndpointSlice", set())
    assert cache.take() == {name("a")}


def test_changes_of_the_node() -> None:
    cache = Cache()
    put(cache, api_node("n1", "here"))
    assert cache.pending
    assert cache.rules_changed
    assert cache.take() == set()
    assert not cache.rules_changed
    assert cache.node is not None
    assert cache.node.zone == "here"
    cache.retain("Node", {name("n1")})
    assert not cache.pending
    cache.retain("Node", set())
    assert (cache.node, cache.rules_changed) == (None, True)


def test_changes_of_service_cidrs() -> None:
    cache = Cache()

    def apply(event: str, *cidrs: str, name: str = "kubernetes", **rest: Any) -> tuple[bool, str]:
        cache.apply(change(SERVICE_CIDRS, event, api_service_cidr(name, *cidrs, **rest)))
        changed = cache.rules_changed
        assert (cache.pending, cache.take()) == (changed, set())
        return changed, " ".join(map(str, cache.service_cidrs()))

    terminating = {"conditions": [{"type": "Ready", "status": "False", "reason": "Terminating"}]}
    assert apply("ADDED", "10.96.0.0/16", "fd00:96::/112") == (True, "10.96.0.0/16 fd00:96::/112")
    assert apply("ADDED", "10.90.0.0/24", name="a") == (True, "10.90.0.0/24 10.96.0.0/16 fd00:96::/112")
    # Addresses of a ServiceCIDR that is being deleted stay ClusterIPs until it is gone.
    assert apply("MODIFIED", "10.90.0.0/24", name="a", status=terminating)[0] is False
    assert apply("DELETED", name="a") == (True, "10.96.0.0/16 fd00:96::/112")
    # The last valid version stays in use; an invalid range does not leave out the other one.
    assert apply("MODIFIED", spec=1) == (False, "10.96.0.0/16 fd00:96::/112")
    assert cache.problems() != []
    assert not cache.is_protected(name("web"))
    assert apply("MODIFIED", "10.96.0.0/33", "fd00:96::/112") == (True, "fd00:96::/112")
    assert (len(cache.warnings()), cache.problems()) == (1, [])
    cache.retain("ServiceCIDR", set())
    assert (cache.rules_changed, cache.service_cidrs()) == (True, ())


def test_cluster_ips_of_another_proxy_are_not_in_the_ranges() -> None:
    def ranges() -> str:
        assert cache.rules_changed
        cache.take()
        return " ".join(map(str, cache.service_cidrs()))

    cache = Cache()
    cache.apply(change(SERVICE_CIDRS, "ADDED", api_service_cidr("a", "10.96.0.0/30", "fd00::/127")))
    other = api_service("web", clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", "fd00::1"])
    ours = api_service("web", 2, clusterIP="10.96.0.1", clusterIPs=["10.96.0.1", "fd00::1"])
    other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    put(cache, other)
    assert ranges() == "10.96.0.0/32 10.96.0.2/31 fd00::/128"
    put(cache, ours)
    assert ranges() == "10.96.0.0/30 fd00::/127"
    put(cache, other)
    delete(cache, other)
    assert ranges() == "10.96.0.0/30 fd00::/127"
    put(cache, ours)
    assert not cache.rules_changed


def test_only_changed_slices_have_triggers() -> None:
    cache = Cache()
    first, second = ({"annotations": {TRIGGER: f"2026-11-22T10:00:0{n}Z"}} for n in (1, 2))
    put(cache, api_slice(metadata=first))
    put(cache, api_slice(metadata=second))  # the same endpoints
    assert cache.take_triggers() == ["2026-11-22T10:00:01Z"]
    assert cache.take_triggers() == []


# --- objects that cannot be decoded ---


def test_the_last_valid_version_stays_in_use() -> None:
    cache = filled(api_service(), api_slice())
    valid = cache.service(name("web"))
    put(cache, api_service(**NO_PORT), api_slice("web-1", "web", 2, addressType="IPX"))
    assert (cache.service(name("web")), names_of(cache, "web")) == (valid, ["web-1"])
    assert [problem.object for problem in cache.problems()] == [
        "EndpointSlice default/web-1",
        "Service default/web",
    ]
    assert not cache.is_protected(name("web"))
    objects = "cluster: EndpointSlice default/web-1, cluster: Service default/web"
    assert cache.held() == {name("web"): f"{objects} cannot be read"}
    put(cache, api_service(), api_slice())
    assert (cache.problems(), cache.held()) == ([], {})
    assert cache.service(name("web")) == valid


@pytest.mark.parametrize("content", [api_service(**NO_PORT), api_slice("web-1", "web", 2, addressType="IPX")])
def test_a_service_without_a_valid_version_is_protected(content: dict[str, Any]) -> None:
    repaired = api_slice() if "endpoints" in content else api_service()
    cache = filled()
    put(cache, content)
    assert cache.take() == {name("web")}
    assert cache.is_protected(name("web"))
    assert not cache.is_protected(name("other"))
    assert cache.held() == {}
    put(cache, repaired)
    assert not cache.is_protected(name("web"))
    assert cache.take() == {name("web")}


def test_invalid_parts_of_a_slice_are_left_out_with_a_warning() -> None:
    """kube-proxy ignores a port 0 and uses the others. An API server stores any number."""
    cache = filled(api_service(), api_slice())
    ports = [{"name": "a", "port": 8080}, {"name": "b", "port": 0}]
    put(cache, api_slice("web-1", "web", 2, "10.0.0.2", ports=ports))
    (slice_,) = cache.slices(name("web"))
    assert [port.name for port in slice_.ports] == ["a"]
    assert [format_address(endpoint.address) for endpoint in slice_.endpoints] == ["10.0.0.2"]
    assert [str(each) for each in cache.warnings()] == [
        "cluster: EndpointSlice default/web-1: ports[1].port: 0 is not a port (1-65535): ignored"
    ]
    assert (cache.problems(), cache.is_protected(name("web"))) == ([], False)
    delete(cache, api_slice())
    assert cache.warnings() == []


def test_unknown_fields_of_a_cluster_are_no_warnings() -> None:
    """A newer API server has newer fields."""
    cache = filled(api_service(newField=1), api_slice(newField=1))
    assert (cache.warnings(), cache.problems()) == ([], [])


def test_protection_ends_when_the_object_is_deleted() -> None:
    cache = filled(api_service(**NO_PORT), api_slice("web-1", "web", 1, addressType="IPX"))
    delete(cache, api_service(**NO_PORT))
    assert cache.is_protected(name("web"))
    assert cache.take() == {name("web")}
    cache.retain("EndpointSlice", set())
    assert not cache.is_protected(name("web"))
    assert cache.take() == {name("web")}
    assert cache.problems() == []


def test_an_invalid_slice_that_moves_protects_its_new_service() -> None:
    cache = filled(api_slice("x-1", "old"))
    put(cache, api_slice("x-1", "new", 2, addressType="IPX"))
    assert names_of(cache, "old") == ["x-1"]
    assert cache.is_protected(name("new"))
    put(cache, api_slice("x-1", "newer", 3, addressType="IPX"))
    assert cache.take() == {name("new"), name("newer")}
    assert not cache.is_protected(name("new"))


def test_a_deleted_service_changes_again_when_its_protection_ends() -> None:
    """The invalid slice does not name a service, so all services of its namespace are protected."""
    wrong = api_slice("x-1", metadata={"labels": {LABEL: 5}})
    cache = filled(api_service("web"), wrong)
    delete(cache, api_service("web"))
    assert cache.take() == {name("web")}
    assert cache.is_protected(name("web"))
    delete(cache, wrong)
    assert cache.take() == {name("web")}


def test_an_invalid_node_is_a_problem_and_protects_nothing() -> None:
    cache = filled(api_node("n1", "here"))
    put(cache, {"metadata": {"name": "n1", "labels": 5}})
    assert len(cache.problems()) == 1
    assert cache.node is not None
    assert not cache.is_protected(name("web"))
