"""Lists and watches that would fill the memory: kproxy says what is too much, and keeps what it has."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kproxy.intake import requests
from kproxy.sources.cluster import reflector
from kproxy.sources.cluster.core import events, formats
from tests.apiserver import ApiServer
from tests.apiserver.faults import Answer, Flood
from tests.cluster.follower import QUICK, Follower, service

SERVICES = "services"
START = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ZIPPED = START + b"Content-Encoding: gzip\r\n\r\n"
MANY = b'{"items":[' + b"0," * 50_000


def object_(name: str, size: int = 0) -> dict[str, object]:
    """A Service as the API sends it, whose text is longer than `size`."""
    return {"metadata": {"name": name, "annotations": {"a": "a" * size}}, "spec": service()["spec"]}


def added(number: int) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": "ADDED", "object": object_(str(number))}).encode() + b"\n"


def listed(*names: str, more: str = "", size: int = 0) -> bytes:
    """A response with a page of a list."""
    page = {
        "metadata": {"resourceVersion": "9", "continue": more},
        "items": [object_(n, size) for n in names],
    }
    return START + b"\r\n" + json.dumps(page).encode()


@pytest.fixture(autouse=True)
def _low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that the tests are quick."""
    monkeypatch.setattr(requests, "API_PAGE", 2 << 20)
    monkeypatch.setattr(events, "API_OBJECT", 1 << 20)
    monkeypatch.setattr(formats, "API_OBJECT", 1 << 20)
    monkeypatch.setattr(formats, "API_VALUES", 30_000)
    monkeypatch.setattr(events, "API_OBJECTS", 20)
    monkeypatch.setattr(events, "API_INVALID", 5)
    monkeypatch.setattr(events, "API_TEXT", 3 << 20)
    monkeypatch.setattr(events, "API_PAGES_WITHOUT_NEWS", 3)


@pytest.mark.parametrize(
    ("head", "part", "problem"),
    [
        (START + b"\r\n", b" " * 65536, "the response is longer than 2 MiB"),
        (ZIPPED + gzip.compress(b" " * (4 << 20)), b"", "the response is longer than 2 MiB"),
        (ZIPPED + gzip.compress(b"{}") * 2, b"", "data follows after the end of the compressed response"),
        (ZIPPED + gzip.compress(b"{}")[:-9], b"", "the compressed response is incomplete"),
        (ZIPPED + b"{}", b"", "the compressed response is invalid"),
        (START + b"Content-Encoding: br\r\n\r\n{}", b"", "the encoding 'br', which was not requested"),
        (START + b"\r\n" + MANY + b"0]}", b"", "the response has more than 30,000 values"),
        (listed(*map(str, range(30))), b"", "there are more than 20"),
        (listed(*map(str, range(4)), size=900_000), b"", "together they are longer than 3 MiB"),
        (START + b'\r\n{"metadata":{},"items":[{},{},{},{},{},{}]}', b"", "more than 5 are invalid"),
        (listed("a", more="again"), b"", "more than 3 pages without a new object"),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_list_that_is_too_long(
    paged: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, part: bytes, problem: str
) -> None:
    if "together" in problem:
        monkeypatch.setattr(requests, "API_PAGE", 64 << 20)
    paged.create(service("web"))
    with Follower(paged, tmp_path) as follower:
        paged.faults.add(Answer(410), resource=SERVICES)  # everything must be listed again
        paged.faults.add(Flood(head, part), verb="list", resource=SERVICES, times=None)
        paged.watches.reset(SERVICES)
        follower.wait(lambda: any(problem in message for message in follower.messages()))
        assert follower.messages()[0].startswith("cluster: cannot follow Services: ")
        follower.sees("web")
        paged.faults.clear()
        paged.create(service("api"))
        follower.sees("api", "web")


def test_smaller_pages_are_requested_after_one_that_is_too_long(paged: ApiServer, tmp_path: Path) -> None:
    for number in range(8):
        metadata = {"annotations": {"a": "a" * 60_000}}
        paged.create(service(f"web-{number}", metadata=metadata))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "API_PAGE", 100_000)
        with Follower(paged, tmp_path) as follower:  # whose pages have two objects
            assert len(follower.names()) == 8
    limits = [seen.query["limit"] for seen in paged.requests(verb="list", resource=SERVICES)]
    assert limits == ["2"] + ["1"] * 8


def test_an_object_that_is_too_long_is_a_problem(api: ApiServer, tmp_path: Path) -> None:
    long = service("long", metadata={"annotations": {"a": "a" * 1_100_000}})
    api.create(service("web"), long)
    with Follower(api, tmp_path) as follower:
        assert follower.messages() == ["cluster: Service default/long: is longer than 1 MiB"]
        follower.sees("web")


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b'{"type":"ADDED","object":{"a":"' + b"a" * 1_100_000, "a watch event is longer than 1 MiB"),
        (b"".join(map(added, range(30))), "there are more than 20"),
    ],
    ids=range(2),
)  # fmt: skip
def test_a_watch_that_sends_too_much(api: ApiServer, tmp_path: Path, sent: bytes, problem: str) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        api.faults.add(Flood(START + b"\r\n" + sent), verb="watch", resource=SERVICES, times=None)
        api.watches.reset(SERVICES)
        follower.wait(lambda: any(problem in message for message in follower.messages()))
        assert "web" in follower.names()
        api.faults.clear()
        follower.sees("web")  # the next list does not have the others


def test_a_watch_ends_after_the_requested_time(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the server goes on sending."""
    monkeypatch.setattr(reflector, "API_WATCH_GRACE", -299.9)
    api.create(service("web"))
    with Follower(api, tmp_path, QUICK._replace(watch=(300, 300))) as follower:
        before = len(api.requests(verb="watch", resource=SERVICES))
        api.wait(lambda: len(api.requests(verb="watch", resource=SERVICES)) > before + 3)
        follower.sees("web")
