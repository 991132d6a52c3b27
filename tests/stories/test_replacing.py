"""A node changes from kube-proxy to kproxy and back without failures, as docs/replacing-kube-proxy.md says.

The benchmark's peer, a ruleset like that of kube-proxy's nftables mode, plays kube-proxy. The kernel decides
the important points: which table translates a new connection, and what happens to existing ones.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Download, many

from bench.peer import load_script
from bench.samples import Endpoint, Sample
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.reconcile.cleanup import remove_table
from tests.repeating import repeating
from tests.support import SERVICE_IP, Kproxy, eventually, service, slices

pytestmark = pytest.mark.lab

SIZE = 16 << 20
"""Size of a download in bytes; more than all buffers on the path hold."""


@contextmanager
def connecting(lab: Lab, clients: int = 1) -> Iterator[Counter[str]]:
    """Clients connect without pause. Starts after the first answer. Yields the answers of each pod."""
    answers: Counter[str] = Counter()

    def connect() -> None:
        answers.update(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 5))

    with repeating(*[connect] * clients):
        eventually(lambda: bool(answers))
        yield answers


def downloading(lab: Lab) -> Download:
    """Return a download that lasts until the client reads to its end."""
    return Download(lab.client("outside"), SERVICE_IP[4], 80, SIZE)


def load_kube_proxy(lab: Lab, kproxy: Kproxy, pod: str) -> None:
    sample = Sample("default", "web", SERVICE_IP[4], (Endpoint(lab.pod(pod).address(4), "n1"),))
    kproxy.nft(load_script([sample]))


def test_no_connection_fails_during_a_replacement(lab: Lab, kproxy: Kproxy) -> None:
    def answer() -> set[str]:
        return set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 10))

    def of_kproxy() -> str:
        return kproxy.sync(service(families=(4,)), *slices(lab, ["pod-2"])[:1])

    # 1. kube-proxy serves, with another endpoint than kproxy, which shows whose rules apply.
    load_kube_proxy(lab, kproxy, "pod-1")
    assert answer() == {"pod-1"}
    with downloading(lab) as download, connecting(lab) as answers:
        # 2. kproxy is added: the newer table applies first.
        of_kproxy()
        assert answer() == {"pod-2"}
        # 3. kube-proxy's rules are removed.
        kproxy.nft("delete table ip kube-proxy")
        assert answer() == {"pod-2"}
        reply = download.rest()
    # 4. The download that began with kube-proxy is complete. No connection was refused or timed out.
    assert (reply.pod, len(reply.body)) == ("pod-1", SIZE)
    assert set(answers) == {"pod-1", "pod-2"}

    with downloading(lab) as download, connecting(lab) as answers:
        # 5. Back: kube-proxy's rules are added, then kproxy's tables are removed.
        load_kube_proxy(lab, kproxy, "pod-1")
        assert answer() == {"pod-1"}
        assert kproxy.cleanup().returncode == 0
        assert answer() == {"pod-1"}
        reply = download.rest()
    assert (reply.pod, len(reply.body)) == ("pod-2", SIZE)
    assert set(answers) == {"pod-1", "pod-2"}
    assert "kproxy" not in kproxy.ruleset()


def test_older_rules_apply_when_kproxys_table_is_removed(lab: Lab, kproxy: Kproxy) -> None:
    """Back to iptables mode, whose tables may be older than kproxy's: they apply when kproxy's are removed.

    No connection is refused at that moment. With a single transaction, one would be in one of ten runs.
    """
    load_kube_proxy(lab, kproxy, "pod-1")
    kproxy.sync(service(families=(4,)), *slices(lab, ["pod-2"])[:1])
    table = kproxy.nft("list table ip kproxy")

    with connecting(lab, clients=2) as answers:

        def answered_by(pod: str) -> None:
            before = answers[pod]
            eventually(lambda: answers[pod] > before)

        def go_and_come() -> None:
            for _ in range(40):
                with Netlink() as netlink:
                    remove_table(netlink, Family.IPV4)
                answered_by("pod-1")
                subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)
                answered_by("pod-2")

        kproxy.node.inside(go_and_come)
    assert set(answers) == {"pod-1", "pod-2"}
