"""kproxy raises the settings of connection tracking, in the network namespace of its node."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab

from kproxy.kernel.netlink.core.codec import message_type
from kproxy.kernel.netlink.core.constants import IPCTNL_MSG_CT_GET_STATS_CPU, NFNL_SUBSYS_CTNETLINK
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.sysctl import load_connection_tracking
from kproxy.model import Family
from tests.stories.following import Follow
from tests.support import service, slices

pytestmark = pytest.mark.lab

FOLDER = "/proc/sys/net/netfilter"
CLOSE_WAIT, ESTABLISHED = "nf_conntrack_tcp_timeout_close_wait", "nf_conntrack_tcp_timeout_established"
LIBERAL, MAXIMUM = "nf_conntrack_tcp_be_liberal", "nf_conntrack_max"
READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"


def values(node: Handle, *names: str) -> list[int]:
    done = node.run(["cat", *(f"{FOLDER}/{name}" for name in names)], capture_output=True, check=True)
    return [int(line) for line in done.stdout.split()]


def init_only(node: Handle, flags: str = "", before: str = "true") -> tuple[int, str]:
    """Run `kproxy run --init-only` in its own mount namespace, after a command. Returns status and log."""
    command = f"{before} && exec {shlex.quote(sys.executable)} -m kproxy run --init-only {flags}"
    line = ["unshare", "--mount", "--propagation=private", "sh", "-c", command]
    done = node.run(line, capture_output=True, check=False)
    return done.returncode, done.stderr


def test_a_daemon_in_a_cluster_raises_them(lab: Lab, following: Follow) -> None:
    node = lab.node("n1")
    (maximum,) = values(node, MAXIMUM)
    node.run(
        ["sh", "-c", f"echo 60 > {FOLDER}/{CLOSE_WAIT}; echo 432000 > {FOLDER}/{ESTABLISHED}"], check=True
    )
    with following(service(), *slices(lab, ["pod-1"])) as story:
        story.converges()
        assert values(node, CLOSE_WAIT, ESTABLISHED, LIBERAL, MAXIMUM) == [3600, 432000, 0, maximum]
        assert f"set {CLOSE_WAIT} from 60 to 3600" in story.running.logged()


def test_the_request_that_loads_connection_tracking_is_one_that_the_kernel_answers(lab: Lab) -> None:
    """This kernel may have it built in. An unknown request would be an error, and load no module either."""
    kind = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS_CPU)

    def ask() -> int:
        with Netlink() as netlink:
            return len(list(netlink.listing(kind, Family.IPV4, b"")))

    assert lab.node("n1").inside(ask) >= 1
    lab.node("n1").inside(load_connection_tracking)


def test_init_only_raises_them_and_ends(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("n1")
    before = values(node, CLOSE_WAIT, LIBERAL)
    # Without a cluster, only what flags ask for.
    assert init_only(node, f"-f {tmp_path}") == (0, "")
    assert values(node, CLOSE_WAIT, LIBERAL) == before == [60, 0]
    status, log = init_only(node, f"-f {tmp_path} --conntrack-tcp-be-liberal")
    assert (status, values(node, CLOSE_WAIT, LIBERAL)) == (0, [60, 1])
    # A read-only /proc/sys, as containers have it, is a warning.
    status, log = init_only(node, before=READ_ONLY)
    assert (status, values(node, CLOSE_WAIT)) == (0, [60])
    assert f"WARNING cannot change connection tracking: {CLOSE_WAIT} to 3600: Read-only file system" in log
    # It needs no API server, so no kubeconfig either.
    assert init_only(node, "--conntrack-max-per-core=0 --kubeconfig /nonexistent")[0] == 0
    assert values(node, CLOSE_WAIT) == [3600]
    # Values that are as they should be are no reason for a warning.
    assert init_only(node, "--conntrack-max-per-core=0", before=READ_ONLY) == (0, "")
