"""The table of one family in the kernel, and a copy of its elements.

`reconcile` compares the whole table and repairs every difference. `change` applies the change of some
services, and takes time in proportion to that change. Both create new chains first, then commit in the order
that the plan requires (table/plan.py), and `reconcile` removes unused chains last. If another program deleted
the table, `restore` writes it back. If another program changed elements, `repair_elements` writes them back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from ipaddress import ip_address

from msgspec import Struct
from msgspec.structs import replace

from kproxy.kernel.conntrack import EndedFlows, end_handshakes
from kproxy.kernel.host import kernel_since
from kproxy.kernel.netlink.core.codec import BatchMessage
from kproxy.kernel.netlink.core.constants import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_NEWSETELEM,
)
from kproxy.kernel.netlink.core.elements import element_messages, list_element, packed_messages, read_element
from kproxy.kernel.netlink.core.structure import removal, table_removal, whole_table, writing
from kproxy.kernel.netlink.route import is_local
from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError, is_missing
from kproxy.kernel.ownership import foreign_owner
from kproxy.kernel.rehearsal import expected_structure
from kproxy.kernel.structure import has_table, read_structure
from kproxy.model import Address, Family, Protects, Protocol, protect_nothing
from kproxy.nft.elements import Elements, Field, Keys, Value, Verdict, unpack
from kproxy.nft.render import render_changes
from kproxy.nft.ruleset import SetDeclaration, Skeleton
from kproxy.nft.structure import Structure, TableFlags
from kproxy.nft.transaction import Transaction
from kproxy.problems import KproxyError, TransactionError, UnsupportedFamily
from kproxy.reconcile.affinity import Concerned, Entry, StaleAffinity, entries_of
from kproxy.reconcile.ahead import ReadAhead, read_set
from kproxy.reconcile.core.refusals import describe, may_be_race, refused_elements
from kproxy.reconcile.core.repair import NEW_TABLE, Repair, compare, has_same_form, is_counting
from kproxy.reconcile.core.report import Report, describe_counting
from kproxy.reconcile.flows import StaleFlows
from kproxy.table.compile import Delta, Desired
from kproxy.table.flows import FlowRule, flow_rules, may_wait, new_frontends, put_back
from kproxy.table.layout import (
    TABLE,
    AffinityKey,
    EndpointScope,
    FrontendKey,
    FrontendSide,
    PackedSocket,
    SetName,
    affinity_map,
    count_endpoints,
    counts_endpoints,
    endpoints_map,
    frontend_protocol,
    is_frontend,
    is_numbered,
    slot_endpoints,
)
from kproxy.table.plan import FrontendChange, Plan, may_end_affinity, plan, plan_change, stale_affinity
from kproxy.table.skeleton import (
    INTERVAL_KEYS,
    NO_NUMBERED_CHAINS,
    NumberedChains,
    Options,
    numbered_chains,
    skeleton,
)

ATTEMPTS = 5
LARGE = 1000
"""The number of elements from which a transaction is large, so that monitors should not receive it."""
WITH_CHAINS = (*(scope.verdicts for scope in EndpointScope), SetName.AFFINITY_RULES)
"""The maps whose verdicts lead to numbered chains."""


def _nothing(*_: object) -> AbstractContextManager[object]:
    return nullcontext()


class View(Struct, frozen=True):
    """What a table is to contain at one moment, for an audit (audit.py), which consumes the elements."""

    rules: Skeleton
    """The skeleton without numbered chains."""
    elements: Elements
    foreign_commits: int
    """The number of generations that other programs had committed."""


def transaction_messages(family: Family, transaction: Transaction) -> list[BatchMessage]:
    """Return the netlink messages of a transaction: removals, then additions."""

    def messages(kind: int, name: str, members: Mapping[bytes, Value]) -> Iterator[BatchMessage]:
        return element_messages(kind, family, name, members, name in INTERVAL_KEYS)

    found: list[BatchMessage] = []
    if transaction.forget and kernel_since(6, 3):  # NFT_MSG_DESTROYSETELEM: a missing element is no error
        for name, keys in transaction.forget.items():
            found += messages(NFT_MSG_DESTROYSETELEM, name, dict.fromkeys(keys, b""))
    for name, removed in transaction.remove.items():
        found += messages(NFT_MSG_DELSETELEM, name, dict.fromkeys(removed, b""))
    for name, added in transaction.add.items():
        found += messages(NFT_MSG_NEWSETELEM, name, added)
    return found


class Dataplane:
    """kproxy's table of one family, in the network namespace of the process.

    After an error of `reconcile`, the next call must be `reconcile` again.
    """

    def __init__(
        self,
        netlink: Netlink,
        family: Family,
        options: Options,
        expect: Callable[[Skeleton], Structure] = expected_structure,
        flags: TableFlags = TableFlags.NONE,
        ahead: ReadAhead | None = None,
    ) -> None:
        """`expect` returns the structure that the kernel has after loading a skeleton.

        `flags` are those of the table: NONE or OWNED. With OWNED, `netlink` becomes its owner. `ahead` has
        read the elements for the first comparison.
        """
        self._ahead = ahead
        self.netlink = netlink
        self.family = family
        self.options = options
        self.applied: Elements = {}
        """A copy of the table's elements, without those that packets write."""
        self._flags = flags
        self._find_structure = expect
        self._expected: dict[tuple[NumberedChains, bool], Structure] = {}
        self._counted = True
        """Whether the table counts the connections of each endpoint."""
        self._chains: set[str] = set()
        """The chains of the table. A change that only leads to these does not need the skeleton."""
        self.pause_monitor: Callable[[], AbstractContextManager[object]] = nullcontext
        """The context for large transactions: TableMonitor.paused."""
        self.removing: Callable[[Family, Transaction], AbstractContextManager[object]] = _nothing
        """The context for transactions that remove or rewrite verdicts, and so their counters."""
        self._foreign_commits: int | None = None
        """The number of generations that other programs had committed when the table was read."""
        self._gap: set[PackedSocket] = set()
        """The TCP frontends of a restored table, to which packets may have passed untranslated."""
        self._absent = False
        """The kernel does not support this family, so there is no table."""
        self.flows = StaleFlows(netlink, family)
        self.affinity = StaleAffinity(family)

    def set_options(self, options: Options) -> bool:
        """Set the options. Returns whether they changed; then `reconcile` must be called."""
        changed, self.options = options != self.options, options
        if changed:
            self._expected = {}
        return changed

    @property
    def endpoints(self) -> int:
        """The number of slots with an endpoint."""
        return count_endpoints(self.applied)

    # --- reading ---

    def _skeleton(self, chains: NumberedChains) -> Skeleton:
        return skeleton(self.family, self.options, chains, self._counted)

    def _expect(self, chains: NumberedChains) -> Structure:
        key = chains, self._counted
        if key not in self._expected:
            found = self._find_structure(self._skeleton(chains))
            self._expected = {key: replace(found, table=self._flags)}
        return self._expected[key]

    def read(self) -> Structure | None:
        """Read the table into `applied`. Returns its structure; None if it does not exist.

        Repeated if the ruleset changes during the reading, but not more than ATTEMPTS times in total: a busy
        program must not stop kproxy. The result of the last time is right if that program did not change this
        table. If it did, a later comparison finds that.
        """
        rules = self._skeleton(NO_NUMBERED_CHAINS)
        for attempt in range(ATTEMPTS):
            try:
                before, self._foreign_commits = self.netlink.generation(), None
                structure = read_structure(self.netlink, rules, settled=attempt < ATTEMPTS - 1)
                listed = self._ahead.take(self.family, before) if self._ahead else {}
                self.applied = listed or {
                    d.name: dict(read_set(self.netlink, self.family, d, structure))
                    for d in rules.written_sets
                }
                if self.netlink.generation() == before:
                    self._foreign_commits = before - self.netlink.commits
                    return structure
                if attempt == ATTEMPTS - 1:
                    return structure
            except (Interrupted, NetlinkError):
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def is_gone(self) -> bool:
        """Whether the table does not exist, although the kernel supports the family."""
        return not self._absent and not has_table(self.netlink, self.family)

    def is_unchanged(self) -> bool:
        """Whether no other program changed any table since this one was read.

        No other program can change an owned table. Otherwise the generations tell: each committed transaction
        creates one, and kproxy counts its own.
        """
        return bool(self._flags) or self._foreign_commits == self.netlink.generation() - self.netlink.commits

    # --- audits ---

    def view(self) -> View:
        """Return what the table is to contain. Takes some milliseconds, because the elements are copied."""
        copy = {name: dict(members) for name, members in self.applied.items()}
        foreign = self.netlink.generation() - self.netlink.commits
        return View(self._skeleton(NO_NUMBERED_CHAINS), copy, foreign)

    def has_structure(self, view: View, chains: NumberedChains, structure: Structure | None) -> bool:
        """Whether the structure that an audit read is right. Numbered chains may be missing or extra.

        `chains` are those to which the elements of `view` lead. False also if stale UDP flows may remain.
        """
        if self._absent:
            return structure is None
        if self.flows.remain or view.rules != self._skeleton(NO_NUMBERED_CHAINS):
            return False
        repair = compare(structure, self._expect(chains))
        return not (repair.create or repair.replace or repair.convert or repair.damage)

    def can_look_up(self, name: str, keys: set[bytes]) -> bool:
        """Whether `has_element` can answer for these keys: not for ranges, and not for nft's `*`."""
        declared = {d.name: d for d in self._skeleton(NO_NUMBERED_CHAINS).written_sets}
        return not keys or (all(keys) and not declared[name].interval_key)

    def has_element(self, name: str, key: bytes) -> bool:
        """Whether the kernel has an element as it is to be: with its value, or not at all."""
        found = self.netlink.element(self.family, name, key)
        value = None if found is None else read_element(found)[1]
        return value == self.applied[name].get(key)

    def confirm(self, view: View) -> None:
        """Record that the table was right, whatever other programs had committed before the view."""
        self._foreign_commits = view.foreign_commits

    # --- writing ---

    def _commit(self, transaction: Transaction, structure: Sequence[BatchMessage] = ()) -> None:
        self._send([*structure, *transaction_messages(self.family, transaction)], transaction)

    def _send(self, messages: list[BatchMessage], transaction: Transaction) -> None:
        try:
            with self.pause_monitor() if sum(transaction.counts) > LARGE else nullcontext():
                self.netlink.commit(messages)
        except NetlinkError as error:
            raise self._refused(error, transaction) from error

    def _refused(self, error: NetlinkError, transaction: Transaction) -> TransactionError:
        """Return the error that names the refused elements. `applied` already contains the transaction."""
        if error.errno == errno.EPERM and (owner := foreign_owner(self.netlink, self.family)):
            return TransactionError(owner, errno.EPERM)
        owners = self.applied, transaction.remove
        removed, added = transaction.counts
        named = describe(self._skeleton(NO_NUMBERED_CHAINS), error.refusals, *owners)
        return TransactionError(
            f"The kernel refused a transaction on table {self.family} {TABLE} "
            f"({removed} elements to remove, {added} to add): {error.strerror}{named and f': {named}'}.",
            error.errno or 0,
            refused=refused_elements(error.refusals, *owners),
        )

    def _execute(
        self,
        todo: Plan,
        concerned: Concerned,
        flow_rules_of: Callable[[], Mapping[PackedSocket, FlowRule]],
        structure: Sequence[BatchMessage] = (),
    ) -> EndedFlows:
        """Commit a plan that `applied` already contains, and with its switch the messages of `structure`.

        `concerned` are the frontends whose affinity entries may be stale now. The transaction that removes
        endpoints also removes the entries of their clients. These are removed once more after it, because a
        packet may have written one in between. If there are many entries, they wait. Then UDP flows to
        removed endpoints are ended, or wait: `flow_rules_of` is called only then, so the commit does not wait
        for it. The sweep comes last: if kproxy is killed before it, the remaining slots show the next
        comparison which flows to end.
        """
        newly_local = _newly_local(self.applied, todo)
        protocols = [each for each in _protocols(concerned) if not self.affinity.may_wait(each)]
        for protocol in protocols if todo else ():
            stale = self._stale_affinity(protocol, newly_local)
            if stale:
                todo.switch.forget[affinity_map(protocol)] = [*stale]
        try:
            with self.removing(self.family, todo.switch) if _removes_verdicts(todo) else nullcontext():
                self._commit(todo.switch, structure)
        except TransactionError:
            self._undo(todo)
            raise
        for protocol in _protocols(concerned):
            if protocol in protocols:
                self._forget(affinity_map(protocol), self._stale_affinity(protocol, newly_local))
            else:
                self.affinity.wait(protocol, concerned, newly_local)
        flows = flow_rules_of()
        ended = self.flows.end(flows, may_wait(flows, todo))
        try:
            self._commit(todo.sweep)
        except TransactionError:
            todo.sweep.undo_on(self.applied)
            raise
        return ended

    def _end_handshakes(self, report: Report, frontends: set[PackedSocket]) -> Report:
        """End TCP handshakes that clients began while the verdicts of these frontends were missing."""
        ended = end_handshakes(self.netlink, self.family, frontends)
        return replace(report, handshakes=ended.flows, warnings=report.warnings + ended.warnings)

    def _stale_affinity(self, protocol: Protocol, newly_local: set[FrontendKey]) -> list[AffinityKey]:
        return self._stale(entries_of(self.netlink, self.family, protocol), protocol, newly_local)

    def _stale(
        self, entries: Iterable[Entry], protocol: Protocol, newly_local: set[FrontendKey]
    ) -> list[AffinityKey]:
        def is_inside(client: Address) -> bool:
            pods = self.options.pod_cidrs
            return any(ip_address(client) in network for network in pods) or is_local(client)

        return stale_affinity(entries, protocol, self.applied, newly_local, is_inside)

    def _forget(self, name: SetName, keys: list[AffinityKey]) -> None:
        if keys and kernel_since(6, 3):
            transaction = Transaction()
            transaction.forget[name] = [*keys]
            self._commit(transaction)
            return
        for key in keys:
            try:
                self.netlink.commit(element_messages(NFT_MSG_DELSETELEM, self.family, name, {key: b""}))
            except NetlinkError as error:
                if not is_missing(error):  # a missing entry has timed out
                    raise

    def _replace(self, rules: Skeleton, actual: Structure, newly_local: set[FrontendKey]) -> None:
        """Replace the table by a new one with the applied elements, in one transaction.

        It keeps the elements that packets wrote, except affinity entries that are stale now.
        """
        everything = Transaction()
        everything.add.update(self.applied)
        new_table = [table_removal(self.family, TABLE), *whole_table(rules, self._flags)]
        entries = list(self._entries(rules, actual, newly_local))
        self._commit(everything, [*new_table, *entries])

    def _entries(
        self, rules: Skeleton, actual: Structure, newly_local: set[FrontendKey]
    ) -> Iterator[BatchMessage]:
        """Return the messages that add what packets wrote again, with the timeouts that are left."""
        expected = self._expect(numbered_chains(self.applied))
        protocols: dict[str, Protocol] = {affinity_map(protocol): protocol for protocol in Protocol}
        for name in (declaration.name for declaration in rules.sets if declaration.timeout):
            if has_same_form(name, actual, expected):
                protocol = protocols.get(name)
                stale = frozenset(self._stale_affinity(protocol, newly_local) if protocol else ())
                found = self.netlink.elements(self.family, name)
                stay = (each for each in found if read_element(each)[0] not in stale)
                packed = map(list_element, map(bytes, stay))
                yield from packed_messages(NFT_MSG_NEWSETELEM, self.family, name, packed)

    def _prepare(self, rules: Skeleton, actual: Structure | None, repair: Repair) -> list[BatchMessage]:
        """Create what an existing table lacks. Return the other messages, which go with the elements."""
        if actual is None:
            return whole_table(rules, self._flags)
        missing = [name for name in repair.chains if name not in actual.chains]
        others = [name for name in repair.chains if name in actual.chains]
        self._create(rules, repair.sets, missing)
        return writing(rules, (), repair.contents, others)

    def _create(self, rules: Skeleton, sets: Collection[str], chains: Collection[str]) -> None:
        """Create sets and chains of an existing table, in a transaction of their own.

        If a packet enters the table before a transaction and looks up a verdict after it, the kernel follows
        the new verdict, but has no rules yet of a chain that the same transaction created. The packet would
        pass untranslated, and so would the whole connection.
        """
        if sets or chains:
            self._commit(Transaction(), writing(rules, sets, (), chains))

    def _create_chains(self, todo: Plan) -> None:
        """Create the numbered chains to which a plan leads, if the table lacks them."""
        verdicts: Elements = {name: todo.switch.add.get(name, {}) for name in WITH_CHAINS}
        if self._chains.issuperset(_chains_of(verdicts)):
            return
        rules = self._skeleton(numbered_chains(verdicts))
        missing = {chain.name for chain in rules.chains} - self._chains
        try:
            self._create(rules, (), missing)
        except TransactionError:
            self._find_structure(rules)  # raises an error that names what this host lacks for the chains
            raise
        self._chains |= missing

    def _remove_extra(self, repair: Repair) -> None:
        """Remove chains and sets that are not expected. Numbered chains that are in use stay."""
        if not repair.extra_sets and not repair.extra_chains:
            return
        try:
            self.netlink.commit(removal(self.family, TABLE, repair.extra_sets, repair.extra_chains))
        except NetlinkError as error:
            if not all(map(is_numbered, (*repair.extra_sets, *repair.extra_chains))):
                raise self._refused(error, Transaction()) from error

    # --- operations ---

    def restore(self) -> Report | None:
        """Write back a deleted table, as the last commit left it. Returns None if it was not deleted.

        May be called only after a successful `reconcile` or `change`. It does not compute the desired state,
        which halves the time without services. `reconcile` must be called after it, because packets passed in
        between.
        """
        if not self.is_gone():
            return None
        rules = self._skeleton(numbered_chains(self.applied))
        everything = Transaction()
        everything.add.update(self.applied)
        self._commit(everything, whole_table(rules, self._flags))
        self._gap = put_back(everything.add)
        return Report(self.family, (), *everything.counts, ("as a whole",))

    def repair_elements(self, keys: Keys) -> Report | None:
        """Write elements back, as the last commit left them. Returns None if only `reconcile` can do it.

        That is the case for UDP, because flows to wrong endpoints may exist, for elements that a service
        cannot have, and for many elements. If TransactionError is raised, nothing changed.
        """
        sets = self._skeleton(NO_NUMBERED_CHAINS).written_sets
        declared = {d.name: d for d in sets if not d.interval_key}
        if self._absent or not kernel_since(6, 3) or not all(map(declared.__contains__, keys)):
            return None
        too_many = sum(map(len, keys.values())) > LARGE
        if too_many or any(_needs_comparison(declared[name], keys[name]) for name in keys):
            return None
        todo = Transaction()
        for name, changed in keys.items():
            todo.forget[name] = list(changed)
            todo.add[name] = {key: self.applied[name][key] for key in changed & self.applied[name].keys()}
        self._commit(todo)
        for protocol in Protocol if self.applied[SetName.AFFINITY_RULES] else ():
            self._forget(affinity_map(protocol), self._stale_affinity(protocol, set()))
        repaired = [
            f"{name} {{ {' . '.join(unpack(key, declared[name].key, self.family))} }}"
            for name, changed in sorted(keys.items())
            for key in sorted(changed)
        ]
        _, added = todo.counts
        report = Report(self.family, (), len(repaired) - added, added, (), repaired=tuple(repaired))
        return self._end_handshakes(report, put_back(todo.add))

    def reconcile(self, desired: Desired, protected: Protects = protect_nothing) -> Report:
        """Read and compare the table, and make it contain exactly `desired` and kproxy's rules.

        If another program changes the table at the same time, everything is repeated. If the kernel lacks
        IPv6 and there are IPv6 frontends, the report has a warning. Raises TransactionError if the kernel
        refuses it.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._reconcile(desired, protected)
            except UnsupportedFamily as error:
                self.applied, self._absent = {}, True
                return Report(self.family, (), 0, 0, (), warnings=(str(error),) if desired.specs else ())
            except TransactionError as error:
                if attempt == ATTEMPTS - 1 or not may_be_race(error):
                    raise
        raise AssertionError("unreachable")

    def _reconcile(self, desired: Desired, protected: Protects) -> Report:
        todo, rules, actual, repair = self._compare(desired, protected)
        self._absent = False
        self._chains = {chain.name for chain in rules.chains}
        damage = _damage(repair)
        flows = partial(flow_rules, self.applied, desired.specs, todo, protected)
        if actual and (repair.replace or repair.convert):
            self._replace(rules, actual, _newly_local(self.applied, todo))
            ended = self.flows.end(flows())
        else:
            try:
                structure = self._prepare(rules, actual, repair)
                ended = self._execute(todo, concerned=None, flow_rules_of=flows, structure=structure)
            except TransactionError:
                if actual is None:
                    self._find_structure(rules)  # raises an error that names what this host lacks
                raise
            self._remove_extra(repair)
        counting = self._counting(actual)
        report = Report(self.family, todo.changes, *_counts(todo), damage, *ended, counting=counting)
        late, self._gap = self._gap | new_frontends(todo), set()
        return self._end_handshakes(report, put_back(self.applied) if damage else late)

    def _compare(
        self, desired: Desired, protected: Protects
    ) -> tuple[Plan, Skeleton, Structure | None, Repair]:
        """Read the table. Returns what is to be done, which `applied` then contains, and what was read."""
        actual = self.read()
        todo = plan(self.applied, desired.specs, desired.elements, protected)
        self._apply(todo)
        counted = actual is None or is_counting(actual)
        self._counted = self._may_count(self.endpoints, counted)
        needed = numbered_chains(self.applied)
        repair = NEW_TABLE if actual is None else compare(actual, self._expect(needed))
        return todo, self._skeleton(needed), actual, repair

    def _may_count(self, endpoints: int, counted: bool) -> bool:
        return counts_endpoints(endpoints, self.options.max_endpoint_counters, counted)

    def _counting(self, actual: Structure | None) -> str:
        """Return for a report how the table counts connections, if it did so differently before."""
        limit = self.options.max_endpoint_counters
        if self._counted == (limit != 0 if actual is None else is_counting(actual)):
            return ""
        return describe_counting(self._counted, self.endpoints, limit)

    def _apply(self, todo: Plan) -> None:
        todo.switch.apply_to(self.applied)
        todo.sweep.apply_to(self.applied)

    def _undo(self, todo: Plan) -> None:
        todo.sweep.undo_on(self.applied)
        todo.switch.undo_on(self.applied)

    def change(self, delta: Delta) -> Report:
        """Apply a change, after a successful `reconcile`. If TransactionError is raised, nothing changed.

        A numbered chain that is no longer used stays until the next `reconcile`.
        """
        if self._absent:
            return Report(self.family, (), 0, 0, ())
        todo = plan_change(self.applied, delta.specs, delta.elements)
        concerned = {
            each.side.key for each in todo.changes if may_end_affinity(self.applied, todo.switch, each)
        }
        flows = partial(flow_rules, self.applied, delta.specs, todo)
        counted = self._may_count(self.endpoints + _growth(todo), self._counted)
        if counted != self._counted:
            return self._change_counting(todo, counted, flows)
        self._create_chains(todo)
        self._apply(todo)
        ended = self._execute(todo, concerned, flows)
        return Report(self.family, todo.changes, *_counts(todo), (), *ended)

    def _change_counting(
        self, todo: Plan, counted: bool, flows: Callable[[], Mapping[PackedSocket, FlowRule]]
    ) -> Report:
        """Commit a plan by a new table, with or without counters of endpoints."""
        self._counted = counted
        self._apply(todo)
        rules = self._skeleton(numbered_chains(self.applied))
        try:
            actual = read_structure(self.netlink, rules, settled=False)
            if actual is None:
                raise TransactionError(f"Another program deleted table {self.family} {TABLE}.", errno.ENOENT)
            self._replace(rules, actual, _newly_local(self.applied, todo))
        except (KproxyError, OSError):
            self._undo(todo)
            self._counted = not counted
            raise
        self._chains = {chain.name for chain in rules.chains}
        ended, counting = self.flows.end(flows()), self._counting(actual)
        return Report(self.family, todo.changes, *_counts(todo), (), *ended, counting=counting)

    def end_found_flows(self) -> Report | None:
        """End the stale UDP flows that the last search found, and forget the stale affinity entries.

        Returns None if there is nothing to report.
        """
        self._forget_found()
        ended = self.flows.end_found()
        return Report(self.family, (), 0, 0, (), *ended) if any(ended) else None

    def _forget_found(self) -> None:
        search = self.affinity.take_found()
        if search is None or search.found is None:
            return
        newly_local = search.newly_local & self.applied[EndpointScope.LOCAL.verdicts].keys()  # as of now
        for protocol, entries in search.found.items():
            self._forget(affinity_map(protocol), self._stale(entries.items(), protocol, newly_local))

    def end_waiting_flows(self) -> None:
        """End the stale UDP flows that wait for a search."""
        self.flows.end_all()


def _protocols(concerned: Concerned) -> Iterable[Protocol]:
    return Protocol if concerned is None else dict.fromkeys(map(frontend_protocol, concerned))


def _chains_of(verdicts: Mapping[str, Mapping[bytes, Value]]) -> Iterator[str]:
    """Return the chains to which these verdicts lead."""
    every = (verdict for members in verdicts.values() for verdict in members.values())
    return (verdict.chain for verdict in every if isinstance(verdict, Verdict))


def _removes_verdicts(todo: Plan) -> bool:
    """Whether the switch removes elements of verdict maps, or rewrites them."""
    return any(todo.switch.remove.get(scope.verdicts) for scope in EndpointScope)


def _growth(todo: Plan) -> int:
    """Return by how many slots with an endpoint a plan changes a table."""
    return sum(count_endpoints(each.add) - count_endpoints(each.remove) for each in (todo.switch, todo.sweep))


def _newly_local(applied: Elements, todo: Plan) -> set[FrontendKey]:
    """Return the frontends of which clients outside may have endpoints on other nodes now.

    Their externalTrafficPolicy becomes Local, or an endpoint moves to another node with its address, as
    virtual machines do. `applied` contains the plan.
    """
    local = (change for change in todo.changes if change.side.scope is EndpointScope.LOCAL)
    return {change.side.key for change in local if change.before is None or _moves(applied, change)}


def _moves(applied: Elements, change: FrontendChange) -> bool:
    if change.after is None:
        return False
    key = change.side.key
    everywhere = slot_endpoints(applied, FrontendSide(EndpointScope.ALL, key), frontend_protocol(key))
    return not (set(change.before or ()) - set(change.after)).isdisjoint(everywhere)


def _damage(repair: Repair) -> tuple[str, ...]:
    """Return the names of what another program changed."""
    return ("as a whole",) if repair.replace else repair.damage


class Preview(Dataplane):
    """A table that is read and compared, and not changed. Its reports say what would be done."""

    def _reconcile(self, desired: Desired, protected: Protects) -> Report:
        todo, rules, actual, repair = self._compare(desired, protected)
        if actual is None:
            self._find_structure(rules)  # raises an error if this host lacks something
        elements = tuple(render_changes(rules, todo.switch, todo.sweep))
        counting = self._counting(actual)
        return Report(
            self.family, todo.changes, *_counts(todo), _damage(repair), elements=elements, counting=counting
        )


def _needs_comparison(declaration: SetDeclaration, keys: set[bytes]) -> bool:
    """Whether some keys belong to UDP frontends, or to elements that a service cannot have."""
    if declaration.name == endpoints_map(Protocol.UDP) or not all(keys):
        return True
    has_protocol = Field.PROTOCOL in declaration.key
    return has_protocol and any(
        not is_frontend(key) or frontend_protocol(key) is Protocol.UDP for key in keys
    )


def _counts(todo: Plan) -> tuple[int, int]:
    (removed, added), (swept, _) = todo.switch.counts, todo.sweep.counts
    return removed + swept, added
