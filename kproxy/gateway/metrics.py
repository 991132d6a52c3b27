"""Metrics of the gateway: what kproxy did with HAProxy, and the part of HAProxy's own that is joined."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.gateway.core.exporter import QUERY, joined
from kproxy.gateway.core.files import metrics_socket
from kproxy.gateway.driver import Driver
from kproxy.gateway.runtime import connected
from kproxy.limits import GATEWAY_METRICS, GATEWAY_SECONDS

logger = logging.getLogger(__name__)
BUCKETS = tuple(0.001 * 2**n for n in range(15))
REQUEST = f"GET {QUERY} HTTP/1.0\r\nHost: kproxy\r\n\r\n".encode()


class GatewayMetrics(Collector):
    """Reads a driver at each scrape, which runs in a thread."""

    def __init__(self, driver: Driver, registry: CollectorRegistry) -> None:
        self._driver = driver
        self.latency = Histogram(
            "kproxy_gateway_change_duration_seconds",
            "Time from a change until HAProxy has it",
            registry=registry,
            buckets=BUCKETS,
        )
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        counts = self._driver.counts
        for name, text, value in (
            ("reloads", "Processes of HAProxy started in place of another one", counts.reloads),
            ("restarts", "Processes of HAProxy started because one had ended", counts.restarts),
            ("repairs", "Audits that found that another program changed HAProxy", counts.repairs),
            ("changes", "Changes of HAProxy without a reload", counts.commands),
        ):
            yield CounterMetricFamily(f"kproxy_gateway_{name}", text, value)
        process = self._driver.process
        up = process is not None and process.running
        yield GaugeMetricFamily("kproxy_gateway_up", "Whether HAProxy runs", float(up))

    def exported(self) -> bytes:
        """Return the lines of HAProxy's exporter to join; none if it does not answer."""
        process, loaded = self._driver.process, self._driver.loaded
        if not (process and loaded):
            return b""
        try:
            text = _scrape(process.folder / metrics_socket(process.folder.name))
        except OSError as error:
            logger.debug("HAProxy's metrics: %s", error)
            return b""
        return joined(text, {spare: name for name, spare in loaded.spares.items()}).encode()


def _scrape(path: Path) -> str:
    """Return the exporter's text. Raises OSError."""
    deadline = time.monotonic() + GATEWAY_SECONDS
    with connected(path) as connection:
        connection.sendall(REQUEST)
        text = bytearray()
        while piece := connection.recv(1 << 16):
            text += piece
            if len(text) > GATEWAY_METRICS:
                raise OSError(f"more than {GATEWAY_METRICS} bytes")
            connection.settimeout(max(0.001, deadline - time.monotonic()))
    return text.partition(b"\r\n\r\n")[2].decode(errors="replace")
