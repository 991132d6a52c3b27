"""Selects what is joined from the metrics of HAProxy's own exporter.

The exporter has about 60 metrics for each backend. These are the ones that dashboards for HAProxy use first:
requests, errors, times and sessions. A spare backend that stands for a Service has the Service's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kproxy.gateway.core.configuration import SPARE

QUERY = "/metrics?scope=global&scope=frontend&scope=backend"
FAMILIES = frozenset(
    {
        "haproxy_process_start_time_seconds",
        "haproxy_process_current_connections",
        "haproxy_process_max_connections",
        "haproxy_process_nbthread",
        *(
            f"haproxy_{side}_{name}"
            for side in ("frontend", "backend")
            for name in (
                "bytes_in_total",
                "bytes_out_total",
                "current_sessions",
                "http_requests_total",
                "http_responses_total",
            )
        ),
        "haproxy_frontend_request_errors_total",
        "haproxy_backend_active_servers",
        "haproxy_backend_connection_errors_total",
        "haproxy_backend_response_errors_total",
        "haproxy_backend_response_time_average_seconds",
        "haproxy_backend_retry_warnings_total",
    }
)
_NAME = re.compile(r"(?:# (?:HELP|TYPE) )?(\w+)")
_PROXY = re.compile(r'\bproxy="([^"]*)"')


def joined(text: str, services: Mapping[str, str]) -> str:
    """Return the lines to join. `services` has the name of the backend for which a spare one stands."""
    lines = (line for line in text.splitlines() if (name := _NAME.match(line)) and name[1] in FAMILIES)
    return "".join(f"{line}\n" for line in (_renamed(line, services) for line in lines) if line)


def _renamed(line: str, services: Mapping[str, str]) -> str:
    """Return a line with the name of a Service; "" for a spare backend that stands for none."""
    if line.startswith("#") or not (found := _PROXY.search(line)):
        return line
    name = services.get(found[1], "" if SPARE.fullmatch(found[1]) else found[1])
    return f"{line[: found.start(1)]}{name}{line[found.end(1) :]}" if name else ""
