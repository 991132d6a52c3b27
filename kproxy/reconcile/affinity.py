"""Finds stale affinity entries of one family: their endpoint, or the affinity of their frontend, is gone.

Usually they are read with the change that makes them stale, and its transaction removes them. But each client
of a frontend with affinity adds an entry, and the kernel begins each part of a listing at the start of the
map. So a full map of 262,144 entries takes seconds. If there are many entries, a daemon does not wait: after
the change it searches them in another thread (daemon/stale.py), and it removes them in the next round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TypeAlias

from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError, is_missing
from kproxy.model import Family, Protocol
from kproxy.problems import KproxyError
from kproxy.table.layout import (
    AffinityKey,
    FrontendKey,
    PackedSocket,
    affinity_map,
    frontend_of,
    split_affinity_key,
)

FEW = 10_000
"""The number of entries of a map that a round of a daemon reads. This takes a tenth of a second."""
ATTEMPTS = 5
"""A listing lacks some entries if a program commits meanwhile, so it is repeated so often."""

Entry: TypeAlias = tuple[AffinityKey, PackedSocket]
Concerned: TypeAlias = set[FrontendKey] | None
"""The frontends whose entries may be stale; None for all frontends."""


def entries_of(netlink: Netlink, family: Family, protocol: Protocol) -> list[Entry]:
    """Return the entries of a map. Repeated if a program commits meanwhile."""
    for _ in range(ATTEMPTS):
        before = netlink.generation()
        found = list(_listed(netlink, family, protocol))
        if netlink.generation() == before:
            break
    return found


def has_many(family: Family, protocol: Protocol) -> bool:
    """Whether a map has more than FEW entries. The kernel does not list the others."""
    with Netlink() as netlink:
        return sum(1 for _ in islice(_listed(netlink, family, protocol), FEW + 1)) > FEW


def _listed(netlink: Netlink, family: Family, protocol: Protocol) -> Iterator[Entry]:
    try:
        for element in netlink.elements(family, affinity_map(protocol)):
            key, value = read_element(element)
            if isinstance(value, bytes):
                yield AffinityKey(key), PackedSocket(value)
    except NetlinkError as error:
        if not is_missing(error):
            raise


class AffinitySearch:
    """A search that does not delay rounds."""

    def __init__(
        self, family: Family, asked: Mapping[Protocol, Concerned], newly_local: set[FrontendKey]
    ) -> None:
        self.asked, self.newly_local = asked, newly_local
        self.seconds = 0.0
        """The CPU time of the search."""
        self.done = False
        self.found: dict[Protocol, dict[AffinityKey, PackedSocket]] | None = None
        """The entries of the frontends that were asked for; None if the search failed."""
        self._family = family

    def run(self) -> None:
        """Search, in any thread."""
        begun = time.thread_time()
        with suppress(KproxyError, OSError), Netlink() as netlink:
            self.found = {protocol: self._search(netlink, protocol) for protocol in self.asked}
        self.done = True
        self.seconds = time.thread_time() - begun

    @property
    def has_found(self) -> bool:
        """Whether there is something to look at in a round."""
        return self.found is not None and any(self.found.values())

    def _search(self, netlink: Netlink, protocol: Protocol) -> dict[AffinityKey, PackedSocket]:
        """Return what one listing has that is not interrupted, or what several have together."""
        found: dict[AffinityKey, PackedSocket] = {}
        for _ in range(ATTEMPTS):
            before = netlink.generation()
            with suppress(Interrupted):
                for key, endpoint in _listed(netlink, self._family, protocol):
                    if self._asks_for(protocol, key):
                        found[key] = endpoint
                if netlink.generation() == before:
                    break
        return found

    def _asks_for(self, protocol: Protocol, key: AffinityKey) -> bool:
        concerned = self.asked[protocol]
        return concerned is None or frontend_of(split_affinity_key(key)[1], protocol) in concerned


class StaleAffinity:
    """The searches for entries that wait. For one thread at a time, except for `AffinitySearch.run`."""

    def __init__(self, family: Family) -> None:
        self.patient = False
        """Whether entries may wait. Then `begin` must be called while some are `waiting`."""
        self._family = family
        self._waiting: dict[Protocol, Concerned] = {}
        self._newly_local: set[FrontendKey] = set()
        self._search: AffinitySearch | None = None
        """The search whose result has not been used."""

    @property
    def waiting(self) -> bool:
        """Whether entries wait for a search."""
        return bool(self._waiting)

    def may_wait(self, protocol: Protocol) -> bool:
        """Whether a map has so many entries that a round is not to read them."""
        return self.patient and has_many(self._family, protocol)

    def wait(self, protocol: Protocol, concerned: Concerned, newly_local: set[FrontendKey]) -> None:
        """Let the entries of these frontends wait for the next search.

        Of `newly_local`, clients outside may have endpoints on other nodes.
        """
        earlier = self._waiting.get(protocol, set())
        self._waiting[protocol] = None if earlier is None or concerned is None else earlier | concerned
        self._newly_local |= newly_local

    def begin(self) -> AffinitySearch | None:
        """Return a search for the entries that wait; None if none wait. Not to be called during a round."""
        if not self._waiting:
            return None
        self._again()
        self._search = AffinitySearch(self._family, self._waiting, self._newly_local)
        self._waiting, self._newly_local = {}, set()
        return self._search

    def take_found(self) -> AffinitySearch | None:
        """Return the last search, if it is done and has not been returned yet."""
        search = self._search
        if search is None or not search.done:
            return None
        if search.found is None:
            self._again()
        self._search = None
        return search

    def _again(self) -> None:
        """Let what an unused search was to find wait again."""
        if self._search:
            for protocol, concerned in self._search.asked.items():
                self.wait(protocol, concerned, self._search.newly_local)
