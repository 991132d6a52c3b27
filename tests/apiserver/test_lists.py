"""Get and list: what a path, a selector, a resourceVersion and a limit ask for."""

from __future__ import annotations

import gzip

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import Client
from tests.apiserver.objects import SERVICES, SLICES, node, service


def test_a_list_has_items_without_kind_and_the_revision_of_the_newest_write(
    api: ApiServer, client: Client
) -> None:
    api.create(service("b"), service("a"), node())
    answer = client.get(SERVICES)
    assert (answer.status, answer.json["kind"], answer.json["apiVersion"]) == (200, "ServiceList", "v1")
    assert answer.names == ["a", "b"]
    assert all("kind" not in item and "apiVersion" not in item for item in answer.json["items"])
    assert int(answer.revision) == api.store.revision
    versions = [int(item["metadata"]["resourceVersion"]) for item in answer.json["items"]]
    assert versions == [api.store.revision - 1, api.store.revision - 2]


def test_a_single_object_has_its_kind(api: ApiServer, client: Client) -> None:
    api.create(service("web", "shop"))
    answer = client.get("/api/v1/namespaces/shop/services/web")
    assert (answer.json["kind"], answer.json["apiVersion"]) == ("Service", "v1")
    assert client.get("/api/v1/namespaces/shop/services/other").status == 404


def test_the_scope_of_a_list(api: ApiServer, client: Client) -> None:
    # "a-b" is before "a/" in etcd's order: a prefix must not be taken for a namespace.
    api.create(service("x", "a"), service("y", "a"), service("z", "a-b"), service("w", "a0"))
    assert client.get("/api/v1/namespaces/a/services").names == ["x", "y"]
    assert client.get("/api/v1/namespaces/a-b/services").names == ["z"]
    assert client.get("/api/v1/namespaces/none/services").names == []
    assert client.get(SERVICES).names == ["z", "x", "y", "w"]
    assert client.get(SLICES).names == []


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
def test_label_selectors(api: ApiServer, client: Client, selector: str, names: list[str]) -> None:
    api.create(service("a", labels={"app": "x"}), service("b", labels={"app": "y", "tier": "front"}))
    api.create(service("c", labels={"service.kubernetes.io/headless": ""}))
    assert client.get(SERVICES, labelSelector=selector).names == names


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=n1", ["n1"]),
        ("metadata.name!=n1", ["n2"]),
        ("spec.unschedulable=true", []),
    ],
)
def test_field_selectors(api: ApiServer, client: Client, selector: str, names: list[str]) -> None:
    api.create(node("n1"), node("n2"))
    assert client.get("/api/v1/nodes", fieldSelector=selector).names == names


@pytest.mark.parametrize(
    "query",
    [
        {"labelSelector": "a=b=c"},
        {"labelSelector": "a in b"},
        {"fieldSelector": "metadata.name"},
        {"continue": "rubbish"},
        {"limit": "-1"},
    ],
)
def test_bad_requests(client: Client, query: dict[str, str]) -> None:
    answer = client.get(SERVICES, **query)
    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Newest", "resourceVersion": "1"},
        {"resourceVersion": "one"},
        {"sendInitialEvents": "true"},
    ],
)
def test_options_that_contradict_each_other(client: Client, query: dict[str, str]) -> None:
    assert client.get(SERVICES, **query).status == 422


def pages(client: Client, limit: int, token: str = "") -> list[dict[str, object]]:
    """All pages of the list of services."""
    found = []
    while True:
        query = {"limit": limit, **({"continue": token} if token else {})}
        answer = client.get(SERVICES, **query)
        assert answer.status == 200, answer.body
        found.append(answer.json)
        token = answer.json["metadata"].get("continue", "")
        if not token:
            return found


def test_pages_show_the_state_of_the_first_one(api: ApiServer, client: Client) -> None:
    api.create(*(service(f"s{number}") for number in range(7)))
    first = client.get(SERVICES, limit=3)
    assert (first.names, first.json["metadata"]["remainingItemCount"]) == (["s0", "s1", "s2"], 4)
    api.delete(service("s3"))
    api.create(service("s35"))
    api.update(service("s5", port=81))
    rest = pages(client, 3, first.json["metadata"]["continue"])
    assert [[item["metadata"]["name"] for item in page["items"]] for page in rest] == [  # type: ignore[attr-defined]
        ["s3", "s4", "s5"],
        ["s6"],
    ]
    assert rest[0]["items"][2]["spec"]["ports"] == [{"port": 80}]  # type: ignore[index]
    assert {page["metadata"]["resourceVersion"] for page in rest} == {first.revision}  # type: ignore[index]
    assert client.get(SERVICES).names == ["s0", "s1", "s2", "s35", "s4", "s5", "s6"]


def test_a_continue_token_expires_and_a_new_one_goes_on_without_consistency(
    api: ApiServer, client: Client
) -> None:
    api.create(*(service(f"s{number}") for number in range(4)))
    token = client.get(SERVICES, limit=2).json["metadata"]["continue"]
    api.create(service("s25"))
    api.store.compact()
    answer = client.get(SERVICES, **{"limit": 2, "continue": token})
    assert (answer.status, answer.json["reason"]) == (410, "Expired")
    token = answer.json["metadata"]["continue"]
    answer = client.get(SERVICES, **{"continue": token})
    assert (answer.names, answer.revision) == (["s2", "s25", "s3"], str(api.store.revision))


def test_with_a_selector_nobody_counts_what_remains(api: ApiServer, client: Client) -> None:
    api.create(*(service(f"s{number}", labels={"app": "x"}) for number in range(4)))
    assert "remainingItemCount" not in client.get(SERVICES, limit=2, labelSelector="app").json["metadata"]


def test_revisions_of_a_list(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    then = api.store.revision
    api.create(service("b"))
    now = api.store.revision
    exact = {"resourceVersionMatch": "Exact"}
    assert client.get(SERVICES, resourceVersion=0).names == ["a", "b"]
    assert client.get(SERVICES, resourceVersion=0, limit=1).names == ["a", "b"]
    assert client.get(SERVICES, resourceVersion=then).names == ["a", "b"]
    assert client.get(SERVICES, resourceVersion=then, **exact).names == ["a"]
    assert client.get(SERVICES, resourceVersion=then, limit=5).names == ["a"]
    future = client.get(SERVICES, resourceVersion=now + 1)
    assert (future.status, future.json["reason"]) == (504, "Timeout")
    api.store.compact()
    assert client.get(SERVICES, resourceVersion=then, **exact).status == 410
    assert client.get(SERVICES, resourceVersion=now, **exact).names == ["a", "b"]


def test_what_is_not_there(client: Client) -> None:
    for path in ("/api/v1/secrets", "/apis/apps/v1/deployments", "/nonsense", "/api/v1/services/web"):
        assert client.get(path).status == 404


def test_paths_without_resource(client: Client) -> None:
    assert client.get("/version").json["major"] == "1"
    assert client.get("/readyz").body == b"ok"
    assert [group["name"] for group in client.get("/apis").json["groups"]] == [
        "discovery.k8s.io",
        "networking.k8s.io",
    ]
    names = {resource["name"] for resource in client.get("/api/v1").json["resources"]}
    assert {"services", "nodes"} <= names


def test_long_lists_are_chunked_and_compressed_for_those_who_like_it(api: ApiServer, client: Client) -> None:
    api.load(service(f"s{number}") for number in range(2000))
    plain = client.get(SERVICES)
    assert (plain.headers["transfer-encoding"], len(plain.names)) == ("chunked", 2000)
    client.headers["Accept-Encoding"] = "gzip"
    compressed = client.get(SERVICES)
    assert compressed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body


def test_requests_share_a_connection(api: ApiServer, client: Client) -> None:
    for _ in range(3):
        client.get(SERVICES)
    assert [seen.connection for seen in api.log] == [1, 1, 1]
