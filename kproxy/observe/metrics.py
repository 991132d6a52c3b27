"""What /metrics shows: kube-proxy's metrics where the meaning is the same, and our own.

Names, labels and buckets of kubeproxy_* are kube-proxy 1.36's, so that dashboards and alerts go on; where
it counts what is not done here (iptables, cleanups) there is no such metric. The loop reports what
happens; what the kernel counts is read when somebody asks, in a thread of its own with a socket of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import kproxy
from kproxy.model import Family
from kproxy.observe.http import NOT_FOUND, Handler, Response
from kproxy.observe.kernel_counters import FAMILY, KernelCounters
from kproxy.reconcile.core.report import Report

DURATION = tuple(0.001 * 2**n for n in range(15))
LATENCY = (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 301, 30))
ELEMENTS = tuple(4**n for n in range(10))


class Metrics:
    """A registry of its own, and what the loop reports to it. In one thread."""

    def __init__(self, silence: Callable[[], Mapping[str, float]] = dict, by_endpoint: bool = False) -> None:
        """`silence`: how long each source has been. `by_endpoint`: a series for each endpoint, too."""
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        self.registry.register(_Silence(silence))
        self.registry.register(KernelCounters(by_endpoint))
        by_family = ("ip_family",)

        def histogram(
            name: str, text: str, buckets: Iterable[float], labels: Iterable[str] = by_family
        ) -> Histogram:
            return Histogram(name, text, labels, registry=self.registry, buckets=tuple(buckets))

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        sync = "kubeproxy_sync_proxy_rules"
        self._duration = histogram(f"{sync}_duration_seconds", "A round of transactions", DURATION)
        self._full = histogram(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "A round that compared the whole table",
            DURATION,
        )
        self._partial = histogram(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds", "A round of changes only", DURATION
        )
        self._latency = histogram(
            "kubeproxy_network_programming_duration_seconds",
            "From the change of a pod or service until it was programmed",
            LATENCY,
        )
        self._applied = gauge(f"{sync}_last_timestamp_seconds", "When a round last succeeded", by_family)
        self._queued = gauge(f"{sync}_last_queued_timestamp_seconds", "When a change last came", by_family)
        self._failures = counter(f"{sync}_nftables_sync_failures", "Rounds that failed", by_family)
        self._changes = counter(f"{sync}_service_changes", "Services that changed, or their endpoints")
        self._pending = gauge(f"{sync}_service_changes_pending", "Changed services that wait")
        self._ended = counter(
            "kubeproxy_conntrack_reconciler_deleted_entries",
            "UDP flows that were ended, since they led to where nothing serves them",
            by_family,
        )
        self._answers = {
            "/healthz": counter("kubeproxy_proxy_healthz", "Answers of /healthz", ("code",)),
            "/livez": counter("kubeproxy_proxy_livez", "Answers of /livez", ("code",)),
        }
        self._node_changes = counter(
            "kproxy_node_changes", "Changes of this node's addresses, zone or state: what it serves follows"
        )
        self._repairs = counter(
            "kproxy_drift_repairs",
            "What somebody else had changed in the tables and was put right",
            ("what",),
        )
        self._elements = histogram(
            "kproxy_transaction_elements", "Elements in and out, of rounds that changed any", ELEMENTS
        )
        self.skipped = gauge("kproxy_skipped_objects", "Objects that are left out, since they are wrong")
        gauge("kproxy_build_info", "Always 1", ("version",)).labels(kproxy.__version__).set(1)
        for family in FAMILY.values():  # zero is shown, too: a rate needs a first value
            for each in (self._failures, self._ended):
                each.labels(family)
        for what in ("elements", "rules"):
            self._repairs.labels(what)

    # --- what the loop reports ---

    def queued(self, services: int) -> None:
        """So many services changed, or their endpoints, and wait for a round."""
        self._changes.inc(services)
        self._pending.inc(services)
        for family in FAMILY.values():
            self._queued.labels(family).set(time.time())

    def round(
        self,
        reports: Iterable[Report],
        failed: Iterable[Family],
        seconds: float,
        checked: bool,
        repairing: bool = False,
    ) -> None:
        """A round ended. `repairing`: nothing was asked for but to compare, so what it did was to repair."""
        failures = set(failed)
        self._pending.set(0)
        for family, name in FAMILY.items():
            for durations in (self._duration, self._full if checked else self._partial):
                durations.labels(name).observe(seconds)
            if family in failures:
                self._failures.labels(name).inc()
            else:
                self._applied.labels(name).set(time.time())
        for report in reports:
            name = FAMILY[report.family]
            self._ended.labels(name).inc(report.ended)
            if report.added or report.removed:
                self._elements.labels(name).observe(report.added + report.removed)
            self._repairs.labels("rules").inc(len(report.rewritten))
            repaired = report.added + report.removed if repairing else 0
            self._repairs.labels("elements").inc(len(report.repaired) or repaired)

    def node_changed(self) -> None:
        """This node's addresses, zone or state are others."""
        self._node_changes.inc()

    def programmed(self, seconds: float, failed: Container[Family] = ()) -> None:
        """A change of endpoints is in the kernel, so many seconds after its cause, where it did not fail."""
        for family, name in FAMILY.items():
            if family not in failed:
                self._latency.labels(name).observe(max(seconds, 0))

    def answered(self, path: str, status: int) -> None:
        """What /healthz or /livez answered."""
        self._answers[path].labels(str(status)).inc()

    # --- what is served ---

    def handler(self) -> Handler:
        """Serves /metrics, and /proxyMode as kube-proxy does. Counters are read in a thread."""
        reading = asyncio.Lock()

        async def metrics() -> Response:
            async with reading:  # two at a time would each find half of what was counted
                text = await asyncio.to_thread(self.text)
            return Response(200, (("Content-Type", prometheus_client.CONTENT_TYPE_LATEST),), text)

        def handle(path: str, method: str) -> Response | asyncio.Future[Response]:
            if path == "/metrics":
                return asyncio.ensure_future(metrics())
            if path == "/proxyMode":
                return Response(200, (("Content-Type", "text/plain; charset=utf-8"),), b"nftables")
            return NOT_FOUND

        return handle

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)


class _Silence(Collector):
    """For how long sources have been silent, at the time of asking."""

    def __init__(self, silence: Callable[[], Mapping[str, float]]) -> None:
        self._silence = silence

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "kproxy_source_silent_seconds", "Since a source was heard", labels=("source",)
        )
        for source, seconds in self._silence().items():
            family.add_metric([source], seconds)
        yield family
