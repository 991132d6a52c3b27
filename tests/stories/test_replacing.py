"""A live node goes from kube-proxy to kproxy and back, as docs/replacing-kube-proxy.md has it.

kube-proxy is played by a ruleset of its nftables mode's shape, the benchmark's peer, since what matters
here is in the kernel: who translates a new connection while both are there, and what becomes of old ones.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Reply, http_get, many

from bench.peer import load_script
from bench.samples import Endpoint, Sample
from kproxy.cli.cleanup import remove_table
from kproxy.kernel import libnftables
from kproxy.model import Family
from tests.support import SERVICE_IP, Kproxy, service, slices

pytestmark = pytest.mark.lab

SIZE, RATE = 800_000, 200_000


class Clients:
    """A download that goes on all the time, and clients that connect one after the other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.downloads: list[Reply] = []
        self.answers: Counter[str] = Counter()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=call) for call in (self._download, self._connect)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _download(self) -> None:
        path = f"/stream?bytes={SIZE}&rate={RATE}"
        self.downloads.append(http_get(self.lab.client("outside"), SERVICE_IP[4], 80, path=path))

    def _connect(self) -> None:
        while not self._done.is_set():
            self.answers += many(self.lab.pod("pod-3"), SERVICE_IP[4], 80, 5)


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
    with Clients(lab) as there:
        # 2. kproxy comes beside it: the newer table is asked first.
        of_kproxy()
        assert answer() == {"pod-2"}
        # 3. kube-proxy's rules go.
        kproxy.nft("delete table ip kube-proxy")
        assert answer() == {"pod-2"}
        assert there._threads[0].is_alive(), "too slow a machine to tell anything"
        there._threads[0].join()
    # 4. The download that kube-proxy began is complete, and no client was refused or left waiting.
    assert [(reply.pod, len(reply.body)) for reply in there.downloads] == [("pod-1", SIZE)]
    assert set(there.answers) == {"pod-1", "pod-2"}

    with Clients(lab) as back:
        # 5. And back: kube-proxy first, then kproxy's tables go.
        load_kube_proxy(lab, kproxy, "pod-1")
        assert answer() == {"pod-1"}
        assert kproxy.cleanup().returncode == 0
        assert answer() == {"pod-1"}
        assert back._threads[0].is_alive(), "too slow a machine to tell anything"
        back._threads[0].join()
    assert [(reply.pod, len(reply.body)) for reply in back.downloads] == [("pod-2", SIZE)]
    assert set(back.answers) == {"pod-1", "pod-2"}
    assert "kproxy" not in kproxy.ruleset()


def test_whose_rules_are_older_is_there_at_once(lab: Lab, kproxy: Kproxy) -> None:
    """Back to iptables mode: its tables may be older than kproxy's, and take over when those go. Nobody who
    connects in that very moment is refused; were it one transaction, one in ten times somebody would be."""
    load_kube_proxy(lab, kproxy, "pod-1")
    kproxy.sync(service(families=(4,)), *slices(lab, ["pod-2"])[:1])
    table = kproxy.nft("list table ip kproxy")
    answers: Counter[str] = Counter()
    done = threading.Event()

    def connect() -> None:
        while not done.is_set():
            answers.update(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 5))

    def go_and_come() -> None:
        for _ in range(40):
            remove_table(Family.IPV4)
            time.sleep(0.01)
            libnftables.run(table)
            time.sleep(0.01)

    clients = [threading.Thread(target=connect) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        kproxy.node.inside(go_and_come)
    finally:
        done.set()
        for client in clients:
            client.join()
    assert set(answers) == {"pod-1", "pod-2"}
