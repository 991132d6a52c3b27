"""Load-balancer addresses on the uplink: which are to be there, and what failed.

The kernel is asked only when the wanted addresses changed, or interfaces did. What failed is tried again
later, with exponential backoff. reconciler.py decides when each step is done.
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

    def __init__(self, uplink: Uplink, wanted: Callable[[], Announced]) -> None:
        """`wanted` says which ones, in each round."""
        self._uplink = uplink
        self._wanted = wanted
        self._here: Announced | None = None
        self._right = False
        self._trying = False
        self._backoff = Backoff()
        self._failed: set[Family] = set()
        self._not_withdrawn: tuple[str, ...] = ()
        self._not_shown: tuple[str, ...] = ()
        self._stale = Event()

    @property
    def wrong(self) -> tuple[str, ...]:
        """What could not be done: sentences."""
        return self._not_withdrawn + self._not_shown

    def forget(self) -> None:
        """Interfaces or addresses may have changed. From any thread."""
        self._stale.set()

    def due(self) -> float | None:
        """When what failed is to be tried again (time.monotonic); None: nothing failed."""
        return None if self._right or self._here is None else self._backoff.due

    def withdraw(self) -> tuple[AddressChange, ...]:
        """Take back addresses that are no longer wanted; to be called before the tables change."""
        here = self._wanted()
        if here != self._here or self._stale.is_set():
            self._stale.clear()
            self._here, self._right, self._backoff = here, False, Backoff()
        self._trying = not self._right and self._backoff.due <= time.monotonic()
        if not self._trying:
            return ()
        changes, self._not_withdrawn = _attempt(lambda: self._uplink.withdraw(here.protected))
        return changes

    def show(self, failed: Collection[Family]) -> tuple[AddressChange, ...]:
        """Put the wanted addresses there, except those of `failed` families; after the tables changed."""
        assert self._here is not None
        if not self._trying and self._failed == set(failed):
            return ()
        served = [address for address in self._here.own if family_of(address) not in failed]
        changes, self._not_shown = _attempt(lambda: self._uplink.add(served))
        self._failed = set(failed)
        self._right = not self.wrong and not failed
        if not self._right:
            self._backoff.failed(time.monotonic())
        return changes


def _attempt(work: Callable[[], AddressReport]) -> AddressReport:
    try:
        return work()
    except KproxyError as error:
        return AddressReport(warnings=(error.full,))
