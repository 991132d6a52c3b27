"""The privileges of a sync: root, CAP_NET_ADMIN, and CAP_NET_RAW to announce addresses."""

from __future__ import annotations

import json
import subprocess

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import http_get

from tests.support import Kproxy, Manifest, service, slices, sticky

pytestmark = pytest.mark.lab


def sync(kproxy: Kproxy, capabilities: str, *manifests: Manifest) -> subprocess.CompletedProcess[str]:
    """Sync with these capabilities only."""
    drop = ["setpriv", "--no-new-privs", "--bounding-set", capabilities, "--inh-caps", capabilities]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    return kproxy.node.run([*drop, *kproxy.command("sync")], input=text, capture_output=True)


def test_net_admin_is_enough(lab: Lab, kproxy: Kproxy) -> None:
    many = [f"pod-{number}" for number in (1, 2, 3)]
    for pods, first in ((many, "+ default/web"), (many[1:], "~ default/web")):
        done = sync(kproxy, "-all,+net_admin", service(**sticky()), *slices(lab, pods))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(first)
    # A sync with all capabilities makes no difference.
    assert "nothing to change" in kproxy.sync(service(**sticky()), *slices(lab, many[1:]))


def test_the_error_without_net_admin(lab: Lab, kproxy: Kproxy) -> None:
    done = sync(kproxy, "-all", service(), *slices(lab, ["pod-1"]))
    assert done.returncode == 1
    assert "kproxy needs CAP_NET_ADMIN" in done.stderr


def test_announcing_needs_net_raw(lab: Lab, kproxy: Kproxy) -> None:
    """Without it, a load-balancer address is added and answers, but it is not announced."""
    pooled = Kproxy(kproxy.node, kproxy.state, flags=["--load-balancer-pool", "192.168.77.100"])
    manifests = [service(type="LoadBalancer", families=[4]), *slices(lab, ["pod-1"])]
    done = sync(pooled, "-all,+net_admin", *manifests)
    assert done.returncode == 1
    assert done.stderr == "kproxy: addresses on eth0 cannot be announced: Operation not permitted\n"
    assert http_get(lab.client("outside"), "192.168.77.100", 80).pod == "pod-1"
    done = sync(pooled, "-all,+net_admin,+net_raw", *manifests)
    assert (done.returncode, done.stderr) == (0, "")
