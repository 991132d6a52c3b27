"""Computes the responses of /healthz, /livez and health check node ports. The caller passes the time.

Healthy means programmed. kube-proxy is healthy from its start, before the kernel has any service. kproxy is
not healthy before every family has been programmed once. After that, it is unhealthy under the same condition
as kube-proxy: something has not been programmed for too long. A change may wait for 60 seconds (in
kube-proxy: twice the syncPeriod of 30 s). A failed attempt or repair may persist for 10 seconds, since it is
repeated immediately.

- /healthz is for load balancers that choose nodes. It also fails if the node is being removed.
- /livez is for programs that restart kproxy. It succeeds while kproxy starts, and while it waits for an API
  server.
- A source that sends nothing causes a warning at first. After ten minutes, kproxy does not know what should
  be programmed, so /healthz fails. /livez and health check node ports do not fail: the programmed services
  still work, and an API server that is away is away for all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from kproxy.model import Family, NamespacedName

PENDING_SECONDS = 60.0
FAILING_SECONDS = 10.0
SILENT_SECONDS = 120.0
"""The time without data from a source until a warning. API servers send a bookmark each minute."""
MAX_SILENCE_SECONDS = 600.0
"""The default time without data from a source after which /healthz fails."""

_NAMES = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time

FormatTime: TypeAlias = Callable[[float], str]
"""Formats a time of the same clock as `now`, in RFC 3339."""


class HealthAnswer(NamedTuple):
    """A response: status and JSON object."""

    status: int
    body: bytes


class _Pending(NamedTuple):
    since: float
    limit: float
    why: str

    def is_late(self, now: float) -> bool:
        return now - self.since >= self.limit


class Health:
    """The health of the daemon. `now` is in seconds, of any monotonic clock."""

    def __init__(
        self,
        families: Iterable[Family] = tuple(Family),
        max_silence: float = MAX_SILENCE_SECONDS,
        pause: float = 0.0,
    ) -> None:
        """`max_silence`: the maximum time without data from a source (s); 0: no limit.

        `pause`: the time that changes may wait on purpose (s).
        """
        self._max_silence = max_silence
        self._max_pending = PENDING_SECONDS + pause
        self._applied: dict[Family, float | None] = dict.fromkeys(families)
        self._queued: dict[Family, _Pending] = {}
        self._last_queued: dict[Family, float] = {}
        self._failed: dict[Family, _Pending] = {}
        self._received: dict[str, float] = {}
        self.other_warnings: Callable[[], list[str]] = list
        """Returns conditions of other servers, which do not concern the tables."""
        self.node_eligible = True
        """Whether load balancers should use the node, which is not being removed. kube-proxy's term."""

    # --- reports of the loop ---

    def queued(self, family: Family, now: float) -> None:
        """Record that a change waits. Of several waiting changes, the first one determines the time."""
        self._queued.setdefault(family, _Pending(now, self._max_pending, "a change is not programmed yet"))
        self._last_queued[family] = now

    def applied(self, family: Family, now: float, begun: float | None = None) -> None:
        """Record that all changes queued until `begun` (None: until now) are programmed."""
        self._applied[family] = now
        self._failed.pop(family, None)
        queued = self._queued.pop(family, None)
        if queued and begun is not None and self._last_queued[family] > begun:
            self._queued[family] = queued._replace(since=max(queued.since, begun))

    def failed(self, family: Family, why: str, now: float) -> None:
        """Record a failure. The first failure in a row determines the time, the last one the message."""
        since = self._failed[family].since if family in self._failed else now
        self._failed[family] = _Pending(since, FAILING_SECONDS, why)

    def received(self, source: str, now: float) -> None:
        """Record data from a source that regularly sends some, even if it is only a bookmark."""
        self._received[source] = now

    # --- results ---

    def reasons(self, now: float) -> list[str]:
        """Return the reasons why kproxy is unhealthy, except silent sources; [] if it is healthy."""
        found = [f"{_NAMES[f]}: not programmed yet" for f, when in self._applied.items() if when is None]
        return found + self._late(now)

    def complaints(self, now: float) -> list[str]:
        """Return why it is unhealthy, or soon will be."""
        return [*self.reasons(now), *self.warnings(now)]

    def complaints_of(self, family: Family, now: float) -> list[str]:
        """Return those of `complaints` that concern the table of one family."""
        return [each for each in self.complaints(now) if each.startswith(f"{_NAMES[family]}:")]

    def warnings(self, now: float) -> list[str]:
        """Return conditions that do not make kproxy unhealthy yet."""
        silent = [
            f"{source}: no data received for {seconds:.0f} s"
            for source, seconds in self.silence(now).items()
            if seconds >= SILENT_SECONDS and not self._is_too_long(seconds)
        ]
        failing = [
            f"{_NAMES[family]}: {pending.why}"
            for family, pending in self._failed.items()
            if not pending.is_late(now)
        ]
        return failing + silent + self.other_warnings()

    def silence(self, now: float) -> dict[str, float]:
        """Return the seconds since each source last sent data."""
        return {source: now - when for source, when in self._received.items()}

    def silent_sources(self, now: float) -> list[str]:
        """Return a reason for each source that has sent nothing for too long."""
        return [
            f"{source}: no data received for {seconds:.0f} s; what is programmed may be out of date"
            for source, seconds in self.silence(now).items()
            if self._is_too_long(seconds)
        ]

    def _is_too_long(self, seconds: float) -> bool:
        return 0 < self._max_silence <= seconds

    def is_healthy(self, now: float) -> bool:
        """Whether the tables contain what they should, as health check node ports need to know it."""
        return not self.reasons(now)

    def healthz(self, now: float, format_time: FormatTime) -> HealthAnswer:
        """Return the response of /healthz: kproxy is healthy, and the node stays."""
        reasons = self.reasons(now) + self.silent_sources(now)
        return self._answer(reasons, now, format_time, {"nodeEligible": self.node_eligible})

    def livez(self, now: float, format_time: FormatTime) -> HealthAnswer:
        """Return the response of /livez: kproxy works, or it starts."""
        return self._answer(self._late(now), now, format_time, {})

    def _late(self, now: float) -> list[str]:
        """Return what has not been programmed for too long, for families that were programmed before."""
        return [
            f"{_NAMES[family]}: {pending.why} (for {now - pending.since:.0f} s)"
            for reports in (self._queued, self._failed)
            for family, pending in reports.items()
            if pending.is_late(now) and self._applied.get(family) is not None
        ]

    def _answer(
        self, reasons: list[str], now: float, format_time: FormatTime, extra: Mapping[str, bool]
    ) -> HealthAnswer:
        """Return kube-proxy's object, with `reasons` and `warnings`.

        As in kube-proxy, `lastUpdated` is `now` if everything is healthy.
        """
        status = {
            _NAMES[family]: {
                "lastUpdated": _NEVER if when is None else format_time(when),
                "healthy": not any(reason.startswith(f"{_NAMES[family]}:") for reason in reasons),
            }
            for family, when in self._applied.items()
        }
        well = not reasons and all(extra.values())
        applied = [when for when in self._applied.values() if when is not None]
        last = now if well else max(applied, default=None)
        body: dict[str, Any] = {
            "lastUpdated": _NEVER if last is None else format_time(last),
            "currentTime": format_time(now),
            **extra,
            "healthy": not reasons,
            "status": status,
            "reasons": reasons,
            "warnings": self.warnings(now),
        }
        return HealthAnswer(200 if well else 503, msgspec.json.encode(body))


def service_answer(service: NamespacedName, local_endpoints: int, healthy: bool) -> HealthAnswer:
    """Return the response of a health check node port, as kube-proxy: 200 with a local endpoint, else 503."""
    body = {
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    }
    return HealthAnswer(200 if local_endpoints and healthy else 503, msgspec.json.encode(body))
