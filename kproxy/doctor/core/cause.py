"""The vocabulary of the doctor: a cause, a sighting of it, a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple


class Sureness(StrEnum):
    """How sure a finding is."""

    SURE = "sure"
    """The facts leave no other explanation."""
    LIKELY = "likely"
    """The facts fit, but they are also possible on a host that works."""
    UNSEEN = "cannot see"
    """The facts could not be read."""


class Unseen(NamedTuple):
    """Stands for facts that could not be read."""

    why: str


class Sighting(NamedTuple):
    """What a check saw."""

    subject: str
    """`Service default/web`, `Pod default/web-1`, or `this node`."""
    what: str
    """A sentence without full stop."""
    evidence: tuple[str, ...] = ()
    """The facts behind it, each as one line."""
    sure: bool = True


class Cause(NamedTuple):
    """A row of the table of causes."""

    id: str
    """It never changes, and is never used again for another cause."""
    title: str
    effect: str
    """What a client notices."""
    action: str
    """One thing to do."""
    needs: tuple[str, ...]
    """The facts that the check takes, as fields of `Facts`."""
    check: Callable[..., Iterable[Sighting]]


class Finding(NamedTuple):
    """A cause that was found, or that could not be looked for."""

    cause: Cause
    sureness: Sureness
    subject: str
    what: str
    evidence: tuple[str, ...]
