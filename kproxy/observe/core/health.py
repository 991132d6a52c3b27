"""How the daemon is: what /healthz, /livez and health check node ports say. The clock is passed in.

Healthy means programmed. kube-proxy is healthy from its start, before the kernel holds a single
service; here nothing is healthy before every family has been applied once. From then on the measure is
kube-proxy's: what is to be programmed and is not, for too long. A change may wait for a minute
(kube-proxy: twice its syncPeriod of 30 s); what was tried and failed, or was found to differ and
could not be put right, for ten seconds, since that is tried again at once.

- /healthz is for load balancers that choose nodes: it also asks whether the node stays.
- /livez is for those that would restart us: starting is alive, and so is waiting for an API server.
- A source that is silent is a warning at first. Who has heard nothing for ten minutes cannot say that the
  kernel holds what it should, so /healthz then says that it is not known. It is no reason to restart, and
  none for health check node ports: what is programmed works, and an API server goes for all nodes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from kproxy.model import Family, NamespacedName

PENDING_SECONDS = 60.0
FAILING_SECONDS = 10.0
SILENT_SECONDS = 120.0
"""Without a word from a source, until that is a warning; an API server sends a bookmark each minute."""
MAX_SILENCE_SECONDS = 600.0
"""Until it is a reason not to be healthy, if nothing else is said."""

_NAMES = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time

Clock: TypeAlias = Callable[[float], str]
"""How a moment of `now`'s kind is written, in RFC 3339."""


class HealthAnswer(NamedTuple):
    """A status and a JSON object."""

    status: int
    body: bytes


class _Pending(NamedTuple):
    since: float
    limit: float
    why: str

    def is_late(self, now: float) -> bool:
        return now - self.since >= self.limit


class Health:
    """What the loop reports, and what follows. `now` is in seconds, of any clock that does not jump."""

    def __init__(
        self,
        families: Iterable[Family] = tuple(Family),
        max_silence: float = MAX_SILENCE_SECONDS,
        pause: float = 0.0,
    ) -> None:
        """`max_silence`: seconds; 0: sources may be silent for ever. `pause`: how long changes may wait."""
        self._max_silence = max_silence
        self._patience = PENDING_SECONDS + pause
        self._applied: dict[Family, float | None] = dict.fromkeys(families)
        self._queued: dict[Family, _Pending] = {}
        self._last_queued: dict[Family, float] = {}
        self._failed: dict[Family, _Pending] = {}
        self._last_seen: dict[str, float] = {}
        self.node_eligible = True
        """Whether the node is to stay; kube-proxy's word for it."""

    # --- what the loop reports ---

    def queued(self, family: Family, now: float) -> None:
        """There is something to program. The first of several counts."""
        self._queued.setdefault(family, _Pending(now, self._patience, "a change waits to be programmed"))
        self._last_queued[family] = now

    def applied(self, family: Family, now: float, begun: float | None = None) -> None:
        """All that was queued until `begun` (None: until now) is in the kernel, and it is what was wanted."""
        self._applied[family] = now
        self._failed.pop(family, None)
        queued = self._queued.pop(family, None)
        if queued and begun is not None and self._last_queued[family] > begun:
            self._queued[family] = queued._replace(since=max(queued.since, begun))

    def failed(self, family: Family, why: str, now: float) -> None:
        """The kernel refused, or differs from what is wanted. The first counts, the last is said."""
        since = self._failed[family].since if family in self._failed else now
        self._failed[family] = _Pending(since, FAILING_SECONDS, why)

    def last_seen(self, source: str, now: float) -> None:
        """A source said something, be it that nothing changed. Only for sources that speak unasked."""
        self._last_seen[source] = now

    # --- what follows ---

    def reasons(self, now: float) -> list[str]:
        """Why what is in the kernel cannot be relied on; [] when healthy."""
        found = [f"{_NAMES[f]}: not programmed yet" for f, when in self._applied.items() if when is None]
        return found + self._late(now)

    def warnings(self, now: float) -> list[str]:
        """What is not right and yet no reason."""
        silent = [
            f"{source}: silent for {seconds:.0f} s"
            for source, seconds in self.silence(now).items()
            if seconds >= SILENT_SECONDS and not self._is_too_long(seconds)
        ]
        failing = [
            f"{_NAMES[family]}: {pending.why}"
            for family, pending in self._failed.items()
            if not pending.is_late(now)
        ]
        return failing + silent

    def silence(self, now: float) -> dict[str, float]:
        """By source, the seconds since it was heard."""
        return {source: now - when for source, when in self._last_seen.items()}

    def unheard(self, now: float) -> list[str]:
        """Sources that have been silent for so long that nobody knows what ought to be programmed."""
        return [
            f"{source}: silent for {seconds:.0f} s, so that what is programmed may be out of date"
            for source, seconds in self.silence(now).items()
            if self._is_too_long(seconds)
        ]

    def _is_too_long(self, seconds: float) -> bool:
        return 0 < self._max_silence <= seconds

    def is_healthy(self, now: float) -> bool:
        """Whether the kernel holds what it should; what health check node ports ask."""
        return not self.reasons(now)

    def healthz(self, now: float, written: Clock) -> HealthAnswer:
        """For load balancers: healthy, and the node stays."""
        reasons = self.reasons(now) + self.unheard(now)
        return self._answer(reasons, now, written, {"nodeEligible": self.node_eligible})

    def livez(self, now: float, written: Clock) -> HealthAnswer:
        """For those that would restart us: whether we do our work."""
        return self._answer(self._late(now), now, written, {})

    def _late(self, now: float) -> list[str]:
        """What has not been programmed for too long, of families that have been programmed."""
        return [
            f"{_NAMES[family]}: {pending.why}, for {now - pending.since:.0f} s"
            for reports in (self._queued, self._failed)
            for family, pending in reports.items()
            if pending.is_late(now) and self._applied.get(family) is not None
        ]

    def _answer(
        self, reasons: list[str], now: float, written: Clock, extra: Mapping[str, bool]
    ) -> HealthAnswer:
        """kube-proxy's object with `reasons` and `warnings`. As there, lastUpdated is now if all is well."""
        status = {
            _NAMES[family]: {
                "lastUpdated": _NEVER if when is None else written(when),
                "healthy": not any(reason.startswith(f"{_NAMES[family]}:") for reason in reasons),
            }
            for family, when in self._applied.items()
        }
        well = not reasons and all(extra.values())
        applied = [when for when in self._applied.values() if when is not None]
        last = now if well else max(applied, default=None)
        body: dict[str, Any] = {
            "lastUpdated": _NEVER if last is None else written(last),
            "currentTime": written(now),
            **extra,
            "healthy": not reasons,
            "status": status,
            "reasons": reasons,
            "warnings": self.warnings(now),
        }
        return HealthAnswer(200 if well else 503, msgspec.json.encode(body))


def service_answer(service: NamespacedName, local_endpoints: int, healthy: bool) -> HealthAnswer:
    """What a health check node port says, as kube-proxy does: 200 with a local endpoint, else 503."""
    body = {
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    }
    return HealthAnswer(200 if local_endpoints and healthy else 503, msgspec.json.encode(body))
