"""Metrics of the name server: CoreDNS's names if the meaning is the same, and kproxy's own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kproxy.dns.core.wire import Code
from kproxy.dns.resolver import Resolver


class DnsMetrics(Collector):
    """Reads the counts of a resolver at each scrape, which runs in a thread."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        resolver = self._resolver
        requests = CounterMetricFamily(
            "coredns_dns_requests", "DNS messages, by protocol and IP family", labels=("proto", "family")
        )
        for labels, count in dict(resolver.requests).items():
            requests.add_metric(labels, count)
        responses = CounterMetricFamily("coredns_dns_responses", "DNS replies, by code", labels=("rcode",))
        for code, count in dict(resolver.responses).items():
            responses.add_metric([_name(code)], count)
        yield from (requests, responses)
        for name, text, count in (
            (
                "kproxy_dns_forwarded",
                "DNS queries that an upstream server was asked",
                resolver.forwarded,
            ),
            ("kproxy_dns_dropped", "DNS messages without a reply", resolver.dropped),
        ):
            yield CounterMetricFamily(name, text, count)
        yield GaugeMetricFamily("kproxy_dns_names", "Existing DNS names", len(resolver.zone.nodes))


def _name(code: int) -> str:
    return Code(code).name if code in tuple(Code) else str(code)
