"""Following an API server with lists and watches, also when connections and servers fail."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from kproxy.settings.text import CONTENT_TYPES
from kproxy.sources.cluster.reflector import Pacing
from tests.apiserver import ApiServer
from tests.apiserver.faults import Answer, Delay, Hold, Reset, Silence, Trickle
from tests.apiserver.objects import node, service_cidr
from tests.apiserver.status import expired
from tests.cluster.follower import FOLLOWED, QUICK, Follower, service, slice_
from tests.unit.make import name

SERVICES, SLICES, CIDRS = "services", "endpointslices", "servicecidrs"


def watching(api: ApiServer, *resources: str) -> None:
    """Wait until these resources are watched."""
    api.wait(lambda: all(map(api.watches.of, resources or FOLLOWED)))


def replaced_unseen(api: ApiServer, follower: Follower) -> None:
    """While the server is away, a Service replaces `gone`, and the history ends. Wait until that was seen."""
    watching(api)
    api.stop()
    api.delete(service("gone"))
    api.create(service("new"))
    api.store.compact()
    api.resume()
    follower.changed("gone", "new")
    follower.sees("web", "new")


def lists(api: ApiServer, resource: str = SERVICES) -> int:
    """Return how often a resource was listed completely. Checks of the server's history do not count."""
    paged = sum(
        "continue" not in seen.query and seen.query.get("limit") != "1"
        for seen in api.requests(verb="list", resource=resource)
    )
    streamed = sum(
        "sendInitialEvents" in seen.query for seen in api.requests(verb="watch", resource=resource)
    )
    return paged + streamed


def test_everything_is_listed_and_then_watched(api: ApiServer, tmp_path: Path) -> None:
    api.create(
        service("web"), slice_("web-1"), node("n1", {"topology.kubernetes.io/zone": "here"}), node("n2")
    )
    with Follower(api, tmp_path, sync=False) as follower:
        follower.wait(lambda: follower.source.synced)
        assert follower.woken.is_set()
        assert follower.take() == {name("web")}
        assert [member.name for member in follower.source.slices(name("web"))] == ["web-1"]
        here = follower.source.nodes()
        assert here["n1"].zone == "here"
        follower.woken.clear()
        watching(api)
        api.create(service("api"), slice_("api-1", "api"))
        follower.changed("api")
        assert follower.woken.is_set()
        follower.wait(lambda: follower.port("api") == 80 and follower.source.slices(name("api")))
        follower.take()  # the Service and its slice are two events
        api.update(service("api", 81))
        follower.changed("api")
        assert follower.port("api") == 81
        api.delete(service("api"))
        follower.changed("api")
        follower.sees("web")
        before = follower.source.revision
        assert follower.take() == set()
        assert follower.source.revision == before
        api.update(node("n1", {"topology.kubernetes.io/zone": "there"}))
        follower.wait(lambda: follower.source.nodes() != here)
        assert follower.take() == set()
        assert follower.source.revision == before + 1
        assert follower.messages() == []


def test_services_of_another_proxy_and_slices_of_headless_ones(api: ApiServer, tmp_path: Path) -> None:
    other_proxy = {"service.kubernetes.io/service-proxy-name": "other"}
    api.create(service("web"), service("other", metadata={"labels": other_proxy}))
    api.create(slice_("web-1"), slice_("head-1", "head", labels={"service.kubernetes.io/headless": ""}))
    with Follower(api, tmp_path) as follower:
        follower.sees("other", "web")
        assert elsewhere(follower) == ["other"]
        assert list(follower.source.inventory().slices) == [name("web")]
        watching(api)
        api.update(service("web", metadata={"labels": other_proxy}))
        follower.changed("web")
        assert elsewhere(follower) == ["other", "web"]


def elsewhere(follower: Follower) -> list[str]:
    """Return the names of the services that another proxy serves."""
    found = follower.source.inventory().services.values()
    return sorted(service.name.name for service in found if service.proxied_elsewhere)


def test_take_returns_nothing_before_all_kinds_were_listed(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), slice_())
    fault = api.faults.add(Answer(503), resource=SLICES, times=None)
    with Follower(api, tmp_path, sync=False) as follower:
        follower.wait(lambda: follower.names() == ["web"])
        watching(api, SERVICES)
        assert not follower.source.synced
        assert follower.take() == set()
        assert not follower.woken.is_set()
        assert follower.wait(follower.messages) == [
            "cluster: cannot follow EndpointSlices: 503 ServiceUnavailable: injected by the test"
        ]
        api.faults.remove(fault)
        follower.wait(lambda: follower.source.synced)
        assert follower.take() == {name("web")}
        assert follower.messages() == []


def test_service_cidrs_are_followed(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), service_cidr("kubernetes", "10.96.0.0/16", "fd00:96::/112"))
    with Follower(api, tmp_path) as follower:

        def ranges() -> list[str]:
            return [str(network) for network in follower.source.service_cidrs()]

        assert ranges() == ["10.96.0.0/16", "fd00:96::/112"]
        watching(api, CIDRS)
        follower.woken.clear()
        before = follower.source.revision
        api.create(service_cidr("more", "10.90.0.0/24"))
        follower.wait(lambda: ranges() == ["10.90.0.0/24", "10.96.0.0/16", "fd00:96::/112"])
        assert follower.woken.is_set()
        assert follower.take() == set()
        assert follower.source.revision == before + 1
        api.watches.reset(CIDRS)  # the check of the server's history requests one object
        api.wait(lambda: len(api.requests(verb="watch", resource=CIDRS)) == 2)
        api.delete(service_cidr("more"), service_cidr("kubernetes"))
        follower.wait(lambda: ranges() == [])
        assert lists(api, CIDRS) == 1
        assert follower.messages() == []


@pytest.mark.parametrize("code", [403, 404, 500])
def test_services_do_not_need_service_cidrs(api: ApiServer, tmp_path: Path, code: int) -> None:
    """Servers before Kubernetes 1.33 lack the kind, and a ClusterRole may lack the right."""
    api.create(service("web"), service_cidr("kubernetes", "10.96.0.0/16"))
    fault = api.faults.add(Answer(code), resource=CIDRS, times=None)
    once_a_minute = QUICK._replace(watch=(0, 0)) if code == 404 else QUICK
    with Follower(api, tmp_path, once_a_minute) as follower:
        follower.sees("web")
        assert follower.source.service_cidrs() == ()
        assert CIDRS not in follower.source.last_seen()
        expected = [] if code == 404 else [f"cluster: cannot follow ServiceCIDRs: {code} "]
        assert [message[: len(expected[0])] for message in follower.messages()] == expected
        api.faults.remove(fault)
        follower.wait(lambda: len(follower.source.service_cidrs()) == 1)
        assert follower.messages() == []


def test_known_service_cidrs_stay_when_the_right_to_them_is_lost(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), service_cidr("kubernetes", "10.96.0.0/16"))
    with Follower(api, tmp_path) as follower:
        watching(api, CIDRS)
        api.faults.add(Answer(403), resource=CIDRS, times=None)
        api.watches.reset(CIDRS)
        assert "cannot follow ServiceCIDRs: 403" in follower.wait(follower.messages)[0]
        assert len(follower.source.service_cidrs()) == 1


def test_a_long_list_comes_in_pages(paged: ApiServer, tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(7)]
    paged.create(*map(service, names))
    with Follower(paged, tmp_path) as follower:
        follower.sees(*names)
        pages = paged.requests(verb="list", resource=SERVICES)
        assert [page.query.get("limit") for page in pages] == ["2"] * 4
        assert ["continue" in page.query for page in pages] == [False, True, True, True]


def test_a_list_whose_version_expires_is_requested_again_without_pages(
    paged: ApiServer, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(5)]
    paged.create(*map(service, names))
    first = paged.faults.add(Hold("the first page"), verb="list", resource=SERVICES)
    with Follower(paged, tmp_path, sync=False) as follower:
        paged.wait(lambda: not first.times)
        second = paged.faults.add(Hold("the second page"), verb="list", resource=SERVICES)
        paged.faults.release("the first page")
        paged.wait(lambda: not second.times)
        paged.delete(service("s0"))
        paged.store.compact()
        paged.faults.release("the second page")
        follower.wait(lambda: follower.source.synced)
        follower.sees(*names[1:])
        limits = [seen.query.get("limit") for seen in paged.requests(verb="list", resource=SERVICES)]
        assert limits == ["2", "2", None]


@pytest.mark.parametrize("as_status", [False, True])
def test_a_watch_from_an_expired_version_causes_a_new_list(
    api: ApiServer, tmp_path: Path, as_status: bool
) -> None:
    api.expired_as_status = as_status
    api.create(service("web"), service("gone"), slice_())
    with Follower(api, tmp_path) as follower:
        replaced_unseen(api, follower)
        assert lists(api) == 2
        watching(api)
        follower.wait(lambda: follower.messages() == [])


def test_a_watch_that_expires_while_it_is_open_causes_a_new_list(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.watches.expire(SERVICES)
        api.wait(lambda: lists(api) == 2)
        watching(api)
        api.create(service("new"))
        follower.changed("new")


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_watch_that_ends_is_resumed(api: ApiServer, tmp_path: Path, how: str) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        for port in range(81, 84):
            watching(api)
            number = len(api.requests(verb="watch", resource=SERVICES))
            getattr(api.watches, how)()
            api.update(service("web", port))
            follower.wait(lambda port=port: follower.port() == port)  # type: ignore[misc]
            assert len(api.requests(verb="watch", resource=SERVICES)) > number
        assert lists(api) == 1


def test_a_broken_connection_is_no_problem_if_the_next_one_works(api: ApiServer, tmp_path: Path) -> None:
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.faults.add(Delay(0.2), times=None)
        time.sleep(2 * QUICK.min_watch)
        api.watches.reset()
        messages: set[str] = set()
        while len(api.requests(verb="watch", resource=SERVICES)) < 2:
            messages.update(follower.messages())
            time.sleep(0.01)
        assert not messages


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("after", [0, 100, 1000])
def test_an_interrupted_list_is_requested_again(
    api: ApiServer, tmp_path: Path, after: int, streams: bool
) -> None:
    api.streams = streams
    api.create(*(service(f"s{number}") for number in range(5)))
    api.faults.add(Reset(after), verb="watch" if streams else "list", resource=SERVICES, times=2)
    with Follower(api, tmp_path) as follower:
        assert len(follower.names()) == 5


def test_a_half_open_connection_is_closed(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path, QUICK._replace(idle_timeout=0.2)) as follower:
        watching(api)
        before = lists(api)
        api.watches.hold()
        api.update(service("web", 81))
        follower.changed("web")
        assert follower.port() == 81
        assert lists(api) == before


def test_bookmarks_keep_an_idle_watch_open(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), node("n2"))
    api.bookmark_every = 0.05
    silence = 3.0
    with Follower(api, tmp_path, QUICK._replace(idle_timeout=silence)) as follower:
        watching(api)
        for beat in range(30):
            api.update(node("n2", {"beat": str(beat)}))  # so that bookmarks contain new versions
            time.sleep(silence / 20)
        assert len(api.requests(verb="watch")) == len(FOLLOWED)
        assert time.monotonic() - min(follower.source.last_seen().values()) < silence


def test_without_bookmarks_an_idle_watch_is_opened_again_and_misses_nothing(
    api: ApiServer, tmp_path: Path
) -> None:
    api.bookmarks = False
    api.create(service("web"))
    with Follower(api, tmp_path, QUICK._replace(idle_timeout=0.1)) as follower:
        before = lists(api)
        api.wait(lambda: len(api.requests(verb="watch", resource=SERVICES)) >= 3)
        api.update(service("web", 81))
        follower.changed("web")
        assert lists(api) == before


def test_an_idle_watch_is_no_problem(api: ApiServer, tmp_path: Path) -> None:
    api.bookmarks = False
    with Follower(api, tmp_path, QUICK._replace(idle_timeout=0.5)) as follower:
        watching(api)
        api.faults.add(Delay(0.05), verb="list", times=None)  # delays the checks of the server's history
        messages: set[str] = set()
        while len(api.requests(verb="watch", resource=SERVICES)) < 3:
            messages.update(follower.messages())
            time.sleep(0.01)
        assert not messages


def test_a_bookmark_moves_the_version_to_resume_from(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.create(slice_("other-1", "other"))  # the revision grows without a change of the Services
        follower.changed("other")
        before = time.monotonic()
        api.watches.bookmark(SERVICES)
        follower.wait(lambda: min(follower.source.last_seen().values()) > before)
        api.store.compact()
        api.watches.reset(SERVICES)
        api.wait(lambda: len(api.requests(verb="watch", resource=SERVICES)) == 2)
        assert api.requests(verb="watch", resource=SERVICES)[1].query["resourceVersion"] == str(
            api.store.revision
        )
        watching(api, SERVICES)
        assert lists(api) == 1


def test_a_server_that_stops_and_continues(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), slice_())
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.stop()
        cause = f"cannot connect to {api.host}:{api.port}: Connection refused"
        assert follower.wait(follower.messages) == [f"cluster: cannot use the API server: {cause}"]
        assert follower.names() == ["web"]
        assert follower.take() == set()
        api.create(service("new"))
        api.resume()
        follower.changed("new")
        follower.wait(lambda: follower.messages() == [])
        assert lists(api) == 1


def test_a_server_that_restarts_without_history(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), service("gone"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.stop()
        api.delete(service("gone"))
        api.restart()
        follower.changed("gone")
        follower.sees("web")


def test_a_server_restored_from_a_backup(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    backup = api.store.backup()
    api.create(service("lost"))
    api.update(service("web", 81))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.restore(backup)
        follower.changed("web", "lost")
        follower.sees("web")
        assert follower.port() == 80
        watching(api)
        api.create(service("new"))
        follower.changed("new")


@pytest.mark.parametrize("last", ["created", "changed", "deleted"])
def test_a_restored_server_that_has_passed_the_version_seen_before(
    api: ApiServer, tmp_path: Path, last: str
) -> None:
    """The version exists again, but belongs to another history."""
    api.create(service("web"), service("old"))
    with Follower(api, tmp_path, QUICK._replace(watch=(300, 300))) as follower:
        follower.sees("old", "web")
        watching(api)
        backup = api.store.backup()
        if last == "created":
            api.create(service("api"))
        elif last == "changed":
            api.update(service("web", 81))
        else:
            api.delete(service("old"))
        follower.wait(lambda: follower.names() != ["old", "web"] or follower.port() == 81)
        api.stop()
        api.store.restore(backup)
        api.store.advance(100)
        api.resume()
        follower.wait(lambda: (follower.names(), follower.port()) == (["old", "web"], 80))
        assert lists(api) == 2


def test_a_check_of_the_history_requests_one_object(api: ApiServer, tmp_path: Path) -> None:
    """Nothing is listed again if the history is the same."""
    api.create(service("web"), slice_("web-1"), node("n1"))
    with Follower(api, tmp_path, QUICK._replace(watch=(300, 300))) as follower:
        watching(api)
        api.create(service("api"))
        follower.sees("api", "web")
        api.delete(service("api"))
        follower.sees("web")
        for _ in range(2):
            before = len(api.requests(verb="watch"))
            api.watches.reset()
            api.wait(lambda before=before: len(api.requests(verb="watch")) >= before + len(FOLLOWED))  # type: ignore[misc]
            watching(api)
        assert {lists(api, kind) for kind in FOLLOWED} == {1}
        checks = [
            seen.path
            for seen in api.requests(verb="list")
            if seen.query.get("limit") == "1" and seen.resource in (SERVICES, SLICES)
        ]
        assert set(checks) == {
            "/api/v1/namespaces/default/services",
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        }


def repeat_web_after(api: ApiServer, follower: Follower, changed: str) -> None:
    """Send the last event of the Service `web` again, after a change of another Service or of itself."""
    watching(api)
    api.update(service(changed, 81))
    follower.changed(changed)
    api.watches.repeat(SERVICES, "default/web")


def test_an_event_with_an_older_version_causes_a_new_list(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    api.create(service("other"))
    with Follower(api, tmp_path) as follower:
        repeat_web_after(api, follower, "other")
        api.wait(lambda: lists(api) == 2)
        watching(api)
        assert follower.take() == set()


def test_a_repeated_event_has_no_effect(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        repeat_web_after(api, follower, "web")
        api.create(service("new"))
        follower.changed("new")
        assert lists(api) == 1


def changes_around(api: ApiServer, follower: Follower, data: bytes) -> None:
    """Send a change, bytes and another change. Returns when the last one has arrived."""
    with api.burst():
        api.update(service("web", 81))
        api.watches.inject(data, SERVICES)
        api.update(service("web", 82))
    follower.wait(lambda: follower.port() == 82)


@pytest.mark.parametrize(
    ("protobuf", "data"),
    [
        (False, b"<html>\n"),
        (False, b'{"type":"ADDED","object":{"metadata":{"na\n'),
        (False, b'{"type":"WHAT","object":{}}\n'),
        (False, b"\xff\n"),
        (True, b"\0\0\0\x05<html"),
        (True, b"\0\0\0\0"),
    ],
)
def test_a_watch_is_resumed_after_an_invalid_event(
    api: ApiServer, tmp_path: Path, protobuf: bool, data: bytes
) -> None:
    api.protobuf = protobuf
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        changes_around(api, follower, data)
        assert (lists(api), len(api.requests(verb="watch", resource=SERVICES))) == (1, 2)


@pytest.mark.parametrize("data", [b"<html>\n", b"\xff\xff\xff\xff"])
def test_everything_is_listed_again_after_an_event_that_is_too_long(
    api: ApiServer, tmp_path: Path, data: bytes
) -> None:
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        changes_around(api, follower, data)
        assert lists(api) == 2


@pytest.mark.parametrize(
    ("protobuf", "data"), [(False, b'{"type":"MODIFIED","object":{"meta'), (True, b"\0\0\1\0\x0a\x05ADDED")]
)
def test_an_incomplete_last_event_is_received_again(
    api: ApiServer, tmp_path: Path, protobuf: bool, data: bytes
) -> None:
    api.protobuf = protobuf
    api.create(service("web"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.watches.inject(data, SERVICES)
        api.watches.end(SERVICES)
        api.update(service("web", 81))
        follower.changed("web")
        assert lists(api) == 1


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("streams", [True, False])
def test_lists_and_changes_arrive_in_either_format(
    api: ApiServer, tmp_path: Path, content_type: str, streams: bool
) -> None:
    api.streams = streams
    api.create(*(service(f"s{number}") for number in range(7)))
    with Follower(api, tmp_path, QUICK._replace(page=3), content_type=content_type) as follower:
        watching(api)
        assert len(follower.names()) == 7
        api.create(service("web"))
        follower.changed("web")
        api.delete(service("s3"))
        follower.changed("s3")
        assert follower.names() == ["s0", "s1", "s2", "s4", "s5", "s6", "web"]
    accepted = {request.headers["accept"].partition(",")[0] for request in api.log}
    assert accepted == {content_type}


def test_a_watch_in_small_pieces(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    api.faults.add(Trickle(7, 0.0005), verb="watch", resource=SERVICES)
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.update(service("web", 81))
        follower.changed("web")


def test_an_error_in_a_watch_that_is_not_410(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"))
    error = expired("etcd is busy")
    error.status.update(code=500, reason="InternalError")
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.watches.error(error, SERVICES)
        api.update(service("web", 81))
        follower.changed("web")
        assert lists(api) == 1


def test_a_connection_that_fails_for_one_kind_only(api: ApiServer, tmp_path: Path) -> None:
    api.faults.add(Reset(), resource=SLICES, times=None)
    with Follower(api, tmp_path, sync=False) as follower:
        watching(api, SERVICES)

        def named() -> bool:
            """At first, it may look as if the server were unreachable."""
            api.watches.bookmark(SERVICES)
            return any("cannot follow EndpointSlices: " in message for message in follower.messages())

        follower.wait(named)
        assert len(follower.messages()) == 1


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_retry_after_is_respected(api: ApiServer, tmp_path: Path, verb: str) -> None:
    api.create(service("web"))
    api.faults.add(Answer(429, retry_after=1), verb=verb, resource=SERVICES)
    with Follower(api, tmp_path, sync=False) as follower:
        follower.wait(lambda: follower.messages())
        assert follower.messages()[0].startswith("cluster: cannot follow Services: 429 TooManyRequests")
        watching(api, SERVICES)
        first, second = api.requests(verb=verb, resource=SERVICES)[:2]
        assert 1 <= second.time - first.time < 30


@pytest.mark.parametrize("answer", [Answer(500), Answer(502, text="<html>bad gateway</html>"), Silence()])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_failed_requests_are_repeated(
    api: ApiServer, tmp_path: Path, verb: str, answer: Answer | Silence
) -> None:
    api.create(service("web"))
    api.faults.add(answer, verb=verb, resource=SERVICES, times=2)
    with Follower(api, tmp_path, QUICK._replace(idle_timeout=0.1)) as follower:
        watching(api, SERVICES)
        follower.sees("web")


def test_the_delay_between_attempts_grows(api: ApiServer, tmp_path: Path) -> None:
    pacing = Pacing(first_delay=0.02, max_delay=0.16, min_watch=1)
    api.faults.add(Answer(500), resource=SERVICES, times=None)
    with Follower(api, tmp_path, pacing, sync=False) as follower:
        follower.wait(lambda: len(api.requests(resource=SERVICES)) >= 14)
        times = [seen.time for seen in api.requests(resource=SERVICES)]
        pauses = [after - before for before, after in pairwise(times)]
        # The second request is for pages instead of a streamed list.
        for pause, least in zip(pauses, (0, 0, 0.02, 0.04, 0.08, *[0.16] * 8), strict=False):
            assert least <= pause
        # The delay does not exceed its bound. A busy machine lengthens some pauses, but not all.
        assert min(pauses[6:]) < 2 * 0.16 + 0.15


def test_watches_that_end_immediately_are_delayed(api: ApiServer, tmp_path: Path) -> None:
    pacing = Pacing(first_delay=0.05, max_delay=0.2, min_watch=1)
    api.create(service("web"))
    api.faults.add(Reset(), verb="watch", resource=SERVICES, times=None)
    with Follower(api, tmp_path, pacing):
        time.sleep(0.5)
        assert len(api.requests(verb="watch", resource=SERVICES)) <= 12


def test_an_invalid_object_keeps_its_last_valid_version(api: ApiServer, tmp_path: Path) -> None:
    api.create(service("web"), service("api"))
    with Follower(api, tmp_path) as follower:
        watching(api)
        api.update(service("web", 0))
        api.update(service("api", 81))
        follower.wait(lambda: follower.port("api") == 81)
        assert follower.port("web") == 80
        assert follower.messages() == [
            "cluster: Service default/web: spec.ports[0].port: 0 is not a port (1-65535)"
        ]
        assert not follower.source.protected(name("web"))
        held = {name("web"): "cluster: Service default/web cannot be read"}
        assert follower.source.inventory().held == held
        api.update(service("web", 82))
        follower.wait(lambda: follower.port("web") == 82)
        assert (follower.messages(), follower.source.inventory().held) == ([], {})


def test_an_object_without_a_valid_version_protects_its_service(api: ApiServer, tmp_path: Path) -> None:
    unreadable = {**slice_("api-1", "api"), "endpoints": "nonsense"}
    api.create(service("web", 0), service("api"), unreadable)
    with Follower(api, tmp_path) as follower:
        follower.sees("api")
        assert follower.source.protected(name("web"))
        assert follower.source.protected(name("api"))
        watching(api)
        api.update(slice_("api-1", "api", "10.0.0.1"))
        api.delete(service("web", 0))
        follower.changed("api", "web")
        assert not follower.source.protected(name("web"))
        assert not follower.source.protected(name("api"))


def test_changes_have_triggers_but_the_first_list_has_none(api: ApiServer, tmp_path: Path) -> None:
    def triggered(address: str, when: str) -> dict[str, object]:
        annotations = {"endpoints.kubernetes.io/last-change-trigger-time": when}
        return slice_("web-1", "web", address, annotations=annotations)

    api.create(service("web"), triggered("10.0.0.1", "2026-11-22T10:00:00Z"))
    with Follower(api, tmp_path) as follower:
        assert follower.source.take_triggers() == []
        watching(api)
        api.update(triggered("10.0.0.2", "2026-11-22T10:00:05Z"))
        follower.changed("web")
        assert follower.source.take_triggers() == ["2026-11-22T10:00:05Z"]
