"""A node of a cluster: its Node object, its addresses, health checks, metrics and signals."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get

from kproxy.model import parse_address
from kproxy.settings.text import networks
from tests import forkserver
from tests.apiserver.objects import node, service_cidr
from tests.stories.doubled import Double
from tests.stories.following import Follow
from tests.stories.test_telling import ask, samples
from tests.support import EDITABLE, SERVICE_IP, Manifest, eventually, service, slices

pytestmark = pytest.mark.lab

ZONE = "topology.kubernetes.io/zone"
HEALTH = 32100


def with_pods(*cidrs: str) -> Manifest:
    """The Node with these pod CIDRs."""
    return {**node("n1"), "spec": {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)}}


def hinted(lab: Lab, zones: dict[str, str]) -> list[Manifest]:
    """Return EndpointSlices of pods, each pod with a hint for one zone."""
    found = slices(lab, list(zones))
    for one in found:
        for endpoint, zone in zip(one["endpoints"], zones.values(), strict=True):
            endpoint |= {"zone": zone, "hints": {"forZones": [{"name": zone}]}}
    return found


def test_endpoints_depend_on_the_zone_of_the_node(lab: Lab, following: Follow) -> None:
    pods = hinted(lab, {"pod-1": "a", "pod-2": "b"})
    with following(service(), *pods, node("n1", {ZONE: "a"})) as story:
        story.converges()
        assert story.answering() == {"pod-1"}
        for labels, expected in (
            ({ZONE: "b"}, {"pod-2"}),
            ({}, {"pod-1", "pod-2"}),
            ({ZONE: "a"}, {"pod-1"}),
        ):
            story.apply(node("n1", labels))
            story.converges()
            assert story.answering() == expected
        story.delete(node("n1"))
        story.converges()
        assert story.answering() == {"pod-1", "pod-2"}


def test_pod_cidrs_are_added_and_changed(lab: Lab, following: Follow) -> None:
    """Nothing is programmed without pod CIDRs. They apply when the Node gets them, and outlive the Node."""
    own = lab.topology.node("n1")
    flags = ("--detect-local-mode", "NodeCIDR")
    cidrs = f"{own.pod_cidr_v4},{own.pod_cidr_v6}"
    objects = (service(), *slices(lab, ["pod-1"]), node("n1"))
    with following(*objects, flags=flags, cluster_cidr=False, pod_cidrs=cidrs, start=False) as story:
        story.running.start(wait=False)
        eventually(lambda: "podCIDRs" in story.running.logged(), story.running.logged)
        assert story.answering() != {"pod-1"}
        story.apply(with_pods(*cidrs.split(",")))
        story.converges()
        assert seen_as(story.lab) == lab.pod("pod-2").address(4)
        story.delete(node("n1"))
        story.apply(*slices(lab, ["pod-3"]))
        story.converges()
        assert story.answering() == {"pod-3"}
        story.apply(node("n1"))
        story.apply(*slices(lab, ["pod-1"]))
        story.converges()
        # With other pod CIDRs, traffic from the pods is masqueraded.
        story.apply(with_pods("10.250.0.0/16", "fd00:250::/64"))
        eventually(lambda: seen_as(story.lab) == lab.node("n1").address(4), story.running.logged)


def seen_as(lab: Lab) -> str:
    """Return the source address that pod-1 sees when pod-2 connects to the Service."""
    return http_get(lab.pod("pod-2"), SERVICE_IP[4], 80, timeout=1).client


def test_node_ports_follow_the_addresses_of_the_node(lab: Lab, following: Follow) -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    flags = ("--nodeport-addresses", "192.168.0.0/16,10.77.0.0/16")
    with following(service("web", port, type="NodePort"), *slices(lab, ["pod-1"]), flags=flags) as story:
        own = parse_address(lab.node("n1").address(4))
        story.truth.node_ports = (own,)
        story.converges()
        for address in ("10.77.0.9", "192.168.77.99"):
            assert story.answering(address=address, port=30080) != {"pod-1"}
            ip(lab, "addr", "add", f"{address}/32", "dev", "eth0")
            story.truth.node_ports = tuple(sorted((own, parse_address(address))))
            story.converges()
            assert story.answering(address=address, port=30080) == {"pod-1"}
            ip(lab, "addr", "del", f"{address}/32", "dev", "eth0")
            story.truth.node_ports = (own,)
            story.converges()
        assert story.answering(address=lab.node("n1").address(4), port=30080) == {"pod-1"}
        assert samples(lab.node("n1"))["kproxy_node_changes_total"] == 4


SECOND = "10.50.0.11"


def test_node_ports_are_on_the_internal_ip_of_the_node(lab: Lab, double: Double) -> None:
    """On a second interface. The address is that of the uplink while no Node has another one."""
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    addressed = {**node("n1"), "status": {"addresses": [{"type": "InternalIP", "address": SECOND}]}}
    uplink = lab.node("n1").address(4)
    ip(lab, "link", "add", "mgmt0", "type", "bridge")
    ip(lab, "addr", "add", f"{SECOND}/24", "dev", "mgmt0")
    ip(lab, "link", "set", "mgmt0", "up")
    objects = (service("web", port, type="NodePort"), *slices(lab, ["pod-1"]), addressed)
    with double("status.addresses", *objects) as story:
        eventually(lambda: story.answering(address=SECOND, port=30080) == {"pod-1"}, story.running.logged)
        assert story.answering(address=uplink, port=30080) != {"pod-1"}
        story.delete(addressed)
        story.logs("WARNING cluster: Node n1: there is no Node of this name")
        eventually(lambda: story.answering(address=uplink, port=30080) == {"pod-1"}, story.running.logged)
        assert story.answering(address=SECOND, port=30080) != {"pod-1"}
        story.apply(node("n1"))
        story.logs("solved: cluster: Node n1")


def test_policy_local_names_the_nodes_of_the_endpoints(lab: Lab, double: Double) -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    web = service("web", port, type="NodePort", externalTrafficPolicy="Local")
    elsewhere = slices(lab, ["pod-1"])
    for one in elsewhere:
        one["endpoints"][0]["nodeName"] = "n2"
    notice = "no endpoint is on this node, n1: packets from outside are dropped; its endpoints are on n2"
    with double("nodes of endpoints", web, *elsewhere, node("n1")) as story:
        story.logs(f"INFO cluster: Service default/web: spec.externalTrafficPolicy: {notice}")
        assert notice in story.running.view("describe", "svc", "web")
        story.apply(*slices(lab, ["pod-1"]))
        story.logs("solved: cluster: Service default/web: spec.externalTrafficPolicy")


def ip(lab: Lab, *arguments: str) -> None:
    lab.node("n1").run(["ip", *arguments], check=True)


UNUSED = "10.96.0.200"
"""A ClusterIP that no Service has."""


def test_packets_to_unused_cluster_ips_are_dropped_as_service_cidrs_say(lab: Lab, double: Double) -> None:
    """Without the rule, the node's route decides."""
    whole = service_cidr("kubernetes", "10.96.0.0/16", "fd00:96::/112")
    part = service_cidr("a", "10.96.0.0/24")
    ip(lab, "route", "add", "unreachable", UNUSED)
    with double("ServiceCIDRs", service(), *slices(lab, ["pod-1"]), whole, part, service_cidr=False) as story:

        def unused() -> Outcome:
            return http_get(lab.pod("pod-2"), UNUSED, 80, timeout=0.5).outcome

        story.converges()
        assert unused() is Outcome.TIMEOUT
        # An address of a Service that another proxy serves is not unused.
        other = service("other", cluster_ips={4: UNUSED, 6: "fd00:96::200"})
        other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
        story.apply(other)
        eventually(lambda: unused() is Outcome.UNREACHABLE, story.running.logged)
        story.delete(other)
        story.converges()
        assert unused() is Outcome.TIMEOUT
        story.delete(whole)
        story.truth.options = replace(story.truth.options, service_cidrs=networks("10.96.0.0/24"))
        story.converges()
        assert unused() is Outcome.TIMEOUT
        story.delete(part)
        story.truth.options = replace(story.truth.options, service_cidrs=())
        story.converges()
        assert unused() is Outcome.UNREACHABLE
        assert story.answering() == {"pod-1"}
        story.apply(service_cidr("b", "10.244.0.0/15"))
        story.logs("WARNING --cluster-cidr 10.244.0.0/16 and ServiceCIDR 10.244.0.0/15 overlap")


# --- health checks, metrics, signals ---


def test_health_checks_follow_the_endpoints(lab: Lab, following: Follow) -> None:
    local = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=HEALTH)
    outside, url = lab.client("outside"), f"http://{lab.node('n1').address(4)}:{HEALTH}/"

    def answered() -> tuple[int, Any]:
        status, body = ask(outside, url)
        return status, json.loads(body)["localEndpoints"] if status else None

    def on(who: str) -> list[Manifest]:
        found = slices(lab, ["pod-1", "pod-2"])
        for one in found:
            for endpoint in one["endpoints"]:
                endpoint["nodeName"] = who
        return found

    with following(local, *on("n1")) as story:
        eventually(lambda: answered() == (200, 2), story.running.logged)
        story.apply(*on("n2"))
        eventually(lambda: answered() == (503, 0), story.running.logged)
        story.apply(*on("n1"))
        eventually(lambda: answered() == (200, 2), story.running.logged)
        story.network.close()
        assert answered() == (200, 2)
        story.delete(local)
        story.network.open()
        eventually(lambda: answered()[0] == 0, story.running.logged)


def test_kproxy_is_healthy_when_everything_is_programmed(lab: Lab, following: Follow) -> None:
    def statuses() -> list[int]:
        return [ask(lab.node("n1"), f"http://127.0.0.1:10256/{path}")[0] for path in ("healthz", "livez")]

    with following(service(), *slices(lab, ["pod-1"]), start=False) as story:
        story.network.close()
        story.running.start(wait=False)
        eventually(lambda: statuses() == [503, 200], story.running.logged)
        story.network.open()
        eventually(lambda: statuses() == [200, 200], story.running.logged)
        story.network.close()
        assert statuses() == [200, 200]


def test_changes_and_repairs_are_counted(lab: Lab, following: Follow) -> None:
    with following(service(), *slices(lab, ["pod-1"]), flags=EDITABLE) as story:
        story.converges()
        here = lab.node("n1")
        before = samples(here)
        story.apply(*slices(lab, ["pod-2"]))
        story.converges()
        eventually(
            lambda: (
                samples(here)["kubeproxy_sync_proxy_rules_service_changes_total"]
                > before["kubeproxy_sync_proxy_rules_service_changes_total"]
            )
        )
        story.running.kproxy.nft("flush ruleset")
        story.converges()
        drift = 'kproxy_drift_repairs_total{what="elements"}'
        eventually(lambda: samples(here)[drift] >= before[drift] + 6, story.running.logged)
        found = samples(here)
        assert {'kproxy_source_silent_seconds{source="Service"}'} <= found.keys()
        asked = {
            name: count for name, count in found.items() if name.startswith("rest_client_requests_total")
        }
        assert sum(n for name, n in asked.items() if 'code="200"' in name and 'method="GET"' in name) >= 3
        assert ask(here, "http://127.0.0.1:10249/healthz") == (200, "ok\n")
        status, settings = ask(here, "http://127.0.0.1:10249/configz")
        assert (status, json.loads(settings)["kproxy"]["node-name"]) == (200, "n1")


def test_sighup_and_a_second_process(lab: Lab, following: Follow) -> None:
    with following(service(), *slices(lab, ["pod-1"])) as story:
        story.converges()
        full = 'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}'
        before = samples(lab.node("n1"))[full]
        generation = story.running.kproxy.generation()
        story.running.process.send_signal(signal.SIGHUP)
        eventually(lambda: samples(lab.node("n1"))[full] > before, story.running.logged)
        # A second process is refused and changes nothing.
        line = ["run", *story.running.flags, "--state-dir", str(story.running.kproxy.state)]
        second = forkserver.run(lab.node("n1"), line)
        assert second.returncode != 0
        assert "in use by `kproxy run`" in second.stderr
        assert story.running.stop(signal.SIGTERM) == 0
        assert story.running.kproxy.generation() == generation
        assert story.answering() == {"pod-1"}


def test_a_configuration_file_of_kubeadm(lab: Lab, tmp_path: Path, following: Follow) -> None:
    """A ConfigMap as kubeadm writes it, which contains the path of a kubeconfig."""
    with following(service(), *slices(lab, ["pod-1"]), start=False) as story:
        configuration = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "bindAddress": "0.0.0.0",
            "clientConnection": {"acceptContentTypes": "", "burst": 0, "kubeconfig": story.running.flags[1]},
            "clusterCIDR": "10.244.0.0/16,fd00:10:244::/48",
            "configSyncPeriod": "0s",
            "conntrack": {"maxPerCore": None, "min": None},
            "healthzBindAddress": "127.0.0.1:10300",
            "hostnameOverride": "n1",
            "metricsBindAddress": "",
            "mode": "nftables",
        }
        config = tmp_path / "kube-proxy.yaml"
        data = {"config.conf": yaml.safe_dump(configuration), "kubeconfig.conf": ""}
        config.write_text(
            yaml.safe_dump(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy"}, "data": data}
            )
        )
        line = ["run", "--config", str(config), "--state-dir", str(tmp_path / "state")]
        line += ["--service-cidr", "10.96.0.0/16,fd00:96::/112"]
        with story.running.log.open("a") as log:
            process = forkserver.popen(lab.node("n1"), line, stdout=log, stderr=log)
        try:
            story.converges()
            assert story.answering() == {"pod-1"}
            assert ask(lab.node("n1"), "http://127.0.0.1:10300/healthz")[0] == 200
        finally:
            process.terminate()
            assert process.wait(60) == 0
