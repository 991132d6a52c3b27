"""Reads facts from nftables and connection tracking: kproxy's own tables, those of others, connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.facts import Difference, Flow, Structure
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.conntrack import flows
from kproxy.kernel.foreign import read_foreign
from kproxy.kernel.live_table import LiveTable
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.kernel.structure import has_table, read_structure
from kproxy.model import Family, Frontend, Protocol, family_of, owner_text
from kproxy.nft import structure
from kproxy.nft.elements import Elements
from kproxy.nft.foreign import Foreign
from kproxy.nft.transaction import Transaction
from kproxy.problems import KproxyError
from kproxy.reconcile.core.repair import compare
from kproxy.reconcile.core.report import describe
from kproxy.table.compile import SETS, Desired, compile_frontends
from kproxy.table.layout import (
    TABLE,
    EndpointScope,
    PackedSocket,
    SetName,
    affinity_map,
    endpoints_map,
    pack_socket,
    socket_address,
    socket_port,
)
from kproxy.table.plan import Plan, owner_of, plan, plan_change
from kproxy.table.skeleton import INTERVAL_KEYS, NO_NUMBERED_CHAINS, Options, skeleton


def read_tables() -> tuple[Family, ...]:
    """Return the families whose table of kproxy exists. Raises HostError without the right to see it."""
    with Netlink() as netlink:
        return tuple(family for family in Family if has_table(netlink, family))


def read_others() -> Foreign:
    """Return what the tables of other programs contain."""
    with Netlink() as netlink:
        return read_foreign(netlink)


def find_differences(objects: Objects) -> tuple[Difference, ...]:
    """Compare the kernel's tables with the frontends in question. A missing table has no differences."""
    with Netlink() as netlink:
        return tuple(
            difference
            for family in Family
            if has_table(netlink, family)
            for difference in _differences(netlink, family, objects)
        )


def _differences(netlink: Netlink, family: Family, objects: Objects) -> Iterator[Difference]:
    frontends = [f for f in objects.snapshot.frontends if objects.concerns(f.owner.service)]
    todo = _plan(netlink, family, compile_frontends(frontends, family), objects.only is None)
    for change in todo.changes:
        owner = owner_of(change.comment)
        subject = owner_text(owner) if owner.name else NODE
        yield Difference(subject, describe(change))
    for name, count in _in_sets(todo.switch).items():
        yield Difference(NODE, f"set {family} {TABLE} {name}: {count} elements")


def _plan(netlink: Netlink, family: Family, desired: Desired, whole: bool) -> Plan:
    """Return the plan for whole tables, or for some Services, of which elements are read one by one."""
    if whole:
        return plan(_elements(netlink, family), desired.specs, desired.elements)
    some = {name: members for name, members in desired.elements.items() if name not in INTERVAL_KEYS}
    return plan_change(LiveTable(netlink, family), desired.specs, some)


def _elements(netlink: Netlink, family: Family) -> Elements:
    maps = [scope.verdicts for scope in EndpointScope] + [endpoints_map(protocol) for protocol in Protocol]
    return {
        name: dict(read_element(each, name in INTERVAL_KEYS) for each in netlink.elements(family, name))
        for name in (*maps, *SETS)
    }


def _in_sets(switch: Transaction) -> Mapping[str, int]:
    """Return the number of elements that differ, of the sets that contain no endpoints and verdicts."""
    counts = Counter({name: len(members) for name, members in switch.add.items() if name in SETS})
    counts.update({name: len(members) for name, members in switch.remove.items() if name in SETS})
    return {name: count for name, count in sorted(counts.items()) if count}


def read_rules(options: Options) -> Structure:
    """Load kproxy's rules into a network namespace of their own, and compare them with its tables.

    To be called before threads start (fresh_namespace.py). Raises HostError if there can be none.
    """
    changed: list[str] = []
    lacking: list[str] = []
    with Netlink() as netlink, Rehearsal() as rehearsal:
        for family in Family:
            rules = skeleton(family, options, NO_NUMBERED_CHAINS)
            try:
                expected = rehearsal.expected_structure(rules)
            except KproxyError as error:
                lacking.append(error.full)
                continue
            actual = read_structure(netlink, rules, settled=False)
            changed += [f"{family} {TABLE} {name}" for name in _changed(actual, expected)]
    return Structure(tuple(changed), tuple(lacking))


def _changed(actual: structure.Structure | None, expected: structure.Structure) -> list[str]:
    """Return the chains and sets that are missing or different. Additional ones may belong to other flags."""
    if actual is None:
        return []
    found = compare(actual, expected)
    return [name for name in found.damage if name not in (*found.extra_chains, *found.extra_sets)]


def read_flows(objects: Objects) -> tuple[Flow, ...]:
    """Return the tracked connections of the frontends in question, by endpoint."""
    found: list[Flow] = []
    wanted = [f for f in objects.snapshot.frontends if objects.concerns(f.owner.service)]
    with Netlink() as netlink:
        for family in Family:
            for protocol in (Protocol.TCP, Protocol.UDP):
                some = [f for f in wanted if family_of(f.address) is family and f.protocol is protocol]
                found += _flows(netlink, family, protocol, some)
    return tuple(found)


def _flows(netlink: Netlink, family: Family, protocol: Protocol, frontends: list[Frontend]) -> Iterator[Flow]:
    by_socket = {pack_socket(f.address, f.port): f for f in frontends}
    total: Counter[tuple[PackedSocket, PackedSocket]] = Counter()
    unanswered: Counter[tuple[PackedSocket, PackedSocket]] = Counter()
    for frontend, endpoint, waits in flows(netlink, family, by_socket, protocol) if by_socket else ():
        total[frontend, endpoint] += 1
        unanswered[frontend, endpoint] += waits
    for (frontend, endpoint), count in sorted(total.items()):
        at = socket_address(endpoint), socket_port(endpoint)
        yield Flow(by_socket[frontend], at, unanswered[frontend, endpoint], count)


def count_affinity(objects: Objects) -> Mapping[str, int]:
    """Return the number of entries of each affinity map that a Service in question uses."""
    used = {
        (family_of(f.address), affinity_map(f.protocol))
        for f in objects.snapshot.frontends
        if f.affinity_timeout is not None and objects.concerns(f.owner.service)
    }
    with Netlink() as netlink:
        return {f"{family} {name}": _count(netlink, family, name) for family, name in sorted(used)}


def _count(netlink: Netlink, family: Family, name: SetName) -> int:
    return sum(1 for _ in netlink.elements(family, name)) if has_table(netlink, family) else 0
