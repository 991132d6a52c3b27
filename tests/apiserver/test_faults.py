"""Faults on demand, from the client's point of view."""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPException, IncompleteRead
from typing import Any

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import Client
from tests.apiserver.faults import Answer, Delay, Reset, Silence, Trickle
from tests.apiserver.objects import SERVICES, SLICES, service
from tests.apiserver.status import ApiError


def test_an_error_for_a_number_of_requests(api: ApiServer, client: Client) -> None:
    api.faults.add(Answer(500), times=2)
    assert [client.get(SERVICES).status for _ in range(3)] == [500, 500, 200]


def test_too_many_requests_with_retry_after(api: ApiServer, client: Client) -> None:
    api.faults.add(Answer(429, retry_after=3))
    answer = client.get(SERVICES)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert answer.json["reason"] == "TooManyRequests"


def test_an_answer_of_a_proxy(api: ApiServer, client: Client) -> None:
    api.faults.add(Answer(502, text="<h1>Bad Gateway</h1>"))
    answer = client.get(SERVICES)
    assert (answer.status, answer.headers["content-type"]) == (502, "text/html")
    assert answer.body == b"<h1>Bad Gateway</h1>"


def test_a_fault_applies_to_a_verb_and_a_resource(api: ApiServer, client: Client) -> None:
    fault = api.faults.add(Answer(503), verb="watch", resource="services", times=None)
    assert client.get(SERVICES).status == 200
    assert client.get(SLICES, watch=1, timeoutSeconds=1).status == 200
    assert [client.get(SERVICES, watch=1).status for _ in range(2)] == [503, 503]
    api.faults.remove(fault)
    assert client.get(SERVICES, watch=1, timeoutSeconds=1).status == 200


def test_a_delay(api: ApiServer, client: Client) -> None:
    api.faults.add(Delay(0.2))
    begin = time.monotonic()
    assert client.get(SERVICES).status == 200
    assert time.monotonic() - begin >= 0.2


def test_a_connection_reset_before_the_answer(api: ApiServer, client: Client) -> None:
    api.faults.add(Reset())
    with pytest.raises(ConnectionResetError):
        client.get(SERVICES)


def test_a_list_that_is_cut_off(api: ApiServer, client: Client) -> None:
    api.load(service(f"s{number}") for number in range(2000))
    api.faults.add(Reset(after=10_000))
    with pytest.raises((ConnectionResetError, IncompleteRead)):
        client.get(SERVICES)
    assert len(Client(api.url).get(SERVICES).names) == 2000


def test_silence(api: ApiServer) -> None:
    api.faults.add(Silence())
    with Client(api.url, timeout=0.2) as client, pytest.raises(TimeoutError):
        client.get(SERVICES)


def test_a_trickle(api: ApiServer, client: Client) -> None:
    api.create(service())
    api.faults.add(Trickle(size=100, seconds=0.02))
    begin = time.monotonic()
    assert client.get(SERVICES).names == ["web"]
    assert time.monotonic() - begin >= 0.04


# Open watches


def line(event: Any) -> Any:
    return event["type"], event["object"]["metadata"].get("name")


def test_a_watch_ends_properly(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.create(service("a"))
        api.watches.end("services")
        assert [line(event) for event in events] == [("ADDED", "a")]


def test_a_watch_reset(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.create(service("a"))
        assert line(next(events)) == ("ADDED", "a")
        api.watches.reset()
        with pytest.raises((ConnectionResetError, IncompleteRead)):
            next(events)


def test_a_watch_held_back_and_released(api: ApiServer) -> None:
    with Client(api.url) as client, client.watch(SERVICES, "1") as events:
        api.wait(lambda: api.watches.of("services"))
        client.connection.sock.settimeout(0.2)
        api.watches.hold("services")
        api.create(service("a"))
        with pytest.raises(TimeoutError):
            next(events)
        assert api.watches.of("services"), "the connection stays"
    with Client(api.url) as client, client.watch(SERVICES, str(api.store.revision)) as events:
        (watch,) = api.wait(lambda: [watch for watch in api.watches.of("services") if not watch.held])
        api.watches.hold()
        api.create(service("b"), service("c"))
        time.sleep(0.05)
        assert len(watch.queue) == 2
        api.watches.release()
        assert [line(next(events)) for _ in range(2)] == [("ADDED", "b"), ("ADDED", "c")]


def test_expired_in_the_middle(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.watches.expire()
        (event,) = events
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_another_error_in_the_middle(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.watches.error(ApiError(500, "InternalError", "etcd has no leader"))
        assert [event["object"]["code"] for event in events] == [500]


def test_a_line_that_is_not_json(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.watches.inject(b'{"type": rubbish\n')
        with pytest.raises(json.JSONDecodeError):
            next(events)


def test_a_line_that_is_cut_off(api: ApiServer, client: Client) -> None:
    response = client.open("GET", SERVICES, watch=1)
    api.wait(lambda: api.watches.of("services"))
    api.watches.inject(b'{"type":"ADDED","obj')
    api.watches.end()
    assert response.read() == b'{"type":"ADDED","obj'


def test_an_event_twice(api: ApiServer, client: Client) -> None:
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.create(service("a"))
        api.watches.repeat("services", "default/a")
        assert [line(next(events)) for _ in range(2)] == [("ADDED", "a"), ("MODIFIED", "a")]


def test_an_object_of_wrong_types_is_served_unchanged(api: ApiServer, client: Client) -> None:
    odd = {"kind": "Service", "metadata": {"name": "odd"}, "spec": {"ports": "many"}}
    with client.watch(SERVICES) as events:
        api.wait(lambda: api.watches.of("services"))
        api.apply(odd)
        assert next(events)["object"]["spec"] == {"ports": "many"}
    assert client.get(SERVICES).json["items"][0]["spec"] == {"ports": "many"}


# The server


def refused(api: ApiServer) -> bool:
    try:
        socket.create_connection((api.host, api.port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_new_connections_are_refused_and_existing_ones_stay(api: ApiServer, client: Client) -> None:
    assert client.get(SERVICES).status == 200
    api.refuse()
    assert refused(api)
    assert client.get(SERVICES).status == 200
    api.resume()
    assert not refused(api)


def test_stop_ends_all_connections_and_the_port_stays(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    port = api.port
    with client.watch(SERVICES, "1") as events:
        next(events)
        api.stop()
        with pytest.raises((OSError, HTTPException)):
            next(events)
    assert refused(api)
    api.resume()
    assert api.port == port
    with client.watch(SERVICES, "1") as events:
        assert line(next(events)) == ("ADDED", "a")


def test_a_restarted_server_has_objects_and_revision_but_no_history(api: ApiServer, client: Client) -> None:
    api.create(service("a"), service("b"))
    revision = api.store.revision
    api.restart()
    answer = client.get(SERVICES)
    assert (answer.names, answer.revision) == (["a", "b"], str(revision))
    with client.watch(SERVICES, str(revision - 1)) as events:
        assert next(events)["object"]["code"] == 410


def test_a_restored_server_has_a_lower_revision(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    backup = api.store.backup()
    api.create(service("b"))
    api.delete(service("a"))
    seen = client.get(SERVICES).revision
    api.restore(backup)
    client.connection.close()
    answer = client.get(SERVICES)
    assert (answer.names, answer.revision) == (["a"], str(backup.revision))
    assert client.get(SERVICES, resourceVersion=seen).status == 504
    with client.watch(SERVICES, str(seen)) as events:
        api.wait(lambda: api.watches.of("services"))
        api.create(service("c"), service("d"), service("e"))
        assert line(next(events)) == ("ADDED", "e"), "writes up to the old revision are not sent"
    with Client(api.url) as other, other.watch(SERVICES, str(backup.revision - 1)) as events:
        assert next(events)["object"]["code"] == 410


def test_a_lost_server_is_empty(api: ApiServer, client: Client) -> None:
    api.create(service("a"))
    api.restore()
    assert (client.get(SERVICES).names, client.get(SERVICES).revision) == ([], "1")
