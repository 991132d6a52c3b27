"""Invalid input is reported, valid input is programmed, and existing rules stay."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, many
from netns_lab.topology import Family

from tests.apiserver.objects import node
from tests.support import SERVICE_IP, Kproxy, Manifest, changes, service, slices

pytestmark = pytest.mark.lab

OTHER_IP: dict[Family, str] = {4: "10.96.10.20", 6: "fd00:96::20"}


@pytest.fixture
def web(lab: Lab) -> list[Manifest]:
    return [service(), *slices(lab, ["pod-1", "pod-2"])]


@pytest.fixture
def other(lab: Lab) -> list[Manifest]:
    return [service("other", cluster_ips=OTHER_IP), *slices(lab, ["pod-3"], name="other")]


def broken(manifest: Manifest, *path: str | int, value: object) -> Manifest:
    """The manifest with one field changed."""
    result = copy.deepcopy(manifest)
    place: Any = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


BREAKAGE = {
    "a wrong type": (
        0,
        ("spec", "ports", 0, "port"),
        "80",
        'spec.ports[0].port: expected a number, got "80"',
    ),
    "out of range": (0, ("spec", "ports", 0, "port"), 70000, "spec.ports[0].port: 70000 is not a port"),
    "another family": (
        0,
        ("spec", "clusterIPs", 0),
        "fd00:96::99",
        "spec.clusterIPs[0]: fd00:96::99 differs from",
    ),
    "out of its range": (
        0,
        ("spec", "clusterIPs"),
        ["172.16.0.1"],
        "spec.clusterIPs[0]: 172.16.0.1 differs from",
    ),
    "a slice": (
        1,
        ("endpoints", 0, "addresses", 0),
        "::1",
        "endpoints[0].addresses[0]: ::1 is not allowed: loopback address",
    ),
    "a slice's type": (1, ("endpoints",), "none", 'endpoints: expected a list, got "none"'),
}


@pytest.mark.parametrize("case", BREAKAGE.values(), ids=BREAKAGE)
def test_the_rules_of_an_invalid_object_stay(
    lab: Lab,
    kproxy: Kproxy,
    web: list[Manifest],
    other: list[Manifest],
    case: tuple[int, tuple[str | int, ...], object, str],
) -> None:
    index, path, value, message = case
    kproxy.sync(*web)
    bad = [broken(m, *path, value=value) if n == index else m for n, m in enumerate(web)]
    done = kproxy.run("sync", *bad, *other)
    assert done.returncode == 1
    assert f"standard input: {bad[index]['kind']} default/{bad[index]['metadata']['name']}: {message}" in (
        done.stderr
    )
    assert len(changes(done.stdout, "+")) == 2  # the valid one
    assert http_get(lab.pod("pod-1"), OTHER_IP[4], 80).pod == "pod-3"
    for address in SERVICE_IP.values():
        assert set(many(lab.pod("pod-3"), address, 80, 40)) == {"pod-1", "pod-2"}
    kproxy.sync(*other)  # removed by valid input without it
    assert http_get(lab.pod("pod-1"), SERVICE_IP[4], 80, timeout=0.3).outcome is Outcome.TIMEOUT


def test_an_unreadable_file_removes_nothing(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], other: list[Manifest], tmp_path: Path
) -> None:
    kproxy.sync(*web)
    (tmp_path / "broken.yaml").write_text("kind: Service\nmetadata: [\n")
    done = kproxy.run("sync", *other, flags=["-f", str(tmp_path), "-f", str(tmp_path / "missing.yaml")])
    assert done.returncode == 1
    assert f"kproxy: {tmp_path}/broken.yaml: line 3: not YAML" in done.stderr
    assert f"kproxy: {tmp_path}/missing.yaml: No such file or directory" in done.stderr
    assert (len(changes(done.stdout, "+")), len(changes(done.stdout, "-"))) == (2, 0)
    assert http_get(lab.pod("pod-3"), SERVICE_IP[4], 80).outcome is Outcome.ANSWERED


SLIPS: dict[str, Manifest] = {
    "a misspelt kind": {"kind": "Servcie"},
    "a kind in lower case": {"kind": "service"},
    "a wrong group": {"apiVersion": "apps/v1"},
    "a version in upper case": {"apiVersion": "V1"},
    "no kind": {"kind": None},
}


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_a_slip_in_kind_or_api_version_removes_nothing(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], slip: Manifest
) -> None:
    kproxy.sync(*web)
    wrong, (field,) = web[0] | slip, slip
    done = kproxy.run("sync", wrong, *web[1:])
    assert done.returncode == 1
    place = f"document 1 (line 1), items[0]: {wrong['kind'] or 'object'} default/web: {field}: "
    assert f"standard input: {place}" in done.stderr
    assert changes(done.stdout, "-") == []
    assert http_get(lab.pod("pod-3"), SERVICE_IP[4], 80).outcome is Outcome.ANSWERED


def test_input_without_objects_changes_nothing(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], tmp_path: Path
) -> None:
    """The pipe of a failed command has none, and a folder may be the wrong one."""
    kproxy.sync(*web)
    before = kproxy.ruleset()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "web.json").write_text(json.dumps(web[0]))
    inputs: list[tuple[list[str], str]] = [([], ""), (["-f", str(tmp_path)], json.dumps(web[0]))]
    for flags, text in inputs:
        done = kproxy.node.run(kproxy.command("sync", *flags), input=text, capture_output=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Nothing was changed. --allow-empty accepts this" in done.stderr
    assert kproxy.ruleset() == before
    assert len(changes(kproxy.sync(), "-")) == 2  # with --allow-empty


def test_a_dry_run_prints_what_a_sync_does_and_changes_nothing(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], other: list[Manifest]
) -> None:
    dry = "dry run: nothing was changed\n"
    before = kproxy.generation()
    planned = kproxy.sync(*web, flags=["--dry-run"])
    assert kproxy.generation() == before
    assert not kproxy.state.exists()
    assert planned == kproxy.sync(*web) + dry

    moved = [broken(web[0], "spec", "ports", 0, "port", value=81), *web[1:]]
    rules = kproxy.ruleset()
    planned = kproxy.sync(*moved, *other, flags=["--dry-run"])
    assert kproxy.ruleset() == rules
    assert planned == kproxy.sync(*moved, *other) + dry

    kproxy.nft("delete table ip kproxy")
    planned = kproxy.sync(*moved, *other, flags=["--dry-run"])
    assert planned == kproxy.sync(*moved, *other) + dry
    assert len(changes(planned, "+")) == 2


POD_TEMPLATE = {"metadata": {"labels": {"app": "web"}}}


def test_a_diff_prints_what_a_sync_does_and_changes_nothing(
    lab: Lab, kproxy: Kproxy, web: list[Manifest]
) -> None:
    fewer = [web[0], *slices(lab, ["pod-1"])]
    kproxy.sync(*web)
    before = kproxy.ruleset()
    # 1. A changed manifest: a line for each frontend, and one for each element.
    done = kproxy.run("diff", *fewer)
    assert (done.returncode, kproxy.ruleset()) == (1, before)
    heading = done.stdout.index("table ip kproxy:\n")
    assert len(changes(done.stdout[:heading], "~")) == 2
    # 2. The elements are those that the sync then changes.
    listed = changes(done.stdout[heading:], "+"), changes(done.stdout[heading:], "-")
    (added, removed), *_ = re.findall(r"ip: (\d+) elements? added, (\d+) removed", done.stdout)
    assert f"ip: {added} element" in kproxy.sync(*fewer)
    assert [len(each) for each in listed] == [2 * int(added), 2 * int(removed)]  # in both tables
    # 3. There is nothing left to change.
    done = kproxy.run("diff", *fewer)
    assert (done.returncode, changes(done.stdout, "+")) == (0, [])
    # 4. An element that another program changed.
    kproxy.nft(f"delete element ip kproxy services {{ {SERVICE_IP[4]} . tcp . 80 }}")
    done = kproxy.run("diff", *fewer)
    assert [line.split()[1] for line in changes(done.stdout, "+")] == ["default/web", "services"]
    # 5. Standard error is that of the sync: here, what is missing, and a Service that drops packets.
    workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    workload["spec"] = {"selector": {"matchLabels": {"app": "web"}}, "template": POD_TEMPLATE}
    local = broken(web[0], "spec", "internalTrafficPolicy", value="Local")
    elsewhere = [broken(each, "endpoints", 0, "nodeName", value="n2") for each in fewer[1:]]
    done = kproxy.run("diff", local, *elsewhere, workload)
    assert done.stderr == kproxy.run("sync", local, *elsewhere, workload).stderr
    assert "Deployment default/web wants 1 pod" in done.stderr
    assert "internalTrafficPolicy" in done.stderr


STATUSES = {
    "127.0.0.1": "127.0.0.1 is not allowed: loopback address",  # minikube writes it
    "169.254.9.9": "169.254.9.9 is not allowed: link-local address",
    "pending": "'pending' does not appear to be an IPv4 or IPv6 address",
}


@pytest.mark.parametrize(("address", "message"), STATUSES.items())
def test_an_unusable_address_in_the_status_does_not_affect_the_others(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], address: str, message: str
) -> None:
    status = {"loadBalancer": {"ingress": [{"ip": address}, {"ip": "192.168.77.100"}]}}
    balanced = broken(web[0], "spec", "type", value="LoadBalancer") | {"status": status}
    done = kproxy.run("sync", balanced, *web[1:])
    field = "status.loadBalancer.ingress[0].ip"
    expected = f"kproxy: warning: standard input: Service default/web: {field}: {message}: not served\n"
    assert (done.returncode, done.stderr) == (0, expected)
    for served in (SERVICE_IP[4], "192.168.77.100"):
        assert http_get(lab.pod("pod-3"), served, 80).outcome is Outcome.ANSWERED


def test_a_port_zero_in_a_slice_does_not_freeze_it(lab: Lab, kproxy: Kproxy) -> None:
    """kube-proxy ignores such a port."""
    ports = [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 8081}]
    web = service("web", *ports)
    kproxy.sync(web, *slices(lab, ["pod-1"], {"a": 8080, "b": 8081}))
    done = kproxy.run("sync", web, *slices(lab, ["pod-2"], {"a": 8080, "b": 0}))
    assert done.returncode == 0
    assert "EndpointSlice default/web-4: ports[1].port: 0 is not a port (1-65535): ignored" in done.stderr
    assert set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 5)) == {"pod-2"}
    assert http_get(lab.pod("pod-3"), SERVICE_IP[4], 81).outcome is Outcome.REFUSED


def test_the_older_of_two_services_gets_an_address(lab: Lab, kproxy: Kproxy, web: list[Manifest]) -> None:
    kproxy.sync(*web)
    rival = [service("a-rival"), *slices(lab, ["pod-3"], name="a-rival")]
    done = kproxy.run("sync", *rival, *web)
    assert done.returncode == 1
    message = f"Service default/a-rival: spec.clusterIP: {SERVICE_IP[4]} belongs to Service default/web"
    assert message in done.stderr
    assert set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 40)) == {"pod-1", "pod-2"}
    kproxy.sync(*rival)  # the older one was removed
    assert set(many(lab.pod("pod-1"), SERVICE_IP[4], 80, 5)) == {"pod-3"}


def test_the_older_of_two_services_gets_a_node_port(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], other: list[Manifest]
) -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30123}
    for manifest, created in ((web[0], "2026-01-02T00:00:00Z"), (other[0], "2026-01-01T00:00:00Z")):
        manifest["metadata"]["creationTimestamp"] = created
        manifest["spec"].update(type="NodePort", ports=[port])
    done = kproxy.run("sync", *web, *other)
    assert "Service default/web: spec.ports[0].nodePort: 30123/tcp belongs to Service default/other" in (
        done.stderr
    )
    assert http_get(lab.client("outside"), lab.node("n1").address(4), 30123).pod == "pod-3"


def test_allocated_addresses_and_ports_stay(lab: Lab, kproxy: Kproxy, web: list[Manifest]) -> None:
    def allocated(name: str) -> Manifest:
        manifest = service(name, type="NodePort")
        for key in ("clusterIP", "clusterIPs"):
            del manifest["spec"][key]
        return manifest

    first = changes(kproxy.sync(allocated("a"), allocated("b")), "+")
    assert len(first) == 8  # two services, two families, ClusterIP and node port
    assert len({line.split()[2] for line in first}) == 8
    assert "nothing to change" in kproxy.sync(allocated("b"), allocated("a"))
    kproxy.run("cleanup")  # a usage error: cleanup has no -f
    kproxy.nft("flush ruleset")
    again = changes(kproxy.sync(allocated("c"), allocated("b"), allocated("a")), "+")
    assert set(first) < set(again)


@pytest.mark.parametrize("verb", ["sync", "run", "cleanup"])
def test_the_error_without_the_capability(lab: Lab, kproxy: Kproxy, tmp_path: Path, verb: str) -> None:
    drop = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    flags = {"sync": ["-f", "-", "--allow-empty"], "run": ["--manifests", str(tmp_path)], "cleanup": []}
    command = [sys.executable, "-m", "kproxy", verb, "--state-dir", str(kproxy.state), *flags[verb]]
    done = lab.node("n1").run(["setpriv", *drop, *command], input="", capture_output=True)
    assert done.returncode == 1
    assert "kproxy needs CAP_NET_ADMIN" in done.stderr


def test_a_sync_warns_about_policy_local_and_an_unknown_node(lab: Lab, kproxy: Kproxy) -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    web = service("web", port, type="NodePort", externalTrafficPolicy="Local")
    done = kproxy.run(
        "sync", web, *slices(lab, ["pod-1"]), node("n1"), node("n3"), flags=["--node-name", "n2"]
    )
    assert done.returncode == 0
    assert "kproxy: warning: Node n2: there is no Node of this name, only n1, n3: " in done.stderr
    assert (
        "no endpoint is on this node, n2: packets from outside are dropped; its endpoints are on n1\n"
        in done.stderr
    )
    assert done.stderr.count("\n") == 2
    kproxy.sync(web, *slices(lab, ["pod-1"]), flags=["--node-name", "N1"])


def test_sync_says_which_pods_a_workload_would_make(kproxy: Kproxy, web: list[Manifest]) -> None:
    template = {"metadata": {"labels": {"app": "db"}}}
    workload = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}}
    done = kproxy.run("sync", *web, {**workload, "spec": {"template": template}})
    assert done.returncode == 0
    assert done.stderr.startswith(
        "kproxy: StatefulSet default/db wants 1 pod with app=db, and 0 exist. kproxy starts no pods: "
    )
