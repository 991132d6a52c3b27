"""The doctor on a node of a lab with a running kproxy: each row breaks the node in one way.

The rows of tests/breaks.py break the input, and facts that a lab cannot break.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import LAN_GATEWAY, single

from tests.support import Running, service, slices

pytestmark = pytest.mark.lab


class Ward(NamedTuple):
    """A node with a running kproxy, which serves the Service web with two pods."""

    lab: Lab
    running: Running

    def ids(self, *question: str) -> set[str]:
        """Return the ids that the doctor finds; those that it cannot see with a question mark."""
        return {each["id"] for each in self.doctor(*question)["findings"]}

    def doctor(self, *question: str) -> dict[str, Any]:
        """Return what the doctor prints."""
        return dict(json.loads(self.running.view("doctor", "-o", "json", *question)))

    def shell(self, script: str) -> None:
        """Run commands on the node."""
        node = self.lab.node("n1")
        node.run(["sh", "-ec", script], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(name="ward", scope="module")
def _ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with Lab(single(3)) as lab:
        running = Running(lab.node("n1"), tmp_path_factory.mktemp("doctor"))
        running.write("web", service("web"), *slices(lab, ["pod-1", "pod-2"]))
        with running:
            yield Ward(lab, running)


class NodeBreak(NamedTuple):
    """Commands on the node that break it, and that mend it."""

    id: str
    breaks: str
    mends: str
    question: str = ""


GATEWAY = LAN_GATEWAY[4]
BREAKS = (
    NodeBreak("KP050", "sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv4.ip_forward=1"),
    NodeBreak(
        "KP050", "sysctl -w net.ipv6.conf.all.forwarding=0", "sysctl -w net.ipv6.conf.all.forwarding=1"
    ),
    NodeBreak("KP053", "ip route del default", f"ip route add default via {GATEWAY}"),
    NodeBreak(
        "KP053", "ip route add unreachable 10.96.0.0/16", "ip route del unreachable 10.96.0.0/16", "web"
    ),
    NodeBreak("KP054", "ip rule add to 10.244.0.0/16 unreachable pref 1", "ip rule del pref 1"),
)


@pytest.mark.parametrize("row", BREAKS, ids=lambda row: f"{row.id} {row.breaks}")
def test_a_break_of_the_node_is_named_and_nothing_else(ward: Ward, row: NodeBreak) -> None:
    question = row.question.split()
    assert ward.doctor(*question)["findings"] == []
    ward.shell(row.breaks)
    try:
        assert ward.ids(*question) == {row.id}
    finally:
        ward.shell(row.mends)
    assert ward.doctor(*question)["findings"] == []
