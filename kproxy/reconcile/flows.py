"""Ends stale UDP flows of one family.

For each search the kernel walks its table of connections, which takes 10 ms however few there are. In a sync,
that happens after each change. A daemon searches in another thread, so that changes do not wait for it
(daemon/stale.py). What it finds is ended in the next round, so no change is programmed meanwhile. A frontend
that changed since the search began is left out: it has a new rule, for which there is another search.

Flows may wait only if nothing is lost when kproxy is killed meanwhile: the next start checks all frontends,
but recognizes a removed one by its slots, which must not be swept before its flows are ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace

from kproxy.kernel.conntrack import EndedFlows, FoundFlows, end_flows, find_flows
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.problems import KproxyError
from kproxy.table.flows import FlowRule
from kproxy.table.layout import PackedSocket

NOTHING = EndedFlows(0, ())


class FlowSearch:
    """A search that does not delay rounds."""

    def __init__(self, family: Family, rules: Mapping[PackedSocket, FlowRule]) -> None:
        self.rules = dict(rules)
        """Those that no later rule has replaced."""
        self.seconds = 0.0
        """The CPU time of the search."""
        self._family = family
        self._asked = rules
        self._found: FoundFlows | None = None

    def run(self) -> None:
        """Search, in any thread. An error is a warning of what is found."""
        begun = time.thread_time()
        try:
            with Netlink() as netlink:
                self._found = find_flows(netlink, self._family, self._asked)
        except (KproxyError, OSError) as error:
            self._found = FoundFlows((), (str(error),))
        self.seconds = time.thread_time() - begun

    @property
    def has_found(self) -> bool:
        """Whether there is something to end, or to report."""
        found = self.found
        return found is not None and bool(found.entries or found.warnings)

    @property
    def found(self) -> FoundFlows | None:
        """The stale entries of the frontends that have not changed since; None if the search is not done."""
        if self._found is None:
            return None
        valid = (entry for entry in self._found.entries if entry.frontend in self.rules)
        return replace(self._found, entries=tuple(valid))


class StaleFlows:
    """The flows that have to be ended. For one thread at a time, except for `FlowSearch.run`."""

    def __init__(self, netlink: Netlink, family: Family) -> None:
        self.patient = False
        """Whether flows may wait. Then `begin` must be called while some are `waiting`."""
        self.remain = False
        """The last search failed. The next comparison of the whole table tries again."""
        self._netlink = netlink
        self._family = family
        self._rules: dict[PackedSocket, FlowRule] = {}
        self._search: FlowSearch | None = None
        """The search whose result has not been used."""

    @property
    def waiting(self) -> bool:
        """Whether flows wait for a search."""
        return bool(self._rules)

    def end(self, rules: Mapping[PackedSocket, FlowRule], may_wait: bool = False) -> EndedFlows:
        """End the flows that are stale by `rules`, and those that wait, or let all wait.

        A rule replaces an earlier one of the same frontend.
        """
        self._rules.update(rules)
        if self._search:
            for frontend in rules:
                self._search.rules.pop(frontend, None)
        return NOTHING if may_wait and self.patient else self.end_all()

    def end_all(self) -> EndedFlows:
        """End the flows that wait, and those of an unused search."""
        rules = self._take()
        return self._end(find_flows(self._netlink, self._family, rules)) if rules else NOTHING

    def begin(self) -> FlowSearch | None:
        """Return a search for the flows that wait; None if none wait. Not to be called during a round."""
        if self._rules:
            self._search = FlowSearch(self._family, self._take())
            return self._search
        return None

    def end_found(self) -> EndedFlows:
        """End what the last search has found."""
        found = self._search.found if self._search else None
        if found is None:
            return NOTHING
        self._search = None
        return self._end(found)

    def _take(self) -> dict[PackedSocket, FlowRule]:
        """Return all rules, also those of an unused search, whose result is then not used."""
        rules = {**(self._search.rules if self._search else {}), **self._rules}
        self._search, self._rules = None, {}
        return rules

    def _end(self, found: FoundFlows) -> EndedFlows:
        ended = end_flows(self._netlink, self._family, found)
        self.remain = bool(ended.warnings)
        return ended
