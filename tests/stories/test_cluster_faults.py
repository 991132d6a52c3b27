"""Faults of an API server and of the network to it: the tables become correct, and are never empty."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from netns_lab.lab import Lab

from bench.process import cpu_of
from tests.apiserver.faults import Answer, Reset, Trickle
from tests.stories.doubled import Double, DoubleStory
from tests.stories.following import ClusterStory, Follow
from tests.support import (
    EDITABLE,
    FAMILIES,
    SERVICE_IP,
    Manifest,
    eventually,
    open_for_reader,
    service,
    slices,
)

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")
MANY = 40
AnyStory = TypeVar("AnyStory", bound=ClusterStory)


def other(number: int, port: int = 80) -> Manifest:
    """One of many Services."""
    ips = {4: f"10.96.20.{number + 1}", 6: f"fd00:96::{0x2000 + number:x}"}
    return service(f"other-{number}", {"port": port, "targetPort": 8080}, cluster_ips=ips)  # type: ignore[arg-type]


# --- faults while kproxy watches; each coincides with a change that must not be lost ---


def nothing(story: ClusterStory) -> None:
    """No fault, for comparison."""


# faults of the network


def cut(story: ClusterStory) -> None:
    story.network.cut()


def hung_up(story: ClusterStory) -> None:
    story.network.hang_up()


def torn(story: ClusterStory) -> None:
    story.network.tear(after=400, times=3)


def torn_later(story: ClusterStory) -> None:
    story.network.tear(after=5000, times=3)


def slow(story: ClusterStory) -> None:
    story.network.slow(times=2)


def unreachable(story: ClusterStory) -> None:
    story.network.close()
    story.running.kproxy.nft("flush ruleset")
    story.network.open()


def new_connections_refused(story: ClusterStory) -> None:
    story.network.refuse()
    story.network.open()


def half_open(story: ClusterStory) -> None:
    story.network.hold()
    story.apply(other(MANY + 1))
    story.delete(other(MANY + 1))
    story.network.cut()
    story.network.release()


# faults of kube-apiserver and etcd


def restarted(story: ClusterStory) -> None:
    story.server.restart()


def upgraded(story: ClusterStory) -> None:
    story.server.upgrade()


def compacted(story: ClusterStory) -> None:
    story.server.compact()


def restored(story: ClusterStory) -> None:
    old = story.server.backup()
    for number in range(MANY, MANY + 3):
        story.apply(other(number))
    story.server.restore(old)


def forbidden_temporarily(story: ClusterStory) -> None:
    errors = story.running.logged().count("403")
    story.server.forbid()
    story.network.cut()
    story.logs("403", errors + 1)
    story.server.allow()


# faults that only the double can cause


def page_expired(story: DoubleStory) -> None:
    story.api.streams = False
    story.api.faults.add(Answer(410), verb="list", resource="services", times=1)
    story.api.watches.expire("services")
    story.api.wait(lambda: story.api.requests(verb="list", resource="services"))
    story.api.streams = True


def compacted_with_status(story: DoubleStory) -> None:
    story.api.expired_as_status = True
    story.server.compact()


def expired(story: DoubleStory) -> None:
    story.api.watches.expire()


def ended(story: DoubleStory) -> None:
    story.api.watches.end()


def torn_list(story: DoubleStory) -> None:
    story.api.faults.add(Reset(400), times=6)
    story.api.watches.expire()


def trickle(story: DoubleStory) -> None:
    story.api.faults.add(Trickle(7, 0.001), verb="watch", times=2)
    story.api.watches.reset()


def restored_to_a_low_revision(story: DoubleStory) -> None:
    story.api.restore(story.api.store.backup()._replace(revision=2))


def unauthorized(story: DoubleStory) -> None:
    story.api.faults.add(Answer(401), times=4)
    story.api.watches.reset()


def forbidden(story: DoubleStory) -> None:
    story.api.faults.add(Answer(403), verb="watch", times=2)
    story.api.watches.reset()


def busy(story: DoubleStory) -> None:
    story.api.faults.add(Answer(429, retry_after=1), times=2)
    story.api.watches.reset()


def broken(story: DoubleStory) -> None:
    story.api.faults.add(Answer(500), times=2)
    story.api.faults.add(Answer(502, text="<html>bad gateway</html>"), times=2)
    story.api.watches.reset()


def garbage(story: DoubleStory) -> None:
    story.api.watches.inject(b"<html>not an event</html>\n")


def truncated(story: DoubleStory) -> None:
    story.api.watches.inject(b'{"type":"MODIFIED","object":{"kind":"Service","metadata":{"name":"web"')
    story.api.watches.end()


def repeated(story: DoubleStory) -> None:
    for _ in range(5):
        story.api.watches.repeat("services", "default/web")
        story.api.watches.repeat("endpointslices", "default/web-4")


def without_bookmarks(story: DoubleStory) -> None:
    story.api.bookmarks = False
    story.api.watches.reset()


GROUPS: dict[str, tuple[Callable[[ClusterStory], None], ...]] = {
    "network": (nothing, cut, hung_up, torn, torn_later),
    "slow network": (slow, unreachable, new_connections_refused, half_open),
}
OWN: dict[str, tuple[Callable[[ClusterStory], None], ...]] = {
    "process": (restarted, upgraded, compacted, restored),
    "rights": (forbidden_temporarily,),
}
ONLY_THE_DOUBLE: dict[str, tuple[Callable[[DoubleStory], None], ...]] = {
    "ends": (ended, without_bookmarks, trickle),
    "history": (expired, compacted_with_status, restored_to_a_low_revision),
    "lists": (page_expired, torn_list),
    "refusals": (unauthorized, forbidden, busy, broken),
    "nonsense": (garbage, truncated, repeated),
}
WHY = {
    "ends": "ends watches early, and sends no bookmarks",
    "history": "ends a watch with 410, reports it as a status, starts again with a low revision",
    "lists": "expires a list between two pages, and cuts off a repeated list",
    "refusals": "answers several times with 401, 403, 429, 500 or 502",
    "nonsense": "sends lines that are not events, incomplete events, and repeated events",
}
"""Why a group needs the double. One run of kproxy goes through all faults of a group."""
PAUSE = 1.1
"""Seconds that a watch must last, so that the next failure counts as the first."""


def started(lab: Lab) -> list[Manifest]:
    return [service(), *slices(lab, PODS), other(0)]


def try_all(story: AnyStory, faults: Sequence[Callable[[AnyStory], None]]) -> None:
    """After each fault, change a Service, delete one, create one, and change endpoints."""
    story.converges()
    for number, fault in enumerate(faults):
        pod = PODS[number % 3]
        story.watched()
        time.sleep(PAUSE)
        fault(story)
        story.apply(*slices(story.lab, [pod]), other(number + 1))
        story.delete(other(number))
        try:
            story.converges()
            assert story.answering(FAMILIES[number % 2]) == {pod}
        except AssertionError as error:
            raise AssertionError(f"after {fault.__name__}: {error}") from None
    assert "Traceback" not in story.running.logged()


@pytest.mark.parametrize("group", GROUPS)
def test_no_change_is_lost_by_faults_of_the_network(lab: Lab, following: Follow, group: str) -> None:
    with following(*started(lab)) as story:
        try_all(story, GROUPS[group])


@pytest.mark.parametrize("group", OWN)
def test_no_change_is_lost_by_faults_of_the_server(lab: Lab, owning: Follow, group: str) -> None:
    with owning(*started(lab)) as story:
        try_all(story, OWN[group])


@pytest.mark.parametrize("group", ONLY_THE_DOUBLE)
def test_no_change_is_lost_by_unusual_answers(lab: Lab, double: Double, group: str) -> None:
    with double(WHY[group], *started(lab)) as story:
        try_all(story, ONLY_THE_DOUBLE[group])


def held_change(story: ClusterStory) -> None:
    """Move the Service to another pod. The network holds the event back."""
    story.converges()
    story.watched()
    story.network.hold()
    story.apply(*slices(story.lab, ["pod-2"]))


def test_after_a_restore_of_etcd_older_objects_are_programmed(lab: Lab, owning: Follow) -> None:
    with owning(service(), *slices(lab, ["pod-1"])) as story:
        held_change(story)
        story.network.release()
        eventually(lambda: story.answering() == {"pod-2"}, story.running.logged)
        old = story.server.backup()
        story.apply(*slices(lab, ["pod-3"]))
        story.converges()
        # etcd has its earlier content: its slices are older than those that kproxy has received.
        story.server.restore(old)
        story.converges()
        assert story.answering() == {"pod-2"}


def test_changes_during_a_half_open_connection_are_not_lost(lab: Lab, following: Follow) -> None:
    with following(service(), *slices(lab, ["pod-1"])) as story:
        held_change(story)
        time.sleep(0.3)
        assert story.answering() == {"pod-1"}
        story.network.cut()  # as a router does that has lost the state of the connection
        story.network.release()
        story.converges()
        assert story.answering() == {"pod-2"}


def test_an_object_that_cannot_be_decoded_and_its_repair(lab: Lab, double: Double) -> None:
    bad = service("web", {"port": 0})
    with double("takes objects that are invalid", service(), *slices(lab, PODS[:1]), other(0)) as story:
        story.converges()
        story.apply(bad, other(1))
        story.delete(other(0))
        eventually(lambda: "0 is not a port" in story.running.logged(), story.running.logged)
        story.apply(*slices(lab, PODS[1:2]))  # the Service's endpoints are still followed
        eventually(lambda: story.answering() == {"pod-2"}, story.running.logged)
        # A new kproxy never read a valid version of the Service. It removes nothing.
        story.running.stop()
        story.running.start()
        assert story.answering() == {"pod-2"}
        story.apply(service(), *slices(lab, PODS[2:]))
        story.converges()
        assert story.answering() == {"pod-3"}
        story.apply(bad)
        story.delete(bad)
        story.converges()


# --- an unreachable server ---


def test_a_server_that_is_unreachable_at_the_start(lab: Lab, following: Follow) -> None:
    """kproxy changes nothing in the tables, and uses no CPU."""
    flags = ("--sync-period", "1s")
    with following(service(), *slices(lab, PODS), flags=flags) as story:
        story.converges()
        story.running.stop()
        story.network.close()
        story.running.start(wait=False)
        eventually(lambda: "cannot use the API server" in story.running.logged(), story.running.logged)
        before = story.running.kproxy.generation()
        used = cpu_of(story.running.process.pid)
        time.sleep(1.5)  # more than a sync period
        assert cpu_of(story.running.process.pid) - used < 0.5
        assert story.running.kproxy.generation() == before
        assert story.answering() == set(PODS)
        # Objects change meanwhile. The changes are programmed when the server is reachable again.
        story.apply(*slices(lab, ["pod-2"]), other(0))
        story.network.open()
        story.converges()
        assert story.answering() == {"pod-2"}
        # One line says that it is unreachable, and one that it is reachable again.
        eventually(lambda: "solved: cluster: cannot use" in story.running.logged(), story.running.logged)
        lines = [line for line in story.running.logged().splitlines() if "cluster: cannot" in line]
        assert len(lines) == 2


def test_changes_by_other_programs_during_the_first_round_are_reverted(
    lab: Lab, following: Follow, tmp_path: Path
) -> None:
    """kproxy has read the table, and not compared it yet. It does not listen for changes yet."""
    fifo = tmp_path / "fifo"
    with following(service(), *slices(lab, PODS), flags=EDITABLE) as story:
        story.converges()
        story.running.stop()
        os.mkfifo(fifo)
        story.running.program = "tests.waiting", str(fifo)
        story.running.start(wait=False)
        with open_for_reader(fifo):
            story.running.kproxy.nft("flush map ip kproxy services")
            fifo.unlink()
        story.converges()
        assert story.answering() == set(PODS)


def test_one_kind_that_is_unavailable_at_the_start(lab: Lab, double: Double) -> None:
    with double("answers 503 for a single kind", service(), *slices(lab, PODS)) as story:
        story.converges()
        story.running.stop()
        fault = story.api.faults.add(Answer(503), resource="endpointslices", times=None)
        story.running.start(wait=False)
        eventually(lambda: "cannot follow EndpointSlices" in story.running.logged(), story.running.logged)
        assert story.answering() == set(PODS)
        story.api.faults.remove(fault)
        story.converges()
        assert story.answering() == set(PODS)


def test_an_unreachable_server_does_not_empty_the_tables(lab: Lab, following: Follow) -> None:
    """Many objects are deleted while the server is unreachable. They stay programmed until it is back."""
    many = [other(number) for number in range(MANY)]
    with following(service(), *slices(lab, PODS), *many, flags=EDITABLE) as story:
        story.converges()
        programmed = story.objects()
        story.network.close()
        story.delete(*many[1:])
        story.running.kproxy.nft("flush ruleset")  # repaired from kproxy's copy
        eventually(lambda: not story.truth.wrong(programmed), story.running.logged)
        assert story.answering() == set(PODS)
        if story.owned:
            story.server.compact()
        story.network.open()
        story.converges()
        assert story.answering() == set(PODS)


def test_a_server_that_lost_everything(lab: Lab, owning: Follow) -> None:
    """A complete list is taken as it is, even if it is empty."""
    with owning(service(), *slices(lab, PODS)) as story:
        story.converges()
        story.watched()
        story.server.restore(None)
        story.converges()
        assert story.answering() & set(PODS) == set()
        story.apply(service(), *slices(lab, PODS))
        story.converges()
        assert story.answering() == set(PODS)


def test_tokens_are_rotated(lab: Lab, owning: Follow) -> None:
    with owning(service(), *slices(lab, ["pod-1"])) as story:
        story.converges()
        story.server.rotate("two")
        story.apply(*slices(lab, ["pod-2"]))
        story.logs("401")
        assert story.answering() == {"pod-1"}
        story.token.write_text("two")
        story.converges()
        assert story.answering() == {"pod-2"}


def test_an_unreachable_server_costs_no_cpu(lab: Lab, following: Follow) -> None:
    with following(service(), *slices(lab, PODS), flags=(*EDITABLE, "--sync-period", "1s")) as story:
        story.converges()
        story.network.close()
        time.sleep(1.2)
        used = cpu_of(story.running.process.pid)
        story.running.kproxy.nft(f"delete element ip kproxy cluster-ips {{ {SERVICE_IP[4]} }}")
        time.sleep(2)
        assert cpu_of(story.running.process.pid) - used < 1
        story.network.open()
        story.converges()
