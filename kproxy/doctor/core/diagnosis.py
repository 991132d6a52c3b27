"""Facts -> findings: applies the table of causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kproxy.doctor.core.cause import Cause, Finding, Sighting, Sureness, Unseen
from kproxy.doctor.core.causes import CAUSES
from kproxy.doctor.core.facts import Facts


class Diagnosis(NamedTuple):
    """The result of a look."""

    findings: tuple[Finding, ...]
    """Sure and likely ones, sorted by id."""
    unseen: tuple[Finding, ...]
    """Causes that could not be looked for."""
    checked: int
    """The number of causes that were looked for."""

    @property
    def status(self) -> int:
        """The exit status: 1 with findings, else 2 if it could not look everywhere, else 0."""
        return 1 if self.findings else 2 if self.unseen else 0


def diagnose(facts: Facts, causes: Iterable[Cause] = CAUSES) -> Diagnosis:
    """Look for each cause whose facts the command looks at."""
    findings: list[Finding] = []
    unseen: list[Finding] = []
    checked = 0
    for cause in causes:
        needs = [getattr(facts, name) for name in cause.needs]
        if any(value is None for value in needs):
            continue
        if missing := [value.why for value in needs if isinstance(value, Unseen)]:
            unseen.append(_unseen(cause, missing))
            continue
        checked += 1
        findings += _found(cause, cause.check(*needs))
    return Diagnosis(tuple(findings), tuple(unseen), checked)


def _found(cause: Cause, sightings: Iterable[Sighting]) -> Iterator[Finding]:
    for each in sightings:
        sureness = Sureness.SURE if each.sure else Sureness.LIKELY
        yield Finding(cause, sureness, each.subject, each.what, each.evidence)


def _unseen(cause: Cause, reasons: Iterable[str]) -> Finding:
    return Finding(cause, Sureness.UNSEEN, "", "", tuple(dict.fromkeys(reasons)))
