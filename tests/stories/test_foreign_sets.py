"""A set of another program on which nft crashes does not concern kproxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import http_get

from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.structure import has_table
from kproxy.model import Family
from tests.foreign import add_unreadable_set
from tests.support import SERVICE_IP, Kproxy, Running, eventually, service, slices, sticky

pytestmark = pytest.mark.lab


@pytest.fixture
def foreign(lab: Lab) -> None:
    """The set is on node n1."""
    lab.node("n1").inside(add_unreadable_set)


def test_sync_and_cleanup_work(lab: Lab, kproxy: Kproxy, foreign: None) -> None:
    kproxy.sync(service(**sticky()), *slices(lab, ["pod-1"]))
    assert http_get(kproxy.node, SERVICE_IP[4], 80).pod == "pod-1"
    kproxy.sync(service(**sticky()), *slices(lab, ["pod-2", "pod-3"]))
    assert http_get(kproxy.node, SERVICE_IP[6], 80).pod in ("pod-2", "pod-3")
    done = kproxy.cleanup()
    assert (done.returncode, done.stderr) == (0, "")

    def tables() -> list[Family]:
        with Netlink() as netlink:
            return [family for family in Family if has_table(netlink, family)]

    assert kproxy.node.inside(tables) == []


def test_run_works(lab: Lab, tmp_path: Path, foreign: None) -> None:
    with Running(lab.node("n1"), tmp_path) as running:
        running.write("web", service(), *slices(lab, ["pod-1"]))
        eventually(lambda: "default/web" in running.logged(), running.logged)
        assert http_get(running.kproxy.node, SERVICE_IP[4], 80).pod == "pod-1"
        running.write("web", service(), *slices(lab, ["pod-2", "pod-3"]))  # another chain
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        assert http_get(running.kproxy.node, SERVICE_IP[4], 80).pod in ("pod-2", "pod-3")


def test_nft_crashes_on_it(lab: Lab, foreign: None) -> None:
    """Otherwise the other tests show nothing. Later versions of nft may list it."""
    listing = lab.node("n1").run(["nft", "list", "ruleset"], capture_output=True)
    version = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout
    assert listing.returncode < 0 or "v1.0.6" not in version
