"""Compares a table with kproxy's copy of it while changes are programmed.

`Dataplane.reconcile` compares and repairs in one round, in which changes wait: some tenths of a second with
10,000 Services, about ten seconds with 100,000. It is necessary when the table is not known, or known to be
wrong. Where it only may be wrong, an audit looks first. It copies the copy, and reads the table in a thread
of its own. Meanwhile changes are programmed, and a dump of the kernel then lacks some elements and contains
others twice. So the kernel is asked once more for each element that differs, between two rounds. The audit
changes nothing: it returns what a round has to repair.

    Audit(dataplane)   between two rounds: some milliseconds
    .read()            in any thread: as long as the kernel lists the table
    .finish()          between two rounds: 10 µs for each element that seems to differ
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError
from kproxy.kernel.structure import read_structure
from kproxy.nft.elements import Keys, Value
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.structure import Structure
from kproxy.reconcile.ahead import read_set
from kproxy.reconcile.dataplane import ATTEMPTS, LARGE, Dataplane
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, numbered_chains


class Audit:
    """One audit of one family's table."""

    def __init__(self, dataplane: Dataplane) -> None:
        """Begin it. Not to be called during a round."""
        self._dataplane = dataplane
        self._view = dataplane.view()
        self._structure: Structure | None = None
        self._chains = NO_NUMBERED_CHAINS
        self._differing: dict[str, set[bytes]] = {}

    def read(self) -> None:
        """Read the table, and compare it with the copy from the beginning. Raises OSError, KproxyError."""
        rules, expected = self._view.rules, self._view.elements
        self._chains = numbered_chains(expected)
        with Netlink() as netlink:
            self._structure = _structure(netlink, rules)
            for declaration in rules.written_sets:
                found = read_set(netlink, rules.family, declaration, self._structure)
                self._differing[declaration.name] = _differing(expected.pop(declaration.name, {}), found)

    def finish(self) -> Keys | None:
        """Return the elements that differ; None if the whole table has to be compared.

        Not to be called during a round.
        """
        if not self._dataplane.has_structure(self._view, self._chains, self._structure):
            return None
        if sum(map(len, self._differing.values())) > LARGE:
            return None
        found: dict[str, set[bytes]] = {}
        for name, keys in self._differing.items():
            if not self._dataplane.can_look_up(name, keys):
                return None
            if wrong := {key for key in keys if not self._dataplane.has_element(name, key)}:
                found[name] = wrong
        if not found:
            self._dataplane.confirm(self._view)
        return found


def _structure(netlink: Netlink, rules: Skeleton) -> Structure | None:
    for _ in range(ATTEMPTS - 1):
        with suppress(Interrupted, NetlinkError):  # a program committed while the kernel listed chains
            return read_structure(netlink, rules)
    return read_structure(netlink, rules, settled=False)


def _differing(expected: dict[bytes, Value], found: Iterable[tuple[bytes, Value]]) -> set[bytes]:
    """Return the keys that differ. Consumes `expected`, so that no second copy of a table is in memory."""
    differing = {key for key, value in found if expected.pop(key, None) != value}
    return differing | expected.keys()
