"""The metrics, for reports of the loop and counters of the kernel."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

import kproxy
from kproxy.model import Family, NamespacedName, Protocol, ServicePortName
from kproxy.nft.elements import Verdict
from kproxy.observe import kernel_counters
from kproxy.observe.core.counters import Connections, Counted, NoLocal, Owners
from kproxy.observe.http import Request, Response
from kproxy.observe.kernel_counters import Reading
from kproxy.observe.metrics import LATENCY, Metrics
from kproxy.observe.series import Series
from kproxy.reconcile.core.report import Report
from kproxy.table.layout import EndpointScope, PackedSocket, pack_socket

WEB = ServicePortName(NamespacedName("default", "web"), "http")
OWNERS: Owners = {(Protocol.TCP, PackedSocket(b"frontend")): WEB}


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """Elements with counters, which stand for the kernel's."""
    elements: list[Counted] = []

    def read(connections: Connections, _: object) -> dict[Family, Reading]:
        frontends = [(key, Verdict("goto lb-1", str(WEB)), count) for key, _, count in elements]
        connections.take_frontends(Family.IPV4, EndpointScope.ALL, frontends)
        connections.take_endpoints(Family.IPV4, Protocol.TCP, list(elements), OWNERS)
        connections.retain(frozenset(OWNERS.values()))
        return {Family.IPV4: Reading(7, NoLocal(1, 2)), Family.IPV6: Reading(0, NoLocal(0, 0))}

    monkeypatch.setattr(kernel_counters, "read_tables", read)
    return elements


def samples(metrics: Metrics) -> dict[str, float]:
    """Return all values by `name{labels}`."""
    lines = metrics.text().decode().splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")
    }


def some(metrics: Metrics, prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): n for name, n in samples(metrics).items() if name.startswith(prefix) and n
    }


# The metrics of kube-proxy 1.36 in nftables mode that have the same meaning in kproxy.
KUBE_PROXY_METRICS = {
    "kubeproxy_conntrack_reconciler_deleted_entries_total": "counter",
    "kubeproxy_network_programming_duration_seconds": "histogram",
    "kubeproxy_proxy_healthz_total": "counter",
    "kubeproxy_proxy_livez_total": "counter",
    "kubeproxy_sync_full_proxy_rules_duration_seconds": "histogram",
    "kubeproxy_sync_partial_proxy_rules_duration_seconds": "histogram",
    "kubeproxy_sync_proxy_rules_duration_seconds": "histogram",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds": "gauge",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds": "gauge",
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total": "counter",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total": "gauge",
    "kubeproxy_sync_proxy_rules_service_changes_pending": "gauge",
    "kubeproxy_sync_proxy_rules_service_changes_total": "counter",
}


def test_kube_proxy_metrics_have_its_names_and_types() -> None:
    text = Metrics().text().decode()
    types = dict(re.findall(r"^# TYPE (kubeproxy_\w+) (\w+)$", text, re.MULTILINE))
    assert types == KUBE_PROXY_METRICS
    assert "_created" not in text


def test_buckets_are_those_of_kube_proxy() -> None:
    metrics = Metrics()
    metrics.programmed(1)
    text = metrics.text().decode()

    def buckets(name: str) -> list[str]:
        return re.findall(rf'^{name}_bucket{{ip_family="IPv4",le="([^"]+)"}}', text, re.MULTILINE)

    assert len(LATENCY) == 80
    assert buckets("kubeproxy_network_programming_duration_seconds")[:3] == ["0.25", "0.5", "1.0"]
    metrics.round([], [], 0.1, compared=True)
    text = metrics.text().decode()
    duration = buckets("kubeproxy_sync_proxy_rules_duration_seconds")
    assert (len(duration), duration[0], duration[-2]) == (16, "0.001", "16.384")


REPORT = Report(Family.IPV6, (), removed=3, added=4, rewritten=("services", "lb-2"), ended=5)


def test_a_round_counts_for_both_families_and_a_report_for_one() -> None:
    metrics = Metrics()
    metrics.queued(services=2)
    sync = "kubeproxy_sync_proxy_rules_"
    before = samples(metrics)
    assert before[f"{sync}service_changes_pending"] == 2
    assert before[f'{sync}last_queued_timestamp_seconds{{ip_family="IPv4"}}'] > 1e9
    metrics.round([REPORT], [Family.IPV4], 0.5, compared=False)
    metrics.round([], [], 0.5, compared=True)
    after = samples(metrics)
    assert (after[f"{sync}service_changes_pending"], after[f"{sync}service_changes_total"]) == (0, 2)
    assert after[f'{sync}duration_seconds_count{{ip_family="IPv4"}}'] == 2
    assert after['kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}'] == 1
    assert after['kubeproxy_sync_partial_proxy_rules_duration_seconds_sum{ip_family="IPv6"}'] == 0.5
    assert some(metrics, f"{sync}nftables_sync_failures_total") == {'{ip_family="IPv4"}': 1}
    deleted = some(metrics, "kubeproxy_conntrack_reconciler_deleted_entries_total")
    assert deleted == {'{ip_family="IPv6"}': 5}
    assert after['kproxy_transaction_elements_sum{ip_family="IPv6"}'] == 7
    assert some(metrics, "kproxy_drift_repairs_total") == {'{what="rules"}': 2}


def test_a_failed_family_has_no_time_of_success() -> None:
    metrics = Metrics()
    metrics.round([], [Family.IPV4], 0.5, compared=False)
    assert list(some(metrics, "kubeproxy_sync_proxy_rules_last_timestamp_seconds")) == ['{ip_family="IPv6"}']


def test_changes_of_a_comparison_count_as_repairs() -> None:
    metrics = Metrics()
    metrics.round([REPORT], [], 0.5, compared=True, repairing=True)
    assert some(metrics, "kproxy_drift_repairs_total") == {'{what="rules"}': 2, '{what="elements"}': 7}
    repaired = Report(Family.IPV4, (), 1, 1, (), repaired=("services { 1 }", "services { 2 }"))
    metrics.round([repaired], [], 0.5, compared=False)
    assert some(metrics, "kproxy_drift_repairs_total") == {'{what="rules"}': 2, '{what="elements"}': 9}


def test_responses_are_counted_by_status() -> None:
    metrics = Metrics()
    for path, status in (("/healthz", 200), ("/healthz", 503), ("/livez", 200), ("/healthz", 503)):
        metrics.answered(path, status)
    assert some(metrics, "kubeproxy_proxy_healthz_total") == {'{code="200"}': 1, '{code="503"}': 2}
    assert some(metrics, "kubeproxy_proxy_livez_total") == {'{code="200"}': 1}


def test_the_silence_of_sources_is_computed_at_the_scrape() -> None:
    silence: Mapping[str, float] = {"services": 3.5}
    assert some(Metrics(lambda: silence), "kproxy_source_silent_seconds") == {'{source="services"}': 3.5}


def test_metrics_of_the_process_exist() -> None:
    found = samples(Metrics())
    assert found["process_resident_memory_bytes"] > 1e6
    assert 'kproxy_build_info{version="' in "".join(found)


def test_connections_are_counted_by_service_port_and_optionally_by_endpoint(
    counted: list[Counted],
) -> None:
    value = pack_socket(bytes([10, 244, 0, 1]), 8080)
    labels = 'namespace="default",port="http",service="web"'
    metrics, both = Metrics(), Metrics(by_endpoint=True)
    assert samples(metrics)[f"kproxy_service_connections_total{{{labels}}}"] == 0  # also without connections
    counted.append((b"frontend\0\0\0\0", value, 5))
    assert some(metrics, "kproxy_service_connections_total") == {f"{{{labels}}}": 5}
    refused = labels.replace(",service", ',reason="no-endpoints",service')
    assert samples(metrics)[f"kproxy_refused_connections_total{{{refused}}}"] == 0
    assert "kproxy_endpoint_connections" not in metrics.text().decode()
    of_endpoint = '{endpoint="10.244.0.1:8080",' + labels + "}"
    assert some(both, "kproxy_endpoint_connections_total") == {of_endpoint: 5}


def test_the_size_of_the_tables_is_a_metric() -> None:
    metrics = Metrics()
    assert some(metrics, "kproxy_frontends") == {'{ip_family="IPv4"}': 7}
    metrics.endpoints.set(5)
    assert samples(metrics)["kproxy_endpoint_slots"] == 5
    assert some(metrics, "kubeproxy_sync_proxy_rules_no_local_endpoints_total") == {
        '{ip_family="IPv4",traffic_policy="internal"}': 1,
        '{ip_family="IPv4",traffic_policy="external"}': 2,
    }


def test_if_the_kernel_cannot_be_read_other_metrics_exist(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> dict[Family, Reading]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(kernel_counters, "read_tables", fail)
    assert "process_cpu_seconds_total" in samples(Metrics())
    assert "Operation not permitted" in caplog.text


def test_metrics_and_the_mode_are_served() -> None:
    handler = Metrics().handler('{"kproxy": {}}')

    async def ask(path: str) -> Response:
        answer = handler(Request(path))
        return answer if isinstance(answer, Response) else await answer

    async def main() -> None:
        several = await asyncio.gather(*(ask("/metrics") for _ in range(3)))
        assert all(b"kubeproxy_" in answer.body for answer in several)
        assert dict(several[0].headers)["Content-Type"].startswith("text/plain; version=")
        assert (await ask("/proxyMode")).body == b"nftables"
        assert ((await ask("/healthz")).status, (await ask("/healthz")).body) == (200, b"ok")
        assert json.loads((await ask("/configz")).body) == {"kproxy": {}}
        assert (await ask("/")).status == 404

    asyncio.run(main())


def test_the_build_has_kube_proxys_labels() -> None:
    (name,) = some(Metrics(), "kubernetes_build_info")
    assert re.findall(r"(\w+)=", name) == [
        *("build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version"),
        *("major", "minor", "platform"),
    ]
    assert f'git_version="v{kproxy.__version__}"' in name


def test_requests_to_an_api_server_have_client_gos_labels() -> None:
    requests = {("200", "192.0.2.1:6443", "GET"): 3, ("<error>", "192.0.2.1:6443", "GET"): 1}
    assert some(Metrics(requests=lambda: requests), "rest_client_requests_total") == {
        '{code="200",host="192.0.2.1:6443",method="GET"}': 3,
        '{code="<error>",host="192.0.2.1:6443",method="GET"}': 1,
    }
    assert "# TYPE rest_client_requests_total counter" in Metrics().text().decode()


def test_series_are_written_as_prometheus_client_writes_them() -> None:
    totals = {"a": 0, 'quo"te': 999_999, "back\\slash": 1_000_000, "new\nline": 123_456_789, "é": 2**53}
    registry = CollectorRegistry()
    counter = Counter("connections", "New connections", ("service", "namespace"), registry=registry)
    series: Series[str] = Series(
        "connections", "New connections", lambda name: {"service": name, "namespace": "n"}
    )
    for name, total in totals.items():
        counter.labels(name, "n").inc(total)
    assert series.text(1, lambda: totals) == generate_latest(registry)
    totals["a"] = 7
    assert series.text(1, lambda: totals) == generate_latest(registry)  # the totals are not read again
    counter.labels("a", "n").inc(7)
    del totals["é"]
    counter.remove("é", "n")
    assert series.text(2, lambda: totals) == generate_latest(registry)
