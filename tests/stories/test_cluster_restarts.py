"""kproxy run restarts, as the same or a newer version, while clients connect without pause."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from netns_lab.lab import Lab
from netns_lab.probe import many
from netns_lab.topology import Family

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family as TableFamily
from kproxy.reconcile.dataplane import Dataplane
from tests.stories.following import ClusterStory, Follow
from tests.stories.test_affinity import remembered
from tests.stories.test_churn import connecting
from tests.support import EDITABLE, SERVICE_IP, Manifest, eventually, service, slices, sticky

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")
STICKY_IPS: dict[Family, str] = {4: "10.96.10.20", 6: "fd00:96::20"}
KILLS = 4


def objects(lab: Lab) -> list[Manifest]:
    """A plain and a sticky Service, with slices."""
    remembering = service("sticky", cluster_ips=STICKY_IPS, **sticky())
    return [service(), *slices(lab, PODS), remembering, *slices(lab, PODS, name="sticky")]


def ready(story: ClusterStory, times: int) -> None:
    eventually(lambda: story.running.logged().count("kproxy is ready") == times, story.running.logged)


def test_no_connection_fails_during_a_restart(lab: Lab, following: Follow) -> None:
    """A restart writes only the changes that were made meanwhile."""
    with following(*objects(lab)) as story:
        story.converges()
        (stays,) = many(lab.client("outside"), STICKY_IPS[4], 80, 5, concurrency=1)
        entries = remembered(story.running.kproxy, 4, "tcp")
        assert len(entries) == 1
        with connecting(lab.client("outside"), (SERVICE_IP[4], 80), (STICKY_IPS[4], 80)) as seen:
            for times, how in ((2, signal.SIGTERM), (3, signal.SIGKILL)):
                story.running.stop(how)
                before = story.running.kproxy.generation()
                story.running.start()
                ready(story, times)
                story.converges()
                # It only becomes the owner.
                assert story.running.kproxy.generation() == before + len(TableFamily)
            story.running.stop()
            story.apply(*slices(lab, ["pod-1", "pod-2"]))
            story.running.start()
            story.converges()
        assert set(seen) == set(PODS), seen
        assert set(many(lab.client("outside"), STICKY_IPS[4], 80, 5, concurrency=1)) == {stays}
        assert remembered(story.running.kproxy, 4, "tcp") == entries
        # One endpoint fewer: one slot is removed. (The other Service still has it.)
        summary = "ip: 0 elements added, 1 removed; ip6: 0 elements added, 1 removed"
        story.logs(summary)


def test_no_connection_fails_if_kproxy_is_killed_during_changes(lab: Lab, following: Follow) -> None:
    chance = random.Random(3)
    with (
        following(*objects(lab)) as story,
        connecting(lab.client("outside"), (SERVICE_IP[4], 80), (STICKY_IPS[6], 80)) as seen,
    ):
        story.converges()
        for number in range(KILLS):
            end = time.monotonic() + chance.uniform(0, 1.2)
            while time.monotonic() < end:
                for name in ("web", "sticky"):
                    story.apply(*slices(lab, chance.sample(PODS, chance.randint(1, 3)), name=name))
                ips: dict[Family, str] = {4: f"10.96.30.{number + 1}", 6: f"fd00:96::{0x3000 + number:x}"}
                story.apply(service(f"new-{number}", cluster_ips=ips))
                time.sleep(0.01)
            story.running.stop(signal.SIGKILL)
            story.running.start(wait=False)
        story.converges()
    assert set(seen) == set(PODS), seen


# --- a newer kproxy, which finds the tables of an older one ---

OLDER = {
    "rules": "insert rule {t} kproxy services counter; insert rule {t} kproxy translated counter; "
    "add chain {t} kproxy gone; add rule {t} kproxy gone counter; "
    "insert rule {t} kproxy prerouting jump gone",
    "chains": "add rule {t} kproxy lb-4 counter; flush chain {t} kproxy discard; "
    "add set {t} kproxy gone {{ type mark; }}",
    "slots": "add chain {t} kproxy lb-3; add rule {t} kproxy lb-3 "
    "dnat {t} to {t} daddr . tcp dport . numgen random mod 3 map @endpoints-tcp; "
    "add rule {t} kproxy lb-3 drop; delete element {t} kproxy services {{ {ip} . tcp . 80 }}; "
    'add element {t} kproxy services {{ {ip} . tcp . 80 comment "default/web" : goto lb-3 }}',
}


@pytest.mark.parametrize("what", [*OLDER, "declarations", "options"])
def test_no_connection_fails_during_an_upgrade(lab: Lab, following: Follow, what: str) -> None:
    """The table is updated during traffic: rules, chains, slots, the declaration of a map, other flags."""
    with following(*objects(lab)) as story:
        story.converges()
        with connecting(lab.client("outside"), (SERVICE_IP[4], 80), (SERVICE_IP[6], 80)) as seen:
            story.running.stop()
            if what in OLDER:
                for table, ip in (("ip", SERVICE_IP[4]), ("ip6", SERVICE_IP[6])):
                    story.running.kproxy.nft(OLDER[what].format(t=table, ip=ip))
            elif what == "declarations":
                for table in TableFamily:
                    older(story, table)
            else:
                story.truth.options = replace(story.truth.options, masquerade_all=True)
                kubeconfig = story.running.flags[1]
                story.running.flags = ["--kubeconfig", kubeconfig, "--masquerade-all"]
            assert story.truth.wrong(story.objects()) != []
            story.running.start()
            story.converges()
            time.sleep(0.2)
        assert set(seen) == set(PODS), seen


def older(story: ClusterStory, family: TableFamily) -> None:
    """Replace the table by one with smaller maps: the size of a map cannot be changed."""
    listed = story.running.kproxy.nft(f"list table {family} kproxy")
    text = re.sub(
        r"^\tflags.*\n", "", listed, flags=re.MULTILINE
    )  # nft before 1.1 lists flags that it cannot load
    text = re.sub(r"size \d+", "size 1024", re.sub(r" expires \w+", "", text))
    assert text != listed
    if family is TableFamily.IPV6:  # older libnftables cannot load what they list
        text = re.sub(r"\tchain remember-\d+ \{.*?\n\t\}", "", text, flags=re.DOTALL)
        text = re.sub(r"elements = \{[^}]*remember-[^}]*\}", "", text)
    story.running.kproxy.nft(f"delete table {family} kproxy\n{text}")


# --- another program deletes everything ---


def test_deleted_tables_are_restored_immediately(lab: Lab, following: Follow) -> None:
    """With 300 more Services, and long before the next full comparison (docs/daemon.md has numbers)."""
    many_ips: list[dict[Family, str]] = [
        {4: f"10.96.{40 + n // 250}.{n % 250 + 1}", 6: f"fd00:96::{0x4000 + n:x}"} for n in range(300)
    ]
    others = [service(f"s-{n}", cluster_ips=ips) for n, ips in enumerate(many_ips)]
    with following(*objects(lab), *others, flags=EDITABLE) as story:
        story.converges()
        for damage in ("flush ruleset", "delete table ip kproxy; delete table ip6 kproxy"):
            story.running.kproxy.nft(damage)
            eventually(lambda: story.answering(6) == set(PODS), story.running.logged)
            story.converges()
        assert "! rewritten: ip6 kproxy as a whole" in story.running.logged()


def test_a_restored_table_equals_the_deleted_one(lab: Lab, following: Follow) -> None:
    """Without a comparison."""
    with following(*objects(lab)) as story:
        story.converges()
        story.running.stop()

        def restore() -> None:
            with Netlink() as netlink:
                for family in TableFamily:
                    dataplane = Dataplane(netlink, family, story.truth.options)
                    dataplane.read()
                    assert dataplane.restore() is None
                    story.running.kproxy.nft(f"delete table {family} kproxy")
                    report = dataplane.restore()
                    assert report is not None
                    assert report.added > 10

        lab.node("n1").inside(restore)
        assert story.truth.wrong(story.objects()) == []
        assert story.answering() == story.answering(6) == set(PODS)


def test_a_missing_kubeconfig_ends_the_start_and_leaves_the_tables(
    lab: Lab, tmp_path: Path, following: Follow
) -> None:
    with following(*objects(lab)) as story:
        story.converges()
        story.running.stop()
        kubeconfig = tmp_path / "kubeconfig"
        text = kubeconfig.read_text()
        kubeconfig.unlink()
        story.running.start(wait=False)
        assert story.running.process.wait(60) == 2
        assert str(kubeconfig) in story.running.logged()
        assert story.answering() == set(PODS)
        kubeconfig.write_text(text)
        story.running.start()
        story.apply(*slices(lab, ["pod-2"]))
        story.converges()
        assert story.answering() == {"pod-2"}
