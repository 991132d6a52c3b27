"""The features that only the double has: a history of fixed length, bookmarks on demand, bursts, and a log.

Its behaviour as a server is tested in test_lists.py, test_watches.py and test_writes.py.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from tests.apiserver import ApiServer
from tests.apiserver.client import Client
from tests.apiserver.objects import SERVICES, service

BOOKMARKS = {"allowWatchBookmarks": "true"}


def summary(event: Any) -> tuple[str, str, int]:
    metadata = event["object"]["metadata"]
    return event["type"], metadata.get("name", ""), int(metadata["resourceVersion"])


def test_requests_share_a_connection(api: ApiServer, client: Client) -> None:
    for _ in range(3):
        client.get(SERVICES)
    assert [seen.connection for seen in api.log] == [1, 1, 1]


def test_each_write_increments_the_revision(api: ApiServer, client: Client) -> None:
    api.create(service("b"), service("a"))
    assert int(client.get(SERVICES).revision) == api.store.revision == 3


def test_a_compacted_revision_may_be_a_status(api: ApiServer, client: Client) -> None:
    api.expired_as_status = True
    revision = client.get(SERVICES).revision
    api.create(service("b"))
    api.store.compact()
    answer = client.get(SERVICES, watch=1, resourceVersion=revision)
    assert (answer.status, answer.json["reason"]) == (410, "Expired")


def test_history_is_a_window() -> None:
    with ApiServer(capacity=3) as api, Client(api.url) as client:
        for port in range(1, 20):
            api.apply(service(port=port))
        with client.watch(SERVICES, str(api.store.revision - 3)) as events:
            assert [next(events)["object"]["spec"]["ports"][0]["port"] for _ in range(3)] == [17, 18, 19]
        with client.watch(SERVICES, "3") as events:
            assert next(events)["object"]["code"] == 410


def test_bookmarks(api: ApiServer, client: Client) -> None:
    api.bookmark_every = 0.05
    revision = client.get(SERVICES).revision
    with client.watch(SERVICES, revision, **BOOKMARKS) as events:
        to = api.store.advance(5)
        while summary(event := next(events))[2] < to:
            assert event["type"] == "BOOKMARK"  # the first ones may come before the revision has advanced
        assert summary(event) == ("BOOKMARK", "", to)
        assert event["object"]["kind"] == "Service"


def test_bookmarks_are_sent_only_on_request(api: ApiServer, client: Client) -> None:
    api.bookmark_every = 0.02
    with client.watch(SERVICES, client.get(SERVICES).revision) as events:
        api.store.advance()
        time.sleep(0.1)
        api.watches.bookmark()
        api.create(service())
        assert next(events)["type"] == "ADDED"


def test_a_watch_from_the_future_is_silent_until_its_revision(api: ApiServer, client: Client) -> None:
    api.bookmark_every = 0.02
    revision = api.store.revision
    with client.watch(SERVICES, str(revision + 2), **BOOKMARKS) as events:
        api.wait(lambda: api.watches.of("services"))
        time.sleep(0.1)
        with api.burst():
            api.create(service("a"), service("b"), service("c"))
        assert summary(next(events)) == ("ADDED", "c", revision + 3)


def test_a_burst_arrives_in_one_piece(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        with api.burst():
            api.create(*(service(f"s{number}") for number in range(50)))
        assert [summary(next(events))[1] for _ in range(50)] == [f"s{number}" for number in range(50)]
    assert len({sent.time for sent in api.watches.sent}) == 1


def test_a_closed_watch_leaves_nothing(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES):
        api.wait(lambda: api.watches.of("services"))
    api.wait(lambda: not api.watches.of("services"))
    assert all(not collection.watchers for collection in api.store.collections.values())


def test_list_and_watch_agree_while_many_write(api: ApiServer) -> None:
    """Whenever a client lists, the list equals its first list with the watched changes."""
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
                    assert now == revision + 1, "an event is missing, or arrived twice"
                    revision = now
                    assert (kind == "ADDED") == (name not in state)
                    if kind == "DELETED":
                        del state[name]
                    else:
                        state[name] = event["object"]["spec"]
                assert state == {item["metadata"]["name"]: item["spec"] for item in listed.json["items"]}
