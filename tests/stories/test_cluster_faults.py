"""An API server that is disturbed, away, restored or wrong: the tables become right, and never empty."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests.apiserver.faults import Answer, Reset, Trickle
from tests.apiserver.kubeconfig import token_file
from tests.stories.following import Following, following
from tests.support import FAMILIES, SERVICE_IP, Manifest, eventually, service, slices

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")
MANY = 40


def other(number: int, port: int = 80) -> Manifest:
    """One of many services."""
    ips = {4: f"10.96.20.{number + 1}", 6: f"fd00:96::20:{number + 1:x}"}
    return service(f"other-{number}", {"port": port, "targetPort": 8080}, cluster_ips=ips)  # type: ignore[arg-type]


# --- one after another: what a watch can meet, with the change that it must not lose ---


def nothing(told: Following) -> None:
    """The same without a fault."""


def page_expired(told: Following) -> None:
    told.api.faults.add(Answer(410), verb="list", resource="services", times=1)
    told.api.watches.expire("services")


def forgotten_version(told: Following) -> None:
    told.api.stop()
    told.api.store.compact()
    told.api.resume()


def forgotten_version_as_status(told: Following) -> None:
    told.api.expired_as_status = True
    forgotten_version(told)


def expired_meanwhile(told: Following) -> None:
    told.api.watches.expire()


def ended(told: Following) -> None:
    told.api.watches.end()


def torn(told: Following) -> None:
    told.api.watches.reset()


def torn_list(told: Following) -> None:
    told.api.faults.add(Reset(400), verb="list", times=2)
    told.api.watches.expire()


def trickle(told: Following) -> None:
    told.api.faults.add(Trickle(7, 0.001), verb="watch", times=2)
    told.api.watches.reset()


def restarted(told: Following) -> None:
    told.api.restart()


def restored(told: Following) -> None:
    told.api.restore(told.api.store.backup()._replace(revision=2))


def unauthorized(told: Following) -> None:
    told.api.faults.add(Answer(401), times=4)
    told.api.watches.reset()


def forbidden(told: Following) -> None:
    told.api.faults.add(Answer(403), verb="watch", times=2)
    told.api.watches.reset()


def busy(told: Following) -> None:
    told.api.faults.add(Answer(429, retry_after=1), times=2)
    told.api.watches.reset()


def broken(told: Following) -> None:
    told.api.faults.add(Answer(500), times=2)
    told.api.faults.add(Answer(502, text="<html>bad gateway</html>"), times=2)
    told.api.watches.reset()


def garbage(told: Following) -> None:
    told.api.watches.inject(b"<html>not an event</html>\n")


def truncated(told: Following) -> None:
    told.api.watches.inject(b'{"type":"MODIFIED","object":{"kind":"Service","metadata":{"name":"web"')
    told.api.watches.end()


def again(told: Following) -> None:
    for _ in range(5):
        told.api.watches.repeat("services", "default/web")
        told.api.watches.repeat("endpointslices", "default/web-4")


def without_bookmarks(told: Following) -> None:
    told.api.bookmarks = False
    told.api.watches.reset()


GROUPS: dict[str, tuple[Callable[[Following], None], ...]] = {
    "ends": (nothing, ended, torn, without_bookmarks, trickle),
    "history": (expired_meanwhile, forgotten_version, forgotten_version_as_status, restarted, restored),
    "lists": (page_expired, torn_list),
    "refusals": (unauthorized, forbidden, busy, broken),
    "nonsense": (garbage, truncated, again),
}
"""Tried in one life of kproxy."""
PAUSE = 1.1
"""Seconds that a watch has to last so that the next failure is a first one."""


@pytest.mark.parametrize("group", GROUPS)
def test_whatever_a_watch_meets_nothing_is_lost(lab: Lab, tmp_path: Path, group: str) -> None:
    """After each of them: a service changes, one goes, one comes, and endpoints move."""
    with following(lab, tmp_path, service(), *slices(lab, PODS), other(0)) as told:
        told.right()
        for number, fault in enumerate(GROUPS[group]):
            pod = PODS[number % 3]
            told.watched()
            time.sleep(PAUSE)
            fault(told)
            told.apply(*slices(lab, [pod]), other(number + 1))
            told.delete(other(number))
            try:
                told.right()
                assert told.answering(FAMILIES[number % 2]) == {pod}
            except AssertionError as error:
                raise AssertionError(f"after {fault.__name__}: {error}") from None
        assert "Traceback" not in told.running.said()


def test_an_older_event_that_comes_again_undoes_nothing(lab: Lab, tmp_path: Path) -> None:
    with following(lab, tmp_path, service(), *slices(lab, ["pod-1"])) as told:
        told.right()
        told.watched()
        told.api.watches.hold("endpointslices")
        told.apply(*slices(lab, ["pod-2"]))
        told.api.watches.release("endpointslices")
        eventually(lambda: told.answering() == {"pod-2"}, told.running.said)
        old = told.api.store.backup()
        told.apply(*slices(lab, ["pod-3"]))
        told.right()
        # etcd is what it was before that: its slices are older than those that were seen.
        told.api.restore(old)
        told.right()
        assert told.answering() == {"pod-2"}


def test_a_connection_that_is_half_open_loses_nothing_that_comes_later(lab: Lab, tmp_path: Path) -> None:
    with following(lab, tmp_path, service(), *slices(lab, ["pod-1"])) as told:
        told.right()
        told.watched()
        told.api.watches.hold()
        told.apply(*slices(lab, ["pod-2"]))
        time.sleep(0.3)
        assert told.answering() == {"pod-1"}
        told.api.watches.reset()  # what a host on the way does that has forgotten the connection
        told.api.watches.release()
        told.right()
        assert told.answering() == {"pod-2"}


def test_an_object_that_cannot_be_decoded_and_its_repair(lab: Lab, tmp_path: Path) -> None:
    bad = service("web", {"port": 0})
    with following(lab, tmp_path, service(), *slices(lab, PODS[:1]), other(0)) as told:
        told.right()
        told.apply(bad, other(1))
        told.delete(other(0))
        eventually(lambda: "0 is not a port" in told.running.said(), told.running.said)
        told.apply(*slices(lab, PODS[1:2]))  # its endpoints are still followed
        eventually(lambda: told.answering() == {"pod-2"}, told.running.said)
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


def test_a_server_that_is_away_at_the_start(lab: Lab, tmp_path: Path) -> None:
    """Nothing is programmed and nothing removed, nor is time spent on it."""
    flags = ("--sync-period", "1s")
    with following(lab, tmp_path, service(), *slices(lab, PODS), flags=flags) as told:
        told.right()
        told.running.stop()
        told.api.stop()
        before = told.running.kproxy.generation()
        told.running.start(wait=False)
        eventually(lambda: "cannot follow" in told.running.said(), told.running.said)
        used = cpu_seconds(told.running.process.pid)
        time.sleep(1.5)  # more than a sync period
        assert cpu_seconds(told.running.process.pid) - used < 0.5
        assert told.running.kproxy.generation() == before
        assert told.answering() == set(PODS)
        # Meanwhile things happen; when it is back, they are taken in at once.
        told.apply(*slices(lab, ["pod-2"]), other(0))
        told.api.resume()
        told.right()
        assert told.answering() == {"pod-2"}


def test_a_server_of_which_half_is_away_at_the_start(lab: Lab, tmp_path: Path) -> None:
    with following(lab, tmp_path, service(), *slices(lab, PODS)) as told:
        told.right()
        told.running.stop()
        fault = told.api.faults.add(Answer(503), verb="list", resource="endpointslices", times=None)
        told.running.start(wait=False)
        eventually(lambda: "cannot follow EndpointSlices" in told.running.said(), told.running.said)
        assert told.answering() == set(PODS)
        told.api.faults.remove(fault)
        told.right()
        assert told.answering() == set(PODS)


def test_a_server_that_is_away_never_empties_the_tables(lab: Lab, tmp_path: Path) -> None:
    """Many objects go while it is away, and so they do when it is back."""
    many = [other(number) for number in range(MANY)]
    with following(lab, tmp_path, service(), *slices(lab, PODS), *many) as told:
        told.right()
        programmed = told.objects()
        told.api.stop()
        told.delete(*many[1:])
        told.running.kproxy.nft("flush ruleset")  # put right from what was known
        eventually(lambda: not told.truth.wrong(programmed), told.running.said)
        assert told.answering() == set(PODS)
        told.api.store.compact()
        told.api.resume()
        told.right()
        assert told.answering() == set(PODS)


def test_a_server_that_lost_everything(lab: Lab, tmp_path: Path) -> None:
    """An empty answer is an answer: a list that came as a whole is believed."""
    with following(lab, tmp_path, service(), *slices(lab, PODS)) as told:
        told.right()
        told.watched()
        told.api.restore(None)
        told.right()
        assert told.answering() & set(PODS) == set()
        told.apply(service(), *slices(lab, PODS))
        told.right()
        assert told.answering() == set(PODS)


def test_tokens_are_rotated(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    objects = (service(), *slices(lab, ["pod-1"]))
    with following(lab, tmp_path, *objects, user=token_file(file), tokens=("one",)) as told:
        told.right()
        told.api.access.rotate("two")
        told.api.watches.reset()
        told.apply(*slices(lab, ["pod-2"]))
        eventually(lambda: "401" in told.running.said(), told.running.said)
        assert told.answering() == {"pod-1"}
        file.write_text("two")
        told.right()
        assert told.answering() == {"pod-2"}


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_server_away_for_longer_than_a_check_keeps_nobody_busy(lab: Lab, tmp_path: Path) -> None:
    with following(lab, tmp_path, service(), *slices(lab, PODS), flags=("--sync-period", "1s")) as told:
        told.right()
        told.api.stop()
        time.sleep(1.2)
        used = cpu_seconds(told.running.process.pid)
        told.running.kproxy.nft(f"delete element ip kproxy cluster-ips {{ {SERVICE_IP[4]} }}")
        time.sleep(2)
        assert cpu_seconds(told.running.process.pid) - used < 1
        told.api.resume()
        told.right()
