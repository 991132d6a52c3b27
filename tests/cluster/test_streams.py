"""Lists that arrive as the begin of a watch, from servers that send them and from those that do not."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kproxy.sources.cluster.core import events, formats, streamed
from kproxy.sources.cluster.core.events import END_OF_LIST
from kproxy.sources.cluster.reflector import Reflector
from tests.apiserver import ApiServer
from tests.apiserver.faults import Answer, Effect, Flood, Hold, Reset, Silence
from tests.cluster.follower import FOLLOWED, QUICK, Follower, service, slice_
from tests.cluster.test_following import CIDRS, SERVICES, replaced_unseen, watching

START = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
SECONDS = 0.5


def line(kind: str, name: str = "", version: str = "9", size: int = 0, **metadata: Any) -> bytes:
    """A line of a watch."""
    own = {"name": name, "resourceVersion": version, "x": "x" * size, **metadata}
    content = {"type": kind, "object": {"metadata": own, "spec": service()["spec"]}}
    return json.dumps(content).encode() + b"\n"


def end(version: str = "9") -> bytes:
    """The end of a streamed list."""
    return line("BOOKMARK", version=version, annotations={END_OF_LIST: "true"})


def sent(*lines: bytes, again: bytes = b"", seconds: float = 0.01) -> Flood:
    """A watch that consists of these lines, and one that is repeated as long as the client stays."""
    return Flood(START + b"".join(lines), again, seconds)


class Row(NamedTuple):
    """What a server does with a request for a streamed list, so that kproxy requests pages."""

    effect: Effect
    problem: str
    """A regular expression; "" if there is none."""
    times: int = 1
    """The number of requests that it takes."""


ERROR_410 = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'
ERROR_500 = b'{"type":"ERROR","object":{"kind":"Status","code":500,"reason":"InternalError"}}\n'
ADDED = line("ADDED", "other")
HOSTILE = {
    "an older server": Row(Answer(422), ""),
    "a server that knows no such watch": Row(Answer(400), ""),
    "a server with an older etcd": Row(sent(ERROR_500), ""),
    "the end of the watch before that of the list": Row(sent(ADDED), "it has no end"),
    "no end, and silence": Row(sent(ADDED, again=b"\n", seconds=60), "its end does not arrive in time"),
    "no end, and no silence": Row(sent(ADDED, again=b"\n"), "its end does not arrive in time"),
    "only later changes": Row(sent(again=line("MODIFIED", "web")), "its end does not arrive in time"),
    "only bookmarks": Row(sent(again=line("BOOKMARK")), "its end does not arrive in time"),
    "no answer": Row(Silence(), "timeout while waiting for data", times=2),
    "an end without a version": Row(sent(ADDED, end("")), "the list has no resourceVersion"),
    "an end with another annotation": Row(
        sent(ADDED, line("BOOKMARK", annotations={END_OF_LIST: "false"})), "it has no end"
    ),
    "garbage": Row(sent(ADDED, b"<html>\n", end()), "invalid watch event"),
    "an unknown event": Row(sent(line("REPLACED", "web"), end()), "unknown type of watch event"),
    "an incomplete last line": Row(sent(ADDED, end()[:-5]), "it has no end"),
    "objects without end": Row(sent(*(line("ADDED", str(n)) for n in range(30))), "more than 20"),
    "an object that is too long": Row(sent(line("ADDED", "web", size=1_200_000)[:-9]), "longer than 1 MiB"),
    "objects that are too long": Row(
        sent(*(line("ADDED", str(n), size=900_000) for n in range(4))), "together they are longer than 3 MiB"
    ),
    "invalid objects": Row(sent(*[b'{"type":"ADDED","object":{}}\n'] * 6), "more than 5 are invalid"),
    "410 as a status": Row(Answer(410), "", times=2),
    "410 in the middle": Row(sent(ADDED, ERROR_410), "", times=2),
    "500 in the middle": Row(sent(ADDED, ERROR_500), ""),
    "500": Row(Answer(500), ""),
    "a reset in the middle": Row(Reset(400), "incomplete|reset by peer", times=2),
}


@pytest.fixture(autouse=True)
def _low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that the tests are quick."""
    monkeypatch.setattr(events, "API_OBJECT", 1 << 20)
    monkeypatch.setattr(formats, "API_OBJECT", 1 << 20)
    monkeypatch.setattr(events, "API_OBJECTS", 20)
    monkeypatch.setattr(events, "API_INVALID", 5)
    monkeypatch.setattr(events, "API_TEXT", 3 << 20)


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All problems of connections, in order."""
    found: list[str] = []
    fail = Reflector._fail

    def record(reflector: Reflector, error: Exception) -> None:
        fail(reflector, error)
        if reflector.failure:
            found.append(reflector.failure.message)

    monkeypatch.setattr(Reflector, "_fail", record)
    return found


def streams(api: ApiServer, resource: str = SERVICES) -> int:
    """Return how often a streamed list was requested."""
    return sum("sendInitialEvents" in seen.query for seen in api.requests(verb="watch", resource=resource))


def pages(api: ApiServer, resource: str = SERVICES) -> int:
    """Return how many pages of a list were requested."""
    requests = api.requests(verb="list", resource=resource)
    return sum("limit" in seen.query and "fieldSelector" not in seen.query for seen in requests)


def test_a_start_is_one_request_of_each_kind(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), slice_(), service("api"))
    with Follower(api, tmp_path) as follower:
        assert follower.names() == ["api", "web"]
        watching(api)
        assert sorted(seen.resource for seen in api.log) == sorted(FOLLOWED)
        for seen in api.log:
            assert "resourceVersion" not in seen.query
            assert seen.query["resourceVersionMatch"] == "NotOlderThan"
        api.update(service("web", 81))
        follower.changed("web")
        assert len(api.log) == len(FOLLOWED)
        assert follower.messages() == []


def test_a_streamed_list_replaces_what_was_known(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), service("gone"))
    with Follower(api, tmp_path) as follower:
        replaced_unseen(api, follower)
        assert (streams(api), pages(api)) == (2, 0)


@pytest.mark.parametrize("row", HOSTILE.values(), ids=HOSTILE.keys())
def test_pages_follow_after_a_streamed_list_that_fails(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: list[str], row: Row
) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.create(service("api"))
        follower.changed("api")
        if "time" in row.problem:
            monkeypatch.setattr(streamed, "API_STREAM_SECONDS", SECONDS)
            monkeypatch.setattr(streamed, "API_STREAM_IDLE_SECONDS", SECONDS / 2)
        api.faults.add(Answer(410), verb="watch", resource=SERVICES)  # everything must be listed again
        api.faults.add(row.effect, verb="watch", resource=SERVICES, times=row.times)
        api.watches.reset(SERVICES)
        follower.wait(lambda: follower.names() != ["api", "web"] or pages(api))
        assert follower.names() == ["api", "web"]
        watching(api)
        assert streams(api) == 1 + row.times
        api.create(service("new"))
        follower.changed("new")
        assert follower.names() == ["api", "new", "web"]
        assert all(re.search(row.problem, problem) for problem in problems)
        assert bool(problems) is bool(row.problem)


def test_a_server_that_is_busy_is_asked_for_a_stream_again(api: ApiServer, tmp_path: Path) -> None:
    api.faults.add(Answer(429, retry_after=0), verb="watch", resource=SERVICES, times=3)
    with Follower(api, tmp_path):
        assert (streams(api), pages(api)) == (4, 0)


def test_an_empty_streamed_list_is_an_empty_list(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.faults.add(Answer(410), verb="watch", resource=SERVICES)
        api.faults.add(sent(end("2"), again=b"\n", seconds=60), verb="watch", resource=SERVICES)
        api.watches.reset(SERVICES)
        follower.changed("web")
        assert follower.names() == []


def test_changes_before_the_end_are_part_of_the_list(api: ApiServer, tmp_path: Path) -> None:
    lines = [line("ADDED", "gone", "7"), line("ADDED", "web", "5"), line("BOOKMARK", version="6")]
    lines += [
        line("DELETED", "gone", "8"),
        line("MODIFIED", "web", "9"),
        end("9"),
        line("ADDED", "new", "10"),
    ]
    api.faults.add(sent(*lines, again=b"\n", seconds=60), verb="watch", resource=SERVICES)
    with Follower(api, tmp_path) as follower:
        follower.sees("new", "web")
        assert follower.messages() == []


def test_nothing_is_used_before_the_end(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    api.faults.add(sent(ADDED), verb="watch", resource=SERVICES)
    held = api.faults.add(Hold("the list"), verb="list", resource=SERVICES)
    with Follower(api, tmp_path, sync=False) as follower:
        api.wait(lambda: not held.times)
        assert follower.names() == []
        api.faults.release("the list")
        follower.wait(lambda: follower.source.synced)
        assert follower.names() == ["web"]


def test_a_kind_that_the_server_lacks_is_asked_for_once(api: ApiServer, tmp_path: Path) -> None:
    api.faults.add(Answer(404), resource=CIDRS, times=None)
    with Follower(api, tmp_path) as follower:
        assert len(api.requests(resource=CIDRS)) == 1
        assert follower.messages() == []


def test_a_start_waits_for_a_random_time(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    begun = time.monotonic()
    with Follower(api, tmp_path, start_jitter=0.4):
        assert api.log[0].time >= begun + 0.2


def test_watches_that_end_together_are_not_resumed_together(api: ApiServer, tmp_path: Path) -> None:
    with Follower(api, tmp_path, QUICK._replace(jitter=0.5)) as follower:
        watching(api)
        ended = []
        for _ in range(6):
            before = len(api.requests(verb="watch"))
            api.watches.end()
            api.wait(lambda before=before: len(api.requests(verb="watch")) == before + 4)  # type: ignore[misc]
            times = [seen.time for seen in api.requests(verb="watch")[before:]]
            ended.append(max(times) - min(times))
            watching(api)
        assert max(ended) > 0.1
        assert follower.messages() == []
