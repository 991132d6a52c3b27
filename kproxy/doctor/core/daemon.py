"""Checks of the running kproxy: whether it runs, and whether it could program everything."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.facts import Daemon
from kproxy.doctor.core.objects import Objects
from kproxy.model import Family, family_of
from kproxy.reconcile.core.report import REJECTED

SHOWN = 3
"""The number of last errors to show."""


def not_running(daemon: Daemon) -> Iterator[Sighting]:
    """No kproxy answers on the socket of the state directory."""
    if daemon.failure:
        yield Sighting(NODE, "kproxy run does not answer", (daemon.failure,))


def no_table(tables: tuple[Family, ...], objects: Objects) -> Iterator[Sighting]:
    """The kernel has no table of kproxy for a family of which there are frontends."""
    for family in sorted({family_of(frontend.address) for frontend in objects.snapshot.frontends}):
        if family not in tables:
            others = ", ".join(f"{each} kproxy" for each in tables) or "none"
            yield Sighting(NODE, f"the kernel has no table {family} kproxy", (f"tables of kproxy: {others}",))


def rejected(objects: Objects) -> Iterator[Sighting]:
    """The kernel refused the elements of a Service."""
    for service in objects.services:
        problems = objects.problems.get(f"Service {service.name}", [])
        if any(problem.message == REJECTED for problem in problems):
            errors = [message for _, message in objects.context.failures("Service", service.name)][-SHOWN:]
            what = "the kernel refused a change of this Service"
            yield Sighting(f"Service {service.name}", what, tuple(errors))
