"""Ends stale UDP flows of one family, and limits the CPU time that this takes.

For each search the kernel walks its table of connections, which takes 10 ms however few there are. In a sync,
that happens after each change. A daemon ends the flows of a first change at once, too. After that it waits,
so that searches take SHARE of a CPU at most, and one search serves all changes until then.

Flows may wait only if nothing is lost when kproxy is killed meanwhile: the next start checks all frontends,
but recognizes a removed one by its slots, which must not be swept before its flows are ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kproxy.kernel.conntrack import EndedFlows, end_flows
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.table.flows import FlowRule
from kproxy.table.keys import PackedSocket

SHARE = 0.05
"""The maximum share of a CPU."""
LONGEST = 1.0
"""The maximum delay in seconds."""


class StaleFlows:
    """The flows that have to be ended."""

    def __init__(self, netlink: Netlink, family: Family, clock: Callable[[], float] = time.monotonic) -> None:
        self.patient = False
        """Whether flows may wait. Then `end_due` must be called at the time `due`."""
        self.remain = False
        """The last search failed. The next comparison of the whole table tries again."""
        self._netlink = netlink
        self._family = family
        self._clock = clock
        self._rules: dict[PackedSocket, FlowRule] = {}
        self._due = 0.0

    @property
    def due(self) -> float | None:
        """The time at which waiting flows have to be ended; None if none wait."""
        return self._due if self._rules else None

    def end(self, rules: Mapping[PackedSocket, FlowRule], may_wait: bool = False) -> EndedFlows:
        """End the flows that are stale by `rules`, and those that wait, or let all wait.

        A rule replaces an earlier one of the same frontend.
        """
        self._rules.update(rules)
        if may_wait and self.patient and self._clock() < self._due:
            return EndedFlows(0, ())
        return self._end()

    def end_due(self, now: float) -> EndedFlows | None:
        """End the flows that wait, if this is due. Returns None if it is not."""
        return None if self.due is None or self.due > now else self._end()

    def _end(self) -> EndedFlows:
        rules, self._rules = self._rules, {}
        if not rules:
            return EndedFlows(0, ())
        begun = self._clock()
        ended = end_flows(self._netlink, self._family, rules)
        now = self._clock()
        self._due = now + min((now - begun) / SHARE, LONGEST)
        self.remain = bool(ended.warnings)
        return ended
