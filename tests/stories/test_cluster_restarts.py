"""kproxy run ends and begins again, as itself or as a newer one, under clients that connect all the time."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import many
from netns_lab.topology import Family

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family as TableFamily
from kproxy.reconcile.dataplane import Dataplane
from tests.stories.following import Follow, Told
from tests.stories.test_affinity import remembered
from tests.stories.test_churn import connecting
from tests.support import SERVICE_IP, Manifest, eventually, service, slices, sticky

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")
STICKY_IPS: dict[Family, str] = {4: "10.96.10.20", 6: "fd00:96::20"}
KILLS = 4


def objects(lab: Lab) -> list[Manifest]:
    """A plain service and a sticky one."""
    remembering = service("sticky", cluster_ips=STICKY_IPS, **sticky())
    return [service(), *slices(lab, PODS), remembering, *slices(lab, PODS, name="sticky")]


def ready(told: Told, times: int) -> None:
    eventually(lambda: told.running.logged().count("kproxy runs") == times, told.running.logged)


def test_a_restart_is_noticed_by_nobody(lab: Lab, following: Follow) -> None:
    """Nothing is written that is right already; what changed meanwhile is, and nothing else."""
    with following(*objects(lab)) as told:
        told.right()
        (stays,) = many(lab.client("outside"), STICKY_IPS[4], 80, 5)
        entries = remembered(told.running.kproxy, 4, "tcp")
        assert len(entries) == 1
        with connecting(lab.client("outside"), (SERVICE_IP[4], 80), (STICKY_IPS[4], 80)) as seen:
            for times, how in ((2, signal.SIGTERM), (3, signal.SIGKILL)):
                told.running.stop(how)
                before = told.running.kproxy.generation()
                told.running.start()
                ready(told, times)
                told.right()
                assert told.running.kproxy.generation() == before
            told.running.stop()
            told.apply(*slices(lab, ["pod-1", "pod-2"]))
            told.running.start()
            told.right()
        assert set(seen) == set(PODS), seen
        assert set(many(lab.client("outside"), STICKY_IPS[4], 80, 5)) == {stays}
        assert remembered(told.running.kproxy, 4, "tcp") == entries
        # One endpoint less: its slot goes, and a verdict is another. (The other service has it as well.)
        assert re.search(r"ip: 1 element in, 2 out; ip6: 1 element in, 2 out", told.running.logged())


def test_killed_at_any_moment_while_things_happen(lab: Lab, following: Follow) -> None:
    chance = random.Random(3)
    with (
        following(*objects(lab)) as told,
        connecting(lab.client("outside"), (SERVICE_IP[4], 80), (STICKY_IPS[6], 80)) as seen,
    ):
        told.right()
        for number in range(KILLS):
            end = time.monotonic() + chance.uniform(0, 1.2)
            while time.monotonic() < end:
                for name in ("web", "sticky"):
                    told.apply(*slices(lab, chance.sample(PODS, chance.randint(1, 3)), name=name))
                ips: dict[Family, str] = {4: f"10.96.30.{number + 1}", 6: f"fd00:96::{0x3000 + number:x}"}
                told.apply(service(f"new-{number}", cluster_ips=ips))
                time.sleep(0.01)
            told.running.stop(signal.SIGKILL)
            told.running.start(wait=False)
        told.right()
    assert set(seen) == set(PODS), seen


# --- a newer kproxy, which finds another's tables ---

OLDER = {
    "rules": "insert rule {t} kproxy services counter; insert rule {t} kproxy translated counter; "
    "add chain {t} kproxy gone; add rule {t} kproxy gone counter; "
    "insert rule {t} kproxy prerouting jump gone",
    "chains": "add rule {t} kproxy lb-3 counter; flush chain {t} kproxy discard; "
    "add set {t} kproxy gone {{ type mark; }}",
}


@pytest.mark.parametrize("what", [*OLDER, "declarations", "options"])
def test_an_upgrade_is_noticed_by_nobody(lab: Lab, following: Follow, what: str) -> None:
    """The table is brought up to date under traffic: rules, chains, a declaration of a map, other flags."""
    with following(*objects(lab)) as told:
        told.right()
        with connecting(lab.client("outside"), (SERVICE_IP[4], 80), (SERVICE_IP[6], 80)) as seen:
            told.running.stop()
            if what in OLDER:
                for table in ("ip", "ip6"):
                    told.running.kproxy.nft(OLDER[what].format(t=table))
            elif what == "declarations":
                for table in TableFamily:
                    older(told, table)
            else:
                told.truth.options = told.truth.options._replace(masquerade_all=True)
                kubeconfig = told.running.flags[1]
                told.running.flags = ["--kubeconfig", kubeconfig, "--masquerade-all"]
            assert told.truth.wrong(told.objects()) != []
            told.running.start()
            told.right()
            time.sleep(0.2)
        assert set(seen) == set(PODS), seen


def older(told: Told, family: TableFamily) -> None:
    """The table as one would have it that remembers fewer clients: a map's size cannot be changed."""
    listed = told.running.kproxy.nft(f"list table {family} kproxy")
    text = re.sub(r"size \d+", "size 1024", re.sub(r" expires \w+", "", listed))
    assert text != listed
    if family is TableFamily.IPV6:  # older libnftables cannot take what it lists
        text = re.sub(r"\tchain remember-\d+ \{.*?\n\t\}", "", text, flags=re.DOTALL)
        text = re.sub(r"elements = \{[^}]*remember-[^}]*\}", "", text)
    told.running.kproxy.nft(f"delete table {family} kproxy\n{text}")


# --- somebody deletes everything ---


def test_tables_that_are_deleted_are_back_at_once(lab: Lab, following: Follow) -> None:
    """With 300 services beside, long before the next check (docs/daemon.md has the numbers)."""
    many_ips: list[dict[Family, str]] = [
        {4: f"10.96.{40 + n // 250}.{n % 250 + 1}", 6: f"fd00:96::{0x4000 + n:x}"} for n in range(300)
    ]
    others = [service(f"s-{n}", cluster_ips=ips) for n, ips in enumerate(many_ips)]
    with following(*objects(lab), *others) as told:
        told.right()
        for damage in ("flush ruleset", "delete table ip kproxy; delete table ip6 kproxy"):
            told.running.kproxy.nft(damage)
            eventually(lambda: told.answering(6) == set(PODS), told.running.logged)
            told.right()
        assert "! rewritten: ip6 kproxy as a whole" in told.running.logged()


def test_a_table_that_is_restored_is_what_it_was(lab: Lab, following: Follow) -> None:
    """By itself, before anything is compared."""
    with following(*objects(lab)) as told:
        told.right()
        told.running.stop()

        def restore() -> None:
            with Netlink() as netlink:
                for family in TableFamily:
                    dataplane = Dataplane(netlink, family, told.truth.options)
                    dataplane.read()
                    assert dataplane.restore() is None
                    told.running.kproxy.nft(f"delete table {family} kproxy")
                    report = dataplane.restore()
                    assert report is not None
                    assert report.added > 10

        lab.node("n1").inside(restore)
        assert told.truth.wrong(told.objects()) == []
        assert told.answering() == told.answering(6) == set(PODS)


def test_a_second_life_with_nothing_to_read(lab: Lab, tmp_path: Path, following: Follow) -> None:
    """A kubeconfig that is not there yet is waited for, and the tables stay meanwhile."""
    with following(*objects(lab)) as told:
        told.right()
        told.running.stop()
        kubeconfig = tmp_path / "kubeconfig"
        text = kubeconfig.read_text()
        kubeconfig.unlink()
        told.running.start(wait=False)
        eventually(lambda: "cannot follow" in told.running.logged(), told.running.logged)
        assert told.answering() == set(PODS)
        kubeconfig.write_text(text)
        told.apply(*slices(lab, ["pod-2"]))
        told.right()
        assert told.answering() == {"pod-2"}
