"""The snapshot of a source, whether a kproxy that runs follows it or a command has read it just now."""

from __future__ import annotations

from collections.abc import Iterable

from kproxy.model import Frontend
from kproxy.problems import Problem
from kproxy.show.snapshot import Failure, Snapshot
from kproxy.sources.source import Source


def take_snapshot(
    source: Source,
    frontends: Iterable[Frontend],
    problems: Iterable[Problem],
    last_errors: Iterable[Failure] = (),
) -> Snapshot:
    """What the source holds, and what was made of it. `problems`: those that are not the source's own."""
    return Snapshot(
        source.inventory(),
        list(frontends),
        [*source.problems(), *problems],
        source.node(),
        tuple(last_errors),
        tuple(source.warnings()),
    )
