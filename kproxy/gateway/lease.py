"""The lease that one kproxy of a cluster holds: only its holder writes the status of Gateways.

A holder renews its lease. Another kproxy takes it over if it was not renewed for a time. Clocks of nodes may
differ, so that time is measured from when this kproxy saw the last renewal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from kproxy.gateway.requests import Client
from kproxy.sources.cluster.failures import StatusError

SECONDS = 15
"""For so long a lease is valid without a renewal."""
RENEW_SECONDS = 5
PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
NAME = "kproxy-gateway-controller"


class Lease:
    """The lease, as one kproxy sees it."""

    def __init__(self, client: Client, holder: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`holder`: the name of this node."""
        self._client, self._holder, self._clock = client, holder, clock
        self._seen: tuple[str, float] = "", 0.0
        """The last renewal of another holder, and when it was seen first."""
        self._renewed = float("-inf")

    @property
    def held(self) -> bool:
        """Whether no other kproxy can hold it now."""
        return self._clock() - self._renewed < SECONDS - RENEW_SECONDS

    async def acquire(self) -> bool:
        """Take the lease or renew it, if that is due. Returns whether it is held. Raises StatusError."""
        if self._clock() - self._renewed < RENEW_SECONDS:
            return True
        begun = self._clock()
        try:
            if await self._write():
                self._renewed = begun
        except StatusError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise
        return self.held

    async def _write(self) -> bool:
        """Write a renewal, unless another kproxy holds the lease."""
        found = await self._client.get(f"{PATH}/{NAME}")
        spec = self._spec()
        if found is None:
            about = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            metadata = {"name": NAME, "namespace": "kube-system"}
            await self._client.send("POST", PATH, {**about, "metadata": metadata, "spec": spec})
            return True
        if not self._may_take(found.get("spec") or {}):
            return False
        await self._client.send("PUT", f"{PATH}/{NAME}", {**found, "spec": spec})
        return True

    def _may_take(self, spec: dict[str, Any]) -> bool:
        if spec.get("holderIdentity") in (None, "", self._holder):
            return True
        renewal = f"{spec.get('holderIdentity')} {spec.get('renewTime')}"
        if renewal != self._seen[0]:
            self._seen = renewal, self._clock()
        return self._clock() - self._seen[1] >= SECONDS

    def _spec(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"holderIdentity": self._holder, "leaseDurationSeconds": SECONDS, "renewTime": now}
