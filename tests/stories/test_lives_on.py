"""Existing connections continue: TCP outlives its endpoint, and terminating pods serve until they end."""

from __future__ import annotations

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Download, many
from netns_lab.topology import Family

from tests.support import FAMILIES, SERVICE_IP, Kproxy, service, slices, with_conditions

pytestmark = pytest.mark.lab

SIZE = 16 << 20
"""Size of a download in bytes; more than all buffers on the path hold."""
SOME = 100_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_download_outlives_its_endpoint_and_its_service(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    # 1. A download begins. It lasts until the client reads to its end.
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    with Download(lab.client("outside"), SERVICE_IP[family], 80, SIZE) as download:
        # 2. Its endpoint is replaced. New connections go to the new one, and data still arrive.
        kproxy.sync(service(), *slices(lab, ["pod-2"]))
        assert set(many(lab.client("outside"), SERVICE_IP[family], 80, 10)) == {"pod-2"}
        download.read(SOME)
        # 3. The Service is removed.
        kproxy.sync()
        download.read(SOME)
        # 4. The download completes.
        reply = download.rest()
    assert (reply.pod, len(reply.body)) == ("pod-1", SIZE)


def test_terminating_pods_are_used_only_if_no_pod_is_ready(lab: Lab, kproxy: Kproxy) -> None:
    def sync(**pods: str) -> None:
        found = slices(lab, [name.replace("_", "-") for name in pods])
        kproxy.sync(service(), *with_conditions(found, pods.values()))

    def answer() -> set[str]:
        return set(many(lab.client("outside"), SERVICE_IP[4], 80, 30))

    # 1. Two pods are ready.
    sync(pod_1="ready", pod_2="ready")
    assert answer() == {"pod-1", "pod-2"}
    # 2. One begins to terminate: it still serves, but gets no new connections.
    sync(pod_1="draining", pod_2="ready")
    assert answer() == {"pod-2"}
    # 3. The other one begins to terminate: no pod is ready, so both are used.
    sync(pod_1="draining", pod_2="draining")
    assert answer() == {"pod-1", "pod-2"}
    # 4. One stops serving.
    sync(pod_1="down", pod_2="draining")
    assert answer() == {"pod-2"}
    # 5. A new pod is ready: only that one is used.
    sync(pod_1="down", pod_2="draining", pod_3="ready")
    assert answer() == {"pod-3"}
    # 6. No pod serves.
    sync(pod_1="down", pod_2="down")
    assert answer() == {"refused"}
