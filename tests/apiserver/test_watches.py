"""Watches: their events, and their start. For the double or a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.own import Own, revision_of

BOOKMARKS = {"allowWatchBookmarks": "true"}
STREAMED = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
FUTURE = "1000000000"


def summary(event: Any) -> tuple[str, str, int]:
    return event["type"], event["object"]["metadata"].get("name", ""), revision_of(event["object"])


def port(event: Any) -> Any:
    return event["object"]["spec"]["ports"][0]["port"]


def test_a_watch_continues_after_a_list(own: Own) -> None:
    own.create(own.service("a"))
    revision = own.revision()
    (created,) = own.create(own.service("b"))
    with own.watch_services(revision) as events:
        assert summary(next(events)) == ("ADDED", "b", revision_of(created))
        updated = own.update(own.service("b", port=81))
        event = next(events)
        assert summary(event) == ("MODIFIED", "b", revision_of(updated))
        assert event["object"] == updated
        assert (event["object"]["kind"], port(event)) == ("Service", 81)
        deleted = own.delete(own.service("b"))
        event = next(events)
        assert summary(event) == ("DELETED", "b", revision_of(deleted))
        assert event["object"] == deleted
        assert revision_of(created) < revision_of(updated) < revision_of(deleted)
        assert port(event) == 81


def test_a_write_without_a_change_sends_no_event(own: Own) -> None:
    (created,) = own.create(own.service("a"))
    with own.watch_services(own.revision()) as events:
        assert revision_of(own.update(created)) == revision_of(created)
        own.update(own.service("a", port=81))
        assert port(next(events)) == 81


@pytest.mark.parametrize("revision", ["", "0"])
def test_a_watch_without_a_revision_begins_with_all_objects(own: Own, revision: str) -> None:
    b, a = own.create(own.service("b"), own.service("a"))
    own.names(resourceVersion=a["metadata"]["resourceVersion"])  # now the cache has it
    with own.watch_services(revision) as events:
        assert summary(next(events)) == ("ADDED", "a", revision_of(a))
        assert summary(next(events)) == ("ADDED", "b", revision_of(b))
        deleted = own.delete(own.service("a"))
        assert summary(next(events)) == ("DELETED", "a", revision_of(deleted))


def test_an_object_that_no_longer_matches_is_deleted_in_its_old_form(own: Own) -> None:
    own.create(own.service("a", labels={"app": "x"}), own.service("b"))
    with own.watch_services(own.revision(), labelSelector="app=x") as events:
        own.update(own.service("b", port=81))
        left = own.update(own.service("a", labels={"app": "y"}))
        event = next(events)
        assert summary(event) == ("DELETED", "a", revision_of(left))
        assert event["object"]["metadata"]["labels"] == {"app": "x"}
        own.update(own.service("b", labels={"app": "x"}))
        assert summary(next(events))[:2] == ("ADDED", "b")


def test_an_object_that_gets_an_excluded_label_is_deleted(own: Own) -> None:
    own.create(own.service())
    label = "service.kubernetes.io/service-proxy-name"
    with own.watch_services(own.revision(), labelSelector=f"!{label}") as events:
        own.update(own.service(labels={label: "another"}))
        assert summary(next(events))[:2] == ("DELETED", "web")
        own.delete(own.service())
        own.create(own.service())
        assert summary(next(events))[:2] == ("ADDED", "web")


def test_a_watch_of_a_namespace_and_of_one_object(own: Own) -> None:
    with own.sibling("-b") as other:
        revision = own.revision()
        other.create(other.service("web"))
        own.create(own.service("api"), own.service("web"))
        with own.watch_services(revision, fieldSelector="metadata.name=web") as events:
            event = next(events)
            assert summary(event)[1] == "web"
            assert event["object"]["metadata"]["namespace"] == own.namespace


def test_a_watch_from_a_compacted_revision(own: Own, forget: Callable[[], None]) -> None:
    own.create(own.slice("a"))
    revision = own.revision()
    own.create(own.slice("b"))
    forget()
    now = own.revision()
    with own.watch(own.slices, revision) as events:
        (event,) = events
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert event["object"]["reason"] == "Expired"
        assert event["object"]["message"].startswith(f"too old resource version: {revision} (")
    with own.watch(own.slices, now) as events:
        own.delete(own.slice("b"))
        assert summary(next(events))[:2] == ("DELETED", "b")


def test_a_watch_ends_at_its_timeout(own: Own) -> None:
    begin = time.monotonic()
    with own.watch_services("0", timeoutSeconds=1) as events:
        assert list(events) == []
    assert time.monotonic() - begin > 0.9


def test_the_connection_of_an_ended_watch_can_be_reused(own: Own) -> None:
    assert own.client.get(own.services, watch=1, resourceVersion=0, timeoutSeconds=1).status == 200
    used = own.client.connection.sock
    assert own.client.get(own.services).status == 200
    assert own.client.connection.sock is used is not None


def test_a_bookmark_before_the_end_with_the_fields_of_an_empty_object(own: Own) -> None:
    before = own.revision()
    (created,) = own.create(own.slice())
    with own.watch(own.slices, before, timeoutSeconds=3, **BOOKMARKS) as events:
        assert next(events)["type"] == "ADDED"
        own.create(own.slice("other"))  # without a change during the watch, a real server sends no bookmark
        event = next(event for event in events if event["type"] != "ADDED")
        kind, name, revision = summary(event)
        assert (kind, name) == ("BOOKMARK", "")
        assert revision >= revision_of(created)
        shown = event["object"]
        assert shown.pop("metadata") == {"resourceVersion": str(revision)}
    assert shown == {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "addressType": "",
        "endpoints": None,
        "ports": None,
    }


def test_a_watch_from_the_future_is_silent(own: Own) -> None:
    with own.watch_services(FUTURE, timeoutSeconds=2, **BOOKMARKS) as events:
        own.create(own.service())
        assert list(events) == []


@pytest.mark.parametrize("options", [STREAMED, {}], ids=["streamed", "without a revision"])
def test_a_streamed_list_ends_with_a_bookmark(own: Own, options: dict[str, str]) -> None:
    b, a = own.create(own.service("b"), own.service("a"))
    with own.watch_services("", **BOOKMARKS, **options) as events:
        assert summary(next(events)) == ("ADDED", "a", revision_of(a))
        assert summary(next(events)) == ("ADDED", "b", revision_of(b))
        event = next(events)
        kind, name, revision = summary(event)
        assert (kind, name) == ("BOOKMARK", "")
        assert revision >= revision_of(a)
        assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        (created,) = own.create(own.service("c"))
        assert summary(next(events)) == ("ADDED", "c", revision_of(created))


def test_a_streamed_list_of_nothing_is_only_its_end(own: Own) -> None:
    with own.watch_services("", **BOOKMARKS, **STREAMED) as events:
        assert next(events)["type"] == "BOOKMARK"


def test_a_streamed_list_without_bookmarks_has_no_end(own: Own) -> None:
    own.create(own.service("a"))
    with own.watch_services("", timeoutSeconds=1, **STREAMED) as events:
        assert [event["type"] for event in events] == ["ADDED"]


def test_a_watch_may_do_without_the_objects(own: Own) -> None:
    own.create(own.service("a"))
    with own.watch_services("", **{**STREAMED, "sendInitialEvents": "false"}) as events:
        own.create(own.service("b"))
        assert summary(next(events))[:2] == ("ADDED", "b")


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "NotOlderThan"},
        {"sendInitialEvents": "true"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"},
    ],
    ids=range(3),
)
def test_parameters_of_watches_that_exclude_each_other(own: Own, query: dict[str, str]) -> None:
    answer = own.client.get(own.services, watch=1, **query)
    assert (answer.status, answer.json["reason"]) == (422, "Invalid")


def test_an_invalid_selector_of_a_watch(own: Own) -> None:
    assert own.client.get(own.services, watch=1, labelSelector="a=b=c").status == 400
