"""Clients connect without pause while endpoints are added, removed and reordered: no connection fails."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import many
from netns_lab.topology import single

from tests.repeating import repeating
from tests.support import SERVICE_IP, Kproxy, service, slices, sticky

pytestmark = pytest.mark.lab

PACE = 0.002
"""Seconds between two connections of a client: some fall into each sync, and the syncs still get CPU time."""


@contextmanager
def connecting(client: Handle, *targets: tuple[str, int]) -> Iterator[Counter[str]]:
    """Open connections, one thread for each target. Yields the answers of each pod, and the failures."""
    seen: Counter[str] = Counter()

    def connect(address: str, port: int) -> None:
        seen.update(many(client, address, port, 1, concurrency=1))

    with repeating(*(partial(connect, *target) for target in targets), pause=PACE):
        yield seen


@pytest.mark.parametrize("syncs", [80, pytest.param(1000, marks=pytest.mark.long)])
def test_syncs_break_no_connection(tmp_path_factory: pytest.TempPathFactory, syncs: int) -> None:
    chance = random.Random(4)
    pods = [f"pod-{n}" for n in range(1, 7)]
    with Lab(single(len(pods))) as lab:
        node = lab.node("n1")
        addresses = ["--node-ip", f"{node.address(4)},{node.address(6)}"]  # each sync is faster with it
        kproxy = Kproxy(node, tmp_path_factory.mktemp("state"), flags=addresses)
        node_port = {"port": 80, "targetPort": 8080, "nodePort": 30123}
        plain = service("web", node_port, type="NodePort")
        remembered = service("sticky", cluster_ips={4: "10.96.10.20", 6: "fd00:96::20"}, **sticky())

        def sync() -> None:
            chosen = [chance.sample(pods, chance.randint(1, len(pods))) for _ in range(2)]
            kproxy.sync(plain, *slices(lab, chosen[0]), remembered, *slices(lab, chosen[1], name="sticky"))

        sync()
        targets = [(SERVICE_IP[4], 80), (node.address(4), 30123), ("fd00:96::20", 80)]
        with connecting(lab.client("outside"), *targets) as seen:
            for _ in range(syncs):
                sync()
    assert set(seen) == set(pods), seen
    assert sum(seen.values()) > 10 * syncs
