"""Get and list: paths, selectors, versions and limits. For the double or a real server."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.client import Client
from tests.apiserver.own import Own, done, revision_of

FUTURE = 1_000_000_000
EXACT = {"resourceVersionMatch": "Exact"}


def test_a_list_has_a_revision_and_items_without_kind(own: Own) -> None:
    b, a = own.create(own.service("b"), own.service("a"))
    answer = own.client.get(own.services)
    assert (answer.status, answer.json["kind"], answer.json["apiVersion"]) == (200, "ServiceList", "v1")
    assert answer.names == ["a", "b"]
    assert all("kind" not in item and "apiVersion" not in item for item in answer.json["items"])
    assert [revision_of(item) for item in answer.json["items"]] == [revision_of(a), revision_of(b)]
    assert int(answer.revision) >= revision_of(a) > revision_of(b)


def test_a_single_object_has_its_kind(own: Own) -> None:
    own.create(own.service("web"))
    found = own.client.get(f"{own.services}/web").json
    assert (found["kind"], found["apiVersion"]) == ("Service", "v1")
    answer = own.client.get(f"{own.services}/other")
    assert (answer.status, answer.json["message"]) == (404, 'services "other" not found')
    assert answer.json["details"] == {"name": "other", "kind": "services"}


def test_a_get_of_one_object_is_not_a_watch(own: Own) -> None:
    own.create(own.service("web"))
    assert own.client.get(f"{own.services}/web", watch=1).json["kind"] == "Service"


def test_the_scope_of_a_list(own: Own) -> None:
    # "a-b" is before "a/" in etcd's order: a prefix of a namespace's name is not that namespace.
    with own.sibling("-b") as before, own.sibling("0") as after:
        own.create(own.service("x"), own.service("y"))
        before.create(before.service("z"))
        after.create(after.service("w"))
        assert [each.names() for each in (own, before, after)] == [["x", "y"], ["z"], ["w"]]
        everywhere = own.client.get("/api/v1/services").json["items"]
        in_these = [item for item in everywhere if item["metadata"]["namespace"].startswith(own.namespace)]
        assert [item["metadata"]["name"] for item in in_these] == ["z", "x", "y", "w"]
    assert own.client.get("/api/v1/namespaces/nowhere-at-all/services").names == []
    assert own.client.get(own.slices).names == []


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("", ["a", "b", "c"]),
        ("app=x", ["a"]),
        ("app==x", ["a"]),
        ("app!=x", ["b", "c"]),
        ("app", ["a", "b"]),
        ("!app", ["c"]),
        ("app in (x, y),tier", ["b"]),
        ("app notin (x)", ["b", "c"]),
        ("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name", ["a", "b"]),
    ],
)
def test_label_selectors(own: Own, selector: str, names: list[str]) -> None:
    own.create(own.service("a", labels={"app": "x"}), own.service("b", labels={"app": "y", "tier": "front"}))
    own.create(own.service("c", labels={"service.kubernetes.io/headless": ""}))
    assert own.names(labelSelector=selector) == names


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=a", ["a"]),
        ("metadata.name!=a", ["b"]),
        ("metadata.name=a,metadata.namespace=other", []),
        ("spec.type=NodePort", []),
    ],
)
def test_field_selectors(own: Own, selector: str, names: list[str]) -> None:
    own.create(own.service("a"), own.service("b"))
    assert own.names(fieldSelector=selector) == names


@pytest.mark.parametrize(
    "query",
    [
        {"labelSelector": "a=b=c"},
        {"labelSelector": "a in b"},
        {"fieldSelector": "metadata.name"},
        {"fieldSelector": "spec.sessionAffinity=None"},
        {"continue": "rubbish"},
        {"limit": "many"},
        {"resourceVersion": "one"},
    ],
)
def test_bad_requests(own: Own, query: dict[str, str]) -> None:
    answer = own.client.get(own.services, **query)
    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Newest", "resourceVersion": "1"},
        {"sendInitialEvents": "true"},
    ],
)
def test_options_that_exclude_each_other(own: Own, query: dict[str, str]) -> None:
    answer = own.client.get(own.services, **query)
    assert (answer.status, answer.json["reason"]) == (422, "Invalid")


def pages(own: Own, limit: int, token: str) -> list[Any]:
    """Return all pages of a list of Services, starting with a continue token."""
    found = []
    while token:
        query = {"limit": limit, "continue": token}
        found.append(done(own.client.get(own.services, **query)).json)
        token = found[-1]["metadata"].get("continue", "")
    return found


def test_pages_show_the_state_of_the_first_one(own: Own) -> None:
    own.create(*(own.service(f"s{number}") for number in range(7)))
    first = own.client.get(own.services, limit=3)
    assert (first.names, first.json["metadata"]["remainingItemCount"]) == (["s0", "s1", "s2"], 4)
    own.delete(own.service("s3"))
    own.create(own.service("s35"))
    own.update(own.service("s5", port=81))
    rest = pages(own, 3, first.json["metadata"]["continue"])
    assert [[item["metadata"]["name"] for item in page["items"]] for page in rest] == [
        ["s3", "s4", "s5"],
        ["s6"],
    ]
    assert rest[0]["items"][2]["spec"]["ports"][0]["port"] == 80
    assert [page["metadata"].get("remainingItemCount") for page in rest] == [1, None]
    assert {page["metadata"]["resourceVersion"] for page in rest} == {first.revision}
    assert own.names() == ["s0", "s1", "s2", "s35", "s4", "s5", "s6"]


def test_an_expired_continue_token_is_replaced_by_an_inconsistent_one(
    own: Own, forget: Callable[[], None]
) -> None:
    own.create(*(own.service(f"s{number}") for number in range(4)))
    token = own.client.get(own.services, limit=2).json["metadata"]["continue"]
    own.create(own.service("s15"))
    forget()
    answer = own.client.get(own.services, **{"limit": 2, "continue": token})
    assert (answer.status, answer.json["reason"]) == (410, "Expired")
    assert answer.json["message"].startswith("The provided continue parameter is too old")
    token = answer.json["metadata"]["continue"]
    answer = own.client.get(own.services, **{"continue": token})
    assert (answer.status, answer.names) == (200, ["s15", "s2", "s3"])
    assert int(answer.revision) >= int(own.revision())


def test_with_a_selector_there_is_no_remaining_item_count(own: Own) -> None:
    own.create(*(own.service(f"s{number}", labels={"app": "x"}) for number in range(4)))
    metadata = own.client.get(own.services, limit=2, labelSelector="app").json["metadata"]
    assert metadata["continue"]
    assert "remainingItemCount" not in metadata


def test_revisions_of_a_list(own: Own) -> None:
    own.create(own.service("a"))
    then = own.revision()
    own.create(own.service("b"))
    assert own.names(resourceVersion=then) == ["a", "b"]
    assert own.names(resourceVersion=then, resourceVersionMatch="NotOlderThan") == ["a", "b"]
    assert own.names(resourceVersion=then, **EXACT) == ["a"]
    assert own.names(resourceVersion=then, limit=5) == ["a"]
    assert own.names(resourceVersion=own.revision(), **EXACT) == ["a", "b"]


def test_a_list_of_any_revision_ignores_the_limit(own: Own) -> None:
    (a,) = own.create(own.service("a"))
    own.names(resourceVersion=a["metadata"]["resourceVersion"])  # now the cache has it
    (b,) = own.create(own.service("b"))
    own.names(resourceVersion=b["metadata"]["resourceVersion"])
    assert own.names(resourceVersion=0) == ["a", "b"]
    assert own.names(resourceVersion=0, limit=1) == ["a", "b"]
    assert own.names(limit=-1) == ["a", "b"]


@pytest.mark.parametrize("query", [{}, EXACT, {"limit": "2"}])
def test_a_list_at_a_future_revision(own: Own, query: dict[str, str]) -> None:
    answer = own.client.get(own.services, resourceVersion=FUTURE, **query)
    assert (answer.status, answer.json["reason"]) == (504, "Timeout")
    assert "Too large resource version" in answer.json["message"]


def test_a_list_at_a_compacted_revision(own: Own, forget: Callable[[], None]) -> None:
    then = own.revision()
    own.create(own.service("a"))
    forget()
    answer = own.client.get(own.services, resourceVersion=then, **EXACT)
    assert (answer.status, answer.json["reason"]) == (410, "Expired")
    assert own.names(resourceVersion=own.revision(), **EXACT) == ["a"]


@pytest.mark.parametrize("path", ["/api/v1/nonsense", "/apis/nonsense.k8s.io/v1/nonsense", "/nonsense"])
def test_unknown_paths(own: Own, path: str) -> None:
    assert own.client.get(path).status == 404


def test_a_path_to_an_object_needs_its_namespace(own: Own) -> None:
    answer = own.client.get("/api/v1/services/web")
    assert (answer.status, answer.json["details"]) == (404, {})


@pytest.mark.parametrize("query", [{}, {"watch": "1"}])
@pytest.mark.parametrize("path", ["/api/v1/services", "/readyz", "/nonsense"])
def test_an_unknown_token(unknown_client: Client, path: str, query: dict[str, str]) -> None:
    answer = unknown_client.get(path, **query)
    assert answer.status == 401
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


def test_paths_without_resource(own: Own) -> None:
    assert own.client.get("/version").json["major"] == "1"
    assert own.client.get("/readyz").body == b"ok"
    groups = {group["name"] for group in own.client.get("/apis").json["groups"]}
    assert {"discovery.k8s.io", "networking.k8s.io"} <= groups
    resources = {each["name"]: each for each in own.client.get("/api/v1").json["resources"]}
    assert {"services", "nodes"} <= resources.keys()
    assert (resources["services"]["kind"], resources["services"]["namespaced"]) == ("Service", True)
    assert {"create", "delete", "get", "list", "patch", "update", "watch"} <= set(resources["nodes"]["verbs"])


def test_long_lists_are_chunked_and_compressed_on_request(own: Own) -> None:
    made = [own.service(f"s{number}") for number in range(40)]
    for manifest in made:
        manifest["metadata"]["annotations"] = {"story": "once upon a time " * 256}
    own.create(*made)
    plain = own.client.get(own.services)
    assert (plain.headers["transfer-encoding"], len(plain.names)) == ("chunked", 40)
    assert "content-encoding" not in plain.headers
    own.client.headers["Accept-Encoding"] = "gzip"
    compressed = own.client.get(own.services)
    assert (compressed.headers["content-encoding"], compressed.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(compressed.body) == plain.body
    few = own.client.get(own.services, limit=5)
    assert "content-encoding" not in few.headers
