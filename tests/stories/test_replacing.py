"""A live node goes from kube-proxy to kproxy and back, as docs/replacing-kube-proxy.md has it.

kube-proxy is played by a ruleset of its nftables mode's shape, the benchmark's peer, since what matters
here is in the kernel: who translates a new connection while both are there, and what becomes of old ones.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Download, many

from bench.peer import load_script
from bench.samples import Endpoint, Sample
from kproxy.cli.cleanup import remove_table
from kproxy.kernel import libnftables
from kproxy.model import Family
from tests.support import SERVICE_IP, Kproxy, eventually, service, slices

pytestmark = pytest.mark.lab

SIZE = 16 << 20
"""Bytes of a download, more than the buffers on its way take."""


@contextmanager
def connecting(lab: Lab, clients: int = 1) -> Iterator[Counter[str]]:
    """Clients that connect one after the other, from the first answer on; how often each pod answered."""
    answers: Counter[str] = Counter()
    done = threading.Event()

    def connect() -> None:
        while not done.is_set():
            answers.update(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 5))

    threads = [threading.Thread(target=connect) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: bool(answers))
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join()


def downloading(lab: Lab) -> Download:
    """A download that lasts until the client reads to its end."""
    return Download(lab.client("outside"), SERVICE_IP[4], 80, SIZE)


def load_kube_proxy(lab: Lab, kproxy: Kproxy, pod: str) -> None:
    sample = Sample("default", "web", SERVICE_IP[4], (Endpoint(lab.pod(pod).address(4), "n1"),))
    kproxy.nft(load_script([sample]))


def test_nobody_notices_who_takes_over(lab: Lab, kproxy: Kproxy) -> None:
    def answer() -> set[str]:
        return set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 10))

    def of_kproxy() -> str:
        return kproxy.sync(service(families=(4,)), *slices(lab, ["pod-2"])[:1])

    # 1. kube-proxy serves; it knows another endpoint than kproxy will, so that one can tell.
    load_kube_proxy(lab, kproxy, "pod-1")
    assert answer() == {"pod-1"}
    with downloading(lab) as download, connecting(lab) as answers:
        # 2. kproxy comes beside it: the newer table is asked first.
        of_kproxy()
        assert answer() == {"pod-2"}
        # 3. kube-proxy's rules go.
        kproxy.nft("delete table ip kube-proxy")
        assert answer() == {"pod-2"}
        reply = download.rest()
    # 4. The download that kube-proxy began is complete, and no client was refused or left waiting.
    assert (reply.pod, len(reply.body)) == ("pod-1", SIZE)
    assert set(answers) == {"pod-1", "pod-2"}

    with downloading(lab) as download, connecting(lab) as answers:
        # 5. And back: kube-proxy first, then kproxy's tables go.
        load_kube_proxy(lab, kproxy, "pod-1")
        assert answer() == {"pod-1"}
        assert kproxy.cleanup().returncode == 0
        assert answer() == {"pod-1"}
        reply = download.rest()
    assert (reply.pod, len(reply.body)) == ("pod-2", SIZE)
    assert set(answers) == {"pod-1", "pod-2"}
    assert "kproxy" not in kproxy.ruleset()


def test_whose_rules_are_older_is_there_at_once(lab: Lab, kproxy: Kproxy) -> None:
    """Back to iptables mode: its tables may be older than kproxy's, and take over when those go. Nobody who
    connects in that very moment is refused; were it one transaction, one in ten times somebody would be."""
    load_kube_proxy(lab, kproxy, "pod-1")
    kproxy.sync(service(families=(4,)), *slices(lab, ["pod-2"])[:1])
    table = kproxy.nft("list table ip kproxy")

    with connecting(lab, clients=2) as answers:

        def answered_by(pod: str) -> None:
            before = answers[pod]
            eventually(lambda: answers[pod] > before)

        def go_and_come() -> None:
            for _ in range(40):
                remove_table(Family.IPV4)
                answered_by("pod-1")
                libnftables.run(table)
                answered_by("pod-2")

        kproxy.node.inside(go_and_come)
    assert set(answers) == {"pod-1", "pod-2"}
