"""What a running kproxy reports to load balancers, kubelets and Prometheus."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import many

from tests.support import EDITABLE, SERVICE_IP, Running, eventually, service, slices

pytestmark = pytest.mark.lab

ASK = "import sys, urllib.error, urllib.request as r\n"
ASK += "try: a = r.urlopen(sys.argv[1], timeout=60)\nexcept urllib.error.HTTPError as e: a = e\n"
ASK += "print(a.status, a.read().decode())"
LOCAL = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=32100, families=(4,))


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path, EDITABLE) as running:
        yield running


def ask(who: Handle, url: str) -> tuple[int, str]:
    """Return status and body, or 0 and an error message if there is no answer."""
    done = who.run([sys.executable, "-c", ASK, url], capture_output=True)
    status, _, body = str(done.stdout).partition(" ")
    return (int(status), body) if done.returncode == 0 else (0, str(done.stderr).splitlines()[-1])


def samples(node: Handle) -> dict[str, float]:
    """Return the samples as `name{labels}` -> value."""
    status, text = ask(node, "http://127.0.0.1:10249/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def test_a_health_check_node_port_reports_local_endpoints(lab: Lab, running: Running) -> None:
    node, outside = lab.node("n1"), lab.client("outside")
    url = f"http://{node.address(4)}:32100/healthz"
    assert ask(outside, url)[0] == 0  # the Service does not exist yet
    running.write("web", LOCAL, *slices(lab, ["pod-1", "pod-2"])[:1])
    eventually(lambda: ask(outside, url)[0] == 200, running.logged)
    assert json.loads(ask(outside, url)[1]) == {
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }
    # It is open only on the addresses on which node ports are open.
    assert ask(node, "http://127.0.0.1:32100/")[0] == 0
    running.write("web", LOCAL)
    eventually(lambda: ask(outside, url)[0] == 503, running.logged)
    running.write("web", service())
    eventually(lambda: ask(outside, url)[0] == 0, running.logged)


def test_health_and_metrics_of_a_running_kproxy(lab: Lab, running: Running) -> None:
    node = lab.node("n1")
    web = '{namespace="default",port="",service="web"}'
    running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
    eventually(lambda: f"kproxy_service_connections_total{web}" in samples(node), running.logged)
    for path in ("healthz", "livez"):
        status, body = ask(node, f"http://127.0.0.1:10256/{path}")
        assert (status, json.loads(body)["reasons"]) == (200, [])
    many(lab.pod("pod-3"), SERVICE_IP[4], 80, 12)
    found = samples(node)
    assert found[f"kproxy_service_connections_total{web}"] == 12
    assert found['kproxy_frontends{ip_family="IPv6"}'] == 1
    assert found["kproxy_endpoint_slots"] == 4
    assert found['kubeproxy_proxy_healthz_total{code="200"}'] == 1
    assert found['kproxy_drift_repairs_total{what="elements"}'] == 0

    running.kproxy.nft("flush map ip kproxy services")
    eventually(lambda: samples(node)['kproxy_drift_repairs_total{what="elements"}'] > 0, running.logged)
    many(lab.pod("pod-3"), SERVICE_IP[4], 80, 3)
    later, whole = samples(node), 'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}'
    assert later[f"kproxy_service_connections_total{web}"] == 15
    assert later[whole] == found[whole]  # repaired without a full comparison


def test_ports_with_long_names_have_series_of_their_own(lab: Lab, running: Running) -> None:
    """A comment in the kernel has 127 bytes: such a namespace and name fill it."""
    node, name = lab.node("n1"), "s" * 63
    place = {"name": name, "namespace": "n" * 63}
    ports = {"p" * 61 + "-a": 80, "p" * 61 + "-b": 81}
    listed = [{"name": port, "port": number, "targetPort": 8080} for port, number in ports.items()]
    pods = slices(lab, ["pod-1"], dict.fromkeys(ports, 8080), name)
    objects = [{**service(name, *listed), "metadata": place}]
    objects += [{**one, "metadata": {**one["metadata"], "namespace": "n" * 63}} for one in pods]
    running.write("web", *objects)

    def series(port: str) -> str:
        labels = f'namespace="{"n" * 63}",port="{port}",service="{name}"'
        return f"kproxy_service_connections_total{{{labels}}}"

    first, second = map(series, ports)
    eventually(lambda: samples(node).keys() >= {first, second}, running.logged)
    many(lab.pod("pod-3"), SERVICE_IP[4], 80, 3)
    many(lab.pod("pod-3"), SERVICE_IP[4], 81, 5)
    found = samples(node)
    assert (found[first], found[second]) == (3, 5)
    assert sum(name.startswith("kproxy_service_connections_total") for name in found) == 2


def test_a_node_that_is_leaving_is_unhealthy_for_load_balancers_only(lab: Lab, running: Running) -> None:
    def statuses() -> list[int]:
        return [ask(lab.node("n1"), f"http://127.0.0.1:10256/{path}")[0] for path in ("healthz", "livez")]

    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    running.write("web", service(), *slices(lab, ["pod-1"]), node)
    eventually(lambda: statuses() == [200, 200], running.logged)
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    running.write("web", service(), *slices(lab, ["pod-1"]), {**node, "spec": {"taints": [taint]}})
    eventually(lambda: statuses() == [503, 200], running.logged)
    running.write("web", service(), *slices(lab, ["pod-1"]), node)
    eventually(lambda: statuses() == [200, 200], running.logged)


def test_the_events_of_a_service_are_described(lab: Lab, running: Running) -> None:
    def described() -> str:
        return running.view("describe", "svc", "web")

    # 1. kproxy has just started. The Service is new.
    running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
    eventually(lambda: "2 frontends added, with 4 endpoints" in described(), running.logged)
    # 2. An endpoint goes, then the others.
    running.write("web", service(), *slices(lab, ["pod-1"]))
    eventually(lambda: "EndpointsChanged" in described(), running.logged)
    running.write("web", service())
    eventually(lambda: "NoEndpoints" in described(), running.logged)
    # 3. The manifest cannot be read any more.
    (running.manifests / "web.json").write_text("{")
    eventually(lambda: "what is programmed stays" in described(), running.logged)
    text = described()
    events = text[text.index("Events:") : text.index("Frontends:")].splitlines()[1:]
    assert [line.split()[:2] for line in events] == [
        ["Type", "Reason"],
        ["----", "------"],
        ["Normal", "Programmed"],
        ["Normal", "EndpointsChanged"],
        ["Warning", "NoEndpoints"],
        ["Warning", "Held"],
    ]
