"""Watches: what is shown of changes, from when on, and how a stream ends."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import Client
from tests.apiserver.objects import SERVICES, SLICES, service

BOOKMARKS = {"allowWatchBookmarks": "true"}


def summary(event: Any) -> tuple[str, str, int]:
    metadata = event["object"]["metadata"]
    return event["type"], metadata.get("name", ""), int(metadata["resourceVersion"])


def test_a_watch_goes_on_where_a_list_ends(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    revision = client.get(SERVICES).revision
    number = int(revision)
    api.create(service("b"))
    with client.watch(SERVICES, revision) as events:
        assert summary(next(events)) == ("ADDED", "b", number + 1)
        api.update(service("b", port=81))
        event = next(events)
        assert summary(event) == ("MODIFIED", "b", number + 2)
        assert (event["object"]["kind"], event["object"]["apiVersion"]) == ("Service", "v1")
        assert event["object"]["spec"]["ports"] == [{"port": 81}]
        api.delete(service("b"))
        event = next(events)
        assert summary(event) == ("DELETED", "b", number + 3)
        assert event["object"]["spec"]["ports"] == [{"port": 81}]


def test_a_write_that_changes_nothing_is_no_event(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    revision = client.get(SERVICES).revision
    with client.watch(SERVICES, revision) as events:
        api.update(service("a"))
        api.update(service("a", port=81))
        event = next(events)
        assert summary(event) == ("MODIFIED", "a", int(revision) + 1)
        assert event["object"]["spec"]["ports"] == [{"port": 81}]


@pytest.mark.parametrize("revision", ["", "0"])
def test_a_watch_from_nowhere_begins_with_all_objects(api: ApiServer, client: Client, revision: str) -> None:
    api.create(service("b"), service("a"))
    with client.watch(SERVICES, revision) as events:
        assert summary(next(events)) == ("ADDED", "a", 3)
        assert summary(next(events)) == ("ADDED", "b", 2)
        api.delete(service("a"))
        assert summary(next(events)) == ("DELETED", "a", 4)


def test_an_object_that_leaves_the_selector_is_deleted_as_it_was(api: ApiServer, client: Client) -> None:
    api.create(service("a", labels={"app": "x"}), service("b"))
    with client.watch(SERVICES, client.get(SERVICES).revision, labelSelector="app=x") as events:
        api.update(service("b", port=81))
        api.update(service("a", labels={"app": "y"}))
        event = next(events)
        assert summary(event) == ("DELETED", "a", api.store.revision)
        assert event["object"]["metadata"]["labels"] == {"app": "x"}
        api.update(service("b", labels={"app": "x"}))
        assert summary(next(events))[:2] == ("ADDED", "b")


def test_a_watch_of_a_namespace_and_of_one_object(api: ApiServer, client: Client) -> None:
    with client.watch("/api/v1/namespaces/shop/services", fieldSelector="metadata.name=web") as events:
        api.create(service("web", "other"), service("api", "shop"), service("web", "shop"))
        event = next(events)
        assert (summary(event)[1], event["object"]["metadata"]["namespace"]) == ("web", "shop")


@pytest.mark.parametrize("as_status", [False, True])
def test_what_is_compacted_is_gone(api: ApiServer, client: Client, as_status: bool) -> None:
    api.expired_as_status = as_status
    api.create(service("a"))
    revision = client.get(SERVICES).revision
    api.create(service("b"))
    api.store.compact()
    if as_status:
        answer = client.get(SERVICES, watch=1, resourceVersion=revision)
        assert (answer.status, answer.json["reason"]) == (410, "Expired")
    else:
        with client.watch(SERVICES, revision) as events:
            (event,) = events
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    with client.watch(SERVICES, str(api.store.revision)) as events:
        api.delete(service("b"))
        assert summary(next(events))[0] == "DELETED"


def test_history_is_a_window() -> None:
    with ApiServer(capacity=3) as api, Client(api.url) as client:
        for port in range(1, 20):
            api.apply(service(port=port))
        with client.watch(SERVICES, str(api.store.revision - 3)) as events:
            assert [next(events)["object"]["spec"]["ports"][0]["port"] for _ in range(3)] == [17, 18, 19]
        with client.watch(SERVICES, "3") as events:
            assert next(events)["object"]["code"] == 410


def test_a_watch_ends_at_its_timeout(client: Client) -> None:
    begin = time.monotonic()
    with client.watch(SERVICES, timeoutSeconds=1) as events:
        assert list(events) == []
    assert 0.9 < time.monotonic() - begin < 3


def test_the_connection_of_a_watch_that_ended_can_be_used_again(api: ApiServer, client: Client) -> None:
    client.get(SERVICES, watch=1, timeoutSeconds=1)
    assert client.get(SERVICES).status == 200
    assert [seen.connection for seen in api.log] == [1, 1]


def test_bookmarks(api: ApiServer, client: Client) -> None:
    api.bookmark_every = 0.05
    revision = client.get(SERVICES).revision
    with client.watch(SERVICES, revision, **BOOKMARKS) as events:
        to = api.store.advance(5)
        event = next(events)
        assert summary(event) == ("BOOKMARK", "", to)
        assert event["object"]["kind"] == "Service"


def test_a_bookmark_shows_what_is_always_encoded(api: ApiServer, client: Client) -> None:
    with client.watch(SLICES, **BOOKMARKS) as events:
        api.wait(lambda: api.watches.of("endpointslices"))
        api.watches.bookmark()
        shown = next(events)["object"]
    assert shown.pop("metadata") == {"resourceVersion": "1", "creationTimestamp": None}
    assert shown == {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "addressType": "",
        "endpoints": None,
        "ports": None,
    }


def test_bookmarks_come_only_to_those_who_want_them(api: ApiServer, client: Client) -> None:
    api.bookmark_every = 0.02
    with client.watch(SERVICES, client.get(SERVICES).revision) as events:
        api.store.advance()
        time.sleep(0.1)
        api.watches.bookmark()
        api.create(service())
        assert next(events)["type"] == "ADDED"


def test_a_watch_list_marks_the_end_of_what_there_is(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", **BOOKMARKS}
    with client.watch(SERVICES, **query) as events:
        assert summary(next(events))[:2] == ("ADDED", "a")
        event = next(events)
        assert event["type"] == "BOOKMARK"
        assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert event["object"]["metadata"]["resourceVersion"] == str(api.store.revision)


def test_a_watch_list_of_the_future(api: ApiServer, client: Client) -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", **BOOKMARKS}
    with client.watch(SERVICES, str(api.store.revision + 1), **query) as events:
        assert [event["object"]["code"] for event in events] == [504]


@pytest.mark.parametrize("revision", ["", "0"])
def test_a_watch_without_initial_events_begins_now(api: ApiServer, client: Client, revision: str) -> None:
    api.create(service("a"))
    api.store.compact()
    query = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    with client.watch(SERVICES, revision, **query) as events:
        api.wait(lambda: api.watches.of("services"))
        api.create(service("b"))
        assert summary(next(events))[1] == "b"


def test_a_server_without_watch_list(api: ApiServer, client: Client) -> None:
    api.watch_list = False
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    assert client.get(SERVICES, watch=1, **query).status == 422


def test_a_watch_from_the_future_is_silent_until_then(api: ApiServer, client: Client) -> None:
    api.bookmark_every = 0.02
    revision = api.store.revision
    with client.watch(SERVICES, str(revision + 2), **BOOKMARKS) as events:
        api.wait(lambda: api.watches.of("services"))
        time.sleep(0.1)
        with api.burst():
            api.create(service("a"), service("b"), service("c"))
        assert summary(next(events)) == ("ADDED", "c", revision + 3)


def test_a_burst_comes_at_once(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        with api.burst():
            api.create(*(service(f"s{number}") for number in range(50)))
        assert [summary(next(events))[1] for _ in range(50)] == [f"s{number}" for number in range(50)]
    assert len({sent.time for sent in api.watches.sent}) == 1


def test_a_client_that_goes_leaves_nothing(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES):
        api.wait(lambda: api.watches.of("services"))
    api.wait(lambda: not api.watches.of("services"))
    assert all(not collection.watchers for collection in api.store.collections.values())


def test_list_and_watch_agree_while_many_write(api: ApiServer) -> None:
    """Whenever a client lists, what it has watched since its first list is what the list says."""
    stop = threading.Event()

    def write(writer: int) -> None:
        there: set[str] = set()
        for turn in itertools.count():
            if stop.is_set():
                return
            name = f"s{writer}-{turn * 7 % 20}"
            if turn % 3 or name not in there:
                api.apply(service(name, port=turn))
                there.add(name)
            else:
                api.delete(service(name))
                there.remove(name)
            time.sleep(0.0005)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        compare(api)
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def compare(api: ApiServer) -> None:
    with Client(api.url) as lister, Client(api.url) as watcher:
        begin = lister.get(SERVICES)
        state = {item["metadata"]["name"]: item["spec"] for item in begin.json["items"]}
        revision = int(begin.revision)
        with watcher.watch(SERVICES, begin.revision) as events:
            for _ in range(10):
                listed = lister.get(SERVICES)
                while revision < int(listed.revision):
                    event = next(events)
                    kind, name, now = summary(event)
                    assert now == revision + 1, "an event is missing, or there twice"
                    revision = now
                    assert (kind == "ADDED") == (name not in state)
                    if kind == "DELETED":
                        del state[name]
                    else:
                        state[name] = event["object"]["spec"]
                assert state == {item["metadata"]["name"]: item["spec"] for item in listed.json["items"]}
