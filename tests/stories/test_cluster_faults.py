"""An API server that is disturbed, away, restored or wrong: the tables become right, and never empty."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from netns_lab.lab import Lab

from tests.apiserver.faults import Answer, Reset, Trickle
from tests.stories.doubled import Double, Doubled
from tests.stories.following import Follow, Told
from tests.support import (
    FAMILIES,
    SERVICE_IP,
    Manifest,
    child_of,
    eventually,
    service,
    slices,
    waits_for_child,
)

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")
MANY = 40
AnyTold = TypeVar("AnyTold", bound=Told)


def other(number: int, port: int = 80) -> Manifest:
    """One of many services."""
    ips = {4: f"10.96.20.{number + 1}", 6: f"fd00:96::{0x2000 + number:x}"}
    return service(f"other-{number}", {"port": port, "targetPort": 8080}, cluster_ips=ips)  # type: ignore[arg-type]


# --- one after another: what a watch can meet, with the change that it must not lose ---


def nothing(told: Told) -> None:
    """The same without a fault."""


# what the way to a server can do


def cut(told: Told) -> None:
    told.way.cut()


def hung_up(told: Told) -> None:
    told.way.hang_up()


def torn(told: Told) -> None:
    told.way.tear(after=400, times=3)


def torn_later(told: Told) -> None:
    told.way.tear(after=5000, times=3)


def slow(told: Told) -> None:
    told.way.slow(times=2)


def away(told: Told) -> None:
    told.way.close()
    told.running.kproxy.nft("flush ruleset")
    told.way.open()


def refused_while_others_stay(told: Told) -> None:
    told.way.refuse()
    told.way.open()


def half_open(told: Told) -> None:
    told.way.hold()
    told.apply(other(MANY + 1))
    told.delete(other(MANY + 1))
    told.way.cut()
    told.way.release()


# what can happen to its process and to etcd


def restarted(told: Told) -> None:
    told.server.restart()


def upgraded(told: Told) -> None:
    told.server.upgrade()


def forgotten_version(told: Told) -> None:
    told.server.compact()


def restored(told: Told) -> None:
    old = told.server.backup()
    for number in range(MANY, MANY + 3):
        told.apply(other(number))
    told.server.restore(old)


def forbidden_for_a_while(told: Told) -> None:
    said = told.running.logged().count("403")
    told.server.forbid()
    told.way.cut()
    told.says("403", said + 1)
    told.server.allow()


# what only the double can be told to do


def page_expired(told: Doubled) -> None:
    told.api.faults.add(Answer(410), verb="list", resource="services", times=1)
    told.api.watches.expire("services")


def forgotten_version_as_status(told: Doubled) -> None:
    told.api.expired_as_status = True
    told.server.compact()


def expired_meanwhile(told: Doubled) -> None:
    told.api.watches.expire()


def ended(told: Doubled) -> None:
    told.api.watches.end()


def torn_list(told: Doubled) -> None:
    told.api.faults.add(Reset(400), verb="list", times=2)
    told.api.watches.expire()


def trickle(told: Doubled) -> None:
    told.api.faults.add(Trickle(7, 0.001), verb="watch", times=2)
    told.api.watches.reset()


def restored_to_nearly_nothing(told: Doubled) -> None:
    told.api.restore(told.api.store.backup()._replace(revision=2))


def unauthorized(told: Doubled) -> None:
    told.api.faults.add(Answer(401), times=4)
    told.api.watches.reset()


def forbidden(told: Doubled) -> None:
    told.api.faults.add(Answer(403), verb="watch", times=2)
    told.api.watches.reset()


def busy(told: Doubled) -> None:
    told.api.faults.add(Answer(429, retry_after=1), times=2)
    told.api.watches.reset()


def broken(told: Doubled) -> None:
    told.api.faults.add(Answer(500), times=2)
    told.api.faults.add(Answer(502, text="<html>bad gateway</html>"), times=2)
    told.api.watches.reset()


def garbage(told: Doubled) -> None:
    told.api.watches.inject(b"<html>not an event</html>\n")


def truncated(told: Doubled) -> None:
    told.api.watches.inject(b'{"type":"MODIFIED","object":{"kind":"Service","metadata":{"name":"web"')
    told.api.watches.end()


def again(told: Doubled) -> None:
    for _ in range(5):
        told.api.watches.repeat("services", "default/web")
        told.api.watches.repeat("endpointslices", "default/web-4")


def without_bookmarks(told: Doubled) -> None:
    told.api.bookmarks = False
    told.api.watches.reset()


GROUPS: dict[str, tuple[Callable[[Told], None], ...]] = {
    "way": (nothing, cut, hung_up, torn, torn_later),
    "slow way": (slow, away, refused_while_others_stay, half_open),
}
OWN: dict[str, tuple[Callable[[Told], None], ...]] = {
    "process": (restarted, upgraded, forgotten_version, restored),
    "rights": (forbidden_for_a_while,),
}
ONLY_THE_DOUBLE: dict[str, tuple[Callable[[Doubled], None], ...]] = {
    "ends": (ended, without_bookmarks, trickle),
    "history": (expired_meanwhile, forgotten_version_as_status, restored_to_nearly_nothing),
    "lists": (page_expired, torn_list),
    "refusals": (unauthorized, forbidden, busy, broken),
    "nonsense": (garbage, truncated, again),
}
WHY = {
    "ends": "ends a watch before its time, and keeps bookmarks back",
    "history": "ends a watch with 410, answers it by a status, counts revisions from the beginning",
    "lists": "forgets a list between two of its pages, and tears one that is asked for again",
    "refusals": "answers 401, 403, 429, 500 and 502 a number of times",
    "nonsense": "sends what is no event, half of one, and one again",
}
"""Each group is tried in one life of kproxy."""
PAUSE = 1.1
"""Seconds that a watch has to last so that the next failure is a first one."""


def started(lab: Lab) -> list[Manifest]:
    return [service(), *slices(lab, PODS), other(0)]


def try_all(told: AnyTold, faults: Sequence[Callable[[AnyTold], None]]) -> None:
    """After each of them: a service changes, one goes, one comes, and endpoints move."""
    told.right()
    for number, fault in enumerate(faults):
        pod = PODS[number % 3]
        told.watched()
        time.sleep(PAUSE)
        fault(told)
        told.apply(*slices(told.lab, [pod]), other(number + 1))
        told.delete(other(number))
        try:
            told.right()
            assert told.answering(FAMILIES[number % 2]) == {pod}
        except AssertionError as error:
            raise AssertionError(f"after {fault.__name__}: {error}") from None
    assert "Traceback" not in told.running.logged()


@pytest.mark.parametrize("group", GROUPS)
def test_whatever_a_watch_meets_nothing_is_lost(lab: Lab, following: Follow, group: str) -> None:
    with following(*started(lab)) as told:
        try_all(told, GROUPS[group])


@pytest.mark.parametrize("group", OWN)
def test_whatever_a_server_meets_nothing_is_lost(lab: Lab, owning: Follow, group: str) -> None:
    with owning(*started(lab)) as told:
        try_all(told, OWN[group])


@pytest.mark.parametrize("group", ONLY_THE_DOUBLE)
def test_whatever_a_server_says_nothing_is_lost(lab: Lab, double: Double, group: str) -> None:
    with double(WHY[group], *started(lab)) as told:
        try_all(told, ONLY_THE_DOUBLE[group])


def test_an_older_event_that_comes_again_undoes_nothing(lab: Lab, owning: Follow) -> None:
    with owning(service(), *slices(lab, ["pod-1"])) as told:
        told.right()
        told.watched()
        told.way.hold()
        told.apply(*slices(lab, ["pod-2"]))
        told.way.release()
        eventually(lambda: told.answering() == {"pod-2"}, told.running.logged)
        old = told.server.backup()
        told.apply(*slices(lab, ["pod-3"]))
        told.right()
        # etcd is what it was before that: its slices are older than those that were seen.
        told.server.restore(old)
        told.right()
        assert told.answering() == {"pod-2"}


def test_a_connection_that_is_half_open_loses_nothing_that_comes_later(lab: Lab, following: Follow) -> None:
    with following(service(), *slices(lab, ["pod-1"])) as told:
        told.right()
        told.watched()
        told.way.hold()
        told.apply(*slices(lab, ["pod-2"]))
        time.sleep(0.3)
        assert told.answering() == {"pod-1"}
        told.way.cut()  # what a host on the way does that has forgotten the connection
        told.way.release()
        told.right()
        assert told.answering() == {"pod-2"}


def test_an_object_that_cannot_be_decoded_and_its_repair(lab: Lab, double: Double) -> None:
    bad = service("web", {"port": 0})
    with double("takes objects that are invalid", service(), *slices(lab, PODS[:1]), other(0)) as told:
        told.right()
        told.apply(bad, other(1))
        told.delete(other(0))
        eventually(lambda: "0 is not a port" in told.running.logged(), told.running.logged)
        told.apply(*slices(lab, PODS[1:2]))  # its endpoints are still followed
        eventually(lambda: told.answering() == {"pod-2"}, told.running.logged)
        # A new kproxy never saw it whole: nothing is taken from it.
        told.running.stop()
        told.running.start()
        assert told.answering() == {"pod-2"}
        told.apply(service(), *slices(lab, PODS[2:]))
        told.right()
        assert told.answering() == {"pod-3"}
        told.apply(bad)
        told.delete(bad)
        told.right()


# --- away ---


def test_a_server_that_is_away_at_the_start(lab: Lab, following: Follow) -> None:
    """Nothing is programmed and nothing removed, nor is time spent on it."""
    flags = ("--sync-period", "1s")
    with following(service(), *slices(lab, PODS), flags=flags) as told:
        told.right()
        told.running.stop()
        told.way.close()
        before = told.running.kproxy.generation()
        told.running.start(wait=False)
        eventually(lambda: "cannot follow" in told.running.logged(), told.running.logged)
        used = cpu_seconds(told.running.process.pid)
        time.sleep(1.5)  # more than a sync period
        assert cpu_seconds(told.running.process.pid) - used < 0.5
        assert told.running.kproxy.generation() == before
        assert told.answering() == set(PODS)
        # Meanwhile things happen; when it is back, they are taken in at once.
        told.apply(*slices(lab, ["pod-2"]), other(0))
        told.way.open()
        told.right()
        assert told.answering() == {"pod-2"}


def test_what_others_do_during_the_first_round_is_put_right(lab: Lab, following: Follow) -> None:
    """The table has been read, and nobody listens yet: it waits for its child."""
    with following(service(), *slices(lab, PODS)) as told:
        told.right()
        told.running.stop()
        told.way.close()
        told.running.start(wait=False)
        eventually(lambda: "cannot follow" in told.running.logged(), told.running.logged)
        child = child_of(told.running.process.pid)
        os.kill(child, signal.SIGSTOP)
        told.way.open()
        try:
            eventually(lambda: waits_for_child(told.running.process.pid), told.running.logged)
            told.running.kproxy.nft("flush map ip kproxy services")
        finally:
            os.kill(child, signal.SIGCONT)
        told.right()
        assert told.answering() == set(PODS)


def test_a_server_of_which_half_is_away_at_the_start(lab: Lab, double: Double) -> None:
    with double("answers 503 for one kind alone", service(), *slices(lab, PODS)) as told:
        told.right()
        told.running.stop()
        fault = told.api.faults.add(Answer(503), verb="list", resource="endpointslices", times=None)
        told.running.start(wait=False)
        eventually(lambda: "cannot follow EndpointSlices" in told.running.logged(), told.running.logged)
        assert told.answering() == set(PODS)
        told.api.faults.remove(fault)
        told.right()
        assert told.answering() == set(PODS)


def test_a_server_that_is_away_never_empties_the_tables(lab: Lab, following: Follow) -> None:
    """Many objects go while it is away, and so they do when it is back."""
    many = [other(number) for number in range(MANY)]
    with following(service(), *slices(lab, PODS), *many) as told:
        told.right()
        programmed = told.objects()
        told.way.close()
        told.delete(*many[1:])
        told.running.kproxy.nft("flush ruleset")  # put right from what was known
        eventually(lambda: not told.truth.wrong(programmed), told.running.logged)
        assert told.answering() == set(PODS)
        if told.owned:
            told.server.compact()
        told.way.open()
        told.right()
        assert told.answering() == set(PODS)


def test_a_server_that_lost_everything(lab: Lab, owning: Follow) -> None:
    """An empty answer is an answer: a list that came as a whole is believed."""
    with owning(service(), *slices(lab, PODS)) as told:
        told.right()
        told.watched()
        told.server.restore(None)
        told.right()
        assert told.answering() & set(PODS) == set()
        told.apply(service(), *slices(lab, PODS))
        told.right()
        assert told.answering() == set(PODS)


def test_tokens_are_rotated(lab: Lab, owning: Follow) -> None:
    with owning(service(), *slices(lab, ["pod-1"])) as told:
        told.right()
        told.server.rotate("two")
        told.apply(*slices(lab, ["pod-2"]))
        told.says("401")
        assert told.answering() == {"pod-1"}
        told.token.write_text("two")
        told.right()
        assert told.answering() == {"pod-2"}


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_server_away_for_longer_than_a_check_keeps_nobody_busy(lab: Lab, following: Follow) -> None:
    with following(service(), *slices(lab, PODS), flags=("--sync-period", "1s")) as told:
        told.right()
        told.way.close()
        time.sleep(1.2)
        used = cpu_seconds(told.running.process.pid)
        told.running.kproxy.nft(f"delete element ip kproxy cluster-ips {{ {SERVICE_IP[4]} }}")
        time.sleep(2)
        assert cpu_seconds(told.running.process.pid) - used < 1
        told.way.open()
        told.right()
