"""Serves /metrics: kube-proxy's metrics if they have the same meaning, and kproxy's own.

Names, labels and buckets of kubeproxy_* are those of kube-proxy 1.36, so that dashboards and alerts continue
to work. Metrics of things that kproxy does not do (iptables, cleanups) do not exist. The loop reports the
rounds. The kernel's counters are read at each scrape, in a separate thread with a separate socket.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import kproxy
from kproxy.model import Family, ServicePortName
from kproxy.observe.http import NOT_FOUND, Handler, Request, Response
from kproxy.observe.kernel_counters import FAMILY, KernelCounters
from kproxy.observe.refused import RefusedCounters
from kproxy.reconcile.core.report import Report
from kproxy.sources.source import Requests

TEXT = ("Content-Type", "text/plain; charset=utf-8")
DURATION = tuple(0.001 * 2**n for n in range(15))
LATENCY = (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 301, 30))
ELEMENTS = tuple(4**n for n in range(10))
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # of all registries


class Metrics:
    """All metrics, in a registry. Not thread-safe: record rounds always from the same thread."""

    def __init__(
        self,
        silence: Callable[[], Mapping[str, float]] = dict,
        by_endpoint: bool = False,
        requests: Callable[[], Requests] = dict,
        refused: RefusedCounters | None = None,
    ) -> None:
        """`silence` returns the seconds since each source sent data. `by_endpoint` adds more series."""
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        self.joined: Callable[[], bytes] = bytes
        """Returns the series of another exporter, which are appended."""
        self.registry.register(_Silence(silence))
        self.registry.register(_Requests(requests))
        self._kernel = KernelCounters(by_endpoint, refused)
        self.registry.register(self._kernel)
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
        self._duration = histogram(f"{sync}_duration_seconds", "Duration of a round", DURATION)
        self._full = histogram(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "Duration of a comparison of the whole table",
            DURATION,
        )
        self._partial = histogram(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "Duration of a round that only applied changes",
            DURATION,
        )
        self._latency = histogram(
            "kubeproxy_network_programming_duration_seconds",
            "Time from the change of a pod or Service until it was programmed",
            LATENCY,
        )
        self._applied = gauge(
            f"{sync}_last_timestamp_seconds", "Time of the last successful round", by_family
        )
        self._queued = gauge(f"{sync}_last_queued_timestamp_seconds", "Time of the last change", by_family)
        self._failures = counter(f"{sync}_nftables_sync_failures", "Failed rounds", by_family)
        self._changes = counter(
            f"{sync}_service_changes", "Services that changed, or whose endpoints changed"
        )
        self._pending = gauge(f"{sync}_service_changes_pending", "Changed Services that wait for a round")
        self._ended = counter(
            "kubeproxy_conntrack_reconciler_deleted_entries",
            "Deleted conntrack entries of stale UDP flows, and of TCP handshakes that were not translated",
            by_family,
        )
        self._answers = {
            "/healthz": counter("kubeproxy_proxy_healthz", "Responses of /healthz", ("code",)),
            "/livez": counter("kubeproxy_proxy_livez", "Responses of /livez", ("code",)),
        }
        self._node_changes = counter(
            "kproxy_node_changes",
            "Changes of this node's addresses, zone or state, after which all Services were resolved again",
        )
        self._repairs = counter(
            "kproxy_drift_repairs",
            "Repaired changes of other programs to the tables",
            ("what",),
        )
        self._elements = histogram(
            "kproxy_transaction_elements", "Added and removed elements of rounds that changed any", ELEMENTS
        )
        self.endpoints = gauge("kproxy_endpoint_slots", "Endpoints of all frontends")
        self.skipped = gauge("kproxy_skipped_objects", "Invalid objects that were left out")
        gauge("kproxy_build_info", "Always 1", ("version",)).labels(kproxy.__version__).set(1)
        build = _build_info()
        gauge("kubernetes_build_info", "Always 1", build.keys()).labels(*build.values()).set(1)
        for family in FAMILY.values():  # creates series with the value 0, because a rate needs a first value
            for each in (self._failures, self._ended):
                each.labels(family)
        for what in ("elements", "rules"):
            self._repairs.labels(what)

    # --- reports of the loop ---

    def queued(self, services: int) -> None:
        """Count services that changed, or whose endpoints changed, and that wait for a round."""
        self._changes.inc(services)
        self._pending.inc(services)
        for family in FAMILY.values():
            self._queued.labels(family).set(time.time())

    def round(
        self,
        reports: Iterable[Report],
        failed: Iterable[Family],
        seconds: float,
        compared: bool,
        repairing: bool = False,
    ) -> None:
        """Count a round. `compared`: it compared whole tables. `repairing`: its changes are all repairs."""
        failures = set(failed)
        self._pending.set(0)
        for family, name in FAMILY.items():
            for durations in (self._duration, self._full if compared else self._partial):
                durations.labels(name).observe(seconds)
            if family in failures:
                self._failures.labels(name).inc()
            else:
                self._applied.labels(name).set(time.time())
        for report in reports:
            name = FAMILY[report.family]
            self._ended.labels(name).inc(report.ended + report.handshakes)
            if report.added or report.removed:
                self._elements.labels(name).observe(report.added + report.removed)
            self._repairs.labels("rules").inc(len(report.rewritten))
            repaired = report.added + report.removed if repairing else 0
            self._repairs.labels("elements").inc(len(report.repaired) or repaired)

    def audited(self, family: Family, seconds: float) -> None:
        """Count an audit as a comparison of a whole table."""
        self._full.labels(FAMILY[family]).observe(seconds)

    def node_changed(self) -> None:
        """Count a change of this node's addresses, zone or state."""
        self._node_changes.inc()

    def programmed(self, seconds: float, failed: Container[Family] = ()) -> None:
        """Record the time from the cause of an endpoint change until it was programmed."""
        for family, name in FAMILY.items():
            if family not in failed:
                self._latency.labels(name).observe(max(seconds, 0))

    def answered(self, path: str, status: int) -> None:
        """Count a response of /healthz or /livez."""
        self._answers[path].labels(str(status)).inc()

    def set_full_names(self, names: Iterable[Mapping[bytes, ServicePortName]]) -> None:
        """Set the owners of frontends whose comments in the kernel are too short for them, by key."""
        self._kernel.set_full_names(dict(chain.from_iterable(map(Mapping.items, names))))

    # --- the HTTP handler ---

    def handler(self, configz: str = "{}") -> Handler:
        """Return the handler of /metrics, and of kube-proxy's /proxyMode, /healthz and /configz.

        It reads counters in a thread. `configz` is the settings as JSON.
        """
        reading: asyncio.Task[bytes] | None = None
        pages = {
            "/proxyMode": Response(200, (TEXT,), b"nftables"),
            "/healthz": Response(200, (TEXT, ("X-Content-Type-Options", "nosniff")), b"ok"),
            "/configz": Response(200, (("Content-Type", "application/json"),), configz.encode()),
        }

        async def metrics() -> Response:
            nonlocal reading
            if reading is None or reading.done():  # clients share a reading, so it never runs twice at once
                reading = asyncio.create_task(asyncio.to_thread(self.text))
            text = await asyncio.shield(reading)
            return Response(200, (("Content-Type", prometheus_client.CONTENT_TYPE_LATEST),), text)

        def handle(request: Request) -> Response | asyncio.Future[Response]:
            if request.path == "/metrics":
                return asyncio.ensure_future(metrics())
            return pages.get(request.path, NOT_FOUND)

        return handle

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        others = prometheus_client.generate_latest(self.registry)
        return b"".join((others, *self._kernel.series(), self.joined()))


def _build_info() -> dict[str, str]:
    """Return kube-proxy's labels of kubernetes_build_info, with kproxy's version."""
    major, minor, *_ = kproxy.__version__.split(".")
    return {
        "build_date": "",
        "compiler": platform.python_implementation(),
        "git_commit": "",
        "git_tree_state": "",
        "git_version": f"v{kproxy.__version__}",
        "go_version": "",
        "major": major,
        "minor": minor,
        "platform": f"linux/{platform.machine()}",
    }


class _Requests(Collector):
    """The requests to API servers, as client-go counts them."""

    def __init__(self, requests: Callable[[], Requests]) -> None:
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        text = "HTTP requests to the API server, by status code, host and method"
        family = CounterMetricFamily("rest_client_requests", text, labels=("code", "host", "method"))
        for labels, count in self._requests().items():
            family.add_metric(labels, count)
        yield family


class _Silence(Collector):
    """A metric: the seconds since each source sent data, at the time of the scrape."""

    def __init__(self, silence: Callable[[], Mapping[str, float]]) -> None:
        self._silence = silence

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "kproxy_source_silent_seconds", "Time since the source last sent data", labels=("source",)
        )
        for source, seconds in self._silence().items():
            family.add_metric([source], seconds)
        yield family
