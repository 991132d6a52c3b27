"""Checks of the running kproxy: whether it runs, and whether it could program everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.facts import Daemon
from kproxy.doctor.core.objects import Objects
from kproxy.model import Address, format_address
from kproxy.reconcile.core.report import QUARANTINED

SHOWN = 3
"""The number of last errors to show."""


def not_running(daemon: Daemon) -> Iterator[Sighting]:
    """No kproxy answers on the socket of the state directory."""
    if daemon.failure:
        yield Sighting(NODE, "kproxy run does not answer", (daemon.failure,))


def quarantined(objects: Objects) -> Iterator[Sighting]:
    """The kernel refused the elements of a Service."""
    for service in objects.services:
        problems = objects.problems.get(f"Service {service.name}", [])
        if any(problem.message == QUARANTINED for problem in problems):
            errors = [message for _, message in objects.context.failures("Service", service.name)][-SHOWN:]
            what = "the kernel refused a change of this Service"
            yield Sighting(f"Service {service.name}", what, tuple(errors))


def unhealthy(objects: Objects) -> Iterator[Sighting]:
    """kproxy run has not programmed something for too long, or gets no data."""
    if objects.snapshot.unhealthy:
        yield Sighting(NODE, "kproxy run reports that it is behind", objects.snapshot.unhealthy)


def claimed(claimants: Mapping[Address, str]) -> Iterator[Sighting]:
    """Another host has a load-balancer address that this host announces."""
    for address, hardware in claimants.items():
        what = f"another host has the load-balancer address {format_address(address)}, too"
        yield Sighting(NODE, what, (f"its MAC address: {hardware}",))


def not_announced(objects: Objects) -> Iterator[Sighting]:
    """A load-balancer address could not be added to the uplink, or announced."""
    if objects.snapshot.address_failures:
        what = "load-balancer addresses are not announced"
        yield Sighting(NODE, what, objects.snapshot.address_failures)
