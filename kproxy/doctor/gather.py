"""Gathers the facts: asks the running kproxy or reads manifests, and looks at the kernel and the host.

Each gatherer only reads, and its time is limited. What it cannot read becomes `Unseen`, with the reason. So
one that fails or hangs costs the causes that need its facts, and no others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from kproxy.control.lookup import look_up
from kproxy.doctor.certificates import read_certificates
from kproxy.doctor.core.asked import parse_asked
from kproxy.doctor.core.cause import Unseen
from kproxy.doctor.core.facts import Daemon, Facts, Seen, Structure
from kproxy.doctor.core.objects import Objects
from kproxy.doctor.endpoints import read_listening
from kproxy.doctor.host import find_routes, read_counters, read_sysctls, read_tracking
from kproxy.doctor.kernel import (
    count_affinity,
    find_differences,
    read_flows,
    read_others,
    read_rules,
    read_tables,
)
from kproxy.doctor.links import find_bridges, find_claimants, find_mtu
from kproxy.doctor.names import read_names
from kproxy.kernel.pod_namespaces import own_listeners
from kproxy.problems import ForbiddenError, KproxyError
from kproxy.settings.settings import Settings
from kproxy.show.snapshot import Snapshot
from kproxy.sources.progress import Progress

SKEW = timedelta(minutes=1)
"""The difference between the clocks of hosts that is no finding."""
SECONDS = 8.0
"""The time that all gatherers together may take, after the snapshot has arrived."""


HOST: dict[str, Callable[[], Any]] = {
    "tables": read_tables,
    "sysctls": read_sysctls,
    "counters": read_counters,
    "tracking": read_tracking,
    "foreign": read_others,
    "programs": own_listeners,
    "claimants": find_claimants,
}
"""The gatherers of facts that do not depend on the Services, by field of `Facts`."""
SERVICES: dict[str, Callable[[Objects], Any]] = {
    "routes": find_routes,
    "differences": find_differences,
    "flows": read_flows,
    "affinity": count_affinity,
    "bridges": find_bridges,
    "mtu": find_mtu,
    "listening": read_listening,
    "certificates": read_certificates,
}
"""The gatherers of facts that concern the Services in question, or that the input names."""


def gather(settings: Settings, operand: str, progress: Progress) -> Facts:
    """Gather the facts for a command. Raises KproxyError for an invalid operand or unreadable manifests."""
    facts = _of_input(settings, operand, progress)
    if settings.manifests:
        facts = facts._replace(daemon=None)
        if not settings.kernel:
            return facts
    progress.begin("looking at this host")
    more = {"names": partial(read_names, Path(settings.resolv_conf))}
    facts = facts._replace(structure=_rules(facts.objects), **_at_once(facts.objects, more))
    differs = isinstance(facts.objects, Objects) and (facts.differences or _has_changed(facts.structure))
    if differs and not settings.manifests:
        return _compared_again(facts, _of_input(settings, operand, progress).objects)
    return facts


def _has_changed(structure: Seen[Structure]) -> bool:
    return isinstance(structure, Structure) and bool(structure.changed)


def _compared_again(facts: Facts, objects: Seen[Objects]) -> Facts:
    """Compare the table with the input again: kproxy may have programmed a change meanwhile."""
    if not isinstance(objects, Objects):
        return facts
    differences = _Gatherer(partial(find_differences, objects)).result(_end())
    return facts._replace(differences=differences, structure=_rules(objects))


def _of_input(settings: Settings, operand: str, progress: Progress) -> Facts:
    """Return the facts that the running kproxy or manifests contain."""
    found, daemon = _snapshot(settings, progress)
    known = None if isinstance(found, Unseen) else found
    asked = parse_asked(operand, settings.from_, settings.namespace, known) if operand else None
    objects = found if isinstance(found, Unseen) else Objects(found, asked.services if asked else None)
    return Facts(objects, asked, daemon, now=_time(), soon=_time(SKEW))


def _snapshot(settings: Settings, progress: Progress) -> tuple[Snapshot | Unseen, Daemon | Unseen]:
    """Return the snapshot of the running kproxy or of manifests, and whether kproxy runs."""
    try:
        return look_up(settings, progress), Daemon()
    except ForbiddenError as error:
        return Unseen(str(error)), Unseen(str(error))
    except KproxyError as error:
        if settings.manifests:
            raise
        return Unseen("kproxy run does not answer"), Daemon(str(error))


def _end() -> float:
    return time.monotonic() + SECONDS


def _rules(objects: Seen[Objects]) -> Structure | Unseen:
    """Compare the rules, before threads start."""
    if not isinstance(objects, Objects):
        return objects or Unseen("")
    try:
        return read_rules(objects.snapshot.options)
    except (KproxyError, OSError) as error:
        return Unseen(str(error))


def _at_once(objects: Seen[Objects], more: Mapping[str, Callable[[Objects], Any]]) -> dict[str, Any]:
    """Run all gatherers at once, also `more` of those that concern Services. Returns the facts by field."""
    running = {name: _Gatherer(call) for name, call in HOST.items()}
    of_services = {**SERVICES, **more}
    if isinstance(objects, Objects):
        running |= {name: _Gatherer(partial(call, objects)) for name, call in of_services.items()}
    end = _end()
    return {
        **dict.fromkeys(of_services, objects),
        **{name: each.result(end) for name, each in running.items()},
    }


def _time(later: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + later).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Gatherer:
    """A function that runs in a thread of its own, which ends with the process at the latest."""

    def __init__(self, gather: Callable[[], Any]) -> None:
        self._gather = gather
        self._found: Any = Unseen("the kernel does not answer in time")
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._gather()
        except KproxyError as error:
            self._found = Unseen(error.full)
        except Exception as error:  # of any type: it must not cost more than these facts
            self._found = Unseen(f"{type(error).__name__}: {error}")

    def result(self, end: float) -> Any:
        """Return the facts, or `Unseen` if the function failed or has not returned at `end`."""
        self._thread.join(max(end - time.monotonic(), 0.0))
        return self._found
