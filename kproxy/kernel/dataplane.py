"""The table of one family in the kernel: read it, make it true, keep a copy of what it holds.

`reconcile` compares everything and puts right whatever differs, whoever made it so;
`change` does what an event asks for, at the cost of what the event touched. Both commit
in the order that the plan demands (nft/plan.py), chains first and leftovers last.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kproxy.compile.elements import Desired, Target
from kproxy.compile.skeleton import (
    STICKY_PROTOCOLS,
    Options,
    Shapes,
    is_sticky,
    skeleton,
    verdict_count,
)
from kproxy.kernel import libnftables
from kproxy.kernel.netlink import (
    BatchMessage,
    Interrupted,
    Message,
    Netlink,
    NetlinkError,
    element_messages,
    is_missing,
    read_element,
    rule_message,
)
from kproxy.kernel.repair import NUMBERED, Repair, compare
from kproxy.kernel.structure import Structure, expected_structure, read_structure
from kproxy.model import Family, NamespacedName
from kproxy.nft.elements import Elements, Verdict
from kproxy.nft.plan import FrontendChange, Plan, keep_nothing, plan, plan_frontends, stale_affinity
from kproxy.nft.render import (
    netlink_rules,
    render_removal,
    render_repair,
    render_replacement,
    without_affinity_updates,
)
from kproxy.nft.ruleset import TABLE, Skeleton
from kproxy.nft.transaction import Transaction
from kproxy.problems import TransactionError

ATTEMPTS = 5


class Report(NamedTuple):
    """What a reconciliation did."""

    family: Family
    changes: tuple[FrontendChange, ...]
    removed: int
    added: int
    rewritten: tuple[str, ...]
    """Sets and chains that were not as they ought to be; () for a table that was not there."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.removed or self.added or self.rewritten)


def _can_destroy() -> bool:
    """Whether the kernel can delete an element that may be gone (6.3 and later)."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= (6, 3)


def transaction_messages(family: Family, transaction: Transaction) -> list[BatchMessage]:
    """A transaction as netlink messages: out, then in."""
    messages: list[BatchMessage] = []
    if _can_destroy():
        for name, keys in transaction.forget.items():
            messages += element_messages(Message.DESTROYSETELEM, family, name, dict.fromkeys(keys, b""))
    for name, gone in transaction.remove.items():
        messages += element_messages(Message.DELSETELEM, family, name, dict.fromkeys(gone, b""))
    for name, new in transaction.add.items():
        messages += element_messages(Message.NEWSETELEM, family, name, new)
    return messages


class Dataplane:
    """Our table of one family, in the network namespace that the process is in."""

    def __init__(self, netlink: Netlink, family: Family, options: Options) -> None:
        self.netlink = netlink
        self.family = family
        self.options = options
        self.applied: Elements = {}
        """A copy of what the table holds, without what packets write."""
        self._expected: dict[Shapes, Structure] = {}
        self._numbered: set[str] = set()

    # --- reading ---

    def _skeleton(self, shapes: Shapes) -> Skeleton:
        return skeleton(self.family, self.options, shapes)

    def _expect(self, shapes: Shapes) -> Structure:
        if shapes not in self._expected:
            self._expected = {shapes: expected_structure(self._skeleton(shapes))}
        return self._expected[shapes]

    def _read(self) -> Structure | None:
        """Fill `applied` from the kernel; all of it from one generation of the ruleset."""
        wanted = self._skeleton(_shapes((), ()))
        for attempt in range(ATTEMPTS):
            try:
                before = self.netlink.generation()
                structure = read_structure(self.netlink, wanted)
                self.applied = {d.name: self._elements(d.name, structure) for d in wanted.service_sets}
                if self.netlink.generation() == before or attempt == ATTEMPTS - 1:
                    return structure
            except (Interrupted, NetlinkError):
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _elements(self, name: str, structure: Structure | None) -> dict[bytes, bytes | Verdict]:
        if structure is None or name not in structure.sets:
            return {}
        return dict(read_element(element) for element in self.netlink.elements(self.family, name))

    # --- writing ---

    def _commit(self, transaction: Transaction, rules: list[BatchMessage]) -> None:
        messages = rules + transaction_messages(self.family, transaction)
        if not messages:
            return
        try:
            self.netlink.commit(messages)
        except NetlinkError as error:
            removed, added = transaction.counts
            raise TransactionError(
                f"The kernel refused a transaction on table {self.family} {TABLE} "
                f"({removed} elements out, {added} in): {error.strerror}",
                error.errno or 0,
            ) from error
        transaction.apply_to(self.applied)

    def _execute(self, todo: Plan, rules: list[BatchMessage], sticky: bool) -> None:
        if sticky and todo:
            self._forget_clients(todo)
        self._commit(todo.switch, rules)
        self._commit(todo.sweep, [])

    def _forget_clients(self, todo: Plan) -> None:
        """Let go of clients in the very transaction that takes their endpoints away."""
        after = self._after(todo)
        for protocol in STICKY_PROTOCOLS:
            name = f"affinity-{protocol}"
            if stale := stale_affinity(self._affinity(name), protocol, after):
                todo.switch.forget[name] = stale

    def _affinity(self, name: str) -> list[tuple[bytes, bytes]]:
        try:
            entries = [read_element(element) for element in self.netlink.elements(self.family, name)]
        except NetlinkError as error:
            if is_missing(error):
                return []
            raise
        return [(key, value) for key, value in entries if isinstance(value, bytes)]

    def _sweep_affinity(self) -> None:
        """Once more after the switch: a packet may have written an entry meanwhile."""
        for protocol in STICKY_PROTOCOLS:
            name = f"affinity-{protocol}"
            for key in stale_affinity(self._affinity(name), protocol, self.applied):
                try:
                    self.netlink.commit(element_messages(Message.DELSETELEM, self.family, name, {key: b""}))
                except NetlinkError as error:  # it timed out by itself
                    if not is_missing(error):
                        raise

    # --- the two ways to work ---

    def reconcile(self, desired: Desired, kept: Callable[[NamespacedName], bool] = keep_nothing) -> Report:
        """Make the table hold `desired`, and its rules be ours; TransactionError if that cannot be done.

        Read, compare, write: if someone else changes our table between, all of it is done again.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._reconcile(desired, kept)
            except TransactionError as error:
                if attempt == ATTEMPTS - 1 or error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY):
                    raise
        raise AssertionError("unreachable")

    def _reconcile(self, desired: Desired, kept: Callable[[NamespacedName], bool]) -> Report:
        structure = self._read()
        todo = plan(self.applied, desired, kept)
        shapes = self._shapes_after(todo)
        wanted = self._skeleton(shapes)
        repair = compare(structure, self._expect(shapes))
        if repair.replace:
            return self._replace(wanted, todo, repair)
        if repair.sets or repair.contents or repair.chains:
            libnftables.run(
                render_repair(without_affinity_updates(wanted), repair.sets, repair.contents, repair.chains)
            )
        rules = [rule_message(chain, rule) for chain, rule in netlink_rules(wanted, repair.chains)]
        self._execute(todo, rules, sticky=True)
        self._remove_extra(repair)
        self._sweep_affinity()
        self._numbered = {c.name for c in wanted.chains if NUMBERED.fullmatch(c.name)}
        return Report(self.family, todo.changes, *_counts(todo), repair.damage)

    def _shapes_after(self, todo: Plan) -> Shapes:
        """The numbered chains that the table needs once `todo` is done, kept frontends included."""
        after = self._after(todo)
        return _shapes(
            (v for v in after["services"].values() if isinstance(v, Verdict)),
            (v for v in after["affinity-rules"].values() if isinstance(v, Verdict)),
        )

    def _after(self, todo: Plan) -> Elements:
        """What `applied` will be once the switch is committed."""
        touched = todo.switch.remove.keys() | todo.switch.add.keys()
        after = {n: dict(held) if n in touched else held for n, held in self.applied.items()}
        todo.switch.apply_to(after)
        return after

    def _replace(self, wanted: Skeleton, todo: Plan, repair: Repair) -> Report:
        """A new table in place of one whose declarations are wrong, in one transaction."""
        todo.switch.apply_to(self.applied)
        todo.sweep.apply_to(self.applied)
        libnftables.run(render_replacement(without_affinity_updates(wanted), self.applied))
        rules = [
            rule_message(chain, rule)
            for chain, rule in netlink_rules(wanted, [c.name for c in wanted.chains])
        ]
        if rules:
            self.netlink.commit(rules)
        return Report(self.family, todo.changes, *_counts(todo), ("as a whole",))

    def _remove_extra(self, repair: Repair) -> None:
        """Chains and sets that nothing refers to any more; what the kernel still holds on to waits."""
        if not repair.extra_sets and not repair.extra_chains:
            return
        try:
            libnftables.run(render_removal(self.family, repair.extra_sets, repair.extra_chains))
        except TransactionError:
            if not all(NUMBERED.fullmatch(name) for name in (*repair.extra_sets, *repair.extra_chains)):
                raise

    def change(self, targets: Mapping[bytes, Target | None]) -> Plan:
        """Do what an event asks of these frontends (None: gone), on top of a `reconcile`d table.

        Their elements in other sets than `services` and `endpoints-*` are as they were. A numbered
        chain that is no longer used stays until the next `reconcile`.
        """
        todo = plan_frontends(self.applied, targets)
        sticky = any(_sticky(self.applied, change.key) for change in todo.changes)
        added = {v for v in todo.switch.add["services"].values() if isinstance(v, Verdict)}
        if not {v.chain for v in added} <= self._numbered | {"no-endpoints"}:
            shapes = _shapes(added, ())
            chains = [c.name for c in self._skeleton(shapes).chains if NUMBERED.fullmatch(c.name)]
            libnftables.run(render_repair(self._skeleton(shapes), (), (), chains))
            self._numbered.update(chains)
        self._execute(todo, [], sticky)
        if sticky:
            self._sweep_affinity()
        return todo


def _sticky(applied: Elements, key: bytes) -> bool:
    verdict = applied["services"].get(key)
    return isinstance(verdict, Verdict) and is_sticky(verdict)


def _shapes(services: Iterable[Verdict], remembered: Iterable[Verdict]) -> Shapes:
    """The numbered chains that these verdicts lead to."""
    verdicts = {verdict._replace(comment="") for verdict in services}
    return Shapes(
        frozenset(verdict_count(v) for v in verdicts if verdict_count(v) and not is_sticky(v)),
        frozenset(verdict_count(v) for v in verdicts if is_sticky(v)),
        frozenset(int(v.chain.removeprefix("remember-")) for v in remembered if NUMBERED.fullmatch(v.chain)),
    )


def _counts(todo: Plan) -> tuple[int, int]:
    (out, into), (swept, _) = todo.switch.counts, todo.sweep.counts
    return out + swept, into
