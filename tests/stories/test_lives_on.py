"""What is under way is not cut off: TCP outlives its endpoint, terminating pods serve to the end."""

from __future__ import annotations

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Download, many
from netns_lab.topology import Family

from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, service, slices

pytestmark = pytest.mark.lab

SIZE = 16 << 20
"""Bytes of a download, more than the buffers on its way take."""
SOME = 100_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_download_outlives_its_endpoint_and_its_service(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    # 1. A download begins. It lasts until the client reads to its end.
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    with Download(lab.client("outside"), SERVICE_IP[family], 80, SIZE) as download:
        # 2. Its endpoint is replaced; new connections go to the other one, and data still arrive.
        kproxy.sync(service(), *slices(lab, ["pod-2"]))
        assert set(many(lab.client("outside"), SERVICE_IP[family], 80, 10)) == {"pod-2"}
        download.read(SOME)
        # 3. The service goes altogether.
        kproxy.sync()
        download.read(SOME)
        # 4. The download is complete all the same.
        reply = download.rest()
    assert (reply.pod, len(reply.body)) == ("pod-1", SIZE)


def test_terminating_pods_are_used_only_while_nothing_is_ready(lab: Lab, kproxy: Kproxy) -> None:
    def sync(**pods: str) -> None:
        """How each pod is: ready, draining (serves, terminates), or down (terminates)."""
        found: list[Manifest] = slices(lab, [name.replace("_", "-") for name in pods])
        for slice_ in found:
            for endpoint, how in zip(slice_["endpoints"], pods.values(), strict=True):
                endpoint["conditions"] = {
                    "ready": how == "ready",
                    "serving": how != "down",
                    "terminating": how != "ready",
                }
        kproxy.sync(service(), *found)

    def answer() -> set[str]:
        return set(many(lab.client("outside"), SERVICE_IP[4], 80, 30))

    # 1. Two pods are ready.
    sync(pod_1="ready", pod_2="ready")
    assert answer() == {"pod-1", "pod-2"}
    # 2. One begins to terminate: no new connection for it, though it serves.
    sync(pod_1="draining", pod_2="ready")
    assert answer() == {"pod-2"}
    # 3. The other one, too: nothing is ready, so both are used.
    sync(pod_1="draining", pod_2="draining")
    assert answer() == {"pod-1", "pod-2"}
    # 4. One serves no more.
    sync(pod_1="down", pod_2="draining")
    assert answer() == {"pod-2"}
    # 5. A new pod is ready: only that.
    sync(pod_1="down", pod_2="draining", pod_3="ready")
    assert answer() == {"pod-3"}
    # 6. Nothing is left that serves.
    sync(pod_1="down", pod_2="down")
    assert answer() == {"refused"}
