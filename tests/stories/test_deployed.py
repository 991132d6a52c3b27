"""The DaemonSet's container, as in its manifest: kproxy finds its API server and has the needed rights."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import many
from netns_lab.topology import POD_NETWORK

from tests.apiserver import ApiServer
from tests.apiserver.certificates import Authority
from tests.apiserver.kubeconfig import write_in_cluster
from tests.apiserver.objects import node
from tests.stories.deployed import Deployed, template, without_config_map, write_config_map
from tests.stories.doubled import external_api, in_default
from tests.stories.test_telling import ask
from tests.support import SERVICE_IP, eventually, service, slices

pytestmark = pytest.mark.lab

PODS = ",".join(POD_NETWORK.values())
NET_ADMIN = 1 << 12


@contextmanager
def deployed(
    lab: Lab, folder: Path, configured: bool = True, start: bool = True
) -> Iterator[tuple[ApiServer, Deployed]]:
    """Start the container, and an API server that accepts one token. The account's CA signs its certificate.

    If it is not `configured`, it has no kubeconfig and finds the API server in the way of any pod.
    """
    authority = Authority(folder / "ca")
    with external_api(lab, tls=authority, tokens=["first"]) as api:
        api.apply(node("n1"), *in_default(service(), *slices(lab, ["pod-1"])))
        account = folder / "account"
        environment = write_in_cluster(account, authority.certificate, "first", api.host, api.port)
        write_config_map(folder / "config", api.url, PODS)
        running = Deployed(lab.node("n1"), folder, account, folder / "config")
        if not configured:
            without_config_map(running, PODS, environment)
        if start:
            running.start()
        try:
            yield api, running
        finally:
            running.__exit__()


def answering(lab: Lab) -> set[str]:
    return set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 10))


def test_the_pod_has_the_needed_rights(lab: Lab, tmp_path: Path) -> None:
    here = lab.node("n1")
    with deployed(lab, tmp_path) as (_, running):
        assert answering(lab) == {"pod-1"}
        for probe in ("livenessProbe", "readinessProbe"):
            get = running.container[probe]["httpGet"]
            assert ask(here, f"http://{here.address(4)}:{get['port']}{get['path']}")[0] == 200
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
        )
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (NET_ADMIN, NET_ADMIN)
        assert status["NoNewPrivs"] == "1"
        # It also has the rights to own its tables.
        assert here.run(["nft", "flush table ip kproxy"], capture_output=True).returncode == 1
        assert "set nf_conntrack_tcp_timeout_close_wait from 60 to 3600" in running.logged()
        assert "WARNING" not in running.logged()
        assert "ERROR" not in running.logged()
        # It ends within the grace period of its pod, and Services stay.
        running.process.terminate()
        assert running.process.wait(template()["terminationGracePeriodSeconds"]) == 0
    assert answering(lab) == {"pod-1"}


def test_a_kubeconfig_may_have_its_certificates_in_it(lab: Lab, tmp_path: Path) -> None:
    """kproxy writes them to files. The container has a writable place for them."""
    with deployed(lab, tmp_path, start=False) as (_, running):
        kubeconfig = tmp_path / "config" / "kubeconfig.conf"
        content = json.loads(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        del cluster["certificate-authority"]
        authority = (tmp_path / "account" / "ca.crt").read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
        kubeconfig.write_text(json.dumps(content))
        running.start()
        assert answering(lab) == {"pod-1"}


@pytest.mark.parametrize("configured", [True, False], ids=["kubeconfig", "in-cluster"])
def test_a_token_is_renewed(lab: Lab, tmp_path: Path, configured: bool) -> None:
    with deployed(lab, tmp_path, configured) as (api, running):
        assert answering(lab) == {"pod-1"}
        new = tmp_path / "account" / ".token"
        new.write_text("second")
        new.rename(tmp_path / "account" / "token")
        api.access.rotate("second")
        api.stop()
        api.resume()
        api.apply(*in_default(*slices(lab, ["pod-2"])))
        eventually(lambda: answering(lab) == {"pod-2"}, running.logged)
