"""Checks of kproxy's own tables, and of the connections that they translate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.facts import Difference, Flow, Structure
from kproxy.doctor.core.objects import Objects
from kproxy.model import Family, Frontend, Protocol, family_of, format_socket, owner_text
from kproxy.problems import enumeration
from kproxy.reconcile.core.report import QUARANTINED, plural
from kproxy.table.layout import TABLE
from kproxy.table.skeleton import AFFINITY_ENTRIES

UNANSWERED = 3
"""The number of connections that wait for their first reply, at one endpoint, that is a finding."""
NEAR = 0.9
"""The share of an affinity map's size that is a finding."""
SHOWN = 5
"""The maximum number of differences of one subject in the evidence."""


def no_table(tables: tuple[Family, ...], objects: Objects) -> Iterator[Sighting]:
    """The kernel has no table of kproxy for a family of which there are frontends."""
    for family in sorted({family_of(frontend.address) for frontend in objects.snapshot.frontends}):
        if family not in tables:
            others = enumeration([f"{each} {TABLE}" for each in tables]) or "none"
            yield Sighting(
                NODE, f"the kernel has no table {family} {TABLE}", (f"tables of kproxy: {others}",)
            )


def differs(objects: Objects, differences: tuple[Difference, ...]) -> Iterator[Sighting]:
    """The kernel's table does something else than kproxy computes from the input."""
    intended = {f"Service {name}" for name in objects.inventory.held}
    intended |= {problem.object for problem in objects.snapshot.problems if problem.message == QUARANTINED}
    found = sorted(each for each in differences if each.subject not in intended)
    for subject, group in groupby(found, lambda each: each.subject):
        texts = [each.text for each in group]
        more = (f"and {len(texts) - SHOWN} more",) if len(texts) > SHOWN else ()
        yield Sighting(subject, "the kernel's table is not as the input requires", (*texts[:SHOWN], *more))


def changed_rules(structure: Structure) -> Iterator[Sighting]:
    """Another program changed the rules or sets of kproxy's table."""
    if structure.changed:
        evidence = f"changed: {enumeration(structure.changed)}"
        yield Sighting(NODE, "another program changed kproxy's rules", (evidence,))


def lacking(structure: Structure) -> Iterator[Sighting]:
    """The kernel cannot load kproxy's rules."""
    if structure.lacking:
        yield Sighting(NODE, "the kernel cannot load kproxy's rules", structure.lacking)


def swallowed(flows: tuple[Flow, ...]) -> Iterator[Sighting]:
    """An endpoint does not answer the first packets of TCP connections."""
    for flow in flows:
        if flow.frontend.protocol is Protocol.TCP and flow.unanswered >= UNANSWERED:
            to = format_socket(*flow.endpoint)
            what = f"{flow.unanswered} connections to endpoint {to} wait for its first reply"
            evidence = f"at {flow.frontend}: {_others(flow, flows)}"
            yield Sighting(owner_text(flow.frontend.owner.service), what, (evidence,), sure=False)


def _others(flow: Flow, flows: Iterable[Flow]) -> str:
    answered = sum(e.total - e.unanswered for e in flows if e.frontend is flow.frontend)
    return f"{plural(answered, 'other connection')} got a reply"


def gone_endpoints(objects: Objects, flows: tuple[Flow, ...]) -> Iterator[Sighting]:
    """Clients of a UDP Service still send to an endpoint that is gone."""
    for flow in flows:
        frontend = flow.frontend
        if frontend.protocol is Protocol.UDP and flow.endpoint not in _valid(frontend):
            count = plural(flow.total, "UDP flow")
            what = f"{count} to {format_socket(*flow.endpoint)}, which is not an endpoint"
            if frontend.owner.service not in objects.inventory.held:
                yield Sighting(owner_text(frontend.owner.service), what, (f"at {frontend}",))


def _valid(frontend: Frontend) -> set[tuple[bytes, int]]:
    """Return the endpoints of a frontend. Without any, an untranslated flow is valid."""
    used = {at for side in frontend.sides for at in side.endpoints} | set(frontend.serving)
    return used or {(frontend.address, frontend.port)}


def affinity_full(affinity: Mapping[str, int]) -> Iterator[Sighting]:
    """An affinity map has no space, or almost none, for further clients."""
    for name, count in affinity.items():
        if count >= NEAR * AFFINITY_ENTRIES:
            full = count >= AFFINITY_ENTRIES
            state = "full: further clients have no affinity" if full else "almost full"
            evidence = f"{count} entries, the maximum is {AFFINITY_ENTRIES}"
            yield Sighting(NODE, f"map {name} is {state}", (evidence,), sure=full)
