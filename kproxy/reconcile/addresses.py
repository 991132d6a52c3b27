"""Adds load-balancer addresses to the uplink, and those of the name server to `lo`, and removes them.

The kernel is queried only if the desired addresses or the interfaces changed. Failed changes are tried again
later, with exponential backoff. reconciler.py calls the steps in the right order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Event

from kproxy.controlplane.ownership import Announced
from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import AddressChange, Family, family_of
from kproxy.problems import KproxyError
from kproxy.reconcile.core.backoff import Backoff


class UplinkAddresses:
    """The addresses of the pool that this node announces."""

    def __init__(self, uplink: Uplink, find_desired: Callable[[], Announced]) -> None:
        """`find_desired` returns the desired addresses. It is called in each round."""
        self._uplink = uplink
        self._find_desired = find_desired
        self._desired: Announced | None = None
        self._done = False
        self._trying = False
        self._backoff = Backoff()
        self._failed: set[Family] = set()
        self._failed_removals: tuple[str, ...] = ()
        self._failed_additions: tuple[str, ...] = ()
        self._stale = Event()

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentences that describe the failed changes."""
        return self._failed_removals + self._failed_additions

    def invalidate(self) -> None:
        """Check the uplink in the next round, since interfaces or addresses may have changed. Thread-safe."""
        self._stale.set()

    def due(self) -> float | None:
        """Return the time of the next attempt (time.monotonic); None if nothing failed."""
        return None if self._done or self._desired is None else self._backoff.due

    def withdraw(self) -> tuple[AddressChange, ...]:
        """Remove addresses that are no longer desired. To be called before the tables change."""
        desired = self._find_desired()
        if desired != self._desired or self._stale.is_set():
            self._stale.clear()
            self._desired, self._done, self._backoff = desired, False, Backoff()
        self._trying = not self._done and self._backoff.due <= time.monotonic()
        if not self._trying:
            return ()
        changes, self._failed_removals = _attempt(lambda: self._uplink.withdraw(desired.protected))
        return changes

    def announce(self, failed: Collection[Family]) -> tuple[AddressChange, ...]:
        """Add the desired addresses, except those of `failed` families. Call it after the tables change."""
        assert self._desired is not None
        if not self._trying and self._failed == set(failed):
            return ()
        served, loopback = (
            [address for address in addresses if family_of(address) not in failed]
            for addresses in (self._desired.own, self._desired.loopback)
        )
        local = _attempt(lambda: self._uplink.add_loopback(loopback))
        announced = _attempt(lambda: self._uplink.add(served))
        changes = local.changes + announced.changes
        self._failed_additions = local.warnings + announced.warnings
        self._failed = set(failed)
        self._done = not self.failures and not failed
        if not self._done:
            self._backoff.failed(time.monotonic())
        return changes


def _attempt(work: Callable[[], AddressReport]) -> AddressReport:
    try:
        return work()
    except KproxyError as error:
        return AddressReport(warnings=(error.full,))
